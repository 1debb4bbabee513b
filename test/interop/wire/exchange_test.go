//go:build interop

package wire

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// starter starts one kind of broker on a store directory.
type starter struct {
	name  string
	start func(t *testing.T, namesrv, store string, more ...string) *node
}

var (
	ours   = starter{"ours", ourBroker}
	apache = starter{"apache", apacheBroker}
)

// ledger is what has been stored, and how far it was consumed.
type ledger struct {
	bodies  map[client.MessageQueue][]string // by queue, in the order of offsets
	offsets map[client.MessageQueue]int64
}

const (
	exchangeTopic = "Exchange"
	exchangeGroup = "ExchangeGroup"
	exchangeKey   = "key-of-%s"
)

// newClient makes a client of a NameServer that ends with the test.
func newClient(t *testing.T, namesrv string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{NameServers: namesrv})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// add sends n messages with the Go client and commits offsets for half of the queues.
func (l *ledger) add(t *testing.T, c *client.Client, prefix string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := c.NewProducer(client.ProducerOptions{Group: "ExchangeProducer"})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close(ctx)) }()
	for i := range n {
		body := fmt.Sprintf("%s-%d", prefix, i)
		res, err := p.Send(ctx, &client.Message{Topic: exchangeTopic, Tags: "T", Keys: []string{fmt.Sprintf(exchangeKey, body)}, Body: []byte(body)})
		require.NoError(t, err)
		require.Equal(t, int64(len(l.bodies[res.Queue])), res.QueueOffset, "offsets go on")
		l.bodies[res.Queue] = append(l.bodies[res.Queue], body)
	}
	for q, bodies := range l.bodies {
		if q.QueueID%2 == 0 {
			l.offsets[q] = int64(len(bodies)) - 1
			require.NoError(t, c.CommitOffset(ctx, exchangeGroup, q, l.offsets[q]))
		}
	}
}

// check reads everything back: messages by offset, keys, offsets of the group, the topic. After a kill
// offsets may be as old as the broker's last writing of them.
func (l *ledger) check(t *testing.T, c *client.Client, killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for q, want := range l.bodies {
		var got []string
		require.Eventually(t, func() bool {
			end, err := c.MaxOffset(ctx, q)
			return err == nil && end >= int64(len(want))
		}, time.Minute, 100*time.Millisecond, "the queue is known whole")
		for at := int64(0); at < int64(len(want)); {
			r, err := c.Pull(ctx, q, at, 32, client.Tags(), 0)
			require.NoError(t, err)
			require.Equal(t, client.PullFound, r.Status)
			for _, m := range r.Messages {
				got = append(got, string(m.Body))
			}
			at = r.Next
		}
		require.Equal(t, want, got, "queue %v", q)
		body := want[len(want)-1]
		require.Eventually(t, func() bool {
			found, err := c.Admin().MessagesByKey(ctx, exchangeTopic, fmt.Sprintf(exchangeKey, body), 8, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
			return err == nil && len(found) == 1 && string(found[0].Body) == body
		}, time.Minute, 200*time.Millisecond, "key of %s", body)
	}
	for q, want := range l.offsets {
		at, err := c.CommittedOffset(ctx, exchangeGroup, q)
		require.NoError(t, err)
		if killed {
			require.LessOrEqual(t, at, want)
			continue
		}
		require.Equal(t, want, at, "offset of %v", q)
	}
}

// TestBrokersExchangeTheStore proves that a store directory goes from one kind of broker to the other and
// back, after a clean stop and after kill -9: messages, queues, keys, offsets and topics are there.
func TestBrokersExchangeTheStore(t *testing.T) {
	for _, killed := range []bool{false, true} {
		if !killed && short() {
			continue
		}
		name := map[bool]string{false: "clean stop", true: "kill -9"}[killed]
		t.Run(name, func(t *testing.T) {
			ns := ourNamesrv(t)
			store := t.TempDir()
			l := &ledger{map[client.MessageQueue][]string{}, map[client.MessageQueue]int64{}}
			c := newClient(t, ns.addr)
			for turn, s := range []starter{ours, apache, ours, apache} {
				b := s.start(t, ns.addr, store)
				admin := c.Admin()
				require.Eventually(t, func() bool {
					masters, err := admin.Masters(t.Context(), "DefaultCluster")
					return err == nil && slices.Contains(masters, b.addr)
				}, time.Minute, 50*time.Millisecond)
				if turn == 0 {
					require.NoError(t, admin.CreateTopic(t.Context(), b.addr, &protocol.TopicConfig{
						TopicName: exchangeTopic, ReadQueueNums: 4, WriteQueueNums: 4, Perm: protocol.PermRead | protocol.PermWrite, TopicFilterType: "SINGLE_TAG",
					}, ""))
					require.NoError(t, admin.CreateGroup(t.Context(), b.addr, protocol.NewSubscriptionGroupConfig(exchangeGroup)))
				}
				cfg, err := admin.Topic(t.Context(), b.addr, exchangeTopic)
				require.NoError(t, err)
				require.EqualValues(t, 4, cfg.WriteQueueNums)
				l.check(t, c, killed)
				l.add(t, c, fmt.Sprintf("%s%d", s.name, turn), 200)
				l.check(t, c, false)
				if killed {
					b.kill()
				} else {
					b.stop(t)
				}
				require.Eventually(t, func() bool {
					masters, err := admin.Masters(t.Context(), "DefaultCluster")
					return err != nil || !slices.Contains(masters, b.addr)
				}, time.Minute, 50*time.Millisecond, "the name server forgets it")
			}
		})
	}
}
