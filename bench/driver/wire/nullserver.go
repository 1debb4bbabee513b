package wire

import (
	"context"
	"fmt"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// ServeNull answers sends as if they had been stored, and nothing else well, until ctx ends. What a run against it
// costs is the wire and the harness.
func ServeNull(ctx context.Context, addr string) error {
	s, err := remoting.NewServer(ctx, remoting.ServerOptions{Name: "null", Handler: nullHandler{}})
	if err != nil {
		return err
	}
	if _, err := s.Listen("null", addr); err != nil {
		_ = s.Close() // nothing was served
		return fmt.Errorf("--listen=%s: %w", addr, err)
	}
	<-ctx.Done()
	return s.Close()
}

type nullHandler struct{}

func (nullHandler) Opened(c *remoting.Conn)      { c.SetState(&nullConn{}) }
func (nullHandler) Drained(*remoting.Conn)       {}
func (nullHandler) Closed(*remoting.Conn, error) {}

// nullConn is what a connection reuses.
type nullConn struct {
	head protocol.SendHeader
	resp protocol.SendResponse
}

var nullID = []byte("7F00000100002A9F0000000000000000")

// Serve implements [remoting.Handler].
func (nullHandler) Serve(c *remoting.Conn, req *protocol.Command) {
	n := c.State().(*nullConn)
	switch protocol.RequestCode(req.Code) {
	case protocol.RequestSendMessage, protocol.RequestSendMessageV2, protocol.RequestSendBatchMessage:
		if err := protocol.ParseSendHeader(req, &n.head); err != nil {
			c.Reply(req, protocol.NewResponse(req, protocol.ResponseSystemError, err.Error()))
			return
		}
		n.resp = protocol.SendResponse{MsgID: nullID, QueueID: n.head.QueueID}
		if !req.IsOneway() {
			c.End(protocol.AppendSendResponse(c.Begin(), req.Opaque, req.Serialize, protocol.ResponseSuccess, "", &n.resp))
		}
	default:
		c.Reply(req, protocol.NewResponse(req, protocol.ResponseRequestCodeNotSupported, "the null server takes sends"))
	}
}
