package report

// Ticks are the labels of a linear axis.
func Ticks(lo, hi float64, n int) []float64 { return scale{lo: lo, hi: hi, to: 1}.ticks(n) }
