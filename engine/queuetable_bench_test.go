package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

const benchQueues = 80_000 // 10,000 topics of 8

// benchTable makes a table with many queues on the real file system.
func benchTable(b *testing.B, dir string, queues int, o queueTableOptions) (*queueTable, []*ConsumeQueue) {
	b.Helper()
	o.FS, o.Dir, o.JournalDir, o.FileBytes = vfs.OS, dir+"/consumequeue", dir+"/rmq", 6_000_000
	require.NoError(b, o.FS.MkdirAll(o.Dir, 0o755))
	require.NoError(b, o.FS.MkdirAll(o.JournalDir, 0o755))
	table := newQueueTable(o)
	require.NoError(b, table.load(context.Background()))
	list := make([]*ConsumeQueue, queues)
	for i := range list {
		list[i] = table.get(fmt.Appendf(nil, "topic-%05d", i/8), int32(i%8))
	}
	return table, list
}

func heapMiB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// BenchmarkQueuePut is the cost of one entry, to one queue and to many in random order.
func BenchmarkQueuePut(b *testing.B) {
	for _, queues := range []int{1, benchQueues} {
		b.Run(fmt.Sprintf("queues=%d", queues), func(b *testing.B) {
			table, list := benchTable(b, b.TempDir(), queues, queueTableOptions{})
			order := make([]int32, 1<<20)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range order {
				order[i] = int32(rng.IntN(queues))
			}
			pos := int64(0)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				q := list[order[i&(len(order)-1)]]
				if err := q.put(q.max(), pos, 100, 1); err != nil {
					b.Fatal(err)
				}
				pos += 100
				if table.pendingBytes() > 256<<20 {
					b.StopTimer()
					require.NoError(b, table.reset(context.Background()))
					b.StartTimer()
				}
			}
			b.StopTimer()
			require.NoError(b, table.close())
		})
	}
}

// BenchmarkQueueGet is the cost of finding a queue among many.
func BenchmarkQueueGet(b *testing.B) {
	table, _ := benchTable(b, b.TempDir(), benchQueues, queueTableOptions{})
	topic := []byte("topic-01234")
	for b.Loop() {
		if table.get(topic, 3) == nil {
			b.Fatal("gone")
		}
	}
}

// BenchmarkQueueCheckpoint is one checkpoint of many queues with a dozen new entries each, as a
// gibibyte of log makes them: into the journal, into classic files that are new, and into classic
// files that are there. It also tells the memory, and how long a load takes.
func BenchmarkQueueCheckpoint(b *testing.B) {
	for _, mode := range []string{"journal", "create", "classic"} {
		b.Run(mode, func(b *testing.B) {
			dir := b.TempDir()
			before := heapMiB()
			table, list := benchTable(b, dir, benchQueues, queueTableOptions{PendingBytes: 1 << 30})
			pos := int64(0)
			fill := func() {
				for range 12 {
					for _, q := range list {
						require.NoError(b, q.put(q.max(), pos, 100, 1))
						pos += 100
					}
				}
			}
			ctx := context.Background()
			if mode == "classic" {
				fill()
				require.NoError(b, table.flushClassic(ctx))
			}
			for range b.N {
				b.StopTimer()
				fill()
				if mode != "journal" {
					table.o.DirectEntries = 1
				}
				b.StartTimer()
				require.NoError(b, table.checkpoint(ctx))
				b.StopTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/benchQueues, "µs/queue")
			b.ReportMetric(heapMiB()-before, "MiB")
			b.ReportMetric(float64(table.files.count()), "files")
			require.NoError(b, table.close())
			runtime.KeepAlive(list)
		})
	}
}

// BenchmarkQueueLoad is the load of many queues after a kill, from the journal and from the
// classic files.
func BenchmarkQueueLoad(b *testing.B) {
	dir := b.TempDir()
	table, list := benchTable(b, dir, benchQueues, queueTableOptions{})
	for i := range 24 * benchQueues {
		q := list[i%benchQueues]
		require.NoError(b, q.put(q.max(), int64(i)*100, 100, 1))
	}
	require.NoError(b, table.checkpoint(context.Background()))
	require.NoError(b, table.close())
	b.Run("journal", func(b *testing.B) {
		for range b.N {
			o := table.o
			again := newQueueTable(o)
			require.NoError(b, again.load(context.Background()))
			require.Equal(b, benchQueues, again.count())
			require.EqualValues(b, 24*benchQueues*100, again.maxPos())
			require.NoError(b, again.close())
		}
	})
	b.Run("classic", func(b *testing.B) {
		require.NoError(b, table.flushClassic(context.Background()))
		require.NoError(b, table.close())
		o := table.o
		o.JournalDir, o.Foreign = "", true
		b.ResetTimer()
		for range b.N {
			again := newQueueTable(o)
			require.NoError(b, again.load(context.Background()))
			require.NoError(b, again.recoverEnds(context.Background()))
			require.EqualValues(b, 24*benchQueues*100, again.maxPos())
			require.NoError(b, again.close())
		}
	})
}

// BenchmarkQueueRead is a read of 32 entries, from memory and from a file.
func BenchmarkQueueRead(b *testing.B) {
	for _, where := range []string{"memory", "file"} {
		b.Run(where, func(b *testing.B) {
			table, list := benchTable(b, b.TempDir(), 1, queueTableOptions{})
			for i := range int64(100_000) {
				require.NoError(b, list[0].put(i, i*100, 100, i))
			}
			if where == "file" {
				require.NoError(b, table.checkpoint(context.Background()))
			}
			var dst [32]format.CQEntry
			at := int64(0)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				n, err := list[0].read(at, dst[:])
				if err != nil || n == 0 {
					b.Fatal(n, err)
				}
				at = (at + 7919) % 99_900
			}
			b.StopTimer()
			require.NoError(b, table.close())
		})
	}
}
