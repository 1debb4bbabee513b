package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

// Proves the administrative calls about topics and configuration, at the broker, the cluster and the name servers.
func TestAdminTopics(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	cl := c.client()
	a := cl.Admin()
	require.Equal(t, c.addrs, a.NameServers())
	masters, err := a.Masters(t.Context(), "DefaultCluster")
	require.NoError(t, err)
	require.Equal(t, []string{c.broker("broker-a").addr.String(), c.broker("broker-b").addr.String()}, masters)
	_, err = a.Masters(t.Context(), "Other")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "there are [DefaultCluster]")
	for _, addr := range masters {
		require.NoError(t, a.CreateTopic(t.Context(), addr, protocol.NewTopicConfig("T", 2), ""))
		cfg, err := a.Topic(t.Context(), addr, "T")
		require.NoError(t, err)
		require.EqualValues(t, 2, cfg.WriteQueueNums)
		_, err = a.Topic(t.Context(), addr, "U")
		require.ErrorIs(t, err, ErrNotFound)
	}
	sendAll(t, newProducer(t, cl), "T", 0, 8)
	stats, err := a.TopicStats(t.Context(), "T")
	require.NoError(t, err)
	require.Len(t, stats.OffsetTable, 4)
	for _, o := range stats.OffsetTable {
		require.EqualValues(t, 2, o.MaxOffset)
	}
	require.NoError(t, a.SetOrder(t.Context(), "T", map[string]int{"broker-b": 1, "broker-a": 2}))
	conf, err := a.KV(t.Context(), OrderNamespace, "T")
	require.NoError(t, err)
	require.Equal(t, "broker-a:2;broker-b:1", conf)
	require.NoError(t, a.SetOrder(t.Context(), "T", nil))
	_, err = a.KV(t.Context(), OrderNamespace, "T")
	require.ErrorIs(t, err, ErrNotFound)
	config, err := a.BrokerConfig(t.Context(), masters[0])
	require.NoError(t, err)
	require.Equal(t, map[string]string{"brokerName": "broker-a", "listenPort": "10911"}, config)
	lost := c.broker("broker-b")
	setSlave := func(slave bool) {
		lost.mu.Lock()
		defer lost.mu.Unlock()
		lost.slave = slave
	}
	setSlave(true)
	err = a.DeleteTopic(t.Context(), "DefaultCluster", "T")
	require.ErrorIs(t, err, ErrNoBroker)
	require.ErrorContains(t, err, "broker broker-b: ")
	c.broker("broker-a").slave = true // nobody else uses it now
	_, err = a.Masters(t.Context(), "DefaultCluster")
	require.ErrorIs(t, err, ErrNoBroker)
	c.broker("broker-a").slave = false
	setSlave(false)
	require.NoError(t, a.DeleteTopic(t.Context(), "DefaultCluster", "T"))
	_, err = a.Route(t.Context(), "T")
	require.ErrorIs(t, err, ErrNoRoute)
	resp, err := a.Invoke(t.Context(), masters[0], 9999, nil, nil)
	require.NoError(t, err)
	require.EqualValues(t, protocol.ResponseRequestCodeNotSupported, resp.Code)
	_, err = a.HAStatus(t.Context(), masters[0])
	require.ErrorContains(t, err, "GET_BROKER_HA_STATUS to "+masters[0])
}

// Proves that messages are found by every kind of key, and that neighbours in the index are left out.
func TestAdminMessages(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 1)
	cl := c.client()
	a, p := cl.Admin(), newProducer(t, cl)
	var results []*SendResult
	for i := range 4 {
		res, err := p.Send(t.Context(), &Message{Topic: "T", Body: fmt.Appendf(nil, "m%d", i), Keys: []string{"k", fmt.Sprint("k", i)}})
		require.NoError(t, err)
		results = append(results, res)
	}
	_, err := p.Send(t.Context(), &Message{Topic: "T", Body: []byte("other"), Keys: []string{"collides"}})
	require.NoError(t, err)
	for i, res := range results {
		want := fmt.Sprintf("m%d", i)
		for _, find := range []func() (*MessageExt, error){
			func() (*MessageExt, error) { return a.MessageByOffsetID(t.Context(), res.OffsetID) },
			func() (*MessageExt, error) { return a.Message(t.Context(), "T", res.OffsetID) },
			func() (*MessageExt, error) { return a.Message(t.Context(), "T", res.ID) },
			func() (*MessageExt, error) { return a.MessageByUniqueKey(t.Context(), "T", res.ID) },
			func() (*MessageExt, error) { return a.MessageAt(t.Context(), res.Queue, res.QueueOffset) },
		} {
			m, err := find()
			require.NoError(t, err)
			require.Equal(t, want, string(m.Body))
		}
	}
	all, err := a.MessagesByKey(t.Context(), "T", "k", 10, time.Time{}, time.Time{})
	require.NoError(t, err)
	require.Len(t, all, 4)
	_, err = a.MessagesByKey(t.Context(), "T", "none", 10, time.Time{}, time.Now())
	require.ErrorIs(t, err, ErrNotFound)
	_, err = a.MessageAt(t.Context(), results[0].Queue, 99)
	require.ErrorIs(t, err, ErrNotFound)
	_, err = a.MessageByOffsetID(t.Context(), "xyz")
	require.ErrorIs(t, err, message.ErrID)
	_, err = a.MessageByOffsetID(t.Context(), message.ID{Host: c.broker("broker-a").addr, Pos: 1 << 40}.String())
	require.ErrorIs(t, err, ErrNotFound)
}

// Proves what operators see of a running consumer, that they can hand it a message, and that they can reset its offsets
// while it runs and while it does not.
func TestAdminConsumers(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	cl := c.client()
	a := cl.Admin()
	p := newProducer(t, cl)
	sendAll(t, p, "T", 0, 5)
	s := newSink(func(m *MessageExt) error {
		if string(m.Body) == "bad" {
			return errors.New("no")
		}
		return nil
	})
	_, err := a.ConsumerConnection(t.Context(), "consumers")
	require.ErrorIs(t, err, ErrNoRoute)
	ccl := c.client()
	cons := startConsumer(t, ccl, "T", Expression{}, s.handle)
	s.wait(t, 5)
	require.Eventually(t, func() bool { return c.broker("broker-a").committed("consumers", q) == 5 }, 10*time.Second, time.Millisecond)

	groups, err := a.GroupsOf(t.Context(), "T")
	require.NoError(t, err)
	require.Equal(t, []string{"consumers"}, groups)
	cc, err := a.ConsumerConnection(t.Context(), "consumers")
	require.NoError(t, err)
	require.Equal(t, ccl.ID(), cc.ConnectionSet[0].ClientID)
	require.Equal(t, protocol.ConsumePassively, cc.ConsumeType)
	require.Equal(t, "*", cc.SubscriptionTable["T"].SubString)
	stats, err := a.ConsumeStats(t.Context(), "consumers", "")
	require.NoError(t, err)
	require.EqualValues(t, 5, stats.OffsetTable[q].ConsumerOffset)
	info, err := a.RunningInfo(t.Context(), "consumers", ccl.ID(), true)
	require.NoError(t, err)
	require.Equal(t, protocol.ConsumePassively, info.Properties[protocol.PropConsumeType])
	require.EqualValues(t, 5, info.MQTable[q].CommitOffset)
	require.Positive(t, info.StatusTable["T"].ConsumeOKTPS)
	require.Contains(t, info.Jstack, "goroutine")
	status, err := a.ConsumerStatus(t.Context(), "T", "consumers", "")
	require.NoError(t, err)
	require.Equal(t, map[string]map[MessageQueue]int64{ccl.ID(): {q: 5}}, status)

	m, err := a.MessageAt(t.Context(), q, 2)
	require.NoError(t, err)
	res, err := a.ConsumeDirectly(t.Context(), "consumers", ccl.ID(), "T", m.OffsetID())
	require.NoError(t, err)
	require.Equal(t, protocol.CMSuccess, res.ConsumeResult)
	require.Equal(t, "m002", s.wait(t, 6)[5])
	tracks, err := a.Tracks(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, []Track{{Group: "consumers", Status: TrackConsumed}}, tracks)

	moved, err := a.ResetOffsets(t.Context(), "T", "consumers", m.StoreTime, true)
	require.NoError(t, err)
	from := moved[q]
	require.LessOrEqual(t, from, int64(2))
	require.Equal(t, []string{"m000", "m001", "m002", "m003", "m004"}[from:], sorted(s.wait(t, 6+5-int(from))[6:]))
	require.NoError(t, cons.Close(t.Context()))
	_, err = a.ConsumerConnection(t.Context(), "consumers")
	require.ErrorIs(t, err, ErrNotOnline)
	moved, err = a.ResetOffsets(t.Context(), "T", "consumers", m.StoreTime, true)
	require.NoError(t, err)
	require.Equal(t, from, moved[q])
	require.Equal(t, from, c.broker("broker-a").committed("consumers", q))
	require.NoError(t, a.ResetQueue(t.Context(), "consumers", q, 4))
	require.EqualValues(t, 4, c.broker("broker-a").committed("consumers", q))
	require.NoError(t, a.CloneOffsets(t.Context(), "consumers", "others", "T"))
	require.EqualValues(t, 4, c.broker("broker-a").committed("others", q))
}

// Proves the answers to relayed requests about groups that are not here, and to requests that a client does not know.
func TestIncomingWithoutConsumer(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	cl := c.client()
	newProducer(t, cl)
	req := protocol.NewRequest(protocol.RequestGetConsumerRunningInfo)
	req.Add("consumerGroup", "nobody")
	require.EqualValues(t, protocol.ResponseSystemError, cl.runningInfo(t.Context(), req).Code)
	require.EqualValues(t, protocol.ResponseSystemError, cl.consumeDirectly(t.Context(), req).Code)
	require.EqualValues(t, protocol.ResponseSystemError, cl.consumerStatus(req).Code)
	require.Nil(t, cl.resetOffsets(t.Context(), req))
	p := newPuller(t, cl, func(o *PullConsumerOptions) { o.Group = "nobody" })
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	c.createTopic("T", 1)
	require.NoError(t, p.Assign(t.Context(), q))
	require.Equal(t, map[MessageQueue]int64{q: 0}, p.offsets("T"))
	p.reset(t.Context(), "T", map[MessageQueue]int64{q: 3})
	require.Equal(t, map[MessageQueue]int64{q: 3}, p.offsets("T"))
	require.Equal(t, protocol.ConsumeActively, p.runningInfo().Properties[protocol.PropConsumeType])
	require.Equal(t, protocol.CMThrowException, p.consumeDirectly(t.Context(), nil).ConsumeResult)
}
