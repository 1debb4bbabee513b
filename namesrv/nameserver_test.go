package namesrv

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/internal/vfs"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a name server without a socket, on files in memory. Connections to it are pipes.
type fixture struct {
	t  *testing.T
	fs *vfs.Heap
	n  *NameServer
	cl *remoting.Client
}

// newFixture starts a name server with the text of a configuration file, which is /n.conf as well.
func newFixture(t *testing.T, text string, wrap func(vfs.FS) vfs.FS) *fixture {
	f := &fixture{t: t, fs: vfs.NewHeap()}
	f.write("/n.conf", text)
	f.start(text, wrap)
	return f
}

func (f *fixture) write(name, text string) { writeFile(f.t, f.fs, name, text) }

func (f *fixture) start(text string, wrap func(vfs.FS) vfs.FS) {
	settings, _, err := load(text)
	require.NoError(f.t, err)
	o := Options{Settings: settings, ConfigFile: "/n.conf", FS: f.fs}
	if wrap != nil {
		o.FS = wrap(f.fs)
	}
	f.n, err = build(f.t.Context(), o)
	require.NoError(f.t, err)
	f.cl, err = remoting.NewClient(context.Background(), remoting.ClientOptions{IdleTimeout: 24 * time.Hour})
	require.NoError(f.t, err)
}

func (f *fixture) stop() {
	require.NoError(f.t, f.n.Shutdown(context.Background()))
	require.NoError(f.t, f.cl.Close())
}

// dial makes a connection.
func (f *fixture) dial() *remoting.Conn {
	here, there := net.Pipe()
	require.NoError(f.t, f.n.server.ServeConn(there, "pipe"))
	c, err := f.cl.Attach(here)
	require.NoError(f.t, err)
	return c
}

// request makes a request of code with pairs of field names and values.
func request(code protocol.RequestCode, body string, pairs ...string) *protocol.Command {
	req := protocol.NewRequest(code)
	for i := 0; i < len(pairs); i += 2 {
		req.Add(pairs[i], pairs[i+1])
	}
	req.Body = []byte(body)
	return req
}

func call(t *testing.T, c *remoting.Conn, req *protocol.Command) *protocol.Command {
	resp, err := c.Call(t.Context(), req)
	require.NoError(t, err)
	return resp
}

// register is a full registration of a master with topics A and B.
func register(name, addr string, pairs ...string) *protocol.Command {
	return request(protocol.RequestRegisterBroker,
		`{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"topicConfigTable":{"A":{"topicName":"A","readQueueNums":8,"writeQueueNums":8,"perm":6},"B":{"topicName":"B","readQueueNums":4,"writeQueueNums":4,"perm":7}}}}`,
		append([]string{"brokerName", name, "brokerAddr", addr, "clusterName", "c", "haServerAddr", addr + "1", "brokerId", "0", "compressed", "false", "bodyCrc32", "0"}, pairs...)...)
}

func (f *fixture) route(c *remoting.Conn, topic string) protocol.ResponseCode {
	return protocol.ResponseCode(call(f.t, c, request(protocol.RequestGetRouteInfoByTopic, "", "topic", topic)).Code)
}

// Proves what each request of a name server is answered, in both header encodings.
func TestRequests(t *testing.T) {
	codes := map[string]protocol.RequestCode{"NO_SUCH_REQUEST": 999}
	for _, c := range SupportedCodes() {
		codes[c.String()] = c
	}
	asked := map[string]bool{}
	for _, encoding := range []protocol.Serialize{protocol.JSON, protocol.Binary} {
		datadriven.Walk(t, "testdata/requests", func(t *testing.T, path string) {
			f := newFixture(t, "", nil)
			defer f.stop()
			c := f.dial()
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				code, ok := codes[d.Cmd]
				require.True(t, ok, d.Cmd)
				asked[d.Cmd] = true
				req := request(code, strings.TrimSpace(d.Input))
				req.Serialize = encoding
				for _, a := range d.CmdArgs {
					req.Add(a.Key, strings.Join(a.Vals, ","))
				}
				return say1(call(t, c, req))
			})
		})
	}
	delete(codes, "NO_SUCH_REQUEST")
	for name := range codes {
		require.True(t, asked[name], "no script asks for %s", name)
	}
}

// say1 is an answer in words: code, remark, fields, body.
func say1(resp *protocol.Command) string {
	var b strings.Builder
	b.WriteString(protocol.ResponseCode(resp.Code).String())
	if len(resp.Remark) > 0 {
		b.WriteString(": " + string(resp.Remark))
	}
	b.WriteByte('\n')
	for _, x := range resp.Ext {
		b.WriteString(string(x.Key) + "=" + string(x.Value) + "\n")
	}
	if len(resp.Body) > 0 {
		b.WriteString(strings.TrimSpace(string(resp.Body)) + "\n")
	}
	return b.String()
}

// Proves that the bodies of Java brokers of all ages are taken: packed, bare, absent, with a checksum.
func TestRegistrationForms(t *testing.T) {
	f := newFixture(t, "", nil)
	defer f.stop()
	c := f.dial()
	body := &protocol.RegisterBrokerBody{TopicConfigSerializeWrapper: protocol.TopicConfigWrapper{
		TopicConfigTable: map[string]*protocol.TopicConfig{"A": protocol.NewTopicConfig("A", 8), "B": protocol.NewTopicConfig("B", 4)},
		DataVersion:      protocol.DataVersion{Counter: 7, Timestamp: 9},
	}}
	packed, err := protocol.EncodeRegisterBroker(body, true)
	require.NoError(t, err)
	bare := protocol.EncodeBody(&body.TopicConfigSerializeWrapper)
	crc := func(b []byte) string { return strings.TrimSpace(string(protocol.EncodeBody(protocol.BodyCRC(b)))) }

	for _, form := range []struct {
		version         int32
		compressed, crc string
		body            []byte
		topics          int
	}{
		{protocol.Version, "true", crc(packed), packed, 2},
		{0, "false", "0", bare, 2},
		{protocol.Version, "false", "0", nil, 0},
	} {
		req := register("a", "a0")
		for _, key := range []string{"compressed", "bodyCrc32"} {
			req.Remove(key)
		}
		req.Add("compressed", form.compressed)
		req.Add("bodyCrc32", form.crc)
		req.Version, req.Body = form.version, form.body
		require.Equal(t, "SUCCESS\n", say1(call(t, c, req)))
		require.Len(t, f.n.routes.Topics(), form.topics)
		call(t, c, request(protocol.RequestUnregisterBroker, "", "brokerName", "a", "brokerAddr", "a0", "clusterName", "c", "brokerId", "0"))
	}
	req := register("a", "a0")
	req.Remove("bodyCrc32")
	req.Add("bodyCrc32", "1")
	require.Equal(t, "SYSTEM_ERROR: crc32 not match\n", say1(call(t, c, req)))
	require.Empty(t, f.n.routes.Topics())
}

// Proves that a broker is gone as soon as its connection is, stays when it had another one already, and
// that clients' connections mean nothing.
func TestConnectionDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "", nil)
		defer f.stop()
		broker, client := f.dial(), f.dial()
		require.Equal(t, "SUCCESS\n", say1(call(t, broker, register("a", "a0"))))
		require.Equal(t, protocol.ResponseSuccess, f.route(client, "A"))
		other := f.dial()
		require.Equal(t, protocol.ResponseSuccess, f.route(other, "A"))
		require.NoError(t, other.Close())
		synctest.Wait()
		require.Equal(t, protocol.ResponseSuccess, f.route(client, "A"))

		again := f.dial()
		call(t, again, register("a", "a0"))
		require.NoError(t, broker.Close())
		synctest.Wait()
		require.Equal(t, protocol.ResponseSuccess, f.route(client, "A"))
		require.NoError(t, again.Close())
		synctest.Wait()
		require.Equal(t, protocol.ResponseTopicNotExist, f.route(client, "A"))
	})
}

// Proves that a broker that falls silent is forgotten between 120 and 125 s later and its connection
// closed, earlier where it asked for that, and that each sign of life counts.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "serverChannelMaxIdleTimeSeconds=100000", nil)
		defer f.stop()
		silent, quick, alive := f.dial(), f.dial(), f.dial()
		call(t, silent, register("a", "a0"))
		call(t, quick, register("q", "q0", "heartbeatTimeoutMillis", "10000"))
		call(t, alive, register("v", "v0"))
		brokers := func() []string {
			return slices.Sorted(maps.Keys(f.n.routes.ClusterInfo().BrokerAddrTable))
		}
		time.Sleep(9 * time.Second)
		require.Equal(t, []string{"a", "q", "v"}, brokers())
		time.Sleep(7 * time.Second)
		require.Equal(t, []string{"a", "v"}, brokers())
		<-quick.Done()
		time.Sleep(100 * time.Second)
		call(t, alive, request(protocol.RequestBrokerHeartbeat, "", "brokerName", "v", "brokerAddr", "v0", "clusterName", "c"))
		time.Sleep(4 * time.Second)
		require.Equal(t, []string{"a", "v"}, brokers())
		time.Sleep(6 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"v"}, brokers())
		<-silent.Done()
		require.Nil(t, f.n.Ready())
	})
}

// Proves that a connection on which nothing is said for 120 s is closed, and its broker forgotten.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "", nil)
		defer f.stop()
		c := f.dial()
		call(t, c, register("a", "a0", "heartbeatTimeoutMillis", "1000000"))
		time.Sleep(119 * time.Second)
		require.Len(t, f.n.routes.Topics(), 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Empty(t, f.n.routes.Topics())
	})
}

// Proves that routes are held back, on demand, until brokers have had the time to register.
func TestNeedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "needWaitForService=true\nwaitSecondsForService=45", nil)
		defer f.stop()
		c := f.dial()
		call(t, c, register("a", "a0"))
		require.Equal(t, "SYSTEM_ERROR: name server not ready\n", say1(call(t, c, request(protocol.RequestGetRouteInfoByTopic, "", "topic", "A"))))
		require.Equal(t, []string{"waiting for brokers for another 45s (needWaitForService)"}, f.n.Ready())
		time.Sleep(45 * time.Second)
		require.Equal(t, protocol.ResponseSuccess, f.route(c, "A"))
		require.Empty(t, f.n.Ready())
	})
}

// Proves that a name server that starts empty on the address of one that ended has the routes again as
// soon as the broker, whose connection broke, has registered; over sockets.
func TestEmptyRestart(t *testing.T) {
	cl, err := remoting.NewClient(t.Context(), remoting.ClientOptions{})
	require.NoError(t, err)
	defer cl.Close()
	f := newFixture(t, "", nil)
	at, err := f.n.server.Listen("namesrv", "127.0.0.1:0")
	require.NoError(t, err)
	for range 3 {
		c, err := cl.Conn(t.Context(), at.String())
		require.NoError(t, err)
		require.Equal(t, protocol.ResponseTopicNotExist, f.route(c, "A"), "it starts empty")
		require.Equal(t, "SUCCESS\n", say1(call(t, c, register("a", "a0"))))
		require.Equal(t, protocol.ResponseSuccess, f.route(c, "A"))
		f.stop()
		<-c.Done() // this is how a broker knows
		f.start("", nil)
		_, err = f.n.server.Listen("namesrv", at.String())
		require.NoError(t, err)
	}
	f.stop()
}

// Proves that a one-way request is done and not answered, and that nonsense is refused without harm to
// the connection.
func TestOnewayAndNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "", nil)
		defer f.stop()
		c := f.dial()
		require.NoError(t, c.Oneway(register("a", "a0")))
		synctest.Wait()
		require.Equal(t, protocol.ResponseSuccess, f.route(c, "A"))
		require.NoError(t, c.Oneway(request(protocol.RequestPutKVConfig, "", "namespace", "n", "key", "k", "value", "v")))
		synctest.Wait()
		_, ok := f.n.kv.Get("n", "k")
		require.True(t, ok)
		for _, code := range SupportedCodes() {
			for _, body := range []string{"", "{", "[1,2", "\x00\xff", `{"topicConfigSerializeWrapper":{"topicConfigTable":{"A":null}}}`} {
				req := request(code, body)
				if protocol.RequestCode(req.Code) == protocol.RequestRegisterBroker {
					req = register("b", "b0")
					req.Body = []byte(body)
				}
				call(t, c, req)
			}
		}
		require.Equal(t, protocol.ResponseSuccess, f.route(c, "A"))
	})
}

// Proves that the order of a topic's queues goes out with routes and registrations where that is
// wanted.
func TestOrderConfig(t *testing.T) {
	f := newFixture(t, "", nil)
	defer f.stop()
	c := f.dial()
	order := func() string {
		var r protocol.TopicRouteData
		resp := call(t, c, request(protocol.RequestGetRouteInfoByTopic, "", "topic", "A"))
		require.NoError(t, protocol.DecodeBody(resp.Body, &r))
		return r.OrderTopicConf
	}
	require.Equal(t, "SUCCESS\n", say1(call(t, c, register("a", "a0"))))
	call(t, c, request(protocol.RequestPutKVConfig, "", "namespace", OrderNamespace, "key", "A", "value", "a:4"))
	require.Equal(t, "SUCCESS\n"+`{"table":{"A":"a:4"}}`+"\n", say1(call(t, c, register("a", "a0"))))
	require.Empty(t, order())
	require.Equal(t, "SUCCESS\n", say1(call(t, c, request(protocol.RequestUpdateNameServerConfig, "orderMessageEnable=true\nreturnOrderTopicConfigToBroker=false"))))
	require.Equal(t, "a:4", order())
	require.Equal(t, "SUCCESS\n", say1(call(t, c, register("a", "a0"))))
}

// Proves that the configuration changes together with its file, whose .bak it leaves, or not at all.
func TestUpdateConfig(t *testing.T) {
	var faulty *vfs.Faulty
	f := newFixture(t, "# mine\nenableTopicList=true\nlistenPort=9876\n", func(fsys vfs.FS) vfs.FS {
		faulty = vfs.NewFaulty(fsys)
		return faulty
	})
	defer f.stop()
	var heard []string
	f.n.changed = func(c *Config) { heard = append(heard, c.LogLevel) }
	c := f.dial()
	update := func(text string) string {
		return say1(call(t, c, request(protocol.RequestUpdateNameServerConfig, text)))
	}
	require.Equal(t, "SUCCESS\n", update("enableTopicList=false\nlogLevel=DEBUG\n"))
	require.Equal(t, "# mine\nenableTopicList=false\nlistenPort=9876\nlogLevel=DEBUG\n", fileText(t, f.fs, "/n.conf"))
	require.Equal(t, "# mine\nenableTopicList=true\nlistenPort=9876\n", fileText(t, f.fs, "/n.conf.bak"))
	require.Equal(t, []string{"DEBUG"}, heard)
	require.Equal(t, "SYSTEM_ERROR: disable\n", say1(call(t, c, request(protocol.RequestGetUnitTopicList, ""))))
	body := string(call(t, c, request(protocol.RequestGetNameServerConfig, "")).Body)
	require.Contains(t, body, "\nlogLevel=DEBUG\n")
	require.NotContains(t, body, "#")
	_, _, err := load(body)
	require.NoError(t, err, "the answer is a file that loads")

	for text, want := range map[string]string{
		"kvConfigPath=/x":           "NO_PERMISSION: Can not update config in black list: UPDATE_NAMESRV_CONFIG by ",
		"configBlackList=":          "NO_PERMISSION: Can not update config in black list: ",
		"listenPort=1":              "SYSTEM_ERROR: UPDATE_NAMESRV_CONFIG by ",
		"logLevel=LOUD":             "use DEBUG or INFO or WARN or ERROR",
		"orderMesageEnable=true":    "did you mean orderMessageEnable?",
		`a=\u`:                      "SYSTEM_ERROR: read UPDATE_NAMESRV_CONFIG by ",
		"logLevel=INFO\nlistenPort": "whole number",
	} {
		require.Contains(t, update(text), want)
	}
	require.Equal(t, "SUCCESS\n", update("listenPort=9876\n"), "what it is already")
	faulty.Add(vfs.Rule{Op: vfs.OpSync, Nth: 1, Err: syscall.ENOSPC})
	require.Contains(t, update("logLevel=WARN"), "SYSTEM_ERROR: save /n.conf: ")
	require.Equal(t, "DEBUG", f.n.settings.Load().Get().LogLevel)
	require.Equal(t, []string{"DEBUG", "DEBUG"}, heard)
}

// Proves that changes which wait for a slow disk are bounded, that those who wait cost one write
// together, and that the others are answered meanwhile.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := vfs.NewGate()
		var faulty *vfs.Faulty
		f := newFixture(t, "defaultThreadPoolQueueCapacity=3", func(fsys vfs.FS) vfs.FS {
			faulty = vfs.NewFaulty(fsys, vfs.Rule{Op: vfs.OpSync, Nth: 1, Stall: gate})
			return faulty
		})
		c := f.dial()
		answers := make(chan string, 10)
		for i := range 5 {
			err := c.Start(&remoting.Call{
				Request: request(protocol.RequestPutKVConfig, "", "namespace", "n", "key", string(rune('a'+i)), "value", "v"),
				Timeout: time.Minute,
				Done: func(call *remoting.Call) {
					require.NoError(t, call.Err)
					answers <- say1(call.Response)
				},
			})
			require.NoError(t, err)
			c.Flush()
			synctest.Wait()
		}
		require.Contains(t, <-answers, "SYSTEM_BUSY: [REJECTREQUEST]3 changes wait for the disk")
		require.Equal(t, protocol.ResponseTopicNotExist, f.route(c, "A"))
		gate.Open()
		for range 4 {
			require.Equal(t, "SUCCESS\n", <-answers)
		}
		require.EqualValues(t, 2, faulty.Count(vfs.OpWrite))
		require.Len(t, f.n.kv.Namespace("n"), 4)

		// A change that the disk refuses is answered with why, and not kept.
		faulty.Add(vfs.Rule{Op: vfs.OpCreate, Nth: 1, Err: syscall.ENOSPC})
		require.Contains(t, say1(call(t, c, request(protocol.RequestDeleteKVConfig, "", "namespace", "n", "key", "a"))), "no space left on device")
		require.Len(t, f.n.kv.Namespace("n"), 4)
		f.stop()
	})
}

// Proves that a name server that stops answers what it has taken, and gives up what the disk holds up
// when its time is over.
func TestShutdown(t *testing.T) {
	for name, patient := range map[string]bool{"drained": true, "given up": false} {
		synctest.Test(t, func(t *testing.T) {
			gate := vfs.NewGate()
			f := newFixture(t, "", func(fsys vfs.FS) vfs.FS {
				return vfs.NewFaulty(fsys, vfs.Rule{Op: vfs.OpSync, Nth: 1, Stall: gate})
			})
			c := f.dial()
			answer := make(chan error, 1)
			require.NoError(t, c.Start(&remoting.Call{
				Request: request(protocol.RequestPutKVConfig, "", "namespace", "n", "key", "k", "value", "v"),
				Timeout: time.Hour, Done: func(call *remoting.Call) { answer <- call.Err },
			}))
			c.Flush()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			opens := time.AfterFunc(map[bool]time.Duration{true: time.Second, false: 2 * time.Minute}[patient], gate.Open)
			defer opens.Stop()
			err := f.n.Shutdown(ctx)
			if patient {
				require.NoError(t, err, name)
				require.NoError(t, <-answer)
			} else {
				require.ErrorContains(t, err, "1 requests not answered: context deadline exceeded")
				require.Error(t, <-answer)
			}
			require.Equal(t, []string{"the name server is stopping"}, f.n.Ready())
			require.NoError(t, f.n.Shutdown(ctx), "twice is once")
			require.NoError(t, f.cl.Close())
		})
	}
}

// Proves that start fails, naming the cause and the way out, and leaves nothing behind.
func TestStartFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	settings, _, err := load("bindAddress=127.0.0.1\nlistenPort=" + port)
	require.NoError(t, err)
	heap := vfs.NewHeap()
	_, err = Start(t.Context(), Options{Settings: settings, FS: heap})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, port+": bind: address already in use: stop the process that has it (mqshutdown namesrv), or set listenPort to another one")

	require.NoError(t, heap.MkdirAll("/h/namesrv", 0o755))
	writeFile(t, heap, "/h/namesrv/kvConfig.json", "{")
	_, err = Start(t.Context(), Options{Settings: settings, FS: heap, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "load kvConfigPath: /h/namesrv/kvConfig.json is damaged")
}

// Proves which metrics there are.
func TestMetrics(t *testing.T) {
	f := newFixture(t, "", nil)
	defer f.stop()
	c := f.dial()
	call(t, c, register("a", "a0"))
	call(t, c, request(999, ""))
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(f.n))
	families, err := r.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"rocketmq_namesrv_clusters": 1, "rocketmq_namesrv_brokers": 1, "rocketmq_namesrv_topics": 2, "rocketmq_namesrv_connections": 1,
		"rocketmq_namesrv_waiting_changes":                        0,
		"rocketmq_namesrv_requests_total REGISTER_BROKER SUCCESS": 1, "rocketmq_namesrv_requests_total unknown REQUEST_CODE_NOT_SUPPORTED": 1,
	}
	text, err := json.Marshal(got)
	require.NoError(t, err)
	require.Equal(t, want, got, string(text))
}
