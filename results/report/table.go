package report

import (
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// table is a small grid of text. Columns whose head begins with '<' are set flush left, the
// others flush right.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) columns() (heads []string, aligns []tw.Align) {
	for _, h := range t.head {
		if left, ok := strings.CutPrefix(h, "<"); ok {
			heads, aligns = append(heads, left), append(aligns, tw.AlignLeft)
			continue
		}
		heads, aligns = append(heads, h), append(aligns, tw.AlignRight)
	}
	return heads, aligns
}

func (t *table) render(r tw.Renderer) (string, error) {
	heads, aligns := t.columns()
	var b strings.Builder
	tb := tablewriter.NewTable(&b,
		tablewriter.WithRenderer(r),
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignmentConfig(tw.CellAlignment{PerColumn: aligns}),
		tablewriter.WithRowAlignmentConfig(tw.CellAlignment{PerColumn: aligns}),
	)
	tb.Header(heads)
	if err := tb.Bulk(t.rows); err != nil {
		return "", err
	}
	if err := tb.Render(); err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// text renders for a terminal: a rule under the head and nothing else.
func (t *table) text() (string, error) {
	return t.render(renderer.NewBlueprint(tw.Rendition{
		Borders: tw.BorderNone,
		Symbols: tw.NewSymbols(tw.StyleLight),
		Settings: tw.Settings{
			Separators: tw.Separators{BetweenColumns: tw.Off, BetweenRows: tw.Off, ShowHeader: tw.On},
			Lines:      tw.Lines{ShowHeaderLine: tw.On, ShowTop: tw.Off, ShowBottom: tw.Off, ShowFooterLine: tw.Off},
		},
	}))
}

// markdown renders a pipe table.
func (t *table) markdown() (string, error) {
	esc := table{head: t.head}
	for _, row := range t.rows {
		out := make([]string, len(row))
		for i, c := range row {
			out[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		esc.rows = append(esc.rows, out)
	}
	return esc.render(renderer.NewMarkdown())
}
