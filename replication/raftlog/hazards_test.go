package raftlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/replication"
)

// memory is a log in memory behind the transport: entries travel as their data.
type memory struct{ *raft.InmemStore }

// StoreLogs keeps copies: what comes off the wire lies in a buffer that is used again.
func (m memory) StoreLogs(logs []*raft.Log) error {
	var own []*raft.Log
	for _, l := range logs {
		c := *l
		c.Data = bytes.Clone(l.Data)
		own = append(own, &c)
	}
	return m.InmemStore.StoreLogs(own)
}

func (m memory) Frame(index, term uint64) (*engine.RawResult, error) {
	var l raft.Log
	if err := m.GetLog(index, &l); err != nil || l.Term != term {
		return nil, raft.ErrLogNotFound
	}
	return &engine.RawResult{Bytes: l.Data}, nil
}

func (m memory) DurableIndex() uint64 {
	last, _ := m.LastIndex()
	return last
}
func (memory) WaitDurable(context.Context, uint64) error { return nil }
func (memory) Positions() (int64, int64)                 { return 0, 0 }

// end is a network of one node of a test.
func end(t *testing.T, name string, log frames, g *gates) (*network, string) {
	t.Helper()
	return endAt(t, "127.0.0.1:0", name, log, g)
}

func endAt(t *testing.T, addr, name string, log frames, g *gates) (*network, string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	o := Options{}
	o.EnsureDefaults()
	n := newNetwork(netOptions{
		Group: "g", Name: name, Addr: ln.Addr().String(), Log: log, Listener: ln, Dial: o.Dial, Logger: o.Logger,
		Handle: func(context.Context, hello, kind, []byte) (any, error) { return nil, errNotReady },
		Lost:   func(raft.ServerID) {}, gates: g, hops: &replication.HopTimers{},
	})
	n.setID(memberID(name, 1))
	n.start()
	t.Cleanup(func() { require.NoError(t, n.close()) })
	return n, ln.Addr().String()
}

// applied is a state machine that remembers what it was given.
type applied struct {
	mu    sync.Mutex
	datas []string
}

func (a *applied) Apply(l *raft.Log) any {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.datas = append(a.datas, string(l.Data))
	return nil
}
func (a *applied) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.datas...)
}
func (*applied) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (*applied) Restore(io.ReadCloser) error         { return nil }

// follower is an instance of the library that follows, over the log m.
func follower(t *testing.T, n *network, m memory, fsm raft.FSM, leader string) *raft.Raft {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.self())
	conf.HeartbeatTimeout, conf.ElectionTimeout = patience, patience
	conf.Logger = newBridge(n.o.Logger)
	stable, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	tr := n.attach()
	r, err := raft.NewRaft(conf, fsm, m, stable, snaps, tr)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tr.Close())
		require.NoError(t, r.Shutdown().Error())
	})
	return r
}

// Hazard H1: proves that a follower which is told of a commit beyond what the request verifies does not
// apply the stale entries that it holds there, that either of the two clamps is enough, and that without
// both it applies them.
func TestUnverifiedSuffix(t *testing.T) {
	t.Parallel()
	for _, off := range []gate{0, clampSend, clampReceive, clampSend | clampReceive} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			g := &gates{}
			g.switchOff(off)
			stale := memory{raft.NewInmemStore()}
			for i := uint64(1); i <= 20; i++ {
				require.NoError(t, stale.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte(fmt.Sprint("old ", i))}))
			}
			real := memory{raft.NewInmemStore()}
			for i := uint64(1); i <= 20; i++ {
				require.NoError(t, real.StoreLog(&raft.Log{Index: i, Term: 1 + i/11, Data: []byte(fmt.Sprint("new ", i))}))
			}
			fsm := &applied{}
			leader, _ := end(t, "n0", real, g)
			f, addr := end(t, "n1", stale, g)
			follower(t, f, stale, fsm, "n0")
			tr := leader.attach()
			var resp raft.AppendEntriesResponse
			send := func(q *raft.AppendEntriesRequest) {
				q.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
				q.Term = 2
				require.NoError(t, tr.AppendEntries("n1#1", raft.ServerAddress(addr), q, &resp))
				require.True(t, resp.Success)
			}
			send(&raft.AppendEntriesRequest{PrevLogEntry: 10, PrevLogTerm: 1, LeaderCommitIndex: 15})
			want := 10
			if off == clampSend|clampReceive {
				want = 15 // five of them are not what the leader has committed
			}
			require.Eventually(t, func() bool { return len(fsm.list()) >= want }, patience, time.Millisecond)
			require.Len(t, fsm.list(), want)
			if want == 10 {
				q := &raft.AppendEntriesRequest{PrevLogEntry: 10, PrevLogTerm: 1, LeaderCommitIndex: 15}
				for i := uint64(11); i <= 15; i++ {
					var l raft.Log
					require.NoError(t, real.GetLog(i, &l))
					q.Entries = append(q.Entries, &l)
				}
				send(q)
				require.Eventually(t, func() bool { return len(fsm.list()) == 15 }, patience, time.Millisecond)
				require.Equal(t, "new 15", fsm.list()[14])
			}
			require.NoError(t, tr.Close())
		})
	}
}

// Hazard H3: proves that a pipeline whose follower refuses one append fails every later send at once, and
// that one which only notes the refusal blocks its sender for good once the library has stopped to read
// answers.
func TestPipelineFailsForward(t *testing.T) {
	t.Parallel()
	for _, off := range []gate{0, failForward} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			g := &gates{}
			g.switchOff(off)
			log := memory{raft.NewInmemStore()}
			leader, _ := end(t, "n0", log, g)
			f, addr := end(t, "n1", log, g)
			refusing := f.attach()
			workers := run.New(context.Background(), "test")
			var calls atomic.Int64
			workers.Go("refuse", func(ctx context.Context) error {
				for {
					select {
					case rpc := <-refusing.Consumer():
						calls.Add(1)
						rpc.Respond(&raft.AppendEntriesResponse{Term: 1, LastLog: 9}, nil)
					case <-ctx.Done():
						return nil
					}
				}
			})
			tr := leader.attach()
			p, err := tr.AppendEntriesPipeline("n1#1", raft.ServerAddress(addr))
			require.NoError(t, err)
			send := func() error {
				_, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 10, PrevLogTerm: 1}, new(raft.AppendEntriesResponse))
				return err
			}
			require.NoError(t, send())
			require.False(t, (<-p.Consumer()).Response().Success) // the library reads no further
			failed := make(chan error, 1)
			workers.Go("send", func(context.Context) error {
				for {
					if err := send(); err != nil {
						failed <- err
						return nil //nolint:nilerr // it is what the test waits for
					}
				}
			})
			if off == 0 {
				require.Error(t, <-failed)
			} else {
				require.Eventually(t, func() bool { return calls.Load() >= pipelineDepth }, patience, time.Millisecond)
				select {
				case err := <-failed:
					t.Fatalf("it has not blocked: %v", err)
				case <-time.After(200 * time.Millisecond):
				}
			}
			require.NoError(t, p.Close())
			require.NoError(t, tr.Close())
			workers.Cancel()
			require.NoError(t, workers.Wait())
			require.NoError(t, refusing.Close())
		})
	}
}

// Proves that an append to a peer that is away waits for it and is then sent: each that fails at once would make the library
// wait twice as long, up to ten seconds, after the peer is back. The end of the instance ends the wait.
func TestAppendWaitsForPeer(t *testing.T) {
	t.Parallel()
	log, g := memory{raft.NewInmemStore()}, &gates{}
	leader, _ := end(t, "n0", log, g)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	tr := leader.attach()
	workers := run.New(context.Background(), "test")
	answer := make(chan error, 1)
	send := func(id raft.ServerID, addr string) {
		workers.Go("append", func(context.Context) error {
			var resp raft.AppendEntriesResponse
			answer <- tr.AppendEntries(id, raft.ServerAddress(addr), &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 10, PrevLogTerm: 1}, &resp)
			return nil
		})
	}
	send("n1#1", addr)
	back, _ := endAt(t, addr, "n1", log, g)
	follower := back.attach()
	workers.Go("take", func(ctx context.Context) error {
		select {
		case rpc := <-follower.Consumer():
			rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
		case <-ctx.Done():
		}
		return nil
	})
	require.NoError(t, <-answer)
	require.NoError(t, follower.Close())
	send("n2#1", "127.0.0.1:1") // nobody listens there
	require.NoError(t, tr.Close())
	require.Error(t, <-answer)
	workers.Cancel()
	require.NoError(t, workers.Wait())
}

// flaky is a log that refuses to store now and then.
type flaky struct {
	memory
	calls, every atomic.Int64
}

func (f *flaky) StoreLogs(logs []*raft.Log) error {
	if every := f.every.Load(); every > 0 && f.calls.Add(1)%every == 0 {
		return errors.New("injected")
	}
	return f.memory.StoreLogs(logs)
}

// Hazard H3, end to end: proves that a follower whose store fails every 50th time has everything once the
// faults stop.
func TestFlakyFollower(t *testing.T) {
	t.Parallel()
	g := &gates{}
	stores := []*flaky{{memory: memory{raft.NewInmemStore()}}, {memory: memory{raft.NewInmemStore()}}, {memory: memory{raft.NewInmemStore()}}}
	var conf raft.Configuration
	var nets []*network
	for i, s := range stores {
		n, addr := end(t, fmt.Sprint("n", i), s, g)
		nets = append(nets, n)
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(n.self()), Address: raft.ServerAddress(addr)})
	}
	var rafts []*raft.Raft
	var ends []*transport
	for i, s := range stores {
		c := raft.DefaultConfig()
		c.LocalID = conf.Servers[i].ID
		c.CommitTimeout, c.Logger = 5*time.Millisecond, newBridge(nets[i].o.Logger)
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = patience, patience, patience
		stable, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		require.NoError(t, raft.BootstrapCluster(c, s, stable, snaps, nil, conf))
		tr := nets[i].attach()
		r, err := raft.NewRaft(c, &applied{}, s, stable, snaps, tr)
		require.NoError(t, err)
		rafts, ends = append(rafts, r), append(ends, tr)
		t.Cleanup(func() {
			require.NoError(t, tr.Close())
			require.NoError(t, r.Shutdown().Error())
		})
	}
	require.NoError(t, (&instance{raft: rafts[0], t: ends[0]}).campaign(t.Context()))
	require.Eventually(t, func() bool { return rafts[0].State() == raft.Leader }, patience, time.Millisecond)
	stores[1].every.Store(50)
	var last raft.ApplyFuture
	for i := range 5000 {
		last = rafts[0].Apply([]byte(fmt.Sprint("entry ", i)), 0)
	}
	require.NoError(t, last.Error())
	stores[1].every.Store(0)
	require.Eventually(t, func() bool {
		return rafts[1].LastIndex() == rafts[0].LastIndex() && rafts[1].AppliedIndex() == rafts[0].AppliedIndex()
	}, patience, time.Millisecond)
}

// Hazard H5: proves that a node with more entries behind its snapshot than the library's channel holds
// batches of starts, and leads.
func TestManyEntriesAtStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.AsyncFlush, 1)
	c.startAll()
	n := c.leader()
	const entries = 128*64 + 200
	var last raft.ApplyFuture
	in := n.instance.Load()
	for range entries {
		b := n.logs.Batch()
		require.NoError(t, b.Add(&engine.Append{Record: record("t", 0, nil), Done: func(*engine.Append) {}}))
		last = in.raft.ApplyLog(raft.Log{Data: b.Token()}, 0)
	}
	require.NoError(t, last.Error())
	require.False(t, n.raftConfig().RestoreCommittedLogs)
	c.stop("n0")
	c.start("n0")
	c.send("t", 0, "last")
	high := c.high(c.leader(), "t", 0)
	require.EqualValues(t, entries+1, high)
}

// Hazard H7: proves that a node whose library goes on refusing to apply after a transfer that failed is
// started anew, and that it would refuse for good otherwise.
func TestStuckTransfer(t *testing.T) {
	t.Parallel()
	for _, off := range []gate{0, restartStuck} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			g := &gates{}
			g.switchOff(off)
			c := newCluster(t, engine.AsyncFlush, 1)
			c.adapt = func(_ string, o *Options) { o.gates, o.HeartbeatTimeout = g, 50*time.Millisecond }
			c.startAll()
			c.send("t", 0, "first")
			n := c.leader()
			old := n.instance.Load()
			atomic.StoreInt32(transferring(old), 1) // as the library's defect leaves it
			_, err := n.Append(t.Context(), record("t", 0, nil))
			require.ErrorIs(t, err, replication.ErrNotLeader)
			n.unstick(n.prop.current())
			if off == 0 {
				require.Eventually(t, func() bool { in := n.instance.Load(); return in != nil && in != old }, patience, time.Millisecond)
				c.send("t", 0, "second")
				return
			}
			time.Sleep(4 * n.o.HeartbeatTimeout)
			_, err = n.Append(t.Context(), record("t", 0, nil))
			require.ErrorIs(t, err, replication.ErrNotLeader)
			atomic.StoreInt32(transferring(old), 0)
		})
	}
}

// transferring is where the library notes that leadership is being handed over.
func transferring(in *instance) *int32 {
	state := reflect.ValueOf(in.raft).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	return (*int32)(unsafe.Pointer(state.UnsafeAddr()))
}

// Hazard H7 again: proves that a node which is elected before the library has seen the end of its last hand-over takes
// office once it has, and that it is started anew if the library never does.
func TestElectedAfterTransfer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.AsyncFlush, 1)
	c.adapt = func(_ string, o *Options) { o.HeartbeatTimeout = time.Second }
	c.startAll()
	c.send("t", 0, "first")
	n := c.leader()
	in := n.instance.Load()
	term := in.raft.CurrentTerm()
	atomic.StoreInt32(transferring(in), 1)
	settled := make(chan error, 1)
	begin := func() {
		n.group.Go("settle in", func(ctx context.Context) error {
			settled <- n.settleIn(ctx, in, term)
			return nil
		})
	}
	begin()
	select {
	case err := <-settled:
		t.Fatal("given up at once: ", err)
	case <-time.After(moment):
	}
	atomic.StoreInt32(transferring(in), 0)
	require.NoError(t, <-settled)
	require.Same(t, in, n.instance.Load())

	atomic.StoreInt32(transferring(in), 1)
	begin()
	require.ErrorIs(t, <-settled, raft.ErrLeadershipTransferInProgress)
	require.Eventually(t, func() bool { now := n.instance.Load(); return now != nil && now != in }, patience, time.Millisecond)
	c.send("t", 0, "second")
}

// Hazard H13: proves that a heartbeat with a newer term does not change the term of a leader whose main goroutine is storing
// entries: they would be stored under the term of its successor.
func TestTermChangesInTurn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.startAll()
	c.send("t", 0, "0")
	c.caughtUp()
	c.heartbeats(5 * time.Second)
	lead, f := c.leader(), c.followers()[0]
	in := lead.instance.Load()
	term, begin := in.raft.CurrentTerm(), lead.Appended()
	g := c.stall(lead.o.SelfID)
	saved := make(chan error, 1)
	lead.group.Go("save", func(ctx context.Context) error {
		saved <- lead.SaveMeta(ctx, "doc", []byte("x"))
		return nil
	})
	require.Eventually(t, func() bool { return lead.Appended() > begin }, patience, time.Millisecond)
	p := f.net.peer(raft.ServerID(lead.id.ID), raft.ServerAddress(c.peers[lead.o.SelfID]))
	w := appendRequest{term: term + 5}
	var b []byte
	require.Error(t, p.askWithin(moment, kindAppend, w.appendHead(nil), &b))
	require.Equal(t, term, in.raft.CurrentTerm())
	g.Open()
	<-saved
	require.Eventually(t, func() bool { return in.raft.CurrentTerm() >= term+5 }, patience, time.Millisecond)
	c.send("t", 0, "1")
	c.caughtUp()
	c.same()
}

// Proves that strangers, nodes of other groups and nodes with other constants are refused with a line that
// names node, difference and fix.
func TestForeignPeers(t *testing.T) {
	t.Parallel()
	n, addr := end(t, "n0", memory{raft.NewInmemStore()}, nil)
	n.setID("n0#2")
	ok := hello{Lane: laneControl, Group: "g", From: "n1#1", Name: "n1", Addr: "127.0.0.1:1", To: "n0#2"}
	for want, change := range map[string]func(*hello){
		"":                        func(*hello) {},
		`"other"`:                 func(h *hello) { h.Group = "other" },
		"mappedFileSizeCommitLog": func(h *hello) { h.SegmentBytes = 4096 },
		"log format 7":            func(h *hello) { h.Format = 7 },
		"own dLegerSelfId":        func(h *hello) { h.Name = "n0" },
		"calls n0#1":              func(h *hello) { h.To = "n0#1" },
	} {
		h := ok
		change(&h)
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		_, err = n.greet(conn, h)
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
		require.NoError(t, conn.Close())
	}
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	require.NoError(t, err)
	b, err := io.ReadAll(conn)
	require.Empty(t, b)
	_ = err // a reset is as good as an end
	require.NoError(t, conn.Close())

	n.setID("")
	conn, err = net.Dial("tcp", addr)
	require.NoError(t, err)
	_, err = n.greet(conn, ok)
	var refused *refusedError
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.early, "it will pass")
	require.ErrorContains(t, err, "has no identity yet")
	require.NoError(t, conn.Close())
}

// FuzzParseAppend proves that no bytes make the decoder panic, and that what it accepts is what would be
// sent.
func FuzzParseAppend(f *testing.F) {
	q := appendRequest{term: 3, prev: 7, prevTerm: 2, commit: 5, entries: []wireEntry{{8, 3, raft.LogCommand, []byte("frame")}, {9, 3, raft.LogNoop, nil}}}
	f.Add(append(q.appendHead(nil), "frame"...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseAppend(b)
		if err != nil {
			require.ErrorIs(t, err, errWire)
			return
		}
		out := q.appendHead(nil)
		for _, e := range q.entries {
			out = append(out, e.frame...)
		}
		require.True(t, bytes.Equal(b, out))
	})
}
