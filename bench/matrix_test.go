package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/results"
)

func testPlan(t *testing.T, f *fakeTarget) Plan {
	t.Helper()
	c1, c2 := testCell(), testCell()
	c2.Flush = "sync"
	return Plan{
		Cells: []results.Cell{c1, c2}, Reps: 3, OutDir: filepath.Join(t.TempDir(), "run"), Drivers: map[string]Driver{"fake": f}, Sleep: time.Sleep,
		Base: Workload{Duration: time.Second, Warmup: 200 * time.Millisecond, Grace: time.Second, Seed: 4, Workers: 1, SegmentBytes: 1 << 20, MaxBytes: 1 << 20},
	}
}

// Shows that every block holds every cell once, in an order that follows from the seed, each part
// from an empty directory of its own, and that nothing but results is left.
func TestRunIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }}
		p := testPlan(t, f)
		st, err := Run(t.Context(), p)
		require.NoError(t, err)
		m, err := st.Manifest()
		require.NoError(t, err)
		require.True(t, m.Complete)
		require.Len(t, m.Order, 3)
		for _, block := range m.Order {
			sorted := append([]int(nil), block...)
			sort.Ints(sorted)
			require.Equal(t, []int{0, 1}, sorted)
		}
		run, err := st.Load()
		require.NoError(t, err)
		for _, c := range run.Cells {
			require.Len(t, c.Reps, 3)
			for _, rep := range c.Reps {
				require.NotNil(t, rep.Closed)
				require.InEpsilon(t, rep.Closed.Throughput.AckedPerS/2, rep.Open.Load.RatePerS, 1e-9)
				require.Equal(t, "50% of closed", rep.Open.Load.RateFrom)
				require.Equal(t, c.Cell.Flush, run.Cells[m.Order[rep.Block][rep.Order]].Cell.Flush, "order is what it says")
			}
		}
		require.NoDirExists(t, filepath.Join(p.OutDir, "data"))

		again, err := Run(t.Context(), testPlan(t, f))
		require.NoError(t, err)
		m2, err := again.Manifest()
		require.NoError(t, err)
		require.Equal(t, m.Order, m2.Order)
	})
}

// Shows that an interrupted run keeps what it measured, says that it is incomplete, and leaves no
// data behind.
func TestRunInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }}
		p := testPlan(t, f)
		p.Progress = func(s Progress) {
			if s.Step == 2 && s.Part == results.PartOpen && s.Phase == results.PhaseMeasure {
				cancel(why)
			}
		}
		st, err := Run(ctx, p)
		require.ErrorIs(t, err, why)
		m, err := st.Manifest()
		require.NoError(t, err)
		require.False(t, m.Complete)
		require.Equal(t, "interrupted", m.Reason)
		run, err := st.Load()
		require.NoError(t, err)
		n := 0
		for _, c := range run.Cells {
			for _, rep := range c.Reps {
				n += len(rep.Parts())
			}
		}
		require.Equal(t, 3, n, "one whole repetition, and the closed part of the next")
		require.NoDirExists(t, filepath.Join(p.OutDir, "data"))
		time.Sleep(time.Second) // in the bubble: let the last completions run
	})
}

// Shows that bad plans are refused before anything is written.
func TestCheckWritesNothing(t *testing.T) {
	f := &fakeTarget{}
	for name, tc := range map[string]struct {
		change func(*Plan)
		want   string
	}{
		"space":  {func(p *Plan) { p.Base.MaxBytes = 1 << 60 }, "lower --max-bytes"},
		"driver": {func(p *Plan) { p.Cells[0].Driver = "wire" }, "--driver=wire is unknown"},
		"twice":  {func(p *Plan) { p.Cells[1] = p.Cells[0] }, "twice"},
		"reps":   {func(p *Plan) { p.Reps = 0 }, "--reps=0"},
		"cell":   {func(p *Plan) { p.Cells[0].Topics = 0 }, "--topics=0"},
		"out":    {func(p *Plan) { p.OutDir = "/proc/nowhere/run" }, "not writable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPlan(t, f)
			tc.change(&p)
			st, err := Run(t.Context(), p)
			var ue *UsageError
			require.ErrorAs(t, err, &ue)
			require.ErrorContains(t, err, tc.want)
			require.Nil(t, st)
			require.NoDirExists(t, p.OutDir)
		})
	}
}

// Shows that a data directory which is somebody's store is left alone.
func TestDataDirIsAStore(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "commitlog"), 0o755))
	p := testPlan(t, &fakeTarget{})
	p.DataDir = dir
	_, err := Run(t.Context(), p)
	require.ErrorContains(t, err, "already holds a store")
	require.NoDirExists(t, p.OutDir)
}

// Shows that of directories made for the stores nothing is left, and that one which was there stays.
func TestDataDirLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := t.TempDir()
		p := testPlan(t, &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }})
		p.Reps, p.DataDir = 1, filepath.Join(there, "a", "b")
		_, err := Run(t.Context(), p)
		require.NoError(t, err)
		left, err := os.ReadDir(there)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}
