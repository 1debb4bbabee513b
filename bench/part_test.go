package bench

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/message"
	"rmq/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeTarget completes messages as its send says.
type fakeTarget struct {
	send    func(ops []*Op)
	opened  time.Time
	verify  func(a *Auditor) error
	closing func()
}

func (f *fakeTarget) Name() string { return "fake" }
func (f *fakeTarget) Open(context.Context, Config) (Session, error) {
	f.opened = time.Now()
	return f, nil
}
func (f *fakeTarget) Sender([]*Op) (Sender, error) { return f, nil }
func (f *fakeTarget) Encode(_ *Op, m *message.Message) (int, error) {
	return len(m.Body) + 100, nil
}
func (f *fakeTarget) Send(ops []*Op)             { f.send(ops) }
func (f *fakeTarget) Counters() Counters         { return Counters{} }
func (f *fakeTarget) Config() map[string]string  { return map[string]string{"k": "v"} }
func (f *fakeTarget) Sync(context.Context) error { return nil }
func (f *fakeTarget) Verify(_ context.Context, a *Auditor) error {
	if f.verify != nil {
		return f.verify(a)
	}
	return ErrNothingStored
}

func (f *fakeTarget) Close() error {
	if f.closing != nil {
		f.closing()
		f.closing = nil
	}
	return nil
}

// after completes ops when d has passed.
func after(d time.Duration, ops []*Op) {
	for _, o := range ops {
		time.AfterFunc(d, o.Complete)
	}
}

func testCell() results.Cell {
	return results.Cell{
		Driver: "fake", Flush: "async", Repl: "none", Write: "pwrite", Topics: 2, Queues: 2, SizeBytes: 64, Producers: 8, Window: 1,
		Arrival: "uniform", Keys: "uniform", Entropy: 1,
	}
}

// runPart runs one part against f in the time of the bubble.
func runPart(t *testing.T, f *fakeTarget, part results.Part, rate float64, change func(*Workload)) *outcome {
	t.Helper()
	out, err := tryPart(t.Context(), t.TempDir(), f, part, rate, change)
	require.NoError(t, err)
	return out
}

func tryPart(ctx context.Context, dir string, f *fakeTarget, part results.Part, rate float64, change func(*Workload)) (*outcome, error) {
	w := &Workload{Cell: testCell(), Duration: 2 * time.Second, Warmup: time.Second, Grace: 10 * time.Second, Seed: 1, Workers: 1}
	if change != nil {
		change(w)
	}
	p := &partRun{
		wl: w, part: part, rate: rate, from: "given", driver: f, dir: dir, runID: 5, seed: 1,
		report: func(Progress) {}, sleep: time.Sleep, target: &results.Target{},
	}
	return p.do(ctx)
}

// Shows that a stalled target cannot hide its stall: the schedule goes on, every message that fell
// due meanwhile is charged from its due time, and none is dropped.
func TestStallIsCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{}
		f.send = func(ops []*Op) {
			at := time.Since(f.opened)
			if from, to := 1500*time.Millisecond, 2000*time.Millisecond; at >= from && at < to {
				after(to-at, ops)
				return
			}
			after(100*time.Microsecond, ops)
		}
		r := runPart(t, f, results.PartOpen, 1000, nil).res
		require.EqualValues(t, 2000, r.Counts.Due)
		require.EqualValues(t, 2000, r.Counts.Acked)
		require.Zero(t, r.Counts.Delayed)
		require.Zero(t, r.Counts.Unfinished)
		require.InDelta(t, 500_000, r.Latency.Response.Max, 2000)
		require.InDelta(t, 100, r.Latency.Response.P50, 60)
		require.InDelta(t, 1000, r.Throughput.AckedPerS, 2)
		require.InDelta(t, 1000, r.Throughput.OfferedPerS, 2)
		require.Less(t, r.Pacing.P99, 100.0)
		require.Len(t, r.Worst, worstKept)
		require.InDelta(t, 0.5, r.Worst[0].TS, 0.02, "the slowest was due when the stall began")
	})
}

// Shows that with the window full, due messages wait in the generator with their clocks running:
// little service time, much response time, counted as delayed.
func TestWindowFullDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{}
		f.send = func(ops []*Op) {
			at := time.Since(f.opened)
			if from, to := 1500*time.Millisecond, 2000*time.Millisecond; at >= from && at < to {
				after(to-at, ops)
				return
			}
			after(100*time.Microsecond, ops)
		}
		r := runPart(t, f, results.PartOpen, 1000, func(w *Workload) { w.OpenWindow = 8 }).res
		require.EqualValues(t, 2000, r.Counts.Acked)
		require.InDelta(t, 530, float64(r.Counts.Delayed), 50)
		require.InDelta(t, 490_000, r.Latency.Queueing.Max, 15_000)
		require.Less(t, r.Pacing.Max, 100.0, "a full window is no error of pacing")
		require.NotEmpty(t, r.Notes)
	})
}

// Shows that what is never answered counts at its age when the grace is over, as unfinished.
func TestUnfinishedIsCensored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{}
		var stuck []*Op
		f.send = func(ops []*Op) {
			if time.Since(f.opened) > 2*time.Second {
				stuck = append(stuck, ops...)
				return
			}
			after(time.Millisecond, ops)
		}
		f.closing = func() {
			for _, o := range stuck {
				o.Complete()
			}
		}
		r := runPart(t, f, results.PartOpen, 1000, func(w *Workload) { w.OpenWindow = 100 }).res
		require.EqualValues(t, 2000, r.Counts.Due)
		require.Equal(t, r.Counts.Due, r.Counts.Acked+r.Counts.Unfinished)
		require.InDelta(t, 1000, float64(r.Counts.Unfinished), 15)
		require.InDelta(t, 11e6, r.Latency.Response.Max, 0.1e6)
		require.EqualValues(t, 2000, r.Latency.Response.N)
	})
}

// Shows that a closed loop keeps exactly its messages in flight: rate times latency is their number.
func TestClosedLoop(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }}
				r := runPart(t, f, results.PartClosed, 0, func(w *Workload) { w.Workers = workers }).res
				require.InEpsilon(t, 8000, r.Throughput.AckedPerS, 0.01)
				require.InDelta(t, 1000, r.Latency.Service.P50, 2)
				require.Equal(t, r.Latency.Service, r.Latency.Response)
				require.Nil(t, r.Latency.Queueing)
				require.Equal(t, 8, r.Load.Outstanding)
			})
		})
	}
}

// Shows that failures are counted by name, in no percentile of the acknowledged.
func TestFailuresAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fakeTarget{}
		f.send = func(ops []*Op) {
			for _, o := range ops {
				if n++; n%10 == 0 {
					o.Err = fmt.Errorf("send: %w", errors.New("no space"))
				}
			}
			after(time.Millisecond, ops)
		}
		r := runPart(t, f, results.PartOpen, 1000, nil).res
		require.Equal(t, map[string]int64{"no space": 200}, r.Counts.Failed)
		require.EqualValues(t, 1800, r.Counts.Acked)
		require.EqualValues(t, 1800, r.Latency.Response.N)
		require.EqualValues(t, 200, r.Latency.Failed.N)
		require.Equal(t, r.Counts.Due, r.Counts.Acked+r.Counts.FailedTotal())
	})
}

// Shows that the series is cut at the seconds of the measured phase, adds up to the whole, and keeps
// warm-up apart.
func TestSeries(t *testing.T) {
	for _, workers := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }}
			out := runPart(t, f, results.PartOpen, 1000, func(w *Workload) { w.Warmup, w.Workers = 1500*time.Millisecond, workers })
			var starts []float64
			var phases []string
			for _, row := range out.rows {
				starts, phases = append(starts, row.TS), append(phases, row.Phase)
				if row.DurS > 0.4 {
					require.InEpsilon(t, 1000, row.Acked, 0.03, "row at %v", row.TS)
					require.InDelta(t, 1000, row.P50, 60)
				}
			}
			require.Equal(t, []float64{-1.5, -1, 0, 1}, starts)
			require.Equal(t, []string{"warm-up", "warm-up", "measure", "measure"}, phases)
			var parts int64
			for _, h := range out.hists {
				if h.Name == results.HistResponse && !h.Whole {
					parts += h.H.TotalCount()
				}
			}
			require.InDelta(t, float64(out.res.Counts.Acked), float64(parts), 4, "all but the last, acknowledged in the drain")
			require.Equal(t, out.res.Counts.Acked, results.FindHist(out.hists, results.PartOpen, results.HistResponse).TotalCount())
		})
	}
}

// Shows that a bound on bytes ends warm-up and measuring early, says so, and measures the rate over
// the time that was really measured.
func TestMaxBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }}
		r := runPart(t, f, results.PartClosed, 0, func(w *Workload) { w.MaxBytes = 8000 * 164 }).res // one second's worth
		require.InDelta(t, 0.75, r.MeasuredS, 0.02)
		require.InEpsilon(t, 8000, r.Throughput.AckedPerS, 0.02)
		require.Contains(t, r.Notes[0], "--max-bytes")
		var notes []string
		for _, ph := range r.Phases {
			notes = append(notes, ph.Name+" "+ph.Note)
		}
		require.Contains(t, notes, "warm-up shortened from 1s: its share of --max-bytes was written")
	})
}

// Shows that an interruption ends every phase soon, with its cause, and closes the target.
func TestInterruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		f := &fakeTarget{send: func(ops []*Op) { after(time.Millisecond, ops) }, closing: func() { closed = true }}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(1700*time.Millisecond, func() { cancel(why) })
		began := time.Now()
		_, err := tryPart(ctx, t.TempDir(), f, results.PartOpen, 1000, nil)
		require.ErrorIs(t, err, why)
		require.Less(t, time.Since(began), 2*time.Second)
		require.True(t, closed)
		time.Sleep(time.Second) // in the bubble: let the last completions run
	})
}

// Shows that what comes back as acknowledged is what the auditor will look for.
func TestVerifyGetsTheAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPayload(5, 64, 1, 1)
		var stored [][]byte
		n := 0
		f := &fakeTarget{}
		f.send = func(ops []*Op) {
			for _, o := range ops {
				if n++; n != 100 { // one message is acknowledged and gone
					b := p.Body()
					p.Fill(b, o.seq, 0)
					stored = append(stored, b)
				}
			}
			after(time.Millisecond, ops)
		}
		f.verify = func(a *Auditor) error {
			for i, b := range stored {
				q := a.Queue("T", int32(i))
				q.Body(0, b)
				a.Scan(int64(i), b)
			}
			return nil
		}
		r := runPart(t, f, results.PartOpen, 1000, nil).res
		require.EqualValues(t, 1, r.Verify.Lost)
		require.EqualValues(t, n, r.Verify.Acked)
		r.Judge(testCell(), nil, nil)
		require.False(t, r.Valid)
	})
}

// Shows that a message costs no allocation on its way through a worker.
func TestHotPathAllocates(t *testing.T) {
	c := newClock()
	f := &fakeTarget{send: func(ops []*Op) {
		for _, o := range ops {
			o.Complete()
		}
	}}
	p := &partRun{wl: &Workload{Cell: testCell(), Duration: time.Hour, Workers: 1, Keys: true, Tags: true}, part: results.PartClosed, driver: f, clock: c, dir: t.TempDir()}
	require.NoError(t, p.makeWorkers(f, []string{"a", "b"}))
	w := p.workers[0]
	w.ackedSeqs.add(1 << 20) // grown beforehand
	allocs := testing.AllocsPerRun(1000, func() {
		now := c.now()
		for len(w.free) > 0 {
			o := w.free[len(w.free)-1]
			w.free = w.free[:len(w.free)-1]
			w.build(o, now, now)
		}
		w.flush(now)
		w.drain()
	})
	require.Zero(t, allocs)
	require.NoError(t, w.err)
}
