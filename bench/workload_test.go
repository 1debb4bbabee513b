package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Shows that every rate a user may type is read, and anything else refused with what may be typed.
func TestParseRate(t *testing.T) {
	for s, want := range map[string]Rate{
		"":      {Closed: true, Open: true, Fraction: 0.5},
		"max":   {Closed: true},
		"80%":   {Closed: true, Open: true, Fraction: 0.8},
		"60000": {Open: true, PerS: 60000},
		"60k":   {Open: true, PerS: 60000},
		"1.5M":  {Open: true, PerS: 1.5e6},
	} {
		got, err := ParseRate(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"fast", "0", "-5", "0%", "NaN", "NaN%", "1e12", "%", "k"} {
		_, err := ParseRate(s)
		require.ErrorContains(t, err, "--rate="+s+" is no rate: use", s)
	}
}

// Shows that every wrong level is refused, all of them at once, each with its flag and the fix.
func TestValidate(t *testing.T) {
	good := Workload{Cell: testCell(), Duration: time.Second}
	require.NoError(t, good.Validate())

	bad := good
	bad.Cell.Flush, bad.Cell.Write, bad.Cell.Repl, bad.Cell.Arrival, bad.Cell.Keys = "maybe", "stone", "four", "late", "odd"
	bad.Cell.Topics, bad.Cell.Queues, bad.Cell.SizeBytes, bad.Cell.Producers, bad.Cell.Window = 0, 0, 5, 0, 0
	bad.Cell.Rate, bad.Cell.Entropy, bad.Duration, bad.Warmup = "x", 2, 0, -1
	err := bad.Validate()
	for _, want := range []string{
		"--flush=maybe is unknown: use async or sync", "--write=stone is unknown: use pwrite or mmap", "--repl=four is unknown: use none or async or sync or raft",
		"--arrival=late", "--topics=0 is out of range: use 1 to", "--queues=0", "--size=5B is out of range: use 32B", "--producers=0", "--window=0",
		"--rate=x", "--entropy=2", "--duration=0s", "--warmup=-1ns",
	} {
		require.ErrorContains(t, err, want)
	}
	good.Cell.Producers, good.Cell.Window = 1000, 1000
	require.ErrorContains(t, good.Validate(), "messages in flight")

	good.Cell.Producers, good.Cell.Window, good.Cell.SizeBytes = 1000, 1, MaxSizeBytes
	require.ErrorContains(t, good.Validate(), "--producers=1000 times --window=1 holds 3.91 GiB of --size=4MiB in memory, above 1GiB: lower one of them")

	good.Cell = testCell()
	good.MaxBytes = 1
	require.ErrorContains(t, good.Validate(), "--max-bytes=1B ends before anything is measured: use 1MiB or more for 8 messages of ")
}

// Shows that messages in flight never hold more memory than allowed, whatever their size.
func TestOutstandingIsBounded(t *testing.T) {
	w := Workload{Cell: testCell()}
	require.Equal(t, DefaultOpenWindow, w.outstanding("open"))
	require.Equal(t, 8, w.outstanding("closed"))
	w.Cell.SizeBytes = MaxSizeBytes
	require.LessOrEqual(t, w.outstanding("open")*MaxSizeBytes, maxOpBytes)
}
