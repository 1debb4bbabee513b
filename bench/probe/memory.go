package probe

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

// measureMemory finds what a copy costs: 1 KiB and 64 KiB inside the cache, and 1 KiB records
// laid one after the other into 256 MiB, which is what a log in memory would do.
func (s *session) measureMemory(ctx context.Context, slice time.Duration) error {
	start := time.Now()
	at := func(share float64) time.Time { return start.Add(time.Duration(float64(slice) * share)) }
	size := int(s.size(copyRangeBytes))
	region, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(region) }() // process memory: nothing to lose
	// Pages touched for the first time come from the host and are slow; touch them off the clock.
	touched := 0
	for touched == 0 || touched < size && time.Now().Before(at(0.6)) && ctx.Err() == nil {
		for end := touched + blockBytes; touched < end; touched += pageBytes {
			region[touched] = 1
		}
	}
	region = region[:touched:size]
	for _, c := range []struct {
		name  string
		bytes int
		until time.Time
	}{{results.LimitMemcpy1K, 1 << 10, at(0.7)}, {results.LimitMemcpy64K, 64 << 10, at(0.8)}} {
		dst, src := region[:c.bytes], s.block[:c.bytes]
		began := time.Now()
		now := began
		var n int64
		for n == 0 || now.Before(c.until) && ctx.Err() == nil {
			for range 1024 {
				copy(dst, src)
			}
			n += 1024
			now = time.Now()
		}
		s.add(results.Limit{Name: c.name, Unit: "B/s", Value: rate(n*int64(c.bytes), now.Sub(began)), N: n})
	}
	began := time.Now()
	now := began
	var n int64
	for off := 0; n == 0 || now.Before(at(1)) && ctx.Err() == nil; now = time.Now() {
		for range 1024 {
			copy(region[off:off+recordBytes], s.block[off%blockBytes:])
			if off += recordBytes; off == len(region) {
				off = 0
			}
		}
		n += 1024
	}
	s.add(results.Limit{Name: results.LimitMemcpyRegion, Unit: "msg/s", Value: rate(n, now.Sub(began)), N: n})
	return nil
}
