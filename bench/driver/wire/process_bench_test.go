package wire_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/bench/driver/wire"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// rssAnonMB is the memory of a process without the page cache.
func rssAnonMB(b *testing.B, pid int) float64 {
	b.Helper()
	size := wire.Process(pid).RSSAnonBytes
	require.NotNil(b, size)
	return float64(*size) / (1 << 20)
}

func newClient(b *testing.B) *remoting.Client {
	b.Helper()
	cl, err := remoting.NewClient(context.Background(), remoting.ClientOptions{DialTimeout: time.Second})
	require.NoError(b, err)
	return cl
}

// sendRequest is a send of n bytes to a topic that is made by it.
func sendRequest(topic string, body []byte) *protocol.Command {
	return sendTo(topic, 0, body)
}

func sendTo(topic string, queue int32, body []byte) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestSendMessageV2)
	for _, f := range [][2]string{
		{"a", "bench"}, {"b", topic}, {"c", "TBW102"}, {"d", "4"}, {"e", strconv.Itoa(int(queue))}, {"f", "0"},
		{"g", strconv.FormatInt(time.Now().UnixMilli(), 10)}, {"h", "0"}, {"i", "WAIT\x01true\x02"},
	} {
		req.Add(f[0], f[1])
	}
	req.Body = body
	return req
}

// BenchmarkColdStart is the time from exec of mqbroker, with an empty store, to the first message that it has
// stored, found through the name server.
func BenchmarkColdStart(b *testing.B) {
	home := b.TempDir()
	cl, err := wire.Start(b.Context(), wire.Driver{BinDir: programs}, home, alone)
	require.NoError(b, err)
	defer func() { require.NoError(b, cl.Stop()) }()
	conf, err := os.ReadFile(filepath.Join(home, "broker.conf"))
	require.NoError(b, err)
	net := newClient(b)
	defer func() { require.NoError(b, net.Close()) }()
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		port := 21000 + 10*(b.N%100)
		lines := strings.Split(string(conf), "\n")
		for i, l := range lines {
			switch k, _, _ := strings.Cut(l, "="); k {
			case "brokerName":
				lines[i] = "brokerName=cold"
			case "listenPort":
				lines[i] = "listenPort=" + strconv.Itoa(port)
			case "haListenPort":
				lines[i] = "haListenPort=" + strconv.Itoa(port+1)
			case "storePathRootDir":
				lines[i] = "storePathRootDir=" + filepath.Join(dir, "store")
			}
		}
		name := filepath.Join(dir, "broker.conf")
		require.NoError(b, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o644))
		cmd := exec.Command(filepath.Join(programs, "mqbroker"), "-c", name)
		cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
		b.StartTimer()
		require.NoError(b, cmd.Start())
		firstSend(b, net, cl.NameServer, "cold")
		b.StopTimer()
		require.NoError(b, cmd.Process.Signal(os.Interrupt))
		require.NoError(b, cmd.Wait())
		b.StartTimer()
	}
}

// firstSend asks for the route until the broker is in it, and sends until a message is stored.
func firstSend(b *testing.B, net *remoting.Client, ns, broker string) {
	b.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		route := protocol.NewRequest(protocol.RequestGetRouteInfoByTopic)
		route.Add("topic", "TBW102")
		resp, err := net.Call(b.Context(), ns, route)
		if err != nil || resp.Err() != nil {
			continue
		}
		var data protocol.TopicRouteData
		require.NoError(b, protocol.DecodeBody(resp.Body, &data))
		for _, d := range data.BrokerDatas {
			if d.BrokerName != broker {
				continue
			}
			resp, err := net.Call(b.Context(), d.BrokerAddrs[0], sendRequest("Cold", make([]byte, 1024)))
			if err == nil && resp.Err() == nil {
				return
			}
		}
	}
	b.Fatal("no message was stored")
}

// BenchmarkFootprint is the memory of an idle broker and name server, and of a broker with 10,000 idle connections.
func BenchmarkFootprint(b *testing.B) {
	cl, err := wire.Start(b.Context(), wire.Driver{BinDir: programs}, b.TempDir(), alone)
	require.NoError(b, err)
	defer func() { require.NoError(b, cl.Stop()) }()
	net := newClient(b)
	defer func() { require.NoError(b, net.Close()) }()
	firstSend(b, net, cl.NameServer, "broker-a")
	for b.Loop() {
		pids := cl.PIDs()
		b.ReportMetric(rssAnonMB(b, pids[0]), "namesrv-MB")
		b.ReportMetric(rssAnonMB(b, pids[1]), "broker-MB")
		const idle = 10_000
		heartbeat := protocol.NewRequest(protocol.RequestHeartBeat)
		conns := make([]*remoting.Conn, 0, idle)
		for i := range idle {
			c, err := net.Dial(b.Context(), cl.Broker())
			require.NoError(b, err)
			conns = append(conns, c)
			heartbeat.Body = protocol.EncodeBody(&protocol.HeartbeatData{ClientID: fmt.Sprintf("127.0.0.1@%d", i), ProducerDataSet: []protocol.ProducerData{{GroupName: "idle"}}})
			resp, err := c.Call(b.Context(), heartbeat)
			require.NoError(b, err)
			require.NoError(b, resp.Err())
		}
		b.ReportMetric(rssAnonMB(b, pids[1]), "broker-10k-conns-MB")
		for _, c := range conns {
			require.NoError(b, c.Close())
		}
	}
}

// BenchmarkPullBacklog is how fast four connections pull what lies in the log, 1 KiB bodies, in batches.
func BenchmarkPullBacklog(b *testing.B) {
	cl, err := wire.Start(b.Context(), wire.Driver{BinDir: programs, BrokerConf: []string{
		"maxTransferCountOnMessageInMemory=1024", "maxTransferBytesOnMessageInMemory=1M", "maxTransferCountOnMessageInDisk=1024", "maxTransferBytesOnMessageInDisk=1M",
	}}, b.TempDir(), alone)
	require.NoError(b, err)
	defer func() { require.NoError(b, cl.Stop()) }()
	net := newClient(b)
	defer func() { require.NoError(b, net.Close()) }()
	firstSend(b, net, cl.NameServer, "broker-a")
	const queues, each = 4, 100_000
	fill(b, net, cl.Broker(), queues, each)
	conns := make([]*remoting.Conn, queues)
	for i := range conns {
		conns[i], err = net.Dial(b.Context(), cl.Broker())
		require.NoError(b, err)
	}
	for b.Loop() {
		began := time.Now()
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() { pullAll(b, c, "Cold", int32(i), each) })
		}
		wg.Wait()
		b.ReportMetric(queues*each/time.Since(began).Seconds(), "msg/s")
	}
}

// fill stores messages in every queue of the topic.
func fill(b *testing.B, net *remoting.Client, addr string, queues, each int) {
	b.Helper()
	const window = 256
	c, err := net.Dial(b.Context(), addr)
	require.NoError(b, err)
	slots := make(chan error, window)
	for range window {
		slots <- nil
	}
	body := make([]byte, 1024)
	for i := range queues * each {
		require.NoError(b, <-slots)
		req := sendTo("Cold", int32(i%queues), body)
		require.NoError(b, c.Start(&remoting.Call{Request: req, Done: func(call *remoting.Call) {
			err := call.Err
			if err == nil {
				err = call.Response.Err()
			}
			slots <- err
		}}))
	}
	for range window {
		require.NoError(b, <-slots)
	}
}

// pullAll pulls a queue from its beginning.
func pullAll(b *testing.B, c *remoting.Conn, topic string, queue int32, want int) {
	done := make(chan error, 1)
	head := protocol.PullHeader{
		ConsumerGroup: []byte("bench"), Topic: []byte(topic), QueueID: queue, MaxMsgNums: 1024, MaxMsgBytes: 1 << 20, SysFlag: protocol.PullSubscription,
		Subscription: []byte("*"), RequestSource: -1,
	}
	got := 0
	call := &remoting.Call{Build: func(dst []byte, opaque int32) []byte {
		return protocol.AppendPullRequest(dst, protocol.RequestPullMessage, opaque, protocol.JSON, &head)
	}}
	call.Done = func(call *remoting.Call) {
		err := call.Err
		var p protocol.PullResponse
		if err == nil {
			err = call.Response.Err()
		}
		if err == nil {
			err = protocol.ParsePullResponse(call.Response, &p)
		}
		if err == nil {
			for body := call.Response.Body; len(body) > 0; body = body[message.RecordSize(body):] {
				got++
			}
			if head.QueueOffset = p.NextBeginOffset; got < want {
				err = c.Start(call)
				if err == nil {
					return
				}
			}
		}
		done <- err
	}
	require.NoError(b, c.Start(call))
	require.NoError(b, <-done)
}
