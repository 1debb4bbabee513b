package failover

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/internal/run"
	"rmq/remoting"
	"rmq/results"
)

// seen counts how often each message of a stream was found, up to 255 times.
type seen struct {
	mu        sync.Mutex
	counts    []uint8
	corrupted int64
}

func (s *seen) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for int64(len(s.counts)) <= n {
		s.counts = append(s.counts, make([]uint8, n+1)...)
	}
	if s.counts[n] < 255 {
		s.counts[n]++
	}
}

func (s *seen) count(n int64) uint8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= int64(len(s.counts)) {
		return 0
	}
	return s.counts[n]
}

// ledger knows the streams of a cluster by the run ids in their bodies.
type ledger struct {
	found     map[uint64]*seen
	missing   atomic.Int64
	missingAt atomic.Pointer[string]
}

func newLedger(runIDs ...uint64) *ledger {
	l := &ledger{found: map[uint64]*seen{}}
	for _, id := range runIDs {
		l.found[id] = &seen{}
	}
	return l
}

// take books one body; those of other runs are passed over.
func (l *ledger) take(body []byte) {
	if len(body) < bench.HeaderBytes {
		return
	}
	s := l.found[binary.BigEndian.Uint64(body[8:])]
	if s == nil {
		return
	}
	n, err := bench.ParsePayload(body, binary.BigEndian.Uint64(body[8:]))
	if err != nil || n < 0 {
		s.mu.Lock()
		s.corrupted++
		s.mu.Unlock()
		return
	}
	s.add(n)
}

// Body and Missing implement [wire.QueueReader].
func (l *ledger) Body(_ int64, body []byte) { l.take(body) }

func (l *ledger) Missing(offset int64, err error) {
	l.missing.Add(1)
	why := fmt.Sprintf("offset %d: %v", offset, err)
	l.missingAt.CompareAndSwap(nil, &why)
}

// queueKey is one queue.
type queueKey struct {
	topic string
	queue int32
}

// ends asks for the end of every queue.
func ends(ctx context.Context, net *remoting.Client, addr string, topics []string, queues int) (map[queueKey]int64, error) {
	out := map[queueKey]int64{}
	for _, topic := range topics {
		for q := range int32(queues) {
			end, err := wire.QueueEnd(ctx, net, addr, topic, q)
			if err != nil {
				return nil, err
			}
			out[queueKey{topic, q}] = end
		}
	}
	return out, nil
}

// logMin is where the log of the broker at addr begins.
func logMin(ctx context.Context, net *remoting.Client, addr string) (int64, error) {
	info, err := wire.RuntimeInfo(ctx, net, addr)
	if err != nil {
		return 0, err
	}
	v := info["commitLogMinOffset"]
	at, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s says that its log begins at %q: that is no number", addr, v)
	}
	return at, nil
}

const readers = 4

// readBack reads every queue of the node at addr from where it ended when the load began.
func readBack(ctx context.Context, net *remoting.Client, addr string, from map[queueKey]int64, l *ledger) error {
	keys := make([]queueKey, 0, len(from))
	for k := range from {
		keys = append(keys, k)
	}
	var next atomic.Int64
	g := run.New(ctx, "failover/audit")
	for range min(readers, len(keys)) {
		g.Go("read", func(ctx context.Context) error {
			conn, err := net.Dial(ctx, addr)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // it only asked
			for {
				i := int(next.Add(1)) - 1
				if i >= len(keys) {
					return nil
				}
				k := keys[i]
				if err := wire.ReadQueue(ctx, conn, k.topic, k.queue, from[k], l); err != nil {
					return fmt.Errorf("read %s/%d back from %s: %w", k.topic, k.queue, addr, err)
				}
			}
		})
	}
	return g.Wait()
}

// audit sets what was found against what was acknowledged, trial by trial. consumed is what consumers have read. removed is
// how many bytes of log retention has taken since the load began: where it has, what is not there has expired and is no
// loss, and the trials do not count.
func (e *epoch) audit(found, consumed *ledger, removed int64) {
	f := e.r.f
	between := func(s *stream, from, to int64) {
		for n := from; n < to; n++ {
			switch {
			case found.found[s.runID].count(n) > 0: // as it should be
			case s.at(n).state.Load() == acked && removed > 0:
				f.ExpiredBetween++
			case s.at(n).state.Load() == acked:
				f.LostBetween++
			case removed == 0 && consumed.found[s.runID].count(n) > 0:
				f.GoneBetween++
			}
		}
	}
	for i, s := range e.streams {
		done := int64(0) // messages before have been looked at
		for _, t := range e.trials {
			from, to := s.first(t.at-int64(beforeEvent)), min(s.first(t.at+t.after), s.count())
			between(s, done, from)
			done = max(done, to)
			c := &t.res.Clients[i]
			for n := from; n < to; n++ {
				copies := found.found[s.runID].count(n)
				switch {
				case copies > 1:
					c.Duplicated++
				case copies == 1: // as it should be
				case s.at(n).state.Load() == acked && removed > 0:
					c.Expired++
				case s.at(n).state.Load() == acked:
					c.Lost++
				case removed == 0 && consumed.found[s.runID].count(n) > 0:
					t.res.ReadAndGone++
				}
			}
		}
		between(s, done, s.count())
		f.Damaged += found.found[s.runID].corrupted
	}
	for _, t := range e.trials {
		t.res.Audited = true
		if removed > 0 {
			t.res.Void = fmt.Sprintf("retention removed %s of log before it was read back", results.FormatBytes(float64(removed)))
		}
	}
	f.Damaged += found.missing.Load()
}

// trial is one trial of an epoch, for the audit.
type trial struct {
	at    int64 // ns of the run's clock
	after int64
	res   *results.FailoverTrial
}
