package ha

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/replication"
)

// pipes is a listener whose connections are pipes in memory: what stands still on them stands still for good, so that
// virtual time may pass. It counts what is written to either end.
type pipes struct {
	port               int
	conns              chan net.Conn
	closed             chan struct{}
	fromServer, toward atomic.Int64
}

func newPipes(port int) *pipes {
	return &pipes{port: port, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.port} }

func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- &counted{a, &p.fromServer}:
		return &counted{b, &p.toward}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Proves what an idle slave costs, in virtual time: a sign of life a second from the master and an answer to it, and no call of
// the disk on either side. It runs in a process of its own: pools hand what was made in virtual time to other tests.
func TestIdle(t *testing.T) {
	if os.Getenv("RMQ_TEST_IDLE") == "" {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestIdle$", "-test.v")
		cmd.Env = append(os.Environ(), "RMQ_TEST_IDLE=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "PASS: TestIdle")
		return
	}
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes(1)
		var disk atomic.Int64
		counting := func(fs vfs.FS) vfs.FS {
			f := vfs.NewFaulty(fs)
			f.Before(func(vfs.Call) { disk.Add(1) })
			return f
		}
		second := func(o *Options) { o.Heartbeat = time.Second }
		m := newNode(t, "a:0", both(syncMode, syncFlush, second, func(o *Options) { o.Listener = ln }))
		m.wrap = counting
		m.open()
		s := newNode(t, "a:1", both(syncFlush, second, func(o *Options) {
			o.Slave, o.Master, o.MasterClient, o.Dial = true, m.s.Addr(), m.o.Client, ln.dial
			o.Listener = newPipes(2)
		}))
		s.wrap = counting
		s.open()
		inSync(t, m, 1)
		x := newSender(41)
		require.NoError(t, x.send(m, 10))
		caughtUp(t, m, s)
		time.Sleep(time.Minute) // checkpoints are written
		synctest.Wait()
		const idle = 10 * time.Minute
		out, back, calls := ln.fromServer.Load(), ln.toward.Load(), disk.Load()
		time.Sleep(idle)
		synctest.Wait()
		seconds := int64(idle / time.Second)
		t.Logf("frames from the master %d, from the slave %d, calls of disks %d, in %d s", ln.fromServer.Load()-out, ln.toward.Load()-back, disk.Load()-calls, seconds)
		require.InDelta(t, seconds, ln.fromServer.Load()-out, 5)
		require.InDelta(t, seconds, ln.toward.Load()-back, 5)
		require.Zero(t, disk.Load()-calls)
		m.close()
		s.close()
	})
}

// diskPair is a master and a slave on the disk below TMPDIR, over a loopback socket.
func diskPair(tb testing.TB, mode replication.Mode, flush engine.FlushMode) (m, s *node) {
	onDisk := func(o *Options) {
		o.Mode = mode
		o.Engine = engine.Options{Dir: tb.TempDir(), Flush: flush, SegmentBytes: 64 << 20, IndexDisabled: true}
		o.Engine.Retention.Disabled = true
		o.Heartbeat = time.Second
	}
	m = newNode(tb, "a:0", onDisk)
	m.onDisk = true
	m.open()
	s = newNode(tb, "a:1", both(onDisk, func(o *Options) { o.Slave, o.Master, o.MasterClient = true, m.s.Addr(), m.o.Client }))
	s.onDisk = true
	s.open()
	inSync(tb, m, 1)
	require.NoError(tb, m.s.WaitPrepared(context.Background()))
	return m, s
}

// Proves that what a batch costs in allocations on its whole way, from the append on the master over the socket to the disk of
// the slave and back as an ack, does not grow with the messages in it.
func TestStreamAllocates(t *testing.T) {
	m, s := diskPair(t, replication.Sync, engine.SyncFlush)
	const perBatch, warm, batches = 64, 100, 300
	src := newSender(1).src
	src.MaxBody = 1024
	rec, err := src.AppendRecord(nil, 0, 0, 0)
	require.NoError(t, err)
	var failed atomic.Pointer[error]
	left := make(chan struct{}, perBatch)
	as := make([]*engine.Append, perBatch)
	for i := range as {
		as[i] = &engine.Append{Record: rec, Done: func(a *engine.Append) {
			if a.Err != nil {
				failed.Store(&a.Err)
			}
			left <- struct{}{}
		}}
	}
	run := func(n int) {
		for range n {
			k, err := m.s.SubmitFront(context.Background(), as)
			require.NoError(t, err)
			require.Equal(t, perBatch, k)
			for range perBatch {
				<-left
			}
		}
	}
	run(warm)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	run(batches)
	runtime.ReadMemStats(&after)
	require.Nil(t, failed.Load())
	a := float64(after.Mallocs-before.Mallocs) / batches
	t.Logf("%.1f allocations and %.0f bytes a batch of %d on both nodes, %.3f a message", a, float64(after.TotalAlloc-before.TotalAlloc)/batches, perBatch, a/perBatch)
	require.Less(t, a/perBatch, 0.25, "allocations a message")
	caughtUp(t, m, s)
}

// BenchmarkIdle says what a pair that does nothing costs: percent of one core, of the whole process, both nodes.
func BenchmarkIdle(b *testing.B) {
	diskPair(b, replication.Sync, engine.SyncFlush)
	cpu := func() time.Duration {
		var r syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	began, before := time.Now(), cpu()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(100*float64(cpu()-before)/float64(time.Since(began)), "%-of-a-core")
}
