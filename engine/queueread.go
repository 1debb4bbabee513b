package engine

import (
	"errors"

	"rmq/engine/format"
)

// ReadQuery says what to read of a queue.
type ReadQuery struct {
	Topic    string
	QueueID  int32
	Offset   int64 // of the first record
	MaxCount int   // records
	MaxBytes int   // of all records together; the first comes whatever its size
	// MaxScan bounds the queue entries looked at; 0: MaxCount.
	MaxScan int
	// Match passes over records by what their queue entry says of the tag ([message.TagHash]; of a
	// delayed message, when it is due). nil passes all. Different tags may share a hash.
	Match func(tagsHash int64) bool
	// InMemory reads no file: what only a file holds ends the read, with [ErrCold] if nothing was
	// found before it. For goroutines that must not wait for a disk.
	InMemory bool
}

// Get reads up to maxCount records of maxBytes in all from a queue, beginning at offset; the first
// record comes whatever its size. Status tells when there is none.
//
// Damage is a [CorruptionError]; the records before it are still in the result, which must be
// released even then.
func (s *Store) Get(topic string, queueID int32, offset int64, maxCount, maxBytes int) (*ReadResult, error) {
	r := &ReadResult{}
	err := s.Read(r, &ReadQuery{Topic: topic, QueueID: queueID, Offset: offset, MaxCount: maxCount, MaxBytes: maxBytes})
	return r, err
}

// Read is [Store.Get] with a filter and into a result of the caller's, which is new or released:
// records that are still in memory come without an allocation. Errors as with Get.
func (s *Store) Read(r *ReadResult, query *ReadQuery) error {
	r.Status, r.NextOffset, r.LastPos = ReadFound, query.Offset, -1
	if s.closed.Load() {
		return ErrClosed
	}
	q := s.queues.lookup(query.Topic, query.QueueID)
	if q == nil {
		r.Status, r.NextOffset = ReadNoQueue, 0
		return nil
	}
	r.MinOffset, r.MaxOffset = q.min(), q.max()
	switch {
	case r.MaxOffset == 0:
		r.Status, r.NextOffset = ReadNoMessage, 0
		return nil
	case query.Offset < r.MinOffset:
		r.Status, r.NextOffset = ReadOffsetTooSmall, r.MinOffset
		return nil
	case query.Offset == r.MaxOffset:
		r.Status = ReadOffsetOverflowOne
		return nil
	case query.Offset > r.MaxOffset:
		r.Status, r.NextOffset = ReadOffsetOverflow, r.MaxOffset
		return nil
	}
	err := s.scanQueue(r, q, query)
	r.window.close()
	return err
}

const (
	entriesAtOnce = 128
	readAheadGap  = 4 << 10 // bytes of other queues that are read along rather than skipped
)

// scanQueue reads entries of q and the records that they name, from r.NextOffset on.
func (s *Store) scanQueue(r *ReadResult, q *ConsumeQueue, query *ReadQuery) error {
	var entries [entriesAtOnce]format.CQEntry
	left := max(query.MaxScan, query.MaxCount)
	if query.Match == nil {
		left = query.MaxCount
	}
	for len(r.pieces) < query.MaxCount && r.NextOffset < r.MaxOffset && left > 0 {
		if query.InMemory && r.NextOffset < q.memoryFrom() {
			return coldEnd(r)
		}
		n, err := q.read(r.NextOffset, entries[:min(len(entries), left)])
		if err != nil {
			return err
		}
		if n == 0 {
			if len(r.pieces) == 0 {
				r.Status = ReadOffsetNull
			}
			return nil
		}
		left -= n
		if full, err := s.takeEntries(r, q, query, entries[:n]); full || err != nil {
			return err
		}
	}
	return nil
}

// takeEntries adds the records of entries of q, which begin at r.NextOffset, and reports when no more fit.
func (s *Store) takeEntries(r *ReadResult, q *ConsumeQueue, query *ReadQuery, entries []format.CQEntry) (full bool, err error) {
	for i, e := range entries {
		none := len(r.pieces) == 0
		switch {
		case e.IsFiller() || e.Offset < s.Min():
			r.NextOffset++
			if none {
				r.Status = ReadRemoving
			}
			continue
		case query.Match != nil && !query.Match(e.TagsHash):
			r.NextOffset++
			r.LastPos = e.Offset
			if none {
				r.Status = ReadNoMatch
			}
			continue
		case !none && r.Bytes+int(e.Size) > query.MaxBytes:
			return true, nil
		}
		ahead, sparse := memoryOnly, false
		if !query.InMemory {
			ahead, sparse = aheadOf(entries[i:], query.MaxBytes-r.Bytes)
		}
		if err := s.addRange(r, queueSlot{q, r.NextOffset}, e.Offset, int(e.Size), ahead, sparse); err != nil {
			if errors.Is(err, ErrCold) {
				return true, coldEnd(r)
			}
			if errors.Is(err, ErrOffsetTooSmall) {
				r.NextOffset++
				continue
			}
			return true, err
		}
		r.Status = ReadFound
		r.NextOffset++
		r.LastPos = e.Offset
		if len(r.pieces) == query.MaxCount {
			return true, nil
		}
	}
	return false, nil
}

// coldEnd ends a read that must not touch a file.
func coldEnd(r *ReadResult) error {
	if len(r.pieces) == 0 {
		return ErrCold
	}
	return nil
}

// aheadOf is how many bytes to read at once, from the record of the first entry on, so that those of
// the next ones that lie close by are among them; sparse says that less than half of it is theirs.
func aheadOf(entries []format.CQEntry, budget int) (bytes int, sparse bool) {
	start := entries[0].Offset
	wanted := int64(entries[0].Size)
	end := start + int64(entries[0].Size)
	for _, e := range entries[1:] {
		stop := e.Offset + int64(e.Size)
		if e.Offset < end || e.Offset > end+readAheadGap || stop-start > int64(min(budget, readBufferBytes)) {
			break
		}
		end = stop
		wanted += int64(e.Size)
	}
	return int(end - start), 2*wanted < end-start
}

// Entries reads up to limit entries of a queue from offset on; fewer come where the queue ends, none
// at its end. [ErrNotFound] without such a queue, [ErrOffsetTooSmall] below its minimum.
func (s *Store) Entries(topic string, queueID int32, offset int64, limit int) ([]format.CQEntry, error) {
	q := s.queues.lookup(topic, queueID)
	if q == nil {
		return nil, ErrNotFound
	}
	entries := make([]format.CQEntry, limit)
	got := 0
	for got < limit {
		n, err := q.read(offset+int64(got), entries[got:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		got += n
	}
	return entries[:got], nil
}
