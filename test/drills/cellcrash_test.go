//go:build drills

package drills

import (
	"fmt"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

func init() {
	plays["F01"] = play{do: killLeader, short: true}
	plays["F02"] = play{do: killAtPoints, faulty: true}
	plays["F03"] = play{do: killForGood}
	plays["F04"] = play{do: killAll}
	plays["F05"] = play{do: freezeLeader, scale: "frozen for 1.5 to 4 s of 5 to 60"}
	plays["F06"] = play{do: freezeFollower, scale: "frozen for 1.5 to 4 s of 5 to 60"}
	plays["F45"] = play{do: loseAnswers}
	plays["F46"] = play{do: loseNameServers, nss: 2}
}

// restart starts a node again and notes how long it took to come up.
func (x *trial) restart(nodes ...*node) time.Duration {
	x.Helper()
	began := time.Now()
	x.startBrokers(nodes...)
	return time.Since(began)
}

// F01
func killLeader(x *trial) {
	x.up()
	for range 2 {
		x.moment(400 * time.Millisecond)
		leader := x.awaitLeader()
		x.strike()
		leader.kill()
		if x.col.raft {
			x.resumes(15 * time.Second)
		}
		took := x.restart(leader)
		if !x.col.raft {
			x.resumes(15 * time.Second)
		}
		require.Less(x, took, 10*time.Second, "recovery of a few MB")
		x.l.awaitAcks(x, 50)
		x.caughtUpUnderLoad(leader)
	}
	x.settle()
}

// caughtUpUnderLoad waits until a node that was away holds what the leader held when this was called.
func (x *trial) caughtUpUnderLoad(n *node) {
	x.Helper()
	if !x.col.replicated() {
		return
	}
	var want int64
	for _, o := range x.alive() {
		want = max(want, o.positions(x)["visible"])
	}
	eventually(x, 20*time.Second, fmt.Sprintf("%s holds the log up to %d", n.addr(), want), func() bool { return n.positions(x)["visible"] >= want })
}

// points are where a process is killed, by what it is about to do to a file.
var points = []struct {
	name  string
	rules []string
}{
	{"roll", []string{"rename *commitlog* kill"}},
	{"segment made", []string{"create *prepared* kill"}},
	{"write", []string{"write *commitlog/* nth=20 kill", "write *prepared/* nth=200 kill"}},
	{"flush", []string{"sync *commitlog/* kill", "sync *prepared/* nth=2 kill"}},
	{"queue flush", []string{"sync *consumequeue* kill"}},
	{"checkpoint", []string{"write *checkpoint* kill"}},
	{"state", []string{"rename *rmq/* kill"}},
	{"metadata save", []string{"rename *config* kill"}},
	{"metadata written", []string{"sync *config* kill"}},
}

// F02
func killAtPoints(x *trial) {
	x.up()
	missed := map[string]bool{}
	for i, p := range points {
		n := x.awaitLeader()
		x.rules(n, p.rules...)
		x.strike()
		for end := time.Now().Add(6 * time.Second); time.Now().Before(end) && !n.hasExited(); time.Sleep(10 * time.Millisecond) {
			// Something to be saved; it may fail.
			err := x.cl.Admin().CreateTopic(x.Context(), n.addr(), &protocol.TopicConfig{TopicName: fmt.Sprintf("Point%d-%d", i, end.UnixNano()%1000), ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6, TopicFilterType: "SINGLE_TAG"}, "")
			if err != nil {
				x.Logf("point %s: %v", p.name, err)
			}
		}
		if !n.hasExited() {
			missed[p.name] = true
			x.run.Strikes--
			x.rules(n)
			continue
		}
		x.rules(n)
		x.restart(n)
		x.resumes(15 * time.Second)
	}
	// In recovery: it is killed when it changes its first file, its third, and so on.
	for nth := range 3 {
		n := x.awaitLeader()
		x.strike()
		n.kill()
		x.rules(n, fmt.Sprintf("any * nth=%d kill", 2+3*nth))
		n.process = n.launch(x)
		if n.boots(x) {
			missed["recovery"] = true
			x.run.Strikes--
		}
		x.rules(n)
		n.kill()
		x.restart(n)
		x.resumes(15 * time.Second)
	}
	for _, p := range points {
		if missed[p.name] {
			x.note("not hit in a run: %s", p.name)
		}
	}
	require.GreaterOrEqual(x, x.run.Strikes, 8, "points that were hit; not: %v", missed)
	x.settle()
}

// F03
func killForGood(x *trial) {
	x.up()
	x.moment(400 * time.Millisecond)
	leader := x.awaitLeader()
	x.strike()
	leader.kill()
	switch {
	case !x.col.replicated():
		time.Sleep(time.Second) // how long nothing may be acknowledged
		_, ok := x.l.resumed()
		require.False(x, ok, "acknowledged by nobody")
		x.note("unavailable until the restart")
		x.restart(leader)
		x.resumes(15 * time.Second)
	case x.col.raft:
		require.Less(x, x.resumes(15*time.Second), 10*time.Second)
		x.down[leader] = true
	default:
		x.promoteSlave(leader)
		if x.col.sync {
			x.note("alone it stores, and says that there is no second copy")
			x.finish()
			return
		}
	}
	x.settle()
}

// F04
func killAll(x *trial) {
	x.up()
	for range 2 {
		x.moment(400 * time.Millisecond)
		x.strike()
		for _, b := range x.c.brokers {
			_ = b.cmd.Process.Kill()
		}
		for _, b := range x.c.brokers {
			b.kill()
		}
		x.restart(x.c.brokers...)
		x.resumes(15 * time.Second)
		x.l.awaitAcks(x, 50)
	}
	x.settle()
}

func (n *node) signal(t *trial, s syscall.Signal) {
	t.Helper()
	require.NoError(t, n.cmd.Process.Signal(s))
}

// F05
func freezeLeader(x *trial) {
	x.up()
	leader := x.awaitLeader()
	x.strike()
	leader.signal(x, syscall.SIGSTOP)
	x.Cleanup(func() { _ = leader.cmd.Process.Signal(syscall.SIGCONT) }) // it may have ended
	if x.col.raft {
		x.resumes(15 * time.Second)
	}
	time.Sleep(1500*time.Millisecond + time.Duration(x.rnd.Int64N(int64(2500*time.Millisecond)))) // how long it is frozen
	leader.signal(x, syscall.SIGCONT)
	if !x.col.raft {
		x.resumes(15 * time.Second)
	}
	x.l.awaitAcks(x, 50)
	x.settle()
}

// F06
func freezeFollower(x *trial) {
	x.up()
	n := x.anyOf(x.others(x.awaitLeader()))
	x.strike()
	n.signal(x, syscall.SIGSTOP)
	x.Cleanup(func() { _ = n.cmd.Process.Signal(syscall.SIGCONT) }) // it may have ended
	if !x.col.sync || x.col.raft {
		x.resumes(15 * time.Second)
	}
	time.Sleep(1500*time.Millisecond + time.Duration(x.rnd.Int64N(int64(2500*time.Millisecond)))) // how long it is frozen
	n.signal(x, syscall.SIGCONT)
	if x.col.sync && !x.col.raft {
		x.resumes(15 * time.Second)
	}
	x.l.awaitAcks(x, 50)
	x.settle()
}

// F45
func loseAnswers(x *trial) {
	x.start()
	links := map[*node]*link{}
	var addrs []string
	for _, b := range x.c.brokers {
		k := newLink(x, b.host, b.addr())
		links[b] = k
		addrs = append(addrs, k.addr())
	}
	x.load(loadOptions{addrs: addrs})
	x.l.awaitAcks(x, 150)
	for range 4 {
		x.moment(200 * time.Millisecond)
		x.strike()
		for _, k := range links {
			k.set(linkState{dropReplies: true})
		}
		time.Sleep(100 * time.Millisecond) // how long answers are thrown away
		for _, k := range links {
			k.set(linkState{})
			k.reset()
		}
		x.resumes(15 * time.Second)
		x.l.awaitAcks(x, 50)
	}
	x.settle()
	require.Positive(x, x.run.Indeterminate, "no answer was lost")
}

// F46
func loseNameServers(x *trial) {
	x.up()
	tr := newTraffic(x, x.c.connect(x), topicOfTrial+"Routes")
	for _, b := range x.alive() {
		if b == x.awaitLeader() {
			createTopic(x, x.cl, b, tr.topic, 2)
		}
	}
	tr.produce(x)
	tr.awaitAcked(x, "", 50)
	one, other := x.c.namesrvs[0], x.c.namesrvs[1]
	for _, dead := range [][]*node{{one}, {one, other}} {
		x.strike()
		for _, ns := range dead {
			ns.kill()
		}
		x.resumes(10 * time.Second)
		tr.awaitAcked(x, "", 50)
		for _, ns := range dead {
			ns.start(x)
			back := awaitRoutes(x, ns, topicOfTrial, 1, time.Now())
			require.Less(x, back, 3*time.Second, "an empty name server has its routes")
			x.Logf("an empty name server has its routes after %v", back)
		}
	}
	tr.stopProducing(x)
	tr.noFailures(x, "name servers are killed and come back empty")
	tr.readBack(x)
	x.settle()
}
