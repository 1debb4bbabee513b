package namesrv

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/remoting/protocol"
)

// modelBroker is a broker as the model sees it: one line of a list. Masters only, each with the state
// version in which it came.
type modelBroker struct {
	name, addr string
	id         int64
	owner      int
	until      time.Time
	state      int64
}

// model holds what a name server should say, as a plain list that is searched from end to end.
type model struct {
	now     time.Time
	brokers []modelBroker
	// queues are what stands for a broker name: topic to number of queues.
	queues map[string]map[string]int32
}

func (md *model) remove(is func(b modelBroker) bool) {
	md.brokers = slices.DeleteFunc(md.brokers, is)
	maps.DeleteFunc(md.queues, func(name string, _ map[string]int32) bool {
		return !slices.ContainsFunc(md.brokers, func(b modelBroker) bool { return b.name == name })
	})
}

// register is the rule of REGISTER_BROKER in words: an address has one id; of two with one id the one
// with the later state stays; a broker that is not known cannot begin with one topic.
func (md *model) register(b modelBroker, topics map[string]int32) error {
	known := false
	for _, other := range md.brokers {
		if other.name == b.name && other.id == b.id {
			known = true
			if other.addr != b.addr && other.state > b.state {
				md.remove(func(o modelBroker) bool { return o.name == b.name && o.addr == b.addr })
				return nil
			}
		}
	}
	if !known && len(topics) == 1 {
		return ErrPartialRegistration
	}
	md.brokers = slices.DeleteFunc(md.brokers, func(o modelBroker) bool {
		return o.name == b.name && (o.addr == b.addr || o.id == b.id)
	})
	md.brokers = append(md.brokers, b)
	if md.queues[b.name] == nil {
		md.queues[b.name] = map[string]int32{}
	}
	if b.id == 0 {
		maps.Copy(md.queues[b.name], topics)
	}
	return nil
}

// Proves that after any run of registrations, goodbyes, lost connections and silence the routes are
// those of a simple list of brokers, and that the tables agree with each other.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		md := &model{now: time.Unix(1_700_000_000, 0), queues: map[string]map[string]int32{}}
		s := &script{}
		s.m = NewRouteInfoManager(slog.New(slog.DiscardHandler), func() time.Time { return md.now })
		counter := int64(0)
		names := rapid.SampledFrom([]string{"a", "b"})
		addrs := rapid.SampledFrom([]string{"x", "y", "z"})
		owners := rapid.IntRange(1, 4)
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				b := modelBroker{names.Draw(t, "name"), addrs.Draw(t, "addr"), rapid.Int64Range(0, 2).Draw(t, "id"), owners.Draw(t, "owner"), md.now, rapid.Int64Range(0, 2).Draw(t, "state")}
				timeout := time.Duration(rapid.IntRange(0, 3).Draw(t, "timeout")) * 50 * time.Second
				b.until = md.now.Add(timeout)
				if timeout == 0 {
					b.until = md.now.Add(DefaultBrokerTimeout)
				}
				topics, table := map[string]int32{}, map[string]*protocol.TopicConfig{}
				for i := range rapid.IntRange(0, 3).Draw(t, "topics") {
					name, n := "T"+strconv.Itoa(i), int32(rapid.IntRange(1, 9).Draw(t, "queues"))
					topics[name], table[name] = n, protocol.NewTopicConfig(name, n)
				}
				counter++ // every registration is a changed one
				_, err := s.m.Register(&Registration{
					Cluster: "c", Name: b.name, ID: b.id, Addr: b.addr, Timeout: timeout, Owner: b.owner,
					Topics: &protocol.TopicConfigWrapper{TopicConfigTable: table, DataVersion: protocol.DataVersion{StateVersion: b.state, Counter: counter}},
				})
				require.ErrorIs(t, err, md.register(b, topics))
			},
			"unregister": func(t *rapid.T) {
				name, addr := names.Draw(t, "name"), addrs.Draw(t, "addr")
				s.m.Unregister(name, addr)
				md.remove(func(b modelBroker) bool { return b.name == name && b.addr == addr })
			},
			"close": func(t *rapid.T) {
				owner := owners.Draw(t, "owner")
				s.m.OwnerClosed(owner)
				md.remove(func(b modelBroker) bool { return b.owner == owner })
			},
			"heartbeat": func(t *rapid.T) {
				name, addr, owner := names.Draw(t, "name"), addrs.Draw(t, "addr"), owners.Draw(t, "owner")
				s.m.Heartbeat(name, addr, owner)
				for i, b := range md.brokers {
					if b.name == name && b.addr == addr {
						md.brokers[i].owner = owner
						md.brokers[i].until = md.now.Add(s.m.live[brokerKey{name, addr}].timeout)
					}
				}
			},
			"wait": func(t *rapid.T) {
				md.now = md.now.Add(time.Duration(rapid.IntRange(1, 130).Draw(t, "seconds")) * time.Second)
				s.m.Expire()
				md.remove(func(b modelBroker) bool { return md.now.After(b.until) })
			},
			"": func(t *rapid.T) {
				s.check(t)
				require.Equal(t, md.say(), say(s.m))
			},
		})
	})
}

// say lists brokers and routes, in order.
func (md *model) say() []string {
	var lines []string
	for _, b := range md.brokers {
		lines = append(lines, fmt.Sprintf("%s %d %s", b.name, b.id, b.addr))
	}
	for name, topics := range md.queues {
		for topic, n := range topics {
			lines = append(lines, fmt.Sprintf("%s on %s: %d", topic, name, n))
		}
	}
	slices.Sort(lines)
	return lines
}

func say(m *RouteInfoManager) []string {
	var lines []string
	for name, b := range m.ClusterInfo().BrokerAddrTable {
		for id, addr := range b.BrokerAddrs {
			lines = append(lines, fmt.Sprintf("%s %d %s", name, id, addr))
		}
	}
	for _, topic := range m.Topics() {
		r, _ := m.Route(topic)
		for _, q := range r.QueueDatas {
			lines = append(lines, fmt.Sprintf("%s on %s: %d", topic, q.BrokerName, q.WriteQueueNums))
		}
	}
	slices.Sort(lines)
	return lines
}
