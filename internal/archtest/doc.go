// Package archtest holds the tests that keep the house in order: which package may import which,
// over transitive imports too, who may start goroutines and print, and what no tracked file says.
package archtest
