package ha

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/replication"
)

// stockEar is a slave's connection whose other end takes the preamble for "no request yet", as Apache's master does:
// our master does not see it, and the slave does not wait for the greeting that will not come.
type stockEar struct {
	net.Conn
	preamble, waited bool
}

func (e *stockEar) Write(b []byte) (int, error) {
	if !e.preamble {
		e.preamble = true
		return len(b), nil
	}
	return e.Conn.Write(b)
}

func (e *stockEar) SetReadDeadline(at time.Time) error {
	if !e.waited {
		e.waited = true
		at = time.Unix(1, 0)
	}
	return e.Conn.SetReadDeadline(at)
}

// speakStock makes a slave of ours speak Apache's wire to whoever it dials.
func speakStock(o *Options) {
	o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &stockEar{Conn: conn}, nil
	}
}

func admitStock(o *Options) { o.StockPeers, o.StockBeat = []string{"127.0.0.1"}, 20*time.Millisecond }

// Proves that Apache's wire between a master and a slave of ours carries a whole log: what was there before, what is
// appended meanwhile, and what comes after the connection has been cut, in the middle of frames too; that its acks count as
// written, and that where acks stand for disks nobody waits for it; and that it can be killed and comes back.
func TestStockPair(t *testing.T) {
	for _, col := range columns {
		t.Run(col.name, func(t *testing.T) {
			change := admitStock
			if col.change != nil {
				change = both(admitStock, col.change)
			}
			m := master(t, change)
			x := newSender(31)
			send := func(n int, want error) {
				t.Helper()
				for range n {
					require.ErrorIs(t, x.send(m, 1), want)
				}
			}
			var alone, with error
			switch col.name {
			case "sA":
				alone = replication.ErrNoReplica
			case "sS":
				alone, with = replication.ErrNoReplica, replication.ErrNoReplica
			}
			send(60, alone)
			p := newProxy(t, m.s.Addr())
			s := slave(t, m, "a:1", both(speakStock, func(o *Options) { o.Master, o.StockBeat = p.addr(), 20*time.Millisecond }))
			caughtUp(t, m, s)
			attached := func() {
				t.Helper()
				eventually(t, func() bool {
					ps := m.s.Status().Peers
					return len(ps) == 1 && ps[0].InSync && ps[0].Written == m.s.Written()
				}, "the slave has all and is in sync")
			}
			attached()
			require.Equal(t, "stock 127.0.0.1", m.s.Status().Peers[0].ID)
			require.Zero(t, m.s.Status().Peers[0].Durable)
			send(60, with)
			caughtUp(t, m, s)
			for _, bytes := range []int64{7, 12, 3_000} { // in a header, behind it, in a body
				attached()
				p.cutAfter(bytes)
				for range 10 {
					_ = x.send(m, 1) // cut, so it may have been too late for a copy
				}
				caughtUp(t, m, s)
			}
			p.cutAfter(-1)
			s.kill(0)
			for range 10 {
				_ = x.send(m, 1)
			}
			s.open()
			caughtUp(t, m, s)
			attached()
			send(10, with)
			caughtUp(t, m, s)
			sameLog(t, m, s)
			x.audit(s)
			require.Equal(t, col.name == "sS", containsLog(m, "its acks do not count"))
		})
	}
}

// Proves that a slave which is ahead of its master is refused on Apache's wire with a line that says what to do, and
// keeps what it has.
func TestStockDivergence(t *testing.T) {
	m := master(t, admitStock)
	x := newSender(32)
	require.NoError(t, x.send(m, 20))
	other := master(t, nil)
	y := newSender(33)
	require.NoError(t, y.send(other, 60))
	require.Greater(t, other.s.Written(), m.s.Written())
	end := other.s.Written()
	other.close()
	s := newNode(t, "a:1", both(speakStock, func(o *Options) { o.Slave, o.Master, o.MasterClient = true, m.s.Addr(), m.o.Client }))
	s.heap = other.heap
	require.NoError(t, s.heap.RemoveAll("/s/rmq/epochs"))
	s.open()
	eventually(t, func() bool { return containsLog(m, "it is not a copy of this log, or is ahead of it") }, "the master refuses")
	eventually(t, func() bool { return containsLog(s, "the master is not followed") }, "the slave says so")
	require.Empty(t, m.s.Status().Peers)
	require.Equal(t, end, s.s.Written())
}

// stockSlave is a connection by hand of what claims to be a stock slave.
func stockSlave(t *testing.T, m *node, first []byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", m.s.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	_, err = conn.Write(first)
	require.NoError(t, err)
	return conn
}

// closed requires that the other side ends a connection, whatever it has sent before.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if e, ok := err.(net.Error); ok { //nolint:errorlint // only a bare one is a deadline here
		timeout = e
	}
	require.False(t, timeout != nil && timeout.Timeout(), "not closed")
}

// Proves that reports which no stock slave of this log can make end the connection with a line that says why, and move no
// watermark; and that one that breaks off leaves nothing behind.
func TestForgedStockSlave(t *testing.T) {
	m := master(t, both(syncMode, admitStock))
	x := newSender(34)
	require.ErrorIs(t, x.send(m, 10), replication.ErrNoReplica)
	end := m.s.Written()
	report := func(at int64) []byte { return stockReport(at) }
	for what, b := range map[string][]byte{
		"reports a log up to -2":                   report(-2),
		"reports a log up to -9223372036854775808": report(-1 << 63),
		"reports a log up to 9223372036854775807":  report(1<<63 - 1),
		"it is not a copy of this log":             report(end + 1),
		"report of 0 after":                        append(report(end), report(0)...),
		"forged, or not a copy":                    append(report(0), report(1<<40)...),
		"report of -1 after":                       append(report(end), report(-1)...),
	} {
		closed(t, stockSlave(t, m, b))
		eventually(t, func() bool { return containsLog(m, what) }, what)
	}
	short := stockSlave(t, m, report(end)[:5])
	require.NoError(t, short.Close())
	inSync(t, m, 0)
	require.LessOrEqual(t, m.s.transfer.log.replicated.Load(), end)
	require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)

	strict := master(t, nil) // admits nobody
	closed(t, stockSlave(t, strict, report(0)))
	require.Contains(t, strict.log.String(), "name its address in haStockPeers")
	closed(t, stockSlave(t, strict, report(0)))
	require.Equal(t, 1, strings.Count(strict.log.String(), "name its address in haStockPeers"), "it comes again four times a second")
}

// Proves that what no Apache master sends ends the connection with a line that says why, and nothing of it is in the log
// of the slave; and that a body costs memory as it comes, not as it is announced.
func TestForgedStockMaster(t *testing.T) {
	cases := map[string]struct {
		send []byte
		want string
	}{
		"short header": {appendStockHeader(nil, 0, 10)[:7], io.ErrUnexpectedEOF.Error()},
		"negative":     {appendStockHeader(nil, -5, 0), ErrNegative.Error()},
		"minus length": {appendStockHeader(nil, 0, -1), ErrTooLong.Error()},
		"huge":         {appendStockHeader(nil, 0, 1<<31-1), ErrTooLong.Error()},
		"too long":     {appendStockHeader(nil, 0, stockMaxBody+1), ErrTooLong.Error()},
		"short body":   {append(appendStockHeader(nil, 0, stockMaxBody), make([]byte, 100)...), io.ErrUnexpectedEOF.Error()},
		"beyond":       {append(appendStockHeader(nil, 1<<20, 3), "abc"...), "the Apache master is at 1048576, this log ends at"},
		"before":       {append(appendStockHeader(nil, 1, 3), "abc"...), "the Apache master is at 1, this log ends at"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			old := master(t, nil)
			x := newSender(35)
			require.NoError(t, x.send(old, 5))
			end := old.s.Written()
			old.close()
			require.NoError(t, old.heap.RemoveAll("/s/rmq/epochs"))
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			s := newNode(t, "a:1", both(speakStock, func(o *Options) { o.Slave, o.Master = true, ln.Addr().String() }))
			s.heap = old.heap
			s.open()
			conn, err := ln.Accept()
			require.NoError(t, err)
			require.NoError(t, ln.Close())
			var b [stockReportBytes]byte
			require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
			_, err = io.ReadFull(conn, b[:])
			require.NoError(t, err)
			require.Equal(t, stockReport(end), b[:])
			_, err = conn.Write(c.send)
			require.NoError(t, err)
			if c.want == io.ErrUnexpectedEOF.Error() {
				require.NoError(t, conn.Close())
			} else {
				closed(t, conn)
				require.NoError(t, conn.Close())
			}
			eventually(t, func() bool { return containsLog(s, c.want) }, c.want)
			require.Equal(t, end, s.s.Written())
			require.Equal(t, end, s.s.Visible())
		})
	}
}
