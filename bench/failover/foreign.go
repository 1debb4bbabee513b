package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"rmq/bench/driver/wire"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/results"
)

// foreign is a running cluster of somebody else's on this machine, such as Apache's DLedger group: one broker name whose
// nodes listen on loopback. Its processes are found by their ports; one that an event has ended is started again with the
// command line, folder and environment that it had, and goes on when the run is over.
type foreign struct {
	o      *Options
	dir    string // for what the processes print
	net    *remoting.Client
	nodes  []string
	struck *process
	event  string
	thaw   *time.Timer
}

// process is what it takes to start a process again.
type process struct {
	pid  int
	args []string
	env  []string
	dir  string
}

// findForeign finds the nodes of the only broker name that a NameServer knows.
func findForeign(ctx context.Context, o *Options, dir string) (Target, error) {
	net, err := remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "failover-target", DialTimeout: time.Second})
	if err != nil {
		return nil, err
	}
	t := &foreign{o: o, dir: dir, net: net}
	brokers, err := t.brokers(ctx)
	if err == nil && len(brokers) == 0 {
		err = fmt.Errorf("--target=%s knows no broker", o.Target)
	}
	for _, addr := range brokers {
		t.nodes = append(t.nodes, addr)
		if err == nil && wire.Listener(addr) == 0 {
			err = fmt.Errorf("no process of this machine listens on %s: events befall processes here only", addr)
		}
	}
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	return t, nil
}

// brokers are the addresses of the nodes by id; 0 is who leads.
func (t *foreign) brokers(ctx context.Context) (map[int64]string, error) {
	var info protocol.ClusterInfo
	if err := wire.Ask(ctx, t.net, t.o.Target, protocol.NewRequest(protocol.RequestGetBrokerClusterInfo), &info); err != nil {
		return nil, err
	}
	if len(info.BrokerAddrTable) > 1 {
		return nil, fmt.Errorf("--target=%s knows %d broker names: events befall one group only", t.o.Target, len(info.BrokerAddrTable))
	}
	for _, b := range info.BrokerAddrTable {
		return b.BrokerAddrs, nil
	}
	return nil, nil
}

func (t *foreign) NameServer() string { return t.o.Target }

func (t *foreign) Nodes() []string { return t.nodes }

// Leader implements [Target]: the node with id 0 whose process is there.
func (t *foreign) Leader(ctx context.Context) (id, addr string, err error) {
	why := ""
	for end := time.Now().Add(patience); time.Now().Before(end); sleep(ctx, 20*time.Millisecond) {
		if ctx.Err() != nil {
			return "", "", context.Cause(ctx)
		}
		brokers, err := t.brokers(ctx)
		switch addr := brokers[0]; {
		case err != nil:
			why = err.Error()
		case addr == "" || wire.Listener(addr) == 0:
			why = fmt.Sprintf("the NameServer says %v", brokers)
		default:
			return addr, addr, nil
		}
	}
	return "", "", fmt.Errorf("waited %v for a leader: %s", patience, why)
}

// Log implements [Target].
func (t *foreign) Log(ctx context.Context) int64 {
	_, addr, err := t.Leader(ctx)
	if err != nil {
		return 0
	}
	info, err := wire.RuntimeInfo(ctx, t.net, addr)
	if err != nil {
		return 0
	}
	low, _ := strconv.ParseInt(info["commitLogMinOffset"], 10, 64) // 0 if it does not say
	high, _ := strconv.ParseInt(info["commitLogMaxOffset"], 10, 64)
	return high - low
}

// Strike implements [Target].
func (t *foreign) Strike(ctx context.Context, event string) (began time.Time, err error) {
	_, addr, err := t.Leader(ctx)
	if err != nil {
		return began, err
	}
	if t.struck, err = findProcess(wire.Listener(addr)); err != nil {
		return began, fmt.Errorf("process at %s: %w", addr, err)
	}
	t.event, began = event, time.Now()
	pid := t.struck.pid
	switch event {
	case results.FailKill:
		return began, syscall.Kill(pid, syscall.SIGKILL)
	case results.FailStop:
		return began, syscall.Kill(pid, syscall.SIGTERM)
	case results.FailFreeze:
		t.thaw = time.AfterFunc(t.o.Freeze, func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it cannot end meanwhile
		return began, syscall.Kill(pid, syscall.SIGSTOP)
	}
	return began, fmt.Errorf("event %q is unknown", event)
}

// Heal implements [Target]: it starts what has ended and returns when the NameServer knows as many nodes as before.
func (t *foreign) Heal(ctx context.Context) error {
	if t.event != results.FailFreeze {
		for end := time.Now().Add(patience); t.struck.running(); sleep(ctx, 10*time.Millisecond) {
			if time.Now().After(end) || ctx.Err() != nil {
				return fmt.Errorf("process %d has not ended after %v", t.struck.pid, patience)
			}
		}
		if err := t.struck.again(ctx, filepath.Join(t.dir, "target.log")); err != nil {
			return err
		}
	}
	for end := time.Now().Add(2 * patience); ; sleep(ctx, 50*time.Millisecond) {
		brokers, err := t.brokers(ctx)
		if err == nil && len(brokers) >= len(t.nodes) && brokers[0] != "" {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d nodes are known after %v: %w", len(brokers), len(t.nodes), 2*patience, err)
		}
	}
}

// Stop implements [Target]. The cluster goes on.
func (t *foreign) Stop() error {
	if t.thaw != nil && t.thaw.Stop() {
		_ = syscall.Kill(t.struck.pid, syscall.SIGCONT) // the run has ended within a freeze
	}
	return t.net.Close()
}

// findProcess reads what it takes to start a process again.
func findProcess(pid int) (*process, error) {
	if pid == 0 {
		return nil, errors.New("nobody listens there any more")
	}
	proc := "/proc/" + strconv.Itoa(pid)
	list := func(name string) (out []string, err error) {
		b, err := os.ReadFile(filepath.Join(proc, name))
		for f := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
			out = append(out, string(f))
		}
		return out, err
	}
	p := &process{pid: pid}
	var errs [3]error
	p.args, errs[0] = list("cmdline")
	p.env, errs[1] = list("environ")
	p.dir, errs[2] = os.Readlink(filepath.Join(proc, "cwd"))
	return p, errors.Join(errs[:]...)
}

// running says whether the process is there and has not ended.
func (p *process) running() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	// The name, in parentheses, may hold anything.
	state := bytes.TrimSpace(b[bytes.LastIndexByte(b, ')')+1:])
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

// again starts the process as it was, as nobody's child: a shell starts it and ends.
func (p *process) again(ctx context.Context, log string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `log=$1; shift; "$@" >> "$log" 2>&1 < /dev/null &`, "sh", log}, p.args...)...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = p.env, p.dir, &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s again: %w: %s", p.args[0], err, out)
	}
	return nil
}
