package raftlog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/replication"
)

// stall holds every sync of a node's log until the returned gate is opened.
func (c *cluster) stall(id string) *vfs.Gate {
	g := vfs.NewGate()
	stallLog(c.fault[id], g)
	c.tb.Cleanup(g.Open)
	return g
}

// stallLog makes syncs of segments wait; they keep the name under which they were prepared.
func stallLog(f *vfs.Faulty, g *vfs.Gate) {
	for _, dir := range []string{"commitlog", "rmq/prepared"} {
		f.Add(vfs.Rule{Op: vfs.OpSync, Match: "*/" + dir + "/*", Stall: g})
	}
}

// copies is how many nodes have synced the log up to end.
func (c *cluster) copies(end int64) int {
	k := 0
	for _, id := range c.ids {
		if n := c.node(id); n != nil && n.Flushed() >= end {
			k++
		}
	}
	return k
}

// underGate runs a test with a gate on and off; broken says whether the promise is expected to be broken.
func underGate(t *testing.T, off gate, test func(t *testing.T, c *cluster, broken bool)) {
	for _, broken := range []bool{false, true} {
		t.Run(map[bool]string{false: "on", true: "off"}[broken], func(t *testing.T) {
			g := &gates{}
			c := newCluster(t, engine.SyncFlush, 3)
			c.adapt = func(_ string, o *Options) {
				o.gates, o.HeartbeatTimeout = g, calm
				x := defaultTimes
				x.stallTransfer, x.stallExit = patience, patience
				o.times = &x
			}
			c.startAll()
			c.send("t", 0, "first")
			c.caughtUp()
			if broken {
				g.switchOff(off)
			}
			test(t, c, broken)
		})
	}
}

const moment = 300 * time.Millisecond // long enough for what must not happen to happen

// Rule 1: proves that an ack stands for two synced copies while both followers' disks hang, and that it
// does not when followers answer before they have synced.
func TestGateFollower(t *testing.T) {
	t.Parallel()
	underGate(t, gateFollower, func(t *testing.T, c *cluster, broken bool) {
		lead := c.leader()
		var stalls []*vfs.Gate
		for _, f := range c.followers() {
			stalls = append(stalls, c.stall(f.o.SelfID))
		}
		acked := make(chan int, 1)
		a := &engine.Append{Record: record("t", 0, nil)}
		a.Done = func(a *engine.Append) { acked <- c.copies(a.Result.Pos + int64(a.Result.Size)) }
		_, err := lead.SubmitFront(t.Context(), []*engine.Append{a})
		require.NoError(t, err)
		if broken {
			require.Less(t, <-acked, 2)
			require.NoError(t, a.Err)
		} else {
			select {
			case <-acked:
				t.Fatal("acked while two disks hang")
			case <-time.After(moment):
			}
		}
		for _, g := range stalls {
			g.Open()
		}
		if !broken {
			require.GreaterOrEqual(t, <-acked, 2)
			require.NoError(t, a.Err)
		}
	})
}

// Rule 2: proves that a follower shows nothing that only its own disk has while the leader's hangs, and
// that it does when the leader tells the library's commit index as it is.
func TestGateLeader(t *testing.T) {
	t.Parallel()
	underGate(t, gateLeader, func(t *testing.T, c *cluster, broken bool) {
		lead := c.leader()
		fs := c.followers()
		c.isolate(fs[1].o.SelfID, true)
		g := c.stall(lead.o.SelfID)
		before := fs[0].Visible()
		done := make(chan struct{})
		a := &engine.Append{Record: record("t", 0, nil), Done: func(*engine.Append) { close(done) }}
		_, err := lead.SubmitFront(t.Context(), []*engine.Append{a})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if !broken {
			ctx, cancel = context.WithTimeout(t.Context(), moment)
		}
		defer cancel()
		err = fs[0].WaitVisible(ctx, before+1)
		if broken {
			require.NoError(t, err)
			require.Less(t, c.copies(fs[0].Visible()), 2)
		} else {
			require.Error(t, err, "shown with one synced copy")
		}
		g.Open()
		c.isolate(fs[1].o.SelfID, false)
		<-done
	})
}

// Rule 3: proves that a document is acked with two synced copies while the leader's disk hangs, and that
// it is not when entries which are no messages are not synced before they count.
func TestGateInline(t *testing.T) {
	t.Parallel()
	underGate(t, gateInline, func(t *testing.T, c *cluster, broken bool) {
		lead := c.leader()
		fs := c.followers()
		c.isolate(fs[1].o.SelfID, true)
		g := c.stall(lead.o.SelfID)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if !broken {
			ctx, cancel = context.WithTimeout(t.Context(), moment)
		}
		defer cancel()
		err := lead.SaveMeta(ctx, "doc", []byte("x"))
		if broken {
			require.NoError(t, err)
			require.Less(t, c.copies(fs[0].Flushed()), 2)
		} else {
			require.Error(t, err, "acked with one synced copy")
		}
		g.Open()
		c.isolate(fs[1].o.SelfID, false)
	})
}

// Rule 4: proves that what is written in the place of a tail that was cut is not taken for durable because
// the tail was, and that it would be if the cut did not lower what is.
func TestGateTruncate(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		fault := vfs.NewFaulty(vfs.NewHeap())
		o := small(fault, engine.SyncFlush)
		o.gates = &gates{}
		s := openLog(t, o)
		lead(t, s, 1, 1, []byte("a"))
		lead(t, s, 2, 1, []byte("b"))
		require.NoError(t, s.WaitDurable(t.Context(), 2))
		if broken {
			o.gates.switchOff(gateTruncate)
			s.DurableIndex()
		}
		require.NoError(t, s.DeleteRange(2, 2))
		g := vfs.NewGate()
		stallLog(fault, g)
		lead(t, s, 2, 2, []byte("c"))
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		err := s.WaitDurable(ctx, 2)
		cancel()
		if broken {
			require.NoError(t, err)
			require.EqualValues(t, 2, s.DurableIndex())
		} else {
			require.Error(t, err, "durable without a sync")
			require.EqualValues(t, 1, s.DurableIndex())
		}
		g.Open()
		require.NoError(t, s.Close())
	}
}

// Rule 5: proves that a snapshot stands for a log that is on disk, and that a power cut leaves it without
// when it does not wait for that.
func TestGateSnapshot(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		heap := vfs.NewHeap()
		o := small(heap, engine.AsyncFlush)
		o.Engine.FlushInterval, o.Engine.FlushThorough = time.Hour, time.Hour
		o.gates = &gates{}
		if broken {
			o.gates.switchOff(gateSnapshot)
		}
		s := openLog(t, o)
		for i := range uint64(5) {
			lead(t, s, i+1, 1, []byte("a"))
		}
		s.Commit(5)
		snaps, err := OpenSnapshots(heap, s.dir, s)
		require.NoError(t, err)
		k, err := snaps.Create(1, 5, 1, raft.Configuration{}, 0, nil)
		require.NoError(t, err)
		require.NoError(t, k.Close())
		end, ok := s.End(5)
		require.True(t, ok)
		require.Equal(t, broken, s.Engine().Flushed() < end, "flushed %d of %d", s.Engine().Flushed(), end)
		require.NoError(t, s.Close())
	}
}

// Hazard H4: proves that a leader whose disk hangs lets another one lead, and that it stops to speak as a
// leader when nobody else can.
func TestHungDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = func(_ string, o *Options) {
		x := defaultTimes
		x.stallTransfer, x.stallExit, x.drain = 100*time.Millisecond, patience, 50*time.Millisecond
		o.times = &x
	}
	c.startAll()
	c.send("t", 0, "first")
	c.caughtUp()
	old := c.leader()
	g := c.stall(old.o.SelfID)
	done := make(chan struct{})
	_, err := old.SubmitFront(t.Context(), []*engine.Append{{Record: record("t", 0, nil), Done: func(*engine.Append) { close(done) }}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.leader() != old }, patience, 5*time.Millisecond)
	c.send("t", 0, "second")
	<-done
	g.Open()
	c.caughtUp()
	c.same()
}

// Hazard H6: proves that a follower whose log ends before the leader's begins, and one whose tail is
// another besides, starts anew behind a snapshot and has all that the leader has.
func TestFarBehind(t *testing.T) {
	t.Parallel()
	for _, divergent := range []bool{false, true} {
		t.Run(fmt.Sprint("divergent ", divergent), func(t *testing.T) {
			c := newCluster(t, engine.AsyncFlush, 3)
			c.adapt = func(id string, o *Options) {
				quick(id, o)
				o.Engine.SegmentBytes = 16 << 10
				o.Engine.MaxMessageBytes = 4 << 10
				o.Engine.Retention.Pause = time.Millisecond
				o.Engine.Clock = func() time.Time { return time.Now().Add(1000 * time.Hour) } // every segment has expired
			}
			c.startAll()
			c.send("t", 0, "first")
			c.caughtUp()
			behind := c.followers()[0]
			if divergent {
				require.NoError(t, c.leader().Transfer(t.Context(), behind.o.SelfID))
				c.send("t", 0, "second") // whoever leads takes appends by now: the rest of its lease is for those below
				behind = c.leader()
				as := make([]*engine.Append, 20)
				for i := range as {
					as[i] = &engine.Append{Record: record("t", 1, []byte("lost")), Done: func(*engine.Append) {}}
				}
				c.isolate(behind.o.SelfID, true)
				_, err := behind.SubmitFront(t.Context(), as)
				require.NoError(t, err)
				require.Eventually(t, func() bool { return behind.Status().Role != replication.Leader }, patience, time.Millisecond)
			}
			id := behind.o.SelfID
			c.stop(id)
			c.isolate(id, false)
			big := make([]byte, 2000)
			for range 100 {
				c.send("t", 0, string(big))
			}
			require.Eventually(t, func() bool { return c.leader().SaveMeta(t.Context(), "doc", []byte("kept")) == nil }, patience, time.Millisecond)
			low := c.leader().Min()
			require.Eventually(t, func() bool {
				for _, n := range append(c.followers(), c.leader()) {
					n.DeleteExpired()
				}
				return c.leader().Min() > low+32<<10 && c.leader().logs.Start().Index > 20
			}, patience, 20*time.Millisecond)
			n := c.start(id)
			c.send("t", 0, "last")
			c.caughtUp()
			c.same()
			require.Greater(t, n.Min(), low)
			require.Equal(t, c.high(c.leader(), "t", 0), c.high(n, "t", 0))
			n.fsm.mu.Lock()
			require.Equal(t, "kept", string(n.fsm.docs["doc"]))
			n.fsm.mu.Unlock()
		})
	}
}
