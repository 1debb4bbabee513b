package remoting_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Proves that a client that sends requests but does not read answers makes the server stop reading its requests, with
// bounded memory, while others are served; and that it gets every answer once it reads.
func TestSlowReaderIsHeld(t *testing.T) {
	const limit, size, n = 1 << 20, 64 << 10, 1000
	body := make([]byte, size)
	var served atomic.Int64
	s, addr := newServer(t, remoting.ServerOptions{MaxUnsentBytes: limit, Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		served.Add(1)
		resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
		resp.Body = body
		c.Reply(req, resp)
	}}})
	nc := rawDial(t, addr)
	sent := make(chan error, 1)
	go func() { // waited for below
		for i := range int32(n) {
			if _, err := nc.Write(frame(request("more"), i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	// It stops when the limit and both kernel buffers are full, long before the end.
	require.Eventually(t, func() bool {
		before := served.Load()
		time.Sleep(20 * time.Millisecond)
		return s.Stats().Unsent > limit/2 && served.Load() == before
	}, 20*time.Second, time.Millisecond)
	require.Less(t, served.Load(), int64(n))
	require.LessOrEqual(t, s.Stats().Unsent, int64(limit+size+200))

	resp, err := newClient(t, remoting.ClientOptions{}).Call(soon(t), addr, request("other"))
	require.NoError(t, err)
	require.Len(t, resp.Body, size)

	for i := range int32(n) {
		require.Equal(t, i, readFrame(t, nc).Opaque)
	}
	require.NoError(t, <-sent)
	require.Eventually(t, func() bool { return s.Stats().Unsent == 0 }, 10*time.Second, time.Millisecond)
}

// Proves that a peer that reads nothing is closed after SlowTimeout, whether much or little waits for it, and that one
// that reads slowly is not.
func TestSlowReaderIsClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes   int // queued in all
		reads   int // by the peer, each second
		survive bool
	}{
		"over the limit":             {3 << 20, 0, false},
		"below the limit":            {1 << 10, 0, false},
		"over the limit, too slowly": {3 << 20, 10 << 10, false},
		"below the limit, slowly":    {1 << 20, 10 << 10, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns, why := make(chan *remoting.Conn, 1), make(chan error, 1)
				s, err := remoting.NewServer(t.Context(), remoting.ServerOptions{MaxUnsentBytes: 1 << 20, Handler: handlerFuncs{
					opened: func(c *remoting.Conn) { conns <- c },
					closed: func(_ *remoting.Conn, err error) { why <- err },
				}})
				require.NoError(t, err)
				here, there := net.Pipe()
				require.NoError(t, s.ServeConn(there, "pipe"))
				c := <-conns
				c.Write(func(dst []byte) []byte { return append(dst, make([]byte, tc.bytes)...) })
				begin := time.Now()
				for range 60 {
					time.Sleep(time.Second)
					if tc.reads > 0 {
						_, _ = io.ReadFull(here, make([]byte, tc.reads))
					}
				}
				select {
				case err := <-why:
					require.False(t, tc.survive)
					require.ErrorIs(t, err, remoting.ErrSlowPeer)
					require.GreaterOrEqual(t, time.Since(begin), 30*time.Second)
				default:
					require.True(t, tc.survive)
				}
				here.Close()
				require.NoError(t, s.Close())
			})
		})
	}
}

// Proves that a connection whose unsent bytes run away, whoever wrote them, is closed at once, and that its memory goes.
func TestFloodIsCut(t *testing.T) {
	conns, why := make(chan *remoting.Conn, 1), make(chan error, 1)
	_, addr := newServer(t, remoting.ServerOptions{MaxUnsentBytes: 1 << 20, Handler: handlerFuncs{
		opened: func(c *remoting.Conn) { conns <- c },
		closed: func(_ *remoting.Conn, err error) { why <- err },
	}})
	rawDial(t, addr)
	c := <-conns
	chunk := make([]byte, 1<<20)
	for range 100 {
		c.Write(func(dst []byte) []byte { return append(dst, chunk...) })
	}
	require.ErrorIs(t, <-why, remoting.ErrSlowPeer)
	require.LessOrEqual(t, c.Unsent(), int64(4<<20+protocol.MaxFrameBytes+1<<20))
}

// Proves that a client that asks more than the server reads gets ErrBusy, and goes on when the server does.
func TestBusy(t *testing.T) {
	gate := make(chan struct{})
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		<-gate
		req.Body = nil
		echo(c, req)
	}}})
	cl := newClient(t, remoting.ClientOptions{MaxUnsentBytes: 1 << 20, CallTimeout: time.Minute})
	c, err := cl.Conn(soon(t), addr)
	require.NoError(t, err)
	answers := make(chan error, 10000)
	started := 0
	for err == nil {
		err = c.Start(&remoting.Call{Request: request(string(make([]byte, 64<<10))), Done: func(call *remoting.Call) { answers <- call.Err }})
		if err == nil {
			started++
		}
	}
	require.ErrorIs(t, err, remoting.ErrBusy)
	require.ErrorContains(t, err, "limit 1048576")
	close(gate)
	for range started {
		require.NoError(t, <-answers)
	}
	require.Eventually(t, func() bool { // the last answer may come before the write that sent its question has returned
		_, err = c.Call(soon(t), request("again"))
		return !errors.Is(err, remoting.ErrBusy)
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, err)
}

// Proves that many slow peers together hold no more than MaxUnsentAll and 256 KiB each, that the handler can see which are
// full, that all get every answer once they read, and that those who leave are not counted any more.
func TestSlowReadersTogether(t *testing.T) {
	const all, peers, size, n = 4 << 20, 32, 128 << 10, 100
	body := make([]byte, size)
	var served, full atomic.Int64
	s, addr := newServer(t, remoting.ServerOptions{MaxUnsentAll: all, Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		served.Add(1)
		resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
		resp.Body = body
		c.Reply(req, resp)
		if c.Full() {
			full.Add(1)
		}
	}}})
	var conns []net.Conn
	for range peers {
		nc := rawDial(t, addr)
		require.NoError(t, nc.(*net.TCPConn).SetReadBuffer(64<<10))
		for i := range int32(n) {
			_, err := nc.Write(frame(request("more"), i))
			require.NoError(t, err)
		}
		conns = append(conns, nc)
	}
	require.Eventually(t, func() bool {
		before := served.Load()
		time.Sleep(20 * time.Millisecond)
		return s.Stats().Unsent > all && served.Load() == before
	}, 20*time.Second, time.Millisecond)
	require.LessOrEqual(t, s.Stats().Unsent, int64(all+peers*(256<<10+2*size)))
	require.Positive(t, full.Load())
	resp, err := newClient(t, remoting.ClientOptions{}).Call(soon(t), addr, request("other"))
	require.NoError(t, err)
	require.Len(t, resp.Body, size)

	for _, nc := range conns[:peers/2] {
		require.NoError(t, nc.Close())
	}
	for _, nc := range conns[peers/2:] {
		for i := range int32(n) {
			require.Equal(t, i, readFrame(t, nc).Opaque)
		}
	}
	require.Eventually(t, func() bool { return s.Stats().Unsent == 0 }, 10*time.Second, time.Millisecond)
}
