package failover

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"rmq/bench"
	"rmq/client"
	"rmq/results"
)

// Client sends messages to whoever takes them.
type Client interface {
	// Send takes one message; done is called exactly once, from any goroutine: nil says that it was acknowledged. body
	// is the client's until then. Send does not wait for answers.
	Send(topic string, queue int32, body []byte, done func(error))
	// Close ends the client; what is in flight ends with an error.
	Close() error
}

// message is what became of one message.
type message struct {
	sent, done atomic.Int64 // ns of the run's clock; 0: not yet
	state      atomic.Uint32
}

// States of a message.
const (
	pending = iota
	acked
	failed
	unknown // it may be stored
)

// unknownOutcome says that a client does not know what has become of a message, after all that it tries.
func unknownOutcome(err error) bool {
	var u *client.UnknownOutcomeError
	return errors.As(err, &u) || errors.Is(err, errStatus)
}

// errStatus is in the chain of the error of a message of which a client says that it is stored, with less than was promised.
var errStatus = errors.New("stored, and its safety is unknown")

const chunkMessages = 1 << 12

// stream is one client with its schedule: message n is due at start + n / rate, whatever became of those before.
type stream struct {
	name   string
	client Client
	runID  uint64
	rate   float64
	window int64
	size   int
	topics []string
	queues int
	clock  func() int64 // ns since the run began
	mono   int64        // CLOCK_MONOTONIC when it began
	start  int64

	inFlight atomic.Int64
	acks     atomic.Int64
	room     chan struct{}
	settled  int64 // all messages before have been answered; of lag

	mu      sync.Mutex
	chunks  []*[chunkMessages]message
	n       int64
	failure string // the first error since it was asked for
}

func (s *stream) due(n int64) int64 { return s.start + int64(float64(n)*1e9/s.rate) }

// at returns message n, making room for it.
func (s *stream) at(n int64) *message {
	s.mu.Lock()
	defer s.mu.Unlock()
	for int(n/chunkMessages) >= len(s.chunks) {
		s.chunks = append(s.chunks, new([chunkMessages]message))
	}
	s.n = max(s.n, n+1)
	return &s.chunks[n/chunkMessages][n%chunkMessages]
}

// count is how many messages there are.
func (s *stream) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// run sends what falls due until ctx ends. A full window delays, with the clocks of what waits running.
func (s *stream) run(ctx context.Context) error {
	pay := bench.NewPayload(s.runID, s.size, 1, s.runID)
	s.start = s.clock()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for n := int64(0); ; {
		if ctx.Err() != nil {
			return nil
		}
		if wait := s.due(n) - s.clock(); wait > 0 {
			timer.Reset(time.Duration(wait))
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
			continue
		}
		if s.inFlight.Load() >= s.window {
			select {
			case <-ctx.Done():
				return nil
			case <-s.room:
			}
			continue
		}
		body := pay.Body()
		pay.Fill(body, n, s.mono+s.due(n))
		m := s.at(n)
		s.inFlight.Add(1)
		m.sent.Store(max(1, s.clock()))
		q := uint64(n) * 0x9E3779B97F4A7C15 >> 20
		s.client.Send(s.topics[q%uint64(len(s.topics))], int32(q/uint64(len(s.topics))%uint64(s.queues)), body, func(err error) { s.answered(m, err) })
		n++
	}
}

func (s *stream) answered(m *message, err error) {
	m.done.Store(max(1, s.clock()))
	if err != nil {
		if unknownOutcome(err) {
			m.state.Store(unknown)
		} else {
			m.state.Store(failed)
		}
		s.mu.Lock()
		if s.failure == "" {
			s.failure = err.Error()
		}
		s.mu.Unlock()
	} else {
		m.state.Store(acked)
		s.acks.Add(1)
	}
	if s.inFlight.Add(-1) == s.window-1 {
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
}

// takeFailure returns the first error since the last call.
func (s *stream) takeFailure() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failure
	s.failure = ""
	return f
}

// first is the number of the first message due at t or later.
func (s *stream) first(t int64) int64 {
	return max(0, int64(math.Ceil(float64(t-s.start)*s.rate/1e9)))
}

// samples are the messages due from a second before the event at t, and a little earlier, to end after it.
func (s *stream) samples(t int64, after time.Duration) (out []results.FailoverSample) {
	from, to := s.first(t-int64(2*time.Second)), s.first(t+int64(after))
	made := s.count()
	for n := from; n < to; n++ {
		x := results.FailoverSample{Due: s.due(n) - t, Sent: math.MaxInt64, Done: math.MaxInt64}
		if n < made { // else the window was full until the end
			m := s.at(n)
			x.Sent = m.sent.Load() - t
			if state := m.state.Load(); state != pending {
				x.Done, x.Failed, x.Unknown = m.done.Load()-t, state != acked, state == unknown
			}
		}
		out = append(out, x)
	}
	return out
}

// lag is how long ago the oldest message fell due that has not been answered, and acks how many were acknowledged in all.
// For one goroutine.
func (s *stream) lag(now int64) (lag time.Duration, acks int64) {
	made := s.count()
	for s.settled < made && s.at(s.settled).state.Load() != pending {
		s.settled++
	}
	return time.Duration(max(0, now-s.due(s.settled))), s.acks.Load()
}
