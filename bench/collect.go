package bench

import (
	"sort"

	"rmq/results"
)

func sortWorst(ws worstHeap) {
	sort.Slice(ws, func(i, j int) bool {
		if ws[i].resp != ws[j].resp {
			return ws[i].resp > ws[j].resp
		}
		return ws[i].seq < ws[j].seq
	})
}

func diff(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return results.Ptr(*b - *a)
}

func diffF(a, b *float64) *float64 {
	if a == nil || b == nil {
		return nil
	}
	return results.Ptr(*b - *a)
}

// resources are the differences over the measured phase. first and last are from before the load
// and from after the final sync.
func (p *partRun) resources(a, b, first, last *snapshot) results.Resources {
	span := seconds(b.at - a.at)
	proc := float64(b.procCPU-a.procCPU) / 1e9
	res := results.Resources{
		GenCores: float64(len(p.workers)), ProcCPUS: &proc, HostCPUS: diffF(a.hostCPU, b.hostCPU), StealS: diffF(a.steal, b.steal),
		AllocBytes: int64(b.allocB - a.allocB), Allocs: int64(b.allocs - a.allocs), GCs: int64(b.gcs - a.gcs),
		LogBytes: b.target.LogBytes - a.target.LogBytes, EngineFlushes: diff(a.target.Flushes, b.target.Flushes),
		EngineWrites: diff(a.target.Writes, b.target.Writes), PrepareBytes: b.target.PreparedBytes - a.target.PreparedBytes,
		DevWriteBytes: diff(a.disk.writeBytes, b.disk.writeBytes), DevWrites: diff(a.disk.writes, b.disk.writes),
		DevReadBytes: diff(a.disk.readBytes, b.disk.readBytes), DevFlushes: diff(a.disk.flushes, b.disk.flushes),
		SwapInOut: diff(first.swap, last.swap), CtxSwitches: b.ctx - a.ctx, FreeDiskFrac: last.freeFrac,
	}
	res.GCPauseP50US, res.GCPauseMaxUS = pausesBetween(a.pauses, b.pauses)
	if gen := p.generatorCPU(span); gen != nil {
		res.GenCPUS = gen
		res.EngineCPUS = results.Ptr(max(0, proc-*gen))
	}
	outside := p.targetUse(&res, a, b)
	if res.HostCPUS != nil {
		res.ForeignCPUS = results.Ptr(max(0, *res.HostCPUS-proc-outside))
	}
	if a.mhz != nil && b.mhz != nil {
		f := *b.mhz / *a.mhz - 1
		res.FreqChange = results.Ptr(max(f, -f))
	}
	wall, mono := b.wall.Round(0).Sub(a.wall.Round(0)), b.wall.Sub(a.wall)
	res.ClockStepUS = results.Ptr(float64(wall-mono) / 1e3)
	for i := range p.snaps {
		s := &p.snaps[i]
		res.RSSMaxBytes = max(res.RSSMaxBytes, s.rss)
		if s.dirty != nil && s.at >= a.at && s.at <= b.at {
			res.DirtyMaxBytes = max(res.DirtyMaxBytes, *s.dirty)
		}
	}
	p.deviceShares(&res, first, last)
	return res
}

// targetUse adds what the processes of the target used, and returns their CPU seconds.
func (p *partRun) targetUse(res *results.Resources, a, b *snapshot) (cpu float64) {
	ns := diff(a.target.CPUNanos, b.target.CPUNanos)
	if ns == nil {
		return 0
	}
	cpu = float64(*ns) / 1e9
	res.TargetCPUS, res.EngineCPUS = results.Ptr(cpu), results.Ptr(cpu)
	res.TargetSyscalls = diff(a.target.Syscalls, b.target.Syscalls)
	for i := range p.snaps {
		t := &p.snaps[i].target
		if t.RSSBytes != nil {
			res.TargetRSSMaxBytes = max(res.TargetRSSMaxBytes, *t.RSSBytes)
		}
		if t.RSSAnonBytes != nil {
			res.TargetRSSAnonMaxBytes = max(res.TargetRSSAnonMaxBytes, *t.RSSAnonBytes)
		}
	}
	return cpu
}

// replication is what the nodes say that hold one log; nil where there is one only.
func (p *partRun) replication(session Session, a, b, first, last *snapshot) *results.Replication {
	if p.wl.Cell.Repl == "none" {
		return nil
	}
	r := &results.Replication{}
	if s, ok := session.(Replicated); ok {
		r.Stock = s.Stock()
	}
	if t1 := p.win.t1.Load(); p.caught > 0 {
		r.CatchUpS = max(0, seconds(p.caught-t1))
		if p.wl.Cell.Repl == "async" {
			// What was acknowledged and is not on the slave yet has not been replicated: the clock runs until it is.
			r.ClockS = seconds(t1-p.win.t0.Load()) + r.CatchUpS
		}
	}
	for i := range p.snaps {
		s := &p.snaps[i]
		if t := s.target.Replicas; t != nil && s.at >= a.at && s.at <= b.at {
			r.Samples++
			r.LagMaxBytes, r.UnflushedMaxBytes = max(r.LagMaxBytes, t.LagBytes), max(r.UnflushedMaxBytes, t.Unflushed)
		}
	}
	if x, y := a.target.Replicas, b.target.Replicas; x != nil && y != nil {
		r.Hops = hopsBetween(x.Hops, y.Hops)
	}
	if x, y := first.target.Replicas, last.target.Replicas; x != nil && y != nil {
		r.Nodes = nodesBetween(x.Nodes, y.Nodes)
	}
	return r
}

func hopsBetween(a, b []ReplicaHop) (hops []results.ReplicaHop) {
	before := map[string]ReplicaHop{}
	for _, h := range a {
		before[h.Name] = h
	}
	for _, h := range b {
		n := h.Count - before[h.Name].Count
		if n > 0 {
			hops = append(hops, results.ReplicaHop{Name: h.Name, N: n, MeanUS: us(h.Nanos-before[h.Name].Nanos) / float64(n)})
		}
	}
	return hops
}

func nodesBetween(a, b []ReplicaNode) (nodes []results.ReplicaNode) {
	before := map[string]ReplicaNode{}
	for _, n := range a {
		before[n.ID] = n
	}
	for _, n := range b {
		o, ok := before[n.ID]
		if !ok {
			continue
		}
		node := results.ReplicaNode{ID: n.ID, LogBytes: n.LogBytes - o.LogBytes}
		if n.Written > 0 {
			node.WrittenBytes = results.Ptr(n.Written - o.Written - (n.Prepared - o.Prepared))
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// deviceShares fills in what can only be told over the whole load, from a quiet disk to a final
// sync: write-back lags behind the log, so that differences over the measured phase alone would
// compare one second's bytes with another's. The measured phase gets its share by log bytes.
func (p *partRun) deviceShares(res *results.Resources, first, last *snapshot) {
	dev := diff(first.disk.writeBytes, last.disk.writeBytes)
	log := last.target.LogBytes - first.target.LogBytes
	if dev == nil || log <= 0 || !p.wl.Cell.Stores() {
		return
	}
	prep := last.target.PreparedBytes - first.target.PreparedBytes
	share := float64(res.LogBytes) / float64(log)
	res.DevFinalBytes = results.Ptr(int64(float64(*dev-prep)*share) + res.PrepareBytes)
	own := diff(first.ownWrites, last.ownWrites)
	if d := diff(first.target.DiskBytes, last.target.DiskBytes); d != nil && own != nil {
		*own += *d
	}
	if own != nil && res.DevWriteBytes != nil && *dev > 0 {
		foreign := float64(max(0, *dev-*own)) / float64(*dev)
		res.ForeignDevBytes = results.Ptr(int64(foreign * float64(*res.DevWriteBytes)))
	}
}

// generatorCPU is what making and booking messages took during the measured phase. In an open loop
// it is the CPU time of the locked threads less the time inside Send, in a closed one the time
// spent outside Send and outside waiting. Against the null driver nothing else runs in a closed
// loop, so there is nothing to tell apart.
func (p *partRun) generatorCPU(span float64) *float64 {
	var ns float64
	for _, w := range p.workers {
		if w.pacer != nil {
			if w.cpuNs == 0 {
				return nil
			}
			ns += float64(w.cpuNs)
			continue
		}
		if p.driver.Name() == "null" {
			return nil
		}
		load := seconds(p.win.t1.Load() - w.base)
		ns += float64(w.makeNs) * span / load
	}
	return results.Ptr(ns / 1e9)
}

// series makes the rows and histograms of every second.
func (p *partRun) series(all *recorder) ([]results.Hist, []results.Row) {
	t0, t1 := p.win.t0.Load(), p.win.t1.Load()
	hist := func(name string, h results.Hist) results.Hist {
		h.Part, h.Name = p.part, name
		return h
	}
	whole := results.Hist{Whole: true, DurS: seconds(t1 - t0)}
	var hists []results.Hist
	add := func(name string, h results.Hist) { hists = append(hists, hist(name, h)) }
	whole.H = all.resp
	add(results.HistResponse, whole)
	whole.H = all.wsvc
	add(results.HistService, whole)
	if all.open {
		whole.H = all.wque
		add(results.HistQueueing, whole)
		whole.H = all.pacing
		add(results.HistPacing, whole)
	}
	if all.failed.TotalCount() > 0 {
		whole.H = all.failed
		add(results.HistFailed, whole)
	}
	var rows []results.Row
	for _, iv := range all.done {
		dur := seconds(iv.end - iv.start)
		if dur < 0.02 {
			continue
		}
		row := results.Row{Part: p.part, TS: seconds(iv.start - t0), DurS: dur, Acked: float64(iv.acked) / dur, Errors: iv.errors, ServiceP99: us(iv.svcP99)}
		switch {
		case iv.start < t0:
			row.Phase = results.PhaseWarmup
		case iv.start >= t1:
			row.Phase = results.PhaseDrain
		default:
			row.Phase = results.PhaseMeasure
		}
		if iv.resp != nil && iv.kept > 0 {
			row.P50, row.P99, row.Max = us(iv.resp.ValueAtPercentile(50)), us(iv.resp.ValueAtPercentile(99)), us(iv.resp.Max())
			if row.Phase == results.PhaseMeasure {
				add(results.HistResponse, results.Hist{TS: row.TS, DurS: dur, H: iv.resp})
			}
		}
		p.systemRow(&row, iv, all.open)
		rows = append(rows, row)
	}
	return hists, rows
}

// systemRow adds what the snapshots at both ends of an interval say.
func (p *partRun) systemRow(row *results.Row, iv interval, open bool) {
	a, b := p.near(iv.start), p.near(iv.end)
	span := seconds(b.at - a.at)
	if span < 0.02 || abs(a.at-iv.start) > second/4 || abs(b.at-iv.end) > second/4 {
		return
	}
	perS := func(v *int64) *float64 {
		if v == nil {
			return nil
		}
		return results.Ptr(float64(*v) / span)
	}
	if open {
		row.Offered = float64(b.due-a.due) / span
		row.Backlog = b.due - b.acked
	} else {
		row.Offered = float64(b.sent-a.sent) / span
		row.Backlog = b.sent - b.acked
	}
	row.CPU = float64(b.procCPU-a.procCPU) / 1e9 / span
	row.DevWrite, row.DevRead = perS(diff(a.disk.writeBytes, b.disk.writeBytes)), perS(diff(a.disk.readBytes, b.disk.readBytes))
	row.DevFlushes, row.Flushes = perS(diff(a.disk.flushes, b.disk.flushes)), perS(diff(a.target.Flushes, b.target.Flushes))
	row.DirtyBytes, row.RSSBytes, row.Goroutines = b.dirty, b.rss, b.goroutines
	_, row.GCPauseUS = pausesBetween(a.pauses, b.pauses)
}
