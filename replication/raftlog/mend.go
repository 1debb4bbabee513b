package raftlog

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"rmq/engine"
)

// Damage below what is committed is repaired from another node: a frame of the same index and term has the same
// bytes on all of them. It is found when a record or a frame is read, which verifies what comes from a file.

const (
	mendPart    = 512 << 10       // bytes of a frame that travel at a time
	mendTimeout = 2 * time.Second // of a part
	mendPause   = time.Second     // before a frame that nobody had is asked for again
)

// frameQuery asks for bytes of a frame.
type frameQuery struct {
	Index, Term uint64
	From        int // in the frame
}

type framePart struct {
	Bytes []byte // at most mendPart; fewer: these are the last
}

// framePart answers a frameQuery from what reads here.
func (n *Node) framePart(q frameQuery) (framePart, error) {
	r, err := n.logs.intact(q.Index, q.Term)
	if err != nil {
		return framePart{}, err
	}
	defer r.Release()
	if q.From < 0 || q.From > len(r.Bytes) {
		return framePart{}, fmt.Errorf("%w: byte %d of a frame of %d", errWire, q.From, len(r.Bytes))
	}
	return framePart{append([]byte(nil), r.Bytes[q.From:min(q.From+mendPart, len(r.Bytes))]...)}, nil
}

// errMendPause says that nobody had the frame a moment ago, which was logged.
var errMendPause = errors.New("no other node has given the frame out a moment ago")

// mender repairs frames, one at a time.
type mender struct {
	mu     sync.Mutex
	failed map[uint64]time.Time // when nobody had a frame
}

// mend repairs the frame of e, which is damaged. nil: it reads now.
func (n *Node) mend(index uint64, e entry) error {
	n.mends.mu.Lock()
	defer n.mends.mu.Unlock()
	if index > n.logs.Committed() {
		return fmt.Errorf("entry %d is not committed: its leader will send it again or another one", index)
	}
	if r, err := n.logs.intact(index, e.term); err == nil { // somebody has repaired it meanwhile
		r.Release()
		return nil
	}
	if since := time.Since(n.mends.failed[index]); since < mendPause {
		return errMendPause
	}
	errs := []error{errors.New("no other node gives it out")}
	for _, p := range n.net.known() {
		if !p.online() {
			continue
		}
		frame, err := p.fetch(index, e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := n.Mend(e.pos, frame); err != nil {
			return err
		}
		n.o.Logger.Warn("a damaged frame was replaced by the one of another node: check the disk", "index", index, "pos", e.pos,
			"bytes", e.len, "from", p.id, "dir", n.o.dir())
		delete(n.mends.failed, index)
		return nil
	}
	if n.mends.failed == nil || len(n.mends.failed) > 1024 {
		n.mends.failed = map[uint64]time.Time{}
	}
	n.mends.failed[index] = time.Now()
	return errors.Join(errs...)
}

// fetch gets a frame from a peer, verified.
func (p *peer) fetch(index uint64, e entry) ([]byte, error) {
	frame := make([]byte, 0, e.len)
	for len(frame) < int(e.len) {
		var part framePart
		if err := p.askWithin(mendTimeout, kindFrame, frameQuery{index, e.term, len(frame)}, &part); err != nil {
			return nil, err
		}
		frame = append(frame, part.Bytes...)
		if len(part.Bytes) < mendPart {
			break
		}
	}
	h, err := ParseFrame(frame)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", p.id, p.addr, err)
	}
	if h.Index != index || h.Term != e.term || h.Pos != e.pos || h.Len() != int(e.len) {
		return nil, fmt.Errorf("%s at %s has another frame as entry %d: term %d at %d, %d bytes", p.id, p.addr, index, h.Term, h.Pos, h.Len())
	}
	return frame, nil
}

// around is the entry whose frame lies round pos; false if the log does not hold it.
func (n *Node) around(pos int64) (uint64, entry, bool) {
	before, err := n.logs.below(pos)
	if err != nil {
		return 0, entry{}, false
	}
	e, err := n.logs.entry(before + 1)
	return before + 1, e, err == nil && pos >= e.pos && pos < e.end()
}

// mendAt repairs the frame round pos, and reports whether it reads now.
func (n *Node) mendAt(pos int64) bool {
	index, e, ok := n.around(pos)
	if !ok {
		return false
	}
	if err := n.mend(index, e); errors.Is(err, errMendPause) {
		return false
	} else if err != nil {
		n.o.Logger.Error("a damaged frame cannot be repaired", "index", index, "pos", e.pos, "dir", n.o.dir(), "error", err)
		return false
	}
	return true
}

// damagedAt is where err says that the log is damaged, -1 if it does not.
func (n *Node) damagedAt(err error) int64 {
	var damage *engine.CorruptionError
	if !errors.As(err, &damage) {
		return -1
	}
	if dir := path.Clean(n.Options().CommitLogDir); path.Clean(damage.Path) != dir && path.Dir(damage.Path) != dir {
		return -1 // of a queue, say
	}
	return damage.Offset
}

// Read is [engine.Store.Read], which has what is damaged repaired from other nodes.
func (n *Node) Read(r *engine.ReadResult, q *engine.ReadQuery) error {
	last := int64(-1)
	for {
		err := n.Store.Read(r, q)
		if err == nil {
			return nil
		}
		pos := n.damagedAt(err)
		if pos < 0 || pos == last || !n.mendAt(pos) {
			return err
		}
		last = pos
		r.Release()
	}
}

// Get is [engine.Store.Get] in the same way.
func (n *Node) Get(topic string, queueID int32, offset int64, maxCount, maxBytes int) (*engine.ReadResult, error) {
	r := &engine.ReadResult{}
	err := n.Read(r, &engine.ReadQuery{Topic: topic, QueueID: queueID, Offset: offset, MaxCount: maxCount, MaxBytes: maxBytes})
	return r, err
}

// Lookup is [engine.Store.Lookup] in the same way.
func (n *Node) Lookup(pos int64) (*engine.ReadResult, error) {
	r, err := n.Store.Lookup(pos)
	damaged := n.damagedAt(err) >= 0
	if errors.Is(err, engine.ErrNotFound) { // a record whose first bytes are damaged looks like none
		damaged = n.damaged(pos)
	}
	if !damaged || !n.mendAt(pos) {
		return r, err
	}
	r.Release()
	return n.Store.Lookup(pos)
}

// damaged reports whether the frame round pos does not read.
func (n *Node) damaged(pos int64) bool {
	index, e, ok := n.around(pos)
	if !ok {
		return false
	}
	r, err := n.logs.intact(index, e.term)
	if err == nil {
		r.Release()
	}
	return n.damagedAt(err) >= 0
}
