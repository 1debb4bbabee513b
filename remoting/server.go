package remoting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// ServerOptions are the knobs of a [Server]; the zero value, with a Handler, is that of a broker.
type ServerOptions struct {
	Name    string  // of its goroutines; "server"
	Handler Handler // nil answers every request with REQUEST_CODE_NOT_SUPPORTED

	MaxFrameBytes  int           // largest frame, its length word included; 16 MiB, which is also the most
	MaxUnsentBytes int64         // per connection, then it stops reading; 16 MiB
	MaxUnsentAll   int64         // of all connections, then each stops reading at 256 KiB; 64 MiB
	IdleTimeout    time.Duration // without a byte in either direction the connection is closed; 120 s
	SlowTimeout    time.Duration // so it is when the peer reads nothing of what waits, or too little; 30 s
	CallTimeout    time.Duration // of calls to clients that name none; 3 s
	Tick           time.Duration // how exact those times are; 250 ms
	Logger         *slog.Logger
}

// EnsureDefaults fills what is zero.
func (o *ServerOptions) EnsureDefaults() {
	if o.Name == "" {
		o.Name = "server"
	}
	if o.Handler == nil {
		o.Handler = refuser{}
	}
	if o.MaxFrameBytes == 0 {
		o.MaxFrameBytes = protocol.MaxFrameBytes
	}
	setDefault(&o.MaxUnsentBytes, 16<<20)
	setDefault(&o.MaxUnsentAll, 64<<20)
	setDefault(&o.IdleTimeout, 120*time.Second)
	setDefault(&o.SlowTimeout, 30*time.Second)
	setDefault(&o.CallTimeout, 3*time.Second)
	setDefault(&o.Tick, 250*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// Validate returns every complaint.
func (o *ServerOptions) Validate() error {
	return errors.Join(
		checkFrame(o.MaxFrameBytes),
		positive("MaxUnsentBytes", o.MaxUnsentBytes), positive("MaxUnsentAll", o.MaxUnsentAll), positive("IdleTimeout", o.IdleTimeout), positive("SlowTimeout", o.SlowTimeout),
		positive("CallTimeout", o.CallTimeout), positive("Tick", o.Tick))
}

func checkFrame(n int) error {
	if n < 8 || n > protocol.MaxFrameBytes {
		return fmt.Errorf("MaxFrameBytes is %d: peers accept 8 to %d", n, protocol.MaxFrameBytes)
	}
	return nil
}

func positive[T int64 | time.Duration](name string, v T) error {
	if v <= 0 {
		return fmt.Errorf("%s is %v: must be above zero, or zero for the default", name, v)
	}
	return nil
}

// Server accepts connections and hands their requests to a [Handler]
// (org.apache.rocketmq.remoting.netty.NettyRemotingServer). Safe for concurrent use.
type Server struct {
	ep endpoint

	mu        sync.Mutex
	listeners []net.Listener
	stopped   bool
}

// NewServer returns a server that listens nowhere yet. It outlives ctx, so that what is under way can be answered: Shutdown or
// Close ends it.
func NewServer(ctx context.Context, o ServerOptions) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{ep: endpoint{handler: o.Handler, log: o.Logger, limits: limits{
		maxFrame: o.MaxFrameBytes, maxUnsent: o.MaxUnsentBytes, maxUnsentAll: o.MaxUnsentAll, idleTimeout: o.IdleTimeout, slowTimeout: o.SlowTimeout,
		callTimeout: o.CallTimeout, tick: o.Tick, holdReaders: true,
	}}}
	s.ep.start(ctx, o.Name)
	return s, nil
}

// Listen accepts connections on addr, "host:port" where port 0 takes a free one, and returns where that is. It may be
// called several times; [Conn.Listener] tells name.
func (s *Server) Listen(name, addr string) (netip.AddrPort, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(s.ep.group.Context(), "tcp", addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen as %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = l.Close() // never used
		return netip.AddrPort{}, ErrClosed
	}
	s.listeners = append(s.listeners, l)
	s.ep.group.Go("accept-"+name, func(ctx context.Context) error {
		s.accept(ctx, l, name)
		return nil
	})
	return addrPort(l.Addr()), nil
}

// accept takes connections in until l is closed. When the process has no descriptor left it waits for one.
func (s *Server) accept(ctx context.Context, l net.Listener, name string) {
	const most = time.Second
	pause := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.serve(nc, name)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.ep.log.Warn("accept", "listener", name, "err", err, "pause", pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, most)
		}
	}
}

func (s *Server) serve(nc net.Conn, listener string) {
	if err := s.ServeConn(nc, listener); err != nil {
		s.ep.log.Debug("refuse a connection", "peer", nc.RemoteAddr(), "err", err)
	}
}

// ServeConn serves a connection that somebody else accepted, under the name of a listener. nc is closed in any case.
func (s *Server) ServeConn(nc net.Conn, listener string) error {
	c, err := newConn(&s.ep, nc, listener)
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	s.mu.Lock() // Close waits for the group after it had this lock: Go cannot come too late
	defer s.mu.Unlock()
	if s.stopped || !s.ep.add(c) {
		return errors.Join(ErrClosed, nc.Close())
	}
	s.ep.group.Go("conn", func(context.Context) error {
		s.ep.handler.Opened(c)
		c.run()
		return nil
	})
	return nil
}

// Conns appends the open connections to dst.
func (s *Server) Conns(dst []*Conn) []*Conn { return s.ep.snapshot(dst) }

// Stats sums up what the server did.
func (s *Server) Stats() Stats { return s.ep.statistics() }

// Stop accepts no more connections and reads no more requests. Requests already served can still be answered.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	for _, l := range s.listeners {
		_ = l.Close() // accept ends, whatever it says
	}
	s.mu.Unlock()
	for _, c := range s.ep.snapshot(nil) {
		c.stop()
	}
}

// Quiet says, after [Server.Stop], that every request that was read has been handed to the [Handler].
func (s *Server) Quiet() bool {
	return !slices.ContainsFunc(s.Conns(nil), func(c *Conn) bool { return !c.quiet() })
}

// Shutdown is Stop, then Close as soon as the peers have received every answer that is queued, or ctx ends; then its error
// is returned too. Whoever answers requests later than in Serve waits for them between Stop and Shutdown.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Stop()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	// A connection closed over requests that nobody will read resets, and takes what is under way with it.
	left := slices.DeleteFunc(s.Conns(nil), (*Conn).settled)
	var err error
	for err == nil && len(left) > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			err = fmt.Errorf("%d connections with answers under way: %w", len(left), ctx.Err())
		}
		left = slices.DeleteFunc(left, (*Conn).settled)
	}
	return errors.Join(err, s.Close())
}

// Close closes everything at once and waits for the server's goroutines. It may be called more than once, but not from
// its Handler.
func (s *Server) Close() error {
	s.Stop()
	return s.ep.close()
}
