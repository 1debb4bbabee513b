package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rmq/internal/run"
	"rmq/message"
	"rmq/results"
)

const (
	settledDirty  = 64 << 20
	quietPerCheck = 1 << 20 // device bytes in settleCheck that still count as idle
	settleCheck   = 100 * time.Millisecond
	settlePatient = 10 * time.Second
	sampleCheck   = 20 * time.Millisecond
	progressEvery = 250 * time.Millisecond
	warmupShare   = 4 // of the bytes that a part may write, one in so many may go into warm-up
	littleSlack   = 0.10
	unsteady      = 0.10
)

// partRun is one part of one repetition of a cell.
type partRun struct {
	wl      *Workload
	part    results.Part
	rate    float64 // of the open loop
	from    string  // where the rate comes from
	driver  Driver
	dir     string // its own, existing, empty
	runID   uint64
	seed    uint64
	report  func(Progress) // never nil
	sleep   func(time.Duration)
	target  *results.Target // filled with the effective configuration
	clock   *clock
	win     *window
	events  *eventLog
	disk    disk
	workers []*worker
	phases  []results.Phase // in ns of the clock until the end
	caught  int64           // when every replica held everything; 0 without replicas

	mu        sync.Mutex
	snaps     []snapshot
	consumers []*consumer
	now       string // the phase, for progress
}

type outcome struct {
	res   *results.Result
	hists []results.Hist
	rows  []results.Row
}

// do runs the part through all its phases but teardown.
func (p *partRun) do(ctx context.Context) (_ *outcome, err error) {
	p.clock = newClock()
	p.events = &eventLog{clock: p.clock}
	if p.wl.Cell.Stores() {
		p.disk = diskOf(p.dir)
	}
	w := p.wl
	topics := make([]string, w.Cell.Topics)
	prefix := "BenchTopic"
	if s, ok := p.driver.(Shared); ok && s.Shared(w.Cell) {
		prefix = fmt.Sprintf("Bench%016X_", p.runID)
	}
	for i := range topics {
		topics[i] = fmt.Sprintf("%s%05d", prefix, i)
	}

	endPhase := p.phase(results.PhasePrepare)
	session, err := p.driver.Open(ctx, Config{
		Cell: w.Cell, Dir: p.dir, Topics: topics, SegmentBytes: w.SegmentBytes, Workers: min(max(1, w.Workers), w.outstanding(p.part)),
		Event: p.events.add, Consumer: p.newConsumer,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	p.target.Config = session.Config()
	endPhase("")

	endPhase = p.phase(results.PhaseSettle)
	note, err := p.settle(ctx)
	if err != nil {
		return nil, err
	}
	endPhase(note)

	if err := p.makeWorkers(session, topics); err != nil {
		return nil, err
	}
	first := p.snapshot(session)
	if err := p.load(ctx, session); err != nil {
		return nil, err
	}
	if err := p.catchUp(ctx, session); err != nil {
		return nil, err
	}
	if err := session.Sync(ctx); err != nil {
		return nil, fmt.Errorf("final sync: %w", err)
	}
	last := p.snapshot(session)
	out := p.collect(session, first, last)

	endPhase = p.phase(results.PhaseVerify)
	v, err := p.verify(ctx, session)
	if err != nil {
		return nil, err
	}
	endPhase("")
	out.res.Verify = v
	p.finishPhases(out.res)
	return out, nil
}

// phase begins a phase; what it returns ends it.
func (p *partRun) phase(name string) func(note string) {
	p.mu.Lock()
	p.now = name
	p.mu.Unlock()
	p.tell(0, 0)
	began := p.clock.now()
	return func(note string) {
		p.phases = append(p.phases, results.Phase{Name: name, StartS: float64(began), EndS: float64(p.clock.now()), Note: note})
	}
}

func (p *partRun) tell(rate, p99 float64) {
	p.mu.Lock()
	phase := p.now
	p.mu.Unlock()
	p.report(Progress{Part: p.part, Phase: phase, RatePerS: rate, P99US: p99, Elapsed: time.Duration(p.clock.now())})
}

// settle waits until the page cache has written back what others left and the disk is quiet.
func (p *partRun) settle(ctx context.Context) (note string, err error) {
	if p.wl.Settle <= 0 {
		return "", nil
	}
	if d, err := os.Open(p.dir); err == nil {
		_ = unix.Syncfs(int(d.Fd())) // only makes the wait below shorter
		_ = d.Close()                // read only
	}
	quietSince, last := time.Now(), p.disk.read()
	for began := time.Now(); ; {
		if err := pause(ctx, settleCheck); err != nil {
			return "", err
		}
		now := p.disk.read()
		busy := now.writeBytes != nil && last.writeBytes != nil && *now.writeBytes-*last.writeBytes > quietPerCheck
		dirty := dirtyBytes()
		if busy || dirty != nil && *dirty > settledDirty {
			quietSince = time.Now()
		}
		last = now
		if time.Since(quietSince) >= p.wl.Settle {
			return "", nil
		}
		if time.Since(began) > settlePatient+p.wl.Settle {
			return "the disk never became quiet", nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (p *partRun) makeWorkers(session Session, topics []string) error {
	w := p.wl
	n := max(1, w.Workers)
	total := w.outstanding(p.part)
	n = min(n, total)
	base := p.clock.now() + int64(10*time.Millisecond)
	p.win = newWindow(base+int64(w.Warmup), int64(w.Duration))
	pay := NewPayload(p.runID, w.Cell.SizeBytes, w.Cell.Entropy, p.seed)
	p.workers = make([]*worker, n)
	for i := range p.workers {
		choose, err := newChooser(w.Cell.Keys, w.Cell.Topics, w.Cell.Queues, p.seed+uint64(i)*0x9E3779B97F4A7C15)
		if err != nil {
			return err
		}
		own := total / n
		if i < total%n {
			own++
		}
		wk := &worker{
			id: i, workers: n, clock: p.clock, win: p.win, base: base, in: newInbox(p.clock), pub: &published{},
			grace: int64(w.Grace), ops: make([]Op, own), choose: choose, topics: topics, payload: pay,
			ackedSeqs: &seqSet{}, sleep: p.sleep,
			msg: message.Message{Properties: properties(w.Tags, w.Keys)},
		}
		if p.part == results.PartOpen {
			wk.pacer = NewPacer(w.Cell.Arrival, p.rate, int64(p.seed))
			if gap := time.Duration(float64(n) * 1e9 / p.rate); gap < maxSleep {
				wk.minSleep = maxSleep // waking for each would cost more than making it
			}
		}
		if w.MaxBytes > 0 && p.wl.Cell.Stores() {
			wk.maxBytes = w.MaxBytes / int64(n)
			wk.warmBytes = wk.maxBytes / warmupShare
		}
		wk.rec = newRecorder(p.part == results.PartOpen, p.win, base)
		wk.init(p.runID)
		ops := make([]*Op, own)
		for j := range wk.ops {
			ops[j] = &wk.ops[j]
		}
		if wk.sender, err = session.Sender(ops); err != nil {
			return err
		}
		p.workers[i] = wk
	}
	return nil
}

// load runs warm-up, measure and drain.
func (p *partRun) load(ctx context.Context, session Session) error {
	p.mu.Lock()
	p.now = results.PhaseWarmup
	p.mu.Unlock()
	g := run.New(ctx, "bench")
	sampling, over := context.WithCancel(g.Context())
	g.Go("sampler", func(context.Context) error { return p.sample(sampling, session) })
	p.sleepUntil(p.workers[0].base)
	ws := run.New(g.Context(), "bench/load")
	for _, w := range p.workers {
		f := w.runClosed
		if w.pacer != nil {
			f = w.runOpen
		}
		ws.Go(fmt.Sprintf("worker-%d", w.id), f)
	}
	err := ws.Wait()
	over()
	if e := g.Wait(); err == nil && !errors.Is(e, context.Canceled) {
		err = e
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// catchUp waits until every replica holds what was acknowledged, and notes when.
func (p *partRun) catchUp(ctx context.Context, session Session) error {
	s, ok := session.(Replicated)
	if !ok || p.wl.Cell.Repl == "none" {
		return nil
	}
	if err := s.CaughtUp(ctx); err != nil {
		return fmt.Errorf("replicas: %w", err)
	}
	p.caught = p.clock.now()
	return nil
}

func (p *partRun) sleepUntil(at int64) {
	if d := at - p.clock.now(); d > 0 {
		time.Sleep(time.Duration(d))
	}
}

// sample takes a snapshot at every second of the series, and tells how far the part is.
func (p *partRun) sample(ctx context.Context, session Session) error {
	p.snapshot(session)
	seen := p.workers[0].base // boundaries up to here have their snapshot
	told, lastAcked, lastAt := time.Now(), int64(0), p.clock.now()
	for {
		next := p.win.boundary(seen) // anew each time: the window may have been pulled in
		wait := max(100*time.Microsecond, time.Duration(min(next-p.clock.now(), int64(sampleCheck))))
		if pause(ctx, wait) != nil {
			return nil //nolint:nilerr // the part ends: no more samples
		}
		now := p.clock.now()
		if now >= next {
			p.snapshot(session)
			seen = now
		}
		if time.Since(told) >= progressEvery {
			_, _, acked := p.published()
			phase := results.PhaseMeasure
			switch {
			case now < p.win.t0.Load():
				phase = results.PhaseWarmup
			case now >= p.win.t1.Load():
				phase = results.PhaseDrain
			}
			p.mu.Lock()
			p.now = phase
			p.mu.Unlock()
			var p99 int64
			for _, w := range p.workers {
				p99 = max(p99, w.rec.p99.Load())
			}
			p.tell(float64(acked-lastAcked)/seconds(now-lastAt), float64(p99)/1e3)
			told, lastAcked, lastAt = time.Now(), acked, now
		}
	}
}

func (p *partRun) published() (due, sent, acked int64) {
	for _, w := range p.workers {
		due += w.pub.due.Load()
		sent += w.pub.sent.Load()
		acked += w.pub.acked.Load()
	}
	return due, sent, acked
}

func (p *partRun) snapshot(session Session) snapshot {
	s := takeSnapshot(p.clock, p.disk, p.dir, session.Counters)
	s.due, s.sent, s.acked = p.published()
	p.mu.Lock()
	p.snaps = append(p.snaps, s)
	p.mu.Unlock()
	return s
}

// near is the snapshot taken closest to a time.
func (p *partRun) near(at int64) *snapshot {
	best := &p.snaps[0]
	for i := range p.snaps {
		if abs(p.snaps[i].at-at) < abs(best.at-at) {
			best = &p.snaps[i]
		}
	}
	return best
}

func abs(v int64) int64 { return max(v, -v) }

func (p *partRun) verify(ctx context.Context, session Session) (*results.Verify, error) {
	acked := &seqSet{}
	var sent int64
	for _, w := range p.workers {
		sent = max(sent, w.n*int64(w.workers))
		if len(w.ackedSeqs.words) > len(acked.words) {
			acked.words, w.ackedSeqs.words = w.ackedSeqs.words, acked.words
		}
		for i, b := range w.ackedSeqs.words {
			acked.words[i] |= b
		}
	}
	a := newAuditor(p.runID, len(p.workers), session, acked, sent)
	began := time.Now()
	if err := session.Verify(ctx, a); errors.Is(err, ErrNothingStored) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := a.outcome()
	v.TookS = time.Since(began).Seconds()
	return v, nil
}

// finishPhases turns the phases into seconds since the start of measuring.
func (p *partRun) finishPhases(r *results.Result) {
	t0 := p.win.t0.Load()
	for _, ph := range p.phases {
		ph.StartS, ph.EndS = (ph.StartS-float64(t0))/1e9, (ph.EndS-float64(t0))/1e9
		r.Phases = append(r.Phases, ph)
	}
}

// collect makes the result of what was recorded.
func (p *partRun) collect(session Session, first, last snapshot) *outcome {
	w, all := p.wl, mergeRecorders(p.workers)
	t0, t1 := p.win.t0.Load(), p.win.t1.Load()
	dur := seconds(t1 - t0)
	at0, at1 := p.near(t0), p.near(t1)
	if at0 == at1 { // the phase was shorter than the time between two looks
		at0, at1 = &first, &last
	}
	out := &outcome{}
	r := &results.Result{
		Part: p.part, Started: p.clock.origin.Add(time.Duration(t0)).Round(0), MeasuredS: dur,
		Load:   results.Load{Mode: p.part, Producers: w.Cell.Producers, Window: w.Cell.Window, Outstanding: w.outstanding(p.part)},
		Counts: all.counts,
	}
	out.res = r
	if p.part == results.PartOpen {
		r.Load.Arrival, r.Load.RatePerS, r.Load.RateFrom = w.Cell.Arrival, p.rate, p.from
		r.Load.Window = max(1, r.Load.Outstanding/w.Cell.Producers)
		r.Throughput.OfferedPerS = float64(all.counts.Due) / dur
		q, pace := results.Summarize(all.wque), results.Summarize(all.pacing)
		r.Latency.Queueing, r.Pacing = &q, &pace
	}
	r.Replication = p.replication(session, at0, at1, &first, &last)
	clock := dur
	if r.Replication != nil && r.Replication.ClockS > 0 {
		clock = r.Replication.ClockS
	}
	r.Throughput.AckedPerS = float64(all.inWindow) / clock
	r.Throughput.BodyBytesPerS = r.Throughput.AckedPerS * float64(w.Cell.SizeBytes)
	r.Latency.Response, r.Latency.Service = results.Summarize(all.resp), results.Summarize(all.wsvc)
	if all.failed.TotalCount() > 0 {
		f := results.Summarize(all.failed)
		r.Latency.Failed = &f
	}
	p.addConsumed(r, dur)
	r.Resources = p.resources(at0, at1, &first, &last)
	if span := seconds(at1.at - at0.at); span > 0 {
		r.Throughput.LogBytesPerS = float64(r.Resources.LogBytes) / span
	}
	var dropped int
	r.Events, dropped = p.events.list(t0)
	if dropped > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d events beyond the first %d were not kept", dropped, maxEvents))
	}
	r.Worst = p.worst(all)
	p.loadPhases(all)
	p.notes(r, last.target)
	if span := seconds(at1.at - at0.at); math.Abs(span/dur-1) > littleSlack {
		r.Notes = append(r.Notes, fmt.Sprintf("resources cover %.2f s, not the %.2f s measured", span, dur))
	}
	out.hists, out.rows = p.series(all)
	return out
}

func (p *partRun) loadPhases(all *recorder) {
	base, t0, t1 := p.workers[0].base, p.win.t0.Load(), p.win.t1.Load()
	note := ""
	if warm := time.Duration(t0 - base); warm < p.wl.Warmup-time.Millisecond {
		note = fmt.Sprintf("shortened from %v: its share of --max-bytes was written", p.wl.Warmup)
	}
	steady := steadiness(all.done, t0, t1)
	p.phases = append(p.phases,
		results.Phase{Name: results.PhaseWarmup, StartS: float64(base), EndS: float64(t0), Note: note},
		results.Phase{Name: results.PhaseMeasure, StartS: float64(t0), EndS: float64(t1), Note: steady},
		results.Phase{Name: results.PhaseDrain, StartS: float64(t1), EndS: float64(p.clock.now())})
}

// steadiness compares the rates of the first and the last third of the measured phase.
func steadiness(done []interval, t0, t1 int64) string {
	var rates []float64
	for _, iv := range done {
		if iv.start >= t0 && iv.end <= t1 && iv.end-iv.start > second/2 {
			rates = append(rates, float64(iv.acked)/seconds(iv.end-iv.start))
		}
	}
	n := len(rates) / 3
	if n == 0 {
		return ""
	}
	a, b := results.Median(rates[:n]), results.Median(rates[len(rates)-n:])
	if a <= 0 || math.Abs(b/a-1) <= unsteady {
		return ""
	}
	return fmt.Sprintf("not_steady: the rate moved by %+.0f %% from the first third to the last", 100*(b/a-1))
}

func (p *partRun) notes(r *results.Result, c Counters) {
	add := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if why := p.win.cut.Load(); why != nil {
		add("measured %.1f s of %v: %s", r.MeasuredS, p.wl.Duration, *why)
	}
	if p.part == results.PartClosed && r.Latency.Service.N > 0 {
		n := r.Throughput.AckedPerS * r.Latency.Service.Mean / 1e6
		if want := float64(r.Load.Outstanding); math.Abs(n/want-1) > littleSlack {
			add("Little's law: rate × mean service time is %.1f of %d outstanding; the rest waits inside the generator", n, r.Load.Outstanding)
		}
	}
	if r.Counts.Delayed > 0 {
		add("%d messages waited in the generator for one of %d in flight to come back", r.Counts.Delayed, r.Load.Outstanding)
	}
	if r.Counts.Unfinished > 0 {
		add("%d messages had no answer %v after the end and count at their age", r.Counts.Unfinished, p.wl.Grace)
	}
	if c.Unprepared > 0 {
		add("%d segments were used before they had been prepared", c.Unprepared)
	}
}

func (p *partRun) worst(all *recorder) []results.Sample {
	t0 := p.win.t0.Load()
	ws := append(worstHeap(nil), all.worst...)
	sortWorst(ws)
	out := make([]results.Sample, 0, len(ws))
	for _, s := range ws {
		phase := results.PhaseMeasure
		if s.late {
			phase = results.PhaseDrain
		}
		out = append(out, results.Sample{
			TS: seconds(s.due - t0), Phase: phase, ResponseUS: us(s.resp), ServiceUS: us(s.svc),
			QueueingUS: us(s.que), Worker: s.worker, Seq: s.seq, Cause: p.events.cause(s.due, s.due+s.resp),
		})
	}
	return out
}

func us(ns int64) float64 { return float64(ns) / 1e3 }
