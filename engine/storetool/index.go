package storetool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// SizeError says that the sizes inside index files are not known and cannot be told from them.
type SizeError struct {
	Path string
	Size int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, which is not the default size: say --max-hash-slot-num and --max-index-num as they were when it was written", e.Path, e.Size)
}

func (s *Store) loadIndexes() error {
	entries, err := s.readDir(s.o.IndexDir)
	if err != nil {
		return err
	}
	counts := map[int64]int{}
	for _, e := range entries {
		name := path.Join(s.o.IndexDir, e.Name())
		if e.IsDir() || len(strings.Trim(e.Name(), "0123456789")) > 0 {
			s.complain(Note, KindFile, name, "a stranger: the name is no time, and brokers leave it alone")
			continue
		}
		if len(e.Name()) != 17 {
			s.complain(Note, KindFile, name, "the name is no time of 17 digits")
		}
		st, err := s.o.FS.Stat(name)
		if err != nil {
			return err
		}
		counts[st.Size()]++
		s.indexes = append(s.indexes, file{name, -1, st.Size()})
	}
	o := &s.o
	if s.manifest != nil && o.MaxHashSlots == 0 && o.MaxIndexEntries == 0 {
		o.MaxHashSlots, o.MaxIndexEntries = s.manifest.MaxHashSlots, s.manifest.MaxIndexEntries
	}
	if o.MaxHashSlots == 0 || o.MaxIndexEntries == 0 {
		if err := s.tellIndexSizes(commonSize(counts)); err != nil {
			return err
		}
	}
	size := format.IndexFileBytes(o.MaxHashSlots, o.MaxIndexEntries)
	for _, f := range s.indexes {
		if f.size != size {
			s.complain(Fault, KindFile, f.path, "has %d bytes where index files have %d", f.size, size)
		}
	}
	return nil
}

// tellIndexSizes finds out how many slots and entries index files of a size have.
func (s *Store) tellIndexSizes(size int64) error {
	o := &s.o
	fits := func(slots, entries int64) bool {
		return entries > 1 && slots > 0 && format.IndexHeaderBytes+4*slots+20*entries == size
	}
	switch {
	case size == 0, fits(defaultHashSlots, defaultIndexEntries):
		o.MaxHashSlots, o.MaxIndexEntries = defaultHashSlots, defaultIndexEntries
		return nil
	case o.MaxHashSlots > 0:
		if rest := size - format.IndexHeaderBytes - 4*int64(o.MaxHashSlots); rest > 20 && rest%20 == 0 {
			o.MaxIndexEntries = int32(rest / 20)
			return nil
		}
	case o.MaxIndexEntries > 0:
		if rest := size - format.IndexHeaderBytes - 20*int64(o.MaxIndexEntries); rest > 0 && rest%4 == 0 {
			o.MaxHashSlots = int32(rest / 4)
			return nil
		}
	}
	for _, f := range s.indexes {
		if f.size != size || size > 64<<20 {
			continue
		}
		b, err := readFile(o.FS, f.path)
		if err != nil {
			return err
		}
		for slots := (size - format.IndexHeaderBytes) / 4 % 5; 4*slots < size; slots += 5 {
			if entries := (size - format.IndexHeaderBytes - 4*slots) / 20; fits(slots, entries) && plausibleIndex(b, int32(slots), int32(entries)) {
				o.MaxHashSlots, o.MaxIndexEntries = int32(slots), int32(entries)
				return nil
			}
		}
	}
	if len(s.indexes) == 0 {
		return nil
	}
	return &SizeError{s.indexes[0].path, size}
}

// plausibleIndex reports whether b makes sense as an index file with so many slots and entries.
func plausibleIndex(b []byte, slots, entries int32) bool {
	h, err := format.ParseIndexHeader(b)
	if err != nil || h.Count < 3 || h.Count > entries {
		return false
	}
	at := format.IndexHeaderBytes + int(slots)*format.IndexSlotBytes
	if !bytes.Equal(b[at:at+format.IndexEntryBytes], make([]byte, format.IndexEntryBytes)) {
		return false
	}
	last := int64(0)
	for n := int32(1); n < h.Count; n++ {
		e, err := format.ParseIndexEntry(b[at+int(n)*format.IndexEntryBytes:])
		if err != nil || e.Hash < 0 || e.Offset < last || e.Prev < 0 || e.Prev >= n || n == 1 && e.Offset != h.BeginOffset {
			return false
		}
		last = e.Offset
	}
	return last == h.EndOffset
}

// indexCursor steps through all entries of all index files, in order, checking each file against itself.
type indexCursor struct {
	s    *Store
	add  func(Finding)
	next int // number of the next file

	f     vfs.File
	file  file
	head  format.IndexHeader
	heads []format.IndexHeader // of files that were opened
	slots []int32
	n     int32 // number of the present entry
	e     format.IndexEntry
	ok    bool
	last  int64 // position of the previous entry, over all files
	buf   []byte
	from  int32 // number of the entry in buf[0]
	count int64
}

func (s *Store) newIndexCursor(add func(Finding)) *indexCursor {
	return &indexCursor{s: s, add: add, last: -1}
}

func (c *indexCursor) close() {
	if c.f != nil {
		_ = c.f.Close() // read only
		c.f = nil
	}
}

func (c *indexCursor) fault(offset int64, text string, args ...any) {
	c.add(Finding{Severity: Fault, Kind: KindIndex, Path: c.file.path, Offset: offset, Pos: positionless, Text: fmt.Sprintf(text, args...)})
}

func (c *indexCursor) entryPos(n int32) int64 {
	return format.IndexHeaderBytes + int64(c.s.o.MaxHashSlots)*format.IndexSlotBytes + int64(n)*format.IndexEntryBytes
}

// advance goes on to the next entry; ok is false behind the last.
func (c *indexCursor) advance() error {
	for {
		if c.f == nil {
			if c.next >= len(c.s.indexes) {
				c.ok = false
				return nil
			}
			if err := c.openNext(); err != nil {
				return err
			}
			continue
		}
		c.n++
		if c.n >= c.head.Count {
			if err := c.finish(); err != nil {
				return err
			}
			continue
		}
		if err := c.read(); err != nil {
			return err
		}
		return nil
	}
}

// openNext opens the next file and checks its head.
func (c *indexCursor) openNext() error {
	c.file = c.s.indexes[c.next]
	c.next++
	if c.file.size != format.IndexFileBytes(c.s.o.MaxHashSlots, c.s.o.MaxIndexEntries) {
		return nil // said already
	}
	f, err := c.s.o.FS.OpenFile(c.file.path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	var b [format.IndexHeaderBytes]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if c.head, err = format.ParseIndexHeader(b[:]); err != nil {
		return errors.Join(err, f.Close())
	}
	if raw := int32(binary.BigEndian.Uint32(b[36:])); raw < 0 || raw > c.s.o.MaxIndexEntries {
		c.fault(36, "the number of the next entry is %d, files have %d", raw, c.s.o.MaxIndexEntries)
		c.head.Count = min(max(c.head.Count, 1), c.s.o.MaxIndexEntries)
		if raw < 0 {
			return f.Close()
		}
	}
	if c.head.BeginTime > c.head.EndTime {
		c.fault(0, "begin time %d is after end time %d", c.head.BeginTime, c.head.EndTime)
	}
	if c.head.BeginOffset > c.head.EndOffset {
		c.fault(16, "begin offset %d is after end offset %d", c.head.BeginOffset, c.head.EndOffset)
	}
	c.heads = append(c.heads, c.head)
	c.f, c.n, c.from, c.buf = f, 0, 0, c.buf[:0]
	if int32(len(c.slots)) != c.s.o.MaxHashSlots {
		c.slots = make([]int32, c.s.o.MaxHashSlots)
	}
	clear(c.slots)
	return nil
}

// read takes entry n and checks its place in the chain.
func (c *indexCursor) read() error {
	if i := int(c.n-c.from) * format.IndexEntryBytes; c.from == 0 || i >= len(c.buf) {
		k := min(c.head.Count-c.n, 16384)
		if cap(c.buf) < int(k)*format.IndexEntryBytes {
			c.buf = make([]byte, int(k)*format.IndexEntryBytes)
		}
		c.buf = c.buf[:int(k)*format.IndexEntryBytes]
		if _, err := c.f.ReadAt(c.buf, c.entryPos(c.n)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		c.from = c.n
	}
	e, err := format.ParseIndexEntry(c.buf[int(c.n-c.from)*format.IndexEntryBytes:])
	if err != nil {
		return err
	}
	at := c.entryPos(c.n)
	switch {
	case e.Hash < 0:
		c.fault(at, "entry %d has the negative hash %d", c.n, e.Hash)
	default:
		slot := e.Hash % c.s.o.MaxHashSlots
		if e.Prev != c.slots[slot] {
			c.fault(at+16, "entry %d points back to entry %d, its chain (slot %d) goes on at %d", c.n, e.Prev, slot, c.slots[slot])
		}
		c.slots[slot] = c.n
	}
	if e.SecondsDiff < 0 {
		c.fault(at+12, "entry %d is %d seconds before the file's begin time", c.n, e.SecondsDiff)
	}
	if c.n == 1 && e.Offset != c.head.BeginOffset {
		c.fault(16, "begin offset is %d, entry 1 stands for %d", c.head.BeginOffset, e.Offset)
	}
	if c.n == c.head.Count-1 && e.Offset != c.head.EndOffset {
		c.fault(24, "end offset is %d, the last entry stands for %d", c.head.EndOffset, e.Offset)
	}
	c.e, c.ok = e, true
	c.count++
	return nil
}

// finish compares the slot table of the file with the one that its entries make.
func (c *indexCursor) finish() error {
	defer c.close()
	// While a store of ours runs, and after it was killed, the slots of files that are not full on disk
	// were in memory only.
	if (c.next == len(c.s.indexes) || c.head.Count < c.s.o.MaxIndexEntries) && c.s.oursLast && c.s.unclean() {
		return nil
	}
	used, wrong := int32(0), 0
	buf := make([]byte, 1<<20)
	for at := 0; at < len(c.slots); {
		k := min(len(c.slots)-at, len(buf)/format.IndexSlotBytes)
		if _, err := c.f.ReadAt(buf[:k*format.IndexSlotBytes], format.IndexHeaderBytes+int64(at)*format.IndexSlotBytes); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := range k {
			have := int32(binary.BigEndian.Uint32(buf[i*format.IndexSlotBytes:]))
			want := c.slots[at+i]
			if want != 0 {
				used++
			}
			if have != want {
				if wrong++; wrong <= 8 {
					c.fault(format.IndexHeaderBytes+int64(at+i)*format.IndexSlotBytes, "slot %d names entry %d, its newest is %d", at+i, have, want)
				}
			}
		}
		at += k
	}
	if wrong > 8 {
		c.fault(format.IndexHeaderBytes, "%d slots are wrong in all", wrong)
	}
	if used != c.head.UsedSlots {
		c.fault(32, "the header counts %d used slots, there are %d", c.head.UsedSlots, used)
	}
	return nil
}

// keys calls f for each hash that the index should have for a record, in order.
func indexHashes(dst []int32, r *message.Record) []int32 {
	if r.SysFlag.Transaction() == message.FlagRollback {
		return dst
	}
	uniq, keys, _ := r.Properties.Scan()
	if len(uniq) > 0 {
		dst = append(dst, format.IndexHash(r.Topic, uniq))
	}
	for len(keys) > 0 {
		key, rest, _ := bytes.Cut(keys, []byte{' '})
		if len(key) > 0 {
			dst = append(dst, format.IndexHash(r.Topic, key))
		}
		keys = rest
	}
	return dst
}

// indexCheck compares the entries with the records of the log while that is walked.
type indexCheck struct {
	c      *indexCursor
	s      *Store
	add    func(Finding)
	hidden func(pos int64) bool // damage in the log hides what was there
	hashes []int32
	found  []bool // which of hashes have an entry
	none   bool   // there are no files: the index is off
	keys   int64

	// records in a row that lack entries
	missFrom, missTo, missKeys, missRecords int64
	missAtEnd                               bool // there was no entry left
}

// record checks the entries of one record, in log order.
func (x *indexCheck) record(pos int64, r *message.Record) error {
	x.hashes = indexHashes(x.hashes[:0], r)
	x.keys += int64(len(x.hashes))
	if x.none {
		return nil
	}
	c := x.c
	for c.ok && c.e.Offset < pos {
		if c.e.Offset >= x.s.low() && !x.hidden(c.e.Offset) {
			c.add(x.extra("stands for a position at which no record with keys begins"))
		}
		if err := x.step(); err != nil {
			return err
		}
	}
	// Entries are matched one by one, in any order: who was killed in the middle of the keys begins
	// again with the first, and one key may be named several times.
	found, twice := 0, false
	x.found = append(x.found[:0], make([]bool, len(x.hashes))...)
	for c.ok && c.e.Offset == pos {
		i := 0
		for i < len(x.hashes) && (x.found[i] || x.hashes[i] != c.e.Hash) {
			i++
		}
		switch {
		case i < len(x.hashes):
			x.found[i] = true
			found++
		case slices.Contains(x.hashes, c.e.Hash):
			twice = true
		default:
			c.add(x.extra(fmt.Sprintf("has hash %d, the record has no such key", c.e.Hash)))
		}
		x.time(r)
		if err := x.step(); err != nil {
			return err
		}
	}
	if twice {
		c.add(Finding{Severity: Note, Kind: KindIndex, Path: c.file.path, Offset: -1, Pos: pos, Text: "the record is in the index twice: a broker was killed while it indexed it"})
	}
	if found < len(x.hashes) {
		x.miss(pos, int64(len(x.hashes)-found))
	} else if len(x.hashes) > 0 {
		x.flush()
	}
	return nil
}

func (x *indexCheck) step() error {
	x.c.last = x.c.e.Offset
	if err := x.c.advance(); err != nil {
		return err
	}
	if c := x.c; c.ok && c.e.Offset < c.last {
		c.add(x.extra(fmt.Sprintf("stands for position %d, behind one for %d", c.e.Offset, c.last)))
	}
	return nil
}

func (x *indexCheck) extra(text string) Finding {
	c := x.c
	return Finding{Severity: Fault, Kind: KindExtra, Path: c.file.path, Offset: c.entryPos(c.n), Pos: c.e.Offset, Text: fmt.Sprintf("index entry %d %s", c.n, text)}
}

// time checks the times that header and entry say of a record.
func (x *indexCheck) time(r *message.Record) {
	c := x.c
	at := c.entryPos(c.n)
	if c.n == 1 && c.head.BeginTime != r.StoreTimestamp {
		c.fault(0, "begin time is %d, the record of entry 1 was stored at %d", c.head.BeginTime, r.StoreTimestamp)
	}
	if c.n == c.head.Count-1 && c.head.EndTime != r.StoreTimestamp {
		c.fault(8, "end time is %d, the record of the last entry was stored at %d", c.head.EndTime, r.StoreTimestamp)
	}
	// Entry 1 of a file that follows another one counts from that one's end.
	if want := min(max((r.StoreTimestamp-c.head.BeginTime)/1000, 0), 1<<31-1); c.n > 1 && int64(c.e.SecondsDiff) != want {
		c.fault(at+12, "entry %d says %d seconds after the begin time, its record was stored %d after it", c.n, c.e.SecondsDiff, want)
	}
}

func (x *indexCheck) miss(pos, keys int64) {
	if x.missRecords == 0 {
		x.missFrom, x.missAtEnd = pos, !x.c.ok
	}
	x.missTo = pos
	x.missKeys += keys
	x.missRecords++
}

// flush reports the records in a row that lack entries.
func (x *indexCheck) flush() {
	if x.missRecords == 0 {
		return
	}
	sev, why := Fault, ""
	if x.missAtEnd && x.s.unclean() {
		sev, why = Note, ": the next start indexes them"
	}
	x.add(Finding{
		Severity: sev, Kind: KindMissing, Path: x.s.o.IndexDir, Offset: -1, Pos: x.missFrom,
		Text: fmt.Sprintf("%d keys of %d records from %d to %d are not in the index%s", x.missKeys, x.missRecords, x.missFrom, x.missTo, why),
	})
	x.missRecords, x.missKeys = 0, 0
}

// finish looks at what is left behind the end of the log.
func (x *indexCheck) finish(end int64) error {
	if x.none {
		if x.keys > 0 {
			sev := Note
			if x.s.state != nil && x.s.state.IndexEnd >= x.s.low() && len(x.s.indexes) == 0 {
				sev = Fault
			}
			x.add(Finding{
				Severity: sev, Kind: KindIndex, Path: x.s.o.IndexDir, Offset: -1, Pos: -1,
				Text: fmt.Sprintf("there is no index for the %d keys in the log", x.keys),
			})
		}
		return nil
	}
	x.flush()
	n, sev := 0, Fault
	if x.s.unclean() {
		sev = Note
	}
	for x.c.ok {
		if x.hidden(x.c.e.Offset) {
			n--
		} else if n < 8 {
			f := x.extra(fmt.Sprintf("stands for a position behind the end of the log, %d", end))
			f.Severity = sev
			x.c.add(f)
		}
		n++
		if err := x.c.advance(); err != nil {
			return err
		}
	}
	if n > 8 {
		x.add(Finding{Severity: sev, Kind: KindExtra, Path: x.s.o.IndexDir, Offset: -1, Pos: -1, Text: fmt.Sprintf("%d index entries stand behind the end of the log in all", n)})
	}
	return nil
}
