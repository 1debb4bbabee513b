package report

import (
	"math"
)

// scale maps values to a range of coordinates.
type scale struct {
	lo, hi   float64 // of values
	from, to float64 // of coordinates
	log      bool
}

func (s scale) at(v float64) float64 {
	if s.log {
		return s.from + (math.Log(max(v, s.lo/10))-math.Log(s.lo))/(math.Log(s.hi)-math.Log(s.lo))*(s.to-s.from)
	}
	return s.from + (v-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

// clamp keeps a coordinate inside the range.
func (s scale) clamp(v float64) float64 {
	x := s.at(v)
	return math.Min(math.Max(x, math.Min(s.from, s.to)), math.Max(s.from, s.to))
}

// linearScale covers zero to at least hi, ending on a round number.
func linearScale(hi, from, to float64) scale {
	if hi <= 0 || math.IsNaN(hi) || math.IsInf(hi, 0) {
		hi = 1
	}
	step := niceStep(hi / 3)
	return scale{lo: 0, hi: math.Ceil(hi/step-1e-9) * step, from: from, to: to}
}

// binaryScale is linearScale with round numbers of KiB, MiB or GiB.
func binaryScale(hi, from, to float64) scale {
	unit := 1.0
	for hi/unit >= 1000 {
		unit *= 1024
	}
	s := linearScale(hi/unit, from, to)
	s.hi *= unit
	return s
}

// closeScale covers lo to hi with some air and not necessarily zero.
func closeScale(lo, hi, from, to float64) scale {
	if !(hi > lo) {
		d := math.Max(math.Abs(hi)*0.05, 1e-9)
		lo, hi = lo-d, hi+d
	}
	air := (hi - lo) * 0.12
	return scale{lo: lo - air, hi: hi + air, from: from, to: to}
}

// logScale covers lo to hi in whole steps of 1, 2, 5.
func logScale(lo, hi, from, to float64) scale {
	if lo <= 0 || math.IsNaN(lo) {
		lo = 1
	}
	if hi <= lo || math.IsNaN(hi) {
		hi = lo * 10
	}
	return scale{lo: floor125(lo), hi: ceil125(hi), from: from, to: to, log: true}
}

func floor125(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)+1e-12))
	for _, m := range []float64{5, 2, 1} {
		if p*m <= v*(1+1e-9) {
			return p * m
		}
	}
	return p
}

func ceil125(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)+1e-12))
	for _, m := range []float64{1, 2, 5} {
		if p*m >= v*(1-1e-9) {
			return p * m
		}
	}
	return p * 10
}

func niceStep(raw float64) float64 {
	if raw <= 0 {
		return 1
	}
	return ceil125(raw)
}

// ticks are round values inside the scale, about n of them.
func (s scale) ticks(n int) []float64 {
	var ts []float64
	if s.log {
		all := decades(s, []float64{1, 2, 5})
		if len(all) > n+2 {
			all = decades(s, []float64{1})
		}
		return all
	}
	step := niceStep((s.hi - s.lo) / float64(n))
	for v := math.Ceil(s.lo/step-1e-9) * step; v <= s.hi+step*1e-6; v += step {
		n := math.Round(v / step)
		if step < 1 {
			ts = append(ts, n/math.Round(1/step)+0) // 3 × 0.1 is not 0.3, 3 / 10 is
		} else {
			ts = append(ts, n*step+0) // + 0 turns −0 into 0
		}
	}
	return ts
}

func decades(s scale, ms []float64) []float64 {
	var ts []float64
	for p := math.Pow(10, math.Floor(math.Log10(s.lo))); p <= s.hi; p *= 10 {
		for _, m := range ms {
			if v := p * m; v >= s.lo*(1-1e-9) && v <= s.hi*(1+1e-9) {
				ts = append(ts, v)
			}
		}
	}
	return ts
}

// nines is where a percentile lies on the nines axis: 90 at 1, 99 at 2, 99.9 at 3.
func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }
