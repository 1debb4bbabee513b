package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"strconv"
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

func (t *queueTable) noteWritten(q *ConsumeQueue, start int64) {
	if !t.syncAll {
		t.touched[queueFileKey{q, start}] = struct{}{}
		t.syncAll = len(t.touched) > maxTouchedFiles
	}
}

func (t *queueTable) noteCreated(q *ConsumeQueue, first bool) {
	if t.syncAll {
		return
	}
	t.newDirs[t.queueDir(q)] = struct{}{}
	if first {
		t.newDirs[t.topicDir(q.topic)] = struct{}{}
		t.newDirs[t.o.Dir] = struct{}{}
	}
}

func (t *queueTable) noteRemoved(q *ConsumeQueue) {
	if !t.syncAll {
		t.newDirs[t.queueDir(q)] = struct{}{}
		t.syncAll = len(t.newDirs) > maxTouchedFiles
	}
}

func (t *queueTable) clearSyncs() {
	t.touched, t.newDirs, t.syncAll = map[queueFileKey]struct{}{}, map[string]struct{}{}, false
}

// syncClassic makes durable what was written to the classic files: a few files one by one, many
// by one sync of the file system.
func (t *queueTable) syncClassic() error {
	if t.syncAll {
		if err := t.o.FS.SyncFS(t.o.Dir); err != nil {
			return err
		}
		t.clearSyncs()
		return nil
	}
	for k := range t.touched {
		x, err := t.openFile(k.q, k.start)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return err
		}
		if err := errors.Join(x.f.SyncData(), t.files.release(x)); err != nil {
			return err
		}
	}
	for dir := range t.newDirs {
		if err := t.o.FS.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	t.clearSyncs()
	return nil
}

// checkpoint makes durable every entry that was put before the call.
//
// Without a journal they all go into the classic files. With one, a queue goes there when
// DirectEntries wait, or when entries of all queues take more than PendingBytes: then those that
// have waited longest go, until a quarter of it is free. What else is new is appended to the
// journal in one piece, so that the cost does not depend on the number of queues.
//
// The order is: classic files, sync, journal, sync. Whatever the journal says is therefore true
// whenever it can be read.
func (t *queueTable) checkpoint(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.checkpointLocked(ctx, t.o.PendingBytes, overflowTime); err != nil {
		return fmt.Errorf("checkpoint of consume queues: %w", err)
	}
	return nil
}

// relieve makes room on the putting goroutine when entries come faster than checkpoints write
// them, or when there are no checkpoints yet, as in recovery. It waits for one that is running.
func (t *queueTable) relieve() {
	t.maint.Lock()
	defer t.maint.Unlock()
	ceiling := pendingCeiling * t.o.PendingBytes
	if t.pendingBytes() < t.relieveAt.Load() {
		return
	}
	if err := t.checkpointLocked(context.Background(), ceiling, time.Hour); err != nil {
		// The checkpoints meet the same error and report it; here it costs memory.
		t.o.Logger.Warn("no room made for queue entries", "err", err, "bytes", t.pendingBytes())
	}
	if left := t.pendingBytes(); left >= ceiling {
		ceiling = left + t.o.PendingBytes // not again at once
	}
	t.relieveAt.Store(ceiling)
}

// checkpointLocked writes what waits in memory, with at most limit bytes left in it unless that
// takes too long.
func (t *queueTable) checkpointLocked(ctx context.Context, limit int64, patience time.Duration) error {
	if err := t.reopen(); err != nil {
		return err
	}
	covered := t.maxPos() // before the queues are looked at: everything below will be seen there
	direct, overflow := t.chooseOut(limit)
	if err := t.writeOutAll(ctx, direct, time.Time{}); err != nil {
		return err
	}
	if err := t.writeOutAll(ctx, overflow, time.Now().Add(patience)); err != nil {
		return err
	}
	if err := t.syncClassic(); err != nil {
		return err
	}
	t.covered = max(t.covered, covered)
	if t.journal == nil {
		return nil
	}
	return t.writeJournal()
}

// writeOutAll writes the pending entries of queues into their files, up to a deadline unless it is
// zero.
func (t *queueTable) writeOutAll(ctx context.Context, queues []*ConsumeQueue, deadline time.Time) error {
	if len(queues) == 0 {
		return nil
	}
	if t.buf == nil {
		t.buf = make([]byte, queueCopyBytes)
	}
	// A sweep over more files than fit would only push each other out of the cache.
	cache := len(queues) <= maxQueueFiles/2
	for i, q := range queues {
		if i%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i%64 == 0 && !deadline.IsZero() && time.Now().After(deadline) {
			return nil
		}
		if err := t.writeOut(q, cache); err != nil {
			return err
		}
	}
	return nil
}

// chooseOut picks the queues whose entries go into their files now: those with many, and those
// that have to because more than limit bytes wait.
func (t *queueTable) chooseOut(limit int64) (out, overflow []*ConsumeQueue) {
	type waiting struct {
		q      *ConsumeQueue
		oldest int64
		bytes  int64
	}
	var (
		list  []waiting
		bytes int64
		unit  [format.CQEntryBytes]byte
		e     [1]format.CQEntry
		full  = t.pendingBytes() >= limit
	)
	for _, q := range t.all() {
		q.mu.Lock()
		n := q.mark.Load() - q.base
		switch {
		case n == 0:
		case n >= int64(t.o.DirectEntries) || t.journal == nil:
			out = append(out, q)
			bytes += n * format.CQEntryBytes
		case full:
			q.pending.copyOut(&t.arena, q.base, q.base+n, unit[:])
			parseEntries(e[:], unit[:])
			list = append(list, waiting{q, e[0].Offset, n * format.CQEntryBytes})
		}
		q.mu.Unlock()
	}
	// Blocks are a little larger than the entries in them, so this frees more than it counts.
	excess := t.pendingBytes() - bytes - limit*3/4
	if !full || excess < limit/4 {
		return out, nil
	}
	slices.SortFunc(list, func(a, b waiting) int { return cmp.Compare(a.oldest, b.oldest) })
	for _, w := range list {
		if excess <= 0 {
			break
		}
		overflow = append(overflow, w.q)
		excess -= w.bytes
	}
	return out, overflow
}

// flushClassic writes everything put before the call into the classic files, durably, and leaves
// them as a clean exit of Apache would.
func (t *queueTable) flushClassic(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.flushClassicLocked(ctx); err != nil {
		return fmt.Errorf("write consume queues: %w", err)
	}
	return nil
}

func (t *queueTable) flushClassicLocked(ctx context.Context) error {
	if err := t.reopen(); err != nil {
		return err
	}
	covered := t.maxPos()
	var out []*ConsumeQueue
	for _, q := range t.all() {
		q.mu.Lock()
		waiting, unsure := q.base < q.mark.Load(), q.unsure
		q.mu.Unlock()
		switch {
		case waiting:
			out = append(out, q)
		case unsure && !q.unnamed:
			if err := t.cleanTail(q); err != nil {
				return err
			}
		}
	}
	t.syncAll = t.syncAll || t.fromScan || t.orphans // what a killed process removed is to stay so
	if t.orphans {
		if err := t.removeOrphans(); err != nil {
			return err
		}
	}
	if err := t.writeOutAll(ctx, out, time.Time{}); err != nil {
		return err
	}
	if err := t.syncClassic(); err != nil {
		return err
	}
	t.covered = max(t.covered, covered)
	if t.journal == nil {
		return nil
	}
	return t.rotateJournal(true)
}

// checkpointed hears that pos was noted as dispatched. Nothing depends on it: the journal is true
// by itself.
func (t *queueTable) checkpointed(int64) error { return nil }

// truncate drops every entry whose record begins at or behind pos, from memory, journal and files,
// where it leaves zeros. The dispatcher must stand still.
func (t *queueTable) truncate(ctx context.Context, pos int64) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.truncateLocked(ctx, pos); err != nil {
		return fmt.Errorf("truncate consume queues to %d: %w", pos, err)
	}
	return nil
}

// queueCut is where a truncation cuts a queue, and what was there before.
type queueCut struct {
	q        *ConsumeQueue
	n, end   int64
	oldBase  int64
	oldLimit int64
	unsure   bool
}

func (t *queueTable) truncateLocked(ctx context.Context, pos int64) error {
	var cuts []queueCut
	for _, q := range t.all() {
		if q.unnamed || q.endPos() <= pos {
			continue
		}
		n, end, err := q.cutPoint(pos)
		if err != nil {
			return err
		}
		cuts = append(cuts, queueCut{q: q, n: n, end: end})
	}
	if err := t.reopen(); err != nil {
		return err
	}
	rows := make([]*ConsumeQueue, len(cuts))
	for i := range cuts {
		c := &cuts[i]
		rows[i] = c.q
		t.cutMemory(c)
	}
	t.covered = min(t.covered, pos)
	t.trusted = min(t.trusted, pos)
	if t.journal != nil {
		if err := t.journalRows(rows); err != nil {
			return err
		}
	}
	for i := range cuts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if cuts[i].oldBase > cuts[i].n {
			if err := t.zeroFrom(&cuts[i]); err != nil {
				return err
			}
		}
	}
	return t.syncClassic()
}

// cutMemory takes the cut-off entries from readers and from memory.
func (t *queueTable) cutMemory(c *queueCut) {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c.oldBase, c.oldLimit, c.unsure = q.base, q.limit, q.unsure
	q.end = c.end
	q.cuts++
	if c.n <= q.low.Load() {
		q.minPos = -1
	}
	q.cutPending(c.n)
	if q.base >= c.n {
		q.base = c.n
		for q.limit > q.first && q.limit-t.o.FileBytes >= c.n*format.CQEntryBytes {
			q.limit -= t.o.FileBytes
		}
	}
	q.kept = min(q.kept, c.n)
	q.unsure = q.unsure || c.oldBase > c.n // until the zeros are there
	q.moved = true
	q.setMax(c.n)
}

// zeroFrom takes the cut-off entries out of the files: whole files go, the rest becomes zeros.
func (t *queueTable) zeroFrom(c *queueCut) error {
	q := c.q
	q.mu.Lock()
	first, limit := q.first, q.limit
	q.mu.Unlock()
	for start := limit; start < c.oldLimit; start += t.o.FileBytes {
		if err := t.removeFile(q, start); err != nil {
			return err
		}
	}
	at := c.n * format.CQEntryBytes
	if stop := min(limit, c.oldBase*format.CQEntryBytes); first < limit && at < stop {
		start := limit - t.o.FileBytes
		x, err := t.openFile(q, start)
		if err != nil {
			return err
		}
		zeros := make([]byte, min(stop-at, 1<<20))
		for err == nil && at < stop {
			b := zeros[:min(int64(len(zeros)), stop-at)]
			_, err = x.f.WriteAt(b, at-start)
			at += int64(len(b))
		}
		t.noteWritten(q, start)
		if err = errors.Join(err, t.files.release(x)); err != nil {
			return err
		}
	}
	q.mu.Lock()
	q.moved, q.unsure = true, c.unsure
	q.mu.Unlock()
	return nil
}

// deleteBefore takes out of the queues what the log no longer holds, which now begins at minPos:
// whole files go, min moves to the first record that is there, and a queue without any keeps its
// place but no file, unless it belongs to a topic of the system. The log's removed part should be
// below the last checkpoint: the place of a queue that no checkpoint has seen is lost with it.
//
// Readers and journal hear of it before a file goes.
func (t *queueTable) deleteBefore(minPos int64) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if err := t.deleteBeforeLocked(minPos); err != nil {
		return fmt.Errorf("expire consume queues below %d: %w", minPos, err)
	}
	return nil
}

// queueExpiry is what goes of one queue: the files from first to limit, or all with the directory.
type queueExpiry struct {
	q            *ConsumeQueue
	first, limit int64
	dead         bool
}

func (t *queueTable) deleteBeforeLocked(minPos int64) error {
	var gone []queueExpiry
	for _, q := range t.all() {
		if err := t.expireStrays(q, minPos); err != nil {
			return err
		}
		x, err := t.expire(q, minPos)
		if err != nil {
			return err
		}
		if x.dead || x.first < x.limit {
			gone = append(gone, x)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := t.reopen(); err != nil {
		return err
	}
	if t.journal != nil && t.journal.f != nil {
		rows := make([]*ConsumeQueue, len(gone))
		for i := range gone {
			rows[i] = gone[i].q
		}
		if err := t.journalRows(rows); err != nil {
			return err
		}
	}
	for _, x := range gone {
		if err := t.removeExpired(x); err != nil {
			return err
		}
	}
	return nil
}

// expire moves the minimum of q and says which files are not needed any more.
func (t *queueTable) expire(q *ConsumeQueue, minPos int64) (queueExpiry, error) {
	q.mu.Lock()
	low, n, end, pos := q.low.Load(), q.mark.Load(), q.end, q.minPos
	first, limit, base := q.first, q.limit, q.base
	q.mu.Unlock()
	x := queueExpiry{q: q}
	switch {
	case q.unnamed || pos >= minPos || minPos == 0:
		return x, nil
	case low == n && first == limit && base == n:
		return x, nil
	case end <= minPos && systemTopic(q.topic):
		q.mu.Lock()
		q.low.Store(n)
		q.minPos, q.moved = -1, true
		q.mu.Unlock()
		return x, nil
	case end <= minPos:
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.mark.Load() != n { // a record has come meanwhile
			return x, nil
		}
		q.low.Store(n)
		q.base, q.kept, q.first, q.limit, q.minPos, q.moved = n, n, 0, 0, -1, true
		q.dropPending()
		q.cuts++
		return queueExpiry{q, first, limit, true}, nil
	}
	found, err := q.seekPos(low, n, minPos)
	if err != nil {
		return x, err
	}
	newMin := int64(-1)
	if found < n {
		var e [1]format.CQEntry
		if _, err := q.read(found, e[:]); err != nil {
			return x, err
		}
		newMin = e[0].Offset
	}
	keep := first
	for keep+t.o.FileBytes < limit && keep+t.o.FileBytes <= found*format.CQEntryBytes {
		keep += t.o.FileBytes
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.low.Store(found)
	q.minPos, q.moved = newMin, true
	q.first = max(q.first, keep)
	return queueExpiry{q: q, first: first, limit: keep}, nil
}

func (t *queueTable) removeExpired(x queueExpiry) error {
	q := x.q
	if !x.dead {
		for start := x.first; start < x.limit; start += t.o.FileBytes {
			if err := t.removeFile(q, start); err != nil {
				return err
			}
		}
		return nil
	}
	if x.first == x.limit {
		return nil // it never had a file
	}
	var errs []error
	for start := x.first; start < x.limit; start += t.o.FileBytes {
		errs = append(errs, t.files.drop(queueFileKey{q, start}))
	}
	errs = append(errs, t.o.FS.RemoveAll(t.queueDir(q)))
	t.newDirs[t.topicDir(q.topic)] = struct{}{}
	if left, err := t.o.FS.ReadDir(t.topicDir(q.topic)); err == nil && len(left) == 0 {
		errs = append(errs, t.o.FS.Remove(t.topicDir(q.topic)))
		t.newDirs[t.o.Dir] = struct{}{}
	}
	t.syncAll = t.syncAll || len(t.newDirs) > maxTouchedFiles
	return errors.Join(errs...)
}

// expireStrays removes files before a gap whose last record is gone. A removal that a power cut
// has undone for some files leaves such.
func (t *queueTable) expireStrays(q *ConsumeQueue, minPos int64) error {
	for len(t.strays[q]) > 0 {
		start := t.strays[q][0]
		var unit [format.CQEntryBytes]byte
		var e [1]format.CQEntry
		if _, err := t.readFiles(q, (start+t.o.FileBytes)/format.CQEntryBytes-1, unit[:]); err != nil {
			return err
		}
		parseEntries(e[:], unit[:])
		if e[0].Offset >= minPos {
			return nil
		}
		if err := t.removeFile(q, start); err != nil {
			return err
		}
		t.strays[q] = t.strays[q][1:]
	}
	return nil
}

// systemTopic reports whether a topic's queues stay when they are empty
// (org.apache.rocketmq.common.topic.TopicValidator).
func systemTopic(topic string) bool {
	switch topic {
	case "TBW102", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRACE_TOPIC",
		"RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT":
		return true
	}
	return strings.HasPrefix(topic, "rmq_sys_")
}

// reset forgets all queues and destroys their files, so that they can be made anew from the log.
// Until rebuilt is called gaps in queue offsets count as facts of the log.
func (t *queueTable) reset(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	errs := []error{t.files.closeAll()}
	if t.journal != nil {
		errs = append(errs, t.journal.destroy())
	}
	entries, err := t.o.FS.ReadDir(t.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.IsDir() {
			errs = append(errs, t.o.FS.RemoveAll(t.o.Dir+"/"+e.Name()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reset consume queues: %w", err)
	}
	t.syncAll = true
	for _, q := range t.all() {
		q.mu.Lock()
		q.setMax(0)
		q.base, q.kept, q.first, q.limit, q.minPos, q.num = 0, 0, 0, 0, -1, -1
		q.dropPending()
		if !q.unnamed {
			q.end = 0
		}
		q.unsure, q.moved = false, false
		q.cuts++
		q.low.Store(0)
		q.mu.Unlock()
	}
	t.covered, t.trusted, t.fromScan, t.orphans = 0, 0, false, false
	t.rebuilding.Store(true)
	return nil
}

// rebuilt says that the log has been read after a reset: from now on a gap is an error.
func (t *queueTable) rebuilt() { t.rebuilding.Store(false) }

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

// load finds the queues: through the journal when there is one that counts, else by listing the
// directories. In the second case [queueTable.recoverEnds] must find where they end; load does so
// itself when the journal of a directory of ours is missing or damaged.
func (t *queueTable) load(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if t.journal != nil {
		if t.o.Foreign {
			if err := t.journal.destroy(); err != nil {
				return err
			}
		} else {
			err := t.loadJournal(ctx)
			if err == nil {
				return nil
			}
			if !errors.Is(err, errJournal) {
				return err
			}
			if !errors.Is(err, fs.ErrNotExist) {
				t.o.Logger.Warn("queue journal unreadable: the queues are found by their files and the log", "err", err)
			}
			if err := t.journal.destroy(); err != nil {
				return err
			}
		}
	}
	t.fromScan = true
	if err := t.list(ctx); err != nil {
		return fmt.Errorf("load consume queues: %w", err)
	}
	if !t.o.Foreign {
		return t.scanEnds(ctx, true)
	}
	return nil
}

// list finds the queues and files by their directories and checks the sizes.
func (t *queueTable) list(ctx context.Context) error {
	topics, err := t.o.FS.ReadDir(t.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if !topic.IsDir() {
			t.o.Logger.Warn("not a topic directory: left alone", "path", t.o.Dir+"/"+topic.Name())
			continue
		}
		queues, err := t.o.FS.ReadDir(t.topicDir(topic.Name()))
		if err != nil {
			return err
		}
		for _, e := range queues {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			id, err := strconv.ParseInt(e.Name(), 10, 32)
			if err != nil || id < 0 || !e.IsDir() {
				t.o.Logger.Warn("not a queue directory: left alone", "path", t.topicDir(topic.Name())+"/"+e.Name())
				continue
			}
			if err := t.listQueue(t.get([]byte(topic.Name()), int32(id))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *queueTable) listQueue(q *ConsumeQueue) error {
	dir := t.queueDir(q)
	starts, err := t.listFiles(dir)
	if err != nil || len(starts) == 0 {
		return err
	}
	for i, start := range starts {
		name := t.filePath(q, start)
		st, err := t.o.FS.Stat(name)
		if err != nil {
			return err
		}
		if st.Size() == t.o.FileBytes {
			continue
		}
		if i == len(starts)-1 && st.Size() == 0 {
			// Made in the moment of a crash, before it got its size.
			f, err := t.createFile(q, start, 0, false)
			if err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			continue
		}
		return &queueSizeError{name, st.Size(), t.o.FileBytes}
	}
	// Only an unbroken run of files can be read by offset.
	run := len(starts) - 1
	for run > 0 && starts[run-1] == starts[run]-t.o.FileBytes {
		run--
	}
	if run > 0 {
		t.o.Logger.Warn("consume queue file missing: what is before the gap is not read", "path", dir, "after", format.FileName(starts[run-1]))
		t.strays[q] = starts[:run]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.first, q.limit = starts[run], starts[len(starts)-1]+t.o.FileBytes
	q.base = q.limit / format.CQEntryBytes // lowered by the scan
	return nil
}

// queueSizeError says that a file has another size than the option.
type queueSizeError struct {
	Path       string
	Have, Want int64
}

func (e *queueSizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, but mappedFileSizeConsumeQueue is %d: use the size the store was made with", e.Path, e.Have, e.Want)
}

// recoverEnds finds where the queues of somebody else's directory end, by reading the last three
// files of each. It does nothing when load knew it from the journal.
func (t *queueTable) recoverEnds(ctx context.Context) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	if !t.fromScan {
		return nil
	}
	return t.scanEnds(ctx, false)
}

// scanEnds finds the end of every queue. whole reads all files, else the last three.
func (t *queueTable) scanEnds(ctx context.Context, whole bool) error {
	for _, q := range t.all() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := t.scanEnd(q, whole); err != nil {
			return fmt.Errorf("recover queue %s/%d: %w", q.topic, q.id, err)
		}
	}
	t.trusted = 0
	return nil
}

func (t *queueTable) scanEnd(q *ConsumeQueue, whole bool) error {
	q.mu.Lock()
	first, limit := q.first, q.limit
	q.unsure = true
	q.mu.Unlock()
	if first == limit || q.unnamed {
		return nil
	}
	start := first
	if !whole {
		start = max(first, limit-3*t.o.FileBytes)
	}
	n, end, _, err := t.scanUnits(q, start, limit, false)
	if err != nil {
		return err
	}
	low, lowPos := first/format.CQEntryBytes, int64(-1)
	at, _, pos, err := t.scanUnits(q, first, min(n*format.CQEntryBytes, first+t.o.FileBytes), true)
	if err != nil {
		return err
	}
	if pos >= 0 {
		low, lowPos = at, pos
	} else if start == first {
		low = n
	}
	last := limit
	for last-t.o.FileBytes > first && last-t.o.FileBytes > n*format.CQEntryBytes {
		last -= t.o.FileBytes
		if err := t.removeFile(q, last); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.base, q.kept, q.end, q.limit, q.minPos = n, n, end, last, lowPos
	q.low.Store(low)
	q.setMax(n)
	return nil
}

// scanUnits reads units from byte at to byte limit of the queue. It stops at the first invalid
// one, or, for the first record, at the first that is no filler. It returns the offset of the unit
// it stopped at, the end of the last record before it, and the log position of the one it stopped at.
func (t *queueTable) scanUnits(q *ConsumeQueue, at, limit int64, firstRecord bool) (n, end, pos int64, err error) {
	var entries [1]format.CQEntry
	step := 4 << 10 / format.CQEntryBytes * format.CQEntryBytes
	if t.buf == nil {
		t.buf = make([]byte, queueCopyBytes)
	}
	for at < limit {
		b := t.buf[:min(int64(step), limit-at)]
		got, err := t.readFiles(q, at/format.CQEntryBytes, b)
		if err != nil {
			return 0, 0, 0, err
		}
		for b := b[:got]; len(b) > 0; b = b[format.CQEntryBytes:] {
			parseEntries(entries[:], b)
			e := entries[0]
			if !e.Valid() {
				return at / format.CQEntryBytes, end, -1, nil
			}
			if !e.IsFiller() {
				if firstRecord {
					return at / format.CQEntryBytes, end, e.Offset, nil
				}
				end = e.Offset + int64(e.Size)
			}
			at += format.CQEntryBytes
		}
		step = min(step*4, len(t.buf))
	}
	return at / format.CQEntryBytes, end, -1, nil
}

// removeOrphans removes the files of queues of which no entry is left: made after the last
// checkpoint before a crash, for records that the log has lost.
func (t *queueTable) removeOrphans() error {
	topics, err := t.o.FS.ReadDir(t.o.Dir)
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if !topic.IsDir() {
			continue
		}
		queues, err := t.o.FS.ReadDir(t.topicDir(topic.Name()))
		if err != nil {
			return err
		}
		for _, e := range queues {
			id, err := strconv.ParseInt(e.Name(), 10, 32)
			if err != nil || !e.IsDir() || t.lookup(topic.Name(), int32(id)) != nil {
				continue
			}
			if err := t.o.FS.RemoveAll(t.topicDir(topic.Name()) + "/" + e.Name()); err != nil {
				return err
			}
			t.syncAll = true
		}
	}
	t.orphans = false
	return nil
}
