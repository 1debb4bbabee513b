package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rmq/engine"
	"rmq/engine/mappedfile"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// forbidden tells a client what forbids a pull, beside NO_PERMISSION (ForbiddenType).
type forbidden int32

const (
	forbidNothing forbidden = iota
	forbidBroker
	forbidGroup
	forbidTopic
	forbidBroadcast
	forbidSubscription
)

// pullParams are what a pull asks for, as long as it lasts.
type pullParams struct {
	cs     *connState
	opaque int32
	ser    protocol.Serialize
	lite   bool

	topic   *protocol.TopicConfig
	group   *protocol.SubscriptionGroupConfig
	queueID int32
	offset  int64
	count   int32   // records at most
	bytes   int32   // of records at most, 0: as many as the broker gives
	codes   []int32 // hashes of the tags that are wanted, nil: all
	began   time.Time
}

// wants says whether a record with this entry may be one of those asked for.
func (p *pullParams) wants(tagsHash int64) bool {
	return p.codes == nil || int64(int32(tagsHash)) == tagsHash && slices.Contains(p.codes, int32(tagsHash))
}

// pullOp is a pull that is being answered. It is used again and again; the records that it has found
// leave by it, as a [remoting.Payload].
type pullOp struct {
	pullParams
	owner   *Broker
	suspend time.Duration // how long it may be held; 0: not at all

	match  func(tagsHash int64) bool // the method wants, bound once
	query  engine.ReadQuery
	result engine.ReadResult
	later  bool  // the client reads too slowly: it may ask again
	err    error // of the read; records before it are still in result
	resp   protocol.PullResponse
	ranges []remoting.Range
	file   segmentFile
	names  []byte // scratch
}

func (b *Broker) newPullPool() sync.Pool {
	return sync.Pool{New: func() any {
		op := &pullOp{owner: b}
		op.match = op.wants
		return op
	}}
}

// segmentFile is a segment of the log as [remoting] sends from it.
type segmentFile struct {
	*mappedfile.MappedFile
}

// Fd implements remoting.File.
func (f *segmentFile) Fd() (uintptr, bool) { return f.File().Fd() }

// ReadAt implements remoting.File; off is a position in the file.
func (f *segmentFile) ReadAt(p []byte, off int64) (int, error) {
	return f.MappedFile.ReadAt(p, f.Start()+off)
}

// servePull answers a pull (11, 361) on the reader of its connection when the records are in memory,
// hands it to the pull executor when they are not, and holds it when there are none yet.
func (b *Broker) servePull(cs *connState, req *protocol.Command) {
	h := &cs.pull
	if err := protocol.ParsePullHeader(req, h); err != nil {
		b.refusePull(cs, req, refuse(protocol.ResponseSystemError, err.Error()), forbidNothing)
		return
	}
	if req.IsOneway() {
		return // nobody would get the records
	}
	op := b.pullPool.Get().(*pullOp)
	op.pullParams = pullParams{
		cs: cs, opaque: req.Opaque, ser: req.Serialize, lite: req.Code == int32(protocol.RequestLitePullMessage),
		queueID: h.QueueID, offset: h.QueueOffset, count: h.MaxMsgNums, bytes: h.MaxMsgBytes, began: time.Now(),
	}
	if no, why := b.checkPull(&op.pullParams, h); no != nil {
		op.Release()
		b.refusePull(cs, req, no, why)
		return
	}
	if h.SysFlag&protocol.PullCommitOffset != 0 {
		b.Offsets.Commit(h.ConsumerGroup, h.Topic, h.QueueID, h.CommitOffset)
	}
	if b.leads.Load() { // another node does not know that a reset was handed out here
		if to, ok := b.Offsets.TakeReset(h.ConsumerGroup, h.Topic, h.QueueID); ok {
			op.answerReset(to)
			return
		}
	}
	op.suspend = 0
	if c := b.conf(); h.SysFlag&protocol.PullSuspend != 0 && h.SuspendMillis > 0 {
		op.suspend = time.Duration(min(h.SuspendMillis, maxSuspendMillis)) * time.Millisecond
		if !c.LongPolling {
			op.suspend = c.ShortPolling
		}
	}
	if op.read(true) {
		op.finish()
		return
	}
	f := familyPull
	if op.lite {
		f = familyLitePull
	}
	if !b.executors[f].submit(op) {
		op.refuse(b.executors[f].full())
	}
}

// maxSuspendMillis bounds a hold against clients that name no sensible time.
const maxSuspendMillis = 10 * 60 * 1000

// checkPull makes the checks of a pull, in the order of Apache, and fills in what they find.
func (b *Broker) checkPull(p *pullParams, h *protocol.PullHeader) (*refusal, forbidden) {
	c := b.conf()
	if !c.SlaveRead && !b.leads.Load() {
		return refuse(protocol.ResponseSystemBusy, "[REJECTREQUEST]system busy, start flow control for a while: this broker does not lead, and slaveReadEnable is false"), forbidNothing
	}
	if c.BrokerPermission&protocol.PermRead == 0 {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the broker[%s] pulling message is forbidden", c.BrokerIP1)), forbidBroker
	}
	if p.lite && !c.LitePull {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the broker[%s] for lite pull consumer is forbidden: litePullMessageEnable is false", c.BrokerIP1)), forbidBroker
	}
	if p.group = b.Groups.FindBytes(h.ConsumerGroup); p.group == nil {
		return refuse(protocol.ResponseSubscriptionGroupNotExist, fmt.Sprintf("subscription group [%s] does not exist, see autoCreateSubscriptionGroup", h.ConsumerGroup)), forbidNothing
	}
	if !p.group.ConsumeEnable {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("subscription group no permission, %s", h.ConsumerGroup)), forbidGroup
	}
	if p.topic = b.Topics.GetBytes(h.Topic); p.topic == nil {
		return refuse(protocol.ResponseTopicNotExist, fmt.Sprintf("topic[%s] not exist, apply first please!", h.Topic)), forbidNothing
	}
	if p.topic.Perm&protocol.PermRead == 0 {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the topic[%s] pulling message is forbidden", h.Topic)), forbidTopic
	}
	if p.queueID < 0 || p.queueID >= p.topic.ReadQueueNums {
		return refuse(protocol.ResponseInvalidParameter, fmt.Sprintf("queueId[%d] is illegal, topic:[%s] topicConfig.readQueueNums:[%d] consumer:[%s]", p.queueID, h.Topic, p.topic.ReadQueueNums, p.cs.peer)), forbidNothing
	}
	if h.SysFlag&protocol.PullSubscription != 0 {
		return b.filterOfRequest(p, h), forbidNothing
	}
	return b.filterOfGroup(p, h)
}

const noSQL = "The broker does not support consumer to filter message by SQL92"

func isTag(expressionType string) bool {
	return expressionType == "" || expressionType == protocol.ExpressionTag
}

// filterOfRequest takes the expression that the pull carries.
func (b *Broker) filterOfRequest(p *pullParams, h *protocol.PullHeader) *refusal {
	if !isTag(string(h.ExpressionType)) {
		return refuse(protocol.ResponseSystemError, noSQL)
	}
	if len(h.Subscription) == 0 || string(h.Subscription) == "*" {
		return nil
	}
	p.codes = []int32{}
	for tag := range strings.SplitSeq(string(h.Subscription), "||") {
		if tag = strings.TrimSpace(tag); tag != "" {
			p.codes = append(p.codes, int32(message.TagHash([]byte(tag))))
		}
	}
	if len(p.codes) == 0 {
		return refuse(protocol.ResponseSubscriptionParseFailed, fmt.Sprintf("parse the consumer's subscription failed: %q names no tag", h.Subscription))
	}
	return nil
}

// filterOfGroup takes what the group's members said in their heartbeats.
func (b *Broker) filterOfGroup(p *pullParams, h *protocol.PullHeader) (*refusal, forbidden) {
	g := b.Consumers.FindBytes(h.ConsumerGroup)
	if g == nil {
		return refuse(protocol.ResponseSubscriptionNotExist, "the consumer's group info not exist, the group has sent no heartbeat"), forbidNothing
	}
	if !p.group.ConsumeBroadcastEnable && g.Broadcast() {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the consumer group[%s] can not consume by broadcast way", h.ConsumerGroup)), forbidBroadcast
	}
	if b.Groups.ForbiddenBytes(h.ConsumerGroup, h.Topic) {
		return refuse(protocol.ResponseNoPermission, fmt.Sprintf("the consumer group[%s] is forbidden for topic[%s]", h.ConsumerGroup, h.Topic)), forbidSubscription
	}
	sub := g.SubscriptionBytes(h.Topic)
	if sub == nil {
		return refuse(protocol.ResponseSubscriptionNotExist, fmt.Sprintf("the consumer's subscription not exist, %s has not subscribed to %s", h.ConsumerGroup, h.Topic)), forbidNothing
	}
	if sub.SubVersion < h.SubVersion {
		return refuse(protocol.ResponseSubscriptionNotLatest, "the consumer's subscription not latest"), forbidNothing
	}
	if !isTag(sub.ExpressionType) {
		return refuse(protocol.ResponseSystemError, noSQL), forbidNothing
	}
	if sub.SubString != "*" && sub.SubString != "" && len(sub.CodeSet) > 0 {
		p.codes = sub.CodeSet
	}
	return nil, forbidNothing
}

// read looks for records, unless more than enough of them wait to be read on the connection: requests
// that were in line before the reader stopped must not add to it without bound. With inMemory it gives up, and returns false, where a file would have to be
// read.
func (op *pullOp) read(inMemory bool) bool {
	b := op.cs.b
	if op.later = op.cs.conn.Full(); op.later {
		return true
	}
	c := b.conf()
	count, bytes := c.MaxCountInMemory, int(c.MaxBytesInMemory)
	if !inMemory && op.onDisk() {
		count, bytes = c.MaxCountOnDisk, int(c.MaxBytesOnDisk)
	}
	if op.bytes > 0 {
		bytes = min(bytes, int(op.bytes))
	}
	op.query = engine.ReadQuery{
		Topic: op.topic.TopicName, QueueID: op.queueID, Offset: op.offset, MaxCount: max(min(int(op.count), count), 1),
		MaxBytes: min(bytes, maxPullBytes), InMemory: inMemory,
	}
	if op.codes != nil {
		op.query.Match = op.match
		op.query.MaxScan = max(int(c.MaxFilterBytes)/20, int(min(op.count, 1<<16)))
	}
	err := b.store.Read(&op.result, &op.query)
	if inMemory && errors.Is(err, engine.ErrCold) {
		op.result.Release()
		return false
	}
	if err != nil {
		b.log.Error("pull", "topic", op.query.Topic, "queue", op.queueID, "offset", op.offset, "err", err)
	}
	op.err = err
	return true
}

// maxPullBytes leaves room for a header in the largest frame; records are not that large.
const maxPullBytes = protocol.MaxFrameBytes - 64<<10

// onDisk says whether the records lie so far back that other things have probably pushed them out of
// the page cache.
func (op *pullOp) onDisk() bool {
	b := op.cs.b
	entries, err := b.store.Entries(op.topic.TopicName, op.queueID, op.offset, 1)
	return err == nil && len(entries) > 0 && b.farBack(entries[0].Offset)
}

// farBack says whether a position of the log is beyond what the page cache is taken to hold.
func (b *Broker) farBack(pos int64) bool {
	return b.store.Max()-pos > b.hostMemory/100*int64(b.conf().InMemoryPercent)
}

// run is the part of a pull that may wait for a disk.
func (op *pullOp) run() {
	op.read(false)
	op.finish()
}

// refuse implements job.
func (op *pullOp) refuse(cause string) {
	op.resp = protocol.PullResponse{NextBeginOffset: op.offset}
	op.end(protocol.ResponseSystemBusy, cause)
	op.Release()
}

// finish answers with what read has found, or holds the pull.
func (op *pullOp) finish() {
	b := op.cs.b
	if op.later {
		low, high, _ := b.store.QueueRange(op.topic.TopicName, op.queueID)
		op.resp = protocol.PullResponse{NextBeginOffset: op.offset, MinOffset: low, MaxOffset: high}
		op.end(protocol.ResponsePullRetryImmediately, "answers wait to be read on this connection: ask again")
		op.Release()
		return
	}
	r := &op.result
	if op.err != nil && r.Count() == 0 {
		op.resp = protocol.PullResponse{NextBeginOffset: op.offset, MinOffset: r.MinOffset, MaxOffset: r.MaxOffset}
		op.end(protocol.ResponseSystemError, "store getMessage failed: "+op.err.Error())
		op.Release()
		return
	}
	code, next := pullCode(r, op.offset)
	suggest := op.suggest()
	if suggest == masterID && code == protocol.ResponsePullNotFound && b.leaderAnswers() {
		code = protocol.ResponsePullRetryImmediately // the client goes back to the leader at once
	}
	if code == protocol.ResponsePullNotFound && op.suspend > 0 {
		params, deadline := op.pullParams, op.began.Add(op.suspend)
		op.Release()
		b.holds.hold(&params, deadline)
		return
	}
	op.resp = protocol.PullResponse{NextBeginOffset: next, MinOffset: r.MinOffset, MaxOffset: r.MaxOffset}
	c := b.conf()
	if c.DisableSlowConsumers && r.LastPos >= 0 && b.store.Max()-r.LastPos > int64(c.SlowConsumerBytes) {
		b.executors[familyAdmin].submit(&slowConsumer{b, op.group.GroupName, b.store.Max() - r.LastPos})
	}
	op.resp.SuggestBrokerID = suggest
	op.note(code, next)
	if code == protocol.ResponseSuccess {
		op.send(r)
		return
	}
	op.end(code, r.Status.String())
	op.Release()
}

// masterID is the number of who leads.
const masterID = 0

// suggest is the number of the broker that the client should ask next: one that does not lead, for what has
// left the page cache (PullMessageProcessor.composeResponseHeader).
func (op *pullOp) suggest() int64 {
	b := op.cs.b
	switch {
	case !b.conf().SlaveRead:
		return masterID
	case op.result.LastPos >= 0 && b.farBack(op.result.LastPos):
		return op.group.WhichBrokerWhenConsumeSlowly
	}
	return op.group.BrokerID
}

// slowConsumer is a group that has fallen so far behind that its reads would hurt everybody else: it may
// not consume any more (disableConsumeIfConsumerReadSlowly). It is a job of the admin executor.
type slowConsumer struct {
	b      *Broker
	group  string
	behind int64 // bytes of log
}

func (j *slowConsumer) run() {
	group := j.b.Groups.Get(j.group)
	if group == nil || !group.ConsumeEnable {
		return
	}
	off := *group
	off.ConsumeEnable = false
	err := j.b.Groups.Put(&off)
	j.b.log.Warn("a group has fallen too far behind and may not consume any more: enable it with updateSubGroup", "group", j.group,
		"behindBytes", j.behind, "limit", int64(j.b.conf().SlowConsumerBytes), "err", err)
}

// refuse implements job: the next pull tries again.
func (j *slowConsumer) refuse(string) {}

// pullCode is how the status of a read is told, and where to go on.
func pullCode(r *engine.ReadResult, offset int64) (protocol.ResponseCode, int64) {
	switch r.Status {
	case engine.ReadFound:
		if r.Count() == 0 { // all that was there has just been removed
			return protocol.ResponsePullRetryImmediately, r.NextOffset
		}
		return protocol.ResponseSuccess, r.NextOffset
	case engine.ReadNoMatch, engine.ReadRemoving:
		return protocol.ResponsePullRetryImmediately, r.NextOffset
	case engine.ReadNoQueue, engine.ReadNoMessage:
		if offset == 0 {
			return protocol.ResponsePullNotFound, 0
		}
		return protocol.ResponsePullOffsetMoved, 0
	case engine.ReadOffsetTooSmall, engine.ReadOffsetOverflow:
		return protocol.ResponsePullOffsetMoved, r.NextOffset
	}
	return protocol.ResponsePullNotFound, r.NextOffset
}

// note adds the pull to the statistics and to the group's progress.
func (op *pullOp) note(code protocol.ResponseCode, next int64) {
	b := op.cs.b
	op.names = append(append(op.names[:0], op.group.GroupName...), op.topic.TopicName...)
	group, topic := op.names[:len(op.group.GroupName)], op.names[len(op.group.GroupName):]
	b.Offsets.Pulled(group, topic, op.queueID, next)
	if code == protocol.ResponseSuccess {
		b.Stats.Pulled(b.Stats.Group(group, topic), op.queueID, int64(op.result.Count()), int64(op.result.Bytes), time.Since(op.began))
		return
	}
	b.Stats.PullMissed(time.Since(op.began))
}

// answerReset sends the client to the offset that somebody has set for its group.
func (op *pullOp) answerReset(to int64) {
	low, high, _ := op.cs.b.store.QueueRange(op.topic.TopicName, op.queueID)
	op.resp = protocol.PullResponse{NextBeginOffset: to, MinOffset: low, MaxOffset: high}
	op.end(protocol.ResponsePullOffsetMoved, "OFFSET_RESET")
	op.Release()
}

// end answers without records.
func (op *pullOp) end(code protocol.ResponseCode, remark string) {
	c := op.cs.conn
	c.End(protocol.AppendPullResponse(c.Begin(), op.opaque, op.ser, code, remark, &op.resp, 0))
}

// send answers with the records. op is given back when they have left.
func (op *pullOp) send(r *engine.ReadResult) {
	op.gather(r)
	c := op.cs.conn
	c.EndPayload(protocol.AppendPullResponse(c.Begin(), op.opaque, op.ser, protocol.ResponseSuccess, r.Status.String(), &op.resp, r.Bytes), op)
}

// sendfileBytes is from where on one run of a file is worth leaving without entering this process.
const sendfileBytes = 64 << 10

// gather lays out the records: as one run of a file if they are one and it is long, else as few runs of
// memory as there are.
func (op *pullOp) gather(r *engine.ReadResult) {
	op.ranges = op.ranges[:0]
	var first, last engine.Range
	one := true
	r.EachRange(func(rec []byte, at engine.Range) {
		switch {
		case first.File == nil:
			first, last = at, at
		case at.File != first.File || at.Pos != last.Pos+int64(last.Len):
			one = false
		}
		last = at
		if n := len(op.ranges); n > 0 {
			// Neighbours in memory, which the log's newest part mostly are, become one run.
			if prev := op.ranges[n-1].Bytes; cap(prev) > len(prev) && &prev[:len(prev)+1][len(prev)] == &rec[0] {
				op.ranges[n-1].Bytes = prev[:len(prev)+len(rec)]
				return
			}
		}
		op.ranges = append(op.ranges, remoting.Range{Bytes: rec})
	})
	if !one || r.Bytes < sendfileBytes {
		return
	}
	if _, ok := first.File.File().Fd(); ok {
		op.file = segmentFile{first.File}
		op.ranges = append(op.ranges[:0], remoting.Range{File: &op.file, Offset: first.Pos - first.File.Start(), Len: r.Bytes})
	}
}

// Ranges implements remoting.Payload.
func (op *pullOp) Ranges() []remoting.Range { return op.ranges }

// Release implements remoting.Payload: the records are let go, and op is given back.
func (op *pullOp) Release() {
	op.result.Release()
	clear(op.ranges)
	op.ranges = op.ranges[:0]
	op.pullParams, op.file, op.suspend = pullParams{}, segmentFile{}, 0
	op.query, op.resp = engine.ReadQuery{}, protocol.PullResponse{}
	op.err = nil
	op.owner.pullPool.Put(op)
}

// refusePull answers a pull that does not get as far as the store.
func (b *Broker) refusePull(cs *connState, req *protocol.Command, no *refusal, why forbidden) {
	if req.IsOneway() {
		return
	}
	resp := protocol.PullResponse{NextBeginOffset: cs.pull.QueueOffset, ForbiddenType: int32(why)}
	cs.conn.End(protocol.AppendPullResponse(cs.conn.Begin(), req.Opaque, req.Serialize, no.code, no.remark, &resp, 0))
}
