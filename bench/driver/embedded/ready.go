package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rmq/bench"
	"rmq/engine"
	"rmq/message"
	"rmq/replication"
)

// readyRecords is how many records a ready batch has at most.
const readyRecords = 64

// readySender sends messages that were encoded beforehand: all are the first one that it was asked to encode, and
// whose message a record is tells the place that its batch got.
type readySender struct {
	s      *session
	slots  []readySlot
	vector []*engine.Append
	batch  []byte // of readyRecords equal records
	size   int    // of one
}

// readySlot carries the messages of a batch, of which the one with this slot is the first.
type readySlot struct {
	a   engine.Append
	ops []*bench.Op
}

func (s *session) readySender(ops []*bench.Op) bench.Sender {
	n := &readySender{s: s, slots: make([]readySlot, len(ops))}
	for i := range n.slots {
		sl := &n.slots[i]
		sl.a.Done = func(a *engine.Append) {
			if stored(a.Err) {
				s.placed.add(placement{pos: a.Result.Pos, first: sl.ops[0].Seq(), count: len(sl.ops), size: n.size})
			}
			for _, op := range slices.Backward(sl.ops) { // the first is the last: then the slot is the worker's again
				op.Err = a.Err
				op.Complete()
			}
		}
	}
	return n
}

// stored tells an append that is in the log, or may be, from one that was refused.
func stored(err error) bool {
	return err == nil || errors.Is(err, engine.ErrIndeterminate) || errors.Is(err, replication.ErrNoReplica)
}

// Encode implements [bench.Sender].
func (n *readySender) Encode(_ *bench.Op, m *message.Message) (int, error) {
	if n.size > 0 {
		return n.size, nil
	}
	for range readyRecords {
		b, err := message.AppendRecord(n.batch, m)
		if err != nil {
			return 0, err
		}
		n.batch = b
	}
	n.size = len(n.batch) / readyRecords
	return n.size, nil
}

// Send implements [bench.Sender].
func (n *readySender) Send(ops []*bench.Op) {
	n.vector = n.vector[:0]
	for part := range slices.Chunk(ops, readyRecords) {
		sl := &n.slots[part[0].Slot]
		sl.ops = append(sl.ops[:0], part...)
		sl.a.Record = n.batch[:len(part)*n.size]
		n.vector = append(n.vector, &sl.a)
	}
	n.s.log.SubmitVector(n.vector)
}

// placement is where the messages of one batch stand, workers apart by their numbers.
type placement struct {
	pos, first  int64
	count, size int
}

// placements say whose message a record is. The zero value has none.
type placements struct {
	workers int64

	mu  sync.Mutex
	all []placement
}

func (p *placements) add(b placement) {
	p.mu.Lock()
	p.all = append(p.all, b)
	p.mu.Unlock()
}

// sort puts them in the order of the log, for find.
func (p *placements) sort() {
	slices.SortFunc(p.all, func(a, b placement) int { return cmp.Compare(a.pos, b.pos) })
}

// find is the message of the record at pos, -1 if it has none.
func (p *placements) find(pos int64) int64 {
	i, exact := slices.BinarySearchFunc(p.all, pos, func(b placement, pos int64) int { return cmp.Compare(b.pos, pos) })
	if !exact {
		i--
	}
	if i < 0 {
		return -1
	}
	b := p.all[i]
	n := (pos - b.pos) / int64(b.size)
	if n >= int64(b.count) || (pos-b.pos)%int64(b.size) != 0 {
		return -1
	}
	return b.first + n*p.workers
}

// tally is what a log holds, so that copies can be compared.
type tally struct {
	records int64
	sum     uint64
}

func (t *tally) add(pos int64, r *message.Record) {
	t.records++
	for _, v := range [...]uint64{uint64(pos), uint64(r.QueueOffset), uint64(r.BodyCRC)} {
		t.sum = (t.sum ^ v) * 0x9E3779B97F4A7C15
		t.sum ^= t.sum >> 32
	}
}

func (t tally) String() string { return fmt.Sprintf("%d records, sum %016x", t.records, t.sum) }
