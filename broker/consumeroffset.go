package broker

import (
	"cmp"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting/protocol"
)

// ConsumerOffsetManager knows how far each group has consumed each queue
// (org.apache.rocketmq.broker.offset.ConsumerOffsetManager).
//
// Three offsets are kept of a queue: the committed one, which is saved every flushConsumerOffsetInterval;
// where the group last pulled, in memory only; and one that the owner of the queue is to go on from,
// after a reset (pending until a pull has handed it out). Commits may go backwards. Commits while a reset
// is pending are dropped: they were on their way when it came.
//
// Finding a queue takes no lock and allocates nothing. Safe for concurrent use.
type ConsumerOffsetManager struct {
	conf  func() *Config
	clock func() time.Time
	state func() int64
	leads func() bool
	log   *slog.Logger

	table   *shardMap[*groupOffsets] // by topic@group
	pending atomic.Int64             // resets that no pull has handed out
	strays  atomic.Bool              // there may be offsets that the leader does not know
	commits atomic.Int64
	mu      sync.Mutex // guards version
	version protocol.DataVersion
	saver   saver
}

// groupOffsets are the offsets of one group in one topic. Slots are made as queues show up; the slice
// is replaced when it grows.
type groupOffsets struct {
	topic, group string
	queues       atomic.Pointer[[]*queueOffset]
	grow         sync.Mutex
}

// queueOffset are the offsets of a group in one queue; below 0: none.
type queueOffset struct {
	mu                      sync.Mutex
	committed, pull, resets int64
	local                   int64 // when it was committed here while another node leads, ms; 0: the leader knows it
	set                     int64 // when it was set for the group, by a reset or a clone, ms; 0: not since the start
}

const (
	offsetsName = "consumerOffset"

	// maxQueueID bounds the queue numbers of commits, far above what a topic can have here.
	maxQueueID = 1 << 16

	topicGroupSeparator = "@"
)

func newConsumerOffsetManager(o *managerOptions) *ConsumerOffsetManager {
	m := &ConsumerOffsetManager{conf: o.conf, clock: o.Clock, state: o.StateVersion, leads: o.Leads, log: o.Logger, table: newShardMap[*groupOffsets]()}
	m.version = protocol.DataVersion{Timestamp: o.Clock().UnixMilli()}
	m.saver = saver{log: o.Meta, name: offsetsName, encode: m.encode}
	return m
}

// offsetsFile is consumerOffset.json. Apache skips the resets.
type offsetsFile struct {
	DataVersion protocol.DataVersion       `json:"dataVersion"`
	OffsetTable map[string]map[int32]int64 `json:"offsetTable"`
	Resets      map[string]map[int32]int64 `json:"pendingResets"`
}

func (m *ConsumerOffsetManager) load() error {
	return m.saver.log.Load(offsetsName, func(b []byte) error {
		var f offsetsFile
		if err := protocol.DecodeBody(b, &f); err != nil {
			return err
		}
		m.version = f.DataVersion
		m.loadTable(f.OffsetTable, func(q *queueOffset, offset int64) { q.committed = offset })
		m.loadTable(f.Resets, func(q *queueOffset, offset int64) {
			q.resets = offset
			m.pending.Add(1)
		})
		return nil
	})
}

func (m *ConsumerOffsetManager) loadTable(table map[string]map[int32]int64, set func(q *queueOffset, offset int64)) {
	for key, queues := range table {
		topic, group, ok := strings.Cut(key, topicGroupSeparator)
		if !ok || topic == "" || group == "" || strings.Contains(group, topicGroupSeparator) {
			m.log.Warn("consumer offset without a topic and a group is dropped", "key", key)
			continue
		}
		g := m.group(group, topic)
		for id, offset := range queues {
			q := g.queue(id)
			if q == nil || offset < 0 {
				m.log.Warn("consumer offset is dropped", "key", key, "queue", id, "offset", offset)
				continue
			}
			set(q, offset)
		}
	}
}

// find is the queue's slot, nil if there is none.
func (m *ConsumerOffsetManager) find(group, topic []byte, queueID int32) *queueOffset {
	var buf [512]byte
	key := append(append(append(buf[:0], topic...), topicGroupSeparator...), group...)
	g, ok := m.table.getBytes(key)
	if !ok {
		return nil
	}
	return g.at(queueID)
}

func (m *ConsumerOffsetManager) group(group, topic string) *groupOffsets {
	return m.table.getOrMake(topic+topicGroupSeparator+group, func() *groupOffsets { return &groupOffsets{topic: topic, group: group} })
}

func (g *groupOffsets) at(id int32) *queueOffset {
	if qs := g.queues.Load(); qs != nil && id >= 0 && int(id) < len(*qs) {
		return (*qs)[id]
	}
	return nil
}

// queue is at, and makes what is missing; nil for a number that no queue can have.
func (g *groupOffsets) queue(id int32) *queueOffset {
	if q := g.at(id); q != nil {
		return q
	}
	if id < 0 || id >= maxQueueID {
		return nil
	}
	g.grow.Lock()
	defer g.grow.Unlock()
	if q := g.at(id); q != nil {
		return q
	}
	var now []*queueOffset
	if qs := g.queues.Load(); qs != nil {
		now = *qs
	}
	next := make([]*queueOffset, max(len(now), int(id)+1))
	copy(next, now)
	q := &queueOffset{committed: -1, pull: -1, resets: -1}
	next[id] = q
	g.queues.Store(&next)
	return q
}

// slot is the queue's slot, made if it is not there; nil for a number that no queue can have.
func (m *ConsumerOffsetManager) slot(group, topic []byte, queueID int32) *queueOffset {
	if q := m.find(group, topic, queueID); q != nil {
		return q
	}
	return m.group(string(group), string(topic)).queue(queueID)
}

// Query is the offset that a group is to go on from: a reset that is pending, else what was committed.
func (m *ConsumerOffsetManager) Query(group, topic []byte, queueID int32) (int64, bool) {
	q := m.find(group, topic, queueID)
	if q == nil {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.resets >= 0 {
		return q.resets, true
	}
	return q.committed, q.committed >= 0
}

// Commit stores an offset. It is dropped, and the result false, while a reset is pending. On a node that does not lead it
// counts if it lies further than what is here: it goes to the leader, who takes it over by maximum.
func (m *ConsumerOffsetManager) Commit(group, topic []byte, queueID int32, offset int64) bool {
	q := m.slot(group, topic, queueID)
	if q == nil || offset < 0 {
		return true
	}
	q.mu.Lock()
	if q.resets >= 0 {
		q.mu.Unlock()
		return false
	}
	if !m.leads() {
		if offset <= q.committed {
			q.mu.Unlock()
			return true
		}
		q.local = m.clock().UnixMilli()
		m.strays.Store(true)
	}
	changed := q.committed != offset
	q.committed = offset
	q.mu.Unlock()
	if changed {
		m.saver.changed()
	}
	if n := m.commits.Add(1); n%int64(m.conf().ConsumerOffsetStep) == 0 {
		m.bump()
	}
	return true
}

func (m *ConsumerOffsetManager) bump() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = m.version.Next(m.state(), m.clock().UnixMilli())
	m.saver.changed()
}

// Pulled notes where a group will pull next.
func (m *ConsumerOffsetManager) Pulled(group, topic []byte, queueID int32, offset int64) {
	if q := m.slot(group, topic, queueID); q != nil {
		q.mu.Lock()
		q.pull = offset
		q.mu.Unlock()
	}
}

// PullOffset is where the group will pull next, or where it has committed.
func (m *ConsumerOffsetManager) PullOffset(group, topic []byte, queueID int32) (int64, bool) {
	q := m.find(group, topic, queueID)
	if q == nil {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pull >= 0 {
		return q.pull, true
	}
	return q.committed, q.committed >= 0
}

// Reset makes offset the committed one and hands it to the next pull of the queue. Until then commits
// are dropped.
func (m *ConsumerOffsetManager) Reset(group, topic string, queueID int32, offset int64) {
	q := m.group(group, topic).queue(queueID)
	if q == nil || offset < 0 {
		return
	}
	q.mu.Lock()
	if q.resets < 0 {
		m.pending.Add(1)
	}
	q.resets, q.committed, q.pull, q.set = offset, offset, -1, m.clock().UnixMilli()
	q.mu.Unlock()
	m.saver.changed()
}

// TakeReset is for a pull: the offset that it must answer with PULL_OFFSET_MOVED, once.
func (m *ConsumerOffsetManager) TakeReset(group, topic []byte, queueID int32) (int64, bool) {
	if m.pending.Load() == 0 {
		return 0, false
	}
	q := m.find(group, topic, queueID)
	if q == nil {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.resets < 0 {
		return 0, false
	}
	offset := q.resets
	q.resets = -1
	m.pending.Add(-1)
	m.saver.changed()
	return offset, true
}

// HasReset says whether a reset is pending.
func (m *ConsumerOffsetManager) HasReset(group, topic string, queueID int32) bool {
	if m.pending.Load() == 0 {
		return false
	}
	q := m.find([]byte(group), []byte(topic), queueID)
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.resets >= 0
}

// Offsets are the committed offsets of a group in a topic, by queue; nil if it has none.
func (m *ConsumerOffsetManager) Offsets(group, topic string) map[int32]int64 {
	g, ok := m.table.get(topic + topicGroupSeparator + group)
	if !ok {
		return nil
	}
	return g.committed()
}

func (g *groupOffsets) committed() map[int32]int64 {
	return g.collect(func(q *queueOffset) int64 { return q.committed })
}

func (g *groupOffsets) collect(of func(q *queueOffset) int64) map[int32]int64 {
	qs := g.queues.Load()
	if qs == nil {
		return nil
	}
	var out map[int32]int64
	for id, q := range *qs {
		if q == nil {
			continue
		}
		q.mu.Lock()
		offset := of(q)
		q.mu.Unlock()
		if offset < 0 {
			continue
		}
		if out == nil {
			out = make(map[int32]int64, len(*qs))
		}
		out[int32(id)] = offset
	}
	return out
}

// TopicsOf lists the topics in which a group has committed offsets.
func (m *ConsumerOffsetManager) TopicsOf(group string) []string {
	return m.names(func(g *groupOffsets) (string, bool) { return g.topic, g.group == group })
}

// GroupsOf lists the groups that have committed offsets in a topic.
func (m *ConsumerOffsetManager) GroupsOf(topic string) []string {
	return m.names(func(g *groupOffsets) (string, bool) { return g.group, g.topic == topic })
}

func (m *ConsumerOffsetManager) names(pick func(g *groupOffsets) (string, bool)) []string {
	var out []string
	m.table.each(func(_ string, g *groupOffsets) bool {
		if name, ok := pick(g); ok && g.committed() != nil {
			out = append(out, name)
		}
		return true
	})
	slices.Sort(out)
	return out
}

// RemoveTopic drops all offsets in a topic.
func (m *ConsumerOffsetManager) RemoveTopic(topic string) {
	m.removeIf(func(g *groupOffsets) bool { return g.topic == topic })
}

// RemoveGroup drops all offsets of a group.
func (m *ConsumerOffsetManager) RemoveGroup(group string) {
	m.removeIf(func(g *groupOffsets) bool { return g.group == group })
}

func (m *ConsumerOffsetManager) removeIf(match func(g *groupOffsets) bool) {
	var gone []string
	m.table.each(func(key string, g *groupOffsets) bool {
		if match(g) {
			gone = append(gone, key)
		}
		return true
	})
	for _, key := range gone {
		if g, ok := m.table.get(key); ok {
			m.pending.Add(-int64(len(g.collect(func(q *queueOffset) int64 { return q.resets }))))
		}
		m.table.remove(key)
	}
	if len(gone) > 0 {
		m.bump()
	}
}

// Clone gives dest the committed offsets that src has in a topic.
func (m *ConsumerOffsetManager) Clone(src, dest, topic string) {
	for id, offset := range m.Offsets(src, topic) {
		if q := m.group(dest, topic).queue(id); q != nil {
			q.mu.Lock()
			q.committed, q.set = offset, m.clock().UnixMilli()
			q.mu.Unlock()
			m.saver.changed()
		}
	}
}

// Snapshot are all committed offsets, by topic@group and queue, with the version of the table.
func (m *ConsumerOffsetManager) Snapshot() (map[string]map[int32]int64, protocol.DataVersion) {
	out := map[string]map[int32]int64{}
	m.table.each(func(key string, g *groupOffsets) bool {
		if offsets := g.committed(); offsets != nil {
			out[key] = offsets
		}
		return true
	})
	return out, m.DataVersion()
}

// DataVersion is the version of the table.
func (m *ConsumerOffsetManager) DataVersion() protocol.DataVersion {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// Save writes the offsets if any has changed.
func (m *ConsumerOffsetManager) Save() error { return m.saver.save() }

// encode writes the whole table, one group and topic a line.
func (m *ConsumerOffsetManager) encode() []byte {
	var all []*groupOffsets
	m.table.each(func(_ string, g *groupOffsets) bool { all = append(all, g); return true })
	slices.SortFunc(all, func(a, b *groupOffsets) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), strings.Compare(a.group, b.group))
	})
	f := newTableFile(m.DataVersion(), "offsetTable", 128*len(all))
	f.addOffsets(all, func(q *queueOffset) int64 { return q.committed })
	if m.pending.Load() > 0 {
		f.endTable()
		f.table("pendingResets")
		f.addOffsets(all, func(q *queueOffset) int64 { return q.resets })
	}
	return f.end()
}

func (f *tableFile) addOffsets(all []*groupOffsets, of func(q *queueOffset) int64) {
	for _, g := range all {
		qs := g.queues.Load()
		if qs == nil {
			continue
		}
		sep := byte('{')
		for id, q := range *qs {
			if q == nil {
				continue
			}
			q.mu.Lock()
			offset := of(q)
			q.mu.Unlock()
			if offset < 0 {
				continue
			}
			if sep == '{' {
				f.key(g.topic + topicGroupSeparator + g.group)
			}
			f.b = append(f.b, sep, '"')
			f.b = strconv.AppendInt(f.b, int64(id), 10)
			f.b = append(f.b, '"', ':')
			f.b = strconv.AppendInt(f.b, offset, 10)
			sep = ','
		}
		if sep == ',' {
			f.b = append(f.b, '}')
		}
	}
}
