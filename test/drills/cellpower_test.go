//go:build drills

package drills

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs/powercut"
	"rmq/remoting/protocol"
	"rmq/replication"
	"rmq/test/robust"
)

func init() {
	plays["F10"] = play{do: func(x *trial) { cutLeader(x, powercut.Any) }, faulty: true, short: true}
	plays["F11"] = play{do: cutFollower, faulty: true}
	plays["F12"] = play{do: cutAll, faulty: true, short: true}
	plays["F14"] = play{do: func(x *trial) { cutLeader(x, powercut.Torn) }, faulty: true}
}

// afterCut judges what a power cut has taken, before the load goes on.
func (x *trial) afterCut(reported int64) {
	x.Helper()
	leader := x.awaitLeader()
	most := int64(0)
	if x.spec.Promise(x.col.name) == robust.LossW {
		most = reported
	}
	lost := x.loss(leader, most, false)
	x.run.W.Reported, x.run.W.Measured = max(x.run.W.Reported, reported), max(x.run.W.Measured, lost)
}

// F10, F14
func cutLeader(x *trial, way powercut.Way) {
	x.up()
	for range 3 {
		x.moment(500 * time.Millisecond)
		leader := x.awaitLeader()
		reported := leader.maxLoss(x)
		x.strike()
		x.powerCut(way, leader)
		if x.col.raft {
			x.resumes(15 * time.Second)
		}
		x.l.end(x)
		x.restart(leader)
		x.reconcile(leader)
		x.afterCut(reported)
		x.l.start(x)
		if !x.col.raft {
			x.resumes(15 * time.Second)
		}
		x.l.awaitAcks(x, 50)
		x.caughtUpUnderLoad(leader)
		x.votesAgain(leader)
	}
	if x.col.name == "rS" {
		x.lastCopy()
	}
	x.settle()
}

// votesAgain waits until a node that has come back has its vote, under whatever identity: one that may have forgotten is
// let in without it. Until then the group of three has two voters, and the next cut would take half of them.
func (x *trial) votesAgain(n *node) {
	x.Helper()
	if !x.col.raft {
		return
	}
	eventually(x, 20*time.Second, n.addr()+" has a vote", func() bool {
		mine, ok := x.status(n)
		if !ok || mine.Role != replication.Follower {
			return ok && mine.Role == replication.Leader
		}
		leader := x.leader()
		if leader == nil || leader == n {
			return false
		}
		st, ok := x.status(leader)
		return ok && slices.ContainsFunc(st.Peers, func(p replication.Peer) bool { return p.ID == mine.ID && p.Voter })
	})
}

// status is what a node says of its part in the group; false if it says nothing now.
func (x *trial) status(n *node) (replication.Status, bool) {
	ctx, cancel := context.WithTimeout(x.Context(), time.Second)
	defer cancel()
	info, err := x.cl.Admin().RuntimeInfo(ctx, n.addr())
	if err != nil {
		return replication.Status{}, false
	}
	st, _, ok := replication.ParseInfo(info)
	return st, ok
}

// lastCopy takes the power of the leader while of the others one is dead and one has seen nothing of late: what was
// acknowledged or read, messages, a topic and a member, was on the leader's own disk, though that is slow.
func (x *trial) lastCopy() {
	x.Helper()
	leader := x.awaitLeader()
	rest := x.others(leader)
	pick := x.rnd.IntN(2)
	dead, behind := rest[pick], rest[1-pick]
	behind.signal(x, syscall.SIGSTOP)
	x.Cleanup(func() { _ = behind.cmd.Process.Signal(syscall.SIGCONT) }) // it may have ended
	x.rules(leader, "sync *commitlog/0* delay=700ms", "sync *prepared/* delay=700ms")
	x.l.awaitAcks(x, 20)
	topic := fmt.Sprint("Copy", x.run.Strikes)
	eventually(x, 20*time.Second, "the topic is made", func() bool { return tryCreateTopic(x, x.cl, leader, topic, 1) == nil })
	added := false
	eventually(x, 20*time.Second, "a member is added", func() bool {
		err := x.cl.Admin().ChangeMember(x.Context(), leader.addr(), "add", "n9", at(hostC, 9))
		added = err == nil
		return added || strings.Contains(err.Error(), "n9 is a member already")
	})
	time.Sleep(250 * time.Millisecond) // less than a sync takes: what may be read by then
	x.strike()
	_ = dead.cmd.Process.Kill() // what it had comes later
	x.powerCut(powercut.Any, leader)
	<-dead.done
	x.l.end(x)
	behind.signal(x, syscall.SIGCONT)
	x.rules(leader)
	x.restart(leader)
	x.afterCut(0)
	if _, err := x.cl.Admin().Topic(x.Context(), x.awaitLeader().addr(), topic); err != nil {
		x.Errorf("topic %s was acknowledged and is gone: %v", topic, err)
	}
	if out, err := mqadmin(x, "raftStatus", "-b", x.awaitLeader().addr(), "-n", x.c.nameServers()); err != nil || added && !strings.Contains(out, "n9#1") {
		x.Errorf("member n9 was added and is gone: %v, %s", err, out)
	}
	x.restart(dead)
	x.l.start(x)
	x.l.awaitAcks(x, 50)
	x.caughtUpUnderLoad(dead)
	eventually(x, 20*time.Second, "the member is removed", func() bool {
		err := x.cl.Admin().ChangeMember(x.Context(), x.awaitLeader().addr(), "remove", "n9", "")
		return err == nil || strings.Contains(err.Error(), "n9 is not a member")
	})
}

// F11
func cutFollower(x *trial) {
	x.up()
	for range 2 {
		x.moment(500 * time.Millisecond)
		n := x.anyOf(x.others(x.awaitLeader()))
		x.strike()
		x.powerCut(powercut.Any, n)
		if x.col.raft || !x.col.sync {
			x.resumes(15 * time.Second)
		}
		x.restart(n)
		if !x.col.raft && x.col.sync {
			x.resumes(15 * time.Second)
		}
		x.l.awaitAcks(x, 50)
		x.caughtUpUnderLoad(n)
		x.votesAgain(n)
	}
	x.settle()
}

// F12
func cutAll(x *trial) {
	x.up()
	for range 3 {
		x.moment(500 * time.Millisecond)
		reported := x.awaitLeader().maxLoss(x)
		x.strike()
		x.powerCut(powercut.Any, x.c.brokers...)
		x.l.end(x)
		x.restart(x.c.brokers...)
		x.afterCut(reported)
		x.l.start(x)
		x.resumes(20 * time.Second)
		x.l.awaitAcks(x, 50)
	}
	x.settle()
}

// reconcile waits until a master that has lost power says it takes messages: when it may have lost what a
// slave has, that is after it has taken it back.
func (x *trial) reconcile(n *node) {
	x.Helper()
	if x.col.raft {
		return
	}
	require.Equal(x, n, x.awaitLeader())
	if !x.col.sync {
		return
	}
	tries := 0
	eventually(x, 20*time.Second, "the master takes changes again", func() bool {
		tries++
		cfg := &protocol.TopicConfig{TopicName: fmt.Sprintf("Back%d-%d", x.run.Strikes, tries), ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6, TopicFilterType: "SINGLE_TAG"}
		return x.cl.Admin().CreateTopic(x.Context(), n.addr(), cfg, "") == nil
	})
}
