package vfs_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// Proves that rules in text mean what they say, and that mistakes are told with the line.
func TestParseRules(t *testing.T) {
	rules, err := vfs.ParseRules("# a comment\n\nsync *commitlog* nth=2 onward err=EIO short=3\nwrite * delay=20ms\n")
	require.NoError(t, err)
	require.Equal(t, []vfs.Rule{
		{Op: vfs.OpSync, Match: "*commitlog*", Nth: 2, Onward: true, Err: syscall.EIO, Short: 3},
		{Op: vfs.OpWrite, Match: "*", Delay: 20 * time.Millisecond},
	}, rules)
	f := vfs.NewFaulty(vfs.NewHeap(), rules...)
	file, err := f.OpenFile("/commitlog", os.O_CREATE|os.O_RDWR, 0o644)
	require.NoError(t, err)
	defer file.Close()
	began := time.Now()
	_, err = file.WriteAt([]byte("x"), 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 20*time.Millisecond)
	require.NoError(t, file.Sync())
	require.ErrorIs(t, file.Sync(), syscall.EIO)
	require.ErrorIs(t, file.Sync(), syscall.EIO)
	for text, want := range map[string]string{
		"nonsense *": "begin with one of", "sync": "pattern", "sync * err=EPERM": "use EIO", "sync * nth=x": "sync * nth=x", "sync * what": "use nth",
	} {
		_, err := vfs.ParseRules(text)
		require.ErrorContains(t, err, want)
	}
}
