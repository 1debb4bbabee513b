package raftlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
)

// flip changes one bit of the log.
func flip(tb testing.TB, fsys vfs.FS, segmentBytes, pos int64) {
	tb.Helper()
	f, err := fsys.OpenFile(path.Join(nodeDir, "commitlog", fmt.Sprintf("%020d", pos-pos%segmentBytes)), os.O_RDWR, 0)
	require.NoError(tb, err)
	defer f.Close()
	b := []byte{0}
	_, err = f.ReadAt(b, pos%segmentBytes)
	require.NoError(tb, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, pos%segmentBytes)
	require.NoError(tb, err)
}

// TestDamage proves that a frame which was on disk and no longer reads is an error that says how to have
// the node refilled, when the store is opened and when the frame is read, and that nothing is cut for it.
func TestDamage(t *testing.T) {
	heap := vfs.NewHeap()
	o := small(heap, engine.SyncFlush)
	o.Engine.TailCache = 1
	s := openLog(t, o)
	last := script(t, s)
	end, ok := s.End(last - 1)
	require.True(t, ok)
	begin, ok := s.End(last - 2)
	require.True(t, ok)
	early, ok := s.End(5)
	require.True(t, ok)
	require.NoError(t, s.Close())

	// A frame in the part that recovery reads: what is not dispatched.
	img := heap.KillImage()
	flip(t, img, o.Engine.SegmentBytes, end-1)
	o.Engine.FS = img
	_, err := OpenLogStore(t.Context(), o)
	var damage *engine.CorruptionError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, begin, damage.Offset, "where the frame begins")
	require.ErrorContains(t, err, "start it empty")
	require.Empty(t, img.OpenFiles())
	_, err = img.Stat(path.Join(nodeDir, "rmq/broken"))
	require.ErrorIs(t, err, os.ErrNotExist, "nothing was cut")

	// A frame that recovery has no reason to read.
	o.Engine.FS = heap
	s = openLog(t, o)
	s.Commit(last)
	require.NoError(t, s.Engine().WaitDispatchedPos(t.Context(), s.Engine().Appended()))
	require.NoError(t, s.Close())
	flip(t, heap, o.Engine.SegmentBytes, early-1)
	s = openLog(t, o)
	_, err = s.Frame(5, 2)
	require.ErrorAs(t, err, &damage)
	require.ErrorIs(t, err, ErrFrameDamage)
	require.ErrorContains(t, err, "start it empty")
	require.NoError(t, s.Close())
}

// TestDiskFull proves that a full disk refuses entries while it lasts, with an error that says so, leaves
// nothing of a call that failed, and that the log goes on by itself when there is space.
func TestDiskFull(t *testing.T) {
	both(t, func(t *testing.T, flush engine.FlushMode) {
		heap := vfs.NewHeap()
		heap.SetCapacity(150 << 10)
		s := openLog(t, small(heap, flush))
		index := uint64(1)
		var err error
		for ; err == nil && index < 1000; index++ {
			b := s.Batch()
			require.NoError(t, b.Add(&engine.Append{Record: record("T", 0, make([]byte, 3000)), Done: func(*engine.Append) {}}))
			err = s.StoreLog(&raft.Log{Index: index, Term: 1, Data: b.Token()})
			if err != nil {
				require.Len(t, b.Abandon(), 1)
			}
			b.Free()
		}
		index--
		require.True(t, engine.IsFull(err), "%v", err)
		require.ErrorContains(t, err, fmt.Sprintf("store entry %d", index))
		last, err := s.LastIndex()
		require.NoError(t, err)
		require.Equal(t, index-1, last)
		heap.SetCapacity(64 << 20)
		require.Eventually(t, func() bool {
			return s.StoreLog(&raft.Log{Index: index, Term: 1, Type: raft.LogNoop}) == nil
		}, time.Minute, time.Millisecond)
		require.NoError(t, s.Close())
		s = openLog(t, small(heap, flush))
		last, err = s.LastIndex()
		require.NoError(t, err)
		require.Equal(t, index, last)
		require.NoError(t, s.Close())
	})
}

// TestRestart proves that a log that holds something begins anew behind a snapshot, at any position, that
// a crash at any moment leaves the old log's front or the new beginning, and that opening ends what was
// begun; and that snapshots of where the log begins say who was a member there.
func TestRestart(t *testing.T) {
	for _, fill := range []bool{false, true} {
		t.Run(fmt.Sprintf("filled=%v", fill), func(t *testing.T) {
			heap := vfs.NewHeap()
			fsys := vfs.NewFaulty(heap)
			o := small(fsys, engine.SyncFlush)
			s := openLog(t, o)
			if fill {
				script(t, s)
				s.Commit(20)
			}
			snaps, err := OpenSnapshots(fsys, path.Join(nodeDir, "rmq/raft"), s)
			require.NoError(t, err)
			start := Start{Index: 500, Term: 9, Pos: 40<<10 + 1000}
			data, err := snaps.envelope(start.Pos, []byte("docs"))
			require.NoError(t, err)
			members := raft.DecodeConfiguration(configuration("x", "y"))
			require.NoError(t, snaps.Stage(start.Index, start.Term, members, 444, data))
			var images []*vfs.Heap
			var mu sync.Mutex
			fsys.Before(func(c vfs.Call) {
				mu.Lock() // segments are prepared meanwhile
				defer mu.Unlock()
				if c.N > 0 {
					images = append(images, heap.CrashImage(uint64(c.N)))
				}
			})
			require.NoError(t, s.Restart(t.Context(), snaps))
			fsys.Before(nil)
			mu.Lock()
			taken := images
			mu.Unlock()
			goOn := func(s *LogStore) {
				require.Equal(t, start, s.Start())
				require.ErrorContains(t, s.StoreLog(&raft.Log{Index: 1, Term: 9, Type: raft.LogNoop}), "ends with entry 500")
				require.NoError(t, s.StoreLog(&raft.Log{Index: 501, Term: 10, Type: raft.LogNoop}))
				as := lead(t, s, 502, 10, []byte("anew"))
				require.Zero(t, as[0].Result.QueueOffset)
				s.Commit(502)
				require.NoError(t, s.Engine().WaitDispatchedPos(t.Context(), s.Engine().Appended()))
				first, err := s.FirstIndex()
				require.NoError(t, err)
				require.EqualValues(t, 501, first)
			}
			goOn(s)
			snaps.Serve(true)
			metas, err := snaps.List()
			require.NoError(t, err)
			require.EqualValues(t, 500, metas[0].Index)
			require.EqualValues(t, 444, metas[0].ConfigurationIndex)
			require.Equal(t, members, metas[0].Configuration)
			require.NoError(t, s.Close())
			s = openLog(t, o)
			require.Equal(t, start, s.Start())
			require.NoError(t, s.Close())
			require.NotEmpty(t, taken)
			for i, img := range taken {
				o.Engine.FS = img
				s, err := OpenLogStore(context.Background(), o)
				require.NoError(t, err, "cut before call %d", i)
				if s.Start().Index > 0 {
					goOn(s)
				}
				require.NoError(t, s.Close())
			}
		})
	}
}

// TestBytesWritten proves that the payload is written once: all that a node writes beside the log, index
// and padding, is a tenth of it at most, for batches of the size that a busy group has.
func TestBytesWritten(t *testing.T) {
	o := small(vfs.OS, engine.SyncFlush)
	o.Engine.Dir, o.Engine.SegmentBytes, o.Engine.MaxPending, o.Engine.MaxUnflushed = path.Join(t.TempDir(), "raft-n0"), 64<<20, 0, 0
	s := openLog(t, o)
	defer s.Close()
	bodies := make([][]byte, 64)
	for i := range bodies {
		bodies[i] = make([]byte, 1024)
	}
	for i := range uint64(200) {
		lead(t, s, i+1, 1, bodies...)
	}
	st := s.Engine().Stats()
	index := 200 * sideEntry
	require.Less(t, float64(st.WriteBytes)+float64(index), 1.1*float64(st.RecordBytes))
}

// FuzzRecovery proves that whatever stands where the log should, opening it either works, with entries
// that read back and go on, or is refused, and never panics or hangs.
func FuzzRecovery(f *testing.F) {
	heap := vfs.NewHeap()
	s := openLog(f, small(heap, engine.AsyncFlush))
	last := script(f, s)
	img := heap.KillImage()
	end := s.Engine().Appended()
	require.NoError(f, s.Close())
	f.Add(int64(0), []byte{0})
	f.Add(end/2, []byte{1, 2, 3})
	f.Add(end-10, bytes.Repeat([]byte{0}, 64))
	f.Add(int64(100), frame(Header{Type: FrameNoop, Index: 9, Term: 9, Pos: 100}, nil))
	f.Fuzz(func(t *testing.T, pos int64, b []byte) {
		seg := int64(16 << 10)
		if pos < 0 || pos >= end {
			return
		}
		fsys := img.KillImage()
		g, err := fsys.OpenFile(path.Join(nodeDir, "commitlog", fmt.Sprintf("%020d", pos-pos%seg)), os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = g.WriteAt(b[:min(int64(len(b)), seg-pos%seg)], pos%seg)
		require.NoError(t, err)
		require.NoError(t, g.Close())
		s, err := OpenLogStore(context.Background(), small(fsys, engine.AsyncFlush))
		if err != nil {
			require.Empty(t, fsys.OpenFiles())
			return
		}
		got, err := s.LastIndex()
		require.NoError(t, err)
		require.LessOrEqual(t, got, last+1)
		if got > 0 {
			_, err = s.Hash(1, got)
			require.NoError(t, err)
		}
		require.NoError(t, s.StoreLog(&raft.Log{Index: got + 1, Term: 1 << 40, Type: raft.LogNoop}))
		require.NoError(t, s.Close())
	})
}

// BenchmarkStoreLogs measures an entry of 64 messages of 1 KiB: stamped and written by a leader, checked
// and written by a follower; no sync is waited for.
func BenchmarkStoreLogs(b *testing.B) {
	open := func(b *testing.B) *LogStore {
		return openLog(b, LogStoreOptions{Engine: engine.Options{Dir: path.Join(b.TempDir(), "raft-n0"), IndexDisabled: true}})
	}
	b.Run("leader", func(b *testing.B) {
		s := open(b)
		defer s.Close()
		as := make([]*engine.Append, 64)
		for i := range as {
			as[i] = &engine.Append{Record: record("T", int32(i%8), make([]byte, 1024)), Done: func(*engine.Append) {}}
		}
		b.SetBytes(64 << 10)
		b.ReportAllocs()
		index := uint64(0)
		for b.Loop() {
			index++
			batch := s.Batch()
			for _, a := range as {
				a.Done = func(*engine.Append) {}
				require.NoError(b, batch.Add(a))
			}
			require.NoError(b, s.StoreLog(&raft.Log{Index: index, Term: 1, Data: batch.Token()}))
			batch.Free()
			s.Commit(index)
		}
	})
	b.Run("follower", func(b *testing.B) {
		s := open(b)
		defer s.Close()
		body := bytes.Repeat(record("T", 0, make([]byte, 1024)), 64)
		h := Header{Type: FrameData, Messages: 64, Term: 1}
		f := append(make([]byte, HeaderBytes), body...)
		b.SetBytes(64 << 10)
		b.ReportAllocs()
		for b.Loop() {
			h.Index++
			if seg := int64(1 << 30); seg-h.Pos%seg < int64(len(f))+8 {
				h.Pos += seg - h.Pos%seg
			}
			pos := h.Pos
			h.seal(f, pos)
			require.NoError(b, s.StoreLog(&raft.Log{Index: h.Index, Term: 1, Data: f}))
			h.Pos, h.PrevTerm = pos+int64(len(f)), 1
		}
	})
}
