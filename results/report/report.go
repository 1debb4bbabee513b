package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"rmq/results"
)

// Renderer shows one run.
type Renderer struct {
	store   *results.Store
	run     *results.Run
	sum     *results.Summary
	varying []string
	effects []*results.Effect // of throughput, then of p50 and p99
	cells   []*cellView
}

// New reads a run. A file of another schema, or a damaged one, is refused by name.
func New(st *results.Store) (*Renderer, error) {
	run, err := st.Load()
	if err != nil {
		return nil, err
	}
	r := &Renderer{store: st, run: run, sum: run.Summarize(), varying: run.VaryingFactors()}
	for _, name := range []string{"tput", "p50", "p99"} {
		m, err := results.MetricByName(name)
		if err != nil {
			return nil, err
		}
		r.effects = append(r.effects, run.Effects(r.sum, m, results.DefaultBand)...)
	}
	for i, c := range run.Cells {
		v := &cellView{Num: i + 1, Cell: c.Cell, ID: c.Cell.ID(), Runs: c, Name: shortName(c.Cell, r.varying)}
		v.Closed, v.Open = r.sum.Find(v.ID, results.PartClosed), r.sum.Find(v.ID, results.PartOpen)
		r.cells = append(r.cells, v)
	}
	return r, nil
}

// Open reads the run in dir, every file of it, so that a report of a damaged run is refused whole.
func Open(dir string) (*Renderer, error) {
	st, err := results.Open(dir)
	if err != nil {
		return nil, err
	}
	r, err := New(st)
	if err != nil {
		return nil, err
	}
	return r, st.Check(r.run)
}

// Run is the run that is shown.
func (r *Renderer) Run() *results.Run { return r.run }

// Summary is the run boiled down.
func (r *Renderer) Summary() *results.Summary { return r.sum }

// History is one line per cell for history.jsonl.
func (r *Renderer) History() []results.HistoryLine {
	var lines []results.HistoryLine
	for _, v := range r.cells {
		if !v.ran() {
			continue
		}
		l := results.HistoryLine{RunID: r.run.Manifest.RunID, Started: r.run.Manifest.Started, Label: r.run.Manifest.Label, Cell: v.ID, Class: v.any().Class, Reps: v.any().Valid}
		if r.run.Env != nil {
			l.Commit = r.run.Env.Toolchain.Commit
		}
		if v.Closed != nil {
			l.AckedPerS = v.Closed.Rate.Median
			if v.Closed.Limit != nil {
				l.FractionUsed = v.Closed.Limit.Fraction
			}
		}
		if v.Open != nil {
			l.OpenPerS, l.ResponseP50, l.ResponseP99 = v.Open.Rate.Median, v.Open.P50.Median, v.Open.P99.Median
		}
		lines = append(lines, l)
	}
	return lines
}

// JSON writes manifest, summary, effects and sentences as one object.
func (r *Renderer) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	var said []string
	for _, s := range r.sentences() {
		said = append(said, s.Text)
	}
	return enc.Encode(struct {
		Schema    int               `json:"schema"`
		Manifest  *results.Manifest `json:"manifest"`
		Sentences []string          `json:"sentences"`
		Summary   *results.Summary  `json:"summary"`
		Effects   []*results.Effect `json:"effects,omitempty"`
	}{results.SchemaVersion, r.run.Manifest, said, r.sum, r.effects})
}

// cellView is one cell as reports see it.
type cellView struct {
	Num    int
	Cell   results.Cell
	ID     string
	Name   string // the factors that vary, in words
	Runs   *results.CellRuns
	Closed *results.CellSummary // nil when the part did not run
	Open   *results.CellSummary
}

func (v *cellView) ran() bool { return v.Closed != nil || v.Open != nil }

// any is the part that stands for the cell: the closed one when it ran.
func (v *cellView) any() *results.CellSummary {
	if v.Closed != nil {
		return v.Closed
	}
	return v.Open
}

func (v *cellView) parts() []*results.CellSummary {
	var ps []*results.CellSummary
	for _, p := range []*results.CellSummary{v.Closed, v.Open} {
		if p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// Anchor is the cell's id within a page.
func (v *cellView) Anchor() string { return fmt.Sprintf("cell-%d", v.Num) }

// phrase says one factor's level in words.
func phrase(factor, level string) string {
	plural := func(word string) string {
		if level == "1" {
			return "1 " + word
		}
		return level + " " + word + "s"
	}
	switch factor {
	case "flush":
		return level + " flush"
	case "write":
		return level + " writes"
	case "topics":
		return plural("topic")
	case "producers":
		return plural("producer")
	case "consumers":
		return plural("consumer")
	case "queues":
		return plural("queue") + " a topic"
	case "size":
		return level + " bodies"
	case "rate":
		if level == "" {
			return "rate max, then 50 %"
		}
		return "rate " + level
	case "repl":
		return "replication " + level
	case "driver":
		return level + " driver"
	case "target":
		if level == "own" {
			return "own broker"
		}
		return "target " + level
	}
	return factor + " " + level
}

// shortName is a cell by the factors that vary; all that matters when none does.
func shortName(c results.Cell, varying []string) string {
	if len(varying) == 0 {
		varying = []string{"flush", "topics"}
	}
	var parts []string
	for _, f := range varying {
		if l := c.Level(f); l != "" {
			parts = append(parts, phrase(f, l))
		}
	}
	return strings.Join(parts, ", ")
}

// fixedFactors are the factors with one level, in words.
func (r *Renderer) fixedFactors() []string {
	if len(r.cells) == 0 {
		return nil
	}
	var parts []string
	for _, f := range r.cells[0].Cell.Factors() {
		if slices.Contains(r.varying, f.Name) || f.Level == "" || f.Level == "0" || f.Name == "rate" {
			continue
		}
		parts = append(parts, phrase(f.Name, f.Level))
	}
	return parts
}

// classes lists the durability classes of the run in the order of the matrix.
func (r *Renderer) classes() []results.Class {
	var cs []results.Class
	for _, c := range r.sum.Cells {
		if !slices.Contains(cs, c.Class) {
			cs = append(cs, c.Class)
		}
	}
	return cs
}

// namesWithin names cells by the factors that vary among them.
func namesWithin(vs []*cellView) map[*cellView]string {
	names := map[*cellView]string{}
	var varying []string
	for _, v := range vs {
		for _, f := range v.Cell.Factors() {
			if f.Level != vs[0].Cell.Level(f.Name) && !slices.Contains(varying, f.Name) {
				varying = append(varying, f.Name)
			}
		}
	}
	for _, v := range vs {
		names[v] = shortName(v.Cell, varying)
	}
	return names
}

// status is the run's state in a word or two.
func (r *Renderer) status() string {
	m := r.run.Manifest
	if m.Complete {
		return "complete"
	}
	if m.Reason == "" {
		return "INCOMPLETE"
	}
	return "INCOMPLETE: " + m.Reason
}

// RepeatCommand is the command that runs one cell again as it ran.
func (r *Renderer) RepeatCommand(c results.Cell) string {
	m := r.run.Manifest
	args := []string{"rmqbench", "run"}
	flag := func(name, value string) {
		if value != "" {
			args = append(args, "--"+name+"="+value)
		}
	}
	if c.Driver != "embedded" {
		flag("driver", c.Driver)
	}
	flag("flush", c.Flush)
	flag("repl", c.Repl)
	flag("write", c.Write)
	flag("topics", fmt.Sprint(c.Topics))
	if c.Queues != 0 {
		flag("queues", fmt.Sprint(c.Queues))
	}
	flag("size", results.FormatSize(int64(c.SizeBytes)))
	flag("producers", fmt.Sprint(c.Producers))
	flag("window", fmt.Sprint(c.Window))
	flag("rate", c.Rate)
	if c.Arrival != "uniform" {
		flag("arrival", c.Arrival)
	}
	if c.Keys != "uniform" {
		flag("keys", c.Keys)
	}
	if m.Config["entropy"] != "" {
		flag("entropy", fmt.Sprint(c.Entropy))
	}
	if c.Consumers > 0 {
		flag("consumers", fmt.Sprint(c.Consumers))
	}
	flag("batch", c.Extra["batch"])
	flag("header", c.Extra["header"])
	flag("target", c.Extra["target"])
	flag("path", c.Extra["path"])
	// Settings that are no factors, as they were.
	for _, name := range []string{"settle", "segment", "workers", "open-window", "with-tags", "with-keys", "probe-budget", "no-probe"} {
		if v := m.Config[name]; v != "false" && (name != "workers" || v != "0") {
			flag(name, v)
		}
	}
	flag("duration", seconds(m.DurS))
	flag("warmup", seconds(m.WarmupS))
	flag("reps", fmt.Sprint(m.Reps))
	flag("max-bytes", results.FormatSize(m.MaxBytes))
	flag("seed", fmt.Sprint(m.Seed))
	if dir := m.Config["dir"]; dir != "" {
		flag("dir", quoted(dir))
	}
	args = append(args, "--out", "again")
	return strings.Join(args, " ")
}

// quoted is a word as a shell wants it.
func quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%=") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func seconds(s float64) string { return strings.TrimSuffix(fmt.Sprintf("%g", s), ".0") + "s" }

// interval prints "[143 .. 151]" with one format for both ends, "" when unknown.
func interval(iv results.Interval, f func(float64) string) string {
	if !iv.Known {
		return ""
	}
	return "[" + f(iv.Lo) + " .. " + f(iv.Hi) + "]"
}

func ratioText(v float64) string { return fmt.Sprintf("%.2f", v) }

// countEstimate prints "148 k [144 .. 151]": the ends in the unit of the median.
func countEstimate(e results.Estimate) string {
	if e.N == 0 {
		return "n/a"
	}
	text := results.FormatCount(e.Median)
	if e.Interval.Known {
		text += " " + countInterval(e)
	}
	return text
}

func countInterval(e results.Estimate) string {
	if !e.Interval.Known {
		return ""
	}
	scale := results.CountScale(e.Median)
	return fmt.Sprintf("[%s .. %s]", results.FormatLike(e.Interval.Lo/scale, e.Median/scale), results.FormatLike(e.Interval.Hi/scale, e.Median/scale))
}

// p999Text prints p99.9 where the sample supports it.
func p999Text(s *results.CellSummary) string {
	return results.FormatPercentile(99.9, s.P999.Median, s.LeastN)
}

// limitText prints "91 % of group commit, 64 in flight".
func limitText(s *results.CellSummary) string {
	if s.Limit == nil {
		return "no limit probed"
	}
	return results.FormatPercent(s.Limit.Fraction) + " of " + s.Limit.Label
}

func limitShare(s *results.CellSummary) string {
	if s.Limit == nil {
		return "n/a"
	}
	return results.FormatPercent(s.Limit.Fraction)
}

func limitLabel(s *results.CellSummary) string {
	if s.Limit == nil {
		return "–"
	}
	return s.Limit.Label
}

func optText(v *float64, f func(float64) string) string {
	if v == nil {
		return "n/a"
	}
	return f(*v)
}

// verdictText prints the word with what weakens it: "slower (indicative: 3 pairs)".
func verdictText(r results.Ratio) string {
	word := string(r.Verdict)
	if r.Verdict == results.Same {
		word = fmt.Sprintf("same within ±%g %%", r.Band*100)
	}
	if !r.Indicative {
		return word
	}
	if r.N < 6 {
		return fmt.Sprintf("%s (indicative: %s)", word, count(r.N, pairWord(r)))
	}
	return word + " (indicative: p after Holm " + pText(r.PHolm) + ")"
}

func pairWord(r results.Ratio) string {
	if r.Paired {
		return "pair"
	}
	return "run"
}

func pText(p float64) string {
	if p < 0.001 {
		return "< 0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
