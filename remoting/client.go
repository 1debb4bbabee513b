package remoting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// ClientOptions are the knobs of a [Client]; the zero value is usable.
type ClientOptions struct {
	Name    string  // of its goroutines; "client"
	Handler Handler // of requests from servers; nil answers them with REQUEST_CODE_NOT_SUPPORTED

	DialTimeout    time.Duration // 3 s
	CallTimeout    time.Duration // of calls that name none; 3 s
	IdleTimeout    time.Duration // without a byte in either direction the connection is closed; 120 s
	SlowTimeout    time.Duration // so it is when the server reads nothing of what waits; 30 s
	MaxFrameBytes  int           // 16 MiB, which is also the most
	MaxUnsentBytes int64         // per connection, then calls fail with ErrBusy; 16 MiB
	Tick           time.Duration // how exact the times of calls are; 50 ms
	Logger         *slog.Logger
}

// EnsureDefaults fills what is zero.
func (o *ClientOptions) EnsureDefaults() {
	if o.Name == "" {
		o.Name = "client"
	}
	if o.Handler == nil {
		o.Handler = refuser{}
	}
	if o.MaxFrameBytes == 0 {
		o.MaxFrameBytes = protocol.MaxFrameBytes
	}
	setDefault(&o.DialTimeout, 3*time.Second)
	setDefault(&o.CallTimeout, 3*time.Second)
	setDefault(&o.IdleTimeout, 120*time.Second)
	setDefault(&o.SlowTimeout, 30*time.Second)
	setDefault(&o.MaxUnsentBytes, 16<<20)
	setDefault(&o.Tick, 50*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every complaint.
func (o *ClientOptions) Validate() error {
	return errors.Join(
		checkFrame(o.MaxFrameBytes), positive("DialTimeout", o.DialTimeout),
		positive("MaxUnsentBytes", o.MaxUnsentBytes), positive("IdleTimeout", o.IdleTimeout), positive("SlowTimeout", o.SlowTimeout),
		positive("CallTimeout", o.CallTimeout), positive("Tick", o.Tick))
}

// Client holds one connection per address, dialled when first needed and again after it was lost
// (org.apache.rocketmq.remoting.netty.NettyRemotingClient). Safe for concurrent use.
type Client struct {
	ep          endpoint
	dialTimeout time.Duration

	mu     sync.Mutex
	peers  map[string]*peer
	closed bool
}

// peer is the connection to an address, or the attempt to get one.
type peer struct {
	ready chan struct{} // closed when conn or err is set
	conn  *Conn
	err   error
}

// NewClient returns a client without connections. It outlives ctx: Close ends it.
func NewClient(ctx context.Context, o ClientOptions) (*Client, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	cl := &Client{
		dialTimeout: o.DialTimeout, peers: map[string]*peer{},
		ep: endpoint{handler: o.Handler, log: o.Logger, limits: limits{
			maxFrame: o.MaxFrameBytes, maxUnsent: o.MaxUnsentBytes, idleTimeout: o.IdleTimeout, slowTimeout: o.SlowTimeout,
			callTimeout: o.CallTimeout, tick: o.Tick,
		}},
	}
	cl.ep.start(ctx, o.Name)
	return cl, nil
}

// Conn returns the connection to addr ("host:port"; the name is resolved at each dial), made if there is none. All who ask
// at once share one attempt, which DialTimeout bounds.
func (cl *Client) Conn(ctx context.Context, addr string) (*Conn, error) {
	cl.mu.Lock()
	if cl.closed {
		cl.mu.Unlock()
		return nil, ErrClosed
	}
	p := cl.peers[addr]
	if p == nil || p.lost() {
		p = &peer{ready: make(chan struct{})}
		cl.peers[addr] = p
		cl.ep.group.Go("dial", func(ctx context.Context) error {
			p.conn, p.err = cl.Dial(ctx, addr)
			close(p.ready)
			return nil
		})
	}
	cl.mu.Unlock()
	select {
	case <-p.ready:
		return p.conn, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lost says that p is of no use any more.
func (p *peer) lost() bool {
	select {
	case <-p.ready:
	default:
		return false
	}
	if p.err != nil {
		return true
	}
	select {
	case <-p.conn.Done():
		return true
	default:
		return false
	}
}

// Dial makes a connection of the caller's own, beside the shared one.
func (cl *Client) Dial(ctx context.Context, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: cl.dialTimeout, KeepAlive: -1}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return cl.Attach(nc)
}

// Attach makes a connection of nc, which somebody else dialled. nc is closed after an error.
func (cl *Client) Attach(nc net.Conn) (*Conn, error) {
	c, err := newConn(&cl.ep, nc, "")
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	if err := cl.run(c); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

// run starts c, and returns when its handler knows it.
func (cl *Client) run(c *Conn) error {
	opened := make(chan struct{})
	cl.mu.Lock() // Close waits for the group after it had this lock: Go cannot come too late
	if cl.closed || !cl.ep.add(c) {
		cl.mu.Unlock()
		return ErrClosed
	}
	cl.ep.group.Go("conn", func(context.Context) error {
		cl.ep.handler.Opened(c)
		close(opened)
		c.run()
		return nil
	})
	cl.mu.Unlock()
	<-opened
	return nil
}

// Call is [Conn.Call] on the shared connection to addr. A connection that turned out closed before anything was sent is
// replaced once.
func (cl *Client) Call(ctx context.Context, addr string, req *protocol.Command) (*protocol.Command, error) {
	for again := true; ; again = false {
		c, err := cl.Conn(ctx, addr)
		if err != nil {
			return nil, err
		}
		resp, sent, err := c.call(ctx, req)
		if err != nil && !sent && again && errors.Is(err, ErrClosed) {
			continue
		}
		return resp, err
	}
}

// Oneway is [Conn.Oneway] on the shared connection to addr.
func (cl *Client) Oneway(ctx context.Context, addr string, req *protocol.Command) error {
	for again := true; ; again = false {
		c, err := cl.Conn(ctx, addr)
		if err != nil {
			return err
		}
		if err = c.Oneway(req); err != nil && again && errors.Is(err, ErrClosed) {
			continue
		}
		return err
	}
}

// Conns appends the open connections to dst.
func (cl *Client) Conns(dst []*Conn) []*Conn { return cl.ep.snapshot(dst) }

// Stats sums up what the client did.
func (cl *Client) Stats() Stats { return cl.ep.statistics() }

// Close closes all connections and waits for the client's goroutines; outstanding calls end with [ErrClosed]. It may be
// called more than once, but not from Done or a Handler.
func (cl *Client) Close() error {
	cl.mu.Lock()
	cl.closed = true
	cl.mu.Unlock()
	return cl.ep.close()
}
