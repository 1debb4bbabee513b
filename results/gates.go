package results

import (
	"fmt"
	"math"
	"time"
)

// Bounds of the validity gates. Their reasons stand in docs/format/results.md.
const (
	gatePacingFrac  = 0.10                   // of the response p50 …
	gatePacingFloor = 200 * time.Microsecond // … but not below what a timer can keep
	gatePacingMax   = time.Millisecond
	gateGenCPU      = 0.70
	gateSteal       = 0.02
	gateForeign     = 0.05
	gateFreq        = 0.05
	gateFreeDisk    = 0.15
	gateClockStep   = time.Millisecond // …
	gateClockSlew   = 500e-6           // … and what NTP may slew, of the measured time
	gateWriteAsync  = 1.05             // device bytes / log bytes
	gateWriteSync   = 1.30             // at groups of 8 and more
	gateWriteLow    = 0.90

	deviceBlockBytes = 4096
)

// Judge fills in everything about a result that follows from its measurements: durability class,
// limits, bottleneck, gates and validity. env and probe may be nil; what they would have told is
// then unverified. Judging twice gives the same result.
func (r *Result) Judge(c Cell, env *Env, probe *Probe) {
	fsType, cpus := "", 0
	if env != nil {
		fsType, cpus = env.Disk.FSType, env.Host.CPUs
	}
	r.Class, r.ClassNote = DurabilityClass(c, fsType, r.Replication != nil && r.Replication.Stock)
	r.Limits = limitsOf(c, r, env, probe)
	r.Gates = gatesOf(c, r, fsType, cpus)
	r.Valid = true
	for _, g := range r.Gates {
		if g.Status == GateFailed {
			r.Valid = false
		}
	}
}

// FailedGates lists the gates that did not hold.
func (r *Result) FailedGates() []Gate { return r.gatesWith(GateFailed) }

// UnverifiedGates lists the gates for which the host offered no counter.
func (r *Result) UnverifiedGates() []Gate { return r.gatesWith(GateUnverified) }

func (r *Result) gatesWith(s GateStatus) []Gate {
	var gs []Gate
	for _, g := range r.Gates {
		if g.Status == s {
			gs = append(gs, g)
		}
	}
	return gs
}

// gateList collects gates. A nil value means that nobody counted.
type gateList []Gate

func (l *gateList) add(name, value, limit string, ok bool) *Gate {
	g := Gate{Name: name, Value: value, Limit: limit, Status: GateFailed}
	if ok {
		g.Status = GatePassed
	}
	*l = append(*l, g)
	return &(*l)[len(*l)-1]
}

func (l *gateList) unverified(name, limit, note string) {
	*l = append(*l, Gate{Name: name, Value: "n/a", Limit: limit, Status: GateUnverified, Note: note})
}

// fraction adds a gate on v ≤ limit, both shares of one.
func (l *gateList) fraction(name string, v *float64, limit float64, missing string) {
	text := "≤ " + percent(limit)
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) {
		l.unverified(name, text, missing)
		return
	}
	l.add(name, percent(*v), text, *v <= limit)
}

func gatesOf(c Cell, r *Result, fsType string, cpus int) []Gate {
	var l gateList
	res := r.Resources
	capacity := float64(cpus) * r.MeasuredS // core-seconds of the machine

	pacingGate(&l, r)
	if r.Part == PartOpen || res.GenCPUS != nil {
		l.fraction("generator CPU", share(res.GenCPUS, res.GenCores*r.MeasuredS), gateGenCPU, "thread CPU times not offered")
	}
	l.fraction("steal", share(res.StealS, capacity), gateSteal, "/proc/stat offers no steal time")
	l.fraction("foreign CPU", share(res.ForeignCPUS, capacity), gateForeign, "host CPU times not offered")
	if c.Stores() {
		var ours *float64
		if res.ForeignDevBytes != nil && res.DevWriteBytes != nil {
			ours = share(Ptr(float64(*res.ForeignDevBytes)), float64(max(*res.DevWriteBytes, 1)))
		}
		l.fraction("foreign device I/O", ours, gateForeign, "device counters not offered")
	}
	l.fraction("CPU frequency change", res.FreqChange, gateFreq, "frequency not offered")
	if res.SwapInOut == nil {
		l.unverified("swap", "0 pages", "swap counters not offered")
	} else {
		l.add("swap", fmt.Sprintf("%d pages", *res.SwapInOut), "0 pages", *res.SwapInOut == 0)
	}
	stepLimit := gateClockStep + time.Duration(gateClockSlew*r.MeasuredS*1e9)
	if res.ClockStepUS == nil {
		l.unverified("clock step", "≤ "+FormatDuration(stepLimit), "not measured")
	} else {
		step := time.Duration(math.Abs(*res.ClockStepUS) * 1000)
		l.add("clock step", FormatDuration(step), "≤ "+FormatDuration(stepLimit), step <= stepLimit)
	}
	if c.Stores() {
		if res.FreeDiskFrac == nil {
			l.unverified("free disk", "≥ "+percent(gateFreeDisk), "statfs not offered")
		} else {
			l.add("free disk", percent(*res.FreeDiskFrac), "≥ "+percent(gateFreeDisk), *res.FreeDiskFrac >= gateFreeDisk)
		}
	}
	l.add("errors", fmt.Sprintf("%d", r.Counts.FailedTotal()), "0", r.Counts.FailedTotal() == 0)
	l.add("samples in range", fmt.Sprintf("%d outside", r.Counts.OutOfRange), "0 outside", r.Counts.OutOfRange == 0)
	if c.Stores() {
		verifyGate(&l, r.Verify)
		flushGate(&l, c, r, fsType)
		deviceBytesGate(&l, c, r, fsType)
	}
	return l
}

func pacingGate(l *gateList, r *Result) {
	if r.Part != PartOpen {
		return
	}
	limit := time.Duration(gatePacingFrac * r.Latency.Response.P50 * 1000)
	limit = min(max(limit, gatePacingFloor), gatePacingMax)
	text := "p99 ≤ " + FormatDuration(limit)
	if r.Pacing == nil || r.Pacing.N == 0 {
		l.unverified("pacing error", text, "no pacing histogram")
		return
	}
	p99 := time.Duration(r.Pacing.P99 * 1000)
	g := l.add("pacing error", "p99 "+FormatDuration(p99), text, p99 <= limit)
	if g.Status == GatePassed && r.Pacing.P99 > gatePacingFrac*r.Latency.Response.P50 {
		g.Note = "more than 10 % of response p50: read service latency beside response"
	}
}

func verifyGate(l *gateList, v *Verify) {
	const limit = "nothing lost, doubled, damaged or reordered"
	if v == nil {
		l.unverified("verify", limit, "not read back")
		return
	}
	g := l.add("verify", fmt.Sprintf("%d acked, %d by queue, %d by scan", v.Acked, v.ByQueue, v.ByScan), limit, v.OK())
	if g.Status == GateFailed {
		g.Note = fmt.Sprintf("lost %d, duplicated %d, corrupted %d, reordered %d", v.Lost, v.Duplicated, v.Corrupted, v.Reordered)
		if v.NoScan == "" && v.ByQueue != v.ByScan {
			g.Note += "; the two counts differ"
		}
	} else if v.NoScan != "" {
		g.Note = v.NoScan
		if v.Reordered > 0 {
			g.Note += fmt.Sprintf("; %d messages of one connection were stored out of order", v.Reordered)
		}
	}
}

// flushGate asks the device whether the promised flushes reached it.
func flushGate(l *gateList, c Cell, r *Result, fsType string) {
	const name = "durability class"
	acked := float64(r.Counts.Acked)
	if MemoryFS(fsType) {
		l.unverified(name, "device flushes", r.ClassNote)
		return
	}
	if c.Flush == "sync" && r.Class == ClassD4 {
		l.unverified(name, "device flushes", r.ClassNote)
		return
	}
	if c.Flush == "sync" {
		// The counter is read a moment beside the first and the last ack of the window.
		need := max(1, math.Floor(0.99*acked/float64(max(r.Load.Outstanding, 1)))-2)
		limit := fmt.Sprintf("≥ %s device flushes (99 %% of acked / most in flight, less 2)", FormatCount(need))
		if r.Resources.DevFlushes == nil {
			l.unverified(name, limit, "the device counts no flushes")
			return
		}
		n := float64(*r.Resources.DevFlushes)
		l.add(name, FormatCount(n)+" device flushes", limit, n >= need)
		return
	}
	const limit = "not one device flush per message"
	if r.Resources.DevFlushes == nil {
		l.unverified(name, limit, "the device counts no flushes")
		return
	}
	n := float64(*r.Resources.DevFlushes)
	l.add(name, FormatCount(n)+" device flushes", limit, acked < 100 || n < acked/2)
}

// deviceBytesGate compares what the device was given with what the log took.
func deviceBytesGate(l *gateList, c Cell, r *Result, fsType string) {
	const name = "device bytes / log bytes"
	res := r.Resources
	high := gateWriteAsync
	if c.Flush == "sync" {
		high = gateWriteSync
		if g, ok := r.GroupSize(); ok && g < 8 {
			return // each flush writes at least one block: no band for small groups
		} else if ok {
			// The block that a flush ends in is written again by the next one.
			perFlush := float64(res.LogBytes) / float64(*res.EngineFlushes)
			high = max(high, gateWriteAsync+deviceBlockBytes/perFlush)
		}
	}
	limit := fmt.Sprintf("%.2f to %.2f", gateWriteLow, high)
	switch {
	case MemoryFS(fsType):
		l.unverified(name, limit, fsType+" has no device")
	case res.DevFinalBytes == nil:
		l.unverified(name, limit, "device counters not offered")
	case res.LogBytes == 0:
		l.unverified(name, limit, "nothing was written")
	case r.WriteAmplification() == nil:
		l.unverified(name, limit, "the nodes do not tell what they wrote")
	default:
		a := r.WriteAmplification()
		l.add(name, fmt.Sprintf("%.2f", *a), limit, *a >= gateWriteLow && *a <= high)
	}
}

// WriteAmplification is device bytes up to the end of a final sync, preparation apart, by log
// bytes. All nodes share the device; what it wrote is divided by their number. Nil where the device
// is not counted, or it is not known how many nodes wrote to it.
func (r *Result) WriteAmplification() *float64 {
	if r.Resources.DevFinalBytes == nil || r.Resources.LogBytes <= 0 {
		return nil
	}
	copies := 1
	if r.Replication != nil {
		if copies = len(r.Replication.Nodes); copies == 0 {
			return nil
		}
	}
	return Ptr(float64(*r.Resources.DevFinalBytes-r.Resources.PrepareBytes) / float64(r.Resources.LogBytes) / float64(copies))
}

// GroupSize is the mean number of messages per flush.
func (r *Result) GroupSize() (float64, bool) {
	if r.Resources.EngineFlushes == nil || *r.Resources.EngineFlushes == 0 {
		return 0, false
	}
	return float64(r.Counts.Acked) / float64(*r.Resources.EngineFlushes), true
}

// share is part / whole, nil where either is not known.
func share(part *float64, whole float64) *float64 {
	if part == nil || whole <= 0 {
		return nil
	}
	return Ptr(*part / whole)
}
