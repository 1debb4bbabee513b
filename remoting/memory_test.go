package remoting_test

import (
	"encoding/binary"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

func memory() (heap, stacks uint64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, m.StackInuse
}

func heapAfterGC() uint64 {
	heap, _ := memory()
	return heap
}

// Proves that connections that were used and are idle now own no buffers: at both ends together below 4 KiB of heap and
// 2 × 8 KiB of stack each.
func TestIdleConnectionsAreCheap(t *testing.T) {
	const n = 1000
	s, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo}})
	cl := newClient(t, remoting.ClientOptions{})
	heap, stacks := memory()
	var conns []*remoting.Conn
	for range n {
		c, err := cl.Dial(t.Context(), addr)
		require.NoError(t, err)
		_, err = c.Call(soon(t), request(string(make([]byte, 10<<10))))
		require.NoError(t, err)
		conns = append(conns, c)
	}
	heap2, stacks2 := memory()
	perConn, stackPerConn := (int64(heap2)-int64(heap))/n, (int64(stacks2)-int64(stacks))/n
	t.Logf("%d bytes of heap and %d of stack for a connection, its two ends together", perConn, stackPerConn)
	require.Len(t, conns, s.Stats().Conns)
	if raceEnabled {
		t.Log("SKIPPED the comparison: the race detector needs memory of its own")
		return
	}
	require.Less(t, perConn, int64(8<<10))
	require.LessOrEqual(t, stackPerConn, int64(2*8<<10+512))
}

// Proves that a request and its answer allocate nothing once the connection is warm: Start, Serve, Begin, End, Done and
// everything between.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("SKIPPED: pools drop what they get under the race detector")
		return
	}
	_, addr := newServer(t, remoting.ServerOptions{Handler: nullHandler{}})
	cl := newClient(t, remoting.ClientOptions{})
	c, err := cl.Conn(soon(t), addr)
	require.NoError(t, err)
	tmpl := template(t, 1024)
	req, jsonReq := sendRequest(protocol.Binary, 1024), sendRequest(protocol.JSON, 1024)
	const window = 32
	for name, call := range map[string]remoting.Call{
		"request":      {Request: req},
		"JSON request": {Request: jsonReq},
		"frame": {Build: func(dst []byte, opaque int32) []byte {
			at := len(dst)
			dst = append(dst, tmpl...)
			binary.BigEndian.PutUint32(dst[at+opaqueAt:], uint32(opaque))
			return dst
		}},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, window)
			calls := make([]remoting.Call, window)
			for i := range calls {
				calls[i] = call
				calls[i].Done = func(call *remoting.Call) { done <- call.Err }
			}
			round := func() {
				for i := range calls {
					if err := c.Start(&calls[i]); err != nil {
						t.Fatal(err)
					}
				}
				for range calls {
					if err := <-done; err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 100 {
				round()
			}
			// A garbage collection in between empties the pools; the least of three has none.
			least := testing.AllocsPerRun(100, round)
			for range 4 {
				least = min(least, testing.AllocsPerRun(100, round))
			}
			require.Zero(t, least)
		})
	}
}

// Proves that 64 requests in flight leave and arrive together: at most 0.2 system calls a message at the server.
func TestSystemCalls(t *testing.T) {
	const conns, window = 4, 64
	n := 1000
	if raceEnabled {
		n = 50
	}
	s, addr := newServer(t, remoting.ServerOptions{Handler: nullHandler{}})
	cl := newClient(t, remoting.ClientOptions{})
	frame := template(t, 1024)
	done := make(chan error, conns*window)
	for range conns {
		c, err := cl.Dial(t.Context(), addr)
		require.NoError(t, err)
		for range window {
			left := n
			call := &remoting.Call{Timeout: time.Minute, Build: func(dst []byte, opaque int32) []byte {
				at := len(dst)
				dst = append(dst, frame...)
				binary.BigEndian.PutUint32(dst[at+opaqueAt:], uint32(opaque))
				return dst
			}}
			call.Done = func(call *remoting.Call) {
				if left--; call.Err != nil || left == 0 {
					done <- call.Err
				} else if err := c.Start(call); err != nil {
					done <- err
				}
			}
			require.NoError(t, c.Start(call))
		}
	}
	for range conns * window {
		require.NoError(t, <-done)
	}
	for side, st := range map[string]remoting.Stats{"server": s.Stats(), "client": cl.Stats()} {
		calls := float64(st.Reads+st.Writes) / float64(conns*window*n)
		t.Logf("%s: %.3f system calls a message", side, calls)
		require.Less(t, calls, 0.2)
	}
}

// Proves that a peer that vanishes without a word is noticed: here it stays, and its kernel would answer, but it says
// nothing for IdleTimeout.
func TestHalfOpen(t *testing.T) {
	why := make(chan error, 1)
	_, addr := newServer(t, remoting.ServerOptions{IdleTimeout: 200 * time.Millisecond, Tick: 10 * time.Millisecond,
		Handler: handlerFuncs{closed: func(_ *remoting.Conn, err error) { why <- err }}})
	nc := rawDial(t, addr)
	require.ErrorIs(t, <-why, remoting.ErrIdle)
	_, err := nc.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}
