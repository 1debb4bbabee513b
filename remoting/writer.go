package remoting

import (
	"context"
	"math"
	"runtime"

	"rmq/remoting/protocol"
)

const (
	// flushBytes is how much the reader lets gather before it writes without having served all it read.
	flushBytes = 128 << 10
	// maxRounds is how often a writer looks for what gathered meanwhile before somebody else must go on.
	maxRounds = 4
	// lostFactor times MaxUnsentBytes, and a frame more, closes a connection.
	lostFactor = 4
)

// outbox is where frames are queued. c.mu is held.
func (c *Conn) outbox() *outbox {
	if c.out == nil {
		c.out = getOutbox()
	}
	return c.out
}

// queued counts n bytes more in the outbox. c.mu is held.
func (c *Conn) queued(n int) {
	if !c.closed {
		c.report(c.unsent.Add(int64(n)))
	}
}

// kick sees to it that somebody writes, and releases c.mu.
func (c *Conn) kick() {
	if c.closed {
		o := c.out
		c.out = nil
		c.mu.Unlock()
		o.release()
		return
	}
	wake := !c.writing && !c.serving && !c.inFlusher
	if wake {
		c.inFlusher = true
	}
	lost := c.unsent.Load() > lostFactor*c.ep.maxUnsent+protocol.MaxFrameBytes
	c.mu.Unlock()
	if wake {
		c.ep.flusher.push(c)
	}
	if lost {
		c.fail(ErrSlowPeer)
	}
}

// flush writes what is queued, unless somebody else does. It never waits for the peer.
func (c *Conn) flush() {
	c.mu.Lock()
	c.flushLocked()
}

// flushGathered is flushLocked by one of several callers: it lets the others run first, so that what they queue leaves by
// the same system call.
func (c *Conn) flushGathered() {
	if !c.writing {
		c.writing = true
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		c.writing = false
	}
	c.flushLocked()
}

// flushLocked is flush from where c.mu is held; it releases it.
func (c *Conn) flushLocked() {
	if c.writing {
		c.mu.Unlock()
		return
	}
	c.writing = true
	for round := 0; c.out != nil && !c.closed; round++ {
		if round == maxRounds {
			c.handOver(nil)
			return
		}
		o := c.out
		c.out = nil
		c.mu.Unlock()
		blocked, err := c.tr.write(o, false)
		if err != nil {
			o.release()
			c.fail(err)
			blocked = false
		} else if !blocked {
			o.release()
		}
		c.mu.Lock()
		if blocked {
			c.handOver(o)
			return
		}
	}
	c.writing = false
	c.mu.Unlock()
}

// handOver leaves the rest to a flusher, and releases c.mu. The role goes with a partly written outbox: its bytes come
// first.
func (c *Conn) handOver(partial *outbox) {
	if c.closed && partial != nil {
		c.writing = false
		c.mu.Unlock()
		partial.release()
		return
	}
	c.partial = partial
	c.writing = partial != nil
	wake := !c.inFlusher
	c.inFlusher = true
	c.mu.Unlock()
	if wake {
		c.ep.flusher.push(c)
	}
}

// flushed is called by a flusher that took c from its queue.
func (c *Conn) flushed() {
	c.mu.Lock()
	c.inFlusher = false
	if o := c.partial; o != nil {
		c.partial = nil
		c.mu.Unlock()
		c.ep.group.Go("writer", func(context.Context) error {
			c.writeSlowly(o)
			return nil
		})
		return
	}
	c.flushLocked()
}

// writeSlowly has the writer's role and waits for the peer until nothing is queued.
func (c *Conn) writeSlowly(o *outbox) {
	for {
		_, err := c.tr.write(o, true)
		o.release()
		if err != nil {
			c.fail(err)
		}
		c.mu.Lock()
		if c.out == nil || c.closed {
			c.writing = false
			c.mu.Unlock()
			return
		}
		o = c.out
		c.out = nil
		c.mu.Unlock()
	}
}

// crowdedBytes is what may be unsent on a connection while all together have too much.
const crowdedBytes = 256 << 10

// limit is how much may be unsent before the connection reads no more.
func (c *Conn) limit() int64 {
	if all := c.ep.maxUnsentAll; all > 0 && c.ep.unsent.Load() > all {
		return min(c.ep.maxUnsent, crowdedBytes)
	}
	return c.ep.maxUnsent
}

// settled is the unsent of a connection that is over, give or take some bytes.
const settled = math.MinInt64 / 2

// report keeps the count of all connections, in which those with little are not worth a shared cache line.
func (c *Conn) report(unsent int64) {
	if unsent <= flushBytes {
		if c.counted.Load() == 0 {
			return
		}
		unsent = 0
	}
	c.ep.unsent.Add(unsent - c.counted.Swap(unsent))
	if unsent > 0 && c.unsent.Load() < 0 {
		c.ep.unsent.Add(-c.counted.Swap(0)) // settled meanwhile
	}
}

// settle takes what a closed connection did not send out of the count of all.
func (c *Conn) settle() {
	c.unsent.Store(settled)
	c.report(settled)
}

// wrote counts n bytes that are with the kernel.
func (c *Conn) wrote(n int) {
	c.stats.bytesOut.Add(int64(n))
	c.active.Store(c.ep.clock.Load())
	left := c.unsent.Add(-int64(n))
	c.report(left)
	if left <= c.limit()/2 && c.waiting.Load() {
		c.mu.Lock()
		c.eased.Broadcast()
		c.mu.Unlock()
	}
}
