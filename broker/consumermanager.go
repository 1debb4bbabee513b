package broker

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting/protocol"
)

// clientConn is what the managers need of a connection; *remoting.Conn is one. They are compared by
// identity.
type clientConn interface {
	RemoteAddr() netip.AddrPort
	// Oneway sends a request that gets no answer. It does not block.
	Oneway(req *protocol.Command) error
	// Call sends a request and waits for the answer.
	Call(ctx context.Context, req *protocol.Command) (*protocol.Command, error)
	Close() error
	// Done is closed when the connection is.
	Done() <-chan struct{}
}

// clientChannel is one client on one connection (org.apache.rocketmq.broker.client.ClientChannelInfo).
type clientChannel struct {
	Conn     clientConn
	ClientID string
	Language protocol.Language
	Version  int32
	seen     time.Time // last heartbeat; guarded by the manager
}

// ConsumerTraits are what the members of a group say about themselves; the last one wins.
type ConsumerTraits struct {
	ConsumeType      string // CONSUME_ACTIVELY, CONSUME_PASSIVELY, CONSUME_POP
	MessageModel     string // CLUSTERING, BROADCASTING
	ConsumeFromWhere string
}

// ConsumerGroupInfo is a group with members online (org.apache.rocketmq.broker.client.ConsumerGroupInfo).
//
// All members share one table of subscriptions: a newer one replaces an older one, and topics that the
// last heartbeat did not name are dropped. Reading it takes no lock. Safe for concurrent use.
type ConsumerGroupInfo struct {
	Group  string
	traits atomic.Pointer[ConsumerTraits]
	subs   atomic.Pointer[map[string]*protocol.SubscriptionData]

	channels map[clientConn]*clientChannel // guarded by the manager
}

// Traits are what the members said last.
func (g *ConsumerGroupInfo) Traits() ConsumerTraits { return *g.traits.Load() }

// Broadcast says whether each member consumes everything.
func (g *ConsumerGroupInfo) Broadcast() bool {
	return g.traits.Load().MessageModel == protocol.Broadcasting
}

// Subscription is what the group wants of a topic, nil if nothing. It never changes.
func (g *ConsumerGroupInfo) Subscription(topic string) *protocol.SubscriptionData {
	return (*g.subs.Load())[topic]
}

// SubscriptionBytes is Subscription for a name in a buffer, without an allocation.
func (g *ConsumerGroupInfo) SubscriptionBytes(topic []byte) *protocol.SubscriptionData {
	return (*g.subs.Load())[string(topic)]
}

// Subscriptions are those of all topics. The map never changes.
func (g *ConsumerGroupInfo) Subscriptions() map[string]*protocol.SubscriptionData {
	return *g.subs.Load()
}

// ConsumerManager knows the consumers that are online (org.apache.rocketmq.broker.client.ConsumerManager).
// A member leaves when it says so, when its connection closes, or when its heartbeats stop for
// channelExpiredTimeout. Reading takes no lock. Safe for concurrent use.
type ConsumerManager struct {
	conf   func() *Config
	clock  func() time.Time
	log    *slog.Logger
	groups *SubscriptionGroupManager

	table   *shardMap[*ConsumerGroupInfo]
	mu      sync.Mutex // changes of members
	byConn  map[clientConn]map[string]struct{}
	pending map[string]struct{} // groups whose members are to hear of a change at the next round
}

func newConsumerManager(o *managerOptions, groups *SubscriptionGroupManager) *ConsumerManager {
	return &ConsumerManager{
		conf: o.conf, clock: o.Clock, log: o.Logger, groups: groups, table: newShardMap[*ConsumerGroupInfo](),
		byConn: map[clientConn]map[string]struct{}{}, pending: map[string]struct{}{},
	}
}

// Find is a group with members online, nil if there is none.
func (m *ConsumerManager) Find(group string) *ConsumerGroupInfo {
	g, _ := m.table.get(group)
	return g
}

// FindBytes is Find for a name in a buffer, without an allocation.
func (m *ConsumerManager) FindBytes(group []byte) *ConsumerGroupInfo {
	g, _ := m.table.getBytes(group)
	return g
}

// Subscription is what a group wants of a topic, nil if the group is offline or does not want it.
func (m *ConsumerManager) Subscription(group, topic string) *protocol.SubscriptionData {
	if g := m.Find(group); g != nil {
		return g.Subscription(topic)
	}
	return nil
}

// consumerHeartbeat is one consumer group in a heartbeat.
type consumerHeartbeat struct {
	group         string
	traits        ConsumerTraits
	subscriptions []*protocol.SubscriptionData // nil keeps those that there are
	notify        bool                         // whether members are to hear of a change
}

// Register notes a heartbeat of a member, and tells all members if it is new or the topics have changed.
// It says whether that was so.
func (m *ConsumerManager) Register(ch clientChannel, h *consumerHeartbeat) bool {
	if h.traits.ConsumeType == protocol.ConsumeActively && m.conf().RejectPullConsumers {
		return false
	}
	m.mu.Lock()
	g := m.table.getOrMake(h.group, func() *ConsumerGroupInfo {
		g := &ConsumerGroupInfo{Group: h.group, channels: map[clientConn]*clientChannel{}}
		g.traits.Store(&ConsumerTraits{})
		g.subs.Store(&map[string]*protocol.SubscriptionData{})
		return g
	})
	if *g.traits.Load() != h.traits {
		g.traits.Store(&h.traits)
	}
	changed := m.join(g, ch)
	if h.subscriptions != nil && m.subscribe(g, h.subscriptions) {
		changed = true
	}
	var members []*clientChannel
	if changed && h.notify && h.traits.MessageModel != protocol.Broadcasting {
		members = m.toNotify(g)
	}
	m.mu.Unlock()
	notifyMembers(h.group, members)
	return changed
}

// join notes a sign of life of a channel and says whether it is new. Called with mu held.
func (m *ConsumerManager) join(g *ConsumerGroupInfo, ch clientChannel) bool {
	ch.seen = m.clock()
	old := g.channels[ch.Conn]
	g.channels[ch.Conn] = &ch
	if old != nil {
		if old.ClientID != ch.ClientID {
			m.log.Warn("one connection carries two client ids", "group", g.Group, "was", old.ClientID, "is", ch.ClientID)
		}
		return false
	}
	of := m.byConn[ch.Conn]
	if of == nil {
		of = map[string]struct{}{}
		m.byConn[ch.Conn] = of
	}
	of[g.Group] = struct{}{}
	m.log.Info("consumer connected", "group", g.Group, "client", ch.ClientID, "addr", ch.Conn.RemoteAddr())
	return true
}

// subscribe takes over the subscriptions of a heartbeat and says whether the set of topics is another one.
// Called with mu held.
func (m *ConsumerManager) subscribe(g *ConsumerGroupInfo, subs []*protocol.SubscriptionData) (changed bool) {
	now := *g.subs.Load()
	next := make(map[string]*protocol.SubscriptionData, len(subs))
	replaced := false
	for _, s := range subs {
		old := now[s.Topic]
		switch {
		case old == nil:
			changed = true
		case s.SubVersion > old.SubVersion:
			replaced = true
		default:
			s = old
		}
		next[s.Topic] = s
	}
	for topic := range now {
		if next[topic] == nil {
			changed = true
		}
	}
	if changed {
		m.log.Info("subscription changed", "group", g.Group, "topics", slices.Sorted(maps.Keys(next)))
	}
	if changed || replaced {
		g.subs.Store(&next)
	}
	return changed
}

// Unregister takes one member out of a group and tells the others.
func (m *ConsumerManager) Unregister(conn clientConn, group string, notify bool) {
	m.mu.Lock()
	members := m.leave(conn, group, notify)
	m.mu.Unlock()
	notifyMembers(group, members)
}

// leave removes a member and returns those who are to hear of it. Called with mu held.
func (m *ConsumerManager) leave(conn clientConn, group string, notify bool) []*clientChannel {
	g := m.Find(group)
	if g == nil || g.channels[conn] == nil {
		return nil
	}
	m.log.Info("consumer left", "group", group, "client", g.channels[conn].ClientID, "addr", conn.RemoteAddr())
	delete(g.channels, conn)
	if of := m.byConn[conn]; of != nil {
		if delete(of, group); len(of) == 0 {
			delete(m.byConn, conn)
		}
	}
	if len(g.channels) == 0 {
		m.table.remove(group)
		delete(m.pending, group)
		return nil
	}
	if !notify || g.Broadcast() {
		return nil
	}
	return m.toNotify(g)
}

// Closed takes the client of a connection out of all its groups, as soon as the connection has closed.
func (m *ConsumerManager) Closed(conn clientConn) {
	m.mu.Lock()
	told := map[string][]*clientChannel{}
	for group := range m.byConn[conn] {
		told[group] = m.leave(conn, group, m.notifies(group))
	}
	m.mu.Unlock()
	for group, members := range told {
		notifyMembers(group, members)
	}
}

// notifies says whether members of a group want to hear of changes.
func (m *ConsumerManager) notifies(group string) bool {
	c := m.groups.Get(group)
	return c == nil || c.NotifyConsumerIDsChangedEnable
}

// toNotify returns the members of g, or keeps the group for the next round where changes are not to be
// told at once. Called with mu held.
func (m *ConsumerManager) toNotify(g *ConsumerGroupInfo) []*clientChannel {
	if !m.conf().NotifyAtOnce {
		m.pending[g.Group] = struct{}{}
		return nil
	}
	return slices.Collect(maps.Values(g.channels))
}

// flushNotices tells the groups that have waited; every 15 s where changes are not told at once.
func (m *ConsumerManager) flushNotices() {
	m.mu.Lock()
	told := map[string][]*clientChannel{}
	for group := range m.pending {
		if g := m.Find(group); g != nil {
			told[group] = slices.Collect(maps.Values(g.channels))
		}
	}
	clear(m.pending)
	m.mu.Unlock()
	for group, members := range told {
		notifyMembers(group, members)
	}
}

// notifyMembers sends NOTIFY_CONSUMER_IDS_CHANGED.
func notifyMembers(group string, members []*clientChannel) {
	for _, ch := range members {
		req := protocol.NewRequest(protocol.RequestNotifyConsumerIDsChanged)
		req.MarkOneway()
		req.Add("consumerGroup", group)
		_ = ch.Conn.Oneway(req) // who cannot be reached leaves when its connection closes
	}
}

// expire closes the connections of members whose last sign of life is older than channelExpiredTimeout.
func (m *ConsumerManager) expire() {
	oldest := m.clock().Add(-m.conf().ClientExpiry)
	var silent []clientConn
	told := map[string][]*clientChannel{}
	m.mu.Lock()
	m.table.each(func(group string, g *ConsumerGroupInfo) bool {
		for conn, ch := range g.channels {
			if ch.seen.Before(oldest) {
				m.log.Warn("consumer is silent, its connection is closed", "group", group, "client", ch.ClientID, "last", ch.seen)
				silent = append(silent, conn)
				told[group] = m.leave(conn, group, m.notifies(group))
			}
		}
		return true
	})
	m.mu.Unlock()
	for _, conn := range silent {
		_ = conn.Close() // it is gone for us either way
	}
	for group, members := range told {
		notifyMembers(group, members)
	}
}

// Members are the channels of a group, by client id.
func (m *ConsumerManager) Members(group string) []*clientChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.Find(group)
	if g == nil {
		return nil
	}
	return sortedChannels(g.channels)
}

func sortedChannels(channels map[clientConn]*clientChannel) []*clientChannel {
	return slices.SortedFunc(maps.Values(channels), func(a, b *clientChannel) int {
		return compareChannels(a, b)
	})
}

// ClientIDs are the ids of the members of a group, each once.
func (m *ConsumerManager) ClientIDs(group string) []string {
	var ids []string
	for _, ch := range m.Members(group) {
		ids = append(ids, ch.ClientID)
	}
	return slices.Compact(ids)
}

// Member is the channel of one client of a group, nil if it is not online.
func (m *ConsumerManager) Member(group, clientID string) *clientChannel {
	for _, ch := range m.Members(group) {
		if ch.ClientID == clientID {
			return ch
		}
	}
	return nil
}

// GroupsOn lists the groups online that subscribe to a topic.
func (m *ConsumerManager) GroupsOn(topic string) []string {
	var out []string
	m.table.each(func(group string, g *ConsumerGroupInfo) bool {
		if g.Subscription(topic) != nil {
			out = append(out, group)
		}
		return true
	})
	slices.Sort(out)
	return out
}

// each calls f with every group online.
func (m *ConsumerManager) each(f func(g *ConsumerGroupInfo)) {
	m.table.each(func(_ string, g *ConsumerGroupInfo) bool { f(g); return true })
}

// connection is how listings show a channel.
func (c *clientChannel) connection() protocol.Connection {
	return protocol.Connection{ClientID: c.ClientID, ClientAddr: c.Conn.RemoteAddr().String(), Language: c.Language, Version: c.Version}
}
