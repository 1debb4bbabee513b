package failover

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
	"rmq/results"
)

// Proves that what a client leaves unknown is told from what has failed: an answer that did not come, and each status of a
// message that is stored with less than was promised.
func TestUnknownOutcomes(t *testing.T) {
	answers := map[error]uint32{
		nil:                         acked,
		errors.New("no such topic"): failed,
		&client.UnknownOutcomeError{Op: "send", Err: context.DeadlineExceeded}:                                                                       unknown,
		&client.UnknownOutcomeError{Op: "send", Err: &protocol.RemoteError{Code: protocol.ResponseFlushDiskTimeout}}:                                 unknown,
		&client.UnknownOutcomeError{Op: "send", Err: &protocol.RemoteError{Code: protocol.ResponseFlushSlaveTimeout}}:                                unknown,
		errors.Join(context.Canceled, &client.UnknownOutcomeError{Op: "send", Err: &protocol.RemoteError{Code: protocol.ResponseSlaveNotAvailable}}): unknown,
		javaError("SLAVE_NOT_AVAILABLE"): unknown,
		javaError("FLUSH_SLAVE_TIMEOUT"): unknown,
		javaError("MQBrokerException"):   failed,
	}
	s := &stream{rate: 1000, window: 100, room: make(chan struct{}, 1), clock: func() int64 { return int64(time.Millisecond) }}
	n := int64(0)
	for err, want := range answers {
		m := s.at(n)
		s.inFlight.Add(1)
		m.sent.Store(1)
		s.answered(m, err)
		require.Equal(t, want, m.state.Load(), "%v", err)
		n++
	}
	r := results.AnalyseFailover("x", s.samples(0, time.Second), time.Second, int64(time.Second))
	require.EqualValues(t, 1, r.Acked)
	require.EqualValues(t, 2, r.Failed)
	require.EqualValues(t, 6, r.Unknown)
	require.Equal(t, r.Due, r.Acked+r.Failed+r.Unknown+r.Unfinished)
}
