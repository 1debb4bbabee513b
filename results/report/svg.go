package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// svg writes one chart. It knows shapes and text and nothing of data; every colour, width and font
// is a CSS class of the page. Coordinates are rounded to a tenth of a unit, so equal input gives
// equal bytes.
type svg struct {
	b    strings.Builder
	w, h float64
}

// newSVG opens a chart of w × h units. title is what a screen reader says; attrs are further
// attributes of the root, already escaped.
func newSVG(w, h float64, class, title, attrs string) *svg {
	s := &svg{w: w, h: h}
	fmt.Fprintf(&s.b, `<svg class="%s" viewBox="0 0 %s %s" role="img" aria-label="%s"%s>`, class, num(w), num(h), html.EscapeString(title), spaced(attrs))
	return s
}

func (s *svg) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&s.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, num(x1), num(y1), num(x2), num(y2))
}

func (s *svg) rect(class string, x, y, w, h, radius float64) {
	r := ""
	if radius > 0 {
		r = ` rx="` + num(radius) + `"`
	}
	fmt.Fprintf(&s.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"%s/>`, class, num(x), num(y), num(max(w, 0)), num(max(h, 0)), r)
}

// dot draws a circle; tip is shown when the pointer rests on it.
func (s *svg) dot(class string, x, y, r float64, tip string) {
	fmt.Fprintf(&s.b, `<circle class="%s" cx="%s" cy="%s" r="%s">%s</circle>`, class, num(x), num(y), num(r), title(tip))
}

func (s *svg) cross(class string, x, y, r float64, tip string) {
	fmt.Fprintf(&s.b, `<path class="%s" d="M%s %sL%s %sM%s %sL%s %s">%s</path>`, class,
		num(x-r), num(y-r), num(x+r), num(y+r), num(x-r), num(y+r), num(x+r), num(y-r), title(tip))
}

type point struct{ x, y float64 }

// path draws an open line through the points; NaN breaks it.
func (s *svg) path(class string, ps []point) {
	d := pathData(ps)
	if d != "" {
		fmt.Fprintf(&s.b, `<path class="%s" d="%s"/>`, class, d)
	}
}

// area fills between a line and another one.
func (s *svg) area(class string, top, bottom []point) {
	if len(top) == 0 || len(bottom) == 0 {
		return
	}
	back := make([]point, len(bottom))
	for i, p := range bottom {
		back[len(bottom)-1-i] = p
	}
	fmt.Fprintf(&s.b, `<path class="%s" d="%s%sZ"/>`, class, pathData(top), strings.Replace(pathData(back), "M", "L", 1))
}

func pathData(ps []point) string {
	var b strings.Builder
	pen := false
	for _, p := range ps {
		if math.IsNaN(p.x) || math.IsNaN(p.y) || math.IsInf(p.y, 0) {
			pen = false
			continue
		}
		if pen {
			b.WriteByte('L')
		} else {
			b.WriteByte('M')
		}
		pen = true
		b.WriteString(num(p.x) + " " + num(p.y))
	}
	return b.String()
}

// text writes at a baseline; anchor is start, middle or end.
func (s *svg) text(class, anchor string, x, y float64, t string) {
	fmt.Fprintf(&s.b, `<text class="%s" x="%s" y="%s"`, class, num(x), num(y))
	if anchor != "start" {
		fmt.Fprintf(&s.b, ` text-anchor="%s"`, anchor)
	}
	fmt.Fprintf(&s.b, `>%s</text>`, html.EscapeString(t))
}

// link opens an anchor to a place of the same page.
func (s *svg) link(anchor string) { fmt.Fprintf(&s.b, `<a href="#%s">`, html.EscapeString(anchor)) }

func (s *svg) endLink() { s.b.WriteString("</a>") }

// close ends the chart. It is safe as HTML: all text went through escaping, the rest is numbers and
// names of classes from this package.
func (s *svg) close() template.HTML {
	s.b.WriteString("</svg>")
	return template.HTML(s.b.String())
}

func title(t string) string {
	if t == "" {
		return ""
	}
	return "<title>" + html.EscapeString(t) + "</title>"
}

// num prints a coordinate with at most one decimal.
func num(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "0"
	}
	v = math.Round(v*10) / 10
	if v == 0 {
		return "0" // never -0
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// textWidth guesses the width of a label of 11 units height.
func textWidth(t string) float64 {
	w := 0.0
	for _, r := range t {
		switch {
		case strings.ContainsRune(" .,:;il|'1[]()", r):
			w += 3.4
		case strings.ContainsRune("mwMW%@", r):
			w += 9.2
		default:
			w += 6.2
		}
	}
	return w
}
