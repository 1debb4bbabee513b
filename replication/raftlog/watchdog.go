package raftlog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rmq/engine"
)

// watchdog looks whether the disk hangs. The library would keep leading: its heartbeats do not depend on
// the disk (hazard H4).
func (n *Node) watchdog(ctx context.Context) error {
	period := n.o.times.stallTransfer / 8
	tick := time.NewTicker(period)
	defer tick.Stop()
	disk := newStall(period, time.Now())
	var handing atomic.Bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.Refusal(); errors.Is(err, engine.ErrPoisoned) {
			n.fatal(err)
			return nil
		}
		still := disk.look(time.Now(), n.Flushed(), n.Written())
		hangs := still - n.patience()
		switch {
		case hangs > n.o.times.stallExit:
			n.fatal(fmt.Errorf("the disk has synced nothing for %v: this node stops, so that others can lead; check the disk of %s", still.Round(time.Millisecond), n.o.dir()))
			return nil
		case hangs > n.o.times.stallTransfer && n.prop.current() != nil && handing.CompareAndSwap(false, true):
			n.o.Logger.Warn("the disk hangs: another node is to lead", "for", still.Round(time.Millisecond))
			n.group.Go("hand over", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, n.o.times.stallExit)
				defer cancel()
				defer handing.Store(false) // if it has failed, and the disk still hangs, it is tried again
				if err := n.Handover(ctx); err != nil && ctx.Err() == nil {
					n.o.Logger.Warn("the disk hangs, and leadership was not handed over", "error", err)
				}
				return nil
			})
		}
	}
}

// stall measures for how long a disk has synced nothing of what waits for it.
type stall struct {
	period      time.Duration // between looks
	moved, last time.Time
	at          int64 // synced up to
}

func newStall(period time.Duration, now time.Time) *stall {
	return &stall{period: period, moved: now, last: now, at: -1}
}

// look is that time as of now. What this process was stopped for does not count: nobody has asked the disk for anything then.
func (s *stall) look(now time.Time, flushed, written int64) time.Duration {
	if late := now.Sub(s.last) - s.period; late > 0 {
		s.moved = s.moved.Add(late)
	}
	s.last = now
	if flushed != s.at || flushed >= written {
		s.moved, s.at = now, flushed
	}
	return now.Sub(s.moved)
}

// patience is how long it is normal that nothing is synced.
func (n *Node) patience() time.Duration {
	o := n.Options()
	if o.Flush == engine.SyncFlush {
		return 0
	}
	return max(o.FlushThorough, o.FlushInterval)
}

// snapshots takes one now and then: they keep the scan at start short and let retention drop segments.
func (n *Node) snapshots(ctx context.Context) error {
	last, at := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(time.Second, n.o.times.snapshot)):
		}
		end := n.committed.Load()
		if end == at || time.Since(last) < n.o.times.snapshot && end-at < n.o.times.snapshotBytes {
			continue
		}
		err := n.instance.Load().do(func(r *raft.Raft) raft.Future { return r.Snapshot() })
		switch {
		case err == nil, errors.Is(err, raft.ErrNothingNewToSnapshot):
			last, at = time.Now(), end
		case ctx.Err() == nil && !errors.Is(err, raft.ErrRaftShutdown):
			n.o.Logger.Warn("raft snapshot", "error", err)
		}
	}
}

// duties are what a leader looks after: members that have caught up, and who should lead.
func (n *Node) duties(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(n.o.times.prefer):
		}
		t := n.prop.current()
		if t == nil {
			continue
		}
		n.reinstate(t)
		n.prefer(t)
		n.agree(t)
	}
}

// prefer hands leadership to the preferred node once that has caught up.
func (n *Node) prefer(t *tenure) {
	if n.o.Preferred == "" || n.o.Preferred == n.o.SelfID {
		return
	}
	s, err := t.member(n.o.Preferred)
	if err != nil || s.Suffrage != raft.Voter {
		return
	}
	if lag, ok := n.lag(s); !ok || lag > n.o.Window/16 {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, n.o.times.drain+2*n.heartbeat())
	defer cancel()
	if err := n.Transfer(ctx, string(s.ID)); err != nil && t.ctx.Err() == nil {
		n.o.Logger.Info("the preferred leader does not take over", "error", err)
	}
}
