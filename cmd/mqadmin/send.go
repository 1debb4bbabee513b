package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rmq/client"
)

func sendCommands() []command {
	return []command{
		{"sendMessage", "Send a message", sendMessage},
		{"sendMsgStatus", "Send messages to a broker and show how long each takes", sendMsgStatus},
		{"checkMsgSendRT", "Send messages to the queues of a topic and show how long each takes", checkMsgSendRT},
	}
}

// sentRow is where a message went.
type sentRow struct {
	Broker   string `json:"brokerName" col:"#Broker Name"`
	Queue    int32  `json:"queueId" col:"#QID"`
	Status   string `json:"sendStatus" col:"#Send Result"`
	ID       string `json:"msgId" col:"#MsgId"`
	OffsetID string `json:"offsetMsgId"`
	Offset   int64  `json:"queueOffset"`
}

func newSentRow(r *client.SendResult) sentRow {
	return sentRow{r.Queue.BrokerName, r.Queue.QueueID, r.Status.String(), r.ID, r.OffsetID, r.QueueOffset}
}

func sendMessage(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	body := f.need("body", "p", "the body, as UTF-8")
	keys := f.text("key", "k", "", "keys, with blanks between them")
	tag := f.text("tags", "c", "", "the tag")
	broker := f.text("broker", "b", "", "name of the broker to send to")
	queue := f.Int32P("qid", "i", -1, "with -b: number of the queue to send to")
	trace := f.truth("msg-trace-enable", "m", false, "accepted: this tool writes no traces")
	return func(ctx context.Context, t *tool) (any, error) {
		if *queue >= 0 && *broker == "" {
			return nil, usage("give -b (--broker) with -i: queues of different brokers have the same numbers")
		}
		if *trace {
			t.note("--msg-trace-enable is accepted and does nothing: this tool writes no traces")
		}
		p, err := t.client().NewProducer(client.ProducerOptions{Group: toolGroup()})
		if err != nil {
			return nil, err
		}
		var opts []client.SendOption
		if *broker != "" {
			opts = append(opts, client.BySelector(toBroker(*broker, *queue)))
		}
		res, err := p.Send(ctx, &client.Message{Topic: *topic, Body: []byte(*body), Tags: *tag, Keys: strings.Fields(*keys)}, opts...)
		if res == nil {
			return nil, err
		}
		return []sentRow{newSentRow(res)}, err
	}
}

// toBroker chooses a queue of a broker, the first one without a number.
func toBroker(name string, id int32) client.QueueSelector {
	return func(queues []client.MessageQueue, m *client.Message) (client.MessageQueue, error) {
		for _, q := range queues {
			if q.BrokerName == name && (id < 0 || q.QueueID == id) {
				return q, nil
			}
		}
		return client.MessageQueue{}, fmt.Errorf("queue %d of broker %s: %w: the topic %s can be written at %v", id, name, client.ErrNotFound, m.Topic, queues)
	}
}

// timedSend is one message of sendMsgStatus.
type timedSend struct {
	RT float64 `json:"rtMillis"`
	sentRow
}

func sendMsgStatus(f *flags) action {
	broker := f.need("broker-name", "b", "name of the broker, which is the name of its topic for this purpose")
	size := f.number("message-size", "s", 128, "bytes of a message")
	count := f.number("count", "c", 50, "messages to send")
	return func(ctx context.Context, t *tool) (any, error) {
		if *size < 1 || *count < 1 {
			return nil, usage("--message-size=%d and --count=%d: use at least 1", *size, *count)
		}
		p, err := t.client().NewProducer(client.ProducerOptions{Group: toolGroup()})
		if err != nil {
			return nil, err
		}
		if _, err := p.Send(ctx, &client.Message{Topic: *broker, Body: filler(16)}); err != nil { // opens the connection
			return nil, err
		}
		sent := []timedSend{}
		r := &report{}
		for range *count {
			start := time.Now()
			res, err := p.Send(ctx, &client.Message{Topic: *broker, Body: filler(int(*size))})
			if err != nil {
				r.data = sent
				return r, err
			}
			row := timedSend{millis(time.Since(start)), newSentRow(res)}
			sent = append(sent, row)
			r.and("rt=%.2fms, SendResult=SendResult [sendStatus=%s, msgId=%s, offsetMsgId=%s, messageQueue=%s, queueOffset=%d]",
				row.RT, row.Status, row.ID, row.OffsetID, queueText(res.Queue), row.Offset)
		}
		r.data = sent
		return r, nil
	}
}

// tripRow is one message of checkMsgSendRT.
type tripRow struct {
	Broker string  `json:"brokerName" col:"#Broker Name"`
	Queue  int32   `json:"queueId" col:"#QID"`
	OK     bool    `json:"sendResult" col:"#Send Result"`
	RT     float64 `json:"rtMillis" col:"#RT" fmt:"%.2f"`
}

type tripTable struct {
	Rows    []tripRow `json:"sends"`
	Average float64   `json:"averageMillis"` // of all but the first
}

func (x *tripTable) text(p *page) {
	p.columns(x.Rows)
	p.line("Avg RT: %.2f", x.Average)
}

func checkMsgSendRT(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	amount := f.number("amount", "a", 100, "messages to send")
	size := f.number("size", "s", 128, "bytes of a message")
	return func(ctx context.Context, t *tool) (any, error) {
		if *amount < 2 || *size < 1 {
			return nil, usage("--amount=%d and --size=%d: use at least 2 messages, since the first does not count, and 1 byte", *amount, *size)
		}
		p, err := t.client().NewProducer(client.ProducerOptions{Group: toolGroup()})
		if err != nil {
			return nil, err
		}
		queues, err := p.Queues(ctx, *topic)
		if err != nil {
			return nil, err
		}
		out := &tripTable{Rows: []tripRow{}}
		for i := range int(*amount) {
			q := queues[i%len(queues)]
			start := time.Now()
			_, err := p.Send(ctx, &client.Message{Topic: *topic, Body: filler(int(*size))}, client.ToQueue(q))
			row := tripRow{q.BrokerName, q.QueueID, err == nil, millis(time.Since(start))}
			out.Rows = append(out.Rows, row)
			if i > 0 {
				out.Average += row.RT / float64(*amount-1)
			}
			if err != nil {
				return out, err
			}
		}
		return out, nil
	}
}
