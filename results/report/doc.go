// Package report shows runs and comparisons: on a terminal, in Markdown, as JSON and as one HTML
// file that fetches nothing. It reads the files of a run and nothing else, and the same files give
// the same bytes.
//
// Three rules hold in every form. A number carries its unit. Results of different durability
// classes stand in separate groups and are never ranked together; where a factor changes the
// class, its effect is called a price. A result that failed a gate is shown with that word and
// takes no part in a comparison.
//
// Charts are SVG written by this package (docs/adr/0001-svg-charts.md). Every colour in them is a
// CSS class, so one file serves light, dark and paper.
package report
