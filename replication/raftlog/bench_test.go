package raftlog

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/replication"
)

// BenchmarkCluster appends messages of 1 KiB to three nodes of one process, over loopback sockets and the
// disk below TMPDIR, as fast as the window lets in. It prints payload MB/s and the mean of each hop.
func BenchmarkCluster(b *testing.B) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		for _, vector := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("flush=%v/vector=%d", flush, vector), func(b *testing.B) { benchCluster(b, flush, vector) })
		}
	}
}

func benchCluster(b *testing.B, flush engine.FlushMode, vector int) {
	lead := benchNodes(b, flush)
	const inFlight = 4096
	rec := record("bench", 0, make([]byte, 1024))
	free := make(chan *engine.Append, inFlight)
	var failed sync.Map
	for range inFlight {
		a := &engine.Append{Record: append([]byte(nil), rec...)}
		a.Done = func(a *engine.Append) {
			if a.Err != nil {
				failed.Store("error", a.Err)
			}
			free <- a
		}
		free <- a
	}
	before := lead.Hops()
	b.SetBytes(1024)
	b.ReportAllocs()
	b.ResetTimer()
	as := make([]*engine.Append, 0, vector)
	for sent := 0; sent < b.N; {
		as = as[:0]
		for len(as) < min(vector, b.N-sent) {
			as = append(as, <-free)
		}
		n, err := lead.SubmitFront(b.Context(), as)
		require.NoError(b, err)
		sent += n
	}
	for range inFlight {
		<-free
	}
	b.StopTimer()
	if err, ok := failed.Load("error"); ok {
		b.Fatal(err)
	}
	lead.Hops().Sub(before).Each(func(name string, h replication.Hop) {
		b.ReportMetric(float64(h.Mean().Microseconds()), name+"-µs")
	})
}

// benchNodes opens a group on disk and gives its leader.
func benchNodes(b *testing.B, flush engine.FlushMode) *Node {
	const size = 3
	peers := map[string]string{}
	lns := map[string]net.Listener{}
	for i := range size {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		id := fmt.Sprintf("n%d", i)
		peers[id], lns[id] = ln.Addr().String(), ln
	}
	leads := make(chan string, 16)
	nodes := map[string]*Node{}
	for id, ln := range lns {
		o := Options{Group: "g", SelfID: id, Peers: peers, Listener: ln, Engine: engine.Options{
			Dir: b.TempDir(), Flush: flush, SegmentBytes: 256 << 20, IndexDisabled: true,
		}}
		o.Engine.Retention.Disabled = true
		o.Events.Role = func(st replication.Status) {
			if st.Role == replication.Leader {
				leads <- id
			}
		}
		n, err := Open(context.Background(), o)
		require.NoError(b, err)
		nodes[id] = n
		b.Cleanup(func() { require.NoError(b, n.Close()) })
	}
	lead := nodes[<-leads]
	require.NoError(b, lead.WaitPrepared(b.Context()))
	return lead
}
