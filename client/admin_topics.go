package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// CreateTopic makes a topic at a broker, or changes it. attributes are changes in Java's form, "+key=value,-key",
// "" for none; those in cfg are not sent.
func (a *Admin) CreateTopic(ctx context.Context, addr string, cfg *protocol.TopicConfig, attributes string) error {
	return a.do(ctx, addr, protocol.RequestUpdateAndCreateTopic, &protocol.CreateTopicHeader{
		Topic: cfg.TopicName, DefaultTopic: defaultTopic, ReadQueueNums: cfg.ReadQueueNums, WriteQueueNums: cfg.WriteQueueNums, Perm: cfg.Perm,
		TopicFilterType: cfg.TopicFilterType, TopicSysFlag: cfg.TopicSysFlag, Order: cfg.Order, Attributes: attributes,
	}, nil)
}

// CreateTopics makes or changes several topics at a broker with one request (5.x).
func (a *Admin) CreateTopics(ctx context.Context, addr string, cfgs []*protocol.TopicConfig) error {
	return a.do(ctx, addr, protocol.RequestUpdateAndCreateTopicList, nil, protocol.EncodeBody(protocol.TopicConfigList{TopicConfigList: cfgs}))
}

// Topic is what a broker knows of a topic; [ErrNotFound] if nothing. Of a broker before 5.0, which cannot be
// asked for one, all are read.
func (a *Admin) Topic(ctx context.Context, addr, topic string) (*protocol.TopicConfig, error) {
	t, err := decode[protocol.TopicConfigAndMapping](a.call(ctx, addr, protocol.RequestGetTopicConfig, &protocol.GetTopicConfigHeader{Topic: topic}, nil))
	switch {
	case hasCode(err, protocol.ResponseRequestCodeNotSupported):
		return oneOf(topic, func() (map[string]*protocol.TopicConfig, error) {
			w, err := a.TopicConfigs(ctx, addr)
			if err != nil {
				return nil, err
			}
			return w.TopicConfigTable, nil
		})
	case err != nil:
		return nil, notFound(err)
	}
	return &t.TopicConfig, nil
}

// oneOf finds an entry of a table that must be read whole.
func oneOf[T any](name string, read func() (map[string]*T, error)) (*T, error) {
	table, err := read()
	if err != nil {
		return nil, err
	}
	if v := table[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
}

// TopicConfigs are all topics of a broker.
func (a *Admin) TopicConfigs(ctx context.Context, addr string) (*protocol.TopicConfigWrapper, error) {
	return decode[protocol.TopicConfigWrapper](a.call(ctx, addr, protocol.RequestGetAllTopicConfig, nil, nil))
}

// Topics are the names of all topics that have a route, sorted.
func (a *Admin) Topics(ctx context.Context) ([]string, error) {
	return topicNames(a.askServers(ctx, protocol.RequestGetAllTopicListFromNameServer, nil))
}

// TopicsByCluster are the names of the topics at the brokers of a cluster, sorted.
func (a *Admin) TopicsByCluster(ctx context.Context, cluster string) ([]string, error) {
	return topicNames(a.askServers(ctx, protocol.RequestGetTopicsByCluster, &protocol.GetTopicsByClusterHeader{Cluster: cluster}))
}

func topicNames(resp *protocol.Command, err error) ([]string, error) {
	l, err := decode[protocol.TopicList](resp, err)
	if err != nil {
		return nil, err
	}
	slices.Sort(l.TopicList)
	return l.TopicList, nil
}

// SystemTopics are the topics that the cluster made for itself, sorted.
func (a *Admin) SystemTopics(ctx context.Context) ([]string, error) {
	l, err := decode[protocol.TopicList](a.askServers(ctx, protocol.RequestGetSystemTopicListFromNS, nil))
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	if l.BrokerAddr != "" {
		more, err := topicNames(a.call(ctx, l.BrokerAddr, protocol.RequestGetSystemTopicListFromBroker, nil, nil))
		if err != nil {
			return nil, err
		}
		l.TopicList = append(l.TopicList, more...)
	}
	for _, t := range l.TopicList {
		set[t] = true
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// DeleteTopicAt removes a topic from one broker. Its route lives on at the name servers.
func (a *Admin) DeleteTopicAt(ctx context.Context, addr, topic string) error {
	return a.do(ctx, addr, protocol.RequestDeleteTopicInBroker, &protocol.TopicHeader{Topic: topic}, nil)
}

// DeleteTopicRoute removes a topic from every name server; with a cluster only for that cluster's brokers.
func (a *Admin) DeleteTopicRoute(ctx context.Context, topic, cluster string) error {
	_, err := a.tellServers(ctx, protocol.RequestDeleteTopicInNameServer, &protocol.DeleteTopicInNameServerHeader{Topic: topic, ClusterName: cluster}, nil)
	return err
}

// DeleteTopic removes a topic from all brokers of a cluster, its route and its order configuration. The other nodes of a
// name follow its master; a name that has none now is an error, and keeps the topic.
func (a *Admin) DeleteTopic(ctx context.Context, cluster, topic string) error {
	info, err := a.Cluster(ctx)
	if err != nil {
		return err
	}
	names, err := namesOf(info, cluster)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if addr := info.BrokerAddrTable[name].BrokerAddrs[masterID]; addr != "" {
			errs = append(errs, a.DeleteTopicAt(ctx, addr, topic))
		} else {
			errs = append(errs, fmt.Errorf("broker %s: %w: it has no master now, and keeps topic %s; delete it again once it has", name, ErrNoBroker, topic))
		}
	}
	errs = append(errs, a.DeleteTopicRoute(ctx, topic, cluster), a.DeleteKV(ctx, OrderNamespace, topic))
	return errors.Join(errs...)
}

// TopicStats are the offsets of all queues of a topic, at all brokers that have it.
func (a *Admin) TopicStats(ctx context.Context, topic string) (*protocol.TopicStatsTable, error) {
	all := &protocol.TopicStatsTable{OffsetTable: map[MessageQueue]protocol.TopicOffset{}}
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		s, err := a.TopicStatsAt(ctx, addr, topic)
		if err != nil {
			return err
		}
		maps.Copy(all.OffsetTable, s.OffsetTable)
		all.TopicPutTPS += s.TopicPutTPS
		return nil
	})
	return all, err
}

// TopicStatsAt are the offsets of the queues of a topic at one broker.
func (a *Admin) TopicStatsAt(ctx context.Context, addr, topic string) (*protocol.TopicStatsTable, error) {
	s, err := decode[protocol.TopicStatsTable](a.call(ctx, addr, protocol.RequestGetTopicStatsInfo, &protocol.TopicHeader{Topic: topic}, nil))
	return s, notFound(err)
}

// GroupsOf are the consumer groups of a topic, sorted: those online and those with offsets.
func (a *Admin) GroupsOf(ctx context.Context, topic string) ([]string, error) {
	set := map[string]bool{}
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		l, err := decode[protocol.GroupList](a.call(ctx, addr, protocol.RequestQueryTopicConsumeByWho, &protocol.TopicHeader{Topic: topic}, nil))
		if err != nil {
			return err
		}
		for _, g := range l.GroupList {
			set[g] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(set)), err
}

// TimeSpans say from when to when the messages of each queue are, and where a group stands in time.
func (a *Admin) TimeSpans(ctx context.Context, topic, group string) ([]protocol.QueueTimeSpan, error) {
	var out []protocol.QueueTimeSpan
	err := a.eachBroker(ctx, topic, func(addr, _ string) error {
		s, err := decode[protocol.ConsumeTimeSpanBody](a.call(ctx, addr, protocol.RequestQueryConsumeTimeSpan, &protocol.QueryConsumeTimeSpanHeader{Topic: topic, Group: group}, nil))
		if err != nil {
			return err
		}
		out = append(out, s.ConsumeTimeSpanSet...)
		return nil
	})
	return out, err
}

// ConsumeQueue shows count entries of a queue at a broker from index on. With a group the broker says whether
// they match its subscription.
func (a *Admin) ConsumeQueue(ctx context.Context, addr, topic string, queueID int32, index int64, count int32, group string) (*protocol.QueryConsumeQueueBody, error) {
	resp, err := a.call(ctx, addr, protocol.RequestQueryConsumeQueue,
		&protocol.QueryConsumeQueueHeader{Topic: topic, QueueID: queueID, Index: index, Count: count, ConsumerGroup: group}, nil)
	if err == nil && len(resp.Body) == 0 {
		return nil, fmt.Errorf("queue %s/%d at index %d: %w: %s", topic, queueID, index, ErrNotFound, resp.Remark)
	}
	return decode[protocol.QueryConsumeQueueBody](resp, err)
}

// MessageByOffsetID reads a message by the id that its broker gave it, from that broker. [ErrNotFound] if
// the broker has no message there.
func (a *Admin) MessageByOffsetID(ctx context.Context, id string) (*MessageExt, error) {
	at, err := message.ParseID(id)
	if err != nil {
		return nil, err
	}
	resp, err := a.call(ctx, at.Host.String(), protocol.RequestViewMessageByID, &protocol.ViewMessageHeader{Offset: at.Pos}, nil)
	if hasCode(err, protocol.ResponseSystemError) {
		return nil, fmt.Errorf("message %s: %w: %w", id, ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	msgs, err := DecodeMessages(resp.Body, "")
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 {
		return nil, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	return msgs[0], nil
}

// Message finds a message by either kind of id: as the broker's first, then as the producer's unique key,
// for which the topic must be given.
func (a *Admin) Message(ctx context.Context, topic, id string) (*MessageExt, error) {
	m, err := a.MessageByOffsetID(ctx, id)
	if err == nil || topic == "" {
		return m, err
	}
	return a.MessageByUniqueKey(ctx, topic, id)
}

// MessageByUniqueKey finds a message by the unique key that its producer gave it; [ErrNotFound] if no broker of
// the topic has it. Of copies it returns the last one stored.
func (a *Admin) MessageByUniqueKey(ctx context.Context, topic, key string) (*MessageExt, error) {
	msgs, err := a.MessagesByUniqueKey(ctx, topic, key)
	if err != nil {
		return nil, err
	}
	return msgs[len(msgs)-1], nil
}

// MessagesByUniqueKey are all copies of a message, in the order of their store times.
func (a *Admin) MessagesByUniqueKey(ctx context.Context, topic, key string) ([]*MessageExt, error) {
	begin := time.Time{}
	if t, err := UniqueKeyTime(key, time.Now()); err == nil {
		begin = t.Add(-time.Second)
	}
	h := &protocol.QueryMessageHeader{Topic: topic, Key: key, MaxNum: uniqueKeyCopies, BeginTimestamp: max(begin.UnixMilli(), 0), EndTimestamp: 1<<63 - 1, UniqueKey: true}
	return a.query(ctx, h, func(m *MessageExt) bool { return m.UniqueKey() == key })
}

// uniqueKeyCopies is how many copies of one unique key are looked for at a broker.
const uniqueKeyCopies = 32

// MessagesByKey are up to limit messages of a broker that bear a key, stored between begin and end (a zero
// end: now), in the order of their store times. [ErrNotFound] if there is none.
func (a *Admin) MessagesByKey(ctx context.Context, topic, key string, limit int, begin, end time.Time) ([]*MessageExt, error) {
	h := &protocol.QueryMessageHeader{Topic: topic, Key: key, MaxNum: int32(limit), BeginTimestamp: max(begin.UnixMilli(), 0), EndTimestamp: 1<<63 - 1}
	if !end.IsZero() {
		h.EndTimestamp = end.UnixMilli()
	}
	return a.query(ctx, h, func(m *MessageExt) bool { return slices.Contains(m.Keys(), key) })
}

// query asks every broker of the topic; brokers answer by hash, so keep decides.
func (a *Admin) query(ctx context.Context, h *protocol.QueryMessageHeader, keep func(*MessageExt) bool) ([]*MessageExt, error) {
	ctx, cancel := boundedBy(ctx, adminLongTimeout)
	defer cancel()
	var found []*MessageExt
	err := a.eachBroker(ctx, h.Topic, func(addr, brokerName string) error {
		resp, err := a.c.call(ctx, addr, protocol.RequestQueryMessage, h, nil)
		if hasCode(err, protocol.ResponseQueryNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		msgs, err := DecodeMessages(resp.Body, brokerName)
		for _, m := range msgs {
			if m.Topic == h.Topic && keep(m) {
				found = append(found, m)
			}
		}
		return err
	})
	if err != nil {
		return found, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("message of topic %s with key %s: %w", h.Topic, h.Key, ErrNotFound)
	}
	slices.SortStableFunc(found, func(x, y *MessageExt) int { return x.StoreTime.Compare(y.StoreTime) })
	return found, nil
}

// MessageAt reads the message at an offset of a queue; [ErrNotFound] if there is none.
func (a *Admin) MessageAt(ctx context.Context, q MessageQueue, offset int64) (*MessageExt, error) {
	ctx, cancel := boundedBy(ctx, adminTimeout)
	defer cancel()
	res, err := a.c.Pull(ctx, q, offset, 1, Expression{}, 0)
	if err != nil {
		return nil, err
	}
	if res.Status != PullFound || len(res.Messages) == 0 || res.Messages[0].QueueOffset != offset {
		return nil, fmt.Errorf("message at %s offset %d: %w: the queue holds %d to %d", q, offset, ErrNotFound, res.Min, res.Max-1)
	}
	return res.Messages[0], nil
}

// SetOrder fixes the queues of an ordered topic at every name server: brokers and their queue counts; an
// empty table removes it.
func (a *Admin) SetOrder(ctx context.Context, topic string, queues map[string]int) error {
	if len(queues) == 0 {
		return a.DeleteKV(ctx, OrderNamespace, topic)
	}
	var parts []string
	for _, broker := range slices.Sorted(maps.Keys(queues)) {
		parts = append(parts, fmt.Sprintf("%s:%d", broker, queues[broker]))
	}
	return a.PutKV(ctx, OrderNamespace, topic, strings.Join(parts, ";"))
}
