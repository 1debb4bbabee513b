package ha

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/crashtest"
	"rmq/replication"
)

// runSeed is RMQ_CRASH_SEED, or a new one; printed, so that a failure can be run again.
func runSeed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("RMQ_CRASH_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "RMQ_CRASH_SEED")
	}
	t.Logf("RMQ_CRASH_SEED=%d", n)
	return n
}

// Proves that a stream that is cut in the middle of frames, again and again, goes on where it was.
func TestCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(runSeed(t), 1))
	m := master(t, nil)
	p := newProxy(t, m.s.Addr())
	s := slave(t, m, "a:1", func(o *Options) { o.Master = p.addr() })
	x := newSender(11)
	for range 15 {
		p.cutAfter(rng.Int64N(60_000))
		require.NoError(t, x.send(m, 40))
	}
	p.cutAfter(-1)
	caughtUp(t, m, s)
	sameLog(t, m, s)
	x.audit(s)
}

// Proves that two connections of one slave count as one copy.
func TestOneReplicaTwice(t *testing.T) {
	m := master(t, both(syncMode, func(o *Options) { o.InSyncReplicas = 3 }))
	slave(t, m, "a:1", nil)
	slave(t, m, "a:1", nil)
	x := newSender(12)
	for range 20 {
		require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)
	}
	eventually(t, func() bool { return len(m.s.Status().Peers) == 1 }, "one peer")
}

// Proves that with two slaves and three copies an ack waits for the slower one, and with two copies for
// the faster.
func TestCopies(t *testing.T) {
	for copies, want := range map[int]error{2: nil, 3: replication.ErrReplicaTimeout} {
		t.Run(fmt.Sprint(copies), func(t *testing.T) {
			m := master(t, both(syncMode, func(o *Options) { o.InSyncReplicas = copies }))
			p := newProxy(t, m.s.Addr())
			slave(t, m, "a:1", nil)
			slave(t, m, "a:2", func(o *Options) { o.Master = p.addr() })
			inSync(t, m, 2)
			p.freeze()
			x := newSender(13)
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			if want == nil {
				ctx = context.Background()
			}
			defer cancel()
			require.ErrorIs(t, x.one(ctx, m), want)
		})
	}
}

// forge speaks our stream by hand.
type forger struct {
	t    *testing.T
	c    *peerConn
	self Hello
}

func newForger(t *testing.T, n *node, change func(*Hello)) *forger {
	conn, err := net.Dial("tcp", n.s.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	f := &forger{t, newPeerConn(n.s, conn), Hello{ID: "a:9", Cluster: n.o.Cluster, SegmentBytes: n.o.Engine.SegmentBytes}}
	if change != nil {
		change(&f.self)
	}
	_, err = conn.Write(ownPreamble[:])
	require.NoError(t, err)
	h, _, err := f.c.read()
	require.NoError(t, err)
	require.Equal(t, FrameGreeting, h.Type)
	return f
}

// ends reads until the other side closes, and returns what it refused with.
func (f *forger) ends() (text string) {
	f.c.limit = MaxDataBytes
	require.NoError(f.t, f.c.conn.SetReadDeadline(time.Now().Add(soon)))
	for {
		h, body, err := f.c.read()
		if err != nil {
			var timeout net.Error
			require.False(f.t, errors.As(err, &timeout) && timeout.Timeout(), "not closed")
			return text
		}
		if h.Type == FrameRefuse {
			text = string(body)
		}
	}
}

// Proves that a peer that is none of ours, or says what it cannot know, is dropped with one line that
// names it, the difference and the fix; and that none of it moves the watermark.
func TestForgedPeers(t *testing.T) {
	m := master(t, syncMode)
	x := newSender(14)
	require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)
	end := m.s.Written()
	hellos := map[string]func(*Hello){
		"cluster":     func(h *Hello) { h.Cluster = "other" },
		"segments of": func(h *Hello) { h.SegmentBytes = 1 << 20 },
		"both sides":  func(h *Hello) { h.ID = m.o.ID },
		"nothing in common": func(h *Hello) {
			h.Epochs, h.Min, h.End = Epochs{{Epoch: 1, Start: 3, By: "z"}}, 10, 20
		},
		"differ before": func(h *Hello) { h.Epochs, h.End, h.CheckLen = m.s.rec.Epochs, end, 8 },
		"is not cut":    func(h *Hello) { h.Epochs, h.End = m.s.rec.Epochs, end+100 },
	}
	for what, change := range hellos {
		f := newForger(t, m, change)
		require.NoError(t, f.c.writeJSON(FrameHello, f.self))
		require.Contains(t, f.ends(), what)
		require.Contains(t, m.log.String(), what)
	}
	acks := map[string]func(*Header){
		"forged":          func(h *Header) { h.Pos = end + 1 },
		"20 durable":      func(h *Header) { h.Pos, h.Confirm = 10, 20 },
		"7 documents":     func(h *Header) { h.End = 7 },
		"ack for group":   func(h *Header) { h.Group++ },
		"epoch 9":         func(h *Header) { h.Epoch = 9 },
		"meta where an":   func(h *Header) { h.Type = FrameMeta },
		"is not expected": func(h *Header) { h.Type = FrameData },
	}
	for what, change := range acks {
		f := newForger(t, m, nil)
		require.NoError(t, f.c.writeJSON(FrameHello, f.self))
		h := Header{Type: FrameAck, Group: m.s.transfer.group.Load(), Epoch: m.s.Status().Epoch}
		change(&h)
		var body []byte
		if h.Type == FrameData {
			body = []byte("x")
		}
		require.NoError(t, f.c.write(h, body))
		f.ends()
		eventually(t, func() bool { return containsLog(m, what) }, what)
		require.LessOrEqual(t, m.s.transfer.log.replicated.Load(), int64(0))
	}
	// Garbage, and silence.
	for _, b := range [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), append(ownPreamble[:], make([]byte, 200)...)} {
		conn, err := net.Dial("tcp", m.s.Addr())
		require.NoError(t, err)
		_, err = conn.Write(b)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(soon)))
		for err == nil {
			_, err = conn.Read(make([]byte, 100))
		}
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout())
		conn.Close()
	}
	require.Contains(t, m.log.String(), "haStockPeers")
	s := slave(t, m, "a:1", nil)
	inSync(t, m, 1)
	require.NoError(t, x.send(m, 5))
	caughtUp(t, m, s)
}

func containsLog(n *node, what string) bool {
	return strings.Contains(n.log.String(), what)
}

// columns are the modes of the fault matrix.
var columns = []struct {
	name   string
	change func(*Options)
}{
	{"aA", nil}, {"aS", syncFlush}, {"sA", syncMode}, {"sS", both(syncMode, syncFlush)},
}

// Proves the cells of the fault matrix in which machines lose their power (F10 to F14) or are killed
// (F01, F04), for all columns: what was acked is there afterwards, but for what the mode may lose.
func TestPowerCuts(t *testing.T) {
	seed := runSeed(t)
	for _, col := range columns {
		for _, fault := range []string{"kill master", "kill both", "cut master", "cut slave", "cut both", "cut slave, lose master"} {
			t.Run(col.name+"/"+fault, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 2))
				for range 2 {
					powerCut(t, rng, col.name, col.change, fault)
				}
			})
		}
	}
}

// load sends from a few goroutines until stop is closed, and remembers the acks by position.
type load struct {
	mu   sync.Mutex
	acks []crashtest.Ack
	src  crashtest.Source
	wg   sync.WaitGroup
}

func startLoad(n *node, seed uint64, stop chan struct{}) *load {
	l := &load{src: crashtest.Source{Seed: seed, MaxBody: 600}}
	s := n.s
	for producer := range uint32(4) {
		l.wg.Go(func() {
			for seq := uint64(0); ; seq++ {
				select {
				case <-stop:
					return
				default:
				}
				queue := int32(producer % 3)
				rec, err := l.src.AppendRecord(nil, queue, producer, seq)
				if err != nil {
					panic(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), soon)
				res, err := s.Append(ctx, rec)
				cancel()
				if err != nil {
					continue
				}
				select {
				case <-stop: // the image may be older than this ack
				default:
					l.mu.Lock()
					l.acks = append(l.acks, crashtest.Ack{Producer: producer, Queue: queue, Seq: seq, Pos: res.Pos, Offset: res.QueueOffset})
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *load) seen() []crashtest.Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]crashtest.Ack(nil), l.acks...)
}

func powerCut(t *testing.T, rng *rand.Rand, col string, change func(*Options), fault string) {
	m := master(t, change)
	s := slave(t, m, "a:1", func(o *Options) {
		if change != nil {
			change(o)
		}
	})
	inSync(t, m, 1)
	stop := make(chan struct{})
	l := startLoad(m, rng.Uint64(), stop)
	want := 50 + rng.IntN(200)
	eventually(t, func() bool { return len(l.seen()) > want }, "%d acks", want)
	acks := l.seen() // before the images
	mImg, sImg := m.heap.KillImage(), s.heap.KillImage()
	switch fault {
	case "cut master":
		mImg = m.heap.CrashImage(rng.Uint64())
	case "cut slave", "cut slave, lose master":
		sImg = s.heap.CrashImage(rng.Uint64())
	case "cut both":
		sImg = s.heap.CrashImage(rng.Uint64())
		mImg = m.heap.CrashImage(rng.Uint64())
	}
	// The slave's image may be newer than the master's: so are its bytes, as after a real cut.
	close(stop)
	m.close()
	s.close()
	l.wg.Wait()
	m.heap, s.heap = mImg, sImg
	m.o.Rebooted = fault == "cut master" || fault == "cut both"
	at := s
	if fault != "cut slave, lose master" {
		m.open()
		at = m
	}
	s.open()
	if at == s {
		_, err := s.s.Promote(context.Background(), true)
		require.NoError(t, err)
	} else {
		eventually(t, func() bool { return m.s.Role() == replication.Leader }, "the master leads again")
		caughtUp(t, m, s)
		sameLog(t, m, s)
	}
	rep, err := crashtest.Audit(context.Background(), at.s.Store, l.src, acks)
	require.NoError(t, err)
	mayLose := false
	switch fault {
	case "cut master":
		mayLose = col == "aA"
	case "cut both":
		mayLose = col == "aA" || col == "sA"
	case "cut slave, lose master": // F13: L without dual write, W of the slave under asynchronous flush
		mayLose = col != "sS"
	}
	if !mayLose {
		require.Empty(t, rep.Lost, rep.LostText())
	}
	m.close()
	s.close()
}

// Proves that a master that may have lost acked messages takes none until the slaves have been heard,
// says why, and can be told to lead all the same.
func TestReadOnly(t *testing.T) {
	m := master(t, syncMode)
	s := slave(t, m, "a:1", nil)
	inSync(t, m, 1)
	x := newSender(15)
	require.NoError(t, x.send(m, 200))
	img := m.heap.CrashImage(3)
	again := img.KillImage()
	m.close()
	s.close()
	m.heap, m.o.Rebooted = img, true
	m.open()
	require.Equal(t, replication.ReadOnly, m.s.Role())
	_, err := m.s.Append(t.Context(), nil)
	require.ErrorIs(t, err, replication.ErrNotLeader)
	require.ErrorContains(t, err, "waiting to hear of 1 of [a:1]")
	require.Contains(t, m.s.Status().Why, "accept the loss")
	_, err = m.s.Promote(t.Context(), false)
	var loss *LossError
	require.ErrorAs(t, err, &loss)
	short := m.s.Written()
	s.open()
	eventually(t, func() bool { return m.s.Role() == replication.Leader }, "leads")
	t.Logf("pulled back %d bytes", m.s.Written()-short)
	x.audit(m)
	inSync(t, m, 1)
	require.NoError(t, x.send(m, 10))
	caughtUp(t, m, s)
	x.audit(s)

	m.close()
	s.close()
	m.heap = again
	m.open()
	_, err = m.s.Promote(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, replication.Leader, m.s.Role())
}

// Proves that what synchronous dual write has acked survives the loss of the master with its disk.
func TestLoseMaster(t *testing.T) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		m := master(t, both(syncMode, func(o *Options) { o.Engine.Flush = flush }))
		s := slave(t, m, "a:1", nil)
		inSync(t, m, 1)
		stop := make(chan struct{})
		l := startLoad(m, 16, stop)
		eventually(t, func() bool { return len(l.seen()) > 200 }, "acks")
		acks := l.seen()
		close(stop)
		m.close()
		l.wg.Wait()
		_, err := s.s.Promote(t.Context(), true)
		require.NoError(t, err)
		rep, err := crashtest.Audit(t.Context(), s.s.Store, l.src, acks)
		require.NoError(t, err)
		require.Empty(t, rep.Lost, rep.LostText())
	}
}

// Proves that an empty node never wins, and an old backup is told.
func TestOldDirectories(t *testing.T) {
	m := master(t, nil)
	x := newSender(17)
	require.NoError(t, x.send(m, 20))
	old := m.heap.KillImage()
	s := slave(t, m, "a:1", nil)
	require.NoError(t, x.send(m, 50))
	caughtUp(t, m, s)
	_, err := s.s.Promote(t.Context(), true)
	require.NoError(t, err)
	require.NoError(t, x.send(s, 50))
	eventually(t, func() bool { return m.s.Role() == replication.Follower }, "demoted")
	caughtUp(t, s, m)
	// The former master comes back from an old backup: it leads for a moment, hears, and follows.
	m.close()
	m.heap = old
	s.s.mu.Lock()
	s.s.rec.Former = m.o.Listen
	s.s.mu.Unlock()
	m.open()
	eventually(t, func() bool { return m.s.Role() == replication.Follower }, "demoted again")
	caughtUp(t, s, m)
	x.audit(m)
	// Wiped.
	m.close()
	m.heap = newNode(t, "x", nil).heap
	m.o.Slave, m.o.Master = true, s.s.Addr()
	m.open()
	caughtUp(t, s, m)
	x.audit(m)
}
