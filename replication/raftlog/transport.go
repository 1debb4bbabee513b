package raftlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/replication"
)

// frames is what the transport needs of the log.
type frames interface {
	// Frame gives the bytes of a frame; an error if that entry is not there any more.
	Frame(index, term uint64) (*engine.RawResult, error)
	DurableIndex() uint64
	WaitDurable(ctx context.Context, index uint64) error
	// Positions are where the log is written and durable.
	Positions() (written, durable int64)
}

const (
	controlTimeout = 500 * time.Millisecond // of a call on the control lane, at least
	deadAfter      = 2 * time.Second        // of silence while calls wait
	helloTimeout   = time.Second
	dataTimeout    = 60 * time.Second // responses are held until the follower's disk has the entries
	minRedial      = time.Millisecond // a process that is killed lets go of its listener last: who lost it is reset first, refused then
	maxRedial      = 250 * time.Millisecond
	refusalPause   = time.Minute // before the same refusal is logged again
)

var (
	errNotReady = errors.New("raft does not run here at present")
	errMuted    = errors.New("this node no longer speaks as a leader")
)

// netOptions make a network.
type netOptions struct {
	Group        string
	Name         string // of this node, without incarnation
	Addr         string // where peers reach it
	Client       string // where clients reach it
	SegmentBytes int64
	Format       int
	Log          frames
	Listener     net.Listener
	Dial         func(ctx context.Context, id, addr string) (net.Conn, error)
	Logger       *slog.Logger
	// Handle answers the rare requests that are not raft's; its result travels as JSON.
	Handle func(ctx context.Context, from hello, k kind, body []byte) (any, error)
	// Settle returns when what this node has noted of its term is on disk: it answers for nothing before.
	Settle func() error
	// Lost hears that the process of a peer is gone: its connection ended and a new one was refused.
	Lost func(id raft.ServerID)

	gates *gates
	hops  *replication.HopTimers
}

// network is this node's end of the connections between the nodes: one listener, and for each peer a
// control connection that is always kept and data connections as the leader needs them. It outlives
// instances of raft, which come and go as [transport]s.
//
// Its goroutines: accept, one for each connection that others opened (and one that answers on its data
// lane), and for each peer one that keeps the control connection.
type network struct {
	o     netOptions
	group *run.Group
	id    atomic.Pointer[string]
	sink  atomic.Pointer[transport]
	muted atomic.Bool
	// patience is what a call on the control lane may take where links are slow; 0: no more than elsewhere.
	patience atomic.Int64

	mu    sync.Mutex
	peers map[raft.ServerID]*peer
	kept  map[raft.ServerID]bool // the other members, as far as is committed; nil while that is not known
	open  map[net.Conn]struct{}
	told  map[string]time.Time // why connections were refused
}

func newNetwork(o netOptions) *network {
	if o.Settle == nil {
		o.Settle = func() error { return nil }
	}
	n := &network{
		o: o, group: run.New(context.Background(), "raftlog/net"),
		peers: map[raft.ServerID]*peer{}, open: map[net.Conn]struct{}{},
	}
	none := ""
	n.id.Store(&none)
	return n
}

// start begins to accept connections: whoever handles requests knows the network by now.
func (n *network) start() { n.group.Go("accept", n.accept) }

func (n *network) setID(id string) { n.id.Store(&id) }

func (n *network) self() string { return *n.id.Load() }

// named gives the peer with a name, under whatever id it is known.
func (n *network) named(name, addr string) *peer {
	n.mu.Lock()
	for id, p := range n.peers {
		if memberName(string(id)) == name && p.addr == addr {
			n.mu.Unlock()
			return p
		}
	}
	n.mu.Unlock()
	return n.peer(raft.ServerID(name), raft.ServerAddress(addr))
}

// clientOf is where clients reach a peer, "" while it is not known.
func (n *network) clientOf(id raft.ServerID) string {
	n.mu.Lock()
	p := n.peers[id]
	n.mu.Unlock()
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client
}

// close ends all connections and waits for the goroutines.
func (n *network) close() error {
	n.group.Cancel()
	err := n.o.Listener.Close()
	n.mu.Lock()
	for c := range n.open {
		_ = c.Close() // that is what ends its goroutine
	}
	n.mu.Unlock()
	return errors.Join(err, n.group.Wait())
}

// track remembers a connection so that close reaches it; false when it is too late.
func (n *network) track(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.group.Context().Err() != nil {
		_ = c.Close() // nobody has used it
		return false
	}
	n.open[c] = struct{}{}
	return true
}

func (n *network) drop(c net.Conn) {
	_ = c.Close() // it may be closed already
	n.mu.Lock()
	delete(n.open, c)
	n.mu.Unlock()
}

// peer gives the peer of an id, and starts to keep its control connection.
func (n *network) peer(id raft.ServerID, addr raft.ServerAddress) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p != nil && p.addr == string(addr) {
		return p
	}
	if p != nil {
		p.cancel()
	}
	p = &peer{net: n, id: id, addr: string(addr), up: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(n.group.Context())
	n.peers[id] = p
	n.group.TryGo("peer", func(context.Context) error { return p.keep() }) // a node that closes needs no connection any more
	return p
}

// retain forgets peers that are not in keep.
func (n *network) retain(keep map[raft.ServerID]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept = keep
	for id, p := range n.peers {
		if !keep[id] {
			p.cancel()
			delete(n.peers, id)
		}
	}
}

// expel forgets a peer unless it is a member; false if it is.
func (n *network) expel(p *peer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept == nil || n.kept[p.id] {
		return false
	}
	p.cancel()
	if n.peers[p.id] == p {
		delete(n.peers, p.id)
	}
	return true
}

// known lists the peers.
func (n *network) known() []*peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	ps := make([]*peer, 0, len(n.peers))
	for _, p := range n.peers {
		ps = append(ps, p)
	}
	return ps
}

// hello is what this node says when it opens a connection.
func (n *network) hello(to raft.ServerID, l lane) hello {
	return hello{
		Lane: l, Group: n.o.Group, From: *n.id.Load(), Name: n.o.Name, Addr: n.o.Addr, To: string(to),
		Client: n.o.Client, SegmentBytes: n.o.SegmentBytes, Format: n.o.Format,
	}
}

// refusal says why a node that says h may not talk to this one, "" if it may, and whether that will pass: it
// calls this node by an identity while it has none.
func (n *network) refusal(h *hello) (why string, early bool) {
	self := *n.id.Load()
	who := fmt.Sprintf("node %s (%s)", h.Name, h.Addr)
	switch {
	case h.Group != n.o.Group:
		return fmt.Sprintf("%s is of group %q, this is %s of group %q: check dLegerGroup and dLegerPeers of both", who, h.Group, n.o.Name, n.o.Group), false
	case h.SegmentBytes != n.o.SegmentBytes:
		return fmt.Sprintf("%s has mappedFileSizeCommitLog %d, %s has %d: it must be the same on all nodes of a group", who, h.SegmentBytes, n.o.Name, n.o.SegmentBytes), false
	case h.Format != n.o.Format:
		return fmt.Sprintf("%s writes log format %d, %s writes %d: run the same release on all nodes of a group", who, h.Format, n.o.Name, n.o.Format), false
	case h.Name == n.o.Name:
		return fmt.Sprintf("%s has the id of the node that it calls, %s at %s: give each its own dLegerSelfId", who, n.o.Name, n.o.Addr), false
	case self == "" && h.To != n.o.Name && memberName(h.To) == n.o.Name:
		return fmt.Sprintf("%s calls %s, and %s at %s has no identity yet: it starts for the first time, or without its directory, and takes part once it has one", who, h.To, n.o.Name, n.o.Addr), true
	case h.To != "" && h.To != n.o.Name && h.To != self:
		return fmt.Sprintf("%s calls %s, but at %s is %s", who, h.To, n.o.Addr, orName(self, n.o.Name)), false
	}
	return "", false
}

func orName(id, name string) string {
	if id == "" {
		return name
	}
	return id
}

// refusedError is a hello that was refused.
type refusedError struct {
	why   string
	early bool // whoever was called has no identity yet: it will pass
}

func (e *refusedError) Error() string { return "refused: " + e.why }

// dial opens a connection to a peer.
func (n *network) dial(ctx context.Context, id raft.ServerID, addr string, l lane) (net.Conn, helloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	c, err := n.o.Dial(ctx, string(id), addr)
	if err != nil {
		return nil, helloReply{}, err
	}
	if !n.track(c) {
		return nil, helloReply{}, net.ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := n.greet(c, n.hello(id, l))
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		n.drop(c)
		return nil, helloReply{}, err
	}
	return c, reply, nil
}

func (n *network) greet(c net.Conn, h hello) (helloReply, error) {
	var reply helloReply
	if _, err := io.WriteString(c, greeting); err != nil {
		return reply, err
	}
	if err := writeJSON(c, header{kind: kindHello}, h); err != nil {
		return reply, err
	}
	var scratch [headerBytes]byte
	rh, err := readHeader(c, &scratch)
	if errors.Is(err, io.EOF) {
		return reply, fmt.Errorf("it hangs up without a word, %w: check that dLegerPeers gives the port of its log, and no other one", err)
	}
	if err != nil {
		return reply, err
	}
	if err := readJSON(c, rh, &reply); err != nil {
		return reply, err
	}
	if reply.Refused != "" {
		return reply, &refusedError{reply.Refused, reply.Early}
	}
	return reply, nil
}

func readJSON(r io.Reader, h header, v any) error {
	b := make([]byte, h.length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// peer is another node as seen from here.
type peer struct {
	net    *network
	id     raft.ServerID
	addr   string
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	control *call         // nil while there is none
	up      chan struct{} // closed when control is there
	data    []net.Conn    // in use, to be broken with the control connection
	trouble string        // the last one that was logged
	plain   *bufferedConn // idle connection for appends outside a pipeline
	client  string        // where clients reach it
	met     bool          // it has been connected since it was lost last
	trips   trips

	measuring atomic.Bool

	heard    atomic.Int64 // when, nanoseconds of the wall clock
	written  atomic.Int64
	durable  atomic.Int64
	bytesOut atomic.Int64
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// keep holds the control connection until the peer is forgotten.
func (p *peer) keep() error {
	wait := minRedial
	defer p.breakData()
	for p.ctx.Err() == nil {
		c, reply, err := p.net.dial(p.ctx, p.id, p.addr, laneControl)
		if err != nil {
			p.failed(err)
			select {
			case <-p.ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, maxRedial)
			continue
		}
		wait = minRedial
		p.connected(c, reply)
		p.lost()
		p.net.drop(c)
	}
	return nil
}

// failed notes that the peer cannot be reached, and says so when its process is gone.
func (p *peer) failed(err error) {
	if p.ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	gone := p.met && errors.Is(err, syscall.ECONNREFUSED)
	if gone {
		p.met = false
	}
	news := err.Error() != p.trouble
	p.trouble = err.Error()
	p.mu.Unlock()
	if gone {
		p.net.o.Lost(p.id)
	}
	var refused *refusedError
	switch {
	case !news:
	case errors.As(err, &refused) && refused.early:
		p.net.o.Logger.Info("raft peer is not ready", "peer", p.id, "addr", p.addr, "why", refused.why)
	case errors.As(err, &refused):
		p.net.o.Logger.Error("raft peer refuses this node", "peer", p.id, "addr", p.addr, "why", refused.why)
	default:
		p.net.o.Logger.Warn("raft peer cannot be reached", "peer", p.id, "addr", p.addr, "error", err)
	}
}

// connected serves a control connection until it ends.
func (p *peer) connected(c net.Conn, reply helloReply) {
	k := &call{c: c, waiting: map[uint64]chan answer{}}
	k.lastRead.Store(time.Now().UnixNano())
	stop := context.AfterFunc(p.ctx, func() { _ = c.Close() })
	defer stop()
	p.mu.Lock()
	p.control, p.client, p.met, p.trouble = k, reply.Client, true, ""
	close(p.up)
	p.mu.Unlock()
	p.heard.Store(time.Now().UnixNano())
	k.read(&p.heard)
}

// lost forgets the control connection, and with it the data connections: liveness is judged here.
func (p *peer) lost() {
	p.mu.Lock()
	p.control.fail()
	p.control, p.up = nil, make(chan struct{})
	p.mu.Unlock()
	p.breakData()
}

func (p *peer) breakData() {
	p.mu.Lock()
	conns := p.data
	p.data, p.plain = nil, nil
	p.mu.Unlock()
	for _, c := range conns {
		p.net.drop(c)
	}
}

// online says whether the control connection is there.
func (p *peer) online() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.control != nil
}

// ask sends a request on the control lane and waits for its answer; both are JSON unless they are bytes.
func (p *peer) ask(k kind, req, resp any) error {
	return p.askWithin(max(controlTimeout, time.Duration(p.net.patience.Load())), k, req, resp)
}

func (p *peer) askWithin(d time.Duration, k kind, req, resp any) error {
	body, ok := req.([]byte)
	if !ok {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(p.ctx, d)
	defer cancel()
	p.mu.Lock()
	c, up := p.control, p.up
	p.mu.Unlock()
	if c == nil {
		select {
		case <-up:
		case <-ctx.Done():
			return fmt.Errorf("%s at %s is not connected", p.id, p.addr)
		}
		p.mu.Lock()
		c = p.control
		p.mu.Unlock()
		if c == nil {
			return fmt.Errorf("%s at %s is not connected", p.id, p.addr)
		}
	}
	b, err := c.roundTrip(ctx, k, body)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", p.id, p.addr, err)
	}
	if out, ok := resp.(*[]byte); ok {
		*out = b
		return nil
	}
	return json.Unmarshal(b, resp)
}

// call multiplexes requests over a control connection.
type call struct {
	c        net.Conn
	lastRead atomic.Int64
	writing  sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan answer
	failed  bool
}

type answer struct {
	body []byte
	err  error
}

func (k *call) roundTrip(ctx context.Context, kd kind, body []byte) ([]byte, error) {
	ch := make(chan answer, 1)
	k.mu.Lock()
	if k.failed {
		k.mu.Unlock()
		return nil, net.ErrClosed
	}
	k.next++
	id := k.next
	k.waiting[id] = ch
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.waiting, id)
		k.mu.Unlock()
	}()
	if err := k.write(ctx, header{kind: kd, id: id}, body); err != nil {
		return nil, err
	}
	select {
	case a := <-ch:
		return a.body, a.err
	case <-ctx.Done():
		if time.Since(time.Unix(0, k.lastRead.Load())) > deadAfter {
			_ = k.c.Close() // silent for too long: dial again
		}
		return nil, ctx.Err()
	}
}

func (k *call) write(ctx context.Context, h header, body []byte) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	if ctx.Err() != nil {
		return ctx.Err() // whoever had the connection has waited for the peer to read
	}
	if d, ok := ctx.Deadline(); ok {
		if err := k.c.SetWriteDeadline(d.Add(deadAfter)); err != nil {
			return err
		}
	}
	err := writeMessage(k.c, h, body)
	if err != nil {
		_ = k.c.Close() // a part may have been written
	}
	return err
}

// read hands out answers until the connection ends.
func (k *call) read(heard *atomic.Int64) {
	r := bufio.NewReader(k.c)
	var scratch [headerBytes]byte
	for {
		h, err := readHeader(r, &scratch)
		if err != nil {
			return
		}
		body := make([]byte, h.length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		now := time.Now().UnixNano()
		k.lastRead.Store(now)
		heard.Store(now)
		a := answer{body: body}
		if h.flags&flagError != 0 {
			a = answer{err: errors.New(string(body))}
		}
		k.mu.Lock()
		ch := k.waiting[h.id]
		k.mu.Unlock()
		if ch != nil {
			select {
			case ch <- a:
			default: // the peer has answered twice
			}
		}
	}
}

func (k *call) fail() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = true
	for _, ch := range k.waiting {
		select {
		case ch <- answer{err: net.ErrClosed}:
		default:
		}
	}
}

// transport is the network as one instance of raft sees it.
type transport struct {
	net       *network
	requests  chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
	follows   atomic.Pointer[func(term uint64) bool] // whether raft follows in that term, or a later one
	done      chan struct{}
	closing   sync.Once
}

// attach makes the network serve a new instance of raft.
func (n *network) attach() *transport {
	t := &transport{net: n, requests: make(chan raft.RPC, 16), done: make(chan struct{})}
	n.sink.Store(t)
	return t
}

// Close detaches this instance; what waits for an answer fails. [raft.WithClose].
func (t *transport) Close() error {
	t.closing.Do(func() {
		close(t.done)
		t.net.sink.CompareAndSwap(t, nil)
		for _, p := range t.net.known() {
			p.breakData()
		}
	})
	return nil
}

// deliver hands a request to raft.
func (t *transport) deliver(ctx context.Context, cmd any) (<-chan raft.RPCResponse, error) {
	ch := make(chan raft.RPCResponse, 1)
	select {
	case t.requests <- raft.RPC{Command: cmd, RespChan: ch}:
		return ch, nil
	case <-t.done:
		return nil, errNotReady
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// await waits for raft's answer.
func (t *transport) await(ctx context.Context, ch <-chan raft.RPCResponse) (any, error) {
	select {
	case r := <-ch:
		return r.Response, r.Error
	case <-t.done:
		return nil, errNotReady
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Consumer and the methods below are those of [raft.Transport] and [raft.WithPreVote].
func (t *transport) Consumer() <-chan raft.RPC { return t.requests }

func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.net.o.Addr) }

func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

func (t *transport) SetHeartbeatHandler(cb func(rpc raft.RPC)) { t.heartbeat.Store(&cb) }

// header fills in what is not sent.
func (p *peer) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(p.id), Addr: []byte(p.addr)}
}

func (t *transport) up() error {
	select {
	case <-t.done:
		return raft.ErrTransportShutdown
	default:
		return nil
	}
}

func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	if err := t.up(); err != nil {
		return err
	}
	p := t.net.peer(id, addr)
	var reply voteReply
	if err := p.ask(kindVote, voteRequest{q.Term, q.LastLogIndex, q.LastLogTerm, q.LeadershipTransfer}, &reply); err != nil {
		return err
	}
	*r = raft.RequestVoteResponse{RPCHeader: p.header(), Term: reply.Term, Granted: reply.Granted}
	return nil
}

func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	if err := t.up(); err != nil {
		return err
	}
	p := t.net.peer(id, addr)
	var reply voteReply
	if err := p.ask(kindPreVote, voteRequest{q.Term, q.LastLogIndex, q.LastLogTerm, false}, &reply); err != nil {
		return err
	}
	*r = raft.RequestPreVoteResponse{RPCHeader: p.header(), Term: reply.Term, Granted: reply.Granted}
	return nil
}

func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, _ *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	if err := t.up(); err != nil {
		return err
	}
	p := t.net.peer(id, addr)
	var reply struct{}
	if err := p.ask(kindTimeoutNow, struct{}{}, &reply); err != nil {
		return err
	}
	*r = raft.TimeoutNowResponse{RPCHeader: p.header()}
	return nil
}

func (t *transport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.up(); err != nil {
		return err
	}
	b, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	p := t.net.peer(id, addr)
	if err := p.awaitUp(t); err != nil {
		return err
	}
	offer, err := json.Marshal(snapshotOffer{
		Term: q.Term, Index: q.LastLogIndex, IndexTerm: q.LastLogTerm,
		Configuration: q.Configuration, ConfigurationIndex: q.ConfigurationIndex, Data: b,
	})
	if err != nil {
		return err
	}
	var reply snapshotReply
	if err := p.exchange(t, kindSnapshot, offer, &reply); err != nil {
		return err
	}
	*r = raft.InstallSnapshotResponse{RPCHeader: p.header(), Term: reply.Term, Success: reply.Success}
	return nil
}
