package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"sync"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// entry says where the frame of one index stands.
type entry struct {
	pos  int64
	term uint64
	len  int32
	kind FrameType
}

func (e entry) end() int64 { return e.pos + int64(e.len) }

const (
	sideMagic     = 0x524D5149 // "RMQI"
	sideVersion   = 1
	sideHead      = 32
	sideEntry     = 16
	sideBuffer    = 4096      // entries that wait for their file
	sideMemory    = 128 << 10 // entries kept in memory at most; half of them at least, if there are so many
	maxFrameBytes = 1<<28 - 1 // what an entry can tell
)

// errSidecar says that an entry does not read back; frames themselves tell what it was.
var errSidecar = errors.New("sidecar entry is damaged")

// sidecar finds frames by their index: the newest entries in memory, older ones in a file for each segment
// of the log, rmq/raft/index/<start of the segment>. Files are never synced, but where they are cut: what
// they lack or have wrong is found again by hopping over the headers of the frames.
//
// A file is a header and an entry of 16 bytes for each frame, the first for the index in the header:
//
//	0      4         8        16      24         28    32
//	+------+---------+--------+-------+----------+-----+
//	| RMQI | version | start  | index | segment  | crc |
//	+------+---------+--------+-------+----------+-----+
//
//	0      4             8      14      16
//	+------+-------------+------+-------+
//	| pos  | type, bytes | term | check |
//	+------+-------------+------+-------+
//
// pos counts from the start of the segment; the type takes the upper four bits of its word; check is the
// lower half of the CRC-32C of the rest and the index. One writer; lookups are safe beside it.
type sidecar struct {
	fs  vfs.FS
	dir string
	seg int64 // bytes of a segment

	mu   sync.RWMutex
	segs []*sideSegment
	last uint64  // newest index; that before the first while there is none
	mem  []entry // the newest ones
	base uint64  // index of mem[0]
}

// sideSegment is the part of the index for one segment of the log.
type sideSegment struct {
	start int64
	base  uint64 // its first index
	n     int    // entries
	filed int    // of them in the file
	f     vfs.File
}

func newSidecar(fsys vfs.FS, dir string, segmentBytes int64) *sidecar {
	return &sidecar{fs: fsys, dir: dir, seg: segmentBytes, base: 1}
}

func (s *sidecar) name(start int64) string { return path.Join(s.dir, format.FileName(start)) }

// restart forgets everything; the next entry is that behind last.
func (s *sidecar) restart(last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.dropFrom(0)
	s.last, s.base, s.mem = last, last+1, nil
	return err
}

// dropFrom closes and removes the files of s.segs[i:]. Called with mu held.
func (s *sidecar) dropFrom(i int) error {
	var errs []error
	for _, g := range s.segs[i:] {
		errs = append(errs, g.f.Close(), s.fs.Remove(s.name(g.start)))
	}
	s.segs = s.segs[:i]
	return errors.Join(errs...)
}

// bounds are the first and the last index; the first is behind the last if there is none.
func (s *sidecar) bounds() (first, last uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first(), s.last
}

func (s *sidecar) first() uint64 {
	if len(s.segs) == 0 {
		return s.last + 1
	}
	return s.segs[0].base
}

// add appends the entry of the next index.
func (s *sidecar) add(e entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := e.pos - e.pos%s.seg
	if k := len(s.segs); k == 0 || s.segs[k-1].start != start {
		if k > 0 {
			if err := s.file(); err != nil {
				return err
			}
		}
		g, err := s.create(start, s.last+1)
		if err != nil {
			return err
		}
		s.segs = append(s.segs, g)
	}
	s.mem = append(s.mem, e)
	s.last++
	s.segs[len(s.segs)-1].n++
	return nil
}

// settle writes entries that have waited long enough, and lets go of old ones in memory. It comes before
// something is appended, so that a full disk is met while nothing has happened.
func (s *sidecar) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := len(s.segs)
	if k == 0 {
		return nil
	}
	if g := s.segs[k-1]; g.n-g.filed >= sideBuffer {
		if err := s.file(); err != nil {
			return err
		}
	}
	if len(s.mem) >= sideMemory {
		g := s.segs[k-1]
		keep := min(len(s.mem)-sideMemory/2, len(s.mem)-(g.n-g.filed))
		s.mem = append(make([]entry, 0, sideMemory), s.mem[keep:]...)
		s.base += uint64(keep)
	}
	return nil
}

// file writes what the newest segment's file lacks. Called with mu held.
func (s *sidecar) file() error {
	if len(s.segs) == 0 {
		return nil
	}
	g := s.segs[len(s.segs)-1]
	if g.filed == g.n {
		return nil
	}
	b := make([]byte, 0, (g.n-g.filed)*sideEntry)
	for i := g.filed; i < g.n; i++ {
		index := g.base + uint64(i)
		b = appendEntry(b, g.start, index, s.mem[index-s.base])
	}
	if _, err := g.f.WriteAt(b, sideHead+int64(g.filed)*sideEntry); err != nil {
		return err
	}
	g.filed = g.n
	return nil
}

func (s *sidecar) create(start int64, base uint64) (*sideSegment, error) {
	f, err := s.fs.OpenFile(s.name(start), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(s.head(start, base), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &sideSegment{start: start, base: base, f: f}, nil
}

func (s *sidecar) head(start int64, base uint64) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, sideMagic)
	b = be.AppendUint32(b, sideVersion)
	b = be.AppendUint64(b, uint64(start))
	b = be.AppendUint64(b, base)
	b = be.AppendUint32(b, uint32(s.seg))
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func appendEntry(b []byte, start int64, index uint64, e entry) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, uint32(e.pos-start))
	b = be.AppendUint32(b, uint32(e.kind)<<28|uint32(e.len))
	b = be.AppendUint16(b, uint16(e.term>>32))
	b = be.AppendUint32(b, uint32(e.term))
	return be.AppendUint16(b, entryCheck(b[len(b)-14:], index))
}

func entryCheck(b []byte, index uint64) uint16 {
	var with [22]byte
	binary.BigEndian.PutUint64(with[copy(with[:], b):], index)
	return uint16(crc32.Checksum(with[:], castagnoli))
}

func parseEntry(b []byte, start int64, index uint64) (entry, bool) {
	be := binary.BigEndian
	word := be.Uint32(b[4:])
	e := entry{
		pos: start + int64(be.Uint32(b)), len: int32(word & maxFrameBytes), kind: FrameType(word >> 28),
		term: uint64(be.Uint16(b[8:]))<<32 | uint64(be.Uint32(b[10:])),
	}
	return e, be.Uint16(b[14:]) == entryCheck(b[:14], index) && e.len >= HeaderBytes && e.kind >= FrameData && e.kind <= FrameMeta
}

// at looks an index up; found is false if there is none. [errSidecar] says that its file is damaged.
func (s *sidecar) at(index uint64) (e entry, found bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.atLocked(index)
}

func (s *sidecar) atLocked(index uint64) (entry, bool, error) {
	if index > s.last || index < s.first() {
		return entry{}, false, nil
	}
	if index >= s.base {
		return s.mem[index-s.base], true, nil
	}
	g := s.segs[sort.Search(len(s.segs), func(i int) bool { return s.segs[i].base > index })-1]
	var b [sideEntry]byte
	if _, err := g.f.ReadAt(b[:], sideHead+int64(index-g.base)*sideEntry); err != nil && !errors.Is(err, io.EOF) {
		return entry{}, true, err
	}
	e, ok := parseEntry(b[:], g.start, index)
	if !ok {
		return e, true, fmt.Errorf("%s, index %d: %w", s.name(g.start), index, errSidecar)
	}
	return e, true, nil
}

// below is the last index whose frame ends at or below pos; that before the first if there is none.
func (s *sidecar) below(pos int64) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if k := len(s.mem); k > 0 && (s.mem[0].end() <= pos || s.base == s.first()) {
		return s.base + uint64(sort.Search(k, func(i int) bool { return s.mem[i].end() > pos })) - 1, nil
	}
	var bad error
	first := s.first()
	n := sort.Search(int(s.last+1-first), func(i int) bool {
		e, _, err := s.atLocked(first + uint64(i))
		bad = errors.Join(bad, err)
		return e.end() > pos
	})
	return first + uint64(n) - 1, bad
}

// cut forgets every entry from index on, for good: what a file had there cannot come back after a crash.
func (s *sidecar) cut(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index > s.last {
		return nil
	}
	i := sort.Search(len(s.segs), func(i int) bool { return s.segs[i].base >= index })
	dropped := i < len(s.segs)
	if err := s.dropFrom(i); err != nil {
		return err
	}
	if i > 0 {
		g := s.segs[i-1]
		g.n = min(g.n, int(index-g.base))
		if g.filed > g.n {
			g.filed = g.n
			if err := g.f.Truncate(sideHead + int64(g.filed)*sideEntry); err != nil {
				return err
			}
		}
		if err := g.f.Sync(); err != nil {
			return err
		}
	}
	s.last = index - 1
	if index >= s.base {
		s.mem = s.mem[:index-s.base]
	} else {
		s.mem, s.base = nil, index
	}
	if dropped {
		return s.fs.SyncDir(s.dir)
	}
	return nil
}

// retire forgets the segments that end at or below pos; the newest stays.
func (s *sidecar) retire(pos int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n+1 < len(s.segs) && s.segs[n].start+s.seg <= pos {
		n++
	}
	if n == 0 {
		return nil
	}
	var errs []error
	for _, g := range s.segs[:n] {
		errs = append(errs, g.f.Close(), s.fs.Remove(s.name(g.start)))
	}
	s.segs = slices.Delete(s.segs, 0, n)
	if first := s.first(); first > s.base {
		s.mem = append([]entry(nil), s.mem[first-s.base:]...)
		s.base = first
	}
	return errors.Join(errs...)
}

// load takes from the file of the segment at start the entries that it may be believed: they check, touch
// each other, begin at pos with index and end at or below end. They come to be in memory as far as they
// fit; what is behind them has to be found by their frames. No file, or one that says otherwise, is none.
func (s *sidecar) load(start, pos, end int64, index uint64, visit func(index uint64, e entry)) error {
	b, err := vfs.ReadFile(s.fs, s.name(start))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(b) < sideHead || string(b[:sideHead]) != string(s.head(start, index)):
		return nil
	}
	var list []entry
	for rest := b[sideHead:]; len(rest) >= sideEntry; rest = rest[sideEntry:] {
		e, ok := parseEntry(rest, start, index+uint64(len(list)))
		if !ok || e.pos != pos || e.end() > end || e.end() > start+s.seg {
			break
		}
		list = append(list, e)
		pos = e.end()
	}
	if len(list) == 0 {
		return nil
	}
	f, err := s.fs.OpenFile(s.name(start), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segs = append(s.segs, &sideSegment{start: start, base: index, n: len(list), filed: len(list), f: f})
	s.mem = append(s.mem, list...)
	s.last += uint64(len(list))
	if drop := len(s.mem) - sideMemory; drop > 0 {
		s.mem = append([]entry(nil), s.mem[drop:]...)
		s.base += uint64(drop)
	}
	for i, e := range list {
		visit(index+uint64(i), e)
	}
	return nil
}

// forget drops the newest segment, which has turned out to be wrong.
func (s *sidecar) forget() error {
	s.mu.Lock()
	g := s.segs[len(s.segs)-1]
	s.mu.Unlock()
	return s.cut(g.base)
}

// close writes what is left and gives the files back.
func (s *sidecar) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.file()}
	for _, g := range s.segs {
		errs = append(errs, g.f.Close())
	}
	s.segs = nil
	return errors.Join(errs...)
}
