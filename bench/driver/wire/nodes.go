package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rmq/bench"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// Spec is how the brokers of a [Cluster] keep their log.
type Spec struct {
	Flush, Write string   // levels of the factors flush and write
	Repl         string   // of the factor repl: none, async, sync, raft
	SegmentBytes int64    // 0: the broker's default
	Links        bool     // a [Link] for each way between two nodes: takes programs built with the tag faults
	Conf         []string // more lines for the configuration of every broker
}

// Nodes is how many brokers hold the log.
func (s Spec) Nodes() int {
	switch s.Repl {
	case "async", "sync":
		return 2
	case "raft":
		return 3
	}
	return 1
}

// Cluster is a NameServer and the brokers of ours round one log, each a child process with a directory of its own, on
// ports of 127.0.0.1. Its methods are for one goroutine at a time, [Node.Running] apart.
type Cluster struct {
	NameServer string
	Nodes      []*Node

	d       Driver
	spec    Spec
	dir     string
	client  *remoting.Client
	namesrv *child
	links   []*Link
}

// Node is one broker.
type Node struct {
	ID    string // n0, n1, …: its dLegerSelfId under raft
	Addr  string // for clients
	Peer  string // for its peers: the HA port or that of the group
	Dir   string
	Store string // the root of its store

	conf  string
	env   []string
	child *child // nil before its first start
}

const noLeader = "none says that it leads"

const group = "broker-a" // name of the broker, and of the raft group

// Start starts a cluster with its files in dir and returns when it takes messages and every replica is in sync.
func Start(ctx context.Context, d Driver, dir string, spec Spec) (_ *Cluster, err error) {
	c := &Cluster{d: d, spec: spec, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.client, err = remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "wire-cluster", DialTimeout: time.Second}); err != nil {
		return nil, err
	}
	if err := c.layOut(ctx); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "namesrv.properties")
	_, port, _ := strings.Cut(c.NameServer, ":")
	if err := writeLines(conf, "bindAddress=127.0.0.1", "listenPort="+port, "kvConfigPath="+filepath.Join(dir, "kvConfig.json")); err != nil {
		return nil, err
	}
	if c.namesrv, err = d.launch(ctx, dir, "mqnamesrv", nil, "-c", conf); err != nil {
		return nil, err
	}
	if err := c.namesrv.awaitAnswer(ctx, c.NameServer, protocol.RequestGetBrokerClusterInfo); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if err := c.StartNode(ctx, n); err != nil {
			return nil, err
		}
		if spec.Repl != "raft" { // a slave asks the NameServer for its master
			if err := n.child.awaitAnswer(ctx, n.Addr, protocol.RequestGetBrokerRuntimeInfo); err != nil {
				return nil, err
			}
		}
	}
	return c, c.AwaitInSync(ctx)
}

// layOut chooses ports and writes the configuration of every node.
func (c *Cluster) layOut(ctx context.Context) error {
	const each = 4 // fast port, (unused), broker, high availability
	n := c.spec.Nodes()
	port, err := freePorts(ctx, 1+n*each+n+n*n)
	if err != nil {
		return err
	}
	addr := func(p int) string { return "127.0.0.1:" + strconv.Itoa(p) }
	c.NameServer = addr(port)
	var peers []string
	for i := range n {
		node := &Node{ID: "n" + strconv.Itoa(i), Addr: addr(port + 3 + each*i), Peer: addr(port + 4 + each*i), Dir: c.dir}
		if n > 1 {
			node.Dir = filepath.Join(c.dir, node.ID)
			if err := os.MkdirAll(node.Dir, 0o755); err != nil {
				return err
			}
		}
		if c.spec.Repl == "raft" {
			node.Peer = addr(port + 1 + each*n + i)
			peers = append(peers, node.ID+"-"+node.Peer)
		}
		node.Store = filepath.Join(node.Dir, "store")
		c.Nodes = append(c.Nodes, node)
	}
	if c.spec.Links {
		if err := c.makeLinks(ctx, port+1+each*n+n); err != nil {
			return err
		}
	}
	for i, node := range c.Nodes {
		node.conf = filepath.Join(node.Dir, "broker.conf")
		if err := writeLines(node.conf, c.config(i, port+3+each*i, peers)...); err != nil {
			return err
		}
	}
	return nil
}

// config is the configuration of a node.
func (c *Cluster) config(i, port int, peers []string) []string {
	node, role := c.Nodes[i], "ASYNC_MASTER"
	switch {
	case c.spec.Repl == "sync" && i == 0:
		role = "SYNC_MASTER"
	case c.spec.Repl != "raft" && i > 0:
		role = "SLAVE"
	}
	id := i
	if c.spec.Repl == "raft" {
		id = 0 // whoever leads
	}
	// What is measured is read back afterwards: retention must not take it away because the disk is shared.
	lines := []string{
		"brokerClusterName=DefaultCluster", "brokerName=" + group, "brokerId=" + strconv.Itoa(id), "brokerRole=" + role, "brokerIP1=127.0.0.1",
		"brokerIP2=127.0.0.1", "bindAddress=127.0.0.1", "listenPort=" + strconv.Itoa(port), "haListenPort=" + strconv.Itoa(port+1),
		"namesrvAddr=" + c.NameServer, "storePathRootDir=" + node.Store, "writeMode=" + c.spec.Write, "diskMaxUsedSpaceRatio=95",
		"cleanFileForciblyEnable=false", "fileReservedTime=8760",
		"flushDiskType=" + strings.ToUpper(c.spec.Flush) + "_FLUSH",
	}
	if c.spec.Repl == "raft" {
		lines = append(lines, "enableDLegerCommitLog=true", "dLegerGroup="+group, "dLegerPeers="+strings.Join(peers, ";"), "dLegerSelfId="+node.ID)
	}
	if c.spec.SegmentBytes > 0 {
		lines = append(lines, "mappedFileSizeCommitLog="+strconv.FormatInt(c.spec.SegmentBytes, 10))
	}
	return append(append(lines, c.d.BrokerConf...), c.spec.Conf...)
}

// LogDir is where the segments of the node's log lie.
func (n *Node) LogDir(repl string) string {
	if repl == "raft" {
		return filepath.Join(n.Store, "raft-"+n.ID, "commitlog")
	}
	return filepath.Join(n.Store, "commitlog")
}

// Output is the file that holds what the node's processes have printed.
func (n *Node) Output() string { return filepath.Join(n.Dir, "mqbroker.log") }

// Running says whether the process of the node is there, frozen or not.
func (n *Node) Running() bool { return n.child != nil && n.child.running() }

// PID is its process, 0 while there is none.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.child.pid()
}

// StartNode starts the process of a node that does not run; it does not wait until it answers.
func (c *Cluster) StartNode(ctx context.Context, n *Node) error {
	if n.Running() {
		return fmt.Errorf("BUG: %s runs", n.ID)
	}
	d := c.d
	if c.spec.Links {
		d.BinDir = d.FaultsDir
	}
	ch, err := d.launch(ctx, n.Dir, "mqbroker", n.env, "-c", n.conf)
	n.child = ch
	return err
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (n *Node) Kill() { n.child.kill() }

// Signal sends a signal and does not wait: SIGSTOP, SIGCONT, SIGTERM or SIGKILL.
func (n *Node) Signal(s syscall.Signal) error { return n.child.cmd.Process.Signal(s) }

// AwaitEnd returns when the process has ended.
func (n *Node) AwaitEnd(ctx context.Context) error {
	select {
	case <-n.child.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Status asks a node for the state of its log; false if it does not answer within the time of ctx, or does not tell.
func (c *Cluster) Status(ctx context.Context, n *Node) (replication.Status, replication.Hops, bool) {
	table, err := RuntimeInfo(ctx, c.client, n.Addr)
	if err != nil {
		return replication.Status{}, replication.Hops{}, false
	}
	s, h, ok := replication.ParseInfo(table)
	if len(c.Nodes) == 1 {
		s.Role, ok = replication.Leader, true
	}
	return s, h, ok
}

// lead is the node that says that it leads, in the newest epoch; nil if none does.
func (c *Cluster) lead(ctx context.Context) (*Node, replication.Status) {
	var best *Node
	var of replication.Status
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		s, _, ok := c.Status(ctx, n)
		cancel()
		if ok && s.Role == replication.Leader && (best == nil || s.Epoch > of.Epoch) {
			best, of = n, s
		}
	}
	return best, of
}

// Leader returns the node that takes messages, waiting until one does.
func (c *Cluster) Leader(ctx context.Context) (leader *Node, err error) {
	return leader, c.await(ctx, "a leader", func() (bool, string) {
		leader, _ = c.lead(ctx)
		return leader != nil, noLeader
	})
}

// AwaitInSync returns when a node leads, the NameServer says so, and all the others that run are connected and in sync.
func (c *Cluster) AwaitInSync(ctx context.Context) error {
	return c.await(ctx, "replicas in sync", func() (bool, string) {
		leader, s := c.lead(ctx)
		if leader == nil {
			return false, noLeader
		}
		var info protocol.ClusterInfo
		if err := Ask(ctx, c.client, c.NameServer, protocol.NewRequest(protocol.RequestGetBrokerClusterInfo), &info); err != nil {
			return false, err.Error()
		}
		if said := info.BrokerAddrTable[group].BrokerAddrs[0]; said != leader.Addr {
			return false, fmt.Sprintf("%s leads and the NameServer says %q", leader.Addr, said)
		}
		want, have := len(c.Nodes)-1, 0
		for _, n := range c.Nodes {
			if n != leader && !n.Running() {
				want--
			}
		}
		for _, p := range s.Peers {
			if p.InSync && p.Quiet >= 0 {
				have++
			}
		}
		return have >= want, fmt.Sprintf("%s leads, %d of %d replicas in sync: %+v", leader.ID, have, want, s.Peers)
	})
}

// CaughtUp returns when every replica that runs holds what the leader had written when this was called.
func (c *Cluster) CaughtUp(ctx context.Context) error {
	if len(c.Nodes) == 1 {
		return nil
	}
	var end int64
	if err := c.await(ctx, "a leader", func() (bool, string) {
		leader, s := c.lead(ctx)
		end = s.Written
		return leader != nil, noLeader
	}); err != nil {
		return err
	}
	return c.await(ctx, "replicas to catch up", func() (bool, string) {
		_, s := c.lead(ctx)
		behind := slices.ContainsFunc(s.Peers, func(p replication.Peer) bool { return p.Quiet >= 0 && p.Written < end && !c.ended(p) })
		return !behind && len(s.Peers) > 0, fmt.Sprintf("they hold %+v, the leader had %d", s.Peers, end)
	})
}

// dispatched waits until the queues of a node have all that its log holds.
func (c *Cluster) dispatched(ctx context.Context, n *Node) error {
	return c.await(ctx, "queues", func() (bool, string) {
		table, err := RuntimeInfo(ctx, c.client, n.Addr)
		if err != nil {
			return false, err.Error()
		}
		behind := table["dispatchBehindBytes"]
		return behind == "0", fmt.Sprintf("those of %s are %s bytes behind", n.Addr, behind)
	})
}

// ended says that the process of a peer does not run. Who has begun to lead since says nothing of that.
func (c *Cluster) ended(p replication.Peer) bool {
	return slices.ContainsFunc(c.Nodes, func(n *Node) bool { return n.Addr == p.Client && !n.Running() })
}

// await asks until something is so, at most openTimeout.
func (c *Cluster) await(ctx context.Context, what string, ask func() (ok bool, why string)) error {
	for end := time.Now().Add(openTimeout); ; {
		ok, why := ask()
		if ok {
			return nil
		}
		for _, n := range c.Nodes {
			if n.child != nil && !n.Running() && n.child.err != nil && n.child.cmd.ProcessState.Exited() {
				return fmt.Errorf("%s ended while waiting for %s: %w: %s", n.ID, what, n.child.err, n.child.lastLines())
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited %v for %s: %s", openTimeout, what, why)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// PIDs are the processes that run: the name server and the brokers.
func (c *Cluster) PIDs() (pids []int) {
	pids = append(pids, c.namesrv.pid())
	for _, n := range c.Nodes {
		if n.Running() {
			pids = append(pids, n.PID())
		}
	}
	return pids
}

// Broker is the address of the first broker.
func (c *Cluster) Broker() string { return c.Nodes[0].Addr }

// StopNodes asks all brokers to stop and waits for them: a master before its slaves, which confirm the last that it saves,
// the members of a group at once.
func (c *Cluster) StopNodes() error {
	var errs []error
	var asked []*child
	if c.spec.Repl == "async" || c.spec.Repl == "sync" {
		ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
		leader, _ := c.lead(ctx)
		cancel()
		if leader != nil {
			errs = append(errs, leader.child.end())
		}
	}
	for _, n := range c.Nodes {
		if n.Running() {
			_ = n.Signal(syscall.SIGCONT) // it may have been frozen
			n.child.term()
			asked = append(asked, n.child)
		}
	}
	for _, ch := range asked {
		errs = append(errs, ch.awaitEnd())
	}
	return errors.Join(errs...)
}

// Stop ends all processes. A second call does nothing.
func (c *Cluster) Stop() error {
	errs := []error{c.StopNodes()}
	if c.namesrv != nil && c.namesrv.running() {
		errs = append(errs, c.namesrv.end())
	}
	for _, l := range c.links {
		errs = append(errs, l.close())
	}
	c.links = nil
	if c.client != nil {
		errs = append(errs, c.client.Close())
	}
	return errors.Join(errs...)
}

// count adds what the processes use, and what the broker at addr, which takes the messages, tells.
func (c *Cluster) count(client *remoting.Client, to *bench.Counters, leader string) {
	countProcess(to, c.namesrv.pid())
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		var own bench.Counters
		countProcess(&own, n.PID())
		countProcess(to, n.PID())
		table, err := RuntimeInfo(ctx, client, n.Addr)
		if err != nil {
			continue // it is busy: the series has a gap
		}
		number := func(key string) *int64 {
			v, err := strconv.ParseInt(table[key], 10, 64)
			if err != nil {
				return nil
			}
			return &v
		}
		prepared := number("logPreparedBytes")
		if prepared != nil {
			to.PreparedBytes += *prepared
		}
		status, hops, told := replication.ParseInfo(table)
		if n.Addr == leader {
			to.Flushes, to.Writes = number("logFlushTimes"), number("logWriteTimes")
			if v := number("logUnpreparedSegments"); v != nil {
				to.Unprepared = *v
			}
			if v := number("logStalls"); v != nil {
				to.Stalls = *v
			}
		}
		if len(c.Nodes) == 1 || !told {
			continue
		}
		if to.Replicas == nil {
			to.Replicas = &bench.Replicas{}
		}
		r := to.Replicas
		node := bench.ReplicaNode{ID: n.ID, LogBytes: status.Written}
		if own.DiskBytes != nil && prepared != nil {
			node.Written, node.Prepared = *own.DiskBytes, *prepared
		}
		r.Nodes = append(r.Nodes, node)
		if n.Addr != leader {
			continue
		}
		r.Unflushed = max(0, status.Written-status.Durable)
		for _, p := range status.Peers {
			r.LagBytes = max(r.LagBytes, p.LagBytes)
		}
		hops.Each(func(name string, h replication.Hop) {
			r.Hops = append(r.Hops, bench.ReplicaHop{Name: name, Count: h.Count, Nanos: h.Nanos})
		})
	}
}
