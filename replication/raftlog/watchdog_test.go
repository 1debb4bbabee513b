package raftlog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proves that the time for which a disk hangs is counted from the last sync that went on, or from when there was something
// to sync, and that a process which was stopped for an hour does not blame the disk for it.
func TestStall(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newStall(time.Second, now)
	look := func(after time.Duration, flushed, written int64) time.Duration {
		now = now.Add(after)
		return s.look(now, flushed, written)
	}
	require.Zero(t, look(time.Second, 5, 5))
	require.Equal(t, time.Second, look(time.Second, 5, 9))
	require.Equal(t, 2*time.Second, look(time.Second, 5, 9))
	require.Equal(t, 3*time.Second, look(time.Hour, 5, 9), "it was stopped")
	require.Equal(t, 4*time.Second, look(time.Second, 5, 12))
	require.Zero(t, look(time.Second, 6, 12), "it goes on")
	require.Equal(t, time.Second, look(time.Second, 6, 12))
	require.Zero(t, look(time.Second, 12, 12))
}
