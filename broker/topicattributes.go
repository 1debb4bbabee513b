package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// topicAttribute is one attribute that a topic may have (org.apache.rocketmq.common.TopicAttributes).
type topicAttribute struct {
	mutable bool
	check   func(value string) error
}

func oneOf(refused map[string]string, allowed ...string) func(string) error {
	return func(value string) error {
		switch why := refused[value]; {
		case why != "":
			return fmt.Errorf("value %s is not supported: %s", value, why)
		case !slices.Contains(allowed, value):
			return fmt.Errorf("value is not in set: %s, use one of %s", value, strings.Join(allowed, ", "))
		}
		return nil
	}
}

// topicAttributes are those of 5.x. What would need a store that is not kept here is refused, not noted
// down and forgotten.
var topicAttributes = map[string]topicAttribute{
	"queue.type":     {false, oneOf(map[string]string{"BatchCQ": "this broker keeps simple queues only"}, "SimpleCQ")},
	"cleanup.policy": {false, oneOf(map[string]string{"COMPACTION": "this broker deletes by age only"}, "DELETE")},
	"message.type": {true, oneOf(map[string]string{"MIXED": "MIXED message type is not supported."},
		"UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION")},
	"reserve.time": {true, func(value string) error {
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < -1 {
			return fmt.Errorf("value %s is not a number of -1 or more", value)
		}
		return nil
	}},
}

// parseAttributes reads a list of changes, +key=value,-key (org.apache.rocketmq.common.attribute.AttributeParser).
// The keys of the result keep their signs.
func parseAttributes(text string) (map[string]string, error) {
	changes := map[string]string{}
	for item := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		key, value, set := strings.Cut(item, "=")
		switch {
		case set && !strings.HasPrefix(key, "+"):
			return nil, fmt.Errorf("add/alter attribute format is wrong: %s, use +key=value", key)
		case !set && !strings.HasPrefix(key, "-"):
			return nil, fmt.Errorf("delete attribute format is wrong: %s, use -key", key)
		}
		if _, ok := changes[key]; ok {
			return nil, fmt.Errorf("key duplication: %s", key)
		}
		changes[key] = value
	}
	return changes, nil
}

// alterAttributes applies changes to the attributes of a topic (org.apache.rocketmq.common.attribute.AttributeUtil).
// now is nil for a new topic, and not changed.
func alterAttributes(now, changes map[string]string) (map[string]string, error) {
	next := map[string]string{}
	maps.Copy(next, now)
	altered := map[string]bool{}
	for _, signed := range slices.Sorted(maps.Keys(changes)) {
		value := changes[signed]
		key := strings.TrimLeft(signed, "+-")
		if len(signed) != len(key)+1 {
			return nil, fmt.Errorf("wrong format key: %s, use +%s or -%[2]s", signed, key)
		}
		a, known := topicAttributes[key]
		_, has := now[key]
		switch {
		case key == "" || strings.ContainsAny(key+value, "+-") && !numeric(value):
			return nil, fmt.Errorf("kv string format wrong: %s=%s", signed, value)
		case altered[key]:
			return nil, fmt.Errorf("alter duplication key. key: %s", key)
		case now == nil && signed[0] == '-':
			return nil, fmt.Errorf("only add attribute is supported while creating topic. key: %s", key)
		case signed[0] == '-' && !has:
			return nil, fmt.Errorf("attempt to delete a nonexistent key: %s", key)
		case !known:
			return nil, fmt.Errorf("unsupported key: %s, use one of %s", key, strings.Join(slices.Sorted(maps.Keys(topicAttributes)), ", "))
		case now != nil && !a.mutable:
			return nil, fmt.Errorf("attempt to update an unchangeable attribute. key: %s", key)
		}
		altered[key] = true
		if signed[0] == '-' {
			delete(next, key)
			continue
		}
		if err := a.check(value); err != nil {
			return nil, fmt.Errorf("attribute %s: %w", key, err)
		}
		next[key] = value
	}
	return next, nil
}

func numeric(s string) bool { _, err := strconv.ParseInt(s, 10, 64); return err == nil }
