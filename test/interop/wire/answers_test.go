//go:build interop

package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// question is a raw request, and why the answers may differ.
type question struct {
	name   string
	code   protocol.RequestCode
	ext    string // "key=value key=value"
	body   string
	differ string // why our answer is another one, "" if it must not be
}

// ask sends the question and returns the answer.
func (q *question) ask(t *testing.T, conn *remoting.Conn) *protocol.Command {
	t.Helper()
	req := protocol.NewRequest(q.code)
	req.Language, req.Version = protocol.Java, protocol.Version
	for _, kv := range strings.Fields(q.ext) {
		k, v, _ := strings.Cut(kv, "=")
		req.Add(k, strings.ReplaceAll(v, "~", " "))
	}
	req.Body = []byte(q.body)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := conn.Call(ctx, req)
	require.NoError(t, err, q.name)
	return resp
}

// optional is what clients do not miss: fields for proxies in answers to pulls, times as text beside those as
// numbers, what SQL filters say, topics of the RocksDB store, a group that only the question made, and what
// has the path of a store in its name.
var optional = []string{"groupSysFlag", "topicSysFlag", "StampStr", "/filterData", "/RMQ_SYS_ROCKSDB_TRANS_", "/NoGroup", "/commitLogDiskRatio_"}

// compare asks both the same. Ours may have more header fields than theirs.
func compare(t *testing.T, theirs, ours string, questions []question) {
	t.Helper()
	cl, err := remoting.NewClient(t.Context(), remoting.ClientOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, cl.Close()) }()
	a, err := cl.Conn(t.Context(), theirs)
	require.NoError(t, err)
	b, err := cl.Conn(t.Context(), ours)
	require.NoError(t, err)
	for _, q := range questions {
		want, got := q.ask(t, a), q.ask(t, b)
		var lacks []string
		for _, f := range want.Ext {
			if _, ok := got.Get(string(f.Key)); !ok {
				lacks = append(lacks, string(f.Key))
			}
		}
		lacks = append(lacks, missing(t, "", members(want.Body), members(got.Body))...)
		lacks = slices.DeleteFunc(lacks, func(name string) bool {
			return slices.ContainsFunc(optional, func(part string) bool { return strings.Contains(name, part) })
		})
		same := want.Code == got.Code && len(lacks) == 0 && (len(want.Body) == 0) == (len(got.Body) == 0)
		if same != (q.differ == "") {
			t.Errorf("%s: lacks %v, %d bytes of body for %d\n  apache %s %.150q\n  ours   %s %.150q", q.name, lacks, len(got.Body), len(want.Body),
				protocol.ResponseCode(want.Code), want.Remark, protocol.ResponseCode(got.Code), got.Remark)
		}
	}
}

const (
	sendFields  = "a=PG b=%s c=TBW102 d=4 e=%s f=0 g=1700000000000 h=0 i=%s j=0 k=false m=false"
	pullFields  = "consumerGroup=%s topic=%s queueId=%s queueOffset=%s maxMsgNums=32 sysFlag=%s commitOffset=0 suspendTimeoutMillis=0 subscription=%s subVersion=0"
	queueFields = "topic=%s queueId=%s"
)

// brokerQuestions are asked in this order.
func brokerQuestions() []question {
	send := func(topic, queue, props string) string { return fmt.Sprintf(sendFields, topic, queue, props) }
	pull := func(group, topic, queue, offset, flag, sub string) string {
		return fmt.Sprintf(pullFields, group, topic, queue, offset, flag, sub)
	}
	const (
		S, P  = protocol.RequestSendMessageV2, protocol.RequestPullMessage
		topic = "Asked"
	)
	topicFields := "topic=%s defaultTopic=TBW102 readQueueNums=4 writeQueueNums=4 perm=6 topicFilterType=SINGLE_TAG topicSysFlag=0 order=false"
	return []question{
		{name: "create topic", code: protocol.RequestUpdateAndCreateTopic, ext: fmt.Sprintf(topicFields, topic)},
		{name: "create topic, illegal name", code: protocol.RequestUpdateAndCreateTopic, ext: fmt.Sprintf(topicFields, "a~b")},
		{name: "create system topic", code: protocol.RequestUpdateAndCreateTopic, ext: fmt.Sprintf(topicFields, "TBW102")},
		{name: "create topic without a name", code: protocol.RequestUpdateAndCreateTopic, ext: "defaultTopic=TBW102 readQueueNums=4 writeQueueNums=4 perm=6 topicFilterType=SINGLE_TAG"},
		{name: "create write-only topic", code: protocol.RequestUpdateAndCreateTopic, ext: strings.Replace(fmt.Sprintf(topicFields, "WriteOnly"), "perm=6", "perm=2", 1)},
		{name: "create group", code: protocol.RequestUpdateAndCreateSubscriptionGroup, body: `{"groupName":"AskedGroup","consumeEnable":true,"retryQueueNums":1,"retryMaxTimes":16}`},
		{name: "create group that may not consume", code: protocol.RequestUpdateAndCreateSubscriptionGroup, body: `{"groupName":"OffGroup","consumeEnable":false,"retryQueueNums":1,"retryMaxTimes":16}`},
		{name: "send", code: S, ext: send(topic, "0", "KEYS\x01k\x02"), body: "x"},
		{name: "send, tag", code: S, ext: send(topic, "0", "TAGS\x01A\x02"), body: "y"},
		{name: "send, queue too high", code: S, ext: send(topic, "9", ""), body: "x"},
		{name: "send, illegal topic", code: S, ext: send("a~b", "0", ""), body: "x"},
		{name: "send, blank topic", code: S, ext: send("", "0", ""), body: "x"},
		{name: "send, long topic", code: S, ext: send(strings.Repeat("t", 128), "0", ""), body: "x"},
		{name: "send, system topic", code: S, ext: send("SCHEDULE_TOPIC_XXXX", "0", ""), body: "x"},
		{name: "send, no template", code: S, ext: strings.Replace(send("Fresh", "0", ""), "c=TBW102", "c=nothing", 1), body: "x"},
		{name: "send, no body", code: S, ext: send("Empty", "0", ""), differ: "an empty message is a message; Apache stumbles over a null pointer"},
		{name: "send, a field missing", code: S, ext: strings.Replace(send(topic, "0", ""), "e=0", "", 1), body: "x"},
		{name: "send, no number", code: S, ext: send(topic, "zero", ""), body: "x"},
		{name: "send, large", code: S, ext: send(topic, "0", ""), body: strings.Repeat("x", 4<<20+1)},
		{name: "send, long properties", code: S, ext: send(topic, "0", "K\x01"+strings.Repeat("v", 32_768)), body: "x"},
		{name: "send to the retry topic of no group", code: S, ext: send("%RETRY%", "0", ""), body: "x"},
		{name: "pull", code: P, ext: pull("AskedGroup", topic, "0", "0", "4", "*")},
		{name: "pull, tag", code: P, ext: pull("AskedGroup", topic, "0", "0", "4", "A")},
		{name: "pull, other tag", code: P, ext: pull("AskedGroup", topic, "0", "0", "4", "B")},
		{name: "pull at the end", code: P, ext: pull("AskedGroup", topic, "0", "2", "4", "*")},
		{name: "pull beyond the end", code: P, ext: pull("AskedGroup", topic, "0", "99", "4", "*")},
		{name: "pull below 0", code: P, ext: pull("AskedGroup", topic, "0", "-1", "4", "*")},
		{name: "pull, empty queue", code: P, ext: pull("AskedGroup", "WriteOnly", "0", "0", "4", "*")},
		{name: "pull, no topic", code: P, ext: pull("AskedGroup", "Nowhere", "0", "0", "4", "*")},
		{name: "pull, queue too high", code: P, ext: pull("AskedGroup", topic, "9", "0", "4", "*")},
		{name: "pull, group off", code: P, ext: pull("OffGroup", topic, "0", "0", "4", "*")},
		{name: "pull without a heartbeat", code: P, ext: pull("AskedGroup", topic, "0", "0", "0", "*")},
		{name: "pull, a field missing", code: P, ext: strings.Replace(pull("AskedGroup", topic, "0", "0", "4", "*"), "queueId=0", "", 1)},
		{name: "lite pull", code: protocol.RequestLitePullMessage, ext: pull("AskedGroup", topic, "0", "0", "4", "*")},
		{name: "send, any queue", code: S, ext: send(topic, "-1", ""), body: "x"},
		{name: "query offset", code: protocol.RequestQueryConsumerOffset, ext: "consumerGroup=AskedGroup topic=Asked queueId=0"},
		{name: "query offset, not zero", code: protocol.RequestQueryConsumerOffset, ext: "consumerGroup=AskedGroup topic=Asked queueId=0 setZeroIfNotFound=false"},
		{name: "query offset, no topic", code: protocol.RequestQueryConsumerOffset, ext: "consumerGroup=AskedGroup topic=Nowhere queueId=0"},
		{name: "update offset", code: protocol.RequestUpdateConsumerOffset, ext: "consumerGroup=AskedGroup topic=Asked queueId=0 commitOffset=1"},
		{name: "update offset, no group", code: protocol.RequestUpdateConsumerOffset, ext: "consumerGroup=NoGroup topic=Asked queueId=0 commitOffset=1"},
		{name: "update offset, no topic", code: protocol.RequestUpdateConsumerOffset, ext: "consumerGroup=AskedGroup topic=Nowhere queueId=0 commitOffset=1"},
		{name: "update offset, no offset", code: protocol.RequestUpdateConsumerOffset, ext: "consumerGroup=AskedGroup topic=Asked queueId=0"},
		{name: "query offset again", code: protocol.RequestQueryConsumerOffset, ext: "consumerGroup=AskedGroup topic=Asked queueId=0"},
		{name: "max offset", code: protocol.RequestGetMaxOffset, ext: fmt.Sprintf(queueFields, topic, "0")},
		{name: "max offset, no topic", code: protocol.RequestGetMaxOffset, ext: fmt.Sprintf(queueFields, "Nowhere", "0")},
		{name: "min offset", code: protocol.RequestGetMinOffset, ext: fmt.Sprintf(queueFields, topic, "0")},
		{name: "search offset", code: protocol.RequestSearchOffsetByTimestamp, ext: fmt.Sprintf(queueFields, topic, "0") + " timestamp=0"},
		{name: "search offset, no topic", code: protocol.RequestSearchOffsetByTimestamp, ext: fmt.Sprintf(queueFields, "Nowhere", "0") + " timestamp=0"},
		{name: "earliest", code: protocol.RequestGetEarliestMsgStoreTime, ext: fmt.Sprintf(queueFields, topic, "0")},
		{name: "earliest, no topic", code: protocol.RequestGetEarliestMsgStoreTime, ext: fmt.Sprintf(queueFields, "Nowhere", "0")},
		{name: "members", code: protocol.RequestGetConsumerListByGroup, ext: "consumerGroup=AskedGroup"},
		{name: "heartbeat", code: protocol.RequestHeartBeat, body: `{"clientID":"c@1","producerDataSet":[{"groupName":"PG"}],"consumerDataSet":[{"groupName":"AskedGroup","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{"topic":"Asked","subString":"*","tagsSet":[],"codeSet":[],"subVersion":1,"expressionType":"TAG"}],"unitMode":false}]}`},
		{name: "members after a heartbeat", code: protocol.RequestGetConsumerListByGroup, ext: "consumerGroup=AskedGroup"},
		{name: "pull after a heartbeat", code: P, ext: pull("AskedGroup", topic, "0", "0", "0", "*")},
		{name: "pull what is not subscribed", code: P, ext: pull("AskedGroup", "TBW102", "0", "0", "0", "*")},
		{name: "pull, newer subscription", code: P, ext: strings.Replace(pull("AskedGroup", topic, "0", "0", "0", "*"), "subVersion=0", "subVersion=9", 1)},
		{name: "connections", code: protocol.RequestGetConsumerConnectionList, ext: "consumerGroup=AskedGroup"},
		{name: "connections, nobody", code: protocol.RequestGetConsumerConnectionList, ext: "consumerGroup=NoGroup"},
		{name: "producer connections", code: protocol.RequestGetProducerConnectionList, ext: "producerGroup=PG"},
		{name: "producer connections, nobody", code: protocol.RequestGetProducerConnectionList, ext: "producerGroup=NoGroup"},
		{name: "all producers", code: protocol.RequestGetAllProducerInfo},
		{name: "lock", code: protocol.RequestLockBatchMQ, body: `{"consumerGroup":"AskedGroup","clientId":"c@1","mqSet":[{"topic":"Asked","brokerName":"broker-a","queueId":0}]}`},
		{name: "unlock", code: protocol.RequestUnlockBatchMQ, body: `{"consumerGroup":"AskedGroup","clientId":"c@1","mqSet":[{"topic":"Asked","brokerName":"broker-a","queueId":0}]}`},
		{name: "check client", code: protocol.RequestCheckClientConfig, body: `{"clientId":"c@1","group":"AskedGroup","subscriptionData":{"topic":"Asked","subString":"*","expressionType":"TAG"}}`},
		{name: "check client, SQL", code: protocol.RequestCheckClientConfig, body: `{"clientId":"c@1","group":"AskedGroup","subscriptionData":{"topic":"Asked","subString":"a>1","expressionType":"SQL92"}}`},
		{name: "topic stats", code: protocol.RequestGetTopicStatsInfo, ext: "topic=Asked"},
		{name: "topic stats, no topic", code: protocol.RequestGetTopicStatsInfo, ext: "topic=Nowhere"},
		{name: "consume stats", code: protocol.RequestGetConsumeStats, ext: "consumerGroup=AskedGroup"},
		{name: "consume stats, no group", code: protocol.RequestGetConsumeStats, ext: "consumerGroup=NoGroup"},
		{name: "broker consume stats", code: protocol.RequestGetBrokerConsumeStats, ext: "isOrder=false"},
		{name: "who consumes", code: protocol.RequestQueryTopicConsumeByWho, ext: "topic=Asked"},
		{name: "who consumes, no topic", code: protocol.RequestQueryTopicConsumeByWho, ext: "topic=Nowhere"},
		{name: "topics of a group", code: protocol.RequestQueryTopicsByConsumer, ext: "group=AskedGroup"},
		{name: "subscription", code: protocol.RequestQuerySubscriptionByConsumer, ext: "group=AskedGroup topic=Asked"},
		{name: "subscription, none", code: protocol.RequestQuerySubscriptionByConsumer, ext: "group=NoGroup topic=Asked"},
		{name: "time span", code: protocol.RequestQueryConsumeTimeSpan, ext: "group=AskedGroup topic=Asked"},
		{name: "time span, no topic", code: protocol.RequestQueryConsumeTimeSpan, ext: "group=AskedGroup topic=Nowhere"},
		{name: "queue entries", code: protocol.RequestQueryConsumeQueue, ext: "topic=Asked queueId=0 index=0 count=5 consumerGroup=AskedGroup"},
		{name: "queue entries, outside", code: protocol.RequestQueryConsumeQueue, ext: "topic=Asked queueId=0 index=99 count=5"},
		{name: "queue entries, no queue", code: protocol.RequestQueryConsumeQueue, ext: "topic=Nowhere queueId=0 index=0 count=5", differ: "Apache makes the queue that it is asked for"},
		{name: "message by key, none", code: protocol.RequestQueryMessage, ext: "topic=Asked key=nothing maxNum=32 beginTimestamp=0 endTimestamp=9223372036854775807"},
		{name: "message by offset, none", code: protocol.RequestViewMessageByID, ext: "offset=123456789"},
		{name: "topic config", code: protocol.RequestGetTopicConfig, ext: "topic=Asked"},
		{name: "topic config, none", code: protocol.RequestGetTopicConfig, ext: "topic=Nowhere"},
		{name: "group config", code: protocol.RequestGetSubscriptionGroupConfig, ext: "group=AskedGroup"},
		{name: "group config, none", code: protocol.RequestGetSubscriptionGroupConfig, ext: "group=NoGroup", differ: "Apache creates the group that it is asked for"},
		{name: "all topics", code: protocol.RequestGetAllTopicConfig},
		{name: "all groups", code: protocol.RequestGetAllSubscriptionGroupConfig},
		{name: "all offsets", code: protocol.RequestGetAllConsumerOffset},
		{name: "all delay offsets", code: protocol.RequestGetAllDelayOffset},
		{name: "system topics", code: protocol.RequestGetSystemTopicListFromBroker},
		{name: "runtime info", code: protocol.RequestGetBrokerRuntimeInfo},
		{name: "config", code: protocol.RequestGetBrokerConfig},
		{name: "update config, nothing", code: protocol.RequestUpdateBrokerConfig},
		{name: "update config, barred", code: protocol.RequestUpdateBrokerConfig, body: "brokerConfigPath=x\n"},
		{name: "stats, none", code: protocol.RequestViewBrokerStatsData, ext: "statsName=TOPIC_PUT_NUMS statsKey=Nowhere"},
		{name: "stats", code: protocol.RequestViewBrokerStatsData, ext: "statsName=TOPIC_PUT_NUMS statsKey=Asked"},
		{name: "running info, nobody", code: protocol.RequestGetConsumerRunningInfo, ext: "consumerGroup=NoGroup clientId=x jstackEnable=false"},
		{name: "consumer status, nobody", code: protocol.RequestInvokeBrokerToGetConsumerStatus, ext: "topic=Asked group=NoGroup clientAddr="},
		{name: "reset, no topic", code: protocol.RequestInvokeBrokerToResetOffset, ext: "topic=Nowhere group=AskedGroup timestamp=0 isForce=true"},
		{name: "clone", code: protocol.RequestCloneGroupOffset, ext: "srcGroup=AskedGroup destGroup=Clone topic=Asked offline=true"},
		{name: "correction", code: protocol.RequestQueryCorrectionOffset, ext: "filterGroups= compareGroup=AskedGroup topic=Asked"},
		{name: "forbidden", code: protocol.RequestUpdateAndGetGroupForbidden, ext: "group=AskedGroup topic=Asked"},
		{name: "HA status", code: protocol.RequestGetBrokerHAStatus},
		{name: "send back, no group", code: protocol.RequestConsumerSendMsgBack, ext: "offset=0 group=%RETRY delayLevel=0 originMsgId= originTopic=Asked unitMode=false"},
		{name: "send back, no message", code: protocol.RequestConsumerSendMsgBack, ext: "offset=123456789 group=AskedGroup delayLevel=0 originMsgId= originTopic=Asked unitMode=false"},
		{name: "clean queues", code: protocol.RequestCleanExpiredConsumeQueue}, {name: "clean topics", code: protocol.RequestCleanUnusedTopic},
		{name: "delete expired", code: protocol.RequestDeleteExpiredCommitLog},
		{name: "delete system topic", code: protocol.RequestDeleteTopicInBroker, ext: "topic=TBW102"},
		{name: "delete topic, none", code: protocol.RequestDeleteTopicInBroker, ext: "topic=Nowhere"},
		{name: "delete topic, blank", code: protocol.RequestDeleteTopicInBroker, ext: "topic="},
		{name: "delete group", code: protocol.RequestDeleteSubscriptionGroup, ext: "groupName=OffGroup"},
		{name: "unregister", code: protocol.RequestUnregisterClient, ext: "clientID=c@1 producerGroup=PG consumerGroup=AskedGroup"},
		{name: "unknown", code: 999}, {name: "far unknown", code: 70_000},
	}
}

// members is a body of standard JSON, nil for any other.
func members(body []byte) any {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil
	}
	return v
}

// missing lists the members of theirs that are not in ours; of lists and of tables with names of our own
// choice, those of one element.
func missing(t *testing.T, path string, theirs, ours any) (lacks []string) {
	t.Helper()
	switch theirs := theirs.(type) {
	case map[string]any:
		ours, _ := ours.(map[string]any)
		for k, v := range theirs {
			if o, ok := ours[k]; !ok {
				lacks = append(lacks, path+"/"+k)
			} else {
				lacks = append(lacks, missing(t, path+"/"+k, v, o)...)
			}
		}
	case []any:
		if ours, ok := ours.([]any); ok && len(theirs) > 0 && len(ours) > 0 {
			lacks = missing(t, path+"/0", theirs[0], ours[0])
		}
	}
	return lacks
}

// namesrvQuestions are asked in this order.
func namesrvQuestions() []question {
	return []question{
		{name: "route", code: protocol.RequestGetRouteInfoByTopic, ext: "topic=TBW102"},
		{name: "route, standard JSON", code: protocol.RequestGetRouteInfoByTopic, ext: "topic=TBW102 acceptStandardJsonOnly=true"},
		{name: "route, none", code: protocol.RequestGetRouteInfoByTopic, ext: "topic=Nowhere"},
		{name: "route, no topic", code: protocol.RequestGetRouteInfoByTopic, differ: "what is missing is named"},
		{name: "cluster", code: protocol.RequestGetBrokerClusterInfo},
		{name: "topics", code: protocol.RequestGetAllTopicListFromNameServer},
		{name: "topics of a cluster", code: protocol.RequestGetTopicsByCluster, ext: "cluster=DefaultCluster"},
		{name: "topics of no cluster", code: protocol.RequestGetTopicsByCluster, ext: "cluster=none"},
		{name: "system topics", code: protocol.RequestGetSystemTopicListFromNS},
		{name: "unit topics", code: protocol.RequestGetUnitTopicList},
		{name: "unit subscriptions", code: protocol.RequestGetHasUnitSubTopicList},
		{name: "unit subscriptions, ordinary", code: protocol.RequestGetHasUnitSubUnunitTopicList},
		{name: "key, none", code: protocol.RequestGetKVConfig, ext: "namespace=n key=k"},
		{name: "put key", code: protocol.RequestPutKVConfig, ext: "namespace=n key=k value=v"},
		{name: "key", code: protocol.RequestGetKVConfig, ext: "namespace=n key=k"},
		{name: "keys", code: protocol.RequestGetKVListByNamespace, ext: "namespace=n"},
		{name: "keys, none", code: protocol.RequestGetKVListByNamespace, ext: "namespace=m"},
		{name: "delete key", code: protocol.RequestDeleteKVConfig, ext: "namespace=n key=k"},
		{name: "delete key, none", code: protocol.RequestDeleteKVConfig, ext: "namespace=n key=k"},
		{name: "wipe", code: protocol.RequestWipeWritePermOfBroker, ext: "brokerName=broker-a"},
		{name: "unwipe", code: protocol.RequestAddWritePermOfBroker, ext: "brokerName=broker-a"},
		{name: "wipe nobody", code: protocol.RequestWipeWritePermOfBroker, ext: "brokerName=nobody"},
		{name: "members", code: protocol.RequestGetBrokerMemberGroup, ext: "clusterName=DefaultCluster brokerName=broker-a"},
		{name: "members, none", code: protocol.RequestGetBrokerMemberGroup, ext: "clusterName=DefaultCluster brokerName=nobody"},
		{name: "config", code: protocol.RequestGetNameServerConfig},
		{name: "update config, nothing", code: protocol.RequestUpdateNameServerConfig},
		{name: "update config, barred", code: protocol.RequestUpdateNameServerConfig, body: "kvConfigPath=x\n"},
		{name: "delete topic", code: protocol.RequestDeleteTopicInNameServer, ext: "topic=BenchmarkTest"},
		{name: "delete topic, none", code: protocol.RequestDeleteTopicInNameServer, ext: "topic=Nowhere"},
		{name: "version", code: protocol.RequestQueryDataVersion, ext: "brokerName=broker-a brokerAddr=1.2.3.4:10911 clusterName=DefaultCluster brokerId=0", body: `{"counter":1,"stateVersion":0,"timestamp":1}`},
		{name: "register, wrong checksum", code: protocol.RequestRegisterBroker, ext: "brokerName=x brokerAddr=1.2.3.4:10911 clusterName=c haServerAddr=1.2.3.4:10912 brokerId=0 compressed=false bodyCrc32=5", body: `{}`},
		{name: "put key, no value", code: protocol.RequestPutKVConfig, ext: "namespace=n key=k", differ: "what is missing is named; Apache keeps a null"},
		{name: "unknown", code: 999},
	}
}

// TestSameAnswers proves that our broker and name server answer raw requests, right and wrong ones, with the
// code of Apache's, with their header fields, and with a body that has their members where they have one.
func TestSameAnswers(t *testing.T) {
	theirNS, ourNS := apacheNamesrv(t), ourNamesrv(t)
	theirs, ours := apacheBroker(t, theirNS.addr, t.TempDir()), ourBroker(t, ourNS.addr, t.TempDir())
	awaitRoute(t, client54, theirNS.addr, theirs.addr)
	t.Run("broker", func(t *testing.T) { compare(t, theirs.addr, ours.addr, brokerQuestions()) })
	t.Run("namesrv", func(t *testing.T) { compare(t, theirNS.addr, ourNS.addr, namesrvQuestions()) })
}
