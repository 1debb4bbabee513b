package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// AppendRaw puts bytes verbatim at the tail of the log, which must be pos: the stream of another
// log, cut anywhere, blanks and the filling behind them included. It returns when the bytes may
// be acked. Into an empty store they may go at any pos. Records in them become visible as they
// become whole. Not for concurrent use with other appends.
//
// Errors: [ErrOffsetTooSmall] or [ErrOffsetTooLarge] when pos is not the tail, else as Append.
func (s *Store) AppendRaw(ctx context.Context, pos int64, b []byte) error {
	if err := s.putRaw(ctx, pos, b); err != nil {
		return err
	}
	s.log.wakeWriter()
	return s.log.ackable.Wait(ctx, pos+int64(len(b)))
}

// WriteRaw is AppendRaw that returns when the bytes are in the page cache, whatever the flush mode, and
// leaves it to the caller to wait for more ([Store.WaitRaw]).
func (s *Store) WriteRaw(ctx context.Context, pos int64, b []byte) error {
	if err := s.putRaw(ctx, pos, b); err != nil {
		return err
	}
	return s.log.waitWritten(ctx, pos+int64(len(b)))
}

// putRaw copies b to the tail, which must be pos.
func (s *Store) putRaw(ctx context.Context, pos int64, b []byte) error {
	l := s.log
	if pos > 0 && l.tail.Load() == 0 {
		if err := s.ResetTo(pos); err != nil {
			return err
		}
	}
	for len(b) > 0 {
		n, why, at, err := l.placeRaw(pos, b)
		switch {
		case err != nil:
			return err
		case why != roomOK:
			if err := l.waitRoom(ctx, why, at, false); err != nil {
				return err
			}
		default:
			b, pos = b[n:], pos+int64(n)
		}
	}
	return nil
}

// placeRaw copies the front of b to the tail, up to the end of a segment or chunk.
func (l *CommitLog) placeRaw(pos int64, b []byte) (int, room, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refusal(); err != nil {
		return 0, 0, 0, err
	}
	tail, seg := l.tail.Load(), l.o.SegmentBytes
	switch {
	case pos < tail:
		return 0, 0, 0, fmt.Errorf("append at %d, the log ends at %d: %w", pos, tail, ErrOffsetTooSmall)
	case pos > tail:
		return 0, 0, 0, fmt.Errorf("append at %d, the log ends at %d: %w", pos, tail, ErrOffsetTooLarge)
	}
	n := min(int64(len(b)), seg-tail%seg, int64(l.chunks.pool.size))
	if c := l.cur; c != nil && c.end() == tail {
		if left := int64(len(c.buf)) - c.filled.Load(); left > 0 {
			n = min(n, left)
		}
	}
	if why, at := l.bounds(tail, tail+n); why != roomOK {
		return 0, why, at, nil
	}
	if tail%seg == 0 {
		l.cur = nil
		l.rolled(tail)
	}
	c := l.chunkFor(tail, n)
	copy(c.buf[c.filled.Load():], b[:n])
	c.filled.Add(n)
	l.tail.Store(tail + n)
	l.rawBytes.Add(n)
	l.verbatim = true
	return int(n), roomOK, 0, nil
}

// RawResult is a run of log bytes for a replica.
type RawResult struct {
	Range Range // where the bytes stand on disk
	Bytes []byte
	Cold  bool // read from the file just now: nobody has verified it
	read  ReadResult
}

// Release gives the bytes and the file back.
func (r *RawResult) Release() { r.read.Release() }

// Upto says how far ReadRaw may read.
type Upto int

// The limits of ReadRaw.
const (
	UptoVisible Upto = iota
	UptoFlushed
	UptoWritten
)

// ReadRaw gives at most limit bytes of the log from pos on, inside one segment and below the
// chosen mark. Nothing to read is a result without bytes. Release the result.
func (s *Store) ReadRaw(pos int64, limit int, upto Upto) (*RawResult, error) {
	end := s.mark(upto)
	switch {
	case s.closed.Load():
		return nil, ErrClosed
	case pos < s.Min():
		return nil, fmt.Errorf("read at %d, the log begins at %d: %w", pos, s.Min(), ErrOffsetTooSmall)
	case pos > end:
		return nil, fmt.Errorf("read at %d, the log may be read to %d: %w", pos, end, ErrOffsetTooLarge)
	case pos == end || limit <= 0:
		return &RawResult{}, nil
	}
	m := s.files.Acquire(pos)
	if m == nil {
		return nil, ErrOffsetTooSmall
	}
	r := &RawResult{}
	r.read.files = append(r.read.files, m)
	n := min(int64(limit), end-pos, m.End()-pos)
	if c := s.log.chunks.find(pos); c != nil {
		r.read.chunks = append(r.read.chunks, c)
		n = min(n, c.end()-pos)
		r.Bytes = c.buf[pos-c.start : pos-c.start+n]
	} else {
		buf := getReadBuffer(int(n))
		r.Cold = true
		r.read.pooled = append(r.read.pooled, buf)
		r.Bytes = (*buf)[:n]
		readSlots <- struct{}{}
		_, err := m.ReadAt(r.Bytes, pos)
		<-readSlots
		if err != nil {
			r.Release()
			return nil, err
		}
	}
	r.Range = Range{m, pos, int(n)}
	return r, nil
}

func (s *Store) mark(upto Upto) int64 {
	switch upto {
	case UptoWritten:
		return s.log.written.Load()
	case UptoFlushed:
		return s.log.flushed.Load()
	}
	return s.log.visible.Load()
}

// WaitRaw returns when ReadRaw has something at pos. Appends wake it; it never polls.
func (s *Store) WaitRaw(ctx context.Context, pos int64, upto Upto) error {
	switch upto {
	case UptoWritten:
		return s.log.written.Wait(ctx, pos+1)
	case UptoFlushed:
		return s.log.flushed.Wait(ctx, pos+1)
	}
	return s.log.visible.Wait(ctx, pos+1)
}

// TruncateTo cuts the log behind pos, under readers. What is visible is never cut. The bytes are
// kept in broken/, their range is zeroed and synced before the next append; flushed drops first.
// Appends that wait for their ack behind pos fail with ErrIndeterminate.
func (s *Store) TruncateTo(pos int64) error {
	l := s.log
	l.role.Lock()
	defer l.role.Unlock()
	for l.writeOnce() { // what has an offset goes to the file first, so that it can be kept
	}
	s.keeper.mu.Lock() // before syncing: a checkpoint flushes the log
	defer s.keeper.mu.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ended(); err != nil {
		return err
	}
	tail, visible := l.tail.Load(), l.visible.Load()
	switch {
	case pos < visible:
		return fmt.Errorf("truncate to %d, readers have seen up to %d: %w", pos, visible, ErrOffsetTooSmall)
	case pos > tail:
		return fmt.Errorf("truncate to %d, the log ends at %d: %w", pos, tail, ErrOffsetTooLarge)
	case pos == tail && l.written.Load() == tail:
		return nil
	}
	l.flushed.Rewind(pos)
	l.ackable.Rewind(pos)
	if err := s.keeper.saveState(false); err != nil {
		return err
	}
	l.written.Rewind(pos)
	l.tail.Store(pos)
	lost := append(l.acks.cut(pos), l.pending)
	l.pending = ackBatch{}
	l.forgetChunks()
	l.cur, l.verbatim = nil, true
	s.report.CutBytes, s.report.CutRecords = 0, 0
	err := s.cut(pos, tail, errors.New("truncated on request"))
	if err != nil {
		err = fmt.Errorf("%w: truncate to %d: %w", ErrPoisoned, pos, err)
		l.failed = err
	}
	s.tellCut("truncated", lost, err)
	return err
}

// forgetChunks has readers look anew at a log that is cut. The chunks go first: a reader that knows of
// the cut must find none of them, or it would take the bytes that were cut for those that follow. Called
// with mu held.
func (l *CommitLog) forgetChunks() {
	l.chunks.clear()
	l.cuts.Add(1)
}

// tellCut fails the appends that a cut has taken, and everything else if it failed itself. Completions hold
// no lock of ours, so they run on a goroutine of that name.
func (s *Store) tellCut(name string, lost []ackBatch, err error) {
	s.group.Go(name, func(context.Context) error {
		for _, b := range lost {
			complete(b.head, ErrIndeterminate)
		}
		if err != nil {
			s.log.tellPoisoned(err, ackBatch{})
		}
		return nil
	})
}

// ResetTo makes an empty store begin at pos.
func (s *Store) ResetTo(pos int64) error {
	l := s.log
	l.role.Lock()
	defer l.role.Unlock()
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ended(); err != nil {
		return err
	}
	if tail := l.tail.Load(); tail != s.Min() || s.queues.maxPos() > 0 {
		return fmt.Errorf("reset to %d: the log holds %d to %d, only an empty one can begin elsewhere", pos, s.Min(), tail)
	}
	seg := l.o.SegmentBytes
	if err := s.files.Restart(pos - pos%seg); err != nil {
		return err
	}
	l.forgetChunks()
	l.cur = nil
	s.keeper.saved.Start = pos
	l.tail.Store(pos)
	for _, m := range l.marks() {
		m.Rewind(pos)
		m.Advance(pos)
	}
	l.kickedTo.Store(pos)
	l.alloc.Want(pos)
	return s.keeper.saveState(false)
}

// Restart makes a store that follows another log begin anew and empty at pos: that log no longer has
// what would come next here. What readers have seen is dropped, as by retention; what they have not is
// kept in broken/. The ceiling of what readers may see becomes pos. Nothing else is appended meanwhile.
//
// A crash in between leaves a front of the old log, of which nothing is promised to be there.
func (s *Store) Restart(ctx context.Context, pos int64) error {
	l, k := s.log, s.keeper
	l.role.Lock()
	defer l.role.Unlock()
	for l.writeOnce() {
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	s.disp.turn.Lock()
	defer s.disp.turn.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ended(); err != nil {
		return err
	}
	tail, visible := l.tail.Load(), l.visible.Load()
	l.confirm.Store(pos)
	lost := append(l.acks.cut(0), l.pending)
	l.pending = ackBatch{}
	l.forgetChunks()
	l.cur, l.verbatim = nil, true
	for _, m := range l.marks() {
		m.Rewind(min(s.Min(), pos))
	}
	if s.disp.again != nil {
		s.disp.again()
	}
	err := s.drop(ctx, visible, tail, pos)
	if err != nil {
		err = fmt.Errorf("%w: restart at %d: %w", ErrPoisoned, pos, err)
		l.failed = err
	}
	s.tellCut("restarted", lost, err)
	return err
}

// drop is Restart's work on files and positions; every lock that matters is held.
func (s *Store) drop(ctx context.Context, visible, tail, pos int64) error {
	l, k := s.log, s.keeper
	if err := k.rewind(s.Min()); err != nil { // nothing is promised from here on
		return err
	}
	if tail > visible {
		if err := s.cut(visible, tail, errors.New("the log begins anew")); err != nil {
			return err
		}
	}
	if err := s.rebuildDerived(ctx); err != nil {
		return err
	}
	s.queues.rebuilt()
	if err := s.files.Restart(pos - pos%l.o.SegmentBytes); err != nil {
		return err
	}
	l.startAt(pos, pos, pos, pos)
	l.alloc.Restart(pos)
	k.saved.Start, k.saved.Dispatched, k.saved.IndexEnd = pos, pos, -1
	k.last = pos
	return k.saveState(false)
}

// holds are positions at which retention stops.
type holds struct {
	mu  sync.Mutex
	set map[*Hold]int64
}

// Hold keeps the log from a position on, for a replica or a reader that will come back.
type Hold struct{ h *holds }

// Hold stops retention at pos until it is moved or released.
func (s *Store) Hold(pos int64) *Hold {
	h := &Hold{&s.holds}
	h.Move(pos)
	return h
}

// Move sets another position.
func (h *Hold) Move(pos int64) {
	h.h.mu.Lock()
	defer h.h.mu.Unlock()
	if h.h.set == nil {
		h.h.set = map[*Hold]int64{}
	}
	h.h.set[h] = pos
}

// Release lets retention go on.
func (h *Hold) Release() {
	h.h.mu.Lock()
	defer h.h.mu.Unlock()
	delete(h.h.set, h)
}

// lowest is the lowest held position, or none.
func (h *holds) lowest(none int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, pos := range h.set {
		none = min(none, pos)
	}
	return none
}
