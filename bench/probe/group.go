package probe

import (
	"context"
	"runtime"
	"sync"
	"time"

	"rmq/results"
)

// groupProducers are the numbers of producers for which the group-commit ceiling is measured.
var groupProducers = []int{1, 8, 64, 256}

// groupCommit is group commit in the best way known here, with nothing else around it: producers
// copy a record into a shared buffer under a mutex and wait; one committer swaps the buffer for
// an empty one, writes it with one pwrite, padded to a page, syncs once and wakes the whole
// group by closing one channel. Whatever gathered during a flush is the next group.
type groupCommit struct {
	f    file
	size int64 // of f, all of it written before

	mu    sync.Mutex
	buf   []byte
	n     int           // records in buf
	done  chan struct{} // closed when the records in buf are durable
	idle  bool          // the committer waits on wake
	err   error         // set before done is closed for the last time
	spare []byte

	wake chan struct{}

	flushes, records int64 // of the committer
	busy             hist  // write + sync, one a group
}

func newGroupCommit(f file, size int64, producers int) *groupCommit {
	bufBytes := int(roundUp(int64(producers)*recordBytes) + pageBytes)
	return &groupCommit{
		f: f, size: size,
		buf: alignedBuffer(bufBytes, 1), spare: alignedBuffer(bufBytes, 2),
		done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// append puts rec into the current group and returns when it is durable.
func (g *groupCommit) append(rec []byte) error {
	g.mu.Lock()
	if g.err != nil {
		g.mu.Unlock()
		return g.err
	}
	copy(g.buf[g.n*recordBytes:], rec)
	g.n++
	done, wake := g.done, g.idle
	g.idle = false
	g.mu.Unlock()
	if wake {
		g.wake <- struct{}{}
	}
	<-done
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// gather lets the producers that were just woken run before the next group is taken. Without
// it the committer finds the few that were quickest, flushes for those, and ends up serving two
// halves in turn; with it a group holds nearly everybody (measured: 1.8 times the acks at 8 and
// 64 producers). It gives up after two yields in a row that brought nothing.
func (g *groupCommit) gather(last int) {
	seen, still := -1, 0
	for range 32 {
		g.mu.Lock()
		n := g.n
		g.mu.Unlock()
		if n >= last {
			return
		}
		if n > seen {
			seen, still = n, 0
		} else if still++; still == 2 {
			return
		}
		runtime.Gosched()
	}
}

// commit is the committer. It returns when stop is closed and nothing waits.
func (g *groupCommit) commit(stop <-chan struct{}) error {
	var pos int64
	last := 0
	for {
		g.gather(last)
		g.mu.Lock()
		if g.n == 0 {
			g.idle = true
			g.mu.Unlock()
			select {
			case <-g.wake:
			case <-stop:
				return nil
			}
			g.mu.Lock()
		}
		buf, n, done := g.buf, g.n, g.done
		g.buf, g.spare, g.n, g.done = g.spare, buf, 0, make(chan struct{})
		g.mu.Unlock()

		start := time.Now()
		bytes := int64(n) * recordBytes
		if roundUp(pos+bytes) > g.size {
			pos = 0
		}
		err := g.f.write(buf[:roundUp(pos+bytes)-pos], pos)
		if err == nil {
			err = g.f.syncData()
		}
		if err != nil {
			g.fail(err, done)
			return err
		}
		pos += bytes
		last = n
		g.flushes++
		g.records += int64(n)
		g.busy.add(time.Since(start))
		close(done)
	}
}

// fail gives err to the group just tried, to the one that gathered meanwhile, and to all to come.
func (g *groupCommit) fail(err error, done chan struct{}) {
	g.mu.Lock()
	g.err = err
	next := g.done
	g.mu.Unlock()
	close(done)
	close(next)
}

// groupCell is what was found for one number of producers.
type groupCell struct {
	cell
	flushes, records int64
	busy             hist
}

// measureGroups finds the group-commit ceiling: acked 1 KiB records a second, the latency of an
// ack and, if detail is asked for, flushes a second and the mean group.
func (s *session) measureGroups(ctx context.Context, slice time.Duration, producers []int, detail bool) error {
	const rounds = 3
	part := parts(slice, rounds*len(producers))
	f, size, err := s.openLog(ctx)
	if err != nil {
		return err
	}
	defer f.close()
	cells := make([]groupCell, len(producers))
	for n := range rounds * len(producers) {
		if err := s.groupRound(ctx, &cells[n%len(producers)], f, size, producers[n%len(producers)], part(n)); err != nil {
			return err
		}
	}
	for i := range cells {
		c, name := &cells[i], results.LimitGroup(producers[i])
		s.addCell(name, "msg/s", &c.cell)
		if detail && c.flushes > 0 {
			group := float64(c.records) / float64(c.flushes)
			s.addTimed(name+".flushes", "1/s", c.rate()/group, &c.busy)
			s.add(results.Limit{Name: name + ".size", Unit: "msg", Value: group, N: c.flushes})
		}
	}
	return nil
}

func (s *session) groupRound(ctx context.Context, c *groupCell, f file, size int64, producers int, until time.Time) error {
	g := newGroupCommit(f, size, producers)
	hists := make([]*hist, producers)
	for i := range hists {
		hists[i] = new(hist)
	}
	committed := s.group(ctx, "commit")
	stop := make(chan struct{})
	committed.Go("committer", func(context.Context) error { return g.commit(stop) })
	start := time.Now()
	err := s.each(ctx, "producer", producers, func(ctx context.Context, i int) error {
		h, rec := hists[i], s.block[i%256*recordBytes:][:recordBytes]
		for last := time.Now(); ; {
			if err := g.append(rec); err != nil {
				return err
			}
			now := time.Now()
			h.add(now.Sub(last))
			if last = now; !now.Before(until) || ctx.Err() != nil {
				return nil //nolint:nilerr // the probe ends with its context
			}
		}
	})
	took := time.Since(start)
	close(stop)
	if cerr := committed.Wait(); err == nil {
		err = cerr
	}
	for _, h := range hists {
		c.hist.merge(h)
	}
	c.add(g.records, took)
	c.flushes += g.flushes
	c.records += g.records
	c.busy.merge(&g.busy)
	return err
}
