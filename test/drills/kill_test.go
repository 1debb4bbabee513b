//go:build drills

package drills

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

const brokerA = "broker-a" // the name in conf/single and conf/2m-noslave

// createTopic makes a topic at a broker.
func createTopic(t testing.TB, cl *client.Client, n *node, topic string, queues int32) {
	t.Helper()
	require.NoError(t, tryCreateTopic(t, cl, n, topic, queues))
}

func tryCreateTopic(t testing.TB, cl *client.Client, n *node, topic string, queues int32) error {
	return cl.Admin().CreateTopic(t.Context(), n.addr(), protocol.NewTopicConfig(topic, queues), "")
}

// Proves that kill -9 of the broker at full load loses no acknowledged message, with the disk flushed or
// not before the answer, keeps the order of every queue and connection, and stores nothing twice that was
// not sent twice; audited over the wire after each of RMQ_ROUNDS kills, and once more at the end.
func TestRobustKillUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	cl := c.connect(t)
	b := c.brokers[0]
	createTopic(t, cl, b, "Kill", 8)
	l := newLoad(t, loadOptions{topic: "Kill", addr: b.addr(), queues: 8, workers: 4, window: 64, bodyBytes: 160, retry: true})
	a := newAudit(l, brokerA)
	modes := []string{"--flush-disk-type=ASYNC_FLUSH", "--flush-disk-type=SYNC_FLUSH"}
	for round := range rounds(t) {
		l.start(t)
		l.awaitAcks(t, 500)
		time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond) // when the kill falls, not a wait for anything
		b.kill()
		b.start(t, modes[round%2])
		l.awaitAcks(t, 200)
		l.end(t)
		a.round(t, cl)
	}
	a.again(t, cl)
	t.Logf("%d rounds: %+v", rounds(t), a.found)
	for what, n := range l.trouble() {
		t.Logf("%d times %s", n, what)
	}
	t.Logf("connections of each: %d", l.workers[0].conns.Load())
	require.Positive(t, a.found.Unknown, "no kill met a message under way")
}
