package remoting_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// nullHandler answers every request with an empty success, without allocating.
type nullHandler struct{ handlerFuncs }

func (nullHandler) Serve(c *remoting.Conn, req *protocol.Command) {
	if req.IsOneway() {
		return
	}
	resp := protocol.Command{Language: protocol.Go, Version: protocol.Version, Opaque: req.Opaque, Flag: 1, Serialize: req.Serialize}
	c.End(protocol.AppendCommand(c.Begin(), &resp))
}

// template is a request frame into which a sender only writes the opaque.
func template(t testing.TB, s protocol.Serialize, bodyBytes int) []byte {
	require.Equal(t, protocol.Binary, s)
	req := protocol.NewRequest(protocol.RequestSendMessageV2)
	req.Serialize, req.Body = s, make([]byte, bodyBytes)
	for i, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m"} {
		req.Add(k, fmt.Sprintf("value-%d", i))
	}
	frame := protocol.AppendCommand(nil, req)
	req.Opaque = 0x01020304
	require.Equal(t, uint32(0x01020304), binary.BigEndian.Uint32(protocol.AppendCommand(nil, req)[opaqueAt:]))
	return frame
}

// opaqueAt is where a frame with a binary header has its opaque: behind the two words, code, language and version.
const opaqueAt = 8 + 2 + 1 + 2

// BenchmarkEcho runs connections × window requests of 1 KiB in flight against a server that stores nothing, client and
// server in one process.
func BenchmarkEcho(b *testing.B) {
	for _, g := range [][2]int{{1, 1}, {8, 1}, {64, 1}, {1, 64}, {4, 64}, {8, 64}, {16, 64}} {
		b.Run(fmt.Sprintf("conns=%d/window=%d", g[0], g[1]), func(b *testing.B) { benchmarkEcho(b, g[0], g[1]) })
	}
}

func benchmarkEcho(b *testing.B, conns, window int) {
	s, addr := newServer(b, remoting.ServerOptions{Handler: nullHandler{}})
	cl := newClient(b, remoting.ClientOptions{})
	frame := template(b, protocol.Binary, 1024)
	var left atomic.Int64
	done := make(chan error, conns*window)
	build := func(dst []byte, opaque int32) []byte {
		at := len(dst)
		dst = append(dst, frame...)
		binary.BigEndian.PutUint32(dst[at+opaqueAt:], uint32(opaque))
		return dst
	}
	var all []*remoting.Conn
	for range conns {
		c, err := cl.Dial(b.Context(), addr)
		require.NoError(b, err)
		all = append(all, c)
	}
	left.Store(int64(b.N))
	before := s.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	for _, c := range all {
		for range window {
			call := &remoting.Call{Build: build}
			call.Done = func(call *remoting.Call) {
				if call.Err != nil || left.Add(-1) < 0 {
					done <- call.Err
					return
				}
				if err := c.Start(call); err != nil {
					done <- err
				}
			}
			require.NoError(b, c.Start(call))
		}
	}
	for range conns * window {
		require.NoError(b, <-done)
	}
	b.StopTimer()
	after := s.Stats()
	n := float64(after.Requests - before.Requests)
	b.ReportMetric(n/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(after.Reads-before.Reads+after.Writes-before.Writes)/n, "syscalls/req")
}

// BenchmarkCall is the blocking call, one at a time and many at once on one connection.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			_, addr := newServer(b, remoting.ServerOptions{Handler: nullHandler{}})
			cl := newClient(b, remoting.ClientOptions{CallTimeout: 10 * time.Second})
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/2))
			b.RunParallel(func(pb *testing.PB) {
				req := request(string(make([]byte, 1024)))
				req.Serialize = protocol.Binary
				for pb.Next() {
					if _, err := cl.Call(b.Context(), addr, req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
