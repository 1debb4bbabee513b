package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rmq/message"
)

// Dispatcher feeds consume queues and index from the visible log, on one goroutine, in log order.
type Dispatcher struct {
	l      *CommitLog
	queues *queueTable
	index  *indexService // nil when disabled
	reader logReader
	// lastTime is the store time of the newest dispatched record.
	lastTime atomic.Int64
	err      error
	batch    [dispatchBatch]dispatchItem
	n        int         // items in batch
	touched  int64       // keeps the compiler from dropping the loads of touch
	trouble  func(error) // hears when derived files cannot be written, and nil when they can again
	watches  watches
	arrive   func(*Arrival) // nil: nobody listens
	arrival  Arrival
	turn     sync.Mutex // held while records are dispatched
	again    func()     // makes run look anew where it stands; under turn
}

// dispatchBatch is how many records are parsed before they are applied. With many queues every
// record misses the processor's caches in the queue table and in the index; the misses of a batch
// are waited for together.
const dispatchBatch = 32

// dispatchItem is a parsed record, whose bytes are those that the reader holds.
type dispatchItem struct {
	pos  int64
	rec  message.Record
	hash uint64 // of the queue
	q    *ConsumeQueue
	keys indexKeys
}

func newDispatcher(l *CommitLog, queues *queueTable, index *indexService) *Dispatcher {
	d := &Dispatcher{l: l, queues: queues, index: index}
	d.reader = logReader{l: l, turn: d.applyBatch}
	l.dispatchedTime = &d.lastTime
	return d
}

// run dispatches what becomes visible until ctx ends or the store is poisoned. A derived file that
// cannot be written, on a full disk above all, refuses appends; every second it is tried again.
func (d *Dispatcher) run(ctx context.Context) error {
	defer d.reader.close()
	for {
		forward, again := context.WithCancel(ctx)
		d.turn.Lock()
		d.again = again
		d.turn.Unlock()
		d.runForward(ctx, forward)
		retracted := forward.Err() != nil && ctx.Err() == nil
		again()
		if !retracted {
			return nil // the store closes, or is poisoned and has said so
		}
	}
}

// runForward is run until forward ends: the log was retracted.
func (d *Dispatcher) runForward(ctx, forward context.Context) {
	seen, held := d.l.dispatched.Load(), false
	for {
		if !held && d.l.visible.Wait(forward, seen+1) != nil {
			return
		}
		d.turn.Lock()
		seen = d.l.visible.Load()
		err := d.advance(d.l.dispatched.Load(), seen)
		d.turn.Unlock()
		switch {
		case err == nil:
			if held {
				held = false
				d.trouble(nil)
			}
			continue
		case ctx.Err() != nil:
			return
		case d.err == nil || isGap(err):
			d.l.poison(fmt.Errorf("dispatch at %d: %w", d.l.dispatched.Load(), err))
			return
		}
		d.err, held = nil, true
		d.trouble(err)
		t := time.NewTimer(retryTrouble)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func isGap(err error) bool {
	var gap *queueGapError
	return errors.As(err, &gap)
}

// finish dispatches what is left once run has returned and nothing is written any more. Records that
// are hidden, or visible in part, stay behind.
func (d *Dispatcher) finish() error {
	defer d.reader.close()
	d.err = nil
	if err := d.advance(d.l.dispatched.Load(), d.l.visible.Load()); err != nil {
		return fmt.Errorf("dispatch at %d: %w", d.l.dispatched.Load(), err)
	}
	return nil
}

// dispatchStep bounds how long readers wait for the dispatched mark.
const dispatchStep = 256 << 10

// advance dispatches [pos, end).
func (d *Dispatcher) advance(pos, end int64) error {
	for pos < end {
		d.reader.stop = pos + dispatchStep
		at, err := d.l.walk(&d.reader, pos, end, false, func(at int64, r *message.Record) bool {
			d.add(at, r)
			return d.err == nil
		})
		d.applyBatch()
		if d.err != nil {
			return d.err
		}
		if err != nil && !errors.Is(err, message.ErrShort) {
			return err
		}
		at = d.reader.unit.whole(at)
		d.l.dispatched.Advance(at)
		if at <= pos {
			break // the rest of a record that a replica's stream has cut is still to come
		}
		pos = at
	}
	d.l.checkOrder()
	return nil
}

// add takes one record into the batch.
func (d *Dispatcher) add(pos int64, r *message.Record) {
	it := &d.batch[d.n]
	it.pos, it.rec, it.q, it.hash = pos, *r, nil, 0
	if r.SysFlag.ConsumesOffset() {
		it.hash = d.queues.hash(r.Topic, r.QueueID)
	}
	if d.index != nil {
		it.keys = d.index.keysOf(r)
	}
	if d.n++; d.n == len(d.batch) {
		d.applyBatch()
	}
}

// applyBatch puts the batch into queues and index, in log order, up to the first error.
func (d *Dispatcher) applyBatch() {
	items := d.batch[:d.n]
	d.n = 0
	if len(items) > 1 {
		d.touch(items)
	}
	for i := range items {
		if d.err != nil {
			return
		}
		d.apply(&items[i])
	}
}

// touch loads what the items will need, in loops without a branch that waits for a load.
func (d *Dispatcher) touch(items []dispatchItem) {
	for i := range items {
		items[i].q = d.queues.likely(items[i].hash)
	}
	sum := int64(0)
	for i := range items {
		if q := items[i].q; q != nil {
			sum += q.mark.Load()
		}
	}
	if d.index != nil {
		sum += d.index.touch(items)
	}
	d.touched = sum
}

// apply puts one record into its queue and the index.
func (d *Dispatcher) apply(it *dispatchItem) {
	r := &it.rec
	if r.SysFlag.ConsumesOffset() {
		q := it.q
		if q == nil || q.id != r.QueueID || q.topic != string(r.Topic) {
			q = d.queues.get(r.Topic, r.QueueID)
		}
		e := d.l.queueEntry(it.pos, r)
		if err := q.put(r.QueueOffset, e.Offset, e.Size, e.TagsHash); err != nil {
			d.err = err
			return
		}
		if d.arrive != nil && d.watches.any(it.hash) {
			d.arrival = Arrival{r.Topic, r.QueueID, r.QueueOffset, e.TagsHash, r.StoreTimestamp, r.Properties}
			d.arrive(&d.arrival)
		}
	}
	if d.index != nil {
		if err := d.index.put(r, it.keys); err != nil {
			d.err = err
			return
		}
	}
	d.lastTime.Store(r.StoreTimestamp)
}
