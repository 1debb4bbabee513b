package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/run"
	"rmq/internal/vfs"
)

// follow feeds s the log of master up to end, in pieces, and shows readers what it has.
func follow(t *testing.T, s, master *Store, end int64, show bool) {
	t.Helper()
	for pos := s.Appended(); pos < end; pos = s.Appended() {
		r, err := master.ReadRaw(pos, int(min(700, end-pos)), UptoWritten)
		require.NoError(t, err)
		require.NoError(t, s.WriteRaw(context.Background(), pos, r.Bytes))
		r.Release()
		if show {
			s.SetConfirm(s.Written())
		}
	}
}

// TestQueueJournalOutlivesKills proves that a follower finds its queues by their journal however often
// it is killed under load, with checkpoints beside what arrives, queues that go into their files, and
// hidden tails that are cut.
func TestQueueJournalOutlivesKills(t *testing.T) {
	for _, cut := range []bool{false, true} {
		for _, direct := range []int{2, 7, 1000} {
			t.Run(fmt.Sprintf("cut=%v/direct=%d", cut, direct), func(t *testing.T) { journalUnderKills(t, cut, direct) })
		}
	}
}

func journalUnderKills(t *testing.T, cut bool, direct int) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(uint64(direct), 7))
	master := open(t, small(vfs.NewHeap(), "/m"))
	defer master.Close()
	heap := vfs.NewHeap()
	o := small(heap, "/s")
	o.Hidden, o.QueueFileBytes, o.directEntries = true, 4000, direct
	s := open(t, o)
	var all []sent
	for round := range 12 {
		checkpoints, stop := context.WithCancel(ctx)
		beside := run.New(checkpoints, "checkpoints")
		beside.Go("checkpoints", func(ctx context.Context) error {
			for ctx.Err() == nil {
				if err := s.Checkpoint(context.WithoutCancel(ctx)); err != nil {
					return err
				}
			}
			return nil
		})
		all = append(all, fill(t, master, uint64(round), 80)...)
		follow(t, s, master, master.Written(), true)
		if cut { // an old leader's last words
			shown := s.Visible()
			tail := record("Topic0", 0, make([]byte, 100+rng.IntN(900)), "lost")
			require.NoError(t, s.WriteRaw(ctx, shown, tail))
			require.NoError(t, s.TruncateTo(shown))
		}
		img := heap.KillImage()
		stop()
		require.NoError(t, beside.Wait())
		require.NoError(t, s.Close())

		heap, o.FS = img, img
		s = open(t, o)
		require.False(t, s.queues.fromScan, "round %d: the journal was not used", round)
		follow(t, s, master, master.Written(), false)
		s.SetConfirm(s.Written())
		check(t, s, all)
	}
	require.NoError(t, s.Close())
}

// TestQueueJournalBroken proves that a store is whole although the entries in its journal do not follow
// each other, as versions before this one could leave them: the queues are found by their files and the
// log, and the journal is made anew.
func TestQueueJournalBroken(t *testing.T) {
	heap := vfs.NewHeap()
	o := small(heap, "/s")
	o.directEntries = 5
	s := open(t, o)
	all := fill(t, s, 1, 60)
	require.NoError(t, s.Checkpoint(context.Background()))
	all = append(all, fill(t, s, 2, 20)...)
	img := heap.KillImage()
	require.NoError(t, s.Close())

	j := newQueueJournal(img, rmqDir(o.Dir), o.QueueFileBytes)
	var err error
	j.f, err = img.OpenFile(j.path, os.O_RDWR, 0)
	require.NoError(t, err)
	st, err := j.f.Stat()
	require.NoError(t, err)
	j.at = st.Size()
	j.startBlock(blockOfItems)
	j.buf = append(j.buf, itemEntries)
	j.buf = binary.BigEndian.AppendUint32(j.buf, 0)
	j.buf = binary.BigEndian.AppendUint64(j.buf, 1000)
	j.buf = binary.BigEndian.AppendUint32(j.buf, 1)
	j.buf = format.AppendCQEntry(j.buf, format.CQEntry{Offset: 1, Size: 1})
	require.NoError(t, j.commit(1<<40, false))
	require.NoError(t, j.close())

	var text bytes.Buffer
	o.FS, o.Logger = img, slog.New(slog.NewTextHandler(&text, nil))
	s = open(t, o)
	require.True(t, s.queues.fromScan, "the journal was used")
	require.Contains(t, text.String(), "entries do not follow each other")
	check(t, s, all)
	img2 := img.KillImage()
	require.NoError(t, s.Close())

	o.FS = img2
	s = open(t, o)
	require.False(t, s.queues.fromScan, "the journal was not made anew")
	check(t, s, all)
	require.NoError(t, s.Close())
}
