package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/crashtest"
	"rmq/internal/vfs"
)

// TestEveryCallFails proves, for scripted runs in which the N-th call of a kind fails, for N from 1
// to the end, that no such run hangs, panics, leaks or serves garbage, that the error of a failed
// append or Close names the cause, and that everything acked is there after a reopen; under sync
// flush after a power cut too.
func TestEveryCallFails(t *testing.T) {
	kinds := []vfs.Op{
		vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpOpen, vfs.OpRename, vfs.OpTruncate, vfs.OpAllocate, vfs.OpSyncDir,
		vfs.OpSyncFS, vfs.OpRemove, vfs.OpMkdir, vfs.OpMap, vfs.OpWriteback, vfs.OpLock, vfs.OpRead,
	}
	modes(t, func(t *testing.T, flush engine.FlushMode, write engine.WriteMode) {
		seed := runSeed(t)
		runs := 0
		for _, op := range kinds {
			step := 1
			if op == vfs.OpWrite || op == vfs.OpSync || op == vfs.OpRead {
				step = max(1, 8/trials(t, 1))
			}
			for n := 1; ; n += step {
				if !failingRun(t, flush, write, vfs.Rule{Op: op, Nth: n, Err: syscall.EIO, Short: 100}, seed) {
					break
				}
				runs++
			}
		}
		t.Logf("%v flush, %v: %d runs with one failing call, acked-lost = 0", flush, write, runs)
	})
}

// failingRun runs a script under one rule and reports whether the rule was hit.
func failingRun(t *testing.T, flush engine.FlushMode, write engine.WriteMode, rule vfs.Rule, seed uint64) bool {
	t.Helper()
	name := fmt.Sprintf("%v %v: %v number %d", flush, write, rule.Op, rule.Nth)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	base := vfs.NewHeap()
	fsys := vfs.NewFaulty(base)
	hits := fsys.Add(rule)
	h := &history{src: crashtest.Source{Seed: seed, MaxBody: 900}}
	o := tiny(fsys, flush, write)
	rng := rand.New(rand.NewPCG(seed, 1))
	s, err := engine.Open(ctx, o)
	if err == nil {
		for range 12 {
			if err = h.step(ctx, s, rng); err != nil {
				break
			}
		}
		require.NoError(t, ctx.Err(), "%s: hangs: %v", name, err)
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		require.ErrorIs(t, err, syscall.EIO, name)
		require.Positive(t, hits(), "%s: %v", name, err)
	}
	require.Empty(t, base.OpenFiles(), name)
	require.Empty(t, base.LiveMappings(), name)
	require.Empty(t, base.HeldLocks(), name)
	images := []*vfs.Heap{base.KillImage()}
	if flush == engine.SyncFlush {
		images = append(images, base.CrashImage(seed))
		require.NoError(t, engine.Reboot(images[1], storeDir), name)
	}
	for _, img := range images {
		o.FS = img
		s, err := engine.Open(ctx, o)
		require.NoError(t, err, name)
		rep, err := crashtest.Audit(ctx, s, h.src, h.seen())
		require.NoError(t, err, "%s: %+v", name, s.Recovery())
		require.Empty(t, rep.Lost, "%s: %s: %+v", name, rep.LostText(), s.Recovery())
		require.NoError(t, s.Close(), name)
	}
	return hits() > 0
}

// TestPoison proves that the first failed write or sync of log bytes ends all acks with a typed
// error that says why, that the store hears of it once, that reads go on, and that a reopened store
// has everything that was acked.
func TestPoison(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpSync} {
		modes(t, func(t *testing.T, flush engine.FlushMode, write engine.WriteMode) {
			if op == vfs.OpWrite && write != engine.WritePwrite {
				t.Skip("stores into a mapping cannot fail")
			}
			base := vfs.NewHeap()
			fsys := vfs.NewFaulty(base)
			h := &history{src: crashtest.Source{Seed: 1, MaxBody: 100}}
			o := tiny(fsys, flush, write)
			var poisoned atomic.Int32
			o.Events.Poison = func(err error) {
				if !errors.Is(err, engine.ErrPoisoned) || !errors.Is(err, syscall.EIO) {
					t.Errorf("poisoned with %v", err)
				}
				poisoned.Add(1)
			}
			s, err := engine.Open(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, s.WaitPrepared(t.Context()))
			for range 3 {
				require.NoError(t, h.one(t.Context(), s))
			}
			require.NoError(t, s.Flush(t.Context()))
			// One failure, then calls that would all succeed: nobody may try again and believe it.
			hits := fsys.Add(vfs.Rule{Op: op, Match: "*00000000000000000000", Nth: 1, Err: syscall.EIO})
			err = h.one(t.Context(), s)
			if flush == engine.AsyncFlush && op == vfs.OpSync {
				require.NoError(t, err, "written is enough under async flush")
				err = s.Flush(t.Context())
			}
			require.ErrorIs(t, err, engine.ErrPoisoned)
			require.ErrorIs(t, err, syscall.EIO)
			require.Equal(t, 1, hits())
			acked := len(h.seen())
			for range 3 {
				require.ErrorIs(t, h.one(t.Context(), s), engine.ErrPoisoned)
				require.ErrorIs(t, s.Flush(t.Context()), engine.ErrPoisoned)
			}
			require.Len(t, h.seen(), acked)
			r, err := s.Lookup(h.acks[0].Pos)
			require.NoError(t, err, "reads go on")
			r.Release()
			require.ErrorIs(t, s.Close(), engine.ErrPoisoned)
			require.EqualValues(t, 1, poisoned.Load())
			require.Empty(t, base.OpenFiles())

			o.Events.Poison = nil
			o.FS = base.KillImage()
			s, err = engine.Open(t.Context(), o)
			require.NoError(t, err)
			require.False(t, s.Recovery().Clean)
			rep, err := crashtest.Audit(t.Context(), s, h.src, h.seen())
			require.NoError(t, err)
			require.Empty(t, rep.Lost)
			require.NoError(t, s.Close())
		})
	}
}

// TestFullDisk proves that a full disk refuses appends with path, need and have instead of poisoning
// the store, that reads go on, and that appends resume by themselves when there is space.
func TestFullDisk(t *testing.T) {
	modes(t, func(t *testing.T, flush engine.FlushMode, write engine.WriteMode) {
		t.Parallel() // each waits for the retry of a second
		base := vfs.NewHeap()
		fsys := vfs.NewFaulty(base)
		h := &history{src: crashtest.Source{Seed: 1, MaxBody: 900}}
		s, err := engine.Open(t.Context(), tiny(fsys, flush, write))
		require.NoError(t, err)
		require.NoError(t, h.one(t.Context(), s))
		fsys.Add(vfs.Rule{Op: vfs.OpAllocate, Onward: true, Nth: 1, Err: syscall.ENOSPC})
		for err == nil {
			err = h.one(t.Context(), s)
		}
		var full *engine.SpaceError
		require.ErrorAs(t, err, &full)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.EqualValues(t, 8<<10, full.Need)
		require.Contains(t, full.Path, storeDir)
		require.NotErrorIs(t, err, engine.ErrPoisoned)
		r, err := s.Lookup(h.acks[0].Pos)
		require.NoError(t, err)
		r.Release()
		fsys.Clear()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for h.one(ctx, s) != nil {
			require.NoError(t, ctx.Err(), "appends did not resume")
			time.Sleep(10 * time.Millisecond) // the store looks again each second by itself
		}
		rep, err := crashtest.Audit(t.Context(), s, h.src, h.seen())
		require.NoError(t, err)
		require.Empty(t, rep.Lost)
		require.NoError(t, s.Close())
	})
}

// TestStalledSync proves that a sync that takes its time holds acks back under sync flush and
// appends at W under async flush, with a bounded amount pending and an answer that names the cause;
// that reads go on meanwhile; and that everything is acked once it is over.
func TestStalledSync(t *testing.T) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			base := vfs.NewHeap()
			gate := vfs.NewGate()
			defer gate.Open()
			fsys := vfs.NewFaulty(base)
			h := &history{src: crashtest.Source{Seed: 1, MaxBody: 500}}
			o := tiny(fsys, flush, engine.WritePwrite)
			o.SegmentBytes = 1 << 20
			s, err := engine.Open(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, s.WaitPrepared(t.Context()))
			require.NoError(t, h.one(t.Context(), s))
			fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Stall: gate})

			const total = 2000
			done := make(chan error, total)
			busy := 0
			for range total {
				seq := h.seq
				rec, err := h.src.AppendRecord(nil, 0, 1, seq)
				require.NoError(t, err)
				var refused error
				s.Submit(&engine.Append{Record: rec, NoWait: true, Done: func(a *engine.Append) {
					if errors.Is(a.Err, engine.ErrBusy) {
						refused = a.Err // before Submit returns
						return
					}
					done <- a.Err
				}})
				if refused != nil {
					if flush == engine.AsyncFlush && !strings.Contains(refused.Error(), "flush") {
						require.NoError(t, s.WaitVisible(t.Context(), s.Appended())) // the writer was behind
						continue
					}
					if busy++; busy > 3 {
						break
					}
					continue
				}
				h.seq++
			}
			select {
			case <-gate.Arrived():
			case <-time.After(5 * time.Second):
				t.Fatal("nobody synced")
			}
			require.Positive(t, busy, "never full")
			require.LessOrEqual(t, s.Appended()-s.Flushed(), o.MaxUnflushed+o.MaxPending+8<<10)
			r, err := s.Lookup(h.acks[0].Pos)
			require.NoError(t, err)
			r.Release()
			gate.Open()
			require.NoError(t, s.Flush(t.Context()))
			for range h.seq - 1 {
				require.NoError(t, <-done)
			}
			require.NoError(t, s.Close())
		})
	}
}

// TestNothingShowsEarly proves that readers, queues and acks see nothing of a record whose write, or
// under sync flush whose sync, is still under way: not of one alone, and not of one that was appended
// while the one before it was written.
func TestNothingShowsEarly(t *testing.T) {
	for flush, op := range map[engine.FlushMode]vfs.Op{engine.AsyncFlush: vfs.OpWrite, engine.SyncFlush: vfs.OpSync} {
		t.Run(flush.String(), func(t *testing.T) {
			fsys := vfs.NewFaulty(vfs.NewHeap())
			h := &history{src: crashtest.Source{Seed: 1, MaxBody: 100}}
			s, err := engine.Open(t.Context(), tiny(fsys, flush, engine.WritePwrite))
			require.NoError(t, err)
			require.NoError(t, s.WaitPrepared(t.Context()))
			require.NoError(t, h.one(t.Context(), s))
			end := s.Appended()
			require.NoError(t, s.WaitDispatchedPos(t.Context(), end))
			var gates [2]*vfs.Gate
			for i := range gates {
				gates[i] = vfs.NewGate()
				defer gates[i].Open()
				fsys.Add(vfs.Rule{Op: op, Match: "*/prepared/00000000000000000000", Nth: i + 1, Stall: gates[i]})
			}
			submit := func() chan error {
				rec, err := h.src.AppendRecord(nil, 0, 0, h.seq)
				require.NoError(t, err)
				h.seq++
				done := make(chan error, 1)
				s.Submit(&engine.Append{Record: rec, Done: func(a *engine.Append) { done <- a.Err }})
				return done
			}
			hidden := func(done chan error) {
				t.Helper()
				require.Greater(t, s.Appended(), end)
				for what, pos := range map[string]int64{"visible": s.Visible(), "ackable": s.Ackable(), "dispatched": s.Dispatched(), "flushed": s.Flushed()} {
					require.LessOrEqual(t, pos, end, what)
				}
				_, err := s.Lookup(end)
				require.ErrorIs(t, err, engine.ErrOffsetTooLarge)
				require.Empty(t, done)
			}
			shown := func(pos int64, done chan error) {
				t.Helper()
				require.NoError(t, <-done)
				r, err := s.Lookup(pos)
				require.NoError(t, err)
				r.Release()
			}
			first, at := submit(), end
			<-gates[0].Arrived()
			hidden(first)
			next := s.Appended()
			second := submit()
			hidden(first)
			gates[0].Open()
			shown(at, first)
			<-gates[1].Arrived()
			end = next
			hidden(second)
			gates[1].Open()
			shown(next, second)
			require.NoError(t, s.Close())
		})
	}
}

// TestSyncErrorsAreTold proves that no sync that fails is taken for one that has not, whichever file
// it was for: a checkpoint fails and notes nothing, an index is not believed at the next start, and a
// segment is not used.
func TestSyncErrorsAreTold(t *testing.T) {
	begin := func(t *testing.T, queueFileBytes int64) (*vfs.Heap, *vfs.Faulty, engine.Options, *engine.Store, *history) {
		t.Helper()
		base := vfs.NewHeap()
		fsys := vfs.NewFaulty(base)
		o := tiny(fsys, engine.SyncFlush, engine.WritePwrite)
		o.SegmentBytes, o.MaxIndexEntries, o.QueueFileBytes = 64<<10, 4096, queueFileBytes
		s, err := engine.Open(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, s.WaitPrepared(t.Context()))
		h := &history{src: crashtest.Source{Seed: 1, MaxBody: 10}}
		for range 1600 { // so many of one queue go into its file
			require.NoError(t, h.one(t.Context(), s))
		}
		require.NoError(t, s.WaitDispatchedPos(t.Context(), s.Visible()))
		return base, fsys, o, s, h
	}
	for name, x := range map[string]struct {
		rule           vfs.Rule
		queueFileBytes int64
	}{
		"journal":    {vfs.Rule{Op: vfs.OpSync, Match: "*/rmq/queues.journal*"}, 200},
		"queues":     {vfs.Rule{Op: vfs.OpSync, Match: "*/consumequeue/*"}, 20000}, // few files, one by one
		"queues all": {vfs.Rule{Op: vfs.OpSyncFS}, 200},                            // many, with their file system
		"state":      {vfs.Rule{Op: vfs.OpSync, Match: "*/rmq/state"}, 200},
		"checkpoint": {vfs.Rule{Op: vfs.OpSync, Match: "*/checkpoint"}, 200},
		"queues dir": {vfs.Rule{Op: vfs.OpSyncDir, Match: "*/consumequeue*"}, 20000},
		"root dir":   {vfs.Rule{Op: vfs.OpSyncDir, Match: storeDir}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			base, fsys, o, s, h := begin(t, x.queueFileBytes)
			x.rule.Nth, x.rule.Err = 1, syscall.EIO
			hits := fsys.Add(x.rule)
			require.ErrorIs(t, s.Checkpoint(t.Context()), syscall.EIO)
			require.Equal(t, 1, hits())
			fsys.Clear()
			for seed := range uint64(5) {
				o.FS = base.CrashImage(seed)
				require.NoError(t, engine.Reboot(o.FS, storeDir))
				s, err := engine.Open(t.Context(), o)
				require.NoError(t, err)
				rep, err := crashtest.Audit(t.Context(), s, h.src, h.seen())
				require.NoError(t, err)
				require.Empty(t, rep.Lost)
				require.NoError(t, s.Close())
			}
			require.NoError(t, s.Close())
		})
	}
	for name, rule := range map[string]vfs.Rule{
		"index":      {Op: vfs.OpSync, Match: "*/index/*", Nth: 1},
		"index head": {Op: vfs.OpSync, Match: "*/index/*", Nth: 2},
		"index dir":  {Op: vfs.OpSyncDir, Match: "*/index", Nth: 1},
	} {
		t.Run(name, func(t *testing.T) {
			base, fsys, o, s, _ := begin(t, 200)
			rule.Err = syscall.EIO
			hits := fsys.Add(rule)
			require.NoError(t, s.Checkpoint(t.Context()))
			require.Equal(t, 1, hits())
			o.FS = base.KillImage()
			require.NoError(t, s.Close())
			s, err := engine.Open(t.Context(), o)
			require.NoError(t, err)
			require.True(t, s.Recovery().IndexRebuilt)
			require.NoError(t, s.Close())
		})
	}
	// Of a clean stop only what no other goroutine may be doing beside it.
	for name, rule := range map[string]vfs.Rule{
		"index":       {Op: vfs.OpSync, Match: "*/index/*"},
		"journal":     {Op: vfs.OpSync, Match: "*/rmq/queues.journal*"},
		"checkpoint":  {Op: vfs.OpSync, Match: "*/checkpoint"},
		"file system": {Op: vfs.OpSyncFS},
		"index dir":   {Op: vfs.OpSyncDir, Match: "*/index"},
		"queues dir":  {Op: vfs.OpSyncDir, Match: "*/consumequeue*"},
		"journal dir": {Op: vfs.OpSyncDir, Match: "*/rmq"},
		"root dir":    {Op: vfs.OpSyncDir, Match: storeDir},
	} {
		t.Run("clean stop, "+name, func(t *testing.T) {
			for rule.Nth = 1; ; rule.Nth++ {
				base, fsys, o, s, _ := begin(t, 20000)
				rule.Err = syscall.EIO
				hits := fsys.Add(rule)
				err := s.Close()
				if hits() == 0 {
					require.NoError(t, err)
					break
				}
				o.FS = base.KillImage()
				s, oerr := engine.Open(t.Context(), o)
				require.NoError(t, oerr)
				require.True(t, err != nil || s.Recovery().IndexRebuilt, "number %d was not told", rule.Nth)
				require.NoError(t, s.Close())
			}
			require.Greater(t, rule.Nth, 1)
		})
	}
	for name, rule := range map[string]vfs.Rule{
		"segment":     {Op: vfs.OpSync, Match: "*/prepared/%020d"},
		"segment dir": {Op: vfs.OpSyncDir, Match: "*/commitlog"},
	} {
		t.Run(name, func(t *testing.T) {
			_, fsys, _, s, h := begin(t, 200)
			if strings.Contains(rule.Match, "%") {
				next := (s.Appended()/(64<<10) + 2) * (64 << 10) // one further than the one that is ready
				rule.Match = fmt.Sprintf(rule.Match, next)
			}
			rule.Nth, rule.Onward, rule.Err = 1, true, syscall.EIO
			fsys.Add(rule)
			var err error
			for err == nil && h.seq < 5000 {
				err = h.one(t.Context(), s)
			}
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, engine.ErrPoisoned)
			fsys.Clear()
			require.NoError(t, s.Close())
		})
	}
}
