package engine

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/internal/vfs"
	"rmq/message"
)

// modelStore is a store beside the model of it: per queue, the messages that were acked.
type modelStore struct {
	fs     *vfs.Heap
	o      Options
	s      *Store
	queues map[QueueName][]sent
	n      int
}

var modelQueues = []QueueName{{"A", 0}, {"A", 1}, {"B", 0}, {"%RETRY%g", 7}}

// message draws the next message.
func (m *modelStore) message(t *rapid.T) (QueueName, sent, []byte) {
	q := rapid.SampledFrom(modelQueues).Draw(t, "queue")
	m.n++
	x := sent{topic: q.Topic, queue: q.ID, key: fmt.Sprintf("k%d", m.n)}
	x.body = bytes.Repeat([]byte{byte(m.n)}, rapid.SampledFrom([]int{0, 1, 100, 700, 3000}).Draw(t, "size"))
	return q, x, record(x.topic, x.queue, x.body, x.key)
}

func (m *modelStore) acked(t *rapid.T, q QueueName, x sent, res Result) {
	if want := int64(len(m.queues[q])); res.QueueOffset != want {
		t.Fatalf("%v: queue offset %d, want %d", q, res.QueueOffset, want)
	}
	x.res = res
	m.queues[q] = append(m.queues[q], x)
}

func (m *modelStore) open(t *rapid.T) {
	m.o.FS = m.fs
	s, err := Open(context.Background(), m.o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.s = s
}

func (m *modelStore) close(t *rapid.T) {
	if err := m.s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if open := m.fs.OpenFiles(); len(open) > 0 {
		t.Fatalf("left open: %v", open)
	}
}

// read compares one read by queue offset, of several messages, with the model.
func (m *modelStore) read(t *rapid.T, q QueueName, offset int64, count int) {
	list := m.queues[q]
	if err := m.s.WaitDispatched(context.Background(), q.Topic, q.ID, int64(len(list))); err != nil {
		t.Fatalf("wait: %v", err)
	}
	r, err := m.s.Get(q.Topic, q.ID, offset, count, 1<<20)
	if err != nil {
		t.Fatalf("get %v %d: %v", q, offset, err)
	}
	defer r.Release()
	if offset >= int64(len(list)) || offset < 0 {
		if r.Status == ReadFound {
			t.Fatalf("get %v %d of %d: found", q, offset, len(list))
		}
		return
	}
	if r.Status != ReadFound || r.Count() == 0 || r.Count() > count {
		t.Fatalf("get %v %d of %d: %v, %d records", q, offset, len(list), r.Status, r.Count())
	}
	r.Each(func(rec []byte) {
		var got message.Record
		if err := message.ParseRecord(rec, &got); err != nil {
			t.Fatalf("get %v %d: %v", q, offset, err)
		}
		want := list[offset]
		if string(got.Topic) != want.topic || got.QueueID != want.queue || got.QueueOffset != offset || got.PhysicalOffset != want.res.Pos || !bytes.Equal(got.Body, want.body) {
			t.Fatalf("get %v %d: another message", q, offset)
		}
		offset++
	})
	if r.NextOffset != offset {
		t.Fatalf("get %v: next offset %d, want %d", q, r.NextOffset, offset)
	}
}

// TestModel proves, over random sequences of appends, batches, reads, flushes, checkpoints, clean
// reopens, kills and power cuts after a flush, that the store behaves as a list of messages a queue.
func TestModel(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		m := &modelStore{fs: vfs.NewHeap(), queues: map[QueueName][]sent{}}
		m.o = small(nil, "/s")
		m.o.SegmentBytes = 8 << 10
		m.o.Flush = rapid.SampledFrom([]FlushMode{AsyncFlush, SyncFlush}).Draw(t, "flush")
		m.o.Write = rapid.SampledFrom([]WriteMode{WritePwrite, WriteMmap, WriteMmapWarmed}).Draw(t, "write")
		m.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				q, x, rec := m.message(t)
				res, err := m.s.Append(ctx, rec)
				if err != nil {
					t.Fatalf("append: %v", err)
				}
				m.acked(t, q, x, res)
			},
			"vector": func(t *rapid.T) {
				n := rapid.IntRange(1, 8).Draw(t, "n")
				done := make(chan struct{}, n)
				as, ids, xs := make([]*Append, n), make([]QueueName, n), make([]sent, n)
				for i := range as {
					var rec []byte
					ids[i], xs[i], rec = m.message(t)
					as[i] = &Append{Record: rec, Done: func(*Append) { done <- struct{}{} }}
				}
				m.s.SubmitVector(as)
				for range as {
					<-done
				}
				for i, a := range as {
					if a.Err != nil {
						t.Fatalf("vector: %v", a.Err)
					}
					m.acked(t, ids[i], xs[i], a.Result)
				}
			},
			"batch": func(t *rapid.T) {
				q, first, recs := m.message(t)
				list := []sent{first}
				for range rapid.IntRange(1, 3).Draw(t, "more") {
					m.n++
					x := sent{topic: q.Topic, queue: q.ID, key: fmt.Sprintf("k%d", m.n), body: []byte{byte(m.n)}}
					recs = append(recs, record(x.topic, x.queue, x.body, x.key)...)
					list = append(list, x)
				}
				size := int64(0)
				res, err := m.s.Append(ctx, recs)
				if err != nil {
					t.Fatalf("batch: %v", err)
				}
				for _, x := range list {
					m.acked(t, q, x, Result{Pos: res.Pos + size, QueueOffset: res.QueueOffset})
					size += int64(len(record(x.topic, x.queue, x.body, x.key)))
					res.QueueOffset++
				}
			},
			"get": func(t *rapid.T) {
				q := rapid.SampledFrom(modelQueues).Draw(t, "queue")
				m.read(t, q, rapid.Int64Range(-1, int64(len(m.queues[q]))+1).Draw(t, "offset"), rapid.IntRange(1, 16).Draw(t, "count"))
			},
			"key": func(t *rapid.T) {
				q := rapid.SampledFrom(modelQueues).Draw(t, "queue")
				if len(m.queues[q]) == 0 {
					return
				}
				x := m.queues[q][rapid.IntRange(0, len(m.queues[q])-1).Draw(t, "i")]
				if err := m.s.WaitDispatchedPos(ctx, m.s.Visible()); err != nil {
					t.Fatalf("wait: %v", err)
				}
				found, err := m.s.QueryKey(x.topic, x.key, 10, 0, 1<<62)
				if err != nil || len(found) != 1 || found[0] != x.res.Pos {
					t.Fatalf("key %s: %v, %v; want %d", x.key, found, err, x.res.Pos)
				}
			},
			"flush": func(t *rapid.T) {
				if err := m.s.Flush(ctx); err != nil {
					t.Fatalf("flush: %v", err)
				}
			},
			"checkpoint": func(t *rapid.T) {
				if err := m.s.Checkpoint(ctx); err != nil {
					t.Fatalf("checkpoint: %v", err)
				}
			},
			"reopen": func(t *rapid.T) {
				m.close(t)
				m.open(t)
				if !m.s.Recovery().Clean {
					t.Fatalf("not clean: %+v", m.s.Recovery())
				}
			},
			"kill": func(t *rapid.T) {
				img := m.fs.KillImage()
				m.close(t)
				m.fs = img
				m.open(t)
			},
			"power cut": func(t *rapid.T) {
				if err := m.s.Flush(ctx); err != nil {
					t.Fatalf("flush: %v", err)
				}
				img := m.fs.CrashImage(rapid.Uint64().Draw(t, "seed"))
				if err := Reboot(img, "/s"); err != nil {
					t.Fatalf("reboot: %v", err)
				}
				m.close(t)
				m.fs = img
				m.open(t)
			},
			"": func(t *rapid.T) {
				if n := m.s.Stats().OrderViolations; n > 0 {
					t.Fatalf("watermarks out of order %d times", n)
				}
			},
		})
		for _, q := range modelQueues {
			for offset := range int64(len(m.queues[q])) {
				m.read(t, q, offset, 1)
			}
		}
		m.close(t)
	})
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
