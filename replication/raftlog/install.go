package raftlog

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// install takes the snapshot of a leader whose log begins behind the end of this one. The library must not
// do it: a running instance does not forget what it had (hazard H6). It is stopped, the snapshot is put
// where the next instance finds it, the log begins anew behind it, and that instance is started.
func (n *Node) install(ctx context.Context, from hello, s *snapshotOffer) (snapshotReply, error) {
	term, err := n.votes.GetUint64([]byte(keyCurrentTerm))
	if err != nil {
		term = 0 // none yet
	}
	if s.Term < term {
		return snapshotReply{Term: term}, nil
	}
	restart := n.restartRaft
	if n.o.gates.off(freshInstance) {
		restart = func(change func() error) error { return change() }
	}
	err = restart(func() error {
		var l raft.Log
		if err := n.logs.GetLog(s.Index, &l); err == nil && l.Term == s.IndexTerm {
			return nil // it is here, and what follows will be compared as it comes
		}
		n.o.Logger.Warn("this log ends before the leader's begins: it starts anew behind a snapshot", "leader", from.From, "index", s.Index)
		c := raft.DecodeConfiguration(s.Configuration)
		if err := n.snaps.Stage(s.Index, s.IndexTerm, c, s.ConfigurationIndex, s.Data); err != nil {
			return err
		}
		if err := n.logs.Restart(ctx, n.snaps); err != nil {
			return err
		}
		b, err := n.snaps.Newest()
		if err != nil {
			return err
		}
		return n.fsm.load(b)
	})
	if err != nil {
		return snapshotReply{}, fmt.Errorf("install snapshot of %s: %w", from.From, err)
	}
	return snapshotReply{Term: s.Term, Success: true}, nil
}
