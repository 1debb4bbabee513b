package wire_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/bench/driver/wire"
	"rmq/remoting"
	"rmq/replication"
)

// BenchmarkCatchUp is how fast a replica catches up that was away while 1 GiB was written, with writers at 30 % of what they
// can do: MB/s of log that reach it and that are written meanwhile, and their ratio. Real processes, 1 KiB bodies.
func BenchmarkCatchUp(b *testing.B) {
	for _, repl := range []string{"async", "sync", "raft"} {
		b.Run("repl="+repl, func(b *testing.B) {
			for b.Loop() {
				catchUp(b, repl)
			}
		})
	}
}

const mib = 1 << 20

func catchUp(b *testing.B, repl string) {
	cl := replicas(b, repl)
	leader, err := cl.Leader(b.Context())
	require.NoError(b, err)
	away := cl.Nodes[0]
	if away == leader {
		away = cl.Nodes[1]
	}
	net := newClient(b)
	defer func() { require.NoError(b, net.Close()) }()
	c, err := net.Dial(b.Context(), leader.Addr)
	require.NoError(b, err)

	began, from := time.Now(), written(b, cl, leader)
	write(b.Context(), b, c, 0, 200_000)
	most := 200_000 / time.Since(began).Seconds()
	away.Kill()
	each := (written(b, cl, leader) - from) / 200_000
	write(b.Context(), b, c, 0, 1<<30/each)

	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		write(ctx, b, c, 0.3*most, 1<<40)
	}()
	defer func() { stop(); <-ended }()
	require.NoError(b, cl.StartNode(b.Context(), away))
	var first, now replication.Status
	var met time.Time
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		require.True(b, time.Now().Before(end), "it does not catch up: %+v", now.Peers)
		var ok bool
		if now, _, ok = cl.Status(b.Context(), leader); !ok {
			continue
		}
		p := of(now, away.Peer)
		if met.IsZero() && p.Quiet >= 0 && p.Written > 0 {
			first, met = now, time.Now()
		}
		if !met.IsZero() && p.InSync && now.Written-p.Written < mib {
			break
		}
	}
	took := time.Since(met).Seconds()
	got := float64(of(now, away.Peer).Written-of(first, away.Peer).Written) / took / mib
	wrote := float64(now.Written-first.Written) / took / mib
	b.ReportMetric(float64(first.Written-of(first, away.Peer).Written)/mib, "behind-MB")
	b.ReportMetric(got, "catch-up-MB/s")
	b.ReportMetric(wrote, "written-MB/s")
	b.ReportMetric(got/wrote, "ratio")
}

// BenchmarkIdleReplica is what each process of a replicated broker takes while nothing is sent, in percent of a core.
func BenchmarkIdleReplica(b *testing.B) {
	for _, repl := range []string{"async", "sync", "raft"} {
		b.Run("repl="+repl, func(b *testing.B) {
			cl := replicas(b, repl)
			leader, err := cl.Leader(b.Context())
			require.NoError(b, err)
			for b.Loop() {
				const long = 10 * time.Second
				before := make([]float64, len(cl.Nodes))
				for i, n := range cl.Nodes {
					before[i] = cpuSeconds(b, n.PID())
				}
				time.Sleep(long)
				for i, n := range cl.Nodes {
					name := "replica-%"
					if n == leader {
						name = "leader-%"
					}
					b.ReportMetric(100*(cpuSeconds(b, n.PID())-before[i])/long.Seconds(), name)
				}
			}
		})
	}
}

// replicas starts brokers that are ended with the benchmark.
func replicas(b *testing.B, repl string) *wire.Cluster {
	b.Helper()
	cl, err := wire.Start(b.Context(), wire.Driver{BinDir: programs}, b.TempDir(), wire.Spec{Flush: "async", Write: "pwrite", Repl: repl})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, cl.Stop()) })
	return cl
}

// of is what a node says of the peer at addr.
func of(s replication.Status, addr string) replication.Peer {
	for _, p := range s.Peers {
		if p.Addr == addr {
			return p
		}
	}
	return replication.Peer{Quiet: -1}
}

func written(b *testing.B, cl *wire.Cluster, n *wire.Node) int64 {
	b.Helper()
	s, _, ok := cl.Status(b.Context(), n)
	require.True(b, ok)
	return s.Written
}

// cpuSeconds is what a process has used.
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	used := wire.Process(pid).CPUNanos
	require.NotNil(b, used)
	return float64(*used) / 1e9
}

// write sends n messages of 1 KiB, 256 in flight, at a rate a second or as fast as it goes, until ctx ends. What its answers
// say counts for nothing: a dual write without its slave says so.
func write(ctx context.Context, b *testing.B, c *remoting.Conn, rate float64, n int64) {
	const window, burst = 256, 64
	slots := make(chan struct{}, window)
	var failed atomic.Pointer[error]
	body := make([]byte, 1024)
	began := time.Now()
	for i := range n {
		if rate > 0 && i%burst == 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / rate * 1e9))))
		}
		if ctx.Err() != nil || failed.Load() != nil {
			break
		}
		slots <- struct{}{}
		if err := c.Start(&remoting.Call{Request: sendTo("Cold", int32(i%4), body), Done: func(call *remoting.Call) {
			if call.Err != nil {
				failed.Store(&call.Err)
			}
			<-slots
		}}); err != nil {
			failed.Store(&err)
			<-slots
		}
	}
	for range window {
		slots <- struct{}{}
	}
	if err := failed.Load(); err != nil {
		b.Errorf("write: %v", *err)
	}
}
