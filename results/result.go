package results

import "time"

// Rep is result.json: one cell in one block. A part that did not run is absent.
type Rep struct {
	Schema int     `json:"schema"`
	RunID  string  `json:"run_id"`
	Cell   Cell    `json:"cell"`
	Block  int     `json:"block"` // from 0; cells of the same block are pairs
	Order  int     `json:"order"` // position within the block, from 0
	Seed   int64   `json:"seed"`
	Closed *Result `json:"closed,omitempty"`
	Open   *Result `json:"open,omitempty"`
}

// Part returns one part, or nil.
func (r *Rep) Part(p Part) *Result {
	if p == PartClosed {
		return r.Closed
	}
	return r.Open
}

// Parts lists the parts that ran, the closed one first.
func (r *Rep) Parts() []*Result {
	var ps []*Result
	for _, p := range []*Result{r.Closed, r.Open} {
		if p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// Result is one part of one repetition of one cell.
type Result struct {
	Part      Part      `json:"part"`
	Started   time.Time `json:"started"` // of the measured phase, wall clock
	MeasuredS float64   `json:"measured_s"`
	Load      Load      `json:"load"`
	Class     Class     `json:"durability_class"`
	ClassNote string    `json:"durability_note,omitempty"`

	Counts     Counts     `json:"counts"`
	Throughput Throughput `json:"throughput"`
	Latency    Latencies  `json:"latency_us"`
	Pacing     *Latency   `json:"pacing_error_us,omitempty"`
	Phases     []Phase    `json:"phases,omitempty"`
	Events     []Event    `json:"events,omitempty"`
	Worst      []Sample   `json:"worst,omitempty"` // the 100 slowest, slowest first
	Verify     *Verify    `json:"verify,omitempty"`
	// Replication is nil where the log is on one node only.
	Replication *Replication `json:"replication,omitempty"`
	Resources   Resources    `json:"resources"`
	Limits      Limits       `json:"limits"`
	Gates       []Gate       `json:"gates"`
	// Valid is false as soon as one gate failed. The result is kept, shown and left out of medians.
	Valid bool     `json:"valid"`
	Notes []string `json:"notes,omitempty"`
}

// Load is what was offered.
type Load struct {
	Mode      Part    `json:"mode"`
	Arrival   string  `json:"arrival,omitempty"`
	RatePerS  float64 `json:"rate_per_s,omitempty"` // the schedule of an open loop, msg/s
	RateFrom  string  `json:"rate_from,omitempty"`  // "given", "50% of closed"
	Producers int     `json:"producers"`
	Window    int     `json:"window"`
	// Outstanding is the most messages that can be in flight: producers × window.
	Outstanding int `json:"outstanding"`
}

// Counts counts messages of the measured phase. Due = Acked + Unfinished + all of Failed.
type Counts struct {
	Due        int64            `json:"due"`
	Sent       int64            `json:"sent"`
	Acked      int64            `json:"acked"`
	Delayed    int64            `json:"delayed"`    // waited in the generator because the window was full
	Unfinished int64            `json:"unfinished"` // still unanswered at the end of the grace, recorded at their age
	Failed     map[string]int64 `json:"failed,omitempty"`
	Consumed   int64            `json:"consumed,omitempty"`
	// OutOfRange counts samples beyond the histogram's range; they are not in any percentile.
	OutOfRange int64 `json:"out_of_range"`
	// BelowZero counts samples that came out negative; they are recorded as zero.
	BelowZero int64 `json:"below_zero,omitempty"`
}

// FailedTotal adds up the failures.
func (c Counts) FailedTotal() int64 {
	var n int64
	for _, v := range c.Failed {
		n += v
	}
	return n
}

// Throughput of the measured phase.
type Throughput struct {
	OfferedPerS   float64 `json:"offered_per_s"`
	AckedPerS     float64 `json:"acked_per_s"` // headline
	ConsumedPerS  float64 `json:"consumed_per_s,omitempty"`
	BodyBytesPerS float64 `json:"body_bytes_per_s"`
	LogBytesPerS  float64 `json:"log_bytes_per_s,omitempty"`
}

// Latencies of acknowledged messages. Response is the headline: from the due time to the ack.
// In a closed loop nothing is due, so Response equals Service.
type Latencies struct {
	Response Latency  `json:"response"`
	Service  Latency  `json:"service"`
	Queueing *Latency `json:"queueing,omitempty"`
	EndToEnd *Latency `json:"e2e,omitempty"`
	Failed   *Latency `json:"failed,omitempty"` // answers that were no success
}

// Latency summarises one histogram, in us. P999 is zero below 10,000 samples and P9999 below
// 100,000: the sample does not support them.
type Latency struct {
	N     int64   `json:"n"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9,omitempty"`
	P9999 float64 `json:"p99_99,omitempty"`
	Max   float64 `json:"max"`
}

// Names of phases.
const (
	PhasePrepare = "prepare"
	PhaseSettle  = "settle"
	PhaseWarmup  = "warm-up"
	PhaseMeasure = "measure"
	PhaseDrain   = "drain"
	PhaseVerify  = "verify"
)

// Phase is one phase; T = 0 is the start of measuring.
type Phase struct {
	Name   string  `json:"name"`
	StartS float64 `json:"start_s"`
	EndS   float64 `json:"end_s"`
	Note   string  `json:"note,omitempty"` // "not_steady: p99 changed 31 % in the last 2 s"
}

// Kinds of events that charts mark.
const (
	EventRoll       = "roll"
	EventCheckpoint = "checkpoint"
	EventFlush      = "flush" // only those that stand out
	EventStall      = "stall"
	EventGC         = "gc"
	EventClean      = "clean"
	EventLeader     = "leader"  // another node took over
	EventRestart    = "restart" // the store was emptied and opened anew
)

// Event is something that happened at one moment.
type Event struct {
	TS     float64 `json:"t_s"` // since the start of measuring
	Kind   string  `json:"kind"`
	Detail string  `json:"detail,omitempty"`
	TookUS float64 `json:"took_us,omitempty"`
}

// Sample is one of the worst messages.
type Sample struct {
	TS         float64 `json:"t_s"` // when it was due, since the start of measuring
	Phase      string  `json:"phase"`
	ResponseUS float64 `json:"response_us"`
	ServiceUS  float64 `json:"service_us"`
	QueueingUS float64 `json:"queueing_us"`
	Worker     int     `json:"worker"`
	Seq        int64   `json:"seq"`
	Cause      string  `json:"cause,omitempty"` // the event it fell into, if any
}

// Verify is the outcome of reading everything back after the run.
type Verify struct {
	TookS      float64 `json:"took_s"`
	Acked      int64   `json:"acked"`             // acknowledged over all phases
	ByQueue    int64   `json:"by_queue"`          // found by queue offset
	ByScan     int64   `json:"by_scan"`           // found by scanning the log
	NoScan     string  `json:"no_scan,omitempty"` // why the log was not scanned: then the queues decide alone
	Lost       int64   `json:"lost"`              // acknowledged, not found
	Duplicated int64   `json:"duplicated"`        // found more than once
	Corrupted  int64   `json:"corrupted"`         // found with another body
	Reordered  int64   `json:"reordered"`         // out of the order of a producer within a queue
	Unacked    int64   `json:"unacked"`           // found without having been acknowledged: allowed
	Note       string  `json:"note,omitempty"`
}

// OK reports whether nothing was lost, doubled, damaged or reordered and both counts, if there are two, agree. A cluster
// of somebody else's, whose log cannot be scanned, may store messages that are in flight together in any order: its
// workers overtake each other, and the protocol does not promise more.
func (v *Verify) OK() bool {
	kept := v.Lost == 0 && v.Duplicated == 0 && v.Corrupted == 0
	return kept && (v.NoScan != "" || v.Reordered == 0 && v.ByQueue == v.ByScan)
}

// Resources are differences of counters over the measured phase unless they say otherwise.
type Resources struct {
	GenCPUS     *float64 `json:"gen_cpu_s,omitempty"`    // of generator threads
	GenCores    float64  `json:"gen_cores,omitempty"`    // cores given to the generator
	EngineCPUS  *float64 `json:"engine_cpu_s,omitempty"` // process CPU less the generator's
	ProcCPUS    *float64 `json:"proc_cpu_s,omitempty"`   // user + system of this process
	HostCPUS    *float64 `json:"host_cpu_s,omitempty"`   // of the machine, idle excluded
	ForeignCPUS *float64 `json:"foreign_cpu_s,omitempty"`
	StealS      *float64 `json:"steal_s,omitempty"`
	RSSMaxBytes int64    `json:"rss_max_bytes,omitempty"`

	// Of the processes of the target, when they are not this one.
	TargetCPUS            *float64 `json:"target_cpu_s,omitempty"`
	TargetRSSMaxBytes     int64    `json:"target_rss_max_bytes,omitempty"`
	TargetRSSAnonMaxBytes int64    `json:"target_rss_anon_max_bytes,omitempty"` // without the page cache
	TargetSyscalls        *int64   `json:"target_syscalls,omitempty"`           // that read or write

	AllocBytes   int64   `json:"alloc_bytes,omitempty"`
	Allocs       int64   `json:"allocs,omitempty"`
	GCs          int64   `json:"gcs,omitempty"`
	GCPauseP50US float64 `json:"gc_pause_p50_us,omitempty"`
	GCPauseMaxUS float64 `json:"gc_pause_max_us,omitempty"`

	LogBytes        int64    `json:"log_bytes,omitempty"`     // that records took in the log
	EngineFlushes   *int64   `json:"flushes,omitempty"`       // syncs that the engine made
	EngineWrites    *int64   `json:"writes,omitempty"`        // write calls that the engine made
	PrepareBytes    int64    `json:"prepare_bytes,omitempty"` // zeros written ahead; not in DevWriteBytes/LogBytes
	DevWriteBytes   *int64   `json:"dev_write_bytes,omitempty"`
	DevWrites       *int64   `json:"dev_writes,omitempty"`
	DevReadBytes    *int64   `json:"dev_read_bytes,omitempty"`
	DevFlushes      *int64   `json:"dev_flushes,omitempty"`     // FLUSH commands the device saw
	DevFinalBytes   *int64   `json:"dev_final_bytes,omitempty"` // DevWriteBytes up to the end of a final sync
	ForeignDevBytes *int64   `json:"foreign_dev_bytes,omitempty"`
	DirtyMaxBytes   int64    `json:"dirty_max_bytes,omitempty"`
	SwapInOut       *int64   `json:"swap_in_out_pages,omitempty"`
	CtxSwitches     int64    `json:"ctx_switches,omitempty"`
	FreeDiskFrac    *float64 `json:"free_disk_frac,omitempty"`
	FreqChange      *float64 `json:"freq_change_frac,omitempty"` // CPU frequency, or thermal throttling, start to end
	ClockStepUS     *float64 `json:"clock_step_us,omitempty"`    // wall clock against monotonic clock
}

// Replication is what the nodes that hold one log told. Bytes of the log are positions in it.
type Replication struct {
	Stock bool `json:"stock,omitempty"` // somebody else's nodes: their acks mean what their documentation says
	// Samples is how often the leader was asked during the measured phase; the two maxima are of those times.
	Samples           int   `json:"samples,omitempty"`
	LagMaxBytes       int64 `json:"lag_max_bytes"`       // L: acknowledged and not on the farthest replica
	UnflushedMaxBytes int64 `json:"unflushed_max_bytes"` // W: written by the leader and not synced
	// CatchUpS is how long after the measured phase the farthest replica had everything that was acknowledged.
	CatchUpS float64 `json:"catch_up_s"`
	// ClockS is what the rate of an asynchronous replication is divided by: the measured phase and the catching up.
	ClockS float64       `json:"clock_s,omitempty"`
	Hops   []ReplicaHop  `json:"hops,omitempty"`  // of the measured phase, in the order of an append
	Nodes  []ReplicaNode `json:"nodes,omitempty"` // over the whole load, to a final sync
}

// ReplicaHop is one kind of wait that replicated appends have on their way, as the leader sees it. Several appends that
// travel together count once.
type ReplicaHop struct {
	Name   string  `json:"name"` // append, localFlush, send, remoteAppend, remoteFlush, ack
	N      int64   `json:"n"`
	MeanUS float64 `json:"mean_us"`
}

// ReplicaNode is what one node wrote.
type ReplicaNode struct {
	ID       string `json:"id"`
	LogBytes int64  `json:"log_bytes"`
	// WrittenBytes is what its process made dirty or wrote, preparation of segments apart.
	WrittenBytes *int64 `json:"written_bytes,omitempty"`
}

// Ratio is bytes written by bytes of log; nil where it is not known.
func (n ReplicaNode) Ratio() *float64 {
	if n.WrittenBytes == nil || n.LogBytes <= 0 {
		return nil
	}
	return Ptr(float64(*n.WrittenBytes) / float64(n.LogBytes))
}

// MaxRatio is that of the node that wrote most for its log; nil where it is not known.
func (r *Replication) MaxRatio() *float64 {
	var most *float64
	if r == nil {
		return nil
	}
	for _, n := range r.Nodes {
		if q := n.Ratio(); q != nil && (most == nil || *q > *most) {
			most = q
		}
	}
	return most
}

// Ptr returns a pointer to v: for the optional fields above.
func Ptr[T any](v T) *T { return &v }

// Row is one line of series.ndjson: what happened in one second. Rates are per second whatever
// the length of the interval.
type Row struct {
	Part       Part     `json:"part"`
	Phase      string   `json:"phase"`
	TS         float64  `json:"t_s"` // start of the interval, since the start of measuring; negative in warm-up
	DurS       float64  `json:"dur_s"`
	Offered    float64  `json:"offered_per_s"`
	Acked      float64  `json:"acked_per_s"`
	Consumed   float64  `json:"consumed_per_s,omitempty"`
	Errors     int64    `json:"errors,omitempty"`
	P50        float64  `json:"p50_us"` // response, of the messages acknowledged in the interval
	P99        float64  `json:"p99_us"`
	Max        float64  `json:"max_us"`
	ServiceP99 float64  `json:"service_p99_us,omitempty"`
	Backlog    int64    `json:"backlog"` // due and not acknowledged at the end
	CPU        float64  `json:"cpu_cores,omitempty"`
	DevWrite   *float64 `json:"dev_write_bytes_per_s,omitempty"`
	DevRead    *float64 `json:"dev_read_bytes_per_s,omitempty"`
	DevFlushes *float64 `json:"dev_flushes_per_s,omitempty"`
	Flushes    *float64 `json:"flushes_per_s,omitempty"`
	DirtyBytes *int64   `json:"dirty_bytes,omitempty"`
	RSSBytes   int64    `json:"rss_bytes,omitempty"`
	Goroutines int      `json:"goroutines,omitempty"`
	GCPauseUS  float64  `json:"gc_pause_us,omitempty"`
}

// Bottleneck is the one word that says what a cell ran into.
type Bottleneck string

// Bottlenecks.
const (
	BottleneckGenerator Bottleneck = "generator"
	BottleneckClientCPU Bottleneck = "client-cpu"
	BottleneckEngineCPU Bottleneck = "engine-cpu" // in process: engine and generator share the cores
	BottleneckBrokerCPU Bottleneck = "broker-cpu"
	BottleneckFlush     Bottleneck = "flush"
	BottleneckDisk      Bottleneck = "disk-bandwidth"
	BottleneckNetwork   Bottleneck = "network"
	BottleneckReplica   Bottleneck = "replica" // acks wait for another node for most of their time
	BottleneckLock      Bottleneck = "lock"
	BottleneckWindow    Bottleneck = "window"
	BottleneckNone      Bottleneck = "none" // an open loop that kept its schedule, or nothing to tell
)

// Limits relates a result to the probe.
type Limits struct {
	Lines      []LimitLine `json:"lines,omitempty"`
	Bottleneck Bottleneck  `json:"bottleneck"`
	Why        string      `json:"why,omitempty"`
}

// Main is the line of which the largest share is used, or nil.
func (l Limits) Main() *LimitLine {
	var m *LimitLine
	for i := range l.Lines {
		if f := l.Lines[i].Fraction; f > 0 && (m == nil || f > m.Fraction) {
			m = &l.Lines[i]
		}
	}
	return m
}

// What a limit line bounds: the axis that it is drawn on.
const (
	AxisRate     = "acked_per_s"
	AxisLatency  = "latency_us"
	AxisDevWrite = "dev_write_bytes_per_s"
	AxisFlushes  = "flushes_per_s"
	AxisDirty    = "dirty_bytes"
	AxisPacing   = "pacing_us"
)

// LimitLine is one limit of the probe as it applies to a cell.
type LimitLine struct {
	Name     string  `json:"name"`  // of the probe's limit
	Label    string  `json:"label"` // "group commit, 64 in flight"
	Axis     string  `json:"axis"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Used     float64 `json:"used,omitempty"`     // same unit
	Fraction float64 `json:"fraction,omitempty"` // Used / Value; 0 where no share makes sense
}

// GateStatus is the outcome of a gate.
type GateStatus string

// Outcomes. A gate whose counter the host does not offer is unverified, never passed.
const (
	GatePassed     GateStatus = "passed"
	GateFailed     GateStatus = "failed"
	GateUnverified GateStatus = "unverified"
)

// Gate is one condition that a result must meet to count.
type Gate struct {
	Name   string     `json:"name"`
	Value  string     `json:"value"` // with unit, or "n/a"
	Limit  string     `json:"limit"` // "≤ 2 %"
	Status GateStatus `json:"status"`
	Note   string     `json:"note,omitempty"`
}
