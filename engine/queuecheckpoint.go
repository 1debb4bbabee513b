package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"rmq/engine/format"
)

func (t *queueTable) noteWritten(q *ConsumeQueue, start int64) {
	if !t.syncAll {
		t.touched[queueFileKey{q, start}] = struct{}{}
		t.syncAll = len(t.touched) > maxTouchedFiles
	}
}

func (t *queueTable) noteCreated(q *ConsumeQueue, first bool) {
	if t.syncAll {
		return
	}
	t.newDirs[t.queueDir(q)] = struct{}{}
	if first {
		t.newDirs[t.topicDir(q.topic)] = struct{}{}
		t.newDirs[t.o.Dir] = struct{}{}
	}
}

func (t *queueTable) noteRemoved(q *ConsumeQueue) {
	if !t.syncAll {
		t.newDirs[t.queueDir(q)] = struct{}{}
		t.syncAll = len(t.newDirs) > maxTouchedFiles
	}
}

func (t *queueTable) clearSyncs() {
	t.touched, t.newDirs, t.syncAll = map[queueFileKey]struct{}{}, map[string]struct{}{}, false
}

// syncClassic makes durable what was written to the classic files: a few files one by one, many
// by one sync of the file system.
func (t *queueTable) syncClassic() error {
	if t.syncAll {
		if err := t.o.FS.SyncFS(t.o.Dir); err != nil {
			return err
		}
		t.clearSyncs()
		return nil
	}
	for k := range t.touched {
		x, err := t.openFile(k.q, k.start)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return err
		}
		if err := errors.Join(x.f.SyncData(), t.files.release(x)); err != nil {
			return err
		}
	}
	for dir := range t.newDirs {
		if err := t.o.FS.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	t.clearSyncs()
	return nil
}

// checkpoint makes durable every entry that was put before the call.
//
// Without a journal they all go into the classic files. With one, a queue goes there when
// DirectEntries wait, or when entries of all queues take more than PendingBytes: then those that
// have waited longest go, until a quarter of it is free. What else is new is appended to the
// journal in one piece, so that the cost does not depend on the number of queues.
//
// The order is: classic files, sync, journal, sync. Whatever the journal says is therefore true
// whenever it can be read.
func (t *queueTable) checkpoint(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.checkpointLocked(ctx, t.o.PendingBytes, overflowTime); err != nil {
		return fmt.Errorf("checkpoint of consume queues: %w", err)
	}
	return nil
}

// relieve makes room on the putting goroutine when entries come faster than checkpoints write
// them, or when there are no checkpoints yet, as in recovery. It waits for one that is running.
func (t *queueTable) relieve() {
	t.maint.Lock()
	defer t.maint.Unlock()
	ceiling := pendingCeiling * t.o.PendingBytes
	if t.pendingBytes() < t.relieveAt.Load() {
		return
	}
	if err := t.checkpointLocked(context.Background(), ceiling, time.Hour); err != nil {
		// The checkpoints meet the same error and report it; here it costs memory.
		t.o.Logger.Warn("no room made for queue entries", "err", err, "bytes", t.pendingBytes())
	}
	if left := t.pendingBytes(); left >= ceiling {
		ceiling = left + t.o.PendingBytes // not again at once
	}
	t.relieveAt.Store(ceiling)
}

// checkpointLocked writes what waits in memory, with at most limit bytes left in it unless that
// takes too long.
func (t *queueTable) checkpointLocked(ctx context.Context, limit int64, patience time.Duration) error {
	if err := t.reopen(); err != nil {
		return err
	}
	covered := t.maxPos() // before the queues are looked at: everything below will be seen there
	direct, overflow := t.chooseOut(limit)
	if err := t.writeOutAll(ctx, direct, time.Time{}); err != nil {
		return err
	}
	if err := t.writeOutAll(ctx, overflow, time.Now().Add(patience)); err != nil {
		return err
	}
	if err := t.syncClassic(); err != nil {
		return err
	}
	t.covered = max(t.covered, covered)
	if t.journal == nil {
		return nil
	}
	return t.writeJournal()
}

// writeOutAll writes the pending entries of queues into their files, up to a deadline unless it is
// zero.
func (t *queueTable) writeOutAll(ctx context.Context, queues []*ConsumeQueue, deadline time.Time) error {
	if len(queues) == 0 {
		return nil
	}
	if t.buf == nil {
		t.buf = make([]byte, queueCopyBytes)
	}
	// A sweep over more files than fit would only push each other out of the cache.
	cache := len(queues) <= maxQueueFiles/2
	for i, q := range queues {
		if i%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i%64 == 0 && !deadline.IsZero() && time.Now().After(deadline) {
			return nil
		}
		if err := t.writeOut(q, cache); err != nil {
			return err
		}
	}
	return nil
}

// chooseOut picks the queues whose entries go into their files now: those with many, and those
// that have to because more than limit bytes wait.
func (t *queueTable) chooseOut(limit int64) (out, overflow []*ConsumeQueue) {
	type waiting struct {
		q      *ConsumeQueue
		oldest int64
		bytes  int64
	}
	var (
		list  []waiting
		bytes int64
		unit  [format.CQEntryBytes]byte
		e     [1]format.CQEntry
		full  = t.pendingBytes() >= limit
	)
	for _, q := range t.all() {
		q.mu.Lock()
		n := q.mark.Load() - q.base
		switch {
		case n == 0:
		case n >= int64(t.o.DirectEntries) || t.journal == nil:
			out = append(out, q)
			bytes += n * format.CQEntryBytes
		case full:
			q.pending.copyOut(&t.arena, q.base, q.base+n, unit[:])
			parseEntries(e[:], unit[:])
			list = append(list, waiting{q, e[0].Offset, n * format.CQEntryBytes})
		}
		q.mu.Unlock()
	}
	// Blocks are a little larger than the entries in them, so this frees more than it counts.
	excess := t.pendingBytes() - bytes - limit*3/4
	if !full || excess < limit/4 {
		return out, nil
	}
	slices.SortFunc(list, func(a, b waiting) int { return cmp.Compare(a.oldest, b.oldest) })
	for _, w := range list {
		if excess <= 0 {
			break
		}
		overflow = append(overflow, w.q)
		excess -= w.bytes
	}
	return out, overflow
}

// flushClassic writes everything put before the call into the classic files, durably, and leaves
// them as a clean exit of Apache would.
func (t *queueTable) flushClassic(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.flushClassicLocked(ctx); err != nil {
		return fmt.Errorf("write consume queues: %w", err)
	}
	return nil
}

func (t *queueTable) flushClassicLocked(ctx context.Context) error {
	if err := t.reopen(); err != nil {
		return err
	}
	covered := t.maxPos()
	var out []*ConsumeQueue
	for _, q := range t.all() {
		q.mu.Lock()
		waiting, unsure := q.base < q.mark.Load(), q.unsure
		q.mu.Unlock()
		switch {
		case waiting:
			out = append(out, q)
		case unsure && !q.unnamed:
			if err := t.cleanTail(q); err != nil {
				return err
			}
		}
	}
	t.syncAll = t.syncAll || t.fromScan || t.orphans // what a killed process removed is to stay so
	if t.orphans {
		if err := t.removeOrphans(); err != nil {
			return err
		}
	}
	if err := t.writeOutAll(ctx, out, time.Time{}); err != nil {
		return err
	}
	if err := t.syncClassic(); err != nil {
		return err
	}
	t.covered = max(t.covered, covered)
	if t.journal == nil {
		return nil
	}
	return t.rotateJournal(true)
}

// checkpointed hears that pos was noted as dispatched. Nothing depends on it: the journal is true
// by itself.
func (t *queueTable) checkpointed(int64) error { return nil }
