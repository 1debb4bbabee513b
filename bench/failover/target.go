package failover

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rmq/bench/driver/wire"
	"rmq/internal/run"
	"rmq/results"
)

// Target is the cluster that events befall. For one goroutine.
type Target interface {
	NameServer() string
	Nodes() []string // where clients reach them
	// Leader waits for a node that leads and returns its id and address.
	Leader(ctx context.Context) (id, addr string, err error)
	// Strike lets an event befall the node that leads. It tells when the event began; what belongs to it and comes later,
	// such as the end of a freeze, goes on beside.
	Strike(ctx context.Context, event string) (began time.Time, err error)
	// Heal ends the event, starts what it has ended, and returns when all nodes are in sync.
	Heal(ctx context.Context) error
	// Log is how many bytes of log there are.
	Log(ctx context.Context) int64
	Stop() error
}

// teller is a [Target] that knows what its nodes noticed.
type teller interface {
	// Roles tells when the nodes noticed the last event, which was at a moment, and when one led after it.
	Roles(at time.Time) (roleTimes, error)
}

// own is a cluster of our brokers.
type own struct {
	o      *Options
	cl     *wire.Cluster
	g      *run.Group // what belongs to the event and comes later; nil between events
	struck *wire.Node // whom it befell
	event  string
}

// startOwn starts our brokers in dir; with links, every way between them can be cut.
func startOwn(ctx context.Context, o *Options, dir string, links bool) (Target, error) {
	d := o.Driver
	d.FaultsDir = o.FaultsDir
	cl, err := wire.Start(ctx, d, dir, wire.Spec{Flush: o.Flush, Write: "pwrite", Repl: o.Repl, SegmentBytes: o.SegmentBytes, Links: links})
	if err != nil {
		return nil, err
	}
	return &own{o: o, cl: cl}, nil
}

// cannot says why an event cannot be had, "" if it can. needsLinks events run on programs that let links be cut.
func (o *Options) cannot(event string) string {
	if o.Target != "" {
		if event == results.FailKill || event == results.FailStop || event == results.FailFreeze {
			return ""
		}
		return "it cannot be done to somebody else's cluster"
	}
	switch event {
	case results.FailHandover:
		switch o.Repl {
		case "none":
			return "there is one node only"
		case "raft":
			return o.lacks("transferLeader")
		}
		return o.lacks("promote")
	case results.FailKill, results.FailStop:
		if o.Repl == "async" || o.Repl == "sync" {
			return o.lacks("promote")
		}
	case results.FailPartition, results.FailSlow:
		if o.Repl == "none" {
			return "there is one node only"
		}
		if event == results.FailPartition && o.Repl != "raft" {
			return "who leads is not elected: nothing takes over when the nodes do not hear each other"
		}
		if m, _ := filepath.Glob(filepath.Join(o.FaultsDir, "mqbroker")); o.FaultsDir == "" || len(m) == 0 {
			return "it takes programs whose links can be cut: build them with `make build-faults` or `make bench-failover`, or name others with --faults-dir"
		}
	}
	return ""
}

// lacks says that the tool for operators beside us does not know a command, "" if it does.
func (o *Options) lacks(command string) string {
	path, err := o.Driver.Program("mqadmin")
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Help about a command that is not there is help about all of them.
	if out, err := exec.CommandContext(ctx, path, command, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "mqadmin "+command) {
		return "mqadmin does not know " + command
	}
	return ""
}

func needsLinks(event string) bool {
	return event == results.FailPartition || event == results.FailSlow
}

func (t *own) NameServer() string { return t.cl.NameServer }

func (t *own) Nodes() (addrs []string) {
	for _, n := range t.cl.Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

func (t *own) Leader(ctx context.Context) (id, addr string, err error) {
	n, err := t.cl.Leader(ctx)
	if err != nil {
		return "", "", err
	}
	return n.ID, n.Addr, nil
}

func (t *own) Log(ctx context.Context) int64 {
	n, err := t.cl.Leader(ctx)
	if err != nil {
		return 0
	}
	s, _, _ := t.cl.Status(ctx, n)
	return s.Written
}

// Roles implements [teller].
func (t *own) Roles(at time.Time) (roleTimes, error) { return roles(t.cl.Nodes, t.struck, at) }

func (t *own) Stop() error { return errors.Join(t.rest(), t.cl.Stop()) }

// rest waits for what belongs to the event.
func (t *own) rest() error {
	if t.g == nil {
		return nil
	}
	err := t.g.Wait()
	t.g = nil
	return err
}

// Strike implements [Target].
func (t *own) Strike(ctx context.Context, event string) (began time.Time, err error) {
	n, err := t.cl.Leader(ctx)
	if err != nil {
		return began, err
	}
	t.event, t.struck = event, n
	t.g = run.New(context.WithoutCancel(ctx), "failover/event")
	began = time.Now()
	switch event {
	case results.FailKill:
		err = n.Signal(syscall.SIGKILL)
		t.g.Go("after", func(ctx context.Context) error { return t.goOn(ctx, n) })
	case results.FailStop:
		err = n.Signal(syscall.SIGTERM)
		t.g.Go("after", func(ctx context.Context) error { return t.goOn(ctx, n) })
	case results.FailFreeze:
		err = n.Signal(syscall.SIGSTOP)
		t.g.Go("thaw", func(ctx context.Context) error {
			sleep(ctx, t.o.Freeze)
			return n.Signal(syscall.SIGCONT)
		})
	case results.FailHandover:
		t.g.Go("handover", func(ctx context.Context) error {
			if t.o.Repl != "raft" {
				return t.promote(ctx, n)
			}
			return t.mqadmin(ctx, "transferLeader", "-n", t.cl.NameServer, "-b", n.Addr)
		})
	case results.FailPartition:
		for _, l := range t.cl.Links(n.ID) {
			l.Cut(true)
		}
	case results.FailSlow:
		i := slices.IndexFunc(t.cl.Nodes, func(o *wire.Node) bool { return o != n })
		for _, l := range t.cl.Links(t.cl.Nodes[i].ID) {
			l.Delay(t.o.Delay)
		}
	default:
		return began, fmt.Errorf("event %q is unknown", event)
	}
	return began, err
}

// goOn does what whoever runs the cluster does when the process of who leads has ended: a single broker is started again, a
// slave is promoted. A group of three needs nobody. Dual write acknowledges nothing with one copy: the node that has ended
// is started again at once, to be the slave of the other.
func (t *own) goOn(ctx context.Context, n *wire.Node) error {
	if err := n.AwaitEnd(ctx); err != nil {
		return err
	}
	switch t.o.Repl {
	case "none":
		return t.cl.StartNode(ctx, n)
	case "async":
		return t.promote(ctx, n)
	case "sync":
		if err := t.promote(ctx, n); err != nil {
			return err
		}
		return t.cl.StartNode(ctx, n)
	}
	return nil
}

// promote makes the other node of a pair its master.
func (t *own) promote(ctx context.Context, master *wire.Node) error {
	i := slices.IndexFunc(t.cl.Nodes, func(o *wire.Node) bool { return o != master })
	return t.mqadmin(ctx, "promote", "-n", t.cl.NameServer, "-b", t.cl.Nodes[i].Addr, "--accept-loss")
}

// mqadmin runs one command of the tool for operators.
func (t *own) mqadmin(ctx context.Context, args ...string) error {
	path, err := t.o.Driver.Program("mqadmin")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mqadmin %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Heal implements [Target].
func (t *own) Heal(ctx context.Context) error {
	if err := t.rest(); err != nil {
		return err
	}
	switch t.event {
	case results.FailKill, results.FailStop:
		if !t.struck.Running() {
			if err := t.cl.StartNode(ctx, t.struck); err != nil {
				return err
			}
		}
	case results.FailPartition:
		for _, l := range t.cl.Links("") {
			l.Cut(false)
		}
	case results.FailSlow:
		for _, l := range t.cl.Links("") {
			l.Delay(0)
		}
	}
	return t.cl.AwaitInSync(ctx)
}
