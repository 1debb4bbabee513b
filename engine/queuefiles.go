package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"rmq/engine/format"
	"rmq/engine/mappedfile"
	"rmq/internal/vfs"
)

const maxQueueFiles = 512 // open at once

// queueFileKey names one file of one queue.
type queueFileKey struct {
	q     *ConsumeQueue
	start int64
}

// queueFile is an open file of the cache.
type queueFile struct {
	key        queueFileKey
	f          vfs.File
	refs       int
	dropped    bool
	prev, next *queueFile
}

// queueFiles keeps the most recently used queue files open.
type queueFiles struct {
	fs  vfs.FS
	max int

	mu   sync.Mutex // leaf
	open map[queueFileKey]*queueFile
	head queueFile // ring: head.next was used last
}

func newQueueFiles(fsys vfs.FS, limit int) *queueFiles {
	c := &queueFiles{fs: fsys, max: limit, open: map[queueFileKey]*queueFile{}}
	c.head.prev, c.head.next = &c.head, &c.head
	return c
}

func (x *queueFile) unlink() {
	x.prev.next, x.next.prev = x.next, x.prev
}

func (c *queueFiles) linkFront(x *queueFile) {
	x.prev, x.next = &c.head, c.head.next
	x.prev.next, x.next.prev = x, x
}

// acquire returns the open file, or nil if it is not in the cache.
func (c *queueFiles) acquire(k queueFileKey) *queueFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.open[k]
	if x == nil {
		return nil
	}
	x.refs++
	x.unlink()
	c.linkFront(x)
	return x
}

// add puts f into the cache, acquired, and closes the files that fall out of it. If the file is
// there already, f is closed.
func (c *queueFiles) add(k queueFileKey, f vfs.File) (*queueFile, error) {
	var out []vfs.File
	c.mu.Lock()
	x := c.open[k]
	if x != nil {
		out = append(out, f)
	} else {
		x = &queueFile{key: k, f: f}
		c.open[k] = x
		c.linkFront(x)
	}
	x.refs++
	for old := c.head.prev; old != &c.head && len(c.open) > c.max; {
		prev := old.prev
		if old.refs == 0 {
			old.unlink()
			delete(c.open, old.key)
			out = append(out, old.f)
		}
		old = prev
	}
	c.mu.Unlock()
	var errs []error
	for _, f := range out {
		errs = append(errs, f.Close())
	}
	return x, errors.Join(errs...)
}

func (c *queueFiles) release(x *queueFile) error {
	c.mu.Lock()
	x.refs--
	last := x.refs == 0 && x.dropped
	c.mu.Unlock()
	if last {
		return x.f.Close()
	}
	return nil
}

// drop forgets a file that is removed; it is closed once nobody uses it.
func (c *queueFiles) drop(k queueFileKey) error {
	c.mu.Lock()
	x := c.open[k]
	idle := false
	if x != nil {
		x.unlink()
		delete(c.open, k)
		x.dropped = true
		idle = x.refs == 0
	}
	c.mu.Unlock()
	if idle {
		return x.f.Close()
	}
	return nil
}

// closeAll drops everything.
func (c *queueFiles) closeAll() error {
	c.mu.Lock()
	var keys []queueFileKey
	for k := range c.open {
		keys = append(keys, k)
	}
	c.mu.Unlock()
	var errs []error
	for _, k := range keys {
		errs = append(errs, c.drop(k))
	}
	return errors.Join(errs...)
}

func (c *queueFiles) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// topicDir and queueDir name the directories of a queue.
func (t *queueTable) topicDir(topic string) string { return t.o.Dir + "/" + topic }

func (t *queueTable) queueDir(q *ConsumeQueue) string {
	return t.o.Dir + "/" + q.topic + "/" + strconv.Itoa(int(q.id))
}

func (t *queueTable) filePath(q *ConsumeQueue, start int64) string {
	return t.queueDir(q) + "/" + format.FileName(start)
}

// spaceErr turns a full disk into a [SpaceError] that names the file.
func spaceErr(fsys vfs.FS, name string, need int64, err error) error {
	if err == nil || !mappedfile.IsFull(err) {
		return err
	}
	u, uerr := fsys.Usage(name)
	return errors.Join(&SpaceError{Path: name, Need: need, Have: u.Avail, Err: err}, uerr)
}

// readFiles reads entries from offset on out of the classic files, up to the end of the file that
// holds it, and returns how many bytes.
func (t *queueTable) readFiles(q *ConsumeQueue, offset int64, b []byte) (int, error) {
	at := offset * format.CQEntryBytes
	start := at - at%t.o.FileBytes
	b = b[:min(int64(len(b)), start+t.o.FileBytes-at)]
	x, err := t.openFile(q, start)
	if err != nil {
		return 0, err
	}
	_, err = x.f.ReadAt(b, at-start)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: %w", x.f.Name(), io.ErrUnexpectedEOF)
	}
	return len(b), errors.Join(err, t.files.release(x))
}

// openFile acquires an existing file.
func (t *queueTable) openFile(q *ConsumeQueue, start int64) (*queueFile, error) {
	k := queueFileKey{q, start}
	if x := t.files.acquire(k); x != nil {
		return x, nil
	}
	f, err := t.o.FS.OpenFile(t.filePath(q, start), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return t.files.add(k, f)
}

// createFile makes the next file of a queue at its exact size, without blocks. The first file of
// a queue that does not begin at the start of the file is filled up to there with fillers.
func (t *queueTable) createFile(q *ConsumeQueue, start, base int64, empty bool) (f vfs.File, err error) {
	name := t.filePath(q, start)
	f, err = t.o.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err = t.o.FS.MkdirAll(t.queueDir(q), 0o755); err == nil {
			f, err = t.o.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		}
	}
	if err != nil {
		return nil, spaceErr(t.o.FS, name, t.o.FileBytes, err)
	}
	if err = f.Truncate(t.o.FileBytes); err == nil && empty {
		err = writeFillers(f, base*format.CQEntryBytes-start)
	}
	if err != nil {
		return nil, errors.Join(spaceErr(t.o.FS, name, t.o.FileBytes, err), f.Close())
	}
	return f, nil
}

// writeFillers writes n bytes of filler entries at the start of f.
func writeFillers(f vfs.File, n int64) error {
	if n == 0 {
		return nil
	}
	unit := format.AppendCQEntry(nil, format.CQFiller)
	b := bytes.Repeat(unit, int(min(n, 64<<10)/format.CQEntryBytes))
	for at := int64(0); at < n; {
		b := b[:min(int64(len(b)), n-at)]
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return nil
}

// writeOut moves the pending entries of q, those there at the call, into its files. cache says
// whether to keep the files open. Called with maint held.
func (t *queueTable) writeOut(q *ConsumeQueue, cache bool) error {
	if q.unsure {
		if err := t.cleanTail(q); err != nil {
			return err
		}
	}
	until := q.max()
	for {
		q.mu.Lock()
		base, first, limit := q.base, q.first, q.limit
		if base >= until {
			q.mu.Unlock()
			return nil
		}
		at := base * format.CQEntryBytes
		start := at - at%t.o.FileBytes
		room := min(int64(len(t.buf)), start+t.o.FileBytes-at, (until-base)*format.CQEntryBytes)
		b := t.buf[:q.pending.copyOut(&t.arena, base, until, t.buf[:room])]
		q.mu.Unlock()

		if err := t.writeEntries(q, b, start, at, first, limit, cache); err != nil {
			return err
		}

		q.mu.Lock()
		q.base += int64(len(b) / format.CQEntryBytes)
		q.kept = max(q.kept, q.base)
		if first == limit {
			q.first = start
		}
		q.limit = max(q.limit, start+t.o.FileBytes)
		q.moved = true
		q.dropPending()
		q.mu.Unlock()
	}
}

// writeEntries writes b at byte at of the queue, creating the file if need be.
func (t *queueTable) writeEntries(q *ConsumeQueue, b []byte, start, at, first, limit int64, cache bool) error {
	var (
		k   = queueFileKey{q, start}
		x   = t.files.acquire(k)
		f   vfs.File
		err error
	)
	switch {
	case x != nil:
		f = x.f
	case start >= limit || first == limit:
		if f, err = t.createFile(q, start, at/format.CQEntryBytes, first == limit); err != nil {
			return err
		}
		t.noteCreated(q, first == limit)
	default:
		if f, err = t.o.FS.OpenFile(t.filePath(q, start), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	if x == nil && cache {
		if x, err = t.files.add(k, f); err != nil {
			return err
		}
	}
	if _, err = f.WriteAt(b, at-start); err != nil {
		err = spaceErr(t.o.FS, f.Name(), int64(len(b)), err)
	} else {
		t.noteWritten(q, start)
	}
	if x != nil {
		return errors.Join(err, t.files.release(x))
	}
	return errors.Join(err, f.Close())
}

// cleanTail makes sure that the files of q hold nothing at or above base, which a crash or another
// broker left there, and that files are gone whose removal a power cut has undone. It shortens the last file and lengthens it again, which leaves zeros.
func (t *queueTable) cleanTail(q *ConsumeQueue) error {
	q.mu.Lock()
	base, first, limit := q.base, q.first, q.limit
	q.mu.Unlock()
	dir := t.queueDir(q)
	starts, err := t.listFiles(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, start := range starts {
		if start >= limit || first == limit || start < first && !t.fromScan {
			if err := t.removeFile(q, start); err != nil {
				return err
			}
		}
	}
	if last := limit - t.o.FileBytes; first < limit && base*format.CQEntryBytes < limit {
		x, err := t.openFile(q, last)
		if err != nil {
			return err
		}
		err = x.f.Truncate(max(0, base*format.CQEntryBytes-last))
		err = errors.Join(err, x.f.Truncate(t.o.FileBytes))
		if err == nil {
			t.noteWritten(q, last)
		}
		if err = errors.Join(err, t.files.release(x)); err != nil {
			return spaceErr(t.o.FS, dir, t.o.FileBytes, err)
		}
	}
	q.mu.Lock()
	q.unsure, q.moved = false, true
	q.mu.Unlock()
	return nil
}

// removeFile removes one file of a queue; one that is not there is fine.
func (t *queueTable) removeFile(q *ConsumeQueue, start int64) error {
	err := t.files.drop(queueFileKey{q, start})
	if rerr := t.o.FS.Remove(t.filePath(q, start)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	t.noteRemoved(q)
	return err
}

// listFiles returns the starts of the files in a queue's directory, sorted. Strangers are left alone.
func (t *queueTable) listFiles(dir string) ([]int64, error) {
	entries, err := t.o.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var starts []int64
	for _, e := range entries {
		start, err := format.ParseFileName(e.Name())
		if err != nil || e.IsDir() || start%t.o.FileBytes != 0 {
			t.o.Logger.Warn("not a consume queue file: left alone", "path", dir+"/"+e.Name())
			continue
		}
		starts = append(starts, start)
	}
	return starts, nil
}
