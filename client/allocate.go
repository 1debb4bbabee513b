package client

import "slices"

// AllocateStrategy says which of a topic's queues a member of a group takes. Every member computes
// it for itself, so it must be a pure function, the same in all members; queues and clients come
// sorted. The result may alias queues. A client that is not among clients takes none.
type AllocateStrategy func(clientID string, queues []MessageQueue, clients []string) []MessageQueue

// AllocateAveragely gives every member a run of neighbouring queues, the first members one more
// where the count does not divide (org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely,
// the default of Java clients: mixed groups agree).
func AllocateAveragely(clientID string, queues []MessageQueue, clients []string) []MessageQueue {
	i := slices.Index(clients, clientID)
	if i < 0 || len(queues) == 0 {
		return nil
	}
	each, more := len(queues)/len(clients), len(queues)%len(clients)
	start := i*each + min(i, more)
	end := start + each
	if i < more {
		end++
	}
	return queues[start:end]
}

// AllocateCircle deals the queues out one by one, like cards (AllocateMessageQueueAveragelyByCircle).
func AllocateCircle(clientID string, queues []MessageQueue, clients []string) []MessageQueue {
	i := slices.Index(clients, clientID)
	if i < 0 {
		return nil
	}
	var mine []MessageQueue
	for ; i < len(queues); i += len(clients) {
		mine = append(mine, queues[i])
	}
	return mine
}
