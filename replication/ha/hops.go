package ha

import (
	"sync/atomic"
	"time"

	"rmq/replication"
)

// hopTimes adds up where appends spend their time.
type hopTimes struct {
	began                                   time.Time
	append, send, remote, remoteFlush, acks hop
}

type hop struct{ count, nanos atomic.Int64 }

func (h *hop) add(nanos int64) {
	h.count.Add(1)
	h.nanos.Add(nanos)
}

func (h *hop) load() replication.Hop {
	return replication.Hop{Count: h.count.Load(), Nanos: h.nanos.Load()}
}

// now is nanoseconds since the node was opened.
func (t *hopTimes) now() int64 { return int64(time.Since(t.began)) }

// ack notes that a group is acked whose last condition came true at since.
func (t *hopTimes) ack(since int64) { t.acks.add(t.now() - since) }

// sentRing remembers when the newest frames of a connection went out, so that acks can be timed. A
// ring that is full forgets the oldest. Two goroutines: one adds, one looks.
type sentRing struct {
	ends, at [256]atomic.Int64
	added    atomic.Int64
	written  int64 // frames whose writing was confirmed
	durable  int64
	times    [256]int64 // when it was, of those
}

func (r *sentRing) add(end, now int64) {
	n := r.added.Load()
	i := n % int64(len(r.ends))
	r.ends[i].Store(end)
	r.at[i].Store(now)
	r.added.Store(n + 1)
}

// acked times the frames that written and durable have passed.
func (r *sentRing) acked(t *hopTimes, written, durable int64) {
	n, size := r.added.Load(), int64(len(r.ends))
	now := t.now()
	r.written = max(r.written, n-size)
	for ; r.written < n && r.ends[r.written%size].Load() <= written; r.written++ {
		t.remote.add(now - r.at[r.written%size].Load())
		r.times[r.written%size] = now
	}
	r.durable = max(r.durable, n-size)
	for ; r.durable < r.written && r.ends[r.durable%size].Load() <= durable; r.durable++ {
		t.remoteFlush.add(now - r.times[r.durable%size])
	}
}
