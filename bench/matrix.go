package bench

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/internal/vfs"
	"rmq/results"
)

// Plan is a whole run: a matrix of cells, measured in randomised complete blocks.
type Plan struct {
	Cells []results.Cell
	Base  Workload // everything but the cell
	Reps  int      // blocks

	OutDir  string // of the run; must not hold one yet
	DataDir string // for the stores; "" is OutDir/data
	Keep    bool   // leave the stores

	RunID, Label, Version string
	Command               []string
	Config                map[string]string // effective settings, for the manifest
	Notes                 []string

	Drivers map[string]Driver
	// Probe, Drift and Env measure and describe the machine; nil skips them.
	Probe func(ctx context.Context, dir string, progress func(step string, i, n int)) (results.Probe, error)
	Drift func(ctx context.Context, dir string) (results.ProbeRun, error)
	Env   func(ctx context.Context, dir string) results.Env
	// Progress hears where the run stands, from several goroutines. May be nil.
	Progress func(Progress)
	// Sleep waits on the caller's thread between due times. nil: nanosleep.
	Sleep func(time.Duration)
}

// UsageError is something that the user can mend: one line, naming the fix.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// probeBytes is about what the probe's scratch files take.
const probeBytes = 2 << 30

func (p *Plan) dataDir() string {
	if p.DataDir != "" {
		return p.DataDir
	}
	return filepath.Join(p.OutDir, "data")
}

// Check finds what would stop the run before anything is written. Errors are *UsageError.
func (p *Plan) Check() error {
	if p.Reps < 1 {
		return usagef("--reps=%d measures nothing: use 1 or more", p.Reps)
	}
	if len(p.Cells) == 0 {
		return usagef("the matrix is empty: give every factor a value")
	}
	need := int64(0)
	if p.Probe != nil {
		need = probeBytes
	}
	stores := false
	seen := map[string]bool{}
	for _, c := range p.Cells {
		w := p.Base
		w.Cell = c
		if err := w.Validate(); err != nil {
			return &UsageError{err}
		}
		if p.Drivers[c.Driver] == nil {
			return usagef("--driver=%s is unknown: use %s", c.Driver, strings.Join(slices.Sorted(maps.Keys(p.Drivers)), ", "))
		}
		if d := p.Cells[0].Driver; (d == "embedded") != (c.Driver == "embedded") && c.Driver != "null" && d != "null" {
			return usagef("--driver=%s,%s: measure them apart, with and without a network never share a table", d, c.Driver)
		}
		if id := c.ID(); seen[id] {
			return usagef("the matrix holds %s twice: name every level once", id)
		}
		seen[c.ID()] = true
		if c.Stores() {
			stores = true
			need = max(need, w.NeedBytes())
		}
	}
	if _, err := os.Stat(filepath.Join(p.OutDir, results.ManifestFile)); err == nil {
		return usagef("%s already holds a run: choose another --out or remove it", p.OutDir)
	}
	if !stores && p.Probe == nil {
		return nil
	}
	if err := holdsStore(p.dataDir()); err != nil {
		return err
	}
	if have, _ := freeSpace(existing(p.dataDir())); have < need {
		return usagef("%s has %s free and the run needs %s: free some space, name another --dir or lower --max-bytes",
			existing(p.dataDir()), results.FormatBytes(float64(have)), results.FormatBytes(float64(need)))
	}
	return nil
}

// existing is the nearest directory on the way up that is there.
func existing(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

// holdsStore refuses a data directory that is itself a store, naming whoever uses it.
func holdsStore(dir string) error {
	for _, name := range []string{"commitlog", "consumequeue", "rmq"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.IsDir() {
			if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
				l, err := vfs.OS.Lock(filepath.Join(dir, "lock"))
				var locked *vfs.LockedError
				if errors.As(err, &locked) {
					return usagef("%s is a store in use by process %d: choose another --dir, each cell gets a fresh store in it", dir, locked.PID)
				} else if err == nil {
					_ = l.Close() // only asked
				}
			}
			return usagef("%s already holds a store (%s): choose another --dir, each cell gets a fresh store in it", dir, name)
		}
	}
	return nil
}

// makeDataDir creates the data directory and locks it against another run. undo takes both back.
func (p *Plan) makeDataDir() (undo func(), err error) {
	dir := p.dataDir()
	stay := existing(filepath.Clean(dir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usagef("--dir: %v: choose a directory that can be written", err)
	}
	name := filepath.Join(dir, lockFile)
	l, err := vfs.OS.Lock(name)
	var locked *vfs.LockedError
	switch {
	case errors.As(err, &locked):
		return nil, usagef("%s is in use by the benchmark of process %d: wait for it or choose another --dir", dir, locked.PID)
	case err != nil:
		return nil, usagef("--dir: %v: choose a directory that can be written", err)
	}
	return func() {
		_ = os.Remove(name)                                                                   // still locked, so it is ours
		_ = l.Close()                                                                         // nothing was written through it
		for d := filepath.Clean(dir); d != stay && os.Remove(d) == nil; d = filepath.Dir(d) { // what we made, if it is empty
		}
	}, nil
}

const lockFile = ".rmqbench.lock"

// Run measures the plan and leaves its results in OutDir. When ctx ends, what was measured so far
// stays, marked incomplete, and the cause comes back with the store. A *UsageError comes before
// anything was written.
func Run(ctx context.Context, p Plan) (_ *results.Store, err error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	p.defaults()
	m := p.manifest()
	inside := p.DataDir == ""
	var undo func()
	if !inside {
		if undo, err = p.makeDataDir(); err != nil {
			return nil, err
		}
	}
	st, err := results.Create(p.OutDir, m)
	if err != nil {
		if undo != nil {
			undo()
		}
		return nil, &UsageError{err}
	}
	if inside {
		if undo, err = p.makeDataDir(); err != nil {
			return nil, err
		}
	}
	defer undo()
	r := &matrixRun{p: &p, store: st, manifest: m, began: time.Now(), total: p.estimate()}
	err = r.all(ctx)
	m.Ended = time.Now()
	switch {
	case err == nil:
		m.Complete, m.Reason = true, ""
	case ctx.Err() != nil:
		m.Reason = "interrupted"
		err = context.Cause(ctx)
	default:
		m.Reason = err.Error()
	}
	return st, errors.Join(err, st.WriteManifest(m))
}

func (p *Plan) defaults() {
	if p.Base.Workers == 0 {
		p.Base.Workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if p.Sleep == nil {
		p.Sleep = nanosleep
	}
	if p.Progress == nil {
		p.Progress = func(Progress) {}
	}
	if p.RunID == "" {
		p.RunID = fmt.Sprintf("%s-%04x", time.Now().UTC().Format("20060102T150405Z"), rand.Uint32()&0xffff)
	}
}

func (p *Plan) manifest() *results.Manifest {
	m := &results.Manifest{
		RunID: p.RunID, Label: p.Label, Tool: "rmqbench", Version: p.Version, Command: p.Command, Started: time.Now(), Reason: "running",
		Seed: p.Base.Seed, Reps: p.Reps, DurS: p.Base.Duration.Seconds(), WarmupS: p.Base.Warmup.Seconds(), MaxBytes: p.Base.MaxBytes,
		Cells: p.Cells, Config: p.Config, Notes: p.Notes,
	}
	rng := rand.New(rand.NewPCG(uint64(p.Base.Seed), 1))
	for range p.Reps {
		m.Order = append(m.Order, rng.Perm(len(p.Cells)))
	}
	m.NotControlled = []string{
		"other users of the host and of its disk", "write cache of the disk below the device", "CPU frequency and where the hypervisor runs our cores",
		"generator and engine share the cores",
	}
	return m
}

// partOverhead is about what a part takes beside its load.
const partOverhead = 3 * time.Second

func (p *Plan) estimate() time.Duration {
	var d time.Duration
	for _, c := range p.Cells {
		rate, _ := ParseRate(c.Rate) // Check has seen it
		per := p.Base.Duration + p.Base.Warmup + p.Base.Settle + partOverhead
		if rate.Closed {
			d += per
		}
		if rate.Open {
			d += per
		}
	}
	return d * time.Duration(p.Reps)
}

// matrixRun is a run in progress.
type matrixRun struct {
	p        *Plan
	store    *results.Store
	manifest *results.Manifest
	env      *results.Env
	probe    *results.Probe
	began    time.Time
	total    time.Duration // estimated, without the probe
	step     int
	done     time.Duration // estimated share of what is behind
	loadFrom time.Time
}

func (r *matrixRun) all(ctx context.Context) error {
	p := r.p
	if p.Env != nil {
		e := p.Env(ctx, p.dataDir())
		e.Target = results.Target{Name: "rmq", Version: p.Version}
		r.env = &e
		if results.MemoryFS(e.Disk.FSType) {
			note := "not a disk: " + p.dataDir() + " is on " + e.Disk.FSType + ", memory"
			r.manifest.Notes = append(r.manifest.Notes, note)
			p.Progress(Progress{Phase: "warning", Detail: note})
		}
		if err := errors.Join(r.store.WriteEnv(r.env), r.store.WriteManifest(r.manifest)); err != nil {
			return err
		}
	}
	if p.Probe != nil {
		probe, err := p.Probe(ctx, p.dataDir(), func(step string, i, n int) {
			p.Progress(Progress{Phase: "probe", Detail: fmt.Sprintf("%s (%d of %d)", step, i+1, n), Elapsed: time.Since(r.began)})
		})
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		r.probe = &probe
		if err := r.store.WriteProbe(r.probe); err != nil {
			return err
		}
	}
	r.loadFrom = time.Now()
	for block, order := range r.manifest.Order {
		for pos, i := range order {
			if err := r.rep(ctx, p.Cells[i], block, pos); err != nil {
				return err
			}
		}
	}
	if r.probe != nil && p.Drift != nil {
		p.Progress(Progress{Phase: "drift", Elapsed: time.Since(r.began)})
		end, err := p.Drift(ctx, p.dataDir())
		if err != nil {
			return fmt.Errorf("drift check: %w", err)
		}
		r.probe.End = &end
		return r.store.WriteProbe(r.probe)
	}
	return nil
}

// rep measures one cell once.
func (r *matrixRun) rep(ctx context.Context, c results.Cell, block, pos int) error {
	p := r.p
	r.step++
	w := p.Base
	w.Cell = c
	rate, err := ParseRate(c.Rate)
	if err != nil {
		return err
	}
	rep := &results.Rep{RunID: p.RunID, Cell: c, Block: block, Order: pos, Seed: seedOf(p.Base.Seed, c.ID(), strconv.Itoa(block))}
	var hists []results.Hist
	var rows []results.Row
	save := func(out *outcome) error {
		out.res.Judge(c, r.env, r.probe)
		hists, rows = append(hists, out.hists...), append(rows, out.rows...)
		return r.store.WriteRep(rep, hists, rows)
	}
	openRate, from := rate.PerS, "given"
	if rate.Closed {
		out, err := r.part(ctx, w, rep, results.PartClosed, 0, "")
		if err != nil {
			return err
		}
		rep.Closed = out.res
		if err := save(out); err != nil {
			return err
		}
		openRate, from = rate.Fraction*out.res.Throughput.AckedPerS, fmt.Sprintf("%g%% of closed", 100*rate.Fraction)
	}
	if !rate.Open {
		return nil
	}
	if openRate < 1 {
		return fmt.Errorf("cell %s: nothing was acknowledged at full speed, so there is no rate for the open loop", c.ID())
	}
	out, err := r.part(ctx, w, rep, results.PartOpen, openRate, from)
	if err != nil {
		return err
	}
	rep.Open = out.res
	return save(out)
}

func (r *matrixRun) part(ctx context.Context, w Workload, rep *results.Rep, part results.Part, rate float64, from string) (_ *outcome, err error) {
	p := r.p
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	id := rep.Cell.ID()
	dir := filepath.Join(p.dataDir(), fmt.Sprintf("%s-%s-%d-%s", p.RunID, id, rep.Block, part))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if !p.Keep {
		defer func() {
			err = errors.Join(err, os.RemoveAll(dir))
			runtime.GC() // what this part leaves is not the next one's
		}()
	}
	target := &results.Target{}
	began := time.Now()
	run := &partRun{
		wl: &w, part: part, rate: rate, from: from, driver: p.Drivers[rep.Cell.Driver], dir: dir, sleep: p.Sleep, target: target,
		runID: uint64(seedOf(0, p.RunID, id, strconv.Itoa(rep.Block), string(part))), seed: uint64(seedOf(rep.Seed, string(part))),
		report: func(s Progress) {
			s.Step, s.Steps, s.Block, s.Cell = r.step, len(p.Cells)*p.Reps, rep.Block, id
			s.ETA = r.eta(time.Since(began))
			p.Progress(s)
		},
	}
	out, err := run.do(ctx)
	if err != nil {
		return nil, fmt.Errorf("cell %s, block %d, %s loop: %w", id, rep.Block, part, err)
	}
	r.done += w.Duration + w.Warmup + w.Settle + partOverhead
	if r.env != nil && len(target.Config) > 0 && r.env.Target.Config == nil {
		r.env.Target.Config = target.Config
		r.env.Target.Config["flushDiskType"], r.env.Target.Config["write"] = "per cell", "per cell"
		if err := r.store.WriteEnv(r.env); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// eta scales the estimate by what the parts so far really took.
func (r *matrixRun) eta(inPart time.Duration) time.Duration {
	left := r.total - r.done - inPart
	if r.done > 0 {
		spent := time.Since(r.loadFrom) - inPart
		left = time.Duration(float64(r.total-r.done)*float64(spent)/float64(r.done)) - inPart
	}
	return max(0, left)
}

// seedOf mixes a seed with names, the same way everywhere and always.
func seedOf(seed int64, names ...string) int64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, strconv.FormatInt(seed, 10)) // a hash takes everything
	for _, n := range names {
		_, _ = io.WriteString(h, "\x00"+n)
	}
	return int64(h.Sum64() >> 1)
}
