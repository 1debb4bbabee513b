package broker

import (
	"strconv"

	"rmq/message"
	"rmq/remoting/protocol"
)

// Properties that a broker reads or sets (org.apache.rocketmq.common.message.MessageConst).
const (
	propCluster         = "CLUSTER"
	propRegion          = "MSG_REGION"
	propTrace           = "TRACE_ON"
	propTransaction     = "TRAN_MSG"
	propPopCheckPoint   = "POP_CK"
	propRetryTopic      = "RETRY_TOPIC"
	propOriginMessageID = "ORIGIN_MESSAGE_ID"
	propTimerDelaySec   = "TIMER_DELAY_SEC"
	propTimerDelayMs    = "TIMER_DELAY_MS"
	propTimerDeliverMs  = "TIMER_DELIVER_MS"
)

// refusal is an answer that says no.
type refusal struct {
	code   protocol.ResponseCode
	remark string
	leader string // of who leads the group, where clients reach it; "" if it does not matter or is not known
	term   int64
}

func refuse(code protocol.ResponseCode, remark string) *refusal {
	return &refusal{code: code, remark: remark}
}

// answer is the response to req.
func (r *refusal) answer(req *protocol.Command) *protocol.Command {
	resp := protocol.NewResponse(req, r.code, r.remark)
	if r.leader != "" {
		resp.Add(protocol.ExtLeaderAddr, r.leader)
		resp.AddInt(protocol.ExtLeaderTerm, r.term)
	}
	return resp
}

// draft is a message on its way into the log: what the client sent, to be changed by transforms. Its
// slices alias the request, or scratch that is used again.
type draft struct {
	message.Message
	batch bool  // Body is a batch of messages, Properties belong to all of them
	seen  props // what stands in Properties
}

// props says which properties matter to a broker and are there.
type props struct {
	uniq, cluster, region, trace, transaction, timer, popCheckPoint bool
	delay                                                           int
}

// scanProps finds out in one pass.
func scanProps(p message.Properties) (s props) {
	p.Each(func(name, value []byte) bool {
		switch string(name) {
		case message.PropUniqKey:
			s.uniq = true
		case propCluster:
			s.cluster = true
		case propRegion:
			s.region = true
		case propTrace:
			s.trace = true
		case propTransaction:
			s.transaction = string(value) == "true"
		case propTimerDelaySec, propTimerDelayMs, propTimerDeliverMs:
			s.timer = true
		case propPopCheckPoint:
			s.popCheckPoint = true
		case message.PropDelay:
			if n, err := strconv.Atoi(string(value)); err == nil && n > 0 {
				s.delay = n
			}
		}
		return true
	})
	return s
}

// replace sets properties, given as name and value by turns, in place of those of the same names.
func (d *draft) replace(pairs ...string) {
	names := make([]string, 0, 8)
	for i := 0; i < len(pairs); i += 2 {
		names = append(names, pairs[i])
	}
	d.remove(names...)
	for i := 0; i < len(pairs); i += 2 {
		d.Properties = message.AppendProperty(d.Properties, pairs[i], pairs[i+1])
	}
}

// remove takes properties out.
func (d *draft) remove(names ...string) {
	const more = 128 // what is usually put in their place
	d.Properties = message.AppendPropertiesWithout(make(message.Properties, 0, len(d.Properties)+more), d.Properties, names...)
}

// sendTransform changes a message before it is encoded, or refuses it. Transforms run in order; each
// sees what the one before it left.
type sendTransform func(d *draft) *refusal

// noTransactions refuses what only a transaction service could keep. A consumer's retry of what was
// once such a message is an ordinary one.
func noTransactions(d *draft) *refusal {
	switch {
	case d.seen.transaction && (d.ReconsumeTimes == 0 || d.seen.delay == 0):
		return refuse(protocol.ResponseNoPermission, "the broker does not keep transactional messages yet: send it without a transaction")
	case !d.SysFlag.ConsumesOffset():
		return refuse(protocol.ResponseNoPermission, "the broker does not keep prepared messages yet: send it without the transaction bits of sysFlag")
	}
	return nil
}

// noTimers refuses messages that are to arrive at a time of their own. A delay level rules such
// properties out, as in Apache.
func noTimers(d *draft) *refusal {
	if !d.seen.timer {
		return nil
	}
	if d.seen.delay == 0 {
		return refuse(protocol.ResponseSystemError, "timer message is not supported: this broker keeps delay levels only, use one of them")
	}
	d.remove(propTimerDelaySec, propTimerDelayMs, propTimerDeliverMs)
	return nil
}

// delayLevels puts a message with a delay level into the queue of its level; the [ScheduleService]
// brings it to its topic. Levels above the last count as the last.
func delayLevels(levels int) sendTransform {
	return func(d *draft) *refusal {
		if d.seen.delay == 0 || d.batch {
			return nil // the encoder refuses batches with a delay
		}
		level := min(d.seen.delay, levels)
		d.replace(message.PropDelay, strconv.Itoa(level), message.PropRealTopic, d.Topic, message.PropRealQueue, strconv.Itoa(int(d.QueueID)))
		d.Topic, d.QueueID = message.TopicSchedule, int32(level-1)
		return nil
	}
}
