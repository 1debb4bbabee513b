// Package vfs is the file system that everything which stores bytes goes through.
//
// Three kinds exist: [OS], the real one; [Heap], in memory, which keeps beside every file
// the copy that would survive a power cut and hands out images of it; and [Faulty], which
// wraps another one and makes the n-th operation fail, stall or stop half-way.
package vfs

import (
	"io"
	"os"
	"time"
)

// FS opens, names and removes files. Paths are slash-separated and used as given.
// Errors are [*os.PathError] or [*os.LinkError] wrapping a syscall.Errno, so that
// errors.Is(err, os.ErrNotExist) and errors.Is(err, syscall.ENOSPC) work on every kind.
// Safe for concurrent use.
type FS interface {
	// OpenFile opens name with the os.O_* flags and, where the kind offers it, [ODirect].
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	Stat(name string) (os.FileInfo, error)
	ReadDir(name string) ([]os.DirEntry, error)
	MkdirAll(name string, perm os.FileMode) error
	Remove(name string) error
	RemoveAll(name string) error
	Rename(from, to string) error
	Chtimes(name string, mtime time.Time) error
	// SyncDir makes the entries of directory name durable.
	SyncDir(name string) error
	// SyncFS makes everything on the file system that holds name durable (syncfs).
	SyncFS(name string) error
	// Usage reports the space of the file system that holds name.
	Usage(name string) (Usage, error)
	// Lock takes an exclusive lock on name without waiting. A lock held elsewhere, in this process or
	// another, is a [*LockedError]. Closing the result gives it back.
	//
	// A directory is locked with flock, which leaves nothing behind in it. Anything else is a lock
	// file, created if needed: an fcntl record lock on byte 0, as Java takes it, and the four bytes
	// "lock" as content, as Apache leaves them. The kernel drops that lock when any other descriptor
	// of the file is closed in this process, so nobody else may open it.
	Lock(name string) (io.Closer, error)
}

// File is one open file. Concurrent ReadAt and WriteAt calls are safe.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WritevAt writes the buffers one after the other, beginning at off, as a single call where
	// the system allows it, and returns the bytes written. A short count comes with an error.
	WritevAt(bufs [][]byte, off int64) (int, error)
	Name() string
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
	// Allocate reserves blocks for [off, off+n) and grows the file to cover them; the bytes read as zeros.
	Allocate(off, n int64) error
	// Sync is fsync: contents and metadata.
	Sync() error
	// SyncData is fdatasync: contents, and only the metadata needed to read them back.
	SyncData() error
	// StartWriteback asks for write-back of [off, off+n) to begin. It promises nothing about durability.
	StartWriteback(off, n int64) error
	// DropCache advises that [off, off+n) will not be read soon.
	DropCache(off, n int64) error
	// Map maps [0, n) shared, read-only or writable. Kinds without mappings return errors.ErrUnsupported.
	Map(n int64, writable bool) (Mapping, error)
	// Fd is the descriptor, and whether there is one.
	Fd() (uintptr, bool)
}

// Mapping is a shared mapping of a file. Bytes must not be touched after Close.
type Mapping interface {
	Bytes() []byte
	// Sync flushes the page-aligned range that covers [off, off+n) with msync.
	Sync(off, n int64) error
	io.Closer
}

// Usage is the space of a file system, in bytes. Avail is what an ordinary user may still take.
type Usage struct {
	Total, Free, Avail int64
	// Type is the statfs magic, 0 where unknown; [Tmpfs] is the one that matters.
	Type int64
}

// Tmpfs is the statfs type of a file system that lives in memory.
const Tmpfs = 0x01021994

// LockedError says that another owner holds a lock file.
type LockedError struct {
	Path string
	PID  int // of the holder, 0 where unknown
}
