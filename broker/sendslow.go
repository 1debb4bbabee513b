package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"rmq/engine"
	"rmq/remoting/protocol"
)

// parkedSends are the sends of one connection that have to wait for a topic to be created, or for what
// a retry has to look up, and those behind them. It is a job of the send executor.
type parkedSends struct{ cs *connState }

// park puts a send behind those that wait. The request is copied. Called on the reader; what it has
// gathered comes first.
func (cs *connState) park(req *protocol.Command) {
	cs.submitGathered()
	if no := cs.b.tooMuchToStore(); no != nil {
		cs.b.refuseSend(cs, req, no)
		return
	}
	cs.mu.Lock()
	if len(cs.parked) >= maxParked {
		cs.mu.Unlock()
		cs.b.refuseSend(cs, req, refuse(protocol.ResponseSystemBusy, fmt.Sprintf("[OVERLOAD]system busy, start flow control for a while: %d sends of this connection wait for a topic", maxParked)))
		return
	}
	cs.b.sendBytes.Add(int64(len(req.Body)))
	cs.parked = append(cs.parked, req.Clone())
	first := !cs.parking.Load()
	cs.parking.Store(true)
	cs.mu.Unlock()
	if first && !cs.b.executors[familySend].submit(parkedSends{cs}) {
		parkedSends{cs}.refuse(cs.b.executors[familySend].full())
	}
}

// unpark says that a send does not wait any more: its bytes are the store's to count from here, or gone.
func (p parkedSends) unpark(req *protocol.Command) { p.cs.b.sendBytes.Add(-int64(len(req.Body))) }

// maxParked bounds the requests that a connection may leave waiting. Their bytes are bounded with those of
// all messages that wait to be stored.
const maxParked = 4096

// take removes all parked sends; without any, sends go the short way again.
func (p parkedSends) take() []*protocol.Command {
	cs := p.cs
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := cs.parked
	cs.parked = nil
	if len(all) == 0 {
		cs.parking.Store(false)
	}
	return all
}

func (p parkedSends) run() {
	b := p.cs.b
	for all := p.take(); len(all) > 0; all = p.take() {
		b.createTopics(all)
		for _, req := range all {
			p.unpark(req)
			b.sendSlowly(p.cs, req)
		}
	}
}

func (p parkedSends) refuse(cause string) {
	for all := p.take(); len(all) > 0; all = p.take() {
		for _, req := range all {
			p.unpark(req)
			p.cs.b.refuseSend(p.cs, req, refuse(protocol.ResponseSystemBusy, cause))
		}
	}
}

// createTopics creates the topics that several sends wait for, so that they wait for the disk once.
func (b *Broker) createTopics(reqs []*protocol.Command) {
	if len(reqs) == 1 {
		return
	}
	var wishes []topicWish
	for _, req := range reqs {
		var h protocol.SendHeader
		if protocol.ParseSendHeader(req, &h) != nil {
			continue
		}
		if topic, no := b.checkSend(&h); topic == nil && no == nil {
			wishes = append(wishes, topicWish{string(h.Topic), string(h.DefaultTopic), h.DefaultTopicQueueNums, h.UnitMode})
		}
	}
	b.Topics.createAllOnSend(b.group.Context(), wishes)
}

// sendSlowly is serveSend where blocking is allowed.
func (b *Broker) sendSlowly(cs *connState, req *protocol.Command) {
	var h protocol.SendHeader
	op, no := func() (*sendOp, *refusal) {
		if err := protocol.ParseSendHeader(req, &h); err != nil {
			return nil, refuse(protocol.ResponseSystemError, err.Error())
		}
		topic, no := b.checkSend(&h)
		if no != nil {
			return nil, no
		}
		if topic == nil {
			if topic, no = b.createTopic(&h); no != nil {
				return nil, no
			}
		}
		if group, isRetry := strings.CutPrefix(topic.TopicName, retryPrefix); isRetry {
			return b.prepareRetry(cs, req, &h, group, topic)
		}
		return b.prepareSend(cs, req, &h, topic.TopicName, topic, asSent)
	}()
	if no != nil {
		b.refuseSend(cs, req, no)
		return
	}
	cs.submit([]*sendOp{op}, []*engine.Append{&op.Append})
}

// createTopic creates the topic of a message after the template that the client names. A retry topic is
// created even where that is not allowed.
func (b *Broker) createTopic(h *protocol.SendHeader) (*protocol.TopicConfig, *refusal) {
	ctx := b.group.Context()
	topic, err := b.Topics.CreateOnSend(ctx, string(h.Topic), string(h.DefaultTopic), h.DefaultTopicQueueNums, h.UnitMode)
	if errors.Is(err, ErrTopicNotExist) {
		if group, isRetry := strings.CutPrefix(string(h.Topic), retryPrefix); isRetry {
			topic, err = b.Topics.CreateRetry(ctx, group, 1, false, h.UnitMode)
		}
	}
	switch {
	case errors.Is(err, ErrTopicNotExist):
		return nil, noTopic(h.Topic)
	case topic == nil && err != nil:
		return nil, refuse(protocol.ResponseInvalidParameter, err.Error())
	case err != nil:
		return nil, refuse(protocol.ResponseSystemError, "the topic is created but could not be saved: "+err.Error())
	}
	return topic, nil
}

// versionMaxReconsume is the first client version whose maxReconsumeTimes counts (V3_4_9).
const versionMaxReconsume = 121

// prepareRetry makes the record of a message that a consumer sends to its retry topic because it could
// not send it back. Above the group's limit, or while the group consumes in order, it goes to the dead
// letters.
func (b *Broker) prepareRetry(cs *connState, req *protocol.Command, h *protocol.SendHeader, group string, topic *protocol.TopicConfig) (*sendOp, *refusal) {
	config := b.Groups.Find(group)
	if config == nil {
		return nil, refuse(protocol.ResponseSubscriptionGroupNotExist, "subscription group not exist, "+group)
	}
	limit := config.RetryMaxTimes
	if req.Version >= versionMaxReconsume && h.HasMaxReconsume {
		limit = h.MaxReconsumeTimes
	}
	if h.ReconsumeTimes <= limit && !b.Locks.HasUnexpired(group) {
		return b.prepareSend(cs, req, h, topic.TopicName, topic, asSent)
	}
	dead, err := b.Topics.CreateDLQ(context.WithoutCancel(b.group.Context()), group)
	if err != nil {
		return nil, refuse(protocol.ResponseSystemError, "the dead-letter topic could not be created: "+err.Error())
	}
	return b.prepareSend(cs, req, h, dead.TopicName, dead, toDeadLetters)
}
