package remoting_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

func frame(req *protocol.Command, opaque int32) []byte {
	req.Opaque = opaque
	return protocol.AppendCommand(nil, req)
}

// readFrame reads one command off a raw connection.
func readFrame(t testing.TB, r io.Reader) *protocol.Command {
	var word [4]byte
	_, err := io.ReadFull(r, word[:])
	require.NoError(t, err)
	b := make([]byte, binary.BigEndian.Uint32(word[:]))
	_, err = io.ReadFull(r, b)
	require.NoError(t, err)
	var c protocol.Command
	require.NoError(t, protocol.ParseCommand(b, &c))
	return &c
}

func rawDial(t testing.TB, addr string) net.Conn {
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	return nc
}

// Proves that each way to break a frame closes the connection without an answer, with an error that names the trouble, and
// that requests before it were served.
func TestBadFramesClose(t *testing.T) {
	closed := make(chan error, 1)
	var served atomic.Int32
	_, addr := newServer(t, remoting.ServerOptions{MaxFrameBytes: 1 << 20, Handler: handlerFuncs{
		serve:  func(*remoting.Conn, *protocol.Command) { served.Add(1) },
		closed: func(_ *remoting.Conn, err error) { closed <- err },
	}})
	word := func(n ...uint32) []byte {
		var b []byte
		for _, n := range n {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		return b
	}
	good := frame(request("x"), 1)
	for _, tc := range []struct {
		name  string
		bytes []byte
		is    error
		says  string
	}{
		{"length too small", word(3, 0), nil, "says 3 "},
		{"length negative", word(1<<31, 0), nil, "0x80000000"},
		{"length over the limit", word(1<<20-3, 0), nil, "4 to 1048572"},
		{"http", []byte("GET / HTTP/1.1\r\n\r\n"), nil, "not a RocketMQ peer"},
		{"header above the frame", word(8, 100, 0), protocol.ErrTruncated, "100 bytes announced"},
		{"serialize type", word(8, 7<<24|4, 0), protocol.ErrMalformed, "serialize type 7"},
		{"no JSON", append(word(12, 8), "garbage!"...), protocol.ErrMalformed, "object must begin"},
		{"binary cut", append(word(12, 1<<24|8), "\x00\x0a\x09\x01\xdf\x00\x00\x00"...), protocol.ErrTruncated, "header"},
		{"TLS", []byte{0x16, 3, 1, 2, 0, 1}, remoting.ErrTLS, "tls.enable=false"},
		{"truncated, then closed", good[:len(good)-1], io.EOF, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			served.Store(0)
			nc := rawDial(t, addr)
			first := good
			if errors.Is(tc.is, remoting.ErrTLS) {
				first = nil
			}
			_, err := nc.Write(append(append([]byte{}, first...), tc.bytes...))
			require.NoError(t, err)
			require.NoError(t, nc.(*net.TCPConn).CloseWrite())
			err = <-closed
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
			require.ErrorContains(t, err, tc.says)
			var fe *remoting.FrameError
			require.Equal(t, !errors.Is(err, io.EOF) && !errors.Is(err, remoting.ErrTLS), errors.As(err, &fe))
			if first != nil {
				require.EqualValues(t, 1, served.Load())
			}
			b, _ := io.ReadAll(nc)
			require.Empty(t, b, "an answer to garbage")
		})
	}
}

// Proves that frames of any size arrive, glued together or cut anywhere, and that a long one goes through a short read
// buffer.
func TestFrameSizes(t *testing.T) {
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo}})
	cl := newClient(t, remoting.ClientOptions{})
	for _, n := range []int{0, 1, 4 << 10, 64<<10 - 100, 64 << 10, 64<<10 + 1, 200 << 10, 1 << 20, 8 << 20, protocol.MaxFrameBytes - 200} {
		req := request(strings.Repeat("b", n))
		resp, err := cl.Call(soon(t), addr, req)
		require.NoError(t, err, n)
		require.True(t, bytes.Equal(req.Body, resp.Body), n)
	}
	require.Equal(t, 1, cl.Stats().Conns)
}

// Proves that frames that are too long for the peer are not sent: a request is refused, an answer says so, and the
// connection lives on.
func TestTooLarge(t *testing.T) {
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
		resp.Body = make([]byte, protocol.MaxFrameBytes)
		c.Reply(req, resp)
	}}})
	cl := newClient(t, remoting.ClientOptions{})
	_, err := cl.Call(soon(t), addr, request(strings.Repeat("b", protocol.MaxFrameBytes)))
	require.ErrorIs(t, err, protocol.ErrTooLarge)
	require.ErrorIs(t, cl.Oneway(soon(t), addr, request(strings.Repeat("b", protocol.MaxFrameBytes))), protocol.ErrTooLarge)
	resp, err := cl.Call(soon(t), addr, request("all of it"))
	require.NoError(t, err)
	require.EqualValues(t, protocol.ResponseSystemError, resp.Code)
	require.Contains(t, string(resp.Remark), "a frame at most 16777216")
	require.EqualValues(t, 1, cl.Stats().Opened)
	require.Eventually(t, func() bool { return cl.Stats().Unsent == 0 }, 10*time.Second, time.Millisecond)
}

// Proves that a frame that arrives byte by byte is served once it is whole.
func TestDribble(t *testing.T) {
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo}})
	nc := rawDial(t, addr)
	var all []byte
	for i := range 3 {
		all = append(all, frame(request(strings.Repeat("z", i*10)), int32(i+7))...)
	}
	for i := range all {
		_, err := nc.Write(all[i : i+1])
		require.NoError(t, err)
	}
	for i := range 3 {
		c := readFrame(t, nc)
		require.EqualValues(t, i+7, c.Opaque)
		require.Len(t, c.Body, i*10)
	}
}

// Proves that an announced length alone costs no memory.
func TestAnnouncedLengthIsNotAllocated(t *testing.T) {
	s, addr := newServer(t, remoting.ServerOptions{})
	for range 200 {
		nc := rawDial(t, addr)
		_, err := nc.Write([]byte{0, 0xff, 0xff, 0xff, 0, 0, 0, 100})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return s.Stats().BytesIn == 200*8 }, 10*time.Second, time.Millisecond)
	require.Less(t, heapAfterGC(), uint64(200*64<<10))
}

// Proves that one-way requests are never answered, whatever the handler tries, and that requests of an unknown code are
// answered with 3 by a server without a handler.
func TestOnewayAndUnknown(t *testing.T) {
	for name, h := range map[string]remoting.Handler{"echo": handlerFuncs{serve: echo}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			s, addr := newServer(t, remoting.ServerOptions{Handler: h})
			nc := rawDial(t, addr)
			oneway := request("o")
			oneway.MarkOneway()
			_, err := nc.Write(append(frame(oneway, 1), frame(request("two"), 2)...))
			require.NoError(t, err)
			c := readFrame(t, nc)
			require.EqualValues(t, 2, c.Opaque)
			require.EqualValues(t, 1, c.Flag)
			if h == nil {
				require.EqualValues(t, protocol.ResponseRequestCodeNotSupported, c.Code)
				require.Equal(t, "request type 10 not supported", string(c.Remark))
			}
			require.Eventually(t, func() bool { return s.Stats().Requests == 2 }, 10*time.Second, time.Millisecond)
		})
	}
	got := make(chan string, 1)
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		if req.IsOneway() {
			got <- string(req.Body)
		}
	}}})
	require.NoError(t, newClient(t, remoting.ClientOptions{}).Oneway(soon(t), addr, request("fire")))
	require.Equal(t, "fire", <-got)
}

// FuzzStream sends a stream of good frames and of what the fuzzer thinks of, cut at arbitrary points. It proves that the
// good frames before the first bad byte are served exactly once, in order, and that nothing breaks.
func FuzzStream(f *testing.F) {
	good := frame(request("seed"), 3)
	f.Add(uint8(3), []byte{}, []byte{1, 0, 200, 3})
	f.Add(uint8(1), good[:len(good)-2], []byte{5})
	f.Add(uint8(2), []byte{0, 0, 0, 8, 0, 0, 1, 0, 1, 2, 3, 4}, []byte{255, 1})
	f.Add(uint8(0), []byte{0x16, 3, 1}, []byte{})
	f.Fuzz(func(t *testing.T, frames uint8, tail, cuts []byte) {
		served := make(chan int32, 1<<10)
		closed := make(chan struct{})
		s, err := remoting.NewServer(t.Context(), remoting.ServerOptions{MaxFrameBytes: 1 << 16, Handler: handlerFuncs{
			serve: func(_ *remoting.Conn, req *protocol.Command) {
				select {
				case served <- req.Opaque:
				default:
				}
			},
			closed: func(*remoting.Conn, error) { close(closed) },
		}})
		require.NoError(t, err)
		here, there := net.Pipe()
		require.NoError(t, s.ServeConn(there, "pipe"))
		var all []byte
		for i := range int32(frames) {
			all = append(all, frame(request("body"), i)...)
		}
		all = append(all, tail...)
		for i := 0; len(all) > 0; i++ {
			n := len(all)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[i%len(cuts)]))
			}
			if _, err := here.Write(all[:n]); err != nil {
				break // closed because of the tail
			}
			all = all[n:]
		}
		here.Close()
		<-closed
		require.NoError(t, s.Close())
		for i := range int32(frames) {
			require.Equal(t, i, <-served)
		}
	})
}
