package engine

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// killed copies the directory of a running store: what a process that dies at this moment leaves.
func killed(t *testing.T, s *Store) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(s.o.Dir)))
	return dir
}

// TestReopenAfterKill proves that a store that was not closed comes back with every acked record,
// with and without checkpoints in between, and goes on.
func TestReopenAfterKill(t *testing.T) {
	for _, m := range modes {
		t.Run(fmt.Sprintf("%v-%v", m.flush, m.write), func(t *testing.T) {
			o := small(vfs.OS, t.TempDir())
			o.Flush, o.Write = m.flush, m.write
			s := open(t, o)
			all := fill(t, s, 1, 100)
			for round := range 3 {
				if round == 1 {
					require.NoError(t, s.Checkpoint(context.Background()))
				}
				all = append(all, fill(t, s, uint64(10+round), 60)...)
				copied := o
				copied.Dir = killed(t, s)
				r := open(t, copied)
				require.False(t, r.Recovery().Clean)
				require.Zero(t, r.Recovery().CutBytes)
				require.Equal(t, s.Appended(), r.Recovery().End)
				check(t, r, all)
				more := fill(t, r, 99, 20)
				check(t, r, append(append([]sent{}, all...), more...))
				require.NoError(t, r.Close())
				r = open(t, copied)
				require.True(t, r.Recovery().Clean)
				check(t, r, append(append([]sent{}, all...), more...))
				require.NoError(t, r.Close())
			}
			require.NoError(t, s.Close())
		})
	}
}

// TestQueuesAreRebuilt proves that queues and index, lost or damaged, come back from the log.
func TestQueuesAreRebuilt(t *testing.T) {
	for _, lost := range [][]string{
		{"consumequeue", "rmq/queues.journal", "rmq/queues"},
		{"index"},
		{"rmq"},
		{"rmq", "consumequeue", "index"},
		{"checkpoint"},
		{"rmq/state"},
	} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			o := small(vfs.OS, t.TempDir())
			s := open(t, o)
			all := fill(t, s, 1, 200)
			require.NoError(t, s.Close())
			before := queueFilesOf(t, o.Dir)
			for _, name := range lost {
				require.NoError(t, os.RemoveAll(path.Join(o.Dir, name)))
			}
			s = open(t, o)
			check(t, s, all)
			require.NoError(t, s.Close())
			require.Equal(t, before, queueFilesOf(t, o.Dir), "the queues come out byte for byte")
		})
	}
}

// queueFilesOf reads every consume-queue file.
func queueFilesOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	root := path.Join(dir, "consumequeue")
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(root, p)
		out[rel] = b
		return err
	}))
	require.NotEmpty(t, out)
	return out
}

// TestTornTail proves that recovery cuts at the last good record, keeps what it cut, and never
// brings it back: garbage, a record torn in its body, a stale record at another offset.
func TestTornTail(t *testing.T) {
	garbage := bytes.Repeat([]byte{0xA5, 0, 7}, 100)
	for name, tail := range map[string]func(last []byte) []byte{
		"garbage": func([]byte) []byte { return garbage },
		"torn":    func(last []byte) []byte { return last[:len(last)-30] },
		"stale":   func(last []byte) []byte { return last },
		"body":    func(last []byte) []byte { b := bytes.Clone(last); b[90] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			o := small(vfs.OS, t.TempDir())
			s := open(t, o)
			all := fill(t, s, 1, 50)
			end := s.Appended()
			copied := o
			copied.Dir = killed(t, s)
			require.NoError(t, s.Close())

			last := record("Topic0", 0, make([]byte, 200), "late")
			o.Stamp = nil
			file := path.Join(copied.Dir, "commitlog", format.FileName(end-end%o.SegmentBytes))
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			require.NoError(t, err)
			b := tail(last)
			_, err = f.WriteAt(b, end%o.SegmentBytes)
			require.NoError(t, err)
			require.NoError(t, f.Close())

			r := open(t, copied)
			rep := r.Recovery()
			require.Equal(t, end, rep.End)
			require.Positive(t, rep.CutBytes)
			require.Len(t, rep.Broken, 1)
			kept, err := os.ReadFile(rep.Broken[0])
			require.NoError(t, err)
			require.Equal(t, bytes.TrimRight(b, "\x00"), kept)
			more := fill(t, r, 2, 30)
			check(t, r, append(all, more...))
			require.NoError(t, r.Close())
		})
	}
}

// TestAlienRecords proves that a whole record with a good checksum is not taken for one of this log
// where it is not: it says that it stands elsewhere, or that its queue is elsewhere.
func TestAlienRecords(t *testing.T) {
	for name, move := range map[string]struct{ pos, queueOffset int64 }{
		"position before":      {pos: -1000},
		"position behind":      {pos: 1},
		"queue offset taken":   {queueOffset: -1},
		"queue offset to come": {queueOffset: 1},
	} {
		for _, foreign := range []bool{false, true} {
			if foreign && move.pos == 0 {
				continue // the original leaves gaps: they are closed
			}
			t.Run(fmt.Sprintf("%s foreign=%v", name, foreign), func(t *testing.T) {
				base := vfs.NewHeap()
				o := small(base, "/s")
				s := open(t, o)
				all := fill(t, s, 1, 50)
				end, next := s.Appended(), int64(0)
				for _, m := range all {
					if m.topic == "Topic1" && m.queue == 1 {
						next = m.res.QueueOffset + 1
					}
				}
				require.NoError(t, s.Checkpoint(context.Background()))
				img := base.KillImage()
				require.NoError(t, s.Close())
				rec := record("Topic1", 1, []byte("alien"), "alien")
				put := func(queueOffset, pos int64) RecoveryReport {
					message.StampRecord(rec, queueOffset, pos, 1_800_000_000_000)
					fs := img.KillImage()
					if foreign {
						require.NoError(t, fs.RemoveAll("/s/rmq"))
					}
					f, err := fs.OpenFile(path.Join("/s/commitlog", format.FileName(end-end%o.SegmentBytes)), os.O_RDWR, 0)
					require.NoError(t, err)
					_, err = f.WriteAt(rec, end%o.SegmentBytes)
					require.NoError(t, err)
					require.NoError(t, f.Close())
					o.FS = fs
					s := open(t, o)
					check(t, s, all)
					require.NoError(t, s.Close())
					return s.Recovery()
				}
				require.Equal(t, end+int64(len(rec)), put(next, end).End, "it is taken where it belongs")
				rep := put(next+move.queueOffset, end+move.pos)
				require.Equal(t, end, rep.End)
				require.EqualValues(t, len(rec), rep.CutBytes)
				require.NotEmpty(t, rep.CutReason)
			})
		}
	}
}

// TestAlienRecordUnderReaders proves that a cold read compares the position, too.
func TestAlienRecordUnderReaders(t *testing.T) {
	base := vfs.NewHeap()
	o := small(base, "/s")
	s := open(t, o)
	rec := record("T", 0, []byte("one"), "k")
	var res []Result
	for range 2 {
		r, err := s.Append(context.Background(), rec)
		require.NoError(t, err)
		res = append(res, r)
	}
	require.NoError(t, s.Close())
	s = open(t, o)
	defer s.Close()
	f, err := base.OpenFile(path.Join("/s/commitlog", format.FileName(0)), os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, len(rec))
	_, err = f.ReadAt(b, res[0].Pos)
	require.NoError(t, err)
	_, err = f.WriteAt(b, res[1].Pos)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := s.Lookup(res[1].Pos)
	r.Release()
	var damage *CorruptionError
	require.ErrorAs(t, err, &damage)
	require.ErrorIs(t, err, errWrongPosition)
	r, err = s.Get("T", 0, 0, 2, 1<<20)
	require.ErrorAs(t, err, &damage)
	require.Equal(t, 1, r.Count(), "what stands before the damage is served")
	r.Release()
}

// TestDamageBelowFlushed proves that damage in what was on disk stops the opening with the place
// named, and that nothing is changed by it.
func TestDamageBelowFlushed(t *testing.T) {
	o := small(vfs.OS, t.TempDir())
	o.Flush = SyncFlush
	s := open(t, o)
	fill(t, s, 1, 50)
	require.NoError(t, s.Checkpoint(context.Background()))
	all := fill(t, s, 2, 50)
	require.NoError(t, s.Flush(context.Background()))
	s.keeper.mu.Lock()
	require.NoError(t, s.keeper.saveState(false))
	s.keeper.mu.Unlock()
	copied := o
	copied.Dir = killed(t, s)
	require.NoError(t, s.Close())
	hit := all[20].res.Pos
	f, err := os.OpenFile(path.Join(copied.Dir, "commitlog", format.FileName(hit-hit%o.SegmentBytes)), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xFF}, hit%o.SegmentBytes+4)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for range 2 {
		_, err = Open(context.Background(), copied)
		var damage *CorruptionError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, hit, damage.Offset)
	}
}

// TestSegmentMissing proves that a missing or short segment is refused with a hint, never papered over.
func TestSegmentMissing(t *testing.T) {
	o := small(vfs.OS, t.TempDir())
	s := open(t, o)
	fill(t, s, 1, 200)
	require.NoError(t, s.Close())
	second := path.Join(o.Dir, "commitlog", format.FileName(o.SegmentBytes))
	require.NoError(t, os.Rename(second, second+".away"))
	require.NoError(t, os.Rename(second+".away", path.Join(o.Dir, "away")))
	_, err := Open(context.Background(), o)
	require.ErrorContains(t, err, format.FileName(o.SegmentBytes))
	require.NoError(t, os.Rename(path.Join(o.Dir, "away"), second))
	require.NoError(t, os.Truncate(second, 100))
	_, err = Open(context.Background(), o)
	require.ErrorContains(t, err, "100 bytes")
}
