package remoting_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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

// sendRequest has as many header fields as a message sent by a stock producer.
func sendRequest(s protocol.Serialize, bodyBytes int) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestSendMessageV2)
	req.Serialize, req.Body = s, make([]byte, bodyBytes)
	for i, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m"} {
		req.Add(k, fmt.Sprintf("value-%d", i))
	}
	return req
}

// template is a request frame into which a sender only writes the opaque.
func template(t testing.TB, bodyBytes int) []byte {
	req := sendRequest(protocol.Binary, bodyBytes)
	frame := protocol.AppendCommand(nil, req)
	req.Opaque = 0x01020304
	require.Equal(t, uint32(0x01020304), binary.BigEndian.Uint32(protocol.AppendCommand(nil, req)[opaqueAt:]))
	return frame
}

// opaqueAt is where a frame with a binary header has its opaque: behind the two words, code, language and version.
const opaqueAt = 8 + 2 + 1 + 2

// laterHandler answers as a broker does that waits for its disk: another goroutine answers what Serve gathered.
type laterHandler struct {
	handlerFuncs
	mu     sync.Mutex
	work   sync.Cond
	items  []laterItem
	closed bool
}

type laterItem struct {
	c      *remoting.Conn
	opaque int32
}

func newLaterHandler(b *testing.B) *laterHandler {
	h := &laterHandler{}
	h.work.L = &h.mu
	var wg sync.WaitGroup
	wg.Go(h.answer)
	b.Cleanup(func() {
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		h.work.Signal()
		wg.Wait()
	})
	return h
}

func (h *laterHandler) Serve(c *remoting.Conn, req *protocol.Command) {
	h.mu.Lock()
	h.items = append(h.items, laterItem{c, req.Opaque})
	h.mu.Unlock()
}

func (h *laterHandler) Drained(*remoting.Conn) { h.work.Signal() }

func (h *laterHandler) answer() {
	var items []laterItem
	for {
		h.mu.Lock()
		for len(h.items) == 0 && !h.closed {
			h.work.Wait()
		}
		if h.closed {
			h.mu.Unlock()
			return
		}
		items, h.items = h.items, items[:0]
		h.mu.Unlock()
		for _, it := range items {
			resp := protocol.Command{Language: protocol.Go, Version: protocol.Version, Opaque: it.opaque, Flag: 1, Serialize: protocol.Binary}
			it.c.End(protocol.AppendCommand(it.c.Begin(), &resp))
		}
	}
}

// BenchmarkEcho runs connections × window requests of 1 KiB in flight against a server that stores nothing, client and
// server in one process; answered by the reader, or by another goroutine.
func BenchmarkEcho(b *testing.B) {
	for _, g := range [][2]int{{1, 1}, {8, 1}, {64, 1}, {1, 64}, {4, 64}, {8, 64}, {16, 64}} {
		b.Run(fmt.Sprintf("now/conns=%d/window=%d", g[0], g[1]), func(b *testing.B) { benchmarkEcho(b, nullHandler{}, protocol.Binary, g[0], g[1]) })
	}
	for _, g := range [][2]int{{1, 1}, {64, 1}, {4, 64}, {16, 64}} {
		b.Run(fmt.Sprintf("later/conns=%d/window=%d", g[0], g[1]), func(b *testing.B) { benchmarkEcho(b, newLaterHandler(b), protocol.Binary, g[0], g[1]) })
	}
	b.Run("json/conns=4/window=64", func(b *testing.B) { benchmarkEcho(b, nullHandler{}, protocol.JSON, 4, 64) })
}

// processorTime is what this process used so far.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkEcho(b *testing.B, h remoting.Handler, s11n protocol.Serialize, conns, window int) {
	s, addr := newServer(b, remoting.ServerOptions{Handler: h})
	cl := newClient(b, remoting.ClientOptions{})
	frame := template(b, 1024)
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
	before, cpu := s.Stats(), processorTime(b)
	b.ReportAllocs()
	b.ResetTimer()
	for _, c := range all {
		for range window {
			call := &remoting.Call{Build: build, Timeout: time.Minute}
			if s11n == protocol.JSON {
				call.Build, call.Request = nil, sendRequest(s11n, 1024)
			}
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
	cpu = processorTime(b) - cpu
	require.NoError(b, cl.Close())
	require.NoError(b, s.Close())
	after := s.Stats()
	n := float64(after.Requests - before.Requests)
	b.ReportMetric(n/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/n, "cpu-ns/req")
	b.ReportMetric(float64(after.Reads-before.Reads+after.Writes-before.Writes)/n, "syscalls/req")
}

// BenchmarkBare is what the machine allows: the bytes of BenchmarkEcho through net.Conn and bufio, nothing parsed, written
// when nothing more is there to read.
func BenchmarkBare(b *testing.B) {
	for _, g := range [][2]int{{1, 1}, {4, 64}, {16, 64}} {
		b.Run(fmt.Sprintf("conns=%d/window=%d", g[0], g[1]), func(b *testing.B) { benchmarkBare(b, g[0], g[1]) })
	}
}

func benchmarkBare(b *testing.B, conns, window int) {
	req := template(b, 1024)
	resp := make([]byte, 29)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	var ends []net.Conn
	for range conns {
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		server, err := l.Accept()
		require.NoError(b, err)
		ends = append(ends, client, server)
	}
	answer := func(c net.Conn, n int, in, out []byte) {
		defer c.Close()
		r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 128<<10)
		for range n {
			if _, err := io.ReadFull(r, in); err != nil {
				return
			}
			w.Write(out)
			if r.Buffered() < len(in) {
				w.Flush()
			}
		}
	}
	cpu := processorTime(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	n := b.N/conns + 1
	for i := 0; i < len(ends); i += 2 {
		for range window {
			ends[i].Write(req)
		}
		wg.Go(func() { answer(ends[i], n, resp, req) })
		wg.Go(func() { answer(ends[i+1], n+window, req, resp) })
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(n*conns)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64((processorTime(b)-cpu).Nanoseconds())/float64(n*conns), "cpu-ns/req")
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
