// Package embedded is the driver that loads the engine in this process: no network, no protocol,
// the completions of the store straight into the recorder.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"rmq/bench"
	"rmq/engine"
	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/replication"
	"rmq/results"
)

// Driver implements [bench.Driver]. The zero value uses the real file system and the engine's
// defaults.
type Driver struct {
	// Options, if set, may change the options of a store before it is opened.
	Options func(*engine.Options)
}

// Name is "embedded".
func (Driver) Name() string { return "embedded" }

// Open opens a new store and waits until its first segments are ready.
func (d Driver) Open(ctx context.Context, c bench.Config) (bench.Session, error) {
	flush, err := engine.ParseFlushMode(c.Cell.Flush)
	if err != nil {
		return nil, err
	}
	write, err := engine.ParseWriteMode(c.Cell.Write)
	if err != nil {
		return nil, err
	}
	o := engine.Options{FS: vfs.OS, Dir: c.Dir, Flush: flush, Write: write, SegmentBytes: c.SegmentBytes, Events: listener(c.Event)}
	if d.Options != nil {
		d.Options(&o)
	}
	if c.Cell.Extra["path"] == bench.PathLog {
		o.DispatchDisabled, o.IndexDisabled = true, true
	}
	s := &session{opts: o, repl: c.Cell.Repl, placed: placements{workers: int64(c.Workers)}, topics: c.Topics, queues: c.Cell.Queues}
	if s.repl != "none" {
		if s.copies, err = openCopies(ctx, s.repl, c.Dir, o); err != nil {
			return nil, err
		}
		s.log = s.copies.lead
		return s, nil
	}
	if s.store, err = engine.Open(ctx, o); err != nil {
		return nil, err
	}
	s.log = replication.NewPlain(s.store, replication.Events{})
	if err := s.store.WaitPrepared(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare segments: %w", err), s.Close())
	}
	return s, nil
}

// listener turns what the engine tells into events of the series.
func listener(event func(kind, detail string, took time.Duration)) engine.EventListener {
	if event == nil {
		return engine.EventListener{}
	}
	return engine.EventListener{
		Flush: func(e engine.FlushEvent) {
			event(results.EventFlush, "", e.Took)
		},
		Roll: func(e engine.RollEvent) {
			detail := "segment " + strconv.FormatInt(e.Segment, 10)
			if !e.Prepared {
				detail += ", not prepared"
			}
			event(results.EventRoll, detail, 0)
		},
		Checkpoint: func(e engine.CheckpointEvent) { event(results.EventCheckpoint, "", e.Took) },
		Clean:      func(e engine.CleanEvent) { event(results.EventClean, e.Reason, 0) },
		Stall:      func(e engine.StallEvent) { event(results.EventStall, e.Cause, e.Took) },
		Poison:     func(err error) { event(results.EventStall, err.Error(), 0) },
	}
}

type session struct {
	opts   engine.Options
	repl   string
	topics []string
	queues int
	log    log           // where messages go
	store  *engine.Store // the log's, or what a replicated one is read with afterwards; nil before that
	copies *copies       // nil without replicas
	placed placements    // of ready batches
	leads  tally         // of the leader's log, once it was scanned
}

// CaughtUp implements [bench.Replicated].
func (s *session) CaughtUp(ctx context.Context) error {
	if s.copies == nil {
		return nil
	}
	return s.copies.caughtUp(ctx)
}

// Stock implements [bench.Replicated].
func (s *session) Stock() bool { return false }

// slot is the engine's side of one message in flight.
type slot struct {
	a  engine.Append
	op *bench.Op
}

type sender struct {
	s      *session
	slots  []slot
	vector []*engine.Append
}

// Sender implements [bench.Session].
func (s *session) Sender(ops []*bench.Op) (bench.Sender, error) {
	if s.opts.DispatchDisabled {
		return s.readySender(ops), nil
	}
	n := &sender{s: s, slots: make([]slot, len(ops)), vector: make([]*engine.Append, 0, len(ops))}
	done := func(a *engine.Append) {
		op := n.slots[a.Tag].op
		op.Err = a.Err
		op.Complete()
	}
	for i, op := range ops {
		if op.Slot != i {
			return nil, fmt.Errorf("BUG: message %d has slot %d", i, op.Slot)
		}
		n.slots[i].op = op
		n.slots[i].a.Tag, n.slots[i].a.Done = int64(i), done
	}
	return n, nil
}

// Encode implements [bench.Sender].
func (n *sender) Encode(op *bench.Op, m *message.Message) (int, error) {
	a := &n.slots[op.Slot].a
	rec, err := message.AppendRecord(a.Record[:0], m)
	if err != nil {
		return 0, err
	}
	a.Record = rec
	return len(rec), nil
}

// Send implements [bench.Sender].
func (n *sender) Send(ops []*bench.Op) {
	n.vector = n.vector[:0]
	for _, op := range ops {
		n.vector = append(n.vector, &n.slots[op.Slot].a)
	}
	n.s.log.SubmitVector(n.vector)
}

// Counters implements [bench.Session].
func (s *session) Counters() bench.Counters {
	st := s.log.Stats()
	c := bench.Counters{
		LogBytes: st.RecordBytes, Flushes: &st.Flushes, Writes: &st.Writes, PreparedBytes: st.PreparedBytes,
		Unprepared: st.UnpreparedSegments, Stalls: st.Stalls,
	}
	if s.copies != nil {
		c.Replicas, c.PreparedBytes = s.copies.count(), 0
		for _, n := range s.copies.nodes {
			c.PreparedBytes += n.Stats().PreparedBytes
		}
	}
	return c
}

// Config implements [bench.Session].
func (s *session) Config() map[string]string {
	o := s.opts
	if s.store != nil {
		o = s.store.Options()
	} else {
		o.EnsureDefaults()
	}
	return map[string]string{
		"flushDiskType": o.Flush.String(), "write": o.Write.String(), "mappedFileSizeCommitLog": strconv.FormatInt(o.SegmentBytes, 10),
		"mappedFileSizeConsumeQueue": strconv.FormatInt(o.QueueFileBytes, 10), "maxHashSlotNum": strconv.Itoa(int(o.MaxHashSlots)),
		"maxIndexNum": strconv.Itoa(int(o.MaxIndexEntries)), "messageIndexEnable": strconv.FormatBool(!o.IndexDisabled),
		"maxMessageSize": strconv.Itoa(o.MaxMessageBytes), "flushIntervalCommitLog": o.FlushInterval.String(),
		"flushCommitLogLeastPages": strconv.Itoa(o.FlushLeastPages), "flushCommitLogThoroughInterval": o.FlushThorough.String(),
		"maxUnflushedBytes": strconv.FormatInt(o.MaxUnflushed, 10), "maxPendingBytes": strconv.FormatInt(o.MaxPending, 10),
		"tailCacheBytes": strconv.FormatInt(o.TailCache, 10), "checkpointBytes": strconv.FormatInt(o.CheckpointBytes, 10),
		"flushConsumeQueueThoroughInterval": o.CheckpointPeriod.String(), "prepareSegments": strconv.FormatBool(!o.PrepareDisabled),
	}
}

// Sync implements [bench.Session].
func (s *session) Sync(ctx context.Context) error {
	if s.copies == nil {
		return s.log.Flush(ctx)
	}
	for _, n := range s.copies.nodes {
		if err := n.Flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [bench.Session].
func (s *session) Close() error {
	var errs []error
	if s.copies != nil {
		errs = append(errs, s.copies.close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

const (
	readCount = 64
	readBytes = 1 << 20
)

// Verify implements [bench.Session]: it closes the store, that of whoever leads where there are replicas, opens it as a reader would after a
// restart, and reads every queue by its offsets and the log from end to end.
func (s *session) Verify(ctx context.Context, a *bench.Auditor) error {
	o := s.opts
	o.Events = engine.EventListener{}
	o.PrepareDisabled = true   // nothing will be appended
	o.DispatchDisabled = false // queues are made from the log
	readers := []engine.Options{o}
	if s.copies != nil {
		readers = s.copies.readers(s.repl, o)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	s.placed.sort()
	st, err := engine.Open(ctx, readers[0])
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	s.store = st
	if err := st.WaitDispatchedPos(ctx, st.Max()); err != nil {
		return err
	}
	g := run.New(ctx, "verify")
	g.Go("scan", func(ctx context.Context) error { return s.scan(ctx, a) })
	var next atomic.Int64
	queues := st.Queues()
	for i := range runtime.GOMAXPROCS(0) {
		g.Go(fmt.Sprintf("queues-%d", i), func(ctx context.Context) error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(queues) {
					return nil
				}
				if err := s.readQueue(ctx, a, queues[i]); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.compare(ctx, readers[1:])
}

func (s *session) scan(ctx context.Context, a *bench.Auditor) error {
	end := s.store.Max()
	at, err := s.store.Scan(ctx, s.store.Min(), func(pos int64, r *message.Record) bool {
		s.leads.add(pos, r)
		if s.opts.DispatchDisabled {
			a.ScanOf(pos, s.placed.find(pos), r.Body)
		} else {
			a.Scan(pos, r.Body)
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil || at < end {
		a.ScanEnded(at, end, err)
	}
	return nil
}

// compare reads the logs of the nodes that did not lead and sets them against what scan has found.
func (s *session) compare(ctx context.Context, others []engine.Options) error {
	for _, o := range others {
		o.DispatchDisabled = true // its queues are not read
		st, err := engine.Open(ctx, o)
		if err != nil {
			return fmt.Errorf("open a copy: %w", err)
		}
		var have tally
		_, err = st.Scan(ctx, st.Min(), func(pos int64, r *message.Record) bool {
			have.add(pos, r)
			return true
		})
		if err := errors.Join(err, st.Close()); err != nil {
			return fmt.Errorf("read the copy in %s: %w", o.Dir, err)
		}
		if have != s.leads {
			return fmt.Errorf("the copy in %s has %v, that of the leader %v", o.Dir, have, s.leads)
		}
	}
	return nil
}

func (s *session) readQueue(ctx context.Context, a *bench.Auditor, q engine.QueueName) error {
	reader := a.Queue(q.Topic, q.ID)
	at, end, ok := s.store.QueueRange(q.Topic, q.ID)
	if !ok {
		return nil
	}
	var m message.Record
	take := func(rec []byte) {
		if err := message.ParseRecord(rec, &m); err != nil {
			reader.Missing(at, err)
		} else if s.opts.DispatchDisabled {
			reader.BodyOf(at, s.placed.find(m.PhysicalOffset), m.Body)
		} else {
			reader.Body(at, m.Body)
		}
		at++
	}
	for at < end {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r, err := s.store.Get(q.Topic, q.ID, at, readCount, readBytes)
		r.Each(take)
		n := r.Count()
		status := r.Status
		r.Release()
		if err != nil || n == 0 {
			if err == nil {
				err = fmt.Errorf("status %v", status)
			}
			reader.Missing(at, err)
			at++
		}
	}
	return nil
}
