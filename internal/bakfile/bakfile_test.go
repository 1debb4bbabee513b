package bakfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

const name = "/store/config/topics.json"

// number takes texts that are numbers.
func number(text []byte) error {
	_, err := strconv.Atoi(string(text))
	return err
}

func put(t *testing.T, fsys vfs.FS, name, text string) {
	require.NoError(t, fsys.MkdirAll(filepath.Dir(name), 0o755))
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Sync(), f.Close()))
}

// Proves that what was saved last is read, that the generation before it is the .bak, and that the
// real file system does the same.
func TestSaveLoad(t *testing.T) {
	for kind, fsys := range map[string]vfs.FS{"heap": vfs.NewHeap(), "os": vfs.OS} {
		name := filepath.Join(t.TempDir(), "a/b/f.json")
		l, err := Load(fsys, name, number)
		require.NoError(t, err, kind)
		require.Equal(t, Loaded{}, l)
		for i := range 3 {
			require.NoError(t, Save(fsys, name, []byte(strconv.Itoa(i))))
			l, err = Load(fsys, name, number)
			require.NoError(t, err)
			require.Equal(t, Loaded{Text: []byte(strconv.Itoa(i)), Path: name}, l)
		}
		l, err = Load(fsys, name+".bak", number)
		require.NoError(t, err)
		require.Equal(t, "1", string(l.Text))
		_, err = fsys.Stat(name + ".tmp")
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// Proves which file counts when one of them is not as it should be.
func TestLoadFallsBack(t *testing.T) {
	const none = "(none)"
	for _, c := range []struct {
		file, bak    string
		want, damage string
		err          string
		broken       bool
	}{
		{none, "1", "1", "topics.json is missing or empty", "", false},
		{"", "1", "1", "topics.json is missing or empty", "", true},
		{"\n ", "1", "1", "topics.json is missing or empty", "", true},
		{"x", "1", "1", "topics.json is damaged: strconv.Atoi", "", true},
		{"2", "x", "2", "", "", false},
		{"", "", "", "", "", false},
		{none, "x", "", "", "topics.json.bak is damaged", false},
		{"x", "y", "", "", "topics.json.bak is damaged", false},
		{"x", none, "", "", "topics.json is damaged: strconv.Atoi: parsing \"x\": invalid syntax: put a good copy there", false},
	} {
		fsys := vfs.NewHeap()
		for n, text := range map[string]string{name: c.file, name + ".bak": c.bak} {
			if text != none {
				put(t, fsys, n, text)
			}
		}
		l, err := Load(fsys, name, number)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%+v", c)
			continue
		}
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.want, string(l.Text), "%+v", c)
		if c.damage != "" {
			require.ErrorContains(t, l.Damage, c.damage)
		} else {
			require.NoError(t, l.Damage)
		}
		_, err = fsys.Stat(name + ".broken")
		require.Equal(t, c.broken, err == nil, "%+v", c)
		if c.broken { // a Save that ends half-way does not put the damage in the place of the good .bak
			faulty := vfs.NewFaulty(fsys, vfs.Rule{Op: vfs.OpRename, Match: "*.tmp", Nth: 1, Err: syscall.EIO})
			require.ErrorIs(t, Save(faulty, name, []byte("3")), syscall.EIO)
			l, err = Load(fsys, name, number)
			require.NoError(t, err)
			require.Equal(t, c.bak, string(l.Text))
		}
	}
}

// Proves that a power cut before any call of a Save leaves the last saved generation or the one that
// was being saved.
func TestPowerCut(t *testing.T) {
	heap := vfs.NewHeap()
	faulty := vfs.NewFaulty(heap)
	saved := 0
	cuts := 0
	faulty.Before(func(vfs.Call) {
		for seed := range uint64(20) {
			l, err := Load(heap.CrashImage(seed), name, number)
			require.NoError(t, err)
			n, _ := strconv.Atoi(string(l.Text))
			require.True(t, n == saved || n == saved+1, "%d saved, %d found in %s", saved, n, l.Path)
			cuts++
		}
	})
	for range 3 {
		require.NoError(t, Save(faulty, name, []byte(strconv.Itoa(saved+1))))
		saved++
	}
	require.Positive(t, cuts)
}

// Proves that a Save in which any one call fails says so and loses nothing.
func TestEveryCallFails(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir} {
		for nth := 1; ; nth++ {
			heap := vfs.NewHeap()
			require.NoError(t, Save(heap, name, []byte("1")))
			faulty := vfs.NewFaulty(heap)
			hits := faulty.Add(vfs.Rule{Op: op, Nth: nth, Err: syscall.ENOSPC})
			err := Save(faulty, name, []byte("2"))
			if hits() == 0 {
				require.NoError(t, err)
				require.Greater(t, nth, 1, op)
				break
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorContains(t, err, "save "+name)
			l, err := Load(heap, name, number)
			require.NoError(t, err)
			require.Contains(t, "12", string(l.Text))
			require.NoError(t, Save(heap, name, []byte("3")))
		}
	}
}

// Proves that a file that cannot be read stops everything, rather than being taken for none.
func TestUnreadable(t *testing.T) {
	heap := vfs.NewHeap()
	put(t, heap, name, "1")
	put(t, heap, name+".bak", "0")
	faulty := vfs.NewFaulty(heap, vfs.Rule{Op: vfs.OpRead, Nth: 1, Err: syscall.EIO})
	_, err := Load(faulty, name, number)
	require.ErrorIs(t, err, syscall.EIO)
}
