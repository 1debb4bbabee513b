package probe

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

// Verdicts of the large-folio step: how the note of [results.LimitFolioBytes] begins.
const (
	FoliosPresent    = "present"
	FoliosAbsent     = "absent"
	FoliosUnverified = "unverified"
)

// folioExcess is the least excess a flush must show for the trap to count as present.
const folioExcess = 64 << 10

// measureFolios asks whether a 1 KiB store through a shared mapping makes fdatasync write a whole
// large folio. It compares two written files that differ only in the size of the writes that
// filled their page cache: 1 MiB, for which the kernel may take large folios, and 4 KiB, for
// which it takes small ones. Bytes are counted at the device, and the median per flush is taken,
// so that a foreign write now and then does not decide.
func (s *session) measureFolios(ctx context.Context, slice time.Duration) error {
	part := parts(slice, 2)
	smallBytes, smallTime, err := s.mappedFlushes(ctx, "folio-4k", pageBytes, part(0))
	if err != nil {
		return err
	}
	largeBytes, largeTime, err := s.mappedFlushes(ctx, "folio-1m", blockBytes, part(1))
	if err != nil {
		return err
	}
	small, large := median(smallBytes), median(largeBytes)
	verdict := folioVerdict(small, large)
	note := verdict + ": file filled by 1 MiB writes"
	if verdict == FoliosUnverified {
		note = verdict + ": this directory's device offers no byte counter"
		s.note("large-folio trap %s", note)
	}
	s.add(results.Limit{Name: results.LimitFolioBytes, Unit: "B", Value: large, N: int64(len(largeBytes)), Note: note})
	if small > 0 {
		s.add(results.Limit{Name: results.LimitFolioBytes + ".4KiB", Unit: "B", Value: small, N: int64(len(smallBytes)), Note: "file filled by 4 KiB writes"})
	}
	s.addLatency(results.LimitMmapFlush, largeTime)
	s.addLatency(results.LimitMmapFlush+".4KiB", smallTime)
	return nil
}

// folioVerdict judges the median bytes that one flush sent to the device for either file; zero
// means that nothing was counted.
func folioVerdict(small, large float64) string {
	switch {
	case small <= 0 || large <= 0:
		return FoliosUnverified
	case large-small >= folioExcess && large >= 4*small:
		return FoliosPresent
	default:
		return FoliosAbsent
	}
}

// mappedFlushes fills name by writes of chunk bytes, then times flushes of single records stored
// through a mapping at random pages. It returns the bytes that each flush sent to the device,
// none if the device is not known, and how long the flushes took.
func (s *session) mappedFlushes(ctx context.Context, name string, chunk int, until time.Time) ([]float64, *hist, error) {
	const flushes = 200
	h := new(hist)
	f, err := s.open(name, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.close()
	size := s.size(folioFileBytes)
	for off := int64(0); off < size; off += int64(chunk) {
		if err := f.write(s.block[:chunk], off); err != nil {
			return nil, nil, err
		}
	}
	if err := f.sync(); err != nil {
		return nil, nil, err
	}
	m, err := unix.Mmap(f.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, f.err("mmap", err)
	}
	defer func() { _ = unix.Munmap(m) }() // every store was flushed or does not matter
	var sent []float64
	before, counted := s.device.read()
	for range flushes {
		start := time.Now()
		copy(m[s.rng.IntN(int(size)/pageBytes)*pageBytes:], s.block[:recordBytes])
		if err := f.syncData(); err != nil {
			return nil, nil, err
		}
		h.add(time.Since(start))
		if counted {
			var after deviceCounts
			if after, counted = s.device.read(); counted {
				sent = append(sent, float64(after.writtenBytes-before.writtenBytes))
				before = after
			}
		}
		if ctx.Err() != nil || !time.Now().Before(until) {
			break
		}
	}
	return sent, h, nil
}
