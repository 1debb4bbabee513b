package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// indexFile is one hash file of the key index (org.apache.rocketmq.store.index.IndexFile).
//
// Entries are written in order, some buffered; the slot table of a file that takes entries lives
// in memory and goes to disk when the file is full or the store closes, since it can be made again
// from the entries. A finished file is only read.
type indexFile struct {
	f            vfs.File
	path         string
	head         format.IndexHeader
	nSlots, nMax int32
	slots        []int32  // nil: on disk
	changed      []uint64 // a bit for every slotPage of slots that differs from the disk
	buf          []byte   // entries not written yet
	written      int32    // number of the first entry in buf
	headWritten  format.IndexHeader
	named        bool // the directory entry is durable
}

const (
	indexBufferBytes = 64 << 10
	slotPage         = 1024 // slots, 4 KiB
)

// newSlots is an empty slot table.
func (x *indexFile) newSlots() {
	x.slots = make([]int32, x.nSlots)
	pages := (int(x.nSlots) + slotPage - 1) / slotPage
	x.changed = make([]uint64, (pages+63)/64)
}

func (x *indexFile) setSlot(slot, n int32) {
	x.slots[slot] = n
	page := slot / slotPage
	x.changed[page/64] |= 1 << (page % 64)
}

// finished reports whether the file is full and has its slot table on disk.
func (x *indexFile) finished() bool { return x.full() && x.slots == nil }

func (x *indexFile) slotPos(slot int32) int64 {
	return format.IndexHeaderBytes + int64(slot)*format.IndexSlotBytes
}

func (x *indexFile) entryPos(n int32) int64 {
	return format.IndexHeaderBytes + int64(x.nSlots)*format.IndexSlotBytes + int64(n)*format.IndexEntryBytes
}

func createIndexFile(fsys vfs.FS, name string, slots, entries int32, after *format.IndexHeader) (*indexFile, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(format.IndexFileBytes(slots, entries)); err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(name))
	}
	x := &indexFile{f: f, path: name, nSlots: slots, nMax: entries, written: 1}
	x.buf = make([]byte, 0, indexBufferBytes+format.IndexEntryBytes)
	x.newSlots()
	x.head.Count = 1
	if after != nil { // a file that follows another begins with its end
		x.head.BeginTime, x.head.EndTime = after.EndTime, after.EndTime
		x.head.BeginOffset, x.head.EndOffset = after.EndOffset, after.EndOffset
		// On disk at once: the original skips what stands before the end of its newest file, and
		// with an empty head would index again all that it replays after a crash. But if the files
		// before it are not finished by then, this one must not outlive them: while the clock stands
		// still their end is what the checkpoint names, so the end on disk is later.
		head := x.head
		head.EndTime++
		if err := x.writeHead(head); err != nil {
			return nil, errors.Join(err, f.Close(), fsys.Remove(name))
		}
		x.headWritten = x.head
	}
	return x, nil
}

func openIndexFile(fsys vfs.FS, name string, slots, entries int32) (*indexFile, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	x := &indexFile{f: f, path: name, nSlots: slots, nMax: entries, named: true}
	err = x.readHead()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// indexSizeError says that a file has another size than the options make.
type indexSizeError struct {
	Path       string
	Have, Want int64
}

func (e *indexSizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes where index files have %d: open the store with the index sizes it was written with", e.Path, e.Have, e.Want)
}

func (x *indexFile) readHead() error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if want := format.IndexFileBytes(x.nSlots, x.nMax); st.Size() != want {
		return &indexSizeError{x.path, st.Size(), want}
	}
	var b [format.IndexHeaderBytes]byte
	if _, err := x.f.ReadAt(b[:], 0); err != nil {
		return err
	}
	if x.head, err = format.ParseIndexHeader(b[:]); err != nil {
		return err
	}
	if x.head.Count > x.nMax {
		return &CorruptionError{Path: x.path, Offset: 36, What: fmt.Sprintf("index count %d above %d", x.head.Count, x.nMax)}
	}
	x.headWritten = x.head
	x.written = x.head.Count
	return nil
}

func (x *indexFile) full() bool { return x.head.Count >= x.nMax }

// loadSlots brings the slot table into memory.
func (x *indexFile) loadSlots() error {
	if x.slots != nil {
		return nil
	}
	x.newSlots()
	b := make([]byte, 1<<20)
	for at := 0; at < len(x.slots); {
		b := b[:min(len(b), (len(x.slots)-at)*format.IndexSlotBytes)]
		if _, err := x.f.ReadAt(b, x.slotPos(int32(at))); err != nil {
			x.slots = nil
			return err
		}
		for ; len(b) > 0; b = b[format.IndexSlotBytes:] {
			x.slots[at] = int32(binary.BigEndian.Uint32(b))
			at++
		}
	}
	return nil
}

// rebuildSlots makes the slot table from the entries below count, and sets the head to match.
// Entries that stand at or behind the log position end are dropped.
func (x *indexFile) rebuildSlots(end int64) error {
	x.newSlots()
	for i := range x.changed { // what is on disk is another table
		x.changed[i] = ^uint64(0)
	}
	head := x.head
	count := head.Count
	head.UsedSlots, head.Count = 0, 1
	const batch = 16384
	b := make([]byte, batch*format.IndexEntryBytes)
	for n := int32(1); n < count; {
		k := min(int32(batch), count-n)
		if _, err := x.f.ReadAt(b[:int(k)*format.IndexEntryBytes], x.entryPos(n)); err != nil {
			return err
		}
		for i := range k {
			e := parseIndexEntry(b[int(i)*format.IndexEntryBytes:])
			if e.Offset >= end {
				return x.cutAt(head, n+i)
			}
			slot := e.Hash % x.nSlots
			if e.Hash < 0 || e.Prev != x.slots[slot] || n+i > 1 && e.Offset < head.EndOffset {
				return &CorruptionError{Path: x.path, Offset: x.entryPos(n + i), What: "index chain is broken"}
			}
			if x.slots[slot] == 0 {
				head.UsedSlots++
			}
			x.slots[slot] = n + i
			head.Count = n + i + 1
			head.EndOffset = e.Offset
		}
		n += k
	}
	x.head, x.written = head, head.Count
	return nil
}

// cutAt drops the entries from number n on, whose slots were not counted.
func (x *indexFile) cutAt(head format.IndexHeader, n int32) error {
	if n > 1 {
		var b [format.IndexEntryBytes]byte
		if _, err := x.f.ReadAt(b[:], x.entryPos(n-1)); err != nil {
			return err
		}
		e, err := format.ParseIndexEntry(b[:])
		if err != nil {
			return err
		}
		head.EndTime = x.head.BeginTime + int64(e.SecondsDiff)*1000 + 999
	}
	x.head, x.written = head, n
	return nil
}

// put adds one entry.
func (x *indexFile) put(hash int32, pos, storeTime int64) error {
	slot := hash % x.nSlots
	prev := x.slots[slot]
	if prev <= 0 || prev > x.head.Count {
		prev = 0
	}
	diff := int64(0)
	if x.head.BeginTime > 0 {
		diff = min(max((storeTime-x.head.BeginTime)/1000, 0), 1<<31-1)
	}
	x.buf = format.AppendIndexEntry(x.buf, format.IndexEntry{Hash: hash, Offset: pos, SecondsDiff: int32(diff), Prev: prev})
	x.setSlot(slot, x.head.Count)
	if x.head.Count <= 1 {
		x.head.BeginOffset, x.head.BeginTime = pos, storeTime
	}
	if prev == 0 {
		x.head.UsedSlots++
	}
	x.head.Count++
	x.head.EndOffset, x.head.EndTime = pos, storeTime
	if len(x.buf) >= indexBufferBytes {
		return x.writeEntries()
	}
	return nil
}

func (x *indexFile) writeEntries() error {
	if len(x.buf) == 0 {
		return nil
	}
	if _, err := x.f.WriteAt(x.buf, x.entryPos(x.written)); err != nil {
		return err
	}
	x.written = x.head.Count
	x.buf = x.buf[:0]
	return nil
}

// sync makes the entries durable that are counted by head, a copy of the present one, and then
// the head. The entries must have been written. Puts may go on.
func (x *indexFile) sync(head format.IndexHeader) error {
	if head == x.headWritten {
		return nil
	}
	if err := x.f.SyncData(); err != nil {
		return err
	}
	if err := x.writeHead(head); err != nil {
		return err
	}
	return x.f.SyncData()
}

func (x *indexFile) writeHead(head format.IndexHeader) error {
	_, err := x.f.WriteAt(format.AppendIndexHeader(nil, head), 0)
	if err == nil {
		x.headWritten = head
	}
	return err
}

// finish makes the whole file durable in the classic layout, the head last: what it counts is
// there. Nothing may be put meanwhile.
func (x *indexFile) finish() error {
	if err := x.writeEntries(); err != nil {
		return err
	}
	if x.slots != nil {
		if err := x.writeSlots(); err != nil {
			return err
		}
	}
	if err := x.f.SyncData(); err != nil {
		return err
	}
	if err := x.writeHead(x.head); err != nil {
		return err
	}
	if err := x.f.Sync(); err != nil {
		return err
	}
	clear(x.changed)
	return nil
}

// writeSlots writes the pages of the slot table that have changed, runs of them in one call.
func (x *indexFile) writeSlots() error {
	isChanged := func(at int) bool { return x.changed[at/slotPage/64]>>(at/slotPage%64)&1 != 0 }
	b := make([]byte, 0, 1<<20)
	for at := 0; at < len(x.slots); {
		if !isChanged(at) {
			at += slotPage
			continue
		}
		from := at
		for b = b[:0]; at < len(x.slots) && len(b) < cap(b) && isChanged(at); {
			for end := min(at+slotPage, len(x.slots)); at < end; at++ {
				b = binary.BigEndian.AppendUint32(b, uint32(x.slots[at]))
			}
		}
		if _, err := x.f.WriteAt(b, x.slotPos(int32(from))); err != nil {
			return err
		}
	}
	return nil
}

// parseIndexEntry is [format.ParseIndexEntry] for bytes that are there.
func parseIndexEntry(b []byte) format.IndexEntry {
	return format.IndexEntry{
		Hash:        int32(binary.BigEndian.Uint32(b)),
		Offset:      int64(binary.BigEndian.Uint64(b[4:])),
		SecondsDiff: int32(binary.BigEndian.Uint32(b[12:])),
		Prev:        int32(binary.BigEndian.Uint32(b[16:])),
	}
}

func (x *indexFile) slot(slot int32) (int32, error) {
	if x.slots != nil {
		return x.slots[slot], nil
	}
	var b [format.IndexSlotBytes]byte
	_, err := x.f.ReadAt(b[:], x.slotPos(slot))
	return int32(binary.BigEndian.Uint32(b[:])), err
}

func (x *indexFile) entry(n int32) (format.IndexEntry, error) {
	if n >= x.written {
		return format.ParseIndexEntry(x.buf[int(n-x.written)*format.IndexEntryBytes:])
	}
	var b [format.IndexEntryBytes]byte
	if _, err := x.f.ReadAt(b[:], x.entryPos(n)); err != nil {
		return format.IndexEntry{}, err
	}
	return format.ParseIndexEntry(b[:])
}

// query appends the positions of entries with the hash, newest first, up to limit in all.
func (x *indexFile) query(dst []int64, hash int32, limit int, begin, end int64) ([]int64, error) {
	n, err := x.slot(hash % x.nSlots)
	if err != nil {
		return dst, err
	}
	if n <= 0 || n > x.head.Count || x.head.Count <= 1 {
		return dst, nil
	}
	for len(dst) < limit {
		e, err := x.entry(n)
		if err != nil {
			return dst, err
		}
		if e.SecondsDiff < 0 {
			break
		}
		t := x.head.BeginTime + int64(e.SecondsDiff)*1000
		// The difference was cut to seconds: the true time is up to 999 ms later.
		if e.Hash == hash && t+999 >= begin && t <= end {
			dst = append(dst, e.Offset)
		}
		if e.Prev <= 0 || e.Prev >= n || t+999 < begin {
			break
		}
		n = e.Prev
	}
	return dst, nil
}

func (x *indexFile) overlaps(begin, end int64) bool {
	return begin <= x.head.EndTime && end >= x.head.BeginTime
}
