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
// Entries are written in order, some buffered; the slot table of the newest file lives in memory
// and goes to disk when the file is full or the store closes, since it can be made again from
// the entries. A finished file is only read.
type indexFile struct {
	f            vfs.File
	path         string
	head         format.IndexHeader
	nSlots, nMax int32
	slots        []int32 // nil: on disk
	buf          []byte  // entries not written yet
	written      int32   // number of the first entry in buf
	headWritten  format.IndexHeader
}

const indexBufferBytes = 64 << 10

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
	err = f.Truncate(format.IndexFileBytes(slots, entries))
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(name))
	}
	x := &indexFile{f: f, path: name, nSlots: slots, nMax: entries, slots: make([]int32, slots), written: 1}
	x.head.Count = 1
	if after != nil { // a file that follows another begins with its end
		x.head.BeginTime, x.head.EndTime = after.EndTime, after.EndTime
		x.head.BeginOffset, x.head.EndOffset = after.EndOffset, after.EndOffset
	}
	return x, nil
}

func openIndexFile(fsys vfs.FS, name string, slots, entries int32) (*indexFile, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	x := &indexFile{f: f, path: name, nSlots: slots, nMax: entries}
	err = x.readHead()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

func (x *indexFile) readHead() error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if want := format.IndexFileBytes(x.nSlots, x.nMax); st.Size() != want {
		return fmt.Errorf("%s has %d bytes where index files have %d: open the store with the index sizes it was written with", x.path, st.Size(), want)
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
	b := make([]byte, int(x.nSlots)*format.IndexSlotBytes)
	if _, err := x.f.ReadAt(b, x.slotPos(0)); err != nil {
		return err
	}
	x.slots = make([]int32, x.nSlots)
	for i := range x.slots {
		x.slots[i] = int32(binary.BigEndian.Uint32(b[i*format.IndexSlotBytes:]))
	}
	return nil
}

// rebuildSlots makes the slot table from the entries below count, and sets the head to match.
// Entries that stand at or behind the log position end are dropped.
func (x *indexFile) rebuildSlots(end int64) error {
	x.slots = make([]int32, x.nSlots)
	head := x.head
	count := head.Count
	head.UsedSlots, head.Count = 0, 1
	const batch = 4096
	b := make([]byte, batch*format.IndexEntryBytes)
	for n := int32(1); n < count; {
		k := min(int32(batch), count-n)
		if _, err := x.f.ReadAt(b[:int(k)*format.IndexEntryBytes], x.entryPos(n)); err != nil {
			return err
		}
		for i := range k {
			e, err := format.ParseIndexEntry(b[int(i)*format.IndexEntryBytes:])
			if err != nil {
				return err
			}
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
	x.slots[slot] = x.head.Count
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

func (x *indexFile) writeHead() error {
	if x.head == x.headWritten {
		return nil
	}
	_, err := x.f.WriteAt(format.AppendIndexHeader(nil, x.head), 0)
	if err == nil {
		x.headWritten = x.head
	}
	return err
}

// checkpoint makes the entries durable, then the head that counts them.
func (x *indexFile) checkpoint() error {
	if x.head == x.headWritten {
		return nil
	}
	if err := x.writeEntries(); err != nil {
		return err
	}
	if err := x.f.SyncData(); err != nil {
		return err
	}
	if err := x.writeHead(); err != nil {
		return err
	}
	return x.f.SyncData()
}

// finish makes the whole file durable in the classic layout, the head last: what it counts is there.
func (x *indexFile) finish() error {
	if err := x.writeEntries(); err != nil {
		return err
	}
	b := make([]byte, 0, 1<<20)
	for at, from := 0, 0; at < len(x.slots); {
		b = b[:0]
		for from = at; at < len(x.slots) && len(b) < 1<<20; at++ {
			b = binary.BigEndian.AppendUint32(b, uint32(x.slots[at]))
		}
		if _, err := x.f.WriteAt(b, x.slotPos(int32(from))); err != nil {
			return err
		}
	}
	if err := x.f.SyncData(); err != nil {
		return err
	}
	if err := x.writeHead(); err != nil {
		return err
	}
	return x.f.Sync()
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
