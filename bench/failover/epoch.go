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
	streams []*stream
	tail    *tail
	read    *ledger // what consumers have got
	from    map[queueKey]int64
	logFrom int64 // where the log began when the load did
	began   time.Time
	mono    int64 // CLOCK_MONOTONIC then
	trials  []*trial
	load    *run.Group
}

// begin starts a cluster, fills it, and puts it under load.
func (r *failoverRun) begin(ctx context.Context, links bool) (_ *epoch, err error) {
	r.made++
	e := &epoch{r: r, began: time.Now(), mono: bench.MonotonicNanos(), dir: filepath.Join(r.o.DataDir, fmt.Sprintf("cluster-%d", r.made))}
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
			if r.o.Target != "" {
				return findForeign(ctx, r.o, dir)
			}
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
	if err := e.startTail(ctx); err != nil {
		return nil, err
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
	if e.logFrom, err = logMin(ctx, e.net, addr); err != nil {
		return nil, err
	}
	if e.from, err = ends(ctx, e.net, addr, e.topics, r.o.Queues); err != nil {
		return nil, err
	}
	return e, e.startLoad(ctx)
}

// makeTopics makes the topics and waits until the NameServer knows the last one.
func (e *epoch) makeTopics(ctx context.Context) error {
	for i := range e.r.o.Topics {
		e.topics = append(e.topics, fmt.Sprintf("FailoverTopic%05d", i))
		for end := time.Now().Add(patience); ; sleep(ctx, 100*time.Millisecond) {
			err := e.makeTopic(ctx, e.topics[i])
			if err == nil {
				break
			}
			if ctx.Err() != nil || time.Now().After(end) {
				return err // not only a change of who leads
			}
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

// makeTopic makes one topic, or makes it what it is already.
func (e *epoch) makeTopic(ctx context.Context, topic string) error {
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return err
	}
	req := protocol.NewRequest(protocol.RequestUpdateAndCreateTopic)
	protocol.EncodeExt(req, protocol.CreateTopicHeader{
		Topic: topic, DefaultTopic: "TBW102", ReadQueueNums: int32(e.r.o.Queues), WriteQueueNums: int32(e.r.o.Queues),
		Perm: protocol.PermRead | protocol.PermWrite, TopicFilterType: "SINGLE_TAG",
	})
	return wire.Ask(ctx, e.net, addr, req, nil)
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
	left := e.r.o.Log / size
	for end := time.Now().Add(patience); ; sleep(ctx, 100*time.Millisecond) {
		acked, _, err := e.flood(ctx, inFlight, size, func(acked int64) bool { return acked >= left })
		if left -= acked; left <= 0 {
			return nil
		}
		if ctx.Err() != nil || err == nil || time.Now().After(end) {
			return err // not only a change of who leads
		}
	}
}

// calibrate finds out what the cluster takes at most under the conditions of the trials, and what the load is to be.
func (e *epoch) calibrate(ctx context.Context) error {
	f, o := e.r.f, e.r.o
	if o.Rate.Closed {
		most, err := e.most(ctx)
		if err != nil {
			return fmt.Errorf("most that it takes: %w", err)
		}
		f.MaxPerS = most
	}
	f.RatePerS = e.r.rateOf(f.MaxPerS)
	side := min(float64(sideRate), f.RatePerS/10)
	f.Clients = e.r.clients(side)
	f.Clients[0].RatePerS = f.RatePerS - side*float64(len(f.Clients)-1)
	return nil
}

// clients are the kinds of clients, each with a rate.
func (r *failoverRun) clients(rate float64) []results.FailoverClient {
	cs := []results.FailoverClient{
		{Name: clientProbe, What: "knows all nodes, tries them all at once when the one it sends to fails", RatePerS: rate},
		{Name: clientProduct, What: "the Go client as it comes: NameServer, hints of nodes that do not lead, asks the others when one says nothing for 500 ms", RatePerS: rate},
		{Name: clientRoute, What: "knows the NameServer alone and asks it every 50 ms when the node it sends to fails", RatePerS: rate},
	}
	if r.o.JavaClient != "" {
		cs = append(cs, results.FailoverClient{Name: clientJava, What: "an unmodified client as it comes, in a process of its own: " + r.o.JavaClient, RatePerS: rate})
	}
	return cs
}

// most is how many messages a second the cluster takes of a client that keeps many in flight, beside the other clients
// and with the consumers close behind.
func (e *epoch) most(ctx context.Context) (perS float64, err error) {
	o := e.r.o
	streams, err := e.makeStreams(ctx, e.r.clients(sideRate)[1:], calibrating)
	if err != nil {
		return 0, errors.Join(err, closeStreams(streams))
	}
	load := run.New(context.WithoutCancel(ctx), "failover/calibrate")
	for _, s := range streams {
		load.Go(s.name, s.run)
	}
	beside := func() (acks int64) {
		for _, s := range streams {
			acks += s.acks.Load()
		}
		return acks
	}
	got, until := e.consumed(), time.Now().Add(calibration)
	acked, took, err := e.flood(ctx, inFlight, o.Size, func(acked int64) bool {
		for o.Tail && time.Now().Before(until) && acked+beside()-(e.consumed()-got) > window {
			sleep(ctx, time.Millisecond) // a rate that consumers do not follow is none
		}
		return time.Now().After(until)
	})
	acked += beside()
	load.Cancel()
	if werr := load.Wait(); !errors.Is(werr, context.Canceled) {
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, closeStreams(streams)); err != nil {
		return 0, err
	}
	perS = float64(acked) / took.Seconds()
	what := fmt.Sprintf("the most that the cluster takes is %s: one client with %d messages in flight, and the other clients with %d a second each", results.FormatRate(perS), inFlight, sideRate)
	if o.Tail {
		what += ", as fast as the consumers follow"
	}
	o.say("%s", what)
	e.r.f.Notes = append(e.r.f.Notes, what)
	return perS, nil
}

func (e *epoch) consumed() int64 {
	if e.tail == nil {
		return 0
	}
	return e.tail.got.Load()
}

// calibrating numbers the streams of [epoch.most], beyond those of trials.
const calibrating = 16

// runID tells the streams of a run apart.
func (e *epoch) runID(stream int) uint64 {
	return uint64(e.r.o.Seed)<<32 | uint64(e.r.made)<<8 | uint64(stream) | 1<<62
}

func (e *epoch) clock() int64 { return int64(time.Since(e.began)) }

// startTail starts the consumers.
func (e *epoch) startTail(ctx context.Context) (err error) {
	var ids []uint64
	for i := range e.r.clients(0) {
		ids = append(ids, e.runID(i))
	}
	e.read = newLedger(ids...)
	if e.r.o.Tail {
		e.tail, err = newTail(ctx, e.t.NameServer(), e.topics, e.clock, e.read.take)
	}
	return err
}

// makeStreams makes clients with their schedules, numbered from first on. After an error those that were made come back.
func (e *epoch) makeStreams(ctx context.Context, clients []results.FailoverClient, first int) (streams []*stream, err error) {
	o := e.r.o
	for i, c := range clients {
		s := &stream{
			name: c.Name, rate: c.RatePerS, window: window, size: o.Size, topics: e.topics, queues: o.Queues, clock: e.clock, mono: e.mono,
			runID: e.runID(first + i), room: make(chan struct{}, 1),
		}
		switch c.Name {
		case clientProbe:
			nodes := e.t.Nodes()
			s.client, err = newRedirect(ctx, 2*time.Millisecond, o.Timeout, func(context.Context) []string { return nodes })
		case clientRoute:
			s.client, err = newRedirect(ctx, 50*time.Millisecond, o.Timeout, byRoute(e.net, e.t.NameServer(), e.topics[0]))
		case clientJava:
			s.client, err = newExternal(ctx, o.JavaClient, e.t.NameServer(), e.dir, window)
		default:
			s.client, err = newProduct(e.t.NameServer(), window)
		}
		if err != nil {
			return streams, fmt.Errorf("client %s: %w", c.Name, err)
		}
		streams = append(streams, s)
	}
	return streams, nil
}

func closeStreams(streams []*stream) error {
	var errs []error
	for _, s := range streams {
		if s.client != nil {
			errs = append(errs, s.client.Close())
			s.client = nil
		}
	}
	return errors.Join(errs...)
}

// startLoad starts the clients.
func (e *epoch) startLoad(ctx context.Context) (err error) {
	if e.streams, err = e.makeStreams(ctx, e.r.f.Clients, 0); err != nil {
		return err
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
	if err == nil && len(e.trials) > 0 && e.r.o.Target == "" {
		e.r.o.say("reading back %d trials", len(e.trials))
		err = e.readAll(ctx)
	}
	return errors.Join(err, e.close())
}

// stopLoad lets nothing new fall due, waits for answers, and closes the clients.
func (e *epoch) stopLoad() (err error) {
	if e.load != nil {
		e.load.Cancel()
		if err = e.load.Wait(); errors.Is(err, context.Canceled) {
			err = nil
		}
		e.load = nil
		for end := time.Now().Add(e.r.o.Timeout + 2*time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			open := int64(0)
			for _, s := range e.streams {
				open += s.inFlight.Load()
			}
			if open == 0 {
				break
			}
		}
	}
	if e.tail != nil {
		err = errors.Join(err, e.tail.close())
		e.tail = nil
	}
	return errors.Join(err, closeStreams(e.streams))
}

func (e *epoch) readAll(ctx context.Context) error {
	_, addr, err := e.t.Leader(ctx)
	if err != nil {
		return err
	}
	var ids []uint64
	for _, s := range e.streams {
		ids = append(ids, s.runID)
	}
	found := newLedger(ids...)
	if err := readBack(ctx, e.net, addr, e.from, found); err != nil {
		return err
	}
	logFrom, err := logMin(ctx, e.net, addr) // behind the reading: what it has not met has not gone
	if err != nil {
		return err
	}
	removed := logFrom - e.logFrom
	if removed > 0 {
		why := fmt.Sprintf("cluster %d: retention removed %d bytes of log; messages below have expired and its trials are void: is the disk full, or was the broker's configuration changed?", e.r.made, removed)
		e.r.o.say("%s", why)
		e.r.f.Notes = append(e.r.f.Notes, why)
	}
	e.audit(found, e.read, removed)
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
