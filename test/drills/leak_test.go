//go:build drills

package drills

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// saveHeap keeps a profile of the heap where go test -artifacts finds it.
func (n *node) saveHeap(t testing.TB) {
	t.Helper()
	_, heap := n.page(t, "/debug/pprof/heap")
	require.NoError(t, os.WriteFile(filepath.Join(t.ArtifactDir(), "heap.pprof"), []byte(heap), 0o644))
}

// awaitUsage waits until a node has no more than it had: goroutines but for a few, descriptors but for
// those of files that were made, and heap bytes of live heap more, such as caches of the store keep.
func (n *node) awaitUsage(t testing.TB, before usage, heap int64) {
	t.Helper()
	const goroutines, descriptors = 4, 32
	var now usage
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		now = n.usage(t)
		if now.goroutines <= before.goroutines+goroutines && now.descriptors <= before.descriptors+descriptors && now.liveBytes <= before.liveBytes+heap {
			t.Logf("before %+v, after %+v", before, now)
			return
		}
		if time.Now().After(end) {
			_, profile := n.page(t, "/debug/pprof/goroutine?debug=1")
			n.saveHeap(t)
			t.Fatalf("before %+v, after %+v: this stays\n%s", before, now, profile)
		}
	}
}

// Proves that what 2000 idle connections took returns when they go: goroutines, descriptors, memory.
func TestRobustIdleConnections(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	n := c.brokers[0]
	before := n.usage(t)
	const many = 2000
	var conns []net.Conn
	for range many {
		conn, err := net.Dial("tcp", n.addr())
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	eventually(t, 10*time.Second, "all are accepted", func() bool { return n.usage(t).descriptors >= before.descriptors+many })
	each := (n.usage(t).anonBytes - before.anonBytes) / many
	t.Logf("an idle connection takes %d bytes of RssAnon", each)
	require.Less(t, each, int64(40<<10), "10,000 of them are to fit into 400 MB")
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	n.awaitUsage(t, before, 8<<20)
}
