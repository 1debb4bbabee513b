package failover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/results"
)

// epoch is one cluster from its start to its audit.
type epoch struct {
	r       *failoverRun
	dir     string
	t       Target
	net     *remoting.Client
	topics  []string
	clock   func() int64
	streams []*stream
	tail    *tail
	read    *ledger // what consumers have got
	from    map[queueKey]int64
	trials  []*trial
	load    *run.Group
}

// begin starts a cluster, fills it, and puts it under load.
func (r *failoverRun) begin(ctx context.Context, links bool) (_ *epoch, err error) {
	r.made++
	e := &epoch{r: r, dir: filepath.Join(r.o.DataDir, fmt.Sprintf("cluster-%d", r.made))}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return nil, err
	}
	r.o.say("starting cluster %d", r.made)
	start := r.o.Start
	if start == nil {
		start = func(ctx context.Context, dir string, links bool) (Target, error) {
			return startOwn(ctx, r.o, dir, links)
		}
	}
	if e.t, err = start(ctx, e.dir, links); err != nil {
		return nil, err
	}
	if e.net, err = remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "failover-admin", MaxUnsentBytes: 256 << 20}); err != nil {
		return nil, err
	}
	if err := e.makeTopics(ctx); err != nil {
		return nil, err
	}
	if err := e.fill(ctx); err != nil {
		return nil, fmt.Errorf("fill the log: %w", err)
	}
	if r.f.RatePerS == 0 {
		if err := e.calibrate(ctx); err != nil {
			return nil, err
		}
	}
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return nil, err
	}
	if e.from, err = ends(ctx, e.net, addr, e.topics, r.o.Queues); err != nil {
		return nil, err
	}
	return e, e.startLoad(ctx)
}

// makeTopics makes the topics and waits until the NameServer knows the last one.
func (e *epoch) makeTopics(ctx context.Context) error {
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return err
	}
	for i := range e.r.o.Topics {
		e.topics = append(e.topics, fmt.Sprintf("FailoverTopic%05d", i))
		req := protocol.NewRequest(protocol.RequestUpdateAndCreateTopic)
		protocol.EncodeExt(req, protocol.CreateTopicHeader{
			Topic: e.topics[i], DefaultTopic: "TBW102", ReadQueueNums: int32(e.r.o.Queues), WriteQueueNums: int32(e.r.o.Queues),
			Perm: protocol.PermRead | protocol.PermWrite, TopicFilterType: "SINGLE_TAG",
		})
		if err := wire.Ask(ctx, e.net, addr, req, nil); err != nil {
			return err
		}
	}
	find := byRoute(e.net, e.t.NameServer(), e.topics[len(e.topics)-1])
	for end := time.Now().Add(patience); len(find(ctx)) == 0; sleep(ctx, 20*time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("the NameServer has no route of %s after %v", e.topics[len(e.topics)-1], patience)
		}
	}
	return nil
}

// tooLate are answers of a cluster that is given more than it takes.
var tooLate = []protocol.ResponseCode{
	protocol.ResponseFlushDiskTimeout, protocol.ResponseFlushSlaveTimeout, protocol.ResponseSlaveNotAvailable, protocol.ResponseSystemBusy,
}

// flood keeps n messages of some size in flight, spread over all queues, until stop says so.
func (e *epoch) flood(ctx context.Context, n, size int, stop func(acked int64) bool) (acked int64, took time.Duration, err error) {
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return 0, 0, err
	}
	conn, err := e.net.Dial(ctx, addr)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close() }() // all has been answered
	body := bench.NewPayload(0, size, 1, uint64(e.r.o.Seed)).Body()
	slots := make(chan struct{}, n)
	var ok atomic.Int64
	var failure atomic.Pointer[error]
	fail := func(err error) { failure.CompareAndSwap(nil, &err) }
	began := time.Now()
	for i := 0; ctx.Err() == nil && failure.Load() == nil && !stop(ok.Load()); i++ {
		slots <- struct{}{}
		m := &sent{topic: e.topics[i%len(e.topics)], queue: int32(i / len(e.topics) % e.r.o.Queues), body: body, at: time.Now()}
		err := conn.Start(&remoting.Call{Build: m.build, Timeout: patience, Done: func(c *remoting.Call) {
			switch {
			case c.Err != nil:
				fail(c.Err)
			case slices.Contains(tooLate, protocol.ResponseCode(c.Response.Code)): // it does not count
			case c.Response.Code != int32(protocol.ResponseSuccess):
				fail(c.Response.Err())
			default:
				ok.Add(1)
			}
			<-slots
		}})
		if err != nil {
			<-slots
			fail(err)
		}
	}
	took = time.Since(began)
	for range n {
		slots <- struct{}{}
	}
	if err := failure.Load(); err != nil {
		return ok.Load(), took, *err
	}
	if ctx.Err() != nil {
		return ok.Load(), took, context.Cause(ctx)
	}
	return ok.Load(), took, nil
}

// fill writes the log that there is before the first trial.
func (e *epoch) fill(ctx context.Context) error {
	const size, inFlight = 64 << 10, 32
	if e.r.o.Log == 0 {
		return nil
	}
	e.r.o.say("writing %s of log", results.FormatSize(e.r.o.Log))
	_, _, err := e.flood(ctx, inFlight, size, func(acked int64) bool { return acked*size >= e.r.o.Log })
	return err
}

// calibrate finds out what the cluster takes at most, and what the load is to be.
func (e *epoch) calibrate(ctx context.Context) error {
	f := e.r.f
	if e.r.o.Rate.Closed {
		end := time.Now().Add(calibration)
		n, took, err := e.flood(ctx, inFlight, e.r.o.Size, func(int64) bool { return time.Now().After(end) })
		if err != nil {
			return fmt.Errorf("most that it takes: %w", err)
		}
		f.MaxPerS = float64(n) / took.Seconds()
		e.r.o.say("it takes %s at most with %d in flight", results.FormatRate(f.MaxPerS), inFlight)
	}
	f.RatePerS = e.r.rateOf(f.MaxPerS)
	side := min(float64(sideRate), f.RatePerS/10)
	f.Clients = []results.FailoverClient{
		{Name: clientProbe, What: "knows all nodes, tries them all at once when the one it sends to fails", RatePerS: f.RatePerS - 2*side},
		{Name: clientProduct, What: "the Go client as it comes: NameServer, hints of nodes that do not lead", RatePerS: side},
		{Name: clientRoute, What: "knows the NameServer alone and asks it every 50 ms when the node it sends to fails", RatePerS: side},
	}
	return nil
}

// startLoad starts consumers and clients.
func (e *epoch) startLoad(ctx context.Context) error {
	o := e.r.o
	began, mono := time.Now(), bench.MonotonicNanos()
	e.clock = func() int64 { return int64(time.Since(began)) }
	for i, c := range e.r.f.Clients {
		s := &stream{
			name: c.Name, rate: c.RatePerS, window: window, size: o.Size, topics: e.topics, queues: o.Queues, clock: e.clock, mono: mono,
			runID: uint64(o.Seed)<<32 | uint64(e.r.made)<<8 | uint64(i) | 1<<62, room: make(chan struct{}, 1),
		}
		var err error
		switch c.Name {
		case clientProbe:
			nodes := e.t.Nodes()
			s.client, err = newRedirect(ctx, 2*time.Millisecond, o.Timeout, func(context.Context) []string { return nodes })
		case clientRoute:
			s.client, err = newRedirect(ctx, 50*time.Millisecond, o.Timeout, byRoute(e.net, e.t.NameServer(), e.topics[0]))
		default:
			s.client, err = newProduct(e.t.NameServer(), window)
		}
		if err != nil {
			return err
		}
		e.streams = append(e.streams, s)
	}
	e.read = newLedger(e.streams)
	if o.Tail {
		var err error
		if e.tail, err = newTail(ctx, e.t.NameServer(), e.topics, e.clock, e.read.take); err != nil {
			return err
		}
	}
	e.load = run.New(context.WithoutCancel(ctx), "failover/load")
	for _, s := range e.streams {
		e.load.Go(s.name, s.run)
	}
	return nil
}

// end stops the load, reads everything back and ends the cluster.
func (e *epoch) end(ctx context.Context) error {
	err := e.stopLoad()
	if err == nil && len(e.trials) > 0 {
		e.r.o.say("reading back %d trials", len(e.trials))
		err = e.readAll(ctx)
	}
	return errors.Join(err, e.close())
}

// stopLoad lets nothing new fall due, waits for answers, and closes the clients.
func (e *epoch) stopLoad() error {
	if e.load == nil {
		return nil
	}
	e.load.Cancel()
	err := e.load.Wait()
	e.load = nil
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	for end := time.Now().Add(e.r.o.Timeout + 2*time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		open := int64(0)
		for _, s := range e.streams {
			open += s.inFlight.Load()
		}
		if open == 0 {
			break
		}
	}
	if e.tail != nil {
		err = errors.Join(err, e.tail.close())
		e.tail = nil
	}
	for _, s := range e.streams {
		if s.client != nil {
			err = errors.Join(err, s.client.Close())
			s.client = nil
		}
	}
	return err
}

func (e *epoch) readAll(ctx context.Context) error {
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return err
	}
	found := newLedger(e.streams)
	if err := readBack(ctx, e.net, addr, e.from, found); err != nil {
		return err
	}
	lost := e.audit(found, e.read)
	e.r.f.LostBetween += lost
	if why := found.missingAt.Load(); why != nil {
		e.r.f.Notes = append(e.r.f.Notes, fmt.Sprintf("cluster %d: %d offsets hold no message: %s", e.r.made, found.missing.Load(), *why))
	}
	return nil
}

func (e *epoch) close() error {
	err := e.stopLoad()
	if e.net != nil {
		err = errors.Join(err, e.net.Close())
		e.net = nil
	}
	if e.t != nil {
		err = errors.Join(err, e.t.Stop())
		e.t = nil
	}
	if !e.r.o.Keep {
		err = errors.Join(err, os.RemoveAll(e.dir))
	}
	return err
}
