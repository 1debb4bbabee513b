package client

import "rmq/message"

// QueueSelector chooses among the queues of a topic, which come in the same order every time: by broker
// name, then number. The slice belongs to the client. An error ends the send.
type QueueSelector func(queues []MessageQueue, m *Message) (MessageQueue, error)

// SendOption changes how one message is sent.
type SendOption func(*sendPlan)

// sendPlan is how one message is to be sent.
type sendPlan struct {
	selector QueueSelector // nil: queues in turn
}

// ToQueue sends to one queue. There is no retry elsewhere.
func ToQueue(q MessageQueue) SendOption {
	return BySelector(func([]MessageQueue, *Message) (MessageQueue, error) { return q, nil })
}

// BySelector sends to the queue that s chooses. There is no retry elsewhere, so that messages stay in order.
func BySelector(s QueueSelector) SendOption {
	return func(p *sendPlan) { p.selector = s }
}

// ByShardingKey keeps messages with the same Message.ShardingKey in one queue, hence in order, as long
// as the topic has the same queues (SelectMessageQueueByHash over a String: Java producers choose the same).
func ByShardingKey() SendOption { return BySelector(hashSelector) }

func hashSelector(queues []MessageQueue, m *Message) (MessageQueue, error) {
	if m.ShardingKey == "" {
		return MessageQueue{}, &LimitError{"ShardingKey", "is empty", "set Message.ShardingKey, or leave ByShardingKey away"}
	}
	i := int(int32(message.TagHash([]byte(m.ShardingKey)))) % len(queues)
	return queues[max(i, -i)], nil
}

// inTurn takes the queues of a route one after the other, other brokers than avoid first
// (TopicPublishInfo.selectOneMessageQueue).
func (r *topicRoute) inTurn(avoid string, usable func(brokerName string) bool) MessageQueue {
	var second *MessageQueue
	for range r.publish {
		q := &r.publish[r.turn.Add(1)%uint32(len(r.publish))]
		switch {
		case q.BrokerName == avoid:
		case usable(q.BrokerName):
			return *q
		case second == nil:
			second = q
		}
	}
	if second != nil {
		return *second
	}
	return r.publish[r.turn.Add(1)%uint32(len(r.publish))]
}
