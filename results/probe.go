package results

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Probe is probe.json: what the machine can do, measured by code that is not the engine's.
type Probe struct {
	Schema int       `json:"schema"`
	Start  ProbeRun  `json:"start"`
	End    *ProbeRun `json:"end,omitempty"` // the drift check: a few limits once more
}

// ProbeRun is one taking of the probe.
type ProbeRun struct {
	Started time.Time `json:"started"`
	TookS   float64   `json:"took_s"`
	Dir     string    `json:"dir,omitempty"`
	Limits  []Limit   `json:"limits"`
	Notes   []string  `json:"notes,omitempty"`
	Skipped []string  `json:"skipped,omitempty"` // steps for which no time was left
}

// Limit is one measured limit. Name is one of the Limit… constants or functions below; others are
// shown in the table and otherwise unused.
type Limit struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`             // "1/s", "msg/s", "B/s", "us", "B"
	N     int64   `json:"n,omitempty"`      // operations behind it
	P50   float64 `json:"p50_us,omitempty"` // of one operation, µs
	P99   float64 `json:"p99_us,omitempty"`
	Note  string  `json:"note,omitempty"`
}

// File states of a probed file.
const (
	StateGrowing   = "growing"
	StateAllocated = "allocated" // fallocate only
	StateWritten   = "written"   // zeros written and synced beforehand
)

// Names of limits.
const (
	LimitMemcpy1K     = "memcpy.1KiB"          // B/s, cached
	LimitMemcpy64K    = "memcpy.64KiB"         // B/s, cached
	LimitMemcpyRegion = "memcpy.region"        // msg/s, 1 KiB records into 256 MiB
	LimitWriteDirect  = "write.direct"         // B/s, sequential O_DIRECT
	LimitWriteBack    = "write.back"           // B/s, sequential through the page cache, synced: what async can sustain
	LimitReadDirect   = "read.direct"          // B/s
	LimitReadCached   = "read.cached"          // B/s
	LimitLoopbackRTT  = "loopback.rtt"         // us, one 1 KiB request at a time
	LimitLoopbackRate = "loopback.pipelined"   // 1/s, 8 connections × 64 in flight
	LimitTimerError   = "timer.nanosleep"      // us late, p50 as Value; what a pacer cannot beat
	LimitTimerSleep   = "timer.sleep"          // us late, time.Sleep
	LimitClock        = "clock.now"            // us per look
	LimitFolioBytes   = "folio.bytes"          // B written by one flush of a 1 KiB store through a mapping
	LimitMmapFlush    = "folio.flush"          // us
	LimitPwriteBatch  = "append.written.64KiB" // msg/s of 1 KiB, 64 KiB pwrites
)

// LimitSync names fdatasyncs of 4 KiB per second with depth of them in flight.
func LimitSync(state string, depth int) string { return fmt.Sprintf("sync.%s.d%d", state, depth) }

// LimitFlush names the latency of one flush of a group of 1 KiB records on a written file, us.
func LimitFlush(records int) string { return fmt.Sprintf("flush.written.g%d", records) }

// LimitGroup names the group-commit ceiling: durable 1 KiB records per second, msg/s.
func LimitGroup(producers int) string { return fmt.Sprintf("group.p%d", producers) }

// LimitAppend names one-record pwrites of 1 KiB into the page cache, msg/s.
func LimitAppend(state string) string { return fmt.Sprintf("append.%s.1KiB", state) }

// LimitTitle says in words what a limit is, "" for a name that we do not know.
func LimitTitle(name string) string {
	parts := strings.Split(name, ".")
	last := parts[len(parts)-1]
	state := func(s string) string {
		return map[string]string{StateGrowing: "growing file", StateAllocated: "allocated file", StateWritten: "written file"}[s]
	}
	switch {
	case parts[0] == "sync" && len(parts) == 3:
		return fmt.Sprintf("durable 4 KiB writes, %s, %s at a time", state(parts[1]), strings.TrimPrefix(last, "d"))
	case parts[0] == "flush" && len(parts) == 3:
		return fmt.Sprintf("one flush of %s × 1 KiB, %s", strings.TrimPrefix(last, "g"), state(parts[1]))
	case parts[0] == "group" && len(parts) == 2:
		return fmt.Sprintf("group commit of 1 KiB, %s in flight", strings.TrimPrefix(last, "p"))
	case parts[0] == "group" && last == "flushes":
		return "… flushes of it"
	case parts[0] == "group" && last == "size":
		return "… messages a flush"
	case parts[0] == "append" && len(parts) >= 3:
		what := map[string]string{"1KiB": "1 KiB writes", "64KiB": "64 KiB writes", "padded": "1 KiB writes padded to 4 KiB"}[last]
		return fmt.Sprintf("page cache, %s, %s", what, state(parts[1]))
	}
	return map[string]string{
		LimitMemcpy1K: "copy 1 KiB, cached", LimitMemcpy64K: "copy 64 KiB, cached", LimitMemcpyRegion: "copy 1 KiB records into 256 MiB",
		LimitWriteDirect: "sequential write, direct", LimitWriteBack: "sequential write through the page cache, synced", LimitWriteBack + ".first": "… into a new file",
		LimitReadDirect: "sequential read, direct", LimitReadCached: "sequential read, cached",
		LimitLoopbackRTT: "loopback round trip, 1 KiB", LimitLoopbackRate: "loopback requests, 8 × 64 in flight",
		LimitTimerError: "nanosleep wakes late by", LimitTimerSleep: "time.Sleep wakes late by", LimitClock: "one look at the clock",
		LimitFolioBytes: "written by a flush after a 1 KiB store in a mapping", LimitMmapFlush: "… its latency", "flush.device": "device flushes for each sync",
		LimitFolioBytes + ".4KiB": "… in a file filled by 4 KiB writes", LimitMmapFlush + ".4KiB": "… its latency",
	}[name]
}

// Find returns the limit of that name.
func (r *ProbeRun) Find(name string) (Limit, bool) {
	if r == nil {
		return Limit{}, false
	}
	for _, l := range r.Limits {
		if l.Name == name {
			return l, true
		}
	}
	return Limit{}, false
}

// value is a limit's value when it was measured and can be one.
func (p *Probe) value(name string) (float64, bool) {
	if p == nil {
		return 0, false
	}
	l, ok := p.Start.Find(name)
	if !ok || l.Value <= 0 || math.IsInf(l.Value, 0) || math.IsNaN(l.Value) {
		return 0, false
	}
	return l.Value, true
}

// FsyncPerSec is the rate of single 4 KiB durable writes on a written file, one in flight.
func (p *Probe) FsyncPerSec() (float64, bool) { return p.value(LimitSync(StateWritten, 1)) }

// WriteBW is the sequential write bandwidth that lasts, B/s.
func (p *Probe) WriteBW() (float64, bool) {
	if v, ok := p.value(LimitWriteBack); ok {
		return v, true
	}
	return p.value(LimitWriteDirect)
}

// ReadBW is the sequential read bandwidth of the device, B/s.
func (p *Probe) ReadBW() (float64, bool) { return p.value(LimitReadDirect) }

// probedGroups are the producer counts for which the probe measures the group-commit ceiling.
var probedGroups = []int{1, 8, 64, 256}

// GroupCommit is the group-commit ceiling at n outstanding records of 1 KiB, msg/s. Between two
// probed counts it is interpolated on the log scale; beyond the last it is the last.
func (p *Probe) GroupCommit(n int) (float64, bool) {
	var loN, hiN int
	var lo, hi float64
	for _, g := range probedGroups {
		v, ok := p.value(LimitGroup(g))
		if !ok {
			continue
		}
		if g <= n {
			loN, lo = g, v
		}
		if g >= n && hiN == 0 {
			hiN, hi = g, v
		}
	}
	switch {
	case lo == 0 && hi == 0:
		return 0, false
	case lo == 0:
		return hi, true
	case hi == 0 || loN == hiN:
		return lo, true
	}
	x := (math.Log(float64(n)) - math.Log(float64(loN))) / (math.Log(float64(hiN)) - math.Log(float64(loN)))
	return math.Exp(math.Log(lo) + x*(math.Log(hi)-math.Log(lo))), true
}

// FlushP50 is the median latency in us of one flush of about that many 1 KiB records, taken from
// the nearest probed group size.
func (p *Probe) FlushP50(records float64) (float64, bool) {
	best, dist := 0.0, math.Inf(1)
	for _, g := range []int{1, 8, 64} {
		l, ok := p.value(LimitFlush(g))
		if !ok {
			continue
		}
		if d := math.Abs(math.Log(max(records, 1)) - math.Log(float64(g))); d < dist {
			best, dist = l, d
		}
	}
	return best, best > 0
}

// MemcpyBW is the copy bandwidth in 64 KiB pieces, B/s.
func (p *Probe) MemcpyBW() (float64, bool) { return p.value(LimitMemcpy64K) }

// LoopbackRTT is the round trip of one 1 KiB request over loopback, us.
func (p *Probe) LoopbackRTT() (float64, bool) { return p.value(LimitLoopbackRTT) }

// LoopbackRPS is the pipelined request rate over loopback, 1/s.
func (p *Probe) LoopbackRPS() (float64, bool) { return p.value(LimitLoopbackRate) }

// TimerErr is how late a nanosleep wakes, us, p50.
func (p *Probe) TimerErr() (float64, bool) { return p.value(LimitTimerError) }

// Drift is how far one limit moved between the start and the end of a run.
type Drift struct {
	Name       string
	Unit       string
	Start, End float64
	Ratio      float64 // End / Start
}

// Drifts lists the limits that were taken twice. A latency's ratio is inverted so that below one
// always means slower.
func (p *Probe) Drifts() []Drift {
	if p == nil || p.End == nil {
		return nil
	}
	var ds []Drift
	for _, e := range p.End.Limits {
		s, ok := p.Start.Find(e.Name)
		if !ok || s.Value <= 0 || e.Value <= 0 {
			continue
		}
		d := Drift{Name: e.Name, Unit: e.Unit, Start: s.Value, End: e.Value, Ratio: e.Value / s.Value}
		if e.Unit == "us" {
			d.Ratio = 1 / d.Ratio
		}
		ds = append(ds, d)
	}
	return ds
}
