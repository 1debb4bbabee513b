package probe

import (
	"math/bits"
	"time"
)

const (
	histSubBits = 6 // 64 buckets an octave: an error of at most 1.6 %
	histBuckets = (64 - histSubBits + 1) << histSubBits
)

// hist is a log-linear histogram of durations in nanoseconds. It is filled by one goroutine.
type hist struct {
	n      int64
	sum    int64
	counts [histBuckets]uint32
}

func histIndex(v uint64) int {
	if v < 1<<histSubBits {
		return int(v)
	}
	exp := bits.Len64(v) - histSubBits - 1
	return exp<<histSubBits + int(v>>exp)
}

// histValue is the middle of bucket i.
func histValue(i int) int64 {
	if i < 2<<histSubBits {
		return int64(i)
	}
	exp := i>>histSubBits - 1
	low := uint64(i-exp<<histSubBits) << exp
	return int64(low + 1<<exp/2)
}

func (h *hist) add(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.sum += int64(d)
	h.counts[histIndex(uint64(d))]++
}

func (h *hist) merge(o *hist) {
	h.n += o.n
	h.sum += o.sum
	for i, c := range o.counts {
		h.counts[i] += c
	}
}

// us is [hist.quantile] in microseconds.
func (h *hist) us(q float64) float64 { return float64(h.quantile(q)) / 1e3 }

// quantile is the value below which a share q of the samples lies, 0 without samples.
func (h *hist) quantile(q float64) time.Duration {
	want := int64(q*float64(h.n) + 0.5)
	want = min(max(want, 1), h.n)
	var seen int64
	for i, c := range h.counts {
		if seen += int64(c); seen >= want && c > 0 {
			return time.Duration(histValue(i))
		}
	}
	return 0
}
