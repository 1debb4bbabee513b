package probe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"rmq/results"
)

const (
	requestBytes  = 1 << 10
	responseBytes = 100
	pipelineConns = 8
	pipelineDepth = 64
)

// measureLoopback finds the round trip of a 1 KiB request and a 100 B response over loopback
// TCP, and the rate of eight connections with 64 requests in flight each, both ends in this
// process. Both ends flush only when nothing more is buffered to read.
func (s *session) measureLoopback(ctx context.Context, slice time.Duration) error {
	part := parts(slice, 2)
	h, err := s.roundTrips(ctx, part(0))
	if err != nil {
		return err
	}
	s.addLatency(results.LimitLoopbackRTT, h)
	return s.pipelined(ctx, part(1))
}

// loopback runs serve on n accepted connections and drive on their other ends. Every serve ends
// when its drive has closed the connection, or when ctx ends.
func (s *session) loopback(ctx context.Context, n int, serve func(net.Conn) error, drive func(ctx context.Context, i int, c net.Conn) error) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // nothing of it is kept
	clients, servers := make([]net.Conn, n), make([]net.Conn, n)
	var d net.Dialer
	for i := range n {
		if clients[i], err = d.DialContext(ctx, "tcp", l.Addr().String()); err != nil {
			return err
		}
		defer func() { _ = clients[i].Close() }() // nothing of it is kept
		if servers[i], err = l.Accept(); err != nil {
			return err
		}
		defer func() { _ = servers[i].Close() }() // nothing of it is kept
	}
	stop := context.AfterFunc(ctx, func() {
		for i := range n {
			_, _ = clients[i].Close(), servers[i].Close()
		}
	})
	defer stop()
	g := s.group(ctx, "loopback")
	for i := range n {
		g.Go("server", func(context.Context) error {
			if err := serve(servers[i]); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
				return err
			}
			return nil
		})
		g.Go("client", func(context.Context) error {
			defer func() { _ = clients[i].Close() }() // nothing of it is kept
			if err := drive(ctx, i, clients[i]); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *session) roundTrips(ctx context.Context, until time.Time) (*hist, error) {
	h := new(hist)
	serve := func(c net.Conn) error {
		in, out := make([]byte, requestBytes), make([]byte, responseBytes)
		for {
			if _, err := io.ReadFull(c, in); err != nil {
				return err
			}
			if _, err := c.Write(out); err != nil {
				return err
			}
		}
	}
	drive := func(ctx context.Context, _ int, c net.Conn) error {
		in := make([]byte, responseBytes)
		for last := time.Now(); ctx.Err() == nil; {
			if _, err := c.Write(s.block[:requestBytes]); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, in); err != nil {
				return err
			}
			now := time.Now()
			h.add(now.Sub(last))
			last = now
			if !now.Before(until) {
				return nil
			}
		}
		return nil
	}
	return h, s.loopback(ctx, 1, serve, drive)
}

func (s *session) pipelined(ctx context.Context, until time.Time) error {
	hists := make([]*hist, pipelineConns)
	for i := range hists {
		hists[i] = new(hist)
	}
	start := time.Now()
	drive := func(ctx context.Context, i int, c net.Conn) error { return s.drivePipeline(ctx, hists[i], c, until) }
	if err := s.loopback(ctx, pipelineConns, servePipeline, drive); err != nil {
		return err
	}
	took := time.Since(start)
	var all hist
	for _, h := range hists {
		all.merge(h)
	}
	s.addTimed(results.LimitLoopbackRate, "1/s", rate(all.n, took), &all)
	return nil
}

func servePipeline(c net.Conn) error {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	out := make([]byte, responseBytes)
	for {
		if r.Buffered() < requestBytes {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if _, err := r.Peek(requestBytes); err != nil {
			return err
		}
		if _, err := r.Discard(requestBytes); err != nil {
			return err
		}
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
}

// drivePipeline keeps the window of one connection full: as many new requests go out in one
// write as responses came in by one read.
func (s *session) drivePipeline(ctx context.Context, h *hist, c net.Conn, until time.Time) error {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	var sent [pipelineDepth]time.Time
	now := time.Now()
	for i := range sent {
		sent[i] = now
		if _, err := w.Write(s.block[:requestBytes]); err != nil {
			return err
		}
	}
	for i := 0; ; i = (i + 1) % pipelineDepth {
		if r.Buffered() < responseBytes {
			if err := w.Flush(); err != nil {
				return err
			}
			if _, err := r.Peek(responseBytes); err != nil {
				return err
			}
			if now = time.Now(); h.n > 0 && !now.Before(until) || ctx.Err() != nil {
				return nil //nolint:nilerr // the probe ends with its context
			}
		}
		if _, err := r.Discard(responseBytes); err != nil {
			return err
		}
		h.add(now.Sub(sent[i]))
		sent[i] = now
		if _, err := w.Write(s.block[:requestBytes]); err != nil {
			return err
		}
	}
}
