package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"path"
	"slices"
	"sort"
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
//
// The dispatcher writes entries only; what syncs runs beside it, under io. Lock order: io, mu.
type indexService struct {
	o indexOptions

	io sync.Mutex // one checkpoint or change of the files at a time

	mu      sync.RWMutex // guards the files' memory
	files   []*indexFile
	durable int64 // log position of the newest record in the index on disk, -1 for none

	topic  []byte // of the newest keysOf
	prefix int32  // its hash
}

func newIndexService(o indexOptions) *indexService {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &indexService{o: o, durable: -1}
}

// load opens the files. After a crash of this engine the slots of unfinished files are made again
// from their entries; after a crash of another owner, files younger than the checkpoint are
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
	ours := !clean && !x.o.Foreign
	var names []string
	for _, e := range entries {
		name := path.Join(x.o.Dir, e.Name())
		if _, err := strconv.ParseInt(e.Name(), 10, 64); err != nil || e.IsDir() {
			x.o.Logger.Warn("not an index file: ignored", "path", name)
			continue
		}
		names = append(names, name)
	}
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := openIndexFile(x.o.FS, name, x.o.Slots, x.o.MaxEntries)
		if err == nil && ours && !f.full() {
			// Its slots are not on disk. The head of a full file is written behind its slots.
			if err = f.rebuildSlots(math.MaxInt64); err != nil {
				err = errors.Join(err, f.f.Close())
			}
		}
		if err != nil && (ours && isDamage(err) || !clean && i == len(names)-1 && isEmpty(err)) {
			// The making of this file was cut off. If it was more than that, the log position of
			// the newest entry tells, and the index is made again.
			x.o.Logger.Warn("index file was never finished: dropped", "path", name, "err", err)
			if err := x.drop(names[i:]); err != nil {
				return err
			}
			break
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
	}
	if ours {
		if err := x.dropEmpty(); err != nil {
			return err
		}
	}
	x.durable = x.newest()
	return nil
}

// isDamage reports whether err says that a file is not what it should be, and not that it could
// not be read.
func isDamage(err error) bool {
	var size *indexSizeError
	var bytes *CorruptionError
	return errors.As(err, &size) || errors.As(err, &bytes)
}

// isEmpty reports whether err says that a file has no bytes, as one has between being created and
// being sized.
func isEmpty(err error) bool {
	var size *indexSizeError
	return errors.As(err, &size) && size.Have == 0
}

// drop removes files that are not open, newest first.
func (x *indexService) drop(names []string) error {
	for _, name := range slices.Backward(names) {
		if err := x.o.FS.Remove(name); err != nil {
			return err
		}
	}
	return x.o.FS.SyncDir(x.o.Dir)
}

// dropEmpty removes files that were begun, but of which nothing was ever made durable: the one
// before may not be full on disk and takes the entries again.
func (x *indexService) dropEmpty() error {
	for n := len(x.files); n > 1 && x.files[n-1].head.Count <= 1; n-- {
		f := x.files[n-1]
		x.files = x.files[:n-1]
		if err := errors.Join(f.f.Close(), x.drop([]string{f.path})); err != nil {
			return err
		}
	}
	return nil
}

// count is how many files there are.
func (x *indexService) count() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.files)
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

// indexKeys are the keys of a record. Its bytes are those of the record.
type indexKeys struct {
	uniq, keys []byte
	prefix     int32 // Java's hash of the topic and a '#'
	hash       int32 // of the first key
}

// keysOf is what put wants to know of a record. A rolled-back transaction has no keys. Only the
// dispatcher calls it.
func (x *indexService) keysOf(r *message.Record) indexKeys {
	var k indexKeys
	if r.SysFlag.Transaction() == message.FlagRollback {
		return k
	}
	k.uniq, k.keys, _ = r.Properties.Scan()
	if len(k.uniq) == 0 && len(k.keys) == 0 {
		return k
	}
	if !bytes.Equal(x.topic, r.Topic) {
		x.topic = append(x.topic[:0], r.Topic...)
		x.prefix = format.IndexTopicHash(r.Topic)
	}
	k.prefix = x.prefix
	if len(k.uniq) > 0 {
		k.hash = format.IndexKeyHash(k.prefix, k.uniq)
	}
	return k
}

// touch loads the slots that items will need.
func (x *indexService) touch(items []dispatchItem) (sum int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.files) == 0 {
		return 0
	}
	slots := x.files[len(x.files)-1].slots
	if len(slots) == 0 {
		return 0
	}
	for i := range items {
		sum += int64(slots[uint(items[i].keys.hash)%uint(len(slots))])
	}
	return sum
}

// put indexes the unique key and the keys of a record. A record that the index knows already is
// skipped.
func (x *indexService) put(r *message.Record, k indexKeys) error {
	if len(k.uniq) == 0 && len(k.keys) == 0 {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	have, err := x.entriesOf(r.PhysicalOffset)
	if err != nil || have < 0 {
		return err
	}
	put := func(hash int32) error {
		if have > 0 {
			have--
			return nil
		}
		f, err := x.current()
		if err != nil {
			return err
		}
		return f.put(hash, r.PhysicalOffset, r.StoreTimestamp)
	}
	if len(k.uniq) > 0 {
		if err := put(k.hash); err != nil {
			return err
		}
	}
	for rest := k.keys; len(rest) > 0; {
		var key []byte
		key, rest, _ = bytes.Cut(rest, []byte{' '})
		if len(key) > 0 {
			if err := put(format.IndexKeyHash(k.prefix, key)); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasKeys reports whether a record is indexed.
func hasKeys(r *message.Record) bool {
	uniq, keys, _ := r.Properties.Scan()
	return (len(uniq) > 0 || len(bytes.Trim(keys, " ")) > 0) && r.SysFlag.Transaction() != message.FlagRollback
}

// begins are the log positions of the first records of the files.
func (x *indexService) begins() (all []int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, f := range x.files {
		if f.head.Count > 1 {
			all = append(all, f.head.BeginOffset)
		}
	}
	return all
}

// lastBefore is the log position of the newest indexed record before pos, -1 if there is none.
func (x *indexService) lastBefore(pos int64) (int64, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, f := range slices.Backward(x.files) {
		if f.head.Count <= 1 || f.head.BeginOffset >= pos {
			continue
		}
		if f.head.EndOffset < pos {
			return f.head.EndOffset, nil
		}
		var err error
		n := sort.Search(int(f.head.Count)-1, func(i int) bool {
			e, rerr := f.entry(int32(i) + 1)
			err = errors.Join(err, rerr)
			return e.Offset >= pos
		})
		if err != nil || n == 0 {
			return -1, err
		}
		e, err := f.entry(int32(n))
		return e.Offset, err
	}
	return -1, nil
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

// current is the file that takes the next entry. Called with mu held.
func (x *indexService) current() (*indexFile, error) {
	var after *format.IndexHeader
	if n := len(x.files); n > 0 {
		last := x.files[n-1]
		if !last.full() {
			return last, last.loadSlots()
		}
		// The slots stay in memory until the next checkpoint writes them.
		if err := last.writeEntries(); err != nil {
			return nil, err
		}
		after = &last.head
		if !last.named {
			// A later file must not be found without this one. With files of the usual size a
			// checkpoint has seen to it long ago.
			if err := x.o.FS.SyncDir(x.o.Dir); err != nil {
				return nil, err
			}
			last.named = true
		}
	}
	f, err := createIndexFile(x.o.FS, x.newName(), x.o.Slots, x.o.MaxEntries, after)
	if err != nil {
		return nil, spaceErr(x.o.FS, x.o.Dir, format.IndexFileBytes(x.o.Slots, x.o.MaxEntries), err)
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

// checkpoint makes everything put before the call durable, but for the slot table of the file in
// use. Files that have become full are finished. Puts and queries go on meanwhile.
func (x *indexService) checkpoint(context.Context) error {
	x.io.Lock()
	defer x.io.Unlock()
	return x.checkpointLocked()
}

func (x *indexService) checkpointLocked() error {
	x.mu.Lock()
	var (
		full    []*indexFile
		last    *indexFile
		head    format.IndexHeader
		unnamed []*indexFile
		end     = x.newest()
		err     error
	)
	for _, f := range x.files {
		if !f.named {
			unnamed = append(unnamed, f)
		}
		if f.full() && !f.finished() {
			full = append(full, f)
		} else if !f.full() {
			last, head = f, f.head
		}
		if werr := f.writeEntries(); werr != nil {
			err = errors.Join(err, spaceErr(x.o.FS, f.path, indexBufferBytes, werr))
		}
	}
	x.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range full {
		if err := f.finish(); err != nil {
			return spaceErr(x.o.FS, f.path, int64(x.o.Slots)*format.IndexSlotBytes, err)
		}
		x.mu.Lock()
		f.slots, f.changed, f.buf = nil, nil, nil
		x.mu.Unlock()
	}
	if last != nil {
		if err := last.sync(head); err != nil {
			return spaceErr(x.o.FS, last.path, indexBufferBytes, err)
		}
	}
	if len(unnamed) > 0 {
		if err := x.o.FS.SyncDir(x.o.Dir); err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range unnamed {
		f.named = true
	}
	x.durable = end
	return nil
}

// flushClassic leaves all files as a clean exit of Apache would. Nothing may be put meanwhile.
func (x *indexService) flushClassic(context.Context) error {
	x.io.Lock()
	defer x.io.Unlock()
	if err := x.checkpointLocked(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.files); n > 0 && x.files[n-1].slots != nil {
		return x.files[n-1].finish()
	}
	return nil
}

// durableEnd is the log position of the newest record of which the last checkpoint has made an
// entry durable, -1 if there is none.
func (x *indexService) durableEnd() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.durable
}

// safeIndexTime is the store time up to which files that nobody will write again hold everything.
// After a crash of ours the original keeps the files that end no later, so it lies before the end of
// every file whose slots are not on disk, as its head says there or will say after the next checkpoint:
// records of both kinds of files may have one store time. It is the end of a file that is kept: what
// stands behind that has to be indexed again.
func (x *indexService) safeIndexTime() int64 {
	x.io.Lock() // headWritten is of whoever writes
	defer x.io.Unlock()
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := 0
	for n < len(x.files) && (x.files[n].finished() || n < len(x.files)-1 && x.files[n].slots == nil) {
		n++
	}
	limit := int64(math.MaxInt64)
	for _, f := range x.files[n:] {
		head := f.headWritten
		if head.Count <= 1 {
			head = f.head
		}
		if head.Count > 1 {
			limit = min(limit, head.EndTime-1)
		}
	}
	t := int64(0)
	for _, f := range x.files[:n] {
		if f.head.EndTime <= limit {
			t = max(t, f.head.EndTime)
		}
	}
	return t
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
	x.io.Lock()
	defer x.io.Unlock()
	if x.endOffset() < pos {
		return nil
	}
	// What stays of a file must not be on disk without the files before it.
	if err := x.checkpointLocked(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	defer func() { x.durable = min(x.durable, x.newest()) }()
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
	x.io.Lock()
	defer x.io.Unlock()
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
	x.io.Lock()
	defer x.io.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, f := range x.files {
		errs = append(errs, f.f.Close())
	}
	x.files, x.durable = nil, -1
	return errors.Join(errs...)
}
