package results

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// Summary is a run boiled down to one entry per cell and part.
type Summary struct {
	Cells []*CellSummary `json:"cells"`
}

// CellSummary is one part of one cell over its repetitions.
type CellSummary struct {
	ID        string `json:"id"`
	Cell      Cell   `json:"cell"`
	Part      Part   `json:"part"`
	Class     Class  `json:"durability_class"`
	ClassNote string `json:"durability_note,omitempty"`
	Reps      int    `json:"reps"`  // that ran
	Valid     int    `json:"valid"` // that count
	// OnlyInvalid: no repetition is valid, so the values below are of invalid ones. They are shown
	// with that word and take part in no comparison.
	OnlyInvalid bool `json:"only_invalid,omitempty"`

	Rate    Estimate `json:"acked_per_s"`
	LogRate float64  `json:"log_bytes_per_s,omitempty"` // median
	Offered float64  `json:"offered_per_s,omitempty"`
	P50     Estimate `json:"response_p50_us"`
	P99     Estimate `json:"response_p99_us"`
	P999    Estimate `json:"response_p99_9_us,omitzero"`
	Max     float64  `json:"response_max_us"` // of all counted repetitions
	SvcP50  float64  `json:"service_p50_us"`
	SvcP99  float64  `json:"service_p99_us"`
	QueP50  float64  `json:"queueing_p50_us,omitempty"`
	QueP99  float64  `json:"queueing_p99_us,omitempty"`
	PaceP99 float64  `json:"pacing_p99_us,omitempty"`
	Samples int64    `json:"samples"`     // of all counted repetitions
	LeastN  int64    `json:"least_n"`     // of the smallest counted repetition
	Little  float64  `json:"little"`      // rate × mean service time
	InFly   int      `json:"outstanding"` // most in flight

	Limit      *LimitLine `json:"limit,omitempty"` // with the median share
	Bottleneck Bottleneck `json:"bottleneck"`
	Why        string     `json:"why,omitempty"`

	WriteAmp    *float64 `json:"device_bytes_per_log_byte,omitempty"`
	GroupSize   float64  `json:"group_size,omitempty"`
	CPUSPerM    *float64 `json:"cpu_s_per_million,omitempty"`
	BytesPerM   *float64 `json:"dev_bytes_per_million,omitempty"`
	FlushesPerM *float64 `json:"flushes_per_million,omitempty"`

	// Of the target's own processes and of consumers beside the load, where there were any.
	TargetCPUSPerM  *float64 `json:"target_cpu_s_per_million,omitempty"`
	TargetCallsPerM *float64 `json:"target_syscalls_per_million,omitempty"`
	TargetRSS       int64    `json:"target_rss_max_bytes,omitempty"`      // of all counted repetitions
	TargetRSSAnon   int64    `json:"target_rss_anon_max_bytes,omitempty"` // of all counted repetitions
	ConsumedPerS    float64  `json:"consumed_per_s,omitempty"`
	E2EP50          float64  `json:"e2e_p50_us,omitempty"`
	E2EP99          float64  `json:"e2e_p99_us,omitempty"`

	Replication *ReplicationSummary `json:"replication,omitempty"` // nil where the log is on one node only

	Failed     []Gate   `json:"failed_gates,omitempty"`     // one per name
	Unverified []string `json:"unverified_gates,omitempty"` // names
	Notes      []string `json:"notes,omitempty"`
	counted    []*Rep
	byBlock    map[int]*Result
}

// ReplicationSummary is what the nodes of a cell told, over its repetitions.
type ReplicationSummary struct {
	LagMaxBytes       int64        `json:"lag_max_bytes"`       // of all counted repetitions
	UnflushedMaxBytes int64        `json:"unflushed_max_bytes"` // of all counted repetitions
	CatchUpS          float64      `json:"catch_up_s"`          // median
	Hops              []ReplicaHop `json:"hops,omitempty"`      // medians of the means
	// MaxRatio is bytes written by bytes of log of the node that wrote most, median.
	MaxRatio *float64 `json:"max_written_per_log_byte,omitempty"`
	Nodes    int      `json:"nodes,omitempty"`
}

// Counted lists the repetitions that the summary stands on.
func (s *CellSummary) Counted() []*Rep { return s.counted }

// Summarize boils a run down. Cells keep the order of the matrix, the closed part first.
func (r *Run) Summarize() *Summary {
	s := new(Summary)
	for _, c := range r.Cells {
		for _, p := range []Part{PartClosed, PartOpen} {
			if cs := summarizeCell(c, p); cs != nil {
				s.Cells = append(s.Cells, cs)
			}
		}
	}
	return s
}

// Part lists the entries of one part.
func (s *Summary) Part(p Part) []*CellSummary {
	var cs []*CellSummary
	for _, c := range s.Cells {
		if c.Part == p {
			cs = append(cs, c)
		}
	}
	return cs
}

// Find returns the entry of a cell's part, or nil.
func (s *Summary) Find(id string, p Part) *CellSummary {
	for _, c := range s.Cells {
		if c.ID == id && c.Part == p {
			return c
		}
	}
	return nil
}

func summarizeCell(c *CellRuns, p Part) *CellSummary {
	s := &CellSummary{ID: c.Cell.ID(), Cell: c.Cell, Part: p, byBlock: map[int]*Result{}}
	var valid, all []*Rep
	for _, rep := range c.Reps {
		res := rep.Part(p)
		if res == nil {
			continue
		}
		all = append(all, rep)
		if res.Valid {
			valid = append(valid, rep)
		}
		s.addGates(res)
		for _, n := range res.Notes {
			s.addNote(n)
		}
		for _, ph := range res.Phases {
			if ph.Note != "" {
				s.addNote(ph.Name + ": " + ph.Note)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	s.Reps, s.Valid = len(all), len(valid)
	s.counted = valid
	if len(valid) == 0 {
		s.counted, s.OnlyInvalid = all, true
	}
	for _, rep := range s.counted {
		s.byBlock[rep.Block] = rep.Part(p)
	}
	s.fill()
	return s
}

func (s *CellSummary) fill() {
	col := func(f func(*Result) float64) []float64 {
		xs := make([]float64, len(s.counted))
		for i, rep := range s.counted {
			xs[i] = f(rep.Part(s.Part))
		}
		return xs
	}
	med := func(f func(*Result) float64) float64 { return Median(col(f)) }

	first := s.counted[0].Part(s.Part)
	s.Class, s.ClassNote, s.InFly = first.Class, first.ClassNote, first.Load.Outstanding
	s.Rate = EstimateOf(col(func(r *Result) float64 { return r.Throughput.AckedPerS }))
	s.LogRate = med(func(r *Result) float64 { return r.Throughput.LogBytesPerS })
	if s.Part == PartOpen {
		s.Offered = med(func(r *Result) float64 { return r.Throughput.OfferedPerS })
	}
	s.P50 = EstimateOf(col(func(r *Result) float64 { return r.Latency.Response.P50 }))
	s.P99 = EstimateOf(col(func(r *Result) float64 { return r.Latency.Response.P99 }))
	s.LeastN = math.MaxInt64
	for _, rep := range s.counted {
		l := rep.Part(s.Part).Latency.Response
		s.Max = max(s.Max, l.Max)
		s.Samples += l.N
		s.LeastN = min(s.LeastN, l.N)
	}
	if SupportsPercentile(99.9, s.LeastN) {
		s.P999 = EstimateOf(col(func(r *Result) float64 { return r.Latency.Response.P999 }))
	}
	s.SvcP50 = med(func(r *Result) float64 { return r.Latency.Service.P50 })
	s.SvcP99 = med(func(r *Result) float64 { return r.Latency.Service.P99 })
	if first.Latency.Queueing != nil {
		opt := func(q func(*Latency) float64) float64 {
			return med(func(r *Result) float64 {
				if r.Latency.Queueing == nil {
					return 0
				}
				return q(r.Latency.Queueing)
			})
		}
		s.QueP50 = opt(func(l *Latency) float64 { return l.P50 })
		s.QueP99 = opt(func(l *Latency) float64 { return l.P99 })
	}
	if first.Pacing != nil {
		s.PaceP99 = med(func(r *Result) float64 {
			if r.Pacing == nil {
				return 0
			}
			return r.Pacing.P99
		})
	}
	s.Little = med(func(r *Result) float64 { return r.Throughput.AckedPerS * r.Latency.Service.Mean / 1e6 })
	s.fillLimit()
	s.fillCost()
	s.fillReplication()
}

func (s *CellSummary) fillReplication() {
	var catchUp, ratios []float64
	hops := map[string][]float64{}
	counts := map[string]int64{}
	var order []string
	for _, rep := range s.counted {
		r := rep.Part(s.Part).Replication
		if r == nil {
			continue
		}
		if s.Replication == nil {
			s.Replication = &ReplicationSummary{}
		}
		t := s.Replication
		t.LagMaxBytes, t.UnflushedMaxBytes, t.Nodes = max(t.LagMaxBytes, r.LagMaxBytes), max(t.UnflushedMaxBytes, r.UnflushedMaxBytes), max(t.Nodes, len(r.Nodes))
		catchUp = append(catchUp, r.CatchUpS)
		if q := r.MaxRatio(); q != nil {
			ratios = append(ratios, *q)
		}
		for _, h := range r.Hops {
			if hops[h.Name] == nil {
				order = append(order, h.Name)
			}
			hops[h.Name] = append(hops[h.Name], h.MeanUS)
			counts[h.Name] += h.N
		}
	}
	if s.Replication == nil {
		return
	}
	s.Replication.CatchUpS = Median(catchUp)
	if len(ratios) > 0 {
		s.Replication.MaxRatio = Ptr(Median(ratios))
	}
	for _, name := range order {
		s.Replication.Hops = append(s.Replication.Hops, ReplicaHop{Name: name, N: counts[name], MeanUS: Median(hops[name])})
	}
}

// fillLimit takes the limit that most repetitions came nearest to, with the median of its share,
// and the word that most repetitions carry.
func (s *CellSummary) fillLimit() {
	names, words := map[string]int{}, map[string]int{}
	for _, rep := range s.counted {
		l := rep.Part(s.Part).Limits
		if m := l.Main(); m != nil {
			names[m.Label]++
		}
		words[string(l.Bottleneck)]++
	}
	s.Bottleneck = Bottleneck(mostCommon(words))
	for _, rep := range s.counted {
		if l := rep.Part(s.Part).Limits; l.Bottleneck == s.Bottleneck {
			s.Why = l.Why
			break
		}
	}
	label := mostCommon(names)
	if label == "" {
		return
	}
	var fracs, values []float64
	var line LimitLine
	for _, rep := range s.counted {
		for _, l := range rep.Part(s.Part).Limits.Lines {
			if l.Label == label && l.Fraction > 0 {
				line = l
				fracs, values = append(fracs, l.Fraction), append(values, l.Used)
			}
		}
	}
	line.Fraction, line.Used = Median(fracs), Median(values)
	s.Limit = &line
}

func (s *CellSummary) fillCost() {
	perMillion := func(f func(*Result) *float64) *float64 {
		var xs []float64
		for _, rep := range s.counted {
			r := rep.Part(s.Part)
			if v := f(r); v != nil && r.Counts.Acked > 0 {
				xs = append(xs, *v*1e6/float64(r.Counts.Acked))
			}
		}
		if len(xs) == 0 {
			return nil
		}
		return Ptr(Median(xs))
	}
	asFloat := func(v *int64) *float64 {
		if v == nil {
			return nil
		}
		return Ptr(float64(*v))
	}
	s.CPUSPerM = perMillion(func(r *Result) *float64 { return r.Resources.ProcCPUS })
	s.BytesPerM = perMillion(func(r *Result) *float64 { return asFloat(r.Resources.DevWriteBytes) })
	s.FlushesPerM = perMillion(func(r *Result) *float64 { return asFloat(r.Resources.EngineFlushes) })
	s.TargetCPUSPerM = perMillion(func(r *Result) *float64 { return r.Resources.TargetCPUS })
	s.TargetCallsPerM = perMillion(func(r *Result) *float64 { return asFloat(r.Resources.TargetSyscalls) })
	var consumed, e2e50, e2e99 []float64
	for _, rep := range s.counted {
		r := rep.Part(s.Part)
		s.TargetRSS, s.TargetRSSAnon = max(s.TargetRSS, r.Resources.TargetRSSMaxBytes), max(s.TargetRSSAnon, r.Resources.TargetRSSAnonMaxBytes)
		if e := r.Latency.EndToEnd; e != nil {
			consumed, e2e50, e2e99 = append(consumed, r.Throughput.ConsumedPerS), append(e2e50, e.P50), append(e2e99, e.P99)
		}
	}
	if len(consumed) > 0 {
		s.ConsumedPerS, s.E2EP50, s.E2EP99 = Median(consumed), Median(e2e50), Median(e2e99)
	}
	var amps, groups []float64
	for _, rep := range s.counted {
		r := rep.Part(s.Part)
		if a := r.WriteAmplification(); a != nil {
			amps = append(amps, *a)
		}
		if g, ok := r.GroupSize(); ok {
			groups = append(groups, g)
		}
	}
	if len(amps) > 0 {
		s.WriteAmp = Ptr(Median(amps))
	}
	if len(groups) > 0 {
		s.GroupSize = Median(groups)
	}
}

func (s *CellSummary) addGates(r *Result) {
	for _, g := range r.FailedGates() {
		known := false
		for _, f := range s.Failed {
			known = known || f.Name == g.Name
		}
		if !known {
			s.Failed = append(s.Failed, g)
		}
	}
	for _, g := range r.UnverifiedGates() {
		known := false
		for _, n := range s.Unverified {
			known = known || n == g.Name
		}
		if !known {
			s.Unverified = append(s.Unverified, g.Name)
		}
	}
}

func (s *CellSummary) addNote(n string) {
	for _, have := range s.Notes {
		if have == n {
			return
		}
	}
	s.Notes = append(s.Notes, n)
}

// Validity is the word for how far the numbers may be trusted: VALID, VALID (k of n), INVALID.
func (s *CellSummary) Validity() string {
	switch {
	case s.OnlyInvalid:
		return "INVALID"
	case s.Valid < s.Reps:
		return fmt.Sprintf("VALID (%d of %d)", s.Valid, s.Reps)
	}
	return "VALID"
}

func mostCommon(m map[string]int) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	best := ""
	for _, k := range keys {
		if best == "" || m[k] > m[best] {
			best = k
		}
	}
	return best
}

// Effect is what one step of one factor does to a number, all other factors equal.
type Effect struct {
	Factor   string `json:"factor"`
	From     string `json:"from"`
	To       string `json:"to"`
	Metric   Metric `json:"metric"`
	Where    string `json:"where"` // the cell less the factor, as far as others vary; "" when none does
	Ratio    Ratio  `json:"ratio"`
	FromID   string `json:"from_id"`
	ToID     string `json:"to_id"`
	FromSide Class  `json:"from_class"`
	ToSide   Class  `json:"to_class"`
	// Cells is how many settings of the other factors a main effect stands on, Least and Most the
	// range of their ratios. All are zero for the effect at one setting.
	Cells int     `json:"cells,omitempty"`
	Least float64 `json:"least,omitempty"`
	Most  float64 `json:"most,omitempty"`

	logs map[int]float64 // log-ratio by block
}

// SameClass reports whether both sides promise the same. Where they do not, the ratio is a price,
// not a rank.
func (e *Effect) SameClass() bool { return e.FromSide == e.ToSide }

// Effects compares, within each block, every level of every factor with that factor's first level,
// and every replication mode with all before it, all other factors equal. Invalid repetitions take no part. The p values are corrected over all
// of the effects together.
func (r *Run) Effects(s *Summary, m Metric, band float64) []*Effect {
	varying := varyingFactors(r.Manifest.Cells)
	var es []*Effect
	cells := s.Part(m.Part)
	for _, f := range varying {
		for _, to := range cells {
			for _, from := range siblings(cells, to, f) {
				if from.OnlyInvalid || to.OnlyInvalid {
					continue
				}
				a, b, blocks := pairs(from, to, m)
				e := &Effect{
					logs:   logRatios(a, b, blocks),
					Factor: f, From: level(from.Cell, f), To: level(to.Cell, f), Metric: m,
					Where: where(to.Cell, varying, f), Ratio: PairedRatio(a, b, band),
					FromID: from.ID, ToID: to.ID, FromSide: from.Class, ToSide: to.Class,
				}
				es = append(es, e)
			}
		}
	}
	correct(es)
	return es
}

// MainEffects boils effects down to one for each step of each factor within each pair of
// durability classes: the mean log-ratio over the settings of the other factors, block by block,
// over the blocks that all of them have.
func MainEffects(es []*Effect) []*Effect {
	type key struct {
		factor, from, to, metric string
		a, b                     Class
	}
	groups := map[key][]*Effect{}
	var order []key
	for _, e := range es {
		if e.Ratio.Verdict == NotComparable {
			continue
		}
		k := key{e.Factor, e.From, e.To, e.Metric.Name, e.FromSide, e.ToSide}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], e)
	}
	var out []*Effect
	for _, k := range order {
		g := groups[k]
		if len(g) == 1 {
			one := *g[0]
			out = append(out, &one)
			continue
		}
		m := &Effect{Factor: k.factor, From: k.from, To: k.to, Metric: g[0].Metric, FromID: g[0].FromID, ToID: g[0].ToID, FromSide: k.a, ToSide: k.b, Cells: len(g)}
		var means []float64
		for block := range g[0].logs {
			sum, n := 0.0, 0
			for _, e := range g {
				if l, ok := e.logs[block]; ok {
					sum, n = sum+l, n+1
				}
			}
			if n == len(g) {
				means = append(means, sum/float64(n))
			}
		}
		if len(means) == 0 {
			continue
		}
		sort.Float64s(means)
		m.Ratio = ratioOfLogs(means, g[0].Ratio.Band)
		m.Least, m.Most = math.Inf(1), 0
		for _, e := range g {
			m.Least, m.Most = min(m.Least, e.Ratio.Value), max(m.Most, e.Ratio.Value)
		}
		out = append(out, m)
	}
	correct(out)
	return out
}

// correct applies Holm's correction within each metric.
func correct(es []*Effect) {
	byMetric := map[string][]*Ratio{}
	for _, e := range es {
		byMetric[e.Metric.Name] = append(byMetric[e.Metric.Name], &e.Ratio)
	}
	for _, rs := range byMetric {
		holmOver(rs)
	}
}

func logRatios(a, b []float64, blocks []int) map[int]float64 {
	ls := map[int]float64{}
	for i, k := range blocks {
		if a[i] > 0 && b[i] > 0 {
			ls[k] = math.Log(b[i] / a[i])
		}
	}
	return ls
}

// siblings are the cells before c that differ from it in factor f only: the one with f's first level, or all of them
// where each step has a price of its own, which is so between replication modes.
func siblings(cells []*CellSummary, c *CellSummary, f string) []*CellSummary {
	var out []*CellSummary
	for _, o := range cells {
		if o == c {
			break
		}
		if d := differing(o.Cell, c.Cell); len(d) == 1 && d[0] == f {
			if out = append(out, o); f != "repl" {
				break
			}
		}
	}
	return out
}

// pairs lines up two cells by block, oriented so that a larger b is better.
func pairs(from, to *CellSummary, m Metric) (a, b []float64, blocks []int) {
	for k := range from.byBlock {
		if to.byBlock[k] != nil {
			blocks = append(blocks, k)
		}
	}
	sort.Ints(blocks)
	for _, k := range blocks {
		a = append(a, m.goodness(from.byBlock[k]))
		b = append(b, m.goodness(to.byBlock[k]))
	}
	return a, b, blocks
}

// varyingFactors names the factors in which any cell differs from the first.
func varyingFactors(cells []Cell) []string {
	if len(cells) == 0 {
		return nil
	}
	varies := map[string]bool{}
	var names []string
	for _, c := range cells {
		for _, f := range c.Factors() {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
		for _, f := range differing(cells[0], c) {
			varies[f] = true
		}
	}
	return slices.DeleteFunc(names, func(f string) bool { return !varies[f] })
}

// VaryingFactors names the factors with more than one level, in the order of the matrix.
func (r *Run) VaryingFactors() []string { return varyingFactors(r.Manifest.Cells) }

// unsaid are the levels of extra factors in cells that do not name them.
var unsaid = map[string]string{"batch": "1", "header": "json", "target": "own"}

func level(c Cell, factor string) string {
	for _, f := range c.Factors() {
		if f.Name == factor {
			return f.Level
		}
	}
	return unsaid[factor]
}

// Level is the cell's level of a factor as text, "" when it has no such factor.
func (c Cell) Level(factor string) string { return level(c, factor) }

// differing names the factors in which two cells differ.
func differing(a, b Cell) []string {
	var out []string
	for _, f := range append(a.Factors(), b.Factors()...) {
		if !slices.Contains(out, f.Name) && level(a, f.Name) != level(b, f.Name) {
			out = append(out, f.Name)
		}
	}
	return out
}

func where(c Cell, varying []string, except string) string {
	var parts []string
	for _, f := range varying {
		if f != except {
			parts = append(parts, f+" "+level(c, f))
		}
	}
	return strings.Join(parts, ", ")
}
