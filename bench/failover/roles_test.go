package failover

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proves that the stages of an event are read from what brokers print: what the node that was struck says of leaders does not
// count as noticed, nor anything that came before.
func TestRoles(t *testing.T) {
	at := time.Date(2026, 11, 28, 5, 37, 35, 700_500_000, time.UTC)
	var r roleTimes
	for i, line := range strings.Split(`time=2026-11-28T05:37:35.600Z level=INFO msg=role mode=raft role=leader epoch=5 leader=n0#1 leaderAddr=127.0.0.1:1 why=""
time=2026-11-28T05:37:35.710Z level=INFO msg=role mode=raft role=read-only epoch=5 leader="" leaderAddr="" why="an election is running: no leader is known"
time=2026-11-28T05:37:35.787Z level=WARN msg="raft peer cannot be reached" peer=n0#1 error="role=leader"
time=2026-11-28T05:37:35.795Z level=INFO msg=role mode=raft role=read-only epoch=5 leader="" leaderAddr="" why="an election is running: no leader is known"
time=2026-11-28T05:37:35.828Z level=INFO msg=role mode=raft role=read-only epoch=6 leader=n2#1 leaderAddr=127.0.0.1:2 why="this node has just been elected"
time=2026-11-28T05:37:35.838Z level=INFO msg=role mode=raft role=leader epoch=6 leader=n2#1 leaderAddr=127.0.0.1:2 why=""
time=2026-11-28T05:37:36.838Z level=INFO msg=role mode=raft role=leader epoch=7 leader=n2#1 leaderAddr=127.0.0.1:2 why=""
stopped`, "\n") {
		r.take(line, i == 1, at)
	}
	require.Equal(t, "35.795", r.noticed.Format("05.000"))
	require.Equal(t, "35.838", r.led.Format("05.000"))
}
