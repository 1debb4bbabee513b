package storetool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path"
	"strconv"
	"time"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// builder makes consume queues and index of a store anew, from records in log order.
type builder struct {
	fs       vfs.FS
	queueDir string
	indexDir string
	sizes    Options
	delays   func(topic []byte, level int, tags []byte, storeTime int64) int64

	queues  map[string]*builtQueue
	key     []byte
	waiting int
	index   *indexBuilder // nil: no index

	records, entries int64
	lastTime         int64
}

// builtQueue is a queue in the making; entries wait in buf.
type builtQueue struct {
	dir     string
	start   int64 // number of the first entry in buf
	buf     []byte
	written bool
}

func newBuilder(s *Store, fsys vfs.FS, queueDir, indexDir string, withIndex bool) *builder {
	b := &builder{fs: fsys, queueDir: queueDir, indexDir: indexDir, sizes: s.o, delays: s.tagsCode, queues: map[string]*builtQueue{}}
	if withIndex {
		b.index = &indexBuilder{fs: fsys, dir: indexDir, slots: s.o.MaxHashSlots, max: s.o.MaxIndexEntries}
	}
	return b
}

// add takes one record.
func (b *builder) add(pos int64, _ []byte, r *message.Record) error {
	b.records++
	b.lastTime = r.StoreTimestamp
	if queued(r) {
		b.key = append(strconv.AppendInt(append(append(b.key[:0], r.Topic...), '/'), int64(r.QueueID), 10), '/')
		q := b.queues[string(b.key)]
		if q == nil {
			q = &builtQueue{dir: path.Join(b.queueDir, string(r.Topic), strconv.Itoa(int(r.QueueID))), start: r.QueueOffset}
			b.queues[string(b.key)] = q
		}
		tags := b.delays(r.Topic, r.Properties.DelayLevel(), r.Properties.Get(message.PropTags), r.StoreTimestamp)
		q.buf = format.AppendCQEntry(q.buf, format.CQEntry{Offset: pos, Size: r.Size, TagsHash: tags})
		b.entries++
		if b.waiting += format.CQEntryBytes; b.waiting >= flushAt {
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	if b.index != nil {
		return b.index.add(pos, r)
	}
	return nil
}

// flush writes what is waiting.
func (b *builder) flush() error {
	for _, q := range b.queues {
		if err := b.flushQueue(q); err != nil {
			return err
		}
	}
	b.waiting = 0
	return nil
}

func (b *builder) flushQueue(q *builtQueue) error {
	if len(q.buf) == 0 {
		return nil
	}
	size := b.sizes.QueueFileBytes
	at, data := q.start*format.CQEntryBytes, q.buf
	if !q.written {
		q.written = true
		if err := b.fs.MkdirAll(q.dir, 0o755); err != nil {
			return err
		}
		// A queue that begins inside a file has fillers before its first entry.
		if n := at % size / format.CQEntryBytes; n > 0 {
			filler := bytes.Repeat(format.AppendCQEntry(nil, format.CQFiller), int(n))
			at, data = at-int64(len(filler)), append(filler, data...)
		}
	}
	for len(data) > 0 {
		start := at - at%size
		n := min(int64(len(data)), start+size-at)
		if err := writeInto(b.fs, path.Join(q.dir, format.FileName(start)), size, at-start, data[:n]); err != nil {
			return err
		}
		at, data = at+n, data[n:]
	}
	q.start += int64(len(q.buf) / format.CQEntryBytes)
	q.buf = q.buf[:0]
	return nil
}

// writeInto writes b at off of a file of the given size, which is made if it does not exist.
func writeInto(fsys vfs.FS, name string, size, off int64, b []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != size {
		err = f.Truncate(size)
	}
	if err == nil && len(b) > 0 {
		_, err = f.WriteAt(b, off)
	}
	return errors.Join(err, f.Close())
}

// finish writes everything, and the checkpoint that goes with it.
func (b *builder) finish(checkpoint string) error {
	if err := b.flush(); err != nil {
		return err
	}
	page := format.CheckpointPage{Physic: b.lastTime, Logics: b.lastTime}
	if b.index != nil {
		if err := b.index.finish(); err != nil {
			return err
		}
		page.Index = b.index.fullTime
	}
	return writeInto(b.fs, checkpoint, format.CheckpointBytes, 0, format.AppendCheckpointPage(nil, page))
}

// indexBuilder makes index files.
type indexBuilder struct {
	fs         vfs.FS
	dir        string
	slots, max int32

	f        vfs.File
	head     format.IndexHeader
	table    []int32
	buf      []byte
	at       int32 // number of the first entry in buf
	name     time.Time
	hashes   []int32
	entries  int64
	fullTime int64 // end time of the last file that is full
}

func (x *indexBuilder) add(pos int64, r *message.Record) error {
	x.hashes = indexHashes(x.hashes[:0], r)
	for _, h := range x.hashes {
		if x.f != nil && x.head.Count >= x.max {
			if err := x.close(); err != nil {
				return err
			}
			x.fullTime = x.head.EndTime
		}
		if x.f == nil {
			if err := x.open(r.StoreTimestamp); err != nil {
				return err
			}
		}
		if err := x.put(h, pos, r.StoreTimestamp); err != nil {
			return err
		}
	}
	return nil
}

// open makes the next file. Its name is the store time of its first record, later than the last one.
func (x *indexBuilder) open(storeTime int64) error {
	t := time.UnixMilli(storeTime)
	if !t.After(x.name) {
		t = x.name.Add(time.Millisecond)
	}
	x.name = t
	if err := x.fs.MkdirAll(x.dir, 0o755); err != nil {
		return err
	}
	t = t.Local()
	name := path.Join(x.dir, t.Format("20060102150405")+t.Format(".000")[1:])
	f, err := x.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := f.Truncate(format.IndexFileBytes(x.slots, x.max)); err != nil {
		return errors.Join(err, f.Close())
	}
	if x.head.Count > 0 { // a file that follows another begins with its end
		x.head = format.IndexHeader{BeginTime: x.head.EndTime, EndTime: x.head.EndTime, BeginOffset: x.head.EndOffset, EndOffset: x.head.EndOffset}
	}
	x.f, x.head.Count, x.at, x.buf = f, 1, 1, x.buf[:0]
	if x.table == nil {
		x.table = make([]int32, x.slots)
	}
	clear(x.table)
	return nil
}

func (x *indexBuilder) put(hash int32, pos, storeTime int64) error {
	slot := hash % x.slots
	diff := int64(0)
	if x.head.BeginTime > 0 {
		diff = min(max((storeTime-x.head.BeginTime)/1000, 0), math.MaxInt32)
	}
	x.buf = format.AppendIndexEntry(x.buf, format.IndexEntry{Hash: hash, Offset: pos, SecondsDiff: int32(diff), Prev: x.table[slot]})
	if x.table[slot] == 0 {
		x.head.UsedSlots++
	}
	x.table[slot] = x.head.Count
	if x.head.Count == 1 {
		x.head.BeginOffset, x.head.BeginTime = pos, storeTime
	}
	x.head.Count++
	x.head.EndOffset, x.head.EndTime = pos, storeTime
	x.entries++
	if len(x.buf) >= readAhead {
		return x.write()
	}
	return nil
}

func (x *indexBuilder) write() error {
	if len(x.buf) == 0 {
		return nil
	}
	_, err := x.f.WriteAt(x.buf, format.IndexHeaderBytes+int64(x.slots)*format.IndexSlotBytes+int64(x.at)*format.IndexEntryBytes)
	x.at, x.buf = x.head.Count, x.buf[:0]
	return err
}

// close writes entries, slots and header of the present file.
func (x *indexBuilder) close() error {
	err := x.write()
	b := make([]byte, 0, len(x.table)*format.IndexSlotBytes)
	for _, v := range x.table {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	if err == nil {
		_, err = x.f.WriteAt(b, format.IndexHeaderBytes)
	}
	if err == nil {
		_, err = x.f.WriteAt(format.AppendIndexHeader(nil, x.head), 0)
	}
	err = errors.Join(err, x.f.Close())
	x.f = nil
	return err
}

func (x *indexBuilder) finish() error {
	if x.f == nil {
		return nil
	}
	if x.head.Count >= x.max {
		x.fullTime = x.head.EndTime
	}
	return x.close()
}
