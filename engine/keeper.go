package engine

import (
	"context"
	"errors"
	"math"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine/format"
)

// keeper writes down how far the store has come: the state file every second or 64 MiB of
// flushed log, and a checkpoint of the derived files every CheckpointBytes or CheckpointPeriod.
type keeper struct {
	s          *Store
	checkpoint *checkpointFile
	state      *stateFile

	mu      sync.Mutex // guards what follows, and is held over their I/O
	saved   storeState
	page    format.CheckpointPage // the stock checkpoint as it is
	sum     uint32                // its sum
	next    uint32                // and as it is about to be
	lastRun time.Time
	last    int64 // dispatched position of the last checkpoint
	// times are the store times of dispatched positions, for the conservative stamps of the
	// stock checkpoint file.
	times []timeAt

	suspect bool // a sync of the index has failed
	closed  bool // everything is on disk and nothing more comes

	checkpoints atomic.Int64
}

type timeAt struct{ pos, millis int64 }

const (
	stateEvery      = time.Second
	stateEveryBytes = 64 << 20
	keeperTick      = 100 * time.Millisecond
	retryTrouble    = time.Second
)

func newKeeper(s *Store) *keeper {
	return &keeper{s: s, checkpoint: newCheckpointFile(s.o.FS, s.o.Dir)}
}

// begin writes what a running store must have on disk: the abort mark and a state that is not clean.
func (k *keeper) begin(ctx context.Context, ld *loaded) error {
	s := k.s
	var err error
	if k.state, err = openState(s.o.FS, rmqDir(s.o.Dir), ld.state); err != nil {
		return err
	}
	start, ok := s.files.Min()
	if !ok {
		start = s.report.End
	}
	k.saved.Start, k.saved.Confirm = start, s.log.visible.Load()
	if ld.state != nil {
		k.saved.Start = max(start, ld.state.Start)
		k.saved.LastTime, k.saved.IndexEnd = ld.state.LastTime, ld.state.IndexEnd
		s.disp.lastTime.Store(max(s.disp.lastTime.Load(), ld.state.LastTime))
	}
	s.log.lastTime = max(s.log.lastTime, s.disp.lastTime.Load())
	if err := replaceFile(s.o.FS, path.Join(s.o.Dir, abortName), abortText()); err != nil {
		return err
	}
	if err := s.o.FS.SyncDir(rmqDir(s.o.Dir)); err != nil {
		return err
	}
	k.page, k.sum, err = k.checkpoint.load()
	if err != nil {
		return err
	}
	k.next = k.sum
	if ld.state == nil || s.mended || s.queues.journalMissing() {
		return k.run1(ctx)
	}
	// What is on disk is true as it is, only old if there was something to replay: then the keeper
	// writes a checkpoint at its first tick, beside the first appends.
	k.last = min(ld.state.Dispatched, s.log.dispatched.Load()) // a blank may be between them: retention must not take it
	if s.report.Replayed == 0 {
		k.lastRun = time.Now()
	}
	k.saved.Dispatched = ld.state.Dispatched
	return k.saveState(false)
}

// run keeps state and checkpoints until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	lastState := time.Now()
	var again time.Time // after trouble: not before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l := k.s.log
		if l.poisoned() {
			return nil
		}
		if time.Now().Before(again) {
			continue
		}
		failed := !again.IsZero()
		k.mu.Lock()
		flushed := l.flushed.Load()
		news := flushed != k.saved.Flushed || k.s.o.Hidden && l.visible.Load() != k.saved.Confirm
		due := news && (time.Since(lastState) >= stateEvery || flushed-k.saved.Flushed >= stateEveryBytes)
		var err error
		if due {
			lastState = time.Now()
			err = k.saveState(false)
		}
		dispatched := l.dispatched.Load()
		behind := dispatched - k.last
		run := behind >= k.s.o.CheckpointBytes || behind > 0 && time.Since(k.lastRun) >= k.s.o.CheckpointPeriod
		k.mu.Unlock()
		if err == nil && (run || failed) {
			err = k.run1(ctx)
		}
		switch {
		case err == nil && failed:
			again = time.Time{}
			k.s.refuseAppends(refusedDerived, nil)
		case err != nil && ctx.Err() == nil:
			again = time.Now().Add(retryTrouble)
			k.trouble(err)
		}
	}
}

// trouble tells of a derived file that could not be written. The log has everything, so nothing is
// lost; but on a full disk appends are refused until a try succeeds.
func (k *keeper) trouble(err error) {
	if IsFull(err) {
		k.s.refuseAppends(refusedDerived, k.s.spaceFor(err))
		return
	}
	k.s.o.Logger.Error("checkpoint failed: it will be tried again", "err", err)
}

// derivedSpace is what queues and index may need at once, for the text of an error.
const derivedSpace = 64 << 20

// spaceFor says what is missing where a derived file could not be written because the disk is full.
func (s *Store) spaceFor(err error) error {
	var space *SpaceError
	if !IsFull(err) || errors.As(err, &space) {
		return err
	}
	u, _ := s.o.FS.Usage(s.o.Dir) // the figure is only for the text
	return &SpaceError{Path: s.o.Dir, Need: derivedSpace, Have: u.Avail, Err: err}
}

// saveState writes the state file. Called with mu held, or before anything runs.
func (k *keeper) saveState(clean bool) error {
	l := k.s.log
	st := k.saved
	// Confirm first: it must not be ahead of what is flushed and visible at the same moment.
	st.Confirm = l.visible.Load()
	st.Closed = k.closed
	st.Flushed, st.Clean, st.CheckpointSum, st.NextSum = l.flushed.Load(), clean, k.sum, k.next
	if first, ok := k.s.files.Min(); ok {
		st.Start = max(st.Start, first)
	}
	if k.s.index != nil {
		st.IndexFiles = k.s.index.count()
	}
	if err := k.state.save(st); err != nil {
		return err
	}
	k.saved = st
	return nil
}

// run1 writes queues and index, syncs them and the log below, and then says so in the stock
// checkpoint and the state file, in this order.
func (k *keeper) run1(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.checkpointLocked(ctx, stopNone)
}

// stopKind is what a checkpoint leaves behind.
type stopKind int

const (
	stopNone  stopKind = iota // more may come
	stopClean                 // nothing comes any more: the next open has nothing to mend
	stopWhole                 // and queues and index know the whole log: the original has nothing to mend either
)

func (k *keeper) checkpointLocked(ctx context.Context, stop stopKind) error {
	s, l := k.s, k.s.log
	began := time.Now()
	millis := s.disp.lastTime.Load() // before the position: an older time is always safe
	pos := l.dispatched.Load()
	if err := s.queues.checkpoint(ctx); err != nil {
		return err
	}
	if s.index != nil {
		// After a clean stop, or while the clock stands still, the stock page names files that this
		// checkpoint is about to change: it is lowered before that.
		if safe := s.index.safeIndexTime(); safe < k.page.Index {
			page := k.page
			page.Index = safe
			if err := k.savePage(page); err != nil {
				return err
			}
		}
		if err := s.index.checkpoint(ctx); err != nil {
			if IsFull(err) {
				return err
			}
			// A second sync that says "fine" would prove nothing, but the log can make the index anew.
			k.suspect = true
			s.o.Logger.Error("index could not be synced: the next start rebuilds it", "err", err)
		}
	}
	if stop == stopWhole {
		if err := s.queues.flushClassic(ctx); err != nil {
			return err
		}
	}
	if stop >= stopClean && s.index != nil {
		if err := s.index.flushClassic(ctx); err != nil {
			return err
		}
	}
	if err := l.ensureFlushed(pos); err != nil {
		return err
	}
	if stop >= stopClean {
		if err := s.o.FS.SyncFS(s.o.Dir); err != nil {
			return err
		}
	}
	k.times = append(k.times, timeAt{pos, millis})
	page := format.CheckpointPage{Physic: k.timeBelow(pos), Logics: k.timeBelow(s.queues.classicPos(pos)), Confirm: pos}
	if s.index != nil {
		page.Index = s.index.safeIndexTime()
		k.saved.IndexEnd = s.index.durableEnd()
		if k.suspect {
			k.saved.IndexEnd = math.MaxInt64 // the next open makes the index anew
		}
	}
	if stop == stopWhole {
		page.Physic, page.Logics = millis, millis
		if s.index != nil {
			page.Index = s.index.endTime()
		}
	}
	if err := k.savePage(page); err != nil {
		return err
	}
	k.saved.Dispatched, k.saved.LastTime = pos, millis
	if err := k.saveState(stop >= stopClean); err != nil {
		return err
	}
	if err := s.queues.checkpointed(pos); err != nil {
		return err
	}
	k.last, k.lastRun = pos, time.Now()
	k.checkpoints.Add(1)
	if s.o.Events.Checkpoint != nil {
		s.o.Events.Checkpoint(CheckpointEvent{Dispatched: pos, Took: time.Since(began)})
	}
	return nil
}

// savePage writes the stock checkpoint. The state file knows the sums of the old page and the new one
// meanwhile, so that neither is taken for somebody else's. Called with mu held.
func (k *keeper) savePage(page format.CheckpointPage) error {
	k.next = k.checkpoint.sum(page)
	if err := k.saveState(false); err != nil {
		return err
	}
	if err := k.checkpoint.save(page); err != nil {
		return err
	}
	k.sum, k.page = k.next, page
	return nil
}

// timeBelow is the store time of a noted position at or below pos, 0 if there is none, and
// forgets the older ones.
func (k *keeper) timeBelow(pos int64) int64 {
	millis := int64(0)
	for _, t := range k.times {
		if t.pos <= pos {
			millis = t.millis
		}
	}
	if n := len(k.times); n > 1024 {
		k.times = append(k.times[:0], k.times[n-512:]...)
	}
	return millis
}

// closeClean leaves the directory so that this engine opens it without recovery, and, unless a part of
// the log is hidden, the original too.
func (k *keeper) closeClean(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.s.log
	k.closed = true
	if l.dispatched.Load() < l.written.Load() {
		// Queues do not know what is hidden. The abort mark stays, for an owner who would show it.
		return k.checkpointLocked(ctx, stopClean)
	}
	if err := k.checkpointLocked(ctx, stopWhole); err != nil {
		return err
	}
	if err := k.s.o.FS.Remove(path.Join(k.s.o.Dir, abortName)); err != nil {
		return err
	}
	return k.s.o.FS.SyncDir(k.s.o.Dir)
}

func (k *keeper) close() error {
	if k.state == nil {
		return nil
	}
	return k.state.close()
}

// Checkpoint writes queues and index so that a recovery from now on begins here.
func (s *Store) Checkpoint(ctx context.Context) error { return s.keeper.run1(ctx) }
