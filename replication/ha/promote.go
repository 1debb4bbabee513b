package ha

import (
	"context"
	"fmt"
	"time"

	"rmq/replication"
)

// LossError refuses a promotion that may lose acked messages.
type LossError struct{ Report replication.PromoteReport }

func (e *LossError) Error() string {
	r := e.Report
	switch {
	case r.AgeMS < 0:
		return fmt.Sprintf("this node ends at %d and has never heard of a master: what it lacks cannot be told; accept the loss, or promote another", r.End)
	case r.MayLose < 0:
		return fmt.Sprintf("this node ends at %d, where the master's log ended %d ms ago; it may have acked messages since: accept the loss, or promote another", r.End, r.AgeMS)
	}
	return fmt.Sprintf("this node ends at %d, the master's log at %d when it was heard of %d ms ago: %d bytes of acked messages may be lost; accept the loss, or promote another",
		r.End, r.LastSeen, r.AgeMS, r.MayLose)
}

// report is what a promotion now would do. Called with mu held.
func (s *Service) report() replication.PromoteReport {
	end := s.Written()
	r := replication.PromoteReport{Epoch: s.rec.Epochs.next(true), End: end, LastSeen: s.lastSeen.end, AgeMS: -1, MayLose: -1}
	seen := s.lastSeen
	if seen.at.IsZero() {
		return r
	}
	r.AgeMS = time.Since(seen.at).Milliseconds()
	switch {
	case seen.needed, seen.bye && seen.end <= end:
		r.MayLose = 0
	case seen.end > end:
		r.MayLose = seen.end - end
	}
	return r
}

// Promote implements [replication.Promoter]. Nothing keeps the old master from taking writes until it
// hears of the new epoch: this node tells it as soon as it can be reached. Who needs more than that
// needs raft.
func (s *Service) Promote(ctx context.Context, acceptLoss bool) (replication.PromoteReport, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Role() == replication.Leader {
		return replication.PromoteReport{}, fmt.Errorf("%s leads already, in epoch %d", s.o.ID, s.rec.Epochs.Last())
	}
	r := s.report()
	if r.MayLose != 0 && !acceptLoss {
		return r, &LossError{r}
	}
	// A stream can end inside a record.
	end, err := s.boundary(s.Dispatched(), false)
	if err != nil {
		return r, err
	}
	if end < s.Written() {
		if err := s.cutTo(ctx, end); err != nil {
			return r, err
		}
		r.End = end
	}
	s.rec.Former = s.master
	if s.Role() == replication.ReadOnly {
		s.rec.Former = ""
	}
	if err := s.leadLocked(s.Role() == replication.Follower); err != nil {
		return r, err
	}
	r.Epoch = s.rec.Epochs.Last()
	for c := range s.conns {
		c.close()
	}
	s.o.Logger.Warn("promoted: until the old master hears of it there are two that take writes", "epoch", r.Epoch, "end", r.End,
		"lastSeen", r.LastSeen, "ageMillis", r.AgeMS, "mayLose", r.MayLose)
	return r, nil
}
