package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// TestGoldenOpens proves that our engine opens directories which Apache wrote, stopped cleanly or
// killed, and answers every question as Apache did; and once more after our own clean stop.
func TestGoldenOpens(t *testing.T) {
	for _, g := range Goldens {
		t.Run(g.Name, func(t *testing.T) {
			dir, want := g.Load(t)
			for _, when := range []string{"adopted", "reopened"} {
				t.Run(when, func(t *testing.T) {
					s := g.Sizes.Open(t, dir)
					require.Equal(t, when == "adopted", s.Recovery().Adopted)
					require.Equal(t, when == "reopened" || !g.Killed, s.Recovery().Clean)
					require.Zero(t, s.Recovery().CutBytes)
					Check(t, s, want)
					require.NoError(t, s.Close())
					require.NoFileExists(t, filepath.Join(dir, "abort"))
				})
			}
		})
	}
}

// TestGoldenQueues proves that queues rebuilt from the log of a golden directory are Apache's byte
// for byte. The killed one had no time to write all of them, so there only the clean one counts.
func TestGoldenQueues(t *testing.T) {
	for _, g := range Goldens {
		if g.Killed {
			continue
		}
		t.Run(g.Name, func(t *testing.T) {
			dir, want := g.Load(t)
			CheckRebuiltQueues(t, g.Sizes, dir, want, false)
		})
	}
}

// TestGoldenUntouched proves that opening and closing a clean Apache directory leaves its log,
// queues, index and configuration byte for byte as they were.
func TestGoldenUntouched(t *testing.T) {
	for _, g := range Goldens {
		if g.Killed {
			continue
		}
		t.Run(g.Name, func(t *testing.T) {
			dir, _ := g.Load(t)
			before := contents(t, dir)
			require.NoError(t, g.Sizes.Open(t, dir).Close())
			after := contents(t, dir)
			for name := range before {
				if name == "checkpoint" {
					continue // ours holds other times, never later ones than the store's
				}
				require.Empty(t, cmp.Diff(before[name], after[name]), name)
			}
		})
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		all[rel] = string(b)
		return err
	}))
	return all
}

// TestFilesMadeButNotSized proves that our engine opens a directory whose writer was killed between
// creating a file and giving it its size: a file of no bytes at the end of the log, of a queue, of
// the index. 5.x removes such a file, 4.9 refuses the directory.
func TestFilesMadeButNotSized(t *testing.T) {
	for _, kind := range []string{"commitlog", "consumequeue/TopicA/0", "consumequeue/TopicNew/0", "index"} {
		t.Run(kind, func(t *testing.T) {
			g := Goldens[1]
			require.True(t, g.Killed)
			dir, want := g.Load(t)
			made := filepath.Join(dir, kind)
			require.NoError(t, os.MkdirAll(made, 0o755))
			entries, err := os.ReadDir(made)
			require.NoError(t, err)
			name := "00000000000000000000"
			if len(entries) > 0 {
				last := entries[len(entries)-1].Name()
				n, err := strconv.ParseInt(last, 10, 64)
				require.NoError(t, err)
				step := map[string]int64{"commitlog": g.Sizes.Segment, "index": 1}[kind]
				if step == 0 {
					step = g.Sizes.QueueFile
				}
				name = fmt.Sprintf("%0*d", len(last), n+step)
			}
			require.NoError(t, os.WriteFile(filepath.Join(made, name), nil, 0o644))
			s := g.Sizes.Open(t, dir)
			Check(t, s, want)
			require.NoError(t, s.Close())
			s = g.Sizes.Open(t, dir)
			require.True(t, s.Recovery().Clean)
			Check(t, s, want)
		})
	}
}
