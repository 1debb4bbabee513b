//go:build drills

package drills

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// p99 is the 99th percentile of the answers that a load had since it was timed.
func (l *load) p99() time.Duration {
	var all []time.Duration
	for _, w := range l.workers {
		w.mu.Lock()
		all = append(all, w.took...)
		w.took = nil
		w.mu.Unlock()
	}
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)*99/100]
}

// misbehave opens connections that ask for much and read nothing, that send much and read nothing, and
// that stop in the middle of a frame.
func misbehave(t *testing.T, n *node, topic string, each int) (conns []*net.TCPConn) {
	t.Helper()
	pull := func(queue int64) []byte {
		req := protocol.NewRequest(protocol.RequestPullMessage)
		for _, f := range [][2]string{{"consumerGroup", "TOOLS_CONSUMER"}, {"topic", topic}, {"expressionType", "TAG"}, {"subscription", "*"}} {
			req.Add(f[0], f[1])
		}
		for key, v := range map[string]int64{"queueId": queue, "queueOffset": 0, "maxMsgNums": 4096, "sysFlag": protocol.PullSubscription, "commitOffset": 0, "suspendTimeoutMillis": 0, "subVersion": 0} {
			req.AddInt(key, v)
		}
		return protocol.AppendCommand(nil, req)
	}
	sends := func(int64) []byte {
		h := protocol.SendHeader{ProducerGroup: []byte("slow"), Topic: []byte("Deaf"), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 1, QueueID: 0}
		return append(protocol.AppendSendRequest(nil, protocol.RequestSendMessageV2, 1, 0, protocol.JSON, &h, 100), make([]byte, 100)...)
	}
	half := func(int64) []byte {
		b := binary.BigEndian.AppendUint32(nil, 16<<20-4)
		return append(binary.BigEndian.AppendUint32(b, 100), make([]byte, 256<<10)...)
	}
	g := run.New(t.Context(), "misbehave")
	for _, kind := range []func(int64) []byte{pull, sends, half} {
		for i := range each {
			nc, err := net.Dial("tcp", n.addr())
			require.NoError(t, err)
			conn := nc.(*net.TCPConn)
			require.NoError(t, conn.SetReadBuffer(4096))
			conns = append(conns, conn)
			g.Go("write", func(context.Context) error { return pour(conn, kind(int64(i%4))) })
		}
	}
	require.NoError(t, g.Wait())
	return conns
}

// pour writes frames until the broker takes no more for a while; a long one once.
func pour(conn net.Conn, frame []byte) error {
	const chunk, most = 256 << 10, 40
	all := bytes.Repeat(frame, max(1, chunk/len(frame)))
	for range most {
		if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Write(all); errors.Is(err, os.ErrDeadlineExceeded) || len(frame) >= chunk {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Proves that clients which read nothing, or stop half way through a frame, take a bounded part of the
// broker's memory, within the limit that it was given; that others go on meanwhile, lose nothing and keep
// their order; and that everything returns when they go.
func TestRobustSlowClients(t *testing.T) {
	const limit = 512 << 20
	c := newCluster(t, 1, []string{"conf/single/broker.conf"}, "--memory-limit=512M",
		"--max-transfer-count-on-message-in-memory=32", "--max-transfer-bytes-on-message-in-memory=262144") // as they are by default
	c.start(t)
	b := c.brokers[0]
	cl := c.connect(t)
	createTopic(t, cl, b, "Slow", 4)
	createTopic(t, cl, b, "Deaf", 1)
	l := newLoad(t, loadOptions{topic: "Slow", addr: b.addr(), queues: 4, workers: 4, window: 4, bodyBytes: 1000})
	a := newAudit(l, brokerA)
	before := b.usage(t)
	l.start(t)
	eventually(t, time.Minute, "there is something to read", func() bool { return l.total() > 40_000 })
	for _, w := range l.workers {
		w.timed.Store(true)
	}
	l.awaitAcks(t, 2000)
	alone := l.p99()
	const each, seconds = 40, 4
	conns := misbehave(t, b, "Slow", each)
	l.p99() // only what comes while they hang
	peak := int64(0)
	from := l.total()
	var beside []time.Duration // by second: first the broker works off what they have asked
	for range seconds {
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			peak = max(peak, b.anonBytes(t))
		}
		beside = append(beside, l.p99())
	}
	if peak >= limit {
		b.saveHeap(t)
	}
	l.awaitAcks(t, 2000)
	t.Logf("%d slow clients of 3 kinds: RssAnon %d MiB at most; p99 of the others %v alone, %v beside them, %d messages in %d s", len(conns), peak>>20, alone, beside, l.total()-from, seconds)
	l.end(t)
	a.round(t, cl)
	require.Less(t, peak, int64(limit), "memory beside slow clients")
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	require.NoError(t, l.client.Close())
	b.awaitUsage(t, before, storeCaches)
}
