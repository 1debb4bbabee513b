package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine"
	"rmq/message"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// sendOp is one message, or one batch, from its request to its answer. It is used again and again.
//
// The reader of the connection fills it in and hands it to the store; the store's completion answers,
// or the sweep does if that takes too long. Whoever of reader and completion is later gives it back.
type sendOp struct {
	engine.Append
	cs     *connState
	build  func(dst []byte) []byte // the method answer, bound once
	opaque int32
	ser    protocol.Serialize
	oneway bool

	draft draft
	props message.Properties // scratch
	rec   []byte             // scratch, Append.Record
	stats *TopicStats
	began time.Time

	code   protocol.ResponseCode
	remark string
	resp   protocol.SendResponse
	ids    []byte // scratch
	uniq   []byte // scratch

	state atomic.Uint32 // opPlaced, opDone

	// Under connState.mu.
	prev, next *sendOp
	linked     bool
	expired    bool // answered before it was done
}

// What has become of a sendOp. With both bits nobody holds it any more.
const (
	opPlaced = 1 << iota // the submitter is through with it; its Result stands
	opDone               // its completion is
)

// keepRecord is the largest record buffer that an idle sendOp keeps.
const keepRecord = 16 << 10

func (b *Broker) newSendPool() sync.Pool {
	return sync.Pool{New: func() any {
		op := &sendOp{}
		op.Done = op.done
		op.build = op.answer
		op.NoWait = true
		return op
	}}
}

// release gives op back.
func (op *sendOp) release() {
	b := op.cs.b
	op.cs, op.stats, op.remark = nil, nil, ""
	op.draft = draft{}
	op.resp = protocol.SendResponse{}
	op.Record, op.NoWait, op.expired = nil, true, false
	op.state.Store(0)
	if cap(op.rec) > keepRecord {
		op.rec = nil
	}
	if cap(op.ids) > keepRecord {
		op.ids = nil
	}
	b.sendPool.Put(op)
}

// sendList is a queue of operations, oldest first, that any of them may leave.
type sendList struct{ head, tail *sendOp }

func (l *sendList) push(op *sendOp) {
	op.prev, op.next, op.linked = l.tail, nil, true
	if l.tail == nil {
		l.head = op
	} else {
		l.tail.next = op
	}
	l.tail = op
}

func (l *sendList) remove(op *sendOp) {
	if op.prev == nil {
		l.head = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		l.tail = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.prev, op.next, op.linked = nil, nil, false
}

// serveSend takes one message (10, 310) or batch (320) on the reader of its connection. Topics that
// must be created first, and retries, go to the send executor; until those are through, later sends of
// the connection follow them there, so that order is kept.
func (b *Broker) serveSend(cs *connState, req *protocol.Command) {
	h := &cs.send
	if err := protocol.ParseSendHeader(req, h); err != nil {
		b.refuseSend(cs, req, refuse(protocol.ResponseSystemError, err.Error()))
		return
	}
	if cs.parking.Load() {
		cs.park(req)
		return
	}
	topic, no := b.checkSend(h)
	if no != nil {
		b.refuseSend(cs, req, no)
		return
	}
	if topic == nil || strings.HasPrefix(topic.TopicName, retryPrefix) {
		cs.park(req)
		return
	}
	op, no := b.prepareSend(cs, req, h, topic.TopicName, topic, 0)
	if no != nil {
		b.refuseSend(cs, req, no)
		return
	}
	cs.ops = append(cs.ops, op)
	cs.vec = append(cs.vec, &op.Append)
}

// checkSend makes the checks of a send, in the order of Apache, up to the lookup of the topic, which is
// nil if there is none yet.
func (b *Broker) checkSend(h *protocol.SendHeader) (*protocol.TopicConfig, *refusal) {
	c := b.conf()
	switch {
	case !b.leads.Load():
		return nil, b.notLeading()
	case b.sending.Load() >= int64(c.SendQueue):
		return nil, refuse(protocol.ResponseSystemBusy, b.executors[familySend].full())
	}
	if no := b.tooMuchToStore(); no != nil {
		return nil, no
	}
	if c.AcceptSendsFrom > 0 && b.clock().UnixMilli() < c.AcceptSendsFrom {
		return nil, refuse(protocol.ResponseSystemError, "broker unable to service, until "+time.UnixMilli(c.AcceptSendsFrom).Format("2006-01-02 15:04:05.000"))
	}
	topic := b.Topics.GetBytes(h.Topic)
	if c.BrokerPermission&protocol.PermWrite == 0 && topic != nil && topic.Order {
		return nil, refuse(protocol.ResponseNoPermission, fmt.Sprintf("the broker[%s] sending message is forbidden: brokerPermission is %d", c.BrokerIP1, c.BrokerPermission))
	}
	if topic == nil { // a topic that is there has a valid name
		if err := validateTopic(string(h.Topic)); err != nil {
			return nil, refuse(protocol.ResponseInvalidParameter, err.Error())
		}
	}
	if topic != nil && !canSendTo(topic.TopicName) || topic == nil && !canSendTo(string(h.Topic)) {
		return nil, refuse(protocol.ResponseNoPermission, fmt.Sprintf("Sending message to topic[%s] is forbidden.", h.Topic))
	}
	return topic, nil
}

// tooMuchToStore refuses sends while as many bytes as may wait to be stored do.
func (b *Broker) tooMuchToStore() *refusal {
	n := b.sendBytes.Load()
	if n < b.maxSendBytes {
		return nil
	}
	return refuse(protocol.ResponseSystemBusy, fmt.Sprintf("[OVERLOAD]system busy, start flow control for a while: messages of %d bytes wait to be stored, the limit is %d by memoryLimit", n, b.maxSendBytes))
}

// noTopic is the answer to a send whose topic is not there and must not be created.
func noTopic(name []byte) *refusal {
	return refuse(protocol.ResponseTopicNotExist, fmt.Sprintf("topic[%s] not exist, apply first please! see https://rocketmq.apache.org/docs/bestPractice/06FAQ", name))
}

// prepareSend makes the record of a message: to is where it goes, topic the configuration of that.
// delayOff drops a delay level, as dead letters need it.
func (b *Broker) prepareSend(cs *connState, req *protocol.Command, h *protocol.SendHeader, to string, topic *protocol.TopicConfig, mode draftMode) (*sendOp, *refusal) {
	queue := h.QueueID
	if queue >= max(topic.WriteQueueNums, topic.ReadQueueNums) {
		return nil, refuse(protocol.ResponseInvalidParameter, fmt.Sprintf("request queueId[%d] is illegal, Topic=%s has %d queues to write and %d to read", queue, to, topic.WriteQueueNums, topic.ReadQueueNums))
	}
	if topic.WriteQueueNums <= 0 && queue < 0 {
		return nil, refuse(protocol.ResponseInvalidParameter, fmt.Sprintf("topic %s has no queue to write", to))
	}
	if queue < 0 || mode == toDeadLetters {
		queue = rand.Int32N(topic.WriteQueueNums)
	}
	if limit := b.maxMessageBytes; len(req.Body) > limit {
		return nil, refuse(protocol.ResponseMessageIllegal, fmt.Sprintf("the message is illegal: its body has %d bytes, the limit is %d (maxMessageSize)", len(req.Body), limit))
	}
	if h.Batch && (len(to) > maxTopicChars || strings.HasPrefix(to, retryPrefix)) {
		return nil, refuse(protocol.ResponseMessageIllegal, fmt.Sprintf("batch request does not support retry topics and topics of more than %d bytes: %s", maxTopicChars, to))
	}
	op := b.sendPool.Get().(*sendOp)
	op.cs, op.opaque, op.ser, op.oneway = cs, req.Opaque, req.Serialize, req.IsOneway()
	op.began = time.Now()
	op.stats = b.Stats.Topic(h.Topic)
	d := &op.draft
	*d = draft{
		Message: message.Message{
			Topic: to, QueueID: queue, Flag: h.Flag, SysFlag: message.SysFlag(h.SysFlag), BornTimestamp: h.BornMillis,
			BornHost: cs.peer, StoreHost: b.storeHost, ReconsumeTimes: h.ReconsumeTimes, Body: req.Body, V2: len(to) > message.MaxTopicBytesV1,
		},
		batch: h.Batch,
	}
	b.setProperties(op, message.Properties(h.Properties), mode)
	op.resp.QueueID = queue
	for _, f := range b.transforms {
		if no := f(d); no != nil {
			op.release()
			return nil, no
		}
	}
	var err error
	if d.batch {
		op.rec, _, err = message.AppendBatchRecords(op.rec[:0], &d.Message, d.Body)
	} else {
		op.rec, err = message.AppendRecord(op.rec[:0], &d.Message)
	}
	if err != nil {
		op.release()
		code, remark, _ := storeCode(err)
		return nil, refuse(code, "the message is illegal: "+remark)
	}
	d.Body = nil // the request's
	op.Record = op.rec
	return op, nil
}

// draftMode says what else is done to a message.
type draftMode int

const (
	asSent draftMode = iota
	toDeadLetters
)

// setProperties gives the draft what the client set and what a broker adds.
func (b *Broker) setProperties(op *sendOp, sent message.Properties, mode draftMode) {
	d := &op.draft
	d.seen = scanProps(sent)
	p := op.props[:0]
	if s := &d.seen; s.cluster || s.region || s.trace || s.popCheckPoint || mode == toDeadLetters {
		drop := [...]string{propCluster, propRegion, propTrace, propPopCheckPoint, message.PropDelay}
		n := len(drop)
		if mode != toDeadLetters {
			n--
		}
		p = message.AppendPropertiesWithout(p, sent, drop[:n]...)
	} else if p = append(p, sent...); len(p) > 0 && p[len(p)-1] != 2 {
		p = append(p, 2)
	}
	if !d.seen.uniq && !d.batch {
		op.uniq = b.uniqKeys.appendKey(op.uniq[:0], op.began)
		p = append(append(p, message.PropUniqKey...), 1)
		p = append(append(p, op.uniq...), 2)
	}
	if mode == toDeadLetters {
		d.seen.delay = 0
		p = message.AppendProperty(p, message.PropDelay, "-1")
	}
	p = append(p, b.brokerProps...)
	op.props = p
	d.Properties = p
	if !d.batch {
		op.resp.TransactionID = p.Get(message.PropUniqKey)
	}
}

// submit hands operations to the store, and answers those that it does not take. vec are the appends
// of ops. It waits at most osPageCacheBusyTimeOutMills for room, then the answer is SYSTEM_BUSY.
func (cs *connState) submit(ops []*sendOp, vec []*engine.Append) {
	b := cs.b
	bytes := int64(0)
	cs.mu.Lock()
	for _, op := range ops {
		bytes += int64(len(op.Record))
		cs.inflight.push(op)
	}
	cs.mu.Unlock()
	b.sending.Add(int64(len(ops)))
	b.sendBytes.Add(bytes)
	for n := 0; n < len(vec); {
		k, err := b.store.SubmitFront(context.Background(), vec[n:])
		if err != nil && errors.Is(err, engine.ErrBusy) {
			var more int
			more, err = b.submitPatiently(vec[n+k:])
			k += more
		}
		for _, op := range ops[n : n+k] {
			if op.state.Or(opPlaced)&opDone != 0 {
				op.release()
			}
		}
		if n += k; err != nil {
			ops[n].fail(err)
			n++
		}
	}
}

// submitPatiently waits for room.
func (b *Broker) submitPatiently(vec []*engine.Append) (int, error) {
	for _, a := range vec {
		a.NoWait = false
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.conf().PageCacheBusy)
	defer cancel()
	n, err := b.store.SubmitFront(ctx, vec)
	for _, a := range vec[n:] {
		a.NoWait = true
	}
	return n, err
}

// fail answers an operation that the store has not taken.
func (op *sendOp) fail(err error) {
	op.Err = err
	op.state.Or(opPlaced)
	op.finish(false)
}

// done is the store's completion.
func (op *sendOp) done(*engine.Append) { op.finish(true) }

// finish answers, unless the sweep has, and lets go of op. taken says whether it had an offset.
func (op *sendOp) finish(taken bool) {
	cs := op.cs
	b := cs.b
	cs.mu.Lock()
	if op.linked {
		cs.inflight.remove(op)
	}
	expired := op.expired
	cs.mu.Unlock()
	left := b.sending.Add(-1)
	b.sendBytes.Add(-int64(len(op.Record)))
	op.count()
	if !expired && !op.oneway {
		op.code, op.remark = protocol.ResponseSuccess, ""
		if op.Err != nil {
			no := b.refusalOf(op.Err, taken)
			op.code, op.remark = no.code, no.remark
			op.resp.Leader, op.resp.LeaderTerm = []byte(no.leader), no.term
		}
		if dst := op.build(cs.conn.Begin()); left == 0 {
			cs.conn.EndNow(dst) // the store has nothing else to do meanwhile
		} else {
			cs.conn.End(dst)
		}
	}
	if op.state.Or(opDone)&opPlaced != 0 {
		op.release()
	}
}

// count adds op to the statistics.
func (op *sendOp) count() {
	b := op.cs.b
	if op.Err != nil {
		b.Stats.SendFailed()
		return
	}
	b.Stats.Sent(op.stats, int64(op.Result.Count), int64(op.Result.Size), time.Since(op.began))
}

// sendLimits are how long an answer to a send may take: for this disk, and for other nodes.
type sendLimits struct{ disk, replica time.Duration }

// appendWait is how long the broker waits for a message of its own.
func (b *Broker) appendWait() time.Duration {
	l := b.sendLimits()
	return max(l.disk, l.replica)
}

// expire answers the operations that the store has held for too long: they may yet be stored.
func (cs *connState) expire(now time.Time, limit sendLimits) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for op := cs.inflight.head; op != nil; {
		next := op.next
		waited := now.Sub(op.began)
		if waited < min(limit.disk, limit.replica) {
			return
		}
		if op.state.Load()&opPlaced != 0 {
			code, patience := protocol.ResponseFlushDiskTimeout, limit.disk
			late := cs.b.store.Late(op.Result.Pos + int64(len(op.Record)))
			if errors.Is(late, replication.ErrReplicaTimeout) {
				code, patience = protocol.ResponseFlushSlaveTimeout, limit.replica
			}
			if waited < patience {
				op = next
				continue
			}
			cs.inflight.remove(op)
			op.expired = true
			if !op.oneway {
				op.code = code
				op.remark = fmt.Sprintf("%sthe message is stored at %d, but not yet safe after %v: %v", unknownOutcome, op.Result.Pos, patience, late)
				cs.conn.Write(op.build)
			}
			cs.b.log.Warn("a send is answered before it is safe", "peer", cs.peer, "pos", op.Result.Pos, "waited", now.Sub(op.began))
		}
		op = next
	}
}

// answer encodes the response.
func (op *sendOp) answer(dst []byte) []byte {
	r := &op.resp
	r.Region, r.TraceOff = op.cs.b.region, op.cs.b.traceOff
	switch op.code {
	case protocol.ResponseSuccess, protocol.ResponseFlushDiskTimeout, protocol.ResponseFlushSlaveTimeout, protocol.ResponseSlaveNotAvailable:
		op.ids = op.appendIDs(op.ids[:0])
		r.MsgID, r.QueueOffset = op.ids, op.Result.QueueOffset
	}
	return protocol.AppendSendResponse(dst, op.opaque, op.ser, op.code, op.remark, r)
}

// appendIDs appends the offset message ids of what was stored, joined by commas.
func (op *sendOp) appendIDs(dst []byte) []byte {
	id := message.ID{Host: op.cs.b.storeHost, Pos: op.Result.Pos}
	dst = message.AppendID(dst, id)
	if op.Result.Count > 1 {
		for rec := op.Record; ; {
			n := message.RecordSize(rec)
			if rec = rec[n:]; len(rec) == 0 {
				break
			}
			id.Pos += int64(n)
			dst = message.AppendID(append(dst, ','), id)
		}
	}
	return dst
}

// refuseSend answers a send that does not reach the store.
func (b *Broker) refuseSend(cs *connState, req *protocol.Command, no *refusal) {
	b.Stats.SendFailed()
	if req.IsOneway() {
		return
	}
	r := protocol.SendResponse{Region: b.region, TraceOff: b.traceOff, Leader: []byte(no.leader), LeaderTerm: no.term}
	cs.conn.End(protocol.AppendSendResponse(cs.conn.Begin(), req.Opaque, req.Serialize, no.code, no.remark, &r))
}
