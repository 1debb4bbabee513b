package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// ErrTopicNotExist says that there is no such topic, and that it may not be created on the way.
var ErrTopicNotExist = errors.New("topic does not exist")

// TopicConfigManager is the table of topics (org.apache.rocketmq.broker.topic.TopicConfigManager).
//
// Values that it returns never change: a change of a topic puts a new one in its place. Reading takes
// no lock. A change returns when it survives the machine and OnChange has seen it; changes that come
// together share a write. Safe for concurrent use.
type TopicConfigManager struct {
	conf     func() *Config
	clock    func() time.Time
	state    func() int64
	log      *slog.Logger
	onChange atomic.Pointer[func(ctx context.Context, changed []*protocol.TopicConfig)]

	table    *shardMap[*topicEntry]
	mu       sync.Mutex // changes
	sorted   []*topicEntry
	version  protocol.DataVersion
	saver    saver
	creating sync.Mutex // one automatic creation at a time decides
	dynamic  []string   // system topics named after this broker
}

// topicEntry is one topic, and its text in the file.
type topicEntry struct {
	config protocol.TopicConfig
	text   []byte
}

const topicsName = "topics"

func newTopicConfigManager(o *managerOptions) *TopicConfigManager {
	m := &TopicConfigManager{conf: o.conf, clock: o.Clock, state: o.StateVersion, log: o.Logger, table: newShardMap[*topicEntry]()}
	m.version = protocol.DataVersion{Timestamp: o.Clock().UnixMilli()}
	m.saver = saver{log: o.Meta, name: topicsName, encode: m.encode}
	return m
}

// topicsFile is topics.json.
type topicsFile struct {
	DataVersion      protocol.DataVersion             `json:"dataVersion"`
	TopicConfigTable map[string]*protocol.TopicConfig `json:"topicConfigTable"`
}

// load reads the table and adds the topics that a broker always has.
func (m *TopicConfigManager) load() error {
	err := m.saver.log.Load(topicsName, func(b []byte) error {
		var f topicsFile
		if err := protocol.DecodeBody(b, &f); err != nil {
			return err
		}
		m.version = f.DataVersion
		for name, c := range f.TopicConfigTable {
			if c == nil || name == "" {
				continue
			}
			c.TopicName = name
			m.put(c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.addSystemTopics()
	return m.saver.save()
}

// adopt makes the table what a document says that another node has saved, and says whether that is
// another one. Topics that it does not have go; what the store has of them stays.
func (m *TopicConfigManager) adopt(doc []byte) (changed bool, err error) {
	var f topicsFile
	if err := protocol.DecodeBody(doc, &f); err != nil {
		return false, err
	}
	m.saver.adopt(&m.mu, func() { changed = m.replace(&f) })
	return changed, nil
}

// replace makes the table what f says, under the lock, and says whether that is another one.
func (m *TopicConfigManager) replace(f *topicsFile) (changed bool) {
	changed = m.version != f.DataVersion
	for _, e := range slices.Clone(m.sorted) {
		if f.TopicConfigTable[e.config.TopicName] == nil {
			m.remove(e.config.TopicName)
			changed = true
		}
	}
	for name, c := range f.TopicConfigTable {
		if c == nil || name == "" {
			continue
		}
		c.TopicName = name
		if old := m.Get(name); old == nil || !sameTopic(old, c) {
			m.put(c)
			changed = true
		}
	}
	m.version = f.DataVersion
	return changed
}

// remove takes a topic out, under the lock, and says whether it was there.
func (m *TopicConfigManager) remove(topic string) bool {
	had := m.table.remove(topic)
	if had {
		i, _ := m.search(topic)
		m.sorted = slices.Delete(m.sorted, i, i+1)
	}
	return had
}

// addSystemTopics gives the broker its own topics, with the queues that they have in Apache. A topic
// that is there already stays as it is.
func (m *TopicConfigManager) addSystemTopics() {
	c := m.conf()
	inherit := func(on bool) int32 {
		if on {
			return protocol.PermInherit | protocol.PermRead | protocol.PermWrite
		}
		return protocol.PermInherit
	}
	const rw = protocol.PermRead | protocol.PermWrite
	for _, t := range []struct {
		name   string
		queues int32
		perm   int32
		absent bool
	}{
		{topicSelfTest, 1, rw, false},
		{topicAutoCreate, int32(c.DefaultTopicQueueNums), protocol.PermInherit | rw, !c.AutoCreateTopic},
		{topicBenchmark, 1024, rw, false},
		{c.BrokerClusterName, 16, inherit(c.ClusterTopic), false},
		{c.BrokerName, 1, inherit(c.BrokerTopic), false},
		{topicOffsetMoved, 1, rw, false},
		{message.TopicSchedule, 18, rw, false},
		{c.TraceTopicName, 1, rw, !c.TraceTopic},
		{c.BrokerClusterName + "_REPLY_TOPIC", 1, rw, false},
		{systemTopicPrefix + "REVIVE_LOG_" + c.BrokerClusterName, 8, rw, false},
		{systemTopicPrefix + "SYNC_BROKER_MEMBER_" + c.BrokerName, 1, protocol.PermInherit, false},
		{topicTransHalf, 1, rw, false},
		{topicTransOp, 1, rw, false},
		{topicWheelTimer, 1, rw, false},
	} {
		if t.absent {
			continue
		}
		if !m.IsSystem(t.name) {
			m.dynamic = append(m.dynamic, t.name)
		}
		if m.Get(t.name) == nil {
			m.mu.Lock()
			m.apply(newTopicConfig(t.name, t.queues, t.perm))
			m.mu.Unlock()
		}
	}
}

// newTopicConfig is a topic with as many queues to read as to write.
func newTopicConfig(name string, queues, perm int32) *protocol.TopicConfig {
	return &protocol.TopicConfig{
		TopicName: name, ReadQueueNums: queues, WriteQueueNums: queues, Perm: perm,
		TopicFilterType: "SINGLE_TAG", Attributes: map[string]string{},
	}
}

// OnChange sets the func that hears of topics that were added or changed, after they were saved and
// before the change returns. It may block. changed is nil when the table as a whole is another one: a topic
// was removed, or the permission of the broker has changed.
func (m *TopicConfigManager) OnChange(f func(ctx context.Context, changed []*protocol.TopicConfig)) {
	m.onChange.Store(&f)
}

// Get finds a topic, nil if there is none.
func (m *TopicConfigManager) Get(topic string) *protocol.TopicConfig {
	e, ok := m.table.get(topic)
	if !ok {
		return nil
	}
	return &e.config
}

// GetBytes is Get for a name in a buffer, without an allocation. The TopicName of the result is a string
// to keep.
func (m *TopicConfigManager) GetBytes(topic []byte) *protocol.TopicConfig {
	e, ok := m.table.getBytes(topic)
	if !ok {
		return nil
	}
	return &e.config
}

// Len is how many topics there are.
func (m *TopicConfigManager) Len() int { return m.table.len() }

// All lists the topics by name.
func (m *TopicConfigManager) All() []*protocol.TopicConfig {
	all, _ := m.Snapshot()
	return all
}

// Snapshot lists the topics by name together with the version of the table.
func (m *TopicConfigManager) Snapshot() ([]*protocol.TopicConfig, protocol.DataVersion) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*protocol.TopicConfig, len(m.sorted))
	for i, e := range m.sorted {
		all[i] = &e.config
	}
	return all, m.version
}

// DataVersion is the version of the table.
func (m *TopicConfigManager) DataVersion() protocol.DataVersion {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// BumpVersion makes a new version without a change of a topic: what is registered of all topics has
// changed, as by brokerPermission.
func (m *TopicConfigManager) BumpVersion(ctx context.Context) error {
	m.bump()
	return m.publish(ctx)
}

// bump is BumpVersion without the disk.
func (m *TopicConfigManager) bump() {
	m.renew()
	m.saver.changed()
}

// renew makes a new version that name servers hear of and nobody saves: the next epoch has a later one anyway.
func (m *TopicConfigManager) renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = m.version.Next(m.state(), m.clock().UnixMilli())
}

// IsSystem says whether a topic belongs to the broker: it is not to be changed or deleted by clients.
func (m *TopicConfigManager) IsSystem(topic string) bool {
	return strings.HasPrefix(topic, systemTopicPrefix) || slices.Contains(fixedSystemTopics, topic) || slices.Contains(m.dynamic, topic)
}

// SystemTopics lists the names of system topics, those that a client could not guess included.
func (m *TopicConfigManager) SystemTopics() []string {
	out := slices.Concat(fixedSystemTopics, m.dynamic)
	for _, c := range m.All() {
		if m.IsSystem(c.TopicName) {
			out = append(out, c.TopicName)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CreateOnSend creates the topic that a producer has sent to, after the template that it named, with
// as many queues as it asked for but not more than the template has. It returns the topic if somebody
// else was faster.
//
// Errors: [ErrTopicNotExist] when the template is not there or does not allow it; a remark for a bad
// name; that of the save: the topic is there then, but may not survive a restart. It blocks on the disk.
func (m *TopicConfigManager) CreateOnSend(ctx context.Context, topic, defaultTopic string, clientQueueNums int32, unit bool) (*protocol.TopicConfig, error) {
	c, created, err := m.createOnSend(topic, defaultTopic, clientQueueNums, unit)
	switch {
	case err != nil:
		return nil, err
	case !created:
		return c, unlessStored(m.saver.save()) // whoever was faster may still be at it
	}
	return c, unlessStored(m.publish(ctx, c))
}

// unlessStored leaves it to the message that a topic was created for to say what other nodes lack.
func unlessStored(err error) error {
	if stored(err) {
		return nil
	}
	return err
}

// createOnSend is CreateOnSend without the disk, and says whether there is something to publish.
func (m *TopicConfigManager) createOnSend(topic, defaultTopic string, clientQueueNums int32, unit bool) (c *protocol.TopicConfig, created bool, err error) {
	if err := validateTopic(topic); err != nil {
		return nil, false, err
	}
	m.creating.Lock()
	defer m.creating.Unlock()
	if c = m.Get(topic); c != nil {
		return c, false, nil
	}
	if c = m.fromTemplate(topic, defaultTopic, clientQueueNums, unit); c == nil {
		return nil, false, fmt.Errorf("%w: %s, create it, or let %s allow it (autoCreateTopicEnable=true)", ErrTopicNotExist, topic, defaultTopic)
	}
	m.change(c)
	m.log.Info("topic created by a message", "topic", topic, "template", defaultTopic, "queues", c.WriteQueueNums)
	return c, true, nil
}

// topicWish is a topic that a message wants created.
type topicWish struct {
	topic, defaultTopic string
	clientQueueNums     int32
	unit                bool
}

// createAllOnSend creates those of many topics that may be created, with one write and one registration
// for all. What went wrong, CreateOnSend of that topic tells.
func (m *TopicConfigManager) createAllOnSend(ctx context.Context, wishes []topicWish) {
	var all []*protocol.TopicConfig
	for _, w := range wishes {
		if c, created, err := m.createOnSend(w.topic, w.defaultTopic, w.clientQueueNums, w.unit); err == nil && created {
			all = append(all, c)
		}
	}
	if len(all) > 0 {
		_ = m.publish(ctx, all...) // it is in the log, and comes again with the message
	}
}

func (m *TopicConfigManager) fromTemplate(topic, defaultTopic string, clientQueueNums int32, unit bool) *protocol.TopicConfig {
	template := m.Get(defaultTopic)
	if template == nil || template.Perm&protocol.PermInherit == 0 || defaultTopic == topicAutoCreate && !m.conf().AutoCreateTopic {
		return nil
	}
	c := newTopicConfig(topic, max(0, min(clientQueueNums, template.WriteQueueNums)), template.Perm&^protocol.PermInherit)
	c.TopicFilterType = template.TopicFilterType
	if unit {
		c.TopicSysFlag = topicFlagUnit
	}
	return c
}

// CreateInternal creates a topic that clients need but do not ask for: the retry and the dead-letter
// topics of a group. One that is there keeps its queues, but becomes ordered when order says so and it
// was not. Errors and blocking as of CreateOnSend.
func (m *TopicConfigManager) CreateInternal(ctx context.Context, topic string, queues, perm int32, order bool, sysFlag int32) (*protocol.TopicConfig, error) {
	m.creating.Lock()
	c := m.Get(topic)
	if c != nil && (c.Order == order || !order) {
		m.creating.Unlock()
		return c, nil
	}
	if c == nil {
		c = newTopicConfig(topic, queues, perm)
		c.TopicSysFlag = sysFlag
	} else {
		changed := *c
		c = &changed
	}
	c.Order = order
	m.change(c)
	m.creating.Unlock()
	return c, unlessStored(m.publish(ctx, c))
}

// CreateRetry creates the retry topic of a group.
func (m *TopicConfigManager) CreateRetry(ctx context.Context, group string, queues int32, order, unit bool) (*protocol.TopicConfig, error) {
	var flag int32
	if unit {
		flag = topicFlagUnitSub
	}
	return m.CreateInternal(ctx, retryPrefix+group, queues, protocol.PermRead|protocol.PermWrite, order, flag)
}

// CreateDLQ creates the dead-letter topic of a group.
func (m *TopicConfigManager) CreateDLQ(ctx context.Context, group string) (*protocol.TopicConfig, error) {
	return m.CreateInternal(ctx, dlqPrefix+group, 1, protocol.PermRead|protocol.PermWrite, false, 0)
}

// Put adds or replaces topics, which must not be changed afterwards. Topics that are as they were are
// left alone, and if all are, nothing happens.
func (m *TopicConfigManager) Put(ctx context.Context, configs ...*protocol.TopicConfig) error {
	var changed []*protocol.TopicConfig
	for _, c := range configs {
		if old := m.Get(c.TopicName); old == nil || !sameTopic(old, c) {
			m.change(c)
			changed = append(changed, c)
		}
	}
	if len(changed) == 0 {
		return m.saver.save() // an earlier one may have failed
	}
	return m.publish(ctx, changed...)
}

// ApplyOrder makes those topics ordered that a name server's order configuration names, and only those.
func (m *TopicConfigManager) ApplyOrder(ctx context.Context, table map[string]string) {
	var changed []*protocol.TopicConfig
	for _, c := range m.All() {
		if _, order := table[c.TopicName]; order != c.Order {
			next := *c
			next.Order = order
			changed = append(changed, &next)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel() // the registrar asks for this: it must not wait for itself
	if err := m.Put(ctx, changed...); err != nil {
		m.log.Error("order of topics is not saved; it will be tried again", "err", err)
	}
}

// Delete removes a topic, and says whether it was there.
func (m *TopicConfigManager) Delete(ctx context.Context, topic string) (bool, error) {
	m.mu.Lock()
	had := m.remove(topic)
	if had {
		m.version = m.version.Next(m.state(), m.clock().UnixMilli())
	}
	m.saver.changed() // also of one that is not here: an earlier deletion may have failed, and another node may lead by now
	m.mu.Unlock()
	if !had {
		return false, m.saver.save()
	}
	return true, m.publish(ctx)
}

// change makes c visible and gives the table a new version.
func (m *TopicConfigManager) change(c *protocol.TopicConfig) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.apply(c)
}

// apply is change under the lock.
func (m *TopicConfigManager) apply(c *protocol.TopicConfig) {
	m.version = m.version.Next(m.state(), m.clock().UnixMilli())
	m.put(c)
	m.saver.changed()
}

func (m *TopicConfigManager) put(c *protocol.TopicConfig) {
	e := &topicEntry{config: *c, text: protocol.EncodeBody(c)}
	m.table.update(c.TopicName, func(*topicEntry, bool) (*topicEntry, bool) { return e, true })
	i, found := m.search(c.TopicName)
	if found {
		m.sorted[i] = e
		return
	}
	m.sorted = slices.Insert(m.sorted, i, e)
}

func (m *TopicConfigManager) search(topic string) (int, bool) {
	return slices.BinarySearchFunc(m.sorted, topic, func(e *topicEntry, name string) int { return strings.Compare(e.config.TopicName, name) })
}

// publish saves what was changed and tells the listener. The listener hears of it also when the disk
// has failed, since the change is in force.
func (m *TopicConfigManager) publish(ctx context.Context, changed ...*protocol.TopicConfig) error {
	err := m.saver.save()
	if err != nil {
		m.log.Log(ctx, savingLevel(err), "topics are not saved everywhere; it will be tried again", "err", err)
	}
	if f := m.onChange.Load(); f != nil {
		(*f)(ctx, changed)
	}
	return err
}

// appendTable appends the part of the table that cut chooses, as GET_ALL_TOPIC_CONFIG shows it, and says
// how many topics there are.
func (m *TopicConfigManager) appendTable(dst []byte, cut func(total int) (from, to int)) ([]byte, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, to := cut(len(m.sorted))
	version := protocol.EncodeBody(m.version)
	dst = append(append(dst, `{"dataVersion":`...), version...)
	dst = append(append(dst, `,"mappingDataVersion":`...), version...)
	dst = append(dst, `,"topicConfigTable":{`...)
	for i, e := range m.sorted[from:to] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(appendJSONString(dst, e.config.TopicName), ':'), e.text...)
	}
	return append(dst, `},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}`...), len(m.sorted)
}

// encode writes the whole table, one topic a line.
func (m *TopicConfigManager) encode() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := newTableFile(m.version, "topicConfigTable", 256*len(m.sorted))
	for _, e := range m.sorted {
		f.add(e.config.TopicName, e.text)
	}
	return f.end()
}

// sameTopic says whether two topics differ in nothing.
func sameTopic(a, b *protocol.TopicConfig) bool {
	return string(protocol.EncodeBody(a)) == string(protocol.EncodeBody(b))
}
