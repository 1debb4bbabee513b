package null_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/bench"
	"rmq/bench/driver/null"
	"rmq/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Shows that the harness runs from end to end with nothing behind it: what was due is acknowledged,
// nothing is verified, and the class says that nothing is stored.
func TestNullRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cell := results.Cell{Driver: "null", Flush: "async", Repl: "none", Write: "pwrite", Topics: 4, Queues: 2, SizeBytes: 256, Producers: 4, Window: 2,
			Arrival: "poisson", Keys: "uniform", Entropy: 1, Rate: "5000"}
		st, err := bench.Run(t.Context(), bench.Plan{
			Cells: []results.Cell{cell}, Reps: 1, OutDir: filepath.Join(t.TempDir(), "run"), Sleep: time.Sleep,
			Base:    bench.Workload{Duration: time.Second, Warmup: 100 * time.Millisecond, Grace: time.Second, Seed: 2, Workers: 2},
			Drivers: map[string]bench.Driver{"null": null.Driver{}},
		})
		require.NoError(t, err)
		run, err := st.Load()
		require.NoError(t, err)
		rep := run.Cells[0].Reps[0]
		require.Nil(t, rep.Closed)
		r := rep.Open
		require.InEpsilon(t, 5000, float64(r.Counts.Due), 0.05)
		require.Equal(t, r.Counts.Due, r.Counts.Acked)
		require.Nil(t, r.Verify)
		require.Equal(t, results.ClassD0, r.Class)
	})
}

// BenchmarkHarness is the most that the harness can do by itself: payloads, schedule, recording.
func BenchmarkHarness(b *testing.B) {
	cell := results.Cell{Driver: "null", Flush: "async", Repl: "none", Write: "pwrite", Topics: 1, Queues: 8, SizeBytes: 1024, Producers: 64, Window: 1,
		Arrival: "uniform", Keys: "uniform", Entropy: 1, Rate: "max"}
	b.ReportAllocs()
	var acked, cpu, allocs float64
	n := 0
	for b.Loop() {
		st, err := bench.Run(b.Context(), bench.Plan{
			Cells: []results.Cell{cell}, Reps: 1, OutDir: filepath.Join(b.TempDir(), "run"),
			Base:    bench.Workload{Duration: 500 * time.Millisecond, Warmup: 100 * time.Millisecond, Grace: time.Second, Seed: 2, Workers: 1},
			Drivers: map[string]bench.Driver{"null": null.Driver{}},
		})
		require.NoError(b, err)
		run, err := st.Load()
		require.NoError(b, err)
		r := run.Cells[0].Reps[0].Closed
		acked += r.Throughput.AckedPerS
		cpu += *r.Resources.ProcCPUS / float64(r.Counts.Acked)
		allocs += float64(r.Resources.Allocs) / float64(r.Counts.Acked)
		n++
	}
	b.ReportMetric(acked/float64(n), "msg/s")
	b.ReportMetric(1e5*cpu/float64(n), "cores/100kmsg/s")
	b.ReportMetric(allocs/float64(n), "allocs/msg")
}
