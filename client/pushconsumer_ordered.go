package client

import (
	"context"
	"errors"
	"math"
	"time"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// consumeInOrder gives the messages of one queue to the handler in order, while the queue is locked for this
// client (ConsumeMessageOrderlyService).
func (p *PushConsumer) consumeInOrder(ctx context.Context, h *held) {
	for ctx.Err() == nil {
		if !p.mayConsume(h) {
			sleep(ctx, lockDelay)
			continue
		}
		msgs := h.pq.take(p.opt.BatchSize, time.Now())
		if len(msgs) == 0 {
			select {
			case <-ctx.Done():
			case <-h.arrived:
			}
			continue
		}
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		rest := p.consumeBatch(h, msgs)
		<-p.slots
		if rest > 0 {
			sleep(ctx, rest)
		}
	}
}

func (p *PushConsumer) mayConsume(h *held) bool {
	return p.opt.Model == Broadcasting || h.pq.locked(time.Now())
}

// consumeBatch runs the handler over messages of one queue and returns how long the queue rests then. The
// handler's context is that of the consumer's work, so that giving the queue up does not tear a handler out.
func (p *PushConsumer) consumeBatch(h *held, msgs []*MessageExt) (rest time.Duration) {
	began := time.Now()
	ctx := p.work.Context()
	err := p.handle(ctx, msgs)
	p.stats.consumed(msgs[0].Topic, len(msgs), time.Since(began), err, time.Now())
	if h.pq.isDropped() {
		return 0
	}
	if err == nil {
		p.finish(h, msgs)
		return 0
	}
	from, rest := 0, time.Second
	var r *RetryError
	if errors.As(err, &r) {
		from = min(max(r.From, 0), len(msgs))
		if r.After != 0 {
			rest = r.After
		}
	}
	rest = min(max(rest, 10*time.Millisecond), 30*time.Second)
	p.finish(h, msgs[:from])
	p.c.opt.Logger.Info("handler failed, queue rests", "group", p.opt.Group, "queue", h.pq.queue, "err", err)
	failed := msgs[from:]
	if len(failed) == 0 {
		return 0
	}
	if p.opt.Model == Clustering && p.exhausted(ctx, h, failed[0]) {
		failed, rest = failed[1:], 0
	}
	h.pq.putBack(failed)
	return rest
}

// exhausted counts one more attempt at a message; when it has had all that it gets it is sent to the retry topic,
// where the broker files it as a dead letter. It reports whether the message is gone. Messages behind it in a batch
// are not counted: it is not known that they failed.
func (p *PushConsumer) exhausted(ctx context.Context, h *held, m *MessageExt) bool {
	limit := p.opt.MaxReconsumeTimes
	if limit < 0 {
		limit = math.MaxInt32
	}
	if m.ReconsumeTimes < limit {
		m.ReconsumeTimes++
		return false
	}
	if err := p.resend(ctx, m, 3+m.ReconsumeTimes, limit); err != nil {
		p.c.opt.Logger.Warn("message not sent to the dead letters", "group", p.opt.Group, "queue", m.Queue, "offset", m.QueueOffset, "err", err)
		return false
	}
	p.finish(h, []*MessageExt{m})
	return true
}

// keepLocks renews the locks of all queues, which brokers forget after 60 s.
func (p *PushConsumer) keepLocks(ctx context.Context) error {
	return periodically(ctx, p.opt.LockInterval, nil, func() {
		p.locking.Lock()
		queues := p.assigned()
		got := p.c.lock(ctx, p.opt.Group, queues)
		p.locking.Unlock()
		mine := map[MessageQueue]bool{}
		for _, q := range got {
			mine[q] = true
		}
		now := time.Now()
		for _, q := range queues {
			if h := p.find(q); h != nil && ctx.Err() == nil {
				if !mine[q] {
					p.c.opt.Logger.Warn("queue is locked by another client", "group", p.opt.Group, "queue", q)
				}
				h.pq.setLocked(mine[q], now)
			}
		}
	})
}

// lock asks the brokers for queues and returns those that this client may consume alone.
func (c *Client) lock(ctx context.Context, group string, queues []MessageQueue) []MessageQueue {
	byBroker := perBroker(queues)
	got := make(chan []MessageQueue, len(byBroker))
	round := run.New(ctx, "lock")
	for broker, mine := range byBroker {
		round.Go(broker, func(ctx context.Context) error {
			body := protocol.EncodeBody(protocol.LockBatchBody{ClientID: c.id, ConsumerGroup: group, MQSet: mine})
			ok, err := decode[protocol.LockBatchResponseBody](c.callMaster(ctx, broker, protocol.RequestLockBatchMQ, nil, body))
			if err != nil {
				if ctx.Err() == nil {
					c.opt.Logger.Warn("queues not locked", "group", group, "broker", broker, "err", err)
				}
				return nil
			}
			got <- ok.LockOKMQSet
			return nil
		})
	}
	_ = round.Wait() // its goroutines report to the log
	close(got)
	var out []MessageQueue
	for qs := range got {
		out = append(out, qs...)
	}
	return out
}

// unlock gives queues back to whoever comes next.
func (c *Client) unlock(ctx context.Context, group string, queues []MessageQueue) {
	for broker, mine := range perBroker(queues) {
		body := protocol.EncodeBody(protocol.LockBatchBody{ClientID: c.id, ConsumerGroup: group, MQSet: mine})
		if _, err := c.callMaster(ctx, broker, protocol.RequestUnlockBatchMQ, nil, body); err != nil {
			c.opt.Logger.Warn("queues not unlocked: they are free in 60 s", "group", group, "broker", broker, "err", err)
		}
	}
}

func perBroker(queues []MessageQueue) map[string][]MessageQueue {
	out := map[string][]MessageQueue{}
	for _, q := range queues {
		out[q.BrokerName] = append(out[q.BrokerName], q)
	}
	return out
}
