package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// TestStockCheckpointIsBehind proves that the stock checkpoint, as a power cut before any call of a
// checkpoint or of a clean stop leaves it, names no time of a record that log, classic queue files or
// finished index files lack: Apache starts its recovery behind those times, and never makes up for what
// is missing before them.
func TestStockCheckpointIsBehind(t *testing.T) {
	ctx := context.Background()
	base := vfs.NewHeap()
	fsys := vfs.NewFaulty(base)
	o := small(fsys, "/s")
	o.SegmentBytes, o.QueueFileBytes, o.CheckpointPeriod = 64<<10, 4000, time.Hour
	o.CheckpointBytes = 1 << 30 // checkpoints come when asked for
	var now atomic.Int64
	now.Store(1_700_000_000_000)
	o.Clock = func() time.Time { return time.UnixMilli(now.Add(1)) } // no two records have one time
	o.EnsureDefaults()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var all []sent
	put := func(s *Store, queue int32, n int) {
		t.Helper()
		for range n {
			m := sent{topic: "T", queue: queue, key: strconv.Itoa(len(all))}
			res, err := s.Append(ctx, record(m.topic, queue, []byte("body"), m.key))
			require.NoError(t, err)
			m.res = res
			all = append(all, m)
		}
		require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
	}
	images, named := 0, 0
	cuts := func(do func() error) {
		t.Helper()
		var mu sync.Mutex
		list := map[string]*vfs.Heap{}
		fsys.Before(func(c vfs.Call) {
			if c.N > 0 {
				mu.Lock()
				defer mu.Unlock()
				list["cut before "+c.String()] = base.CrashImage(seed + uint64(c.N))
			}
		})
		require.NoError(t, do())
		fsys.Before(nil)
		list["cut behind"] = base.CrashImage(seed)
		for name, img := range list {
			images++
			if pageHolds(t, &o, img, all, name) {
				named++
			}
		}
	}
	for range 2 {
		s := open(t, o)
		for round := range 2 {
			put(s, 0, 600)     // so many of one queue go into its files
			put(s, 1, 7*round) // and so few stay in the journal
			cuts(func() error { return s.Checkpoint(ctx) })
		}
		cuts(s.Close)
	}
	require.Greater(t, images, 100)
	require.Greater(t, named, images/4, "the pages name no times")
}

// pageHolds checks the checkpoint page in img against what is there of the records. It reports
// whether the page names the time of any.
func pageHolds(t *testing.T, o *Options, img *vfs.Heap, all []sent, name string) bool {
	t.Helper()
	page, _, err := newCheckpointFile(img, o.Dir).load()
	require.NoError(t, err, name)
	read := map[string][]byte{}
	at := func(dir string, off, size, fileBytes int64) []byte {
		file := path.Join(dir, format.FileName(off-off%fileBytes))
		b, ok := read[file]
		if !ok {
			b, err = vfs.ReadFile(img, file)
			if !errors.Is(err, fs.ErrNotExist) {
				require.NoError(t, err, name)
			}
			read[file] = b
		}
		if off%fileBytes+size > int64(len(b)) {
			return make([]byte, size)
		}
		return b[off%fileBytes:][:size]
	}
	indexed := indexedBelow(t, o, img, page.Index, name)
	fail := func(m sent, what string) {
		t.Fatalf("%s: record %s at %d, stored at %d: %s; %+v", name, m.key, m.res.Pos, m.res.StoreTime, what, page)
	}
	named := false
	for _, m := range all {
		if m.res.StoreTime <= min(page.Physic, page.Logics) {
			named = true
			var r message.Record
			err := message.ParseRecord(at(o.CommitLogDir, m.res.Pos, int64(m.res.Size), o.SegmentBytes), &r)
			if err != nil || (Plain{}).Check(nil, m.res.Pos, &r) != nil {
				fail(m, "not in the log")
			}
			dir := path.Join(o.QueueDir, m.topic, strconv.Itoa(int(m.queue)))
			e, err := format.ParseCQEntry(at(dir, m.res.QueueOffset*format.CQEntryBytes, format.CQEntryBytes, o.QueueFileBytes))
			if err != nil || e.Offset != m.res.Pos || e.Size != m.res.Size {
				fail(m, "not in the queue's file")
			}
		}
		if m.res.StoreTime < page.Index && indexed[m.res.Pos] != 2 { // the last record is indexed again
			fail(m, "not found in the index files that are kept")
		}
	}
	return named
}

// indexedBelow counts the entries of each record that are found by their slots in the index files that
// Apache keeps after a crash.
func indexedBelow(t *testing.T, o *Options, img *vfs.Heap, stamp int64, name string) map[int64]int {
	t.Helper()
	have := map[int64]int{}
	entries, err := img.ReadDir(o.IndexDir)
	if errors.Is(err, fs.ErrNotExist) {
		return have
	}
	require.NoError(t, err, name)
	for _, e := range entries {
		b := readWhole(t, img, path.Join(o.IndexDir, e.Name()))
		head, err := format.ParseIndexHeader(b)
		if err != nil || head.EndTime > stamp {
			continue
		}
		slots, units := b[format.IndexHeaderBytes:], b[format.IndexHeaderBytes+int64(o.MaxHashSlots)*format.IndexSlotBytes:]
		for i := range o.MaxHashSlots {
			for n := int32(binary.BigEndian.Uint32(slots[i*format.IndexSlotBytes:])); n > 0; {
				e, err := format.ParseIndexEntry(units[n*format.IndexEntryBytes:])
				require.NoError(t, err, name)
				have[e.Offset]++
				n = e.Prev
			}
		}
	}
	return have
}
