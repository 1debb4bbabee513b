package vfs

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Op is a kind of operation, as rules and counters of [Faulty] name it.
type Op uint8

// The kinds. OpSync stands for Sync, SyncData and Mapping.Sync; OpOpen for every OpenFile, with
// OpCreate for those that would make a new file.
const (
	OpAny Op = iota // in a rule: every kind that changes something
	OpOpen
	OpCreate
	OpRead
	OpWrite
	OpSync
	OpSyncDir
	OpSyncFS
	OpRename
	OpRemove
	OpTruncate
	OpAllocate
	OpMkdir
	OpWriteback
	OpMap
	OpLock
	opKinds
)

var opNames = [opKinds]string{
	"any", "open", "create", "read", "write", "sync", "syncdir", "syncfs", "rename", "remove", "truncate",
	"allocate", "mkdir", "writeback", "map", "lock",
}

func (o Op) String() string {
	if o < opKinds {
		return opNames[o]
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// Changes says whether operations of the kind change what a power cut would leave.
func (o Op) Changes() bool {
	switch o {
	case OpCreate, OpWrite, OpSync, OpSyncDir, OpSyncFS, OpRename, OpRemove, OpTruncate, OpAllocate, OpMkdir, OpLock:
		return true
	default:
		return false
	}
}

// Call is one operation about to happen.
type Call struct {
	Op   Op
	Path string
	To   string // the new name of a rename
	Off  int64
	Len  int64
	N    int64 // its number among all calls that change something, from 1; 0 for other calls
}

func (c Call) String() string {
	if c.To != "" {
		return fmt.Sprintf("%d %s %s -> %s", c.N, c.Op, c.Path, c.To)
	}
	return fmt.Sprintf("%d %s %s [%d +%d]", c.N, c.Op, c.Path, c.Off, c.Len)
}

// Rule makes operations go wrong. A rule applies to the calls of its kind whose path matches.
type Rule struct {
	Op Op
	// Match is a pattern over the whole path in which * stands for any characters, / included.
	// Empty matches everything. A rename matches by either name.
	Match string
	// Nth is which matching call is hit, from 1; 0 means each one.
	Nth int
	// Onward hits every matching call from the Nth on.
	Onward bool
	// Err is what the call returns instead of being done. Nil leaves the call alone, for rules that
	// only stall.
	Err error
	// Short, for a write that fails, is how many bytes still go down.
	Short int
	// Stall, if set, holds the call until the gate is opened; after that Err, if any, follows.
	Stall *Gate
	// Delay holds the call for that long before anything else.
	Delay time.Duration
	// Kill ends the process as kill -9 does, before the call is done.
	Kill bool
}

// Gate holds calls back until it is opened.
type Gate struct {
	arrived, open chan struct{}
	once, first   sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), open: make(chan struct{})}
}

// Open lets every call through, now and later. It may be called again.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// Arrived is closed once a call stands before the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

func (g *Gate) pass() {
	g.first.Do(func() { close(g.arrived) })
	<-g.open
}

// Faulty is a file system that passes every call on to another one, except for those that its
// rules spoil. It also counts calls, and can show each one to a test before it happens.
//
// Files of a Faulty give no descriptor, so that nothing goes around it. Safe for concurrent use.
type Faulty struct {
	fs FS

	mu     sync.Mutex
	rules  []*activeRule
	counts [opKinds]int64
	serial int64
	before func(Call)
}

type activeRule struct {
	Rule
	seen, hits int
}

// NewFaulty wraps fs with the rules. The first rule that hits a call decides.
func NewFaulty(fs FS, rules ...Rule) *Faulty {
	f := &Faulty{fs: fs}
	for _, r := range rules {
		f.Add(r)
	}
	return f
}

// Add puts one more rule behind the present ones and returns a func that says how often it has hit.
func (f *Faulty) Add(r Rule) (hits func() int) {
	a := &activeRule{Rule: r}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, a)
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return a.hits
	}
}

// Clear drops all rules. Calls that stall go on stalling until their gate opens.
func (f *Faulty) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Before sets a func that sees every call before it happens, with no lock held, on the goroutine
// of the caller. Nil takes it away.
func (f *Faulty) Before(fn func(Call)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

// Count says how many calls of a kind there have been, spoiled ones included; for [OpAny], how many
// that change something.
func (f *Faulty) Count(op Op) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op == OpAny {
		return f.serial
	}
	return f.counts[op]
}

// check counts the call and says what a rule does to it: an error, with the bytes still to write.
func (f *Faulty) check(c Call) (short int, err error) {
	f.mu.Lock()
	f.counts[c.Op]++
	if c.Op.Changes() {
		f.serial++
		c.N = f.serial
	}
	before := f.before
	var hit *activeRule
	for _, r := range f.rules {
		if !r.applies(c) {
			continue
		}
		r.seen++
		if hit == nil && (r.Nth == 0 || r.seen == r.Nth || (r.Onward && r.seen > r.Nth)) {
			r.hits++
			hit = r
		}
	}
	f.mu.Unlock()
	if before != nil {
		before(c)
	}
	if hit == nil {
		return 0, nil
	}
	if hit.Delay > 0 {
		time.Sleep(hit.Delay)
	}
	if hit.Kill {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // of this process: it cannot be refused
		select {}
	}
	if hit.Stall != nil {
		hit.Stall.pass()
	}
	return hit.Short, hit.Err
}

func (r *Rule) applies(c Call) bool {
	switch {
	case r.Op == OpAny && !c.Op.Changes():
		return false
	case r.Op == OpOpen && c.Op == OpCreate:
		// creating is a way of opening
	case r.Op != OpAny && r.Op != c.Op:
		return false
	}
	return r.Match == "" || glob(r.Match, c.Path) || (c.To != "" && glob(r.Match, c.To))
}

// glob matches name against a pattern in which * stands for any run of characters.
func glob(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, last)
}

// on runs do unless a rule spoils the call.
func (f *Faulty) on(op Op, name string, do func() error) error {
	if _, err := f.check(Call{Op: op, Path: name}); err != nil {
		return pathErr(op.String(), name, err)
	}
	return do()
}

// OpenFile implements [FS].
func (f *Faulty) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	op := OpOpen
	if flag&os.O_CREATE != 0 {
		if _, err := f.fs.Stat(name); err != nil {
			op = OpCreate
		}
	}
	var file File
	err := f.on(op, name, func() (err error) {
		file, err = f.fs.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, f: f}, nil
}

// Stat implements [FS].
func (f *Faulty) Stat(name string) (os.FileInfo, error) { return f.fs.Stat(name) }

// ReadDir implements [FS].
func (f *Faulty) ReadDir(name string) ([]os.DirEntry, error) { return f.fs.ReadDir(name) }

// Chtimes implements [FS].
func (f *Faulty) Chtimes(name string, mtime time.Time) error { return f.fs.Chtimes(name, mtime) }

// Usage implements [FS].
func (f *Faulty) Usage(name string) (Usage, error) { return f.fs.Usage(name) }

// MkdirAll implements [FS].
func (f *Faulty) MkdirAll(name string, perm os.FileMode) error {
	return f.on(OpMkdir, name, func() error { return f.fs.MkdirAll(name, perm) })
}

// Remove implements [FS].
func (f *Faulty) Remove(name string) error {
	return f.on(OpRemove, name, func() error { return f.fs.Remove(name) })
}

// RemoveAll implements [FS].
func (f *Faulty) RemoveAll(name string) error {
	return f.on(OpRemove, name, func() error { return f.fs.RemoveAll(name) })
}

// Rename implements [FS].
func (f *Faulty) Rename(from, to string) error {
	if _, err := f.check(Call{Op: OpRename, Path: from, To: to}); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return f.fs.Rename(from, to)
}

// SyncDir implements [FS].
func (f *Faulty) SyncDir(name string) error {
	return f.on(OpSyncDir, name, func() error { return f.fs.SyncDir(name) })
}

// SyncFS implements [FS].
func (f *Faulty) SyncFS(name string) error {
	return f.on(OpSyncFS, name, func() error { return f.fs.SyncFS(name) })
}

// Lock implements [FS].
func (f *Faulty) Lock(name string) (io.Closer, error) {
	var c io.Closer
	err := f.on(OpLock, name, func() (err error) {
		c, err = f.fs.Lock(name)
		return err
	})
	return c, err
}

type faultyFile struct {
	File
	f *Faulty
}

func (x *faultyFile) Fd() (uintptr, bool) { return 0, false }

func (x *faultyFile) on(op Op, off, n int64, do func() error) error {
	if _, err := x.f.check(Call{Op: op, Path: x.Name(), Off: off, Len: n}); err != nil {
		return pathErr(op.String(), x.Name(), err)
	}
	return do()
}

func (x *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if _, err := x.f.check(Call{Op: OpRead, Path: x.Name(), Off: off, Len: int64(len(p))}); err != nil {
		return 0, pathErr("read", x.Name(), err)
	}
	return x.File.ReadAt(p, off)
}

func (x *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	short, err := x.f.check(Call{Op: OpWrite, Path: x.Name(), Off: off, Len: int64(len(p))})
	if err == nil {
		return x.File.WriteAt(p, off)
	}
	n, inner := x.File.WriteAt(p[:min(short, len(p))], off)
	if inner != nil {
		return n, inner
	}
	return n, pathErr("write", x.Name(), err)
}

func (x *faultyFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	short, err := x.f.check(Call{Op: OpWrite, Path: x.Name(), Off: off, Len: int64(total)})
	if err == nil {
		return x.File.WritevAt(bufs, off)
	}
	done := 0
	for _, b := range bufs {
		n, inner := x.File.WriteAt(b[:min(short-done, len(b))], off+int64(done))
		done += n
		if inner != nil {
			return done, inner
		}
	}
	return done, pathErr("write", x.Name(), err)
}

func (x *faultyFile) Truncate(size int64) error {
	return x.on(OpTruncate, size, 0, func() error { return x.File.Truncate(size) })
}

func (x *faultyFile) Allocate(off, n int64) error {
	return x.on(OpAllocate, off, n, func() error { return x.File.Allocate(off, n) })
}

func (x *faultyFile) Sync() error     { return x.on(OpSync, 0, 0, x.File.Sync) }
func (x *faultyFile) SyncData() error { return x.on(OpSync, 0, 0, x.File.SyncData) }

func (x *faultyFile) StartWriteback(off, n int64) error {
	return x.on(OpWriteback, off, n, func() error { return x.File.StartWriteback(off, n) })
}

func (x *faultyFile) Map(n int64, writable bool) (Mapping, error) {
	var m Mapping
	err := x.on(OpMap, 0, n, func() (err error) {
		m, err = x.File.Map(n, writable)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &faultyMapping{Mapping: m, x: x}, nil
}

type faultyMapping struct {
	Mapping
	x *faultyFile
}

func (m *faultyMapping) Sync(off, n int64) error {
	return m.x.on(OpSync, off, n, func() error { return m.Mapping.Sync(off, n) })
}
