package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/bench"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// cluster is what is loaded: children of this process, or somebody else's.
type cluster struct {
	brokers  []string // masters
	topology string
	config   map[string]string
	own      *Cluster // nil of the null server and of somebody else's
	null     *child
	pids     []int // of brokers of somebody else's on this machine
	stock    bool  // somebody else's, and not made of our brokers
}

// startOwn starts brokers of ours in an empty directory.
func startOwn(ctx context.Context, d Driver, c bench.Config) (*cluster, error) {
	own, err := Start(ctx, d, c.Dir, Spec{Flush: c.Cell.Flush, Write: c.Cell.Write, Repl: c.Cell.Repl, SegmentBytes: c.SegmentBytes})
	if err != nil {
		return nil, err
	}
	cl := &cluster{own: own, topology: fmt.Sprintf("namesrv, %d brokers", len(own.Nodes))}
	if len(own.Nodes) == 1 {
		cl.topology = "namesrv, 1 broker"
	}
	leader, err := own.Leader(ctx)
	if err != nil {
		return nil, errors.Join(err, own.Stop())
	}
	cl.brokers = []string{leader.Addr}
	cl.config = brokerConfig(ctx, leader.Addr)
	return cl, nil
}

// startNull starts the server that stores nothing.
func startNull(ctx context.Context, d Driver, c bench.Config) (_ *cluster, err error) {
	cl := &cluster{topology: "null server"}
	defer func() {
		if err != nil {
			err = errors.Join(err, cl.stop())
		}
	}()
	port, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	cl.brokers = []string{addr}
	if cl.null, err = d.launch(ctx, c.Dir, "rmqbench", nil, "null-server", "--listen="+addr); err != nil {
		return nil, err
	}
	return cl, cl.null.awaitAnswer(ctx, addr, protocol.RequestGetBrokerRuntimeInfo)
}

// findCluster asks NameServers for the masters of a running cluster.
func findCluster(ctx context.Context, client *remoting.Client, target string) (*cluster, error) {
	var errs []error
	for ns := range strings.SplitSeq(target, "+") {
		var info protocol.ClusterInfo
		if err := Ask(ctx, client, strings.TrimSpace(ns), protocol.NewRequest(protocol.RequestGetBrokerClusterInfo), &info); err != nil {
			errs = append(errs, err)
			continue
		}
		cl := &cluster{}
		versions := map[string]int{}
		for _, b := range info.BrokerAddrTable {
			addr, ok := b.BrokerAddrs[0]
			if !ok {
				continue
			}
			cl.brokers = append(cl.brokers, addr)
			if table, err := RuntimeInfo(ctx, client, addr); err == nil {
				versions[table["brokerVersionDesc"]]++
				cl.stock = cl.stock || table["logFlushTimes"] == "" // what only ours tells
			}
		}
		if len(cl.brokers) == 0 {
			return nil, fmt.Errorf("--target=%s knows no master", target)
		}
		slices.Sort(cl.brokers)
		for _, b := range cl.brokers {
			if pid := Listener(b); pid != 0 && !slices.Contains(cl.pids, pid) {
				cl.pids = append(cl.pids, pid)
			}
		}
		cl.topology = fmt.Sprintf("%d masters at %s, versions %v", len(cl.brokers), target, versions)
		cl.config = brokerConfig(ctx, cl.brokers[0])
		return cl, nil
	}
	return nil, fmt.Errorf("--target=%s: %w", target, errors.Join(errs...))
}

// brokerConfig is the configuration that a broker says it has; empty if it does not say.
func brokerConfig(ctx context.Context, addr string) map[string]string {
	config := map[string]string{}
	client, err := remoting.NewClient(ctx, remoting.ClientOptions{Name: "wire-config"})
	if err != nil {
		return config
	}
	defer func() { _ = client.Close() }() // it only asked
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	resp, err := client.Call(ctx, addr, protocol.NewRequest(protocol.RequestGetBrokerConfig))
	if err != nil || resp.Err() != nil {
		return config
	}
	for line := range strings.Lines(string(resp.Body)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			config[k] = v
		}
	}
	return config
}

func writeLines(name string, lines ...string) error {
	return os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// count adds what the processes use, those of brokers of ours apart.
func (cl *cluster) count(c *bench.Counters) {
	for _, pid := range cl.pids {
		countProcess(c, pid)
	}
	if cl.null != nil {
		countProcess(c, cl.null.pid())
	}
}

// countTimeout bounds how long a snapshot waits for a broker.
const countTimeout = 2 * time.Second

// stop ends the children.
func (cl *cluster) stop() error {
	var errs []error
	if cl.own != nil {
		errs = append(errs, cl.own.Stop())
	}
	if cl.null != nil {
		errs = append(errs, cl.null.end())
		cl.null = nil
	}
	return errors.Join(errs...)
}
