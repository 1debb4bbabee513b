package raftlog

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/run"
)

// slowConn is a connection on which every byte takes a while, in both directions.
type slowConn struct {
	net.Conn
	delay   func() time.Duration
	out, in chan slowPiece
	rest    []byte
	group   *run.Group
	closing sync.Once
	closed  chan struct{}
}

type slowPiece struct {
	b   []byte
	due time.Time
}

func slowDown(c net.Conn, g *run.Group, delay func() time.Duration) *slowConn {
	s := &slowConn{Conn: c, delay: delay, out: make(chan slowPiece, 1024), in: make(chan slowPiece, 1024), group: g, closed: make(chan struct{})}
	g.Go("slow out", func(context.Context) error {
		for {
			select {
			case p := <-s.out:
				time.Sleep(time.Until(p.due)) // the delay of the link
				if _, err := s.Conn.Write(p.b); err != nil {
					_ = s.Close() // the other end has
				}
			case <-s.closed:
				return nil
			}
		}
	})
	g.Go("slow in", func(context.Context) error {
		defer close(s.in)
		for {
			b := make([]byte, 64<<10)
			n, err := s.Conn.Read(b)
			if n > 0 {
				select {
				case s.in <- s.piece(b[:n]):
				case <-s.closed:
					return nil
				}
			}
			if err != nil {
				return nil
			}
		}
	})
	return s
}

func (s *slowConn) piece(b []byte) slowPiece {
	return slowPiece{append([]byte(nil), b...), time.Now().Add(s.delay())}
}

func (s *slowConn) Write(b []byte) (int, error) {
	select {
	case s.out <- s.piece(b):
		return len(b), nil
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *slowConn) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		p, ok := <-s.in
		if !ok {
			return 0, net.ErrClosed
		}
		time.Sleep(time.Until(p.due)) // the delay of the link
		s.rest = p.b
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// The deadlines of the connection below would end the goroutine that reads ahead: it is closed instead.
func (s *slowConn) SetDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		return s.Close()
	}
	return nil
}
func (*slowConn) SetReadDeadline(time.Time) error  { return nil }
func (*slowConn) SetWriteDeadline(time.Time) error { return nil }

func (s *slowConn) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// slowLinks is a group with links whose delay, of each direction, is that of the slower end.
func slowLinks(t *testing.T) (c *cluster, delays map[string]*atomic.Int64) {
	links := run.New(context.WithoutCancel(t.Context()), "links")
	t.Cleanup(func() { require.NoError(t, links.Wait()) }) // after the nodes have closed them
	c = newCluster(t, engine.SyncFlush, 3)
	delays = map[string]*atomic.Int64{}
	for _, id := range c.ids {
		delays[id] = &atomic.Int64{}
	}
	c.adapt = func(id string, o *Options) {
		x := defaultTimes
		x.measure = 20 * time.Millisecond
		o.times = &x
		dial := o.Dial
		o.Dial = func(ctx context.Context, to, addr string) (net.Conn, error) {
			conn, err := dial(ctx, to, addr)
			if err != nil {
				return nil, err
			}
			return slowDown(conn, links, func() time.Duration {
				return time.Duration(max(delays[id].Load(), delays[memberName(to)].Load()))
			}), nil
		}
	}
	return c, delays
}

// Proves that a group whose links become so slow that no lease of the configured length could hold elects
// and acks all the same, with longer timeouts on all nodes, and that these are as configured again once the
// links have been fast for a while.
func TestSlowLinks(t *testing.T) {
	t.Parallel()
	c, delays := slowLinks(t)
	c.startAll()
	c.send("t", 0, "fast")
	all := func(ok func(beat time.Duration) bool) func() bool {
		return func() bool {
			for _, id := range c.ids {
				if !ok(c.node(id).heartbeat()) {
					return false
				}
			}
			return true
		}
	}
	base := c.leader().o.HeartbeatTimeout

	for _, d := range delays {
		d.Store(int64(100 * time.Millisecond))
	}
	require.Eventually(t, all(func(beat time.Duration) bool { return beat >= 4*base }), patience, 5*time.Millisecond)
	for range 3 {
		c.send("t", 0, "slow")
	}

	for _, d := range delays {
		d.Store(0)
	}
	require.Eventually(t, all(func(beat time.Duration) bool { return beat < 4*base }), 2*patience, 5*time.Millisecond)
	c.send("t", 0, "fast again")
	c.caughtUp()
	c.same()
}

// Proves that one slow member has longer timeouts alone.
func TestSlowMember(t *testing.T) {
	t.Parallel()
	c, delays := slowLinks(t)
	c.startAll()
	c.send("t", 0, "fast")
	c.caughtUp()
	slow := c.followers()[0]
	base := slow.o.HeartbeatTimeout
	delays[slow.o.SelfID].Store(int64(100 * time.Millisecond))
	require.Eventually(t, func() bool { return slow.heartbeat() >= 4*base }, patience, 5*time.Millisecond)
	c.send("t", 0, "with a slow one")
	c.caughtUp()
	for _, id := range c.ids {
		if n := c.node(id); n != slow {
			require.Zero(t, n.paced.Load(), id)
		}
	}
	c.same()
}

// Proves which step a round trip asks for.
func TestPaceFor(t *testing.T) {
	beat := 300 * time.Millisecond
	for trip, want := range map[time.Duration]int{
		0: 0, 40 * time.Millisecond: 0, 60 * time.Millisecond: 0, 61 * time.Millisecond: 1, 120 * time.Millisecond: 1, 240 * time.Millisecond: 2,
		400 * time.Millisecond: 3, time.Minute: 3,
	} {
		require.Equal(t, want, paceFor(trip, beat), trip)
	}
	require.Equal(t, 1, paceFor(300*time.Millisecond, time.Second))
	var r trips
	for _, d := range []time.Duration{9, 7, 8} {
		r.add(d)
		require.Zero(t, r.least(), "too few")
	}
	r.add(100)
	require.EqualValues(t, 7, r.least())
	r.add(100)
	r.add(100)
	require.EqualValues(t, 8, r.least())
}
