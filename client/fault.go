package client

import (
	"sync"
	"time"
)

// faultTable keeps producers away from brokers that were slow or failed, for a time that grows with
// how slow they were (org.apache.rocketmq.client.latency.MQFaultStrategy). Safe for concurrent use.
type faultTable struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// faultSteps are what Java takes: from this latency on, stay away for so long.
var faultSteps = [...]struct{ latency, away time.Duration }{
	{15 * time.Second, 30 * time.Second}, {5 * time.Second, 10 * time.Second}, {3 * time.Second, 6 * time.Second},
	{1800 * time.Millisecond, 5 * time.Second}, {550 * time.Millisecond, 2 * time.Second},
}

// failureLatency is what a send without an answer counts as.
const failureLatency = 10 * time.Second

func (f *faultTable) note(brokerName string, latency time.Duration, now time.Time) {
	for _, s := range faultSteps {
		if latency >= s.latency {
			f.mu.Lock()
			if f.until == nil {
				f.until = map[string]time.Time{}
			}
			f.until[brokerName] = now.Add(s.away)
			f.mu.Unlock()
			return
		}
	}
	f.mu.Lock()
	delete(f.until, brokerName)
	f.mu.Unlock()
}

func (f *faultTable) usable(brokerName string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !now.Before(f.until[brokerName])
}
