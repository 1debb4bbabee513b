package failover

import (
	"context"
	"errors"
	"sync"
	"time"

	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// errGivenUp ends a message that nobody acknowledged in time.
var errGivenUp = errors.New("not acknowledged in time")

// redirect is a client that looks for another node itself when the one it sends to fails. While all is well it sends to
// one node; as soon as an answer is an error, a connection ends or nothing has come back for stallAfter, it tries its
// oldest message at every address that find returns, all at once, every few milliseconds, until one is acknowledged:
// everything goes there from then on. A message may so be stored more than once.
type redirect struct {
	find    func(ctx context.Context) []string // where it could be tried
	every   time.Duration                      // between two tries
	giveUp  time.Duration
	net     *remoting.Client
	g       *run.Group
	trouble chan struct{}

	mu      sync.Mutex
	conn    *remoting.Conn // nil while it looks
	lastAck time.Time
	open    map[*sent]struct{}
	conns   map[string]*remoting.Conn
	probing map[string]bool
	closed  bool
}

const (
	stallAfter = 100 * time.Millisecond
	watchEvery = 10 * time.Millisecond
)

// sent is one message of a redirect.
type sent struct {
	topic string
	queue int32
	body  []byte
	at    time.Time
	done  func(error)
}

// newRedirect makes a client that sends to what find returns.
func newRedirect(ctx context.Context, every, giveUp time.Duration, find func(ctx context.Context) []string) (*redirect, error) {
	net, err := remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "failover", DialTimeout: 500 * time.Millisecond, CallTimeout: time.Minute, MaxUnsentBytes: 256 << 20})
	if err != nil {
		return nil, err
	}
	r := &redirect{
		find: find, every: every, giveUp: giveUp, net: net, g: run.New(context.WithoutCancel(ctx), "failover/redirect"),
		trouble: make(chan struct{}, 1), open: map[*sent]struct{}{}, conns: map[string]*remoting.Conn{}, probing: map[string]bool{},
	}
	r.g.Go("look", r.look)
	r.g.Go("watch", r.watch)
	return r, nil
}

// Send implements [Client].
func (r *redirect) Send(topic string, queue int32, body []byte, done func(error)) {
	m := &sent{topic, queue, body, time.Now(), done}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		done(remoting.ErrClosed)
		return
	}
	r.open[m] = struct{}{}
	conn := r.conn
	r.mu.Unlock()
	if conn == nil {
		r.lookSoon()
		return
	}
	r.put(conn, m)
}

// put sends m over conn. Whatever goes wrong there is a reason to look for another node.
func (r *redirect) put(conn *remoting.Conn, m *sent) {
	call := &remoting.Call{Build: m.build, Done: func(c *remoting.Call) {
		if c.Err == nil && c.Response.Code == int32(protocol.ResponseSuccess) {
			r.acked(m)
			return
		}
		r.leave(conn)
	}}
	if err := conn.Start(call); err != nil {
		r.leave(conn)
	}
}

func (m *sent) build(dst []byte, opaque int32) []byte {
	head := protocol.SendHeader{
		ProducerGroup: []byte("rmqbench-failover"), Topic: []byte(m.topic), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4,
		QueueID: m.queue, BornMillis: m.at.UnixMilli(), Properties: []byte("WAIT\x01true\x02"),
	}
	dst = protocol.AppendSendRequest(dst, protocol.RequestSendMessageV2, opaque, 0, protocol.JSON, &head, len(m.body))
	return append(dst, m.body...)
}

// acked ends m well, unless it has ended before.
func (r *redirect) acked(m *sent) { r.end(m, nil) }

func (r *redirect) end(m *sent, err error) {
	r.mu.Lock()
	_, open := r.open[m]
	delete(r.open, m)
	if err == nil {
		r.lastAck = time.Now()
	}
	r.mu.Unlock()
	if open {
		m.done(err)
	}
}

// leave gives a node up, if it is still the one.
func (r *redirect) leave(conn *remoting.Conn) {
	r.mu.Lock()
	if r.conn == conn {
		r.conn = nil
	}
	r.mu.Unlock()
	r.lookSoon()
}

func (r *redirect) lookSoon() {
	select {
	case r.trouble <- struct{}{}:
	default:
	}
}

// watch ends what waits for too long, and gives up a node that has fallen silent.
func (r *redirect) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		var late []*sent
		r.mu.Lock()
		oldest := now
		for m := range r.open {
			if now.Sub(m.at) > r.giveUp {
				late = append(late, m)
			} else if m.at.Before(oldest) {
				oldest = m.at
			}
		}
		silent := now.Sub(oldest) > stallAfter && now.Sub(r.lastAck) > stallAfter
		conn := r.conn
		r.mu.Unlock()
		for _, m := range late {
			r.end(m, errGivenUp)
		}
		if silent && conn != nil {
			r.leave(conn)
		}
	}
}

// look finds a node that takes messages whenever there is none.
func (r *redirect) look(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.trouble:
		}
		for ctx.Err() == nil {
			m := r.oldest()
			if m == nil {
				break // there is a node, or nothing to send
			}
			for _, addr := range r.find(ctx) {
				r.try(addr, m)
			}
			sleep(ctx, r.every)
		}
	}
}

// oldest is the message to try, nil if there is none or a node has been found.
func (r *redirect) oldest() (m *sent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		return nil
	}
	for o := range r.open {
		if m == nil || o.at.Before(m.at) {
			m = o
		}
	}
	return m
}

// try sends m to one node, beside whatever else is tried, one message a node at a time.
func (r *redirect) try(addr string, m *sent) {
	r.mu.Lock()
	if r.probing[addr] || r.closed {
		r.mu.Unlock()
		return
	}
	r.probing[addr] = true
	conn := r.conns[addr]
	r.mu.Unlock()
	over := func() {
		r.mu.Lock()
		r.probing[addr] = false
		r.mu.Unlock()
	}
	r.g.Go("try", func(ctx context.Context) error {
		if conn == nil || isDone(conn) {
			var err error
			if conn, err = r.net.Dial(ctx, addr); err != nil {
				over()
				return nil //nolint:nilerr // the next try will tell
			}
			r.mu.Lock()
			r.conns[addr] = conn
			r.mu.Unlock()
		}
		call := &remoting.Call{Build: m.build, Timeout: time.Second, Done: func(c *remoting.Call) {
			over()
			if c.Err == nil && c.Response.Code == int32(protocol.ResponseSuccess) {
				r.acked(m)
				r.settle(conn)
			} else if errors.Is(c.Err, remoting.ErrTimeout) {
				_ = conn.Close() // it hangs: a new one next time
			}
		}}
		if conn.Start(call) != nil {
			over()
		}
		return nil
	})
}

// settle sends everything that is open to the node that was found.
func (r *redirect) settle(conn *remoting.Conn) {
	r.mu.Lock()
	if r.conn != nil {
		r.mu.Unlock()
		return
	}
	r.conn = conn
	all := make([]*sent, 0, len(r.open))
	for m := range r.open {
		all = append(all, m)
	}
	r.mu.Unlock()
	for _, m := range all {
		r.put(conn, m)
	}
}

func isDone(c *remoting.Conn) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// Close implements [Client].
func (r *redirect) Close() error {
	r.mu.Lock()
	r.closed = true
	all := make([]*sent, 0, len(r.open))
	for m := range r.open {
		all = append(all, m)
	}
	r.mu.Unlock()
	for _, m := range all {
		r.end(m, remoting.ErrClosed)
	}
	err := r.net.Close()
	r.g.Cancel()
	if e := r.g.Wait(); e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return err
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// byRoute asks the NameServer who leads, as often as it is called.
func byRoute(net *remoting.Client, nameServer, topic string) func(ctx context.Context) []string {
	return func(ctx context.Context) []string {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		req := protocol.NewRequest(protocol.RequestGetRouteInfoByTopic)
		protocol.EncodeExt(req, protocol.TopicHeader{Topic: topic})
		resp, err := net.Call(ctx, nameServer, req)
		if err == nil {
			err = resp.Err()
		}
		var route protocol.TopicRouteData
		if err == nil {
			err = protocol.DecodeBody(resp.Body, &route)
		}
		if err != nil {
			return nil
		}
		var addrs []string
		for _, b := range route.BrokerDatas {
			if a := b.BrokerAddrs[0]; a != "" {
				addrs = append(addrs, a)
			}
		}
		return addrs
	}
}
