package raftlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/replication"
)

const (
	batchBytes     = 256 << 10 // a batch is sealed at this size
	batchMessages  = 1024      // or this many appends
	eagerBatches   = 6         // below so many in flight a batch leaves as soon as there is one
	defaultWindow  = 64 << 20
	maxUnproposed  = 64 // sealed batches that wait; the window holds producers back long before
	abandonedError = "the batch was not proposed"
)

// proposer gathers appends into batches, one raft entry each, and hands them to raft while this node
// leads. There is no timer: an idle system proposes at once, a busy one batches because as many batches
// are in flight as are of use.
//
// An append belongs to the proposer until its batch is in the log, and to the engine's ack ring from then
// on. What raft refuses before that was not stored, and is told so.
//
// Its goroutines: propose, and reap, which takes raft's answers in order.
type proposer struct {
	n      *Node
	window int64

	mu       sync.Mutex
	tenure   *tenure // nil: this node does not lead
	batches  []*Batch
	queued   int64 // bytes in batches
	inFlight int
	wake     chan struct{} // capacity 1

	proposals chan proposal
	idle      chan struct{} // capacity 1: something was reaped
}

// tenure is one time of leading.
type tenure struct {
	term uint64
	in   *instance
	ctx  context.Context // ends with it
	end  context.CancelFunc
	shut bool // no more is taken in: leadership is handed over
}

type proposal struct {
	batch  *Batch
	future raft.ApplyFuture
	tenure *tenure
	began  time.Time
}

func newProposer(n *Node, window int64) *proposer {
	return &proposer{n: n, window: window, wake: make(chan struct{}, 1), idle: make(chan struct{}, 1), proposals: make(chan proposal, maxUnproposed)}
}

// lead begins a tenure.
func (p *proposer) lead(ctx context.Context, in *instance, term uint64) {
	t := &tenure{term: term, in: in}
	t.ctx, t.end = context.WithCancel(ctx)
	p.mu.Lock()
	p.tenure = t
	p.mu.Unlock()
}

// stop ends the tenure, if there is one: what was not proposed is refused, and of what was the outcome is
// unknown.
func (p *proposer) stop() {
	p.mu.Lock()
	t := p.tenure
	p.tenure = nil
	lost := p.batches
	p.batches, p.queued = nil, 0
	p.mu.Unlock()
	if t == nil {
		return
	}
	t.end()
	err := p.n.notLeader()
	for _, b := range lost {
		p.refuse(b, err)
	}
	p.n.Abandon(engine.ErrIndeterminate)
}

// shut takes no more in, or does so again.
func (p *proposer) shut(closed bool) {
	p.mu.Lock()
	if p.tenure != nil {
		p.tenure.shut = closed
	}
	p.mu.Unlock()
}

// drained waits until nothing is on its way.
func (p *proposer) drained(ctx context.Context) error {
	for {
		p.mu.Lock()
		empty := len(p.batches) == 0 && p.inFlight == 0
		p.mu.Unlock()
		if empty {
			return p.n.WaitVisible(ctx, p.n.committed.Load())
		}
		select {
		case <-p.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// submit takes appends from the front of as; see [replication.Log].
func (p *proposer) submit(ctx context.Context, as []*engine.Append) (n int, err error) {
	for _, a := range as {
		a.Err, a.Result = nil, engine.Result{}
	}
	if err := p.n.Refusal(); err != nil {
		return 0, err
	}
	for n < len(as) {
		k, t, need, err := p.take(as[n:])
		n += k
		if k > 0 {
			p.signal(p.wake)
		}
		switch {
		case err != nil:
			return n, err
		case t == nil:
			return n, p.n.notLeader()
		case n == len(as):
			return n, nil
		case as[n].NoWait:
			return n, fmt.Errorf("%w: %d bytes wait for a majority of the group", engine.ErrBusy, p.window)
		}
		if err := p.waitWindow(ctx, t, need); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (*proposer) signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// take adds appends to batches while the window has room. need is the position that must become visible
// before the next one fits; without a tenure this node takes none.
func (p *proposer) take(as []*engine.Append) (n int, t *tenure, need int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenure == nil || p.tenure.shut {
		return 0, nil, 0, nil
	}
	for n < len(as) {
		a := as[n]
		end := p.n.Appended() + p.queued + int64(len(a.Record))
		if behind := end - p.n.Visible(); behind > p.window && behind > int64(len(a.Record))+HeaderBytes {
			return n, p.tenure, end - p.window, nil
		}
		if err := p.add(a); err != nil {
			return n, p.tenure, 0, err
		}
		n++
	}
	return n, p.tenure, 0, nil
}

// add puts a into the newest batch, or a new one. Called with mu held.
func (p *proposer) add(a *engine.Append) error {
	var b *Batch
	if k := len(p.batches); k > 0 {
		if last := p.batches[k-1]; last.Bytes()+len(a.Record) <= batchBytes && last.Len() < batchMessages {
			b = last
		}
	}
	if b != nil {
		if err := b.Add(a); err != nil {
			return err
		}
	} else {
		b = p.n.logs.Batch()
		if err := b.Add(a); err != nil {
			b.Free()
			return err
		}
		p.batches = append(p.batches, b)
	}
	p.queued += int64(len(a.Record))
	return nil
}

// waitWindow waits until readers see need, the tenure ends, or ctx does.
func (p *proposer) waitWindow(ctx context.Context, t *tenure, need int64) error {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(t.ctx, cancel)
	defer stop()
	err := p.n.WaitVisible(wait, need)
	switch {
	case err == nil:
		return nil
	case t.ctx.Err() != nil:
		return p.n.notLeader()
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %d bytes wait for a majority of the group: %w", engine.ErrBusy, p.window, context.Cause(ctx))
	}
	return err
}

// propose hands batches to raft until ctx ends.
func (p *proposer) propose(ctx context.Context) error {
	defer close(p.proposals)
	for {
		b, t := p.next()
		if b == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-p.wake:
			}
			continue
		}
		q := proposal{batch: b, tenure: t, began: time.Now()}
		if t.in.enter() {
			q.future = t.in.raft.ApplyLog(raft.Log{Data: b.Token()}, 0)
		}
		p.proposals <- q // reap ends after this goroutine
	}
}

// next takes the batch that is to be proposed now, if there is one.
func (p *proposer) next() (*Batch, *tenure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenure == nil || len(p.batches) == 0 {
		return nil, nil
	}
	b := p.batches[0]
	if len(p.batches) == 1 && p.inFlight >= eagerBatches && b.Bytes() < batchBytes && b.Len() < batchMessages {
		return nil, nil
	}
	p.batches = p.batches[1:]
	p.queued -= int64(b.Bytes())
	p.inFlight++
	return b, p.tenure
}

// reap takes raft's answers in the order of the proposals.
func (p *proposer) reap(context.Context) error {
	for q := range p.proposals {
		err := raft.ErrRaftShutdown
		if q.future != nil {
			err = q.future.Error()
			q.tenure.in.leave()
		}
		if err != nil {
			// If it is in the log the engine answers for it.
			p.refuse(q.batch, p.refusal(err))
		} else {
			p.n.hops.Ack.Add(time.Since(q.began))
		}
		q.batch.Free()
		p.mu.Lock()
		p.inFlight--
		p.mu.Unlock()
		p.signal(p.wake)
		p.signal(p.idle)
	}
	return nil
}

// refusal is how raft's error is told to a producer whose append was not stored.
func (p *proposer) refusal(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrRaftShutdown):
		return p.n.notLeader()
	}
	if bad := p.n.Refusal(); bad != nil {
		return bad
	}
	var not *replication.NotLeaderError
	if errors.As(err, &not) {
		return err
	}
	return fmt.Errorf("%s: %w", abandonedError, err)
}

// refuse completes the appends of a batch that is not, and never will be, in the log.
func (p *proposer) refuse(b *Batch, err error) {
	for _, a := range b.Abandon() {
		a.Err = err
		a.Done(a)
	}
}
