package broker

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

// await pulls until there is a record at offset, and returns it.
func (p *peer) await(topic string, queue int, offset int64) message.Record {
	p.tb.Helper()
	got := p.pull("tool", topic, queue, offset, "*", 15*time.Second)
	require.Equal(p.tb, protocol.ResponseSuccess, got.code, got.remark)
	return got.records[0]
}

// sendBackRequest gives a record back for a group.
func sendBackRequest(r *message.Record, group string, level int32) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestConsumerSendMsgBack)
	protocol.EncodeExt(req, &sendBackHeader{Offset: r.PhysicalOffset, Group: group, DelayLevel: level, OriginMsgID: r.ID().String(), OriginTopic: string(r.Topic)})
	return req
}

// A message that nobody can process comes back through the retry topic, later every time, and ends among
// the dead letters, with where it came from written on it.
func TestRetryToDeadLetters(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "messageDelayLevel=1s 1s 1s 1s 1s")})
	p := connect(t, b)
	g := protocol.NewSubscriptionGroupConfig("G")
	g.RetryMaxTimes = 2
	require.NoError(t, b.Groups.Put(g))
	first := p.send("T", 0, "bad", "TAGS", "A", "KEYS", "k").GetString("msgId")
	r := p.await("T", 0, 0)
	for n := range 2 {
		p.require(p.call(sendBackRequest(&r, "G", 0)), protocol.ResponseSuccess)
		delayed := p.await(message.TopicSchedule, 2+n, 0)
		require.Equal(t, strconv.Itoa(3+n), string(delayed.Properties.Get("DELAY")))
		r = p.await("%RETRY%G", 0, int64(n))
		require.Equal(t, "bad", string(r.Body))
		require.EqualValues(t, n+1, r.ReconsumeTimes)
		require.Equal(t, "T", string(r.Properties.Get("RETRY_TOPIC")))
		require.Equal(t, first, string(r.Properties.Get("ORIGIN_MESSAGE_ID")))
		require.Equal(t, "A", string(r.Properties.Get("TAGS")))
		require.GreaterOrEqual(t, r.StoreTimestamp-delayed.StoreTimestamp, int64(1000))
	}
	p.require(p.call(sendBackRequest(&r, "G", 0)), protocol.ResponseSuccess)
	r = p.await("%DLQ%G", 0, 0)
	require.Equal(t, "bad", string(r.Body))
	require.EqualValues(t, 3, r.ReconsumeTimes)
	require.Equal(t, "T", string(r.Properties.Get("RETRY_TOPIC")))
	require.Equal(t, first, string(r.Properties.Get("ORIGIN_MESSAGE_ID")))
	require.Equal(t, "-1", string(r.Properties.Get("DELAY")))
	require.EqualValues(t, 1, b.Topics.Get("%DLQ%G").WriteQueueNums)
}

// What a consumer may ask of a send-back, and what is refused.
func TestSendBack(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "autoCreateSubscriptionGroup=false")})
	p := connect(t, b)
	p.send("T", 0, "x")
	r := p.awaitAs("TOOLS_CONSUMER", "T", 0, 0)
	p.require(p.call(sendBackRequest(&r, "nobody", 0)), protocol.ResponseSubscriptionGroupNotExist)

	group := func(name string, queues, limit int32) {
		g := protocol.NewSubscriptionGroupConfig(name)
		g.RetryQueueNums, g.RetryMaxTimes = queues, limit
		require.NoError(t, b.Groups.Put(g))
	}
	group("none", 0, 16)
	p.require(p.call(sendBackRequest(&r, "none", 0)), protocol.ResponseSuccess)
	require.Nil(t, b.Topics.Get("%RETRY%none"))

	group("G", 3, 16)
	lost := r
	lost.PhysicalOffset = 1 << 40
	require.Contains(t, p.require(p.call(sendBackRequest(&lost, "G", 0)), protocol.ResponseSystemError), "1099511627776")
	require.EqualValues(t, 3, b.Topics.Get("%RETRY%G").ReadQueueNums)
	p.require(p.call(sendBackRequest(&r, "G", -1)), protocol.ResponseSuccess) // below 0: dead at once
	require.EqualValues(t, 1, p.awaitAs("TOOLS_CONSUMER", "%DLQ%G", 0, 0).ReconsumeTimes)
	p.require(p.call(with(sendBackRequest(&r, "G", 0), "maxReconsumeTimes", "0")), protocol.ResponseSuccess) // by the client's own limit
	p.awaitAs("TOOLS_CONSUMER", "%DLQ%G", 0, 1)
	p.require(p.call(sendBackRequest(&r, "G", 18)), protocol.ResponseSuccess)
	delayed := p.awaitAs("TOOLS_CONSUMER", message.TopicSchedule, 17, 0)
	require.Equal(t, "%RETRY%G", string(delayed.Properties.Get("REAL_TOPIC")))

	// A consumer that could not send back sends to the retry topic itself: above its limit, or while it
	// consumes in order, that is the dead letters too.
	p.require(p.call(with(sendRequest("%RETRY%G", 0, "itself", "DELAY", "5"), "j", "16")), protocol.ResponseSuccess)
	require.Equal(t, "itself", string(p.awaitAs("TOOLS_CONSUMER", message.TopicSchedule, 4, 0).Body))
	p.require(p.call(with(sendRequest("%RETRY%G", 0, "itself", "DELAY", "5"), "j", "17")), protocol.ResponseSuccess)
	r = p.awaitAs("TOOLS_CONSUMER", "%DLQ%G", 0, 2)
	require.Equal(t, "-1", string(r.Properties.Get("DELAY")))
	p.require(p.call(with(with(sendRequest("%RETRY%G", 0, "itself"), "j", "1"), "l", "0")), protocol.ResponseSuccess)
	p.awaitAs("TOOLS_CONSUMER", "%DLQ%G", 0, 3)
	b.Locks.TryLockBatch("G", []protocol.MessageQueue{{Topic: "T", BrokerName: "broker-a"}}, "client")
	p.require(p.call(sendRequest("%RETRY%G", 0, "in order")), protocol.ResponseSuccess)
	p.awaitAs("TOOLS_CONSUMER", "%DLQ%G", 0, 4)
}

func (p *peer) awaitAs(group, topic string, queue int, offset int64) message.Record {
	p.tb.Helper()
	got := p.pull(group, topic, queue, offset, "*", 15*time.Second)
	require.Equal(p.tb, protocol.ResponseSuccess, got.code, got.remark)
	return got.records[0]
}

// A message with a delay level comes when it is due and not before, in the order of its level, where it
// was sent to, also when the broker was away in between; levels above the last count as the last.
func TestDelayLevels(t *testing.T) {
	dir := t.TempDir()
	s := settings(t, dir, "messageDelayLevel=1s 2s", "flushDelayOffsetInterval=100")
	b, err := New(Options{Settings: s})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	p := connect(t, b)
	p.send("T", 0, "now")
	resp := p.send("T", 1, "later 0", "DELAY", "1", "TAGS", "A", "TIMER_DELAY_SEC", "9")
	require.Equal(t, "1", resp.GetString("queueId"))
	p.send("T", 1, "later 1", "DELAY", "1")
	p.send("T", 2, "last", "DELAY", "99")
	stored := p.await(message.TopicSchedule, 0, 0)
	require.Equal(t, "T", string(stored.Properties.Get("REAL_TOPIC")))
	require.Equal(t, "1", string(stored.Properties.Get("REAL_QID")))
	require.Nil(t, stored.Properties.Get("TIMER_DELAY_SEC"))
	require.Equal(t, "2", string(p.await(message.TopicSchedule, 1, 0).Properties.Get("DELAY")))

	got := p.await("T", 1, 0)
	require.Equal(t, "later 0", string(got.Body))
	require.GreaterOrEqual(t, got.StoreTimestamp-stored.StoreTimestamp, int64(1000))
	require.Equal(t, stored.BornTimestamp, got.BornTimestamp)
	require.Equal(t, stored.BornHost, got.BornHost)
	require.Equal(t, stored.Properties, got.Properties)
	require.Equal(t, "later 1", string(p.await("T", 1, 1).Body))
	// A message can be read a moment before whoever delivered it has noted that.
	require.Eventually(t, func() bool { return b.schedule.Progress()[1] == [2]int64{2, 2} }, 10*time.Second, time.Millisecond)
	require.NoError(t, stopBroker(b))
	var file struct{ OffsetTable map[string]int64 }
	text, err := os.ReadFile(filepath.Join(dir, "config", "delayOffset.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &file))
	require.EqualValues(t, 2, file.OffsetTable["1"])

	b = startBroker(t, Options{Settings: s})
	p = connect(t, b)
	require.Equal(t, "last", string(p.await("T", 2, 0).Body))
	require.Equal(t, [2]int64{2, 2}, b.schedule.Progress()[1])
	got2 := p.pull("tool", "T", 1, 0, "*", 0)
	require.Len(t, got2.records, 2, "nothing is delivered twice")

	// Only a master delivers.
	b.SetRole(false)
	p.send("T", 3, "waits", "DELAY", "1")
	p.await(message.TopicSchedule, 0, 2)
	require.Equal(t, protocol.ResponsePullNotFound, p.pull("tool", "T", 3, 0, "*", 1500*time.Millisecond).code)
	b.SetRole(true)
	require.Equal(t, "waits", string(p.await("T", 3, 0).Body))
}

// Progress that lies outside its queue is brought to its nearer end, Apache's unquoted keys are read.
func TestDelayOffsetsClamped(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "config"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config", "delayOffset.json"), []byte("{\n\t\"offsetTable\":{1:77,2:-4,40:5}\n}"), 0o600))
	b := startBroker(t, Options{Settings: settings(t, dir, "messageDelayLevel=1s 2s")})
	p := connect(t, b)
	p.send("T", 0, "later", "DELAY", "1")
	require.Equal(t, "later", string(p.await("T", 0, 0).Body))
}
