package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"rmq/message"
)

const (
	maxVector  = 256                   // messages handed over in one call
	maxSleep   = 50 * time.Microsecond // between looks at the schedule, see nanosleep
	parkCheck  = 20 * time.Millisecond // how long a worker of a closed loop waits without a look at the clock
	drainSleep = 200 * time.Microsecond

	sampledSends = 16
)

// published are the counters of a worker that others may read while it runs.
type published struct {
	_     [64]byte
	due   atomic.Int64
	sent  atomic.Int64
	acked atomic.Int64
	bytes atomic.Int64
	_     [64]byte
}

// worker makes load for a share of the logical producers: message seq = n × workers + id, for n
// from 0. It owns its messages, its recorder and everything else here but pub and the inbox.
type worker struct {
	id, workers int
	clock       *clock
	win         *window
	rec         *recorder
	in          *inbox
	pub         *published
	sender      Sender
	pacer       Pacer // nil in a closed loop
	base        int64 // when the load begins
	minSleep    time.Duration
	grace       int64
	maxBytes    int64 // of this worker; 0: no bound
	warmBytes   int64 // of these, at most so many before measuring
	sleep       func(time.Duration)

	ops      []Op
	free     []*Op
	vector   []*Op
	inFlight int

	n       int64 // next of this worker's messages to send
	seen    int64 // open loop: next of this worker's messages to fall due
	delayed int64 // open loop: those below it have been looked at for delay
	bytes   int64

	choose  *chooser
	topics  []string
	payload *Payload
	body    []byte
	msg     message.Message
	uniq    []byte // the hexadecimal sequence inside msg.Properties
	keyed   []byte // the same inside the KEYS property, if there is one

	ackedSeqs *seqSet // nil when nothing will be read back

	makeNs int64 // spent making and booking messages
	sends  int64 // vectors handed over
	err    error

	// Open loop: CPU time of the locked thread over the measured phase, less what Send took of it,
	// which is measured for one vector in sampledSends: asking costs about a message.
	cpuNs, sendCPU int64
}

var benchHost = netip.MustParseAddrPort("127.0.0.1:10911")

func (w *worker) init(runID uint64) {
	w.free = make([]*Op, 0, len(w.ops))
	w.vector = make([]*Op, 0, maxVector)
	for i := range w.ops {
		o := &w.ops[len(w.ops)-1-i]
		o.owner, o.Slot = w.in, len(w.ops)-1-i
		w.free = append(w.free, o)
	}
	w.body = w.payload.Body()
	w.msg.BornHost, w.msg.StoreHost = benchHost, benchHost
	w.msg.Body = w.body
	w.uniq = w.msg.Properties[indexOfValue(w.msg.Properties, message.PropUniqKey)+16:][:16]
	hex16(w.msg.Properties[indexOfValue(w.msg.Properties, message.PropUniqKey):][:16], runID)
	if at := indexOfValue(w.msg.Properties, message.PropKeys); at >= 0 {
		w.keyed = w.msg.Properties[at:][:16]
	}
}

// properties are what a stock client sends, with room for the sequence.
func properties(tags, keys bool) message.Properties {
	p := message.AppendProperty(message.Properties(nil), message.PropUniqKey, fmt.Sprintf("%032X", 0))
	p = message.AppendProperty(p, message.PropWait, "true")
	if tags {
		p = message.AppendProperty(p, message.PropTags, "TagA")
	}
	if keys {
		p = message.AppendProperty(p, message.PropKeys, fmt.Sprintf("%016X", 0))
	}
	return p
}

// indexOfValue is where the value of a property begins, -1 if there is none.
func indexOfValue(p message.Properties, name string) int {
	at := 0
	for at < len(p) {
		end := at
		for p[end] != 1 {
			end++
		}
		if string(p[at:end]) == name {
			return end + 1
		}
		for p[end] != 2 {
			end++
		}
		at = end + 1
	}
	return -1
}

const hexDigits = "0123456789ABCDEF"

func hex16(dst []byte, v uint64) {
	_ = dst[15]
	for i := 15; i >= 0; i-- {
		dst[i] = hexDigits[v&15]
		v >>= 4
	}
}

// build makes o the next message and puts it into the vector. The time of o is due, if it has one.
func (w *worker) build(o *Op, due, now int64) {
	seq := w.n*int64(w.workers) + int64(w.id)
	w.n++
	o.seq, o.due, o.sent, o.Err, o.busy = seq, due, now, nil, true
	topic, queue := w.choose.pick()
	w.msg.Topic, w.msg.QueueID = w.topics[topic], queue
	w.payload.Fill(w.body, seq, w.clock.mono+due)
	hex16(w.uniq, uint64(seq))
	if w.keyed != nil {
		hex16(w.keyed, uint64(seq))
	}
	n, err := w.sender.Encode(o, &w.msg)
	if err != nil {
		w.err = fmt.Errorf("encode message %d: %w", seq, err)
		o.busy = false
		w.free = append(w.free, o)
		return
	}
	w.bytes += int64(n)
	w.vector = append(w.vector, o)
}

// flush hands the vector over. began is when its making began.
func (w *worker) flush(began int64) {
	if len(w.vector) == 0 {
		return
	}
	made := w.clock.now()
	w.makeNs += made - began
	w.inFlight += len(w.vector)
	if w.pacer != nil && w.sends%sampledSends == 0 {
		cpu := threadCPU()
		w.sender.Send(w.vector)
		w.sendCPU += sampledSends * (threadCPU() - cpu)
	} else {
		w.sender.Send(w.vector)
	}
	w.sends++
	w.vector = w.vector[:0]
	w.pub.sent.Store(w.n)
	w.pub.bytes.Store(w.bytes)
	if w.maxBytes > 0 {
		if w.bytes >= w.maxBytes {
			w.win.stop(w.clock.now(), "the bytes that --max-bytes allows were written")
		} else if w.bytes >= w.warmBytes && made < w.win.t0.Load() {
			w.win.endWarmup(w.clock.now())
		}
	}
}

// drain books everything that has completed.
func (w *worker) drain() int {
	n := 0
	for o := w.in.take(); o != nil; n++ {
		next := o.next
		o.next, o.busy = nil, false
		w.rec.tick(o.acked)
		w.rec.add(o, w.id)
		if o.Err == nil && w.ackedSeqs != nil {
			w.ackedSeqs.add(o.seq)
		}
		w.free = append(w.free, o)
		o = next
	}
	if n > 0 {
		w.inFlight -= n
		w.pub.acked.Add(int64(n))
	}
	return n
}

// runClosed keeps every message in flight until the window ends, then waits for the rest.
func (w *worker) runClosed(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil && w.err == nil {
		began := w.clock.now()
		if began >= w.win.t1.Load() {
			break
		}
		w.drain()
		if len(w.free) == 0 {
			w.rec.tick(w.clock.now())
			w.in.wait(timer, parkCheck)
			continue
		}
		w.msg.BornTimestamp = time.Now().UnixMilli()
		for len(w.free) > 0 && len(w.vector) < maxVector && w.err == nil {
			o := w.free[len(w.free)-1]
			w.free = w.free[:len(w.free)-1]
			w.build(o, began, began)
		}
		w.flush(began)
	}
	w.pub.due.Store(w.n)
	w.finish(ctx, timer)
	return w.result(ctx)
}

// runOpen sends what falls due, whatever has come back, until the window ends; then waits for what
// is due and not acknowledged. It holds its thread, so that sleeps are short and exact.
func (w *worker) runOpen(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread ends with its timer slack
	exactTimers()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	started := int64(-1)
	var cpu0 int64
	for ctx.Err() == nil && w.err == nil {
		now := w.clock.now()
		if started < 0 && now >= w.win.t0.Load() {
			started, cpu0 = now, threadCPU()-w.sendCPU
		}
		t1 := w.win.t1.Load()
		if now >= t1 {
			w.markDue(t1)
			break
		}
		w.markDue(now)
		w.drain()
		w.rec.tick(now)
		if w.sendDue(now) {
			continue // time has passed: look again before sleeping
		}
		if d := time.Duration(min(w.dueAt(w.seen), t1) - w.clock.now()); d > 0 {
			w.sleep(max(d, w.minSleep))
		}
	}
	if started >= 0 {
		w.cpuNs = max(0, threadCPU()-w.sendCPU-cpu0)
	}
	// What is due waits for a free message, as before.
	for limit := w.win.t1.Load() + w.grace; w.n < w.seen && ctx.Err() == nil && w.err == nil && w.clock.now() < limit; {
		if w.drain() == 0 && len(w.free) == 0 {
			w.rec.tick(w.clock.now())
			w.sleep(drainSleep)
			continue
		}
		w.sendDue(w.clock.now())
	}
	w.finish(ctx, timer)
	return w.result(ctx)
}

// dueAt is when this worker's n-th message is due.
func (w *worker) dueAt(n int64) int64 {
	return w.base + int64(w.pacer.IntendedAt(n*int64(w.workers)+int64(w.id)))
}

// markDue notes everything that has fallen due by now, and how late that was noticed.
func (w *worker) markDue(now int64) {
	t0, t1 := w.win.t0.Load(), w.win.t1.Load()
	first := w.seen
	for due := w.dueAt(w.seen); due <= now && due < t1; due = w.dueAt(w.seen) {
		w.seen++
		if due >= t0 {
			w.rec.counts.Due++
			w.rec.put(w.rec.pacing, now-due)
		}
	}
	if w.seen != first {
		w.pub.due.Store(w.seen)
	}
}

// sendDue sends what is due as far as messages are free, at most one vector, and says whether it
// sent any. What must wait is counted once.
func (w *worker) sendDue(now int64) bool {
	if w.n >= w.seen {
		return false
	}
	if len(w.free) > 0 {
		w.msg.BornTimestamp = time.Now().UnixMilli()
		for w.n < w.seen && len(w.free) > 0 && len(w.vector) < maxVector && w.err == nil {
			o := w.free[len(w.free)-1]
			w.free = w.free[:len(w.free)-1]
			w.build(o, w.dueAt(w.n), now)
		}
		w.flush(now)
		return true
	}
	t0 := w.win.t0.Load()
	for i := max(w.delayed, w.n); i < w.seen; i++ {
		if w.dueAt(i) >= t0 {
			w.rec.counts.Delayed++
		}
	}
	w.delayed = w.seen
	return false
}

// finish waits for what is in flight, at most until the grace is over, and books the rest at its
// age.
func (w *worker) finish(ctx context.Context, timer *time.Timer) {
	limit := w.win.t1.Load() + w.grace
	for w.drain(); w.inFlight > 0 && w.clock.now() < limit && ctx.Err() == nil; w.drain() {
		w.rec.tick(w.clock.now())
		w.in.wait(timer, parkCheck)
	}
	now := w.clock.now()
	w.rec.tick(now)
	if w.pacer != nil {
		t0, t1 := w.win.t0.Load(), w.win.t1.Load()
		for i := range w.ops {
			if o := &w.ops[i]; o.busy && o.due >= t0 && o.due < t1 {
				w.rec.censor(o.due, o.sent, now, o.seq, w.id)
			}
		}
		for n := w.n; n < w.seen; n++ {
			if due := w.dueAt(n); due >= t0 && due < t1 {
				w.rec.censor(due, 0, now, n*int64(w.workers)+int64(w.id), w.id)
			}
		}
	} else {
		w.rec.counts.Due = w.rec.counts.Acked + w.rec.counts.FailedTotal()
	}
	w.rec.finish(now)
}

func (w *worker) result(ctx context.Context) error {
	if w.err != nil {
		return w.err
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errPartOver) {
		return err
	}
	return nil
}

var errPartOver = errors.New("part is over")

// errorName is the key under which a failure is counted.
func errorName(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			break
		}
		err = next
	}
	s := err.Error()
	if len(s) > 80 {
		s = s[:80]
	}
	return s
}

// merge adds up what the workers recorded.
func mergeRecorders(ws []*worker) *recorder {
	all := newRecorder(ws[0].rec.open, ws[0].win, ws[0].base)
	for _, w := range ws {
		r := w.rec
		all.resp.Merge(r.resp)
		all.wsvc.Merge(r.wsvc)
		all.failed.Merge(r.failed)
		if r.open {
			all.wque.Merge(r.wque)
			all.pacing.Merge(r.pacing)
		}
		a, b := &all.counts, &r.counts
		a.Due += b.Due
		a.Acked += b.Acked
		a.Delayed += b.Delayed
		a.Unfinished += b.Unfinished
		a.OutOfRange += b.OutOfRange
		a.BelowZero += b.BelowZero
		for k, v := range b.Failed {
			a.Failed[k] += v
		}
		all.inWindow += r.inWindow
		all.allAcked += r.allAcked
		for _, s := range r.worst {
			if len(all.worst) < worstKept || s.resp > all.worst[0].resp {
				all.worst.add(s)
			}
		}
		all.done = mergeIntervals(all.done, r.done)
	}
	all.counts.Sent = all.counts.Acked + all.counts.FailedTotal() + all.counts.Unfinished
	return all
}

// mergeIntervals joins two lists of intervals by their starts; both cover the same time.
func mergeIntervals(a, b []interval) []interval {
	if a == nil {
		return b
	}
	byStart := make(map[int64]int, len(a))
	for i := range a {
		byStart[a[i].start] = i
	}
	for _, v := range b {
		i, ok := byStart[v.start]
		if !ok {
			a = append(a, v)
			continue
		}
		t := &a[i]
		t.end = max(t.end, v.end)
		t.acked += v.acked
		t.errors += v.errors
		t.kept += v.kept
		t.svcP99 = max(t.svcP99, v.svcP99)
		switch {
		case t.resp == nil:
			t.resp = v.resp
		case v.resp != nil:
			t.resp.Merge(v.resp)
		}
	}
	return a
}
