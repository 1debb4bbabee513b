package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"rmq/client"
	"rmq/remoting/protocol"
)

func Example() {
	ctx := context.Background()
	c, err := client.New(client.Options{NameServers: "127.0.0.1:9876"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	p, err := c.NewProducer(client.ProducerOptions{Group: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	res, err := p.Send(ctx, &client.Message{Topic: "Orders", Body: []byte("hello"), Tags: "new", Keys: []string{"order-1"}})
	var unknown *client.UnknownOutcomeError
	switch {
	case errors.As(err, &unknown):
		log.Print("it may be stored: send again only if twice is no harm: ", err)
	case err != nil:
		log.Print("it is not stored: ", err)
	default:
		log.Print("stored as ", res.ID, " in ", res.Queue)
	}
}

func ExampleProducer_SendAsync() {
	ctx := context.Background()
	c, err := client.New(client.Options{NameServers: "10.0.0.1:9876;10.0.0.2:9876"})
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerOptions{Group: "orders", MaxInFlight: 256})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 1000 {
		m := &client.Message{Topic: "Orders", Body: fmt.Appendf(nil, "order %d", i)}
		if err := p.SendAsync(ctx, m, func(res *client.SendResult, err error) {
			if err != nil {
				log.Print(err)
			}
		}); err != nil {
			log.Fatal(err)
		}
	}
	_ = c.Close(ctx) // waits for the callbacks
}

func ExampleProducer_Send_ordered() {
	ctx := context.Background()
	var p *client.Producer // from Client.NewProducer
	for _, step := range []string{"created", "paid", "sent"} {
		m := &client.Message{Topic: "Orders", Body: []byte(step), ShardingKey: "order-1"}
		if _, err := p.Send(ctx, m, client.ByShardingKey()); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleProducer_Send_delayed() {
	var p *client.Producer // from Client.NewProducer
	m := &client.Message{Topic: "Reminders", Body: []byte("wake up"), DelayLevel: client.DelayLevel(10 * time.Minute)}
	if _, err := p.Send(context.Background(), m); err != nil {
		log.Fatal(err)
	}
}

func ExamplePushConsumer() {
	ctx := context.Background()
	c, err := client.New(client.Options{NameServers: "127.0.0.1:9876"})
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := c.NewPushConsumer(client.PushConsumerOptions{
		Group: "billing", From: client.FromFirst, Concurrency: 8,
		Handler: func(_ context.Context, msgs []*client.MessageExt) error {
			for _, m := range msgs {
				log.Printf("%s %s: %s", m.Topic, m.ID(), m.Body)
			}
			return nil // an error has them come again later
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := consumer.Subscribe("Orders", client.Tags("new", "paid")); err != nil {
		log.Fatal(err)
	}
	if err := consumer.Start(ctx); err != nil {
		log.Fatal(err)
	}
	time.Sleep(time.Minute)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExamplePullConsumer() {
	ctx := context.Background()
	c, err := client.New(client.Options{NameServers: "127.0.0.1:9876"})
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := c.NewPullConsumer(client.PullConsumerOptions{Group: "audit", ManualCommit: true})
	if err != nil {
		log.Fatal(err)
	}
	queues, err := consumer.Queues(ctx, "Orders")
	if err != nil {
		log.Fatal(err)
	}
	if err := consumer.Assign(ctx, queues...); err != nil {
		log.Fatal(err)
	}
	for _, q := range queues {
		if err := consumer.SeekToBegin(ctx, q); err != nil {
			log.Fatal(err)
		}
	}
	for {
		msgs, err := consumer.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range msgs {
			log.Printf("%s at %d: %s", m.Queue, m.QueueOffset, m.Body)
		}
		if err := consumer.Commit(ctx); err != nil {
			log.Print(err)
		}
	}
}

func ExampleAdmin() {
	ctx := context.Background()
	c, err := client.New(client.Options{NameServers: "127.0.0.1:9876"})
	if err != nil {
		log.Fatal(err)
	}
	admin := c.Admin()
	masters, err := admin.Masters(ctx, "DefaultCluster")
	if err != nil {
		log.Fatal(err)
	}
	for _, addr := range masters {
		if err := admin.CreateTopic(ctx, addr, protocol.NewTopicConfig("Orders", 8), ""); err != nil {
			log.Fatal(err)
		}
	}
	stats, err := admin.ConsumeStats(ctx, "billing", "")
	if err != nil {
		log.Fatal(err)
	}
	for q, o := range stats.OffsetTable {
		log.Printf("%s: %d behind", q, o.BrokerOffset-o.ConsumerOffset)
	}
}
