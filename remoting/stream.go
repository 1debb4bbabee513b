package remoting

import (
	"net"
	"time"
)

// streamBytes is the most written at once, so that a peer that reads slowly is seen to read.
const streamBytes = 64 << 10

// stream drives any net.Conn: pipes in tests, and what a TLS handshake will return one day. Its reader waits with a small
// buffer of its own, and whoever writes may wait for the peer.
type stream struct {
	conn net.Conn
	c    *Conn
	idle []byte
}

func newStream(conn net.Conn, c *Conn) *stream {
	return &stream{conn: conn, c: c, idle: make([]byte, idleBytes)}
}

func (s *stream) read() (int, error) {
	s.c.idle()
	if in := s.c.in; in != nil {
		n, err := s.conn.Read(in.b[in.end:])
		s.c.stats.reads.Add(1)
		in.end += n
		return n, pending(n, err)
	}
	n, err := s.conn.Read(s.idle)
	s.c.stats.reads.Add(1)
	in := s.c.borrow()
	in.end += copy(in.b[in.end:], s.idle[:n])
	return n, pending(n, err)
}

// pending holds an error back that came with bytes: the next read brings it again.
func pending(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}

func (s *stream) write(o *outbox, wait bool) (blocked bool, err error) {
	if !wait {
		return true, nil
	}
	if !o.started {
		if err := o.spread(false); err != nil {
			return false, err
		}
	}
	var room [1][]byte
	for {
		iov, _, _ := o.next(room[:0])
		if len(iov) == 0 {
			return false, nil
		}
		b := iov[0]
		n, err := s.conn.Write(b[:min(len(b), streamBytes)])
		s.c.stats.writes.Add(1)
		o.wrote(n)
		s.c.wrote(n)
		if err != nil {
			return false, err
		}
	}
}

func (s *stream) stopReading() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

func (s *stream) unacked() int { return 0 }

func (s *stream) close() error { return s.conn.Close() }
