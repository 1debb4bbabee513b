package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path"
	"strconv"
	"sync"
	"time"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

type indexOptions struct {
	FS                vfs.FS
	Dir               string // <root>/index
	Slots, MaxEntries int32
	Foreign           bool // somebody else used the directory last: the original's rules hold
	Clock             func() time.Time
	Logger            *slog.Logger
}

// indexService finds records by key: hash files named by the time they were made, oldest first
// (org.apache.rocketmq.store.index.IndexService). The dispatcher is the only writer; anybody queries.
type indexService struct {
	o indexOptions

	mu    sync.RWMutex
	files []*indexFile
}

func newIndexService(o indexOptions) *indexService { return &indexService{o: o} }

// load opens the files. After a crash of this engine the slots of the last file are made again
// from its entries; after a crash of another owner, files younger than the checkpoint are
// dropped, as the original does, and made again from the log. clean says that the last owner had
// closed; stamp is indexMsgTimestamp of the checkpoint.
func (x *indexService) load(ctx context.Context, clean bool, stamp int64) error {
	if err := x.o.FS.MkdirAll(x.o.Dir, 0o755); err != nil {
		return err
	}
	entries, err := x.o.FS.ReadDir(x.o.Dir)
	if err != nil {
		return err
	}
	for i, e := range entries {
		name := path.Join(x.o.Dir, e.Name())
		if _, err := strconv.ParseInt(e.Name(), 10, 64); err != nil || e.IsDir() {
			x.o.Logger.Warn("not an index file: ignored", "path", name)
			continue
		}
		f, err := openIndexFile(x.o.FS, name, x.o.Slots, x.o.MaxEntries)
		if err != nil && i == len(entries)-1 && !clean && !x.o.Foreign {
			// Its making was cut off: nothing in it was ever on disk.
			x.o.Logger.Warn("index file was never finished: dropped", "path", name, "err", err)
			if err := errors.Join(x.o.FS.Remove(name), x.o.FS.SyncDir(x.o.Dir)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if x.o.Foreign && !clean && f.head.EndTime > stamp {
			if err := errors.Join(f.f.Close(), x.o.FS.Remove(name)); err != nil {
				return err
			}
			continue
		}
		x.files = append(x.files, f)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if n := len(x.files); n > 0 && !clean && !x.o.Foreign {
		return x.files[n-1].rebuildSlots(1 << 62)
	}
	return nil
}

// endOffset is the log position of the newest indexed record, -1 if there is none.
func (x *indexService) endOffset() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.newest()
}

// newest is endOffset with mu held. A file without entries tells nothing.
func (x *indexService) newest() int64 {
	for i := len(x.files) - 1; i >= 0; i-- {
		if x.files[i].head.Count > 1 {
			return x.files[i].head.EndOffset
		}
	}
	return -1
}

// put indexes the unique key and the keys of a record. Rolled-back transactions have none, and a
// record that the index knows already is skipped.
func (x *indexService) put(r *message.Record) error {
	uniq, keys, _ := r.Properties.Scan()
	if len(uniq) == 0 && len(keys) == 0 || r.SysFlag.Transaction() == message.FlagRollback {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	have, err := x.entriesOf(r.PhysicalOffset)
	if err != nil || have < 0 {
		return err
	}
	put := func(key []byte) error {
		if have > 0 {
			have--
			return nil
		}
		return x.putKey(r, key)
	}
	if len(uniq) > 0 {
		if err := put(uniq); err != nil {
			return err
		}
	}
	for len(keys) > 0 {
		key, rest, _ := bytes.Cut(keys, []byte{' '})
		if len(key) > 0 {
			if err := put(key); err != nil {
				return err
			}
		}
		keys = rest
	}
	return nil
}

// entriesOf is how many entries the record at pos has, -1 if younger records have some, too. The
// newest record of a crashed store may have a part of its own: one file was full in the middle of
// its keys, and the next one is gone. Called with mu held.
func (x *indexService) entriesOf(pos int64) (int, error) {
	have := 0
	for i := len(x.files) - 1; i >= 0; i-- {
		f := x.files[i]
		if f.head.Count <= 1 {
			continue
		}
		if f.head.EndOffset != pos {
			if f.head.EndOffset > pos && have == 0 {
				return -1, nil
			}
			break
		}
		for n := f.head.Count - 1; n >= 1; n-- {
			e, err := f.entry(n)
			if err != nil {
				return 0, err
			}
			if e.Offset != pos {
				return have, nil
			}
			have++
		}
	}
	return have, nil
}

func (x *indexService) putKey(r *message.Record, key []byte) error {
	f, err := x.current()
	if err != nil {
		return err
	}
	return f.put(format.IndexHash(r.Topic, key), r.PhysicalOffset, r.StoreTimestamp)
}

// current is the file that takes the next entry. Called with mu held.
func (x *indexService) current() (*indexFile, error) {
	var after *format.IndexHeader
	if n := len(x.files); n > 0 {
		last := x.files[n-1]
		if !last.full() {
			return last, last.loadSlots()
		}
		if err := last.finish(); err != nil {
			return nil, err
		}
		last.slots, last.buf = nil, nil
		after = &last.head
	}
	f, err := createIndexFile(x.o.FS, x.newName(), x.o.Slots, x.o.MaxEntries, after)
	if err != nil {
		return nil, err
	}
	if err := x.o.FS.SyncDir(x.o.Dir); err != nil {
		return nil, errors.Join(err, f.f.Close())
	}
	x.files = append(x.files, f)
	return f, nil
}

// newName is the local time in 17 digits, later than every name there is.
func (x *indexService) newName() string {
	t := x.o.Clock()
	for {
		name := path.Join(x.o.Dir, t.Format("20060102150405")+t.Format(".000")[1:])
		if n := len(x.files); n == 0 || x.files[n-1].path < name {
			return name
		}
		last, err := time.ParseInLocation("20060102150405.000", path.Base(x.files[len(x.files)-1].path)[:14]+"."+path.Base(x.files[len(x.files)-1].path)[14:], time.Local)
		if err != nil || !t.Before(last) {
			last = t
		}
		t = last.Add(time.Millisecond)
	}
}

// query finds the positions of records of a topic with a key, stored from begin to end, newest
// files first.
func (x *indexService) query(topic, key string, limit int, begin, end int64) ([]int64, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	hash := format.IndexHash([]byte(topic), []byte(key))
	var found []int64
	for i := len(x.files) - 1; i >= 0 && len(found) < limit; i-- {
		f := x.files[i]
		var err error
		if f.overlaps(begin, end) {
			if found, err = f.query(found, hash, limit, begin, end); err != nil {
				return nil, err
			}
		}
		if f.head.BeginTime < begin {
			break
		}
	}
	return found, nil
}

// checkpoint makes everything put before the call durable, but for the slot table.
func (x *indexService) checkpoint(context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.files); n > 0 {
		return x.files[n-1].checkpoint()
	}
	return nil
}

// flushClassic makes the newest file whole on disk.
func (x *indexService) flushClassic(context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.files); n > 0 {
		return x.files[n-1].finish()
	}
	return nil
}

// safeIndexTime is the store time up to which files that nobody will write again hold everything.
func (x *indexService) safeIndexTime() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n := len(x.files); n > 1 {
		return x.files[n-2].head.EndTime
	}
	return 0
}

// endTime is the store time of the newest entry.
func (x *indexService) endTime() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n := len(x.files); n > 0 {
		return x.files[n-1].head.EndTime
	}
	return 0
}

// truncate drops the entries of records at or behind pos.
func (x *indexService) truncate(_ context.Context, pos int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.newest() >= pos { // an empty file behind the newest entry goes as well
		n := len(x.files)
		f := x.files[n-1]
		if err := f.writeEntries(); err != nil {
			return err
		}
		if err := f.rebuildSlots(pos); err != nil {
			return err
		}
		if f.head.Count > 1 {
			return f.finish()
		}
		if n == 1 {
			f.head = format.IndexHeader{Count: 1}
			return f.finish()
		}
		// Gone for good before anything new is indexed: back again, it would know positions that
		// other records have by then.
		x.files = x.files[:n-1]
		if err := errors.Join(f.f.Close(), x.o.FS.Remove(f.path), x.o.FS.SyncDir(x.o.Dir)); err != nil {
			return err
		}
	}
	return nil
}

// deleteBefore removes the files all of whose records stand before pos, but the newest.
func (x *indexService) deleteBefore(pos int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.files) > 1 && x.files[0].head.EndOffset < pos {
		f := x.files[0]
		x.files = x.files[1:]
		if err := errors.Join(f.f.Close(), x.o.FS.Remove(f.path)); err != nil {
			return err
		}
	}
	return nil
}

// reset removes all files: the index is made again from the log.
func (x *indexService) reset(context.Context) error {
	if err := x.close(); err != nil {
		return err
	}
	entries, err := x.o.FS.ReadDir(x.o.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := strconv.ParseInt(e.Name(), 10, 64); err == nil && !e.IsDir() {
			if err := x.o.FS.Remove(path.Join(x.o.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return x.o.FS.SyncDir(x.o.Dir)
}

func (x *indexService) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, f := range x.files {
		errs = append(errs, f.f.Close())
	}
	x.files = nil
	return errors.Join(errs...)
}
