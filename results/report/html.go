package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rmq/results"
)

var (
	//go:embed page.html.tmpl
	pageTemplate string
	//go:embed style.css
	pageStyle string
	//go:embed script.js
	pageScript string

	page = template.Must(template.New("page").Parse(pageTemplate))
)

// HTMLOptions of a page. The zero value is a page that lies in the run's directory.
type HTMLOptions struct {
	// LinkBase is the way from the page's directory to the run's, with slashes and relative; ""
	// is the same directory. "-" leaves links to raw data out.
	LinkBase string
}

// LinkBase is the way from a page at file to the run's directory, for HTMLOptions: "-" when there
// is none, on another volume for instance.
func LinkBase(file, dir string) string {
	from, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return "-"
	}
	to, err := filepath.Abs(dir)
	if err != nil {
		return "-"
	}
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return "-"
	}
	if rel == "." {
		return ""
	}
	return filepath.ToSlash(rel)
}

// openCells is how many cells a page shows unfolded.
const openCells = 6

// saidFirst is how many sentences a page shows unfolded.
const saidFirst = 12

// pageView is what the template sees.
type pageView struct {
	Style                 template.CSS
	Script                template.JS
	Title                 string
	Manifest              *results.Manifest
	Started               string
	Took                  string
	Status                string
	Complete              bool
	Host                  string
	CellCount, BlockCount string
	Fixed                 string
	Sentences             []sentenceView
	More                  []sentenceView // beyond the first screen
	Classes               []classView
	Effects               template.HTML
	EffectTab             *htmlTable
	Heat                  []heatView
	Cells                 []*cellPage
	Gates                 *htmlTable
	Probe                 *htmlTable
	ProbeNote             string
	Env                   *htmlTable
	Cost                  *htmlTable
	Replicas              []replicaView
	MainEffects           *htmlTable
	Notes                 []string
	Links                 []link
}

// MoreFrom is the number of the first sentence of More.
func (v *pageView) MoreFrom() int { return len(v.Sentences) + 1 }

type sentenceView struct {
	Text, Anchor string
	Trouble      bool
	Class        string
}

type classView struct {
	Class              results.Class
	Means              string
	Kill, One, All     string
	Rates              template.HTML
	Rows               []classRow
	HasClosed, HasOpen bool
	FactorHeads        []string
}

type classRow struct {
	Anchor                       string
	Factors                      []string
	Rate, Interval, Share, Of    string
	ShareWidth                   string // of the bar, percent; of the closed part if it ran
	Bottleneck, Why              string
	Verdict, VerdictWhy          string
	Offered, P50, P99, P999, Max string
	Validity, ValidWord          string
}

type replicaView struct {
	Class results.Class
	Table *htmlTable
}

type heatView struct {
	Title string
	Chart template.HTML
}

type link struct{ Href, Text string }

// cellPage is the part of the page that belongs to one cell.
type cellPage struct {
	Num                  int
	Anchor, Name, ID     string
	Open                 bool
	Class                results.Class
	Means                string
	Validity, ValidWord  string
	Bottleneck, Why      string
	Factors              string
	Figures              []figure
	Curve                template.HTML
	CurveNote            string
	ClosedCurve          template.HTML
	Strips               template.HTML
	Series               []seriesView
	Worst, Cost, GateTab *htmlTable
	Phases               string
	Command              string
	Notes                []string
	Links                []link
}

type figure struct{ Name, Value, Note string }

type seriesView struct {
	Title, Legend string
	Chart         template.HTML
	Open          bool
}

type htmlTable struct {
	Head []htmlCell
	Rows [][]htmlCell
}

type htmlCell struct {
	Text string
	Left bool
}

// HTML writes the page. It is one file that fetches nothing.
func (r *Renderer) HTML(w io.Writer, o HTMLOptions) error {
	v, err := r.page(o)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

func (r *Renderer) page(o HTMLOptions) (*pageView, error) {
	m := r.run.Manifest
	v := &pageView{
		Style: template.CSS(pageStyle), Script: template.JS(pageScript),
		Title: "rmqbench " + m.RunID, Manifest: m, Started: m.Started.UTC().Format("2006-01-02 15:04:05 UTC"),
		CellCount: count(len(m.Cells), "cell"), BlockCount: count(m.Reps, "block"),
		Status: r.status(), Complete: m.Complete, Host: r.hostLine(), Fixed: strings.Join(r.fixedFactors(), ", "),
		Effects: forestChart(r.forestRows()), EffectTab: r.effectTable().html(), Heat: r.heatMaps(),
		Gates: r.gateTable().html(), Probe: r.probeTable().html(), Env: r.envTable().html(), Cost: r.costTable().html(), Notes: r.notes(),
	}
	if !m.Ended.IsZero() {
		v.Took = longDuration(m.Ended.Sub(m.Started))
	}
	if p := r.run.Probe; p != nil {
		v.ProbeNote = fmt.Sprintf("taken in %s", results.FormatUS(p.Start.TookS*1e6))
		if p.End != nil {
			v.ProbeNote += fmt.Sprintf(", drift check of %s at the end", results.FormatUS(p.End.TookS*1e6))
		} else {
			v.ProbeNote += "; no drift check at the end"
		}
	}
	for _, s := range r.sentences() {
		sv := sentenceView{Text: strings.ReplaceAll(s.Text, " %", "\u00a0%"), Trouble: s.Kind == kindTrouble, Class: [...]string{"trouble", "headline", "effect", "price", "tail"}[s.Kind]}
		if s.Cell != nil {
			sv.Anchor = s.Cell.Anchor()
		}
		v.Sentences = append(v.Sentences, sv)
	}
	if len(v.Sentences) > saidFirst+2 {
		v.Sentences, v.More = v.Sentences[:saidFirst], v.Sentences[saidFirst:]
	}
	if t := r.mainEffectTable(); len(t.rows) > 0 {
		v.MainEffects = t.html()
	}
	for _, c := range r.classes() {
		v.Classes = append(v.Classes, r.classView(c))
		if t := r.replicaTable(c); len(t.rows) > 0 {
			v.Replicas = append(v.Replicas, replicaView{c, t.html()})
		}
	}
	for i, c := range r.cells {
		if !c.ran() {
			continue
		}
		cp, err := r.cellPage(c, o)
		if err != nil {
			return nil, err
		}
		cp.Open = i < openCells
		v.Cells = append(v.Cells, cp)
	}
	if o.LinkBase != "-" {
		for _, f := range []string{results.ManifestFile, results.EnvFile, results.ProbeFile, results.HistoryFile} {
			if _, err := os.Stat(filepath.Join(r.run.Dir, f)); err != nil {
				continue
			}
			v.Links = append(v.Links, link{path.Join(o.LinkBase, f), f})
		}
	}
	return v, nil
}

// longDuration prints minutes and hours where three digits of seconds do not read well.
func longDuration(d time.Duration) string {
	if d < 2*time.Minute {
		return results.FormatDuration(d)
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}

func (r *Renderer) hostLine() string {
	e := r.run.Env
	if e == nil {
		return "environment not recorded"
	}
	parts := []string{
		fmt.Sprintf("%d × %s", e.Host.CPUs, orDash(e.Host.CPUModel)), results.FormatBytes(float64(e.Host.RAMBytes)) + " RAM",
		e.Host.OS + " " + e.Host.Kernel, strings.TrimSpace(e.Disk.FSType + " on " + orDash(strings.TrimSpace(e.Disk.Device+" "+e.Disk.Model))), e.Toolchain.Go,
	}
	return strings.Join(parts, " · ")
}

func (r *Renderer) classView(class results.Class) classView {
	kill, one, all := class.Survives()
	cv := classView{Class: class, Means: class.Means(), Kill: kill, One: one, All: all, FactorHeads: nil}
	for _, h := range r.factorHeads() {
		cv.FactorHeads = append(cv.FactorHeads, strings.TrimPrefix(h, "<"))
	}
	var strips []strip
	cells := r.ranked(class, results.PartClosed)
	for _, v := range r.ranked(class, results.PartOpen) {
		if !slices.Contains(cells, v) {
			cells = append(cells, v)
		}
	}
	names := namesWithin(cells)
	for i, v := range cells {
		row := classRow{Anchor: v.Anchor(), Factors: r.factorCells(v), Share: limitShare(v.any()), ShareWidth: "0"}
		if l := v.any().Limit; l != nil {
			row.Of, row.ShareWidth = l.Label, num(math.Min(100, l.Fraction*100))
		}
		if s := v.Closed; s != nil {
			cv.HasClosed = true
			row.Rate, row.Interval = results.FormatCount(s.Rate.Median), countInterval(s.Rate)
			row.Bottleneck, row.Why = string(s.Bottleneck), s.Why
			row.Verdict, row.VerdictWhy = r.against(cells[0], v, i)
			strips = append(strips, r.strip(v, s, names[v], func(x *results.Result) float64 { return x.Throughput.AckedPerS }, s.Rate, results.AxisRate, results.FormatCount))
		}
		if s := v.Open; s != nil {
			cv.HasOpen = true
			row.Offered, row.P50, row.P99 = results.FormatCount(s.Offered), results.FormatUS(s.P50.Median), results.FormatUS(s.P99.Median)
			row.P999, row.Max = p999Text(s), results.FormatUS(s.Max)
		}
		row.Validity, row.ValidWord = validity(v)
		cv.Rows = append(cv.Rows, row)
	}
	if len(strips) > 0 {
		cv.Rates = stripChart(strips, true, "acked messages per second, closed loop")
	}
	return cv
}

// against sets a cell against the first of its class, by pairs within blocks.
func (r *Renderer) against(best, v *cellView, rank int) (word, why string) {
	if best.Closed == nil || rank == 0 && !v.Closed.OnlyInvalid {
		return "first", ""
	}
	if best.Closed.OnlyInvalid || v.Closed.OnlyInvalid {
		return "not compared", "no valid repetition"
	}
	var a, b []float64
	for _, x := range best.Closed.Counted() {
		for _, y := range v.Closed.Counted() {
			if x.Block == y.Block {
				a, b = append(a, x.Closed.Throughput.AckedPerS), append(b, y.Closed.Throughput.AckedPerS)
			}
		}
	}
	ratio := results.PairedRatio(a, b, results.DefaultBand)
	if ratio.Verdict == results.NotComparable {
		return "not compared", "no common block"
	}
	return fmt.Sprintf("×%.2f %s", ratio.Value, ratio.Verdict), strings.TrimSpace(interval(ratio.Interval, ratioText) + ", " + verdictText(ratio) + ", p = " + pText(ratio.P))
}

// validity is a word and its class: ok, part, bad.
func validity(v *cellView) (text, class string) {
	bad, part := 0, 0
	for _, s := range v.parts() {
		switch {
		case s.OnlyInvalid:
			bad++
		case s.Valid < s.Reps:
			part++
		}
	}
	switch {
	case bad == len(v.parts()):
		return "INVALID", "bad"
	case bad > 0:
		for _, s := range v.parts() {
			if s.OnlyInvalid {
				return string(s.Part) + " INVALID", "bad"
			}
		}
	case part > 0:
		n, of := 0, 0
		for _, s := range v.parts() {
			n, of = n+s.Valid, of+s.Reps
		}
		return fmt.Sprintf("VALID (%d of %d)", n, of), "part"
	}
	return "VALID", "ok"
}

// strip collects one number of a cell over all repetitions, invalid ones included.
func (r *Renderer) strip(v *cellView, s *results.CellSummary, name string, f func(*results.Result) float64, est results.Estimate, axis string, format func(float64) string) strip {
	st := strip{name: name, est: est, format: format, anchor: v.Anchor(), invalid: s.OnlyInvalid}
	i := 0
	var rs []*results.Result
	for _, rep := range v.Runs.Reps {
		res := rep.Part(s.Part)
		if res == nil {
			continue
		}
		rs = append(rs, res)
		rv := repValue{block: rep.Block, v: f(res), valid: res.Valid}
		if res.Valid || s.OnlyInvalid {
			rv.outlier = slices.Contains(est.Outliers, i)
			i++
		}
		st.values = append(st.values, rv)
	}
	if axis != "" {
		st.limits = limitsOn(rs, axis)
	}
	return st
}

// forestMost is how many ratios the chart shows one by one; beyond, settings are taken together.
const forestMost = 10

func (r *Renderer) forestRows() []forestRow {
	effects, n := r.effects, 0
	for _, e := range effects {
		if e.Metric.Name == "tput" {
			n++
		}
	}
	if n > forestMost {
		effects = results.MainEffects(effects)
	}
	var rows []forestRow
	for _, same := range []bool{true, false} {
		for _, e := range effects {
			if e.Metric.Name != "tput" || e.SameClass() != same || e.Ratio.Verdict == results.NotComparable {
				continue
			}
			row := forestRow{name: phrase(e.Factor, e.To) + " / " + e.From, ratio: e.Ratio, verdict: verdictText(e.Ratio), price: !same}
			if e.Cells > 0 {
				row.name += fmt.Sprintf(" (%s, %s)", e.ToSide, count(e.Cells, "setting"))
			} else if w := r.whereOf(e); w != "" {
				row.name += " (" + w + ")"
			}
			if !same {
				row.verdict = fmt.Sprintf("price of %s over %s", e.ToSide, e.FromSide)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// heatMaps draws one map for each durability class and level of the other factors, as soon as two
// factors have three levels each.
func (r *Renderer) heatMaps() []heatView {
	levels := func(f string) []string {
		var ls []string
		for _, v := range r.cells {
			if l := v.Cell.Level(f); !slices.Contains(ls, l) {
				ls = append(ls, l)
			}
		}
		return ls
	}
	var big []string
	for _, f := range r.varying {
		if len(levels(f)) >= 3 {
			big = append(big, f)
		}
	}
	if len(big) < 2 {
		return nil
	}
	rowF, colF := big[0], big[1]
	others := slices.DeleteFunc(slices.Clone(r.varying), func(f string) bool { return f == rowF || f == colF })
	maps := map[string]*heatMap{}
	var order []string
	for _, v := range r.cells {
		s := v.any()
		if s == nil {
			continue
		}
		where := ""
		if len(others) > 0 {
			where = shortName(v.Cell, others)
		}
		for _, metric := range []struct {
			name, unit string
			part       results.Part
			value      func(*results.CellSummary) float64
			format     func(float64) string
			lower      bool
			note       func(*results.CellSummary) string
		}{
			{"Rate, closed loop", "msg/s", results.PartClosed, func(s *results.CellSummary) float64 { return s.Rate.Median }, results.FormatCount, false, limitShare},
			{"Response p99, each at its own load", "", results.PartOpen, func(s *results.CellSummary) float64 { return s.P99.Median }, results.FormatUS, true, func(s *results.CellSummary) string {
				return "at " + results.FormatCount(s.Offered) + "/s"
			}},
		} {
			part := v.Closed
			if metric.part == results.PartOpen {
				part = v.Open
			}
			if part == nil {
				continue
			}
			title := fmt.Sprintf("%s, durability %s", metric.name, part.Class)
			if where != "" {
				title += ", " + where
			}
			hm := maps[title]
			if hm == nil {
				hm = &heatMap{title: title, unit: metric.unit, rowF: rowF, colF: colF, rows: levels(rowF), cols: levels(colF), fields: map[[2]string]heatField{}, format: metric.format, lowerIsBest: metric.lower}
				maps[title] = hm
				order = append(order, title)
			}
			hm.fields[[2]string{v.Cell.Level(rowF), v.Cell.Level(colF)}] = heatField{v: metric.value(part), note: metric.note(part), valid: !part.OnlyInvalid, anchor: v.Anchor()}
		}
	}
	var out []heatView
	for _, t := range order {
		out = append(out, heatView{Title: t, Chart: maps[t].draw()})
	}
	return out
}

func (t *table) html() *htmlTable {
	if len(t.rows) == 0 {
		return nil
	}
	out := &htmlTable{}
	left := make([]bool, len(t.head))
	for i, h := range t.head {
		name, isLeft := strings.CutPrefix(h, "<")
		left[i] = isLeft
		out.Head = append(out.Head, htmlCell{name, isLeft})
	}
	for _, row := range t.rows {
		var cells []htmlCell
		for i, c := range row {
			cells = append(cells, htmlCell{c, left[i]})
		}
		out.Rows = append(out.Rows, cells)
	}
	return out
}

// withinRun is the interval of a percentile inside the only repetition of a part; unknown where
// there are several, or no histograms by the second.
func (r *Renderer) withinRun(s *results.CellSummary, p float64) (results.Interval, error) {
	if len(s.Counted()) != 1 {
		return results.Interval{}, nil
	}
	rep := s.Counted()[0]
	hs, err := r.store.Hists(rep.Cell, rep.Block)
	if err != nil {
		return results.Interval{}, err
	}
	var seconds []*hdrhistogram.Histogram
	for _, h := range hs {
		if !h.Whole && h.Part == s.Part && h.Name == results.HistResponse && h.TS >= 0 {
			seconds = append(seconds, h.H)
		}
	}
	return results.WithinRun(seconds, p, r.run.Manifest.Seed), nil
}

// typical is the counted repetition whose headline is nearest to the median.
func typical(s *results.CellSummary) *results.Rep {
	value := func(r *results.Rep) float64 {
		if s.Part == results.PartOpen {
			return r.Open.Latency.Response.P99
		}
		return r.Closed.Throughput.AckedPerS
	}
	target := s.Rate.Median
	if s.Part == results.PartOpen {
		target = s.P99.Median
	}
	reps := slices.Clone(s.Counted())
	sort.SliceStable(reps, func(i, j int) bool { return math.Abs(value(reps[i])-target) < math.Abs(value(reps[j])-target) })
	return reps[0]
}

// pooled merges a histogram over the counted repetitions.
func (r *Renderer) pooled(s *results.CellSummary, name string) (*hdrhistogram.Histogram, error) {
	var sum *hdrhistogram.Histogram
	for _, rep := range s.Counted() {
		hs, err := r.store.Hists(rep.Cell, rep.Block)
		if err != nil {
			return nil, err
		}
		h := results.FindHist(hs, s.Part, name)
		if h == nil {
			continue
		}
		if sum == nil {
			sum = results.NewHistogram()
		}
		if dropped := sum.Merge(h); dropped > 0 {
			return nil, fmt.Errorf("%s: %d samples of %s lie outside the range", s.ID, dropped, name)
		}
	}
	return sum, nil
}
