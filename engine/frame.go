package engine

import (
	"context"
	"errors"
	"fmt"
)

// Frame is a unit on its way into a log that is framed: a header, and records or other bytes behind it
// without a gap. It lies in one segment, by the rule that records follow: where it goes depends on the
// end of the log, its length and the segment size alone. One Frame can be used again and again.
type Frame struct {
	Header int       // bytes that Seal fills
	Body   []byte    // copied behind the header
	As     []*Append // stamped behind Body, in this order; each has been through [Store.Check]
	// Seal is given the frame as it stands in the log at pos, to fill the header when all else is in
	// place. It runs inside the append lock and must not block.
	Seal func(frame []byte, pos int64)

	Pos, End int64 // where it went; End is 0 as long as it has no place
}

// Check does for a what Submit would do first, so that a frame cannot fail for one of its records:
// errors are those of Append for bytes that the engine does not store. It sets the size and count of
// the result, and clears the rest.
func (s *Store) Check(a *Append) error {
	a.Err = nil
	return s.log.prepare(a)
}

// AppendFrame places f at the end of the log and returns when it is in the page cache, written by the
// caller if nobody else is writing; it never waits for a sync. The appends in it get their results now
// and their Done when they may be acked, as if they had been submitted. On an error without a place, f.End 0,
// they are the caller's again; with one, their Done runs as ever.
//
// Errors: [TooLargeError], and those of Append. ctx bounds the wait for room.
func (s *Store) AppendFrame(ctx context.Context, f *Frame) error {
	f.Pos, f.End = 0, 0
	need := int64(f.Header + len(f.Body))
	for _, a := range f.As {
		need += int64(len(a.Record))
	}
	err := s.log.placeUnit(ctx, need, func(millis int64) (room, int64, error) { return s.log.placeFrame(f, need, millis) })
	if err != nil {
		return s.closedErr(err)
	}
	return s.log.waitWritten(ctx, f.End)
}

// WriteFrame puts b, a whole unit of another log, verbatim where it stood there, which must be where
// the next unit of its length goes here. It returns when b is in the page cache, as AppendFrame does.
//
// Errors: [ErrOffsetTooSmall] or [ErrOffsetTooLarge] when this log would put it elsewhere than at pos,
// else those of AppendFrame.
func (s *Store) WriteFrame(ctx context.Context, pos int64, b []byte) error {
	need := int64(len(b))
	err := s.log.placeUnit(ctx, need, func(int64) (room, int64, error) { return s.log.placeVerbatim(pos, b) })
	if err != nil {
		return s.closedErr(err)
	}
	return s.log.waitWritten(ctx, pos+need)
}

// Abandon ends the wait of all appends that are not acked yet, with err. They stay in the log.
func (s *Store) Abandon(err error) {
	l := s.log
	l.role.Lock() // or a group on its way from pending to the ring would be missed
	defer l.role.Unlock()
	l.mu.Lock()
	batch := l.pending
	l.pending = ackBatch{}
	l.mu.Unlock()
	l.acks.fail(err)
	complete(batch.head, err)
}

// placeUnit calls place, under the append lock, until there is room.
func (l *CommitLog) placeUnit(ctx context.Context, need int64, place func(millis int64) (room, int64, error)) error {
	if limit := l.o.SegmentBytes - blankBytes; need > limit {
		return &TooLargeError{need, limit}
	}
	for {
		millis := l.o.Clock().UnixMilli()
		l.mu.Lock()
		why, at, err := place(millis)
		l.mu.Unlock()
		if err != nil || why == roomOK {
			return err
		}
		if err := l.waitRoom(ctx, why, at, false); err != nil {
			return err
		}
	}
}

// placeFrame puts f, need bytes, at the tail. Called with mu held.
func (l *CommitLog) placeFrame(f *Frame, need, millis int64) (room, int64, error) {
	if err := l.refusal(); err != nil {
		return 0, 0, err
	}
	if l.verbatim && len(f.As) > 0 {
		return roomAdopt, l.tail.Load(), nil
	}
	if why, at := l.makeRoom(need); why != roomOK {
		return why, at, nil
	}
	f.Pos = l.tail.Load()
	f.End = f.Pos + need
	c := l.chunkFor(f.Pos, need)
	from := c.filled.Load()
	b := c.buf[from : from+need]
	n := f.Header + copy(b[f.Header:], f.Body)
	if len(f.As) > 0 {
		l.lastTime = max(l.lastTime, millis)
	}
	for _, a := range f.As {
		rec := b[n : n+len(a.Record)]
		copy(rec, a.Record)
		l.stamp(a, rec, f.Pos+int64(n))
		n += len(rec)
	}
	f.Seal(b, f.Pos)
	l.extend(c, need)
	for _, a := range f.As {
		l.queueAck(a, a.Result.Pos+int64(len(a.Record)))
	}
	return roomOK, 0, nil
}

// placeVerbatim puts b at the tail, if that is where pos is. Called with mu held.
func (l *CommitLog) placeVerbatim(pos int64, b []byte) (room, int64, error) {
	if err := l.refusal(); err != nil {
		return 0, 0, err
	}
	need := int64(len(b))
	switch start := l.startOf(need); {
	case pos < start:
		return 0, 0, fmt.Errorf("frame of %d bytes at %d, the log puts it at %d: %w", need, pos, start, ErrOffsetTooSmall)
	case pos > start:
		return 0, 0, fmt.Errorf("frame of %d bytes at %d, the log puts it at %d: %w", need, pos, start, ErrOffsetTooLarge)
	}
	if why, at := l.makeRoom(need); why != roomOK {
		return why, at, nil
	}
	c := l.chunkFor(pos, need)
	copy(c.buf[c.filled.Load():], b)
	l.extend(c, need)
	l.rawBytes.Add(need)
	l.verbatim = true
	return roomOK, 0, nil
}

// waitWritten returns when everything below end is in the page cache, and writes it here if nobody
// else is writing.
func (l *CommitLog) waitWritten(ctx context.Context, end int64) error {
	l.writeInline(end)
	if l.written.Load() >= end {
		return nil
	}
	err := l.written.Wait(ctx, end)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
	return err
}
