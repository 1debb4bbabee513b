//go:build drills

package drills

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proves that a broker which is told to stop at full load answers everything that it stores before it
// ends, well and soon: no producer is left to guess about a message that is there.
func TestDrillStopUnderLoad(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	cl := c.connect(t)
	b := c.brokers[0]
	createTopic(t, cl, b, "Stop", 8)
	l := newLoad(t, loadOptions{topic: "Stop", addr: b.addr(), queues: 8, workers: 4, window: 64, bodyBytes: 160})
	a := newAudit(l, brokerA)
	modes := []string{"--flush-disk-type=ASYNC_FLUSH", "--flush-disk-type=SYNC_FLUSH"}
	for round := range 2 * rounds(t) {
		l.start(t)
		l.awaitAcks(t, 1000)
		began := time.Now()
		mqshutdown(t, b, "broker")
		took := time.Since(began)
		b.start(t, modes[round%2])
		l.awaitAcks(t, 100)
		l.end(t)
		a.round(t, cl)
		t.Logf("stopped in %v: %+v", took, a.found)
	}
	for what, n := range l.trouble() {
		t.Logf("%d times %s", n, what)
	}
	require.Zero(t, a.found.UnknownStored, "messages that are stored and were not answered")
}
