package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/remoting/protocol"
)

// heartbeatOf is one consumer group of a heartbeat; topics are written T, or T:7 for subscription version 7.
func heartbeatOf(group string, topics ...string) *consumerHeartbeat {
	h := &consumerHeartbeat{
		group: group, notify: true, subscriptions: []*protocol.SubscriptionData{},
		traits: ConsumerTraits{ConsumeType: protocol.ConsumePassively, MessageModel: protocol.Clustering, ConsumeFromWhere: protocol.ConsumeFromLastOffset},
	}
	for _, topic := range topics {
		s := &protocol.SubscriptionData{Topic: topic, SubString: "*", ExpressionType: protocol.ExpressionTag}
		if _, err := fmt.Sscanf(topic, "T:%d", &s.SubVersion); err == nil {
			s.Topic = "T"
		}
		h.subscriptions = append(h.subscriptions, s)
	}
	return h
}

// notices are the groups that a connection was told of.
func (c *fakeConn) notices(t *testing.T) []string {
	t.Helper()
	out := []string{}
	for _, req := range c.takeSent() {
		require.EqualValues(t, protocol.RequestNotifyConsumerIDsChanged, req.Code)
		require.True(t, req.IsOneway(), "clients must not answer")
		out = append(out, req.GetString("consumerGroup"))
	}
	return out
}

// Proves who hears of which change, and that members leave when they say so or their connection closes.
func TestConsumersComeAndGo(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	a, b := newFakeConn(1), newFakeConn(2)
	ca, cb := clientChannel{Conn: a, ClientID: "a"}, clientChannel{Conn: b, ClientID: "b"}
	told := func(wantA, wantB []string) {
		t.Helper()
		require.Equal(t, wantA, a.notices(t))
		require.Equal(t, wantB, b.notices(t))
	}
	g, no := []string{"g"}, []string{}
	require.True(t, m.Consumers.Register(ca, heartbeatOf("g", "T")))
	told(g, no) // the newcomer too, so that it shares the queues out at once
	require.False(t, m.Consumers.Register(ca, heartbeatOf("g", "T")))
	told(no, no)
	require.True(t, m.Consumers.Register(cb, heartbeatOf("g", "T")))
	told(g, g)
	require.Equal(t, []string{"a", "b"}, m.Consumers.ClientIDs("g"))
	require.True(t, m.Consumers.Register(cb, heartbeatOf("g", "T", "U")), "a topic more")
	told(g, g)
	require.NotNil(t, m.Consumers.Subscription("g", "U"))
	require.True(t, m.Consumers.Register(ca, heartbeatOf("g", "T")), "the last one wins")
	told(g, g)
	require.Nil(t, m.Consumers.Subscription("g", "U"))
	require.Equal(t, []string{"g"}, m.Consumers.GroupsOn("T"))
	require.Empty(t, m.Consumers.GroupsOn("U"))

	m.Consumers.Unregister(a, "g", true)
	told(no, g)
	m.Consumers.Register(ca, heartbeatOf("g", "T"))
	m.Consumers.Register(ca, heartbeatOf("h", "T"))
	a.takeSent()
	b.takeSent()
	m.Closed(a)
	told(no, g)
	require.Nil(t, m.Consumers.Find("h"))
	m.Closed(b)
	require.Nil(t, m.Consumers.FindBytes([]byte("g")))
	require.Empty(t, m.Consumers.byConn)
	m.Closed(b) // twice is fine
}

// Proves that a newer subscription replaces an older one, quietly, and an older one changes nothing.
func TestSubscriptionVersions(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	c := clientChannel{Conn: newFakeConn(1), ClientID: "a"}
	m.Consumers.Register(c, heartbeatOf("g", "T:5"))
	for _, step := range []struct {
		send string
		want int64
	}{{"T:4", 5}, {"T:7", 7}, {"T:6", 7}} {
		require.False(t, m.Consumers.Register(c, heartbeatOf("g", step.send)))
		require.Equal(t, step.want, m.Consumers.Subscription("g", "T").SubVersion)
	}
	h := heartbeatOf("g")
	h.subscriptions = nil
	require.False(t, m.Consumers.Register(c, h), "a heartbeat without subscriptions keeps them")
	require.NotNil(t, m.Consumers.Find("g").SubscriptionBytes([]byte("T")))
}

// Proves the cases in which nobody hears of a change.
func TestNoNotices(t *testing.T) {
	for name, tc := range map[string]struct {
		conf   string
		change func(h *consumerHeartbeat)
	}{
		"broadcast":     {"", func(h *consumerHeartbeat) { h.traits.MessageModel = protocol.Broadcasting }},
		"turned off":    {"", func(h *consumerHeartbeat) { h.notify = false }},
		"pull rejected": {"rejectPullConsumerEnable=true\n", func(h *consumerHeartbeat) { h.traits.ConsumeType = protocol.ConsumeActively }},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testManagers(t, vfs.NewHeap(), tc.conf)
			a := newFakeConn(1)
			h := heartbeatOf("g", "T")
			tc.change(h)
			require.Equal(t, name != "pull rejected", m.Consumers.Register(clientChannel{Conn: a, ClientID: "a"}, h))
			require.Equal(t, name != "pull rejected", m.Consumers.Find("g") != nil)
			require.Empty(t, a.notices(t))
		})
	}
}

// Proves that changes are gathered where they are not to be told at once.
func TestNoticesGathered(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "realTimeNotifyConsumerChange=false\n")
	a, b := newFakeConn(1), newFakeConn(2)
	m.Consumers.Register(clientChannel{Conn: a, ClientID: "a"}, heartbeatOf("g", "T"))
	m.Consumers.Register(clientChannel{Conn: b, ClientID: "b"}, heartbeatOf("g", "T"))
	require.Empty(t, a.notices(t))
	m.Consumers.flushNotices()
	require.Equal(t, []string{"g"}, a.notices(t))
	require.Equal(t, []string{"g"}, b.notices(t))
	m.Consumers.flushNotices()
	require.Empty(t, a.notices(t))
}

// Proves that silent clients are dropped after 120 s, not before, their connections closed and the others told.
func TestClientExpiry(t *testing.T) {
	m, clock := testManagers(t, vfs.NewHeap(), "")
	a, b := newFakeConn(1), newFakeConn(2)
	beat := func(conn *fakeConn) {
		ch := clientChannel{Conn: conn, ClientID: fmt.Sprint(conn.addr.Port())}
		m.Consumers.Register(ch, heartbeatOf("g", "T"))
		m.Producers.Register(ch, "p")
	}
	beat(a)
	beat(b)
	clock.Advance(119 * time.Second)
	beat(b)
	m.expire()
	require.Len(t, m.Consumers.Members("g"), 2)
	require.Len(t, m.Producers.Members("p"), 2)
	b.takeSent()
	clock.Advance(2 * time.Second)
	m.expire()
	require.Equal(t, []string{"2"}, m.Consumers.ClientIDs("g"))
	require.Len(t, m.Producers.Members("p"), 1)
	require.Equal(t, []string{"g"}, b.notices(t))
	select {
	case <-a.Done():
	default:
		t.Fatal("the connection of a silent client is still open")
	}
	clock.Advance(time.Hour)
	m.expire()
	require.Nil(t, m.Consumers.Find("g"))
	require.Empty(t, m.Producers.Groups())
}

// Proves that each producer of a group is picked in turn, and none of an empty one.
func TestProducers(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	require.Nil(t, m.Producers.Pick("p"))
	conns := map[string]*fakeConn{}
	for i := range uint16(3) {
		conns[fmt.Sprint(i)] = newFakeConn(i)
		m.Producers.Register(clientChannel{Conn: conns[fmt.Sprint(i)], ClientID: fmt.Sprint(i)}, "p")
	}
	picked := map[string]int{}
	for range 6 {
		picked[m.Producers.Pick("p").ClientID]++
	}
	require.Equal(t, map[string]int{"0": 2, "1": 2, "2": 2}, picked)
	m.Producers.Unregister(conns["0"], "p")
	m.Closed(conns["1"])
	require.Len(t, m.Producers.Members("p"), 1)
	require.Equal(t, []string{"p"}, m.Producers.Groups())
	m.Closed(conns["2"])
	require.Empty(t, m.Producers.Groups())
	require.Empty(t, m.Producers.byConn)
}

// Proves that heartbeats, closings, expiry and reads of one group at the same time leave a consistent table.
func TestConsumersTogether(t *testing.T) {
	m, clock := testManagers(t, vfs.NewHeap(), "")
	t.Run("all", func(t *testing.T) {
		for i := range uint16(4) {
			spawn(t, func() {
				for n := range 200 {
					conn := newFakeConn(i)
					m.Consumers.Register(clientChannel{Conn: conn, ClientID: fmt.Sprint(i)}, heartbeatOf("g", fmt.Sprint("T", n%3)))
					m.Producers.Register(clientChannel{Conn: conn, ClientID: fmt.Sprint(i)}, "p")
					m.Closed(conn)
				}
			})
		}
		spawn(t, func() {
			for range 200 {
				if g := m.Consumers.FindBytes([]byte("g")); g != nil {
					g.SubscriptionBytes([]byte("T1"))
					g.Broadcast()
				}
				m.Consumers.ClientIDs("g")
				clock.Advance(time.Second)
				m.expire()
			}
		})
	})
	require.Nil(t, m.Consumers.Find("g"))
	require.Empty(t, m.Consumers.byConn)
	require.Empty(t, m.Producers.byConn)
}

// Proves who holds a queue: the first, until it lets go or is silent for more than 60 s.
func TestRebalanceLocks(t *testing.T) {
	clock := newTestClock()
	m := newRebalanceLockManager(clock.Now)
	q := func(ids ...int32) (out []protocol.MessageQueue) {
		out = []protocol.MessageQueue{}
		for _, id := range ids {
			out = append(out, protocol.MessageQueue{Topic: "T", BrokerName: "b", QueueID: id})
		}
		return out
	}
	require.False(t, m.HasUnexpired("g"))
	require.Equal(t, q(0, 1), m.TryLockBatch("g", q(0, 1), "a"))
	require.Equal(t, q(2), m.TryLockBatch("g", q(0, 1, 2), "b"))
	require.Equal(t, q(0, 1, 2), m.TryLockBatch("other", q(0, 1, 2), "b"), "groups do not share locks")
	clock.Advance(60 * time.Second)
	require.Equal(t, q(), m.TryLockBatch("g", q(0), "b"))
	require.Equal(t, q(0), m.TryLockBatch("g", q(0), "a"), "renewed")
	clock.Advance(time.Second)
	require.Equal(t, q(1), m.TryLockBatch("g", q(0, 1), "b"), "expired and stolen")
	m.UnlockBatch("g", q(0, 1), "b")
	require.Equal(t, q(), m.TryLockBatch("g", q(0), "b"), "only the owner unlocks")
	require.Equal(t, q(1), m.TryLockBatch("g", q(1), "c"))
	require.True(t, m.HasUnexpired("g"))
	clock.Advance(61 * time.Second)
	require.False(t, m.HasUnexpired("g"))
	m.expire()
	require.Empty(t, m.groups)
}
