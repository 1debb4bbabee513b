package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// CreateGroup makes a consumer group at a broker, or changes it.
func (a *Admin) CreateGroup(ctx context.Context, addr string, cfg *protocol.SubscriptionGroupConfig) error {
	return a.do(ctx, addr, protocol.RequestUpdateAndCreateSubscriptionGroup, nil, protocol.EncodeBody(cfg))
}

// CreateGroups makes or changes several groups at a broker with one request (5.x).
func (a *Admin) CreateGroups(ctx context.Context, addr string, cfgs []*protocol.SubscriptionGroupConfig) error {
	return a.do(ctx, addr, protocol.RequestUpdateAndCreateSubscriptionGroupList, nil, protocol.EncodeBody(protocol.SubscriptionGroupList{GroupConfigList: cfgs}))
}

// Group is what a broker knows of a consumer group; [ErrNotFound] if nothing. Of a broker before 5.0, which
// cannot be asked for one, all are read.
func (a *Admin) Group(ctx context.Context, addr, group string) (*protocol.SubscriptionGroupConfig, error) {
	g, err := decode[protocol.SubscriptionGroupConfig](a.call(ctx, addr, protocol.RequestGetSubscriptionGroupConfig, &protocol.GroupHeader{Group: group}, nil))
	switch {
	case hasCode(err, protocol.ResponseRequestCodeNotSupported):
		return oneOf(group, func() (map[string]*protocol.SubscriptionGroupConfig, error) {
			w, err := a.Groups(ctx, addr)
			if err != nil {
				return nil, err
			}
			return w.SubscriptionGroupTable, nil
		})
	case err != nil:
		return nil, notFound(err)
	}
	return g, nil
}

// Groups are all consumer groups of a broker.
func (a *Admin) Groups(ctx context.Context, addr string) (*protocol.SubscriptionGroupWrapper, error) {
	return decode[protocol.SubscriptionGroupWrapper](a.call(ctx, addr, protocol.RequestGetAllSubscriptionGroupConfig, nil, nil))
}

// DeleteGroup removes a consumer group from a broker, with its offsets if wished.
func (a *Admin) DeleteGroup(ctx context.Context, addr, group string, cleanOffsets bool) error {
	return a.do(ctx, addr, protocol.RequestDeleteSubscriptionGroup, &protocol.DeleteSubscriptionGroupHeader{GroupName: group, CleanOffset: cleanOffsets, RemoveOffset: cleanOffsets}, nil)
}

// GroupForbidden says whether a group may read a topic at a broker; readable nil asks, else it is set.
func (a *Admin) GroupForbidden(ctx context.Context, addr, group, topic string, readable *bool) (*protocol.GroupForbidden, error) {
	return decode[protocol.GroupForbidden](a.call(ctx, addr, protocol.RequestUpdateAndGetGroupForbidden, &protocol.GroupForbiddenHeader{Group: group, Topic: topic, Readable: readable}, nil))
}

// eachBrokerOf runs f for one address of every broker that knows a consumer group: those of its retry topic.
func (a *Admin) eachBrokerOf(ctx context.Context, group string, f func(addr, brokerName string) error) error {
	err := a.eachBroker(ctx, retryPrefix+group, f)
	if errors.Is(err, ErrNoRoute) {
		return fmt.Errorf("consumer group %s: %w: no broker knows it", group, err)
	}
	return err
}

// ConsumerConnection are the online members of a group and what they subscribe to; [ErrNotOnline] if there are none.
func (a *Admin) ConsumerConnection(ctx context.Context, group string) (*protocol.ConsumerConnection, error) {
	var found *protocol.ConsumerConnection
	var last error
	err := a.eachBrokerOf(ctx, group, func(addr, _ string) error {
		if found == nil {
			found, last = a.ConsumerConnectionAt(ctx, addr, group)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil && last == nil:
		return nil, fmt.Errorf("group %s: %w", group, ErrNotOnline)
	}
	return found, last
}

// ConsumerConnectionAt is [Admin.ConsumerConnection] as one broker sees it.
func (a *Admin) ConsumerConnectionAt(ctx context.Context, addr, group string) (*protocol.ConsumerConnection, error) {
	cc, err := decode[protocol.ConsumerConnection](a.call(ctx, addr, protocol.RequestGetConsumerConnectionList, &protocol.ConsumerGroupHeader{ConsumerGroup: group}, nil))
	return cc, notOnline(err)
}

// notOnline adds [ErrNotOnline] to a refusal that means it.
func notOnline(err error) error {
	if hasCode(err, protocol.ResponseConsumerNotOnline) {
		return fmt.Errorf("%w: %w", ErrNotOnline, err)
	}
	return err
}

// ProducerConnection are the online members of a producer group, as a broker of the topic sees them.
func (a *Admin) ProducerConnection(ctx context.Context, group, topic string) (*protocol.ProducerConnection, error) {
	var all protocol.ProducerConnection
	var last error
	asked := false
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		if len(all.ConnectionSet) > 0 {
			return nil
		}
		asked = true
		pc, err := decode[protocol.ProducerConnection](a.call(ctx, addr, protocol.RequestGetProducerConnectionList, &protocol.ProducerGroupHeader{ProducerGroup: group}, nil))
		if last = err; err == nil {
			all = *pc
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !asked:
		return nil, fmt.Errorf("topic %s: %w", topic, ErrNoBroker)
	}
	return &all, last
}

// Producers are all producers online at a broker, by group.
func (a *Admin) Producers(ctx context.Context, addr string) (*protocol.ProducerTableInfo, error) {
	return decode[protocol.ProducerTableInfo](a.call(ctx, addr, protocol.RequestGetAllProducerInfo, nil, nil))
}

// TopicsOf are the topics that a group consumes or has offsets for, at one broker.
func (a *Admin) TopicsOf(ctx context.Context, addr, group string) ([]string, error) {
	return topicNames(a.call(ctx, addr, protocol.RequestQueryTopicsByConsumer, &protocol.GroupHeader{Group: group}, nil))
}

// Subscription is what a group subscribes to of a topic, as a broker knows it; [ErrNotFound] if nothing.
func (a *Admin) Subscription(ctx context.Context, addr, group, topic string) (*protocol.SubscriptionData, error) {
	s, err := decode[protocol.QuerySubscriptionResponseBody](a.call(ctx, addr, protocol.RequestQuerySubscriptionByConsumer, &protocol.QuerySubscriptionHeader{Group: group, Topic: topic}, nil))
	if err != nil {
		return nil, err
	}
	if s.SubscriptionData == nil {
		return nil, fmt.Errorf("subscription of group %s to topic %s: %w", group, topic, ErrNotFound)
	}
	return s.SubscriptionData, nil
}

// ConsumeStats say how far a group is in all its queues, at all brokers; topic "" for all topics.
func (a *Admin) ConsumeStats(ctx context.Context, group, topic string) (*protocol.ConsumeStats, error) {
	all := &protocol.ConsumeStats{OffsetTable: map[MessageQueue]protocol.OffsetWrapper{}}
	each := func(addr, _ string) error {
		s, err := a.ConsumeStatsAt(ctx, addr, group, topic)
		if err != nil {
			return err
		}
		maps.Copy(all.OffsetTable, s.OffsetTable)
		all.ConsumeTPS += s.ConsumeTPS
		return nil
	}
	err := a.eachBrokerOf(ctx, group, each)
	if errors.Is(err, ErrNoRoute) && topic != "" {
		err = a.eachBroker(ctx, topic, each)
	}
	return all, err
}

// ConsumeStatsAt is [Admin.ConsumeStats] at one broker.
func (a *Admin) ConsumeStatsAt(ctx context.Context, addr, group, topic string) (*protocol.ConsumeStats, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	return decode[protocol.ConsumeStats](a.c.call(ctx, addr, protocol.RequestGetConsumeStats, &protocol.GetConsumeStatsHeader{ConsumerGroup: group, Topic: topic}, nil))
}

// BrokerConsumeStats are those of all groups of a broker, of the ordered or of the other ones.
func (a *Admin) BrokerConsumeStats(ctx context.Context, addr string, ordered bool) (*protocol.ConsumeStatsList, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	return decode[protocol.ConsumeStatsList](a.c.call(ctx, addr, protocol.RequestGetBrokerConsumeStats, &protocol.GetBrokerConsumeStatsHeader{IsOrder: ordered}, nil))
}

// RunningInfo asks an online member of a group what it is doing, by way of a broker; stacks adds those of
// its goroutines or threads.
func (a *Admin) RunningInfo(ctx context.Context, group, clientID string, stacks bool) (*protocol.ConsumerRunningInfo, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	var info *protocol.ConsumerRunningInfo
	var last error
	err := a.eachBrokerOf(ctx, group, func(addr, _ string) error {
		if info == nil {
			info, last = a.RunningInfoAt(ctx, addr, group, clientID, stacks)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return info, last
}

// RunningInfoAt is [Admin.RunningInfo] by way of one broker.
func (a *Admin) RunningInfoAt(ctx context.Context, addr, group, clientID string, stacks bool) (*protocol.ConsumerRunningInfo, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	info, err := decode[protocol.ConsumerRunningInfo](a.c.call(ctx, addr, protocol.RequestGetConsumerRunningInfo,
		&protocol.GetConsumerRunningInfoHeader{ConsumerGroup: group, ClientID: clientID, JstackEnable: stacks}, nil))
	return info, notOnline(err)
}

// ConsumeDirectly has an online member of a group consume one stored message, whose offset id is given, by way
// of the broker that stores it. No offset moves.
func (a *Admin) ConsumeDirectly(ctx context.Context, group, clientID, topic, offsetID string) (*protocol.ConsumeMessageDirectlyResult, error) {
	id, err := message.ParseID(offsetID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	res, err := decode[protocol.ConsumeMessageDirectlyResult](a.c.call(ctx, id.Host.String(), protocol.RequestConsumeMessageDirectly,
		&protocol.ConsumeMessageDirectlyHeader{ConsumerGroup: group, ClientID: clientID, MsgID: offsetID, Topic: topic}, nil))
	return res, notOnline(err)
}

// ConsumerStatus asks the online members of a group, or one of them, how far they have come in the queues of
// a topic: offsets by client id.
func (a *Admin) ConsumerStatus(ctx context.Context, topic, group, clientID string) (map[string]map[MessageQueue]int64, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	out := map[string]map[MessageQueue]int64{}
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		s, err := decode[protocol.ConsumerStatusBody](a.c.call(ctx, addr, protocol.RequestInvokeBrokerToGetConsumerStatus,
			&protocol.GetConsumerStatusHeader{Topic: topic, Group: group, ClientAddr: clientID}, nil))
		if err != nil {
			return notOnline(err)
		}
		for id, offsets := range s.ConsumerTable {
			if out[id] == nil {
				out[id] = map[MessageQueue]int64{}
			}
			maps.Copy(out[id], offsets)
		}
		return nil
	})
	return out, err
}

// ResetOffsets moves a group in all queues of a topic to the first message stored at t or later; the zero
// time means the end. Without force no queue moves forwards. It returns the new offsets.
//
// Brokers from 5.0 on, and ours, do it whether members are online or not; older ones tell the members, and
// where nobody is online the offsets are set from here.
func (a *Admin) ResetOffsets(ctx context.Context, topic, group string, t time.Time, force bool) (map[MessageQueue]int64, error) {
	h := &protocol.ResetOffsetHeader{Topic: topic, Group: group, Timestamp: -1, IsForce: force, QueueID: -1, Offset: -1}
	if !t.IsZero() {
		h.Timestamp = t.UnixMilli()
	}
	out := map[MessageQueue]int64{}
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		moved, err := a.resetAt(ctx, addr, h)
		if hasCode(err, protocol.ResponseConsumerNotOnline) {
			moved, err = a.resetOffline(ctx, addr, topic, group, t, force)
		}
		maps.Copy(out, moved)
		return err
	})
	return out, err
}

// ResetQueue moves a group to an offset in one queue.
func (a *Admin) ResetQueue(ctx context.Context, group string, q MessageQueue, offset int64) error {
	addr, err := a.c.masterOf(ctx, q.BrokerName)
	if errors.Is(err, ErrNoBroker) {
		if _, err = a.c.refreshRoute(ctx, q.Topic); err == nil {
			addr, err = a.c.masterOf(ctx, q.BrokerName)
		}
	}
	if err != nil {
		return err
	}
	_, err = a.resetAt(ctx, addr, &protocol.ResetOffsetHeader{Topic: q.Topic, Group: group, IsForce: true, QueueID: q.QueueID, Offset: offset})
	if hasCode(err, protocol.ResponseConsumerNotOnline) {
		return a.c.CommitOffset(ctx, group, q, offset)
	}
	return err
}

func (a *Admin) resetAt(ctx context.Context, addr string, h *protocol.ResetOffsetHeader) (map[MessageQueue]int64, error) {
	b, err := decode[protocol.ResetOffsetBody](a.call(ctx, addr, protocol.RequestInvokeBrokerToResetOffset, h, nil))
	if err != nil {
		return nil, notOnline(err)
	}
	return b.OffsetTable, nil
}

// resetOffline sets the offsets of a group of which no member is online (resetOffsetByTimestampOld).
func (a *Admin) resetOffline(ctx context.Context, addr, topic, group string, t time.Time, force bool) (map[MessageQueue]int64, error) {
	stats, err := a.ConsumeStatsAt(ctx, addr, group, topic)
	if err != nil {
		return nil, err
	}
	if _, err := a.c.refreshRoute(ctx, topic); err != nil {
		return nil, err
	}
	out := map[MessageQueue]int64{}
	for q, have := range stats.OffsetTable {
		var to int64
		if t.IsZero() {
			to, err = a.c.MaxOffset(ctx, q)
		} else {
			to, err = a.c.OffsetAt(ctx, q, t)
		}
		if err != nil {
			return out, err
		}
		if !force && to > have.ConsumerOffset {
			continue
		}
		if err := a.c.CommitOffset(ctx, group, q, to); err != nil {
			return out, err
		}
		out[q] = to
	}
	return out, nil
}

// CloneOffsets has one group go on in a topic where another one is; the other must be known, and to must not
// be consuming.
func (a *Admin) CloneOffsets(ctx context.Context, from, to, topic string) error {
	stats, err := a.ConsumeStats(ctx, from, topic)
	if err != nil {
		return err
	}
	for q, have := range stats.OffsetTable {
		if err := a.c.CommitOffset(ctx, to, q, have.ConsumerOffset); err != nil {
			return err
		}
	}
	return nil
}

// TrackStatus says what a consumer group has done with a message
// (org.apache.rocketmq.tools.admin.api.TrackType).
type TrackStatus string

// What can have become of a message.
const (
	TrackConsumed      TrackStatus = "CONSUMED"
	TrackFiltered      TrackStatus = "CONSUMED_BUT_FILTERED"
	TrackPull          TrackStatus = "PULL"
	TrackNotConsumed   TrackStatus = "NOT_CONSUME_YET"
	TrackNotOnline     TrackStatus = "NOT_ONLINE"
	TrackBroadcast     TrackStatus = "CONSUME_BROADCASTING"
	TrackUnknownStatus TrackStatus = "UNKNOWN"
)

// Track is what one consumer group has done with a message.
type Track struct {
	Group  string
	Status TrackStatus
	Err    error // with TrackUnknownStatus and TrackNotOnline
}

// Tracks say what every consumer group of a message's topic has done with it (messageTrackDetail).
func (a *Admin) Tracks(ctx context.Context, m *MessageExt) ([]Track, error) {
	groups, err := a.GroupsOf(ctx, m.Topic)
	if err != nil {
		return nil, err
	}
	broker, err := a.brokerAt(ctx, m)
	if err != nil {
		return nil, err
	}
	var out []Track
	for _, g := range groups {
		t := Track{Group: g}
		t.Status, t.Err = a.track(ctx, m, broker, g)
		out = append(out, t)
	}
	return out, nil
}

// brokerAt is the name of the broker that stores m.
func (a *Admin) brokerAt(ctx context.Context, m *MessageExt) (string, error) {
	info, err := a.Cluster(ctx)
	if err != nil {
		return "", err
	}
	for name, b := range info.BrokerAddrTable {
		for _, addr := range b.BrokerAddrs {
			if addr == m.StoreHost.String() {
				return name, nil
			}
		}
	}
	return m.Queue.BrokerName, nil
}

func (a *Admin) track(ctx context.Context, m *MessageExt, broker, group string) (TrackStatus, error) {
	cc, err := a.ConsumerConnection(ctx, group)
	switch {
	case errors.Is(err, ErrNotOnline), errors.Is(err, ErrNoRoute): // without a retry topic none ever was
		return TrackNotOnline, err
	case err != nil:
		return TrackUnknownStatus, err
	case cc.ConsumeType == protocol.ConsumeActively:
		return TrackPull, nil
	case cc.MessageModel == protocol.Broadcasting:
		return TrackBroadcast, nil
	}
	stats, err := a.ConsumeStats(ctx, group, m.Topic)
	if err != nil {
		return TrackUnknownStatus, err
	}
	o, ok := stats.OffsetTable[MessageQueue{Topic: m.Topic, BrokerName: broker, QueueID: m.Queue.QueueID}]
	if !ok || o.ConsumerOffset <= m.QueueOffset {
		return TrackNotConsumed, nil
	}
	if s, ok := cc.SubscriptionTable[m.Topic]; ok && len(s.TagsSet) > 0 {
		for _, tag := range s.TagsSet {
			if tag == m.Tags() || tag == "*" {
				return TrackConsumed, nil
			}
		}
		return TrackFiltered, nil
	}
	return TrackConsumed, nil
}
