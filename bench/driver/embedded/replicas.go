package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	"rmq/bench"
	"rmq/engine"
	"rmq/replication"
	"rmq/replication/ha"
	"rmq/replication/raftlog"
)

// log is what the driver uses of a node.
type log interface {
	replication.Log
	SubmitVector(as []*engine.Append)
	Flush(ctx context.Context) error
	Stats() engine.Stats
	WaitPrepared(ctx context.Context) error
}

// copies are the nodes of one log in this process, each with a directory of its own, talking over loopback sockets.
type copies struct {
	nodes []log
	lead  log
}

const (
	replicaTimeout = 60 * time.Second
	replicaPoll    = 2 * time.Millisecond
)

// openCopies opens the nodes of a mode below dir and returns when they are in sync.
func openCopies(ctx context.Context, repl, dir string, o engine.Options) (_ *copies, err error) {
	mode, err := replication.ParseMode(repl)
	if err != nil {
		return nil, err
	}
	c := &copies{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	switch mode {
	case replication.Async, replication.Sync:
		err = c.openPair(ctx, mode, dir, o)
	case replication.Raft:
		err = c.openGroup(ctx, dir, o)
	default:
		err = fmt.Errorf("BUG: --repl=%s has no replicas", repl)
	}
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if err := n.WaitPrepared(ctx); err != nil {
			return nil, fmt.Errorf("prepare segments: %w", err)
		}
	}
	return c, c.inSync(ctx)
}

func listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// openPair opens a master and a slave. Only the master tells events: the series shows what delays its acks.
func (c *copies) openPair(ctx context.Context, mode replication.Mode, dir string, o engine.Options) error {
	master := ""
	for i := range 2 {
		l, err := listen(ctx)
		if err != nil {
			return err
		}
		own := o
		own.Dir = filepath.Join(dir, fmt.Sprintf("n%d", i))
		if i > 0 {
			own.Events = engine.EventListener{}
		}
		s, err := ha.Open(ctx, ha.Options{Engine: own, Mode: mode, Slave: i > 0, ID: fmt.Sprintf("n%d", i), Cluster: "bench", Listener: l, Master: master})
		if err != nil {
			return errors.Join(err, l.Close())
		}
		c.nodes = append(c.nodes, s)
		if i == 0 {
			master = l.Addr().String()
		}
	}
	return nil
}

// openGroup opens three nodes that elect a leader.
func (c *copies) openGroup(ctx context.Context, dir string, o engine.Options) error {
	const n = 3
	peers := map[string]string{}
	var ls []net.Listener
	for i := range n {
		l, err := listen(ctx)
		if err != nil {
			return err
		}
		ls = append(ls, l)
		peers[fmt.Sprintf("n%d", i)] = l.Addr().String()
	}
	for i, l := range ls {
		own := o
		own.Dir = filepath.Join(dir, fmt.Sprintf("n%d", i))
		own.Events = engine.EventListener{} // any of them may lead: none of them tells
		s, err := raftlog.Open(ctx, raftlog.Options{Engine: own, Group: "bench", SelfID: fmt.Sprintf("n%d", i), Peers: peers, Listener: l})
		if err != nil {
			for _, rest := range ls[i:] {
				err = errors.Join(err, rest.Close())
			}
			return err
		}
		c.nodes = append(c.nodes, s)
	}
	return nil
}

// inSync waits until a node leads and the others are connected and in sync.
func (c *copies) inSync(ctx context.Context) error {
	return c.await(ctx, "replicas in sync", func() (bool, string) {
		for _, n := range c.nodes {
			s := n.Status()
			if s.Role != replication.Leader {
				continue
			}
			c.lead = n
			have := 0
			for _, p := range s.Peers {
				if p.InSync && p.Quiet >= 0 {
					have++
				}
			}
			return have == len(c.nodes)-1, fmt.Sprintf("%d of %d are in sync: %+v", have, len(c.nodes)-1, s.Peers)
		}
		return false, "no node leads"
	})
}

// caughtUp waits until every replica holds what the leader has written by now.
func (c *copies) caughtUp(ctx context.Context) error {
	end := c.lead.Status().Written
	return c.await(ctx, "replicas to catch up", func() (bool, string) {
		s := c.lead.Status()
		behind := slices.ContainsFunc(s.Peers, func(p replication.Peer) bool { return p.Written < end })
		return !behind && len(s.Peers) == len(c.nodes)-1, fmt.Sprintf("they hold %+v of %d", s.Peers, end)
	})
}

func (c *copies) await(ctx context.Context, what string, ask func() (ok bool, why string)) error {
	tick := time.NewTicker(replicaPoll)
	defer tick.Stop()
	for end := time.Now().Add(replicaTimeout); ; {
		ok, why := ask()
		if ok {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited %v for %s: %s", replicaTimeout, what, why)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// count tells how far the nodes are. What one process writes cannot be told apart by node.
func (c *copies) count() *bench.Replicas {
	s := c.lead.Status()
	r := &bench.Replicas{Unflushed: max(0, s.Written-s.Durable)}
	for _, p := range s.Peers {
		r.LagBytes = max(r.LagBytes, p.LagBytes)
	}
	if t, ok := c.lead.(replication.Timed); ok {
		t.Hops().Each(func(name string, h replication.Hop) {
			r.Hops = append(r.Hops, bench.ReplicaHop{Name: name, Count: h.Count, Nanos: h.Nanos})
		})
	}
	for i, n := range c.nodes {
		r.Nodes = append(r.Nodes, bench.ReplicaNode{ID: fmt.Sprintf("n%d", i), LogBytes: n.Stats().Written})
	}
	return r
}

// close ends the followers first, so that none of them campaigns.
func (c *copies) close() error {
	var errs []error
	for _, n := range c.nodes {
		if n != c.lead {
			errs = append(errs, n.Close())
		}
	}
	if c.lead != nil {
		errs = append(errs, c.lead.Close())
	}
	c.nodes, c.lead = nil, nil
	return errors.Join(errs...)
}

// readers are options that open the copies as a plain reader does, the leader's first.
func (c *copies) readers(repl string, o engine.Options) []engine.Options {
	var all []engine.Options
	for i, n := range c.nodes {
		own := o
		own.Dir = filepath.Join(o.Dir, fmt.Sprintf("n%d", i))
		if repl == "raft" {
			own.Dir = filepath.Join(own.Dir, fmt.Sprintf("raft-n%d", i))
			own.Format, own.Framing = raftlog.FormatRaft, raftlog.Framing{}
		}
		if n == c.lead {
			all = append([]engine.Options{own}, all...)
		} else {
			all = append(all, own)
		}
	}
	return all
}
