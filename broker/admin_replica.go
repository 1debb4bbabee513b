package broker

import (
	"context"
	"net"
	"time"

	"rmq/remoting/protocol"
	"rmq/replication"
)

// changeWait bounds what an operator's request may wait for other nodes; tools give up a little later.
const changeWait = 4 * time.Second

// promote answers PROMOTE_REPLICA.
func (p *processors) promote(x *exchange, h *protocol.PromoteHeader) error {
	log, ok := p.store.(replication.Promoter)
	if !ok {
		return answerf(protocol.ResponseSystemError, "%s elects its leader: use transferLeader", p.conf().node())
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeWait)
	defer cancel()
	r, err := log.Promote(ctx, h.AcceptLoss)
	if err != nil {
		return err
	}
	return x.ext(&protocol.PromoteResponse{Epoch: r.Epoch, End: r.End, LastSeen: r.LastSeen, AgeMS: r.AgeMS, MayLose: r.MayLose})
}

// group is the log as one that elects its leader.
func (p *processors) group() (replication.Group, error) {
	if g, ok := p.store.(replication.Group); ok {
		return g, nil
	}
	return nil, answerf(protocol.ResponseSystemError, "%s is in no group that elects a leader (enableDLegerCommitLog=false): of a master and slaves, promote a slave", p.conf().node())
}

// transferLeader answers TRANSFER_LEADER.
func (p *processors) transferLeader(_ *exchange, h *protocol.TransferLeaderHeader) error {
	g, err := p.group()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeWait)
	defer cancel()
	return g.Transfer(ctx, h.Peer)
}

// changeMember answers CHANGE_MEMBER.
func (p *processors) changeMember(_ *exchange, h *protocol.ChangeMemberHeader) error {
	g, err := p.group()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeWait)
	defer cancel()
	switch h.Action {
	case "add":
		if _, _, err := net.SplitHostPort(h.Addr); err != nil {
			return remark("addr " + h.Addr + " is no host:port: name that of the peer's log, as in dLegerPeers")
		}
		return g.AddPeer(ctx, h.Peer, h.Addr)
	case "promote":
		return g.PromotePeer(ctx, h.Peer)
	case "remove":
		return g.RemovePeer(ctx, h.Peer)
	}
	return remark("action " + h.Action + ": use add, promote or remove")
}

// mergeOffsets answers MERGE_CONSUMER_OFFSET, with which a slave gives back what groups have committed at it
// while this node was away.
func (p *processors) mergeOffsets(x *exchange, _ *noHeader) error {
	var body mergeOffsetsBody
	if err := protocol.DecodeBody(x.req.Body, &body); err != nil {
		return err
	}
	if n := p.Offsets.merge(body.Offsets); n > 0 {
		p.log.Info("offsets committed at a slave are taken over", "peer", x.conn.RemoteAddr(), "queues", n)
	}
	return nil
}
