package engine

import (
	"context"
	"errors"
	"os"
	"path"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// TestMend proves that damaged bytes of a log can be replaced under a running store by those of another copy, that
// what stood there is kept and what is written there survives a power cut, that nothing else may be overwritten,
// and that a sync which fails ends the store as any other does.
func TestMend(t *testing.T) {
	heap := vfs.NewHeap()
	faulty := vfs.NewFaulty(heap)
	o := small(faulty, "/s")
	o.Flush, o.TailCache = SyncFlush, 1
	s := open(t, o)
	all := fill(t, s, 1, 200)
	require.NoError(t, s.WaitDispatchedPos(context.Background(), s.Max()))
	m := all[30]
	right, err := s.ReadRaw(m.res.Pos, int(m.res.Size), UptoVisible)
	require.NoError(t, err)
	good := append([]byte(nil), right.Bytes...)
	right.Release()
	segment := path.Join("/s/commitlog", format.FileName(m.res.Pos-m.res.Pos%o.SegmentBytes))
	f, err := heap.OpenFile(segment, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 40), m.res.Pos%o.SegmentBytes+20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := s.Get(m.topic, m.queue, m.res.QueueOffset, 1, 1<<20)
	var damage *CorruptionError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, segment, damage.Path)
	r.Release()

	require.NoError(t, s.Mend(m.res.Pos, good))
	check(t, s, all)
	kept, err := heap.ReadDir("/s/rmq/broken")
	require.NoError(t, err)
	require.Len(t, kept, 1)
	b, err := vfs.ReadFile(heap, path.Join("/s/rmq/broken", kept[0].Name()))
	require.NoError(t, err)
	require.Len(t, b, len(good))
	require.NotEqual(t, good, b)

	require.ErrorIs(t, s.Mend(s.Max()-1, good), ErrOffsetTooLarge)
	require.ErrorIs(t, s.Mend(-1, good), ErrOffsetTooSmall)
	require.ErrorIs(t, s.Mend(o.SegmentBytes-1, good), ErrOffsetTooLarge, "two segments")

	after := small(heap.CrashImage(1), "/s")
	after.Flush = SyncFlush
	again := open(t, after)
	check(t, again, all)
	require.NoError(t, again.Close())

	failed := errors.New("no more")
	for _, dir := range []string{"commitlog", "rmq/prepared"} { // segments keep the name under which they were made
		faulty.Add(vfs.Rule{Op: vfs.OpSync, Match: "/s/" + dir + "/*", Err: failed})
	}
	require.ErrorIs(t, s.Mend(m.res.Pos, good), ErrPoisoned)
	_, err = s.Append(context.Background(), record("T", 0, nil, "k"))
	require.ErrorIs(t, err, ErrPoisoned)
	require.Error(t, s.Close())
	require.ErrorIs(t, s.Mend(m.res.Pos, good), ErrPoisoned)
}
