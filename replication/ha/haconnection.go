package ha

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/message"
	"rmq/replication"
)

const (
	handshakeTime = 5 * time.Second
	stockSilence  = 6 * time.Second // a stock slave may take 5 s to speak
	maxGuests     = 64              // connections that have not said who they are
	confirmDelay  = 5 * time.Millisecond
)

// accept takes connections, and a goroutine for each.
func (s *Service) accept(ctx context.Context) error {
	guests := make(chan struct{}, maxGuests)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil //nolint:nilerr // the node closes
			}
			s.o.Logger.Error("replication port", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond): // out of descriptors, most likely
				continue
			}
		}
		select {
		case guests <- struct{}{}:
		default:
			s.audit(conn.RemoteAddr(), "", fmt.Sprintf("%d connections have not said who they are", maxGuests), "keep strangers from the port")
			_ = conn.Close() // a stranger
			continue
		}
		known := false
		leave := func() {
			if !known {
				known = true
				<-guests
			}
		}
		s.group.Go("connection", func(ctx context.Context) error {
			defer leave()
			c := newPeerConn(s, conn)
			defer c.close()
			if !c.track() {
				return nil
			}
			defer c.untrack()
			stop := context.AfterFunc(ctx, c.close)
			defer stop()
			if err := s.serve(ctx, c, leave); err != nil && !ended(ctx, err) {
				s.audit(conn.RemoteAddr(), c.id(), err.Error(), "check what speaks to the replication port from there")
			}
			return nil
		})
	}
}

func (c *peerConn) id() string {
	if c.replica == nil {
		return ""
	}
	return c.replica.id
}

// serve speaks with who has dialled; known is called once it is clear who that is.
func (s *Service) serve(ctx context.Context, c *peerConn, known func()) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(stockSilence)); err != nil {
		return err
	}
	var first [stockReportBytes]byte
	if _, err := readFull(c, first[:]); err != nil {
		return err
	}
	if first != ownPreamble {
		return s.serveStock(ctx, c, first, known)
	}
	if err := c.write(c.header(FrameGreeting), nil); err != nil {
		return err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	h, body, err := c.read()
	if err != nil {
		return err
	}
	if h.Type != FrameHello && h.Type != FrameAnnounce {
		return fmt.Errorf("%v where a hello is expected", h.Type)
	}
	hello, err := parseHello(body)
	if err != nil {
		return err
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	known()
	return s.meet(ctx, c, h, side{hello, h.Group})
}

// meet answers a hello.
func (s *Service) meet(ctx context.Context, c *peerConn, h Header, peer side) error {
	if h.Type == FrameHello && peer.Epochs.Last() <= s.epochs.Load().Last() {
		if err := s.held(ctx, peer); err != nil {
			return err
		}
	}
	own, err := s.hello()
	if err != nil {
		return err
	}
	s.mu.Lock()
	me := side{own, s.rec.Group}
	mode := s.mode
	s.mu.Unlock()
	got := decide(me, peer)
	w := Welcome{Hello: own, Do: got.Do, Pos: got.Pos, Mode: mode.String(), Durable: mode == replication.Sync && s.o.Engine.Flush == engine.SyncFlush,
		Heartbeat: s.o.Heartbeat.Milliseconds()}
	role := s.Role()
	switch {
	case got.Refuse != "":
	case got.Demote && role != replication.Follower:
		if err := s.demote(peer.Epochs.Last(), peer.Leader, peer.LeaderClient); err != nil {
			return err
		}
		if peer.Epochs.newest().By == me.ID {
			s.forgotReign(me, peer)
		}
		w.Do = StepNone
		return c.writeJSON(FrameWelcome, w)
	case h.Type == FrameAnnounce && role != replication.Follower:
		got = refuse("make one of them a slave", "%s announces epoch %d, %s leads in epoch %d: two masters of one name", peer.ID, peer.Epochs.Last(), me.ID, me.Epochs.Last())
	case h.Type == FrameAnnounce:
		if peer.Epochs.Last() >= me.Epochs.Last() {
			s.Follow(peer.Leader, peer.LeaderClient)
		}
		w.Do = StepNone
		return c.writeJSON(FrameWelcome, w)
	case role == replication.Follower:
		w.Do = StepRedirect
		return c.writeJSON(FrameWelcome, w)
	case got.Ahead && role == replication.Leader:
		got = refuse(aheadFix(me, peer), "%s holds the log up to %d, %s, its master in the same epoch %d, up to %d: the master has lost what comes behind, and it is not cut from the slave",
			peer.ID, peer.End, me.ID, me.Epochs.Last(), me.End)
	}
	if got.Refuse == "" && got.Do == StepStream && peer.CheckLen > 0 {
		if from := peer.End - int64(peer.CheckLen); from >= me.Min {
			sum, err := s.checksum(from, peer.End)
			if err != nil {
				return err
			}
			if sum != peer.CheckCRC {
				got = refuse(whoseCopy(me, peer), "the logs of %s and %s differ before %d though their epochs agree: one is not a copy of the other", peer.ID, me.ID, peer.End)
			}
		}
	}
	if got.Refuse != "" {
		s.audit(c.conn.RemoteAddr(), peer.ID, got.Refuse, got.Fix)
		c.refuse(got.refusal())
		return nil
	}
	if role == replication.ReadOnly {
		return s.reconcile(ctx, c, w, peer, got)
	}
	if err := c.writeJSON(FrameWelcome, w); err != nil || w.Do != StepStream {
		return err
	}
	return s.replicate(ctx, c, peer, w.Pos)
}

// forgotReign says that this node, which has just stopped leading, has led in an epoch that only peer knows of.
func (s *Service) forgotReign(me, peer side) {
	what := fmt.Sprintf("%s holds the log up to %d, in epoch %d in which %s led and of which it knows nothing: an older copy of its directory was put back, and it takes no messages", peer.ID, peer.End, peer.Epochs.Last(), me.ID)
	fix := fmt.Sprintf("promote %s (mqadmin promote -b %s): this node follows it then", peer.ID, peer.Client)
	s.mu.Lock()
	s.why = what + ": " + fix
	s.mu.Unlock()
	s.audit(nil, peer.ID, what, fix)
	s.changed()
}

// replicate streams to a slave from pos on, and takes its acks, until the connection ends.
func (s *Service) replicate(ctx context.Context, c *peerConn, peer side, pos int64) error {
	if err := s.noteReplica(peer.ID); err != nil {
		return err
	}
	c.sent.Store(pos)
	r, old := s.transfer.connected(peer.ID, c, func(r *replica) {
		r.written, r.client, r.addr = pos, peer.Client, peer.Listen
	})
	if old != nil {
		s.o.Logger.Warn("a slave has connected again: its older connection is closed, both count once", "id", peer.ID,
			"fix", "if this goes on, two nodes have one id")
		old.close()
	}
	c.serves(r, false)
	defer s.transfer.disconnected(r, c)
	s.o.Logger.Info("slave attached", "id", peer.ID, "from", pos, "behind", s.Written()-pos)
	g := run.New(ctx, "ha/slave")
	defer func() {
		c.close()
		g.Cancel()
		_ = g.Wait() // what ended them the reader has seen too
		s.o.Logger.Info("slave gone", "id", peer.ID)
	}()
	for name, f := range map[string]func(context.Context) error{
		"sender":  func(ctx context.Context) error { return s.send(ctx, c, pos) },
		"confirm": func(ctx context.Context) error { return s.sendConfirm(ctx, c) },
		"meta":    func(ctx context.Context) error { return s.sendMeta(ctx, c) },
	} {
		g.Go(name, func(ctx context.Context) error {
			defer c.close()
			return f(ctx)
		})
	}
	return s.takeAcks(c)
}

// takeAcks reads acks. One that says more than was sent comes from a stranger.
func (s *Service) takeAcks(c *peerConn) error {
	c.limit = 0
	for {
		h, _, err := c.read()
		if err != nil {
			return err
		}
		switch {
		case h.Type != FrameAck:
			return fmt.Errorf("%v where an ack is expected", h.Type)
		case h.Group != s.transfer.group.Load() || h.Epoch != s.epochs.Load().Last():
			return fmt.Errorf("ack for group %016x, epoch %d; this is %016x, %d", h.Group, h.Epoch, s.transfer.group.Load(), s.epochs.Load().Last())
		case h.Pos > c.sent.Load() || h.Confirm > h.Pos || h.End > c.metaSent.Load():
			return fmt.Errorf("ack of %d written, %d durable, %d documents; sent were %d and %d: forged", h.Pos, h.Confirm, h.End, c.sent.Load(), c.metaSent.Load())
		}
		c.times.acked(&s.hops, h.Pos, h.Confirm)
		s.transfer.acked(c.replica, c, h.Pos, h.Confirm, h.End)
	}
}

// send streams the log from pos on. Appends wake it.
func (s *Service) send(ctx context.Context, c *peerConn, pos int64) error {
	for {
		if err := s.WaitRaw(ctx, pos, engine.UptoWritten); err != nil {
			return err
		}
		limit := int64(MaxDataBytes)
		if _, next := s.epochs.Load().At(pos); next-pos < limit {
			limit = next - pos // a frame is of one epoch
		}
		r, err := s.ReadRaw(pos, int(limit), engine.UptoWritten)
		if err != nil {
			return err
		}
		n := len(r.Bytes)
		if err := s.pace.take(ctx, n); err != nil {
			r.Release()
			return err
		}
		end := pos + int64(n)
		began := s.hops.now()
		c.writing.Lock()
		c.sent.Store(end) // no sign of life may speak of it first
		c.times.add(end, began)
		err = c.writeLocked(c.dataHeader(pos), r.Bytes)
		c.writing.Unlock()
		r.Release()
		if err != nil {
			return err
		}
		s.hops.send.add(s.hops.now() - began)
		c.replica.bytesOut.Add(int64(n))
		pos = end
	}
}

// sendConfirm tells what readers may see by now when no log bytes carry the news.
func (s *Service) sendConfirm(ctx context.Context, c *peerConn) error {
	t := time.NewTimer(confirmDelay)
	defer t.Stop()
	for {
		if err := s.WaitVisible(ctx, c.confirmed.Load()+1); err != nil {
			return err
		}
		t.Reset(confirmDelay)
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		c.writing.Lock()
		var err error
		if c.confirmed.Load() < s.Visible() {
			err = c.writeLocked(c.dataHeader(c.sent.Load()), nil)
		}
		c.writing.Unlock()
		if err != nil {
			return err
		}
	}
}

// sendMeta sends documents.
func (s *Service) sendMeta(ctx context.Context, c *peerConn) error {
	var seq int64
	var body []byte
	for {
		if err := s.docs.mark.Wait(ctx, seq+1); err != nil {
			return err
		}
		for _, d := range s.docs.since(seq) {
			seq = d.seq
			c.metaSent.Store(seq)
			body = appendMeta(body[:0], d.name, d.doc)
			h := Header{Type: FrameMeta, Group: s.transfer.group.Load(), Epoch: s.epochs.Load().Last(), Pos: c.sent.Load(), End: seq}
			if err := c.write(h, body); err != nil {
				return err
			}
		}
	}
}

// reconcile hears what a slave holds while this node is read-only, and takes over what it has lost
// itself. When enough have been heard it leads.
func (s *Service) reconcile(ctx context.Context, c *peerConn, w Welcome, peer side, got outcome) error {
	if got.Ahead {
		w.Do, w.Pos = StepPull, got.Pos
	}
	if err := c.writeJSON(FrameWelcome, w); err != nil {
		return err
	}
	if got.Ahead {
		if err := s.pull(ctx, c, peer); err != nil {
			return fmt.Errorf("pull from %s: %w", peer.ID, err)
		}
	} else if w.Do != StepStream {
		return nil // it will come again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported[peer.ID] = true
	n := 0
	for _, id := range s.rec.Replicas {
		if s.reported[id] {
			n++
		}
	}
	if s.Role() != replication.ReadOnly || n < s.mustHear() {
		return nil
	}
	s.o.Logger.Info("what slaves hold is known, and held here as well", "end", s.Written())
	return s.leadLocked(false)
}

// pull takes over what peer has behind the end of this log, verified.
func (s *Service) pull(ctx context.Context, c *peerConn, peer side) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.Role() != replication.ReadOnly {
		return errors.New("the node is read-only no more")
	}
	s.mu.Lock()
	group := s.rec.Group // the streams learn it only from a node that leads
	s.mu.Unlock()
	c.limit = MaxDataBytes
	began := s.Written()
	for s.Written() < peer.End {
		h, body, err := c.read()
		if err != nil {
			return err
		}
		if h.Type != FrameData || h.Group != group || h.Pos != s.Written() || h.Pos+int64(h.Len) > peer.End {
			return fmt.Errorf("%v of group %016x at %d; the log ends at %d", h.Type, h.Group, h.Pos, s.Written())
		}
		if err := s.WriteRaw(ctx, h.Pos, body); err != nil {
			return err
		}
	}
	end, err := s.boundary(began, true)
	if err != nil {
		return errors.Join(err, s.TruncateTo(began))
	}
	if end < s.Written() {
		if err := s.cutTo(ctx, end); err != nil {
			return err
		}
	}
	s.o.Logger.Info("pulled back what this log had lost", "from", peer.ID, "pos", began, "bytes", end-began)
	return s.Flush(ctx)
}

// boundary is the end of the last whole record of the log, which begins at or behind pos, where a
// record begins. With check set checksums and positions are verified.
func (s *Service) boundary(pos int64, check bool) (int64, error) {
	framing, seg, end := s.o.Engine.Framing, s.o.Engine.SegmentBytes, s.Written()
	var buf []byte
	var rec message.Record
	at := pos // of buf
	for pos < end {
		limit := min(end, pos-pos%seg+seg)
		n, kind, err := framing.Next(buf[pos-at:], pos, &rec)
		switch {
		case errors.Is(err, message.ErrShort) && at+int64(len(buf)) < limit:
			if pos > at {
				buf, at = append(buf[:0], buf[pos-at:]...), pos
			}
			r, err := s.ReadRaw(at+int64(len(buf)), int(min(MaxDataBytes, limit-at-int64(len(buf)))), engine.UptoWritten)
			if err != nil {
				return pos, err
			}
			buf = append(buf, r.Bytes...)
			r.Release()
			continue
		case errors.Is(err, message.ErrShort):
			return pos, nil
		case err != nil:
			return pos, fmt.Errorf("at %d: %w", pos, err)
		case kind == engine.FrameBlank:
			if limit < pos-pos%seg+seg {
				return pos, nil // the filling is cut
			}
			pos = limit
			buf, at = buf[:0], pos
			continue
		}
		if check && kind == engine.FrameRecord {
			if err := framing.Check(buf[pos-at:pos-at+int64(n)], pos, &rec); err != nil {
				return pos, fmt.Errorf("record at %d: %w", pos, err)
			}
		}
		pos += int64(n)
	}
	return pos, nil
}

// cutTo takes what stands behind pos out of the log, into quarantine.
func (s *Service) cutTo(ctx context.Context, pos int64) error {
	if pos < s.Visible() {
		return s.Retract(ctx, pos)
	}
	return s.TruncateTo(pos)
}
