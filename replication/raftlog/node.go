package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/replication"
)

// LossPolicy says what a group does of which every voter may have lost acked messages.
type LossPolicy int

// The policies.
const (
	Wait       LossPolicy = iota // nobody leads until an operator decides
	LongestLog                   // once all voters are there, the longest log leads; what it lacks is lost
)

// Options make a [Node].
type Options struct {
	// Engine is how the log is kept. Dir is the storePathRootDir: the node's files go to raft-<SelfID>
	// below it, whatever other directories the options name.
	Engine engine.Options

	Group  string            // dLegerGroup
	SelfID string            // dLegerSelfId, one of Peers
	Peers  map[string]string // dLegerPeers: id → host:port at which a node listens to the others
	Client string            // host:port at which clients reach this node, told to the others
	// Preferred is the id of the peer that leads when it can (preferredLeaderId); "": whoever does.
	Preferred string
	// AfterTotalPowerLoss is for groups that ack from the page cache.
	AfterTotalPowerLoss LossPolicy

	// HeartbeatTimeout is after how much silence a follower campaigns; 0: 300 ms. A leader that hears of
	// no majority for half of it steps down. One second suits noisy hosts. Over slow links, where five round
	// trips take longer, a node doubles it, up to eight times.
	HeartbeatTimeout time.Duration
	// Window bounds the bytes between what is appended and what is committed; 0: 64 MiB.
	Window int64

	Events replication.Events
	Logger *slog.Logger // nil: silent
	// Gated says which documents of [Node.SaveMeta] become durable as messages do, in a group of others, and
	// not by a sync of their own: those that change all the time. nil: none.
	Gated func(name string) bool
	// GatesOff switches guards off, for tests that show what they are for: follower, leader, inline, truncate,
	// snapshot, clamp, vote, pipeline, replay, install, transfer.
	GatesOff []string
	// Fatal hears of what the node cannot go on after: the process should end. nil: it is only logged.
	Fatal func(error)

	Dial     func(ctx context.Context, id, addr string) (net.Conn, error) // nil: TCP. For tests: partitions
	Listener net.Listener                                                 // nil: listens at its own address
	BootID   string                                                       // of the machine; "": what the kernel says

	gates *gates
	times *times
}

// times are the waits of a node, shorter in tests.
type times struct {
	snapshot      time.Duration // between snapshots
	snapshotBytes int64         // or after so many bytes of log
	stallTransfer time.Duration // a disk that hangs so long: somebody else leads
	stallExit     time.Duration // and so long: the node ends
	prefer        time.Duration // a preferred leader is looked for
	measure       time.Duration // between measurements of a round trip
	drain         time.Duration // a hand-over waits for what is on its way
}

var defaultTimes = times{
	snapshot: 30 * time.Second, snapshotBytes: 1 << 30, stallTransfer: time.Second, stallExit: 5 * time.Second,
	prefer: time.Second, measure: 250 * time.Millisecond, drain: time.Second,
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	if o.HeartbeatTimeout == 0 {
		o.HeartbeatTimeout = 300 * time.Millisecond
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Engine.FS == nil {
		o.Engine.FS = vfs.OS
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	for _, name := range o.GatesOff {
		if o.gates == nil {
			o.gates = &gates{}
		}
		if g, err := parseGate(name); err == nil { // Validate complains
			o.gates.switchOff(g)
		}
	}
	if o.times == nil {
		o.times = &defaultTimes
	}
}

// Validate returns every complaint at once. Call it after EnsureDefaults.
func (o *Options) Validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Group == "" {
		complain("dLegerGroup is empty: name the group")
	}
	if o.Engine.Dir == "" {
		complain("storePathRootDir is empty: name a directory")
	}
	if _, ok := o.Peers[o.SelfID]; !ok {
		complain("dLegerSelfId %q is not among dLegerPeers %s: add it, or correct the id", o.SelfID, peerList(o.Peers))
	}
	if o.Preferred != "" && o.Peers[o.Preferred] == "" {
		complain("preferredLeaderId %q is not among dLegerPeers %s", o.Preferred, peerList(o.Peers))
	}
	for _, name := range o.GatesOff {
		if _, err := parseGate(name); err != nil {
			errs = append(errs, err)
		}
	}
	seen := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(o.Peers)) {
		addr := o.Peers[id]
		if _, _, err := net.SplitHostPort(addr); err != nil {
			complain("dLegerPeers has %s-%s: give host:port", id, addr)
		}
		if !validName(id) {
			complain("dLegerPeers has the id %q: use letters, digits, '.', '_' and '-'", id)
		}
		if other, ok := seen[addr]; ok {
			complain("dLegerPeers gives %s and %s the same address %s", other, id, addr)
		}
		seen[addr] = id
	}
	if o.HeartbeatTimeout < 20*time.Millisecond {
		complain("the heartbeat timeout is %v: use at least 20ms", o.HeartbeatTimeout)
	}
	return errors.Join(errs...)
}

func validName(id string) bool {
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

func peerList(peers map[string]string) string {
	s := ""
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		if s != "" {
			s += ";"
		}
		s += id + "-" + peers[id]
	}
	return s
}

// Node is one member of a raft group. Reads are those of the engine. All methods are safe for concurrent
// use; Close ends what was started.
//
// Its goroutines: propose and reap (proposer), roles (follows raft's state and tells it), observe
// (wakes it), admit (until the node is a member), watchdog, snapshots, duties (of a leader), pace (timeouts), short ones for
// single calls, and those of network, LogStore and the library.
type Node struct {
	*engine.Store
	o     Options
	logs  *LogStore
	votes *StableStore
	snaps *SnapshotStore
	id    identity
	net   *network
	fsm   *fsm
	prop  *proposer
	group *run.Group
	hops  replication.HopTimers

	metaID  atomic.Uint64
	paced   atomic.Int32  // how often the timeouts are doubled, see pace
	changed chan struct{} // capacity 1: the role may have changed

	mends mender

	raftMu   sync.Mutex // held while raft is started or stopped
	instance atomic.Pointer[instance]

	mu      sync.Mutex
	why     string // why the node takes no part
	config  raft.Configuration
	status  replication.Status // as told last
	told    bool
	news    chan struct{} // closed and replaced at every look at the status
	closing bool
	patient bool                 // others are to be elected first, see remember
	fresh   map[string]bool      // peers that were seen with an empty log
	struck  map[string]time.Time // when the process of a leader was last seen to be gone

	resolved  atomic.Bool              // it goes on though it has forgotten
	changing  sync.Mutex               // one change of the membership at a time
	agreed    map[raft.ServerID]uint64 // duties: entries compared with a peer
	committed atomic.Int64             // end of the last committed frame

	closed sync.Once
	err    error
}

var (
	_ replication.Log       = (*Node)(nil)
	_ replication.Group     = (*Node)(nil)
	_ replication.Chronicle = (*Node)(nil)
	_ replication.Timed     = (*Node)(nil)
)

// Open opens this node's copy of the log and makes it take part in its group, in the background: it comes
// back without waiting for others. An empty node starts the group together with the other empty ones, or
// is let into the one that there is.
//
// Errors: wrong options, a directory of something else, those of [engine.Open], and an address that is in
// use.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if len(o.Peers)%2 == 0 {
		o.Logger.Warn("dLegerPeers has an even number of nodes: one more tolerates as many failures as one less", "peers", len(o.Peers))
	}
	n := &Node{o: o, group: run.New(context.Background(), "raftlog"), changed: make(chan struct{}, 1), news: make(chan struct{}),
		fresh: map[string]bool{}, struck: map[string]time.Time{}, agreed: map[raft.ServerID]uint64{}}
	n.metaID.Store(rand.Uint64()) // so that ids of two runs do not meet
	if err := n.openStores(ctx); err != nil {
		return nil, err
	}
	if err := n.listen(ctx); err != nil {
		return nil, errors.Join(err, n.closeStores())
	}
	n.logs.mend = n.mend
	n.prop = newProposer(n, o.Window)
	n.group.Go("propose", n.prop.propose)
	n.group.Go("reap", n.prop.reap)
	n.group.Go("roles", n.roles)
	n.group.Go("admit", n.admit)
	n.group.Go("watchdog", n.watchdog)
	n.group.Go("snapshots", n.snapshots)
	n.group.Go("duties", n.duties)
	n.group.Go("pace", n.pace)
	return n, nil
}

// dir is where the node's files are.
func (o *Options) dir() string { return path.Join(o.Engine.Dir, "raft-"+o.SelfID) }

func (n *Node) openStores(ctx context.Context) (err error) {
	e := n.o.Engine
	e.Dir = n.o.dir()
	e.CommitLogDir, e.QueueDir, e.IndexDir = "", "", ""
	own := path.Join(e.Dir, "rmq", "raft")
	if err := e.FS.MkdirAll(own, 0o755); err != nil {
		return err
	}
	if n.id, err = loadIdentity(e.FS, own, &n.o); err != nil {
		return err
	}
	if n.logs, err = OpenLogStore(ctx, LogStoreOptions{Engine: e, Logger: n.o.Logger, gates: n.o.gates}); err != nil {
		return err
	}
	n.Store = n.logs.Engine()
	if n.votes, err = OpenStable(e.FS, own); err != nil {
		return errors.Join(err, n.logs.Close())
	}
	n.votes.gates = n.o.gates
	if n.snaps, err = OpenSnapshots(e.FS, own, n.logs); err != nil {
		return errors.Join(err, n.votes.Close(), n.logs.Close())
	}
	n.fsm = newFSM(n)
	b, err := n.snaps.Newest()
	if err == nil && b != nil {
		err = n.fsm.load(b)
	}
	if err != nil {
		return errors.Join(err, n.votes.Close(), n.logs.Close())
	}
	return nil
}

func (n *Node) closeStores() error {
	return errors.Join(n.votes.Close(), n.logs.Close())
}

// listen starts the network.
func (n *Node) listen(ctx context.Context) error {
	addr := n.o.Peers[n.o.SelfID]
	if n.o.Listener == nil {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("dLegerPeers, %s: %w", n.o.SelfID, err)
		}
		n.o.Listener = ln
	}
	if err := n.id.opened(&n.o); err != nil {
		return errors.Join(err, n.o.Listener.Close())
	}
	n.net = newNetwork(netOptions{
		Group: n.o.Group, Name: n.o.SelfID, Addr: addr, Client: n.o.Client,
		SegmentBytes: n.Store.Options().SegmentBytes, Format: frameVersion, Log: logFrames{n.logs},
		Listener: n.o.Listener, Dial: n.o.Dial, Logger: n.o.Logger, Handle: n.handle, Settle: n.votes.Settle, Lost: n.lostPeer,
		gates: n.o.gates, hops: &n.hops,
	})
	n.net.setID(n.id.ID)
	n.net.start()
	return nil
}

// logFrames is the log as the network wants it.
type logFrames struct{ *LogStore }

func (l logFrames) Positions() (written, durable int64) {
	return l.Engine().Written(), l.Engine().Flushed()
}

// SubmitFront implements [replication.Log].
func (n *Node) SubmitFront(ctx context.Context, as []*engine.Append) (int, error) {
	return n.prop.submit(ctx, as)
}

// Append implements [replication.Log].
func (n *Node) Append(ctx context.Context, rec []byte) (engine.Result, error) {
	done := make(chan struct{})
	a := &engine.Append{Record: rec, Done: func(*engine.Append) { close(done) }}
	if _, err := n.prop.submit(ctx, []*engine.Append{a}); err != nil {
		return engine.Result{}, err
	}
	select {
	case <-done:
		return a.Result, a.Err
	case <-ctx.Done():
		return engine.Result{}, fmt.Errorf("%w: %w", engine.ErrIndeterminate, context.Cause(ctx))
	}
}

// Submit and SubmitVector are those of the engine, by way of the group.
func (n *Node) Submit(a *engine.Append) { n.SubmitVector([]*engine.Append{a}) }

// SubmitVector is [engine.Store.SubmitVector].
func (n *Node) SubmitVector(as []*engine.Append) {
	for len(as) > 0 {
		k, err := n.prop.submit(n.group.Context(), as)
		if err != nil {
			as[k].Err = err
			as[k].Done(as[k])
			k++
		}
		as = as[k:]
	}
}

// Late implements [replication.Log].
func (n *Node) Late(pos int64) error {
	if n.committed.Load() < pos {
		return fmt.Errorf("no majority of the group has the record yet: %w", replication.ErrNotEnoughReplicas)
	}
	return engine.ErrIndeterminate
}

// Hops implements [replication.Timed].
func (n *Node) Hops() replication.Hops {
	h, st := n.hops.Hops(), n.Stats()
	h.LocalFlush = replication.Hop{Count: st.Flushes, Nanos: st.FlushNanos}
	return h
}

// notLeader refuses an append.
func (n *Node) notLeader() error {
	st := n.Status()
	e := &replication.NotLeaderError{Leader: st.Client, Epoch: st.Epoch, Why: st.Why}
	if st.Leader == n.id.ID {
		e.Leader = "" // it will lead in a moment
	}
	return e
}

// outcome is how the error of something proposed is told when it may be in the log.
func (n *Node) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	}
	return fmt.Errorf("%w: %w", engine.ErrIndeterminate, err)
}

// Status implements [replication.Log].
func (n *Node) Status() replication.Status {
	st := replication.Status{
		Mode: replication.Raft, Role: replication.ReadOnly, ID: n.net.self(), Written: n.Written(), Durable: n.Flushed(), Confirm: n.Visible(),
	}
	n.mu.Lock()
	st.Why = n.why
	servers := n.config.Servers
	n.mu.Unlock()
	in := n.instance.Load()
	if in == nil {
		if st.Why == "" {
			st.Why = "raft does not run yet"
		}
		return st
	}
	st.Epoch = int64(in.raft.CurrentTerm())
	_, leader := in.raft.LeaderWithID()
	st.Leader = string(leader)
	switch st.Leader {
	case "":
		if st.Why == "" {
			st.Why = "an election is running: no leader is known"
			if now := in.raft.GetConfiguration().Configuration().Servers; len(now) > 0 && !holds(now, st.ID) {
				st.Why = fmt.Sprintf("%s was removed from group %s, whose members are %s: stop it, or let it in again (mqadmin raftPeer add)", st.ID, n.o.Group, memberList(now))
			}
		}
	case st.ID:
		st.Client = n.o.Client
		if n.prop.current() != nil {
			st.Role = replication.Leader
			st.Peers = n.peerStatus(servers, st.Written)
		} else if st.Why == "" {
			st.Why = "this node has just been elected"
		}
	default:
		st.Role = replication.Follower
		st.Client = n.net.clientOf(leader)
		st.Why = ""
	}
	return st
}

// peerStatus is the others as the leader knows them.
func (n *Node) peerStatus(servers []raft.Server, written int64) []replication.Peer {
	var ps []replication.Peer
	now := time.Now().UnixNano()
	for _, s := range servers {
		if string(s.ID) == n.net.self() {
			continue
		}
		p := n.net.peer(s.ID, s.Address)
		q := replication.Peer{
			ID: string(s.ID), Addr: string(s.Address), Client: n.net.clientOf(s.ID), Written: p.written.Load(), Durable: p.durable.Load(),
			Voter: s.Suffrage == raft.Voter, BytesOut: p.bytesOut.Load(), Quiet: -1,
		}
		if p.online() {
			q.Quiet = time.Duration(max(0, now-p.heard.Load()))
		}
		q.LagBytes = max(0, written-q.Written)
		q.InSync = q.Quiet >= 0 && q.Quiet < n.heartbeat() && q.LagBytes <= n.o.Window
		ps = append(ps, q)
	}
	return ps
}

// Close hands leadership over if this node has it, stops to take part, and closes the log.
func (n *Node) Close() error {
	n.closed.Do(func() { n.err = n.close() })
	return n.err
}

func (n *Node) close() error {
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	if n.prop.current() != nil {
		ctx, cancel := context.WithTimeout(context.Background(), n.o.times.drain+2*n.heartbeat())
		if err := n.Handover(ctx); err != nil {
			n.o.Logger.Warn("leadership was not handed over", "error", err)
		}
		cancel()
	}
	n.prop.stop()
	n.group.Cancel()
	err := n.stopRaft()
	err = errors.Join(err, n.net.close(), n.group.Wait(), n.votes.Close())
	poisoned := n.Refusal()
	err = errors.Join(err, n.logs.Close())
	if err == nil && poisoned == nil {
		err = n.id.save(true)
	}
	return err
}
