package client

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// MessageQueue names one queue: topic, broker, number.
type MessageQueue = protocol.MessageQueue

// Message is what a producer sends. The fields are read during the call and not kept, except that
// an asynchronous send keeps Body until it is done.
type Message struct {
	Topic string
	Body  []byte // 1 byte to ProducerOptions.MaxMessageBytes
	Tags  string // one tag, what consumers subscribe by
	Keys  []string
	Flag  int32 // the application's own
	// DelayLevel delivers later: 1 to 18 stand for 1s 5s 10s 30s 1m … 10m 20m 30m 1h 2h, unless the
	// broker says otherwise. 0 delivers at once.
	DelayLevel int
	// ShardingKey keeps messages of one key in one queue, see [ByShardingKey].
	ShardingKey string
	// NoWait lets the broker answer before the message is on a slave.
	NoWait bool
	// Properties are the application's own. Names that brokers use are refused.
	Properties map[string]string
}

// Names of properties that clients and brokers share (org.apache.rocketmq.common.message.MessageConst).
const (
	propRetryTopic    = "RETRY_TOPIC"
	propOriginID      = "ORIGIN_MESSAGE_ID"
	propReconsume     = "RECONSUME_TIME"
	propMaxReconsume  = "MAX_RECONSUME_TIMES"
	propShardingKey   = "__SHARDINGKEY"
	retryPrefix       = "%RETRY%"
	dlqPrefix         = "%DLQ%"
	maxNameBytes      = 127
	maxLongNameBytes  = 255
	maxGroupNameBytes = 120
)

// reserved are the properties that an application must not set by name.
var reserved = map[string]bool{
	"KEYS": true, "TAGS": true, "WAIT": true, "DELAY": true, "RETRY_TOPIC": true, "REAL_TOPIC": true, "REAL_QID": true, "TRAN_MSG": true,
	"PGROUP": true, "MIN_OFFSET": true, "MAX_OFFSET": true, "BUYER_ID": true, "ORIGIN_MESSAGE_ID": true, "TRANSFER_FLAG": true,
	"CORRECTION_FLAG": true, "MQ2_FLAG": true, "RECONSUME_TIME": true, "MAX_RECONSUME_TIMES": true, "MSG_REGION": true, "TRACE_ON": true,
	"UNIQ_KEY": true, "EXTEND_UNIQ_INFO": true, "CONSUME_START_TIME": true, "INNER_NUM": true, "DUP_INFO": true, "TRAN_PREPARED_QUEUE_OFFSET": true,
	"INSTANCE_ID": true, "CORRELATION_ID": true, "REPLY_TO_CLIENT": true, "TTL": true, "ARRIVE_TIME": true, "PUSH_REPLY_TIME": true,
	"CLUSTER": true, "MSG_TYPE": true, "POP_CK": true, "POP_CK_OFFSET": true, "1ST_POP_TIME": true, "TIMER_DELAY_SEC": true,
	"TIMER_DELAY_MS": true, "TIMER_DELIVER_MS": true, "TIMER_ENQUEUE_MS": true, "TIMER_DEQUEUE_MS": true, "TIMER_ROLL_TIMES": true,
	"TIMER_OUT_MS": true, "TIMER_DELAY_LEVEL": true, "TIMER_DEL_UNIQKEY": true, "__BORNHOST": true, "BORN_TIMESTAMP": true,
	"__CRC32#": true, "DLQ_ORIGIN_TOPIC": true, "DLQ_ORIGIN_MESSAGE_ID": true,
}

// DelayLevel returns the level of the stock delay table whose delay is the shortest of at least d,
// 18 (two hours) for more than that, 0 for none.
func DelayLevel(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	for i, have := range delays {
		if have >= d {
			return i + 1
		}
	}
	return len(delays)
}

var delays = [...]time.Duration{
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute,
	5 * time.Minute, 6 * time.Minute, 7 * time.Minute, 8 * time.Minute, 9 * time.Minute, 10 * time.Minute, 20 * time.Minute,
	30 * time.Minute, time.Hour, 2 * time.Hour,
}

func (m *Message) check(maxBytes int) error {
	if err := checkTopic(m.Topic); err != nil {
		return err
	}
	if len(m.Body) == 0 {
		return &LimitError{"message body", "is empty", "brokers store bodies of 1 byte or more"}
	}
	if len(m.Body) > maxBytes {
		return &LimitError{"message body", fmt.Sprintf("has %d bytes, more than the limit of %d", len(m.Body), maxBytes),
			"send less, or raise MaxMessageBytes here and maxMessageSize at the broker"}
	}
	if m.DelayLevel < 0 {
		return &LimitError{"DelayLevel", fmt.Sprintf("is %d", m.DelayLevel), "give 0 for none, or 1 to 18"}
	}
	for _, v := range append([]string{m.Tags, m.ShardingKey}, m.Keys...) {
		if strings.ContainsAny(v, "\x01\x02") {
			return &LimitError{"tag or key", fmt.Sprintf("%q holds a separator", v), "leave out the characters 1 and 2"}
		}
	}
	for name, value := range m.Properties {
		switch {
		case name == "" || value == "":
			return &LimitError{"property", fmt.Sprintf("%q=%q is empty", name, value), "brokers drop such a property: leave it out"}
		case reserved[name]:
			return &LimitError{"property", name + " is reserved", "use the field of Message, or another name"}
		case strings.ContainsAny(name, "\x01\x02") || strings.ContainsAny(value, "\x01\x02"):
			return &LimitError{"property", fmt.Sprintf("%q holds a separator", name), "leave out the characters 1 and 2"}
		}
	}
	return nil
}

// encodeProperties is the property string of m.
func (m *Message) encodeProperties(uniqueKey string) ([]byte, error) {
	dst := message.AppendProperty([]byte(nil), message.PropUniqKey, uniqueKey)
	if m.Tags != "" {
		dst = message.AppendProperty(dst, message.PropTags, m.Tags)
	}
	if len(m.Keys) > 0 {
		dst = message.AppendProperty(dst, message.PropKeys, strings.Join(m.Keys, " "))
	}
	dst = message.AppendProperty(dst, message.PropWait, strconv.FormatBool(!m.NoWait))
	if m.DelayLevel > 0 {
		dst = message.AppendProperty(dst, message.PropDelay, strconv.Itoa(m.DelayLevel))
	}
	if m.ShardingKey != "" {
		dst = message.AppendProperty(dst, propShardingKey, m.ShardingKey)
	}
	if len(m.Properties) > 0 {
		for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
			dst = message.AppendProperty(dst, name, m.Properties[name])
		}
	}
	if n := len(dst); n > message.MaxPropertiesBytes {
		return nil, &LimitError{"message properties", fmt.Sprintf("take %d bytes, more than the limit of %d", n, message.MaxPropertiesBytes),
			"put less into keys and properties, more into the body"}
	}
	return dst, nil
}

func checkTopic(topic string) error {
	limit := maxNameBytes
	if strings.HasPrefix(topic, retryPrefix) || strings.HasPrefix(topic, dlqPrefix) {
		limit = maxLongNameBytes
	}
	return checkName("topic", topic, limit)
}

func checkGroup(group string) error { return checkName("group", group, maxGroupNameBytes) }

func checkName(what, name string, limit int) error {
	if name == "" {
		return &LimitError{what, "is empty", "give it a name"}
	}
	if len(name) > limit {
		return &LimitError{what, fmt.Sprintf("%q has %d characters, more than the limit of %d", name, len(name), limit), "choose a shorter name"}
	}
	if i := strings.IndexFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("%|-_", r)
	}); i >= 0 {
		return &LimitError{what, fmt.Sprintf("%q is illegal", name), "use letters, digits and any of % | - _"}
	}
	return nil
}

// MessageExt is a stored message as a consumer gets it (org.apache.rocketmq.common.message.MessageExt).
//
// Body and Properties may share the bytes of the answer that brought several messages: copy them to
// keep one for long. Several goroutines may read it.
type MessageExt struct {
	Topic       string // a retried message bears its first topic
	Queue       MessageQueue
	QueueOffset int64
	// CommitLogOffset is where the message stands in the broker's log.
	CommitLogOffset int64
	Body            []byte // decompressed
	// BodyErr says why Body could not be decompressed; it is then as it was stored.
	BodyErr        error
	Properties     message.Properties
	Flag           int32
	SysFlag        message.SysFlag
	BornTime       time.Time
	StoreTime      time.Time
	BornHost       netip.AddrPort
	StoreHost      netip.AddrPort
	ReconsumeTimes int // how often it was given back before
	StoreBytes     int // size of the record

	raw []byte // the record
}

// ID is the unique key that the producer gave the message, else the offset id.
func (m *MessageExt) ID() string {
	if u := m.UniqueKey(); u != "" {
		return u
	}
	return m.OffsetID()
}

// UniqueKey is what the producer named the message, "" if it did not.
func (m *MessageExt) UniqueKey() string { return m.Property(message.PropUniqKey) }

// OffsetID says where the message is stored: broker address and log offset, in hexadecimal.
func (m *MessageExt) OffsetID() string {
	return message.ID{Host: m.StoreHost, Pos: m.CommitLogOffset}.String()
}

// Tags is the tag of the message, "" if it has none.
func (m *MessageExt) Tags() string { return m.Property(message.PropTags) }

// Keys are the keys of the message.
func (m *MessageExt) Keys() []string { return strings.Fields(m.Property(message.PropKeys)) }

// Property is a property by its name, "" if it is absent.
func (m *MessageExt) Property(name string) string { return string(m.Properties.Get(name)) }

// PropertyMap copies the properties into a map.
func (m *MessageExt) PropertyMap() map[string]string {
	out := map[string]string{}
	m.Properties.Each(func(name, value []byte) bool {
		out[string(name)] = string(value)
		return true
	})
	return out
}

// UserProperties are the properties that the application set, by name.
func (m *MessageExt) UserProperties() map[string]string {
	out := m.PropertyMap()
	maps.DeleteFunc(out, func(name, _ string) bool { return reserved[name] })
	return out
}

// Record is the message as the broker stores it, or nil if the message was not read from one.
func (m *MessageExt) Record() []byte { return m.raw }

// DecodeMessages takes records that stand back to back apart. The messages alias b. On an error the
// messages before it are returned too. brokerName completes [MessageExt.Queue].
func DecodeMessages(b []byte, brokerName string) ([]*MessageExt, error) {
	var out []*MessageExt
	for len(b) > 0 {
		m, n, err := decodeMessage(b, brokerName)
		if err != nil {
			return out, fmt.Errorf("message %d of the answer: %w", len(out), err)
		}
		out, b = append(out, m), b[n:]
	}
	return out, nil
}

func decodeMessage(b []byte, brokerName string) (*MessageExt, int, error) {
	var r message.Record
	if err := message.ParseRecord(b, &r); err != nil {
		return nil, 0, err
	}
	if err := r.CheckCRC(); err != nil {
		return nil, 0, err
	}
	m := &MessageExt{
		Topic: string(r.Topic), QueueOffset: r.QueueOffset, CommitLogOffset: r.PhysicalOffset, Body: r.Body, Properties: r.Properties,
		Flag: r.Flag, SysFlag: r.SysFlag, BornTime: time.UnixMilli(r.BornTimestamp), StoreTime: time.UnixMilli(r.StoreTimestamp),
		BornHost: message.Host(r.BornHost), StoreHost: message.Host(r.StoreHost), ReconsumeTimes: int(r.ReconsumeTimes),
		StoreBytes: int(r.Size), raw: b[:r.Size],
	}
	m.Queue = MessageQueue{Topic: m.Topic, BrokerName: brokerName, QueueID: r.QueueID}
	if r.SysFlag.Has(message.FlagCompressed) {
		m.unpack()
	}
	return m, int(r.Size), nil
}

// maxUnpacked bounds a body that claims to be compressed: many times what brokers take packed.
const maxUnpacked = 256 << 20

func (m *MessageExt) unpack() {
	how, _ := protocol.CompressionOf(int32(m.SysFlag))
	body, err := protocol.Decompress(nil, m.Body, how, maxUnpacked)
	if err != nil {
		m.BodyErr = fmt.Errorf("body of message %s: %w", m.OffsetID(), err)
		return
	}
	m.Body = body
}

// restoreTopic gives a retried message the topic under which the application knows it.
func (m *MessageExt) restoreTopic(group string) {
	if m.Topic == retryPrefix+group {
		if t := m.Properties.Get(propRetryTopic); len(t) > 0 {
			m.Topic = string(t)
		}
	}
}
