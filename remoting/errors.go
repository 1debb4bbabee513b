package remoting

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrClosed says that the connection, or whoever owns it, is closed. What was asked and not yet answered may or may not
	// have been done by the peer.
	ErrClosed = errors.New("remoting: connection closed")
	// ErrTimeout says that no answer came in time. The peer may still do what was asked.
	ErrTimeout = errors.New("remoting: no answer in time")
	// ErrBusy says that the connection has too many calls outstanding or too many bytes unsent; nothing was sent.
	ErrBusy = errors.New("remoting: connection busy")
	// ErrIdle closes a connection without a byte in either direction for IdleTimeout.
	ErrIdle = errors.New("remoting: idle connection")
	// ErrSlowPeer closes a connection whose peer does not read what is sent to it.
	ErrSlowPeer = errors.New("remoting: peer does not read")
	// ErrTLS closes a connection that begins with a TLS handshake, which is not spoken here.
	ErrTLS = errors.New("remoting: TLS handshake on a plain port: turn TLS off at the peer (tls.enable=false)")
)

// FrameError is a frame that breaks the rules of the wire; its connection is closed without an answer.
type FrameError struct {
	Peer   netip.AddrPort
	Length int   // value of the frame's length word
	Limit  int   // largest frame taken, length word included
	Err    error // what is wrong with the header, nil if the length is
}

func (e *FrameError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v (%d bytes)", e.Peer, e.Err, e.Length)
	}
	return fmt.Sprintf("frame from %s: length word says %d (%#x), allowed are 4 to %d: not a RocketMQ peer, or a message beyond the frame limit",
		e.Peer, e.Length, uint32(e.Length), e.Limit-4)
}

func (e *FrameError) Unwrap() error { return e.Err }
