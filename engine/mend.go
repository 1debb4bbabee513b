package engine

import "fmt"

// Mend puts b, which the caller has verified, in the place of bytes of the log that do not read any more: the
// ones of another copy, which are the same wherever the log is not damaged. b lies in one segment, below what is
// on disk and visible. What stood there is kept in broken/, and b is on disk when Mend returns. Readers may go on
// meanwhile; while it is written they may see damage still.
//
// Errors: [ErrOffsetTooSmall] or [ErrOffsetTooLarge] when that range may not be mended, [FileError] when what stood
// there cannot be kept or b cannot be written, and [ErrPoisoned] when it cannot be synced.
func (s *Store) Mend(pos int64, b []byte) error {
	l := s.log
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	err := l.refusal()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	end := pos + int64(len(b))
	switch limit := min(l.flushed.Load(), l.visible.Load()); {
	case pos < s.Min():
		return fmt.Errorf("mend at %d, the log begins at %d: %w", pos, s.Min(), ErrOffsetTooSmall)
	case end > limit:
		return fmt.Errorf("mend up to %d, the log is on disk and visible up to %d: %w", end, limit, ErrOffsetTooLarge)
	}
	m := s.files.Acquire(pos)
	if m == nil {
		return ErrOffsetTooSmall
	}
	defer m.Release()
	if end > m.End() {
		return fmt.Errorf("mend %d to %d, the segment ends at %d: %w", pos, end, m.End(), ErrOffsetTooLarge)
	}
	kept, err := s.copyAside(m, pos, end)
	if err != nil {
		return err
	}
	if err := m.WritevAt([][]byte{b}, pos); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		err = fmt.Errorf("%w: mend at %d: %w", ErrPoisoned, pos, err)
		l.mu.Lock()
		l.failed = err
		l.mu.Unlock()
		s.tellCut("mended", nil, err)
		return err
	}
	s.o.Logger.Warn("log mended from another copy", "path", m.Path(), "from", pos, "to", end, "kept", kept)
	return nil
}
