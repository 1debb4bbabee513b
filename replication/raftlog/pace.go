package raftlog

import (
	"context"
	"slices"
	"time"
)

// The timeouts of the library follow the round trips between the nodes. A heartbeat and its answer take one,
// and what the library waits for between two of them: a leader whose lease is shorter is none for long, and
// over links slower than that nobody is. While the links are fast the timeouts are as configured.
//
// They change in steps: at each the timeouts of the one before are doubled. The lease is fixed for as long
// as an instance lives, so a step replaces it. All nodes take the step of the one that needs most, or the
// quickest would never let a slower one lead.
const (
	maxPace     = 3         // the timeouts are doubled so often at most
	paceTrips   = 5         // round trips that fit into the heartbeat timeout: the lease, half of it, holds 2.5
	paceSamples = 4         // the least of so many counts: a stall of the machine is not a slow link
	paceCalm    = 120       // so many looks in a row must ask for a smaller step
	paceTimeout = deadAfter // of a measurement
)

// paceNote is what nodes tell each other with a measurement: the step that a node needs by what it has
// measured itself.
type paceNote struct{ Need int }

// trips are the newest round trips to a peer. Its peer's mu guards it.
type trips struct {
	taken [paceSamples]time.Duration
	n     int
	need  int // of the peer, as it said last
}

// add takes a measurement.
func (r *trips) add(d time.Duration) {
	r.taken[r.n%paceSamples] = d
	r.n++
}

// least is the shortest of the newest round trips, 0 as long as there are too few.
func (r *trips) least() time.Duration {
	if r.n < paceSamples {
		return 0
	}
	return slices.Min(r.taken[:])
}

// paceFor is the step at which the timeout, beat unless it is doubled, holds trip with its margin.
func paceFor(trip, beat time.Duration) int {
	step := 0
	for step < maxPace && paceTrips*trip > beat<<step {
		step++
	}
	return step
}

// heartbeat is the heartbeat timeout at present: as configured, or doubled for slow links.
func (n *Node) heartbeat() time.Duration { return n.o.HeartbeatTimeout << n.paced.Load() }

// pace keeps measuring the round trips to all peers, and changes the timeouts when they ask for it. Longer
// ones are taken at once, shorter ones after the links have been fast for a while.
func (n *Node) pace(ctx context.Context) error {
	tick := time.NewTicker(n.o.times.measure)
	defer tick.Stop()
	calm := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		own, most, relaxed := n.needs()
		now := int(n.paced.Load())
		switch {
		case most > now:
			calm = 0
			n.repace(ctx, most)
		case relaxed < now:
			if calm++; calm >= paceCalm {
				calm = 0
				n.repace(ctx, relaxed)
			}
		default:
			calm = 0
		}
		for _, p := range n.net.known() {
			p.measure(paceNote{own})
		}
	}
}

// needs are the step that this node needs, the largest of all nodes, and the step that would do even if the
// round trips were twice as long.
func (n *Node) needs() (own, most, relaxed int) {
	for _, p := range n.net.known() {
		p.mu.Lock()
		trip, theirs, online := p.trips.least(), p.trips.need, p.control != nil
		p.mu.Unlock()
		if !online {
			continue
		}
		own = max(own, paceFor(trip, n.o.HeartbeatTimeout))
		most = max(most, theirs)
		relaxed = max(relaxed, theirs, paceFor(2*trip, n.o.HeartbeatTimeout))
	}
	return own, max(most, own), relaxed
}

// measure takes the time of a round trip, unless the last one has not ended.
func (p *peer) measure(note paceNote) {
	if !p.online() || !p.measuring.CompareAndSwap(false, true) {
		return
	}
	p.net.group.Go("measure", func(context.Context) error {
		defer p.measuring.Store(false)
		var theirs paceNote
		began := time.Now()
		if err := p.askWithin(paceTimeout, kindPace, note, &theirs); err != nil {
			return nil // it is measured again
		}
		p.mu.Lock()
		p.trips.add(time.Since(began))
		p.trips.need = min(max(theirs.Need, 0), maxPace)
		p.mu.Unlock()
		return nil
	})
}

// repace replaces the instance by one with other timeouts. A leader hands over first.
func (n *Node) repace(ctx context.Context, step int) {
	old := n.heartbeat()
	if n.prop.current() != nil {
		hctx, cancel := context.WithTimeout(ctx, n.o.times.drain+2*old)
		if err := n.Handover(hctx); err != nil && ctx.Err() == nil {
			n.o.Logger.Info("the timeouts change, and leadership was not handed over before", "error", err)
		}
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	n.paced.Store(int32(step))
	n.net.patience.Store(int64(n.heartbeat() / 2))
	n.o.Logger.Warn("the timeouts of the group follow the round trips between its nodes", "heartbeat timeout", n.heartbeat(), "before", old)
	if n.instance.Load() == nil {
		return
	}
	if err := n.restartRaft(nil); err != nil && ctx.Err() == nil {
		n.fatal(err)
	}
}
