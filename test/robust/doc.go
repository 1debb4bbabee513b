// Package robust is the fault matrix as data: which fault is played against which mode, what is promised,
// and what came out. The faults themselves are played on the real programs by package drills
// (make robust); it leaves one JSON file for each cell under results, and docs/ROBUSTNESS.md is made from
// these files alone (go generate ./test/robust).
package robust

//go:generate go run ./report ../../docs/ROBUSTNESS.md
