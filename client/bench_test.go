package client

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// eager is a broker and name server that answers sends without storing anything.
type eager struct{ addr string }

func (*eager) Opened(*remoting.Conn)        {}
func (*eager) Drained(*remoting.Conn)       {}
func (*eager) Closed(*remoting.Conn, error) {}

func (e *eager) Serve(conn *remoting.Conn, req *protocol.Command) {
	switch protocol.RequestCode(req.Code) {
	case protocol.RequestSendMessageV2:
		h := protocol.SendResponse{MsgID: []byte("7F00000100002A9F0000000000000000")}
		conn.End(protocol.AppendSendResponse(conn.Begin(), req.Opaque, req.Serialize, protocol.ResponseSuccess, "", &h))
	case protocol.RequestGetRouteInfoByTopic:
		conn.Reply(req, replyBody(req, protocol.TopicRouteData{
			BrokerDatas: []protocol.BrokerData{{BrokerName: "b", BrokerAddrs: map[int64]string{0: e.addr}}},
			QueueDatas:  []protocol.QueueData{{BrokerName: "b", WriteQueueNums: 8, ReadQueueNums: 8, Perm: 6}},
		}))
	default:
		conn.Reply(req, reply(req))
	}
}

func benchProducer(b *testing.B) *Producer {
	e := &eager{}
	s, err := remoting.NewServer(context.Background(), remoting.ServerOptions{Handler: e})
	require.NoError(b, err)
	addr, err := s.Listen("main", "127.0.0.1:0")
	require.NoError(b, err)
	e.addr = addr.String()
	c, err := New(Options{NameServers: e.addr})
	require.NoError(b, err)
	p, err := c.NewProducer(ProducerOptions{Group: "bench"})
	require.NoError(b, err)
	_, err = p.Send(b.Context(), text("T", "warm"))
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, c.Close(context.Background()))
		require.NoError(b, s.Close())
	})
	return p
}

// BenchmarkSend is one message at a time, with the server in the same process.
func BenchmarkSend(b *testing.B) {
	p, m := benchProducer(b), &Message{Topic: "T", Body: make([]byte, 1024)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSendAsync keeps up to 1024 messages in flight on one connection.
func BenchmarkSendAsync(b *testing.B) {
	p, m := benchProducer(b), &Message{Topic: "T", Body: make([]byte, 1024)}
	var wg sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		wg.Add(1)
		if err := p.SendAsync(b.Context(), m, func(_ *SendResult, err error) {
			if err != nil {
				b.Error(err)
			}
			wg.Done()
		}); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}

// BenchmarkDecodeMessages takes apart what a pull of 32 messages of 1 KiB brings.
func BenchmarkDecodeMessages(b *testing.B) {
	host := netip.MustParseAddrPort("127.0.0.1:10911")
	var log []byte
	for range 32 {
		props, err := (&Message{Topic: "T", Tags: "t"}).encodeProperties(newUniqueIDs(host.Addr()).next(time.Now()))
		require.NoError(b, err)
		log, err = message.AppendRecord(log, &message.Message{Topic: "T", Body: make([]byte, 1024), Properties: props, BornHost: host, StoreHost: host})
		require.NoError(b, err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if _, err := DecodeMessages(log, "b"); err != nil {
			b.Fatal(err)
		}
	}
}
