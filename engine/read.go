package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rmq/engine/format"
	"rmq/engine/mappedfile"
	"rmq/message"
)

// ReadStatus says what a read by queue offset found (org.apache.rocketmq.store.GetMessageStatus).
type ReadStatus int

// The statuses, in the order in which they are checked.
const (
	ReadFound ReadStatus = iota
	ReadNoQueue
	ReadNoMessage
	ReadOffsetTooSmall
	ReadOffsetOverflowOne
	ReadOffsetOverflow
	ReadOffsetNull // no entry is readable at the offset
	ReadRemoving   // the log no longer holds the records
	ReadNoMatch    // the filter let nothing pass
)

func (s ReadStatus) String() string {
	return [...]string{"FOUND", "NO_MATCHED_LOGIC_QUEUE", "NO_MESSAGE_IN_QUEUE", "OFFSET_TOO_SMALL",
		"OFFSET_OVERFLOW_ONE", "OFFSET_OVERFLOW_BADLY", "OFFSET_FOUND_NULL", "MESSAGE_WAS_REMOVING", "NO_MATCHED_MESSAGE"}[s]
}

// Range is a run of log bytes inside one segment file.
type Range struct {
	File *mappedfile.MappedFile
	Pos  int64 // absolute
	Len  int
}

// piece is one record of a result: bytes that are at hand, and where they stand on disk.
type piece struct {
	b   []byte
	rng Range
}

// ReadResult holds records without copying them where it can. It must be released once; the
// bytes that Each hands out are valid until then. One user at a time.
type ReadResult struct {
	Status     ReadStatus
	NextOffset int64 // where to read next
	MinOffset  int64
	MaxOffset  int64
	Bytes      int
	LastPos    int64 // in the log, of the last record looked at; -1 if none was

	pieces []piece
	chunks []*chunk
	files  []*mappedfile.MappedFile
	pooled []*[]byte
	rest   []byte // of the newest of them, what nothing was read into yet
	window window
	rec    message.Record // being verified
}

// window is a run of log bytes that were read from a file at once: a queue's records often lie close
// together.
type window struct {
	pos int64
	b   []byte
	// sparse: most of it is not asked for. Records are copied out, and b, which is aside, is given back.
	sparse bool
	aside  *[]byte
}

// close ends the use of the window. Records that stand in it stay where they are.
func (w *window) close() {
	if w.aside != nil {
		putReadBuffer(w.aside)
	}
	*w = window{}
}

// at is what the window holds of [pos, pos+n), nil unless it holds it all.
func (w *window) at(pos int64, n int) []byte {
	if pos < w.pos || pos+int64(n) > w.pos+int64(len(w.b)) {
		return nil
	}
	return w.b[pos-w.pos:][:n]
}

// Count is how many records there are.
func (r *ReadResult) Count() int { return len(r.pieces) }

// Each calls f with every record, as it stands on disk.
func (r *ReadResult) Each(f func(rec []byte)) {
	for _, p := range r.pieces {
		f(p.b)
	}
}

// EachRange calls f with every record and where it stands on disk. File is valid until Release.
func (r *ReadResult) EachRange(f func(rec []byte, at Range)) {
	for _, p := range r.pieces {
		f(p.b, p.rng)
	}
}

// AppendTo appends all records to dst, one after the other.
func (r *ReadResult) AppendTo(dst []byte) []byte {
	for _, p := range r.pieces {
		dst = append(dst, p.b...)
	}
	return dst
}

// Ranges says where the records stand on disk, neighbours joined, so that a server can send
// them from the file. Valid until Release.
func (r *ReadResult) Ranges() []Range {
	var out []Range
	for _, p := range r.pieces {
		if n := len(out); n > 0 && out[n-1].File == p.rng.File && out[n-1].Pos+int64(out[n-1].Len) == p.rng.Pos {
			out[n-1].Len += p.rng.Len
			continue
		}
		out = append(out, p.rng)
	}
	return out
}

// Release gives everything back. The result can then be used for another read.
func (r *ReadResult) Release() {
	for _, c := range r.chunks {
		c.release()
	}
	for _, m := range r.files {
		m.Release()
	}
	r.window.close()
	for _, b := range r.pooled {
		putReadBuffer(b)
	}
	clear(r.pieces)
	clear(r.chunks)
	clear(r.files)
	clear(r.pooled)
	*r = ReadResult{pieces: r.pieces[:0], chunks: r.chunks[:0], files: r.files[:0], pooled: r.pooled[:0]}
}

// room gives n bytes that live as long as r. Reads share buffers: whoever answers slowly holds what was
// read, not a buffer for each of the records that lie apart.
func (r *ReadResult) room(n int) []byte {
	if n > len(r.rest) {
		buf := getReadBuffer(n)
		r.pooled = append(r.pooled, buf)
		if len(*buf)-n < len(r.rest) {
			return (*buf)[:n]
		}
		r.rest = *buf
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

const readBufferBytes = 64 << 10

var readBuffers = sync.Pool{New: func() any { b := make([]byte, readBufferBytes); return &b }}

// getReadBuffer gives n bytes or more, pooled unless they are many.
func getReadBuffer(n int) *[]byte {
	if n > readBufferBytes {
		b := make([]byte, n)
		return &b
	}
	return readBuffers.Get().(*[]byte)
}

func putReadBuffer(b *[]byte) {
	if len(*b) == readBufferBytes {
		readBuffers.Put(b)
	}
}

// readSlots bounds the reads that wait for the disk at the same time, over all stores: each of
// them holds a thread.
var readSlots = make(chan struct{}, 32)

const memoryOnly = -1

// queueSlot is the place in a queue that a record is read for. Without a queue any record will do.
type queueSlot struct {
	q      *ConsumeQueue
	offset int64
}

var errOtherPlace = errors.New("record is not the one that its queue has there")

// check verifies that rec is the record of the place. Most records have no checksum over their head, so
// damage there shows only against what the queue knows.
func (at queueSlot) check(rec *message.Record) error {
	q := at.q
	if q == nil || rec.QueueOffset == at.offset && rec.QueueID == q.id && string(rec.Topic) == q.topic && rec.SysFlag.ConsumesOffset() {
		return nil
	}
	return fmt.Errorf("%w: offset %d of %s/%d is wanted, it says %d of %q/%d with system flags %#x",
		errOtherPlace, at.offset, q.topic, q.id, rec.QueueOffset, rec.Topic, rec.QueueID, int32(rec.SysFlag))
}

// addRange adds the record of n bytes at pos, which is that of a place in a queue. From memory if the
// newest bytes hold it, the very ones that the queue's entry was made from, else by pread, with checksum,
// position and place verified. When a file has to be read, ahead bytes are read from pos on, if that is
// more, and the record is copied out of them if they are sparse; with memoryOnly it is [ErrCold] instead.
func (s *Store) addRange(r *ReadResult, at queueSlot, pos int64, n, ahead int, sparse bool) error {
	m := s.files.Find(pos)
	if m == nil {
		return ErrOffsetTooSmall
	}
	if len(r.files) == 0 || r.files[len(r.files)-1] != m {
		if !m.Acquire() {
			return ErrOffsetTooSmall
		}
		r.files = append(r.files, m)
	}
	if k := len(r.chunks); k > 0 && pos >= r.chunks[k-1].start && pos+int64(n) <= r.chunks[k-1].end() {
		c := r.chunks[k-1]
		r.add(c.buf[pos-c.start:pos-c.start+int64(n)], Range{m, pos, n})
		return nil
	}
	if c := s.log.chunks.find(pos); c != nil {
		if pos+int64(n) <= c.end() {
			r.chunks = append(r.chunks, c)
			r.add(c.buf[pos-c.start:pos-c.start+int64(n)], Range{m, pos, n})
			return nil
		}
		c.release()
	}
	if ahead == memoryOnly {
		return ErrCold
	}
	b := r.window.at(pos, n)
	if b == nil {
		ahead = int(min(int64(max(n, ahead)), m.End()-pos))
		var aside *[]byte
		var buf []byte
		if sparse {
			aside = getReadBuffer(ahead)
			buf = (*aside)[:ahead]
		} else {
			buf = r.room(ahead)
		}
		r.window.close()
		r.window = window{pos: pos, b: buf, sparse: sparse, aside: aside}
		readSlots <- struct{}{}
		_, err := m.ReadAt(buf, pos)
		<-readSlots
		if err != nil {
			r.window.close()
			return err
		}
		b = buf[:n]
	}
	size, kind, err := s.o.Framing.Next(b, pos, &r.rec)
	if err == nil && (kind != FrameRecord || size != n) {
		err = fmt.Errorf("no record of %d bytes", n)
	}
	if err == nil {
		err = s.o.Framing.Check(b, pos, &r.rec)
	}
	if err == nil {
		err = at.check(&r.rec)
	}
	if err != nil {
		return &CorruptionError{Path: m.Path(), Offset: pos, What: "record unreadable", Err: err}
	}
	if r.window.sparse {
		b = append(r.room(n)[:0], b...)
	}
	r.add(b, Range{m, pos, n})
	return nil
}

func (r *ReadResult) add(b []byte, rng Range) {
	r.pieces = append(r.pieces, piece{b, rng})
	r.Bytes += len(b)
}

// Lookup reads the one record at pos. The result must be released, also after an error.
func (s *Store) Lookup(pos int64) (*ReadResult, error) {
	r := &ReadResult{LastPos: pos}
	if s.closed.Load() {
		return r, ErrClosed
	}
	if pos < s.Min() {
		return r, ErrOffsetTooSmall
	}
	if visible := s.log.visible.Load(); pos+blankBytes > visible {
		return r, ErrOffsetTooLarge
	}
	var head [blankBytes]byte
	if err := s.readInto(pos, head[:]); err != nil {
		return r, err
	}
	n := message.RecordSize(head[:])
	if n < message.MinRecordBytes || int64(n) > s.o.SegmentBytes-pos%s.o.SegmentBytes || pos+int64(n) > s.log.visible.Load() {
		return r, fmt.Errorf("record at %d: %w", pos, ErrNotFound)
	}
	err := s.addRange(r, queueSlot{}, pos, n, n, false)
	var damage *CorruptionError
	if errors.As(err, &damage) && errors.Is(err, message.ErrBadMagic) {
		err = fmt.Errorf("record at %d: %w", pos, ErrNotFound)
	}
	if err == nil && !message.IsRecord(r.pieces[0].b) {
		r.pieces = nil
		err = fmt.Errorf("record at %d: %w", pos, ErrNotFound)
	}
	return r, err
}

// readInto fills dst with the log from pos on, which must be visible and in one segment.
func (s *Store) readInto(pos int64, dst []byte) error {
	if c := s.log.chunks.find(pos); c != nil {
		ok := pos+int64(len(dst)) <= c.end()
		if ok {
			copy(dst, c.buf[pos-c.start:])
		}
		c.release()
		if ok {
			return nil
		}
	}
	m := s.files.Acquire(pos)
	if m == nil {
		return ErrOffsetTooSmall
	}
	defer m.Release()
	readSlots <- struct{}{}
	defer func() { <-readSlots }()
	_, err := m.ReadAt(dst, pos)
	return err
}

// QueueName is one queue of a topic.
type QueueName struct {
	Topic string
	ID    int32
}

// Queues lists all queues, by topic and number.
func (s *Store) Queues() []QueueName {
	var names []QueueName
	for _, q := range s.queues.all() {
		if q.max() > 0 {
			names = append(names, QueueName{q.Topic(), q.ID()})
		}
	}
	slices.SortFunc(names, func(a, b QueueName) int {
		if a.Topic != b.Topic {
			if a.Topic < b.Topic {
				return -1
			}
			return 1
		}
		return int(a.ID) - int(b.ID)
	})
	return names
}

// RemoveTopic empties all queues of a topic and removes their files. The records stay in the log until
// retention takes them; offsets are not used again, so a topic of the same name goes on behind them
// (Apache starts at 0 again, and finds the old records when it makes its queues anew from the log).
// Safe beside appends to the topic: records that come meanwhile may stay readable.
func (s *Store) RemoveTopic(topic string) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return s.queues.remove(topic)
}

// RemoveExpiredQueues removes the files of queues, and of parts of them, whose records the log no
// longer holds. Retention does it by itself.
func (s *Store) RemoveExpiredQueues() error {
	if s.closed.Load() {
		return ErrClosed
	}
	return s.queues.deleteBefore(s.Min())
}

// QueueRange is the range [low, high) of queue offsets that can be read, false if there is no
// such queue.
func (s *Store) QueueRange(topic string, queueID int32) (low, high int64, ok bool) {
	q := s.queues.lookup(topic, queueID)
	if q == nil {
		return 0, 0, false
	}
	return q.min(), q.max(), true
}

// QueryKey finds records by message key or unique key, stored from begin to end (milliseconds,
// inclusive), at most limit of them, newest files first; positions ascend. Two keys may share a
// hash, so the caller compares.
func (s *Store) QueryKey(topic, key string, limit int, begin, end int64) ([]int64, error) {
	if s.index == nil {
		return nil, fmt.Errorf("messageIndexEnable is off: %w", ErrUnsupported)
	}
	found, err := s.index.query(topic, key, limit, begin, end)
	if err != nil {
		return nil, err
	}
	low, visible := s.Min(), s.log.visible.Load()
	found = slices.DeleteFunc(found, func(pos int64) bool { return pos < low || pos >= visible })
	slices.Sort(found)
	return found, nil
}

// TimeBound says which neighbour OffsetByTime returns when no record has exactly the time.
type TimeBound int

// The bounds (org.apache.rocketmq.common.BoundaryType).
const (
	LowerBound TimeBound = iota // the first record at or after the time
	UpperBound                  // the last record at or before it
)

// OffsetByTime finds the queue offset of the record stored at millis, by binary search over store
// times, which never decrease along a queue.
func (s *Store) OffsetByTime(topic string, queueID int32, millis int64, bound TimeBound) (int64, error) {
	q := s.queues.lookup(topic, queueID)
	if q == nil {
		return 0, ErrNotFound
	}
	low, high := q.min(), q.max()
	first := low
	var searchErr error
	// before reports whether the record at offset lies before the searched place.
	before := func(offset int64) bool {
		t, err := s.storeTime(q, offset)
		if err != nil {
			if errors.Is(err, ErrOffsetTooSmall) {
				return true
			}
			searchErr = err
			return false
		}
		if bound == UpperBound {
			return t <= millis
		}
		return t < millis
	}
	for low < high && searchErr == nil {
		if mid := low + (high-low)/2; before(mid) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if searchErr != nil {
		return 0, searchErr
	}
	if bound == UpperBound {
		return max(low-1, first), nil
	}
	return low, nil
}

func (s *Store) storeTime(q *ConsumeQueue, offset int64) (int64, error) {
	var e [1]format.CQEntry
	n, err := q.read(offset, e[:])
	if err != nil {
		return 0, err
	}
	if n == 0 || e[0].IsFiller() || e[0].Offset < s.Min() {
		return 0, ErrOffsetTooSmall
	}
	var head [message.StoreTimeBytes]byte
	if err := s.readInto(e[0].Offset, head[:]); err != nil {
		return 0, err
	}
	return message.StoreTime(head[:]), nil
}

// StoreTime is when the record at offset of a queue was stored, in milliseconds.
func (s *Store) StoreTime(topic string, queueID int32, offset int64) (int64, error) {
	q := s.queues.lookup(topic, queueID)
	if q == nil {
		return 0, ErrNotFound
	}
	return s.storeTime(q, offset)
}

// Scan calls f with every record from pos on that is visible at the time of the call, checksums
// verified, until f returns false. It returns the position behind the last one. rec is valid
// during the call of f.
func (s *Store) Scan(ctx context.Context, pos int64, f func(pos int64, rec *message.Record) bool) (int64, error) {
	reader := &logReader{l: s.log}
	defer reader.close()
	return s.log.walk(reader, pos, s.log.visible.Load(), true, func(at int64, r *message.Record) bool {
		return ctx.Err() == nil && f(at, r)
	})
}
