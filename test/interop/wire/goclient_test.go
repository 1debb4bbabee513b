//go:build interop

package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// Proves that our Go client works with the servers of Apache, and with ours and theirs mixed: every way to send, consumers of
// every kind, retries up to the dead letters, and what tools ask.
func TestGoClient(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: the Go client against Apache's servers, five clusters")
	}
	levels := "messageDelayLevel=" + strings.TrimSpace(strings.Repeat("1s ", 18))
	for name, begin := range map[string]func(t *testing.T) (ns, broker string){
		"apache-4.9": func(t *testing.T) (string, string) {
			ns := server49.namesrv(t)
			return ns.addr, server49.broker(t, ns.addr, t.TempDir(), levels).addr
		},
		"apache-5.4": func(t *testing.T) (string, string) {
			ns := server54.namesrv(t)
			return ns.addr, server54.broker(t, ns.addr, t.TempDir(), levels).addr
		},
		"apache-broker-our-namesrv": func(t *testing.T) (string, string) {
			ns := ourNamesrv(t)
			return ns.addr, apacheBroker(t, ns.addr, t.TempDir(), levels).addr
		},
		"our-broker-apache-namesrv": func(t *testing.T) (string, string) {
			ns := apacheNamesrv(t)
			return ns.addr, ourBroker(t, ns.addr, t.TempDir(), levels).addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns, broker := begin(t)
			g := &goClient{t: t, ns: ns, broker: broker, old: name == "apache-4.9"}
			g.awaitRoute("TBW102")
			t.Run("send and consume", g.sendAndConsume)
			t.Run("ordered", g.ordered)
			t.Run("dead letters", g.deadLetters)
			t.Run("broadcast", g.broadcast)
			t.Run("pull", g.pull)
			t.Run("admin", g.admin)
		})
	}
}

type goClient struct {
	t          *testing.T
	ns, broker string
	old        bool // 4.9
}

func (g *goClient) client(t *testing.T, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{
		NameServers: g.ns, RouteInterval: 500 * time.Millisecond, HeartbeatInterval: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&o)
	}
	c, err := client.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, c.Close(ctx))
	})
	return c
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 90*time.Second, 20*time.Millisecond, what)
}

func (g *goClient) awaitRoute(topic string) {
	a := g.client(g.t).Admin()
	eventually(g.t, "route of "+topic, func() bool { _, err := a.Route(g.t.Context(), topic); return err == nil })
}

func (g *goClient) topic(t *testing.T, name string, queues int32) {
	t.Helper()
	require.NoError(t, g.client(t).Admin().CreateTopic(t.Context(), g.broker, protocol.NewTopicConfig(name, queues), ""))
	g.awaitRoute(name)
}

func (g *goClient) producer(t *testing.T, change ...func(*client.Options)) *client.Producer {
	t.Helper()
	p, err := g.client(t, change...).NewProducer(client.ProducerOptions{Group: "go-producers"})
	require.NoError(t, err)
	return p
}

// collector is a handler that keeps bodies.
type collector struct {
	mu   sync.Mutex
	got  []string
	fail func(m *client.MessageExt) error
}

func (c *collector) handle(_ context.Context, msgs []*client.MessageExt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range msgs {
		c.got = append(c.got, string(m.Body))
		if c.fail != nil {
			if err := c.fail(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collector) bodies() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

func (c *collector) wants(t *testing.T, want []string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, fmt.Sprintf("%d messages", len(want)), func() bool { return slices.Equal(want, slices.Sorted(slices.Values(c.bodies()))) })
}

func (g *goClient) consumer(t *testing.T, group, topic string, h client.Handler, change ...func(*client.PushConsumerOptions)) (*client.PushConsumer, *client.Client) {
	t.Helper()
	o := client.PushConsumerOptions{Group: group, Handler: h, From: client.FromFirst, OffsetDir: t.TempDir(), CommitInterval: 200 * time.Millisecond, RebalanceInterval: time.Second}
	c := g.client(t)
	for _, f := range change {
		f(&o)
	}
	p, err := c.NewPushConsumer(o)
	require.NoError(t, err)
	require.NoError(t, p.Subscribe(topic, client.Expression{}))
	require.NoError(t, p.Start(t.Context()))
	return p, c
}

func (g *goClient) sendAndConsume(t *testing.T) {
	p := g.producer(t)
	binary := g.producer(t, func(o *client.Options) { o.Serialize = protocol.Binary })
	long := bytes.Repeat([]byte("compressible "), 1000)
	var want []string
	send := func(p *client.Producer, m *client.Message) {
		t.Helper()
		m.Topic = "GoNew"
		res, err := p.Send(t.Context(), m)
		require.NoError(t, err)
		require.Len(t, res.OffsetID, 32)
		want = append(want, string(m.Body))
	}
	send(p, &client.Message{Body: []byte("creates the topic"), Keys: []string{"k1", "k2"}, Tags: "tag", Properties: map[string]string{"colour": "blau ü \" \\"}})
	send(p, &client.Message{Body: long})
	send(binary, &client.Message{Body: []byte("binary header"), Properties: map[string]string{"colour": "grün"}})
	send(p, &client.Message{Body: []byte("later"), DelayLevel: 1})
	var batch []*client.Message
	for i := range 20 {
		batch = append(batch, &client.Message{Topic: "GoNew", Body: fmt.Appendf(nil, "batch%02d", i)})
		want = append(want, fmt.Sprintf("batch%02d", i))
	}
	_, err := p.SendBatch(t.Context(), batch)
	require.NoError(t, err)
	require.NoError(t, p.SendOneway(t.Context(), &client.Message{Topic: "GoNew", Body: []byte("oneway")}))
	want = append(want, "oneway")
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		require.NoError(t, p.SendAsync(t.Context(), &client.Message{Topic: "GoNew", Body: fmt.Appendf(nil, "async%02d", i)}, func(_ *client.SendResult, err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
		}))
		want = append(want, fmt.Sprintf("async%02d", i))
	}
	wg.Wait()
	in := &collector{}
	first, _ := g.consumer(t, "go-group", "GoNew", in.handle)
	in.wants(t, slices.Clone(want))
	// The shares of two members, and what is left when one goes.
	second, _ := g.consumer(t, "go-group", "GoNew", in.handle)
	shares := func(n ...int) func() bool {
		return func() bool {
			for i, p := range []*client.PushConsumer{first, second} {
				mine := 0
				for _, q := range p.Assigned() {
					if q.Topic == "GoNew" {
						mine++
					}
				}
				if mine != n[i] {
					return false
				}
			}
			return true
		}
	}
	eventually(t, "half each", shares(2, 2))
	require.NoError(t, second.Close(t.Context()))
	eventually(t, "all for one", func() bool { return len(first.Assigned()) >= 4 })
	for i := range 10 {
		send(p, &client.Message{Body: fmt.Appendf(nil, "after%d", i)})
	}
	eventually(t, "all messages", func() bool {
		slices.Sort(want)
		return slices.Equal(want, slices.Compact(slices.Sorted(slices.Values(in.bodies()))))
	})
}

func (g *goClient) ordered(t *testing.T) {
	g.topic(t, "GoOrdered", 2)
	p := g.producer(t)
	var want []string
	for i := range 50 {
		body := fmt.Sprintf("m%02d", i)
		want = append(want, body)
		_, err := p.Send(t.Context(), &client.Message{Topic: "GoOrdered", Body: []byte(body), ShardingKey: "one"}, client.ByShardingKey())
		require.NoError(t, err)
	}
	in := &collector{}
	o := func(o *client.PushConsumerOptions) { o.Ordered = true }
	g.consumer(t, "go-ordered", "GoOrdered", in.handle, o)
	eventually(t, "messages in order", func() bool { return slices.Equal(want, in.bodies()) })
}

func (g *goClient) deadLetters(t *testing.T) {
	g.topic(t, "GoRetry", 1)
	in := &collector{fail: func(m *client.MessageExt) error {
		if string(m.Body) == "bad" {
			return errors.New("cannot")
		}
		return nil
	}}
	g.consumer(t, "go-retry", "GoRetry", in.handle, func(o *client.PushConsumerOptions) { o.MaxReconsumeTimes = 2 })
	p := g.producer(t)
	for _, body := range []string{"bad", "good"} {
		_, err := p.Send(t.Context(), &client.Message{Topic: "GoRetry", Body: []byte(body)})
		require.NoError(t, err)
	}
	in.wants(t, []string{"bad", "bad", "bad", "good"})
	c := g.client(t)
	eventually(t, "dead letter", func() bool {
		res, err := c.Pull(t.Context(), client.MessageQueue{Topic: "%DLQ%go-retry", BrokerName: "broker-a"}, 0, 10, client.Expression{}, 0)
		return err == nil && len(res.Messages) == 1 && string(res.Messages[0].Body) == "bad"
	})
}

func (g *goClient) broadcast(t *testing.T) {
	g.topic(t, "GoBroadcast", 2)
	p := g.producer(t)
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint(i))
		_, err := p.Send(t.Context(), &client.Message{Topic: "GoBroadcast", Body: []byte(want[i])})
		require.NoError(t, err)
	}
	one, two := &collector{}, &collector{}
	all := func(o *client.PushConsumerOptions) { o.Model = client.Broadcasting }
	g.consumer(t, "go-broadcast", "GoBroadcast", one.handle, all)
	g.consumer(t, "go-broadcast", "GoBroadcast", two.handle, all)
	one.wants(t, slices.Clone(want))
	two.wants(t, want)
}

func (g *goClient) pull(t *testing.T) {
	g.topic(t, "GoPull", 1)
	q := client.MessageQueue{Topic: "GoPull", BrokerName: "broker-a"}
	p := g.producer(t)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		_, err := p.Send(t.Context(), &client.Message{Topic: "GoPull", Body: []byte(want[i])})
		require.NoError(t, err)
	}
	pc, err := g.client(t).NewPullConsumer(client.PullConsumerOptions{Group: "go-pull", From: client.FromFirst})
	require.NoError(t, err)
	require.NoError(t, pc.Assign(t.Context(), q))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read := func(n int) (out []string) {
		for len(out) < n {
			msgs, err := pc.Poll(ctx)
			require.NoError(t, err)
			for _, m := range msgs {
				out = append(out, string(m.Body))
			}
		}
		return out
	}
	require.Equal(t, want, read(20))
	require.NoError(t, pc.Seek(q, 15))
	require.Equal(t, want[15:], read(5))
	require.NoError(t, pc.Commit(ctx))
	o, err := pc.Committed(ctx, q)
	require.NoError(t, err)
	require.EqualValues(t, 20, o)
}

func (g *goClient) admin(t *testing.T) {
	ctx := t.Context()
	g.topic(t, "GoAdmin", 2)
	p := g.producer(t)
	var results []*client.SendResult
	for i := range 4 {
		res, err := p.Send(ctx, &client.Message{Topic: "GoAdmin", Body: fmt.Appendf(nil, "m%d", i), Keys: []string{"key"}})
		require.NoError(t, err)
		results = append(results, res)
	}
	in := &collector{}
	_, cc := g.consumer(t, "go-admin", "GoAdmin", in.handle)
	eventually(t, "messages", func() bool { return len(in.bodies()) == 4 })
	a := g.client(t).Admin()
	calls := map[string]func() error{
		"Cluster":          func() error { _, err := a.Cluster(ctx); return err },
		"Masters":          func() error { _, err := a.Masters(ctx, "DefaultCluster"); return err },
		"Topics":           func() error { _, err := a.Topics(ctx); return err },
		"TopicsByCluster":  func() error { _, err := a.TopicsByCluster(ctx, "DefaultCluster"); return err },
		"SystemTopics":     func() error { _, err := a.SystemTopics(ctx); return err },
		"RuntimeInfo":      func() error { _, err := a.RuntimeInfo(ctx, g.broker); return err },
		"BrokerConfig":     func() error { _, err := a.BrokerConfig(ctx, g.broker); return err },
		"NameServerConfig": func() error { _, err := a.NameServerConfigs(ctx); return err },
		"TopicConfigs":     func() error { _, err := a.TopicConfigs(ctx, g.broker); return err },
		"Topic":            func() error { _, err := a.Topic(ctx, g.broker, "GoAdmin"); return err },
		"TopicStats":       func() error { _, err := a.TopicStats(ctx, "GoAdmin"); return err },
		"GroupsOf":         func() error { _, err := a.GroupsOf(ctx, "GoAdmin"); return err },
		"TimeSpans":        func() error { _, err := a.TimeSpans(ctx, "GoAdmin", "go-admin"); return err },
		"ConsumeQueue":     func() error { _, err := a.ConsumeQueue(ctx, g.broker, "GoAdmin", 0, 0, 10, ""); return err },
		"Connection":       func() error { _, err := a.ConsumerConnection(ctx, "go-admin"); return err },
		"Producers":        func() error { _, err := a.Producers(ctx, g.broker); return err },
		"Groups":           func() error { _, err := a.Groups(ctx, g.broker); return err },
		"CreateGroup":      func() error { return a.CreateGroup(ctx, g.broker, protocol.NewSubscriptionGroupConfig("go-made")) },
		"Group":            func() error { _, err := a.Group(ctx, g.broker, "go-admin"); return err },
		"ConsumeStats":     func() error { _, err := a.ConsumeStats(ctx, "go-admin", ""); return err },
		"BrokerStats":      func() error { _, err := a.BrokerConsumeStats(ctx, g.broker, false); return err },
		"RunningInfo":      func() error { _, err := a.RunningInfo(ctx, "go-admin", cc.ID(), true); return err },
		"ConsumerStatus":   func() error { _, err := a.ConsumerStatus(ctx, "GoAdmin", "go-admin", ""); return err },
		"TopicsOf":         func() error { _, err := a.TopicsOf(ctx, g.broker, "go-admin"); return err },
		"Subscription":     func() error { _, err := a.Subscription(ctx, g.broker, "go-admin", "GoAdmin"); return err },
		"HAStatus":         func() error { _, err := a.HAStatus(ctx, g.broker); return err },
		"CleanQueues":      func() error { return a.CleanExpiredConsumeQueues(ctx, g.broker) },
		"CleanTopics":      func() error { return a.CleanUnusedTopics(ctx, g.broker) },
		"DeleteExpired":    func() error { return a.DeleteExpiredCommitLog(ctx, g.broker) },
		"PutKV":            func() error { return a.PutKV(ctx, "go", "k", "v") },
		"KV": func() error {
			_, err := a.KV(ctx, "ORDER_TOPIC_CONFIG", "nothing")
			return ignore(err, client.ErrNotFound)
		},
		"WritePerm": func() error {
			_, wiped := a.WipeWritePerm(ctx, "broker-a")
			_, added := a.AddWritePerm(ctx, "broker-a")
			return errors.Join(wiped, added)
		},
	}
	since5 := map[string]bool{"Subscription": true, "HAStatus": true, "TopicsOf": true}
	for name, call := range calls {
		err := call()
		if code, _ := client.CodeOf(err); g.old && since5[name] && code == protocol.ResponseRequestCodeNotSupported {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i, res := range results {
		for _, find := range []func() (*client.MessageExt, error){
			func() (*client.MessageExt, error) { return a.MessageByOffsetID(ctx, res.OffsetID) },
			func() (*client.MessageExt, error) { return a.MessageByUniqueKey(ctx, "GoAdmin", res.ID) },
			func() (*client.MessageExt, error) { return a.MessageAt(ctx, res.Queue, res.QueueOffset) },
		} {
			m, err := find()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("m%d", i), string(m.Body))
		}
	}
	found, err := a.MessagesByKey(ctx, "GoAdmin", "key", 32, time.Time{}, time.Time{})
	require.NoError(t, err)
	require.Len(t, found, 4)
	direct, err := a.ConsumeDirectly(ctx, "go-admin", cc.ID(), "GoAdmin", results[0].OffsetID)
	require.NoError(t, err)
	require.Equal(t, protocol.CMSuccess, direct.ConsumeResult)
	// A broker of 4.9 resets groups that have committed something, which consumers do every five seconds.
	for _, r := range results {
		require.NoError(t, a.Client().CommitOffset(ctx, "go-admin", r.Queue, r.QueueOffset+1))
	}
	before := len(in.bodies())
	moved, err := a.ResetOffsets(ctx, "GoAdmin", "go-admin", found[0].StoreTime.Add(-time.Hour), true)
	require.NoError(t, err)
	require.Len(t, moved, 2)
	for q := range moved {
		_, err := p.Send(ctx, &client.Message{Topic: "GoAdmin", Body: []byte("wake")}, client.ToQueue(q))
		require.NoError(t, err)
	}
	eventually(t, "messages again", func() bool { return len(in.bodies()) >= before+4+2 })
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
