package engine

import (
	"hash/maphash"
	"sync/atomic"
)

// watches counts who waits for arrivals, by the hash of the queue: what the dispatcher looks at for
// every record is one counter.
type watches [1 << 10]atomic.Int32

func (w *watches) slot(hash uint64) *atomic.Int32 { return &w[hash%uint64(len(w))] }

func (w *watches) any(hash uint64) bool { return w.slot(hash).Load() > 0 }

// Watch asks for the arrivals of a queue, which need not exist: [EventListener].Arrive hears of every
// record dispatched after the call. Look at the queue after the call, not before it, and nothing is
// missed. Each call is undone by one of Unwatch.
func (s *Store) Watch(topic string, queueID int32) { s.watchSlot(topic, queueID).Add(1) }

// Unwatch undoes one call of Watch.
func (s *Store) Unwatch(topic string, queueID int32) { s.watchSlot(topic, queueID).Add(-1) }

func (s *Store) watchSlot(topic string, queueID int32) *atomic.Int32 {
	return s.disp.watches.slot(spread(maphash.String(s.queues.seed, topic), queueID))
}
