package protocol

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that a heartbeat of the Go client is read: members in its order, codes as text, a version in nanoseconds (trap 32).
func TestGoClientHeartbeat(t *testing.T) {
	var h HeartbeatData
	require.NoError(t, DecodeBody([]byte(`{"clientID":"10.0.0.1@42","producerDataSet":[{"groupName":"PG"}],"consumerDataSet":[{"groupName":"CG","consumeType":"CONSUME_PASSIVELY",`+
		`"messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{"classFilterMode":false,"topic":"T","subString":"a || b",`+
		`"tagsSet":["a","b"],"codeSet":["97","98"],"subVersion":1700000000123456789,"expressionType":"TAG"},{"topic":"%RETRY%CG","subString":"*"}],"unitMode":false}]}`), &h))
	require.Equal(t, "10.0.0.1@42", h.ClientID)
	s := h.ConsumerDataSet[0].SubscriptionDataSet
	require.Equal(t, []int32{97, 98}, s[0].CodeSet)
	require.EqualValues(t, 1700000000123456789, s[0].SubVersion)
	require.Equal(t, ExpressionTag, s[1].ExpressionType, "absent is TAG")
}

// Proves what bodies in the dialects that are about are taken for.
func TestDecodeTolerance(t *testing.T) {
	type all struct {
		S     string                      `json:"s"`
		I     int32                       `json:"i"`
		L     int64                       `json:"l"`
		B     bool                        `json:"b"`
		F     float64                     `json:"f"`
		P     *int64                      `json:"p"`
		List  []string                    `json:"list"`
		Ints  map[int32]string            `json:"ints"`
		Names map[string][]int64          `json:"names"`
		MQ    map[MessageQueue]int64      `json:"mq"`
		Lang  Language                    `json:"lang"`
		CM    CMResult                    `json:"cm"`
		Raw   json.RawMessage             `json:"raw"`
		Sub   *SubscriptionGroupConfig    `json:"sub"`
		Old   bool                        `json:"droped" alias:"dropped"`
		Mixed map[string]*TopicConfig     `json:"mixed"`
		Queue MessageQueue                `json:"queue"`
		Any   map[string]map[string]int32 `json:"any"`
	}
	mq := MessageQueue{"T", "b", 1}
	seven := int64(7)
	for text, want := range map[string]all{
		`{}`: {}, ` { } ` + "\x00\x00\n": {}, `null`: {},
		`{"s":5,"i":"6","l":"-7","b":"true","f":"1.5"}`:                                      {S: "5", I: 6, L: -7, B: true, F: 1.5},
		`{"s":true,"i":7.0,"l":1e3,"b":1,"f":2}`:                                             {S: "true", I: 7, L: 1000, B: true, F: 2},
		`{"s":null,"i":null,"l":"","b":null,"f":"","p":null}`:                                {},
		`{"s":'single',"i":" 8 "}`:                                                           {S: "single", I: 8},
		`{"p":7,"unknown":{"a":[{}]},"list":[1,"b",null]}`:                                   {P: &seven, List: []string{"1", "b", ""}},
		`{"ints":{0:"a","1":"b",-2:"c"}}`:                                                    {Ints: map[int32]string{0: "a", 1: "b", -2: "c"}},
		`{"names":{"a":[1,"2"],b:[]}}`:                                                       {Names: map[string][]int64{"a": {1, 2}, "b": {}}},
		`{"mq":{{"brokerName":"b","queueId":1,"topic":"T"}:7}}`:                              {MQ: map[MessageQueue]int64{mq: 7}},
		`{"mq":{{"topic":"T", "queueId":"1", "brokerName":"b"} : 7}}`:                        {MQ: map[MessageQueue]int64{mq: 7}},
		`{"mq":{"{\"brokerName\":\"b\",\"queueId\":1,\"topic\":\"T\"}":7}}`:                  {MQ: map[MessageQueue]int64{mq: 7}},
		`{"queue":{"topic":"T","brokerName":"b","queueId":1},"mq":{{"$ref":"$.queue"}:7}}`:   {MQ: map[MessageQueue]int64{mq: 7}, Queue: mq},
		`{"mq":{{"topic":"T","brokerName":"b","queueId":1}:7},"queue":{"$ref":"$.mq.null"}}`: {MQ: map[MessageQueue]int64{mq: 7}, Queue: mq},
		`{"any":{"a.b@c":{"x":1},"d":{"$ref":"$.any.a\\.b\\@c"}}}`:                           {Any: map[string]map[string]int32{"a.b@c": {"x": 1}, "d": {"x": 1}}},
		`{"list":["x",{"$ref":"$.list[0]"},{"$ref":"$['list'][1]"}]}`:                        {List: []string{"x", "x", "x"}},
		`{"lang":"GO","cm":1}`:                                                               {Lang: Go, CM: CMLater},
		`{"lang":12,"cm":"CR_COMMIT"}`:                                                       {Lang: Rust, CM: CMCommit},
		`{"lang":"?","cm":null}`:                                                             {Lang: Other},
		`{"raw": {"a" : [1]} }`:                                                              {Raw: json.RawMessage(`{"a" : [1]}`)},
		`{"dropped":true}`:                                                                   {Old: true},
		`{"s":"a","s":"b"}`:                                                                  {S: "b"},
		`{"list":["a",,"b",]}`:                                                               {List: []string{"a", "b"}},
		`{"mixed":{"T":{"topicName":"T","perm":4}}}`:                                         {Mixed: map[string]*TopicConfig{"T": {TopicName: "T", ReadQueueNums: 16, WriteQueueNums: 16, Perm: 4, TopicFilterType: "SINGLE_TAG"}}},
		`{"sub":{"groupName":"G","retryMaxTimes":3}}`:                                        {Sub: func() *SubscriptionGroupConfig { c := NewSubscriptionGroupConfig("G"); c.RetryMaxTimes = 3; return c }()},
		`{"s":"\u8ba2\ud83d\ude00\u0001"}`:                                                   {S: "订😀\x01"},
	} {
		var got all
		require.NoError(t, DecodeBody([]byte(text), &got), text)
		require.Equal(t, want, got, text)
	}
	var list []MessageQueue
	require.NoError(t, DecodeBody([]byte(`[{"topic":"T"}]`), &list))
	require.Equal(t, []MessageQueue{{Topic: "T"}}, list)
}

// Proves that a body which cannot be is refused with an error that says where.
func TestDecodeErrors(t *testing.T) {
	for text, says := range map[string]string{
		``:                         "byte 0 is truncated",
		`{`:                        "truncated",
		`{"topicConfigTable":`:     "truncated",
		`{"topicConfigTable":{"T"`: "truncated",
		`{"topicConfigTable":7}`:   "$.topicConfigTable is malformed: an object is wanted, not \"7\"",
		`{"topicConfigTable":{"T":{"perm":"x"}}}`:                                                        `$.topicConfigTable.T.perm is malformed: "x" is no whole number of 32 bits`,
		`{"topicConfigTable":{"T":{"perm":2147483648}}}`:                                                 "no whole number of 32 bits",
		`{"topicConfigTable":{"T":{"perm":1.5}}}`:                                                        "no whole number of 32 bits",
		`{"topicConfigTable":{"T":{"perm":1e300}}}`:                                                      "no whole number of 32 bits",
		`{"topicConfigTable":{"T":{"topicName":{}}}}`:                                                    "a single value is wanted, not an object",
		`{"topicConfigTable":{"T":{"$ref":"$.nowhere"}}}`:                                                `the reference "$.nowhere" points to nothing`,
		`{"topicConfigTable":{"T":{"$ref":"$.topicConfigTable.T"}}}`:                                     "points to itself",
		`{"topicConfigTable":{"T":{"$ref":"$.topicConfigTable.U"},"U":{"$ref":"$.topicConfigTable.T"}}}`: "round in circles",
		`{"topicConfigTable":{"T":{"$ref":"@"}}}`:                                                        "does not start at the root",
		`{"topicConfigTable":{"T":{"$ref":"$x"}}}`:                                                       "is no path",
		`{"topicConfigTable":{"T":{"$ref":"$[0"}}}`:                                                      "does not end",
		`{"dataVersion":Set[]}`:                                                                          "sets are written as arrays",
		`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`:                              "nest more than 64 deep",
		`{} x`:          "bytes behind",
		`{"a":1 "b":2}`: "a comma or }",
		`{"a":'x`:       "does not end",
		"{\"a\":\x00}":  "a zero byte",
		`[]`:            "$ is malformed: an object is wanted, not an array",
	} {
		var w TopicConfigWrapper
		err := DecodeBody([]byte(text), &w)
		require.ErrorContains(t, err, says, text)
		var be *BodyError
		require.ErrorAs(t, err, &be)
	}
	var s ConsumerStatusBody
	require.ErrorContains(t, DecodeBody([]byte(`{"messageQueueTable":{{"topic":"A"}:1,{"topic":"B"}:2},"consumerTable":{"c":{{"$ref":"$.messageQueueTable.null"}:1}}}`), &s), "may mean several keys")
	require.ErrorContains(t, DecodeBody([]byte(`{"messageQueueTable":{"some text":1}}`), &s), "the name is no object")
	require.ErrorContains(t, DecodeBody([]byte(`{"messageQueueTable":{5:1}}`), &s), "an object is wanted")
	bomb := `{"consumerTable":{"a":{` + strings.Repeat(`{"topic":"T"}:1,`, 1000) + `}` + strings.Repeat(`,"b":{"$ref":"$.consumerTable.a"}`, 1000) + `}}`
	require.ErrorContains(t, DecodeBody([]byte(bomb), &s), "reference")
	bomb = `{"consumerTable":{` + strings.Repeat(`"a":{"$ref":"$.consumerTable.b"},`, 3000) + `"b":{}}}`
	require.ErrorContains(t, DecodeBody([]byte(bomb), &s), "is one of too many")
	var l TopicList
	require.ErrorContains(t, DecodeBody([]byte(`{"topicList":{}}`), &l), "an array is wanted, not an object")
	require.ErrorContains(t, DecodeBody([]byte(`{"topicList":[{"$ref":"$.topicList[7]"}]}`), &l), "outside an array")
	var r ConsumeMessageDirectlyResult
	require.ErrorContains(t, DecodeBody([]byte(`{"consumeResult":9}`), &r), "consumeResult")
	var b BrokerStatsItem
	require.ErrorContains(t, DecodeBody([]byte(`{"tps":"fast"}`), &b), "is no number")
}

// Proves the traps of bodies: compact routes with quoted ids (5), lists that are never null (6), queues as keys in the object
// form (7), tables that are always there (37).
func TestTrapsOfTheBodies(t *testing.T) {
	same := func(want string, v any) { require.Equal(t, want, string(EncodeBody(v))) } // to the byte, not as JSON
	route := TopicRouteData{QueueDatas: []QueueData{{"broker-a", 8, 8, 6, 0}},
		BrokerDatas: []BrokerData{{Cluster: "DefaultCluster", BrokerName: "broker-a", BrokerAddrs: map[int64]string{1: "10.0.0.2:10911", 0: "10.0.0.1:10911", 10: "[::1]:1"}}}}
	b := string(EncodeBody(route))
	same(`{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911","10":"[::1]:1"},"brokerName":"broker-a","cluster":"DefaultCluster",`+
		`"enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}`, route)
	require.NotRegexp(t, `\s`, b)
	require.True(t, json.Valid([]byte(b)))
	// As the Go client takes it apart: cut at commas, then at the first colon, quotes stripped.
	_, addrs, _ := strings.Cut(b, `"brokerAddrs":{`)
	addrs, _, _ = strings.Cut(addrs, "}")
	for i, part := range strings.Split(addrs, ",") {
		id, addr, _ := strings.Cut(part, ":")
		require.Equal(t, []string{"0", "1", "10"}[i], strings.Trim(id, `"`))
		require.Equal(t, []string{"10.0.0.1:10911", "10.0.0.2:10911", "[::1]:1"}[i], strings.Trim(addr, `"`))
	}
	same(`{"brokerDatas":[],"filterServerTable":{},"queueDatas":[]}`, &TopicRouteData{})
	same(`{"offsetTable":{{"brokerName":"a","queueId":2,"topic":"T"}:1,{"brokerName":"a","queueId":10,"topic":"T"}:2,{"brokerName":"b","queueId":0,"topic":"T"}:3}}`, ResetOffsetBody{map[MessageQueue]int64{{"T", "b", 0}: 3, {"T", "a", 10}: 2, {"T", "a", 2}: 1}})
	same(`{"offsetTable":[{"brokerName":"a","offset":7,"queueId":2,"topic":"T"}]}`, ResetOffsetCBody{[]QueueOffset{{MessageQueue{"T", "a", 2}, 7}}})
	same(`{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"forbiddenTable":{},"subscriptionGroupTable":{}}`, SubscriptionGroupWrapper{})
	same(`{"consumerIdList":[]}`, GetConsumerListResponseBody{})
	same(`{"connectionSet":[{"clientAddr":"","clientId":"","language":"OTHER","version":0}]}`, ProducerConnection{[]Connection{{Language: 200}}})
	require.Equal(t, "T@b:3", MessageQueue{"T", "b", 3}.String())
	require.Equal(t, DataVersion{2, 9, 4}, DataVersion{1, 5, 3}.Next(2, 9))
}

// Proves that doubles look as Java's.
func TestAppendDouble(t *testing.T) {
	for x, want := range map[float64]string{0: "0.0", 1: "1.0", -2.5: "-2.5", 0.001: "0.001", 0.0009: "9.0E-4", 9999999: "9999999.0", 1e7: "1.0E7", 1.234e-9: "1.234E-9",
		123456789.5: "1.234567895E8", math.Inf(1): "0.0", 0.1: "0.1"} {
		require.Equal(t, want, string(AppendDouble(nil, x)))
	}
	require.Equal(t, "0.0", string(AppendDouble(nil, math.NaN())))
	require.Equal(t, `{"a":null}`, string(EncodeBody(map[string]*int64{"a": nil})))
	require.Equal(t, `null`, string(EncodeBody(nil)))
	require.Panics(t, func() { EncodeBody(make(chan int)) })
	require.Panics(t, func() { EncodeBody(map[bool]int64{true: 1}) })
}

// Proves which registrations are read: bare from old brokers, empty from none, packed with and without mappings and attributes;
// and that the damaged ones are refused.
func TestRegistration(t *testing.T) {
	b, err := DecodeRegisterBroker([]byte(`{"topicConfigTable":{"T":{"topicName":"T"}},"dataVersion":{"timestamp":5,"counter":6}}`), 30, false)
	require.NoError(t, err)
	require.Equal(t, DataVersion{0, 5, 6}, b.TopicConfigSerializeWrapper.DataVersion)
	require.EqualValues(t, 16, b.TopicConfigSerializeWrapper.TopicConfigTable["T"].ReadQueueNums)
	b, err = DecodeRegisterBroker(nil, Version, true)
	require.NoError(t, err)
	require.Equal(t, &RegisterBrokerBody{}, b)

	full := &RegisterBrokerBody{FilterServerList: []string{"f"}}
	w := &full.TopicConfigSerializeWrapper
	w.DataVersion = DataVersion{1, 2, 3}
	a, c := NewTopicConfig("A", 4), NewTopicConfig("B", 8)
	a.Attributes = map[string]string{"message.type": "FIFO with blanks"}
	w.TopicConfigTable = map[string]*TopicConfig{"A": a, "B": c}
	w.TopicQueueMappingInfoMap = map[string]*TopicQueueMappingInfo{"S": {Topic: "S", CurrIDMap: map[int32]int32{0: 3}}}
	packed, err := EncodeRegisterBroker(full, true)
	require.NoError(t, err)
	b, err = DecodeRegisterBroker(packed, Version, true)
	require.NoError(t, err)
	require.Equal(t, a, b.TopicConfigSerializeWrapper.TopicConfigTable["A"])
	require.EqualValues(t, 3, b.TopicConfigSerializeWrapper.TopicQueueMappingInfoMap["S"].CurrIDMap[0])
	require.Equal(t, []string{"f"}, b.FilterServerList)
	b, err = DecodeRegisterBroker(packed, VersionMappings-1, true)
	require.NoError(t, err)
	require.Empty(t, b.TopicConfigSerializeWrapper.TopicQueueMappingInfoMap)

	raw, err := Decompress(nil, packed, CompressionZlib, 1<<20)
	require.NoError(t, err)
	for n := range len(raw) {
		cut, err := Compress(nil, raw[:n], CompressionZlib)
		require.NoError(t, err)
		_, err = DecodeRegisterBroker(cut, Version, true)
		var be *BodyError
		require.ErrorAs(t, err, &be, "%d of %d bytes", n, len(raw))
	}
	_, err = DecodeRegisterBroker([]byte("rubbish"), Version, true)
	require.ErrorContains(t, err, "ZLIB")
	for line, says := range map[string]string{"T 1 2 6": "no topic line", " 1 2 6 S": "no topic line", "T x 2 6 SINGLE_TAG": `"x" is no number`} {
		raw := appendBlock(nil, []byte("{}"))
		raw = appendBlock(binary.BigEndian.AppendUint32(raw, 1), []byte(line))
		bad, err := Compress(nil, raw, CompressionZlib)
		require.NoError(t, err)
		_, err = DecodeRegisterBroker(bad, Version, true)
		require.ErrorContains(t, err, says)
	}
	odd := &TopicConfig{}
	require.NoError(t, odd.parseLine("T 1 2 6 SINGLE_TAG not json"))
	require.Nil(t, odd.Attributes)
	require.NoError(t, odd.parseLine("T 1 2 6 SINGLE_TAG"))
	require.EqualValues(t, 2, odd.WriteQueueNums)
}
