package raftlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/hashicorp/raft"
)

// metaMagic begins the payload of a META frame, so that it is never taken for the token of a batch; metaGated
// does if the document may be late.
const metaMagic = "RMQMETA\x01"

// meta is a document of the broker on its way through the log:
//
//	0       8    16         18     n     m
//	+-------+----+----------+------+-----+
//	| magic | id | name len | name | doc |
//	+-------+----+----------+------+-----+
//
// The id tells the node that proposed it that it is its own.
type meta struct {
	id   uint64
	name string
	doc  []byte
}

func (m *meta) append(b []byte, magic string) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint64(b, m.id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.name)))
	return append(append(b, m.name...), m.doc...)
}

// parseMeta reads one; false if b is none.
func parseMeta(b []byte) (m meta, ok bool, err error) {
	if !bytes.HasPrefix(b, []byte(metaMagic)) && !bytes.HasPrefix(b, []byte(metaGated)) {
		return m, false, nil
	}
	b = b[len(metaMagic):]
	if len(b) < 10 || len(b) < 10+int(binary.BigEndian.Uint16(b[8:])) {
		return m, true, fmt.Errorf("%w: a document of %d bytes", errWire, len(b))
	}
	n := int(binary.BigEndian.Uint16(b[8:]))
	return meta{binary.BigEndian.Uint64(b), string(b[10 : 10+n]), b[10+n:]}, true, nil
}

// fsm hears of what is committed. Of messages it only learns how far they are: the engine dispatches them
// from the log. Documents of the broker it keeps, the newest of each name, and hands on.
type fsm struct {
	n *Node

	mu   sync.Mutex
	docs map[string][]byte
	mine map[uint64]bool // documents that a SaveMeta here waits for
}

func newFSM(n *Node) *fsm {
	return &fsm{n: n, docs: map[string][]byte{}, mine: map[uint64]bool{}}
}

// ApplyBatch implements [raft.BatchingFSM].
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	for _, l := range logs {
		switch l.Type {
		case raft.LogConfiguration:
			f.n.configured(raft.DecodeConfiguration(l.Data), l.Index)
		case raft.LogCommand:
			if m, ok, err := parseMeta(l.Data); err != nil {
				f.n.o.Logger.Error("a document in the log cannot be read", "index", l.Index, "error", err)
			} else if ok {
				f.keep(m)
			}
		}
	}
	last := logs[len(logs)-1].Index
	f.n.logs.Commit(last)
	if end, ok := f.n.logs.End(last); ok {
		f.n.committed.Store(max(end, f.n.committed.Load()))
	}
	return make([]any, len(logs))
}

// Apply implements [raft.FSM].
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// keep notes a document and tells it, unless it comes from here.
func (f *fsm) keep(m meta) {
	doc := bytes.Clone(m.doc)
	f.mu.Lock()
	mine := f.mine[m.id]
	delete(f.mine, m.id)
	f.docs[m.name] = doc
	f.mu.Unlock()
	if tell := f.n.o.Events.Meta; tell != nil && !mine {
		tell(m.name, doc)
	}
}

// expect says that the document with this id comes from here; forget, that nobody waits for it.
func (f *fsm) expect(id uint64) {
	f.mu.Lock()
	f.mine[id] = true
	f.mu.Unlock()
}

func (f *fsm) forget(id uint64) {
	f.mu.Lock()
	delete(f.mine, id)
	f.mu.Unlock()
}

// snapshotDoc is what a snapshot holds beside raft's own: documents of the broker. Where the log begins is
// added by who keeps snapshots.
type snapshotDoc struct {
	Docs map[string][]byte `json:"docs"`
}

// load puts back what a snapshot holds and tells it.
func (f *fsm) load(b []byte) error {
	var d snapshotDoc
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("documents of the snapshot: %w", err)
	}
	f.mu.Lock()
	maps.Copy(f.docs, d.Docs)
	f.mu.Unlock()
	for name, doc := range d.Docs {
		if tell := f.n.o.Events.Meta; tell != nil {
			tell(name, doc)
		}
	}
	return nil
}

// Snapshot implements [raft.FSM].
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &fsmSnapshot{f.n, snapshotDoc{maps.Clone(f.docs)}}, nil
}

// Restore implements [raft.FSM]. It is never called: nodes start with NoSnapshotRestoreOnStart, and what
// a leader sends is staged before raft sees it.
func (f *fsm) Restore(r io.ReadCloser) error {
	return errors.Join(errors.New("BUG: restored while running"), r.Close())
}

type fsmSnapshot struct {
	n   *Node
	doc snapshotDoc
}

// Persist implements [raft.FSMSnapshot].
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	b, err := json.Marshal(s.doc)
	if err == nil {
		_, err = sink.Write(b)
	}
	return err
}

// Release implements [raft.FSMSnapshot].
func (*fsmSnapshot) Release() {}

// SaveMeta implements [replication.Log].
func (n *Node) SaveMeta(ctx context.Context, name string, doc []byte) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	m := meta{n.metaID.Add(1), name, doc}
	n.fsm.expect(m.id)
	magic := metaMagic
	if n.o.Gated != nil && n.o.Gated(name) {
		magic = metaGated
	}
	done := make(chan error, 1)
	if !n.group.TryGo("meta", func(ctx context.Context) error {
		var f raft.ApplyFuture
		err := t.in.do(func(r *raft.Raft) raft.Future {
			f = r.ApplyLog(raft.Log{Data: m.append(nil, magic)}, 0)
			return f
		})
		n.fsm.forget(m.id)
		if err == nil && magic == metaGated {
			err = n.logs.WaitDurable(ctx, f.Index()) // the library counts what is only written
		}
		done <- err
		return nil
	}) {
		n.fsm.forget(m.id)
		return n.notLeader()
	}
	select {
	case err := <-done:
		return n.outcome(err)
	case <-ctx.Done():
		return n.outcome(ctx.Err())
	}
}
