package engine

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"rmq/engine/format"
)

const (
	slabBytes     = 1 << 20
	blockUnit     = 128 // the smallest block
	blockHead     = 8   // queue offset of the first entry in the block
	blockClasses  = 10  // 128 bytes to 64 KiB
	maxBlockClass = blockClasses - 1
)

// blockRef names a block of an [entryArena]: class, slab and place in the slab. It holds no
// pointer, so that a million of them cost the garbage collector nothing.
type blockRef uint32

func newBlockRef(class, slab, unit int) blockRef {
	return blockRef(class<<28 | slab<<13 | unit)
}

func (r blockRef) class() int { return int(r >> 28) }
func (r blockRef) slab() int  { return int(r >> 13 & (1<<15 - 1)) }
func (r blockRef) unit() int  { return int(r & (1<<13 - 1)) }

func classBytes(class int) int   { return blockUnit << class }
func classEntries(class int) int { return (classBytes(class) - blockHead) / format.CQEntryBytes }

// entryArena gives out the blocks in which queue entries wait for their file: sizes double from
// 128 bytes, are split from larger ones on demand, and lie in slabs of 1 MiB without pointers.
// When the last block comes back all slabs are let go.
//
// alloc and free may be called at any time; the bytes of a block belong to its queue.
type entryArena struct {
	slabs atomic.Pointer[[][]byte]
	used  atomic.Int64 // bytes in blocks given out

	mu    sync.Mutex // leaf
	lists [blockClasses][]blockRef
}

// bytes is the whole block.
func (a *entryArena) bytes(r blockRef) []byte {
	from := r.unit() * blockUnit
	return (*a.slabs.Load())[r.slab()][from : from+classBytes(r.class())]
}

func (a *entryArena) alloc(class int) blockRef {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used.Add(int64(classBytes(class)))
	from := class
	for from < blockClasses && len(a.lists[from]) == 0 {
		from++
	}
	if from == blockClasses {
		a.addSlab()
		from = maxBlockClass
	}
	list := a.lists[from]
	r := list[len(list)-1]
	a.lists[from] = list[:len(list)-1]
	for from > class {
		from--
		half := newBlockRef(from, r.slab(), r.unit()+classBytes(from)/blockUnit)
		a.lists[from] = append(a.lists[from], half)
	}
	return newBlockRef(class, r.slab(), r.unit())
}

func (a *entryArena) addSlab() {
	var slabs [][]byte
	if old := a.slabs.Load(); old != nil {
		slabs = append(slabs, *old...)
	}
	slab := len(slabs)
	slabs = append(slabs, make([]byte, slabBytes))
	a.slabs.Store(&slabs)
	for at := slabBytes - classBytes(maxBlockClass); at >= 0; at -= classBytes(maxBlockClass) {
		a.lists[maxBlockClass] = append(a.lists[maxBlockClass], newBlockRef(maxBlockClass, slab, at/blockUnit))
	}
}

func (a *entryArena) free(r blockRef) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists[r.class()] = append(a.lists[r.class()], r)
	if a.used.Add(-int64(classBytes(r.class()))) == 0 {
		if slabs := a.slabs.Load(); len(*slabs) > 4 {
			a.slabs.Store(nil)
			a.lists = [blockClasses][]blockRef{}
		}
	}
}

// entryList is a run of consecutive queue entries in blocks. Offsets are those of the queue.
// It is used under the lock of its queue.
type entryList struct {
	blocks []blockRef
}

// grow adds a block for the entry at offset and returns the room in it. Blocks grow with the list, so that a queue with few
// entries takes little and one with many is in few pieces: at most a quarter of it is unused.
func (l *entryList) grow(a *entryArena, offset int64) []byte {
	class := 0
	if n := len(l.blocks); n > 0 {
		last := l.blocks[n-1]
		class = last.class()
		// Four blocks of a size make room for one of the next.
		if class < maxBlockClass && n >= 4 && l.blocks[n-4].class() == class {
			class++
		}
	}
	r := a.alloc(class)
	b := a.bytes(r)
	binary.BigEndian.PutUint64(b, uint64(offset))
	l.blocks = append(l.blocks, r)
	return b[blockHead : blockHead+classEntries(class)*format.CQEntryBytes]
}

// copyOut copies encoded entries from offset on, up to end, into dst and returns how many bytes.
func (l *entryList) copyOut(a *entryArena, offset, end int64, dst []byte) int {
	low, high := 0, len(l.blocks)
	for high-low > 1 {
		if mid := (low + high) / 2; int64(binary.BigEndian.Uint64(a.bytes(l.blocks[mid]))) <= offset {
			low = mid
		} else {
			high = mid
		}
	}
	n := 0
	for i := low; i < len(l.blocks) && n < len(dst) && offset < end; i++ {
		b := a.bytes(l.blocks[i])
		start := int64(binary.BigEndian.Uint64(b))
		have := min(int64(classEntries(l.blocks[i].class())), end-start)
		from := blockHead + (offset-start)*format.CQEntryBytes
		c := copy(dst[n:], b[from:blockHead+have*format.CQEntryBytes])
		n += c
		offset += int64(c / format.CQEntryBytes)
	}
	return n
}

// dropBelow gives back the blocks that hold nothing at or above offset, all but the last one.
func (l *entryList) dropBelow(a *entryArena, offset int64) {
	n := 0
	for n+1 < len(l.blocks) && int64(binary.BigEndian.Uint64(a.bytes(l.blocks[n+1]))) <= offset {
		a.free(l.blocks[n])
		n++
	}
	if n > 0 {
		l.blocks = append(l.blocks[:0], l.blocks[n:]...)
	}
}

// cut drops the entries at and above end and returns the room in the last block.
func (l *entryList) cut(a *entryArena, end int64) []byte {
	for n := len(l.blocks); n > 0; n-- {
		r := l.blocks[n-1]
		b := a.bytes(r)
		start := int64(binary.BigEndian.Uint64(b))
		if start < end {
			return b[blockHead+(end-start)*format.CQEntryBytes : blockHead+classEntries(r.class())*format.CQEntryBytes]
		}
		l.blocks = l.blocks[:n-1]
		a.free(r)
	}
	return nil
}

func (l *entryList) clear(a *entryArena) {
	for _, r := range l.blocks {
		a.free(r)
	}
	if cap(l.blocks) > 64 {
		l.blocks = nil
	}
	l.blocks = l.blocks[:0]
}
