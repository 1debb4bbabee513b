package engine

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// sized is a record of exactly n bytes.
func sized(t *testing.T, n int, key string) []byte {
	t.Helper()
	empty := len(record("T", 0, nil, key))
	body := make([]byte, n-empty)
	for i := range body {
		body[i] = byte(i) | 1
	}
	rec := record("T", 0, body, key)
	require.Len(t, rec, n)
	return rec
}

// TestCutIsZeroed proves that what recovery cuts is gone from the log, on disk, before anything is
// appended: whole records behind the cut are counted and kept aside, and never come back, even
// when the power goes while a new record is put in front of them.
func TestCutIsZeroed(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		flush FlushMode
		known bool // what stays was on disk before, so that recovery has no other reason to sync
	}{{AsyncFlush, false}, {AsyncFlush, true}, {SyncFlush, false}, {SyncFlush, true}} {
		t.Run(fmt.Sprintf("%v known=%v", c.flush, c.known), func(t *testing.T) {
			base := vfs.NewHeap()
			o := small(base, "/s")
			o.Flush = c.flush
			s := open(t, o)
			for i := range 6 {
				res, err := s.Append(ctx, sized(t, 1024, string(rune('a'+i))))
				require.NoError(t, err)
				require.EqualValues(t, 1024*i, res.Pos)
				if c.known && i == 1 {
					require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
					require.NoError(t, s.Checkpoint(ctx))
				}
			}
			img := base.KillImage()
			require.NoError(t, s.Close())

			// Two records stay, the third is damaged, three whole ones stand behind it.
			name := path.Join("/s", "commitlog", format.FileName(0))
			f, err := img.OpenFile(name, os.O_RDWR, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte{0}, 2048+500)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NoError(t, img.SyncFS("/"))
			faulty := vfs.NewFaulty(img.KillImage())
			faulty.Add(vfs.Rule{Op: vfs.OpSync, Match: name, Nth: 1, Err: syscall.EIO})
			o.FS = faulty
			_, err = Open(ctx, o)
			require.ErrorIs(t, err, syscall.EIO, "the zeros may not be there")
			before, err := vfs.ReadFile(img, name)
			require.NoError(t, err)
			fsys := vfs.NewFaulty(img)
			var cuts []*vfs.Heap // power cuts during recovery
			var mu sync.Mutex
			fsys.Before(func(c vfs.Call) {
				if c.N > 0 {
					mu.Lock()
					defer mu.Unlock()
					cuts = append(cuts, img.CrashImage(uint64(c.N)), img.CrashImage(uint64(c.N)+1000))
				}
			})
			o.FS = fsys
			s = open(t, o)
			fsys.Before(nil)
			rep := s.Recovery()
			require.EqualValues(t, 2048, rep.End)
			require.EqualValues(t, 3, rep.CutRecords)
			require.Len(t, rep.Broken, 1)
			kept, err := vfs.ReadFile(img, rep.Broken[0])
			require.NoError(t, err)
			require.Len(t, kept, int(rep.CutBytes))
			require.Equal(t, before[2048:2048+rep.CutBytes], kept)
			for i, cut := range append(cuts, img.CrashImage(1), img.CrashImage(2), img.CrashImage(3)) {
				left, err := vfs.ReadFile(cut, name)
				require.NoError(t, err)
				if !bytes.Equal(before, left) {
					aside, err := vfs.ReadFile(cut, rep.Broken[0])
					require.NoError(t, err, "image %d: cut from the log and nowhere else", i)
					require.Equal(t, kept, aside, "image %d: what was kept aside is not whole", i)
				}
			}
			for seed := range uint64(8) {
				left, err := vfs.ReadFile(img.CrashImage(seed), name)
				require.NoError(t, err)
				require.Equal(t, make([]byte, len(left)-2048), left[2048:], "seed %d: not zeroed and synced", seed)
			}

			_, err = s.Append(ctx, sized(t, 1024, "n"))
			require.NoError(t, err)
			for seed := range uint64(32) {
				again := img.CrashImage(seed)
				require.NoError(t, Reboot(again, "/s"))
				o.FS = again
				s := open(t, o)
				require.LessOrEqual(t, s.Max(), int64(3072), "seed %d: a record that was cut is back", seed)
				require.NoError(t, s.Close())
			}
			require.NoError(t, s.Close())
		})
	}
}

// TestTornRecord proves that a record is not served when any sector of it never reached the disk, or
// when its last bytes did not, whichever they are: header, body, topic or properties.
func TestTornRecord(t *testing.T) {
	ctx := context.Background()
	base := vfs.NewHeap()
	o := small(base, "/s")
	o.IndexDisabled = true
	s := open(t, o)
	first, err := s.Append(ctx, sized(t, 700, "a"))
	require.NoError(t, err)
	body := make([]byte, 900)
	for i := range body {
		body[i] = byte(i) | 1
	}
	rec := record("Torn", 0, body, strings.Repeat("k", 700)) // properties span sectors
	res, err := s.Append(ctx, rec)
	require.NoError(t, err)
	img := base.KillImage()
	require.NoError(t, s.Close())
	require.NoError(t, img.SyncFS("/"))
	end := res.Pos + int64(len(rec))
	name := path.Join("/s", "commitlog", format.FileName(0))

	torn := func(from, to int64) {
		again := img.KillImage()
		f, err := again.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt(make([]byte, to-from), from)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		o.FS = again
		s := open(t, o)
		require.Equal(t, res.Pos, s.Max(), "zeros from %d to %d of a record from %d to %d", from, to, res.Pos, end)
		r, err := s.Lookup(first.Pos)
		require.NoError(t, err)
		r.Release()
		require.NoError(t, s.Close())
	}
	for from := res.Pos; from < end; {
		to := min(from-from%512+512, end)
		torn(from, to)
		from = to
	}
	for n := int64(1); n < int64(len(rec)); n += 1 + n/16 {
		torn(end-n, end)
	}
}

// TestTornRecordFollowed proves that a record which looks torn is kept when others follow it, as they
// do when Apache has recovered it and gone on: to cut there would lose all that was acked since. Only
// after a crash of the machine under a log of ours is it cut, since then any page may be missing.
func TestTornRecordFollowed(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		back func(t *testing.T, img *vfs.Heap)
		cut  bool
	}{
		{"killed", func(*testing.T, *vfs.Heap) {}, false},
		{"adopted", func(t *testing.T, img *vfs.Heap) { t.Helper(); require.NoError(t, img.RemoveAll("/s/rmq")) }, false},
		{"rebooted", func(t *testing.T, img *vfs.Heap) { t.Helper(); require.NoError(t, Reboot(img, "/s")) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := vfs.NewHeap()
			o := small(base, "/s")
			s := open(t, o)
			ends := []int64{0}
			for _, key := range []string{"first", "torn", "last"} {
				res, err := s.Append(ctx, sized(t, 700, key))
				require.NoError(t, err)
				ends = append(ends, res.Pos+700)
			}
			img := base.KillImage()
			require.NoError(t, s.Close())
			f, err := img.OpenFile(path.Join("/s", "commitlog", format.FileName(0)), os.O_RDWR, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(make([]byte, 10), ends[2]-10)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			c.back(t, img)
			o.FS = img
			s = open(t, o)
			defer func() { require.NoError(t, s.Close()) }()
			if c.cut {
				require.Equal(t, ends[1], s.Max())
				return
			}
			require.Equal(t, ends[3], s.Max())
			for _, pos := range ends[:3] {
				r, err := s.Lookup(pos)
				require.NoError(t, err)
				r.Release()
			}
		})
	}
}

// TestTruncateUnderDispatch proves that the dispatcher, busy with the last record that stays, never takes
// what was cut behind it for what comes there next.
func TestTruncateUnderDispatch(t *testing.T) {
	o := small(vfs.NewHeap(), "/s")
	o.SegmentBytes = 1 << 20
	s := open(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for round := range uint64(400) {
		fill(t, s, 2*round, 1)
		at := s.Appended()
		s.SetConfirm(at)
		done := make(chan struct{}, 8)
		for k := range cap(done) {
			s.Submit(&Append{Record: record("Lost", 0, make([]byte, 7*k), "lost"), Done: func(*Append) { done <- struct{}{} }})
		}
		require.NoError(t, s.TruncateTo(at))
		for range cap(done) {
			<-done
		}
		s.SetConfirm(math.MaxInt64)
		fill(t, s, 2*round+1, 2)
		require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()), "round %d", round)
	}
	_, high, _ := s.QueueRange("Lost", 0)
	require.Zero(t, high)
	require.NoError(t, s.Close())
}
