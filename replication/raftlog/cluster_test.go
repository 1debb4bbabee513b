package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 30 * time.Second // of a test, on a machine that does other things too
	calm     = time.Second      // the heartbeat timeout of tests in which nobody is to be deposed because such a machine is busy
)

// cluster is a group in one process, over loopback sockets and file systems in memory.
type cluster struct {
	tb    testing.TB
	flush engine.FlushMode
	ids   []string
	peers map[string]string
	adapt func(id string, o *Options)

	mu    sync.Mutex
	disks map[string]*vfs.Heap
	fault map[string]*vfs.Faulty
	nodes map[string]*Node
	cut   map[[2]string]bool // from, to: nothing gets through
	conns map[[2]string][]net.Conn
	boot  string
}

func newCluster(tb testing.TB, flush engine.FlushMode, size int) *cluster {
	tb.Helper()
	c := &cluster{
		tb: tb, flush: flush, peers: map[string]string{}, disks: map[string]*vfs.Heap{}, fault: map[string]*vfs.Faulty{},
		nodes: map[string]*Node{}, cut: map[[2]string]bool{}, conns: map[[2]string][]net.Conn{}, boot: "boot-1",
	}
	for i := range size {
		c.addID(fmt.Sprintf("n%d", i))
	}
	tb.Cleanup(c.close)
	return c
}

// addID finds a port for a node. It is free again until the node is opened.
func (c *cluster) addID(id string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c.tb, err)
	c.ids = append(c.ids, id)
	c.peers[id] = ln.Addr().String()
	require.NoError(c.tb, ln.Close())
	c.disks[id] = vfs.NewHeap()
}

func (c *cluster) close() {
	c.mu.Lock()
	c.cut = map[[2]string]bool{}
	c.mu.Unlock()
	for _, id := range c.ids {
		c.stop(id)
	}
}

// options are those of a node.
func (c *cluster) options(id string) Options {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault[id] = vfs.NewFaulty(c.disks[id])
	peers := map[string]string{}
	for k, v := range c.peers {
		peers[k] = v
	}
	o := Options{
		Engine: engine.Options{
			FS: c.fault[id], Dir: "store", SegmentBytes: 1 << 20, Flush: c.flush, IndexDisabled: true, PrepareDisabled: true,
			CheckpointBytes: 64 << 20,
		},
		Group: "g", SelfID: id, Peers: peers, Client: "client-of-" + id, BootID: c.boot,
		Dial: func(ctx context.Context, to, addr string) (net.Conn, error) {
			return c.dial(ctx, id, memberName(to), addr)
		},
	}
	if os.Getenv("RAFT_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", id)
	}
	if c.adapt != nil {
		c.adapt(id, &o)
	}
	return o
}

// dial is how from reaches to.
func (c *cluster) dial(ctx context.Context, from, to, addr string) (net.Conn, error) {
	link := [2]string{from, to}
	c.mu.Lock()
	cut := c.cut[link]
	c.mu.Unlock()
	if cut { // black holes, no refusal: that would mean that the process is gone
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn, c: c, link: link, closed: make(chan struct{})}
	return w, nil
}

// wire is a connection that a partition can silence, in each direction.
type wire struct {
	net.Conn
	c      *cluster
	link   [2]string
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// pass waits while the direction is cut.
func (w *wire) pass(from, to string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		w.c.mu.Lock()
		cut := w.c.cut[[2]string{from, to}]
		w.c.mu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-w.closed:
			return net.ErrClosed
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return os.ErrDeadlineExceeded
		}
	}
}

func (w *wire) Write(b []byte) (int, error) {
	if err := w.pass(w.link[0], w.link[1], time.Second); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if perr := w.pass(w.link[1], w.link[0], patience); perr != nil && err == nil {
		err = perr
	}
	return n, err
}

// sever cuts, or mends, everything from a to b.
func (c *cluster) sever(a, b string, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[[2]string{a, b}] = cut
}

// isolate cuts a node off from all others, or brings it back.
func (c *cluster) isolate(id string, cut bool) {
	for _, other := range c.ids {
		if other != id {
			c.sever(id, other, cut)
			c.sever(other, id, cut)
		}
	}
}

// heartbeats makes every node take so long to miss its leader.
func (c *cluster) heartbeats(timeout time.Duration) {
	for _, id := range c.ids {
		r := c.node(id).instance.Load().raft
		rc := r.ReloadableConfig()
		rc.HeartbeatTimeout, rc.ElectionTimeout = timeout, timeout
		require.NoError(c.tb, r.ReloadConfig(rc))
	}
}

// start opens a node.
func (c *cluster) start(id string) *Node {
	c.tb.Helper()
	o := c.options(id)
	var n *Node
	var err error
	for end := time.Now().Add(patience); ; {
		n, err = Open(context.Background(), o)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			break
		}
		time.Sleep(10 * time.Millisecond) // somebody has borrowed the port
	}
	require.NoError(c.tb, err)
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	return n
}

func (c *cluster) startAll() {
	c.tb.Helper()
	for _, id := range c.ids {
		c.start(id)
	}
}

func (c *cluster) node(id string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// stop closes a node in order.
func (c *cluster) stop(id string) {
	c.tb.Helper()
	n := c.node(id)
	if n == nil {
		return
	}
	c.mu.Lock()
	delete(c.nodes, id)
	c.mu.Unlock()
	if err := n.Close(); err != nil && !errors.Is(err, engine.ErrPoisoned) {
		c.tb.Errorf("close %s: %v", id, err)
	}
}

// kill ends a node as kill -9 would, or with power a power cut: what it does after this moment reaches
// neither disk nor others.
func (c *cluster) kill(id string, power bool, seed uint64) {
	c.tb.Helper()
	n := c.node(id)
	n.net.muted.Store(true)
	_ = n.net.close() // what it has told others is on its disk from here on
	c.mu.Lock()
	delete(c.nodes, id)
	old := c.disks[id]
	if power {
		c.disks[id] = old.CrashImage(seed)
	} else {
		c.disks[id] = old.KillImage()
	}
	c.mu.Unlock()
	n.abort()
}

// wipe empties the disk of a node that does not run.
func (c *cluster) wipe(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disks[id] = vfs.NewHeap()
}

// leader waits for a node that leads, among those that run.
func (c *cluster) leader() *Node {
	c.tb.Helper()
	var lead *Node
	require.Eventually(c.tb, func() bool {
		lead = nil
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range c.nodes {
			st := n.Status()
			if st.Role == replication.Leader && (lead == nil || lead.Status().Epoch < st.Epoch) {
				lead = n
			}
		}
		return lead != nil
	}, patience, 2*time.Millisecond)
	return lead
}

func (c *cluster) followers() []*Node {
	lead := c.leader()
	var f []*Node
	for _, id := range c.ids {
		if n := c.node(id); n != nil && n != lead {
			f = append(f, n)
		}
	}
	return f
}

// send appends a message through whoever leads, until it is acked, and gives its result.
func (c *cluster) send(topic string, queue int32, body string) engine.Result {
	c.tb.Helper()
	end := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		res, err := c.leader().Append(ctx, record(topic, queue, []byte(body)))
		cancel()
		if err == nil {
			return res
		}
		require.True(c.tb, time.Now().Before(end), "send: %v", err)
	}
}

// caughtUp waits until all nodes show what the leader shows.
func (c *cluster) caughtUp() {
	c.tb.Helper()
	require.Eventually(c.tb, func() bool {
		want := c.leader().Visible()
		for _, id := range c.ids {
			if n := c.node(id); n != nil && n.Visible() != want {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond)
}

// high is the end of a queue once all that n shows has been dispatched.
func (c *cluster) high(n *Node, topic string, queue int32) int64 {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(c.tb, n.WaitDispatchedPos(ctx, n.Visible()))
	_, high, ok := n.QueueRange(topic, queue)
	require.True(c.tb, ok)
	return high
}

// same requires that all nodes hold the same log, up to what the one that shows least shows.
func (c *cluster) same() {
	c.tb.Helper()
	var first *Node
	for _, id := range c.ids {
		n := c.node(id)
		if n == nil {
			continue
		}
		if first == nil {
			first = n
			continue
		}
		lowA, err := first.logs.FirstIndex()
		require.NoError(c.tb, err)
		lowB, err := n.logs.FirstIndex()
		require.NoError(c.tb, err)
		low, high := max(lowA, lowB, 1), min(first.logs.Committed(), n.logs.Committed())
		if low > high {
			continue
		}
		a, err := first.logs.Hash(low, high)
		require.NoError(c.tb, err)
		b, err := n.logs.Hash(low, high)
		require.NoError(c.tb, err)
		require.Equal(c.tb, a, b, "entries %d to %d of %s and %s", low, high, first.id.ID, n.id.ID)
	}
}

// Proves that three empty nodes become a group that acks what a majority has, keeps the same log on all,
// tells roles and documents, and goes on after each of them has been restarted in order.
func TestGroup(t *testing.T) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			var mu sync.Mutex
			docs := map[string]string{}
			c := newCluster(t, flush, 3)
			c.adapt = func(id string, o *Options) {
				o.HeartbeatTimeout = calm
				o.Events.Meta = func(name string, doc []byte) {
					mu.Lock()
					defer mu.Unlock()
					docs[id+" "+name] = string(doc)
				}
			}
			c.startAll()
			for i := range 50 {
				res := c.send("topic", 0, fmt.Sprint(i))
				require.EqualValues(t, i, res.QueueOffset)
			}
			lead := c.leader()
			require.NoError(t, lead.SaveMeta(t.Context(), "topics", []byte("one")))
			require.NoError(t, lead.SaveMeta(t.Context(), "topics", []byte("two")))
			for _, f := range c.followers() {
				require.Eventually(t, func() bool {
					mu.Lock()
					defer mu.Unlock()
					return docs[f.o.SelfID+" topics"] == "two"
				}, patience, time.Millisecond)
				n, err := f.SubmitFront(t.Context(), []*engine.Append{{Record: record("topic", 0, nil), Done: func(*engine.Append) { t.Error("done") }}})
				require.Zero(t, n)
				require.ErrorIs(t, err, replication.ErrNotLeader)
				var not *replication.NotLeaderError
				require.ErrorAs(t, err, &not)
				require.Equal(t, lead.o.Client, not.Leader)
			}
			mu.Lock()
			require.NotContains(t, docs, lead.o.SelfID+" topics")
			mu.Unlock()
			c.caughtUp()
			c.same()
			for _, id := range c.ids {
				c.stop(id)
				c.send("topic", 0, "without "+id)
				c.start(id)
			}
			last := c.send("topic", 0, "last").QueueOffset
			require.GreaterOrEqual(t, last, int64(53), "a send that is tried again may be there twice")
			c.caughtUp()
			c.same()
			for _, id := range c.ids {
				require.Equal(t, last+1, c.high(c.node(id), "topic", 0))
			}
		})
	}
}

// abort ends the node without closing anything in order, for tests: what is on disk stays as it is.
func (n *Node) abort() {
	n.closed.Do(func() {
		n.mu.Lock()
		n.closing = true
		n.mu.Unlock()
		n.net.muted.Store(true)
		_ = n.net.close() // it may be closed already
		n.prop.stop()
		n.group.Cancel()
		n.err = errors.Join(n.stopRaft(), n.group.Wait(), n.closeStores())
	})
}
