package storetool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/message"
)

// small are sizes with which every kind of file rolls.
func small(fsys vfs.FS, dir string) engine.Options {
	return engine.Options{
		FS: fsys, Dir: dir, SegmentBytes: 16 << 10, QueueFileBytes: 400, MaxHashSlots: 64, MaxIndexEntries: 128,
		MaxMessageBytes: 4 << 10, MaxUnflushed: 1 << 20, MaxPending: 256 << 10, TailCache: 32 << 10, CheckpointBytes: 64 << 10,
		Retention: engine.RetentionOptions{Disabled: true},
	}
}

// fill appends n records of all kinds: several topics, keys, tags, delays, transaction bits.
func fill(t testing.TB, s *engine.Store, seed uint64, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		var p message.Properties
		if rng.IntN(4) > 0 {
			p = message.AppendProperty(p, message.PropUniqKey, fmt.Sprintf("U%d-%d", seed, i))
		}
		if rng.IntN(3) > 0 {
			p = message.AppendProperty(p, message.PropKeys, fmt.Sprintf("k%d  all %d", i, i%7))
		}
		if rng.IntN(2) > 0 {
			p = message.AppendProperty(p, message.PropTags, "Tag"+string(rune('A'+i%3)))
		}
		m := message.Message{
			Topic: fmt.Sprintf("Topic%d", rng.IntN(3)), QueueID: int32(rng.IntN(2)), BornTimestamp: 1_700_000_000_000,
			BornHost: netip.MustParseAddrPort("10.0.0.1:54321"), StoreHost: netip.MustParseAddrPort("10.0.0.2:10911"),
			Body: make([]byte, rng.IntN(900)), CRCSlot: i%5 == 0,
		}
		for j := range m.Body {
			m.Body[j] = byte(rng.Uint32())
		}
		switch rng.IntN(12) {
		case 0:
			m.Topic, m.QueueID = message.TopicSchedule, 2
			p = message.AppendProperty(p, message.PropDelay, "3")
		case 1:
			m.SysFlag = message.FlagPrepared
		case 2:
			m.SysFlag = message.FlagRollback
		}
		m.Properties = p
		rec, err := message.AppendRecord(nil, &m)
		require.NoError(t, err)
		_, err = s.Append(t.Context(), rec)
		require.NoError(t, err)
	}
}

// made is a store of ours with n records, closed.
func made(t testing.TB, n int) (*vfs.Heap, engine.Options) {
	t.Helper()
	h := vfs.NewHeap()
	o := small(h, "store")
	s, err := engine.Open(t.Context(), o)
	require.NoError(t, err)
	fill(t, s, 1, n)
	require.NoError(t, s.Close())
	return h, o
}

func verify(t testing.TB, o Options) *Report {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	r, err := s.Verify(context.Background(), VerifyOptions{})
	require.NoError(t, err)
	return r
}

func lines(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

// A store that was closed has no findings at all, and everything in it was looked at.
func TestVerifyClosed(t *testing.T) {
	h, _ := made(t, 400)
	r := verify(t, Options{FS: h, Dir: "store"})
	require.Empty(t, lines(r))
	require.EqualValues(t, 400, r.Records)
	require.Greater(t, r.QueueEntries, int64(300))
	require.Greater(t, r.IndexEntries, int64(600))
	require.Greater(t, r.IndexFiles, 4)
	require.Equal(t, 7, r.Queues)
}

// What a kill leaves is no fault at any moment, only notes.
func TestVerifyKilled(t *testing.T) {
	h := vfs.NewHeap()
	o := small(h, "store")
	s, err := engine.Open(t.Context(), o)
	require.NoError(t, err)
	for i := range 8 {
		fill(t, s, uint64(i), 60)
		if i%3 == 1 {
			require.NoError(t, s.Checkpoint(t.Context()))
		}
		r := verify(t, Options{FS: h.KillImage(), Dir: "store"})
		require.Zero(t, r.Faults, lines(r))
		require.NotZero(t, r.Notes, "abort is there")
	}
	require.NoError(t, s.Close())
}

// The directories that Apache wrote have no faults, and what the killed one lacks is told.
func TestVerifyApache(t *testing.T) {
	for name, notes := range map[string]bool{"apache-4.9.8-clean": false, "apache-5.3.3-killed": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "..", "test", "compat", "testdata", name, "store")
			if _, err := os.Stat(dir); err != nil {
				t.Skip(err)
			}
			r := verify(t, Options{Dir: dir})
			t.Log(lines(r))
			require.Zero(t, r.Faults, lines(r))
			require.Equal(t, notes, r.Notes > 0, lines(r))
			require.Greater(t, r.Records, int64(300))
			require.Greater(t, r.IndexEntries, int64(300))
		})
	}
}
