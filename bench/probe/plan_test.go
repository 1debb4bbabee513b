package probe

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script is a clock that only steps move, and the slices that they were given.
type script struct {
	now    time.Time
	slices []time.Duration
}

func (s *script) step(name string, weight float64, takes func(slice time.Duration) time.Duration) step {
	return step{name, weight, func(_ context.Context, slice time.Duration) error {
		s.slices = append(s.slices, slice)
		s.now = s.now.Add(takes(slice))
		return nil
	}}
}

func exactly(slice time.Duration) time.Duration { return slice }

func takes(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// Proves that slices follow the weights, that an overrun is shared by the steps still to come,
// that time left over goes to them, and that steps for which nothing is left are named, not run.
func TestPlanKeepsBudget(t *testing.T) {
	sec := func(s ...float64) []time.Duration {
		var ds []time.Duration
		for _, v := range s {
			ds = append(ds, time.Duration(v*float64(time.Second)))
		}
		return ds
	}
	for _, c := range []struct {
		name    string
		steps   func(s *script) []step
		slices  []time.Duration
		skipped []string
		took    time.Duration
	}{
		{"on time", func(s *script) []step {
			return []step{s.step("a", 1, exactly), s.step("b", 2, exactly), s.step("c", 1, exactly)}
		}, sec(2, 4, 2), nil, 8 * time.Second},
		{"overrun is shared", func(s *script) []step {
			return []step{s.step("a", 2, takes(6*time.Second)), s.step("b", 1, exactly), s.step("c", 1, exactly)}
		}, sec(4, 1, 1), nil, 8 * time.Second},
		{"rest is passed on", func(s *script) []step {
			return []step{s.step("a", 2, takes(0)), s.step("b", 1, exactly), s.step("c", 1, exactly)}
		}, sec(4, 4, 4), nil, 8 * time.Second},
		{"nothing left", func(s *script) []step {
			return []step{s.step("a", 1, takes(9*time.Second)), s.step("b", 1, exactly), s.step("c", 6, exactly)}
		}, sec(1), []string{"b", "c"}, 9 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			s := &script{now: start}
			skipped, err := runPlan(t.Context(), func() time.Time { return s.now }, 8*time.Second, c.steps(s), nil)
			require.NoError(t, err)
			require.Equal(t, c.skipped, skipped)
			require.Equal(t, c.took, s.now.Sub(start))
			require.Len(t, s.slices, len(c.slices))
			for i := range c.slices {
				require.InDelta(t, c.slices[i], s.slices[i], float64(time.Microsecond))
			}
		})
	}
}

// Proves that a failing step ends the plan with its name, and a cancelled context with the
// context's error, whatever the step made of it.
func TestPlanStops(t *testing.T) {
	boom := errors.New("boom")
	ran := 0
	count := func(context.Context, time.Duration) error { ran++; return nil }
	_, err := runPlan(t.Context(), time.Now, time.Second, []step{
		{"a", 1, count},
		{"b", 1, func(context.Context, time.Duration) error { return boom }},
		{"c", 1, count},
	}, nil)
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "probe b")
	require.Equal(t, 1, ran)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = runPlan(ctx, time.Now, time.Second, []step{
		{"a", 1, func(context.Context, time.Duration) error { cancel(); return boom }},
		{"b", 1, count},
	}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, boom)
	require.Equal(t, 1, ran)
}

// Proves that the parts of a slice end at equal distances from its start, so that a late part
// does not push the next ones back.
func TestParts(t *testing.T) {
	before := time.Now()
	part := parts(time.Second, 4)
	after := time.Now()
	for i := range 4 {
		d := time.Duration(i+1) * 250 * time.Millisecond
		require.False(t, part(i).Before(before.Add(d)))
		require.False(t, part(i).After(after.Add(d)))
	}
}

// Proves that every value lands in a bucket whose middle is within 1.6 % of it, over the whole
// range of a duration.
func TestHistBuckets(t *testing.T) {
	for v := uint64(1); v < 1<<62; v += v/8 + 1 {
		for _, x := range []uint64{v - 1, v, v + 1} {
			got := histValue(histIndex(x))
			require.InDelta(t, float64(x), float64(got), max(0.016*float64(x), 0.5), "value %d", x)
		}
	}
	require.Less(t, histIndex(1<<63-1), histBuckets)
}

// Proves that quantiles of a merged histogram are those of all samples together, and that an
// empty one has none.
func TestHistQuantiles(t *testing.T) {
	var a, b, empty hist
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(time.Duration(i) * time.Microsecond)
	}
	a.merge(&b)
	require.EqualValues(t, 1000, a.n)
	require.InDelta(t, 500, a.us(0.5), 8)
	require.InDelta(t, 990, a.us(0.99), 16)
	require.InDelta(t, 1, a.us(0), 0.02)
	require.InDelta(t, 1000, a.us(1), 16)
	require.Zero(t, empty.quantile(0.5))
	empty.add(-time.Second) // a clock that stepped counts as zero, not as a panic
	require.Zero(t, empty.quantile(1))
}

// Proves that the median is that of the sorted values and leaves the input alone.
func TestMedian(t *testing.T) {
	v := []float64{5, 1, 3}
	require.InDelta(t, 3, median(v), 0)
	require.Equal(t, []float64{5, 1, 3}, v)
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 0)
	require.Zero(t, median(nil))
}
