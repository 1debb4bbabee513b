package broker

import (
	"strings"

	"rmq/remoting/protocol"
)

// localOffset is an offset that a group has committed on a node that does not lead.
type localOffset struct {
	Group   string `json:"group"`
	Topic   string `json:"topic"`
	QueueID int32  `json:"queueId"`
	Offset  int64  `json:"offset"`
	At      int64  `json:"at"` // when, in milliseconds
}

// mergeOffsetsBody is the body of MERGE_CONSUMER_OFFSET.
type mergeOffsetsBody struct {
	Offsets []localOffset `json:"offsets"`
}

// adopt makes the table what a document of the leader says, but for what was committed here meanwhile and lies further.
func (m *ConsumerOffsetManager) adopt(doc []byte) error {
	var f offsetsFile
	if err := protocol.DecodeBody(doc, &f); err != nil {
		return err
	}
	m.table.each(func(key string, g *groupOffsets) bool {
		qs := g.queues.Load()
		if qs == nil {
			return true
		}
		offsets, resets := f.OffsetTable[key], f.Resets[key]
		for id, q := range *qs {
			if q == nil {
				continue
			}
			_, committed := offsets[int32(id)]
			_, resets := resets[int32(id)]
			q.mu.Lock()
			if !committed && q.local == 0 {
				q.committed = -1
			}
			if !resets && q.resets >= 0 {
				q.resets = -1
				m.pending.Add(-1)
			}
			q.mu.Unlock()
		}
		return true
	})
	m.loadTable(f.OffsetTable, func(q *queueOffset, offset int64) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.local == 0 || q.committed < offset {
			q.committed = offset
		}
	})
	m.loadTable(f.Resets, func(q *queueOffset, offset int64) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.resets < 0 {
			m.pending.Add(1)
		}
		q.resets = offset
	})
	m.saver.adopt(&m.mu, func() { m.version = f.DataVersion })
	return nil
}

// locals are the offsets that the leader does not know yet.
func (m *ConsumerOffsetManager) locals() (out []localOffset) {
	if !m.strays.Swap(false) {
		return nil
	}
	m.eachQueue(func(g *groupOffsets, id int32, q *queueOffset) {
		if q.local > 0 {
			out = append(out, localOffset{g.group, g.topic, id, q.committed, q.local})
		}
	})
	if len(out) > 0 {
		m.strays.Store(true)
	}
	return out
}

// merged says that the leader knows these now. What was committed since stays.
func (m *ConsumerOffsetManager) merged(sent []localOffset) {
	for _, l := range sent {
		if q := m.find([]byte(l.Group), []byte(l.Topic), l.QueueID); q != nil {
			q.mu.Lock()
			if q.local == l.At && q.committed == l.Offset {
				q.local = 0
			}
			q.mu.Unlock()
		}
	}
}

// forgetLocal says that this node leads: what was committed here is what counts.
func (m *ConsumerOffsetManager) forgetLocal() {
	m.eachQueue(func(_ *groupOffsets, _ int32, q *queueOffset) { q.local = 0 })
}

// merge takes over offsets that groups have committed on another node while they did not reach this one,
// and says how many: those that lie further than what is here, where nobody has set the offset since.
func (m *ConsumerOffsetManager) merge(offsets []localOffset) (taken int) {
	for _, l := range offsets {
		if l.Group == "" || l.Topic == "" || strings.Contains(l.Group, topicGroupSeparator) || l.Offset < 0 {
			continue
		}
		q := m.group(l.Group, l.Topic).queue(l.QueueID)
		if q == nil {
			continue
		}
		q.mu.Lock()
		if q.resets < 0 && q.set <= l.At && q.committed < l.Offset {
			q.committed = l.Offset
			taken++
		}
		q.mu.Unlock()
	}
	if taken > 0 {
		m.bump()
	}
	return taken
}

// eachQueue calls f with every slot, under its lock.
func (m *ConsumerOffsetManager) eachQueue(f func(g *groupOffsets, id int32, q *queueOffset)) {
	m.table.each(func(_ string, g *groupOffsets) bool {
		if qs := g.queues.Load(); qs != nil {
			for id, q := range *qs {
				if q != nil {
					q.mu.Lock()
					f(g, int32(id), q)
					q.mu.Unlock()
				}
			}
		}
		return true
	})
}
