package ha

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/internal/watermark"
	"rmq/replication"
)

// Service is one node of a log with a master and slaves: a [replication.Log] whose leader an operator
// chooses ([replication.Promoter]). It is the HAService of Apache RocketMQ, with the store inside.
//
// Its goroutines: accept, housekeeping, events, hold (of a master that starts), client (follows a master while this node is a slave),
// announcer (tells a former master), and four a connection. All methods are safe for concurrent use.
type Service struct {
	*engine.Store
	o           Options
	incarnation string
	hops        hopTimes
	transfer    *GroupTransfer
	stockPeers  []netip.Prefix
	pace        pace
	listener    net.Listener
	group       *run.Group

	role   atomic.Int32
	submit sync.RWMutex // appends hold it shared; who ends a reign holds it alone
	// applying is held by whoever changes the log of a node that does not lead.
	applying sync.Mutex
	epochs   atomic.Pointer[Epochs]

	mu       sync.Mutex // guards what follows; also held while the epoch file is saved
	rec      record
	mode     replication.Mode
	master   string // where to follow
	mClient  string // where clients reach the master
	mTold    bool   // it has told mClient itself
	mID      string
	why      string
	reported map[string]bool      // read-only: who has been heard
	told     map[string]time.Time // refusals that were logged
	conns    map[*peerConn]struct{}
	hold     chan struct{} // open while this node waits to lead, see held; nil if it never has
	lastSeen lastSeen
	closed   bool

	docs docs

	kick chan struct{} // for events
	turn chan struct{} // for the client: there is somebody else to follow
	once sync.Once
	err  error
}

// lastSeen is what a slave has last heard of its master's log.
type lastSeen struct {
	end    int64
	at     time.Time
	needed bool // nothing was acked without this slave
	bye    bool // the master has closed in good order at end
}

var (
	_ replication.Log       = (*Service)(nil)
	_ replication.Promoter  = (*Service)(nil)
	_ replication.Chronicle = (*Service)(nil)
)

// Open opens the store and begins to lead or to follow, as the configuration says and what has become
// of the node since. It listens before it returns.
//
// Errors: a wrong option; those of [engine.Open]; a damaged epoch file; the port.
func Open(ctx context.Context, o Options) (*Service, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		o: o, incarnation: newIncarnation(), hops: hopTimes{began: time.Now()}, mode: o.Mode, master: o.Master, mClient: o.MasterClient,
		conns: map[*peerConn]struct{}{}, kick: make(chan struct{}, 1), turn: make(chan struct{}, 1), pace: pace{perSecond: o.RateLimit},
		reported: map[string]bool{}, docs: docs{newest: map[string]document{}},
	}
	s.stockPeers, _ = parsePeers(o.StockPeers) // Validate has seen it
	s.transfer = newGroupTransfer(&s.o, &s.hops)
	s.transfer.docs = s.docs.mark.Load
	rec, err := loadRecord(o.Engine.FS, o.Engine.Dir)
	if err != nil {
		return nil, err
	}
	s.rec = rec
	follower := o.Slave && rec.Role != roleLeader || rec.Role == roleFollower
	if o.Slave && rec.Mode != "" {
		if s.mode, err = replication.ParseMode(rec.Mode); err != nil {
			return nil, fmt.Errorf("epoch file: %w", err)
		}
	}
	if err := s.openStore(ctx, follower); err != nil {
		return nil, err
	}
	if s.listener, err = s.listen(ctx); err != nil {
		return nil, errors.Join(err, s.Store.Close())
	}
	setDefault(&s.o.Advertise, s.listener.Addr().String())
	if err := s.begin(follower); err != nil {
		return nil, errors.Join(err, s.listener.Close(), s.Store.Close())
	}
	s.group = run.New(context.Background(), "ha")
	s.group.Go("accept", s.accept)
	s.group.Go("housekeeping", s.housekeeping)
	s.group.Go("events", s.tell)
	s.group.Go("client", s.follow)
	s.group.Go("announcer", s.announce)
	if s.hold != nil {
		s.group.Go("hold", s.keepHold)
	}
	return s, nil
}

func (s *Service) openStore(ctx context.Context, follower bool) error {
	e := s.o.Engine
	e.SyncAside = true
	e.Hidden = follower || s.mode == replication.Sync
	if follower || s.o.Slave || s.mode == replication.Sync {
		e.AckMarks = []*watermark.Mark{&s.transfer.log.mark}
		e.Verdict = s.transfer.verdict
	}
	e.Cluster = s.o.Engine.Cluster
	store, err := engine.Open(ctx, e)
	if err != nil {
		return err
	}
	s.Store, s.transfer.store = store, store
	return nil
}

func (s *Service) listen(ctx context.Context) (net.Listener, error) {
	if s.o.Listener != nil {
		return s.o.Listener, nil
	}
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", s.o.Listen)
	if err != nil {
		return nil, fmt.Errorf("replication port: %w: free the port, or set haListenPort", err)
	}
	return l, nil
}

// begin takes up the role.
func (s *Service) begin(follower bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec.Epochs = s.rec.Epochs.upTo(s.Appended())
	s.epochs.Store(&s.rec.Epochs)
	log := s.o.Logger
	switch {
	case follower:
		if !s.o.Slave {
			log.Warn("this node was master by its configuration, but another was promoted in its place: it follows", "leader", s.rec.Leader,
				"fix", "set brokerRole=SLAVE and a brokerId above 0, or promote this node")
		}
		if s.master == "" {
			s.master, s.mClient = s.rec.Leader, s.rec.Client
		}
		s.role.Store(int32(replication.Follower))
		s.changed()
		return nil
	case s.o.Slave:
		log.Warn("this node is a slave by its configuration, but was promoted: it leads", "fix", "set brokerRole to a master's and brokerId=0")
	}
	rep := s.Recovery()
	lost := s.o.Engine.Flush == engine.AsyncFlush && !rep.New && !rep.Clean && !rep.Closed && (rep.Rebooted || s.o.Rebooted)
	if lost && s.mode == replication.Sync && len(s.rec.Replicas) > 0 {
		s.why = fmt.Sprintf("the machine went down under asynchronous flush, so slaves may hold acked messages that this log has lost: waiting to hear of %d of %v; or promote this node and accept the loss",
			s.mustHear(), s.rec.Replicas)
		s.role.Store(int32(replication.ReadOnly))
		log.Warn("read-only", "why", s.why)
		s.changed()
		return nil
	}
	if len(s.rec.Replicas) > 0 {
		s.why, s.hold = holdWhy, make(chan struct{})
		s.role.Store(int32(replication.ReadOnly))
		s.changed()
		return nil
	}
	return s.leadLocked(false)
}

// mustHear is how many of the replicas must report before it is sure that one has every acked message.
func (s *Service) mustHear() int {
	return max(1, len(s.rec.Replicas)-(s.o.InSyncReplicas-1)+1)
}

// leadLocked begins a reign at the end of the log. Called with mu held; nothing is appended meanwhile.
func (s *Service) leadLocked(promoted bool) error {
	rec := s.rec
	if rec.Group == 0 {
		rec.Group = newGroup()
	}
	end := s.Appended()
	rec.Epochs = rec.Epochs.add(Epoch{Epoch: rec.Epochs.next(promoted), Start: end, By: s.o.ID, Run: s.incarnation}).prune(s.Min())
	if promoted {
		rec.Replicas = nil
		rec.Role, rec.Mode = roleLeader, s.mode.String()
		rec.Leader, rec.Client = "", ""
	}
	if err := s.saveLocked(rec); err != nil {
		return err
	}
	s.why = ""
	s.transfer.group.Store(rec.Group)
	s.transfer.lead(s.mode == replication.Sync, end)
	s.role.Store(int32(replication.Leader))
	s.o.Logger.Info("this node leads", "epoch", rec.Epochs.Last(), "from", end, "mode", s.mode, "group", fmt.Sprintf("%016x", rec.Group))
	s.changed()
	return nil
}

// saveLocked makes rec what this node knows. Called with mu held.
func (s *Service) saveLocked(rec record) error {
	if err := saveRecord(s.o.Engine.FS, s.o.Engine.Dir, rec); err != nil {
		return err
	}
	s.rec = rec
	s.epochs.Store(&rec.Epochs)
	return nil
}

// demote ends the reign of this node: leader has begun a newer one, or is to be asked who has.
func (s *Service) demote(epoch int64, leader, client string) error {
	s.mu.Lock() // nobody makes it lead meanwhile
	was := s.Role()
	s.role.Store(int32(replication.Follower))
	s.mu.Unlock()
	if was == replication.Follower {
		return nil
	}
	s.transfer.follow() // lets go of those that wait and hold submit
	s.submit.Lock()
	s.transfer.follow()
	s.SetConfirm(s.Visible())
	s.submit.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.rec
	rec.Role, rec.Leader, rec.Client, rec.Former = roleFollower, leader, client, ""
	s.master, s.mClient, s.mTold, s.why = leader, client, false, ""
	clear(s.reported)
	err := s.saveLocked(rec)
	for c := range s.conns {
		c.close()
	}
	s.o.Logger.Warn("another node leads in a newer epoch: this one follows it", "epoch", epoch, "own", rec.Epochs.Last(), "leader", leader)
	s.changed()
	wake(s.turn)
	return err
}

// Role is what the node is at present.
func (s *Service) Role() replication.Role { return replication.Role(s.role.Load()) }

// notLeader is the refusal of an append here.
func (s *Service) notLeader() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &replication.NotLeaderError{Leader: s.mClient, Epoch: s.rec.Epochs.Last(), Why: s.why}
}

// enter begins an append. On nil the caller holds submit shared.
func (s *Service) enter() error {
	s.submit.RLock()
	if s.Role() != replication.Leader {
		s.submit.RUnlock()
		return s.notLeader()
	}
	if err := s.transfer.admit(); err != nil {
		s.submit.RUnlock()
		return err
	}
	return nil
}

// SubmitFront implements [replication.Log].
func (s *Service) SubmitFront(ctx context.Context, as []*engine.Append) (n int, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	began := s.hops.now()
	n, err = s.Store.SubmitFront(ctx, as)
	s.hops.append.add(s.hops.now() - began)
	s.transfer.submitted()
	s.submit.RUnlock()
	return n, err
}

// Submit is [engine.Store.Submit] with the errors of [Service.SubmitFront] for Done.
func (s *Service) Submit(a *engine.Append) {
	as := [1]*engine.Append{a}
	s.SubmitVector(as[:])
}

// SubmitVector is [engine.Store.SubmitVector] with the errors of [Service.SubmitFront] for Done.
func (s *Service) SubmitVector(as []*engine.Append) {
	for len(as) > 0 {
		n, err := s.SubmitFront(s.group.Context(), as)
		if err == nil {
			return
		}
		as[n].Err = err
		as[n].Done(as[n])
		as = as[n+1:]
	}
}

// Append implements [replication.Log].
func (s *Service) Append(ctx context.Context, rec []byte) (engine.Result, error) {
	if !s.transfer.sync.Load() {
		if err := s.enter(); err != nil {
			return engine.Result{}, err
		}
		defer s.submit.RUnlock()
		return s.Store.Append(ctx, rec)
	}
	// Nobody may wait for slaves and hold submit.
	w := &appendWaiter{done: make(chan struct{})}
	w.Record, w.Done = rec, func(*engine.Append) { close(w.done) }
	if _, err := s.SubmitFront(ctx, []*engine.Append{&w.Append}); err != nil {
		return engine.Result{}, err
	}
	select {
	case <-w.done:
		return w.Result, w.Err
	case <-ctx.Done():
		return w.Result, fmt.Errorf("%w at offset %d: %w", s.Late(w.Result.Pos+int64(w.Result.Size)), w.Result.Pos, context.Cause(ctx))
	}
}

type appendWaiter struct {
	engine.Append
	done chan struct{}
}

// Late implements [replication.Log].
func (s *Service) Late(pos int64) error {
	if s.transfer.sync.Load() && s.Role() == replication.Leader && pos > s.transfer.log.replicated.Load() {
		return replication.ErrReplicaTimeout
	}
	return engine.ErrIndeterminate
}

// Handover implements [replication.Log]: who leads is an operator's choice, so it sees to it that the
// slaves that are in sync have everything, and that they know it.
func (s *Service) Handover(ctx context.Context) error {
	end := s.Appended()
	for s.Role() == replication.Leader {
		behind := false
		for _, p := range s.transfer.peers() {
			behind = behind || p.InSync && p.Written < end
		}
		if !behind {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", replication.ErrReplicaTimeout, context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// Reigns implements [replication.Chronicle]. There is never an error.
func (s *Service) Reigns() ([]replication.Reign, error) {
	var rs []replication.Reign
	for _, e := range *s.epochs.Load() {
		rs = append(rs, replication.Reign{Epoch: e.Epoch, Start: e.Start})
	}
	return rs, nil
}

// Status implements [replication.Log].
func (s *Service) Status() replication.Status {
	s.mu.Lock()
	st := replication.Status{Mode: s.mode, Role: s.Role(), ID: s.o.ID, Epoch: s.rec.Epochs.Last(), Leader: s.mID, Client: s.mClient, Why: s.why}
	if st.Role == replication.Leader {
		st.Leader, st.Client = s.o.ID, s.o.Client
	}
	if len(s.rec.Epochs) > 0 && st.Role == replication.Follower {
		st.Leader = s.rec.Epochs.newest().By
	}
	s.mu.Unlock()
	st.Confirm, st.Written, st.Durable = s.Visible(), s.Written(), s.Flushed()
	if st.Role != replication.Follower {
		st.Peers = s.transfer.peers()
	}
	return st
}

// Hops are the times of appends so far.
func (s *Service) Hops() replication.Hops {
	st := s.Stats()
	return replication.Hops{
		Append: s.hops.append.load(), LocalFlush: replication.Hop{Count: st.Flushes, Nanos: st.FlushNanos}, Send: s.hops.send.load(),
		RemoteAppend: s.hops.remote.load(), RemoteFlush: s.hops.remoteFlush.load(), Ack: s.hops.acks.load(),
	}
}

// Addr is where the replication port listens.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Close says good-bye to the slaves, ends all goroutines and closes the store.
func (s *Service) Close() error {
	s.once.Do(func() {
		s.role.CompareAndSwap(int32(replication.Leader), int32(replication.ReadOnly))
		s.transfer.follow()
		s.submit.Lock() // nothing is appended any more
		s.mu.Lock()
		s.why, s.closed = "the broker is shutting down", true
		conns := slices.Collect(keys(s.conns))
		s.mu.Unlock()
		s.submit.Unlock()
		for _, c := range conns {
			c.bye()
		}
		err := s.listener.Close()
		s.group.Cancel()
		for _, c := range conns {
			c.close()
		}
		s.err = errors.Join(err, s.group.Wait(), s.Store.Close())
	})
	return s.err
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// changed asks for the events to be told. Any lock may be held.
func (s *Service) changed() { wake(s.kick) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tell calls Events.Role.
func (s *Service) tell(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
			if s.o.Events.Role != nil {
				s.o.Events.Role(s.Status())
			}
		}
	}
}

// housekeeping sends signs of life, closes connections that give none, and counts who is in sync.
func (s *Service) housekeeping(ctx context.Context) error {
	tick := time.NewTicker(s.o.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.mu.Lock()
			conns := slices.Collect(keys(s.conns))
			s.mu.Unlock()
			for _, c := range conns {
				c.beat()
			}
			if s.Role() == replication.Leader {
				s.transfer.tick(now)
				if err := s.forgetReplicas(); err != nil {
					s.o.Logger.Error("epoch file cannot be saved", "err", err)
				}
			}
		}
	}
}

// noteReplica keeps on disk that id's acks count from now on: it must be heard before this node leads
// again after a power cut.
func (s *Service) noteReplica(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Engine.Flush == engine.SyncFlush || s.mode != replication.Sync || slices.Contains(s.rec.Replicas, id) {
		return nil
	}
	rec := s.rec
	rec.Replicas = append(slices.Clone(rec.Replicas), id)
	return s.saveLocked(rec)
}

// forgetReplicas drops those that are gone while all that they had is on our disk as well.
func (s *Service) forgetReplicas() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Role() != replication.Leader || len(s.rec.Replicas) == 0 {
		return nil
	}
	start := s.rec.Epochs.newest().Start
	rec := s.rec
	rec.Replicas = slices.DeleteFunc(slices.Clone(rec.Replicas), func(id string) bool { return s.transfer.expendable(id, start) })
	if len(rec.Replicas) == len(s.rec.Replicas) {
		return nil
	}
	return s.saveLocked(rec)
}

// hello is what this node says of itself.
func (s *Service) hello() (Hello, error) {
	s.mu.Lock()
	h := Hello{
		ID: s.o.ID, Incarnation: s.incarnation, Cluster: s.o.Cluster, SegmentBytes: s.o.Engine.SegmentBytes, Epochs: s.rec.Epochs,
		Client: s.o.Client, Listen: s.o.Advertise, Leader: s.master, LeaderClient: s.mClient,
	}
	if s.Role() == replication.Leader {
		h.Leader, h.LeaderClient = s.o.Advertise, s.o.Client
	}
	s.mu.Unlock()
	h.Min, h.End = s.Min(), s.Written()
	h.Min = min(h.Min, h.End)
	h.Epochs = h.Epochs.prune(h.Min)
	h.CheckLen = int(min(checkBytes, h.End-h.Min))
	sum, err := s.checksum(h.End-int64(h.CheckLen), h.End)
	h.CheckCRC = sum
	return h, err
}

// checksum is the CRC-32C of [from, to) of the log.
func (s *Service) checksum(from, to int64) (sum uint32, err error) {
	for from < to {
		r, err := s.ReadRaw(from, int(min(to-from, MaxDataBytes)), engine.UptoWritten)
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, r.Bytes)
		from += int64(len(r.Bytes))
		r.Release()
	}
	return sum, nil
}

// refusalPause is how long the same refusal is not logged again: who was refused comes again every second.
const refusalPause = time.Minute

// news says whether a refusal has not been logged for a while.
func (s *Service) news(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.told[why]; ok && now.Sub(last) < refusalPause {
		return false
	}
	if s.told == nil || len(s.told) >= 64 {
		s.told = map[string]time.Time{}
	}
	s.told[why] = now
	return true
}

// audit notes a peer that does not belong here, or does what no peer of ours would: one line with who,
// what, and what to do, unless it has been said of that host a moment ago.
func (s *Service) audit(remote net.Addr, id, what, fix string) {
	host := ""
	if remote != nil {
		host, _, _ = net.SplitHostPort(remote.String()) // the port is another one every time
	}
	if !s.news(host + " " + id + " " + what) {
		return
	}
	s.o.Logger.Warn("replication peer dropped", "node", s.o.ID, "remote", remote, "peer", id, "difference", what, "fix", fix)
}

// pace spreads bytes over time.
type pace struct {
	perSecond int64
	mu        sync.Mutex
	next      time.Time
}

// take waits until n bytes may be sent.
func (p *pace) take(ctx context.Context, n int) error {
	if p.perSecond <= 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(math.Ceil(float64(n) / float64(p.perSecond) * float64(time.Second))))
	p.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
