package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"rmq/engine/format"
)

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
