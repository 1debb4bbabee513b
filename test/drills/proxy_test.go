//go:build drills

package drills

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
)

// link is a TCP proxy: one direction in which a node opens connections to another, or clients to a node.
// What it does to them can be changed at any time; connections that stand are affected too.
type link struct {
	to       string
	listener net.Listener
	group    *run.Group
	cancel   context.CancelFunc

	mu    sync.Mutex
	state linkState
	moved chan struct{} // closed when the state changes
	conns map[net.Conn]bool
}

// linkState is what a link does. The zero state lets everything through.
type linkState struct {
	cut         bool          // connections are reset, new ones too
	hole        bool          // nothing gets through, in either direction; connections stay
	deaf        bool          // nothing gets through from who opened the connection
	mute        bool          // nothing gets through to who opened the connection
	delay       time.Duration // of each direction
	bytesPerSec int           // of each direction; 0: no limit
	dropReplies bool          // what comes back is thrown away, and the connection closed then
}

// newLink listens on an address of this machine.
func newLink(t testing.TB, host, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	k := &link{to: to, listener: l, cancel: cancel, moved: make(chan struct{}), conns: map[net.Conn]bool{}}
	k.group = run.New(ctx, "link to "+to)
	k.group.Go("accept", k.accept)
	t.Cleanup(func() {
		cancel()
		_ = l.Close() // ends accept
		k.reset()
		require.NoError(t, k.group.Wait())
	})
	return k
}

func (k *link) addr() string { return k.listener.Addr().String() }

// set changes what the link does.
func (k *link) set(s linkState) {
	k.mu.Lock()
	k.state = s
	close(k.moved)
	k.moved = make(chan struct{})
	k.mu.Unlock()
	if s.cut {
		k.reset()
	}
}

// reset breaks all connections.
func (k *link) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.Close() // both ends notice
	}
}

func (k *link) now() (linkState, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.moved
}

func (k *link) accept(ctx context.Context) error {
	for {
		in, err := k.listener.Accept()
		if err != nil {
			return nil // it was closed
		}
		if s, _ := k.now(); s.cut {
			_ = in.(*net.TCPConn).SetLinger(0) // a reset
			_ = in.Close()
			continue
		}
		k.track(in)
		k.group.Go("connection", func(context.Context) error { k.carry(ctx, in); return nil })
	}
}

func (k *link) track(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns[c] = true
}

// carry moves bytes in both directions until one end closes.
func (k *link) carry(ctx context.Context, in net.Conn) {
	defer k.drop(in)
	if !k.passes(ctx, func(s *linkState) bool { return !s.hole }) { // a black hole does not answer, but is not refused
		return
	}
	out, err := net.Dial("tcp", k.to)
	if err != nil {
		_ = in.(*net.TCPConn).SetLinger(0)
		return
	}
	k.track(out)
	defer k.drop(out)
	g := run.New(ctx, "link")
	g.Go("there", func(context.Context) error { k.pump(ctx, out, in, true); return nil })
	g.Go("back", func(context.Context) error { k.pump(ctx, in, out, false); return nil })
	_ = g.Wait() // neither gives an error
}

func (k *link) drop(c net.Conn) {
	_ = c.Close() // it may be closed
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

// passes waits until ok, and says false when the link ends first.
func (k *link) passes(ctx context.Context, ok func(*linkState) bool) bool {
	for {
		s, moved := k.now()
		if ok(&s) {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// pump moves bytes in one direction.
func (k *link) pump(ctx context.Context, dst, src net.Conn, there bool) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	type piece struct {
		b   []byte
		due time.Time
	}
	pieces, gone := make(chan piece, 256), make(chan struct{})
	g := run.New(ctx, "pump")
	defer func() { _ = g.Wait() }() // it gives no error
	defer close(pieces)
	g.Go("write", func(context.Context) error {
		defer close(gone)
		defer func() { _ = src.Close() }() // so that reading ends too
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // the delay of the link
			open := func(s *linkState) bool { return !s.hole && !(there && s.deaf) && !(!there && s.mute) }
			if !k.passes(ctx, open) {
				return nil
			}
			if _, err := dst.Write(p.b); err != nil {
				return nil
			}
		}
		return nil
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			s, _ := k.now()
			if s.dropReplies && !there {
				return
			}
			if s.bytesPerSec > 0 {
				time.Sleep(time.Duration(n) * time.Second / time.Duration(s.bytesPerSec)) // the cap of the link
			}
			select {
			case pieces <- piece{append([]byte(nil), buf[:n]...), time.Now().Add(s.delay)}:
			case <-gone:
				return
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				_ = dst.Close()
			}
			return
		}
	}
}
