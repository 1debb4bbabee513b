package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rmq/bench"
	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/results"
)

// cluster is what is loaded: children of this process, or somebody else's.
type cluster struct {
	brokers  []string // masters
	topology string
	config   map[string]string
	namesrv  string   // of ours
	pids     []int    // of brokers of somebody else's on this machine
	children []*child // in the order of their start
	store    string   // directory of the store of a broker of ours
}

// child is a process of ours that runs.
type child struct {
	cmd    *exec.Cmd
	log    string
	reaper *run.Group
	done   chan struct{}
	err    error // set once done is closed
}

// startChild runs a program whose output goes to a file.
func startChild(dir, name string, cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	c.reaper = run.New(context.Background(), "wire/"+name)
	c.reaper.Go("reaper", func(context.Context) error {
		// The kernel sends Pdeathsig when the thread ends that started the child; those of the pacing
		// workers do end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := cmd.Start()
		_ = out.Close() // the child has it
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
		return nil
	})
	if err := <-started; err != nil {
		_ = c.reaper.Wait() // it returns nil
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// end asks the process to stop, and waits for it.
func (c *child) end() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.done:
	case <-time.After(openTimeout):
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("%s did not stop within %v and was killed", c.cmd.Path, openTimeout)
	}
	_ = c.reaper.Wait() // it returns nil
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.cmd.Path), c.err, c.lastLines())
	}
	return nil
}

// lastLines is the end of what the process printed.
func (c *child) lastLines() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// program is the path of one of our programs.
func (d Driver) program(name string) (string, error) {
	dir := d.BinDir
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there: build it with `make build`, or name a running cluster with --target", path)
	}
	return path, nil
}

// freePorts finds n consecutive ports that nobody listens on.
func freePorts(ctx context.Context, n int) (int, error) {
	var lc net.ListenConfig
next:
	for range 100 {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		first := l.Addr().(*net.TCPAddr).Port
		_ = l.Close() // only asked
		if first+n > 65_000 {
			continue
		}
		for i := range n {
			l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(first+i))
			if err != nil {
				continue next
			}
			_ = l.Close() // only asked
		}
		return first, nil
	}
	return 0, errors.New("no free ports on 127.0.0.1")
}

// awaitAnswer returns when a request to addr is answered, or the child has ended.
func (c *child) awaitAnswer(ctx context.Context, addr string, code protocol.RequestCode) error {
	client, err := remoting.NewClient(ctx, remoting.ClientOptions{Name: "wire-await", DialTimeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // it only asked
	for end := time.Now().Add(openTimeout); ; {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Call(try, addr, protocol.NewRequest(code))
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer at %s: %w: %s", filepath.Base(c.cmd.Path), addr, err, c.lastLines())
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended: %w: %s", filepath.Base(c.cmd.Path), c.err, c.lastLines())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// startBroker starts a NameServer and a broker of ours in an empty directory.
func startBroker(ctx context.Context, d Driver, c bench.Config) (_ *cluster, err error) {
	cl := &cluster{topology: "namesrv, 1 broker", store: filepath.Join(c.Dir, "store")}
	defer func() {
		if err != nil {
			err = errors.Join(err, cl.stop())
		}
	}()
	port, err := freePorts(ctx, 5) // NameServer, fast port, (unused), broker, high availability
	if err != nil {
		return nil, err
	}
	ns := "127.0.0.1:" + strconv.Itoa(port)
	conf := filepath.Join(c.Dir, "namesrv.properties")
	if err := writeLines(conf, "bindAddress=127.0.0.1", "listenPort="+strconv.Itoa(port), "kvConfigPath="+filepath.Join(c.Dir, "kvConfig.json")); err != nil {
		return nil, err
	}
	if err := cl.launch(ctx, d, c.Dir, "mqnamesrv", ns, protocol.RequestGetBrokerClusterInfo, "-c", conf); err != nil {
		return nil, err
	}
	broker := "127.0.0.1:" + strconv.Itoa(port+3)
	conf = filepath.Join(c.Dir, "broker.conf")
	lines := []string{
		"brokerClusterName=DefaultCluster", "brokerName=broker-a", "brokerId=0", "brokerRole=ASYNC_MASTER", "brokerIP1=127.0.0.1",
		"bindAddress=127.0.0.1", "listenPort=" + strconv.Itoa(port+3), "haListenPort=" + strconv.Itoa(port+4), "namesrvAddr=" + ns,
		"storePathRootDir=" + cl.store, "writeMode=" + c.Cell.Write, "diskMaxUsedSpaceRatio=95",
		"flushDiskType=" + strings.ToUpper(c.Cell.Flush) + "_FLUSH",
	}
	if c.SegmentBytes > 0 {
		lines = append(lines, "mappedFileSizeCommitLog="+strconv.FormatInt(c.SegmentBytes, 10))
	}
	if err := writeLines(conf, append(lines, d.BrokerConf...)...); err != nil {
		return nil, err
	}
	if err := cl.launch(ctx, d, c.Dir, "mqbroker", broker, protocol.RequestGetBrokerRuntimeInfo, "-c", conf); err != nil {
		return nil, err
	}
	cl.brokers, cl.namesrv = []string{broker}, ns
	cl.config = brokerConfig(ctx, broker)
	return cl, nil
}

// Cluster is a NameServer and a broker of ours that run until Stop.
type Cluster struct {
	NameServer string
	cl         *cluster
}

// Launch starts a cluster with its files in dir.
func Launch(ctx context.Context, d Driver, dir string) (*Cluster, error) {
	cl, err := startBroker(ctx, d, bench.Config{Dir: dir, Cell: results.Cell{Flush: "async", Write: "pwrite"}})
	if err != nil {
		return nil, err
	}
	return &Cluster{cl.namesrv, cl}, nil
}

// Broker is the address of the broker.
func (c *Cluster) Broker() string { return c.cl.brokers[0] }

// PIDs are the processes: the name server and the broker.
func (c *Cluster) PIDs() (pids []int) {
	for _, ch := range c.cl.children {
		pids = append(pids, ch.cmd.Process.Pid)
	}
	return pids
}

// Stop ends the processes.
func (c *Cluster) Stop() error { return c.cl.stop() }

// relaunch starts the last child again, as it was.
func (cl *cluster) relaunch(ctx context.Context, dir string) error {
	old := cl.children[len(cl.children)-1]
	cl.children = cl.children[:len(cl.children)-1]
	cmd := exec.CommandContext(context.WithoutCancel(ctx), old.cmd.Path, old.cmd.Args[1:]...)
	cmd.Env = old.cmd.Env
	c, err := startChild(dir, filepath.Base(old.cmd.Path), cmd)
	if err != nil {
		return err
	}
	cl.children = append(cl.children, c)
	return c.awaitAnswer(ctx, cl.brokers[0], protocol.RequestGetBrokerRuntimeInfo)
}

// launch starts one of our programs, with dir for its home, and waits until it answers.
func (cl *cluster) launch(ctx context.Context, d Driver, dir, name, addr string, code protocol.RequestCode, args ...string) error {
	path, err := d.program(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...) // ended by stop, the polite way
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
	c, err := startChild(dir, name, cmd)
	if err != nil {
		return err
	}
	cl.children = append(cl.children, c)
	return c.awaitAnswer(ctx, addr, code)
}

// startNull starts the server that stores nothing.
func startNull(ctx context.Context, d Driver, c bench.Config) (_ *cluster, err error) {
	cl := &cluster{topology: "null server"}
	defer func() {
		if err != nil {
			err = errors.Join(err, cl.stop())
		}
	}()
	port, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	cl.brokers = []string{addr}
	err = cl.launch(ctx, d, c.Dir, "rmqbench", addr, protocol.RequestGetBrokerRuntimeInfo, "null-server", "--listen="+addr)
	return cl, err
}

// findCluster asks NameServers for the masters of a running cluster.
func findCluster(ctx context.Context, client *remoting.Client, target string) (*cluster, error) {
	var errs []error
	for ns := range strings.SplitSeq(target, "+") {
		var info protocol.ClusterInfo
		if err := ask(ctx, client, strings.TrimSpace(ns), protocol.NewRequest(protocol.RequestGetBrokerClusterInfo), &info); err != nil {
			errs = append(errs, err)
			continue
		}
		cl := &cluster{}
		versions := map[string]int{}
		for _, b := range info.BrokerAddrTable {
			addr, ok := b.BrokerAddrs[0]
			if !ok {
				continue
			}
			cl.brokers = append(cl.brokers, addr)
			if table, err := runtimeInfo(ctx, client, addr); err == nil {
				versions[table["brokerVersionDesc"]]++
			}
		}
		if len(cl.brokers) == 0 {
			return nil, fmt.Errorf("--target=%s knows no master", target)
		}
		slices.Sort(cl.brokers)
		for _, b := range cl.brokers {
			if pid := listener(b); pid != 0 && !slices.Contains(cl.pids, pid) {
				cl.pids = append(cl.pids, pid)
			}
		}
		cl.topology = fmt.Sprintf("%d masters at %s, versions %v", len(cl.brokers), target, versions)
		cl.config = brokerConfig(ctx, cl.brokers[0])
		return cl, nil
	}
	return nil, fmt.Errorf("--target=%s: %w", target, errors.Join(errs...))
}

// brokerConfig is the configuration that a broker says it has; empty if it does not say.
func brokerConfig(ctx context.Context, addr string) map[string]string {
	config := map[string]string{}
	client, err := remoting.NewClient(ctx, remoting.ClientOptions{Name: "wire-config"})
	if err != nil {
		return config
	}
	defer func() { _ = client.Close() }() // it only asked
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	resp, err := client.Call(ctx, addr, protocol.NewRequest(protocol.RequestGetBrokerConfig))
	if err != nil || resp.Err() != nil {
		return config
	}
	for line := range strings.Lines(string(resp.Body)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			config[k] = v
		}
	}
	return config
}

func writeLines(name string, lines ...string) error {
	return os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// count adds what the children of this process use, and what their broker tells.
func (cl *cluster) count(client *remoting.Client, c *bench.Counters) {
	for _, pid := range cl.pids {
		countProcess(c, pid)
	}
	for _, ch := range cl.children {
		countProcess(c, ch.cmd.Process.Pid)
	}
	if cl.store == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	table, err := runtimeInfo(ctx, client, cl.brokers[0])
	if err != nil {
		return // it is busy: the series has a gap
	}
	number := func(key string) *int64 {
		n, err := strconv.ParseInt(table[key], 10, 64)
		if err != nil {
			return nil
		}
		return &n
	}
	c.Flushes, c.Writes = number("logFlushTimes"), number("logWriteTimes")
	for _, x := range []struct {
		to  *int64
		key string
	}{{&c.PreparedBytes, "logPreparedBytes"}, {&c.Unprepared, "logUnpreparedSegments"}, {&c.Stalls, "logStalls"}} {
		if n := number(x.key); n != nil {
			*x.to = *n
		}
	}
}

// countTimeout bounds how long a snapshot waits for the broker.
const countTimeout = 300 * time.Millisecond

// stop ends the children, the last one first.
func (cl *cluster) stop() error {
	var errs []error
	for _, c := range slices.Backward(cl.children) {
		errs = append(errs, c.end())
	}
	cl.children = nil
	return errors.Join(errs...)
}
