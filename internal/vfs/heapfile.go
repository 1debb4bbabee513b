package vfs

import (
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
)

// heapFile is one handle. Its fields are fixed, but for closed, which h.mu guards.
type heapFile struct {
	h                          *Heap
	n                          *node
	name                       string
	readable, writable, direct bool
	closed                     bool
}

func (f *heapFile) Name() string        { return f.name }
func (f *heapFile) Fd() (uintptr, bool) { return 0, false }

// use checks the handle for an operation; write says that the operation changes the file.
func (f *heapFile) use(op string, write bool) error {
	switch {
	case f.closed:
		return pathErr(op, f.name, os.ErrClosed)
	case write && !f.writable, op == "read" && !f.readable:
		return pathErr(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *heapFile) aligned(off int64, n int) bool {
	return !f.direct || (off%sectorBytes == 0 && n%sectorBytes == 0)
}

func (f *heapFile) Close() error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if f.closed {
		return pathErr("close", f.name, os.ErrClosed)
	}
	f.closed = true
	delete(f.h.handles, f)
	f.n.opens--
	f.h.reap(f.n)
	return nil
}

func (f *heapFile) ReadAt(p []byte, off int64) (int, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("read", false); err != nil {
		return 0, err
	}
	if off < 0 || !f.aligned(off, len(p)) {
		return 0, pathErr("read", f.name, syscall.EINVAL)
	}
	n := 0
	for n < len(p) && off+int64(n) < f.n.size {
		i, at := (off+int64(n))/pageBytes, int((off+int64(n))%pageBytes)
		end := min(int64(pageBytes), f.n.size-i*pageBytes)
		n += moveBytes(p[n:], f.n.bytes(i)[at:end])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// bytes gives the present content of page i for reading.
func (n *node) bytes(i int64) []byte {
	if from := i * pageBytes; from < int64(len(n.buf)) {
		return n.buf[from : from+pageBytes]
	}
	if p := n.cur[i]; p != nil {
		return p[:]
	}
	return zeroPage[:]
}

// dirty gives page i for writing.
func (n *node) dirty(i int64) []byte {
	if from := i * pageBytes; from < int64(len(n.buf)) {
		return n.buf[from : from+pageBytes]
	}
	if _, own := n.own[i]; !own || n.cur[i] == nil {
		p := new(page)
		if old := n.cur[i]; old != nil {
			*p = *old
		}
		n.cur[i] = p
		n.own[i] = struct{}{}
	}
	return n.cur[i][:]
}

func (f *heapFile) WriteAt(p []byte, off int64) (int, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return f.write(p, off)
}

func (f *heapFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	done := 0
	for _, b := range bufs {
		n, err := f.write(b, off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (f *heapFile) write(p []byte, off int64) (int, error) {
	if err := f.use("write", true); err != nil {
		return 0, err
	}
	if off < 0 || !f.aligned(off, len(p)) {
		return 0, pathErr("write", f.name, syscall.EINVAL)
	}
	n, h := f.n, f.h
	done := 0
	for done < len(p) {
		at := off + int64(done)
		i := at / pageBytes
		if n.cur[i] == nil && at >= n.allocated && at >= int64(len(n.buf)) {
			if h.used+pageBytes > h.capacity {
				return done, pathErr("write", f.name, syscall.ENOSPC)
			}
			h.used += pageBytes
		}
		done += moveBytes(n.dirty(i)[at%pageBytes:], p[done:])
		if end := off + int64(done); end > n.size {
			n.size = end
			n.grown = true
		}
	}
	n.mtime = h.clock()
	return done, nil
}

func (f *heapFile) Stat() (os.FileInfo, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("stat", false); err != nil {
		return nil, err
	}
	return f.n.info(base(f.name)), nil
}

func (f *heapFile) Truncate(size int64) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("truncate", true); err != nil {
		return err
	}
	if size < 0 {
		return pathErr("truncate", f.name, syscall.EINVAL)
	}
	f.h.truncate(f.n, size)
	return nil
}

// truncate sets the length. What is cut off reads as zeros if the file grows again.
func (h *Heap) truncate(n *node, size int64) {
	if size < n.size {
		before := n.charge()
		n.allocated = min(n.allocated, alignUp(size))
		for _, i := range n.pages() {
			switch {
			case (i+1)*pageBytes <= size:
			case i*pageBytes < size:
				clear(n.dirty(i)[size%pageBytes:])
			case i*pageBytes < int64(len(n.buf)):
				clear(n.dirty(i))
			default:
				delete(n.cur, i)
				n.own[i] = struct{}{}
			}
		}
		h.used += n.charge() - before
	}
	n.size = size
	n.mtime = h.clock()
}

// pages lists the pages that may hold something, in order.
func (n *node) pages() []int64 {
	seen := map[int64]struct{}{}
	for i := range n.cur {
		seen[i] = struct{}{}
	}
	for i := range n.dur {
		seen[i] = struct{}{}
	}
	for i := int64(0); i < int64(len(n.buf))/pageBytes; i++ {
		seen[i] = struct{}{}
	}
	list := make([]int64, 0, len(seen))
	for i := range seen {
		list = append(list, i)
	}
	slices.Sort(list)
	return list
}

func alignUp(n int64) int64 { return (n + pageBytes - 1) &^ (pageBytes - 1) }

func (f *heapFile) Allocate(off, n int64) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("allocate", true); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return pathErr("allocate", f.name, syscall.EINVAL)
	}
	before, old := f.n.charge(), f.n.allocated
	f.n.allocated = max(old, alignUp(off+n)) // a hole before off counts as reserved: close enough
	more := f.n.charge() - before
	if f.h.used+more > f.h.capacity {
		f.n.allocated = old
		return pathErr("allocate", f.name, syscall.ENOSPC)
	}
	f.h.used += more
	f.n.size = max(f.n.size, off+n)
	f.n.mtime = f.h.clock()
	return nil
}

func (f *heapFile) Sync() error     { return f.syncAll() }
func (f *heapFile) SyncData() error { return f.syncAll() }

func (f *heapFile) syncAll() error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("sync", false); err != nil {
		return err
	}
	f.n.sync()
	return nil
}

// sync makes the present content and length durable.
func (n *node) sync() {
	for i := range n.own {
		n.keep(i)
	}
	clear(n.own)
	n.syncBuf(0, int64(len(n.buf)))
	n.durableSize = n.size
	n.grown = false
}

func (n *node) keep(i int64) {
	if i*pageBytes < int64(len(n.buf)) {
		return
	}
	if p := n.cur[i]; p != nil {
		n.dur[i] = p
	} else {
		delete(n.dur, i)
	}
}

// syncBuf makes the pages of the mapped part that touch [from, to) durable.
func (n *node) syncBuf(from, to int64) {
	for i := from / pageBytes; i*pageBytes < to; i++ {
		now := n.buf[i*pageBytes : (i+1)*pageBytes]
		old := n.dur[i]
		if old == nil {
			old = &zeroPage
		}
		if !sameBytes(now, old[:]) {
			p := new(page)
			moveBytes(p[:], now)
			n.dur[i] = p
		}
	}
}

func (f *heapFile) StartWriteback(_, _ int64) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return f.use("writeback", false)
}

func (f *heapFile) DropCache(_, _ int64) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return f.use("fadvise", false)
}

// Map moves the file into one piece of memory, which stays its home from then on. All mappings of
// a file share it, so the first one fixes the length that later ones may ask for while it lives.
func (f *heapFile) Map(size int64, writable bool) (Mapping, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if err := f.use("mmap", writable); err != nil {
		return nil, err
	}
	if size <= 0 {
		return nil, pathErr("mmap", f.name, syscall.EINVAL)
	}
	n := f.n
	if size > int64(len(n.buf)) {
		for m := range f.h.mappings {
			if m.n == n {
				return nil, pathErr("mmap", f.name, syscall.ENOMEM)
			}
		}
		buf := make([]byte, alignUp(max(size, n.size)))
		before := n.charge()
		for _, i := range n.pages() {
			if i*pageBytes < int64(len(buf)) {
				moveBytes(buf[i*pageBytes:(i+1)*pageBytes], n.bytes(i))
				delete(n.cur, i)
				delete(n.own, i)
			}
		}
		n.buf = buf
		n.allocated = max(n.allocated, int64(len(buf)))
		f.h.used += n.charge() - before
	}
	m := &heapMapping{h: f.h, n: n, name: f.name, bytes: n.buf[:size:size]}
	n.opens++
	f.h.mappings[m] = struct{}{}
	return m, nil
}

type heapMapping struct {
	h     *Heap
	n     *node
	name  string
	bytes []byte
}

func (m *heapMapping) Bytes() []byte { return m.bytes }

func (m *heapMapping) Sync(off, n int64) error {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if m.bytes == nil {
		return pathErr("msync", m.name, os.ErrClosed)
	}
	m.n.syncBuf(off&^(pageBytes-1), min(alignUp(off+n), int64(len(m.n.buf))))
	return nil
}

func (m *heapMapping) Close() error {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if m.bytes == nil {
		return nil
	}
	m.bytes = nil
	delete(m.h.mappings, m)
	m.n.opens--
	m.h.reap(m.n)
	return nil
}

// crash returns what a power cut could leave of the file.
func (n *node) crash(rng *rand.Rand) *node {
	size := n.size
	if n.durableSize != n.size {
		switch rng.IntN(3) {
		case 0:
			size = n.durableSize
		case 1:
			if n.grown && n.size > n.durableSize {
				size = min(n.size, alignUp(n.durableSize+rng.Int64N(n.size-n.durableSize)))
			}
		}
	}
	dup := newFile(n.mode)
	dup.mtime, dup.size, dup.durableSize = n.mtime, size, size
	dup.allocated = min(n.allocated, alignUp(size))
	for _, i := range n.pages() {
		if i*pageBytes >= size {
			continue
		}
		old := n.dur[i]
		_, own := n.own[i]
		p := old
		if own || i*pageBytes < int64(len(n.buf)) {
			p = n.mix(rng, i, old)
		}
		if p == nil {
			continue
		}
		if end := size - i*pageBytes; end < pageBytes {
			cut := new(page)
			copy(cut[:end], p[:end])
			p = cut
		}
		dup.cur[i], dup.dur[i] = p, p
	}
	return dup
}

// mix draws page i sector by sector from its durable and its present bytes. Beyond the present
// length there is nothing new to draw from.
func (n *node) mix(rng *rand.Rand, i int64, old *page) *page {
	now := n.bytes(i)
	if old == nil {
		old = &zeroPage
	}
	p := new(page)
	*p = *old
	for s := 0; s < pageBytes; s += sectorBytes {
		if i*pageBytes+int64(s) < n.size && rng.IntN(2) == 1 {
			moveBytes(p[s:s+sectorBytes], now[s:s+sectorBytes])
		}
	}
	return p
}

// clone copies the file with its present and its durable side.
func (n *node) clone() *node {
	dup := newFile(n.mode)
	dup.mtime, dup.size, dup.durableSize = n.mtime, n.size, n.durableSize
	dup.grown, dup.allocated = n.grown, n.allocated
	for i, p := range n.dur {
		dup.dur[i] = p
	}
	for i, p := range n.cur {
		if _, own := n.own[i]; own {
			c := *p
			p = &c
		}
		dup.cur[i] = p
	}
	for i := range n.own {
		dup.own[i] = struct{}{}
	}
	for i := int64(0); i < int64(len(n.buf))/pageBytes; i++ {
		if now := n.bytes(i); !sameBytes(now, zeroPage[:]) || n.dur[i] != nil {
			p := new(page)
			moveBytes(p[:], now)
			dup.cur[i] = p
			dup.own[i] = struct{}{}
		}
	}
	return dup
}
