package namesrv

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// script runs the commands of testdata/routes.
type script struct {
	m   *RouteInfoManager
	now time.Time
}

func newScript() *script {
	s := &script{now: time.Unix(1_700_000_000, 0)}
	s.m = NewRouteInfoManager(slog.New(slog.DiscardHandler), func() time.Time { return s.now })
	return s
}

// Proves what registration, queries, liveness and administration do to the tables, step by step.
func TestRoutes(t *testing.T) {
	datadriven.Walk(t, "testdata/routes", func(t *testing.T, path string) {
		s := newScript()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			arg := func(key, fallback string) string {
				for _, a := range d.CmdArgs {
					if a.Key == key {
						return strings.Join(a.Vals, ",")
					}
				}
				return fallback
			}
			s.run(t, &out, d.Cmd, arg, d.Input)
			return out.String()
		})
	})
}

func number(t *testing.T, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return n
}

// topicsOf reads lines "TopicA 8 [perm=6] [flag=0]".
func topicsOf(t *testing.T, lines string) map[string]*protocol.TopicConfig {
	table := map[string]*protocol.TopicConfig{}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		c := protocol.NewTopicConfig(f[0], int32(number(t, f[1])))
		for _, extra := range f[2:] {
			key, value, _ := strings.Cut(extra, "=")
			switch key {
			case "perm":
				c.Perm = int32(number(t, value))
			case "flag":
				c.TopicSysFlag = int32(number(t, value))
			default:
				t.Fatalf("unknown %s", extra)
			}
		}
		table[f[0]] = c
	}
	return table
}

func (s *script) run(t *testing.T, out *strings.Builder, cmd string, arg func(key, fallback string) string, input string) {
	m, name, addr := s.m, arg("name", "a"), arg("addr", "a0")
	sayGone := func(gone []Gone) {
		slices.SortFunc(gone, func(a, b Gone) int { return strings.Compare(a.Name+a.Addr, b.Name+b.Addr) })
		for _, g := range gone {
			fmt.Fprintf(out, "gone %s %s, heard on %v\n", g.Name, g.Addr, g.Owner)
		}
	}
	switch cmd {
	case "register":
		r := Registration{
			Cluster: arg("cluster", "c"), Name: name, ID: number(t, arg("id", "0")), Addr: addr, HAAddr: "ha-" + addr, Zone: arg("zone", ""),
			Timeout: time.Duration(number(t, arg("timeout", "0"))) * time.Second, Owner: arg("conn", "1"), Exhaustive: arg("exhaustive", "") != "",
			Topics: &protocol.TopicConfigWrapper{
				TopicConfigTable: topicsOf(t, input),
				DataVersion:      protocol.DataVersion{StateVersion: number(t, arg("state", "0")), Counter: number(t, arg("counter", "1"))},
			},
		}
		if acting := arg("acting", ""); acting != "" {
			v := acting == "true"
			r.ActingMaster = &v
		}
		master, err := m.Register(&r)
		switch {
		case err != nil:
			fmt.Fprintln(out, err)
		case master != Master{}:
			fmt.Fprintf(out, "ok, master %s %s\n", master.Addr, master.HAAddr)
		default:
			fmt.Fprintln(out, "ok")
		}
	case "unregister":
		m.Unregister(name, addr)
	case "close":
		sayGone(m.OwnerClosed(arg("conn", "1")))
	case "wait":
		s.now = s.now.Add(time.Duration(number(t, arg("s", "0"))) * time.Second)
		sayGone(m.Expire())
	case "heartbeat":
		m.Heartbeat(name, addr, arg("conn", "1"))
	case "version":
		v, ok := m.DataVersion(name, addr, arg("conn", "1"))
		fmt.Fprintln(out, v.Counter, ok)
	case "wipe":
		fmt.Fprintln(out, m.WipeWritePerm(name))
	case "add-write":
		fmt.Fprintln(out, m.AddWritePerm(name))
	case "delete-topic":
		m.DeleteTopic(arg("topic", ""), arg("cluster", ""))
	case "register-topic":
		var queues []protocol.QueueData
		for broker, c := range topicsOf(t, input) {
			queues = append(queues, protocol.QueueData{BrokerName: broker, ReadQueueNums: c.ReadQueueNums, WriteQueueNums: c.WriteQueueNums, Perm: c.Perm})
		}
		m.RegisterTopic(arg("topic", ""), queues)
	case "route":
		if r, ok := m.Route(arg("topic", "")); ok {
			fmt.Fprintf(out, "%s\n", protocol.EncodeBody(&r))
		} else {
			fmt.Fprintln(out, "no route")
		}
	case "clusters":
		fmt.Fprintf(out, "%s\n", protocol.EncodeBody(m.ClusterInfo()))
	case "members":
		fmt.Fprintf(out, "%s\n", protocol.EncodeBody(m.MemberGroup(arg("cluster", "c"), name)))
	case "lists":
		system, at := m.SystemTopics()
		fmt.Fprintln(out, "all", m.Topics())
		fmt.Fprintln(out, "of cluster c", m.TopicsOfCluster("c"))
		fmt.Fprintln(out, "system", system, "more at", at)
		fmt.Fprintln(out, "unit", m.UnitTopics(), "sub", m.UnitSubTopics(false), "ordinary", m.UnitSubTopics(true))
	case "dump":
		s.dump(out)
	default:
		t.Fatalf("unknown command %s", cmd)
	}
	s.check(t)
}

func (s *script) dump(out *strings.Builder) {
	for _, name := range slices.Sorted(maps.Keys(s.m.brokers)) {
		b := s.m.brokers[name]
		fmt.Fprintf(out, "broker %s/%s %v", b.Cluster, name, b.BrokerAddrs)
		if b.EnableActingMaster {
			fmt.Fprint(out, " acting")
		}
		if b.ZoneName != "" {
			fmt.Fprint(out, " zone ", b.ZoneName)
		}
		fmt.Fprintln(out)
	}
	for _, topic := range slices.Sorted(maps.Keys(s.m.topics)) {
		fmt.Fprint(out, "topic ", topic)
		for _, name := range slices.Sorted(maps.Keys(s.m.topics[topic])) {
			q := s.m.topics[topic][name]
			fmt.Fprintf(out, " %s:%d perm %d", name, q.WriteQueueNums, q.Perm)
		}
		fmt.Fprintln(out)
	}
}

// check holds the tables against each other.
func (s *script) check(t require.TestingT) {
	m := s.m
	names := 0
	for cluster, in := range m.clusters {
		require.NotEmpty(t, in)
		for name := range in {
			require.NotNil(t, m.brokers[name])
			require.Equal(t, cluster, m.brokers[name].Cluster)
			names++
		}
	}
	require.Len(t, m.brokers, names)
	for name, b := range m.brokers {
		require.NotEmpty(t, b.BrokerAddrs)
		seen := map[string]bool{}
		for _, addr := range b.BrokerAddrs {
			require.False(t, seen[addr], "%s has %s twice", name, addr)
			seen[addr] = true
			require.NotNil(t, m.live[brokerKey{name, addr}], "%s at %s will never expire", name, addr)
		}
	}
	for topic, queues := range m.topics {
		require.NotEmpty(t, queues, topic)
		for name, q := range queues {
			require.NotNil(t, m.brokers[name], "%s on %s", topic, name)
			require.Equal(t, name, q.BrokerName)
		}
	}
}
