package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"rmq/internal/run"
	"rmq/results"
)

// Full sizes of the scratch files; a smaller budget shrinks them in proportion.
const (
	syncFileBytes  = 8 << 20   // one flusher's; eight in each of three states
	logFileBytes   = 256 << 20 // flushes, group commit, appends into prepared pages
	seqFileBytes   = 512 << 20 // bandwidth
	appendBytes    = 32 << 20  // one chunk of appends
	folioFileBytes = 8 << 20   // two of them
	copyRangeBytes = 256 << 20 // memory, not disk

	leastFileBytes = 4 << 20
)

// session is one probe under way. Its methods run one at a time; only each starts goroutines,
// and waits for them.
type session struct {
	work   string  // the directory that holds the scratch files
	scale  float64 // of file sizes, 0 to 1
	block  []byte  // 1 MiB of aligned bytes that do not compress; read only
	rng    *rand.Rand
	device device
	logLen int64 // bytes of the log file written so far, 0 before the first use

	limits []results.Limit
	notes  []string
}

// size scales the full size of a file to the budget, in whole blocks.
func (s *session) size(full int64) int64 {
	n := int64(float64(full)*s.scale) &^ (blockBytes - 1)
	return min(max(n, leastFileBytes), full)
}

func (s *session) add(l results.Limit) { s.limits = append(s.limits, l) }

func (s *session) addCell(name, unit string, c *cell) {
	if c.hist.n == 0 {
		return
	}
	s.addTimed(name, unit, c.rate(), &c.hist)
}

// addTimed adds a limit with the quantiles of its single operations.
func (s *session) addTimed(name, unit string, value float64, h *hist) {
	s.add(results.Limit{Name: name, Unit: unit, Value: value, N: h.n, P50: h.us(0.5), P99: h.us(0.99)})
}

// addLatency adds a limit that is a latency: its value is the median, in microseconds.
func (s *session) addLatency(name string, h *hist) {
	if h.n > 0 {
		s.addTimed(name, "us", h.us(0.5), h)
	}
}

func (s *session) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *session) group(ctx context.Context, name string) *run.Group {
	return run.New(ctx, "probe-"+name)
}

// each runs f n times at once and waits for all of them. The first error ends the context that
// the others see.
func (s *session) each(ctx context.Context, name string, n int, f func(ctx context.Context, i int) error) error {
	g := s.group(ctx, name)
	for i := range n {
		g.Go(fmt.Sprintf("%s-%d", name, i), func(ctx context.Context) error { return f(ctx, i) })
	}
	return g.Wait()
}

// openLog opens the file that stands for a commit-log segment, all of it written; the first call writes it.
func (s *session) openLog(ctx context.Context) (file, int64, error) {
	if s.logLen == 0 {
		n, err := s.prewrite(ctx, "log", s.size(logFileBytes), time.Now().Add(2*time.Second))
		if err != nil {
			return file{}, 0, err
		}
		s.logLen = n
	}
	f, err := s.open("log", 0)
	return f, s.logLen, err
}

// rate is n per second of d, 0 when no time passed.
func rate(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
