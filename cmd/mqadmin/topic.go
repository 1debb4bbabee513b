package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"rmq/client"
	"rmq/remoting/protocol"
)

func topicCommands() []command {
	return []command{
		{"updateTopic", "Create a topic, or change it", updateTopic},
		{"updateTopicList", "Create or change the topics in a file", updateTopicList},
		{"updateTopicPerm", "Change who may read and write a topic", updateTopicPerm},
		{"updateOrderConf", "Show, set or delete the queues of an ordered topic", updateOrderConf},
		{"deleteTopic", "Delete a topic from brokers and name servers", deleteTopic},
	}
}

// topicText is a topic as Java prints it.
func topicText(c *protocol.TopicConfig) string {
	return fmt.Sprintf("TopicConfig [topicName=%s, readQueueNums=%d, writeQueueNums=%d, perm=%s, topicFilterType=%s, topicSysFlag=%d, order=%v, attributes=%s]",
		c.TopicName, c.ReadQueueNums, c.WriteQueueNums, permText(c.Perm), c.TopicFilterType, c.TopicSysFlag, c.Order, javaMap(c.Attributes))
}

func permText(perm int32) string {
	out := []byte("---")
	for i, bit := range []int32{protocol.PermRead, protocol.PermWrite, protocol.PermInherit} {
		if perm&bit != 0 {
			out[i] = "RWX"[i]
		}
	}
	return string(out)
}

// topicChange is what became of a topic at which brokers.
type topicChange struct {
	Brokers []string              `json:"brokers"`
	Order   string                `json:"orderConf,omitempty"`
	Topic   *protocol.TopicConfig `json:"topic"`
}

func updateTopic(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	topic := f.need("topic", "t", "name of the topic")
	reads := f.number("read-queue-nums", "r", 8, "queues to read from")
	writes := f.number("write-queue-nums", "w", 8, "queues to write to")
	perm := f.number("perm", "p", 6, "2: write, 4: read, 6: both")
	order := f.truth("order", "o", false, "keep messages in order while brokers are away")
	unit := f.truth("unit", "u", false, "the topic belongs to a unit")
	unitSub := f.truth("has-unit-sub", "s", false, "the topic has subscriptions of units")
	attributes := f.text("attributes", "a", "", "attributes to set and remove, like +key=value,-key")
	return func(ctx context.Context, t *tool) (any, error) {
		cfg := protocol.NewTopicConfig(*topic, 0)
		cfg.Order = *order
		var err error
		if cfg.ReadQueueNums, err = queueCount("read-queue-nums", *reads); err != nil {
			return nil, err
		}
		if cfg.WriteQueueNums, err = queueCount("write-queue-nums", *writes); err != nil {
			return nil, err
		}
		if cfg.Perm, err = permOf(*perm); err != nil {
			return nil, err
		}
		if *unit {
			cfg.TopicSysFlag |= 1
		}
		if *unitSub {
			cfg.TopicSysFlag |= 2
		}
		res, err := perBroker(ctx, t, to.masters, "create topic to %s success.", func(addr string) error {
			return t.admin.CreateTopic(ctx, addr, cfg, *attributes)
		})
		if err != nil {
			return res, err
		}
		r := res.(*report)
		change := &topicChange{Brokers: r.data.(*done).Brokers, Topic: cfg}
		r.data = change
		if *order {
			if change.Order, err = fixOrder(ctx, t, to, cfg); err != nil {
				return r, err
			}
			r.and("set %s orderConf. isOrder=%v, orderConf=[%s]", map[bool]string{true: "broker", false: "cluster"}[to.addr != ""], *order, change.Order)
		}
		return r.and("%s", topicText(cfg)), nil
	}
}

func queueCount(flag string, n int64) (int32, error) {
	if n < 1 || n > 1<<16 {
		return 0, usage("--%s=%d: use 1 to %d", flag, n, 1<<16)
	}
	return int32(n), nil
}

func permOf(n int64) (int32, error) {
	if n != protocol.PermRead && n != protocol.PermWrite && n != protocol.PermRead|protocol.PermWrite {
		return 0, usage("--perm=%d: use 2 (write), 4 (read) or 6 (both)", n)
	}
	return int32(n), nil
}

// fixOrder tells the name servers how many queues the topic has at the brokers of the target, and keeps what
// they know of other brokers.
func fixOrder(ctx context.Context, t *tool, to *target, cfg *protocol.TopicConfig) (string, error) {
	brokers, err := listBrokers(ctx, t, to.cluster)
	if err != nil {
		return "", err
	}
	old, err := t.admin.KV(ctx, client.OrderNamespace, cfg.TopicName)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return "", err
	}
	queues, err := parseOrder(old)
	if err != nil {
		return "", err
	}
	for _, b := range brokers {
		if to.addr == "" || to.addr == b.addr {
			queues[b.name] = int(cfg.WriteQueueNums)
		}
	}
	if len(queues) == 0 {
		return "", fmt.Errorf("order of topic %s: no broker at %s is known to the name servers, is it registered?", cfg.TopicName, to.addr)
	}
	return orderText(queues), t.admin.SetOrder(ctx, cfg.TopicName, queues)
}

// parseOrder reads broker:queues;broker:queues.
func parseOrder(text string) (map[string]int, error) {
	out := map[string]int{}
	for _, part := range strings.Split(text, ";") {
		if part == "" {
			continue
		}
		name, count, ok := strings.Cut(part, ":")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || name == "" || n < 1 {
			return nil, usage("%q is no order configuration: write broker:queues;broker:queues, like broker-a:4;broker-b:4", text)
		}
		out[name] = n
	}
	return out, nil
}

func orderText(queues map[string]int) string {
	var parts []string
	for name, n := range queues {
		parts = append(parts, fmt.Sprintf("%s:%d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

func updateTopicList(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	file := f.need("filename", "f", "JSON file with a list of topics, each like those of exportMetadata")
	return func(ctx context.Context, t *tool) (any, error) {
		topics, err := readList[*protocol.TopicConfig](*file)
		if err != nil {
			return nil, err
		}
		for i, c := range topics {
			if c.TopicName == "" {
				return nil, usage("%s: topic %d has no topicName", *file, i+1)
			}
		}
		return perBroker(ctx, t, to.masters, "submit batch of topic config to %s success, please check the result later.", func(addr string) error {
			return t.admin.CreateTopics(ctx, addr, topics)
		})
	}
}

// readList reads a JSON array from a file.
func readList[T any](file string) ([]T, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%v", err)
	}
	var list []T
	if err := protocol.DecodeBody(text, &list); err != nil {
		return nil, usage("%s: %v", file, err)
	}
	if len(list) == 0 {
		return nil, usage("%s: the list is empty", file)
	}
	return list, nil
}

// topicAt is a topic as one broker has it, also of brokers before 5.0.
func topicAt(ctx context.Context, t *tool, addr, topic string) (*protocol.TopicConfig, error) {
	cfg, err := t.admin.Topic(ctx, addr, topic)
	if err == nil || errors.Is(err, client.ErrNotFound) {
		return cfg, err
	}
	all, err := t.admin.TopicConfigs(ctx, addr)
	if err != nil {
		return nil, err
	}
	if cfg = all.TopicConfigTable[topic]; cfg == nil {
		return nil, fmt.Errorf("topic %s at %s: %w", topic, addr, client.ErrNotFound)
	}
	return cfg, nil
}

func updateTopicPerm(f *flags) action {
	to := f.target("at")
	f.choose("broker-addr", "cluster-name")
	topic := f.need("topic", "t", "name of the topic")
	perm := f.needNumber("perm", "p", "2: write, 4: read, 6: both")
	return func(ctx context.Context, t *tool) (any, error) {
		want, err := permOf(*perm)
		if err != nil {
			return nil, err
		}
		addrs, err := to.masters(ctx, t)
		if err != nil {
			return nil, err
		}
		change := &topicChange{Brokers: []string{}}
		r := &report{data: change}
		var errs []error
		for _, addr := range addrs {
			cfg, err := topicAt(ctx, t, addr, *topic)
			if err != nil {
				errs = append(errs, fmt.Errorf("topic %s at %s: %w", *topic, addr, err))
				continue
			}
			old := cfg.Perm
			cfg.Perm = want
			if err := t.admin.CreateTopic(ctx, addr, cfg, ""); err != nil {
				errs = append(errs, err)
				continue
			}
			change.Brokers, change.Topic = append(change.Brokers, addr), cfg
			r.and("update topic perm from %d to %d in %s success.", old, want, addr)
		}
		if change.Topic != nil && to.addr != "" {
			r.and("%s.", topicText(change.Topic))
		}
		return r, errors.Join(errs...)
	}
}

func updateOrderConf(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	method := f.need("method", "m", "get, put or delete")
	value := f.text("order-conf", "v", "", "with put: broker:queues;broker:queues")
	return func(ctx context.Context, t *tool) (any, error) {
		data := map[string]string{"topic": *topic}
		switch *method {
		case "get":
			have, err := t.admin.KV(ctx, client.OrderNamespace, *topic)
			if err != nil {
				return nil, err
			}
			data["orderConf"] = have
			return says(data, "get orderConf success. topic=[%s], orderConf=[%s] ", *topic, have), nil
		case "put":
			queues, err := parseOrder(*value)
			if err != nil {
				return nil, err
			}
			if len(queues) == 0 {
				return nil, usage("give -v (--order-conf) with put, like broker-a:4;broker-b:4")
			}
			data["orderConf"] = *value
			return says(data, "update orderConf success. topic=[%s], orderConf=[%s]", *topic, *value), t.admin.PutKV(ctx, client.OrderNamespace, *topic, *value)
		case "delete":
			return says(data, "delete orderConf success. topic=[%s]", *topic), t.admin.DeleteKV(ctx, client.OrderNamespace, *topic)
		}
		return nil, usage("--method=%s: use get, put or delete", *method)
	}
}

func deleteTopic(f *flags) action {
	topic := f.need("topic", "t", "name of the topic")
	cluster := f.need("cluster-name", "c", "delete it from the brokers of this cluster")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := t.admin.DeleteTopic(ctx, *cluster, *topic); err != nil {
			return nil, err
		}
		return says(map[string]string{"topic": *topic, "cluster": *cluster}, "delete topic [%s] from cluster [%s] success.", *topic, *cluster).
			and("delete topic [%s] from NameServer success.", *topic), nil
	}
}
