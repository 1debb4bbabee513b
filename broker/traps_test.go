package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

// Fields that newer clients add to every request (logical queues, broker names, namespaces) are no trouble
// in any of them.
func TestUnknownFields(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	more := func(req *protocol.Command) *protocol.Command {
		for _, kv := range [][2]string{{"lo", "true"}, {"bname", "broker-a"}, {"nsd", "true"}, {"ns", "space"}, {"oway", "false"}, {"future", "x=1"}} {
			req = with(req, kv[0], kv[1])
		}
		return req
	}
	for _, encoding := range []protocol.Serialize{protocol.JSON, protocol.Binary} {
		req := more(sendRequest("T", 0, "x"))
		req.Serialize = encoding
		p.require(p.call(req), protocol.ResponseSuccess)
		p.dispatched()
		req = more(pullRequest("G", "T", 0, 0, "*", 0))
		req.Serialize = encoding
		require.NotEmpty(t, parsePulled(t, p.call(req)).records)
		for _, req := range []*protocol.Command{
			request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", "1"),
			request(protocol.RequestQueryConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0"),
			request(protocol.RequestGetMaxOffset, "topic", "T", "queueId", "0"), request(protocol.RequestGetTopicStatsInfo, "topic", "T"),
			request(protocol.RequestGetAllTopicConfig), request(protocol.RequestGetConsumeStats, "consumerGroup", "G"),
		} {
			req = more(req)
			req.Serialize = encoding
			p.require(p.call(req), protocol.ResponseSuccess)
		}
	}
}

// A pull commits when it comes, not when it is woken: what was committed in between stands.
func TestWokenPullCommitsNothing(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	p.send("T", 0, "x")
	p.dispatched()
	answer := p.start(with(with(pullRequest("G", "T", 0, 1, "*", time.Minute), "sysFlag", "7"), "commitOffset", "1"))
	p.held(1)
	other := connect(t, b)
	other.ask(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", "0"), nil)
	other.send("T", 0, "y")
	require.Equal(t, []string{"y"}, (<-answer).bodies())
	offset, ok := b.Offsets.Query([]byte("G"), []byte("T"), 0)
	require.True(t, ok)
	require.Zero(t, offset, "offsets may go back, and a woken pull does not undo that")
}

// A table that no frame can hold is refused with the way out.
func TestTableTooLarge(t *testing.T) {
	x := &exchange{resp: &protocol.Command{}}
	err := x.table(make([]byte, maxBodyBytes+1), protocol.GetAllTopicConfigResponse{})
	require.ErrorContains(t, err, "ask for it in pages")
	require.NoError(t, x.table(make([]byte, maxBodyBytes), protocol.GetAllTopicConfigResponse{}))
}

// Properties that come without their last separator do not run into those that the broker adds.
func TestPropertiesEnd(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.require(p.call(with(sendRequest("T", 0, "x"), "i", "A\x01b")), protocol.ResponseSuccess)
	p.require(p.call(with(sendRequest("T", 0, "y"), "i", "CLUSTER\x01other\x02POP_CK\x01x\x02A\x01b")), protocol.ResponseSuccess)
	p.dispatched()
	for _, r := range p.pull("G", "T", 0, 0, "*", 0).records {
		require.Equal(t, "b", string(r.Properties.Get("A")))
		require.Equal(t, "DefaultCluster", string(r.Properties.Get("CLUSTER")))
		require.Len(t, r.Properties.Get(message.PropUniqKey), 32)
		require.Nil(t, r.Properties.Get("POP_CK"))
	}
}
