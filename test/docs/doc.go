// Package docs writes the documents that come from tables in the code, and proves that they say what the code
// does.
package docs

//go:generate go test -count=1 -run ^TestCompatibility$ . -update
