package namesrv

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// DefaultBrokerTimeout is how long a broker that says nothing counts as alive, unless it asked for
// another time.
const DefaultBrokerTimeout = 120 * time.Second

// ErrPartialRegistration refuses a broker that is not known and brings a single topic: it must send all
// of its topics first. It does not happen to a broker that registers in full whenever it connects.
var ErrPartialRegistration = errors.New("register broker failed: the broker is not known here and sent one topic only, send all topics first")

// RouteInfoManager knows which brokers there are and which topics they have. Nothing of it is stored:
// brokers say it again (org.apache.rocketmq.namesrv.routeinfo.RouteInfoManager).
//
// A broker name stands for a master (id 0) and its slaves. Queues of a topic belong to the name. They
// are what the master registers, or the slave with the lowest id where there is no master; then
// without the permission to write.
//
// Safe for concurrent use. What it returns is a copy or does not change any more.
type RouteInfoManager struct {
	log *slog.Logger
	now func() time.Time

	mu       sync.RWMutex
	topics   map[string]map[string]protocol.QueueData // by topic and broker name
	brokers  map[string]*protocol.BrokerData          // by broker name; each has an address
	clusters map[string]map[string]struct{}           // broker names by cluster; each is in brokers
	live     map[brokerKey]*liveBroker
	notes    []note // for the log, once mu is free: a log may block
}

type note struct {
	level slog.Level
	text  string
	args  []any
}

// brokerKey is one process. Two that were given one address by mistake have different names.
type brokerKey struct{ name, addr string }

// liveBroker is one process that registered.
type liveBroker struct {
	owner   any // the connection that it was heard on last
	seen    time.Time
	timeout time.Duration
	version protocol.DataVersion
	haAddr  string
}

// Registration is what a broker says of itself (REGISTER_BROKER).
type Registration struct {
	Cluster, Name string
	ID            int64  // 0: the master
	Addr, HAAddr  string // ip:port for clients, for slaves
	Zone          string
	Timeout       time.Duration // 0: DefaultBrokerTimeout
	ActingMaster  *bool         // nil: a broker that knows nothing of it; those before 5.0
	Topics        *protocol.TopicConfigWrapper
	Exhaustive    bool // topics that are not named are gone
	Owner         any  // the connection; comparable. When it closes the broker is gone
}

// Master is what a slave learns when it registers, empty where there is no master.
type Master struct{ Addr, HAAddr string }

// Gone is a broker that is not there any more.
type Gone struct {
	Name, Addr string
	Owner      any
}

// NewRouteInfoManager makes an empty one. now is the clock; expiry is counted in its monotonic time.
func NewRouteInfoManager(log *slog.Logger, now func() time.Time) *RouteInfoManager {
	return &RouteInfoManager{
		log: log, now: now,
		topics: map[string]map[string]protocol.QueueData{}, brokers: map[string]*protocol.BrokerData{},
		clusters: map[string]map[string]struct{}{}, live: map[brokerKey]*liveBroker{},
	}
}

func (m *RouteInfoManager) note(level slog.Level, text string, args ...any) {
	m.notes = append(m.notes, note{level, text, args})
}

// unlock frees mu after a change and logs what there is to say about it.
func (m *RouteInfoManager) unlock() {
	notes := m.notes
	m.notes = nil
	m.mu.Unlock()
	for _, n := range notes {
		m.log.Log(context.Background(), n.level, n.text, n.args...)
	}
}

// Register takes in a broker, or what is new of one that is known.
//
// Of two live brokers with one name and id the one whose data version has the higher StateVersion
// stays: a newcomer with a lower one is ignored, and not told so. With equal ones the newcomer takes
// the place. The only error is [ErrPartialRegistration].
func (m *RouteInfoManager) Register(r *Registration) (Master, error) {
	m.mu.Lock()
	defer m.unlock()
	key := brokerKey{r.Name, r.Addr}
	b := m.brokers[r.Name]
	if incumbent := m.incumbent(r, b); incumbent != nil && incumbent.version.StateVersion > r.Topics.DataVersion.StateVersion {
		m.note(slog.LevelWarn, "broker ignored: another one with its name and id is in a later state", "broker", r.Name, "id", r.ID, "addr", r.Addr,
			"state", r.Topics.DataVersion.StateVersion, "other", b.BrokerAddrs[r.ID], "otherState", incumbent.version.StateVersion)
		delete(m.live, key)
		m.drop(key) // under another id, from before
		return Master{}, nil
	}
	known := b != nil && b.BrokerAddrs[r.ID] != ""
	if !known && len(r.Topics.TopicConfigTable) == 1 {
		return Master{}, ErrPartialRegistration
	}
	b = m.place(r, b)

	before := m.live[key]
	changed := !known || before == nil || before.version != r.Topics.DataVersion
	if r.ID == 0 || r.ActingMaster != nil && r.ID == lowest(b.BrokerAddrs) {
		m.applyTopics(r, changed)
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = DefaultBrokerTimeout
	}
	m.live[key] = &liveBroker{r.Owner, m.now(), timeout, r.Topics.DataVersion, r.HAAddr}
	if before == nil {
		m.note(slog.LevelInfo, "broker registered", "broker", r.Name, "id", r.ID, "addr", r.Addr, "cluster", r.Cluster, "topics", len(r.Topics.TopicConfigTable))
	}
	if r.ID == 0 {
		return Master{}, nil
	}
	if master := m.live[brokerKey{r.Name, b.BrokerAddrs[0]}]; master != nil {
		return Master{b.BrokerAddrs[0], master.haAddr}, nil
	}
	return Master{}, nil
}

// incumbent is the live broker that has the name and id of r at another address.
func (m *RouteInfoManager) incumbent(r *Registration, b *protocol.BrokerData) *liveBroker {
	if b == nil || b.BrokerAddrs[r.ID] == r.Addr {
		return nil
	}
	return m.live[brokerKey{r.Name, b.BrokerAddrs[r.ID]}]
}

// place puts the address of r under its name, id and cluster, and takes it away from any other id.
func (m *RouteInfoManager) place(r *Registration, b *protocol.BrokerData) *protocol.BrokerData {
	next := &protocol.BrokerData{Cluster: r.Cluster, BrokerName: r.Name, BrokerAddrs: map[int64]string{}, ZoneName: r.Zone}
	if r.ActingMaster != nil {
		next.EnableActingMaster = *r.ActingMaster
	}
	if b != nil {
		for id, addr := range b.BrokerAddrs {
			if addr != r.Addr {
				next.BrokerAddrs[id] = addr
			}
		}
		if other := next.BrokerAddrs[r.ID]; other != "" {
			m.note(slog.LevelWarn, "broker takes the place of another one", "broker", r.Name, "id", r.ID, "addr", r.Addr, "other", other)
		}
		if b.Cluster != r.Cluster {
			m.leaveCluster(b.Cluster, r.Name)
		}
	}
	next.BrokerAddrs[r.ID] = r.Addr
	m.brokers[r.Name] = next
	if m.clusters[r.Cluster] == nil {
		m.clusters[r.Cluster] = map[string]struct{}{}
	}
	m.clusters[r.Cluster][r.Name] = struct{}{}
	return next
}

func (m *RouteInfoManager) leaveCluster(cluster, name string) {
	delete(m.clusters[cluster], name)
	if len(m.clusters[cluster]) == 0 {
		delete(m.clusters, cluster)
	}
}

// applyTopics writes the topics of r down; those that have the broker already only when changed.
func (m *RouteInfoManager) applyTopics(r *Registration, changed bool) {
	table := r.Topics.TopicConfigTable
	if r.Exhaustive && len(table) != 1 { // a single one is news, not the whole
		for topic, queues := range m.topics {
			if _, ok := queues[r.Name]; ok && table[topic] == nil {
				m.removeQueues(topic, r.Name)
			}
		}
	}
	for topic, t := range table {
		if t == nil {
			continue
		}
		queues := m.topics[topic]
		if _, ok := queues[r.Name]; ok && !changed {
			continue
		}
		perm := t.Perm
		if r.ID != 0 {
			perm &^= protocol.PermWrite
		}
		if queues == nil {
			queues = map[string]protocol.QueueData{}
			m.topics[topic] = queues
		}
		queues[r.Name] = protocol.QueueData{
			BrokerName: r.Name, ReadQueueNums: t.ReadQueueNums, WriteQueueNums: t.WriteQueueNums, Perm: perm, TopicSysFlag: t.TopicSysFlag,
		}
	}
}

func (m *RouteInfoManager) removeQueues(topic, name string) {
	delete(m.topics[topic], name)
	if len(m.topics[topic]) == 0 {
		delete(m.topics, topic)
	}
}

func lowest(addrs map[int64]string) int64 {
	return slices.Min(slices.Collect(maps.Keys(addrs)))
}

// Unregister forgets a broker that says that it goes.
func (m *RouteInfoManager) Unregister(name, addr string) {
	m.mu.Lock()
	defer m.unlock()
	m.remove(brokerKey{name, addr}, "it said so")
}

// OwnerClosed forgets the brokers that were heard on a connection last, and says which.
func (m *RouteInfoManager) OwnerClosed(owner any) []Gone {
	return m.removeWhere("its connection closed", func(b *liveBroker) bool { return b.owner == owner })
}

// Expire forgets the brokers that have been silent for longer than they may, and says which.
func (m *RouteInfoManager) Expire() []Gone {
	now := m.now()
	return m.removeWhere("it was silent for too long", func(b *liveBroker) bool { return now.Sub(b.seen) > b.timeout })
}

func (m *RouteInfoManager) removeWhere(why string, is func(*liveBroker) bool) []Gone {
	m.mu.Lock()
	defer m.unlock()
	var gone []Gone
	for key, b := range m.live {
		if is(b) {
			gone = append(gone, Gone{key.name, key.addr, b.owner})
		}
	}
	for _, g := range gone {
		m.remove(brokerKey{g.Name, g.Addr}, why)
	}
	return gone
}

func (m *RouteInfoManager) remove(key brokerKey, why string) {
	delete(m.live, key)
	if m.drop(key) {
		m.note(slog.LevelInfo, "broker gone", "broker", key.name, "addr", key.addr, "why", why)
	}
}

// drop takes an address out of its broker name, and the name with all its queues when it was the last.
func (m *RouteInfoManager) drop(key brokerKey) bool {
	b := m.brokers[key.name]
	if b == nil {
		return false
	}
	next := *b
	next.BrokerAddrs = maps.Clone(b.BrokerAddrs)
	maps.DeleteFunc(next.BrokerAddrs, func(_ int64, addr string) bool { return addr == key.addr })
	if len(next.BrokerAddrs) == len(b.BrokerAddrs) {
		return false
	}
	if len(next.BrokerAddrs) > 0 {
		m.brokers[key.name] = &next
		return true
	}
	delete(m.brokers, key.name)
	m.leaveCluster(b.Cluster, key.name)
	for topic, queues := range m.topics {
		if _, ok := queues[key.name]; ok {
			m.removeQueues(topic, key.name)
		}
	}
	return true
}

// Heartbeat says that a broker lives and is heard on owner. It changes nothing for one that is not
// known.
func (m *RouteInfoManager) Heartbeat(name, addr string, owner any) {
	m.mu.Lock()
	defer m.unlock()
	m.touch(name, addr, owner)
}

func (m *RouteInfoManager) touch(name, addr string, owner any) *liveBroker {
	b := m.live[brokerKey{name, addr}]
	if b != nil {
		b.seen, b.owner = m.now(), owner
	}
	return b
}

// DataVersion is a [RouteInfoManager.Heartbeat] that also gives the version of the topics that the
// broker registered last. ok is false for one that is not known.
func (m *RouteInfoManager) DataVersion(name, addr string, owner any) (v protocol.DataVersion, ok bool) {
	m.mu.Lock()
	defer m.unlock()
	if b := m.touch(name, addr, owner); b != nil {
		return b.version, true
	}
	return v, false
}

// WipeWritePerm takes the permission to write from all topics of a broker name and counts them. It
// lasts until the broker registers changed topics.
func (m *RouteInfoManager) WipeWritePerm(name string) int {
	return m.setPerm(name, func(perm int32) int32 { return perm &^ protocol.PermWrite })
}

// AddWritePerm makes all topics of a broker name readable and writable, nothing else, and counts
// them.
func (m *RouteInfoManager) AddWritePerm(name string) int {
	return m.setPerm(name, func(int32) int32 { return protocol.PermRead | protocol.PermWrite })
}

func (m *RouteInfoManager) setPerm(name string, perm func(int32) int32) int {
	m.mu.Lock()
	defer m.unlock()
	n := 0
	for _, queues := range m.topics {
		if q, ok := queues[name]; ok {
			q.Perm = perm(q.Perm)
			queues[name] = q
			n++
		}
	}
	return n
}

// RegisterTopic adds queues of a topic. Those of broker names that are not known are left out.
func (m *RouteInfoManager) RegisterTopic(topic string, queues []protocol.QueueData) {
	m.mu.Lock()
	defer m.unlock()
	for _, q := range queues {
		if m.brokers[q.BrokerName] == nil {
			m.note(slog.LevelWarn, "queues of an unknown broker left out", "topic", topic, "broker", q.BrokerName)
			continue
		}
		if m.topics[topic] == nil {
			m.topics[topic] = map[string]protocol.QueueData{}
		}
		m.topics[topic][q.BrokerName] = q
	}
}

// DeleteTopic removes a topic, or where cluster is not "" only from the brokers of that cluster.
func (m *RouteInfoManager) DeleteTopic(topic, cluster string) {
	m.mu.Lock()
	defer m.unlock()
	if cluster == "" {
		delete(m.topics, topic)
		return
	}
	for name := range m.clusters[cluster] {
		m.removeQueues(topic, name)
	}
}
