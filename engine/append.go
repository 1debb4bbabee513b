package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rmq/internal/watermark"
)

// Result says where a record went.
type Result struct {
	Pos         int64 // of its first byte in the log
	QueueOffset int64 // of the (first) record in its consume queue
	StoreTime   int64 // milliseconds
	Size        int32 // bytes in the log
	Count       int32 // records; above one for a message batch
}

// Append is one record, or one message batch, on its way into the log.
//
// Fill in Record and Done and hand it to [Store.Submit]. From then until Done runs, the Append
// and its bytes belong to the engine. One Append can be used again and again.
type Append struct {
	// Record is what message.AppendRecord made: one record, or several of one queue back to back,
	// which then get consecutive queue offsets and never lie in different segments. It is copied before
	// it is stamped, so appends may share it.
	Record []byte
	// Done runs when the record may be acked or has failed. Calls come one at a time, in log
	// order. Nothing that an append needs is locked meanwhile, but the log is not written either:
	// it must not block nor call a blocking method of the store.
	Done func(*Append)
	// NoWait makes Submit fail with ErrBusy instead of waiting when too much is pending.
	NoWait bool
	// Tag is the caller's.
	Tag int64

	Result Result
	Err    error

	queue *ConsumeQueue // nil when the record consumes no queue offset
	end   int64
	next  *Append
}

// waiter is an Append that a goroutine waits for.
type waiter struct {
	Append
	done chan struct{}
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{done: make(chan struct{}, 1)}
	w.Done = func(*Append) { w.done <- struct{}{} }
	return w
}}

// Append stores one encoded record or message batch and returns when it may be acked.
//
// rec is not kept. Errors: [TooLargeError], [ErrUnsupported] and those of the message package
// for bytes that are no record; [ErrBusy] when ctx ended before the record got an offset;
// [ErrIndeterminate] when it ended after that, with the Result telling the offset; [SpaceError],
// [ErrPoisoned], [ErrClosed]. Safe for concurrent use; offsets follow the order in which the
// append lock was won.
func (s *Store) Append(ctx context.Context, rec []byte) (Result, error) {
	w := waiters.Get().(*waiter)
	w.Record, w.Err, w.Result = rec, nil, Result{}
	if err := s.log.submit(ctx, &w.Append); err != nil {
		w.Record = nil
		waiters.Put(w)
		return Result{}, err
	}
	s.log.writeInline(w.end)
	select {
	case <-w.done:
	default:
		select {
		case <-w.done:
		case <-ctx.Done():
			// The engine still holds w; it is not used again.
			return w.Result, fmt.Errorf("%w at offset %d: %w", ErrIndeterminate, w.Result.Pos, context.Cause(ctx))
		}
	}
	res, err := w.Result, w.Err
	w.Record = nil
	waiters.Put(w)
	return res, err
}

// Submit hands a over and returns. It waits while too much is pending, unless a.NoWait is set.
// Done runs exactly once, also on failure.
func (s *Store) Submit(a *Append) {
	a.Err, a.Result = nil, Result{}
	if err := s.log.submit(s.group.Context(), a); err != nil {
		a.Err = s.closedErr(err)
		a.Done(a)
		return
	}
	s.log.wakeWriter()
}

// SubmitVector hands over many records, of any queues, under one hold of the append lock as far
// as they fit. Each has its own Done and result.
func (s *Store) SubmitVector(as []*Append) {
	for _, a := range as {
		a.Err, a.Result = nil, Result{}
	}
	for len(as) > 0 {
		n, err := s.log.submitMany(s.group.Context(), as)
		if n > 0 {
			s.log.wakeWriter()
		}
		if err != nil {
			as[n].Err = s.closedErr(err)
			as[n].Done(as[n])
			n++
		}
		as = as[n:]
	}
}

// SubmitFront hands over records from the front of as, like [Store.SubmitVector], until one cannot be
// taken. It returns how many were; err, nil when all were, is about as[n], which is the caller's
// again and whose Done does not run. ctx bounds the wait for room of a record without NoWait.
func (s *Store) SubmitFront(ctx context.Context, as []*Append) (n int, err error) {
	for _, a := range as {
		a.Err, a.Result = nil, Result{}
	}
	for n < len(as) {
		k, err := s.log.submitMany(ctx, as[n:])
		if k > 0 {
			s.log.wakeWriter()
		}
		if n += k; err != nil {
			return n, s.closedErr(err)
		}
	}
	return n, nil
}

// closedErr turns the end of the store's own context into ErrClosed.
func (s *Store) closedErr(err error) error {
	if errors.Is(err, context.Canceled) {
		return ErrClosed
	}
	return err
}

// ackBatch is a run of appends that were written by one call.
type ackBatch struct {
	end        int64
	head, tail *Append
}

// ackRing holds appends until all marks have passed them. The flush service knows nothing of it
// but the position that it releases; replication adds marks of its own.
type ackRing struct {
	marks   []*watermark.Mark // beside the local position
	verdict func(end int64) error

	mu      sync.Mutex // guards what follows; never held while Done runs
	local   int64
	batches []ackBatch // a queue: first waits longest
	running bool       // somebody runs completions
	again   func()     // makes waitMarks look again
}

// push adds a batch. Batches come in log order.
func (r *ackRing) push(b ackBatch) {
	r.mu.Lock()
	r.batches = append(r.batches, b)
	r.mu.Unlock()
}

// passed is the position that all conditions have passed. Called with mu held.
func (r *ackRing) passed() int64 {
	pos := r.local
	for _, m := range r.marks {
		pos = min(pos, m.Load())
	}
	return pos
}

// release notes the local position and runs what may be acked. If another goroutine is running
// completions already it will see the news; this one returns. It says what it found to be passed.
func (r *ackRing) release(local int64) (pos int64) {
	r.mu.Lock()
	r.local = max(r.local, local)
	if r.running {
		pos = r.passed()
		r.mu.Unlock()
		return pos
	}
	r.running = true
	for {
		n := 0
		pos = r.passed()
		for n < len(r.batches) && r.batches[n].end <= pos {
			n++
		}
		if n == 0 {
			break
		}
		b := r.batches[0]
		if len(r.batches) == 1 {
			r.batches = r.batches[:0]
		} else {
			r.batches = r.batches[1:]
		}
		r.mu.Unlock()
		var err error
		if r.verdict != nil {
			err = r.verdict(b.end)
		}
		complete(b.head, err)
		r.mu.Lock()
	}
	r.running = false
	r.mu.Unlock()
	return pos
}

// fail ends everything that waits. What all marks have passed is acked all the same.
func (r *ackRing) fail(err error) {
	r.mu.Lock()
	batches, pos := r.batches, r.passed()
	r.batches = nil
	r.mu.Unlock()
	for _, b := range batches {
		end := err
		if b.end <= pos {
			end = nil
			if r.verdict != nil {
				end = r.verdict(b.end)
			}
		}
		complete(b.head, end)
	}
}

// cut takes out what waits behind pos, for the caller to fail, and the local position back: what is
// appended from now on is another log.
func (r *ackRing) cut(pos int64) []ackBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.local = min(r.local, pos)
	if r.again != nil {
		r.again()
	}
	n := 0
	for n < len(r.batches) && r.batches[n].end <= pos {
		n++
	}
	lost := slices.Clone(r.batches[n:])
	r.batches = r.batches[:n]
	if len(lost) > 0 && lost[0].head.end <= pos { // its front stays
		kept := ackBatch{head: lost[0].head, tail: lost[0].head}
		for kept.tail.next.end <= pos {
			kept.tail = kept.tail.next
		}
		lost[0].head, kept.tail.next, kept.end = kept.tail.next, nil, kept.tail.end
		r.batches = append(r.batches, kept)
	}
	return lost
}

// waitMarks runs completions when a mark of another owner advances, until ctx ends.
func (r *ackRing) waitMarks(ctx context.Context, written *watermark.Mark) error {
	for ctx.Err() == nil {
		if err := r.waitUncut(ctx, written); err != nil {
			return ignoreDone(ctx, err)
		}
	}
	return nil
}

// waitUncut is waitMarks until the log is cut, which takes positions back.
func (r *ackRing) waitUncut(ctx context.Context, written *watermark.Mark) error {
	uncut, again := context.WithCancel(ctx)
	defer again()
	r.mu.Lock()
	r.again = again
	r.mu.Unlock()
	for {
		// Beyond what has been released, not beyond where the marks stand by now.
		if err := r.waitBeyond(uncut, r.release(0), written); err != nil {
			if uncut.Err() != nil {
				return nil // cut, or ctx has ended
			}
			return err
		}
	}
}

// waitBeyond returns when all marks, and written, lie beyond at.
func (r *ackRing) waitBeyond(ctx context.Context, at int64, written *watermark.Mark) error {
	for _, m := range r.marks {
		if m.Load() > at {
			continue
		}
		if err := m.Wait(ctx, at+1); err != nil {
			return err
		}
	}
	return written.Wait(ctx, at+1)
}

func complete(a *Append, err error) {
	for a != nil {
		next := a.next
		a.next = nil
		if err != nil {
			a.Err = err
		}
		a.Done(a)
		a = next
	}
}

// ignoreDone hides the error of a wait that ended because the store closes.
func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // that is what it is for
	}
	return err
}
