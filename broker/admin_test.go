package broker

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// topicRequest is UPDATE_AND_CREATE_TOPIC as mqadmin sends it, with fields replaced.
func topicRequest(topic string, replace ...string) *protocol.Command {
	req := request(protocol.RequestUpdateAndCreateTopic, "topic", topic, "defaultTopic", "TBW102", "readQueueNums", "4", "writeQueueNums", "4",
		"perm", "6", "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false")
	for i := 0; i < len(replace); i += 2 {
		with(req, replace[i], replace[i+1])
	}
	return req
}

// What is refused of a topic, with which code and in which words, and that nothing is left of it.
func TestUpdateTopicRefused(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.ask(topicRequest("Old", "attributes", "+message.type=FIFO,+queue.type=SimpleCQ"), nil)
	before := p.b.Topics.DataVersion()
	for _, tc := range []struct {
		topic  string
		fields []string
		code   protocol.ResponseCode
		want   string
	}{
		{" ", nil, 29, "The specified topic is blank."},
		{"a b", nil, 29, "illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"},
		{"tópico", nil, 29, "illegal characters"},
		{strings.Repeat("x", 128), nil, 29, "longer than topic max length"},
		{"%RETRY%" + strings.Repeat("x", 249), nil, 29, "256 of at most 255"},
		{"TBW102", nil, 29, "The topic[TBW102] is conflict with system topic."},
		{"rmq_sys_x", nil, 29, "conflict with system topic"},
		{"DefaultCluster", nil, 29, "conflict with system topic"},
		{"broker-a", nil, 29, "conflict with system topic"},
		{"T", []string{"perm", "8"}, 29, "perm 8 of topic T is not in 0 to 7"},
		{"T", []string{"perm", "-1"}, 29, "perm -1"},
		{"T", []string{"readQueueNums", "-1"}, 29, "queue numbers -1 and 4"},
		{"T", []string{"writeQueueNums", "100000"}, 29, "not in 0 to 65536"},
		{"T", []string{"topicFilterType", "X"}, 29, "neither SINGLE_TAG nor MULTI_TAG"},
		{"T", []string{"readQueueNums", "x"}, 1, "readQueueNums has the value \"x\""},
		{"T", []string{"attributes", "+message.type=MIXED"}, 29, "MIXED message type is not supported."},
		{"T", []string{"attributes", "message.type=FIFO"}, 1, "add/alter attribute format is wrong: message.type"},
		{"T", []string{"attributes", "message.type"}, 1, "delete attribute format is wrong: message.type"},
		{"T", []string{"attributes", "+nope=1"}, 1, "unsupported key: nope"},
		{"T", []string{"attributes", "-message.type"}, 1, "only add attribute is supported while creating topic. key: message.type"},
		{"T", []string{"attributes", "+message.type=NORMAL,+message.type=FIFO"}, 1, "key duplication: +message.type"},
		{"T", []string{"attributes", "+message.type=BIG"}, 1, "value is not in set: BIG"},
		{"T", []string{"attributes", "+queue.type=BatchCQ"}, 1, "simple queues only"},
		{"T", []string{"attributes", "+cleanup.policy=COMPACTION"}, 1, "deletes by age only"},
		{"T", []string{"attributes", "+reserve.time=soon"}, 1, "not a number"},
		{"T", []string{"attributes", "+message.type=a-b"}, 1, "kv string format wrong"},
		{"Old", []string{"attributes", "+queue.type=SimpleCQ"}, 1, "attempt to update an unchangeable attribute. key: queue.type"},
		{"Old", []string{"attributes", "-reserve.time"}, 1, "attempt to delete a nonexistent key: reserve.time"},
		{"Old", []string{"attributes", "+message.type=FIFO,-message.type"}, 1, "alter duplication key. key: message.type"},
	} {
		remark := p.refused(topicRequest(tc.topic, tc.fields...), tc.code)
		require.Contains(t, remark, tc.want, "%q %v", tc.topic, tc.fields)
	}
	require.Equal(t, before, p.b.Topics.DataVersion())
	require.Nil(t, p.b.Topics.Get("T"))
}

// Attributes are changed one by one, and an update that changes nothing is no change.
func TestUpdateTopic(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	version := func() int64 { return p.b.Topics.DataVersion().Counter }
	v := version()
	p.ask(topicRequest("T", "attributes", "+message.type=FIFO,+reserve.time=-1", "order", "true", "topicSysFlag", "2"), nil)
	var c protocol.TopicConfigAndMapping
	get := request(protocol.RequestGetTopicConfig, "topic", "T", "lo", "true")
	p.ask(get, &c)
	require.Equal(t, protocol.TopicConfig{
		TopicName: "T", ReadQueueNums: 4, WriteQueueNums: 4, Perm: 6, TopicFilterType: "SINGLE_TAG", TopicSysFlag: 2, Order: true,
		Attributes: map[string]string{"message.type": "FIFO", "reserve.time": "-1"},
	}, c.TopicConfig)
	p.ask(topicRequest("T", "attributes", "", "order", "true", "topicSysFlag", "2"), nil)
	require.Equal(t, v+1, version(), "nothing has changed")
	p.ask(topicRequest("T", "attributes", "-reserve.time,+message.type=DELAY"), nil)
	p.ask(get, &c)
	require.Equal(t, map[string]string{"message.type": "DELAY"}, c.Attributes)
	require.False(t, c.Order)

	require.Contains(t, p.refused(request(protocol.RequestGetTopicConfig, "topic", "Nope"), protocol.ResponseTopicNotExist), "No topic in this broker. topic: Nope")

	// A list is taken as a whole: the unchanged first one does not end it, and one bad name refuses it.
	list := protocol.TopicConfigList{TopicConfigList: []*protocol.TopicConfig{protocol.NewTopicConfig("A", 1), protocol.NewTopicConfig("B", 2)}}
	p.ask(withBody(request(protocol.RequestUpdateAndCreateTopicList), list), nil)
	list.TopicConfigList = append(list.TopicConfigList, protocol.NewTopicConfig("C", 3))
	p.ask(withBody(request(protocol.RequestUpdateAndCreateTopicList), list), nil)
	require.NotNil(t, p.b.Topics.Get("C"))
	list.TopicConfigList = []*protocol.TopicConfig{protocol.NewTopicConfig("D", 1), protocol.NewTopicConfig("bad name", 1)}
	p.refused(withBody(request(protocol.RequestUpdateAndCreateTopicList), list), protocol.ResponseInvalidParameter)
	require.Nil(t, p.b.Topics.Get("D"))
	p.refused(withBody(request(protocol.RequestUpdateAndCreateTopicList), `{"topicConfigList":[null]}`), protocol.ResponseInvalidParameter)
	p.refused(withBody(request(protocol.RequestUpdateAndCreateTopicList), `{"topicConfigList":`), protocol.ResponseSystemError)
}

// Queues go away for readers and writers without a message lost: what is in them is there again when
// they come back.
func TestQueuesShrinkAndGrow(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.ask(topicRequest("T"), nil)
	p.send("T", 3, "kept")
	p.ask(topicRequest("T", "writeQueueNums", "2"), nil)
	p.send("T", 3, "from an old route")
	p.dispatched()
	require.Len(t, p.pull("G", "T", 3, 0, "*", 0).records, 2)
	p.ask(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "3", "commitOffset", "1"), nil)
	p.ask(topicRequest("T", "readQueueNums", "2", "writeQueueNums", "2"), nil)
	require.Equal(t, protocol.ResponseInvalidParameter, p.pull("G", "T", 3, 0, "*", 0).code)
	require.Equal(t, protocol.ResponseInvalidParameter.String(), protocol.ResponseCode(p.call(sendRequest("T", 3, "x")).Code).String())
	p.ask(topicRequest("T"), nil)
	resp := p.ask(request(protocol.RequestQueryConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "3"), nil)
	require.Equal(t, "1", resp.GetString("offset"))
	require.Equal(t, []string{"from an old route"}, p.pull("G", "T", 3, 1, "*", 0).bodies())
}

// A topic that is deleted takes its queues and its offsets along, and comes back empty.
func TestDeleteTopic(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	for range 3 {
		p.send("T", 0, "x")
	}
	p.dispatched()
	p.pull("G", "T", 0, 0, "*", 0)
	p.ask(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", "2"), nil)
	del := func(topic string) *protocol.Command {
		return request(protocol.RequestDeleteTopicInBroker, "topic", topic)
	}
	require.Contains(t, p.refused(del(" "), protocol.ResponseInvalidParameter), "blank")
	require.Contains(t, p.refused(del("SCHEDULE_TOPIC_XXXX"), protocol.ResponseInvalidParameter), "conflict with system topic")
	p.ask(del("Unknown"), nil)
	p.ask(del("T"), nil)
	require.Nil(t, p.b.Topics.Get("T"))
	require.Empty(t, p.b.Offsets.TopicsOf("G"))
	require.Equal(t, protocol.ResponseTopicNotExist, p.pull("G", "T", 0, 0, "*", 0).code)
	p.refused(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", "2"), protocol.ResponseTopicNotExist)
	resp := p.send("T", 0, "again")
	require.Equal(t, "3", resp.GetString("queueOffset"), "offsets are not used twice")
	p.dispatched()
	moved := p.pull("G", "T", 0, 0, "*", 0)
	require.Equal(t, protocol.ResponsePullOffsetMoved, moved.code)
	require.Equal(t, []string{"again"}, p.pull("G", "T", 0, moved.header.NextBeginOffset, "*", 0).bodies())
}

// The listings of topics, whole and in pages, are standard JSON in compact form.
func TestListTopics(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.ask(topicRequest("T"), nil)
	var all protocol.TopicConfigWrapper
	resp := p.ask(request(protocol.RequestGetAllTopicConfig), &all)
	require.Equal(t, strconv.Itoa(p.b.Topics.Len()), resp.GetString("totalTopicNum"))
	require.Len(t, all.TopicConfigTable, p.b.Topics.Len())
	require.Equal(t, p.b.Topics.DataVersion(), all.DataVersion)
	require.NotContains(t, string(resp.Body), "\n")
	require.Contains(t, string(resp.Body), `"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}`)
	got := map[string]bool{}
	for seq := 0; seq < p.b.Topics.Len(); seq += 4 {
		var page protocol.TopicConfigWrapper
		p.ask(request(protocol.RequestGetAllTopicConfig, "topicSeq", strconv.Itoa(seq), "maxTopicNum", "4", "dataVersion", "{}"), &page)
		require.LessOrEqual(t, len(page.TopicConfigTable), 4)
		for name := range page.TopicConfigTable {
			got[name] = true
		}
	}
	require.Len(t, got, p.b.Topics.Len())
	var list protocol.TopicList
	p.ask(request(protocol.RequestGetSystemTopicListFromBroker), &list)
	require.Contains(t, list.TopicList, "TBW102")
	require.Contains(t, list.TopicList, "broker-a")
	require.NotContains(t, list.TopicList, "T")
}

// What topicStatus, consumerProgress, consumeTimeSpan and queryCq show of messages and offsets.
func TestTopicAndConsumeStats(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.ask(topicRequest("T", "readQueueNums", "2", "writeQueueNums", "3"), nil)
	for i := range 5 {
		p.send("T", 1, fmt.Sprint(i), "TAGS", "A")
	}
	p.dispatched()
	q := func(id int32) protocol.MessageQueue {
		return protocol.MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: id}
	}
	first, err := p.b.store.StoreTime("T", 1, 0)
	require.NoError(t, err)
	last, err := p.b.store.StoreTime("T", 1, 4)
	require.NoError(t, err)

	var stats protocol.TopicStatsTable
	resp := p.ask(request(protocol.RequestGetTopicStatsInfo, "topic", "T"), &stats)
	require.Equal(t, map[protocol.MessageQueue]protocol.TopicOffset{q(0): {}, q(1): {MaxOffset: 5, LastUpdateTimestamp: last}, q(2): {}}, stats.OffsetTable)
	require.Contains(t, string(resp.Body), `{"brokerName":"broker-a","queueId":1,"topic":"T"}:{`)
	require.Contains(t, p.refused(request(protocol.RequestGetTopicStatsInfo, "topic", "U"), protocol.ResponseTopicNotExist), "topic[U] not exist")

	p.beat("c", "G", "T")
	p.ask(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "1", "commitOffset", "2"), nil)
	p.pull("G", "T", 1, 2, "*", 0)
	var cs protocol.ConsumeStats
	p.ask(request(protocol.RequestGetConsumeStats, "consumerGroup", "G", "topic", ""), &cs)
	second, err := p.b.store.StoreTime("T", 1, 1)
	require.NoError(t, err)
	require.Equal(t, map[protocol.MessageQueue]protocol.OffsetWrapper{q(0): {}, q(1): {BrokerOffset: 5, ConsumerOffset: 2, PullOffset: 5, LastTimestamp: second}}, cs.OffsetTable)
	p.beat("c", "G", "Other") // online, and not interested in T any more
	p.ask(request(protocol.RequestGetConsumeStats, "consumerGroup", "G", "topic", "T"), &cs)
	require.Empty(t, cs.OffsetTable)
	p.ask(request(protocol.RequestGetConsumeStats, "consumerGroup", "G", "topicList", "T;Nope"), &cs)
	require.Len(t, cs.OffsetTable, 2)
	p.beat("c", "G", "T")
	var list protocol.ConsumeStatsList
	p.ask(request(protocol.RequestGetBrokerConsumeStats, "isOrder", "false"), &list)
	require.EqualValues(t, 3, list.TotalDiff)
	require.EqualValues(t, 3, list.TotalInflightDiff)
	require.Equal(t, p.b.advertised(), list.BrokerAddr)
	require.Len(t, list.ConsumeStatsList, p.b.Groups.Len())
	p.ask(request(protocol.RequestGetBrokerConsumeStats, "isOrder", "true"), &list)
	require.Zero(t, list.TotalDiff)

	var span protocol.ConsumeTimeSpanBody
	p.ask(request(protocol.RequestQueryConsumeTimeSpan, "topic", "T", "group", "G"), &span)
	require.Len(t, span.ConsumeTimeSpanSet, 3)
	require.Equal(t, protocol.QueueTimeSpan{MessageQueue: q(0), MinTimeStamp: -1, MaxTimeStamp: -1, ConsumeTimeStamp: -1}, span.ConsumeTimeSpanSet[0])
	s := span.ConsumeTimeSpanSet[1]
	require.Equal(t, []int64{first, last, second}, []int64{s.MinTimeStamp, s.MaxTimeStamp, s.ConsumeTimeStamp})
	require.GreaterOrEqual(t, s.DelayTime, int64(0))
	p.refused(request(protocol.RequestQueryConsumeTimeSpan, "topic", "U", "group", "G"), protocol.ResponseTopicNotExist)

	var groups protocol.GroupList
	p.ask(request(protocol.RequestQueryTopicConsumeByWho, "topic", "T"), &groups)
	require.Equal(t, []string{"G"}, groups.GroupList)
	var topics protocol.TopicList
	p.ask(request(protocol.RequestQueryTopicsByConsumer, "group", "G"), &topics)
	require.Equal(t, protocol.TopicList{TopicList: []string{"T"}, BrokerAddr: p.b.advertised()}, topics)

	cq := func(index, count string) *protocol.Command {
		return request(protocol.RequestQueryConsumeQueue, "topic", "T", "queueId", "1", "index", index, "count", count, "consumerGroup", "G")
	}
	var entries protocol.QueryConsumeQueueBody
	p.ask(cq("3", "10"), &entries)
	require.Len(t, entries.QueueData, 2)
	require.Equal(t, []int64{0, 5}, []int64{entries.MinQueueIndex, entries.MaxQueueIndex})
	require.True(t, entries.QueueData[0].Eval)
	require.EqualValues(t, 'A', entries.QueueData[0].TagsCode)
	resp = p.ask(cq("5", "10"), nil)
	require.Empty(t, resp.Body)
	require.Equal(t, "Index 5 of 1@T is not exist!", string(resp.Remark))
	require.Equal(t, "7@T is not exist!", p.refused(with(cq("0", "1"), "queueId", "7"), protocol.ResponseSystemError))
}

// Groups: what is refused, what is listed, what is forbidden, and what a deletion takes along.
func TestGroups(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	put := func(body string) *protocol.Command {
		return withBody(request(protocol.RequestUpdateAndCreateSubscriptionGroup), body)
	}
	for body, want := range map[string]string{
		`{"groupName":""}`: "blank", `{"groupName":"a b"}`: "illegal characters", `{"groupName":"` + strings.Repeat("g", 121) + `"}`: "121 of at most 120",
		`{"groupName":"g","retryQueueNums":-1}`: "retryQueueNums -1",
	} {
		require.Contains(t, p.refused(put(body), protocol.ResponseInvalidParameter), want)
	}
	p.refused(put(`{"groupName":`), protocol.ResponseSystemError)
	p.ask(put(`{"groupName":"g","retryMaxTimes":3}`), nil) // what is missing takes the default
	var c protocol.SubscriptionGroupConfig
	p.ask(request(protocol.RequestGetSubscriptionGroupConfig, "group", "g"), &c)
	want := protocol.NewSubscriptionGroupConfig("g")
	want.RetryMaxTimes, want.Attributes = 3, c.Attributes
	require.Equal(t, *want, c)
	require.Contains(t, p.refused(request(protocol.RequestGetSubscriptionGroupConfig, "group", "h"), protocol.ResponseSubscriptionGroupNotExist), "No group in this broker")

	list := func(names ...string) *protocol.Command {
		var l protocol.SubscriptionGroupList
		for _, n := range names {
			l.GroupConfigList = append(l.GroupConfigList, protocol.NewSubscriptionGroupConfig(n))
		}
		return withBody(request(protocol.RequestUpdateAndCreateSubscriptionGroupList), l)
	}
	p.refused(list("i", "bad name"), protocol.ResponseInvalidParameter)
	require.Nil(t, p.b.Groups.Get("i"))
	p.ask(list("i", "j"), nil)

	var all protocol.SubscriptionGroupWrapper
	resp := p.ask(request(protocol.RequestGetAllSubscriptionGroupConfig), &all)
	require.Equal(t, strconv.Itoa(p.b.Groups.Len()), resp.GetString("totalGroupNum"))
	require.Contains(t, string(resp.Body), `"forbiddenTable":{}`)
	for _, g := range []string{"g", "i", "j", "TOOLS_CONSUMER", "CID_RMQ_SYS_TRANS", "CID_ONSAPI_OWNER"} {
		require.NotNil(t, all.SubscriptionGroupTable[g], g)
	}
	p.ask(request(protocol.RequestGetAllSubscriptionGroupConfig, "groupSeq", "2", "maxGroupNum", "3"), &all)
	require.Len(t, all.SubscriptionGroupTable, 3)

	forbid := func(readable string) protocol.GroupForbidden {
		req := request(protocol.RequestUpdateAndGetGroupForbidden, "group", "g", "topic", "T")
		if readable != "" {
			req.Add("readable", readable)
		}
		var f protocol.GroupForbidden
		p.ask(req, &f)
		return f
	}
	require.True(t, forbid("").Readable)
	require.False(t, forbid("false").Readable)
	require.Equal(t, protocol.GroupForbidden{Group: "g", Topic: "T"}, forbid(""))
	p.send("T", 0, "x")
	p.dispatched()
	p.beat("c", "g", "T")
	pull := with(pullRequest("g", "T", 0, 0, "*", 0), "sysFlag", "0")
	require.Equal(t, protocol.ResponseNoPermission, parsePulled(t, p.call(pull)).code)
	require.True(t, forbid("true").Readable)
	require.Equal(t, protocol.ResponseSuccess, parsePulled(t, p.call(pull)).code)

	p.b.Offsets.Commit([]byte("g"), []byte("T"), 0, 1)
	del := func(fields ...string) {
		p.ask(request(protocol.RequestDeleteSubscriptionGroup, append([]string{"groupName", "g"}, fields...)...), nil)
	}
	del()
	require.Nil(t, p.b.Groups.Get("g"))
	require.NotNil(t, p.b.Offsets.Offsets("g", "T"), "offsets stay")
	p.beat("c", "g", "T")
	require.NotNil(t, p.b.Groups.Get("g"), "a member that is online brings the group back")
	del("removeOffset", "true")
	require.Nil(t, p.b.Offsets.Offsets("g", "T"))
}

// Groups that nobody has created come with the first heartbeat, unless that is turned off.
func TestGroupsNotCreated(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "autoCreateSubscriptionGroup=false")}))
	p.beat("c", "g", "T")
	require.Nil(t, p.b.Groups.Get("g"))
	require.Nil(t, p.b.Consumers.Find("g"))
	require.Nil(t, p.b.Topics.Get("%RETRY%g"))
	p.beat("c", "CID_RMQ_SYS_x", "T")
	require.NotNil(t, p.b.Consumers.Find("CID_RMQ_SYS_x"))
}

// Who is connected, as tools list it, with the codes that they branch on.
func TestConnections(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	addr := p.conn.LocalAddr().String()
	require.Equal(t, "the consumer group[G] not online", p.refused(request(protocol.RequestGetConsumerConnectionList, "consumerGroup", "G"), protocol.ResponseConsumerNotOnline))
	require.Equal(t, "the producer group[PG] not exist", p.refused(request(protocol.RequestGetProducerConnectionList, "producerGroup", "PG"), protocol.ResponseSystemError))
	p.beat("c", "G", "T")
	var consumers protocol.ConsumerConnection
	p.ask(request(protocol.RequestGetConsumerConnectionList, "consumerGroup", "G"), &consumers)
	require.Equal(t, []protocol.Connection{{ClientID: "c", ClientAddr: addr, Language: protocol.Go, Version: protocol.Version}}, consumers.ConnectionSet)
	require.Equal(t, []string{"CONSUME_PASSIVELY", "CLUSTERING", "CONSUME_FROM_LAST_OFFSET", "*"},
		[]string{consumers.ConsumeType, consumers.MessageModel, consumers.ConsumeFromWhere, consumers.SubscriptionTable["T"].SubString})
	var producers protocol.ProducerConnection
	p.ask(request(protocol.RequestGetProducerConnectionList, "producerGroup", "PG"), &producers)
	require.Equal(t, consumers.ConnectionSet, producers.ConnectionSet)
	var all protocol.ProducerTableInfo
	p.ask(request(protocol.RequestGetAllProducerInfo), &all)
	require.Len(t, all.Data["PG"], 1)
	require.Equal(t, addr, all.Data["PG"][0].RemoteIP)
	require.InDelta(t, time.Now().UnixMilli(), all.Data["PG"][0].LastUpdateTimestamp, 60_000)
	var sub protocol.QuerySubscriptionResponseBody
	p.ask(request(protocol.RequestQuerySubscriptionByConsumer, "group", "G", "topic", "T"), &sub)
	require.Equal(t, "*", sub.SubscriptionData.SubString)
	resp := p.ask(request(protocol.RequestQuerySubscriptionByConsumer, "group", "G", "topic", "U"), nil)
	require.NotContains(t, string(resp.Body), "subscriptionData")
}

// The cleaning requests: what is not configured goes, what is stays.
func TestCleaning(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("Keep", 0, "x")
	p.send("Gone", 0, "x")
	p.dispatched()
	_, err := p.b.Topics.Delete(t.Context(), "Gone") // its queues are left
	require.NoError(t, err)
	p.ask(request(protocol.RequestCleanUnusedTopic), nil)
	low, high, _ := p.b.store.QueueRange("Gone", 0)
	require.Equal(t, high, low)
	p.ask(request(protocol.RequestCleanExpiredConsumeQueue), nil)
	p.ask(request(protocol.RequestDeleteExpiredCommitLog), nil)
	require.Len(t, p.pull("G", "Keep", 0, 0, "*", 0).records, 1)
}
