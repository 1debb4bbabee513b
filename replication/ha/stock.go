package ha

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/replication"
)

// serveStock speaks the stock wire with a slave whose first report is first.
func (s *Service) serveStock(ctx context.Context, c *peerConn, first [stockReportBytes]byte, known func()) error {
	host, admitted := s.admits(c.conn.RemoteAddr())
	end := int64(binary.BigEndian.Uint64(first[:]))
	if admitted {
		if err := s.awaitHold(ctx); err != nil { // refused now it would come back after seconds
			return err
		}
	}
	refused := func(what, fix string) error {
		s.audit(c.conn.RemoteAddr(), "stock "+host, what, fix)
		return nil
	}
	switch {
	case !admitted:
		return refused("it speaks Apache's HA wire and is not admitted", "name its address in haStockPeers if it is a slave of yours")
	case s.Role() != replication.Leader:
		return refused("this node does not lead", "point the slave's haMasterAddress at the master")
	case end < 0 || end > s.Written():
		return refused(fmt.Sprintf("it reports a log up to %d, this one ends at %d", end, s.Written()),
			"it is not a copy of this log, or is ahead of it: move its store away to fill it from here")
	case end > 0 && end < s.Min():
		return refused(fmt.Sprintf("it reports a log up to %d, this one begins at %d", end, s.Min()), "move its store away to fill it from here")
	}
	known()
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	pos := end
	if end == 0 {
		pos = s.Min()
	}
	c.sent.Store(pos)
	r, old := s.transfer.connected("stock "+host, c, func(r *replica) {
		r.stock, r.written, r.addr = true, end, c.conn.RemoteAddr().String()
	})
	if old != nil {
		old.close()
	}
	c.serves(r, true)
	defer s.transfer.disconnected(r, c)
	s.o.Logger.Info("Apache slave attached", "remote", c.conn.RemoteAddr(), "from", pos)
	if s.o.Engine.Flush == engine.SyncFlush && s.transfer.sync.Load() {
		s.o.Logger.Warn("an Apache slave does not say what it has synced: under SYNC_FLUSH and SYNC_MASTER its acks do not count, and it is no copy", "remote", c.conn.RemoteAddr())
	}
	g := run.New(ctx, "ha/stock slave")
	defer func() {
		c.close()
		g.Cancel()
		_ = g.Wait() // what ended it the reader has seen too
		s.o.Logger.Info("Apache slave gone", "remote", c.conn.RemoteAddr())
	}()
	g.Go("sender", func(ctx context.Context) error {
		defer c.close()
		return s.sendStock(ctx, c, pos)
	})
	return s.takeReports(c, end)
}

// takeReports reads where a stock slave stands. The newest of those at hand counts.
func (s *Service) takeReports(c *peerConn, last int64) error {
	var b [stockReportBytes]byte
	for {
		if _, err := io.ReadFull(c.br, b[:]); err != nil {
			return err
		}
		c.heard.Store(s.hops.now())
		if c.br.Buffered() >= stockReportBytes {
			continue
		}
		end := int64(binary.BigEndian.Uint64(b[:]))
		if end < 0 || end > c.sent.Load() || end < last {
			return fmt.Errorf("report of %d after %d; sent was up to %d: forged, or not a copy", end, last, c.sent.Load())
		}
		last = end
		c.times.acked(&s.hops, end, 0)
		s.transfer.acked(c.replica, c, end, 0, 0)
	}
}

// sendStock streams the log from pos on in Apache's frames.
func (s *Service) sendStock(ctx context.Context, c *peerConn, pos int64) error {
	for {
		if err := s.WaitRaw(ctx, pos, engine.UptoWritten); err != nil {
			return err
		}
		r, err := s.ReadRaw(pos, s.o.StockBatch, engine.UptoWritten)
		if err != nil {
			return err
		}
		n := len(r.Bytes)
		if err := s.pace.take(ctx, n); err != nil {
			r.Release()
			return err
		}
		c.writing.Lock()
		c.sent.Store(pos + int64(n))
		c.times.add(pos+int64(n), s.hops.now())
		err = c.writeRaw(appendStockHeader(c.head[:0], pos, n), r.Bytes)
		c.writing.Unlock()
		r.Release()
		if err != nil {
			return err
		}
		pos += int64(n)
		c.replica.bytesOut.Add(int64(n))
	}
}

// admits says whether a stock slave may come from there.
func (s *Service) admits(remote net.Addr) (host string, ok bool) {
	ap, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return remote.String(), false
	}
	addr := ap.Addr().Unmap()
	for _, p := range s.stockPeers {
		if p.Contains(addr) {
			return addr.String(), true
		}
	}
	return addr.String(), false
}

// followStock follows an Apache master: c has sent -1, and no greeting has come.
func (s *Service) followStock(ctx context.Context, c *peerConn) error {
	s.o.Logger.Info("no greeting: taken for an Apache master", "remote", c.conn.RemoteAddr(), "from", s.Written())
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	s.mu.Lock()
	s.mTold = false
	s.mu.Unlock()
	var mu sync.Mutex
	report := func() error {
		mu.Lock()
		defer mu.Unlock()
		_, err := c.conn.Write(stockReport(s.Written()))
		return err
	}
	if err := report(); err != nil {
		return err
	}
	g := run.New(ctx, "ha/follow stock")
	defer func() {
		c.close()
		g.Cancel()
		_ = g.Wait() // what ended it the reader has seen too
	}()
	g.Go("reports", func(ctx context.Context) error {
		tick := time.NewTicker(s.o.StockBeat)
		defer tick.Stop()
		defer c.close()
		for {
			select {
			case <-tick.C:
				if err := report(); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	var head [stockHeaderBytes]byte
	for {
		if _, err := io.ReadFull(c.br, head[:]); err != nil {
			return err
		}
		pos, n, err := parseStockHeader(head[:])
		if err != nil {
			return err
		}
		c.heard.Store(s.hops.now())
		body, err := c.readBody(n)
		if err != nil {
			return err
		}
		if err := s.applyStock(ctx, pos, body); err != nil {
			return err
		}
		if n > 0 {
			if err := report(); err != nil {
				return err
			}
		}
	}
}

// applyStock writes log bytes of an Apache master; readers see what has come.
func (s *Service) applyStock(ctx context.Context, pos int64, body []byte) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.Role() != replication.Follower {
		return errAgain
	}
	end := s.Written()
	if end == s.Min() && pos != end && len(body) > 0 {
		if err := s.restart(ctx, pos); err != nil {
			return err
		}
		end = pos
	}
	if pos != end && end > 0 {
		return fmt.Errorf("the Apache master is at %d, this log ends at %d: it is not a copy, or is ahead; move its directory away to fill it from the master", pos, end)
	}
	s.mu.Lock()
	s.lastSeen = lastSeen{end: pos + int64(len(body)), at: time.Now()}
	s.mu.Unlock()
	if len(body) == 0 {
		return nil
	}
	if err := s.WriteRaw(ctx, pos, body); err != nil {
		return err
	}
	s.SetConfirm(s.Written())
	return nil
}
