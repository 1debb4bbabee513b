package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"rmq/engine"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// sendBackHeader is the header of a message that a consumer could not process
// (ConsumerSendMsgBackRequestHeader).
type sendBackHeader struct {
	Offset            int64  `ext:"offset,required"` // in the log
	Group             string `ext:"group,required"`
	DelayLevel        int32  `ext:"delayLevel,required"` // 0: the broker chooses; below 0: dead letters
	OriginMsgID       string `ext:"originMsgId"`
	OriginTopic       string `ext:"originTopic"`
	UnitMode          bool   `ext:"unitMode"`
	MaxReconsumeTimes *int32 `ext:"maxReconsumeTimes"`
}

// firstRetryLevel is the delay level of the first retry.
const firstRetryLevel = 3

// sendBack takes back a message that a consumer could not process (36): it comes again through the
// retry topic of the group, later every time, and ends among its dead letters.
func (b *Broker) sendBack(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	no := b.takeBack(req)
	if no == nil {
		return protocol.NewResponse(req, protocol.ResponseSuccess, "")
	}
	return no.answer(req)
}

func (b *Broker) takeBack(req *protocol.Command) *refusal {
	if !b.leads.Load() {
		return b.notLeading()
	}
	var h sendBackHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(protocol.ResponseSystemError, err.Error())
	}
	group := b.Groups.Find(h.Group)
	if group == nil {
		return refuse(protocol.ResponseSubscriptionGroupNotExist, "subscription group not exist, "+h.Group)
	}
	c := b.conf()
	if c.BrokerPermission&protocol.PermWrite == 0 {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the broker[%s] sending message is forbidden: brokerPermission is %d", c.BrokerIP1, c.BrokerPermission))
	}
	if group.RetryQueueNums <= 0 {
		return nil // the group wants no retries
	}
	ctx := context.WithoutCancel(b.group.Context())
	topic, err := b.Topics.CreateRetry(ctx, h.Group, group.RetryQueueNums, false, h.UnitMode)
	if err != nil {
		return refuse(protocol.ResponseSystemError, "the retry topic could not be created: "+err.Error())
	}
	if topic.Perm&protocol.PermWrite == 0 {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the topic[%s] sending message is forbidden", topic.TopicName))
	}
	r, err := b.store.Lookup(h.Offset)
	defer r.Release()
	if err != nil {
		return refuse(protocol.ResponseSystemError, fmt.Sprintf("look message by offset failed, %d: %v", h.Offset, err))
	}
	var d draft
	r.Each(func(rec []byte) {
		var m message.Record
		if err = message.ParseRecord(rec, &m); err == nil {
			d = retryDraft(&m)
		}
	})
	if err != nil {
		return refuse(protocol.ResponseSystemError, fmt.Sprintf("the message at %d cannot be read: %v", h.Offset, err))
	}
	limit := group.RetryMaxTimes
	if req.Version >= versionMaxReconsume && h.MaxReconsumeTimes != nil {
		limit = *h.MaxReconsumeTimes
	}
	if d.ReconsumeTimes >= limit || h.DelayLevel < 0 {
		if topic, err = b.Topics.CreateDLQ(ctx, h.Group); err != nil {
			return refuse(protocol.ResponseSystemError, "the dead-letter topic could not be created: "+err.Error())
		}
		d.replace(message.PropDelay, "-1")
	} else {
		level := h.DelayLevel
		if level == 0 {
			level = firstRetryLevel + d.ReconsumeTimes
		}
		d.replace(message.PropDelay, strconv.Itoa(int(level)))
	}
	d.ReconsumeTimes++
	d.Topic, d.QueueID, d.V2 = topic.TopicName, rand.Int32N(max(topic.WriteQueueNums, 1)), len(topic.TopicName) > message.MaxTopicBytesV1
	d.StoreHost = b.storeHost
	no := b.putInternal(&d)
	if no == nil {
		b.countBack(h.Group, &d, isDLQTopic(topic.TopicName))
	}
	return no
}

// countBack counts a message that was taken back, under the topic that it was first sent to.
func (b *Broker) countBack(group string, d *draft, dead bool) {
	stats := b.Stats.Group([]byte(group), d.Properties.Get(propRetryTopic))
	if dead {
		stats.DLQ.Add(1, int64(len(d.Body)))
		return
	}
	stats.SendBack.Add(1, int64(len(d.Body)))
}

// retryDraft is the message of a record, to be stored once more. Its slices alias the record.
func retryDraft(m *message.Record) draft {
	d := draft{Message: message.Message{
		Flag: m.Flag, SysFlag: m.SysFlag, BornTimestamp: m.BornTimestamp, BornHost: message.Host(m.BornHost),
		ReconsumeTimes: m.ReconsumeTimes, Body: m.Body, Properties: m.Properties,
	}}
	set := []string{message.PropWait, "false"}
	if len(m.Properties.Get(propRetryTopic)) == 0 {
		set = append(set, propRetryTopic, string(m.Topic))
	}
	if len(m.Properties.Get(propOriginMessageID)) == 0 {
		set = append(set, propOriginMessageID, m.ID().String())
	}
	d.replace(set...)
	return d
}

// putInternal runs the transforms over a message that the broker itself sends, stores it and waits for
// it to be safe.
func (b *Broker) putInternal(d *draft) *refusal {
	d.seen = scanProps(d.Properties)
	d.seen.transaction, d.seen.timer = false, false // it was let in once
	for _, f := range b.transforms {
		if no := f(d); no != nil {
			return no
		}
	}
	rec, err := message.AppendRecord(nil, &d.Message)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), b.appendWait())
		defer cancel()
		_, err = b.store.Append(ctx, rec)
	}
	if err == nil {
		return nil
	}
	no := b.refusalOf(err, errors.Is(err, engine.ErrIndeterminate) || stored(err))
	if no.code != protocol.ResponseServiceNotAvailable && no.code != protocol.ResponseSystemBusy {
		no.code = protocol.ResponseSystemError
	}
	return no
}
