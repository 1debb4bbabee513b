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

// says waits until a node has logged a line with all of want.
func says(t *testing.T, n *node, want ...string) {
	t.Helper()
	eventually(t, 20*time.Second, strings.Join(want, ", "), func() bool {
	lines:
		for line := range strings.Lines(n.output(t)) {
			for _, w := range want {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			t.Logf("%s: %s", n.addr(), strings.TrimSpace(line))
			return true
		}
		return false
	})
}

// strays lays out members of a group that is not started, each with flags of its own, and gives dLegerPeers.
func strays(t *testing.T, flags ...[]string) (nodes []*node, peers []string) {
	t.Helper()
	c := newCluster(t, 0, nil)
	nodes = group(t, c, 0, []string{"conf/dledger/broker-n0.conf", "conf/dledger/broker-n1.conf", "conf/dledger/broker-n2.conf"}[:len(flags)]...)
	for i, n := range nodes {
		n.args = append(n.args, flags[i]...)
		peers = append(peers, n.self+"-"+at(n.host, c.ports.raft))
	}
	return nodes, peers
}

// Proves what members of a group say that do not belong together, of which none starts a group or changes anything:
// the node, the difference, and what to do.
func TestRobustBadPeers(t *testing.T) {
	t.Run("another group", func(t *testing.T) {
		n, _ := strays(t, nil, []string{"--dLegerGroup=other"})
		n[0].start(t)
		n[1].start(t)
		says(t, n[0], "refuses this node", "n0", `group \"RaftNode00\"`, `\"other\"`, "check dLegerGroup")
		says(t, n[1], "refuses this node", "n1", "check dLegerGroup")
	})
	t.Run("another segment size", func(t *testing.T) {
		n, _ := strays(t, nil, []string{"--mapped-file-size-commit-log=33554432"})
		n[0].start(t)
		n[1].start(t)
		says(t, n[0], "refuses this node", "mappedFileSizeCommitLog 67108864", "33554432", "the same on all nodes")
	})
	t.Run("other members", func(t *testing.T) {
		n, peers := strays(t, nil, nil, nil)
		n[1].args = append(n[1].args, "--dLegerPeers="+strings.Join(peers[:2], ";"))
		n[0].start(t)
		n[1].start(t)
		says(t, n[0], "dLegerPeers of n0", "of n1", "make them equal")
		says(t, n[1], "an even number", "peers=2")
	})
	t.Run("the id of another", func(t *testing.T) {
		n, peers := strays(t, nil, nil)
		swapped := "n1" + peers[0][2:] + ";n0" + peers[1][2:]
		n[1].args = append(n[1].args, "--dLegerSelfId=n0", "--dLegerPeers="+swapped)
		n[0].start(t)
		n[1].start(t)
		says(t, n[1], "refuses this node", "has the id of the node that it calls, n0", "give each its own dLegerSelfId")
	})
	t.Run("kinds of stores", func(t *testing.T) {
		n, _ := strays(t, nil)
		store := filepath.Join(n[0].dir, "store")
		for _, kind := range []struct{ dir, flag, want string }{
			{"commitlog", "", "a store that belongs to no group"},
			{"dledger-n0", "", "a log of Apache's DLedger, which is not read here"},
			{"raft-n0", "--enableDLegerCommitLog=false", "the log of a node of a group"},
		} {
			require.NoError(t, os.RemoveAll(store))
			require.NoError(t, os.MkdirAll(filepath.Join(store, kind.dir), 0o755))
			args := n[0].args
			if kind.flag != "" {
				args = append(args[:len(args):len(args)], kind.flag)
			}
			line := refusal(t, "mqbroker", n[0].dir, args...)
			t.Log(line)
			require.Contains(t, line, kind.want)
			require.Contains(t, line, "name another storePathRootDir")
			left, err := os.ReadDir(store)
			require.NoError(t, err)
			require.Len(t, left, 1, "nothing was changed")
		}
	})
	t.Run("the directory of another", func(t *testing.T) {
		n, peers := strays(t, nil)
		n[0].start(t)
		says(t, n[0], "this node leads")
		n[0].terminate(t)
		line := refusal(t, "mqbroker", n[0].dir, append(n[0].args[:len(n[0].args):len(n[0].args)], "--dLegerGroup=other")...)
		t.Log(line)
		require.Contains(t, line, `belongs to group "RaftNode00", dLegerGroup is "other"`)
		store := filepath.Join(n[0].dir, "store")
		require.NoError(t, os.Rename(filepath.Join(store, "raft-n0"), filepath.Join(store, "raft-n1")))
		line = refusal(t, "mqbroker", n[0].dir, append(n[0].args, "--dLegerSelfId=n1", "--dLegerPeers="+"n1"+peers[0][2:])...)
		t.Log(line)
		require.Contains(t, line, `belongs to n0#1, dLegerSelfId is "n1"`)
	})
}

// Proves that of two masters of one name the second one, and nobody else, is told; the first one goes on, and the
// second registers when it is gone.
func TestRobustTwoMasters(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/2m-noslave/broker-a.properties"})
	c.start(t)
	first := c.brokers[0]
	second := c.add(t, hostB, 0, "conf/2m-noslave/broker-a.properties")
	second.start(t)
	says(t, second, "another master has this one's name", "broker-a", first.addr(), second.addr(), "brokerRole=SLAVE")
	cl := c.connect(t)
	require.Equal(t, []string{first.addr()}, listed(t, cl))
	first.terminate(t)
	eventually(t, 20*time.Second, "the second one is registered", func() bool {
		l := listed(t, cl)
		return len(l) == 1 && l[0] == second.addr()
	})
}

// Proves what a slave and its master say of each other when they do not belong together: nothing is taken over and
// nothing is cut, until the one that is wrong is put right.
func TestRobustBadSlaves(t *testing.T) {
	const masterConf, slaveConf = "conf/2m-2s-async/broker-a.properties", "conf/2m-2s-async/broker-a-s.properties"
	c := newCluster(t, 1, []string{masterConf})
	c.start(t)
	master := c.brokers[0]
	cl := c.connect(t)
	createTopic(t, cl, master, "Bad", 1)
	tr := newTraffic(t, cl, "Bad")
	tr.produce(t)
	tr.awaitAcked(t, "", 100)
	tr.stopProducing(t)
	ha := "--haMasterAddress=" + at(master.host, master.port+1)
	for name, bad := range map[string]struct{ flags, slave []string }{
		"another segment size": {[]string{"--mapped-file-size-commit-log=33554432"}, []string{"the master refuses", "segments of 33554432 bytes", "67108864", "mappedFileSizeCommitLog"}},
		"another name":         {[]string{"--brokerName=broker-z"}, []string{"the master refuses", "DefaultCluster/broker-z", "DefaultCluster/broker-a", "check brokerClusterName, brokerName and haMasterAddress"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := c.add(t, hostB, 0, slaveConf, append(bad.flags, ha)...)
			n.start(t)
			says(t, n, bad.slave...)
			require.Zero(t, n.positions(t)["written"])
			n.terminate(t)
		})
	}
	t.Run("the store of another master", func(t *testing.T) {
		alone := c.add(t, hostB, 0, masterConf, "--brokerName=broker-z")
		alone.start(t)
		createTopic(t, cl, alone, "Other", 1)
		other := newTraffic(t, cl, "Other")
		other.produce(t)
		other.awaitAcked(t, "", 100)
		other.stopProducing(t)
		had := alone.positions(t)["written"]
		require.Positive(t, had)
		alone.terminate(t)
		n := c.add(t, hostB, 0, slaveConf, ha, "--store-path-root-dir="+alone.dir+"/store")
		n.start(t)
		says(t, n, "the master refuses", "which is another one", "move the directory of broker-a:1 away and start it empty")
		require.Equal(t, had, n.positions(t)["written"], "nothing was cut")
		n.terminate(t)
	})
	tr.readBack(t)
}
