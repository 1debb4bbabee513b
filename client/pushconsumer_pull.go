package client

import (
	"context"
	"errors"
	"time"

	"rmq/remoting/protocol"
)

// How long to wait before looking again: for room in the cache, for a lock, after a refusal that says
// "not now", after the broker had to be told of the subscription.
const (
	fullDelay   = 50 * time.Millisecond
	lockDelay   = time.Second
	busyDelay   = 20 * time.Millisecond
	absentDelay = time.Second
)

// pull brings the messages of one queue until ctx ends or the queue must be taken anew.
func (p *PushConsumer) pull(ctx context.Context, h *held) {
	next := h.start
	for ctx.Err() == nil {
		if wait := p.holdBack(h); wait > 0 {
			p.pause(ctx, h, wait)
			continue
		}
		began := time.Now()
		res, err := p.c.pull(ctx, p.pullRequest(h, next))
		now := time.Now()
		if err != nil {
			if ctx.Err() == nil {
				p.pullFailed(ctx, h, err)
			}
			continue
		}
		h.pq.pulled(now)
		h.broker.Store(res.suggested)
		if res.Status == PullOffsetIllegal {
			p.moveTo(ctx, h, res.Next)
			return
		}
		p.stats.pulled(h.pq.queue.Topic, len(res.Messages), now.Sub(began), now)
		p.take(h, res)
		next = max(next, res.Next)
	}
}

func (p *PushConsumer) pullRequest(h *held, next int64) *pullRequest {
	r := &pullRequest{group: p.opt.Group, queue: h.pq.queue, offset: next, max: p.opt.PullBatch, sub: h.sub, suspend: pushSuspend, brokerID: h.broker.Load()}
	if p.opt.Model == Clustering {
		r.commit, r.hasOffset = p.store.noted(h.pq.queue)
		r.hasOffset = r.hasOffset && r.commit > 0
	}
	return r
}

// take puts what a pull brought where handlers find it.
func (p *PushConsumer) take(h *held, res *PullResult) {
	msgs := h.sub.keep(res.Messages)
	for _, m := range msgs {
		m.restoreTopic(p.opt.Group)
	}
	fresh := h.pq.put(msgs)
	h.pq.skipTo(res.Next, func(commit int64) { p.store.update(h.pq.queue, commit, true) })
	switch {
	case len(fresh) == 0:
	case p.opt.Ordered:
		signal(h.arrived)
	default:
		for len(fresh) > 0 {
			n := min(p.opt.BatchSize, len(fresh))
			p.tasks.add(task{h, fresh[:n:n]})
			fresh = fresh[n:]
		}
	}
}

// holdBack says how long not to pull: 0 for go ahead.
func (p *PushConsumer) holdBack(h *held) time.Duration {
	if p.opt.Ordered {
		if p.opt.Model == Clustering && !h.pq.locked(time.Now()) {
			return lockDelay
		}
		if h.pq.full(p.opt.MaxCachedMessages, p.opt.MaxCachedBytes, 0) != "" {
			return fullDelay
		}
		return 0
	}
	if h.pq.full(p.opt.MaxCachedMessages, p.opt.MaxCachedBytes, p.opt.MaxSpan) != "" {
		return fullDelay
	}
	return 0
}

// pause waits for d, or less when messages leave the cache.
func (p *PushConsumer) pause(ctx context.Context, h *held, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-h.pq.room:
	}
}

// pullFailed waits as long as the failure asks for.
func (p *PushConsumer) pullFailed(ctx context.Context, h *held, err error) {
	delay := p.opt.ErrorDelay
	switch {
	case hasCode(err, protocol.ResponseSystemBusy, protocol.ResponseFlowControl):
		delay = min(delay, busyDelay)
	case hasCode(err, protocol.ResponseSubscriptionNotExist, protocol.ResponseSubscriptionNotLatest):
		// The broker has restarted, or has not heard of a change: tell it.
		p.c.heartbeatSoon()
		delay = min(delay, absentDelay)
	default:
		p.c.opt.Logger.Warn("pull failed", "group", p.opt.Group, "queue", h.pq.queue, "err", err)
		h.broker.Store(masterID)
	}
	sleep(ctx, delay)
}

// moveTo gives a queue up whose offsets do not reach where the consumer stood, to take it again at next: the
// broker has reset the group, or has deleted what was there.
func (p *PushConsumer) moveTo(ctx context.Context, h *held, next int64) {
	q := h.pq.queue
	p.c.opt.Logger.Warn("offset moved", "group", p.opt.Group, "queue", q, "to", next)
	h.pq.drop()
	p.store.update(q, next, false)
	if err := p.store.persist(ctx, true, q); err != nil && !errors.Is(err, context.Canceled) {
		p.c.opt.Logger.Warn("moved offset not stored", "group", p.opt.Group, "queue", q, "err", err)
	}
	p.drop(q)
}

// expire sends messages back that handlers have had for longer than ConsumeTimeout, as if they had failed
// (ProcessQueue.cleanExpiredMsg).
func (p *PushConsumer) expire(ctx context.Context) error {
	tick := time.NewTicker(min(p.opt.ConsumeTimeout, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, h := range p.helds() {
				p.expireQueue(ctx, h, now)
			}
		}
	}
}

func (p *PushConsumer) expireQueue(ctx context.Context, h *held, now time.Time) {
	for _, m := range h.pq.expired(now.Add(-p.opt.ConsumeTimeout)) {
		p.c.opt.Logger.Warn("handler keeps a message too long", "group", p.opt.Group, "queue", h.pq.queue, "offset", m.QueueOffset, "id", m.ID())
		if p.giveBack(ctx, m, expiredLevel) {
			p.finish(h, []*MessageExt{m})
		}
	}
}

// expiredLevel is the delay level of messages that handlers kept too long.
const expiredLevel = 3
