package results

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const limitReached = 0.85 // of a probed limit

// limitsOf relates a result to the probe: the lines that charts draw, the shares that tables
// print and the one word for what the cell ran into.
func limitsOf(c Cell, r *Result, env *Env, probe *Probe) Limits {
	var l Limits
	if r.MeasuredS > 0 && c.Stores() {
		l.Lines = limitLines(c, r, env, probe)
	}
	if v, ok := probe.TimerErr(); ok && r.Part == PartOpen {
		l.Lines = append(l.Lines, LimitLine{Name: LimitTimerError, Label: "timer error", Axis: AxisPacing, Value: v, Unit: "us"})
	}
	l.Bottleneck, l.Why = attribute(c, r, env, l)
	return l
}

func limitLines(c Cell, r *Result, env *Env, probe *Probe) []LimitLine {
	var ls []LimitLine
	add := func(name, label, axis string, value float64, unit string, used float64) {
		line := LimitLine{Name: name, Label: label, Axis: axis, Value: value, Unit: unit, Used: used}
		if used > 0 && value > 0 {
			line.Fraction = used / value
		}
		ls = append(ls, line)
	}
	res := r.Resources
	acked := r.Throughput.AckedPerS
	nearKiB := c.SizeBytes >= 512 && c.SizeBytes <= 2048
	if c.Flush == "sync" {
		if v, ok := probe.GroupCommit(r.Load.Outstanding); ok && nearKiB {
			add(LimitGroup(r.Load.Outstanding), fmt.Sprintf("group commit, %d in flight", r.Load.Outstanding), AxisRate, v, "msg/s", acked)
		}
		group, known := r.GroupSize()
		if p50, ok := probe.FlushP50(group * float64(c.SizeBytes) / 1024); ok {
			label := "one flush"
			if known && group >= 1.5 {
				label = fmt.Sprintf("one flush of %.0f msg", group)
			}
			add("flush.written", label, AxisLatency, p50, "us", 0)
			if known {
				add("flush.written", "flushes, one at a time", AxisFlushes, 1e6/p50, "1/s", float64(*res.EngineFlushes)/r.MeasuredS)
			}
		}
	} else if nearKiB {
		if v, ok := probe.value(LimitPwriteBatch); ok {
			add(LimitPwriteBatch, "pwrite of 64 KiB", AxisRate, v, "msg/s", acked)
		} else if v, ok := probe.value(LimitMemcpyRegion); ok {
			add(LimitMemcpyRegion, "memcpy of 1 KiB records", AxisRate, v, "msg/s", acked)
		}
	}
	if bw, ok := probe.WriteBW(); ok {
		used := r.Throughput.LogBytesPerS
		if res.DevWriteBytes != nil {
			used = float64(*res.DevWriteBytes) / r.MeasuredS
		}
		add(LimitWriteBack, "write-back bandwidth", AxisDevWrite, bw, "B/s", used)
		if perMsg := r.Throughput.LogBytesPerS / acked; acked > 0 && perMsg > 0 {
			add(LimitWriteBack, "write-back bandwidth", AxisRate, bw/perMsg, "msg/s", 0)
		}
	}
	if v, ok := probe.FsyncPerSec(); ok && c.Flush == "sync" && r.Load.Outstanding == 1 {
		add(LimitSync(StateWritten, 1), "single syncs", AxisRate, v, "msg/s", acked)
	}
	if c.Driver == "wire" || c.Driver == "null-server" {
		if v, ok := probe.LoopbackRPS(); ok {
			add(LimitLoopbackRate, "loopback, pipelined", AxisRate, v, "msg/s", acked)
		}
		if v, ok := probe.LoopbackRTT(); ok {
			add(LimitLoopbackRTT, "loopback round trip", AxisLatency, v, "us", 0)
		}
	}
	if v, ok := env.DirtyBackgroundBytes(); ok {
		add("vm.dirty_background", "background write-back starts", AxisDirty, v, "B", 0)
	}
	return ls
}

// DirtyBackgroundBytes is how much dirty memory the kernel allows before it writes back by
// itself.
func (e *Env) DirtyBackgroundBytes() (float64, bool) {
	if e == nil {
		return 0, false
	}
	get := func(name string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(e.Host.Sysctl[name]), 64)
		if err != nil {
			return 0
		}
		return v
	}
	if v := get("vm.dirty_background_bytes"); v > 0 {
		return v, true
	}
	v := get("vm.dirty_background_ratio") / 100 * float64(e.Host.RAMBytes)
	return v, v > 0
}

// attribute names the bottleneck, and in a few words why.
func attribute(c Cell, r *Result, env *Env, l Limits) (Bottleneck, string) {
	res := r.Resources
	if r.MeasuredS <= 0 || r.Throughput.AckedPerS <= 0 {
		return BottleneckNone, "nothing was acknowledged"
	}
	if r.Part == PartOpen && r.Throughput.OfferedPerS > 0 && r.Throughput.AckedPerS >= 0.995*r.Throughput.OfferedPerS {
		return BottleneckNone, "kept the offered rate"
	}
	if s := share(res.GenCPUS, res.GenCores*r.MeasuredS); s != nil && *s > gateGenCPU {
		return BottleneckGenerator, fmt.Sprintf("generator used %s of its CPU", percent(*s))
	}
	if c.Driver == "null" {
		return BottleneckGenerator, "nothing but the harness runs"
	}
	for _, line := range l.Lines {
		switch {
		case line.Fraction < limitReached:
		case line.Axis == AxisFlushes || strings.HasPrefix(line.Name, "group.") || strings.HasPrefix(line.Name, "sync."):
			return BottleneckFlush, fmt.Sprintf("%s of %s", percent(line.Fraction), line.Label)
		case line.Axis == AxisDevWrite:
			return BottleneckDisk, fmt.Sprintf("%s of %s", percent(line.Fraction), line.Label)
		case line.Name == LimitLoopbackRate:
			return BottleneckNetwork, fmt.Sprintf("%s of %s", percent(line.Fraction), line.Label)
		}
	}
	var cpu, host *float64
	if env != nil {
		cpu = share(res.ProcCPUS, float64(env.Host.CPUs)*r.MeasuredS)
		host = share(res.HostCPUS, float64(env.Host.CPUs)*r.MeasuredS)
	}
	word := BottleneckEngineCPU
	if c.Driver == "wire" || c.Driver == "null-server" {
		word = BottleneckBrokerCPU
	}
	if cpu != nil && *cpu >= limitReached {
		return word, fmt.Sprintf("%s of the host's CPU", percent(*cpu))
	}
	if cpu != nil && host != nil && *host >= limitReached {
		return word, fmt.Sprintf("host CPU %s used, only %s by us", percent(*host), percent(*cpu))
	}
	if part, ok := atReplicas(c, r); ok && part >= replicaShare {
		return BottleneckReplica, fmt.Sprintf("%s of the way to an ack is to a replica, and its append and sync", percent(part))
	}
	// Little's law holds in every closed loop. It is the answer only where each message is as
	// fast as the device allows, so that more of them in flight would bring more.
	n := r.Throughput.AckedPerS * r.Latency.Service.Mean / 1e6
	full := math.Abs(n-float64(r.Load.Outstanding)) <= 0.1*float64(r.Load.Outstanding)
	if full && asFastAsTheDevice(c, r, l) {
		return BottleneckWindow, fmt.Sprintf("%.0f in flight = rate × latency", n)
	}
	if cpu == nil {
		return BottleneckNone, "CPU time not offered"
	}
	return BottleneckLock, fmt.Sprintf("%s of CPU used, no device limit reached", percent(*cpu))
}

// replicaShare of the time of an ack, spent for a replica, makes it what an append waits for.
const replicaShare = 0.5

// atReplicas is what share of the mean time of an ack goes to a replica and its append and sync, in a cell whose acks
// wait for one. What the hops tell overlaps with the local disk, so the share is at most what was not local.
func atReplicas(c Cell, r *Result) (float64, bool) {
	if r.Replication == nil || c.Repl == "none" || c.Repl == "async" {
		return 0, false
	}
	mean := map[string]float64{}
	for _, h := range r.Replication.Hops {
		mean[h.Name] = h.MeanUS
	}
	ack := mean["ack"]
	if ack <= 0 {
		return 0, false
	}
	remote := mean["send"] + mean["remoteAppend"] + mean["remoteFlush"]
	if remote <= mean["append"]+mean["localFlush"] {
		return 0, true // the leader's own disk is what takes longest
	}
	return min(1, remote/ack), true
}

func asFastAsTheDevice(c Cell, r *Result, l Limits) bool {
	if c.Flush != "sync" {
		return r.Load.Outstanding == 1
	}
	for _, line := range l.Lines {
		if line.Axis == AxisLatency {
			return r.Latency.Service.P50 <= 2.5*line.Value
		}
	}
	return false
}
