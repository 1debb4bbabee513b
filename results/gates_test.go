package results_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/resultstest"
)

// goodRep is a repetition that passes every gate.
func goodRep(t *testing.T, flush string) (results.Cell, *results.Rep, *results.Env, *results.Probe) {
	t.Helper()
	cells := resultstest.Matrix([]string{flush}, []int{1}, []int{64})
	r := load(t, write(t, resultstest.Options{Cells: cells, Reps: 1}))
	rep := r.Cells[0].Reps[0]
	for _, p := range rep.Parts() {
		p.Resources.FreqChange = results.Ptr(0.01)
		p.Judge(rep.Cell, r.Env, r.Probe)
		require.Empty(t, p.FailedGates())
		require.Empty(t, p.UnverifiedGates())
		require.True(t, p.Valid)
	}
	return rep.Cell, rep, r.Env, r.Probe
}

// Proves that each gate fails on its own cause, and only that one.
func TestEachGateFails(t *testing.T) {
	for name, c := range map[string]struct {
		gate  string
		flush string
		edit  func(*results.Result)
	}{
		"late pacer":       {"pacing error", "sync", func(r *results.Result) { r.Pacing.P99 = 1001 }},
		"late for its p50": {"pacing error", "async", func(r *results.Result) { r.Pacing.P99 = 201 }},
		"busy generator":   {"generator CPU", "sync", func(r *results.Result) { r.Resources.GenCPUS = results.Ptr(0.71 * r.Resources.GenCores * r.MeasuredS) }},
		"steal":            {"steal", "sync", func(r *results.Result) { r.Resources.StealS = results.Ptr(0.021 * 2 * r.MeasuredS) }},
		"foreign CPU":      {"foreign CPU", "sync", func(r *results.Result) { r.Resources.ForeignCPUS = results.Ptr(0.06 * 2 * r.MeasuredS) }},
		"foreign I/O":      {"foreign device I/O", "sync", func(r *results.Result) { r.Resources.ForeignDevBytes = results.Ptr(*r.Resources.DevWriteBytes / 10) }},
		"throttled":        {"CPU frequency change", "sync", func(r *results.Result) { r.Resources.FreqChange = results.Ptr(0.06) }},
		"swapped":          {"swap", "sync", func(r *results.Result) { r.Resources.SwapInOut = results.Ptr(int64(1)) }},
		"clock step":       {"clock step", "sync", func(r *results.Result) { r.Resources.ClockStepUS = results.Ptr(-1000.0 - 501*r.MeasuredS) }},
		"full disk":        {"free disk", "sync", func(r *results.Result) { r.Resources.FreeDiskFrac = results.Ptr(0.14) }},
		"errors":           {"errors", "sync", func(r *results.Result) { r.Counts.Failed = map[string]int64{"FLUSH_DISK_TIMEOUT": 1} }},
		"out of range":     {"samples in range", "sync", func(r *results.Result) { r.Counts.OutOfRange = 1 }},
		"lost":             {"verify", "sync", func(r *results.Result) { r.Verify.Lost = 1 }},
		"duplicated":       {"verify", "sync", func(r *results.Result) { r.Verify.Duplicated = 1 }},
		"corrupted":        {"verify", "sync", func(r *results.Result) { r.Verify.Corrupted = 1 }},
		"counts disagree":  {"verify", "sync", func(r *results.Result) { r.Verify.ByScan++ }},
		"no device flush":  {"durability class", "sync", func(r *results.Result) { r.Resources.DevFlushes = results.Ptr(int64(0)) }},
		"too few flushes": {"durability class", "sync", func(r *results.Result) {
			r.Resources.DevFlushes = results.Ptr(r.Counts.Acked*98/100/int64(r.Load.Outstanding) - 3)
		}},
		"a flush a message": {"durability class", "async", func(r *results.Result) { r.Resources.DevFlushes = results.Ptr(r.Counts.Acked) }},
		"folio trap":        {"device bytes / log bytes", "async", func(r *results.Result) { r.Resources.DevFinalBytes = results.Ptr(r.Resources.LogBytes * 3) }},
		"sync written 1.4×": {"device bytes / log bytes", "sync", func(r *results.Result) { r.Resources.DevFinalBytes = results.Ptr(r.Resources.LogBytes * 14 / 10) }},
		"not on the device": {"device bytes / log bytes", "async", func(r *results.Result) { r.Resources.DevFinalBytes = results.Ptr(int64(0)) }},
	} {
		t.Run(name, func(t *testing.T) {
			cell, rep, env, probe := goodRep(t, c.flush)
			c.edit(rep.Open)
			rep.Open.Judge(cell, env, probe)
			failed := rep.Open.FailedGates()
			require.Len(t, failed, 1, "%+v", failed)
			require.Equal(t, c.gate, failed[0].Name)
			require.False(t, rep.Open.Valid)
		})
	}
}

// Proves that a synchronous log of small groups may write one block of 4 KiB again with every flush,
// and no more than that.
func TestBlockOfEachFlushIsAllowed(t *testing.T) {
	cell, rep, env, probe := goodRep(t, "sync")
	r := rep.Open
	r.Counts.Acked, r.Resources.LogBytes = 32_000, 32_000*256
	r.Verify = &results.Verify{Acked: 32_000, ByQueue: 32_000, ByScan: 32_000}
	r.Resources.EngineFlushes, r.Resources.PrepareBytes = results.Ptr(int64(1000)), 0
	for perFlush, ok := range map[int64]bool{8192 + 4096: true, 8192 + 4096 + 512: false} {
		r.Resources.DevFinalBytes = results.Ptr(1000 * perFlush)
		r.Judge(cell, env, probe)
		require.Equal(t, ok, r.Valid, "%d bytes a flush: %+v", perFlush, r.FailedGates())
	}
}

// Proves that a counter which the host does not offer makes its gate unverified: neither passed nor
// a reason to call the result invalid.
func TestMissingCountersAreUnverified(t *testing.T) {
	cell, rep, env, probe := goodRep(t, "sync")
	r := rep.Open
	r.Resources = results.Resources{LogBytes: r.Resources.LogBytes}
	r.Pacing, r.Verify = nil, nil
	r.Judge(cell, env, probe)
	require.Empty(t, r.FailedGates())
	require.True(t, r.Valid)
	var names []string
	for _, g := range r.UnverifiedGates() {
		names = append(names, g.Name)
		require.NotEmpty(t, g.Note, g.Name)
	}
	require.Equal(t, []string{
		"pacing error", "generator CPU", "steal", "foreign CPU", "foreign device I/O", "CPU frequency change", "swap", "clock step",
		"free disk", "verify", "durability class", "device bytes / log bytes",
	}, names)
	r.Judge(cell, nil, nil)
	require.True(t, r.Valid, "no environment, no probe")
}

// Proves the durability class of each pair of modes, and that memory is never called a disk.
func TestDurabilityClass(t *testing.T) {
	for _, c := range []struct {
		flush, repl, fs, driver string
		want                    results.Class
	}{
		{"async", "none", "ext4", "embedded", "D1a"}, {"sync", "none", "ext4", "embedded", "D1"},
		{"async", "async", "ext4", "wire", "D2"}, {"sync", "async", "ext4", "wire", "D1+lag"},
		{"async", "sync", "xfs", "wire", "D3"}, {"sync", "sync", "xfs", "wire", "D3f"},
		{"async", "raft", "xfs", "wire", "D4"}, {"sync", "raft", "xfs", "wire", "D5"},
		{"sync", "none", "tmpfs", "embedded", "D1a"}, {"sync", "raft", "tmpfs", "wire", "D4"},
		{"sync", "none", "ext4", "null", "D0"},
	} {
		got, note := results.DurabilityClass(results.Cell{Flush: c.flush, Repl: c.repl, Driver: c.driver}, c.fs, false)
		require.Equal(t, c.want, got, "%+v", c)
		require.Equal(t, c.fs == "tmpfs" || c.driver == "null", note != "", "%+v", c)
		require.NotEqual(t, "unknown", got.Means())
	}
	require.Equal(t, "unknown", results.Class("D9").Means())

	// Nodes of Apache's: what they acknowledge lies in page caches.
	stock := func(flush, repl string) results.Class {
		c, _ := results.DurabilityClass(results.Cell{Flush: flush, Repl: repl, Driver: "wire"}, "ext4", true)
		return c
	}
	require.Equal(t, results.ClassD3s, stock("sync", "sync"))
	require.Equal(t, results.ClassD4, stock("sync", "raft"))
	require.Equal(t, results.ClassD1, stock("sync", "none"))
}

// hops are those of an append, by their means in microseconds.
func hops(means ...float64) (hs []results.ReplicaHop) {
	for i, name := range []string{"append", "localFlush", "send", "remoteAppend", "remoteFlush", "ack"} {
		hs = append(hs, results.ReplicaHop{Name: name, N: 100, MeanUS: means[i]})
	}
	return hs
}

// Proves the bottleneck word for each cause, from measurements that have only that one.
func TestBottleneck(t *testing.T) {
	for name, c := range map[string]struct {
		flush string
		want  results.Bottleneck
		edit  func(c *results.Cell, r *results.Result)
	}{
		"generator": {"sync", results.BottleneckGenerator, func(_ *results.Cell, r *results.Result) {
			r.Resources.GenCPUS = results.Ptr(0.9 * r.Resources.GenCores * r.MeasuredS)
		}},
		"flush": {"sync", results.BottleneckFlush, func(*results.Cell, *results.Result) {}},
		"disk": {"async", results.BottleneckDisk, func(_ *results.Cell, r *results.Result) {
			r.Resources.DevWriteBytes = results.Ptr(int64(1.8e9 * r.MeasuredS))
		}},
		"cpu": {"async", results.BottleneckEngineCPU, func(_ *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS = results.Ptr(1.9 * r.MeasuredS)
		}},
		"cpu taken by others": {"async", results.BottleneckEngineCPU, func(_ *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS, r.Resources.HostCPUS = results.Ptr(0.4*r.MeasuredS), results.Ptr(1.95*r.MeasuredS)
			r.Throughput.AckedPerS, r.Resources.DevWriteBytes = 90_000, results.Ptr(int64(1e8))
		}},
		"lock": {"async", results.BottleneckLock, func(_ *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS = results.Ptr(0.4 * r.MeasuredS)
			r.Throughput.AckedPerS, r.Resources.DevWriteBytes = 90_000, results.Ptr(int64(1e8))
		}},
		"window": {"sync", results.BottleneckWindow, func(_ *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS = results.Ptr(0.1 * r.MeasuredS)
			r.Load.Outstanding = 2
			r.Throughput.AckedPerS, r.Latency.Service.Mean, r.Latency.Service.P50 = 6000, 333, 300
			r.Counts.Acked = int64(6000 * r.MeasuredS)
			r.Resources.EngineFlushes = results.Ptr(int64(3000 * r.MeasuredS))
			r.Resources.DevWriteBytes = results.Ptr(int64(1e7))
		}},
		"replica": {"async", results.BottleneckReplica, func(c *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS = results.Ptr(0.4 * r.MeasuredS)
			r.Throughput.AckedPerS, r.Resources.DevWriteBytes = 90_000, results.Ptr(int64(1e8))
			c.Repl = "sync"
			r.Replication = &results.Replication{Hops: hops(20, 30, 10, 400, 500, 1000)}
		}},
		"own disk beside a replica": {"async", results.BottleneckLock, func(c *results.Cell, r *results.Result) {
			r.Resources.ProcCPUS = results.Ptr(0.4 * r.MeasuredS)
			r.Throughput.AckedPerS, r.Resources.DevWriteBytes = 90_000, results.Ptr(int64(1e8))
			c.Repl = "sync"
			r.Replication = &results.Replication{Hops: hops(20, 900, 10, 400, 400, 1000)}
		}},
		"null": {"async", results.BottleneckGenerator, func(c *results.Cell, _ *results.Result) { c.Driver = "null" }},
	} {
		t.Run(name, func(t *testing.T) {
			cell, rep, env, probe := goodRep(t, c.flush)
			r := rep.Closed
			r.Resources.GenCPUS = results.Ptr(0.1)
			c.edit(&cell, r)
			r.Judge(cell, env, probe)
			require.Equal(t, c.want, r.Limits.Bottleneck, "%s; %+v", r.Limits.Why, r.Limits.Lines)
			require.NotEmpty(t, r.Limits.Why)
		})
	}
	_, rep, _, _ := goodRep(t, "sync")
	require.Equal(t, results.BottleneckNone, rep.Open.Limits.Bottleneck)
	require.Equal(t, "kept the offered rate", rep.Open.Limits.Why)
}

// Proves that the group-commit ceiling is interpolated between probed counts and kept beyond them.
func TestGroupCommitBetweenCounts(t *testing.T) {
	p := resultstest.Probe()
	v, ok := p.GroupCommit(64)
	require.True(t, ok)
	require.Equal(t, 167_000.0, v)
	v, _ = p.GroupCommit(128)
	require.InDelta(t, 222_700, v, 300, "the geometric mean of 167 k and 297 k")
	v, _ = p.GroupCommit(4096)
	require.Equal(t, 297_000.0, v)
	_, ok = (*results.Probe)(nil).GroupCommit(1)
	require.False(t, ok)
	for _, l := range p.Start.Limits {
		require.NotEmpty(t, results.LimitTitle(l.Name), l.Name)
	}
	require.Empty(t, results.LimitTitle("of.another.version"))
	require.Len(t, p.Drifts(), 3)
	require.InDelta(t, 6900.0/7100, p.Drifts()[0].Ratio, 1e-9)
}
