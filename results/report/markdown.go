package report

import (
	"fmt"
	"io"
	"strings"

	"rmq/results"
)

// Markdown writes the report as Markdown: the same content as the HTML page less its charts.
func (r *Renderer) Markdown(w io.Writer) error {
	var b strings.Builder
	m := r.run.Manifest
	fmt.Fprintf(&b, "# rmqbench %s\n\n", m.RunID)
	fmt.Fprintf(&b, "%s, %s, seed %d, started %s, %s%s.\n", count(len(m.Cells), "cell"), count(m.Reps, "block"), m.Seed, m.Started.UTC().Format("2006-01-02 15:04 UTC"), r.status(), labelText(m.Label))
	fmt.Fprintf(&b, "Held still: %s.\n\n", strings.Join(r.fixedFactors(), ", "))
	b.WriteString("## In short\n\n")
	for i, s := range r.sentences() {
		fmt.Fprintf(&b, "%d. %s\n", i+1, s.Text)
	}
	for _, class := range r.classes() {
		fmt.Fprintf(&b, "\n## Durability %s: %s\n", class, class.Means())
		kill, one, all := class.Survives()
		fmt.Fprintf(&b, "\nAcknowledged messages survive a process kill: %s; a power cut of one node: %s; of all nodes at once: %s.\n", kill, one, all)
		if err := mdTable(&b, "Most it can do (closed loop)", r.maxTable(class)); err != nil {
			return err
		}
		if err := mdTable(&b, "Response from due time (open loop, each cell at its own load)", r.latencyTable(class)); err != nil {
			return err
		}
	}
	for _, class := range r.classes() {
		if t := r.targetTable(class); len(t.rows) > 0 {
			if err := mdTable(&b, fmt.Sprintf("The target's processes and the consumers (%s)", class), t); err != nil {
				return err
			}
		}
	}
	for _, class := range r.classes() {
		if err := mdTable(&b, fmt.Sprintf("Replicas (%s): W bytes not synced, L bytes not copied, at most; hops are means as the leader sees them", class), r.replicaTable(class)); err != nil {
			return err
		}
	}
	if err := mdTable(&b, "Main effects on the rate (between classes a price, not a rank)", r.mainEffectTable()); err != nil {
		return err
	}
	if t := r.effectTable(); len(t.rows) > 0 {
		if err := mdTable(&b, "What one factor changes (pairs within blocks; above 1 is better)", t); err != nil {
			return err
		}
	}
	if t := r.costTable(); len(t.rows) > 0 {
		if err := mdTable(&b, "Cost per million acknowledged messages", t); err != nil {
			return err
		}
	}
	if t := r.gateTable(); len(t.rows) > 0 {
		if err := mdTable(&b, "Gates that failed or could not be checked", t); err != nil {
			return err
		}
	}
	if t := r.probeTable(); len(t.rows) > 0 {
		if err := mdTable(&b, "Limits of this machine (probe)", t); err != nil {
			return err
		}
	}
	if err := mdTable(&b, "Environment", r.envTable()); err != nil {
		return err
	}
	mdList(&b, "Not controlled", m.NotControlled)
	mdList(&b, "Notes", r.notes())
	b.WriteString("\n## Repeat a cell\n\n```\n")
	for _, v := range r.cells {
		b.WriteString(r.RepeatCommand(v.Cell) + "\n")
	}
	b.WriteString("```\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func labelText(label string) string {
	if label == "" {
		return ""
	}
	return ", label " + label
}

func mdTable(b *strings.Builder, title string, t *table) error {
	if len(t.rows) == 0 {
		return nil
	}
	text, err := t.markdown()
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n### %s\n\n%s", title, text)
	return nil
}

func mdList(b *strings.Builder, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	for _, i := range items {
		fmt.Fprintf(b, "- %s\n", i)
	}
}

// effectTable lists every effect, each durability class against itself first.
func (r *Renderer) effectTable() *table {
	t := &table{head: []string{"<change", "<elsewhere", "<metric", "ratio", "<95 % interval", "p", "p (Holm)", "<verdict"}}
	for _, same := range []bool{true, false} {
		for _, e := range r.effects {
			if e.SameClass() != same || e.Ratio.Verdict == results.NotComparable {
				continue
			}
			verdict := verdictText(e.Ratio)
			if !same {
				verdict = fmt.Sprintf("price of %s over %s", e.ToSide, e.FromSide)
			}
			t.add(phrase(e.Factor, e.To)+" instead of "+phrase(e.Factor, e.From), r.whereOf(e), e.Metric.Label, ratioText(e.Ratio.Value),
				interval(e.Ratio.Interval, ratioText), pText(e.Ratio.P), pText(e.Ratio.PHolm), verdict)
		}
	}
	return t
}

// costTable is what a million acknowledged messages cost.
func (r *Renderer) costTable() *table {
	t := &table{head: append(r.factorHeads(), "<class", "<part", "CPU", "written to device", "flushes", "msg/flush", "device/log")}
	for _, v := range r.cells {
		for _, s := range v.parts() {
			group := "n/a"
			if s.GroupSize > 0 {
				group = results.FormatCount(s.GroupSize)
			}
			t.add(append(r.factorCells(v), string(s.Class), string(s.Part), optText(s.CPUSPerM, func(x float64) string { return results.FormatSig3(x) + " s" }),
				optText(s.BytesPerM, results.FormatBytes), optText(s.FlushesPerM, results.FormatCount), group, optText(s.WriteAmp, ratioText))...)
		}
	}
	return t
}

func (r *Renderer) gateTable() *table {
	t := &table{head: []string{"<cell", "<part", "<gate", "<value", "<limit", "<status", "<note"}}
	for _, v := range r.cells {
		for _, s := range v.parts() {
			for _, g := range s.Failed {
				t.add(v.Name, string(s.Part), g.Name, g.Value, g.Limit, string(g.Status), g.Note)
			}
		}
	}
	for _, n := range r.unverified() {
		note := ""
		for _, s := range r.sum.Cells {
			for _, rep := range s.Counted() {
				for _, g := range rep.Part(s.Part).UnverifiedGates() {
					if g.Name == n {
						note = g.Note
					}
				}
			}
		}
		t.add("all", "", n, "n/a", "", string(results.GateUnverified), note)
	}
	return t
}

// probeTable lists the limits with, where the drift check took them again, how far they moved.
func (r *Renderer) probeTable() *table {
	t := &table{head: []string{"<limit", "<what", "value", "p50", "p99", "at the end", "<note"}}
	if r.run.Probe == nil {
		return t
	}
	drift := map[string]results.Drift{}
	for _, d := range r.run.Probe.Drifts() {
		drift[d.Name] = d
	}
	us := func(v float64) string {
		if v == 0 {
			return "–"
		}
		return results.FormatUS(v)
	}
	for _, l := range r.run.Probe.Start.Limits {
		end := "–"
		if d, ok := drift[l.Name]; ok {
			end = fmt.Sprintf("×%.2f", d.Ratio)
		}
		t.add(l.Name, results.LimitTitle(l.Name), limitValue(l.Value, l.Unit), us(l.P50), us(l.P99), end, l.Note)
	}
	return t
}

// envTable is the environment as names and values.
func (r *Renderer) envTable() *table {
	t := &table{head: []string{"<", "<"}}
	e := r.run.Env
	if e == nil {
		return t
	}
	add := func(name, value string) {
		if value != "" && value != "0" {
			t.add(name, value)
		}
	}
	h, d, tc := e.Host, e.Disk, e.Toolchain
	add("CPU", fmt.Sprintf("%d × %s (%s)", h.CPUs, orDash(h.CPUModel), h.Arch))
	if h.CPUQuota > 0 {
		add("CPU quota", fmt.Sprintf("%.2f cores", h.CPUQuota))
	}
	add("RAM", results.FormatBytes(float64(h.RAMBytes)))
	if h.MemLimitBytes > 0 {
		add("memory limit", results.FormatBytes(float64(h.MemLimitBytes)))
	}
	add("kernel", h.OS+" "+h.Kernel)
	add("virtualisation", h.Virtualisation)
	add("governor", h.Governor)
	add("clock source", h.ClockSource)
	add("NTP", h.NTP)
	add("transparent huge pages", h.THP)
	add("log directory", d.Dir)
	add("file system", strings.TrimSpace(d.FSType+" "+d.MountOptions))
	add("file system features", strings.Join(d.FSFeatures, " "))
	add("device", strings.TrimSpace(d.Device+" "+d.Model))
	add("write cache", d.WriteCache)
	add("scheduler", d.Scheduler)
	if d.QueueDepth > 0 {
		add("queue depth", fmt.Sprint(d.QueueDepth))
	}
	add("disk", results.FormatBytes(float64(d.FreeBytes))+" free of "+results.FormatBytes(float64(d.TotalBytes)))
	for _, k := range sortedKeys(h.Sysctl) {
		add(k, h.Sysctl[k])
	}
	add("Go", fmt.Sprintf("%s, GOMAXPROCS %d", tc.Go, tc.GOMAXPROCS))
	add("GOGC", tc.GOGC)
	add("GOMEMLIMIT", tc.GOMEMLIMIT)
	add("build flags", tc.BuildFlags)
	commit := tc.Commit
	if tc.Dirty {
		commit += " (changed sources)"
	}
	add("commit", commit)
	add("target", strings.TrimSpace(e.Target.Name+" "+e.Target.Version))
	for _, k := range sortedKeys(e.Target.Config) {
		add("target "+k, e.Target.Config[k])
	}
	for _, k := range sortedKeys(r.run.Manifest.Config) {
		add("rmqbench "+k, r.run.Manifest.Config[k])
	}
	for _, p := range e.Foreign {
		add("beside it", fmt.Sprintf("%s (pid %d), %s of a core", p.Name, p.PID, results.FormatPercent(p.CPUFrac)))
	}
	add("not told by the host", strings.Join(e.Unknown, ", "))
	return t
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
