package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// statsPeriod is how often rates are sampled; meters take every 10th.
const statsPeriod = time.Second

// BrokerStats counts what goes through a broker (org.apache.rocketmq.store.stats.BrokerStatsManager and
// org.apache.rocketmq.store.StoreStatsService). Counting takes no lock and allocates nothing for topics
// and groups that were seen before. Safe for concurrent use.
type BrokerStats struct {
	Boot time.Time

	clock  func() time.Time
	topics *shardMap[*TopicStats]
	groups *shardMap[*GroupStats] // by topic@group
	put    Meter                  // BROKER_PUT_NUMS
	get    Meter                  // BROKER_GET_NUMS

	found, miss, transferred, failed atomic.Int64
	putTook                          latencyBuckets
	getMax                           atomic.Int64 // nanoseconds
	sendTook, pullTook               *histogram

	mu      sync.Mutex
	ticks   int64
	rates   []rateSample // a ring, one a second
	day     int          // of the month of the last sample
	morning struct{ put, putBefore, get, getBefore int64 }
}

// TopicStats counts what was sent to a topic.
type TopicStats struct {
	Put   Meter
	sizes *histogram
}

// GroupStats counts what a group got from a topic.
type GroupStats struct {
	Get      Meter
	SendBack Meter
	DLQ      Meter

	queues atomic.Pointer[[]*Meter] // time from request to answer, milliseconds, by queue
	grow   sync.Mutex
}

func newBrokerStats(clock func() time.Time) *BrokerStats {
	now := clock()
	s := &BrokerStats{
		Boot: now, clock: clock, topics: newShardMap[*TopicStats](), groups: newShardMap[*GroupStats](), day: now.YearDay(),
		sendTook: newHistogram(rpcBounds), pullTook: newHistogram(rpcBounds),
	}
	s.sample()
	return s
}

// Topic is where sends to a topic are counted.
func (s *BrokerStats) Topic(topic []byte) *TopicStats {
	if t, ok := s.topics.getBytes(topic); ok {
		return t
	}
	return s.topics.getOrMake(string(topic), func() *TopicStats {
		t := &TopicStats{sizes: newHistogram(sizeBounds)}
		t.Put.start(s.clock())
		return t
	})
}

// Group is where pulls of a group from a topic are counted.
func (s *BrokerStats) Group(group, topic []byte) *GroupStats {
	var buf [512]byte
	key := append(append(append(buf[:0], topic...), topicGroupSeparator...), group...)
	if g, ok := s.groups.getBytes(key); ok {
		return g
	}
	return s.groups.getOrMake(string(key), func() *GroupStats {
		g := &GroupStats{}
		g.meters(func(m *Meter) { m.start(s.clock()) })
		return g
	})
}

// Sent counts one send that was stored: so many messages of so many bytes in the log, in this time.
func (s *BrokerStats) Sent(t *TopicStats, messages, bytes int64, took time.Duration) {
	t.Put.Add(messages, bytes)
	t.sizes.add(bytes/max(messages, 1), messages)
	s.put.Add(messages, bytes)
	s.putTook.add(took)
	s.sendTook.add(int64(took), 1)
}

// SendFailed counts a send that was not stored.
func (s *BrokerStats) SendFailed() { s.failed.Add(1) }

// Pulled counts one pull that found messages.
func (s *BrokerStats) Pulled(g *GroupStats, queueID int32, messages, bytes int64, took time.Duration) {
	g.Get.Add(messages, bytes)
	s.get.Add(messages, bytes)
	s.found.Add(1)
	s.transferred.Add(messages)
	s.pullTook.add(int64(took), 1)
	storeMax(&s.getMax, int64(took))
	if q := g.queue(queueID, s.clock); q != nil {
		q.Add(took.Milliseconds(), 0)
	}
}

// PullMissed counts one pull that found nothing.
func (s *BrokerStats) PullMissed(took time.Duration) {
	s.miss.Add(1)
	storeMax(&s.getMax, int64(took))
}

func storeMax(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

func (g *GroupStats) queue(id int32, clock func() time.Time) *Meter {
	if qs := g.queues.Load(); qs != nil && id >= 0 && int(id) < len(*qs) && (*qs)[id] != nil {
		return (*qs)[id]
	}
	if id < 0 || id >= maxQueueID {
		return nil
	}
	g.grow.Lock()
	defer g.grow.Unlock()
	var next []*Meter
	if qs := g.queues.Load(); qs != nil {
		next = slices.Clone(*qs)
	}
	next = append(next, make([]*Meter, max(0, int(id)+1-len(next)))...)
	if next[id] == nil {
		next[id] = &Meter{}
		next[id].start(clock())
	}
	g.queues.Store(&next)
	return next[id]
}

func (g *GroupStats) meters(f func(*Meter)) {
	f(&g.Get)
	f(&g.SendBack)
	f(&g.DLQ)
	if qs := g.queues.Load(); qs != nil {
		for _, q := range *qs {
			if q != nil {
				f(q)
			}
		}
	}
}

// RemoveTopic forgets a topic.
func (s *BrokerStats) RemoveTopic(topic string) {
	s.topics.remove(topic)
	s.removeGroups(func(t, _ string) bool { return t == topic })
}

// RemoveGroup forgets a group.
func (s *BrokerStats) RemoveGroup(group string) {
	s.removeGroups(func(_, g string) bool { return g == group })
}

func (s *BrokerStats) removeGroups(match func(topic, group string) bool) {
	s.groups.each(func(key string, _ *GroupStats) bool {
		if topic, group, _ := strings.Cut(key, topicGroupSeparator); match(topic, group) {
			s.groups.remove(key)
		}
		return true
	})
}

// meter finds a meter by the names that tools use; ok is false when nothing was ever counted there.
func (s *BrokerStats) meter(name, key string) (m *Meter, sizes, ok bool) {
	var t *TopicStats
	var g *GroupStats
	switch name {
	case "BROKER_PUT_NUMS", "BROKER_GET_NUMS":
		if name == "BROKER_PUT_NUMS" {
			return &s.put, false, true
		}
		return &s.get, false, true
	case "TOPIC_PUT_NUMS", "TOPIC_PUT_SIZE":
		if t, ok = s.topics.get(key); ok {
			return &t.Put, name == "TOPIC_PUT_SIZE", true
		}
		return nil, false, false
	case "GROUP_GET_LATENCY":
		queue, rest, _ := strings.Cut(key, topicGroupSeparator)
		id, err := strconv.ParseInt(queue, 10, 32)
		g, ok = s.groups.get(rest)
		if err != nil || !ok || g.queues.Load() == nil || id < 0 || int(id) >= len(*g.queues.Load()) {
			return nil, false, false
		}
		m = (*g.queues.Load())[id]
		return m, false, m != nil
	}
	if g, ok = s.groups.get(key); !ok {
		return nil, false, false
	}
	switch name {
	case "GROUP_GET_NUMS", "GROUP_GET_SIZE":
		m = &g.Get
	case "SNDBCK_PUT_NUMS":
		m = &g.SendBack
	case "DLQ_PUT_NUMS":
		m = &g.DLQ
	default:
		return nil, false, false
	}
	return m, name == "GROUP_GET_SIZE", m.calls.Load() > 0
}

// View is what VIEW_BROKER_STATS_DATA shows: the last minute, hour and day of a meter.
func (s *BrokerStats) View(name, key string) (minute, hour, day Stat, ok bool) {
	m, sizes, ok := s.meter(name, key)
	if !ok {
		return minute, hour, day, false
	}
	minute, hour, day = m.view(s.clock(), sizes)
	return minute, hour, day, true
}

// TPS is messages a second over the last minute, of one of the counts that View knows.
func (s *BrokerStats) TPS(name, key string) float64 {
	minute, _, _, _ := s.View(name, key)
	return minute.TPS
}

// sample is called once a second.
func (s *BrokerStats) sample() {
	now := s.clock()
	s.mu.Lock()
	tick := s.ticks
	s.ticks++
	s.addRates(now)
	s.mu.Unlock()
	if tick%10 != 0 {
		return
	}
	take := func(m *Meter) { m.sample(tick/10, now) }
	take(&s.put)
	take(&s.get)
	s.topics.each(func(_ string, t *TopicStats) bool { take(&t.Put); return true })
	s.groups.each(func(_ string, g *GroupStats) bool { g.meters(take); return true })
}

// rateSample are totals at a moment.
type rateSample struct {
	at                            time.Time
	put, found, miss, transferred int64
}

const rateSamples = 601 // ten minutes

func (s *BrokerStats) addRates(now time.Time) {
	if len(s.rates) == rateSamples {
		s.rates = slices.Delete(s.rates, 0, 1)
	}
	s.rates = append(s.rates, rateSample{now, s.put.nums.Load(), s.found.Load(), s.miss.Load(), s.transferred.Load()})
	if now.YearDay() == s.day {
		return
	}
	s.day = now.YearDay()
	s.morning.putBefore, s.morning.put = s.morning.put, s.put.nums.Load()
	s.morning.getBefore, s.morning.get = s.morning.get, s.transferred.Load()
}

// rateText gives a rate over 10, 60 and 600 seconds, as tools split it at the blanks.
func (s *BrokerStats) rateText(of func(r rateSample) int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	last := s.rates[len(s.rates)-1]
	for i, seconds := range []int{10, 60, 600} {
		if i > 0 {
			b = append(b, ' ')
		}
		first := s.rates[max(0, len(s.rates)-1-seconds)]
		var rate float64
		if took := last.at.Sub(first.at).Seconds(); took > 0 {
			rate = float64(of(last)-of(first)) / took
		}
		b = append(b, javaDouble(rate)...)
	}
	return string(b)
}

// javaDouble writes a number as Double.toString does for common magnitudes: always with a point.
func javaDouble(f float64) string {
	t := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(t, ".") {
		t += ".0"
	}
	return t
}

// latencyBuckets is the distribution of put times that Apache shows.
type latencyBuckets struct {
	counts [13]atomic.Int64
	max    atomic.Int64 // nanoseconds
}

var latencyBounds = [...]time.Duration{
	0, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second, 10 * time.Second,
}

var latencyNames = [...]string{
	"[<=0ms]", "[0~10ms]", "[10~50ms]", "[50~100ms]", "[100~200ms]", "[200~500ms]", "[500ms~1s]", "[1~2s]", "[2~3s]", "[3~4s]", "[4~5s]", "[5~10s]", "[10s~]",
}

// add counts a time, which Apache sees in whole milliseconds.
func (l *latencyBuckets) add(d time.Duration) {
	storeMax(&l.max, int64(d))
	d = d.Truncate(time.Millisecond)
	i := 0
	for i < len(latencyBounds) && d > 0 && d >= latencyBounds[i] {
		i++
	}
	l.counts[i].Add(1)
}

func (l *latencyBuckets) String() string {
	var b strings.Builder
	for i, name := range latencyNames {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s:%d", name, l.counts[i].Load())
	}
	return b.String()
}

// quantile is a time in milliseconds that this part of the puts did not exceed: the upper bound of its
// bucket, or the longest time.
func (l *latencyBuckets) quantile(q float64) float64 {
	var total int64
	for i := range l.counts {
		total += l.counts[i].Load()
	}
	longest := time.Duration(l.max.Load())
	var seen int64
	for i := range l.counts {
		if seen += l.counts[i].Load(); seen > 0 && float64(seen) >= q*float64(total) && i < len(latencyBounds) {
			bound := latencyBounds[i]
			if i == 0 {
				bound = time.Millisecond // the bucket of what takes less
			}
			return min(bound, longest).Seconds() * 1000
		}
	}
	return longest.Seconds() * 1000
}
