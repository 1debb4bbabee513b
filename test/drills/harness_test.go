//go:build drills

package drills

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/client"
	"rmq/internal/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The hosts of a drill.
const (
	hostA = "127.0.0.1"
	hostB = "127.0.0.2"
	hostC = "127.0.0.3"
)

// rounds is how often a fault is repeated.
func rounds(t testing.TB) int {
	text := os.Getenv("RMQ_ROUNDS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "RMQ_ROUNDS is a number")
	return n
}

// ports are those of a deployment; they are the same on every host.
type ports struct {
	namesrv, broker, http, raft int
}

// freePorts gives the ports of the guides, or others where somebody on this machine has one of them. Until
// the test ends no other test gets them, though a node that is down leaves its own free.
func freePorts(t testing.TB) ports {
	t.Helper()
	claim := func(p ports) bool {
		l, err := net.Listen("tcp", at(hostA, p.namesrv-1))
		if err == nil {
			t.Cleanup(func() { _ = l.Close() }) // nothing was accepted
		}
		return err == nil
	}
	free := func(port int) bool {
		for _, host := range []string{hostA, hostB, hostC} {
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return false
			}
			require.NoError(t, l.Close())
		}
		return true
	}
	all := func(p ports) bool {
		return free(p.namesrv) && free(p.broker) && free(p.broker-2) && free(p.broker+1) && free(p.http) && free(p.raft)
	}
	p := ports{namesrv: 9876, broker: 10911, http: 9479, raft: 40911}
	// Below the range from which the kernel takes ports of outgoing connections.
	for i := 0; !claim(p) || !all(p); i++ {
		require.Less(t, i, 200, "no free ports")
		base := 11_000 + (os.Getpid()*7+i*20)%20_000
		p = ports{namesrv: base, broker: base + 4, http: base + 8, raft: base + 10}
	}
	return p
}

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// top is a path in the repository.
func top(t testing.TB, path string) string {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join("..", "..", path))
	require.NoError(t, err)
	require.FileExists(t, abs, "run `make build`")
	return abs
}

// process is a child that is ended with the test.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // set once done is closed
}

// spawn starts a program of ours with its output in a file that is shown if the test fails.
func spawn(t testing.TB, home, name string, args ...string) *process {
	t.Helper()
	return spawnFrom(t, "bin", nil, home, name, args...)
}

// spawnFrom takes the program from a directory of the repository, with more environment.
func spawnFrom(t testing.TB, bin string, env []string, home, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(t.TempDir(), name+".log"), done: make(chan struct{})}
	p.cmd = exec.Command(top(t, bin+"/"+name), args...)
	p.cmd.Env = append(append(os.Environ(), "ROCKETMQ_HOME="+home, "HOME="+home, "NAMESRV_ADDR="), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := os.Create(p.log)
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	require.NoError(t, p.cmd.Start())
	g := run.New(context.WithoutCancel(t.Context()), "child "+name)
	g.Go("wait", func(context.Context) error {
		p.err = p.cmd.Wait()
		close(p.done)
		return out.Close()
	})
	t.Cleanup(func() {
		p.terminate(t)
		require.NoError(t, g.Wait())
		if t.Failed() {
			text := p.output(t)
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), text[max(0, len(text)-6000):])
		}
	})
	return p
}

func (p *process) output(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	require.NoError(t, err)
	return string(text)
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// terminate asks the process to end and waits for it.
func (p *process) terminate(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(40 * time.Second):
		t.Errorf("%s did not end after SIGTERM", p.name)
		p.kill()
	}
}

// exit waits for the process to end by itself and gives its code.
func (p *process) exit(t testing.TB, patience time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		t.Fatalf("%s has not ended after %v:\n%s", p.name, patience, p.output(t))
	}
	return p.cmd.ProcessState.ExitCode()
}

// awaitBoot returns when the process says that it is up.
func (p *process) awaitBoot(t testing.TB) {
	t.Helper()
	require.True(t, p.boots(t), "%s ended: %v\n%s", p.name, p.err, p.output(t))
}

// boots waits until the process is up or has ended, and says which.
func (p *process) boots(t testing.TB) bool {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if strings.Contains(p.output(t), "boot success") {
			return true
		}
		select {
		case <-p.done:
			return false
		default:
			require.True(t, time.Now().Before(end), "%s is not up:\n%s", p.name, p.output(t))
		}
	}
}

// node is a place where a name server or a broker runs, stops and runs again.
type node struct {
	program, host string
	port, http    int
	dir           string // ROCKETMQ_HOME
	args          []string
	bin           string // where the program is; "": bin
	env           []string
	self          string // id in its raft group
	rebooted      bool   // it is to start as after a power cut, once
	*process
}

func (n *node) addr() string { return at(n.host, n.port) }

// start starts the node, with more flags than its own.
func (n *node) start(t testing.TB, more ...string) {
	t.Helper()
	n.process = n.launch(t, more...)
	n.awaitBoot(t)
}

// launch starts the node and does not wait.
func (n *node) launch(t testing.TB, more ...string) *process {
	t.Helper()
	env := n.env
	if n.rebooted {
		env = append(slices.Clone(env), "RMQ_FAULT_REBOOTED=1")
		n.rebooted = false
	}
	return spawnFrom(t, cmp.Or(n.bin, "bin"), env, n.dir, n.program, append(append([]string{}, n.args...), more...)...)
}

// cluster is a deployment on this machine.
type cluster struct {
	ports    ports
	namesrvs []*node
	brokers  []*node
}

// newCluster lays out name servers on the first hosts, and a broker for each configuration file on the
// first hosts too. Nothing is started. flags are given to every broker.
func newCluster(t testing.TB, namesrvs int, configs []string, flags ...string) *cluster {
	t.Helper()
	c := &cluster{ports: freePorts(t)}
	hosts := []string{hostA, hostB, hostC}
	for _, host := range hosts[:namesrvs] {
		dir := t.TempDir()
		c.namesrvs = append(c.namesrvs, &node{program: "mqnamesrv", host: host, port: c.ports.namesrv, dir: dir, args: []string{
			"--listen-port=" + strconv.Itoa(c.ports.namesrv), "--bind-address=" + host,
			"--kv-config-path=" + dir + "/kvConfig.json", "--config-store-path=" + dir + "/namesrv.properties",
		}})
	}
	for i, file := range configs {
		c.add(t, hosts[i], 0, file, flags...)
	}
	return c
}

// add lays out one more broker. Those of one host have ports that are so far apart.
func (c *cluster) add(t testing.TB, host string, apart int, file string, flags ...string) *node {
	t.Helper()
	dir := t.TempDir()
	port, http := c.ports.broker+apart, c.ports.http+apart
	n := &node{program: "mqbroker", host: host, port: port, http: http, dir: dir, args: []string{
		"-c", top(t, file), "--bind-address=" + host, "--brokerIP1=" + host, "--listen-port=" + strconv.Itoa(port),
		"--store-path-root-dir=" + dir + "/store", "--http-port=" + strconv.Itoa(http), "--http-address=" + host,
		"--mapped-file-size-commit-log=67108864", "--disk-max-used-space-ratio=95",
		"--max-transfer-count-on-message-in-memory=4096", "--max-transfer-bytes-on-message-in-memory=1048576",
		"--max-transfer-count-on-message-in-disk=4096", "--max-transfer-bytes-on-message-in-disk=1048576",
	}}
	if len(c.namesrvs) > 0 {
		n.args = append(n.args, "-n", c.nameServers())
	}
	n.args = append(n.args, flags...)
	c.brokers = append(c.brokers, n)
	return n
}

// nameServers are the addresses of all name servers.
func (c *cluster) nameServers() string {
	var addrs []string
	for _, n := range c.namesrvs {
		addrs = append(addrs, n.addr())
	}
	return strings.Join(addrs, ";")
}

// start starts everything, and waits until every name server lists every broker.
func (c *cluster) start(t testing.TB) {
	t.Helper()
	for _, n := range c.namesrvs {
		n.start(t)
	}
	for _, n := range c.brokers {
		n.start(t)
	}
	for _, ns := range c.namesrvs {
		c.awaitBrokers(t, ns, c.brokers...)
	}
}

// connect makes a client of the cluster, which asks for routes every 500 ms.
func (c *cluster) connect(t testing.TB) *client.Client { return connect(t, c.nameServers()) }

func connect(t testing.TB, nameServers string) *client.Client {
	t.Helper()
	cl, err := client.New(client.Options{NameServers: nameServers, RouteInterval: 500 * time.Millisecond, HeartbeatInterval: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { closeClient(t, cl) })
	return cl
}

// closeClient closes a client, if that has not been done.
func closeClient(t testing.TB, cl *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if err := cl.Close(ctx); err != nil && !t.Failed() {
		t.Errorf("close the client: %v", err)
	}
}

// listed are the addresses of the brokers that one name server lists.
func listed(t testing.TB, cl *client.Client) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	info, err := cl.Admin().Cluster(ctx)
	if err != nil {
		return nil
	}
	var addrs []string
	for _, b := range info.BrokerAddrTable {
		for _, a := range b.BrokerAddrs {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// awaitBrokers waits until the list of brokers of a name server is this one, 5 s at most, and returns how
// long that took.
func (c *cluster) awaitBrokers(t testing.TB, ns *node, brokers ...*node) time.Duration {
	t.Helper()
	cl := connect(t, ns.addr())
	var want []string
	for _, b := range brokers {
		want = append(want, b.addr())
	}
	began := time.Now()
	var got []string
	for ; time.Since(began) < 5*time.Second; time.Sleep(5 * time.Millisecond) {
		if got = listed(t, cl); len(got) == len(want) && subset(want, got) {
			return time.Since(began)
		}
	}
	t.Fatalf("name server %s lists the brokers %v after 5 s, not %v", ns.addr(), got, want)
	return 0
}

func subset(part, all []string) bool {
	for _, p := range part {
		found := false
		for _, a := range all {
			found = found || a == p
		}
		if !found {
			return false
		}
	}
	return true
}

// eventually polls until ok, for a bounded time.
func eventually(t testing.TB, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "after %v still not: %s", patience, what)
	}
}

// page reads an HTTP page of a node.
func (n *node) page(t testing.TB, path string) (int, string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := hc.Get("http://" + at(n.host, n.http) + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	anonBytes               int64 // RssAnon
	liveBytes               int64 // of the heap, after a collection
}

var (
	goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)
	heapLive       = regexp.MustCompile(`# HeapAlloc = (\d+)`)
)

func (n *node) usage(t testing.TB) usage {
	t.Helper()
	number := func(path string, pattern *regexp.Regexp) int64 {
		_, text := n.page(t, path)
		m := pattern.FindStringSubmatch(text)
		require.NotNil(t, m, "%.200s", text)
		v, err := strconv.ParseInt(m[1], 10, 64)
		require.NoError(t, err)
		return v
	}
	goroutines := number("/debug/pprof/goroutine?debug=1", goroutineTotal)
	live := number("/debug/pprof/heap?debug=1&gc=1", heapLive)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid))
	require.NoError(t, err)
	return usage{int(goroutines), len(fds), n.anonBytes(t), live}
}

// anonBytes is RssAnon of the process.
func (n *node) anonBytes(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	require.NoError(t, err)
	for line := range bytes.Lines(status) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	t.Fatal("no RssAnon in /proc")
	return 0
}
