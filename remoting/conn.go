package remoting

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"rmq/remoting/protocol"
)

// flagResponse marks a frame as an answer.
const flagResponse = 1

// transport moves the bytes of one connection. One goroutine reads; whoever holds the writer's role writes.
type transport interface {
	// read waits for bytes and appends them to the inbox.
	read() (n int, err error)
	// write sends o, or what goes out without waiting; blocked says that some is left.
	write(o *outbox, wait bool) (blocked bool, err error)
	// stopReading ends a read that waits, and all later ones.
	stopReading()
	// unacked is how many bytes written the peer's kernel has not confirmed.
	unacked() int
	close() error
}

// Conn is one connection of a [Server] or a [Client]; requests go either way. Safe for concurrent use.
//
// Goroutines: one reader, and, only while the peer takes less than what is sent, one writer. Frames that are queued leave by
// whoever comes first: the reader at the end of what it has read, a caller of Call or Flush, or a flusher of the endpoint.
type Conn struct {
	id       uint64
	ep       *endpoint
	tr       transport
	listener string
	remote   netip.AddrPort
	local    netip.AddrPort
	state    atomic.Pointer[any]

	in    *inbox // the reader's; nil while it waits
	full  bool   // the reader's: it filled the inbox and has not flushed
	small []byte // at most idleBytes: a cut frame while the reader waits

	unsent  atomic.Int64 // bytes queued and not with the kernel
	counted atomic.Int64 // of them, what the endpoint's count has
	active  atomic.Int64 // when bytes moved last, coarse clock
	waiting atomic.Bool  // the reader waits for unsent to fall
	parked  atomic.Bool  // the reader has stopped for good
	done    chan struct{}
	stats   counters

	mu        sync.Mutex
	eased     sync.Cond // unsent fell, or the connection closed
	calls     callTable
	out       *outbox // waits for a writer; nil when empty
	partial   *outbox // a writer could not finish it; waits for a goroutine that may block
	writing   bool    // somebody has the writer's role
	serving   bool    // the reader will flush when it has served what it read
	inFlusher bool
	stopping  bool // no more reading
	closed    bool
	cause     error

	// The sweeper's.
	index      int // in endpoint.conns, under its lock
	stuckSince int64
	stuckAt    int64
}

var lastConnID atomic.Uint64

func newConn(ep *endpoint, nc net.Conn, listener string) (*Conn, error) {
	c := &Conn{
		id: lastConnID.Add(1), ep: ep, listener: listener, done: make(chan struct{}),
		remote: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr()),
	}
	c.eased.L = &c.mu
	c.active.Store(ep.clock.Load())
	if tcp, ok := nc.(*net.TCPConn); ok {
		s, err := newSocket(tcp, c, ep.slowTimeout)
		if err != nil {
			return nil, fmt.Errorf("set up connection with %s: %w", c.remote, err)
		}
		c.tr = s
		return c, nil
	}
	c.tr = newStream(nc, c)
	return c, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// ID is unique in the process and never used again.
func (c *Conn) ID() uint64 { return c.id }

// RemoteAddr is the peer's address; the zero AddrPort if the connection is not TCP.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr is this side's address.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// Listener is the name under which the server listens where this connection came in; empty at a client.
func (c *Conn) Listener() string { return c.listener }

// State is what the handler keeps with the connection; nil at first.
func (c *Conn) State() any {
	if p := c.state.Load(); p != nil {
		return *p
	}
	return nil
}

// SetState replaces what State returns. It is the handler's, and best set in Opened.
func (c *Conn) SetState(v any) { c.state.Store(&v) }

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Unsent is how many bytes are queued and have not gone out.
func (c *Conn) Unsent() int64 { return max(0, c.unsent.Load()) }

// Full says that the peer reads too slowly for what is queued: the connection reads no requests until it has caught up. Who
// answers late, and not in Serve, had better keep what is long until then. Safe for concurrent use.
func (c *Conn) Full() bool { return c.unsent.Load() > c.limit() }

// Begin returns the buffer of frames to be sent, for one or several whole frames to be appended to, and locks the
// connection until End or EndPayload. In between the caller encodes and does nothing else.
//
//	c.End(protocol.AppendCommand(c.Begin(), resp))
func (c *Conn) Begin() []byte {
	c.mu.Lock()
	return c.outbox().buf
}

// End takes the buffer of Begin back with what was appended. The frames leave soon, and together with those of others; End
// never waits. On a closed connection they are dropped. Over MaxUnsentBytes the connection stops reading requests until
// half of them are gone; over four times as much and a frame it is closed.
func (c *Conn) End(dst []byte) {
	o := c.out
	n := len(dst) - len(o.buf)
	o.buf = dst
	c.queued(n)
	c.kick()
}

// EndPayload is End where the last frame appended lacks its body, which p is: the head must count its bytes. Small and
// scattered payloads are copied, long ones are gathered by writev, long file ranges go by sendfile.
func (c *Conn) EndPayload(dst []byte, p Payload) {
	o := c.out
	n := len(dst) - len(o.buf)
	ranges := p.Ranges()
	copyIt, size := copied(ranges)
	if copyIt || c.closed {
		if !c.closed {
			for _, r := range ranges {
				dst = append(dst, r.Bytes...)
			}
		}
		o.buf = dst
		c.queued(n + size)
		c.kick()
		p.Release()
		return
	}
	o.buf = dst
	o.payloads = append(o.payloads, placed{at: len(dst), payload: p})
	c.queued(n + size)
	c.kick()
}

// EndNow is End that also writes, on the calling goroutine, unless somebody is about to: the shortest way for a lone frame,
// at the price of a system call. It does not wait for the peer.
func (c *Conn) EndNow(dst []byte) {
	if c.closed || c.writing || c.serving || c.inFlusher {
		c.End(dst)
		return
	}
	n := len(dst) - len(c.out.buf)
	c.out.buf = dst
	c.queued(n)
	c.flushLocked()
}

// Write is Begin, build, End.
func (c *Conn) Write(build func(dst []byte) []byte) { c.End(build(c.Begin())) }

// Reply answers req with resp, which takes req's opaque and header encoding. Nothing is sent if req is one-way. An answer
// too long for a frame, at which the peer would hang up, becomes a SYSTEM_ERROR that says so.
func (c *Conn) Reply(req, resp *protocol.Command) {
	if req.IsOneway() {
		return
	}
	answer(req, resp)
	dst := c.Begin()
	at := len(dst)
	dst = protocol.AppendCommand(dst, resp)
	if n := len(dst) - at; n > protocol.MaxFrameBytes {
		remark := fmt.Sprintf("the answer has %d bytes, a frame at most %d: ask for less at once", n, protocol.MaxFrameBytes)
		dst = protocol.AppendCommand(dst[:at], protocol.NewResponse(req, protocol.ResponseSystemError, remark))
	}
	c.End(dst)
}

// ReplyPayload is Reply with p for a body; p is released in any case.
func (c *Conn) ReplyPayload(req, resp *protocol.Command, p Payload) {
	if req.IsOneway() {
		p.Release()
		return
	}
	answer(req, resp)
	size := 0
	for _, r := range p.Ranges() {
		size += r.size()
	}
	c.EndPayload(protocol.AppendHead(c.Begin(), resp, size), p)
}

func answer(req, resp *protocol.Command) {
	resp.Opaque, resp.Serialize = req.Opaque, req.Serialize
	resp.Flag |= flagResponse
}

// Flush writes what is queued on the calling goroutine, unless somebody is about to. It does not wait for the peer, but
// costs a system call.
func (c *Conn) Flush() { c.flush() }

// Close closes the connection at once; what is unsent is lost, outstanding calls end with [ErrClosed]. It may be called
// more than once and does not wait for [Handler.Closed].
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	return nil
}

// fail closes the connection because of err; the reader does the rest.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.cause = true, err
	c.eased.Broadcast()
	c.mu.Unlock()
	close(c.done)
	if err := c.tr.close(); err != nil && !errors.Is(err, net.ErrClosed) {
		c.ep.log.Debug("close connection", "peer", c.remote, "err", err)
	}
}

// closedError is for callers of a closed connection.
func (c *Conn) closedError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.cause, ErrClosed) {
		return c.cause
	}
	return fmt.Errorf("%w: %s: %w", ErrClosed, c.remote, c.cause)
}

// settled says that nothing is on its way to the peer, or will ever be.
func (c *Conn) settled() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.unsent.Load() == 0 && c.tr.unacked() == 0
	}
}

// quiet says that no request is being served: the reader has stopped, or its peer makes it wait.
func (c *Conn) quiet() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.parked.Load() || c.waiting.Load()
	}
}

// stop ends reading for good; what is queued still leaves.
func (c *Conn) stop() {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.tr.stopReading()
}
