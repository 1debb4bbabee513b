//go:build drills

package drills

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// threeOf starts a group of three under messages.
func threeOf(t *testing.T, topic string, flags ...string) (c *cluster, nodes []*node, tr *traffic) {
	t.Helper()
	c = newCluster(t, 1, nil)
	nodes = group(t, c, 0, "conf/dledger/broker-n0.conf", "conf/dledger/broker-n1.conf", "conf/dledger/broker-n2.conf")
	for _, n := range nodes {
		n.args = append(n.args, flags...)
	}
	c.startAll(t)
	cl := c.connect(t)
	eventually(t, 30*time.Second, "the topic is made", func() bool { return tryCreateTopic(t, cl, awaitLeads(t, cl, nodes, nil), topic, 4) == nil })
	awaitRoutes(t, c.namesrvs[0], topic, 1, time.Now())
	tr = newTraffic(t, cl, topic)
	tr.produce(t)
	tr.awaitAcked(t, "", 200)
	return c, nodes, tr
}

// Proves that the members of a group are changed while messages are sent, as docs/OPERATIONS.md says: one is added,
// catches up and votes; the leader is removed, says so of itself, and another one leads; nothing acknowledged is
// lost.
func TestDrillMembers(t *testing.T) {
	c, nodes, tr := threeOf(t, "Members")
	raft := at(hostA, c.ports.raft+apart)
	fourth := c.add(t, hostA, apart, "conf/dledger/broker-n0.conf")
	fourth.self = "n3"
	var peers []string
	for _, n := range nodes {
		peers = append(peers, n.self+"-"+at(n.host, c.ports.raft))
	}
	fourth.args = append(fourth.args, "--dLegerSelfId=n3", "--dLegerPeers="+strings.Join(append(peers, "n3-"+raft), ";"))
	change := func(what ...string) (string, error) {
		return mqadmin(t, append(append([]string{"raftPeer"}, what...), "-b", nodes[0].addr(), "-n", c.nameServers())...)
	}

	_, err := change("promote", "-p", "n3")
	require.Error(t, err, "it is no member")
	eventually(t, 20*time.Second, "n3 is added", func() bool { _, err := change("add", "-p", "n3", "-l", raft); return err == nil })
	out, err := change("promote", "-p", "n3")
	require.Error(t, err)
	require.Contains(t, out, "n3#1 at "+raft+" does not answer: start it")
	fourth.start(t)
	eventually(t, 30*time.Second, "n3 is promoted", func() bool { _, err := change("promote", "-p", "n3"); return err == nil })
	tr.awaitAcked(t, "", 100)

	leader := awaitLeads(t, tr.cl, nodes, nil)
	eventually(t, 20*time.Second, "the leader is removed", func() bool {
		out, err := mqadmin(t, "raftPeer", "remove", "-p", leader.self, "-b", fourth.addr(), "-n", c.nameServers())
		return err == nil || strings.Contains(out, leader.self+" is not a member")
	})
	left := append(others(nodes, leader), fourth)
	awaitLeads(t, tr.cl, left, nil)
	tr.awaitAcked(t, "", 100)
	eventually(t, 20*time.Second, "the removed one knows it", func() bool {
		out, err := mqadmin(t, "raftStatus", "-b", leader.addr(), "-n", c.nameServers())
		return err == nil && strings.Contains(out, leader.self+"#1 was removed from group RaftNode00")
	})
	leader.terminate(t)
	tr.awaitAcked(t, "", 100)
	tr.stopProducing(t)
	tr.readBack(t)
	end := caughtUp(t, left...)
	closeClient(t, tr.cl)
	stopAndCompare(t, left, end)
}

func others(nodes []*node, but *node) (list []*node) {
	for _, n := range nodes {
		if n != but {
			list = append(list, n)
		}
	}
	return list
}

// Proves that a member of a group whose log is damaged where it cannot be cut refuses to start with a line that says
// what to do, changes nothing, and that doing it brings the member back: empty, as a new incarnation that votes once it
// has caught up, its log equal to that of the others.
func TestRobustDamagedMember(t *testing.T) {
	c, nodes, tr := threeOf(t, "Damaged", "--mapped-file-size-commit-log=262144")
	n := others(nodes, awaitLeads(t, tr.cl, nodes, nil))[0]
	segments := func() []string {
		list, err := filepath.Glob(filepath.Join(n.root(), "raft-"+n.self, "commitlog", "0*"))
		require.NoError(t, err)
		return list
	}
	eventually(t, 60*time.Second, "there are four segments", func() bool { return len(segments()) >= 4 })
	n.terminate(t)
	require.NoError(t, os.Remove(segments()[1]))
	before := fingerprint(t, n.root())
	line := refusal(t, "mqbroker", n.dir, n.args...)
	t.Log(line)
	require.Equal(t, before, fingerprint(t, n.root()), "nothing is changed")
	dir := filepath.Join(n.root(), "raft-"+n.self)
	for _, want := range []string{"RaftNode00 " + n.self, dir, "while a majority of the group runs, move " + dir + " away", "the leader lets it in again"} {
		require.Contains(t, line, want)
	}

	require.NoError(t, os.Rename(dir, dir+".damaged"))
	n.start(t)
	tr.awaitAcked(t, "", 100)
	eventually(t, 30*time.Second, "it votes under a new incarnation", func() bool {
		out, err := mqadmin(t, "raftStatus", "-b", awaitLeads(t, tr.cl, nodes, nil).addr(), "-n", c.nameServers())
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, n.self+"#2") && strings.Contains(line, "true") {
				return true
			}
		}
		_ = err // asked again
		return false
	})
	tr.stopProducing(t)
	tr.readBack(t)
	end := caughtUp(t, nodes...)
	closeClient(t, tr.cl)
	stopAndCompare(t, nodes, end)
}
