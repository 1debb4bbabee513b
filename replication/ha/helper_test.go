package ha

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/engine"
	"rmq/internal/crashtest"
	"rmq/internal/vfs"
	"rmq/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const soon = 20 * time.Second // the machine may be busy

// node is one node of a test, over all its lives.
type node struct {
	t    testing.TB
	o    Options
	heap *vfs.Heap
	wrap func(vfs.FS) vfs.FS // nil: the node sees its heap as it is

	onDisk bool // instead
	log    *logs
	s      *Service

	mu    sync.Mutex
	roles []replication.Status
	metas map[string]string
}

// logs gathers what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func smallEngine(heap *vfs.Heap) engine.Options {
	return engine.Options{
		FS: heap, Dir: "/s", SegmentBytes: 64 << 10, QueueFileBytes: 2000, MaxHashSlots: 64, MaxIndexEntries: 1024,
		MaxMessageBytes: 8 << 10, MaxUnflushed: 8 << 20, MaxPending: 1 << 20, TailCache: 64 << 10, CheckpointBytes: 1 << 20,
		FlushInterval: 5 * time.Millisecond, FlushThorough: 10 * time.Millisecond, Retention: engine.RetentionOptions{Disabled: true},
	}
}

func newNode(t testing.TB, id string, change func(*Options)) *node {
	n := &node{t: t, heap: vfs.NewHeap(), log: &logs{}, metas: map[string]string{}}
	n.o = Options{
		Engine: smallEngine(n.heap), ID: id, Cluster: "c/broker-a", Listen: "127.0.0.1:0", Client: id + ":10911",
		Heartbeat: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(n.log, nil)),
		Events: replication.Events{
			Role: func(st replication.Status) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.roles = append(n.roles, st)
			},
			Meta: func(name string, doc []byte) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.metas[name] = string(doc)
			},
		},
	}
	if change != nil {
		change(&n.o)
	}
	t.Cleanup(func() {
		n.close()
		if t.Failed() {
			t.Logf("log of %s:\n%s", id, n.log)
		}
	})
	return n
}

// open starts the node; its port stays the same over all lives.
func (n *node) open() *node {
	n.t.Helper()
	n.o.Engine.FS = n.heap
	if n.onDisk {
		n.o.Engine.FS = vfs.OS
	}
	if n.wrap != nil {
		n.o.Engine.FS = n.wrap(n.heap)
	}
	s, err := Open(context.Background(), n.o)
	require.NoError(n.t, err)
	n.s = s
	n.o.Listen = s.Addr()
	return n
}

func (n *node) close() {
	if n.s != nil {
		_ = n.s.Close() // after a test that failed it may be poisoned
		n.s = nil
	}
}

// kill takes the node away as kill -9 does, or as a power cut if seed is not zero.
func (n *node) kill(seed uint64) {
	img := n.heap.KillImage()
	if seed != 0 {
		img = n.heap.CrashImage(seed)
	}
	n.close()
	n.heap = img
}

func master(t testing.TB, change func(*Options)) *node {
	return newNode(t, "a:0", change).open()
}

func slave(t testing.TB, m *node, id string, change func(*Options)) *node {
	return newNode(t, id, func(o *Options) {
		o.Slave, o.Master, o.MasterClient = true, m.s.Addr(), m.o.Client
		if change != nil {
			change(o)
		}
	}).open()
}

func syncMode(o *Options) { o.Mode = replication.Sync }

func syncFlush(o *Options) { o.Engine.Flush = engine.SyncFlush }

func both(fs ...func(*Options)) func(*Options) {
	return func(o *Options) {
		for _, f := range fs {
			f(o)
		}
	}
}

// eventually waits for ok, looking again and again.
func eventually(t testing.TB, ok func() bool, what string, args ...any) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: "+what, args...)
		}
		time.Sleep(time.Millisecond)
	}
}

// caughtUp waits until the slave has and shows all that the master has.
func caughtUp(t testing.TB, m *node, slaves ...*node) {
	t.Helper()
	for _, s := range slaves {
		eventually(t, func() bool { return s.s.Written() == m.s.Written() && s.s.Visible() == m.s.Visible() },
			"%s catches up with %s", s.o.ID, m.o.ID)
	}
}

// inSync waits until the master counts so many slaves as in sync.
func inSync(t testing.TB, m *node, count int) {
	t.Helper()
	eventually(t, func() bool { return int(m.s.transfer.count.Load()) == count }, "%d in sync", count)
}

// sender appends messages that can be recognised and remembers the acks.
type sender struct {
	src  crashtest.Source
	seq  uint64
	acks []crashtest.Ack
}

func newSender(seed uint64) *sender { return &sender{src: crashtest.Source{Seed: seed, MaxBody: 900}} }

// send appends n messages one after the other; those that are acked are remembered.
func (x *sender) send(n *node, count int) error {
	for range count {
		if err := x.one(context.Background(), n); err != nil {
			return err
		}
	}
	return nil
}

func (x *sender) one(ctx context.Context, n *node) error {
	seq := x.seq
	x.seq++
	queue := int32(seq % 3)
	rec, err := x.src.AppendRecord(nil, queue, 0, seq)
	if err != nil {
		return err
	}
	res, err := n.s.Append(ctx, rec)
	if err == nil {
		x.acks = append(x.acks, crashtest.Ack{Queue: queue, Seq: seq, Pos: res.Pos, Offset: res.QueueOffset})
	}
	return err
}

// audit checks the store of n against the acks; nothing may be lost.
func (x *sender) audit(n *node) {
	n.t.Helper()
	rep, err := crashtest.Audit(context.Background(), n.s.Store, x.src, x.acks)
	require.NoError(n.t, err)
	require.Empty(n.t, rep.Lost, rep.LostText())
	require.Zero(n.t, n.s.Stats().OrderViolations)
}

// sameLog proves that two logs have the same bytes from the later begin to the earlier end.
func sameLog(t testing.TB, a, b *node) {
	t.Helper()
	from, to := max(a.s.Min(), b.s.Min()), min(a.s.Written(), b.s.Written())
	require.LessOrEqual(t, from, to)
	x, err := a.s.checksum(from, to)
	require.NoError(t, err)
	y, err := b.s.checksum(from, to)
	require.NoError(t, err)
	require.Equal(t, x, y, "bytes from %d to %d", from, to)
}

// link is a proxy between two nodes that can be cut, frozen, slow or torn.
type proxy struct {
	t      testing.TB
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	down   bool
	frozen chan struct{} // closed: flows
	budget int64         // bytes until the next cut; negative: no cut
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	flows := make(chan struct{})
	close(flows)
	p := &proxy{t: t, l: l, target: target, frozen: flows, budget: -1}
	p.wg.Go(p.run)
	t.Cleanup(func() {
		p.thaw()
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) run() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			_ = c.Close()
			continue
		}
		d, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, c, d)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(c, d) })
		p.wg.Go(func() { p.copy(d, c) })
	}
}

func (p *proxy) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		frozen := p.frozen
		cut := p.budget >= 0 && int64(n) >= p.budget
		if cut {
			n = int(p.budget)
			p.budget = -1
		} else if p.budget >= 0 {
			p.budget -= int64(n)
		}
		p.mu.Unlock()
		<-frozen
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil || cut {
			return
		}
	}
}

// cut breaks all connections; with down set new ones too.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cut()
	}
}

func (p *proxy) cutAfter(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = bytes
}

// freeze black-holes: nothing is refused, nothing flows.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.frozen:
	default:
		close(p.frozen)
	}
}

func (n *node) String() string { return fmt.Sprintf("%s at %d", n.o.ID, n.s.Written()) }
