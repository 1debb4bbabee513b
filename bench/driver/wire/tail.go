package wire

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// tail is the group of consumers that follow the queues while messages are sent: each connection has its share of the
// queues and one pull that the broker holds for each of them. Where another node may take over, the goroutine "moves" takes
// the pulls there.
type tail struct {
	s         *session
	followers []*follower
	consumed  atomic.Int64
	failed    atomic.Pointer[error]
	stopped   atomic.Bool
	g         *run.Group    // nil where nobody takes over
	wake      chan struct{} // of moves
	conns     []*remoting.Conn

	mu       sync.Mutex
	stranded []*follower // whose pull has failed
}

const (
	tailSuspend = 15 * time.Second // as a stock push consumer asks
	tailCount   = 32
	tailBytes   = 256 << 10
	tailRetry   = 10 * time.Millisecond
)

var consumerGroup = []byte("rmqbench-tail")

// pullHead is the header of a pull from the beginning of a queue.
func pullHead(topic string, queue int32) protocol.PullHeader {
	return protocol.PullHeader{
		ConsumerGroup: consumerGroup, Topic: []byte(topic), QueueID: queue, Subscription: []byte("*"), RequestSource: -1,
	}
}

// startTail begins to follow all queues, from where they end now.
func (s *session) startTail(ctx context.Context) error {
	t := &tail{s: s, wake: make(chan struct{}, 1)}
	s.tail = t
	lanes := make([]*lane, s.cell.Cell.Consumers)
	for i := range lanes {
		conn, err := s.client.Dial(ctx, s.broker(i))
		if err != nil {
			return err
		}
		t.conns = append(t.conns, conn)
		lanes[i] = &lane{number: i, take: s.cell.Consumer()}
	}
	if len(s.cluster.brokers) > len(lanes) {
		return fmt.Errorf("--consumers=%d is fewer than the %d brokers: use as many or more", len(lanes), len(s.cluster.brokers))
	}
	if s.follows() {
		t.g = run.New(s.ctx, "wire/tail")
	}
	turn := 0
	for _, topic := range s.cell.Topics {
		for q := range s.cell.Cell.Queues {
			for b := range s.cluster.brokers {
				// The connections of broker b are b, b+brokers, …
				own := (len(lanes) - b + len(s.cluster.brokers) - 1) / len(s.cluster.brokers)
				f := &follower{t: t, lane: lanes[b+turn%own*len(s.cluster.brokers)], head: pullHead(topic, int32(q)), route: s.lead.route.Load()}
				f.conn = t.conns[f.lane.number]
				f.head.SysFlag = protocol.PullSubscription | protocol.PullSuspend
				f.head.MaxMsgNums, f.head.MaxMsgBytes, f.head.SuspendMillis = tailCount, tailBytes, tailSuspend.Milliseconds()
				f.call = remoting.Call{Build: f.build, Done: f.done, Timeout: 2 * tailSuspend}
				t.followers = append(t.followers, f)
			}
			turn++
		}
	}
	for _, f := range t.followers {
		if err := f.conn.Start(&f.call); err != nil {
			return err
		}
	}
	if t.g != nil {
		t.g.Go("moves", t.moves)
	}
	return nil
}

// lane is what the followers on one connection share.
type lane struct {
	number int
	mu     sync.Mutex // while a connection takes the place of another, both may have answers
	take   func(body []byte)
}

// follower follows one queue.
type follower struct {
	t     *tail
	lane  *lane
	conn  *remoting.Conn
	route int64               // that its pull took
	head  protocol.PullHeader // QueueOffset changes under lane.mu
	call  remoting.Call
}

func (f *follower) build(dst []byte, opaque int32) []byte {
	return protocol.AppendPullRequest(dst, protocol.RequestPullMessage, opaque, protocol.JSON, &f.head)
}

// done takes what has come and asks for more.
func (f *follower) done(call *remoting.Call) {
	if f.t.stopped.Load() {
		return
	}
	err := call.Err
	var p protocol.PullResponse
	if err == nil {
		if err = protocol.ParsePullResponse(call.Response, &p); err != nil {
			err = fmt.Errorf("%w (%w)", call.Response.Err(), err)
		}
	}
	if err == nil {
		if err := f.takeAll(call.Response, p.NextBeginOffset); err != nil {
			f.t.fail(f, err)
			return
		}
		err = f.conn.Start(call)
	}
	if err == nil || f.t.stopped.Load() {
		return
	}
	if f.t.g == nil {
		f.t.fail(f, err)
		return
	}
	f.t.s.lead.lose(f.route)
	f.t.strand(f)
}

// takeAll books the messages of an answer; the next pull is to begin at next.
func (f *follower) takeAll(resp *protocol.Command, next int64) error {
	f.lane.mu.Lock()
	defer f.lane.mu.Unlock()
	if resp.Code == int32(protocol.ResponseSuccess) {
		var m message.Record
		for b := resp.Body; len(b) > 0; b = b[m.Size:] {
			if err := message.ParseRecord(b, &m); err != nil {
				return err
			}
			f.lane.take(m.Body)
			f.t.consumed.Add(1)
		}
	}
	f.head.QueueOffset = next
	return nil
}

func (f *follower) at() int64 {
	f.lane.mu.Lock()
	defer f.lane.mu.Unlock()
	return f.head.QueueOffset
}

// fail books what ends the consumers.
func (t *tail) fail(f *follower, err error) {
	err = fmt.Errorf("consumer of %s/%d: %w", f.head.Topic, f.head.QueueID, err)
	t.failed.CompareAndSwap(nil, &err)
}

// strand leaves a follower to moves.
func (t *tail) strand(f *follower) {
	t.mu.Lock()
	t.stranded = append(t.stranded, f)
	t.mu.Unlock()
	t.moved()
}

// moved says that another node may lead by now. nil is allowed.
func (t *tail) moved() {
	if t == nil {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// moves takes the followers to whoever leads.
func (t *tail) moves(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		if !t.move(ctx) {
			t.moved() // try again
		}
		_ = pause(ctx, tailRetry) // where it is cut short, that is seen above
	}
}

// move connects the consumers with whoever leads and has those pull that are stranded. What the connections before held is
// stranded by their end, and has its turn next.
func (t *tail) move(ctx context.Context) bool {
	addr, route, err := t.s.leader(ctx)
	if err != nil {
		return false
	}
	conns, err := t.s.redial(ctx, addr, t.conns)
	if err != nil {
		t.s.lead.lose(route)
		return false
	}
	if old := t.conns; old[0] != conns[0] {
		closeConns(old)
	}
	t.conns = conns
	t.mu.Lock()
	stranded := t.stranded
	t.stranded = nil
	t.mu.Unlock()
	for _, f := range stranded {
		f.conn, f.route = conns[f.lane.number], route
		if f.conn.Start(&f.call) != nil {
			t.s.lead.lose(route)
			t.strand(f)
		}
	}
	return true
}

// caughtUp returns when n messages have been consumed. Without consumers at once.
func (t *tail) caughtUp(ctx context.Context, n int64) error {
	if t == nil {
		return nil
	}
	err := t.await(ctx, func() (bool, string) {
		have := t.consumed.Load()
		return have >= n, fmt.Sprintf("consumers have %d of %d messages", have, n)
	})
	if err != nil || t.s.lead.route.Load() <= 1 {
		return err
	}
	// Somebody else has led: among them may be some that were stored and not acknowledged.
	addr, _, err := t.s.leader(ctx)
	for i := 0; err == nil && i < len(t.followers); i++ {
		f := t.followers[i]
		var end int64
		if end, err = QueueEnd(ctx, t.s.client, addr, string(f.head.Topic), f.head.QueueID); err == nil {
			err = t.await(ctx, func() (bool, string) {
				at := f.at()
				return at >= end, fmt.Sprintf("the consumer of %s/%d is at offset %d of %d", f.head.Topic, f.head.QueueID, at, end)
			})
		}
	}
	return err
}

// await asks until something is so, at most openTimeout.
func (t *tail) await(ctx context.Context, ask func() (ok bool, why string)) error {
	for end := time.Now().Add(openTimeout); ; {
		ok, why := ask()
		if ok {
			return nil
		}
		if err := t.failed.Load(); err != nil {
			return *err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s after %v", why, openTimeout)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// QueueEnd is the offset behind the last message of a queue.
func QueueEnd(ctx context.Context, client *remoting.Client, addr, topic string, queue int32) (int64, error) {
	req := protocol.NewRequest(protocol.RequestGetMaxOffset)
	protocol.EncodeExt(req, protocol.QueueHeader{Topic: topic, QueueID: queue})
	resp, err := client.Call(ctx, addr, req)
	if err == nil {
		err = resp.Err()
	}
	var h protocol.OffsetResponse
	if err == nil {
		err = protocol.DecodeExt(resp, &h)
	}
	if err != nil {
		return 0, fmt.Errorf("end of %s/%d at %s: %w", topic, queue, addr, err)
	}
	return h.Offset, nil
}

// stop ends the consumers. nil is allowed, and a second call.
func (t *tail) stop() {
	if t == nil || t.stopped.Swap(true) {
		return
	}
	if t.g != nil {
		t.g.Cancel()
		_ = t.g.Wait() // it does not fail
	}
	closeConns(t.conns)
}
