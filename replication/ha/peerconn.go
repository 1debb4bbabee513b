package ha

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// peerConn is a connection to another node, of either kind. Anybody may write frames; one goroutine
// reads.
type peerConn struct {
	s      *Service
	conn   net.Conn
	br     *bufio.Reader
	stock  bool
	closed atomic.Bool
	heard  atomic.Int64 // nanoseconds of the clock of hops: the last frame that came

	writing sync.Mutex // guards what follows
	head    []byte
	bufs    [2][]byte
	iov     net.Buffers
	wrote   int64 // nanoseconds: the last frame that went

	// Of a master's connection.
	replica   *replica
	sent      atomic.Int64 // end of what was sent, before it is
	confirmed atomic.Int64 // newest confirm position that was sent
	metaSent  atomic.Int64
	times     sentRing

	in    [HeaderBytes]byte
	body  []byte
	limit int // longest body that is taken
}

func newPeerConn(s *Service, conn net.Conn) *peerConn {
	c := &peerConn{s: s, conn: conn, br: bufio.NewReaderSize(conn, 64<<10), head: make([]byte, 0, HeaderBytes), limit: maxHelloBytes}
	c.heard.Store(s.hops.now())
	return c
}

// track makes Close and demote know the connection; false if the node is closing.
func (c *peerConn) track() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.closed {
		return false
	}
	c.s.conns[c] = struct{}{}
	return true
}

func (c *peerConn) untrack() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c)
}

func (c *peerConn) close() {
	if !c.closed.Swap(true) {
		_ = c.conn.Close() // it has nothing to say that the reader does not see
	}
}

// write sends one frame. Body is not kept.
func (c *peerConn) write(h Header, body []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writeLocked(h, body)
}

func (c *peerConn) writeLocked(h Header, body []byte) error {
	c.head = AppendHeader(c.head[:0], h, body)
	return c.writeRaw(c.head, body)
}

// writeRaw sends head and body with one call. Called with writing held.
func (c *peerConn) writeRaw(head, body []byte) error {
	c.wrote = c.s.hops.now()
	if len(body) == 0 {
		_, err := c.conn.Write(head)
		return err
	}
	c.bufs = [2][]byte{head, body}
	c.iov = c.bufs[:]
	_, err := c.iov.WriteTo(c.conn)
	c.bufs = [2][]byte{}
	return err
}

// writeJSON sends a frame whose body is v.
func (c *peerConn) writeJSON(t FrameType, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > t.maxBody() {
		return fmt.Errorf("%v of %d bytes: %w", t, len(body), ErrTooLong)
	}
	return c.write(c.header(t), body)
}

// header is one that names group and epoch.
func (c *peerConn) header(t FrameType) Header {
	c.s.mu.Lock()
	group := c.s.rec.Group
	c.s.mu.Unlock()
	return Header{Type: t, Group: group, Epoch: c.s.epochs.Load().Last(), End: c.s.Written()}
}

// refuse says why the connection ends.
func (c *peerConn) refuse(why string) {
	if len(why) > maxTextBytes {
		why = why[:maxTextBytes]
	}
	_ = c.write(c.header(FrameRefuse), []byte(why)) // it may be gone already
}

// read returns the next frame. The body is valid until the next call.
func (c *peerConn) read() (Header, []byte, error) {
	if _, err := io.ReadFull(c.br, c.in[:]); err != nil {
		return Header{}, nil, err
	}
	h, err := ParseHeader(c.in[:])
	if err != nil {
		return Header{}, nil, err
	}
	if h.Len > c.limit {
		return Header{}, nil, fmt.Errorf("%v of %d bytes is not expected here: %w", h.Type, h.Len, ErrTooLong)
	}
	body, err := c.readBody(h.Len)
	if err != nil {
		return Header{}, nil, err
	}
	c.heard.Store(c.s.hops.now())
	return h, body, CheckBody(c.in[:], body)
}

// readBody grows as bytes come, not as they are announced.
func (c *peerConn) readBody(n int) ([]byte, error) {
	body := c.body[:0]
	for len(body) < n {
		step := min(n-len(body), max(MaxDataBytes, len(body)))
		if cap(body)-len(body) < step {
			grown := make([]byte, len(body), len(body)+step)
			copy(grown, body)
			body = grown
		}
		at := len(body)
		body = body[:at+step]
		if _, err := io.ReadFull(c.br, body[at:]); err != nil {
			return nil, err
		}
	}
	if cap(body) <= MaxDataBytes {
		c.body = body // larger ones are rare
	}
	return body, nil
}

// beat sends a sign of life if nothing else went, and closes a connection on which none came. A
// connection that is being written to needs none.
func (c *peerConn) beat() {
	s := c.s
	if at := s.hops.now(); at-c.heard.Load() > int64(s.o.Housekeeping) {
		s.o.Logger.Warn("replication connection closed: nothing was heard", "remote", c.conn.RemoteAddr(), "for", s.o.Housekeeping)
		c.close()
		return
	}
	if !c.writing.TryLock() {
		return
	}
	defer c.writing.Unlock()
	if c.replica == nil {
		return
	}
	idle := time.Duration(s.hops.now() - c.wrote)
	switch {
	case c.stock && idle >= s.o.StockBeat:
		_ = c.writeRaw(appendStockHeader(c.head[:0], c.sent.Load(), 0), nil) // the reader sees what went wrong
	case !c.stock && idle >= s.o.Heartbeat*9/10:
		_ = c.writeLocked(c.dataHeader(c.sent.Load()), nil)
	}
}

// dataHeader is one for log bytes, or none, at pos.
func (c *peerConn) dataHeader(pos int64) Header {
	s := c.s
	epoch, _ := s.epochs.Load().At(pos)
	h := Header{Type: FrameData, Group: s.transfer.group.Load(), Epoch: epoch, Pos: pos, Confirm: s.Visible(), End: s.Written()}
	if s.transfer.needed(c.replica) {
		h.Flags |= FlagNeeded
	}
	c.confirmed.Store(h.Confirm)
	return h
}

// bye tells a slave that nothing more comes.
func (c *peerConn) bye() {
	if !c.writing.TryLock() {
		return
	}
	defer c.writing.Unlock()
	if c.replica == nil || c.stock {
		return
	}
	h := c.dataHeader(c.sent.Load())
	h.Type = FrameBye
	_ = c.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_ = c.writeLocked(h, nil) // it is a courtesy
}

// serves makes c the connection of r, of the stock wire or of ours.
func (c *peerConn) serves(r *replica, stock bool) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.replica, c.stock = r, stock
}

// ended says whether err is the ordinary end of a connection.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled)
}
