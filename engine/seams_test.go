package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/internal/watermark"
	"rmq/message"
)

// TestAppendRawMirrors proves that a replica fed verbatim, in pieces cut anywhere, ends with the
// same bytes, the same queues and the same next offsets as the log it follows.
func TestAppendRawMirrors(t *testing.T) {
	ctx := context.Background()
	master := open(t, small(vfs.OS, t.TempDir()))
	defer master.Close()
	all := fill(t, master, 3, 150)
	require.NoError(t, master.Flush(ctx))

	o := small(vfs.OS, t.TempDir())
	slave := open(t, o)
	for pos, step := int64(0), 1; pos < master.Visible(); step = step*7%1999 + 1 {
		require.NoError(t, master.WaitRaw(ctx, pos, UptoFlushed))
		r, err := master.ReadRaw(pos, step, UptoFlushed)
		require.NoError(t, err)
		require.NotEmpty(t, r.Bytes)
		require.Equal(t, len(r.Bytes), r.Range.Len)
		require.NoError(t, slave.AppendRaw(ctx, pos, r.Bytes))
		pos += int64(len(r.Bytes))
		r.Release()
	}
	require.Equal(t, master.Visible(), slave.Visible())
	check(t, slave, all)
	for off := int64(0); off < master.Visible(); off += o.SegmentBytes {
		a, err := os.ReadFile(path.Join(master.o.CommitLogDir, fmt.Sprintf("%020d", off)))
		require.NoError(t, err)
		b, err := os.ReadFile(path.Join(slave.o.CommitLogDir, fmt.Sprintf("%020d", off)))
		require.NoError(t, err)
		require.Equal(t, a, b)
	}
	require.ErrorIs(t, slave.AppendRaw(ctx, 0, []byte("x")), ErrOffsetTooSmall)
	require.ErrorIs(t, slave.AppendRaw(ctx, slave.Appended()+1, []byte("x")), ErrOffsetTooLarge)

	// Promoted, the replica goes on where the queues end.
	more := fill(t, slave, 4, 20)
	check(t, slave, append(all, more...))
	require.NoError(t, slave.Close())
	slave = open(t, o)
	check(t, slave, append(all, more...))
	require.NoError(t, slave.Close())
}

// TestAppendRawInTheMiddle proves that an empty store may begin anywhere, and stays there over a reopen.
func TestAppendRawInTheMiddle(t *testing.T) {
	ctx := context.Background()
	master := open(t, small(vfs.OS, t.TempDir()))
	defer master.Close()
	all := fill(t, master, 5, 100)
	from := all[60].res.Pos
	o := small(vfs.OS, t.TempDir())
	slave := open(t, o)
	for pos := from; pos < master.Visible(); {
		r, err := master.ReadRaw(pos, 5000, UptoVisible)
		require.NoError(t, err)
		require.NoError(t, slave.AppendRaw(ctx, pos, r.Bytes))
		pos += int64(len(r.Bytes))
		r.Release()
	}
	check(t, slave, all[60:])
	require.NoError(t, slave.Close())
	slave = open(t, o)
	check(t, slave, all[60:])
	require.NoError(t, slave.Close())
}

// TestConfirmHides proves that nothing behind the confirm position is visible or dispatched.
func TestConfirmHides(t *testing.T) {
	ctx := context.Background()
	s := open(t, small(vfs.OS, t.TempDir()))
	defer s.Close()
	a := fill(t, s, 6, 10)
	s.SetConfirm(s.Appended())
	b := fill(t, s, 7, 10)
	check(t, s, a)
	require.Equal(t, b[0].res.Pos, s.Visible())
	_, err := s.Lookup(b[0].res.Pos)
	require.ErrorIs(t, err, ErrOffsetTooLarge)
	s.SetConfirm(1 << 60)
	require.NoError(t, s.WaitVisible(ctx, s.Appended()))
	check(t, s, append(a, b...))
}

// TestTruncateTo proves that a tail that nobody has seen can be cut under a running store: it is
// kept aside, the queues go on where they were, and neither a reopen nor a crash brings it back.
func TestTruncateTo(t *testing.T) {
	s := open(t, small(vfs.OS, t.TempDir()))
	a := fill(t, s, 8, 30)
	cut := s.Appended()
	s.SetConfirm(cut)
	fill(t, s, 9, 60)
	require.ErrorIs(t, s.TruncateTo(a[10].res.Pos), ErrOffsetTooSmall, "what is visible stays")
	require.NoError(t, s.TruncateTo(cut))
	require.Equal(t, cut, s.Appended())
	kept, err := os.ReadDir(path.Join(rmqDir(s.o.Dir), "broken"))
	require.NoError(t, err)
	require.NotEmpty(t, kept)
	s.SetConfirm(1 << 60)
	c := fill(t, s, 10, 40)
	check(t, s, append(a, c...))
	o := s.o
	require.NoError(t, s.Close())
	s = open(t, o)
	check(t, s, append(a, c...))
	require.NoError(t, s.Close())
}

// TestCloseInsideARecord proves that a store of which readers may see half a record closes, and has
// everything when it is opened again.
func TestCloseInsideARecord(t *testing.T) {
	s := open(t, small(vfs.OS, t.TempDir()))
	a := fill(t, s, 1, 10)
	s.SetConfirm(s.Appended() + 7)
	a = append(a, fill(t, s, 2, 10)...)
	end, o := s.Appended(), s.o
	require.NoError(t, s.Close())
	s = open(t, o)
	require.Equal(t, end, s.Visible())
	check(t, s, a)
	require.NoError(t, s.Close())
}

// TestLeadBehindHiddenRecords proves that a store takes appends of its own behind records that are
// not confirmed, and may never be without them: left by a truncation, or by the stream of another
// log. Their queue offsets go on where the hidden ones end.
func TestLeadBehindHiddenRecords(t *testing.T) {
	for _, raw := range []bool{false, true} {
		t.Run(fmt.Sprintf("raw=%v", raw), func(t *testing.T) {
			ctx := context.Background()
			s := open(t, small(vfs.OS, t.TempDir()))
			a := fill(t, s, 1, 30)
			s.SetConfirm(s.Appended())
			hidden := fill(t, s, 2, 60)
			cut := s.Appended()
			fill(t, s, 3, 20)
			if raw {
				follower := open(t, small(vfs.OS, t.TempDir()))
				follower.SetConfirm(hidden[0].res.Pos)
				for pos := int64(0); pos < cut; {
					r, err := s.ReadRaw(pos, int(min(5000, cut-pos)), UptoWritten)
					require.NoError(t, err)
					require.NoError(t, follower.AppendRaw(ctx, pos, r.Bytes))
					pos += int64(len(r.Bytes))
					r.Release()
				}
				require.NoError(t, s.Close())
				s = follower
			} else {
				require.NoError(t, s.TruncateTo(cut))
			}
			defer s.Close()
			all := append(a, hidden...)
			// Even where nothing may wait.
			one := &Append{Record: record("Topic0", 0, nil, "lead"), NoWait: true, Done: func(*Append) {}}
			s.Submit(one)
			require.NoError(t, one.Err)
			all = append(all, sent{topic: "Topic0", key: "lead", body: []byte{}, res: one.Result})
			all = append(all, fill(t, s, 4, 30)...)
			require.Equal(t, hidden[0].res.Pos, s.Visible())
			s.SetConfirm(1 << 60)
			next := map[QueueName]int64{}
			for _, m := range all {
				q := QueueName{m.topic, m.queue}
				require.Equal(t, next[q], m.res.QueueOffset)
				next[q]++
			}
			check(t, s, all)
		})
	}
}

// await is what comes out of c, which must be soon.
func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("still waiting after 10 s")
	}
	return v
}

// TestAckMarksBehindCut proves that what is appended behind a cut waits for the disk and for the
// marks of others as if nothing had ever stood there.
func TestAckMarksBehindCut(t *testing.T) {
	ctx := context.Background()
	begin := func(t *testing.T, fsys vfs.FS) (*Store, *watermark.Mark, int64) {
		t.Helper()
		replicated := &watermark.Mark{}
		o := small(fsys, "/s")
		o.Flush, o.AckMarks = SyncFlush, []*watermark.Mark{replicated}
		s := open(t, o)
		require.NoError(t, s.WaitPrepared(ctx))
		s.SetConfirm(0)
		return s, replicated, int64(len(record("T", 0, nil, "k")))
	}
	submit := func(s *Store) chan *Append {
		done := make(chan *Append, 1)
		s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
		return done
	}
	parked := func(m *watermark.Mark) {
		for m.Waiters() == 0 {
			runtime.Gosched()
		}
	}

	t.Run("marks", func(t *testing.T) {
		s, replicated, size := begin(t, vfs.NewHeap())
		defer s.Close()
		for i := range int64(3) {
			done := submit(s)
			replicated.Advance(size * (i + 1))
			require.NoError(t, await(t, done).Err)
		}
		parked(replicated)
		require.NoError(t, s.TruncateTo(size))
		replicated.Rewind(size)
		done := submit(s)
		require.NoError(t, s.Flush(ctx))
		require.Empty(t, done, "acked before it was replicated")
		replicated.Advance(2 * size)
		require.NoError(t, await(t, done).Err, "replicated and flushed")
	})

	t.Run("disk", func(t *testing.T) {
		fsys := vfs.NewFaulty(vfs.NewHeap())
		gate := vfs.NewGate()
		s, replicated, size := begin(t, fsys)
		defer s.Close()
		defer gate.Open()
		kept, lost := submit(s), submit(s)
		submit(s)
		require.NoError(t, s.Flush(ctx))
		parked(replicated)
		require.NoError(t, s.TruncateTo(size))
		require.ErrorIs(t, await(t, lost).Err, ErrIndeterminate)
		parked(replicated)
		fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Stall: gate})
		done := submit(s)
		await(t, gate.Arrived())
		replicated.Advance(1 << 40)
		parked(&s.log.ackable)
		require.Empty(t, done, "acked before it was flushed")
		require.NoError(t, await(t, kept).Err)
		gate.Open()
		require.NoError(t, await(t, done).Err)
	})
}

// TestTruncateSparesTheFront proves that a cut fails the appends that wait for their ack behind it,
// and no others.
func TestTruncateSparesTheFront(t *testing.T) {
	var replicated watermark.Mark
	o := small(vfs.NewHeap(), "/s")
	o.AckMarks = []*watermark.Mark{&replicated}
	s := open(t, o)
	s.SetConfirm(0)
	as := make([]*Append, 5) // one group
	done := make(chan *Append, len(as))
	for i := range as {
		as[i] = &Append{Record: record("T", 0, nil, "k"), Tag: int64(i), Done: func(a *Append) { done <- a }}
	}
	s.SubmitVector(as)
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.TruncateTo(as[2].Result.Pos))
	for i := 2; i < len(as); i++ {
		a := await(t, done)
		require.EqualValues(t, i, a.Tag)
		require.ErrorIs(t, a.Err, ErrIndeterminate)
	}
	require.Empty(t, done)
	replicated.Advance(as[2].Result.Pos)
	for i := range 2 {
		a := await(t, done)
		require.EqualValues(t, i, a.Tag)
		require.NoError(t, a.Err)
	}
	require.NoError(t, s.Close())
}

// TestTruncateFails proves that a cut that cannot be made poisons the store, and that nobody waits
// for it forever.
func TestTruncateFails(t *testing.T) {
	var replicated watermark.Mark
	fsys := vfs.NewFaulty(vfs.NewHeap())
	o := small(fsys, "/s")
	o.AckMarks = []*watermark.Mark{&replicated}
	poisoned := make(chan error, 1)
	o.Events.Poison = func(err error) { poisoned <- err }
	s := open(t, o)
	s.SetConfirm(0)
	done := make(chan *Append, 2)
	for range 2 {
		s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
	}
	require.NoError(t, s.Flush(t.Context()))
	end := s.Appended()
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*broken*", Nth: 1, Err: syscall.EIO})
	err := s.TruncateTo(end / 2)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, await(t, poisoned), ErrPoisoned)
	for range 2 {
		require.Error(t, await(t, done).Err)
	}
	require.ErrorIs(t, s.WaitVisible(t.Context(), end), ErrPoisoned)
	require.ErrorIs(t, s.Close(), ErrPoisoned)
	fsys.Clear()
	o.Events.Poison = nil
	s = open(t, o)
	require.Equal(t, end, s.Visible(), "nothing was cut")
	require.NoError(t, s.Close())
}

// TestAckMarks proves that an append is acked only when the marks of other owners have passed it
// too, and that its bytes are on disk long before.
func TestAckMarks(t *testing.T) {
	ctx := context.Background()
	var replicated watermark.Mark
	o := small(vfs.OS, t.TempDir())
	o.AckMarks = []*watermark.Mark{&replicated}
	s := open(t, o)
	defer s.Close()
	done := make(chan Result, 1)
	s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a.Result }})
	require.NoError(t, s.Flush(ctx))
	select {
	case <-done:
		t.Fatal("acked before it was replicated")
	default:
	}
	replicated.Advance(s.Appended())
	require.Zero(t, (<-done).Pos)

	short, cancel := context.WithCancel(ctx)
	time.AfterFunc(time.Millisecond, cancel)
	res, err := s.Append(short, record("T", 0, nil, "k2"))
	require.ErrorIs(t, err, ErrIndeterminate)
	require.Positive(t, res.Pos)
	replicated.Advance(s.Appended())
}

// TestBatch proves that a message batch gets consecutive offsets and never spans two segments.
func TestBatch(t *testing.T) {
	ctx := context.Background()
	s := open(t, small(vfs.OS, t.TempDir()))
	defer s.Close()
	for i := range 30 {
		var batch []byte
		for j := range 3 {
			batch = append(batch, record("B", 1, make([]byte, 700), fmt.Sprintf("%d-%d", i, j))...)
		}
		r, err := s.Append(ctx, batch)
		require.NoError(t, err)
		require.Equal(t, int32(3), r.Count)
		require.Equal(t, int64(3*i), r.QueueOffset)
		require.Equal(t, r.Pos/s.o.SegmentBytes, (r.Pos+int64(r.Size)-1)/s.o.SegmentBytes)
	}
	require.NoError(t, s.WaitDispatched(ctx, "B", 1, 90))
	mixed := append(record("B", 1, nil, "a"), record("B", 2, nil, "b")...)
	_, err := s.Append(ctx, mixed)
	require.ErrorIs(t, err, ErrUnsupported)
}

// TestTransactionRecords proves that prepared and rolled-back records take no queue offset and
// reach no queue.
func TestTransactionRecords(t *testing.T) {
	ctx := context.Background()
	s := open(t, small(vfs.OS, t.TempDir()))
	defer s.Close()
	for _, flag := range []message.SysFlag{message.FlagPrepared, message.FlagCommit, message.FlagRollback, 0} {
		rec, err := message.AppendRecord(nil, &message.Message{Topic: "X", SysFlag: flag, BornHost: bornHost, StoreHost: storeHost})
		require.NoError(t, err)
		_, err = s.Append(ctx, rec)
		require.NoError(t, err)
	}
	require.NoError(t, s.WaitDispatchedPos(ctx, s.Appended()))
	_, high, _ := s.QueueRange("X", 0)
	require.Equal(t, int64(2), high)
}

// TestLimits proves that what cannot be stored is refused by a typed error that names the limit.
func TestLimits(t *testing.T) {
	ctx := context.Background()
	s := open(t, small(vfs.OS, t.TempDir()))
	var large *TooLargeError
	_, err := s.Append(ctx, record("T", 0, make([]byte, 80<<10), "k"))
	require.ErrorAs(t, err, &large)
	_, err = s.Append(ctx, []byte("no record"))
	require.Error(t, err)
	require.NoError(t, s.Close())
	_, err = s.Append(ctx, record("T", 0, nil, "k"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Get("T", 0, 0, 1, 1)
	require.ErrorIs(t, err, ErrClosed)

	o := small(vfs.OS, t.TempDir())
	o.SegmentBytes, o.MaxMessageBytes = 1000, -1
	_, err = Open(ctx, o)
	require.ErrorContains(t, err, "mappedFileSizeCommitLog")
	require.ErrorContains(t, err, "maxMessageSize")
}

// TestStoreInUse proves that a second opener is told who holds the store.
func TestStoreInUse(t *testing.T) {
	o := small(vfs.OS, t.TempDir())
	s := open(t, o)
	defer s.Close()
	_, err := Open(context.Background(), o)
	var locked *vfs.LockedError
	require.ErrorAs(t, err, &locked)
	require.ErrorContains(t, err, fmt.Sprint(os.Getpid()))
}

// TestNoAllocations proves that a message costs no allocation on its way through the store.
func TestNoAllocations(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 64 << 20}
	s := open(t, o)
	defer s.Close()
	require.NoError(t, s.WaitPrepared(context.Background()))
	const batch = 64
	as := make([]*Append, batch)
	done := make(chan struct{}, batch)
	for i := range as {
		as[i] = &Append{Record: record("T", int32(i%8), make([]byte, 512), "k"), Done: func(*Append) { done <- struct{}{} }}
	}
	per := testing.AllocsPerRun(200, func() {
		s.SubmitVector(as)
		for range batch {
			<-done
		}
	}) / batch
	require.Less(t, per, 0.1, "allocations a message")
}
