//go:build drills

package drills

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/fnv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// audit holds what a broker has against the books of a load.
type audit struct {
	l      *load
	broker string
	next   []int64          // by queue: where to go on reading
	sums   []hash.Hash64    // by queue: of all that was read
	last   map[stream]int64 // the last write found
	judged []int            // by worker: writes that were judged
	copies map[[2]int64]int
	found  verdict
}

// stream is what stays in order: what one connection writes to one queue.
type stream struct {
	worker, epoch, queue int32
}

// verdict counts what an audit found.
type verdict struct {
	Acked, Unknown, UnknownStored, Refused, Copies int
}

func newAudit(l *load, broker string) *audit {
	return &audit{
		l: l, broker: broker, next: make([]int64, l.o.queues), sums: newSums(l.o.queues), last: map[stream]int64{},
		judged: make([]int, len(l.workers)), copies: map[[2]int64]int{},
	}
}

func newSums(n int) (sums []hash.Hash64) {
	for range n {
		sums = append(sums, fnv.New64a())
	}
	return sums
}

// readQueue reads a queue from an offset to its end, which it returns and which comes to least soon: what
// is acknowledged is in the log, and then in its queue.
func readQueue(t testing.TB, cl *client.Client, q client.MessageQueue, from, least int64, each func(m *client.MessageExt)) int64 {
	t.Helper()
	var end int64
	eventually(t, 30*time.Second, fmt.Sprintf("%v reaches to %d, as was acknowledged", q, least), func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var err error
		end, err = cl.MaxOffset(ctx, q)
		return err == nil && end >= least
	})
	for from < end {
		res, err := cl.Pull(t.Context(), q, from, 2048, client.Tags(), 0)
		require.NoError(t, err, "%v at %d", q, from)
		if res.Status == client.PullNoMatch && res.Next == from {
			continue // the broker is busy with those who do not read
		}
		require.Equal(t, client.PullFound, res.Status, "%v at %d: next %d, min %d, max %d, the end was %d", q, from, res.Next, res.Min, res.Max, end)
		for _, m := range res.Messages {
			require.Equal(t, from, m.QueueOffset, "%v", q)
			require.NoError(t, m.BodyErr)
			each(m)
			from++
		}
		require.Equal(t, from, res.Next, "%v", q)
	}
	return from
}

// round reads what is new since the round before and judges it: every acknowledged write is there, where
// the broker said; nothing is there twice, or was never sent or was refused; what one connection wrote to
// a queue is in order. The load must have ended.
func (a *audit) round(t testing.TB, cl *client.Client) {
	t.Helper()
	ends := a.l.ends()
	for id := range a.next {
		q := client.MessageQueue{Topic: a.l.o.topic, BrokerName: a.broker, QueueID: int32(id)}
		a.next[id] = readQueue(t, cl, q, a.next[id], ends[id], func(m *client.MessageExt) { a.see(t, m) })
	}
	for i, w := range a.l.workers {
		w.mu.Lock()
		for n := a.judged[i]; n < len(w.writes); n++ {
			wr := &w.writes[n]
			switch wr.outcome {
			case acked:
				a.found.Acked++
				require.Equal(t, uint8(1), wr.seen, "ACKED LOST: write %d of worker %d, queue %d, offset %d, connection %d", n, i, wr.queue, wr.offset, wr.epoch)
			case unknown:
				a.found.Unknown++
				a.found.UnknownStored += int(wr.seen)
			case refused:
				a.found.Refused++
				require.Zero(t, wr.seen, "refused but stored: write %d of worker %d", n, i)
			}
		}
		a.judged[i] = len(w.writes)
		if !a.l.o.retry || w.id%2 == 0 {
			require.Zero(t, w.retries)
		}
		w.mu.Unlock()
	}
	retries := 0
	for _, w := range a.l.workers {
		retries += w.retries
	}
	require.LessOrEqual(t, a.found.Copies, retries, "messages are there twice that nobody sent twice")
}

// see judges one stored message.
func (a *audit) see(t testing.TB, m *client.MessageExt) {
	b := m.Body
	require.Len(t, b, a.l.o.bodyBytes)
	sum := binary.BigEndian.Uint32(b[len(b)-4:])
	require.Equal(t, crc32.ChecksumIEEE(b[:len(b)-4]), sum, "body at %d of queue %d", m.QueueOffset, m.Queue.QueueID)
	_, _ = a.sums[m.Queue.QueueID].Write(b) // never fails
	s := stream{int32(binary.BigEndian.Uint32(b)), int32(binary.BigEndian.Uint32(b[4:])), m.Queue.QueueID}
	n, message := int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint64(b[16:]))
	require.Less(t, int(s.worker), len(a.l.workers))
	w := a.l.workers[s.worker]
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Less(t, n, int64(len(w.writes)), "a message that nobody sent")
	wr := &w.writes[n]
	require.Equal(t, write{message: message, epoch: s.epoch, queue: s.queue}, write{message: wr.message, epoch: wr.epoch, queue: wr.queue})
	require.Zero(t, wr.seen, "write %d of worker %d is there twice", n, s.worker)
	wr.seen++
	if wr.outcome == acked {
		require.Equal(t, wr.offset, m.QueueOffset, "where write %d of worker %d is, which was acked at offset %d", n, s.worker, wr.offset)
	}
	last, ok := a.last[s]
	require.True(t, !ok || last < n, "queue %d, connection %d of worker %d: write %d stands behind %d", s.queue, s.epoch, s.worker, n, last)
	a.last[s] = n
	if w.retries > 0 {
		key := [2]int64{int64(s.worker), message}
		if a.copies[key]++; a.copies[key] > 1 {
			a.found.Copies++
		}
	}
}

// again reads everything from the beginning: it has not changed since it was judged.
func (a *audit) again(t testing.TB, cl *client.Client) {
	t.Helper()
	sums := newSums(len(a.next))
	for id := range a.next {
		q := client.MessageQueue{Topic: a.l.o.topic, BrokerName: a.broker, QueueID: int32(id)}
		end := readQueue(t, cl, q, 0, a.next[id], func(m *client.MessageExt) { _, _ = sums[id].Write(m.Body) })
		require.Equal(t, a.next[id], end)
		require.Equal(t, a.sums[id].Sum64(), sums[id].Sum64(), "queue %d reads differently now", id)
	}
}
