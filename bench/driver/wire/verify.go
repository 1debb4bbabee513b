package wire

import (
	"context"
	"fmt"

	"rmq/bench"
	"rmq/engine"
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
	for _, broker := range cl.brokers {
		conn, err := s.client.Dial(ctx, broker)
		if err != nil {
			return err
		}
		for _, topic := range s.cell.Topics {
			for q := range s.cell.Cell.Queues {
				if err := pullQueue(ctx, conn, a, topic, int32(q)); err != nil {
					return fmt.Errorf("pull %s/%d from %s: %w", topic, q, broker, err)
				}
			}
		}
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

const (
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
