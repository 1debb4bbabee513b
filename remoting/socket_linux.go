package remoting

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket drives a TCP connection by its descriptor, on the runtime's poller. Against net.Conn it gains three things: a
// reader waits without holding a buffer, a writer can try without waiting, and a file can follow a head in one go.
type socket struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	c    *Conn

	readStep  func(fd uintptr) bool // method values, made once
	writeTry  func(fd uintptr) bool
	writeWait func(fd uintptr) bool

	readN   int
	readErr error

	out      *outbox
	blocked  bool
	writeErr error
}

// newSocket sets the options of RocketMQ's peers: no delay, no keep-alive; and bounds how long sent bytes may stay
// unacknowledged, since a peer whose machine vanished would hold them for a quarter of an hour.
func newSocket(conn *net.TCPConn, c *Conn, unacked time.Duration) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw, c: c}
	s.readStep, s.writeTry, s.writeWait = s.stepRead, s.tryWrite, s.waitWrite
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacked.Milliseconds())))
	})
	return s, errors.Join(err, optErr)
}

// read waits for bytes and puts what there is into the connection's inbox.
func (s *socket) read() (int, error) {
	if err := s.raw.Read(s.readStep); err != nil {
		return 0, err
	}
	return s.readN, s.readErr
}

// stepRead is called when the descriptor may be readable; false waits until it is. Nothing but a short cut frame is held
// while waiting.
func (s *socket) stepRead(fd uintptr) bool {
	in := s.c.borrow()
	for {
		n, err := unix.Read(int(fd), in.b[in.end:])
		s.c.stats.reads.Add(1)
		switch {
		case err == nil && n == 0:
			s.readN, s.readErr = 0, io.EOF
			return true
		case err == nil:
			in.end += n
			s.readN, s.readErr = n, nil
			return true
		case errors.Is(err, unix.EAGAIN):
			s.c.idle()
			return false
		case errors.Is(err, unix.EINTR):
		default:
			s.readN, s.readErr = 0, err
			return true
		}
	}
}

// write sends of o what the kernel takes. blocked says that it would not take all of it; with wait it waits instead.
func (s *socket) write(o *outbox, wait bool) (blocked bool, err error) {
	if !o.started {
		if err := o.spread(true); err != nil {
			return false, err
		}
	}
	s.out = o
	step := s.writeTry
	if wait {
		step = s.writeWait
	}
	err = s.raw.Write(step)
	s.out = nil
	if err != nil {
		return false, err
	}
	return s.blocked, s.writeErr
}

func (s *socket) tryWrite(fd uintptr) bool {
	s.blocked, s.writeErr = s.pump(int(fd))
	return true
}

func (s *socket) waitWrite(fd uintptr) bool {
	s.blocked, s.writeErr = s.pump(int(fd))
	return !s.blocked
}

// pump writes until everything is out, or the kernel takes no more.
func (s *socket) pump(fd int) (blocked bool, err error) {
	var room [maxGather][]byte
	for {
		iov, file, more := s.out.next(room[:0])
		if len(iov) == 0 && file == nil {
			return false, nil
		}
		var n int
		switch {
		case file != nil:
			s.c.stats.sendfiles.Add(1)
			n, err = unix.Sendfile(fd, file.fd, &file.offset, file.n)
			if n > 0 {
				file.offset -= int64(n) // wrote counts it
			} else if err == nil {
				return false, io.ErrUnexpectedEOF // the file is shorter than its payload says
			}
		case more:
			n, err = unix.SendmsgBuffers(fd, iov, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		case len(iov) == 1:
			n, err = unix.Write(fd, iov[0])
		default:
			n, err = unix.Writev(fd, iov)
		}
		s.c.stats.writes.Add(1)
		if n > 0 {
			s.out.wrote(n)
			s.c.wrote(n)
		}
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return true, nil
		default:
			return false, err
		}
	}
}

func (s *socket) stopReading() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

func (s *socket) unacked() (n int) {
	err := s.raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) // no descriptor, nothing to wait for
	})
	if err != nil {
		return 0
	}
	return n
}

func (s *socket) close() error { return s.conn.Close() }
