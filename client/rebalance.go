package client

import (
	"context"
	"fmt"
	"slices"

	"rmq/remoting/protocol"
)

// share is what this client should hold of a topic: all queues for a broadcast group, else its part
// among the members that a broker names (RebalanceImpl.rebalanceByTopic).
func (c *Client) share(ctx context.Context, group, topic string, model MessageModel, allocate AllocateStrategy) ([]MessageQueue, error) {
	r, err := c.route(ctx, topic)
	if err != nil {
		return nil, err
	}
	if model == Broadcasting {
		return r.consume, nil
	}
	members, err := c.groupMembers(ctx, r, group)
	if err != nil {
		return nil, err
	}
	return allocate(c.id, slices.Clone(r.consume), members), nil
}

// groupMembers asks one broker of the topic after another for the client ids of a group, sorted. All of
// them know all: every consumer sends its heartbeat to every broker.
func (c *Client) groupMembers(ctx context.Context, r *topicRoute, group string) ([]string, error) {
	err := ErrNoBroker
	first := int(r.turn.Add(1))
	for i := range r.data.BrokerDatas {
		b := r.data.BrokerDatas[(first+i)%len(r.data.BrokerDatas)]
		addr, _ := c.routes.replica(b.BrokerName, masterID)
		if addr == "" {
			continue
		}
		var list *protocol.GetConsumerListResponseBody
		list, err = decode[protocol.GetConsumerListResponseBody](c.call(ctx, addr, protocol.RequestGetConsumerListByGroup, &protocol.ConsumerGroupHeader{ConsumerGroup: group}, nil))
		if err == nil {
			slices.Sort(list.ConsumerIDList)
			return list.ConsumerIDList, nil
		}
	}
	return nil, fmt.Errorf("members of group %s: %w", group, err)
}
