package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
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

// boxes is a framing for tests: 20 bytes of header (size, magic, position, checksum of the rest), and
// records behind it.
type boxes struct{ Plain }

const (
	boxHeader = 20
	boxMagic  = 0x424F5845
)

func sealBox(b []byte, pos int64) {
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	binary.BigEndian.PutUint32(b[4:], boxMagic)
	binary.BigEndian.PutUint64(b[8:], uint64(pos))
	binary.BigEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[boxHeader:]))
}

func (boxes) Unit(b []byte, _ int64) (int, error) {
	switch {
	case len(b) < boxHeader:
		return boxHeader, message.ErrShort
	case binary.BigEndian.Uint32(b[4:]) != boxMagic:
		return 0, nil
	}
	return int(binary.BigEndian.Uint32(b)), nil
}

func (boxes) CheckUnit(b []byte, pos int64) error {
	if int64(binary.BigEndian.Uint64(b[8:])) != pos || crc32.ChecksumIEEE(b[boxHeader:]) != binary.BigEndian.Uint32(b[16:]) {
		return errors.New("box is damaged")
	}
	return nil
}

func (f boxes) Next(b []byte, pos int64, r *message.Record) (int, FrameKind, error) {
	if len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) == boxMagic {
		return boxHeader, FrameOther, nil
	}
	return f.Plain.Next(b, pos, r)
}

// framed are options of a log of boxes that hides what is not confirmed, with marks of others.
func framed(fsys vfs.FS, committed *watermark.Mark) Options {
	o := small(fsys, "/s")
	o.Flush, o.SyncAside, o.Hidden, o.Framing = SyncFlush, true, true, boxes{}
	if committed != nil {
		o.AckMarks = []*watermark.Mark{committed}
	}
	return o
}

// box appends one box with n records, told on done when they are acked.
func box(tb testing.TB, s *Store, rng *rand.Rand, n int, done func(*Append)) (f *Frame, all []sent) {
	tb.Helper()
	f = &Frame{Header: boxHeader, Seal: sealBox}
	for range n {
		m := sent{topic: fmt.Sprintf("Topic%d", rng.IntN(3)), queue: int32(rng.IntN(2)), key: fmt.Sprintf("k%d", rng.Uint64())}
		m.body = make([]byte, rng.IntN(900))
		a := &Append{Record: record(m.topic, m.queue, m.body, m.key), Done: done}
		require.NoError(tb, s.Check(a))
		f.As = append(f.As, a)
		all = append(all, m)
	}
	require.NoError(tb, s.AppendFrame(context.Background(), f))
	for i, a := range f.As {
		all[i].res = a.Result
	}
	return f, all
}

func quiet(*Append) {}

// TestSyncAside proves that under sync flush with a syncer of its own an append is written while the
// disk is stuck, and neither acked nor visible before the disk has it.
func TestSyncAside(t *testing.T) {
	fsys := vfs.NewFaulty(vfs.NewHeap())
	gate := vfs.NewGate()
	o := small(fsys, "/s")
	o.Flush, o.SyncAside = SyncFlush, true
	s := open(t, o)
	defer s.Close()
	defer gate.Open()
	require.NoError(t, s.WaitPrepared(t.Context()))
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Stall: gate})
	done := make(chan *Append, 2)
	s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
	await(t, gate.Arrived())
	s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
	require.NoError(t, s.WaitRaw(t.Context(), s.Appended()-1, UptoWritten), "the writer does not wait for the disk")
	require.Empty(t, done)
	require.Zero(t, s.Visible())
	require.Zero(t, s.Flushed())
	gate.Open()
	for range 2 {
		require.NoError(t, await(t, done).Err)
	}
	require.Equal(t, s.Appended(), s.Visible())
	require.Zero(t, s.Stats().OrderViolations)
}

// TestSyncAsideFails proves that a failed sync beside the writer poisons the store: whoever waits is
// told, and nothing is appended any more.
func TestSyncAsideFails(t *testing.T) {
	fsys := vfs.NewFaulty(vfs.NewHeap())
	poisoned := make(chan error, 1)
	o := framed(fsys, nil)
	o.Events.Poison = func(err error) { poisoned <- err }
	s := open(t, o)
	require.NoError(t, s.WaitPrepared(t.Context()))
	require.NoError(t, s.Refusal())
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Err: syscall.EIO})
	done := make(chan *Append, 1)
	f := &Frame{Header: boxHeader, Seal: sealBox, As: []*Append{{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }}}}
	require.NoError(t, s.Check(f.As[0]))
	_ = s.AppendFrame(t.Context(), f) // may be told already
	require.ErrorIs(t, await(t, done).Err, ErrPoisoned)
	require.ErrorIs(t, await(t, poisoned), syscall.EIO)
	require.ErrorIs(t, s.Refusal(), ErrPoisoned)
	require.NoError(t, s.Check(f.As[0]))
	require.ErrorIs(t, s.AppendFrame(t.Context(), f), ErrPoisoned)
	require.Zero(t, f.End)
	require.ErrorIs(t, s.Close(), ErrPoisoned)
}

// TestSyncAsideBehindCut proves that a cut takes back what the syncer had found, so that what is then
// appended waits for a sync of its own.
func TestSyncAsideBehindCut(t *testing.T) {
	fsys := vfs.NewFaulty(vfs.NewHeap())
	var committed watermark.Mark
	s := open(t, framed(fsys, &committed))
	defer s.Close()
	require.NoError(t, s.WaitPrepared(t.Context()))
	rng := rand.New(rand.NewPCG(1, 1))
	acks := make(chan *Append, 8)
	tell := func(a *Append) { acks <- a }
	_, _ = box(t, s, rng, 1, tell)
	cut := s.Appended()
	_, _ = box(t, s, rng, 2, tell)
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.TruncateTo(cut))
	for range 2 {
		require.ErrorIs(t, await(t, acks).Err, ErrIndeterminate)
	}
	gate := vfs.NewGate()
	defer gate.Open()
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Stall: gate})
	f, _ := box(t, s, rng, 1, tell)
	require.Equal(t, cut, f.Pos)
	await(t, gate.Arrived())
	committed.Advance(f.End)
	require.NoError(t, await(t, acks).Err, "what was on disk before the cut")
	require.Equal(t, cut, s.Flushed())
	require.Empty(t, acks, "acked before it was flushed")
	gate.Open()
	require.NoError(t, await(t, acks).Err)
}

// TestFramesMirror proves that a log of frames and one that is fed its frames lie alike byte for byte,
// that a frame which would lie elsewhere is refused, and that the follower, once it leads, goes on with
// queue offsets and store times where the hidden records end.
func TestFramesMirror(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(2, 2))
	o := framed(vfs.OS, nil)
	o.Dir = t.TempDir()
	lead := open(t, o)
	defer lead.Close()
	o.Dir = t.TempDir()
	o.Clock = func() time.Time { return time.UnixMilli(1_000) } // far behind the leader's
	follow := open(t, o)
	var all []sent
	feed := func(f *Frame) {
		r, err := lead.ReadRaw(f.Pos, int(f.End-f.Pos), UptoWritten)
		require.NoError(t, err)
		defer r.Release()
		require.ErrorIs(t, follow.WriteFrame(ctx, f.Pos+1, r.Bytes), ErrOffsetTooLarge)
		require.NoError(t, follow.WriteFrame(ctx, f.Pos, r.Bytes))
		require.ErrorIs(t, follow.WriteFrame(ctx, f.Pos, r.Bytes), ErrOffsetTooSmall)
	}
	for range 60 {
		f, list := box(t, lead, rng, 1+rng.IntN(4), quiet)
		feed(f)
		all = append(all, list...)
		if rng.IntN(4) == 0 {
			f := &Frame{Header: boxHeader, Seal: sealBox} // of nothing
			require.NoError(t, lead.AppendFrame(ctx, f))
			feed(f)
		}
	}
	require.NoError(t, lead.Flush(ctx))
	require.NoError(t, follow.Flush(ctx))
	require.Equal(t, lead.Appended(), follow.Appended())
	for off := int64(0); off < lead.Appended(); off += o.SegmentBytes {
		a, err := os.ReadFile(path.Join(lead.o.CommitLogDir, fmt.Sprintf("%020d", off)))
		require.NoError(t, err)
		b, err := os.ReadFile(path.Join(follow.o.CommitLogDir, fmt.Sprintf("%020d", off)))
		require.NoError(t, err)
		require.Equal(t, a, b)
	}
	require.Zero(t, follow.Visible())
	require.Zero(t, follow.Dispatched())
	follow.SetConfirm(all[40].res.Pos)

	// It leads.
	_, list := box(t, follow, rng, 12, quiet)
	require.GreaterOrEqual(t, list[0].res.StoreTime, all[len(all)-1].res.StoreTime)
	all = append(all, list...)
	follow.SetConfirm(follow.Appended())
	require.NoError(t, follow.WaitVisible(ctx, follow.Appended()))
	next := map[QueueName]int64{}
	for _, m := range all {
		q := QueueName{m.topic, m.queue}
		require.Equal(t, next[q], m.res.QueueOffset)
		next[q]++
	}
	check(t, follow, all)
	require.NoError(t, follow.Close())
}

// TestHiddenReopen proves that a store opened hidden shows, after a stop, a kill or a power cut, what it
// knew to be confirmed and no more, keeps the rest, and has dispatched none of it; and that a stop in
// order is told from the others although a part of the log was hidden.
func TestHiddenReopen(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"stop", "kill", "power cut"} {
		t.Run(how, func(t *testing.T) {
			heap := vfs.NewHeap()
			rng := rand.New(rand.NewPCG(3, 3))
			o := framed(heap, nil)
			s := open(t, o)
			var all []sent
			confirm := int64(0)
			shown := 0
			for i := range 30 {
				_, list := box(t, s, rng, 3, quiet)
				all = append(all, list...)
				if i == 17 {
					confirm, shown = s.Appended(), len(all)
				}
			}
			require.NoError(t, s.Flush(ctx))
			s.SetConfirm(confirm)
			require.NoError(t, s.WaitDispatchedPos(ctx, confirm))
			end := s.Appended()
			img := heap
			switch how {
			case "kill":
				require.NoError(t, s.Checkpoint(ctx))
				img = heap.KillImage()
			case "power cut":
				require.NoError(t, s.Checkpoint(ctx))
				img = heap.CrashImage(7)
				require.NoError(t, Reboot(img, "/s"))
			}
			require.NoError(t, s.Close())

			o.FS = img
			s = open(t, o)
			rep := s.Recovery()
			require.Equal(t, end, rep.End)
			require.Equal(t, end-confirm, rep.Hidden)
			require.Equal(t, how == "stop", rep.Closed)
			require.Equal(t, how == "stop", rep.Clean)
			require.Equal(t, confirm, s.Visible())
			require.Equal(t, confirm, s.Dispatched())
			check(t, s, all[:shown])
			_, err := s.Lookup(all[shown].res.Pos)
			require.ErrorIs(t, err, ErrOffsetTooLarge)

			_, list := box(t, s, rng, 6, quiet)
			all = append(all, list...)
			s.SetConfirm(s.Appended())
			require.NoError(t, s.WaitVisible(ctx, s.Appended()))
			check(t, s, all)
			require.NoError(t, s.Close())
			s = open(t, o)
			require.True(t, s.Recovery().Clean)
			require.True(t, s.Recovery().Closed)
			check(t, s, all)
			require.NoError(t, s.Close())
		})
	}
}

// TestTornFrame proves that a frame which is not all there is cut off as a whole, whichever byte of it
// is missing, though records in front of the tear are whole; and that damage below what was on disk is
// an error instead.
func TestTornFrame(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(4, 4))
	heap := vfs.NewHeap()
	o := framed(heap, nil)
	s := open(t, o)
	_, all := box(t, s, rng, 3, quiet)
	s.SetConfirm(s.Appended())
	require.NoError(t, s.Flush(ctx))
	require.NoError(t, s.Checkpoint(ctx))
	_, more := box(t, s, rng, 3, quiet)
	require.NoError(t, s.Flush(ctx))
	f, lost := box(t, s, rng, 3, quiet)
	img := heap.KillImage() // before the state knows of them
	require.NoError(t, s.Close())
	name := path.Join(o.CommitLogDir, "/s/commitlog/00000000000000000000")
	for _, at := range []int64{f.Pos, f.Pos + 10, lost[1].res.Pos + 50, lost[2].res.Pos, f.End - 1} {
		torn := img.KillImage()
		zero(t, torn, name, at, f.End)
		o.FS = torn
		s := open(t, o)
		require.Equal(t, f.Pos, s.Appended(), "torn at %d of %d to %d", at, f.Pos, f.End)
		s.SetConfirm(f.Pos)
		check(t, s, append(all[:3:3], more...))
		require.NoError(t, s.Close())
	}
	// The first frame was on disk when the state was written.
	torn := img.KillImage()
	zero(t, torn, name, all[1].res.Pos+40, all[1].res.Pos+60)
	require.NoError(t, torn.RemoveAll("/s/consumequeue"))
	require.NoError(t, torn.Remove("/s/rmq/queues.journal"))
	o.FS = torn
	_, err := Open(ctx, o)
	var damage *CorruptionError
	require.ErrorAs(t, err, &damage)
	require.EqualValues(t, 0, damage.Offset, "where its frame begins")
}

func zero(tb testing.TB, fsys vfs.FS, name string, from, to int64) {
	tb.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	require.NoError(tb, err)
	_, err = f.WriteAt(make([]byte, to-from), from)
	require.NoError(tb, err)
	require.NoError(tb, f.Sync())
	require.NoError(tb, f.Close())
}

// TestStrayRecord proves that a record outside of all frames is no part of a framed log.
func TestStrayRecord(t *testing.T) {
	heap := vfs.NewHeap()
	o := framed(heap, nil)
	s := open(t, o)
	box(t, s, rand.New(rand.NewPCG(5, 5)), 2, quiet)
	end := s.Appended()
	require.NoError(t, s.WriteRaw(t.Context(), end, stamped(record("T", 0, nil, "stray"), 0, end)))
	img := heap.KillImage()
	require.NoError(t, s.Close())
	o.FS = img
	s = open(t, o)
	require.Equal(t, end, s.Appended())
	require.EqualValues(t, 1, s.Recovery().CutRecords)
	require.NoError(t, s.Close())
}

func stamped(rec []byte, queueOffset, pos int64) []byte {
	message.StampRecord(rec, queueOffset, pos, 1_700_000_000_000)
	return rec
}

// TestWriteRaw proves that bytes of a stream are written, not synced, when the call returns.
func TestWriteRaw(t *testing.T) {
	fsys := vfs.NewFaulty(vfs.NewHeap())
	gate := vfs.NewGate()
	o := small(fsys, "/s")
	o.Flush, o.SyncAside = SyncFlush, true
	s := open(t, o)
	defer s.Close()
	defer gate.Open()
	require.NoError(t, s.WaitPrepared(t.Context()))
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*00000000000000000000", Nth: 1, Stall: gate})
	rec := stamped(record("T", 0, nil, "k"), 0, 0)
	require.NoError(t, s.WriteRaw(t.Context(), 0, rec[:70]))
	require.NoError(t, s.WriteRaw(t.Context(), 70, rec[70:]))
	require.EqualValues(t, len(rec), s.Written())
	require.Zero(t, s.Flushed())
	require.ErrorIs(t, s.WriteRaw(t.Context(), 0, rec), ErrOffsetTooSmall)
	gate.Open()
	require.NoError(t, s.WaitRaw(t.Context(), s.Written()-1, UptoFlushed))
	require.NoError(t, s.WaitDispatched(t.Context(), "T", 0, 1))
}

// TestVerdict proves that an owner of marks has the last word on an append that has passed them.
func TestVerdict(t *testing.T) {
	alone := errors.New("alone")
	var replicated watermark.Mark
	o := small(vfs.NewHeap(), "/s")
	o.AckMarks = []*watermark.Mark{&replicated}
	limit := int64(0)
	o.Verdict = func(end int64) error {
		if end > limit {
			return alone
		}
		return nil
	}
	s := open(t, o)
	defer s.Close()
	done := make(chan *Append, 1)
	for range 2 {
		s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
		require.NoError(t, s.Flush(t.Context()))
		if limit == 0 {
			limit = s.Appended()
		}
		replicated.Advance(s.Appended())
		a := await(t, done)
		if a.Result.Pos == 0 {
			require.NoError(t, a.Err)
		} else {
			require.ErrorIs(t, a.Err, alone)
		}
	}
}

// TestAbandon proves that appends that wait for marks can be told that nobody knows, and that they stay.
func TestAbandon(t *testing.T) {
	var replicated watermark.Mark
	o := small(vfs.NewHeap(), "/s")
	o.AckMarks = []*watermark.Mark{&replicated}
	s := open(t, o)
	defer s.Close()
	done := make(chan *Append, 1)
	s.Submit(&Append{Record: record("T", 0, nil, "k"), Done: func(a *Append) { done <- a }})
	require.NoError(t, s.Flush(t.Context()))
	require.Empty(t, done)
	s.Abandon(ErrIndeterminate)
	require.ErrorIs(t, await(t, done).Err, ErrIndeterminate)
	replicated.Advance(s.Appended())
	require.NoError(t, s.WaitDispatched(t.Context(), "T", 0, 1))
}

// TestRefusal proves that a store tells beforehand that it would take nothing.
func TestRefusal(t *testing.T) {
	heap := vfs.NewHeap()
	s := open(t, framed(heap, nil))
	require.NoError(t, s.WaitPrepared(t.Context()))
	require.NoError(t, s.Refusal())
	full := errors.New("full")
	s.refuseAppends(refusedDerived, full)
	require.ErrorIs(t, s.Refusal(), full)
	f := &Frame{Header: boxHeader, Seal: sealBox}
	require.ErrorIs(t, s.AppendFrame(t.Context(), f), full)
	s.refuseAppends(refusedDerived, nil)
	require.NoError(t, s.AppendFrame(t.Context(), f))
	var large *TooLargeError
	require.ErrorAs(t, s.AppendFrame(t.Context(), &Frame{Header: boxHeader, Body: make([]byte, 16<<10), Seal: sealBox}), &large)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Refusal(), ErrClosed)
}

// TestFrameNoAllocations proves that a message in a frame costs no allocation.
func TestFrameNoAllocations(t *testing.T) {
	var committed watermark.Mark
	o := Options{Dir: t.TempDir(), SegmentBytes: 64 << 20, Flush: SyncFlush, SyncAside: true, Hidden: true, Framing: boxes{},
		AckMarks: []*watermark.Mark{&committed}}
	s := open(t, o)
	defer s.Close()
	require.NoError(t, s.WaitPrepared(t.Context()))
	const batch = 64
	done := make(chan struct{}, batch)
	f := &Frame{Header: boxHeader, Seal: sealBox}
	for i := range batch {
		f.As = append(f.As, &Append{Record: record("T", int32(i%8), make([]byte, 512), "k"), Done: func(*Append) { done <- struct{}{} }})
	}
	ctx := t.Context()
	per := testing.AllocsPerRun(100, func() {
		for _, a := range f.As {
			if err := s.Check(a); err != nil {
				panic(err)
			}
		}
		if err := s.AppendFrame(ctx, f); err != nil {
			panic(err)
		}
		s.SetConfirm(f.End)
		committed.Advance(f.End)
		for range batch {
			<-done
		}
	}) / batch
	require.Less(t, per, 0.1, "allocations a message")
	for s.Dispatched() < s.Appended() {
		runtime.Gosched()
	}
}
