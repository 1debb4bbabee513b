package remoting_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Proves that answers find their calls when they come in another order, from other goroutines, long after Serve.
func TestAnswersOutOfOrder(t *testing.T) {
	const n = 500
	var mu sync.Mutex
	var held []*protocol.Command
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		mu.Lock()
		defer mu.Unlock()
		if held = append(held, req.Clone()); len(held) < n {
			return
		}
		for i := range held {
			echo(c, held[n-1-i])
		}
	}}})
	cl := newClient(t, remoting.ClientOptions{})
	c, err := cl.Conn(soon(t), addr)
	require.NoError(t, err)
	got := make(chan string, n)
	for i := range n {
		want := fmt.Sprint(i)
		require.NoError(t, c.Start(&remoting.Call{Request: request(want), Timeout: 20 * time.Second, Done: func(call *remoting.Call) {
			if call.Err != nil || string(call.Response.Body) != want {
				got <- fmt.Sprintf("%s: %v", want, call.Err)
				return
			}
			got <- ""
		}}))
	}
	for range n {
		require.Empty(t, <-got)
	}
}

// Proves that many goroutines can call over one connection.
func TestManyCallers(t *testing.T) {
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo}})
	cl := newClient(t, remoting.ClientOptions{})
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 200 {
				want := fmt.Sprint(g, ".", i)
				resp, err := cl.Call(t.Context(), addr, request(want))
				if err != nil || string(resp.Body) != want {
					t.Errorf("%s: %v", want, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, cl.Stats().Conns)
	require.Eventually(t, func() bool { return cl.Stats().Responses == 32*200 }, 10*time.Second, time.Millisecond) // counted a batch at a time
}

// pipe connects a server and a client without a network, for tests in virtual time.
func pipe(t *testing.T, so remoting.ServerOptions, co remoting.ClientOptions) (*remoting.Server, *remoting.Client, *remoting.Conn) {
	s, err := remoting.NewServer(t.Context(), so)
	require.NoError(t, err)
	cl, err := remoting.NewClient(t.Context(), co)
	require.NoError(t, err)
	here, there := net.Pipe()
	require.NoError(t, s.ServeConn(there, "pipe"))
	c, err := cl.Attach(here)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cl.Close())
		require.NoError(t, s.Close())
	})
	return s, cl, c
}

// Proves that a call ends not before its timeout and at most two ticks after it, that its late answer completes nothing,
// and that the connection lives on.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late []*protocol.Command
		var conn *remoting.Conn
		_, cl, c := pipe(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
			if conn = c; string(req.Body) == "late" {
				late = append(late, req.Clone())
				return
			}
			echo(c, req)
		}}}, remoting.ClientOptions{Tick: 50 * time.Millisecond})
		begin := time.Now()
		_, err := c.Call(t.Context(), request("late"))
		require.ErrorIs(t, err, remoting.ErrTimeout)
		require.GreaterOrEqual(t, time.Since(begin), 3*time.Second)
		require.LessOrEqual(t, time.Since(begin), 3100*time.Millisecond)

		begin = time.Now()
		done := make(chan error, 1)
		require.NoError(t, c.Start(&remoting.Call{Request: request("late"), Timeout: time.Second, Done: func(call *remoting.Call) { done <- call.Err }}))
		require.ErrorIs(t, <-done, remoting.ErrTimeout)
		require.LessOrEqual(t, time.Since(begin), 1100*time.Millisecond)

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err = c.Call(ctx, request("late"))
		require.ErrorIs(t, err, context.DeadlineExceeded)

		synctest.Wait()
		for _, req := range late {
			echo(conn, req)
		}
		resp, err := c.Call(t.Context(), request("live"))
		require.NoError(t, err)
		require.Equal(t, "live", string(resp.Body))
		synctest.Wait()
		require.EqualValues(t, len(late), cl.Stats().Late)
		require.Len(t, late, 3)
	})
}

// Proves that a silent connection is closed by both sides' idle timeout, and one with traffic is not.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := make(chan error, 1)
		begin := time.Now()
		var last time.Time
		_, _, c := pipe(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo, closed: func(_ *remoting.Conn, err error) { why <- err }}},
			remoting.ClientOptions{IdleTimeout: time.Hour})
		for range 5 {
			time.Sleep(100 * time.Second)
			_, err := c.Call(t.Context(), request("here"))
			require.NoError(t, err)
			last = time.Now()
		}
		require.ErrorIs(t, <-why, remoting.ErrIdle)
		require.GreaterOrEqual(t, time.Since(begin), 620*time.Second)
		require.LessOrEqual(t, time.Since(last), 121*time.Second)
		<-c.Done()
	})
}

// Proves that calls that are outstanding when the connection closes end at once, and say why.
func TestCloseFailsCalls(t *testing.T) {
	for _, who := range []string{"server", "client"} {
		t.Run(who, func(t *testing.T) {
			conns := make(chan *remoting.Conn, 1)
			_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{opened: func(c *remoting.Conn) { conns <- c }}})
			cl := newClient(t, remoting.ClientOptions{})
			c, err := cl.Conn(soon(t), addr)
			require.NoError(t, err)
			errs := make(chan error, 100)
			for range cap(errs) {
				require.NoError(t, c.Start(&remoting.Call{Request: request(""), Done: func(call *remoting.Call) { errs <- call.Err }}))
			}
			if who == "server" {
				require.NoError(t, (<-conns).Close())
			} else {
				require.NoError(t, c.Close())
			}
			for range cap(errs) {
				require.ErrorIs(t, <-errs, remoting.ErrClosed)
			}
			require.ErrorIs(t, c.Start(&remoting.Call{Request: request("")}), remoting.ErrClosed)
			require.ErrorIs(t, c.Oneway(request("")), remoting.ErrClosed)
			_, err = c.Call(soon(t), request(""))
			require.ErrorIs(t, err, remoting.ErrClosed)
			c.Write(func(dst []byte) []byte { return append(dst, "dropped"...) })
		})
	}
}

// Proves that a lost connection is dialled again, that all who ask at once share one, and that a dead address is named.
func TestRedial(t *testing.T) {
	var conns sync.Map
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo, opened: func(c *remoting.Conn) { conns.Store(c, true) }}})
	cl := newClient(t, remoting.ClientOptions{})
	for round := range 3 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := cl.Call(t.Context(), addr, request("x")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, round+1, cl.Stats().Opened)
		c, err := cl.Conn(soon(t), addr)
		require.NoError(t, err)
		conns.Range(func(k, _ any) bool { conns.Delete(k); return k.(*remoting.Conn).Close() == nil })
		<-c.Done()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dead := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = cl.Call(soon(t), dead, request("x"))
	require.ErrorContains(t, err, "connect to "+dead)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cl.Call(ctx, addr, request("x"))
	require.ErrorIs(t, err, context.Canceled)
}

// Proves that Shutdown reads no more requests, lets answers that come late go out, and ends the server.
func TestShutdownDrains(t *testing.T) {
	type pair struct {
		c   *remoting.Conn
		req *protocol.Command
	}
	held := make(chan pair, 1)
	s, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		held <- pair{c, req.Clone()}
	}}})
	cl := newClient(t, remoting.ClientOptions{})
	answer := make(chan error, 1)
	c, err := cl.Conn(soon(t), addr)
	require.NoError(t, err)
	require.NoError(t, c.Start(&remoting.Call{Request: request("slow"), Timeout: 20 * time.Second, Done: func(call *remoting.Call) { answer <- call.Err }}))
	p := <-held
	s.Stop()
	echo(p.c, p.req)
	require.NoError(t, s.Shutdown(soon(t)))
	require.NoError(t, <-answer)
	<-c.Done()
	_, err = s.Listen("again", "127.0.0.1:0")
	require.ErrorIs(t, err, remoting.ErrClosed)
	require.NoError(t, s.Close())
}

// Proves that Shutdown gives up on a peer that does not read when its context ends, and says so.
func TestShutdownGivesUp(t *testing.T) {
	conns := make(chan *remoting.Conn, 1)
	s, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{opened: func(c *remoting.Conn) { conns <- c }}})
	rawDial(t, addr)
	c := <-conns
	c.Write(func(dst []byte) []byte { return append(dst, make([]byte, 15<<20)...) })
	c.Write(func(dst []byte) []byte { return append(dst, make([]byte, 15<<20)...) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := s.Shutdown(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "1 connections with answers under way")
	<-c.Done()
}

// Proves that options out of range are all named.
func TestOptions(t *testing.T) {
	_, err := remoting.NewServer(t.Context(), remoting.ServerOptions{MaxFrameBytes: 1 << 30, IdleTimeout: -1})
	require.ErrorContains(t, err, "MaxFrameBytes")
	require.ErrorContains(t, err, "IdleTimeout")
	_, err = remoting.NewClient(t.Context(), remoting.ClientOptions{Tick: -1})
	require.ErrorContains(t, err, "Tick")
	s, addr := newServer(t, remoting.ServerOptions{})
	_, err = s.Listen("second", addr)
	require.ErrorContains(t, err, "listen as second")
	require.NotErrorIs(t, err, remoting.ErrClosed)
}
