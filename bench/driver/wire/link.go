package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/run"
)

// Link is one way from a node to another: a proxy that the first one dials instead of the second. What it does to bytes
// it does in both directions of the connections made over it. A cut link swallows bytes and lets no connection
// through, as a lost network does: "refused" would mean that the other process is dead.
type Link struct {
	From, To string // ids of nodes

	to    string // address
	l     net.Listener
	g     *run.Group
	cut   atomic.Bool
	delay atomic.Int64 // ns

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ended bool
}

// makeLinks puts a link on every way between two nodes, on ports from first on, and tells the nodes of them.
func (c *Cluster) makeLinks(ctx context.Context, first int) error {
	for i, from := range c.Nodes {
		var dial []string
		for j, to := range c.Nodes {
			if i == j {
				continue
			}
			l, err := newLink(ctx, from.ID, to.ID, to.Peer, "127.0.0.1:"+strconv.Itoa(first+i*len(c.Nodes)+j))
			if err != nil {
				return err
			}
			c.links = append(c.links, l)
			at := l.l.Addr().String()
			dial = append(dial, to.Peer+"="+at)
		}
		from.env = append(from.env, "RMQ_FAULT_DIAL="+strings.Join(dial, ","))
	}
	return nil
}

// Links are the ways from and to a node, or all of them for "".
func (c *Cluster) Links(id string) (ls []*Link) {
	for _, l := range c.links {
		if id == "" || l.From == id || l.To == id {
			ls = append(ls, l)
		}
	}
	return ls
}

func newLink(ctx context.Context, from, to, toAddr, at string) (*Link, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	k := &Link{From: from, To: to, to: toAddr, l: l, conns: map[net.Conn]struct{}{}}
	k.g = run.New(context.Background(), "link/"+from+"-"+to)
	k.g.Go("accept", func(context.Context) error { return k.accept() })
	return k, nil
}

// Cut makes the link swallow everything, or lets bytes pass again.
func (k *Link) Cut(yes bool) {
	k.cut.Store(yes)
	if !yes {
		k.drop() // what was swallowed is missing from these
	}
}

// Delay holds all bytes back by d, each way.
func (k *Link) Delay(d time.Duration) { k.delay.Store(int64(d)) }

func (k *Link) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.Close() // its reader sees it
	}
}

// keep notes a connection that has to be closed with the link; false if that is closed already.
func (k *Link) keep(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		_ = c.Close() // nobody has used it
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *Link) forget(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	_ = c.Close() // both ends are done with it
}

func (k *Link) accept() error {
	for {
		in, err := k.l.Accept()
		if err != nil {
			return nil //nolint:nilerr // the link is closed
		}
		if k.keep(in) {
			k.g.Go("conn", func(ctx context.Context) error { k.serve(ctx, in); return nil })
		}
	}
}

// serve carries one connection.
func (k *Link) serve(ctx context.Context, in net.Conn) {
	defer k.forget(in)
	if k.cut.Load() {
		_, _ = io.Copy(io.Discard, in) // until the link comes back, or the dialer has had enough
		return
	}
	var d net.Dialer
	out, err := d.DialContext(ctx, "tcp", k.to)
	if err != nil {
		// The other process is dead: say so the way the kernel would.
		if tcp, ok := in.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset instead of an end
		}
		return
	}
	if !k.keep(out) {
		return
	}
	defer k.forget(out)
	g := run.New(ctx, "link/conn")
	g.Go("there", func(context.Context) error { k.carry(out, in); return nil })
	g.Go("back", func(context.Context) error { k.carry(in, out); return nil })
	_ = g.Wait() // neither fails
}

// late is what a delayed direction holds back.
type late struct {
	at time.Time
	b  []byte
}

// carry copies one direction until either end is closed, which closes the other.
func (k *Link) carry(to, from net.Conn) {
	const queue = 1024
	held := make(chan late, queue)
	g := run.New(context.Background(), "link/late")
	g.Go("write", func(context.Context) error {
		failed := false
		for h := range held {
			if wait := time.Until(h.at); wait > 0 {
				time.Sleep(wait)
			}
			if failed || k.cut.Load() {
				continue
			}
			if _, err := to.Write(h.b); err != nil {
				failed = true
				_ = from.Close() // its reader sees it
			}
		}
		_ = to.Close() // nothing more comes
		return nil
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !k.cut.Load() {
			held <- late{time.Now().Add(time.Duration(k.delay.Load())), append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			break
		}
	}
	close(held)
	_ = g.Wait() // it does not fail
}

// close ends the link and everything over it.
func (k *Link) close() error {
	k.mu.Lock()
	k.ended = true
	k.mu.Unlock()
	err := k.l.Close()
	k.drop()
	k.g.Cancel()
	if e := k.g.Wait(); e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("link %s to %s: %w", k.From, k.To, err)
	}
	return nil
}
