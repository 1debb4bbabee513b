package raftlog

import (
	"path"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
)

var _ raft.StableStore = (*StableStore)(nil)

func openStable(tb testing.TB, fsys vfs.FS) *StableStore {
	tb.Helper()
	require.NoError(tb, fsys.MkdirAll("/r", 0o755))
	require.NoError(tb, fsys.SyncDir("/"))
	return openStableAt(tb, fsys, "/r")
}

func openStableAt(tb testing.TB, fsys vfs.FS, dir string) *StableStore {
	tb.Helper()
	s, err := OpenStable(fsys, dir)
	require.NoError(tb, err)
	return s
}

// vote is what the library does to vote.
func vote(s raft.StableStore, term uint64, candidate string) error {
	if err := s.SetUint64([]byte(keyLastVoteTerm), term); err != nil {
		return err
	}
	return s.Set([]byte(keyLastVoteCand), []byte(candidate))
}

// TestStable proves that a term outlives a power cut once it is settled, and a vote with its term once it is given, and that
// what was never set is told in the way that the library understands.
func TestStable(t *testing.T) {
	fsys := vfs.NewHeap()
	s := openStable(t, fsys)
	_, err := s.GetUint64([]byte(keyCurrentTerm))
	require.EqualError(t, err, "not found")
	_, err = s.Get([]byte(keyLastVoteCand))
	require.EqualError(t, err, "not found")
	for term := uint64(1); term < 8; term++ {
		require.NoError(t, s.SetUint64([]byte(keyCurrentTerm), term))
		if term%2 == 0 { // also alone
			require.NoError(t, s.Settle())
			again := openStable(t, fsys.CrashImage(term))
			got, err := again.GetUint64([]byte(keyCurrentTerm))
			require.NoError(t, err)
			require.Equal(t, term, got)
			require.NoError(t, again.Close())
		}
		require.NoError(t, vote(s, term, "127.0.0.1:40911"))
		require.NoError(t, s.Settle())
		again := openStable(t, fsys.CrashImage(term))
		got, err := again.GetUint64([]byte(keyCurrentTerm))
		require.NoError(t, err)
		require.Equal(t, term, got)
		got, err = again.GetUint64([]byte(keyLastVoteTerm))
		require.NoError(t, err)
		require.Equal(t, term, got)
		cand, err := again.Get([]byte(keyLastVoteCand))
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1:40911", string(cand))
		require.NoError(t, again.Close())
	}
	require.ErrorContains(t, s.Set([]byte("other"), nil), "other")
	require.ErrorContains(t, vote(s, 9, string(make([]byte, 500))), "shorter")
	require.NoError(t, s.Close())
}

// TestTornVote proves that no crash leaves the term of one vote beside the candidate of another,
// wherever it falls: before, between and inside the two calls that the library makes (H2), and that one between them does
// where the store makes each durable by itself: that node would vote again in the term, for the old candidate.
func TestTornVote(t *testing.T) {
	type pair struct {
		term uint64
		cand string
	}
	read := func(img *vfs.Heap) pair {
		s := openStable(t, img)
		defer s.Close()
		term, err := s.GetUint64([]byte(keyLastVoteTerm))
		require.NoError(t, err)
		cand, err := s.Get([]byte(keyLastVoteCand))
		require.NoError(t, err)
		return pair{term, string(cand)}
	}
	old, next, torn := pair{4, "a"}, pair{5, "b"}, pair{5, "a"}
	for _, off := range []gate{0, oneVote} {
		heap := vfs.NewHeap()
		var images []*vfs.Heap
		fsys := vfs.NewFaulty(heap)
		s := openStable(t, fsys)
		s.gates = &gates{}
		require.NoError(t, vote(s, old.term, old.cand))
		s.gates.switchOff(off)
		fsys.Before(func(vfs.Call) {
			for seed := range uint64(8) {
				images = append(images, heap.CrashImage(seed))
			}
			images = append(images, heap.KillImage())
		})
		require.NoError(t, s.SetUint64([]byte(keyLastVoteTerm), next.term))
		between := old
		if off != 0 {
			between = torn
		}
		require.Equal(t, between, read(heap.KillImage()), "between the calls")
		require.NoError(t, s.Set([]byte(keyLastVoteCand), []byte(next.cand)))
		require.Equal(t, next, read(heap.CrashImage(1)))
		require.NotEmpty(t, images)
		seen := map[pair]bool{}
		for _, img := range images {
			seen[read(img)] = true
		}
		require.Equal(t, off != 0, seen[torn])
		delete(seen, torn)
		require.Equal(t, map[pair]bool{old: true, next: true}, seen)
		require.NoError(t, s.Close())
	}
}

// TestStableFails proves that a vote whose sync has failed is not given, nor any after it, and that a
// file which tells nothing any more is refused with the way out.
func TestStableFails(t *testing.T) {
	fsys := vfs.NewFaulty(vfs.NewHeap())
	s := openStable(t, fsys)
	require.NoError(t, s.SetUint64([]byte(keyCurrentTerm), 1))
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Match: "*vote", Nth: 1, Err: syscall.EIO})
	require.ErrorIs(t, vote(s, 2, "a"), syscall.EIO)
	require.ErrorIs(t, s.SetUint64([]byte(keyCurrentTerm), 3), syscall.EIO)
	require.NoError(t, s.Close())

	f, err := fsys.OpenFile(path.Join("/r", voteName), 2, 0)
	require.NoError(t, err)
	for _, at := range []int64{100, 612} {
		_, err = f.WriteAt([]byte{0xFF}, at)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	_, err = OpenStable(fsys, "/r")
	var damage *engine.CorruptionError
	require.ErrorAs(t, err, &damage)
	require.ErrorContains(t, err, "new identity")
}
