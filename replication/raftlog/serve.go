package raftlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/bits"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// accept serves connections until the network closes.
func (n *network) accept(ctx context.Context) error {
	for {
		c, err := n.o.Listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close() // too late
			}
			return nil
		}
		if err != nil {
			n.o.Logger.Warn("raft listener", "addr", n.o.Addr, "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(maxRedial):
			}
			continue
		}
		if !n.track(c) {
			return nil
		}
		n.group.Go("serve", func(ctx context.Context) error {
			defer n.drop(c)
			n.serve(ctx, c)
			return nil
		})
	}
}

// serve greets whoever has connected and answers it until the connection ends.
func (n *network) serve(ctx context.Context, c net.Conn) {
	r := bufio.NewReader(c)
	h, err := n.welcome(c, r)
	if err != nil {
		if !errors.Is(err, io.EOF) && ctx.Err() == nil && n.news(err) {
			level := slog.LevelWarn
			if refused := (*refusedError)(nil); errors.As(err, &refused) && refused.early {
				level = slog.LevelInfo
			}
			n.o.Logger.Log(ctx, level, "raft connection refused", "node", n.o.Name, "from", c.RemoteAddr(), "error", err)
		}
		return
	}
	if h.Lane == laneData {
		n.serveData(ctx, c, r, h)
	} else {
		n.serveControl(ctx, c, r, h)
	}
}

// news says whether why a connection was refused has not been logged for a while: whoever was refused comes again
// four times a second.
func (n *network) news(why error) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if last, ok := n.told[why.Error()]; ok && now.Sub(last) < refusalPause {
		return false
	}
	if n.told == nil || len(n.told) >= 64 {
		n.told = map[string]time.Time{}
	}
	n.told[why.Error()] = now
	return true
}

// welcome reads the hello and answers it.
func (n *network) welcome(c net.Conn, r *bufio.Reader) (hello, error) {
	var h hello
	if err := c.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return h, err
	}
	var magic [len(greeting)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return h, err
	}
	if string(magic[:]) != greeting {
		return h, fmt.Errorf("%w: it does not begin as a node of a raft group does; is this port in dLegerPeers of something else?", errWire)
	}
	var scratch [headerBytes]byte
	rh, err := readHeader(r, &scratch)
	if err == nil && rh.kind != kindHello {
		err = fmt.Errorf("%w: kind %d before the hello", errWire, rh.kind)
	}
	if err == nil {
		err = readJSON(r, rh, &h)
	}
	if err != nil {
		return h, err
	}
	why, early := n.refusal(&h)
	if err := writeJSON(c, header{kind: kindHello, flags: flagResponse}, helloReply{ID: *n.id.Load(), Client: n.o.Client, Refused: why, Early: early}); err != nil {
		return h, err
	}
	if why != "" {
		return h, &refusedError{why, early}
	}
	return h, c.SetDeadline(time.Time{})
}

// bodies are receive buffers by the power of two that they hold.
var bodies [bits.UintSize]sync.Pool

func getBody(n int) *[]byte {
	class := bits.Len(uint(max(n, 1) - 1))
	if b, ok := bodies[class].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<class)
	return &b
}

func putBody(b *[]byte) { bodies[bits.Len(uint(max(cap(*b), 1)-1))].Put(b) }

// held is an append whose answer waits: first for raft, then for the disk.
type held struct {
	id     uint64
	answer <-chan raft.RPCResponse
	to     *transport
	last   uint64 // the last entry, 0 when there is none
	body   *[]byte
	began  time.Time
	direct any // an answer that is there already, with kind
	kind   kind
	err    error
}

// serveData takes appends in order; a second goroutine answers them in order. The buffers go back once
// raft has answered: the log keeps no pointer into them.
func (n *network) serveData(ctx context.Context, c net.Conn, r *bufio.Reader, h hello) {
	queue := make(chan *held, pipelineDepth)
	answered := make(chan struct{})
	n.group.Go("answer", func(ctx context.Context) error {
		defer close(answered)
		n.answerData(ctx, c, queue)
		return nil
	})
	var scratch [headerBytes]byte
	for {
		rh, err := readHeader(r, &scratch)
		if err != nil {
			break
		}
		body := getBody(int(rh.length))
		if _, err := io.ReadFull(r, *body); err != nil {
			putBody(body)
			break
		}
		q, err := n.take(ctx, rh, body, h)
		if err != nil {
			n.o.Logger.Warn("raft append refused", "from", h.From, "error", err)
			break
		}
		queue <- q // answerData drains it to the end
	}
	close(queue)
	<-answered
}

// take hands one request of the data lane to raft.
func (n *network) take(ctx context.Context, rh header, body *[]byte, h hello) (*held, error) {
	q := &held{id: rh.id, body: body, kind: rh.kind, began: time.Now()}
	switch rh.kind {
	case kindSnapshot:
		q.direct, q.err = n.o.Handle(ctx, h, rh.kind, *body)
		return q, nil
	case kindAppend:
	default:
		return nil, fmt.Errorf("%w: kind %d on the data lane", errWire, rh.kind)
	}
	w, err := parseAppend(*body)
	if err != nil {
		return nil, err
	}
	t := n.sink.Load()
	if t == nil {
		q.err = errNotReady
		return q, nil
	}
	q.to = t
	if len(w.entries) > 0 {
		q.last = w.prev + uint64(len(w.entries))
	}
	q.answer, q.err = t.deliver(ctx, n.request(w, h))
	return q, nil
}

// request makes of an append what the library takes.
func (n *network) request(w *appendRequest, h hello) *raft.AppendEntriesRequest {
	if !n.o.gates.off(clampReceive) {
		w.clamp()
	}
	q := &raft.AppendEntriesRequest{
		RPCHeader: fromHello(h), Term: w.term, PrevLogEntry: w.prev, PrevLogTerm: w.prevTerm, LeaderCommitIndex: w.commit,
	}
	if len(w.entries) > 0 {
		logs := make([]raft.Log, len(w.entries))
		q.Entries = make([]*raft.Log, len(w.entries))
		for i, e := range w.entries {
			logs[i] = raft.Log{Index: e.index, Term: e.term, Type: e.kind, Data: e.frame}
			if e.kind != raft.LogCommand && len(e.frame) >= HeaderBytes {
				logs[i].Data = Payload(e.frame) // the library reads it; the log makes the same frame of it
			}
			q.Entries[i] = &logs[i]
		}
	}
	return q
}

func fromHello(h hello) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(h.From), Addr: []byte(h.Addr)}
}

// answerData answers what comes through the queue until it is closed.
func (n *network) answerData(ctx context.Context, c net.Conn, queue <-chan *held) {
	w := bufio.NewWriter(c)
	var b []byte
	bad := false
	for q := range queue {
		var err error
		b, err = n.settle(ctx, q, b[:0])
		putBody(q.body)
		if bad {
			continue
		}
		h := header{kind: q.kind, flags: flagResponse, id: q.id}
		if err != nil {
			h.flags |= flagError
			b = append(b[:0], err.Error()...)
		}
		h.length = uint32(len(b))
		var head [headerBytes]byte
		h.put(head[:])
		_, err1 := w.Write(head[:])
		_, err2 := w.Write(b)
		if err = errors.Join(err1, err2); err == nil && len(queue) == 0 {
			err = w.Flush()
		}
		if err != nil {
			bad = true
			_ = c.Close() // ends the reader too
		}
	}
}

// settle waits until a request may be answered and appends the body of the answer to b.
func (n *network) settle(ctx context.Context, q *held, b []byte) ([]byte, error) {
	if q.err != nil {
		return b, q.err
	}
	if q.answer == nil {
		body, err := json.Marshal(q.direct)
		return append(b, body...), err
	}
	resp, err := n.appended(q.to.await(ctx, q.answer))
	if err != nil {
		return b, err
	}
	stored := time.Now()
	if resp.Success && q.last > 0 && !n.o.gates.off(gateFollower) {
		if err := n.o.Log.WaitDurable(ctx, q.last); err != nil {
			return b, fmt.Errorf("entry %d does not become durable: %w", q.last, err)
		}
	}
	a := n.response(resp)
	a.appendNanos, a.flushNanos = clip(stored.Sub(q.began)), clip(time.Since(stored))
	return a.append(b), nil
}

func clip(d time.Duration) uint32 { return uint32(min(max(d, 0), math.MaxUint32)) }

func (n *network) response(r *raft.AppendEntriesResponse) *appendResponse {
	a := &appendResponse{term: r.Term, lastLog: r.LastLog, success: r.Success, noBackoff: r.NoRetryBackoff}
	a.written, a.durable = n.o.Log.Positions()
	return a
}

// serveControl answers heartbeats at once, on this goroutine, and everything else, and those that are more than a sign of
// life, as it is ready.
func (n *network) serveControl(ctx context.Context, c net.Conn, r *bufio.Reader, h hello) {
	out := &call{c: c}
	var busy sync.WaitGroup
	defer busy.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var scratch [headerBytes]byte
	for {
		rh, err := readHeader(r, &scratch)
		if err != nil {
			return
		}
		body := make([]byte, rh.length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		if rh.kind == kindAppend {
			if b, past, err := n.heartbeat(body, h); past {
				n.reply(ctx, out, rh, b, err)
				continue
			}
		}
		busy.Add(1)
		n.group.Go("answer", func(context.Context) error {
			defer busy.Done()
			b, err := n.handle(ctx, rh.kind, body, h)
			n.reply(ctx, out, rh, b, err)
			return nil
		})
	}
}

func (n *network) reply(ctx context.Context, out *call, rh header, body []byte, err error) {
	h := header{kind: rh.kind, flags: flagResponse, id: rh.id}
	if err != nil {
		h.flags |= flagError
		body = []byte(err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	_ = out.write(ctx, h, body) // it has closed the connection, which ends the reader
}

// heartbeat hands a heartbeat to the library, past its main goroutine, if it tells nothing new; else past is false. One that
// brings a newer term, or comes to a node that leads or wants to, must not go past it: the library would change the term
// under the hands of that goroutine, and a leader that has been away would store the appends that wait for it under the term
// of its successor, as entries that look like those of that one.
func (n *network) heartbeat(body []byte, h hello) (b []byte, past bool, err error) {
	w, err := parseAppend(body)
	if err != nil {
		return nil, true, err
	}
	t := n.sink.Load()
	if t == nil {
		return nil, true, errNotReady
	}
	cb := t.heartbeat.Load()
	if cb == nil || len(w.entries) > 0 || w.prev > 0 || w.commit > 0 {
		return nil, true, fmt.Errorf("%w: no heartbeat", errWire)
	}
	if follows := t.follows.Load(); follows == nil || !(*follows)(w.term) {
		return nil, false, nil
	}
	ch := make(chan raft.RPCResponse, 1)
	(*cb)(raft.RPC{Command: n.request(w, h), RespChan: ch})
	select {
	case r := <-ch:
		b, err = n.beaten(r.Response, r.Error)
		return b, true, err
	default: // shut down: it does not answer
		return nil, true, errNotReady
	}
}

// appended is what the library answers to an append, once what this node has noted of its term is on disk.
func (n *network) appended(r any, err error) (*raft.AppendEntriesResponse, error) {
	if err != nil {
		return nil, err
	}
	resp, ok := r.(*raft.AppendEntriesResponse)
	if !ok {
		return nil, fmt.Errorf("BUG: an append is answered by %T", r)
	}
	return resp, n.o.Settle()
}

// beaten is the answer to a heartbeat.
func (n *network) beaten(r any, err error) ([]byte, error) {
	resp, err := n.appended(r, err)
	if err != nil {
		return nil, err
	}
	return n.response(resp).append(nil), nil
}

// handleHeartbeat is heartbeat by way of the library's main goroutine.
func (n *network) handleHeartbeat(ctx context.Context, body []byte, h hello) ([]byte, error) {
	w, err := parseAppend(body)
	if err != nil {
		return nil, err
	}
	t := n.sink.Load()
	if t == nil {
		return nil, errNotReady
	}
	ch, err := t.deliver(ctx, n.request(w, h))
	if err != nil {
		return nil, err
	}
	return n.beaten(t.await(ctx, ch))
}

// handle answers a request of the control lane that waits for somebody.
func (n *network) handle(ctx context.Context, k kind, body []byte, h hello) ([]byte, error) {
	switch k {
	case kindAppend:
		return n.handleHeartbeat(ctx, body, h)
	case kindVote, kindPreVote, kindTimeoutNow:
	default:
		v, err := n.o.Handle(ctx, h, k, body)
		if err != nil {
			return nil, err
		}
		return json.Marshal(v)
	}
	t := n.sink.Load()
	if t == nil {
		return nil, errNotReady
	}
	if self := *n.id.Load(); self == "" || h.To != self {
		return nil, fmt.Errorf("%s is asked to vote, this is %s: it was wiped, or has been let in anew", h.To, orName(self, n.o.Name))
	}
	var v voteRequest
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, err
	}
	var cmd any = &raft.TimeoutNowRequest{RPCHeader: fromHello(h)}
	switch k {
	case kindVote:
		cmd = &raft.RequestVoteRequest{
			RPCHeader: fromHello(h), Term: v.Term, LastLogIndex: v.LastIndex, LastLogTerm: v.LastTerm, LeadershipTransfer: v.Transfer,
		}
	case kindPreVote:
		cmd = &raft.RequestPreVoteRequest{RPCHeader: fromHello(h), Term: v.Term, LastLogIndex: v.LastIndex, LastLogTerm: v.LastTerm}
	}
	ch, err := t.deliver(ctx, cmd)
	if err != nil {
		return nil, err
	}
	r, err := t.await(ctx, ch)
	if err == nil && k != kindTimeoutNow { // whose answer tells no term
		err = n.o.Settle()
	}
	if err != nil {
		return nil, err
	}
	switch r := r.(type) {
	case *raft.RequestVoteResponse:
		return json.Marshal(voteReply{r.Term, r.Granted})
	case *raft.RequestPreVoteResponse:
		return json.Marshal(voteReply{r.Term, r.Granted})
	}
	return []byte("{}"), nil
}
