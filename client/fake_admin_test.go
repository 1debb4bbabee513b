package client

import (
	"context"
	"slices"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

// serveAdmin answers what operators ask.
func (b *fakeBroker) serveAdmin(code protocol.RequestCode, req *protocol.Command) *protocol.Command {
	group := req.GetString("consumerGroup")
	switch code {
	case protocol.RequestUpdateAndCreateTopic:
		var h protocol.CreateTopicHeader
		require.NoError(b.c.t, protocol.DecodeExt(req, &h))
		b.topics[h.Topic] = &protocol.TopicConfig{TopicName: h.Topic, ReadQueueNums: h.ReadQueueNums, WriteQueueNums: h.WriteQueueNums, Perm: h.Perm, TopicFilterType: h.TopicFilterType, Order: h.Order}
		return reply(req)
	case protocol.RequestGetTopicConfig:
		t := b.topics[req.GetString("topic")]
		if t == nil {
			return refuse(req, protocol.ResponseTopicNotExist, "No topic in this broker")
		}
		return replyBody(req, protocol.TopicConfigAndMapping{TopicConfig: *t})
	case protocol.RequestDeleteTopicInBroker:
		delete(b.topics, req.GetString("topic"))
		return reply(req)
	case protocol.RequestGetTopicStatsInfo:
		table := protocol.TopicStatsTable{OffsetTable: map[MessageQueue]protocol.TopicOffset{}}
		t := b.topics[req.GetString("topic")]
		for _, q := range appendQueues(nil, t.TopicName, b.name, int(t.WriteQueueNums)) {
			table.OffsetTable[q] = protocol.TopicOffset{MaxOffset: int64(len(b.queues[q]))}
		}
		return replyBody(req, table)
	case protocol.RequestQueryTopicConsumeByWho:
		list := protocol.GroupList{GroupList: []string{}}
		for g := range b.members {
			if _, ok := b.subscription(g, req.GetString("topic")); ok {
				list.GroupList = append(list.GroupList, g)
			}
		}
		return replyBody(req, list)
	case protocol.RequestGetConsumerConnectionList:
		cc := protocol.ConsumerConnection{SubscriptionTable: map[string]protocol.SubscriptionData{}}
		for conn, m := range b.members[group] {
			cc.ConnectionSet = append(cc.ConnectionSet, protocol.Connection{ClientID: m.id, ClientAddr: conn.RemoteAddr().String(), Language: protocol.Go, Version: protocol.Version})
			cc.ConsumeType, cc.MessageModel, cc.ConsumeFromWhere = m.data.ConsumeType, m.data.MessageModel, m.data.ConsumeFromWhere
			for _, s := range m.data.SubscriptionDataSet {
				cc.SubscriptionTable[s.Topic] = s
			}
		}
		if len(cc.ConnectionSet) == 0 {
			return refuse(req, protocol.ResponseConsumerNotOnline, "the consumer group[%s] not online", group)
		}
		return replyBody(req, cc)
	case protocol.RequestGetConsumeStats:
		s := protocol.ConsumeStats{OffsetTable: map[MessageQueue]protocol.OffsetWrapper{}}
		for q, o := range b.offsets[group] {
			if t := req.GetString("topic"); t == "" || t == q.Topic {
				s.OffsetTable[q] = protocol.OffsetWrapper{BrokerOffset: int64(len(b.queues[q])), ConsumerOffset: o}
			}
		}
		return replyBody(req, s)
	case protocol.RequestQueryMessage:
		return b.query(req)
	case protocol.RequestViewMessageByID:
		pos := number(req, "offset")
		if pos >= int64(len(b.log)) || !message.IsRecord(b.log[pos:]) {
			return refuse(req, protocol.ResponseSystemError, "can not find message by the offset, %d", pos)
		}
		resp := reply(req)
		resp.Body = b.log[pos : pos+int64(message.RecordSize(b.log[pos:]))]
		return resp
	case protocol.RequestInvokeBrokerToResetOffset:
		return b.reset(req)
	case protocol.RequestGetConsumerRunningInfo, protocol.RequestConsumeMessageDirectly, protocol.RequestInvokeBrokerToGetConsumerStatus:
		return b.relay(code, req)
	case protocol.RequestGetBrokerConfig:
		resp := reply(req)
		resp.Body = []byte("brokerName=" + b.name + "\nlistenPort=10911\n")
		return resp
	}
	return refuse(req, protocol.ResponseRequestCodeNotSupported, "request type %d not supported", req.Code)
}

func (b *fakeBroker) query(req *protocol.Command) *protocol.Command {
	key, resp := req.GetString("key"), reply(req, "indexLastUpdateTimestamp", 0, "indexLastUpdatePhyoffset", 0)
	for pos := 0; pos < len(b.log); pos += message.RecordSize(b.log[pos:]) {
		m, n, err := decodeMessage(b.log[pos:], b.name)
		require.NoError(b.c.t, err)
		// Like an index, by hash: a message of another key comes too.
		if m.Topic == req.GetString("topic") && (m.UniqueKey() == key || slices.Contains(m.Keys(), key) || slices.Contains(m.Keys(), "collides")) {
			resp.Body = append(resp.Body, b.log[pos:pos+n]...)
		}
	}
	if len(resp.Body) == 0 {
		return refuse(req, protocol.ResponseQueryNotFound, "can not find message, maybe time range not correct")
	}
	return resp
}

// reset is the way of 4.9: the members are told.
func (b *fakeBroker) reset(req *protocol.Command) *protocol.Command {
	var h protocol.ResetOffsetHeader
	require.NoError(b.c.t, protocol.DecodeExt(req, &h))
	if len(b.members[h.Group]) == 0 {
		return refuse(req, protocol.ResponseConsumerNotOnline, "consumer not online")
	}
	body := protocol.ResetOffsetBody{OffsetTable: map[MessageQueue]int64{}}
	for _, q := range appendQueues(nil, h.Topic, b.name, int(b.topics[h.Topic].ReadQueueNums)) {
		to := int64(slices.IndexFunc(b.queues[q], func(pos int) bool { return message.StoreTime(b.log[pos:]) >= h.Timestamp }))
		if to < 0 || h.Timestamp < 0 {
			to = int64(len(b.queues[q]))
		}
		body.OffsetTable[q] = to
	}
	for conn := range b.members[h.Group] {
		push := protocol.NewRequest(protocol.RequestResetConsumerClientOffset)
		protocol.EncodeExt(push, &protocol.ResetOffsetHeader{Topic: h.Topic, Group: h.Group, Timestamp: h.Timestamp, IsForce: true})
		push.Body = protocol.EncodeBody(body)
		require.NoError(b.c.t, conn.Oneway(push))
	}
	return replyBody(req, body)
}

// relay asks a member and passes its answer on.
func (b *fakeBroker) relay(code protocol.RequestCode, req *protocol.Command) *protocol.Command {
	group, id := req.GetString("consumerGroup"), req.GetString("clientId")
	if code == protocol.RequestInvokeBrokerToGetConsumerStatus {
		group, id, code = req.GetString("group"), req.GetString("clientAddr"), protocol.RequestGetConsumerStatusFromClient
	}
	for conn, m := range b.members[group] {
		if id != "" && m.id != id {
			continue
		}
		push := protocol.NewRequest(code)
		for _, f := range req.Ext {
			push.AddBytes(string(f.Key), f.Value)
		}
		if code == protocol.RequestConsumeMessageDirectly {
			mid, err := message.ParseID(req.GetString("msgId"))
			require.NoError(b.c.t, err)
			push.Body = slices.Clone(b.log[mid.Pos : mid.Pos+int64(message.RecordSize(b.log[mid.Pos:]))])
			push.Add("brokerName", b.name)
		}
		// The member may need the broker to answer.
		b.mu.Unlock()
		resp, err := conn.Call(context.Background(), push)
		b.mu.Lock()
		if err != nil {
			return refuse(req, protocol.ResponseConsumeMsgTimeout, "%v", err)
		}
		if code == protocol.RequestGetConsumerStatusFromClient {
			var body protocol.ConsumerStatusBody
			require.NoError(b.c.t, protocol.DecodeBody(resp.Body, &body))
			return replyBody(req, protocol.ConsumerStatusBody{ConsumerTable: map[string]map[MessageQueue]int64{m.id: body.MessageQueueTable}, MessageQueueTable: map[MessageQueue]int64{}})
		}
		return resp
	}
	return refuse(req, protocol.ResponseSystemError, "The Consumer <%s> <%s> not online", group, id)
}
