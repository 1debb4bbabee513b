//go:build drills

package drills

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stranger is what somebody says to a replication port who has no business there.
type stranger struct {
	says  []byte
	hangs bool // it is cut short: the connection ends with the patience of the port, or with the stranger
	line  []string
}

// The openings of the two wires.
var (
	pairOpening  = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	groupOpening = []byte("rmqraft\x01")
)

// common are strangers of either wire.
func common(opening []byte) map[string]stranger {
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(i*131 + 7)
	}
	return map[string]stranger{
		"noise":                         {says: noise, line: []string{""}},
		"HTTP":                          {says: []byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"), line: []string{""}},
		"a TLS handshake":               {says: append([]byte{0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, noise...), line: []string{""}},
		"zeros":                         {says: make([]byte, 4096), line: []string{""}},
		"our opening, then noise":       {says: append(append([]byte{}, opening...), noise...), line: []string{""}},
		"half of our opening":           {says: opening[:4], hangs: true},
		"our opening, then nothing":     {says: opening, hangs: true},
		"our opening and half a header": {says: append(append([]byte{}, opening...), make([]byte, 5)...), hangs: true},
		"nothing":                       {hangs: true},
	}
}

// groupHello is a greeting of a node of a group: header and JSON.
func groupHello(fields map[string]any) []byte {
	body, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	b := binary.BigEndian.AppendUint32(append([]byte{}, groupOpening...), uint32(len(body)))
	b = append(b, 1, 0, 0, 0) // kind hello
	return append(binary.BigEndian.AppendUint64(b, 1), body...)
}

// ofGroups are strangers of the wire of groups; group is the name of the one that they call.
func ofGroups(group string, segment int) map[string]stranger {
	hello := func(change string, value any) []byte {
		h := map[string]any{"lane": "control", "group": group, "from": "n7#1", "name": "n7", "addr": "127.0.0.9:1", "to": "", "segmentBytes": segment, "format": 1}
		h[change] = value
		return groupHello(h)
	}
	huge := append([]byte{}, groupOpening...)
	huge = append(binary.BigEndian.AppendUint32(huge, 0xfffffff0), make([]byte, 12)...)
	list := common(groupOpening)
	list["a length of 4 GiB"] = stranger{says: huge, line: []string{"a body of 4294967280 bytes, the limit is"}}
	list["another group"] = stranger{says: hello("group", "other"), line: []string{"node n7 (127.0.0.9:1)", `\"other\"`, group, "check dLegerGroup"}}
	list["another segment size"] = stranger{says: hello("segmentBytes", 1<<30), line: []string{"node n7", "mappedFileSizeCommitLog 1073741824", "the same on all nodes"}}
	list["another format"] = stranger{says: hello("format", 99), line: []string{"node n7", "log format 99", "run the same release on all nodes"}}
	list["the id of the one that it calls"] = stranger{says: hello("name", "n0"), line: []string{"node n0", "has the id of the node that it calls", "dLegerSelfId"}}
	list["a call for another member"] = stranger{says: hello("to", "n5#3"), line: []string{"calls n5#3", "is n0"}}
	list["an Apache offset"] = stranger{says: make([]byte, 8), line: []string{"does not begin as a node of a raft group does"}}
	return list
}

// ofPairs are strangers of the wire of masters and slaves.
func ofPairs() map[string]stranger {
	list := common(pairOpening)
	far := append([]byte{}, pairOpening...)
	for range 16 {
		far = binary.BigEndian.AppendUint32(far, 0x7fffffff)
	}
	list["lengths of 2 GiB"] = stranger{says: far, line: []string{""}}
	list["an Apache slave that is not in haStockPeers"] = stranger{says: make([]byte, 8), line: []string{"haStockPeers"}}
	list["an Apache slave that has more than there is"] = stranger{says: binary.BigEndian.AppendUint64(nil, 1<<50), line: []string{"haStockPeers"}}
	return list
}

// Proves that nobody who speaks to a replication port without belonging there changes anything: the
// connection is closed, the log has a line that names the node, the stranger and what to do, replication goes
// on, no term or epoch is begun, and nothing stays behind of two hundred connections that say nothing.
func TestRobustStrangers(t *testing.T) {
	t.Run("pair", func(t *testing.T) {
		c := newCluster(t, 1, []string{"conf/2m-2s-sync/broker-a.properties", "conf/2m-2s-sync/broker-a-s.properties"})
		c.start(t)
		master, slave := c.brokers[0], c.brokers[1]
		eventually(t, 20*time.Second, "the slave follows", func() bool { return master.hasReplica(t) })
		strangers(t, c, master, master, at(master.host, master.port+1), ofPairs(), `node=broker-a:0`)
		strangers(t, c, master, slave, at(slave.host, slave.port+1), common(pairOpening), `node=broker-a:1`)
	})
	t.Run("group", func(t *testing.T) {
		c := newCluster(t, 1, nil)
		nodes := group(t, c, 0, "conf/dledger/broker-n0.conf", "conf/dledger/broker-n1.conf", "conf/dledger/broker-n2.conf")
		c.startAll(t)
		leader := awaitLeads(t, c.connect(t), nodes, nil)
		strangers(t, c, leader, nodes[0], at(nodes[0].host, c.ports.raft), ofGroups("RaftNode00", 67108864), `node=n0`)
	})
}

// strangers lets every one of a list speak to a port of node while messages are sent.
func strangers(t *testing.T, c *cluster, leader, node *node, addr string, list map[string]stranger, self string) {
	t.Helper()
	cl := connect(t, c.nameServers())
	topic := "Strangers" + strings.NewReplacer(".", "", ":", "").Replace(addr)
	eventually(t, 20*time.Second, "the topic is made", func() bool { return tryCreateTopic(t, cl, leader, topic, 4) == nil })
	tr := newTraffic(t, cl, topic)
	tr.produce(t)
	tr.awaitAcked(t, "", 50)
	before := node.usage(t)
	var hanging []net.Conn
	for what, s := range list {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		_, _ = conn.Write(s.says) // it may be closed half way
		if s.hangs {
			hanging = append(hanging, conn)
			continue
		}
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s: the connection is kept", what)
		require.NoError(t, conn.Close())
		// The same complaint is not said again within a minute, so it may name another stranger of this host.
		want := append(append([]string{}, s.line...), self, "127.0.0.1:")
		eventually(t, 10*time.Second, what+": a line with "+strings.Join(want, ", "), func() bool {
			for line := range strings.Lines(node.output(t)) {
				if containsAll(line, want) {
					t.Logf("%s: %s", what, strings.TrimSpace(line))
					return true
				}
			}
			return false
		})
	}
	for _, conn := range hanging {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err := io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "a stranger who has not said who it is is kept")
		require.NoError(t, conn.Close())
	}
	tr.awaitAcked(t, "", 50)
	tr.stopProducing(t)
	tr.noFailures(t, "strangers have spoken to "+addr)
	tr.readBack(t)
	closeClient(t, cl)
	node.awaitUsage(t, before, 64<<20) // what the traffic leaves behind; a stranger who is believed asks for 2 GiB
}

func containsAll(line string, want []string) bool {
	for _, w := range want {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}
