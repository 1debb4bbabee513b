package powercut

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Report is what a cut has taken back.
type Report struct {
	Sectors, Lost, Torn int // not durable; of them put back; pages of which only a part was put back
	Sizes               int // files that have their old size, or one between
	Names               int // changes of names that were taken back
}

// Way says which of the many states that a cut may leave is drawn.
type Way int

// The ways.
const (
	Any  Way = iota // one time in four nothing survives; in four, what came before a moment; else each page by itself
	Torn            // every page that is not durable has some old sectors and some new ones
)

// Cut puts the files back into a state that a power cut may leave, drawn by key. The process must have
// ended. The side directory is empty afterwards.
func Cut(side string, key uint64, way Way) (Report, error) {
	rs, err := readJournal(side)
	if err != nil {
		return Report{}, err
	}
	c := &cut{side: side, way: way, rng: rand.New(rand.NewPCG(key, 0x9e3779b97f4a7c15)), pending: pending(rs)}
	for _, r := range c.pending {
		c.last = max(c.last, r.n)
	}
	switch n := c.rng.IntN(4); {
	case n == 0 && way == Any:
		c.keep = func(uint64) bool { return false }
	case n == 1 && way == Any:
		until := c.rng.Uint64N(c.last + 1)
		c.keep = func(n uint64) bool { return n <= until }
	default:
		c.keep = func(uint64) bool { return c.rng.IntN(2) == 0 }
	}
	for _, step := range []func() error{c.contents, c.names, c.directories} {
		if err := step(); err != nil {
			return c.report, fmt.Errorf("power cut: %w", err)
		}
	}
	return c.report, clear(side)
}

// pending are the records that no sync has made durable.
func pending(rs []record) []record {
	var all uint64 // by a sync of the file system
	files, dirs := map[uint64]uint64{}, map[string]uint64{}
	type entry struct{ dir, name string }
	at := func(path string) entry { return entry{filepath.Dir(path), filepath.Base(path)} }
	for _, r := range rs {
		switch r.kind {
		case kindFSSync:
			all = max(all, r.a)
		case kindSynced:
			files[r.ino] = max(files[r.ino], r.a)
		case kindDirSync:
			dirs[r.from] = max(dirs[r.from], r.a)
		}
	}
	var out []record
	kept := map[string]bool{} // names whose later change is durable: so are earlier ones
	for _, r := range slices.Backward(rs) {
		durable := r.n <= all
		switch r.kind {
		case kindImage, kindSize:
			durable = durable || r.n <= files[r.ino]
		case kindEntry, kindDirMoved:
			durable = durable || r.from != "" && (r.n <= dirs[at(r.from).dir] || kept[r.from]) || r.to != "" && (r.n <= dirs[at(r.to).dir] || kept[r.to])
			if durable {
				kept[r.from], kept[r.to] = r.from != "", r.to != ""
			}
		default:
			continue
		}
		if !durable {
			out = append(out, r)
		}
	}
	slices.Reverse(out)
	return out
}

type cut struct {
	side    string
	way     Way
	rng     *rand.Rand
	pending []record
	last    uint64
	keep    func(n uint64) bool // whether the change of that record reached the disk
	report  Report
}

// contents puts bytes and sizes back.
func (c *cut) contents() error {
	type file struct {
		size   int64 // before the first change, -1: the same
		n      uint64
		sector map[int64]record
	}
	files := map[uint64]*file{}
	for _, r := range c.pending {
		if r.kind != kindImage && r.kind != kindSize {
			continue
		}
		f := files[r.ino]
		if f == nil {
			f = &file{size: -1, sector: map[int64]record{}}
			files[r.ino] = f
		}
		switch {
		case r.kind == kindSize && f.size < 0:
			f.size, f.n = int64(r.a), r.n
		case r.kind == kindImage:
			for off := r.off; off < r.off+r.a; off += sectorBytes {
				if _, ok := f.sector[int64(off)]; !ok {
					f.sector[int64(off)] = r
				}
			}
		}
	}
	for _, ino := range slices.Sorted(maps.Keys(files)) {
		f := files[ino]
		if err := c.file(sideName(c.side, ino), f.size, f.n, f.sector); err != nil {
			return err
		}
	}
	return nil
}

func (c *cut) file(name string, oldSize int64, sizeRecord uint64, sectors map[int64]record) error {
	out, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // what was written shows when it is read; nothing has to be durable
	info, err := out.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if oldSize >= 0 && !c.keep(sizeRecord) {
		c.report.Sizes++
		if grown := size - oldSize; grown > 0 && c.rng.IntN(3) == 0 {
			oldSize += c.rng.Int64N(grown)
		}
		size = oldSize
		if err := out.Truncate(size); err != nil {
			return err
		}
	}
	byPage := map[int64][]int64{}
	for _, off := range slices.Sorted(maps.Keys(sectors)) {
		byPage[off/pageBytes] = append(byPage[off/pageBytes], off)
	}
	for _, page := range slices.Sorted(maps.Keys(byPage)) {
		torn := c.rng.IntN(4) == 0 || c.way == Torn // else the page is old or new as a whole
		back := 0
		whole := c.keep(sectors[byPage[page][0]].n)
		for _, off := range byPage[page] {
			r := sectors[off]
			c.report.Sectors++
			kept := whole
			if torn {
				kept = c.keep(r.n)
			}
			if kept || off >= size {
				continue
			}
			back++
			old := make([]byte, sectorBytes)
			copy(old, r.data)
			if _, err := out.WriteAt(old[:min(sectorBytes, size-off)], off); err != nil {
				return err
			}
		}
		c.report.Lost += back
		if back > 0 && back < len(byPage[page]) {
			c.report.Torn++
		}
	}
	return nil
}

// names puts directory entries of files, and directories that were made, back.
func (c *cut) names() error {
	state := map[string]uint64{} // path → inode that the name has on disk; 0: none
	isDir := map[string]bool{}
	durable := func(path string, ino uint64) {
		if _, ok := state[path]; !ok && path != "" {
			state[path] = ino
		}
	}
	var changes []record
	for _, r := range c.pending {
		if r.kind == kindEntry {
			changes = append(changes, r)
			durable(r.from, r.ino)
			durable(r.to, r.a)
			isDir[r.to] = isDir[r.to] || r.b == 1
		}
	}
	for _, r := range changes {
		if !c.keep(r.n) {
			c.report.Names++
			continue
		}
		if r.from != "" && state[r.from] == r.ino {
			state[r.from] = 0
		}
		if r.to != "" {
			state[r.to] = r.ino
		}
	}
	// Directories last, the deepest first: what is in them goes with them.
	paths := slices.SortedFunc(maps.Keys(state), func(a, b string) int {
		if isDir[a] != isDir[b] {
			return map[bool]int{false: -1, true: 1}[isDir[a]]
		}
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	for i, path := range paths {
		now, err := inoOf(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		want := state[path]
		switch {
		case now == want:
			continue
		case isDir[path]:
			if want == 0 {
				err = os.Rename(path, filepath.Join(c.side, fmt.Sprintf("unmade-%d", i)))
			} else {
				err = nil // it went with one above it
			}
		default:
			err = c.name(path, now, want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// name makes path stand for the inode want, 0 for nothing.
func (c *cut) name(path string, now, want uint64) error {
	if now != 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if want == 0 {
		return nil
	}
	err := os.Link(sideName(c.side, want), path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the directory has gone, or was taken back
	}
	return err
}

// directories moves directories back, newest first.
func (c *cut) directories() error {
	for _, r := range slices.Backward(c.pending) {
		if r.kind != kindDirMoved || c.keep(r.n) {
			continue
		}
		c.report.Names++
		err := os.Rename(r.to, r.from)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
