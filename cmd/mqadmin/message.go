package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"rmq/client"
	"rmq/message"
	"rmq/remoting/protocol"
)

func messageCommands() []command {
	return []command{
		{"queryMsgById", "Find messages by either kind of id", queryMsgByID},
		{"queryMsgByKey", "Find messages by a key", queryMsgByKey},
		{"queryMsgByUniqueKey", "Find a message by the id that its producer gave it", queryMsgByUniqueKey},
		{"queryMsgByOffset", "Show the message at an offset of a queue", queryMsgByOffset},
		{"queryMsgTraceById", "Show when a message was sent and consumed, where clients trace", queryMsgTraceByID},
		{"queryCq", "Show entries of a consume queue", queryCq},
		{"DecodeMessageId", "Say where the message with an offset id is", decodeMessageID},
	}
}

// storedMessage is a message as JSON.
type storedMessage struct {
	ID             string            `json:"msgId"`
	OffsetID       string            `json:"offsetMsgId"`
	Topic          string            `json:"topic"`
	Broker         string            `json:"brokerName,omitempty"`
	Queue          int32             `json:"queueId"`
	QueueOffset    int64             `json:"queueOffset"`
	LogOffset      int64             `json:"commitLogOffset"`
	StoreSize      int               `json:"storeSize"`
	Flag           int32             `json:"flag"`
	SysFlag        int32             `json:"sysFlag"`
	BornTimestamp  int64             `json:"bornTimestamp"`
	BornHost       string            `json:"bornHost"`
	StoreTimestamp int64             `json:"storeTimestamp"`
	StoreHost      string            `json:"storeHost"`
	ReconsumeTimes int               `json:"reconsumeTimes"`
	Properties     map[string]string `json:"properties"`
	Body           *string           `json:"body,omitempty"` // where it is text
	Bytes          []byte            `json:"bodyBase64,omitempty"`

	m *client.MessageExt
}

// newStoredMessage describes m, with its body if wanted.
func newStoredMessage(m *client.MessageExt, body bool) *storedMessage {
	s := &storedMessage{
		ID: m.ID(), OffsetID: m.OffsetID(), Topic: m.Topic, Broker: m.Queue.BrokerName, Queue: m.Queue.QueueID, QueueOffset: m.QueueOffset,
		LogOffset: m.CommitLogOffset, StoreSize: m.StoreBytes, Flag: m.Flag, SysFlag: int32(m.SysFlag),
		BornTimestamp: m.BornTime.UnixMilli(), BornHost: m.BornHost.String(), StoreTimestamp: m.StoreTime.UnixMilli(), StoreHost: m.StoreHost.String(),
		ReconsumeTimes: m.ReconsumeTimes, Properties: m.PropertyMap(), m: m,
	}
	switch {
	case !body:
	case utf8.Valid(m.Body):
		text := string(m.Body)
		s.Body = &text
	default:
		s.Bytes = m.Body
	}
	return s
}

// javaText is the message as Java prints it.
func (s *storedMessage) javaText() string {
	return fmt.Sprintf("MessageExt [brokerName=%s, queueId=%d, storeSize=%d, queueOffset=%d, sysFlag=%d, bornTimestamp=%d, bornHost=/%s, storeTimestamp=%d, "+
		"storeHost=/%s, msgId=%s, commitLogOffset=%d, bodyCRC=%d, reconsumeTimes=%d, preparedTransactionOffset=0, toString()=Message{topic='%s', flag=%d, "+
		"properties=%s, body=%d bytes}]", s.Broker, s.Queue, s.StoreSize, s.QueueOffset, s.SysFlag, s.BornTimestamp, s.BornHost, s.StoreTimestamp,
		s.StoreHost, s.OffsetID, s.LogOffset, message.BodyCRC(s.m.Body), s.ReconsumeTimes, s.Topic, s.Flag, javaMap(s.Properties), len(s.m.Body))
}

// trackRow is what a group has done with a message.
type trackRow struct {
	Group  string `json:"consumerGroup"`
	Status string `json:"trackType"`
	Error  string `json:"exceptionDesc,omitempty"`
}

// found is a message and what became of it.
type found struct {
	*storedMessage
	Tracks   []trackRow `json:"tracks"`
	BodyPath string     `json:"bodyPath,omitempty"`

	inline     bool // print the body instead of where it is
	noOffsetID bool
}

type foundList []*found

func (l foundList) text(p *page) {
	for _, f := range l {
		f.text(p)
	}
}

func (f *found) text(p *page) {
	line := func(name string, value any) { p.line("%-20s %v", name, value) }
	if !f.noOffsetID {
		line("OffsetID:", f.OffsetID)
	}
	line("Topic:", f.Topic)
	line("Tags:", "["+f.m.Tags()+"]")
	line("Keys:", "["+strings.Join(f.m.Keys(), " ")+"]")
	line("Queue ID:", f.Queue)
	line("Queue Offset:", f.QueueOffset)
	line("CommitLog Offset:", f.LogOffset)
	line("Reconsume Times:", f.ReconsumeTimes)
	line("Born Timestamp:", stamp(f.BornTimestamp))
	line("Store Timestamp:", stamp(f.StoreTimestamp))
	line("Born Host:", f.BornHost)
	line("Store Host:", f.StoreHost)
	line("System Flag:", f.SysFlag)
	line("Properties:", javaMap(f.Properties))
	if f.inline {
		line("Message Body:", string(f.m.Body))
	} else {
		line("Message Body Path:", f.BodyPath)
	}
	p.line("\n")
	for _, t := range f.Tracks {
		reason := t.Error
		if reason == "" {
			reason = "null"
		}
		p.line("MessageTrack [consumerGroup=%s, trackType=%s, exceptionDesc=%s]", t.Group, t.Status, reason)
	}
}

// bodyFormat declares -f, with which stock tools print a body in a charset.
func bodyFormat(f *flags) *string {
	return f.text("body-format", "f", "", "UTF-8: print the body instead of writing it into a file")
}

// describe gathers what is to be said of a message: where its groups are, and its body in a file.
func describe(ctx context.Context, t *tool, m *client.MessageExt, format string) (*found, error) {
	f := &found{storedMessage: newStoredMessage(m, true), Tracks: []trackRow{}, inline: format != ""}
	if format != "" && !strings.EqualFold(format, "UTF-8") {
		return nil, usage("--body-format=%s: bodies are printed as UTF-8", format)
	}
	tracks, err := t.admin.Tracks(ctx, m)
	if err != nil {
		t.note("no tracks of message %s: %v", m.ID(), err)
	}
	for _, tr := range tracks {
		row := trackRow{tr.Group, string(tr.Status), ""}
		if tr.Err != nil {
			row.Error = tr.Err.Error()
		}
		f.Tracks = append(f.Tracks, row)
	}
	if f.inline || t.json {
		return f, nil
	}
	f.BodyPath, err = saveBody(m)
	return f, err
}

// saveBody writes the body of a message where stock tools do.
func saveBody(m *client.MessageExt) (string, error) {
	dir := filepath.Join(os.TempDir(), "rocketmq", "msgbodys")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(dir, filepath.Base(filepath.Clean("/"+m.ID())))
	return name, os.WriteFile(name, m.Body, 0o644)
}

func queryMsgByID(f *flags) action {
	topic := f.text("topic", "t", "", "its topic; not needed for an id that a broker gave")
	ids := f.need("msg-id", "i", "the id; several with commas")
	group := f.text("consumer-group", "g", "", "with -d: have a member of this group consume it now")
	member := f.text("client-id", "d", "", "the member's client id")
	resend := f.truth("send-message", "s", false, "send it once more")
	format := bodyFormat(f)
	f.ignored("unit-name", "u", "the address in the id is enough")
	f.ignored("cluster", "c", "the address in the id is enough")
	return func(ctx context.Context, t *tool) (any, error) {
		if (*group == "") != (*member == "") {
			return nil, usage("give both -g (--consumer-group) and -d (--client-id), or none")
		}
		var out foundList
		for _, id := range strings.Split(*ids, ",") {
			m, err := t.admin.Message(ctx, *topic, strings.TrimSpace(id))
			if err != nil {
				return out, fmt.Errorf("message %s: %w", id, err)
			}
			switch {
			case *member != "":
				return consumeDirectly(ctx, t, m, *group, *member)
			case *resend:
				return sendAgain(ctx, t, m)
			}
			d, err := describe(ctx, t, m, *format)
			if err != nil {
				return out, err
			}
			out = append(out, d)
		}
		return out, nil
	}
}

// consumeDirectly has a member of a group consume a message.
func consumeDirectly(ctx context.Context, t *tool, m *client.MessageExt, group, member string) (any, error) {
	res, err := t.admin.ConsumeDirectly(ctx, group, member, m.Topic, m.OffsetID())
	if err != nil {
		return nil, err
	}
	return says(res, "ConsumeMessageDirectlyResult [order=%v, autoCommit=%v, consumeResult=%s, remark=%s, spentTimeMills=%d]",
		res.Order, res.AutoCommit, res.ConsumeResult, res.Remark, res.SpentTimeMills), nil
}

// sendAgain sends a stored message once more, with its own properties; it gets a new unique key.
func sendAgain(ctx context.Context, t *tool, m *client.MessageExt) (any, error) {
	p, err := t.client().NewProducer(client.ProducerOptions{Group: toolGroup()})
	if err != nil {
		return nil, err
	}
	again := &client.Message{Topic: m.Topic, Body: m.Body, Tags: m.Tags(), Keys: m.Keys(), Flag: m.Flag, Properties: m.UserProperties()}
	res, err := p.Send(ctx, again)
	if res == nil {
		return nil, err
	}
	return []sentRow{newSentRow(res)}, err
}

func queryMsgByUniqueKey(f *flags) action {
	topic := f.need("topic", "t", "its topic")
	id := f.need("msg-id", "i", "the id that the producer gave it")
	all := f.flag("show-all", "a", "all copies, not only the last one")
	group := f.text("consumer-group", "g", "", "with -d: have a member of this group consume it now")
	member := f.text("client-id", "d", "", "the member's client id")
	f.ignored("start-time", "s", "the id says when the message was made")
	f.ignored("end-time", "e", "the id says when the message was made")
	f.ignored("cluster", "c", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		if (*group == "") != (*member == "") {
			return nil, usage("give both -g (--consumer-group) and -d (--client-id), or none")
		}
		msgs, err := t.admin.MessagesByUniqueKey(ctx, *topic, *id)
		if err != nil {
			return nil, err
		}
		if !*all {
			msgs = msgs[len(msgs)-1:]
		}
		if *member != "" {
			return consumeDirectly(ctx, t, msgs[len(msgs)-1], *group, *member)
		}
		var out foundList
		for _, m := range msgs {
			d, err := describe(ctx, t, m, "")
			if err != nil {
				return out, err
			}
			d.noOffsetID = true
			out = append(out, d)
		}
		return out, nil
	}
}

// keyRow is a message that bears a key.
type keyRow struct {
	ID     string `json:"msgId" col:"#Message ID"`
	Queue  int32  `json:"queueId" col:"#QID"`
	Offset int64  `json:"queueOffset" col:"#Offset"`
	Topic  string `json:"topic"`
	Stored int64  `json:"storeTimestamp"`
}

func queryMsgByKey(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	key := f.need("msg-key", "k", "the key")
	begin := f.number("begin-timestamp", "b", 0, "stored not before, milliseconds since 1970")
	end := f.number("end-timestamp", "e", 0, "stored not after (default: now)")
	limit := f.number("max-num", "m", 64, "at most so many from each broker")
	keyType := f.text("key-type", "p", "K", "accepted: K, keys")
	f.ignored("last-key", "l", "everything comes at once, see -m")
	f.ignored("cluster", "c", "a topic's brokers are found by its name")
	return func(ctx context.Context, t *tool) (any, error) {
		if *keyType != "K" {
			return nil, usage("--key-type=%s: only keys (K) are indexed; find tags with mqadmin printMsg -s TAG", *keyType)
		}
		if *limit < 1 || *limit > 1<<20 || *begin < 0 || *end < 0 {
			return nil, usage("--max-num=%d, --begin-timestamp=%d, --end-timestamp=%d: use 1 to %d and times that are not negative", *limit, *begin, *end, 1<<20)
		}
		until := time.Time{}
		if *end > 0 {
			until = time.UnixMilli(*end)
		}
		msgs, err := t.admin.MessagesByKey(ctx, *topic, *key, int(*limit), time.UnixMilli(*begin), until)
		if err != nil {
			return nil, err
		}
		rows := []keyRow{}
		for _, m := range msgs {
			rows = append(rows, keyRow{m.ID(), m.Queue.QueueID, m.QueueOffset, m.Topic, m.StoreTime.UnixMilli()})
		}
		return rows, nil
	}
}

func queryMsgByOffset(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	broker := f.need("broker-name", "b", "name of the broker")
	queue := f.needQueue("queue-id", "i")
	offset := f.needNumber("offset", "o", "offset in the queue")
	format := bodyFormat(f)
	return func(ctx context.Context, t *tool) (any, error) {
		m, err := t.admin.MessageAt(ctx, client.MessageQueue{Topic: *topic, BrokerName: *broker, QueueID: *queue}, *offset)
		if err != nil {
			return nil, err
		}
		d, err := describe(ctx, t, m, *format)
		return d, err
	}
}

// cqView is a piece of a consume queue.
type cqView struct {
	*protocol.QueryConsumeQueueBody
	Index int64 `json:"index"`
}

func (v *cqView) text(p *page) {
	const rule = "======================================"
	if v.SubscriptionData != nil {
		p.line("Subscription data: ")
		asJSON{v.SubscriptionData}.text(p)
		p.line(rule)
	}
	if v.FilterData != "" {
		p.line("Filter data: \n%s\n%s", v.FilterData, rule)
	}
	p.line("Queue data: \nmax: %d, min: %d\n%s", v.MaxQueueIndex, v.MinQueueIndex, rule)
	for i, d := range v.QueueData {
		p.line("idx: %d\nConsumeQueueData{physicOffset=%d, physicSize=%d, tagsCode=%d, extendDataJson='%s', bitMap='%s', eval=%v, msg='%s'}\n%s",
			v.Index+int64(i), d.PhysicOffset, d.PhysicSize, d.TagsCode, orNull(d.ExtendDataJSON), orNull(d.BitMap), d.Eval, orNull(d.Msg), rule)
	}
}

func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

func queryCq(f *flags) action {
	topic := f.need("topic", "t", "the topic")
	queue := f.needQueue("queue", "q")
	index := f.needNumber("index", "i", "first entry")
	count := f.Int32P("count", "c", 10, "how many entries")
	addr := f.address("broker", "the broker's `host:port` (default: one that has the topic)")
	group := f.text("consumer", "g", "", "say whether they match this group's subscription")
	return func(ctx context.Context, t *tool) (any, error) {
		if *addr == "" {
			route, err := t.admin.Route(ctx, *topic)
			if err != nil {
				return nil, err
			}
			slices.SortFunc(route.BrokerDatas, func(a, b protocol.BrokerData) int { return strings.Compare(a.BrokerName, b.BrokerName) })
			for _, b := range route.BrokerDatas {
				if *addr == "" {
					*addr = b.BrokerAddrs[0]
				}
			}
			if *addr == "" {
				return nil, fmt.Errorf("topic %s: %w: no master has it", *topic, client.ErrNoBroker)
			}
		}
		body, err := t.admin.ConsumeQueue(ctx, *addr, *topic, *queue, *index, *count, *group)
		if err != nil {
			return nil, err
		}
		return &cqView{body, *index}, nil
	}
}

// place is what an offset id says.
type place struct {
	ID     string `json:"msgId"`
	Host   string `json:"storeHost"`
	Offset int64  `json:"commitLogOffset"`
}

func decodeMessageID(f *flags) action {
	ids := f.need("message-id", "i", "the offset id; several with commas")
	return func(context.Context, *tool) (any, error) {
		out := []place{}
		r := &report{}
		var errs []error
		for _, text := range strings.Split(*ids, ",") {
			id, err := message.ParseID(strings.TrimSpace(text))
			if err != nil {
				errs = append(errs, usage("--message-id: %v", err))
				continue
			}
			out = append(out, place{text, id.Host.String(), id.Pos})
			r.and("ip=%s\noffset=%d", id.Host.Addr(), id.Pos)
		}
		r.data = out
		return r, errors.Join(errs...)
	}
}
