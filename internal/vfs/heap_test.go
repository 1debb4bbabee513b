package vfs

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// outcomes collects what a hundred crash images say.
func outcomes(h *Heap, look func(img *Heap) string) map[string]int {
	seen := map[string]int{}
	for seed := range uint64(100) {
		seen[look(h.CrashImage(seed))]++
	}
	return seen
}

func content(h *Heap, name string) string {
	f, err := h.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "none"
	}
	defer f.Close()
	info, _ := f.Stat()
	b := make([]byte, info.Size())
	_, _ = f.ReadAt(b, 0)
	return string(b)
}

func synced(t *testing.T, h *Heap, name, text string) {
	t.Helper()
	put(t, h, name, text)
	require.NoError(t, h.SyncFS("/"))
}

// Shows that synced bytes under a synced name survive every cut, and that without either they
// may or may not.
func TestCrashKeepsWhatIsSynced(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/a")
	_, err := f.WriteAt([]byte("one"), 0)
	require.NoError(t, err)
	look := func(img *Heap) string { return content(img, "/a") }
	seen := outcomes(h, look)
	require.Positive(t, seen["none"])
	require.Positive(t, seen["one"])

	require.NoError(t, f.SyncData())
	seen = outcomes(h, look)
	require.Positive(t, seen["none"], "a synced file whose name is not synced may be gone")
	require.Positive(t, seen["one"])
	require.Len(t, seen, 2)

	require.NoError(t, h.SyncDir("/"))
	require.Equal(t, map[string]int{"one": 100}, outcomes(h, look))

	_, err = f.WriteAt([]byte("two"), 0)
	require.NoError(t, err)
	seen = outcomes(h, look)
	require.Len(t, seen, 2)
	require.Positive(t, seen["one"])
	require.Positive(t, seen["two"])
	require.NoError(t, f.Sync())
	require.Equal(t, map[string]int{"two": 100}, outcomes(h, look))
	require.NoError(t, f.Close())
}

// Shows that each sector is old or new by itself, never mixed inside.
func TestCrashTearsAtSectors(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/a")
	defer f.Close()
	_, err := f.WriteAt(bytes.Repeat([]byte{'o'}, 2*pageBytes), 0)
	require.NoError(t, err)
	require.NoError(t, h.SyncFS("/"))
	_, err = f.WriteAt(bytes.Repeat([]byte{'n'}, 2*pageBytes), 0)
	require.NoError(t, err)
	torn := 0
	for seed := range uint64(50) {
		got := content(h.CrashImage(seed), "/a")
		require.Len(t, got, 2*pageBytes)
		sectors := map[byte]int{}
		for s := 0; s < len(got); s += sectorBytes {
			require.Equal(t, string(bytes.Repeat([]byte{got[s]}, sectorBytes)), got[s:s+sectorBytes])
			sectors[got[s]]++
		}
		if len(sectors) == 2 {
			torn++
		}
	}
	require.Greater(t, torn, 40)
	first := content(h.CrashImage(7), "/a")
	require.Equal(t, first, content(h.CrashImage(7), "/a"), "equal seeds, equal images")
}

// Shows what may become of a file that was cut and not synced: the old length comes with the old bytes.
func TestCrashAfterTruncate(t *testing.T) {
	h := NewHeap()
	old := string(bytes.Repeat([]byte{'o'}, 3*pageBytes))
	synced(t, h, "/a", old)
	f := create(t, h, "/a")
	defer f.Close()
	require.NoError(t, f.Truncate(pageBytes))
	look := func(img *Heap) string { return content(img, "/a") }
	seen := outcomes(h, look)
	require.Len(t, seen, 2)
	require.Positive(t, seen[old])
	require.Positive(t, seen[old[:pageBytes]])
	require.NoError(t, f.SyncData())
	require.Equal(t, map[string]int{old[:pageBytes]: 100}, outcomes(h, look))
}

// Shows that a rename is one step, and that syncing either directory keeps it.
func TestCrashRename(t *testing.T) {
	h := NewHeap()
	require.NoError(t, h.MkdirAll("/x", 0o755))
	require.NoError(t, h.MkdirAll("/y", 0o755))
	synced(t, h, "/x/a", "A")
	synced(t, h, "/y/b", "B")
	require.NoError(t, h.Rename("/x/a", "/y/b"))
	look := func(img *Heap) string { return content(img, "/x/a") + content(img, "/y/b") }
	seen := outcomes(h, look)
	require.Len(t, seen, 2)
	require.Positive(t, seen["AB"])
	require.Positive(t, seen["noneA"])
	for _, dir := range []string{"/x", "/y"} {
		img := h.KillImage()
		require.NoError(t, img.SyncDir(dir))
		require.Equal(t, map[string]int{"noneA": 100}, outcomes(img, look))
	}
}

// Shows that the temp-write-sync-rename-sync way never loses both versions, and that leaving out
// the sync of the file may.
func TestCrashReplace(t *testing.T) {
	for _, syncFile := range []bool{true, false} {
		h := NewHeap()
		synced(t, h, "/state", "old")
		f := create(t, h, "/state.tmp")
		_, err := f.WriteAt([]byte("new"), 0)
		require.NoError(t, err)
		if syncFile {
			require.NoError(t, f.Sync())
		}
		require.NoError(t, f.Close())
		require.NoError(t, h.Rename("/state.tmp", "/state"))
		seen := outcomes(h, func(img *Heap) string { return content(img, "/state") })
		require.Positive(t, seen["old"])
		require.Positive(t, seen["new"])
		require.Equal(t, syncFile, len(seen) == 2, "%v", seen)
	}
}

// Shows that a removal that was not synced may come back with its bytes, and a new directory that
// was not synced takes everything in it along.
func TestCrashRemoveAndMkdir(t *testing.T) {
	h := NewHeap()
	synced(t, h, "/a", "A")
	require.NoError(t, h.Remove("/a"))
	seen := outcomes(h, func(img *Heap) string { return content(img, "/a") })
	require.Len(t, seen, 2)
	require.Positive(t, seen["A"])
	require.NoError(t, h.SyncDir("/"))
	require.Equal(t, map[string]int{"none": 100}, outcomes(h, func(img *Heap) string { return content(img, "/a") }))

	require.NoError(t, h.MkdirAll("/p/q", 0o755))
	f := create(t, h, "/p/q/f")
	_, err := f.WriteAt([]byte("F"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.NoError(t, h.SyncDir("/p/q"))
	seen = outcomes(h, func(img *Heap) string { return content(img, "/p/q/f") })
	require.Positive(t, seen["none"])
	require.NoError(t, h.SyncDir("/p"))
	require.NoError(t, h.SyncDir("/"))
	require.Equal(t, map[string]int{"F": 100}, outcomes(h, func(img *Heap) string { return content(img, "/p/q/f") }))
}

// Shows that stores into a mapping are unsynced until msync or fsync, page by page.
func TestCrashMapping(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/m")
	require.NoError(t, f.Allocate(0, 2*pageBytes))
	require.NoError(t, f.Sync())
	require.NoError(t, h.SyncDir("/"))
	m, err := f.Map(2*pageBytes, true)
	require.NoError(t, err)
	look := func(img *Heap) string {
		c := content(img, "/m")
		return c[:1] + c[pageBytes:pageBytes+1]
	}
	m.Bytes()[0], m.Bytes()[pageBytes] = 'a', 'b'
	require.Len(t, outcomes(h, look), 4)
	require.NoError(t, m.Sync(0, 1))
	seen := outcomes(h, look)
	require.Len(t, seen, 2)
	require.Positive(t, seen["a\x00"])
	require.NoError(t, f.SyncData())
	require.Equal(t, map[string]int{"ab": 100}, outcomes(h, look))
	m.Bytes()[0] = 'c'
	require.Equal(t, "cb", look(h.KillImage()))
	require.NoError(t, m.Close())
	require.NoError(t, f.Close())
	require.Empty(t, h.LiveMappings())
}

// Shows that a killed process leaves everything that it wrote, and that the image still knows what
// is not durable.
func TestKillImage(t *testing.T) {
	h := NewHeap()
	synced(t, h, "/a", "old")
	put(t, h, "/a", "new")
	put(t, h, "/b", "B")
	require.NoError(t, h.Remove("/a"))
	put(t, h, "/a", "again")
	img := h.KillImage()
	put(t, h, "/b", "changed later")
	require.Equal(t, "again", content(img, "/a"))
	require.Equal(t, "B", content(img, "/b"))
	seen := outcomes(img, func(img *Heap) string { return content(img, "/a") })
	for _, want := range []string{"old", "new", "again", "none"} {
		require.Positive(t, seen[want], "%q in %v", want, seen)
	}
	require.NoError(t, img.SyncFS("/"))
	require.Equal(t, map[string]int{"again": 100}, outcomes(img, func(img *Heap) string { return content(img, "/a") }))
}

// Shows that an image is its own: neither side sees what the other writes later.
func TestImagesAreIndependent(t *testing.T) {
	h := NewHeap()
	synced(t, h, "/a", "shared")
	img := h.CrashImage(1)
	put(t, h, "/a", "mine..")
	require.Equal(t, "shared", content(img, "/a"))
	put(t, img, "/a", "yours.")
	require.Equal(t, "mine..", content(h, "/a"))
	require.Empty(t, img.OpenFiles())
}

// Shows that a gibibyte of holes costs no memory and that a full disk says so.
func TestSpace(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/big")
	require.Less(t, testing.AllocsPerRun(1, func() {
		require.NoError(t, f.Allocate(0, 1<<30))
		_, err := f.WriteAt([]byte("end"), 1<<30-3)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		h.CrashImage(1)
	}), 200.0)
	require.NoError(t, f.Close())

	h.SetCapacity(1<<30 + 3*pageBytes)
	g := create(t, h, "/small")
	require.ErrorIs(t, g.Allocate(0, 4*pageBytes), syscall.ENOSPC)
	require.NoError(t, g.Allocate(0, 2*pageBytes))
	n, err := g.WriteAt(make([]byte, 4*pageBytes), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 3*pageBytes, n)
	u, err := h.Usage("/")
	require.NoError(t, err)
	require.Zero(t, u.Avail)
	require.NoError(t, h.Remove("/big"))
	u, err = h.Usage("/")
	require.NoError(t, err)
	require.EqualValues(t, 1<<30, u.Avail)
	require.NoError(t, g.Truncate(0))
	require.NoError(t, g.Close())
	u, err = h.Usage("/")
	require.NoError(t, err)
	require.EqualValues(t, 1<<30+3*pageBytes, u.Avail)
}

// Shows that handles, mappings and locks are counted by name.
func TestLeakCounts(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/a")
	g := create(t, h, "/a")
	require.NoError(t, f.Truncate(4096))
	m, err := f.Map(4096, false)
	require.NoError(t, err)
	l, err := h.Lock("/lock")
	require.NoError(t, err)
	require.Equal(t, []string{"/a", "/a"}, h.OpenFiles())
	require.Equal(t, []string{"/a"}, h.LiveMappings())
	require.Equal(t, []string{"/lock"}, h.HeldLocks())
	require.Empty(t, h.CrashImage(1).HeldLocks())
	require.NoError(t, f.Close())
	require.NoError(t, g.Close())
	require.NoError(t, m.Close())
	require.NoError(t, l.Close())
	require.Empty(t, slices.Concat(h.OpenFiles(), h.LiveMappings(), h.HeldLocks()))
}

// Shows that files, images and mappings may be used from many goroutines.
func TestHeapUnderRace(t *testing.T) {
	h := NewHeap()
	f := create(t, h, "/a")
	require.NoError(t, f.Allocate(0, 8*pageBytes))
	m, err := f.Map(8*pageBytes, true)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			buf := make([]byte, 700)
			for i := range 50 {
				off := int64(w*2*pageBytes + i)
				_, _ = f.WriteAt(buf, off)
				_, _ = f.ReadAt(buf, off)
				_ = m.Sync(off, 10)
				put2(h, fmt.Sprintf("/f%d", w), "x")
				h.CrashImage(uint64(i))
			}
		})
	}
	wg.Go(func() {
		for i := range m.Bytes() {
			m.Bytes()[i]++
		}
	})
	wg.Wait()
	require.NoError(t, m.Close())
	require.NoError(t, f.Close())
}

func put2(fs FS, name, text string) {
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	_, _ = f.WriteAt([]byte(text), 0)
	_ = f.Close()
}

// Shows, against a model that keeps the durable and the present bytes whole, that random writes,
// cuts, syncs and crashes give only what the rules allow: every sector old or new.
func TestHeapAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 3 * pageBytes
		h := NewHeap()
		f, err := h.OpenFile("/a", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_ = h.SyncFS("/")
		cur, dur := []byte{}, []byte{}
		grow := func(b []byte, n int) []byte {
			for len(b) < n {
				b = append(b, 0)
			}
			return b
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off := rapid.IntRange(0, limit-1).Draw(t, "off")
				n := rapid.IntRange(1, limit-off).Draw(t, "n")
				b := bytes.Repeat([]byte{rapid.Byte().Draw(t, "b")}, n)
				if _, err := f.WriteAt(b, int64(off)); err != nil {
					t.Fatal(err)
				}
				cur = grow(cur, off+n)
				copy(cur[off:], b)
			},
			"truncate": func(t *rapid.T) {
				n := rapid.IntRange(0, limit).Draw(t, "n")
				if err := f.Truncate(int64(n)); err != nil {
					t.Fatal(err)
				}
				cur = grow(cur, n)[:n:n]
			},
			"sync": func(t *rapid.T) {
				if err := f.SyncData(); err != nil {
					t.Fatal(err)
				}
				dur = bytes.Clone(cur)
			},
			"": func(t *rapid.T) {
				if got := content(h, "/a"); got != string(cur) {
					t.Fatalf("present bytes differ")
				}
				got := content(h.CrashImage(rapid.Uint64().Draw(t, "seed")), "/a")
				lo, hi := min(len(cur), len(dur)), max(len(cur), len(dur))
				if len(got) < lo || len(got) > hi {
					t.Fatalf("length %d not in [%d, %d]", len(got), lo, hi)
				}
				for s := 0; s < len(got); s += sectorBytes {
					e := min(s+sectorBytes, len(got))
					part := got[s:e]
					if part != string(grow(bytes.Clone(dur), hi)[s:e]) && part != string(grow(bytes.Clone(cur), hi)[s:e]) {
						t.Fatalf("sector at %d is neither old nor new", s)
					}
				}
			},
		})
		_ = f.Close()
	})
}
