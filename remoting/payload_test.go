package remoting_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// descriptor is an os.File as a payload wants it.
type descriptor struct{ *os.File }

func (f descriptor) Fd() (uintptr, bool) { return f.File.Fd(), true }

// readerFile is a file without a descriptor.
type readerFile struct{ *bytes.Reader }

func (readerFile) Fd() (uintptr, bool) { return 0, false }

type payload struct {
	ranges   []remoting.Range
	released atomic.Int32
}

func (p *payload) Ranges() []remoting.Range { return p.ranges }
func (p *payload) Release()                 { p.released.Add(1) }

// pieces cuts data into n ranges in memory.
func pieces(data []byte, n int) (out []remoting.Range) {
	for i := range n {
		out = append(out, remoting.Range{Bytes: data[i*len(data)/n : (i+1)*len(data)/n]})
	}
	return out
}

func randomFile(t testing.TB, n int) ([]byte, descriptor) {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	path := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return data, descriptor{f}
}

// Proves by counting system calls, and those that moved a file, that each shape of payload leaves the way it should, that
// its bytes are right, and that it is released once.
func TestPayloadChoice(t *testing.T) {
	data, file := randomFile(t, 2<<20)
	inFile := func(sizes ...int) (out []remoting.Range) {
		at := int64(7)
		for _, n := range sizes {
			out = append(out, remoting.Range{File: file, Offset: at, Len: n})
			at += int64(n)
		}
		return out
	}
	for _, tc := range []struct {
		name             string
		ranges           []remoting.Range
		writes           int64
		copied, sendfile bool
	}{
		{"empty", nil, 1, true, false},
		{"1 KiB", pieces(data[:1<<10], 1), 1, true, false},
		{"16 KiB", pieces(data[:16<<10], 1), 1, true, false},
		{"17 KiB", pieces(data[:17<<10], 1), 1, false, false},
		{"64 KiB of 1 KiB messages", pieces(data[:64<<10], 64), 1, true, false},
		{"256 KiB in four", pieces(data[:256<<10], 4), 1, false, false},
		{"512 KiB of 1 KiB messages", pieces(data[:512<<10], 512), 9, false, false},
		{"file 32 KiB", inFile(32 << 10), 1, false, false},
		{"file 64 KiB", inFile(64 << 10), 2, false, true},
		{"file 256 KiB", inFile(256 << 10), 2, false, true},
		{"two files", inFile(100<<10, 64<<10), 3, false, true},
		{"memory, then file", append(pieces(data[:20<<10], 1), inFile(64<<10)...), 2, false, true},
		{"file without descriptor", []remoting.Range{{File: readerFile{bytes.NewReader(data)}, Offset: 3, Len: 100 << 10}}, 1, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &payload{ranges: tc.ranges}
			var want []byte
			for _, r := range tc.ranges {
				if r.Bytes == nil {
					b := make([]byte, r.Len)
					_, err := r.File.ReadAt(b, r.Offset)
					require.NoError(t, err)
					want = append(want, b...)
				}
				want = append(want, r.Bytes...)
			}
			copiedAtOnce := make(chan bool, 1)
			s, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
				c.ReplyPayload(req, protocol.NewResponse(req, protocol.ResponseSuccess, ""), p)
				copiedAtOnce <- p.released.Load() == 1
			}}})
			resp, err := newClient(t, remoting.ClientOptions{}).Call(soon(t), addr, request("pull"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, resp.Body))
			require.Equal(t, tc.copied, <-copiedAtOnce)
			require.Eventually(t, func() bool { return p.released.Load() == 1 && s.Stats().Unsent == 0 }, 10*time.Second, time.Millisecond)
			st := s.Stats()
			// A full socket buffer makes it take some more.
			require.GreaterOrEqual(t, st.Writes, tc.writes)
			if len(want) <= 128<<10 {
				require.Equal(t, tc.writes, st.Writes)
			}
			require.Equal(t, tc.sendfile, st.Sendfiles > 0)
		})
	}
}

// Proves that payloads between other answers keep their place, also on a transport without descriptors and one that takes
// little at a time, and that all are released when the connection is lost half way.
func TestPayloadsInOrder(t *testing.T) {
	data, file := randomFile(t, 1<<20)
	const n = 60
	for _, kind := range []string{"tcp", "pipe", "lost"} {
		t.Run(kind, func(t *testing.T) {
			var payloads []*payload
			for i := range n {
				size := []int{100, 20 << 10, 70 << 10}[i%3] + i
				p := &payload{ranges: append(pieces(data[:i], 1), remoting.Range{File: file, Offset: int64(i), Len: size - i})}
				if i%2 == 0 {
					p.ranges = pieces(data[i:i+size], 1+i%5)
				}
				payloads = append(payloads, p)
			}
			o := remoting.ServerOptions{MaxUnsentBytes: 64 << 20, Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
				if req.Opaque%4 == 3 {
					c.Reply(req, protocol.NewResponse(req, protocol.ResponseSuccess, "plain"))
					payloads[req.Opaque].Release()
					return
				}
				c.ReplyPayload(req, protocol.NewResponse(req, protocol.ResponseSuccess, ""), payloads[req.Opaque])
			}}}
			s, addr := newServer(t, o)
			var nc net.Conn
			if kind == "pipe" {
				here, there := net.Pipe()
				nc = here
				require.NoError(t, s.ServeConn(there, "pipe"))
			} else {
				nc = rawDial(t, addr)
				require.NoError(t, nc.(*net.TCPConn).SetReadBuffer(64<<10))
			}
			var all []byte
			for i := range int32(n) {
				all = append(all, frame(request(fmt.Sprint(i)), i)...)
			}
			_, err := nc.Write(all)
			require.NoError(t, err)
			for i := range int32(n) {
				if kind == "lost" && i == n/2 {
					break
				}
				c := readFrame(t, nc)
				require.Equal(t, i, c.Opaque)
				var want []byte
				if i%4 != 3 {
					for _, r := range payloads[i].ranges {
						want = append(want, r.Bytes...)
						if r.Bytes == nil {
							want = append(want, data[r.Offset:r.Offset+int64(r.Len)]...)
						}
					}
				}
				require.True(t, bytes.Equal(want, c.Body), i)
			}
			nc.Close()
			require.Eventually(t, func() bool { return s.Stats().Conns == 0 }, 10*time.Second, time.Millisecond)
			require.NoError(t, s.Close())
			for i, p := range payloads {
				require.LessOrEqual(t, p.released.Load(), int32(1), i)
				if kind != "lost" {
					require.EqualValues(t, 1, p.released.Load(), i)
				}
			}
			require.Equal(t, s.Stats().Requests, released(payloads))
		})
	}
}

func released(ps []*payload) (n int64) {
	for _, p := range ps {
		n += int64(p.released.Load())
	}
	return n
}

// Proves that a payload whose file is shorter than it says closes the connection instead of sending other bytes.
func TestPayloadShortFile(t *testing.T) {
	_, file := randomFile(t, 10<<10)
	for _, n := range []int{20 << 10, 100 << 10} {
		why := make(chan error, 1)
		p := &payload{ranges: []remoting.Range{{File: file, Len: n}}}
		_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{
			serve: func(c *remoting.Conn, req *protocol.Command) {
				c.ReplyPayload(req, protocol.NewResponse(req, protocol.ResponseSuccess, ""), p)
			},
			closed: func(_ *remoting.Conn, err error) { why <- err },
		}})
		_, err := newClient(t, remoting.ClientOptions{}).Call(soon(t), addr, request("pull"))
		require.ErrorIs(t, err, remoting.ErrClosed)
		require.ErrorContains(t, <-why, "EOF")
		require.EqualValues(t, 1, p.released.Load())
	}
}
