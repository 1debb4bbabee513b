package engine

import (
	"context"
	"errors"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// nightCleaner is the retention of a store in the hour of deleteWhen.
func nightCleaner(s *Store, o RetentionOptions, event func(CleanEvent)) *Cleaner {
	o.ensureDefaults()
	o.Pause = 0
	night := func() time.Time {
		n := time.Now()
		return time.Date(n.Year(), n.Month(), n.Day(), 4, 0, 0, 0, time.Local)
	}
	return newCleaner(storeTarget{s}, o, night, event)
}

// cleanNow runs rounds of retention by hand until one removes nothing, in the hour of deleteWhen.
func cleanNow(t *testing.T, s *Store, o RetentionOptions) (removed int) {
	t.Helper()
	c := nightCleaner(s, o, func(CleanEvent) { removed++ })
	for before := -1; before != removed; {
		before = removed
		require.NoError(t, c.round(context.Background(), false))
	}
	return removed
}

// expire sets the times of the first n segments back by four days.
func expire(t *testing.T, s *Store, n int) {
	t.Helper()
	for i, m := range s.files.Files() {
		if i < n {
			require.NoError(t, s.o.FS.Chtimes(m.Path(), time.Now().Add(-96*time.Hour)))
		}
	}
}

// TestRetention proves that expired segments go with their queue and index entries and nothing else
// does: not the one being written, not what a hold asks for, not under a reader; and that a store
// whose front is gone opens again.
func TestRetention(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"heap": vfs.NewHeap(), "os": vfs.OS} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := "/s"
			if name == "os" {
				dir = t.TempDir()
			}
			o := small(fsys, dir)
			o.Retention.Disabled = true // rounds are run by hand
			s := open(t, o)
			all := fill(t, s, 7, 250)
			require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
			require.NoError(t, s.Flush(ctx))
			seg := o.SegmentBytes
			require.Greater(t, s.Max(), 6*seg)
			require.Zero(t, cleanNow(t, s, RetentionOptions{}), "nothing is expired")

			expire(t, s, 100)
			hold := s.Hold(2*seg + 5)
			reader, err := s.Lookup(all[0].res.Pos)
			require.NoError(t, err)
			require.Equal(t, 2, cleanNow(t, s, RetentionOptions{}))
			require.Equal(t, 2*seg, s.Min())
			requireRecord(t, reader, all[0])
			_, err = fsys.Stat(path.Join(dir, "commitlog", format.FileName(0)))
			require.Error(t, err)
			reader.Release()
			_, err = s.Lookup(all[0].res.Pos)
			require.ErrorIs(t, err, ErrOffsetTooSmall)

			kept := all
			for kept[0].res.Pos < 2*seg {
				kept = kept[1:]
			}
			require.NoError(t, s.Checkpoint(ctx))
			check(t, s, kept)
			for _, q := range s.Queues() {
				low, high, ok := s.QueueRange(q.Topic, q.ID)
				require.True(t, ok)
				require.Positive(t, low, "%v", q)
				r, err := s.Get(q.Topic, q.ID, low, 1, 1<<20)
				require.NoError(t, err)
				require.Equal(t, ReadFound, r.Status)
				r.Each(func(rec []byte) {
					var got message.Record
					require.NoError(t, message.ParseRecord(rec, &got))
					require.GreaterOrEqual(t, got.PhysicalOffset, 2*seg)
					require.Equal(t, low, got.QueueOffset)
				})
				r.Release()
				r, err = s.Get(q.Topic, q.ID, low-1, 1, 1<<20)
				require.NoError(t, err)
				require.Equal(t, ReadOffsetTooSmall, r.Status)
				require.Equal(t, low, r.NextOffset)
				r.Release()
				require.Greater(t, high, low)
			}

			hold.Release()
			tail := s.Appended() - s.Appended()%seg
			require.Positive(t, cleanNow(t, s, RetentionOptions{}))
			require.Equal(t, tail, s.Min(), "the segment being written stays")
			for kept[0].res.Pos < tail {
				kept = kept[1:]
			}
			check(t, s, kept)
			more := fill(t, s, 8, 60)
			check(t, s, append(kept, more...))
			require.NoError(t, s.Close())
			s = open(t, o)
			require.True(t, s.Recovery().Clean)
			require.Equal(t, tail, s.Min())
			check(t, s, append(kept, more...))
			require.NoError(t, s.Close())
		})
	}
}

// TestRetentionCrash proves that a kill right after segments went, before any further checkpoint,
// leaves a store that opens with the queue offsets going on where they were.
func TestRetentionCrash(t *testing.T) {
	ctx := context.Background()
	base := vfs.NewHeap()
	o := small(base, "/s")
	o.Retention.Disabled = true
	s := open(t, o)
	all := fill(t, s, 9, 200)
	require.NoError(t, s.Flush(ctx))
	require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
	expire(t, s, 100)
	require.Positive(t, cleanNow(t, s, RetentionOptions{}))
	first := s.Min()
	killed := []*vfs.Heap{base.KillImage()}
	for seed := range uint64(20) {
		killed = append(killed, base.CrashImage(seed))
	}
	require.NoError(t, s.Close())
	next := map[string]int64{}
	for _, m := range all {
		next[m.topic+string('0'+m.queue)] = m.res.QueueOffset + 1
	}
	for i, img := range killed {
		require.NoError(t, Reboot(img, "/s"))
		o.FS = img
		s := open(t, o)
		require.LessOrEqual(t, s.Min(), first, "image %d", i)
		for _, m := range fill(t, s, 10, 30) {
			k := m.topic + string('0'+m.queue)
			require.Equal(t, next[k], m.res.QueueOffset, "image %d: %s", i, k)
			next[k]++
		}
		for _, m := range all {
			next[m.topic+string('0'+m.queue)] = m.res.QueueOffset + 1
		}
		require.NoError(t, s.Close())
	}
}

// TestDiskLevels proves that appends are refused above the warning level, with a typed error, until
// the disk has room again, and that old segments go at once, whatever their age, but not while held.
func TestDiskLevels(t *testing.T) {
	ctx := t.Context()
	h := vfs.NewHeap()
	o := small(h, "/s")
	o.Retention.Interval = time.Millisecond
	o.Retention.Pause = time.Microsecond
	cleaned := make(chan CleanEvent, 1024)
	o.Events.Clean = func(e CleanEvent) { cleaned <- e }
	s := open(t, o)
	fill(t, s, 11, 250)
	require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
	require.NoError(t, s.Checkpoint(ctx)) // segments that queues on disk do not cover stay
	hold := s.Hold(0)
	putFile(t, h, "/ballast", string(make([]byte, 64<<20))) // a tenth of it is room enough for all that follows
	u, err := h.Usage("/")
	require.NoError(t, err)
	h.SetCapacity((u.Total - u.Free) * 100 / 92)
	var level *DiskLevelError
	for !errors.As(err, &level) {
		_, err = s.Append(ctx, record("T", 0, nil, "k"))
	}
	require.Equal(t, 90, level.Limit)
	require.Equal(t, "/s/commitlog", level.Path)
	require.Greater(t, level.Need, level.Have)
	require.Zero(t, s.Min())
	require.Empty(t, cleaned)
	hold.Release()
	require.Contains(t, (<-cleaned).Reason, "diskSpaceWarningLevelRatio")
	h.SetCapacity(1 << 40)
	for err != nil {
		_, err = s.Append(ctx, record("T", 0, nil, "k"))
	}
	require.Positive(t, s.Min())
	require.NoError(t, s.Close())
}
