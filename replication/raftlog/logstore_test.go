package raftlog

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/replication"
)

const nodeDir = "/store/raft-n0"

var host = netip.MustParseAddrPort("10.0.0.1:10911")

// record is one message.
func record(topic string, queue int32, body []byte) []byte {
	rec, err := message.AppendRecord(nil, &message.Message{
		Topic: topic, QueueID: queue, BornTimestamp: 1_700_000_000_000, BornHost: host, StoreHost: host, Body: body,
	})
	if err != nil {
		panic(err)
	}
	return rec
}

// small are options under which segments roll all the time.
func small(fsys vfs.FS, flush engine.FlushMode) LogStoreOptions {
	return LogStoreOptions{Engine: engine.Options{
		FS: fsys, Dir: nodeDir, Flush: flush, SegmentBytes: 16 << 10, QueueFileBytes: 400, MaxHashSlots: 64, MaxIndexEntries: 128,
		MaxMessageBytes: 4 << 10, MaxUnflushed: 1 << 20, MaxPending: 256 << 10, TailCache: 32 << 10, CheckpointBytes: 64 << 10,
		FlushInterval: time.Millisecond, FlushThorough: 5 * time.Millisecond,
	}}
}

func openLog(tb testing.TB, o LogStoreOptions) *LogStore {
	tb.Helper()
	s, err := OpenLogStore(context.Background(), o)
	require.NoError(tb, err)
	return s
}

// lead stores a data entry as a leader does, whose messages have these bodies, and returns their appends.
func lead(tb testing.TB, s *LogStore, index, term uint64, bodies ...[]byte) []*engine.Append {
	tb.Helper()
	b := s.Batch()
	defer b.Free()
	var as []*engine.Append
	for i, body := range bodies {
		a := &engine.Append{Record: record(fmt.Sprintf("T%d", i%2), int32(i%3), body), Done: func(*engine.Append) {}}
		require.NoError(tb, b.Add(a))
		as = append(as, a)
	}
	require.NoError(tb, s.StoreLog(&raft.Log{Index: index, Term: term, Data: b.Token()}))
	require.Empty(tb, b.Abandon())
	return as
}

// bytesOf is a copy of the frame of index.
func bytesOf(tb testing.TB, s *LogStore, index, term uint64) []byte {
	tb.Helper()
	r, err := s.Frame(index, term)
	require.NoError(tb, err)
	defer r.Release()
	return append([]byte(nil), r.Bytes...)
}

// follow stores the entries from to to of leader as a follower does.
func follow(tb testing.TB, s, leader *LogStore, from, to uint64) {
	tb.Helper()
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		l := &raft.Log{}
		require.NoError(tb, leader.GetLog(i, l))
		frame := bytesOf(tb, leader, i, l.Term)
		if l.Type == raft.LogConfiguration {
			frame = Payload(frame)
		}
		l.Data = frame
		logs = append(logs, l)
	}
	require.NoError(tb, s.StoreLogs(logs))
}

func configuration(ids ...string) []byte {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return raft.EncodeConfiguration(c)
}

// script stores entries of every type.
func script(tb testing.TB, s *LogStore) (last uint64) {
	tb.Helper()
	require.NoError(tb, s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: configuration("a", "b")}))
	require.NoError(tb, s.StoreLog(&raft.Log{Index: 2, Term: 2, Type: raft.LogNoop}))
	for i := range uint64(40) {
		lead(tb, s, 3+i, 2+i/20, make([]byte, 10+37*i), make([]byte, 300))
	}
	require.NoError(tb, s.StoreLog(&raft.Log{Index: 43, Term: 4, Type: raft.LogBarrier}))
	require.NoError(tb, s.StoreLog(&raft.Log{Index: 44, Term: 4, Data: []byte(metaPrefix + "\x01doc")}))
	require.NoError(tb, s.StoreLog(&raft.Log{Index: 45, Term: 4, Type: raft.LogConfiguration, Data: configuration("a", "b", "c")}))
	lead(tb, s, 46, 4, []byte("last"))
	return 46
}

func both(t *testing.T, test func(t *testing.T, flush engine.FlushMode)) {
	t.Helper()
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) { test(t, flush) })
	}
}

// TestLogStore proves that what a leader stores and what a follower is sent are the same entries and the
// same bytes, that both read back as the library expects after reopens of every kind, and that messages
// are acked and shown once they are committed, and not before.
func TestLogStore(t *testing.T) {
	both(t, func(t *testing.T, flush engine.FlushMode) {
		ctx := t.Context()
		heapA, heapB := vfs.NewHeap(), vfs.NewHeap()
		a, b := openLog(t, small(heapA, flush)), openLog(t, small(heapB, flush))
		first, err := a.FirstIndex()
		require.NoError(t, err)
		require.Zero(t, first)
		require.Equal(t, raft.ErrLogNotFound, a.GetLog(1, &raft.Log{}), "the very error")
		last := script(t, a)
		follow(t, b, a, 1, 20)
		follow(t, b, a, 21, last)
		sum, err := a.Hash(1, last)
		require.NoError(t, err)
		check := func(s *LogStore) {
			t.Helper()
			first, err := s.FirstIndex()
			require.NoError(t, err)
			require.EqualValues(t, 1, first)
			got, err := s.LastIndex()
			require.NoError(t, err)
			require.Equal(t, last, got)
			same, err := s.Hash(1, last)
			require.NoError(t, err)
			require.Equal(t, sum, same)
			for i := uint64(1); i <= last; i++ {
				var l, want raft.Log
				require.NoError(t, s.GetLog(i, &l))
				require.NoError(t, a.GetLog(i, &want))
				require.Equal(t, want, l)
			}
			var l raft.Log
			require.NoError(t, s.GetLog(44, &l))
			require.Equal(t, metaPrefix+"\x01doc", string(l.Data))
			require.Equal(t, raft.ErrLogNotFound, s.GetLog(last+1, &l))
			_, err = s.Frame(10, 99)
			require.Equal(t, raft.ErrLogNotFound, err)
		}
		check(a)
		check(b)
		require.Equal(t, a.Engine().Appended(), b.Engine().Appended())
		require.NoError(t, b.Engine().Flush(ctx))
		require.Equal(t, last, b.DurableIndex())
		require.Zero(t, b.Engine().Visible())
		b.Commit(30)
		end, ok := b.End(30)
		require.True(t, ok)
		require.NoError(t, b.Engine().WaitDispatchedPos(ctx, end))
		require.Equal(t, end, b.Engine().Visible())
		_, high, _ := b.Engine().QueueRange("T0", 0)
		require.EqualValues(t, 28, high)

		kill := heapB.KillImage()
		cut := heapB.CrashImage(3)
		require.NoError(t, b.Close())
		for name, img := range map[string]*vfs.Heap{"closed": heapB, "killed": kill, "power cut": cut} {
			s := openLog(t, small(img, flush))
			check(s)
			require.Equal(t, name == "closed", s.Engine().Recovery().Clean, "%s, with entries that are not committed", name)
			if name == "closed" {
				require.EqualValues(t, 30, s.Committed())
			}
			require.LessOrEqual(t, s.Committed(), uint64(30))
			s.Commit(last)
			require.NoError(t, s.Engine().WaitDispatchedPos(ctx, s.Engine().Appended()))
			_, high, _ := s.Engine().QueueRange("T0", 0)
			require.EqualValues(t, 41, high)
			require.NoError(t, s.Close(), name)
			require.Empty(t, img.OpenFiles(), name)
		}
		require.NoError(t, a.Close())
	})
}

// TestDeleteRange proves that a tail that is not committed is cut for good: it does not come back after a
// crash, queue offsets go on as if it had never been, and what is committed is not cut.
func TestDeleteRange(t *testing.T) {
	both(t, func(t *testing.T, flush engine.FlushMode) {
		heap := vfs.NewHeap()
		s := openLog(t, small(heap, flush))
		last := script(t, s)
		s.Commit(10)
		require.ErrorContains(t, s.DeleteRange(10, last), "committed")
		require.ErrorContains(t, s.DeleteRange(1, 5), "retention")
		require.NoError(t, s.DeleteRange(12, last))
		for _, img := range []*vfs.Heap{heap.KillImage(), heap.CrashImage(5)} {
			again := openLog(t, small(img, flush))
			got, err := again.LastIndex()
			require.NoError(t, err)
			require.EqualValues(t, 11, got)
			require.NoError(t, again.Close())
		}
		as := lead(t, s, 12, 7, []byte("x"))
		require.EqualValues(t, 9, as[0].Result.QueueOffset)
		var l raft.Log
		require.NoError(t, s.GetLog(12, &l))
		require.EqualValues(t, 7, l.Term)
		require.NoError(t, s.DeleteRange(12, 12))
		as = lead(t, s, 12, 8, []byte("x"))
		require.EqualValues(t, 9, as[0].Result.QueueOffset)
		require.NoError(t, s.Close())
	})
}

// TestReigns proves that the terms of a log are told with where each begins, after a tail was cut
// too.
func TestReigns(t *testing.T) {
	heap := vfs.NewHeap()
	s := openLog(t, small(heap, engine.AsyncFlush))
	none, err := s.reigns()
	require.NoError(t, err)
	require.Empty(t, none)
	last := script(t, s)
	at := func(index uint64) int64 {
		e, err := s.entry(index)
		require.NoError(t, err)
		return e.pos
	}
	want := []replication.Reign{{Epoch: 1, Start: at(1)}, {Epoch: 2, Start: at(2)}, {Epoch: 3, Start: at(23)}, {Epoch: 4, Start: at(43)}}
	got, err := s.reigns()
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, s.DeleteRange(30, last))
	lead(t, s, 30, 7, []byte("x"))
	want = append(want[:3], replication.Reign{Epoch: 7, Start: at(30)})
	got, err = s.reigns()
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, s.Close())
}

// TestStoreLogsFails proves that a call that fails half-way leaves nothing of itself in the log, that the
// appends of what had been placed are told, and that those of the rest are the proposer's again.
func TestStoreLogsFails(t *testing.T) {
	s := openLog(t, small(vfs.NewHeap(), engine.SyncFlush))
	defer s.Close()
	require.NoError(t, s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogNoop}))
	told := make(chan error, 1)
	b1, b2 := s.Batch(), s.Batch()
	require.NoError(t, b1.Add(&engine.Append{Record: record("T", 0, nil), Done: func(a *engine.Append) { told <- a.Err }}))
	require.NoError(t, b2.Add(&engine.Append{Record: record("T", 0, nil)}))
	err := s.StoreLogs([]*raft.Log{{Index: 2, Term: 1, Data: b1.Token()}, {Index: 3, Term: 1, Type: raft.LogAddPeerDeprecated}, {Index: 4, Term: 1, Data: b2.Token()}})
	require.ErrorContains(t, err, "entry 3 of term 1")
	require.ErrorIs(t, <-told, engine.ErrIndeterminate)
	require.Empty(t, b1.Abandon())
	require.Len(t, b2.Abandon(), 1)
	last, err := s.LastIndex()
	require.NoError(t, err)
	require.EqualValues(t, 1, last)
	as := lead(t, s, 2, 1, []byte("x"))
	require.Zero(t, as[0].Result.QueueOffset)
	require.ErrorContains(t, s.StoreLog(&raft.Log{Index: 4, Term: 1, Type: raft.LogNoop}), "ends with entry 2")
	require.ErrorContains(t, s.StoreLog(&raft.Log{Index: 3, Term: 1, Data: b1.Token()[:7]}), "neither")
	b1.Free()
	var large *engine.TooLargeError
	b := s.Batch()
	for err = nil; err == nil; {
		err = b.Add(&engine.Append{Record: record("T", 0, make([]byte, 3000))})
	}
	require.ErrorAs(t, err, &large)
}

// TestForeignFrames proves that frames which do not belong behind the log are refused and change nothing.
func TestForeignFrames(t *testing.T) {
	a, s := openLog(t, small(vfs.NewHeap(), engine.SyncFlush)), openLog(t, small(vfs.NewHeap(), engine.SyncFlush))
	defer a.Close()
	defer s.Close()
	script(t, a)
	follow(t, s, a, 1, 5)
	end := s.Engine().Appended()
	good := bytesOf(t, a, 6, 2)
	try := func(change func(h *Header, l *raft.Log)) error {
		b := append([]byte(nil), good...)
		h, err := ParseFrame(b)
		require.NoError(t, err)
		l := &raft.Log{Index: 6, Term: 2}
		change(&h, l)
		h.put(b)
		l.Data = b
		return s.StoreLog(l)
	}
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { h.Index = 7 }), "7 where 6 is due")
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { h.Term = 3 }), "of term 3")
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { l.Type = raft.LogNoop }), "data")
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { h.Term, l.Term = 1, 1 }), "behind term 2")
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { h.PrevTerm = 1 }), "follows term 1")
	require.ErrorContains(t, try(func(h *Header, l *raft.Log) { h.Pos += 8 }), "lies differently")
	require.ErrorIs(t, try(func(h *Header, l *raft.Log) { h.BodyCRC++ }), ErrFrameDamage)
	require.Equal(t, end, s.Engine().Appended())
	require.NoError(t, try(func(*Header, *raft.Log) {}))
}

// TestSidecar proves that an index that is lost, cut, or damaged anywhere is made again from the frames,
// while the store is closed and while it runs.
func TestSidecar(t *testing.T) {
	heap := vfs.NewHeap()
	o := small(heap, engine.SyncFlush)
	s := openLog(t, o)
	last := script(t, s)
	sum, err := s.Hash(1, last)
	require.NoError(t, err)
	s.Commit(last)
	require.NoError(t, s.Close())
	dir := path.Join(nodeDir, "rmq/raft/index")
	names, err := heap.ReadDir(dir)
	require.NoError(t, err)
	require.Greater(t, len(names), 2)
	damage := func(img *vfs.Heap, name string, how int) {
		name = path.Join(dir, name)
		if how == 0 {
			require.NoError(t, img.Remove(name))
			return
		}
		f, err := img.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		st, err := f.Stat()
		require.NoError(t, err)
		if how == 1 {
			require.NoError(t, f.Truncate(st.Size()/2))
			return
		}
		at := int64(how) % st.Size()
		b := []byte{0}
		_, err = f.ReadAt(b, at)
		require.NoError(t, err)
		b[0] ^= 0x10
		_, err = f.WriteAt(b, at)
		require.NoError(t, err)
	}
	for _, n := range names {
		for _, how := range []int{0, 1, 5, 20, 33, 38, 41, 47, 50} {
			img := heap.KillImage()
			damage(img, n.Name(), how)
			o.Engine.FS = img
			s := openLog(t, o)
			got, err := s.Hash(1, last)
			require.NoError(t, err)
			require.Equal(t, sum, got, "%s, damage %d", n.Name(), how)
			require.NoError(t, s.Close())
		}
	}
	// Under a running store, whose memory has let go of the old entries.
	s = openLog(t, small(heap, engine.SyncFlush))
	s.side.mem, s.side.base = nil, last+1
	for _, n := range names {
		damage(heap, n.Name(), 41)
		damage(heap, n.Name(), 57)
	}
	got, err := s.Hash(1, last)
	require.NoError(t, err)
	require.Equal(t, sum, got)
	require.NoError(t, s.Close())
}

// TestRefused proves that a log of another kind is not opened, neither way, with a line that says what
// it is and what to do.
func TestRefused(t *testing.T) {
	ctx := t.Context()
	plain := func(fsys vfs.FS, dir string) engine.Options {
		o := small(fsys, engine.SyncFlush).Engine
		o.Dir = dir
		return o
	}
	t.Run("raft opened plain", func(t *testing.T) {
		heap := vfs.NewHeap()
		require.NoError(t, openLog(t, small(heap, engine.SyncFlush)).Close())
		for _, dir := range []string{nodeDir, path.Dir(nodeDir)} {
			_, err := engine.Open(ctx, plain(heap, dir))
			var other *engine.FormatError
			require.ErrorAs(t, err, &other)
			require.ErrorContains(t, err, "enableDLegerCommitLog=true")
		}
	})
	t.Run("plain opened as raft", func(t *testing.T) {
		for _, dir := range []string{nodeDir, path.Dir(nodeDir)} {
			heap := vfs.NewHeap()
			s, err := engine.Open(ctx, plain(heap, dir))
			require.NoError(t, err)
			_, err = s.Append(ctx, record("T", 0, nil))
			require.NoError(t, err)
			require.NoError(t, s.Close())
			_, err = OpenLogStore(ctx, small(heap, engine.SyncFlush))
			require.ErrorContains(t, err, "enableDLegerCommitLog")
			require.ErrorContains(t, err, "nothing was changed")
		}
	})
	t.Run("dledger", func(t *testing.T) {
		for _, dir := range []string{"/store/dledger-n0", nodeDir + "/dledger-n0"} {
			heap := vfs.NewHeap()
			require.NoError(t, heap.MkdirAll(dir, 0o755))
			_, err := OpenLogStore(ctx, small(heap, engine.SyncFlush))
			require.ErrorContains(t, err, "DLedger")
			require.ErrorContains(t, err, dir)
		}
	})
	t.Run("segment size", func(t *testing.T) {
		heap := vfs.NewHeap()
		require.NoError(t, openLog(t, small(heap, engine.SyncFlush)).Close())
		o := small(heap, engine.SyncFlush)
		o.Engine.SegmentBytes *= 2
		_, err := OpenLogStore(ctx, o)
		var other *engine.MismatchError
		require.ErrorAs(t, err, &other)
	})
}
