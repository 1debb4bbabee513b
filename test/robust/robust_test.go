package robust_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/test/robust"
)

// Proves that docs/ROBUSTNESS.md says what the results say.
func TestReportIsCurrent(t *testing.T) {
	results, err := robust.All("results")
	require.NoError(t, err)
	have, err := os.ReadFile("../../docs/ROBUSTNESS.md")
	require.NoError(t, err)
	require.Equal(t, string(have), robust.Render(results), "run `make generate`")
}

// Proves that every result stands in a cell of the matrix, so that none is left out of the report.
func TestResultsHaveCells(t *testing.T) {
	files, err := filepath.Glob("results/*.json")
	require.NoError(t, err)
	results, err := robust.All("results")
	require.NoError(t, err)
	require.Len(t, results, len(files))
	for _, r := range results {
		if r.Cell != robust.Kills {
			require.NotEqual(t, robust.NoCell, robust.Row(r.Cell).Promise(r.Mode), "%s %s", r.Cell, r.Mode)
		}
	}
}

// Proves that a red cell is shown red with what was found, a skipped one with its reason, and one that was
// not played as such; and that a result is read back as it was saved.
func TestRender(t *testing.T) {
	dir := t.TempDir()
	save := func(r *robust.Result) { require.NoError(t, r.Save(dir)) }
	save(&robust.Result{Cell: "F01", Mode: "nA", Runs: []robust.Run{{Key: 7, Acked: 1234567, RTO: []float64{3, 1, 2}, Strikes: 2}, {Key: 8, Acked: 1}}})
	save(&robust.Result{Cell: "F01", Mode: "nS", Runs: []robust.Run{{Key: 9, Acked: 5, Lost: 1, Why: []string{"1 acknowledged\nmessage is lost"}}}})
	save(&robust.Result{Cell: "F04", Mode: "rS", Skipped: "no such machine"})
	save(&robust.Result{Cell: "F12", Mode: "nA", Runs: []robust.Run{{Key: 1, Acked: 9, Lost: 3, W: robust.Bound{Reported: 4096, Measured: 900}}}})
	save(&robust.Result{Cell: robust.Kills, Mode: "rS", Runs: []robust.Run{{Strikes: 100, Acked: 54321, RTO: []float64{9, 7, 8}}}})
	results, err := robust.All(dir)
	require.NoError(t, err)
	require.Len(t, results, 5)
	text := robust.Render(results)
	for _, want := range []string{
		"| 0: 1,234,568 (0) n=2 | **RED** 0: 5 (1) n=1 | 0: not played |", "- **F01 nS**, key 9: 1 acknowledged message is lost",
		"0: skipped |", "- F04 rS: no such machine", "2, 3 |", "| W: 9 (3) n=1 |", "900 of 4,096", "5 runs, 102 strikes, 1,288,903 acknowledged messages, 1 lost where none may be", "1 runs red",
		"100 times kill -9 in one run", "54,321 acknowledged, 0 lost. Next ack, ms: 8, 9",
	} {
		require.Contains(t, text, want)
	}
}
