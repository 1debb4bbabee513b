package broker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram counts values by size. Observing takes no lock and allocates nothing. Make it with newHistogram.
type histogram struct {
	bounds []int64 // upper ones, ascending
	counts []atomic.Uint64
	sum    atomic.Int64
}

func newHistogram(bounds []int64) *histogram {
	return &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// add counts n values of v each.
func (h *histogram) add(v, n int64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(uint64(n))
	h.sum.Add(v * n)
}

// metric is the histogram as Prometheus knows it; values are divided by unit.
func (h *histogram) metric(d *prometheus.Desc, unit float64, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.bounds))
	var total uint64
	for i, b := range h.bounds {
		total += h.counts[i].Load()
		buckets[float64(b)/unit] = total
	}
	total += h.counts[len(h.bounds)].Load()
	return prometheus.MustNewConstHistogram(d, total, float64(h.sum.Load())/unit, buckets, labels...)
}

// Bounds of the histograms of Apache: bytes of a message; nanoseconds of a request and of a creation.
var (
	sizeBounds   = []int64{1 << 10, 4 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}
	rpcBounds    = millis(1, 3, 5, 7, 10, 100, 1000, 2000, 3000)
	createBounds = millis(10, 100, 1000, 3000, 5000)
)

func millis(ms ...int64) []int64 {
	for i := range ms {
		ms[i] *= nanosPerMilli
	}
	return ms
}

const nanosPerMilli = 1_000_000
