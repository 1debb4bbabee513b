package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

const (
	testQueueDir   = "store/consumequeue"
	testJournalDir = "store/rmq"
)

const filler = "\x00\x00\x00\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"

// modelRecord is one record of the log that the queue model was fed with.
type modelRecord struct {
	queue  string
	offset int64
	entry  format.CQEntry
}

// modelQueue is what one queue must look like.
type modelQueue struct {
	topic string
	id    int32
	birth int64 // offset before which its files hold fillers
	next  int64
	min   int64
}

// queueMachine drives a queue table and a model of it in the way a store does: it replays the log
// after a crash, truncates and expires both together.
type queueMachine struct {
	fs      *vfs.Heap
	o       queueTableOptions
	t       *queueTable
	log     []modelRecord
	logMin  int64
	logEnd  int64
	noted   int64 // dispatched position of the last checkpoint, as a state file would hold it
	queues  map[string]*modelQueue
	keys    []string
	history map[string]map[int64]format.CQEntry
}

func newQueueMachine(t *rapid.T) *queueMachine {
	m := &queueMachine{fs: vfs.NewHeap(), queues: map[string]*modelQueue{}, history: map[string]map[int64]format.CQEntry{}}
	require.NoError(t, m.fs.MkdirAll(testQueueDir, 0o755))
	require.NoError(t, m.fs.MkdirAll(testJournalDir, 0o755))
	require.NoError(t, m.fs.SyncFS("store"))
	m.o = queueTableOptions{
		FileBytes:     20 * rapid.Int64Range(1, 20).Draw(t, "fileEntries"),
		PendingBytes:  rapid.Int64Range(1, 4096).Draw(t, "pendingBytes"),
		DirectEntries: rapid.IntRange(1, 30).Draw(t, "directEntries"),
		JournalBytes:  rapid.Int64Range(1, 4096).Draw(t, "journalBytes"),
		Dir:           testQueueDir,
	}
	if rapid.Bool().Draw(t, "journal") {
		m.o.JournalDir = testJournalDir
	}
	m.open(t)
	return m
}

func (m *queueMachine) open(t require.TestingT) {
	m.o.FS = m.fs
	m.t = newQueueTable(m.o)
	require.NoError(t, m.t.load(context.Background()))
}

// put appends n records to one queue.
func (m *queueMachine) put(t *rapid.T) {
	topic := rapid.SampledFrom([]string{"A", "%RETRY%g", "B", "TBW102"}).Draw(t, "topic")
	id := rapid.SampledFrom([]int32{0, 1, 5000}).Draw(t, "queue")
	key := topic + "/" + strconv.Itoa(int(id))
	q := m.queues[key]
	if q == nil {
		q = &modelQueue{topic: topic, id: id}
		q.birth = rapid.SampledFrom([]int64{0, 0, 3, 47}).Draw(t, "birth")
		q.next, q.min = q.birth, q.birth
		m.queues[key] = q
		if !slices.Contains(m.keys, key) {
			m.keys = append(m.keys, key)
		}
		m.history[key] = map[int64]format.CQEntry{}
	}
	for range rapid.SampledFrom([]int{1, 1, 3, 25}).Draw(t, "n") {
		e := format.CQEntry{Offset: m.logEnd, Size: int32(rapid.IntRange(91, 200).Draw(t, "size")), TagsHash: rapid.Int64().Draw(t, "tags")}
		m.log = append(m.log, modelRecord{key, q.next, e})
		m.history[key][q.next] = e
		require.NoError(t, m.t.get([]byte(topic), id).put(q.next, e.Offset, e.Size, e.TagsHash))
		q.next++
		m.logEnd += int64(e.Size)
	}
}

func (m *queueMachine) checkpoint(t *rapid.T) {
	require.NoError(t, m.t.checkpoint(context.Background()))
	m.noted = m.logEnd
}

// closeClean stops as a store does and opens again.
func (m *queueMachine) closeClean(t *rapid.T) {
	require.NoError(t, m.t.checkpoint(context.Background()))
	require.NoError(t, m.t.flushClassic(context.Background()))
	require.NoError(t, m.t.close())
	m.noted = m.logEnd
	m.checkClassic(t)
	m.checkForeign(t)
	m.open(t)
	// What Apache forgets too: the place of a queue without any record.
	if m.o.JournalDir == "" {
		m.recoverScan(t)
	}
}

func (m *queueMachine) recoverScan(t *rapid.T) {
	m.forgetEmpty(t)
	require.NoError(t, m.t.recoverEnds(context.Background()))
	m.replay(t, 0)
}

// forgetEmpty takes out of the model the queues that leave no trace without a journal. What is left of them on the disk
// goes for good: without a journal nobody can tell a queue that is born again at a lower offset from its removed files
// that a power cut brings back. A store of ours has a journal, whose rows say that they are gone.
func (m *queueMachine) forgetEmpty(t require.TestingT) {
	forgotten := false
	for key, q := range m.queues {
		if q.min == q.next && m.t.lookup(q.topic, q.id) == nil {
			delete(m.queues, key)
			delete(m.history, key)
			forgotten = true
		}
	}
	if forgotten && m.o.JournalDir == "" {
		require.NoError(t, m.fs.SyncFS("store"))
	}
}

// kill opens what a killed process leaves, cut what a power cut leaves and perhaps a shorter log.
func (m *queueMachine) kill(t *rapid.T) {
	require.NoError(t, m.t.close())
	m.reopenDirty(t)
}

func (m *queueMachine) powerCut(t *rapid.T) {
	require.NoError(t, m.t.close())
	m.fs = m.fs.CrashImage(rapid.Uint64().Draw(t, "seed"))
	for len(m.log) > 0 && m.log[len(m.log)-1].entry.Offset >= max(m.noted, m.logMin) && rapid.Bool().Draw(t, "lose") {
		m.cutModel(m.log[len(m.log)-1].entry.Offset)
	}
	m.reopenDirty(t)
}

func (m *queueMachine) reopenDirty(t *rapid.T) {
	m.open(t)
	trusted := m.t.trustedPos()
	if m.o.JournalDir == "" {
		trusted = 0
		require.NoError(t, m.t.recoverEnds(context.Background()))
	}
	require.NoError(t, m.t.deleteBefore(m.logMin))
	m.replay(t, min(m.noted, trusted))
	if m.t.maxPos() > m.logEnd {
		require.NoError(t, m.t.truncate(context.Background(), m.logEnd))
	}
	require.NoError(t, m.t.deleteBefore(m.logMin))
	m.forgetEmpty(t)
}

// replay feeds the log from pos on again.
func (m *queueMachine) replay(t require.TestingT, pos int64) {
	for _, r := range m.log {
		if r.entry.Offset >= max(pos, m.logMin) {
			q := m.queues[r.queue]
			require.NoError(t, m.t.get([]byte(q.topic), q.id).put(r.offset, r.entry.Offset, r.entry.Size, r.entry.TagsHash))
		}
	}
	require.NoError(t, m.t.deleteBefore(m.logMin))
}

// truncate cuts log and queues at a record.
func (m *queueMachine) truncate(t *rapid.T) {
	if len(m.log) == 0 {
		return
	}
	pos := m.log[rapid.IntRange(0, len(m.log)-1).Draw(t, "at")].entry.Offset
	if pos < m.logMin {
		return
	}
	require.NoError(t, m.t.truncate(context.Background(), pos))
	m.noted = min(m.noted, pos)
	m.cutModel(pos)
}

func (m *queueMachine) cutModel(pos int64) {
	for len(m.log) > 0 && m.log[len(m.log)-1].entry.Offset >= pos {
		r := m.log[len(m.log)-1]
		m.log = m.log[:len(m.log)-1]
		m.queues[r.queue].next = r.offset
		delete(m.history[r.queue], r.offset)
	}
	m.logEnd = min(m.logEnd, pos)
}

// expire lets the log begin later, but never behind what a checkpoint has seen.
func (m *queueMachine) expire(t *rapid.T) {
	if len(m.log) == 0 {
		return
	}
	m.logMin = max(m.logMin, m.log[rapid.IntRange(0, len(m.log)-1).Draw(t, "to")].entry.Offset)
	if m.logMin > m.noted {
		m.checkpoint(t)
	}
	require.NoError(t, m.t.deleteBefore(m.logMin))
	for key, q := range m.queues {
		for q.min < q.next && m.history[key][q.min].Offset < m.logMin {
			q.min++
		}
		if q.min == q.next && !systemTopic(q.topic) {
			q.birth = q.next
			m.history[key] = map[int64]format.CQEntry{}
		}
	}
}

// check compares every queue with the model, entry by entry, in reads of random length.
func (m *queueMachine) check(t *rapid.T) {
	var dst [64]format.CQEntry
	for _, key := range m.keys {
		want := m.queues[key]
		if want == nil {
			continue
		}
		q := m.t.lookup(want.topic, want.id)
		if q == nil && want.next == want.min {
			continue
		}
		require.NotNil(t, q, key)
		if want.min < want.next {
			require.Equal(t, want.min, q.min(), "min of %s", key)
			require.Equal(t, want.next, q.max(), "max of %s", key)
		} else {
			require.Equal(t, q.min(), q.max(), "%s is empty", key)
			require.LessOrEqual(t, q.max(), want.next)
		}
		for at := want.min; at < want.next; {
			n, err := q.read(at, dst[:rapid.IntRange(1, len(dst)).Draw(t, "read")])
			require.NoError(t, err)
			require.Positive(t, n)
			for i := range n {
				require.Equal(t, m.history[key][at+int64(i)], dst[i], "%s at %d", key, at+int64(i))
			}
			at += int64(n)
		}
		if want.min > 0 && want.min < want.next {
			_, err := q.read(want.min-1, dst[:1])
			require.ErrorIs(t, err, ErrOffsetTooSmall)
		}
		n, err := q.read(q.max(), dst[:])
		require.NoError(t, err)
		require.Zero(t, n)
	}
}

// checkClassic compares every byte of every file with what Apache would have written.
func (m *queueMachine) checkClassic(t *rapid.T) {
	seen := 0
	for key, want := range m.queues {
		dir := testQueueDir + "/" + key
		entries, err := m.fs.ReadDir(dir)
		if want.min == want.next && err != nil {
			continue
		}
		require.NoError(t, err, key)
		seen++
		covered := int64(-1)
		for _, e := range entries {
			start, err := format.ParseFileName(e.Name())
			require.NoError(t, err)
			if covered >= 0 {
				require.Equal(t, covered, start, "gap in files of %s", key)
			}
			covered = start + m.o.FileBytes
			got := readWhole(t, m.fs, dir+"/"+e.Name())
			var bytes []byte
			for at := start / 20; at < covered/20; at++ {
				switch entry, ok := m.history[key][at]; {
				case at < want.min && string(got[at*20-start:][:20]) == filler:
					// Expired before it was written, then lost with a crash.
					bytes = append(bytes, filler...)
				case ok:
					bytes = format.AppendCQEntry(bytes, entry)
				case at < want.birth:
					bytes = format.AppendCQEntry(bytes, format.CQFiller)
				default:
					bytes = append(bytes, make([]byte, 20)...)
				}
			}
			require.Equal(t, bytes, got, "%s of %s", e.Name(), key)
		}
		if want.min < want.next {
			first, _ := format.ParseFileName(entries[0].Name())
			require.LessOrEqual(t, first, want.min*20)
			require.GreaterOrEqual(t, covered, want.next*20)
			require.Less(t, covered, want.next*20+m.o.FileBytes, "a file too many in %s", key)
		}
	}
	dirs := 0
	topics, err := m.fs.ReadDir(testQueueDir)
	require.NoError(t, err)
	for _, topic := range topics {
		queues, err := m.fs.ReadDir(testQueueDir + "/" + topic.Name())
		require.NoError(t, err)
		for _, queue := range queues {
			files, err := m.fs.ReadDir(testQueueDir + "/" + topic.Name() + "/" + queue.Name())
			require.NoError(t, err)
			if len(files) > 0 {
				dirs++
			}
		}
	}
	require.LessOrEqual(t, dirs, seen, "files of queues that do not exist")
}

// checkForeign opens the classic files alone, as another broker would, and finds the same.
func (m *queueMachine) checkForeign(t *rapid.T) {
	o := m.o
	o.FS, o.JournalDir, o.Foreign = m.fs.KillImage(), "", true
	table := newQueueTable(o)
	require.NoError(t, table.load(context.Background()))
	require.NoError(t, table.recoverEnds(context.Background()))
	require.NoError(t, table.deleteBefore(m.logMin))
	for key, want := range m.queues {
		if want.min == want.next {
			continue
		}
		q := table.lookup(want.topic, want.id)
		require.NotNil(t, q, key)
		require.Equal(t, want.next, q.max(), key)
		require.Equal(t, want.min, q.min(), key)
	}
	require.NoError(t, table.close())
}

func readWhole(t require.TestingT, fs vfs.FS, name string) []byte {
	f, err := fs.OpenFile(name, 0, 0)
	require.NoError(t, err)
	st, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); !errors.Is(err, io.EOF) {
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	return b
}

// TestQueueTableModel proves that whatever is put, checkpointed, truncated, expired, killed and
// cut off from power, in any order, the queues read as a plain list does, and that a clean stop
// leaves the files that Apache would have written, byte for byte.
func TestQueueTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newQueueMachine(t)
		t.Repeat(map[string]func(*rapid.T){
			"put":        m.put,
			"put2":       m.put,
			"put3":       m.put,
			"checkpoint": m.checkpoint,
			"closeClean": m.closeClean,
			"kill":       m.kill,
			"powerCut":   m.powerCut,
			"truncate":   m.truncate,
			"expire":     m.expire,
			"":           m.check,
		})
		require.NoError(t, m.t.close())
		require.Empty(t, m.fs.OpenFiles())
	})
}

// newTable makes an empty table on a heap.
func newTable(t testing.TB, o queueTableOptions) *queueTable {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewHeap()
	}
	if o.Dir == "" {
		o.Dir = testQueueDir
	}
	require.NoError(t, o.FS.MkdirAll(o.Dir, 0o755))
	if o.JournalDir != "" {
		require.NoError(t, o.FS.MkdirAll(o.JournalDir, 0o755))
	}
	if o.FileBytes == 0 {
		o.FileBytes = 400
	}
	table := newQueueTable(o)
	require.NoError(t, table.load(context.Background()))
	t.Cleanup(func() { require.NoError(t, table.close()) })
	return table
}

// TestQueueDedupe proves the first rule of putting: what ends at or below the newest known record
// is skipped, and a taken offset is never taken again.
func TestQueueDedupe(t *testing.T) {
	q := newTable(t, queueTableOptions{}).get([]byte("T"), 3)
	require.NoError(t, q.put(0, 0, 100, 1))
	require.NoError(t, q.put(0, 0, 100, 2))
	require.NoError(t, q.put(0, 100, 100, 3))
	require.EqualValues(t, 1, q.max())
	require.EqualValues(t, 100, q.endPos())
	var e [1]format.CQEntry
	n, err := q.read(0, e[:])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, format.CQEntry{Size: 100, TagsHash: 1}, e[0])
}

// TestQueueGap proves that a gap in queue offsets is an error while the store runs, and closed
// with fillers while the queues are made anew from the log.
func TestQueueGap(t *testing.T) {
	table := newTable(t, queueTableOptions{})
	q := table.get([]byte("T"), 0)
	require.NoError(t, q.put(0, 0, 100, 1))
	var gap *queueGapError
	require.ErrorAs(t, q.put(2, 100, 100, 1), &gap)
	require.EqualValues(t, 1, gap.Want)

	require.NoError(t, table.reset(context.Background()))
	require.Zero(t, q.max())
	require.NoError(t, q.put(0, 0, 100, 1))
	require.NoError(t, q.put(3, 100, 100, 1))
	table.rebuilt()
	require.ErrorAs(t, q.put(9, 200, 100, 1), &gap)
	var e [4]format.CQEntry
	n, err := q.read(0, e[:])
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.True(t, e[1].IsFiller() && e[2].IsFiller())
	require.EqualValues(t, 100, e[3].Offset)
}

// TestQueueFillers proves that the first file of a queue that begins in the middle of it is filled
// from its start with the filler unit, and gets the exact bytes of the golden entry.
func TestQueueFillers(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs})
	q := table.get([]byte("TopicTest"), 3)
	require.NoError(t, q.put(22, 4096, 124, 2598919))
	require.NoError(t, table.flushClassic(context.Background()))
	b := readWhole(t, fs, testQueueDir+"/TopicTest/3/00000000000000000400")
	require.Len(t, b, 400)
	golden := "\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x7c\x00\x00\x00\x00\x00\x27\xa8\x07"
	require.Equal(t, filler+filler+golden, string(b[:60]))
	require.Equal(t, make([]byte, 340), b[60:])
}

// TestQueueNames proves that a topic which cannot be a directory does no harm.
func TestQueueNames(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs, JournalDir: testJournalDir})
	for _, topic := range []string{"..", "a/b", "", ".", "x\x00"} {
		q := table.get([]byte(topic), 0)
		require.NoError(t, q.put(0, 0, 100, 0))
		require.Zero(t, q.max())
	}
	require.NoError(t, table.get([]byte("ok"), 0).put(0, 0, 100, 0))
	require.NoError(t, table.checkpoint(context.Background()))
	require.NoError(t, table.flushClassic(context.Background()))
	require.EqualValues(t, 100, table.maxPos())
	list, err := fs.ReadDir(testQueueDir)
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// TestQueueSizes proves that files of another size are refused with both sizes named.
func TestQueueSizes(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs})
	require.NoError(t, table.get([]byte("T"), 0).put(0, 0, 100, 0))
	require.NoError(t, table.flushClassic(context.Background()))
	other := newQueueTable(queueTableOptions{FS: fs, Dir: testQueueDir, FileBytes: 600, Foreign: true})
	err := other.load(context.Background())
	require.ErrorContains(t, err, "has 400 bytes, but mappedFileSizeConsumeQueue is 600")
}

// TestQueueJournalDamage proves that no damage of the journal goes unnoticed: with any byte
// flipped, the queues are found by their files and the log and read the same.
func TestQueueJournalDamage(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs, JournalDir: testJournalDir})
	type put struct{ offset, pos int64 }
	var puts []put
	for i := range int64(60) {
		puts = append(puts, put{i / 2, i * 100})
		require.NoError(t, table.get([]byte("T"), int32(i%2)).put(i/2, i*100, 100, i))
		if i%20 == 19 {
			require.NoError(t, table.checkpoint(context.Background()))
		}
	}
	noted := table.maxPos()
	size := len(readWhole(t, fs, testJournalDir+"/"+journalName))
	for at := 0; at < size; at += 7 {
		img := fs.KillImage()
		f, err := img.OpenFile(testJournalDir+"/"+journalName, 2, 0)
		require.NoError(t, err)
		var b [1]byte
		_, err = f.ReadAt(b[:], int64(at))
		require.NoError(t, err)
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], int64(at))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		again := newQueueTable(queueTableOptions{FS: img, Dir: testQueueDir, FileBytes: 400, JournalDir: testJournalDir})
		require.NoError(t, again.load(context.Background()))
		from := min(noted, again.trustedPos())
		for i, p := range puts {
			if p.pos >= from {
				require.NoError(t, again.get([]byte("T"), int32(i%2)).put(p.offset, p.pos, 100, int64(i)))
			}
		}
		for id := range int32(2) {
			q := again.lookup("T", id)
			require.EqualValues(t, 30, q.max(), "flip at %d", at)
			var e [30]format.CQEntry
			for n := 0; n < 30; {
				k, err := q.read(int64(n), e[n:])
				require.NoError(t, err)
				n += k
			}
			for i := range e {
				require.Equal(t, int64(2*i+int(id))*100, e[i].Offset)
			}
		}
		require.NoError(t, again.close())
	}
}

// TestQueuePowerCut proves that a power cut before any call of a checkpoint or of a clean stop leaves
// queues that, fed with the log from the position where they are trusted, read as if nothing had
// happened, and that nothing of what the log has lost stays in the files.
func TestQueuePowerCut(t *testing.T) {
	ctx := context.Background()
	for _, direct := range []int{1, 12, 1000} {
		t.Run(fmt.Sprintf("direct=%d", direct), func(t *testing.T) {
			base := vfs.NewHeap()
			fsys := vfs.NewFaulty(base)
			o := queueTableOptions{FS: fsys, Dir: testQueueDir, FileBytes: 400, JournalDir: testJournalDir, DirectEntries: direct}
			table := newTable(t, o)
			require.NoError(t, base.SyncFS("/"))
			put := func(table *queueTable, i int64) {
				require.NoError(t, table.get([]byte("T"), int32(i%3)).put(i/3, i*100, 100, i))
			}
			verify := func(img *vfs.Heap, noted int64, name string) {
				o := o
				o.FS = img
				table := newQueueTable(o)
				require.NoError(t, table.load(ctx), name)
				require.GreaterOrEqual(t, table.trustedPos(), noted, "%s: the journal is gone", name)
				for i := min(noted, table.trustedPos()) / 100; i < noted/100; i++ {
					put(table, i)
				}
				if table.maxPos() > noted { // as recovery does where the log has lost its tail
					require.NoError(t, table.truncate(ctx, noted), name)
				}
				table.rebuilt()
				for id := range int32(3) {
					n := (noted/100 - int64(id) + 2) / 3
					q := table.get([]byte("T"), id)
					require.Equal(t, n, q.max(), "%s, queue %d", name, id)
					for k := range n {
						var e [1]format.CQEntry
						_, err := q.read(k, e[:])
						require.NoError(t, err, name)
						require.Equal(t, (3*k+int64(id))*100, e[0].Offset, "%s, queue %d at %d", name, id, k)
					}
				}
				require.NoError(t, table.flushClassic(ctx), name)
				for id := range int32(3) {
					q := table.get([]byte("T"), id)
					starts, err := table.listFiles(table.queueDir(q))
					if errors.Is(err, iofs.ErrNotExist) && q.max() == 0 {
						continue
					}
					require.NoError(t, err, name)
					for _, start := range starts {
						b := readWhole(t, img, table.filePath(q, start))
						if from := max(0, q.max()*format.CQEntryBytes-start); from < int64(len(b)) {
							require.Equal(t, make([]byte, len(b)-int(from)), b[from:], "%s, queue %d behind %d", name, id, q.max())
						}
					}
				}
				require.NoError(t, table.close())
			}
			var noted int64
			images := 0
			cut := func(name string) {
				for range 6 {
					seed := uint64(images)
					img := base.CrashImage(seed)
					require.NoError(t, img.MkdirAll(testQueueDir, 0o755))
					verify(img, noted, fmt.Sprintf("%s, seed %d, noted %d", name, seed, noted))
					images++
				}
				verify(base.KillImage(), noted, fmt.Sprintf("killed %s, noted %d", name, noted))
			}
			fsys.Before(func(c vfs.Call) {
				if c.N > 0 {
					cut(c.String())
				}
			})
			i := int64(0)
			for round := range 6 {
				for range 7 + 11*round {
					put(table, i)
					i++
				}
				if round == 5 {
					require.NoError(t, table.flushClassic(ctx))
				} else {
					require.NoError(t, table.checkpoint(ctx))
				}
				noted = table.maxPos()
				cut("between")
			}
			fsys.Before(nil)
			require.Greater(t, images, 100)
		})
	}
}

// FuzzQueueJournal proves that no bytes in place of the journal make the table fail or panic.
func FuzzQueueJournal(f *testing.F) {
	fs := vfs.NewHeap()
	require.NoError(f, fs.MkdirAll(testQueueDir, 0o755))
	require.NoError(f, fs.MkdirAll(testJournalDir, 0o755))
	table := newQueueTable(queueTableOptions{FS: fs, Dir: testQueueDir, FileBytes: 400, JournalDir: testJournalDir})
	for i := range int64(50) {
		require.NoError(f, table.get([]byte("T"), int32(i%3)).put(i/3, i*100, 100, i))
	}
	require.NoError(f, table.checkpoint(context.Background()))
	f.Add(readWhole(f, fs, testJournalDir+"/"+journalName), false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		fs := vfs.NewHeap()
		require.NoError(t, fs.MkdirAll(testQueueDir, 0o755))
		require.NoError(t, fs.MkdirAll(testJournalDir, 0o755))
		table := newQueueTable(queueTableOptions{FS: fs, Dir: testQueueDir, FileBytes: 400, JournalDir: testJournalDir})
		if sign { // let the bytes past the checksums
			j := table.journal
			var err error
			j.f, err = fs.OpenFile(j.path, 0x42, 0o644)
			require.NoError(t, err)
			j.startBlock(blockOfHead)
			j.buf = append(j.buf, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0x90)
			require.NoError(t, j.endBlock())
			j.startBlock(blockOfItems)
			j.buf = append(j.buf, b[:min(len(b), journalBlock)]...)
			require.NoError(t, j.commit(0, false))
			require.NoError(t, j.close())
		} else {
			g, err := fs.OpenFile(testJournalDir+"/"+journalName, 0x42, 0o644)
			require.NoError(t, err)
			_, err = g.WriteAt(b, 0)
			require.NoError(t, err)
			require.NoError(t, g.Close())
		}
		var size *queueSizeError
		if err := table.load(context.Background()); err != nil && !errors.As(err, &size) {
			t.Fatal(err)
		}
		for _, q := range table.all() {
			if q.max() > q.base {
				var e [2]format.CQEntry
				_, _ = q.read(max(q.base, q.min()), e[:]) // must not panic
			}
		}
		require.NoError(t, table.close())
	})
}

// TestQueuePutAllocates proves that putting and finding a queue cost no memory but the entry's.
func TestQueuePutAllocates(t *testing.T) {
	table := newTable(t, queueTableOptions{})
	topic := []byte("TopicTest")
	pos := int64(0)
	require.Zero(t, int(testing.AllocsPerRun(20000, func() {
		q := table.get(topic, 2)
		if err := q.put(q.max(), pos, 100, 1); err != nil {
			t.Fatal(err)
		}
		pos += 100
	})))
	require.Nil(t, table.lookup("Topic", 2))
}

// TestQueueWait proves that a wait for a queue's end returns when, and not before, it is there.
func TestQueueWait(t *testing.T) {
	q := newTable(t, queueTableOptions{}).get([]byte("T"), 0)
	done := make(chan error, 1)
	go func() { done <- q.waitMax(context.Background(), 2) }()
	require.NoError(t, q.put(0, 0, 100, 0))
	select {
	case <-done:
		t.Fatal("woken too early")
	default:
	}
	require.NoError(t, q.put(1, 100, 100, 0))
	require.NoError(t, <-done)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, q.waitMax(ctx, 3), context.Canceled)
}

// TestQueueReadsBesideWrites proves that reads see whole, right entries while the dispatcher puts
// and checkpoints move entries into files, journals turn over, and old entries expire.
func TestQueueReadsBesideWrites(t *testing.T) {
	table := newTable(t, queueTableOptions{JournalDir: testJournalDir, PendingBytes: 2048, DirectEntries: 40, JournalBytes: 8192})
	q := table.get([]byte("T"), 0)
	const total = 20000
	done := make(chan error, 2)
	go func() {
		for i := range int64(total) {
			if err := q.put(i, i*100, 100, ^i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() {
		for q.max() < total {
			if err := table.checkpoint(context.Background()); err != nil {
				done <- err
				return
			}
			if err := table.deleteBefore(max(0, q.max()-5000) * 100); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var dst [100]format.CQEntry
	for at := int64(0); at < total; {
		n, err := q.read(at, dst[:])
		if errors.Is(err, ErrOffsetTooSmall) {
			at = q.min()
			continue
		}
		require.NoError(t, err)
		for i, e := range dst[:n] {
			require.Equal(t, format.CQEntry{Offset: (at + int64(i)) * 100, Size: 100, TagsHash: ^(at + int64(i))}, e)
		}
		at += int64(n)
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}

// TestQueueDescriptors proves that many queues never hold more files open than the cache takes.
func TestQueueDescriptors(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs, JournalDir: testJournalDir})
	for i := range int64(2000) {
		require.NoError(t, table.get(fmt.Appendf(nil, "T%d", i/8), int32(i%8)).put(0, i*100, 100, i))
	}
	require.NoError(t, table.checkpoint(context.Background()))
	require.LessOrEqual(t, len(fs.OpenFiles()), maxQueueFiles+1)
	require.NoError(t, table.flushClassic(context.Background()))
	var e [1]format.CQEntry
	for i := range int64(2000) {
		n, err := table.lookup(fmt.Sprintf("T%d", i/8), int32(i%8)).read(0, e[:])
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, i*100, e[0].Offset)
	}
	require.LessOrEqual(t, len(fs.OpenFiles()), maxQueueFiles+1)
	require.EqualValues(t, math.MaxInt64, table.classicPos(math.MaxInt64))
}

// TestQueueMemoryCeiling proves that entries never take much more memory than allowed, even when
// nobody makes checkpoints, and that all of them are found afterwards.
func TestQueueMemoryCeiling(t *testing.T) {
	const limit = 256 << 10
	table := newTable(t, queueTableOptions{JournalDir: testJournalDir, FileBytes: 20_000, PendingBytes: limit})
	for i := range int64(200_000) {
		require.NoError(t, table.get([]byte("T"), int32(i%100)).put(i/100, i*100, 100, i))
		require.LessOrEqual(t, table.pendingBytes(), int64(pendingCeiling*limit+slabBytes/16))
	}
	var e [1]format.CQEntry
	for i := int64(0); i < 200_000; i += 999 {
		n, err := table.lookup("T", int32(i%100)).read(i/100, e[:])
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, format.CQEntry{Offset: i * 100, Size: 100, TagsHash: i}, e[0])
	}
}

// TestQueueFull proves that a full disk names the file, loses nothing, and is got over.
func TestQueueFull(t *testing.T) {
	fs := vfs.NewHeap()
	table := newTable(t, queueTableOptions{FS: fs, JournalDir: testJournalDir, DirectEntries: 1})
	q := table.get([]byte("T"), 0)
	require.NoError(t, q.put(0, 0, 100, 0))
	fs.SetCapacity(1)
	var space *SpaceError
	err := table.checkpoint(context.Background())
	require.ErrorAs(t, err, &space)
	require.Contains(t, space.Path, testQueueDir+"/T/0/")
	fs.SetCapacity(1 << 30)
	require.NoError(t, table.checkpoint(context.Background()))
	var e [1]format.CQEntry
	n, err := q.read(0, e[:])
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// TestQueueJournalBesidePuts proves that a journal can be read although entries came between the
// write of a queue's waiting entries into its files and the journal's word on it.
func TestQueueJournalBesidePuts(t *testing.T) {
	heap := vfs.NewHeap()
	faulty := vfs.NewFaulty(heap)
	table := newTable(t, queueTableOptions{FS: faulty, JournalDir: testJournalDir, DirectEntries: 5})
	q := table.get([]byte("T"), 0)
	next := int64(0)
	put := func(n int) { next = putEntries(t, q, next, n) }
	put(3)
	require.NoError(t, table.checkpoint(context.Background()))
	put(5)
	var once sync.Once
	faulty.Before(func(c vfs.Call) {
		if c.Op == vfs.OpSync && strings.HasPrefix(c.Path, testQueueDir+"/T/0/") {
			once.Do(func() { put(2) })
		}
	})
	require.NoError(t, table.checkpoint(context.Background()))
	require.EqualValues(t, 10, next, "nothing was put beside the checkpoint")
	put(1)
	require.NoError(t, table.checkpoint(context.Background()))

	again := newQueueTable(table.o)
	require.NoError(t, again.load(context.Background()))
	defer func() { require.NoError(t, again.close()) }()
	require.False(t, again.fromScan, "the journal was not used")
	requireEntries(t, again.get([]byte("T"), 0), next)
}

// TestQueueJournalRegrown proves that a journal can be read after a queue was cut, in memory, in its
// files or both, and has grown anew.
func TestQueueJournalRegrown(t *testing.T) {
	for _, direct := range []int{2, 100} {
		for cut := int64(1); cut < 12; cut++ {
			table := newTable(t, queueTableOptions{JournalDir: testJournalDir, DirectEntries: direct})
			q := table.get([]byte("T"), 0)
			next := int64(0)
			for range 4 {
				next = putEntries(t, q, next, 3)
				require.NoError(t, table.checkpoint(context.Background()))
			}
			require.NoError(t, table.truncate(context.Background(), cut*100))
			next = putEntries(t, q, cut, 5)
			require.NoError(t, table.checkpoint(context.Background()))

			again := newQueueTable(table.o)
			require.NoError(t, again.load(context.Background()))
			require.False(t, again.fromScan, "direct %d, cut %d: the journal was not used", direct, cut)
			requireEntries(t, again.get([]byte("T"), 0), next)
			require.NoError(t, again.close())
		}
	}
}

// putEntries puts n entries from offset next on as requireEntries wants them, and returns the next offset.
func putEntries(t *testing.T, q *ConsumeQueue, next int64, n int) int64 {
	t.Helper()
	for end := next + int64(n); next < end; next++ {
		require.NoError(t, q.put(next, next*100, 100, next))
	}
	return next
}

// requireEntries makes sure that a queue holds n entries, the i-th for position i x 100.
func requireEntries(t *testing.T, q *ConsumeQueue, n int64) {
	t.Helper()
	require.Equal(t, n, q.max())
	e := make([]format.CQEntry, n)
	got, err := q.read(0, e)
	require.NoError(t, err)
	for got < int(n) {
		k, err := q.read(int64(got), e[got:])
		require.NoError(t, err)
		require.Positive(t, k)
		got += k
	}
	for i := range e {
		require.Equal(t, format.CQEntry{Offset: int64(i) * 100, Size: 100, TagsHash: int64(i)}, e[i])
	}
}
