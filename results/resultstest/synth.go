// Package resultstest makes runs that nobody measured: the same bytes for the same options, with
// the shape of real ones. Tests of statistics and reports stand on it, and so does the picture of
// a report without a disk.
package resultstest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rmq/results"
)

// Options of a made-up run. The zero value is four cells in three blocks.
type Options struct {
	Cells []results.Cell
	Reps  int
	Seed  int64
	Label string
	DurS  int
	// Speed multiplies a repetition's rate and divides its latencies. Nil is 1.
	Speed func(c results.Cell, block int) float64
	// Edit has the last word on a repetition before it is judged.
	Edit     func(r *results.Rep)
	Manifest func(m *results.Manifest)
	Env      func(e *results.Env)
}

// Epoch is when every made-up run began.
var Epoch = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// Matrix makes every combination of flush modes, topics and producers, the rest at its default.
func Matrix(flush []string, topics, producers []int) []results.Cell {
	var cs []results.Cell
	for _, f := range flush {
		for _, t := range topics {
			for _, p := range producers {
				cs = append(cs, results.Cell{
					Driver: "embedded", Flush: f, Repl: "none", Write: "pwrite", Topics: t, Queues: 8,
					SizeBytes: 1024, Producers: p, Window: 1,
				})
			}
		}
	}
	return cs
}

// Replicated makes every combination of flush and replication modes and topics, over the wire.
func Replicated(flush, repl []string, topics []int) []results.Cell {
	var cs []results.Cell
	for _, f := range flush {
		for _, r := range repl {
			for _, t := range topics {
				cs = append(cs, results.Cell{
					Driver: "wire", Flush: f, Repl: r, Write: "pwrite", Topics: t, Queues: 8, SizeBytes: 1024, Producers: 16, Window: 64,
				})
			}
		}
	}
	return cs
}

// Write makes a run and stores it in dir.
func Write(dir string, o Options) (*results.Store, error) {
	if o.Cells == nil {
		o.Cells = Matrix([]string{"async", "sync"}, []int{1, 256}, []int{64})
	}
	if o.Reps == 0 {
		o.Reps = 3
	}
	if o.DurS == 0 {
		o.DurS = 10
	}
	m := manifest(o)
	if o.Manifest != nil {
		o.Manifest(m)
	}
	s, err := results.Create(dir, m)
	if err != nil {
		return nil, err
	}
	env, probe := environment(), Probe()
	if o.Env != nil {
		o.Env(env)
	}
	if err := s.WriteEnv(env); err != nil {
		return nil, err
	}
	if err := s.WriteProbe(probe); err != nil {
		return nil, err
	}
	for block, order := range m.Order {
		for pos, i := range order {
			if err := writeRep(s, m, env, probe, o, o.Cells[i], block, pos); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func manifest(o Options) *results.Manifest {
	m := &results.Manifest{
		RunID: fmt.Sprintf("20261124T090000Z-%04x", o.Seed), Label: o.Label, Tool: "rmqbench", Version: "0.1.0",
		Command: []string{"rmqbench", "run", "--flush=async,sync", "--topics=1,256", "--duration=10s", "--out", "results/example"},
		Started: Epoch, Ended: Epoch.Add(7 * time.Minute), Complete: true,
		Seed: o.Seed, Reps: o.Reps, DurS: float64(o.DurS), WarmupS: 2, MaxBytes: 4 << 30, Cells: o.Cells,
		Config:        map[string]string{"flush": "async,sync", "topics": "1,256", "duration": "10s", "warmup": "2s", "size": "1KiB", "producers": "64", "window": "1"},
		NotControlled: []string{"shared host", "disk write cache policy of the hypervisor", "CPU frequency (not offered by the guest)"},
	}
	rng := rand.New(rand.NewPCG(uint64(o.Seed), 1))
	for range o.Reps {
		m.Order = append(m.Order, rng.Perm(len(o.Cells)))
	}
	return m
}

func environment() *results.Env {
	return &results.Env{
		Collected: Epoch,
		Host: results.Host{
			Name: "box", OS: "linux", Kernel: "6.18.5", Arch: "amd64", CPUModel: "Intel Xeon Processor (Sapphire Rapids)", CPUs: 2,
			RAMBytes: 23 << 30, Virtualisation: "kvm", ClockSource: "kvm-clock", THP: "madvise", NUMANodes: 1,
			Sysctl: map[string]string{"vm.dirty_background_ratio": "10", "vm.dirty_ratio": "20", "vm.dirty_expire_centisecs": "3000", "vm.swappiness": "60"},
		},
		Disk: results.Disk{
			Dir: "/data/rmqbench", FSType: "ext4", MountPoint: "/data", MountOptions: "rw,relatime,discard", Device: "vda", Model: "virtio",
			WriteCache: "write back", Scheduler: "mq-deadline", QueueDepth: 256, TotalBytes: 200 << 30, FreeBytes: 150 << 30,
		},
		Toolchain: results.Toolchain{Go: "go1.26.0", GOMAXPROCS: 2, Commit: "0123456789ab"},
		Target: results.Target{Name: "rmq engine", Version: "0.1.0", Config: map[string]string{
			"mappedFileSizeCommitLog": "1073741824", "mappedFileSizeConsumeQueue": "6000000", "flushDiskType": "per cell",
		}},
		Foreign: []results.Process{{PID: 312, Name: "sshd", CPUFrac: 0.004}},
		Unknown: []string{"microcode", "governor"},
	}
}

// Probe is the made-up machine's probe.
func Probe() *results.Probe {
	l := func(name string, v float64, unit string, p50, p99 float64) results.Limit {
		return results.Limit{Name: name, Value: v, Unit: unit, N: 10_000, P50: p50, P99: p99}
	}
	return &results.Probe{
		Start: results.ProbeRun{Started: Epoch, TookS: 23.4, Dir: "/data/rmqbench", Limits: []results.Limit{
			l(results.LimitSync(results.StateWritten, 1), 7100, "1/s", 126, 480),
			l(results.LimitSync(results.StateWritten, 4), 16_400, "1/s", 221, 900),
			l(results.LimitSync(results.StateAllocated, 1), 4900, "1/s", 190, 710),
			l(results.LimitSync(results.StateGrowing, 1), 4700, "1/s", 201, 800),
			l(results.LimitFlush(1), 139, "us", 139, 500), l(results.LimitFlush(8), 144, "us", 144, 520), l(results.LimitFlush(64), 205, "us", 205, 690),
			l(results.LimitGroup(1), 6200, "msg/s", 153, 520), l(results.LimitGroup(8), 23_800, "msg/s", 320, 800),
			l(results.LimitGroup(64), 167_000, "msg/s", 360, 940), l(results.LimitGroup(256), 297_000, "msg/s", 740, 2500),
			l(results.LimitMemcpy1K, 101e9, "B/s", 0, 0), l(results.LimitMemcpy64K, 51e9, "B/s", 0, 0), l(results.LimitMemcpyRegion, 8.2e6, "msg/s", 0, 0),
			l(results.LimitAppend(results.StateWritten), 1.53e6, "msg/s", 0.6, 1.2), l(results.LimitPwriteBatch, 5.0e6, "msg/s", 0, 0),
			l(results.LimitWriteBack, 1.9e9, "B/s", 0, 0), l(results.LimitWriteDirect, 3.2e9, "B/s", 0, 0), l(results.LimitReadDirect, 2.1e9, "B/s", 0, 0),
			l(results.LimitLoopbackRTT, 8.6, "us", 8.6, 71), l(results.LimitLoopbackRate, 2.7e6, "1/s", 140, 760),
			l(results.LimitTimerError, 58, "us", 58, 139), l(results.LimitClock, 0.038, "us", 0, 0),
			{Name: results.LimitFolioBytes, Value: 1.05e6, Unit: "B", N: 200, Note: "a 1 KiB store through a mapping flushes 1 MiB: large folios"},
		}, Notes: []string{"the large-folio trap is present: writes go by pwrite"}},
		End: &results.ProbeRun{Started: Epoch.Add(7 * time.Minute), TookS: 3.6, Limits: []results.Limit{
			l(results.LimitSync(results.StateWritten, 1), 6900, "1/s", 130, 500),
			l(results.LimitWriteBack, 1.86e9, "B/s", 0, 0),
			l(results.LimitMemcpy64K, 50.2e9, "B/s", 0, 0),
		}},
	}
}

// shape is what one part of one repetition does.
type shape struct {
	rate      float64 // msg/s
	offered   float64
	p50       float64 // service, us
	sigma     float64
	tailFrac  float64 // share of messages that meet a stall
	tailUS    float64
	flushesPS float64
}

func shapeOf(c results.Cell, part results.Part, speed float64) shape {
	n := float64(c.Producers * c.Window)
	topics := 1 - 0.012*math.Log2(float64(c.Topics))
	var s shape
	if c.Flush == "sync" {
		ceil, _ := Probe().GroupCommit(int(n))
		s = shape{rate: 0.91 * ceil * topics, sigma: 0.33, tailFrac: 0.0009, tailUS: 4200}
	} else {
		s = shape{rate: 1.31e6 * topics * math.Min(1, 0.35+0.2*math.Log2(1+n)/1.2), sigma: 0.42, tailFrac: 0.00012, tailUS: 2600}
	}
	if c.Write == "mmap" {
		s.rate *= 0.58
		s.tailFrac *= 9
	}
	s.rate *= speed
	if c.Driver == "wire" {
		s.rate *= map[string]float64{"none": 1, "async": 0.82, "sync": 0.78, "raft": 0.55}[c.Repl] * 0.2
	}
	s.p50 = n / s.rate * 1e6 * 0.94
	s.offered = s.rate
	if part == results.PartOpen {
		s.offered = s.rate / 2
		s.rate = s.offered
		s.p50 *= 0.55
	}
	if c.Flush == "sync" {
		s.p50 = math.Max(s.p50, 205/speed)
		s.flushesPS = math.Min(7000, math.Max(1, s.rate/math.Max(1, n/2)))
		s.flushesPS = math.Min(s.flushesPS, 1e6/s.p50)
	} else {
		s.p50 = math.Max(s.p50, 9/speed)
		s.flushesPS = 18
	}
	return s
}

func writeRep(st *results.Store, m *results.Manifest, env *results.Env, probe *results.Probe, o Options, c results.Cell, block, pos int) error {
	rng := rand.New(rand.NewPCG(uint64(o.Seed)<<8|uint64(block), hashOf(c.ID())))
	speed := math.Exp(0.02 * rng.NormFloat64())
	if o.Speed != nil {
		speed *= o.Speed(c, block)
	}
	rep := &results.Rep{RunID: m.RunID, Cell: c, Block: block, Order: pos, Seed: o.Seed + int64(block)}
	var hists []results.Hist
	var rows []results.Row
	for _, p := range []results.Part{results.PartClosed, results.PartOpen} {
		res, hs, rs := makePart(rng, c, p, shapeOf(c, p, speed), o.DurS, m.Started.Add(time.Duration(block*100+pos*20)*time.Second))
		if p == results.PartClosed {
			rep.Closed = res
		} else {
			rep.Open = res
		}
		hists, rows = append(hists, hs...), append(rows, rs...)
	}
	if o.Edit != nil {
		o.Edit(rep)
	}
	for _, r := range rep.Parts() {
		r.Judge(c, env, probe)
	}
	return st.WriteRep(rep, hists, rows)
}

func makePart(rng *rand.Rand, c results.Cell, part results.Part, s shape, durS int, at time.Time) (*results.Result, []results.Hist, []results.Row) {
	n := int64(s.rate * float64(durS))
	svc := distribution(n, s, 0, 0)
	resp := svc
	var queueing, pacing *hdrhistogram.Histogram
	if part == results.PartOpen {
		// A stall delays everything due while it lasts: response has more of it than service.
		resp = distribution(n, s, 14, 24)
		queueing = distribution(n, shape{p50: 21, sigma: 0.5, tailFrac: s.tailFrac * 12, tailUS: s.tailUS * 0.7}, 0, 0)
		pacing = distribution(n, shape{p50: 24, sigma: 0.55, tailFrac: 0.0001, tailUS: 240}, 0, 0)
	}
	logBytes := n * int64(c.SizeBytes+120)
	res := &results.Result{
		Part: part, Started: at, MeasuredS: float64(durS),
		Load: results.Load{Mode: part, Producers: c.Producers, Window: c.Window, Outstanding: c.Producers * c.Window},
		Counts: results.Counts{
			Due: n, Sent: n, Acked: n,
		},
		Throughput: results.Throughput{OfferedPerS: s.offered, AckedPerS: s.rate, BodyBytesPerS: s.rate * float64(c.SizeBytes), LogBytesPerS: float64(logBytes) / float64(durS)},
		Latency:    results.Latencies{Response: results.Summarize(resp), Service: results.Summarize(svc)},
		Resources: results.Resources{
			GenCPUS: results.Ptr(0.04 * s.rate / 1e5 * float64(durS)), GenCores: 2,
			ProcCPUS: results.Ptr(float64(durS) * math.Min(1.9, 0.3+s.rate/0.8e6)), StealS: results.Ptr(0.003 * float64(durS)), ForeignCPUS: results.Ptr(0.011 * float64(durS)),
			RSSMaxBytes: 212 << 20, GCs: 4, GCPauseP50US: 41, GCPauseMaxUS: 118,
			LogBytes: logBytes, EngineFlushes: results.Ptr(int64(s.flushesPS * float64(durS))), EngineWrites: results.Ptr(n / 40),
			DevWriteBytes: results.Ptr(int64(float64(logBytes) * 1.01)), DevFinalBytes: results.Ptr(int64(float64(logBytes) * 1.02)),
			DevWrites: results.Ptr(int64(s.flushesPS*float64(durS)) * 2), DevReadBytes: results.Ptr(int64(0)),
			DevFlushes: results.Ptr(int64(s.flushesPS*float64(durS)) + 3), ForeignDevBytes: results.Ptr(int64(2 << 20)),
			DirtyMaxBytes: 1 << 29, SwapInOut: results.Ptr(int64(0)), FreeDiskFrac: results.Ptr(0.74), ClockStepUS: results.Ptr(3.0),
		},
		Phases: []results.Phase{
			{Name: results.PhasePrepare, StartS: -9, EndS: -4}, {Name: results.PhaseSettle, StartS: -4, EndS: -2},
			{Name: results.PhaseWarmup, StartS: -2, EndS: 0}, {Name: results.PhaseMeasure, StartS: 0, EndS: float64(durS)},
			{Name: results.PhaseDrain, StartS: float64(durS), EndS: float64(durS) + 0.1}, {Name: results.PhaseVerify, StartS: float64(durS) + 0.1, EndS: float64(durS) + 2},
		},
		Verify: &results.Verify{TookS: 1.9, Acked: n, ByQueue: n, ByScan: n},
	}
	if part == results.PartOpen {
		res.Load.Arrival, res.Load.RatePerS, res.Load.RateFrom = "uniform", s.offered, "50% of closed"
		res.Load.Outstanding = 4096
		q := results.Summarize(queueing)
		res.Latency.Queueing = &q
		p := results.Summarize(pacing)
		res.Pacing = &p
		res.Counts.Delayed = n / 4000
	}
	if c.Flush == "sync" {
		res.Resources.DirtyMaxBytes = 6 << 20
	}
	replicate(c, res)
	rows := series(rng, c, part, s, durS, res)
	hists := []results.Hist{
		{Part: part, Name: results.HistResponse, Whole: true, DurS: float64(durS), H: resp},
		{Part: part, Name: results.HistService, Whole: true, DurS: float64(durS), H: svc},
	}
	if part == results.PartOpen {
		hists = append(hists,
			results.Hist{Part: part, Name: results.HistQueueing, Whole: true, DurS: float64(durS), H: queueing},
			results.Hist{Part: part, Name: results.HistPacing, Whole: true, DurS: float64(durS), H: pacing})
	}
	return res, hists, rows
}

// replicate adds what the nodes of a replicated cell would tell.
func replicate(c results.Cell, res *results.Result) {
	nodes := map[string]int{"async": 2, "sync": 2, "raft": 3}[c.Repl]
	if nodes == 0 {
		return
	}
	r := &results.Replication{
		Samples: 4, LagMaxBytes: 96 << 10, UnflushedMaxBytes: 11 << 20, CatchUpS: 0.004,
		Hops: []results.ReplicaHop{
			{Name: "append", N: res.Counts.Acked / 20, MeanUS: 21}, {Name: "localFlush", N: res.Counts.Acked / 40, MeanUS: 150},
			{Name: "send", N: res.Counts.Acked / 20, MeanUS: 34}, {Name: "remoteAppend", N: res.Counts.Acked / 20, MeanUS: 48}, {Name: "ack", N: res.Counts.Acked / 20, MeanUS: 240},
		},
	}
	if c.Flush == "sync" {
		r.UnflushedMaxBytes = 1 << 20
		r.Hops = append(r.Hops[:4:4], results.ReplicaHop{Name: "remoteFlush", N: res.Counts.Acked / 40, MeanUS: 171}, r.Hops[4])
	}
	if c.Repl == "async" {
		r.LagMaxBytes, r.CatchUpS = 3<<20, 0.02
		r.ClockS = res.MeasuredS + r.CatchUpS
	}
	for i := range nodes {
		r.Nodes = append(r.Nodes, results.ReplicaNode{ID: fmt.Sprintf("n%d", i), LogBytes: res.Resources.LogBytes, WrittenBytes: results.Ptr(res.Resources.LogBytes / 100 * int64(103+i))})
	}
	*res.Resources.DevFinalBytes *= int64(nodes)
	res.Replication = r
}

func series(rng *rand.Rand, c results.Cell, part results.Part, s shape, durS int, res *results.Result) []results.Row {
	var rows []results.Row
	perMsg := float64(c.SizeBytes + 120)
	segment := float64(1 << 30)
	logged, dirty := 0.3*segment, 0.0
	for t := -2; t < durS; t++ {
		wobble := math.Exp(0.015 * rng.NormFloat64())
		r := results.Row{
			Part: part, Phase: results.PhaseMeasure, TS: float64(t), DurS: 1, Offered: s.offered, Acked: s.rate * wobble,
			P50: s.p50 * math.Exp(0.02*rng.NormFloat64()), P99: s.p50 * 2.9 * math.Exp(0.07*rng.NormFloat64()), Max: s.tailUS * (0.5 + rng.Float64()),
			Backlog: int64(s.rate * s.p50 / 1e6 * wobble), CPU: math.Min(1.9, 0.3+s.rate/0.8e6), Goroutines: 81, RSSBytes: 190 << 20,
		}
		if t < 0 {
			r.Phase = results.PhaseWarmup
		}
		if part == results.PartOpen {
			r.Acked = s.offered
		}
		logged += s.rate * perMsg
		dev := s.rate * perMsg * wobble
		if logged > segment {
			logged = math.Mod(logged, segment)
			r.P99 *= 2.6
			r.Max = s.tailUS * 2.2
			r.Backlog *= 3
			if t >= 0 {
				res.Events = append(res.Events, results.Event{TS: float64(t) + 0.41, Kind: results.EventRoll, Detail: "next 1 GiB segment, prepared", TookUS: 310})
			}
		}
		if c.Flush == "async" {
			dev = s.rate * perMsg * (0.8 + 0.4*rng.Float64())
			dirty = math.Max(0, dirty+s.rate*perMsg-dev) + 40e6*rng.Float64()
		} else {
			dirty = 4e6 * (1 + rng.Float64())
		}
		r.ServiceP99 = r.P99 * 0.8
		r.DevWrite, r.DevFlushes = results.Ptr(dev), results.Ptr(s.flushesPS*wobble)
		r.Flushes, r.DirtyBytes = results.Ptr(s.flushesPS*wobble), results.Ptr(int64(dirty))
		r.DevRead = results.Ptr(0.0)
		rows = append(rows, r)
	}
	res.Events = append(res.Events, results.Event{TS: float64(durS) * 0.63, Kind: results.EventCheckpoint, Detail: "8 queues", TookUS: 5200})
	for i := range 100 {
		resp := s.tailUS * 2.2 / (1 + float64(i)*0.04)
		res.Worst = append(res.Worst, results.Sample{
			TS: math.Mod(3.41+float64(i)*0.0007, float64(durS)), Phase: results.PhaseMeasure, ResponseUS: resp, ServiceUS: resp * 0.62, QueueingUS: resp * 0.38,
			Worker: i % c.Producers, Seq: int64(4_100_000 + i*17), Cause: "roll",
		})
	}
	return rows
}

// distribution records n values of a log-normal body with a stalled tail, by quantiles instead of
// by chance. add shifts the body, gap multiplies the share that meets a stall.
func distribution(n int64, s shape, add, gap float64) *hdrhistogram.Histogram {
	h := results.NewHistogram()
	tail := s.tailFrac * math.Max(1, gap)
	record := func(us float64, k int64) {
		if k > 0 {
			_ = h.RecordValues(int64(us*1000), k) // far inside the range
		}
	}
	body := float64(n) * (1 - tail)
	left := n
	const steps = 1000
	for i := range steps {
		q := (float64(i) + 0.5) / steps
		k := int64(body*float64(i+1)/steps) - int64(body*float64(i)/steps)
		left -= k
		record(add+s.p50*math.Exp(s.sigma*normal(q)), k)
	}
	for i := int64(0); left > 0; i++ {
		k := max(1, left/12)
		left -= k
		record(s.tailUS*(0.25+0.75*(1-math.Exp(-float64(i)/9))), k)
	}
	return h
}

func normal(q float64) float64 { return -math.Sqrt2 * math.Erfcinv(2*q) }

func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(strings.ToLower(s)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}
