package client

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"time"

	"rmq/remoting/protocol"
)

// reset goes on at other offsets in the queues of a topic, as an operator has asked (220).
func (p *PushConsumer) reset(ctx context.Context, topic string, offsets map[MessageQueue]int64) {
	for q, o := range offsets {
		h := p.find(q)
		if h == nil || q.Topic != topic {
			continue
		}
		p.c.opt.Logger.Info("offset reset", "group", p.opt.Group, "queue", q, "to", o)
		p.moveTo(ctx, h, o)
	}
}

// offsets are those that the consumer has come to in the queues of a topic (221).
func (p *PushConsumer) offsets(topic string) map[MessageQueue]int64 {
	out := map[MessageQueue]int64{}
	for _, q := range p.assigned() {
		if q.Topic == topic {
			if o, ok := p.store.noted(q); ok {
				out[q] = o
			}
		}
	}
	return out
}

func (p *PushConsumer) helds() []*held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.queues))
}

// runningInfo is what operators see of the consumer (307).
func (p *PushConsumer) runningInfo() *protocol.ConsumerRunningInfo {
	p.mu.Lock()
	started := p.started
	p.mu.Unlock()
	info := newRunningInfo(p.c.properties(protocol.ConsumePassively, p.opt.Ordered, p.opt.Concurrency, started.UnixMilli()), p.subscriptions(), p.stats.table(time.Now()))
	for _, h := range p.helds() {
		q := h.pq.info(time.Now())
		q.CommitOffset, _ = p.store.noted(h.pq.queue)
		info.MQTable[h.pq.queue] = q
	}
	return info
}

func newRunningInfo(properties map[string]string, subs []*subscription, status map[string]protocol.ConsumeStatus) *protocol.ConsumerRunningInfo {
	info := &protocol.ConsumerRunningInfo{
		Properties: properties, SubscriptionSet: []protocol.SubscriptionData{}, MQTable: map[MessageQueue]protocol.ProcessQueueInfo{},
		MQPopTable: map[MessageQueue]protocol.PopProcessQueueInfo{}, StatusTable: status, UserConsumerInfo: map[string]string{},
	}
	for _, s := range subs {
		info.SubscriptionSet = append(info.SubscriptionSet, *s.data)
	}
	return info
}

func (p *processQueue) info(now time.Time) protocol.ProcessQueueInfo {
	locked := p.locked(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	i := protocol.ProcessQueueInfo{
		CachedMsgCount: int32(p.count), CachedMsgSizeInMiB: int32(p.bytes >> 20), Locked: locked, TryUnlockTimes: 0, Dropped: p.dropped,
		LastPullTimestamp: p.lastPull.UnixMilli(), LastConsumeTimestamp: p.lastConsume.UnixMilli(),
	}
	if !p.lastLock.IsZero() {
		i.LastLockTimestamp = p.lastLock.UnixMilli()
	}
	if p.count > 0 {
		i.CachedMsgMinOffset, i.CachedMsgMaxOffset = p.first(), p.next-1
	}
	return i
}

// consumeDirectly gives one message to the handler at an operator's wish and says how that went (309). It
// moves no offset.
func (p *PushConsumer) consumeDirectly(_ context.Context, m *MessageExt) *protocol.ConsumeMessageDirectlyResult {
	m.restoreTopic(p.opt.Group)
	began := time.Now()
	err := p.handle(p.work.Context(), []*MessageExt{m})
	res := &protocol.ConsumeMessageDirectlyResult{Order: p.opt.Ordered, AutoCommit: true, ConsumeResult: protocol.CMSuccess, SpentTimeMills: time.Since(began).Milliseconds()}
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked):
		res.ConsumeResult, res.Remark = protocol.CMThrowException, err.Error()
	case err != nil:
		res.ConsumeResult, res.Remark = protocol.CMLater, err.Error()
	}
	return res
}

// stacks are those of all goroutines.
func stacks() string {
	b := make([]byte, 64<<10)
	for {
		n := runtime.Stack(b, true)
		if n < len(b) || len(b) >= 4<<20 {
			return string(b[:n])
		}
		b = make([]byte, 2*len(b))
	}
}
