package broker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Meter counts calls, what they counted, and its size, and remembers the last minute, hour and day
// (org.apache.rocketmq.common.stats.StatsItem). Adding takes no lock. Safe for concurrent use.
type Meter struct {
	calls, nums, size atomic.Int64

	mu                sync.Mutex // of the windows
	minute, hour, day meterWindow
}

// Add counts one call.
func (m *Meter) Add(nums, size int64) {
	m.calls.Add(1)
	m.nums.Add(nums)
	m.size.Add(size)
}

// Nums is what was counted so far.
func (m *Meter) Nums() int64 { return m.nums.Load() }

// Size is the size of what was counted so far.
func (m *Meter) Size() int64 { return m.size.Load() }

// meterSample are the counts at a moment, in milliseconds.
type meterSample struct{ at, calls, nums, size int64 }

// meterWindow holds the newest samples, oldest first.
type meterWindow []meterSample

// sample is called every 10 s with its number.
func (m *Meter) sample(tick int64, now time.Time) {
	s := meterSample{now.UnixMilli(), m.calls.Load(), m.nums.Load(), m.size.Load()}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.minute.push(s, time.Minute)
	if tick%60 == 0 || len(m.hour) == 0 {
		m.hour.push(s, time.Hour)
	}
	if tick%360 == 0 || len(m.day) == 0 {
		m.day.push(s, 24*time.Hour)
	}
}

// start makes the counts so far those that the windows begin with.
func (m *Meter) start(now time.Time) { m.sample(0, now) }

// push adds a sample and drops those that begin before the window, but for the newest of them. At rest
// one sample is enough.
func (w *meterWindow) push(s meterSample, length time.Duration) {
	all := append(*w, s)
	old := 0
	for old+1 < len(all) && s.at-all[old].at > length.Milliseconds() {
		old++
	}
	if all[old].calls == s.calls {
		old = len(all) - 1
	}
	*w = append(all[:0], all[old:]...)
}

// Stat is a window of a meter: the sum over it, per second, per call.
type Stat struct {
	Sum        int64
	TPS, AvgPT float64
}

// view is the last minute, hour and day up to now.
func (m *Meter) view(now time.Time, sizes bool) (minute, hour, day Stat) {
	last := meterSample{now.UnixMilli(), m.calls.Load(), m.nums.Load(), m.size.Load()}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.minute.stat(last, sizes), m.hour.stat(last, sizes), m.day.stat(last, sizes)
}

// stat is the window as a whole, up to last.
func (w meterWindow) stat(last meterSample, sizes bool) (s Stat) {
	if len(w) == 0 {
		return s
	}
	first := w[0]
	s.Sum = last.nums - first.nums
	if sizes {
		s.Sum = last.size - first.size
	}
	if took := last.at - first.at; took > 0 {
		s.TPS = float64(s.Sum) * 1000 / float64(took)
	}
	if n := last.calls - first.calls; n > 0 {
		s.AvgPT = float64(s.Sum) / float64(n)
	}
	return s
}
