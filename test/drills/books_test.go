//go:build drills

package drills

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/test/robust"
)

// stored is one message as a node gave it out.
type stored struct {
	worker, epoch int32
	n, message    int64
	bytes         int32 // of the record
	corrupt       bool
}

// fetched is a part of a queue.
type fetched struct {
	code      protocol.ResponseCode
	remark    string
	next, max int64
	from      int64 // offset of the first message
	messages  []stored
}

// fetch asks one node for messages of a queue; an error is of the connection.
func fetch(ctx context.Context, conn *remoting.Conn, topic string, queue int32, from int64) (*fetched, error) {
	type result struct {
		f   *fetched
		err error
	}
	got := make(chan result, 1)
	call := &remoting.Call{
		Timeout: 5 * time.Second,
		Build: func(dst []byte, opaque int32) []byte {
			return protocol.AppendPullRequest(dst, protocol.RequestPullMessage, opaque, protocol.JSON, &protocol.PullHeader{
				ConsumerGroup: []byte("TOOLS_CONSUMER"), Topic: []byte(topic), QueueID: queue, QueueOffset: from, MaxMsgNums: 1024,
				SysFlag:      4, // a subscription comes along
				Subscription: []byte("*"), ExpressionType: []byte("TAG"),
			})
		},
		Done: func(c *remoting.Call) {
			if c.Err != nil {
				got <- result{err: c.Err}
				return
			}
			f, err := parseFetched(c.Response)
			got <- result{f, err}
		},
	}
	if err := conn.Start(call); err != nil {
		return nil, err
	}
	select {
	case r := <-got:
		return r.f, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func parseFetched(resp *protocol.Command) (*fetched, error) {
	f := &fetched{code: protocol.ResponseCode(resp.Code), remark: string(resp.Remark)}
	var h protocol.PullResponse
	switch f.code {
	case protocol.ResponseSuccess, protocol.ResponsePullNotFound, protocol.ResponsePullRetryImmediately, protocol.ResponsePullOffsetMoved:
		if err := protocol.ParsePullResponse(resp, &h); err != nil {
			return nil, err
		}
	}
	f.next, f.max = h.NextBeginOffset, h.MaxOffset
	f.from = -1
	for b := resp.Body; len(b) > 0; {
		var r message.Record
		if err := message.ParseRecord(b, &r); err != nil {
			return nil, fmt.Errorf("a record of a pull: %w", err)
		}
		if f.from < 0 {
			f.from = r.QueueOffset
		}
		if want := f.from + int64(len(f.messages)); r.QueueOffset != want {
			return nil, fmt.Errorf("a pull gave offset %d behind %d", r.QueueOffset, want-1)
		}
		f.messages = append(f.messages, identify(&r))
		b = b[r.Size:]
	}
	return f, nil
}

// identify reads what a body says of itself.
func identify(r *message.Record) stored {
	b := r.Body
	s := stored{bytes: r.Size, corrupt: true}
	if len(b) < 28 || crc32.ChecksumIEEE(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return s
	}
	s.corrupt = false
	s.worker, s.epoch = int32(binary.BigEndian.Uint32(b)), int32(binary.BigEndian.Uint32(b[4:]))
	s.n, s.message = int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint64(b[16:]))
	return s
}

// same says whether two are one message.
func (s *stored) same(o *stored) bool {
	return s.worker == o.worker && s.n == o.n && s.epoch == o.epoch && s.corrupt == o.corrupt
}

// unreadable is a place of a queue that a node refuses to give out.
type unreadable struct {
	queue  int32
	offset int64
	why    string
}

// holding is all that a node gives out of a topic: by queue, from offset 0 on. A gap is where it refused.
type holding struct {
	queues [][]*stored
	gaps   []unreadable
}

// readNode reads all queues of a topic from one node. It waits until each reaches to least, if given, for a
// bounded time. What is refused with an error is a gap.
func readNode(t testing.TB, cl *remoting.Client, addr, topic string, queues int, least []int64) *holding {
	t.Helper()
	h := &holding{queues: make([][]*stored, queues)}
	patience := time.Now().Add(10 * time.Second)
	for id := range queues {
		for from := int64(0); ; {
			f := fetchFrom(t, cl, addr, topic, int32(id), from)
			if len(f.messages) > 0 {
				require.Equal(t, from, f.from, "queue %d of %s", id, addr)
			}
			for i := range f.messages {
				h.queues[id] = append(h.queues[id], &f.messages[i])
				from++
			}
			switch {
			case len(f.messages) > 0 || f.code == protocol.ResponsePullRetryImmediately && f.next <= from && from < f.max:
			case f.code == protocol.ResponsePullNotFound || f.code == protocol.ResponsePullOffsetMoved || f.code == protocol.ResponsePullRetryImmediately:
				if from >= f.max && (least == nil || from >= least[id] || time.Now().After(patience)) {
					goto next
				}
				if time.Now().After(patience) {
					h.gap(int32(id), &from, fmt.Sprintf("%d %s, to %d of %d", f.code, f.remark, f.next, f.max))
					continue
				}
				time.Sleep(5 * time.Millisecond) // what is acknowledged is on its way into its queue
			default:
				h.gap(int32(id), &from, fmt.Sprintf("%d %s", f.code, f.remark))
			}
			if len(h.gaps) > 2000 {
				goto next
			}
		}
	next:
	}
	return h
}

func (h *holding) gap(queue int32, from *int64, why string) {
	h.gaps = append(h.gaps, unreadable{queue, *from, why})
	h.queues[queue] = append(h.queues[queue], nil)
	*from++
}

// fetchFrom fetches, on a new connection when one breaks.
func fetchFrom(t testing.TB, cl *remoting.Client, addr, topic string, queue int32, from int64) *fetched {
	t.Helper()
	var last error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		conn, err := cl.Conn(t.Context(), addr)
		if err == nil {
			var f *fetched
			if f, err = fetch(t.Context(), conn, topic, queue, from); err == nil {
				return f
			}
		}
		last = err
	}
	t.Fatalf("read queue %d from %d of %s: %v", queue, from, addr, last)
	return nil
}

// writeID is a write of a worker.
type writeID struct {
	worker int32
	n      int
}

// judgement holds what a node has against the books of a load.
type judgement struct {
	lost      []writeID // acknowledged, not there
	lostBytes int64
	hole      bool // something newer than what was lost is there, in the same queue
}

// judge adds to run what is wrong with a holding. The load must have ended. Writes in pardoned were lost
// before, and that was allowed.
func judge(l *load, h *holding, run *robust.Run, pardoned map[writeID]bool) *judgement {
	j := &judgement{}
	copies, perMessage := int64(0), map[[2]int64]int{}
	last := map[stream]int64{}
	size := int64(0)
	for _, w := range l.workers {
		for i := range w.writes {
			w.writes[i].seen = 0
		}
	}
	for queue, list := range h.queues {
		for offset, s := range list {
			switch {
			case s == nil:
				continue
			case s.corrupt:
				run.Corrupt++
				continue
			case int(s.worker) >= len(l.workers) || s.n >= int64(len(l.workers[s.worker].writes)):
				run.Phantom++
				continue
			}
			size = int64(s.bytes)
			wr := &l.workers[s.worker].writes[s.n]
			if wr.epoch != s.epoch || wr.message != s.message || wr.queue != int32(queue) || wr.outcome == refused {
				run.Phantom++
			}
			if wr.seen++; wr.seen > 1 {
				run.Duplicate++
			}
			if wr.outcome == acked && wr.offset != int64(offset) {
				run.Reordered++
			}
			key := stream{s.worker, s.epoch, int32(queue)}
			if before, ok := last[key]; ok && before >= s.n {
				run.Reordered++
			}
			last[key] = s.n
			message := [2]int64{int64(s.worker), s.message}
			if perMessage[message]++; perMessage[message] > 1 {
				copies++
			}
		}
	}
	retries := int64(0)
	for _, w := range l.workers {
		retries += int64(w.retries)
		for i := range w.writes {
			wr := &w.writes[i]
			id := writeID{w.id, i}
			if wr.outcome != acked || wr.seen > 0 || pardoned[id] {
				continue
			}
			if int(wr.offset) < len(h.queues[wr.queue]) {
				if h.queues[wr.queue][wr.offset] == nil {
					continue // a gap: it is refused, not lost
				}
				j.hole = true
			}
			j.lost = append(j.lost, id)
		}
	}
	if copies > retries {
		run.Duplicate += copies - retries
	}
	j.lostBytes = int64(len(j.lost)) * size
	return j
}

// tally counts what a load knows itself.
func tally(l *load, run *robust.Run) {
	run.Sent, run.Acked, run.Failed, run.Indeterminate = 0, 0, 0, 0
	for _, w := range l.workers {
		w.mu.Lock()
		for i := range w.writes {
			run.Sent++
			switch w.writes[i].outcome {
			case acked:
				run.Acked++
			case refused:
				run.Failed++
			default:
				run.Indeterminate++
			}
		}
		w.mu.Unlock()
	}
}

// reader consumes while faults fall: what it has seen must stay.
type reader struct {
	client *remoting.Client
	topic  string
	addrs  []string

	mu   sync.Mutex
	seen []map[int64]stored // by queue and offset

	group *run.Group
	stop  context.CancelFunc
}

func newReader(cl *remoting.Client, topic string, queues int, addrs []string) *reader {
	r := &reader{client: cl, topic: topic, addrs: addrs}
	for range queues {
		r.seen = append(r.seen, map[int64]stored{})
	}
	return r
}

// start reads from one node after the other, each queue where it has got to there.
func (r *reader) start(t testing.TB) {
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	r.group = run.New(context.WithoutCancel(t.Context()), "reader")
	for _, addr := range r.addrs {
		r.group.Go(addr, func(context.Context) error { r.follow(ctx, addr); return nil })
	}
}

func (r *reader) end(t testing.TB) {
	r.stop()
	require.NoError(t, r.group.Wait())
}

func (r *reader) follow(ctx context.Context, addr string) {
	next := make([]int64, len(r.seen))
	for ctx.Err() == nil {
		for id := range next {
			conn, err := r.client.Conn(ctx, addr)
			if err != nil {
				break
			}
			f, err := fetch(ctx, conn, r.topic, int32(id), next[id])
			if err != nil {
				break
			}
			if len(f.messages) == 0 && f.max < next[id] {
				next[id] = max(f.max, 0) // it has lost what it had, within what is allowed
			}
			r.mu.Lock()
			for i := range f.messages {
				if _, ok := r.seen[id][f.from+int64(i)]; !ok {
					r.seen[id][f.from+int64(i)] = f.messages[i]
				}
				next[id] = f.from + int64(i) + 1
			}
			r.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // how often it looks
		}
	}
}

// unseen counts what was read and is not there any more, or another message. Offsets in gaps do not count.
func (r *reader) unseen(h *holding) (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, seen := range r.seen {
		for offset, s := range seen {
			switch {
			case offset >= int64(len(h.queues[id])):
				n++
			case h.queues[id][offset] != nil && !h.queues[id][offset].same(&s):
				n++
			}
		}
	}
	return n
}

// forget drops what was seen from certain offsets on: the fault was allowed to take it.
func (r *reader) forget(h *holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, seen := range r.seen {
		for offset, s := range seen {
			if offset >= int64(len(h.queues[id])) || h.queues[id][offset] == nil || !h.queues[id][offset].same(&s) {
				delete(seen, offset)
			}
		}
	}
}

// judged says what one node has wrong against the books of a load that has ended, "" if nothing.
func judged(t testing.TB, l *load, rpc *remoting.Client, n *node) string {
	t.Helper()
	var run robust.Run
	h := readNode(t, rpc, n.addr(), l.o.topic, l.o.queues, l.ends())
	run.Lost = int64(len(judge(l, h, &run, nil).lost))
	for _, g := range h.gaps {
		return fmt.Sprintf("queue %d at %d: %s", g.queue, g.offset, g.why)
	}
	return faults(&run)
}
