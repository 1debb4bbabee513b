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

	mu     sync.Mutex // held over the I/O of a save
	saved  int64      // changes that the last good save covers
	shared int64      // changes that the other nodes of a group have too
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
	shared, err := s.write(s.encode())
	if err == nil || stored(err) {
		s.saved = covers
	}
	if shared {
		s.shared = covers
	}
	return err
}

// write replaces the document, and says whether other nodes have it too.
func (s *saver) write(doc []byte) (shared bool, err error) {
	if r, ok := s.log.(*replicatedMeta); ok {
		return r.save(s.name, doc)
	}
	return false, s.log.Save(s.name, doc)
}

// known says whether the other nodes of a group have the table as it is.
func (s *saver) known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shared >= s.changes.Load()
}

// adopt replaces the table, under its lock, by one that is saved elsewhere: what was not saved is gone. The locks are
// taken in the order of a save, which encodes the table while it holds mu.
func (s *saver) adopt(table sync.Locker, replace func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table.Lock()
	defer table.Unlock()
	replace()
	s.saved = s.changes.Load()
	s.shared = s.saved
}
