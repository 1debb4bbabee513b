package engine

import (
	"context"
	"fmt"

	"rmq/message"
)

// Retract is [Store.TruncateTo] for a log that turns out to be no copy of the one it follows: what
// readers have seen behind pos is taken back too, queues and index are rewound, and the ceiling of
// what readers may see becomes pos. Only for the owner of the confirm position; nothing is appended
// and nothing confirmed meanwhile.
//
// The dispatcher stands still until it returns. A crash in between leaves the log as it was before,
// or as it is after. Errors as TruncateTo; one after the queues were touched poisons the store.
func (s *Store) Retract(ctx context.Context, pos int64) error {
	if low := s.Min(); pos < low {
		return fmt.Errorf("retract to %d, the log begins at %d: %w", pos, low, ErrOffsetTooSmall)
	}
	if err := s.hide(ctx, pos); err != nil {
		return err
	}
	return s.TruncateTo(pos)
}

// hide takes everything behind pos from readers, queues and index. The log keeps it.
func (s *Store) hide(ctx context.Context, pos int64) error {
	l, k := s.log, s.keeper
	l.role.Lock()
	defer l.role.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.disp.turn.Lock()
	defer s.disp.turn.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refusal(); err != nil {
		return err
	}
	if pos >= l.visible.Load() {
		return nil
	}
	if err := l.beginsAt(pos, l.dispatched.Load()); err != nil {
		return fmt.Errorf("retract to %d: %w", pos, err)
	}
	l.confirm.Store(pos)
	l.dispatched.Rewind(pos)
	l.visible.Rewind(pos)
	l.cuts.Add(1)
	if s.disp.again != nil {
		s.disp.again()
	}
	if err := k.rewind(pos); err != nil {
		return err
	}
	err := s.queues.truncate(ctx, pos)
	if err == nil && s.index != nil {
		err = s.index.truncate(ctx, pos)
		k.saved.IndexEnd = min(k.saved.IndexEnd, s.index.durableEnd())
	}
	if err == nil {
		return k.saveState(false)
	}
	err = fmt.Errorf("%w: retract to %d: %w", ErrPoisoned, pos, err)
	l.failed = err
	s.tellCut("retracted", nil, err)
	return err
}

// beginsAt verifies that a record begins at pos, as far as records are known.
func (l *CommitLog) beginsAt(pos, end int64) error {
	reader := &logReader{l: l}
	defer reader.close()
	_, err := l.walk(reader, pos, end, false, func(int64, *message.Record) bool { return false })
	return err
}

// rewind makes the state file and the stock checkpoint speak of nothing behind pos. Called with mu held.
func (k *keeper) rewind(pos int64) error {
	n := 0
	for n < len(k.times) && k.times[n].pos <= pos {
		n++
	}
	k.times = k.times[:n]
	millis := k.timeBelow(pos)
	k.s.disp.lastTime.Store(millis)
	k.last = min(k.last, pos)
	k.saved.Dispatched, k.saved.LastTime = min(k.saved.Dispatched, pos), min(k.saved.LastTime, millis)
	page := k.page
	page.Physic, page.Logics = min(page.Physic, millis), min(page.Logics, millis)
	page.Index, page.Confirm = min(page.Index, millis), min(page.Confirm, pos)
	return k.savePage(page)
}
