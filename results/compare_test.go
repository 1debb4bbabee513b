package results_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/resultstest"
)

func speed(f func(block int) float64) func(results.Cell, int) float64 {
	return func(_ results.Cell, block int) float64 { return f(block) }
}

func compare(t *testing.T, a, b resultstest.Options, opt results.CompareOptions) *results.Comparison {
	t.Helper()
	return results.Compare(load(t, write(t, a)), load(t, write(t, b)), opt)
}

// Proves the exit codes: 1 when the whole interval is below 0.95, 3 when it straddles, 0 when it is
// above.
func TestExitCodes(t *testing.T) {
	one := resultstest.Matrix([]string{"sync"}, []int{1}, []int{64})
	base := resultstest.Options{Cells: one, Reps: 6}
	for name, c := range map[string]struct {
		speed func(int) float64
		want  int
	}{
		"10 % slower":         {func(int) float64 { return 0.90 }, 1},
		"just inside":         {func(int) float64 { return 0.96 }, 0},
		"same":                {func(int) float64 { return 1 }, 0},
		"faster":              {func(int) float64 { return 1.2 }, 0},
		"straddles the bound": {func(b int) float64 { return []float64{0.85, 1.05}[b%2] }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := base
			b.Speed = speed(c.speed)
			cmp := compare(t, base, b, results.CompareOptions{})
			require.Equal(t, c.want, cmp.ExitCode(0.05))
		})
	}
	t.Run("one repetition cannot tell", func(t *testing.T) {
		a := resultstest.Options{Cells: one, Reps: 1}
		require.Equal(t, 3, compare(t, a, a, results.CompareOptions{}).ExitCode(0.05))
	})
	t.Run("one slow cell of two is enough", func(t *testing.T) {
		two := resultstest.Options{Cells: resultstest.Matrix([]string{"sync", "async"}, []int{1}, []int{64}), Reps: 6}
		slow := two
		slow.Speed = func(c results.Cell, _ int) float64 {
			if c.Flush == "async" {
				return 0.8
			}
			return 1.3
		}
		require.Equal(t, 1, compare(t, two, slow, results.CompareOptions{}).ExitCode(0.05))
	})
	t.Run("no common cell", func(t *testing.T) {
		a := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1, 8}, []int{64}), Reps: 2}
		b := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{64, 256}, []int{64}), Reps: 2}
		c := compare(t, a, b, results.CompareOptions{})
		require.Equal(t, 3, c.ExitCode(0.05))
		require.Contains(t, c.Warnings, "no cell is in both runs")
	})
	t.Run("latency decides when asked", func(t *testing.T) {
		b := base
		b.Edit = func(r *results.Rep) { r.Open.Latency.Response.P99 *= 1.5 }
		ms, err := results.ParseMetrics("p99")
		require.NoError(t, err)
		require.Equal(t, 1, compare(t, base, b, results.CompareOptions{Metrics: ms}).ExitCode(0.05))
		require.Equal(t, 0, compare(t, base, b, results.CompareOptions{}).ExitCode(0.05))
	})
}

// Proves that differing options come out by name with both values, and that a factor with one level
// on each side does not keep the cells apart.
func TestDifferingOptionsAndMatching(t *testing.T) {
	a := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1, 8}, []int{64}), Reps: 6}
	b := a
	b.Cells = resultstest.Matrix([]string{"sync"}, []int{1, 8}, []int{64})
	for i := range b.Cells {
		b.Cells[i].Write = "mmap"
	}
	b.Env = func(e *results.Env) { e.Host.Kernel = "6.6.0"; e.Host.Sysctl["vm.dirty_ratio"] = "40" }
	c := compare(t, a, b, results.CompareOptions{})
	require.Equal(t, []results.Difference{{Name: "write", A: "pwrite", B: "mmap"}, {Name: "kernel", A: "6.18.5", B: "6.6.0"}, {Name: "vm.dirty_ratio", A: "20", B: "40"}}, c.Differ)
	require.Len(t, c.Cells, 6, "two cells in three metrics")
	require.Equal(t, "topics 1", c.Cells[0].Name)
	require.Equal(t, results.Slower, c.Cells[0].Ratio.Verdict)
	require.True(t, c.Cells[0].Ratio.Paired)
	require.InDelta(t, 0.58, c.Summary["tput"], 0.02)
	require.Equal(t, 1, c.ExitCode(0.05))
}

// Proves that numbers of different durability classes are never set against each other.
func TestClassesAreNotRanked(t *testing.T) {
	a := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1}, []int{64}), Reps: 6}
	b := a
	b.Env = func(e *results.Env) { e.Disk.FSType = "tmpfs" }
	c := compare(t, a, b, results.CompareOptions{})
	for _, x := range c.Cells {
		require.Equal(t, results.NotComparable, x.Ratio.Verdict)
		require.Contains(t, x.Warnings[0], "D1 against D1a")
	}
	require.Empty(t, c.Summary)
	require.Equal(t, 3, c.ExitCode(0.05))
}

// Proves that an invalid repetition takes no part and is told, and that a cell without a valid one
// cannot be compared.
func TestInvalidRepetitionsStayOut(t *testing.T) {
	a := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1}, []int{64}), Reps: 6}
	b := a
	b.Edit = func(r *results.Rep) {
		if r.Block == 2 {
			r.Closed.Throughput.AckedPerS /= 100
			r.Closed.Resources.SwapInOut = results.Ptr(int64(9))
		}
	}
	c := compare(t, a, b, results.CompareOptions{})
	require.Equal(t, results.Same, c.Cells[0].Ratio.Verdict)
	require.Equal(t, 5, c.Cells[0].Ratio.N)
	require.Contains(t, c.Cells[0].Warnings, "1 of 6 repetitions left out: swap")

	b.Edit = func(r *results.Rep) { r.Closed.Verify.Lost = 1 }
	c = compare(t, a, b, results.CompareOptions{})
	require.Equal(t, results.NotComparable, c.Cells[0].Ratio.Verdict)
	require.Contains(t, c.Cells[0].Warnings[0], "no valid repetition in B: verify")
}

// Proves that another seed makes the comparison unpaired and says so, and what else is warned of.
func TestWarnings(t *testing.T) {
	a := resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1, 8, 64}, []int{64}), Reps: 3, Label: "smoke"}
	b := a
	b.Seed, b.Label = 4, ""
	b.Manifest = func(m *results.Manifest) {
		m.Complete, m.Reason = false, "interrupted"
		m.Started, m.Ended = m.Started.AddDate(0, 0, 1), m.Ended.AddDate(0, 0, 1)
	}
	b.Env = func(e *results.Env) { e.Toolchain.Dirty = true }
	c := compare(t, a, b, results.CompareOptions{})
	for _, want := range []string{
		"blocks do not match (another seed, order or matrix): compared unpaired, wider intervals",
		"A is a smoke run: too short to judge by",
		"B is incomplete: interrupted",
		"B was built from changed sources",
		"measured 24h0m0s apart: drift of the machine does not cancel",
	} {
		require.Contains(t, c.Warnings, want)
	}
	require.False(t, c.Cells[0].Ratio.Paired)
}

// Proves that an unknown metric is refused with the list of known ones.
func TestParseMetrics(t *testing.T) {
	_, err := results.ParseMetrics("tput,p95")
	require.EqualError(t, err, `metric "p95": want one of tput, p50, p99, p99.9`)
	ms, err := results.ParseMetrics("tput, p99")
	require.NoError(t, err)
	require.Len(t, ms, 2)
}

// Proves that effects within one run are paired by block, oriented, and marked where the sides
// promise different things.
func TestEffects(t *testing.T) {
	cells := resultstest.Matrix([]string{"async", "sync"}, []int{1, 256}, []int{64})
	r := load(t, write(t, resultstest.Options{Cells: cells, Reps: 6}))
	tput, err := results.MetricByName("tput")
	require.NoError(t, err)
	es := r.Effects(r.Summarize(), tput, 0.03)
	require.Len(t, es, 4, "two factors, one step each, at two levels of the other")
	byName := map[string]*results.Effect{}
	for _, e := range es {
		byName[e.Factor+"|"+e.Where] = e
	}
	flush := byName["flush|topics 1"]
	require.NotNil(t, flush)
	require.Equal(t, "sync", flush.To)
	require.False(t, flush.SameClass())
	require.Less(t, flush.Ratio.Value, 0.5)
	topics := byName["topics|flush sync"]
	require.NotNil(t, topics)
	require.True(t, topics.SameClass())
	require.InDelta(t, 0.904, topics.Ratio.Value, 0.03)

	main := results.MainEffects(es)
	require.Len(t, main, 3, "flush over both topic counts; topics within D1a and within D1")
	require.Equal(t, 2, main[0].Cells)
	require.Equal(t, "flush", main[0].Factor)
	require.LessOrEqual(t, main[0].Least, main[0].Ratio.Value)
	require.GreaterOrEqual(t, main[0].Most, main[0].Ratio.Value)
	require.Equal(t, 6, main[0].Ratio.N, "one pair a block, however many cells")
	require.Equal(t, results.ClassD1a, main[1].ToSide)
	require.Equal(t, results.ClassD1, main[2].ToSide)
}
