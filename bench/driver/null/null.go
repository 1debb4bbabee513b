// Package null is the driver that stores nothing: its messages complete from another goroutine as
// soon as it gets to them. What a run against it costs is the harness's own cost.
package null

import (
	"context"
	"errors"
	"sync"

	"rmq/bench"
	"rmq/internal/run"
	"rmq/message"
)

// Driver implements [bench.Driver].
type Driver struct{}

// Name is "null".
func (Driver) Name() string { return "null" }

// Open starts the goroutine that completes messages.
func (Driver) Open(ctx context.Context, c bench.Config) (bench.Session, error) {
	s := &session{group: run.New(context.WithoutCancel(ctx), "null")}
	s.cond.L = &s.mu
	s.group.Go("completer", s.complete)
	return s, nil
}

var errClosed = errors.New("driver is closed")

// session completes what its senders hand over. Its goroutine is the completer.
type session struct {
	group *run.Group

	mu     sync.Mutex // guards what follows
	cond   sync.Cond  // something is pending, or closed
	queue  []*bench.Op
	spare  []*bench.Op
	idle   bool
	closed bool
	bytes  int64
}

func (s *session) complete(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.queue) == 0 && !s.closed {
			s.idle = true
			s.cond.Wait()
		}
		s.idle = false
		if len(s.queue) == 0 {
			return nil
		}
		batch := s.queue
		s.queue, s.spare = s.spare[:0], nil
		s.mu.Unlock()
		for _, o := range batch {
			o.Complete()
		}
		s.mu.Lock()
		s.spare = batch
	}
}

type sender struct {
	s     *session
	bytes int64
}

// Sender implements [bench.Session].
func (s *session) Sender([]*bench.Op) (bench.Sender, error) { return &sender{s: s}, nil }

// Encode implements [bench.Sender]. It looks at the message and keeps nothing.
func (n *sender) Encode(_ *bench.Op, m *message.Message) (int, error) {
	size := message.MinRecordBytes + len(m.Body) + len(m.Topic) + len(m.Properties)
	n.bytes += int64(size)
	return size, nil
}

// Send implements [bench.Sender].
func (n *sender) Send(ops []*bench.Op) {
	s := n.s
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		for _, o := range ops {
			o.Err = errClosed
			o.Complete()
		}
		return
	}
	s.queue = append(s.queue, ops...)
	s.bytes += n.bytes
	n.bytes = 0
	wake := s.idle
	s.idle = false
	s.mu.Unlock()
	if wake {
		s.cond.Signal()
	}
}

// Counters implements [bench.Session].
func (s *session) Counters() bench.Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bench.Counters{LogBytes: s.bytes}
}

// Config implements [bench.Session].
func (s *session) Config() map[string]string { return nil }

// Sync implements [bench.Session].
func (s *session) Sync(context.Context) error { return nil }

// Verify implements [bench.Session].
func (s *session) Verify(context.Context, *bench.Auditor) error { return bench.ErrNothingStored }

// Close implements [bench.Session].
func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cond.Broadcast()
	return s.group.Wait()
}
