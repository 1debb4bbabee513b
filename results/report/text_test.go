package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/report"
	"rmq/results/resultstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run with -update to write it")
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs; run with -update and read the diff.\ngot:\n%s", path, got)
	}
}

func open(t *testing.T, o resultstest.Options) *report.Renderer {
	t.Helper()
	s, err := resultstest.Write(filepath.Join(t.TempDir(), "run"), o)
	require.NoError(t, err)
	r, err := report.New(s)
	require.NoError(t, err)
	return r
}

func oneCell() resultstest.Options {
	return resultstest.Options{Cells: resultstest.Matrix([]string{"sync"}, []int{1}, []int{64}), Reps: 5}
}

func quick() resultstest.Options { return resultstest.Options{Label: "smoke", DurS: 3} }

func replicated() resultstest.Options {
	return resultstest.Options{Cells: resultstest.Replicated([]string{"async", "sync"}, []string{"none", "async", "sync", "raft"}, []int{1, 256}), DurS: 3}
}

// Proves the terminal screens, of one cell and of matrices, to the byte; cells of different durability classes never
// stand in one table.
func TestText(t *testing.T) {
	one := replicated()
	one.Cells = one.Cells[6:7]
	for name, o := range map[string]resultstest.Options{"one": oneCell(), "quick": quick(), "replicated": replicated(), "onereplicated": one} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, open(t, o).Text(&b))
			golden(t, name+".txt", b.Bytes())
		})
	}
}

// Proves that the JSON form parses, begins with the schema and carries sentences and cells.
func TestJSON(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, open(t, quick()).JSON(&b))
	require.True(t, bytes.HasPrefix(b.Bytes(), []byte("{\n  \"schema\": 1,")))
	var v struct {
		Sentences []string
		Summary   struct{ Cells []map[string]any }
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &v))
	require.Len(t, v.Summary.Cells, 8)
	require.NotEmpty(t, v.Sentences)
}

// Proves the Markdown report to the byte.
func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, open(t, quick()).Markdown(&b))
	golden(t, "quick.md", b.Bytes())
}

// Proves the comparison in text and Markdown to the byte: what differs stands first.
func TestCompare(t *testing.T) {
	load := func(name string, o resultstest.Options) *results.Run {
		s, err := resultstest.Write(filepath.Join(t.TempDir(), name), o)
		require.NoError(t, err)
		r, err := s.Load()
		require.NoError(t, err)
		r.Dir = name
		return r
	}
	a := resultstest.Options{Reps: 6, DurS: 3}
	b := a
	b.Cells = resultstest.Matrix([]string{"async", "sync"}, []int{1, 256}, []int{64})
	for i := range b.Cells {
		b.Cells[i].Write = "mmap"
	}
	b.Edit = func(r *results.Rep) {
		if r.Block == 1 && r.Cell.Topics == 256 {
			r.Closed.Resources.StealS = results.Ptr(2.0)
		}
	}
	c := results.Compare(load("a", a), load("b", b), results.CompareOptions{})
	var text, md, js bytes.Buffer
	require.NoError(t, report.CompareText(&text, c))
	require.NoError(t, report.CompareMarkdown(&md, c))
	require.NoError(t, report.CompareJSON(&js, c))
	golden(t, "compare.txt", text.Bytes())
	golden(t, "compare.md", md.Bytes())
	require.True(t, bytes.HasPrefix(js.Bytes(), []byte("{\n  \"schema\": 1,")))
}
