package storetool

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"strconv"
	"strings"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

const scheduleTopic = message.TopicSchedule

func tagHash(tags []byte) int64 { return message.TagHash(tags) }

// Manifest is what <root>/rmq/manifest says a store is. Files of Apache's have none.
type Manifest struct {
	FormatVersion   int    `json:"formatVersion"`
	Format          string `json:"format,omitempty"` // of the log, "": plain
	StoreUUID       string `json:"storeUuid"`
	Cluster         string `json:"cluster,omitempty"`
	SegmentBytes    int64  `json:"segmentBytes"`
	QueueFileBytes  int64  `json:"queueFileBytes"`
	MaxHashSlots    int32  `json:"maxHashSlots"`
	MaxIndexEntries int32  `json:"maxIndexEntries"`
}

const knownFormat = 2

// State is what <root>/rmq/state says how far a store had come.
type State struct {
	Seq           int64  `json:"seq"`
	Start         int64  `json:"start"`
	Flushed       int64  `json:"flushed"`
	Dispatched    int64  `json:"dispatched"`
	Confirm       int64  `json:"confirm"`
	LastTime      int64  `json:"lastTime"`
	IndexEnd      int64  `json:"indexEnd"`
	Clean         bool   `json:"clean"`
	BootID        string `json:"bootId"`
	CheckpointSum uint32 `json:"checkpointSum"`
	NextSum       uint32 `json:"nextSum"`
}

const stateSlotBytes = 2048

// loadStamps reads what a store says about itself, and finds out who had it last.
func (s *Store) loadStamps() error {
	root, fsys := s.o.Dir, s.o.FS
	name := path.Join(root, "rmq", "manifest")
	b, err := readFile(fsys, name)
	if err != nil {
		return err
	}
	if b != nil {
		s.manifest, s.manifestErr = parseManifest(name, b)
	}
	if b, err = readFile(fsys, path.Join(root, "rmq", "state")); err != nil {
		return err
	}
	if b != nil {
		s.state, s.stateErr = parseState(b)
	}
	if s.checkpoint, err = readFile(fsys, path.Join(root, "checkpoint")); err != nil {
		return err
	}
	if len(s.checkpoint) > 0 {
		s.page, _ = format.ParseCheckpointPage(s.checkpoint) // a short one is a finding of verify
	}
	abort, err := readFile(fsys, path.Join(root, "abort"))
	if err != nil {
		return err
	}
	s.aborted = abort != nil
	sum := crc32.ChecksumIEEE(s.checkpoint)
	if s.checkpoint == nil {
		sum = 0
	}
	s.oursLast = s.manifest != nil && (!s.aborted || bytes.HasPrefix(abort, []byte("rmq "))) &&
		(s.state == nil || s.state.CheckpointSum == sum || s.state.NextSum == sum)
	if !s.oursLast {
		s.state = nil
	}
	return nil
}

// tooNew is an [*engine.VersionError] where a newer program wrote the store: what it means by its
// files is not known here.
func (s *Store) tooNew() error {
	var newer *engine.VersionError
	if errors.As(s.manifestErr, &newer) {
		return newer
	}
	return nil
}

// unclean reports whether the next start of a broker has to replay some of the log.
func (s *Store) unclean() bool {
	return s.aborted || s.state != nil && !s.state.Clean
}

func parseManifest(name string, b []byte) (*Manifest, error) {
	sum, body, ok := strings.Cut(string(b), "\n")
	if want, err := strconv.ParseUint(sum, 16, 32); !ok || len(sum) != 8 || err != nil || uint32(want) != crc32.ChecksumIEEE([]byte(body)) {
		return nil, errors.New("its checksum does not match")
	}
	m := &Manifest{}
	if err := json.Unmarshal([]byte(body), m); err != nil {
		return nil, fmt.Errorf("it does not parse: %w", err)
	}
	if m.FormatVersion > knownFormat {
		return nil, &engine.VersionError{Path: name, Have: m.FormatVersion, Know: knownFormat}
	}
	return m, nil
}

func parseState(b []byte) (*State, error) {
	var best *State
	for off := 0; off+8 <= len(b) && off <= stateSlotBytes; off += stateSlotBytes {
		slot := b[off:min(len(b), off+stateSlotBytes)]
		n := int(binary.BigEndian.Uint32(slot))
		if n <= 0 || n > len(slot)-8 || crc32.ChecksumIEEE(slot[8:8+n]) != binary.BigEndian.Uint32(slot[4:]) {
			continue
		}
		st := &State{}
		if json.Unmarshal(slot[8:8+n], st) == nil && (best == nil || st.Seq > best.Seq) {
			best = st
		}
	}
	if best == nil {
		return nil, errors.New("neither of its slots is whole")
	}
	return best, nil
}

// journal is what <root>/rmq/queues.journal says of the queues: see docs/format/consumequeue.md.
type journal struct {
	covered int64 // log position up to which it speaks
	closed  bool  // the classic files have everything
	queues  map[queueKey]*journalQueue
}

type queueKey struct {
	topic string
	id    int32
}

// journalQueue is one queue: entries below base are in its files, those in [base, n) are here.
type journalQueue struct {
	base, n, low int64
	first, limit int64
	unsure       bool // bytes behind the end in the files may be stale
	from         int64
	entries      []byte // from entry number from on
}

var errNoJournal = errors.New("there is no queue journal")

const (
	journalMagic = 0x514A3031
	journalHead  = 16
)

// loadJournal reads all that the last commit covers.
func loadJournal(fsys vfs.FS, name string) (*journal, error) {
	b, err := readFile(fsys, name)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errNoJournal
	}
	type block struct {
		kind    uint32
		payload []byte
	}
	var blocks []block
	committed := 0
	j := &journal{queues: map[queueKey]*journalQueue{}}
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 0; len(b)-at >= journalHead; {
		kind, n := binary.BigEndian.Uint32(b[at+4:]), int(binary.BigEndian.Uint32(b[at+8:]))
		if binary.BigEndian.Uint32(b[at:]) != journalMagic || n > len(b)-at-journalHead {
			break
		}
		payload := b[at+journalHead : at+journalHead+n]
		if crc32.Update(crc32.Checksum(b[at:at+12], table), table, payload) != binary.BigEndian.Uint32(b[at+12:]) || (at == 0) != (kind == 0) {
			break
		}
		blocks = append(blocks, block{kind, payload})
		if kind == 2 {
			if n < 9 {
				return nil, fmt.Errorf("commit at %d is cut short", at)
			}
			committed = len(blocks)
			j.covered, j.closed = int64(binary.BigEndian.Uint64(payload)), payload[8]&1 != 0
		}
		at += journalHead + n
	}
	if committed == 0 {
		return nil, errors.New("it has no commit")
	}
	var defs []*journalQueue
	for _, blk := range blocks[:committed] {
		if blk.kind == 1 {
			if err := j.apply(&defs, blk.payload); err != nil {
				return nil, err
			}
		}
	}
	return j, nil
}

func (j *journal) apply(defs *[]*journalQueue, b []byte) error {
	cut := errors.New("an item is cut short")
	for len(b) > 0 {
		kind := b[0]
		if len(b) < 5 {
			return cut
		}
		num := int(int32(binary.BigEndian.Uint32(b[1:])))
		if kind == 1 {
			if len(b) < 7 || len(b) < 7+int(binary.BigEndian.Uint16(b[5:])) {
				return cut
			}
			n := int(binary.BigEndian.Uint16(b[5:]))
			q := &journalQueue{}
			*defs = append(*defs, q)
			j.queues[queueKey{string(b[7 : 7+n]), int32(num)}] = q
			b = b[7+n:]
			continue
		}
		if num < 0 || num >= len(*defs) {
			return fmt.Errorf("an item names queue number %d of %d", num, len(*defs))
		}
		q := (*defs)[num]
		switch kind {
		case 2:
			if len(b) < 17 {
				return cut
			}
			offset, count := int64(binary.BigEndian.Uint64(b[5:])), int(binary.BigEndian.Uint32(b[13:]))
			if count < 0 || len(b)-17 < count*format.CQEntryBytes {
				return cut
			}
			if q.n == 0 && q.first == q.limit {
				q.n, q.base, q.low = offset, offset, offset
			}
			if offset != q.n {
				return fmt.Errorf("entries at %d do not follow %d", offset, q.n)
			}
			if len(q.entries) == 0 {
				q.from = offset
			}
			q.entries = append(q.entries, b[17:17+count*format.CQEntryBytes]...)
			q.n += int64(count)
			b = b[17+count*format.CQEntryBytes:]
		case 3:
			if len(b) < 62 {
				return cut
			}
			var v [7]int64
			for i := range v {
				v[i] = int64(binary.BigEndian.Uint64(b[6+8*i:]))
			}
			q.restore(b[5], v)
			b = b[62:]
		default:
			return fmt.Errorf("unknown item %d", kind)
		}
	}
	return nil
}

// restore applies a row: base, n, low, minPos, first, limit, end.
func (q *journalQueue) restore(flags byte, v [7]int64) {
	q.base, q.n, q.low, q.first, q.limit = v[0], v[1], v[2], v[4], v[5]
	q.unsure = flags&1 != 0
	have := q.from + int64(len(q.entries)/format.CQEntryBytes)
	switch {
	case q.base >= q.n || q.base >= have || q.n <= q.from:
		q.entries, q.from = nil, q.base
	default:
		if q.n < have {
			q.entries = q.entries[:(q.n-q.from)*format.CQEntryBytes]
		}
		if q.base > q.from {
			q.entries, q.from = q.entries[(q.base-q.from)*format.CQEntryBytes:], q.base
		}
	}
}
