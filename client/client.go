package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Client is one participant of a cluster; see the package comment. Safe for concurrent use.
//
// Goroutines: "routes" asks for the routes of topics in use, "heartbeat" tells brokers of the
// members, "leaders" looks after brokers that owe answers, "held" after those that hold pulls; answers to requests of brokers that may take long run in goroutines of their own.
type Client struct {
	opt     Options
	id      string
	keys    *uniqueIDs
	rpc     *remoting.Client
	servers *nameServers
	routes  routeTable
	leaders leaderWatch
	held    pullWatch
	warm    sync.Map // address → *remoting.Conn that was open when last looked at
	group   *run.Group
	started time.Time

	beat      chan struct{} // asks for a heartbeat now
	beating   sync.Mutex    // one round at a time
	mu        sync.Mutex
	producers map[string]*Producer
	consumers map[string]consumer
	closed    bool
}

// consumer is what the client needs of its consumers.
type consumer interface {
	// topics are those whose routes it needs.
	topics() []string
	heartbeat() protocol.ConsumerData
	// rebalanceSoon asks it to look at its share of the queues again.
	rebalanceSoon()
	reset(ctx context.Context, topic string, offsets map[MessageQueue]int64)
	offsets(topic string) map[MessageQueue]int64
	runningInfo() *protocol.ConsumerRunningInfo
	consumeDirectly(ctx context.Context, m *MessageExt) *protocol.ConsumeMessageDirectlyResult
	Close(ctx context.Context) error
}

var instances atomic.Int64

// New makes a client. It connects to nobody before the first request. Errors: every complaint about o.
func New(o Options) (*Client, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("client options: %w", err)
	}
	servers := splitServers(o.NameServers)
	if !o.IP.IsValid() {
		o.IP = localIP(servers)
	}
	c := &Client{
		opt: o, id: clientID(o), keys: newUniqueIDs(o.IP), servers: newNameServers(servers), started: time.Now(),
		beat: make(chan struct{}, 1), producers: map[string]*Producer{}, consumers: map[string]consumer{},
	}
	c.routes.init()
	c.leaders.wake = make(chan struct{}, 1)
	c.held.init()
	c.routes.moved = c.held.moved
	var err error
	if c.rpc, err = remoting.NewClient(context.Background(), remoting.ClientOptions{Name: "client", Handler: (*incoming)(c), CallTimeout: o.Timeout, Logger: o.Logger}); err != nil {
		return nil, err
	}
	c.group = run.New(context.Background(), "client")
	c.group.Go("routes", c.pollRoutes)
	c.group.Go("heartbeat", c.heartbeats)
	c.group.Go("leaders", c.watchLeaders)
	c.group.Go("held", c.watchHeld)
	return c, nil
}

// clientID is Java's ip@instance[@unit].
func clientID(o Options) string {
	instance := o.Instance
	if instance == "" {
		instance = strconv.Itoa(os.Getpid()) + "#" + strconv.FormatInt(instances.Add(1), 10) + strconv.FormatInt(time.Now().UnixNano()%1e9, 36)
	}
	id := o.IP.String() + "@" + instance
	if o.Unit != "" {
		id += "@" + o.Unit
	}
	return id
}

// ID is the name of the client in the cluster, like 10.0.0.1@4711#1.
func (c *Client) ID() string { return c.id }

// Close closes every producer and consumer of the client, waits for its goroutines and drops the
// connections. When ctx ends, handlers at work are told through their context, and waited for no
// longer than they take to return. Closing twice does nothing.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	producers, consumers := slices.Collect(maps.Values(c.producers)), slices.Collect(maps.Values(c.consumers))
	c.mu.Unlock()
	var errs []error
	for _, m := range consumers {
		errs = append(errs, m.Close(ctx))
	}
	for _, p := range producers {
		errs = append(errs, p.Close(ctx))
	}
	c.group.Cancel()
	errs = append(errs, c.group.Wait(), c.rpc.Close())
	return errors.Join(errs...)
}

func (c *Client) addConsumer(group string, m consumer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if _, ok := c.consumers[group]; ok {
		return fmt.Errorf("consumer group %s: %w", group, ErrGroupInUse)
	}
	c.consumers[group] = m
	return nil
}

func (c *Client) removeConsumer(group string) {
	c.mu.Lock()
	delete(c.consumers, group)
	c.mu.Unlock()
}

func (c *Client) consumerOf(group string) consumer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.consumers[group]
}

// members copies who is there.
func (c *Client) members() ([]*Producer, []consumer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.producers)), slices.Collect(maps.Values(c.consumers))
}

// heartbeatSoon asks for a heartbeat without waiting for it.
func (c *Client) heartbeatSoon() {
	signal(c.beat)
}

func (c *Client) heartbeats(ctx context.Context) error {
	return periodically(ctx, c.opt.HeartbeatInterval, c.beat, func() { c.heartbeat(ctx) })
}

// heartbeat tells every known broker who is here: slaves too if there are consumers
// (MQClientInstance.sendHeartbeatToAllBroker). It returns when all have answered or failed to.
func (c *Client) heartbeat(ctx context.Context) {
	c.beating.Lock()
	defer c.beating.Unlock()
	producers, consumers := c.members()
	data := protocol.HeartbeatData{ClientID: c.id, ProducerDataSet: []protocol.ProducerData{}, ConsumerDataSet: []protocol.ConsumerData{}}
	for _, p := range producers {
		data.ProducerDataSet = append(data.ProducerDataSet, protocol.ProducerData{GroupName: p.opt.Group})
	}
	for _, m := range consumers {
		data.ConsumerDataSet = append(data.ConsumerDataSet, m.heartbeat())
	}
	if len(producers)+len(consumers) == 0 {
		return
	}
	body := protocol.EncodeBody(data)
	round := run.New(ctx, "heartbeat")
	for _, addr := range c.routes.addrs(len(consumers) > 0) {
		round.Go(addr, func(ctx context.Context) error {
			if _, err := c.call(ctx, addr, protocol.RequestHeartBeat, nil, body); err != nil && ctx.Err() == nil {
				c.opt.Logger.Warn("heartbeat failed", "broker", addr, "err", err)
			}
			return nil
		})
	}
	_ = round.Wait() // its goroutines report to the log
}

// unregister tells every known broker that a group is gone, which is not among the members any more. A heartbeat
// that still names it has ended before: else it could arrive later and leave a ghost.
func (c *Client) unregister(ctx context.Context, producerGroup, consumerGroup string) {
	c.beating.Lock()
	defer c.beating.Unlock()
	h := &protocol.UnregisterClientHeader{ClientID: c.id, ProducerGroup: producerGroup, ConsumerGroup: consumerGroup}
	round := run.New(ctx, "unregister")
	for _, addr := range c.routes.addrs(consumerGroup != "") {
		round.Go(addr, func(ctx context.Context) error {
			if _, err := c.call(ctx, addr, protocol.RequestUnregisterClient, h, nil); err != nil {
				c.opt.Logger.Debug("unregister failed", "broker", addr, "err", err)
			}
			return nil
		})
	}
	_ = round.Wait() // its goroutines report to the log
}

// pollRoutes keeps the routes of topics in use fresh (updateTopicRouteInfoFromNameServer).
func (c *Client) pollRoutes(ctx context.Context) error {
	return periodically(ctx, c.opt.RouteInterval, nil, func() { c.refreshRoutes(ctx) })
}

func (c *Client) refreshRoutes(ctx context.Context) {
	producers, consumers := c.members()
	topics := map[string]bool{}
	for _, p := range producers {
		for _, t := range p.topics() {
			topics[t] = true
		}
	}
	wanted := map[string][]consumer{}
	for _, m := range consumers {
		for _, t := range m.topics() {
			topics[t] = true
			wanted[t] = append(wanted[t], m)
		}
	}
	for topic := range topics {
		changed, err := c.refreshRoute(ctx, topic)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, ErrNoRoute):
			c.opt.Logger.Warn("route not refreshed", "topic", topic, "err", err)
		case changed:
			for _, m := range wanted[topic] {
				m.rebalanceSoon()
			}
			c.heartbeatSoon()
		}
	}
}
