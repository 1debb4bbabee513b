package results

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// DefaultBand is the noise band within which two numbers count as the same.
const DefaultBand = 0.03

// Metric is a number that comparisons look at.
type Metric struct {
	Name  string `json:"name"` // as flags spell it: tput, p50, p99, p99.9
	Part  Part   `json:"part"`
	Lower bool   `json:"lower_is_better"`
	Label string `json:"label"`
	Unit  string `json:"unit"`
	pick  func(*Result) float64
}

// Metrics lists what [ParseMetrics] knows.
func Metrics() []Metric {
	return []Metric{
		{Name: "tput", Part: PartClosed, Label: "throughput", Unit: "msg/s", pick: func(r *Result) float64 { return r.Throughput.AckedPerS }},
		{Name: "p50", Part: PartOpen, Lower: true, Label: "response p50", Unit: "us", pick: func(r *Result) float64 { return r.Latency.Response.P50 }},
		{Name: "p99", Part: PartOpen, Lower: true, Label: "response p99", Unit: "us", pick: func(r *Result) float64 { return r.Latency.Response.P99 }},
		{Name: "p99.9", Part: PartOpen, Lower: true, Label: "response p99.9", Unit: "us", pick: func(r *Result) float64 { return r.Latency.Response.P999 }},
	}
}

// MetricByName finds a metric. The error lists the names.
func MetricByName(name string) (Metric, error) {
	var names []string
	for _, m := range Metrics() {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Metric{}, fmt.Errorf("metric %q: want one of %s", name, strings.Join(names, ", "))
}

// ParseMetrics reads a comma-separated list of names.
func ParseMetrics(list string) ([]Metric, error) {
	var ms []Metric
	for _, n := range strings.Split(list, ",") {
		m, err := MetricByName(strings.TrimSpace(n))
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// Value is the metric of a result in its own unit, 0 where the sample does not support it.
func (m Metric) Value(r *Result) float64 { return m.pick(r) }

// goodness orients the metric: larger is better.
func (m Metric) goodness(r *Result) float64 {
	v := m.pick(r)
	if m.Lower && v > 0 {
		return 1 / v
	}
	return v
}

// CompareOptions says what to look at. The zero value compares throughput, p50 and p99 within 3 %,
// of which throughput decides the exit code.
type CompareOptions struct {
	Band float64 // noise band, 0 = DefaultBand
	// Metrics decide the exit code. Empty: throughput, or response p99 where no closed part ran.
	Metrics []Metric
	// Stricter ranks B also where its durability class is stricter than that of A: the ratio is then a lower bound.
	Stricter bool
}

// Split takes a run apart by a factor: the cells that have a level of it, and the others. Both can be compared as
// runs, block by block.
func (r *Run) Split(factor, level string) (with, without *Run, err error) {
	part := func(keep bool) *Run {
		out, m := *r, *r.Manifest
		has := func(c Cell) bool { return (c.Level(factor) == level) == keep }
		m.Cells = slices.DeleteFunc(slices.Clone(m.Cells), func(c Cell) bool { return !has(c) })
		out.Cells = slices.DeleteFunc(slices.Clone(r.Cells), func(c *CellRuns) bool { return !has(c.Cell) })
		out.Manifest = &m
		return &out
	}
	with, without = part(true), part(false)
	if len(with.Cells) == 0 || len(without.Cells) == 0 {
		return nil, nil, fmt.Errorf("%s: cells with and without %s=%s are needed for a comparison", r.Dir, factor, level)
	}
	return with, without, nil
}

// Comparison is run B against run A.
type Comparison struct {
	DirA   string `json:"dir_a"`
	DirB   string `json:"dir_b"`
	LabelA string `json:"label_a,omitempty"`
	LabelB string `json:"label_b,omitempty"`
	// Differ lists every option that the two do not share. Reports print it first.
	Differ   []Difference      `json:"differ"`
	Warnings []string          `json:"warnings,omitempty"`
	Cells    []*CellComparison `json:"cells"`
	// Summary is the geometric mean of ratios over the comparable cells, by metric name.
	Summary map[string]float64 `json:"summary,omitempty"`
	Band    float64            `json:"band"`
}

// Difference is one option with its value on both sides.
type Difference struct {
	Name string `json:"name"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// CellComparison is one cell in one metric.
type CellComparison struct {
	Name     string   `json:"name"` // the shared factors that vary, or the cell's id
	IDA      string   `json:"id_a"`
	IDB      string   `json:"id_b"`
	Metric   Metric   `json:"metric"`
	ClassA   Class    `json:"class_a"`
	ClassB   Class    `json:"class_b"`
	A        float64  `json:"a"` // medians, in the metric's unit
	B        float64  `json:"b"`
	Ratio    Ratio    `json:"ratio"`
	Warnings []string `json:"warnings,omitempty"`
	Decides  bool     `json:"decides"` // counts for the exit code
}

// Compare sets B against A, cell by cell. Cells match when they are equal in every factor that is
// not a single differing level on each side, so that a run with --write=mmap can be set against one
// with --write=pwrite. Blocks pair when both runs drew them from the same seed in the same order.
// Cells of different durability classes are listed and not compared, but see [CompareOptions].Stricter.
func Compare(a, b *Run, opt CompareOptions) *Comparison {
	if opt.Band == 0 {
		opt.Band = DefaultBand
	}
	c := &Comparison{
		DirA: a.Dir, DirB: b.Dir, LabelA: a.Manifest.Label, LabelB: b.Manifest.Label,
		Differ: differences(a, b), Warnings: warnings(a, b), Band: opt.Band, Summary: map[string]float64{},
	}
	sa, sb := a.Summarize(), b.Summarize()
	ignore := singleDiffering(a.Manifest.Cells, b.Manifest.Cells)
	varying := varyingFactors(append(slices.Clone(a.Manifest.Cells), b.Manifest.Cells...))
	varying = slices.DeleteFunc(varying, func(f string) bool { return slices.Contains(ignore, f) })
	paired := sameBlocks(a, b)
	if !paired {
		c.Warnings = append(c.Warnings, "blocks do not match (another seed, order or matrix): compared unpaired, wider intervals")
	}

	shown := []string{"tput", "p50", "p99"}
	for _, m := range opt.Metrics {
		if !slices.Contains(shown, m.Name) {
			shown = append(shown, m.Name)
		}
	}
	matchedB := map[*CellSummary]bool{}
	for _, name := range shown {
		m, err := MetricByName(name)
		if err != nil {
			continue // a metric made by hand: nothing to look up
		}
		var ratios []*Ratio
		var ok []float64
		for _, x := range sa.Part(m.Part) {
			y := counterpart(sb.Part(m.Part), x, ignore)
			if y == nil {
				continue
			}
			matchedB[y] = true
			cc := compareCell(x, y, m, paired, opt)
			if cc.Name = where(x.Cell, varying, ""); cc.Name == "" {
				cc.Name = x.ID
			}
			c.Cells = append(c.Cells, cc)
			ratios = append(ratios, &cc.Ratio)
		}
		holmOver(ratios)
		for _, r := range ratios {
			if r.Verdict != NotComparable {
				ok = append(ok, r.Value)
			}
		}
		if len(ok) > 0 {
			c.Summary[m.Name] = GeometricMean(ok)
		}
	}
	c.decide(opt.Metrics)
	c.warnUnmatched(sa, sb, ignore)
	return c
}

// decide marks the comparisons that count for the exit code.
func (c *Comparison) decide(metrics []Metric) {
	names := map[string]bool{}
	for _, m := range metrics {
		names[m.Name] = true
	}
	if len(names) == 0 {
		names["tput"] = slices.ContainsFunc(c.Cells, func(x *CellComparison) bool { return x.Metric.Name == "tput" })
		names["p99"] = !names["tput"]
	}
	for _, x := range c.Cells {
		x.Decides = names[x.Metric.Name]
	}
}

func (c *Comparison) warnUnmatched(sa, sb *Summary, ignore []string) {
	only := func(x, y *Summary, side string) {
		seen := map[string]bool{}
		for _, s := range x.Cells {
			if !seen[s.ID] && counterpart(y.Cells, s, ignore) == nil {
				seen[s.ID] = true
				c.Warnings = append(c.Warnings, fmt.Sprintf("only in %s: %s", side, s.ID))
			}
		}
	}
	only(sa, sb, "A")
	only(sb, sa, "B")
	if len(c.Cells) == 0 {
		c.Warnings = append(c.Warnings, "no cell is in both runs")
	}
}

// ExitCode is 1 when some deciding interval lies wholly below 1 − failIfSlower, else 3 when some
// deciding comparison cannot tell, else 0.
func (c *Comparison) ExitCode(failIfSlower float64) int {
	bound := 1 - failIfSlower
	code, any := 0, false
	for _, x := range c.Cells {
		if !x.Decides {
			continue
		}
		any = true
		iv := x.Ratio.Interval
		switch {
		case x.Ratio.Verdict == NotComparable || !iv.Known:
			code = max(code, 3)
		case iv.Hi < bound:
			return 1
		case iv.Lo < bound:
			code = max(code, 3)
		}
	}
	if !any {
		return 3
	}
	return code
}

func compareCell(x, y *CellSummary, m Metric, paired bool, opt CompareOptions) *CellComparison {
	band := opt.Band
	cc := &CellComparison{IDA: x.ID, IDB: y.ID, Metric: m, ClassA: x.Class, ClassB: y.Class}
	value := func(s *CellSummary) (vs, good []float64) {
		for _, rep := range s.counted {
			r := rep.Part(m.Part)
			vs, good = append(vs, m.pick(r)), append(good, m.goodness(r))
		}
		return vs, good
	}
	va, ga := value(x)
	vb, gb := value(y)
	cc.A, cc.B = finite(Median(va)), finite(Median(vb))
	refuse := func(why string) *CellComparison {
		cc.Ratio = Ratio{Verdict: NotComparable, Band: band}
		cc.Warnings = append(cc.Warnings, why)
		return cc
	}
	if opt.Stricter && y.Class.StricterThan(x.Class) {
		cc.Warnings = append(cc.Warnings, fmt.Sprintf("%s promises more than %s", y.Class, x.Class))
	} else if x.Class != y.Class {
		return refuse(fmt.Sprintf("durability %s against %s: another promise, not ranked", x.Class, y.Class))
	}
	switch {
	case x.OnlyInvalid:
		return refuse("no valid repetition in A: " + gateNames(x.Failed))
	case y.OnlyInvalid:
		return refuse("no valid repetition in B: " + gateNames(y.Failed))
	case x.Part == PartOpen && !near(x.Offered, y.Offered, 0.02):
		cc.Warnings = append(cc.Warnings, fmt.Sprintf("offered %s against %s: latencies at different loads", FormatRate(x.Offered), FormatRate(y.Offered)))
	}
	for _, s := range []*CellSummary{x, y} {
		if s.Valid < s.Reps {
			cc.Warnings = append(cc.Warnings, fmt.Sprintf("%d of %d repetitions left out: %s", s.Reps-s.Valid, s.Reps, gateNames(s.Failed)))
		}
	}
	if !paired {
		cc.Ratio = UnpairedRatio(ga, gb, band)
	} else {
		pa, pb, _ := pairs(x, y, m)
		cc.Ratio = PairedRatio(pa, pb, band)
	}
	if cc.Ratio.Verdict == NotComparable {
		cc.Warnings = append(cc.Warnings, "too few samples for "+m.Label)
	}
	return cc
}

func gateNames(gs []Gate) string {
	names := make([]string, len(gs))
	for i, g := range gs {
		names[i] = g.Name
	}
	if len(names) == 0 {
		return "no reason recorded"
	}
	return strings.Join(names, ", ")
}

func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

func near(a, b, rel float64) bool { return math.Abs(a-b) <= rel*max(math.Abs(a), math.Abs(b)) }

func counterpart(cells []*CellSummary, x *CellSummary, ignore []string) *CellSummary {
	for _, y := range cells {
		d := slices.DeleteFunc(differing(x.Cell, y.Cell), func(f string) bool { return slices.Contains(ignore, f) })
		if len(d) == 0 {
			return y
		}
	}
	return nil
}

// singleDiffering names factors that have one level throughout A and another one throughout B.
func singleDiffering(a, b []Cell) []string {
	only := func(cells []Cell, f string) (string, bool) {
		if len(cells) == 0 {
			return "", false
		}
		l := level(cells[0], f)
		for _, c := range cells[1:] {
			if level(c, f) != l {
				return "", false
			}
		}
		return l, true
	}
	var out []string
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	for _, f := range append(a[0].Factors(), b[0].Factors()...) {
		la, oka := only(a, f.Name)
		lb, okb := only(b, f.Name)
		if oka && okb && la != lb && !slices.Contains(out, f.Name) {
			out = append(out, f.Name)
		}
	}
	return out
}

// sameBlocks reports whether block k of A is the partner of block k of B: same seed, same order.
func sameBlocks(a, b *Run) bool {
	ma, mb := a.Manifest, b.Manifest
	if ma.Seed != mb.Seed || len(ma.Cells) != len(mb.Cells) {
		return false
	}
	for i := range min(len(ma.Order), len(mb.Order)) {
		if !slices.Equal(ma.Order[i], mb.Order[i]) {
			return false
		}
	}
	return len(ma.Order) > 0 && len(mb.Order) > 0
}

func differences(a, b *Run) []Difference {
	var ds []Difference
	add := func(name, x, y string) {
		if x != y {
			ds = append(ds, Difference{name, orNone(x), orNone(y)})
		}
	}
	ma, mb := a.Manifest, b.Manifest
	for _, f := range singleDiffering(ma.Cells, mb.Cells) {
		add(f, level(ma.Cells[0], f), level(mb.Cells[0], f))
	}
	add("label", ma.Label, mb.Label)
	add("version", ma.Version, mb.Version)
	add("duration", trimFloat(ma.DurS)+" s", trimFloat(mb.DurS)+" s")
	add("warm-up", trimFloat(ma.WarmupS)+" s", trimFloat(mb.WarmupS)+" s")
	add("repetitions", fmt.Sprint(ma.Reps), fmt.Sprint(mb.Reps))
	add("seed", fmt.Sprint(ma.Seed), fmt.Sprint(mb.Seed))
	add("max bytes", FormatSize(ma.MaxBytes), FormatSize(mb.MaxBytes))
	addMap(&ds, "config ", ma.Config, mb.Config)
	if a.Env != nil && b.Env != nil {
		ea, eb := a.Env, b.Env
		add("host", ea.Host.Name, eb.Host.Name)
		add("CPU", ea.Host.CPUModel, eb.Host.CPUModel)
		add("CPUs", fmt.Sprint(ea.Host.CPUs), fmt.Sprint(eb.Host.CPUs))
		add("RAM", FormatBytes(float64(ea.Host.RAMBytes)), FormatBytes(float64(eb.Host.RAMBytes)))
		add("kernel", ea.Host.Kernel, eb.Host.Kernel)
		add("file system", ea.Disk.FSType, eb.Disk.FSType)
		add("mount options", ea.Disk.MountOptions, eb.Disk.MountOptions)
		add("device", ea.Disk.Model, eb.Disk.Model)
		add("scheduler", ea.Disk.Scheduler, eb.Disk.Scheduler)
		add("Go", ea.Toolchain.Go, eb.Toolchain.Go)
		add("GOMAXPROCS", fmt.Sprint(ea.Toolchain.GOMAXPROCS), fmt.Sprint(eb.Toolchain.GOMAXPROCS))
		add("GOGC", ea.Toolchain.GOGC, eb.Toolchain.GOGC)
		add("GOMEMLIMIT", ea.Toolchain.GOMEMLIMIT, eb.Toolchain.GOMEMLIMIT)
		add("commit", ea.Toolchain.Commit, eb.Toolchain.Commit)
		addMap(&ds, "", ea.Host.Sysctl, eb.Host.Sysctl)
		addMap(&ds, "target ", ea.Target.Config, eb.Target.Config)
	}
	return ds
}

func addMap(ds *[]Difference, prefix string, a, b map[string]string) {
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	sort.Strings(sorted)
	for _, n := range sorted {
		if a[n] != b[n] {
			*ds = append(*ds, Difference{prefix + n, orNone(a[n]), orNone(b[n])})
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func warnings(a, b *Run) []string {
	var ws []string
	for _, s := range []struct {
		side string
		r    *Run
	}{{"A", a}, {"B", b}} {
		m := s.r.Manifest
		if !m.Complete {
			ws = append(ws, fmt.Sprintf("%s is incomplete: %s", s.side, orNone(m.Reason)))
		}
		if m.Smoke() {
			ws = append(ws, s.side+" is a smoke run: too short to judge by")
		}
		if s.r.Env != nil && s.r.Env.Toolchain.Dirty {
			ws = append(ws, s.side+" was built from changed sources")
		}
		for _, d := range s.r.Probe.Drifts() {
			if d.Ratio < 0.9 || d.Ratio > 1.1 {
				ws = append(ws, fmt.Sprintf("%s: the machine drifted: %s ×%.2f from start to end", s.side, d.Name, d.Ratio))
			}
		}
	}
	if !overlap(a.Manifest, b.Manifest) {
		gap := b.Manifest.Started.Sub(a.Manifest.Started).Abs().Round(time.Minute)
		ws = append(ws, fmt.Sprintf("measured %s apart: drift of the machine does not cancel", gap))
	}
	if a.Probe != nil && b.Probe != nil {
		for _, l := range a.Probe.Start.Limits {
			o, ok := b.Probe.Start.Find(l.Name)
			if ok && l.Value > 0 && o.Value > 0 && (o.Value/l.Value < 0.8 || o.Value/l.Value > 1.25) {
				ws = append(ws, fmt.Sprintf("probe differs: %s ×%.2f from A to B", l.Name, o.Value/l.Value))
			}
		}
	}
	return ws
}

func overlap(a, b *Manifest) bool {
	return a.Started.Before(b.Ended) && b.Started.Before(a.Ended)
}
