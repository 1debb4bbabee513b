//go:build interop

package interop

import (
	"bytes"
	"compress/gzip"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/test/compat"
)

var regenerate = flag.Bool("regenerate", false, "write the sample directories of test/compat anew")

// TestGoldens proves that the sample directories which package compat holds are still what Apache
// would answer; with -regenerate it lets Apache write them anew.
func TestGoldens(t *testing.T) {
	for _, g := range compat.Goldens {
		t.Run(g.Name, func(t *testing.T) {
			l := store49
			if g.Name[len("apache-")] == '5' {
				l = store53
			}
			args := []string{"seed=1", "body=120", "topics=3", "queues=2", "pause=20"}
			if g.PropCRC {
				args = append(args, "propcrc=true", "v2=true")
			}
			at := filepath.Join("..", "compat")
			if *regenerate {
				dir := t.TempDir()
				if g.Killed {
					l.killed(t, dir, g.Sizes, 400, append(args, "flush=sync")...)
				} else {
					l.run(t, dir, g.Sizes, append(args, "put=320")...)
				}
				require.NoError(t, os.RemoveAll(filepath.Join(at, g.Dir())))
				require.NoError(t, compat.CopyDir(dir, filepath.Join(at, g.Dir())))
			}
			cmd := l.command(t, copyDir(t, filepath.Join(at, g.Dir())), g.Sizes, append(args, "dump")...)
			answers, err := cmd.Output()
			require.NoError(t, err)
			if *regenerate {
				var packed bytes.Buffer
				w := gzip.NewWriter(&packed)
				_, _ = w.Write(answers)
				require.NoError(t, w.Close())
				require.NoError(t, os.WriteFile(filepath.Join(at, g.AnswersPath()), packed.Bytes(), 0o644))
				vectors, err := l.command(t, "", g.Sizes, "vectors").Output()
				require.NoError(t, err)
				name := "vectors-" + g.Name[len("apache-"):len("apache-4.9.8")] + ".jsonl"
				require.NoError(t, os.WriteFile(filepath.Join(at, "testdata", name), vectors, 0o644))
				return
			}
			r, err := os.Open(filepath.Join(at, g.AnswersPath()))
			require.NoError(t, err)
			defer r.Close()
			z, err := gzip.NewReader(r)
			require.NoError(t, err)
			var want bytes.Buffer
			_, err = want.ReadFrom(z)
			require.NoError(t, err)
			require.Equal(t, lasting(want.String()), lasting(string(answers)))
		})
	}
}

// lasting drops the answers to queries by time: 4.9 goes by when files were last modified, which a
// checkout does not keep.
func lasting(answers string) string {
	var b strings.Builder
	for line := range strings.Lines(answers) {
		if !strings.HasPrefix(line, `{"op":"time"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}
