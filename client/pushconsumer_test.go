package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

// sink is a handler that keeps what it gets.
type sink struct {
	mu   sync.Mutex
	got  []*MessageExt
	more chan struct{}
	// verdict decides; nil consumes everything.
	verdict func(m *MessageExt) error
}

func newSink(verdict func(m *MessageExt) error) *sink {
	return &sink{more: make(chan struct{}, 1), verdict: verdict}
}

func (s *sink) handle(_ context.Context, msgs []*MessageExt) error {
	s.mu.Lock()
	s.got = append(s.got, msgs...)
	s.mu.Unlock()
	signal(s.more)
	if s.verdict == nil {
		return nil
	}
	for _, m := range msgs {
		if err := s.verdict(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *sink) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.got {
		out = append(out, string(m.Body))
	}
	return out
}

// wait returns the bodies once there are n of them.
func (s *sink) wait(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if got := s.bodies(); len(got) >= n {
			return got
		}
		select {
		case <-s.more:
		case <-deadline:
			require.FailNow(t, "messages missing", "have %d of %d: %v", len(s.bodies()), n, s.bodies())
		}
	}
}

func startConsumer(t *testing.T, c *Client, topic string, e Expression, h Handler, change ...func(*PushConsumerOptions)) *PushConsumer {
	t.Helper()
	o := PushConsumerOptions{
		Group: "consumers", Handler: h, From: FromFirst, RebalanceInterval: 100 * time.Millisecond, CommitInterval: 20 * time.Millisecond, ErrorDelay: 50 * time.Millisecond,
		LockInterval: 100 * time.Millisecond, OffsetDir: t.TempDir(),
	}
	for _, f := range change {
		f(&o)
	}
	p, err := c.NewPushConsumer(o)
	require.NoError(t, err)
	require.NoError(t, p.Subscribe(topic, e))
	require.NoError(t, p.Start(t.Context()))
	return p
}

func sendAll(t *testing.T, p *Producer, topic string, from, to int, opts ...SendOption) (want []string) {
	t.Helper()
	for i := from; i < to; i++ {
		body := fmt.Sprintf("m%03d", i)
		want = append(want, body)
		_, err := p.Send(t.Context(), text(topic, body), opts...)
		require.NoError(t, err)
	}
	return want
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// Proves that everything sent before and after the start arrives once, that offsets are committed, and that a successor
// goes on where its predecessor stopped.
func TestPushConcurrent(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 3)
	prod := newProducer(t, c.client())
	want := sendAll(t, prod, "T", 0, 50)
	s := newSink(nil)
	p := startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.BatchSize = 4 })
	s.wait(t, 50)
	want = append(want, sendAll(t, prod, "T", 50, 80)...)
	require.Equal(t, want, sorted(s.wait(t, 80)))
	require.ErrorIs(t, p.Start(t.Context()), ErrStarted)
	require.Eventually(t, func() bool { return len(p.Assigned()) == 6+2 }, 10*time.Second, time.Millisecond, "two retry queues beside those of the topic")
	require.NoError(t, p.Close(t.Context()))
	var committed int64
	for _, name := range []string{"broker-a", "broker-b"} {
		for i := range 3 {
			committed += c.broker(name).committed("consumers", MessageQueue{Topic: "T", BrokerName: name, QueueID: int32(i)})
		}
	}
	require.EqualValues(t, 80, committed)
	require.Empty(t, c.broker("broker-a").members["consumers"], "the group is left")
	more := sendAll(t, prod, "T", 80, 90)
	s2 := newSink(nil)
	startConsumer(t, c.client(), "T", Expression{}, s2.handle)
	require.Equal(t, more, sorted(s2.wait(t, 10)))
}

// Proves that the client drops what brokers let through because two tags have one hash, and that offsets pass over what
// nobody wants.
func TestPushFiltersTags(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	require.Equal(t, message.TagHash([]byte("Aa")), message.TagHash([]byte("BB")))
	for i, tag := range []string{"Aa", "BB", "x", "", "Aa", "x"} {
		_, err := prod.Send(t.Context(), &Message{Topic: "T", Body: fmt.Appendf(nil, "m%d", i), Tags: tag})
		require.NoError(t, err)
	}
	s := newSink(nil)
	startConsumer(t, c.client(), "T", Tags("Aa", "y"), s.handle)
	require.Equal(t, []string{"m0", "m4"}, sorted(s.wait(t, 2)))
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	require.Eventually(t, func() bool { return c.broker("broker-a").committed("consumers", q) == 6 }, 10*time.Second, time.Millisecond)
	require.Equal(t, []string{"m0", "m4"}, sorted(s.bodies()))
}

// Proves where a group without offsets begins.
func TestPushConsumeFrom(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	sendAll(t, prod, "T", 0, 3)
	stored := c.broker("broker-a").all("T")
	for _, from := range []ConsumeFrom{FromFirst, FromTime, FromLast} {
		s := newSink(nil)
		p := startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) {
			o.Group, o.From, o.Since = from.String(), from, stored[0].StoreTime
		})
		if from != FromLast {
			require.Len(t, s.wait(t, 3), 3)
			continue
		}
		q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
		require.Eventually(t, func() bool { return slices.Contains(p.Assigned(), q) }, 10*time.Second, time.Millisecond)
		sendAll(t, prod, "T", 3, 4)
		require.Equal(t, []string{"m003"}, s.wait(t, 1))
	}
}

// Proves that a message whose handler fails or panics comes again under its own topic, counted, and goes to the dead letters
// when it has come too often.
func TestPushRetriesAndDeadLetters(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	var calls atomic.Int32
	s := newSink(func(m *MessageExt) error {
		if string(m.Body) != "bad" {
			return nil
		}
		if calls.Add(1) == 2 {
			panic("at the disco")
		}
		return errors.New("cannot")
	})
	startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.MaxReconsumeTimes = 2 })
	prod := newProducer(t, c.client())
	res, err := prod.Send(t.Context(), text("T", "bad"))
	require.NoError(t, err)
	_, err = prod.Send(t.Context(), text("T", "good"))
	require.NoError(t, err)
	require.Equal(t, []string{"bad", "bad", "bad", "good"}, sorted(s.wait(t, 4)))
	times := map[int]bool{}
	s.mu.Lock()
	for _, m := range s.got {
		require.Equal(t, "T", m.Topic)
		if string(m.Body) == "bad" {
			times[m.ReconsumeTimes] = true
			require.Equal(t, res.ID, m.ID())
		}
	}
	s.mu.Unlock()
	require.Equal(t, map[int]bool{0: true, 1: true, 2: true}, times)
	require.Eventually(t, func() bool { return len(c.broker("broker-a").all("%DLQ%consumers")) == 1 }, 10*time.Second, time.Millisecond)
	dead := c.broker("broker-a").all("%DLQ%consumers")[0]
	require.Equal(t, "T", dead.Property(propRetryTopic))
	require.Equal(t, res.OffsetID, dead.Property(propOriginID))
}

// Proves that a handler can take part of a batch, and can send a message to the dead letters at once.
func TestPushRetryError(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	sendAll(t, prod, "T", 0, 6)
	var mu sync.Mutex
	var batches [][]string
	h := func(_ context.Context, msgs []*MessageExt) error {
		mu.Lock()
		defer mu.Unlock()
		var b []string
		for _, m := range msgs {
			b = append(b, string(m.Body))
		}
		batches = append(batches, b)
		if len(batches) == 1 {
			return &RetryError{From: 4, DelayLevel: -1, Err: errors.New("poison")}
		}
		return nil
	}
	startConsumer(t, c.client(), "T", Expression{}, h, func(o *PushConsumerOptions) { o.BatchSize = 10 })
	require.Eventually(t, func() bool { return len(c.broker("broker-a").all("%DLQ%consumers")) == 2 }, 10*time.Second, time.Millisecond)
	var dead []string
	for _, m := range c.broker("broker-a").all("%DLQ%consumers") {
		dead = append(dead, string(m.Body))
	}
	require.Equal(t, []string{"m004", "m005"}, sorted(dead))
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	require.Eventually(t, func() bool { return c.broker("broker-a").committed("consumers", q) == 6 }, 10*time.Second, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, [][]string{{"m000", "m001", "m002", "m003", "m004", "m005"}}, batches)
}

// Proves that a message is sent to the retry topic by hand when the broker does not take it back, compressed as it is.
func TestPushResendsWhatIsNotTakenBack(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	b := c.broker("broker-a")
	b.setIntercept(func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) == protocol.RequestConsumerSendMsgBack {
			return protocol.NewResponse(req, protocol.ResponseSystemError, "no")
		}
		return nil
	})
	var calls atomic.Int32
	s := newSink(func(*MessageExt) error {
		if calls.Add(1) < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	startConsumer(t, c.client(), "T", Expression{}, s.handle)
	body := strings.Repeat("long", 2000)
	_, err := newProducer(t, c.client()).Send(t.Context(), &Message{Topic: "T", Body: []byte(body), Keys: []string{"k"}})
	require.NoError(t, err)
	require.Equal(t, []string{body, body, body}, s.wait(t, 3))
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.got[2]
	require.Equal(t, 2, last.ReconsumeTimes)
	require.Equal(t, []string{"k"}, last.Keys())
	require.Equal(t, "T", last.Topic)
	require.Equal(t, s.got[0].ID(), last.Property(propOriginID))
}

// Proves that members share the queues as Java's do, that everybody's share follows comers and goers, and that nothing is
// lost meanwhile.
func TestPushRebalance(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 4)
	s := newSink(nil)
	var members []*PushConsumer
	var clients []*Client
	own := func(p *PushConsumer) (out []MessageQueue) {
		for _, q := range p.Assigned() {
			if q.Topic == "T" {
				out = append(out, q)
			}
		}
		return out
	}
	settled := func() bool {
		var ids []string
		for _, cl := range clients {
			ids = append(ids, cl.ID())
		}
		slices.Sort(ids)
		all := queuesOf("T", map[string]int{"broker-a": 4, "broker-b": 4})
		for i, p := range members {
			if !slices.Equal(own(p), AllocateAveragely(clients[i].ID(), all, ids)) {
				return false
			}
		}
		return true
	}
	prod := newProducer(t, c.client())
	var want []string
	for i := range 3 {
		cl := c.client()
		clients = append(clients, cl)
		members = append(members, startConsumer(t, cl, "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.RebalanceInterval = time.Hour }))
		want = append(want, sendAll(t, prod, "T", 20*i, 20*(i+1))...)
		require.Eventually(t, settled, 20*time.Second, time.Millisecond, "%d members", i+1)
	}
	require.NoError(t, members[0].Close(t.Context()))
	members, clients = members[1:], clients[1:]
	want = append(want, sendAll(t, prod, "T", 60, 80)...)
	require.Eventually(t, settled, 20*time.Second, time.Millisecond, "after one has left")
	// One dies without a word: its connections close.
	c.kill(clients[0])
	members, clients = members[1:], clients[1:]
	want = append(want, sendAll(t, prod, "T", 80, 100)...)
	require.Eventually(t, settled, 20*time.Second, time.Millisecond, "after one has died")
	require.Eventually(t, func() bool {
		return slices.Equal(want, slices.Compact(sorted(s.bodies())))
	}, 20*time.Second, 10*time.Millisecond, "at least once each")
}

// Proves that a broker which comes up later, and queues that are added, are consumed too.
func TestPushFollowsRoutes(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	s := newSink(nil)
	startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.RebalanceInterval = time.Hour })
	prod := newProducer(t, c.client())
	c.createTopic("T", 1)
	sendAll(t, prod, "T", 0, 4)
	s.wait(t, 4)
	c.start("broker-b")
	c.createTopic("T", 2)
	require.Eventually(t, func() bool {
		r := prod.c.routes.get("T")
		return r != nil && len(r.publish) == 4
	}, 10*time.Second, time.Millisecond)
	sendAll(t, prod, "T", 4, 12)
	require.Len(t, s.wait(t, 12), 12)
}

// Proves that an ordered consumer sees each queue in order, waits for what fails, and gives up after as many attempts as it
// was told.
func TestPushOrdered(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 2)
	prod := newProducer(t, c.client())
	for i := range 2 {
		sendAll(t, prod, "T", 0, 20, ToQueue(MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: int32(i)}))
	}
	fails := map[string]int{"0/m003": 3, "1/m010": 100}
	var mu sync.Mutex
	var orders [2][]string
	h := func(_ context.Context, msgs []*MessageExt) error {
		mu.Lock()
		defer mu.Unlock()
		for i, m := range msgs {
			key := fmt.Sprintf("%d/%s", m.Queue.QueueID, m.Body)
			if fails[key] > 0 {
				fails[key]--
				return &RetryError{From: i, After: 10 * time.Millisecond, Err: errors.New("not yet")}
			}
			orders[m.Queue.QueueID] = append(orders[m.Queue.QueueID], string(m.Body))
		}
		return nil
	}
	startConsumer(t, c.client(), "T", Expression{}, h, func(o *PushConsumerOptions) { o.Ordered, o.MaxReconsumeTimes, o.BatchSize = true, 5, 3 })
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(orders[0]) == 20 && len(orders[1]) == 19
	}, 20*time.Second, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	require.True(t, slices.IsSorted(orders[0]), "%v", orders[0])
	require.True(t, slices.IsSorted(orders[1]), "%v", orders[1])
	require.NotContains(t, orders[1], "m010")
	require.Equal(t, 100-6, fails["1/m010"], "the first time and five more")
	require.Eventually(t, func() bool { return len(c.broker("broker-a").all("%DLQ%consumers")) == 1 }, 10*time.Second, time.Millisecond)
}

// Proves that no two members ever have one queue at the same time while members come and go, and that messages are
// consumed in order across the changes.
func TestPushOrderedLocks(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 4)
	var mu sync.Mutex
	busy := map[int32]string{}
	last := map[int32]int64{}
	var count int
	handler := func(id string) Handler {
		return func(_ context.Context, msgs []*MessageExt) error {
			q := msgs[0].Queue.QueueID
			mu.Lock()
			if busy[q] != "" {
				t.Errorf("%s and %s have queue %d", busy[q], id, q)
			}
			busy[q] = id
			mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			busy[q] = ""
			for _, m := range msgs {
				if m.QueueOffset > last[q] {
					t.Errorf("queue %d jumped from %d to %d", q, last[q], m.QueueOffset)
				}
				if m.QueueOffset == last[q] {
					last[q]++
					count++
				}
			}
			return nil
		}
	}
	prod := newProducer(t, c.client())
	var members []*PushConsumer
	for i := range 3 {
		members = append(members, startConsumer(t, c.client(), "T", Expression{}, handler(fmt.Sprint(i)), func(o *PushConsumerOptions) { o.Ordered = true }))
		sendAll(t, prod, "T", 40*i, 40*(i+1))
	}
	require.NoError(t, members[1].Close(t.Context()))
	sendAll(t, prod, "T", 120, 160)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count == 160
	}, 20*time.Second, time.Millisecond)
}

// Proves that every broadcast member gets everything, remembers its place in a file, and drops what fails.
func TestPushBroadcast(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 2)
	prod := newProducer(t, c.client())
	want := sendAll(t, prod, "T", 0, 10)
	dir := t.TempDir()
	broadcast := func(o *PushConsumerOptions) { o.Model, o.OffsetDir = Broadcasting, dir }
	named := func(name string) func(*Options) { return func(o *Options) { o.Instance = name } }
	s1, s2 := newSink(nil), newSink(func(*MessageExt) error { return errors.New("no") })
	p1 := startConsumer(t, c.client(named("one")), "T", Expression{}, s1.handle, broadcast)
	startConsumer(t, c.client(named("two")), "T", Expression{}, s2.handle, broadcast)
	require.Equal(t, want, sorted(s1.wait(t, 10)))
	require.Equal(t, want, sorted(s2.wait(t, 10)))
	require.Zero(t, c.broker("broker-a").count(protocol.RequestConsumerSendMsgBack))
	require.Zero(t, c.broker("broker-a").count(protocol.RequestUpdateConsumerOffset))
	require.NoError(t, p1.Close(t.Context()))
	more := sendAll(t, prod, "T", 10, 14)
	s3 := newSink(nil)
	startConsumer(t, c.client(named("one")), "T", Expression{}, s3.handle, broadcast)
	require.Equal(t, more, sorted(s3.wait(t, 4)))
}

// Proves that pulling pauses while handlers hold as much as is allowed, and goes on afterwards.
func TestPushFlowControl(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	want := sendAll(t, prod, "T", 0, 40)
	gate := make(chan struct{})
	s := newSink(func(*MessageExt) error { <-gate; return nil })
	p := startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.PullBatch, o.MaxCachedMessages, o.Concurrency = 2, 6, 3 })
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	s.wait(t, 3)
	require.Eventually(t, func() bool { return p.find(q).pq.held() == 6 }, 10*time.Second, time.Millisecond)
	close(gate)
	require.Equal(t, want, sorted(s.wait(t, 40)))
}

// Proves that a message which a handler keeps too long is sent back and does not hold up the offset for ever.
func TestPushConsumeTimeout(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	sendAll(t, newProducer(t, c.client()), "T", 0, 1)
	gate := make(chan struct{})
	var calls atomic.Int32
	s := newSink(func(*MessageExt) error {
		if calls.Add(1) == 1 {
			<-gate
		}
		return nil
	})
	startConsumer(t, c.client(), "T", Expression{}, s.handle, func(o *PushConsumerOptions) { o.ConsumeTimeout = 50 * time.Millisecond })
	require.Equal(t, []string{"m000", "m000"}, s.wait(t, 2))
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	require.Eventually(t, func() bool { return c.broker("broker-a").committed("consumers", q) == 1 }, 10*time.Second, time.Millisecond)
	close(gate)
}

// Proves that consumption goes on when a broker forgets its clients, as one does that restarts, and when offsets move away.
func TestPushSurvivesForgetfulBrokers(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	s := newSink(nil)
	startConsumer(t, c.client(), "T", Expression{}, s.handle)
	sendAll(t, prod, "T", 0, 3)
	s.wait(t, 3)
	b := c.broker("broker-a")
	b.mu.Lock()
	clear(b.members)
	b.mu.Unlock()
	sendAll(t, prod, "T", 3, 6)
	s.wait(t, 6)
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	require.Eventually(t, func() bool { return b.committed("consumers", q) == 6 }, 10*time.Second, time.Millisecond)
	// The queue loses its end: the consumer stands beyond it.
	b.mu.Lock()
	b.queues[q] = b.queues[q][:2]
	close(b.arrived)
	b.arrived = make(chan struct{})
	b.mu.Unlock()
	require.Eventually(t, func() bool { return b.committed("consumers", q) == 2 }, 10*time.Second, time.Millisecond)
	sendAll(t, prod, "T", 6, 8)
	require.Equal(t, []string{"m006", "m007"}, s.wait(t, 8)[6:])
}

// Proves that Close lets running handlers end, tells them when its patience is over, and that what had not begun is
// delivered to others.
func TestPushClose(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	prod := newProducer(t, c.client())
	want := sendAll(t, prod, "T", 0, 5)
	began := make(chan struct{}, 1)
	var told atomic.Bool
	p := startConsumer(t, c.client(), "T", Expression{}, func(ctx context.Context, _ []*MessageExt) error {
		signal(began)
		<-ctx.Done()
		told.Store(true)
		return nil
	}, func(o *PushConsumerOptions) { o.Concurrency = 1 })
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, p.Close(ctx))
	require.True(t, told.Load())
	require.NoError(t, p.Close(ctx))
	require.ErrorIs(t, p.Subscribe("U", Expression{}), ErrClosed)
	require.EqualValues(t, 1, c.broker("broker-a").committed("consumers", MessageQueue{Topic: "T", BrokerName: "broker-a"}))
	s := newSink(nil)
	startConsumer(t, c.client(), "T", Expression{}, s.handle)
	require.Equal(t, want[1:], sorted(s.wait(t, 4)))
}

// Proves that subscriptions can change while the consumer runs.
func TestPushResubscribe(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	c.createTopic("U", 1)
	prod := newProducer(t, c.client())
	s := newSink(nil)
	p := startConsumer(t, c.client(), "T", Tags("a"), s.handle)
	require.NoError(t, p.Subscribe("U", Expression{}))
	sendAll(t, prod, "U", 0, 2)
	s.wait(t, 2)
	require.NoError(t, p.Unsubscribe("U"))
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(p.Assigned(), func(q MessageQueue) bool { return q.Topic == "U" })
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, p.Subscribe("T", Tags("b")))
	require.Eventually(t, func() bool {
		h := p.find(MessageQueue{Topic: "T", BrokerName: "broker-a"})
		return h != nil && h.sub.data.SubString == "b"
	}, 10*time.Second, time.Millisecond)
	for _, tag := range []string{"a", "b"} {
		_, err := prod.Send(t.Context(), &Message{Topic: "T", Body: []byte(tag), Tags: tag})
		require.NoError(t, err)
	}
	require.Equal(t, "b", s.wait(t, 3)[2])
}

// Proves that a consumer refuses an expression that the broker cannot compile, and one group twice in a client.
func TestPushStartErrors(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	cl := c.client()
	o := PushConsumerOptions{Group: "g", Handler: newSink(nil).handle}
	p, err := cl.NewPushConsumer(o)
	require.NoError(t, err)
	require.NoError(t, p.Subscribe("T", SQL("a >")))
	err = p.Start(t.Context())
	require.ErrorContains(t, err, `subscription to T by "a >"`)
	require.NoError(t, p.Subscribe("T", Expression{}))
	require.NoError(t, p.Start(t.Context()), "it may be tried again")
	second, err := cl.NewPushConsumer(o)
	require.NoError(t, err)
	require.ErrorIs(t, second.Start(t.Context()), ErrGroupInUse)
	require.Equal(t, []string{"g"}, slices.Collect(maps.Keys(cl.consumers)))
}

// Proves that a group begins, reads and commits at a slave while a name has no master, both one that starts then and one
// that was there before.
func TestPushFromSlave(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 2)
	cl := c.client()
	p := newProducer(t, cl)
	for i := range 10 {
		_, err := p.Send(t.Context(), text("T", fmt.Sprint(i)))
		require.NoError(t, err)
	}
	before := newSink(nil)
	startConsumer(t, cl, "T", Tags(), before.handle, func(o *PushConsumerOptions) { o.Group = "before" })
	before.wait(t, 10)
	b := c.broker("broker-a")
	b.mu.Lock()
	b.slave = true
	b.mu.Unlock()
	require.Eventually(t, func() bool { return cl.routes.master("broker-a") == "" }, 20*time.Second, 5*time.Millisecond)
	late := newSink(nil)
	startConsumer(t, cl, "T", Tags(), late.handle, func(o *PushConsumerOptions) { o.Group = "late" })
	require.Len(t, late.wait(t, 10), 10)
	queues, err := cl.Admin().Queues(t.Context(), "T")
	require.NoError(t, err)
	require.Len(t, queues, 2)
	for _, q := range queues {
		require.Eventually(t, func() bool { return b.committed("late", q) == 5 && b.committed("before", q) == 5 }, 20*time.Second, 5*time.Millisecond)
		o, err := cl.CommittedOffset(t.Context(), "late", q)
		require.NoError(t, err)
		require.EqualValues(t, 5, o)
		require.NoError(t, cl.CommitOffset(t.Context(), "late", q, 3))
		_, err = cl.MaxOffset(t.Context(), q)
		require.ErrorIs(t, err, ErrNoBroker, "the end is the master's to say")
	}
}
