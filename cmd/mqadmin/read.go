package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rmq/client"
)

func readCommands() []command {
	return []command{
		{"printMsg", "Print the messages of a topic", printMsg},
		{"printMsgByQueue", "Print the messages of one queue, or count their tags", printMsgByQueue},
		{"consumeMessage", "Print messages without moving any group", consumeMessage},
	}
}

// span is which messages of a queue are meant.
type span struct{ begin, end *string }

func newSpan(f *flags, beginLetter string) span {
	return span{
		f.text("begin-timestamp", beginLetter, "", "stored not before: now, milliseconds since 1970, or like 2026-01-31#23:59:59:000"),
		f.text("end-timestamp", "e", "", "stored not after, likewise"),
	}
}

// offsets are where the span begins and ends in a queue.
func (s span) offsets(ctx context.Context, t *tool, q client.MessageQueue) (from, to int64, err error) {
	at := func(flag, text string, none func(context.Context, client.MessageQueue) (int64, error)) (int64, error) {
		if text == "" {
			return none(ctx, q)
		}
		when, err := parseTime(flag, text)
		if err != nil {
			return 0, err
		}
		if flag == "end-timestamp" {
			when = when.Add(time.Millisecond)
		}
		return t.client().OffsetAt(ctx, q, when)
	}
	if from, err = at("begin-timestamp", *s.begin, t.client().MinOffset); err != nil {
		return 0, 0, err
	}
	to, err = at("end-timestamp", *s.end, t.client().MaxOffset)
	return from, to, err
}

// pullBatch is how many messages are asked for at once; brokers bring fewer.
const pullBatch = 32

// read calls each with the messages of a queue from one offset up to another, until it says no. It returns where
// it stopped and what the last pull found.
func read(ctx context.Context, t *tool, q client.MessageQueue, from, to int64, e client.Expression, each func(*client.MessageExt) bool) (int64, client.PullStatus, error) {
	status := client.PullNoNew
	for from < to {
		res, err := t.client().Pull(ctx, q, from, int(min(to-from, pullBatch)), e, 0)
		if err != nil {
			return from, status, err
		}
		status = res.Status
		for _, m := range res.Messages {
			if m.QueueOffset >= to {
				return to, status, nil
			}
			if !each(m) {
				return m.QueueOffset + 1, status, nil
			}
		}
		if res.Next <= from {
			break
		}
		from = res.Next
	}
	return from, client.PullNoNew, nil
}

// print shows a message on its own, at once: a line, or with --json an object a line.
func (t *tool) print(m *client.MessageExt, body bool) error {
	s := newStoredMessage(m, body)
	if t.json {
		line, err := marshal(s)
		if err == nil {
			_, err = fmt.Fprintf(t.out, "%s\n", line)
		}
		return err
	}
	text := ""
	if body {
		text = " BODY: " + string(m.Body)
	}
	_, err := fmt.Fprintf(t.out, "MSGID: %s %s%s\n", m.ID(), s.javaText(), text)
	return err
}

// say is for lines that stand between messages; JSON has none.
func (t *tool) say(format string, args ...any) {
	if !t.json {
		fmt.Fprintf(t.out, format+"\n", args...)
	}
}

func queueText(q client.MessageQueue) string {
	return fmt.Sprintf("MessageQueue [topic=%s, brokerName=%s, queueId=%d]", q.Topic, q.BrokerName, q.QueueID)
}

// checkCharset refuses what would garble bodies.
func checkCharset(name string) error {
	if !strings.EqualFold(name, "UTF-8") {
		return usage("--charset-name=%s: bodies are printed as they are, UTF-8", name)
	}
	return nil
}

func printMsg(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	charset := f.text("charset-name", "c", "UTF-8", "accepted: UTF-8")
	expression := f.text("sub-expression", "s", "*", "only these tags, like 'TagA || TagB'")
	when := newSpan(f, "b")
	body := f.truth("print-body", "d", true, "with bodies")
	f.ignored("lmq-parent-topic", "l", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := checkCharset(*charset); err != nil {
			return nil, err
		}
		queues, err := t.admin.Queues(ctx, *topic)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(queues, client.MessageQueue.Compare)
		for _, q := range queues {
			from, to, err := when.offsets(ctx, t, q)
			if err != nil {
				return nil, err
			}
			t.say("minOffset=%d, maxOffset=%d, %s", from, to, queueText(q))
			var failed error
			_, _, err = read(ctx, t, q, from, to, client.Tags(*expression), func(m *client.MessageExt) bool {
				failed = t.print(m, *body)
				return failed == nil
			})
			if err = cmp.Or(failed, err); err != nil {
				return nil, err
			}
			t.say("--------------------------------------------------------")
		}
		return nil, nil
	}
}

func printMsgByQueue(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	broker := f.need("broker-name", "a", "name of the broker")
	queue := f.needQueue("queue-id", "i")
	charset := f.text("charset-name", "c", "UTF-8", "accepted: UTF-8")
	expression := f.text("sub-expression", "s", "*", "only these tags, like 'TagA || TagB'")
	when := newSpan(f, "b")
	show := f.truth("print-msg", "p", false, "print the messages")
	body := f.truth("print-body", "d", false, "with bodies")
	calculate := f.truth("calculate", "f", false, "count messages by tag")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := checkCharset(*charset); err != nil {
			return nil, err
		}
		q := client.MessageQueue{Topic: *topic, BrokerName: *broker, QueueID: *queue}
		from, to, err := when.offsets(ctx, t, q)
		if err != nil {
			return nil, err
		}
		counts := map[string]int{}
		var failed error
		_, _, err = read(ctx, t, q, from, to, client.Tags(*expression), func(m *client.MessageExt) bool {
			if tag := m.Tags(); tag != "" {
				counts[tag]++
			}
			if *show {
				failed = t.print(m, *body)
			}
			return failed == nil
		})
		if err = cmp.Or(failed, err); err != nil || !*calculate {
			return nil, err
		}
		r := &report{data: map[string]any{"tags": counts}}
		for _, tag := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) }) {
			r.and("Tag: %-30s Count: %d", tag, counts[tag])
		}
		return r, nil
	}
}

func consumeMessage(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	broker := f.text("broker-name", "b", "", "only this broker")
	queue := f.Int32P("queue-id", "i", -1, "with -b: only this queue")
	offset := f.number("offset", "o", -1, "with -i: from this offset on")
	limit := f.number("message-number", "c", 128, "at most so many messages")
	when := newSpan(f, "s")
	f.ignored("consumer-group", "g", "nothing is committed for any group")
	return func(ctx context.Context, t *tool) (any, error) {
		if *limit < 1 {
			return nil, usage("--message-number=%d: use at least 1", *limit)
		}
		if *queue >= 0 && *broker == "" {
			return nil, usage("give -b (--broker-name) with -i: queues of different brokers have the same numbers")
		}
		if *offset >= 0 && *queue < 0 {
			return nil, usage("give -i (--queue-id) with -o: an offset belongs to a queue")
		}
		queues, err := t.admin.Queues(ctx, *topic)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(queues, client.MessageQueue.Compare)
		queues = slices.DeleteFunc(queues, func(q client.MessageQueue) bool {
			return *broker != "" && q.BrokerName != *broker || *queue >= 0 && q.QueueID != *queue
		})
		if len(queues) == 0 {
			return nil, fmt.Errorf("topic %s, broker %s, queue %d: %w: see mqadmin topicRoute -l -t %s", *topic, *broker, *queue, client.ErrNotFound, *topic)
		}
		left := *limit
		for _, q := range queues {
			from, to, err := when.offsets(ctx, t, q)
			if err != nil {
				return nil, err
			}
			if *offset >= 0 {
				from = *offset
			}
			if left, err = consumeQueue(ctx, t, q, from, to, left); err != nil || left == 0 {
				return nil, err
			}
		}
		return nil, nil
	}
}

// consumeQueue prints up to left messages and says how many may still come.
func consumeQueue(ctx context.Context, t *tool, q client.MessageQueue, from, to, left int64) (int64, error) {
	var failed error
	first := true
	at, status, err := read(ctx, t, q, from, to, client.Tags(), func(m *client.MessageExt) bool {
		if first {
			t.say("Consume ok")
			first = false
		}
		failed = t.print(m, true)
		left--
		return failed == nil && left > 0
	})
	if err = cmp.Or(failed, err); err == nil && left > 0 {
		t.say("%s print msg finished. status=%s, offset=%d", queueText(q), status, at)
	}
	return left, err
}
