package broker

import (
	"sync"
	"time"

	"rmq/remoting/protocol"
)

// lockMaxLive is how long a queue stays locked without a sign of its owner
// (rocketmq.broker.rebalance.lockMaxLiveTime).
const lockMaxLive = 60 * time.Second

// RebalanceLockManager gives each queue of a group to one client at a time, for consumption in order
// (org.apache.rocketmq.broker.client.rebalance.RebalanceLockManager). Locks are in memory only: after a
// restart every queue is free. Safe for concurrent use.
type RebalanceLockManager struct {
	clock func() time.Time

	mu     sync.Mutex
	groups map[string]map[protocol.MessageQueue]queueLock
}

type queueLock struct {
	owner string
	seen  time.Time
}

func newRebalanceLockManager(clock func() time.Time) *RebalanceLockManager {
	return &RebalanceLockManager{clock: clock, groups: map[string]map[protocol.MessageQueue]queueLock{}}
}

// TryLockBatch locks queues for a client, renews those that it holds, and returns those that it holds now.
func (m *RebalanceLockManager) TryLockBatch(group string, queues []protocol.MessageQueue, clientID string) []protocol.MessageQueue {
	now := m.clock()
	held := make([]protocol.MessageQueue, 0, len(queues))
	m.mu.Lock()
	defer m.mu.Unlock()
	locks := m.groups[group]
	if locks == nil {
		locks = map[protocol.MessageQueue]queueLock{}
		m.groups[group] = locks
	}
	for _, q := range queues {
		l, locked := locks[q]
		if locked && l.owner != clientID && now.Sub(l.seen) <= lockMaxLive {
			continue
		}
		locks[q] = queueLock{clientID, now}
		held = append(held, q)
	}
	return held
}

// UnlockBatch frees those of the queues that the client holds.
func (m *RebalanceLockManager) UnlockBatch(group string, queues []protocol.MessageQueue, clientID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	locks := m.groups[group]
	for _, q := range queues {
		if locks[q].owner == clientID {
			delete(locks, q)
		}
	}
	if len(locks) == 0 {
		delete(m.groups, group)
	}
}

// HasUnexpired says whether any queue of the group is locked.
func (m *RebalanceLockManager) HasUnexpired(group string) bool {
	now := m.clock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.groups[group] {
		if now.Sub(l.seen) <= lockMaxLive {
			return true
		}
	}
	return false
}

// expire forgets locks that are no longer worth anything.
func (m *RebalanceLockManager) expire() {
	now := m.clock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for group, locks := range m.groups {
		for q, l := range locks {
			if now.Sub(l.seen) > lockMaxLive {
				delete(locks, q)
			}
		}
		if len(locks) == 0 {
			delete(m.groups, group)
		}
	}
}
