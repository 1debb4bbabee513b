package namesrv

import (
	"maps"
	"slices"

	"rmq/remoting/protocol"
)

// Bits of a topic's system flag.
const (
	flagUnit    = 1
	flagUnitSub = 2
)

// Route says which brokers have a topic, sorted by name. ok is false when none has.
func (m *RouteInfoManager) Route(topic string) (r protocol.TopicRouteData, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	queues := m.topics[topic]
	if len(queues) == 0 {
		return r, false
	}
	r = protocol.TopicRouteData{
		QueueDatas: make([]protocol.QueueData, 0, len(queues)), BrokerDatas: make([]protocol.BrokerData, 0, len(queues)),
		FilterServerTable: map[string][]string{},
	}
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		r.QueueDatas = append(r.QueueDatas, queues[name])
		r.BrokerDatas = append(r.BrokerDatas, *m.brokers[name])
	}
	return r, true
}

// ClusterInfo lists all brokers.
func (m *RouteInfoManager) ClusterInfo() *protocol.ClusterInfo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &protocol.ClusterInfo{BrokerAddrTable: map[string]protocol.BrokerData{}, ClusterAddrTable: map[string][]string{}}
	for name, b := range m.brokers {
		c.BrokerAddrTable[name] = *b
	}
	for cluster, names := range m.clusters {
		c.ClusterAddrTable[cluster] = slices.Sorted(maps.Keys(names))
	}
	return c
}

// MemberGroup lists the addresses under one broker name, none where it is not known in the cluster.
func (m *RouteInfoManager) MemberGroup(cluster, name string) *protocol.BrokerMemberGroup {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g := &protocol.BrokerMemberGroup{Cluster: cluster, BrokerName: name, BrokerAddrs: map[int64]string{}}
	if b := m.brokers[name]; b != nil && b.Cluster == cluster {
		g.BrokerAddrs = b.BrokerAddrs // not changed any more
	}
	return g
}

// Topics lists all topics.
func (m *RouteInfoManager) Topics() []string {
	return m.topicsWhere(func(map[string]protocol.QueueData) bool { return true })
}

// TopicsOfCluster lists the topics that a broker of the cluster has.
func (m *RouteInfoManager) TopicsOfCluster(cluster string) []string {
	return m.topicsWhere(func(queues map[string]protocol.QueueData) bool {
		for name := range queues {
			if _, ok := m.clusters[cluster][name]; ok {
				return true
			}
		}
		return false
	})
}

// UnitTopics lists the topics of units.
func (m *RouteInfoManager) UnitTopics() []string {
	return m.topicsFlagged(func(flag int32) bool { return flag&flagUnit != 0 })
}

// UnitSubTopics lists the topics with subscriptions of units, ordinaryOnly those that are not of a
// unit themselves.
func (m *RouteInfoManager) UnitSubTopics(ordinaryOnly bool) []string {
	return m.topicsFlagged(func(flag int32) bool { return flag&flagUnitSub != 0 && (!ordinaryOnly || flag&flagUnit == 0) })
}

// topicsFlagged goes by the first broker of each topic: all should say the same.
func (m *RouteInfoManager) topicsFlagged(is func(flag int32) bool) []string {
	return m.topicsWhere(func(queues map[string]protocol.QueueData) bool {
		return is(queues[slices.Min(slices.Collect(maps.Keys(queues)))].TopicSysFlag)
	})
}

func (m *RouteInfoManager) topicsWhere(is func(map[string]protocol.QueueData) bool) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := []string{}
	for topic, queues := range m.topics {
		if is(queues) {
			list = append(list, topic)
		}
	}
	slices.Sort(list)
	return list
}

// SystemTopics lists the names of clusters and brokers, which are topics too, and gives the address of
// a broker that knows the others; "" when there is none.
func (m *RouteInfoManager) SystemTopics() (names []string, brokerAddr string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names = slices.AppendSeq(slices.Sorted(maps.Keys(m.clusters)), maps.Keys(m.brokers))
	slices.Sort(names[len(m.clusters):])
	if len(m.brokers) > 0 {
		addrs := m.brokers[names[len(m.clusters)]].BrokerAddrs
		brokerAddr = addrs[lowest(addrs)]
	}
	return names, brokerAddr
}

// Sizes counts what is known, for metrics.
func (m *RouteInfoManager) Sizes() (clusters, brokers, topics int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.clusters), len(m.live), len(m.topics)
}
