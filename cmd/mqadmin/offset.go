package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rmq/client"
)

func offsetCommands() []command {
	return []command{
		{"resetOffsetByTime", "Move a group to the messages stored from a time on", resetOffsetByTime},
		{"resetOffsetByTimeOld", "The same by writing its offsets from here, for groups that are not online", resetOffsetByTimeOld},
		{"skipAccumulatedMessage", "Move a group to the end", skipAccumulatedMessage},
		{"cloneGroupOffset", "Have one group go on where another one is", cloneGroupOffset},
		{"getConsumerStatus", "Ask the members of a group for their offsets", getConsumerStatus},
	}
}

// offsetRow is where a group now is in a queue.
type offsetRow struct {
	Broker string `json:"brokerName" col:"#brokerName"`
	Queue  int32  `json:"queueId" col:"#queueId"`
	Offset int64  `json:"offset" col:"#offset"`
}

type resetReport struct {
	Group  string      `json:"group"`
	Topic  string      `json:"topic"`
	Queues []offsetRow `json:"queues"`

	head string
}

func (r *resetReport) text(p *page) {
	if r.head != "" {
		p.line("%s", r.head)
	}
	p.columns(r.Queues)
}

func newResetReport(group, topic, head string, offsets map[client.MessageQueue]int64) *resetReport {
	r := &resetReport{group, topic, []offsetRow{}, head}
	for _, q := range sortedQueues(offsets) {
		r.Queues = append(r.Queues, offsetRow{q.BrokerName, q.QueueID, offsets[q]})
	}
	return r
}

// resetResult shows nothing where nothing was done.
func resetResult(group, topic, head string, offsets map[client.MessageQueue]int64, err error) (any, error) {
	if err != nil && len(offsets) == 0 {
		return nil, err
	}
	return newResetReport(group, topic, head, offsets), err
}

func resetOffsetByTime(f *flags) action {
	group := f.need("group", "g", "the consumer group")
	topic := f.need("topic", "t", "the topic")
	at := f.need("timestamp", "s", "now, -1 for the end, milliseconds since 1970, or like 2026-01-31#23:59:59:000")
	force := f.truth("force", "f", true, "also where that is forwards")
	queue := f.Int32P("queue", "q", -1, "only this queue, of the broker -b")
	broker := f.address("broker", "with -q: `host:port` of its broker")
	offset := f.number("offset", "o", -1, "with -q: this offset instead of a time")
	f.ignored("cluster", "c", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		when, err := resetTime(*at)
		if err != nil {
			return nil, err
		}
		if *queue >= 0 {
			return resetOne(ctx, t, *group, *topic, *broker, *queue, *offset, when)
		}
		if *broker != "" || *offset >= 0 {
			return nil, usage("--broker and --offset go with -q (--queue): give it too, or leave them out")
		}
		head := fmt.Sprintf("start reset consumer offset by specified, group[%s], topic[%s], force[%v], timestamp(string)[%s], timestamp(long)[%d]",
			*group, *topic, *force, *at, resetMillis(when))
		moved, err := t.admin.ResetOffsets(ctx, *topic, *group, when, *force)
		return resetResult(*group, *topic, head, moved, err)
	}
}

// resetTime reads a time; -1 is the zero time, the end.
func resetTime(text string) (time.Time, error) {
	if text == "-1" {
		return time.Time{}, nil
	}
	return parseTime("timestamp", text)
}

func resetMillis(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}

// resetOne moves a group in one queue of the broker at an address.
func resetOne(ctx context.Context, t *tool, group, topic, addr string, queue int32, offset int64, when time.Time) (any, error) {
	if addr == "" {
		return nil, usage("give -b (--broker) with -q: the host:port of the queue's broker")
	}
	route, err := t.admin.Route(ctx, topic)
	if err != nil {
		return nil, err
	}
	q := client.MessageQueue{Topic: topic, QueueID: queue}
	for _, b := range route.BrokerDatas {
		if b.BrokerAddrs[0] == addr {
			q.BrokerName = b.BrokerName
		}
	}
	if q.BrokerName == "" {
		return nil, fmt.Errorf("broker %s: %w: it is no master of topic %s, see mqadmin topicRoute -l -t %s", addr, client.ErrNotFound, topic, topic)
	}
	switch {
	case offset >= 0:
	case when.IsZero():
		offset, err = t.client().MaxOffset(ctx, q)
	default:
		offset, err = t.client().OffsetAt(ctx, q, when)
	}
	if err == nil {
		err = t.admin.ResetQueue(ctx, group, q, offset)
	}
	if err != nil {
		return nil, err
	}
	return says(newResetReport(group, topic, "", map[client.MessageQueue]int64{q: offset}), "reset consumer offset to %d", offset), nil
}

// rollbackRow is what resetOffsetByTimeOld did to a queue.
type rollbackRow struct {
	Broker   string `json:"brokerName" col:"#brokerName"`
	Queue    int32  `json:"queueId" col:"#queueId"`
	BrokerAt int64  `json:"brokerOffset" col:"#brokerOffset"`
	GroupAt  int64  `json:"consumerOffset" col:"#consumerOffset"`
	TimeAt   int64  `json:"timestampOffset" col:"#timestampOffset"`
	Now      int64  `json:"rollbackOffset" col:"#rollbackOffset"`
}

func resetOffsetByTimeOld(f *flags) action {
	group := f.need("group", "g", "the consumer group")
	topic := f.need("topic", "t", "the topic")
	at := f.need("timestamp", "s", "now, -1 for the end, milliseconds since 1970, or like 2026-01-31#23:59:59:000")
	force := f.truth("force", "f", true, "also where that is forwards")
	return func(ctx context.Context, t *tool) (any, error) {
		when, err := resetTime(*at)
		if err != nil {
			return nil, err
		}
		stats, err := t.admin.ConsumeStats(ctx, *group, *topic)
		if err != nil {
			return nil, err
		}
		if len(stats.OffsetTable) == 0 {
			return nil, fmt.Errorf("no offsets of consumer group %s in topic %s: %w: nothing to move", *group, *topic, client.ErrNotFound)
		}
		rows := []rollbackRow{}
		for _, q := range sortedQueues(stats.OffsetTable) {
			o := stats.OffsetTable[q]
			r := rollbackRow{Broker: q.BrokerName, Queue: q.QueueID, BrokerAt: o.BrokerOffset, GroupAt: o.ConsumerOffset, Now: o.ConsumerOffset, TimeAt: o.BrokerOffset}
			if !when.IsZero() {
				if r.TimeAt, err = t.client().OffsetAt(ctx, q, when); err != nil {
					return rows, err
				}
			}
			if *force || r.TimeAt <= r.GroupAt {
				if err := t.client().CommitOffset(ctx, *group, q, r.TimeAt); err != nil {
					return rows, err
				}
				r.Now = r.TimeAt
			}
			rows = append(rows, r)
		}
		return rows, nil
	}
}

func skipAccumulatedMessage(f *flags) action {
	group := f.need("group", "g", "the consumer group")
	topic := f.need("topic", "t", "the topic")
	force := f.truth("force", "f", true, "accepted: the end is always forwards")
	f.ignored("cluster", "c", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		moved, err := t.admin.ResetOffsets(ctx, *topic, *group, time.Time{}, *force)
		return resetResult(*group, *topic, "", moved, err)
	}
}

func cloneGroupOffset(f *flags) action {
	from := f.need("src-group", "s", "the group that is ahead")
	to := f.need("dest-group", "d", "the group that is to follow; it must exist and not consume now")
	topic := f.need("topic", "t", "the topic")
	f.ignored("offline", "o", "offsets are read from and written to the brokers in any case")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := t.admin.CloneOffsets(ctx, *from, *to, *topic); err != nil {
			return nil, err
		}
		return says(map[string]string{"srcGroup": *from, "destGroup": *to, "topic": *topic},
			"clone group offset success. srcGroup[%s], destGroup=[%s], topic[%s]", *from, *to, *topic), nil
	}
}

// statusRow is where one member says it is in a queue.
type statusRow struct {
	Client string `json:"clientId" col:"#clientId"`
	Broker string `json:"brokerName" col:"#brokerName"`
	Queue  int32  `json:"queueId" col:"#queueId"`
	Offset int64  `json:"offset" col:"#offset"`
}

func getConsumerStatus(f *flags) action {
	group := f.need("group", "g", "the consumer group")
	topic := f.need("topic", "t", "the topic")
	id := f.text("origin-client-id", "i", "", "only this member")
	return func(ctx context.Context, t *tool) (any, error) {
		status, err := t.admin.ConsumerStatus(ctx, *topic, *group, *id)
		if err != nil && !errors.Is(err, client.ErrNotOnline) {
			return nil, err
		}
		rows := []statusRow{}
		for _, member := range slices.Sorted(maps.Keys(status)) {
			for _, q := range sortedQueues(status[member]) {
				rows = append(rows, statusRow{member, q.BrokerName, q.QueueID, status[member][q]})
			}
		}
		return rows, err
	}
}
