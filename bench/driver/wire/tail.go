package wire

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// tail is the group of consumers that follow the queues while messages are sent: each connection has its share of the
// queues and one pull that the broker holds for each of them.
type tail struct {
	conns    []*remoting.Conn
	consumed atomic.Int64
	failed   atomic.Pointer[error]
	stopped  atomic.Bool
}

const (
	tailSuspend = 15 * time.Second // as a stock push consumer asks
	tailCount   = 32
	tailBytes   = 256 << 10
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
	t := &tail{}
	s.tail = t
	for i := range s.cell.Cell.Consumers {
		conn, err := s.client.Dial(ctx, s.cluster.brokers[i%len(s.cluster.brokers)])
		if err != nil {
			return err
		}
		t.conns = append(t.conns, conn)
	}
	if len(s.cluster.brokers) > s.cell.Cell.Consumers {
		return fmt.Errorf("--consumers=%d is fewer than the %d brokers: use as many or more", s.cell.Cell.Consumers, len(s.cluster.brokers))
	}
	takes := make([]func([]byte), len(t.conns))
	for i := range takes {
		takes[i] = s.cell.Consumer()
	}
	turn := 0
	for _, topic := range s.cell.Topics {
		for q := range s.cell.Cell.Queues {
			for b := range s.cluster.brokers {
				// The connections of broker b are b, b+brokers, …
				own := (len(t.conns) - b + len(s.cluster.brokers) - 1) / len(s.cluster.brokers)
				i := b + turn%own*len(s.cluster.brokers)
				f := &follower{t: t, conn: t.conns[i], take: takes[i], head: pullHead(topic, int32(q))}
				f.head.SysFlag = protocol.PullSubscription | protocol.PullSuspend
				f.head.MaxMsgNums, f.head.MaxMsgBytes, f.head.SuspendMillis = tailCount, tailBytes, tailSuspend.Milliseconds()
				f.call = remoting.Call{Build: f.build, Done: f.done, Timeout: 2 * tailSuspend}
				if err := f.conn.Start(&f.call); err != nil {
					return err
				}
			}
			turn++
		}
	}
	return nil
}

// follower follows one queue.
type follower struct {
	t    *tail
	conn *remoting.Conn
	take func(body []byte)
	head protocol.PullHeader
	call remoting.Call
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
	if err == nil && call.Response.Code == int32(protocol.ResponseSuccess) {
		var m message.Record
		for b := call.Response.Body; len(b) > 0 && err == nil; b = b[m.Size:] {
			if err = message.ParseRecord(b, &m); err == nil {
				f.take(m.Body)
				f.t.consumed.Add(1)
			}
		}
	}
	if err == nil {
		f.head.QueueOffset = p.NextBeginOffset
		err = f.conn.Start(call)
	}
	if err != nil && !f.t.stopped.Load() {
		err = fmt.Errorf("consumer of %s/%d: %w", f.head.Topic, f.head.QueueID, err)
		f.t.failed.CompareAndSwap(nil, &err)
	}
}

// caughtUp returns when n messages have been consumed. Without consumers at once.
func (t *tail) caughtUp(ctx context.Context, n int64) error {
	if t == nil {
		return nil
	}
	for end := time.Now().Add(openTimeout); t.consumed.Load() < n; {
		if err := t.failed.Load(); err != nil {
			return *err
		}
		if time.Now().After(end) {
			return fmt.Errorf("consumers have %d of %d messages after %v", t.consumed.Load(), n, openTimeout)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// stop ends the consumers. nil is allowed, and a second call.
func (t *tail) stop() {
	if t == nil || t.stopped.Swap(true) {
		return
	}
	for _, c := range t.conns {
		_ = c.Close() // nothing is owed to it
	}
}
