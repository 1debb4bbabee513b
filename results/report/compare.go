package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"rmq/results"
)

// CompareText writes a comparison for a terminal: what differs first, then warnings, then ratios.
func CompareText(w io.Writer, c *results.Comparison) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A %s%s\nB %s%s\n", c.DirA, labelText(c.LabelA), c.DirB, labelText(c.LabelB))
	if len(c.Differ) == 0 {
		b.WriteString("no option differs\n")
	} else {
		t := differTable(c)
		text, err := t.text()
		if err != nil {
			return err
		}
		b.WriteString("differing options\n" + text)
	}
	for _, s := range c.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", s)
	}
	if t := comparisonTable(c); len(t.rows) > 0 {
		text, err := t.text()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\nB against A (above 1: B does better; noise band ±%g %%; * decides the exit code)\n%s", c.Band*100, text)
	}
	for _, l := range compareFoot(c) {
		b.WriteString(l + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// CompareMarkdown writes a comparison as Markdown.
func CompareMarkdown(w io.Writer, c *results.Comparison) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# B against A\n\n- A: %s%s\n- B: %s%s\n", c.DirA, labelText(c.LabelA), c.DirB, labelText(c.LabelB))
	if err := mdTable(&b, "Differing options", differTable(c)); err != nil {
		return err
	}
	mdList(&b, "Warnings", c.Warnings)
	if err := mdTable(&b, fmt.Sprintf("Ratios (above 1: B does better; noise band ±%g %%; * decides the exit code)", c.Band*100), comparisonTable(c)); err != nil {
		return err
	}
	mdList(&b, "Over all cells", compareFoot(c))
	_, err := io.WriteString(w, b.String())
	return err
}

// CompareJSON writes a comparison as JSON.
func CompareJSON(w io.Writer, c *results.Comparison) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Schema int `json:"schema"`
		*results.Comparison
	}{results.SchemaVersion, c})
}

func differTable(c *results.Comparison) *table {
	t := &table{head: []string{"<option", "<A", "<B"}}
	for _, d := range c.Differ {
		t.add(d.Name, d.A, d.B)
	}
	return t
}

func comparisonTable(c *results.Comparison) *table {
	t := &table{head: []string{"<cell", "<class", "<metric", "A", "B", "B vs A", "<95 %", "p (Holm)", "<verdict"}}
	for _, x := range c.Cells {
		metric := x.Metric.Label
		if x.Decides {
			metric += " *"
		}
		class := string(x.ClassA)
		if x.ClassB != x.ClassA {
			class += " / " + string(x.ClassB)
		}
		value := func(v float64) string {
			if x.Metric.Unit == "us" {
				return results.FormatUS(v)
			}
			return results.FormatRate(v)
		}
		ratio, iv, p := "–", "", "–"
		if x.Ratio.Verdict != results.NotComparable {
			ratio, iv, p = "×"+ratioText(x.Ratio.Value), interval(x.Ratio.Interval, ratioText), pText(x.Ratio.PHolm)
		}
		t.add(x.Name, class, metric, value(x.A), value(x.B), ratio, iv, p, verdictText(x.Ratio))
	}
	return t
}

// compareFoot says what weakens single cells, and the mean ratios.
func compareFoot(c *results.Comparison) []string {
	var ls []string
	for _, x := range c.Cells {
		for _, w := range x.Warnings {
			what := "throughput"
			if x.Metric.Part == results.PartOpen {
				what = "latency"
			}
			l := fmt.Sprintf("warning: %s, %s: %s", x.Name, what, w)
			if !slices.Contains(ls, l) {
				ls = append(ls, l)
			}
		}
	}
	for _, m := range results.Metrics() {
		if v, ok := c.Summary[m.Name]; ok {
			ls = append(ls, fmt.Sprintf("geometric mean, %s: ×%.2f", m.Label, v))
		}
	}
	return ls
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
