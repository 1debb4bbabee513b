package remoting

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
)

// counters are what one connection did; each is written by one goroutine at a time.
type counters struct {
	reads, writes, sendfiles, bytesIn, bytesOut, requests, responses, late atomic.Int64
}

func (n *counters) addTo(s *Stats) {
	s.Reads += n.reads.Load()
	s.Writes += n.writes.Load()
	s.Sendfiles += n.sendfiles.Load()
	s.BytesIn += n.bytesIn.Load()
	s.BytesOut += n.bytesOut.Load()
	s.Requests += n.requests.Load()
	s.Responses += n.responses.Load()
	s.Late += n.late.Load()
}

// Stats is what a server or client did since it began, over all its connections, the closed ones included.
type Stats struct {
	Conns             int   // open now
	Opened            int64 // connections ever
	Reads, Writes     int64 // system calls that moved bytes or tried to
	Sendfiles         int64 // of the writes, those that moved a file
	BytesIn, BytesOut int64
	Requests          int64 // handed to the handler
	Responses         int64 // received
	Late              int64 // of those, answers to no outstanding call
	Unsent            int64 // bytes queued now
}

// limits are the options that servers and clients share.
type limits struct {
	maxFrame     int
	maxUnsent    int64
	maxUnsentAll int64 // 0: no limit
	idleTimeout  time.Duration
	slowTimeout  time.Duration
	callTimeout  time.Duration
	tick         time.Duration
	holdReaders  bool // too much unsent stops reading
}

// endpoint is what servers and clients share: the connections, and the goroutines that serve them all. It owns
// "clock", which ticks, ends calls and looks for dead peers, and one "flusher" a processor.
type endpoint struct {
	group   *run.Group
	handler Handler
	log     *slog.Logger
	flusher flusher

	limits

	// waiters belong to the endpoint, not the process: their channels must not leave the bubble of a test in virtual time.
	waiters sync.Pool

	epoch  time.Time
	clock  atomic.Int64 // since epoch, in ns, as of the last tick
	unsent atomic.Int64 // of all connections with more than flushBytes

	mu     sync.Mutex
	conns  []*Conn
	past   Stats // of closed connections
	opened int64
	closed bool
}

// start begins the goroutines; the rest of e is set.
func (e *endpoint) start(ctx context.Context, name string) {
	e.group = run.New(context.WithoutCancel(ctx), name)
	e.epoch = time.Now()
	e.waiters.New = newWaiter
	e.flusher.ready.L = &e.flusher.mu
	e.group.Go("clock", e.runClock)
	for range runtime.GOMAXPROCS(0) {
		e.group.Go("flusher", func(context.Context) error {
			e.flusher.run()
			return nil
		})
	}
}

// add takes a new connection in; false if the endpoint is closed.
func (e *endpoint) add(c *Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	c.index = len(e.conns)
	e.conns = append(e.conns, c)
	e.opened++
	return true
}

func (e *endpoint) forget(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := len(e.conns) - 1
	e.conns[c.index] = e.conns[last]
	e.conns[c.index].index = c.index
	e.conns[last] = nil
	e.conns = e.conns[:last]
	c.stats.addTo(&e.past)
}

// snapshot appends all connections to dst.
func (e *endpoint) snapshot(dst []*Conn) []*Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(dst, e.conns...)
}

func (e *endpoint) statistics() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.past
	s.Conns, s.Opened = len(e.conns), e.opened
	for _, c := range e.conns {
		c.stats.addTo(&s)
		s.Unsent += c.unsent.Load()
	}
	return s
}

// runClock moves the coarse clock and sweeps.
func (e *endpoint) runClock(ctx context.Context) error {
	ticker := time.NewTicker(e.tick)
	defer ticker.Stop()
	var conns []*Conn
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := int64(time.Since(e.epoch))
		e.clock.Store(now)
		conns = e.snapshot(conns[:0])
		for _, c := range conns {
			c.sweep(now)
		}
		clear(conns)
	}
}

// sweep ends the calls whose time is up and closes the connection if its peer is dead or does not read.
func (c *Conn) sweep(now int64) {
	c.mu.Lock()
	calls := c.calls.expire(now)
	c.mu.Unlock()
	failAll(calls, ErrTimeout)

	sent, unsent := c.stats.bytesOut.Load(), c.unsent.Load()
	switch {
	case unsent == 0, unsent <= c.ep.maxUnsent && sent != c.stuckAt:
		c.stuckSince = now
	case now-c.stuckSince >= int64(c.ep.slowTimeout):
		c.ep.log.Warn("close a connection whose peer does not read", "peer", c.remote, "unsent", unsent)
		c.fail(ErrSlowPeer)
	}
	c.stuckAt = sent
	if now-c.active.Load() >= int64(c.ep.idleTimeout) {
		c.fail(ErrIdle)
	}
}

// close ends all connections and waits for their goroutines.
func (e *endpoint) close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	for _, c := range e.snapshot(nil) {
		c.fail(ErrClosed)
	}
	e.group.Cancel()
	e.flusher.close()
	return e.group.Wait()
}

// flusher writes for connections whose frames came from goroutines that have better things to do.
type flusher struct {
	mu     sync.Mutex
	ready  sync.Cond
	queue  []*Conn
	head   int
	closed bool
}

func (f *flusher) push(c *Conn) {
	f.mu.Lock()
	if f.head > 0 && len(f.queue) == cap(f.queue) {
		n := copy(f.queue, f.queue[f.head:])
		clear(f.queue[n:])
		f.queue, f.head = f.queue[:n], 0
	}
	f.queue = append(f.queue, c)
	f.mu.Unlock()
	f.ready.Signal()
}

// pop waits for a connection; nil when closed.
func (f *flusher) pop() *Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.head == len(f.queue) {
		if f.closed {
			return nil
		}
		f.ready.Wait()
	}
	c := f.queue[f.head]
	f.queue[f.head] = nil
	f.head++
	if f.head == len(f.queue) {
		f.queue, f.head = f.queue[:0], 0
	}
	return c
}

func (f *flusher) run() {
	for c := f.pop(); c != nil; c = f.pop() {
		// Whoever queued a frame often has more of them at hand: let it go on before the system call.
		runtime.Gosched()
		c.flushed()
	}
}

func (f *flusher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.ready.Broadcast()
}
