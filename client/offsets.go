package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rmq/remoting/protocol"
)

// MaxOffset is the offset behind the newest message of a queue.
func (c *Client) MaxOffset(ctx context.Context, q MessageQueue) (int64, error) {
	h, err := header[protocol.OffsetResponse](c.callQueue(ctx, q, protocol.RequestGetMaxOffset, &protocol.QueueHeader{Topic: q.Topic, QueueID: q.QueueID, Committed: true}))
	if err != nil {
		return 0, err
	}
	return h.Offset, nil
}

// MinOffset is the offset of the oldest message of a queue.
func (c *Client) MinOffset(ctx context.Context, q MessageQueue) (int64, error) {
	h, err := header[protocol.OffsetResponse](c.callQueue(ctx, q, protocol.RequestGetMinOffset, &protocol.QueueHeader{Topic: q.Topic, QueueID: q.QueueID, Committed: true}))
	if err != nil {
		return 0, err
	}
	return h.Offset, nil
}

// OffsetAt is the offset of the first message stored at t or later; the end of the queue when all are older.
func (c *Client) OffsetAt(ctx context.Context, q MessageQueue, t time.Time) (int64, error) {
	h, err := header[protocol.OffsetResponse](c.callQueue(ctx, q, protocol.RequestSearchOffsetByTimestamp,
		&protocol.SearchOffsetHeader{Topic: q.Topic, QueueID: q.QueueID, Timestamp: t.UnixMilli()}))
	if err != nil {
		return 0, err
	}
	return h.Offset, nil
}

// EarliestStoreTime is when the oldest message of a queue was stored; [ErrNotFound] for an empty queue.
func (c *Client) EarliestStoreTime(ctx context.Context, q MessageQueue) (time.Time, error) {
	h, err := header[protocol.EarliestStoreTimeResponse](c.callQueue(ctx, q, protocol.RequestGetEarliestMsgStoreTime, &protocol.QueueHeader{Topic: q.Topic, QueueID: q.QueueID, Committed: true}))
	if err != nil {
		return time.Time{}, err
	}
	if h.Timestamp < 0 {
		return time.Time{}, fmt.Errorf("queue %s: no message: %w", q, ErrNotFound)
	}
	return time.UnixMilli(h.Timestamp), nil
}

// CommittedOffset is where a group goes on in a queue. [ErrNotFound] when it never committed, unless
// the broker decides that it begins at 0, as for a young queue. While the queue has no master, one of its slaves is asked.
func (c *Client) CommittedOffset(ctx context.Context, group string, q MessageQueue) (int64, error) {
	resp, err := c.callReplica(ctx, q, protocol.RequestQueryConsumerOffset,
		&protocol.QueryOffsetHeader{ConsumerGroup: group, Topic: q.Topic, QueueID: q.QueueID})
	if hasCode(err, protocol.ResponseQueryNotFound) {
		return 0, fmt.Errorf("offset of group %s in queue %s: %w", group, q, ErrNotFound)
	}
	h, err := header[protocol.OffsetResponse](resp, err)
	if err != nil {
		return 0, err
	}
	return h.Offset, nil
}

// CommitOffset stores where a group goes on in a queue, also backwards: at the master, or while there is none at a slave.
func (c *Client) CommitOffset(ctx context.Context, group string, q MessageQueue, offset int64) error {
	_, err := c.callReplica(ctx, q, protocol.RequestUpdateConsumerOffset, commitHeader(group, q, offset))
	return err
}

func commitHeader(group string, q MessageQueue, offset int64) *protocol.UpdateOffsetHeader {
	return &protocol.UpdateOffsetHeader{ConsumerGroup: group, Topic: q.Topic, QueueID: q.QueueID, CommitOffset: offset}
}

// callQueue asks the master that holds q, learning the topic's route first if need be.
func (c *Client) callQueue(ctx context.Context, q MessageQueue, code protocol.RequestCode, header any) (*protocol.Command, error) {
	if c.routes.master(q.BrokerName) == "" {
		if _, err := c.route(ctx, q.Topic); err != nil {
			return nil, err
		}
	}
	addr := c.routes.master(q.BrokerName)
	resp, err := c.callMaster(ctx, q.BrokerName, code, header, nil)
	var remote *protocol.RemoteError
	if err == nil || errors.As(err, &remote) || ctx.Err() != nil {
		return resp, err
	}
	// The broker may be back at another address, and nobody asks for routes of topics that are not in use.
	if _, rerr := c.refreshRoute(ctx, q.Topic); rerr != nil || c.routes.master(q.BrokerName) == addr {
		return resp, err
	}
	return c.callMaster(ctx, q.BrokerName, code, header, nil)
}

// callReplica is callQueue for what a slave may do as well while there is no master: groups read its copy then
// (RemoteBrokerOffsetStore, MQClientInstance.findBrokerAddressInAdmin).
func (c *Client) callReplica(ctx context.Context, q MessageQueue, code protocol.RequestCode, header any) (*protocol.Command, error) {
	resp, err := c.callQueue(ctx, q, code, header)
	if !errors.Is(err, ErrNoBroker) {
		return resp, err
	}
	addr, _ := c.routes.replica(q.BrokerName, masterID)
	if addr == "" {
		return nil, err
	}
	return c.call(ctx, addr, code, header, nil)
}

// ConsumeFrom says where a group begins in a queue for which it has no committed offset.
type ConsumeFrom int

const (
	// FromLast begins with what comes after the start. A topic younger than its oldest retained
	// message begins at 0 all the same: the broker decides that.
	FromLast ConsumeFrom = iota
	// FromFirst begins with the oldest message.
	FromFirst
	// FromTime begins with the first message stored at a given time or later.
	FromTime
)

// String is Java's name, which travels in heartbeats.
func (f ConsumeFrom) String() string {
	switch f {
	case FromLast:
		return "CONSUME_FROM_LAST_OFFSET"
	case FromFirst:
		return "CONSUME_FROM_FIRST_OFFSET"
	case FromTime:
		return "CONSUME_FROM_TIMESTAMP"
	}
	return fmt.Sprintf("ConsumeFrom(%d)", int(f))
}

// startOffset is where a consumer without a committed offset begins (RebalancePushImpl.computePullFromWhere).
func (c *Client) startOffset(ctx context.Context, group string, q MessageQueue, from ConsumeFrom, at time.Time) (int64, error) {
	retry := q.Topic == retryPrefix+group
	switch {
	case from == FromFirst, from == FromLast && retry:
		return 0, nil
	case from == FromLast, from == FromTime && retry:
		return c.MaxOffset(ctx, q)
	default:
		return c.OffsetAt(ctx, q, at)
	}
}
