package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Shows that the hundred kept are the hundred slowest.
func TestWorstHeap(t *testing.T) {
	var all []int64
	h := make(worstHeap, 0, worstKept)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		v := rng.Int64N(1 << 40)
		all = append(all, v)
		if len(h) < worstKept || v > h[0].resp {
			h.add(worst{resp: v})
		}
	}
	slices.Sort(all)
	var kept []int64
	for _, w := range h {
		kept = append(kept, w.resp)
	}
	slices.Sort(kept)
	require.Equal(t, all[len(all)-worstKept:], kept)
}

// Shows that a value beyond ten minutes is counted instead of clamped or lost, and one below zero
// is kept as zero and counted.
func TestOutOfRange(t *testing.T) {
	r := newRecorder(true, newWindow(0, int64(time.Hour)), 0)
	r.put(r.failed, int64(11*time.Minute))
	r.put(r.failed, -5)
	require.EqualValues(t, 1, r.counts.OutOfRange)
	require.EqualValues(t, 1, r.counts.BelowZero)
	require.EqualValues(t, 1, r.failed.TotalCount())
}

// Shows that the seconds of a series are counted from the start of measuring, in both directions,
// and that pulling the window in moves them.
func TestBoundaries(t *testing.T) {
	w := newWindow(2500, 10*second)
	w.t0.Store(2*second + second/2)
	w.t1.Store(5 * second)
	require.Equal(t, second/2, w.boundary(0))
	require.Equal(t, second*3/2, w.boundary(second/2))
	require.Equal(t, second*5/2, w.boundary(second*3/2))
	require.Equal(t, second*7/2, w.boundary(second*5/2))
	require.Equal(t, 5*second, w.boundary(4*second+second/2))
	require.Equal(t, neverEnds, w.boundary(5*second))

	w = newWindow(2*second, 10*second)
	w.endWarmup(second)
	w.endWarmup(second * 3 / 2)
	require.Equal(t, second, w.t0.Load())
	require.Equal(t, 11*second, w.t1.Load())
	w.stop(4*second, "first")
	w.stop(3*second, "second")
	require.Equal(t, 3*second, w.t1.Load())
	require.Equal(t, "first", *w.cut.Load())
}

// Shows that the intervals of a worker follow each other without gaps, end with the window when it
// is pulled in, and that the drain is one of them however many messages come in it.
func TestIntervals(t *testing.T) {
	w := newWindow(second, 5*second)
	r := newRecorder(true, w, 0)
	add := func(due, acked int64) {
		r.tick(acked)
		r.add(&Op{due: due, sent: due, acked: acked}, 0)
	}
	add(0, second/2)
	add(second, 5*second/2) // two intervals at once
	w.stop(11*second/4, "enough")
	for i := range int64(100) {
		add(5*second/2, 3*second+i)
	}
	r.finish(4 * second)
	var starts []int64
	for i, iv := range r.done {
		starts = append(starts, iv.start)
		if i > 0 {
			require.Equal(t, r.done[i-1].end, iv.start)
		}
	}
	require.Equal(t, []int64{0, second, 2 * second, 11 * second / 4}, starts)
	require.EqualValues(t, 101, r.resp.TotalCount())
	require.EqualValues(t, 100, r.done[3].acked)
}

func BenchmarkRecord(b *testing.B) {
	for _, open := range []bool{false, true} {
		name := "loop=closed"
		if open {
			name = "loop=open"
		}
		b.Run(name, func(b *testing.B) {
			r := newRecorder(open, newWindow(0, int64(time.Hour)), 0)
			o := Op{}
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				n++
				o.due, o.sent, o.acked = n*100, n*100+50, n*100+1000+n%5000
				r.add(&o, 0)
			}
		})
	}
}
