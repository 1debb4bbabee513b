package raftlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/replication"
)

// Proves that a follower takes over as soon as the leader's process is gone, long before any heartbeat
// would be missed, that everything acked is there, and that the old leader comes back.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.startAll()
	acked := []engine.Result{c.send("t", 0, "0")}
	// From now on a missed heartbeat is found so late that it is told from a take-over. It has to be found all the same:
	// a leader that starves steps down, and nobody is dead then.
	const late = 5 * time.Second
	quickest := patience
	c.heartbeats(late)
	for i := range 3 {
		lead := c.leader()
		c.caughtUp()
		began := time.Now()
		c.kill(lead.o.SelfID, false, 0)
		acked = append(acked, c.send("t", 0, fmt.Sprint(i)))
		quickest = min(quickest, time.Since(began))
		t.Logf("next ack after %v", time.Since(began))
		c.start(lead.o.SelfID)
	}
	require.Less(t, quickest, late)
	for i, res := range acked {
		require.GreaterOrEqual(t, res.QueueOffset, int64(i)) // more where the outcome of an attempt was unknown
		require.True(t, i == 0 || res.QueueOffset > acked[i-1].QueueOffset)
	}
	c.caughtUp()
	c.same()
}

// Proves that while the first of two survivors waits for its disk to take its own vote, the other one lets it: it would
// split the vote, and both would wait for an election timeout.
func TestTakeOverSlowVote(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.startAll()
	c.send("t", 0, "0")
	c.caughtUp()
	lead, fs := c.leader(), c.followers()
	slices.SortFunc(fs, func(a, b *Node) int { return strings.Compare(a.id.ID, b.id.ID) })
	c.heartbeats(patience / 6) // so that a vote that a very busy machine splits after all is made good in time
	term := lead.instance.Load().raft.CurrentTerm()
	g := vfs.NewGate()
	t.Cleanup(g.Open)
	c.fault[fs[0].o.SelfID].Add(vfs.Rule{Op: vfs.OpSync, Match: "*/" + voteName, Stall: g})
	c.kill(lead.o.SelfID, false, 0)
	first, second := fs[0].instance.Load().raft, fs[1].instance.Load().raft
	require.Eventually(t, func() bool { return first.State() == raft.Candidate }, patience, time.Millisecond)
	for end := time.Now().Add(2*takeOverStagger + takeOverAsk); time.Now().Before(end); time.Sleep(time.Millisecond) {
		require.Equal(t, raft.Follower, second.State())
	}
	require.Equal(t, term, second.CurrentTerm())
	g.Open()
	c.send("t", 0, "1")
	c.start(lead.o.SelfID)
	c.caughtUp()
	c.same()
}

// Proves that a node answers for no term that its disk does not have, whether it votes in it or not, and stores nothing of it.
func TestTermBeforeAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.startAll()
	c.send("t", 0, "0")
	c.caughtUp()
	c.heartbeats(patience)
	lead, f := c.leader(), c.followers()[0]
	p := lead.net.peer(raft.ServerID(f.id.ID), raft.ServerAddress(c.peers[f.o.SelfID]))
	g := vfs.NewGate()
	t.Cleanup(g.Open)
	c.fault[f.o.SelfID].Add(vfs.Rule{Op: vfs.OpSync, Match: "*/" + voteName, Stall: g})
	ask := voteRequest{Term: f.instance.Load().raft.CurrentTerm() + 5, Transfer: true} // of a candidate with an empty log
	var reply voteReply
	require.Error(t, p.askWithin(moment, kindVote, ask, &reply))
	require.Equal(t, ask.Term, f.instance.Load().raft.CurrentTerm())
	end := f.Appended()
	stored := make(chan error, 1)
	f.group.Go("store", func(context.Context) error {
		_, err := f.logs.LastIndex()
		if err == nil {
			err = timedLog{f.logs, f.votes, &f.hops.Append}.StoreLogs(nil)
		}
		stored <- err
		return nil
	})
	select {
	case <-stored:
		t.Fatal("stored before the term")
	case <-time.After(moment):
	}
	require.Equal(t, end, f.Appended())
	g.Open()
	require.NoError(t, <-stored)
	require.NoError(t, p.askWithin(patience, kindVote, ask, &reply))
	require.Equal(t, voteReply{Term: ask.Term}, reply)
	again := openStableAt(t, c.disks[f.o.SelfID].CrashImage(1), f.o.dir()+"/rmq/raft")
	require.Equal(t, ask.Term, again.term())
	require.NoError(t, again.Close())
}

// Proves in which order survivors campaign, whatever each of them has heard of the other: never two within half a stagger.
func TestTakeOverQueue(t *testing.T) {
	t.Parallel()
	heard := func(ahead bool) queue {
		if ahead {
			return queue{ahead: 1}
		}
		return queue{}
	}
	for _, longer := range []bool{false, true} { // the second has the longer log
		for _, first := range []queue{heard(longer), {silent: 1}} {
			for _, second := range []queue{heard(!longer), {silent: 1, below: 1}} {
				apart := (first.wait() - second.wait()).Abs()
				require.GreaterOrEqual(t, apart, takeOverStagger/2, "%+v and %+v", first, second)
			}
		}
	}
	require.Positive(t, queue{busy: true}.wait(), "another one asks for votes")
}

// Proves that a hand-over loses no append that was accepted, and that none is stored twice.
func TestHandover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = func(_ string, o *Options) { o.HeartbeatTimeout = calm }
	c.startAll()
	c.send("t", 0, "first")
	for range 5 {
		lead := c.leader()
		done := make(chan *engine.Append, 2000)
		as := make([]*engine.Append, 500)
		for i := range as {
			as[i] = &engine.Append{Record: record("t", 1, []byte(fmt.Sprint(i))), Done: func(a *engine.Append) { done <- a }}
		}
		n, err := lead.SubmitFront(t.Context(), as)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		began := time.Now()
		require.NoError(t, lead.Handover(ctx))
		t.Logf("handed over in %v", time.Since(began))
		cancel()
		seen := map[*engine.Append]bool{}
		for range n {
			a := <-done
			require.False(t, seen[a], "completed twice")
			seen[a] = true
			require.NoError(t, a.Err)
		}
		require.NotSame(t, lead, c.leader())
	}
	c.caughtUp()
	c.same()
	high := c.high(c.leader(), "t", 1)
	require.EqualValues(t, 2500, high)
}

// Proves that a leader without a majority acks nothing, tells those who wait that the outcome is unknown,
// and that its tail is cut when it comes back.
func TestPartitionedLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.startAll()
	c.send("t", 0, "first")
	c.caughtUp()
	old := c.leader()
	c.isolate(old.o.SelfID, true)
	done := make(chan *engine.Append, 100)
	as := make([]*engine.Append, 100)
	for i := range as {
		as[i] = &engine.Append{Record: record("t", 0, []byte("lost")), Done: func(a *engine.Append) { done <- a }}
	}
	n, err := old.SubmitFront(t.Context(), as)
	if err != nil {
		require.ErrorIs(t, err, replication.ErrNotLeader)
	}
	c.mu.Lock()
	delete(c.nodes, old.o.SelfID) // the others' leader is looked for
	c.mu.Unlock()
	c.send("t", 0, "second")
	for range n {
		a := <-done
		require.Error(t, a.Err)
		require.True(t, errors.Is(a.Err, engine.ErrIndeterminate) || errors.Is(a.Err, replication.ErrNotLeader), "%v", a.Err)
	}
	c.mu.Lock()
	c.nodes[old.o.SelfID] = old
	c.mu.Unlock()
	c.isolate(old.o.SelfID, false)
	c.send("t", 0, "third")
	c.caughtUp()
	c.same()
	high := c.high(old, "t", 0)
	require.EqualValues(t, 3, high)
}

// Proves that a node whose directory is lost comes back under a new incarnation, is let in by the leader,
// gets the whole log and votes again; and that it cannot vote under its old name.
func TestWiped(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = quick
	c.startAll()
	for i := range 20 {
		c.send("t", 0, fmt.Sprint(i))
	}
	f := c.followers()[0]
	id := f.o.SelfID
	old := f.id.ID
	c.stop(id)
	c.wipe(id)
	c.send("t", 0, "meanwhile")
	n := c.start(id)
	require.Eventually(t, func() bool { return n.net.self() != "" && n.net.self() != old && n.mayVote() }, patience, 5*time.Millisecond)
	require.Equal(t, memberID(id, incarnation(old)+1), n.net.self())
	c.send("t", 0, "last")
	c.caughtUp()
	c.same()
	lead := c.leader()
	p := lead.net.peer(raft.ServerID(old), raft.ServerAddress(c.peers[id]))
	var reply voteReply
	require.Error(t, p.ask(kindVote, voteRequest{Term: 99, LastIndex: 1 << 40, LastTerm: 98}, &reply))
	lead.net.retain(map[raft.ServerID]bool{})
}

// Proves that a node which acked from the page cache and lost power is let in anew, keeping what it has,
// and that after a restart in order, or under sync flush, it is who it was.
func TestAmnesia(t *testing.T) {
	t.Parallel()
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			c := newCluster(t, flush, 3)
			c.adapt = quick
			c.startAll()
			for i := range 20 {
				c.send("t", 0, fmt.Sprint(i))
			}
			f := c.followers()[0]
			id, old := f.o.SelfID, f.id.ID
			c.boot = "boot-2"
			c.stop(id)
			require.Equal(t, old, c.start(id).id.ID, "it was closed in order")
			c.boot = "boot-3"
			c.kill(id, true, 7)
			n := c.start(id)
			want := old
			if flush == engine.AsyncFlush {
				want = memberID(id, incarnation(old)+1)
			}
			require.Eventually(t, func() bool { return n.net.self() == want && n.mayVote() }, patience, 5*time.Millisecond)
			c.send("t", 0, "last")
			c.caughtUp()
			c.same()
		})
	}
}

// Proves that after a loss of power on all nodes that acked from the page cache nobody leads, unless the
// policy says that the longest log does.
func TestTotalPowerLoss(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.AsyncFlush, 3)
	policy := Wait
	c.adapt = func(id string, o *Options) {
		quick(id, o)
		o.AfterTotalPowerLoss = policy
	}
	c.startAll()
	c.send("t", 0, "first")
	c.caughtUp()
	for _, id := range c.ids {
		require.NoError(t, c.node(id).Flush(t.Context()))
	}
	c.send("t", 0, "second")
	down := func() {
		for i, id := range c.ids {
			c.kill(id, true, uint64(i))
		}
	}
	c.boot = "boot-2"
	down()
	c.startAll()
	for _, id := range c.ids {
		require.Eventually(t, func() bool {
			st := c.node(id).Status()
			return st.Role == replication.ReadOnly && len(st.Why) > 100
		}, patience, 5*time.Millisecond)
		require.Contains(t, c.node(id).Status().Why, "longest-log")
	}
	policy = LongestLog
	down()
	c.startAll()
	c.send("t", 0, "third")
	c.caughtUp()
	c.same()
	high := c.high(c.leader(), "t", 0)
	require.GreaterOrEqual(t, high, int64(2))

	// One has all of it on disk: it leads, and nobody decides before it is there.
	c.send("t", 0, "fourth")
	c.caughtUp()
	longest := c.ids[2]
	require.NoError(t, c.node(longest).Flush(t.Context()))
	c.boot = "boot-3"
	down()
	for _, id := range c.ids[:2] {
		n := c.start(id)
		require.Eventually(t, func() bool { return strings.Contains(n.Status().Why, "waits for a leader") }, patience, 5*time.Millisecond)
		require.False(t, n.resolved.Load())
	}
	c.start(longest)
	c.send("t", 0, "fifth")
	c.caughtUp()
	c.same()
	require.GreaterOrEqual(t, c.high(c.leader(), "t", 0), high+2)
}

// Proves that members are added, promoted and removed while the group runs, and that a file which differs
// from the membership does not matter then.
func TestMembership(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = quick
	c.startAll()
	c.send("t", 0, "first")
	c.addID("n3")
	n := c.start("n3")
	require.Eventually(t, func() bool { return n.Status().Why != "" }, patience, time.Millisecond)
	lead := c.leader()
	require.NoError(t, lead.AddPeer(t.Context(), "n3", c.peers["n3"]))
	require.ErrorContains(t, lead.AddPeer(t.Context(), "n3", "127.0.0.1:1"), "already")
	c.send("t", 0, "second")
	c.caughtUp()
	require.Eventually(t, func() bool { return c.leader().PromotePeer(t.Context(), "n3") == nil }, patience, 10*time.Millisecond)
	require.Eventually(t, n.mayVote, patience, 5*time.Millisecond)
	gone := c.followers()[0]
	require.NoError(t, c.leader().RemovePeer(t.Context(), gone.o.SelfID))
	c.stop(gone.o.SelfID)
	c.send("t", 0, "third")
	require.NoError(t, c.leader().Transfer(t.Context(), "n3"))
	c.send("t", 0, "fourth")
	require.Same(t, n, c.leader())
	c.caughtUp()
	c.same()
}

// Proves that the preferred node leads once it has caught up.
func TestPreferred(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.AsyncFlush, 3)
	c.adapt = func(id string, o *Options) {
		quick(id, o)
		o.Preferred = "n1"
	}
	c.startAll()
	c.send("t", 0, "first")
	require.Eventually(t, func() bool { return c.leader().o.SelfID == "n1" }, patience, 5*time.Millisecond)
}

// quick shortens the waits of a node.
func quick(_ string, o *Options) {
	x := defaultTimes
	x.prefer, x.snapshot = 20*time.Millisecond, 50*time.Millisecond
	o.times = &x
}
