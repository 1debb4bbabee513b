package remoting

import (
	"encoding/binary"
	"io"

	"rmq/remoting/protocol"
)

// tlsHandshake is the first byte of a TLS connection. No frame begins with it: its length would be beyond any limit.
const tlsHandshake = 0x16

// run is the life of the connection, on its reader goroutine.
func (c *Conn) run() {
	err := c.readAll()
	c.fail(err)
	c.finish()
}

// readAll serves frames until the connection ends, and says why it did.
func (c *Conn) readAll() error {
	first := true
	for {
		n, err := c.tr.read()
		if err != nil {
			c.rest()
			if c.stopped() {
				c.parked.Store(true)
				<-c.done
			}
			return err
		}
		c.stats.bytesIn.Add(int64(n))
		c.active.Store(c.ep.clock.Load())
		if first && c.in.b[0] == tlsHandshake {
			// A handshake would be answered here, and its stream take the socket's place as transport.
			return ErrTLS
		}
		first = false
		full := c.in.end == len(c.in.b)
		err = c.serve()
		c.ep.handler.Drained(c)
		if err != nil {
			c.rest()
			return err
		}
		// What did not fit is most likely there already: once, its answers may leave with these.
		if c.full = full && !c.full; !c.full {
			c.rest()
		}
	}
}

// rest is called when the reader is about to wait: the answers to what it has served leave.
func (c *Conn) rest() {
	c.full = false
	c.mu.Lock()
	if !c.serving {
		c.mu.Unlock()
		return
	}
	c.serving = false
	c.flushLocked()
}

func (c *Conn) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping && !c.closed
}

// serve works off the whole frames of the inbox.
func (c *Conn) serve() error {
	c.mu.Lock()
	c.serving = true
	c.mu.Unlock()
	in := c.in
	var requests, responses int64
	defer func() {
		c.stats.requests.Add(requests)
		c.stats.responses.Add(responses)
	}()
	for {
		b := in.unserved()
		if len(b) < 4 {
			in.compact()
			return nil
		}
		n := int(int32(binary.BigEndian.Uint32(b)))
		if n < 4 || n > c.ep.maxFrame-4 {
			return &FrameError{Peer: c.remote, Length: n, Limit: c.ep.maxFrame}
		}
		if len(b) < 4+n {
			in.compact()
			if in.end == len(in.b) {
				in.grow(4 + n)
			}
			return nil
		}
		if err := protocol.ParseCommand(b[4:4+n:4+n], &in.req); err != nil {
			return &FrameError{Peer: c.remote, Length: n, Limit: c.ep.maxFrame, Err: err}
		}
		in.start += 4 + n
		if in.req.IsResponse() {
			responses++
			c.answered(&in.req)
		} else {
			requests++
			c.ep.handler.Serve(c, &in.req)
		}
		if c.unsent.Load() > flushBytes {
			if err := c.relieve(); err != nil {
				return err
			}
		}
	}
}

// relieve sends what the frames served so far have produced, and, at a server, waits while there is too much of it.
func (c *Conn) relieve() error {
	c.flush()
	if !c.ep.holdReaders || !c.Full() {
		return nil
	}
	c.ep.handler.Drained(c) // others must not wait as long as this peer makes us
	c.rest()                // nor may what they queue here meanwhile
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting.Store(true)
	for !c.closed && c.unsent.Load() > c.limit()/2 {
		c.eased.Wait()
	}
	c.waiting.Store(false)
	c.serving = true
	if c.closed {
		return io.ErrClosedPipe
	}
	return nil
}

// idle is called by the transport before it waits for bytes.
func (c *Conn) idle() {
	if c.full {
		c.rest()
	}
	c.unborrow()
}

// borrow gives the reader its inbox.
func (c *Conn) borrow() *inbox {
	if c.in == nil {
		c.in = inboxes.Get().(*inbox)
		c.in.end = copy(c.in.b, c.small)
		c.small = c.small[:0]
	}
	return c.in
}

// unborrow gives the inbox back before a wait, unless more of a cut frame is in it than is kept aside.
func (c *Conn) unborrow() {
	in := c.in
	if in == nil || in.end > idleBytes {
		return
	}
	if in.end > 0 {
		if c.small == nil {
			c.small = make([]byte, 0, idleBytes)
		}
		c.small = append(c.small[:0], in.b[:in.end]...)
	}
	c.in = nil
	in.release()
}

// finish ends what a closed connection leaves behind.
func (c *Conn) finish() {
	c.mu.Lock()
	cause := c.cause
	o, partial := c.out, c.partial
	c.out, c.partial = nil, nil
	calls := c.calls.expire(int64(never) * 2)
	c.mu.Unlock()
	for _, o := range []*outbox{o, partial} {
		if o != nil {
			o.release()
		}
	}
	if c.in != nil {
		c.in.release()
		c.in = nil
	}
	failAll(calls, c.closedError())
	c.ep.forget(c)
	c.settle()
	c.ep.handler.Closed(c, cause)
}
