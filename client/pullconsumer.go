package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// PullConsumerOptions are the knobs of a [PullConsumer]. Only Group must be set.
type PullConsumerOptions struct {
	Group string
	// From says where to begin in a queue without an offset; Since is the time for FromTime.
	From  ConsumeFrom
	Since time.Time
	// PollBatch is how many messages Poll returns at most. Default 32.
	PollBatch int
	// PullBatch is how many messages one request to a broker asks for. Default 32.
	PullBatch int
	// MaxCachedMessages is how many messages of a queue wait for Poll. Default 256.
	MaxCachedMessages int
	// ManualCommit leaves it to Commit to store offsets. Else they are stored every CommitInterval (5 s)
	// and at Close.
	ManualCommit   bool
	CommitInterval time.Duration
	// Allocate shares queues out among the members of the group, after Subscribe.
	Allocate          AllocateStrategy
	RebalanceInterval time.Duration // default 20 s
	ErrorDelay        time.Duration // pause after a pull that failed; default 1 s
}

// EnsureDefaults fills what is unset.
func (o *PullConsumerOptions) EnsureDefaults() {
	setDefault(&o.PollBatch, 32)
	setDefault(&o.PullBatch, 32)
	setDefault(&o.MaxCachedMessages, 256)
	setDefault(&o.CommitInterval, 5*time.Second)
	setDefault(&o.RebalanceInterval, 20*time.Second)
	setDefault(&o.ErrorDelay, time.Second)
	if o.Since.IsZero() {
		o.Since = time.Now().Add(-30 * time.Minute)
	}
	if o.Allocate == nil {
		o.Allocate = AllocateAveragely
	}
}

// Validate returns every complaint at once.
func (o *PullConsumerOptions) Validate() error {
	return errors.Join(
		checkGroup(o.Group), notNegative("PollBatch", o.PollBatch), notNegative("PullBatch", o.PullBatch),
		notNegative("MaxCachedMessages", o.MaxCachedMessages), notNegative("CommitInterval", o.CommitInterval),
		notNegative("RebalanceInterval", o.RebalanceInterval), notNegative("ErrorDelay", o.ErrorDelay))
}

// PullConsumer hands out messages when the program asks for them
// (org.apache.rocketmq.client.consumer.DefaultLitePullConsumer). The queues it reads are either given
// to it (Assign) or shared with the group (Subscribe). Safe for concurrent use.
//
// Goroutines: "commit", "rebalance" after Subscribe, and "fetch" for each queue.
type PullConsumer struct {
	c     *Client
	opt   PullConsumerOptions
	store *brokerOffsets
	stats consumeStats
	group *run.Group
	since time.Time
	ready chan struct{} // messages wait for Poll
	wake  chan struct{}

	balancing sync.Mutex
	mu        sync.Mutex
	queues    map[MessageQueue]*fetch
	turn      int
	subs      map[string]*subscription
	assigned  bool // by Assign
	balanced  bool // by rebalances
	closed    bool
}

// fetch is a queue being read. All but the channels is guarded by PullConsumer.mu.
type fetch struct {
	q       MessageQueue
	sub     *subscription
	buf     []*MessageExt
	next    int64 // to pull from
	pos     int64 // behind what Poll returned
	paused  bool
	moved   int // counts seeks
	again   context.CancelFunc
	stop    context.CancelFunc
	changed chan struct{}
	broker  int64
}

// NewPullConsumer makes a pull consumer and joins the group.
func (c *Client) NewPullConsumer(o PullConsumerOptions) (*PullConsumer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("pull consumer options: %w", err)
	}
	p := &PullConsumer{
		c: c, opt: o, store: newBrokerOffsets(c, o.Group), ready: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		queues: map[MessageQueue]*fetch{}, subs: map[string]*subscription{}, since: time.Now(),
	}
	if err := c.addConsumer(o.Group, p); err != nil {
		return nil, err
	}
	p.group = run.New(context.Background(), "pull consumer "+o.Group)
	if !o.ManualCommit {
		p.group.Go("commit", p.commits)
	}
	return p, nil
}

var errMode = errors.New("a pull consumer either subscribes or is assigned queues, not both: make another one")

// Assign has the consumer read these queues and no others, whoever else reads them. Queues that it reads
// already go on where they are; new ones begin at the group's offset.
func (p *PullConsumer) Assign(ctx context.Context, queues ...MessageQueue) error {
	p.mu.Lock()
	if len(p.subs) > 0 {
		p.mu.Unlock()
		return errMode
	}
	p.assigned = true
	p.mu.Unlock()
	for _, q := range queues {
		if _, err := p.c.route(ctx, q.Topic); err != nil {
			return err
		}
	}
	p.c.heartbeat(ctx)
	p.balancing.Lock()
	defer p.balancing.Unlock()
	return p.hold(ctx, queues, func(q MessageQueue) *subscription { return newSubscription(q.Topic, Expression{}, time.Now()) })
}

// Subscribe shares the topic's queues with the other members of the group, which must subscribe to the
// same. It may be called several times for several topics.
func (p *PullConsumer) Subscribe(ctx context.Context, topic string, e Expression) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	p.mu.Lock()
	if p.closed || p.assigned {
		defer p.mu.Unlock()
		if p.closed {
			return ErrClosed
		}
		return errMode
	}
	s := newSubscription(topic, e, time.Now())
	p.subs[topic] = s
	p.mu.Unlock()
	if _, err := p.c.route(ctx, topic); err != nil && !errors.Is(err, ErrNoRoute) {
		return err
	}
	if err := p.c.checkExpressions(ctx, p.opt.Group, []*subscription{s}); err != nil {
		return err
	}
	p.c.heartbeat(ctx)
	p.rebalanceSoon()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if !p.balanced {
		p.balanced = true
		p.group.Go("rebalance", p.rebalances)
	}
	return nil
}

// Poll returns messages that follow those it returned before, at least one, in order within each queue.
// It waits until there are some or ctx ends.
func (p *PullConsumer) Poll(ctx context.Context) ([]*MessageExt, error) {
	for {
		if msgs, err := p.collect(); err != nil || len(msgs) > 0 {
			return msgs, err
		}
		select {
		case <-p.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.group.Context().Done():
			return nil, ErrClosed
		}
	}
}

// collect takes what is there, from another queue first each time.
func (p *PullConsumer) collect() ([]*MessageExt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	var out []*MessageExt
	order := slices.SortedFunc(maps.Keys(p.queues), MessageQueue.Compare)
	p.turn++
	for i := range order {
		f := p.queues[order[(p.turn+i)%len(order)]]
		n := min(len(f.buf), p.opt.PollBatch-len(out))
		if n == 0 || f.paused {
			continue
		}
		out = append(out, f.buf[:n]...)
		f.buf = f.buf[n:]
		f.pos = f.next
		if len(f.buf) > 0 {
			f.pos = f.buf[0].QueueOffset
			signal(p.ready) // for another caller
		}
		p.store.update(f.q, f.pos, false)
		signal(f.changed)
	}
	return out, nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Seek has Poll go on at offset in a queue that the consumer holds; what it had read ahead is dropped.
func (p *PullConsumer) Seek(q MessageQueue, offset int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.queues[q]
	if f == nil {
		return fmt.Errorf("%s: %w", q, ErrNotAssigned)
	}
	f.seek(offset)
	p.store.update(q, offset, false)
	return nil
}

func (f *fetch) seek(offset int64) {
	f.buf, f.next, f.pos = nil, offset, offset
	f.moved++
	if f.again != nil {
		f.again()
	}
	signal(f.changed)
}

// SeekToBegin goes on at the oldest message of the queue.
func (p *PullConsumer) SeekToBegin(ctx context.Context, q MessageQueue) error {
	o, err := p.c.MinOffset(ctx, q)
	if err != nil {
		return err
	}
	return p.Seek(q, o)
}

// SeekToEnd goes on behind the newest message of the queue.
func (p *PullConsumer) SeekToEnd(ctx context.Context, q MessageQueue) error {
	o, err := p.c.MaxOffset(ctx, q)
	if err != nil {
		return err
	}
	return p.Seek(q, o)
}

// Position is the offset at which Poll goes on in a queue.
func (p *PullConsumer) Position(q MessageQueue) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.queues[q]
	if f == nil {
		return 0, fmt.Errorf("%s: %w", q, ErrNotAssigned)
	}
	return f.pos, nil
}

// Pause keeps Poll from returning messages of these queues until Resume.
func (p *PullConsumer) Pause(queues ...MessageQueue) { p.setPaused(true, queues) }

// Resume undoes Pause.
func (p *PullConsumer) Resume(queues ...MessageQueue) { p.setPaused(false, queues) }

func (p *PullConsumer) setPaused(paused bool, queues []MessageQueue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range queues {
		if f := p.queues[q]; f != nil {
			f.paused = paused
			signal(f.changed)
		}
	}
	signal(p.ready)
}

// Assigned are the queues that the consumer reads now, in order.
func (p *PullConsumer) Assigned() []MessageQueue {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.queues), MessageQueue.Compare)
}

// Queues are the queues of a topic that can be read.
func (p *PullConsumer) Queues(ctx context.Context, topic string) ([]MessageQueue, error) {
	r, err := p.c.route(ctx, topic)
	if err != nil {
		return nil, err
	}
	return slices.Clone(r.consume), nil
}

// Commit stores the positions of all queues with the brokers: what Poll returned counts as consumed.
func (p *PullConsumer) Commit(ctx context.Context) error {
	return p.store.persist(ctx, true, p.Assigned()...)
}

// Committed is the offset that the group has stored for a queue; [ErrNotFound] if none.
func (p *PullConsumer) Committed(ctx context.Context, q MessageQueue) (int64, error) {
	return p.c.CommittedOffset(ctx, p.opt.Group, q)
}

// Close ends the fetching, stores offsets unless ManualCommit is set, and leaves the group. Closing twice
// does nothing.
func (p *PullConsumer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.group.Cancel()
	err := p.group.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.opt.Timeout)
	defer cancel()
	if !p.opt.ManualCommit {
		err = errors.Join(err, p.Commit(ctx))
	}
	p.c.removeConsumer(p.opt.Group)
	p.c.unregister(ctx, "", p.opt.Group)
	return err
}

// hold reads exactly these of the queues.
func (p *PullConsumer) hold(ctx context.Context, queues []MessageQueue, sub func(MessageQueue) *subscription) error {
	for _, q := range p.Assigned() {
		if !slices.Contains(queues, q) {
			p.drop(ctx, q)
		}
	}
	var errs []error
	for _, q := range queues {
		if slices.Contains(p.Assigned(), q) {
			continue
		}
		start, err := p.store.read(ctx, q)
		if errors.Is(err, ErrNotFound) {
			start, err = p.c.startOffset(ctx, p.opt.Group, q, p.opt.From, p.opt.Since)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("start of %s: %w", q, err))
			continue
		}
		if err := p.begin(&fetch{q: q, sub: sub(q), next: start, pos: start, changed: make(chan struct{}, 1)}); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func (p *PullConsumer) begin(f *fetch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	ctx, stop := context.WithCancel(p.group.Context())
	f.stop = stop
	p.queues[f.q] = f
	p.group.Go("fetch", func(context.Context) error {
		p.fetch(ctx, f)
		return nil
	})
	return nil
}

func (p *PullConsumer) drop(ctx context.Context, q MessageQueue) {
	p.mu.Lock()
	f := p.queues[q]
	delete(p.queues, q)
	p.mu.Unlock()
	f.stop()
	if !p.opt.ManualCommit {
		if err := p.store.persist(ctx, true, q); err != nil {
			p.c.opt.Logger.Warn("offset of a queue given up not stored", "group", p.opt.Group, "queue", q, "err", err)
		}
	}
	p.store.forget(q)
}

// fetch reads one queue ahead of Poll until ctx ends.
func (p *PullConsumer) fetch(ctx context.Context, f *fetch) {
	for ctx.Err() == nil {
		pull, next, moved, broker := p.nextPull(ctx, f)
		if pull == nil {
			select {
			case <-ctx.Done():
			case <-f.changed:
			}
			continue
		}
		began := time.Now()
		res, err := p.c.pull(pull, &pullRequest{
			group: p.opt.Group, queue: f.q, offset: next, max: p.opt.PullBatch, sub: f.sub, carrySub: true, suspend: pollSuspend, brokerID: broker,
		})
		if err == nil {
			p.stats.pulled(f.q.Topic, len(res.Messages), time.Since(began), time.Now())
			p.fetched(f, res, moved)
			continue
		}
		if pull.Err() == nil {
			p.c.opt.Logger.Warn("pull failed", "group", p.opt.Group, "queue", f.q, "err", err)
			sleep(ctx, p.opt.ErrorDelay)
		}
	}
}

// nextPull says where to go on; a nil context that there is nothing to do now. The context ends when the
// consumer seeks elsewhere.
func (p *PullConsumer) nextPull(ctx context.Context, f *fetch) (pull context.Context, next int64, moved int, broker int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.again != nil {
		f.again()
		f.again = nil
	}
	if f.paused || len(f.buf) >= p.opt.MaxCachedMessages {
		return nil, 0, 0, 0
	}
	pull, f.again = context.WithCancel(ctx)
	return pull, f.next, f.moved, f.broker
}

func (p *PullConsumer) fetched(f *fetch, res *PullResult, moved int) {
	msgs := f.sub.keep(res.Messages)
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.moved != moved {
		return
	}
	f.broker = res.suggested
	if res.Status == PullOffsetIllegal {
		p.c.opt.Logger.Warn("offset moved", "group", p.opt.Group, "queue", f.q, "from", f.next, "to", res.Next)
		f.buf, f.next, f.pos = nil, res.Next, res.Next
		p.store.update(f.q, f.pos, false)
		return
	}
	f.buf = append(f.buf, msgs...)
	f.next = max(f.next, res.Next)
	if len(f.buf) == 0 && f.pos < f.next {
		f.pos = f.next
		p.store.update(f.q, f.pos, false)
	}
	if len(f.buf) > 0 {
		signal(p.ready)
	}
}

func (p *PullConsumer) commits(ctx context.Context) error {
	return p.c.commitEvery(ctx, p.opt.CommitInterval, p.opt.Group, p.store, p.Assigned)
}

func (p *PullConsumer) rebalanceSoon() { signal(p.wake) }

func (p *PullConsumer) rebalances(ctx context.Context) error {
	for wait := time.Duration(0); ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-p.wake:
			timer.Stop()
		}
		wait = p.opt.RebalanceInterval
		if err := p.rebalance(ctx); err != nil && ctx.Err() == nil {
			p.c.opt.Logger.Warn("rebalance failed", "group", p.opt.Group, "err", err)
			wait = min(wait, time.Second)
		}
	}
}

func (p *PullConsumer) rebalance(ctx context.Context) error {
	p.balancing.Lock()
	defer p.balancing.Unlock()
	p.mu.Lock()
	subs := maps.Clone(p.subs)
	p.mu.Unlock()
	var want []MessageQueue
	for topic := range subs {
		mine, err := p.c.share(ctx, p.opt.Group, topic, Clustering, p.opt.Allocate)
		if errors.Is(err, ErrNoRoute) {
			continue
		}
		if err != nil {
			return err
		}
		want = append(want, mine...)
	}
	return p.hold(ctx, want, func(q MessageQueue) *subscription { return subs[q.Topic] })
}

func (p *PullConsumer) topics() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	set := map[string]bool{}
	for t := range p.subs {
		set[t] = true
	}
	for q := range p.queues {
		set[q.Topic] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (p *PullConsumer) subscriptions() []*subscription {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.subs))
}

func (p *PullConsumer) heartbeat() protocol.ConsumerData {
	return consumerData(p.opt.Group, protocol.ConsumeActively, Clustering, p.opt.From, p.subscriptions())
}

func (p *PullConsumer) reset(_ context.Context, topic string, offsets map[MessageQueue]int64) {
	for q, o := range offsets {
		if q.Topic == topic {
			_ = p.Seek(q, o) // a queue that another member holds
		}
	}
}

func (p *PullConsumer) offsets(topic string) map[MessageQueue]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[MessageQueue]int64{}
	for q, f := range p.queues {
		if q.Topic == topic {
			out[q] = f.pos
		}
	}
	return out
}

func (p *PullConsumer) runningInfo() *protocol.ConsumerRunningInfo {
	info := newRunningInfo(p.c.properties(protocol.ConsumeActively, false, 0, p.since.UnixMilli()), p.subscriptions(), p.stats.table(time.Now()))
	p.mu.Lock()
	defer p.mu.Unlock()
	for q, f := range p.queues {
		i := protocol.ProcessQueueInfo{CommitOffset: f.pos, CachedMsgCount: int32(len(f.buf))}
		if len(f.buf) > 0 {
			i.CachedMsgMinOffset, i.CachedMsgMaxOffset = f.buf[0].QueueOffset, f.buf[len(f.buf)-1].QueueOffset
		}
		info.MQTable[q] = i
	}
	return info
}

// consumeDirectly has no handler to give the message to.
func (p *PullConsumer) consumeDirectly(context.Context, *MessageExt) *protocol.ConsumeMessageDirectlyResult {
	return &protocol.ConsumeMessageDirectlyResult{AutoCommit: true, ConsumeResult: protocol.CMThrowException, Remark: "a pull consumer has no handler"}
}
