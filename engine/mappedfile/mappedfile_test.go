package mappedfile

import (
	"bytes"
	"context"
	"os"
	"path"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/engine/format"
	"rmq/internal/run"
	"rmq/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const fileBytes = 64 << 10

func openQueue(t *testing.T, fs vfs.FS, dir string, w WriterFunc) *MappedFileQueue {
	t.Helper()
	q, err := Open(Options{FS: fs, Dir: path.Join(dir, "log"), Making: path.Join(dir, "making"), FileBytes: fileBytes, Writer: w})
	require.NoError(t, err)
	return q
}

// allocate starts an allocator for the length of the test.
func allocate(t *testing.T, q *MappedFileQueue, o AllocatorOptions) *Allocator {
	t.Helper()
	a := NewAllocator(q, o)
	g := run.New(context.Background(), "test")
	g.Go("allocator", a.Run)
	t.Cleanup(func() {
		g.Cancel()
		require.NoError(t, g.Wait())
	})
	return a
}

// TestWriteReadReopen proves that every writer puts the same bytes into the same places over a
// run of files, and that a reopened queue finds them.
func TestWriteReadReopen(t *testing.T) {
	for name, w := range map[string]WriterFunc{"pwrite": Pwrite, "mmap": Mmap, "mmap-touched": MmapTouched} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := openQueue(t, vfs.OS, dir, w)
			a := allocate(t, q, AllocatorOptions{Fill: FillBuffered})
			require.NoError(t, a.Await(t.Context(), 2*fileBytes, false))
			require.Len(t, q.Files(), 3)
			for i, m := range q.Files() {
				require.Equal(t, int64(i*fileBytes), m.Start())
				require.True(t, m.Prepared())
				require.NoError(t, m.WritevAt([][]byte{[]byte("ab"), []byte("c")}, m.Start()+100))
				require.NoError(t, m.StartWriteback(m.Start(), m.End()))
				require.NoError(t, m.Sync())
			}
			require.NoError(t, q.Close())
			q = openQueue(t, vfs.OS, dir, w)
			defer q.Close()
			require.Len(t, q.Files(), 3)
			m := q.Acquire(fileBytes + 100)
			defer m.Release()
			b := make([]byte, 5)
			_, err := m.ReadAt(b, fileBytes+99)
			require.NoError(t, err)
			require.Equal(t, "\x00abc\x00", string(b))
			require.NoError(t, m.Zero(fileBytes+100, fileBytes+103))
			_, err = m.ReadAt(b, fileBytes+99)
			require.NoError(t, err)
			require.Equal(t, make([]byte, 5), b)
			require.Nil(t, q.Find(3*fileBytes))
		})
	}
}

// TestOpenRefuses proves that a directory that is no run of equal files is refused by name, and
// that an empty last file, as a crash leaves it, is not.
func TestOpenRefuses(t *testing.T) {
	put := func(dir, name string, n int) {
		require.NoError(t, os.MkdirAll(path.Join(dir, "log"), 0o755))
		require.NoError(t, os.WriteFile(path.Join(dir, "log", name), make([]byte, n), 0o644))
	}
	try := func(dir string) error {
		q, err := Open(Options{FS: vfs.OS, Dir: path.Join(dir, "log"), Making: path.Join(dir, "making"), FileBytes: fileBytes})
		if err == nil {
			q.Close()
		}
		return err
	}
	var (
		size     *SizeError
		stranger *StrangerError
		gap      *GapError
	)
	dir := t.TempDir()
	put(dir, format.FileName(0), fileBytes)
	put(dir, format.FileName(fileBytes), 0)
	require.NoError(t, try(dir))
	require.NoFileExists(t, path.Join(dir, "log", format.FileName(fileBytes)))
	put(dir, format.FileName(2*fileBytes), fileBytes)
	require.ErrorAs(t, try(dir), &gap)
	put(dir, format.FileName(fileBytes), 7)
	require.ErrorAs(t, try(dir), &size)
	put(dir, "notes.swp", 7)
	require.ErrorAs(t, try(dir), &stranger)
	require.ErrorContains(t, try(dir), "notes.swp")
}

// TestUrgent proves that an append that waits gets a file whose filling has not ended, and that
// this is counted.
func TestUrgent(t *testing.T) {
	fs := vfs.NewHeap()
	q := openQueue(t, fs, "/s", nil)
	defer q.Close()
	var appended atomic.Int64
	a := allocate(t, q, AllocatorOptions{Fill: FillBuffered, Appended: func() int64 { return appended.Add(1) }})
	for off := int64(0); off < 8*fileBytes; off += fileBytes {
		require.NoError(t, a.Await(t.Context(), off, true))
		require.NotNil(t, q.Find(off))
	}
	require.LessOrEqual(t, a.Unprepared(), int64(8))
}

// TestDiskFull proves that a full disk is an error that names path, need and have, and that work
// goes on when there is space again.
func TestDiskFull(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewHeap(), vfs.Rule{Op: vfs.OpAllocate, Nth: 1, Err: syscall.ENOSPC})
	q := openQueue(t, faulty, "/s", nil)
	defer q.Close()
	heard := make(chan error, 2)
	a := allocate(t, q, AllocatorOptions{OnError: func(err error) { heard <- err }})
	err := a.Await(t.Context(), 0, true)
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	require.Equal(t, int64(fileBytes), space.Need)
	require.Error(t, <-heard)
	require.NoError(t, a.Await(t.Context(), 0, false), "the next try succeeds")
	require.NoError(t, <-heard)
	require.NoError(t, a.Err())
}

// TestRetire proves that a retired file leaves the run at once, stays readable for those who hold
// it, and leaves the disk when they let go.
func TestRetire(t *testing.T) {
	fs := vfs.NewHeap()
	q := openQueue(t, fs, "/s", nil)
	defer q.Close()
	a := allocate(t, q, AllocatorOptions{})
	require.NoError(t, a.Await(t.Context(), fileBytes, true))
	m := q.Acquire(0)
	require.NoError(t, m.WritevAt([][]byte{[]byte("x")}, 5))
	gone := make(chan error, 1)
	_, err := q.RetireFirst(func(err error) { gone <- err })
	require.NoError(t, err)
	require.Nil(t, q.Find(0))
	start, _ := q.Min()
	require.Equal(t, int64(fileBytes), start)
	b := make([]byte, 1)
	_, err = m.ReadAt(b, 5)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, []byte("x")))
	m.Release()
	require.NoError(t, <-gone)
	require.False(t, m.Acquire())
	left, err := fs.ReadDir("/s/making")
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = q.RetireFirst(nil)
	require.Error(t, err, "the last file stays")
}

// TestSweepBesideRetire proves that an allocator whose first look finds a file that is being taken apart by its last
// reader, and gone a moment later, goes on and makes files.
func TestSweepBesideRetire(t *testing.T) {
	heap := vfs.NewHeap()
	require.NoError(t, heap.MkdirAll("/s/making", 0o755))
	f, err := heap.OpenFile("/s/making/retired-0", os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	fs := vfs.NewFaulty(heap)
	fs.Add(vfs.Rule{Op: vfs.OpRemove, Match: "/s/making/retired-0", Err: os.ErrNotExist})
	q := openQueue(t, fs, "/s", nil)
	defer q.Close()
	a := allocate(t, q, AllocatorOptions{})
	require.NoError(t, a.Await(t.Context(), 0, true))
}

// TestPace proves that filling beside appends keeps to the larger of its floor and 1.2 times the
// append rate, and runs free when nothing is appended.
func TestPace(t *testing.T) {
	s := pacedSlice{}
	require.Zero(t, s.after(fillStep/2, 0), "half a slice never waits")
	require.Zero(t, s.after(fillStep/2, 0), "no appends: no pace")
	wait := s.after(fillStep, 1)
	require.Greater(t, wait.Seconds(), 0.005)
	require.LessOrEqual(t, wait.Seconds(), float64(fillStep)/fillFloorBytes)
}
