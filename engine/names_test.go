package engine

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// TestNamesThatAreNoDirectories proves that a topic or queue number that cannot name a directory is
// refused before anything is written, so that nothing is acked that no consumer could ever get and
// nothing is written outside the store; and that the store goes on.
func TestNamesThatAreNoDirectories(t *testing.T) {
	ctx := context.Background()
	h := vfs.NewHeap()
	s := open(t, small(h, "/s"))
	for _, topic := range []string{"..", ".", "../evil", "a/b", "/abs", "a\x00b"} {
		_, err := s.Append(ctx, record(topic, 0, nil, "k"))
		require.ErrorIs(t, err, ErrUnsupported, "topic %q", topic)
	}
	_, err := s.Append(ctx, record("T", -1, nil, "k"))
	require.ErrorIs(t, err, ErrUnsupported)
	require.Zero(t, s.Appended())
	all := fill(t, s, 1, 20)
	_, err = s.Append(ctx, record(strings.Repeat("t", 127), 1<<30, nil, "k"))
	require.NoError(t, err)
	check(t, s, all)
	require.NoError(t, s.Close())
	entries, err := h.ReadDir("/")
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
