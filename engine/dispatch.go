package engine

import (
	"context"
	"errors"
	"fmt"
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
	trouble  func(error) // hears when derived files cannot be written, and nil when they can again
}

func newDispatcher(l *CommitLog, queues *queueTable, index *indexService) *Dispatcher {
	return &Dispatcher{l: l, queues: queues, index: index, reader: logReader{l: l}}
}

// run dispatches what becomes visible until ctx ends or the store is poisoned. A derived file that
// cannot be written, on a full disk above all, refuses appends; every second it is tried again.
func (d *Dispatcher) run(ctx context.Context) error {
	defer d.reader.close()
	seen, held := d.l.dispatched.Load(), false
	for {
		if !held {
			if err := d.l.visible.Wait(ctx, seen+1); err != nil {
				return nil // the store closes, or is poisoned and has said so
			}
		}
		seen = d.l.visible.Load()
		err := d.advance(d.l.dispatched.Load(), seen)
		var gap *queueGapError
		switch {
		case err == nil:
			if held {
				held = false
				d.trouble(nil)
			}
			continue
		case ctx.Err() != nil:
			return nil
		case d.err == nil || errors.As(err, &gap):
			d.l.poison(fmt.Errorf("dispatch at %d: %w", d.l.dispatched.Load(), err))
			return nil
		}
		d.err, held = nil, true
		d.trouble(err)
		t := time.NewTimer(retryTrouble)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// dispatchStep bounds how long readers wait for the dispatched mark.
const dispatchStep = 256 << 10

// advance dispatches [pos, end).
func (d *Dispatcher) advance(pos, end int64) error {
	for pos < end {
		stop := pos + dispatchStep
		at, err := d.l.walk(&d.reader, pos, end, false, func(at int64, r *message.Record) bool {
			if at >= stop {
				return false
			}
			d.apply(at, r)
			return d.err == nil
		})
		if d.err != nil {
			return d.err
		}
		if err != nil && !errors.Is(err, message.ErrShort) {
			return err
		}
		d.l.dispatched.Advance(at)
		if at == pos {
			break // the rest of a record that a replica's stream has cut is still to come
		}
		pos = at
	}
	d.l.checkOrder()
	return nil
}

// apply puts one record into its queue and the index.
func (d *Dispatcher) apply(pos int64, r *message.Record) {
	if r.SysFlag.ConsumesOffset() {
		q := d.queues.get(r.Topic, r.QueueID)
		e := d.l.queueEntry(pos, r)
		if err := q.put(r.QueueOffset, e.Offset, e.Size, e.TagsHash); err != nil {
			d.err = err
			return
		}
	}
	if d.index != nil {
		if err := d.index.put(r); err != nil {
			d.err = err
			return
		}
	}
	d.lastTime.Store(r.StoreTimestamp)
}
