package raftlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rmq/engine"
)

const (
	pipelineDepth = 128      // appends in flight
	maxInFlight   = 32 << 20 // bytes in flight to one follower
	maxRequest    = 16 << 20 // bytes of one append; a single frame may be longer
)

// isHeartbeat tells a heartbeat from an append, as the library does.
func isHeartbeat(q *raft.AppendEntriesRequest) bool {
	return q.PrevLogEntry == 0 && q.PrevLogTerm == 0 && len(q.Entries) == 0 && q.LeaderCommitIndex == 0
}

// gathered is an append ready to be sent. It holds the log's bytes until release.
type gathered struct {
	head  []byte
	bufs  net.Buffers
	held  []*engine.RawResult
	bytes int64
}

func (g *gathered) release() {
	for _, r := range g.held {
		r.Release()
	}
	g.held = nil
}

// gather collects what q sends. It may take entries off q, which the library allows: it looks at what is
// left when it counts what was sent. The commit index is lowered twice: to what is durable here (the
// library counts this node's copy as soon as it is written) and to what the request verifies.
func (n *network) gather(q *raft.AppendEntriesRequest, id uint64) (*gathered, error) {
	if n.muted.Load() {
		return nil, errMuted
	}
	g := &gathered{}
	w := appendRequest{term: q.Term, prev: q.PrevLogEntry, prevTerm: q.PrevLogTerm, commit: q.LeaderCommitIndex}
	for i, e := range q.Entries {
		r, err := n.o.Log.Frame(e.Index, e.Term)
		if err != nil {
			g.release()
			return nil, err
		}
		if i > 0 && g.bytes+int64(len(r.Bytes)) > maxRequest {
			r.Release()
			q.Entries = q.Entries[:i]
			break
		}
		g.held = append(g.held, r)
		g.bytes += int64(len(r.Bytes))
		w.entries = append(w.entries, wireEntry{e.Index, e.Term, e.Type, r.Bytes})
	}
	if !n.o.gates.off(gateLeader) {
		w.commit = min(w.commit, n.o.Log.DurableIndex())
	}
	if !n.o.gates.off(clampSend) {
		w.clamp()
	}
	g.head = w.appendHead(make([]byte, headerBytes, headerBytes+appendFixedBytes+len(w.entries)*entryFixedBytes))
	header{length: uint32(int64(len(g.head)) - headerBytes + g.bytes), kind: kindAppend, id: id}.put(g.head)
	g.bufs = append(g.bufs, g.head)
	for _, r := range g.held {
		g.bufs = append(g.bufs, r.Bytes)
	}
	return g, nil
}

// openData dials a data connection.
func (p *peer) openData() (*bufferedConn, error) {
	c, _, err := p.net.dial(p.ctx, p.id, p.addr, laneData)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.data = append(p.data, c)
	p.mu.Unlock()
	return &bufferedConn{c, bufio.NewReader(c)}, nil
}

func (p *peer) closeData(c *bufferedConn) {
	p.mu.Lock()
	for i := range p.data {
		if p.data[i] == c.Conn {
			p.data = append(p.data[:i], p.data[i+1:]...)
			break
		}
	}
	p.mu.Unlock()
	p.net.drop(c.Conn)
}

// takePlain gives the idle connection, or a new one.
func (p *peer) takePlain() (*bufferedConn, error) {
	p.mu.Lock()
	c := p.plain
	p.plain = nil
	p.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return p.openData()
}

// givePlain keeps a connection on which nothing is under way.
func (p *peer) givePlain(c *bufferedConn) {
	p.mu.Lock()
	if p.plain == nil {
		p.plain, c = c, nil
	}
	p.mu.Unlock()
	if c != nil {
		p.closeData(c)
	}
}

// readBody reads the answer with the given id.
func (c *bufferedConn) readBody(id uint64, b []byte) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(dataTimeout)); err != nil {
		return nil, err
	}
	var scratch [headerBytes]byte
	h, err := readHeader(c.r, &scratch)
	if err != nil {
		return nil, err
	}
	if h.id != id {
		return nil, fmt.Errorf("%w: answer %d, expected %d", errWire, h.id, id)
	}
	if int(h.length) > cap(b) {
		b = make([]byte, h.length)
	}
	b = b[:h.length]
	if _, err := io.ReadFull(c.r, b); err != nil {
		return nil, err
	}
	if h.flags&flagError != 0 {
		return nil, errors.New(string(b))
	}
	return b, nil
}

// exchange sends one request on a data connection and waits for the answer.
func (p *peer) exchange(t *transport, k kind, body []byte, reply any) error {
	c, err := p.takePlain()
	if err != nil {
		return err
	}
	if err = writeMessage(c, header{kind: k, id: 1}, body); err == nil {
		var b []byte
		if b, err = c.readBody(1, nil); err == nil {
			err = json.Unmarshal(b, reply)
		}
	}
	if err != nil {
		p.closeData(c)
		return err
	}
	p.givePlain(c)
	return t.up()
}

// answered fills resp from the wire and notes how far the peer is.
func (p *peer) answered(a appendResponse, resp *raft.AppendEntriesResponse) {
	*resp = raft.AppendEntriesResponse{
		RPCHeader: p.header(), Term: a.term, LastLog: a.lastLog, Success: a.success, NoRetryBackoff: a.noBackoff,
	}
	p.written.Store(a.written)
	p.durable.Store(a.durable)
	p.heard.Store(time.Now().UnixNano())
}

// AppendEntries is the plain way: a heartbeat on the control lane, or an append that waits for its answer.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, q *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.up(); err != nil {
		return err
	}
	p := t.net.peer(id, addr)
	if isHeartbeat(q) {
		if t.net.muted.Load() {
			return errMuted
		}
		return p.beat(q, resp)
	}
	if err := p.awaitUp(t); err != nil {
		return err
	}
	c, err := p.takePlain()
	if err != nil {
		return err
	}
	g, err := t.net.gather(q, 1)
	if err != nil {
		p.givePlain(c)
		return err
	}
	_, err = g.bufs.WriteTo(c.Conn)
	g.release()
	if err == nil {
		p.bytesOut.Add(g.bytes)
		var b []byte
		if b, err = c.readBody(1, nil); err == nil {
			var a appendResponse
			if a, err = parseAppendResponse(b); err == nil {
				p.answered(a, resp)
			}
		}
	}
	if err != nil {
		p.closeData(c)
		return fmt.Errorf("append to %s at %s: %w", p.id, p.addr, err)
	}
	p.givePlain(c)
	return nil
}

// awaitUp waits for a member that is away, until the instance of raft ends. To fail at once would do harm: the library waits
// twice as long after each failure, up to ten seconds, and sends nothing meanwhile, however soon the peer is back.
//
// For one that is no member, any more or yet, it waits a while: the library ends its part for a member that was removed once
// it has sent that, or has failed to, and calls it until then.
func (p *peer) awaitUp(t *transport) error {
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	late := time.NewTimer(deadAfter)
	defer late.Stop()
	for {
		select {
		case <-up:
			return nil
		case <-t.done:
			return errNotReady
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		case <-late.C:
			if p.net.expel(p) {
				return fmt.Errorf("%s at %s is not connected, and is no member", p.id, p.addr)
			}
		}
	}
}

func (p *peer) beat(q *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	w := appendRequest{term: q.Term}
	var b []byte
	if err := p.ask(kindAppend, w.appendHead(nil), &b); err != nil {
		return err
	}
	a, err := parseAppendResponse(b)
	if err != nil {
		return err
	}
	p.answered(a, resp)
	return nil
}

// pipeline sends appends without waiting for the answers, which come in order. Its first failure, an
// answer without success included, breaks it for good: every later send fails at once (hazard H3).
type pipeline struct {
	t    *transport
	p    *peer
	c    *bufferedConn
	sent chan *inFlight
	done chan raft.AppendFuture

	broken  chan struct{}
	breaker sync.Once
	ended   chan struct{} // the decoder has returned

	mu     sync.Mutex
	room   *sync.Cond
	flying int64
	nextID uint64
}

// inFlight is an append that waits for its answer. It implements [raft.AppendFuture].
type inFlight struct {
	id    uint64
	start time.Time
	wrote time.Time
	bytes int64
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	err   error
}

func (f *inFlight) Error() error                          { return f.err }
func (f *inFlight) Start() time.Time                      { return f.start }
func (f *inFlight) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *inFlight) Response() *raft.AppendEntriesResponse { return f.resp }

var errBroken = errors.New("the pipeline is broken")

// AppendEntriesPipeline implements [raft.Transport].
func (t *transport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	if err := t.up(); err != nil {
		return nil, err
	}
	p := t.net.peer(id, addr)
	c, err := p.takePlain()
	if err != nil {
		return nil, err
	}
	l := &pipeline{
		t: t, p: p, c: c, sent: make(chan *inFlight, pipelineDepth), done: make(chan raft.AppendFuture, pipelineDepth),
		broken: make(chan struct{}), ended: make(chan struct{}),
	}
	l.room = sync.NewCond(&l.mu)
	if !t.net.group.TryGo("pipeline", func(context.Context) error { return l.decode() }) {
		p.closeData(c)
		return nil, net.ErrClosed
	}
	return l, nil
}

// AppendEntries sends one append. It blocks while too much is in flight.
func (l *pipeline) AppendEntries(q *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	l.nextID++
	g, err := l.t.net.gather(q, l.nextID)
	if err != nil {
		return nil, err
	}
	defer g.release()
	if err := l.reserve(g.bytes); err != nil {
		return nil, err
	}
	f := &inFlight{id: l.nextID, start: time.Now(), bytes: g.bytes, req: q, resp: resp}
	if _, err := g.bufs.WriteTo(l.c.Conn); err != nil {
		l.fail()
		return nil, err
	}
	f.wrote = time.Now()
	l.p.bytesOut.Add(g.bytes)
	if len(q.Entries) > 0 {
		l.t.net.o.hops.Send.Add(f.wrote.Sub(f.start))
	}
	select {
	case l.sent <- f:
		return f, nil
	case <-l.broken:
		return nil, errBroken
	}
}

// reserve waits for room; one append is always let through.
func (l *pipeline) reserve(n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		select {
		case <-l.broken:
			return errBroken
		default:
		}
		if l.flying == 0 || l.flying+n <= maxInFlight {
			l.flying += n
			return nil
		}
		l.room.Wait()
	}
}

// fail breaks the pipeline and wakes whoever waits in it.
func (l *pipeline) fail() {
	l.breaker.Do(func() {
		close(l.broken)
		l.mu.Lock()
		l.room.Broadcast()
		l.mu.Unlock()
		l.p.closeData(l.c)
	})
}

// decode reads answers. Whatever ends it, the append that failed is handed to the library, whose
// decoder looks at nothing else.
func (l *pipeline) decode() error {
	defer close(l.ended)
	defer l.fail()
	buf := make([]byte, appendRespBytes)
	for {
		var f *inFlight
		select {
		case f = <-l.sent:
		case <-l.broken:
			return nil
		}
		b, err := l.c.readBody(f.id, buf)
		var a appendResponse
		if err == nil {
			a, err = parseAppendResponse(b)
		}
		if err != nil {
			f.err = err
			l.fail()
		} else {
			l.p.answered(a, f.resp)
			if !a.success && !l.t.net.o.gates.off(failForward) {
				l.fail()
			}
			if len(f.req.Entries) > 0 {
				l.t.net.o.hops.RemoteAppend.Add(time.Duration(a.appendNanos))
				l.t.net.o.hops.RemoteFlush.Add(time.Duration(a.flushNanos))
			}
		}
		l.mu.Lock()
		l.flying -= f.bytes
		l.room.Signal()
		l.mu.Unlock()
		select {
		case l.done <- f:
		case <-l.broken:
			select { // there is room unless the library has left
			case l.done <- f:
			default:
			}
		}
	}
}

// Consumer implements [raft.AppendPipeline].
func (l *pipeline) Consumer() <-chan raft.AppendFuture { return l.done }

// Close implements [raft.AppendPipeline].
func (l *pipeline) Close() error {
	l.fail()
	<-l.ended
	return nil
}
