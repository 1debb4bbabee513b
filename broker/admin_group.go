package broker

import (
	"errors"
	"fmt"
	"strings"

	"rmq/remoting/protocol"
)

// checkGroup checks what a client wants a group to be.
func checkGroup(c *protocol.SubscriptionGroupConfig) error {
	if err := validateGroup(c.GroupName); err != nil {
		return err
	}
	if c.RetryQueueNums < 0 || c.RetryQueueNums > maxTopicQueues {
		return remarkf("retryQueueNums %d of group %s is not in 0 to %d", c.RetryQueueNums, c.GroupName, maxTopicQueues)
	}
	return nil
}

// updateGroup answers 200.
func (p *processors) updateGroup(x *exchange, _ *noHeader) error {
	var c protocol.SubscriptionGroupConfig
	if err := protocol.DecodeBody(x.req.Body, &c); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	if err := checkGroup(&c); err != nil {
		return err
	}
	return p.Groups.Put(&c)
}

// updateGroupList answers 225: all of the groups, or none.
func (p *processors) updateGroupList(x *exchange, _ *noHeader) error {
	var b protocol.SubscriptionGroupList
	if err := protocol.DecodeBody(x.req.Body, &b); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	for i, c := range b.GroupConfigList {
		if c == nil {
			return remarkf("group %d of the list is null", i)
		}
		if err := checkGroup(c); err != nil {
			return err
		}
	}
	return p.Groups.Put(b.GroupConfigList...)
}

// allGroups answers 201: the whole table, or a page of it for callers that ask for one.
func (p *processors) allGroups(x *exchange, h *protocol.GetAllSubscriptionGroupHeader) error {
	body, total := p.Groups.appendTable(nil, page(h.GroupSeq, h.MaxGroupNum))
	n := int32(total)
	return x.table(body, protocol.GetAllSubscriptionGroupResponse{TotalGroupNum: &n})
}

// groupConfig answers 352.
func (p *processors) groupConfig(x *exchange, h *protocol.GroupHeader) error {
	c := p.Groups.Get(h.Group)
	if c == nil {
		return noGroup(h.Group)
	}
	return x.body(c)
}

func noGroup(group string) error {
	return answerf(protocol.ResponseSubscriptionGroupNotExist, "No group in this broker. group: %s", group)
}

// deleteGroup answers 207. A member that is still online creates the group anew with its next heartbeat.
func (p *processors) deleteGroup(_ *exchange, h *protocol.DeleteSubscriptionGroupHeader) error {
	_, err := p.Groups.Delete(h.GroupName)
	if h.CleanOffset || h.RemoveOffset {
		p.Offsets.RemoveGroup(h.GroupName)
		err = errors.Join(err, p.Offsets.Save())
	}
	p.Stats.RemoveGroup(h.GroupName)
	return err
}

// groupForbidden answers 353.
func (p *processors) groupForbidden(x *exchange, h *protocol.GroupForbiddenHeader) error {
	if p.Groups.Get(h.Group) == nil {
		return noGroup(h.Group)
	}
	if h.Readable != nil {
		if err := p.Groups.SetForbidden(h.Group, h.Topic, !*h.Readable); err != nil {
			return err
		}
	}
	return x.body(protocol.GroupForbidden{Group: h.Group, Topic: h.Topic, Readable: !p.Groups.Forbidden(h.Group, h.Topic)})
}

// consumerConnections answers 203. Tools tell an offline group by CONSUMER_NOT_ONLINE.
func (p *processors) consumerConnections(x *exchange, h *protocol.ConsumerGroupHeader) error {
	g, members := p.Consumers.Find(h.ConsumerGroup), p.Consumers.Members(h.ConsumerGroup)
	if g == nil || len(members) == 0 {
		return answerf(protocol.ResponseConsumerNotOnline, "the consumer group[%s] not online", h.ConsumerGroup)
	}
	t := g.Traits()
	b := protocol.ConsumerConnection{
		ConsumeType: t.ConsumeType, MessageModel: t.MessageModel, ConsumeFromWhere: t.ConsumeFromWhere,
		SubscriptionTable: map[string]protocol.SubscriptionData{},
	}
	for topic, s := range g.Subscriptions() {
		b.SubscriptionTable[topic] = *s
	}
	for _, ch := range members {
		b.ConnectionSet = append(b.ConnectionSet, ch.connection())
	}
	return x.body(b)
}

// producerConnections answers 204.
func (p *processors) producerConnections(x *exchange, h *protocol.ProducerGroupHeader) error {
	members := p.Producers.Members(h.ProducerGroup)
	if len(members) == 0 {
		return answerf(protocol.ResponseSystemError, "the producer group[%s] not exist", h.ProducerGroup)
	}
	var b protocol.ProducerConnection
	for _, ch := range members {
		b.ConnectionSet = append(b.ConnectionSet, ch.connection())
	}
	return x.body(b)
}

// allProducers answers 328.
func (p *processors) allProducers(x *exchange, _ *noHeader) error {
	b := protocol.ProducerTableInfo{Data: map[string][]protocol.ProducerInfo{}}
	for _, group := range p.Producers.Groups() {
		for _, ch := range p.Producers.Members(group) {
			b.Data[group] = append(b.Data[group], protocol.ProducerInfo{
				ClientID: ch.ClientID, RemoteIP: ch.Conn.RemoteAddr().String(), Language: ch.Language, Version: ch.Version,
				LastUpdateTimestamp: ch.seen.UnixMilli(),
			})
		}
	}
	return x.body(b)
}

// subscription answers 345.
func (p *processors) subscription(x *exchange, h *protocol.QuerySubscriptionHeader) error {
	return x.body(protocol.QuerySubscriptionResponseBody{
		Group: h.Group, Topic: h.Topic, SubscriptionData: p.Consumers.Subscription(h.Group, h.Topic),
	})
}

// consumeStats answers 208.
func (p *processors) consumeStats(x *exchange, h *protocol.GetConsumeStatsHeader) error {
	b := protocol.ConsumeStats{OffsetTable: map[protocol.MessageQueue]protocol.OffsetWrapper{}}
	var topics []string
	switch {
	case h.TopicList != "":
		topics = strings.Split(h.TopicList, ";")
	case h.Topic != "":
		topics = []string{h.Topic}
	default:
		topics = p.Offsets.TopicsOf(h.ConsumerGroup)
	}
	for _, topic := range topics {
		c := p.Topics.Get(topic)
		if c == nil || h.TopicList == "" && !p.subscribes(h.ConsumerGroup, topic) {
			continue
		}
		p.addConsumeStats(&b, h.ConsumerGroup, topic, c.ReadQueueNums)
	}
	return x.body(b)
}

// addConsumeStats adds how far a group is in the queues of a topic.
func (p *processors) addConsumeStats(b *protocol.ConsumeStats, group, topic string, queues int32) {
	g, t := []byte(group), []byte(topic)
	for id := range queues {
		_, high, _ := p.store.QueueRange(topic, id)
		w := protocol.OffsetWrapper{BrokerOffset: high}
		w.ConsumerOffset, _ = p.Offsets.Query(g, t, id)
		pulled, _ := p.Offsets.PullOffset(g, t, id)
		w.PullOffset = max(w.ConsumerOffset, pulled)
		w.LastTimestamp = max(p.storeTime(topic, id, w.ConsumerOffset-1, 0), 0)
		b.OffsetTable[p.queueOf(topic, id)] = w
	}
	b.ConsumeTPS += p.Stats.TPS("GROUP_GET_NUMS", topic+topicGroupSeparator+group)
}

// brokerConsumeStats answers 317: 208 for all groups.
func (p *processors) brokerConsumeStats(x *exchange, h *protocol.GetBrokerConsumeStatsHeader) error {
	b := protocol.ConsumeStatsList{BrokerAddr: p.advertised()}
	groups, _, _ := p.Groups.Snapshot()
	for _, group := range groups {
		list := []protocol.ConsumeStats{}
		for _, topic := range p.Offsets.TopicsOf(group.GroupName) {
			c := p.Topics.Get(topic)
			if c == nil || h.IsOrder && !c.Order || !p.subscribes(group.GroupName, topic) {
				continue
			}
			s := protocol.ConsumeStats{OffsetTable: map[protocol.MessageQueue]protocol.OffsetWrapper{}}
			p.addConsumeStats(&s, group.GroupName, topic, c.WriteQueueNums)
			for _, w := range s.OffsetTable {
				b.TotalDiff += w.BrokerOffset - w.ConsumerOffset
				b.TotalInflightDiff += w.PullOffset - w.ConsumerOffset
			}
			list = append(list, s)
		}
		b.ConsumeStatsList = append(b.ConsumeStatsList, map[string][]protocol.ConsumeStats{group.GroupName: list})
	}
	return x.body(b)
}
