package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// BenchmarkSend is a message of 1 KiB from a client to its answer over a socket, with so many connections
// and so many in flight on each. The client shares the processors with the broker.
func BenchmarkSend(b *testing.B) {
	for _, c := range []struct{ conns, window int }{{1, 1}, {4, 64}, {16, 64}} {
		for _, flush := range []string{"ASYNC_FLUSH", "SYNC_FLUSH"} {
			b.Run(fmt.Sprintf("%dx%d/%s", c.conns, c.window, flush), func(b *testing.B) {
				br := startBroker(b, Options{
					Settings: settings(b, b.TempDir(), "mappedFileSizeCommitLog=1073741824", "maxHashSlotNum=5000000", "maxIndexNum=20000000", "flushDiskType="+flush),
					Logger:   slog.New(slog.DiscardHandler),
				})
				var peers []*peer
				for range c.conns {
					peers = append(peers, connect(b, br))
				}
				peers[0].send("T", 0, "x")
				b.SetBytes(1024)
				b.ReportAllocs()
				b.ResetTimer()
				var clients sync.WaitGroup
				for i, p := range peers {
					n := b.N / c.conns
					if i == 0 {
						n += b.N % c.conns
					}
					clients.Add(1)
					br.group.Go("client-"+strconv.Itoa(i), pump(b, p, n, c.window, i, clients.Done))
				}
				clients.Wait()
			})
		}
	}
}

// pump sends n messages with so many in flight.
func pump(b *testing.B, p *peer, n, window, queue int, done func()) func(_ context.Context) error {
	header := protocol.SendHeader{
		ProducerGroup: []byte("PG"), Topic: []byte("T"), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4, QueueID: int32(queue % 4),
		BornMillis: time.Now().UnixMilli(), Properties: []byte("UNIQ_KEY\x017F00000100002A9F0000000000001234\x02WAIT\x01true\x02TAGS\x01TagA\x02"),
	}
	body := []byte(strings.Repeat("x", 1024))
	return func(context.Context) error {
		defer done()
		free := make(chan *remoting.Call, window)
		for range window {
			req := protocol.NewRequest(protocol.RequestSendMessageV2)
			frame := protocol.AppendSendRequest(nil, protocol.RequestSendMessageV2, 0, 0, protocol.JSON, &header, len(body))
			if err := protocol.ParseCommand(append(frame, body...)[4:], req); err != nil {
				return err
			}
			free <- &remoting.Call{Request: req, Timeout: time.Minute, Done: func(c *remoting.Call) {
				if c.Err != nil || c.Response.Code != 0 {
					b.Errorf("send: %v", c.Err)
				}
				free <- c
			}}
		}
		for range n {
			if err := p.conn.Start(<-free); err != nil {
				return err
			}
		}
		for range window {
			<-free
		}
		return nil
	}
}

// BenchmarkPull is a pull of 32 records of 1 KiB that are in memory, over a socket.
func BenchmarkPull(b *testing.B) {
	br := startBroker(b, Options{Settings: settings(b, b.TempDir()), Logger: slog.New(slog.DiscardHandler)})
	p := connect(b, br)
	for range 32 {
		p.send("T", 0, strings.Repeat("x", 1024))
	}
	p.dispatched()
	const window = 8
	free := make(chan *remoting.Call, window)
	for range window {
		free <- &remoting.Call{Request: pullRequest("G", "T", 0, 0, "*", 0), Timeout: time.Minute, Done: func(c *remoting.Call) {
			if c.Err != nil || c.Response.Code != 0 {
				b.Errorf("pull: %v", c.Err)
			}
			free <- c
		}}
	}
	b.SetBytes(32 * 1024)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.conn.Start(<-free); err != nil {
			b.Fatal(err)
		}
	}
	for range window {
		<-free
	}
}
