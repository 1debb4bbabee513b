package client

import (
	"context"
	"errors"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// task is a batch of messages for a concurrent handler.
type task struct {
	h    *held
	msgs []*MessageExt
}

// taskQueue is a queue of tasks, as long as what the process queues let in. Safe for concurrent use.
type taskQueue struct {
	mu     sync.Mutex
	ready  sync.Cond
	tasks  []task
	head   int
	closed bool
}

func (t *taskQueue) init() { t.ready.L = &t.mu }

func (t *taskQueue) add(x task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tasks = append(t.tasks, x)
	t.ready.Signal()
}

// next waits for a task; false when the queue is closed, whatever it still has.
func (t *taskQueue) next() (task, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.head == len(t.tasks) && !t.closed {
		t.ready.Wait()
	}
	if t.closed {
		return task{}, false
	}
	x := t.tasks[t.head]
	t.tasks[t.head] = task{}
	if t.head++; t.head > len(t.tasks)/2 {
		t.tasks = append(t.tasks[:0], t.tasks[t.head:]...)
		t.head = 0
	}
	return x, true
}

func (t *taskQueue) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.ready.Broadcast()
}

// workConcurrently gives batches to the handler.
func (p *PushConsumer) workConcurrently(ctx context.Context) error {
	for {
		t, ok := p.tasks.next()
		if !ok {
			return nil
		}
		if !t.h.pq.isDropped() {
			p.consume(ctx, t)
		}
	}
}

// consume runs the handler over one batch and does with it what the handler says
// (ConsumeMessageConcurrentlyService).
func (p *PushConsumer) consume(ctx context.Context, t task) {
	began := time.Now()
	t.h.pq.start(t.msgs, began)
	err := p.handle(ctx, t.msgs)
	p.stats.consumed(t.msgs[0].Topic, len(t.msgs), time.Since(began), err, time.Now())
	if t.h.pq.isDropped() {
		return // another member has the queue, and these messages
	}
	consumed, level := t.msgs, 0
	var failed []*MessageExt
	if err != nil {
		from := 0
		var r *RetryError
		if errors.As(err, &r) {
			from, level = min(max(r.From, 0), len(t.msgs)), r.DelayLevel
		}
		consumed, failed = t.msgs[:from:from], t.msgs[from:]
		p.c.opt.Logger.Info("handler failed", "group", p.opt.Group, "queue", t.h.pq.queue, "offset", t.msgs[0].QueueOffset, "err", err)
	}
	again := p.settle(ctx, failed, level, &consumed)
	p.finish(t.h, consumed)
	if len(again) > 0 {
		p.work.Go("again", func(context.Context) error {
			if sleep(p.pulls.Context(), localRetryDelay) {
				p.tasks.add(task{t.h, again})
			}
			return nil
		})
	}
}

// localRetryDelay is how long messages rest that could be sent back neither way.
const localRetryDelay = 5 * time.Second

// settle sends failed messages back, adding them to consumed, and returns those for which that failed. In
// broadcast groups they are dropped.
func (p *PushConsumer) settle(ctx context.Context, failed []*MessageExt, level int, consumed *[]*MessageExt) (again []*MessageExt) {
	for _, m := range failed {
		switch {
		case p.opt.Model == Broadcasting:
			p.c.opt.Logger.Warn("message dropped: broadcast groups do not retry", "group", p.opt.Group, "queue", m.Queue, "offset", m.QueueOffset, "id", m.ID())
		case !p.giveBack(ctx, m, level):
			m.ReconsumeTimes++
			again = append(again, m)
			continue
		}
		*consumed = append(*consumed, m)
	}
	return again
}

// finish notes that messages are through.
func (p *PushConsumer) finish(h *held, msgs []*MessageExt) {
	h.pq.done(msgs, func(commit int64) { p.store.update(h.pq.queue, commit, true) })
}

// handle calls the handler; a panic becomes a [*PanicError].
func (p *PushConsumer) handle(ctx context.Context, msgs []*MessageExt) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
			p.c.opt.Logger.Error("handler panicked", "group", p.opt.Group, "queue", msgs[0].Queue, "offset", msgs[0].QueueOffset, "err", err)
		}
	}()
	return p.opt.Handler(ctx, msgs)
}

// maxReconsume is how often a message comes again to a concurrent consumer.
func (p *PushConsumer) maxReconsume() int {
	if p.opt.MaxReconsumeTimes < 0 {
		return 16
	}
	return p.opt.MaxReconsumeTimes
}

// giveBack has m delivered again after a delay: the broker copies it to the group's retry topic, or to its
// dead letter queue when it came too often. If the broker cannot, the message is sent there by hand.
func (p *PushConsumer) giveBack(ctx context.Context, m *MessageExt, level int) bool {
	_, err := p.c.callMaster(ctx, m.Queue.BrokerName, protocol.RequestConsumerSendMsgBack, &protocol.SendBackHeader{
		Offset: m.CommitLogOffset, Group: p.opt.Group, DelayLevel: int32(level), OriginMsgID: m.OffsetID(), OriginTopic: m.Topic,
		MaxReconsumeTimes: ptr(int32(p.maxReconsume())),
	}, nil)
	if err == nil {
		return true
	}
	p.c.opt.Logger.Warn("broker does not take a message back", "group", p.opt.Group, "queue", m.Queue, "offset", m.QueueOffset, "err", err)
	if err := p.resend(ctx, m, 3+m.ReconsumeTimes, p.maxReconsume()); err != nil {
		p.c.opt.Logger.Warn("message not sent back", "group", p.opt.Group, "queue", m.Queue, "offset", m.QueueOffset, "err", err)
		return false
	}
	return true
}

func ptr[T any](v T) *T { return &v }

// resend sends a copy of m to the retry topic of the group, at any broker (sendMessageBackAsNormalMessage).
func (p *PushConsumer) resend(ctx context.Context, m *MessageExt, level, maxTimes int) error {
	topic := retryPrefix + p.opt.Group
	r, err := p.c.publishRoute(ctx, topic, 1)
	if err != nil {
		return err
	}
	origin := m.Property(propOriginID)
	if origin == "" {
		origin = m.ID()
	}
	skip := map[string]bool{message.PropDelay: true, propRetryTopic: true, propOriginID: true, propReconsume: true, propMaxReconsume: true, message.PropCRC: true}
	var props []byte
	m.Properties.Each(func(name, value []byte) bool {
		if !skip[string(name)] {
			props = message.AppendProperty(props, string(name), string(value))
		}
		return true
	})
	for _, kv := range [...][2]string{
		{propRetryTopic, m.Topic}, {propOriginID, origin}, {propReconsume, strconv.Itoa(m.ReconsumeTimes + 1)},
		{propMaxReconsume, strconv.Itoa(maxTimes)}, {message.PropDelay, strconv.Itoa(level)},
	} {
		props = message.AppendProperty(props, kv[0], kv[1])
	}
	var last error
	for range 3 {
		q := r.inTurn("", func(string) bool { return true })
		last = p.resendTo(ctx, q, m, &protocol.SendHeader{
			ProducerGroup: []byte(innerGroup), Topic: []byte(topic), DefaultTopic: []byte(defaultTopic), DefaultTopicQueueNums: 1, QueueID: q.QueueID,
			BornMillis: time.Now().UnixMilli(), Flag: m.Flag, Properties: props, ReconsumeTimes: int32(m.ReconsumeTimes + 1),
			MaxReconsumeTimes: int32(maxTimes), HasMaxReconsume: true,
		})
		if last == nil {
			return nil
		}
	}
	return last
}

// innerGroup is the producer group under which Java clients send for themselves.
const innerGroup = "CLIENT_INNER_PRODUCER"

func (p *PushConsumer) resendTo(ctx context.Context, q MessageQueue, m *MessageExt, h *protocol.SendHeader) error {
	addr, err := p.c.masterOf(ctx, q.BrokerName)
	if err != nil {
		return err
	}
	body := m.Body
	if m.SysFlag.Has(message.FlagCompressed) {
		// As it is stored: compressed.
		var r message.Record
		if err := message.ParseRecord(m.raw, &r); err != nil {
			return err
		}
		body, h.SysFlag = r.Body, int32(m.SysFlag&(message.FlagCompressed|0x700))
	}
	resp, err := p.c.invoke(ctx, addr, p.c.sendRequest(h, body))
	if err != nil {
		return err
	}
	if _, stored := statusOf(protocol.ResponseCode(resp.Code)); !stored {
		return resp.Err()
	}
	return nil
}
