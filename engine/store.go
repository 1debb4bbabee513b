package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine/mappedfile"
	"rmq/internal/run"
)

// Store is one open store directory. All methods are safe for concurrent use.
//
// Its goroutines: writer, flusher (async flush) or syncer (sync aside), dispatcher, allocator, keeper (state and
// checkpoints), cleaner (retention), and acks when marks of other owners are waited for. Close
// ends them in the order in which a clean store needs them.
type Store struct {
	o      Options
	lock   io.Closer
	files  *mappedfile.MappedFileQueue
	log    *CommitLog
	queues *queueTable
	index  *indexService // nil when disabled
	disp   *Dispatcher
	keeper *keeper
	report RecoveryReport
	mended bool // recovery has made or cut queues or index

	group  *run.Group // everything but the writer
	writer *run.Group // ends after the last append
	holds  holds

	cleaner *Cleaner
	refused refusals

	closing sync.Mutex
	closed  atomic.Bool
	err     error // of the first Close
}

// rmqDir is the directory of our own files below the root. Apache never looks there.
func rmqDir(root string) string { return path.Join(root, "rmq") }

// Open opens the store in o.Dir, creating it if there is none, adopting it if Apache RocketMQ
// wrote it, and recovering it if it was not closed cleanly. What was found and done is in
// [Store.Recovery].
//
// Errors: a wrong option; a store in use, with the holder's process; a directory of another
// cluster, of other file sizes, of a newer format, or with parts the engine does not know;
// [CorruptionError] for damage below the flushed position; [SpaceError].
func Open(ctx context.Context, o Options) (*Store, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	for _, dir := range []string{o.Dir, o.QueueDir, o.IndexDir, rmqDir(o.Dir)} {
		if err := o.FS.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	s := &Store{o: o}
	lock, err := acquireLocks(o.FS, o.Dir, o.CommitLogDir, o.QueueDir)
	if err != nil {
		return nil, err
	}
	s.lock = lock
	if err := s.recoverAll(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Dir, errors.Join(err, s.release()))
	}
	s.report.Took = time.Since(began)
	s.start()
	if o.Events.Recover != nil {
		o.Events.Recover(s.report)
	}
	o.Logger.Info("store open", "dir", o.Dir, "flush", o.Flush, "min", s.Min(), "max", s.Max(),
		"clean", s.report.Clean, "hidden", s.report.Hidden, "replayed", s.report.Replayed, "took", s.report.Took, "maxUnflushedBytes", s.maxUnflushed())
	return s, nil
}

func (s *Store) recoverAll(ctx context.Context) error {
	ld, err := s.load(ctx)
	if err != nil {
		return err
	}
	return s.recover(ctx, ld)
}

func (s *Store) writerFunc() mappedfile.WriterFunc {
	switch s.o.Write {
	case WriteMmap:
		return mappedfile.Mmap
	case WriteMmapWarmed:
		return mappedfile.MmapTouched
	}
	return mappedfile.Pwrite
}

func (s *Store) fill() mappedfile.Fill {
	switch {
	case s.o.PrepareDisabled || s.o.Write == WriteMmap:
		return mappedfile.FillNone
	case s.o.Write == WriteMmapWarmed:
		return mappedfile.FillBuffered
	case s.o.Flush == SyncFlush:
		return mappedfile.FillDirect
	}
	return mappedfile.FillNone
}

// maxUnflushed is W: what a power cut may take under async flush.
func (s *Store) maxUnflushed() int64 {
	if s.o.Flush == SyncFlush {
		return 0
	}
	return s.o.MaxUnflushed
}

func (s *Store) start() {
	l := s.log
	l.alloc = mappedfile.NewAllocator(s.files, mappedfile.AllocatorOptions{
		Fill: s.fill(),
		Appended: func() int64 {
			return l.recordBytes.Load() + l.rawBytes.Load()
		},
		OnError: s.onSpace,
		Logger:  s.o.Logger,
	})
	tail, seg := l.tail.Load(), s.o.SegmentBytes
	if s.files.Next() > tail {
		l.alloc.Want(tail - tail%seg + seg)
	} else {
		l.alloc.Want(tail)
	}
	s.writer = run.New(context.Background(), "engine/writer")
	s.writer.Go("writer", l.runWriter)
	s.group = run.New(context.Background(), "engine")
	s.group.Go("allocator", l.alloc.Run)
	s.disp.arrive = s.o.Events.Arrive
	s.disp.trouble = func(err error) { s.refuseAppends(refusedDispatch, s.spaceFor(err)) }
	if !s.o.DispatchDisabled {
		s.group.Go("dispatcher", s.disp.run)
	}
	switch {
	case s.o.Flush == AsyncFlush:
		s.group.Go("flusher", l.runFlusher)
	case s.o.SyncAside:
		s.group.Go("syncer", l.runSyncer)
	}
	if len(s.o.AckMarks) > 0 {
		s.group.Go("acks", func(ctx context.Context) error { return l.acks.waitMarks(ctx, &l.ackable) })
	}
	s.group.Go("keeper", s.keeper.run)
	s.cleaner = newCleaner(storeTarget{s}, s.o.Retention, s.o.Clock, s.o.Events.Clean)
	s.group.Go("cleaner", s.runCleaner)
}

// onSpace refuses appends while a disk is full and takes them again when there is space.
func (s *Store) onSpace(err error) {
	s.refuseAppends(refusedAllocator, err)
}

// Close takes no more appends, waits until what was appended is on disk and dispatched, writes
// everything derived, and leaves a clean store. A poisoned store is left as after a crash.
// It returns the first error; a second call does nothing and returns the same.
func (s *Store) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed.Swap(true) {
		return s.err
	}
	l := s.log
	l.mu.Lock()
	poisoned := l.failed
	if poisoned == nil {
		l.closing = true
	}
	l.mu.Unlock()
	ctx := context.Background()
	if poisoned != nil {
		s.group.Cancel()
		s.writer.Cancel()
		s.err = errors.Join(poisoned, s.group.Wait(), s.writer.Wait(), s.release())
		return s.err
	}
	s.err = s.drain()
	s.group.Cancel()
	s.err = errors.Join(s.err, s.group.Wait())
	if s.err == nil && !s.o.DispatchDisabled {
		s.err = s.disp.finish()
	}
	if s.err == nil {
		s.err = s.keeper.closeClean(ctx)
	}
	for _, m := range l.marks() {
		m.Fail(ErrClosed)
	}
	s.err = errors.Join(s.err, s.release())
	return s.err
}

// drain writes and flushes what was appended.
func (s *Store) drain() error {
	l := s.log
	s.writer.Cancel()
	if err := s.writer.Wait(); err != nil {
		return err
	}
	if err := l.flushWritten(); err != nil {
		return err
	}
	l.acks.fail(ErrIndeterminate) // what still waits for marks of other owners
	return nil
}

// release closes what is open, in any state of opening.
func (s *Store) release() error {
	var errs []error
	if s.keeper != nil {
		errs = append(errs, s.keeper.close())
	}
	if s.queues != nil {
		errs = append(errs, s.queues.close())
	}
	if s.index != nil {
		errs = append(errs, s.index.close())
	}
	if s.log != nil {
		s.log.chunks.clear()
	}
	if s.files != nil {
		errs = append(errs, s.files.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Recovery says what Open found and did.
func (s *Store) Recovery() RecoveryReport { return s.report }

// Options are the effective ones.
func (s *Store) Options() Options { return s.o }

// Min is the position of the first byte the log still holds.
func (s *Store) Min() int64 {
	if m, ok := s.files.Min(); ok {
		return m
	}
	return s.log.tail.Load()
}

// Max is the end of the visible log.
func (s *Store) Max() int64 { return s.log.visible.Load() }

// Appended is the end of what has an offset.
func (s *Store) Appended() int64 { return s.log.tail.Load() }

// Written is the end of what is in the page cache.
func (s *Store) Written() int64 { return s.log.written.Load() }

// Flushed is the end of what is on disk.
func (s *Store) Flushed() int64 { return s.log.flushed.Load() }

// Ackable is the end of what may be acked as far as this node is concerned.
func (s *Store) Ackable() int64 { return s.log.ackable.Load() }

// Visible is the end of what readers may see.
func (s *Store) Visible() int64 { return s.log.visible.Load() }

// Dispatched is the end of what consume queues and index know.
func (s *Store) Dispatched() int64 { return s.log.dispatched.Load() }

// Flush returns when everything appended before the call is on disk.
func (s *Store) Flush(ctx context.Context) error { return s.log.flush(ctx) }

// WaitVisible returns when readers may see everything below pos.
func (s *Store) WaitVisible(ctx context.Context, pos int64) error {
	return s.log.visible.Wait(ctx, pos)
}

// WaitDispatched returns when the queue holds n entries.
func (s *Store) WaitDispatched(ctx context.Context, topic string, queueID int32, n int64) error {
	return s.queues.get([]byte(topic), queueID).waitMax(ctx, n)
}

// WaitDispatchedPos returns when queues and index know everything below pos.
func (s *Store) WaitDispatchedPos(ctx context.Context, pos int64) error {
	return s.log.dispatched.Wait(ctx, pos)
}

// WaitPrepared returns when the segment in use and the next one are as ready as they get.
func (s *Store) WaitPrepared(ctx context.Context) error {
	tail, seg := s.log.tail.Load(), s.o.SegmentBytes
	if err := s.log.alloc.Await(ctx, tail, false); err != nil {
		return err
	}
	return s.log.alloc.Await(ctx, tail-tail%seg+seg, false)
}

// SetConfirm sets the ceiling of what readers may see. It starts unlimited, or, with Options.Hidden,
// where it was known to be. Lowering it hides nothing that was visible.
func (s *Store) SetConfirm(pos int64) {
	s.log.confirm.Store(pos)
	s.log.publishVisible()
}

// Refusal is the error with which an append would be refused now: closed, poisoned, or a full disk. Nil
// if it would be taken, though it may have to wait.
func (s *Store) Refusal() error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.refusal()
}

// Stats is a snapshot of counters and positions.
func (s *Store) Stats() Stats {
	l := s.log
	st := Stats{
		Dispatched: l.dispatched.Load(), Visible: l.visible.Load(), Confirm: l.confirm.Load(), Ackable: l.ackable.Load(),
		Flushed: l.flushed.Load(), Written: l.written.Load(), Appended: l.tail.Load(), Min: s.Min(),
		Records: l.records.Load(), RecordBytes: l.recordBytes.Load(), RawBytes: l.rawBytes.Load(),
		Writes: l.writes.Load(), WriteBytes: l.writeBytes.Load(), Flushes: l.flushes.Load(), FlushNanos: l.flushNanos.Load(),
		Rolls: l.rolls.Load(), UnpreparedSegments: l.alloc.Unprepared(), PreparedBytes: l.alloc.FilledBytes(),
		Stalls: l.stalls.Load(), Checkpoints: s.keeper.checkpoints.Load(), OrderViolations: l.violations.Load(),
		MaxUnflushed: s.maxUnflushed(), Queues: s.queues.count(), TailCacheBytes: l.chunks.bytes(),
	}
	st.PendingBytes = st.Appended - st.Written
	return st
}
