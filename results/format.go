package results

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// FormatDuration prints a duration with three significant digits and a unit that keeps it
// readable: 950 ns, 12.3 µs, 1.04 ms, 2.5 s.
func FormatDuration(d time.Duration) string { return FormatUS(float64(d) / 1000) }

// FormatUS prints microseconds like FormatDuration.
func FormatUS(us float64) string {
	switch a := math.Abs(us); {
	case math.IsNaN(us) || math.IsInf(us, 0):
		return "n/a"
	case a == 0:
		return "0 µs"
	case a < 0.9995:
		return sig3(us*1000) + " ns"
	case a < 999.5:
		return sig3(us) + " µs"
	case a < 999.5e3:
		return sig3(us/1e3) + " ms"
	}
	return sig3(us/1e6) + " s"
}

// FormatCount prints a count or a rate with three significant digits: 950, 12.3 k, 1.04 M.
func FormatCount(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "n/a"
	}
	scale := CountScale(v)
	return sig3(v/scale) + map[float64]string{1: "", 1e3: " k", 1e6: " M", 1e9: " G"}[scale]
}

// CountScale is what FormatCount divides by: 1, 1e3, 1e6 or 1e9.
func CountScale(v float64) float64 {
	switch a := math.Abs(v); {
	case a < 999.5:
		return 1
	case a < 999.5e3:
		return 1e3
	case a < 999.5e6:
		return 1e6
	}
	return 1e9
}

// FormatSig3 prints three significant digits without an exponent.
func FormatSig3(v float64) string { return sig3(v) }

// FormatRate prints messages per second: "148 k msg/s".
func FormatRate(v float64) string { return FormatCount(v) + " msg/s" }

// FormatBytes prints bytes with three significant digits: 1.06 GiB.
func FormatBytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "n/a"
	}
	i := 0
	for i+1 < len(units) && math.Abs(v) >= 999.5 {
		v /= 1024
		i++
	}
	return sig3(v) + " " + units[i]
}

// sig3 prints three significant digits without an exponent and without trailing zeros behind
// the point beyond those digits.
func sig3(v float64) string {
	a := math.Abs(v)
	switch {
	case a == math.Trunc(a) && a < 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// FormatLike prints v with as many decimals as three significant digits of ref have.
func FormatLike(v, ref float64) string {
	decimals := 2
	switch a := math.Abs(ref); {
	case a >= 99.95:
		decimals = 0
	case a >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

func percent(f float64) string {
	switch p := f * 100; {
	case p == 0:
		return "0 %"
	case math.Abs(p) < 0.1:
		return "< 0.1 %"
	case math.Abs(p) < 10:
		return fmt.Sprintf("%.1f %%", p)
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// FormatPercent prints a share of one as a percentage.
func FormatPercent(f float64) string { return percent(f) }

// FormatPercentile prints percentile p of n samples from its value in µs, or why it is not
// printed.
func FormatPercentile(p, us float64, n int64) string {
	if !SupportsPercentile(p, n) {
		return fmt.Sprintf("n/a (n=%s)", FormatCount(float64(n)))
	}
	return FormatUS(us)
}
