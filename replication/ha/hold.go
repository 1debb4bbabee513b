package ha

import (
	"context"
	"slices"
	"time"

	"rmq/replication"
)

// A master that is started again as it was, after a slave was promoted in its place, must not take messages, nor show those
// that no slave has: consumers that read them skip as many of the new master's. So one that has had slaves waits, read-only,
// until all of them have said hello and know of no newer epoch, or for [Options.HoldOff]: whoever was promoted calls its
// former master every announcePeriod.

// holdWhy is why a node is read-only meanwhile.
const holdWhy = "it has just started, and waits a moment for its slaves: one of them may have been promoted"

// keepHold ends the wait in time.
func (s *Service) keepHold(ctx context.Context) error {
	t := time.NewTimer(s.o.HoldOff)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.hold:
		return nil
	case <-ctx.Done():
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endHoldLocked()
	return nil
}

// held returns once the wait is over; peer is a slave that has said hello, and knows of nobody who leads by now.
func (s *Service) held(ctx context.Context, peer side) error {
	if s.hold == nil {
		return nil
	}
	s.mu.Lock()
	s.reported[peer.ID] = true
	if !slices.ContainsFunc(s.rec.Replicas, func(id string) bool { return !s.reported[id] }) {
		s.endHoldLocked()
	}
	s.mu.Unlock()
	return s.awaitHold(ctx)
}

// awaitHold returns once the wait is over, if there is one.
func (s *Service) awaitHold(ctx context.Context) error {
	if s.hold == nil {
		return nil
	}
	select {
	case <-s.hold:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// endHoldLocked ends the wait, once: this node leads unless it has heard of somebody else. Called with mu held.
func (s *Service) endHoldLocked() {
	select {
	case <-s.hold:
		return
	default:
	}
	close(s.hold)
	if s.closed || s.Role() != replication.ReadOnly {
		return
	}
	if err := s.leadLocked(false); err != nil {
		s.why = "it cannot lead: " + err.Error()
		s.o.Logger.Error("this node cannot lead", "err", err, "fix", "mend what the error names and start it again")
		s.changed()
	}
}
