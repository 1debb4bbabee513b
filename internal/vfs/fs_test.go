package vfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain doubles as the other process of the lock tests: it takes the lock, says so, and keeps it
// until its input ends.
func TestMain(m *testing.M) {
	if name := os.Getenv("VFS_TEST_LOCK"); name != "" {
		l, err := OS.Lock(name)
		if err != nil {
			os.Stdout.WriteString("refused: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = l.Close()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// each runs a test on every kind of file system, in an empty directory.
func each(t *testing.T, test func(t *testing.T, fs FS, dir string)) {
	t.Helper()
	t.Run("os", func(t *testing.T) { test(t, OS, t.TempDir()) })
	t.Run("heap", func(t *testing.T) {
		h := NewHeap()
		require.NoError(t, h.MkdirAll("/d", 0o755))
		test(t, h, "/d")
		require.Empty(t, h.OpenFiles())
		require.Empty(t, h.LiveMappings())
	})
	t.Run("faulty", func(t *testing.T) {
		h := NewHeap()
		require.NoError(t, h.MkdirAll("/d", 0o755))
		test(t, NewFaulty(h), "/d")
		require.Empty(t, h.OpenFiles())
	})
}

func create(t *testing.T, fs FS, name string) File {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	return f
}

func put(t *testing.T, fs FS, name, text string) {
	t.Helper()
	f := create(t, fs, name)
	_, err := f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func get(t *testing.T, fs FS, name string) string {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, info.Size())
	n, err := f.ReadAt(b, 0)
	if err != nil {
		require.ErrorIs(t, err, io.EOF)
	}
	return string(b[:n])
}

// Shows that reading, writing, growing and cutting behave alike on every kind.
func TestReadWrite(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/a")
		defer f.Close()
		n, err := f.WriteAt([]byte("hello"), 4094)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		n, err = f.WritevAt([][]byte{[]byte("ab"), nil, []byte("cd"), []byte("e")}, 1)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		n, err = f.WritevAt(nil, 1)
		require.NoError(t, err)
		require.Zero(t, n)

		b := make([]byte, 8)
		n, err = f.ReadAt(b, 4092)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, "\x00\x00hello", string(b[:n]))
		n, err = f.ReadAt(b[:7], 0)
		require.NoError(t, err)
		require.Equal(t, "\x00abcde\x00", string(b[:n]))

		require.NoError(t, f.Truncate(4096))
		require.NoError(t, f.Truncate(4100))
		n, err = f.ReadAt(b, 4093)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, "\x00he\x00\x00\x00\x00", string(b[:n]))

		require.NoError(t, f.Allocate(0, 1<<20))
		info, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, 1<<20, info.Size())
		require.Equal(t, "a", info.Name())
		require.NoError(t, f.Sync())
		require.NoError(t, f.SyncData())
		require.NoError(t, f.StartWriteback(0, 4096))
		require.NoError(t, f.DropCache(0, 0))
		require.NoError(t, fs.SyncDir(dir))
		require.NoError(t, fs.SyncFS(dir))
	})
}

// Shows that a vector longer than the system takes in one call goes down whole.
func TestLongVector(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/a")
		defer f.Close()
		var bufs [][]byte
		var want []byte
		for i := range 2500 {
			b := bytes.Repeat([]byte{byte(i)}, i%5)
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		n, err := f.WritevAt(bufs, 3)
		require.NoError(t, err)
		require.Equal(t, len(want), n)
		require.Equal(t, "\x00\x00\x00"+string(want), get(t, fs, dir+"/a"))
	})
}

// Shows that errors carry the path and the errno on every kind.
func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		_, err := fs.OpenFile(dir+"/none", os.O_RDWR, 0)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, dir+"/none")
		_, err = fs.OpenFile(dir+"/none/x", os.O_RDWR|os.O_CREATE, 0o644)
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = fs.Stat(dir + "/none")
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = fs.ReadDir(dir + "/none")
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorIs(t, fs.Remove(dir+"/none"), os.ErrNotExist)
		require.ErrorIs(t, fs.Rename(dir+"/none", dir+"/b"), os.ErrNotExist)
		require.ErrorIs(t, fs.SyncDir(dir+"/none"), os.ErrNotExist)
		require.NoError(t, fs.RemoveAll(dir+"/none"))

		put(t, fs, dir+"/a", "x")
		_, err = fs.OpenFile(dir+"/a", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		require.ErrorIs(t, err, os.ErrExist)
		_, err = fs.OpenFile(dir+"/a/b", os.O_RDWR, 0)
		require.ErrorIs(t, err, syscall.ENOTDIR)
		f, err := fs.OpenFile(dir+"/a", os.O_RDONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("y"), 0)
		require.ErrorIs(t, err, syscall.EBADF)
		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Close(), os.ErrClosed)
		_, err = f.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, os.ErrClosed)
		require.ErrorIs(t, f.SyncData(), os.ErrClosed)

		require.NoError(t, fs.MkdirAll(dir+"/p/q", 0o755))
		require.ErrorIs(t, fs.Remove(dir+"/p"), syscall.ENOTEMPTY)
		require.NoError(t, fs.RemoveAll(dir+"/p"))
		_, err = fs.Stat(dir + "/p")
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

// Shows that names can be listed, moved over each other and taken away under an open file.
func TestNames(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		require.NoError(t, fs.MkdirAll(dir+"/sub", 0o755))
		put(t, fs, dir+"/b", "old")
		put(t, fs, dir+"/a", "new")
		require.NoError(t, fs.Rename(dir+"/a", dir+"/b"))
		require.Equal(t, "new", get(t, fs, dir+"/b"))
		list, err := fs.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, "b", list[0].Name())
		require.False(t, list[0].IsDir())
		require.Equal(t, "sub", list[1].Name())
		require.True(t, list[1].IsDir())

		f := create(t, fs, dir+"/b")
		require.NoError(t, fs.Remove(dir+"/b"))
		_, err = f.WriteAt([]byte("still"), 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())

		put(t, fs, dir+"/c", "x")
		when := time.Unix(1_700_000_000, 0)
		require.NoError(t, fs.Chtimes(dir+"/c", when))
		info, err := fs.Stat(dir + "/c")
		require.NoError(t, err)
		require.True(t, when.Equal(info.ModTime()))
		u, err := fs.Usage(dir)
		require.NoError(t, err)
		require.Positive(t, u.Total)
		require.LessOrEqual(t, u.Avail, u.Free)
	})
}

// Shows that a mapping and the calls see the same bytes.
func TestMapping(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/m")
		_, err := f.WriteAt([]byte("before"), 4090)
		require.NoError(t, err)
		require.NoError(t, f.Allocate(0, 3*4096))
		w, err := f.Map(3*4096, true)
		require.NoError(t, err)
		r, err := f.Map(2*4096, false)
		require.NoError(t, err)
		require.Equal(t, "before", string(r.Bytes()[4090:4096]))
		copy(w.Bytes()[4096:], "mapped")
		require.Equal(t, "mapped", string(r.Bytes()[4096:4102]))
		b := make([]byte, 12)
		_, err = f.ReadAt(b, 4090)
		require.NoError(t, err)
		require.Equal(t, "beforemapped", string(b))
		_, err = f.WriteAt([]byte("call"), 5000)
		require.NoError(t, err)
		require.Equal(t, "call", string(w.Bytes()[5000:5004]))
		require.NoError(t, w.Sync(4097, 3))
		require.NoError(t, w.Sync(0, 3*4096))
		require.NoError(t, r.Close())
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
		require.NoError(t, f.Close())
		require.Contains(t, get(t, fs, dir+"/m"), "beforemapped")
	})
}

// Shows that a direct write of an aligned buffer works where the file system offers it.
func TestDirect(t *testing.T) {
	buf := AlignedBuffer(8192)
	require.Len(t, buf, 8192)
	require.Zero(t, uintptr(unsafe.Pointer(&buf[0]))%4096)
	each(t, func(t *testing.T, fs FS, dir string) {
		f, err := fs.OpenFile(dir+"/d", os.O_RDWR|os.O_CREATE|ODirect, 0o644)
		if errors.Is(err, syscall.EINVAL) {
			t.Skip("no O_DIRECT here:", err)
		}
		require.NoError(t, err)
		defer f.Close()
		_, err = f.WriteAt(buf, 4096)
		require.NoError(t, err)
		_, err = f.WriteAt(buf[:100], 0)
		require.ErrorIs(t, err, syscall.EINVAL)
	})
}

// Shows that a lock keeps out a second taker in the same process, that it names us, and that it
// leaves the text in the file.
func TestLockInProcess(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := dir + "/lock"
		l, err := fs.Lock(name)
		require.NoError(t, err)
		_, err = fs.Lock(name)
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, os.Getpid(), locked.PID)
		require.ErrorContains(t, err, name)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		require.Equal(t, "lock", get(t, fs, name))
		l, err = fs.Lock(name)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
}

// Shows that a directory can be locked without leaving anything in it.
func TestLockDirectory(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		require.NoError(t, fs.MkdirAll(dir+"/log", 0o755))
		l, err := fs.Lock(dir + "/log")
		require.NoError(t, err)
		_, err = fs.Lock(dir + "/log")
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, os.Getpid(), locked.PID)
		list, err := fs.ReadDir(dir + "/log")
		require.NoError(t, err)
		require.Empty(t, list)
		require.NoError(t, l.Close())
		l, err = fs.Lock(dir + "/log")
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
}

// Shows that the registry goes by inode: another name of the same file is the same lock, and the
// refused attempt does not drop it for other processes.
func TestLockBetweenProcesses(t *testing.T) {
	t.Run("file", func(t *testing.T) { testLockBetweenProcesses(t, "lock") })
	t.Run("directory", func(t *testing.T) { testLockBetweenProcesses(t, "log") })
}

func testLockBetweenProcesses(t *testing.T, last string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "log"), 0o755))
	name := filepath.Join(dir, last)
	l, err := OS.Lock(name)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "other")))
	_, err = OS.Lock(filepath.Join(dir, "other", last))
	var locked *LockedError
	require.ErrorAs(t, err, &locked)

	exe, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), "VFS_TEST_LOCK="+name)
	out, err := child.Output()
	require.Error(t, err)
	require.Contains(t, string(out), "refused: lock "+name+": held by process ")
	require.Contains(t, string(out), strconv.Itoa(os.Getpid()))
	require.NoError(t, l.Close())

	child = exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), "VFS_TEST_LOCK="+name)
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line := make([]byte, 5)
	_, err = io.ReadFull(stdout, line)
	require.NoError(t, err)
	require.Equal(t, "held\n", string(line))
	_, err = OS.Lock(name)
	require.ErrorAs(t, err, &locked)
	require.Equal(t, child.Process.Pid, locked.PID)
	require.True(t, strings.HasSuffix(err.Error(), strconv.Itoa(child.Process.Pid)))
	require.NoError(t, stdin.Close())
	require.NoError(t, child.Wait())
	l, err = OS.Lock(name)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// Shows that closing while calls are under way never reaches another file: every call either works
// on the right one or says that it is closed.
func TestCloseUnderCalls(t *testing.T) {
	dir := t.TempDir()
	for range 50 {
		f := create(t, OS, dir+"/a")
		done := make(chan error, 4)
		for range 4 {
			go func() {
				for {
					if _, err := f.WriteAt([]byte("a"), 0); err != nil {
						done <- err
						return
					}
				}
			}()
		}
		require.NoError(t, f.Close())
		other := create(t, OS, dir+"/b") // may get the same number
		for range 4 {
			require.ErrorIs(t, <-done, os.ErrClosed)
		}
		info, err := other.Stat()
		require.NoError(t, err)
		require.Zero(t, info.Size())
		require.NoError(t, other.Close())
	}
}

// Shows that the write path allocates nothing for one buffer.
func TestWriteAllocatesNothing(t *testing.T) {
	f := create(t, OS, t.TempDir()+"/a")
	defer f.Close()
	buf := make([]byte, 4096)
	one := [][]byte{buf}
	require.Zero(t, testing.AllocsPerRun(50, func() {
		_, _ = f.WriteAt(buf, 0)
		_, _ = f.WritevAt(one, 0)
		_ = f.SyncData()
		_, _ = f.ReadAt(buf, 0)
	}))
}
