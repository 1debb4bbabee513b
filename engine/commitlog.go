package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine/mappedfile"
	"rmq/internal/watermark"
	"rmq/message"
)

const (
	blankBytes   = 8       // what a record must leave free behind it in its segment
	writebackGap = 8 << 20 // written bytes after which write-back is started
	stallNotice  = time.Millisecond
)

// CommitLog is the one sequential log of all topics: segments of equal size, written by one
// goroutine at a time from append buffers (org.apache.rocketmq.store.CommitLog).
//
// Records get their offsets under mu and are copied into the newest chunk. Whoever holds role
// writes what has gathered with one call, syncs it under sync flush, and releases the acks. That
// is the writer goroutine, or a blocking Append that finds nobody writing.
type CommitLog struct {
	o      *Options
	units  Units // nil: records stand alone
	files  *mappedfile.MappedFileQueue
	alloc  *mappedfile.Allocator
	queues *queueTable
	chunks *chunkList
	acks   ackRing
	delays delayTable

	written, flushed, ackable, visible, dispatched watermark.Mark

	tail    atomic.Int64 // appended; changes under mu
	confirm atomic.Int64
	cuts    atomic.Int64 // how often the tail was cut: what was read before may stand no longer

	mu       sync.Mutex // the append lock
	cur      *chunk
	pending  ackBatch
	lastTime int64 // store time of the newest record
	failed   error // poisoned: nothing is written or acked any more
	closing  bool  // no more appends; what has an offset is still written
	verbatim bool  // AppendRaw or TruncateTo came last: the next queue offsets are to be adopted

	role    sync.Mutex // the right to write
	scratch []byte     // 2 pages, under role
	iov     [2][]byte  // under role
	group   int64      // records in the last synced group, under role
	grouped int64      // records when the last group was taken, under role

	idle      atomic.Bool
	wake      chan struct{}
	flushKick chan struct{}
	flushNow  atomic.Int64 // flush at least up to here
	syncing   sync.Mutex   // one flush at a time outside the writer

	full atomic.Pointer[error] // the disk is full: appends are refused

	records, recordBytes, rawBytes, writes, writeBytes       atomic.Int64
	flushes, flushNanos, rolls, stalls, violations, kickedTo atomic.Int64

	dispatchedTime *atomic.Int64 // store time of the newest dispatched record
}

func newCommitLog(o *Options, files *mappedfile.MappedFileQueue, queues *queueTable) *CommitLog {
	l := &CommitLog{
		o: o, files: files, queues: queues,
		chunks:    newChunkList(int(min(chunkBytes, o.SegmentBytes)), o.TailCache),
		scratch:   make([]byte, 2*pageBytes),
		wake:      make(chan struct{}, 1),
		flushKick: make(chan struct{}, 1),
	}
	l.acks.marks, l.acks.verdict = o.AckMarks, o.Verdict
	l.units, _ = o.Framing.(Units)
	l.delays, _ = parseDelayLevels(o.MessageDelay) // Validate has seen it
	l.confirm.Store(math.MaxInt64)
	return l
}

// marks are all positions but the tail, smallest first.
func (l *CommitLog) marks() []*watermark.Mark {
	return []*watermark.Mark{&l.dispatched, &l.visible, &l.ackable, &l.flushed, &l.written}
}

// startAt sets the positions of a log that was just recovered and ends at end; nothing is running yet.
// Readers may see what lies below shown, and the queues know what lies below known.
func (l *CommitLog) startAt(end, flushed, shown, known int64) {
	l.tail.Store(end)
	l.written.Advance(end)
	l.ackable.Advance(end)
	l.visible.Advance(shown)
	l.dispatched.Advance(known)
	l.flushed.Advance(flushed)
	l.acks.mu.Lock()
	l.acks.local = end
	l.acks.mu.Unlock()
	l.kickedTo.Store(end)
}

// room says why a record could not be placed.
type room int

const (
	roomOK room = iota
	roomFile
	roomPending
	roomFlush
	roomDispatch
	roomAdopt // the next queue offsets are not known yet
)

func (r room) String() string {
	return [...]string{"", "roll", "write", "flush", "dispatch", "queue offsets"}[r]
}

// prepare checks the record and finds its queue, before the lock.
func (l *CommitLog) prepare(a *Append) error {
	size := int64(len(a.Record))
	if limit := l.o.maxRecordBytes(); size > limit {
		return &TooLargeError{size, limit}
	}
	p, err := message.Peek(a.Record)
	if err != nil {
		return err
	}
	a.next, a.queue = nil, nil
	a.Result = Result{Size: int32(size), Count: 1}
	if p.SysFlag.Has(message.FlagInnerBatch) {
		return fmt.Errorf("inner batches: %w", ErrUnsupported)
	}
	if p.SysFlag.ConsumesOffset() {
		a.queue = l.queues.get(p.Topic, p.QueueID)
		if a.queue.unnamed {
			return fmt.Errorf("topic %q, queue %d cannot be a directory: %w", p.Topic, p.QueueID, ErrUnsupported)
		}
	}
	for rest := a.Record[p.Size:]; len(rest) > 0; a.Result.Count++ {
		q, err := message.Peek(rest)
		if err != nil {
			return fmt.Errorf("record %d of the batch: %w", a.Result.Count+1, err)
		}
		if q.QueueID != p.QueueID || string(q.Topic) != string(p.Topic) || q.SysFlag.ConsumesOffset() != (a.queue != nil) {
			return fmt.Errorf("record %d of the batch goes to another queue: %w", a.Result.Count+1, ErrUnsupported)
		}
		rest = rest[q.Size:]
	}
	return nil
}

// place gives a its offsets and copies it into the newest chunk. Called with mu held. When there
// is no room it says which kind, and the position that must be reached first.
func (l *CommitLog) place(a *Append, millis int64) (room, int64, error) {
	if err := l.refusal(); err != nil {
		return 0, 0, err
	}
	if l.verbatim {
		return roomAdopt, l.tail.Load(), nil
	}
	need := int64(len(a.Record))
	if why, at := l.makeRoom(need); why != roomOK {
		return why, at, nil
	}
	start := l.tail.Load()
	c := l.chunkFor(start, need)
	from := c.filled.Load()
	rec := c.buf[from : from+need]
	copy(rec, a.Record)
	l.lastTime = max(l.lastTime, millis)
	l.stamp(a, rec, start)
	l.extend(c, need)
	l.queueAck(a, start+need)
	return roomOK, 0, nil
}

// stamp gives a its queue offsets and writes them, start and the time into rec, its bytes in the log.
// Called with mu held.
func (l *CommitLog) stamp(a *Append, rec []byte, start int64) {
	a.Result.Pos, a.Result.StoreTime = start, l.lastTime
	if a.Result.Count == 1 {
		var queueOffset int64
		if a.queue != nil {
			queueOffset = a.queue.next
			a.queue.next++
		}
		a.Result.QueueOffset = queueOffset
		l.o.Stamp(rec, queueOffset, start, l.lastTime)
	} else {
		l.stampBatch(a, rec, start)
	}
	l.records.Add(int64(a.Result.Count))
	l.recordBytes.Add(int64(len(rec)))
}

func (l *CommitLog) stampBatch(a *Append, rec []byte, pos int64) {
	var next int64
	if a.queue != nil {
		next = a.queue.next
		a.queue.next += int64(a.Result.Count)
	}
	a.Result.QueueOffset = next
	for len(rec) > 0 {
		n := message.RecordSize(rec)
		l.o.Stamp(rec[:n], next, pos, l.lastTime)
		rec, pos = rec[n:], pos+int64(n)
		if a.queue != nil {
			next++
		}
	}
}

// extend publishes need more bytes of c. Called with mu held.
func (l *CommitLog) extend(c *chunk, need int64) {
	c.filled.Add(need)
	l.tail.Store(l.tail.Load() + need)
}

// queueAck lets a, which ends at end, wait for its ack. Called with mu held.
func (l *CommitLog) queueAck(a *Append, end int64) {
	a.end = end
	if l.pending.head == nil {
		l.pending.head = a
	} else {
		l.pending.tail.next = a
	}
	l.pending.tail, l.pending.end = a, end
}

// makeRoom rolls to the next segment if need bytes do not fit, and checks every bound.
// Called with mu held.
func (l *CommitLog) makeRoom(need int64) (room, int64) {
	tail, seg := l.tail.Load(), l.o.SegmentBytes
	start := l.startOf(need)
	if why, at := l.bounds(start, start+need); why != roomOK {
		return why, at
	}
	if start > tail {
		c := l.chunkFor(tail, blankBytes)
		message.PutBlank(c.buf[c.filled.Load():], int32(start-tail))
		c.filled.Add(blankBytes)
		l.tail.Store(start)
	}
	if start%seg == 0 {
		l.cur = nil
		l.rolled(start)
	}
	return roomOK, 0
}

// startOf is where the next need bytes go that must lie in one segment. Called with mu held.
func (l *CommitLog) startOf(need int64) int64 {
	tail, seg := l.tail.Load(), l.o.SegmentBytes
	if left := seg - tail%seg; need+blankBytes > left {
		return tail + left
	}
	return tail
}

// bounds says whether [start, end) may be appended now. Called with mu held.
func (l *CommitLog) bounds(start, end int64) (room, int64) {
	tail := l.tail.Load()
	if l.files.Next() < end {
		return roomFile, start
	}
	if written := l.written.Load(); end-written > l.o.MaxPending && written < tail {
		return roomPending, min(max(end-l.o.MaxPending, written+1), tail)
	}
	if l.o.Flush == AsyncFlush {
		if flushed := l.flushed.Load(); end-flushed > l.o.MaxUnflushed && flushed < tail {
			return roomFlush, min(max(end-l.o.MaxUnflushed, flushed+1), tail)
		}
	}
	if at := l.visible.Load() - l.o.MaxUnflushed; !l.o.DispatchDisabled && l.dispatched.Load() < at {
		return roomDispatch, at
	}
	return roomOK, 0
}

// rolled notes that the segment at start is in use and asks for the next.
func (l *CommitLog) rolled(start int64) {
	l.alloc.Want(start + l.o.SegmentBytes)
	l.rolls.Add(1)
	if l.o.Events.Roll != nil {
		m := l.files.Find(start)
		l.o.Events.Roll(RollEvent{Segment: start, Prepared: m != nil && m.Prepared()})
	}
}

// chunkFor is the chunk that takes need bytes at start. Called with mu held.
func (l *CommitLog) chunkFor(start, need int64) *chunk {
	if c := l.cur; c != nil {
		if filled := c.filled.Load(); c.start+filled == start && int64(len(c.buf))-filled >= need {
			return c
		}
	}
	l.cur = l.chunks.add(start, int(need), l.written.Load())
	return l.cur
}

// submit places a, waiting for room as long as ctx allows.
func (l *CommitLog) submit(ctx context.Context, a *Append) error {
	if err := l.prepare(a); err != nil {
		return err
	}
	for {
		millis := l.o.Clock().UnixMilli()
		l.mu.Lock()
		why, at, err := l.place(a, millis)
		l.mu.Unlock()
		if err != nil || why == roomOK {
			return err
		}
		if err := l.waitRoom(ctx, why, at, a.NoWait); err != nil {
			return err
		}
	}
}

// submitMany places records from the front of as and says how many. An error belongs to the
// first that was not placed.
func (l *CommitLog) submitMany(ctx context.Context, as []*Append) (int, error) {
	var bad error
	for i, a := range as {
		if bad = l.prepare(a); bad != nil {
			as = as[:i]
			break
		}
	}
	for n := 0; n < len(as); {
		millis := l.o.Clock().UnixMilli()
		l.mu.Lock()
		var (
			why room
			at  int64
			err error
		)
		for n < len(as) && why == roomOK && err == nil {
			if why, at, err = l.place(as[n], millis); why == roomOK && err == nil {
				n++
			}
		}
		l.mu.Unlock()
		if err != nil {
			return n, err
		}
		if why != roomOK {
			if err := l.waitRoom(ctx, why, at, as[n].NoWait); err != nil {
				return n, err
			}
		}
	}
	return len(as), bad
}

// waitRoom waits until the obstacle is gone.
func (l *CommitLog) waitRoom(ctx context.Context, why room, at int64, noWait bool) error {
	l.wakeWriter()
	if why == roomAdopt {
		if err := l.adopt(at); !errors.Is(err, message.ErrShort) {
			return err
		}
	}
	if noWait {
		if why == roomFile {
			l.alloc.Want(at)
		}
		return fmt.Errorf("%w: waiting for the %s", ErrBusy, why)
	}
	began := time.Now()
	var err error
	switch why {
	case roomFile:
		err = l.alloc.Await(ctx, at, true)
	case roomPending:
		err = l.written.Wait(ctx, at)
	case roomFlush:
		l.kickFlush()
		err = l.flushed.Wait(ctx, at)
	case roomDispatch, roomAdopt: // for the rest of the record that a replica's stream has cut
		err = l.dispatched.Wait(ctx, at)
	}
	took := time.Since(began)
	if took > stallNotice {
		l.stalls.Add(1)
		if l.o.Events.Stall != nil {
			l.o.Events.Stall(StallEvent{Cause: why.String(), Took: took})
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: waited %v for the %s: %w", ErrBusy, took.Round(time.Millisecond), why, context.Cause(ctx))
	}
	return err
}

// wakeWriter makes sure that the writer goroutine looks at the tail again.
func (l *CommitLog) wakeWriter() {
	if l.idle.Load() && l.idle.CompareAndSwap(true, false) {
		l.wake <- struct{}{}
	}
}

// writeInline writes what ends at end on the caller's goroutine if nobody else is writing.
func (l *CommitLog) writeInline(end int64) {
	if l.role.TryLock() {
		for l.written.Load() < end && l.writeOnce() {
		}
		l.role.Unlock()
		if l.tail.Load() == l.written.Load() {
			return
		}
	}
	l.wakeWriter()
}

// runWriter writes what gathers until ctx ends; what is there then is still written.
func (l *CommitLog) runWriter(ctx context.Context) error {
	for {
		l.role.Lock()
		for l.writeOnce() {
		}
		l.role.Unlock()
		l.idle.Store(true)
		if l.tail.Load() > l.written.Load() && !l.poisoned() && l.idle.CompareAndSwap(true, false) {
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.role.Lock()
			for l.writeOnce() {
			}
			l.role.Unlock()
			return nil
		}
	}
}

// ended is why nothing is appended any more, nil if that is not so. Called with mu held.
func (l *CommitLog) ended() error {
	if l.failed == nil && l.closing {
		return ErrClosed
	}
	return l.failed
}

// refusal is why nothing is appended now: the log has ended, or a disk is full. Called with mu held.
func (l *CommitLog) refusal() error {
	if err := l.ended(); err != nil {
		return err
	}
	if full := l.full.Load(); full != nil {
		return *full
	}
	return nil
}

func (l *CommitLog) poisoned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed != nil
}

// writeOnce writes everything appended so far with as few calls as there are chunks, syncs it
// under sync flush, or has it synced, and releases the acks. False means there was nothing to do.
// Role is held.
func (l *CommitLog) writeOnce() bool {
	if l.o.Flush == SyncFlush && !l.o.SyncAside {
		l.gather()
	}
	l.mu.Lock()
	from, to := l.written.Load(), l.tail.Load()
	if from == to || l.failed != nil {
		l.mu.Unlock()
		return false
	}
	batch := l.pending
	l.pending = ackBatch{}
	records := l.records.Load()
	l.mu.Unlock()
	l.group, l.grouped = records-l.grouped, records
	if batch.head != nil {
		l.acks.push(batch)
	}
	if err := l.writeRange(from, to); err != nil {
		l.poison(err)
		return false
	}
	l.written.Advance(to)
	switch {
	case l.syncsAside():
		l.kickFlush()
		return true
	case l.o.Flush == SyncFlush:
		if err := l.syncTo(to); err != nil {
			l.poison(err)
			return false
		}
	case to-l.kickedTo.Load() >= writebackGap:
		l.kickedTo.Store(to)
		l.kickFlush()
	}
	l.acked(to)
	return true
}

func (l *CommitLog) syncsAside() bool { return l.o.Flush == SyncFlush && l.o.SyncAside }

const (
	gatherLimit = 30 * time.Microsecond // a flush takes four times as long on a fast disk
	gatherQuiet = 5 * time.Microsecond
)

// gather yields to the producers that the last group has woken, until as many records wait as
// were in it or no more come. Without it every group would be half of the producers: those that
// are woken by one flush miss the next by a hair.
func (l *CommitLog) gather() {
	if l.group < 2 || l.tail.Load() == l.written.Load() {
		return
	}
	began := time.Now()
	last, have := began, l.records.Load()
	for have-l.grouped < l.group {
		runtime.Gosched()
		now := time.Now()
		if n := l.records.Load(); n != have {
			last, have = now, n
		} else if now.Sub(last) > gatherQuiet {
			return
		}
		if now.Sub(began) > gatherLimit {
			return
		}
	}
}

// acked publishes that everything below pos may be acked, as far as this node is concerned.
func (l *CommitLog) acked(pos int64) {
	l.ackable.Advance(pos)
	l.publishVisible()
	l.acks.release(pos)
}

func (l *CommitLog) publishVisible() {
	l.visible.Advance(min(l.ackable.Load(), l.confirm.Load()))
}

// writeRange writes [from, to) from the chunks. Every write ends on a page boundary with zeros
// behind the tail: a partial write into a page that is not in the cache would have to read it.
func (l *CommitLog) writeRange(from, to int64) error {
	list := *l.chunks.list.Load()
	pos := from
	for i, c := range list {
		end := min(c.end(), to)
		if end <= pos {
			if i+1 == len(list) || list[i+1].start > to {
				break
			}
			pos = max(pos, list[i+1].start) // behind a blank there may be a gap to the segment's end
			continue
		}
		pos = max(pos, c.start)
		if err := l.writePiece(c, pos, end); err != nil {
			return err
		}
		pos = end
		if i+1 < len(list) && list[i+1].start <= to {
			pos = max(pos, list[i+1].start)
		}
	}
	return nil
}

func (l *CommitLog) writePiece(c *chunk, pos, end int64) error {
	m := l.files.Find(pos)
	if m == nil {
		panic(fmt.Sprintf("BUG: no segment holds offset %d", pos))
	}
	pad := min((end+blankBytes+pageBytes-1)/pageBytes*pageBytes, m.End())
	whole := max(end/pageBytes*pageBytes, pos) // whole pages go down from the chunk itself
	scratch := l.scratch[:pad-whole]
	n := copy(scratch, c.buf[whole-c.start:end-c.start])
	clear(scratch[n:])
	bufs := l.iov[:0]
	if whole > pos {
		bufs = append(bufs, c.buf[pos-c.start:whole-c.start])
	}
	if len(scratch) > 0 {
		bufs = append(bufs, scratch)
	}
	l.writes.Add(1)
	l.writeBytes.Add(pad - pos)
	return m.WritevAt(bufs, pos)
}

// syncTo makes everything below to durable.
func (l *CommitLog) syncTo(to int64) error {
	from := l.flushed.Load()
	if from >= to {
		return nil
	}
	began := time.Now()
	for _, m := range l.files.Files() {
		if m.End() <= from || m.Start() >= to {
			continue
		}
		if err := m.Sync(); err != nil {
			return err
		}
	}
	took := time.Since(began)
	l.flushes.Add(1)
	l.flushNanos.Add(int64(took))
	l.flushed.Advance(to)
	if l.o.Events.Flush != nil {
		l.o.Events.Flush(FlushEvent{From: from, To: to, Took: took})
	}
	return nil
}

// poison ends all acks: log bytes could not be written or synced, and a second try that says
// "fine" would prove nothing.
func (l *CommitLog) poison(cause error) {
	err := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	l.mu.Lock()
	if l.failed != nil {
		l.mu.Unlock()
		return
	}
	l.failed = err
	batch := l.pending
	l.pending = ackBatch{}
	l.mu.Unlock()
	l.tellPoisoned(err, batch)
}

// tellPoisoned fails those that wait for anything, batch too.
func (l *CommitLog) tellPoisoned(err error, batch ackBatch) {
	for _, m := range l.marks() {
		m.Fail(err)
	}
	l.acks.fail(err)
	complete(batch.head, err)
	l.o.Logger.Error("store poisoned: reopen it", "err", err)
	if l.o.Events.Poison != nil {
		l.o.Events.Poison(err)
	}
}

func (l *CommitLog) kickFlush() {
	select {
	case l.flushKick <- struct{}{}:
	default:
	}
}

// runFlusher is the flush service of async flush: it starts write-back early, and syncs every
// FlushInterval, when half of the unflushed ceiling is reached, or when asked.
func (l *CommitLog) runFlusher(ctx context.Context) error {
	tick := time.NewTicker(l.o.FlushInterval)
	defer tick.Stop()
	last := time.Now()
	begun := l.written.Load() // write-back was started below
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			due = true
		case <-l.flushKick:
		}
		written, flushed := l.written.Load(), l.flushed.Load()
		begun = max(begun, flushed)
		if written-begun >= writebackGap {
			if err := l.startWriteback(begun, written); err != nil {
				l.poison(err)
				return nil
			}
			begun = written
		}
		pages := (written - flushed) / pageBytes
		switch {
		case written == flushed:
			continue
		case due && (pages >= int64(l.o.FlushLeastPages) || time.Since(last) >= l.o.FlushThorough):
		case written-flushed >= l.o.MaxUnflushed/2:
		case l.flushNow.Load() > flushed:
		default:
			continue
		}
		last = time.Now()
		if err := l.flushWritten(); err != nil {
			return nil // the store is poisoned; whoever waits has been told
		}
	}
}

// runSyncer syncs what is written, beside the writer, until ctx ends.
func (l *CommitLog) runSyncer(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.flushKick:
		}
		for l.flushed.Load() < l.written.Load() {
			if err := l.flushWritten(); err != nil {
				return nil //nolint:nilerr // the store is poisoned; whoever waits has been told
			}
		}
	}
}

// flushWritten syncs everything written so far, and releases the acks that waited for it.
func (l *CommitLog) flushWritten() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	to := l.written.Load()
	if err := l.syncTo(to); err != nil {
		l.poison(err)
		return err
	}
	if l.syncsAside() {
		l.acked(to) // before syncing is free: a cut takes the positions back under it
	}
	return nil
}

// ensureFlushed makes everything below pos durable, whatever the flush mode.
func (l *CommitLog) ensureFlushed(pos int64) error {
	if l.flushed.Load() >= pos {
		return nil
	}
	return l.flushWritten()
}

func (l *CommitLog) startWriteback(from, to int64) error {
	for _, m := range l.files.Files() {
		a, b := max(from, m.Start()), min(to, m.End())
		if a < b {
			if err := m.StartWriteback(a, b); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
	}
	return nil
}

// flush returns when everything appended before the call is on disk.
func (l *CommitLog) flush(ctx context.Context) error {
	to := l.tail.Load()
	l.wakeWriter()
	if err := l.written.Wait(ctx, to); err != nil {
		return err
	}
	if l.o.Flush == AsyncFlush {
		for {
			was := l.flushNow.Load()
			if was >= to || l.flushNow.CompareAndSwap(was, to) {
				break
			}
		}
		l.kickFlush()
	}
	return l.flushed.Wait(ctx, to)
}

// checkOrder counts watermarks out of order. Loads go from the smallest to the largest.
func (l *CommitLog) checkOrder() {
	dispatched, visible := l.dispatched.Load(), l.visible.Load()
	ackable, flushed := l.ackable.Load(), l.flushed.Load()
	written, tail := l.written.Load(), l.tail.Load()
	ok := dispatched <= visible && visible <= ackable && ackable <= written && flushed <= written && written <= tail
	if l.o.Flush == SyncFlush {
		ok = ok && visible <= flushed
	}
	if !ok {
		l.violations.Add(1)
		assertOrder(dispatched, visible, ackable, flushed, written, tail)
	}
}

// adoptNext takes the next queue offsets from the queues, which know the whole log.
// Called with mu held, or before anything runs.
func (l *CommitLog) adoptNext() {
	for _, q := range l.queues.all() {
		q.next = q.max()
	}
	l.verbatim = false
}

// adopt takes the next queue offsets from the queues, and from the records up to the tail that are
// not dispatched yet, or hidden: what a replica has been sent may only be confirmed once it leads.
// message.ErrShort says that the log ends inside a record.
func (l *CommitLog) adopt(tail int64) error {
	cuts, from := l.cuts.Load(), l.dispatched.Load()
	reader := &logReader{l: l}
	defer reader.close()
	next := map[*ConsumeQueue]int64{}
	newest := l.dispatchedTime.Load()
	end, err := l.walk(reader, from, tail, false, func(_ int64, r *message.Record) bool {
		if r.SysFlag.ConsumesOffset() {
			next[l.queues.get(r.Topic, r.QueueID)] = r.QueueOffset + 1
		}
		newest = max(newest, r.StoreTimestamp)
		return true
	})
	if err == nil && end < tail {
		err = message.ErrShort // inside a blank
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail.Load() != tail || l.cuts.Load() != cuts || !l.verbatim {
		return nil // somebody else has seen to it, or it has to be seen to again
	}
	if err != nil {
		return err
	}
	l.adoptNext()
	l.lastTime = max(l.lastTime, newest)
	for q, n := range next {
		q.next = max(q.next, n)
	}
	return nil
}
