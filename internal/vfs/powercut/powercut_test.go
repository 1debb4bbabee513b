package powercut_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/internal/vfs/powercut"
)

const keys = 60

// disk is a directory with a file system whose power can be cut.
type disk struct {
	*powercut.FS
	dir, side string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	top := t.TempDir()
	d := &disk{dir: filepath.Join(top, "store"), side: filepath.Join(top, "side")}
	require.NoError(t, os.Mkdir(d.dir, 0o755))
	var err error
	d.FS, err = powercut.New(d.side)
	require.NoError(t, err)
	return d
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *disk) open(t *testing.T, name string) vfs.File {
	t.Helper()
	f, err := d.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func (d *disk) write(t *testing.T, f vfs.File, off int64, b []byte) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	require.NoError(t, err)
}

func (d *disk) cut(t *testing.T, key uint64) powercut.Report {
	t.Helper()
	r, err := powercut.Cut(d.side, key, powercut.Any)
	require.NoError(t, err)
	return r
}

// Proves that what was synced survives every cut, that a sector which was not has its old bytes or its new
// ones, and that all of these happen: everything lost, nothing lost, pages torn.
func TestContents(t *testing.T) {
	var lostAll, lostNone, torn int
	for key := range uint64(keys) {
		d := newDisk(t)
		f := d.open(t, "log")
		require.NoError(t, f.Allocate(0, 64<<10))
		durable := bytes.Repeat([]byte("durable."), 1<<10)
		d.write(t, f, 100, durable)
		require.NoError(t, f.SyncData())
		require.NoError(t, d.SyncDir(d.dir))
		latest := bytes.Repeat([]byte("unsynced"), 4<<10)
		d.write(t, f, 4096, latest)
		before, now := make([]byte, 64<<10), make([]byte, 64<<10)
		copy(before[100:], durable)
		copy(now, before)
		copy(now[4096:], latest)

		r := d.cut(t, key)
		got, err := os.ReadFile(d.path("log"))
		require.NoError(t, err)
		require.Len(t, got, 64<<10)
		for at := 0; at < len(got); at += 512 {
			s := got[at : at+512]
			require.True(t, bytes.Equal(s, before[at:at+512]) || bytes.Equal(s, now[at:at+512]), "key %d: the sector at %d is neither old nor new", key, at)
		}
		switch {
		case bytes.Equal(got, before):
			lostAll++
		case bytes.Equal(got, now):
			lostNone++
		}
		if r.Torn > 0 {
			torn++
		}
	}
	require.Positive(t, lostAll)
	require.Positive(t, lostNone)
	require.Positive(t, torn)
}

// Proves that a file has its old length, its new one or, where it grew, one between, and that bytes which
// were cut off come back with the old length.
func TestSizes(t *testing.T) {
	seen := map[int]bool{}
	for key := range uint64(keys) {
		d := newDisk(t)
		grown, shrunk := d.open(t, "grown"), d.open(t, "shrunk")
		d.write(t, grown, 0, bytes.Repeat([]byte("a"), 1000))
		d.write(t, shrunk, 0, bytes.Repeat([]byte("b"), 9000))
		require.NoError(t, d.SyncFS(d.dir))
		d.write(t, grown, 1000, bytes.Repeat([]byte("c"), 5000))
		require.NoError(t, shrunk.Truncate(700))
		d.cut(t, key)
		got, err := os.ReadFile(d.path("grown"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), 1000)
		require.LessOrEqual(t, len(got), 6000)
		require.Equal(t, bytes.Repeat([]byte("a"), 1000), got[:1000])
		seen[len(got)] = true
		got, err = os.ReadFile(d.path("shrunk"))
		require.NoError(t, err)
		require.Contains(t, []int{700, 9000}, len(got))
		require.Equal(t, bytes.Repeat([]byte("b"), 700), got[:700])
		seen[-len(got)] = true
	}
	require.True(t, seen[1000] && seen[6000] && seen[-700] && seen[-9000], "%v", seen)
	require.Greater(t, len(seen), 4, "no length between")
}

// Proves that a name stays once its directory is synced and may come or go before; that a rename leaves
// the old file or the new one, whole; and that a removed file may be back.
func TestNames(t *testing.T) {
	seen := map[string]int{}
	for key := range uint64(keys) {
		d := newDisk(t)
		save := func(name, text string) {
			f := d.open(t, name)
			d.write(t, f, 0, []byte(text))
			require.NoError(t, f.Sync())
		}
		save("table", "old")
		save("gone", "gone")
		require.NoError(t, d.MkdirAll(d.path("sub/deep"), 0o755))
		require.NoError(t, d.SyncDir(d.dir))
		save("sub/file", "in a directory whose name is durable")
		save("table.tmp", "new")
		require.NoError(t, d.Rename(d.path("table.tmp"), d.path("table")))
		require.NoError(t, d.Remove(d.path("gone")))
		save("fresh", "fresh")
		d.cut(t, key)
		text, err := os.ReadFile(d.path("table"))
		require.NoError(t, err, "key %d", key)
		require.Contains(t, []string{"old", "new"}, string(text))
		seen[string(text)]++
		for _, name := range []string{"gone", "fresh", "sub/file", "sub/deep"} {
			_, err := os.Stat(d.path(name))
			seen[fmt.Sprintf("%s %v", name, err == nil)]++
		}
		require.DirExists(t, d.path("sub"))
	}
	require.Len(t, seen, 10, "%v", seen)
}

// Proves that a saved table is there after every cut when it is saved as it should be: written aside,
// synced, renamed, the directory synced.
func TestSavedTable(t *testing.T) {
	for key := range uint64(keys) {
		d := newDisk(t)
		rng := rand.New(rand.NewPCG(key, 1))
		saved := 0
		for n := range 1 + rng.IntN(5) {
			f := d.open(t, "table.tmp")
			require.NoError(t, f.Truncate(0))
			d.write(t, f, 0, fmt.Appendf(nil, "table %d", n))
			require.NoError(t, f.Sync())
			require.NoError(t, d.Rename(d.path("table.tmp"), d.path("table")))
			if rng.IntN(3) > 0 {
				require.NoError(t, d.SyncDir(d.dir))
				saved = n + 1
			}
		}
		d.cut(t, key)
		text, err := os.ReadFile(d.path("table"))
		if saved == 0 && err != nil {
			continue
		}
		require.NoError(t, err)
		var n int
		_, err = fmt.Sscanf(string(text), "table %d", &n)
		require.NoError(t, err, "%q", text)
		require.GreaterOrEqual(t, n+1, saved)
	}
}

// Proves that a removed tree is back whole or gone, and that a process which starts on a journal that a
// kill has left takes nothing back of what was before it.
func TestTreesAndRestart(t *testing.T) {
	back := 0
	for key := range uint64(keys) {
		d := newDisk(t)
		require.NoError(t, d.MkdirAll(d.path("tree"), 0o755))
		d.write(t, d.open(t, "tree/leaf"), 0, []byte("leaf"))
		again, err := powercut.New(d.side)
		require.NoError(t, err)
		d.FS = again
		require.NoError(t, d.RemoveAll(d.path("tree")))
		require.NoDirExists(t, d.path("tree"))
		d.cut(t, key)
		if _, err := os.Stat(d.path("tree")); err == nil {
			text, err := os.ReadFile(d.path("tree/leaf"))
			require.NoError(t, err)
			require.Equal(t, "leaf", string(text))
			back++
		}
	}
	require.Positive(t, back)
	require.Less(t, back, keys)
}
