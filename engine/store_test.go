package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var modes = []struct {
	flush FlushMode
	write WriteMode
}{{AsyncFlush, WritePwrite}, {SyncFlush, WritePwrite}, {AsyncFlush, WriteMmap}, {SyncFlush, WriteMmap}, {SyncFlush, WriteMmapWarmed}}

// TestAppendReadReopen proves that what was appended is read back the same by queue offset, by
// position and by key, before and after a clean reopen, over many rolls, in every mode.
func TestAppendReadReopen(t *testing.T) {
	for _, m := range modes {
		t.Run(fmt.Sprintf("%v-%v", m.flush, m.write), func(t *testing.T) {
			o := small(vfs.OS, t.TempDir())
			o.Flush, o.Write = m.flush, m.write
			s := open(t, o)
			require.True(t, s.Recovery().New)
			all := fill(t, s, 1, 200)
			check(t, s, all)
			require.NoError(t, s.Close())

			s = open(t, o)
			require.True(t, s.Recovery().Clean)
			require.Zero(t, s.Recovery().Replayed)
			check(t, s, all)
			all = append(all, fill(t, s, 2, 100)...)
			check(t, s, all)
			require.NoError(t, s.Close())
			require.NoError(t, s.Close(), "a second Close does nothing")
		})
	}
}

// TestConcurrentProducers proves that many goroutines get dense queue offsets in log order, by
// the blocking call and by completions, and that completions come in log order.
func TestConcurrentProducers(t *testing.T) {
	for _, flush := range []FlushMode{AsyncFlush, SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			o := small(vfs.OS, t.TempDir())
			o.Flush = flush
			s := open(t, o)
			defer s.Close()
			const producers, each = 8, 100
			var (
				wg   sync.WaitGroup
				mu   sync.Mutex
				seen = map[int64]bool{}
				last int64
				done = make(chan struct{}, producers*each)
			)
			note := func(r Result) {
				mu.Lock()
				defer mu.Unlock()
				require.False(t, seen[r.QueueOffset])
				seen[r.QueueOffset] = true
			}
			for p := range producers {
				wg.Go(func() {
					for i := range each {
						rec := record("T", 0, make([]byte, 100), fmt.Sprintf("%d-%d", p, i))
						if p%2 == 0 {
							r, err := s.Append(context.Background(), rec)
							require.NoError(t, err)
							note(r)
							done <- struct{}{}
							continue
						}
						s.Submit(&Append{Record: rec, Done: func(a *Append) {
							if a.Err != nil || a.Result.Pos < last {
								panic(fmt.Sprint("completion out of order or failed: ", a.Err))
							}
							last = a.Result.Pos
							note(a.Result)
							done <- struct{}{}
						}})
					}
				})
			}
			wg.Wait()
			for range producers * each {
				<-done
			}
			require.Len(t, seen, producers*each)
			require.NoError(t, s.WaitDispatched(context.Background(), "T", 0, producers*each))
			low, high, ok := s.QueueRange("T", 0)
			require.True(t, ok)
			require.Equal(t, [2]int64{0, producers * each}, [2]int64{low, high})
		})
	}
}

// TestReadersKeepTheirBytes proves that what a reader holds stays as it is while the log goes on, in
// memory and on disk, however little of the tail is kept.
func TestReadersKeepTheirBytes(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		o := small(vfs.OS, t.TempDir())
		o.TailCache = 1
		s := open(t, o)
		type held struct {
			r *ReadResult
			m sent
		}
		var all []held
		for round := range uint64(12) {
			list := fill(t, s, round, 30)
			for i, m := range list {
				if !fresh && i < 20 || fresh && i%5 > 0 {
					continue
				}
				r, err := s.Lookup(m.res.Pos)
				require.NoError(t, err)
				all = append(all, held{r, m})
			}
		}
		for _, x := range all {
			requireRecord(t, x.r, x.m)
			x.r.Release()
		}
		require.NoError(t, s.Close())
	}
}
