package raftlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rmq/replication"
)

// instance is one run of the library. It is never shown to anybody: its commit index runs ahead of what
// is committed, see DESIGN.md.
type instance struct {
	raft *raft.Raft
	t    *transport
	seen chan raft.Observation
	obs  *raft.Observer

	mu      sync.Mutex
	closing bool
	waiting sync.WaitGroup // for futures of the library, which must be answered before it is shut down: it leaves some unanswered
}

// enter begins to use a future; false once the instance is being shut down.
func (in *instance) enter() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closing {
		in.waiting.Add(1)
	}
	return !in.closing
}

// leave ends what enter began.
func (in *instance) leave() { in.waiting.Done() }

// do waits for what f asks of the library.
func (in *instance) do(f func(*raft.Raft) raft.Future) error {
	if in == nil || !in.enter() {
		return raft.ErrRaftShutdown
	}
	defer in.leave()
	return f(in.raft).Error()
}

// settle waits until no future is waited for. A leader without a majority steps down when its lease ends,
// which answers all that it has not committed.
func (in *instance) settle() {
	in.mu.Lock()
	in.closing = true
	in.mu.Unlock()
	in.waiting.Wait()
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id.ID)
	beat := n.heartbeat()
	c.HeartbeatTimeout, c.ElectionTimeout = beat, beat
	c.LeaderLeaseTimeout = beat - beat/10   // it ends before anybody stands for election, and no earlier: a host may be slow for a moment
	c.CommitTimeout = 50 * time.Millisecond // at the latest then an idle follower hears what is committed
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.NoLegacyTelemetry = true
	c.NoSnapshotRestoreOnStart = true
	c.ShutdownOnRemove = false
	c.RestoreCommittedLogs = n.o.gates.off(replayCommitted) // the engine keeps what is committed, and the library hangs (hazard H5)
	c.TrailingLogs = 1 << 62                                // the library's compaction never runs: retention is the engine's
	c.SnapshotInterval, c.SnapshotThreshold = 1<<40, 1<<62  // ours, see snapshots
	c.Logger = newBridge(n.o.Logger)
	n.mu.Lock()
	if n.patient {
		c.HeartbeatTimeout, c.ElectionTimeout = 10*c.HeartbeatTimeout, 10*c.ElectionTimeout
	}
	n.mu.Unlock()
	return c
}

// timedLog is the log as the library writes it: entries of a term follow the term.
type timedLog struct {
	*LogStore
	votes *StableStore
	took  *replication.HopTimer
}

// StoreLog implements raft.LogStore.
func (l timedLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l timedLog) StoreLogs(logs []*raft.Log) error {
	began := time.Now()
	if err := l.votes.Settle(); err != nil {
		return err
	}
	err := l.LogStore.StoreLogs(logs)
	l.took.Add(time.Since(began))
	return err
}

// startRaft makes the node take part under its identity. Called with raftMu held.
func (n *Node) startRaft() error {
	if n.instance.Load() != nil {
		return nil
	}
	n.snaps.Serve(false)
	in := &instance{t: n.net.attach(), seen: make(chan raft.Observation, 64)}
	r, err := raft.NewRaft(n.raftConfig(), n.fsm, timedLog{n.logs, n.votes, &n.hops.Append}, n.votes, n.snaps, in.t)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), in.t.Close())
	}
	n.snaps.Serve(true)
	in.raft = r
	follows := func(term uint64) bool { return r.State() == raft.Follower && term <= r.CurrentTerm() }
	in.t.follows.Store(&follows)
	in.obs = raft.NewObserver(in.seen, true, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(in.obs)
	n.group.Go("observe", func(context.Context) error {
		for range in.seen {
			n.poke()
		}
		return nil
	})
	n.configured(r.GetConfiguration().Configuration(), 0)
	n.instance.Store(in)
	n.poke()
	return nil
}

// stopRaft ends this node's part, for good or to start anew.
func (n *Node) stopRaft() error {
	n.raftMu.Lock()
	defer n.raftMu.Unlock()
	return n.stopRaftLocked()
}

func (n *Node) stopRaftLocked() error {
	in := n.instance.Swap(nil)
	if in == nil {
		return nil
	}
	n.prop.stop()
	in.settle()
	err := in.t.Close() // ends what the library's goroutines wait for
	err = errors.Join(err, in.raft.Shutdown().Error())
	in.raft.DeregisterObserver(in.obs)
	close(in.seen)
	n.poke()
	return err
}

// restartRaft starts anew from what is on disk, after change has changed it.
func (n *Node) restartRaft(change func() error) error {
	n.raftMu.Lock()
	defer n.raftMu.Unlock()
	if err := n.stopRaftLocked(); err != nil {
		return err
	}
	n.mu.Lock()
	closing := n.closing
	n.mu.Unlock()
	if closing {
		return errNotReady
	}
	if change != nil {
		if err := change(); err != nil {
			return errors.Join(err, n.startRaft())
		}
	}
	return n.startRaft()
}

// poke makes roles look again.
func (n *Node) poke() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// roles begins and ends the times of leading, and tells every change.
func (n *Node) roles(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
		}
		in := n.instance.Load()
		t := n.prop.current()
		leads := in != nil && in.raft.State() == raft.Leader
		if t != nil && (!leads || t.in != in || t.term != in.raft.CurrentTerm()) {
			n.prop.stop()
			t = nil
		}
		if leads && t == nil {
			n.tell() // followers elsewhere may be told to wait
			n.takeOffice(ctx, in)
		}
		n.tell()
	}
}

// takeOffice begins to lead once everything that came before is applied here: documents of the broker
// included, so that it serves what its predecessor has promised.
func (n *Node) takeOffice(ctx context.Context, in *instance) {
	term := in.raft.CurrentTerm()
	err := n.settleIn(ctx, in, term)
	if err != nil || ctx.Err() != nil {
		n.o.Logger.Info("elected, but not for long", "term", term, "error", err)
		return
	}
	if in.raft.State() != raft.Leader || in.raft.CurrentTerm() != term {
		return
	}
	n.prop.lead(n.group.Context(), in, term)
	n.o.Logger.Info("this node leads", "group", n.o.Group, "id", n.id.ID, "term", term)
	if in.raft.State() != raft.Leader { // lost meanwhile: roles has heard of it, or will
		n.poke()
	}
}

// settleIn waits until a leader has applied all that came before it. When the last one to lead here has handed over, the
// library may not have noticed the end of that, and refuses to apply: for a moment, or for good (hazard H7).
func (n *Node) settleIn(ctx context.Context, in *instance, term uint64) error {
	for end := time.Now().Add(2 * n.heartbeat()); ; {
		err := in.do(func(r *raft.Raft) raft.Future { return r.Barrier(0) })
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) || in.raft.State() != raft.Leader || in.raft.CurrentTerm() != term {
			return err
		}
		if time.Now().After(end) {
			n.restartStuck()
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

// tell reports the role if it has changed.
func (n *Node) tell() {
	st := n.Status()
	n.mu.Lock()
	last, told := n.status, n.told
	n.status, n.told = st, true
	if st.Leader != "" {
		n.impatient()
	}
	close(n.news)
	n.news = make(chan struct{})
	n.mu.Unlock()
	same := told && last.Role == st.Role && last.Leader == st.Leader && last.Epoch == st.Epoch && last.Client == st.Client && last.Why == st.Why
	if n.o.Events.Role != nil && !same {
		n.o.Events.Role(st)
	}
}

// impatient ends what [Node.remember] has asked of the next election. Called with mu held.
func (n *Node) impatient() {
	in := n.instance.Load()
	if !n.patient || in == nil {
		return
	}
	n.patient = false
	c := in.raft.ReloadableConfig()
	beat := n.heartbeat()
	c.HeartbeatTimeout, c.ElectionTimeout = beat, beat
	if err := in.raft.ReloadConfig(c); err != nil {
		n.o.Logger.Warn("raft settings", "error", err)
	}
}

// await waits until the status is as wanted.
func (n *Node) await(ctx context.Context, wanted func(replication.Status) bool) error {
	for {
		n.mu.Lock()
		news := n.news
		n.mu.Unlock()
		if wanted(n.Status()) {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setWhy notes why the node takes no part; "" when it does.
func (n *Node) setWhy(why string) {
	n.mu.Lock()
	news := n.why != why
	n.why = why
	n.mu.Unlock()
	if news {
		if why != "" {
			n.o.Logger.Warn("raft: "+why, "group", n.o.Group, "id", n.o.SelfID)
		}
		n.poke()
	}
}

// fatal ends this node's part for good: it stays readable.
func (n *Node) fatal(err error) {
	n.o.Logger.Error("raft node stops", "group", n.o.Group, "id", n.id.ID, "error", err)
	n.net.muted.Store(true)
	n.setWhy(err.Error())
	if n.o.Fatal != nil {
		n.o.Fatal(err)
	}
}

// current is the present time of leading, nil if there is none.
func (p *proposer) current() *tenure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tenure
}
