package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pageBytes   = 4 << 10
	recordBytes = 1 << 10
	blockBytes  = 1 << 20
)

// SpaceError says that a directory has less free space than a probe needs.
type SpaceError struct {
	Dir        string
	Need, Have int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("probe: %s has %d MiB free and %d MiB are needed: free some space or name another directory",
		e.Dir, e.Have>>20, e.Need>>20)
}

// tmpfsMagic and ramfsMagic are the statfs types of file systems that live in memory.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// dirPrefix begins the name of the directory that a probe works in: prefix, pid, dash, random.
const dirPrefix = ".rmq-probe-"

// makeWorkDir creates the probe's own directory inside dir, after removing what probes left
// there that were killed. A directory counts as left when its process is gone and it is older
// than any probe lives; the age guards probes in other process namespaces.
func makeWorkDir(dir string) (string, error) {
	old, _ := filepath.Glob(filepath.Join(dir, dirPrefix+"*"))
	for _, d := range old {
		pidText, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), dirPrefix), "-")
		pid, err := strconv.Atoi(pidText)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if st, err := os.Stat(d); err == nil && time.Since(st.ModTime()) > 10*time.Minute {
			_ = os.RemoveAll(d) // best effort: only space is at stake
		}
	}
	return os.MkdirTemp(dir, dirPrefix+strconv.Itoa(os.Getpid())+"-*")
}

// alignedBuffer returns n bytes that begin on a page, filled with bytes that do not compress,
// which also touches every page once.
func alignedBuffer(n int, seed uint64) []byte {
	b := make([]byte, n+pageBytes)
	off := -int(addressOf(b)) & (pageBytes - 1)
	b = b[off : off+n]
	x := seed | 1
	for i := 0; i+8 <= n; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		*(*uint64)(unsafe.Pointer(&b[i])) = x
	}
	return b
}

func roundUp(n int64) int64 { return (n + pageBytes - 1) &^ (pageBytes - 1) }

// file is a descriptor used by bare system calls: no poller, no lock, no allocation between the
// clock and the kernel.
type file struct {
	fd   int
	path string
}

func (s *session) open(name string, flags int) (file, error) {
	path := filepath.Join(s.work, name)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return file{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return file{fd, path}, nil
}

func (f file) close() { _ = unix.Close(f.fd) } // scratch data: nothing to lose

func (f file) err(op string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.path, Err: err}
}

func (f file) write(b []byte, off int64) error {
	for {
		n, err := unix.Pwrite(f.fd, b, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return f.err("pwrite", err)
		case n < len(b):
			return f.err("pwrite", fmt.Errorf("%d of %d bytes written: %w", n, len(b), syscall.ENOSPC))
		default:
			return nil
		}
	}
}

func (f file) read(b []byte, off int64) error {
	for {
		n, err := unix.Pread(f.fd, b, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return f.err("pread", err)
		case n < len(b):
			return f.err("pread", fmt.Errorf("%d of %d bytes read", n, len(b)))
		default:
			return nil
		}
	}
}

func (f file) sync() error     { return f.err("fsync", unix.Fsync(f.fd)) }
func (f file) syncData() error { return f.err("fdatasync", unix.Fdatasync(f.fd)) }

func (f file) truncate(n int64) error { return f.err("ftruncate", unix.Ftruncate(f.fd, n)) }

// dropCache asks the kernel to forget the clean pages of f; where it cannot, reads are cached.
func (f file) dropCache() { _ = unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED) }

// allocate reserves blocks for n bytes. Kinds without fallocate get a sparse file.
func (f file) allocate(n int64) error {
	err := unix.Fallocate(f.fd, 0, 0, n)
	if unsupported(err) {
		err = unix.Ftruncate(f.fd, n)
	}
	return f.err("fallocate", err)
}

// renew makes the first n bytes of f allocated but never written again, without giving blocks
// back (a discarded block would slow what comes next). It reports whether the file system can.
func (f file) renew(n int64) (bool, error) {
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_ZERO_RANGE, 0, n)
	if unsupported(err) {
		return false, nil
	}
	if err == nil {
		err = unix.Fsync(f.fd)
	}
	return true, f.err("fallocate", err)
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// openDirect opens name for direct I/O, and reports whether the file system offers it: if not,
// the descriptor is an ordinary one.
func (s *session) openDirect(name string) (f file, direct bool, err error) {
	f, err = s.open(name, unix.O_DIRECT)
	if unsupported(err) {
		f, err = s.open(name, 0)
		return f, false, err
	}
	return f, true, err
}

// prewrite writes up to n bytes into name past the page cache, syncs them, and reports how many
// it managed before until. At least one block is always written.
func (s *session) prewrite(ctx context.Context, name string, n int64, until time.Time) (int64, error) {
	f, direct, err := s.openDirect(name)
	if err != nil {
		return 0, err
	}
	defer f.close()
	if err := f.allocate(n); err != nil {
		return 0, err
	}
	var off int64
	for off < n && (off == 0 || time.Now().Before(until)) && ctx.Err() == nil {
		if err := f.write(s.block, off); err != nil {
			return off, err
		}
		off += blockBytes
	}
	if err := f.sync(); err != nil {
		return off, err
	}
	if !direct {
		f.dropCache()
	}
	return off, ctx.Err()
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
