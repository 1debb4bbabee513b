package main

import (
	"context"
	"errors"
	"fmt"

	"rmq/client"
	"rmq/remoting/protocol"
	"rmq/replication"
)

func replicaCommands() []command {
	return []command{
		{"getBrokerEpoch", "Show which epochs have written the log of brokers", getBrokerEpoch},
		{"raftStatus", "Show who leads a group and how far its members are", raftStatus},
		{"raftPeer", "Add, promote or remove a member of a group", raftPeer},
		{"transferLeader", "Make another member of a group lead it", transferLeader},
		{"promote", "Make a slave the master of its name", promote},
	}
}

// nodeState is a node of a replicated log as it describes itself.
type nodeState struct {
	Broker string             `json:"broker"`
	Error  string             `json:"error,omitempty"`
	Status replication.Status `json:"status"`
}

// epochsOf are the epochs at one broker.
type epochsOf struct {
	Broker string `json:"broker"`
	*protocol.EpochEntryCache
}

type epochLists []epochsOf

func (l epochLists) text(p *page) {
	for _, b := range l {
		p.line("\n#clusterName\t%s\n#brokerName\t%s\n#brokerAddr\t%s\n#brokerId\t%d", b.ClusterName, b.BrokerName, b.Broker, b.BrokerID)
		for _, e := range b.EpochList {
			p.line("#Epoch: EpochEntry{epoch=%d, startOffset=%d, endOffset=%d}", e.Epoch, e.StartOffset, e.EndOffset)
		}
	}
}

func getBrokerEpoch(f *flags) action {
	name := f.text("broker-name", "b", "", "only brokers of this name")
	cluster := f.text("cluster-name", "c", "", "only this cluster")
	interval := f.number("interval", "i", 0, "show it again every so many seconds")
	return func(ctx context.Context, t *tool) (any, error) {
		return every(ctx, t, *interval, func() (any, error) {
			brokers, err := listBrokers(ctx, t, *cluster)
			if err != nil {
				return nil, err
			}
			out := epochLists{}
			var errs []error
			for _, b := range brokers {
				if *name != "" && b.name != *name {
					continue
				}
				epochs, err := t.admin.Epochs(ctx, b.addr)
				if err != nil {
					errs = append(errs, fmt.Errorf("broker %s: %w", b.addr, err))
					continue
				}
				out = append(out, epochsOf{b.addr, epochs})
			}
			if len(out)+len(errs) == 0 {
				return out, fmt.Errorf("broker %s: %w", *name, client.ErrNotFound)
			}
			return out, errors.Join(errs...)
		})
	}
}

type voterRow struct {
	ID      string `col:"#Member"`
	Addr    string `col:"#Addr"`
	Client  string `col:"#Broker"`
	Voter   bool   `col:"#Voter"`
	InSync  bool   `col:"#InSync"`
	Written int64  `col:"#Written"`
	Durable int64  `col:"#Durable"`
	Lag     int64  `col:"#Diff"`
}

type nodeStates []nodeState

func (l nodeStates) text(p *page) {
	for _, n := range l {
		s := n.Status
		p.line("\n#Node\t%s\t%s", n.Broker, s.ID)
		if n.Error != "" {
			p.line("#Error\t%s", n.Error)
			continue
		}
		p.line("#Role\t%s", s.Role)
		p.line("#Term\t%d", s.Epoch)
		p.line("#Leader\t%s\t%s", s.Leader, s.Client)
		p.line("#Confirmed\t%d", s.Confirm)
		p.line("#Written\t%d", s.Written)
		p.line("#Durable\t%d", s.Durable)
		if s.Why != "" {
			p.line("#Why\t%s", s.Why)
		}
		if len(s.Peers) == 0 {
			continue
		}
		var rows []voterRow
		for _, m := range s.Peers {
			rows = append(rows, voterRow{m.ID, m.Addr, m.Client, m.Voter, m.InSync, m.Written, m.Durable, m.LagBytes})
		}
		p.columns(rows)
	}
}

// askNode is what the broker at addr says of its log.
func askNode(ctx context.Context, t *tool, addr string) (replication.Status, error) {
	info, err := t.admin.RuntimeInfo(ctx, addr)
	if err != nil {
		return replication.Status{}, fmt.Errorf("broker %s: %w", addr, err)
	}
	st, _, ok := replication.ParseInfo(info)
	if !ok {
		return st, fmt.Errorf("broker %s does not tell of its log: it is one of Apache's, or older", addr)
	}
	return st, nil
}

func raftStatus(f *flags) action {
	addr := f.address("broker-addr", "ask the broker at this `host:port` only")
	cluster := f.text("cluster-name", "c", "", "only this cluster")
	return func(ctx context.Context, t *tool) (any, error) {
		var addrs []string
		if *addr != "" {
			addrs = []string{*addr}
		} else {
			brokers, err := listBrokers(ctx, t, *cluster)
			if err != nil {
				return nil, err
			}
			for _, b := range brokers {
				addrs = append(addrs, b.addr)
			}
		}
		out := nodeStates{}
		var errs []error
		for _, a := range addrs {
			st, err := askNode(ctx, t, a)
			if err == nil && st.Mode != replication.Raft && *addr == "" {
				continue
			}
			n := nodeState{Broker: a, Status: st}
			if err != nil {
				n.Error = err.Error()
				errs = append(errs, err)
			}
			out = append(out, n)
		}
		if len(out) == 0 {
			return out, errors.New("no broker is in a group that elects a leader: haStatus tells of masters and slaves")
		}
		return out, errors.Join(errs...)
	}
}

// leaderOf is where the leader of the group of the broker at addr is.
func leaderOf(ctx context.Context, t *tool, addr string) (string, error) {
	st, err := askNode(ctx, t, addr)
	switch {
	case err != nil:
		return "", err
	case st.Mode != replication.Raft || st.Role == replication.Leader:
		return addr, nil // it says itself what is wrong
	case st.Client == "":
		return "", fmt.Errorf("broker %s knows no leader: %s", addr, st.Why)
	}
	return st.Client, nil
}

// changedAt is what a change of a group reports.
type changedAt struct {
	Broker string `json:"broker"`
	Did    string `json:"did"`
}

func (d changedAt) text(p *page) { p.line("%s at %s success", d.Did, d.Broker) }

func transferLeader(f *flags) action {
	addr := f.needAddress("broker-addr", "any member of the group, a `host:port`")
	peer := f.text("peer", "p", "", "the member that shall lead, n0 for instance; else who is furthest")
	return func(ctx context.Context, t *tool) (any, error) {
		leader, err := leaderOf(ctx, t, *addr)
		if err != nil {
			return nil, err
		}
		if err := t.admin.TransferLeader(ctx, leader, *peer); err != nil {
			return nil, err
		}
		return changedAt{leader, "transfer of leadership"}, nil
	}
}

func raftPeer(f *flags) action {
	do := f.choice("add", "promote", "remove")
	addr := f.needAddress("broker-addr", "any member of the group, a `host:port`")
	peer := f.need("peer", "p", "the member, n3 for instance")
	at := f.text("peer-addr", "l", "", "to add: `host:port` of its log, as in dLegerPeers")
	return func(ctx context.Context, t *tool) (any, error) {
		if (*do == "add") != (*at != "") {
			return nil, usage("give -l (--peer-addr) to add a member, and only then")
		}
		leader, err := leaderOf(ctx, t, *addr)
		if err != nil {
			return nil, err
		}
		if err := t.admin.ChangeMember(ctx, leader, *do, *peer, *at); err != nil {
			return nil, err
		}
		return changedAt{leader, *do + " " + *peer}, nil
	}
}

// promoted is what a promotion has done.
type promoted struct {
	Broker   string `json:"broker"`
	Epoch    int64  `json:"epoch"`
	End      int64  `json:"end"`
	LastSeen int64  `json:"lastSeen"`
	AgeMS    int64  `json:"ageMs"`
	MayLose  int64  `json:"mayLose"`
}

func (r promoted) text(p *page) {
	p.line("promote %s success", r.Broker)
	p.line("#Epoch\t%d", r.Epoch)
	p.line("#BeginsAt\t%d", r.End)
	if r.AgeMS < 0 {
		p.line("#OldMaster\tnever heard of")
	} else {
		p.line("#OldMaster\tits log ended at %d, heard of %d ms ago", r.LastSeen, r.AgeMS)
	}
	switch {
	case r.MayLose < 0:
		p.line("#MayLose\tcannot be told: what the old master acked since it was heard of")
	case r.MayLose == 0:
		p.line("#MayLose\tnothing")
	default:
		p.line("#MayLose\t%d bytes", r.MayLose)
	}
	p.line("Stop the old master, or start it as a slave: until it hears of the new epoch both take messages.")
}

func promote(f *flags) action {
	addr := f.needAddress("broker-addr", "the slave, a `host:port`")
	loss := f.flag("accept-loss", "f", "even if acknowledged messages may be lost")
	return func(ctx context.Context, t *tool) (any, error) {
		r, err := t.admin.Promote(ctx, *addr, *loss)
		if err != nil {
			return nil, err
		}
		return promoted{*addr, r.Epoch, r.End, r.LastSeen, r.AgeMS, r.MayLose}, nil
	}
}
