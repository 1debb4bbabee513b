package probe

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

const (
	directDepth    = 4        // requests in flight of the direct steps
	appendBytesAt  = 64 << 10 // one buffered write of the write-back step
	writebackEvery = 4 << 20  // bytes between two requests for early write-back
	writebackLag   = 32 << 20 // bytes that may be on their way to the disk
)

// measureBandwidth finds the sequential limits: direct and write-back writing, direct and cached reading.
func (s *session) measureBandwidth(ctx context.Context, slice time.Duration) error {
	start := time.Now()
	at := func(share float64) time.Time { return start.Add(time.Duration(float64(slice) * share)) }
	f, err := s.open("seq", 0)
	if err != nil {
		return err
	}
	defer f.close()
	size := s.size(seqFileBytes)
	written, err := s.measureWriteback(ctx, f, size, at(0.55))
	if err != nil {
		return err
	}
	if err := s.measureDirect(ctx, results.LimitWriteDirect, "seq", written, at(0.75), file.write); err != nil {
		return err
	}
	f.dropCache()
	if err := s.measureDirect(ctx, results.LimitReadDirect, "seq", written, at(0.92), file.read); err != nil {
		return err
	}
	return s.measureCachedRead(ctx, f, min(written, logFileBytes), at(1))
}

// measureWriteback writes f through the page cache again and again, the way a log under
// asynchronous flush does: 64 KiB a call, early write-back every few MiB, never more than a
// bounded number of bytes in flight, a sync at the end of each pass. Because dirty bytes are
// bounded, a pass shows the disk and not the memory in front of it.
//
// The first pass is told apart: its cache pages may be memory that the machine never touched
// before, which a virtual machine has to fetch from its host first. It returns the bytes of f
// that were written.
func (s *session) measureWriteback(ctx context.Context, f file, size int64, until time.Time) (int64, error) {
	if err := f.allocate(size); err != nil {
		return 0, err
	}
	if err := f.sync(); err != nil {
		return 0, err
	}
	var covered, bytes int64
	var took time.Duration
	note := ""
	for pass := 0; ctx.Err() == nil && (pass == 0 || time.Now().Before(until)); pass++ {
		if pass > 0 {
			if _, err := f.renew(size); err != nil {
				return covered, err
			}
		}
		start := time.Now()
		n, err := s.writebackPass(ctx, f, size, until)
		if err != nil {
			return covered, err
		}
		d := time.Since(start)
		covered = max(covered, n)
		switch pass {
		case 0:
			s.add(results.Limit{Name: LimitWriteBackFirst, Unit: "B/s", Value: rate(n, d), N: n / appendBytesAt})
			note = "first pass only"
		case 1:
			bytes, took, note = 0, 0, ""
		}
		bytes += n
		took += d
	}
	if bytes > 0 {
		s.add(results.Limit{Name: results.LimitWriteBack, Unit: "B/s", Value: rate(bytes, took), N: bytes / appendBytesAt, Note: note})
	}
	return covered, ctx.Err()
}

func (s *session) writebackPass(ctx context.Context, f file, size int64, until time.Time) (int64, error) {
	var off, started int64
	for off < size && ctx.Err() == nil && (off == 0 || time.Now().Before(until)) {
		if err := f.write(s.block[off%blockBytes:][:appendBytesAt], off); err != nil {
			return off, err
		}
		off += appendBytesAt
		if off-started < writebackEvery {
			continue
		}
		// Not every file system offers it; without it the final sync does all the work.
		_ = unix.SyncFileRange(f.fd, started, off-started, unix.SYNC_FILE_RANGE_WRITE)
		started = off
		if off > writebackLag {
			_ = unix.SyncFileRange(f.fd, off-writebackLag-writebackEvery, writebackEvery, unix.SYNC_FILE_RANGE_WAIT_BEFORE)
		}
	}
	return off, f.syncData()
}

// measureDirect runs op over 1 MiB blocks of name past the page cache, four in flight.
func (s *session) measureDirect(ctx context.Context, limit, name string, size int64, until time.Time, op func(file, []byte, int64) error) error {
	f, direct, err := s.openDirect(name)
	if err != nil {
		return err
	}
	defer f.close()
	if !direct {
		s.note("%s: no direct I/O on this file system, the page cache takes part", limit)
	}
	blocks := size / blockBytes
	if blocks == 0 {
		return nil
	}
	var next atomic.Int64
	hists := make([]hist, directDepth)
	start := time.Now()
	err = s.each(ctx, limit, directDepth, func(ctx context.Context, i int) error {
		buf := alignedBuffer(blockBytes, uint64(i+1))
		for last := time.Now(); ctx.Err() == nil; {
			if err := op(f, buf, (next.Add(1)-1)%blocks*blockBytes); err != nil {
				return err
			}
			now := time.Now()
			hists[i].add(now.Sub(last))
			last = now
			if !now.Before(until) {
				return nil
			}
		}
		return nil
	})
	if err == nil && !direct {
		err = f.syncData()
	}
	took := time.Since(start)
	var all hist
	for i := range hists {
		all.merge(&hists[i])
	}
	s.addTimed(limit, "B/s", rate(all.n*blockBytes, took), &all)
	return err
}

// measureCachedRead reads f from the page cache, 64 KiB a call.
func (s *session) measureCachedRead(ctx context.Context, f file, size int64, until time.Time) error {
	buf := make([]byte, appendBytesAt)
	size -= size % appendBytesAt
	if size == 0 {
		return nil
	}
	half := time.Now().Add(time.Until(until) / 2)
	var ready int64 // bytes known to be cached
	for ready < size && (ready == 0 || time.Now().Before(half)) && ctx.Err() == nil {
		if err := f.read(buf, ready); err != nil {
			return err
		}
		ready += appendBytesAt
	}
	var h hist
	start := time.Now()
	last := start
	for off := int64(0); ctx.Err() == nil; off += appendBytesAt {
		if err := f.read(buf, off%ready); err != nil {
			return err
		}
		now := time.Now()
		h.add(now.Sub(last))
		last = now
		if !now.Before(until) {
			break
		}
	}
	s.addTimed(results.LimitReadCached, "B/s", rate(h.n*appendBytesAt, last.Sub(start)), &h)
	return nil
}
