package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"rmq/bench"
	"rmq/engine"
	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/replication/raftlog"
)

// Verify implements [bench.Session]: it restarts brokers of ours, pulls every queue from its first offset to its last
// from the one that leads, and once all have stopped reads its log from end to end and compares the others with it. A
// cluster of somebody else's is only pulled.
func (s *session) Verify(ctx context.Context, a *bench.Auditor) error {
	if !s.stored {
		return bench.ErrNothingStored
	}
	s.tail.stop()
	own := s.cluster.own
	if own == nil {
		if err := s.pullAll(ctx, a); err != nil {
			return err
		}
		a.NoScan("the cluster is not ours: its log was not scanned")
		return nil
	}
	if err := own.restart(ctx); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	leader, err := own.Leader(ctx)
	if err != nil {
		return err
	}
	s.cluster.brokers = []string{leader.Addr}
	if err := own.CaughtUp(ctx); err != nil {
		return err
	}
	if err := own.dispatched(ctx, leader); err != nil { // a pull tells what is in a queue, not what is on its way there
		return err
	}
	if err := s.pullAll(ctx, a); err != nil {
		return err
	}
	status, _, _ := own.Status(ctx, leader)
	if err := own.StopNodes(); err != nil {
		return err
	}
	if err := s.scan(ctx, a, leader); err != nil {
		return err
	}
	return own.compareCopies(leader, status.Confirm)
}

// pullAll pulls every queue of every broker, some at a time.
func (s *session) pullAll(ctx context.Context, a *bench.Auditor) error {
	queues := s.cell.Cell.Queues
	each := len(s.cell.Topics) * queues
	g := run.New(ctx, "wire/verify")
	var next atomic.Int64
	for i := range min(pullers, each) {
		g.Go(fmt.Sprintf("pull-%d", i), func(ctx context.Context) error {
			conns := map[string]*remoting.Conn{}
			for {
				n := int(next.Add(1)) - 1
				if n >= each*len(s.cluster.brokers) {
					return nil
				}
				broker, topic, queue := s.cluster.brokers[n/each], s.cell.Topics[n%each/queues], int32(n%queues)
				if conns[broker] == nil {
					conn, err := s.client.Dial(ctx, broker)
					if err != nil {
						return err
					}
					conns[broker] = conn
				}
				if err := pullQueue(ctx, conns[broker], a, topic, queue); err != nil {
					return fmt.Errorf("pull %s/%d from %s: %w", topic, queue, broker, err)
				}
			}
		})
	}
	return g.Wait()
}

const (
	pullers   = 8
	pullCount = 1024
	pullBytes = 4 << 20
)

// pullQueue hands everything that a queue holds to the auditor.
func pullQueue(ctx context.Context, conn *remoting.Conn, a *bench.Auditor, topic string, queue int32) error {
	return ReadQueue(ctx, conn, topic, queue, 0, a.Queue(topic, queue))
}

// QueueReader takes what a queue holds, in the order of its offsets.
type QueueReader interface {
	Body(offset int64, body []byte)
	Missing(offset int64, err error) // an offset that should hold a message and does not
}

// ReadQueue hands what a queue holds from an offset to its end to a reader.
func ReadQueue(ctx context.Context, conn *remoting.Conn, topic string, queue int32, from int64, reader QueueReader) error {
	head := pullHead(topic, queue)
	head.QueueOffset = from
	head.SysFlag, head.MaxMsgNums, head.MaxMsgBytes = protocol.PullSubscription, pullCount, pullBytes
	var frame []byte
	for {
		var next, end int64
		ended := make(chan error, 1)
		err := conn.Start(&remoting.Call{
			Timeout: sendTimeout,
			Build: func(dst []byte, opaque int32) []byte {
				return protocol.AppendPullRequest(dst, protocol.RequestPullMessage, opaque, protocol.JSON, &head)
			},
			Done: func(call *remoting.Call) {
				frame = frame[:0]
				if call.Err != nil {
					ended <- call.Err
					return
				}
				var p protocol.PullResponse
				if err := protocol.ParsePullResponse(call.Response, &p); err != nil {
					ended <- fmt.Errorf("%w (%w)", call.Response.Err(), err)
					return
				}
				next, end = p.NextBeginOffset, p.MaxOffset
				if call.Response.Code == int32(protocol.ResponseSuccess) {
					frame = append(frame, call.Response.Body...)
				}
				ended <- nil
			},
		})
		if err != nil {
			return err
		}
		select {
		case err = <-ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		for b := frame; len(b) > 0; {
			var m message.Record
			if err := message.ParseRecord(b, &m); err != nil {
				reader.Missing(head.QueueOffset, err)
				return nil
			}
			for ; head.QueueOffset < m.QueueOffset; head.QueueOffset++ {
				reader.Missing(head.QueueOffset, fmt.Errorf("not in the answer"))
			}
			reader.Body(m.QueueOffset, m.Body)
			head.QueueOffset++
			b = b[m.Size:]
		}
		if next <= head.QueueOffset && len(frame) == 0 || next >= end {
			return nil
		}
		head.QueueOffset = next
	}
}

// scan reads the log of a broker that has stopped.
func (s *session) scan(ctx context.Context, a *bench.Auditor, n *Node) error {
	o := engine.Options{Dir: n.Store, SegmentBytes: s.cell.SegmentBytes, PrepareDisabled: true}
	if s.cell.Cell.Repl == "raft" {
		o.Dir, o.Format, o.Framing = filepath.Dir(n.LogDir("raft")), raftlog.FormatRaft, raftlog.Framing{}
	}
	st, err := engine.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	end := st.Max()
	at, err := st.Scan(ctx, st.Min(), func(pos int64, r *message.Record) bool {
		a.Scan(pos, r.Body)
		return true
	})
	if ctx.Err() == nil && (err != nil || at < end) {
		a.ScanEnded(at, end, err)
	}
	if err := st.Close(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// restart stops all brokers and starts them as they were.
func (c *Cluster) restart(ctx context.Context) error {
	if err := c.StopNodes(); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := c.StartNode(ctx, n); err != nil {
			return err
		}
	}
	return c.AwaitInSync(ctx)
}

// compareCopies says where the log of a node that has stopped differs from the leader's, up to a position that all hold.
func (c *Cluster) compareCopies(leader *Node, end int64) error {
	files, err := filepath.Glob(filepath.Join(leader.LogDir(c.spec.Repl), "[0-9]*"))
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		for _, name := range files {
			if n == leader {
				continue
			}
			from, err := strconv.ParseInt(filepath.Base(name), 10, 64)
			if err != nil || from >= end {
				continue
			}
			at, err := firstDifference(name, filepath.Join(n.LogDir(c.spec.Repl), filepath.Base(name)), end-from)
			if err != nil {
				return err
			}
			if at >= 0 {
				return fmt.Errorf("the log of %s differs from that of %s, which leads, at position %d of %d confirmed", n.ID, leader.ID, from+at, end)
			}
		}
	}
	return nil
}

// firstDifference is where two files differ within their first n bytes, or the longer one's end; -1 if nowhere.
func firstDifference(a, b string, n int64) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer func() { _ = fa.Close() }() // only read
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer func() { _ = fb.Close() }() // only read
	st, err := fa.Stat()
	if err != nil {
		return 0, err
	}
	n = min(n, st.Size())
	const step = 1 << 20
	x, y := make([]byte, step), make([]byte, step)
	for at := int64(0); at < n; at += step {
		k := int(min(step, n-at))
		if _, err := fa.ReadAt(x[:k], at); err != nil {
			return 0, err
		}
		got, err := fb.ReadAt(y[:k], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if bytes.Equal(x[:k], y[:got]) {
			continue
		}
		for i := range k {
			if i >= got || x[i] != y[i] {
				return at + int64(i), nil
			}
		}
	}
	return -1, nil
}
