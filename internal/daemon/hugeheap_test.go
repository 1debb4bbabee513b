package daemon

import (
	"bytes"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that the heap comes into huge pages, where the kernel has any for those who ask.
func TestHugeHeap(t *testing.T) {
	mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || bytes.Contains(mode, []byte("[never]")) {
		t.Skip("SKIPPED: this kernel gives no huge pages: transparent_hugepage/enabled is never, or not there")
	}
	heap := make([]byte, 64<<20)
	for i := 0; i < len(heap); i += 4096 {
		heap[i] = 1
	}
	h := newHugeHeap()
	require.NoError(t, h.look(t.Context()))
	require.GreaterOrEqual(t, len(h.asked), 16)
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	kib := 0
	for _, m := range regexp.MustCompile(`AnonHugePages: +(\d+) kB`).FindAllSubmatch(smaps, -1) {
		n, err := strconv.Atoi(string(m[1]))
		require.NoError(t, err)
		kib += n
	}
	require.Positive(t, kib, "in huge pages")
	t.Logf("%d KiB in huge pages, of %d asked for", kib, len(h.asked)*hugePage>>10)
	for i := 0; i < len(heap); i += 4096 {
		require.EqualValues(t, 1, heap[i])
	}
	runtime.KeepAlive(heap)
	_, _, ok := anonymous("7ffd1000-7ffd2000 rw-p 00000000 00:00 0 [stack]")
	require.True(t, ok)
	_, _, ok = anonymous("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x")
	require.False(t, ok)
}
