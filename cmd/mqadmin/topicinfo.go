package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rmq/client"
	"rmq/remoting/protocol"
)

func topicInfoCommands() []command {
	return []command{
		{"topicList", "List the topics", topicList},
		{"topicRoute", "Show where a topic is", topicRoute},
		{"topicStatus", "Show the offsets of a topic's queues", topicStatus},
		{"topicClusterList", "List the clusters of a topic", topicClusterList},
		{"allocateMQ", "Show which consumer would get which queues", allocateMQ},
		{"statsAll", "Show the traffic of topics and groups", statsAll},
	}
}

const (
	retryPrefix = "%RETRY%"
	dlqPrefix   = "%DLQ%"
)

// isDerived reports whether a topic is made for a group: its retries or its dead letters.
func isDerived(topic string) bool {
	return strings.HasPrefix(topic, retryPrefix) || strings.HasPrefix(topic, dlqPrefix)
}

// names are lines, or a JSON array.
type names []string

func (n names) text(p *page) {
	for _, s := range n {
		p.line("%s", s)
	}
}

// topicRow is one topic, cluster and group of topicList -c.
type topicRow struct {
	Cluster string `json:"cluster" col:"#Cluster Name"`
	Topic   string `json:"topic" col:"#Topic"`
	Group   string `json:"group" col:"#Consumer Group"`
}

func topicList(f *flags) action {
	clusters := f.flag("cluster-model", "c", "with clusters and consumer groups")
	return func(ctx context.Context, t *tool) (any, error) {
		topics, err := t.admin.Topics(ctx)
		if err != nil {
			return nil, err
		}
		if !*clusters {
			return names(topics), nil
		}
		rows := []topicRow{}
		for _, topic := range topics {
			if isDerived(topic) {
				continue
			}
			where, err := clustersOf(ctx, t, topic)
			if errors.Is(err, client.ErrNoRoute) {
				continue // it went while we looked
			}
			if err != nil {
				return rows, err
			}
			groups, err := t.admin.GroupsOf(ctx, topic)
			if err != nil {
				return rows, err
			}
			if len(groups) == 0 {
				groups = []string{""}
			}
			for _, c := range where {
				for _, g := range groups {
					rows = append(rows, topicRow{c, topic, g})
				}
			}
		}
		return rows, nil
	}
}

func clustersOf(ctx context.Context, t *tool, topic string) ([]string, error) {
	r, err := t.admin.Route(ctx, topic)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, b := range r.BrokerDatas {
		out = append(out, b.Cluster)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// routeRow is one broker of topicRoute -l.
type routeRow struct {
	Cluster string           `json:"cluster" col:"#ClusterName"`
	Broker  string           `json:"broker" col:"#BrokerName"`
	Shown   string           `json:"-" col:"#BrokerAddrs"`
	Addrs   map[int64]string `json:"brokerAddrs"`
	Reads   int32            `json:"readQueueNums" col:"#ReadQueue"`
	Writes  int32            `json:"writeQueueNums" col:"#WriteQueue"`
	Perm    int32            `json:"perm" col:"#Perm"`
}

type routeTable []routeRow

func (r routeTable) text(p *page) {
	p.columns([]routeRow(r))
	var reads, writes int32
	for _, row := range r {
		reads, writes = reads+row.Reads, writes+row.Writes
	}
	p.line("%s", strings.Repeat("-", 80))
	p.line("Total: %d brokers, %d queues to read, %d to write", len(r), reads, writes)
}

// asJSON is a result that is JSON in any case.
type asJSON struct{ v any }

func (a asJSON) MarshalJSON() ([]byte, error) { return marshal(a.v) }

func (a asJSON) text(p *page) {
	if err := printJSON(p, a.v); err != nil {
		panic(fmt.Sprintf("BUG: %T is no JSON: %v", a.v, err))
	}
}

func topicRoute(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	list := f.flag("list", "l", "columns instead of JSON")
	return func(ctx context.Context, t *tool) (any, error) {
		r, err := t.admin.Route(ctx, *topic)
		if err != nil {
			return nil, err
		}
		if !*list {
			return asJSON{r}, nil
		}
		rows := routeTable{}
		slices.SortFunc(r.QueueDatas, func(a, b protocol.QueueData) int { return strings.Compare(a.BrokerName, b.BrokerName) })
		for _, q := range r.QueueDatas {
			row := routeRow{Broker: q.BrokerName, Reads: q.ReadQueueNums, Writes: q.WriteQueueNums, Perm: q.Perm}
			for _, b := range r.BrokerDatas {
				if b.BrokerName == q.BrokerName {
					row.Cluster, row.Addrs, row.Shown = b.Cluster, b.BrokerAddrs, javaMap(b.BrokerAddrs)
				}
			}
			rows = append(rows, row)
		}
		return rows, nil
	}
}

// queueRow is one queue of topicStatus.
type queueRow struct {
	Broker  string `json:"broker" col:"#Broker Name"`
	Queue   int32  `json:"queueId" col:"#QID"`
	Min     int64  `json:"minOffset" col:"#Min Offset"`
	Max     int64  `json:"maxOffset" col:"#Max Offset"`
	Updated string `json:"lastUpdated" col:"#Last Updated"`
}

type topicState struct {
	Queues []queueRow `json:"queues"`
	PutTPS float64    `json:"topicPutTps"`
}

func (s *topicState) text(p *page) {
	p.columns(s.Queues)
	p.line("")
	p.line("Topic Put TPS: %s", protocol.AppendDouble(nil, s.PutTPS))
}

func topicStatus(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	f.ignored("cluster", "c", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		s, err := t.admin.TopicStats(ctx, *topic)
		if err != nil {
			return nil, err
		}
		if len(s.OffsetTable) == 0 {
			return nil, fmt.Errorf("topic %s: no broker has offsets of it: %w", *topic, client.ErrNotFound)
		}
		out := &topicState{PutTPS: s.TopicPutTPS}
		for _, q := range sortedQueues(s.OffsetTable) {
			o := s.OffsetTable[q]
			out.Queues = append(out.Queues, queueRow{q.BrokerName, q.QueueID, o.MinOffset, o.MaxOffset, stamp(o.LastUpdateTimestamp)})
		}
		return out, nil
	}
}

func topicClusterList(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	return func(ctx context.Context, t *tool) (any, error) {
		c, err := clustersOf(ctx, t, *topic)
		return names(c), err
	}
}

func allocateMQ(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	ips := f.need("ip-list", "i", "names of the consumers, with commas")
	return func(ctx context.Context, t *tool) (any, error) {
		queues, err := t.admin.Queues(ctx, *topic)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(queues, client.MessageQueue.Compare)
		members := strings.FieldsFunc(*ips, func(r rune) bool { return r == ',' || r == ' ' })
		sorted := slices.Sorted(slices.Values(members))
		out := map[string][]client.MessageQueue{}
		for _, m := range members {
			out[m] = client.AllocateAveragely(m, queues, sorted)
		}
		return asJSON{map[string]any{"result": out}}, nil
	}
}

// statsRow is the traffic of a topic and one of its groups.
type statsRow struct {
	Topic   string   `json:"topic" col:"#Topic"`
	Group   string   `json:"group" col:"#Consumer Group"`
	Behind  int64    `json:"accumulation" col:"#Accumulation"`
	InTPS   float64  `json:"inTps" col:"#InTPS" fmt:"%.2f"`
	OutTPS  *float64 `json:"outTps"` // nil without a consumer
	ShowOut string   `json:"-" col:"#OutTPS"`
	In24h   int64    `json:"inMsg24Hour" col:"#InMsg24Hour"`
	Out24h  int64    `json:"outMsg24Hour"`
	Show24h string   `json:"-" col:"#OutMsg24Hour"`
}

func statsAll(f *flags) action {
	active := f.flag("active-topic", "a", "only topics with traffic in the last 24 hours")
	only := f.text("topic", "t", "", "only this topic")
	return func(ctx context.Context, t *tool) (any, error) {
		topics := []string{*only}
		if *only == "" {
			var err error
			if topics, err = t.admin.Topics(ctx); err != nil {
				return nil, err
			}
		}
		rows := []statsRow{}
		for _, topic := range topics {
			if isDerived(topic) {
				continue
			}
			more, err := topicTraffic(ctx, t, topic)
			if errors.Is(err, client.ErrNoRoute) && *only == "" {
				continue
			}
			if err != nil {
				return rows, err
			}
			for _, r := range more {
				if !*active || r.In24h > 0 || r.Out24h > 0 {
					rows = append(rows, r)
				}
			}
		}
		return rows, nil
	}
}

// Statistics of a broker (org.apache.rocketmq.common.stats.Stats).
const (
	statTopicPut = "TOPIC_PUT_NUMS"
	statGroupGet = "GROUP_GET_NUMS"
)

func topicTraffic(ctx context.Context, t *tool, topic string) ([]statsRow, error) {
	route, err := t.admin.Route(ctx, topic)
	if err != nil {
		return nil, err
	}
	groups, err := t.admin.GroupsOf(ctx, topic)
	if err != nil {
		return nil, err
	}
	inTPS, in := traffic(ctx, t, route, statTopicPut, topic)
	if len(groups) == 0 {
		return []statsRow{{Topic: topic, InTPS: inTPS, In24h: in, Show24h: "NO_CONSUMER"}}, nil
	}
	var rows []statsRow
	for _, g := range groups {
		row := statsRow{Topic: topic, Group: g, InTPS: inTPS, In24h: in}
		tps, out := traffic(ctx, t, route, statGroupGet, topic+"@"+g)
		row.OutTPS, row.Out24h = &tps, out
		row.ShowOut, row.Show24h = fmt.Sprintf("%.2f", tps), fmt.Sprint(out)
		stats, err := t.admin.ConsumeStats(ctx, g, topic)
		if err != nil && !errors.Is(err, client.ErrNoRoute) {
			return rows, err
		}
		if err == nil {
			for _, o := range stats.OffsetTable {
				row.Behind += max(o.BrokerOffset-o.ConsumerOffset, 0)
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// traffic sums a statistic over the masters of a route: messages a second, and of the last day. Brokers that
// have counted nothing count for nothing.
func traffic(ctx context.Context, t *tool, route *protocol.TopicRouteData, stat, key string) (tps float64, day int64) {
	for _, b := range route.BrokerDatas {
		addr, ok := b.BrokerAddrs[0]
		if !ok {
			continue
		}
		s, err := t.admin.Stats(ctx, addr, stat, key)
		if err != nil {
			continue
		}
		tps += s.StatsMinute.TPS
		day += daySum(s)
	}
	return tps, day
}

// daySum is what a statistic counted in a day, from the shorter spans while there is none.
func daySum(s *protocol.BrokerStatsData) int64 {
	for _, sum := range []int64{s.StatsDay.Sum, s.StatsHour.Sum} {
		if sum != 0 {
			return sum
		}
	}
	return s.StatsMinute.Sum
}
