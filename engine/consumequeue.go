package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"rmq/engine/format"
	"rmq/internal/watermark"
)

// ConsumeQueue is the list of a queue's records in the log, one entry of 20 bytes each, entry n
// at byte 20·n of the queue's files (org.apache.rocketmq.store.ConsumeQueue).
//
//	first            base                  n
//	  +----------------+-------------------+
//	  | classic files  | pending in memory |
//	  +----------------+-------------------+
//	       min ^
//
// The dispatcher puts entries in log order; they wait in memory until the queue table writes them
// into the files. Any goroutine may read. Lock order: the table's maint, then mu; no I/O under mu.
type ConsumeQueue struct {
	next int64 // next offset to give out; guarded by the append lock

	topic   string
	t       *queueTable
	id      int32
	unnamed bool // no directory can bear the topic's name: the queue takes nothing
	// What follows is written by other goroutines than next, hence the space. What a put touches
	// comes first, in one cache line: with many queues the misses are the cost.
	_ [27]byte

	mu     sync.Mutex
	end    int64          // end in the log of the newest record put
	minPos int64          // log position of the entry at low, -1 unknown
	tail   []byte         // room in the last block of pending
	mark   watermark.Mark // behind the last entry: n in the picture; changes under mu

	pending entryList
	base    int64 // entries below are in the files
	kept    int64 // entries below are in the files or in the journal
	moved   bool  // the journal does not know the present files or minimum
	unsure  bool  // the files may hold something at or above base
	num     int32 // in the journal, -1 before it is there; guarded by maint
	cuts    int32 // counts truncations
	first   int64 // byte at which the first file begins
	limit   int64 // byte at which the last file ends; first when there is no file
	low     atomic.Int64
}

// Topic is the topic's name.
func (q *ConsumeQueue) Topic() string { return q.topic }

// ID is the queue's number within the topic.
func (q *ConsumeQueue) ID() int32 { return q.id }

// min is the lowest offset that can be read.
func (q *ConsumeQueue) min() int64 { return q.low.Load() }

// max is the offset behind the last entry.
func (q *ConsumeQueue) max() int64 { return q.mark.Load() }

// waitMax returns when max is n or more.
func (q *ConsumeQueue) waitMax(ctx context.Context, n int64) error { return q.mark.Wait(ctx, n) }

// endPos is the end in the log of the newest record the queue knows.
func (q *ConsumeQueue) endPos() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.end
}

// queueGapError says that entries are missing between what a queue holds and what it is given:
// its files are not what the log demands, and must be made anew from the log.
type queueGapError struct {
	Topic     string
	ID        int32
	Want, Got int64
}

func (e *queueGapError) Error() string {
	return fmt.Sprintf("queue %s/%d ends at %d but the next record has offset %d", e.Topic, e.ID, e.Want, e.Got)
}

// put adds the entry of a record. Only the dispatcher calls it, in log order.
//
// A record that the queue has seen is skipped: one that ends at or below endPos, as Apache does,
// or one whose offset is taken (Apache would append it if that offset is 0). A queue without
// entries begins at whatever offset comes first. A gap is a [queueGapError], unless nothing that
// comes before it is in the log any more, or the queues are being rebuilt from the log: then it is
// closed with filler entries, so that every later record stands at its own offset.
func (q *ConsumeQueue) put(queueOffset, pos int64, size int32, tags int64) error {
	if q.t.pendingBytes() >= q.t.relieveAt.Load() {
		q.t.relieve()
	}
	q.mu.Lock()
	end := pos + int64(size)
	if end <= q.end {
		q.mu.Unlock()
		return nil
	}
	if queueOffset != q.mark.Load() {
		if skip, err := q.misplaced(queueOffset); skip || err != nil {
			q.mu.Unlock()
			return err
		}
	}
	if q.minPos < 0 && queueOffset == q.low.Load() {
		q.minPos = pos
	}
	q.add(queueOffset, pos, size, tags)
	q.end = end
	q.mark.Advance(queueOffset + 1)
	q.mu.Unlock()
	return nil
}

// add encodes the next entry, whose offset is n, in memory. Readers do not see it yet.
func (q *ConsumeQueue) add(n, pos int64, size int32, tags int64) {
	if len(q.tail) < format.CQEntryBytes {
		q.tail = q.pending.grow(&q.t.arena, n)
	}
	b := q.tail[:format.CQEntryBytes]
	binary.BigEndian.PutUint64(b, uint64(pos))
	binary.BigEndian.PutUint32(b[8:], uint32(size))
	binary.BigEndian.PutUint64(b[12:], uint64(tags))
	q.tail = q.tail[format.CQEntryBytes:]
}

// setMax moves the end in either direction. Called with mu held.
func (q *ConsumeQueue) setMax(n int64) {
	q.mark.Rewind(n)
	q.mark.Advance(n)
}

// dropPending takes the entries below base out of memory. Called with mu held.
func (q *ConsumeQueue) dropPending() {
	if q.base >= q.mark.Load() {
		q.tail = nil
		q.pending.clear(&q.t.arena)
		return
	}
	q.pending.dropBelow(&q.t.arena, q.base)
}

// cutPending takes the entries at and above n out of memory. Called with mu held.
func (q *ConsumeQueue) cutPending(n int64) {
	q.tail = nil
	if q.base >= n {
		q.pending.clear(&q.t.arena)
		return
	}
	q.tail = q.pending.cut(&q.t.arena, n)
}

// misplaced deals with an entry that does not follow the last one. Called with mu held.
func (q *ConsumeQueue) misplaced(queueOffset int64) (skip bool, err error) {
	log, n, empty := q.t.o.Logger, q.mark.Load(), q.low.Load() == q.mark.Load()
	switch {
	case queueOffset < 0:
		return true, nil
	case q.first == q.limit && q.base == n && empty:
		// No file and no entry: the queue begins here.
		q.setMax(queueOffset)
		q.base, q.kept, q.minPos, q.moved = queueOffset, queueOffset, -1, true
		q.low.Store(queueOffset)
		return false, nil
	case queueOffset < n:
		log.Warn("queue entry skipped: its offset is taken", "topic", q.topic, "queue", q.id, "offset", queueOffset, "max", n)
		return true, nil
	case empty || q.t.rebuilding.Load():
		log.Warn("gap in queue offsets closed", "topic", q.topic, "queue", q.id, "max", n, "offset", queueOffset)
		if empty {
			q.low.Store(queueOffset)
		}
		for ; n < queueOffset; n++ {
			q.add(n, format.CQFiller.Offset, format.CQFiller.Size, format.CQFiller.TagsHash)
		}
		return false, nil
	}
	return false, &queueGapError{q.topic, q.id, n, queueOffset}
}

// read fills dst with entries from offset on and returns how many, 0 at or behind max; it may be
// fewer than there are. [ErrOffsetTooSmall] below min. Safe beside everything else.
func (q *ConsumeQueue) read(offset int64, dst []format.CQEntry) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	buf := queueBufs.Get().(*[queueBufBytes]byte)
	defer queueBufs.Put(buf)
	for {
		if offset < q.low.Load() {
			return 0, fmt.Errorf("queue %s/%d at %d: %w", q.topic, q.id, offset, ErrOffsetTooSmall)
		}
		q.mu.Lock()
		n, base, cuts := q.mark.Load(), q.base, q.cuts
		if offset >= n {
			q.mu.Unlock()
			return 0, nil
		}
		b := buf[:min(len(dst)*format.CQEntryBytes, len(buf))]
		if offset >= base {
			b = b[:q.pending.copyOut(&q.t.arena, offset, n, b)]
			q.mu.Unlock()
			return parseEntries(dst, b), nil
		}
		q.mu.Unlock()
		got, err := q.t.readFiles(q, offset, b[:min(int64(len(b)), (base-offset)*format.CQEntryBytes)])
		q.mu.Lock()
		same := cuts == q.cuts
		q.mu.Unlock()
		switch {
		case !same || offset < q.low.Load():
			continue
		case errors.Is(err, fs.ErrNotExist):
			return 0, &CorruptionError{Path: q.t.queueDir(q), Offset: offset * format.CQEntryBytes, What: "a consume queue file is missing: repair the store", Err: err}
		case err != nil:
			return 0, err
		}
		return parseEntries(dst, b[:got]), nil
	}
}

// memoryFrom is the first offset whose entry is in memory.
func (q *ConsumeQueue) memoryFrom() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.base
}

const queueBufBytes = 800 * format.CQEntryBytes // what one get of a broker looks at

var queueBufs = sync.Pool{New: func() any { return new([queueBufBytes]byte) }}

func parseEntries(dst []format.CQEntry, b []byte) int {
	n := 0
	for ; n < len(dst) && len(b) >= format.CQEntryBytes; n++ {
		dst[n] = format.CQEntry{
			Offset:   int64(binary.BigEndian.Uint64(b)),
			Size:     int32(binary.BigEndian.Uint32(b[8:])),
			TagsHash: int64(binary.BigEndian.Uint64(b[12:])),
		}
		b = b[format.CQEntryBytes:]
	}
	return n
}

// cutPoint finds the entry from which on records lie at or behind pos, and the end in the log of
// the last record before it. Entries are looked at from the last one back, since fillers are not
// in log order.
func (q *ConsumeQueue) cutPoint(pos int64) (n, end int64, err error) {
	var entries [256]format.CQEntry
	low := q.min()
	n = q.max()
	cutting := true
	for at := n; at > low; {
		from := max(low, at-int64(len(entries)))
		for got := int64(0); got < at-from; {
			k, err := q.read(from+got, entries[got:at-from])
			if err != nil {
				return 0, 0, err
			}
			if k == 0 {
				return 0, 0, fmt.Errorf("BUG: queue %s/%d shrank", q.topic, q.id)
			}
			got += int64(k)
		}
		for ; at > from; at-- {
			e := entries[at-from-1]
			if cutting && (e.Offset >= pos || !e.Valid()) {
				n = at - 1
				continue
			}
			cutting = false
			if !e.IsFiller() {
				return n, e.Offset + int64(e.Size), nil
			}
		}
	}
	return n, 0, nil
}

// seekPos is the first offset in [low, high) whose record lies at or behind pos; high if none.
func (q *ConsumeQueue) seekPos(low, high, pos int64) (int64, error) {
	var e [1]format.CQEntry
	for low < high {
		mid := low + (high-low)/2
		if n, err := q.read(mid, e[:]); err != nil {
			return 0, err
		} else if n == 0 {
			return 0, fmt.Errorf("BUG: queue %s/%d has no entry %d", q.topic, q.id, mid)
		}
		if e[0].Offset < pos || e[0].IsFiller() {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}
