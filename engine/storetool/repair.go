package storetool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// RepairOptions say where the result goes.
type RepairOptions struct {
	// To is the directory of the copy; it must not exist. "": Dir + "-repaired".
	To string
	// InPlace changes the store itself instead.
	InPlace bool
	// Salvage keeps good records behind damage by moving them up. Their positions, message ids and
	// queue offsets change. Without it the log ends at the first damage. Copies only.
	Salvage bool
	// Clock names what is kept aside. nil: time.Now.
	Clock func() time.Time
}

// Dropped are records of one queue that are not in the result.
type Dropped struct {
	Topic      string `json:"topic"`
	Queue      int32  `json:"queue"`
	Records    int64  `json:"records"`
	MinOffset  int64  `json:"minOffset"` // queue offsets
	MaxOffset  int64  `json:"maxOffset"`
	FirstPos   int64  `json:"firstPos"`
	LastPos    int64  `json:"lastPos"`
	FirstStore int64  `json:"firstStoreTimestamp"`
	LastStore  int64  `json:"lastStoreTimestamp"`
}

// RepairReport says what was done.
type RepairReport struct {
	Dir     string `json:"dir"`     // the repaired store
	InPlace bool   `json:"inPlace"` // it is the one that was given
	Min     int64  `json:"min"`
	End     int64  `json:"end"` // of the repaired log
	Records int64  `json:"records"`

	Cut       int64     `json:"cut"` // position at which the log was cut; -1: it was whole
	CutReason string    `json:"cutReason,omitempty"`
	Dropped   []Dropped `json:"dropped,omitempty"` // good records that could not stay
	Lost      int64     `json:"lostBytes"`         // bytes that were no records
	Moved     int64     `json:"moved"`             // good records that now stand elsewhere
	Kept      []string  `json:"kept,omitempty"`    // where that which was cut off, or moved aside, is
	LostEnds  []string  `json:"lostQueues,omitempty"`

	Queues       int   `json:"queues"`
	QueueEntries int64 `json:"queueEntries"`
	IndexEntries int64 `json:"indexEntries"`

	Verified *Report `json:"verified"` // of the result
}

// Errors of Repair.
var (
	// ErrInUse says that a broker has the store open.
	ErrInUse = errors.New("the store is in use")
	// ErrExists says that the directory for the copy is there already.
	ErrExists = errors.New("already exists")
)

// SpaceError says that a copy does not fit.
type SpaceError struct {
	Dir        string
	Need, Have int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: a copy needs %d bytes, %d are free: name a directory on another disk with --to", e.Dir, e.Need, e.Have)
}

// repairer is one run of Repair.
type repairer struct {
	s   *Store
	o   RepairOptions
	fs  vfs.FS
	rep *RepairReport
	// where the result is written
	root, logDir, queueDir, indexDir string

	end     int64 // of the good part of the log
	used    int64
	blanks  []int64 // positions of blanks that say a wrong length
	damage  []damage
	dropped map[queueKey]*Dropped
	offsets map[string]*offsetRule
	key     []byte
	ends    map[string]int64 // of the queues, as their files have it
}

// offsetRule is the next queue offset of a queue.
type offsetRule struct{ next int64 }

// Repair makes a sound store out of a damaged one: the log up to its first damage (or, with Salvage,
// all its good records), and queues, index and checkpoint made anew from it. What is cut off is kept
// in rmq/broken of the result; config and everything else that is not the store's is copied as it is.
// In the end the result is verified.
//
// Errors: [ErrNoStore], [ErrInUse], [ErrExists], a [*SpaceError], a [*SizeError], an
// [*engine.VersionError], or what the file system says; after any of them no copy is left behind. In place, an interrupted repair leaves a
// store that the next start, or the next repair, takes for one that was killed.
func Repair(ctx context.Context, o Options, ro RepairOptions) (*RepairReport, error) {
	if ro.Clock == nil {
		ro.Clock = time.Now
	}
	if ro.InPlace && (ro.Salvage || ro.To != "") {
		return nil, inputError("in place, nothing is salvaged and no directory is named: repair into a copy")
	}
	s, err := Open(o)
	if err != nil {
		return nil, err
	}
	if err := s.tooNew(); err != nil {
		return nil, err
	}
	r := &repairer{
		s: s, o: ro, fs: s.o.FS, dropped: map[queueKey]*Dropped{}, offsets: map[string]*offsetRule{},
		rep: &RepairReport{InPlace: ro.InPlace, Cut: -1},
	}
	locks, err := r.lock()
	defer func() {
		for _, l := range slices.Backward(locks) {
			_ = l.Close() // nothing depends on it
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	if ro.InPlace {
		err = r.inPlace(ctx)
	} else {
		err = r.copy(ctx)
	}
	if err != nil {
		return nil, err
	}
	after := s.o
	after.Dir, after.CommitLogDir, after.QueueDir, after.IndexDir = r.rep.Dir, r.logDir, r.queueDir, r.indexDir
	done, err := Open(after)
	if err != nil {
		return nil, err
	}
	r.rep.Verified, err = done.Verify(ctx, VerifyOptions{})
	return r.rep, err
}

// lock keeps brokers out. A copy needs no lock of a store that nobody ever opened, and one on a
// read-only disk cannot be taken.
func (r *repairer) lock() (held []io.Closer, err error) {
	names := []string{path.Join(r.s.o.Dir, "lock")}
	if r.o.InPlace {
		names = append(names, r.s.o.CommitLogDir)
	} else if _, err := r.fs.Stat(names[0]); err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	for _, name := range names {
		l, err := r.fs.Lock(name)
		var locked *vfs.LockedError
		switch {
		case errors.As(err, &locked):
			return held, fmt.Errorf("%s: %w by process %d: stop it first", r.s.o.Dir, ErrInUse, locked.PID)
		case err != nil && !r.o.InPlace && (errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "read-only")):
		case err != nil:
			return held, err
		default:
			held = append(held, l)
		}
	}
	return held, nil
}

// plan walks the log once and decides what stays.
func (r *repairer) plan(ctx context.Context) error {
	cut := func(pos int64, err error) {
		if r.rep.Cut < 0 {
			r.rep.Cut, r.rep.CutReason = pos, err.Error()
		}
	}
	t, err := r.s.walk(ctx, r.s.low(), visitor{
		record: func(pos int64, _ []byte, rec *message.Record) error {
			if err := r.next(rec); err != nil && !r.o.Salvage {
				cut(pos, err)
			}
			if r.rep.Cut >= 0 {
				r.drop(pos, rec)
			}
			return nil
		},
		blank: func(pos, size, left int64) error {
			if size != left && r.rep.Cut < 0 {
				r.blanks = append(r.blanks, pos)
			}
			return nil
		},
		damaged: func(d damage) error {
			r.damage = append(r.damage, d)
			if !r.o.Salvage {
				cut(d.from, d.err)
			}
			if !d.zeros {
				r.rep.Lost += d.to - d.from
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	r.rep.Lost += t.used - t.end
	r.end, r.used = t.end, t.used
	if r.rep.Cut >= 0 {
		r.end = r.rep.Cut
		if r.used, err = r.s.lastUsed(r.end); err != nil {
			return err
		}
	} else if t.used > t.end {
		r.rep.Cut, r.rep.CutReason = t.end, t.err.Error()
	}
	r.ends = map[string]int64{}
	for _, q := range r.s.queues {
		if len(q.files) == 0 {
			continue
		}
		n, err := r.s.queueView(q.topic, q.id).end(q.files[0].start / format.CQEntryBytes)
		if err != nil {
			return err
		}
		r.ends[fmt.Sprintf("%s/%d/", q.topic, q.id)] = n
	}
	for _, d := range r.dropped {
		r.rep.Dropped = append(r.rep.Dropped, *d)
	}
	slices.SortFunc(r.rep.Dropped, func(a, b Dropped) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Queue, b.Queue))
	})
	return nil
}

// next checks the queue offset of a record against its queue.
func (r *repairer) next(rec *message.Record) error {
	if !queued(rec) {
		return nil
	}
	q := r.rule(rec)
	if q.next < 0 && (rec.QueueOffset < 0 || rec.QueueOffset > maxQueueOffset) {
		return fmt.Errorf("queue offset of %s/%d is %d", rec.Topic, rec.QueueID, rec.QueueOffset)
	}
	if q.next < 0 {
		q.next = rec.QueueOffset
		if r.s.low() == 0 {
			q.next = 0
		}
	}
	if rec.QueueOffset != q.next {
		return fmt.Errorf("queue offset is %d where %s/%d goes on at %d", rec.QueueOffset, rec.Topic, rec.QueueID, q.next)
	}
	q.next++
	return nil
}

func (r *repairer) rule(rec *message.Record) *offsetRule {
	r.key = append(fmt.Appendf(r.key[:0], "%d/", rec.QueueID), rec.Topic...)
	q := r.offsets[string(r.key)]
	if q == nil {
		q = &offsetRule{-1}
		r.offsets[string(r.key)] = q
	}
	return q
}

func (r *repairer) drop(pos int64, rec *message.Record) {
	k := queueKey{string(rec.Topic), rec.QueueID}
	d := r.dropped[k]
	if d == nil {
		d = &Dropped{Topic: k.topic, Queue: k.id, MinOffset: rec.QueueOffset, MaxOffset: rec.QueueOffset, FirstPos: pos, FirstStore: rec.StoreTimestamp}
		r.dropped[k] = d
	}
	d.Records++
	d.MinOffset, d.MaxOffset = min(d.MinOffset, rec.QueueOffset), max(d.MaxOffset, rec.QueueOffset)
	d.LastPos, d.LastStore = pos, rec.StoreTimestamp
}

// withIndex reports whether the store had an index.
func (r *repairer) withIndex() bool {
	if len(r.s.indexes) > 0 || r.s.state != nil && r.s.state.IndexEnd >= 0 {
		return true
	}
	_, err := r.fs.Stat(r.s.o.IndexDir)
	return err == nil
}

// derive makes queues, index and checkpoint from the log of the result, and counts them.
func (r *repairer) derive(ctx context.Context) error {
	o := r.s.o
	o.Dir, o.CommitLogDir, o.QueueDir, o.IndexDir = r.root, r.logDir, r.queueDir, r.indexDir
	made, err := Open(o)
	if err != nil {
		return err
	}
	if r.withIndex() {
		if err := r.fs.MkdirAll(r.indexDir, 0o755); err != nil {
			return err
		}
	}
	if err := r.fs.MkdirAll(r.queueDir, 0o755); err != nil {
		return err
	}
	b := newBuilder(r.s, r.fs, r.queueDir, r.indexDir, r.withIndex())
	t, err := made.walk(ctx, made.low(), visitor{record: b.add})
	if err == nil {
		err = b.finish(path.Join(r.root, "checkpoint"))
	}
	if err != nil {
		return fmt.Errorf("rebuild queues and index: %w", err)
	}
	r.rep.Min, r.rep.End, r.rep.Records = made.low(), t.end, b.records
	r.rep.Queues, r.rep.QueueEntries = len(b.queues), b.entries
	if b.index != nil {
		r.rep.IndexEntries = b.index.entries
	}
	for _, q := range r.s.queues {
		key := fmt.Sprintf("%s/%d/", q.topic, q.id)
		if n := r.ends[key]; n > 0 && b.queues[key] == nil {
			r.rep.LostEnds = append(r.rep.LostEnds, fmt.Sprintf("%s/%d had offsets up to %d and has no record left: it begins again at 0", q.topic, q.id, n))
		}
	}
	return nil
}

// aside is a new name in rmq/broken of the result.
func (r *repairer) aside(what string) (string, error) {
	dir := path.Join(r.root, "rmq", "broken")
	if err := r.fs.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := path.Join(dir, fmt.Sprintf("%s-%d", what, r.o.Clock().UnixMilli()))
	for i := 1; ; i++ {
		if _, err := r.fs.Stat(name); errors.Is(err, fs.ErrNotExist) {
			r.rep.Kept = append(r.rep.Kept, name)
			return name, nil
		}
		name = fmt.Sprintf("%s.%d", strings.TrimSuffix(name, fmt.Sprintf(".%d", i-1)), i)
	}
}

// keep copies a range of the log aside, a file for each segment.
func (r *repairer) keep(ctx context.Context, from, to int64) error {
	for _, seg := range r.s.segments {
		a, b := max(from, seg.start), min(to, seg.start+seg.have)
		if a >= b {
			continue
		}
		used, err := r.s.usedIn(a, b)
		if err != nil {
			return err
		}
		if used == a {
			continue
		}
		name, err := r.aside("commitlog-" + format.FileName(a))
		if err != nil {
			return err
		}
		if err := r.copyRange(ctx, seg.path, a-seg.start, name, used-a, used-a); err != nil {
			return err
		}
	}
	return nil
}

// copyRange copies n bytes into a file of the given size; what is zeros stays a hole.
func (r *repairer) copyRange(ctx context.Context, from string, fromOff int64, to string, n, size int64) error {
	in, err := r.fs.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	out, err := r.fs.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = out.Truncate(size)
	buf := make([]byte, min(readAhead, max(n, 1)))
	for at := int64(0); at < n && err == nil; {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		data, derr := nextData(in, fromOff+at, fromOff+n)
		if derr != nil {
			err = derr
			break
		}
		if at = data - fromOff; at >= n {
			break
		}
		b := buf[:min(int64(len(buf)), n-at)]
		k, rerr := in.ReadAt(b, fromOff+at)
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			err = rerr
			break
		}
		if k == 0 {
			break
		}
		if !allZero(b[:k]) {
			_, err = out.WriteAt(b[:k], at)
		}
		at += int64(k)
	}
	return errors.Join(err, out.Close())
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
