package raftlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"rmq/replication"
)

const (
	takeOverStagger = 100 * time.Millisecond // between the nodes that could take over: a vote is synced to a disk that may be busy
	takeOverAsk     = 50 * time.Millisecond  // for how far the others are
	takeOverRounds  = 6                      // as long as another one asks for votes
	takeOverPause   = time.Second            // between two for the same peer
)

func sortServers(s []raft.Server) {
	slices.SortFunc(s, func(a, b raft.Server) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
}

// lostPeer takes over from a leader whose process is gone: its connection ended, and its machine, which
// answers, refuses a new one. Waiting for the heartbeat to run out would take a hundred times as long. A
// mistake costs an election, and no safety.
func (n *Node) lostPeer(id raft.ServerID) {
	in := n.instance.Load()
	if in == nil || !n.mayVote() {
		return
	}
	if _, leader := in.raft.LeaderWithID(); leader != id {
		return
	}
	n.mu.Lock()
	again := time.Since(n.struck[string(id)]) < takeOverPause
	if !again {
		n.struck[string(id)] = time.Now()
	}
	n.mu.Unlock()
	if again {
		return
	}
	n.group.Go("take over", func(ctx context.Context) error {
		n.takeOver(ctx, in, id)
		return nil
	})
}

// mayVote says whether this node is a voter.
func (n *Node) mayVote() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.config.Servers {
		if string(s.ID) == n.id.ID {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// takeOver campaigns at once if this node's log is the longest, and a little later for each that is longer. Two that
// campaign in one term refuse each other their votes and wait for an election timeout: so whoever is not the first waits
// for as long as another one is at it, and nobody campaigns who has promised its vote.
func (n *Node) takeOver(ctx context.Context, in *instance, dead raft.ServerID) {
	term := in.raft.CurrentTerm()
	for round := range takeOverRounds {
		q := n.queue(dead)
		if round > 0 && !q.busy {
			break // who should have been first does not come
		}
		wait := q.wait()
		if wait == 0 {
			break
		}
		limited, cancel := context.WithTimeout(ctx, wait)
		err := n.await(limited, func(st replication.Status) bool { return st.Leader != "" && st.Leader != string(dead) })
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		if in.raft.CurrentTerm() > term {
			break // it has asked for this node's vote
		}
	}
	if _, leader := in.raft.LeaderWithID(); leader != dead && leader != "" || in.raft.State() != raft.Follower {
		return
	}
	if voted, err := n.votes.GetUint64([]byte(keyLastVoteTerm)); err == nil && voted > term {
		return // and has it
	}
	n.o.Logger.Info("the leader's process is gone: this node takes over", "leader", dead)
	if err := in.campaign(ctx); err != nil {
		n.o.Logger.Warn("take over", "error", err)
	}
}

// queue is where a node stands among those that could take over.
type queue struct {
	ahead  int  // should campaign before it
	silent int  // have not said how far they are
	below  int  // of those have a smaller id
	busy   bool // one asks for votes already
}

// wait is for how long the node lets others go first. Of two that do not hear each other in time the one with the smaller
// id is first, and neither is so early that it meets one that has heard.
func (q queue) wait() time.Duration {
	wait := time.Duration(q.ahead) * takeOverStagger
	if q.busy {
		wait = max(wait, takeOverStagger)
	}
	if q.silent > 0 {
		wait += 3*takeOverStagger/2 + time.Duration(q.below)*takeOverStagger
	}
	return wait
}

// queue asks the other voters how far they are.
func (n *Node) queue(dead raft.ServerID) (q queue) {
	index, term, err := n.last()
	if err != nil {
		return q
	}
	mine, err := n.look()
	if err != nil {
		return q
	}
	n.mu.Lock()
	servers := n.config.Servers
	n.mu.Unlock()
	type answer struct {
		id string
		*sight
	}
	answers := make(chan answer, len(servers))
	asked := 0
	for _, s := range servers {
		if s.ID == dead || string(s.ID) == mine.ID || s.Suffrage != raft.Voter {
			continue
		}
		p := n.net.peer(s.ID, s.Address)
		if !p.online() {
			continue
		}
		asked++
		n.group.Go("rank", func(context.Context) error {
			var o sight
			if err := p.askWithin(takeOverAsk, kindPeek, mine, &o); err != nil {
				answers <- answer{string(s.ID), nil}
			} else {
				answers <- answer{string(s.ID), &o}
			}
			return nil
		})
	}
	for range asked {
		a := <-answers
		if a.sight == nil {
			q.silent++
			if a.id < mine.ID {
				q.below++
			}
			continue
		}
		q.busy = q.busy || a.Candidate
		if a.LastTerm > term || a.LastTerm == term && (a.LastIndex > index || a.LastIndex == index && a.id < mine.ID) {
			q.ahead++
		}
	}
	return q
}

// campaign makes the library ask for votes now, in the way in which a leader that leaves would.
func (in *instance) campaign(ctx context.Context) error {
	ch, err := in.t.deliver(ctx, &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}})
	if err != nil {
		return err
	}
	_, err = in.t.await(ctx, ch)
	return err
}

// Handover implements [replication.Log].
func (n *Node) Handover(ctx context.Context) error { return n.Transfer(ctx, "") }

// Transfer implements [replication.Group]: nothing more is taken in, what is on its way is waited for, and
// the other node campaigns. When it fails this node leads on.
func (n *Node) Transfer(ctx context.Context, id string) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	to, err := n.successor(t, id)
	if err != nil {
		return err
	}
	if string(to.ID) == n.id.ID {
		return nil
	}
	n.prop.shut(true)
	drain, cancel := context.WithTimeout(ctx, n.o.times.drain)
	err = n.prop.drained(drain)
	cancel()
	if err != nil {
		n.o.Logger.Warn("leadership is handed over while appends are on their way", "error", err)
	}
	err = t.in.do(func(r *raft.Raft) raft.Future { return r.LeadershipTransferToServer(to.ID, to.Address) })
	if err == nil {
		err = n.await(ctx, func(st replication.Status) bool { return st.Leader != "" && st.Leader != n.id.ID })
	}
	if err != nil {
		n.prop.shut(false)
		n.unstick(t)
		return fmt.Errorf("hand leadership to %s: %w", to.ID, err)
	}
	return nil
}

// successor is the member with the id, or of none the one that is furthest.
func (n *Node) successor(t *tenure, id string) (raft.Server, error) {
	if id != "" {
		s, err := t.member(id)
		if err == nil && s.Suffrage != raft.Voter {
			err = fmt.Errorf("%s does not vote: promote it first", s.ID)
		}
		return s, err
	}
	var best raft.Server
	least := int64(-1)
	for _, s := range t.in.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == n.id.ID {
			continue
		}
		if lag, ok := n.lag(s); ok && (least < 0 || lag < least) {
			best, least = s, lag
		}
	}
	if least < 0 {
		return best, errors.New("no other voter of the group answers: nobody can lead instead")
	}
	return best, nil
}

// unstick looks, some time after a transfer has failed, whether the library still refuses to apply, and if
// so starts it anew (hazard H7).
func (n *Node) unstick(t *tenure) {
	n.group.TryGo("unstick", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-t.ctx.Done():
			return nil
		case <-time.After(2 * n.heartbeat()):
		}
		err := t.in.do(func(r *raft.Raft) raft.Future { return r.Barrier(0) })
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			n.restartStuck()
		}
		return nil
	})
}

// restartStuck replaces an instance that refuses to apply though no transfer is under way.
func (n *Node) restartStuck() {
	if n.o.gates.off(restartStuck) {
		return
	}
	n.group.Go("start raft anew", func(ctx context.Context) error {
		n.o.Logger.Warn("raft still refuses to apply after a transfer that has ended: it is started anew")
		if err := n.restartRaft(nil); err != nil && ctx.Err() == nil {
			n.fatal(err)
		}
		return nil
	})
}
