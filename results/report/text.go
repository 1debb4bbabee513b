package report

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"rmq/results"
)

// Text writes the terminal screen: one block for a single cell, tables and ranked sentences for
// a matrix.
func (r *Renderer) Text(w io.Writer) error {
	var b strings.Builder
	if len(r.cells) == 1 && r.cells[0].ran() {
		r.textCell(&b, r.cells[0])
	} else if err := r.textMatrix(&b); err != nil {
		return err
	}
	r.textFoot(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// textHead is the first line: what, how often, whether it counts.
func (r *Renderer) textHead(b *strings.Builder) {
	m := r.run.Manifest
	label := ""
	if m.Label != "" {
		label = "   " + strings.ToUpper(m.Label)
	}
	fmt.Fprintf(b, "rmqbench %s   %s, %s, seed %d   %s%s\n", m.RunID, count(len(m.Cells), "cell"), count(m.Reps, "block"), m.Seed, r.status(), label)
}

// textCell is the screen of a single cell.
func (r *Renderer) textCell(b *strings.Builder, v *cellView) {
	c, s := v.Cell, v.any()
	r.textHead(b)
	fmt.Fprintf(b, "commitlog %s_FLUSH + %s, %s, %s, %s × window %d, %s\n",
		strings.ToUpper(c.Flush), c.Repl, phrase("topics", fmt.Sprint(c.Topics)), results.FormatSize(int64(c.SizeBytes)),
		phrase("producers", fmt.Sprint(c.Producers)), c.Window, phrase("write", c.Write))
	fmt.Fprintf(b, "%s   %s   durability %s (%s)\n\n", count(s.Reps, "run"), s.Validity(), s.Class, s.Class.Means())
	line := func(name, format string, a ...any) { fmt.Fprintf(b, "%-12s %s\n", name, fmt.Sprintf(format, a...)) }
	if p := v.Closed; p != nil {
		rate := countEstimate(p.Rate) + " msg/s"
		if c := p.Cell; c.Driver == "embedded" && (c.Repl != "none" || c.Extra["path"] != "") {
			rate += fmt.Sprintf("  %.0f MB/s of log", p.LogRate/1e6)
		}
		line("throughput", "%s    %s    bottleneck: %s", rate, limitText(p), p.Bottleneck)
		line("", "closed loop, %d outstanding; rate × service time = %.0f", p.InFly, p.Little)
		line("service", "p50 %s  p99 %s  p99.9 %s  max %s    (n = %s)", results.FormatUS(p.P50.Median), results.FormatUS(p.P99.Median), p999Text(p), results.FormatUS(p.Max), results.FormatCount(float64(p.Samples)))
	}
	if p := v.Open; p != nil {
		line("open loop", "%s offered, %s acked", results.FormatRate(p.Offered), results.FormatRate(p.Rate.Median))
		line("response", "p50 %s  p99 %s  p99.9 %s  max %s    (from due time, n = %s)", results.FormatUS(p.P50.Median), results.FormatUS(p.P99.Median), p999Text(p), results.FormatUS(p.Max), results.FormatCount(float64(p.Samples)))
		line("service", "p50 %s  p99 %s", results.FormatUS(p.SvcP50), results.FormatUS(p.SvcP99))
		line("queueing", "p50 %s  p99 %s    pacing error p99 %s", results.FormatUS(p.QueP50), results.FormatUS(p.QueP99), results.FormatUS(p.PaceP99))
	}
	line("cost", "%s, %s written, %s flushes per million messages    device/log bytes %s",
		optText(s.CPUSPerM, func(x float64) string { return fmt.Sprintf("%.2f cpu-s", x) }), optText(s.BytesPerM, results.FormatBytes), optText(s.FlushesPerM, results.FormatCount),
		optText(s.WriteAmp, ratioText))
	if s.TargetCPUSPerM != nil {
		line("target", "%s of CPU a message, %s, RSS %s (without page cache %s)", cpuText(s), callsText(s),
			results.FormatBytes(float64(s.TargetRSS)), results.FormatBytes(float64(s.TargetRSSAnon)))
	}
	if q := s.Replication; q != nil {
		line("replicas", "%d nodes; at most %s not synced (W) and %s not copied (L); caught up %s after the end; written/log %s", q.Nodes,
			results.FormatBytes(float64(q.UnflushedMaxBytes)), results.FormatBytes(float64(q.LagMaxBytes)), results.FormatUS(q.CatchUpS*1e6), optText(q.MaxRatio, ratioText))
		var hops []string
		for _, h := range q.Hops {
			hops = append(hops, h.Name+" "+results.FormatUS(h.MeanUS))
		}
		if len(hops) > 0 {
			line("hops", "%s    (means, as the leader sees them)", strings.Join(hops, "  "))
		}
	}
	if s.E2EP50 > 0 {
		line("consumed", "%s    due time to consumer p50 %s  p99 %s", results.FormatRate(s.ConsumedPerS), results.FormatUS(s.E2EP50), results.FormatUS(s.E2EP99))
	}
	b.WriteString("\n")
}

// cpuText is the CPU time of the target's processes for one message.
func cpuText(s *results.CellSummary) string {
	return optText(s.TargetCPUSPerM, results.FormatUS) // seconds a million are microseconds each
}

// callsText is how many reads and writes the target's processes made for one message.
func callsText(s *results.CellSummary) string {
	return optText(s.TargetCallsPerM, func(x float64) string { return results.FormatSig3(x/1e6) + " calls" })
}

// targetTable is what the target's own processes took, and what consumers beside the load saw; without
// rows where there is neither.
func (r *Renderer) targetTable(class results.Class) *table {
	t := &table{head: append(r.factorHeads(), "<part", "CPU/msg", "calls/msg", "RSS", "without cache", "consumed/s", "e2e p50", "e2e p99")}
	for _, v := range r.cells {
		for _, s := range v.parts() {
			if s.Class != class || s.TargetCPUSPerM == nil && s.E2EP50 == 0 {
				continue
			}
			consumed, p50, p99 := "–", "–", "–"
			if s.E2EP50 > 0 {
				consumed, p50, p99 = results.FormatRate(s.ConsumedPerS), results.FormatUS(s.E2EP50), results.FormatUS(s.E2EP99)
			}
			t.add(append(r.factorCells(v), string(s.Part), cpuText(s), callsText(s), results.FormatBytes(float64(s.TargetRSS)),
				results.FormatBytes(float64(s.TargetRSSAnon)), consumed, p50, p99)...)
		}
	}
	return t
}

// maxTable is the closed part: what the cell can do at most.
func (r *Renderer) maxTable(class results.Class) *table {
	t := &table{head: append(r.factorHeads(), "<msg/s [95 %]", "share", "<of limit", "<bottleneck", "svc p99", "dev/log", "<valid")}
	for _, v := range r.ranked(class, results.PartClosed) {
		s := v.Closed
		t.add(append(r.factorCells(v), countEstimate(s.Rate), limitShare(s), limitLabel(s), string(s.Bottleneck),
			results.FormatUS(s.SvcP99), optText(s.WriteAmp, ratioText), s.Validity())...)
	}
	return t
}

// latencyTable is the open part.
func (r *Renderer) latencyTable(class results.Class) *table {
	t := &table{head: append(r.factorHeads(), "offered/s", "acked/s", "share", "<of limit", "p50", "p99", "p99.9", "max", "svc p99", "queue p99", "<valid")}
	for _, v := range r.ranked(class, results.PartOpen) {
		s := v.Open
		t.add(append(r.factorCells(v), results.FormatCount(s.Offered), results.FormatCount(s.Rate.Median), limitShare(s), limitLabel(s), results.FormatUS(s.P50.Median), results.FormatUS(s.P99.Median),
			p999Text(s), results.FormatUS(s.Max), results.FormatUS(s.SvcP99), results.FormatUS(s.QueP99), s.Validity())...)
	}
	return t
}

// factorHeads and factorCells give one column to each factor that varies, or one to the cell.
func (r *Renderer) factorHeads() []string {
	if len(r.varying) == 0 {
		return []string{"<cell"}
	}
	return slices.Clone(r.varying)
}

func (r *Renderer) factorCells(v *cellView) []string {
	if len(r.varying) == 0 {
		return []string{v.Name}
	}
	var cs []string
	for _, f := range r.varying {
		l := v.Cell.Level(f)
		if l == "" {
			l = "–"
		}
		cs = append(cs, l)
	}
	return cs
}

// ranked lists the cells of a class by the part's headline, invalid ones last.
func (r *Renderer) ranked(class results.Class, p results.Part) []*cellView {
	part := func(v *cellView) *results.CellSummary {
		if p == results.PartClosed {
			return v.Closed
		}
		return v.Open
	}
	var vs []*cellView
	for _, v := range r.cells {
		if s := part(v); s != nil && s.Class == class {
			vs = append(vs, v)
		}
	}
	slices.SortStableFunc(vs, func(a, b *cellView) int {
		x, y := part(a), part(b)
		switch {
		case x.OnlyInvalid != y.OnlyInvalid:
			if x.OnlyInvalid {
				return 1
			}
			return -1
		case p == results.PartClosed && x.Rate.Median != y.Rate.Median:
			if x.Rate.Median > y.Rate.Median {
				return -1
			}
			return 1
		case p == results.PartOpen:
			return a.Num - b.Num // different loads: an order would rank what cannot be ranked
		}
		return a.Num - b.Num
	})
	return vs
}

func (r *Renderer) textMatrix(b *strings.Builder) error {
	r.textHead(b)
	fmt.Fprintf(b, "%s\n\n", strings.Join(r.fixedFactors(), ", "))
	for _, class := range r.classes() {
		fmt.Fprintf(b, "durability %s: %s\n", class, class.Means())
		for _, t := range []struct {
			title string
			t     *table
		}{
			{"most it can do (closed loop; rate is acked messages, median over runs)", r.maxTable(class)},
			{"response from due time (open loop at its own load)", r.latencyTable(class)},
			{"the target's processes and the consumers", r.targetTable(class)},
			{"replicas (hops are means as the leader sees them)", r.replicaTable(class)},
		} {
			if len(t.t.rows) == 0 {
				continue
			}
			text, err := t.t.text()
			if err != nil {
				return err
			}
			fmt.Fprintf(b, "%s\n%s\n", t.title, text)
		}
	}
	if t := r.mainEffectTable(); len(t.rows) > 0 {
		text, err := t.text()
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "main effects on the rate (pairs within blocks; between classes a price, not a rank)\n%s\n", text)
	}
	return nil
}

// mainEffectTable is what one step of a factor does to the rate, over all settings of the others. It is left out where
// nothing was replicated: then the sentences below the tables say as much.
func (r *Renderer) mainEffectTable() *table {
	t := &table{head: []string{"<change", "<durability", "settings", "ratio", "<95 %", "<by setting", "<verdict"}}
	if !slices.ContainsFunc(r.cells, func(v *cellView) bool { return v.Cell.Repl != "none" }) {
		return t
	}
	for _, e := range results.MainEffects(r.effects) {
		if e.Metric.Name != "tput" || e.Ratio.Verdict == results.NotComparable {
			continue
		}
		class, verdict, spread := string(e.ToSide), verdictText(e.Ratio), "–"
		if !e.SameClass() {
			class, verdict = fmt.Sprintf("%s for %s", e.ToSide, e.FromSide), "price"
		}
		if e.Cells > 0 {
			spread = ratioText(e.Least) + " to " + ratioText(e.Most)
		}
		t.add(phrase(e.Factor, e.To)+" instead of "+phrase(e.Factor, e.From), class, fmt.Sprint(max(1, e.Cells)), ratioText(e.Ratio.Value),
			interval(e.Ratio.Interval, ratioText), spread, verdict)
	}
	return t
}

// replicaTable is what the nodes of replicated cells told; without rows where there are none.
func (r *Renderer) replicaTable(class results.Class) *table {
	var hops []string
	for _, v := range r.cells {
		for _, s := range v.parts() {
			if s.Class != class || s.Replication == nil {
				continue
			}
			for _, h := range s.Replication.Hops {
				if !slices.Contains(hops, h.Name) {
					hops = append(hops, h.Name)
				}
			}
		}
	}
	t := &table{head: append(r.factorHeads(), "<part", "nodes", "W", "L", "caught up", "written/log")}
	t.head = append(t.head, hops...)
	for _, v := range r.cells {
		for _, s := range v.parts() {
			if s.Class != class || s.Replication == nil {
				continue
			}
			q := s.Replication
			row := append(r.factorCells(v), string(s.Part), fmt.Sprint(q.Nodes), results.FormatBytes(float64(q.UnflushedMaxBytes)), results.FormatBytes(float64(q.LagMaxBytes)),
				results.FormatUS(q.CatchUpS*1e6), optText(q.MaxRatio, ratioText))
			for _, name := range hops {
				row = append(row, hopText(q.Hops, name))
			}
			t.add(row...)
		}
	}
	return t
}

func hopText(hops []results.ReplicaHop, name string) string {
	for _, h := range hops {
		if h.Name == name {
			return results.FormatUS(h.MeanUS)
		}
	}
	return "–"
}

// textFoot is what every screen ends with: sentences, gates, notes, what was not controlled.
func (r *Renderer) textFoot(b *strings.Builder) {
	ss := r.sentences()
	if len(r.mainEffectTable().rows) > 0 { // the table has said it
		ss = slices.DeleteFunc(ss, func(s sentence) bool { return s.Kind == kindEffect || s.Kind == kindPrice })
	}
	if len(r.cells) > 1 || slices.ContainsFunc(ss, func(s sentence) bool { return s.Kind == kindTrouble }) {
		for i, s := range ss {
			if len(r.cells) == 1 && s.Kind != kindTrouble {
				continue
			}
			fmt.Fprintf(b, "%2d. %s\n", i+1, s.Text)
		}
		b.WriteString("\n")
	}
	if u := r.unverified(); len(u) > 0 {
		fmt.Fprintf(b, "unverified (no such counter here): %s\n", strings.Join(u, ", "))
	}
	notes := r.notes()
	for i, n := range notes {
		if i == notesShown && len(notes) > notesShown+1 {
			fmt.Fprintf(b, "note: %d more in the report\n", len(notes)-i)
			break
		}
		fmt.Fprintf(b, "note: %s\n", n)
	}
	if nc := r.run.Manifest.NotControlled; len(nc) > 0 {
		fmt.Fprintf(b, "not controlled: %s\n", strings.Join(nc, ", "))
	}
	if len(r.cells) > 0 {
		v := r.cells[len(r.cells)-1]
		fmt.Fprintf(b, "repeat a cell: %s\n", r.RepeatCommand(v.Cell))
	}
}

// unverified names the gates that could not be checked in any part.
func (r *Renderer) unverified() []string {
	var names []string
	for _, s := range r.sum.Cells {
		for _, n := range s.Unverified {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// notesShown is how many notes the screen has room for.
const notesShown = 5

var digits = regexp.MustCompile(`[0-9]+([.,][0-9]+)*`)

// notes gathers the notes of manifest, probe and cells, each once.
func (r *Renderer) notes() []string {
	var out []string
	add := func(n string) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for _, n := range r.run.Manifest.Notes {
		add(n)
	}
	if r.run.Probe != nil {
		for _, n := range r.run.Probe.Start.Notes {
			add("probe: " + n)
		}
		for _, n := range r.run.Probe.Start.Skipped {
			add("probe: no time left for " + n)
		}
	}
	for _, s := range r.sum.Cells {
		if s.ClassNote != "" {
			add(s.ClassNote)
		}
		for _, n := range alike(s.Notes) {
			add(shortName(s.Cell, r.varying) + ", " + partWord(s.Part) + ": " + n)
		}
	}
	return out
}

// alike folds notes that differ in numbers only.
func alike(notes []string) []string {
	var out []string
	n := map[string]int{}
	at := map[string]int{}
	for _, note := range notes {
		key := digits.ReplaceAllString(note, "#")
		if n[key]++; n[key] == 1 {
			at[key] = len(out)
			out = append(out, note)
		}
	}
	for key, k := range n {
		if k > 1 {
			out[at[key]] += fmt.Sprintf(" (%d repetitions say so)", k)
		}
	}
	return out
}
