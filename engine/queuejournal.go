package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path"

	"rmq/engine/format"
	"rmq/internal/binenc"
	"rmq/internal/vfs"
)

// queueJournal is <root>/rmq/queues.journal: what the classic queue files do not say, so that a
// checkpoint of eighty thousand queues is one sequential write and a recovery opens one file.
//
// The file is a run of blocks, all integers big-endian:
//
//	0       4      8        12     16
//	+-------+------+--------+------+----------------+
//	| magic | kind | length | crc  | length bytes   |
//	+-------+------+--------+------+----------------+
//
// crc is CRC-32C over the three fields before it and the bytes behind it. Kinds: head (first, once:
// version, queue file size), items, commit (covered position, flags). Items tell of queues:
//
//	define  1, id, name length (2 bytes), name     the queue gets the next number
//	entries 2, number, offset, count, entries      the next entries of the queue
//	row     3, number, flags (1 byte), base, n,    entries below base are in the files,
//	        low, minPos, first, limit, end         those at n and above are cut off
//
// Items count only when a commit follows. Whatever a commit says is true on disk: the classic
// files were synced before it was written. The file is made anew, beside the old one and renamed
// over it, when it has grown, and at a clean stop, with a flag that tells that the classic files
// have everything.
type queueJournal struct {
	fs        vfs.FS
	dir, path string
	fileBytes int64

	f      vfs.File
	size   int64 // end of the last commit
	defs   int32 // queues defined in the file
	closed bool  // the last commit says that the classic files have everything
	broken bool  // a write failed: make the file anew
	at     int64 // where buf goes
	buf    []byte
}

const (
	journalName     = "queues.journal"
	journalMagic    = 0x514A3031 // "QJ01"
	journalVersion  = 1
	journalHead     = 16
	journalBlock    = 1 << 20
	journalMaxBlock = 2 << 20

	blockOfHead   = 0
	blockOfItems  = 1
	blockOfCommit = 2

	itemDefine  = 1
	itemEntries = 2
	itemRow     = 3

	itemEntriesHead = 1 + 4 + 8 + 4
	itemRowBytes    = 1 + 4 + 1 + 7*8

	rowUnsure    = 1
	commitClosed = 1
)

// errJournal says that the journal cannot be used.
var errJournal = errors.New("queue journal is missing or damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newQueueJournal(fsys vfs.FS, dir string, fileBytes int64) *queueJournal {
	return &queueJournal{fs: fsys, dir: dir, path: path.Join(dir, journalName), fileBytes: fileBytes}
}

// startBlock begins a block in the buffer.
func (j *queueJournal) startBlock(kind uint32) {
	if j.buf == nil {
		j.buf = make([]byte, 0, journalMaxBlock)
	}
	j.buf = binary.BigEndian.AppendUint32(j.buf[:0], journalMagic)
	j.buf = binary.BigEndian.AppendUint32(j.buf, kind)
	j.buf = append(j.buf, 0, 0, 0, 0, 0, 0, 0, 0)
}

// endBlock writes the block, if there is anything in it.
func (j *queueJournal) endBlock() error {
	if len(j.buf) <= journalHead {
		return nil
	}
	binary.BigEndian.PutUint32(j.buf[8:], uint32(len(j.buf)-journalHead))
	binary.BigEndian.PutUint32(j.buf[12:], journalCRC(j.buf))
	if _, err := j.f.WriteAt(j.buf, j.at); err != nil {
		return spaceErr(j.fs, j.path, int64(len(j.buf)), err)
	}
	j.at += int64(len(j.buf))
	return nil
}

func journalCRC(block []byte) uint32 {
	return crc32.Update(crc32.Checksum(block[:12], castagnoli), castagnoli, block[journalHead:])
}

// room writes the block out when n more bytes would make it large.
func (j *queueJournal) room(n int) error {
	if len(j.buf)+n <= journalBlock {
		return nil
	}
	if err := j.endBlock(); err != nil {
		return err
	}
	j.startBlock(blockOfItems)
	return nil
}

// commit ends the items, makes them durable and moves the end of the journal.
func (j *queueJournal) commit(covered int64, closed bool) error {
	if err := j.endBlock(); err != nil {
		return err
	}
	j.startBlock(blockOfCommit)
	j.buf = binary.BigEndian.AppendUint64(j.buf, uint64(covered))
	flags := byte(0)
	if closed {
		flags = commitClosed
	}
	j.buf = append(j.buf, flags)
	if err := j.endBlock(); err != nil {
		return err
	}
	if err := j.f.SyncData(); err != nil {
		return err
	}
	j.size, j.closed = j.at, closed
	return nil
}

func (j *queueJournal) close() error {
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// destroy removes the journal: the queues are found without it, or made anew.
func (j *queueJournal) destroy() error {
	err := j.close()
	j.size, j.defs, j.closed, j.broken = 0, 0, false, false
	rerr := j.fs.Remove(j.path)
	if errors.Is(rerr, fs.ErrNotExist) {
		return err
	}
	return errors.Join(err, rerr, j.fs.SyncDir(j.dir))
}

// journaled is what a queue will have in the journal once the commit is there.
type journaled struct {
	q *ConsumeQueue
	n int64
}

// emit appends what the journal does not know of q, or, for a new file, all there is.
func (t *queueTable) emit(q *ConsumeQueue, whole bool) (journaled, error) {
	j := t.journal
	q.mu.Lock()
	known := q.num >= 0
	from, n, moved := q.kept, q.mark.Load(), q.moved
	if whole {
		from, moved = q.base, true
	}
	row := [7]int64{q.base, n, q.low.Load(), q.minPos, q.first, q.limit, q.end}
	unsure := q.unsure
	q.mu.Unlock()
	if q.unnamed || from == n && (!moved || !known && n == 0 && row[4] == row[5]) {
		return journaled{q, n}, nil
	}
	if !known {
		if err := j.room(7 + len(q.topic)); err != nil {
			return journaled{}, err
		}
		j.buf = append(j.buf, itemDefine)
		j.buf = binary.BigEndian.AppendUint32(j.buf, uint32(q.id))
		j.buf = binary.BigEndian.AppendUint16(j.buf, uint16(len(q.topic)))
		j.buf = append(j.buf, q.topic...)
		q.num = j.defs
		j.defs++
		moved = moved || from > 0
	}
	if moved && from < n {
		// Entries may have come since those below from went into the files: a reader must know of
		// these before it finds the next one.
		place := row
		place[1], place[2] = from, min(row[2], from)
		if err := j.row(q, place, unsure); err != nil {
			return journaled{}, err
		}
	}
	for at := from; at < n; {
		if err := j.room(itemEntriesHead + format.CQEntryBytes); err != nil {
			return journaled{}, err
		}
		count := min(n-at, int64((journalBlock-len(j.buf)-itemEntriesHead)/format.CQEntryBytes))
		j.buf = append(j.buf, itemEntries)
		j.buf = binary.BigEndian.AppendUint32(j.buf, uint32(q.num))
		j.buf = binary.BigEndian.AppendUint64(j.buf, uint64(at))
		j.buf = binary.BigEndian.AppendUint32(j.buf, uint32(count))
		into := len(j.buf)
		j.buf = j.buf[:into+int(count)*format.CQEntryBytes]
		q.mu.Lock()
		got := q.pending.copyOut(&t.arena, at, n, j.buf[into:])
		q.mu.Unlock()
		if got != int(count)*format.CQEntryBytes {
			panic(fmt.Sprintf("BUG: queue %s/%d lost pending entries at %d", q.topic, q.id, at))
		}
		at += count
	}
	if moved {
		if err := j.row(q, row, unsure); err != nil {
			return journaled{}, err
		}
	}
	return journaled{q, n}, nil
}

// row appends a row of q.
func (j *queueJournal) row(q *ConsumeQueue, row [7]int64, unsure bool) error {
	if err := j.room(itemRowBytes); err != nil {
		return err
	}
	flags := byte(0)
	if unsure {
		flags = rowUnsure
	}
	j.buf = append(j.buf, itemRow)
	j.buf = binary.BigEndian.AppendUint32(j.buf, uint32(q.num))
	j.buf = append(j.buf, flags)
	for _, v := range row {
		j.buf = binary.BigEndian.AppendUint64(j.buf, uint64(v))
	}
	return nil
}

// writeJournal makes durable, in the journal, all that is not in the classic files.
func (t *queueTable) writeJournal() error {
	j := t.journal
	if j.f == nil || j.broken || j.size > t.o.JournalBytes {
		return t.rotateJournal(false)
	}
	return t.journalRows(t.all())
}

// journalRows appends what the journal does not know of some queues, and commits.
func (t *queueTable) journalRows(queues []*ConsumeQueue) error {
	j := t.journal
	if j.f == nil || j.broken {
		return t.rotateJournal(false)
	}
	j.at = j.size
	if err := t.emitAll(queues, false, false); err != nil {
		j.broken = true
		return err
	}
	return nil
}

func (t *queueTable) emitAll(queues []*ConsumeQueue, whole, closed bool) error {
	j := t.journal
	j.startBlock(blockOfItems)
	done := make([]journaled, 0, len(queues))
	for _, q := range queues {
		d, err := t.emit(q, whole)
		if err != nil {
			return err
		}
		done = append(done, d)
	}
	if err := j.commit(t.covered, closed); err != nil {
		return err
	}
	for _, d := range done {
		d.q.mu.Lock()
		d.q.kept, d.q.moved = d.n, false
		d.q.mu.Unlock()
	}
	return nil
}

// rotateJournal writes a new journal with the present state and puts it in place of the old one.
func (t *queueTable) rotateJournal(closed bool) (err error) {
	j := t.journal
	if err := j.close(); err != nil {
		return err
	}
	j.broken = true
	making := j.path + ".new"
	j.f, err = j.fs.OpenFile(making, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return spaceErr(j.fs, making, journalBlock, err)
	}
	queues := t.all()
	for _, q := range queues {
		q.num = -1
	}
	j.at, j.size, j.defs = 0, 0, 0
	j.startBlock(blockOfHead)
	j.buf = binary.BigEndian.AppendUint32(j.buf, journalVersion)
	j.buf = binary.BigEndian.AppendUint64(j.buf, uint64(j.fileBytes))
	if err := j.endBlock(); err != nil {
		return err
	}
	if err := t.emitAll(queues, true, closed); err != nil {
		return err
	}
	if err := j.fs.Rename(making, j.path); err != nil {
		return err
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return err
	}
	j.broken = false
	return nil
}

// journalMissing reports whether the next checkpoint makes the journal anew.
func (t *queueTable) journalMissing() bool {
	t.maint.Lock()
	defer t.maint.Unlock()
	return t.journal != nil && t.journal.f == nil
}

// reopen takes back the word that the classic files have everything, before they are changed.
func (t *queueTable) reopen() error {
	j := t.journal
	if j == nil || j.f == nil || !j.closed || j.broken {
		return nil
	}
	j.at = j.size
	j.startBlock(blockOfItems)
	if err := j.commit(t.covered, false); err != nil {
		j.broken = true
		return err
	}
	return nil
}

// loadJournal reads the journal and sets the table accordingly. [errJournal] says that it cannot
// be used; the table is then empty.
func (t *queueTable) loadJournal(ctx context.Context) (err error) {
	j := t.journal
	j.f, err = j.fs.OpenFile(j.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.forget()
		}
	}()
	st, err := j.f.Stat()
	if err != nil {
		return err
	}
	end, covered, closed, err := j.lastCommit(ctx, st.Size())
	if err != nil {
		return err
	}
	if end == 0 {
		return fmt.Errorf("%s has no commit: %w", j.path, errJournal)
	}
	var defs []*ConsumeQueue
	err = j.each(ctx, end, func(_ int64, kind uint32, payload []byte) error {
		if kind != blockOfItems {
			return nil
		}
		return t.applyItems(&defs, payload)
	})
	if err != nil {
		return err
	}
	if err := t.checkTopics(defs); err != nil {
		return err
	}
	if st.Size() > end {
		if err := j.f.Truncate(end); err != nil {
			return err
		}
	}
	j.size, j.at, j.defs, j.closed = end, end, int32(len(defs)), closed
	t.covered, t.trusted, t.orphans = covered, covered, !closed
	if closed {
		t.trusted = math.MaxInt64
	}
	for _, q := range defs {
		q.unsure = q.unsure || !closed
		q.kept = q.max()
	}
	return nil
}

// forget empties a table that nobody uses yet.
func (t *queueTable) forget() {
	for _, q := range t.all() {
		q.pending.clear(&t.arena)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known = nil
	t.index.Store(newQueueIndex(64))
}

// checkTopics makes sure that the topics which should have files have their directory.
func (t *queueTable) checkTopics(queues []*ConsumeQueue) error {
	entries, err := t.o.FS.ReadDir(t.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	for _, q := range queues {
		if q.first < q.limit && !there[q.topic] {
			return fmt.Errorf("%s is gone: %w", t.topicDir(q.topic), errJournal)
		}
	}
	return nil
}

// lastCommit finds the end of the last commit before the first block that is not whole.
func (j *queueJournal) lastCommit(ctx context.Context, size int64) (end, covered int64, closed bool, err error) {
	err = j.each(ctx, size, func(at int64, kind uint32, payload []byte) error {
		r := binenc.NewReader(payload)
		switch kind {
		case blockOfHead:
			if v := r.U32(); v != journalVersion {
				return fmt.Errorf("%s has version %d, want %d: %w", j.path, v, journalVersion, errJournal)
			}
			if n := r.I64(); n != j.fileBytes {
				return &queueSizeError{j.path, n, j.fileBytes}
			}
		case blockOfCommit:
			end, covered, closed = at+journalHead+int64(len(payload)), r.I64(), r.U8()&commitClosed != 0
		}
		if r.Err() != nil {
			return fmt.Errorf("%s at %d: %w", j.path, at, errJournal)
		}
		return nil
	})
	return end, covered, closed, err
}

// each calls f for every whole block below size, until one is not whole.
func (j *queueJournal) each(ctx context.Context, size int64, f func(at int64, kind uint32, payload []byte) error) error {
	buf := make([]byte, journalMaxBlock)
	have, start := 0, int64(0) // buf[:have] is the file from start on
	for at := int64(0); at+journalHead <= size; {
		b := buf[at-start : have]
		if len(b) < journalHead || len(b) < journalHead+int(binary.BigEndian.Uint32(b[8:])) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			start = at
			have = int(min(int64(len(buf)), size-at))
			if _, err := j.f.ReadAt(buf[:have], at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			b = buf[:have]
		}
		n := journalHead + int(binary.BigEndian.Uint32(b[8:]))
		if binary.BigEndian.Uint32(b) != journalMagic || n > len(b) || journalCRC(b[:n]) != binary.BigEndian.Uint32(b[12:]) {
			return nil
		}
		kind := binary.BigEndian.Uint32(b[4:])
		if (at == 0) != (kind == blockOfHead) {
			return nil
		}
		if err := f(at, kind, b[journalHead:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// applyItems applies the items of one block.
func (t *queueTable) applyItems(defs *[]*ConsumeQueue, payload []byte) error {
	bad := func(what string) error { return fmt.Errorf("%s: %s: %w", t.journal.path, what, errJournal) }
	r := binenc.NewReader(payload)
	queue := func() *ConsumeQueue {
		num := r.U32()
		if r.Err() != nil || num >= uint32(len(*defs)) {
			return nil
		}
		return (*defs)[num]
	}
	for len(r.Rest()) > 0 {
		switch r.U8() {
		case itemDefine:
			id := r.I32()
			name := r.Bytes(int(r.U16()))
			if r.Err() != nil || !canBeDir(string(name)) || id < 0 {
				return bad("a queue has no proper name")
			}
			q := t.get(name, id)
			if q.num >= 0 {
				return bad("a queue is defined twice")
			}
			q.num = int32(len(*defs))
			*defs = append(*defs, q)
		case itemEntries:
			q := queue()
			offset, count := r.I64(), r.U32()
			units := r.Bytes(int(min(int64(count)*format.CQEntryBytes, math.MaxInt32)))
			if q == nil || r.Err() != nil {
				return bad("entries are cut short")
			}
			if q.max() == 0 && q.first == q.limit && offset >= 0 {
				q.setMax(offset)
				q.base = offset
				q.low.Store(offset)
			}
			if offset != q.max() {
				return bad("entries do not follow each other")
			}
			q.restore(units)
		case itemRow:
			q := queue()
			flags := r.U8()
			var v [7]int64
			for i := range v {
				v[i] = r.I64()
			}
			if q == nil || r.Err() != nil {
				return bad("a row is cut short")
			}
			if err := q.restoreRow(flags, v); err != nil {
				return bad(err.Error())
			}
		default:
			return bad("unknown item")
		}
	}
	if r.Err() != nil {
		return bad("items are cut short")
	}
	return nil
}

// restore appends encoded entries while the table is loaded.
func (q *ConsumeQueue) restore(units []byte) {
	var e [1]format.CQEntry
	n := q.max()
	for ; len(units) > 0; units = units[format.CQEntryBytes:] {
		parseEntries(e[:], units)
		q.add(n, e[0].Offset, e[0].Size, e[0].TagsHash)
		if !e[0].IsFiller() {
			if q.minPos < 0 && q.low.Load() == n {
				q.minPos = e[0].Offset
			}
			q.end = e[0].Offset + int64(e[0].Size)
		}
		n++
	}
	q.setMax(n)
}

// restoreRow sets what a row says while the table is loaded.
func (q *ConsumeQueue) restoreRow(flags byte, v [7]int64) error {
	base, n, low, minPos, first, limit, end := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	have := q.max()
	switch {
	case base < 0 || base > n || low < 0 || low > n || first < 0 || first > limit,
		limit > first && (base*format.CQEntryBytes > limit || first%q.t.o.FileBytes != 0 || limit%q.t.o.FileBytes != 0),
		n > have && base != n, // where would the entries be?
		base < n && base < q.base:
		return fmt.Errorf("row of queue %s/%d makes no sense", q.topic, q.id)
	}
	if n < have {
		q.cutPending(n)
	}
	q.setMax(n)
	q.base, q.minPos, q.first, q.limit, q.end = base, minPos, first, limit, end
	q.dropPending()
	q.low.Store(low)
	q.unsure = flags&rowUnsure != 0
	return nil
}
