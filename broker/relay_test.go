package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/config"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// consumerSide answers what a broker asks of a consumer, and remembers it.
type consumerSide struct {
	answer func(req, resp *protocol.Command)

	mu   sync.Mutex
	seen []*protocol.Command
}

func (s *consumerSide) Opened(*remoting.Conn)        {}
func (s *consumerSide) Drained(*remoting.Conn)       {}
func (s *consumerSide) Closed(*remoting.Conn, error) {}

func (s *consumerSide) Serve(c *remoting.Conn, req *protocol.Command) {
	s.mu.Lock()
	s.seen = append(s.seen, req.Clone())
	s.mu.Unlock()
	if s.answer == nil || req.IsOneway() {
		return
	}
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	s.answer(req, resp)
	c.Reply(req, resp)
}

// of are the requests of a code so far.
func (s *consumerSide) of(code protocol.RequestCode) (out []*protocol.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, req := range s.seen {
		if req.Code == int32(code) {
			out = append(out, req)
		}
	}
	return out
}

// What an administrator asks of a consumer reaches it unchanged, and so does the answer on its way back.
func TestRelay(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	admin := connect(t, b)
	side := &consumerSide{answer: func(req, resp *protocol.Command) {
		resp.Respond(req, 7, "as it is")
		resp.Add("extra", "1")
		resp.Body = append([]byte("for "), req.GetString("clientId")...)
	}}
	p := dial(t, b, b.conf().ListenPort, side)
	p.beat("c1", "G", "T")
	info := request(protocol.RequestGetConsumerRunningInfo, "consumerGroup", "G", "clientId", "c1", "jstackEnable", "true", "unknown", "kept")
	resp := admin.call(info)
	require.Equal(t, []any{int32(7), "as it is", "1", "for c1"}, []any{resp.Code, string(resp.Remark), resp.GetString("extra"), string(resp.Body)})
	asked := side.of(protocol.RequestGetConsumerRunningInfo)[0]
	require.Equal(t, []string{"G", "c1", "true", "kept"},
		[]string{asked.GetString("consumerGroup"), asked.GetString("clientId"), asked.GetString("jstackEnable"), asked.GetString("unknown")})
	require.Equal(t, "The Consumer <G> <c2> not online", admin.refused(with(info, "clientId", "c2"), protocol.ResponseSystemError))

	id := p.send("T", 0, "body", "KEYS", "k").GetString("msgId")
	direct := request(protocol.RequestConsumeMessageDirectly, "consumerGroup", "G", "clientId", "c1", "msgId", id, "topic", "T")
	admin.call(direct)
	admin.call(with(direct, "clientId", "")) // any of them
	require.Len(t, side.of(protocol.RequestConsumeMessageDirectly), 2)
	asked = side.of(protocol.RequestConsumeMessageDirectly)[0]
	require.Equal(t, []string{"broker-a", "0", "0"}, []string{asked.GetString("brokerName"), asked.GetString("topicSysFlag"), asked.GetString("groupSysFlag")})
	var r message.Record
	require.NoError(t, message.ParseRecord(asked.Body, &r))
	require.Equal(t, "body", string(r.Body))
	require.Contains(t, admin.refused(with(direct, "msgId", "nope"), protocol.ResponseSystemError), "no message id")
	gone := message.ID{Host: b.storeHost, Pos: 1 << 40}
	require.Contains(t, admin.refused(with(direct, "msgId", gone.String()), protocol.ResponseSystemError), "can not find message")
}

// Clients that are too old, gone or silent: each has its answer.
func TestRelayFails(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := &processors{Broker: b}
	silent, gone := newFakeConn(1), newFakeConn(2)
	silent.answer = func(context.Context, *protocol.Command) (*protocol.Command, error) { return nil, remoting.ErrTimeout }
	gone.answer = func(context.Context, *protocol.Command) (*protocol.Command, error) {
		return nil, errors.New("connection reset")
	}
	b.Consumers.Register(clientChannel{Conn: silent, ClientID: "silent", Version: protocol.Version}, heartbeatOf("G", "T"))
	b.Consumers.Register(clientChannel{Conn: gone, ClientID: "gone", Version: protocol.Version}, heartbeatOf("G", "T"))
	b.Consumers.Register(clientChannel{Conn: newFakeConn(3), ClientID: "old", Version: 20}, heartbeatOf("G", "T"))
	for client, want := range map[string]struct {
		code   protocol.ResponseCode
		remark string
	}{
		"silent": {protocol.ResponseConsumeMsgTimeout, "consumer <G> <silent> timeout"},
		"gone":   {protocol.ResponseSystemError, "connection reset"},
		"old":    {protocol.ResponseSystemError, "too low to finish, please upgrade it to V3_"},
	} {
		resp := handle(p.consumerRunningInfo)(nil, request(protocol.RequestGetConsumerRunningInfo, "consumerGroup", "G", "clientId", client))
		require.EqualValues(t, want.code, resp.Code, client)
		require.Contains(t, string(resp.Remark), want.remark)
	}
	resp := handle(p.consumerStatus)(nil, request(protocol.RequestInvokeBrokerToGetConsumerStatus, "topic", "T", "group", "G", "clientAddr", "old"))
	require.Contains(t, string(resp.Remark), "does not support this feature")
	var status protocol.ConsumerStatusBody
	resp = handle(p.consumerStatus)(nil, request(protocol.RequestInvokeBrokerToGetConsumerStatus, "topic", "T", "group", "G", "clientAddr", "gone"))
	require.NoError(t, protocol.DecodeBody(resp.Body, &status))
	require.Empty(t, status.ConsumerTable, "who does not answer is left out")
}

// The offsets that consumers have in memory are gathered from all of them.
func TestConsumerStatus(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	admin := connect(t, b)
	ask := request(protocol.RequestInvokeBrokerToGetConsumerStatus, "topic", "T", "group", "G")
	require.Equal(t, "No Any Consumer online in the consumer group: [G]", admin.refused(ask, protocol.ResponseSystemError))
	for i := range 2 {
		id := "c" + strconv.Itoa(i)
		side := &consumerSide{answer: func(req, resp *protocol.Command) {
			require.Equal(t, []string{"T", "G"}, []string{req.GetString("topic"), req.GetString("group")})
			resp.Body = []byte(`{"consumerTable":{},"messageQueueTable":{{"brokerName":"broker-a","queueId":` + strconv.Itoa(i) + `,"topic":"T"}:` + strconv.Itoa(10+i) + `}}`)
		}}
		dial(t, b, b.conf().ListenPort, side).beat(id, "G", "T")
	}
	var body protocol.ConsumerStatusBody
	q := func(id int32) protocol.MessageQueue {
		return protocol.MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: id}
	}
	admin.ask(ask, &body)
	require.Equal(t, map[string]map[protocol.MessageQueue]int64{"c0": {q(0): 10}, "c1": {q(1): 11}}, body.ConsumerTable)
	admin.ask(with(ask, "clientAddr", "c1"), &body)
	require.Len(t, body.ConsumerTable, 1)
}

// The way of 4.9: consumers that are online are told, in the form that their language reads.
func TestResetByClients(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "useServerSideResetOffset=false")})
	admin := connect(t, b)
	admin.ask(topicRequest("T", "readQueueNums", "1", "writeQueueNums", "1"), nil)
	for range 4 {
		admin.send("T", 0, "x")
	}
	admin.dispatched()
	b.Groups.Find("G")
	reset := func(timestamp, force string) *protocol.Command {
		return request(protocol.RequestInvokeBrokerToResetOffset, "topic", "T", "group", "G", "timestamp", timestamp, "isForce", force)
	}
	require.Equal(t, "THe consumer group <G> not exist", admin.refused(reset("-1", "true"), protocol.ResponseSystemError))
	b.Offsets.Commit([]byte("G"), []byte("T"), 0, 2)
	require.Contains(t, admin.refused(reset("-1", "true"), protocol.ResponseConsumerNotOnline), "Consumer not online, so can not reset offset, Group: G Topic: T")

	java, cpp := &consumerSide{}, &consumerSide{}
	dial(t, b, b.conf().ListenPort, java).beat("java", "G", "T")
	q := dial(t, b, b.conf().ListenPort, cpp)
	beat := withBody(request(protocol.RequestHeartBeat), protocol.HeartbeatData{ClientID: "cpp", ConsumerDataSet: []protocol.ConsumerData{{GroupName: "G"}}})
	beat.Language = protocol.CPP
	q.ask(beat, nil)

	mq := protocol.MessageQueue{Topic: "T", BrokerName: "broker-a"}
	var body protocol.ResetOffsetBody
	admin.ask(reset("-1", "false"), &body)
	require.Equal(t, map[protocol.MessageQueue]int64{mq: 2}, body.OffsetTable, "not forward without isForce")
	admin.ask(reset("-1", "true"), &body)
	require.Equal(t, map[protocol.MessageQueue]int64{mq: 4}, body.OffsetTable)
	told := func(s *consumerSide) []*protocol.Command { return s.of(protocol.RequestResetConsumerClientOffset) }
	require.Eventually(t, func() bool { return len(told(java)) == 2 && len(told(cpp)) == 2 }, eventually, tick)
	require.True(t, told(java)[0].IsOneway())
	require.Contains(t, string(told(java)[1].Body), `{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:4}}`)
	require.Contains(t, string(told(cpp)[1].Body), `{"offsetTable":[{"brokerName":"broker-a","offset":4,"queueId":0,"topic":"T"}]}`)
	require.Equal(t, "true", told(java)[1].GetString("isForce"))
}

// Members of a group hear over their connections of those that come and go; broadcast ones do not.
func TestNoticesOnTheWire(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	side := &consumerSide{}
	p := dial(t, b, b.conf().ListenPort, side)
	p.beat("p", "G", "T")
	q := connect(t, b)
	q.beat("q", "G", "T")
	require.NoError(t, q.conn.Close())
	heard := func() []*protocol.Command { return side.of(protocol.RequestNotifyConsumerIDsChanged) }
	require.Eventually(t, func() bool { return len(heard()) == 3 }, eventually, tick) // its own, one joined, one left
	for _, n := range heard() {
		require.True(t, n.IsOneway())
		require.Equal(t, "G", n.GetString("consumerGroup"))
	}
}

// Heartbeats of all makes are read: Java's, Go's with its texts for numbers, and others with blanks.
func TestHeartbeatForms(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	for group, body := range map[string]string{
		"java": `{"clientID":"j@1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"java","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[97],"expressionType":"TAG","subString":"a","subVersion":1700000000000,"tagsSet":["a"],"topic":"T"}],"unitMode":true}],"heartbeatFingerprint":0,"producerDataSet":[],"withoutSub":false}`,
		"go":   `{"clientID":"g@1","producerDataSet":[{"groupName":"P"}],"consumerDataSet":[{"groupName":"go","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{"ClassFilterMode":false,"topic":"T","subString":"a","tagsSet":["a"],"codeSet":["97"],"subVersion":1700000000000000000,"expressionType":"TAG"}],"unitMode":false}]}`,
		"cpp":  `{ "clientID" : "c@1", "consumerDataSet" : [ { "groupName" : "cpp", "consumeType" : "CONSUME_PASSIVELY", "messageModel" : "CLUSTERING", "subscriptionDataSet" : [ { "topic" : "T", "subString" : "a", "codeSet" : [ "97" ], "subVersion" : "17", "expressionType" : "TAG" } ], "unitMode" : "false" } ] }   `,
	} {
		p.ask(withBody(request(protocol.RequestHeartBeat), body), nil)
		s := p.b.Consumers.Subscription(group, "T")
		require.NotNil(t, s, group)
		require.Equal(t, []int32{97}, s.CodeSet, group)
	}
	require.EqualValues(t, 2, p.b.Topics.Get("%RETRY%java").TopicSysFlag)
	require.EqualValues(t, 0, p.b.Topics.Get("%RETRY%go").TopicSysFlag)
	// The second version of heartbeats leaves subscriptions out, and they stay.
	p.ask(withBody(request(protocol.RequestHeartBeat), `{"clientID":"j@1","consumerDataSet":[{"groupName":"java","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING"}],"withoutSub":true,"heartbeatFingerprint":5}`), nil)
	require.NotNil(t, p.b.Consumers.Subscription("java", "T"))
	p.refused(withBody(request(protocol.RequestHeartBeat), `{"clientID":`), protocol.ResponseSystemError)
}

// A connection that closes while its heartbeat is on the way leaves no member behind.
func TestNoGhosts(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	d := protocol.HeartbeatData{
		ClientID: "c", ProducerDataSet: []protocol.ProducerData{{GroupName: "P"}},
		ConsumerDataSet: []protocol.ConsumerData{{GroupName: "G", SubscriptionDataSet: []protocol.SubscriptionData{{Topic: "T"}}}},
	}
	for range 100 {
		p := connect(t, b)
		require.NoError(t, p.conn.Oneway(withBody(request(protocol.RequestHeartBeat), d)))
		p.conn.Flush()
		require.NoError(t, p.conn.Close())
	}
	require.Eventually(t, func() bool {
		return len(b.server.Conns(nil)) == 0 && b.Consumers.Find("G") == nil && len(b.Producers.Groups()) == 0
	}, eventually, tick)
	p := connect(t, b)
	p.beat("late", "G", "T")
	require.Eventually(t, func() bool { // the server may take a connection later than it ended
		return slices.Equal([]string{"late"}, b.Consumers.ClientIDs("G")) && len(b.server.Conns(nil)) == 1
	}, eventually, tick)
}

// A group that reads an ordered topic has an ordered retry topic.
func TestHeartbeatOrderedTopic(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.ask(topicRequest("T", "order", "true"), nil)
	p.beat("c", "G", "U")
	require.False(t, p.b.Topics.Get("%RETRY%G").Order)
	p.beat("c", "G", "U", "T")
	require.True(t, p.b.Topics.Get("%RETRY%G").Order)
}

// Locks over the wire, and checks of subscriptions.
func TestLocksAndChecks(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	lock := func(code protocol.RequestCode, client string, ids ...int32) *protocol.Command {
		b := protocol.LockBatchBody{ConsumerGroup: "G", ClientID: client}
		for _, id := range ids {
			b.MQSet = append(b.MQSet, protocol.MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: id})
		}
		return withBody(request(code), b)
	}
	var ok protocol.LockBatchResponseBody
	p.ask(lock(protocol.RequestLockBatchMQ, "a", 0, 1), &ok)
	require.Len(t, ok.LockOKMQSet, 2)
	resp := p.ask(lock(protocol.RequestLockBatchMQ, "b", 0, 1), nil)
	require.Contains(t, string(resp.Body), `{"lockOKMQSet":[]}`)
	require.True(t, p.b.Locks.HasUnexpired("G"))
	p.ask(lock(protocol.RequestUnlockBatchMQ, "a", 0), nil)
	p.ask(lock(protocol.RequestLockBatchMQ, "b", 0, 1), &ok)
	require.Len(t, ok.LockOKMQSet, 1)

	check := func(expression string) *protocol.Command {
		return withBody(request(protocol.RequestCheckClientConfig), protocol.CheckClientConfigBody{
			ClientID: "c", Group: "G", SubscriptionData: &protocol.SubscriptionData{Topic: "T", SubString: "a > 1", ExpressionType: expression},
		})
	}
	p.ask(check("TAG"), nil)
	require.Equal(t, "The broker does not support consumer to filter message by SQL92", p.refused(check("SQL92"), protocol.ResponseSystemError))
}

// Settings are shown, changed at run time in file and memory together, and refused together.
func TestBrokerConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "broker.conf")
	require.NoError(t, os.WriteFile(file, []byte("# mine\nautoCreateTopicEnable=true\n"), 0o600))
	var heard []*Config
	fsys := vfs.NewFaulty(vfs.OS)
	b := startBroker(t, Options{Settings: settings(t, filepath.Join(dir, "store")), ConfigFile: file, FS: fsys, Reconfigured: func(c *Config) { heard = append(heard, c) }})
	p := connect(t, b)
	get := func() (map[string]string, protocol.DataVersion) {
		resp := p.ask(request(protocol.RequestGetBrokerConfig), nil)
		props, err := config.ParseProperties(resp.Body)
		require.NoError(t, err)
		out := map[string]string{}
		for _, kv := range props {
			out[kv.Key] = kv.Value
		}
		var v protocol.DataVersion
		require.NoError(t, protocol.DecodeBody([]byte(resp.GetString("version")), &v))
		return out, v
	}
	props, before := get()
	require.Equal(t, []string{"broker-a", "true", "6", "8"}, []string{props["brokerName"], props["autoCreateTopicEnable"], props["brokerPermission"], props["defaultTopicQueueNums"]})
	require.GreaterOrEqual(t, len(props), len(KeyNames())-5)
	require.Equal(t, []string{"0", "true", "false"}, []string{props["filterServerNums"], props["traceOn"], props["useTLS"]}, "exportConfigs of 4.9 fails without them")

	update := func(text string) *protocol.Command {
		return withBody(request(protocol.RequestUpdateBrokerConfig), text)
	}
	for _, tc := range []struct {
		text string
		code protocol.ResponseCode
		want string
	}{
		{"brokerConfigPath=/etc/passwd", 16, "black list"},
		{"rocketmqHome=/tmp", 16, "rocketmqHome"},
		{"listenPort=1234", 1, "listenPort"},
		{"autoCreateTopicEnable=false\nautoCreateTopicEnabled=false", 1, "autoCreateTopicEnable"},
		{"defaultTopicQueueNums=0", 1, "defaultTopicQueueNums"},
		{`a=\u00`, 1, "read request of"},
	} {
		require.Contains(t, p.refused(update(tc.text), tc.code), tc.want, tc.text)
	}
	require.True(t, b.conf().AutoCreateTopic)
	fsys.Add(vfs.Rule{Op: vfs.OpWrite, Match: "*broker.conf*", Err: os.ErrPermission})
	require.Contains(t, p.refused(update("autoCreateTopicEnable=false"), protocol.ResponseSystemError), "nothing is changed")
	require.True(t, b.conf().AutoCreateTopic)
	fsys.Clear()
	require.Empty(t, heard)

	p.ask(update("autoCreateTopicEnable=false"), nil)
	p.ask(update("autoCreateTopicEnable=false"), nil) // nothing new
	require.Len(t, heard, 1)
	require.False(t, heard[0].AutoCreateTopic)
	p.refused(sendRequest("New", 0, "x"), protocol.ResponseTopicNotExist)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "# mine\nautoCreateTopicEnable=false\n", string(text))
	props, after := get()
	require.Equal(t, "false", props["autoCreateTopicEnable"])
	require.Equal(t, before.Counter+1, after.Counter)

	// Another permission of the broker changes what is registered of every topic.
	v := b.Topics.DataVersion().Counter
	p.ask(update("brokerPermission=4"), nil)
	require.Equal(t, v+1, b.Topics.DataVersion().Counter)
}
