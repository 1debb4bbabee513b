package wire

import (
	"context"

	"rmq/bench"
	"rmq/remoting/protocol"
)

// HandOver makes another member lead the group of a session.
func HandOver(ctx context.Context, s bench.Session) error {
	c := s.(*session).cluster.own
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	return Ask(ctx, c.client, leader.Addr, protocol.NewRequest(protocol.RequestTransferLeader), nil)
}

// KillLeader ends the process of the member that leads the group of a session, as a crash does.
func KillLeader(ctx context.Context, s bench.Session) error {
	leader, err := s.(*session).cluster.own.Leader(ctx)
	if err == nil {
		leader.Kill()
	}
	return err
}

// MakeTopics makes the topics of a session, which are there already.
func MakeTopics(ctx context.Context, s bench.Session) error { return s.(*session).makeTopics(ctx) }

// Process is what a process has used so far.
func Process(pid int) (c bench.Counters) {
	countProcess(&c, pid)
	return c
}
