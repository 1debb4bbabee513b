package broker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"rmq/replication"
)

// roles follows what the log says of this node: who leads, and what others have saved. One goroutine
// applies it, in this order: documents first, so that a node leads only with the newest tables; then the
// role. What has been overtaken meanwhile is skipped.
type roles struct {
	kick chan struct{}

	mu     sync.Mutex
	status replication.Status // the newest
	known  bool               // the log has said it
	docs   map[string][]byte  // not applied yet, by name
	order  []string           // in which they came
	shared map[string][]byte  // the newest of each name that the other nodes have too
}

func newRoles() *roles {
	return &roles{kick: make(chan struct{}, 1), docs: map[string][]byte{}, shared: map[string][]byte{}}
}

// events are what a log tells to. They return at once.
func (r *roles) events() replication.Events {
	return replication.Events{Role: r.role, Meta: r.meta}
}

func (r *roles) role(st replication.Status) {
	r.mu.Lock()
	r.status, r.known = st, true
	r.mu.Unlock()
	r.wake()
}

// begin is role for a log that has told nothing yet: events come from goroutines of their own.
func (r *roles) begin(st replication.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		r.status, r.known = st, true
	}
}

func (r *roles) meta(name string, doc []byte) {
	r.mu.Lock()
	if _, waits := r.docs[name]; !waits {
		r.order = append(r.order, name)
	}
	r.docs[name], r.shared[name] = doc, doc
	r.mu.Unlock()
	r.wake()
}

// saved notes a document that this node has saved with the others.
func (r *roles) saved(name string, doc []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared[name] = doc
}

// inLog is the newest document of a name that the other nodes have too, nil if there is none.
func (r *roles) inLog(name string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shared[name]
}

func (r *roles) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// take returns what is to be applied.
func (r *roles) take() (names []string, docs map[string][]byte, st replication.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names, docs = r.order, r.docs
	r.order, r.docs = nil, map[string][]byte{}
	return names, docs, r.status
}

// newest is what the log has said of this node last. Peers and positions are of then.
func (r *roles) newest() replication.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// runRoles applies what the log tells until ctx ends.
func (b *Broker) runRoles(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.roles.kick:
			b.applyRoles()
		}
	}
}

// applyRoles applies what the log has told since. Calls do not overlap.
func (b *Broker) applyRoles() {
	names, docs, st := b.roles.take()
	for _, name := range names {
		if err := b.adopt(name, docs[name]); err != nil {
			b.log.Error("a document of the leader cannot be kept; the next one replaces it", "name", name, "err", err)
		}
	}
	last := b.applied
	if last.Role == st.Role && last.Epoch == st.Epoch && last.Leader == st.Leader && last.Client == st.Client {
		return
	}
	b.applied = st
	leads := st.Role == replication.Leader
	b.SetRole(leads)
	if leads {
		b.lead(st)
	}
	if b.leads.Swap(leads) && !leads && st.Mode == replication.Raft {
		b.disown()
	}
	b.log.Info("role", "mode", st.Mode, "role", st.Role, "epoch", st.Epoch, "leader", st.Leader, "leaderAddr", st.Client, "why", st.Why)
	b.registrar.Reregister()
}

// lead makes the tables those of a new epoch: name servers tell a later leader from an earlier one by it,
// and the other nodes learn what this one knows, unless that has come to it through the log: whoever has just
// been elected has better things to send, while everybody waits.
func (b *Broker) lead(st replication.Status) {
	b.Offsets.forgetLocal()
	if st.Mode == replication.None {
		return
	}
	b.Offsets.saver.changed()
	if st.Mode != replication.Raft || !b.Groups.saver.known() {
		b.Groups.saver.changed()
	}
	if st.Mode == replication.Raft && b.Topics.saver.known() {
		b.Topics.renew()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // name servers are told in a moment, with the new role
	b.Topics.bump()
	if b.started.Load() {
		b.group.Go("publish tables", func(context.Context) error {
			_ = b.Topics.publish(ctx) // it says so in the log, and is tried again
			return nil
		})
	}
}

// disown drops changes of tables that this node has made while it led and that did not reach the others: whoever made them
// was told so, and the next leader does not have them.
func (b *Broker) disown() {
	for name, s := range map[string]*saver{topicsName: &b.Topics.saver, groupsName: &b.Groups.saver} {
		doc := b.roles.inLog(name)
		if doc == nil || s.known() {
			continue
		}
		if err := b.adopt(name, doc); err != nil {
			b.log.Error("a table is not what the other nodes have; the leader's next one replaces it", "name", name, "err", err)
		}
	}
}

// adopt takes over a table that another node has saved: on this disk, and in force.
func (b *Broker) adopt(name string, doc []byte) error {
	var err error
	switch name {
	case topicsName:
		var changed bool
		if changed, err = b.Topics.adopt(doc); err == nil && changed {
			b.registrar.Reregister()
		}
	case groupsName:
		err = b.Groups.adopt(doc)
	case offsetsName:
		err = b.Offsets.adopt(doc)
	case delayOffsetName:
		err = b.schedule.adopt(doc)
	default:
		return nil // of a later version
	}
	return errors.Join(err, b.files.Save(name, doc))
}

// applyOrder takes the order configuration of a name server over.
func (b *Broker) applyOrder(ctx context.Context, table map[string]string) {
	if b.leads.Load() {
		b.Topics.ApplyOrder(ctx, table)
	}
}

// replicatedSave bounds how old the progress may be that another node goes on from.
const replicatedSave = time.Second

// savePeriod is how often progress is saved: as configured, but often enough where it travels in the log.
func (b *Broker) savePeriod(configured time.Duration) time.Duration {
	if b.roles.newest().Mode == replication.Raft {
		return min(configured, replicatedSave)
	}
	return configured
}

// stateVersion is the epoch that data versions carry.
func (b *Broker) stateVersion() int64 { return b.roles.newest().Epoch }

// identity is the number under which this node is registered, 0 for who leads, and the epoch of that. Who has just been
// elected is 0 once it has taken over the tables of its predecessor.
func (b *Broker) identity() (id, epoch int64) {
	st := b.roles.newest()
	c := b.conf()
	switch {
	case st.Role == replication.Leader && b.leads.Load():
		return 0, st.Epoch
	case st.Mode == replication.Raft:
		n, _ := strconv.ParseInt(strings.TrimPrefix(c.DLegerSelfID, "n"), 10, 32) // it is a number, by review
		return n + 1, st.Epoch
	case st.Role == replication.Follower && c.BrokerID == 0:
		// It was the master until another node was promoted, whose number is free now.
		if n, err := strconv.ParseInt(st.Leader[strings.LastIndexByte(st.Leader, ':')+1:], 10, 64); err == nil && n > 0 {
			return n, st.Epoch
		}
		return 1, st.Epoch
	}
	return c.BrokerID, st.Epoch
}

// notLeading refuses what only a leader does, and says who that is.
func (b *Broker) notLeading() *refusal {
	st := b.roles.newest()
	return refuseNotLeader(&replication.NotLeaderError{Leader: st.Client, Epoch: st.Epoch, Why: st.Why})
}

// leaderAnswers says of a node that does not lead whether another one does, and can be reached.
func (b *Broker) leaderAnswers() bool {
	if b.leads.Load() {
		return false
	}
	st := b.roles.newest()
	return st.Role == replication.Follower && st.Leader != ""
}
