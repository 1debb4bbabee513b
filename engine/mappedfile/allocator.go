package mappedfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rmq/internal/vfs"
)

// Fill says what the allocator puts into a new file before it is used.
type Fill int

const (
	// FillNone reserves the blocks and writes nothing.
	FillNone Fill = iota
	// FillDirect writes zeros past the page cache. A sync of new bytes then never waits for a
	// journal commit, and the cache holds no large folios of the file.
	FillDirect
	// FillBuffered writes zeros through the page cache, one page a call, which leaves small
	// folios behind: the best state for stores into a mapping.
	FillBuffered
)

// SpaceError is a file that could not be made because the disk is full.
type SpaceError struct {
	Path       string
	Need, Have int64
	Err        error
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("no space for %s: need %d bytes, have %d: free space or move the store; writes resume by themselves", e.Path, e.Need, e.Have)
}
func (e *SpaceError) Unwrap() error { return e.Err }

// IsFull reports whether err says that a disk or a quota is exhausted.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

const (
	fillStep       = 1 << 20
	fillFloorBytes = 100 << 20 // bytes a second, the slowest pace beside appends
	retryFull      = time.Second
)

// AllocatorOptions tune an [Allocator].
type AllocatorOptions struct {
	Fill Fill
	// Appended counts all bytes ever appended; the pace of filling follows it. nil: always idle.
	Appended func() int64
	// OnError hears of trouble when it begins (err) and when it is over (nil).
	OnError func(err error)
	Logger  *slog.Logger
}

// Allocator keeps one file ready ahead of the one in use. It works on one goroutine, [Allocator.Run].
//
// A file is made in Options.Making under its final name, gets all its blocks, is filled, synced,
// and then renamed into the queue. When an append waits for it, filling stops and the file is
// used as it is. A full disk is reported and tried again every second.
type Allocator struct {
	q *MappedFileQueue
	o AllocatorOptions

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of the fields below
	want    int64         // the highest offset for which a file should exist
	urgent  int64         // an append waits for the file with this start; -1: none
	err     error

	hurry      atomic.Bool
	unprepared atomic.Int64
	filled     atomic.Int64
	direct     bool
}

// NewAllocator makes the allocator of q. Leftovers of an earlier process in the making directory
// are removed by [Allocator.Run].
func NewAllocator(q *MappedFileQueue, o AllocatorOptions) *Allocator {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Allocator{q: q, o: o, changed: make(chan struct{}), want: -1, urgent: -1, direct: true}
}

// Unprepared counts files that had to be used before they were filled.
func (a *Allocator) Unprepared() int64 { return a.unprepared.Load() }

// FilledBytes counts the zeros written; they are no log bytes.
func (a *Allocator) FilledBytes() int64 { return a.filled.Load() }

// Err is the present trouble, nil in good times.
func (a *Allocator) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *Allocator) change(f func()) {
	a.mu.Lock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
	a.mu.Unlock()
}

// Want asks for a file that holds off, without waiting.
func (a *Allocator) Want(off int64) {
	a.mu.Lock()
	old := a.want
	a.mu.Unlock()
	if off > old {
		a.change(func() { a.want = max(a.want, off) })
	}
}

// Restart forgets what was wanted of a run that has begun anew, and asks for a file that holds off.
func (a *Allocator) Restart(off int64) {
	a.change(func() { a.want, a.urgent = off, -1 })
}

// Await returns when a file holds off. An urgent wait takes a file as soon as it can be used;
// any other waits until it is filled. It returns the trouble that stands in the way, or the
// error of ctx.
func (a *Allocator) Await(ctx context.Context, off int64, urgent bool) error {
	for {
		a.mu.Lock()
		ready, err, changed := a.q.Next() > off, a.err, a.changed
		a.mu.Unlock()
		if ready {
			return nil
		}
		if err != nil && urgent {
			return err
		}
		if urgent {
			a.mu.Lock()
			already := a.urgent >= off
			a.mu.Unlock()
			if !already {
				a.hurry.Store(true)
				a.change(func() { a.urgent, a.want = max(a.urgent, off), max(a.want, off) })
				continue
			}
		} else {
			a.Want(off)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Run makes files until ctx ends.
func (a *Allocator) Run(ctx context.Context) error {
	if err := a.sweep(); err != nil {
		return err
	}
	for {
		a.mu.Lock()
		next := a.q.Next()
		work, changed := next <= a.want, a.changed
		a.mu.Unlock()
		if !work {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		a.mu.Lock()
		a.hurry.Store(a.urgent >= next)
		a.mu.Unlock()
		err := a.make(ctx, next)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the queue closes
		}
		a.report(err)
		if err == nil {
			continue
		}
		t := time.NewTimer(retryFull)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

func (a *Allocator) report(err error) {
	a.mu.Lock()
	was := a.err
	a.mu.Unlock()
	a.change(func() { a.err = err })
	if a.o.OnError != nil && (was == nil) != (err == nil) {
		a.o.OnError(err)
	}
}

// sweep removes what an earlier process left half made or half taken apart.
func (a *Allocator) sweep() error {
	entries, err := a.q.o.FS.ReadDir(a.q.o.Making)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := TakeApart(a.q.o.FS, path.Join(a.q.o.Making, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was retired just now, and its last reader was quicker
			return err
		}
	}
	return nil
}

func (a *Allocator) make(ctx context.Context, start int64) (err error) {
	q := a.q
	made, name := pathOf(q.o.Making, start), pathOf(q.o.Dir, start)
	if err := q.o.FS.MkdirAll(q.o.Making, 0o755); err != nil {
		return a.spaceErr(name, err)
	}
	f, err := q.o.FS.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return a.spaceErr(name, err)
	}
	placed := false
	defer func() {
		if !placed {
			err = a.spaceErr(name, errors.Join(err, f.Close(), q.o.FS.Remove(made)))
		}
	}()
	if err := f.Allocate(0, q.o.FileBytes); err != nil {
		return fileErr("allocate", made, err)
	}
	prepared := false
	switch a.o.Fill {
	case FillDirect:
		prepared, err = a.fillDirect(ctx, made, f)
	case FillBuffered:
		prepared, err = a.fill(ctx, f, make([]byte, 4096), f)
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fileErr("sync", made, err)
	}
	m := newFile(q.o.FS, f, name, start, q.o.FileBytes, q.o.Writer)
	m.prepared = prepared
	if placed, err = q.place(m, made); !placed {
		return err
	}
	if a.o.Fill != FillNone && !prepared {
		a.unprepared.Add(1)
	}
	return nil
}

func (a *Allocator) spaceErr(name string, err error) error {
	if !IsFull(err) {
		return err
	}
	u, _ := a.q.o.FS.Usage(path.Dir(name)) // the figure is only for the text
	return &SpaceError{Path: name, Need: a.q.o.FileBytes, Have: u.Avail, Err: err}
}

// fillDirect zeroes the file past the page cache, or through it where the file system has no
// such way.
func (a *Allocator) fillDirect(ctx context.Context, name string, f vfs.File) (bool, error) {
	if a.direct && a.q.o.FileBytes%fillStep == 0 {
		d, err := a.q.o.FS.OpenFile(name, os.O_RDWR|vfs.ODirect, 0)
		if err == nil {
			done, err := a.fill(ctx, d, vfs.AlignedBuffer(fillStep), nil)
			err = errors.Join(err, d.Close())
			if err == nil || !errors.Is(err, syscall.EINVAL) {
				return done, err
			}
		}
		a.direct = false
		a.o.Logger.Info("no direct I/O here: segments are prepared through the page cache", "dir", a.q.o.Making, "err", err)
	}
	return a.fill(ctx, f, make([]byte, 4096), f)
}

// fill writes zeros over the whole file, in steps the size of zeros. While nothing is appended it
// goes at full speed; beside appends it keeps to max(100 MiB/s, 1.2 x the append rate). It reports
// false when an append could not wait. writeback, if not nil, is pushed along.
func (a *Allocator) fill(ctx context.Context, f vfs.File, zeros []byte, writeback vfs.File) (bool, error) {
	const stride = 8 << 20
	size := a.q.o.FileBytes
	slice := pacedSlice{began: time.Now(), appended: a.appended()}
	for off := int64(0); off < size; {
		if a.hurry.Load() {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(int64(len(zeros)), size-off)
		if _, err := f.WriteAt(zeros[:n], off); err != nil {
			return false, fileErr("fill", f.Name(), err)
		}
		a.filled.Add(n)
		off += n
		if writeback != nil && off%stride == 0 {
			if err := writeback.StartWriteback(off-stride, stride); err != nil {
				return false, fileErr("fill", f.Name(), err)
			}
		}
		if wait := slice.after(n, a.appended()); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-a.signal():
				t.Stop()
			case <-ctx.Done():
				t.Stop()
				return false, ctx.Err()
			}
		}
	}
	return true, nil
}

// pacedSlice keeps the fill to its pace over slices of about 1 MiB.
type pacedSlice struct {
	began    time.Time
	appended int64
	done     int64
	waited   time.Duration // at the end of the slice before
}

// after adds n filled bytes and says how long to wait before the next.
func (s *pacedSlice) after(n, appended int64) time.Duration {
	if s.done += n; s.done < fillStep {
		return 0
	}
	now := time.Now()
	elapsed := max(now.Sub(s.began), time.Microsecond)
	grown := appended - s.appended
	var wait time.Duration
	if grown > 0 {
		pace := max(fillFloorBytes, 1.2*float64(grown)/elapsed.Seconds())
		due := time.Duration(float64(s.done) / pace * float64(time.Second))
		wait = max(due-(elapsed-s.waited), 0)
	}
	*s = pacedSlice{began: now, appended: appended, waited: wait}
	return wait
}

func (a *Allocator) signal() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (a *Allocator) appended() int64 {
	if a.o.Appended == nil {
		return 0
	}
	return a.o.Appended()
}
