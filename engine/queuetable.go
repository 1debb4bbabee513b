package engine

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

type queueTableOptions struct {
	FS        vfs.FS
	Dir       string // <root>/consumequeue
	FileBytes int64  // a multiple of 20
	Logger    *slog.Logger

	// JournalDir is where the journal of entries lies that are not yet in the classic files.
	// "": there is none, and every checkpoint writes the classic files.
	JournalDir string
	// Foreign says that somebody else has written the directory since: a journal counts for nothing.
	Foreign bool

	PendingBytes  int64 // memory for entries that wait for their file, a target, the ceiling is three times that; 0: 128 MiB
	DirectEntries int   // a queue with so many entries waiting is written at a checkpoint; 0: 512
	JournalBytes  int64 // the journal is made anew when it grows by so much; 0: 192 MiB
}

// queueTable holds all consume queues of a store: finds them, writes them down, recovers them.
//
// Lookups take no lock. Everything that does I/O runs under maint, one at a time; put and read run
// beside it. Entries go from memory to the classic files, in parts through the journal, see
// [queueTable.checkpoint]. It starts no goroutine.
type queueTable struct {
	o     queueTableOptions
	arena entryArena
	files *queueFiles

	seed  maphash.Seed
	index atomic.Pointer[queueIndex]
	mu    sync.Mutex // leaf: guards changes of index, and what follows
	known []*ConsumeQueue
	names map[string]string

	rebuilding atomic.Bool
	relieveAt  atomic.Int64 // pending bytes at which a put makes room itself

	maint    sync.Mutex // held over I/O; guards what follows
	buf      []byte
	journal  *queueJournal // nil without JournalDir
	covered  int64         // end of the newest record in a queue at the last checkpoint
	trusted  int64
	fromScan bool // the directories were listed
	orphans  bool // directories of queues that the log does not know may exist
	touched  map[queueFileKey]struct{}
	newDirs  map[string]struct{}       // directories of which an entry has changed
	syncAll  bool                      // not touched and newDirs alone, but everything
	strays   map[*ConsumeQueue][]int64 // files before a gap
}

const (
	pendingCeiling  = 3               // times PendingBytes
	overflowTime    = 2 * time.Second // a checkpoint spends on queues that wait for want of memory
	queueCopyBytes  = 256 << 10 / format.CQEntryBytes * format.CQEntryBytes
	maxTouchedFiles = 32
)

func newQueueTable(o queueTableOptions) *queueTable {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.PendingBytes, 128<<20)
	setDefault(&o.DirectEntries, 512)
	setDefault(&o.JournalBytes, 192<<20)
	t := &queueTable{o: o, files: newQueueFiles(o.FS, maxQueueFiles), seed: maphash.MakeSeed(), strays: map[*ConsumeQueue][]int64{}, names: map[string]string{}}
	t.relieveAt.Store(pendingCeiling * o.PendingBytes)
	t.clearSyncs()
	t.index.Store(newQueueIndex(64))
	if o.JournalDir != "" {
		t.journal = newQueueJournal(o.FS, o.JournalDir, o.FileBytes)
	}
	return t
}

// queueIndex is an open-addressing hash table of queues. Readers take no lock: places are filled
// once, and a fuller table is replaced by a larger one.
type queueIndex struct {
	places []queuePlace
	used   int
}

type queuePlace struct {
	q    atomic.Pointer[ConsumeQueue]
	hash uint64 // written before q, read after it
}

func newQueueIndex(size int) *queueIndex {
	return &queueIndex{places: make([]queuePlace, size)}
}

func (x *queueIndex) insert(hash uint64, q *ConsumeQueue) {
	mask := uint64(len(x.places) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if p := &x.places[i]; p.q.Load() == nil {
			p.hash = hash
			p.q.Store(q)
			x.used++
			return
		}
	}
}

func findQueue[B []byte | string](x *queueIndex, hash uint64, topic B, id int32) *ConsumeQueue {
	mask := uint64(len(x.places) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		p := &x.places[i]
		q := p.q.Load()
		if q == nil || p.hash == hash && q.id == id && q.topic == string(topic) {
			return q
		}
	}
}

// spread gives the queues of a topic different places.
func spread(topicHash uint64, id int32) uint64 {
	return topicHash + uint64(uint32(id))*0x9E3779B97F4A7C15
}

// get returns the queue, which it creates in memory if there is none. It takes no lock and
// allocates nothing when there is one.
func (t *queueTable) get(topic []byte, id int32) *ConsumeQueue {
	hash := t.hash(topic, id)
	if q := findQueue(t.index.Load(), hash, topic, id); q != nil {
		return q
	}
	return t.create(hash, topic, id)
}

func (t *queueTable) hash(topic []byte, id int32) uint64 {
	return spread(maphash.Bytes(t.seed, topic), id)
}

// likely is the queue that stands where the hash points, nil if there is none. It may be another.
func (t *queueTable) likely(hash uint64) *ConsumeQueue {
	x := t.index.Load()
	return x.places[hash&uint64(len(x.places)-1)].q.Load()
}

// lookup returns the queue, nil if there is none.
func (t *queueTable) lookup(topic string, id int32) *ConsumeQueue {
	return findQueue(t.index.Load(), spread(maphash.String(t.seed, topic), id), topic, id)
}

func (t *queueTable) create(hash uint64, topic []byte, id int32) *ConsumeQueue {
	t.mu.Lock()
	defer t.mu.Unlock()
	index := t.index.Load()
	if q := findQueue(index, hash, topic, id); q != nil {
		return q
	}
	if 2*index.used >= len(index.places) {
		grown := newQueueIndex(2 * len(index.places))
		for i := range index.places {
			if p := &index.places[i]; p.q.Load() != nil {
				grown.insert(p.hash, p.q.Load())
			}
		}
		t.index.Store(grown)
		index = grown
	}
	name, ok := t.names[string(topic)] // queues of a topic share its name
	if !ok {
		name = string(topic)
		t.names[name] = name
	}
	q := &ConsumeQueue{topic: name, t: t, id: id, num: -1, minPos: -1}
	if !canBeDir(name) || id < 0 {
		t.o.Logger.Error("topic cannot be a directory: its records are in no queue", "topic", name, "queue", id)
		q.unnamed, q.end = true, math.MaxInt64
	}
	index.insert(hash, q)
	t.known = append(t.known, q)
	return q
}

// canBeDir reports whether a topic's name can name its directory.
func canBeDir(topic string) bool {
	return topic != "" && topic != "." && topic != ".." && len(topic) <= 255 && !strings.ContainsAny(topic, "/\x00")
}

// all lists the queues, those without entries too.
func (t *queueTable) all() []*ConsumeQueue {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.known)
}

func (t *queueTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.known)
}

// maxPos is the end of the newest record any queue knows, 0 if none does.
func (t *queueTable) maxPos() int64 {
	pos := int64(0)
	for _, q := range t.all() {
		if !q.unnamed {
			pos = max(pos, q.endPos())
		}
	}
	return pos
}

// trustedPos is the position below which load found everything that the queues should know. The
// log must be read again from there, or from an earlier place.
func (t *queueTable) trustedPos() int64 { return t.trusted }

// classicPos is the position, at most pos, below which every entry is in a classic file and on
// disk; pos must have been dispatched before the last checkpoint.
func (t *queueTable) classicPos(pos int64) int64 {
	var unit [format.CQEntryBytes]byte
	var e [1]format.CQEntry
	for _, q := range t.all() {
		q.mu.Lock()
		if n := q.mark.Load(); q.base < n && q.pending.copyOut(&t.arena, q.base, n, unit[:]) > 0 {
			parseEntries(e[:], unit[:])
			pos = min(pos, e[0].Offset)
		}
		q.mu.Unlock()
	}
	return pos
}

// pendingBytes is the memory of entries that wait for their file.
func (t *queueTable) pendingBytes() int64 { return t.arena.used.Load() }

// close closes files. It writes nothing.
func (t *queueTable) close() error {
	t.maint.Lock()
	defer t.maint.Unlock()
	err := t.files.closeAll()
	if t.journal != nil {
		err = errors.Join(err, t.journal.close())
	}
	return err
}
