//go:build drills

package drills

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/test/robust"
)

// apart is how far the ports of two brokers of one host are from each other.
const apart = 100

// pairs lays out two masters, each with a slave on the other's host.
func pairs(t *testing.T, dir string) *cluster {
	t.Helper()
	c := newCluster(t, 2, nil)
	conf := "conf/" + dir + "/"
	c.add(t, hostA, 0, conf+"broker-a.properties")
	c.add(t, hostB, 0, conf+"broker-b.properties")
	c.add(t, hostB, apart, conf+"broker-a-s.properties")
	c.add(t, hostA, apart, conf+"broker-b-s.properties")
	return c
}

// startAll starts what is laid out, and waits until every name server lists it.
func (c *cluster) startAll(t *testing.T) {
	t.Helper()
	for _, ns := range c.namesrvs {
		ns.start(t)
	}
	for _, b := range c.brokers {
		b.process = b.launch(t)
	}
	for _, b := range c.brokers {
		b.awaitBoot(t)
	}
	for _, ns := range c.namesrvs {
		eventually(t, 20*time.Second, ns.addr()+" lists every broker", func() bool {
			got := listed(t, connect(t, ns.addr()))
			return len(got) == len(c.brokers) && subset(addrsOf(c.brokers), got)
		})
	}
}

// caughtUp waits until nodes hold, and show, the same, and gives the end of it.
func caughtUp(t *testing.T, nodes ...*node) int64 {
	t.Helper()
	var all []map[string]int64
	eventually(t, 30*time.Second, fmt.Sprintf("%v hold the same", addrsOf(nodes)), func() bool {
		all = nil
		for _, n := range nodes {
			all = append(all, n.positions(t))
		}
		for _, p := range all {
			if p["written"] != all[0]["written"] || p["visible"] != p["written"] {
				return false
			}
		}
		return true
	})
	return all[0]["visible"]
}

func TestDrillPairsAsync(t *testing.T) { drillPairs(t, "2m-2s-async") }
func TestDrillPairsSync(t *testing.T)  { drillPairs(t, "2m-2s-sync") }

// Proves, for two masters with a slave each: writes go on at the other pair when a master is killed, its
// backlog is read from its slave while it is away, everything
// acknowledged is there after the restart, and the slave is equal to the master byte by byte.
func drillPairs(t *testing.T, dir string) {
	c := pairs(t, dir)
	a, b, aSlave, bSlave := c.brokers[0], c.brokers[1], c.brokers[2], c.brokers[3]
	c.startAll(t)
	cl := c.connect(t)
	for _, master := range []*node{a, b} {
		n := 0
		eventually(t, 30*time.Second, "the slave follows", func() bool {
			n++ // one that is there already is not saved again
			cfg := &protocol.TopicConfig{TopicName: fmt.Sprint("Warm", n), ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6, TopicFilterType: "SINGLE_TAG"}
			return master.hasReplica(t) && cl.Admin().CreateTopic(t.Context(), master.addr(), cfg, "") == nil
		})
		createTopic(t, cl, master, "Pairs", 4)
		// A slave knows the groups of its master, and makes none itself.
		createGroup(t, cl, master, "consumers-Pairs")
		for _, line := range javaLines {
			createGroup(t, cl, master, javaGroup(line))
		}
	}
	for _, ns := range c.namesrvs {
		awaitRoutes(t, ns, "Pairs", 2, time.Now())
	}
	list := clusterList(t, c.namesrvs[0])
	t.Log("\n" + list)
	for _, n := range c.brokers {
		require.Contains(t, list, n.addr())
	}
	tr := newTraffic(t, cl, "Pairs")
	tr.produce(t)
	tr.awaitAcked(t, brokerA, 500)
	tr.awaitAcked(t, brokerB, 500)
	caughtUpWithin(t, a, aSlave)
	caughtUpWithin(t, b, bSlave)

	// One of the name servers dies first: nobody notices.
	c.namesrvs[1].kill()
	tr.awaitAcked(t, "", 200)

	b.kill()
	tr.awaitAcked(t, brokerA, 500)
	tr.noFailures(t, "one of two masters is killed")
	tr.mu.Lock()
	backlog := int64(tr.perNode[brokerB])
	tr.mu.Unlock()
	rpc, err := remoting.NewClient(context.WithoutCancel(t.Context()), remoting.ClientOptions{Name: "audit", DialTimeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rpc.Close()) })
	held := int64(0)
	for id := range int32(4) {
		held += fetchFrom(t, rpc, bSlave.addr(), "Pairs", id, 0).max
	}
	t.Logf("of %d messages that the dead master has acknowledged its slave gives out %d", backlog, held)
	// It shows what the master has told it to show: the last of it may lack, though it is there.
	require.GreaterOrEqual(t, held, backlog*9/10)
	tr.consume(t)
	eventually(t, 60*time.Second, "the backlog of the dead master is consumed from its slave", func() bool {
		return int64(tr.missing(brokerB)) <= backlog-held
	})
	for _, line := range javaLines {
		javaReads(t, line, c.nameServers(), "Pairs", brokerB, held)
	}

	b.start(t)
	c.namesrvs[1].start(t)
	tr.awaitAcked(t, brokerB, 200)
	tr.stopProducing(t)
	eventually(t, 60*time.Second, "everything is consumed", func() bool { return tr.missing("") == 0 })
	tr.readBack(t)
	endA, endB := caughtUp(t, a, aSlave), caughtUp(t, b, bSlave)
	closeClient(t, cl)
	for _, n := range []*node{aSlave, bSlave, a, b} {
		n.terminate(t)
	}
	sameLogs(t, []string{a.root(), aSlave.root()}, endA)
	sameLogs(t, []string{b.root(), bSlave.root()}, endB)
}

// caughtUpWithin waits until a slave has what its master had when this was called.
func caughtUpWithin(t *testing.T, master, slave *node) {
	t.Helper()
	want := master.positions(t)["written"]
	eventually(t, 30*time.Second, "the slave follows", func() bool { return slave.positions(t)["written"] >= want })
}

// group lays out a group of three on three hosts, from the files of a directory.
func group(t *testing.T, c *cluster, off int, files ...string) []*node {
	t.Helper()
	hosts := []string{hostA, hostB, hostC}
	var nodes []*node
	var peers []string
	for i, file := range files {
		n := c.add(t, hosts[i], off, file)
		n.self = fmt.Sprintf("n%d", i)
		peers = append(peers, n.self+"-"+at(hosts[i], c.ports.raft+off))
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.args = append(n.args, "--dLegerPeers="+strings.Join(peers, ";"), "--dLegerSelfId="+n.self)
	}
	return nodes
}

// leads is who of some nodes takes messages, as a name server says; nil if nobody does.
func leads(t *testing.T, cl *client.Client, nodes []*node) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	info, err := cl.Admin().Cluster(ctx)
	if err != nil {
		return nil
	}
	for _, d := range info.BrokerAddrTable {
		for _, n := range nodes {
			if d.BrokerAddrs[0] == n.addr() {
				return n
			}
		}
	}
	return nil
}

func awaitLeads(t *testing.T, cl *client.Client, nodes []*node, but *node) *node {
	t.Helper()
	var leader *node
	eventually(t, 30*time.Second, "the group has a leader", func() bool {
		leader = leads(t, cl, nodes)
		return leader != nil && leader != but
	})
	return leader
}

// Proves, for a group of three: kill -9 of the leader loses no acknowledged message, another node leads
// and writes go on without anybody doing anything; the dead one comes back and cuts what diverges; all
// three are equal byte by byte; nobody notices the death of a name server.
func TestDrillGroup(t *testing.T) {
	c := newCluster(t, 2, nil)
	nodes := group(t, c, 0, "conf/dledger/broker-n0.conf", "conf/dledger/broker-n1.conf", "conf/dledger/broker-n2.conf")
	c.startAll(t)
	cl := c.connect(t)
	leader := awaitLeads(t, cl, nodes, nil)
	createTopic(t, cl, leader, "Group", 4)
	awaitRoutes(t, c.namesrvs[0], "Group", 1, time.Now())
	t.Log("\n" + clusterList(t, c.namesrvs[0]))
	tr := newTraffic(t, cl, "Group")
	tr.consume(t)
	tr.produce(t)
	tr.awaitAcked(t, "", 500)
	c.namesrvs[1].kill()
	for range rounds(t) {
		leader := awaitLeads(t, cl, nodes, nil)
		leader.kill()
		began := time.Now()
		next := awaitLeads(t, cl, nodes, leader)
		tr.awaitAcked(t, "", 200)
		t.Logf("%s was killed, %s leads; 200 messages more after %v", leader.addr(), next.addr(), time.Since(began))
		leader.start(t)
		caughtUpWithin(t, next, leader)
	}
	c.namesrvs[1].start(t)
	tr.stopProducing(t)
	eventually(t, 60*time.Second, "everything is consumed", func() bool { return tr.missing("") == 0 })
	tr.readBack(t)
	end := caughtUp(t, nodes...)
	closeClient(t, cl)
	stopAndCompare(t, nodes, end)
}

// stopAndCompare stops a group and compares its logs up to an end.
func stopAndCompare(t *testing.T, nodes []*node, end int64) {
	t.Helper()
	var roots []string
	for _, n := range nodes {
		n.terminate(t)
		roots = append(roots, filepath.Join(n.root(), "raft-"+n.self))
	}
	sameLogs(t, roots, end)
}

// Proves, for three groups of three over three hosts: the leaders are spread; when everything on one host
// is killed, every group goes on; when it is back, all are equal and every acknowledged message is there.
func TestDrillThreeGroups(t *testing.T) {
	files, err := filepath.Glob("../../conf/dledger-3x3/*")
	require.NoError(t, err)
	require.Len(t, files, 9, "conf/dledger-3x3 has nine files: %v", files)
	c := newCluster(t, 2, nil)
	var groups [][]*node
	for g := range 3 {
		var of []string
		for _, f := range files[3*g : 3*g+3] {
			of = append(of, strings.TrimPrefix(f, "../../"))
		}
		groups = append(groups, group(t, c, g*apart, of...))
	}
	c.startAll(t)
	cl := c.connect(t)
	var leaders []*node
	for _, nodes := range groups {
		leader := awaitLeads(t, cl, nodes, nil)
		leaders = append(leaders, leader)
		createTopic(t, cl, leader, "Groups", 2)
	}
	eventually(t, 30*time.Second, "the leaders are on three hosts", func() bool {
		hosts := map[string]bool{}
		for _, nodes := range groups {
			if n := leads(t, cl, nodes); n != nil {
				hosts[n.host] = true
			}
		}
		return len(hosts) == 3
	})
	awaitRoutes(t, c.namesrvs[0], "Groups", 3, time.Now())
	t.Log("\n" + clusterList(t, c.namesrvs[0]))
	tr := newTraffic(t, cl, "Groups")
	tr.produce(t)
	tr.awaitAcked(t, "", 500)
	for _, nodes := range groups {
		nodes[0].kill() // all of one host
	}
	c.namesrvs[0].kill()
	for g, nodes := range groups {
		awaitLeads(t, cl, nodes[1:], nil)
		t.Logf("group %d goes on", g)
	}
	tr.awaitAcked(t, "", 500)
	c.namesrvs[0].start(t)
	for _, nodes := range groups {
		nodes[0].start(t)
	}
	tr.awaitAcked(t, "", 200)
	tr.stopProducing(t)
	tr.readBack(t)
	closeClient(t, cl)
	for _, nodes := range groups {
		stopAndCompare(t, nodes, caughtUp(t, nodes...))
	}
}

// TestDrillLeaderKilled kills the leader of a group with synchronous flush under load, RMQ_KILLS times, and
// audits every acknowledged message over the wire after each: none is lost. What came out goes to RMQ_RESULTS.
func TestDrillLeaderKilled(t *testing.T) {
	c := newCluster(t, 1, nil)
	nodes := group(t, c, 0, "conf/dledger/broker-n0.conf", "conf/dledger/broker-n1.conf", "conf/dledger/broker-n2.conf")
	for _, n := range nodes {
		n.args = append(n.args, "--flush-disk-type=SYNC_FLUSH")
	}
	c.startAll(t)
	cl := c.connect(t)
	createTopic(t, cl, awaitLeads(t, cl, nodes, nil), "Kills", 4)
	rpc, err := remoting.NewClient(context.WithoutCancel(t.Context()), remoting.ClientOptions{Name: "audit", DialTimeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rpc.Close()) })
	l := newLoad(t, loadOptions{topic: "Kills", queues: 4, workers: 4, window: 16, bodyBytes: 200, retry: true, addrs: addrsOf(nodes), patience: 3 * time.Second, pace: time.Millisecond})
	kills := rounds(t)
	if text := os.Getenv("RMQ_KILLS"); text != "" {
		_, err := fmt.Sscan(text, &kills)
		require.NoError(t, err, "RMQ_KILLS is a number")
	}
	res := &robust.Result{Cell: robust.Kills, Mode: "rS", Env: environment(t), Runs: []robust.Run{{Started: time.Now().UTC().Truncate(time.Second)}}}
	run := &res.Runs[0]
	for k := range kills {
		l.start(t)
		l.awaitAcks(t, 50)
		leader := awaitLeads(t, cl, nodes, nil)
		l.fault()
		leader.kill()
		eventually(t, 20*time.Second, "messages are acknowledged again", func() bool { _, ok := l.resumed(); return ok })
		took, _ := l.resumed()
		l.awaitAcks(t, 20)
		l.end(t)
		next := awaitLeads(t, cl, nodes, leader)
		verdict := judged(t, l, rpc, next)
		require.Empty(t, verdict, "kill %d of %s", k+1, leader.addr())
		leader.start(t)
		caughtUp(t, nodes...)
		t.Logf("kill %d: next ack after %v", k+1, took)
		run.Strikes++
		run.RTO = append(run.RTO, float64(took.Microseconds())/1000)
	}
	t.Logf("%d kills of the leader, %d messages acknowledged, none lost", kills, l.total())
	stopAndCompare(t, nodes, caughtUp(t, nodes...))
	if dir := os.Getenv("RMQ_RESULTS"); dir != "" {
		tally(l, run)
		run.Replicas, run.Seconds = len(nodes), time.Since(run.Started).Round(time.Second).Seconds()
		require.NoError(t, res.Save(dir))
	}
}
