//go:build interop

package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// line is a release line of Apache RocketMQ, by the name of its folder in java/target.
type line string

const (
	client49 line = "client49"
	client54 line = "client54"
	server49 line = "server49"
	server54 line = "server54"
)

// java prepares a run of a class with the jars of a release line. Its HOME is a folder of the test.
func (l line) java(t *testing.T, heap string, props []string, class string, args ...string) *exec.Cmd {
	t.Helper()
	target, err := filepath.Abs(filepath.Join("java", "target", string(l)))
	require.NoError(t, err)
	path, err := os.ReadFile(filepath.Join(target, "classpath"))
	require.NoError(t, err, "run `make interop`, which builds the harness")
	argv := []string{"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Duser.home=" + t.TempDir()}
	for _, open := range []string{"java.nio", "sun.nio.ch", "jdk.internal.ref"} {
		argv = append(argv, "--add-opens", "java.base/"+open+"=ALL-UNNAMED")
	}
	argv = append(argv, props...)
	argv = append(argv, "-cp", filepath.Join(target, "classes")+":"+strings.TrimSpace(string(path)), class)
	return exec.Command("java", append(argv, args...)...)
}

// process is a child that is ended with the test.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // set once done is closed
}

// start runs cmd with its output in a file that is shown if the test fails.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: filepath.Join(t.TempDir(), name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	go func() {
		p.err = cmd.Wait()
		_ = out.Close() // the child's
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("%s:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	return p
}

// stop ends the process the polite way, then the other. Apache's brokers take their time now and then.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Errorf("%s did not end after SIGTERM", p.cmd.Path)
		p.kill()
	}
}

// kill ends the process at once and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// awaitPort returns when something listens on addr.
func (p *process) awaitPort(t *testing.T, addr string, patience time.Duration) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close() // only asked
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended: %v", p.cmd.Path, p.err)
		default:
			require.True(t, time.Now().Before(end), "%s does not listen on %s", p.cmd.Path, addr)
		}
	}
}

// handed are the ports that this process has given out; those of a broker that is stopped stay its own.
var handed = map[int]bool{}

// ports finds n consecutive free ports, below those that the kernel gives to outgoing connections.
func ports(t *testing.T, n int) int {
	t.Helper()
next:
	for range 1000 {
		first := 12_000 + rand.IntN(20_000)
		for i := range n {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first+i))
			if err != nil {
				continue next
			}
			require.NoError(t, l.Close())
			if handed[first+i] {
				continue next
			}
		}
		for i := range n {
			handed[first+i] = true
		}
		return first
	}
	t.Fatal("no free ports")
	return 0
}

// write makes a file of properties.
func write(t *testing.T, name string, lines ...string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	return name
}

// bin is the path of one of our programs, built by make.
func bin(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", name))
	require.NoError(t, err)
	require.FileExists(t, path, "run `make build`")
	return path
}

// node is a NameServer or a broker that runs.
type node struct {
	*process
	addr string
	dir  string // ROCKETMQ_HOME
}

// ourNamesrv starts mqnamesrv.
func ourNamesrv(t *testing.T) *node {
	t.Helper()
	port, dir := ports(t, 1), t.TempDir()
	conf := write(t, "namesrv.properties", "listenPort="+strconv.Itoa(port), "bindAddress=127.0.0.1", "kvConfigPath="+dir+"/kvConfig.json")
	cmd := exec.Command(bin(t, "mqnamesrv"), "-c", conf)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
	n := &node{start(t, "mqnamesrv", cmd), "127.0.0.1:" + strconv.Itoa(port), dir}
	n.awaitPort(t, n.addr, 10*time.Second)
	return n
}

// apacheNamesrv starts the NameServer of Apache 5.
func apacheNamesrv(t *testing.T) *node {
	t.Helper()
	return server54.namesrv(t)
}

// home is a ROCKETMQ_HOME with the files of logging that 4.9 does not start without.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	for _, name := range []string{"logback_namesrv.xml", "logback_broker.xml"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "conf", name), []byte("<configuration><root level=\"OFF\"/></configuration>\n"), 0o644))
	}
	return dir
}

// namesrv starts the NameServer of a release line.
func (l line) namesrv(t *testing.T) *node {
	t.Helper()
	port, dir := ports(t, 1), home(t)
	conf := write(t, "namesrv.properties", "listenPort="+strconv.Itoa(port), "kvConfigPath="+dir+"/kvConfig.json")
	cmd := l.java(t, "128m", []string{"-Drocketmq.home.dir=" + dir}, "org.apache.rocketmq.namesrv.NamesrvStartup", "-c", conf)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
	n := &node{start(t, "apache-namesrv", cmd), "127.0.0.1:" + strconv.Itoa(port), dir}
	n.awaitPort(t, n.addr, 60*time.Second)
	return n
}

// brokerConf are the properties with which both kinds of broker start.
func brokerConf(t *testing.T, namesrv, store string, port int, more ...string) string {
	t.Helper()
	return write(t, "broker.conf", append([]string{
		"brokerClusterName=DefaultCluster", "brokerName=broker-a", "brokerId=0", "namesrvAddr=" + namesrv,
		"brokerIP1=127.0.0.1", "bindAddress=127.0.0.1", "listenPort=" + strconv.Itoa(port), "haListenPort=" + strconv.Itoa(port+1),
		"storePathRootDir=" + store, "storePathCommitLog=" + store + "/commitlog", "mappedFileSizeCommitLog=67108864",
		"autoCreateTopicEnable=true", "diskMaxUsedSpaceRatio=95",
	}, more...)...)
}

// ourBroker starts mqbroker on a store directory.
func ourBroker(t *testing.T, namesrv, store string, more ...string) *node {
	t.Helper()
	port := ports(t, 4) + 2
	return ourBrokerAt(t, port, brokerConf(t, namesrv, store, port, more...))
}

// ourBrokerAt starts mqbroker with a configuration that names the port.
func ourBrokerAt(t *testing.T, port int, conf string) *node {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(bin(t, "mqbroker"), "-c", conf)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
	n := &node{start(t, "mqbroker", cmd), "127.0.0.1:" + strconv.Itoa(port), dir}
	n.awaitPort(t, n.addr, 20*time.Second)
	return n
}

// apacheBroker starts the broker of Apache 5 on a store directory.
func apacheBroker(t *testing.T, namesrv, store string, more ...string) *node {
	t.Helper()
	return server54.broker(t, namesrv, store, more...)
}

// broker starts the broker of a release line on a store directory.
func (l line) broker(t *testing.T, namesrv, store string, more ...string) *node {
	t.Helper()
	port := ports(t, 4) + 2
	return l.brokerAt(t, port, brokerConf(t, namesrv, store, port, append(more, "useEpollNativeSelector=false")...))
}

// brokerAt starts the broker of a release line with a configuration that names the port.
func (l line) brokerAt(t *testing.T, port int, conf string) *node {
	t.Helper()
	dir := home(t)
	cmd := l.java(t, "512m", []string{"-Drocketmq.home.dir=" + dir, "-XX:MaxDirectMemorySize=512m"}, "org.apache.rocketmq.broker.BrokerStartup", "-c", conf)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
	n := &node{start(t, "apache-broker", cmd), "127.0.0.1:" + strconv.Itoa(port), dir}
	n.awaitPort(t, n.addr, 90*time.Second)
	return n
}

// suite runs the JUnit suite of a client line against a cluster; each of its tests becomes one here.
func suite(t *testing.T, l line, namesrv string, only ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	run := l.java(t, "384m", []string{"-Dnamesrv=" + namesrv, "-Drocketmq.client.logUseSlf4j=true"}, "suite.Main", only...)
	cmd := exec.CommandContext(ctx, run.Path, run.Args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit), "%v", err)
	ended := false
	sc := bufio.NewScanner(&stdout)
	sc.Buffer(nil, 64<<20) // the client of 4.9 prints a message that was refused
	for sc.Scan() {
		verdict, rest, _ := strings.Cut(sc.Text(), " ")
		name, what, _ := strings.Cut(rest, " ")
		switch verdict {
		case "PASS":
			t.Run(name, func(t *testing.T) { t.Log(what) })
		case "FAIL":
			t.Run(name, func(t *testing.T) { t.Error(strings.ReplaceAll(what, " | ", "\n")) })
		case "END":
			ended = true
			t.Log(rest)
		}
	}
	require.True(t, ended, "the suite did not end: %v\n%s", err, stderr.String())
}

// admin runs a stock mqadmin subcommand and returns what it printed.
func (l line) admin(t *testing.T, namesrv string, args ...string) string {
	t.Helper()
	cmd := l.java(t, "192m", []string{"-Drocketmq.client.logUseSlf4j=true"}, "org.apache.rocketmq.tools.command.MQAdminStartup", append(args, "-n", namesrv)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// awaitRoute returns when a NameServer knows a broker.
func awaitRoute(t *testing.T, l line, namesrv, broker string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return strings.Contains(l.admin(t, namesrv, "clusterList"), broker)
	}, time.Minute, time.Second, "%s at %s", broker, namesrv)
}
