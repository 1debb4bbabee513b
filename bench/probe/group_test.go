package probe

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func openTestFile(t *testing.T) file {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	return file{fd, path}
}

// Proves that the ceiling is honest: every record that was acked lies in the file, once, and the
// counts of the committer agree with the acks.
func TestGroupCommitWritesWhatItAcks(t *testing.T) {
	const producers, each = 16, 40
	f := openTestFile(t)
	defer f.close()
	g := newGroupCommit(f, roundUp(producers*each*recordBytes), producers)
	stop, done := make(chan struct{}), make(chan error)
	go func() { done <- g.commit(stop) }()
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			rec := make([]byte, recordBytes)
			for i := range each {
				binary.BigEndian.PutUint64(rec, uint64(p*each+i+1))
				if err := g.append(rec); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	require.NoError(t, <-done)
	require.EqualValues(t, producers*each, g.records)
	require.LessOrEqual(t, g.flushes, g.records)
	require.Equal(t, g.flushes, g.busy.n)
	got := make([]byte, producers*each*recordBytes)
	require.NoError(t, f.read(got, 0))
	seen := make(map[uint64]bool)
	for rec := range slices.Chunk(got, recordBytes) {
		id := binary.BigEndian.Uint64(rec)
		require.False(t, id == 0 || id > producers*each || seen[id], "record %d", id)
		seen[id] = true
	}
}

// Proves that the file is used again from its start when it is full, and never grows.
func TestGroupCommitWraps(t *testing.T) {
	f := openTestFile(t)
	defer f.close()
	const size = 8 * pageBytes
	g := newGroupCommit(f, size, 1)
	stop, done := make(chan struct{}), make(chan error)
	go func() { done <- g.commit(stop) }()
	rec := make([]byte, recordBytes)
	for range 5 * size / recordBytes {
		require.NoError(t, g.append(rec))
	}
	close(stop)
	require.NoError(t, <-done)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(f.fd, &st))
	require.LessOrEqual(t, st.Size, int64(size))
}

// Proves that a write error reaches every producer that waits and every later one, so that a
// dying disk ends the probe instead of hanging it.
func TestGroupCommitFailsEverybody(t *testing.T) {
	f := openTestFile(t)
	f.close()
	f.fd = -1
	s := &session{block: alignedBuffer(blockBytes, 1)}
	var c groupCell
	err := s.groupRound(context.Background(), &c, f, 1<<20, 8, time.Now().Add(time.Minute))
	require.ErrorIs(t, err, unix.EBADF)
	require.Zero(t, c.records)
}

// Proves the verdict on the large-folio trap by cases: no counter, small excess, a megabyte.
func TestFolioVerdict(t *testing.T) {
	for _, c := range []struct {
		small, large float64
		want         string
	}{
		{0, 0, FoliosUnverified},
		{4096, 0, FoliosUnverified},
		{0, 1 << 20, FoliosUnverified},
		{4096, 4096, FoliosAbsent},
		{4096, 32 << 10, FoliosAbsent},
		{64 << 10, 130 << 10, FoliosAbsent},
		{4096, 300 << 10, FoliosPresent},
		{4096, 1 << 20, FoliosPresent},
	} {
		require.Equal(t, c.want, folioVerdict(c.small, c.large), "%v against %v", c.large, c.small)
	}
}
