package mappedfile

import (
	"runtime"

	"rmq/internal/vfs"
)

// Writer puts bytes into one file and makes them durable. It is used by one goroutine at a time,
// except Sync and StartWriteback, which may run beside WritevAt.
type Writer interface {
	// WritevAt writes the buffers one after the other from pos. When it returns nil the bytes
	// are in the page cache: they survive the end of the process.
	WritevAt(bufs [][]byte, pos int64) error
	// Sync makes all bytes written before the call durable.
	Sync() error
	// StartWriteback asks for write-back of [pos, pos+n) to begin; it promises nothing.
	StartWriteback(pos, n int64) error
	Close() error
}

// WriterFunc makes the writer of a file of size bytes.
type WriterFunc func(f vfs.File, size int64) (Writer, error)

// Pwrite writes by pwrite and pwritev and syncs by fdatasync.
func Pwrite(f vfs.File, _ int64) (Writer, error) { return pwriter{f}, nil }

type pwriter struct{ f vfs.File }

func (w pwriter) WritevAt(bufs [][]byte, pos int64) error {
	_, err := w.f.WritevAt(bufs, pos)
	return err
}
func (w pwriter) Sync() error                       { return w.f.SyncData() }
func (w pwriter) StartWriteback(pos, n int64) error { return w.f.StartWriteback(pos, n) }
func (w pwriter) Close() error                      { return nil }

// Mmap copies into a shared writable mapping and syncs by fdatasync, as the original broker does.
// The blocks must have been allocated before: a hole on a full disk would kill the process.
func Mmap(f vfs.File, size int64) (Writer, error) {
	m, err := f.Map(size, true)
	if err != nil {
		return nil, err
	}
	return &mapWriter{f: f, m: m}, nil
}

// MmapTouched is [Mmap] with every page of the mapping made resident first.
func MmapTouched(f vfs.File, size int64) (Writer, error) {
	m, err := f.Map(size, true)
	if err != nil {
		return nil, err
	}
	touch(m.Bytes())
	return &mapWriter{f: f, m: m}, nil
}

// touch reads one byte of every page.
func touch(b []byte) {
	sum := byte(0)
	for i := 0; i < len(b); i += 4096 {
		sum += b[i]
	}
	runtime.KeepAlive(sum)
}

type mapWriter struct {
	f vfs.File
	m vfs.Mapping
}

func (w *mapWriter) WritevAt(bufs [][]byte, pos int64) error {
	dst := w.m.Bytes()[pos:]
	for _, b := range bufs {
		dst = dst[copy(dst, b):]
	}
	return nil
}
func (w *mapWriter) Sync() error                       { return w.f.SyncData() }
func (w *mapWriter) StartWriteback(pos, n int64) error { return w.f.StartWriteback(pos, n) }
func (w *mapWriter) Close() error                      { return w.m.Close() }
