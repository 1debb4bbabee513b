package robust

import (
	"fmt"
	"slices"
	"strings"
)

const head = `# What was played, and what came out

Made by ` + "`go generate ./test/robust`" + ` from the files of ` + "`test/robust/results`" + `, which ` + "`make robust`" + ` writes. Each run starts real processes on real
files, keeps book of every message, plays the fault, and reads everything back: from who serves it, from each replica, and replica directories byte
by byte. A cell shows acknowledged messages and, in brackets, how many of them were lost, with the number of runs. No loss in n runs bounds the chance of a run with a loss
by about 3/n (95 %).

Modes: n one node, a asynchronous replication, s synchronous dual write, r raft of three; A asynchronous flush, S synchronous. Promises: 0 no
acknowledged message is lost; W, L a tail no longer than reported; U as 0, but it may be unavailable; R damage is refused or
reported, and nothing wrong is served; - no such fault. Power cuts are simulated below the process (` + "`internal/vfs/powercut`" + `); waits are shortened where the scale says so.
`

// Render is the report as Markdown. Results come by cell and mode; those that are missing are shown as not played.
func Render(results []*Result) string {
	by := map[string]*Result{}
	for _, r := range results {
		by[r.Cell+r.Mode] = r
	}
	var b strings.Builder
	b.WriteString(head)
	total(&b, results)
	b.WriteString("\n## Matrix\n\n| cell | fault | " + strings.Join(Modes, " | ") + " |\n|---|---|" + strings.Repeat("---|", len(Modes)) + "\n")
	for i := range Matrix {
		row := &Matrix[i]
		fmt.Fprintf(&b, "| %s | %s |", row.Cell, row.Fault)
		for _, mode := range Modes {
			fmt.Fprintf(&b, " %s |", square(row.Promise(mode), by[row.Cell+mode]))
		}
		b.WriteString("\n")
	}
	red(&b, results)
	b.WriteString("\n## Skipped\n\n")
	none := true
	for _, r := range results {
		if r.Skipped != "" {
			none = false
			fmt.Fprintf(&b, "- %s %s: %s\n", r.Cell, r.Mode, r.Skipped)
		}
	}
	if none {
		b.WriteString("Nothing.\n")
	}
	kills(&b, by)
	details(&b, by)
	return b.String()
}

// Kills is the cell of the drill that kills the leader of a group again and again, which is no row of the matrix.
const Kills = "kills"

func kills(b *strings.Builder, by map[string]*Result) {
	for _, mode := range Modes {
		if r := by[Kills+mode]; r != nil {
			for i := range r.Runs {
				x := &r.Runs[i]
				fmt.Fprintf(b, "\n## Kills of the leader under load, %s\n\n%d times kill -9 in one run (`RMQ_KILLS=%d make drills-kills`), every acknowledged message read back after each: %s acknowledged, %d lost. Next ack, ms: %s (median, max).\n",
					mode, x.Strikes, x.Strikes, thousands(x.Acked), x.Lost, medianMax(x.RTO))
			}
		}
	}
}

// medianMax are the median and the maximum of times.
func medianMax(ms []float64) string {
	if len(ms) == 0 {
		return "-"
	}
	ms = slices.Sorted(slices.Values(ms))
	return fmt.Sprintf("%.0f, %.0f", ms[len(ms)/2], ms[len(ms)-1])
}

func total(b *strings.Builder, results []*Result) {
	var runs, strikes, red, replicas int
	var acked, lost int64
	envs := map[string]bool{}
	for _, r := range results {
		for i := range r.Runs {
			run := &r.Runs[i]
			runs++
			strikes += run.Strikes
			replicas += run.Replicas
			acked += run.Acked
			if row := Row(r.Cell); row == nil || row.Promise(r.Mode) != LossW && row.Promise(r.Mode) != LossL {
				lost += run.Lost
			}
			if run.Red() {
				red++
			}
		}
		if len(r.Runs) > 0 {
			e := r.Env
			envs[fmt.Sprintf("%s, Linux %s, %d CPUs, %s", e.Go, e.Kernel, e.CPUs, e.FileSystem)] = true
		}
	}
	fmt.Fprintf(b, "\n%d runs, %d strikes, %s acknowledged messages, %d lost where none may be; %d directories of replicas compared; %d runs red.\n", runs, strikes, thousands(acked), lost, replicas, red)
	list := make([]string, 0, len(envs))
	for e := range envs {
		list = append(list, e)
	}
	slices.Sort(list)
	fmt.Fprintf(b, "Played with %s.\n", strings.Join(list, "; "))
}

// square is what stands in one square of the matrix.
func square(p Promise, r *Result) string {
	switch {
	case p == NoCell:
		return "-"
	case r == nil || r.Skipped == "" && len(r.Runs) == 0:
		return string(p) + ": not played"
	case r.Skipped != "":
		return string(p) + ": skipped"
	}
	var acked, lost int64
	for i := range r.Runs {
		acked += r.Runs[i].Acked
		lost += r.Runs[i].Lost
	}
	text := fmt.Sprintf("%s: %s (%d) n=%d", p, thousands(acked), lost, len(r.Runs))
	if r.Red() {
		return "**RED** " + text
	}
	return text
}

func red(b *strings.Builder, results []*Result) {
	b.WriteString("\n## Red\n\n")
	none := true
	for _, r := range results {
		for i := range r.Runs {
			for _, why := range r.Runs[i].Why {
				none = false
				fmt.Fprintf(b, "- **%s %s**, key %d: %s\n", r.Cell, r.Mode, r.Runs[i].Key, oneLine(why))
			}
		}
	}
	if none {
		b.WriteString("Nothing.\n")
	}
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 400)]
}

func details(b *strings.Builder, by map[string]*Result) {
	b.WriteString("\n## Cells\n\nUnknown: sends without an answer that tells. Next ack: from the fault to the first ack of a send begun after it. W and L: bytes lost at most in a run, of those reported.\n")
	for i := range Matrix {
		row := &Matrix[i]
		begun := false
		for _, mode := range Modes {
			r := by[row.Cell+mode]
			if r == nil || len(r.Runs) == 0 {
				continue
			}
			if !begun {
				begun = true
				fmt.Fprintf(b, "\n### %s: %s\n\n", row.Cell, row.Fault)
				if row.Also != "" {
					fmt.Fprintf(b, "Also required: %s.\n\n", row.Also)
				}
				b.WriteString("| mode | promise | runs | strikes | sent | acked | unknown | failed | lost | phantom | duplicate | reordered | corrupt | unseen | W | L | next ack, ms: median, max | scale, notes |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
			}
			detail(b, row.Promise(mode), r)
		}
	}
}

func detail(b *strings.Builder, p Promise, r *Result) {
	var s Run
	var rto []float64
	notes := []string{}
	if r.Scale != "" {
		notes = append(notes, r.Scale)
	}
	for i := range r.Runs {
		x := &r.Runs[i]
		s.Strikes += x.Strikes
		s.Sent += x.Sent
		s.Acked += x.Acked
		s.Indeterminate += x.Indeterminate
		s.Failed += x.Failed
		s.Lost += x.Lost
		s.Phantom += x.Phantom
		s.Duplicate += x.Duplicate
		s.Reordered += x.Reordered
		s.Corrupt += x.Corrupt
		s.Unseen += x.Unseen
		s.W = worse(s.W, x.W)
		s.L = worse(s.L, x.L)
		rto = append(rto, x.RTO...)
		for _, n := range x.Notes {
			if !slices.Contains(notes, n) {
				notes = append(notes, n)
			}
		}
	}
	fmt.Fprintf(b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s | %s | %s |\n", r.Mode, p, len(r.Runs), s.Strikes, s.Sent, s.Acked,
		s.Indeterminate, s.Failed, s.Lost, s.Phantom, s.Duplicate, s.Reordered, s.Corrupt, s.Unseen, s.W, s.L, medianMax(rto), oneLine(strings.Join(notes, "; ")))
}

func worse(a, b Bound) Bound {
	return Bound{Reported: max(a.Reported, b.Reported), Measured: max(a.Measured, b.Measured)}
}

func (b Bound) String() string {
	if b == (Bound{}) {
		return "-"
	}
	return fmt.Sprintf("%s of %s", thousands(b.Measured), thousands(b.Reported))
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// All reads the results of every cell, in the order of the matrix, and then those of [Kills].
func All(dir string) ([]*Result, error) {
	var cells []string
	for i := range Matrix {
		cells = append(cells, Matrix[i].Cell)
	}
	var out []*Result
	for _, cell := range append(cells, Kills) {
		for _, mode := range Modes {
			r, err := Load(dir, cell, mode)
			if err != nil {
				return nil, err
			}
			if r != nil {
				out = append(out, r)
			}
		}
	}
	return out, nil
}
