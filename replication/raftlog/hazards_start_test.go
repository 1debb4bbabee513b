package raftlog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/replication"
)

// tracked is a log that knows what is committed, all of it, and so lets the library replay it while it starts.
type tracked struct{ memory }

func (tracked) StageCommitIndex(uint64) error     { return nil }
func (l tracked) GetCommitIndex() (uint64, error) { return l.LastIndex() }

// restartEnv asks for what happens in a process of its own: a library that hangs cannot be ended.
const restartEnv = "RMQ_TEST_RESTART"

// Hazard H5: proves that an instance with our settings over more committed entries than the library's channel
// holds batches of is made, and that with the library's replay of them it never is, unless there is one entry less.
func TestCommittedLogsAtStart(t *testing.T) {
	if os.Getenv(restartEnv) != "" {
		var entries uint64
		var off gate
		_, err := fmt.Sscan(os.Getenv(restartEnv), &entries, &off)
		require.NoError(t, err)
		restartOver(t, entries, off)
		return
	}
	const most = 128 * 64 // batches in the channel, entries in a batch
	for _, c := range []struct {
		entries uint64
		off     gate
		started bool
	}{{most + 200, 0, true}, {most, replayCommitted, true}, {most + 1, replayCommitted, false}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCommittedLogsAtStart$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", restartEnv, c.entries, c.off))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			require.Contains(t, string(out), fmt.Sprint("started: ", c.started))
		})
	}
}

// restartOver makes an instance over a log, in a bubble, where what can never go on is told from what is slow, says
// whether it was made, and ends the process.
func restartOver(t *testing.T, entries uint64, off gate) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{o: Options{gates: &gates{}, Logger: slog.New(slog.DiscardHandler), HeartbeatTimeout: time.Hour}}
		n.o.gates.switchOff(off)
		n.id.ID = "n0#1"
		log := tracked{memory{raft.NewInmemStore()}}
		for i := range entries {
			require.NoError(t, log.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte("x")}))
		}
		workers := run.New(t.Context(), "test")
		var made atomic.Bool
		workers.Go("start", func(context.Context) error {
			_, tr := raft.NewInmemTransport("")
			_, err := raft.NewRaft(n.raftConfig(), &applied{}, log, raft.NewInmemStore(), raft.NewInmemSnapshotStore(), tr)
			made.Store(err == nil)
			return err
		})
		synctest.Wait()
		_, _ = fmt.Fprintln(os.Stdout, "started:", made.Load()) // the parent reads it
		os.Exit(0)
	})
}

// counter is a log that counts what the library says.
type counter struct {
	slog.Handler
	text string
	n    *atomic.Int64
}

func (c counter) Enabled(context.Context, slog.Level) bool { return true }
func (c counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c counter) WithGroup(string) slog.Handler            { return c }
func (c counter) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, c.text) {
		c.n.Add(1)
	}
	return nil
}

// Hazard H6: proves that a follower whose log ends behind where its leader's begins, with another tail, has what the
// leader has once it has taken the leader's snapshot; and that an instance which lives on over the log that begins
// anew refuses what comes behind the snapshot again and again, for it believes that it still has the tail.
func TestSnapshotOntoLongerLog(t *testing.T) {
	t.Parallel()
	for _, off := range []gate{0, freshInstance} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			g := &gates{}
			g.switchOff(off)
			var refused atomic.Int64
			c := newCluster(t, engine.AsyncFlush, 3)
			c.adapt = func(id string, o *Options) {
				quick(id, o)
				o.gates, o.HeartbeatTimeout = g, calm
				o.Engine.SegmentBytes, o.Engine.MaxMessageBytes = 16<<10, 4<<10
				o.Engine.Retention.Pause = time.Millisecond
				o.Engine.Clock = func() time.Time { return time.Now().Add(1000 * time.Hour) } // every segment has expired
				o.Logger = slog.New(counter{slog.DiscardHandler, "failed to get log entry", &refused})
			}
			c.startAll()
			c.send("t", 0, "first")
			c.caughtUp()
			id := c.longTail(400)
			old, err := c.node(id).logs.LastIndex()
			require.NoError(t, err)
			for range 100 {
				c.send("t", 0, strings.Repeat("x", 2000))
			}
			require.Eventually(t, func() bool {
				for _, id := range c.ids {
					c.node(id).DeleteExpired()
				}
				return c.leader().logs.Start().Index > 20
			}, patience, 20*time.Millisecond)
			require.Less(t, c.leader().logs.Start().Index+100, old)
			c.isolate(id, false)
			n := c.node(id)
			if off != 0 {
				require.Eventually(t, func() bool { return refused.Load() >= 3 }, patience, time.Millisecond)
				last, err := n.logs.LastIndex()
				require.NoError(t, err)
				require.Less(t, last, n.instance.Load().raft.LastIndex(), "the library counts entries that are gone")
				require.Less(t, n.Visible(), c.leader().Visible())
				g.bits.Store(0) // the snapshot comes again
			}
			c.send("t", 0, "last")
			c.caughtUp()
			c.same()
			require.Equal(t, c.high(c.leader(), "t", 0), c.high(n, "t", 0))
			if off == 0 {
				require.Zero(t, refused.Load())
			}
		})
	}
}

// longTail isolates the leader once it has so many entries that nobody else has, and gives its id.
func (c *cluster) longTail(entries int) string {
	c.tb.Helper()
	n := c.leader()
	id := n.o.SelfID
	c.isolate(id, true)
	in := n.instance.Load()
	for range entries {
		b := n.logs.Batch()
		require.NoError(c.tb, b.Add(&engine.Append{Record: record("t", 1, []byte("lost")), Done: func(*engine.Append) {}}))
		in.raft.ApplyLog(raft.Log{Data: b.Token()}, 0)
	}
	require.Eventually(c.tb, func() bool { return n.Status().Role != replication.Leader }, patience, time.Millisecond)
	last, err := n.logs.LastIndex()
	require.NoError(c.tb, err)
	require.Greater(c.tb, last, uint64(entries))
	require.Eventually(c.tb, func() bool { return c.leader() != n }, patience, time.Millisecond)
	return id
}
