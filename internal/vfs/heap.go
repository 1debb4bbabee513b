package vfs

import (
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Heap is a file system in memory that knows what a power cut would leave of it.
//
// Beside the present bytes of every file it keeps the durable ones: what was there at the last
// [File.Sync], [File.SyncData], [Mapping.Sync] or [FS.SyncFS]. Directory entries (create, mkdir,
// rename, remove) are durable only after [FS.SyncDir] of a directory they touch, or SyncFS; syncing
// a new file does not keep its name, a stricter rule than that of the usual file systems, and the
// one that POSIX gives. [Heap.CrashImage] draws one of the states that a cut could leave behind.
//
// Contents live in 4 KiB pages that exist once written, so a preallocated 1 GiB file costs nothing.
// Names are taken relative to one root, with or without a leading slash.
//
// Safe for concurrent use. It starts no goroutine.
type Heap struct {
	mu       sync.Mutex
	root     *node
	pending  []change // directory changes not yet durable, oldest first
	clock    func() time.Time
	capacity int64
	used     int64
	handles  map[*heapFile]struct{}
	mappings map[*heapMapping]struct{}
	locks    map[string]struct{}
}

const (
	sectorBytes = 512
	// heapCapacity is what an unlimited heap reports as its size.
	heapCapacity = 1 << 40
)

type page [pageBytes]byte

var zeroPage page

// node is a file or a directory. The fields below the tree part are used by files only.
type node struct {
	dir     bool
	mode    os.FileMode
	mtime   time.Time
	entries map[string]*node // directory: present entries
	durable map[string]*node // directory: entries that survive a power cut
	links   int              // names in the present tree
	opens   int              // handles and mappings

	size, durableSize int64
	grown             bool // a write made the file longer since the last sync: any length between may survive
	allocated         int64
	cur, dur          map[int64]*page
	// own holds the pages that differ, or may differ, from their durable copy. Only those may be
	// written in place; every other page is shared with dur and with images, and is copied first.
	own map[int64]struct{}
	// buf, once the file has been mapped, is where its first len(buf) bytes live.
	buf []byte
}

// change is one directory operation: a removal (to is nil), a creation (from is nil) or a rename.
type change struct {
	what           *node
	from, to       *node // directories
	oldName, newer string
}

// NewHeap returns an empty file system with a root directory.
func NewHeap() *Heap {
	return &Heap{
		root:     newDir(0o755),
		clock:    time.Now,
		capacity: heapCapacity,
		handles:  map[*heapFile]struct{}{},
		mappings: map[*heapMapping]struct{}{},
		locks:    map[string]struct{}{},
	}
}

func newDir(perm os.FileMode) *node {
	return &node{
		dir: true, mode: perm.Perm() | os.ModeDir, links: 1,
		entries: map[string]*node{}, durable: map[string]*node{},
	}
}

func newFile(perm os.FileMode) *node {
	return &node{
		mode: perm.Perm(),
		cur:  map[int64]*page{}, dur: map[int64]*page{}, own: map[int64]struct{}{},
	}
}

// SetClock replaces time.Now as the source of modification times.
func (h *Heap) SetClock(now func() time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock = now
}

// SetCapacity limits the space; writes and allocations beyond it give ENOSPC.
func (h *Heap) SetCapacity(bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.capacity = bytes
}

// OpenFiles names the files that are open, sorted, once for each handle.
func (h *Heap) OpenFiles() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for f := range h.handles {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// LiveMappings names the files that are mapped, sorted, once for each mapping.
func (h *Heap) LiveMappings() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for m := range h.mappings {
		names = append(names, m.name)
	}
	slices.Sort(names)
	return names
}

// HeldLocks names the lock files that are held, sorted.
func (h *Heap) HeldLocks() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.locks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// split gives the path elements of name.
func split(name string) []string {
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

// find walks to the node that name stands for. The lock is held.
func (h *Heap) find(name string) (*node, error) {
	n := h.root
	for _, elem := range split(name) {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		next := n.entries[elem]
		if next == nil {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, nil
}

// parent finds the directory that holds name, and name's last element. The lock is held.
func (h *Heap) parent(name string) (*node, string, error) {
	elems := split(name)
	if len(elems) == 0 {
		return nil, "", syscall.EBUSY
	}
	dir, err := h.find(strings.Join(elems[:len(elems)-1], "/"))
	if err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", syscall.ENOTDIR
	}
	return dir, elems[len(elems)-1], nil
}

func pathErr(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// OpenFile implements [FS].
func (h *Heap) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if flag&os.O_APPEND != 0 {
		return nil, pathErr("open", name, syscall.EINVAL)
	}
	dir, last, err := h.parent(name)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	n := dir.entries[last]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathErr("open", name, syscall.ENOENT)
	case n == nil:
		n = newFile(perm)
		n.mtime = h.clock()
		h.link(dir, last, n)
		h.pending = append(h.pending, change{what: n, to: dir, newer: last})
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, pathErr("open", name, syscall.EEXIST)
	case n.dir:
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	access := flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	if flag&os.O_TRUNC != 0 && access != os.O_RDONLY {
		h.truncate(n, 0)
	}
	f := &heapFile{
		h: h, n: n, name: name,
		readable: access != os.O_WRONLY, writable: access != os.O_RDONLY, direct: flag&ODirect != 0,
	}
	n.opens++
	h.handles[f] = struct{}{}
	return f, nil
}

func (h *Heap) link(dir *node, name string, n *node) {
	if old := dir.entries[name]; old != nil {
		h.unlink(dir, name)
	}
	dir.entries[name] = n
	n.links++
}

func (h *Heap) unlink(dir *node, name string) {
	n := dir.entries[name]
	delete(dir.entries, name)
	n.links--
	h.reap(n)
}

// reap gives back the space of a file that has neither a name nor a user.
func (h *Heap) reap(n *node) {
	if n.links == 0 && n.opens == 0 && !n.dir {
		h.used -= n.charge() // the bytes stay: a power cut may bring the name back
	}
}

// charge is the space that the file takes.
func (n *node) charge() int64 {
	total := n.allocated
	for i := range n.cur {
		if i*pageBytes >= n.allocated {
			total += pageBytes
		}
	}
	return total
}

// Stat implements [FS].
func (h *Heap) Stat(name string) (os.FileInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.find(name)
	if err != nil {
		return nil, pathErr("stat", name, err)
	}
	return n.info(base(name)), nil
}

func (n *node) info(name string) *fileInfo {
	return &fileInfo{name: name, size: n.size, mode: n.mode, mtime: n.mtime}
}

// ReadDir implements [FS].
func (h *Heap) ReadDir(name string) ([]os.DirEntry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	list := make([]os.DirEntry, 0, len(n.entries))
	for elem, child := range n.entries {
		list = append(list, child.info(elem))
	}
	slices.SortFunc(list, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// MkdirAll implements [FS].
func (h *Heap) MkdirAll(name string, perm os.FileMode) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.root
	for _, elem := range split(name) {
		next := n.entries[elem]
		if next == nil {
			next = newDir(perm)
			next.links = 0
			next.mtime = h.clock()
			h.link(n, elem, next)
			h.pending = append(h.pending, change{what: next, to: n, newer: elem})
		}
		if !next.dir {
			return pathErr("mkdir", name, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// Remove implements [FS].
func (h *Heap) Remove(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return pathErr("remove", name, h.remove(name, false))
}

// RemoveAll implements [FS].
func (h *Heap) RemoveAll(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.remove(name, true); err != syscall.ENOENT { //nolint:errorlint // a bare errno
		return pathErr("removeall", name, err)
	}
	return nil
}

func (h *Heap) remove(name string, all bool) error {
	dir, last, err := h.parent(name)
	if err != nil {
		return err
	}
	n := dir.entries[last]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n.dir && len(n.entries) > 0 && !all:
		return syscall.ENOTEMPTY
	case n.dir && all:
		for _, child := range sortedKeys(n.entries) {
			if err := h.remove(name+"/"+child, true); err != nil {
				return err
			}
		}
	}
	h.unlink(dir, last)
	h.pending = append(h.pending, change{what: n, from: dir, oldName: last})
	return nil
}

// Rename implements [FS].
func (h *Heap) Rename(from, to string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	fail := func(err error) error { return &os.LinkError{Op: "rename", Old: from, New: to, Err: err} }
	fromDir, fromLast, err := h.parent(from)
	if err != nil {
		return fail(err)
	}
	toDir, toLast, err := h.parent(to)
	if err != nil {
		return fail(err)
	}
	n := fromDir.entries[fromLast]
	if n == nil {
		return fail(syscall.ENOENT)
	}
	if n == toDir.entries[toLast] {
		return nil
	}
	if old := toDir.entries[toLast]; old != nil {
		switch {
		case old.dir && !n.dir:
			return fail(syscall.EISDIR)
		case !old.dir && n.dir:
			return fail(syscall.ENOTDIR)
		case old.dir && len(old.entries) > 0:
			return fail(syscall.ENOTEMPTY)
		}
	}
	h.link(toDir, toLast, n)
	h.unlink(fromDir, fromLast)
	h.pending = append(h.pending, change{what: n, from: fromDir, oldName: fromLast, to: toDir, newer: toLast})
	return nil
}

// Chtimes implements [FS].
func (h *Heap) Chtimes(name string, mtime time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.find(name)
	if err != nil {
		return pathErr("chtimes", name, err)
	}
	n.mtime = mtime
	return nil
}

// SyncDir implements [FS]. A rename is one step: syncing either directory keeps both halves, and
// with them every earlier change of the same names.
func (h *Heap) SyncDir(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	dir, err := h.find(name)
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return pathErr("syncdir", name, err)
	}
	type entry struct {
		dir  *node
		name string
	}
	keep := map[entry]bool{}
	take := make([]bool, len(h.pending))
	for i, c := range slices.Backward(h.pending) {
		if c.from == dir || c.to == dir || keep[entry{c.from, c.oldName}] || keep[entry{c.to, c.newer}] {
			take[i] = true
			keep[entry{c.from, c.oldName}] = c.from != nil
			keep[entry{c.to, c.newer}] = c.to != nil
		}
	}
	var rest []change
	for i, c := range h.pending {
		if take[i] {
			c.apply()
		} else {
			rest = append(rest, c)
		}
	}
	h.pending = rest
	return nil
}

// apply makes the change durable.
func (c change) apply() {
	if c.from != nil && c.from.durable[c.oldName] == c.what {
		delete(c.from.durable, c.oldName)
	}
	if c.to != nil {
		c.to.durable[c.newer] = c.what
	}
}

// SyncFS implements [FS].
func (h *Heap) SyncFS(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.find(name); err != nil {
		return pathErr("syncfs", name, err)
	}
	for _, c := range h.pending {
		c.apply()
	}
	h.pending = nil
	h.root.walk(func(n *node) {
		if !n.dir {
			n.sync()
		}
	})
	return nil
}

func (n *node) walk(f func(*node)) {
	f(n)
	for _, child := range n.entries {
		child.walk(f)
	}
}

// Usage implements [FS].
func (h *Heap) Usage(name string) (Usage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.find(name); err != nil {
		return Usage{}, pathErr("statfs", name, err)
	}
	free := max(0, h.capacity-h.used)
	return Usage{Total: h.capacity, Free: free, Avail: free}, nil
}

// Lock implements [FS].
func (h *Heap) Lock(name string) (io.Closer, error) {
	key := path.Clean("/" + name)
	h.mu.Lock()
	if _, held := h.locks[key]; held {
		h.mu.Unlock()
		return nil, &LockedError{Path: name, PID: os.Getpid()}
	}
	h.locks[key] = struct{}{}
	n, err := h.find(name)
	isDir := err == nil && n.dir
	h.mu.Unlock()

	lock := &heapLock{h: h, key: key}
	if isDir {
		return lock, nil
	}
	f, err := h.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.WriteAt([]byte(lockText), 0)
		if err == nil {
			err = f.Sync()
		}
		_ = f.Close() // the heap loses nothing on close
	}
	if err != nil {
		_ = lock.Close() // the error above is the one to report
		return nil, err
	}
	return lock, nil
}

type heapLock struct {
	h   *Heap
	key string
}

func (l *heapLock) Close() error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	delete(l.h.locks, l.key)
	return nil
}

// CrashImage returns what a power cut at this moment could leave, one case out of many, drawn by
// seed: of each 512-byte sector that is not synced either the durable or the present bytes, of each
// file that is not synced either length (or one between, where writes made it longer), and of the
// directory changes that are not synced any subset, applied in order. Everything in the image is
// durable, nothing is open. The heap itself goes on unchanged.
func (h *Heap) CrashImage(seed uint64) *Heap {
	h.mu.Lock()
	defer h.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))

	// The survivors' directory entries: durable ones, then a subset of the pending changes.
	names := map[*node]map[string]*node{}
	entries := func(dir *node) map[string]*node {
		m, ok := names[dir]
		if !ok {
			m = map[string]*node{}
			for name, n := range dir.durable {
				m[name] = n
			}
			names[dir] = m
		}
		return m
	}
	for _, c := range h.pending {
		if rng.IntN(2) == 0 {
			continue
		}
		if c.from != nil && entries(c.from)[c.oldName] == c.what {
			delete(entries(c.from), c.oldName)
		}
		if c.to != nil {
			entries(c.to)[c.newer] = c.what
		}
	}

	img := h.sibling()
	img.root = h.copyTree(img, map[*node]*node{}, h.root, entries, func(n *node) *node { return n.crash(rng) })
	return img
}

// KillImage returns what a process finds that takes over after this one was killed: all present
// bytes and names, with what is durable kept apart as before.
func (h *Heap) KillImage() *Heap {
	h.mu.Lock()
	defer h.mu.Unlock()
	img := h.sibling()
	seen := map[*node]*node{}
	img.root = h.copyTree(img, seen, h.root, func(dir *node) map[string]*node { return dir.entries }, (*node).clone)
	// The durable side names the same copies; files that only it still names are copied now.
	copyOf := func(n *node) *node {
		if n == nil || seen[n] != nil {
			return seen[n]
		}
		return h.copyTree(img, seen, n, func(dir *node) map[string]*node { return dir.durable }, (*node).clone)
	}
	for orig, dup := range seen {
		if orig.dir {
			clear(dup.durable)
		}
		for name, child := range orig.durable {
			dup.durable[name] = copyOf(child)
		}
	}
	for _, c := range h.pending {
		img.pending = append(img.pending, change{
			what: copyOf(c.what), from: copyOf(c.from), oldName: c.oldName, to: copyOf(c.to), newer: c.newer,
		})
	}
	return img
}

// sibling is an empty heap with the same settings.
func (h *Heap) sibling() *Heap {
	img := NewHeap()
	img.clock, img.capacity = h.clock, h.capacity
	return img
}

// copyTree copies the tree below n into img, with the given entries of each directory and the
// given copy of each file. Entries of the copy are durable. It goes by sorted names, so that equal
// seeds give equal images.
func (h *Heap) copyTree(img *Heap, seen map[*node]*node, n *node, entries func(*node) map[string]*node, file func(*node) *node) *node {
	if dup := seen[n]; dup != nil {
		return dup
	}
	if !n.dir {
		dup := file(n)
		seen[n] = dup
		img.used += dup.charge()
		return dup
	}
	dup := newDir(n.mode)
	dup.mtime = n.mtime
	seen[n] = dup
	list := entries(n)
	for _, name := range sortedKeys(list) {
		child := h.copyTree(img, seen, list[name], entries, file)
		child.links++
		dup.entries[name] = child
		dup.durable[name] = child
	}
	return dup
}

func sortedKeys(m map[string]*node) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
