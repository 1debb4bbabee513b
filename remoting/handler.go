package remoting

import (
	"fmt"

	"rmq/remoting/protocol"
)

// Handler answers what arrives on connections. One Handler serves all connections of a [Server] or [Client], each from its
// own reader goroutine; calls for one connection never overlap.
type Handler interface {
	// Opened comes first, before anything is served and before a client's caller sees the connection.
	Opened(c *Conn)
	// Serve handles one request. req aliases the read buffer and is valid until Serve returns; Clone it to keep it. Serve
	// must not block on disk, network or another call: slow work belongs to an executor. What it writes to c leaves at the
	// latest when the bytes already read have been served.
	Serve(c *Conn, req *protocol.Command)
	// Drained says that everything read so far has been served: what Serve gathered is to be handed on now.
	Drained(c *Conn)
	// Closed comes last, once. err says why: io.EOF when the peer closed, [ErrClosed] when this side did.
	Closed(c *Conn, err error)
}

// refuser answers every request with REQUEST_CODE_NOT_SUPPORTED.
type refuser struct{}

func (refuser) Opened(*Conn)        {}
func (refuser) Drained(*Conn)       {}
func (refuser) Closed(*Conn, error) {}
func (refuser) Serve(c *Conn, req *protocol.Command) {
	if req.IsOneway() {
		return
	}
	c.Reply(req, protocol.NewResponse(req, protocol.ResponseRequestCodeNotSupported, fmt.Sprintf("request type %d not supported", req.Code)))
}
