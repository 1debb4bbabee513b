package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rmq/bench"
	"rmq/bench/driver/embedded"
	"rmq/bench/driver/null"
	"rmq/bench/driver/wire"
	"rmq/bench/probe"
	"rmq/results"
	"rmq/results/report"
)

// runFlags are the flags of run, as typed.
type runFlags struct {
	flush, repl, write, topics, queues, size, producers, window, rate, arrival, keys, entropy, driver string // factors: lists
	consumers, batch, header, target                                                                  string // of the wire
	path                                                                                              string // of the engine

	duration, warmup, settle, maxBytes, segment, probeBudget string
	reps, workers, openWindow                                int
	seed                                                     int64
	out, dir, label, cpuProfile                              string
	quick, keep, noProbe, tags, messageKeys                  bool
	pause                                                    []int
}

func newRunCmd(stdout, stderr io.Writer) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure a matrix of cells",
		Long: `Measure a matrix of cells: a list in any factor makes a matrix, measured in blocks of random order.

Without --rate each cell is measured twice, apart: a closed loop at the most that --producers times
--window messages in flight can do, then an open loop on a schedule at half of that rate, from which
the latencies come.`,
		Example: `  rmqbench --flush=sync --topics=256
  rmqbench run --flush=sync,async --topics=1,256 --size=1KiB --reps=6 --out results/mine
  rmqbench --flush=sync --repl=raft
  rmqbench run --flush=async,sync --repl=none,async,sync,raft --topics=1,256 --producers=16 --window=64`,
		Args: args(cobra.NoArgs, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runBench(cmd.Context(), cmd, &f, stdout, stderr)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.flush, "flush", "async", "factor: when a message is acknowledged: async (page cache), sync (disk)")
	fl.StringVar(&f.repl, "repl", "none", "factor: replication: none, async (master and slave), sync (dual write), raft (three nodes)")
	fl.StringVar(&f.topics, "topics", "1", "factor: number of topics")
	fl.StringVar(&f.queues, "queues", strconv.Itoa(bench.DefaultQueues), "factor: queues per topic")
	fl.StringVar(&f.size, "size", "1KiB", "factor: message body")
	fl.StringVar(&f.producers, "producers", "64", "factor: logical producers")
	fl.StringVar(&f.window, "window", "1", "factor: messages in flight per producer in the closed loop")
	fl.StringVar(&f.rate, "rate", "", "factor: max (closed loop), 50% (of it, open loop), or messages per second; empty: max, then 50%")
	fl.StringVar(&f.write, "write", "pwrite", "factor: write path of the engine: pwrite, mmap, mmap-warmed")
	fl.StringVar(&f.arrival, "arrival", "uniform", "factor: schedule of the open loop: uniform, poisson")
	fl.StringVar(&f.keys, "keys", "uniform", "factor: choice of topics: uniform, rr, zipf:0.99")
	fl.StringVar(&f.entropy, "entropy", "1", "factor: random share of the body, 0 to 1")
	fl.StringVar(&f.driver, "driver", "", "factor: embedded (the engine in this process; the default where nothing is replicated), wire (brokers over TCP; the default as soon as a cell is replicated), null (the harness alone), null-server (the harness and the wire)")
	fl.StringVar(&f.consumers, "consumers", "0", "factor: wire: connections that follow all queues meanwhile")
	fl.StringVar(&f.batch, "batch", "1", "factor: wire: messages a request")
	fl.StringVar(&f.header, "header", "json", "factor: wire: header encoding: json, binary")
	fl.StringVar(&f.target, "target", "own", "factor: wire: own (a name server and a broker of ours), or the name servers of a running cluster, separated by +")
	fl.IntSliceVar(&f.pause, "target-pids", nil, "process ids of the running cluster: what they use is the target's, and they are stopped (SIGSTOP) while something else is measured")
	fl.StringVar(&f.path, "path", "whole", "factor: embedded: whole (messages are encoded, appended one by one and dispatched), log (batches encoded beforehand, no queues, no index)")
	fl.StringVar(&f.duration, "duration", "10s", "measured phase of each part")
	fl.StringVar(&f.warmup, "warmup", "2s", "load before it that does not count")
	fl.StringVar(&f.settle, "settle", "1s", "how long the disk must be quiet before each part")
	fl.IntVar(&f.reps, "reps", 3, "blocks: repetitions of the whole matrix; 6 and more allow a verdict")
	fl.StringVar(&f.maxBytes, "max-bytes", "4GiB", "log bytes after which a part ends early; 0: no bound")
	fl.Int64Var(&f.seed, "seed", 1, "of order, schedule, topics and bodies")
	fl.IntVar(&f.openWindow, "open-window", bench.DefaultOpenWindow, "messages in flight of the open loop, all producers together")
	fl.IntVar(&f.workers, "workers", 0, "goroutines that make load; 0: half the cores")
	fl.StringVar(&f.segment, "segment", "1GiB", "size of the engine's log segments")
	fl.BoolVar(&f.tags, "with-tags", false, "give each message a tag")
	fl.BoolVar(&f.messageKeys, "with-keys", false, "give each message a key beside its unique one")
	fl.StringVar(&f.out, "out", "", "directory of the run (default results/<time>)")
	fl.StringVar(&f.dir, "dir", "", "directory for the stores, on the disk to measure (default <out>/data)")
	fl.BoolVar(&f.keep, "keep", false, "leave the stores")
	fl.StringVar(&f.label, "label", "", "name of the run in reports")
	fl.BoolVar(&f.noProbe, "no-probe", false, "do not measure the limits of the machine")
	fl.StringVar(&f.probeBudget, "probe-budget", "25s", "time for measuring the limits of the machine")
	fl.StringVar(&f.cpuProfile, "cpuprofile", "", "write a CPU profile of the whole run to this file")
	fl.BoolVar(&f.quick, "quick", false, "a sign of life in two minutes: flush{async,sync} x topics{1,256}, 2s measured, at most 512MiB a part, label smoke")
	fl.BoolVar(&f.quick, "smoke", false, "the same as --quick")
	return cmd
}

// quickly changes the defaults of flags that were not given.
func (f *runFlags) quickly(cmd *cobra.Command) {
	for name, v := range map[string]string{
		"flush": "async,sync", "topics": "1,256", "duration": "2s", "warmup": "1s", "settle": "200ms", "reps": "3",
		"label": "smoke", "probe-budget": "8s", "segment": "256MiB", "max-bytes": "512MiB",
	} {
		if fl := cmd.Flags().Lookup(name); !fl.Changed {
			if err := fl.Value.Set(v); err != nil {
				panic("BUG: preset " + name + ": " + err.Error())
			}
		}
	}
}

// chooseDriver fills in the driver that was not named: one for the whole matrix, over the wire as soon as one of its
// cells is replicated.
func (f *runFlags) chooseDriver() {
	if f.driver != "" {
		return
	}
	f.driver = "embedded"
	for _, level := range strings.Split(f.repl, ",") {
		if strings.TrimSpace(level) != "none" {
			f.driver = "wire"
		}
	}
}

// plan turns the flags into what is to be measured.
func (f *runFlags) plan() (bench.Plan, error) {
	var p bench.Plan
	var err error
	dur := func(name, s string) (d time.Duration) {
		if err == nil {
			d, err = parseDuration(name, s)
		}
		return d
	}
	size := func(name, s string) (n int64) {
		if err == nil {
			n, err = parseSize(name, s)
		}
		return n
	}
	p.Base = bench.Workload{
		Duration: dur("duration", f.duration), Warmup: dur("warmup", f.warmup), Settle: dur("settle", f.settle), Grace: 10 * time.Second,
		MaxBytes: size("max-bytes", f.maxBytes), SegmentBytes: size("segment", f.segment), Seed: f.seed, Workers: f.workers,
		Tags: f.tags, Keys: f.messageKeys, OpenWindow: f.openWindow,
	}
	budget := dur("probe-budget", f.probeBudget)
	if err != nil {
		return p, err
	}
	if budget == 0 {
		return p, usage("--probe-budget=%s measures nothing: use 25s, or --no-probe", f.probeBudget)
	}
	if s := p.Base.SegmentBytes; s%4096 != 0 || s < 1<<20 || s > 2<<30 {
		return p, usage("--segment=%s is out of range: use a multiple of 4KiB from 1MiB to 2GiB", f.segment)
	}
	if f.workers < 0 || f.workers > 256 {
		return p, usage("--workers=%d is out of range: use 0 to 256", f.workers)
	}
	if f.openWindow < 1 || f.openWindow > bench.MaxOutstanding {
		return p, usage("--open-window=%d is out of range: use 1 to %d", f.openWindow, bench.MaxOutstanding)
	}
	p.Reps, p.Label = f.reps, f.label
	p.Cells, err = f.cells()
	return p, err
}

// cells makes every combination of the levels, the last factor turning fastest.
func (f *runFlags) cells() ([]results.Cell, error) {
	cells := []results.Cell{{}}
	var err error
	cells, err = cross(cells, err, "driver", f.driver, word, func(c *results.Cell, v string) { c.Driver = v })
	cells, err = cross(cells, err, "write", f.write, word, func(c *results.Cell, v string) { c.Write = v })
	cells, err = cross(cells, err, "flush", f.flush, word, func(c *results.Cell, v string) { c.Flush = v })
	cells, err = cross(cells, err, "repl", f.repl, word, func(c *results.Cell, v string) { c.Repl = v })
	cells, err = cross(cells, err, "topics", f.topics, parseInt, func(c *results.Cell, v int) { c.Topics = v })
	cells, err = cross(cells, err, "queues", f.queues, parseInt, func(c *results.Cell, v int) { c.Queues = v })
	cells, err = cross(cells, err, "size", f.size, parseSize, func(c *results.Cell, v int64) { c.SizeBytes = int(v) })
	cells, err = cross(cells, err, "producers", f.producers, parseInt, func(c *results.Cell, v int) { c.Producers = v })
	cells, err = cross(cells, err, "window", f.window, parseInt, func(c *results.Cell, v int) { c.Window = v })
	cells, err = cross(cells, err, "arrival", f.arrival, word, func(c *results.Cell, v string) { c.Arrival = v })
	cells, err = cross(cells, err, "keys", f.keys, word, func(c *results.Cell, v string) { c.Keys = v })
	cells, err = cross(cells, err, "entropy", f.entropy, parseShare, func(c *results.Cell, v float64) { c.Entropy = v })
	if f.rate != "" {
		cells, err = cross(cells, err, "rate", f.rate, word, func(c *results.Cell, v string) { c.Rate = v })
	}
	if len(cells) > 10_000 {
		return nil, usage("the matrix has %d cells: name fewer levels", len(cells))
	}
	cells, err = cross(cells, err, "consumers", f.consumers, parseInt, func(c *results.Cell, v int) { c.Consumers = v })
	cells, err = cross(cells, err, "batch", f.batch, parseInt, func(c *results.Cell, v int) {
		if v != 1 {
			setExtra(c, wire.FactorBatch, strconv.Itoa(v))
		}
	})
	cells, err = cross(cells, err, "header", f.header, word, func(c *results.Cell, v string) {
		if v != "json" {
			setExtra(c, wire.FactorHeader, v)
		}
	})
	cells, err = cross(cells, err, "target", f.target, word, func(c *results.Cell, v string) {
		if v != "own" {
			setExtra(c, wire.FactorTarget, v)
		}
	})
	cells, err = cross(cells, err, "path", f.path, word, func(c *results.Cell, v string) {
		if v != "whole" {
			setExtra(c, "path", v)
		}
	})
	extra := map[string]string{}
	if f.tags {
		extra["tags"] = "yes"
	}
	if f.messageKeys {
		extra["message_keys"] = "yes"
	}
	for name, v := range extra {
		for i := range cells {
			setExtra(&cells[i], name, v)
		}
	}
	return cells, err
}

// setExtra sets a factor in a map that no other cell shares.
func setExtra(c *results.Cell, name, v string) {
	m := maps.Clone(c.Extra)
	if m == nil {
		m = map[string]string{}
	}
	m[name] = v
	c.Extra = m
}

func parseShare(flag, s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, usage("--%s=%s is no share: use 0 to 1", flag, s)
	}
	return v, nil
}

// cross multiplies cells by the levels of one more factor, unless err is set already.
func cross[T any](cells []results.Cell, err error, flag, text string, parse func(flag, s string) (T, error), set func(*results.Cell, T)) ([]results.Cell, error) {
	if err != nil {
		return nil, err
	}
	vs, err := levels(flag, text, parse)
	if err != nil {
		return nil, err
	}
	if len(cells)*len(vs) > 100_000 {
		return nil, usage("the matrix has too many cells: name fewer levels of --%s", flag)
	}
	out := make([]results.Cell, 0, len(cells)*len(vs))
	for _, c := range cells {
		for _, v := range vs {
			c := c
			set(&c, v)
			out = append(out, c)
		}
	}
	return out, nil
}

func runBench(ctx context.Context, cmd *cobra.Command, f *runFlags, stdout, stderr io.Writer) error {
	if f.quick {
		f.quickly(cmd)
	}
	f.chooseDriver()
	p, err := f.plan()
	if err != nil {
		return err
	}
	stamp := time.Now().UTC().Format("20060102T150405Z")
	p.OutDir, p.DataDir, p.Keep = f.out, f.dir, f.keep
	if p.OutDir == "" {
		p.OutDir = filepath.Join("results", stamp)
	}
	p.Version, p.Command = version(), append([]string{"rmqbench"}, os.Args[1:]...)
	p.Config = effective(cmd)
	p.Drivers = map[string]bench.Driver{
		"embedded": embedded.Driver{}, "null": null.Driver{}, "wire": wire.Driver{Pause: f.pause}, "null-server": wire.Driver{Null: true, Pause: f.pause},
	}
	p.Env = probe.CollectEnv
	if !f.noProbe {
		budget, _ := parseDuration("probe-budget", f.probeBudget) // plan has seen it
		p.Probe = func(ctx context.Context, dir string, progress func(string, int, int)) (results.Probe, error) {
			return probe.Run(ctx, probe.Options{Dir: dir, Budget: budget, Progress: progress, Seed: f.seed})
		}
		p.Drift = func(ctx context.Context, dir string) (results.ProbeRun, error) {
			return probe.Drift(ctx, probe.Options{Dir: dir, Seed: f.seed, Budget: min(probe.DriftBudget, budget/4)})
		}
	}
	if f.cpuProfile != "" {
		stop, err := startProfile(f.cpuProfile)
		if err != nil {
			return err
		}
		defer stop()
	}
	show := newProgress(stderr, 5*time.Second)
	p.Progress = show.update
	st, err := bench.Run(ctx, p)
	show.close()
	if st == nil {
		return err
	}
	if errors.Is(err, errInterrupted) || ctx.Err() != nil {
		fmt.Fprintf(stderr, "rmqbench: interrupted; what was measured is in %s, marked incomplete\n", st.Dir())
		err = errors.Join(err, finishReport(st, stdout, stderr))
		return &exitError{exitInterrupted, onlyOthers(err)}
	}
	if err != nil {
		return fmt.Errorf("%w (what was measured is in %s, marked incomplete)", err, st.Dir())
	}
	if err := finishReport(st, stdout, stderr); err != nil {
		return err
	}
	return lostAnything(st)
}

// startProfile writes a CPU profile to path until what it returns is called.
func startProfile(path string) (stop func(), err error) {
	out, err := os.Create(path)
	if err != nil {
		return nil, usage("--cpuprofile: %v: choose a file that can be written", err)
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = out.Close() // a profile cut short shows when it is read
	}, nil
}

// onlyOthers drops the interruption itself from an error.
func onlyOthers(err error) error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var rest []error
		for _, e := range joined.Unwrap() {
			if e != nil && !errors.Is(e, errInterrupted) {
				rest = append(rest, e)
			}
		}
		return errors.Join(rest...)
	}
	return nil
}

// finishReport prints the run and writes its page beside it.
func finishReport(st *results.Store, stdout, stderr io.Writer) error {
	r, err := report.New(st)
	if err != nil {
		return err
	}
	if len(r.Run().Cells) == 0 {
		return nil
	}
	if err := st.AppendHistory(r.History()); err != nil {
		return err
	}
	if err := r.Text(stdout); err != nil {
		return err
	}
	var page bytes.Buffer
	if err := r.HTML(&page, report.HTMLOptions{}); err != nil {
		return err
	}
	if err := st.WriteArtifact("report.html", page.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "rmqbench: report in %s\n", filepath.Join(st.Dir(), "report.html"))
	return nil
}

// lostAnything turns failed verification into an exit code.
func lostAnything(st *results.Store) error {
	run, err := st.Load()
	if err != nil {
		return err
	}
	var bad []string
	for _, c := range run.Cells {
		for _, rep := range c.Reps {
			for _, part := range rep.Parts() {
				if v := part.Verify; v != nil && !v.OK() {
					bad = append(bad, fmt.Sprintf("%s block %d %s: %d lost, %d duplicated, %d corrupted, %d reordered of %d acknowledged",
						c.Cell.ID(), rep.Block, part.Part, v.Lost, v.Duplicated, v.Corrupted, v.Reordered, v.Acked))
				}
			}
		}
	}
	if len(bad) > 0 {
		return &exitError{exitFailed, fmt.Errorf("verification: %s", strings.Join(bad, "; "))}
	}
	return nil
}

// effective is every flag with the value in force.
func effective(cmd *cobra.Command) map[string]string {
	m := map[string]string{}
	for _, name := range []string{"flush", "repl", "topics", "queues", "size", "producers", "window", "rate", "write", "arrival", "keys", "entropy",
		"driver", "target", "target-pids", "consumers", "batch", "header", "duration", "warmup", "settle", "reps", "max-bytes", "seed", "open-window", "workers", "segment", "with-tags", "with-keys", "no-probe", "probe-budget"} {
		m[name] = cmd.Flags().Lookup(name).Value.String()
	}
	if dir := cmd.Flags().Lookup("dir").Value.String(); dir != "" {
		m["dir"] = dir
	}
	return m
}
