package raftlog

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"rmq/engine"
	"rmq/internal/vfs"
)

// modelEntry is an entry as the model knows it.
type modelEntry struct {
	term     uint64
	kind     raft.LogType
	data     []byte // of all but messages
	frame    []byte // as the leader wrote it
	messages map[engine.QueueName]int64
}

// modelNode is one log store and how far it is.
type modelNode struct {
	fs   *vfs.Heap
	o    LogStoreOptions
	s    *LogStore
	last uint64
}

// modelLog is a leader and a follower beside the model of their log: entry i+1 is log[i].
type modelLog struct {
	nodes  [2]*modelNode // the first one leads
	log    []modelEntry
	term   uint64
	commit uint64

	mu    sync.Mutex
	acked map[uint64]error // by index, of the last message in it
}

const modelWait = 10 * time.Second

func (n *modelNode) open(t *rapid.T) {
	n.o.Engine.FS = n.fs
	s, err := OpenLogStore(context.Background(), n.o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	n.s = s
	if n.last, err = s.LastIndex(); err != nil {
		t.Fatalf("last: %v", err)
	}
}

func (n *modelNode) close(t *rapid.T) {
	if err := n.s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if open := n.fs.OpenFiles(); len(open) > 0 {
		t.Fatalf("left open: %v", open)
	}
}

// lead makes the leader store a few entries in one call.
func (m *modelLog) lead(t *rapid.T) {
	n := m.nodes[0]
	var logs []*raft.Log
	var list []modelEntry
	for range rapid.IntRange(1, 5).Draw(t, "entries") {
		index := n.last + uint64(len(logs)) + 1
		e := modelEntry{term: m.term, messages: map[engine.QueueName]int64{}}
		l := &raft.Log{Index: index, Term: m.term}
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0:
			l.Type = raft.LogNoop
		case 1:
			l.Type = raft.LogBarrier
		case 2:
			l.Type, e.data = raft.LogConfiguration, configuration("a", fmt.Sprint(index))
		case 3:
			e.data = []byte(metaPrefix + rapid.SampledFrom([]string{"\x01", "\x02"}).Draw(t, "gated") + fmt.Sprint(index))
		default:
			l.Data = m.batch(t, index, &e)
		}
		if l.Data == nil {
			l.Data = e.data
		}
		e.kind = l.Type
		logs, list = append(logs, l), append(list, e)
	}
	if err := n.s.StoreLogs(logs); err != nil {
		t.Fatalf("store: %v", err)
	}
	for i, l := range logs {
		list[i].frame = m.frame(t, n, l.Index, l.Term)
		m.log = append(m.log, list[i])
	}
	n.last += uint64(len(logs))
}

// batch is the token of a new batch for index.
func (m *modelLog) batch(t *rapid.T, index uint64, e *modelEntry) []byte {
	b := m.nodes[0].s.Batch()
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		q := engine.QueueName{Topic: rapid.SampledFrom([]string{"A", "B"}).Draw(t, "topic"), ID: int32(rapid.IntRange(0, 1).Draw(t, "queue"))}
		e.messages[q]++
		a := &engine.Append{Record: record(q.Topic, q.ID, make([]byte, rapid.SampledFrom([]int{0, 10, 700, 2500}).Draw(t, "size"))),
			Done: func(a *engine.Append) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.acked[index] = a.Err
			}}
		if err := b.Add(a); err != nil {
			t.Fatalf("add: %v", err)
		}
	}
	m.mu.Lock()
	delete(m.acked, index)
	m.mu.Unlock()
	return b.Token()
}

func (m *modelLog) frame(t *rapid.T, n *modelNode, index, term uint64) []byte {
	r, err := n.s.Frame(index, term)
	if err != nil {
		t.Fatalf("frame %d of term %d: %v", index, term, err)
	}
	defer r.Release()
	return append([]byte(nil), r.Bytes...)
}

// feed gives the follower what it lacks, up to a few entries in one call.
func (m *modelLog) feed(t *rapid.T) {
	n := m.nodes[1]
	var logs []*raft.Log
	for i := range rapid.IntRange(1, 8).Draw(t, "entries") {
		if n.last+uint64(i) >= uint64(len(m.log)) {
			break
		}
		e := m.log[n.last+uint64(i)]
		l := &raft.Log{Index: n.last + uint64(i) + 1, Term: e.term, Type: e.kind, Data: e.frame}
		if e.kind == raft.LogConfiguration {
			l.Data = e.data
		}
		logs = append(logs, l)
	}
	if len(logs) == 0 {
		return
	}
	if err := n.s.StoreLogs(logs); err != nil {
		t.Fatalf("follow: %v", err)
	}
	n.last += uint64(len(logs))
}

// cut deletes a tail that is not committed, wherever it is, in a new term.
func (m *modelLog) cut(t *rapid.T) {
	if m.commit == uint64(len(m.log)) {
		return
	}
	from := uint64(rapid.Int64Range(int64(m.commit)+1, int64(len(m.log))).Draw(t, "from"))
	for _, n := range m.nodes {
		if n.last < from {
			continue
		}
		if err := n.s.DeleteRange(from, n.last); err != nil {
			t.Fatalf("delete from %d: %v", from, err)
		}
		n.last = from - 1
	}
	m.log = m.log[:from-1]
	m.term++
}

// agree commits what both have.
func (m *modelLog) agree(t *rapid.T) {
	most := min(m.nodes[0].last, m.nodes[1].last)
	if most <= m.commit {
		return
	}
	m.commit = uint64(rapid.Int64Range(int64(m.commit), int64(most)).Draw(t, "commit"))
	for _, n := range m.nodes {
		n.s.Commit(m.commit)
	}
}

// crash replaces a node by what is left of it after a stop, a kill or a power cut.
func (m *modelLog) crash(t *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(t, "node")
	n := m.nodes[i]
	img, least := n.fs, n.last
	switch how := rapid.SampledFrom([]string{"stop", "kill", "power cut"}).Draw(t, "how"); how {
	case "kill":
		img = n.fs.KillImage()
	case "power cut":
		var err error
		if least, err = n.s.below(n.s.engine.Flushed()); err != nil {
			t.Fatalf("below: %v", err)
		}
		img = n.fs.CrashImage(rapid.Uint64().Draw(t, "seed"))
	}
	was := n.last
	n.close(t)
	n.fs = img
	n.open(t)
	if n.last < least || n.last > was {
		t.Fatalf("%d entries of %d, %d of them durable, are left: %+v", n.last, was, least, n.s.engine.Recovery())
	}
	if c := n.s.Committed(); c > m.commit || c > n.last {
		t.Fatalf("committed to %d of %d, known to be to %d", c, n.last, m.commit)
	}
	if m.nodes[0].last < m.nodes[1].last { // the one with more leads
		m.nodes[0], m.nodes[1] = m.nodes[1], m.nodes[0]
	}
	m.log = m.log[:m.nodes[0].last]
	m.commit = min(m.commit, m.nodes[0].last, max(m.nodes[1].last, m.nodes[0].s.Committed()))
	m.commit = max(m.commit, m.nodes[0].s.Committed(), m.nodes[1].s.Committed())
	m.term++
	m.mu.Lock()
	defer m.mu.Unlock()
	for index, err := range m.acked {
		if err == nil && index > uint64(len(m.log)) && n.o.Engine.Flush == engine.SyncFlush {
			t.Fatalf("entry %d of %d was acked and is lost", index, len(m.log))
		}
		if index > m.commit { // acked in another life: nobody is left who knows that it is committed
			delete(m.acked, index)
		}
	}
}

// check compares both nodes with the model.
func (m *modelLog) check(t *rapid.T) {
	m.mu.Lock()
	for index, err := range m.acked {
		if err == nil && index > m.commit && index <= uint64(len(m.log)) {
			t.Fatalf("entry %d is acked, committed is %d", index, m.commit)
		}
	}
	m.mu.Unlock()
	for _, n := range m.nodes {
		last, err := n.s.LastIndex()
		if err != nil || last != n.last {
			t.Fatalf("last entry %d, want %d: %v", last, n.last, err)
		}
		if st := n.s.engine.Stats(); st.OrderViolations > 0 {
			t.Fatalf("watermarks out of order: %+v", st)
		}
		if d := n.s.DurableIndex(); d > n.last {
			t.Fatalf("durable to %d of %d", d, n.last)
		}
		for i := uint64(1); i <= n.last; i++ {
			want := m.log[i-1]
			var l raft.Log
			if err := n.s.GetLog(i, &l); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if l.Index != i || l.Term != want.term || l.Type != want.kind || string(l.Data) != string(want.data) {
				t.Fatalf("entry %d is %+v, want %+v", i, l, want)
			}
			if string(m.frame(t, n, i, want.term)) != string(want.frame) {
				t.Fatalf("frame of entry %d differs", i)
			}
		}
		if err := n.s.GetLog(n.last+1, &raft.Log{}); err != raft.ErrLogNotFound { //nolint:errorlint // the library compares so
			t.Fatalf("behind the end: %v", err)
		}
		m.checkQueues(t, n)
	}
}

// checkQueues compares the queues with what the node knows to be committed and has durable.
func (m *modelLog) checkQueues(t *rapid.T, n *modelNode) {
	ctx, cancel := context.WithTimeout(context.Background(), modelWait)
	defer cancel()
	shown := n.s.Committed()
	end, ok := n.s.End(shown)
	if !ok {
		return
	}
	if err := n.s.WaitDurable(ctx, shown); err != nil {
		t.Fatalf("durable %d: %v", shown, err)
	}
	if err := n.s.engine.WaitDispatchedPos(ctx, end); err != nil {
		t.Fatalf("dispatched to %d, committed to %d, visible to %d of %d: %v", n.s.engine.Dispatched(), end, n.s.engine.Visible(), n.s.engine.Appended(), err)
	}
	if v := n.s.engine.Visible(); v != end {
		t.Fatalf("visible to %d, entry %d ends at %d", v, shown, end)
	}
	counts := map[engine.QueueName]int64{}
	for _, e := range m.log[:shown] {
		for q, k := range e.messages {
			counts[q] += k
		}
	}
	for q, want := range counts {
		if _, high, _ := n.s.engine.QueueRange(q.Topic, q.ID); high != want {
			t.Fatalf("%v has %d messages, want %d", q, high, want)
		}
	}
}

// TestModel proves, over random sequences of what a library and crashes do to a leader and its follower,
// in both flush modes, that their logs are the list of entries that the model has: entries of all types in
// calls of any size, tails that are cut, commits, stops, kills and power cuts. Nothing durable is lost,
// frames are the same bytes on both, queues have what is committed and nothing else, acks come with it.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flush := rapid.SampledFrom([]engine.FlushMode{engine.AsyncFlush, engine.SyncFlush}).Draw(t, "flush")
		m := &modelLog{term: 1, acked: map[uint64]error{}}
		for i := range m.nodes {
			o := small(nil, flush)
			o.Engine.Retention.Disabled = true
			o.Engine.TailCache = rapid.SampledFrom([]int64{1, 32 << 10}).Draw(t, "tail cache")
			m.nodes[i] = &modelNode{fs: vfs.NewHeap(), o: o}
			m.nodes[i].open(t)
		}
		t.Cleanup(func() {
			for _, n := range m.nodes {
				_ = n.s.Close() // of a run that has failed
			}
		})
		actions := map[string]func(*rapid.T){
			"lead": m.lead, "lead again": m.lead, "feed": m.feed, "feed again": m.feed, "cut": m.cut, "agree": m.agree,
			"agree again": m.agree, "crash": m.crash,
			"": m.check,
		}
		t.Repeat(actions)
		for _, n := range m.nodes {
			n.close(t)
		}
	})
}
