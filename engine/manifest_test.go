package engine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

func manifestOptions(fsys vfs.FS) *Options {
	o := &Options{FS: fsys, Dir: "/s", SegmentBytes: 64 << 10, QueueFileBytes: 4000, MaxHashSlots: 10, MaxIndexEntries: 20}
	o.EnsureDefaults()
	return o
}

func putFile(t *testing.T, fsys vfs.FS, name, text string) {
	t.Helper()
	require.NoError(t, fsys.MkdirAll(path.Dir(name), 0o755))
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// TestManifestRoundTrip proves that what is created is what is opened, and that no manifest is no error.
func TestManifestRoundTrip(t *testing.T) {
	h := vfs.NewHeap()
	o := manifestOptions(h)
	m, err := openManifest(o)
	require.NoError(t, err)
	require.Nil(t, m)
	require.NoError(t, h.MkdirAll("/s", 0o755))
	require.NoError(t, createManifest(o))
	m, err = openManifest(o)
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, m.StoreUUID)
	uuid := m.StoreUUID
	m.StoreUUID = ""
	require.Equal(t, &manifest{FormatVersion: 1, SegmentBytes: 64 << 10, QueueFileBytes: 4000, MaxHashSlots: 10, MaxIndexEntries: 20}, m)
	require.Empty(t, h.OpenFiles())

	o.Cluster = "A" // given one later, it keeps it
	m, err = openManifest(o)
	require.NoError(t, err)
	require.Equal(t, uuid, m.StoreUUID)
	o.Cluster = "B"
	_, err = openManifest(o)
	require.ErrorContains(t, err, "cluster=A")
	require.ErrorContains(t, err, "options say B")
	o.Cluster = ""
	_, err = openManifest(o)
	require.NoError(t, err)
}

// TestManifestMismatch proves that every size that differs is named with both values, in one error.
func TestManifestMismatch(t *testing.T) {
	h := vfs.NewHeap()
	o := manifestOptions(h)
	require.NoError(t, h.MkdirAll("/s", 0o755))
	require.NoError(t, createManifest(o))
	o.SegmentBytes, o.QueueFileBytes, o.MaxHashSlots, o.MaxIndexEntries = 128<<10, 6000, 11, 21
	_, err := openManifest(o)
	var m *MismatchError
	require.ErrorAs(t, err, &m)
	for _, want := range []string{
		"mappedFileSizeCommitLog=65536, the options say 131072", "mappedFileSizeConsumeQueue=4000, the options say 6000",
		"maxHashSlotNum=10, the options say 11", "maxIndexNum=20, the options say 21", "/s ",
	} {
		require.ErrorContains(t, err, want)
	}
	o.SegmentBytes, o.QueueFileBytes, o.IndexDisabled = 64<<10, 4000, true
	_, err = openManifest(o)
	require.NoError(t, err, "index sizes do not matter without an index")
}

// TestManifestDamage proves that a newer format is refused as such, and every changed byte as damage.
func TestManifestDamage(t *testing.T) {
	h := vfs.NewHeap()
	o := manifestOptions(h)
	require.NoError(t, h.MkdirAll("/s", 0o755))
	require.NoError(t, saveManifest(h, "/s", &manifest{FormatVersion: formatVersion + 1}))
	_, err := openManifest(o)
	var newer *VersionError
	require.ErrorAs(t, err, &newer)
	require.ErrorContains(t, err, fmt.Sprintf("format %d, this program knows up to %d", formatVersion+1, formatVersion))

	require.NoError(t, createManifest(o))
	whole, err := vfs.ReadFile(h, "/s/rmq/manifest")
	require.NoError(t, err)
	for i := range whole {
		bad := append([]byte{}, whole...)
		bad[i] ^= 0x04
		putFile(t, h, "/s/rmq/manifest", string(bad))
		_, err := openManifest(o)
		var corrupt *CorruptionError
		require.ErrorAs(t, err, &corrupt, "byte %d", i)
		putFile(t, h, "/s/rmq/manifest", string(whole[:i]))
		_, err = openManifest(o)
		require.ErrorAs(t, err, &corrupt, "length %d", i)
	}
}

// TestManifestPowerCut proves that a cut at any step of replacing it leaves the old or the new one.
func TestManifestPowerCut(t *testing.T) {
	h := vfs.NewHeap()
	o := manifestOptions(h)
	require.NoError(t, h.MkdirAll("/s", 0o755))
	require.NoError(t, createManifest(o))
	require.NoError(t, h.SyncFS("/"))
	f := vfs.NewFaulty(h)
	clusters := map[string]bool{}
	look := func() {
		for seed := range uint64(20) {
			m, err := loadManifest(h.CrashImage(seed), "/s")
			require.NoError(t, err)
			require.NotNil(t, m)
			clusters[m.Cluster] = true
		}
	}
	f.Before(func(vfs.Call) { look() })
	o.FS, o.Cluster = f, "A"
	_, err := openManifest(o)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"": true, "A": true}, clusters)
	clear(clusters)
	look()
	require.Equal(t, map[string]bool{"A": true}, clusters)
}

// TestManifestFaults proves that every failing call on the way is reported and leaves a whole file.
func TestManifestFaults(t *testing.T) {
	for n := 1; ; n++ {
		h := vfs.NewHeap()
		require.NoError(t, h.MkdirAll("/s", 0o755))
		o := manifestOptions(h)
		require.NoError(t, createManifest(o))
		f := vfs.NewFaulty(h)
		hits := f.Add(vfs.Rule{Nth: n, Err: syscall.EIO})
		o.FS, o.Cluster = f, "A"
		_, err := openManifest(o)
		if hits() == 0 {
			require.NoError(t, err)
			require.Greater(t, n, 4)
			return
		}
		require.ErrorIs(t, err, syscall.EIO, "call %d", n)
		_, err = loadManifest(h, "/s")
		require.NoError(t, err, "call %d", n)
		require.Empty(t, h.OpenFiles())
	}
}

// TestRefuseForeign proves which parts of an Apache directory are refused, by name, and which are not.
func TestRefuseForeign(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"batchconsumequeue/T/0/00000000000000000000", "batch consume queue"},
		{"consumequeue_ext/T/0/00000000000000000000", "extended consume queue"},
		{"dledger-n0/data/00000000000000000000", "DLedger"},
		{"consumequeue/CURRENT", "RocksDB"},
		{"consumequeue/MANIFEST-000004", "RocksDB"},
		{"consumequeue/000012.sst", "RocksDB"},
		{"consumequeue/%LMQ%x/0/00000000000000000000", "light queues"},
		{"config/topics.json", ""},
		{"timerwheel", ""},
		{"timerlog/00000000000000000000", ""},
		{"consumequeue/T/0/00000000000000000000", ""},
		{"epochFileCheckpoint", ""},
	} {
		h := vfs.NewHeap()
		putFile(t, h, "/s/"+c.file, "x")
		_, err := openManifest(manifestOptions(h))
		if c.want == "" {
			require.NoError(t, err, c.file)
			continue
		}
		var refused *RefusedError
		require.ErrorAs(t, err, &refused, c.file)
		require.ErrorContains(t, err, c.want)
		require.True(t, strings.HasPrefix("/s/"+c.file, refused.Path), refused.Path)
	}
	h := vfs.NewHeap()
	require.NoError(t, h.MkdirAll("/s/consumequeue_ext/T/0", 0o755))
	require.NoError(t, h.MkdirAll("/s/batchconsumequeue", 0o755))
	_, err := openManifest(manifestOptions(h))
	require.NoError(t, err, "empty directories are not in use")
}

// TestAcquireLocks proves that each data directory has one owner, whichever root names it, that a
// refused owner keeps nothing, and that no file is left in a directory of segments.
func TestAcquireLocks(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS, "heap": vfs.NewHeap()} {
		t.Run(name, func(t *testing.T) {
			dir := "/x"
			if name == "os" {
				dir = t.TempDir()
			}
			a, err := acquireLocks(fsys, dir+"/a", dir+"/a/commitlog", dir+"/a/consumequeue", dir+"/a/commitlog")
			require.NoError(t, err)
			var locked *vfs.LockedError
			_, err = acquireLocks(fsys, dir+"/a", dir+"/other")
			require.ErrorAs(t, err, &locked)
			require.Equal(t, dir+"/a/lock", locked.Path)
			_, err = acquireLocks(fsys, dir+"/b", dir+"/a/commitlog")
			require.ErrorAs(t, err, &locked)
			require.Equal(t, dir+"/a/commitlog", locked.Path)
			require.Equal(t, os.Getpid(), locked.PID)
			_, err = acquireLocks(fsys, dir+"/b", dir+"/b/commitlog", dir+"/a/consumequeue")
			require.ErrorAs(t, err, &locked)

			b, err := acquireLocks(fsys, dir+"/b", dir+"/b/commitlog")
			require.NoError(t, err, "the refused attempts kept nothing")
			require.NoError(t, errors.Join(a.Close(), b.Close()))
			a, err = acquireLocks(fsys, dir+"/b", dir+"/a/commitlog")
			require.NoError(t, err)
			require.NoError(t, a.Close())
			text, err := vfs.ReadFile(fsys, dir+"/a/lock")
			require.NoError(t, err)
			require.Equal(t, "lock", string(text))
			entries, err := fsys.ReadDir(dir + "/a/commitlog")
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}
