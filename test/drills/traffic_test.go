//go:build drills

package drills

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/internal/run"
)

// traffic are producers and a consumer as an application has them, of package client, and the books of
// both.
type traffic struct {
	topic string
	cl    *client.Client

	mu       sync.Mutex
	acked    map[string]string // unique key → broker that has it
	perNode  map[string]int    // broker → acked
	ends     map[client.MessageQueue]int64
	consumed map[string]int
	failures []error

	stop  context.CancelFunc
	group *run.Group
}

func newTraffic(t testing.TB, cl *client.Client, topic string) *traffic {
	t.Helper()
	return &traffic{topic: topic, cl: cl, acked: map[string]string{}, perNode: map[string]int{}, consumed: map[string]int{}, ends: map[client.MessageQueue]int64{}}
}

// produce sends from several goroutines until stopProducing. Every send has the three attempts of a
// default producer.
func (tr *traffic) produce(t testing.TB) {
	t.Helper()
	p, err := tr.cl.NewProducer(client.ProducerOptions{Group: "producers-" + tr.topic})
	require.NoError(t, err)
	var ctx context.Context
	ctx, tr.stop = context.WithCancel(t.Context())
	tr.group = run.New(context.WithoutCancel(t.Context()), "producers")
	for i := range 8 {
		tr.group.Go(fmt.Sprint(i), func(context.Context) error {
			for n := 0; ctx.Err() == nil; n++ {
				res, err := p.Send(context.WithoutCancel(ctx), &client.Message{Topic: tr.topic, Tags: "drill", Body: fmt.Appendf(nil, "%d/%d", i, n)})
				tr.note(res, err)
			}
			return nil
		})
	}
}

func (tr *traffic) stopProducing(t testing.TB) {
	t.Helper()
	tr.stop()
	require.NoError(t, tr.group.Wait())
}

func (tr *traffic) note(res *client.SendResult, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err != nil {
		tr.failures = append(tr.failures, err)
		return
	}
	tr.acked[res.ID] = res.Queue.BrokerName
	tr.perNode[res.Queue.BrokerName]++
	tr.ends[res.Queue] = max(tr.ends[res.Queue], res.QueueOffset+1)
}

// noFailures proves that no send has failed so far.
func (tr *traffic) noFailures(t testing.TB, when string) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	require.NoError(t, errors.Join(tr.failures...), when)
}

// awaitAcked waits until a broker, "" for any, has acknowledged so many more messages.
func (tr *traffic) awaitAcked(t testing.TB, broker string, more int) {
	t.Helper()
	count := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if broker == "" {
			return len(tr.acked)
		}
		return tr.perNode[broker]
	}
	from := count()
	eventually(t, 30*time.Second, fmt.Sprintf("%d more messages acknowledged by %q", more, broker), func() bool { return count() >= from+more })
}

// consume starts a push consumer.
func (tr *traffic) consume(t testing.TB) {
	t.Helper()
	pc, err := tr.cl.NewPushConsumer(client.PushConsumerOptions{
		Group: "consumers-" + tr.topic, From: client.FromFirst, RebalanceInterval: 500 * time.Millisecond, ErrorDelay: 100 * time.Millisecond,
		CommitInterval: 500 * time.Millisecond,
		Handler: func(_ context.Context, msgs []*client.MessageExt) error {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			for _, m := range msgs {
				tr.consumed[m.UniqueKey()]++
			}
			return nil
		},
	})
	require.NoError(t, err)
	require.NoError(t, pc.Subscribe(tr.topic, client.Tags("drill")))
	require.NoError(t, pc.Start(t.Context()))
}

// missing is how many of the messages that a broker ("" for all) has acknowledged were not consumed.
func (tr *traffic) missing(broker string) (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for key, of := range tr.acked {
		if (broker == "" || of == broker) && tr.consumed[key] == 0 {
			n++
		}
	}
	return n
}

// readBack reads all queues: everything acknowledged is there.
func (tr *traffic) readBack(t testing.TB) {
	t.Helper()
	queues, err := tr.cl.Admin().Queues(t.Context(), tr.topic)
	require.NoError(t, err)
	stored := map[string]int{}
	for _, q := range queues {
		readQueue(t, tr.cl, q, 0, tr.ends[q], func(m *client.MessageExt) { stored[m.UniqueKey()]++ })
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	twice := 0
	for key, broker := range tr.acked {
		require.Positive(t, stored[key], "ACKED LOST: %s at %s", key, broker)
		if stored[key] > 1 {
			twice++
		}
	}
	t.Logf("%d messages acknowledged %v, %d stored, %d of them by a second attempt too", len(tr.acked), tr.perNode, len(stored), twice)
}
