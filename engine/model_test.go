package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/internal/vfs"
	"rmq/message"
)

// storedRecord is a record as the model knows it.
type storedRecord struct {
	sent
	end, time int64
}

// modelReader is a read that is still held, and what it must show until it is released.
type modelReader struct {
	r    *ReadResult
	want []storedRecord
}

// modelStore is a store beside the model of it: the records in log order, up to where they are
// visible, and from where they are left.
type modelStore struct {
	fs      *vfs.Heap
	o       Options
	s       *Store
	log     []storedRecord // expired ones too
	tail    int64
	min     int64
	confirm int64
	visible int64
	hold    *Hold
	holdAt  int64
	readers []modelReader
	clock   atomic.Int64 // milliseconds
	n       int
}

var modelQueues = []QueueName{{"A", 0}, {"A", 1}, {"B", 0}, {"%RETRY%g", 7}}

const modelWait = 10 * time.Second // a step that takes so long hangs

func modelContext(t *rapid.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), modelWait)
	t.Cleanup(cancel)
	return ctx
}

// message draws the next message. Few keys are shared by many.
func (m *modelStore) message(t *rapid.T, q QueueName) (sent, []byte) {
	m.n++
	x := sent{topic: q.Topic, queue: q.ID, key: fmt.Sprintf("k%d", rapid.IntRange(0, 5).Draw(t, "key"))}
	x.body = bytes.Repeat([]byte{byte(m.n)}, rapid.SampledFrom([]int{0, 1, 100, 700, 1500, 3000}).Draw(t, "size"))
	return x, record(x.topic, x.queue, x.body, x.key)
}

func drawQueue(t *rapid.T) QueueName { return rapid.SampledFrom(modelQueues).Draw(t, "queue") }

// queue is every record of q, expired ones too: record n has queue offset n.
func (m *modelStore) queue(q QueueName) (list []storedRecord) {
	for _, x := range m.log {
		if x.topic == q.Topic && x.queue == q.ID {
			list = append(list, x)
		}
	}
	return list
}

// served is what of q can be read: the records, the offset of the first that is left, and the
// offset behind the last that is visible.
func (m *modelStore) served(q QueueName) (list []storedRecord, low, high int64) {
	list = m.queue(q)
	for high < int64(len(list)) && list[high].end <= m.visible {
		high++
	}
	for low < high && list[low].res.Pos < m.min {
		low++
	}
	return list, low, high
}

// whole is the end of the last record that is visible as a whole.
func (m *modelStore) whole() (end int64) {
	for _, x := range m.log {
		if x.end <= m.visible {
			end = x.end
		}
	}
	return end
}

// dispatch waits until queues and index have all that they can have.
func (m *modelStore) dispatch(t *rapid.T) {
	if err := m.s.WaitDispatchedPos(modelContext(t), m.whole()); err != nil {
		t.Fatalf("dispatch to %d: %v", m.whole(), err)
	}
}

// stored notes what one append has stored.
func (m *modelStore) stored(t *rapid.T, res Result, list ...sent) {
	pos := res.Pos
	if pos < m.tail {
		t.Fatalf("stored at %d, before the tail %d", pos, m.tail)
	}
	if k := len(m.log); k > 0 && res.StoreTime < m.log[k-1].time {
		t.Fatalf("store time %d steps back from %d", res.StoreTime, m.log[k-1].time)
	}
	for i, x := range list {
		q := QueueName{x.topic, x.queue}
		x.res = Result{Pos: pos, QueueOffset: res.QueueOffset + int64(i), StoreTime: res.StoreTime}
		if want := int64(len(m.queue(q))); x.res.QueueOffset != want {
			t.Fatalf("%v: queue offset %d, want %d", q, x.res.QueueOffset, want)
		}
		pos += int64(len(record(x.topic, x.queue, x.body, x.key)))
		m.log = append(m.log, storedRecord{x, pos, res.StoreTime})
	}
	m.tail = pos
	m.visible = max(m.visible, min(m.tail, m.confirm))
}

// cut forgets the records at and behind pos.
func (m *modelStore) cut(pos int64) {
	for len(m.log) > 0 && m.log[len(m.log)-1].res.Pos >= pos {
		m.log = m.log[:len(m.log)-1]
	}
	m.tail = pos
}

func (m *modelStore) open(t *rapid.T) {
	m.o.FS = m.fs
	s, err := Open(modelContext(t), m.o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.s = s
	rep, was := s.Recovery(), m.visible
	if s.queues.fromScan && !rep.New && !rep.Adopted {
		t.Fatalf("the queue journal was not used: %+v", rep)
	}
	m.tail, m.confirm, m.visible = rep.End, math.MaxInt64, rep.End
	if m.o.Hidden {
		m.visible = rep.End - rep.Hidden
		m.confirm = m.visible
		if m.visible > was || rep.Closed && m.visible != was {
			t.Fatalf("%d were visible to %d: %+v", m.visible, was, rep)
		}
	}
	if s.Appended() != m.tail || s.Visible() != m.visible {
		t.Fatalf("opened at %d of %d with %d visible of %d", m.visible, m.tail, s.Visible(), s.Appended())
	}
	if s.Min() != m.min {
		t.Fatalf("the log begins at %d, want %d", s.Min(), m.min)
	}
}

func (m *modelStore) close(t *rapid.T) {
	m.checkReaders(t)
	if m.hold != nil {
		m.hold.Release()
		m.hold = nil
	}
	if err := m.shut(); err != nil {
		t.Fatalf("close: %v, with %d dispatched, %d visible of %d", err, m.s.Dispatched(), m.s.Visible(), m.s.Appended())
	}
	if open := m.fs.OpenFiles(); len(open) > 0 {
		t.Fatalf("left open: %v", open)
	}
	if left := m.fs.LiveMappings(); len(left) > 0 {
		t.Fatalf("left mapped: %v", left)
	}
}

// shut closes the store, which must not take forever. Once more is fine.
func (m *modelStore) shut() error {
	done := make(chan error, 1)
	go func() { done <- m.s.Close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(modelWait):
		return context.DeadlineExceeded
	}
}

// checkReaders compares what is still held with what it was, and lets go.
func (m *modelStore) checkReaders(t *rapid.T) {
	for _, x := range m.readers {
		m.compare(t, x.r, x.want)
		x.r.Release()
	}
	m.readers = nil
}

// compare holds the records of a read against those of the model.
func (m *modelStore) compare(t *rapid.T, r *ReadResult, want []storedRecord) {
	if r.Count() != len(want) {
		t.Fatalf("%d records read, want %d", r.Count(), len(want))
	}
	i := 0
	r.Each(func(rec []byte) {
		var got message.Record
		if err := message.ParseRecord(rec, &got); err != nil {
			t.Fatalf("record at %d: %v", want[i].res.Pos, err)
		}
		want[i].same(t, &got)
		i++
	})
}

func (x *storedRecord) same(t *rapid.T, got *message.Record) {
	if string(got.Topic) != x.topic || got.QueueID != x.queue || got.QueueOffset != x.res.QueueOffset || got.PhysicalOffset != x.res.Pos ||
		got.StoreTimestamp != x.time || !bytes.Equal(got.Body, x.body) {
		t.Fatalf("record at %d: another one: %s/%d offset %d at %d", x.res.Pos, got.Topic, got.QueueID, got.QueueOffset, got.PhysicalOffset)
	}
}

// read compares one read by queue offset with the model: status, next offset, and every record
// that the limits allow. Some results are kept, and must not change under what follows.
func (m *modelStore) read(t *rapid.T, q QueueName, offset int64, count, limit int, keep bool) {
	m.dispatch(t)
	list, low, high := m.served(q)
	r, err := m.s.Get(q.Topic, q.ID, offset, count, limit)
	if err != nil {
		t.Fatalf("get %v %d: %v", q, offset, err)
	}
	status, next := ReadFound, offset
	var want []storedRecord
	switch {
	case high == 0:
		status, next = ReadNoMessage, 0
	case offset < low:
		status, next = ReadOffsetTooSmall, low
	case offset == high:
		status = ReadOffsetOverflowOne
	case offset > high:
		status, next = ReadOffsetOverflow, high
	default:
		for size := int64(0); next < high && len(want) < count; next++ {
			size += list[next].end - list[next].res.Pos
			if len(want) > 0 && size > int64(limit) {
				break
			}
			want = append(want, list[next])
		}
	}
	if r.Status == ReadNoQueue && high == 0 {
		r.Status = ReadNoMessage
	}
	if r.Status != status || r.NextOffset != next {
		t.Fatalf("get %v %d in [%d, %d): %v next %d, want %v next %d", q, offset, low, high, r.Status, r.NextOffset, status, next)
	}
	if high > 0 && (r.MinOffset != low || r.MaxOffset != high) {
		t.Fatalf("get %v: [%d, %d), want [%d, %d)", q, r.MinOffset, r.MaxOffset, low, high)
	}
	m.compare(t, r, want)
	if keep && len(want) > 0 {
		m.readers = append(m.readers, modelReader{r, want})
		return
	}
	r.Release()
}

// lookup reads one record by its position.
func (m *modelStore) lookup(t *rapid.T, x storedRecord) {
	r, err := m.s.Lookup(x.res.Pos)
	defer r.Release()
	switch {
	case x.res.Pos < m.min:
		if !errors.Is(err, ErrOffsetTooSmall) {
			t.Fatalf("lookup of expired %d: %v", x.res.Pos, err)
		}
	case x.end > m.visible:
		if !errors.Is(err, ErrOffsetTooLarge) && !errors.Is(err, ErrNotFound) {
			t.Fatalf("lookup of hidden %d: %v", x.res.Pos, err)
		}
	case err != nil:
		t.Fatalf("lookup of %d: %v", x.res.Pos, err)
	default:
		m.compare(t, r, []storedRecord{x})
	}
}

// key compares a search by key with the model.
func (m *modelStore) key(t *rapid.T, topic, key string, limit int, begin, end int64) {
	m.dispatch(t)
	var must, may []int64
	for _, x := range m.log {
		if x.topic != topic || x.key != key || x.end > m.visible || x.res.Pos < m.min {
			continue
		}
		if x.time >= begin && x.time <= end {
			must = append(must, x.res.Pos)
		}
		if x.time > begin-1000 && x.time < end+1000 { // the index keeps seconds
			may = append(may, x.res.Pos)
		}
	}
	found, err := m.s.QueryKey(topic, key, limit, begin, end)
	if err != nil || len(found) > limit {
		t.Fatalf("key %s %s: %v, %v", topic, key, found, err)
	}
	if begin == 0 { // all there are: the newest that the limit allows
		if want := must[max(0, len(must)-limit):]; !slices.Equal(found, want) {
			t.Fatalf("key %s %s, limit %d: %v, want %v", topic, key, limit, found, want)
		}
		return
	}
	for _, pos := range found {
		if !slices.Contains(may, pos) {
			t.Fatalf("key %s %s from %d to %d: %v, may be %v", topic, key, begin, end, found, may)
		}
	}
	for _, pos := range must {
		if limit >= len(m.log) && !slices.Contains(found, pos) {
			t.Fatalf("key %s %s from %d to %d: %v, must be %v", topic, key, begin, end, found, must)
		}
	}
}

// offsetByTime compares a search by time with the model.
func (m *modelStore) offsetByTime(t *rapid.T, q QueueName, millis int64, bound TimeBound) {
	m.dispatch(t)
	list, low, high := m.served(q)
	want := low
	for want < high && (list[want].time < millis || bound == UpperBound && list[want].time == millis) {
		want++
	}
	if bound == UpperBound {
		want = max(want-1, low)
	}
	got, err := m.s.OffsetByTime(q.Topic, q.ID, millis, bound)
	if high == 0 && errors.Is(err, ErrNotFound) {
		return
	}
	if err != nil || got != want {
		t.Fatalf("%v at time %d, bound %d: offset %d, %v; want %d in [%d, %d)", q, millis, bound, got, err, want, low, high)
	}
}

// scan reads the visible log from its first record on.
func (m *modelStore) scan(t *rapid.T) {
	var list []storedRecord
	for _, x := range m.log {
		if x.res.Pos >= m.min && x.end <= m.visible {
			list = append(list, x)
		}
	}
	n := 0
	_, err := m.s.Scan(modelContext(t), m.min, func(pos int64, rec *message.Record) bool {
		if n == len(list) || list[n].res.Pos != pos {
			t.Fatalf("scan: record %d stands at %d, want %d in all", n, pos, len(list))
		}
		list[n].same(t, rec)
		n++
		return true
	})
	if err != nil && !errors.Is(err, message.ErrShort) || n != len(list) {
		t.Fatalf("scan: %d records of %d, %v", n, len(list), err)
	}
}

// retain runs retention with the first n segments expired.
func (m *modelStore) retain(t *rapid.T, n int) {
	m.dispatch(t)
	files := m.s.files.Files()
	for _, f := range files[:min(n, len(files))] {
		if err := m.fs.Chtimes(f.Path(), time.Now().Add(-96*time.Hour)); err != nil {
			t.Fatalf("expire: %v", err)
		}
	}
	old := make([]bool, len(files))
	for i, f := range files {
		st, err := m.fs.Stat(f.Path())
		if err != nil {
			t.Fatalf("expire: %v", err)
		}
		old[i] = time.Since(st.ModTime()) > 72*time.Hour
	}
	removed := 0
	c := nightCleaner(m.s, RetentionOptions{}, func(CleanEvent) { removed++ })
	for before := -1; before != removed; {
		before = removed
		if err := c.round(modelContext(t), false); err != nil {
			t.Fatalf("retention: %v", err)
		}
	}
	limit := min(m.visible, m.tail-m.tail%m.o.SegmentBytes)
	if m.hold != nil {
		limit = min(limit, m.holdAt)
	}
	least, most := 0, 0
	for i, f := range files[:max(0, len(files)-1)] {
		if f.End() > limit || !old[i] {
			break
		}
		most = i + 1
		if f.End() <= m.whole() {
			least = i + 1 // whether the dispatcher has stepped over a blank yet, nobody knows
		}
	}
	if removed < least || removed > most {
		t.Fatalf("%d segments removed, want %d to %d of %d, limit %d", removed, least, most, len(files), limit)
	}
	m.min = m.s.Min()
	if len(files) > 0 && m.min != files[removed].Start() {
		t.Fatalf("the log begins at %d after %d segments were removed", m.min, removed)
	}
}

func (m *modelStore) reopened(t *rapid.T) {
	end := m.s.Recovery().End
	m.cut(end)
	if k := len(m.log); k > 0 && m.log[k-1].end > end {
		t.Fatalf("the log ends at %d, inside the record from %d to %d", end, m.log[k-1].res.Pos, m.log[k-1].end)
	}
}

// submit sends n records without waiting for any, by ways that do not block, and returns them
// with the channel on which their completions come.
func (m *modelStore) submit(t *rapid.T, n int) ([]*Append, []sent, chan int64) {
	done := make(chan int64, n)
	as, xs := make([]*Append, n), make([]sent, n)
	for i := range as {
		var rec []byte
		xs[i], rec = m.message(t, drawQueue(t))
		as[i] = &Append{Record: rec, Tag: int64(i), Done: func(a *Append) { done <- a.Tag }}
	}
	if rapid.Bool().Draw(t, "vector") {
		m.s.SubmitVector(as)
	} else {
		for _, a := range as {
			m.s.Submit(a)
		}
	}
	return as, xs, done
}

// completions waits for n completions, which come in log order.
func completions(t *rapid.T, done chan int64, n int) {
	for i := range n {
		select {
		case tag := <-done:
			if tag != int64(i) {
				t.Fatalf("completion %d came as number %d", tag, i)
			}
		case <-time.After(modelWait):
			t.Fatalf("completion %d never came", i)
		}
	}
}

// TestModel proves, over random sequences of everything a store can do, that it behaves as a list
// of records in log order: appends by every way, reads by offset, position, key and time with every
// limit, hidden and cut tails, retention with and without holds, clean reopens, kills, and power cuts.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelStore{fs: vfs.NewHeap()}
		m.clock.Store(1_700_000_000_000)
		m.o = small(nil, "/s")
		m.o.Clock = func() time.Time { return time.UnixMilli(m.clock.Load()) }
		m.o.SegmentBytes = 8 << 10
		m.o.Retention.Disabled = true // rounds are run by hand
		m.o.Flush = rapid.SampledFrom([]FlushMode{AsyncFlush, SyncFlush}).Draw(t, "flush")
		m.o.SyncAside = rapid.Bool().Draw(t, "sync aside")
		m.o.Hidden = rapid.Bool().Draw(t, "hidden")
		m.o.Write = rapid.SampledFrom([]WriteMode{WritePwrite, WriteMmap, WriteMmapWarmed}).Draw(t, "write")
		m.o.TailCache = rapid.SampledFrom([]int64{1, 32 << 10}).Draw(t, "tail cache")
		m.o.MaxIndexEntries = rapid.SampledFrom([]int32{8, 128}).Draw(t, "index entries")
		m.o.directEntries = rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "direct entries")
		m.open(t)
		t.Cleanup(func() { _ = m.shut() }) // for a run that fails, or that rapid gives up
		actions := map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				x, rec := m.message(t, drawQueue(t))
				res, err := m.s.Append(modelContext(t), rec)
				if err != nil {
					t.Fatalf("append: %v", err)
				}
				m.stored(t, res, x)
			},
			"submit": func(t *rapid.T) {
				as, xs, done := m.submit(t, rapid.IntRange(1, 8).Draw(t, "n"))
				completions(t, done, len(as))
				for i, a := range as {
					if a.Err != nil {
						t.Fatalf("submit: %v", a.Err)
					}
					m.stored(t, a.Result, xs[i])
				}
			},
			"batch": func(t *rapid.T) {
				q := drawQueue(t)
				first, recs := m.message(t, q)
				list := []sent{first}
				for range rapid.IntRange(1, 3).Draw(t, "more") {
					m.n++
					x := sent{topic: q.Topic, queue: q.ID, key: fmt.Sprintf("b%d", m.n), body: []byte{byte(m.n)}}
					recs = append(recs, record(x.topic, x.queue, x.body, x.key)...)
					list = append(list, x)
				}
				res, err := m.s.Append(modelContext(t), recs)
				if err != nil {
					t.Fatalf("batch: %v", err)
				}
				m.stored(t, res, list...)
			},
			"get": func(t *rapid.T) {
				q := drawQueue(t)
				limit := rapid.SampledFrom([]int{1, 500, 5000, 1 << 20}).Draw(t, "bytes")
				m.read(t, q, rapid.Int64Range(-1, int64(len(m.queue(q)))+1).Draw(t, "offset"), rapid.IntRange(1, 16).Draw(t, "count"), limit,
					rapid.Bool().Draw(t, "keep"))
			},
			"let go": m.checkReaders,
			"lookup": func(t *rapid.T) {
				if len(m.log) > 0 {
					m.lookup(t, rapid.SampledFrom(m.log).Draw(t, "record"))
				}
			},
			"key": func(t *rapid.T) {
				var begin, end int64 = 0, math.MaxInt64
				if rapid.Bool().Draw(t, "times") {
					begin = m.clock.Load() - rapid.Int64Range(0, 20_000).Draw(t, "back")
					end = begin + rapid.Int64Range(0, 10_000).Draw(t, "span")
				}
				m.key(t, drawQueue(t).Topic, fmt.Sprintf("k%d", rapid.IntRange(0, 6).Draw(t, "key")), rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "limit"), begin, end)
			},
			"time": func(t *rapid.T) {
				m.offsetByTime(t, drawQueue(t), m.clock.Load()-rapid.Int64Range(-3000, 20_000).Draw(t, "back"),
					rapid.SampledFrom([]TimeBound{LowerBound, UpperBound}).Draw(t, "bound"))
			},
			"clock": func(t *rapid.T) { m.clock.Add(rapid.Int64Range(-1500, 3000).Draw(t, "step")) },
			"scan":  m.scan,
			"confirm": func(t *rapid.T) {
				m.confirm = rapid.OneOf(rapid.Int64Range(m.visible, m.tail+6000), rapid.Just(m.tail), rapid.Just(m.visible), rapid.Just[int64](0),
					rapid.Just[int64](math.MaxInt64)).Draw(t, "at")
				m.visible = max(m.visible, min(m.tail, m.confirm))
				m.s.SetConfirm(m.confirm)
			},
			"truncate": func(t *rapid.T) {
				places := []int64{m.tail}
				for _, x := range m.log {
					if x.end >= m.visible { // the last one that readers see, too
						places = append(places, x.res.Pos, x.end)
					}
				}
				pos := rapid.SampledFrom(places).Draw(t, "pos")
				err := m.s.TruncateTo(pos)
				switch {
				case pos < m.visible:
					if !errors.Is(err, ErrOffsetTooSmall) {
						t.Fatalf("truncate to %d, visible to %d: %v", pos, m.visible, err)
					}
					return
				case err != nil:
					t.Fatalf("truncate to %d: %v", pos, err)
				}
				m.cut(pos)
			},
			"truncate under appends": func(t *rapid.T) {
				at := m.tail
				m.s.SetConfirm(m.visible)
				as, _, done := m.submit(t, rapid.IntRange(1, 8).Draw(t, "n"))
				if err := m.s.TruncateTo(at); err != nil {
					t.Fatalf("truncate to %d: %v", at, err)
				}
				for range as {
					select {
					case <-done:
					case <-time.After(modelWait):
						t.Fatalf("an append behind the cut hangs")
					}
				}
				for _, a := range as {
					if a.Err != nil && !errors.Is(a.Err, ErrIndeterminate) {
						t.Fatalf("append behind a cut: %v", a.Err)
					}
				}
				m.s.SetConfirm(m.confirm)
			},
			"hold": func(t *rapid.T) {
				m.holdAt = rapid.Int64Range(0, m.tail).Draw(t, "at")
				if m.hold == nil {
					m.hold = m.s.Hold(m.holdAt)
				} else {
					m.hold.Move(m.holdAt)
				}
			},
			"release": func(*rapid.T) {
				if m.hold != nil {
					m.hold.Release()
					m.hold = nil
				}
			},
			"retain": func(t *rapid.T) { m.retain(t, rapid.IntRange(0, 10).Draw(t, "expired")) },
			"flush": func(t *rapid.T) {
				if err := m.s.Flush(modelContext(t)); err != nil {
					t.Fatalf("flush: %v", err)
				}
			},
			"checkpoint": func(t *rapid.T) {
				if err := m.s.Checkpoint(modelContext(t)); err != nil {
					t.Fatalf("checkpoint: %v", err)
				}
			},
			"reopen": func(t *rapid.T) {
				tail, hidden := m.tail, m.visible < m.tail
				m.close(t)
				m.open(t)
				if m.tail != tail || m.s.Recovery().Clean != (m.o.Hidden || !hidden) || !m.s.Recovery().Closed {
					t.Fatalf("hidden %v, to %d: %+v", hidden, tail, m.s.Recovery())
				}
			},
			"kill": func(t *rapid.T) {
				img, tail := m.fs.KillImage(), m.tail
				m.close(t)
				m.fs = img
				m.open(t)
				if m.tail != tail {
					t.Fatalf("killed at %d: %+v", tail, m.s.Recovery())
				}
			},
			"power cut": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "flushed") {
					if err := m.s.Flush(modelContext(t)); err != nil {
						t.Fatalf("flush: %v", err)
					}
				}
				flushed := m.s.Flushed()
				if m.o.Flush == SyncFlush && flushed != m.tail {
					t.Fatalf("acked to %d, flushed to %d", m.tail, flushed)
				}
				img := m.fs.CrashImage(rapid.Uint64().Draw(t, "seed"))
				if err := Reboot(img, "/s"); err != nil {
					t.Fatalf("reboot: %v", err)
				}
				m.close(t)
				m.fs = img
				m.open(t)
				if m.tail < flushed {
					t.Fatalf("flushed to %d: %+v", flushed, m.s.Recovery())
				}
				m.reopened(t)
			},
			"": func(t *rapid.T) {
				if n := m.s.Stats().OrderViolations; n > 0 {
					t.Fatalf("watermarks out of order %d times", n)
				}
				if m.s.Appended() != m.tail || m.s.Visible() != m.visible {
					t.Fatalf("%d visible of %d, want %d of %d", m.s.Visible(), m.s.Appended(), m.visible, m.tail)
				}
			},
		}
		for _, often := range []string{"append", "submit", "confirm", "truncate", "retain"} {
			actions[often+" again"] = actions[often]
		}
		for range 3 {
			t.Repeat(actions)
		}
		m.checkAll(t)
		m.close(t)
	})
}

// checkAll compares everything that can be read.
func (m *modelStore) checkAll(t *rapid.T) {
	for _, q := range modelQueues {
		_, low, high := m.served(q)
		for offset := low - 1; offset <= high; offset++ {
			m.read(t, q, offset, 1, 1<<20, false)
		}
		m.offsetByTime(t, q, m.clock.Load(), LowerBound)
	}
	for _, x := range m.log {
		m.lookup(t, x)
		m.key(t, x.topic, x.key, 1000, 0, math.MaxInt64)
	}
	m.scan(t)
}

// variant is one way to run the same operations.
type variant struct {
	name   string
	change func(*Options)
	reopen int // after so many operations each: 0 never
	kill   bool
}

var variants = []variant{
	{name: "plain"},
	{name: "sync", change: func(o *Options) { o.Flush = SyncFlush }},
	{name: "sync aside", change: func(o *Options) { o.Flush, o.SyncAside = SyncFlush, true }},
	{name: "mmap", change: func(o *Options) { o.Write = WriteMmap }},
	{name: "mmap sync", change: func(o *Options) { o.Write, o.Flush = WriteMmap, SyncFlush }},
	{name: "mmap warmed", change: func(o *Options) { o.Write = WriteMmapWarmed }},
	{name: "large segments", change: func(o *Options) { o.SegmentBytes = 1 << 20 }},
	{name: "small everything", change: func(o *Options) {
		o.SegmentBytes, o.QueueFileBytes, o.MaxIndexEntries, o.TailCache = 8<<10, 40, 8, 1
	}},
	{name: "much pending", change: func(o *Options) { o.MaxPending, o.MaxUnflushed = 16<<10, 16<<10 }},
	{name: "reopened", reopen: 17},
	{name: "reopened sync", reopen: 17, change: func(o *Options) { o.Flush = SyncFlush }},
	{name: "killed", reopen: 23, kill: true},
	{name: "killed mmap", reopen: 23, kill: true, change: func(o *Options) { o.Write = WriteMmap }},
	{name: "many checkpoints", change: func(o *Options) { o.CheckpointBytes = 1 }},
	{name: "direct queues", change: func(o *Options) { o.CheckpointBytes, o.directEntries = 1, 1 }},
	{name: "killed direct queues", reopen: 23, kill: true, change: func(o *Options) { o.CheckpointBytes, o.directEntries = 1, 2 }},
	{name: "unprepared sync", change: func(o *Options) { o.Flush, o.PrepareDisabled = SyncFlush, true }},
}

// TestMetamorphic proves that one list of operations gives one transcript, whatever the flush and
// write mode, file sizes, bounds and reopens, on the heap and on a disk.
func TestMetamorphic(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	want := ""
	for _, v := range variants {
		for _, kind := range []string{"heap", "disk"} {
			if kind == "disk" && v.kill {
				continue // a kill is an image of a heap
			}
			got := transcript(t, v, kind, seed)
			if want == "" {
				want = got
				require.Contains(t, want, "FOUND")
			}
			require.Equal(t, want, got, "%s on %s, seed %d", v.name, kind, seed)
		}
	}
}

// transcript runs the operations of seed and says what each returned, positions aside.
func transcript(t *testing.T, v variant, kind string, seed uint64) string {
	t.Helper()
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 1))
	heap := vfs.NewHeap()
	o := small(heap, "/s")
	if kind == "disk" {
		o = small(vfs.OS, t.TempDir())
	}
	if v.change != nil {
		v.change(&o)
	}
	s := open(t, o)
	var out bytes.Buffer
	var keys []sent
	for i := range 150 {
		topic, queue := fmt.Sprintf("T%d", rng.IntN(3)), int32(rng.IntN(2))
		switch op := rng.IntN(10); {
		case op < 6:
			x := sent{topic: topic, queue: queue, key: fmt.Sprintf("k%d", rng.IntN(60)), body: make([]byte, rng.IntN(1500))}
			for j := range x.body {
				x.body[j] = byte(rng.Uint32())
			}
			res, err := s.Append(ctx, record(topic, queue, x.body, x.key))
			require.NoError(t, err)
			fmt.Fprintf(&out, "%d append %s/%d at %d\n", i, topic, queue, res.QueueOffset)
			keys = append(keys, x)
		case op < 8:
			require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
			low, high, ok := s.QueueRange(topic, queue)
			offset := rng.Int64N(40)
			r, err := s.Get(topic, queue, offset, 5, 1<<20)
			require.NoError(t, err)
			fmt.Fprintf(&out, "%d get %s/%d [%d,%d) %v %d: %v next %d", i, topic, queue, low, high, ok, offset, r.Status, r.NextOffset)
			r.Each(func(rec []byte) { fmt.Fprintf(&out, " %x", bodyHash(t, rec)) })
			out.WriteByte('\n')
			r.Release()
		case op == 8 && len(keys) > 0:
			require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
			x := keys[rng.IntN(len(keys))]
			found, err := s.QueryKey(x.topic, x.key, 64, 0, 1<<62)
			require.NoError(t, err)
			fmt.Fprintf(&out, "%d key %s %s:", i, x.topic, x.key)
			for _, pos := range found {
				r, err := s.Lookup(pos)
				require.NoError(t, err)
				r.Each(func(rec []byte) { fmt.Fprintf(&out, " %x", bodyHash(t, rec)) })
				r.Release()
			}
			out.WriteByte('\n')
		default:
			if rng.IntN(2) == 0 {
				require.NoError(t, s.Flush(ctx))
			} else {
				require.NoError(t, s.Checkpoint(ctx))
			}
		}
		if v.reopen > 0 && i%v.reopen == v.reopen-1 {
			img := heap.KillImage()
			require.NoError(t, s.Close())
			if v.kill {
				heap, o.FS = img, img
			}
			s = open(t, o)
		}
	}
	require.Zero(t, s.Stats().OrderViolations)
	require.NoError(t, s.Close())
	return out.String()
}

func bodyHash(t *testing.T, rec []byte) uint64 {
	t.Helper()
	var r message.Record
	require.NoError(t, message.ParseRecord(rec, &r))
	require.NoError(t, r.CheckCRC())
	h := fnv.New64a()
	h.Write(r.Body)
	return h.Sum64()
}
