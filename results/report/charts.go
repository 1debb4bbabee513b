package report

import (
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rmq/results"
)

// limitMark is a limit of the probe on a chart.
type limitMark struct {
	label string
	value float64
}

// limitsOn collects the limit lines of one axis, each label once, from the first repetition that
// has them.
func limitsOn(rs []*results.Result, axis string) []limitMark {
	var ms []limitMark
	for _, r := range rs {
		for _, l := range r.Limits.Lines {
			if l.Axis == axis && !slices.ContainsFunc(ms, func(m limitMark) bool { return m.label == l.Label }) {
				ms = append(ms, limitMark{l.Label, l.Value})
			}
		}
		if len(ms) > 0 {
			break
		}
	}
	return ms
}

// near splits limits into those worth a place on a scale that reaches to hi, and those far above.
func near(ms []limitMark, hi float64) (on, off []limitMark) {
	for _, m := range ms {
		if m.value <= 4*hi {
			on = append(on, m)
		} else {
			off = append(off, m)
		}
	}
	return on, off
}

// ninesChart draws percentiles on a nines axis: response as a solid line, service beside it. The
// gap between them is time that messages waited for the generator's turn. Where fewer than ten
// samples lie above, lines are dotted.
func ninesChart(response, service *hdrhistogram.Histogram, limits []limitMark, open bool) template.HTML {
	const w, h, left, right, top, bottom = 560.0, 320.0, 58.0, 16.0, 26.0, 44.0
	if response == nil || response.TotalCount() == 0 {
		return ""
	}
	resp := ninesCurve(response)
	var svc []curvePoint
	if service != nil && service.TotalCount() > 0 {
		svc = ninesCurve(service)
	}
	lo, hi := math.Inf(1), 0.0
	for _, c := range [][]curvePoint{resp, svc} {
		for _, p := range c {
			lo, hi = math.Min(lo, p.us), math.Max(hi, p.us)
		}
	}
	on, off := near(limits, hi)
	for _, m := range on {
		lo = math.Min(lo, m.value)
		hi = math.Max(hi, m.value)
	}
	lo = math.Max(lo, hi/1e6)
	ys := logScale(lo, hi, h-bottom, top)
	xmax := math.Max(resp[len(resp)-1].x, 2)
	xs := scale{lo: 0, hi: xmax, from: left, to: w - right}

	s := newSVG(w, h, "chart", fmt.Sprintf("Latency by percentile, %d samples", response.TotalCount()), "")
	for _, y := range ys.ticks(6) {
		s.line("grid", left, ys.at(y), w-right, ys.at(y))
		s.text("tick", "end", left-6, ys.at(y)+3.5, results.FormatUS(y))
	}
	lastLabel := 0.0
	for _, p := range []float64{50, 90, 99, 99.9, 99.99, 99.999, 99.9999, 99.99999} {
		x := nines(p)
		if x > xmax+1e-9 {
			break
		}
		s.line("grid", xs.at(x), top, xs.at(x), h-bottom)
		label, anchor := fmt.Sprintf("p%g", p), "middle"
		half := textWidth(label) / 2
		if xs.at(x)+half > w {
			anchor, half = "end", 2*half
		}
		if xs.at(x)-half < lastLabel+6 {
			continue
		}
		lastLabel = xs.at(x) + half
		s.text("tick", anchor, xs.at(x), h-bottom+15, label)
	}
	s.text("axis", "middle", (left+w-right)/2, h-8, "percentile (each step right of p90 is one more nine)")
	for _, m := range on {
		y := ys.at(m.value)
		s.line("limit", left, y, w-right, y)
		s.text("limit-text", "end", w-right-4, y-4, "limit: "+m.label+" "+results.FormatUS(m.value))
	}
	offScale(s, off, w-right-4, top+12, results.FormatUS)
	at := func(c []curvePoint, sure bool) []point {
		var ps []point
		for i, p := range c {
			if p.sure == sure || !sure && i+1 < len(c) && !c[i+1].sure {
				ps = append(ps, point{xs.at(p.x), ys.clamp(p.us)})
			}
		}
		return ps
	}
	if len(svc) > 0 && open {
		all := func(c []curvePoint) []point { return append(at(c, true), at(c, false)...) }
		s.area("gap", all(resp), all(svc))
	}
	if len(svc) > 0 && open {
		s.path("line2", at(svc, true))
		s.path("line2 dotted", at(svc, false))
	}
	s.path("line1", at(resp, true))
	s.path("line1 dotted", at(resp, false))
	last := resp[len(resp)-1]
	s.dot("mark1", xs.at(last.x), ys.at(last.us), 3, "max "+results.FormatUS(last.us))
	s.text("key1", "end", xs.at(last.x)-6, ys.at(last.us)-6, "max "+results.FormatUS(last.us))
	if open {
		s.rect("swatch1", left, 8, 14, 3, 1)
		s.text("key1", "start", left+19, 13, "response, from due time")
		s.rect("swatch2", left+186, 8, 14, 3, 1)
		s.text("key2", "start", left+205, 13, "service, from the send")
	} else {
		s.rect("swatch1", left, 8, 14, 3, 1)
		s.text("key1", "start", left+19, 13, "service (closed loop: nothing is due)")
	}
	return s.close()
}

// offScale names limits that lie beyond a chart's range.
func offScale(s *svg, off []limitMark, x, y float64, f func(float64) string) {
	for i, m := range off {
		s.text("limit-text", "end", x, y+float64(i)*13, "↑ off scale: "+m.label+" "+f(m.value))
	}
}

type curvePoint struct {
	x, us float64
	sure  bool // at least ten samples lie above
}

// ninesCurve samples a histogram evenly on the nines axis and ends at the maximum.
func ninesCurve(h *hdrhistogram.Histogram) []curvePoint {
	n := float64(h.TotalCount())
	end := math.Log10(n)
	const step = 0.04
	var ps []curvePoint
	for i := 0; ; i++ {
		x := float64(i) * step
		if x >= end {
			break
		}
		p := 100 * (1 - math.Pow(10, -x))
		ps = append(ps, curvePoint{x, float64(h.ValueAtPercentile(p)) / 1000, results.SupportsPercentile(p, h.TotalCount())})
	}
	return append(ps, curvePoint{math.Max(end, 0.3), float64(h.Max()) / 1000, false})
}

// strip is one row of dots: a value per repetition, median, interval and limit.
type strip struct {
	name    string
	values  []repValue
	est     results.Estimate
	limits  []limitMark
	format  func(float64) string
	anchor  string // cell to jump to
	invalid bool
}

type repValue struct {
	block   int
	v       float64
	valid   bool
	outlier bool
}

// stripChart draws rows of repetition dots. shared puts all rows on one axis; otherwise each row
// has its own, with its ends labelled.
func stripChart(rows []strip, shared bool, what string) template.HTML {
	w, left, right, rowH, top := 560.0, 118.0, 118.0, 56.0, 10.0
	if shared {
		w, left, right, rowH = 1100, 60, 120, 34
		for _, r := range rows {
			left = math.Max(left, textWidth(r.name)*1.15+24)
		}
	}
	bottom := 8.0
	if shared {
		bottom = 40
	}
	h := top + float64(len(rows))*rowH + bottom
	s := newSVG(w, h, "chart", what+": one dot per repetition, bar = 95 % interval of the median", "")
	var common scale
	if shared {
		lo, hi := stripRange(rows)
		common = linearScale(hi, left, w-right)
		if hi/math.Max(lo, 1e-12) > 12 {
			common = logScale(lo*0.9, hi*1.05, left, w-right)
		}
		for _, t := range common.ticks(8) {
			s.line("grid", common.at(t), top, common.at(t), h-bottom)
			s.text("tick", "middle", common.at(t), h-bottom+15, results.FormatCount(t))
		}
		s.text("axis", "middle", (left+w-right)/2, h-8, what)
	}
	for i, r := range rows {
		mid := top + float64(i)*rowH + rowH/2
		sc := common
		if !shared {
			lo, hi := stripRange(rows[i : i+1])
			sc = closeScale(lo, hi, left, w-right)
			s.line("base", left, mid, w-right, mid)
			stripEnds(s, r, sc, mid+20)
		} else if i > 0 {
			s.line("base", left, mid-rowH/2, w-right, mid-rowH/2)
		}
		if r.anchor != "" {
			s.link(r.anchor)
		}
		s.text("label", "end", left-10, mid+4, r.name)
		if r.anchor != "" {
			s.endLink()
		}
		stripRow(s, r, sc, mid, shared)
		if shared {
			stripBeyond(s, r, sc, mid)
		}
		text := r.format(r.est.Median)
		if r.invalid && shared {
			text += " INVALID"
		}
		s.text("value", "start", w-right+12, mid+4, text)
	}
	return s.close()
}

// stripEnds labels the least and the largest repetition of a row with a scale of its own.
func stripEnds(s *svg, r strip, sc scale, y float64) {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range r.values {
		lo, hi = math.Min(lo, v.v), math.Max(hi, v.v)
	}
	if math.IsInf(lo, 1) {
		return
	}
	a, b := r.format(lo), r.format(hi)
	if sc.at(hi)-sc.at(lo) > textWidth(a)/2+textWidth(b)/2+8 {
		s.text("tick", "middle", sc.at(lo), y, a)
	}
	s.text("tick", "middle", sc.at(hi), y, b)
}

func stripRow(s *svg, r strip, sc scale, mid float64, shared bool) {
	for _, m := range r.limits {
		x := sc.at(m.value)
		if x < sc.from || x > sc.to {
			continue
		}
		s.line("limit", x, mid-14, x, mid+12)
		if !shared {
			anchor := "middle"
			if x > sc.to-60 {
				anchor = "end"
			}
			s.text("limit-text", anchor, x, mid-17, "limit "+r.format(m.value))
		}
	}
	if r.est.Interval.Known {
		x1, x2 := sc.at(r.est.Interval.Lo), sc.at(r.est.Interval.Hi)
		s.rect("interval", x1, mid-5, math.Max(x2-x1, 1.5), 10, 3)
	}
	if r.est.N > 0 {
		s.line("median", sc.at(r.est.Median), mid-8, sc.at(r.est.Median), mid+8)
	}
	for _, v := range r.values {
		tip := fmt.Sprintf("block %d: %s", v.block+1, r.format(v.v))
		x := sc.clamp(v.v)
		switch {
		case !v.valid:
			s.cross("bad", x, mid, 4, tip+", left out: a gate failed")
		case v.outlier:
			s.dot("outlier", x, mid, 4.5, tip+", beyond the Tukey fences, kept")
		default:
			s.dot("rep", x, mid, 3.5, tip)
		}
	}
}

// stripBeyond names the lowest limit of a row where all of them lie beyond a common scale, on the
// side that the row leaves free.
func stripBeyond(s *svg, r strip, sc scale, mid float64) {
	lowest := math.Inf(1)
	for _, m := range r.limits {
		lowest = math.Min(lowest, m.value)
	}
	if math.IsInf(lowest, 1) || sc.at(lowest) <= sc.to {
		return
	}
	_, hi := stripRange([]strip{{values: r.values, est: r.est}})
	if text := "limit " + r.format(lowest) + " →"; sc.at(hi) < sc.to-textWidth(text)-16 {
		s.text("limit-text", "end", sc.to-4, mid+4, text)
	} else {
		s.text("limit-text", "start", sc.from+6, mid+4, text)
	}
}

func stripRange(rows []strip) (lo, hi float64) {
	lo, hi = math.Inf(1), 0
	for _, r := range rows {
		for _, v := range r.values {
			lo, hi = math.Min(lo, v.v), math.Max(hi, v.v)
		}
		if r.est.Interval.Known {
			lo, hi = math.Min(lo, r.est.Interval.Lo), math.Max(hi, r.est.Interval.Hi)
		}
	}
	if math.IsInf(lo, 1) {
		lo = 0
	}
	top := hi
	for _, r := range rows {
		for _, m := range r.limits {
			if m.value <= 1.6*top {
				lo, hi = math.Min(lo, m.value), math.Max(hi, m.value)
			}
		}
	}
	return lo, hi
}

// forestChart draws ratios with intervals on a log axis about 1, the noise band behind them.
func forestChart(rows []forestRow) template.HTML {
	if len(rows) == 0 {
		return ""
	}
	const w, rowH, top, bottom = 1100.0, 28.0, 10.0, 40.0
	left, right := 120.0, 120.0
	for _, r := range rows {
		left = math.Max(left, textWidth(r.name)*1.15+24)
		right = math.Max(right, textWidth("×0.00  "+r.verdict)*1.32+24)
	}
	left, right = math.Min(left, 420), math.Min(right, 380)
	h := top + float64(len(rows))*rowH + bottom
	lo, hi := 0.9, 1.1
	for _, r := range rows {
		lo, hi = math.Min(lo, r.ratio.Value), math.Max(hi, r.ratio.Value)
		if r.ratio.Interval.Known {
			lo, hi = math.Min(lo, r.ratio.Interval.Lo), math.Max(hi, r.ratio.Interval.Hi)
		}
	}
	sc := scale{lo: lo * 0.97, hi: hi * 1.03, from: left, to: w - right, log: true}
	s := newSVG(w, h, "chart", "Effect of one factor on the rate, as a ratio with its 95 % interval", "")
	band := rows[0].ratio.Band
	s.rect("band", sc.at(1-band), top, sc.at(1+band)-sc.at(1-band), h-bottom-top, 0)
	for _, t := range ratioTicks(sc) {
		s.line("grid", sc.at(t), top, sc.at(t), h-bottom)
		s.text("tick", "middle", sc.at(t), h-bottom+15, "×"+trimRatio(t))
	}
	s.line("one", sc.at(1), top, sc.at(1), h-bottom)
	s.text("axis", "middle", (left+w-right)/2, h-8, fmt.Sprintf("ratio of rates (shaded: ±%g %%, the noise band)", band*100))
	for i, r := range rows {
		mid := top + float64(i)*rowH + rowH/2
		s.text("label", "end", left-12, mid+4, r.name)
		if r.ratio.Interval.Known {
			s.rect("interval", sc.at(r.ratio.Interval.Lo), mid-4, math.Max(1.5, sc.at(r.ratio.Interval.Hi)-sc.at(r.ratio.Interval.Lo)), 8, 3)
		}
		class := "rep"
		if r.price {
			class = "outlier"
		}
		s.dot(class, sc.at(r.ratio.Value), mid, 4.5, interval(r.ratio.Interval, ratioText))
		s.text("value", "start", w-right+14, mid+4, fmt.Sprintf("×%.2f  %s", r.ratio.Value, r.verdict))
	}
	return s.close()
}

type forestRow struct {
	name    string
	verdict string
	ratio   results.Ratio
	price   bool
}

func ratioTicks(sc scale) []float64 {
	var ts []float64
	for _, t := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.5, 2, 5, 10, 20, 50, 100} {
		if t < sc.lo || t > sc.hi {
			continue
		}
		if n := len(ts); n > 0 && sc.at(t)-sc.at(ts[n-1]) < 44 {
			if t == 1 {
				ts[n-1] = 1
			}
			continue
		}
		ts = append(ts, t)
	}
	return ts
}

func trimRatio(v float64) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// heatMap draws two factors as rows and columns; each field is a cell of the matrix, a link to its
// page, dashed where the result is not valid.
type heatMap struct {
	title, unit string
	rowF, colF  string
	rows, cols  []string
	fields      map[[2]string]heatField
	format      func(float64) string
	lowerIsBest bool
}

type heatField struct {
	v      float64
	note   string
	valid  bool
	anchor string
}

const (
	heatSteps       = 7
	heatLeastSpread = 1.25 // ratio that the whole ramp spans at least
)

func (m *heatMap) draw() template.HTML {
	const left, top, right, fw, fh = 120.0, 44.0, 8.0, 104.0, 46.0
	w := left + float64(len(m.cols))*fw + right
	h := top + float64(len(m.rows))*fh + 34
	lo, hi := math.Inf(1), 0.0
	for _, f := range m.fields {
		lo, hi = math.Min(lo, f.v), math.Max(hi, f.v)
	}
	s := newSVG(w, h, "chart heat", m.title, fmt.Sprintf(`style="max-width:%spx"`, num(w)))
	s.text("axis", "start", left, 14, m.colF)
	s.text("axis", "end", left-10, top-10, m.rowF)
	for j, c := range m.cols {
		s.text("tick", "middle", left+(float64(j)+0.5)*fw, top-8, c)
	}
	for i, row := range m.rows {
		y := top + float64(i)*fh
		s.text("tick", "end", left-10, y+fh/2+4, row)
		for j, col := range m.cols {
			x := left + float64(j)*fw
			f, ok := m.fields[[2]string{row, col}]
			if !ok {
				s.rect("heat-none", x+2, y+2, fw-4, fh-4, 4)
				s.text("tick", "middle", x+fw/2, y+fh/2+4, "not run")
				continue
			}
			class := fmt.Sprintf("h%d", heatStep(f.v, lo, hi, m.lowerIsBest))
			if !f.valid {
				class += " invalid"
			}
			s.link(f.anchor)
			s.rect("heat-"+class, x+2, y+2, fw-4, fh-4, 4)
			s.text("heat-t "+class, "middle", x+fw/2, y+fh/2, m.format(f.v))
			s.text("heat-n "+class, "middle", x+fw/2, y+fh/2+14, f.note)
			s.endLink()
		}
	}
	y := h - 16
	for k := range heatSteps {
		s.rect(fmt.Sprintf("heat-h%d", k), left+2+float64(k)*22, y-8, 20, 10, 2)
	}
	ends := [2]string{m.format(lo), m.format(hi)}
	if m.lowerIsBest {
		ends[0], ends[1] = ends[1], ends[0]
	}
	s.text("tick", "end", left-6, y+1, ends[0])
	s.text("tick", "start", left+heatSteps*22+8, y+1, ends[1]+" "+m.unit)
	return s.close()
}

// heatStep is 0 (worst) to 6 (best) on the log scale.
func heatStep(v, lo, hi float64, lowerIsBest bool) int {
	if v <= 0 || lo <= 0 || hi <= lo {
		return heatSteps - 1
	}
	if hi/lo < heatLeastSpread {
		mid := math.Sqrt(lo * hi) // a narrow range must not look like a wide one
		lo, hi = mid/math.Sqrt(heatLeastSpread), mid*math.Sqrt(heatLeastSpread)
	}
	x := (math.Log(v) - math.Log(lo)) / (math.Log(hi) - math.Log(lo))
	if lowerIsBest {
		x = 1 - x
	}
	return min(heatSteps-1, max(0, int(x*heatSteps)))
}

// panel is one graph of the stacked time series.
type panel struct {
	name   string
	value  func(*results.Row) (float64, bool)
	second func(*results.Row) (float64, bool) // a thinner line beside it, may be nil
	key    string                             // what the second line is
	format func(float64) string
	limits []limitMark
	binary bool // bytes: round numbers in powers of 1024
}

// seriesChart stacks the panels of one repetition under one time axis, one cursor and the event
// marks; the other repetitions lie behind as faint lines.
func seriesChart(rows []results.Row, others [][]results.Row, panels []panel, events []results.Event, what string) template.HTML {
	if len(rows) == 0 {
		return ""
	}
	const w, left, right, top, ph, gap, bottom = 1100.0, 172.0, 92.0, 30.0, 74.0, 16.0, 34.0
	h := top + float64(len(panels))*(ph+gap) + bottom
	t0, t1 := rows[0].TS, rows[0].TS
	for _, r := range rows {
		t0, t1 = math.Min(t0, r.TS), math.Max(t1, r.TS+r.DurS)
	}
	xs := scale{lo: t0, hi: math.Max(t1, t0+1), from: left, to: w - right}
	s := newSVG(w, h, "chart series", what, cursorData(rows, panels, xs)+` tabindex="0"`)
	if t0 < 0 {
		s.rect("warmup", xs.at(t0), top, xs.at(0)-xs.at(t0), h-bottom-top-gap, 0)
		s.text("tick", "start", xs.at(t0), top-19, "warm-up")
	}
	for _, t := range xs.ticks(12) {
		s.line("grid", xs.at(t), top, xs.at(t), h-bottom-gap+4)
		s.text("tick", "middle", xs.at(t), h-bottom-gap+18, fmt.Sprintf("%g s", t))
	}
	s.text("axis", "middle", (left+w-right)/2, h-4, "time since the start of measuring")
	y := top
	for _, p := range panels {
		drawPanel(s, p, rows, others, xs, left, w-right, y, ph)
		y += ph + gap
	}
	drawEvents(s, events, xs, top, h-bottom-gap)
	s.line("cursor", -10, top, -10, h-bottom-gap)
	return s.close()
}

func drawPanel(s *svg, p panel, rows []results.Row, others [][]results.Row, xs scale, left, right, y, ph float64) {
	s.line("base", left, y+ph, right, y+ph)
	s.text("label", "start", 0, y+14, p.name)
	if p.key != "" {
		s.text("key2", "start", 0, y+30, p.key)
	}
	hi, any := 0.0, false
	for _, r := range append([][]results.Row{rows}, others...) {
		for i := range r {
			for _, f := range []func(*results.Row) (float64, bool){p.value, p.second} {
				if f == nil {
					continue
				}
				if v, ok := f(&r[i]); ok {
					hi, any = math.Max(hi, v), true
				}
			}
		}
	}
	if !any {
		s.text("none", "start", left+8, y+ph/2+4, "not offered by this host")
		return
	}
	on, off := near(p.limits, math.Max(hi, 1e-9))
	for _, m := range on {
		hi = math.Max(hi, m.value)
	}
	sc := linearScale(hi, y+ph, y+4)
	if p.binary {
		sc = binaryScale(hi, y+ph, y+4)
	}
	for _, t := range []float64{0, sc.hi / 2, sc.hi} {
		s.line("grid", left, sc.at(t), right, sc.at(t))
		if t > 0 {
			s.text("tick", "end", left-6, sc.at(t)+4, p.format(t))
		}
	}
	mid := func(r *results.Row) float64 { return xs.at(r.TS + r.DurS/2) }
	line := func(rs []results.Row, f func(*results.Row) (float64, bool)) []point {
		ps := make([]point, len(rs))
		for i := range rs {
			v, ok := f(&rs[i])
			ps[i] = point{mid(&rs[i]), sc.at(v)}
			if !ok {
				ps[i].y = math.NaN()
			}
			ps[i].x = math.Min(math.Max(ps[i].x, left), right)
		}
		return ps
	}
	for _, o := range others {
		s.path("faint", line(o, p.value))
	}
	for _, m := range on {
		s.line("limit", left, sc.at(m.value), right, sc.at(m.value))
		s.text("limit-text", "start", left+4, sc.at(m.value)+11, "limit: "+m.label+" "+p.format(m.value))
	}
	offScale(s, off, right-4, y+14, p.format)
	if p.second != nil {
		s.path("line2", line(rows, p.second))
	}
	ps := line(rows, p.value)
	s.path("line1", ps)
	if len(ps) <= 40 {
		for _, q := range ps {
			if !math.IsNaN(q.y) {
				s.dot("mark1", q.x, q.y, 2, "")
			}
		}
	}
	s.text("read", "start", right+8, y+ph/2+4, "")
}

// eventGlyphs are the marks of events; their names stand beside the chart.
var eventGlyphs = map[string]string{
	results.EventRoll: "▲", results.EventCheckpoint: "◆", results.EventFlush: "●", results.EventStall: "✕",
	results.EventGC: "○", results.EventClean: "■", results.EventRestart: "↺", results.EventLeader: "★",
}

// maxEventMarks bounds the marks of one kind on a chart.
const maxEventMarks = 60

func drawEvents(s *svg, events []results.Event, xs scale, top, bottom float64) {
	seen := map[string]int{}
	for _, e := range events {
		if e.TS < xs.lo || e.TS > xs.hi {
			continue
		}
		if seen[e.Kind]++; seen[e.Kind] > maxEventMarks {
			continue
		}
		x := xs.at(e.TS)
		s.line("event", x, top, x, bottom)
		glyph := eventGlyphs[e.Kind]
		if glyph == "" {
			glyph = "·"
		}
		tip := fmt.Sprintf("%s at %s s", e.Kind, results.FormatSig3(e.TS))
		if e.Detail != "" {
			tip += ": " + e.Detail
		}
		if e.TookUS > 0 {
			tip += ", took " + results.FormatUS(e.TookUS)
		}
		fmt.Fprintf(&s.b, `<text class="event-mark" x="%s" y="%s" text-anchor="middle">%s%s</text>`, num(x), num(top-6), glyph, title(tip))
	}
}

// eventLegend says which mark is which, and how many there were.
func eventLegend(events []results.Event) string {
	n := map[string]int{}
	for _, e := range events {
		n[e.Kind]++
	}
	kinds := make([]string, 0, len(n))
	for k := range n {
		kinds = append(kinds, k)
	}
	sort.Strings(kinds)
	var parts []string
	for _, k := range kinds {
		g := eventGlyphs[k]
		if g == "" {
			g = "·"
		}
		parts = append(parts, fmt.Sprintf("%s %s × %d", g, k, n[k]))
	}
	return strings.Join(parts, "   ")
}

// cursorData is what the page's script needs to move the cursor: where each row lies and the
// text of each panel there.
func cursorData(rows []results.Row, panels []panel, xs scale) string {
	type data struct {
		X []float64  `json:"x"`
		T []string   `json:"t"`
		V [][]string `json:"v"`
	}
	var d data
	for i := range rows {
		d.X = append(d.X, math.Round(xs.at(rows[i].TS+rows[i].DurS/2)*10)/10)
		d.T = append(d.T, fmt.Sprintf("%.4g to %.4g s", rows[i].TS, rows[i].TS+rows[i].DurS))
	}
	for _, p := range panels {
		var vs []string
		for i := range rows {
			t := "n/a"
			if v, ok := p.value(&rows[i]); ok {
				t = p.format(v)
			}
			vs = append(vs, t)
		}
		d.V = append(d.V, vs)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return ""
	}
	return `data-s="` + html.EscapeString(string(b)) + `"`
}
