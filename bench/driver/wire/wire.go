package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"rmq/bench"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/results"
)

// Driver implements [bench.Driver].
type Driver struct {
	// Null starts a null server instead of a broker: rmqbench itself, which answers without storing.
	Null bool
	// BinDir holds our programs; "": the directory of this one.
	BinDir string
	// FaultsDir holds the mqbroker whose links can be cut (make build-faults), for [Spec.Links].
	FaultsDir string
	// BrokerConf is more lines for the configuration of the broker.
	BrokerConf []string
	// Pause holds process ids of the running cluster that is a target. They are stopped (SIGSTOP) while something else
	// is measured, since an idle JVM takes its share of the cores, and what they use counts as the target's.
	Pause []int
}

// Name is "wire", or "null-server".
func (d Driver) Name() string {
	if d.Null {
		return "null-server"
	}
	return "wire"
}

// Shared implements [bench.Shared].
func (d Driver) Shared(c results.Cell) bool { return c.Extra[FactorTarget] != "" }

// Factors of a cell that only this driver has, in [results.Cell].Extra.
const (
	FactorHeader = "header" // json, binary
	FactorBatch  = "batch"  // messages a request
	// FactorTarget is the address of the NameServers of a running cluster, separated by +; without it one of ours
	// is started.
	FactorTarget = "target"
)

const (
	openTimeout  = 60 * time.Second // for a cluster of ours to answer
	sendTimeout  = 30 * time.Second // the harness books what takes long, it does not give up
	adminTimeout = 10 * time.Second
)

// Open starts or finds the cluster and makes the topics.
func (d Driver) Open(ctx context.Context, c bench.Config) (_ bench.Session, err error) {
	s := &session{driver: d, cell: c, target: c.Cell.Extra[FactorTarget], batch: 1, stored: !d.Null, lanes: max(1, c.Cell.Producers/max(1, c.Workers))}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	if h := c.Cell.Extra[FactorHeader]; h == "binary" {
		s.serialize = protocol.Binary
	}
	if b := c.Cell.Extra[FactorBatch]; b != "" {
		if s.batch, err = strconv.Atoi(b); err != nil || s.batch < 1 {
			return nil, fmt.Errorf("batch=%s is no number of messages", b)
		}
	}
	s.client, err = remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "wire", CallTimeout: sendTimeout, MaxUnsentBytes: 256 << 20})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.target != "" {
		return s, s.find(ctx)
	}
	if err := d.signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	if d.Null {
		s.cluster, err = startNull(ctx, d, c)
		return s, err
	}
	if s.cluster, err = startOwn(ctx, d, c); err != nil {
		return nil, err
	}
	s.lead.found(s.cluster.brokers[0])
	return s, s.makeTopics(ctx)
}

// session loads one cluster.
type session struct {
	driver    Driver
	cell      bench.Config
	target    string
	client    *remoting.Client
	ctx       context.Context // ends with the session
	end       context.CancelFunc
	cluster   *cluster
	lead      lead
	tail      *tail // nil without consumers
	serialize protocol.Serialize
	batch     int
	lanes     int // connections of a worker
	stored    bool
	acked     atomic.Int64 // messages
	bytes     atomic.Int64 // of log that they took
	senders   int
}

// Lanes implements [bench.Laned].
func (s *session) Lanes() (lanes, run int) { return s.lanes, s.batch }

// makeTopics makes the topics on every broker; where another node may take over, by whoever leads.
func (s *session) makeTopics(ctx context.Context) error {
	began := time.Now()
	for _, addr := range s.cluster.brokers {
		route := s.lead.route.Load()
		err := s.makeTopicsAt(ctx, addr)
		for end := time.Now().Add(openTimeout); err != nil && s.follows() && time.Now().Before(end) && pause(ctx, 100*time.Millisecond) == nil; {
			s.lead.lose(route)
			var lerr error
			if addr, route, lerr = s.leader(ctx); lerr != nil {
				return errors.Join(err, lerr)
			}
			err = s.makeTopicsAt(ctx, addr)
		}
		if err != nil {
			return err
		}
	}
	if s.cell.Event != nil {
		s.cell.Event("topics", fmt.Sprintf("%d made", len(s.cell.Topics)), time.Since(began))
	}
	return nil
}

// makeTopicsAt makes the topics on one broker, many at a time. Those that are there already stay as they are.
func (s *session) makeTopicsAt(ctx context.Context, addr string) error {
	const together = 64
	conn, err := s.client.Conn(ctx, addr)
	if err != nil {
		return err
	}
	failed := make(chan error, len(s.cell.Topics))
	slots := make(chan struct{}, together)
	for _, topic := range s.cell.Topics {
		slots <- struct{}{}
		req := protocol.NewRequest(protocol.RequestUpdateAndCreateTopic)
		protocol.EncodeExt(req, protocol.CreateTopicHeader{
			Topic: topic, DefaultTopic: "TBW102", ReadQueueNums: int32(s.cell.Cell.Queues), WriteQueueNums: int32(s.cell.Cell.Queues),
			Perm: protocol.PermRead | protocol.PermWrite, TopicFilterType: "SINGLE_TAG",
		})
		err := conn.Start(&remoting.Call{Request: req, Timeout: sendTimeout, Done: func(call *remoting.Call) {
			err := call.Err
			if err == nil {
				err = call.Response.Err()
			}
			failed <- err
			<-slots
		}})
		if err != nil {
			return fmt.Errorf("make topic %s: %w", topic, err)
		}
	}
	for range s.cell.Topics {
		select {
		case err := <-failed:
			if err != nil {
				return fmt.Errorf("make topics at %s: %w", addr, err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// removeTopics takes the topics out of somebody else's cluster.
func (s *session) removeTopics() error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	var errs []error
	for _, topic := range s.cell.Topics {
		for _, addr := range s.cluster.brokers {
			req := protocol.NewRequest(protocol.RequestDeleteTopicInBroker)
			protocol.EncodeExt(req, protocol.TopicHeader{Topic: topic})
			errs = append(errs, Ask(ctx, s.client, addr, req, nil))
		}
		for ns := range strings.SplitSeq(s.target, "+") {
			req := protocol.NewRequest(protocol.RequestDeleteTopicInNameServer)
			protocol.EncodeExt(req, protocol.DeleteTopicInNameServerHeader{Topic: topic})
			errs = append(errs, Ask(ctx, s.client, strings.TrimSpace(ns), req, nil))
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("remove topics: %w", err)
		}
	}
	return nil
}

// Counters implements [bench.Session].
func (s *session) Counters() bench.Counters {
	c := bench.Counters{LogBytes: s.bytes.Load()}
	s.cluster.count(&c)
	if s.cluster.own != nil {
		s.cluster.own.count(s.client, &c, s.lead.addr.Load().(string))
	}
	return c
}

// Config implements [bench.Session].
func (s *session) Config() map[string]string {
	m := maps.Clone(s.cluster.config)
	if m == nil {
		m = map[string]string{}
	}
	m["topology"], m["connections"] = s.cluster.topology, strconv.Itoa(s.lanes*max(1, s.cell.Workers))
	return m
}

// Sync implements [bench.Session]: it waits until every broker that runs says that it has nothing left to flush.
func (s *session) Sync(ctx context.Context) error {
	if !s.stored {
		return nil
	}
	brokers := s.cluster.brokers
	if own := s.cluster.own; own != nil {
		if err := own.CaughtUp(ctx); err != nil {
			return err
		}
		brokers = nil
		for _, n := range own.Nodes {
			if n.Running() {
				brokers = append(brokers, n.Addr)
			}
		}
	}
	for end := time.Now().Add(openTimeout); ; {
		left := false
		for _, addr := range brokers {
			table, err := RuntimeInfo(ctx, s.client, addr)
			if err != nil {
				return err
			}
			left = left || !nothingLeft(table["remainHowManyDataToFlush"])
		}
		if !left {
			return s.tail.caughtUp(ctx, s.acked.Load())
		}
		if time.Now().After(end) {
			return fmt.Errorf("not everything was flushed within %v", openTimeout)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// Stock implements [bench.Replicated].
func (s *session) Stock() bool { return s.cluster.stock }

// CaughtUp implements [bench.Replicated]. Slaves of somebody else's are asked for through GET_BROKER_HA_STATUS.
func (s *session) CaughtUp(ctx context.Context) error {
	if own := s.cluster.own; own != nil {
		return own.CaughtUp(ctx)
	}
	if s.cell.Cell.Repl == "raft" || !s.stored { // the ack has said it
		return nil
	}
	for end := time.Now().Add(openTimeout); ; {
		var behind []string
		for _, addr := range s.cluster.brokers {
			var info protocol.HARuntimeInfo
			if err := Ask(ctx, s.client, addr, protocol.NewRequest(protocol.RequestGetBrokerHAStatus), &info); err != nil {
				return fmt.Errorf("how far the slaves are: %w", err)
			}
			if len(info.HAConnectionInfo) == 0 {
				return fmt.Errorf("--repl=%s and no slave is connected to %s", s.cell.Cell.Repl, addr)
			}
			for _, c := range info.HAConnectionInfo {
				if c.SlaveAckOffset < info.MasterCommitLogMaxOffset {
					behind = append(behind, fmt.Sprintf("%s of %s by %d bytes", c.Addr, addr, info.MasterCommitLogMaxOffset-c.SlaveAckOffset))
				}
			}
		}
		if len(behind) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("slaves are behind after %v: %s", openTimeout, strings.Join(behind, ", "))
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// nothingLeft reads an amount as Java prints it: "0 B", "0.0 KiB".
func nothingLeft(text string) bool {
	for _, r := range text {
		if r >= '1' && r <= '9' {
			return false
		}
	}
	return true
}

// RuntimeInfo asks a broker for its state.
func RuntimeInfo(ctx context.Context, client *remoting.Client, addr string) (map[string]string, error) {
	var table protocol.KVTable
	if err := Ask(ctx, client, addr, protocol.NewRequest(protocol.RequestGetBrokerRuntimeInfo), &table); err != nil {
		return nil, err
	}
	return table.Table, nil
}

// Ask calls addr, within ten seconds, and decodes the body of the answer into body, if it is not nil.
func Ask(ctx context.Context, client *remoting.Client, addr string, req *protocol.Command, body any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	resp, err := client.Call(ctx, addr, req)
	if err == nil {
		err = resp.Err()
	}
	if err == nil && body != nil {
		err = protocol.DecodeBody(resp.Body, body)
	}
	if err != nil {
		return fmt.Errorf("%v at %s: %w", protocol.RequestCode(req.Code), addr, err)
	}
	return nil
}

// Close implements [bench.Session].
func (s *session) Close() error {
	var errs []error
	s.end()
	s.tail.stop()
	if s.cluster != nil && s.target != "" {
		errs = append(errs, s.removeTopics())
	}
	errs = append(errs, s.client.Close())
	if s.cluster != nil {
		errs = append(errs, s.cluster.stop())
		s.cluster = nil
	}
	if s.target == "" {
		errs = append(errs, s.driver.signal(syscall.SIGCONT))
	}
	return errors.Join(errs...)
}
