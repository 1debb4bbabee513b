package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"rmq/message"
	"rmq/remoting/protocol"
)

// maxTopicQueues bounds the queues of a topic.
const maxTopicQueues = maxQueueID

// wantedTopic checks what a client wants a topic to be and gives it its place beside what the topic is.
func (p *processors) wantedTopic(c *protocol.TopicConfig, changes map[string]string) (*protocol.TopicConfig, error) {
	if err := validateTopic(c.TopicName); err != nil {
		return nil, err
	}
	switch {
	case p.Topics.IsSystem(c.TopicName):
		return nil, remarkf("The topic[%s] is conflict with system topic.", c.TopicName)
	case c.Perm < 0 || c.Perm > protocol.PermInherit|protocol.PermWrite|protocol.PermRead:
		return nil, remarkf("the perm %d of topic %s is not in 0 to 7: add up 2 for writing, 4 for reading", c.Perm, c.TopicName)
	case c.ReadQueueNums < 0 || c.WriteQueueNums < 0 || c.ReadQueueNums > maxTopicQueues || c.WriteQueueNums > maxTopicQueues:
		return nil, remarkf("the queue numbers %d and %d of topic %s are not in 0 to %d", c.ReadQueueNums, c.WriteQueueNums, c.TopicName, maxTopicQueues)
	case c.TopicFilterType != "SINGLE_TAG" && c.TopicFilterType != "MULTI_TAG":
		return nil, remarkf("the filter type %q of topic %s is neither SINGLE_TAG nor MULTI_TAG", c.TopicFilterType, c.TopicName)
	case changes["+message.type"] == "MIXED":
		return nil, remark("MIXED message type is not supported.")
	}
	var now map[string]string
	if old := p.Topics.Get(c.TopicName); old != nil {
		if now = old.Attributes; now == nil {
			now = map[string]string{}
		}
	}
	attributes, err := alterAttributes(now, changes)
	if err != nil {
		return nil, answerf(protocol.ResponseSystemError, "topic %s: %s", c.TopicName, err)
	}
	c.Attributes = attributes
	return c, nil
}

// updateTopic answers 17.
func (p *processors) updateTopic(_ *exchange, h *protocol.CreateTopicHeader) error {
	changes, err := parseAttributes(h.Attributes)
	if err != nil {
		return answerf(protocol.ResponseSystemError, "topic %s: %s", h.Topic, err)
	}
	c, err := p.wantedTopic(&protocol.TopicConfig{
		TopicName: h.Topic, ReadQueueNums: h.ReadQueueNums, WriteQueueNums: h.WriteQueueNums, Perm: h.Perm,
		TopicFilterType: h.TopicFilterType, TopicSysFlag: h.TopicSysFlag, Order: h.Order,
	}, changes)
	if err != nil {
		return err
	}
	return p.putTopics(c)
}

func (p *processors) putTopics(configs ...*protocol.TopicConfig) error {
	ctx, cancel := createContext()
	defer cancel()
	return p.Topics.Put(ctx, configs...)
}

// updateTopicList answers 18: all of the topics, or none.
func (p *processors) updateTopicList(x *exchange, _ *noHeader) error {
	var b protocol.TopicConfigList
	if err := protocol.DecodeBody(x.req.Body, &b); err != nil {
		return fmt.Errorf("topics: %w", err)
	}
	for i, c := range b.TopicConfigList {
		if c == nil {
			return remarkf("topic %d of the list is null", i)
		}
		if _, err := p.wantedTopic(c, c.Attributes); err != nil {
			return err
		}
	}
	return p.putTopics(b.TopicConfigList...)
}

// topicHeader is the header of requests about one topic.
type topicHeader struct {
	Topic string `ext:"topic,required"`
}

// deleteTopic answers 215. What the log holds of the topic stays until it expires.
func (p *processors) deleteTopic(_ *exchange, h *topicHeader) error {
	if strings.TrimSpace(h.Topic) == "" {
		return remark("The specified topic is blank.")
	}
	if p.Topics.IsSystem(h.Topic) {
		return remarkf("The topic[%s] is conflict with system topic.", h.Topic)
	}
	ctx, cancel := createContext()
	defer cancel()
	c := p.Topics.Get(h.Topic)
	_, err := p.Topics.Delete(ctx, h.Topic)
	for id := int32(0); c != nil && id < c.ReadQueueNums; id++ {
		p.holds.wakeQueue(h.Topic, id, func(*heldPull) bool { return true })
	}
	p.Offsets.RemoveTopic(h.Topic)
	p.Stats.RemoveTopic(h.Topic)
	return errors.Join(err, p.Offsets.Save(), p.store.RemoveTopic(h.Topic))
}

// allTopics answers 21: the whole table, or a page of it for callers that ask for one.
func (p *processors) allTopics(x *exchange, h *protocol.GetAllTopicConfigHeader) error {
	body, total := p.Topics.appendTable(nil, page(h.TopicSeq, h.MaxTopicNum))
	if total == 0 {
		return answerf(protocol.ResponseSystemError, "No topic in this broker")
	}
	n := int32(total)
	return x.table(body, protocol.GetAllTopicConfigResponse{TotalTopicNum: &n})
}

// table makes a table that is encoded already the body of the answer.
func (x *exchange) table(body []byte, ext any) error {
	if len(body) > maxBodyBytes {
		return answerf(protocol.ResponseSystemError, "the table has %d bytes, a frame has room for %d: ask for it in pages", len(body), maxBodyBytes)
	}
	x.resp.Body = body
	return x.ext(ext)
}

// page cuts the part out of a table that a caller asks for: most entries from seq on; all of it for callers
// that name neither.
func page(seq, most *int32) func(total int) (from, to int) {
	return func(total int) (from, to int) {
		to = total
		if seq != nil {
			from = min(max(int(*seq), 0), total)
		}
		if most != nil && *most > 0 {
			to = min(to, from+int(*most))
		}
		return from, to
	}
}

// topicConfig answers 351.
func (p *processors) topicConfig(x *exchange, h *protocol.GetTopicConfigHeader) error {
	c := p.Topics.Get(h.Topic)
	if c == nil {
		return answerf(protocol.ResponseTopicNotExist, "No topic in this broker. topic: %s", h.Topic)
	}
	return x.body(protocol.TopicConfigAndMapping{TopicConfig: *c})
}

func (p *processors) topicOrRefuse(topic string) (*protocol.TopicConfig, error) {
	if c := p.Topics.Get(topic); c != nil {
		return c, nil
	}
	return nil, answerf(protocol.ResponseTopicNotExist, "topic[%s] not exist", topic)
}

func (p *processors) queueOf(topic string, id int32) protocol.MessageQueue {
	return protocol.MessageQueue{Topic: topic, BrokerName: p.conf().BrokerName, QueueID: id}
}

// topicStats answers 202.
func (p *processors) topicStats(x *exchange, h *topicHeader) error {
	c, err := p.topicOrRefuse(h.Topic)
	if err != nil {
		return err
	}
	t := protocol.TopicStatsTable{OffsetTable: map[protocol.MessageQueue]protocol.TopicOffset{}, TopicPutTPS: p.Stats.TPS("TOPIC_PUT_NUMS", h.Topic)}
	for id := range max(c.ReadQueueNums, c.WriteQueueNums) {
		low, high, _ := p.store.QueueRange(h.Topic, id)
		t.OffsetTable[p.queueOf(h.Topic, id)] = protocol.TopicOffset{
			MinOffset: low, MaxOffset: high, LastUpdateTimestamp: p.storeTime(h.Topic, id, high-1, 0),
		}
	}
	return x.body(t)
}

// systemTopics answers 305.
func (p *processors) systemTopics(x *exchange, _ *noHeader) error {
	return x.body(protocol.TopicList{TopicList: p.Topics.SystemTopics()})
}

// consumedByWho answers 300: groups online that subscribe to a topic, and groups with offsets in it.
func (p *processors) consumedByWho(x *exchange, h *topicHeader) error {
	groups := slices.Concat(p.Consumers.GroupsOn(h.Topic), p.Offsets.GroupsOf(h.Topic))
	slices.Sort(groups)
	return x.body(protocol.GroupList{GroupList: slices.Compact(groups)})
}

// consumeTimeSpan answers 303.
func (p *processors) consumeTimeSpan(x *exchange, h *protocol.QueryConsumeTimeSpanHeader) error {
	c, err := p.topicOrRefuse(h.Topic)
	if err != nil {
		return err
	}
	now := p.clock().UnixMilli()
	var b protocol.ConsumeTimeSpanBody
	for id := range c.WriteQueueNums {
		low, high, _ := p.store.QueueRange(h.Topic, id)
		s := protocol.QueueTimeSpan{
			MessageQueue: p.queueOf(h.Topic, id),
			MinTimeStamp: p.storeTime(h.Topic, id, low, -1), MaxTimeStamp: p.storeTime(h.Topic, id, high-1, -1),
		}
		consumed, _ := p.Offsets.Query([]byte(h.Group), []byte(h.Topic), id)
		s.ConsumeTimeStamp = s.MinTimeStamp
		if consumed > 0 {
			s.ConsumeTimeStamp = p.storeTime(h.Topic, id, consumed-1, s.MinTimeStamp)
		}
		if next := p.storeTime(h.Topic, id, max(consumed, low), -1); next >= 0 {
			s.DelayTime = now - next
		}
		b.ConsumeTimeSpanSet = append(b.ConsumeTimeSpanSet, s)
	}
	return x.body(b)
}

// maxQueueEntries bounds the entries of one answer to 321.
const maxQueueEntries = 4096

// queryConsumeQueue answers 321: entries of a queue as they are stored, and whether a group wants them.
func (p *processors) queryConsumeQueue(x *exchange, h *protocol.QueryConsumeQueueHeader) error {
	low, high, ok := p.store.QueueRange(h.Topic, h.QueueID)
	if !ok {
		return answerf(protocol.ResponseSystemError, "%d@%s is not exist!", h.QueueID, h.Topic)
	}
	b := protocol.QueryConsumeQueueBody{MinQueueIndex: low, MaxQueueIndex: high}
	if h.Index < low || h.Index >= high {
		x.resp.SetRemark(fmt.Sprintf("Index %d of %d@%s is not exist!", h.Index, h.QueueID, h.Topic))
		return nil
	}
	entries, err := p.store.Entries(h.Topic, h.QueueID, h.Index, min(int(h.Count), maxQueueEntries))
	if err != nil {
		return err
	}
	if h.ConsumerGroup != "" {
		b.SubscriptionData = p.Consumers.Subscription(h.ConsumerGroup, h.Topic)
	}
	for _, e := range entries {
		b.QueueData = append(b.QueueData, protocol.ConsumeQueueData{
			PhysicOffset: e.Offset, PhysicSize: e.Size, TagsCode: e.TagsHash, Eval: wantsTag(b.SubscriptionData, e.TagsHash),
		})
	}
	return x.body(b)
}

// wantsTag says whether a subscription lets a tag through; none lets all.
func wantsTag(s *protocol.SubscriptionData, tagsHash int64) bool {
	if s == nil || s.SubString == "" || s.SubString == "*" || len(s.CodeSet) == 0 {
		return true
	}
	return slices.ContainsFunc(s.CodeSet, func(code int32) bool { return int64(code) == tagsHash })
}

// cleanUnusedTopics answers 316: queues of topics that there are not any more go.
func (p *processors) cleanUnusedTopics(_ *exchange, _ *noHeader) error {
	var errs []error
	last := ""
	for _, q := range p.store.Queues() {
		if q.Topic == last || p.Topics.Get(q.Topic) != nil || p.Topics.IsSystem(q.Topic) {
			continue
		}
		last = q.Topic
		p.log.Info("queues of a topic that does not exist are removed", "topic", q.Topic)
		errs = append(errs, p.store.RemoveTopic(q.Topic))
	}
	return errors.Join(errs...)
}

// cleanExpiredQueues answers 306: queues whose last message is no longer in the log go.
func (p *processors) cleanExpiredQueues(_ *exchange, _ *noHeader) error {
	return p.store.RemoveExpiredQueues()
}

// deleteExpired answers 329: expired segments go now, whatever the hour.
func (p *processors) deleteExpired(_ *exchange, _ *noHeader) error {
	p.store.DeleteExpired()
	return nil
}

// messageTypeOf is the type of message that a topic is declared to hold, as metrics name it.
func messageTypeOf(c *protocol.TopicConfig) string {
	switch {
	case c == nil:
	case c.TopicName == message.TopicSchedule:
		return "delay"
	case c.Attributes["message.type"] != "":
		return strings.ToLower(c.Attributes["message.type"])
	}
	return "normal"
}
