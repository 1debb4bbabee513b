//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/engine/storetool"
	"rmq/message"
	"rmq/test/compat"
)

// TestApacheWritesCleanStop proves that a directory which Apache stopped cleanly reads the same with
// our engine, that the queues we rebuild from its log are its queues byte for byte, and that Apache
// then opens what we appended.
func TestApacheWritesCleanStop(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		dir := t.TempDir()
		run := l.run(t, dir, s, seedArg(t), v2(l), propCRC(l), "put="+n(pick(1500, 20000)), "dump")
		sameAcks(t, run.Puts, run.Dumps[0])
		compat.CheckRebuiltQueues(t, s, dir, run.Dumps[0], false)
		verify(t, s, dir, false)

		ours := copyDir(t, dir)
		store := s.Open(t, ours)
		compat.Check(t, store, run.Dumps[0])
		w := newWorkload(seed(t), l == store53)
		for range pick(300, 3000) {
			w.append(t, store)
		}
		require.NoError(t, store.Close())
		oursToApache(t, l, s, ours, w.acked, false)
	})
}

// TestApacheWritesKilled proves that after a SIGKILL of an Apache writer our recovery finds what
// Apache's own recovery finds in another copy: the end of the log, records, queues, keys.
func TestApacheWritesKilled(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		args := []string{seedArg(t), v2(l), propCRC(l)}
		if l == store53 {
			args = append(args, "flush=sync")
		}
		const tries = 8
		for compared, n := 0, 0; compared < pick(1, 10); n++ {
			require.Less(t, n, tries*pick(1, 10), "no kill left a directory that Apache opens")
			dir := t.TempDir()
			acked := l.killed(t, dir, s, pick(1500, 6000), args...)
			if name := emptyFile(t, dir); name != "" && l == store49 {
				t.Logf("killed between making and sizing %s, which 4.9 refuses to load: only ours is asked", name)
				onlyOurs(t, s, dir, acked)
				continue
			}
			verify(t, s, dir, false)
			theirs := copyDir(t, dir)
			run := l.run(t, theirs, s, append(args, "dump")...)
			store := s.Open(t, copyDir(t, dir))
			dump := compat.DropTorn(t, store, run.Dumps[0])
			contains(t, dump, acked)
			compat.CheckRecovered(t, store, dump)
			require.NoError(t, store.Close())
			compat.CheckRebuiltQueues(t, s, theirs, dump, true)
			compared++
		}
	})
}

// onlyOurs checks that our engine opens dir and finds everything that was acked.
func onlyOurs(t *testing.T, s sizes, dir string, acked []compat.Record) {
	t.Helper()
	store := s.Open(t, dir)
	found := &compat.Dump{}
	for _, q := range store.Queues() {
		low, _, _ := store.QueueRange(q.Topic, q.ID)
		all, err := compat.ReadQueue(store, compat.QueueName{Topic: q.Topic, ID: q.ID}, low)
		require.NoError(t, err)
		found.Records = append(found.Records, all...)
	}
	contains(t, found, acked)
	require.NoError(t, store.Close())
}

// TestOursCleanStop proves that Apache opens a directory that our engine wrote and stopped cleanly,
// answers as we do, appends to it, and that we then open it again.
func TestOursCleanStop(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		task := childTask{t.TempDir(), s, seed(t), l == store53}
		dir := task.Dir
		store, err := engine.Open(t.Context(), task.options())
		require.NoError(t, err)
		w := newWorkload(task.Seed, task.Newer)
		for range pick(1500, 20000) {
			w.append(t, store)
		}
		require.NoError(t, store.Close())
		require.NoFileExists(t, filepath.Join(dir, "abort"))
		verify(t, s, dir, false)
		oursToApache(t, l, s, dir, w.acked, false)
	})
}

// TestOursKilled proves the same of a directory that a child of ours was writing when SIGKILL hit it.
func TestOursKilled(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		for range pick(1, 10) {
			dir := t.TempDir()
			out := killAfter(t, child(t, childTask{dir, s, seed(t), l == store53}), pick(1500, 12000))
			run, err := compat.ParseRun(bytes.NewReader(out))
			require.NoError(t, err)
			verify(t, s, dir, false)
			oursToApache(t, l, s, dir, run.Puts, true)
		}
	})
}

// TestKillsInTurn proves that nothing acked is lost when our engine and Apache take turns on one
// directory and each is killed while it writes: neither may take the other's traces for its own.
func TestKillsInTurn(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		dir := t.TempDir()
		var acked []compat.Record
		for turn := range pick(4, 12) {
			if turn%2 == 0 {
				out := killAfter(t, child(t, childTask{dir, s, seed(t), l == store53}), pick(600, 3000))
				run, err := compat.ParseRun(bytes.NewReader(out))
				require.NoError(t, err)
				acked = append(acked, run.Puts...)
			} else {
				acked = append(acked, l.killed(t, dir, s, pick(600, 3000), seedArg(t), v2(l), propCRC(l))...)
			}
			if name := emptyFile(t, dir); name != "" && l == store49 {
				t.Logf("killed between making and sizing %s, which 4.9 refuses to load", name)
				onlyOurs(t, s, dir, acked)
			}
		}
		oursToApache(t, l, s, dir, acked, true)
	})
}

// oursToApache lets Apache open dir, which our engine wrote last, and append to it. All that we
// acked must be there, whether we were killed or stopped; on a copy we must answer the same as Apache, before and after its appends.
func oursToApache(t *testing.T, l line, s sizes, dir string, acked []compat.Record, killed bool) {
	t.Helper()
	before := copyDir(t, dir)
	run := l.run(t, dir, s, seedArg(t), propCRC(l), "dump", "put="+n(200), "dump")
	contains(t, run.Dumps[1], append(acked, run.Puts...))

	check := compat.Check
	store := s.Open(t, before)
	recovered := run.Dumps[0]
	if killed {
		check = compat.CheckRecovered
		recovered = compat.DropTorn(t, store, recovered)
	}
	contains(t, recovered, acked)
	check(t, store, recovered)
	require.NoError(t, store.Close())
	compat.CheckRebuiltQueues(t, s, dir, run.Dumps[1], killed)
	var holes []compat.Hole
	if killed {
		holes = compat.Holes(t, run.Dumps[1], s.Segment)
		t.Logf("Apache has lost keys in %d ranges of the log: %v", len(holes), holes)
	}
	verify(t, s, dir, killed && l == store49, holes...)

	store = s.Open(t, dir)
	check(t, store, run.Dumps[1])
	require.NoError(t, store.Close())
}

// TestTornTail proves that a last record whose properties were not stored to their end is cut by ours,
// and that the same record stays, and all that follows it, once Apache has recovered the directory and
// gone on: 4.9 keeps the record, 5.3 finds by the checksum property that it is torn.
func TestTornTail(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		dir := t.TempDir()
		puts := l.run(t, dir, s, seedArg(t), propCRC(l), "put="+n(600)).Puts
		last := len(puts)
		for torn := false; !torn; {
			last--
			pos := puts[last].Pos % s.Segment
			name := filepath.Join(dir, "commitlog", format.FileName(puts[last].Pos-pos))
			log, err := os.ReadFile(name)
			require.NoError(t, err)
			var r message.Record
			require.NoError(t, message.ParseRecord(log[pos:], &r))
			torn = len(r.Properties) > 10
			if torn {
				pos += int64(r.Size) - 10
			}
			clear(log[pos:])
			require.NoError(t, os.WriteFile(name, log, 0o644))
		}
		for _, name := range []string{"consumequeue", "index", "checkpoint"} { // they know of the rest
			require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "abort"), nil, 0o644))
		store := s.Open(t, copyDir(t, dir))
		require.Equal(t, puts[last].Pos, store.Max())
		require.NoError(t, store.Close())
		oursToApache(t, l, s, dir, puts[:last], true)
	})
}

// TestHeadOfLogGone proves that queues rebuilt from a log whose first files are gone begin as
// Apache's do: at a later offset, the file filled up to it.
func TestHeadOfLogGone(t *testing.T) {
	each(t, func(t *testing.T, l line, s sizes) {
		dir := t.TempDir()
		l.run(t, dir, s, seedArg(t), "put="+n(1500))
		segments, err := os.ReadDir(filepath.Join(dir, "commitlog"))
		require.NoError(t, err)
		if len(segments) < 3 {
			t.Skip("the log is too short")
		}
		require.NoError(t, os.Remove(filepath.Join(dir, "commitlog", segments[0].Name())))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "consumequeue")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "abort"), nil, 0o644))

		theirs := copyDir(t, dir)
		run := l.run(t, theirs, s, "dump")
		require.Equal(t, s.Segment, run.Dumps[0].Min)
		store := s.Open(t, dir)
		compat.Check(t, store, run.Dumps[0])
		require.NoError(t, store.Close())
		compat.CheckRebuiltQueues(t, s, theirs, run.Dumps[0], true)
	})
}

// verify lets the offline store tool check dir, which nobody has open. What a kill leaves is a note;
// a fault is none of that. recovered49 says that 4.9 made queue entries while it recovered: those of
// the delay queues then hold the hash of the tag (see [compat.CheckRebuiltQueues]). In the holes Apache
// has lost the keys, see [compat.Holes].
func verify(t *testing.T, s sizes, dir string, recovered49 bool, holes ...compat.Hole) {
	t.Helper()
	store, err := storetool.Open(storetool.Options{
		Dir: dir, SegmentBytes: s.Segment, QueueFileBytes: s.QueueFile, MaxHashSlots: s.Slots, MaxIndexEntries: s.Entries,
	})
	require.NoError(t, err)
	r, err := store.Verify(t.Context(), storetool.VerifyOptions{MaxFindings: -1})
	require.NoError(t, err)
	faults := 0
	for _, f := range r.Findings {
		known := recovered49 && f.Kind == storetool.KindEntry && f.Topic == message.TopicSchedule
		for _, h := range holes {
			known = known || f.Kind == storetool.KindMissing && f.Topic == "" && f.Pos >= h.From && f.Pos <= h.To
		}
		if f.Severity != storetool.Fault || known {
			continue
		}
		if faults++; faults < 10 {
			t.Error(f)
		}
	}
	require.Zero(t, faults)
	require.NotZero(t, r.Records)
}

// each runs f for both release lines side by side, for small files and, in the long form, others.
func each(t *testing.T, f func(*testing.T, line, sizes)) {
	t.Helper()
	for _, l := range lines {
		t.Run(string(l), func(t *testing.T) {
			t.Parallel()
			all := []sizes{small}
			if long() {
				all = append(all, roomy, longIndex)
			}
			for _, s := range all {
				f(t, l, s)
			}
		})
	}
}

// sameAcks checks that the records which a dump found in the queues are those acked, but for the
// prepared and rolled-back ones, which have no entry.
func sameAcks(t *testing.T, puts []compat.Record, d *compat.Dump) {
	t.Helper()
	require.LessOrEqual(t, len(d.Records), len(puts))
	require.Greater(t, len(d.Records), len(puts)*9/10)
	contains(t, d, puts)
}

// contains checks that every acked record that a queue should hold is in the dump.
func contains(t *testing.T, d *compat.Dump, acked []compat.Record) {
	t.Helper()
	byPos := map[int64]compat.Record{}
	for _, r := range d.Records {
		byPos[r.Pos] = r
	}
	lost := 0
	for _, a := range acked {
		r, ok := byPos[a.Pos]
		switch {
		case a.NoEntry == 1:
			require.False(t, ok, "%+v", a)
		case !ok:
			lost++
			t.Errorf("acked but lost: %+v", a)
		default:
			require.Equal(t, a.Topic, r.Topic)
			require.Equal(t, a.Queue, r.Queue)
			require.Equal(t, a.Offset, r.Offset)
			require.Equal(t, a.StoreTime, r.StoreTime)
			require.True(t, strings.EqualFold(a.ID, r.ID), "%s and %s", a.ID, r.ID)
		}
		if lost > 5 {
			t.FailNow()
		}
	}
	t.Logf("%d acked, %d in queues, none lost", len(acked), len(d.Records))
}

func n(v int) string { return strconv.Itoa(v) }

func seedArg(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("seed=%d", seed(t))
}

// propCRC lets 5.3 write, and check, the checksum property.
func propCRC(l line) string { return fmt.Sprintf("propcrc=%t", l == store53) }

// v2 lets 5.3 write topics that need the second record version, which 4.9 does not know.
func v2(l line) string { return fmt.Sprintf("v2=%t", l == store53) }
