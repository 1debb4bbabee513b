package client

import (
	"context"
	"time"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// SendCallback gets the outcome of an asynchronous send, as [Producer.Send] would return it.
type SendCallback func(res *SendResult, err error)

// asyncEnd is an asynchronous send that is over.
type asyncEnd struct {
	res  *SendResult
	err  error
	done SendCallback
}

// SendAsync sends m and returns; done is called once with the outcome, from a goroutine of the producer
// and in the order in which sends end: a callback that takes long delays those after it. SendAsync
// itself waits while ProducerOptions.MaxInFlight sends are under way.
//
// An error says that nothing was sent and done is not called: that of a check of m, or of ctx. The time
// limit of the send is ProducerOptions.Timeout; ctx ending after SendAsync has returned does not touch it.
func (p *Producer) SendAsync(ctx context.Context, m *Message, done SendCallback, opts ...SendOption) error {
	s, err := p.prepare(m, opts)
	if err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		<-p.slots
		return ErrClosed
	}
	p.live.Add(1)
	p.mu.Unlock()
	a := &async{p: p, s: s, done: done, deadline: time.Now().Add(p.opt.Timeout)}
	if !a.startNow() {
		p.group.Go("send", a.slowly)
	}
	return nil
}

// callbacks runs callbacks until the producer is closed and all sends have ended.
func (p *Producer) callbacks(context.Context) error {
	for e := range p.ended {
		<-p.slots
		e.done(e.res, e.err)
	}
	return nil
}

// async is an asynchronous send under way.
type async struct {
	p        *Producer
	s        *sending
	done     SendCallback
	deadline time.Time

	call  remoting.Call
	queue MessageQueue
	addr  string
	began time.Time
	owed  *pulse
}

// startNow sends the first attempt if that needs no look-up and no dialling.
func (a *async) startNow() bool {
	r := a.p.c.routes.get(a.s.msg.Topic)
	if r == nil || len(r.publish) == 0 {
		return false
	}
	q, err := a.p.choose(a.p.group.Context(), a.s)
	if err != nil {
		a.finish(nil, err)
		return true
	}
	addr := a.p.c.routes.master(q.BrokerName)
	if addr == "" {
		return false
	}
	conn := a.p.c.warmConn(addr)
	if conn == nil {
		return false
	}
	a.s.last = q
	a.s.attempts--
	a.queue, a.addr, a.began = q, addr, time.Now()
	h := a.p.header(a.s, q)
	a.call = remoting.Call{Timeout: a.p.opt.AttemptTimeout, Done: a.answered, Build: func(dst []byte, opaque int32) []byte {
		dst = protocol.AppendSendRequest(dst, protocol.RequestSendMessageV2, opaque, 0, a.p.c.opt.Serialize, h, len(a.s.body))
		return append(dst, a.s.body...)
	}}
	a.owed = a.p.c.owe(q.BrokerName, addr)
	if err := conn.Start(&a.call); err != nil {
		a.owed.paid()
		a.s.attempts++
		return false
	}
	return true
}

// answered runs on the connection's reader.
func (a *async) answered(call *remoting.Call) {
	a.owed.paid()
	res, err := a.p.answer(a.s, a.queue, a.addr, call.Response, call.Err, time.Since(a.began))
	hinted := err != nil && a.p.c.followHint(a.queue.BrokerName, a.addr, call.Response)
	if hinted = hinted && !saysUnknown(err); hinted {
		a.s.attempts = max(a.s.attempts, 1)
	}
	if again := a.p.judge(a.s, err); (again || hinted) && time.Now().Before(a.deadline) {
		a.p.group.Go("send again", a.slowly)
		return
	}
	a.finish(a.p.verdict(a.s, res, err))
}

// slowly makes the attempts that are left, in a goroutine.
func (a *async) slowly(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, a.deadline)
	defer cancel()
	for {
		res, err := a.p.attempt(ctx, a.s)
		if again := a.p.judge(a.s, err); !again || ctx.Err() != nil {
			a.finish(a.p.verdict(a.s, res, err))
			return nil
		}
	}
}

func (a *async) finish(res *SendResult, err error) {
	a.p.ended <- &asyncEnd{res, err, a.done}
	a.p.live.Done()
}
