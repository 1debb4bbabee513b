package broker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// fakeNamesrv takes registrations and remembers what it was told.
type fakeNamesrv struct {
	tb   testing.TB
	addr string

	mu      sync.Mutex
	server  *remoting.Server
	topics  map[string]*protocol.TopicConfig
	header  protocol.RegisterBrokerHeader
	version protocol.DataVersion
	full    int // registrations with more than one topic
	gone    bool
	orders  string
	others  map[int64]string // that have the name broker-a
	master  protocol.RegisterBrokerResponse
}

func (n *fakeNamesrv) Opened(*remoting.Conn)        {}
func (n *fakeNamesrv) Drained(*remoting.Conn)       {}
func (n *fakeNamesrv) Closed(*remoting.Conn, error) {}
func (n *fakeNamesrv) Serve(c *remoting.Conn, req *protocol.Command) {
	n.mu.Lock()
	defer n.mu.Unlock()
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	switch protocol.RequestCode(req.Code) {
	case protocol.RequestRegisterBroker:
		if err := protocol.DecodeExt(req, &n.header); err != nil || n.header.BodyCRC32 != protocol.BodyCRC(req.Body) {
			resp = protocol.NewResponse(req, protocol.ResponseSystemError, "crc32 not match")
			break
		}
		body, err := protocol.DecodeRegisterBroker(req.Body, req.Version, n.header.Compressed)
		if err != nil {
			resp = protocol.NewResponse(req, protocol.ResponseSystemError, err.Error())
			break
		}
		n.version = body.TopicConfigSerializeWrapper.DataVersion
		if len(body.TopicConfigSerializeWrapper.TopicConfigTable) > 1 {
			n.full++
		}
		for name, topic := range body.TopicConfigSerializeWrapper.TopicConfigTable {
			n.topics[name] = topic
		}
		resp.Body = []byte(n.orders)
		protocol.EncodeExt(resp, &n.master)
	case protocol.RequestGetBrokerClusterInfo:
		resp.Body = protocol.EncodeBody(protocol.ClusterInfo{BrokerAddrTable: map[string]protocol.BrokerData{"broker-a": {BrokerName: "broker-a", BrokerAddrs: n.others}}})
	case protocol.RequestUnregisterBroker:
		n.gone = true
	}
	c.Reply(req, resp)
}

// startNamesrv listens on addr, "" for a free one, and knows nothing.
func startNamesrv(tb testing.TB, addr string) *fakeNamesrv {
	tb.Helper()
	n := &fakeNamesrv{tb: tb, topics: map[string]*protocol.TopicConfig{}}
	n.start(addr)
	tb.Cleanup(n.stop)
	return n
}

func (n *fakeNamesrv) start(addr string) {
	n.tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	server, err := remoting.NewServer(context.Background(), remoting.ServerOptions{Handler: n})
	require.NoError(n.tb, err)
	at, err := server.Listen("namesrv", addr)
	require.NoError(n.tb, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server, n.addr, n.full = server, at.String(), 0
	clear(n.topics)
}

func (n *fakeNamesrv) stop() {
	n.mu.Lock()
	server := n.server
	n.server = nil
	n.mu.Unlock()
	if server != nil {
		require.NoError(n.tb, server.Close())
	}
}

func (n *fakeNamesrv) knows(topic string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.topics[topic] != nil
}

// name makes client the address of the master that it tells; its replication port is another than any that is there.
func (n *fakeNamesrv) name(client string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.master = protocol.RegisterBrokerResponse{HAServerAddr: "127.0.0.1:1", MasterAddr: client}
}

func (n *fakeNamesrv) await(topic string) {
	n.tb.Helper()
	require.Eventually(n.tb, func() bool { return n.knows(topic) }, 10*time.Second, time.Millisecond, topic)
}

// A master whose name another one has, which answers, does not take its place: it says so, and registers once
// the other one is gone. One that does not answer is gone already.
func TestRivalMaster(t *testing.T) {
	other := startNamesrv(t, "") // whatever answers
	ns := startNamesrv(t, "")
	ns.others = map[int64]string{0: other.addr, 1: "127.0.0.1:1"}
	var said bytes.Buffer
	b, err := New(Options{Settings: settings(t, t.TempDir(), "namesrvAddr="+ns.addr), Logger: slog.New(slog.NewTextHandler(&said, nil))})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	require.Eventually(t, func() bool { _, all := b.NameServers(); return all == 1 }, 10*time.Second, time.Millisecond)
	require.Never(t, func() bool { return ns.knows("TBW102") }, 300*time.Millisecond, 10*time.Millisecond)
	other.stop()
	ns.await("TBW102")
	require.NoError(t, b.Shutdown(t.Context()))
	require.Contains(t, said.String(), "another master has this one's name")
	require.Contains(t, said.String(), "brokerName=broker-a this="+b.advertised()+" other="+other.addr)
}

// All name servers hear of the broker at its start, of a new topic before its first message is answered,
// of everything again when they come back empty, and that the broker goes.
func TestRegister(t *testing.T) {
	first, second := startNamesrv(t, ""), startNamesrv(t, "")
	first.orders = `{"table":{"T":"broker-a:4"}}`
	b, err := New(Options{Settings: settings(t, t.TempDir(), "namesrvAddr="+first.addr+";"+second.addr, "haListenPort=12345")})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	first.await("TBW102")
	second.await("SELF_TEST_TOPIC")
	require.Eventually(t, func() bool { known, all := b.NameServers(); return known == 2 && all == 2 }, 10*time.Second, time.Millisecond)
	first.mu.Lock()
	header := first.header
	first.mu.Unlock()
	require.Equal(t, protocol.RegisterBrokerHeader{
		BrokerName: "broker-a", BrokerAddr: b.advertised(), ClusterName: "DefaultCluster", HAServerAddr: "127.0.0.1:12345",
		BodyCRC32: header.BodyCRC32,
	}, header)

	fulls := func() int {
		second.mu.Lock()
		defer second.mu.Unlock()
		return second.full
	}
	before := fulls()
	p := connect(t, b)
	p.send("T", 0, "x")
	require.True(t, first.knows("T"))
	require.True(t, second.knows("T"))
	// The role may have been told meanwhile, once.
	require.LessOrEqual(t, fulls(), before+1, "only the new topic is told")

	second.stop()
	require.Eventually(t, func() bool { known, _ := b.NameServers(); return known == 1 }, 10*time.Second, time.Millisecond)
	p.send("whileAway", 0, "x")
	second.start(second.addr)
	second.await("T")
	second.await("whileAway")

	require.NoError(t, stopBroker(b))
	for _, n := range []*fakeNamesrv{first, second} {
		n.mu.Lock()
		gone := n.gone
		n.mu.Unlock()
		require.True(t, gone)
	}
}

// A name that stands for several addresses stands for several name servers; what it stands for is asked
// again when one is lost. What the broker may not do is taken from what it registers.
func TestRegisterNames(t *testing.T) {
	n := startNamesrv(t, "")
	host, port, err := net.SplitHostPort(n.addr)
	require.NoError(t, err)
	b, err := New(Options{Settings: settings(t, t.TempDir(), "brokerPermission=4")})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	defer func() { require.NoError(t, stopBroker(b)) }()
	var mu sync.Mutex
	answers := [][]string{nil, {"127.0.0.9", host}, {host}}
	r := &Registrar{conf: b.conf, identity: b.identity, addrs: []string{"names.test:" + port}, topics: b.Topics, log: b.log, lookup: func(context.Context, string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		if a == nil {
			return nil, fmt.Errorf("no such host")
		}
		return a, nil
	}}
	require.NoError(t, r.start(t.Context()))
	defer func() { require.NoError(t, r.stop(context.Background())) }()
	r.lost <- struct{}{}
	n.await("SELF_TEST_TOPIC")
	require.Eventually(t, func() bool { known, all := r.Registered(); return known == 1 && all == 1 }, 10*time.Second, time.Millisecond)
	n.mu.Lock()
	perm := n.topics["SELF_TEST_TOPIC"].Perm
	n.mu.Unlock()
	require.EqualValues(t, protocol.PermRead, perm)
}

// versions is a name server that is asked for the version of topics.
type versions struct {
	fakeNamesrv
	changed chan string // what it answers next, "" for nothing
}

// Serve implements remoting.Handler.
func (v *versions) Serve(c *remoting.Conn, req *protocol.Command) {
	if protocol.RequestCode(req.Code) != protocol.RequestQueryDataVersion {
		return
	}
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	if changed := <-v.changed; changed != "" {
		resp.Add("changed", changed)
		c.Reply(req, resp)
	}
}

// Unless it is to register always, a broker asks whether its topics are known. A name server that does not
// answer in time is told them.
func TestQueryDataVersion(t *testing.T) {
	v := &versions{changed: make(chan string, 3)}
	server, err := remoting.NewServer(t.Context(), remoting.ServerOptions{Handler: v})
	require.NoError(t, err)
	at, err := server.Listen("namesrv", "127.0.0.1:0")
	require.NoError(t, err)
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "forceRegister=false", "registerBrokerTimeoutMills=300")})
	require.False(t, b.conf().ForceRegister)
	conn := dial(t, b, int(netip.MustParseAddrPort(at.String()).Port()), nil).conn
	for _, changed := range []string{"false", "true", ""} {
		v.changed <- changed
		require.Equal(t, changed != "false", b.registrar.outdated(t.Context(), conn), changed)
	}
	require.NoError(t, server.Close())
}

// A client that says nothing for long is let go.
func TestIdleClient(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "serverChannelMaxIdleTimeSeconds=1")}))
	p.send("T", 0, "x")
	select {
	case <-p.conn.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection is still open")
	}
}
