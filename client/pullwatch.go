package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	"rmq/remoting/protocol"
)

var (
	errMoved  = errors.New("another broker leads by now")
	errSilent = errors.New("the broker does not answer")
)

// pullWatch looks after pulls that brokers hold. A broker that is frozen, lost or cut off holds them as one to which
// nothing comes does; so one from which nothing has been heard is asked how it is. Safe for concurrent use.
type pullWatch struct {
	wake chan struct{} // something is held

	mu      sync.Mutex
	holders map[string]*holder // by address; few, and kept
}

// holder is a broker that holds pulls.
type holder struct {
	broker, addr string
	pulls        map[*heldCall]struct{}
	heard, seen  int64 // answers, and those at the last look
}

// heldCall is one pull.
type heldCall struct {
	master bool // asked of whoever leads
	cancel context.CancelCauseFunc
}

func (w *pullWatch) init() {
	w.wake, w.holders = make(chan struct{}, 1), map[string]*holder{}
}

// hold books a pull that addr may hold. Its context ends with errMoved when somebody else leads, if it was asked of the
// leader; done books its end. Brokers that have no other nodes are not watched.
func (c *Client) hold(ctx context.Context, brokerName, addr string, id int64) (_ context.Context, done func(answered bool)) {
	if c.opt.LeaderProbe < 0 || !c.routes.replicated(brokerName) {
		return ctx, func(bool) {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p := &heldCall{id == masterID, cancel}
	w := &c.held
	w.mu.Lock()
	h := w.holders[addr]
	if h == nil {
		h = &holder{broker: brokerName, addr: addr, pulls: map[*heldCall]struct{}{}}
		w.holders[addr] = h
	}
	first := len(h.pulls) == 0
	h.pulls[p] = struct{}{}
	w.mu.Unlock()
	if first {
		signal(w.wake)
	}
	if p.master && c.routes.master(brokerName) != addr { // since it was looked up
		cancel(errMoved)
	}
	return ctx, func(answered bool) {
		w.mu.Lock()
		delete(h.pulls, p)
		if answered {
			h.heard++
		}
		w.mu.Unlock()
		cancel(nil)
	}
}

// moved ends pulls that were asked of a leader that has another successor.
func (w *pullWatch) moved(brokerName, leader string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.holders {
		if h.broker == brokerName && h.addr != leader {
			h.end(true, errMoved)
		}
	}
}

// end ends pulls that were asked of a leader, or those that were not. Called with mu held.
func (h *holder) end(master bool, why error) {
	for p := range h.pulls {
		if p.master == master {
			p.cancel(why)
		}
	}
}

// quiet are the holders from which nothing has come since the last call; some says whether pulls are held at all.
func (w *pullWatch) quiet() (quiet []*holder, some bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.holders {
		if len(h.pulls) == 0 {
			continue
		}
		some = true
		if h.heard == h.seen {
			quiet = append(quiet, h)
		}
		h.seen = h.heard
	}
	return quiet, some
}

// watchHeld asks about quiet holders, every other LeaderProbe while pulls are held.
func (c *Client) watchHeld(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.held.wake:
		}
		for some := true; some; {
			if !sleep(ctx, 2*c.opt.LeaderProbe) {
				return nil
			}
			var quiet []*holder
			quiet, some = c.held.quiet()
			for _, h := range quiet {
				c.askHolder(ctx, h)
			}
		}
	}
}

// askHolder asks a broker whether it is there and leads. If not, and another node leads, pulls go there; those that were
// asked of a slave that is not there end with an error.
func (c *Client) askHolder(ctx context.Context, h *holder) {
	ask, cancel := context.WithTimeout(ctx, c.opt.LeaderProbe)
	info, err := decode[protocol.KVTable](c.call(ask, h.addr, protocol.RequestGetBrokerRuntimeInfo, &protocol.RuntimeInfoHeader{RoleOnly: true}, nil))
	cancel()
	if err != nil && ctx.Err() == nil {
		c.held.mu.Lock()
		h.end(false, errSilent)
		c.held.mu.Unlock()
	}
	if c.routes.master(h.broker) != h.addr {
		return
	}
	nodes := c.routes.nodes(h.broker, h.addr)
	if err == nil {
		if role := info.Table["replicationRole"]; role == "" || role == "leader" {
			return
		}
		if named := info.Table["replicationLeaderAddr"]; named != "" && !slices.Contains(nodes, named) {
			nodes = append(nodes, named)
		}
	}
	if leader := c.whoLeads(ctx, nodes, h.addr, c.opt.LeaderProbe); leader != "" {
		c.opt.Logger.Warn("a broker that holds pulls does not lead any more, another one does", "broker", h.broker, "from", h.addr, "to", leader, "err", err)
		c.routes.setLeader(h.broker, leader)
	}
}
