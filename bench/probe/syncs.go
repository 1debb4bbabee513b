package probe

import (
	"context"
	"fmt"
	"time"

	"rmq/results"
)

// The states that a file can be in when a flush meets it. Each costs differently: a growing file
// journals its size, an allocated one the conversion of every new block, a written one nothing.
const (
	growing   = results.StateGrowing
	allocated = results.StateAllocated
	written   = results.StateWritten
)

var (
	syncStates = []string{written, allocated, growing}
	syncDepths = []int{1, 2, 4, 8}
)

// cell gathers one figure over the rounds of a step: operations, and the time they took.
type cell struct {
	hist hist
	n    int64
	took time.Duration
}

func (c *cell) add(n int64, took time.Duration) {
	c.n += n
	c.took += took
}

func (c *cell) rate() float64 { return rate(c.n, c.took) }

// measureSyncs finds the rate of 4 KiB pwrite + fdatasync by file state and by the number of
// files that are flushed at a time. One file a flusher: on one shared file the flushes queue
// behind its lock, and the log has one flusher a file anyway.
func (s *session) measureSyncs(ctx context.Context, slice time.Duration, states []string, depths []int) error {
	const rounds = 4
	part := parts(slice, rounds*len(states)*len(depths))
	sizes := map[string]int64{}
	files := map[string][]file{}
	prepared := time.Now().Add(slice / 4)
	for _, state := range states {
		sizes[state] = s.size(syncFileBytes)
		for i := range depths[len(depths)-1] {
			name := fmt.Sprintf("sync-%s-%d", state, i)
			if state == written {
				n, err := s.prewrite(ctx, name, sizes[state], prepared)
				if err != nil {
					return err
				}
				sizes[state] = min(sizes[state], n)
			}
			f, err := s.open(name, 0)
			if err != nil {
				return err
			}
			defer f.close()
			files[state] = append(files[state], f)
		}
	}
	cells := make(map[string]*cell)
	for n, round := 0, 0; round < rounds; round++ {
		for _, state := range states {
			for _, depth := range depths {
				name := results.LimitSync(state, depth)
				if cells[name] == nil {
					cells[name] = new(cell)
				}
				if err := s.syncCell(ctx, cells[name], state, files[state][:depth], sizes[state], part(n)); err != nil {
					return err
				}
				n++
			}
		}
	}
	for _, state := range states {
		for _, depth := range depths {
			name := results.LimitSync(state, depth)
			s.addCell(name, "1/s", cells[name])
		}
	}
	return nil
}

// syncCell runs one flusher a file until the clock says until, or a file of fresh blocks is full.
func (s *session) syncCell(ctx context.Context, c *cell, state string, files []file, size int64, until time.Time) error {
	for _, f := range files {
		if err := resetSyncFile(f, state, size); err != nil {
			return err
		}
	}
	hists := make([]hist, len(files))
	start := time.Now()
	err := s.each(ctx, "sync", len(files), func(ctx context.Context, i int) error {
		f, h, last := files[i], &hists[i], time.Now()
		for off := int64(0); ctx.Err() == nil; off += pageBytes {
			if off+pageBytes > size {
				if state != written {
					break
				}
				off = 0
			}
			if err := f.write(s.block[:pageBytes], off); err != nil {
				return err
			}
			if err := f.syncData(); err != nil {
				return err
			}
			now := time.Now()
			h.add(now.Sub(last))
			last = now
			if !now.Before(until) {
				break
			}
		}
		return nil
	})
	took := time.Since(start)
	var n int64
	for i := range hists {
		c.hist.merge(&hists[i])
		n += hists[i].n
	}
	c.add(n, took)
	return err
}

func resetSyncFile(f file, state string, size int64) error {
	switch state {
	case growing:
		return f.truncate(0)
	case allocated:
		if err := f.allocate(size); err != nil {
			return err
		}
		ok, err := f.renew(size)
		if ok || err != nil {
			return err
		}
		if err := f.truncate(0); err != nil {
			return err
		}
		return f.allocate(size)
	}
	return nil
}

// groupSizes are the groups whose flush is timed, in records of 1 KiB.
var groupSizes = []int{1, 8, 64}

// measureFlushes times one flusher that writes groups of records at the tail of a written file,
// each write padded to a page as the log's are. It also counts how many flush commands reached
// the device for each fdatasync: none means that the device has no volatile cache, or lies.
func (s *session) measureFlushes(ctx context.Context, slice time.Duration) error {
	const rounds = 4
	part := parts(slice, rounds*len(groupSizes))
	f, size, err := s.openLog(ctx)
	if err != nil {
		return err
	}
	defer f.close()
	cells := make([]hist, len(groupSizes))
	before, counted := s.device.read()
	var syncs int64
	var off int64
	for n := range rounds * len(groupSizes) {
		g := n % len(groupSizes)
		c, bytes, until := &cells[g], int64(groupSizes[g])*recordBytes, part(n)
		last := time.Now()
		for ctx.Err() == nil {
			end := roundUp(off + bytes)
			if end > size {
				off, end = 0, roundUp(bytes)
			}
			if err := f.write(s.block[:end-off], off); err != nil {
				return err
			}
			if err := f.syncData(); err != nil {
				return err
			}
			off += bytes
			now := time.Now()
			c.add(now.Sub(last))
			last = now
			if !now.Before(until) {
				break
			}
		}
	}
	after, stillCounted := s.device.read()
	for i := range cells {
		s.addLatency(results.LimitFlush(groupSizes[i]), &cells[i])
		syncs += cells[i].n
	}
	if counted && stillCounted && after.flushes >= 0 && syncs > 0 {
		s.add(results.Limit{Name: LimitDeviceFlushes, Unit: "flush/sync", Value: float64(after.flushes-before.flushes) / float64(syncs), N: syncs})
	}
	return nil
}
