package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rmq/client"
	"rmq/remoting/protocol"
)

func brokerCommands() []command {
	clean := func(what string, call func(*client.Admin, context.Context, string) error) func(*flags) action {
		return func(f *flags) action { return cleanAction(f, what, call) }
	}
	return []command{
		{"brokerStatus", "Show a broker's figures", brokerStatus},
		{"brokerConsumeStats", "Show how far every group of a broker is", brokerConsumeStats},
		{"getBrokerConfig", "Show the configuration of brokers", getBrokerConfig},
		{"updateBrokerConfig", "Change a key of the configuration of brokers", updateBrokerConfig},
		{"cleanExpiredCQ", "Remove queues whose messages are gone", clean("expired consume queues", (*client.Admin).CleanExpiredConsumeQueues)},
		{"cleanUnusedTopic", "Remove queues of topics that are gone", clean("unused topics", (*client.Admin).CleanUnusedTopics)},
		{"deleteExpiredCommitLog", "Delete files of the log past their time", clean("expired log files", (*client.Admin).DeleteExpiredCommitLog)},
		{"haStatus", "Show how the replicas of a broker keep up", haStatus},
	}
}

// values are names with values, shown sorted.
type values struct {
	Broker string            `json:"broker"`
	Values map[string]string `json:"values"`

	prefix bool // name the broker on every line
	head   string
}

type valueList []values

func (l valueList) text(p *page) {
	for _, v := range l {
		if v.head != "" {
			p.line("============%s============", v.head)
		}
		for _, name := range slices.Sorted(maps.Keys(v.Values)) {
			switch {
			case v.head != "":
				p.line("%-50s=  %s", name, v.Values[name])
			case v.prefix:
				p.line("%-24s %-32s: %s", v.Broker, name, v.Values[name])
			default:
				p.line("%-32s: %s", name, v.Values[name])
			}
		}
	}
}

func brokerStatus(f *flags) action {
	to := f.target("ask")
	f.choose("broker-addr", "cluster-name")
	return func(ctx context.Context, t *tool) (any, error) {
		return eachOf(ctx, t, to.all, func(addr string) (values, error) {
			info, err := t.admin.RuntimeInfo(ctx, addr)
			return values{Broker: addr, Values: info, prefix: to.cluster != ""}, err
		})
	}
}

// eachOf gathers what the brokers of a target say; those that fail do not stop the others.
func eachOf(ctx context.Context, t *tool, addrs func(context.Context, *tool) ([]string, error), ask func(addr string) (values, error)) (any, error) {
	list, err := addrs(ctx, t)
	if err != nil {
		return nil, err
	}
	out := valueList{}
	var errs []error
	for _, addr := range list {
		v, err := ask(addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, v)
	}
	return out, errors.Join(errs...)
}

func getBrokerConfig(f *flags) action {
	to := f.target("ask")
	f.choose("broker-addr", "cluster-name")
	return func(ctx context.Context, t *tool) (any, error) {
		masterOf := map[string]string{} // of a slave
		if to.cluster != "" {
			info, err := t.admin.Cluster(ctx)
			if err != nil {
				return nil, err
			}
			for _, b := range info.BrokerAddrTable {
				for _, addr := range b.BrokerAddrs {
					masterOf[addr] = b.BrokerAddrs[0]
				}
			}
		}
		return eachOf(ctx, t, to.all, func(addr string) (values, error) {
			cfg, err := t.admin.BrokerConfig(ctx, addr)
			head := addr
			switch master := masterOf[addr]; {
			case to.cluster == "":
			case master == addr:
				head = "Master: " + addr
			case master == "":
				head = "No Master=====Slave: " + addr
			default:
				head = "My Master: " + master + "=====Slave: " + addr
			}
			return values{Broker: addr, Values: cfg, head: head}, err
		})
	}
}

func updateBrokerConfig(f *flags) action {
	to := f.target("change")
	f.choose("broker-addr", "cluster-name")
	slaves := f.truth("update-all-broker", "a", false, "with -c: slaves too")
	key := f.need("key", "k", "name of the key")
	value := f.need("value", "v", "its new value")
	return func(ctx context.Context, t *tool) (any, error) {
		addrs := to.masters
		if *slaves {
			addrs = to.all
		}
		return perBroker(ctx, t, addrs, "update broker config success, %s", func(addr string) error {
			return t.admin.UpdateBrokerConfig(ctx, addr, map[string]string{*key: *value})
		})
	}
}

// done names the brokers at which something was done.
type done struct {
	Brokers []string `json:"brokers"`
}

// perBroker does something at every broker of a target and reports with a line for each. It goes on where one
// refuses.
func perBroker(ctx context.Context, t *tool, addrs func(context.Context, *tool) ([]string, error), line string, do func(addr string) error) (any, error) {
	list, err := addrs(ctx, t)
	if err != nil {
		return nil, err
	}
	d := &done{Brokers: []string{}}
	r := &report{data: d}
	var errs []error
	for _, addr := range list {
		if err := do(addr); err != nil {
			errs = append(errs, err)
			continue
		}
		d.Brokers = append(d.Brokers, addr)
		r.and(line, addr)
	}
	return r, errors.Join(errs...)
}

// cleanAction has brokers clean up: one, those of a cluster, or all.
func cleanAction(f *flags, what string, call func(*client.Admin, context.Context, string) error) action {
	addr := f.address("broker-addr", "only the broker at this `host:port`")
	cluster := f.text("cluster", "c", "", "only the brokers of this cluster (default: of all)")
	return func(ctx context.Context, t *tool) (any, error) {
		addrs := func(ctx context.Context, t *tool) ([]string, error) {
			if *addr != "" {
				return []string{*addr}, nil
			}
			brokers, err := listBrokers(ctx, t, *cluster)
			var out []string
			for _, b := range brokers {
				out = append(out, b.addr)
			}
			return out, err
		}
		return perBroker(ctx, t, addrs, "success: "+what+" of %s", func(addr string) error { return call(t.admin, ctx, addr) })
	}
}

// lagRow is how far a group is in a queue.
type lagRow struct {
	Topic    string `json:"topic" col:"#Topic"`
	Group    string `json:"group" col:"#Group"`
	Broker   string `json:"broker" col:"#Broker Name"`
	Queue    int32  `json:"queueId" col:"#QID"`
	Offset   int64  `json:"brokerOffset" col:"#Broker Offset"`
	Consumer int64  `json:"consumerOffset" col:"#Consumer Offset"`
	Diff     int64  `json:"diff" col:"#Diff"`
	LastTime string `json:"lastTime" col:"#LastTime"`
}

type lagTable struct {
	Rows      []lagRow `json:"queues"`
	DiffTotal int64    `json:"diffTotal"`
}

func (l *lagTable) text(p *page) {
	p.columns(l.Rows)
	p.line("")
	p.line("Diff Total: %d", l.DiffTotal)
}

func brokerConsumeStats(f *flags) action {
	addr := f.needAddress("broker-addr", "the broker's `host:port`")
	timeout := f.number("timeout-millis", "t", 50_000, "how long the broker may take, in milliseconds")
	level := f.number("level", "l", 0, "only queues that are at least so many messages behind")
	ordered := f.truth("order", "o", false, "only groups that consume orderly")
	return func(ctx context.Context, t *tool) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(*timeout)*time.Millisecond)
		defer cancel()
		list, err := t.admin.BrokerConsumeStats(ctx, *addr, *ordered)
		if err != nil {
			return nil, err
		}
		out := &lagTable{Rows: []lagRow{}, DiffTotal: list.TotalDiff}
		for _, groups := range list.ConsumeStatsList {
			for _, group := range slices.Sorted(maps.Keys(groups)) {
				for _, s := range groups[group] {
					for _, q := range sortedQueues(s.OffsetTable) {
						o := s.OffsetTable[q]
						if diff := o.BrokerOffset - o.ConsumerOffset; diff >= *level {
							out.Rows = append(out.Rows, lagRow{q.Topic, group, q.BrokerName, q.QueueID, o.BrokerOffset, o.ConsumerOffset, diff, stampSeconds(o.LastTimestamp)})
						}
					}
				}
			}
		}
		return out, nil
	}
}

// sortedQueues are the queues of a table in order.
func sortedQueues[V any](table map[client.MessageQueue]V) []client.MessageQueue {
	return slices.SortedFunc(maps.Keys(table), client.MessageQueue.Compare)
}

// haState is how replication goes at one broker.
type haState struct {
	Broker string `json:"broker"`
	*protocol.HARuntimeInfo
}

type haList []haState

type haRow struct {
	Addr   string  `col:"#SlaveAddr"`
	Ack    int64   `col:"#SlaveAckOffset"`
	Diff   int64   `col:"#Diff"`
	Speed  float64 `col:"#TransferSpeed(KB/s)" fmt:"%.2f"`
	Status string  `col:"#Status"`
	From   int64   `col:"#TransferFromWhere"`
}

func (l haList) text(p *page) {
	for _, s := range l {
		if !s.Master {
			c := s.HAClientRuntimeInfo
			p.line("\n#SlaveAddr\t%s", s.Broker)
			p.line("#MasterAddr\t%s", c.MasterAddr)
			p.line("#CommitLogMaxOffset\t%d", c.MaxOffset)
			p.line("#TransferSpeed(KB/s)\t%.2f", float64(c.TransferredByteInSecond)/1024)
			if c.LastReadTimestamp > 0 { // one of Apache's tells
				p.line("#LastReadTime\t%s", stamp(c.LastReadTimestamp))
				p.line("#LastWriteTime\t%s", stamp(c.LastWriteTimestamp))
				p.line("#MasterFlushOffset\t%d", c.MasterFlushOffset)
			}
			continue
		}
		p.line("\n#MasterAddr\t%s", s.Broker)
		p.line("#MasterCommitLogMaxOffset\t%d", s.MasterCommitLogMaxOffset)
		p.line("#SlaveNum\t%d", len(s.HAConnectionInfo))
		p.line("#InSyncSlaveNum\t%d", s.InSyncSlaveNums)
		rows := []haRow{}
		for _, c := range s.HAConnectionInfo {
			status := "Fall Behind"
			if c.InSync {
				status = "OK"
			}
			rows = append(rows, haRow{c.Addr, c.SlaveAckOffset, c.Diff, float64(c.TransferredByteInSecond) / 1024, status, c.TransferFromWhere})
		}
		p.columns(rows)
	}
}

// haNodes are the brokers that are meant; all, if none were named.
func haNodes(ctx context.Context, t *tool, to *target) ([]string, error) {
	if to.addr != "" || to.cluster != "" {
		return to.all(ctx, t)
	}
	brokers, err := listBrokers(ctx, t, "")
	var addrs []string
	for _, b := range brokers {
		addrs = append(addrs, b.addr)
	}
	return addrs, err
}

func haStatus(f *flags) action {
	to := f.target("ask") // neither: all
	interval := f.number("interval", "i", 0, "show it again every so many seconds")
	return func(ctx context.Context, t *tool) (any, error) {
		return every(ctx, t, *interval, func() (any, error) {
			addrs, err := haNodes(ctx, t, to)
			if err != nil {
				return nil, err
			}
			out := haList{}
			var errs []error
			for _, addr := range addrs {
				info, err := t.admin.HAStatus(ctx, addr)
				var refused *protocol.RemoteError
				if errors.As(err, &refused) && refused.Code == protocol.ResponseRequestCodeNotSupported {
					err = errors.New("it is older than RocketMQ 5 and does not tell how its replication goes: compare commitLogMaxOffset in mqadmin brokerStatus of master and slave")
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("broker %s: %w", addr, err))
					continue
				}
				out = append(out, haState{addr, info})
			}
			return out, errors.Join(errs...)
		})
	}
}
