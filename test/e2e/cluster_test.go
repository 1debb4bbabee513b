package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/broker"
	"rmq/client"
	"rmq/internal/config"
	"rmq/namesrv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a name server and brokers in this process, with files under a directory of the test.
type cluster struct {
	t       *testing.T
	namesrv string
	dir     string
	brokers map[string]*node
	log     *slog.Logger
}

type node struct {
	*broker.Broker
	port    int
	stopped bool
}

func startCluster(t *testing.T, brokers ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), brokers: map[string]*node{}, log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		c.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, _, err := namesrv.LoadConfig(namesrv.LoadOptions{Getenv: noEnv, Flags: flags(map[string]string{
		"listenPort": strconv.Itoa(freePort(t)), "bindAddress": "127.0.0.1", "kvConfigPath": filepath.Join(c.dir, "kv.json"), "configStorePath": filepath.Join(c.dir, "namesrv.properties"),
	})})
	require.NoError(t, err)
	ns, err := namesrv.Start(context.Background(), namesrv.Options{Settings: s, Logger: c.log})
	require.NoError(t, err)
	c.namesrv = ns.Addr().String()
	t.Cleanup(func() { // after the clients, which are made later
		for _, n := range c.brokers {
			n.stop(t)
		}
		require.NoError(t, patiently(ns.Shutdown))
	})
	for _, name := range brokers {
		c.start(name)
	}
	return c
}

func noEnv(string) string { return "" }

func flags(values map[string]string) (out []config.Setting) {
	for k, v := range values {
		out = append(out, config.Setting{Key: k, Value: v, From: config.FromFlag(k)})
	}
	return out
}

func patiently(stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return stop(ctx)
}

// freePort finds a port that is free together with the one two below, which the broker's fast port takes.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		for _, other := range []int{port - 2, port + 2} { // the fast port, and that of replication, where outgoing connections have none
			var more net.Listener
			if err == nil {
				if more, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", other)); err == nil {
					_ = more.Close()
				}
			}
		}
		_ = l.Close()
		if err == nil {
			return port
		}
	}
	require.FailNow(t, "no two free ports")
	return 0
}

// start runs a broker of that name, again over the same files and port if it ran before. Delay levels take a second.
func (c *cluster) start(name string) *node {
	c.t.Helper()
	port := 0
	if old := c.brokers[name]; old != nil {
		port = old.port
	} else {
		port = freePort(c.t)
	}
	s, _, err := broker.LoadConfig(broker.LoadOptions{Getenv: noEnv, Strict: true, Flags: flags(map[string]string{
		"storePathRootDir": filepath.Join(c.dir, name), "brokerIP1": "127.0.0.1", "bindAddress": "127.0.0.1", "brokerName": name, "namesrvAddr": c.namesrv,
		"listenPort": strconv.Itoa(port), "haListenPort": strconv.Itoa(port + 2), "mappedFileSizeCommitLog": strconv.Itoa(16 << 20), "mappedFileSizeConsumeQueue": "200000", "maxHashSlotNum": "1000", "maxIndexNum": "4000",
		"messageDelayLevel": strings.TrimSpace(strings.Repeat("1s ", 18)),
	})})
	require.NoError(c.t, err)
	b, err := broker.New(broker.Options{Settings: s, Logger: c.log})
	require.NoError(c.t, err)
	require.NoError(c.t, b.Start(context.Background()))
	n := &node{Broker: b, port: port}
	c.brokers[name] = n
	return n
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if !n.stopped {
		n.stopped = true
		require.NoError(t, patiently(n.Shutdown))
	}
}

func (n *node) addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

// client makes a client of the cluster, closed when the test ends.
func (c *cluster) client() *client.Client {
	c.t.Helper()
	cl, err := client.New(client.Options{NameServers: c.namesrv, RouteInterval: 100 * time.Millisecond, HeartbeatInterval: time.Second, Logger: c.log})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { require.NoError(c.t, patiently(cl.Close)) })
	return cl
}
