package bench

import (
	"container/heap"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rmq/results"
)

const (
	second     = int64(1e9)
	worstKept  = 100
	neverEnds  = int64(1) << 62
	maxSamples = 1 << 20 // rows of a series that are kept
)

// window is the measured phase on the part's clock. Its end is never put off, but may
// be pulled in, when the part has written all the bytes that it may.
type window struct {
	t0  atomic.Int64
	t1  atomic.Int64
	dur int64
	cut atomic.Pointer[string] // why the end was pulled in
}

func newWindow(t0, dur int64) *window {
	w := &window{dur: dur}
	w.t0.Store(t0)
	w.t1.Store(t0 + dur)
	return w
}

// endWarmup pulls the start in to now, and the end with it.
func (w *window) endWarmup(now int64) {
	if old := w.t0.Load(); now < old && w.t0.CompareAndSwap(old, now) {
		w.t1.CompareAndSwap(old+w.dur, now+w.dur)
	}
}

// stop ends measuring now.
func (w *window) stop(now int64, why string) {
	for {
		old := w.t1.Load()
		if now >= old {
			return
		}
		if w.t1.CompareAndSwap(old, now) {
			w.cut.CompareAndSwap(nil, &why)
			return
		}
	}
}

// interval is what one worker saw in one piece of a second.
type interval struct {
	start, end int64
	resp       *hdrhistogram.Histogram
	svcP99     int64
	acked      int64 // by time of the ack
	errors     int64
	kept       int64 // samples in resp
}

// recorder belongs to one worker. Percentiles are made of messages that belong to the measured
// phase: by due time in an open loop, by the time of the ack in a closed one.
type recorder struct {
	open bool
	win  *window

	cur        interval
	svc, que   *hdrhistogram.Histogram // of the current interval
	resp       *hdrhistogram.Histogram // measured phase, whole
	wsvc, wque *hdrhistogram.Histogram
	pacing     *hdrhistogram.Histogram
	failed     *hdrhistogram.Histogram
	done       []interval

	counts   results.Counts // of the measured phase; Due and Delayed are the worker's
	inWindow int64          // acks whose time lies in the measured phase
	allAcked int64          // over all phases
	worst    worstHeap
	p99      atomic.Int64 // of the last whole interval, for progress
}

// newRecorder returns the recorder of a worker whose load begins at base.
func newRecorder(open bool, win *window, base int64) *recorder {
	h := results.NewHistogram
	r := &recorder{open: open, win: win, svc: h(), resp: h(), wsvc: h(), failed: h(), worst: make(worstHeap, 0, worstKept)}
	if open {
		r.que, r.wque, r.pacing = h(), h(), h()
	}
	r.counts.Failed = map[string]int64{}
	r.cur = interval{start: base, end: r.win.boundary(base), resp: h()}
	return r
}

// boundary is the first end of an interval behind now: the seconds are counted from the start of
// the measured phase, which is a boundary itself, and so is its end.
func (w *window) boundary(now int64) int64 {
	t0, t1 := w.t0.Load(), w.t1.Load()
	if now >= t1 {
		return neverEnds
	}
	if now < t0 {
		return t0 - (t0-now-1)/second*second
	}
	return min(t0+((now-t0)/second+1)*second, t1)
}

// tick closes every interval that has ended by now. The window may have been pulled in since the
// end of the current one was set.
func (r *recorder) tick(now int64) {
	t0, t1 := r.win.t0.Load(), r.win.t1.Load()
	switch {
	case r.cur.start < t0:
		r.cur.end = min(r.cur.end, t0)
	case r.cur.start < t1:
		r.cur.end = min(r.cur.end, t1)
	}
	for now >= r.cur.end {
		r.rotate()
	}
}

func (r *recorder) rotate() {
	c := r.cur
	c.svcP99 = r.svc.ValueAtPercentile(99)
	if c.kept > 0 {
		r.p99.Store(c.resp.ValueAtPercentile(99))
	}
	if c.start >= r.win.t0.Load() {
		r.resp.Merge(c.resp)
		r.wsvc.Merge(r.svc)
		if r.open {
			r.wque.Merge(r.que)
		}
	}
	r.svc.Reset()
	if r.open {
		r.que.Reset()
	}
	next := interval{start: c.end, end: r.win.boundary(c.end)}
	if c.kept == 0 || len(r.done) >= maxSamples {
		next.resp, c.resp = c.resp, nil
		next.resp.Reset()
	} else {
		next.resp = results.NewHistogram()
	}
	r.done = append(r.done, c)
	r.cur = next
}

// finish closes the last interval; nothing is recorded after it.
func (r *recorder) finish(now int64) {
	r.tick(now)
	r.cur.end = max(now, r.cur.start)
	r.rotate()
}

// add records a completed message.
func (r *recorder) add(o *Op, worker int) {
	t0, t1 := r.win.t0.Load(), r.win.t1.Load()
	at := o.acked
	if r.open {
		at = o.due
	}
	measured := at >= t0 && at < t1
	if o.Err != nil {
		r.cur.errors++
		if measured {
			r.counts.Failed[errorName(o.Err)]++
			r.put(r.failed, o.acked-o.due)
		}
		return
	}
	r.allAcked++
	r.cur.acked++
	if o.acked >= t0 && o.acked < t1 {
		r.inWindow++
	}
	if measured {
		r.counts.Acked++
	} else if at >= t1 || r.cur.start >= t0 {
		return // a closed loop running out, or due in warm-up and late
	}
	r.sample(o, o.acked, measured, worker)
}

// censor records a message that was due and has no answer, at its age.
func (r *recorder) censor(due, sent, now int64, seq int64, worker int) {
	r.counts.Unfinished++
	o := Op{due: due, sent: sent, acked: now, seq: seq}
	if sent == 0 {
		o.sent = now
	}
	r.sample(&o, now, true, worker)
}

func (r *recorder) sample(o *Op, now int64, measured bool, worker int) {
	resp := now - o.due
	r.cur.kept++
	r.put(r.cur.resp, resp)
	r.put(r.svc, now-o.sent)
	if r.open {
		r.put(r.que, o.sent-o.due)
	}
	if measured && (len(r.worst) < worstKept || resp > r.worst[0].resp) {
		r.worst.add(worst{resp: resp, svc: now - o.sent, que: o.sent - o.due, due: o.due, seq: o.seq, worker: worker, late: now >= r.win.t1.Load()})
	}
}

// put records a value; what the histogram does not take is counted, never lost silently.
func (r *recorder) put(h *hdrhistogram.Histogram, v int64) {
	if v < 0 {
		r.counts.BelowZero++
		v = 0
	}
	if v > results.HistHighest || h.RecordValue(v) != nil { // a histogram takes somewhat more than it was made for
		r.counts.OutOfRange++
	}
}

// worst is one of the slowest messages.
type worst struct {
	resp, svc, que, due, seq int64
	worker                   int
	late                     bool
}

type worstHeap []worst

func (h worstHeap) Len() int           { return len(h) }
func (h worstHeap) Less(i, j int) bool { return h[i].resp < h[j].resp }
func (h worstHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *worstHeap) Push(any)          {} // add appends by itself, without boxing
func (h *worstHeap) Pop() any          { return nil }

func (h *worstHeap) add(w worst) {
	if len(*h) < worstKept {
		*h = append(*h, w)
		heap.Fix(h, len(*h)-1)
		return
	}
	(*h)[0] = w
	heap.Fix(h, 0)
}
