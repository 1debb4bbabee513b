package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting/protocol"
)

// defaultTopic is the template from which brokers create a topic at the first send.
const defaultTopic = "TBW102"

const masterID = 0

// topicRoute is what a name server said of a topic. It is never changed.
type topicRoute struct {
	data     *protocol.TopicRouteData
	publish  []MessageQueue // where messages may be sent
	consume  []MessageQueue
	template bool // made from the default topic: the topic does not exist yet
	turn     *atomic.Uint32
}

// routeTable remembers routes, and from them where brokers are. Safe for concurrent use.
type routeTable struct {
	mu      sync.RWMutex
	topics  map[string]*topicRoute
	brokers map[string]map[int64]string // name → id → address
	leaders map[string]string           // name → address that a broker pointed to
	asking  map[string]*sync.Mutex
	asked   map[string]time.Time            // broker name → when a name server was asked who leads it, without a leader
	moved   func(brokerName, leader string) // hears who leads by now; set once
}

func (t *routeTable) init() {
	t.topics, t.brokers, t.leaders = map[string]*topicRoute{}, map[string]map[int64]string{}, map[string]string{}
	t.asking, t.asked = map[string]*sync.Mutex{}, map[string]time.Time{}
}

func (t *routeTable) get(topic string) *topicRoute {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.topics[topic]
}

// put stores a route and reports whether it differs from the one before.
func (t *routeTable) put(topic string, r *topicRoute) bool {
	changed, moved := t.store(topic, r)
	for name, leader := range moved {
		t.moved(name, leader)
	}
	return changed
}

// store is put; moved are the leaders of brokers of which the route says something new.
func (t *routeTable) store(topic string, r *topicRoute) (changed bool, moved map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range r.data.BrokerDatas {
		if !maps.Equal(t.brokers[b.BrokerName], b.BrokerAddrs) {
			t.brokers[b.BrokerName] = maps.Clone(b.BrokerAddrs)
			delete(t.leaders, b.BrokerName)
			if leader := b.BrokerAddrs[masterID]; leader != "" {
				if moved == nil {
					moved = map[string]string{}
				}
				moved[b.BrokerName] = leader
			}
		}
	}
	old := t.topics[topic]
	if old != nil {
		r.turn = old.turn
		if len(r.publish) == 0 {
			r.publish = electing(r, old)
		}
		if old.template == r.template && reflect.DeepEqual(old.data, r.data) {
			return false, moved
		}
	}
	t.topics[topic] = r
	t.forgetBrokers()
	return true, moved
}

// electing are the queues of old of groups that have members and no leader in r, though they take messages: there will be one
// in a moment, and who sends waits for it.
func electing(r, old *topicRoute) (queues []MessageQueue) {
	waits := map[string]bool{}
	for _, q := range r.data.QueueDatas {
		waits[q.BrokerName] = q.Perm&protocol.PermWrite != 0
	}
	for _, b := range r.data.BrokerDatas {
		waits[b.BrokerName] = waits[b.BrokerName] && len(b.BrokerAddrs) > 1 && b.BrokerAddrs[masterID] == ""
	}
	for _, q := range old.publish {
		if waits[q.BrokerName] {
			queues = append(queues, q)
		}
	}
	return queues
}

// forgetBrokers drops brokers that no route names any more.
func (t *routeTable) forgetBrokers() {
	named := map[string]bool{}
	for _, r := range t.topics {
		for _, b := range r.data.BrokerDatas {
			named[b.BrokerName] = true
		}
	}
	gone := func(name string) bool { return !named[name] }
	maps.DeleteFunc(t.brokers, func(name string, _ map[int64]string) bool { return gone(name) })
	maps.DeleteFunc(t.leaders, func(name, _ string) bool { return gone(name) })
}

func (t *routeTable) setLeader(brokerName, addr string) {
	t.mu.Lock()
	t.leaders[brokerName] = addr
	t.mu.Unlock()
	t.moved(brokerName, addr)
}

// master is the address that takes writes for a broker name, "" if none is known.
func (t *routeTable) master(brokerName string) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if a := t.leaders[brokerName]; a != "" {
		return a
	}
	return t.brokers[brokerName][masterID]
}

// replica is the address of one broker of the name, with its id; any other when that id is unknown.
func (t *routeTable) replica(brokerName string, id int64) (addr string, actual int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if a := t.leaders[brokerName]; a != "" && id == masterID {
		return a, masterID
	}
	addrs := t.brokers[brokerName]
	if a := addrs[id]; a != "" {
		return a, id
	}
	for _, other := range slices.Sorted(maps.Keys(addrs)) {
		return addrs[other], other
	}
	return "", 0
}

// addrs are the addresses of all known brokers, or of the masters only.
func (t *routeTable) addrs(slaves bool) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	set := map[string]bool{}
	for name, addrs := range t.brokers {
		for id, a := range addrs {
			if slaves || id == masterID {
				set[a] = true
			}
		}
		if a := t.leaders[name]; a != "" {
			set[a] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// lock makes askers for the same topic wait for each other.
func (t *routeTable) lock(topic string) *sync.Mutex {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.asking[topic]
	if m == nil {
		m = &sync.Mutex{}
		t.asking[topic] = m
	}
	return m
}

// fetchRoute asks a name server for a route. [ErrNoRoute] when there is none.
func (c *Client) fetchRoute(ctx context.Context, topic string) (*protocol.TopicRouteData, error) {
	resp, err := c.callNameServer(ctx, protocol.RequestGetRouteInfoByTopic, &protocol.GetRouteInfoHeader{Topic: topic, AcceptStandardJSONOnly: ptr(true)}, nil)
	if hasCode(err, protocol.ResponseTopicNotExist) {
		return nil, fmt.Errorf("topic %s: %w", topic, ErrNoRoute)
	}
	return decode[protocol.TopicRouteData](resp, err)
}

// refreshRoute asks for the route of topic again and reports whether it has changed.
func (c *Client) refreshRoute(ctx context.Context, topic string) (changed bool, err error) {
	data, err := c.fetchRoute(ctx, topic)
	if err != nil {
		return false, err
	}
	return c.routes.put(topic, newTopicRoute(topic, data)), nil
}

// route is the known route of topic, asked for if there is none.
func (c *Client) route(ctx context.Context, topic string) (*topicRoute, error) {
	if r := c.routes.get(topic); r != nil && !r.template {
		return r, nil
	}
	m := c.routes.lock(topic)
	m.Lock()
	defer m.Unlock()
	if r := c.routes.get(topic); r != nil && !r.template {
		return r, nil
	}
	if _, err := c.refreshRoute(ctx, topic); err != nil {
		return nil, err
	}
	return c.routes.get(topic), nil
}

// publishRoute is the route to send topic by. A topic that does not exist borrows the queues of the
// default topic, at most queues of each broker: the first message creates it.
func (c *Client) publishRoute(ctx context.Context, topic string, queues int) (*topicRoute, error) {
	if r := c.routes.get(topic); r != nil && len(r.publish) > 0 {
		return r, nil
	}
	r, err := c.route(ctx, topic)
	if err == nil && len(r.publish) > 0 {
		return r, nil
	}
	if err != nil && !errors.Is(err, ErrNoRoute) {
		return nil, err
	}
	data, terr := c.fetchRoute(ctx, defaultTopic)
	switch {
	case errors.Is(terr, ErrNoRoute) && err != nil:
		return nil, fmt.Errorf("%w; and no broker creates topics by itself: create it with mqadmin updateTopic", err)
	case terr != nil:
		return nil, terr
	}
	for i := range data.QueueDatas {
		q := &data.QueueDatas[i]
		q.WriteQueueNums = min(q.WriteQueueNums, int32(queues))
		q.ReadQueueNums = q.WriteQueueNums
	}
	r = newTopicRoute(topic, data)
	r.template = true
	if len(r.publish) == 0 {
		return nil, fmt.Errorf("topic %s: no broker takes messages: %w", topic, ErrNoRoute)
	}
	c.routes.put(topic, r)
	c.heartbeatSoon()
	return c.routes.get(topic), nil
}

// newTopicRoute works out the queues of a topic, in Java's order: by broker name, then number.
func newTopicRoute(topic string, data *protocol.TopicRouteData) *topicRoute {
	r := &topicRoute{data: data, turn: new(atomic.Uint32)}
	r.turn.Store(rand.Uint32()) // not all short-lived producers begin with the first queue
	masters := map[string]bool{}
	for _, b := range data.BrokerDatas {
		masters[b.BrokerName] = b.BrokerAddrs[masterID] != ""
	}
	for _, q := range data.QueueDatas {
		if q.Perm&protocol.PermRead != 0 {
			r.consume = appendQueues(r.consume, topic, q.BrokerName, int(q.ReadQueueNums))
		}
		if q.Perm&protocol.PermWrite != 0 && masters[q.BrokerName] {
			r.publish = appendQueues(r.publish, topic, q.BrokerName, int(q.WriteQueueNums))
		}
	}
	if ordered := orderedQueues(topic, data.OrderTopicConf); len(ordered) > 0 {
		r.publish = ordered
	}
	slices.SortFunc(r.consume, MessageQueue.Compare)
	slices.SortFunc(r.publish, MessageQueue.Compare)
	return r
}

func appendQueues(dst []MessageQueue, topic, broker string, n int) []MessageQueue {
	for i := range n {
		dst = append(dst, MessageQueue{Topic: topic, BrokerName: broker, QueueID: int32(i)})
	}
	return dst
}

// orderedQueues reads broker:queues;broker:queues, which fixes the queues of an ordered topic.
func orderedQueues(topic, conf string) (out []MessageQueue) {
	for part := range strings.SplitSeq(conf, ";") {
		broker, count, _ := strings.Cut(part, ":")
		n, err := strconv.Atoi(strings.TrimSpace(count))
		if broker != "" && err == nil {
			out = appendQueues(out, topic, broker, n)
		}
	}
	return out
}

// masterOf is the master's address of a broker name; when none is known, all routes in use are asked for again.
func (c *Client) masterOf(ctx context.Context, brokerName string) (string, error) {
	if a := c.routes.master(brokerName); a != "" {
		return a, nil
	}
	c.refreshRoutes(ctx)
	if a := c.routes.master(brokerName); a != "" {
		return a, nil
	}
	return "", fmt.Errorf("broker %s: %w: it is down, or has no master now", brokerName, ErrNoBroker)
}

// Pauses of those that wait for a group to elect a leader: the first is short, since a process that has died is replaced
// within a few milliseconds, and each is twice as long as the one before.
const (
	firstElectionPoll = 3 * time.Millisecond
	electionPoll      = 25 * time.Millisecond
	electionAsk       = 100 * time.Millisecond // for the answers of the other nodes
)

// awaitLeader is for a broker that takes nothing now, at the address where it was tried ("": none is known); dead says that
// nobody answers there. Where others hold its log too, and no other broker has queues of the topic, it waits a moment, asks
// the nodes and then a name server who leads, and says that it is worth another try; false when ctx has ended. Where none is
// known that does, a name server is asked once: one may have come since. round counts the calls of one send.
func (c *Client) awaitLeader(ctx context.Context, topic, brokerName, tried string, dead bool, round int) bool {
	r := c.routes.get(topic)
	if r == nil || slices.ContainsFunc(r.publish, func(q MessageQueue) bool { return q.BrokerName != brokerName }) {
		return false
	}
	if !c.routes.replicated(brokerName) {
		return dead && round == 0 && c.succeeded(ctx, topic, brokerName, tried)
	}
	if round == 0 && c.routes.master(brokerName) != tried {
		return true // another sender has found one
	}
	if !sleep(ctx, min(electionPoll, firstElectionPoll<<min(round, 8))) {
		return false
	}
	m := c.routes.lock("leader of " + brokerName)
	m.Lock()
	defer m.Unlock()
	if c.routes.master(brokerName) != tried || !c.routes.mayAsk(brokerName) {
		return ctx.Err() == nil // one of many senders asks, the others have its answer
	}
	but := ""
	if dead {
		but = tried
	}
	if c.opt.LeaderProbe > 0 {
		if leader := c.whoLeads(ctx, c.routes.nodes(brokerName, but), but, electionAsk); leader != "" {
			c.routes.setLeader(brokerName, leader)
			return ctx.Err() == nil
		}
	}
	c.routes.dropLeader(brokerName, tried)
	c.findMaster(ctx, topic, brokerName)
	return ctx.Err() == nil
}

// succeeded asks a name server about a broker that is dead and of which no other node was known, and says whether there is
// one by now.
func (c *Client) succeeded(ctx context.Context, topic, brokerName, dead string) bool {
	m := c.routes.lock("leader of " + brokerName)
	m.Lock()
	defer m.Unlock()
	if c.routes.master(brokerName) == dead && c.routes.mayAsk(brokerName) { // one of many senders asks, the others have its answer
		c.findMaster(ctx, topic, brokerName)
	}
	return c.routes.master(brokerName) != dead || c.routes.replicated(brokerName)
}

// leaderElsewhere asks the other nodes of a broker whose master cannot be reached, and then a name server, whether a queue
// can be read from another one by now: the next master, else a slave.
func (c *Client) leaderElsewhere(ctx context.Context, q MessageQueue, dead string) bool {
	if dead == "" || !c.routes.replicated(q.BrokerName) {
		return false
	}
	m := c.routes.lock("leader of " + q.BrokerName)
	m.Lock()
	defer m.Unlock()
	if c.routes.master(q.BrokerName) == dead && c.routes.mayAsk(q.BrokerName) { // one of many queues asks, the others have its answer
		leader := ""
		if c.opt.LeaderProbe > 0 {
			leader = c.whoLeads(ctx, c.routes.nodes(q.BrokerName, dead), dead, electionAsk)
		}
		if leader != "" {
			c.routes.setLeader(q.BrokerName, leader)
		} else {
			c.routes.dropLeader(q.BrokerName, dead)
			_, _ = c.refreshRoute(ctx, q.Topic) // without an answer things are as they were
		}
	}
	now, _ := c.routes.replica(q.BrokerName, masterID)
	return now != "" && now != dead
}

// findMaster asks for the route of topic again, and takes it if the broker has a master in it.
func (c *Client) findMaster(ctx context.Context, topic, brokerName string) {
	data, err := c.fetchRoute(ctx, topic)
	if err == nil && slices.ContainsFunc(data.BrokerDatas, func(b protocol.BrokerData) bool { return b.BrokerName == brokerName && b.BrokerAddrs[masterID] != "" }) {
		c.routes.put(topic, newTopicRoute(topic, data))
	}
}

// mayAsk says whether it is time again to ask who leads a group.
func (t *routeTable) mayAsk(brokerName string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.asked[brokerName]) < firstElectionPoll {
		return false
	}
	t.asked[brokerName] = now
	return true
}

// dropLeader forgets that a node was said to lead.
func (t *routeTable) dropLeader(brokerName, addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaders[brokerName] == addr {
		delete(t.leaders, brokerName)
	}
}

// replicated says whether several brokers of the name are known.
func (t *routeTable) replicated(brokerName string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.brokers[brokerName]) > 1
}
