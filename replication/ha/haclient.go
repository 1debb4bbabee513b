package ha

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/replication"
)

const (
	greetingTime = time.Second // a master of ours has greeted by then
	minBackoff   = 20 * time.Millisecond
	maxBackoff   = time.Second
)

var (
	errAgain = errors.New("dial again")
	errStale = errors.New("it leads in an older epoch")
)

// Follow implements [replication.Promoter]. A node that leads takes it for where its former master may be.
func (s *Service) Follow(haAddr, clientAddr string) {
	s.mu.Lock()
	if haAddr == "" {
		if haAddr = s.master; s.mTold {
			clientAddr = s.mClient
		}
	}
	same := s.master == haAddr && s.mClient == clientAddr
	if s.Role() == replication.Follower && haAddr != s.o.Advertise {
		s.mTold = s.mTold && same
		s.master, s.mClient = haAddr, clientAddr
	}
	s.mu.Unlock()
	if !same {
		s.changed()
		wake(s.turn)
	}
}

// follow follows the master while this node is a slave.
func (s *Service) follow(ctx context.Context) error {
	wait := minBackoff
	last := ""
	for ctx.Err() == nil {
		s.mu.Lock()
		addr := s.master
		s.mu.Unlock()
		if s.Role() != replication.Follower || addr == "" || addr == s.o.Advertise {
			select {
			case <-s.turn:
			case <-ctx.Done():
			}
			continue
		}
		err := s.session(ctx, addr)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it ended because the node closes
		}
		if errors.Is(err, errAgain) {
			wait = minBackoff
			continue
		}
		if text := fmt.Sprint(err); text != last {
			s.o.Logger.Warn("the master is not followed: it will be tried again", "master", addr, "err", err)
			last = text
		}
		if errors.Is(err, io.EOF) {
			wait = minBackoff
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.turn:
		case <-ctx.Done():
		}
		t.Stop()
		wait = min(2*wait, maxBackoff)
	}
	return nil
}

// session follows the master at addr over one connection.
func (s *Service) session(ctx context.Context, addr string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := s.o.Dial(ctx, addr)
	if err != nil {
		return err
	}
	c := newPeerConn(s, conn)
	defer c.close()
	if !c.track() {
		return nil
	}
	defer c.untrack()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	if _, err := conn.Write(ownPreamble[:]); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(greetingTime)); err != nil {
		return err
	}
	if _, err := c.br.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
		return s.followStock(ctx, c)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * handshakeTime)); err != nil {
		return err
	}
	if h, _, err := c.read(); err != nil || h.Type != FrameGreeting {
		return fmt.Errorf("no greeting, %w: what answers there is no replication port of a master, which is its haListenPort, listenPort + 1 unless set; check haMasterAddress",
			cmp.Or(err, ErrNotOurs))
	}
	me, err := s.hello()
	if err != nil {
		return err
	}
	if err := c.writeJSON(FrameHello, me); err != nil {
		return err
	}
	h, body, err := c.read()
	if err != nil {
		return err
	}
	switch h.Type {
	case FrameRefuse:
		return fmt.Errorf("the master refuses: %s", body)
	case FrameWelcome:
	default:
		return fmt.Errorf("%v where a welcome is expected", h.Type)
	}
	w, err := parseWelcome(body)
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return s.obey(ctx, c, me, w, h.Group)
}

// obey does what the welcome says, after it has come to the same conclusion itself.
func (s *Service) obey(ctx context.Context, c *peerConn, me Hello, w Welcome, group uint64) error {
	switch w.Do {
	case StepRedirect:
		if w.Leader == "" || w.Leader == s.o.Advertise {
			return fmt.Errorf("%s does not lead and knows nobody who does", w.ID)
		}
		s.Follow(w.Leader, w.LeaderClient)
		return fmt.Errorf("%s does not lead: %s may", w.ID, w.Leader)
	case StepNone:
		return errStale
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.Role() != replication.Follower {
		return errAgain
	}
	s.mu.Lock()
	own := s.rec.Group
	s.mu.Unlock()
	want := decide(side{w.Hello, group}, side{me, own})
	switch {
	case want.Ahead && w.Do == StepPull:
		return s.giveBack(c, w.Pos)
	case want.Refuse != "":
		return errors.New(want.refusal())
	case want.Demote:
		return errStale
	case want.Do != w.Do || want.Pos != w.Pos:
		return fmt.Errorf("%s says %s at %d, which does not follow from what both hold (%s at %d): nothing is done", w.ID, w.Do, w.Pos, want.Do, want.Pos)
	}
	s.mu.Lock()
	rec := s.rec
	rec.Group, rec.Mode = group, w.Mode
	if m, err := replication.ParseMode(w.Mode); err == nil {
		s.mode = m
	}
	s.mID, s.mClient, s.mTold = w.ID, w.Client, true
	rec.Leader, rec.Client = w.Listen, w.Client
	s.mu.Unlock()
	switch w.Do {
	case StepTruncate:
		s.o.Logger.Warn("the tail of this log is of an older epoch: it goes to quarantine", "from", w.Pos, "bytes", me.End-w.Pos, "master", w.ID)
		if err := s.cutTo(ctx, w.Pos); err != nil {
			return err
		}
		rec.Epochs = rec.Epochs.upTo(w.Pos)
	case StepRestart:
		s.o.Logger.Warn("the master has expired what comes next: this log begins anew", "ends", me.End, "begins", w.Pos, "master", w.ID)
		if err := s.restart(ctx, w.Pos); err != nil {
			return err
		}
		rec.Epochs = nil
	case StepStream:
		rec.Epochs = w.Epochs.upTo(w.Pos)
	}
	s.mu.Lock()
	err := s.saveLocked(rec)
	s.transfer.group.Store(group)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if w.Do != StepStream {
		return errAgain
	}
	s.changed()
	s.o.Logger.Info("following", "master", w.ID, "from", w.Pos, "epoch", w.Epochs.Last(), "behind", w.End-w.Pos)
	s.applying.Unlock()
	defer s.applying.Lock()
	return s.stream(ctx, c, w)
}

// restart begins an empty log at pos; what there was goes to quarantine.
func (s *Service) restart(ctx context.Context, pos int64) error {
	if low := s.Min(); s.Written() > low {
		if err := s.Retract(ctx, low); err != nil {
			return err
		}
	}
	s.SetConfirm(pos)
	return s.ResetTo(pos)
}

// giveBack sends what a master in the same epoch has lost.
func (s *Service) giveBack(c *peerConn, pos int64) error {
	for end := s.Written(); pos < end; {
		r, err := s.ReadRaw(pos, int(min(MaxDataBytes, end-pos)), engine.UptoWritten)
		if err != nil {
			return err
		}
		h := c.header(FrameData)
		h.Pos = pos
		err = c.write(h, r.Bytes)
		pos += int64(len(r.Bytes))
		r.Release()
		if err != nil {
			return err
		}
	}
	_, _ = c.br.ReadByte() // until the master has it all and closes
	return errAgain
}

// HAClient is one stream from a master, as its slave sees it.
type HAClient struct {
	s       *Service
	c       *peerConn
	group   uint64
	epoch   int64 // of the master
	epochs  Epochs
	durable bool // acks count once synced

	unacked int // of the reader
	meta    atomic.Int64
}

// stream takes what the master sends until the connection ends.
func (s *Service) stream(ctx context.Context, c *peerConn, w Welcome) error {
	hc := &HAClient{s: s, c: c, group: s.transfer.group.Load(), epoch: w.Epochs.Last(), epochs: w.Epochs, durable: w.Durable}
	c.limit = FrameMeta.maxBody()
	g := run.New(ctx, "ha/follow")
	defer func() {
		c.close()
		g.Cancel()
		_ = g.Wait() // what ended it the reader has seen too
	}()
	if w.Durable {
		g.Go("syncer", func(ctx context.Context) error {
			defer c.close()
			return hc.syncs(ctx)
		})
	}
	if err := hc.ack(); err != nil {
		return err
	}
	for {
		h, body, err := c.read()
		if err != nil {
			return err
		}
		if h.Group != hc.group || h.Epoch > hc.epoch {
			return fmt.Errorf("%v of group %016x, epoch %d, on a stream of %016x, %d", h.Type, h.Group, h.Epoch, hc.group, hc.epoch)
		}
		if err := hc.take(ctx, h, body); err != nil {
			return err
		}
	}
}

// take applies one frame.
func (hc *HAClient) take(ctx context.Context, h Header, body []byte) error {
	s := hc.s
	switch h.Type {
	case FrameData:
	case FrameMeta:
		name, doc, err := parseMeta(body)
		if err != nil {
			return err
		}
		if s.o.Events.Meta != nil {
			s.o.Events.Meta(name, append([]byte(nil), doc...))
		}
		hc.meta.Store(h.End)
		return hc.ack()
	case FrameBye:
		s.mu.Lock()
		s.lastSeen = lastSeen{end: h.End, at: time.Now(), needed: h.Flags&FlagNeeded != 0, bye: true}
		s.mu.Unlock()
		return nil
	case FrameRefuse:
		return fmt.Errorf("the master refuses: %s", body)
	default:
		return fmt.Errorf("%v in a stream", h.Type)
	}
	if err := hc.apply(ctx, h, body); err != nil {
		return err
	}
	hc.unacked += len(body)
	if hc.c.br.Buffered() >= HeaderBytes && hc.unacked < MaxDataBytes {
		return nil // more is here: one ack for all
	}
	hc.unacked = 0
	return hc.ack()
}

// apply writes log bytes at their place.
func (hc *HAClient) apply(ctx context.Context, h Header, body []byte) error {
	s := hc.s
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.Role() != replication.Follower {
		return errAgain
	}
	now := time.Now()
	s.mu.Lock()
	s.lastSeen = lastSeen{end: h.End, at: now, needed: h.Flags&FlagNeeded != 0}
	var err error
	if last := s.rec.Epochs.Last(); len(body) > 0 && h.Epoch != last {
		if h.Epoch < last {
			err = fmt.Errorf("bytes of epoch %d, this log is in %d: %w", h.Epoch, last, errStale)
		} else {
			rec := s.rec
			rec.Epochs = rec.Epochs.add(hc.reign(h))
			err = s.saveLocked(rec)
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if h.Pos != s.Written() {
		return fmt.Errorf("bytes at %d, this log ends at %d: %w", h.Pos, s.Written(), errAgain)
	}
	if len(body) > 0 {
		if err := s.WriteRaw(ctx, h.Pos, body); err != nil {
			return err
		}
	}
	s.SetConfirm(min(h.Confirm, s.Written()))
	return nil
}

// reign is the one in which the bytes of a frame, the first of theirs here, were written.
func (hc *HAClient) reign(h Header) Epoch {
	for _, e := range hc.epochs {
		if e.Epoch == h.Epoch && e.Start == h.Pos {
			return e
		}
	}
	return Epoch{Epoch: h.Epoch, Start: h.Pos, By: hc.s.mID}
}

// ack tells the master how far this log has come.
func (hc *HAClient) ack() error {
	s := hc.s
	flushed := s.Flushed() // before written
	return hc.c.write(Header{Type: FrameAck, Group: hc.group, Epoch: hc.epoch, Pos: s.Written(), Confirm: flushed, End: hc.meta.Load()}, nil)
}

// syncs syncs whatever is written, whatever flushDiskType says here, and tells the master.
func (hc *HAClient) syncs(ctx context.Context) error {
	s := hc.s
	for {
		if err := s.WaitRaw(ctx, s.Flushed(), engine.UptoWritten); err != nil {
			return err
		}
		if err := s.Flush(ctx); err != nil {
			return err
		}
		if err := hc.ack(); err != nil {
			return err
		}
	}
}

// announcePeriod is how often a master in whose place a node was promoted is called: one that is started again takes
// messages, and shows them to consumers, until it has heard.
const announcePeriod = 100 * time.Millisecond

// announce tells the master in whose place this node was promoted, until it has heard.
func (s *Service) announce(ctx context.Context) error {
	t := time.NewTicker(announcePeriod)
	defer t.Stop()
	for {
		s.mu.Lock()
		former := s.rec.Former
		s.mu.Unlock()
		if s.Role() == replication.Leader && former != "" && former != s.o.Advertise && s.announceTo(ctx, former) == nil {
			s.mu.Lock()
			rec := s.rec
			rec.Former = ""
			err := s.saveLocked(rec)
			s.mu.Unlock()
			if err != nil {
				s.o.Logger.Error("epoch file cannot be saved", "err", err)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) announceTo(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := s.o.Dial(ctx, addr)
	if err != nil {
		return err
	}
	c := newPeerConn(s, conn)
	defer c.close()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	if _, err := conn.Write(ownPreamble[:]); err != nil {
		return err
	}
	if h, _, err := c.read(); err != nil || h.Type != FrameGreeting {
		return errors.Join(err, ErrNotOurs)
	}
	me, err := s.hello()
	if err != nil {
		return err
	}
	if err := c.writeJSON(FrameAnnounce, me); err != nil {
		return err
	}
	h, body, err := c.read()
	if err == nil && h.Type == FrameRefuse {
		s.o.Logger.Warn("the former master refuses to follow", "addr", addr, "why", string(body))
		err = net.ErrClosed
	}
	return err
}

func readFull(c *peerConn, b []byte) (int, error) { return io.ReadFull(c.br, b) }
