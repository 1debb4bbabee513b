package client

import (
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// consumeStats counts what a consumer does per topic, over the last minute or so
// (org.apache.rocketmq.client.stat.ConsumerStatsManager). The zero value is ready; safe for concurrent use.
type consumeStats struct {
	mu     sync.Mutex
	topics map[string]*topicStats
}

// statsWindow is how long a count is kept whole: figures are of the window before and the present one.
const statsWindow = 30 * time.Second

type topicStats struct {
	since     time.Time
	now, last counts
	failed    int64 // ever
}

type counts struct {
	pulls, pulled      int64
	calls, ok, failed  int64
	pullTime, callTime time.Duration
}

func (s *consumeStats) note(topic string, now time.Time, f func(*topicStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics == nil {
		s.topics = map[string]*topicStats{}
	}
	t := s.topics[topic]
	if t == nil {
		t = &topicStats{since: now}
		s.topics[topic] = t
	}
	t.turn(now)
	f(t)
}

func (t *topicStats) turn(now time.Time) {
	switch age := now.Sub(t.since); {
	case age >= 2*statsWindow:
		t.last, t.now, t.since = counts{}, counts{}, now
	case age >= statsWindow:
		t.last, t.now, t.since = t.now, counts{}, t.since.Add(statsWindow)
	}
}

func (s *consumeStats) pulled(topic string, messages int, took time.Duration, now time.Time) {
	s.note(topic, now, func(t *topicStats) {
		t.now.pulls++
		t.now.pulled += int64(messages)
		t.now.pullTime += took
	})
}

func (s *consumeStats) consumed(topic string, messages int, took time.Duration, err error, now time.Time) {
	s.note(topic, now, func(t *topicStats) {
		t.now.calls++
		t.now.callTime += took
		if err == nil {
			t.now.ok += int64(messages)
			return
		}
		t.now.failed += int64(messages)
		t.failed += int64(messages)
	})
}

// table is what GET_CONSUMER_RUNNING_INFO shows.
func (s *consumeStats) table(now time.Time) map[string]protocol.ConsumeStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]protocol.ConsumeStatus{}
	for topic, t := range s.topics {
		t.turn(now)
		window := max(statsWindow+now.Sub(t.since), time.Second).Seconds()
		sum := func(f func(*counts) int64) int64 { return f(&t.last) + f(&t.now) }
		pulls, calls := sum(func(c *counts) int64 { return c.pulls }), sum(func(c *counts) int64 { return c.calls })
		out[topic] = protocol.ConsumeStatus{
			PullRT:            average(t.last.pullTime+t.now.pullTime, pulls),
			PullTPS:           float64(sum(func(c *counts) int64 { return c.pulled })) / window,
			ConsumeRT:         average(t.last.callTime+t.now.callTime, calls),
			ConsumeOKTPS:      float64(sum(func(c *counts) int64 { return c.ok })) / window,
			ConsumeFailedTPS:  float64(sum(func(c *counts) int64 { return c.failed })) / window,
			ConsumeFailedMsgs: t.failed,
		}
	}
	return out
}

// average is in milliseconds.
func average(total time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(total) / float64(time.Millisecond) / float64(n)
}
