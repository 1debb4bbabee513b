package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

const testIndexDir = "store/index"

// keyedRecord is a record as the dispatcher hands it to the index.
func putRecord(x *indexService, r *message.Record) error { return x.put(r, x.keysOf(r)) }

func keyedRecord(topic string, pos, millis int64, uniq, keys string) *message.Record {
	var p message.Properties
	if uniq != "" {
		p = message.AppendProperty(p, message.PropUniqKey, uniq)
	}
	if keys != "" {
		p = message.AppendProperty(p, message.PropKeys, keys)
	}
	return &message.Record{Topic: []byte(topic), PhysicalOffset: pos, Size: 100, StoreTimestamp: millis, Properties: p}
}

// indexMachine drives an index and a list of what was put into it.
type indexMachine struct {
	fs    *vfs.Heap
	o     indexOptions
	x     *indexService
	log   []*message.Record
	min   int64
	saved int64 // IndexEnd of the last checkpoint, as a state file would hold it
	stamp int64
	exact bool // the files must be what Apache would have written
	clock time.Time
}

func (m *indexMachine) open(t require.TestingT, clean bool) {
	m.o.FS = m.fs
	m.o.Clock = func() time.Time {
		m.clock = m.clock.Add(time.Millisecond / 2) // two files in a millisecond need different names
		return m.clock
	}
	m.x = newIndexService(m.o)
	require.NoError(t, m.x.load(context.Background(), clean, m.stamp))
	if m.x.endOffset() < m.saved {
		require.NoError(t, m.x.reset(context.Background()))
		m.exact = false
	}
	m.replay(t)
}

// replay dispatches the whole log again: what is there is skipped.
func (m *indexMachine) replay(t require.TestingT) {
	for _, r := range m.log {
		if r.PhysicalOffset >= m.min {
			require.NoError(t, putRecord(m.x, r))
		}
	}
}

func (m *indexMachine) put(t *rapid.T) {
	pos, millis := int64(0), int64(1_700_000_000_000)
	if n := len(m.log); n > 0 {
		last := m.log[n-1]
		pos, millis = last.PhysicalOffset+int64(last.Size), last.StoreTimestamp
	}
	keys := []string{"", "k", "a b", "k  b", "AaAa BBBB", "订单"}
	r := keyedRecord(rapid.SampledFrom([]string{"T", "Aa", "BB"}).Draw(t, "topic"), pos,
		millis+rapid.SampledFrom([]int64{0, 1, 999, 5000}).Draw(t, "later"),
		rapid.SampledFrom([]string{"", "u1", "u2", "polygenelubricants"}).Draw(t, "uniq"), rapid.SampledFrom(keys).Draw(t, "keys"))
	if rapid.IntRange(0, 9).Draw(t, "rollback") == 0 {
		r.SysFlag = message.FlagRollback
	}
	m.log = append(m.log, r)
	require.NoError(t, putRecord(m.x, r))
}

func (m *indexMachine) checkpoint(t *rapid.T) {
	require.NoError(t, m.x.checkpoint(context.Background()))
	m.saved, m.stamp = m.x.durableEnd(), m.x.safeIndexTime()
}

func (m *indexMachine) closeClean(t *rapid.T) {
	m.checkpoint(t)
	require.NoError(t, m.x.flushClassic(context.Background()))
	require.NoError(t, m.x.close())
	if m.exact {
		m.checkBytes(t)
	}
	m.open(t, true)
}

func (m *indexMachine) kill(t *rapid.T) {
	require.NoError(t, m.x.close())
	m.open(t, false)
}

func (m *indexMachine) powerCut(t *rapid.T) {
	require.NoError(t, m.x.close())
	m.fs = m.fs.CrashImage(rapid.Uint64().Draw(t, "seed"))
	require.NoError(t, m.fs.MkdirAll(testIndexDir, 0o755))
	m.open(t, false)
}

func (m *indexMachine) truncate(t *rapid.T) {
	if len(m.log) == 0 {
		return
	}
	at := rapid.IntRange(0, len(m.log)-1).Draw(t, "at")
	pos := m.log[at].PhysicalOffset
	if pos < m.min {
		return
	}
	require.NoError(t, m.x.truncate(context.Background(), pos))
	m.log = m.log[:at]
	m.saved, m.stamp = min(m.saved, m.x.durableEnd()), min(m.stamp, m.x.safeIndexTime())
	m.exact = false
}

func (m *indexMachine) expire(t *rapid.T) {
	if len(m.log) == 0 {
		return
	}
	m.checkpoint(t) // the log goes only up to the last one
	m.min = max(m.min, m.log[rapid.IntRange(0, len(m.log)-1).Draw(t, "to")].PhysicalOffset)
	require.NoError(t, m.x.deleteBefore(m.min))
}

// keysOf lists the keys of a record in the order of their entries.
func keysOf(r *message.Record) []string {
	uniq, keys, _ := r.Properties.Scan()
	var list []string
	if r.SysFlag.Transaction() == message.FlagRollback {
		return nil
	}
	if len(uniq) > 0 {
		list = append(list, string(uniq))
	}
	for start, i := 0, 0; i <= len(keys); i++ {
		if i == len(keys) || keys[i] == ' ' {
			if i > start {
				list = append(list, string(keys[start:i]))
			}
			start = i + 1
		}
	}
	return list
}

// check asks for every key of every topic and compares with the list, newest first.
func (m *indexMachine) check(t *rapid.T) {
	for _, topic := range []string{"T", "Aa", "BB"} {
		for _, key := range []string{"u1", "u2", "polygenelubricants", "k", "a", "b", "AaAa", "BBBB", "订单", "none"} {
			hash := format.IndexHash([]byte(topic), []byte(key))
			var want []int64
			for _, r := range slices.Backward(m.log) {
				for _, k := range slices.Backward(keysOf(r)) {
					if r.PhysicalOffset >= m.min && format.IndexHash(r.Topic, []byte(k)) == hash {
						want = append(want, r.PhysicalOffset)
					}
				}
			}
			got, err := m.x.query(topic, key, math.MaxInt32, 0, math.MaxInt64)
			require.NoError(t, err)
			got = slices.DeleteFunc(got, func(pos int64) bool { return pos < m.min })
			require.Len(t, got, len(want), "%s#%s", topic, key)
			if len(want) > 0 {
				require.Equal(t, want, got, "%s#%s", topic, key)
				one, err := m.x.query(topic, key, 1, 0, math.MaxInt64)
				require.NoError(t, err)
				require.Equal(t, want[:1], one)
			}
		}
	}
}

// stockIndex makes the bytes that Apache would have written, put by put, with no shortcut
// (org.apache.rocketmq.store.index.IndexFile.putKey).
type stockIndex struct {
	slots, max int32
	files      [][]byte
}

func (s *stockIndex) put(hash int32, pos, millis int64) {
	n := len(s.files)
	if n == 0 || int32(binary.BigEndian.Uint32(s.files[n-1][36:])) >= s.max {
		b := make([]byte, format.IndexFileBytes(s.slots, s.max))
		binary.BigEndian.PutUint32(b[36:], 1)
		if n > 0 {
			old := s.files[n-1]
			copy(b[0:8], old[8:16])
			copy(b[8:16], old[8:16])
			copy(b[16:24], old[24:32])
			copy(b[24:32], old[24:32])
		}
		s.files = append(s.files, b)
	}
	b := s.files[len(s.files)-1]
	u32 := func(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
	count, slotAt := u32(36), 40+4*int(hash%s.slots)
	prev := u32(slotAt)
	if prev <= 0 || prev > count {
		prev = 0
	}
	diff := int64(0)
	if begin := int64(binary.BigEndian.Uint64(b)); begin > 0 {
		diff = min(max((millis-begin)/1000, 0), math.MaxInt32)
	}
	at := 40 + 4*int(s.slots) + 20*int(count)
	binary.BigEndian.PutUint32(b[at:], uint32(hash))
	binary.BigEndian.PutUint64(b[at+4:], uint64(pos))
	binary.BigEndian.PutUint32(b[at+12:], uint32(diff))
	binary.BigEndian.PutUint32(b[at+16:], uint32(prev))
	binary.BigEndian.PutUint32(b[slotAt:], uint32(count))
	if count <= 1 {
		binary.BigEndian.PutUint64(b[16:], uint64(pos))
		binary.BigEndian.PutUint64(b[0:], uint64(millis))
	}
	if prev == 0 {
		binary.BigEndian.PutUint32(b[32:], uint32(u32(32)+1))
	}
	binary.BigEndian.PutUint32(b[36:], uint32(count+1))
	binary.BigEndian.PutUint64(b[24:], uint64(pos))
	binary.BigEndian.PutUint64(b[8:], uint64(millis))
}

// checkBytes compares every file with what Apache would have written.
func (m *indexMachine) checkBytes(t *rapid.T) {
	stock := stockIndex{slots: m.o.Slots, max: m.o.MaxEntries}
	for _, r := range m.log {
		for _, key := range keysOf(r) {
			stock.put(format.IndexHash(r.Topic, []byte(key)), r.PhysicalOffset, r.StoreTimestamp)
		}
	}
	entries, err := m.fs.ReadDir(testIndexDir)
	require.NoError(t, err)
	// A power cut may bring back a file that had expired, so there may be gaps at the old end.
	next := len(stock.files)
	for _, e := range slices.Backward(entries) {
		require.Len(t, e.Name(), 17)
		_, err := strconv.ParseInt(e.Name(), 10, 64)
		require.NoError(t, err)
		got := readWhole(t, m.fs, testIndexDir+"/"+e.Name())
		for next--; next > 0 && next < len(stock.files)-1 && !bytes.Equal(stock.files[next], got); next-- {
		}
		require.GreaterOrEqual(t, next, 0)
		require.Equal(t, stock.files[next], got, e.Name())
	}
}

// TestIndexModel proves that queries find exactly what a plain list does, newest first, through
// rolls, checkpoints, kills, power cuts, truncation and retention, and that the files of a clean
// stop are byte for byte those of Apache, the seeded heads of follow-up files among them.
func TestIndexModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &indexMachine{fs: vfs.NewHeap(), exact: true, saved: -1, clock: time.Unix(1_700_000_000, 0)}
		require.NoError(t, m.fs.MkdirAll(testIndexDir, 0o755))
		m.o = indexOptions{
			Dir:        testIndexDir,
			Slots:      rapid.Int32Range(1, 40).Draw(t, "slots"),
			MaxEntries: rapid.Int32Range(2, 40).Draw(t, "maxEntries"),
		}
		m.open(t, true)
		t.Repeat(map[string]func(*rapid.T){
			"put": m.put, "put2": m.put, "put3": m.put, "put4": m.put,
			"checkpoint": m.checkpoint,
			"closeClean": m.closeClean,
			"kill":       m.kill,
			"powerCut":   m.powerCut,
			"truncate":   m.truncate,
			"expire":     m.expire,
			"":           m.check,
		})
		require.NoError(t, m.x.close())
		require.Empty(t, m.fs.OpenFiles())
	})
}

// TestIndexTimes proves that a query sees the records of its time range and no others, as far as
// the seconds of an entry can tell.
func TestIndexTimes(t *testing.T) {
	x := newIndexService(indexOptions{FS: vfs.NewHeap(), Dir: testIndexDir, Slots: 10, MaxEntries: 100, Clock: time.Now})
	require.NoError(t, x.o.FS.MkdirAll(testIndexDir, 0o755))
	require.NoError(t, x.load(context.Background(), true, 0))
	const begin = int64(1_700_000_000_000)
	for i := range int64(20) {
		require.NoError(t, putRecord(x, keyedRecord("T", i*100, begin+i*2000, "", "k")))
	}
	got, err := x.query("T", "k", 64, begin+8000, begin+12000)
	require.NoError(t, err)
	require.Equal(t, []int64{600, 500, 400}, got)
	got, err = x.query("T", "k", 2, begin, begin+60_000)
	require.NoError(t, err)
	require.Equal(t, []int64{1900, 1800}, got)
	for _, r := range [][2]int64{{0, begin - 1}, {begin + 60_000, math.MaxInt64}} {
		got, err = x.query("T", "k", 64, r[0], r[1])
		require.NoError(t, err)
		require.Empty(t, got)
	}
	require.NoError(t, x.close())
}

// TestIndexSlots proves the slots of the golden hashes, the one of the smallest number among them.
func TestIndexSlots(t *testing.T) {
	for _, c := range []struct {
		text string
		slot int32
	}{{"TopicTest#Key1", 1937772}, {"TopicTest#AC1100011234", 2201913}} {
		require.Equal(t, c.slot, format.IndexHash([]byte("TopicTest"), []byte(c.text[len("TopicTest#"):]))%5_000_000)
	}
	fs := vfs.NewHeap()
	require.NoError(t, fs.MkdirAll(testIndexDir, 0o755))
	x, err := createIndexFile(fs, testIndexDir+"/20231114221320000", 100, 10, nil)
	require.NoError(t, err)
	require.NoError(t, x.put(0, 0, 5)) // what -2^31 becomes
	require.NoError(t, x.put(100, 50, 1006))
	require.NoError(t, x.finish())
	b := readWhole(t, fs, x.path)
	require.Equal(t, uint32(2), binary.BigEndian.Uint32(b[40:]), "newest entry of slot 0")
	require.Equal(t, []byte{0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0, 0, 1}, b[440+40:440+60])
	require.NoError(t, x.f.Close())
}

// TestIndexDescribesNothingUnsaved proves the rule that keeps an Apache broker right after our
// crash: files whose slots are not on disk end after the time that the checkpoint names.
func TestIndexDescribesNothingUnsaved(t *testing.T) {
	fs := vfs.NewHeap()
	require.NoError(t, fs.MkdirAll(testIndexDir, 0o755))
	x := newIndexService(indexOptions{FS: fs, Dir: testIndexDir, Slots: 10, MaxEntries: 10, Clock: time.Now})
	require.NoError(t, x.load(context.Background(), true, 0))
	for i := range int64(25) {
		require.NoError(t, putRecord(x, keyedRecord("T", i*100, 1_700_000_000_000+i*1000, "", "k")))
		if i%4 == 3 {
			require.NoError(t, x.checkpoint(context.Background()))
		}
	}
	stamp := x.safeIndexTime()
	entries, err := fs.ReadDir(testIndexDir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	for i, e := range entries {
		b := readWhole(t, fs, testIndexDir+"/"+e.Name())
		head, err := format.ParseIndexHeader(b)
		require.NoError(t, err)
		used := int32(0)
		for slot := range int32(10) {
			if binary.BigEndian.Uint32(b[40+4*slot:]) != 0 {
				used++
			}
		}
		if head.EndTime <= stamp {
			require.Equal(t, head.UsedSlots, used, "file %d", i)
		} else {
			require.Zero(t, used, "file %d", i)
		}
	}
	require.NoError(t, x.close())
}

// TestIndexPowerCut proves that a power cut before any call of a checkpoint leaves an index that has
// everything that was in it at the checkpoint before, without being told again, and that what its
// heads count can be found.
func TestIndexPowerCut(t *testing.T) {
	ctx := context.Background()
	base := vfs.NewHeap()
	fsys := vfs.NewFaulty(base)
	require.NoError(t, base.MkdirAll(testIndexDir, 0o755))
	require.NoError(t, base.SyncFS("/"))
	o := indexOptions{FS: fsys, Dir: testIndexDir, Slots: 4, MaxEntries: 60, Clock: time.Now}
	x := newIndexService(o)
	require.NoError(t, x.load(ctx, true, 0))
	saved := int64(-1)
	images := 0
	cut := func(name string) {
		for range 6 {
			seed := uint64(images)
			images++
			name := fmt.Sprintf("%s, seed %d, saved to %d", name, seed, saved)
			o := o
			o.FS = base.CrashImage(seed)
			x := newIndexService(o)
			require.NoError(t, x.load(ctx, false, 0), name)
			require.GreaterOrEqual(t, x.endOffset(), saved, name)
			for pos := int64(0); pos <= x.endOffset(); pos += 100 {
				found, err := x.query("T", fmt.Sprint(pos), 64, 0, math.MaxInt64)
				require.NoError(t, err, name)
				require.Equal(t, []int64{pos}, found, name)
			}
			require.NoError(t, x.close())
		}
	}
	fsys.Before(func(c vfs.Call) {
		if c.N > 0 {
			cut(c.String())
		}
	})
	for pos := int64(0); pos < 20000; pos += 100 {
		require.NoError(t, putRecord(x, keyedRecord("T", pos, 1_700_000_000_000+pos, "", fmt.Sprint(pos))))
		if pos%1700 == 0 {
			require.NoError(t, x.checkpoint(ctx))
			saved = x.durableEnd()
			cut("between")
		}
	}
	fsys.Before(nil)
	require.Greater(t, images, 100)
	require.NoError(t, x.close())
}

// TestIndexPutAllocates proves that indexing a record costs no memory.
func TestIndexPutAllocates(t *testing.T) {
	x := newIndexService(indexOptions{FS: vfs.OS, Dir: t.TempDir(), Slots: 1000, MaxEntries: 1_000_000, Clock: time.Now})
	require.NoError(t, x.load(context.Background(), true, 0))
	r := keyedRecord("TopicTest", 0, 1_700_000_000_000, "AC1100011234", "Key1 Key2")
	require.Zero(t, int(testing.AllocsPerRun(20000, func() {
		r.PhysicalOffset += 100
		if err := putRecord(x, r); err != nil {
			t.Fatal(err)
		}
	})))
	require.NoError(t, x.close())
}

// TestIndexBesideCheckpoints proves that puts, queries and checkpoints go on at the same time.
func TestIndexBesideCheckpoints(t *testing.T) {
	fs := vfs.NewHeap()
	require.NoError(t, fs.MkdirAll(testIndexDir, 0o755))
	x := newIndexService(indexOptions{FS: fs, Dir: testIndexDir, Slots: 64, MaxEntries: 500, Clock: time.Now})
	require.NoError(t, x.load(context.Background(), true, 0))
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := x.checkpoint(context.Background()); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range int64(5000) {
		require.NoError(t, putRecord(x, keyedRecord("T", i*100, 1_700_000_000_000+i, fmt.Sprint(i), "")))
		if i%50 == 0 {
			got, err := x.query("T", fmt.Sprint(i/2), 64, 0, math.MaxInt64)
			require.NoError(t, err)
			require.Contains(t, got, i/2*100)
		}
	}
	close(stop)
	require.NoError(t, <-done)
	require.NoError(t, x.close())
}

// TestCheckpointFile proves that the stock checkpoint reads back as written, is one page long, and
// that its checksum tells a change by somebody else.
func TestCheckpointFile(t *testing.T) {
	fs := vfs.NewHeap()
	require.NoError(t, fs.MkdirAll("store", 0o755))
	c := newCheckpointFile(fs, "store")
	page, sum, err := c.load()
	require.NoError(t, err)
	require.Zero(t, page)
	require.Zero(t, sum)
	want := format.CheckpointPage{Physic: 1, Logics: 2, Index: 3, MasterFlushed: 4, Confirm: 5}
	require.NoError(t, c.save(want))
	page, sum, err = c.load()
	require.NoError(t, err)
	require.Equal(t, want, page)
	require.Equal(t, c.sum(want), sum)
	require.Len(t, readWhole(t, fs, "store/checkpoint"), format.CheckpointBytes)
	f, err := fs.OpenFile("store/checkpoint", 2, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{9}, 15)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, other, err := c.load()
	require.NoError(t, err)
	require.NotEqual(t, sum, other)
}

// BenchmarkIndexPut is the cost of one record with one key, files of the usual size.
func BenchmarkIndexPut(b *testing.B) {
	x := newIndexService(indexOptions{FS: vfs.OS, Dir: b.TempDir(), Slots: 5_000_000, MaxEntries: 20_000_000, Clock: time.Now})
	require.NoError(b, x.load(context.Background(), true, 0))
	r := keyedRecord("topic-00001", 0, 1_700_000_000_000, "7F0000010000000000000000", "")
	key := r.Properties[len("UNIQ_KEY")+1:]
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		for k, n := 0, i; k < 10; k++ {
			key[23-k] = byte('0' + n%10)
			n /= 10
		}
		r.PhysicalOffset += 1000
		if err := putRecord(x, r); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	require.NoError(b, x.close())
}

// TestIndexWhileClockStands proves that what Apache keeps of our index after a kill has no gap when
// all records have one store time, as they do while the clock is behind the last one: the files that
// its checkpoint rule leaves hold every key up to where its dispatch goes on. Kills come after a clean
// stop, without a checkpoint since and with one.
func TestIndexWhileClockStands(t *testing.T) {
	base := vfs.NewHeap()
	o := small(base, "/s")
	now := time.UnixMilli(1_700_000_000_000)
	o.Clock = func() time.Time { return now }
	o.CheckpointPeriod = time.Hour
	positions := []int64{}
	put := func(s *Store, n int) {
		for range n {
			res, err := s.Append(context.Background(), record("T", 0, []byte("body"), "k"))
			require.NoError(t, err)
			positions = append(positions, res.Pos)
		}
		require.NoError(t, s.WaitDispatched(context.Background(), "T", 0, int64(len(positions))))
	}
	kept := func() {
		t.Helper()
		img := base.KillImage()
		b := readWhole(t, img, "/s/checkpoint")
		page, err := format.ParseCheckpointPage(b)
		require.NoError(t, err)
		entries, err := img.ReadDir("/s/index")
		require.NoError(t, err)
		have, end := 0, int64(-1)
		for _, e := range entries {
			b := readWhole(t, img, "/s/index/"+e.Name())
			head, err := format.ParseIndexHeader(b)
			require.NoError(t, err)
			if head.EndTime > page.Index {
				continue
			}
			have += int(head.Count) - 1
			end = head.EndOffset
			slots := 0
			for i := range int(o.MaxHashSlots) {
				if binary.BigEndian.Uint32(b[format.IndexHeaderBytes+4*i:]) != 0 {
					slots++
				}
			}
			require.Equal(t, int(head.UsedSlots), slots, "%s is kept, its slots are not all there", e.Name())
		}
		want := 0 // the record at the end is indexed again
		for _, pos := range positions {
			if pos < end {
				want += 2
			}
		}
		require.GreaterOrEqual(t, have, want, "keys up to %d of %d records", end, len(positions))
	}

	s := open(t, o)
	put(s, 40)
	kept()
	require.NoError(t, s.Close())
	kept()
	for range 3 {
		s = open(t, o)
		put(s, 10)
		kept()
		put(s, 200)
		kept()
		require.NoError(t, s.Checkpoint(context.Background()))
		kept()
		put(s, 200)
		kept()
		require.NoError(t, s.Close())
		kept()
	}
}

// TestIndexHoleIsFilled proves that a directory of Apache's whose index lacks what stands before the
// start of a segment, as its own recovery leaves it, or before an index file, is adopted with a whole
// index; and that one without such a hole keeps its files.
func TestIndexHoleIsFilled(t *testing.T) {
	ctx := context.Background()
	for _, clean := range []bool{true, false} {
		for _, c := range []struct {
			name     string
			from, to int64 // log positions between which the index has nothing
			rebuilt  bool
		}{
			{"whole", 0, 0, false},
			{"in a file", 3*16<<10 - 5000, 3 * 16 << 10, true},
			{"at the start", 0, 16 << 10, true},
			{"no index", 0, math.MaxInt64, false},
		} {
			t.Run(fmt.Sprintf("%s, clean %t", c.name, clean), func(t *testing.T) {
				fsys := vfs.NewHeap()
				o := small(fsys, "/s")
				s := open(t, o)
				all := fill(t, s, 7, 400)
				require.Greater(t, s.Max(), int64(5*16<<10))
				require.NoError(t, s.WaitDispatchedPos(ctx, s.Max()))
				if c.to > 0 {
					require.NoError(t, s.index.truncate(ctx, c.from))
					reader := &logReader{l: s.log}
					_, err := s.log.walk(reader, min(c.to, s.Max()), s.Max(), true, func(_ int64, r *message.Record) bool {
						require.NoError(t, putRecord(s.index, r))
						return true
					})
					reader.close()
					require.NoError(t, err)
				}
				if c.to == math.MaxInt64 {
					require.NoError(t, s.index.reset(ctx))
				}
				require.NoError(t, s.Close())
				require.NoError(t, fsys.RemoveAll("/s/rmq"))
				if !clean {
					f, err := fsys.OpenFile("/s/abort", os.O_RDWR|os.O_CREATE, 0o644)
					require.NoError(t, err)
					require.NoError(t, f.Close())
				}
				s = open(t, o)
				defer func() { require.NoError(t, s.Close()) }()
				require.True(t, s.Recovery().Adopted)
				require.Equal(t, c.rebuilt, s.Recovery().IndexRebuilt)
				if c.to < math.MaxInt64 {
					check(t, s, all)
				}
			})
		}
	}
}
