package bench

import (
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shows that a device's counters are read from its own line, and that a kernel without flush
// counters leaves them unknown instead of zero.
func TestParseDiskstats(t *testing.T) {
	const text = `   7       0 loop0 5 0 10 1 0 0 0 0 0 1 1 0 0 0 0 0 0
 254       0 vda 100 1 200 3 400 5 600 7 0 9 10 11 12 13 14 1500 16
   8       0 sda 1 2 3 4 5 6 7 8 9 10 11
`
	c := parseDiskstats(text, disk{"254", "0"})
	require.EqualValues(t, 200*512, *c.readBytes)
	require.EqualValues(t, 400, *c.writes)
	require.EqualValues(t, 600*512, *c.writeBytes)
	require.EqualValues(t, 1500, *c.flushes)
	c = parseDiskstats(text, disk{"8", "0"})
	require.Nil(t, c.flushes)
	require.EqualValues(t, 7*512, *c.writeBytes)
	require.Nil(t, parseDiskstats(text, disk{"9", "9"}).writeBytes)
}

// Shows that busy time leaves idle, waiting and steal out, and that an unreadable line is unknown.
func TestParseProcStat(t *testing.T) {
	busy, steal := parseProcStat("cpu  100 200 300 4000 5000 60 70 80 9 9\ncpu0 1 1\n")
	require.InDelta(t, 7.3, *busy, 1e-9)
	require.InDelta(t, 0.8, *steal, 1e-9)
	busy, steal = parseProcStat("intr 5\n")
	require.Nil(t, busy)
	require.Nil(t, steal)
}

// Shows that fields are found by their whole name and that kB are bytes.
func TestFieldOf(t *testing.T) {
	const text = "DirtyX: 5 kB\nDirty:    12 kB\npswpin 7\n"
	require.EqualValues(t, 12<<10, *fieldOf(text, "Dirty"))
	require.EqualValues(t, 7, *fieldOf(text, "pswpin"))
	require.Nil(t, fieldOf(text, "Swap"))
}

// Shows that only the pauses between two snapshots count.
func TestPausesBetween(t *testing.T) {
	buckets := []float64{0, 1e-6, 1e-5, 1e-4, 1e-3}
	a := &metrics.Float64Histogram{Counts: []uint64{5, 5, 5, 5}, Buckets: buckets}
	b := &metrics.Float64Histogram{Counts: []uint64{5, 8, 6, 5}, Buckets: buckets}
	p50, most := pausesBetween(a, b)
	require.InDelta(t, 10, p50, 1e-9)
	require.InDelta(t, 100, most, 1e-9)
	p50, most = pausesBetween(b, b)
	require.Zero(t, p50+most)
}
