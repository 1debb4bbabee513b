package embedded_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/bench"
	"rmq/bench/driver/embedded"
	"rmq/engine"
	"rmq/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func smallPlan(t *testing.T, cells []results.Cell, change func(*engine.Options)) bench.Plan {
	t.Helper()
	return bench.Plan{
		Cells: cells, Reps: 1, OutDir: filepath.Join(t.TempDir(), "run"),
		Base: bench.Workload{
			Duration: 3 * time.Second, Warmup: 50 * time.Millisecond, Grace: 10 * time.Second, Seed: 3, Workers: 1,
			MaxBytes: 8 << 20, SegmentBytes: 1 << 20, Tags: true, Keys: true,
		},
		Drivers: map[string]bench.Driver{"embedded": embedded.Driver{Options: func(o *engine.Options) {
			o.QueueFileBytes, o.MaxHashSlots, o.MaxIndexEntries = 6000, 1000, 4000
			if change != nil {
				change(o)
			}
		}}},
	}
}

func cellOf(flush, write string) results.Cell {
	return results.Cell{
		Driver: "embedded", Flush: flush, Repl: "none", Write: write, Topics: 5, Queues: 3, SizeBytes: 512, Producers: 16, Window: 2,
		Arrival: "uniform", Keys: "zipf:0.99", Entropy: 1,
	}
}

// Shows for every flush and write mode that a run over real files, rolls included, reads back
// exactly what was acknowledged, by queue offset and by scan, and leaves nothing on the disk.
func TestEmbeddedRun(t *testing.T) {
	var cells []results.Cell
	for _, flush := range bench.Flushes {
		for _, write := range bench.Writes {
			cells = append(cells, cellOf(flush, write))
		}
	}
	p := smallPlan(t, cells, nil)
	st, err := bench.Run(t.Context(), p)
	require.NoError(t, err)
	run, err := st.Load()
	require.NoError(t, err)
	for _, c := range run.Cells {
		for _, r := range c.Reps[0].Parts() {
			name := fmt.Sprintf("%s %s", c.Cell.ID(), r.Part)
			require.NotNil(t, r.Verify, name)
			require.True(t, r.Verify.OK(), "%s: %+v", name, r.Verify)
			require.GreaterOrEqual(t, r.Verify.Acked, r.Counts.Acked, name)
			// What was stored but whose answer came after the grace counts as unfinished, not as acked.
			require.GreaterOrEqual(t, r.Verify.ByQueue, r.Verify.Acked, name)
			require.Equal(t, r.Verify.ByQueue, r.Verify.Acked+r.Verify.Unacked, name)
			require.Positive(t, r.Resources.LogBytes, name)
			require.Zero(t, r.Counts.FailedTotal(), name)
			rolls := 0
			for _, e := range r.Events {
				if e.Kind == results.EventRoll {
					rolls++
				}
			}
			require.Positive(t, rolls, name)
			if c.Cell.Flush == "sync" {
				require.Positive(t, *r.Resources.EngineFlushes, name)
			}
		}
	}
	require.NoDirExists(t, filepath.Join(p.OutDir, "data"))
}

// Shows that a store in which one bit turned behind our back makes the run invalid, with the number
// of messages lost in it.
func TestLossIsFound(t *testing.T) {
	cell := cellOf("async", "pwrite")
	cell.Rate = "20000"
	p := smallPlan(t, []results.Cell{cell}, nil)
	p.Keep, p.DataDir = true, t.TempDir()
	d := p.Drivers["embedded"]
	p.Drivers["embedded"] = breaking{d}
	st, err := bench.Run(t.Context(), p)
	require.NoError(t, err)
	run, err := st.Load()
	require.NoError(t, err)
	r := run.Cells[0].Reps[0].Open
	require.False(t, r.Verify.OK())
	require.Positive(t, r.Verify.Lost, "%+v", r.Verify)
	require.False(t, r.Valid)
}

// breaking damages one stored body before the store is verified.
type breaking struct{ bench.Driver }

func (b breaking) Open(ctx context.Context, c bench.Config) (bench.Session, error) {
	s, err := b.Driver.Open(ctx, c)
	return &breakingSession{s, c.Dir}, err
}

type breakingSession struct {
	bench.Session
	dir string
}

// Verify turns one byte in the middle of the first segment.
func (b *breakingSession) Verify(ctx context.Context, a *bench.Auditor) error {
	if err := b.Close(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(b.dir, "commitlog", "00000000000000000000"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var c [1]byte
	if _, err := f.ReadAt(c[:], 1<<19); err != nil {
		return err
	}
	c[0] ^= 1
	if _, err := f.WriteAt(c[:], 1<<19); err != nil {
		return err
	}
	return b.Session.Verify(ctx, a)
}

// Shows that a store in use is refused with the process that holds it.
func TestStoreInUse(t *testing.T) {
	dir := t.TempDir()
	s, err := engine.Open(t.Context(), engine.Options{Dir: dir, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	p := smallPlan(t, []results.Cell{cellOf("async", "pwrite")}, nil)
	p.DataDir = dir
	_, err = bench.Run(t.Context(), p)
	require.ErrorContains(t, err, fmt.Sprintf("in use by process %d", os.Getpid()))
	require.NoDirExists(t, p.OutDir)
}
