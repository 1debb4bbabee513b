package bench

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"rmq/results"
)

// seqSet is a set of sequence numbers, one bit each. Not safe for concurrent use.
type seqSet struct{ words []uint64 }

func (s *seqSet) add(seq int64) {
	i := seq >> 6
	if i >= int64(len(s.words)) {
		grown := make([]uint64, max(i+1, int64(2*len(s.words)), 1<<14))
		copy(grown, s.words)
		s.words = grown
	}
	s.words[i] |= 1 << (seq & 63)
}

// Auditor checks what a driver reads back against what was acknowledged. Its memory is a few bits
// a message.
type Auditor struct {
	runID   uint64
	workers int
	lanes   int64
	run     int64  // messages that go by one way before the next one's turn
	noScan  string // why the log is not scanned
	acked   *seqSet
	sent    int64 // no sequence reaches this

	byQueue, byScan  []atomic.Uint64
	foundQ, foundS   atomic.Int64
	dupQ, dupS       atomic.Int64
	corrupt, unknown atomic.Int64
	reordered        atomic.Int64

	mu   sync.Mutex
	note string
}

func newAuditor(runID uint64, workers int, session Session, acked *seqSet, sent int64) *Auditor {
	n := sent>>6 + 1
	lanes, run := 1, 1
	if l, ok := session.(Laned); ok {
		lanes, run = l.Lanes()
	}
	return &Auditor{
		runID: runID, workers: workers, lanes: int64(lanes), run: int64(run), acked: acked, sent: sent,
		byQueue: make([]atomic.Uint64, n), byScan: make([]atomic.Uint64, n),
	}
}

// QueueReader checks one queue, read in the order of its offsets. For one goroutine.
type QueueReader struct {
	a    *Auditor
	name string
	last []int64 // newest sequence by worker and way
}

// Queue returns the reader for one queue.
func (a *Auditor) Queue(topic string, id int32) *QueueReader {
	r := &QueueReader{a: a, name: fmt.Sprintf("%s/%d", topic, id), last: make([]int64, int64(a.workers)*a.lanes)}
	for i := range r.last {
		r.last[i] = -1
	}
	return r
}

// Body takes the body of the record at a queue offset.
func (r *QueueReader) Body(offset int64, b []byte) { r.take(offset, b, ownBody) }

// BodyOf is Body of a record that stands for message seq though its body was made for another one; -1: for none.
func (r *QueueReader) BodyOf(offset, seq int64, b []byte) { r.take(offset, b, max(seq, nobody)) }

func (r *QueueReader) take(offset int64, b []byte, of int64) {
	seq, ok := r.a.take(b, of, r.a.byQueue, &r.a.foundQ, &r.a.dupQ, func() string { return fmt.Sprintf("queue %s offset %d", r.name, offset) })
	if !ok {
		return
	}
	worker, n := seq%int64(r.a.workers), seq/int64(r.a.workers)
	w := worker*r.a.lanes + n/r.a.run%r.a.lanes
	if seq < r.last[w] {
		r.a.reordered.Add(1)
		r.a.say("queue %s offset %d: message %d behind %d", r.name, offset, seq, r.last[w])
	}
	r.last[w] = seq
}

// Missing says that a queue offset below the end of its queue could not be read.
func (r *QueueReader) Missing(offset int64, err error) {
	r.a.corrupt.Add(1)
	r.a.say("queue %s offset %d: %v", r.name, offset, err)
}

// Scan takes the body of the record at a position of the log.
func (a *Auditor) Scan(pos int64, b []byte) { a.scan(pos, b, ownBody) }

// ScanOf is Scan of a record that stands for message seq though its body was made for another one; -1: for none.
func (a *Auditor) ScanOf(pos, seq int64, b []byte) { a.scan(pos, b, max(seq, nobody)) }

func (a *Auditor) scan(pos int64, b []byte, of int64) {
	a.take(b, of, a.byScan, &a.foundS, &a.dupS, func() string { return fmt.Sprintf("position %d", pos) })
}

// NoScan says that the log cannot be scanned, and why: what the queues hold decides alone.
func (a *Auditor) NoScan(why string) {
	a.noScan = why
}

// ScanEnded says where a scan of the log stopped before its end.
func (a *Auditor) ScanEnded(pos, end int64, err error) {
	a.corrupt.Add(1)
	a.say("scan stopped at %d of %d: %v", pos, end, err)
}

const (
	nobody  = -1 // the record stands for no message
	ownBody = -2 // its body tells for which
)

// take checks a body that was found, and notes the message of: the one that the body tells, or one that is told.
func (a *Auditor) take(b []byte, of int64, set []atomic.Uint64, found, dup *atomic.Int64, where func() string) (int64, bool) {
	seq, err := ParsePayload(b, a.runID)
	if of != ownBody {
		seq = of
	}
	if err == nil && (seq < 0 || seq >= a.sent) {
		err = fmt.Errorf("message %d was never sent", seq)
	}
	if err != nil {
		if errors.Is(err, errDamaged) {
			a.corrupt.Add(1)
		} else {
			a.unknown.Add(1)
		}
		a.say("%s: %v", where(), err)
		return 0, false
	}
	found.Add(1)
	if bit := uint64(1) << (seq & 63); set[seq>>6].Or(bit)&bit != 0 {
		dup.Add(1)
		a.say("%s: message %d a second time", where(), seq)
	}
	return seq, true
}

// say keeps the first complaint.
func (a *Auditor) say(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.note == "" {
		a.note = fmt.Sprintf(format, args...)
	}
}

// outcome is what the result says of it.
func (a *Auditor) outcome() *results.Verify {
	v := &results.Verify{
		ByQueue: a.foundQ.Load(), ByScan: a.foundS.Load(), Duplicated: a.dupQ.Load() + a.dupS.Load(),
		Corrupted: a.corrupt.Load() + a.unknown.Load(), Reordered: a.reordered.Load(), NoScan: a.noScan, Note: a.note,
	}
	for i := range a.byQueue {
		var acked uint64
		if i < len(a.acked.words) {
			acked = a.acked.words[i]
		}
		q, s := a.byQueue[i].Load(), a.byScan[i].Load()
		if a.noScan != "" {
			s = q
		}
		v.Acked += int64(bits.OnesCount64(acked))
		v.Lost += int64(bits.OnesCount64(acked &^ (q & s)))
		v.Unacked += int64(bits.OnesCount64((q | s) &^ acked))
	}
	return v
}
