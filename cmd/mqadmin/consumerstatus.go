package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/client"
	"rmq/remoting/protocol"
)

// heldQueue is a queue that a member holds.
type heldQueue struct {
	client.MessageQueue
	protocol.ProcessQueueInfo
}

// topicRate is what a member does with a topic.
type topicRate struct {
	Topic string `json:"topic"`
	protocol.ConsumeStatus
}

// memberState is what one member of a group says of itself.
type memberState struct {
	ClientID      string                      `json:"clientId"`
	Version       string                      `json:"version"`
	Properties    map[string]string           `json:"properties"`
	Subscriptions []protocol.SubscriptionData `json:"subscriptions"`
	Queues        []heldQueue                 `json:"queues"`
	Rates         []topicRate                 `json:"rates"`
	User          map[string]string           `json:"userConsumerInfo,omitempty"`
	Stacks        string                      `json:"jstack,omitempty"`
}

func newMemberState(c protocol.Connection, info *protocol.ConsumerRunningInfo) *memberState {
	m := &memberState{
		ClientID: c.ClientID, Version: versionName(c.Version), Properties: info.Properties, Subscriptions: info.SubscriptionSet,
		Queues: []heldQueue{}, Rates: []topicRate{}, User: info.UserConsumerInfo, Stacks: info.Jstack,
	}
	slices.SortFunc(m.Subscriptions, func(a, b protocol.SubscriptionData) int { return cmp.Compare(a.Topic, b.Topic) })
	for _, q := range sortedQueues(info.MQTable) {
		m.Queues = append(m.Queues, heldQueue{q, info.MQTable[q]})
	}
	for _, topic := range slices.Sorted(maps.Keys(info.StatusTable)) {
		m.Rates = append(m.Rates, topicRate{topic, info.StatusTable[topic]})
	}
	return m
}

// text is like ConsumerRunningInfo.formatString.
func (m *memberState) text(p *page) {
	p.line("#Consumer Properties#")
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		p.line("%-40s: %s", name, m.Properties[name])
	}
	p.line("\n\n#Consumer Subscription#")
	for i, s := range m.Subscriptions {
		p.line("%03d Topic: %-40s ClassFilter: %-8v SubExpression: %s", i+1, s.Topic, s.ClassFilterMode, s.SubString)
	}
	p.line("\n\n#Consumer Offset#")
	offsets := [][]string{{"#Topic", "#Broker Name", "#QID", "#Consumer Offset"}}
	for _, q := range m.Queues {
		offsets = append(offsets, []string{q.Topic, q.BrokerName, strconv.Itoa(int(q.QueueID)), strconv.FormatInt(q.CommitOffset, 10)})
	}
	p.grid(offsets)
	p.line("\n\n#Consumer MQ Detail#")
	detail := [][]string{{"#Topic", "#Broker Name", "#QID", "#ProcessQueueInfo"}}
	for _, q := range m.Queues {
		detail = append(detail, []string{q.Topic, q.BrokerName, strconv.Itoa(int(q.QueueID)), fmt.Sprintf(
			"cachedMsgCount=%d, cachedMsgSizeInMiB=%d, cachedMsgMinOffset=%d, cachedMsgMaxOffset=%d, locked=%v, dropped=%v, lastPull=%s, lastConsume=%s",
			q.CachedMsgCount, q.CachedMsgSizeInMiB, q.CachedMsgMinOffset, q.CachedMsgMaxOffset, q.Locked, q.Dropped, stamp(q.LastPullTimestamp), stamp(q.LastConsumeTimestamp))})
	}
	p.grid(detail)
	p.line("\n\n#Consumer RT&TPS#")
	rates := [][]string{{"#Topic", "#Pull RT", "#Pull TPS", "#Consume RT", "#ConsumeOK TPS", "#ConsumeFailed TPS", "#ConsumeFailedMsgsInHour"}}
	for _, r := range m.Rates {
		rates = append(rates, []string{r.Topic, two(r.PullRT), two(r.PullTPS), two(r.ConsumeRT), two(r.ConsumeOKTPS), two(r.ConsumeFailedTPS), strconv.FormatInt(r.ConsumeFailedMsgs, 10)})
	}
	p.grid(rates)
	if len(m.User) > 0 {
		p.line("\n\n#User Consume Info#")
		for _, name := range slices.Sorted(maps.Keys(m.User)) {
			p.line("%-40s: %s", name, m.User[name])
		}
	}
	if m.Stacks != "" {
		p.line("\n\n#Consumer jstack#\n%s", m.Stacks)
	}
}

func two(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }

// groupState is what all members say, and what can be told from it.
type groupState struct {
	Members   []*memberState `json:"members"`
	Different []string       `json:"differentSubscriptions"` // members that subscribe to other things than the first
	Twice     []string       `json:"queuesHeldTwice"`

	files map[string]string // by client id
}

type memberRow struct {
	Index   int    `col:"#Index"`
	Client  string `col:"#ClientId"`
	Version string `col:"#Version"`
	File    string `col:"#ConsumerRunningInfoFile"`
}

func (g *groupState) text(p *page) {
	rows := []memberRow{}
	for i, m := range g.Members {
		rows = append(rows, memberRow{i + 1, m.ClientID, m.Version, g.files[m.ClientID]})
	}
	p.columns(rows)
	p.line("")
	if len(g.Different) == 0 {
		p.line("Same subscription in the same group of consumer")
	} else {
		p.line("WARN: Different subscription in the same group of consumer!!! At %s", strings.Join(g.Different, ", "))
	}
	p.line("")
	if len(g.Twice) == 0 {
		p.line("Rebalance OK")
	}
	for _, q := range g.Twice {
		p.line("WARN: Rebalance: %s", q)
	}
}

// compare looks at the members next to each other.
func (g *groupState) compare(broadcast bool) {
	g.Different, g.Twice = []string{}, []string{}
	holder := map[client.MessageQueue]string{}
	for i, m := range g.Members {
		if i > 0 && !sameSubscriptions(m.Subscriptions, g.Members[0].Subscriptions) {
			g.Different = append(g.Different, m.ClientID)
		}
		for _, q := range m.Queues {
			if other, ok := holder[q.MessageQueue]; ok && !broadcast && !q.Dropped {
				g.Twice = append(g.Twice, fmt.Sprintf("%s is held by %s and %s", q.MessageQueue, other, m.ClientID))
			}
			holder[q.MessageQueue] = m.ClientID
		}
	}
}

func sameSubscriptions(a, b []protocol.SubscriptionData) bool {
	return slices.EqualFunc(a, b, func(x, y protocol.SubscriptionData) bool { return x.Topic == y.Topic && x.SubString == y.SubString })
}

func consumerStatus(f *flags) action {
	group := f.need("consumer-group", "g", "name of the group")
	id := f.text("client-id", "i", "", "only this member, and print all that it says")
	addr := f.address("broker-addr", "ask by way of the broker at this `host:port`")
	stacks := f.flag("jstack", "s", "with the stacks of its goroutines or threads")
	return func(ctx context.Context, t *tool) (any, error) {
		cc, err := membersOf(ctx, t, *addr, *group)
		if err != nil {
			return nil, err
		}
		if *id != "" {
			return oneMember(ctx, t, *addr, *group, *id, cc, *stacks)
		}
		out := askMembers(ctx, t, *addr, *group, cc, *stacks)
		if !t.json {
			err = out.save(strconv.FormatInt(time.Now().UnixMilli(), 10))
		}
		return out, err
	}
}

func oneMember(ctx context.Context, t *tool, addr, group, id string, cc *protocol.ConsumerConnection, stacks bool) (any, error) {
	i := slices.IndexFunc(cc.ConnectionSet, func(c protocol.Connection) bool { return c.ClientID == id })
	if i < 0 {
		return nil, fmt.Errorf("member %s of group %s: %w: see mqadmin consumerConnection -g %s", id, group, client.ErrNotFound, group)
	}
	return memberOf(ctx, t, addr, group, cc.ConnectionSet[i], stacks)
}

// askMembers asks the members of a group one after the other. Those that do not tell are noted on the side.
func askMembers(ctx context.Context, t *tool, addr, group string, cc *protocol.ConsumerConnection, stacks bool) *groupState {
	slices.SortFunc(cc.ConnectionSet, func(a, b protocol.Connection) int { return cmp.Compare(a.ClientID, b.ClientID) })
	out := &groupState{Members: []*memberState{}, files: map[string]string{}}
	for _, c := range cc.ConnectionSet {
		m, err := memberOf(ctx, t, addr, group, c, stacks)
		if err != nil {
			t.note("member %s does not tell: %v", c.ClientID, err)
			continue
		}
		out.Members = append(out.Members, m)
	}
	out.compare(cc.MessageModel == protocol.Broadcasting)
	return out
}

func memberOf(ctx context.Context, t *tool, addr, group string, c protocol.Connection, stacks bool) (*memberState, error) {
	var info *protocol.ConsumerRunningInfo
	var err error
	if addr != "" {
		info, err = t.admin.RunningInfoAt(ctx, addr, group, c.ClientID, stacks)
	} else {
		info, err = t.admin.RunningInfo(ctx, group, c.ClientID, stacks)
	}
	if err != nil {
		return nil, err
	}
	return newMemberState(c, info), nil
}

// save writes what each member says into a file of its own, as stock tools do.
func (g *groupState) save(dir string) error {
	for _, m := range g.Members {
		name := filepath.Join(dir, strings.ReplaceAll(m.ClientID, string(filepath.Separator), "_"))
		var p page
		m.text(&p)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(p.String()), 0o644); err != nil {
			return err
		}
		g.files[m.ClientID] = name
	}
	return nil
}
