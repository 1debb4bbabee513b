//go:build interop

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// rmq is our own broker where a release line of Apache could stand.
const rmq line = "rmq"

// replica is a broker that keeps a copy of a log: it has its ports and its store through restarts, and may be run
// by one kind of broker after the other.
type replica struct {
	name    string // of the broker
	port    int
	store   string
	log     string // the folder of its log files, in the store
	segment int64  // size of a log file
	node    *node  // nil while it is stopped
}

const replicaSegment = 64 << 10 // so small that every test has several files

func newReplica(t *testing.T) *replica {
	t.Helper()
	return &replica{name: "broker-a", port: ports(t, 4) + 2, store: t.TempDir(), log: "commitlog", segment: replicaSegment}
}

func (r *replica) addr() string { return "127.0.0.1:" + strconv.Itoa(r.port) }

func (r *replica) haAddr() string { return "127.0.0.1:" + strconv.Itoa(r.port+1) }

// start runs it as a broker of a line with further properties, the role among them.
func (r *replica) start(t *testing.T, by line, namesrv string, more ...string) {
	t.Helper()
	require.Nil(t, r.node, "it runs")
	props := append([]string{
		"brokerIP2=127.0.0.1", "mappedFileSizeCommitLog=" + strconv.FormatInt(r.segment, 10), "maxMessageSize=32768",
		"flushDiskType=ASYNC_FLUSH",
	}, more...)
	if by == rmq {
		r.node = ourBrokerAt(t, r.port, brokerConf(t, namesrv, r.store, r.port, props...))
		return
	}
	n := by.brokerAt(t, r.port, brokerConf(t, namesrv, r.store, r.port, append(props, "useEpollNativeSelector=false")...))
	t.Cleanup(n.kill) // a polite end takes Apache's ten seconds and more
	r.node = n
}

func (r *replica) stop(t *testing.T) {
	t.Helper()
	r.node.stop(t)
	r.node = nil
}

func (r *replica) kill() {
	r.node.kill()
	r.node = nil
}

// span asks it for the ends of its log. An Apache slave cannot tell before it has something.
func (r *replica) span(t *testing.T, c *client.Client) (first, end int64) {
	t.Helper()
	info, err := c.Admin().RuntimeInfo(t.Context(), r.addr())
	if err != nil {
		return 0, 0
	}
	first, err = strconv.ParseInt(info["commitLogMinOffset"], 10, 64)
	require.NoError(t, err)
	end, err = strconv.ParseInt(info["commitLogMaxOffset"], 10, 64)
	require.NoError(t, err)
	return first, end
}

// read returns the bytes of its log from one position to another, as its files have them.
func (r *replica) read(t *testing.T, from, to int64) []byte {
	t.Helper()
	var out []byte
	for at := from; at < to; {
		base := at - at%r.segment
		f, err := os.Open(filepath.Join(r.store, r.log, fmt.Sprintf("%020d", base)))
		require.NoError(t, err)
		part := make([]byte, min(to, base+r.segment)-at)
		_, err = io.ReadFull(io.NewSectionReader(f, at-base, r.segment), part)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		out = append(out, part...)
		at += int64(len(part))
	}
	return out
}

// sameLog waits until the slave has all of the master's log and compares every byte of the range that both hold.
func sameLog(t *testing.T, c *client.Client, master, slave *replica) {
	t.Helper()
	var begin, end, first, own int64
	defer func() {
		if t.Failed() {
			t.Logf("the master has %d to %d, the slave %d to %d", begin, end, first, own)
		}
	}()
	eventually(t, "the slave has caught up", func() bool {
		begin, end = master.span(t, c)
		first, own = slave.span(t, c)
		return own == end && first < end
	})
	from, to := max(begin, first), end
	want, got := master.read(t, from, to), slave.read(t, from, to)
	require.True(t, bytes.Equal(want, got), "the logs differ from position %d on", from+int64(differ(want, got)))
	t.Logf("%d bytes from position %d are equal", len(want), from)
}

func differ(a, b []byte) int {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return i
}

// roles waits until a name server knows exactly these brokers of a name, by their numbers.
func roles(t *testing.T, c *client.Client, name string, want map[int64]*replica) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d brokers of %s are registered", len(want), name), func() bool {
		info, err := c.Admin().Cluster(t.Context())
		if err != nil || len(info.BrokerAddrTable[name].BrokerAddrs) != len(want) {
			return false
		}
		for id, r := range want {
			if info.BrokerAddrTable[name].BrokerAddrs[id] != r.addr() {
				return false
			}
		}
		return true
	})
}

// javaWrite sends count messages of size bytes with an unmodified producer and returns the keys that were acked, all of
// them.
func javaWrite(t *testing.T, l line, namesrv, topic, prefix string, count, size int) []string {
	t.Helper()
	acked, failed := acks(javaSend(t, l, namesrv, topic, prefix, count, size))
	require.Empty(t, failed)
	require.Len(t, acked, count)
	return slices.Collect(maps.Keys(acked))
}

// javaSend is javaWrite of which anything may come; it returns what flow.Write printed.
func javaSend(t *testing.T, l line, namesrv, topic, prefix string, count, size int) string {
	t.Helper()
	cmd := l.java(t, "192m", []string{"-Drocketmq.client.logUseSlf4j=true"}, "flow.Write", namesrv, topic, prefix, strconv.Itoa(count), "0", strconv.Itoa(size))
	in, err := cmd.StdinPipe() // it would end with its input
	require.NoError(t, err)
	defer func() { _ = in.Close() }() // with the process
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// acks reads what flow.Write has printed: the status of each key that was stored, and the lines of those that failed.
func acks(out string) (acked map[string]string, failed []string) {
	acked = map[string]string{}
	for l := range strings.Lines(out) {
		switch f := strings.Fields(l); {
		case len(f) == 4 && f[0] == "ACK":
			acked[f[3]] = f[2]
		case len(f) > 0 && f[0] == "ERR":
			failed = append(failed, l)
		}
	}
	return acked, failed
}

// javaRead reads a topic with an unmodified consumer and requires that it gets these keys, each once and no others.
func javaRead(t *testing.T, l line, namesrv, topic, group string, want []string) {
	t.Helper()
	got := javaKeys(t, l, namesrv, topic, group, len(want))
	total := 0
	for _, n := range got {
		total += n
	}
	require.Equal(t, slices.Sorted(slices.Values(want)), slices.Sorted(maps.Keys(got)))
	require.Len(t, want, total, "none twice")
}

// javaKeys reads a topic with an unmodified consumer until it has had so many messages, or none for half a minute, and
// returns how often each key came. Without a number it ends after ten seconds without a message. The first may take a
// minute.
func javaKeys(t *testing.T, l line, namesrv, topic, group string, want int) map[string]int {
	t.Helper()
	idle := "30"
	if want == 0 {
		idle, want = "10", math.MaxInt32
	}
	cmd := l.java(t, "192m", []string{"-Drocketmq.client.logUseSlf4j=true"}, "flow.Read", namesrv, topic, group, idle, strconv.Itoa(want))
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	got := map[string]int{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == "GOT" {
			got[f[4]]++
		}
	}
	return got
}

// makeTopic creates a topic of so many queues, and a group, at a master.
func makeTopic(t *testing.T, c *client.Client, master *replica, topic string, queues int32, group string) {
	t.Helper()
	for _, err := range []error{
		c.Admin().CreateTopic(t.Context(), master.addr(), protocol.NewTopicConfig(topic, queues), ""),
		c.Admin().CreateGroup(t.Context(), master.addr(), protocol.NewSubscriptionGroupConfig(group)),
	} {
		var refused *protocol.RemoteError
		if errors.As(err, &refused) && refused.Code == protocol.ResponseSlaveNotAvailable {
			continue // a master that waits for slaves has it; those of Apache take no part in it, and ask for it
		}
		require.NoError(t, err)
	}
}
