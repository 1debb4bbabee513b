// Package client lets a Go program send, receive and administer messages of a RocketMQ cluster:
// ours, or Apache's 4.9 and 5.x.
//
// A [Client] is one participant of the cluster: one client id, one pool of connections, one
// heartbeat. Producers, consumers and admin calls are made from it and share all three:
//
//	c, err := client.New(client.Options{NameServers: "127.0.0.1:9876"})
//	p, err := c.NewProducer(client.ProducerOptions{Group: "orders"})
//	res, err := p.Send(ctx, &client.Message{Topic: "Orders", Body: body})
//	...
//	err = c.Close(ctx) // closes what was made from it, and waits
//
// There are no globals: two clients in a process know nothing of each other, and a program that
// wants two consumers of one group makes two clients. Everything that can block takes a context
// first. Goroutines belong to the client and end with it.
//
// Delivery is at least once. A send whose answer was lost, or that the broker stored without the
// durability it was asked for, returns an [*UnknownOutcomeError]: the message may be there. Any
// other error of a send means that it is not.
//
// The Java classes behind it: MQClientInstance (Client), DefaultMQProducer (Producer),
// DefaultMQPushConsumer (PushConsumer), DefaultLitePullConsumer (PullConsumer), DefaultMQAdminExt
// (Admin).
package client
