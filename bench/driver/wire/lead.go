package wire

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting"
	"rmq/results"
)

// lead is who takes the messages of a group. It is looked for anew once something sent there has failed, as a client
// would, so that an election costs a measurement what it costs a user and no more.
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
func (s *session) follows() bool { return s.cluster.own != nil && s.cell.Cell.Repl == "raft" }

// follow waits for a leader and connects this sender with it. If there is none, or no way to it, the connections stay and
// the messages fail.
func (n *sender) follow() {
	l := &n.s.lead
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost(l.route.Load()) {
		began, from := time.Now(), l.addr.Load()
		leader, err := n.s.cluster.own.Leader(n.s.ctx)
		if err != nil {
			return
		}
		l.found(leader.Addr)
		if n.s.cell.Event != nil && leader.Addr != from {
			n.s.cell.Event(results.EventLeader, fmt.Sprintf("%v > %s", from, leader.Addr), time.Since(began))
		}
	}
	conns := make([]*remoting.Conn, len(n.conns))
	for i := range conns {
		var err error
		if conns[i], err = n.s.client.Dial(n.s.ctx, l.addr.Load().(string)); err != nil {
			for _, c := range conns[:i] {
				_ = c.Close() // nothing was sent
			}
			return
		}
	}
	old := n.conns
	n.conns, n.route = conns, l.route.Load()
	for _, c := range old {
		_ = c.Close() // what is on it has an unknown outcome
	}
}
