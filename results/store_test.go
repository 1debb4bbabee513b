package results_test

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/resultstest"
)

func write(t *testing.T, o resultstest.Options) *results.Store {
	t.Helper()
	o.DurS = 3
	s, err := resultstest.Write(filepath.Join(t.TempDir(), "run"), o)
	require.NoError(t, err)
	return s
}

// smallest is one cell, once.
func smallest() resultstest.Options {
	return resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1}, []int{64}), Reps: 1}
}

func load(t *testing.T, s *results.Store) *results.Run {
	t.Helper()
	r, err := s.Load()
	require.NoError(t, err)
	return r
}

// Proves that what is written is what is read: manifest, cells, results, histograms, rows.
func TestRoundTrip(t *testing.T) {
	s := write(t, resultstest.Options{})
	r := load(t, s)
	require.Len(t, r.Cells, 4)
	for _, c := range r.Cells {
		require.Len(t, c.Reps, 3)
	}
	rep := r.Cells[0].Reps[1]
	rows, err := s.Series(rep.Cell, rep.Block)
	require.NoError(t, err)
	require.Len(t, rows, 2*(3+2))
	hs, err := s.Hists(rep.Cell, rep.Block)
	require.NoError(t, err)
	require.Len(t, hs, 6)

	part := *r.Manifest
	part.Complete, part.Reason = false, "one repetition of it"
	again, err := results.Create(filepath.Join(t.TempDir(), "b"), &part)
	require.NoError(t, err)
	require.NoError(t, again.WriteRep(rep, hs, rows))
	rows2, err := again.Series(rep.Cell, rep.Block)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(rows, rows2))
	hs2, err := again.Hists(rep.Cell, rep.Block)
	require.NoError(t, err)
	for i := range hs {
		require.True(t, hs[i].H.Equals(hs2[i].H), "%s/%s", hs[i].Part, hs[i].Name)
	}
	r2 := load(t, again)
	require.Empty(t, cmp.Diff(rep, r2.Cells[0].Reps[0]))
}

// Proves that a stored histogram keeps three digits over the whole range.
func TestHistogramKeepsItsPrecision(t *testing.T) {
	h := results.NewHistogram()
	for _, ns := range []int64{100, 12_345, 1_234_567, 59_999_999_999, results.HistHighest} {
		require.NoError(t, h.RecordValue(ns))
	}
	require.Error(t, h.RecordValue(results.HistHighest*3), "out of range must be told, not clamped")
	b, err := results.EncodeHists([]results.Hist{{Part: results.PartOpen, Name: results.HistResponse, Whole: true, TS: 1.5, DurS: 2, H: h}})
	require.NoError(t, err)
	got, err := results.DecodeHists(b)
	require.NoError(t, err)
	require.Equal(t, 1.5, got[0].TS)
	require.Equal(t, results.PartOpen, got[0].Part)
	require.InEpsilon(t, 1_234_567, got[0].H.ValueAtPercentile(60), 0.001)
	require.Equal(t, int64(5), got[0].H.TotalCount())
	require.NotNil(t, results.FindHist(got, results.PartOpen, results.HistResponse))
	require.Nil(t, results.FindHist(got, results.PartClosed, results.HistResponse))
}

// Proves that every file of a run, written by another schema, is refused with its name and both
// versions.
func TestOtherSchemaIsRefusedByName(t *testing.T) {
	for _, name := range []string{results.ManifestFile, results.EnvFile, results.ProbeFile, results.ResultFile, results.SeriesFile} {
		t.Run(name, func(t *testing.T) {
			s := write(t, smallest())
			c := load(t, s).Manifest.Cells[0]
			path := filepath.Join(s.Dir(), name)
			if name == results.ResultFile || name == results.SeriesFile {
				path = filepath.Join(s.RepDir(c, 0), name)
			}
			for repl, want := range map[string]string{`"schema":99`: "schema 99, want 1", `"schemer":1`: "no schema version"} {
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				text := string(b)
				for _, old := range []string{`"schema": 1`, `"schema":1`} {
					text = strings.Replace(text, old, repl, 1)
				}
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
				err = readAll(s.Dir())
				var se *results.SchemaError
				require.ErrorAs(t, err, &se)
				require.Contains(t, err.Error(), path)
				require.Contains(t, err.Error(), want)
				require.NoError(t, os.WriteFile(path, b, 0o644))
			}
		})
	}
}

// Proves that damage in any file is told by the file's name and what belonged there.
func TestDamageIsRefusedByName(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"cut in half": func(b []byte) []byte { return b[:len(b)/2] },
		"one bit":     func(b []byte) []byte { b[len(b)/2] ^= 0x80; return b },
		"empty":       func([]byte) []byte { return nil },
	}
	for _, name := range []string{results.ManifestFile, results.EnvFile, results.ProbeFile, results.ResultFile, results.HistFile, results.SeriesFile} {
		for how, f := range damage {
			if how == "one bit" && name != results.HistFile {
				continue // JSON has no checksum: a changed digit reads as that digit
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				s := write(t, smallest())
				c := load(t, s).Manifest.Cells[0]
				path := filepath.Join(s.Dir(), name)
				if name == results.ResultFile || name == results.SeriesFile || name == results.HistFile {
					path = filepath.Join(s.RepDir(c, 0), name)
				}
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(path, f(b), 0o644))
				err = readAll(s.Dir())
				var de *results.DamagedError
				require.ErrorAs(t, err, &de)
				require.Contains(t, err.Error(), path)
				require.Contains(t, err.Error(), "want ")
			})
		}
	}
}

func readAll(dir string) error {
	s, err := results.Open(dir)
	if err != nil {
		return err
	}
	r, err := s.Load()
	if err != nil {
		return err
	}
	return s.Check(r)
}

// Proves that a file that is gone from a complete run is damage, and a repetition that an incomplete
// run never came to is not.
func TestMissingFileIsDamage(t *testing.T) {
	for _, name := range []string{results.ResultFile, results.HistFile, results.SeriesFile} {
		s := write(t, smallest())
		path := filepath.Join(s.RepDir(load(t, s).Manifest.Cells[0], 0), name)
		require.NoError(t, os.Remove(path))
		err := readAll(s.Dir())
		var de *results.DamagedError
		require.ErrorAs(t, err, &de, name)
		require.Equal(t, path, de.Path)
		require.ErrorContains(t, err, "the file is missing: restore the file or run it again")
	}
	s := write(t, smallest())
	m := load(t, s).Manifest
	require.NoError(t, os.RemoveAll(s.RepDir(m.Cells[0], 0)))
	m.Complete, m.Reason = false, "interrupted"
	require.NoError(t, s.WriteManifest(m))
	require.NoError(t, readAll(s.Dir()))
}

// Proves that hist.bin decoding survives arbitrary bytes.
func FuzzDecodeHists(f *testing.F) {
	h := results.NewHistogram()
	_ = h.RecordValues(5000, 7) // in range
	b, err := results.EncodeHists([]results.Hist{{Part: results.PartOpen, Name: "response", Whole: true, DurS: 1, H: h}})
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[8 : len(b)-4])
	f.Add([]byte("rmqhist1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Once as it is, and once with a checksum that fits, to get behind the check.
		sealed := append([]byte("rmqhist1"), b...)
		sealed = binary.LittleEndian.AppendUint32(sealed, crc32.ChecksumIEEE(sealed))
		for _, in := range [][]byte{b, sealed} {
			if hs, err := results.DecodeHists(in); err == nil {
				_, err = results.EncodeHists(hs)
				require.NoError(t, err)
			}
		}
	})
}

// Proves that Create refuses a directory with a run, one that cannot be written and a path through
// a file, each with the fix in the line, and leaves nothing behind.
func TestCreateRefusals(t *testing.T) {
	s := write(t, smallest())
	_, err := results.Create(s.Dir(), &results.Manifest{})
	require.ErrorIs(t, err, results.ErrExists)
	require.Contains(t, err.Error(), "--out")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err = results.Create(filepath.Join(file, "sub"), &results.Manifest{})
	require.ErrorIs(t, err, results.ErrNotWritable)
	_, err = results.Create(file, &results.Manifest{})
	require.ErrorIs(t, err, results.ErrNotWritable)

	if os.Geteuid() == 0 {
		// Root may write anywhere; a directory of the kernel's refuses even root.
		_, err = results.Create("/proc/rmqbench/out", &results.Manifest{})
		require.ErrorIs(t, err, results.ErrNotWritable)
		return
	}
	ro := filepath.Join(t.TempDir(), "ro")
	require.NoError(t, os.Mkdir(ro, 0o555))
	_, err = results.Create(filepath.Join(ro, "out"), &results.Manifest{})
	require.ErrorIs(t, err, results.ErrNotWritable)
	require.Contains(t, err.Error(), "--out")
	left, err := os.ReadDir(ro)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Proves that a directory without a run is told from a damaged one.
func TestOpenWithoutRun(t *testing.T) {
	_, err := results.Open(t.TempDir())
	require.ErrorIs(t, err, results.ErrNoRun)
	var de *results.DamagedError
	require.NotErrorAs(t, err, &de)
}

// Proves that writing over a file leaves no temporary behind and keeps the old file on an error.
func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, results.WriteFileAtomic(path, []byte("one")))
	require.NoError(t, results.WriteFileAtomic(path, []byte("two")))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(b))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	require.Error(t, results.WriteFileAtomic(filepath.Join(dir, "d"), []byte("x")), "a directory is in the way")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

// Proves that a cell's name is a safe path element, and that other factors give another name.
func TestCellID(t *testing.T) {
	c := results.Cell{Driver: "embedded", Flush: "sync", Repl: "none", Write: "pwrite", Topics: 256, Queues: 8, SizeBytes: 1024, Producers: 64, Window: 1}
	require.Equal(t, "sync-none-pwrite-t256-q8-1KiB-p64-w1-embedded", c.ID())
	seen := map[string]bool{c.ID(): true}
	for i, edit := range []func(*results.Cell){
		func(c *results.Cell) { c.Flush = "async" }, func(c *results.Cell) { c.Write = "mmap" }, func(c *results.Cell) { c.Topics = 1 },
		func(c *results.Cell) { c.Rate = "50%" }, func(c *results.Cell) { c.Keys = "zipf:0.99" }, func(c *results.Cell) { c.Extra = map[string]string{"../x": "/y"} },
		func(c *results.Cell) { c.Window = 2 }, func(c *results.Cell) { c.Entropy = 0.5 }, func(c *results.Cell) { c.Arrival = "poisson" }, func(c *results.Cell) { c.Consumers = 4 },
	} {
		o := c
		edit(&o)
		require.False(t, seen[o.ID()], "edit %d: %s twice", i, o.ID())
		require.NotContains(t, o.ID(), "/")
		require.Equal(t, o.ID(), filepath.Base(o.ID()))
		seen[o.ID()] = true
	}
}
