package results

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Proves the permutation test against answers that can be counted by hand: with n pairs of one
// sign only two of 2^n patterns are as extreme.
func TestSignFlipKnownAnswers(t *testing.T) {
	require.Equal(t, 0.03125, SignFlipP([]float64{1, 2, 3, 1, 2, 5}))
	require.Equal(t, 0.03125, SignFlipP([]float64{-1, -2, -3, -1, -2, -5}))
	require.Equal(t, 0.0625, SignFlipP([]float64{.1, .1, .1, .1, .1}))
	require.Equal(t, 1.0, SignFlipP(nil))
	require.Equal(t, 1.0, SignFlipP([]float64{0, 0, 0}))
	// 3 + 2 − 1 = 4. Sums of ±3 ±2 ±1 at least 4 apart from zero: 6, 4 (3+2−1), and their mirrors.
	require.Equal(t, 0.5, SignFlipP([]float64{3, 2, -1}))
	ones := make([]float64, 20)
	for i := range ones {
		ones[i] = 1 + float64(i)/100
	}
	require.Equal(t, 2/math.Pow(2, 20), SignFlipP(ones))
}

// Proves that the Gray-code walk visits every pattern: it agrees with plain enumeration.
func TestSignFlipAgainstEnumeration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := rapid.SliceOfN(rapid.Float64Range(-2, 2), 1, 10).Draw(t, "diffs")
		sum, scale := 0.0, 0.0
		for _, d := range ds {
			sum, scale = sum+d, scale+math.Abs(d)
		}
		hits := 0
		for mask := range 1 << len(ds) {
			s := 0.0
			for i, d := range ds {
				if mask>>i&1 == 1 {
					d = -d
				}
				s += d
			}
			if math.Abs(s) >= math.Abs(sum)-1e-9*scale {
				hits++
			}
		}
		require.InDelta(t, float64(hits)/float64(int(1)<<len(ds)), SignFlipP(ds), 1e-12)
	})
}

// Proves that beyond twenty pairs the sampled p is near the exact one.
func TestSignFlipSampled(t *testing.T) {
	ds := make([]float64, 24)
	for i := range ds {
		ds[i] = 1
	}
	// The sum of 24 signs is at least 8 in size with probability …; here 16 of one sign, 8 of the other.
	for i := range 8 {
		ds[i] = -1
	}
	exact := 0.0
	for k := 16; k <= 24; k++ {
		exact += 2 * binomial(24, k) / math.Pow(2, 24)
	}
	require.InDelta(t, exact, SignFlipP(ds), 0.005)
}

func binomial(n, k int) float64 {
	v := 1.0
	for i := range k {
		v = v * float64(n-i) / float64(i+1)
	}
	return v
}

// Proves Holm's correction on a worked example: 0.01·4, 0.03·3, 0.04·2 held up by 0.09, 0.005 … in
// the order given.
func TestHolmExample(t *testing.T) {
	got := Holm([]float64{0.01, 0.04, 0.03, 0.005})
	want := []float64{0.03, 0.06, 0.06, 0.02}
	for i := range want {
		require.InDelta(t, want[i], got[i], 1e-12, "p[%d]", i)
	}
	require.Equal(t, []float64{1, 1}, Holm([]float64{0.9, 0.8}))
	require.Empty(t, Holm(nil))
}

// Proves that the bootstrap interval covers the true median about as often as it says, with the
// percentile method (n = 6) and the corrected one (n = 12), on skewed data.
func TestBootstrapCoverage(t *testing.T) {
	for _, n := range []int{6, 12} {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		const trials = 100
		covered := 0
		for range trials {
			xs := make([]float64, n)
			for i := range xs {
				xs[i] = math.Exp(0.5 * rng.NormFloat64()) // median 1
			}
			if BootstrapMedian(xs, 7).Contains(1) {
				covered++
			}
		}
		t.Logf("n=%d: covered %d of %d", n, covered, trials)
		require.GreaterOrEqual(t, covered, trials*87/100, "n=%d", n)
		require.LessOrEqual(t, covered, trials, "n=%d", n)
	}
}

// Proves that the interval is a pure function of values and seed, contains the median, and says
// nothing about a single run.
func TestBootstrapIsDeterministic(t *testing.T) {
	xs := []float64{10, 11, 12, 9, 10.5, 30, 10.2, 11.1, 10.8}
	a, b := BootstrapMedian(xs, 3), BootstrapMedian(xs, 3)
	require.Equal(t, a, b)
	require.True(t, a.Contains(Median(xs)))
	require.Less(t, a.Hi, 30.0, "one outlier must not own the interval of a median")
	require.False(t, BootstrapMedian(xs[:1], 3).Known)
	same := BootstrapMedian([]float64{5, 5, 5}, 3)
	require.Equal(t, Interval{Lo: 5, Hi: 5, Known: true}, same)
}

// Proves the interval inside a run: around the percentile of the whole, narrow when all seconds are
// alike, wide when a stretch of them is slow, absent when there are too few.
func TestWithinRun(t *testing.T) {
	run := func(slow func(sec int) bool) []*hdrhistogram.Histogram {
		rng := rand.New(rand.NewPCG(5, 6))
		var hs []*hdrhistogram.Histogram
		for sec := range 30 {
			h := NewHistogram()
			for range 500 {
				ns := 100_000 * math.Exp(0.3*rng.NormFloat64())
				if slow(sec) {
					ns *= 10
				}
				require.NoError(t, h.RecordValue(int64(ns)))
			}
			hs = append(hs, h)
		}
		return hs
	}
	even := WithinRun(run(func(int) bool { return false }), 99, 1)
	require.Greater(t, even.Lo, 190.0, "the 99th percentile of this distribution is 201 µs")
	require.Less(t, even.Hi, 212.0)
	require.Less(t, even.Hi/even.Lo, 1.15)
	uneven := WithinRun(run(func(sec int) bool { return sec >= 10 && sec < 13 }), 99, 1)
	require.Greater(t, uneven.Hi/uneven.Lo, 2.0)
	require.False(t, WithinRun(run(func(int) bool { return false })[:14], 99, 1).Known)
}

// Proves medians, quartile fences and geometric means on small sets.
func TestSmallStatistics(t *testing.T) {
	require.Equal(t, 2.0, Median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, Median([]float64{4, 1, 2, 3}))
	require.True(t, math.IsNaN(Median(nil)))
	require.InDelta(t, 4, GeometricMean([]float64{2, 8}), 1e-12)
	require.Equal(t, []int{5}, TukeyOutliers([]float64{10, 11, 12, 11, 10, 40}))
	require.Empty(t, TukeyOutliers([]float64{10, 11, 12, 11, 10, 13}))
	require.Empty(t, TukeyOutliers([]float64{1, 100, 10000}), "three values have no fences")
	e := EstimateOf([]float64{10, 11, 12, 11, 10, 40})
	require.Equal(t, 6, e.N, "an outlier is flagged, not removed")
	require.Equal(t, 11.0, e.Median)
}

// Proves each verdict word at its boundary, and that few pairs only indicate.
func TestVerdictWords(t *testing.T) {
	scale := func(a []float64, f ...float64) []float64 {
		b := make([]float64, len(a))
		for i := range a {
			b[i] = a[i] * f[i%len(f)]
		}
		return b
	}
	six := []float64{100, 104, 97, 101, 99, 103}
	r := PairedRatio(six, scale(six, 1.2, 1.21, 1.19), 0.03)
	require.Equal(t, Faster, r.Verdict)
	require.False(t, r.Indicative)
	require.InDelta(t, 1.2, r.Value, 0.01)
	require.Equal(t, 0.03125, r.P)

	r = PairedRatio(six, scale(six, 0.8, 0.81), 0.03)
	require.Equal(t, Slower, r.Verdict)

	r = PairedRatio(six, scale(six, 1.01, 0.995, 1.005), 0.03)
	require.Equal(t, Same, r.Verdict)

	r = PairedRatio(six, scale(six, 1.3, 0.8), 0.03)
	require.Equal(t, Inconclusive, r.Verdict)

	r = PairedRatio(six[:5], scale(six[:5], 1.2, 1.21, 1.19), 0.03)
	require.Equal(t, Faster, r.Verdict)
	require.True(t, r.Indicative, "five pairs cannot reach p = 0.05")

	r = PairedRatio(six[:1], scale(six[:1], 2), 0.03)
	require.Equal(t, Inconclusive, r.Verdict, "one pair has no interval")

	require.Equal(t, NotComparable, PairedRatio([]float64{0}, []float64{1}, 0.03).Verdict)
	require.Equal(t, NotComparable, PairedRatio(nil, nil, 0.03).Verdict)
}

// Proves that looking at many cells weakens a verdict: four cells at p = 0.03 are no longer
// significant, and say so.
func TestHolmTurnsVerdictsIndicative(t *testing.T) {
	a := []float64{100, 104, 97, 101, 99, 103}
	b := slices.Clone(a)
	for i := range b {
		b[i] *= 1.2 + float64(i)/1000
	}
	var rs []*Ratio
	for range 4 {
		r := PairedRatio(a, b, 0.03)
		rs = append(rs, &r)
	}
	holmOver(rs)
	require.InDelta(t, 0.125, rs[0].PHolm, 1e-12)
	require.Equal(t, Faster, rs[0].Verdict)
	require.True(t, rs[0].Indicative)
}

// Proves the unpaired path: clearly apart, the same, and too few to tell.
func TestUnpairedRatio(t *testing.T) {
	a := []float64{100, 101, 99, 102, 98, 100}
	b := []float64{80, 81, 79, 80, 82, 78}
	r := UnpairedRatio(a, b, 0.03)
	require.Equal(t, Slower, r.Verdict)
	require.InDelta(t, 0.8, r.Value, 0.01)
	require.Less(t, r.P, 0.01)
	require.False(t, r.Paired)
	require.Equal(t, Same, UnpairedRatio(a, a, 0.03).Verdict)
	require.False(t, UnpairedRatio(a[:1], b[:1], 0.03).Interval.Known)
}

// Proves that a percentile is printed only where at least ten samples lie above it.
func TestPercentilePrintRules(t *testing.T) {
	require.True(t, SupportsPercentile(99.9, 10_000))
	require.False(t, SupportsPercentile(99.9, 9_999))
	require.True(t, SupportsPercentile(99.99, 100_000))
	require.False(t, SupportsPercentile(99.99, 99_999))
	require.Equal(t, "n/a (n=950)", FormatPercentile(99.9, 12, 950))
	require.Equal(t, "1.12 ms", FormatPercentile(99.9, 1120, 10_000))
}

// Proves that numbers carry three digits and a unit at every magnitude.
func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{FormatUS(0), "0 µs"}, {FormatUS(0.25), "250 ns"}, {FormatUS(9.99), "9.99 µs"}, {FormatUS(123.4), "123 µs"},
		{FormatUS(1040), "1.04 ms"}, {FormatUS(2.5e6), "2.50 s"}, {FormatUS(math.NaN()), "n/a"},
		{FormatRate(148_213), "148 k msg/s"}, {FormatRate(1.04e6), "1.04 M msg/s"}, {FormatRate(950), "950 msg/s"},
		{FormatBytes(1.06 * (1 << 30)), "1.06 GiB"}, {FormatBytes(999), "999 B"},
		{FormatSize(1024), "1KiB"}, {FormatSize(100), "100B"}, {FormatSize(0), "0B"}, {FormatSize(4 << 30), "4GiB"},
		{FormatPercent(0.884), "88 %"}, {FormatPercent(0.031), "3.1 %"}, {FormatPercent(0), "0 %"}, {FormatPercent(0.0001), "< 0.1 %"},
	} {
		require.Equal(t, c.want, c.got)
	}
}
