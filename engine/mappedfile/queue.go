package mappedfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// Options says where a queue of files lives and how its files are made and written.
type Options struct {
	FS        vfs.FS
	Dir       string     // where the files stand
	Making    string     // where files are made and taken apart; same file system as Dir
	FileBytes int64      // the size of each file
	Writer    WriterFunc // nil: [Pwrite]
	ReadOnly  bool
}

// SizeError is a file whose length is not the configured one.
type SizeError struct {
	Path       string
	Have, Want int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes where every file has %d: open the store with the file size it was written with, or restore the file", e.Path, e.Have, e.Want)
}

// StrangerError is an entry of the directory that is no file of the queue.
type StrangerError struct{ Path string }

func (e *StrangerError) Error() string {
	return e.Path + " does not belong in a file queue: move it away"
}

// GapError is a hole in the sequence of files.
type GapError struct {
	Dir        string
	Want, Next int64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("%s: file %s is missing before %s: restore it, or repair the store into a copy", e.Dir, format.FileName(e.Want), format.FileName(e.Next))
}

// MappedFileQueue is a run of files without gaps. Lookups are lock-free on a snapshot; changes
// of the run take a lock.
type MappedFileQueue struct {
	o     Options
	mu    sync.Mutex   // changes of files
	base  atomic.Int64 // where the first file of an empty queue begins
	files atomic.Pointer[[]*MappedFile]
}

// Open lists Dir and opens every file in it. An empty last file is removed, as the original does;
// any other length than FileBytes is a [*SizeError], a name that is no offset a [*StrangerError],
// a hole a [*GapError].
func Open(o Options) (*MappedFileQueue, error) {
	if o.Writer == nil {
		o.Writer = Pwrite
	}
	q := &MappedFileQueue{o: o}
	q.files.Store(&[]*MappedFile{})
	if !o.ReadOnly {
		if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, err
		}
	}
	entries, err := o.FS.ReadDir(o.Dir)
	if err != nil && (!o.ReadOnly || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	var starts []int64
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		start, err := format.ParseFileName(e.Name())
		if err != nil {
			return nil, &StrangerError{path.Join(o.Dir, e.Name())}
		}
		starts = append(starts, start)
	}
	slices.Sort(starts)
	var files []*MappedFile
	fail := func(err error) (*MappedFileQueue, error) {
		for _, m := range files {
			err = errors.Join(err, m.close())
		}
		return nil, err
	}
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	for i, start := range starts {
		name := pathOf(o.Dir, start)
		st, err := o.FS.Stat(name)
		if err != nil {
			return fail(err)
		}
		if st.Size() == 0 && i == len(starts)-1 && !o.ReadOnly {
			if err := o.FS.Remove(name); err != nil {
				return fail(err)
			}
			break
		}
		if st.Size() != o.FileBytes {
			return fail(&SizeError{name, st.Size(), o.FileBytes})
		}
		if i > 0 && starts[i-1]+o.FileBytes != start {
			return fail(&GapError{o.Dir, starts[i-1] + o.FileBytes, start})
		}
		f, err := o.FS.OpenFile(name, flag, 0)
		if err != nil {
			return fail(err)
		}
		files = append(files, newFile(o.FS, f, name, start, o.FileBytes, o.Writer))
	}
	q.files.Store(&files)
	return q, nil
}

// FileBytes is the size of every file.
func (q *MappedFileQueue) FileBytes() int64 { return q.o.FileBytes }

// Dir is where the files stand.
func (q *MappedFileQueue) Dir() string { return q.o.Dir }

// Files is a snapshot of the run, oldest first. The files in it may be retired at any time:
// [MappedFile.Acquire] tells.
func (q *MappedFileQueue) Files() []*MappedFile { return *q.files.Load() }

// Find is the file that holds the byte at off, or nil. It is not acquired.
func (q *MappedFileQueue) Find(off int64) *MappedFile {
	files := *q.files.Load()
	if len(files) == 0 || off < files[0].start {
		return nil
	}
	i := (off - files[0].start) / q.o.FileBytes
	if i >= int64(len(files)) {
		return nil
	}
	return files[i]
}

// Acquire is [MappedFileQueue.Find] with a reference taken; release it.
func (q *MappedFileQueue) Acquire(off int64) *MappedFile {
	if m := q.Find(off); m != nil && m.Acquire() {
		return m
	}
	return nil
}

// Min is the offset of the first byte, and whether there is one.
func (q *MappedFileQueue) Min() (int64, bool) {
	files := *q.files.Load()
	if len(files) == 0 {
		return 0, false
	}
	return files[0].start, true
}

// Next is where the file after the last one begins.
func (q *MappedFileQueue) Next() int64 {
	files := *q.files.Load()
	if len(files) == 0 {
		return q.base.Load()
	}
	return files[len(files)-1].End()
}

// place moves a finished file from where it was made into the run. It reports false when the run
// goes on elsewhere by now.
func (q *MappedFileQueue) place(m *MappedFile, made string) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.Next() != m.start {
		return false, nil
	}
	if err := q.o.FS.Rename(made, m.path); err != nil {
		return false, err
	}
	if err := q.o.FS.SyncDir(q.o.Dir); err != nil {
		return false, err
	}
	files := append(slices.Clone(*q.files.Load()), m)
	q.files.Store(&files)
	return true, nil
}

// Restart takes every file out of the run; the next one begins at base.
func (q *MappedFileQueue) Restart(base int64) error {
	q.base.Store(base)
	return q.RetireFrom(0)
}

// RetireFirst takes the oldest file out of the run. It leaves the directory at once and the disk,
// piece by piece, when its last reader has let go; done, if not nil, runs then with the outcome.
// The last file of the run is never retired.
func (q *MappedFileQueue) RetireFirst(done func(error)) (*MappedFile, error) {
	q.mu.Lock()
	old := *q.files.Load()
	if len(old) < 2 {
		q.mu.Unlock()
		return nil, errors.New("the last file of a queue stays")
	}
	m := old[0]
	files := slices.Clone(old[1:])
	q.files.Store(&files)
	q.mu.Unlock()
	return m, q.retire(m, done)
}

// RetireFrom takes every file that begins at or behind off out of the run, newest first.
func (q *MappedFileQueue) RetireFrom(off int64) error {
	q.mu.Lock()
	old := *q.files.Load()
	n := len(old)
	for n > 0 && old[n-1].start >= off {
		n--
	}
	files := slices.Clone(old[:n])
	q.files.Store(&files)
	q.mu.Unlock()
	for i := len(old) - 1; i >= n; i-- {
		if err := q.retire(old[i], nil); err != nil {
			return err
		}
	}
	return nil
}

func (q *MappedFileQueue) retire(m *MappedFile, done func(error)) error {
	aside := path.Join(q.o.Making, "retired-"+format.FileName(m.start))
	err := q.o.FS.MkdirAll(q.o.Making, 0o755)
	if err == nil {
		err = q.o.FS.Rename(m.path, aside)
	}
	if err == nil {
		err = q.o.FS.SyncDir(q.o.Dir)
	}
	if err != nil {
		m.Release()
		return fileErr("retire", m.path, err)
	}
	m.retired = func() {
		err := TakeApart(q.o.FS, aside)
		if done != nil {
			done(err)
		}
	}
	m.Release()
	return nil
}

// takeApartStep is how much of a file is given back to the file system at a time: a one-call
// unlink of a large file holds back every sync on a mount that discards.
const takeApartStep = 64 << 20

// TakeApart shortens the file in steps and removes it.
func TakeApart(fsys vfs.FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		for size := st.Size() - takeApartStep; size > 0 && err == nil; size -= takeApartStep {
			err = f.Truncate(size)
		}
	}
	return errors.Join(err, f.Close(), fsys.Remove(name))
}

// Close closes every file. Readers that still hold references keep theirs open until they let go.
func (q *MappedFileQueue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	for _, m := range *q.files.Load() {
		m.Release()
	}
	q.files.Store(&[]*MappedFile{})
	return errors.Join(errs...)
}
