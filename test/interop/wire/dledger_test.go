//go:build interop

package wire

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// ledgerGroup are three brokers that elect who leads, started by the configuration of a DLedger group.
type ledgerGroup struct {
	by    line
	nodes []*replica
	peers string
	more  []string // further properties
	ns    string
	c     *client.Client
}

func newLedgerGroup(t *testing.T, by line, more ...string) *ledgerGroup {
	t.Helper()
	g := &ledgerGroup{by: by, more: more, ns: ourNamesrv(t).addr}
	g.c = newClient(t, g.ns)
	first := ports(t, 3)
	var peers []string
	for i := range 3 {
		n := newReplica(t)
		id := "n" + strconv.Itoa(i)
		n.log = "dledger-" + id + "/data"
		if by == rmq {
			n.log = "raft-" + id + "/commitlog"
		}
		n.segment = 1 << 20
		g.nodes = append(g.nodes, n)
		peers = append(peers, id+"-127.0.0.1:"+strconv.Itoa(first+i))
	}
	g.peers = strings.Join(peers, ";")
	for i := range g.nodes {
		g.start(t, i)
	}
	return g
}

func (g *ledgerGroup) start(t *testing.T, i int) {
	t.Helper()
	props := []string{"enableDLegerCommitLog=true", "dLegerGroup=broker-a", "dLegerPeers=" + g.peers, "dLegerSelfId=n" + strconv.Itoa(i)}
	g.nodes[i].start(t, g.by, g.ns, append(props, g.more...)...)
}

// leader waits until one of them is registered as the master, not counting one that was killed, and returns its number.
func (g *ledgerGroup) leader(t *testing.T) int {
	t.Helper()
	at := -1
	eventually(t, "a leader registers", func() bool {
		info, err := g.c.Admin().Cluster(t.Context())
		if err != nil {
			return false
		}
		addr := info.BrokerAddrTable["broker-a"].BrokerAddrs[0]
		at = slices.IndexFunc(g.nodes, func(n *replica) bool { return n.node != nil && n.addr() == addr })
		return at >= 0
	})
	return at
}

// TestLedgerGroup proves that unmodified Java clients work with a group that elects its leader and go on when it is
// killed, and that nothing acked is missing afterwards; the logs of all three are equal once they have come to rest. The
// group of Apache is the measure of the harness.
func TestLedgerGroup(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: clients wait for their next look at the routes")
	}
	for _, kinds := range []struct{ by, clients line }{{rmq, client49}, {rmq, client54}, {server54, client54}} {
		t.Run(string(kinds.by)+" with "+string(kinds.clients), func(t *testing.T) { ledgerFailover(t, kinds.by, kinds.clients) })
	}
}

func ledgerFailover(t *testing.T, by, clients line) {
	g := newLedgerGroup(t, by)
	first := g.leader(t)
	makeTopic(t, g.c, g.nodes[first], "Ledger", 4, "LedgerReaders")
	w := startWriter(t, clients, g.ns, "Ledger", "m")
	count := func() int { acked, _ := w.acks(); return len(acked) }
	eventually(t, "acks", func() bool { return count() > 200 })
	g.nodes[first].kill()
	atKill := count()
	second := g.leader(t)
	require.NotEqual(t, first, second)
	eventually(t, "acks of the next leader, once the client has asked for the route", func() bool { return count() > atKill+200 })
	g.start(t, first)
	eventually(t, "acks beside the one that came back", func() bool { return count() > atKill+400 })
	acked, failed := w.end(t)
	t.Logf("%d acked, %d failed; the longest wait of one that was acked was %v", len(acked), failed, w.longest())
	got := javaKeys(t, clients, g.ns, "Ledger", "LedgerReaders", 0)
	unknown := 0
	for k, status := range acked {
		if status == "FLUSH_DISK_TIMEOUT" { // its outcome is unknown: it was in flight when its leader stepped down
			unknown++
			continue
		}
		require.Equal(t, "SEND_OK", status)
		require.Contains(t, got, k, "an acked message is lost")
	}
	t.Logf("of %d answers %d left the outcome open", len(acked), unknown)
	require.Less(t, unknown, len(acked)/4)
	for i, n := range g.nodes {
		if i != second {
			sameLog(t, g.c, g.nodes[second], n)
		}
	}
}
