package broker

import (
	"context"
	"io"
	"net"
	"path"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// silentMaster is the replication port of a master that greets nobody, as one of Apache, and has an empty log.
func silentMaster(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := run.New(t.Context(), "silent master")
	g.Go("accept", func(context.Context) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return nil //nolint:nilerr // the test has ended
			}
			g.Go("drain", func(context.Context) error {
				_, _ = io.Copy(io.Discard, c) // until the slave leaves
				return c.Close()
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		require.NoError(t, g.Wait())
	})
	return l.Addr().String()
}

// Proves that a slave with haMasterAddress takes topics from where name servers say that its silent master answers
// clients, and from elsewhere once that is named: the log stays with the configured address.
func TestMasterComesBackElsewhere(t *testing.T) {
	dir := t.TempDir()
	ns := startNamesrv(t, "")
	first := startBroker(t, Options{Settings: settings(t, path.Join(dir, "first"))})
	second := startBroker(t, Options{Settings: settings(t, path.Join(dir, "second"))})
	for name, b := range map[string]*Broker{"First": first, "Second": second} {
		c := connect(t, b)
		c.require(c.call(topicRequest(name)), protocol.ResponseSuccess)
	}
	ha := silentMaster(t)
	slave := startBroker(t, Options{Settings: settings(t, path.Join(dir, "slave"), "brokerRole=SLAVE", "brokerId=1", "haMasterAddress="+ha, "namesrvAddr="+ns.addr)})
	follows := func(topic string, m *Broker) {
		t.Helper()
		require.Eventually(t, func() bool {
			return slave.Topics.Get(topic) != nil && slave.store.Status().Client == m.conf().clientAddr()
		}, 30*time.Second, 5*time.Millisecond, topic)
		require.Equal(t, ha, *slave.haMaster.Load())
	}
	ns.name(first.conf().clientAddr())
	follows("First", first)
	ns.name(second.conf().clientAddr())
	require.NoError(t, stopBroker(first))
	follows("Second", second)
}

// Proves that a slave whose name servers know no master finds where the one at haMasterAddress answers clients, if that
// is one port below and it is the master of its name.
func TestMasterFoundBeside(t *testing.T) {
	dir := t.TempDir()
	for _, other := range []bool{false, true} {
		port := ports(t)
		ha := strconv.Itoa(port + 1)
		name := map[bool]string{false: "broker-a", true: "broker-b"}[other]
		master := startBroker(t, Options{Settings: settings(t, path.Join(dir, name), "listenPort="+strconv.Itoa(port), "haListenPort="+ha, "brokerName="+name)})
		c := connect(t, master)
		c.require(c.call(topicRequest("T")), protocol.ResponseSuccess)
		silent := silentMaster(t) // in the place of its replication port
		slave := startBroker(t, Options{
			Settings: settings(t, path.Join(dir, name+"-slave"), "brokerRole=SLAVE", "brokerId=1", "haMasterAddress=127.0.0.1:"+ha),
			Dial: func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", silent)
			},
		})
		found := func() bool {
			return slave.Topics.Get("T") != nil && slave.store.Status().Client == master.conf().clientAddr()
		}
		if other {
			slave.guessMaster(t.Context())
			require.Empty(t, slave.store.Status().Client, "a master of another name")
			continue
		}
		require.Eventually(t, found, 30*time.Second, 5*time.Millisecond)
	}
}
