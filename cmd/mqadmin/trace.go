package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/client"
)

// topicTrace is where clients that trace write what happens to messages.
const topicTrace = "RMQ_SYS_TRACE_TOPIC"

// sendTrace is one attempt of a producer to send a message.
type sendTrace struct {
	Type   string `json:"type" col:"#Type"`
	Group  string `json:"producerGroup" col:"#ProducerGroup"`
	Host   string `json:"clientHost" col:"#ClientHost"`
	Time   string `json:"sendTime" col:"#SendTime"`
	Cost   string `json:"-" col:"#CostTimes"`
	Status string `json:"status" col:"#Status"`
	Millis int64  `json:"costMillis"`
	Topic  string `json:"topic"`
	Keys   string `json:"keys,omitempty"`
	Tags   string `json:"tags,omitempty"`
}

// consumeTrace is one attempt of a consumer to consume it.
type consumeTrace struct {
	Type   string `json:"type" col:"#Type"`
	Group  string `json:"consumerGroup" col:"#ConsumerGroup"`
	Host   string `json:"clientHost" col:"#ClientHost"`
	Time   string `json:"consumerTime" col:"#ConsumerTime"`
	Cost   string `json:"-" col:"#CostTimes"`
	Status string `json:"status" col:"#Status"` // success, failed, or unknown while it lasts
	Millis int64  `json:"costMillis"`
	Retry  int64  `json:"retryTimes"`

	request string
	at      int64
}

// messageTrace is everything that the traces say of a message.
type messageTrace struct {
	Sends    []sendTrace     `json:"sends"`
	Consumes []*consumeTrace `json:"consumes"`
}

func (m *messageTrace) text(p *page) {
	p.columns(m.Sends)
	if len(m.Consumes) == 0 {
		return
	}
	rows := []consumeTrace{}
	for _, c := range m.Consumes {
		rows = append(rows, *c)
	}
	p.line("")
	p.columns(rows)
}

func queryMsgTraceByID(f *flags) action {
	id := f.need("msg-id", "i", "the id that the producer gave the message")
	topic := f.text("trace-topic", "t", topicTrace, "where the traces are")
	begin := f.number("begin-timestamp", "b", 0, "traces stored not before, milliseconds since 1970")
	end := f.number("end-timestamp", "e", 0, "traces stored not after (default: now)")
	limit := f.number("max-num", "c", 64, "at most so many traces from each broker")
	return func(ctx context.Context, t *tool) (any, error) {
		if *limit < 1 || *limit > 1<<20 || *begin < 0 || *end < 0 {
			return nil, usage("--max-num=%d, --begin-timestamp=%d, --end-timestamp=%d: use 1 to %d and times that are not negative", *limit, *begin, *end, 1<<20)
		}
		until := time.Time{}
		if *end > 0 {
			until = time.UnixMilli(*end)
		}
		msgs, err := t.admin.MessagesByKey(ctx, *topic, *id, int(*limit), time.UnixMilli(*begin), until)
		if err != nil {
			return nil, err
		}
		out := &messageTrace{Sends: []sendTrace{}, Consumes: []*consumeTrace{}}
		for _, m := range msgs {
			out.add(m, *id)
		}
		slices.SortStableFunc(out.Consumes, func(a, b *consumeTrace) int {
			return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.at, b.at))
		})
		return out, nil
	}
}

// add takes what a trace message says of the message with an id. A trace message holds records that end with
// character 2, of fields with character 1 between them; the first field is the kind of the record
// (org.apache.rocketmq.client.trace.TraceDataEncoder).
func (m *messageTrace) add(msg *client.MessageExt, id string) {
	host := msg.BornHost.Addr().String()
	for _, record := range strings.Split(string(msg.Body), "\x02") {
		r := traceRecord(strings.Split(record, "\x01"))
		switch {
		case r[0] == "Pub" && r.at(5) == id:
			s := sendTrace{
				Type: "Pub", Group: r.at(3), Host: host, Time: stampSeconds(r.number(1)), Millis: r.number(10), Status: outcome(r.at(13)),
				Topic: r.at(4), Tags: r.at(6), Keys: r.at(7),
			}
			s.Cost = strconv.FormatInt(s.Millis, 10) + "ms"
			m.Sends = append(m.Sends, s)
		case r[0] == "SubBefore" && r.at(5) == id:
			c := m.attempt(r.at(4))
			c.Group, c.Host, c.Retry, c.at = r.at(3), host, r.number(6), r.number(1)
			c.Time = stampSeconds(c.at)
		case r[0] == "SubAfter" && r.at(2) == id:
			c := m.attempt(r.at(1))
			c.Millis, c.Status, c.Host = r.number(3), outcome(r.at(4)), host
			c.Cost = strconv.FormatInt(c.Millis, 10) + "ms"
		}
	}
}

// attempt is the one with a request id, which the records from before and after the handler share.
func (m *messageTrace) attempt(request string) *consumeTrace {
	for _, c := range m.Consumes {
		if c.request == request {
			return c
		}
	}
	c := &consumeTrace{Type: "Sub", Status: "unknown", request: request}
	m.Consumes = append(m.Consumes, c)
	return c
}

type traceRecord []string

// at is a field, "" where older clients write none.
func (r traceRecord) at(i int) string {
	if i < len(r) && r[i] != "null" {
		return r[i]
	}
	return ""
}

func (r traceRecord) number(i int) int64 {
	n, _ := strconv.ParseInt(r.at(i), 10, 64)
	return n
}

func outcome(success string) string {
	if success == "true" {
		return "success"
	}
	return "failed"
}
