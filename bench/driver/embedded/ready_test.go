package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/bench"
	"rmq/results"
)

// Proves that the log alone, fed with ready batches, keeps what it acknowledges on every node, that it is all readable
// from the queues once the store is opened again, and that other drivers and more topics are refused by name.
func TestLogOnly(t *testing.T) {
	var cells []results.Cell
	for _, repl := range bench.Repls {
		c := cellOf("async", "pwrite")
		c.Repl, c.Rate, c.Topics, c.Keys, c.Window = repl, "max", 1, "uniform", 16
		c.Extra = map[string]string{"path": bench.PathLog}
		cells = append(cells, c)
	}
	st, err := bench.Run(t.Context(), smallPlan(t, cells, nil))
	require.NoError(t, err)
	run, err := st.Load()
	require.NoError(t, err)
	for _, c := range run.Cells {
		r := c.Reps[0].Closed
		name := c.Cell.ID()
		require.Positive(t, r.Counts.Acked, name)
		require.Zero(t, r.Counts.FailedTotal(), "%s: %v", name, r.Counts.Failed)
		require.True(t, r.Verify.OK(), "%s: %+v", name, r.Verify)
		require.GreaterOrEqual(t, r.Verify.Acked, r.Counts.Acked, name)
		require.Equal(t, r.Verify.ByQueue, r.Verify.Acked+r.Verify.Unacked, name)
	}

	p := smallPlan(t, cells[:1], nil)
	p.Cells[0].Topics, p.Cells[0].Driver = 2, "null"
	_, err = bench.Run(t.Context(), p)
	require.ErrorContains(t, err, "--topics=1")
	require.ErrorContains(t, err, "--driver=embedded")
}
