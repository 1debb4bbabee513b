package client

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// poll collects n messages.
func poll(t *testing.T, p *PullConsumer, n int) (bodies []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(bodies) < n {
		msgs, err := p.Poll(ctx)
		require.NoError(t, err)
		for _, m := range msgs {
			bodies = append(bodies, string(m.Body))
		}
	}
	return bodies
}

func newPuller(t *testing.T, c *Client, change ...func(*PullConsumerOptions)) *PullConsumer {
	t.Helper()
	o := PullConsumerOptions{Group: "pullers", From: FromFirst, RebalanceInterval: 100 * time.Millisecond, CommitInterval: 20 * time.Millisecond, ErrorDelay: 20 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	p, err := c.NewPullConsumer(o)
	require.NoError(t, err)
	return p
}

// Proves that assigned queues are read in order, from where the group is, that seeking works both ways, and that positions
// are committed.
func TestPullAssignSeekPoll(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 2)
	prod := newProducer(t, c.client())
	q0, q1 := MessageQueue{Topic: "T", BrokerName: "broker-a"}, MessageQueue{Topic: "T", BrokerName: "broker-a", QueueID: 1}
	want := sendAll(t, prod, "T", 0, 10, ToQueue(q0))
	sendAll(t, prod, "T", 10, 12, ToQueue(q1))
	p := newPuller(t, c.client(), func(o *PullConsumerOptions) { o.PollBatch, o.PullBatch = 3, 2 })
	queues, err := p.Queues(t.Context(), "T")
	require.NoError(t, err)
	require.Equal(t, []MessageQueue{q0, q1}, queues)
	require.NoError(t, p.Assign(t.Context(), q0))
	require.Equal(t, want, poll(t, p, 10))
	at, err := p.Position(q0)
	require.NoError(t, err)
	require.EqualValues(t, 10, at)
	require.Eventually(t, func() bool { return c.broker("broker-a").committed("pullers", q0) == 10 }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.Seek(q0, 7))
	require.Equal(t, want[7:], poll(t, p, 3))
	require.NoError(t, p.SeekToBegin(t.Context(), q0))
	require.Equal(t, want, poll(t, p, 10))
	require.NoError(t, p.Seek(q0, 100), "beyond the end: the broker says where that is")
	more := sendAll(t, prod, "T", 20, 22, ToQueue(q0))
	require.Eventually(t, func() bool { at, _ := p.Position(q0); return at <= 12 }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.Seek(q0, 10))
	require.Equal(t, more, poll(t, p, 2))
	require.NoError(t, p.SeekToEnd(t.Context(), q0))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = p.Poll(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, p.Seek(q1, 0), ErrNotAssigned)
	require.NoError(t, p.Assign(t.Context(), q0, q1))
	require.Equal(t, []string{"m010", "m011"}, poll(t, p, 2))
	require.ErrorIs(t, p.Subscribe(t.Context(), "T", Expression{}), errMode)
	require.NoError(t, p.Commit(t.Context()))
	o, err := p.Committed(t.Context(), q0)
	require.NoError(t, err)
	require.EqualValues(t, 12, o)
	require.NoError(t, p.Close(t.Context()))
	_, err = p.Poll(t.Context())
	require.ErrorIs(t, err, ErrClosed)
}

// Proves that paused queues are silent and lose nothing.
func TestPullPause(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	prod := newProducer(t, c.client())
	p := newPuller(t, c.client())
	require.NoError(t, p.Assign(t.Context(), q))
	p.Pause(q)
	want := sendAll(t, prod, "T", 0, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Poll(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	p.Resume(q)
	require.Equal(t, want, poll(t, p, 3))
}

// Proves that members which subscribe share the queues, and that nothing is committed unless asked for with ManualCommit.
func TestPullSubscribe(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 4)
	prod := newProducer(t, c.client())
	for i, tag := range []string{"a", "b", "a", "b"} {
		_, err := prod.Send(t.Context(), &Message{Topic: "T", Body: []byte{byte('0' + i)}, Tags: tag})
		require.NoError(t, err)
	}
	manual := func(o *PullConsumerOptions) { o.ManualCommit = true }
	p := newPuller(t, c.client(), manual)
	require.NoError(t, p.Subscribe(t.Context(), "T", Tags("a")))
	require.ElementsMatch(t, []string{"0", "2"}, poll(t, p, 2))
	require.Zero(t, c.broker("broker-a").count(protocol.RequestUpdateConsumerOffset))
	require.NoError(t, p.Commit(t.Context()))
	require.NotZero(t, c.broker("broker-a").count(protocol.RequestUpdateConsumerOffset))
	p2 := newPuller(t, c.client(), manual)
	require.NoError(t, p2.Subscribe(t.Context(), "T", Tags("a")))
	require.Eventually(t, func() bool { return len(p.Assigned()) == 2 && len(p2.Assigned()) == 2 }, 10*time.Second, time.Millisecond)
	require.ErrorIs(t, p.Assign(t.Context()), errMode)
	require.NoError(t, p2.Close(t.Context()))
	require.Eventually(t, func() bool { return len(p.Assigned()) == 4 }, 10*time.Second, time.Millisecond)
}

// Proves the pull of tools: any offset, a filter, a wait, and the ends of the queue.
func TestPullOnce(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	q := MessageQueue{Topic: "T", BrokerName: "broker-a"}
	cl := c.client()
	want := sendAll(t, newProducer(t, cl), "T", 0, 3)
	res, err := cl.Pull(t.Context(), q, 1, 10, Expression{}, 0)
	require.NoError(t, err)
	require.Equal(t, PullFound, res.Status)
	require.Equal(t, want[1], string(res.Messages[0].Body))
	require.EqualValues(t, 3, res.Next)
	require.EqualValues(t, 3, res.Max)
	res, err = cl.Pull(t.Context(), q, 3, 10, Expression{}, time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, PullNoNew, res.Status)
	res, err = cl.Pull(t.Context(), q, 0, 10, Tags("none"), 0)
	require.NoError(t, err)
	require.Equal(t, PullNoMatch, res.Status)
	require.Equal(t, "NO_MATCHED_MSG", res.Status.String())
	res, err = cl.Pull(t.Context(), q, 9, 10, Expression{}, 0)
	require.NoError(t, err)
	require.Equal(t, PullOffsetIllegal, res.Status)
	_, err = cl.Pull(t.Context(), MessageQueue{Topic: "No", BrokerName: "x"}, 0, 1, Expression{}, 0)
	require.ErrorIs(t, err, ErrNoRoute)
}
