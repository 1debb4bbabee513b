package engine

import (
	"context"
	"os"
	"path"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// seedLog is the log of a small store, 8 KiB a segment.
func seedLog(tb testing.TB) []byte {
	tb.Helper()
	h := vfs.NewHeap()
	o := small(h, "/s")
	o.SegmentBytes = 8 << 10
	s := open(tb, o)
	fill(tb, s, 3, 14)
	end := s.Appended()
	require.NoError(tb, s.Flush(context.Background()))
	var log []byte
	for off := int64(0); off < end; off += o.SegmentBytes {
		b, err := vfs.ReadFile(h, path.Join("/s/commitlog", format.FileName(off)))
		require.NoError(tb, err)
		log = append(log, b...)
	}
	require.NoError(tb, s.Close())
	return log[:end]
}

// FuzzRecover proves that a log of arbitrary bytes, without any other file, is opened or refused by a
// typed error but never kills the process; that what is then served are whole records at their own
// place; that the log is not shorter than its good front; and that the store can be used, and opens
// cleanly afterwards.
func FuzzRecover(f *testing.F) {
	log := seedLog(f)
	f.Add(log, false)
	f.Add(log[:len(log)/2], true)
	f.Add([]byte{}, false)
	for i := 1; i < 8; i++ {
		bad := append([]byte{}, log...)
		bad[len(log)*i/8] ^= 0x40
		f.Add(bad, i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, log []byte, aborted bool) {
		const seg = 8 << 10
		if len(log) > 8*seg {
			return
		}
		h := vfs.NewHeap()
		for off := 0; off < len(log); off += seg {
			b := make([]byte, seg)
			copy(b, log[off:])
			putFile(t, h, path.Join("/s/commitlog", format.FileName(int64(off))), string(b))
		}
		if aborted {
			putFile(t, h, "/s/abort", "123")
		}
		ctx := context.Background()
		o := small(h, "/s")
		o.SegmentBytes = seg
		s, err := Open(ctx, o)
		if err != nil {
			var damage *CorruptionError
			require.ErrorAs(t, err, &damage)
			return
		}
		end := s.Recovery().End
		served := checkServed(t, s)
		res, err := s.Append(ctx, record("after", 0, []byte("body"), "k"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, res.Pos, end)
		require.NoError(t, s.Close())
		require.Empty(t, h.OpenFiles())
		s, err = Open(ctx, o)
		require.NoError(t, err)
		require.True(t, s.Recovery().Clean)
		require.Equal(t, served+1, checkServed(t, s))
		require.NoError(t, s.Close())
	})
}

// checkServed reads all queues and returns how many records they serve.
func checkServed(t *testing.T, s *Store) (n int) {
	t.Helper()
	require.NoError(t, s.WaitDispatchedPos(context.Background(), s.Visible()))
	for _, q := range s.Queues() {
		low, high, _ := s.QueueRange(q.Topic, q.ID)
		for off := low; off < high; off++ {
			r, err := s.Get(q.Topic, q.ID, off, 1, 1<<20)
			require.NoError(t, err)
			r.Each(func(rec []byte) {
				var got message.Record
				require.NoError(t, message.ParseRecord(rec, &got))
				require.NoError(t, got.CheckCRC())
				require.Equal(t, QueueName{string(got.Topic), got.QueueID}, q)
				require.Equal(t, off, got.QueueOffset)
				n++
			})
			r.Release()
		}
	}
	return n
}

// TestDerivedDamage proves that a store whose last owner was killed serves everything, whatever
// happened meanwhile to any one of the files that are made from the log: gone, empty, cut in half,
// overwritten with noise.
func TestDerivedDamage(t *testing.T) {
	base := vfs.NewHeap()
	o := small(base, "/s")
	s := open(t, o)
	all := fill(t, s, 5, 120)
	require.NoError(t, s.WaitDispatchedPos(context.Background(), s.Visible()))
	require.NoError(t, s.Checkpoint(context.Background()))
	all = append(all, fill(t, s, 6, 20)...)
	img := base.KillImage()
	require.NoError(t, s.Close())

	var files []string
	var list func(dir string)
	list = func(dir string) {
		entries, err := img.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			if name := path.Join(dir, e.Name()); e.IsDir() {
				list(name)
			} else if path.Dir(name) != "/s/commitlog" && name != "/s/lock" && name != "/s/rmq/manifest" {
				files = append(files, name)
			}
		}
	}
	list("/s")
	require.GreaterOrEqual(t, len(files), 6)
	t.Log(files)
	for _, name := range files {
		for what, hurt := range map[string]func(fs vfs.FS, f vfs.File, size int64) error{
			"gone":  func(fs vfs.FS, _ vfs.File, _ int64) error { return fs.Remove(name) },
			"empty": func(_ vfs.FS, f vfs.File, _ int64) error { return f.Truncate(0) },
			"half":  func(_ vfs.FS, f vfs.File, size int64) error { return f.Truncate(size / 2) },
			"noise": func(_ vfs.FS, f vfs.File, size int64) error {
				b := make([]byte, size)
				for i := range b {
					b[i] = byte(i*31 + 7)
				}
				_, err := f.WriteAt(b, 0)
				return err
			},
		} {
			again := img.KillImage()
			f, err := again.OpenFile(name, os.O_RDWR, 0)
			require.NoError(t, err)
			st, err := f.Stat()
			require.NoError(t, err)
			require.NoError(t, hurt(again, f, st.Size()))
			require.NoError(t, f.Close())
			o.FS = again
			s, err := Open(context.Background(), o)
			if err != nil {
				t.Errorf("%s %s: open: %v", name, what, err)
				continue
			}
			t.Run(path.Base(path.Dir(name))+"/"+path.Base(name)+"/"+what, func(t *testing.T) { check(t, s, all) })
			require.NoError(t, s.Close())
		}
	}
}
