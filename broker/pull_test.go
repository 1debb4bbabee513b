package broker

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// start sends a pull and hands its answer over when it comes.
func (p *peer) start(req *protocol.Command) <-chan pulled {
	p.tb.Helper()
	out := make(chan pulled, 1)
	require.NoError(p.tb, p.conn.Start(&remoting.Call{Request: req, Timeout: time.Minute, Done: func(c *remoting.Call) {
		if c.Err == nil {
			out <- parsePulled(p.tb, c.Response.Clone())
		}
	}}))
	return out
}

// held waits until so many pulls are held.
func (p *peer) held(n int) {
	p.tb.Helper()
	require.Eventually(p.tb, func() bool { return p.b.holds.Len() == n }, 10*time.Second, time.Millisecond)
}

// Every result of a read is told as a stock client expects it.
func TestPullStatus(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	for _, tag := range []string{"A", "B", "A", "B"} {
		p.send("T", 0, tag, "TAGS", tag)
	}
	p.dispatched()
	for name, c := range map[string]struct {
		queue  int
		offset int64
		tags   string
		code   protocol.ResponseCode
		remark string
		next   int64
		found  []string
	}{
		"all":              {0, 0, "*", protocol.ResponseSuccess, "FOUND", 4, []string{"A", "B", "A", "B"}},
		"none given":       {0, 1, "", protocol.ResponseSuccess, "FOUND", 4, []string{"B", "A", "B"}},
		"one tag":          {0, 0, "A", protocol.ResponseSuccess, "FOUND", 4, []string{"A", "A"}},
		"two tags":         {0, 1, " A || B ", protocol.ResponseSuccess, "FOUND", 4, []string{"B", "A", "B"}},
		"no such tag":      {0, 0, "C", protocol.ResponsePullRetryImmediately, "NO_MATCHED_MESSAGE", 4, nil},
		"at the end":       {0, 4, "*", protocol.ResponsePullNotFound, "OFFSET_OVERFLOW_ONE", 4, nil},
		"beyond the end":   {0, 9, "*", protocol.ResponsePullOffsetMoved, "OFFSET_OVERFLOW_BADLY", 4, nil},
		"before the start": {0, -3, "*", protocol.ResponsePullOffsetMoved, "OFFSET_TOO_SMALL", 0, nil},
		"empty queue":      {1, 0, "*", protocol.ResponsePullNotFound, "NO_MATCHED_LOGIC_QUEUE", 0, nil},
		"empty, behind":    {1, 5, "*", protocol.ResponsePullOffsetMoved, "NO_MATCHED_LOGIC_QUEUE", 0, nil},
	} {
		got := p.pull("G", "T", c.queue, c.offset, c.tags, 0)
		require.Equal(t, c.code, got.code, name)
		require.Equal(t, c.remark, got.remark, name)
		require.Equal(t, c.next, got.header.NextBeginOffset, name)
		require.Equal(t, c.found, got.bodies(), name)
		if c.queue == 0 {
			require.Equal(t, int64(4), got.header.MaxOffset, name)
		}
	}
}

// A pull is checked in the order of Apache: each case is right in all that comes before and wrong in
// what it is about and all that comes later.
func TestPullChecks(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "autoCreateSubscriptionGroup=false", "brokerPermission=4")})
	p := connect(t, b)
	p.send("T", 0, "x")
	group := func(name string, change func(g *protocol.SubscriptionGroupConfig)) {
		g := protocol.NewSubscriptionGroupConfig(name)
		change(g)
		require.NoError(t, b.Groups.Put(g))
	}
	group("off", func(g *protocol.SubscriptionGroupConfig) { g.ConsumeEnable = false })
	group("on", func(*protocol.SubscriptionGroupConfig) {})
	group("silent", func(*protocol.SubscriptionGroupConfig) {})
	group("broadcast", func(g *protocol.SubscriptionGroupConfig) { g.ConsumeBroadcastEnable = false })
	topic := protocol.NewTopicConfig("writeOnly", 1)
	topic.Perm = protocol.PermWrite
	require.NoError(t, b.Topics.Put(t.Context(), topic))
	conn := &fakeConn{}
	member := func(group, model, kind string, topics ...string) {
		h := &consumerHeartbeat{group: group, traits: ConsumerTraits{MessageModel: model}}
		for _, topic := range topics {
			h.subscriptions = append(h.subscriptions, &protocol.SubscriptionData{Topic: topic, SubString: "x", SubVersion: 7, ExpressionType: kind, CodeSet: []int32{1}})
		}
		b.Consumers.Register(clientChannel{Conn: conn, ClientID: "c"}, h)
	}
	member("on", protocol.Clustering, protocol.ExpressionTag, "T")
	member("broadcast", protocol.Broadcasting, protocol.ExpressionTag, "T")
	group("sql", func(*protocol.SubscriptionGroupConfig) {})
	member("sql", protocol.Clustering, "SQL92", "T")
	group("forbidden", func(*protocol.SubscriptionGroupConfig) {})
	member("forbidden", protocol.Clustering, protocol.ExpressionTag)
	require.NoError(t, b.Groups.SetForbidden("forbidden", "T", true))
	group("otherTopic", func(*protocol.SubscriptionGroupConfig) {})
	member("otherTopic", protocol.Clustering, protocol.ExpressionTag)

	for name, c := range map[string]struct {
		group, topic string
		queue        int
		own          bool // the subscription comes with the pull
		expression   string
		version      int64
		code         protocol.ResponseCode
		why          forbidden
	}{
		"group":              {"nobody", "none", 9, false, "", 0, protocol.ResponseSubscriptionGroupNotExist, 0},
		"group off":          {"off", "none", 9, false, "", 0, protocol.ResponseNoPermission, forbidGroup},
		"topic":              {"silent", "none", 9, false, "", 0, protocol.ResponseTopicNotExist, 0},
		"topic not readable": {"silent", "writeOnly", 9, false, "", 0, protocol.ResponseNoPermission, forbidTopic},
		"queue":              {"silent", "T", 9, false, "", 0, protocol.ResponseInvalidParameter, 0},
		"queue below 0":      {"silent", "T", -1, false, "", 0, protocol.ResponseInvalidParameter, 0},
		"own expression":     {"silent", "T", 0, true, "||", 0, protocol.ResponseSubscriptionParseFailed, 0},
		"no heartbeat":       {"silent", "T", 0, false, "", 0, protocol.ResponseSubscriptionNotExist, 0},
		"broadcast":          {"broadcast", "T", 0, false, "", 9, protocol.ResponseNoPermission, forbidBroadcast},
		"forbidden":          {"forbidden", "T", 0, false, "", 9, protocol.ResponseNoPermission, forbidSubscription},
		"not subscribed":     {"otherTopic", "T", 0, false, "", 9, protocol.ResponseSubscriptionNotExist, 0},
		"not the latest":     {"on", "T", 0, false, "", 9, protocol.ResponseSubscriptionNotLatest, 0},
		"SQL by heartbeat":   {"sql", "T", 0, false, "", 7, protocol.ResponseSystemError, 0},
		"filtered":           {"on", "T", 0, false, "", 7, protocol.ResponsePullRetryImmediately, 0},
	} {
		req := pullRequest(c.group, c.topic, c.queue, 0, c.expression, 0)
		if !c.own {
			req = with(req, "sysFlag", "0")
		}
		got := parsePulled(t, p.call(with(req, "subVersion", strconv.FormatInt(c.version, 10))))
		p.dispatched()
		require.Equal(t, c.code.String(), got.code.String(), "%s: %s", name, got.remark)
		require.EqualValues(t, c.why, got.header.ForbiddenType, name)
		require.NotEmpty(t, got.remark, name)
	}
	p.require(p.call(with(pullRequest("on", "T", 0, 0, "a > 1", 0), "expressionType", "SQL92")), protocol.ResponseSystemError)
	req := pullRequest("on", "T", 0, 0, "*", 0)
	req.Remove("queueOffset")
	require.Contains(t, p.require(p.call(req), protocol.ResponseSystemError), "queueOffset")

	closed := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "brokerPermission=2")}))
	got := closed.pull("G", "T", 0, 0, "*", 0)
	require.Equal(t, protocol.ResponseNoPermission, got.code)
	require.EqualValues(t, forbidBroker, got.header.ForbiddenType)

	// The fast port serves no pulls.
	fast := dial(t, b, b.conf().FastPort(), nil)
	fast.require(fast.call(pullRequest("on", "T", 0, 0, "*", 0)), protocol.ResponseRequestCodeNotSupported)
	fast.send("T", 0, "fast")
}

// A held pull wakes when something arrives that it wants, and not before.
func TestLongPollWakes(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "old", "TAGS", "A")
	p.dispatched()
	all, tagged := p.start(pullRequest("G", "T", 0, 1, "*", time.Minute)), p.start(pullRequest("G", "T", 0, 1, "B", time.Minute))
	other, young := p.start(pullRequest("G", "T", 1, 0, "*", time.Minute)), p.start(pullRequest("G", "T", 0, 2, "*", time.Minute))
	p.held(3)
	require.Equal(t, protocol.ResponsePullOffsetMoved, (<-young).code, "a wrong offset is not held")
	p.send("T", 0, "for all", "TAGS", "A")
	got := <-all
	require.Equal(t, []string{"for all"}, got.bodies())
	require.Equal(t, int64(2), got.header.NextBeginOffset)
	p.held(2)
	p.send("T", 0, "for B", "TAGS", "B")
	got = <-tagged
	require.Equal(t, []string{"for B"}, got.bodies())
	require.Equal(t, int64(3), got.header.NextBeginOffset)
	p.held(1)
	p.send("T", 1, "for the other queue")
	require.Equal(t, []string{"for the other queue"}, (<-other).bodies())
	p.held(0)
}

// A hold ends at its time with an answer that lets the client go on: behind what it does not want, if
// there was something.
func TestLongPollEnds(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "old", "TAGS", "A")
	p.dispatched()
	began := time.Now()
	nothing, unwanted := p.start(pullRequest("G", "T", 1, 0, "*", 700*time.Millisecond)), p.start(pullRequest("G", "T", 0, 1, "B", 700*time.Millisecond))
	p.held(2)
	p.send("T", 0, "new", "TAGS", "A")
	got := <-nothing
	require.GreaterOrEqual(t, time.Since(began), 700*time.Millisecond)
	require.Equal(t, protocol.ResponsePullNotFound, got.code)
	require.Zero(t, got.header.NextBeginOffset)
	got = <-unwanted
	require.Equal(t, protocol.ResponsePullRetryImmediately, got.code)
	require.Equal(t, int64(2), got.header.NextBeginOffset)
}

// A pull whose connection is gone is forgotten, and a broker that ends answers those that it holds.
func TestLongPollAbandoned(t *testing.T) {
	b, err := New(Options{Settings: settings(t, t.TempDir())})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	p, q := connect(t, b), connect(t, b)
	p.send("T", 0, "old")
	p.start(pullRequest("G", "T", 0, 1, "*", time.Minute))
	p.start(pullRequest("G", "T", 1, 0, "*", time.Minute))
	p.dispatched()
	left := q.start(pullRequest("G", "T", 1, 0, "*", time.Minute))
	require.Eventually(t, func() bool { return b.holds.Len() >= 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.conn.Close())
	q.held(1)
	require.NoError(t, stopBroker(b))
	require.Equal(t, protocol.ResponsePullNotFound, (<-left).code)
	require.NoError(t, stopBroker(b))
}

// What the pull brings along is committed once, when it comes; where it will go on is noted.
func TestCommitOnPull(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	p.send("T", 0, "one")
	p.send("T", 0, "two")
	p.dispatched()
	g, topic := []byte("G"), []byte("T")
	_, ok := b.Offsets.Query(g, topic, 0)
	require.False(t, ok)
	req := with(pullRequest("G", "T", 0, 1, "*", 0), "commitOffset", "1")
	p.call(with(req, "sysFlag", "5"))
	offset, ok := b.Offsets.Query(g, topic, 0)
	require.True(t, ok)
	require.Equal(t, int64(1), offset)
	offset, _ = b.Offsets.PullOffset(g, topic, 0)
	require.Equal(t, int64(2), offset)

	// An offset that somebody has set is told once, and what clients commit meanwhile is dropped.
	b.Offsets.Reset("G", "T", 0, 0)
	got := parsePulled(t, p.call(with(pullRequest("G", "T", 0, 2, "*", time.Minute), "sysFlag", "7")))
	require.Equal(t, protocol.ResponsePullOffsetMoved, got.code)
	require.Zero(t, got.header.NextBeginOffset)
	require.Len(t, p.pull("G", "T", 0, 0, "*", 0).records, 2)
}

// What has left memory is read from the file, and looks the same; a long run of a file leaves by
// sendfile.
func TestPullFromFile(t *testing.T) {
	dir := t.TempDir()
	big := make([]byte, 8<<10)
	b := startBroker(t, Options{Settings: settings(t, dir)})
	p := connect(t, b)
	const n = 20
	for range n {
		p.send("T", 0, string(big))
	}
	p.dispatched()
	warm := p.pull("G", "T", 0, 0, "*", 0)
	require.Len(t, warm.records, n)
	require.NoError(t, stopBroker(b))

	b = startBroker(t, Options{Settings: settings(t, dir)})
	p = connect(t, b)
	var r engine.ReadResult
	require.ErrorIs(t, b.store.Read(&r, &engine.ReadQuery{Topic: "T", MaxCount: 1, MaxBytes: 1, InMemory: true}), engine.ErrCold)
	r.Release()
	cold := p.pull("G", "T", 0, 0, "*", 0)
	require.Len(t, cold.records, n)
	for i := range cold.records {
		require.Equal(t, warm.records[i].Properties, cold.records[i].Properties)
		require.Equal(t, warm.records[i].ID(), cold.records[i].ID())
	}
}

// How records leave: as one run of memory when they are neighbours there, as a run of the file when that
// is long.
func TestGather(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	for range 4 {
		p.send("T", 0, "small")
	}
	p.send("U", 0, "between")
	p.send("T", 0, "small")
	for range 10 {
		p.send("big", 0, string(make([]byte, 10<<10)))
	}
	p.dispatched()
	gather := func(topic string) []remoting.Range {
		op := b.pullPool.Get().(*pullOp)
		defer op.Release()
		require.NoError(t, b.store.Read(&op.result, &engine.ReadQuery{Topic: topic, MaxCount: 32, MaxBytes: 1 << 20, InMemory: true}))
		op.gather(&op.result)
		var all []byte
		op.result.Each(func(rec []byte) { all = append(all, rec...) })
		var got []byte
		for _, r := range op.Ranges() {
			if r.Bytes == nil {
				r.Bytes = make([]byte, r.Len)
				_, err := r.File.ReadAt(r.Bytes, r.Offset)
				require.NoError(t, err)
			}
			got = append(got, r.Bytes...)
		}
		require.Equal(t, all, got)
		return append([]remoting.Range(nil), op.Ranges()...)
	}
	ranges := gather("T")
	require.Len(t, ranges, 2)
	require.NotNil(t, ranges[0].Bytes)
	ranges = gather("big")
	require.Len(t, ranges, 1)
	require.Nil(t, ranges[0].Bytes)
}

// Pulls and sends at once: whoever waits for the next message gets each of them in order, once.
func TestTail(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	const n = 2000
	connect(t, b).send("T", 0, "0")
	var senders sync.WaitGroup
	defer senders.Wait()
	senders.Add(1)
	s := connect(t, b)
	b.group.Go("test-sender", func(context.Context) error {
		defer senders.Done()
		for i := 1; i < n; i++ {
			s.send("T", 0, strconv.FormatInt(int64(i), 10), message.PropTags, "A")
		}
		return nil
	})
	p := connect(t, b)
	next := int64(0)
	for next < n {
		got := p.pull("G", "T", 0, next, "*", time.Minute)
		require.Equal(t, protocol.ResponseSuccess, got.code, got.remark)
		for _, body := range got.bodies() {
			require.Equal(t, strconv.FormatInt(next, 10), body)
			next++
		}
		require.Equal(t, next, got.header.NextBeginOffset)
	}
}

// A group that has fallen too far behind may not consume any more, where that is asked for.
func TestSlowConsumer(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "disableConsumeIfConsumerReadSlowly=true", "consumerFallbehindThreshold=2000")})
	p := connect(t, b)
	for range 2 {
		p.send("T", 0, string(make([]byte, 1500)))
	}
	p.dispatched()
	require.Len(t, p.pull("quick", "T", 0, 1, "*", 0).records, 1)
	req := with(pullRequest("slow", "T", 0, 0, "*", 0), "maxMsgNums", "1")
	require.Equal(t, protocol.ResponseSuccess, parsePulled(t, p.call(req)).code)
	require.Eventually(t, func() bool { return !b.Groups.Get("slow").ConsumeEnable }, 10*time.Second, time.Millisecond)
	require.Equal(t, protocol.ResponseNoPermission, parsePulled(t, p.call(req)).code)
	require.True(t, b.Groups.Get("quick").ConsumeEnable)
}
