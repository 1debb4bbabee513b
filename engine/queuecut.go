package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"rmq/engine/format"
)

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
	return t.removeGone(gone)
}

// removeGone tells the journal what readers have been told, then removes the files.
func (t *queueTable) removeGone(gone []queueExpiry) error {
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
		return q.empty(), nil
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

// empty takes all entries out of q, which keeps its place: the next record gets the offset that it
// would have got. Called with mu held.
func (q *ConsumeQueue) empty() queueExpiry {
	x := queueExpiry{q, q.first, q.limit, true}
	n := q.mark.Load()
	q.low.Store(n)
	q.base, q.kept, q.first, q.limit, q.minPos, q.moved = n, n, 0, 0, -1, true
	q.dropPending()
	q.cuts++
	return x
}

// remove empties the queues of a topic and removes their files.
func (t *queueTable) remove(topic string) error {
	t.maint.Lock()
	defer t.maint.Unlock()
	var gone []queueExpiry
	for _, q := range t.all() {
		if q.topic != topic || q.unnamed {
			continue
		}
		q.mu.Lock()
		if q.low.Load() < q.mark.Load() || q.first < q.limit {
			gone = append(gone, q.empty())
		}
		q.mu.Unlock()
		delete(t.strays, q) // they lie in the directory that goes
	}
	if err := t.removeGone(gone); err != nil {
		return fmt.Errorf("remove the queues of %s: %w", topic, err)
	}
	return t.syncClassic()
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
