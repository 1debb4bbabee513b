//go:build drills

package drills

import (
	"fmt"
	"strings"
	"testing"
)

// replica is one broker of a column.
type replica struct {
	file  string // below conf
	self  string // raft: its id
	slave bool
}

// column is a way to keep a log: a replication mode and a flush mode. A new one is a new line.
type column struct {
	name     string
	flush    string
	replicas []replica
	raft     bool // elects who leads
	sync     bool // an ack means two copies or more
}

var (
	alone  = []replica{{file: "single/broker.conf"}}
	async  = []replica{{file: "2m-2s-async/broker-a.properties"}, {file: "2m-2s-async/broker-a-s.properties", slave: true}}
	dual   = []replica{{file: "2m-2s-sync/broker-a.properties"}, {file: "2m-2s-sync/broker-a-s.properties", slave: true}}
	quorum = []replica{{file: "dledger/broker-n0.conf", self: "n0"}, {file: "dledger/broker-n1.conf", self: "n1"}, {file: "dledger/broker-n2.conf", self: "n2"}}
)

// columns are those of the matrix, by their names in package robust.
var columns = []column{
	{name: "nA", flush: "ASYNC_FLUSH", replicas: alone},
	{name: "nS", flush: "SYNC_FLUSH", replicas: alone},
	{name: "aA", flush: "ASYNC_FLUSH", replicas: async},
	{name: "aS", flush: "SYNC_FLUSH", replicas: async},
	{name: "sA", flush: "ASYNC_FLUSH", replicas: dual, sync: true},
	{name: "sS", flush: "SYNC_FLUSH", replicas: dual, sync: true},
	{name: "rA", flush: "ASYNC_FLUSH", replicas: quorum, raft: true, sync: true},
	{name: "rS", flush: "SYNC_FLUSH", replicas: quorum, raft: true, sync: true},
}

// replicated says whether there is a second copy at all.
func (c *column) replicated() bool { return len(c.replicas) > 1 }

// lay lays out a cluster of the column: one broker a host, files of conf with the ports of this machine.
func (c *column) lay(t testing.TB, namesrvs int, flags ...string) *cluster {
	t.Helper()
	var files []string
	for _, r := range c.replicas {
		files = append(files, "conf/"+r.file)
	}
	cl := newCluster(t, namesrvs, files, append([]string{"--flush-disk-type=" + c.flush}, flags...)...)
	var peers []string
	for i, r := range c.replicas {
		cl.brokers[i].self = r.self
		peers = append(peers, fmt.Sprintf("%s-%s", r.self, at(cl.brokers[i].host, cl.ports.raft)))
	}
	if c.raft {
		for _, b := range cl.brokers {
			b.args = append(b.args, "--dLegerPeers="+strings.Join(peers, ";"))
		}
	}
	return cl
}
