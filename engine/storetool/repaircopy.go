package storetool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// own are the names in the root that a repair makes anew or leaves out.
var own = []string{"checkpoint", "abort", "lock", "rmq"}

// copy writes the result beside its place, and moves it there when it is whole.
func (r *repairer) copy(ctx context.Context) (err error) {
	to := r.o.To
	if to == "" {
		to = strings.TrimRight(r.s.o.Dir, "/") + "-repaired"
	}
	to = path.Clean(to)
	if _, err := r.fs.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %w: name another directory with --to", to, ErrExists)
	}
	if in := path.Clean(r.s.o.Dir) + "/"; strings.HasPrefix(to+"/", in) {
		return inputError(to + " lies inside the store: name a directory beside it with --to")
	}
	if err := r.room(path.Dir(to)); err != nil {
		return err
	}
	r.place(to + ".partial")
	if err := r.fs.RemoveAll(r.root); err != nil { // of a copy that was interrupted
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.fs.RemoveAll(r.root))
		}
	}()
	if err := r.fs.MkdirAll(r.logDir, 0o755); err != nil {
		return err
	}
	copyLog := r.copyLog
	if r.o.Salvage {
		copyLog = r.salvage
	}
	for _, step := range []func(context.Context) error{copyLog, r.copyRest, r.copyOwn, r.derive} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := r.fs.SyncFS(r.root); err != nil {
		return err
	}
	for i, name := range r.rep.Kept {
		r.rep.Kept[i] = to + strings.TrimPrefix(name, r.root)
	}
	if err := r.fs.Rename(r.root, to); err != nil {
		return err
	}
	r.place(to)
	r.rep.Dir = to
	return r.fs.SyncDir(path.Dir(to))
}

func (r *repairer) place(root string) {
	r.root, r.logDir, r.queueDir, r.indexDir = root, path.Join(root, "commitlog"), path.Join(root, "consumequeue"), path.Join(root, "index")
}

// room refuses a copy that does not fit.
func (r *repairer) room(dir string) error {
	u, err := r.fs.Usage(dir)
	if err != nil {
		return err
	}
	if need := r.used - r.s.low(); u.Avail < need {
		return &SpaceError{dir, need, u.Avail}
	}
	return nil
}

// copyLog copies the log up to where it is cut, and the rest aside.
func (r *repairer) copyLog(ctx context.Context) error {
	size := r.s.o.SegmentBytes
	for i, seg := range r.s.segments {
		if seg.start >= r.end && i > 0 {
			break
		}
		n := max(min(r.end, seg.start+seg.have)-seg.start, 0)
		if err := r.copyRange(ctx, seg.path, 0, path.Join(r.logDir, format.FileName(seg.start)), n, size); err != nil {
			return err
		}
	}
	for _, pos := range r.blanks {
		if err := r.putBlank(pos); err != nil {
			return err
		}
	}
	return r.keep(ctx, r.end, r.used)
}

// putBlank writes a blank that says the right length.
func (r *repairer) putBlank(pos int64) error {
	size := r.s.o.SegmentBytes
	var b [8]byte
	message.PutBlank(b[:], int32(size-pos%size))
	return writeInto(r.fs, path.Join(r.logDir, format.FileName(pos-pos%size)), size, pos%size, b[:])
}

// salvage writes all good records anew, one behind the other.
func (r *repairer) salvage(ctx context.Context) error {
	for _, d := range r.damage {
		if err := r.keep(ctx, d.from, d.to); err != nil {
			return err
		}
	}
	if err := r.keep(ctx, r.end, r.used); err != nil {
		return err
	}
	r.offsets = map[string]*offsetRule{}
	w := &logWriter{fs: r.fs, dir: r.logDir, size: r.s.o.SegmentBytes, pos: r.s.low()}
	buf := make([]byte, 0, readAhead)
	_, err := r.s.walk(ctx, r.s.low(), visitor{record: func(pos int64, raw []byte, rec *message.Record) error {
		buf = append(buf[:0], raw...)
		offset := rec.QueueOffset
		if queued(rec) {
			q := r.rule(rec)
			if q.next < 0 {
				if q.next = offset; r.s.low() == 0 || offset < 0 || offset > maxQueueOffset {
					q.next = 0
				}
			}
			offset = q.next
			q.next++
		}
		at, err := w.place(int64(len(buf)))
		if err != nil {
			return err
		}
		if at != pos || offset != rec.QueueOffset {
			r.rep.Moved++
			message.StampRecord(buf, offset, at, rec.StoreTimestamp)
		}
		return w.write(buf)
	}})
	if err != nil {
		return errors.Join(err, w.close())
	}
	return w.close()
}

// logWriter writes records into segments.
type logWriter struct {
	fs   vfs.FS
	dir  string
	size int64
	pos  int64
	f    vfs.File
	buf  []byte // waits for the segment, up to pos
}

// place is where a record of n bytes goes: here, or at the start of the next segment.
func (w *logWriter) place(n int64) (int64, error) {
	if w.f != nil && n+8 > w.size-w.pos%w.size {
		left := w.size - w.pos%w.size
		var b [8]byte
		message.PutBlank(b[:], int32(left))
		if err := w.write(b[:]); err != nil {
			return 0, err
		}
		if err := w.close(); err != nil {
			return 0, err
		}
		w.pos += left - 8
	}
	if n+8 > w.size {
		return 0, fmt.Errorf("a record of %d bytes does not fit a segment of %d", n, w.size)
	}
	if w.f == nil {
		f, err := w.fs.OpenFile(path.Join(w.dir, format.FileName(w.pos-w.pos%w.size)), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return 0, err
		}
		if err := f.Truncate(w.size); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		w.f = f
	}
	return w.pos, nil
}

func (w *logWriter) write(b []byte) error {
	w.buf = append(w.buf, b...)
	w.pos += int64(len(b))
	if len(w.buf) >= readAhead {
		return w.flush()
	}
	return nil
}

func (w *logWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	start := w.pos - int64(len(w.buf))
	_, err := w.f.WriteAt(w.buf, start%w.size)
	w.buf = w.buf[:0]
	return err
}

func (w *logWriter) close() error {
	if w.f == nil {
		return nil
	}
	err := errors.Join(w.flush(), w.f.Close())
	w.f = nil
	return err
}

// copyRest copies what is not the store's: config, timer files and the like.
func (r *repairer) copyRest(ctx context.Context) error {
	entries, err := r.s.readDir(r.s.o.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(r.s.o.Dir, e.Name())
		if slices.Contains(own, e.Name()) || name == path.Clean(r.s.o.CommitLogDir) || name == path.Clean(r.s.o.QueueDir) || name == path.Clean(r.s.o.IndexDir) {
			continue
		}
		if err := r.copyTree(ctx, name, path.Join(r.root, e.Name())); err != nil {
			return err
		}
	}
	return r.strangers(func(name, to string) error { return r.copyTree(ctx, name, to) })
}

// strangers takes files that must not be among segments aside.
func (r *repairer) strangers(take func(name, to string) error) error {
	entries, err := r.s.readDir(r.s.o.CommitLogDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := format.ParseFileName(e.Name()); err == nil && !e.IsDir() {
			continue
		}
		to, err := r.aside("stranger-" + e.Name())
		if err != nil {
			return err
		}
		if err := take(path.Join(r.s.o.CommitLogDir, e.Name()), to); err != nil {
			return err
		}
	}
	return nil
}

func (r *repairer) copyTree(ctx context.Context, from, to string) error {
	st, err := r.fs.Stat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		if !st.Mode().IsRegular() {
			return nil
		}
		return r.copyRange(ctx, from, 0, to, st.Size(), st.Size())
	}
	if err := r.fs.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := r.s.readDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.copyTree(ctx, path.Join(from, e.Name()), path.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyOwn copies the manifest, if it is sound, and what earlier repairs and recoveries kept aside.
// State and journal speak of the old files and are left out: the next start takes the files for
// themselves.
func (r *repairer) copyOwn(ctx context.Context) error {
	from := path.Join(r.s.o.Dir, "rmq")
	if _, err := r.fs.Stat(path.Join(from, "broken")); err == nil {
		if err := r.copyTree(ctx, path.Join(from, "broken"), path.Join(r.root, "rmq", "broken")); err != nil {
			return err
		}
	}
	if r.s.manifest == nil {
		return nil
	}
	if err := r.fs.MkdirAll(path.Join(r.root, "rmq"), 0o755); err != nil {
		return err
	}
	return r.copyTree(ctx, path.Join(from, "manifest"), path.Join(r.root, "rmq", "manifest"))
}

// inPlace changes the store itself. From the first change to the last, it looks like one that
// somebody else was killed in: there is abort, a checkpoint of zeros, and no state.
func (r *repairer) inPlace(ctx context.Context) error {
	o := r.s.o
	r.root, r.logDir, r.queueDir, r.indexDir = o.Dir, o.CommitLogDir, o.QueueDir, o.IndexDir
	r.rep.Dir = o.Dir
	withIndex := r.withIndex()
	abort := path.Join(r.root, "abort")
	if err := writeInto(r.fs, abort, 0, 0, nil); err != nil {
		return err
	}
	if err := writeInto(r.fs, path.Join(r.root, "checkpoint"), format.CheckpointBytes, 0, make([]byte, format.CheckpointBytes)); err != nil {
		return err
	}
	if err := r.fs.SyncFS(r.root); err != nil {
		return err
	}
	for _, name := range []string{"rmq/state", "rmq/queues.journal"} {
		if err := r.moveAside(path.Join(r.root, name), path.Base(name)); err != nil {
			return err
		}
	}
	if r.s.manifestErr != nil {
		if err := r.moveAside(path.Join(r.root, "rmq", "manifest"), "manifest"); err != nil {
			return err
		}
	}
	if err := r.strangers(r.fs.Rename); err != nil {
		return err
	}
	if err := r.cutInPlace(ctx); err != nil {
		return err
	}
	if err := r.moveAside(r.queueDir, "consumequeue"); err != nil {
		return err
	}
	if withIndex {
		if err := r.moveAside(r.indexDir, "index"); err != nil {
			return err
		}
		if err := r.fs.MkdirAll(r.indexDir, 0o755); err != nil {
			return err
		}
	}
	if err := r.derive(ctx); err != nil {
		return err
	}
	if err := r.fs.SyncFS(r.root); err != nil {
		return err
	}
	if err := r.fs.Remove(abort); err != nil {
		return err
	}
	return r.fs.SyncDir(r.root)
}

// moveAside renames what is there into rmq/broken.
func (r *repairer) moveAside(name, as string) error {
	if _, err := r.fs.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to, err := r.aside(as)
	if err != nil {
		return err
	}
	return r.fs.Rename(name, to)
}

// cutInPlace takes everything behind the cut out of the log. Whole segments are moved; of the one that is
// cut, the rest is copied aside and overwritten with zeros.
func (r *repairer) cutInPlace(ctx context.Context) error {
	size := r.s.o.SegmentBytes
	for i, seg := range r.s.segments {
		if seg.start >= r.end && i > 0 {
			used, err := r.s.usedIn(seg.start, seg.start+seg.have)
			if err != nil {
				return err
			}
			if used == seg.start && seg.size <= size {
				err = r.fs.Remove(seg.path) // zeros, made ahead
			} else {
				err = r.moveAside(seg.path, "commitlog-"+seg.name())
			}
			if err != nil {
				return err
			}
			continue
		}
		if seg.size > size {
			to, err := r.aside("commitlog-" + format.FileName(seg.start+size))
			if err == nil {
				err = r.copyRange(ctx, seg.path, size, to, seg.size-size, seg.size-size)
			}
			if err != nil {
				return err
			}
		}
		if err := r.keep(ctx, max(r.end, seg.start), seg.start+size); err != nil {
			return err
		}
		if err := r.zero(seg, max(r.end, seg.start)); err != nil {
			return err
		}
	}
	for _, pos := range r.blanks {
		if err := r.putBlank(pos); err != nil {
			return err
		}
	}
	return nil
}

// zero gives a segment its size, and zeros from pos on.
func (r *repairer) zero(seg segment, pos int64) error {
	f, err := r.fs.OpenFile(seg.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size := r.s.o.SegmentBytes
	if seg.size != size {
		err = f.Truncate(size)
	}
	zeros := make([]byte, readAhead)
	for at := pos - seg.start; at < size && err == nil; {
		var data int64
		if data, err = nextData(f, at, size); err != nil || data >= size {
			break
		}
		n := min(size-data, readAhead)
		_, err = f.WriteAt(zeros[:n], data)
		at = data + n
	}
	return errors.Join(err, f.Sync(), f.Close())
}
