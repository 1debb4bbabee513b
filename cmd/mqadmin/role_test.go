package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/replication"
)

// Proves what clusterList calls a broker: by what it says of itself, and one that says nothing by its number.
func TestRoleOf(t *testing.T) {
	for _, c := range []struct {
		id         int64
		mode, role string
		want       string
	}{
		{0, "", "", "master"},
		{1, "", "", "slave"},
		{0, "none", "leader", "master"},
		{0, "async", "leader", "master"},
		{0, "sync", "read-only", "read-only"},
		{2, "async", "follower", "slave"},
		{0, "async", "follower", "slave"}, // another was promoted in its place
		{0, "raft", "leader", "leader"},
		{1, "raft", "follower", "follower"},
		{1, "raft", "read-only", "read-only"},
	} {
		info := map[string]string{"replicationMode": c.mode, "replicationRole": c.role, "replicationEpoch": "7"}
		mode, role, st := roleOf(brokerAt{id: c.id}, info)
		require.Equal(t, []string{c.mode, c.want}, []string{mode, role}, "%+v", c)
		if c.mode != "" {
			require.EqualValues(t, 7, st.Epoch)
		} else {
			require.Equal(t, replication.Status{}, st)
		}
	}
}
