//go:build drills

package drills

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
)

// storeCaches is what the store keeps of what was written last, and of what is not checkpointed yet.
const storeCaches = 96 << 20

// cutter passes connections on to an address and breaks them when told.
type cutter struct {
	listener net.Listener
	to       string
	group    *run.Group

	mu    sync.Mutex
	conns map[*net.TCPConn]*net.TCPConn // client's side → broker's side
	cuts  atomic.Int64
}

func newCutter(t *testing.T, listen, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	require.NoError(t, err)
	c := &cutter{listener: l, to: to, conns: map[*net.TCPConn]*net.TCPConn{}, group: run.New(context.WithoutCancel(t.Context()), "cutter")}
	c.group.Go("accept", c.accept)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		c.cut(1, rand.New(rand.NewPCG(1, 1)))
		require.NoError(t, c.group.Wait())
	})
	return c
}

func (c *cutter) accept(context.Context) error {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return nil //nolint:nilerr // the test has ended
		}
		up, err := net.Dial("tcp", c.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		a, b := in.(*net.TCPConn), up.(*net.TCPConn)
		c.mu.Lock()
		c.conns[a] = b
		c.mu.Unlock()
		c.group.Go("up", func(context.Context) error { c.pump(a, b, a); return nil })
		c.group.Go("down", func(context.Context) error { c.pump(a, a, b); return nil })
	}
}

// pump copies until one side breaks, then breaks both.
func (c *cutter) pump(key, dst, src *net.TCPConn) {
	_, _ = io.Copy(dst, src) // it ends when a side is gone
	c.mu.Lock()
	up := c.conns[key]
	delete(c.conns, key)
	c.mu.Unlock()
	_ = key.Close()
	if up != nil {
		_ = up.Close()
	}
}

// cut breaks a share of the connections, half of them with a reset in both directions.
func (c *cutter) cut(share float64, rnd *rand.Rand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for in, up := range c.conns {
		if rnd.Float64() >= share {
			continue
		}
		if rnd.IntN(2) == 0 {
			_ = in.SetLinger(0)
			_ = up.SetLinger(0)
		}
		_ = in.Close()
		_ = up.Close()
		c.cuts.Add(1)
	}
}

// Proves that the broker loses nothing, mixes nothing up and keeps nothing when connections die under
// load: 5 % of 40 of them, at random, every tenth of a second; raw producers and a push consumer alike.
func TestRobustClientsKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	// Clients are told of hostC, where connections are cut.
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	b := c.brokers[0]
	b.args = append(b.args, "--brokerIP1="+hostC)
	c.namesrvs[0].start(t)
	b.start(t)
	cutAt := at(hostC, c.ports.broker)
	cut := newCutter(t, cutAt, b.addr())
	cl := c.connect(t)
	eventually(t, 5*time.Second, "the broker is listed", func() bool { return len(listed(t, cl)) == 1 })
	createTopic(t, cl, b, "Churn", 8)
	createTopic(t, cl, b, "App", 4)
	before := b.usage(t)

	l := newLoad(t, loadOptions{topic: "Churn", addr: cutAt, queues: 8, workers: 40, window: 4, bodyBytes: 200, retry: true})
	a := newAudit(l, brokerA)
	app := c.connect(t)
	tr := newTraffic(t, app, "App")
	tr.consume(t)
	tr.produce(t)
	for range (rounds(t) + 2) / 3 {
		l.start(t)
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			cut.cut(0.05, rnd)
		}
		l.awaitAcks(t, 20)
		l.end(t)
		a.round(t, cl)
	}
	tr.awaitAcked(t, "", 50)
	tr.stopProducing(t)
	eventually(t, 60*time.Second, "everything is consumed", func() bool { return tr.missing("") == 0 })
	tr.readBack(t)
	t.Logf("%d connections cut; %+v; sends of an application that failed with all attempts: %d", cut.cuts.Load(), a.found, len(tr.failures))
	require.Positive(t, cut.cuts.Load())
	closeClient(t, app)
	require.NoError(t, l.client.Close())
	b.awaitUsage(t, before, storeCaches)
}
