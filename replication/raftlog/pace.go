package raftlog

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The timeouts of the library follow the round trips between the nodes. A heartbeat and its answer take one,
// and what the library waits for between two of them: a leader whose lease is shorter is none for long, and
// over links slower than that nobody is. While the links are fast the timeouts are as configured.
//
// They change in steps: at each the timeouts of the one before are doubled. The lease is fixed for as long
// as an instance lives, so a step replaces it. What counts is the round trip that a node needs to reach a
// majority, and that to its leader: one slow node has longer timeouts and slows nobody else down.
const (
	maxPace     = 3         // the timeouts are doubled so often at most
	paceTrips   = 5         // round trips that fit into the heartbeat timeout
	paceSamples = 4         // the least of so many counts: a stall of the machine is not a slow link
	paceCalm    = 120       // so many looks in a row must ask for a smaller step
	paceTimeout = deadAfter // of a measurement
)

// trips are the newest round trips to a peer. Its peer's mu guards it.
type trips struct {
	taken [paceSamples]time.Duration
	n     int
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

// pace keeps measuring the round trips to all peers, and changes the timeouts when those ask for it. Longer
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
		trip := n.tripNeeded()
		need, relaxed := paceFor(trip, n.o.HeartbeatTimeout), paceFor(2*trip, n.o.HeartbeatTimeout)
		now := int(n.paced.Load())
		switch {
		case need > now:
			calm = 0
			n.repace(ctx, need)
		case relaxed < now:
			if calm++; calm >= paceCalm {
				calm = 0
				n.repace(ctx, relaxed)
			}
		default:
			calm = 0
		}
		for _, p := range n.net.known() {
			p.measure()
		}
	}
}

// tripNeeded is the round trip that the timeouts of this node have to hold: to the quickest voters that make a
// majority with it, and to who leads. 0 if they have not been measured.
func (n *Node) tripNeeded() time.Duration {
	n.mu.Lock()
	servers := n.config.Servers
	n.mu.Unlock()
	leader := raft.ServerID(n.Status().Leader)
	voters := 0
	var taken []time.Duration
	var most time.Duration
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
		if string(s.ID) == n.net.self() {
			continue
		}
		trip := n.net.peer(s.ID, s.Address).trip()
		if trip > 0 && s.Suffrage == raft.Voter {
			taken = append(taken, trip)
		}
		if s.ID == leader {
			most = trip
		}
	}
	if len(taken) > 0 {
		slices.Sort(taken)
		most = max(most, taken[min(max(voters/2, 1), len(taken))-1])
	}
	return most
}

// trip is the round trip to a peer that is connected; 0 if it has not been measured.
func (p *peer) trip() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control == nil {
		return 0
	}
	return p.trips.least()
}

// measure takes the time of a round trip, unless the last one has not ended.
func (p *peer) measure() {
	if !p.online() || !p.measuring.CompareAndSwap(false, true) {
		return
	}
	p.net.group.TryGo("measure", func(context.Context) error {
		defer p.measuring.Store(false)
		var pong []byte
		began := time.Now()
		if err := p.askWithin(paceTimeout, kindPing, []byte{}, &pong); err != nil {
			return nil // it is measured again
		}
		p.mu.Lock()
		p.trips.add(time.Since(began))
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
	n.o.Logger.Warn("the timeouts of this node follow the round trips to the others", "heartbeat timeout", n.heartbeat(), "before", old)
	n.mu.Lock()
	closing := n.closing
	n.mu.Unlock()
	if n.instance.Load() == nil || closing {
		return // the next one has them
	}
	if err := n.restartRaft(nil); err != nil && !errors.Is(err, errNotReady) && ctx.Err() == nil {
		n.fatal(err)
	}
}
