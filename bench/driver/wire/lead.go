package wire

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting"
	"rmq/results"
)

// lead is who takes the messages of a group or a pair. It is looked for anew once something asked of it has failed, as a
// client would, so that an election costs a measurement what it costs a user and no more.
type lead struct {
	addr  atomic.Value // string
	route atomic.Int64 // counts the searches; 0: nobody is looked for
	bad   atomic.Int64 // the newest route on which something failed
	mu    sync.Mutex   // of searches
}

func (l *lead) found(addr string) {
	l.addr.Store(addr)
	l.route.Add(1)
}

// lost says that something has failed on this route.
func (l *lead) lost(route int64) bool { return route > 0 && l.bad.Load() >= route }

// lose books a failure on a route.
func (l *lead) lose(route int64) {
	for bad := l.bad.Load(); bad < route && !l.bad.CompareAndSwap(bad, route); bad = l.bad.Load() {
	}
}

// follows says whether another node may take over.
func (s *session) follows() bool { return s.cluster.own != nil && len(s.cluster.own.Nodes) > 1 }

// broker is where the i-th connection goes: to the brokers in turn, or to whoever led when it was looked for last.
func (s *session) broker(i int) string {
	if s.follows() {
		return s.lead.addr.Load().(string)
	}
	return s.cluster.brokers[i%len(s.cluster.brokers)]
}

// leader is who leads, and the route to it: waited for if something has failed on the last one known.
func (s *session) leader(ctx context.Context) (addr string, route int64, err error) {
	l := &s.lead
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.addr.Load().(string)
	if !l.lost(l.route.Load()) {
		return from, l.route.Load(), nil
	}
	began := time.Now()
	leader, err := s.cluster.own.Leader(ctx)
	if err != nil {
		return "", 0, err
	}
	l.found(leader.Addr)
	s.tail.moved()
	if s.cell.Event != nil && leader.Addr != from {
		s.cell.Event(results.EventLeader, fmt.Sprintf("%s > %s", from, leader.Addr), time.Since(began))
	}
	return leader.Addr, l.route.Load(), nil
}

// redial returns as many connections to addr as there are in conns: those, if they are to addr and open, or new ones, all
// or none. The caller closes the old ones.
func (s *session) redial(ctx context.Context, addr string, conns []*remoting.Conn) ([]*remoting.Conn, error) {
	if !stale(addr, conns) {
		return conns, nil
	}
	fresh := make([]*remoting.Conn, len(conns))
	for i := range fresh {
		var err error
		if fresh[i], err = s.client.Dial(ctx, addr); err != nil {
			closeConns(fresh[:i]) // nothing was sent
			return nil, err
		}
	}
	return fresh, nil
}

func stale(addr string, conns []*remoting.Conn) bool {
	for _, c := range conns {
		select {
		case <-c.Done():
			return true
		default:
			if c.RemoteAddr().String() != addr {
				return true
			}
		}
	}
	return false
}

func closeConns(conns []*remoting.Conn) {
	for _, c := range conns {
		_ = c.Close() // it cannot fail
	}
}

// follow waits for a leader and connects this sender with it. If there is none, or no way to it, the connections stay and
// the messages fail.
func (n *sender) follow() {
	addr, route, err := n.s.leader(n.s.ctx)
	if err != nil {
		return
	}
	conns, err := n.s.redial(n.s.ctx, addr, n.conns)
	if err != nil {
		return
	}
	if old := n.conns; old[0] != conns[0] {
		defer closeConns(old) // what is on them has an unknown outcome
	}
	n.conns, n.route = conns, route
}
