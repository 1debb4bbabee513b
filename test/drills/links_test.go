//go:build drills

package drills

import (
	"net"
	"strconv"
	"strings"
)

// wire puts a proxy on each directed link between nodes: what a node dials for replication goes through it.
func (x *trial) wire() {
	x.Helper()
	for _, from := range x.c.brokers {
		var pairs []string
		for _, to := range x.c.brokers {
			if from == to {
				continue
			}
			real := net.JoinHostPort(to.host, strconv.Itoa(x.replicationPort(to)))
			k := newLink(x, from.host, real)
			x.links[from.addr()+">"+to.addr()] = k
			pairs = append(pairs, real+"="+k.addr())
		}
		from.bin = "bin/faults"
		from.env = append(from.env, "RMQ_FAULT_DIAL="+strings.Join(pairs, ","))
	}
}

// replicationPort is where a node takes what others send for replication.
func (x *trial) replicationPort(n *node) int {
	if x.col.raft {
		return x.c.ports.raft
	}
	return n.port + 1 // haListenPort, by default
}

// link is the direction in which one node opens connections to another.
func (x *trial) link(from, to *node) *link { return x.links[from.addr()+">"+to.addr()] }

// between sets both directions between two nodes.
func (x *trial) between(a, b *node, s linkState) {
	x.link(a, b).set(s)
	x.link(b, a).set(s)
}

// isolate sets all links of one node.
func (x *trial) isolate(n *node, s linkState) {
	for _, o := range x.others(n) {
		x.between(n, o, s)
	}
}
