package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// PushConsumer gives messages to a handler as they arrive
// (org.apache.rocketmq.client.consumer.DefaultMQPushConsumer). Safe for concurrent use.
//
// Goroutines: "rebalance" looks after the share of queues, "commit" stores offsets, "lock" renews queue
// locks of an ordered consumer, "expire" sends back what handlers keep too long; for each queue "pull",
// and "order" for an ordered consumer; "work" calls the handler of a concurrent one, Concurrency times.
type PushConsumer struct {
	c     *Client
	opt   PushConsumerOptions
	store offsetStore
	stats consumeStats

	pulls *run.Group // everything that brings messages; ends first
	work  *run.Group // handlers
	tasks taskQueue  // of a concurrent consumer
	slots chan struct{}
	wake  chan struct{} // asks for a rebalance

	balancing sync.Mutex // one rebalance at a time
	// locking orders what brokers are asked about locks: renewing one that is being given back would keep
	// the queue from everybody for a minute.
	locking sync.Mutex
	mu      sync.Mutex
	subs    map[string]*subscription
	queues  map[MessageQueue]*held
	started time.Time
	closed  bool
}

// held is a queue while it is assigned to this consumer.
type held struct {
	pq      *processQueue
	sub     *subscription
	start   int64
	cancel  context.CancelFunc
	arrived chan struct{} // of an ordered consumer: messages are there
	leaving bool          // guarded by PushConsumer.mu
	broker  atomic.Int64  // the id of the broker to pull from
}

// NewPushConsumer makes a consumer; it consumes from Start on.
func (c *Client) NewPushConsumer(o PushConsumerOptions) (*PushConsumer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("push consumer options: %w", err)
	}
	p := &PushConsumer{
		c: c, opt: o, wake: make(chan struct{}, 1), slots: make(chan struct{}, o.Concurrency),
		subs: map[string]*subscription{}, queues: map[MessageQueue]*held{},
		pulls: run.New(context.Background(), "consumer "+o.Group), work: run.New(context.Background(), "consumer "+o.Group),
	}
	p.tasks.init()
	if o.Model == Clustering {
		p.store = newBrokerOffsets(c, o.Group)
		p.subs[retryPrefix+o.Group] = newSubscription(retryPrefix+o.Group, Expression{}, time.Now())
		return p, nil
	}
	var err error
	p.store, err = openFileOffsets(filepath.Join(o.OffsetDir, c.offsetOwner(), o.Group, "offsets.json"))
	return p, err
}

// offsetOwner names the directory of broadcast offsets: the client id, but without what changes from run to run.
func (c *Client) offsetOwner() string {
	instance := c.opt.Instance
	if instance == "" {
		instance = "DEFAULT"
	}
	return c.opt.IP.String() + "@" + instance
}

// Subscribe asks for the messages of a topic that e selects; a second call for the topic replaces the
// first. It may be called before and after Start.
func (p *PushConsumer) Subscribe(topic string, e Expression) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	return p.change(func() { p.subs[topic] = newSubscription(topic, e, time.Now()) })
}

// Unsubscribe gives a topic up.
func (p *PushConsumer) Unsubscribe(topic string) error {
	return p.change(func() { delete(p.subs, topic) })
}

func (p *PushConsumer) change(f func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	f()
	if !p.started.IsZero() {
		p.c.heartbeatSoon()
		p.rebalanceSoon()
	}
	return nil
}

// Start joins the group and begins to consume. A topic that has no route yet is no error: it is asked
// for until it has. Errors: [ErrGroupInUse], [ErrStarted], [ErrClosed], an expression that brokers refuse.
func (p *PushConsumer) Start(ctx context.Context) error {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return ErrClosed
	case !p.started.IsZero():
		p.mu.Unlock()
		return fmt.Errorf("group %s: %w", p.opt.Group, ErrStarted)
	}
	if err := p.c.addConsumer(p.opt.Group, p); err != nil {
		p.mu.Unlock()
		return err
	}
	p.started = time.Now()
	p.mu.Unlock()
	if err := p.join(ctx); err != nil {
		p.c.removeConsumer(p.opt.Group)
		p.mu.Lock()
		p.started = time.Time{}
		p.mu.Unlock()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.c.removeConsumer(p.opt.Group)
		return ErrClosed
	}
	if !p.opt.Ordered {
		for range p.opt.Concurrency {
			p.work.Go("work", p.workConcurrently)
		}
		p.pulls.Go("expire", p.expire)
	} else if p.opt.Model == Clustering {
		p.pulls.Go("lock", p.keepLocks)
	}
	p.pulls.Go("commit", p.commit)
	p.pulls.Go("rebalance", p.rebalances)
	p.rebalanceSoon()
	return nil
}

// join makes the consumer known to the cluster.
func (p *PushConsumer) join(ctx context.Context) error {
	for _, topic := range p.topics() {
		if _, err := p.c.route(ctx, topic); err != nil {
			if !errors.Is(err, ErrNoRoute) {
				return err
			}
			if !strings.HasPrefix(topic, retryPrefix) {
				p.c.opt.Logger.Warn("subscribed topic has no route yet", "group", p.opt.Group, "topic", topic)
			}
		}
	}
	if err := p.c.checkExpressions(ctx, p.opt.Group, p.subscriptions()); err != nil {
		return err
	}
	p.c.heartbeat(ctx)
	return ctx.Err()
}

// checkExpressions lets a broker compile what is not a list of tags.
func (c *Client) checkExpressions(ctx context.Context, group string, subs []*subscription) error {
	for _, s := range subs {
		r := c.routes.get(s.data.Topic)
		if s.data.ExpressionType == protocol.ExpressionTag || r == nil || len(r.data.BrokerDatas) == 0 {
			continue
		}
		addr, _ := c.routes.replica(r.data.BrokerDatas[0].BrokerName, masterID)
		body := protocol.EncodeBody(protocol.CheckClientConfigBody{ClientID: c.id, Group: group, SubscriptionData: s.data})
		if _, err := c.call(ctx, addr, protocol.RequestCheckClientConfig, nil, body); err != nil {
			return fmt.Errorf("subscription to %s by %q: %w", s.data.Topic, s.data.SubString, err)
		}
	}
	return nil
}

// Close stops pulling, waits for running handlers until ctx ends (then their context ends too, and they
// are waited for all the same), stores offsets, gives locks back and leaves the group. Messages that no
// handler has begun with are delivered to others. Closing twice does nothing.
func (p *PushConsumer) Close(ctx context.Context) error {
	p.mu.Lock()
	running := !p.started.IsZero()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	if !running {
		return nil
	}
	p.pulls.Cancel()
	p.tasks.close() // before any handler may be told to end: it must not get the next message
	stop := context.AfterFunc(ctx, p.work.Cancel)
	defer stop()
	err := p.pulls.Wait()
	err = errors.Join(err, p.work.Wait())
	// The last words get their own time: ctx may be over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.opt.Timeout)
	defer cancel()
	queues := p.assigned()
	err = errors.Join(err, p.store.persist(ctx, true, queues...))
	if p.opt.Ordered && p.opt.Model == Clustering {
		p.c.unlock(ctx, p.opt.Group, queues)
	}
	p.c.removeConsumer(p.opt.Group)
	p.c.unregister(ctx, "", p.opt.Group)
	return err
}

// Assigned are the queues that the consumer holds now, in order.
func (p *PushConsumer) Assigned() []MessageQueue { return p.assigned() }

func (p *PushConsumer) assigned() []MessageQueue {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.queues), MessageQueue.Compare)
}

func (p *PushConsumer) find(q MessageQueue) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[q]
}

func (p *PushConsumer) topics() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.subs))
}

func (p *PushConsumer) subscriptions() []*subscription {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.subs))
}

func (p *PushConsumer) heartbeat() protocol.ConsumerData {
	return consumerData(p.opt.Group, protocol.ConsumePassively, p.opt.Model, p.opt.From, p.subscriptions())
}

func consumerData(group, kind string, model MessageModel, from ConsumeFrom, subs []*subscription) protocol.ConsumerData {
	d := protocol.ConsumerData{
		GroupName: group, ConsumeType: kind, MessageModel: model.String(), ConsumeFromWhere: from.String(), SubscriptionDataSet: []protocol.SubscriptionData{},
	}
	for _, s := range subs {
		d.SubscriptionDataSet = append(d.SubscriptionDataSet, *s.data)
	}
	return d
}

func (p *PushConsumer) rebalanceSoon() {
	signal(p.wake)
}

// rebalances follows the share of queues: at every notice, and every RebalanceInterval for the case that
// one was lost. While something stands in the way it looks again after a second.
func (p *PushConsumer) rebalances(ctx context.Context) error {
	settled := true
	for {
		wait := p.opt.RebalanceInterval
		if !settled {
			wait = min(wait, time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-p.wake:
			timer.Stop()
		}
		settled = p.rebalance(ctx)
	}
}

// rebalance takes and gives up queues so that the consumer holds its share. It reports whether it does now.
func (p *PushConsumer) rebalance(ctx context.Context) (settled bool) {
	p.balancing.Lock()
	defer p.balancing.Unlock()
	settled = true
	subs := map[string]*subscription{}
	for _, s := range p.subscriptions() {
		subs[s.data.Topic] = s
	}
	p.release(func(q MessageQueue) bool { return subs[q.Topic] == nil })
	for topic, sub := range subs {
		want, err := p.c.share(ctx, p.opt.Group, topic, p.opt.Model, p.opt.Allocate)
		if err != nil {
			// What is held stays: to give it up for want of an answer would stop consumption.
			if ctx.Err() == nil && !errors.Is(err, ErrNoRoute) {
				p.c.opt.Logger.Warn("rebalance failed", "group", p.opt.Group, "topic", topic, "err", err)
				settled = false
			}
			continue
		}
		p.release(func(q MessageQueue) bool { return q.Topic == topic && !slices.Contains(want, q) })
		if !p.claim(ctx, sub, want) {
			settled = false
		}
	}
	return settled
}

// release gives up the queues that f names: no more pulls, offsets stored, locks returned.
func (p *PushConsumer) release(f func(MessageQueue) bool) {
	for _, q := range p.assigned() {
		if f(q) {
			p.drop(q)
		}
	}
}

// drop begins to give a queue up; see ended for the rest.
func (p *PushConsumer) drop(q MessageQueue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.queues[q]; h != nil && !h.leaving {
		h.leaving = true
		h.cancel()
	}
}

// ended runs when the goroutines of a queue are through. An ordered handler has returned by then, so that
// its successor cannot overlap with it; what concurrent handlers still have is delivered again elsewhere.
func (p *PushConsumer) ended(ctx context.Context, h *held) {
	q := h.pq.queue
	if p.isClosed() {
		return // Close does the rest, for all queues at once
	}
	h.pq.drop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.opt.Timeout)
	defer cancel()
	if err := p.store.persist(ctx, true, q); err != nil {
		p.c.opt.Logger.Warn("offset of a queue given up not stored", "group", p.opt.Group, "queue", q, "err", err)
	}
	p.store.forget(q)
	p.locking.Lock()
	defer p.locking.Unlock()
	p.mu.Lock()
	delete(p.queues, q)
	p.mu.Unlock()
	if p.opt.Ordered && p.opt.Model == Clustering {
		p.c.unlock(ctx, p.opt.Group, []MessageQueue{q})
	}
	p.rebalanceSoon()
}

func (p *PushConsumer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// claim takes the queues of want that are not held yet and reports whether all are held now.
func (p *PushConsumer) claim(ctx context.Context, sub *subscription, want []MessageQueue) (all bool) {
	var fresh []MessageQueue
	for _, q := range want {
		if h := p.find(q); h == nil {
			fresh = append(fresh, q)
		} else if h.sub != sub {
			p.drop(q) // the expression has changed; it is taken again when that is done
		}
	}
	if len(fresh) == 0 {
		return true
	}
	mine := fresh
	if p.opt.Ordered && p.opt.Model == Clustering {
		p.locking.Lock()
		mine = p.c.lock(ctx, p.opt.Group, fresh)
		p.locking.Unlock()
	}
	all = len(mine) == len(fresh)
	for _, q := range mine {
		start, err := p.startAt(ctx, q)
		if err != nil {
			if ctx.Err() == nil {
				p.c.opt.Logger.Warn("no offset to start at", "group", p.opt.Group, "queue", q, "err", err)
			}
			all = false
			continue
		}
		p.hold(q, sub, start)
	}
	if !all && p.opt.Ordered && p.opt.Model == Clustering {
		p.giveUpLocks(ctx, fresh)
	}
	return all
}

// giveUpLocks returns the locks of queues that could not be taken after all: a request whose answer was not
// waited for may have got one, which nobody else could have for a minute. Locks of others stay.
func (p *PushConsumer) giveUpLocks(ctx context.Context, queues []MessageQueue) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.opt.Timeout)
	defer cancel()
	p.locking.Lock()
	defer p.locking.Unlock()
	p.c.unlock(ctx, p.opt.Group, slices.DeleteFunc(slices.Clone(queues), func(q MessageQueue) bool { return p.find(q) != nil }))
}

func (p *PushConsumer) startAt(ctx context.Context, q MessageQueue) (int64, error) {
	o, err := p.store.read(ctx, q)
	if errors.Is(err, ErrNotFound) {
		return p.c.startOffset(ctx, p.opt.Group, q, p.opt.From, p.opt.Since)
	}
	return o, err
}

func (p *PushConsumer) hold(q MessageQueue, sub *subscription, start int64) {
	now := time.Now()
	ctx, cancel := context.WithCancel(p.pulls.Context())
	h := &held{pq: newProcessQueue(q, start, now), sub: sub, start: start, cancel: cancel, arrived: make(chan struct{}, 1)}
	if p.opt.Ordered {
		h.pq.setLocked(true, now)
	}
	p.mu.Lock()
	p.queues[q] = h
	p.mu.Unlock()
	p.c.opt.Logger.Debug("queue taken", "group", p.opt.Group, "queue", q, "offset", start)
	var both sync.WaitGroup
	both.Add(1)
	p.pulls.Go("pull", func(context.Context) error {
		defer both.Done()
		p.pull(ctx, h)
		return nil
	})
	if p.opt.Ordered {
		both.Add(1)
		p.pulls.Go("order", func(context.Context) error {
			defer both.Done()
			p.consumeInOrder(ctx, h)
			return nil
		})
	}
	p.pulls.Go("end", func(ctx context.Context) error {
		both.Wait()
		p.ended(ctx, h)
		return nil
	})
}

// commit stores offsets every CommitInterval.
func (p *PushConsumer) commit(ctx context.Context) error {
	return p.c.commitEvery(ctx, p.opt.CommitInterval, p.opt.Group, p.store, p.assigned)
}
