package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/bench/failover"
	"rmq/bench/probe"
	"rmq/results"
	"rmq/results/report"
)

// failoverFlags are the flags of failover, as typed.
type failoverFlags struct {
	repl, flush, events, rate, size, log, maxLog, segment string
	after, freeze, delay, timeout                         string
	trials, others, topics, queues                        int
	seed                                                  int64
	noConsumers, keep                                     bool
	faultsDir, javaClient, target, out, dir, label        string
}

func newFailoverCmd(stdout, stderr io.Writer) *cobra.Command {
	var f failoverFlags
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Measure how long clients go without when a node fails",
		Long: `Measure how long clients go without when a node fails.

Starts brokers of ours, writes a log, puts clients of several kinds and consumers on it, and lets events befall the
node that leads, in random order. Tells the time to the next acknowledgement, the unavailable window by due time and
what became of every message; at the end all of it is read back.`,
		Example: `  rmqbench failover --repl=raft --trials=100 --rate=50%
  rmqbench failover --repl=raft --flush=sync --events=kill,stop --trials=30 --rate=2000 --out results/failover`,
		Args: args(cobra.NoArgs, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runFailover(cmd.Context(), &f, stdout, stderr)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.repl, "repl", "raft", "replication: none (the broker is started again), async, sync (the slave is promoted), raft")
	fl.StringVar(&f.flush, "flush", "async", "when a message is acknowledged: async (page cache), sync (disk)")
	fl.StringVar(&f.events, "events", "", "some of kill, freeze, stop, handover, partition, slow (default all)")
	fl.IntVar(&f.trials, "trials", 100, "trials of kill")
	fl.IntVar(&f.others, "other-trials", -1, "trials of every other event (default 30, or --trials if that is fewer)")
	fl.StringVar(&f.rate, "rate", "50%", "load: a share of the most that the cluster takes, or messages per second")
	fl.IntVar(&f.topics, "topics", 256, "number of topics")
	fl.IntVar(&f.queues, "queues", 4, "queues per topic")
	fl.StringVar(&f.size, "size", "1KiB", "message body")
	fl.StringVar(&f.log, "log", "2GiB", "log written before the first trial")
	fl.StringVar(&f.maxLog, "max-log", "", "log at which the cluster is audited and made anew (default 8GiB, or four times --log)")
	fl.StringVar(&f.segment, "segment", "1GiB", "size of the brokers' log segments")
	fl.StringVar(&f.after, "after", "3s", "how long is looked after an event, at least")
	fl.StringVar(&f.freeze, "freeze", "5s", "length of a freeze")
	fl.StringVar(&f.delay, "delay", "50ms", "delay of a slow replica, each way")
	fl.StringVar(&f.timeout, "timeout", "10s", "after which a message that is not acknowledged has failed")
	fl.BoolVar(&f.noConsumers, "no-consumers", false, "no consumers that follow all queues")
	fl.StringVar(&f.faultsDir, "faults-dir", "", "programs whose links can be cut, for partition and slow (default bin/faults beside this program)")
	fl.StringVar(&f.target, "target", "", "NameServer of a running cluster of somebody else's, one broker name on this machine, instead of brokers of ours; --repl and --flush say what it is")
	fl.StringVar(&f.javaClient, "java-client", "", "command of an unmodified Java client, words separated by blanks; the NameServer is appended (default: that client is skipped)")
	fl.Int64Var(&f.seed, "seed", 1, "of the order of events and of bodies")
	fl.StringVar(&f.out, "out", "", "directory of the run (default results/failover-<time>)")
	fl.StringVar(&f.dir, "dir", "", "directory for the stores, on the disk to measure (default <out>/data)")
	fl.BoolVar(&f.keep, "keep", false, "leave the stores and logs")
	fl.StringVar(&f.label, "label", "", "name of the run in reports")
	return cmd
}

// options turns the flags into what is to be measured.
func (f *failoverFlags) options() (failover.Options, error) {
	o := failover.Options{
		Trials: f.trials, Others: f.others, Flush: f.flush, Repl: f.repl, Topics: f.topics, Queues: f.queues, RateAs: f.rate, Tail: !f.noConsumers, Seed: f.seed,
		FaultsDir: f.faultsDir, JavaClient: f.javaClient, Target: f.target, OutDir: f.out, DataDir: f.dir, Keep: f.keep, Label: f.label,
		Version: version(), Command: append([]string{"rmqbench"}, os.Args[1:]...), Events: results.FailoverEvents(),
	}
	if o.Others == -1 {
		o.Others = min(30, o.Trials)
	}
	if o.OutDir == "" {
		o.OutDir = filepath.Join("results", "failover-"+time.Now().UTC().Format("20060102T150405Z"))
	}
	if self, err := os.Executable(); err == nil && o.FaultsDir == "" {
		o.FaultsDir = filepath.Join(filepath.Dir(self), "faults")
	}
	var err error
	if f.events != "" {
		if o.Events, err = list("events", f.events); err != nil {
			return o, err
		}
	}
	if o.Rate, err = bench.ParseRate(f.rate); err != nil {
		return o, usage("%v", err)
	}
	var size int64
	for _, x := range []struct {
		name, text string
		to         *int64
	}{{"size", f.size, &size}, {"log", f.log, &o.Log}, {"max-log", f.maxLog, &o.MaxLog}, {"segment", f.segment, &o.SegmentBytes}} {
		if x.text == "" {
			continue
		}
		if *x.to, err = parseSize(x.name, x.text); err != nil {
			return o, err
		}
	}
	o.Size = int(size)
	if o.MaxLog == 0 {
		o.MaxLog = max(8<<30, 4*o.Log)
	}
	for _, x := range []struct {
		name, text string
		to         *time.Duration
	}{{"after", f.after, &o.After}, {"freeze", f.freeze, &o.Freeze}, {"delay", f.delay, &o.Delay}, {"timeout", f.timeout, &o.Timeout}} {
		if *x.to, err = parseDuration(x.name, x.text); err != nil {
			return o, err
		}
		if *x.to < 10*time.Millisecond {
			return o, usage("--%s=%s is too short: use 10ms or more", x.name, x.text)
		}
	}
	return o, nil
}

func runFailover(ctx context.Context, f *failoverFlags, stdout, stderr io.Writer) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.OutDir, 0o755); err != nil {
		return usage("--out: %v: choose a directory that can be written", err)
	}
	env := probe.CollectEnv(ctx, o.OutDir)
	env.Target = results.Target{Name: "rmq", Version: o.Version}
	if o.Target != "" {
		env.Target = results.Target{Name: o.Target}
	}
	o.Env, o.Driver = &env, wire.Driver{}
	began := time.Now()
	o.Progress = func(line string) { fmt.Fprintf(stderr, "%6s %s\n", time.Since(began).Round(time.Second), line) }
	run, err := failover.Run(ctx, o)
	if run == nil {
		return err
	}
	r := report.NewFailover(run, &env)
	if rerr := r.Text(stdout); rerr != nil {
		return errors.Join(err, rerr)
	}
	var page bytes.Buffer
	if rerr := r.HTML(&page); rerr != nil {
		return errors.Join(err, rerr)
	}
	name := filepath.Join(o.OutDir, "report.html")
	if rerr := results.WriteFileAtomic(name, page.Bytes()); rerr != nil {
		return errors.Join(err, rerr)
	}
	fmt.Fprintln(stderr, "rmqbench: report in", name)
	switch {
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, onlyOthers(err)}
	case err != nil:
		return fmt.Errorf("%w (what was measured is in %s, marked incomplete)", err, o.OutDir)
	}
	if n := run.Broken(); n > 0 {
		return &exitError{exitFailed, errors.New("audit: " + strconv.FormatInt(n, 10) + " messages were lost, damaged or read and then gone against what the replication promises")}
	}
	return nil
}
