package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// request makes a request; fields are name and value by turns.
func request(code protocol.RequestCode, fields ...string) *protocol.Command {
	req := protocol.NewRequest(code)
	for i := 0; i < len(fields); i += 2 {
		req.Add(fields[i], fields[i+1])
	}
	return req
}

// withBody gives a request a body.
func withBody(req *protocol.Command, v any) *protocol.Command {
	switch v := v.(type) {
	case string:
		req.Body = []byte(v)
	default:
		req.Body = protocol.EncodeBody(v)
	}
	return req
}

// ask sends a request that must succeed and decodes the body of the answer into v, unless that is nil.
func (p *peer) ask(req *protocol.Command, v any) *protocol.Command {
	p.tb.Helper()
	resp := p.call(req)
	p.require(resp, protocol.ResponseSuccess)
	if v != nil {
		require.NoError(p.tb, protocol.DecodeBody(resp.Body, v))
	}
	return resp
}

// refused sends a request that must fail, and returns the remark.
func (p *peer) refused(req *protocol.Command, code protocol.ResponseCode) string {
	p.tb.Helper()
	return p.require(p.call(req), code)
}

// beat sends the heartbeat of a push consumer.
func (p *peer) beat(client, group string, topics ...string) {
	p.tb.Helper()
	d := protocol.HeartbeatData{ClientID: client, ProducerDataSet: []protocol.ProducerData{{GroupName: "PG"}}}
	if group != "" {
		c := protocol.ConsumerData{GroupName: group, ConsumeType: protocol.ConsumePassively, MessageModel: protocol.Clustering, ConsumeFromWhere: protocol.ConsumeFromLastOffset}
		for _, topic := range topics {
			c.SubscriptionDataSet = append(c.SubscriptionDataSet, protocol.SubscriptionData{Topic: topic, SubString: "*", ExpressionType: protocol.ExpressionTag})
		}
		d.ConsumerDataSet = []protocol.ConsumerData{c}
	}
	resp := p.ask(withBody(request(protocol.RequestHeartBeat), d), nil)
	require.Equal(p.tb, "true", resp.GetString("IS_SUPPORT_HEART_BEAT_V2"))
	require.Equal(p.tb, "true", resp.GetString("IS_SUB_CHANGE"))
}

// Every request of the protocol that a broker serves or refuses has a row, and every one that is served
// says what is wrong with a request that lacks everything.
func TestEmptyRequests(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	served := 0
	p.b.routes.each(func(code protocol.RequestCode, r *route) {
		if r.process == nil {
			return
		}
		served++
		resp := p.call(request(code))
		require.Contains(t, []protocol.ResponseCode{
			protocol.ResponseSuccess, protocol.ResponseSystemError, protocol.ResponseInvalidParameter,
		}, protocol.ResponseCode(resp.Code), "%s: %s", code, resp.Remark)
		if resp.Code != 0 {
			require.NotEmpty(t, resp.Remark, code)
		}
	})
	require.Greater(t, served, 50)
}

// A client that heartbeats is in its groups at once, with their retry topics, and out of them when it says
// so or its connection closes.
func TestHeartbeat(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p, q := connect(t, b), connect(t, b)
	p.beat("p", "G", "T")
	var ids protocol.GetConsumerListResponseBody
	p.ask(request(protocol.RequestGetConsumerListByGroup, "consumerGroup", "G"), &ids)
	require.Equal(t, []string{"p"}, ids.ConsumerIDList)
	require.NotNil(t, b.Topics.Get("%RETRY%G"))
	require.NotNil(t, b.Groups.Get("G"))
	q.beat("q", "G", "T")
	p.ask(request(protocol.RequestGetConsumerListByGroup, "consumerGroup", "G"), &ids)
	require.Equal(t, []string{"p", "q"}, ids.ConsumerIDList)
	q.ask(request(protocol.RequestUnregisterClient, "clientID", "q", "consumerGroup", "G", "producerGroup", "PG"), nil)
	p.ask(request(protocol.RequestGetConsumerListByGroup, "consumerGroup", "G"), &ids)
	require.Equal(t, []string{"p"}, ids.ConsumerIDList)
	require.NoError(t, p.conn.Close())
	require.Eventually(t, func() bool { return b.Consumers.Find("G") == nil }, eventually, tick)
	require.Contains(t, q.refused(request(protocol.RequestGetConsumerListByGroup, "consumerGroup", "G"), protocol.ResponseSystemError), "no consumer for this group")
	require.Empty(t, b.Producers.Groups())
}

const (
	eventually = 30 * time.Second
	tick       = 5 * time.Millisecond
)
