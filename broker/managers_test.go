package broker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/remoting/protocol"
)

// testClock is a clock that a test moves.
type testClock struct{ now atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.now.Store(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC).UnixNano())
	return c
}

func (c *testClock) Now() time.Time { return time.Unix(0, c.now.Load()) }

func (c *testClock) Advance(d time.Duration) { c.now.Add(int64(d)) }

// testSettings are the settings of a broker.conf with these lines.
func testSettings(t testing.TB, conf string) *atomic.Pointer[Settings] {
	t.Helper()
	s, _, err := LoadConfig(LoadOptions{
		File: "broker.conf", Text: []byte("brokerName=broker-a\nbrokerIP1=127.0.0.1\nstorePathRootDir=/store\n" + conf),
		Getenv: func(string) string { return "" },
	})
	require.NoError(t, err)
	p := &atomic.Pointer[Settings]{}
	p.Store(s)
	return p
}

// testManagers are managers over a heap file system, with the clock that moves them.
func testManagers(t testing.TB, fsys vfs.FS, conf string) (*managers, *testClock) {
	t.Helper()
	clock := newTestClock()
	m, err := newManagers(managerOptions{
		Settings: testSettings(t, conf), Meta: NewFileMetaLog(fsys, "/store/config", nil), Clock: clock.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return m, clock
}

// fakeConn is a client connection that remembers what it was sent and answers what it was told to.
type fakeConn struct {
	addr   netip.AddrPort
	answer func(ctx context.Context, req *protocol.Command) (*protocol.Command, error)

	mu     sync.Mutex
	sent   []*protocol.Command
	once   sync.Once
	closed chan struct{}
}

func newFakeConn(port uint16) *fakeConn {
	return &fakeConn{addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), closed: make(chan struct{})}
}

func (c *fakeConn) RemoteAddr() netip.AddrPort { return c.addr }

func (c *fakeConn) Oneway(req *protocol.Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, req.Clone())
	return nil
}

func (c *fakeConn) Call(ctx context.Context, req *protocol.Command) (*protocol.Command, error) {
	if c.answer == nil {
		return nil, errors.New("no answer")
	}
	return c.answer(ctx, req)
}

func (c *fakeConn) Close() error { c.once.Do(func() { close(c.closed) }); return nil }

func (c *fakeConn) Done() <-chan struct{} { return c.closed }

// takeSent returns and forgets what was sent.
func (c *fakeConn) takeSent() []*protocol.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.sent
	c.sent = nil
	return out
}

// run starts f under an owner that the test waits for.
func spawn(t *testing.T, f func()) {
	t.Helper()
	g := run.New(context.Background(), t.Name())
	g.Go("test", func(context.Context) error { f(); return nil })
	t.Cleanup(func() { require.NoError(t, g.Wait()) })
}
