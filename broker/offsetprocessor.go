package broker

import (
	"math"
	"strings"

	"rmq/engine"
	"rmq/remoting/protocol"
)

// queryOffset answers 14. What it says of a group that has committed nothing decides where the group
// begins: 0 while the queue's very first message is there and near, so that a new group reads a new topic
// from its start; else QUERY_NOT_FOUND, and the client does as its ConsumeFromWhere says.
func (p *processors) queryOffset(x *exchange, h *protocol.QueryOffsetHeader) error {
	if offset, ok := p.Offsets.Query([]byte(h.ConsumerGroup), []byte(h.Topic), h.QueueID); ok {
		return x.ext(protocol.OffsetResponse{Offset: offset})
	}
	if h.SetZeroIfNotFound != nil && !*h.SetZeroIfNotFound {
		return answerf(protocol.ResponseQueryNotFound, "Not found, do not set to zero, maybe this group boot first")
	}
	if low, high, ok := p.store.QueueRange(h.Topic, h.QueueID); ok && low <= 0 && high > 0 {
		first, err := p.store.Entries(h.Topic, h.QueueID, 0, 1)
		if err == nil && len(first) > 0 && !p.farBack(first[0].Offset) {
			return x.ext(protocol.OffsetResponse{})
		}
	}
	return answerf(protocol.ResponseQueryNotFound, "Not found, maybe this group consumer boot first")
}

// updateOffsetHeader is protocol.UpdateOffsetHeader with what may be missing.
type updateOffsetHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
	Topic         string `ext:"topic,required"`
	QueueID       *int32 `ext:"queueId"`
	CommitOffset  *int64 `ext:"commitOffset"`
}

// updateOffset answers 15.
func (p *processors) updateOffset(x *exchange, h *updateOffsetHeader) error {
	switch {
	case p.Groups.Get(h.ConsumerGroup) == nil:
		return answerf(protocol.ResponseSubscriptionGroupNotExist, "Group %s not exist!", h.ConsumerGroup)
	case p.Topics.Get(h.Topic) == nil:
		return answerf(protocol.ResponseTopicNotExist, "Topic %s not exist!", h.Topic)
	case h.QueueID == nil:
		return answerf(protocol.ResponseInvalidParameter, "QueueId is null, topic is %s", h.Topic)
	case *h.QueueID < 0 || *h.QueueID >= maxQueueID:
		return answerf(protocol.ResponseInvalidParameter, "queueId %d is not in 0 to %d, topic is %s", *h.QueueID, maxQueueID-1, h.Topic)
	case h.CommitOffset == nil:
		return answerf(protocol.ResponseInvalidParameter, "Offset is null, topic is %s", h.Topic)
	}
	if !p.Offsets.Commit([]byte(h.ConsumerGroup), []byte(h.Topic), *h.QueueID, *h.CommitOffset) {
		x.resp.SetRemark("Offset has been previously reset")
	}
	return nil
}

// maxOffset answers 30: the offset of the next message; 0 for a queue that there is not.
func (p *processors) maxOffset(x *exchange, h *protocol.QueueHeader) error {
	_, high, _ := p.store.QueueRange(h.Topic, h.QueueID)
	return x.ext(protocol.OffsetResponse{Offset: high})
}

// minOffset answers 31.
func (p *processors) minOffset(x *exchange, h *protocol.QueueHeader) error {
	low, _, _ := p.store.QueueRange(h.Topic, h.QueueID)
	return x.ext(protocol.OffsetResponse{Offset: low})
}

// searchOffset answers 29.
func (p *processors) searchOffset(x *exchange, h *protocol.SearchOffsetHeader) error {
	bound := engine.LowerBound
	if strings.EqualFold(h.BoundaryType, protocol.BoundaryUpper) {
		bound = engine.UpperBound
	}
	offset, err := p.offsetByTime(h.Topic, h.QueueID, h.Timestamp, bound)
	if err != nil {
		return err
	}
	return x.ext(protocol.OffsetResponse{Offset: offset})
}

// offsetByTime is 0 for a queue without messages.
func (p *processors) offsetByTime(topic string, queueID int32, millis int64, bound engine.TimeBound) (int64, error) {
	low, high, ok := p.store.QueueRange(topic, queueID)
	if !ok || low >= high {
		return high, nil
	}
	return p.store.OffsetByTime(topic, queueID, millis, bound)
}

// earliestStoreTime answers 32.
func (p *processors) earliestStoreTime(x *exchange, h *protocol.QueueHeader) error {
	low, _, _ := p.store.QueueRange(h.Topic, h.QueueID)
	return x.ext(protocol.EarliestStoreTimeResponse{Timestamp: p.storeTime(h.Topic, h.QueueID, low, -1)})
}

// storeTime is when a message was stored, or otherwise where there is none.
func (b *Broker) storeTime(topic string, queueID int32, offset, otherwise int64) int64 {
	low, high, ok := b.store.QueueRange(topic, queueID)
	if !ok || offset < low || offset >= high {
		return otherwise
	}
	t, err := b.store.StoreTime(topic, queueID, offset)
	if err != nil { // just removed
		return otherwise
	}
	return t
}

// cloneOffset answers 314: one group goes on where another one is. Without a topic it does so in all
// topics of the source; Apache means to, and does nothing.
func (p *processors) cloneOffset(_ *exchange, h *protocol.CloneGroupOffsetHeader) error {
	topics := []string{h.Topic}
	if strings.TrimSpace(h.Topic) == "" {
		topics = p.Offsets.TopicsOf(h.SrcGroup)
	}
	for _, topic := range topics {
		if p.Topics.Get(topic) == nil {
			p.log.Warn("clone offsets: no such topic", "topic", topic)
			continue
		}
		if !h.Offline && !p.subscribes(h.SrcGroup, topic) {
			p.log.Warn("clone offsets: the group is online and does not subscribe to the topic", "group", h.SrcGroup, "topic", topic)
			continue
		}
		p.Offsets.Clone(h.SrcGroup, h.DestGroup, topic)
	}
	return p.Offsets.Save()
}

// subscribes says whether a group wants a topic, or is offline and may.
func (p *processors) subscribes(group, topic string) bool {
	g := p.Consumers.Find(group)
	return g == nil || len(g.Subscriptions()) == 0 || g.Subscription(topic) != nil
}

// correctionOffset answers 308: the lowest offset of any group in each queue of a topic, or the highest
// number where compareGroup is behind all of them. Offsets of filterGroups are dropped first, as in Apache.
func (p *processors) correctionOffset(x *exchange, h *protocol.QueryCorrectionOffsetHeader) error {
	for group := range strings.SplitSeq(h.FilterGroups, ",") {
		if group = strings.TrimSpace(group); group != "" {
			p.Offsets.RemoveGroup(group)
		}
	}
	lowest := map[int32]int64{}
	for _, group := range p.Offsets.GroupsOf(h.Topic) {
		for id, offset := range p.Offsets.Offsets(group, h.Topic) {
			low, _, _ := p.store.QueueRange(h.Topic, id)
			if now, ok := lowest[id]; offset >= low && (!ok || offset < now) {
				lowest[id] = offset
			}
		}
	}
	for id, offset := range p.Offsets.Offsets(h.CompareGroup, h.Topic) {
		if now, ok := lowest[id]; ok && now > offset {
			lowest[id] = math.MaxInt64
		}
	}
	return x.body(protocol.CorrectionOffsetBody{CorrectionOffsets: lowest})
}

// topicsByConsumer answers 343.
func (p *processors) topicsByConsumer(x *exchange, h *protocol.GroupHeader) error {
	return x.body(protocol.TopicList{TopicList: p.Offsets.TopicsOf(h.Group), BrokerAddr: p.advertised()})
}

// allOffsets answers 43, for slaves: the document as it would be saved now.
func (p *processors) allOffsets(x *exchange, _ *noHeader) error {
	return x.table(p.Offsets.encode(), noHeader{})
}

// allDelayOffsets answers 45, for slaves.
func (p *processors) allDelayOffsets(x *exchange, _ *noHeader) error {
	x.resp.Body = p.schedule.Text()
	return nil
}
