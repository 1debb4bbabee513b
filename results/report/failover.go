package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"rmq/results"
)

// Failover shows one failover run.
type Failover struct {
	f   *results.Failover
	env *results.Env
	sum []*results.FailoverSummary
}

// NewFailover takes a run as [results.ReadFailover] gives it; env may be nil.
func NewFailover(f *results.Failover, env *results.Env) *Failover {
	return &Failover{f, env, f.Summarize()}
}

// JSON writes the run and its summary as one object.
func (r *Failover) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Schema  int                        `json:"schema"`
		Run     *results.Failover          `json:"run"`
		Summary []*results.FailoverSummary `json:"summary"`
	}{results.SchemaVersion, r.f, r.sum})
}

var eventTitles = map[string]string{
	results.FailKill: "kill -9", results.FailFreeze: "freeze", results.FailStop: "graceful stop", results.FailHandover: "hand-over",
	results.FailPartition: "partition", results.FailSlow: "slow replica",
}

// head is what was measured, in a line or two.
func (r *Failover) head() string {
	f := r.f
	state := "complete"
	if !f.Complete {
		state = "INCOMPLETE: " + orUnknown(f.Reason)
	}
	label := ""
	if f.Label != "" {
		label = "   " + strings.ToUpper(f.Label)
	}
	return fmt.Sprintf("rmqbench failover %s   %s flush, replication %s   durability %s (%s)   %s%s\n%s of %s bodies in %s of %s, %s or more of log, %d consumers, seed %d",
		f.RunID, f.Flush, f.Repl, f.Class, f.Class.Means(), state, label,
		results.FormatRate(f.RatePerS), results.FormatSize(int64(f.SizeBytes)), phrase("topics", fmt.Sprint(f.Topics)), phrase("queues", fmt.Sprint(f.Queues)),
		results.FormatSize(f.LogBytes), f.Consumers, f.Seed)
}

func msFigure(v float64) string {
	if v >= math.MaxFloat64 {
		return "never"
	}
	return results.FormatUS(v * 1e3)
}

// timesTable is how long each client went without, event by event.
func (r *Failover) timesTable() *table {
	t := &table{head: []string{
		"<event", "<client", "n", "next ack p50", "<95 %", "p99", "max", "window p50", "p99", "max", "95 % of rate p50", "max",
	}}
	for _, s := range r.sum {
		if s.Trials == 0 {
			t.add(eventTitles[s.Event], s.Client, "0", "–", "", "–", "–", "–", "–", "–", "–", "–")
			continue
		}
		iv := ""
		if s.NextAck.I50.Known {
			iv = interval(s.NextAck.I50, msFigure)
		}
		t.add(eventTitles[s.Event], s.Client, fmt.Sprint(s.Trials), msFigure(s.NextAck.P50), iv, msFigure(s.NextAck.P99), msFigure(s.NextAck.Max),
			msFigure(s.Window.P50), msFigure(s.Window.P99), msFigure(s.Window.Max), msFigure(s.To95.P50), msFigure(s.To95.Max))
	}
	return t
}

// stagesTable is where the time goes.
func (r *Failover) stagesTable() *table {
	t := &table{head: []string{"<event", "n", "noticed p50", "p99", "max", "a leader p50", "p99", "max", "client p50", "p99", "max"}}
	for _, s := range r.f.Stages() {
		row := []string{eventTitles[s.Event], fmt.Sprint(s.Notice.N)}
		for _, f := range []results.FailoverFigure{s.Notice, s.Elect, s.Client} {
			row = append(row, msFigure(f.P50), msFigure(f.P99), msFigure(f.Max))
		}
		t.add(row...)
	}
	return t
}

// stagesTitle goes above [Failover.stagesTable].
const stagesTitle = "where the time goes: event → a node left sees that its leader is gone → a node leads → next ack of the first client"

// countsTable is what became of the messages.
func (r *Failover) countsTable() *table {
	t := &table{head: []string{"<event", "<client", "n", "void", "due", "delayed", "failed", "unknown", "no answer", "duplicated", "lost", "<read back"}}
	for _, s := range r.sum {
		audited := "all"
		if s.Unaudited > 0 {
			audited = fmt.Sprintf("all but %s", count(s.Unaudited, "trial"))
		}
		t.add(eventTitles[s.Event], s.Client, fmt.Sprint(s.Trials), fmt.Sprint(s.Void), results.FormatCount(float64(s.Due)), fmt.Sprint(s.Delayed), fmt.Sprint(s.Failed),
			fmt.Sprint(s.Unknown), fmt.Sprint(s.Unfinished), fmt.Sprint(s.Duplicated), r.lostText(s), audited)
	}
	return t
}

// notes are what weakens the numbers, the gravest first.
func (r *Failover) notes() []string {
	var ns []string
	between := ""
	if n := r.f.LostBetween; n > 0 {
		between = fmt.Sprintf(" (%d of them due more than a second before their event, or between trials)", n)
	}
	if n := r.f.Damaged; n > 0 {
		ns = append(ns, fmt.Sprintf("DAMAGED: %d bodies are not as they were sent, or offsets hold no message", n))
	}
	allowed := r.f.AllowedLost()
	if n := r.f.Lost() - allowed; n > 0 {
		ns = append(ns, fmt.Sprintf("LOST: %d acknowledged messages were not found%s", n, between))
		between = ""
	}
	if allowed > 0 {
		ns = append(ns, fmt.Sprintf("lost, as asynchronous replication may: %d acknowledged messages that the slave did not have yet when it was promoted%s", allowed, between))
	}
	if n := r.f.ReadAndGone(); n > 0 && r.f.Pair() {
		ns = append(ns, fmt.Sprintf("read and gone, as with a pair it may be: %d messages that consumers had read from the old master, nobody acknowledged, and the new one never had", n))
	} else if n > 0 {
		ns = append(ns, fmt.Sprintf("READ AND GONE: %d messages that consumers had read and nobody acknowledged were not found", n))
	}
	if n := r.f.Expired(); n > 0 {
		ns = append(ns, fmt.Sprintf("EXPIRED: %d acknowledged messages lay in log that retention removed before it was read back: their trials do not count", n))
	}
	for _, e := range results.FailoverEvents() {
		n, void := 0, 0
		for _, t := range r.f.Trials {
			if t.Event == e {
				n++
				if t.Void != "" {
					void++
				}
			}
		}
		if n > 0 && n-void < results.Enough(e) {
			ns = append(ns, fmt.Sprintf("%s: %s that count, a claim takes %d: indicative", eventTitles[e], count(n-void, "trial"), results.Enough(e)))
		}
		if lost, audited := r.audited(e); lost+r.f.LostBetween+r.f.Damaged == 0 && audited > ruleOfThree {
			ns = append(ns, fmt.Sprintf("%s: nothing lost in %s; loss per trial below %s with 95 %% confidence", eventTitles[e], count(audited, "trial"), results.FormatPercent(ruleOfThree/float64(audited))))
		}
	}
	voids := map[string]int{}
	for _, t := range r.f.Trials {
		if t.Void != "" {
			voids[t.Void]++
		}
	}
	for _, why := range slices.Sorted(maps.Keys(voids)) {
		ns = append(ns, fmt.Sprintf("%s left out: %s", count(voids[why], "trial"), why))
	}
	for _, s := range r.f.Skipped {
		ns = append(ns, fmt.Sprintf("skipped: %s: %s", s.What, s.Reason))
	}
	return append(ns, r.f.Notes...)
}

// ruleOfThree over the trials without a loss bounds the chance of one, with 95 % confidence.
const ruleOfThree = 3

// audited are the trials of an event that were read back, and how many acknowledged messages were lost in any.
func (r *Failover) audited(event string) (lost int64, trials int) {
	for _, s := range r.sum {
		if s.Event == event {
			lost += s.Lost
		}
	}
	for _, t := range r.f.Trials {
		if t.Event == event && t.Audited {
			trials++
		}
	}
	return lost, trials
}

// lostText is how many messages were lost, marked where that is allowed.
func (r *Failover) lostText(s *results.FailoverSummary) string {
	if s.Lost > 0 && r.f.MayLose(s.Event) {
		return fmt.Sprintf("%d (allowed)", s.Lost)
	}
	return fmt.Sprint(s.Lost)
}

// Text writes the terminal screen: tables, a chart of acknowledgements round each event, notes.
func (r *Failover) Text(w io.Writer) error {
	var b strings.Builder
	b.WriteString(r.head() + "\n\n")
	for _, t := range []struct {
		title string
		t     *table
	}{
		{"times: until acks came again; unavailable window by due time; 95 % of the rate again", r.timesTable()},
		{stagesTitle, r.stagesTable()},
		{"messages due from 1 s before the event to the end of the trial", r.countsTable()},
	} {
		if len(t.t.rows) == 0 {
			continue
		}
		text, err := t.t.text()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s\n%s\n", t.title, text)
	}
	for _, e := range results.FailoverEvents() {
		for i, s := range r.of(e) {
			if i == 0 {
				fmt.Fprintf(&b, "%s: acknowledgements in bins of 10 ms, from −0.2 s to 0.8 s (mean of trials; | is the event)\n", eventTitles[e])
			}
			fmt.Fprintf(&b, " %-8s %s\n", s.Client, spark(s))
		}
	}
	b.WriteString("\n")
	for _, n := range r.notes() {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Failover) of(event string) []*results.FailoverSummary {
	return slices.DeleteFunc(slices.Clone(r.sum), func(s *results.FailoverSummary) bool { return s.Event != event || s.Trials == 0 })
}

// spark draws the bins near the event in one line, full height at the rate before it.
func spark(s *results.FailoverSummary) string {
	levels := []rune(" ▁▂▃▄▅▆▇█")
	var b strings.Builder
	before := 0.0
	for _, n := range s.Bins[:min(-s.FirstBin, len(s.Bins))] {
		before += n / float64(-s.FirstBin)
	}
	for i := -20; i < 80; i++ {
		if i == 0 {
			b.WriteString("|")
		}
		k := i - s.FirstBin
		if k < 0 || k >= len(s.Bins) || before == 0 {
			b.WriteByte(' ')
			continue
		}
		level := int(math.Round(s.Bins[k] / before * float64(len(levels)-1)))
		if s.Bins[k] > 0 {
			level = max(level, 1)
		}
		b.WriteRune(levels[min(level, len(levels)-1)])
	}
	return strings.TrimRight(b.String(), " ")
}

// Markdown writes the report as Markdown.
func (r *Failover) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# rmqbench failover %s\n\n%s\n", r.f.RunID, strings.ReplaceAll(r.head(), "\n", "  \n"))
	if err := mdTable(&b, "How long clients went without", r.timesTable()); err != nil {
		return err
	}
	if t := r.stagesTable(); len(t.rows) > 0 {
		if err := mdTable(&b, strings.ToUpper(stagesTitle[:1])+stagesTitle[1:], t); err != nil {
			return err
		}
	}
	if err := mdTable(&b, "What became of the messages", r.countsTable()); err != nil {
		return err
	}
	if err := mdTable(&b, "Clients", r.clientTable()); err != nil {
		return err
	}
	if err := mdTable(&b, "Trials", r.trialTable()); err != nil {
		return err
	}
	mdList(&b, "Notes", r.notes())
	fmt.Fprintf(&b, "\n## Repeat\n\n```\n%s\n```\n", strings.Join(r.f.Command, " "))
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Failover) clientTable() *table {
	t := &table{head: []string{"<client", "messages/s", "<what"}}
	for _, c := range r.f.Clients {
		t.add(c.Name, results.FormatCount(c.RatePerS), c.What)
	}
	return t
}

// trialTable is one line a trial.
func (r *Failover) trialTable() *table {
	t := &table{head: []string{"<event", "n", "<from", "<to", "log", "late above", "consumers silent", "in sync after"}}
	for _, c := range r.f.Clients {
		t.head = append(t.head, c.Name+" next ack", "window")
	}
	t.head = append(t.head, "<void")
	opt := func(v *float64) string {
		if v == nil {
			return "never"
		}
		return msFigure(*v)
	}
	for _, x := range r.f.Trials {
		row := []string{eventTitles[x.Event], fmt.Sprint(x.N), x.From, x.To, results.FormatBytes(float64(x.LogBytes)), msFigure(x.LateMS), opt(x.ConsumerMS), results.FormatUS(x.HealS * 1e6)}
		for _, c := range r.f.Clients {
			i := slices.IndexFunc(x.Clients, func(o results.FailoverClientTrial) bool { return o.Client == c.Name })
			if i < 0 {
				row = append(row, "–", "–")
				continue
			}
			row = append(row, opt(x.Clients[i].NextAckMS), opt(x.Clients[i].WindowMS))
		}
		t.add(append(row, x.Void)...)
	}
	return t
}

//go:embed failover.html.tmpl
var failoverTemplate string

var failoverPage = template.Must(template.New("failover").Parse(failoverTemplate))

type failoverChart struct {
	Title string
	Note  string
	Chart template.HTML
}

// HTML writes one self-contained page.
func (r *Failover) HTML(w io.Writer) error {
	v := struct {
		Style                           template.CSS
		Run                             *results.Failover
		Head                            []string
		Complete                        bool
		Times, Counts, Clients, Trials  *htmlTable
		Stages                          *htmlTable
		StagesTitle                     string
		Charts                          []failoverChart
		Notes                           []string
		Trouble                         bool
		Kill, One, All, Means, HostLine string
		Command                         string
	}{
		Style: template.CSS(pageStyle), Run: r.f, Head: strings.Split(r.head(), "\n"), Complete: r.f.Complete, Times: r.timesTable().html(), Counts: r.countsTable().html(),
		Clients: r.clientTable().html(), Trials: r.trialTable().html(), Notes: r.notes(), Trouble: r.f.Broken() > 0, Means: r.f.Class.Means(), Command: strings.Join(r.f.Command, " "),
	}
	v.Kill, v.One, v.All = r.f.Class.Survives()
	if r.env != nil {
		v.HostLine = (&Renderer{run: &results.Run{Env: r.env}}).hostLine()
	}
	if t := r.stagesTable(); len(t.rows) > 0 {
		v.Stages, v.StagesTitle = t.html(), stagesTitle
	}
	for _, e := range results.FailoverEvents() {
		for _, s := range r.of(e) {
			v.Charts = append(v.Charts,
				failoverChart{fmt.Sprintf("%s, %s: acknowledgements in bins of 10 ms", eventTitles[e], s.Client), fmt.Sprintf("mean of %s", count(s.Trials, "trial")), binsChart(s)},
				failoverChart{fmt.Sprintf("%s, %s: next ack, every trial", eventTitles[e], s.Client), "each dot a trial, logarithmic", gapChart(s.NextAck)})
		}
	}
	return failoverPage.Execute(w, v)
}

// binsChart draws acknowledgements round the event.
func binsChart(s *results.FailoverSummary) template.HTML {
	const w, h, left, right, top, bottom = 560.0, 200.0, 58.0, 16.0, 12.0, 34.0
	hi := 1.0
	for _, n := range s.Bins {
		hi = math.Max(hi, n)
	}
	ys := linearScale(hi, h-bottom, top)
	last := s.FirstBin + len(s.Bins)
	xs := scale{lo: float64(s.FirstBin), hi: float64(last), from: left, to: w - right}
	g := newSVG(w, h, "chart", fmt.Sprintf("Acknowledgements of %s round %s", s.Client, eventTitles[s.Event]), "")
	for _, y := range ys.ticks(4) {
		g.line("grid", left, ys.at(y), w-right, ys.at(y))
		g.text("tick", "end", left-6, ys.at(y)+3.5, results.FormatCount(y))
	}
	for _, x := range xs.ticks(8) {
		g.text("tick", "middle", xs.at(x), h-bottom+15, fmt.Sprintf("%g s", x/100))
	}
	g.line("limit", xs.at(0), top, xs.at(0), h-bottom)
	var ps []point
	for i, n := range s.Bins {
		x := float64(s.FirstBin + i)
		ps = append(ps, point{xs.at(x), ys.at(n)}, point{xs.at(x + 1), ys.at(n)})
	}
	g.path("line1", ps)
	return g.close()
}

// gapChart draws every trial as a dot on a logarithmic axis.
func gapChart(f results.FailoverFigure) template.HTML {
	const w, h, left, right, top, bottom = 560.0, 90.0, 58.0, 16.0, 12.0, 34.0
	vs := f.Values()
	if len(vs) == 0 {
		return ""
	}
	lo, hi := slices.Min(vs), slices.Max(vs)
	xs := logScale(math.Max(lo, 0.01), math.Max(hi, 0.02), left, w-right)
	g := newSVG(w, h, "chart", fmt.Sprintf("%d trials", f.N), "")
	for _, x := range xs.ticks(8) {
		g.line("grid", xs.at(x), top, xs.at(x), h-bottom)
		g.text("tick", "middle", xs.at(x), h-bottom+15, results.FormatUS(x*1e3))
	}
	for i, v := range vs {
		g.dot("rep", xs.at(math.Max(v, xs.lo)), top+8+float64(i*37%28), 2.5, results.FormatUS(v*1e3))
	}
	return g.close()
}

// CompareFailover writes the comparison of two failover runs: text, md or json.
func CompareFailover(w io.Writer, format string, a, b *results.Failover, cs []*results.FailoverComparison) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Schema int                           `json:"schema"`
			A      string                        `json:"a"`
			B      string                        `json:"b"`
			Cells  []*results.FailoverComparison `json:"comparisons"`
		}{results.SchemaVersion, a.RunID, b.RunID, cs})
	}
	t := &table{head: []string{"<event", "<client", "<figure", "<durability", "A p50", "B p50", "A p99", "B p99", "ratio", "<95 %", "<verdict"}}
	for _, c := range cs {
		class := string(c.ClassA)
		if c.ClassA != c.ClassB {
			class += " / " + string(c.ClassB)
		}
		ratio, iv, verdict := "–", "", c.Why
		if c.Ratio.Verdict != results.NotComparable {
			ratio, iv, verdict = ratioText(c.Ratio.Value), interval(c.Ratio.Interval, ratioText), verdictText(c.Ratio)
		}
		t.add(eventTitles[c.Event], c.Client, c.Figure, class, msFigure(c.A.P50), msFigure(c.B.P50), msFigure(c.A.P99), msFigure(c.B.P99), ratio, iv, verdict)
	}
	render := t.text
	if format == "md" {
		render = t.markdown
	}
	text, err := render()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "A %s: %s flush, replication %s, %s\nB %s: %s flush, replication %s, %s\nratio above 1: B is back sooner\n\n%s",
		a.RunID, a.Flush, a.Repl, results.FormatRate(a.RatePerS), b.RunID, b.Flush, b.Repl, results.FormatRate(b.RatePerS), text)
	return err
}
