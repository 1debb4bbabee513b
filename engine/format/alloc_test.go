//go:build !race

// The race detector keeps the compiler from inlining, and allocates.

package format

import "testing"

// Encoding and decoding allocate nothing.
func TestNoAllocations(t *testing.T) {
	buf := make([]byte, 0, 2*CheckpointBytes)
	topic, key := []byte("TopicTest"), []byte("Key1")
	page := make([]byte, CheckpointBytes)
	for name, f := range map[string]func(){
		"queue entry":  func() { buf = AppendCQEntry(buf[:0], CQFiller); _, _ = ParseCQEntry(buf) },
		"index header": func() { buf = AppendIndexHeader(buf[:0], IndexHeader{}); _, _ = ParseIndexHeader(buf) },
		"index entry":  func() { buf = AppendIndexEntry(buf[:0], IndexEntry{}); _, _ = ParseIndexEntry(buf) },
		"index hash":   func() { IndexHash(topic, key) },
		"checkpoint":   func() { buf = AppendCheckpointPage(buf[:0], CheckpointPage{}); _, _ = ParseCheckpointPage(page) },
		"file name":    func() { _, _ = ParseFileName("00000000001073741824") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
