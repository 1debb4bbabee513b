package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"rmq/engine"
	"rmq/internal/vfs"
)

// StableStore keeps the term and the vote of a node: one record, written and synced as a whole, in the
// file rmq/raft/vote. It implements raft.StableStore and is safe for concurrent use.
//
// The library writes a vote in two calls, the term and then the candidate. A crash between them would
// leave the new term beside the old candidate, who would then be granted a second vote in a term in
// which somebody else may have won. So the first call is only remembered, and the second makes both
// durable at once.
//
// A new term alone is remembered too, until it is voted in or [StableStore.Settle] is called: a vote costs one sync and
// not two. So whoever answers for this node, or stores entries, settles before. To ask for votes promises nothing: a
// candidate that forgets that it has asked has counted no vote, its own is on disk before any is.
//
// The file has two slots of 512 bytes, written in turn, so that a torn write leaves the one before:
//
//	0     4        12             20             28      30
//	+-----+--------+--------------+--------------+-------+-----------+
//	| crc | seq    | CurrentTerm  | LastVoteTerm | bytes | candidate |
//	+-----+--------+--------------+--------------+-------+-----------+
//
// The checksum is CRC-32C of the rest of the slot.
type StableStore struct {
	gates *gates // set before anybody else knows it

	mu     sync.Mutex // held over its I/O: a vote waits for the disk
	f      vfs.File
	rec    voteRecord
	known  atomic.Uint64 // the term of rec, for those who must not wait for the disk
	ahead  atomic.Bool   // rec has a term that the disk does not have
	staged uint64        // LastVoteTerm that waits for its candidate
	failed error         // a failed sync proves nothing about later ones
}

type voteRecord struct {
	seq, term, voteTerm uint64
	candidate           string
}

const (
	voteName      = "vote"
	voteSlotBytes = 512
	voteHeadBytes = 30

	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// errKeyNotFound has the text by which the library knows it.
var errKeyNotFound = errors.New("not found")

// OpenStable opens or creates the vote file in dir, which must exist. A file of which no slot can be
// read is an [engine.CorruptionError]: a node that has forgotten its votes must not vote again.
func OpenStable(fsys vfs.FS, dir string) (*StableStore, error) {
	name := path.Join(dir, voteName)
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s := &StableStore{f: f}
	if err := s.load(name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.known.Store(s.rec.term)
	if s.rec.seq == 0 { // new: whole on disk before anything relies on it
		if err := errors.Join(s.write(s.rec), fsys.SyncDir(dir)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return s, nil
}

// load reads the newer slot.
func (s *StableStore) load(name string) error {
	b := make([]byte, 2*voteSlotBytes)
	n, err := s.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n == 0 {
		return nil
	}
	found := false
	for slot := range 2 {
		if rec, ok := parseVote(b[slot*voteSlotBytes : (slot+1)*voteSlotBytes]); ok && (!found || rec.seq > s.rec.seq) {
			s.rec, found = rec, true
		}
	}
	if found || allZero(b[:n]) { // zeros: cut off before the first record was on disk
		return nil
	}
	return &engine.CorruptionError{Path: name, What: "the vote of this node cannot be read: move the whole directory " +
		"away and start the node empty, it is let in again under a new identity"}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func parseVote(b []byte) (voteRecord, bool) {
	be := binary.BigEndian
	if crc32.Checksum(b[4:], castagnoli) != be.Uint32(b) {
		return voteRecord{}, false
	}
	n := int(be.Uint16(b[28:]))
	if n > voteSlotBytes-voteHeadBytes {
		return voteRecord{}, false
	}
	return voteRecord{be.Uint64(b[4:]), be.Uint64(b[12:]), be.Uint64(b[20:]), string(b[voteHeadBytes : voteHeadBytes+n])}, true
}

// write makes rec durable as the next one. Called with mu held, or before anybody else knows s.
func (s *StableStore) write(rec voteRecord) error {
	if s.failed != nil {
		return s.failed
	}
	if len(rec.candidate) > voteSlotBytes-voteHeadBytes {
		return fmt.Errorf("candidate %q is longer than %d bytes: use shorter ids and addresses", rec.candidate, voteSlotBytes-voteHeadBytes)
	}
	rec.seq = s.rec.seq + 1
	b := make([]byte, voteSlotBytes)
	be := binary.BigEndian
	be.PutUint64(b[4:], rec.seq)
	be.PutUint64(b[12:], rec.term)
	be.PutUint64(b[20:], rec.voteTerm)
	be.PutUint16(b[28:], uint16(len(rec.candidate)))
	copy(b[voteHeadBytes:], rec.candidate)
	be.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	_, err := s.f.WriteAt(b, int64(rec.seq%2)*voteSlotBytes)
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		s.failed = fmt.Errorf("vote could not be saved, open the node again: %w", err)
		return s.failed
	}
	s.rec = rec
	s.known.Store(rec.term)
	s.ahead.Store(false)
	return nil
}

// Settle returns when the term is on disk.
func (s *StableStore) Settle() error {
	if !s.ahead.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ahead.Load() {
		return nil
	}
	return s.write(s.rec)
}

// term is the newest term, without waiting for a vote that is being written.
func (s *StableStore) term() uint64 { return s.known.Load() }

// Set implements raft.StableStore for the candidate of a vote: it makes the staged term and val durable.
func (s *StableStore) Set(key, val []byte) error {
	if string(key) != keyLastVoteCand {
		return fmt.Errorf("BUG: no place to keep %q", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.rec
	rec.voteTerm, rec.candidate = max(rec.voteTerm, s.staged), string(val)
	return s.write(rec)
}

// Get implements raft.StableStore.
func (s *StableStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) != keyLastVoteCand || s.rec.candidate == "" {
		return nil, errKeyNotFound
	}
	return []byte(s.rec.candidate), nil
}

// SetUint64 implements raft.StableStore: CurrentTerm is durable once Settle or Set has returned, LastVoteTerm once its
// candidate has been set.
func (s *StableStore) SetUint64(key []byte, val uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyLastVoteTerm:
		s.staged = val
		if s.gates.off(oneVote) {
			rec := s.rec
			rec.voteTerm = val
			return s.write(rec)
		}
		return nil
	case keyCurrentTerm:
		if s.failed != nil {
			return s.failed
		}
		s.rec.term = val
		s.known.Store(val)
		s.ahead.Store(true)
		return nil
	}
	return fmt.Errorf("BUG: no place to keep %q", key)
}

// GetUint64 implements raft.StableStore. A staged LastVoteTerm does not count.
func (s *StableStore) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := uint64(0)
	switch string(key) {
	case keyLastVoteTerm:
		v = s.rec.voteTerm
	case keyCurrentTerm:
		v = s.rec.term
	}
	if v == 0 {
		return 0, errKeyNotFound
	}
	return v, nil
}

// Close gives the file back. A term that is not settled is lost: nobody has heard of it.
func (s *StableStore) Close() error { return s.f.Close() }
