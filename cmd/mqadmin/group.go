package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"rmq/client"
	"rmq/remoting/protocol"
)

func groupCommands() []command {
	return []command{
		{"updateSubGroup", "Create a consumer group, or change it", updateSubGroup},
		{"updateSubGroupList", "Create or change the consumer groups in a file", updateSubGroupList},
		{"deleteSubGroup", "Delete a consumer group", deleteSubGroup},
		{"getConsumerConfig", "Show the settings of a consumer group", getConsumerConfig},
	}
}

// groupFields are the settings of a group, by their Java names and in Java's order.
func groupFields(c *protocol.SubscriptionGroupConfig) [][2]string {
	s := func(v any) string { return fmt.Sprint(v) }
	return [][2]string{
		{"groupName", c.GroupName}, {"consumeEnable", s(c.ConsumeEnable)}, {"consumeFromMinEnable", s(c.ConsumeFromMinEnable)},
		{"consumeBroadcastEnable", s(c.ConsumeBroadcastEnable)}, {"consumeMessageOrderly", s(c.ConsumeMessageOrderly)},
		{"retryQueueNums", s(c.RetryQueueNums)}, {"retryMaxTimes", s(c.RetryMaxTimes)}, {"groupRetryPolicy", retryPolicyText(&c.GroupRetryPolicy)},
		{"brokerId", s(c.BrokerID)}, {"whichBrokerWhenConsumeSlowly", s(c.WhichBrokerWhenConsumeSlowly)},
		{"notifyConsumerIdsChangedEnable", s(c.NotifyConsumerIDsChangedEnable)}, {"groupSysFlag", s(c.GroupSysFlag)},
		{"consumeTimeoutMinute", s(c.ConsumeTimeoutMinute)}, {"subscriptionDataSet", subscriptionsText(c.SubscriptionDataSet)},
		{"attributes", javaMap(c.Attributes)},
	}
}

func retryPolicyText(p *protocol.GroupRetryPolicy) string {
	exponential, customized := "null", "null"
	if e := p.ExponentialRetryPolicy; e != nil {
		exponential = fmt.Sprintf("ExponentialRetryPolicy{initial=%d, max=%d, multiplier=%d}", e.Initial, e.Max, e.Multiplier)
	}
	if c := p.CustomizedRetryPolicy; c != nil {
		customized = fmt.Sprintf("CustomizedRetryPolicy{next=%v}", c.Next)
	}
	return fmt.Sprintf("GroupRetryPolicy{type=%s, exponentialRetryPolicy=%s, customizedRetryPolicy=%s}", p.Type, exponential, customized)
}

func subscriptionsText(subs []protocol.SimpleSubscriptionData) string {
	var parts []string
	for _, s := range subs {
		parts = append(parts, s.Topic+" "+s.ExpressionType+" "+s.Expression)
	}
	return strings.Join(parts, ", ")
}

func groupText(c *protocol.SubscriptionGroupConfig) string {
	var parts []string
	for _, f := range groupFields(c) {
		parts = append(parts, f[0]+"="+f[1])
	}
	return "SubscriptionGroupConfig{" + strings.Join(parts, ", ") + "}"
}

// groupChange is what became of a group at which brokers.
type groupChange struct {
	Brokers []string                          `json:"brokers"`
	Group   *protocol.SubscriptionGroupConfig `json:"group"`
}

func updateSubGroup(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	group := f.need("group-name", "g", "name of the group")
	enable := f.truth("consume-enable", "s", true, "the group may consume")
	fromMin := f.truth("consume-from-min-enable", "m", false, "it may begin at the oldest message")
	broadcast := f.truth("consume-broadcast-enable", "d", false, "its members may each get everything")
	orderly := f.truth("consume-message-orderly", "o", false, "it consumes orderly")
	queues := f.number("retry-queue-nums", "q", 1, "queues of its retry topic")
	times := f.number("retry-max-times", "r", 16, "how often a message comes again")
	policy := f.text("group-retry-policy", "p", "", `when, as JSON like {"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}}`)
	brokerID := f.number("broker-id", "i", 0, "id of the broker to consume from")
	slowly := f.number("which-broker-when-consume-slowly", "w", 1, "id of the broker to consume from when far behind")
	notify := f.truth("notify-consumer-ids-changed", "a", true, "tell members when others come and go")
	attributes := f.text("attributes", "", "", "attributes to set and remove, like +key=value,-key")
	return func(ctx context.Context, t *tool) (any, error) {
		cfg := protocol.NewSubscriptionGroupConfig(*group)
		cfg.ConsumeEnable, cfg.ConsumeFromMinEnable, cfg.ConsumeBroadcastEnable = *enable, *fromMin, *broadcast
		cfg.ConsumeMessageOrderly, cfg.NotifyConsumerIDsChangedEnable = *orderly, *notify
		cfg.BrokerID, cfg.WhichBrokerWhenConsumeSlowly = *brokerID, *slowly
		if *queues < 0 || *queues > 1<<16 || *times < -1 || *times > 1<<16 {
			return nil, usage("--retry-queue-nums=%d and --retry-max-times=%d: use 0 to %d, and -1 to %d", *queues, *times, 1<<16, 1<<16)
		}
		cfg.RetryQueueNums, cfg.RetryMaxTimes = int32(*queues), int32(*times)
		if *policy != "" {
			if err := protocol.DecodeBody([]byte(*policy), &cfg.GroupRetryPolicy); err != nil {
				return nil, usage("--group-retry-policy: %v", err)
			}
		}
		var err error
		if cfg.Attributes, err = parseAttributes(*attributes); err != nil {
			return nil, err
		}
		res, err := perBroker(ctx, t, to.masters, "create subscription group to %s success.", func(addr string) error {
			return t.admin.CreateGroup(ctx, addr, cfg)
		})
		if r, ok := res.(*report); ok && err == nil {
			r.data = &groupChange{r.data.(*done).Brokers, cfg}
			r.and("%s", groupText(cfg))
		}
		return res, err
	}
}

// parseAttributes reads +key=value,-key into what the wire has for it: keys with their signs.
func parseAttributes(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	out := map[string]string{}
	for _, part := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		if len(name) < 2 || name[0] == '+' != ok || name[0] != '+' && name[0] != '-' {
			return nil, usage("--attributes=%s: %q is no change of an attribute: write +key=value or -key", text, part)
		}
		out[name] = value
	}
	return out, nil
}

func updateSubGroupList(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	file := f.need("filename", "f", "JSON file with a list of groups, each like those of exportMetadata")
	return func(ctx context.Context, t *tool) (any, error) {
		groups, err := readList[*protocol.SubscriptionGroupConfig](*file)
		if err != nil {
			return nil, err
		}
		for i, c := range groups {
			if c.GroupName == "" {
				return nil, usage("%s: group %d has no groupName", *file, i+1)
			}
		}
		return perBroker(ctx, t, to.masters, "submit batch of subscription group config to %s success, please check the result later.", func(addr string) error {
			return t.admin.CreateGroups(ctx, addr, groups)
		})
	}
}

func deleteSubGroup(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	group := f.need("group-name", "g", "name of the group")
	offsets := f.truth("remove-offset", "r", false, "forget how far it came")
	return func(ctx context.Context, t *tool) (any, error) {
		line := "delete subscription group [" + *group + "] from broker [%s] success."
		if to.cluster != "" {
			line = "delete subscription group [" + *group + "] from broker [%s] in cluster [" + to.cluster + "] success."
		}
		res, err := perBroker(ctx, t, to.masters, line, func(addr string) error {
			return t.admin.DeleteGroup(ctx, addr, *group, *offsets)
		})
		if err != nil || to.cluster == "" {
			return res, err
		}
		for _, topic := range []string{retryPrefix + *group, dlqPrefix + *group} {
			if err := t.admin.DeleteTopic(ctx, to.cluster, topic); err != nil {
				return res, fmt.Errorf("delete topic %s: %w", topic, err)
			}
		}
		return res, nil
	}
}

// groupAt are the settings of a group at one broker.
type groupAt struct {
	Cluster string                            `json:"cluster"`
	Broker  string                            `json:"broker"`
	Group   *protocol.SubscriptionGroupConfig `json:"group"`
}

type groupList []groupAt

func (l groupList) text(p *page) {
	for _, g := range l {
		p.line("=============================%s:%s=============================", g.Cluster, g.Broker)
		for _, f := range groupFields(g.Group) {
			p.line("%-40s=  %s", f[0], f[1])
		}
	}
}

func getConsumerConfig(f *flags) action {
	group := f.need("group-name", "g", "name of the group")
	return func(ctx context.Context, t *tool) (any, error) {
		brokers, err := listBrokers(ctx, t, "")
		if err != nil {
			return nil, err
		}
		out := groupList{}
		var errs []error
		for _, b := range brokers {
			if b.id != 0 {
				continue
			}
			all, err := t.admin.Groups(ctx, b.addr)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if cfg := all.SubscriptionGroupTable[*group]; cfg != nil {
				out = append(out, groupAt{b.cluster, b.name, cfg})
			}
		}
		if len(out) == 0 && len(errs) == 0 {
			return nil, fmt.Errorf("consumer group %s: %w at any broker: make it with mqadmin updateSubGroup", *group, client.ErrNotFound)
		}
		return out, errors.Join(errs...)
	}
}
