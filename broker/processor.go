package broker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// processors answer what clients and tools ask of a broker beside sending and pulling
// (org.apache.rocketmq.broker.processor.ClientManageProcessor, ConsumerManageProcessor,
// QueryMessageProcessor, AdminBrokerProcessor). Safe for concurrent use.
type processors struct {
	*Broker

	topicTimes, groupTimes [2]*histogram // of creations that failed, that went well

	configuring   sync.Mutex // one change of settings at a time; held over the I/O
	configVersion atomic.Pointer[protocol.DataVersion]

	oldest atomic.Pointer[oldest]
}

func newProcessors(b *Broker) *processors {
	p := &processors{Broker: b}
	for i := range p.topicTimes {
		p.topicTimes[i], p.groupTimes[i] = newHistogram(createBounds), newHistogram(createBounds)
	}
	p.configVersion.Store(&protocol.DataVersion{Timestamp: b.clock().UnixMilli()})
	return p
}

// registerAll tells which request goes to which executor.
func (p *processors) registerAll(to func(code protocol.RequestCode, f family, p processor)) {
	for code, f := range map[protocol.RequestCode]processor{
		protocol.RequestUnregisterClient: handle(p.unregisterClient), protocol.RequestCheckClientConfig: handle(p.checkClientConfig),
	} {
		to(code, familyClient, f)
	}
	to(protocol.RequestHeartBeat, familyHeartbeat, handle(p.heartbeat))
	for code, f := range map[protocol.RequestCode]processor{
		protocol.RequestGetConsumerListByGroup: handle(p.consumerList), protocol.RequestQueryConsumerOffset: handle(p.queryOffset),
		protocol.RequestUpdateConsumerOffset: handle(p.updateOffset),
	} {
		to(code, familyConsumer, f)
	}
	for code, f := range map[protocol.RequestCode]processor{
		protocol.RequestQueryMessage: handle(p.queryMessage), protocol.RequestViewMessageByID: handle(p.viewMessage),
	} {
		to(code, familyQuery, f)
	}
	for code, f := range p.adminProcessors() {
		to(code, familyAdmin, f)
	}
}

func (p *processors) adminProcessors() map[protocol.RequestCode]processor {
	return map[protocol.RequestCode]processor{
		protocol.RequestLockBatchMQ:   handle(p.lockBatch),
		protocol.RequestUnlockBatchMQ: handle(p.unlockBatch),

		protocol.RequestGetMaxOffset:            handle(p.maxOffset),
		protocol.RequestGetMinOffset:            handle(p.minOffset),
		protocol.RequestSearchOffsetByTimestamp: handle(p.searchOffset),
		protocol.RequestGetEarliestMsgStoreTime: handle(p.earliestStoreTime),
		protocol.RequestCloneGroupOffset:        p.leading(handle(p.cloneOffset)),
		protocol.RequestQueryCorrectionOffset:   handle(p.correctionOffset),
		protocol.RequestQueryTopicsByConsumer:   handle(p.topicsByConsumer),
		protocol.RequestGetAllConsumerOffset:    handle(p.allOffsets),
		protocol.RequestGetAllDelayOffset:       handle(p.allDelayOffsets),

		protocol.RequestUpdateAndCreateTopic:         p.leading(timed(&p.topicTimes, p.updateTopic)),
		protocol.RequestUpdateAndCreateTopicList:     p.leading(timed(&p.topicTimes, p.updateTopicList)),
		protocol.RequestDeleteTopicInBroker:          p.relayed(handle(p.deleteTopic)),
		protocol.RequestGetAllTopicConfig:            handle(p.allTopics),
		protocol.RequestGetTopicConfig:               handle(p.topicConfig),
		protocol.RequestGetTopicStatsInfo:            handle(p.topicStats),
		protocol.RequestGetSystemTopicListFromBroker: handle(p.systemTopics),
		protocol.RequestQueryTopicConsumeByWho:       handle(p.consumedByWho),
		protocol.RequestQueryConsumeTimeSpan:         handle(p.consumeTimeSpan),
		protocol.RequestQueryConsumeQueue:            handle(p.queryConsumeQueue),
		protocol.RequestCleanUnusedTopic:             p.leading(handle(p.cleanUnusedTopics)),
		protocol.RequestCleanExpiredConsumeQueue:     handle(p.cleanExpiredQueues),
		protocol.RequestDeleteExpiredCommitLog:       handle(p.deleteExpired),

		protocol.RequestUpdateAndCreateSubscriptionGroup:     p.leading(timed(&p.groupTimes, p.updateGroup)),
		protocol.RequestUpdateAndCreateSubscriptionGroupList: p.leading(timed(&p.groupTimes, p.updateGroupList)),
		protocol.RequestGetAllSubscriptionGroupConfig:        handle(p.allGroups),
		protocol.RequestGetSubscriptionGroupConfig:           handle(p.groupConfig),
		protocol.RequestDeleteSubscriptionGroup:              p.leading(handle(p.deleteGroup)),
		protocol.RequestUpdateAndGetGroupForbidden:           p.leading(handle(p.groupForbidden)),
		protocol.RequestGetConsumerConnectionList:            handle(p.consumerConnections),
		protocol.RequestGetProducerConnectionList:            handle(p.producerConnections),
		protocol.RequestGetAllProducerInfo:                   handle(p.allProducers),
		protocol.RequestQuerySubscriptionByConsumer:          handle(p.subscription),
		protocol.RequestGetConsumeStats:                      handle(p.consumeStats),
		protocol.RequestGetBrokerConsumeStats:                handle(p.brokerConsumeStats),

		protocol.RequestGetConsumerRunningInfo:          handle(p.consumerRunningInfo),
		protocol.RequestConsumeMessageDirectly:          handle(p.consumeDirectly),
		protocol.RequestInvokeBrokerToGetConsumerStatus: handle(p.consumerStatus),
		protocol.RequestInvokeBrokerToResetOffset:       handle(p.resetOffset),
		protocol.RequestViewBrokerStatsData:             handle(p.viewStats),
		protocol.RequestGetBrokerRuntimeInfo:            handle(p.runtimeInfo),
		protocol.RequestGetBrokerHAStatus:               handle(p.haStatus),
		protocol.RequestGetBrokerEpochCache:             handle(p.epochs),
		protocol.RequestPromoteReplica:                  handle(p.promote),
		protocol.RequestTransferLeader:                  handle(p.transferLeader),
		protocol.RequestChangeMember:                    handle(p.changeMember),
		protocol.RequestMergeOffsets:                    p.leading(handle(p.mergeOffsets)),
		protocol.RequestGetBrokerConfig:                 handle(p.brokerConfig),
		protocol.RequestUpdateBrokerConfig:              handle(p.updateBrokerConfig),
	}
}

// exchange is one request on its way to an answer.
type exchange struct {
	conn *remoting.Conn
	req  *protocol.Command
	resp *protocol.Command // SUCCESS, to be filled
}

// noHeader is for requests without ext fields.
type noHeader struct{}

// handle makes a processor of f, which gets the header of the request decoded and fills the answer, or
// says in the error why there is none: a [*answerError], a remark about a bad parameter, or anything else,
// which is a SYSTEM_ERROR.
func handle[H any](f func(x *exchange, h *H) error) processor {
	return func(c *remoting.Conn, req *protocol.Command) *protocol.Command {
		x := exchange{c, req, protocol.NewResponse(req, protocol.ResponseSuccess, "")}
		var h H
		err := protocol.DecodeExt(req, &h)
		if err == nil {
			err = f(&x, &h)
		}
		if err != nil {
			return answerOf(err).answer(req)
		}
		return x.resp
	}
}

// timed makes a processor of f that notes how long it takes, when it fails and when it goes well.
func timed[H any](times *[2]*histogram, f func(x *exchange, h *H) error) processor {
	return handle(func(x *exchange, h *H) error {
		began := time.Now()
		err := f(x, h)
		good := 0
		if err == nil {
			good = 1
		}
		times[good].add(int64(time.Since(began)), 1)
		return err
	})
}

// answerError is an answer other than SUCCESS.
type answerError struct {
	code   protocol.ResponseCode
	remark string
}

func (e *answerError) Error() string { return fmt.Sprintf("%s: %s", e.code, e.remark) }

func answerf(code protocol.ResponseCode, format string, args ...any) error {
	return &answerError{code, fmt.Sprintf(format, args...)}
}

func answerOf(err error) *refusal {
	var a *answerError
	var r remark
	var other *replication.NotLeaderError
	switch {
	case errors.As(err, &a):
		return refuse(a.code, a.remark)
	case errors.As(err, &r):
		return refuse(protocol.ResponseInvalidParameter, string(r))
	case errors.As(err, &other):
		return refuseNotLeader(other)
	case stored(err):
		code, text, _ := storeCode(err)
		return refuse(code, unknownOutcome+text)
	}
	return refuse(protocol.ResponseSystemError, err.Error())
}

// leading makes a processor that only a leader has: it changes tables that other nodes follow.
func (p *processors) leading(f processor) processor {
	return func(c *remoting.Conn, req *protocol.Command) *protocol.Command {
		if !p.leads.Load() {
			no := p.notLeading()
			no.remark = "Can't modify topic or subscription group from slave broker, please execute it from master broker. " + no.remark
			return no.answer(req)
		}
		return f(c, req)
	}
}

// extRelayed marks a request that another node has handed on.
const extRelayed = "relayed"

// relayed is leading for what tools ask of every node of a name: one that follows hands it to who leads.
func (p *processors) relayed(f processor) processor {
	here := p.leading(f)
	return func(c *remoting.Conn, req *protocol.Command) *protocol.Command {
		st := p.roles.newest()
		if p.leads.Load() || st.Role != replication.Follower || st.Client == "" || req.GetString(extRelayed) != "" {
			return here(c, req)
		}
		ctx, cancel := createContext()
		defer cancel()
		again := req.Clone()
		again.Add(extRelayed, "true")
		resp, err := p.registrar.client.Call(ctx, st.Client, again)
		if err != nil { // it is gone, or about to be another one
			return here(c, req)
		}
		return protocol.NewResponse(req, protocol.ResponseCode(resp.Code), string(resp.Remark))
	}
}

// body makes v the body of the answer.
func (x *exchange) body(v any) error {
	x.resp.Body = protocol.EncodeBody(v)
	if n := len(x.resp.Body); n > maxBodyBytes {
		return answerf(protocol.ResponseSystemError, "the answer has %d bytes, a frame has room for %d: ask for less", n, maxBodyBytes)
	}
	return nil
}

// ext makes the members of h the ext fields of the answer.
func (x *exchange) ext(h any) error {
	protocol.EncodeExt(x.resp, h)
	return nil
}

// maxBodyBytes leaves room for a header in the largest frame.
const maxBodyBytes = protocol.MaxFrameBytes - 64<<10
