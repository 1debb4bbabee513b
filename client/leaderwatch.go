package client

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// leaderWatch notices brokers that owe answers to sends and say nothing, as a frozen process or a lost machine does: no
// connection ends, so nothing else would tell before the sends time out. Safe for concurrent use.
type leaderWatch struct {
	pulses sync.Map // address → *pulse
	awake  atomic.Bool
	wake   chan struct{}
}

// pulse counts the sends to one address and their answers.
type pulse struct {
	broker, addr string
	out, back    atomic.Int64

	seen  int64     // answers at the last look; of watchLeaders, as is what follows
	since time.Time // when they were seen first while some were owed; zero: none is
}

// owe books a send to addr; whoever sends books the answer in pulse.back. nil if nobody watches.
func (c *Client) owe(brokerName, addr string) *pulse {
	if c.opt.LeaderProbe < 0 {
		return nil
	}
	v, ok := c.leaders.pulses.Load(addr)
	if !ok {
		v, _ = c.leaders.pulses.LoadOrStore(addr, &pulse{broker: brokerName, addr: addr})
	}
	p := v.(*pulse)
	p.out.Add(1)
	if !c.leaders.awake.Load() && c.leaders.awake.CompareAndSwap(false, true) {
		signal(c.leaders.wake)
	}
	return p
}

// paid books the end of a send. nil is allowed.
func (p *pulse) paid() {
	if p != nil {
		p.back.Add(1)
	}
}

// watchLeaders looks at the pulses while answers are owed.
func (c *Client) watchLeaders(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.leaders.wake:
		}
		for c.lookAtPulses(ctx, time.Now()) || c.stillOwed() {
			if !sleep(ctx, max(c.opt.LeaderProbe/4, time.Millisecond)) {
				return nil
			}
		}
	}
}

// stillOwed lets the next send wake the watch, unless something is owed already.
func (c *Client) stillOwed() (owed bool) {
	c.leaders.awake.Store(false)
	c.leaders.pulses.Range(func(_, v any) bool {
		p := v.(*pulse)
		owed = p.back.Load() < p.out.Load()
		return !owed
	})
	return owed && c.leaders.awake.CompareAndSwap(false, true)
}

// lookAtPulses asks about every broker that has said nothing for long enough, and reports whether any owes answers.
func (c *Client) lookAtPulses(ctx context.Context, now time.Time) (owed bool) {
	c.leaders.pulses.Range(func(_, v any) bool {
		p := v.(*pulse)
		back := p.back.Load()
		switch {
		case back >= p.out.Load():
			p.since = time.Time{}
			return true
		case p.since.IsZero() || back != p.seen:
			p.seen, p.since = back, now
		case now.Sub(p.since) >= c.opt.LeaderProbe:
			c.leaveSilent(ctx, p)
		}
		owed = true
		return true
	})
	return owed
}

// leaveSilent asks the other nodes of a silent one whether one of them leads by now. If so, sends go there, and those that
// the silent one owes end with their outcome unknown, to be tried again.
func (c *Client) leaveSilent(ctx context.Context, p *pulse) {
	leader := c.whoLeads(ctx, c.routes.nodes(p.broker, p.addr), p.addr, c.opt.LeaderProbe)
	if leader == "" {
		return
	}
	c.opt.Logger.Warn("a broker says nothing, another one leads", "broker", p.broker, "from", p.addr, "to", leader)
	c.routes.setLeader(p.broker, leader)
	if conn := c.warmConn(p.addr); conn != nil {
		_ = conn.Close() // its sends end as those of a broken connection
	}
}

// whoLeads is the one of some nodes, or of those that they name, that says that it leads, in the newest epoch; "" if none
// does within some time. What a node says of another is no more than a reason to ask that, unless it is but: it may be old.
func (c *Client) whoLeads(ctx context.Context, nodes []string, but string, within time.Duration) (leader string) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	asked, newest := map[string]bool{but: true}, int64(-1)
	for len(nodes) > 0 {
		tables := make([]map[string]string, len(nodes))
		g := run.New(ctx, "who leads")
		for i, addr := range nodes {
			asked[addr] = true
			g.Go(addr, func(ctx context.Context) error {
				if info, err := decode[protocol.KVTable](c.call(ctx, addr, protocol.RequestGetBrokerRuntimeInfo, nil, nil)); err == nil {
					tables[i] = info.Table
				}
				return nil // who does not answer does not lead
			})
		}
		_ = g.Wait() // none fails
		var named []string
		for i, t := range tables {
			epoch, err := strconv.ParseInt(t["replicationEpoch"], 10, 64)
			if err == nil && t["replicationRole"] == "leader" && epoch > newest {
				leader, newest = nodes[i], epoch
			}
			if other := t["replicationLeaderAddr"]; other != "" && !asked[other] && !slices.Contains(named, other) {
				named = append(named, other)
			}
		}
		nodes = named
	}
	return leader
}

// nodes are the addresses of all brokers of a name but one.
func (t *routeTable) nodes(brokerName, but string) (addrs []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, a := range t.brokers[brokerName] {
		if a != but {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
