package mappedfile

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// FileError says which operation failed on which file. It wraps the cause.
type FileError struct {
	Op, Path string
	Err      error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }
func (e *FileError) Unwrap() error { return e.Err }

func fileErr(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &FileError{Op: op, Path: name, Err: err}
}

// MappedFile is one file of a queue: size bytes that begin at absolute offset Start.
//
// It is born with one reference, the queue's. Whoever touches it between [MappedFile.Acquire]
// and [MappedFile.Release] keeps it open. Reads are safe for concurrent use.
type MappedFile struct {
	start, size int64
	path        string
	f           vfs.File
	fs          vfs.FS
	prepared    bool // zeros were written to all of it

	mu   sync.Mutex // guards w
	w    Writer
	make WriterFunc

	refs    atomic.Int32
	retired func() // set once before the queue's own reference is dropped; runs at count zero
}

func newFile(fs vfs.FS, f vfs.File, name string, start, size int64, mk WriterFunc) *MappedFile {
	m := &MappedFile{start: start, size: size, path: name, f: f, fs: fs, make: mk}
	m.refs.Store(1)
	return m
}

// Start is the absolute offset of the first byte.
func (m *MappedFile) Start() int64 { return m.start }

// End is the absolute offset behind the last byte.
func (m *MappedFile) End() int64 { return m.start + m.size }

// Path is where the file stands.
func (m *MappedFile) Path() string { return m.path }

// Prepared reports whether zeros were written to the whole file, so that a sync of new bytes
// never waits for the file system's journal.
func (m *MappedFile) Prepared() bool { return m.prepared }

// Acquire takes a reference. False means the file is gone.
func (m *MappedFile) Acquire() bool {
	for {
		n := m.refs.Load()
		if n <= 0 {
			return false
		}
		if m.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives a reference back.
func (m *MappedFile) Release() {
	switch n := m.refs.Add(-1); {
	case n == 0:
		_ = m.close() // nobody is left to be told
		if m.retired != nil {
			m.retired()
		}
	case n < 0:
		panic("BUG: mapped file " + m.path + " released more often than acquired")
	}
}

func (m *MappedFile) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.w != nil {
		err = m.w.Close()
		m.w = nil
	}
	return errors.Join(err, m.f.Close())
}

func (m *MappedFile) writer() (Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w == nil {
		w, err := m.make(m.f, m.size)
		if err != nil {
			return nil, fileErr("map", m.path, err)
		}
		m.w = w
	}
	return m.w, nil
}

// WritevAt writes the buffers one after the other, beginning at absolute offset off. All bytes
// must lie inside the file. One writer at a time.
func (m *MappedFile) WritevAt(bufs [][]byte, off int64) error {
	w, err := m.writer()
	if err != nil {
		return err
	}
	return fileErr("write", m.path, w.WritevAt(bufs, off-m.start))
}

// Sync makes everything written so far durable.
func (m *MappedFile) Sync() error {
	w, err := m.writer()
	if err != nil {
		return err
	}
	return fileErr("sync", m.path, w.Sync())
}

// StartWriteback asks for write-back of [from, to) to begin.
func (m *MappedFile) StartWriteback(from, to int64) error {
	w, err := m.writer()
	if err != nil {
		return err
	}
	return fileErr("write back", m.path, w.StartWriteback(from-m.start, to-from))
}

// ReadAt reads len(p) bytes at absolute offset off, all of them inside the file.
func (m *MappedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.f.ReadAt(p, off-m.start)
	return n, fileErr("read", m.path, err)
}

// File is the open file, for callers that move bytes by descriptor. Valid while a reference is held.
func (m *MappedFile) File() vfs.File { return m.f }

// Zero writes zeros over [from, to) and syncs.
func (m *MappedFile) Zero(from, to int64) error {
	zeros := make([]byte, min(1<<20, max(to-from, 0)))
	for off := from; off < to; {
		n := min(int64(len(zeros)), to-off)
		if err := m.WritevAt([][]byte{zeros[:n]}, off); err != nil {
			return err
		}
		off += n
	}
	return m.Sync()
}

// pathOf is where the file that begins at off stands in dir.
func pathOf(dir string, off int64) string { return path.Join(dir, format.FileName(off)) }
