package probe

import (
	"context"
	"time"

	"rmq/results"
)

// appendCells are the ways to put records at the tail of a file. Padded writes zeros from the end
// of the record to the end of its page, so that a page is never written in part: a written file
// whose pages are on the disk only has to read a page before it can change a part of it.
var appendCells = []struct {
	name   string
	state  string
	bytes  int64 // of one pwrite
	padded bool
}{
	{results.LimitAppend(growing), growing, recordBytes, false},
	{LimitAppendPadded(growing), growing, recordBytes, true},
	{results.LimitAppend(allocated), allocated, recordBytes, false},
	{LimitAppendPadded(allocated), allocated, recordBytes, true},
	{results.LimitAppend(written), written, recordBytes, false},
	{LimitAppendPadded(written), written, recordBytes, true},
	{results.LimitPwriteBatch, written, 64 << 10, false},
}

// measureAppends finds the rate of pwrites into the page cache, one writer, no flush. The figure
// is the median over chunks of at most 32 MiB; between chunks the file is put back into its
// state, off the clock. The pages of a written file are not cached when its chunk begins.
func (s *session) measureAppends(ctx context.Context, slice time.Duration) error {
	part := parts(slice, len(appendCells))
	log, logLen, err := s.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.close()
	f, err := s.open("append", 0)
	if err != nil {
		return err
	}
	defer f.close()
	for i, ac := range appendCells {
		target, size := f, s.size(appendBytes)
		if ac.state == written {
			target, size = log, min(size, logLen)
		}
		var (
			h     hist
			rates []float64 // one a chunk
		)
		for until := part(i); ctx.Err() == nil; {
			if err := resetAppendFile(target, ac.state, size); err != nil {
				return err
			}
			r, err := s.appendChunk(ctx, &h, target, size, ac.bytes, ac.padded, until)
			if err != nil {
				return err
			}
			rates = append(rates, r)
			if !time.Now().Before(until) {
				break
			}
		}
		s.addTimed(ac.name, "msg/s", median(rates), &h)
	}
	return nil
}

func resetAppendFile(f file, state string, size int64) error {
	if state != written {
		return resetSyncFile(f, state, size)
	}
	if err := f.syncData(); err != nil {
		return err
	}
	f.dropCache()
	return nil
}

// appendChunk writes one file full of records, or what fits until the clock says until. One write
// in seventeen is timed on its own: a look at the clock costs a tenth of a small write, and an odd
// stride meets every place of a record within its page. It returns the records written a second.
func (s *session) appendChunk(ctx context.Context, h *hist, f file, size, bytes int64, padded bool, until time.Time) (float64, error) {
	const timedEvery = 17
	start := time.Now()
	var n int64
	for off := int64(0); roundUp(off+bytes) <= size; off += bytes {
		end := off + bytes
		if padded {
			end = roundUp(end)
		}
		data := s.block[off%(blockBytes/2):][:end-off]
		if n++; n%timedEvery != 0 {
			if err := f.write(data, off); err != nil {
				return 0, err
			}
			continue
		}
		before := time.Now()
		if err := f.write(data, off); err != nil {
			return 0, err
		}
		now := time.Now()
		h.add(now.Sub(before))
		if !now.Before(until) || ctx.Err() != nil {
			break
		}
	}
	return rate(n*bytes/recordBytes, time.Since(start)), nil //nolint:nilerr // the probe ends with its context
}
