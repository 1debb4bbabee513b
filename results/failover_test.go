package results_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/results"
)

// stream makes a message every millisecond from -2 s to 3 s; outcome says when each is answered.
func stream(outcome func(due time.Duration) (done time.Duration, failed bool)) (samples []results.FailoverSample) {
	for due := -2 * time.Second; due < 3*time.Second; due += time.Millisecond {
		done, failed := outcome(due)
		s := results.FailoverSample{Due: int64(due), Sent: int64(due), Done: int64(done), Failed: failed}
		samples = append(samples, s)
	}
	return samples
}

// Proves the figures of a leader that is gone for 40 ms: what was in flight at the event and what fell due meanwhile
// waits, and the window begins with the first of them.
func TestAnalyseGap(t *testing.T) {
	const service, back = 2 * time.Millisecond, 40 * time.Millisecond
	samples := stream(func(due time.Duration) (time.Duration, bool) {
		done := due + service
		if done > 0 && due < back {
			done = back + service
		}
		return done, false
	})
	late := results.FailoverLate(samples)
	require.Equal(t, int64(5*time.Millisecond), late)
	r := results.AnalyseFailover("probe", samples, 2*time.Second, late)
	require.InDelta(t, 42, *r.NextAckMS, 0.01)
	require.InDelta(t, 43, *r.WindowMS, 0.01, "the first message that waited was due 1 ms before the event")
	require.InDelta(t, 42, *r.SilenceMS, 0.01)
	require.InDelta(t, 40, *r.To95MS, 0.01)
	require.InDelta(t, 1000, r.BeforePerS, 1)
	require.EqualValues(t, 3000, r.Due)
	require.EqualValues(t, 3000, r.Acked)
	require.InDelta(t, 37, r.Delayed, 1)
	require.InDelta(t, 43, r.MaxMS, 0.01)
	require.Equal(t, -50, r.FirstBin)
	require.EqualValues(t, 10, r.Bins[0])
	require.EqualValues(t, 0, r.Bins[50+2])
	require.Greater(t, r.Bins[50+4], int32(40))
}

// Proves that failures and silence are told as such: nothing comes back, and nothing hides it.
func TestAnalyseNever(t *testing.T) {
	samples := stream(func(due time.Duration) (time.Duration, bool) {
		switch {
		case due < 0:
			return due + time.Millisecond/2, false
		case due < time.Second:
			return due + time.Second/2, true
		}
		return math.MaxInt64, false
	})
	r := results.AnalyseFailover("x", samples, 2*time.Second, results.FailoverLate(samples))
	require.Nil(t, r.NextAckMS)
	require.Nil(t, r.WindowMS)
	require.Nil(t, r.To95MS)
	require.EqualValues(t, 1000, r.Failed)
	require.EqualValues(t, 1000, r.Unfinished)
	require.InDelta(t, 2000, *r.SilenceMS, 1)
}

// Proves that an event that nobody notices has no window, and that messages sent before it do not count as the next.
func TestAnalyseNothing(t *testing.T) {
	samples := stream(func(due time.Duration) (time.Duration, bool) { return due + 3*time.Millisecond, false })
	r := results.AnalyseFailover("x", samples, time.Second, results.FailoverLate(samples))
	require.InDelta(t, 3, *r.NextAckMS, 0.01)
	require.Zero(t, *r.WindowMS)
	require.InDelta(t, 0, *r.To95MS, 0.01)
}

// Proves that an event which takes effect a moment after it was set off, when acknowledgements have come that look like
// the next ones, is measured to the end of the silence, with failures in it.
func TestAnalyseLateEffect(t *testing.T) {
	samples := stream(func(due time.Duration) (time.Duration, bool) {
		switch {
		case due < 3*time.Millisecond:
			return due + time.Millisecond/2, false
		case due < 10*time.Millisecond:
			return due + 20*time.Millisecond, true // refused
		case due < 500*time.Millisecond:
			return 500*time.Millisecond + due/100, false
		}
		return due + time.Millisecond/2, false
	})
	r := results.AnalyseFailover("x", samples, 2*time.Second, results.FailoverLate(samples))
	require.InDelta(t, 500.1, *r.NextAckMS, 0.01)
	require.InDelta(t, 497.1, *r.WindowMS, 0.01)
	require.EqualValues(t, 7, r.Failed)
}

func failover(class results.Class, gap func(i int) float64, n int) *results.Failover {
	f := &results.Failover{Class: class, RatePerS: 1000, Clients: []results.FailoverClient{{Name: "probe"}}}
	for i := range n {
		g := gap(i)
		f.Trials = append(f.Trials, &results.FailoverTrial{Event: results.FailKill, N: i + 1, Audited: true, Clients: []results.FailoverClientTrial{{
			Client: "probe", NextAckMS: &g, WindowMS: &g, SilenceMS: &g, To95MS: &g, Due: 10, Acked: 10, FirstBin: -1, Bins: []int32{10, 0, int32(i % 2 * 2)},
		}}})
	}
	return f
}

// Proves the distribution over trials: void ones are left out but for what they lost, and a trial without a next ack
// counts as the longest.
func TestFailoverSummary(t *testing.T) {
	f := failover("D5", func(i int) float64 { return float64(i + 1) }, 100)
	f.Trials[99].Clients[0].NextAckMS = nil
	void := *f.Trials[0]
	void.Void, void.Clients = "idle", []results.FailoverClientTrial{{Client: "probe", Lost: 2}}
	f.Trials = append(f.Trials, &void)
	s := f.Summarize()
	require.Len(t, s, 1)
	require.Equal(t, 100, s[0].Trials)
	require.Equal(t, 1, s[0].Void)
	require.EqualValues(t, 2, s[0].Lost)
	require.EqualValues(t, 2, f.Lost())
	require.InDelta(t, 50, s[0].NextAck.P50, 0)
	require.InDelta(t, 99, s[0].NextAck.P99, 0)
	require.Equal(t, 1, s[0].NextAck.Never)
	require.Greater(t, s[0].NextAck.Max, 1e300)
	require.InDelta(t, 100, s[0].Window.Max, 0)
	require.Equal(t, []float64{10, 0, 1}, s[0].Bins)
	require.Nil(t, (&results.Failover{}).Summarize())
}

// Proves that runs are compared event by event, faster where the times are shorter, and not across durability classes.
func TestCompareFailover(t *testing.T) {
	slow := failover("D5", func(i int) float64 { return 100 + float64(i%7) }, 40)
	fast := failover("D5", func(i int) float64 { return 10 + float64(i%5) }, 40)
	c := results.CompareFailover(slow, fast, 0)
	require.Len(t, c, 2)
	require.Equal(t, results.Faster, c[0].Ratio.Verdict)
	require.Greater(t, c[0].Ratio.Value, 7.0)
	fast.Class = "D4"
	c = results.CompareFailover(slow, fast, 0)
	require.Equal(t, results.NotComparable, c[0].Ratio.Verdict)
	require.Contains(t, c[0].Why, "not ranked")
}

// Proves that a run is read back as it was written, and that another schema is refused by name.
func TestFailoverFile(t *testing.T) {
	dir := t.TempDir()
	_, _, err := results.ReadFailover(dir)
	require.ErrorIs(t, err, results.ErrNoRun)
	f := failover("D5", func(int) float64 { return 3 }, 2)
	require.NoError(t, results.WriteFailover(dir, f))
	got, env, err := results.ReadFailover(dir)
	require.NoError(t, err)
	require.Nil(t, env)
	require.Equal(t, f, got)
}
