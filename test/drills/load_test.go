//go:build drills

package drills

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// outcome is what a producer knows of a message that it wrote to a connection.
type outcome uint8

const (
	unknown outcome = iota // no answer yet, or none that says
	acked
	refused // not stored
)

// write is one message on one connection. A retry is another write of the same message.
type write struct {
	message int64
	epoch   int32 // number of the connection
	queue   int32
	outcome outcome
	seen    uint8 // how often the audit found it
	offset  int64 // that the broker answered
}

// The body of a write names it: worker, epoch, number of the write, message; then filling and a checksum.
func appendBody(dst []byte, size int, worker, epoch int32, n, message int64) []byte {
	begin := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(worker))
	dst = binary.BigEndian.AppendUint32(dst, uint32(epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	dst = binary.BigEndian.AppendUint64(dst, uint64(message))
	for len(dst)-begin < size-4 {
		dst = append(dst, byte(len(dst)*7+int(n)))
	}
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[begin:]))
}

// loadOptions say how a load is made.
type loadOptions struct {
	topic, addr     string
	queues          int
	workers, window int  // connections, requests in flight on each
	bodyBytes       int  // at least 28
	retry           bool // odd workers write again what had no answer

	addrs    []string      // whom to try in turn when one does not take messages; none: addr alone
	pace     time.Duration // least time between sends of a connection
	patience time.Duration // for an answer; 0: 10 s
}

// load sends to one broker from connections of its own, as fast as answers come, and keeps book. A worker
// whose connection is lost makes another one.
type load struct {
	o       loadOptions
	client  *remoting.Client
	workers []*worker
	group   *run.Group
	stop    context.CancelFunc

	mark, first atomic.Int64 // ns: the time of a fault; of the first ack of a send begun after it, 0: none yet
}

// fault remembers that something goes wrong now.
func (l *load) fault() {
	l.first.Store(0)
	l.mark.Store(time.Now().UnixNano())
}

// resumed is how long after the fault the first message sent behind it was acknowledged, and whether it was.
func (l *load) resumed() (time.Duration, bool) {
	first := l.first.Load()
	return time.Duration(first - l.mark.Load()), first != 0
}

type worker struct {
	l  *load
	id int32

	mu      sync.Mutex
	writes  []write
	unsent  []int64 // messages that no connection took
	again   []int64 // messages to be written again
	retries int
	trouble map[string]int  // answers that were none
	took    []time.Duration // by answer, only when timed

	next  int64 // message
	epoch int32
	acks  atomic.Int64
	conns atomic.Int64
	timed atomic.Bool

	turn  int         // of addrs
	hint  string      // who leads, by the last answer
	moved atomic.Bool // the connection leads to one who does not take messages
}

func newLoad(t testing.TB, o loadOptions) *load {
	t.Helper()
	l := &load{o: o}
	var err error
	l.client, err = remoting.NewClient(context.WithoutCancel(t.Context()), remoting.ClientOptions{Name: "load", DialTimeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.client.Close()) })
	for i := range o.workers {
		l.workers = append(l.workers, &worker{l: l, id: int32(i)})
	}
	return l
}

// start begins, or goes on, to send.
func (l *load) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l.stop = cancel
	l.group = run.New(context.WithoutCancel(t.Context()), "load")
	for _, w := range l.workers {
		l.group.Go("worker", func(context.Context) error { w.run(ctx); return nil })
	}
}

// end stops sending, and returns when everything that was sent has been answered or is lost.
func (l *load) end(t testing.TB) {
	t.Helper()
	l.stop()
	require.NoError(t, l.group.Wait())
}

// total is how many messages were acknowledged.
func (l *load) total() (n int64) {
	for _, w := range l.workers {
		n += w.acks.Load()
	}
	return n
}

// ends are the offsets behind the last acknowledged message, by queue.
func (l *load) ends() []int64 {
	ends := make([]int64, l.o.queues)
	for _, w := range l.workers {
		w.mu.Lock()
		for i := range w.writes {
			if wr := &w.writes[i]; wr.outcome == acked {
				ends[wr.queue] = max(ends[wr.queue], wr.offset+1)
			}
		}
		w.mu.Unlock()
	}
	return ends
}

// awaitAcks waits until every worker has had so many more messages acknowledged.
func (l *load) awaitAcks(t testing.TB, more int64) {
	t.Helper()
	var from []int64
	for _, w := range l.workers {
		from = append(from, w.acks.Load())
	}
	eventually(t, 30*time.Second, "every producer goes on", func() bool {
		for i, w := range l.workers {
			if w.acks.Load() < from[i]+more {
				return false
			}
		}
		return true
	})
}

// run sends over one connection after the other.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := w.l.client.Dial(ctx, w.target())
		if err != nil {
			w.turn++
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		w.epoch++
		w.conns.Add(1)
		w.session(ctx, conn)
		_ = conn.Close() // it may be closed
		if w.moved.Swap(false) {
			w.turn++
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
}

// target is whom to send to next.
func (w *worker) target() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if hint := w.hint; hint != "" {
		w.hint = ""
		return hint
	}
	if len(w.l.o.addrs) == 0 {
		return w.l.o.addr
	}
	return w.l.o.addrs[w.turn%len(w.l.o.addrs)]
}

// slot is one request in flight.
type slot struct {
	call  remoting.Call
	n     int64 // of the write
	began time.Time
}

// session sends over conn until it breaks or ctx ends, and waits for all answers.
func (w *worker) session(ctx context.Context, conn *remoting.Conn) {
	free := make(chan *slot, w.l.o.window)
	for range w.l.o.window {
		free <- &slot{}
	}
	out := 0
	for ctx.Err() == nil {
		var s *slot
		select {
		case s = <-free:
		case <-ctx.Done():
			continue
		}
		if w.moved.Load() {
			out = 1
			_ = conn.Close() // what is under way there is of unknown outcome
			break
		}
		if w.l.o.pace > 0 {
			time.Sleep(w.l.o.pace) // the load, not a wait for anything
		}
		if !w.send(conn, s, free) {
			out = 1
			break
		}
	}
	for ; out < w.l.o.window; out++ {
		<-free
	}
}

// send writes the next message and says whether that was possible.
func (w *worker) send(conn *remoting.Conn, s *slot, free chan *slot) bool {
	o := &w.l.o
	w.mu.Lock()
	m := w.next
	switch {
	case len(w.unsent) > 0:
		m, w.unsent = w.unsent[0], w.unsent[1:]
	case len(w.again) > 0:
		m, w.again = w.again[0], w.again[1:]
		w.retries++
	default:
		w.next++
	}
	s.n = int64(len(w.writes))
	w.writes = append(w.writes, write{message: m, epoch: w.epoch, queue: int32(m) % int32(o.queues), offset: -1})
	w.mu.Unlock()
	s.began = time.Now()
	s.call = remoting.Call{
		Build: func(dst []byte, opaque int32) []byte {
			h := protocol.SendHeader{
				ProducerGroup: []byte("drill"), Topic: []byte(o.topic), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4,
				QueueID: int32(m) % int32(o.queues), BornMillis: s.began.UnixMilli(), Properties: []byte("TAGS\x01drill\x02"),
			}
			dst = protocol.AppendSendRequest(dst, protocol.RequestSendMessageV2, opaque, 0, protocol.JSON, &h, o.bodyBytes)
			return appendBody(dst, o.bodyBytes, w.id, w.epoch, s.n, m)
		},
		Timeout: cmp.Or(o.patience, 10*time.Second),
		Done:    func(c *remoting.Call) { w.answered(c, s); free <- s },
	}
	if err := conn.Start(&s.call); err != nil {
		w.mu.Lock()
		w.writes[s.n].outcome = refused // nothing was sent
		w.unsent = append(w.unsent, m)
		w.mu.Unlock()
		return false
	}
	return true
}

func (w *worker) answered(c *remoting.Call, s *slot) {
	took := time.Since(s.began)
	w.mu.Lock()
	defer w.mu.Unlock()
	wr := &w.writes[s.n]
	switch {
	case c.Err != nil:
		w.count(c.Err.Error())
		w.moved.Store(len(w.l.o.addrs) > 0)
		if w.l.o.retry && w.id%2 == 1 {
			w.again = append(w.again, wr.message)
		}
	case c.Response.Code == int32(protocol.ResponseSuccess):
		var h protocol.SendResponse
		if err := protocol.ParseSendResponse(c.Response, &h); err != nil {
			panic(err)
		}
		wr.outcome, wr.offset = acked, h.QueueOffset
		w.acks.Add(1)
		if mark := w.l.mark.Load(); mark != 0 && s.began.UnixNano() > mark {
			w.l.first.CompareAndSwap(0, time.Now().UnixNano())
		}
		if w.timed.Load() {
			w.took = append(w.took, took)
		}
	case !bytes.HasPrefix(c.Response.Remark, []byte("[UNKNOWN_OUTCOME]")):
		wr.outcome = refused
		w.count(fmt.Sprintf("%d %s", c.Response.Code, c.Response.Remark))
		w.refused(c.Response)
	default:
		w.count(fmt.Sprintf("%d %s", c.Response.Code, c.Response.Remark))
	}
}

// refused follows the hint of a node that does not lead. Called with mu held.
func (w *worker) refused(resp *protocol.Command) {
	code := protocol.ResponseCode(resp.Code)
	if len(w.l.o.addrs) == 0 || code != protocol.ResponseServiceNotAvailable && code != protocol.ResponseNoPermission {
		return
	}
	w.moved.Store(true)
	if hint, ok := resp.Get("leaderAddr"); ok {
		w.hint = string(hint)
	}
}

// count remembers what went wrong how often. Called with mu held.
func (w *worker) count(what string) {
	if w.trouble == nil {
		w.trouble = map[string]int{}
	}
	w.trouble[what]++
}

// trouble is what went wrong, how often, in all.
func (l *load) trouble() map[string]int {
	all := map[string]int{}
	for _, w := range l.workers {
		w.mu.Lock()
		for what, n := range w.trouble {
			all[what] += n
		}
		w.mu.Unlock()
	}
	return all
}
