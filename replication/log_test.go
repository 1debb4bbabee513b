package replication_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/replication"
)

// Proves that modes are read as they are printed, and that others are refused by name.
func TestParseMode(t *testing.T) {
	for _, m := range []replication.Mode{replication.None, replication.Async, replication.Sync, replication.Raft} {
		got, err := replication.ParseMode(m.String())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	_, err := replication.ParseMode("both")
	require.ErrorContains(t, err, `"both"`)
}

// Proves that whoever is refused by a node that does not lead can tell, and hears who does.
func TestNotLeaderError(t *testing.T) {
	err := fmt.Errorf("append: %w", &replication.NotLeaderError{Leader: "127.0.0.1:30911", Epoch: 3})
	require.ErrorIs(t, err, replication.ErrNotLeader)
	require.ErrorContains(t, err, "127.0.0.1:30911")
	var to *replication.NotLeaderError
	require.ErrorAs(t, err, &to)
	require.Equal(t, int64(3), to.Epoch)
}
