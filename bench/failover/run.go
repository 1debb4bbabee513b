package failover

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/results"
)

// Options say what is measured and on what.
type Options struct {
	Events  []string // of [results.FailoverEvents]
	Trials  int      // of kills
	Others  int      // of every other event
	Flush   string   // async, sync
	Repl    string   // none, async, sync, raft
	Topics  int
	Queues  int
	Size    int   // of a body
	Log     int64 // bytes of log before the first trial
	MaxLog  int64 // bytes of log at which the cluster is made anew
	Rate    bench.Rate
	RateAs  string        // as asked
	After   time.Duration // how long is looked after an event, at least
	Freeze  time.Duration
	Delay   time.Duration // of a slow replica, each way
	Timeout time.Duration // after which a message that is not acknowledged has failed
	Tail    bool          // consumers follow all queues
	Seed    int64

	SegmentBytes int64
	Driver       wire.Driver
	FaultsDir    string // programs whose links can be cut; "": none

	OutDir, DataDir string
	Keep            bool
	Label, Version  string
	Command         []string
	Env             *results.Env
	Target          string // NameServer of a running cluster of somebody else's on this machine; "": brokers of ours are started
	JavaClient      string // command of the unmodified Java client; "": left out
	Progress        func(line string)

	// Start, if set, starts what is struck instead of brokers of ours.
	Start func(ctx context.Context, dir string, links bool) (Target, error)
}

const (
	beforeEvent = time.Second
	steadyFor   = 1200 * time.Millisecond // of load without trouble before an event
	paceLag     = 150 * time.Millisecond  // a message that waits longer is trouble
	paceWait    = 30 * time.Second        // for the load to be without trouble; of the Java client, which polls routes that often, twice
	patience    = 60 * time.Second
	longestWait = 30 * time.Second // for the first ack after an event
	sideRate    = 1000             // messages a second of every client but the first, at most a tenth of all
	window      = 8192             // messages in flight of the first client
	calibration = 4 * time.Second
	inFlight    = 1024 // while calibrating
)

// Names of the clients (decisions: probe of all nodes, ours with hint, ours by NameServer, unmodified Java).
const (
	clientProbe   = "probe"
	clientProduct = "client"
	clientRoute   = "namesrv"
	clientJava    = "java"
)

func (o *Options) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// Check finds what would stop the run before anything is written. Errors are *[bench.UsageError].
func (o *Options) Check() error {
	bad := func(format string, args ...any) error { return &bench.UsageError{Err: fmt.Errorf(format, args...)} }
	known := results.FailoverEvents()
	for _, e := range o.Events {
		if !slices.Contains(known, e) {
			return bad("--events=%s is unknown: use some of %v", e, known)
		}
	}
	switch {
	case len(o.Events) == 0:
		return bad("--events is empty: use some of %v", known)
	case !slices.Contains(bench.Repls, o.Repl):
		return bad("--repl=%s is unknown: use one of %v", o.Repl, bench.Repls)
	case !slices.Contains(bench.Flushes, o.Flush):
		return bad("--flush=%s is unknown: use async or sync", o.Flush)
	case o.Trials < 1:
		return bad("--trials=%d is out of range: use 1 or more, or leave kill out of --events", o.Trials)
	case o.Others < 0:
		return bad("--other-trials=%d is out of range: use 0 or more", o.Others)
	case o.Topics < 1 || o.Topics > bench.MaxTopics:
		return bad("--topics=%d is out of range: use 1 to %d", o.Topics, bench.MaxTopics)
	case o.Queues < 1 || o.Queues > bench.MaxQueues:
		return bad("--queues=%d is out of range: use 1 to %d", o.Queues, bench.MaxQueues)
	case o.Size < bench.HeaderBytes || o.Size > 1<<20:
		return bad("--size=%d is out of range: use %d to %d bytes", o.Size, bench.HeaderBytes, 1<<20)
	case o.MaxLog < 2*o.Log:
		return bad("--max-log is below twice --log: the cluster would be made anew at once")
	case o.JavaClient != "" && len(strings.Fields(o.JavaClient)) == 0:
		return bad("--java-client names no program: use its command, words separated by blanks")
	case !o.Rate.Open:
		return bad("--rate=%s is no load: use a share of the maximum such as 50%%, or messages a second", o.RateAs)
	}
	if _, err := os.Stat(filepath.Join(o.OutDir, results.FailoverFile)); err == nil {
		return bad("%s already holds a run: choose another --out or remove it", o.OutDir)
	}
	return o.checkEvents()
}

// checkEvents complains where none of the events can be had.
func (o *Options) checkEvents() error {
	var whys []string
	for _, e := range o.Events {
		why := o.cannot(e)
		if why == "" || o.Start != nil {
			return nil
		}
		whys = append(whys, e+": "+why)
	}
	return &bench.UsageError{Err: fmt.Errorf("--repl=%s with --events=%s leaves nothing to measure: %s", o.Repl, strings.Join(o.Events, ","), strings.Join(whys, "; "))}
}

// failoverRun is a run in progress.
type failoverRun struct {
	o    *Options
	f    *results.Failover
	rng  *rand.Rand
	made int // clusters
}

// Run measures every event and returns the run, which is on disk too, whole or not.
func Run(ctx context.Context, o Options) (*results.Failover, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.DataDir == "" {
		o.DataDir = filepath.Join(o.OutDir, "data")
	}
	spaceNote := ""
	if o.Start == nil && o.Target == "" {
		var err error
		if spaceNote, err = o.fitDisk(); err != nil {
			return nil, err
		}
	}
	r := &failoverRun{o: &o, rng: rand.New(rand.NewPCG(uint64(o.Seed), 6))}
	fsType := ""
	if o.Env != nil {
		fsType = o.Env.Disk.FSType
	}
	class, note := results.DurabilityClass(results.Cell{Driver: "wire", Flush: o.Flush, Repl: o.Repl}, fsType, o.Target != "")
	r.f = &results.Failover{
		RunID: fmt.Sprintf("%s-%04x", time.Now().UTC().Format("20060102T150405Z"), rand.Uint32()&0xffff), Label: o.Label, Tool: "rmqbench failover",
		Version: o.Version, Command: o.Command, Started: time.Now(), Reason: "running", Seed: o.Seed, Flush: o.Flush, Repl: o.Repl, Class: class,
		Topics: o.Topics, Queues: o.Queues, SizeBytes: o.Size, LogBytes: o.Log, Rate: o.RateAs, FreezeS: o.Freeze.Seconds(), DelayMS: o.Delay.Seconds() * 1e3,
	}
	if o.Tail {
		r.f.Consumers = 1
	}
	notes := []string{note, spaceNote}
	switch {
	case o.Target != "":
		notes = append(notes, "somebody else's cluster at "+o.Target+": a node is started again when its trial is over; its queues are not read back, so nothing is said of losses")
	case o.Repl == "async", o.Repl == "sync":
		notes = append(notes, "nobody is elected: the slave is promoted by `mqadmin promote` as soon as the master's process has ended, whose start is in the times; a hand-over is the same with the master alive")
		if o.Repl == "sync" {
			notes = append(notes, "dual write acknowledges nothing with one copy: the node that has ended is started again right after the promotion, and its start and catch-up are in the times")
		}
	case o.Repl == "none":
		notes = append(notes, "one node: it is started again as soon as its process has ended")
	}
	r.f.Notes = slices.DeleteFunc(notes, func(n string) bool { return n == "" })
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, &bench.UsageError{Err: err}
	}
	if o.Env != nil {
		if err := results.WriteFailoverEnv(o.OutDir, o.Env); err != nil {
			return nil, err
		}
	}
	err := r.all(ctx)
	r.f.Ended = time.Now()
	r.f.Complete, r.f.Reason = err == nil, ""
	if err != nil {
		r.f.Reason = err.Error()
	}
	if !o.Keep {
		err = errors.Join(err, os.RemoveAll(o.DataDir))
	}
	return r.f, errors.Join(err, results.WriteFailover(o.OutDir, r.f))
}

// all measures the events, those that need links on clusters of their own.
func (r *failoverRun) all(ctx context.Context) error {
	type job struct {
		event string
		n     int
	}
	var plain, linked []job
	for _, e := range r.o.Events {
		if why := r.o.cannot(e); why != "" && r.o.Start == nil {
			r.f.Skipped = append(r.f.Skipped, results.FailoverSkip{What: "event " + e, Reason: why})
			r.o.say("SKIPPED: event %s: %s", e, why)
			continue
		}
		trials := r.o.Others
		if e == results.FailKill {
			trials = r.o.Trials
		}
		for n := range trials {
			if needsLinks(e) {
				linked = append(linked, job{e, n + 1})
			} else {
				plain = append(plain, job{e, n + 1})
			}
		}
	}
	if r.o.JavaClient == "" {
		skip := results.FailoverSkip{What: "client " + clientJava, Reason: "no command of one was given (--java-client); `make bench-failover` builds one"}
		r.f.Skipped = append(r.f.Skipped, skip)
		r.o.say("SKIPPED: %s: %s", skip.What, skip.Reason)
	}
	for _, part := range []struct {
		jobs  []job
		links bool
	}{{plain, false}, {linked, true}} {
		// Events of all kinds take turns, so that what drifts meets all of them.
		r.rng.Shuffle(len(part.jobs), func(i, j int) { part.jobs[i], part.jobs[j] = part.jobs[j], part.jobs[i] })
		var e *epoch
		for i, j := range part.jobs {
			if err := ctx.Err(); err != nil {
				if e != nil {
					err = errors.Join(context.Cause(ctx), e.end(context.WithoutCancel(ctx)))
				}
				return err
			}
			if e == nil {
				var err error
				if e, err = r.begin(ctx, part.links); err != nil {
					return err
				}
			}
			if err := e.trial(ctx, j.event, j.n); err != nil {
				return errors.Join(fmt.Errorf("%s %d: %w", j.event, j.n, err), e.end(context.WithoutCancel(ctx)))
			}
			if err := results.WriteFailover(r.o.OutDir, r.f); err != nil {
				return errors.Join(err, e.end(ctx))
			}
			if i+1 < len(part.jobs) && e.t.Log(ctx) < r.o.MaxLog {
				continue
			}
			if err := e.end(ctx); err != nil {
				return err
			}
			e = nil
		}
	}
	return nil
}

// trial lets one event happen and books what came of it.
func (e *epoch) trial(ctx context.Context, event string, n int) error {
	o := e.r.o
	offPace, err := e.steady(ctx)
	if err != nil {
		return err
	}
	from, _, err := e.t.Leader(ctx)
	if err != nil {
		return err
	}
	logBytes := e.t.Log(ctx)
	sleep(ctx, time.Duration(e.r.rng.Int64N(int64(200*time.Millisecond)))) // no event keeps step with a clock of the cluster
	e.takeFailures()
	if e.tail != nil {
		e.tail.takeGap(e.clock())
	}
	after := o.After
	if event == results.FailFreeze {
		after += o.Freeze
	}
	o.say("%s %d of %s: %s leads", event, n, e.r.count(event), from)
	wall, err := e.t.Strike(ctx, event)
	if err != nil {
		return err
	}
	at := int64(wall.Sub(e.began))
	sleep(ctx, after)
	for waited := after; ctx.Err() == nil && waited < longestWait && !e.served(at); waited = time.Duration(e.clock() - at) {
		sleep(ctx, 20*time.Millisecond)
		after = waited + o.After
		if e.served(at) {
			sleep(ctx, o.After)
		}
	}
	after = max(after, time.Duration(e.clock()-at).Truncate(results.FailoverBin))
	gap := int64(0)
	if e.tail != nil {
		gap = e.tail.takeGap(e.clock())
	}
	t := &results.FailoverTrial{Event: event, N: n, At: wall, From: from, AfterS: after.Seconds(), LogBytes: logBytes}
	if e.tail != nil {
		t.ConsumerMS = results.Ptr(float64(gap) / 1e6)
	}
	healing := time.Now()
	if err := e.t.Heal(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	t.HealS = time.Since(healing).Seconds()
	if t.To, _, err = e.t.Leader(ctx); err != nil {
		return err
	}
	if err := e.tellRoles(t); err != nil {
		return err
	}
	e.await(ctx, at+int64(after))
	e.book(t, at, after)
	if offPace != "" {
		t.Void = offPace
	}
	e.trials = append(e.trials, &trial{at: at, after: int64(after), res: t})
	e.r.f.Trials = append(e.r.f.Trials, t)
	first := t.Clients[0]
	o.say("%s %d: next ack after %s, window %s, silence of consumers %s, in sync again %.1f s later%s", event, n, msText(first.NextAckMS), msText(first.WindowMS),
		msText(t.ConsumerMS), t.HealS, voidText(t.Void))
	return ctx.Err()
}

// tellRoles books what the nodes noticed of the event of a trial. A slow replica changes no roles.
func (e *epoch) tellRoles(t *results.FailoverTrial) error {
	tells, ok := e.t.(teller)
	if !ok || t.Event == results.FailSlow {
		return nil
	}
	r, err := tells.Roles(t.At)
	if err != nil {
		return err
	}
	since := func(at time.Time) *float64 {
		if d := at.Sub(t.At); !at.IsZero() && d <= time.Duration(t.AfterS*1e9) {
			return results.Ptr(max(0, d.Seconds()*1e3))
		}
		return nil
	}
	t.NoticedMS, t.LedMS = since(r.noticed), since(r.led)
	return nil
}

func msText(v *float64) string {
	if v == nil {
		return "never"
	}
	return fmt.Sprintf("%.1f ms", *v)
}

func voidText(why string) string {
	if why == "" {
		return ""
	}
	return ": VOID, " + why
}

func (r *failoverRun) count(event string) string {
	if event == results.FailKill {
		return fmt.Sprint(r.o.Trials)
	}
	return fmt.Sprint(r.o.Others)
}

// await returns when every message due before t has been answered, or its time is up.
func (e *epoch) await(ctx context.Context, t int64) {
	for end := e.clock() + int64(e.r.o.Timeout+2*time.Second); ctx.Err() == nil && e.clock() < end; sleep(ctx, 20*time.Millisecond) {
		open := false
		for _, s := range e.streams {
			made := s.count()
			for n := s.first(t - int64(longestWait+patience)); n < s.first(t); n++ {
				if n >= made || s.at(n).state.Load() == pending {
					open = true
					break
				}
			}
		}
		if !open {
			return
		}
	}
}

// served says whether the first client has had an ack of a message that was sent after t.
func (e *epoch) served(t int64) bool {
	s := e.streams[0]
	made := s.count()
	for n := s.first(t - int64(time.Second)); n < made; n++ {
		if m := s.at(n); m.sent.Load() >= t && m.state.Load() == acked {
			return true
		}
	}
	return false
}

// book fills in what the clients saw.
func (e *epoch) book(t *results.FailoverTrial, at int64, after time.Duration) {
	late := int64(0)
	for i, s := range e.streams {
		samples := s.samples(at, after)
		own := results.FailoverLate(samples)
		if i == 0 {
			late = own
			t.LateMS = float64(late) / 1e6
		}
		c := results.AnalyseFailover(s.name, samples, after, max(late, own))
		c.Failure = s.takeFailure()
		t.Clients = append(t.Clients, c)
	}
	switch {
	case t.LogBytes < e.r.o.Log:
		t.Void = fmt.Sprintf("%d bytes of log are fewer than %d", t.LogBytes, e.r.o.Log)
	case t.Clients[0].BeforePerS < e.streams[0].rate/2:
		t.Void = fmt.Sprintf("only %.0f of %.0f messages a second were acknowledged before", t.Clients[0].BeforePerS, e.streams[0].rate)
	}
}

// steady waits until all clients keep their pace: what piled up is drained and next to nothing waits. It says what is
// wrong if that takes too long, "" if all is well.
func (e *epoch) steady(ctx context.Context) (bad string, err error) {
	began, wait := time.Now(), paceWait
	if e.r.o.JavaClient != "" {
		wait *= 2
	}
	for said := false; ; {
		if bad, err = e.watchPace(ctx); bad == "" || err != nil {
			return bad, err
		}
		if time.Since(began) > wait {
			bad = fmt.Sprintf("the pace was not met again within %v", wait) + bad
			e.r.o.say("%s", bad)
			return bad, nil
		}
		if !said {
			e.r.o.say("waiting for the pace%s", bad)
			said = true
		}
	}
}

// watchPace looks at the clients for a while and says which falls behind, "" if none does. It returns early where it will
// not hold.
func (e *epoch) watchPace(ctx context.Context) (bad string, err error) {
	began, before := time.Now(), make([]int64, len(e.streams))
	for i, s := range e.streams {
		_, before[i] = s.lag(e.clock())
	}
	for {
		sleep(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		watched := time.Since(began)
		for i, s := range e.streams {
			lag, acks := s.lag(e.clock())
			if lag > paceLag {
				return fmt.Sprintf(": a message of %s has waited for %v", s.name, lag.Round(time.Millisecond)), nil
			}
			if got, want := float64(acks-before[i]), 0.9*s.rate*watched.Seconds(); watched >= steadyFor && got < want {
				return fmt.Sprintf(": %s has %.0f acknowledgements in %v, fewer than %.0f", s.name, got, watched.Round(time.Millisecond), want), nil
			}
		}
		if watched >= steadyFor {
			return "", nil
		}
	}
}

func (e *epoch) takeFailures() {
	for _, s := range e.streams {
		s.takeFailure()
	}
}

// rateOf is the load of the run, from a share of what the cluster takes at most.
func (r *failoverRun) rateOf(most float64) float64 {
	if !r.o.Rate.Closed {
		return r.o.Rate.PerS
	}
	return math.Max(100, r.o.Rate.Fraction*most)
}
