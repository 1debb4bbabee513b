package broker

import (
	"sync"
	"time"

	"rmq/engine"
	"rmq/remoting/protocol"
)

// PullRequestHold keeps pulls that found nothing, by topic and queue, until something arrives that they
// want or their time is over (org.apache.rocketmq.broker.longpolling.PullRequestHoldService). They are
// then read once more and answered, whatever that finds. Safe for concurrent use.
type PullRequestHold struct {
	b *Broker

	mu     sync.Mutex
	table  map[holdKey]*heldQueue
	n      int
	swept  time.Time
	closed bool
}

type holdKey struct {
	topic string
	queue int32
}

// heldQueue are the pulls held for one queue. It stays a while without any, since pulls of consumers
// that keep up come and go with every message.
type heldQueue struct {
	key        holdKey
	head, tail *heldPull
	idle       int // sweeps that found it empty
}

// heldPull is one held pull, in the list of its queue and in that of its connection.
type heldPull struct {
	pullParams
	deadline time.Time

	queue      *heldQueue // nil once it has left
	prev, next *heldPull
	older      *heldPull // of the connection
	newer      *heldPull
}

// Times of the hold.
const (
	holdSweep     = 500 * time.Millisecond
	holdIdleSweep = 20 // an empty queue is forgotten after so many sweeps
)

func newPullRequestHold(b *Broker) *PullRequestHold {
	return &PullRequestHold{b: b, table: map[holdKey]*heldQueue{}}
}

// Len is how many pulls are held.
func (s *PullRequestHold) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// hold keeps a pull.
func (s *PullRequestHold) hold(p *pullParams, deadline time.Time) {
	h := &heldPull{pullParams: *p, deadline: deadline}
	key := holdKey{p.topic.TopicName, p.queueID}
	s.mu.Lock()
	if p.cs.gone {
		s.mu.Unlock()
		return
	}
	if s.closed {
		s.mu.Unlock()
		h.run()
		return
	}
	q := s.table[key]
	if q == nil {
		q = &heldQueue{key: key}
		s.table[key] = q
		s.b.store.Watch(key.topic, key.queue)
	}
	q.push(h)
	s.n++
	s.mu.Unlock()
	// What arrived between the read that found nothing and the watch is not announced, and neither is a
	// reset that came then.
	_, high, ok := s.b.store.QueueRange(key.topic, key.queue)
	if ok && high > h.offset || s.b.Offsets.HasReset(p.group.GroupName, key.topic, key.queue) {
		s.mu.Lock()
		if s.leave(h) {
			s.mu.Unlock()
			s.wake(h)
			return
		}
		s.mu.Unlock()
	}
}

func (q *heldQueue) push(h *heldPull) {
	h.queue, h.prev = q, q.tail
	if q.tail == nil {
		q.head = h
	} else {
		q.tail.next = h
	}
	q.tail, q.idle = h, 0
	if h.older = h.cs.held; h.older != nil {
		h.older.newer = h
	}
	h.cs.held = h
}

// leave takes h out, or returns false if somebody else has. Called with mu held.
func (s *PullRequestHold) leave(h *heldPull) bool {
	q := h.queue
	if q == nil {
		return false
	}
	if h.prev == nil {
		q.head = h.next
	} else {
		h.prev.next = h.next
	}
	if h.next == nil {
		q.tail = h.prev
	} else {
		h.next.prev = h.prev
	}
	if h.newer == nil {
		h.cs.held = h.older
	} else {
		h.newer.older = h.older
	}
	if h.older != nil {
		h.older.newer = h.newer
	}
	h.queue, h.prev, h.next, h.older, h.newer = nil, nil, nil, nil, nil
	s.n--
	return true
}

// arrive wakes the pulls that want a new record. It runs on the dispatcher of the store and does not
// block.
func (s *PullRequestHold) arrive(a *engine.Arrival) {
	s.mu.Lock()
	q := s.table[holdKey{string(a.Topic), a.QueueID}]
	if q == nil {
		s.mu.Unlock()
		return
	}
	var woken *heldPull
	for h := q.head; h != nil; {
		next := h.next
		if a.QueueOffset >= h.offset && h.wants(a.TagsHash) && s.leave(h) {
			h.next, woken = woken, h
		}
		h = next
	}
	s.mu.Unlock()
	s.wakeAll(woken)
}

// wakeQueue wakes the pulls of one queue that match chooses, because something else than a record is to
// be told.
func (s *PullRequestHold) wakeQueue(topic string, queue int32, match func(h *heldPull) bool) {
	s.mu.Lock()
	var woken *heldPull
	if q := s.table[holdKey{topic, queue}]; q != nil {
		for h := q.head; h != nil; {
			next := h.next
			if match(h) && s.leave(h) {
				h.next, woken = woken, h
			}
			h = next
		}
	}
	s.mu.Unlock()
	s.wakeAll(woken)
}

func (s *PullRequestHold) wakeAll(h *heldPull) {
	for h != nil {
		next := h.next
		h.next = nil
		s.wake(h)
		h = next
	}
}

// wake has the pull executor answer h.
func (s *PullRequestHold) wake(h *heldPull) {
	f := familyPull
	if h.lite {
		f = familyLitePull
	}
	if e := s.b.executors[f]; !e.submit(h) {
		h.refuse(e.full())
	}
}

// sweep wakes the pulls whose time is over and forgets queues without any.
func (s *PullRequestHold) sweep(now time.Time) {
	s.mu.Lock()
	if now.Sub(s.swept) < holdSweep {
		s.mu.Unlock()
		return
	}
	s.swept = now
	var woken *heldPull
	for key, q := range s.table {
		for h := q.head; h != nil; {
			next := h.next
			if !now.Before(h.deadline) && s.leave(h) {
				h.next, woken = woken, h
			}
			h = next
		}
		if q.head != nil {
			continue
		}
		if q.idle++; q.idle > holdIdleSweep {
			delete(s.table, key)
			s.b.store.Unwatch(key.topic, key.queue)
		}
	}
	s.mu.Unlock()
	s.wakeAll(woken)
}

// drop forgets the pulls of a connection that has closed.
func (s *PullRequestHold) drop(cs *connState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs.gone = true
	for cs.held != nil {
		s.leave(cs.held)
	}
}

// close answers all pulls as if their time were over, and holds none any more.
func (s *PullRequestHold) close() {
	s.mu.Lock()
	s.closed = true
	var woken *heldPull
	for key, q := range s.table {
		for q.head != nil {
			h := q.head
			s.leave(h)
			h.next, woken = woken, h
		}
		delete(s.table, key)
		s.b.store.Unwatch(key.topic, key.queue)
	}
	s.mu.Unlock()
	for h := woken; h != nil; {
		next := h.next
		h.next = nil
		h.run()
		h = next
	}
}

// run implements job: the pull is read again, and answered now. Offsets that came with it were committed
// when it came.
func (h *heldPull) run() {
	b := h.cs.b
	op := b.pullPool.Get().(*pullOp)
	op.pullParams = h.pullParams
	op.began = time.Now()
	if op.topic = b.Topics.Get(h.topic.TopicName); op.topic == nil {
		op.topic = h.topic
		op.end(protocol.ResponseTopicNotExist, "the topic "+h.topic.TopicName+" has been deleted")
		op.Release()
		return
	}
	if group := h.group.GroupName; b.leads.Load() && b.Offsets.HasReset(group, op.topic.TopicName, h.queueID) {
		if to, ok := b.Offsets.TakeReset([]byte(group), []byte(op.topic.TopicName), h.queueID); ok {
			op.answerReset(to)
			return
		}
	}
	if !op.read(true) {
		op.read(false)
	}
	op.finish()
}

// refuse implements job.
func (h *heldPull) refuse(cause string) {
	op := h.cs.b.pullPool.Get().(*pullOp)
	op.pullParams = h.pullParams
	op.refuse(cause)
}
