package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/bench"
	"rmq/results"
)

// Proves for every replication and flush mode that what nodes in one process acknowledge is in the log of whoever led,
// that the replicas hold it too, and that the result says what class it is of and how far the nodes were.
func TestReplicas(t *testing.T) {
	var cells []results.Cell
	for _, flush := range bench.Flushes {
		for _, repl := range []string{"async", "sync", "raft"} {
			c := cellOf(flush, "pwrite")
			c.Repl, c.Rate = repl, "max"
			cells = append(cells, c)
		}
	}
	st, err := bench.Run(t.Context(), smallPlan(t, cells, nil))
	require.NoError(t, err)
	run, err := st.Load()
	require.NoError(t, err)
	classes := map[results.Class]bool{}
	for _, c := range run.Cells {
		r := c.Reps[0].Closed
		name := c.Cell.ID()
		require.Positive(t, r.Counts.Acked, name)
		require.Zero(t, r.Counts.FailedTotal(), "%s: %v", name, r.Counts.Failed)
		require.NotNil(t, r.Verify, name)
		require.True(t, r.Verify.OK(), "%s: %+v", name, r.Verify)
		require.NotNil(t, r.Replication, name)
		nodes := 2
		if c.Cell.Repl == "raft" {
			nodes = 3
		}
		require.Len(t, r.Replication.Nodes, nodes, name)
		for _, n := range r.Replication.Nodes {
			require.Positive(t, n.LogBytes, "%s %s", name, n.ID)
		}
		require.Equal(t, c.Cell.Repl == "async", r.Replication.ClockS > 0, "the clock runs until an asynchronous slave has everything")
		classes[r.Class] = true
	}
	require.Len(t, classes, 6)
}
