package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/message"
	"rmq/remoting/protocol"
)

func queuesOf(topic string, perBroker map[string]int) []MessageQueue {
	var out []MessageQueue
	for _, b := range []string{"broker-a", "broker-b", "broker-c"} {
		out = appendQueues(out, topic, b, perBroker[b])
	}
	return out
}

// Proves that the shares are those of Java's AllocateMessageQueueAveragely, worked out by its formula:
// index·average from a shifted start, the first (queues mod clients) members getting one more.
func TestAllocateAveragelyFollowsJavasFormula(t *testing.T) {
	java := func(queues, clients, index int) (from, to int) {
		mod := queues % clients
		average := queues / clients
		switch {
		case queues <= clients:
			average = 1
		case mod > 0 && index < mod:
			average++
		}
		start := index*average + mod
		if mod > 0 && index < mod {
			start = index * average
		}
		n := min(average, queues-start)
		if n <= 0 {
			return 0, 0
		}
		return start, start + n
	}
	for queues := 1; queues <= 17; queues++ {
		all := queuesOf("T", map[string]int{"broker-a": queues})
		for clients := 1; clients <= 20; clients++ {
			var ids []string
			for i := range clients {
				ids = append(ids, fmt.Sprintf("10.0.0.%02d@1", i))
			}
			var got []MessageQueue
			for i, id := range ids {
				from, to := java(queues, clients, i)
				mine := AllocateAveragely(id, all, ids)
				require.Len(t, mine, to-from, "%d queues, %d clients, client %d", queues, clients, i)
				require.Equal(t, append([]MessageQueue{}, all[from:to]...), append([]MessageQueue{}, mine...))
				got = append(got, mine...)
			}
			require.Equal(t, all, got, "every queue once")
		}
	}
}

// Proves that dealing out gives every queue to exactly one member, and none to strangers.
func TestAllocateCircle(t *testing.T) {
	all := queuesOf("T", map[string]int{"broker-a": 3, "broker-b": 4})
	ids := []string{"a", "b", "c"}
	seen := map[MessageQueue]int{}
	for _, id := range ids {
		for _, q := range AllocateCircle(id, all, ids) {
			seen[q]++
		}
	}
	require.Len(t, seen, len(all))
	require.Equal(t, []MessageQueue{all[0], all[3], all[6]}, AllocateCircle("a", all, ids))
	require.Empty(t, AllocateCircle("z", all, ids))
	require.Empty(t, AllocateAveragely("z", all, ids))
}

// done is what processQueue.done notes.
func done(p *processQueue, msgs ...*MessageExt) (commit int64, ok bool) {
	p.done(msgs, func(c int64) { commit, ok = c, true })
	return commit, ok
}

// Proves that the offset to commit never passes a message that is still held, whatever order handlers end in, and
// that it reaches the end when all are through.
func TestProcessQueueCommitsNothingUnfinished(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newProcessQueue(MessageQueue{Topic: "T"}, 0, time.Now())
		open := map[int64]*MessageExt{}
		var next int64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "put") {
				var msgs []*MessageExt
				for range rapid.IntRange(1, 5).Draw(t, "batch") {
					next += int64(rapid.IntRange(1, 3).Draw(t, "gap")) // filtered messages leave gaps
					m := &MessageExt{QueueOffset: next - 1, Body: []byte("x")}
					msgs = append(msgs, m)
					open[m.QueueOffset] = m
				}
				if len(p.put(msgs)) != len(msgs) {
					t.Fatal("fresh messages were refused")
				}
				if len(p.put(msgs)) != 0 {
					t.Fatal("messages were taken twice")
				}
				continue
			}
			var offsets []int64
			for o := range open {
				offsets = append(offsets, o)
			}
			o := offsets[rapid.IntRange(0, len(offsets)-1).Draw(t, "which")]
			commit, ok := done(p, open[o])
			delete(open, o)
			lowest := next
			for o := range open {
				lowest = min(lowest, o)
			}
			if !ok || commit != lowest {
				t.Fatalf("commit %d, want %d", commit, lowest)
			}
			if p.held() != len(open) || p.bytes != len(open) {
				t.Fatalf("holds %d, want %d", p.held(), len(open))
			}
		}
	})
}

// Proves what an ordered handler sees: messages once, in order, and again after they are put back.
func TestProcessQueueTakesInOrder(t *testing.T) {
	now := time.Now()
	p := newProcessQueue(MessageQueue{}, 5, now)
	var msgs []*MessageExt
	for o := int64(5); o < 9; o++ {
		msgs = append(msgs, &MessageExt{QueueOffset: o})
	}
	p.put(msgs)
	require.Equal(t, msgs[:2], p.take(2, now))
	require.Equal(t, msgs[2:], p.take(5, now))
	require.Empty(t, p.take(1, now))
	p.putBack(msgs[:2])
	require.Equal(t, msgs[:1], p.take(1, now))
	commit, ok := done(p, msgs[0])
	require.True(t, ok)
	require.EqualValues(t, 6, commit)
	p.skipTo(20, func(int64) { t.Error("messages are held") })
	commit, _ = done(p, msgs[1:]...)
	require.EqualValues(t, 20, commit, "what was filtered behind them is through too")
	p.drop()
	p.put([]*MessageExt{{QueueOffset: 20}})
	p.skipTo(30, func(int64) { t.Error("the queue is dropped") })
	_, ok = done(p, &MessageExt{QueueOffset: 20})
	require.False(t, ok, "a dropped queue commits nothing")
}

// Proves the limits of what is held, and that room is announced.
func TestProcessQueueFull(t *testing.T) {
	p := newProcessQueue(MessageQueue{}, 0, time.Now())
	a, b := &MessageExt{QueueOffset: 0, Body: make([]byte, 10)}, &MessageExt{QueueOffset: 2500, Body: make([]byte, 10)}
	p.put([]*MessageExt{a, b})
	require.Equal(t, "messages", p.full(2, 100, 0))
	require.Equal(t, "bytes", p.full(3, 20, 0))
	require.Equal(t, "span", p.full(3, 100, 2000))
	require.Empty(t, p.full(3, 100, 0))
	done(p, a)
	<-p.room
	require.Empty(t, p.full(2, 20, 2000))
	require.Equal(t, []*MessageExt{b}, func() []*MessageExt {
		p.start([]*MessageExt{b}, time.Unix(100, 0))
		return p.expired(time.Unix(101, 0))
	}())
	require.Empty(t, p.expired(time.Unix(99, 0)))
}

// Proves that a lock is trusted for 30 s and no longer.
func TestProcessQueueLockTrust(t *testing.T) {
	now := time.Now()
	p := newProcessQueue(MessageQueue{}, 0, now)
	require.False(t, p.locked(now))
	p.setLocked(true, now)
	require.True(t, p.locked(now.Add(29*time.Second)))
	require.False(t, p.locked(now.Add(30*time.Second)))
	p.setLocked(false, now)
	require.False(t, p.locked(now))
}

// Proves the layout of unique keys: address, process, milliseconds of the month, counter; and that the time is read back.
func TestUniqueKeys(t *testing.T) {
	ids := newUniqueIDs(netip.MustParseAddr("10.1.2.3"))
	now := time.Date(2026, 11, 27, 10, 11, 12, 345e6, time.Local)
	a, b := ids.next(now), ids.next(now)
	require.Len(t, a, 32)
	require.True(t, strings.HasPrefix(a, "0A010203"))
	require.Equal(t, fmt.Sprintf("%04X", uint16(os.Getpid())), a[8:12])
	require.Equal(t, strings.ToUpper(a), a)
	require.Equal(t, a[:28], b[:28])
	require.NotEqual(t, a[28:], b[28:])
	made, err := UniqueKeyTime(a, now.Add(time.Hour))
	require.NoError(t, err)
	require.True(t, made.Equal(now), "%v", made)
	next := time.Date(2026, 12, 1, 0, 0, 0, 5e6, time.Local)
	require.Equal(t, "00000005", ids.next(next)[20:28], "a month begins anew")
	made, err = UniqueKeyTime(a, next)
	require.NoError(t, err)
	require.True(t, made.Equal(now), "a key of last month: %v", made)
	require.Len(t, newUniqueIDs(netip.MustParseAddr("fd00::1")).next(now), 56)
	for _, bad := range []string{"", "zz", strings.Repeat("Z", 32)} {
		_, err := UniqueKeyTime(bad, now)
		require.Error(t, err)
	}
}

// Proves which messages are refused before they travel, and that the refusal names part, limit and fix.
func TestMessageCheck(t *testing.T) {
	ok := func() *Message { return &Message{Topic: "T", Body: []byte("x")} }
	require.NoError(t, ok().check(10))
	for name, c := range map[string]struct {
		change func(*Message)
		want   string
	}{
		"no topic":        {func(m *Message) { m.Topic = "" }, "topic is empty"},
		"bad topic":       {func(m *Message) { m.Topic = "a b" }, `topic "a b" is illegal: use letters`},
		"long topic":      {func(m *Message) { m.Topic = strings.Repeat("t", 128) }, "more than the limit of 127"},
		"no body":         {func(m *Message) { m.Body = nil }, "message body is empty"},
		"long body":       {func(m *Message) { m.Body = make([]byte, 11) }, "has 11 bytes, more than the limit of 10"},
		"negative level":  {func(m *Message) { m.DelayLevel = -1 }, "DelayLevel is -1"},
		"reserved":        {func(m *Message) { m.Properties = map[string]string{"KEYS": "x"} }, "KEYS is reserved"},
		"empty value":     {func(m *Message) { m.Properties = map[string]string{"a": ""} }, "brokers drop such a property"},
		"separator":       {func(m *Message) { m.Properties = map[string]string{"a": "x\x01"} }, "holds a separator"},
		"separator in id": {func(m *Message) { m.Keys = []string{"k\x02"} }, "holds a separator"},
	} {
		m := ok()
		c.change(m)
		var limit *LimitError
		err := m.check(10)
		require.ErrorAs(t, err, &limit, name)
		require.Contains(t, err.Error(), c.want, name)
	}
	long := ok()
	long.Topic = retryPrefix + strings.Repeat("g", 200)
	require.NoError(t, long.check(10), "retry topics may be longer")
	big := ok()
	big.Properties = map[string]string{"p": strings.Repeat("v", message.MaxPropertiesBytes)}
	_, err := big.encodeProperties("ID")
	require.ErrorContains(t, err, "more than the limit of 32767")
}

// Proves that a stored message comes back as it was sent, whatever compressed it.
func TestDecodeMessages(t *testing.T) {
	sent := &Message{Topic: "T", Body: bytes.Repeat([]byte("body "), 2000), Tags: "a", Keys: []string{"k1", "k2"}, Flag: 7, Properties: map[string]string{"p": "v"}}
	var log []byte
	for i, how := range []protocol.Compression{0, protocol.CompressionZlib, protocol.CompressionLZ4, protocol.CompressionZstd} {
		props, err := sent.encodeProperties(fmt.Sprintf("ID%d", i))
		require.NoError(t, err)
		m := &message.Message{
			Topic: "T", QueueID: 3, Flag: 7, BornTimestamp: 1000, BornHost: netip.MustParseAddrPort("10.0.0.1:1"), StoreHost: netip.MustParseAddrPort("10.0.0.2:2"),
			Body: sent.Body, Properties: props, ReconsumeTimes: 2,
		}
		if how != 0 {
			m.SysFlag = message.SysFlag(how.SysFlag(0))
			m.Body, err = protocol.Compress(nil, sent.Body, how)
			require.NoError(t, err)
		}
		start := len(log)
		log, err = message.AppendRecord(log, m)
		require.NoError(t, err)
		message.StampRecord(log[start:], int64(i), int64(start), 2000)
	}
	msgs, err := DecodeMessages(log, "broker-a")
	require.NoError(t, err)
	require.Len(t, msgs, 4)
	for i, m := range msgs {
		require.Equal(t, sent.Body, m.Body)
		require.NoError(t, m.BodyErr)
		require.Equal(t, MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: 3}, m.Queue)
		require.EqualValues(t, i, m.QueueOffset)
		require.Equal(t, "a", m.Tags())
		require.Equal(t, sent.Keys, m.Keys())
		require.Equal(t, fmt.Sprintf("ID%d", i), m.ID())
		require.Equal(t, "v", m.PropertyMap()["p"])
		require.Equal(t, 2, m.ReconsumeTimes)
		require.Equal(t, int64(2000), m.StoreTime.UnixMilli())
		id, err := message.ParseID(m.OffsetID())
		require.NoError(t, err)
		require.Equal(t, m.CommitLogOffset, id.Pos)
	}
	cut, err := DecodeMessages(log[:len(log)-1], "broker-a")
	require.ErrorIs(t, err, message.ErrShort)
	require.Len(t, cut, 3, "what stands before the bad record is good")
}

// Proves that a body which lies about its compression is handed over as it is, with the reason.
func TestDecodeMessageWithABrokenBody(t *testing.T) {
	h := netip.MustParseAddrPort("10.0.0.1:1")
	rec, err := message.AppendRecord(nil, &message.Message{Topic: "T", SysFlag: message.FlagCompressed, BornHost: h, StoreHost: h, Body: []byte("not zlib")})
	require.NoError(t, err)
	msgs, err := DecodeMessages(rec, "b")
	require.NoError(t, err)
	require.Error(t, msgs[0].BodyErr)
	require.Equal(t, "not zlib", string(msgs[0].Body))
}

// Proves how tag expressions are taken apart, and that the hashes are Java's.
func TestSubscription(t *testing.T) {
	now := time.UnixMilli(42)
	for text, want := range map[string][]string{"*": nil, "": nil, "a": {"a"}, " b || a||b|| ": {"a", "b"}} {
		s := newSubscription("T", Tags(text), now)
		require.Equal(t, want, s.tags, text)
		require.Equal(t, int64(42), s.data.SubVersion)
		require.Equal(t, protocol.ExpressionTag, s.data.ExpressionType)
		require.Len(t, s.data.CodeSet, len(want))
	}
	s := newSubscription("T", Tags("TagA", "TagB"), now)
	require.Equal(t, []int32{2598919, 2598920}, s.data.CodeSet)
	require.True(t, s.wants([]byte("TagA")))
	require.False(t, s.wants([]byte("TagC")))
	require.False(t, s.wants(nil))
	require.Equal(t, "*", newSubscription("T", Expression{}, now).data.SubString)
	sql := newSubscription("T", SQL("a > 1"), now)
	require.Equal(t, protocol.ExpressionSQL92, sql.data.ExpressionType)
	require.True(t, sql.wants([]byte("any")))
	_, err := json.Marshal(sql.data)
	require.NoError(t, err)
}

// Proves that sharding keys go where Java producers send them, also for negative hashes.
func TestHashSelector(t *testing.T) {
	queues := queuesOf("T", map[string]int{"broker-a": 4})
	for key, want := range map[string]int32{"order-1": int32(abs(int(int32(message.TagHash([]byte("order-1"))) % 4))), "polygenelubricants": 0} {
		q, err := hashSelector(queues, &Message{ShardingKey: key})
		require.NoError(t, err)
		require.Equal(t, want, q.QueueID)
	}
	require.EqualValues(t, math.MinInt32, int32(message.TagHash([]byte("polygenelubricants"))), "the string whose hash is the smallest int")
	_, err := hashSelector(queues, &Message{})
	require.ErrorContains(t, err, "ShardingKey is empty")
}

func abs(x int) int { return max(x, -x) }

// Proves that queues are taken in turn, away from the broker that failed and from slow ones where others are.
func TestInTurn(t *testing.T) {
	r := newTopicRoute("T", &protocol.TopicRouteData{
		BrokerDatas: []protocol.BrokerData{{BrokerName: "broker-a", BrokerAddrs: map[int64]string{0: "a"}}, {BrokerName: "broker-b", BrokerAddrs: map[int64]string{0: "b"}}, {BrokerName: "broker-c", BrokerAddrs: map[int64]string{1: "slave"}}},
		QueueDatas:  []protocol.QueueData{{BrokerName: "broker-b", WriteQueueNums: 2, ReadQueueNums: 3, Perm: 6}, {BrokerName: "broker-a", WriteQueueNums: 2, ReadQueueNums: 2, Perm: 6}, {BrokerName: "broker-c", WriteQueueNums: 2, ReadQueueNums: 2, Perm: 6}},
	})
	require.Equal(t, queuesOf("T", map[string]int{"broker-a": 2, "broker-b": 2}), r.publish, "no master, no sending; sorted")
	require.Equal(t, queuesOf("T", map[string]int{"broker-a": 2, "broker-b": 3, "broker-c": 2}), r.consume)
	any := func(string) bool { return true }
	seen := map[MessageQueue]int{}
	for range 40 {
		seen[r.inTurn("", any)]++
	}
	for _, q := range r.publish {
		require.Equal(t, 10, seen[q])
	}
	for range 10 {
		require.Equal(t, "broker-b", r.inTurn("broker-a", any).BrokerName)
		require.Equal(t, "broker-a", r.inTurn("", func(b string) bool { return b != "broker-b" }).BrokerName)
		require.Equal(t, "broker-b", r.inTurn("broker-a", func(b string) bool { return false }).BrokerName, "a slow broker is better than the one that failed")
	}
	ordered := newTopicRoute("T", &protocol.TopicRouteData{OrderTopicConf: "broker-b:1;broker-a:2"})
	require.Equal(t, queuesOf("T", map[string]int{"broker-a": 2, "broker-b": 1}), ordered.publish)
}

// Proves Java's steps of staying away from slow brokers.
func TestFaultTable(t *testing.T) {
	var f faultTable
	now := time.Now()
	for latency, away := range map[time.Duration]time.Duration{
		549 * time.Millisecond: 0, 550 * time.Millisecond: 2 * time.Second, 1800 * time.Millisecond: 5 * time.Second, 3 * time.Second: 6 * time.Second, failureLatency: 10 * time.Second, time.Minute: 30 * time.Second,
	} {
		f.note("b", latency, now)
		require.True(t, f.usable("b", now.Add(away)), latency)
		require.Equal(t, away == 0, f.usable("b", now.Add(away-1)), latency)
	}
	f.note("b", time.Millisecond, now)
	require.True(t, f.usable("b", now), "a quick answer ends it")
}

// Proves that broadcast offsets survive the process, in a file that Java would read, and that half a file is replaced by the
// one before.
func TestFileOffsets(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "id", "group", "offsets.json")
	s, err := openFileOffsets(path)
	require.NoError(t, err)
	q := MessageQueue{Topic: "T", BrokerName: "b", QueueID: 1}
	_, err = s.read(ctx, q)
	require.ErrorIs(t, err, ErrNotFound)
	s.update(q, 5, true)
	s.update(q, 4, true)
	require.NoError(t, s.persist(ctx, false))
	s.update(q, 9, true)
	require.NoError(t, s.persist(ctx, false))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []byte(`{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:9}}`), b) //nolint:testifylint // Java keys the object by objects, which no JSON library reads
	require.NoError(t, os.WriteFile(path, b[:20], 0o600))
	s, err = openFileOffsets(path)
	require.NoError(t, err)
	o, err := s.read(ctx, q)
	require.NoError(t, err)
	require.EqualValues(t, 5, o)
}

// Proves what options are refused, all complaints at once.
func TestOptionsValidate(t *testing.T) {
	t.Setenv("NAMESRV_ADDR", "")
	_, err := New(Options{})
	require.ErrorIs(t, err, ErrNoNameServer)
	_, err = New(Options{NameServers: "here;1.2.3.4:99999", Timeout: -1})
	require.ErrorContains(t, err, `"here" is no address`)
	require.ErrorContains(t, err, `"1.2.3.4:99999" is no address`)
	require.ErrorContains(t, err, "Timeout is -1ns")
	require.Equal(t, []string{"a:1", "b:2", "c:3"}, splitServers(" a:1 ;http://b:2/;;c:3"))
	po := PushConsumerOptions{Group: "g", LockInterval: time.Minute, BatchSize: 2000, Model: 7}
	po.EnsureDefaults()
	err = po.Validate()
	require.ErrorContains(t, err, "the Handler is nil")
	require.ErrorContains(t, err, "a lock is trusted for 30s only")
	require.ErrorContains(t, err, "the most is 1024")
	require.ErrorContains(t, err, "give Clustering or Broadcasting")
	pr := ProducerOptions{Group: "g g", Compression: 9}
	pr.EnsureDefaults()
	require.ErrorContains(t, pr.Validate(), "group \"g g\" is illegal")
	require.ErrorContains(t, pr.Validate(), "CompressionZlib")
}

// Proves the shape of client ids, which brokers and operators see.
func TestClientID(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.1")
	require.Equal(t, "10.0.0.1@x", clientID(Options{IP: ip, Instance: "x"}))
	require.Equal(t, "10.0.0.1@x@unit", clientID(Options{IP: ip, Instance: "x", Unit: "unit"}))
	first := clientID(Options{IP: ip})
	require.NotEqual(t, first, clientID(Options{IP: ip}))
	require.Equal(t, 1, DelayLevel(time.Millisecond))
	require.Equal(t, 5, DelayLevel(time.Minute))
	require.Equal(t, 18, DelayLevel(5*time.Hour))
	require.Equal(t, 0, DelayLevel(0))
}

// Proves the figures of running infos: averages over what was counted, rates over the window.
func TestConsumeStats(t *testing.T) {
	var s consumeStats
	now := time.Unix(1000, 0)
	s.pulled("T", 10, 4*time.Millisecond, now)
	s.pulled("T", 20, 8*time.Millisecond, now.Add(31*time.Second))
	s.consumed("T", 29, 10*time.Millisecond, nil, now.Add(31*time.Second))
	s.consumed("T", 1, 20*time.Millisecond, ErrClosed, now.Add(31*time.Second))
	got := s.table(now.Add(40 * time.Second))["T"]
	require.Equal(t, protocol.ConsumeStatus{PullRT: 6, PullTPS: 30.0 / 40, ConsumeRT: 15, ConsumeOKTPS: 29.0 / 40, ConsumeFailedTPS: 1.0 / 40, ConsumeFailedMsgs: 1}, got)
	require.Zero(t, s.table(now.Add(5 * time.Minute))["T"].PullTPS)
}

// Proves that configuration texts are read as Java writes them.
func TestProperties(t *testing.T) {
	in := map[string]string{"a": "1", "b": "x=y", "c": ""}
	require.Equal(t, "a=1\nb=x=y\nc=\n", string(formatProperties(in)))
	require.Equal(t, in, parseProperties([]byte("#comment\r\na = 1\r\nb=x=y\nc=\nnonsense\n")))
}
