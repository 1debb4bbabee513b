package failover

import (
	"context"
	"sync/atomic"
	"time"

	"rmq/client"
)

// product is the Go client that comes with the brokers, as it comes: it knows the NameServer, polls routes every 30 s and
// follows the hints of nodes that do not lead. It chooses queues itself.
type product struct {
	c *client.Client
	p *client.Producer
}

func newProduct(nameServer string, window int) (*product, error) {
	c, err := client.New(client.Options{NameServers: nameServer})
	if err != nil {
		return nil, err
	}
	// Room beyond the window: then SendAsync never waits.
	p, err := c.NewProducer(client.ProducerOptions{Group: "rmqbench-failover-client", MaxInFlight: 2 * window, CompressBytes: -1})
	if err != nil {
		_ = c.Close(context.Background()) // nothing was sent
		return nil, err
	}
	return &product{c, p}, nil
}

// Send implements [Client].
func (p *product) Send(topic string, _ int32, body []byte, done func(error)) {
	err := p.p.SendAsync(context.Background(), &client.Message{Topic: topic, Body: body}, func(_ *client.SendResult, err error) { done(err) })
	if err != nil {
		done(err)
	}
}

// Close implements [Client].
func (p *product) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.p.Close(ctx); err != nil {
		_ = p.c.Close(ctx) // the error above is the one to tell
		return err
	}
	return p.c.Close(ctx)
}

// tail is a group of consumers that follow all topics.
type tail struct {
	c    *client.Client
	p    *client.PushConsumer
	last atomic.Int64 // when the last message came
	gap  atomic.Int64 // the longest time between two since it was asked for
	got  atomic.Int64
	take func(body []byte)
}

func newTail(ctx context.Context, nameServer string, topics []string, clock func() int64, take func(body []byte)) (*tail, error) {
	c, err := client.New(client.Options{NameServers: nameServer, RouteInterval: time.Second})
	if err != nil {
		return nil, err
	}
	t := &tail{c: c, take: take}
	t.p, err = c.NewPushConsumer(client.PushConsumerOptions{
		Group: "rmqbench-failover-tail", From: client.FromLast, BatchSize: 32, Concurrency: 2, ErrorDelay: 50 * time.Millisecond,
		Handler: func(_ context.Context, ms []*client.MessageExt) error {
			now := clock()
			if before := t.last.Swap(now); before > 0 {
				for {
					longest := t.gap.Load()
					if now-before <= longest || t.gap.CompareAndSwap(longest, now-before) {
						break
					}
				}
			}
			t.got.Add(int64(len(ms)))
			for _, m := range ms {
				take(m.Body)
			}
			return nil
		},
	})
	if err == nil {
		for _, topic := range topics {
			if err = t.p.Subscribe(topic, client.Expression{}); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = t.p.Start(ctx)
	}
	if err != nil {
		_ = c.Close(ctx) // the error is the one to tell
		return nil, err
	}
	return t, nil
}

// takeGap returns the longest silence since the last call, one that goes on included.
func (t *tail) takeGap(now int64) int64 {
	gap := t.gap.Swap(0)
	if last := t.last.Load(); last > 0 {
		gap = max(gap, now-last)
	}
	return gap
}

func (t *tail) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := t.p.Close(ctx); err != nil {
		_ = t.c.Close(ctx) // the error above is the one to tell
		return err
	}
	return t.c.Close(ctx)
}
