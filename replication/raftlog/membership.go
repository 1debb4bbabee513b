package raftlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	changeTimeout = 5 * time.Second // of one change of the membership
	admitPause    = 50 * time.Millisecond
)

// sight is what nodes tell each other about themselves outside raft.
type sight struct {
	Name, ID, Addr, Client string
	Fresh                  bool   // it has an empty log and has taken part in no election
	Amnesia                bool   // it may have lost entries that it has acked
	Resolved               bool   // so it may, and goes on all the same
	Term                   uint64 // of the newest vote
	LastIndex, LastTerm    uint64
	Leader                 string
	Candidate              bool // it asks for votes
	Servers                []member
	ConfigIndex            uint64
	Peers                  map[string]string // as configured
}

type member struct {
	ID, Addr string
	Voter    bool
}

// join asks a leader to let a node in.
type join struct{ ID, Addr string }

// look is what this node tells about itself.
func (n *Node) look() (sight, error) {
	s := sight{Name: n.o.SelfID, ID: n.net.self(), Addr: n.o.Peers[n.o.SelfID], Client: n.o.Client, Amnesia: n.forgetful(), Resolved: n.resolved.Load(), Peers: n.o.Peers}
	var err error
	if s.LastIndex, s.LastTerm, err = n.last(); err != nil {
		return s, err
	}
	s.Term = n.votes.term() // whoever asks decides by the answer whether to campaign too: it does not wait for the disk
	s.Fresh = s.LastIndex <= 1 && s.Term <= 1
	if in := n.instance.Load(); in != nil {
		_, id := in.raft.LeaderWithID()
		s.Leader, s.Candidate = string(id), in.raft.State() == raft.Candidate
		f := in.raft.GetConfiguration()
		for _, v := range f.Configuration().Servers {
			s.Servers = append(s.Servers, member{string(v.ID), string(v.Address), v.Suffrage == raft.Voter})
		}
	} else {
		n.mu.Lock()
		for _, v := range n.config.Servers {
			s.Servers = append(s.Servers, member{string(v.ID), string(v.Address), v.Suffrage == raft.Voter})
		}
		n.mu.Unlock()
	}
	return s, nil
}

// last is the newest entry of the log, or of the snapshot that it follows.
func (n *Node) last() (index, term uint64, err error) {
	if index, err = n.logs.LastIndex(); err != nil {
		return 0, 0, err
	}
	if index == 0 {
		metas, err := n.snaps.List()
		if err != nil || len(metas) == 0 {
			return 0, 0, err
		}
		return metas[0].Index, metas[0].Term, nil
	}
	var l raft.Log
	if err := n.logs.GetLog(index, &l); err != nil {
		return 0, 0, err
	}
	return index, l.Term, nil
}

// handle answers what other nodes ask outside raft.
func (n *Node) handle(ctx context.Context, from hello, k kind, body []byte) (any, error) {
	switch k {
	case kindPeek:
		var s sight
		if err := json.Unmarshal(body, &s); err != nil {
			return nil, err
		}
		n.sighted(&s)
		return n.look()
	case kindJoin:
		var j join
		if err := json.Unmarshal(body, &j); err != nil {
			return nil, err
		}
		return struct{}{}, n.letIn(j)
	case kindSnapshot:
		var s snapshotOffer
		if err := json.Unmarshal(body, &s); err != nil {
			return nil, err
		}
		return n.install(ctx, from, &s)
	case kindFrame:
		var q frameQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, err
		}
		return n.framePart(q)
	case kindPing:
		return struct{}{}, nil
	case kindHash:
		var q hashQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, err
		}
		return n.hash(q)
	}
	return nil, fmt.Errorf("%w: kind %d", errWire, k)
}

// sighted notes a node that is as empty as this one.
func (n *Node) sighted(s *sight) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Fresh {
		n.fresh[s.Name] = true
	}
}

// admit makes the node a member of its group: of the one that it was in, of a new one that it starts
// together with all its peers, or of the one that it finds, which lets it in.
//
// A group is started only once every peer has been seen with an empty log since this node was opened. No
// entry can have been committed then that this node, wiped, has helped to commit: the majority had to
// include a peer, whose log is not empty since.
func (n *Node) admit(ctx context.Context) error {
	defer n.poke()
	for ctx.Err() == nil {
		done, err := n.tryAdmit()
		if done {
			return nil
		}
		if err != nil {
			n.setWhy(err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(admitPause):
		}
	}
	return nil
}

// tryAdmit makes one attempt; the error says what is missing.
func (n *Node) tryAdmit() (done bool, err error) {
	mine, err := n.look()
	if err != nil {
		return false, err
	}
	if n.net.self() != "" && !n.forgetful() {
		return n.takePart(mine)
	}
	others := n.askAll(mine)
	group := found(others)
	switch {
	case n.forgetful():
		return n.remember(mine, others)
	case group != nil:
		return n.enterAnew(group)
	}
	return n.bootstrap(mine, others)
}

// takePart starts raft under the identity that the node has, and asks to be let in until it is.
func (n *Node) takePart(mine sight) (bool, error) {
	n.raftMu.Lock()
	n.mu.Lock()
	closing := n.closing
	n.mu.Unlock()
	var err error
	if !closing {
		err = n.startRaft()
	}
	n.raftMu.Unlock()
	if err != nil || closing {
		return closing, err
	}
	if mine.LastIndex == 0 || !n.isMember() {
		return n.askIn(mine)
	}
	n.setWhy("")
	n.notice()
	return true, nil
}

// isMember says whether the membership that this node knows has its id.
func (n *Node) isMember() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return holds(n.config.Servers, n.id.ID)
}

// holds says whether a member with this id is among servers.
func holds(servers []raft.Server, id string) bool {
	return slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == id })
}

// memberList is how a membership is shown.
func memberList(servers []raft.Server) string {
	var all []string
	for _, s := range servers {
		text := fmt.Sprintf("%s at %s", s.ID, s.Address)
		if s.Suffrage != raft.Voter {
			text += " without a vote"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// askIn asks whoever leads to let this node in.
func (n *Node) askIn(mine sight) (bool, error) {
	for _, s := range n.askAll(mine) {
		if s.Leader == "" || s.Leader != s.ID {
			continue
		}
		var ok struct{}
		p := n.net.peer(raft.ServerID(s.ID), raft.ServerAddress(s.Addr))
		if err := p.askWithin(2*changeTimeout, kindJoin, join{n.id.ID, mine.Addr}, &ok); err != nil {
			return false, fmt.Errorf("%s is not let into group %s: %w", n.id.ID, n.o.Group, err)
		}
		return false, fmt.Errorf("%s has been let into group %s and catches up", n.id.ID, n.o.Group)
	}
	return false, fmt.Errorf("%s waits for a leader of group %s to let it in", n.id.ID, n.o.Group)
}

// askAll asks every other peer how it is. Those that do not answer are not among the results.
func (n *Node) askAll(mine sight) map[string]*sight {
	addrs := map[string]string{}
	for name, addr := range n.o.Peers {
		addrs[name] = addr
	}
	n.mu.Lock()
	for _, s := range n.config.Servers {
		addrs[memberName(string(s.ID))] = string(s.Address)
	}
	n.mu.Unlock()
	type result struct {
		s   sight
		err error
	}
	results := make(chan result, len(addrs))
	asked := 0
	for name, addr := range addrs {
		if name == n.o.SelfID {
			continue
		}
		asked++
		n.group.Go("peek", func(context.Context) error {
			var r result
			r.err = n.net.named(name, addr).ask(kindPeek, mine, &r.s)
			results <- r
			return nil
		})
	}
	all := map[string]*sight{}
	for range asked {
		if r := <-results; r.err == nil {
			n.sighted(&r.s)
			all[r.s.Name] = &r.s
		}
	}
	return all
}

// found is the sight that knows most of a group that exists, nil if none does.
func found(others map[string]*sight) *sight {
	var best *sight
	for _, s := range others {
		if !s.Fresh && len(s.Servers) > 0 && (best == nil || s.LastTerm > best.LastTerm || s.LastTerm == best.LastTerm && s.LastIndex > best.LastIndex) {
			best = s
		}
	}
	return best
}

// bootstrap starts a new group, together with all others that are configured.
func (n *Node) bootstrap(mine sight, others map[string]*sight) (bool, error) {
	for name, s := range others {
		if !maps.Equal(s.Peers, n.o.Peers) {
			return false, fmt.Errorf("dLegerPeers of %s is %s, of %s %s: make them equal, no group is started before",
				n.o.SelfID, peerList(n.o.Peers), name, peerList(s.Peers))
		}
	}
	n.mu.Lock()
	var missing []string
	for name := range n.o.Peers {
		if name != n.o.SelfID && !n.fresh[name] {
			missing = append(missing, name)
		}
	}
	n.mu.Unlock()
	if len(missing) > 0 {
		return false, fmt.Errorf("group %s is started once all of %s have been seen; %v not yet", n.o.Group, peerList(n.o.Peers), missing)
	}
	if mine.LastIndex == 0 {
		var c raft.Configuration
		for name, addr := range n.o.Peers {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(memberID(name, 1)), Address: raft.ServerAddress(addr)})
		}
		sortServers(c.Servers)
		conf := n.raftConfig()
		conf.LocalID = raft.ServerID(memberID(n.o.SelfID, 1))
		if err := raft.BootstrapCluster(conf, timedLog{n.logs, n.votes, &n.hops.Append}, n.votes, n.snaps, nil, c); err != nil {
			return false, fmt.Errorf("start group %s: %w", n.o.Group, err)
		}
	}
	return false, n.become(memberID(n.o.SelfID, 1))
}

// become takes an identity; the next attempt takes part under it.
func (n *Node) become(id string) error {
	n.mu.Lock()
	err := n.id.become(id, &n.o)
	n.mu.Unlock()
	if err == nil {
		n.net.setID(id)
		n.o.Logger.Info("raft identity", "group", n.o.Group, "id", id)
	}
	return err
}

func (n *Node) forgetful() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id.amnesia
}

// enterAnew chooses the identity under which a node without a log enters a group: its next incarnation,
// unless the present one has no vote that could be cast twice.
func (n *Node) enterAnew(group *sight) (bool, error) {
	next, known := 1, false
	for _, s := range group.Servers {
		if memberName(s.ID) != n.o.SelfID {
			continue
		}
		known = true
		next = incarnation(s.ID)
		if s.Voter {
			next++
		}
		if s.Addr != n.o.Peers[n.o.SelfID] {
			return false, fmt.Errorf("group %s knows %s at %s, dLegerPeers gives it %s: correct the file, or remove the member and add it anew (mqadmin raftPeer)",
				n.o.Group, s.ID, s.Addr, n.o.Peers[n.o.SelfID])
		}
	}
	if _, listed := group.Peers[n.o.SelfID]; !known && !listed {
		return false, fmt.Errorf("group %s exists and %s is not a member: mqadmin raftPeer add", n.o.Group, n.o.SelfID)
	}
	if !known {
		next = 2 // it may have been removed on the way in
	}
	return false, n.become(memberID(n.o.SelfID, next))
}

// remember decides for a node that may have lost entries it had acked.
func (n *Node) remember(mine sight, others map[string]*sight) (bool, error) {
	if group := found(others); group != nil {
		for _, s := range others {
			if !s.Amnesia && s.Leader != "" {
				return n.enterAgain(s)
			}
		}
	}
	servers, err := n.recall(mine.LastIndex)
	if err != nil {
		return false, err
	}
	voters, reached, amnesiac := 0, 1, 1
	longest := true
	for _, s := range servers {
		name := memberName(string(s.ID))
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		o := others[name]
		if o == nil {
			continue // this node, or one that does not answer
		}
		reached++
		if o.Amnesia || o.Resolved {
			amnesiac++
		}
		if o.LastTerm > mine.LastTerm || o.LastTerm == mine.LastTerm && (o.LastIndex > mine.LastIndex || o.LastIndex == mine.LastIndex && o.Name < mine.Name) {
			longest = false
		}
	}
	why := fmt.Sprintf("%s stopped without closing, the machine was started anew, and with flushDiskType=ASYNC_FLUSH acked messages may be gone", n.o.SelfID)
	switch {
	case voters == 0 || reached < voters || 2*(voters-amnesiac) > voters:
		return false, fmt.Errorf("%s: it waits for a leader that lets it in anew", why)
	case n.o.AfterTotalPowerLoss != LongestLog:
		return false, fmt.Errorf("%s, on %d of %d voters: set afterTotalPowerLoss=longest-log on all of them to accept that", why, amnesiac, voters)
	}
	n.o.Logger.Warn("total power loss: the longest log leads, messages that were only in page caches are lost", "group", n.o.Group, "id", n.id.ID, "longest", longest)
	n.resolved.Store(true)
	n.mu.Lock()
	n.patient = !longest
	id := n.id.ID
	n.mu.Unlock()
	return false, n.become(id)
}

// recall is the membership at the end of the log, which raft has not told of yet.
func (n *Node) recall(last uint64) ([]raft.Server, error) {
	c, _, err := n.logs.members.asOf(last)
	if err != nil {
		return nil, err
	}
	n.configured(c, 0)
	return c.Servers, nil
}

// enterAgain takes the next incarnation; the log stays, the leader repairs it.
func (n *Node) enterAgain(group *sight) (bool, error) {
	next := incarnation(n.id.ID) + 1
	for _, s := range group.Servers {
		if memberName(s.ID) == n.o.SelfID {
			next = max(next, incarnation(s.ID)+1)
		}
	}
	return false, n.become(memberID(n.o.SelfID, next))
}

// notice says when the file names other peers than the log does, which rules.
func (n *Node) notice() {
	n.mu.Lock()
	servers := n.config.Servers
	n.mu.Unlock()
	inLog := map[string]string{}
	for _, s := range servers {
		inLog[memberName(string(s.ID))] = string(s.Address)
	}
	if !maps.Equal(inLog, n.o.Peers) {
		n.o.Logger.Warn("dLegerPeers differs from the membership that the group has agreed on, which rules: bring the file up to date",
			"file", peerList(n.o.Peers), "group", peerList(inLog))
	}
}

// configured notes a membership.
func (n *Node) configured(c raft.Configuration, _ uint64) {
	if len(c.Servers) == 0 {
		return
	}
	keep := map[raft.ServerID]bool{}
	self := n.net.self()
	for _, s := range c.Servers {
		if string(s.ID) != self {
			keep[s.ID] = true
			n.net.peer(s.ID, s.Address)
		}
	}
	n.net.retain(keep)
	n.mu.Lock()
	n.config = c
	n.mu.Unlock()
	n.poke()
}

// letIn makes the node of a join a member, in place of its earlier incarnation. It votes again, if that
// one did, once it has caught up.
func (n *Node) letIn(j join) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	name := memberName(j.ID)
	_, known := n.o.Peers[name]
	for _, s := range t.in.raft.GetConfiguration().Configuration().Servers {
		if memberName(string(s.ID)) != name {
			continue
		}
		known = true
		if string(s.ID) == j.ID {
			return nil
		}
		if incarnation(string(s.ID)) > incarnation(j.ID) {
			return fmt.Errorf("%s is older than member %s: an older copy of its directory was put back; empty it", j.ID, s.ID)
		}
		if s.Suffrage == raft.Voter {
			n.o.Logger.Warn("a member comes back without its memory: its new incarnation takes the place of the old one", "old", s.ID, "new", j.ID)
		}
		if err := n.change(t, func(r *raft.Raft) raft.Future { return r.RemoveServer(s.ID, 0, changeTimeout) }); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("%s is not a member of group %s: mqadmin raftPeer add", name, n.o.Group)
	}
	return n.change(t, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(j.ID), raft.ServerAddress(j.Addr), 0, changeTimeout)
	})
}

// change makes one change of the membership.
func (n *Node) change(t *tenure, f func(*raft.Raft) raft.Future) error {
	err := t.in.do(f)
	if errors.Is(err, raft.ErrEnqueueTimeout) {
		return fmt.Errorf("another change of the membership has not been committed for %v: check the other nodes", changeTimeout)
	}
	return n.outcome(err)
}

// AddPeer implements [replication.Group].
func (n *Node) AddPeer(_ context.Context, id, addr string) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	if !validName(id) {
		return fmt.Errorf("peer id %q: use letters, digits, '.', '_' and '-'", id)
	}
	for _, s := range t.in.raft.GetConfiguration().Configuration().Servers {
		switch {
		case memberName(string(s.ID)) == id:
			return fmt.Errorf("%s is a member already, as %s at %s", id, s.ID, s.Address)
		case string(s.Address) == addr:
			return fmt.Errorf("%s is the address of member %s", addr, s.ID)
		}
	}
	return n.change(t, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(memberID(id, 1)), raft.ServerAddress(addr), 0, changeTimeout)
	})
}

// PromotePeer implements [replication.Group]. It refuses a peer that lags by more than the window.
func (n *Node) PromotePeer(_ context.Context, id string) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	s, err := t.member(id)
	if err != nil {
		return err
	}
	if s.Suffrage == raft.Voter {
		return nil
	}
	switch lag, ok := n.lag(s); {
	case !ok:
		return fmt.Errorf("%s at %s does not answer: start it, and promote it once it has caught up (mqadmin raftStatus)", s.ID, s.Address)
	case lag > n.o.Window:
		return fmt.Errorf("%s has not caught up, it lags by %d bytes: try again once it has (mqadmin raftStatus)", s.ID, lag)
	}
	return n.change(t, func(r *raft.Raft) raft.Future { return r.AddVoter(s.ID, s.Address, 0, changeTimeout) })
}

// RemovePeer implements [replication.Group].
func (n *Node) RemovePeer(_ context.Context, id string) error {
	t := n.prop.current()
	if t == nil {
		return n.notLeader()
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	s, err := t.member(id)
	if err != nil {
		return err
	}
	return n.change(t, func(r *raft.Raft) raft.Future { return r.RemoveServer(s.ID, 0, changeTimeout) })
}

// member finds a member by its id, with or without incarnation.
func (t *tenure) member(id string) (raft.Server, error) {
	servers := t.in.raft.GetConfiguration().Configuration().Servers
	for _, s := range servers {
		if string(s.ID) == id || memberName(string(s.ID)) == id {
			return s, nil
		}
	}
	return raft.Server{}, fmt.Errorf("%s is not a member of the group: they are %s", id, memberList(servers))
}

// lag is how many bytes a peer is behind; false if it is not in touch.
func (n *Node) lag(s raft.Server) (int64, bool) {
	p := n.net.peer(s.ID, s.Address)
	written := p.written.Load()
	quiet := time.Since(time.Unix(0, p.heard.Load()))
	return max(0, n.Written()-written), p.online() && written > 0 && quiet < n.heartbeat()
}

// reinstate makes voters of incarnations that have caught up in place of ones that voted.
func (n *Node) reinstate(t *tenure) {
	for _, s := range t.in.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter || incarnation(string(s.ID)) < 2 {
			continue
		}
		if lag, ok := n.lag(s); ok && lag <= n.o.Window/4 {
			n.o.Logger.Info("a member has caught up and votes again", "id", s.ID)
			if err := n.PromotePeer(t.ctx, string(s.ID)); err != nil {
				n.o.Logger.Warn("promote", "id", s.ID, "error", err)
			}
		}
	}
}
