package engine

import (
	"context"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/message"
)

// tagged stores n records of one queue among records of others, with one of four tags each, and
// returns the tags by queue offset.
func tagged(t *testing.T, s *Store, n int) []string {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 6))
	var tags []string
	for range n {
		tag := string(rune('a' + rng.IntN(4)))
		for _, topic := range []string{"T", "Other"} {
			m := &message.Message{Topic: topic, QueueID: 1, BornHost: bornHost, StoreHost: storeHost, Body: make([]byte, rng.IntN(300))}
			m.Properties = message.AppendProperty(m.Properties, message.PropTags, tag)
			rec, err := message.AppendRecord(nil, m)
			require.NoError(t, err)
			_, err = s.Append(context.Background(), rec)
			require.NoError(t, err)
		}
		tags = append(tags, tag)
	}
	require.NoError(t, s.WaitDispatchedPos(context.Background(), s.Visible()))
	return tags
}

// TestReadMatches proves that a filtered read returns exactly the records whose tag matches, in order
// and without a gap between one read and the next, from memory and from files, in one reused result.
func TestReadMatches(t *testing.T) {
	for _, tail := range []int64{1 << 10, 4 << 20} {
		o := small(vfs.OS, t.TempDir())
		o.TailCache = tail
		s := open(t, o)
		defer s.Close()
		tags := tagged(t, s, 400)
		for _, want := range []string{"a", "d", "none"} {
			hash := message.TagHash([]byte(want))
			q := ReadQuery{Topic: "T", QueueID: 1, MaxCount: 7, MaxBytes: 1 << 10, MaxScan: 50, Match: func(h int64) bool { return h == hash }}
			var r ReadResult
			for q.Offset < int64(len(tags)) {
				require.NoError(t, s.Read(&r, &q))
				var expect []int64
				for i := q.Offset; i < r.NextOffset; i++ {
					if tags[i] == want {
						expect = append(expect, i)
					}
				}
				var got []int64
				r.Each(func(b []byte) {
					var rec message.Record
					require.NoError(t, message.ParseRecord(b, &rec))
					require.NoError(t, rec.CheckCRC())
					require.Equal(t, want, string(rec.Properties.Get(message.PropTags)))
					got = append(got, rec.QueueOffset)
				})
				require.Equal(t, expect, got)
				require.LessOrEqual(t, len(got), 7)
				require.Greater(t, r.NextOffset, q.Offset)
				if len(got) == 0 {
					require.Equal(t, ReadNoMatch, r.Status)
				} else {
					require.Equal(t, ReadFound, r.Status)
				}
				q.Offset = r.NextOffset
				r.Release()
			}
		}
	}
}

// TestReadTogether proves that a cold read of neighbours fetches them with few calls, and reads
// nothing twice.
func TestReadTogether(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS)
	o := small(fs, t.TempDir())
	o.TailCache = 1
	o.SegmentBytes = 1 << 20
	s := open(t, o)
	defer s.Close()
	tagged(t, s, 64)
	before := fs.Count(vfs.OpRead)
	r, err := s.Get("T", 1, 0, 32, 1<<20)
	require.NoError(t, err)
	require.Equal(t, 32, r.Count())
	r.Release()
	require.LessOrEqual(t, fs.Count(vfs.OpRead)-before, int64(2))
}

// TestReadAllocatesNothing proves that a read of new records into a used result allocates nothing.
func TestReadAllocatesNothing(t *testing.T) {
	o := small(vfs.OS, t.TempDir())
	o.TailCache = 4 << 20
	s := open(t, o)
	defer s.Close()
	tagged(t, s, 100)
	var r ReadResult
	q := ReadQuery{Topic: "T", QueueID: 1, Offset: 10, MaxCount: 32, MaxBytes: 1 << 20}
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if s.Read(&r, &q) != nil || r.Count() != 32 {
			panic("not read")
		}
		r.Release()
	}))
}

// TestArrivals proves that whoever watches a queue hears of each of its records once they can be read,
// with what a filter needs, and that unwatched queues are silent.
func TestArrivals(t *testing.T) {
	o := small(vfs.OS, t.TempDir())
	var s *Store
	var seen []int64
	o.Events.Arrive = func(a *Arrival) {
		if string(a.Topic) != "T" || a.QueueID != 1 {
			return
		}
		_, high, _ := s.QueueRange("T", 1)
		if high <= a.QueueOffset || a.TagsHash != message.TagHash(a.Properties.Get(message.PropTags)) || a.StoreTime == 0 {
			panic("arrival too early, or wrong")
		}
		seen = append(seen, a.QueueOffset)
	}
	s = open(t, o)
	tagged(t, s, 10)
	require.Empty(t, seen)
	s.Watch("T", 1)
	tagged(t, s, 10)
	s.Unwatch("T", 1)
	tagged(t, s, 5)
	require.NoError(t, s.Close())
	require.Equal(t, []int64{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, seen)
}

// TestRemoveTopic proves that a removed topic is gone from queues and disk, that its offsets are not
// used again, and that all of this survives a clean and an unclean stop.
func TestRemoveTopic(t *testing.T) {
	for _, clean := range []bool{true, false} {
		fs := vfs.NewHeap()
		o := small(fs, "store")
		s := open(t, o)
		tagged(t, s, 60)
		require.NoError(t, s.Checkpoint(context.Background()))
		tagged(t, s, 10)
		require.NoError(t, s.RemoveTopic("T"))
		low, high, ok := s.QueueRange("T", 1)
		require.True(t, ok)
		require.Equal(t, [2]int64{70, 70}, [2]int64{low, high})
		_, err := fs.Stat("store/consumequeue/T")
		require.ErrorIs(t, err, iofs.ErrNotExist)
		require.NoError(t, s.RemoveTopic("T"))
		require.NoError(t, s.RemoveTopic("never seen"))
		tagged(t, s, 5)
		check := func() {
			r, err := s.Get("T", 1, 70, 10, 1<<20)
			require.NoError(t, err)
			require.Equal(t, 5, r.Count())
			r.Release()
			r, err = s.Get("Other", 1, 0, 10, 1<<20)
			require.NoError(t, err)
			require.Equal(t, 10, r.Count())
			r.Release()
		}
		check()
		low, high, _ = s.QueueRange("T", 1)
		require.Equal(t, [2]int64{70, 75}, [2]int64{low, high})
		require.NoError(t, s.Flush(context.Background()))
		if clean {
			require.NoError(t, s.Close())
		} else {
			require.NoError(t, s.Checkpoint(context.Background()))
			image := fs.CrashImage(1)
			require.NoError(t, s.Close())
			o.FS = image
		}
		s = open(t, o)
		require.NoError(t, s.WaitDispatchedPos(context.Background(), s.Visible()))
		check()
		low, _, _ = s.QueueRange("T", 1)
		require.Equal(t, int64(70), low)
		require.NoError(t, s.RemoveExpiredQueues())
		check()
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.RemoveTopic("T"), ErrClosed)
	}
}

// TestEntries proves that queue entries are handed out as they stand, up to the end of the queue.
func TestEntries(t *testing.T) {
	s := open(t, small(vfs.OS, t.TempDir()))
	defer s.Close()
	tags := tagged(t, s, 50)
	entries, err := s.Entries("T", 1, 40, 100)
	require.NoError(t, err)
	require.Len(t, entries, 10)
	for i, e := range entries {
		require.Equal(t, message.TagHash([]byte(tags[40+i])), e.TagsHash)
	}
	_, err = s.Entries("T", 9, 0, 1)
	require.ErrorIs(t, err, ErrNotFound)
}

// A read that must not touch a file serves what is in memory, and says so when there is nothing of it.
func TestReadInMemory(t *testing.T) {
	o := small(vfs.NewHeap(), "s")
	s := open(t, o)
	fill(t, s, 1, 20)
	require.NoError(t, s.WaitDispatchedPos(t.Context(), s.Visible()))
	q := s.Queues()[0]
	var r ReadResult
	query := &ReadQuery{Topic: q.Topic, QueueID: q.ID, MaxCount: 4, MaxBytes: 1 << 20, InMemory: true}
	require.NoError(t, s.Read(&r, query))
	require.Positive(t, r.Count())
	r.Release()
	require.NoError(t, s.Close())

	s = open(t, o)
	defer s.Close()
	require.ErrorIs(t, s.Read(&r, query), ErrCold)
	r.Release()
	query.InMemory = false
	require.NoError(t, s.Read(&r, query))
	require.Positive(t, r.Count())
	r.Release()
}

// SubmitFront stops at the first record that cannot be taken, without its completion.
func TestSubmitFront(t *testing.T) {
	s := open(t, small(vfs.NewHeap(), "s"))
	defer s.Close()
	done := make(chan *Append, 4)
	as := make([]*Append, 4)
	for i := range as {
		as[i] = &Append{Record: record("T", 0, []byte("body"), ""), Done: func(a *Append) { done <- a }}
	}
	as[2].Record = as[2].Record[:50]
	n, err := s.SubmitFront(t.Context(), as)
	require.ErrorIs(t, err, message.ErrShort)
	require.Equal(t, 2, n)
	require.Same(t, as[0], <-done)
	require.Same(t, as[1], <-done)
	n, err = s.SubmitFront(t.Context(), as[3:])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, int64(2), (<-done).Result.QueueOffset)
}

// TestReadHoldsWhatItFound proves that records which a queue has here and there in files cost about
// their own size for as long as they are held, whether they are read one by one or several at once.
func TestReadHoldsWhatItFound(t *testing.T) {
	for apart, body := range map[int]int{8: 1000, 40: 1000, 2: 100} {
		o := small(vfs.NewHeap(), "/s")
		o.SegmentBytes = 1 << 20
		s := open(t, o)
		var want []string
		for i := range 60 * apart {
			rec := record("T", int32(i%apart), fmt.Appendf(nil, "%0*d", body, i), "k")
			_, err := s.Append(t.Context(), rec)
			require.NoError(t, err)
			if i%apart == 0 {
				want = append(want, fmt.Sprintf("%0*d", body, i))
			}
		}
		require.NoError(t, s.Close())
		s = open(t, o)
		var r ReadResult
		require.NoError(t, s.Read(&r, &ReadQuery{Topic: "T", QueueID: 0, MaxCount: 1000, MaxBytes: 1 << 20}))
		var got []string
		r.Each(func(rec []byte) {
			var m message.Record
			require.NoError(t, message.ParseRecord(rec, &m))
			got = append(got, string(m.Body))
		})
		require.Equal(t, want, got)
		held := 0
		for _, b := range r.pooled {
			held += len(*b)
		}
		require.LessOrEqual(t, held, 2*r.Bytes+readBufferBytes, "%d bytes of records, %d apart", r.Bytes, apart)
		require.Nil(t, r.window.aside)
		r.Release()
		require.NoError(t, s.Close())
	}
}
