package powercut

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"rmq/internal/vfs"
)

// FS is a file system whose changes can be taken back. Safe for concurrent use.
type FS struct {
	vfs.FS // reading goes to the real one
	side   string
	log    *journal
	names  sync.Mutex // held while a name changes, so that journal and disk agree on the order

	mu     sync.Mutex
	inodes map[uint64]*inode
	lost   int // directories that were removed
}

// New wraps [vfs.OS]; side is made if needed.
func New(side string) (*FS, error) {
	if err := os.MkdirAll(side, 0o755); err != nil {
		return nil, err
	}
	if err := vfs.OS.SyncFS(side); err != nil {
		return nil, err
	}
	if err := clear(side); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(side, journalName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &FS{FS: vfs.OS, side: side, log: &journal{f: f}, inodes: map[uint64]*inode{}}, nil
}

// clear empties the side directory.
func clear(side string) error {
	list, err := os.ReadDir(side)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(side, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// inode is what is known of a file, whatever its names.
type inode struct {
	ino       uint64
	mu        sync.Mutex
	size      int64
	sizeDirty bool
	dirty     map[int64]uint8 // page → its sectors that are journaled and not synced since
}

func inoOf(name string) (uint64, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

func sideName(side string, ino uint64) string {
	return filepath.Join(side, strconv.FormatUint(ino, 10))
}

// track gives the file its second name.
func (f *FS) track(name string) (*inode, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	ino := info.Sys().(*syscall.Stat_t).Ino
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.inodes[ino]; n != nil {
		return n, nil
	}
	if err := os.Link(name, sideName(f.side, ino)); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("power cut side directory: it must be on the file system of the store: %w", err)
	}
	n := &inode{ino: ino, size: info.Size(), dirty: map[int64]uint8{}}
	f.inodes[ino] = n
	return n, nil
}

func abs(name string) string {
	full, err := filepath.Abs(name)
	if err != nil {
		panic("BUG: no working directory: " + err.Error())
	}
	return full
}

// OpenFile implements [vfs.FS].
func (f *FS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) == 0 {
		return f.FS.OpenFile(name, flag, perm)
	}
	f.names.Lock()
	defer f.names.Unlock()
	_, err := os.Lstat(name)
	created := errors.Is(err, os.ErrNotExist) && flag&os.O_CREATE != 0
	// Images are read through the same descriptor.
	file, err := f.FS.OpenFile(name, flag&^(os.O_TRUNC|os.O_WRONLY)|os.O_RDWR, perm)
	if err != nil {
		return nil, err
	}
	x := &cutFile{File: file, f: f}
	if x.node, err = f.track(name); err == nil && created {
		err = f.log.add(record{kind: kindEntry, ino: x.node.ino, to: abs(name)})
	}
	if err == nil && flag&os.O_TRUNC != 0 {
		err = x.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return x, nil
}

// MkdirAll implements [vfs.FS].
func (f *FS) MkdirAll(name string, perm os.FileMode) error {
	f.names.Lock()
	defer f.names.Unlock()
	var missing []string
	for dir := abs(name); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		ino, err := inoOf(dir)
		if err == nil {
			err = f.log.add(record{kind: kindEntry, ino: ino, to: dir, b: 1})
		}
		if err != nil {
			return err
		}
	}
	return f.FS.MkdirAll(name, perm)
}

// Remove implements [vfs.FS].
func (f *FS) Remove(name string) error {
	f.names.Lock()
	defer f.names.Unlock()
	info, err := os.Lstat(name)
	if err != nil || info.IsDir() {
		return f.FS.Remove(name)
	}
	n, err := f.track(name)
	if err != nil {
		return err
	}
	if err := f.log.add(record{kind: kindEntry, ino: n.ino, from: abs(name)}); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// RemoveAll implements [vfs.FS]. The tree moves to the side directory.
func (f *FS) RemoveAll(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return f.Remove(name)
	}
	f.names.Lock()
	defer f.names.Unlock()
	f.lost++
	to := filepath.Join(f.side, "removed-"+strconv.Itoa(f.lost))
	if err := f.log.add(record{kind: kindDirMoved, from: abs(name), to: to}); err != nil {
		return err
	}
	return os.Rename(name, to)
}

// Rename implements [vfs.FS].
func (f *FS) Rename(from, to string) error {
	f.names.Lock()
	defer f.names.Unlock()
	info, err := os.Lstat(from)
	if err != nil {
		return f.FS.Rename(from, to)
	}
	r := record{kind: kindDirMoved, from: abs(from), to: abs(to)}
	if !info.IsDir() {
		n, err := f.track(from)
		if err != nil {
			return err
		}
		r.kind, r.ino = kindEntry, n.ino
		if _, err := os.Lstat(to); err == nil {
			old, err := f.track(to)
			if err != nil {
				return err
			}
			r.a = old.ino
		}
	}
	if err := f.log.add(r); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// SyncDir implements [vfs.FS].
func (f *FS) SyncDir(name string) error {
	upTo := f.log.last()
	if err := f.FS.SyncDir(name); err != nil {
		return err
	}
	err := f.log.add(record{kind: kindDirSync, from: abs(name), a: upTo})
	return err
}

// SyncFS implements [vfs.FS].
func (f *FS) SyncFS(name string) error {
	f.mu.Lock()
	for _, n := range f.inodes {
		n.settle()
	}
	f.mu.Unlock()
	upTo := f.log.last()
	if err := f.FS.SyncFS(name); err != nil {
		return err
	}
	err := f.log.add(record{kind: kindFSSync, a: upTo})
	return err
}

// settle forgets which sectors are journaled: changes from now on are apart from those before.
func (n *inode) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dirty, n.sizeDirty = map[int64]uint8{}, false
}

// cutFile is a file open for writing.
type cutFile struct {
	vfs.File
	f    *FS
	node *inode
}

// save journals what [off, off+n) holds, as far as it is not journaled. The lock of the inode is held.
func (x *cutFile) save(rs []record, off, n int64) ([]record, error) {
	for page := off / pageBytes; page*pageBytes < off+n; page++ {
		var old []byte
		for s := range int64(pageBytes / sectorBytes) {
			at := page*pageBytes + s*sectorBytes
			if at+sectorBytes <= off || at >= off+n || x.node.dirty[page]&(1<<s) != 0 {
				continue
			}
			if old == nil {
				old = vfs.AlignedBuffer(pageBytes) // the file may be open with ODirect
				if _, err := x.ReadAt(old, page*pageBytes); err != nil && !errors.Is(err, io.EOF) {
					return nil, err
				}
			}
			x.node.dirty[page] |= 1 << s
			rs = append(rs, image(x.node.ino, at, old[s*sectorBytes:(s+1)*sectorBytes]))
		}
	}
	return merge(rs), nil
}

func image(ino uint64, at int64, old []byte) record {
	r := record{kind: kindImage, ino: ino, off: uint64(at), a: sectorBytes}
	if slices.ContainsFunc(old, func(b byte) bool { return b != 0 }) {
		r.data = old
	}
	return r
}

// merge joins neighbouring sectors of zeros into one record.
func merge(rs []record) []record {
	var out []record
	for _, r := range rs {
		if n := len(out); n > 0 && r.kind == kindImage && out[n-1].kind == kindImage && len(r.data)+len(out[n-1].data) == 0 && out[n-1].off+out[n-1].a == r.off {
			out[n-1].a += r.a
			continue
		}
		out = append(out, r)
	}
	return out
}

// change journals what is there, then does it. from and n are the bytes that change, size is the size
// that the file has afterwards, -1 for the same or more if bytes are written behind the end.
func (x *cutFile) change(from, n, size int64, do func() error) error {
	x.node.mu.Lock()
	defer x.node.mu.Unlock()
	var rs []record
	after := max(x.node.size, from+n)
	if size >= 0 {
		after = size
	}
	if after != x.node.size && !x.node.sizeDirty {
		rs = append(rs, record{kind: kindSize, ino: x.node.ino, a: uint64(x.node.size)})
		x.node.sizeDirty = true
	}
	rs, err := x.save(rs, from, n)
	if err != nil {
		return err
	}
	if len(rs) > 0 {
		if err := x.f.log.add(rs...); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	x.node.size = after
	return nil
}

func (x *cutFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = x.change(off, int64(len(p)), -1, func() (err error) {
		n, err = x.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (x *cutFile) WritevAt(bufs [][]byte, off int64) (n int, err error) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	err = x.change(off, int64(total), -1, func() (err error) {
		n, err = x.File.WritevAt(bufs, off)
		return err
	})
	return n, err
}

func (x *cutFile) Truncate(size int64) error {
	x.node.mu.Lock()
	now := x.node.size
	x.node.mu.Unlock()
	return x.change(size, max(0, now-size), size, func() error { return x.File.Truncate(size) })
}

func (x *cutFile) Allocate(off, n int64) error {
	x.node.mu.Lock()
	size := max(x.node.size, off+n)
	x.node.mu.Unlock()
	return x.change(off, 0, size, func() error { return x.File.Allocate(off, n) })
}

func (x *cutFile) Sync() error     { return x.sync(x.File.Sync) }
func (x *cutFile) SyncData() error { return x.sync(x.File.SyncData) }

func (x *cutFile) sync(do func() error) error {
	x.node.settle()
	upTo := x.f.log.last()
	if err := do(); err != nil {
		return err
	}
	err := x.f.log.add(record{kind: kindSynced, ino: x.node.ino, a: upTo})
	return err
}

// Map implements [vfs.File]: what goes through a mapping cannot be journaled.
func (x *cutFile) Map(n int64, writable bool) (vfs.Mapping, error) {
	if writable {
		return nil, fmt.Errorf("map %s for writing: a power cut cannot be played through a mapping: use the write mode pwrite: %w", x.Name(), errors.ErrUnsupported)
	}
	return x.File.Map(n, writable)
}
