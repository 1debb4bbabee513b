package raftlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/replication"
)

// queueOp is one call of a client on one queue: an append of a value, or the read of an offset.
type queueOp struct {
	queue  int32
	read   bool
	value  string
	offset int64
}

// queueResult: of an append where it went, of a read what stands there, "" behind the end. An append
// whose outcome is unknown may be anywhere, or nowhere.
type queueResult struct {
	offset  int64
	value   string
	unknown bool
}

// queueModel is a queue that grows at its end.
var queueModel = porcupine.NondeterministicModel{
	Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
		by := map[int32][]porcupine.Operation{}
		for _, o := range h {
			q := o.Input.(queueOp).queue
			by[q] = append(by[q], o)
		}
		var all [][]porcupine.Operation
		for _, hs := range by {
			all = append(all, hs)
		}
		return all
	},
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(string), input.(queueOp), output.(queueResult)
		n := int64(strings.Count(s, ","))
		appended := s + in.value + ","
		switch {
		case in.read:
			got := ""
			if in.offset < n {
				got = strings.Split(s, ",")[in.offset]
			}
			if got != out.value {
				return nil
			}
			return []any{s}
		case out.unknown:
			return []any{s, appended}
		case out.offset != n:
			return nil
		}
		return []any{appended}
	},
	Equal:             func(a, b any) bool { return a.(string) == b.(string) },
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// history is what clients have seen.
type history struct {
	mu    sync.Mutex
	began time.Time
	ops   []porcupine.Operation
	acks  map[int32]map[int64]string // queue, offset
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(client int, call int64, in queueOp, out queueResult) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now()
	if out.unknown {
		end = 1 << 60 // it may still come
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
	if !in.read && !out.unknown {
		if h.acks[in.queue] == nil {
			h.acks[in.queue] = map[int64]string{}
		}
		h.acks[in.queue][out.offset] = in.value
	}
}

// client appends to random queues through whatever node says that it leads.
func (c *cluster) client(ctx context.Context, h *history, id int, seed uint64, queues int32) error {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	for k := 0; ctx.Err() == nil; k++ {
		n := c.node(c.ids[rng.IntN(len(c.ids))])
		if n == nil || n.Status().Role != replication.Leader {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
			continue
		}
		in := queueOp{queue: rng.Int32N(queues), value: fmt.Sprintf("c%d-%d", id, k)}
		call := h.now()
		wait, cancel := context.WithTimeout(ctx, time.Second)
		res, err := n.Append(wait, record("t", in.queue, []byte(in.value)))
		cancel()
		var out queueResult
		switch {
		case err == nil:
			out.offset = res.QueueOffset
		case errors.Is(err, replication.ErrNotLeader), errors.Is(err, engine.ErrBusy), errors.Is(err, engine.ErrClosed):
			continue // nothing was stored
		default:
			out.unknown = true
		}
		h.add(id, call, in, out)
	}
	return nil
}

// bodies reads a queue from its start to its end.
func (c *cluster) bodies(n *Node, queue int32) []string {
	c.tb.Helper()
	var all []string
	if _, _, ok := n.QueueRange("t", queue); !ok {
		return nil
	}
	for high := c.high(n, "t", queue); int64(len(all)) < high; {
		entries, err := n.Entries("t", queue, int64(len(all)), 1024)
		require.NoError(c.tb, err)
		for _, e := range entries {
			r, err := n.Lookup(e.Offset)
			require.NoError(c.tb, err)
			var rec message.Record
			require.NoError(c.tb, message.ParseRecord(r.AppendTo(nil), &rec))
			require.EqualValues(c.tb, len(all), rec.QueueOffset)
			all = append(all, string(rec.Body))
			r.Release()
		}
	}
	return all
}

// Proves, over a random schedule of partitions, kills, power cuts, hanging disks and hand-overs, that what
// was acked stands at its offset on every node in the end, that what was not sent does not, that histories
// of each queue are linearizable, and that committed logs agree. RAFT_CHAOS_SEEDS runs many, RAFT_CHAOS_SEED
// one.
func TestChaos(t *testing.T) {
	seeds := 1
	if s := os.Getenv("RAFT_CHAOS_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		seeds = n
	}
	first := rand.Uint64()
	if s := os.Getenv("RAFT_CHAOS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		first, seeds = n, 1
	}
	for i := range seeds {
		for _, flush := range []engine.FlushMode{engine.SyncFlush, engine.AsyncFlush} {
			seed := first + uint64(i)
			t.Run(fmt.Sprintf("%v/%d", flush, seed), func(t *testing.T) { chaos(t, flush, seed) })
		}
	}
}

func chaos(t *testing.T, flush engine.FlushMode, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 99))
	c := newCluster(t, flush, 3)
	c.adapt = func(id string, o *Options) {
		quick(id, o)
		o.HeartbeatTimeout = 100 * time.Millisecond
		o.Engine.SegmentBytes, o.Engine.MaxMessageBytes = 64<<10, 4<<10
		o.Fatal = func(err error) { t.Errorf("%s: %v", id, err) }
	}
	c.startAll()
	c.send("warm", 0, "up")
	h := &history{began: time.Now(), acks: map[int32]map[int64]string{}}
	clients := run.New(t.Context(), "clients")
	const queues = 4
	for i := range 4 {
		clients.Go("client", func(ctx context.Context) error { return c.client(ctx, h, i, seed, queues) })
	}
	for range 8 {
		c.trouble(rng, flush)
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
	}
	clients.Cancel()
	require.NoError(t, clients.Wait())
	for _, id := range c.ids {
		c.isolate(id, false)
		c.fault[id].Clear()
		if c.node(id) == nil {
			c.start(id)
		}
	}
	c.send("warm", 0, "down")
	c.caughtUp()
	c.same()
	for q := range int32(queues) {
		want := c.bodies(c.leader(), q)
		for offset, value := range h.acks[q] {
			require.Less(t, offset, int64(len(want)), "acked %s is gone", value)
			require.Equal(t, value, want[offset])
		}
		seen := map[string]bool{}
		for _, v := range want {
			require.False(t, seen[v], "%s is there twice", v)
			seen[v] = true
		}
		for _, f := range c.followers() {
			require.Equal(t, want, c.bodies(f, q))
		}
		for i, v := range want {
			at := h.now()
			h.add(9, at, queueOp{queue: q, read: true, offset: int64(i)}, queueResult{value: v})
		}
	}
	res := porcupine.CheckOperationsTimeout(queueModel.ToModel(), h.ops, patience)
	t.Logf("%d operations: %v", len(h.ops), res)
	require.NotEqual(t, porcupine.Illegal, res)
}

// trouble makes one fault, and takes most of it back after a while.
func (c *cluster) trouble(rng *rand.Rand, flush engine.FlushMode) {
	id := c.ids[rng.IntN(len(c.ids))]
	n := c.node(id)
	if n == nil {
		c.start(id)
		return
	}
	pause := func() { time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond) }
	switch rng.IntN(6) {
	case 0: // cut off
		c.isolate(id, true)
		pause()
		c.isolate(id, false)
	case 1: // one way
		other := c.ids[rng.IntN(len(c.ids))]
		c.sever(id, other, true)
		pause()
		c.sever(id, other, false)
	case 2: // kill -9
		c.kill(id, false, 0)
		pause()
		c.start(id)
	case 3: // power
		if flush == engine.SyncFlush {
			c.kill(id, true, rng.Uint64())
			pause()
			c.start(id)
		}
	case 4: // the disk hangs
		g := vfs.NewGate()
		stallLog(c.fault[id], g)
		pause()
		g.Open()
		c.fault[id].Clear()
	case 5:
		if n.Status().Role == replication.Leader {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = n.Handover(ctx) // or not: others may be down
			cancel()
		}
	}
}
