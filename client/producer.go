package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// ProducerOptions are the knobs of a [Producer]. Only Group must be set.
type ProducerOptions struct {
	Group string
	// Timeout bounds a send with all its attempts, when the context sets no earlier end. Default 3 s.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt, so that a broker that hangs leaves time for another. Default:
	// the Timeout.
	AttemptTimeout time.Duration
	// Retries is how many further attempts a send gets, on other brokers where there are. Default 2,
	// negative: none. Sends to a chosen queue, of a batch and one-way ones are tried once.
	Retries int
	// RetryNotStored tries another broker also when one stored the message without the durability asked
	// for; the message is then stored twice.
	RetryNotStored bool
	// CompressBytes is the size from which bodies are compressed. Default 4096, negative: never.
	CompressBytes int
	// Compression is how: zlib (the default, which every client reads), LZ4 or Zstd.
	Compression protocol.Compression
	// MaxMessageBytes bounds a body. Default 4 MiB, the limit of brokers.
	MaxMessageBytes int
	// NewTopicQueues is how many queues a broker that creates topics by itself gives a new one. Default 4.
	NewTopicQueues int
	// AvoidSlow keeps away for a while from brokers that failed or took long.
	AvoidSlow bool
	// MaxInFlight bounds asynchronous sends without an answer; SendAsync waits for room. Default 1024.
	MaxInFlight int
}

// EnsureDefaults fills what is unset.
func (o *ProducerOptions) EnsureDefaults() {
	setDefault(&o.Timeout, 3*time.Second)
	setDefault(&o.AttemptTimeout, o.Timeout)
	setDefault(&o.Retries, 2)
	setDefault(&o.CompressBytes, 4096)
	setDefault(&o.Compression, protocol.CompressionZlib)
	setDefault(&o.MaxMessageBytes, 4<<20)
	setDefault(&o.NewTopicQueues, 4)
	setDefault(&o.MaxInFlight, 1024)
}

// Validate returns every complaint at once.
func (o *ProducerOptions) Validate() error {
	errs := []error{
		checkGroup(o.Group), notNegative("Timeout", o.Timeout), notNegative("AttemptTimeout", o.AttemptTimeout),
		notNegative("MaxMessageBytes", o.MaxMessageBytes), notNegative("NewTopicQueues", o.NewTopicQueues), notNegative("MaxInFlight", o.MaxInFlight),
	}
	switch o.Compression {
	case protocol.CompressionZlib, protocol.CompressionLZ4, protocol.CompressionZstd:
	default:
		errs = append(errs, fmt.Errorf("the Compression is %v: give protocol.CompressionZlib, CompressionLZ4 or CompressionZstd", o.Compression))
	}
	return errors.Join(errs...)
}

// Producer sends messages (org.apache.rocketmq.client.producer.DefaultMQProducer). Safe for concurrent use.
//
// Goroutines: "callbacks" runs the callbacks of asynchronous sends, in the order in which the sends
// end; an asynchronous send that must look up a route or try again does so in one of its own.
type Producer struct {
	c      *Client
	opt    ProducerOptions
	faults faultTable
	group  *run.Group
	slots  chan struct{}  // one token for each asynchronous send under way
	ended  chan *asyncEnd // never full: no more sends than slots
	live   sync.WaitGroup // asynchronous sends

	mu     sync.Mutex
	used   map[string]bool // topics sent to
	closed bool
}

// SendStatus says how well a message is stored.
type SendStatus int

const (
	// SendOK is all that the broker was configured to do.
	SendOK SendStatus = iota
	// SendFlushDiskTimeout says that it is stored, but not known to be on disk.
	SendFlushDiskTimeout
	// SendFlushSlaveTimeout says that it is stored, but not known to be on a slave.
	SendFlushSlaveTimeout
	// SendSlaveNotAvailable says that it is stored, and that there is no slave.
	SendSlaveNotAvailable
)

// String is Java's name.
func (s SendStatus) String() string {
	switch s {
	case SendOK:
		return "SEND_OK"
	case SendFlushDiskTimeout:
		return "FLUSH_DISK_TIMEOUT"
	case SendFlushSlaveTimeout:
		return "FLUSH_SLAVE_TIMEOUT"
	case SendSlaveNotAvailable:
		return "SLAVE_NOT_AVAILABLE"
	}
	return fmt.Sprintf("SendStatus(%d)", int(s))
}

// SendResult tells where a message is.
type SendResult struct {
	Status SendStatus
	// ID is the unique key that the client gave the message; of a batch all of them, joined with commas.
	ID string
	// OffsetID is the broker's id; of a batch all of them, joined with commas.
	OffsetID    string
	Queue       MessageQueue
	QueueOffset int64 // of the first message
	Region      string
}

// NewProducer makes a producer of a group. Its name matters to transactions and to statistics only.
func (c *Client) NewProducer(o ProducerOptions) (*Producer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("producer options: %w", err)
	}
	p := &Producer{c: c, opt: o, slots: make(chan struct{}, o.MaxInFlight), ended: make(chan *asyncEnd, o.MaxInFlight), used: map[string]bool{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if _, ok := c.producers[o.Group]; ok {
		return nil, fmt.Errorf("producer group %s: %w", o.Group, ErrGroupInUse)
	}
	p.group = run.New(context.Background(), "producer "+o.Group)
	p.group.Go("callbacks", p.callbacks)
	c.producers[o.Group] = p
	return p, nil
}

// Close waits until asynchronous sends have ended, or until ctx does and then gives them up, and tells
// the brokers. Closing twice does nothing.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	stop := context.AfterFunc(ctx, p.group.Cancel)
	defer stop()
	p.live.Wait()
	close(p.ended)
	err := p.group.Wait()
	p.c.mu.Lock()
	delete(p.c.producers, p.opt.Group)
	p.c.mu.Unlock()
	p.c.unregister(ctx, p.opt.Group, "")
	return err
}

// Queues are the queues of a topic that take messages.
func (p *Producer) Queues(ctx context.Context, topic string) ([]MessageQueue, error) {
	r, err := p.c.publishRoute(ctx, topic, p.opt.NewTopicQueues)
	if err != nil {
		return nil, err
	}
	return slices.Clone(r.publish), nil
}

// Send stores m with a broker and returns when it has answered.
//
// Errors: [*LimitError], [ErrNoRoute], a [*protocol.RemoteError] of the last broker that refused; none
// of them leaves the message stored. [*UnknownOutcomeError] if it may be, with a result if the broker
// told where.
func (p *Producer) Send(ctx context.Context, m *Message, opts ...SendOption) (*SendResult, error) {
	s, err := p.prepare(m, opts)
	if err != nil {
		return nil, err
	}
	return p.run(ctx, s)
}

// SendBatch stores several messages of one topic in one queue, all or none, in their order. They bear no
// delay level. Errors as of [Producer.Send].
func (p *Producer) SendBatch(ctx context.Context, msgs []*Message, opts ...SendOption) (*SendResult, error) {
	s, err := p.prepareBatch(msgs, opts)
	if err != nil {
		return nil, err
	}
	return p.run(ctx, s)
}

// SendOneway hands m to a connection and does not hear what became of it.
func (p *Producer) SendOneway(ctx context.Context, m *Message, opts ...SendOption) error {
	s, err := p.prepare(m, opts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.opt.Timeout)
	defer cancel()
	q, err := p.choose(ctx, s)
	if err != nil {
		return err
	}
	addr, err := p.c.masterOf(ctx, q.BrokerName)
	if err != nil {
		return err
	}
	req := p.request(s, q)
	req.MarkOneway()
	if err := p.c.rpc.Oneway(ctx, addr, req); err != nil {
		return fmt.Errorf("send to %s: %w", addr, err)
	}
	return nil
}

func (p *Producer) topics() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.used))
}

// sending is one send: what is to be stored and what has been tried.
type sending struct {
	plan     sendPlan
	msg      *Message // the first, of a batch
	batch    bool
	id       string
	body     []byte
	props    []byte
	sysFlag  int32
	attempts int

	last    MessageQueue // of the attempt before
	unknown error        // an attempt whose outcome is not known
	broken  string       // address of a connection that ended before its answer came
}

func (p *Producer) prepare(m *Message, opts []SendOption) (*sending, error) {
	if err := m.check(p.opt.MaxMessageBytes); err != nil {
		return nil, err
	}
	s := &sending{msg: m, id: p.c.keys.next(time.Now()), body: m.Body}
	var err error
	if s.props, err = m.encodeProperties(s.id); err != nil {
		return nil, err
	}
	if p.opt.CompressBytes >= 0 && len(m.Body) >= p.opt.CompressBytes {
		packed, err := protocol.Compress(nil, m.Body, p.opt.Compression)
		if err != nil {
			return nil, fmt.Errorf("compress a body of %d bytes: %w", len(m.Body), err)
		}
		if len(packed) < len(m.Body) {
			s.body, s.sysFlag = packed, p.opt.Compression.SysFlag(0)
		}
	}
	return p.planned(s, opts)
}

func (p *Producer) prepareBatch(msgs []*Message, opts []SendOption) (*sending, error) {
	if len(msgs) == 0 {
		return nil, &LimitError{"batch", "is empty", "give it a message"}
	}
	s := &sending{msg: msgs[0], batch: true}
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		switch {
		case m.Topic != msgs[0].Topic:
			return nil, &LimitError{"batch", fmt.Sprintf("has topics %s and %s", msgs[0].Topic, m.Topic), "make a batch for each topic"}
		case m.NoWait != msgs[0].NoWait:
			return nil, &LimitError{"batch", "waits for slaves for some messages only", "set NoWait for all or none"}
		case m.DelayLevel > 0:
			return nil, &LimitError{"batch", "has a delayed message", "send that one alone"}
		case strings.HasPrefix(m.Topic, retryPrefix):
			return nil, &LimitError{"batch", "is for a retry topic", "send those messages one by one"}
		}
		if err := m.check(p.opt.MaxMessageBytes); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		ids[i] = p.c.keys.next(time.Now())
		props, err := m.encodeProperties(ids[i])
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		if s.body, err = message.AppendBatchItem(s.body, m.Flag, m.Body, props); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
	}
	if len(s.body) > p.opt.MaxMessageBytes {
		return nil, &LimitError{"batch", fmt.Sprintf("takes %d bytes, more than the limit of %d", len(s.body), p.opt.MaxMessageBytes), "split it"}
	}
	s.id = strings.Join(ids, ",")
	if msgs[0].NoWait {
		s.props = message.AppendProperty(s.props, message.PropWait, "false")
	}
	return p.planned(s, opts)
}

func (p *Producer) planned(s *sending, opts []SendOption) (*sending, error) {
	for _, o := range opts {
		o(&s.plan)
	}
	s.attempts = 1
	if s.plan.selector == nil && !s.batch {
		s.attempts += max(p.opt.Retries, 0)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	p.used[s.msg.Topic] = true
	return s, nil
}

// run makes the attempts of a send.
func (p *Producer) run(ctx context.Context, s *sending) (*SendResult, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opt.Timeout)
	defer cancel()
	for {
		res, err := p.attempt(ctx, s)
		if again := p.judge(s, err); !again || ctx.Err() != nil {
			return p.verdict(s, res, err)
		}
	}
}

// attempt sends once, following the hints of a broker that is no longer the leader, and waiting for a group to elect one
// as long as nothing has been sent.
func (p *Producer) attempt(ctx context.Context, s *sending) (*SendResult, error) {
	s.attempts--
	q, err := p.choose(ctx, s)
	if err != nil {
		return nil, err
	}
	s.last = q
	ctx, cancel := context.WithTimeout(ctx, p.opt.AttemptTimeout)
	defer cancel()
	await := 0
	wait := func(tried string, dead bool) bool {
		await++
		return p.c.awaitLeader(ctx, s.msg.Topic, q.BrokerName, tried, dead, await-1)
	}
	for hint := 0; ; hint++ {
		if p.c.routes.master(q.BrokerName) == "" && wait("", true) {
			continue // many senders wait, one asks
		}
		addr, err := p.c.masterOf(ctx, q.BrokerName)
		if err != nil {
			return nil, err
		}
		if addr == s.broken {
			// A process that dies lets go of its listener last: an attempt there would be lost as well.
			s.broken = ""
			if wait(addr, false) {
				continue
			}
		}
		began := time.Now()
		// Nothing was sent if it fails here; behind it a broken connection leaves the outcome open.
		if _, err := p.c.conn(ctx, addr); err != nil {
			p.note(q.BrokerName, failureLatency)
			if wait(addr, true) {
				continue
			}
			return nil, fmt.Errorf("send to %s: %w", addr, err)
		}
		owed := p.c.owe(q.BrokerName, addr)
		resp, err := p.c.rpc.Call(ctx, addr, p.request(s, q))
		owed.paid()
		res, err := p.answer(s, q, addr, resp, err, time.Since(began))
		if err == nil {
			return res, err
		}
		if saysUnknown(err) {
			p.c.followHint(q.BrokerName, addr, resp) // for the next attempt
			return res, err
		}
		if hint < maxLeaderHints && p.c.followHint(q.BrokerName, addr, resp) {
			continue
		}
		if resp == nil || resp.Code != int32(protocol.ResponseServiceNotAvailable) || !wait(addr, false) {
			return res, err
		}
	}
}

// answer makes a result of what a broker answered, or of why it did not.
func (p *Producer) answer(s *sending, q MessageQueue, addr string, resp *protocol.Command, err error, took time.Duration) (*SendResult, error) {
	if err != nil {
		p.note(q.BrokerName, failureLatency)
		if errors.Is(err, remoting.ErrBusy) {
			return nil, fmt.Errorf("send to %s: %w", addr, err)
		}
		s.broken = addr
		return nil, &UnknownOutcomeError{"send", addr, err}
	}
	p.note(q.BrokerName, took)
	status, stored := statusOf(protocol.ResponseCode(resp.Code))
	if err := resp.Err(); !stored {
		if saysUnknown(err) {
			return nil, &UnknownOutcomeError{"send", addr, err}
		}
		return nil, fmt.Errorf("send to %s: %w", addr, err)
	}
	var h protocol.SendResponse
	if err := protocol.ParseSendResponse(resp, &h); err != nil {
		return nil, &UnknownOutcomeError{"send", addr, err}
	}
	q.QueueID = h.QueueID
	res := &SendResult{Status: status, ID: s.id, OffsetID: string(h.MsgID), Queue: q, QueueOffset: h.QueueOffset, Region: string(h.Region)}
	if status != SendOK {
		return res, &UnknownOutcomeError{"send", addr, resp.Err()}
	}
	return res, nil
}

func statusOf(code protocol.ResponseCode) (s SendStatus, stored bool) {
	switch code {
	case protocol.ResponseSuccess:
		return SendOK, true
	case protocol.ResponseFlushDiskTimeout:
		return SendFlushDiskTimeout, true
	case protocol.ResponseFlushSlaveTimeout:
		return SendFlushSlaveTimeout, true
	case protocol.ResponseSlaveNotAvailable:
		return SendSlaveNotAvailable, true
	}
	return 0, false
}

// judge notes what an attempt showed and reports whether there is to be another.
func (p *Producer) judge(s *sending, err error) (again bool) {
	if err == nil {
		return false
	}
	var u *UnknownOutcomeError
	if errors.As(err, &u) {
		if s.unknown == nil {
			s.unknown = err
		}
		if code, ok := CodeOf(err); ok {
			if _, stored := statusOf(code); stored && !p.opt.RetryNotStored {
				return false
			}
		}
	}
	return s.attempts > 0 && retryable(err)
}

// retryable reports whether another broker may do better (DefaultMQProducer.retryResponseCodes).
func retryable(err error) bool {
	code, answered := CodeOf(err)
	if !answered {
		return !errors.Is(err, ErrNoRoute) && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed)
	}
	switch code {
	case protocol.ResponseSystemError, protocol.ResponseSystemBusy, protocol.ResponseServiceNotAvailable, protocol.ResponseNoPermission,
		protocol.ResponseTopicNotExist, protocol.ResponseNoBuyerID, protocol.ResponseNotInCurrentUnit, protocol.ResponseGoAway,
		protocol.ResponseFlushDiskTimeout, protocol.ResponseFlushSlaveTimeout, protocol.ResponseSlaveNotAvailable:
		return true
	}
	return false
}

// verdict is what a send returns: a refusal does not undo an earlier attempt that may have been stored.
func (p *Producer) verdict(s *sending, res *SendResult, err error) (*SendResult, error) {
	var u *UnknownOutcomeError
	if err != nil && s.unknown != nil && !errors.As(err, &u) {
		return nil, fmt.Errorf("%w; the attempt after it: %w", s.unknown, err)
	}
	return res, err
}

// choose picks the queue of the next attempt.
func (p *Producer) choose(ctx context.Context, s *sending) (MessageQueue, error) {
	r, err := p.c.publishRoute(ctx, s.msg.Topic, p.opt.NewTopicQueues)
	if err != nil {
		return MessageQueue{}, err
	}
	if s.plan.selector == nil {
		now := time.Now()
		return r.inTurn(s.last.BrokerName, func(broker string) bool { return !p.opt.AvoidSlow || p.faults.usable(broker, now) }), nil
	}
	q, err := s.plan.selector(r.publish, s.msg)
	if err != nil {
		return q, fmt.Errorf("queue of topic %s: %w", s.msg.Topic, err)
	}
	return q, nil
}

func (p *Producer) note(brokerName string, latency time.Duration) {
	if p.opt.AvoidSlow {
		p.faults.note(brokerName, latency, time.Now())
	}
}

// header is that of a send to q.
func (p *Producer) header(s *sending, q MessageQueue) *protocol.SendHeader {
	return &protocol.SendHeader{
		ProducerGroup: []byte(p.opt.Group), Topic: []byte(s.msg.Topic), DefaultTopic: []byte(defaultTopic), DefaultTopicQueueNums: int32(p.opt.NewTopicQueues),
		QueueID: q.QueueID, SysFlag: s.sysFlag, BornMillis: time.Now().UnixMilli(), Flag: s.msg.Flag, Properties: s.props, Batch: s.batch,
	}
}

func (p *Producer) request(s *sending, q MessageQueue) *protocol.Command {
	return p.c.sendRequest(p.header(s, q), s.body)
}

// sendRequest is a send as a command: codes 310 and 320, which every broker since 3.2 takes.
func (c *Client) sendRequest(h *protocol.SendHeader, body []byte) *protocol.Command {
	code := protocol.RequestSendMessageV2
	if h.Batch {
		code = protocol.RequestSendBatchMessage
	}
	req := protocol.NewRequest(code)
	req.Serialize = c.opt.Serialize
	req.AddBytes("a", h.ProducerGroup)
	req.AddBytes("b", h.Topic)
	req.AddBytes("c", h.DefaultTopic)
	req.AddInt("d", int64(h.DefaultTopicQueueNums))
	req.AddInt("e", int64(h.QueueID))
	req.AddInt("f", int64(h.SysFlag))
	req.AddInt("g", h.BornMillis)
	req.AddInt("h", int64(h.Flag))
	req.AddBytes("i", h.Properties)
	req.AddInt("j", int64(h.ReconsumeTimes))
	req.AddBool("k", h.UnitMode)
	if h.HasMaxReconsume {
		req.AddInt("l", int64(h.MaxReconsumeTimes))
	}
	req.AddBool("m", h.Batch)
	req.Body = body
	return req
}
