package ha

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine"
	"rmq/internal/watermark"
	"rmq/replication"
)

// replica is what a master knows of one slave. There is one an id, whatever number of connections.
type replica struct {
	id     string
	stock  bool
	client string
	addr   string

	conn             *peerConn // nil: not connected
	written, durable int64
	meta             int64 // number of the newest document that it has
	heard            time.Time
	bytesOut         atomic.Int64

	// It has had everything up to target when it was aimed at; then it is aimed anew.
	target   int64
	aimed    time.Time
	caughtUp time.Time // zero: not yet
	inSync   bool
	hold     *engine.Hold
}

// line is one kind of position that waits for replicas: of the log, or of documents.
type line struct {
	mark watermark.Mark // what may be acked
	// replicated is what enough replicas have confirmed; mark runs ahead of it while there are too few.
	replicated atomic.Int64
}

// GroupTransfer knows the slaves of a master and what their acks amount to (the service of that name
// in org.apache.rocketmq.store.ha). An ack costs one pass over the slaves, whatever number of
// messages waits, and no allocation.
type GroupTransfer struct {
	store *engine.Store
	sync  atomic.Bool // appends wait
	need  int         // slaves before an ack
	min   int         // slaves that must be in sync for an append to be taken
	o     *Options
	group atomic.Uint64 // of the log, once known

	log, meta line
	available atomic.Bool // enough slaves are in sync
	count     atomic.Int32
	leading   atomic.Bool
	moved     atomic.Int64 // when the log's mark moved last, nanoseconds of the clock of hops
	hops      *hopTimes

	mu       sync.Mutex // guards what follows and the order of confirm positions
	replicas map[string]*replica
	positions,
	metas []int64 // scratch
	docs func() int64 // number of the newest document
}

func newGroupTransfer(o *Options, hops *hopTimes) *GroupTransfer {
	g := &GroupTransfer{
		need: o.InSyncReplicas - 1, min: o.MinInSyncReplicas - 1,
		o: o, replicas: map[string]*replica{}, hops: hops, docs: func() int64 { return 0 },
	}
	g.sync.Store(o.Mode == replication.Sync)
	g.log.mark.Advance(math.MaxInt64)
	g.meta.mark.Advance(math.MaxInt64)
	return g
}

// lead begins a reign at end.
func (g *GroupTransfer) lead(sync bool, end int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sync.Store(sync)
	g.leading.Store(true)
	clear(g.replicas)
	if !sync {
		g.log.mark.Advance(math.MaxInt64)
		g.meta.mark.Advance(math.MaxInt64)
		g.available.Store(true)
		g.store.SetConfirm(math.MaxInt64)
		return
	}
	g.available.Store(false)
	g.log.replicated.Store(end)
	g.log.mark.Rewind(end)
	g.meta.mark.Rewind(g.docs())
	g.meta.replicated.Store(0)
	g.store.SetConfirm(end)
}

// follow ends the reign: what still waits is released, its outcome unknown.
func (g *GroupTransfer) follow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leading.Store(false)
	for _, r := range g.replicas {
		g.dropLocked(r)
	}
	g.log.mark.Advance(math.MaxInt64)
	g.meta.mark.Advance(math.MaxInt64)
}

// admit says whether an append may begin.
func (g *GroupTransfer) admit() error {
	if n := int(g.count.Load()); n < g.min || g.o.Strict && g.sync.Load() && n < g.need {
		return replication.ErrNotEnoughReplicas
	}
	return nil
}

// submitted sees to it that what was appended does not wait when there is nobody to wait for.
func (g *GroupTransfer) submitted() {
	if g.sync.Load() && !g.available.Load() {
		g.mu.Lock()
		g.release()
		g.mu.Unlock()
	}
}

// verdict is asked for records up to end that are about to be acked.
func (g *GroupTransfer) verdict(end int64) error {
	switch {
	case !g.sync.Load():
		return nil
	case end <= g.log.replicated.Load():
		g.hops.ack(g.moved.Load())
		return nil
	case !g.leading.Load():
		return engine.ErrIndeterminate
	}
	return replication.ErrNoReplica
}

// connected notes the connection of a replica. The one before it, if any, is returned to be closed.
func (g *GroupTransfer) connected(id string, conn *peerConn, set func(*replica)) (r *replica, old *peerConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r = &replica{id: id, conn: conn}
	if was := g.replicas[id]; was != nil {
		old, r.hold = was.conn, was.hold
		was.conn, was.hold = nil, nil
	}
	g.replicas[id] = r
	set(r)
	r.heard = time.Now()
	if r.hold == nil {
		r.hold = g.store.Hold(r.written)
	}
	g.aim(r, r.heard)
	g.update(r.heard)
	return r, old
}

// disconnected notes that conn of r is gone, unless another one has taken its place.
func (g *GroupTransfer) disconnected(r *replica, conn *peerConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.conn != conn {
		return
	}
	g.dropLocked(r)
	g.update(time.Now())
}

func (g *GroupTransfer) dropLocked(r *replica) {
	r.conn, r.inSync, r.caughtUp = nil, false, time.Time{}
	if r.hold != nil {
		r.hold.Release()
		r.hold = nil
	}
}

// acked notes what r has confirmed over conn.
func (g *GroupTransfer) acked(r *replica, conn *peerConn, written, durable, meta int64) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.conn != conn {
		return
	}
	r.heard = now
	r.written, r.durable, r.meta = max(r.written, written), max(r.durable, durable), max(r.meta, meta)
	if r.written >= r.target {
		r.caughtUp = r.aimed
		g.aim(r, now)
	}
	g.update(now)
}

// aim sets what r has to reach to be as good as it was at this moment.
func (g *GroupTransfer) aim(r *replica, now time.Time) {
	r.target, r.aimed = g.store.Written(), now
	if r.written >= r.target {
		r.caughtUp = now
	}
}

// position is what counts of r's acks.
func (g *GroupTransfer) position(r *replica) int64 {
	if g.o.Engine.Flush == engine.SyncFlush {
		return r.durable
	}
	return r.written
}

// promises says whether acks can ever wait for r: a stock slave does not say what it has synced.
func (g *GroupTransfer) promises(r *replica) bool {
	return !r.stock || !g.sync.Load() || g.o.Engine.Flush != engine.SyncFlush
}

// update counts who is in sync, and moves the marks. Called with mu held.
func (g *GroupTransfer) update(now time.Time) {
	end := g.store.Written()
	g.positions, g.metas = g.positions[:0], g.metas[:0]
	for _, r := range g.replicas {
		r.inSync = r.conn != nil && !r.caughtUp.IsZero() && now.Sub(r.caughtUp) <= g.o.InSyncTime && end-r.written <= g.o.MaxLag
		if r.inSync && g.promises(r) {
			g.positions = append(g.positions, g.position(r))
			if !r.stock {
				g.metas = append(g.metas, r.meta)
			}
		}
	}
	n := len(g.positions)
	defer g.count.Store(int32(n)) // who counts on it finds appends waiting for them
	if !g.sync.Load() || !g.leading.Load() {
		return
	}
	if n >= g.need {
		slices.Sort(g.positions)
		g.log.confirmed(g.positions[n-g.need])
		g.moved.Store(g.hops.now())
	}
	if m := len(g.metas); m >= g.need {
		slices.Sort(g.metas)
		g.meta.confirmed(g.metas[m-g.need])
		g.meta.mark.Advance(g.meta.replicated.Load())
	}
	g.available.Store(n >= g.need)
	g.release()
}

// release lets go of what enough slaves have, or what waits for nobody. Readers may see a message before
// its sender hears of it, not after. Called with mu held.
func (g *GroupTransfer) release() {
	pos := max(g.log.mark.Load(), g.log.replicated.Load())
	if !g.available.Load() {
		pos = max(pos, g.store.Appended())
	}
	g.store.SetConfirm(pos)
	g.log.mark.Advance(pos)
	if len(g.metas) < g.need {
		g.meta.mark.Advance(g.docs())
	}
}

// confirmed notes that enough replicas have pos.
func (l *line) confirmed(pos int64) {
	if pos > l.replicated.Load() {
		l.replicated.Store(pos)
	}
}

// tick counts anew who is in sync, and moves what retention waits for.
func (g *GroupTransfer) tick(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.update(now)
	for _, r := range g.replicas {
		if r.hold != nil {
			r.hold.Move(max(r.written, g.store.Written()-g.o.HoldBytes))
		}
	}
}

// needed says whether nothing is acked without r: all that are in sync are needed.
func (g *GroupTransfer) needed(r *replica) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sync.Load() && r.inSync && int(g.count.Load()) <= g.need
}

// expendable says that a replica is gone, and what it had is on our disk as well; start is where the
// reign began.
func (g *GroupTransfer) expendable(id string, start int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.replicas[id]
	if r == nil {
		return start <= g.store.Flushed()
	}
	return r.conn == nil && r.written <= g.store.Flushed()
}

// peers are all replicas, by id.
func (g *GroupTransfer) peers() []replication.Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	end, now := g.store.Written(), time.Now()
	var all []replication.Peer
	for _, r := range g.replicas {
		p := replication.Peer{
			ID: r.id, Addr: r.addr, Client: r.client, Written: r.written, Durable: r.durable, InSync: r.inSync, Voter: true,
			Stock: r.stock, Quiet: -1, LagBytes: max(0, end-r.written), BytesOut: r.bytesOut.Load(),
		}
		if r.conn != nil {
			p.Quiet = now.Sub(r.heard)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b replication.Peer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}
