//go:build drills

package drills

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const brokerB = "broker-b"

// mqshutdown runs the command for a node, as an operator does.
func mqshutdown(t testing.TB, n *node, role string) {
	t.Helper()
	cmd := exec.Command(top(t, "bin/mqshutdown"), role)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+n.dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, 0, n.exit(t, 10*time.Second), "mqshutdown returned before the process had ended")
}

// clusterList is what an operator sees.
func clusterList(t testing.TB, ns *node) string {
	t.Helper()
	cmd := exec.Command(top(t, "bin/mqadmin"), "clusterList", "-n", ns.addr())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// awaitRoutes waits until one name server knows a topic at so many brokers, and returns how long after
// from that was.
func awaitRoutes(t testing.TB, ns *node, topic string, brokers int, from time.Time) time.Duration {
	t.Helper()
	cl := connect(t, ns.addr())
	eventually(t, 30*time.Second, ns.addr()+" knows "+topic, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := cl.Admin().Route(ctx, topic)
		return err == nil && len(r.BrokerDatas) == brokers
	})
	return time.Since(from)
}

// Proves, for conf/single, that a name server which comes back empty has its routes within a second while
// nobody notices, that a broker which is killed delivers what was not read once it is back, and that
// mqshutdown ends both; no acknowledged message is lost.
func TestDrillSingle(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	ns, b := c.namesrvs[0], c.brokers[0]
	c.start(t)
	cl := c.connect(t)
	createTopic(t, cl, b, "Single", 4)
	tr := newTraffic(t, cl, "Single")
	tr.consume(t)
	tr.produce(t)
	tr.awaitAcked(t, "", 500)

	ns.kill()
	tr.awaitAcked(t, "", 500)
	ns.start(t)
	back := awaitRoutes(t, ns, "Single", 1, time.Now())
	t.Logf("an empty name server has its routes after %v", back)
	require.Less(t, back, time.Second)
	tr.awaitAcked(t, "", 500)
	tr.noFailures(t, "a name server is killed and comes back empty")

	b.kill()
	c.awaitBrokers(t, ns)
	b.start(t)
	c.awaitBrokers(t, ns, b)
	tr.awaitAcked(t, "", 500)
	tr.stopProducing(t)
	eventually(t, 30*time.Second, "everything is consumed", func() bool { return tr.missing("") == 0 })

	mqshutdown(t, b, "broker")
	c.awaitBrokers(t, ns)
	b.start(t)
	c.awaitBrokers(t, ns, b)
	tr.readBack(t)
	closeClient(t, cl)
	mqshutdown(t, ns, "namesrv")
}

// Proves, for conf/2m-noslave with two name servers, that writes go on when one master is killed, that its
// unread backlog waits and is delivered after the restart, that both name servers list the right brokers
// within 5 s, that nobody notices when one of the name servers is killed, and that one which comes back
// empty has its routes within a second. Every acknowledged message is read back at the end.
func TestDrillTwoMasters(t *testing.T) {
	c := newCluster(t, 2, []string{"conf/2m-noslave/broker-a.properties", "conf/2m-noslave/broker-b.properties"})
	a, b := c.brokers[0], c.brokers[1]
	c.start(t)
	cl := c.connect(t)
	createTopic(t, cl, a, "Two", 4)
	createTopic(t, cl, b, "Two", 4)
	for _, ns := range c.namesrvs {
		awaitRoutes(t, ns, "Two", 2, time.Now())
	}
	tr := newTraffic(t, cl, "Two")
	tr.produce(t)
	tr.awaitAcked(t, brokerA, 1000)
	tr.awaitAcked(t, brokerB, 1000)

	b.kill()
	for _, ns := range c.namesrvs {
		t.Logf("%s lists one master after %v", ns.addr(), c.awaitBrokers(t, ns, a))
		list := clusterList(t, ns)
		require.Contains(t, list, a.addr())
		require.NotContains(t, list, b.addr())
	}
	tr.awaitAcked(t, brokerA, 1000)
	tr.noFailures(t, "one of two masters is killed")
	tr.consume(t)
	eventually(t, 30*time.Second, "what is at the living master is consumed", func() bool { return tr.missing(brokerA) < 100 })
	require.Positive(t, tr.missing(brokerB), "the backlog of the dead master")

	dead, alive := c.namesrvs[0], c.namesrvs[1]
	dead.kill()
	tr.awaitAcked(t, "", 1000)
	createTopic(t, cl, a, "Later", 1)
	late := newTraffic(t, c.connect(t), "Later") // a client that starts now, with both addresses
	late.consume(t)
	late.produce(t)
	late.awaitAcked(t, "", 100)
	late.stopProducing(t)
	eventually(t, 30*time.Second, "a new topic is consumed", func() bool { return late.missing("") == 0 })
	late.noFailures(t, "one of two name servers is dead")
	tr.noFailures(t, "one of two name servers is killed")

	b.start(t)
	t.Logf("both masters are listed after %v", c.awaitBrokers(t, alive, a, b))
	list := clusterList(t, alive)
	require.Contains(t, list, a.addr())
	require.Contains(t, list, b.addr())
	eventually(t, 30*time.Second, "the backlog is consumed", func() bool { return tr.missing(brokerB) < 100 })
	tr.awaitAcked(t, brokerB, 1000)
	dead.start(t)
	back := awaitRoutes(t, dead, "Two", 2, time.Now())
	t.Logf("an empty name server has the routes of both after %v", back)
	require.Less(t, back, time.Second)
	c.awaitBrokers(t, dead, a, b)

	tr.noFailures(t, "the whole drill")
	tr.stopProducing(t)
	eventually(t, 30*time.Second, "everything is consumed", func() bool { return tr.missing("") == 0 })
	tr.readBack(t)
	late.readBack(t)
	closeClient(t, cl)
	closeClient(t, late.cl)
	for _, n := range []*node{a, b} {
		mqshutdown(t, n, "broker")
	}
	for _, ns := range c.namesrvs {
		c.awaitBrokers(t, ns)
	}
}
