package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// ODirect is the open flag that bypasses the page cache; offsets, lengths and buffer addresses
// must then be multiples of 4096 ([AlignedBuffer]).
const ODirect = unix.O_DIRECT

// pageBytes is the unit of mappings. Every platform that we build for has 4 KiB pages.
const pageBytes = 4096

// OS is the real file system.
var OS FS = osFS{}

// AlignedBuffer returns n zero bytes whose address is a multiple of 4096, as [ODirect] needs.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+pageBytes)
	skip := 0
	if r := int(uintptr(unsafe.Pointer(&b[0])) % pageBytes); r != 0 {
		skip = pageBytes - r
	}
	return b[skip : skip+n : skip+n]
}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(name, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := &osFile{name: name, fd: fd}
	f.refs.Store(1)
	return f, nil
}

func (osFS) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }
func (osFS) ReadDir(name string) ([]os.DirEntry, error)   { return os.ReadDir(name) }
func (osFS) MkdirAll(name string, perm os.FileMode) error { return os.MkdirAll(name, perm) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) RemoveAll(name string) error                  { return os.RemoveAll(name) }
func (osFS) Rename(from, to string) error                 { return os.Rename(from, to) }
func (osFS) Chtimes(name string, mtime time.Time) error   { return os.Chtimes(name, mtime, mtime) }

func (osFS) SyncDir(name string) error { return withFd("syncdir", name, unix.Fsync) }
func (osFS) SyncFS(name string) error  { return withFd("syncfs", name, unix.Syncfs) }

// withFd opens name for reading, whatever it is, and calls f on its descriptor.
func withFd(op, name string, f func(fd int) error) error {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	err = retry(func() error { return f(fd) })
	_ = unix.Close(fd) // read-only
	if err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (osFS) Usage(name string) (Usage, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(name, &st) }); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	return Usage{
		Total: int64(st.Blocks) * st.Bsize,
		Free:  int64(st.Bfree) * st.Bsize,
		Avail: int64(st.Bavail) * st.Bsize,
		Type:  st.Type,
	}, nil
}

// retry repeats a system call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR { //nolint:errorlint // a bare errno from the system call
			return err
		}
	}
}

// osFile holds a bare descriptor. Each call takes a reference, so that a Close at the same time
// never lets a write reach whatever file the number stands for next.
type osFile struct {
	name   string
	fd     int
	refs   atomic.Int64 // calls in flight, and one for the owner
	closed atomic.Bool
}

func (f *osFile) Name() string { return f.name }

func (f *osFile) acquire() bool {
	for {
		n := f.refs.Load()
		if n <= 0 || f.closed.Load() {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *osFile) release() error {
	if f.refs.Add(-1) == 0 {
		return unix.Close(f.fd) // never retried: the descriptor is gone either way
	}
	return nil
}

// call runs one system call on the descriptor and names the path in its error.
func (f *osFile) call(op string, fn func(fd int) error) error {
	if !f.acquire() {
		return f.fail(op, os.ErrClosed)
	}
	err := retry(func() error { return fn(f.fd) })
	_ = f.release()
	if err != nil {
		return f.fail(op, err)
	}
	return nil
}

func (f *osFile) fail(op string, err error) error {
	return &os.PathError{Op: op, Path: f.name, Err: err}
}

// Close gives the descriptor back once the calls in flight have returned.
func (f *osFile) Close() error {
	if !f.closed.CompareAndSwap(false, true) {
		return f.fail("close", os.ErrClosed)
	}
	if err := f.release(); err != nil {
		return f.fail("close", err)
	}
	return nil
}

func (f *osFile) Fd() (uintptr, bool) { return uintptr(f.fd), true }

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if !f.acquire() {
		return 0, f.fail("read", os.ErrClosed)
	}
	defer f.release() //nolint:errcheck // only the last release can fail, and Close reports that one
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR: // a bare errno
			continue
		case err != nil:
			return done, f.fail("read", err)
		case n == 0:
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if !f.acquire() {
		return 0, f.fail("write", os.ErrClosed)
	}
	defer f.release() //nolint:errcheck // as in ReadAt
	return f.writeAt(p, off)
}

func (f *osFile) writeAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR: // a bare errno
			continue
		case err != nil:
			return done, f.fail("write", err)
		case n == 0:
			return done, f.fail("write", io.ErrShortWrite)
		}
		done += n
	}
	return done, nil
}

// maxVector is IOV_MAX on Linux.
const maxVector = 1024

func (f *osFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	if !f.acquire() {
		return 0, f.fail("write", os.ErrClosed)
	}
	defer f.release() //nolint:errcheck // as in ReadAt
	done := 0
	for len(bufs) > 0 {
		if len(bufs) == 1 {
			n, err := f.writeAt(bufs[0], off+int64(done))
			return done + n, err
		}
		now := bufs
		if len(now) > maxVector {
			now = now[:maxVector]
		}
		want := 0
		for _, b := range now {
			want += len(b)
		}
		if want == 0 {
			bufs = bufs[len(now):]
			continue
		}
		n, err := unix.Pwritev(f.fd, now, off+int64(done))
		switch {
		case err == unix.EINTR: // a bare errno
			continue
		case err != nil:
			return done, f.fail("write", err)
		case n == 0:
			return done, f.fail("write", io.ErrShortWrite)
		}
		done += n
		// Skip what went down. A call that stopped inside a buffer finishes that one by itself,
		// so that the caller's slice of slices stays as it was.
		for len(bufs) > 0 && n >= len(bufs[0]) {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		if n > 0 {
			m, err := f.writeAt(bufs[0][n:], off+int64(done))
			done += m
			if err != nil {
				return done, err
			}
			bufs = bufs[1:]
		}
	}
	return done, nil
}

func (f *osFile) Stat() (os.FileInfo, error) {
	var st unix.Stat_t
	if err := f.call("stat", func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, err
	}
	return &fileInfo{
		name:  base(f.name),
		size:  st.Size,
		mode:  fileMode(st.Mode),
		mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
		sys:   &st,
	}, nil
}

func fileMode(m uint32) os.FileMode {
	mode := os.FileMode(m & 0o777)
	if m&unix.S_IFMT == unix.S_IFDIR {
		mode |= os.ModeDir
	}
	return mode
}

func (f *osFile) Truncate(size int64) error {
	return f.call("truncate", func(fd int) error { return unix.Ftruncate(fd, size) })
}

func (f *osFile) Allocate(off, n int64) error {
	return f.call("allocate", func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
}

func (f *osFile) Sync() error     { return f.call("sync", unix.Fsync) }
func (f *osFile) SyncData() error { return f.call("sync", unix.Fdatasync) }

func (f *osFile) StartWriteback(off, n int64) error {
	return f.call("writeback", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func (f *osFile) DropCache(off, n int64) error {
	return f.call("fadvise", func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED) })
}

func (f *osFile) Map(n int64, writable bool) (Mapping, error) {
	prot := mmap.RDONLY
	if writable {
		prot = mmap.RDWR
	}
	m := &osMapping{name: f.name}
	err := f.call("mmap", func(fd int) error {
		// mmap-go wants an *os.File, which would close the descriptor some day; lend it a copy.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		tmp := os.NewFile(uintptr(dup), f.name)
		m.mm, err = mmap.MapRegion(tmp, int(n), prot, 0, 0)
		return errors.Join(err, tmp.Close())
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

type osMapping struct {
	name string
	mm   mmap.MMap
}

func (m *osMapping) Bytes() []byte { return m.mm }

func (m *osMapping) Sync(off, n int64) error {
	from := off &^ (pageBytes - 1)
	to := min(off+n, int64(len(m.mm)))
	if to <= from {
		return nil
	}
	// The kernel rounds the length up to whole pages; only the start has to lie on one.
	if err := retry(func() error { return unix.Msync(m.mm[from:to], unix.MS_SYNC) }); err != nil {
		return &os.PathError{Op: "msync", Path: m.name, Err: err}
	}
	return nil
}

func (m *osMapping) Close() error {
	if m.mm == nil {
		return nil
	}
	if err := m.mm.Unmap(); err != nil {
		return &os.PathError{Op: "munmap", Path: m.name, Err: err}
	}
	return nil
}

// lockTable holds the locks of this process. The kernel gives a second record lock of the same
// process freely, and forgets all of them when any descriptor of the file is closed, so a second
// taker must be refused before it opens anything.
var lockTable = struct {
	sync.Mutex
	held map[inode]bool
}{held: map[inode]bool{}}

type inode struct{ dev, ino uint64 }

func (osFS) Lock(name string) (io.Closer, error) {
	lockTable.Lock()
	defer lockTable.Unlock()

	fail := func(err error) (io.Closer, error) {
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	var st unix.Stat_t
	err := retry(func() error { return unix.Stat(name, &st) })
	if err == nil && lockTable.held[inode{st.Dev, st.Ino}] {
		return nil, &LockedError{Path: name, PID: os.Getpid()}
	}
	isDir := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	flag := unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC
	if isDir {
		flag = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	}
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Open(name, flag, 0o644)
		return err
	})
	if err != nil {
		return fail(err)
	}
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		_ = unix.Close(fd) // nothing was written
		return fail(err)
	}
	id := inode{st.Dev, st.Ino}
	if lockTable.held[id] {
		// The name was moved onto a file that we hold, between the two looks. Closing the
		// descriptor would drop that lock, so it stays open.
		return nil, &LockedError{Path: name, PID: os.Getpid()}
	}
	take := takeFile
	if isDir {
		take = takeDir
	}
	pid, err := take(fd, id)
	if err == unix.EAGAIN || err == unix.EACCES { //nolint:errorlint // a bare errno
		_ = unix.Close(fd) // we hold nothing on it
		return nil, &LockedError{Path: name, PID: pid}
	}
	if err != nil {
		_ = unix.Close(fd) // the error above is the one to report
		return fail(err)
	}
	lockTable.held[id] = true
	return &osLock{name: name, id: id, fd: fd}, nil
}

// takeFile locks byte 0 and writes the text; with EAGAIN it names the holder.
func takeFile(fd int, _ inode) (pid int, err error) {
	want := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	err = retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &want) })
	if err != nil {
		holder := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
		if unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &holder) == nil && holder.Type != unix.F_UNLCK {
			pid = int(holder.Pid)
		}
		return pid, err
	}
	if _, err := unix.Pwrite(fd, []byte(lockText), 0); err != nil {
		return 0, err
	}
	return 0, retry(func() error { return unix.Fsync(fd) })
}

// takeDir locks a directory; with EAGAIN it names the holder if /proc tells.
func takeDir(fd int, id inode) (pid int, err error) {
	err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case errors.Is(err, unix.EAGAIN):
		return flockHolder(id), err
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP):
		// Network file systems may not lock what is open for reading. The registry of this process
		// and the lock file of the store remain.
		return 0, nil
	}
	return 0, err
}

// flockHolder looks for the owner of a flock: "1: FLOCK ADVISORY WRITE <pid> <maj>:<min>:<ino> 0 EOF".
func flockHolder(id inode) (pid int) {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+strconv.FormatUint(id.ino, 10)) {
			continue
		}
		dev := fmt.Sprintf("%02x:%02x:", unix.Major(id.dev), unix.Minor(id.dev))
		if n, err := strconv.Atoi(f[4]); err == nil && (pid == 0 || strings.HasPrefix(f[5], dev)) {
			pid = n
		}
	}
	return pid
}

type osLock struct {
	name string
	id   inode
	fd   int
}

func (l *osLock) Close() error {
	lockTable.Lock()
	defer lockTable.Unlock()
	if l.fd < 0 {
		return nil
	}
	delete(lockTable.held, l.id)
	err := unix.Close(l.fd)
	l.fd = -1
	if err != nil {
		return &os.PathError{Op: "unlock", Path: l.name, Err: err}
	}
	return nil
}
