package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rmq/remoting/protocol"
)

// PullStatus says what a pull found (org.apache.rocketmq.client.consumer.PullStatus).
type PullStatus int

const (
	// PullFound brought messages.
	PullFound PullStatus = iota
	// PullNoNew found the end of the queue.
	PullNoNew
	// PullNoMatch found messages that the subscription does not want; go on at Next.
	PullNoMatch
	// PullOffsetIllegal found that the queue does not reach from or to that offset; Next does.
	PullOffsetIllegal
)

// String is Java's name.
func (s PullStatus) String() string {
	switch s {
	case PullFound:
		return "FOUND"
	case PullNoNew:
		return "NO_NEW_MSG"
	case PullNoMatch:
		return "NO_MATCHED_MSG"
	case PullOffsetIllegal:
		return "OFFSET_ILLEGAL"
	}
	return fmt.Sprintf("PullStatus(%d)", int(s))
}

// PullResult is the answer to one pull.
type PullResult struct {
	Status   PullStatus
	Messages []*MessageExt
	Next     int64 // offset to go on from
	Min, Max int64 // of the queue

	suggested int64 // id of the broker to ask next
}

// How long a broker may hold a pull, and how much longer its answer may take.
const (
	pushSuspend  = 15 * time.Second
	pollSuspend  = 20 * time.Second
	pullOverhead = 15 * time.Second
)

// toolsGroup is the group under which tools read: every broker has it.
const toolsGroup = "TOOLS_CONSUMER"

// Pull reads up to limit messages of a queue from offset on, without being a consumer and without
// storing how far it came. With wait it lasts that long at most for a message to arrive. Brokers bound
// what one pull brings, so that fewer messages do not mean the end: PullResult.Max does.
func (c *Client) Pull(ctx context.Context, q MessageQueue, offset int64, limit int, e Expression, wait time.Duration) (*PullResult, error) {
	res, err := c.pull(ctx, &pullRequest{
		group: toolsGroup, queue: q, offset: offset, max: limit, sub: newSubscription(q.Topic, e, time.Now()), carrySub: true, suspend: wait,
	})
	if err == nil {
		res.Messages = newSubscription(q.Topic, e, time.Now()).keep(res.Messages)
	}
	return res, err
}

// pullRequest is one pull of a queue.
type pullRequest struct {
	group     string
	queue     MessageQueue
	offset    int64
	max       int
	sub       *subscription
	carrySub  bool          // let the broker filter by sub instead of by the heartbeat's
	suspend   time.Duration // 0: answer at once
	commit    int64         // with hasOffset: store this offset too
	hasOffset bool
	brokerID  int64
}

// pull sends one pull and waits for its answer. With commit, offsets are stored only by a master. When another broker leads
// while the pull is held, or instead of one that cannot be reached, it goes there.
func (c *Client) pull(ctx context.Context, r *pullRequest) (*PullResult, error) {
	for moves := 0; ; moves++ {
		addr, id := c.routes.replica(r.queue.BrokerName, r.brokerID)
		res, err := c.pullOnce(ctx, r)
		switch {
		case err == nil || moves == maxLeaderHints || ctx.Err() != nil:
			return res, err
		case errors.Is(err, errMoved):
		case id != masterID || !unreachable(err) || !c.leaderElsewhere(ctx, r.queue, addr):
			return res, err
		}
	}
}

// unreachable says of the error of a pull that nobody has answered it.
func unreachable(err error) bool {
	var remote *protocol.RemoteError
	return !errors.As(err, &remote) && !errors.Is(err, errSilent)
}

func (c *Client) pullOnce(ctx context.Context, r *pullRequest) (*PullResult, error) {
	addr, id := c.routes.replica(r.queue.BrokerName, r.brokerID)
	if addr == "" {
		if _, err := c.refreshRoute(ctx, r.queue.Topic); err != nil {
			return nil, err
		}
		if addr, id = c.routes.replica(r.queue.BrokerName, r.brokerID); addr == "" {
			return nil, fmt.Errorf("broker %s of queue %s: %w", r.queue.BrokerName, r.queue, ErrNoBroker)
		}
	}
	resp, err := c.sendPull(ctx, addr, r, id)
	if err != nil {
		return nil, err
	}
	if c.followHint(r.queue.BrokerName, addr, resp) {
		addr, id = c.routes.replica(r.queue.BrokerName, masterID)
		if resp, err = c.sendPull(ctx, addr, r, id); err != nil {
			return nil, err
		}
	}
	res, err := parsePull(resp, r.queue.BrokerName)
	if err != nil {
		return nil, fmt.Errorf("pull of %s from %s: %w", r.queue, addr, err)
	}
	return res, nil
}

func (c *Client) sendPull(ctx context.Context, addr string, r *pullRequest, id int64) (*protocol.Command, error) {
	flags := int32(0)
	if r.suspend > 0 {
		flags |= protocol.PullSuspend
	}
	if r.carrySub {
		flags |= protocol.PullSubscription
	}
	if r.hasOffset && id == masterID {
		flags |= protocol.PullCommitOffset
	}
	req := protocol.NewRequest(protocol.RequestPullMessage)
	req.Serialize = c.opt.Serialize
	req.Add("consumerGroup", r.group)
	req.Add("topic", r.queue.Topic)
	req.AddInt("queueId", int64(r.queue.QueueID))
	req.AddInt("queueOffset", r.offset)
	req.AddInt("maxMsgNums", int64(r.max))
	req.AddInt("sysFlag", int64(flags))
	req.AddInt("commitOffset", r.commit)
	req.AddInt("suspendTimeoutMillis", r.suspend.Milliseconds())
	req.AddInt("subVersion", r.sub.data.SubVersion)
	req.Add("expressionType", r.sub.data.ExpressionType)
	if r.carrySub {
		req.Add("subscription", r.sub.data.SubString)
	}
	ctx, cancel := context.WithTimeout(ctx, r.suspend+pullOverhead)
	defer cancel()
	done := func(bool) {}
	if r.suspend > 0 {
		ctx, done = c.hold(ctx, r.queue.BrokerName, addr, id)
	}
	resp, err := c.rpc.Call(ctx, addr, req)
	if why := context.Cause(ctx); err != nil && (why == errMoved || why == errSilent) { //nolint:errorlint // they are set as they are
		err = why
	}
	done(err == nil)
	if err != nil {
		return nil, fmt.Errorf("pull of %s from %s: %w", r.queue, addr, err)
	}
	return resp, nil
}

func parsePull(resp *protocol.Command, brokerName string) (*PullResult, error) {
	res := &PullResult{}
	switch protocol.ResponseCode(resp.Code) {
	case protocol.ResponseSuccess:
		res.Status = PullFound
	case protocol.ResponsePullNotFound:
		res.Status = PullNoNew
	case protocol.ResponsePullRetryImmediately:
		res.Status = PullNoMatch
	case protocol.ResponsePullOffsetMoved:
		res.Status = PullOffsetIllegal
	default:
		return nil, resp.Err()
	}
	var h protocol.PullResponse
	if err := protocol.ParsePullResponse(resp, &h); err != nil {
		return nil, err
	}
	res.Next, res.Min, res.Max, res.suggested = h.NextBeginOffset, h.MinOffset, h.MaxOffset, h.SuggestBrokerID
	if res.Status != PullFound {
		return res, nil
	}
	msgs, err := DecodeMessages(resp.Body, brokerName)
	if err != nil {
		if len(msgs) == 0 {
			return nil, err
		}
		// What stands before the bad record is good; the next pull meets that record alone.
		res.Next = msgs[len(msgs)-1].QueueOffset + 1
	}
	res.Messages = msgs
	return res, nil
}

// keep drops the messages that a tag subscription does not want: brokers compare hashes.
func (s *subscription) keep(msgs []*MessageExt) []*MessageExt {
	if s.tags == nil {
		return msgs
	}
	kept := msgs[:0]
	for _, m := range msgs {
		if s.wants(m.Properties.Get("TAGS")) {
			kept = append(kept, m)
		}
	}
	return kept
}
