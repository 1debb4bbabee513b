package broker

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// ProducerManager knows the producers that are online (org.apache.rocketmq.broker.client.ProducerManager).
// Members leave as those of a ConsumerManager do. Safe for concurrent use.
type ProducerManager struct {
	conf  func() *Config
	clock func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	groups map[string]map[clientConn]*clientChannel
	byConn map[clientConn]map[string]struct{}
	turn   int // of Pick
}

func newProducerManager(o *managerOptions) *ProducerManager {
	return &ProducerManager{
		conf: o.conf, clock: o.Clock, log: o.Logger,
		groups: map[string]map[clientConn]*clientChannel{}, byConn: map[clientConn]map[string]struct{}{},
	}
}

// Register notes a heartbeat of a member.
func (m *ProducerManager) Register(ch clientChannel, group string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch.seen = m.clock()
	g := m.groups[group]
	if g == nil {
		g = map[clientConn]*clientChannel{}
		m.groups[group] = g
	}
	if g[ch.Conn] == nil {
		m.log.Info("producer connected", "group", group, "client", ch.ClientID, "addr", ch.Conn.RemoteAddr())
		if m.byConn[ch.Conn] == nil {
			m.byConn[ch.Conn] = map[string]struct{}{}
		}
		m.byConn[ch.Conn][group] = struct{}{}
	}
	g[ch.Conn] = &ch
}

// Unregister takes one member out of a group.
func (m *ProducerManager) Unregister(conn clientConn, group string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave(conn, group)
}

func (m *ProducerManager) leave(conn clientConn, group string) {
	g := m.groups[group]
	if g[conn] == nil {
		return
	}
	m.log.Info("producer left", "group", group, "client", g[conn].ClientID, "addr", conn.RemoteAddr())
	if delete(g, conn); len(g) == 0 {
		delete(m.groups, group)
	}
	if delete(m.byConn[conn], group); len(m.byConn[conn]) == 0 {
		delete(m.byConn, conn)
	}
}

// Closed takes the client of a connection out of all its groups.
func (m *ProducerManager) Closed(conn clientConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for group := range m.byConn[conn] {
		m.leave(conn, group)
	}
}

// expire closes the connections of members whose last sign of life is older than channelExpiredTimeout.
func (m *ProducerManager) expire() {
	oldest := m.clock().Add(-m.conf().ClientExpiry)
	var silent []clientConn
	m.mu.Lock()
	for group, g := range m.groups {
		for conn, ch := range g {
			if ch.seen.Before(oldest) {
				m.log.Warn("producer is silent, its connection is closed", "group", group, "client", ch.ClientID, "last", ch.seen)
				silent = append(silent, conn)
				m.leave(conn, group)
			}
		}
	}
	m.mu.Unlock()
	for _, conn := range silent {
		_ = conn.Close() // it is gone for us either way
	}
}

// Members are the channels of a group, by client id.
func (m *ProducerManager) Members(group string) []*clientChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sortedChannels(m.groups[group])
}

// Groups lists the groups with members online.
func (m *ProducerManager) Groups() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.groups))
}

// Pick is any member of a group, each in turn; nil if none is online. For requests that any producer of
// the group can answer, such as the check of a transaction.
func (m *ProducerManager) Pick(group string) *clientChannel {
	all := m.Members(group)
	if len(all) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn++
	return all[m.turn%len(all)]
}

func compareChannels(a, b *clientChannel) int {
	return cmp.Or(strings.Compare(a.ClientID, b.ClientID), a.Conn.RemoteAddr().Compare(b.Conn.RemoteAddr()))
}
