package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// shown is a result that prints itself where it is not JSON. Rows — slices of structs with col tags — need no
// method: they become columns.
type shown interface{ text(p *page) }

// page is where a result writes its text.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// show writes a result: as JSON by its json tags, or as the text that stock tools print.
func show(w io.Writer, result any, asJSON bool) error {
	if asJSON {
		return printJSON(w, result)
	}
	var p page
	if s, ok := result.(shown); ok {
		s.text(&p)
	} else {
		p.columns(result)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

// columns writes rows, a slice of structs, below their titles. A field with the tag col:"#Title" is a column, in
// the format of the tag fmt (default %v).
func (p *page) columns(rows any) {
	v := reflect.ValueOf(rows)
	cols := columnsOf(v.Type().Elem())
	table := [][]string{make([]string, len(cols))}
	for j, c := range cols {
		table[0][j] = c.title
	}
	for i := range v.Len() {
		cells := make([]string, len(cols))
		for j, c := range cols {
			cells[j] = fmt.Sprintf(c.format, v.Index(i).FieldByIndex(c.index).Interface())
		}
		table = append(table, cells)
	}
	p.grid(table)
}

// grid writes cells under each other, two blanks between columns and none at the end of a line.
func (p *page) grid(table [][]string) {
	var widths []int
	for _, cells := range table {
		for j, c := range cells {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range table {
		var line strings.Builder
		for j, c := range cells {
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)+2))
		}
		p.line("%s", strings.TrimRight(line.String(), " "))
	}
}

type column struct {
	title, format string
	index         []int
}

func columnsOf(t reflect.Type) []column {
	var out []column
	for _, f := range reflect.VisibleFields(t) {
		title, ok := f.Tag.Lookup("col")
		if !ok {
			continue
		}
		format := f.Tag.Get("fmt")
		if format == "" {
			format = "%v"
		}
		out = append(out, column{title, format, f.Index})
	}
	return out
}

// report is a result whose text is lines of its own.
type report struct {
	data  any
	lines []string
}

// says is a result with the JSON of data and one line of text.
func says(data any, format string, args ...any) *report {
	return (&report{data: data}).and(format, args...)
}

// and adds a line.
func (r *report) and(format string, args ...any) *report {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
	return r
}

func (r *report) text(p *page) {
	for _, l := range r.lines {
		p.line("%s", l)
	}
}

// MarshalJSON gives the data alone.
func (r *report) MarshalJSON() ([]byte, error) { return marshal(r.data) }

// stamp is a time as stock tools print it, "" for none.
func stamp(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return clock(ms).Format("2006-01-02 15:04:05,000")
}

// stampSeconds is the same to the second.
func stampSeconds(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return clock(ms).Format("2006-01-02 15:04:05")
}

func clock(ms int64) time.Time { return time.UnixMilli(ms) }

// marshal is [json.Marshal] that leaves < and > as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// javaMap is a map as Java prints it: {a=1, b=2}, here sorted.
func javaMap[K cmp.Ordered, V any](m map[K]V) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%v=%v", k, m[k]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
