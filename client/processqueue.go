package client

import (
	"slices"
	"sync"
	"time"
)

// processQueue holds what was pulled of one queue and is not consumed yet
// (org.apache.rocketmq.client.impl.consumer.ProcessQueue).
//
// Offsets ascend. What is done leaves from the head only, so that the offset to commit never passes
// a message that is still being worked on. Safe for concurrent use.
type processQueue struct {
	queue MessageQueue
	// room gets a token when messages leave; the puller waits for it when it has to hold back.
	room chan struct{}

	mu      sync.Mutex
	slots   []slot // slots[head:] are held
	head    int
	count   int // slots[head:] not done
	bytes   int
	next    int64 // offset behind the newest message put
	dropped bool

	lastPull, lastConsume time.Time
	lastLock              time.Time // zero: not locked
	lockTries             int64
}

type slot struct {
	msg     *MessageExt
	done    bool
	taken   bool
	started time.Time // when a handler got it; zero: waits
}

func newProcessQueue(q MessageQueue, next int64, now time.Time) *processQueue {
	return &processQueue{queue: q, next: next, room: make(chan struct{}, 1), lastPull: now, lastConsume: now}
}

// put adds what a pull brought, except what is known already.
func (p *processQueue) put(msgs []*MessageExt) []*MessageExt {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := msgs[:0:0]
	for _, m := range msgs {
		if m.QueueOffset < p.next {
			continue
		}
		p.slots = append(p.slots, slot{msg: m})
		p.next = m.QueueOffset + 1
		p.count++
		p.bytes += len(m.Body)
		fresh = append(fresh, m)
	}
	return fresh
}

func (p *processQueue) find(offset int64) *slot {
	held := p.slots[p.head:]
	i, ok := slices.BinarySearchFunc(held, offset, func(s slot, o int64) int {
		switch {
		case s.msg.QueueOffset < o:
			return -1
		case s.msg.QueueOffset > o:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &held[i]
}

// start notes that a handler has the messages from now on.
func (p *processQueue) start(msgs []*MessageExt, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastConsume = now
	for _, m := range msgs {
		if s := p.find(m.QueueOffset); s != nil {
			s.started = now
		}
	}
}

// done takes out what is consumed. note gets the offset from which a successor would have to start, unless
// nothing has changed or the queue is dropped; it runs under the lock, so that nothing is noted after a drop.
func (p *processQueue) done(msgs []*MessageExt, note func(commit int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, m := range msgs {
		if s := p.find(m.QueueOffset); s != nil && !s.done {
			s.done = true
			p.count--
			p.bytes -= len(m.Body)
			changed = true
		}
	}
	for p.head < len(p.slots) && p.slots[p.head].done {
		p.slots[p.head] = slot{}
		p.head++
	}
	if p.head > len(p.slots)/2 {
		p.slots = slices.Delete(p.slots, 0, p.head)
		p.head = 0
	}
	p.wake()
	if changed && !p.dropped {
		note(p.first())
	}
}

// first is the lowest offset not consumed.
func (p *processQueue) first() int64 {
	if p.head < len(p.slots) {
		return p.slots[p.head].msg.QueueOffset
	}
	return p.next
}

// skipTo moves past messages that the subscriber does not want. note gets the offset, as of done, unless
// messages before them are still held: their commit comes first.
func (p *processQueue) skipTo(next int64, note func(commit int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, next)
	if p.head == len(p.slots) && !p.dropped {
		note(p.next)
	}
}

// take hands out up to n messages in order for an ordered handler; they stay until done or put back.
func (p *processQueue) take(n int, now time.Time) []*MessageExt {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastConsume = now
	var out []*MessageExt
	for i := p.head; i < len(p.slots) && len(out) < n; i++ {
		s := &p.slots[i]
		if s.done || s.taken {
			continue
		}
		s.taken, s.started = true, now
		out = append(out, s.msg)
	}
	return out
}

// putBack makes messages available to take again.
func (p *processQueue) putBack(msgs []*MessageExt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range msgs {
		if s := p.find(m.QueueOffset); s != nil {
			s.taken, s.started = false, time.Time{}
		}
	}
}

// expired are messages that a handler has had since before the limit.
func (p *processQueue) expired(limit time.Time) []*MessageExt {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*MessageExt
	for _, s := range p.slots[p.head:] {
		if !s.done && !s.started.IsZero() && s.started.Before(limit) {
			out = append(out, s.msg)
		}
	}
	return out
}

// full says why no more should be pulled, "" if it should. maxSpan 0 means any.
func (p *processQueue) full(maxCount, maxBytes, maxSpan int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.count >= maxCount:
		return "messages"
	case p.bytes >= maxBytes:
		return "bytes"
	case maxSpan > 0 && p.count > 0 && p.next-p.first() > int64(maxSpan):
		return "span"
	}
	return ""
}

func (p *processQueue) wake() {
	signal(p.room)
}

// drop ends the queue's time here: nothing more is committed for it.
func (p *processQueue) drop() {
	p.mu.Lock()
	p.dropped = true
	p.mu.Unlock()
}

func (p *processQueue) isDropped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// setLocked notes what the broker said about the queue's lock.
func (p *processQueue) setLocked(ok bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lockTries++
	p.lastLock = time.Time{}
	if ok {
		p.lastLock = now
	}
}

// lockTrust is how long a lock is believed in without being renewed; brokers keep it for 60 s.
const lockTrust = 30 * time.Second

func (p *processQueue) locked(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lastLock.IsZero() && now.Sub(p.lastLock) < lockTrust
}

// held are the messages waiting or in work.
func (p *processQueue) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *processQueue) pulled(now time.Time) {
	p.mu.Lock()
	p.lastPull = now
	p.mu.Unlock()
}
