package broker

import (
	"sync"
	"sync/atomic"
)

// saver writes the newest state of one table into the MetaLog. Changes that come together share a
// write: whoever waits for the one in progress finds that the next covers it.
type saver struct {
	log    MetaLog
	name   string
	encode func() []byte // the whole table as it is now

	changes atomic.Int64 // so far

	mu    sync.Mutex // held over the I/O of a save
	saved int64      // changes that the last good save covers
}

// changed counts a change of the table, after it was made.
func (s *saver) changed() { s.changes.Add(1) }

// dirty says whether anything is not saved.
func (s *saver) dirty() bool {
	want := s.changes.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved < want
}

// save returns nil when every change so far survives the machine. An error of other nodes, while this one
// keeps the table, comes once.
func (s *saver) save() error {
	want := s.changes.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved >= want {
		return nil
	}
	covers := s.changes.Load()
	err := s.log.Save(s.name, s.encode())
	if err == nil || stored(err) {
		s.saved = covers
	}
	return err
}

// adopted says that the table was replaced by one that is saved elsewhere: what was not saved is gone.
func (s *saver) adopted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = s.changes.Load()
}
