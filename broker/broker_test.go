package broker

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/config"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// ports finds a listenPort that is free together with its fast port.
func ports(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 12_000 + rand.IntN(20_000) // below those that the kernel gives to outgoing connections
		free := true
		for _, p := range []int{port, port - 2, port + 2} { // its own, the fast one, that of replication
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return port
		}
	}
	tb.Fatal("no two free ports")
	return 0
}

// settings are those of a small broker on the loopback.
func settings(tb testing.TB, dir string, more ...string) *Settings {
	tb.Helper()
	values := map[string]string{
		"storePathRootDir": dir, "brokerIP1": "127.0.0.1", "bindAddress": "127.0.0.1", "brokerName": "broker-a",
		"mappedFileSizeCommitLog": strconv.Itoa(4 << 20), "mappedFileSizeConsumeQueue": "20000", "maxHashSlotNum": "1000", "maxIndexNum": "4000",
		"maxMessageSize": "1048576",
	}
	for _, kv := range more {
		k, v, _ := strings.Cut(kv, "=")
		values[k] = v
	}
	if values["listenPort"] == "" {
		values["listenPort"] = strconv.Itoa(ports(tb))
	}
	if port, err := strconv.Atoi(values["listenPort"]); err == nil && values["haListenPort"] == "" {
		values["haListenPort"] = strconv.Itoa(port + 2)
	}
	var flags []config.Setting
	for k, v := range values {
		flags = append(flags, config.Setting{Key: k, Value: v, From: config.FromFlag(k)})
	}
	s, _, err := LoadConfig(LoadOptions{Flags: flags, Strict: true, Getenv: func(string) string { return "" }})
	require.NoError(tb, err)
	return s
}

// startBroker runs a broker until the test ends.
func startBroker(tb testing.TB, o Options) *Broker {
	tb.Helper()
	if o.Logger == nil && testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	b, err := New(o)
	require.NoError(tb, err)
	require.NoError(tb, b.Start(tb.Context()))
	tb.Cleanup(func() { require.NoError(tb, stopBroker(b)) })
	return b
}

func stopBroker(b *Broker) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return b.Shutdown(ctx)
}

// peer is a client of one broker.
type peer struct {
	tb   testing.TB
	b    *Broker
	conn *remoting.Conn
}

// connect dials the main port.
func connect(tb testing.TB, b *Broker) *peer {
	tb.Helper()
	return dial(tb, b, b.conf().ListenPort, nil)
}

func dial(tb testing.TB, b *Broker, port int, h remoting.Handler) *peer {
	tb.Helper()
	cl, err := remoting.NewClient(context.Background(), remoting.ClientOptions{Handler: h})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, cl.Close()) })
	conn, err := cl.Conn(tb.Context(), fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(tb, err)
	return &peer{tb, b, conn}
}

// call sends a request and returns the answer.
func (p *peer) call(req *protocol.Command) *protocol.Command {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := p.conn.Call(ctx, req)
	require.NoError(p.tb, err)
	return resp
}

// sendRequest is a message as a stock client sends it.
func sendRequest(topic string, queue int, body string, props ...string) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestSendMessageV2)
	var p message.Properties
	for i := 0; i < len(props); i += 2 {
		p = message.AppendProperty(p, props[i], props[i+1])
	}
	for _, kv := range [][2]string{
		{"a", "PG"}, {"b", topic}, {"c", "TBW102"}, {"d", "4"}, {"e", strconv.Itoa(queue)}, {"f", "0"}, {"g", "1700000000000"},
		{"h", "0"}, {"i", string(p)}, {"j", "0"}, {"k", "false"}, {"m", "false"},
	} {
		req.Add(kv[0], kv[1])
	}
	req.Body = []byte(body)
	return req
}

// with replaces a header field.
func with(req *protocol.Command, key, value string) *protocol.Command {
	req.Remove(key)
	req.Add(key, value)
	return req
}

// send stores a message.
func (p *peer) send(topic string, queue int, body string, props ...string) *protocol.Command {
	p.tb.Helper()
	resp := p.call(sendRequest(topic, queue, body, props...))
	p.require(resp, protocol.ResponseSuccess)
	return resp
}

// require checks the code of an answer, and returns its remark.
func (p *peer) require(resp *protocol.Command, code protocol.ResponseCode) string {
	p.tb.Helper()
	require.Equal(p.tb, code.String(), protocol.ResponseCode(resp.Code).String(), "remark: %s", resp.Remark)
	return string(resp.Remark)
}

// pullRequest asks for records with a subscription of its own.
func pullRequest(group, topic string, queue int, offset int64, tags string, suspend time.Duration) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestPullMessage)
	flag := protocol.PullSubscription
	if suspend > 0 {
		flag |= protocol.PullSuspend
	}
	req.Add("consumerGroup", group)
	req.Add("topic", topic)
	req.AddInt("queueId", int64(queue))
	req.AddInt("queueOffset", offset)
	req.AddInt("maxMsgNums", 32)
	req.AddInt("sysFlag", int64(flag))
	req.AddInt("commitOffset", 0)
	req.AddInt("suspendTimeoutMillis", suspend.Milliseconds())
	req.Add("subscription", tags)
	req.AddInt("subVersion", 0)
	return req
}

// pulled is an answer to a pull.
type pulled struct {
	code    protocol.ResponseCode
	remark  string
	header  protocol.PullResponse
	records []message.Record
}

func parsePulled(tb testing.TB, resp *protocol.Command) pulled {
	tb.Helper()
	p := pulled{code: protocol.ResponseCode(resp.Code), remark: string(resp.Remark)}
	require.NoError(tb, protocol.ParsePullResponse(resp, &p.header))
	p.records = parseRecords(tb, resp.Body)
	return p
}

func parseRecords(tb testing.TB, b []byte) (all []message.Record) {
	tb.Helper()
	for len(b) > 0 {
		var r message.Record
		require.NoError(tb, message.ParseRecord(b, &r))
		require.NoError(tb, r.CheckCRC())
		all = append(all, r)
		b = b[r.Size:]
	}
	return all
}

func (p *peer) pull(group, topic string, queue int, offset int64, tags string, suspend time.Duration) pulled {
	p.tb.Helper()
	return parsePulled(p.tb, p.call(pullRequest(group, topic, queue, offset, tags, suspend)))
}

// dispatched waits until everything sent can be read by queue offset.
func (p *peer) dispatched() {
	p.tb.Helper()
	require.NoError(p.tb, p.b.store.WaitDispatchedPos(p.tb.Context(), p.b.store.Max()))
}

// bodies are those of the records.
func (p pulled) bodies() (out []string) {
	for _, r := range p.records {
		out = append(out, string(r.Body))
	}
	return out
}

// A message goes to the store and comes back with all that a stock consumer reads of it, under the id
// that its producer got.
func TestSendAndPull(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	resp := p.send("T", 1, "hello", "KEYS", "k1", "TAGS", "A", "UNIQ_KEY", "7F000001", "WAIT", "true")
	require.Equal(t, "1", resp.GetString("queueId"))
	require.Equal(t, "0", resp.GetString("queueOffset"))
	require.Equal(t, "7F000001", resp.GetString("transactionId"))
	require.Equal(t, "DefaultRegion", resp.GetString("MSG_REGION"))
	require.Equal(t, "true", resp.GetString("TRACE_ON"))
	id := resp.GetString("msgId")
	p.dispatched()

	got := p.pull("G", "T", 1, 0, "*", 0)
	require.Equal(t, protocol.ResponseSuccess, got.code)
	require.Equal(t, "FOUND", got.remark)
	require.Equal(t, protocol.PullResponse{NextBeginOffset: 1, MaxOffset: 1}, got.header)
	require.Len(t, got.records, 1)
	r := got.records[0]
	require.Equal(t, id, r.ID().String())
	require.Equal(t, "hello", string(r.Body))
	require.Equal(t, int64(1700000000000), r.BornTimestamp)
	require.Equal(t, p.conn.LocalAddr(), message.Host(r.BornHost))
	require.Equal(t, "KEYS\x01k1\x02TAGS\x01A\x02UNIQ_KEY\x017F000001\x02WAIT\x01true\x02CLUSTER\x01DefaultCluster\x02MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02", string(r.Properties))

	// Without an id of its own a message gets one, and one is enough.
	resp = p.send("T", 1, "no id", "CLUSTER", "other", "TRACE_ON", "false", "POP_CK", "x")
	require.Regexp(t, "^7F000001[0-9A-F]{24}$", resp.GetString("transactionId"))
	p.dispatched()
	r = p.pull("G", "T", 1, 1, "*", 0).records[0]
	require.Equal(t, "UNIQ_KEY\x01"+resp.GetString("transactionId")+"\x02CLUSTER\x01DefaultCluster\x02MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02", string(r.Properties))

	// Nobody's queue: the broker chooses one.
	resp = p.send("T", -1, "anywhere")
	require.Contains(t, []string{"0", "1", "2", "3"}, resp.GetString("queueId"))
}

// The three forms of a send store the same, and an empty body is a body.
func TestSendForms(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "v2")
	v1 := protocol.NewRequest(protocol.RequestSendMessage)
	for _, kv := range [][2]string{
		{"producerGroup", "PG"}, {"topic", "T"}, {"defaultTopic", "TBW102"}, {"defaultTopicQueueNums", "4"}, {"queueId", "0"},
		{"sysFlag", "0"}, {"bornTimestamp", "1"}, {"flag", "7"}, {"properties", "A\x01b"},
	} {
		v1.Add(kv[0], kv[1])
	}
	v1.Body = []byte("v1")
	p.require(p.call(v1), protocol.ResponseSuccess)
	binary := sendRequest("T", 0, "")
	binary.Serialize = protocol.Binary
	p.require(p.call(binary), protocol.ResponseSuccess)
	p.dispatched()
	got := p.pull("G", "T", 0, 0, "*", 0)
	require.Equal(t, []string{"v2", "v1", ""}, got.bodies())
	require.Equal(t, int32(7), got.records[1].Flag)
	require.Equal(t, "b", string(got.records[1].Properties.Get("A")))
}

// A batch is stored as one message each, with an id each, whatever code it came under.
func TestSendBatch(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "first")
	var body []byte
	for _, s := range []string{"one", "two", "three"} {
		var err error
		body, err = message.AppendBatchItem(body, 0, []byte(s), message.AppendProperty(message.Properties(nil), "TAGS", s))
		require.NoError(t, err)
	}
	req := with(sendRequest("T", 0, string(body), "WAIT", "true"), "m", "true")
	req.Code = int32(protocol.RequestSendBatchMessage)
	resp := p.call(req)
	p.require(resp, protocol.ResponseSuccess)
	require.Equal(t, "1", resp.GetString("queueOffset"))
	_, has := resp.Get("transactionId")
	require.False(t, has)
	p.dispatched()
	got := p.pull("G", "T", 0, 1, "*", 0)
	require.Equal(t, []string{"one", "two", "three"}, got.bodies())
	var ids []string
	for _, r := range got.records {
		ids = append(ids, r.ID().String())
		require.Equal(t, string(r.Body), string(r.Properties.Get("TAGS")))
		require.Equal(t, "DefaultCluster", string(r.Properties.Get("CLUSTER")))
	}
	require.Equal(t, strings.Join(ids, ","), resp.GetString("msgId"))

	long := strings.Repeat("x", 120)
	p.require(p.call(with(sendRequest("%RETRY%"+long, 0, string(body)), "m", "true")), protocol.ResponseMessageIllegal)
	p.require(p.call(with(sendRequest("T", 0, "garbage"), "m", "true")), protocol.ResponseMessageIllegal)
	p.require(p.call(with(sendRequest("T", 0, ""), "m", "true")), protocol.ResponseMessageIllegal)
}
