package wire

import (
	"context"
	"fmt"
	"sync/atomic"

	"rmq/bench"
	"rmq/engine"
	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Verify implements [bench.Session]: it restarts a broker of ours, pulls every queue from its first offset to its
// last, and reads the log from end to end once the broker has stopped. A cluster of somebody else's is only pulled.
func (s *session) Verify(ctx context.Context, a *bench.Auditor) error {
	if !s.stored {
		return bench.ErrNothingStored
	}
	s.tail.stop()
	cl := s.cluster
	if cl.store != "" {
		if err := cl.children[len(cl.children)-1].end(); err != nil {
			return err
		}
		if err := cl.relaunch(ctx, s.cell.Dir); err != nil {
			return fmt.Errorf("start again: %w", err)
		}
	}
	if err := s.pullAll(ctx, a); err != nil {
		return err
	}
	if cl.store == "" {
		a.NoScan("the cluster is not ours: its log was not scanned")
		return nil
	}
	if err := cl.stop(); err != nil {
		return err
	}
	return s.scan(ctx, a)
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
	reader := a.Queue(topic, queue)
	head := pullHead(topic, queue)
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
func (s *session) scan(ctx context.Context, a *bench.Auditor) error {
	st, err := engine.Open(ctx, engine.Options{Dir: s.cluster.store, SegmentBytes: s.cell.SegmentBytes, PrepareDisabled: true})
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
