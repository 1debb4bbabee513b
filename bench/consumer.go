package bench

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rmq/results"
)

// consumer books what one consumer has got: how long each message took from its due time to here. take is for one
// goroutine, the rest for afterwards.
type consumer struct {
	p        *partRun
	e2e      *hdrhistogram.Histogram
	inWindow int64
	outside  int64 // samples beyond the histogram
	ended    atomic.Bool
}

// newConsumer implements Config.Consumer.
func (p *partRun) newConsumer() func(body []byte) {
	c := &consumer{p: p, e2e: results.NewHistogram()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.consumers = append(p.consumers, c)
	return c.take
}

// take books a message. The window moves while it is open, so both ends are looked at each time.
func (c *consumer) take(body []byte) {
	if len(body) < HeaderBytes || binary.BigEndian.Uint64(body[8:]) != c.p.runID || c.ended.Load() {
		return
	}
	due := int64(binary.BigEndian.Uint64(body)) - c.p.clock.mono
	now := c.p.clock.now()
	t0, t1 := c.p.win.t0.Load(), c.p.win.t1.Load()
	if now >= t0 && now < t1 {
		c.inWindow++
	}
	if due >= t0 && due < t1 && c.e2e.RecordValue(max(0, now-due)) != nil {
		c.outside++
	}
}

// addConsumed puts what the consumers booked into the result. They have come to rest, or are told to.
func (p *partRun) addConsumed(r *results.Result, dur float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.consumers) == 0 {
		return
	}
	all := results.NewHistogram()
	for _, c := range p.consumers {
		c.ended.Store(true)
		all.Merge(c.e2e)
		r.Counts.Consumed += c.inWindow
		r.Counts.OutOfRange += c.outside
	}
	sum := results.Summarize(all)
	r.Latency.EndToEnd = &sum
	r.Throughput.ConsumedPerS = float64(r.Counts.Consumed) / dur
}
