package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// silentGroup is a group of two nodes whose first one takes sends and says nothing.
func silentGroup(t *testing.T, role string) (c *fakeCluster, silent, other *fakeBroker) {
	c = newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	rest := newFakeCluster(t, 1, "broker-a")
	rest.createTopic("T", 1)
	silent, other = c.broker("broker-a"), rest.broker("broker-a")
	silent.others = map[int64]string{1: other.addr.String()}
	silent.setIntercept(func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) != protocol.RequestSendMessageV2 {
			return nil
		}
		return protocol.NewResponse(req, never, "")
	})
	other.setIntercept(func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) != protocol.RequestGetBrokerRuntimeInfo {
			return nil
		}
		return replyBody(req, protocol.KVTable{Table: map[string]string{"replicationRole": role, "replicationEpoch": "7"}})
	})
	return c, silent, other
}

// Proves that sends to a broker that says nothing go to another node of its group as soon as that leads, those under way
// as well, however long the client would have waited.
func TestLeaderProbe(t *testing.T) {
	c, silent, other := silentGroup(t, "leader")
	cl := c.client(func(o *Options) {
		o.RouteInterval, o.HeartbeatInterval, o.LeaderProbe = time.Hour, time.Hour, 20*time.Millisecond
	})
	p := newProducer(t, cl, func(o *ProducerOptions) { o.Timeout = time.Hour })
	_, err := p.Send(t.Context(), text("T", "1"))
	require.NoError(t, err)
	require.Equal(t, 1, silent.count(protocol.RequestSendMessageV2))
	_, err = p.Send(t.Context(), text("T", "2"))
	require.NoError(t, err)
	require.Equal(t, 1, silent.count(protocol.RequestSendMessageV2))

	// Asynchronously, from a client that has a connection and has not heard of it.
	cl = c.client(func(o *Options) {
		o.RouteInterval, o.HeartbeatInterval, o.LeaderProbe = time.Hour, time.Hour, 20*time.Millisecond
	})
	p = newProducer(t, cl, func(o *ProducerOptions) { o.Timeout = time.Hour })
	done := make(chan error, 3)
	for range 3 {
		require.NoError(t, p.SendAsync(t.Context(), text("T", "x"), func(_ *SendResult, err error) { done <- err }))
	}
	for range 3 {
		require.NoError(t, <-done)
	}
	require.Len(t, other.all("T"), 5)
}

// Proves that a node of which the route says nothing is found through one that knows it.
func TestLeaderProbeNamed(t *testing.T) {
	c, _, other := silentGroup(t, "leader")
	middle := newFakeCluster(t, 1, "broker-a").broker("broker-a")
	middle.setIntercept(func(req *protocol.Command) *protocol.Command {
		return replyBody(req, protocol.KVTable{Table: map[string]string{
			"replicationRole": "follower", "replicationEpoch": "7", "replicationLeaderAddr": other.addr.String(),
		}})
	})
	c.broker("broker-a").others = map[int64]string{1: middle.addr.String()}
	cl := c.client(func(o *Options) {
		o.RouteInterval, o.HeartbeatInterval, o.LeaderProbe = time.Hour, time.Hour, 20*time.Millisecond
	})
	_, err := newProducer(t, cl, func(o *ProducerOptions) { o.Timeout = time.Hour }).Send(t.Context(), text("T", "1"))
	require.NoError(t, err)
	require.Len(t, other.all("T"), 1)
}

// Proves that a client stays with a silent broker while no other node leads, and does not ask any where it is told not to.
func TestLeaderProbeStays(t *testing.T) {
	c, _, other := silentGroup(t, "follower")
	for _, probe := range []time.Duration{-1, 5 * time.Millisecond} {
		cl := c.client(func(o *Options) {
			o.RouteInterval, o.HeartbeatInterval, o.LeaderProbe = time.Hour, time.Hour, probe
		})
		p := newProducer(t, cl, func(o *ProducerOptions) { o.Timeout, o.Retries = 100*time.Millisecond, -1 })
		_, err := p.Send(t.Context(), text("T", "1"))
		var u *UnknownOutcomeError
		require.ErrorAs(t, err, &u)
		if probe < 0 {
			require.Zero(t, other.count(protocol.RequestGetBrokerRuntimeInfo))
		} else {
			require.Positive(t, other.count(protocol.RequestGetBrokerRuntimeInfo))
		}
		require.Empty(t, other.all("T"))
	}
}

// Proves that sends wait for a group of which the name server knows members and no leader, and go to the one that they elect;
// that a topic which takes no messages any more, and one whose only broker is a slave, are not waited for.
func TestSendDuringElection(t *testing.T) {
	c, silent, other := silentGroup(t, "leader")
	cl := c.client(func(o *Options) { o.RouteInterval, o.HeartbeatInterval = time.Hour, time.Hour })
	p := newProducer(t, cl, func(o *ProducerOptions) { o.Timeout = time.Hour })
	queues, err := p.Queues(t.Context(), "T")
	require.NoError(t, err)
	said := func(perm int32, addrs map[int64]string) *topicRoute {
		cl.routes.put("T", newTopicRoute("T", &protocol.TopicRouteData{
			BrokerDatas: []protocol.BrokerData{{BrokerName: "broker-a", BrokerAddrs: addrs}},
			QueueDatas:  []protocol.QueueData{{BrokerName: "broker-a", WriteQueueNums: 1, ReadQueueNums: 1, Perm: perm}},
		}))
		return cl.routes.get("T")
	}
	members := map[int64]string{1: silent.addr.String(), 2: other.addr.String()}
	require.Equal(t, queues, said(protocol.PermRead|protocol.PermWrite, members).publish)
	done := make(chan error, 20)
	for range cap(done) {
		require.NoError(t, p.SendAsync(t.Context(), text("T", "x"), func(_ *SendResult, err error) { done <- err }))
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.Len(t, other.all("T"), cap(done))
	require.Empty(t, said(protocol.PermRead, members).publish)
	require.NotEmpty(t, said(protocol.PermRead|protocol.PermWrite, map[int64]string{0: silent.addr.String()}).publish)
	require.Empty(t, said(protocol.PermRead|protocol.PermWrite, map[int64]string{1: silent.addr.String()}).publish)
}

// Proves that a client that knew a master alone, since its slave was away when the route was asked for, finds the slave that
// was promoted once the master is dead, without waiting for its next look at the route.
func TestSendFindsPromotedSlave(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	cl := c.client(func(o *Options) { o.RouteInterval, o.HeartbeatInterval = time.Hour, time.Hour })
	p := newProducer(t, cl, func(o *ProducerOptions) { o.Timeout = time.Hour })
	_, err := p.Send(t.Context(), text("T", "1"))
	require.NoError(t, err)
	c.broker("broker-a").stop()
	_, err = p.Send(t.Context(), text("T", "2"))
	require.Error(t, err, "there is none")
	promoted := c.start("broker-a")
	c.createTopic("T", 1)
	require.Eventually(t, func() bool {
		_, err := p.Send(t.Context(), text("T", "3"))
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
	require.Len(t, promoted.all("T"), 1)
}
