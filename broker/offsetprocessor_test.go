package broker

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// offset asks for an offset; fields are name and value by turns.
func (p *peer) offset(code protocol.RequestCode, fields ...string) int64 {
	p.tb.Helper()
	n, err := strconv.ParseInt(p.ask(request(code, fields...), nil).GetString("offset"), 10, 64)
	require.NoError(p.tb, err)
	return n
}

// Where a group begins that has committed nothing: at 0 on a young queue, by its own rule anywhere else.
func TestQueryOffset(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	query := func(queue string, more ...string) *protocol.Command {
		return request(protocol.RequestQueryConsumerOffset, append([]string{"consumerGroup", "G", "topic", "T", "queueId", queue}, more...)...)
	}
	p.refused(query("0"), protocol.ResponseQueryNotFound) // no topic, no queue
	p.ask(topicRequest("T"), nil)
	p.refused(query("0"), protocol.ResponseQueryNotFound) // nothing in the queue
	p.send("T", 0, "first")
	p.dispatched()
	require.Equal(t, "0", p.ask(query("0"), nil).GetString("offset"))
	require.Equal(t, "0", p.ask(query("0", "setZeroIfNotFound", "true"), nil).GetString("offset"))
	require.Contains(t, p.refused(query("0", "setZeroIfNotFound", "false"), protocol.ResponseQueryNotFound), "do not set to zero")
	p.refused(query("1"), protocol.ResponseQueryNotFound)
	p.b.hostMemory = 0 // the first message is taken for long out of memory
	p.send("T", 0, "second")
	p.dispatched()
	p.refused(query("0"), protocol.ResponseQueryNotFound)

	p.b.Groups.Find("G")
	commit := func(fields ...string) *protocol.Command {
		return request(protocol.RequestUpdateConsumerOffset, append([]string{"consumerGroup", "G", "topic", "T"}, fields...)...)
	}
	p.ask(commit("queueId", "0", "commitOffset", "7"), nil)
	require.Equal(t, "7", p.ask(query("0"), nil).GetString("offset"))
	p.ask(commit("queueId", "0", "commitOffset", "3"), nil)
	require.Equal(t, "3", p.ask(query("0"), nil).GetString("offset"), "commits go backwards")
	require.Contains(t, p.refused(commit("queueId", "0"), protocol.ResponseInvalidParameter), "Offset is null")
	require.Contains(t, p.refused(commit("commitOffset", "0"), protocol.ResponseInvalidParameter), "QueueId is null")
	require.Contains(t, p.refused(commit("queueId", "-1", "commitOffset", "0"), protocol.ResponseInvalidParameter), "queueId -1")
	require.Contains(t, p.refused(with(commit("queueId", "0", "commitOffset", "1"), "consumerGroup", "H"), protocol.ResponseSubscriptionGroupNotExist), "Group H not exist!")
	require.Contains(t, p.refused(with(commit("queueId", "0", "commitOffset", "1"), "topic", "U"), protocol.ResponseTopicNotExist), "Topic U not exist!")

	// One-way, as Java sends it: no answer, and it counts.
	req := commit("queueId", "2", "commitOffset", "9")
	require.NoError(t, p.conn.Oneway(req))
	require.Eventually(t, func() bool { return p.b.Offsets.Offsets("G", "T")[2] == 9 }, eventually, tick)
}

// Bounds and times of a queue, and 0 where there is nothing.
func TestQueueOffsets(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	at := []string{"topic", "T", "queueId", "0"}
	require.Zero(t, p.offset(protocol.RequestGetMaxOffset, at...))
	require.Zero(t, p.offset(protocol.RequestGetMinOffset, at...))
	require.Zero(t, p.offset(protocol.RequestSearchOffsetByTimestamp, append(at, "timestamp", "5")...))
	require.Equal(t, "-1", p.ask(request(protocol.RequestGetEarliestMsgStoreTime, at...), nil).GetString("timestamp"))
	for range 3 {
		p.send("T", 0, "x")
	}
	p.dispatched()
	require.EqualValues(t, 3, p.offset(protocol.RequestGetMaxOffset, at...))
	require.Zero(t, p.offset(protocol.RequestGetMinOffset, at...))
	first, err := p.b.store.StoreTime("T", 0, 0)
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(first, 10), p.ask(request(protocol.RequestGetEarliestMsgStoreTime, at...), nil).GetString("timestamp"))
	search := func(millis int64, bound string) int64 {
		return p.offset(protocol.RequestSearchOffsetByTimestamp, append(at, "timestamp", strconv.FormatInt(millis, 10), "boundaryType", bound)...)
	}
	require.Zero(t, search(first-1000, "LOWER"))
	require.Zero(t, search(first-1000, "upper"))
	require.EqualValues(t, 3, search(first+100_000, "lower"))
	require.EqualValues(t, 2, search(first+100_000, "UPPER"))
	require.Contains(t, p.refused(request(protocol.RequestSearchOffsetByTimestamp, at...), protocol.ResponseSystemError), "the header field timestamp is missing")
}

// A reset works without a consumer: the next pull of each queue is sent to the new offset, and what was
// committed on the way is dropped.
func TestResetOffset(t *testing.T) {
	dir := t.TempDir()
	b := startBroker(t, Options{Settings: settings(t, dir)})
	p := connect(t, b)
	p.ask(topicRequest("T", "readQueueNums", "2", "writeQueueNums", "2"), nil)
	for range 5 {
		p.send("T", 0, "x")
	}
	p.dispatched()
	b.Groups.Find("G")
	reset := func(more ...string) *protocol.Command {
		return request(protocol.RequestInvokeBrokerToResetOffset, append([]string{"topic", "T", "group", "G", "timestamp", "-1", "isForce", "true"}, more...)...)
	}
	q := func(id int32) protocol.MessageQueue {
		return protocol.MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: id}
	}
	p.refused(with(reset(), "topic", "U"), protocol.ResponseTopicNotExist)
	p.refused(with(reset(), "group", "H"), protocol.ResponseSubscriptionGroupNotExist)
	require.Equal(t, "Target offset 7 not in consume queue range [0-5]", p.refused(reset("queueId", "0", "offset", "7"), protocol.ResponseSystemError))

	commit := func(offset string) *protocol.Command {
		return request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", offset)
	}
	p.ask(commit("5"), nil)
	var body protocol.ResetOffsetBody
	p.ask(reset("queueId", "0", "offset", "2"), &body)
	require.Equal(t, map[protocol.MessageQueue]int64{q(0): 2}, body.OffsetTable)
	require.Equal(t, "Offset has been previously reset", string(p.ask(commit("5"), nil).Remark))
	require.EqualValues(t, 2, p.offset(protocol.RequestQueryConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0"))

	// It survives a restart.
	require.NoError(t, stopBroker(b))
	b = startBroker(t, Options{Settings: settings(t, dir)})
	p = connect(t, b)
	require.Equal(t, "Offset has been previously reset", string(p.ask(commit("5"), nil).Remark))
	moved := p.pull("G", "T", 0, 5, "*", 0)
	require.Equal(t, protocol.ResponsePullOffsetMoved, moved.code)
	require.EqualValues(t, 2, moved.header.NextBeginOffset)
	require.Len(t, p.pull("G", "T", 0, 2, "*", 0).records, 3)
	require.Empty(t, p.ask(commit("3"), nil).Remark)

	p.ask(reset(), &body) // to the end, all queues
	require.Equal(t, map[protocol.MessageQueue]int64{q(0): 5, q(1): 0}, body.OffsetTable)
	first, err := b.store.StoreTime("T", 0, 0)
	require.NoError(t, err)
	p.ask(with(reset(), "timestamp", strconv.FormatInt(first-1, 10)), &body)
	require.Equal(t, map[protocol.MessageQueue]int64{q(0): 0, q(1): 0}, body.OffsetTable)
}

// A pull that is held hears of a reset, and of the end of its topic, at once.
func TestHeldPullHears(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p, admin := connect(t, b), connect(t, b)
	p.ask(topicRequest("T"), nil)
	hold := func() <-chan *protocol.Command {
		answer := make(chan *protocol.Command, 1)
		require.NoError(t, p.conn.Start(&remoting.Call{Request: pullRequest("G", "T", 0, 0, "*", time.Minute), Timeout: 2 * time.Minute, Done: func(c *remoting.Call) {
			if c.Err != nil {
				close(answer)
				return
			}
			answer <- c.Response.Clone()
		}}))
		p.conn.Flush()
		require.Eventually(t, func() bool { return b.holds.Len() == 1 }, eventually, tick)
		return answer
	}
	reset := request(protocol.RequestInvokeBrokerToResetOffset, "topic", "T", "group", "Other", "timestamp", "-1", "isForce", "true")
	b.Groups.Find("Other")
	answer := hold()
	admin.ask(reset, nil)
	require.Equal(t, 1, b.holds.Len(), "it is another group's")
	admin.ask(with(reset, "group", "G"), nil)
	got := parsePulled(t, <-answer)
	require.Equal(t, protocol.ResponsePullOffsetMoved, got.code)
	require.Equal(t, "OFFSET_RESET", got.remark)
	require.False(t, b.Offsets.HasReset("G", "T", 0))
	require.True(t, b.Offsets.HasReset("G", "T", 1))
	answer = hold()
	admin.ask(request(protocol.RequestDeleteTopicInBroker, "topic", "T"), nil)
	require.Equal(t, protocol.ResponseTopicNotExist, parsePulled(t, <-answer).code)
}

// One group goes on where another one is; and the lowest offsets of all groups, which drops those of the
// groups that it is told to leave out, as in Apache.
func TestCloneAndCorrection(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	for _, topic := range []string{"T", "U"} {
		p.ask(topicRequest(topic), nil)
	}
	set := func(group, topic string, queue int32, offset int64) {
		p.b.Offsets.Commit([]byte(group), []byte(topic), queue, offset)
	}
	set("src", "T", 0, 4)
	set("src", "T", 1, 6)
	set("src", "U", 0, 9)
	set("src", "Unknown", 0, 1)
	p.ask(request(protocol.RequestCloneGroupOffset, "srcGroup", "src", "destGroup", "one", "topic", "T", "offline", "false"), nil)
	require.Equal(t, []string{"T"}, p.b.Offsets.TopicsOf("one"))
	p.ask(request(protocol.RequestCloneGroupOffset, "srcGroup", "src", "destGroup", "all", "topic", "", "offline", "false"), nil)
	require.Equal(t, []string{"T", "U"}, p.b.Offsets.TopicsOf("all"))
	require.Equal(t, map[int32]int64{0: 4, 1: 6}, p.b.Offsets.Offsets("all", "T"))
	p.beat("c", "src", "U")
	p.ask(request(protocol.RequestCloneGroupOffset, "srcGroup", "src", "destGroup", "two", "topic", "T", "offline", "false"), nil)
	require.Nil(t, p.b.Offsets.TopicsOf("two"), "online and without the topic")
	p.ask(request(protocol.RequestCloneGroupOffset, "srcGroup", "src", "destGroup", "two", "topic", "T", "offline", "true"), nil)
	require.Equal(t, []string{"T"}, p.b.Offsets.TopicsOf("two"))

	set("low", "T", 0, 1)
	correct := func(filter string) map[int32]int64 {
		var b protocol.CorrectionOffsetBody
		p.ask(request(protocol.RequestQueryCorrectionOffset, "filterGroups", filter, "compareGroup", "behind", "topic", "T"), &b)
		return b.CorrectionOffsets
	}
	require.Equal(t, map[int32]int64{0: 1, 1: 6}, correct(""))
	set("behind", "T", 1, 2)
	require.Equal(t, map[int32]int64{0: 1, 1: 2}, correct(""))
	set("behind", "T", 0, 0)
	require.Equal(t, map[int32]int64{0: 4, 1: 6}, correct("low, behind"))
	require.Nil(t, p.b.Offsets.TopicsOf("low"))

	var all protocol.ConsumerOffsetWrapper
	p.ask(request(protocol.RequestGetAllConsumerOffset), &all)
	require.Equal(t, map[int32]int64{0: 9}, all.OffsetTable["U@all"])
	require.NotNil(t, all.DataVersion)
	require.Contains(t, string(p.ask(request(protocol.RequestGetAllDelayOffset), nil).Body), "offsetTable")
}

// Messages by key, unique key, time and id.
func TestQueryMessages(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	var ids []string
	for i := range 3 {
		ids = append(ids, p.send("T", 0, strconv.Itoa(i), "KEYS", "k k"+strconv.Itoa(i), "UNIQ_KEY", "U"+strconv.Itoa(i)).GetString("msgId"))
	}
	p.dispatched()
	query := func(key string, more ...string) *protocol.Command {
		return request(protocol.RequestQueryMessage, append([]string{"topic", "T", "key", key, "maxNum", "32", "beginTimestamp", "0",
			"endTimestamp", "9223372036854775807"}, more...)...)
	}
	bodies := func(resp *protocol.Command) (out []string) {
		for b := resp.Body; len(b) > 0; {
			var r message.Record
			require.NoError(t, message.ParseRecord(b, &r))
			out, b = append(out, string(r.Body)), b[r.Size:]
		}
		return out
	}
	resp := p.ask(query("k"), nil)
	require.Equal(t, []string{"0", "1", "2"}, bodies(resp))
	require.Equal(t, strconv.FormatInt(p.b.store.Max(), 10), resp.GetString("indexLastUpdatePhyoffset"))
	require.NotEmpty(t, resp.GetString("indexLastUpdateTimestamp"))
	require.Equal(t, []string{"1"}, bodies(p.ask(query("k1"), nil)))
	require.Equal(t, []string{"2"}, bodies(p.ask(query("U2", "_UNIQUE_KEY_QUERY", "true"), nil)))
	require.Len(t, bodies(p.ask(with(query("k"), "maxNum", "2"), nil)), 2)
	require.Equal(t, "can not find message, maybe time range not correct", p.refused(query("nope"), protocol.ResponseQueryNotFound))
	resp = p.call(with(query("k"), "endTimestamp", "5"))
	p.require(resp, protocol.ResponseQueryNotFound)
	require.NotEmpty(t, resp.GetString("indexLastUpdateTimestamp"), "how far the index is")

	id, err := message.ParseID(ids[1])
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, bodies(p.ask(request(protocol.RequestViewMessageByID, "offset", strconv.FormatInt(id.Pos, 10)), nil)))
	for _, pos := range []int64{id.Pos + 1, p.b.store.Max(), 1 << 40, -1} {
		require.Equal(t, "can not find message by the offset, "+strconv.FormatInt(pos, 10),
			p.refused(request(protocol.RequestViewMessageByID, "offset", strconv.FormatInt(pos, 10)), protocol.ResponseSystemError))
	}
}

// Every key that tools read is there, in the form in which they take it apart.
func TestRuntimeInfo(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "x")
	p.send("T", 0, "late", "DELAY", "3")
	p.dispatched()
	p.pull("G", "T", 0, 0, "*", 0)
	var kv protocol.KVTable
	p.ask(request(protocol.RequestGetBrokerRuntimeInfo), &kv)
	var brief protocol.KVTable
	p.ask(request(protocol.RequestGetBrokerRuntimeInfo, "roleOnly", "true"), &brief)
	require.Empty(t, brief.Table, "it leads")
	forms := map[string]string{
		`^\d+$`: `brokerVersion bootTimestamp msgPutTotalYesterdayMorning msgPutTotalTodayMorning msgPutTotalTodayNow
			msgGetTotalYesterdayMorning msgGetTotalTodayMorning msgGetTotalTodayNow sendThreadPoolQueueSize sendThreadPoolQueueCapacity
			pullThreadPoolQueueSize pullThreadPoolQueueCapacity litePullThreadPoolQueueSize litePullThreadPoolQueueCapacity
			queryThreadPoolQueueSize queryThreadPoolQueueCapacity ackThreadPoolQueueSize ackThreadPoolQueueCapacity
			EndTransactionQueueSize EndTransactionThreadPoolQueueCapacity sendThreadPoolQueueHeadWaitTimeMills
			pullThreadPoolQueueHeadWaitTimeMills queryThreadPoolQueueHeadWaitTimeMills litePullThreadPoolQueueHeadWaitTimeMills
			ackThreadPoolQueueHeadWaitTimeMills pageCacheLockTimeMills earliestMessageTimeStamp commitLogMinOffset commitLogMaxOffset
			remainTransientStoreBufferNumbs dispatchBehindBytes dispatchMaxBuffer startAcceptSendRequestTimeStamp putMessageEntireTimeMax
			getMessageEntireTimeMax putMessageTimesTotal putMessageFailedTimes putMessageSizeTotal timerReadBehind timerOffsetBehind
			timerCongestNum timerEnqueueTps timerDequeueTps`,
		`^\d+\.\d+ \d+\.\d+ \d+\.\d+$`: `putTps getTransferredTps getTransferedTps getTotalTps getFoundTps getMissTps`,
		`^\d+\.\d+$`:                   `putMessageAverageSize putLatency99 putLatency999 commitLogDiskRatio consumeQueueDiskRatio`,
		`^V5_3_3$`:                     `brokerVersionDesc`,
		`^true$`:                       `brokerActive`,
		`^\d+(\.\d+)? .?i?B$`:          `remainHowManyDataToFlush remainHowManyDataToCommit`,
		`^\[ 0 days, 0 hours, 0 minutes, \d+ seconds \]$`: `runtime`,
		`^Total : .*iB, Free : .*iB\.$`:                   `commitLogDirCapacity`,
		`^\[<=0ms\]:\d+ \[0~10ms\]:`:                      `putMessageDistributeTime`,
		`^\d,1$`:                                          `scheduleMessageOffset_3`,
	}
	for form, keys := range forms {
		for _, key := range strings.Fields(keys) {
			require.Contains(t, kv.Table, key)
			require.Regexp(t, form, kv.Table[key], key)
		}
	}
	require.Equal(t, "2", kv.Table["msgPutTotalTodayNow"])
	require.Equal(t, "1", kv.Table["msgGetTotalTodayNow"])
	ratio, err := strconv.ParseFloat(kv.Table["commitLogDiskRatio"], 64)
	require.NoError(t, err)
	require.True(t, ratio > 0 && ratio <= 1)
	require.InDelta(t, time.Now().UnixMilli(), mustInt(t, kv.Table["earliestMessageTimeStamp"]), 60_000)

	require.Equal(t, "The stats <TOPIC_PUT_NUMS> <U> not exist", p.refused(request(protocol.RequestViewBrokerStatsData, "statsName", "TOPIC_PUT_NUMS", "statsKey", "U"), protocol.ResponseSystemError))
	var stats protocol.BrokerStatsData
	p.ask(request(protocol.RequestViewBrokerStatsData, "statsName", "TOPIC_PUT_NUMS", "statsKey", "T"), &stats)
	var ha protocol.HARuntimeInfo
	p.ask(request(protocol.RequestGetBrokerHAStatus), &ha)
	require.True(t, ha.Master)
	require.Equal(t, p.b.store.Max(), ha.MasterCommitLogMaxOffset)
}

func mustInt(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err)
	return n
}

// Sizes as Apache writes them.
func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 40: "3.0 TiB"} {
		require.Equal(t, want, humanBytes(n))
	}
}
