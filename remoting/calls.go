package remoting

import (
	"context"
	"fmt"
	"time"

	"rmq/remoting/protocol"
)

// Call is one request whose answer is awaited without a goroutine. The caller owns it again when Done runs, and may start
// it anew from there. Its fields do not change in between.
type Call struct {
	Request *protocol.Command // encoded by Start, which sets its Opaque
	// Build, if not nil, appends the whole frame instead; its opaque must be the one given. It runs under the connection's
	// lock: it encodes and does nothing else.
	Build   func(dst []byte, opaque int32) []byte
	Timeout time.Duration // 0: the CallTimeout of the client or server
	// Done runs once, if Start returned nil: on the reader goroutine, or on the clock's when time is up. It must not block.
	Done func(*Call)

	Response *protocol.Command // valid during Done, nil if Err is not
	Err      error             // [ErrTimeout], or why the connection closed ([ErrClosed] among it)

	opaque   int32
	deadline int64 // on the coarse clock
	next     *Call // in a list of calls that failed together
}

// maxCalls is how many calls of one connection may be outstanding.
const maxCalls = 1 << 16

// callTable finds the outstanding call of an opaque. Opaques count up; one whose slot is taken is passed over, so that a
// lookup is an index, and an answer that comes after its call timed out finds nothing until the counter has gone once
// round.
type callTable struct {
	slots   []callSlot // a power of two, at most half full
	pending int
	last    int32
	// earliest is not after any deadline in the table.
	earliest int64
}

type callSlot struct {
	call   *Call
	opaque int32
}

// add gives call an opaque; false if there are too many.
func (t *callTable) add(call *Call) (opaque int32, ok bool) {
	if 2*(t.pending+1) > len(t.slots) {
		if t.pending >= maxCalls {
			return 0, false
		}
		t.grow()
	}
	for {
		t.last++
		if s := t.slot(t.last); s.call == nil {
			s.call, s.opaque, call.opaque = call, t.last, t.last
			if t.pending == 0 || call.deadline < t.earliest {
				t.earliest = call.deadline
			}
			t.pending++
			return t.last, true
		}
	}
}

func (t *callTable) slot(opaque int32) *callSlot {
	return &t.slots[uint32(opaque)&uint32(len(t.slots)-1)]
}

func (t *callTable) grow() {
	old := t.slots
	t.slots = make([]callSlot, max(8, 2*len(old)))
	for _, s := range old {
		if s.call != nil {
			*t.slot(s.opaque) = s
		}
	}
}

// take removes and returns the call of opaque, nil if there is none.
func (t *callTable) take(opaque int32) *Call {
	if t.pending == 0 {
		return nil
	}
	s := t.slot(opaque)
	if s.call == nil || s.opaque != opaque {
		return nil
	}
	call := s.call
	s.call = nil
	t.pending--
	return call
}

// remove takes call out and says whether it was there.
func (t *callTable) remove(call *Call) bool {
	s := t.slot(call.opaque)
	if s.call != call {
		return false
	}
	s.call = nil
	t.pending--
	return true
}

// expire removes and chains the calls whose deadline is not after now.
func (t *callTable) expire(now int64) *Call {
	if t.pending == 0 || now < t.earliest {
		return nil
	}
	var head *Call
	var earliest int64
	for i := range t.slots {
		s := &t.slots[i]
		switch {
		case s.call == nil:
		case s.call.deadline <= now:
			s.call.next, head = head, s.call
			s.call = nil
			t.pending--
		case earliest == 0 || s.call.deadline < earliest:
			earliest = s.call.deadline
		}
	}
	t.earliest = earliest
	return head
}

// failAll ends a chain of calls with err.
func failAll(head *Call, err error) {
	for head != nil {
		call := head
		head, call.next = call.next, nil
		call.Response, call.Err = nil, err
		call.Done(call)
	}
}

// Start sends a request and returns; call.Done runs when the answer, or the reason why there is none, is there. After an
// error nothing was sent and Done does not run: [ErrClosed], [ErrBusy] when the peer is too slow for what is asked, or
// [protocol.ErrTooLarge].
//
// Requests that are started together leave together: from Done or Serve when the bytes read have been worked off, from
// elsewhere when the flusher gets to it. No allocations once the connection is warm.
func (c *Conn) Start(call *Call) error {
	if err := c.enqueue(call); err != nil {
		return err
	}
	c.kick()
	return nil
}

// enqueue puts the request into the outbox and leaves the connection locked if that went well.
func (c *Conn) enqueue(call *Call) error {
	timeout := call.Timeout
	if timeout <= 0 {
		timeout = c.ep.callTimeout
	}
	if c.unsent.Load() > c.ep.maxUnsent {
		return fmt.Errorf("%w: %d bytes unsent to %s, limit %d", ErrBusy, c.unsent.Load(), c.remote, c.ep.maxUnsent)
	}
	// The clock is up to one tick behind; a call must not end early.
	call.deadline = c.ep.clock.Load() + int64(timeout) + int64(c.ep.tick)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.closedError()
	}
	opaque, ok := c.calls.add(call)
	if !ok {
		c.mu.Unlock()
		return fmt.Errorf("%w: %d calls outstanding to %s", ErrBusy, maxCalls, c.remote)
	}
	if err := c.put(call.Request, call.Build, opaque); err != nil {
		c.calls.take(opaque)
		c.kick()
		return err
	}
	return nil
}

// put appends the frame of a request to the outbox. c.mu is held. A frame that would make the peer hang up is refused.
func (c *Conn) put(req *protocol.Command, build func([]byte, int32) []byte, opaque int32) error {
	o := c.outbox()
	before := len(o.buf)
	if build != nil {
		o.buf = build(o.buf, opaque)
	} else {
		req.Opaque = opaque
		o.buf = protocol.AppendCommand(o.buf, req)
	}
	n := len(o.buf) - before
	if n > protocol.MaxFrameBytes {
		o.buf = o.buf[:before]
		return fmt.Errorf("request of %d bytes to %s: %w: peers take %d", n, c.remote, protocol.ErrTooLarge, protocol.MaxFrameBytes)
	}
	c.queued(n)
	return nil
}

// answered completes the call that resp belongs to.
func (c *Conn) answered(resp *protocol.Command) {
	c.mu.Lock()
	call := c.calls.take(resp.Opaque)
	c.mu.Unlock()
	if call == nil {
		c.stats.late.Add(1)
		return
	}
	call.Response, call.Err = resp, nil
	call.Done(call)
}

// never is the timeout of a call that its context ends.
const never = time.Duration(1 << 61)

// waiter is a Call that a goroutine waits for.
type waiter struct {
	call  Call
	resp  *protocol.Command
	ready chan struct{}
}

func newWaiter() any {
	w := &waiter{ready: make(chan struct{}, 1)}
	w.call.Done = func(call *Call) {
		if call.Response != nil {
			w.resp = call.Response.Clone()
		}
		w.ready <- struct{}{}
	}
	return w
}

// Call sends req and waits for the answer, which is detached and whose code the caller judges. Without a deadline in ctx it
// waits for the CallTimeout. It sets req's Opaque, and writes on the calling goroutine: the shortest way for one request at
// a time. It must not be called from Serve or Done.
//
// Errors: ctx's, [ErrTimeout], [ErrBusy], [protocol.ErrTooLarge], [ErrClosed] and what closed the connection.
func (c *Conn) Call(ctx context.Context, req *protocol.Command) (*protocol.Command, error) {
	resp, _, err := c.call(ctx, req)
	return resp, err
}

// call is Call that says whether req was queued at all.
func (c *Conn) call(ctx context.Context, req *protocol.Command) (resp *protocol.Command, sent bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	w := c.ep.waiters.Get().(*waiter)
	w.call.Request, w.call.Timeout, w.resp = req, 0, nil
	if _, ok := ctx.Deadline(); ok {
		w.call.Timeout = never
	}
	if err := c.enqueue(&w.call); err != nil {
		w.call.Request = nil
		c.ep.waiters.Put(w)
		return nil, false, err
	}
	switch {
	case c.serving: // the reader is about to
		c.mu.Unlock()
	case c.calls.pending > 1:
		c.flushGathered()
	default:
		c.flushLocked()
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		c.mu.Lock()
		removed := c.calls.remove(&w.call)
		c.mu.Unlock()
		if removed {
			w.call.Err = ctx.Err()
			break
		}
		<-w.ready // it is being answered at this moment
	}
	resp, err = w.resp, w.call.Err
	w.call.Request, w.call.Response, w.call.Err, w.resp = nil, nil, nil, nil
	c.ep.waiters.Put(w)
	return resp, true, err
}

// Oneway sends req without an answer to come, and sets its Opaque and one-way flag. A nil error says that it is queued.
func (c *Conn) Oneway(req *protocol.Command) error {
	if c.unsent.Load() > c.ep.maxUnsent {
		return fmt.Errorf("%w: %d bytes unsent to %s, limit %d", ErrBusy, c.unsent.Load(), c.remote, c.ep.maxUnsent)
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.closedError()
	}
	c.calls.last++
	req.MarkOneway()
	err := c.put(req, nil, c.calls.last)
	c.kick()
	return err
}
