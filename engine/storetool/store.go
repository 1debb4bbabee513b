package storetool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/internal/vfs"
)

// Options name a store directory and what it was written with. What is left zero is taken from the
// manifest, or told from the files.
type Options struct {
	FS vfs.FS // nil: the real one

	Dir          string
	CommitLogDir string // "": Dir/commitlog
	QueueDir     string // "": Dir/consumequeue
	IndexDir     string // "": Dir/index

	SegmentBytes    int64 `prop:"mappedFileSizeCommitLog"`
	QueueFileBytes  int64 `prop:"mappedFileSizeConsumeQueue"`
	MaxHashSlots    int32 `prop:"maxHashSlotNum"`
	MaxIndexEntries int32 `prop:"maxIndexNum"`

	MessageDelay string         `prop:"messageDelayLevel"` // "": 1s 5s 10s … 2h
	Framing      engine.Framing // nil: by Formats
	// Formats are the framings of logs that are not plain, by the name in the manifest.
	Formats map[string]engine.Framing
}

const (
	defaultSegmentBytes   = 1 << 30
	defaultQueueFileBytes = 6_000_000
	defaultHashSlots      = 5_000_000
	defaultIndexEntries   = 20_000_000
	defaultDelays         = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
)

// Errors of opening.
var (
	// ErrNoStore says that a directory holds no store.
	ErrNoStore = errors.New("no store: name the root of one")
	// ErrInput marks errors about what was asked for, as opposed to what was found.
	ErrInput = errors.New("bad input")
)

// inputError is about what was asked for.
type inputError string

func (e inputError) Error() string   { return string(e) }
func (inputError) Is(err error) bool { return err == ErrInput } // it is the sentinel

// Store is a directory opened for looking. Not for concurrent use.
type Store struct {
	o      Options
	delays []int64
	layout []Finding // what is wrong with names and sizes

	segments []segment
	queues   []*queueFiles // sorted by topic and id
	indexes  []file        // sorted by name

	manifest    *Manifest
	manifestErr error
	state       *State
	stateErr    error
	checkpoint  []byte // nil: none
	page        format.CheckpointPage
	aborted     bool // the last owner did not close it
	oursLast    bool // we were the last owner
	journal     *journal
	journalErr  error
	holder      int // process that has it open, 0: none
}

// file is one file of a queue of files.
type file struct {
	path  string
	start int64
	size  int64
}

func (f file) name() string { return path.Base(f.path) }

// segment is a file of the log: have of its bytes are there.
type segment struct {
	file
	have int64
}

// queueFiles are the files of one consume queue.
type queueFiles struct {
	topic string
	id    int32
	dir   string
	files []file
}

// Open reads the layout of a store directory. It writes nothing. Errors: [ErrNoStore], a
// [*SizeError] when a size has to be given, or what the file system says.
func Open(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	o.CommitLogDir = cmp.Or(o.CommitLogDir, path.Join(o.Dir, "commitlog"))
	o.QueueDir = cmp.Or(o.QueueDir, path.Join(o.Dir, "consumequeue"))
	o.IndexDir = cmp.Or(o.IndexDir, path.Join(o.Dir, "index"))
	s := &Store{o: o}
	st, err := o.FS.Stat(o.Dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, ErrNoStore)
	case !st.IsDir():
		return nil, fmt.Errorf("%s is a file: %w", o.Dir, ErrNoStore)
	}
	if s.delays, err = parseDelays(cmp.Or(o.MessageDelay, defaultDelays)); err != nil {
		return nil, err
	}
	if st, err := o.FS.Stat(o.CommitLogDir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("%s has no directory %s: %w", o.Dir, path.Base(o.CommitLogDir), ErrNoStore)
	}
	s.holder = lockHolder(o.FS, path.Join(o.Dir, "lock"))
	if err := s.loadStamps(); err != nil {
		return nil, err
	}
	if s.o.Framing == nil {
		s.o.Framing = engine.Plain{}
		if s.manifest != nil && s.manifest.Format != "" {
			if s.o.Framing = s.o.Formats[s.manifest.Format]; s.o.Framing == nil {
				return nil, fmt.Errorf("%s holds a log of format %q, which is not known here: use a newer program", o.Dir, s.manifest.Format)
			}
		}
	}
	for _, load := range []func() error{s.loadSegments, s.loadQueues, s.loadIndexes, s.loadForeign} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	if s.oursLast {
		s.journal, s.journalErr = loadJournal(o.FS, path.Join(o.Dir, "rmq", "queues.journal"))
	}
	return s, nil
}

// Options are those that hold, with what was told from the files filled in.
func (s *Store) Options() Options { return s.o }

func (s *Store) complain(sev Severity, kind, name string, text string, args ...any) {
	s.layout = append(s.layout, Finding{Severity: sev, Kind: kind, Path: name, Offset: -1, Pos: -1, Text: fmt.Sprintf(text, args...)})
}

// readDir lists a directory by name; none is empty.
func (s *Store) readDir(dir string) ([]os.DirEntry, error) {
	entries, err := s.o.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// fileQueue lists the files of a queue of files, and complains about everything else.
func (s *Store) fileQueue(dir string) ([]file, error) {
	entries, err := s.readDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			s.complain(Note, KindFile, name, "a directory among the files of a queue: 4.9 does not start on it")
			continue
		}
		start, err := format.ParseFileName(e.Name())
		if err != nil {
			s.complain(Fault, KindFile, name, "a stranger: the name is no offset of twenty digits, and a broker does not start on it")
			continue
		}
		st, err := s.o.FS.Stat(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, start, st.Size()})
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.start, b.start) })
	return files, nil
}

// commonSize is the size that most files have, the larger of two that are as frequent; 0 without files.
func commonSize(counts map[int64]int) int64 {
	var best int64
	for size, n := range counts {
		if size > 0 && (n > counts[best] || n == counts[best] && size > best) {
			best = size
		}
	}
	return best
}

func (s *Store) loadSegments() error {
	files, err := s.fileQueue(s.o.CommitLogDir)
	if err != nil {
		return err
	}
	if s.o.SegmentBytes == 0 && s.manifest != nil {
		s.o.SegmentBytes = s.manifest.SegmentBytes
	}
	if s.o.SegmentBytes == 0 {
		counts := map[int64]int{}
		for _, f := range files {
			counts[f.size]++
		}
		s.o.SegmentBytes = cmp.Or(commonSize(counts), defaultSegmentBytes)
	}
	size := s.o.SegmentBytes
	for i, f := range files {
		switch {
		case f.size == 0 && i == len(files)-1:
			s.complain(Note, KindFile, f.path, "the last segment is empty: 5.x removes it at its next start")
		case f.size != size:
			s.complain(Fault, KindFile, f.path, "has %d bytes where segments have %d: a broker does not start on it", f.size, size)
		}
		if f.start%size != 0 {
			s.complain(Fault, KindFile, f.path, "begins at %d, which is no multiple of the segment size %d", f.start, size)
		}
		if i > 0 && f.start != files[i-1].start+size {
			s.complain(Fault, KindFile, f.path, "does not follow %s: segments from %d to %d are missing", files[i-1].name(), files[i-1].start+size, f.start)
		}
		if i > 0 && f.start < files[i-1].start+size {
			continue // overlaps: the earlier one counts
		}
		s.segments = append(s.segments, segment{f, min(f.size, size)})
	}
	return nil
}

func (s *Store) loadQueues() error {
	topics, err := s.readDir(s.o.QueueDir)
	if err != nil {
		return err
	}
	counts := map[int64]int{}
	for _, t := range topics {
		dir := path.Join(s.o.QueueDir, t.Name())
		if !t.IsDir() {
			s.complain(Fault, KindFile, dir, "a stranger: there are only directories of topics here")
			continue
		}
		ids, err := s.readDir(dir)
		if err != nil {
			return err
		}
		for _, e := range ids {
			name := path.Join(dir, e.Name())
			id, err := strconv.ParseInt(e.Name(), 10, 32)
			if err != nil || id < 0 || !e.IsDir() || strconv.FormatInt(id, 10) != e.Name() {
				s.complain(Fault, KindFile, name, "a stranger: there are only directories of queues here, and a broker does not start on it")
				continue
			}
			files, err := s.fileQueue(name)
			if err != nil {
				return err
			}
			for _, f := range files {
				counts[f.size]++
			}
			s.queues = append(s.queues, &queueFiles{t.Name(), int32(id), name, files})
		}
	}
	if s.o.QueueFileBytes == 0 && s.manifest != nil {
		s.o.QueueFileBytes = s.manifest.QueueFileBytes
	}
	if s.o.QueueFileBytes == 0 {
		s.o.QueueFileBytes = cmp.Or(commonSize(counts), defaultQueueFileBytes)
	}
	if r := s.o.QueueFileBytes % format.CQEntryBytes; r > 0 {
		s.o.QueueFileBytes += format.CQEntryBytes - r
	}
	size := s.o.QueueFileBytes
	for _, q := range s.queues {
		for i, f := range q.files {
			sev := Fault
			if f.size == 0 && i == len(q.files)-1 {
				sev = Note // made, not yet sized, when the broker was killed
			}
			if f.size != size {
				s.complain(sev, KindFile, f.path, "has %d bytes where queue files have %d: a broker does not start on it", f.size, size)
			}
			if f.start%size != 0 {
				s.complain(Fault, KindFile, f.path, "begins at %d, which is no multiple of the file size %d", f.start, size)
			}
			if i > 0 && f.start != q.files[i-1].start+size {
				s.complain(Fault, KindFile, f.path, "does not follow %s: files from %d to %d are missing", q.files[i-1].name(), q.files[i-1].start+size, f.start)
			}
		}
	}
	slices.SortFunc(s.queues, func(a, b *queueFiles) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id))
	})
	return nil
}

// loadForeign looks for parts that this tool does not check.
func (s *Store) loadForeign() error {
	entries, err := s.readDir(s.o.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(s.o.Dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "dledger-"):
			s.complain(Note, KindForeign, name, "a DLedger log is not checked")
		case e.Name() == "batchconsumequeue", e.Name() == "consumequeue_ext", e.Name() == "compaction":
			if used, err := s.readDir(name); err != nil || len(used) > 0 {
				s.complain(Note, KindForeign, name, "is not checked")
			}
		}
	}
	entries, err = s.readDir(s.o.QueueDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(s.o.QueueDir, e.Name())
		switch {
		case e.Name() == "CURRENT":
			s.complain(Note, KindForeign, name, "a RocksDB consume queue is not checked")
		case strings.HasPrefix(e.Name(), "%LMQ%"):
			s.complain(Note, KindForeign, name, "the light queue is checked only for its files")
		}
	}
	return nil
}

// end of the last segment.
func (s *Store) high() int64 {
	if n := len(s.segments); n > 0 {
		return s.segments[n-1].start + s.o.SegmentBytes
	}
	return 0
}

func (s *Store) low() int64 {
	if len(s.segments) > 0 {
		return s.segments[0].start
	}
	return 0
}

// segmentAt names the file that holds pos and the place of pos in it.
func (s *Store) segmentAt(pos int64) (name string, offset int64) {
	i, found := slices.BinarySearchFunc(s.segments, pos, func(x segment, pos int64) int { return cmp.Compare(x.start, pos) })
	if !found {
		i--
	}
	if i < 0 || pos > s.segments[i].start+s.o.SegmentBytes {
		return s.o.CommitLogDir, -1
	}
	return s.segments[i].path, pos - s.segments[i].start
}

// readFile reads a whole small file; nil without error when there is none.
func readFile(fsys vfs.FS, name string) ([]byte, error) {
	b, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// tagsCode is what a queue entry holds beside position and size.
func (s *Store) tagsCode(topic []byte, level int, tags []byte, storeTime int64) int64 {
	if string(topic) == scheduleTopic && level > 0 {
		return storeTime + s.delays[min(level, len(s.delays))-1]
	}
	if len(tags) > 0 {
		return tagHash(tags)
	}
	return 0
}

// parseDelays reads "1s 5s … 2h" into milliseconds.
func parseDelays(text string) ([]int64, error) {
	units := map[byte]int64{'s': 1000, 'm': 60_000, 'h': 3_600_000, 'd': 86_400_000}
	var levels []int64
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseInt(f[:len(f)-1], 10, 32)
		unit, ok := units[f[len(f)-1]]
		if err != nil || !ok || n <= 0 {
			return nil, inputError(fmt.Sprintf("delay level %q: use numbers with s, m, h or d", f))
		}
		levels = append(levels, n*unit)
	}
	if len(levels) == 0 {
		return nil, inputError("no delay levels: name at least one, such as 1s")
	}
	return levels, nil
}

// lockHolder is the process that holds the fcntl lock of a store, as the kernel lists it, without
// touching the file: closing any descriptor of it would give the lock away if it were ours.
func lockHolder(fsys vfs.FS, name string) int {
	st, err := fsys.Stat(name)
	if err != nil {
		return 0
	}
	ino, ok := inode(st)
	if !ok {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	// "1: POSIX  ADVISORY  WRITE 4711 08:01:1234 0 0"
	for line := range bytes.Lines(locks) {
		f := strings.Fields(string(line))
		if len(f) >= 6 && f[1] == "POSIX" && f[3] == "WRITE" && strings.HasSuffix(f[5], ino) {
			if pid, err := strconv.Atoi(f[4]); err == nil {
				return pid
			}
		}
	}
	return 0
}
