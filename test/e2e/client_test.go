package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// inbox is a handler that keeps what it gets.
type inbox struct {
	mu   sync.Mutex
	got  []*client.MessageExt
	fail func(m *client.MessageExt) error
}

func (b *inbox) handle(_ context.Context, msgs []*client.MessageExt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, msgs...)
	for _, m := range msgs {
		if b.fail != nil {
			if err := b.fail(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *inbox) bodies() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.got {
		out = append(out, string(m.Body))
	}
	return slices.Sorted(slices.Values(out))
}

const patience = 30 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

func (b *inbox) wants(t *testing.T, want []string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, "messages", func() bool { return slices.Equal(want, b.bodies()) })
}

func produce(t *testing.T, p *client.Producer, topic string, from, to int, opts ...client.SendOption) (want []string) {
	t.Helper()
	for i := from; i < to; i++ {
		body := fmt.Sprintf("m%04d", i)
		_, err := p.Send(t.Context(), &client.Message{Topic: topic, Body: []byte(body), Tags: fmt.Sprintf("t%d", i%2)}, opts...)
		require.NoError(t, err)
		want = append(want, body)
	}
	return want
}

func (c *cluster) producer() *client.Producer {
	c.t.Helper()
	p, err := c.client().NewProducer(client.ProducerOptions{Group: "producers"})
	require.NoError(c.t, err)
	return p
}

func (c *cluster) topic(name string, queues int32) {
	c.t.Helper()
	a := c.client().Admin()
	for _, n := range c.brokers {
		if !n.stopped {
			require.NoError(c.t, a.CreateTopic(c.t.Context(), n.addr(), protocol.NewTopicConfig(name, queues), ""))
		}
	}
	eventually(c.t, "route", func() bool {
		r, err := a.Route(c.t.Context(), name)
		return err == nil && len(r.BrokerDatas) == len(c.brokers)
	})
}

func (c *cluster) consumer(topic string, h client.Handler, change ...func(*client.PushConsumerOptions)) *client.PushConsumer {
	c.t.Helper()
	o := client.PushConsumerOptions{Group: "consumers", Handler: h, From: client.FromFirst, CommitInterval: 100 * time.Millisecond, OffsetDir: c.t.TempDir()}
	for _, f := range change {
		f(&o)
	}
	p, err := c.client().NewPushConsumer(o)
	require.NoError(c.t, err)
	require.NoError(c.t, p.Subscribe(topic, client.Expression{}))
	require.NoError(c.t, p.Start(c.t.Context()))
	return p
}

// Proves that every way of sending ends in the log, and that a consumer gets what was sent, whole.
func TestSendAndConsume(t *testing.T) {
	c := startCluster(t, "broker-a", "broker-b")
	p := c.producer()
	long := bytes.Repeat([]byte("compressible "), 1000)
	var want []string
	res, err := p.Send(t.Context(), &client.Message{Topic: "New", Body: []byte("first"), Keys: []string{"k"}, Properties: map[string]string{"colour": "blau ü"}})
	require.NoError(t, err, "the topic is made by the way")
	_, err = p.Send(t.Context(), &client.Message{Topic: "New", Body: long})
	require.NoError(t, err)
	want = append(want, "first", string(long))
	var batch []*client.Message
	for i := range 20 {
		batch = append(batch, &client.Message{Topic: "New", Body: fmt.Appendf(nil, "batch%02d", i)})
		want = append(want, fmt.Sprintf("batch%02d", i))
	}
	_, err = p.SendBatch(t.Context(), batch)
	require.NoError(t, err)
	require.NoError(t, p.SendOneway(t.Context(), &client.Message{Topic: "New", Body: []byte("oneway")}))
	want = append(want, "oneway")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		require.NoError(t, p.SendAsync(t.Context(), &client.Message{Topic: "New", Body: fmt.Appendf(nil, "async%03d", i)}, func(_ *client.SendResult, err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
		}))
		want = append(want, fmt.Sprintf("async%03d", i))
	}
	wg.Wait()
	began := time.Now()
	_, err = p.Send(t.Context(), &client.Message{Topic: "New", Body: []byte("later"), DelayLevel: 3})
	require.NoError(t, err)
	want = append(want, "later")
	in := &inbox{}
	c.consumer("New", in.handle)
	in.wants(t, want)
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range in.got {
		switch string(m.Body) {
		case "first":
			require.Equal(t, res.ID, m.ID())
			require.Equal(t, res.OffsetID, m.OffsetID())
			require.Equal(t, "blau ü", m.Property("colour"))
		case "later":
			require.GreaterOrEqual(t, m.StoreTime.Sub(began), 900*time.Millisecond)
		}
	}
}

// Proves that a group shares the work while members come and go, with nothing lost and every offset committed.
func TestRebalance(t *testing.T) {
	c := startCluster(t, "broker-a", "broker-b")
	c.topic("T", 4)
	p := c.producer()
	in := &inbox{}
	var members []*client.PushConsumer
	var want []string
	total := func() (n int) {
		for _, m := range members {
			mine := 0
			for _, q := range m.Assigned() {
				if q.Topic == "T" {
					mine++
				}
			}
			if mine < 8/len(members) {
				return -1
			}
			n += mine
		}
		return n
	}
	for i := range 3 {
		members = append(members, c.consumer("T", in.handle))
		want = append(want, produce(t, p, "T", 100*i, 100*(i+1))...)
		eventually(t, "fair shares", func() bool { return total() == 8 })
	}
	require.NoError(t, members[1].Close(t.Context()))
	members = slices.Delete(members, 1, 2)
	want = append(want, produce(t, p, "T", 300, 400)...)
	eventually(t, "fair shares", func() bool { return total() == 8 })
	eventually(t, "messages", func() bool { return slices.Equal(want, slices.Compact(in.bodies())) })
	a := c.client().Admin()
	eventually(t, "offsets", func() bool {
		s, err := a.ConsumeStats(t.Context(), "consumers", "T")
		behind := int64(0)
		for _, o := range s.OffsetTable {
			behind += o.BrokerOffset - o.ConsumerOffset
		}
		return err == nil && len(s.OffsetTable) == 8 && behind == 0
	})
}

// Proves that an ordered group keeps the order of every queue across members that come and go, one at a time.
func TestOrdered(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 4)
	p := c.producer()
	var mu sync.Mutex
	last := map[int32]int64{}
	busy := map[int32]bool{}
	done := 0
	handler := func(_ context.Context, msgs []*client.MessageExt) error {
		q := msgs[0].Queue.QueueID
		mu.Lock()
		if busy[q] {
			t.Errorf("queue %d has two handlers", q)
		}
		busy[q] = true
		mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		busy[q] = false
		for _, m := range msgs {
			if m.QueueOffset > last[q] {
				t.Errorf("queue %d jumped from %d to %d", q, last[q], m.QueueOffset)
			}
			if m.QueueOffset == last[q] {
				last[q]++
				done++
			}
		}
		return nil
	}
	ordered := func(o *client.PushConsumerOptions) { o.Ordered = true }
	first := c.consumer("T", handler, ordered)
	produce(t, p, "T", 0, 100)
	c.consumer("T", handler, ordered)
	produce(t, p, "T", 100, 200)
	require.NoError(t, first.Close(t.Context()))
	produce(t, p, "T", 200, 300)
	eventually(t, "messages", func() bool { mu.Lock(); defer mu.Unlock(); return done == 300 })
}

// Proves the way of a message that nobody can consume: again after its delay, then the dead letters; for concurrent and
// for ordered groups.
func TestRetriesAndDeadLetters(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 1)
	p := c.producer()
	for _, ordered := range []bool{false, true} {
		group := fmt.Sprintf("group-%v", ordered)
		bad := func(m *client.MessageExt) error {
			if m.Tags() == "bad" {
				return &client.RetryError{After: 10 * time.Millisecond, Err: errors.New("cannot")}
			}
			return nil
		}
		in := &inbox{fail: bad}
		c.consumer("T", in.handle, func(o *client.PushConsumerOptions) { o.Group, o.Ordered, o.MaxReconsumeTimes = group, ordered, 2 })
		if !ordered {
			_, err := p.Send(t.Context(), &client.Message{Topic: "T", Body: []byte("bad"), Tags: "bad"})
			require.NoError(t, err)
			_, err = p.Send(t.Context(), &client.Message{Topic: "T", Body: []byte("good")})
			require.NoError(t, err)
		}
		in.wants(t, []string{"bad", "bad", "bad", "good"})
		dead := client.MessageQueue{Topic: "%DLQ%" + group, BrokerName: "broker-a"}
		cl := c.client()
		eventually(t, "dead letter", func() bool {
			res, err := cl.Pull(t.Context(), dead, 0, 10, client.Expression{}, 0)
			return err == nil && len(res.Messages) == 1 && string(res.Messages[0].Body) == "bad" && res.Messages[0].Property("RETRY_TOPIC") == "T"
		})
	}
}

// Proves that broadcasting gives everything to everybody, and that tags choose.
func TestBroadcastAndTags(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 2)
	p := c.producer()
	want := produce(t, p, "T", 0, 20)
	one, two, tagged := &inbox{}, &inbox{}, &inbox{}
	broadcast := func(o *client.PushConsumerOptions) { o.Group, o.Model = "everybody", client.Broadcasting }
	c.consumer("T", one.handle, broadcast)
	c.consumer("T", two.handle, broadcast)
	cons, err := c.client().NewPushConsumer(client.PushConsumerOptions{Group: "tagged", Handler: tagged.handle, From: client.FromFirst})
	require.NoError(t, err)
	require.NoError(t, cons.Subscribe("T", client.Tags("t1")))
	require.NoError(t, cons.Start(t.Context()))
	one.wants(t, want)
	two.wants(t, want)
	var odd []string
	for i := 1; i < 20; i += 2 {
		odd = append(odd, want[i])
	}
	tagged.wants(t, odd)
}

// Proves that producers and consumers outlive a broker that stops and comes back over its files, and that nothing acked is
// lost by it.
func TestBrokerRestart(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 4)
	p := c.producer()
	in := &inbox{}
	c.consumer("T", in.handle, func(o *client.PushConsumerOptions) { o.ErrorDelay = 100 * time.Millisecond })
	acked := produce(t, p, "T", 0, 50)
	in.wants(t, acked)
	c.brokers["broker-a"].stop(t)
	_, err := p.Send(t.Context(), &client.Message{Topic: "T", Body: []byte("nobody")})
	require.Error(t, err)
	c.start("broker-a")
	eventually(t, "send", func() bool {
		_, err := p.Send(t.Context(), &client.Message{Topic: "T", Body: []byte("m0050")})
		return err == nil
	})
	acked = append(acked, "m0050")
	acked = append(acked, produce(t, p, "T", 51, 100)...)
	eventually(t, "messages", func() bool { return slices.Equal(acked, slices.Compact(in.bodies())) })
}

// Proves the pull consumer and offsets by time.
func TestPullConsumer(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 1)
	q := client.MessageQueue{Topic: "T", BrokerName: "broker-a"}
	want := produce(t, c.producer(), "T", 0, 100)
	cl := c.client()
	pull, err := cl.NewPullConsumer(client.PullConsumerOptions{Group: "pullers", From: client.FromFirst})
	require.NoError(t, err)
	require.NoError(t, pull.Assign(t.Context(), q))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	read := func(n int) (out []string) {
		for len(out) < n {
			msgs, err := pull.Poll(ctx)
			require.NoError(t, err)
			for _, m := range msgs {
				out = append(out, string(m.Body))
			}
		}
		return out
	}
	require.Equal(t, want, read(100))
	require.NoError(t, pull.Seek(q, 90))
	require.Equal(t, want[90:], read(10))
	m, err := cl.Admin().MessageAt(t.Context(), q, 40)
	require.NoError(t, err)
	at, err := cl.OffsetAt(t.Context(), q, m.StoreTime)
	require.NoError(t, err)
	require.LessOrEqual(t, at, int64(40))
	require.NoError(t, pull.Seek(q, at))
	require.Equal(t, want[at:], read(100-int(at)))
	require.NoError(t, pull.Commit(t.Context()))
	o, err := pull.Committed(t.Context(), q)
	require.NoError(t, err)
	require.EqualValues(t, 100, o)
	first, err := cl.EarliestStoreTime(t.Context(), q)
	require.NoError(t, err)
	require.WithinDuration(t, m.StoreTime, first, time.Minute)
	begin, err := cl.MinOffset(t.Context(), q)
	require.NoError(t, err)
	require.Zero(t, begin)
}

// Proves that the answers of real brokers and name servers fit every administrative call.
func TestAdmin(t *testing.T) {
	ctx := t.Context()
	c := startCluster(t, "broker-a", "broker-b")
	c.topic("T", 2)
	cl := c.client()
	a := cl.Admin()
	p := c.producer()
	var results []*client.SendResult
	for i := range 8 {
		res, err := p.Send(ctx, &client.Message{Topic: "T", Body: fmt.Appendf(nil, "m%d", i), Keys: []string{"key", fmt.Sprint("key", i)}})
		require.NoError(t, err)
		results = append(results, res)
	}
	in := &inbox{}
	consClient := c.client()
	cons, err := consClient.NewPushConsumer(client.PushConsumerOptions{Group: "g", Handler: in.handle, From: client.FromFirst, CommitInterval: 50 * time.Millisecond})
	require.NoError(t, err)
	require.NoError(t, cons.Subscribe("T", client.Expression{}))
	require.NoError(t, cons.Start(ctx))
	eventually(t, "messages", func() bool { return len(in.bodies()) == 8 })

	info, err := a.Cluster(ctx)
	require.NoError(t, err)
	require.Len(t, info.BrokerAddrTable, 2)
	masters, err := a.Masters(ctx, "DefaultCluster")
	require.NoError(t, err)
	require.Len(t, masters, 2)
	addr := masters[0]
	topics, err := a.Topics(ctx)
	require.NoError(t, err)
	require.Contains(t, topics, "T")
	topics, err = a.TopicsByCluster(ctx, "DefaultCluster")
	require.NoError(t, err)
	require.Contains(t, topics, "T")
	topics, err = a.SystemTopics(ctx)
	require.NoError(t, err)
	require.Contains(t, topics, "TBW102")
	run, err := a.RuntimeInfo(ctx, addr)
	require.NoError(t, err)
	require.Contains(t, run, "putTps")
	cfg, err := a.BrokerConfig(ctx, addr)
	require.NoError(t, err)
	require.Equal(t, "broker-a", cfg["brokerName"])
	_, err = a.NameServerConfigs(ctx)
	require.NoError(t, err)
	all, err := a.TopicConfigs(ctx, addr)
	require.NoError(t, err)
	require.Contains(t, all.TopicConfigTable, "T")
	stats, err := a.TopicStats(ctx, "T")
	require.NoError(t, err)
	require.Len(t, stats.OffsetTable, 4)
	groups, err := a.GroupsOf(ctx, "T")
	require.NoError(t, err)
	require.Contains(t, groups, "g")
	_, err = a.TimeSpans(ctx, "T", "g")
	require.NoError(t, err)
	cq, err := a.ConsumeQueue(ctx, addr, "T", 0, 0, 10, "g")
	require.NoError(t, err)
	require.Len(t, cq.QueueData, 2)
	cc, err := a.ConsumerConnection(ctx, "g")
	require.NoError(t, err)
	require.Equal(t, consClient.ID(), cc.ConnectionSet[0].ClientID)
	_, err = a.ProducerConnection(ctx, "producers", "T")
	require.NoError(t, err)
	makers, err := a.Producers(ctx, addr)
	require.NoError(t, err)
	require.Contains(t, makers.Data, "producers")
	wrapper, err := a.Groups(ctx, addr)
	require.NoError(t, err)
	require.Contains(t, wrapper.SubscriptionGroupTable, "g")
	require.NoError(t, a.CreateGroup(ctx, addr, protocol.NewSubscriptionGroupConfig("made")))
	group, err := a.Group(ctx, addr, "made")
	require.NoError(t, err)
	require.EqualValues(t, 16, group.RetryMaxTimes)
	require.NoError(t, a.DeleteGroup(ctx, addr, "made", true))
	_, err = a.Subscription(ctx, addr, "g", "T")
	require.NoError(t, err)
	eventually(t, "running info with a retry queue at either broker", func() bool {
		running, err := a.RunningInfo(ctx, "g", consClient.ID(), false)
		return err == nil && len(running.MQTable) == 4+2
	})
	status, err := a.ConsumerStatus(ctx, "T", "g", "")
	require.NoError(t, err)
	require.Len(t, status[consClient.ID()], 4)
	_, err = a.BrokerConsumeStats(ctx, addr, false)
	require.NoError(t, err)
	put, err := a.Stats(ctx, addr, "TOPIC_PUT_NUMS", "T")
	require.NoError(t, err)
	require.NotNil(t, put)
	_, err = a.Stats(ctx, addr, "TOPIC_PUT_NUMS", "None")
	require.ErrorIs(t, err, client.ErrNotFound)
	_, err = a.TopicsOf(ctx, addr, "g")
	require.NoError(t, err)
	require.NoError(t, a.CleanExpiredConsumeQueues(ctx, addr))
	require.NoError(t, a.CleanUnusedTopics(ctx, addr))
	require.NoError(t, a.DeleteExpiredCommitLog(ctx, addr))

	for i, res := range results {
		for _, find := range []func() (*client.MessageExt, error){
			func() (*client.MessageExt, error) { return a.MessageByOffsetID(ctx, res.OffsetID) },
			func() (*client.MessageExt, error) { return a.MessageByUniqueKey(ctx, "T", res.ID) },
			func() (*client.MessageExt, error) { return a.MessageAt(ctx, res.Queue, res.QueueOffset) },
		} {
			m, err := find()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("m%d", i), string(m.Body))
		}
	}
	found, err := a.MessagesByKey(ctx, "T", "key", 32, time.Time{}, time.Time{})
	require.NoError(t, err)
	require.Len(t, found, 8)
	direct, err := a.ConsumeDirectly(ctx, "g", consClient.ID(), "T", results[0].OffsetID)
	require.NoError(t, err)
	require.Equal(t, protocol.CMSuccess, direct.ConsumeResult)
	eventually(t, "track", func() bool {
		tracks, err := a.Tracks(ctx, found[0])
		return err == nil && slices.Contains(tracks, client.Track{Group: "g", Status: client.TrackConsumed})
	})

	moved, err := a.ResetOffsets(ctx, "T", "g", found[0].StoreTime.Add(-time.Hour), true)
	require.NoError(t, err)
	require.Len(t, moved, 4)
	for q := range moved { // a pull that is held learns of it when something arrives
		_, err := p.Send(ctx, &client.Message{Topic: "T", Body: []byte("wake")}, client.ToQueue(q))
		require.NoError(t, err)
	}
	eventually(t, "messages again", func() bool { return len(in.bodies()) >= 8+1+8+4 })
	require.NoError(t, a.PutKV(ctx, "ns", "k", "v"))
	v, err := a.KV(ctx, "ns", "k")
	require.NoError(t, err)
	require.Equal(t, "v", v)
	values, err := a.KVs(ctx, "ns")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"k": "v"}, values)
	require.NoError(t, a.DeleteKV(ctx, "ns", "k"))
	_, err = a.KV(ctx, "ns", "k")
	require.ErrorIs(t, err, client.ErrNotFound)
	wiped, err := a.WipeWritePerm(ctx, "broker-a")
	require.NoError(t, err)
	require.Positive(t, wiped[c.namesrv])
	_, err = a.AddWritePerm(ctx, "broker-a")
	require.NoError(t, err)
	require.NoError(t, cons.Close(ctx))
	_, err = a.ConsumerConnection(ctx, "g")
	require.ErrorIs(t, err, client.ErrNotOnline)
	require.NoError(t, a.DeleteTopic(ctx, "DefaultCluster", "T"))
	_, err = a.Route(ctx, "T")
	require.ErrorIs(t, err, client.ErrNoRoute)
}

// Proves that messages are neither lost nor doubled when many producers and members work at once.
func TestManyAtOnce(t *testing.T) {
	c := startCluster(t, "broker-a")
	c.topic("T", 8)
	var got atomic.Int64
	seen := sync.Map{}
	for range 2 {
		c.consumer("T", func(_ context.Context, msgs []*client.MessageExt) error {
			for _, m := range msgs {
				if _, again := seen.LoadOrStore(string(m.Body), true); !again {
					got.Add(1)
				}
			}
			return nil
		}, func(o *client.PushConsumerOptions) { o.BatchSize = 32 })
	}
	p := c.producer()
	const n = 5000
	var failed atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		require.NoError(t, p.SendAsync(t.Context(), &client.Message{Topic: "T", Body: fmt.Appendf(nil, "%d", i)}, func(_ *client.SendResult, err error) {
			defer wg.Done()
			if err != nil {
				failed.Add(1)
			}
		}))
	}
	wg.Wait()
	require.Zero(t, failed.Load())
	eventually(t, "messages", func() bool { return got.Load() == n })
}
