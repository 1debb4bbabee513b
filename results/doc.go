// Package results is the record of benchmark runs: their schema, the directory that keeps one,
// the statistics that judge it and the comparison of two. Nothing in it measures anything, and
// it links no engine: a report can be rebuilt from the files alone, on any machine.
//
// A run is a directory (docs/format/results.md):
//
//	manifest.json                     matrix, seed, order, command line, complete or not  [Manifest]
//	env.json                          the machine, the toolchain, the effective config    [Env]
//	probe.json                        what the machine can do, before and after           [Probe]
//	cells/<cell>/<rep>/result.json    one cell in one block: a closed and an open part    [Rep], [Result]
//	cells/<cell>/<rep>/hist.bin       histograms, whole part and per second               [Hist]
//	cells/<cell>/<rep>/series.ndjson  one row a second                                    [Row]
//	history.jsonl                     one line per cell, for trend pages                  [HistoryLine]
//
// Every JSON file begins with its schema version. [Open] and [Store.Load] refuse another
// version, or a file that does not parse, by name.
//
// Units: times in a field name end in _us or _s, bytes in _bytes, rates in _per_s; a msg is one
// message of the cell's body size. A pointer field is nil where the host offers no such counter,
// which is not the same as zero: a gate that needs it becomes unverified.
package results
