package report

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"rmq/results"
)

// Kind groups sentences; a smaller one is said first.
type kind int

const (
	kindTrouble kind = iota // what makes numbers doubtful
	kindHeadline
	kindEffect // within one durability class
	kindPrice  // across classes
	kindTail
)

// sentence is one thing worth saying, ranked by kind and then by weight.
type sentence struct {
	Kind   kind
	Weight float64
	Text   string
	Cell   *cellView // to jump to, may be nil
}

// sentences says what a reader should know, the most important first.
func (r *Renderer) sentences() []sentence {
	var ss []sentence
	ss = append(ss, r.troubles()...)
	for _, c := range r.classes() {
		if s, ok := r.headline(c); ok {
			ss = append(ss, s)
		}
	}
	for _, e := range results.MainEffects(r.effects) {
		if s, ok := r.effectSentence(e); ok {
			ss = append(ss, s)
		}
	}
	ss = append(ss, r.tails()...)
	sort.SliceStable(ss, func(i, j int) bool {
		if ss[i].Kind != ss[j].Kind {
			return ss[i].Kind < ss[j].Kind
		}
		return ss[i].Weight > ss[j].Weight
	})
	return ss
}

func (r *Renderer) troubles() []sentence {
	var ss []sentence
	add := func(w float64, format string, a ...any) {
		ss = append(ss, sentence{Kind: kindTrouble, Weight: w, Text: fmt.Sprintf(format, a...)})
	}
	m := r.run.Manifest
	if !m.Complete {
		add(100, "The run is incomplete (%s): what is here was measured, what is missing was not.", orUnknown(m.Reason))
	}
	if m.Smoke() {
		add(10, "Smoke run: %s s measured, %s. A sign of life, not a measurement.", fmt.Sprintf("%g", m.DurS), count(m.Reps, "block"))
	}
	ss = append(ss, r.invalid()...)
	if n := len(r.cells); n > 1 && len(r.effects) == 0 {
		add(45, "No effect of any factor is told: no two of %d cells that differ in one factor have valid repetitions.", n)
	}
	for _, d := range r.run.Probe.Drifts() {
		if d.Ratio < 0.9 || d.Ratio > 1.1 {
			add(40, "The machine drifted: %s %s at the start, %s at the end (×%.2f).", d.Name, limitValue(d.Start, d.Unit), limitValue(d.End, d.Unit), d.Ratio)
		}
	}
	return ss
}

// invalid tells of parts with left-out repetitions, those that failed the same gates together.
func (r *Renderer) invalid() []sentence {
	type group struct {
		first *cellView
		part  *results.CellSummary
		names []string
	}
	groups := map[string]*group{}
	var order []string
	for _, v := range r.cells {
		for _, p := range v.parts() {
			if p.Valid == p.Reps {
				continue
			}
			word := fmt.Sprintf("%d of %s left out", p.Reps-p.Valid, count(p.Reps, "repetition"))
			if p.OnlyInvalid {
				word = "INVALID"
			}
			key := fmt.Sprintf("%s, %s: ", word, partWord(p.Part))
			for _, g := range p.Failed {
				key += g.Name + "; "
			}
			g := groups[key]
			if g == nil {
				g = &group{first: v, part: p}
				groups[key] = g
				order = append(order, key)
			}
			g.names = append(g.names, v.Name)
		}
	}
	var ss []sentence
	for _, k := range order {
		g := groups[k]
		word, _, _ := strings.Cut(k, ":")
		text := fmt.Sprintf("%s: %s: %s.", upperFirst(g.names[0]), word, failedText(g.part.Failed))
		if len(g.names) > 1 {
			text = fmt.Sprintf("%d cells: %s: %s in %s; the same gates in %s.", len(g.names), word, failedText(g.part.Failed), g.names[0], strings.Join(g.names[1:], "; "))
		}
		s := sentence{Kind: kindTrouble, Weight: 50 + float64(len(g.names)), Text: text, Cell: g.first}
		if g.part.OnlyInvalid {
			s.Weight += 20
		}
		ss = append(ss, s)
	}
	return ss
}

func failedText(gs []results.Gate) string {
	var parts []string
	for _, g := range gs {
		t := g.Name + " " + g.Value + " (limit " + g.Limit + ")"
		if g.Note != "" {
			t += ", " + g.Note
		}
		parts = append(parts, t)
	}
	return strings.Join(parts, "; ")
}

// headline names the fastest valid cell of a class.
func (r *Renderer) headline(c results.Class) (sentence, bool) {
	var best *cellView
	for _, v := range r.cells {
		if v.Closed == nil || v.Closed.Class != c || v.Closed.OnlyInvalid {
			continue
		}
		if best == nil || v.Closed.Rate.Median > best.Closed.Rate.Median {
			best = v
		}
	}
	if best == nil {
		return r.openHeadline(c)
	}
	s := best.Closed
	text := fmt.Sprintf("%s (%s): up to %s%s msg/s with %s; ", c, c.Means(), results.FormatCount(s.Rate.Median), spaced(countInterval(s.Rate)), best.Name)
	if s.Limit != nil {
		text += limitText(s) + ", "
	}
	text += "bottleneck " + string(s.Bottleneck) + "."
	return sentence{Kind: kindHeadline, Weight: s.Rate.Median, Text: text, Cell: best}, true
}

func (r *Renderer) openHeadline(c results.Class) (sentence, bool) {
	for _, v := range r.cells {
		if s := v.Open; s != nil && s.Class == c && !s.OnlyInvalid {
			return sentence{
				Kind: kindHeadline, Weight: s.Rate.Median, Cell: v,
				Text: fmt.Sprintf("%s (%s): response p50 %s, p99 %s at %s with %s.", c, c.Means(), results.FormatUS(s.P50.Median), results.FormatUS(s.P99.Median), results.FormatRate(s.Rate.Median), v.Name),
			}, true
		}
	}
	for _, v := range r.ranked(c, results.PartClosed) {
		s := v.Closed
		return sentence{
			Kind: kindHeadline, Cell: v,
			Text: fmt.Sprintf("%s (%s): no valid repetition of any cell; the highest invalid rate is %s with %s.", c, c.Means(), results.FormatRate(s.Rate.Median), v.Name),
		}, true
	}
	return sentence{}, false
}

func (r *Renderer) effectSentence(e *results.Effect) (sentence, bool) {
	if e.Ratio.Verdict == results.NotComparable {
		return sentence{}, false
	}
	what := map[string]string{"tput": "the rate", "p50": "the response p50", "p99": "the response p99"}[e.Metric.Name]
	// The ratio is oriented so that above one is better; say latencies as they are.
	v, iv := e.Ratio.Value, e.Ratio.Interval
	if e.Metric.Lower {
		v, iv = 1/v, results.Interval{Lo: 1 / iv.Hi, Hi: 1 / iv.Lo, Known: iv.Known}
		what += " (each at half its own maximum)"
		if e.Metric.Name == "p50" || e.SameClass() && e.Ratio.Verdict == results.Inconclusive {
			return sentence{}, false // the table has it
		}
	}
	text := fmt.Sprintf("%s instead of %s", upperFirst(phrase(e.Factor, e.To)), phrase(e.Factor, e.From))
	if e.Cells > 0 {
		if e.SameClass() && len(r.classes()) > 1 {
			text += fmt.Sprintf(" (%s, %s)", e.ToSide, count(e.Cells, "setting"))
		} else {
			text += fmt.Sprintf(" (%s)", count(e.Cells, "setting"))
		}
	} else if w := r.whereOf(e); w != "" {
		text += " (" + w + ")"
	}
	text += fmt.Sprintf(": ×%.2f %s%s", v, what, spaced(interval(iv, ratioText)))
	if e.Cells > 0 {
		least, most := e.Least, e.Most
		if e.Metric.Lower {
			least, most = 1/most, 1/least
		}
		text += fmt.Sprintf(", ×%.2f to ×%.2f by setting", least, most)
	}
	s := sentence{Kind: kindEffect, Weight: math.Abs(math.Log(e.Ratio.Value)), Cell: r.byID(e.ToID)}
	if !e.SameClass() {
		s.Kind = kindPrice
		s.Text = text + fmt.Sprintf(". The price of %s over %s, not a ranking.", e.ToSide, e.FromSide)
		return s, e.Metric.Name == "tput"
	}
	if e.Ratio.Verdict == results.Same || e.Ratio.Verdict == results.Inconclusive {
		s.Weight /= 10
	}
	if e.Metric.Lower {
		s.Weight /= 2
	}
	s.Text = text + ", " + verdictText(e.Ratio) + "."
	return s, true
}

// whereOf names the other varying factors of an effect in words.
func (r *Renderer) whereOf(e *results.Effect) string {
	v := r.byID(e.ToID)
	if v == nil {
		return e.Where
	}
	others := slices.DeleteFunc(slices.Clone(r.varying), func(f string) bool { return f == e.Factor })
	if len(others) == 0 {
		return ""
	}
	return shortName(v.Cell, others)
}

func (r *Renderer) byID(id string) *cellView {
	for _, v := range r.cells {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// tails names the worst stall and what stands out at the device.
func (r *Renderer) tails() []sentence {
	var ss []sentence
	var worst *cellView
	for _, v := range r.cells {
		if v.Open != nil && !v.Open.OnlyInvalid && (worst == nil || v.Open.Max > worst.Open.Max) {
			worst = v
		}
	}
	if worst != nil {
		text := fmt.Sprintf("Slowest response at half load: %s with %s", results.FormatUS(worst.Open.Max), worst.Name)
		if c := worstCause(worst.Open); c != "" {
			text += ", during " + c
		}
		ss = append(ss, sentence{Kind: kindTail, Weight: 2, Text: text + ".", Cell: worst})
	}
	for _, v := range r.cells {
		if s := v.any(); s != nil && s.WriteAmp != nil && *s.WriteAmp > 1.3 && s.GroupSize >= 8 {
			ss = append(ss, sentence{Kind: kindTail, Weight: *s.WriteAmp, Cell: v, Text: fmt.Sprintf("%s: the device wrote %.1f bytes for each byte of log.", upperFirst(v.Name), *s.WriteAmp)})
		}
	}
	return ss
}

func worstCause(s *results.CellSummary) string {
	var best results.Sample
	for _, rep := range s.Counted() {
		if w := rep.Part(s.Part).Worst; len(w) > 0 && w[0].ResponseUS > best.ResponseUS {
			best = w[0]
		}
	}
	return best.Cause
}

func partWord(p results.Part) string {
	if p == results.PartOpen {
		return "open loop"
	}
	return "closed loop"
}

func limitValue(v float64, unit string) string {
	switch unit {
	case "us":
		return results.FormatUS(v)
	case "B/s":
		return results.FormatBytes(v) + "/s"
	case "B":
		return results.FormatBytes(v)
	case "msg/s":
		return results.FormatRate(v)
	case "1/s":
		return results.FormatCount(v) + "/s"
	}
	return strings.TrimSpace(results.FormatCount(v) + " " + unit)
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func orUnknown(s string) string {
	if s == "" {
		return "no reason recorded"
	}
	return s
}
