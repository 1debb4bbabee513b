package results

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	bootstrapResamples = 10_000
	bcaFrom            = 8       // runs from which the corrected bootstrap is used
	exactFlipsTo       = 20      // pairs up to which every sign pattern is tried
	sampledFlips       = 100_000 // patterns tried beyond
	pairsForVerdict    = 6       // below, the smallest two-sided p is above 0.05
	statsSeed          = 20261124
)

// Median is the middle value, or the mean of the two in the middle; NaN of nothing.
func Median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	return medianSorted(s)
}

func medianSorted(s []float64) float64 {
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// GeometricMean is the n-th root of the product of positive values; NaN of nothing.
func GeometricMean(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, x := range xs {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(xs)))
}

// quantile interpolates linearly between order statistics of a sorted slice.
func quantile(sorted []float64, q float64) float64 {
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	h := q * float64(n-1)
	i := int(math.Floor(h))
	if i+1 >= n {
		return sorted[n-1]
	}
	return sorted[i] + (h-float64(i))*(sorted[i+1]-sorted[i])
}

// Interval is a 95 % interval. It is not Known with fewer than two runs.
type Interval struct {
	Lo    float64 `json:"lo"`
	Hi    float64 `json:"hi"`
	Known bool    `json:"known"`
}

// Contains reports whether v lies in a known interval.
func (i Interval) Contains(v float64) bool { return i.Known && i.Lo <= v && v <= i.Hi }

// BootstrapMedian is the 95 % bootstrap interval of the median over runs: 10,000 resamples from a
// seeded source; bias-corrected and accelerated from 8 runs on, percentile below.
func BootstrapMedian(xs []float64, seed int64) Interval {
	n := len(xs)
	if n < 2 {
		return Interval{}
	}
	rng := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	meds := make([]float64, bootstrapResamples)
	buf := make([]float64, n)
	for i := range meds {
		for j := range buf {
			buf[j] = xs[rng.IntN(n)]
		}
		slices.Sort(buf)
		meds[i] = medianSorted(buf)
	}
	slices.Sort(meds)
	lo, hi := 0.025, 0.975
	if n >= bcaFrom {
		lo, hi = bcaLevels(xs, meds)
	}
	return Interval{Lo: quantile(meds, lo), Hi: quantile(meds, hi), Known: true}
}

// bcaLevels moves the two percentile levels by the bias of the bootstrap distribution and by the
// acceleration that the jackknife shows (Efron 1987).
func bcaLevels(xs, sortedBoot []float64) (lo, hi float64) {
	est := Median(xs)
	below, equal := 0, 0
	for _, b := range sortedBoot {
		switch {
		case b < est:
			below++
		case b == est:
			equal++
		}
	}
	// Medians of resamples tie with the estimate often; a tie counts half.
	p0 := (float64(below) + float64(equal)/2) / float64(len(sortedBoot))
	if p0 <= 0 || p0 >= 1 {
		return 0.025, 0.975
	}
	z0 := normalQuantile(p0)

	n := len(xs)
	jack := make([]float64, n)
	rest := make([]float64, 0, n-1)
	mean := 0.0
	for i := range xs {
		rest = append(append(rest[:0], xs[:i]...), xs[i+1:]...)
		jack[i] = Median(rest)
		mean += jack[i] / float64(n)
	}
	var num, den float64
	for _, j := range jack {
		d := mean - j
		num += d * d * d
		den += d * d
	}
	a := 0.0
	if den > 0 {
		a = num / (6 * math.Pow(den, 1.5))
	}
	level := func(z float64) float64 {
		w := z0 + z
		return normalCDF(z0 + w/(1-a*w))
	}
	const z975 = 1.959963984540054
	return level(-z975), level(z975)
}

func normalCDF(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }

func normalQuantile(p float64) float64 { return -math.Sqrt2 * math.Erfcinv(2*p) }

// WithinRun is the 95 % interval of percentile p inside one run, from its interval histograms in
// order of time: a moving-block bootstrap, because seconds that follow each other are alike
// (Künsch 1989). It says how far a single run pins its own percentile down, and nothing about the
// next run. Fewer than three blocks give no interval.
func WithinRun(seconds []*hdrhistogram.Histogram, p float64, seed int64) Interval {
	const block, resamples = 5, 1000
	n := len(seconds)
	if n < 3*block {
		return Interval{}
	}
	// Dense counts over the values that occur, so that a resample is a sum of rows.
	index := map[int64]int{}
	var values []int64
	for _, h := range seconds {
		for _, bar := range h.Distribution() {
			if _, ok := index[bar.To]; bar.Count > 0 && !ok {
				index[bar.To] = 0
				values = append(values, bar.To)
			}
		}
	}
	slices.Sort(values)
	for i, v := range values {
		index[v] = i
	}
	rows := make([][]int64, n-block+1)
	for i := range rows {
		rows[i] = make([]int64, len(values))
		for _, h := range seconds[i : i+block] {
			for _, bar := range h.Distribution() {
				if bar.Count > 0 {
					rows[i][index[bar.To]] += bar.Count
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	sum := make([]int64, len(values))
	out := make([]float64, resamples)
	for i := range out {
		clear(sum)
		total := int64(0)
		for range (n + block - 1) / block {
			for j, c := range rows[rng.IntN(len(rows))] {
				sum[j] += c
				total += c
			}
		}
		rank := int64(math.Ceil(p / 100 * float64(total)))
		for j, c := range sum {
			if rank -= c; rank <= 0 {
				out[i] = float64(values[j]) / 1000
				break
			}
		}
	}
	slices.Sort(out)
	return Interval{Lo: quantile(out, 0.025), Hi: quantile(out, 0.975), Known: true}
}

// SignFlipP is the two-sided p of "the paired differences are symmetric about zero". Every sign
// pattern is tried up to 20 pairs; beyond, 100,000 seeded ones. The statistic is the absolute sum.
func SignFlipP(diffs []float64) float64 {
	n := len(diffs)
	if n == 0 {
		return 1
	}
	sum, scale := 0.0, 0.0
	for _, d := range diffs {
		sum += d
		scale += math.Abs(d)
	}
	least := math.Abs(sum) - 1e-9*scale // ties count, rounding aside
	if n > exactFlipsTo {
		return sampledFlipP(diffs, least)
	}
	// Walk all patterns in Gray-code order: each step flips one sign.
	cur := sum
	sign := make([]float64, n)
	for i := range sign {
		sign[i] = 1
	}
	hits := 0
	for k := uint64(0); ; k++ {
		if math.Abs(cur) >= least {
			hits++
		}
		if k == 1<<n-1 {
			break
		}
		i := bits.TrailingZeros64(k + 1)
		sign[i] = -sign[i]
		cur += 2 * sign[i] * diffs[i]
	}
	return float64(hits) / float64(uint64(1)<<n)
}

func sampledFlipP(diffs []float64, least float64) float64 {
	rng := rand.New(rand.NewPCG(statsSeed, uint64(len(diffs))))
	hits := 1 // the pattern that was seen
	for range sampledFlips {
		s := 0.0
		for _, d := range diffs {
			if rng.Uint64()&1 == 0 {
				d = -d
			}
			s += d
		}
		if math.Abs(s) >= least {
			hits++
		}
	}
	return float64(hits) / float64(sampledFlips+1)
}

// UnpairedP is the two-sided permutation p of "a and b come from one source", by the absolute
// difference of means, over seeded shuffles of the labels.
func UnpairedP(a, b []float64) float64 {
	if len(a) == 0 || len(b) == 0 {
		return 1
	}
	all := append(slices.Clone(a), b...)
	diff := func(s []float64) float64 {
		var x, y float64
		for i, v := range s {
			if i < len(a) {
				x += v / float64(len(a))
			} else {
				y += v / float64(len(b))
			}
		}
		return math.Abs(x - y)
	}
	seen := diff(all)
	least := seen - 1e-12*math.Abs(seen)
	rng := rand.New(rand.NewPCG(statsSeed, uint64(len(all))))
	const shuffles = 20_000
	hits := 1
	for range shuffles {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if diff(all) >= least {
			hits++
		}
	}
	return float64(hits) / (shuffles + 1)
}

// Holm corrects p values for having looked at all of them (Holm 1979). The order is kept.
func Holm(ps []float64) []float64 {
	idx := make([]int, len(ps))
	for i := range idx {
		idx[i] = i
	}
	sort.SliceStable(idx, func(i, j int) bool { return ps[idx[i]] < ps[idx[j]] })
	out := make([]float64, len(ps))
	worst := 0.0
	for rank, i := range idx {
		worst = max(worst, min(1, ps[i]*float64(len(ps)-rank)))
		out[i] = worst
	}
	return out
}

// TukeyOutliers lists the indexes of values beyond the inner fences, 1.5 interquartile ranges
// from the quartiles. They are flagged and never removed. Below four values there are none.
func TukeyOutliers(xs []float64) []int {
	if len(xs) < 4 {
		return nil
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	q1, q3 := quantile(s, 0.25), quantile(s, 0.75)
	lo, hi := q1-1.5*(q3-q1), q3+1.5*(q3-q1)
	var out []int
	for i, x := range xs {
		if x < lo || x > hi {
			out = append(out, i)
		}
	}
	return out
}

// Estimate is the value of a cell over its repetitions.
type Estimate struct {
	Median   float64   `json:"median"`
	Interval Interval  `json:"interval"`
	N        int       `json:"n"`
	Values   []float64 `json:"values"`             // by block
	Outliers []int     `json:"outliers,omitempty"` // indexes into Values
}

// EstimateOf takes the median over runs, its interval and its outliers.
func EstimateOf(xs []float64) Estimate {
	if len(xs) == 0 {
		return Estimate{}
	}
	return Estimate{
		Median:   Median(xs),
		Interval: BootstrapMedian(xs, statsSeed),
		N:        len(xs),
		Values:   slices.Clone(xs),
		Outliers: TukeyOutliers(xs),
	}
}

// Verdict is the word for a ratio.
type Verdict string

// Verdicts.
const (
	Faster        Verdict = "faster"
	Slower        Verdict = "slower"
	Same          Verdict = "same"
	Inconclusive  Verdict = "inconclusive"
	NotComparable Verdict = "not comparable"
)

// Ratio is a comparison in one number: above one means that the second side does better.
type Ratio struct {
	Value    float64  `json:"ratio"`
	Interval Interval `json:"interval"`
	Paired   bool     `json:"paired"`
	N        int      `json:"n"` // pairs, or the smaller side
	P        float64  `json:"p"`
	PHolm    float64  `json:"p_holm"` // corrected over the cells of one report
	Verdict  Verdict  `json:"verdict"`
	// Indicative: too few pairs, or too large a corrected p, to call the verdict significant.
	Indicative bool    `json:"indicative"`
	Band       float64 `json:"band"`
}

// PairedRatio compares pairs from the same blocks by the median of their log-ratios b/a.
// Values must be positive; others make the ratio not comparable.
func PairedRatio(a, b []float64, band float64) Ratio {
	logs := make([]float64, 0, len(a))
	for i := range a {
		if a[i] <= 0 || b[i] <= 0 {
			return Ratio{Verdict: NotComparable, Band: band}
		}
		logs = append(logs, math.Log(b[i]/a[i]))
	}
	if len(logs) == 0 {
		return Ratio{Verdict: NotComparable, Band: band}
	}
	return ratioOfLogs(logs, band)
}

func ratioOfLogs(logs []float64, band float64) Ratio {
	iv := BootstrapMedian(logs, statsSeed)
	r := Ratio{Value: math.Exp(Median(logs)), Paired: true, N: len(logs), P: SignFlipP(logs), Band: band}
	if iv.Known {
		r.Interval = Interval{Lo: math.Exp(iv.Lo), Hi: math.Exp(iv.Hi), Known: true}
	}
	r.PHolm = r.P
	r.judge()
	return r
}

// UnpairedRatio compares two sets of runs that share no blocks: ratio of medians, both sides
// resampled.
func UnpairedRatio(a, b []float64, band float64) Ratio {
	la, lb := logs(a), logs(b)
	if la == nil || lb == nil {
		return Ratio{Verdict: NotComparable, Band: band}
	}
	r := Ratio{Value: math.Exp(Median(lb) - Median(la)), N: min(len(a), len(b)), P: UnpairedP(la, lb), Band: band}
	if len(a) >= 2 && len(b) >= 2 {
		rng := rand.New(rand.NewPCG(statsSeed, uint64(len(a))<<32|uint64(len(b))))
		ds := make([]float64, bootstrapResamples)
		bufA, bufB := make([]float64, len(la)), make([]float64, len(lb))
		for i := range ds {
			ds[i] = resampledMedian(rng, lb, bufB) - resampledMedian(rng, la, bufA)
		}
		slices.Sort(ds)
		r.Interval = Interval{Lo: math.Exp(quantile(ds, 0.025)), Hi: math.Exp(quantile(ds, 0.975)), Known: true}
	}
	r.PHolm = r.P
	r.judge()
	return r
}

func resampledMedian(rng *rand.Rand, xs, buf []float64) float64 {
	for j := range buf {
		buf[j] = xs[rng.IntN(len(xs))]
	}
	slices.Sort(buf)
	return medianSorted(buf)
}

func logs(xs []float64) []float64 {
	if len(xs) == 0 {
		return nil
	}
	out := make([]float64, len(xs))
	for i, x := range xs {
		if x <= 0 {
			return nil
		}
		out[i] = math.Log(x)
	}
	return out
}

// judge picks the word from interval, band and corrected p.
func (r *Ratio) judge() {
	r.Indicative = false
	switch iv := r.Interval; {
	case !iv.Known:
		r.Verdict = Inconclusive
	case iv.Lo >= 1-r.Band && iv.Hi <= 1+r.Band:
		r.Verdict = Same
		r.Indicative = r.N < pairsForVerdict
	case iv.Lo > 1:
		r.Verdict = Faster
		r.Indicative = r.N < pairsForVerdict || r.PHolm > 0.05
	case iv.Hi < 1:
		r.Verdict = Slower
		r.Indicative = r.N < pairsForVerdict || r.PHolm > 0.05
	default:
		r.Verdict = Inconclusive
	}
}

// holmOver corrects the p values of all ratios together and judges them again.
func holmOver(rs []*Ratio) {
	var ps []float64
	var of []*Ratio
	for _, r := range rs {
		if r.Verdict != NotComparable {
			ps, of = append(ps, r.P), append(of, r)
		}
	}
	for i, p := range Holm(ps) {
		of[i].PHolm = p
		of[i].judge()
	}
}
