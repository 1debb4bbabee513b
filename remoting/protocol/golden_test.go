package protocol

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
)

// sample is a line of test/compat/testdata/wire: what a class of the Java client wrote.
type sample struct{ Name, Class, Frame, Body string }

func (s sample) bytes(t testing.TB) []byte {
	b, err := hex.DecodeString(s.Frame)
	require.NoError(t, err)
	return b
}

var clients = []string{"4.9.8", "5.3.3"}

func samples(t testing.TB, client string) map[string]sample {
	f, err := os.Open("../../test/compat/testdata/wire/client-" + client + ".jsonl")
	require.NoError(t, err)
	defer f.Close()
	m := map[string]sample{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s sample
		require.NoError(t, json.Unmarshal(lines.Bytes(), &s))
		m[s.Name] = s
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, m)
	return m
}

// command parses the frame of a sample.
func command(t testing.TB, m map[string]sample, name string) *Command {
	s, ok := m[name]
	require.True(t, ok, "no sample %s", name)
	c := &Command{}
	require.NoError(t, ParseCommand(s.bytes(t)[4:], c), name)
	return c
}

func sorted(ext []Field) []string {
	var out []string
	for _, f := range ext {
		out = append(out, string(f.Key)+"="+string(f.Value))
	}
	slices.Sort(out)
	return out
}

// Proves that every frame that Java wrote is read, and written again to the byte, and that its two encodings say the same.
func TestGoldenFrames(t *testing.T) {
	for i, client := range clients {
		m := samples(t, client)
		frames := 0
		for name, s := range m {
			if s.Frame == "" {
				continue
			}
			frames++
			b := s.bytes(t)
			n, err := FrameBytes(b)
			require.NoError(t, err)
			require.Equal(t, len(b), n)
			c := command(t, m, name)
			require.Equal(t, b, AppendCommand(nil, c), "%s: %q", name, b)
			require.Equal(t, b, AppendCommand(nil, c.Clone()), name)
			require.Equal(t, Java, c.Language)
			require.Equal(t, []int32{409, 479}[i], c.Version)
			require.EqualValues(t, 20001, c.Opaque)
			require.Equal(t, strings.HasPrefix(name, "answer "), c.IsResponse(), name)
			require.Equal(t, strings.Contains(name, "one-way"), c.IsOneway(), name)
			if base, ok := strings.CutSuffix(name, "/JSON"); ok {
				bin := command(t, m, base+"/ROCKETMQ")
				require.Equal(t, Binary, bin.Serialize)
				require.Equal(t, JSON, c.Serialize)
				require.Equal(t, sorted(c.Ext), sorted(bin.Ext), name)
				require.Equal(t, string(c.Remark), string(bin.Remark))
				require.Equal(t, c.Body, bin.Body)
				require.Equal(t, c.Code, bin.Code)
				require.Equal(t, c.Flag, bin.Flag)
			}
		}
		require.Greater(t, frames, 60)
	}
}

const goldenProps = "KEYS\x01k1 k2\x02UNIQ_KEY\x010A0000010000000000000000000000FF\x02TAGS\x01订单\x02"

// Proves that sends in long names and in letters, in both encodings, are read alike, and that ours carry the same fields.
func TestGoldenSend(t *testing.T) {
	want := SendHeader{ProducerGroup: []byte("PG"), Topic: []byte("TopicTest"), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4, QueueID: 3,
		SysFlag: 1, BornMillis: 1700000000123, Flag: -7, Properties: []byte(goldenProps), ReconsumeTimes: 2, UnitMode: true, MaxReconsumeTimes: 16, HasMaxReconsume: true}
	for _, client := range clients {
		m := samples(t, client)
		for name, code := range map[string]RequestCode{"SEND_MESSAGE": RequestSendMessage, "SEND_MESSAGE_V2": RequestSendMessageV2, "SEND_BATCH_MESSAGE": RequestSendBatchMessage} {
			for _, s := range []Serialize{JSON, Binary} {
				c := command(t, m, name+"/"+s.String())
				require.Equal(t, int32(code), c.Code)
				var h SendHeader
				require.NoError(t, ParseSendHeader(c, &h))
				want := want
				want.Batch = code == RequestSendBatchMessage
				require.Equal(t, want, h)
				frame := append(AppendSendRequest(nil, code, 20001, 0, s, &h, len(c.Body)), c.Body...)
				ours := &Command{}
				require.NoError(t, ParseCommand(frame[4:], ours))
				require.Equal(t, sorted(c.Ext), sorted(ours.Ext))
				require.Equal(t, c.Body, ours.Body)
				if code != RequestSendMessage { // Java's map has letters in their order
					ours.Language, ours.Version = c.Language, c.Version
					require.Equal(t, m[name+"/"+s.String()].bytes(t), AppendCommand(nil, ours))
				}
			}
		}
		var h SendHeader
		require.NoError(t, ParseSendHeader(command(t, m, "SEND_MESSAGE empty properties/ROCKETMQ"), &h))
		require.False(t, h.HasMaxReconsume)
		require.Empty(t, h.Properties)
	}
}

// Proves that the answers to sends and pulls that Java writes are read, and that ours carry the same fields.
func TestGoldenAnswers(t *testing.T) {
	for _, client := range clients {
		m := samples(t, client)
		for _, s := range []Serialize{JSON, Binary} {
			c := command(t, m, "answer SEND_MESSAGE/"+s.String())
			var h SendResponse
			require.NoError(t, ParseSendResponse(c, &h))
			require.Equal(t, SendResponse{MsgID: []byte("0A00000100002A9F0000000000001234"), QueueID: 3, QueueOffset: 77,
				TransactionID: []byte("0A0000010000000000000000000000FF"), Region: []byte("DefaultRegion")}, h)
			ours := &Command{}
			require.NoError(t, ParseCommand(AppendSendResponse(nil, 20001, s, ResponseSuccess, "", &h)[4:], ours))
			require.Equal(t, sorted(c.Ext), sorted(ours.Ext))

			c = command(t, m, "answer SEND_MESSAGE busy/"+s.String())
			require.NoError(t, ParseSendResponse(c, &h))
			require.NoError(t, ParseCommand(AppendSendResponse(nil, 20001, s, ResponseSystemBusy, string(c.Remark), &h)[4:], ours))
			require.Equal(t, sorted(c.Ext), sorted(ours.Ext))
			require.Equal(t, "[PC_SYNCHRONIZED]broker busy, \"wait\" \\ \x01\t\n\x1f 请稍候 😀", string(ours.Remark))
			require.EqualError(t, c.Err(), "remote: SYSTEM_BUSY (2): "+string(c.Remark))

			c = command(t, m, "answer PULL_MESSAGE found/"+s.String())
			var p PullResponse
			require.NoError(t, ParsePullResponse(c, &p))
			require.Equal(t, PullResponse{NextBeginOffset: 100, MinOffset: 3, MaxOffset: 200}, p)
			frame := append(AppendPullResponse(nil, 20001, s, ResponseSuccess, "FOUND", &p, len(c.Body)), c.Body...)
			require.NoError(t, ParseCommand(frame[4:], ours))
			ours.Language, ours.Version = c.Language, c.Version
			require.Equal(t, sorted(c.Ext), sorted(ours.Ext))
			require.Equal(t, c.Body, ours.Body)
		}
	}
}

// Proves that pulls are read, and written with Java's fields.
func TestGoldenPull(t *testing.T) {
	for i, client := range clients {
		m := samples(t, client)
		for _, s := range []Serialize{JSON, Binary} {
			c := command(t, m, "PULL_MESSAGE/"+s.String())
			var h PullHeader
			require.NoError(t, ParsePullHeader(c, &h))
			want := PullHeader{ConsumerGroup: []byte("CG"), Topic: []byte("TopicTest"), QueueID: 5, QueueOffset: 1234567890123, MaxMsgNums: 32,
				SysFlag: PullCommitOffset | PullSuspend | PullSubscription, CommitOffset: 1234567890000, SuspendMillis: 15000, Subscription: []byte("TagA || TagB"),
				SubVersion: 1700000000123, ExpressionType: []byte("TAG"), MaxMsgBytes: []int32{0, 262144}[i], RequestSource: -1}
			require.Equal(t, want, h)
			ours := &Command{}
			require.NoError(t, ParseCommand(AppendPullRequest(nil, RequestPullMessage, 1, s, &h)[4:], ours))
			c.Remove("requestSource")
			require.Equal(t, sorted(c.Ext), sorted(ours.Ext))
		}
	}
	c := command(t, samples(t, "5.3.3"), "LITE_PULL_MESSAGE/JSON")
	require.Equal(t, int32(RequestLitePullMessage), c.Code)
}

// Proves that the other headers hold every field that Java sends: decoding and encoding keep them all.
func TestGoldenHeaders(t *testing.T) {
	for name, header := range map[string]func() any{
		"CONSUMER_SEND_MSG_BACK":         func() any { return &SendBackHeader{} },
		"END_TRANSACTION one-way":        func() any { return &EndTransactionHeader{} },
		"QUERY_CONSUMER_OFFSET":          func() any { return &QueryOffsetHeader{} },
		"UPDATE_CONSUMER_OFFSET one-way": func() any { return &UpdateOffsetHeader{} },
		"GET_MAX_OFFSET":                 func() any { return &QueueHeader{} },
		"SEARCH_OFFSET_BY_TIMESTAMP":     func() any { return &SearchOffsetHeader{} },
		"QUERY_MESSAGE":                  func() any { return &QueryMessageHeader{} },
		"VIEW_MESSAGE_BY_ID":             func() any { return &ViewMessageHeader{} },
		"UNREGISTER_CLIENT":              func() any { return &UnregisterClientHeader{} },
		"GET_CONSUMER_LIST_BY_GROUP":     func() any { return &ConsumerGroupHeader{} },
		"REGISTER_BROKER plain":          func() any { return &RegisterBrokerHeader{} },
		"UNREGISTER_BROKER":              func() any { return &UnregisterBrokerHeader{} },
		"QUERY_DATA_VERSION":             func() any { return &QueryDataVersionHeader{} },
		"GET_ROUTEINFO_BY_TOPIC":         func() any { return &GetRouteInfoHeader{} },
		"UPDATE_AND_CREATE_TOPIC":        func() any { return &CreateTopicHeader{} },
		"answer QUERY_CONSUMER_OFFSET":   func() any { return &OffsetResponse{} },
		"answer QUERY_DATA_VERSION":      func() any { return &QueryDataVersionResponse{} },
		"answer REGISTER_BROKER":         func() any { return &RegisterBrokerResponse{} },
	} {
		for _, client := range clients {
			m := samples(t, client)
			for _, s := range []Serialize{JSON, Binary} {
				c := command(t, m, name+"/"+s.String())
				h := header()
				require.NoError(t, DecodeExt(c, h), name)
				ours := NewRequest(RequestCode(c.Code))
				EncodeExt(ours, h)
				have := sorted(ours.Ext)
				for _, f := range sorted(c.Ext) {
					require.Contains(t, have, f, "%s %s", name, client)
				}
			}
		}
	}
}

var bareKeys = regexp.MustCompile(`([{,])(\d+):`)

// Proves that every body that Java wrote is read whole: what we write of it is what Java 5.3.3 wrote, but for whole-number keys,
// which we quote, and members that are always there.
func TestGoldenBodies(t *testing.T) {
	spanText := regexp.MustCompile(`,"\w+Str":"[^"]*"`)
	for name, body := range map[string]func() any{
		"HeartbeatData":                         func() any { return &HeartbeatData{} },
		"LockBatchRequestBody":                  func() any { return &LockBatchBody{} },
		"LockBatchResponseBody":                 func() any { return &LockBatchResponseBody{} },
		"CheckClientRequestBody":                func() any { return &CheckClientConfigBody{} },
		"GetConsumerListByGroupResponseBody":    func() any { return &GetConsumerListResponseBody{} },
		"ProducerConnection":                    func() any { return &ProducerConnection{} },
		"ConsumerConnection":                    func() any { return &ConsumerConnection{} },
		"GroupList":                             func() any { return &GroupList{} },
		"QuerySubscriptionResponseBody":         func() any { return &QuerySubscriptionResponseBody{} },
		"TopicConfigWrapper":                    func() any { return &TopicConfigWrapper{} },
		"TopicConfig":                           func() any { return &TopicConfig{} },
		"TopicRouteData":                        func() any { return &TopicRouteData{} },
		"ClusterInfo":                           func() any { return &ClusterInfo{} },
		"KVTable":                               func() any { return &KVTable{} },
		"TopicList":                             func() any { return &TopicList{} },
		"SubscriptionGroupConfig":               func() any { return &SubscriptionGroupConfig{} },
		"SubscriptionGroupWrapper":              func() any { return &SubscriptionGroupWrapper{} },
		"TopicStatsTable":                       func() any { return &TopicStatsTable{} },
		"ConsumeStats":                          func() any { return &ConsumeStats{} },
		"ConsumeStatsList":                      func() any { return &ConsumeStatsList{} },
		"ResetOffsetBody":                       func() any { return &ResetOffsetBody{} },
		"GetConsumerStatusBody":                 func() any { return &ConsumerStatusBody{} },
		"GetConsumerStatusBody with references": func() any { return &ConsumerStatusBody{} },
		"ConsumerOffsetSerializeWrapper":        func() any { return &ConsumerOffsetWrapper{} },
		"BrokerStatsData":                       func() any { return &BrokerStatsData{} },
		"QueryConsumeTimeSpanBody":              func() any { return &ConsumeTimeSpanBody{} },
		"QueryConsumeQueueResponseBody":         func() any { return &QueryConsumeQueueBody{} },
		"ConsumerRunningInfo":                   func() any { return &ConsumerRunningInfo{} },
		"ConsumeMessageDirectlyResult":          func() any { return &ConsumeMessageDirectlyResult{} },
	} {
		for _, client := range clients {
			s, ok := samples(t, client)[name]
			if !ok {
				require.Equal(t, "4.9.8", client, name)
				continue
			}
			v, again := body(), body()
			require.NoError(t, DecodeBody([]byte(s.Body), v), name)
			ours := EncodeBody(v)
			require.NoError(t, DecodeBody(ours, again), name)
			require.Empty(t, cmp.Diff(v, again, cmpopts.EquateEmpty()), name)
			if client != "5.3.3" {
				continue
			}
			want := bareKeys.ReplaceAllString(s.Body, `$1"$2":`)
			switch name {
			case "SubscriptionGroupWrapper":
				want = strings.Replace(want, `"subscriptionGroupTable"`, `"forbiddenTable":{},"subscriptionGroupTable"`, 1)
			case "QueryConsumeTimeSpanBody":
				want = spanText.ReplaceAllString(want, "")
			case "GetConsumerStatusBody with references":
				mq := `{{"brokerName":"broker-a","queueId":3,"topic":"TopicTest"}:7}`
				want = `{"consumerTable":{"c@1":` + mq + `,"c@2":` + mq + `},"messageQueueTable":` + mq + `}`
			}
			require.Equal(t, want, string(ours), name)
		}
	}
}

// Proves that a registration is read alike, plain and packed, as each release sends it, and that ours read back.
func TestGoldenRegistration(t *testing.T) {
	for _, client := range clients {
		m := samples(t, client)
		var plain *RegisterBrokerBody
		for _, kind := range []string{"plain", "compressed"} {
			c := command(t, m, "REGISTER_BROKER "+kind+"/JSON")
			var h RegisterBrokerHeader
			require.NoError(t, DecodeExt(c, &h))
			require.Equal(t, h.BodyCRC32, BodyCRC(c.Body))
			require.Equal(t, kind == "compressed", h.Compressed)
			require.Equal(t, client == "5.3.3", h.EnableActingMaster != nil)
			b, err := DecodeRegisterBroker(c.Body, c.Version, h.Compressed)
			require.NoError(t, err)
			w := &b.TopicConfigSerializeWrapper
			require.Equal(t, DataVersion{Timestamp: 1700000000123, Counter: 42}, w.DataVersion)
			require.Len(t, w.TopicConfigTable, 3)
			topic := w.TopicConfigTable["TopicTest"]
			require.Equal(t, "TopicTest 8 4 6 SINGLE_TAG {}", string(topic.appendLine(nil)))
			if kind == "plain" {
				plain = b
			} else if client == "5.3.3" {
				// The packed form does not carry these.
				plain.TopicConfigSerializeWrapper.MappingDataVersion, plain.TopicConfigSerializeWrapper.TopicQueueMappingDetailMap = nil, nil
				require.Empty(t, cmp.Diff(plain, b))
			}
			for _, packed := range []bool{false, true} {
				ours, err := EncodeRegisterBroker(b, packed)
				require.NoError(t, err)
				again, err := DecodeRegisterBroker(ours, Version, packed)
				require.NoError(t, err)
				require.Equal(t, w.TopicConfigTable["TBW102"].WriteQueueNums, again.TopicConfigSerializeWrapper.TopicConfigTable["TBW102"].WriteQueueNums)
				require.Equal(t, w.DataVersion, again.TopicConfigSerializeWrapper.DataVersion)
				if kind == "plain" && !packed && client == "5.3.3" {
					require.Len(t, ours, len(c.Body), "Java's own order of topics is its map's")
				}
			}
		}
	}
}

// Proves that codes, languages and versions have the numbers and names of both releases.
func TestGoldenNames(t *testing.T) {
	for _, client := range clients {
		m := samples(t, client)
		var requests, responses map[string]int32
		require.NoError(t, json.Unmarshal([]byte(m["RequestCode numbers"].Body), &requests))
		for name, n := range requests {
			require.Equal(t, name, RequestCode(n).String())
		}
		require.NoError(t, json.Unmarshal([]byte(m["ResponseCode numbers"].Body), &responses))
		for name, n := range responses {
			if client == "5.3.3" || n < 209 || n > 211 { // 5.x gave these numbers new meanings
				require.Equal(t, name, ResponseCode(n).String())
			}
		}
		var names []string
		require.NoError(t, json.Unmarshal([]byte(m["MQVersion names"].Body), &names))
		for v, name := range names {
			require.Equal(t, name, VersionName(int32(v)))
		}
		require.NoError(t, json.Unmarshal([]byte(m["LanguageCode names"].Body), &names))
		require.GreaterOrEqual(t, len(names), 13)
		for l, name := range names {
			require.Equal(t, name, Language(l).String())
			require.Equal(t, Language(l), ParseLanguage(strings.ToLower(name)))
		}
	}
	require.Equal(t, "OTHER", Language(127).String())
	require.Equal(t, Other, ParseLanguage("COBOL"))
	require.Equal(t, "HIGHER_VERSION", VersionName(-1))
	require.Equal(t, "V5_3_3", VersionName(Version))
	require.Equal(t, "999", RequestCode(999).String())
	require.Equal(t, "999", ResponseCode(999).String())
}
