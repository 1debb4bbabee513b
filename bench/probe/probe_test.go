package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"rmq/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Proves that a probe with a small budget measures every limit that the results package knows by
// name, keeps its budget, calls Progress once a step in order, and leaves nothing behind.
func TestRunMeasuresEverything(t *testing.T) {
	dir := t.TempDir()
	const budget = 6 * time.Second // a loaded machine skips steps of a shorter one
	var seen []int
	start := time.Now()
	p, err := Run(t.Context(), Options{Dir: dir, Budget: budget, Seed: 1, Progress: func(_ string, i, n int) {
		require.Equal(t, 9, n)
		seen = append(seen, i)
	}})
	took := time.Since(start)
	require.NoError(t, err)
	require.Equal(t, results.SchemaVersion, p.Schema)
	require.Empty(t, p.Start.Skipped)
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}, seen)
	require.Empty(t, listing(t, dir))
	// A test machine under load may hold any single step up; the plan's own test is exact.
	require.Less(t, took, 3*budget)

	want := []string{
		results.LimitMemcpy1K, results.LimitMemcpy64K, results.LimitMemcpyRegion,
		results.LimitWriteDirect, results.LimitWriteBack, LimitWriteBackFirst, results.LimitReadDirect, results.LimitReadCached,
		results.LimitLoopbackRTT, results.LimitLoopbackRate, results.LimitTimerError, results.LimitTimerSleep, results.LimitClock,
		results.LimitMmapFlush, results.LimitPwriteBatch,
	}
	for _, state := range syncStates {
		for _, depth := range syncDepths {
			want = append(want, results.LimitSync(state, depth))
		}
		want = append(want, results.LimitAppend(state), LimitAppendPadded(state))
	}
	for _, g := range groupSizes {
		want = append(want, results.LimitFlush(g))
	}
	for _, n := range groupProducers {
		want = append(want, results.LimitGroup(n), results.LimitGroup(n)+".flushes", results.LimitGroup(n)+".size")
	}
	for _, name := range want {
		l, ok := p.Start.Find(name)
		require.True(t, ok, name)
		require.Positive(t, l.Value, name)
		require.Positive(t, l.N, name)
		require.NotEmpty(t, l.Unit, name)
		require.LessOrEqual(t, l.P50, l.P99, name)
	}
	folios, ok := p.Start.Find(results.LimitFolioBytes)
	require.True(t, ok)
	require.NotEmpty(t, folios.Note)
}

// Proves that the drift check measures three limits under the names that Run uses, so that the
// two can be compared.
func TestDriftRepeatsLimitsOfRun(t *testing.T) {
	dir := t.TempDir()
	d, err := Drift(t.Context(), Options{Dir: dir, Budget: 300 * time.Millisecond})
	require.NoError(t, err)
	var names []string
	for _, l := range d.Limits {
		require.Positive(t, l.Value, l.Name)
		names = append(names, l.Name)
	}
	require.Equal(t, []string{results.LimitSync(results.StateWritten, 1), results.LimitGroup(64), results.LimitWriteDirect}, names)
	require.Empty(t, listing(t, dir))
	start := d
	require.Len(t, (&results.Probe{Start: start, End: &d}).Drifts(), 3)
}

// Proves that a probe cancelled at the beginning of any step, or in the middle of one, ends with
// the context's error and leaves no file.
func TestCancelLeavesNothing(t *testing.T) {
	for at := range 9 {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		p, err := Run(ctx, Options{Dir: dir, Budget: time.Second, Progress: func(_ string, i, _ int) {
			if i == at {
				cancel()
			}
		}})
		if ctx.Err() == nil { // a slow machine had no time left for that step
			require.NoError(t, err)
			require.NotEmpty(t, p.Start.Skipped)
		} else {
			require.ErrorIs(t, err, context.Canceled, "step %d", at)
		}
		cancel()
		require.Empty(t, listing(t, dir), "step %d", at)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := Run(ctx, Options{Dir: dir})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), 10*time.Second, "a cancelled probe of %v went on", DefaultBudget)
	require.Empty(t, listing(t, dir))
}

// Proves that a directory in memory is probed and said to be no disk, and that the large-folio
// trap is then called unverified instead of absent.
func TestMemoryFileSystemIsFlagged(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != tmpfsMagic {
		t.Skip("no tmpfs at /dev/shm")
	}
	dir, err := os.MkdirTemp("/dev/shm", "probe-test-*") //nolint:usetesting // it has to be tmpfs
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(dir)) }()
	p, err := Run(t.Context(), Options{Dir: dir, Budget: time.Second})
	var space *SpaceError
	if errors.As(err, &space) {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.NotEmpty(t, p.Start.Notes)
	require.Contains(t, p.Start.Notes[0], "not a disk")
	folios, ok := p.Start.Find(results.LimitFolioBytes)
	require.True(t, ok)
	require.Contains(t, folios.Note, FoliosUnverified)
	require.Zero(t, folios.Value)
	require.Empty(t, listing(t, dir))
}

// Proves that the full probe asks for no more than 1.5 GiB, a shorter one for less, and that too
// little space is an error that says what is needed and what is there.
func TestSpace(t *testing.T) {
	full, short := session{scale: 1}, session{scale: 0.1}
	require.LessOrEqual(t, full.spaceNeeded(), int64(1536<<20))
	require.Less(t, short.spaceNeeded(), full.spaceNeeded()/2)
	require.NoError(t, checkSpace("/data", 100, 100))
	err := checkSpace("/data", 1040<<20, 300<<20)
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	require.Equal(t, SpaceError{Dir: "/data", Need: 1040 << 20, Have: 300 << 20}, *space)
	require.ErrorContains(t, err, "/data has 300 MiB free and 1040 MiB are needed")
}

// Proves that a directory that does not exist is an error that names it.
func TestMissingDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	_, err := Run(t.Context(), Options{Dir: dir, Budget: time.Second})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, dir)
}

// Proves that what a killed probe left is removed once it is old and its process is gone, and
// that nothing else is touched.
func TestLeftoversAreRemoved(t *testing.T) {
	dir := t.TempDir()
	const gone = "4194305" // above the largest pid that Linux gives
	old := time.Now().Add(-time.Hour)
	for name, mtime := range map[string]time.Time{
		dirPrefix + gone + "-1": old,        // left by a killed probe
		dirPrefix + gone + "-2": time.Now(), // perhaps of another process namespace
		dirPrefix + "1-3":       old,        // its process lives
		dirPrefix + "x-4":       old,        // not a probe's
		"segment":               old,
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chtimes(path, mtime, mtime))
	}
	made, err := makeWorkDir(dir)
	require.NoError(t, err)
	names := listing(t, dir)
	require.Len(t, names, 5)
	require.Contains(t, names, filepath.Base(made))
	require.NotContains(t, names, dirPrefix+gone+"-1")
}

// Proves that file sizes follow the budget in whole blocks and stay between their bounds.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		scale float64
		full  int64
		want  int64
	}{
		{1, logFileBytes, logFileBytes},
		{0.5, logFileBytes, logFileBytes / 2},
		{0.001, logFileBytes, leastFileBytes},
		{0.3, folioFileBytes, leastFileBytes},
		{1, 2 << 20, 2 << 20},
	} {
		s := session{scale: c.scale}
		require.Equal(t, c.want, s.size(c.full), "%v of %d", c.scale, c.full)
	}
}

// Proves that aligned buffers begin on a page and hold no long runs that a disk could compress.
func TestAlignedBuffer(t *testing.T) {
	for _, n := range []int{pageBytes, blockBytes} {
		b := alignedBuffer(n, 7)
		require.Len(t, b, n)
		require.Zero(t, addressOf(b)%pageBytes)
		counts := make([]int, 256)
		for _, v := range b {
			counts[v]++
		}
		require.Less(t, slices.Max(counts), n/64)
	}
}
