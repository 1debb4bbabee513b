package ha

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/replication"
)

// BenchmarkAsync appends messages of about 1 KiB to a master whose slave follows over a loopback socket, both on the disk
// below TMPDIR. It prints MB/s of log and the mean of each hop; what the slave lacks at the end is awaited in the time.
func BenchmarkAsync(b *testing.B) { benchModes(b, replication.Async) }

// BenchmarkSync is BenchmarkAsync with acks that wait for the slave.
func BenchmarkSync(b *testing.B) { benchModes(b, replication.Sync) }

func benchModes(b *testing.B, mode replication.Mode) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		for _, vector := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("flush=%v/vector=%d", flush, vector), func(b *testing.B) { benchPair(b, mode, flush, vector) })
		}
	}
}

func benchPair(b *testing.B, mode replication.Mode, flush engine.FlushMode, vector int) {
	onDisk := func(o *Options) {
		o.Mode = mode
		o.Engine = engine.Options{Dir: b.TempDir(), Flush: flush, SegmentBytes: 256 << 20, IndexDisabled: true}
		o.Engine.Retention.Disabled = true
	}
	m := newNode(b, "a:0", onDisk)
	m.onDisk = true
	m.open()
	s := newNode(b, "a:1", both(onDisk, func(o *Options) { o.Slave, o.Master, o.MasterClient = true, m.s.Addr(), m.o.Client }))
	s.onDisk = true
	s.open()
	inSync(b, m, 1)
	require.NoError(b, m.s.WaitPrepared(b.Context()))

	const inFlight = 4096
	src := newSender(1).src
	src.MaxBody = 1024
	rec, err := src.AppendRecord(nil, 0, 0, 0)
	require.NoError(b, err)
	free := make(chan *engine.Append, inFlight)
	var failed atomic.Pointer[error]
	for range inFlight {
		free <- &engine.Append{Record: rec, Done: func(a *engine.Append) {
			if a.Err != nil {
				failed.Store(&a.Err)
			}
			free <- a
		}}
	}
	before := m.s.Hops()
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	b.ResetTimer()
	as := make([]*engine.Append, 0, vector)
	for sent := 0; sent < b.N; sent += len(as) {
		as = as[:0]
		for len(as) < min(vector, b.N-sent) {
			as = append(as, <-free)
		}
		n, err := m.s.SubmitFront(b.Context(), as)
		require.NoError(b, err)
		require.Len(b, as, n)
	}
	for range inFlight {
		<-free
	}
	caughtUp(b, m, s)
	b.StopTimer()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	m.s.Hops().Sub(before).Each(func(name string, h replication.Hop) {
		b.ReportMetric(float64(h.Mean().Microseconds()), name+"-µs")
	})
}
