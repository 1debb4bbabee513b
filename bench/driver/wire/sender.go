package wire

import (
	"context"
	"fmt"

	"rmq/bench"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// slot is the driver's side of one message in flight. The first slot of a batch carries the others.
type slot struct {
	n     *sender
	op    *bench.Op
	size  int64 // about what it takes in the log
	route int64 // the route that it took
	head  protocol.SendHeader
	topic []byte
	props []byte
	body  []byte // of the message, or an item of a batch
	call  remoting.Call

	batch []*slot // with this one in front; nil when it goes alone
}

// sender sends the messages of one worker over its connections in turn.
type sender struct {
	s     *session
	slots []slot
	route int64 // that of its connections
	conns []*remoting.Conn
	next  int64 // number of the worker's next message
}

var (
	producerGroup = []byte("rmqbench")
	templateTopic = []byte("TBW102")
)

// Sender implements [bench.Session].
func (s *session) Sender(ops []*bench.Op) (bench.Sender, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	n := &sender{s: s, slots: make([]slot, len(ops))}
	for i := range s.lanes {
		// Lane by lane over the brokers of a cluster.
		conn, err := s.client.Dial(ctx, s.broker(s.senders*s.lanes+i))
		if err != nil {
			return nil, err
		}
		n.conns = append(n.conns, conn)
	}
	n.route = s.lead.route.Load()
	if s.senders++; s.senders == 1 && s.cell.Cell.Consumers > 0 && s.stored {
		if err := s.startTail(ctx); err != nil {
			return nil, err
		}
	}
	for i, op := range ops {
		if op.Slot != i {
			return nil, fmt.Errorf("BUG: message %d has slot %d", i, op.Slot)
		}
		sl := &n.slots[i]
		sl.n, sl.op = n, op
		sl.call.Build, sl.call.Done = sl.build, sl.done
		if s.batch > 1 {
			sl.batch = make([]*slot, 0, s.batch)
		}
	}
	return n, nil
}

// Encode implements [bench.Sender].
func (n *sender) Encode(op *bench.Op, m *message.Message) (int, error) {
	sl := &n.slots[op.Slot]
	sl.topic = append(sl.topic[:0], m.Topic...)
	sl.head = protocol.SendHeader{
		ProducerGroup: producerGroup, Topic: sl.topic, DefaultTopic: templateTopic, DefaultTopicQueueNums: 4,
		QueueID: m.QueueID, SysFlag: int32(m.SysFlag), BornMillis: m.BornTimestamp, Flag: m.Flag, Batch: n.s.batch > 1,
	}
	if n.s.batch > 1 {
		var err error
		if sl.body, err = message.AppendBatchItem(sl.body[:0], m.Flag, m.Body, m.Properties); err != nil {
			return 0, err
		}
	} else {
		sl.props = append(sl.props[:0], m.Properties...)
		sl.head.Properties = sl.props
		sl.body = append(sl.body[:0], m.Body...)
	}
	sl.size = int64(message.MinRecordBytes + len(m.Body) + len(m.Topic) + len(m.Properties) + len("MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02CLUSTER\x01DefaultCluster\x02"))
	return int(sl.size), nil
}

// Send implements [bench.Sender].
func (n *sender) Send(ops []*bench.Op) {
	if n.s.lead.lost(n.route) {
		n.follow()
	}
	run := int64(n.s.batch)
	for i := 0; i < len(ops); {
		conn := n.conns[n.next/run%int64(len(n.conns))]
		count := int(min(run-n.next%run, int64(len(ops)-i)))
		first := &n.slots[ops[i].Slot]
		if run > 1 {
			first.batch = first.batch[:0]
			for _, op := range ops[i : i+count] {
				first.batch = append(first.batch, &n.slots[op.Slot])
			}
		}
		first.route = n.route
		if err := conn.Start(&first.call); err != nil {
			first.finish(err)
		}
		n.next += int64(count)
		i += count
	}
}

// build appends the request. It runs under the lock of the connection.
func (sl *slot) build(dst []byte, opaque int32) []byte {
	if len(sl.batch) == 0 {
		dst = protocol.AppendSendRequest(dst, protocol.RequestSendMessageV2, opaque, 0, sl.n.s.serialize, &sl.head, len(sl.body))
		return append(dst, sl.body...)
	}
	bytes := 0
	for _, b := range sl.batch {
		bytes += len(b.body)
	}
	dst = protocol.AppendSendRequest(dst, protocol.RequestSendBatchMessage, opaque, 0, sl.n.s.serialize, &sl.head, bytes)
	for _, b := range sl.batch {
		dst = append(dst, b.body...)
	}
	return dst
}

// done books the answer.
func (sl *slot) done(call *remoting.Call) {
	err := call.Err
	if err == nil && call.Response.Code != int32(protocol.ResponseSuccess) {
		err = call.Response.Err()
	}
	if err != nil && sl.n.s.follows() {
		sl.n.s.lead.lose(sl.route)
	}
	sl.finish(err)
}

// finish completes the message, or all of its batch.
func (sl *slot) finish(err error) {
	if len(sl.batch) == 0 {
		sl.complete(err)
		return
	}
	rest := sl.batch[1:]
	for _, b := range rest {
		b.complete(err)
	}
	sl.complete(err) // last: then the batch belongs to the worker again
}

func (sl *slot) complete(err error) {
	if err == nil {
		sl.n.s.acked.Add(1)
		sl.n.s.bytes.Add(sl.size)
	}
	sl.op.Err = err
	sl.op.Complete()
}
