package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// TestRetract proves that a tail that readers have seen can be taken back under a running store: it is
// kept aside, queues and index forget it, other records take its place, and neither a reopen nor a
// crash brings it back.
func TestRetract(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("checkpoint=%v,crash=%v", checkpoint, crash), func(t *testing.T) {
				ctx := context.Background()
				heap := vfs.NewHeap()
				o := small(heap, "/s")
				s := open(t, o)
				a := fill(t, s, 1, 50)
				cut := s.Appended()
				b := fill(t, s, 2, 120)
				check(t, s, append(a, b...))
				if checkpoint {
					require.NoError(t, s.Checkpoint(ctx))
				}
				require.NoError(t, s.Retract(ctx, cut))
				require.Equal(t, cut, s.Appended())
				require.Equal(t, cut, s.Visible())
				for _, m := range b {
					found, err := s.QueryKey(m.topic, m.key, 64, 0, 1<<62)
					require.NoError(t, err)
					require.Empty(t, found)
				}
				kept, err := heap.ReadDir("/s/rmq/broken")
				require.NoError(t, err)
				require.NotEmpty(t, kept)
				s.SetConfirm(1 << 60)
				c := fill(t, s, 3, 80)
				all := append(a, c...)
				check(t, s, all)
				if crash {
					require.NoError(t, s.Flush(ctx))
					o.FS = heap.CrashImage(7)
				}
				require.NoError(t, s.Close())
				s = open(t, o)
				check(t, s, all)
				all = append(all, fill(t, s, 4, 20)...)
				check(t, s, all)
				require.NoError(t, s.Close())
			})
		}
	}
}

// TestRetractFollower proves that the copy of another log can be cut at a record, and nowhere else, and
// goes on there.
func TestRetractFollower(t *testing.T) {
	ctx := context.Background()
	master := open(t, small(vfs.NewHeap(), "/m"))
	defer master.Close()
	all := fill(t, master, 1, 100)
	slave := open(t, small(vfs.NewHeap(), "/s"))
	feed := func(to int64) {
		for pos := slave.Appended(); pos < to; pos = slave.Appended() {
			r, err := master.ReadRaw(pos, int(min(5000, to-pos)), UptoWritten)
			require.NoError(t, err)
			require.NoError(t, slave.AppendRaw(ctx, pos, r.Bytes))
			r.Release()
		}
	}
	feed(master.Appended())
	check(t, slave, all)
	cut := all[40].res.Pos
	require.ErrorContains(t, slave.Retract(ctx, cut+33), "magic")
	check(t, slave, all)
	require.NoError(t, slave.Retract(ctx, cut))
	require.ErrorIs(t, slave.Retract(ctx, cut+1), ErrOffsetTooLarge)
	slave.SetConfirm(1 << 60)
	check(t, slave, all[:40])
	feed(master.Appended())
	check(t, slave, all)
	require.NoError(t, slave.Close())
}
