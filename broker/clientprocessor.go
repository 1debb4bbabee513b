package broker

import (
	"context"
	"fmt"
	"time"

	"rmq/remoting/protocol"
)

// createWait bounds what the creation of a topic may take, registration included.
const createWait = 3 * time.Second

func createContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), createWait)
}

// heartbeat answers 34: the client is a member of the groups that it names, and their retry topics are there.
func (p *processors) heartbeat(x *exchange, _ *noHeader) error {
	var d protocol.HeartbeatData
	if err := protocol.DecodeBody(x.req.Body, &d); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	ch := clientChannel{Conn: x.conn, ClientID: d.ClientID, Language: x.req.Language, Version: x.req.Version}
	for i := range d.ConsumerDataSet {
		p.consumerHeartbeat(ch, &d.ConsumerDataSet[i], d.WithoutSub)
	}
	for _, g := range d.ProducerDataSet {
		p.Producers.Register(ch, g.GroupName)
	}
	select {
	case <-x.conn.Done(): // it closed before it was a member, and nobody would take it out again
		p.managers.Closed(x.conn)
	default:
	}
	return x.ext(protocol.HeartbeatResponse{SupportsV2: true, SubChange: true})
}

// consumerHeartbeat registers one group of a heartbeat. A group that does not exist and may not be
// created is left out.
func (p *processors) consumerHeartbeat(ch clientChannel, d *protocol.ConsumerData, withoutSub bool) {
	if d.ConsumeType == protocol.ConsumeActively && p.conf().RejectPullConsumers {
		return
	}
	group := p.Groups.Find(d.GroupName)
	if group == nil {
		return
	}
	if err := p.Groups.saver.save(); err != nil {
		p.log.Error("groups are not saved; it will be tried again", "group", d.GroupName, "err", err)
	}
	h := consumerHeartbeat{
		group: group.GroupName, notify: group.NotifyConsumerIDsChangedEnable,
		traits: ConsumerTraits{ConsumeType: d.ConsumeType, MessageModel: d.MessageModel, ConsumeFromWhere: d.ConsumeFromWhere},
	}
	order := false
	if !withoutSub {
		h.subscriptions = make([]*protocol.SubscriptionData, len(d.SubscriptionDataSet))
	}
	for i := range d.SubscriptionDataSet {
		s := &d.SubscriptionDataSet[i]
		if h.subscriptions != nil {
			h.subscriptions[i] = s
		}
		if t := p.Topics.Get(s.Topic); t != nil && t.Order {
			order = true
		}
	}
	if p.leads.Load() { // elsewhere it is the leader, to whom the client sends heartbeats too, that creates it
		ctx, cancel := createContext()
		defer cancel()
		if _, err := p.Topics.CreateRetry(ctx, group.GroupName, group.RetryQueueNums, order, d.UnitMode); err != nil {
			p.log.Error("retry topic is not saved; it will be tried again", "group", group.GroupName, "err", err)
		}
	}
	p.Consumers.Register(ch, &h)
}

// unregisterClient answers 35.
func (p *processors) unregisterClient(x *exchange, h *protocol.UnregisterClientHeader) error {
	if h.ProducerGroup != "" {
		p.Producers.Unregister(x.conn, h.ProducerGroup)
	}
	if h.ConsumerGroup != "" {
		p.Consumers.Unregister(x.conn, h.ConsumerGroup, p.Consumers.notifies(h.ConsumerGroup))
	}
	return nil
}

// checkClientConfig answers 46: whether a subscription can be served.
func (p *processors) checkClientConfig(x *exchange, _ *noHeader) error {
	var b protocol.CheckClientConfigBody
	if err := protocol.DecodeBody(x.req.Body, &b); err != nil {
		return fmt.Errorf("client config: %w", err)
	}
	if s := b.SubscriptionData; s != nil && s.ExpressionType != "" && s.ExpressionType != protocol.ExpressionTag {
		return answerf(protocol.ResponseSystemError, "The broker does not support consumer to filter message by %s", s.ExpressionType)
	}
	return nil
}

// consumerList answers 38: who else is in the group.
func (p *processors) consumerList(x *exchange, h *protocol.ConsumerGroupHeader) error {
	ids := p.Consumers.ClientIDs(h.ConsumerGroup)
	if len(ids) == 0 {
		return answerf(protocol.ResponseSystemError, "no consumer for this group, %s", h.ConsumerGroup)
	}
	return x.body(protocol.GetConsumerListResponseBody{ConsumerIDList: ids})
}

// lockBatch answers 41.
func (p *processors) lockBatch(x *exchange, _ *noHeader) error {
	var b protocol.LockBatchBody
	if err := protocol.DecodeBody(x.req.Body, &b); err != nil {
		return fmt.Errorf("queues to lock: %w", err)
	}
	return x.body(protocol.LockBatchResponseBody{LockOKMQSet: p.Locks.TryLockBatch(b.ConsumerGroup, b.MQSet, b.ClientID)})
}

// unlockBatch answers 42.
func (p *processors) unlockBatch(x *exchange, _ *noHeader) error {
	var b protocol.LockBatchBody
	if err := protocol.DecodeBody(x.req.Body, &b); err != nil {
		return fmt.Errorf("queues to unlock: %w", err)
	}
	p.Locks.UnlockBatch(b.ConsumerGroup, b.MQSet, b.ClientID)
	return nil
}
