package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"rmq/engine"
)

// Batch gathers appends that become one data frame. It goes to raft as its token; when raft has given it
// its place, the log store lays the records straight into the log. One user at a time, but for Abandon.
type Batch struct {
	set   *batches
	slot  uint16
	token [tokenBytes]byte
	as    []*engine.Append
	bytes int
	taken atomic.Bool

	frame  engine.Frame
	header Header
}

const (
	tokenBytes = 8
	tokenMagic = 0x5242 // "RB"
)

// batches are those that are in use, by what stands in their tokens.
type batches struct {
	engine *engine.Store
	mu     sync.Mutex
	all    []*Batch
	free   []*Batch
	gen    uint32
}

// get gives an empty batch.
func (s *batches) get() *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b *Batch
	if k := len(s.free); k > 0 {
		b, s.free = s.free[k-1], s.free[:k-1]
	} else {
		b = &Batch{set: s, slot: uint16(len(s.all))}
		b.frame.Header, b.frame.Seal = HeaderBytes, b.seal
		s.all = append(s.all, b)
		if len(s.all) > 1<<16 {
			panic("BUG: batches are not given back")
		}
	}
	s.gen++
	binary.BigEndian.PutUint16(b.token[:], tokenMagic)
	binary.BigEndian.PutUint16(b.token[2:], b.slot)
	binary.BigEndian.PutUint32(b.token[4:], s.gen)
	return b
}

// find is the batch that token stands for.
func (s *batches) find(token []byte) (*Batch, error) {
	if len(token) != tokenBytes || binary.BigEndian.Uint16(token) != tokenMagic {
		return nil, fmt.Errorf("BUG: a command of %d bytes is neither a frame nor a document nor a batch", len(token))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := int(binary.BigEndian.Uint16(token[2:])); slot < len(s.all) && string(s.all[slot].token[:]) == string(token) {
		return s.all[slot], nil
	}
	return nil, fmt.Errorf("BUG: the batch of token %x is gone", token)
}

// Token is what raft gets as the data of the entry. It is good until Free.
func (b *Batch) Token() []byte { return append([]byte(nil), b.token[:]...) }

// Add takes a, whose errors are those of [engine.Store.Check]: what goes wrong with a record goes wrong
// here, and not when the batch is stored.
func (b *Batch) Add(a *engine.Append) error {
	if err := b.set.engine.Check(a); err != nil {
		return err
	}
	limit := min(b.set.engine.Options().SegmentBytes-8, maxFrameBytes) - HeaderBytes
	if size := int64(b.bytes + len(a.Record)); size > limit {
		return &engine.TooLargeError{Size: size, Limit: limit}
	}
	b.as = append(b.as, a)
	b.bytes += len(a.Record)
	return nil
}

// Bytes is the size of the records.
func (b *Batch) Bytes() int { return b.bytes }

// Len is the number of appends.
func (b *Batch) Len() int { return len(b.as) }

// Abandon gives the appends back if the batch has not come into the log: their Done is the caller's to
// run. Otherwise it gives none, and the engine runs it. Only once raft has answered, or was not asked.
func (b *Batch) Abandon() []*engine.Append {
	if b.taken.Load() {
		return nil
	}
	as := b.as
	b.as = nil
	return as
}

// Free gives the batch back for another use.
func (b *Batch) Free() {
	clear(b.as[:cap(b.as)])
	b.as, b.bytes, b.frame.As = b.as[:0], 0, nil
	b.taken.Store(false)
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	clear(b.token[:])
	b.set.free = append(b.set.free, b)
}

// fill makes the frame of the entry l out of the batch.
func (b *Batch) fill(l *raft.Log, prevTerm uint64, hint int64) *engine.Frame {
	b.header = Header{Type: FrameData, Index: l.Index, Term: l.Term, PrevTerm: uint32(prevTerm), Hint: hint}
	for _, a := range b.as {
		b.header.Messages += a.Result.Count
	}
	b.frame.As = b.as
	return &b.frame
}

func (b *Batch) seal(frame []byte, pos int64) { b.header.seal(frame, pos) }

// seal completes the header of frame, which stands at pos, over its body.
func (h *Header) seal(frame []byte, pos int64) {
	body := frame[HeaderBytes:]
	h.Pos, h.BodyLen, h.BodyCRC = pos, int32(len(body)), crc32.Checksum(body, castagnoli)
	h.put(frame)
}
