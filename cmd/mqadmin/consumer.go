package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"rmq/client"
	"rmq/remoting/protocol"
)

func consumerCommands() []command {
	return []command{
		{"consumerProgress", "Show how far consumer groups are behind", consumerProgress},
		{"consumerStatus", "Ask the members of a consumer group what they are doing", consumerStatus},
		{"consumerConnection", "Show the members of a consumer group and what they subscribe to", consumerConnection},
		{"producerConnection", "Show the members of a producer group", producerConnection},
		{"producer", "Show all producers of a broker", producers},
	}
}

// progressRow is how far a group is in one queue.
type progressRow struct {
	Topic    string `json:"topic" col:"#Topic"`
	Broker   string `json:"broker" col:"#Broker Name"`
	Queue    int32  `json:"queueId" col:"#QID"`
	Offset   int64  `json:"brokerOffset" col:"#Broker Offset"`
	Consumer int64  `json:"consumerOffset" col:"#Consumer Offset"`
	Client   string `json:"clientIP,omitempty"`
	Diff     int64  `json:"diff" col:"#Diff"`
	Inflight int64  `json:"inflight" col:"#Inflight"`
	LastTime string `json:"lastTime" col:"#LastTime"`
}

// progressRowIP is the same with the member that has the queue.
type progressRowIP struct {
	Topic    string `col:"#Topic"`
	Broker   string `col:"#Broker Name"`
	Queue    int32  `col:"#QID"`
	Offset   int64  `col:"#Broker Offset"`
	Consumer int64  `col:"#Consumer Offset"`
	Client   string `col:"#Client IP"`
	Diff     int64  `col:"#Diff"`
	Inflight int64  `col:"#Inflight"`
	LastTime string `col:"#LastTime"`
}

type groupProgress struct {
	Group    string        `json:"group"`
	Queues   []progressRow `json:"queues"`
	TPS      float64       `json:"consumeTps"`
	Diff     int64         `json:"diffTotal"`
	Inflight int64         `json:"inflightTotal"`

	showIP bool
}

func (g *groupProgress) text(p *page) {
	if g.showIP {
		var rows []progressRowIP
		for _, r := range g.Queues {
			rows = append(rows, progressRowIP(r))
		}
		p.columns(rows)
	} else {
		p.columns(g.Queues)
	}
	p.line("")
	p.line("Consume TPS: %.2f", g.TPS)
	p.line("Consume Diff Total: %d", g.Diff)
	p.line("Consume Inflight Total: %d", g.Inflight)
}

// groupRow is one group of consumerProgress.
type groupRow struct {
	Group   string  `json:"group" col:"#Group"`
	Count   int     `json:"count" col:"#Count"`
	Version string  `json:"version" col:"#Version"` // the oldest of its members
	Type    string  `json:"type" col:"#Type"`
	Model   string  `json:"model" col:"#Model"`
	TPS     float64 `json:"tps" col:"#TPS" fmt:"%.0f"`
	Diff    int64   `json:"diffTotal" col:"#Diff Total"`
}

func consumerProgress(f *flags) action {
	group := f.text("group-name", "g", "", "the group (default: all, one line each)")
	topic := f.text("topic-name", "t", "", "with -g: only this topic")
	showIP := f.truth("show-client-ip", "s", false, "with -g: show which member has the queue")
	f.ignored("cluster", "c", "a group's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		if *group != "" {
			return progressOf(ctx, t, *group, *topic, *showIP)
		}
		topics, err := t.admin.Topics(ctx)
		if err != nil {
			return nil, err
		}
		rows := []groupRow{}
		for _, name := range topics {
			if g, ok := strings.CutPrefix(name, retryPrefix); ok {
				rows = append(rows, groupLine(ctx, t, g))
			}
		}
		slices.SortStableFunc(rows, func(a, b groupRow) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Diff, a.Diff)) })
		return rows, ctx.Err()
	}
}

// groupLine is what can be learned of a group; what cannot stays empty.
func groupLine(ctx context.Context, t *tool, group string) groupRow {
	row := groupRow{Group: group, Version: "OFFLINE"}
	if s, err := t.admin.ConsumeStats(ctx, group, ""); err == nil {
		row.TPS = s.ConsumeTPS
		for _, o := range s.OffsetTable {
			row.Diff += max(o.BrokerOffset-o.ConsumerOffset, 0)
		}
	}
	cc, err := t.admin.ConsumerConnection(ctx, group)
	if err != nil || len(cc.ConnectionSet) == 0 {
		return row
	}
	oldest := slices.MinFunc(cc.ConnectionSet, func(a, b protocol.Connection) int { return cmp.Compare(a.Version, b.Version) })
	row.Count, row.Version, row.Model = len(cc.ConnectionSet), versionName(oldest.Version), cc.MessageModel
	row.Type = map[string]string{protocol.ConsumeActively: "PULL", protocol.ConsumePassively: "PUSH", protocol.ConsumePop: "POP"}[cc.ConsumeType]
	return row
}

func progressOf(ctx context.Context, t *tool, group, topic string, showIP bool) (any, error) {
	s, err := t.admin.ConsumeStats(ctx, group, topic)
	if err != nil {
		return nil, err
	}
	if len(s.OffsetTable) == 0 {
		if _, err := t.admin.ConsumerConnection(ctx, group); err != nil {
			return nil, fmt.Errorf("no offsets of consumer group %s: %w", group, err)
		}
		return nil, fmt.Errorf("no offsets of consumer group %s: %w: it is online and has consumed nothing, or it is broadcasting", group, client.ErrNotFound)
	}
	out := &groupProgress{Group: group, TPS: s.ConsumeTPS, showIP: showIP}
	owner := map[client.MessageQueue]string{}
	if showIP {
		if owner, err = owners(ctx, t, group); err != nil && !errors.Is(err, client.ErrNotOnline) {
			return nil, err
		}
	}
	for _, q := range sortedQueues(s.OffsetTable) {
		o := s.OffsetTable[q]
		r := progressRow{q.Topic, q.BrokerName, q.QueueID, o.BrokerOffset, o.ConsumerOffset, owner[q], o.BrokerOffset - o.ConsumerOffset,
			max(o.PullOffset-o.ConsumerOffset, 0), stampSeconds(o.LastTimestamp)}
		out.Queues = append(out.Queues, r)
		out.Diff += r.Diff
		out.Inflight += r.Inflight
	}
	return out, nil
}

// owners are the addresses of the members of a group that hold its queues.
func owners(ctx context.Context, t *tool, group string) (map[client.MessageQueue]string, error) {
	out := map[client.MessageQueue]string{}
	cc, err := t.admin.ConsumerConnection(ctx, group)
	if err != nil {
		return out, err
	}
	for _, c := range cc.ConnectionSet {
		info, err := t.admin.RunningInfo(ctx, group, c.ClientID, false)
		if err != nil {
			t.note("member %s of %s does not tell its queues: %v", c.ClientID, group, err)
			continue
		}
		ip, _, err := net.SplitHostPort(c.ClientAddr)
		if err != nil {
			ip = c.ClientAddr
		}
		for q := range info.MQTable {
			out[q] = ip
		}
	}
	return out, nil
}

// connectionRow is one member of a group.
type connectionRow struct {
	ClientID string `json:"clientId" col:"#ClientId"`
	Addr     string `json:"clientAddr" col:"#ClientAddr"`
	Language string `json:"language" col:"#Language"`
	Version  string `json:"version" col:"#Version"`
}

func connectionRows(set []protocol.Connection) []connectionRow {
	rows := []connectionRow{}
	for _, c := range set {
		rows = append(rows, connectionRow{c.ClientID, c.ClientAddr, c.Language.String(), versionName(c.Version)})
	}
	slices.SortFunc(rows, func(a, b connectionRow) int {
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Addr, b.Addr))
	})
	return rows
}

// subscriptionRow is what a group subscribes to.
type subscriptionRow struct {
	Topic      string `json:"topic" col:"#Topic"`
	Expression string `json:"subExpression" col:"#SubExpression"`
}

type groupMembers struct {
	Connections   []connectionRow   `json:"connections"`
	Subscriptions []subscriptionRow `json:"subscriptions"`
	ConsumeType   string            `json:"consumeType"`
	MessageModel  string            `json:"messageModel"`
	ConsumeFrom   string            `json:"consumeFromWhere"`
}

func (g *groupMembers) text(p *page) {
	p.columns(g.Connections)
	p.line("\nBelow is subscription:")
	p.columns(g.Subscriptions)
	p.line("\nConsumeType: %s\nMessageModel: %s\nConsumeFromWhere: %s", g.ConsumeType, g.MessageModel, g.ConsumeFrom)
}

func consumerConnection(f *flags) action {
	group := f.need("consumer-group", "g", "name of the group")
	addr := f.address("broker-addr", "ask the broker at this `host:port` (default: one that knows the group)")
	return func(ctx context.Context, t *tool) (any, error) {
		cc, err := membersOf(ctx, t, *addr, *group)
		if err != nil {
			return nil, err
		}
		out := &groupMembers{
			Connections: connectionRows(cc.ConnectionSet), Subscriptions: []subscriptionRow{},
			ConsumeType: cc.ConsumeType, MessageModel: cc.MessageModel, ConsumeFrom: cc.ConsumeFromWhere,
		}
		for _, topic := range slices.Sorted(maps.Keys(cc.SubscriptionTable)) {
			out.Subscriptions = append(out.Subscriptions, subscriptionRow{topic, cc.SubscriptionTable[topic].SubString})
		}
		return out, nil
	}
}

func membersOf(ctx context.Context, t *tool, addr, group string) (*protocol.ConsumerConnection, error) {
	if addr != "" {
		return t.admin.ConsumerConnectionAt(ctx, addr, group)
	}
	return t.admin.ConsumerConnection(ctx, group)
}

type producerList []connectionRow

func (l producerList) text(p *page) {
	for i, c := range l {
		p.line("%04d  %-32s %-22s %-8s %s", i+1, c.ClientID, c.Addr, c.Language, c.Version)
	}
}

func producerConnection(f *flags) action {
	group := f.need("producer-group", "g", "name of the group")
	topic := f.need("topic", "t", "a topic that it sends to")
	return func(ctx context.Context, t *tool) (any, error) {
		pc, err := t.admin.ProducerConnection(ctx, *group, *topic)
		if err != nil {
			return nil, err
		}
		return producerList(connectionRows(pc.ConnectionSet)), nil
	}
}

func producers(f *flags) action {
	addr := f.needAddress("broker", "the broker's `host:port`")
	return func(ctx context.Context, t *tool) (any, error) {
		table, err := t.admin.Producers(ctx, *addr)
		if err != nil {
			return nil, err
		}
		r := &report{data: table.Data}
		for _, group := range slices.Sorted(maps.Keys(table.Data)) {
			for _, c := range table.Data[group] {
				r.and("producer group (%s) instance : clientId=%s,remoteIP=%s, language=%s, version=%d, lastUpdateTimestamp=%d",
					group, c.ClientID, c.RemoteIP, c.Language, c.Version, c.LastUpdateTimestamp)
			}
		}
		return r, nil
	}
}
