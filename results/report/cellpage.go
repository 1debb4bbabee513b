package report

import (
	"fmt"
	"path"
	"strings"

	"rmq/results"
)

// worstShown is how many of the worst samples a page lists.
const worstShown = 12

func (r *Renderer) cellPage(v *cellView, o HTMLOptions) (*cellPage, error) {
	s := v.any()
	p := &cellPage{
		Num: v.Num, Anchor: v.Anchor(), Name: upperFirst(v.Name), ID: v.ID, Class: s.Class, Means: s.Class.Means(),
		Bottleneck: string(s.Bottleneck), Why: s.Why, Command: r.RepeatCommand(v.Cell), Notes: cellNotes(v),
	}
	p.Validity, p.ValidWord = validity(v)
	var fs []string
	for _, f := range v.Cell.Factors() {
		if f.Level != "" && f.Level != "0" {
			fs = append(fs, phrase(f.Name, f.Level))
		}
	}
	p.Factors = strings.Join(fs, " · ")
	var err error
	if p.Figures, err = r.figures(v); err != nil {
		return nil, err
	}
	p.Strips = stripChart(r.cellStrips(v), false, "Repetitions")
	p.GateTab, p.Cost = cellGates(v), cellCost(v)
	for _, part := range v.parts() {
		if err := r.addCurve(p, part); err != nil {
			return nil, err
		}
	}
	// The open loop first: its series shows latencies that mean something.
	for i := len(v.parts()) - 1; i >= 0; i-- {
		part := v.parts()[i]
		sv, err := r.seriesView(part)
		if err != nil {
			return nil, err
		}
		sv.Open = len(p.Series) == 0
		p.Series = append(p.Series, sv)
	}
	if w := v.Open; w != nil {
		p.Worst = worstTable(w)
	} else {
		p.Worst = worstTable(s)
	}
	p.Phases = phaseText(typical(s).Part(s.Part))
	if o.LinkBase != "-" {
		for _, rep := range v.Runs.Reps {
			dir := path.Join(o.LinkBase, strings.ReplaceAll(results.RepPath(rep.Cell, rep.Block), "\\", "/"))
			for _, f := range []string{results.ResultFile, results.HistFile, results.SeriesFile} {
				p.Links = append(p.Links, link{path.Join(dir, f), fmt.Sprintf("block %d %s", rep.Block+1, f)})
			}
		}
	}
	return p, nil
}

func cellNotes(v *cellView) []string {
	var out []string
	for _, s := range v.parts() {
		for _, n := range alike(s.Notes) {
			out = append(out, upperFirst(partWord(s.Part))+": "+n)
		}
	}
	return out
}

// figures are the numbers that stand large on a cell's page.
func (r *Renderer) figures(v *cellView) ([]figure, error) {
	var fs []figure
	add := func(name, value, note string) { fs = append(fs, figure{name, value, note}) }
	if s := v.Closed; s != nil {
		add("most it can do", results.FormatRate(s.Rate.Median), strings.TrimSpace(countInterval(s.Rate)+" closed loop, "+fmt.Sprint(s.InFly)+" outstanding"))
		add("share of the limit", limitShare(s), limitNote(s))
	}
	if s := v.Open; s != nil {
		at := "at " + results.FormatRate(s.Offered)
		add("response p50", results.FormatUS(s.P50.Median), at+", from due time")
		note := "service p99 " + results.FormatUS(s.SvcP99)
		iv, err := r.withinRun(s, 99)
		if err != nil {
			return nil, err
		}
		if iv.Known {
			note += ", within this run " + interval(iv, results.FormatUS)
		}
		add("response p99", results.FormatUS(s.P99.Median), note)
		add("response p99.9", p999Text(s), "max "+results.FormatUS(s.Max))
		add("pacing error p99", results.FormatUS(s.PaceP99), "queueing p99 "+results.FormatUS(s.QueP99))
	} else if s := v.Closed; s != nil {
		add("service p50", results.FormatUS(s.P50.Median), "closed loop")
		add("service p99", results.FormatUS(s.P99.Median), "max "+results.FormatUS(s.Max))
	}
	if s := v.any(); s.WriteAmp != nil {
		note := "after a final sync, preparation apart"
		add("device / log bytes", ratioText(*s.WriteAmp), note)
	}
	return fs, nil
}

func limitNote(s *results.CellSummary) string {
	if s.Limit == nil {
		return "no limit was probed"
	}
	return fmt.Sprintf("%s: %s", s.Limit.Label, limitValue(s.Limit.Value, s.Limit.Unit))
}

func (r *Renderer) cellStrips(v *cellView) []strip {
	var rows []strip
	if s := v.Closed; s != nil {
		rows = append(rows, r.strip(v, s, "rate, closed", func(x *results.Result) float64 { return x.Throughput.AckedPerS }, s.Rate, results.AxisRate, results.FormatRate))
	}
	if s := v.Open; s != nil {
		rows = append(rows,
			r.strip(v, s, "response p50", func(x *results.Result) float64 { return x.Latency.Response.P50 }, s.P50, results.AxisLatency, results.FormatUS),
			r.strip(v, s, "response p99", func(x *results.Result) float64 { return x.Latency.Response.P99 }, s.P99, "", results.FormatUS),
		)
		if s.P999.N > 0 {
			rows = append(rows, r.strip(v, s, "response p99.9", func(x *results.Result) float64 { return x.Latency.Response.P999 }, s.P999, "", results.FormatUS))
		}
	} else if s := v.Closed; s != nil {
		rows = append(rows,
			r.strip(v, s, "service p50", func(x *results.Result) float64 { return x.Latency.Service.P50 }, s.P50, results.AxisLatency, results.FormatUS),
			r.strip(v, s, "service p99", func(x *results.Result) float64 { return x.Latency.Service.P99 }, s.P99, "", results.FormatUS),
		)
	}
	for i := range rows {
		rows[i].anchor = ""
	}
	return rows
}

func (r *Renderer) addCurve(p *cellPage, s *results.CellSummary) error {
	resp, err := r.pooled(s, results.HistResponse)
	if err != nil {
		return err
	}
	svc, err := r.pooled(s, results.HistService)
	if err != nil {
		return err
	}
	if resp == nil {
		resp = svc
	}
	first := s.Counted()[0].Part(s.Part)
	chart := ninesChart(resp, svc, limitsOn([]*results.Result{first}, results.AxisLatency), s.Part == results.PartOpen)
	if s.Part == results.PartOpen {
		p.Curve = chart
		p.CurveNote = fmt.Sprintf("%s samples of %s pooled; dotted where fewer than ten lie above.", results.FormatCount(float64(s.Samples)), count(len(s.Counted()), "repetition"))
		return nil
	}
	p.ClosedCurve = chart
	return nil
}

func (r *Renderer) seriesView(s *results.CellSummary) (seriesView, error) {
	rep := typical(s)
	rows, err := r.partRows(rep, s.Part)
	if err != nil {
		return seriesView{}, err
	}
	var others [][]results.Row
	for _, o := range s.Counted() {
		if o == rep {
			continue
		}
		rs, err := r.partRows(o, s.Part)
		if err != nil {
			return seriesView{}, err
		}
		others = append(others, rs)
	}
	res := rep.Part(s.Part)
	title := fmt.Sprintf("%s, second by second: block %d", upperFirst(partWord(s.Part)), rep.Block+1)
	if len(others) > 0 {
		title += fmt.Sprintf(" (nearest to the median; the other %d faint)", len(others))
	}
	return seriesView{
		Title: title, Legend: eventLegend(res.Events),
		Chart: seriesChart(rows, others, panelsOf(res), res.Events, title),
	}, nil
}

// partRows are the rows of warm-up and measuring of one part.
func (r *Renderer) partRows(rep *results.Rep, p results.Part) ([]results.Row, error) {
	all, err := r.store.Series(rep.Cell, rep.Block)
	if err != nil {
		return nil, err
	}
	var rows []results.Row
	for _, row := range all {
		if row.Part == p && (row.Phase == results.PhaseWarmup || row.Phase == results.PhaseMeasure || row.Phase == results.PhaseDrain) {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func panelsOf(res *results.Result) []panel {
	always := func(f func(*results.Row) float64) func(*results.Row) (float64, bool) {
		return func(r *results.Row) (float64, bool) { return f(r), true }
	}
	opt := func(f func(*results.Row) *float64) func(*results.Row) (float64, bool) {
		return func(r *results.Row) (float64, bool) {
			if v := f(r); v != nil {
				return *v, true
			}
			return 0, false
		}
	}
	lim := func(axis string) []limitMark { return limitsOn([]*results.Result{res}, axis) }
	bytesPerS := func(v float64) string { return results.FormatBytes(v) + "/s" }
	perS := func(v float64) string { return results.FormatCount(v) + "/s" }
	rate := panel{name: "acked, msg/s", value: always(func(r *results.Row) float64 { return r.Acked }), format: perS, limits: lim(results.AxisRate)}
	lat := panel{name: "response p99", value: always(func(r *results.Row) float64 { return r.P99 }), format: results.FormatUS, limits: lim(results.AxisLatency)}
	lat.second, lat.key = always(func(r *results.Row) float64 { return r.P50 }), "and p50"
	if res.Part == results.PartOpen {
		rate.second, rate.key = always(func(r *results.Row) float64 { return r.Offered }), "and offered"
	} else {
		lat.name = "service p99"
	}
	return []panel{
		rate, lat,
		{name: "backlog, msg", value: always(func(r *results.Row) float64 { return float64(r.Backlog) }), format: results.FormatCount},
		{name: "CPU, cores", value: always(func(r *results.Row) float64 { return r.CPU }), format: results.FormatSig3},
		{name: "device writes", value: opt(func(r *results.Row) *float64 { return r.DevWrite }), format: bytesPerS, binary: true, limits: lim(results.AxisDevWrite)},
		{name: "flushes", value: opt(func(r *results.Row) *float64 { return r.Flushes }), second: opt(func(r *results.Row) *float64 { return r.DevFlushes }), key: "and at the device", format: perS, limits: lim(results.AxisFlushes)},
		{name: "dirty memory", value: func(r *results.Row) (float64, bool) {
			if r.DirtyBytes == nil {
				return 0, false
			}
			return float64(*r.DirtyBytes), true
		}, format: results.FormatBytes, binary: true, limits: lim(results.AxisDirty)},
	}
}

func worstTable(s *results.CellSummary) *htmlTable {
	rep := typical(s)
	t := &table{head: []string{"due at", "response", "service", "queueing", "<phase", "<during", "worker", "sequence"}}
	for i, w := range rep.Part(s.Part).Worst {
		if i == worstShown {
			break
		}
		t.add(results.FormatSig3(w.TS)+" s", results.FormatUS(w.ResponseUS), results.FormatUS(w.ServiceUS), results.FormatUS(w.QueueingUS), w.Phase, orDash(w.Cause), fmt.Sprint(w.Worker), fmt.Sprint(w.Seq))
	}
	return t.html()
}

func cellGates(v *cellView) *htmlTable {
	t := &table{head: []string{"<part", "<gate", "<value", "<limit", "<status", "<note"}}
	for _, s := range v.parts() {
		rep := typical(s)
		for _, g := range rep.Part(s.Part).Gates {
			status, value, note := string(g.Status), g.Value, g.Note
			for _, f := range s.Failed {
				if f.Name == g.Name && g.Status != results.GateFailed {
					status = "failed in another repetition"
					value, note = f.Value, f.Note
				}
			}
			t.add(string(s.Part), g.Name, value, g.Limit, status, note)
		}
	}
	return t.html()
}

func cellCost(v *cellView) *htmlTable {
	t := &table{head: []string{"<part", "CPU / M msg", "device bytes / M msg", "flushes / M msg", "msg / flush", "device / log", "peak RSS", "GC pause max"}}
	for _, s := range v.parts() {
		res := typical(s).Part(s.Part).Resources
		group := "n/a"
		if s.GroupSize > 0 {
			group = results.FormatCount(s.GroupSize)
		}
		t.add(string(s.Part), optText(s.CPUSPerM, func(x float64) string { return results.FormatSig3(x) + " s" }), optText(s.BytesPerM, results.FormatBytes),
			optText(s.FlushesPerM, results.FormatCount), group, optText(s.WriteAmp, ratioText), results.FormatBytes(float64(res.RSSMaxBytes)), results.FormatUS(res.GCPauseMaxUS))
	}
	return t.html()
}

func phaseText(r *results.Result) string {
	var ps []string
	for _, p := range r.Phases {
		t := p.Name + " " + results.FormatUS((p.EndS-p.StartS)*1e6)
		if p.Note != "" {
			t += " (" + p.Note + ")"
		}
		ps = append(ps, t)
	}
	return strings.Join(ps, " → ")
}
