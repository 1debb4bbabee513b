package remoting_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFuncs is a Handler of funcs; nil ones do nothing.
type handlerFuncs struct {
	opened  func(c *remoting.Conn)
	serve   func(c *remoting.Conn, req *protocol.Command)
	drained func(c *remoting.Conn)
	closed  func(c *remoting.Conn, err error)
}

func (h handlerFuncs) Opened(c *remoting.Conn) {
	if h.opened != nil {
		h.opened(c)
	}
}

func (h handlerFuncs) Serve(c *remoting.Conn, req *protocol.Command) {
	if h.serve != nil {
		h.serve(c, req)
	}
}

func (h handlerFuncs) Drained(c *remoting.Conn) {
	if h.drained != nil {
		h.drained(c)
	}
}

func (h handlerFuncs) Closed(c *remoting.Conn, err error) {
	if h.closed != nil {
		h.closed(c, err)
	}
}

// echo answers with the request's body.
func echo(c *remoting.Conn, req *protocol.Command) {
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	resp.Body = req.Body
	c.Reply(req, resp)
}

func newServer(t testing.TB, o remoting.ServerOptions) (*remoting.Server, string) {
	s, err := remoting.NewServer(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	addr, err := s.Listen("main", "127.0.0.1:0")
	require.NoError(t, err)
	return s, addr.String()
}

func newClient(t testing.TB, o remoting.ClientOptions) *remoting.Client {
	cl, err := remoting.NewClient(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cl.Close()) })
	return cl
}

// soon is a context that ends before the test does.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func request(body string) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestSendMessage)
	req.Body = []byte(body)
	return req
}

// Proves that a request gets its answer, in both header encodings and in both directions.
func TestCall(t *testing.T) {
	conns := make(chan *remoting.Conn, 1)
	_, addr := newServer(t, remoting.ServerOptions{Handler: handlerFuncs{serve: echo, opened: func(c *remoting.Conn) { conns <- c }}})
	cl := newClient(t, remoting.ClientOptions{Handler: handlerFuncs{serve: echo}})
	for _, s := range []protocol.Serialize{protocol.JSON, protocol.Binary} {
		req := request("hello")
		req.Serialize = s
		resp, err := cl.Call(soon(t), addr, req)
		require.NoError(t, err)
		require.True(t, resp.IsResponse())
		require.Equal(t, s, resp.Serialize)
		require.Equal(t, req.Opaque, resp.Opaque)
		require.Equal(t, "hello", string(resp.Body))
	}
	c := <-conns
	require.Equal(t, "main", c.Listener())
	require.Equal(t, addr, c.LocalAddr().String())
	resp, err := c.Call(soon(t), request("back"))
	require.NoError(t, err)
	require.Equal(t, "back", string(resp.Body))
	require.Equal(t, 1, cl.Stats().Conns)
}
