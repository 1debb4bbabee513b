package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rmq/engine"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// How long a client has for an answer that somebody else waits for.
const (
	relayWait  = 10 * time.Second
	statusWait = 5 * time.Second
)

// relay asks one member of a group what an administrator has asked the broker, and answers what it answers.
func (p *processors) relay(x *exchange, group, clientID string, req *protocol.Command) error {
	ch := p.Consumers.Member(group, clientID)
	if ch == nil {
		return answerf(protocol.ResponseSystemError, "The Consumer <%s> <%s> not online", group, clientID)
	}
	if ch.Version < protocol.VersionRelay {
		return answerf(protocol.ResponseSystemError, "The Consumer <%s> Version <%s> too low to finish, please upgrade it to %s",
			clientID, protocol.VersionName(ch.Version), protocol.VersionName(protocol.VersionRelay))
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayWait)
	defer cancel()
	resp, err := ch.Conn.Call(ctx, req)
	if errors.Is(err, remoting.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return answerf(protocol.ResponseConsumeMsgTimeout, "consumer <%s> <%s> timeout: no answer within %s", group, clientID, relayWait)
	}
	if err != nil {
		return answerf(protocol.ResponseSystemError, "invoke consumer <%s> <%s> exception: %s", group, clientID, err)
	}
	x.resp = protocol.NewResponse(x.req, protocol.ResponseCode(resp.Code), string(resp.Remark))
	for _, f := range resp.Ext {
		x.resp.AddBytes(string(f.Key), f.Value)
	}
	x.resp.Body = resp.Body
	return nil
}

// forward is the request of an administrator as one of ours: ext fields and body stay.
func (x *exchange) forward() *protocol.Command {
	req := protocol.NewRequest(protocol.RequestCode(x.req.Code))
	for _, f := range x.req.Ext {
		req.AddBytes(string(f.Key), f.Value)
	}
	req.Body = x.req.Body
	return req
}

// consumerRunningInfo answers 307.
func (p *processors) consumerRunningInfo(x *exchange, h *protocol.GetConsumerRunningInfoHeader) error {
	return p.relay(x, h.ConsumerGroup, h.ClientID, x.forward())
}

// consumeDirectly answers 309: one client consumes one stored message at once; without a client id any
// member of the group.
func (p *processors) consumeDirectly(x *exchange, h *protocol.ConsumeMessageDirectlyHeader) error {
	id, err := message.ParseID(h.MsgID)
	if err != nil {
		return answerf(protocol.ResponseSystemError, "the message id %s: %s", h.MsgID, err)
	}
	if _, err := x.record(p, id.Pos); err != nil {
		return answerf(protocol.ResponseSystemError, "can not find message by the offset, %d", id.Pos)
	}
	clientID := h.ClientID
	if members := p.Consumers.Members(h.ConsumerGroup); clientID == "" && len(members) > 0 {
		clientID = members[0].ClientID
	}
	req := x.forward()
	req.Remove("brokerName")
	req.Add("brokerName", p.conf().BrokerName)
	if t := p.Topics.Get(h.Topic); t != nil {
		req.Remove("topicSysFlag")
		req.AddInt("topicSysFlag", int64(t.TopicSysFlag))
	}
	if g := p.Groups.Get(h.ConsumerGroup); g != nil {
		req.Remove("groupSysFlag")
		req.AddInt("groupSysFlag", int64(g.GroupSysFlag))
	}
	req.Body = x.resp.Body
	return p.relay(x, h.ConsumerGroup, clientID, req)
}

// consumerStatus answers 223: the offsets that members of a group have in memory, by client.
func (p *processors) consumerStatus(x *exchange, h *protocol.GetConsumerStatusHeader) error {
	members := p.Consumers.Members(h.Group)
	if len(members) == 0 {
		return answerf(protocol.ResponseSystemError, "No Any Consumer online in the consumer group: [%s]", h.Group)
	}
	b := protocol.ConsumerStatusBody{ConsumerTable: map[string]map[protocol.MessageQueue]int64{}}
	for _, ch := range members {
		if h.ClientAddr != "" && h.ClientAddr != ch.ClientID {
			continue
		}
		if ch.Version < protocol.VersionResetOffset {
			return answerf(protocol.ResponseSystemError, "the client does not support this feature. version=%s", protocol.VersionName(ch.Version))
		}
		table, err := p.statusOf(ch, h)
		if err != nil {
			p.log.Warn("consumer does not tell its status", "group", h.Group, "client", ch.ClientID, "err", err)
			continue
		}
		b.ConsumerTable[ch.ClientID] = table
	}
	return x.body(b)
}

func (p *processors) statusOf(ch *clientChannel, h *protocol.GetConsumerStatusHeader) (map[protocol.MessageQueue]int64, error) {
	req := protocol.NewRequest(protocol.RequestGetConsumerStatusFromClient)
	protocol.EncodeExt(req, protocol.QueryConsumeTimeSpanHeader{Topic: h.Topic, Group: h.Group})
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	resp, err := ch.Conn.Call(ctx, req)
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return nil, err
	}
	var b protocol.ConsumerStatusBody
	if err := protocol.DecodeBody(resp.Body, &b); err != nil {
		return nil, err
	}
	return b.MessageQueueTable, nil
}

// resetOffset answers 222.
func (p *processors) resetOffset(x *exchange, h *protocol.ResetOffsetHeader) error {
	c := p.Topics.Get(h.Topic)
	switch {
	case !p.leads.Load():
		return answerf(protocol.ResponseSystemError, "Can not reset offset in slave broker")
	case c == nil:
		return answerf(protocol.ResponseTopicNotExist, "Topic %s does not exist", h.Topic)
	case p.Groups.Get(h.Group) == nil:
		return answerf(protocol.ResponseSubscriptionGroupNotExist, "Group %s does not exist", h.Group)
	case !p.conf().ServerSideReset:
		return p.resetByClients(x, h, c)
	}
	table, err := p.resetTargets(h, c)
	if err != nil {
		return err
	}
	b := protocol.ResetOffsetBody{OffsetTable: map[protocol.MessageQueue]int64{}}
	for id, offset := range table {
		p.Offsets.Reset(h.Group, h.Topic, id, offset)
		p.holds.wakeQueue(h.Topic, id, func(held *heldPull) bool { return held.group.GroupName == h.Group })
		b.OffsetTable[p.queueOf(h.Topic, id)] = offset
	}
	if err := p.Offsets.Save(); err != nil {
		return err
	}
	p.log.Info("offsets reset", "group", h.Group, "topic", h.Topic, "offsets", table)
	return x.body(b)
}

// resetTargets says where each queue is to go on.
func (p *processors) resetTargets(h *protocol.ResetOffsetHeader, c *protocol.TopicConfig) (map[int32]int64, error) {
	if h.QueueID >= 0 {
		if h.QueueID >= maxQueueID {
			return nil, remarkf("queueId %d is not in 0 to %d", h.QueueID, maxQueueID-1)
		}
		low, high, _ := p.store.QueueRange(h.Topic, h.QueueID)
		if h.Offset != -1 && (h.Offset < low || h.Offset > high+1) {
			return nil, answerf(protocol.ResponseSystemError, "Target offset %d not in consume queue range [%d-%d]", h.Offset, low, high)
		}
		if h.Offset != -1 {
			return map[int32]int64{h.QueueID: h.Offset}, nil
		}
		offset, err := p.resetTarget(h.Topic, h.QueueID, h.Timestamp)
		return map[int32]int64{h.QueueID: offset}, err
	}
	table := map[int32]int64{}
	for id := range c.ReadQueueNums {
		offset, err := p.resetTarget(h.Topic, id, h.Timestamp)
		if err != nil {
			return nil, err
		}
		table[id] = offset
	}
	if len(table) == 0 {
		return nil, answerf(protocol.ResponseSystemError, "No queues to reset.")
	}
	return table, nil
}

// resetTarget is the offset of a time; the end of the queue for a time below 0.
func (p *processors) resetTarget(topic string, id int32, millis int64) (int64, error) {
	if millis < 0 {
		_, high, _ := p.store.QueueRange(topic, id)
		return high, nil
	}
	return p.offsetByTime(topic, id, millis, engine.LowerBound)
}

// resetByClients is the way of 4.9: every member of the group is told where to go on (220). Offsets go
// forward only with isForce.
func (p *processors) resetByClients(x *exchange, h *protocol.ResetOffsetHeader, c *protocol.TopicConfig) error {
	b := protocol.ResetOffsetBody{OffsetTable: map[protocol.MessageQueue]int64{}}
	for id := range c.WriteQueueNums {
		now, ok := p.Offsets.Query([]byte(h.Group), []byte(h.Topic), id)
		if !ok {
			return answerf(protocol.ResponseSystemError, "THe consumer group <%s> not exist", h.Group)
		}
		target, err := p.resetTarget(h.Topic, id, h.Timestamp)
		if err != nil {
			return err
		}
		if !h.IsForce {
			target = min(target, now)
		}
		b.OffsetTable[p.queueOf(h.Topic, id)] = target
	}
	members := p.Consumers.Members(h.Group)
	if len(members) == 0 {
		return answerf(protocol.ResponseConsumerNotOnline,
			"Consumer not online, so can not reset offset, Group: %s Topic: %s Timestamp: %d", h.Group, h.Topic, h.Timestamp)
	}
	for _, ch := range members {
		if ch.Version < protocol.VersionResetOffset {
			return answerf(protocol.ResponseSystemError, "the client does not support this feature. version=%s", protocol.VersionName(ch.Version))
		}
		if err := ch.Conn.Oneway(resetRequest(ch.Language, h, &b)); err != nil {
			return fmt.Errorf("tell %s to reset its offsets: %w", ch.ClientID, err)
		}
	}
	return x.body(b)
}

func resetRequest(l protocol.Language, h *protocol.ResetOffsetHeader, b *protocol.ResetOffsetBody) *protocol.Command {
	req := protocol.NewRequest(protocol.RequestResetConsumerClientOffset)
	req.MarkOneway()
	protocol.EncodeExt(req, h)
	if l != protocol.CPP {
		req.Body = protocol.EncodeBody(b)
		return req
	}
	var list protocol.ResetOffsetCBody
	for q, offset := range b.OffsetTable {
		list.OffsetTable = append(list.OffsetTable, protocol.QueueOffset{MessageQueue: q, Offset: offset})
	}
	req.Body = protocol.EncodeBody(list)
	return req
}
