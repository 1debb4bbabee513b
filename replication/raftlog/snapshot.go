package raftlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"rmq/internal/vfs"
)

// SnapshotStore keeps snapshots in rmq/raft/snapshots: raft's figures, where the log goes on, and what the
// state machine adds, some kilobytes; messages stay in the log. It implements raft.SnapshotStore and is
// safe for concurrent use.
//
// While raft starts it shows the newest. From [SnapshotStore.Serve] on it shows one of where this log
// begins, made as it is asked for, so that a member that is far behind gets the whole log that is left and
// not only what is newer than the newest snapshot.
type SnapshotStore struct {
	fs    vfs.FS
	dir   string
	log   *LogStore
	serve atomic.Bool

	mu     sync.Mutex
	list   []*snapshot // newest first
	latest Start       // of the one staged last
}

// snapshot is one file.
type snapshot struct {
	Index       uint64 `json:"index"`
	Term        uint64 `json:"term"`
	ConfigIndex uint64 `json:"configIndex"`
	Config      []byte `json:"config"` // as the library encodes it
	Data        []byte `json:"data"`   // an envelope
}

// envelope is what goes over the wire as the data of a snapshot.
type envelope struct {
	Pos          int64  `json:"pos"` // behind the entry of the snapshot
	SegmentBytes int64  `json:"segmentBytes"`
	Body         []byte `json:"body"` // of the state machine
}

const (
	snapshotDir  = "snapshots"
	snapshotKept = 2
)

// OpenSnapshots opens the snapshots in dir, the node's rmq/raft. Those that do not read are passed over.
func OpenSnapshots(fsys vfs.FS, dir string, log *LogStore) (*SnapshotStore, error) {
	s := &SnapshotStore{fs: fsys, dir: path.Join(dir, snapshotDir), log: log}
	if err := fsys.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, err
	}
	files, err := fsys.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		x := &snapshot{}
		if _, err := loadDoc(fsys, path.Join(s.dir, f.Name()), x); err != nil {
			log.o.Logger.Warn("snapshot passed over", "file", f.Name(), "error", err)
			continue
		}
		s.list = append(s.list, x)
	}
	slices.SortFunc(s.list, func(a, b *snapshot) int { return int(int64(b.Index - a.Index)) })
	return s, nil
}

func (x *snapshot) id() string { return fmt.Sprintf("%020d-%d", x.Index, x.Term) }

func (x *snapshot) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: x.id(), Index: x.Index, Term: x.Term,
		Configuration: raft.DecodeConfiguration(x.Config), ConfigurationIndex: x.ConfigIndex, Size: int64(len(x.Data)),
	}
}

// Serve says whether members are served, or raft is about to start.
func (s *SnapshotStore) Serve(members bool) { s.serve.Store(members) }

// shown is what List shows.
func (s *SnapshotStore) shown() ([]*snapshot, error) {
	if s.serve.Load() {
		if start := s.log.Start(); start.Index > 0 {
			x, err := s.logStart(start)
			return []*snapshot{x}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list), nil
}

// logStart is the snapshot of where the log begins. The state machine's part is the newest there is: what
// it keeps, the newest of each document, may be ahead of the log.
func (s *SnapshotStore) logStart(start Start) (*snapshot, error) {
	c, at, err := s.log.members.asOf(start.Index)
	if err != nil {
		return nil, err
	}
	body, err := s.Newest()
	if err != nil {
		return nil, err
	}
	data, err := s.envelope(start.Pos, body)
	return &snapshot{start.Index, start.Term, at, raft.EncodeConfiguration(c), data}, err
}

func (s *SnapshotStore) envelope(pos int64, body []byte) ([]byte, error) {
	return json.Marshal(envelope{pos, s.log.engine.Options().SegmentBytes, body})
}

// List implements raft.SnapshotStore.
func (s *SnapshotStore) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.shown()
	if err != nil {
		return nil, err
	}
	metas := make([]*raft.SnapshotMeta, len(list))
	for i, x := range list {
		metas[i] = x.meta()
	}
	return metas, nil
}

// Open implements raft.SnapshotStore.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	list, err := s.shown()
	if err != nil {
		return nil, nil, err
	}
	for _, x := range list {
		if x.id() == id {
			return x.meta(), io.NopCloser(bytes.NewReader(x.Data)), nil
		}
	}
	return nil, nil, fmt.Errorf("snapshot %s is not there any more", id)
}

// Newest is what the state machine gave to the newest snapshot; nil if there is none.
func (s *SnapshotStore) Newest() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return nil, nil
	}
	var e envelope
	if err := json.Unmarshal(s.list[0].Data, &e); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.list[0].id(), err)
	}
	return e.Body, nil
}

// Stage keeps a snapshot that a leader has sent, data as its Open gave it, as the newest. The log then goes
// on behind it with [LogStore.Restart].
func (s *SnapshotStore) Stage(index, term uint64, c raft.Configuration, configIndex uint64, data []byte) error {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("snapshot of entry %d: %w", index, err)
	}
	if mine := s.log.engine.Options().SegmentBytes; e.SegmentBytes != mine {
		return fmt.Errorf("snapshot of a log with mappedFileSizeCommitLog=%d, this node has %d: give all members the same", e.SegmentBytes, mine)
	}
	if err := s.publish(&snapshot{index, term, configIndex, raft.EncodeConfiguration(c), data}); err != nil {
		return err
	}
	s.mu.Lock()
	s.latest = Start{index, term, e.Pos}
	s.mu.Unlock()
	m := &s.log.members
	m.mu.Lock()
	m.add(membership{configIndex, raft.EncodeConfiguration(c)})
	m.mu.Unlock()
	return m.save(s.log)
}

// staged is where the log goes on behind the snapshot that was staged last.
func (s *SnapshotStore) staged() (Start, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest.Index == 0 {
		return Start{}, errors.New("BUG: no snapshot is staged")
	}
	return s.latest, nil
}

// publish writes x and removes older ones.
func (s *SnapshotStore) publish(x *snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := saveDoc(s.fs, path.Join(s.dir, x.id()), x); err != nil {
		return err
	}
	s.list = slices.DeleteFunc(s.list, func(o *snapshot) bool { return o.id() == x.id() })
	s.list = slices.Insert(s.list, 0, x)
	for len(s.list) > snapshotKept {
		old := s.list[len(s.list)-1]
		if err := s.fs.Remove(path.Join(s.dir, old.id())); err != nil {
			return err
		}
		s.list = s.list[:len(s.list)-1]
	}
	return nil
}

// Create implements raft.SnapshotStore.
func (s *SnapshotStore) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{s: s, x: &snapshot{Index: index, Term: term, ConfigIndex: configIndex, Config: raft.EncodeConfiguration(c)}}, nil
}

// sink takes the state machine's part and publishes the snapshot when it is closed.
type sink struct {
	s    *SnapshotStore
	x    *snapshot
	body bytes.Buffer
	done bool
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.x.id() }

// Write implements raft.SnapshotSink.
func (k *sink) Write(b []byte) (int, error) { return k.body.Write(b) }

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	k.done = true
	return nil
}

// Close implements raft.SnapshotSink. The log is on disk up to the snapshot before that is there: a node
// that comes back with it must not lack what it stands for.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	log := k.s.log
	end, ok := log.End(k.x.Index)
	if !ok {
		return fmt.Errorf("snapshot of entry %d: %w", k.x.Index, raft.ErrLogNotFound)
	}
	if !log.o.gates.off(gateSnapshot) {
		if err := log.flushTo(context.Background(), end); err != nil {
			return err
		}
	}
	var err error
	if k.x.Data, err = k.s.envelope(end, k.body.Bytes()); err != nil {
		return err
	}
	if err := k.s.publish(k.x); err != nil {
		return err
	}
	return log.Retain(k.x.Index)
}

var (
	_ raft.SnapshotStore = (*SnapshotStore)(nil)
	_ raft.SnapshotSink  = (*sink)(nil)
)
