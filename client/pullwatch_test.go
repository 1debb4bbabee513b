package client

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// holdingGroup is a group of two nodes: first holds all pulls for good and says of itself what table says, or nothing at all
// if that is nil; other, which says role, has a message.
func holdingGroup(t *testing.T, table *atomic.Pointer[map[string]string], role string) (cl *Client, first, other *fakeBroker) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	rest := newFakeCluster(t, 1, "broker-a")
	rest.createTopic("T", 1)
	first, other = c.broker("broker-a"), rest.broker("broker-a")
	first.others = map[int64]string{1: other.addr.String()}
	first.setIntercept(func(req *protocol.Command) *protocol.Command {
		switch protocol.RequestCode(req.Code) {
		case protocol.RequestPullMessage:
			return protocol.NewResponse(req, never, "")
		case protocol.RequestGetBrokerRuntimeInfo:
			if says := table.Load(); says != nil && (*says)["replicationRole"] == "leader" && req.GetString("roleOnly") == "true" {
				return replyBody(req, protocol.KVTable{}) // as brokers of ours do
			} else if says != nil {
				return replyBody(req, protocol.KVTable{Table: *says})
			}
			return protocol.NewResponse(req, never, "")
		}
		return nil
	})
	other.setIntercept(func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) != protocol.RequestGetBrokerRuntimeInfo {
			return nil
		}
		return replyBody(req, protocol.KVTable{Table: map[string]string{"replicationRole": role, "replicationEpoch": "7"}})
	})
	_, err := newProducer(t, rest.client(func(*Options) {})).Send(t.Context(), text("T", "there"))
	require.NoError(t, err)
	return c.client(func(o *Options) {
		o.RouteInterval, o.HeartbeatInterval, o.LeaderProbe = time.Hour, time.Hour, 20*time.Millisecond
	}), first, other
}

// says is what a node says of itself; "" is nothing at all.
func says(role string) *atomic.Pointer[map[string]string] {
	p := &atomic.Pointer[map[string]string]{}
	if role != "" {
		p.Store(&map[string]string{"replicationRole": role, "replicationEpoch": "6"})
	}
	return p
}

var theQueue = MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: 0}

// Proves that a pull that a broker holds for an hour goes to another node of its group once that leads: from a broker that is
// frozen, and from one that answers and no longer leads.
func TestHeldPullMoves(t *testing.T) {
	for name, role := range map[string]string{"frozen": "", "cut off": "follower", "in an election": "read-only"} {
		t.Run(name, func(t *testing.T) {
			cl, first, _ := holdingGroup(t, says(role), "leader")
			res, err := cl.Pull(t.Context(), theQueue, 0, 1, Expression{}, time.Hour)
			require.NoError(t, err)
			require.Len(t, res.Messages, 1)
			require.Equal(t, "there", string(res.Messages[0].Body))
			require.Equal(t, 1, first.count(protocol.RequestPullMessage))
		})
	}
}

// Proves that a consumer whose leader is frozen goes on with the next one, without a pause and without a new route.
func TestConsumerLeavesFrozenLeader(t *testing.T) {
	cl, first, _ := holdingGroup(t, says(""), "leader")
	got := make(chan string, 1)
	p, err := cl.NewPushConsumer(PushConsumerOptions{
		Group: "g", ErrorDelay: time.Hour, From: FromFirst,
		Handler: func(_ context.Context, ms []*MessageExt) error { got <- string(ms[0].Body); return nil },
	})
	require.NoError(t, err)
	require.NoError(t, p.Subscribe("T", Expression{}))
	require.NoError(t, p.Start(t.Context()))
	require.Equal(t, "there", <-got)
	require.Positive(t, first.count(protocol.RequestPullMessage))
}

// Proves that a held pull moves as soon as the client knows of another leader, by a hint or by a route.
func TestHeldPullFollowsRoute(t *testing.T) {
	for _, by := range []string{"hint", "route"} {
		t.Run(by, func(t *testing.T) {
			cl, first, other := holdingGroup(t, says("leader"), "follower")
			found := make(chan error, 1)
			puller := run.New(t.Context(), "test")
			puller.Go("pull", func(ctx context.Context) error {
				_, err := cl.Pull(ctx, theQueue, 0, 1, Expression{}, time.Hour)
				found <- err
				return nil
			})
			require.Eventually(t, func() bool { return first.count(protocol.RequestPullMessage) == 1 }, 20*time.Second, time.Millisecond)
			if by == "hint" {
				cl.routes.setLeader("broker-a", other.addr.String())
			} else {
				data := &protocol.TopicRouteData{
					QueueDatas:  []protocol.QueueData{{BrokerName: "broker-a", ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6}},
					BrokerDatas: []protocol.BrokerData{{BrokerName: "broker-a", BrokerAddrs: map[int64]string{0: other.addr.String(), 1: first.addr.String()}}},
				}
				cl.routes.put("T", newTopicRoute("T", data))
			}
			require.NoError(t, <-found)
			require.NoError(t, puller.Wait())
		})
	}
}

// Proves that pulls stay where they are while the broker says that it leads, or while nobody else does, and that nobody
// is asked where that is not wanted.
func TestHeldPullStays(t *testing.T) {
	for name, c := range map[string]struct {
		first, other string
		probe        time.Duration
	}{"leads": {"leader", "leader", 0}, "nobody else": {"", "follower", 0}, "never": {"", "leader", -1}} {
		t.Run(name, func(t *testing.T) {
			cl, first, other := holdingGroup(t, says(c.first), c.other)
			if c.probe < 0 {
				cl.opt.LeaderProbe = c.probe
			}
			ctx, cancel := context.WithCancel(t.Context())
			puller := run.New(ctx, "test")
			ended := make(chan error, 1)
			puller.Go("pull", func(ctx context.Context) error {
				_, err := cl.Pull(ctx, theQueue, 0, 1, Expression{}, time.Hour)
				ended <- err
				return nil
			})
			require.Eventually(t, func() bool {
				return first.count(protocol.RequestPullMessage) == 1 && (c.probe < 0 || first.count(protocol.RequestGetBrokerRuntimeInfo) >= 3)
			}, 20*time.Second, time.Millisecond)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			require.NoError(t, puller.Wait())
			require.Zero(t, other.count(protocol.RequestPullMessage))
			require.Equal(t, 1, first.count(protocol.RequestPullMessage))
			require.Equal(t, c.probe < 0, first.count(protocol.RequestGetBrokerRuntimeInfo) == 0)
		})
	}
}

// Proves that pulls at a slave that says nothing end with an error, so that the consumer goes to the master.
func TestHeldPullLeavesSilentSlave(t *testing.T) {
	cl, _, other := holdingGroup(t, says("leader"), "follower")
	other.setIntercept(func(req *protocol.Command) *protocol.Command {
		switch protocol.RequestCode(req.Code) {
		case protocol.RequestPullMessage, protocol.RequestGetBrokerRuntimeInfo:
			return protocol.NewResponse(req, never, "")
		}
		return nil
	})
	_, err := cl.pull(t.Context(), &pullRequest{
		group: toolsGroup, queue: theQueue, max: 1, sub: newSubscription("T", Expression{}, time.Now()), carrySub: true, suspend: time.Hour, brokerID: 1,
	})
	require.ErrorIs(t, err, errSilent)
}

// Proves that an offset which one master was told, and nobody answers that, is told to the next one without being new.
func TestOffsetsFollowLeader(t *testing.T) {
	cl, first, other := holdingGroup(t, says("leader"), "follower")
	_, err := cl.refreshRoute(t.Context(), "T")
	require.NoError(t, err)
	s := newBrokerOffsets(cl, "g")
	s.update(theQueue, 5, true)
	require.NoError(t, s.persist(t.Context(), false, theQueue))
	require.Eventually(t, func() bool { return first.committed("g", theQueue) == 5 }, 20*time.Second, time.Millisecond)
	cl.routes.setLeader("broker-a", other.addr.String())
	require.NoError(t, s.persist(t.Context(), false, theQueue))
	require.Eventually(t, func() bool { return other.committed("g", theQueue) == 5 }, 20*time.Second, time.Millisecond)
	had := other.count(protocol.RequestUpdateConsumerOffset)
	require.NoError(t, s.persist(t.Context(), false, theQueue))
	_, err = cl.CommittedOffset(t.Context(), "g", theQueue)
	require.NoError(t, err) // it has been served after whatever came before it
	require.Equal(t, had, other.count(protocol.RequestUpdateConsumerOffset), "it is told once")
}

// Proves that a pull of a master that is gone goes at once to the node of its group that leads, and, where none does, to a
// slave that a name server knows.
func TestPullLeavesDeadMaster(t *testing.T) {
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			cl, first, other := holdingGroup(t, says("leader"), role)
			_, err := cl.refreshRoute(t.Context(), "T")
			require.NoError(t, err)
			first.setIntercept(nil)
			first.mu.Lock()
			first.slave, first.others = true, map[int64]string{1: other.addr.String()} // what name servers know of it then
			first.mu.Unlock()
			require.NoError(t, first.server.Close())
			res, err := cl.Pull(t.Context(), theQueue, 0, 1, Expression{}, 0)
			require.NoError(t, err)
			require.Equal(t, "there", string(res.Messages[0].Body))
		})
	}
}
