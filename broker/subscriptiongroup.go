package broker

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// SubscriptionGroupManager is the table of consumer groups
// (org.apache.rocketmq.broker.subscription.SubscriptionGroupManager).
//
// Values that it returns never change. Reading takes no lock. A change returns when it survives the
// machine; a group that is created on the way is saved soon after. Safe for concurrent use.
type SubscriptionGroupManager struct {
	conf  func() *Config
	clock func() time.Time
	state func() int64
	log   *slog.Logger

	table     *shardMap[*groupEntry]
	mu        sync.Mutex // changes
	sorted    []*groupEntry
	forbidden map[string]map[string]int32 // group → topic → bits
	version   protocol.DataVersion
	saver     saver
}

// groupEntry is one group, its text in the file, and what it must not do.
type groupEntry struct {
	config    protocol.SubscriptionGroupConfig
	text      []byte
	forbidden map[string]int32 // topic → bits; never changes
}

const (
	groupsName = "subscriptionGroup"

	// forbidRead is the bit of the forbidden table that keeps a group from reading a topic
	// (PermName.INDEX_PERM_READ).
	forbidRead = 1 << 2
)

func newSubscriptionGroupManager(o *managerOptions) *SubscriptionGroupManager {
	m := &SubscriptionGroupManager{
		conf: o.conf, clock: o.Clock, state: o.StateVersion, log: o.Logger,
		table: newShardMap[*groupEntry](), forbidden: map[string]map[string]int32{},
	}
	m.version = protocol.DataVersion{Timestamp: o.Clock().UnixMilli()}
	m.saver = saver{log: o.Meta, name: groupsName, encode: m.encode}
	return m
}

// groupsFile is subscriptionGroup.json. Groups are decoded over the defaults.
type groupsFile struct {
	DataVersion            protocol.DataVersion                         `json:"dataVersion"`
	ForbiddenTable         map[string]map[string]int32                  `json:"forbiddenTable"`
	SubscriptionGroupTable map[string]*protocol.SubscriptionGroupConfig `json:"subscriptionGroupTable"`
}

// load reads the table and adds the groups that a broker always has.
func (m *SubscriptionGroupManager) load() error {
	err := m.saver.log.Load(groupsName, func(b []byte) error {
		var f groupsFile
		if err := protocol.DecodeBody(b, &f); err != nil {
			return err
		}
		m.version = f.DataVersion
		for group, topics := range f.ForbiddenTable {
			if len(topics) > 0 {
				m.forbidden[group] = topics
			}
		}
		for name, c := range f.SubscriptionGroupTable {
			if c == nil || name == "" {
				continue
			}
			c.GroupName = name
			m.put(c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range systemGroups {
		if m.Get(name) == nil {
			m.change(protocol.NewSubscriptionGroupConfig(name))
		}
	}
	return m.saver.save()
}

// adopt makes the table what a document says that another node has saved.
func (m *SubscriptionGroupManager) adopt(doc []byte) error {
	var f groupsFile
	if err := protocol.DecodeBody(doc, &f); err != nil {
		return err
	}
	m.saver.adopt(&m.mu, func() { m.replace(&f) })
	return nil
}

// replace makes the table what f says, under the lock.
func (m *SubscriptionGroupManager) replace(f *groupsFile) {
	m.forbidden = map[string]map[string]int32{}
	for group, topics := range f.ForbiddenTable {
		if len(topics) > 0 {
			m.forbidden[group] = topics
		}
	}
	for _, e := range slices.Clone(m.sorted) {
		if f.SubscriptionGroupTable[e.config.GroupName] == nil {
			m.remove(e.config.GroupName)
		}
	}
	for name, c := range f.SubscriptionGroupTable {
		if c == nil || name == "" {
			continue
		}
		c.GroupName = name
		m.put(c)
	}
	m.version = f.DataVersion
}

// remove takes a group out, under the lock, and says whether it was there.
func (m *SubscriptionGroupManager) remove(group string) bool {
	had := m.table.remove(group)
	if had {
		i, _ := m.search(group)
		m.sorted = slices.Delete(m.sorted, i, i+1)
	}
	return had
}

// Get finds a group, nil if there is none. It creates nothing.
func (m *SubscriptionGroupManager) Get(group string) *protocol.SubscriptionGroupConfig {
	e, ok := m.table.get(group)
	if !ok {
		return nil
	}
	return &e.config
}

// GetBytes is Get for a name in a buffer, without an allocation. The GroupName of the result is a string
// to keep.
func (m *SubscriptionGroupManager) GetBytes(group []byte) *protocol.SubscriptionGroupConfig {
	e, ok := m.table.getBytes(group)
	if !ok {
		return nil
	}
	return &e.config
}

// Find finds a group, or creates it where autoCreateSubscriptionGroup or its name allows it. nil: there
// is none. It never blocks on the disk.
func (m *SubscriptionGroupManager) Find(group string) *protocol.SubscriptionGroupConfig {
	if c := m.Get(group); c != nil {
		return c
	}
	if !m.conf().AutoCreateGroup && !isSystemGroup(group) || validateGroup(group) != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.Get(group); c != nil {
		return c
	}
	c := protocol.NewSubscriptionGroupConfig(group)
	m.apply(c)
	m.log.Info("consumer group created by a client", "group", group)
	return m.Get(group)
}

// FindBytes is Find for a name in a buffer, without an allocation where the group exists.
func (m *SubscriptionGroupManager) FindBytes(group []byte) *protocol.SubscriptionGroupConfig {
	if c := m.GetBytes(group); c != nil {
		return c
	}
	return m.Find(string(group))
}

// Len is how many groups there are.
func (m *SubscriptionGroupManager) Len() int { return m.table.len() }

// Snapshot lists the groups by name and what they must not do, with the version of the table.
func (m *SubscriptionGroupManager) Snapshot() ([]*protocol.SubscriptionGroupConfig, map[string]map[string]int32, protocol.DataVersion) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*protocol.SubscriptionGroupConfig, len(m.sorted))
	for i, e := range m.sorted {
		all[i] = &e.config
	}
	return all, maps.Clone(m.forbidden), m.version
}

// DataVersion is the version of the table.
func (m *SubscriptionGroupManager) DataVersion() protocol.DataVersion {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// Put adds or replaces groups, which must not be changed afterwards.
func (m *SubscriptionGroupManager) Put(configs ...*protocol.SubscriptionGroupConfig) error {
	for _, c := range configs {
		m.change(c)
	}
	return m.saver.save()
}

// Delete removes a group and what it must not do. It says whether the group was there.
func (m *SubscriptionGroupManager) Delete(group string) (bool, error) {
	m.mu.Lock()
	delete(m.forbidden, group)
	had := m.remove(group)
	if had {
		m.version = m.version.Next(m.state(), m.clock().UnixMilli())
	}
	m.saver.changed() // also of one that is not here: another node may lead by now
	m.mu.Unlock()
	return had, m.saver.save()
}

// Forbidden says whether a group is kept from reading a topic.
func (m *SubscriptionGroupManager) Forbidden(group, topic string) bool {
	e, ok := m.table.get(group)
	return ok && e.forbidden[topic]&forbidRead != 0
}

// ForbiddenBytes is Forbidden for names in buffers, without an allocation.
func (m *SubscriptionGroupManager) ForbiddenBytes(group, topic []byte) bool {
	e, ok := m.table.getBytes(group)
	return ok && e.forbidden[string(topic)]&forbidRead != 0
}

// SetForbidden keeps a group from reading a topic, or lets it. The group must exist.
func (m *SubscriptionGroupManager) SetForbidden(group, topic string, forbidden bool) error {
	m.mu.Lock()
	c := m.Get(group)
	if c == nil {
		m.mu.Unlock()
		return remarkf("No group in this broker. group: %s", group)
	}
	topics := maps.Clone(m.forbidden[group])
	if topics == nil {
		topics = map[string]int32{}
	}
	bits := topics[topic] &^ forbidRead
	if forbidden {
		bits |= forbidRead
	}
	if topics[topic] = bits; bits == 0 {
		delete(topics, topic)
	}
	if m.forbidden[group] = topics; len(topics) == 0 {
		delete(m.forbidden, group)
	}
	m.apply(c)
	m.mu.Unlock()
	return m.saver.save()
}

func (m *SubscriptionGroupManager) change(c *protocol.SubscriptionGroupConfig) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.apply(c)
}

// apply is change under the lock.
func (m *SubscriptionGroupManager) apply(c *protocol.SubscriptionGroupConfig) {
	m.version = m.version.Next(m.state(), m.clock().UnixMilli())
	m.put(c)
	m.saver.changed()
}

func (m *SubscriptionGroupManager) put(c *protocol.SubscriptionGroupConfig) {
	e := &groupEntry{config: *c, text: protocol.EncodeBody(c), forbidden: m.forbidden[c.GroupName]}
	m.table.update(c.GroupName, func(*groupEntry, bool) (*groupEntry, bool) { return e, true })
	i, found := m.search(c.GroupName)
	if found {
		m.sorted[i] = e
		return
	}
	m.sorted = slices.Insert(m.sorted, i, e)
}

func (m *SubscriptionGroupManager) search(group string) (int, bool) {
	return slices.BinarySearchFunc(m.sorted, group, func(e *groupEntry, name string) int { return strings.Compare(e.config.GroupName, name) })
}

// appendTable appends the part of the table that cut chooses, as GET_ALL_SUBSCRIPTIONGROUP_CONFIG shows
// it, and says how many groups there are.
func (m *SubscriptionGroupManager) appendTable(dst []byte, cut func(total int) (from, to int)) ([]byte, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, to := cut(len(m.sorted))
	dst = protocol.AppendBody(append(dst, `{"dataVersion":`...), m.version)
	dst = protocol.AppendBody(append(dst, `,"forbiddenTable":`...), m.forbidden)
	dst = append(dst, `,"subscriptionGroupTable":{`...)
	for i, e := range m.sorted[from:to] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(appendJSONString(dst, e.config.GroupName), ':'), e.text...)
	}
	return append(dst, "}}"...), len(m.sorted)
}

// encode writes the whole table, one group a line.
func (m *SubscriptionGroupManager) encode() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := newTableFile(m.version, "forbiddenTable", 512*len(m.sorted))
	for _, group := range slices.Sorted(maps.Keys(m.forbidden)) {
		f.add(group, protocol.EncodeBody(m.forbidden[group]))
	}
	f.endTable()
	f.table("subscriptionGroupTable")
	for _, e := range m.sorted {
		f.add(e.config.GroupName, e.text)
	}
	return f.end()
}
