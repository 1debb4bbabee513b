package client

import (
	"context"
	"fmt"
	"strconv"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// incoming answers what brokers ask of a client (org.apache.rocketmq.client.impl.ClientRemotingProcessor).
type incoming Client

// Opened has a heartbeat follow: the broker may have started anew and forgotten the client.
func (in *incoming) Opened(*remoting.Conn) { (*Client)(in).heartbeatSoon() }

// Drained has nothing to hand on.
func (in *incoming) Drained(*remoting.Conn) {}

// Closed leaves it to the next request to dial again.
func (in *incoming) Closed(conn *remoting.Conn, err error) {
	in.opt.Logger.Debug("connection closed", "peer", conn.RemoteAddr(), "err", err)
}

// Serve answers a request, in a goroutine of its own if that can take long.
func (in *incoming) Serve(conn *remoting.Conn, req *protocol.Command) {
	c := (*Client)(in)
	switch protocol.RequestCode(req.Code) {
	case protocol.RequestNotifyConsumerIDsChanged:
		if m := c.consumerOf(req.GetString("consumerGroup")); m != nil {
			m.rebalanceSoon()
		}
	case protocol.RequestResetConsumerClientOffset:
		c.later(conn, req, (*Client).resetOffsets)
	case protocol.RequestGetConsumerStatusFromClient:
		conn.Reply(req, c.consumerStatus(req))
	case protocol.RequestGetConsumerRunningInfo:
		c.later(conn, req, (*Client).runningInfo)
	case protocol.RequestConsumeMessageDirectly:
		c.later(conn, req, (*Client).consumeDirectly)
	default:
		conn.Reply(req, protocol.NewResponse(req, protocol.ResponseRequestCodeNotSupported, fmt.Sprintf("request type %d not supported", req.Code)))
	}
}

// later runs f with a copy of req and sends what it returns.
func (c *Client) later(conn *remoting.Conn, req *protocol.Command, f func(*Client, context.Context, *protocol.Command) *protocol.Command) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	req = req.Clone()
	c.group.Go(protocol.RequestCode(req.Code).String(), func(ctx context.Context) error {
		if resp := f(c, ctx, req); resp != nil {
			conn.Reply(req, resp)
		}
		return nil
	})
}

func withBody(req *protocol.Command, v any) *protocol.Command {
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	resp.Body = protocol.EncodeBody(v)
	return resp
}

func noConsumer(req *protocol.Command, group string) *protocol.Command {
	return protocol.NewResponse(req, protocol.ResponseSystemError, "the consumer group "+group+" is not in this client")
}

func (c *Client) resetOffsets(ctx context.Context, req *protocol.Command) *protocol.Command {
	var body protocol.ResetOffsetBody
	group, topic := req.GetString("group"), req.GetString("topic")
	if err := protocol.DecodeBody(req.Body, &body); err != nil {
		c.opt.Logger.Warn("reset of offsets not understood", "group", group, "topic", topic, "err", err)
		return nil
	}
	if m := c.consumerOf(group); m != nil {
		m.reset(ctx, topic, body.OffsetTable)
	}
	return nil
}

func (c *Client) consumerStatus(req *protocol.Command) *protocol.Command {
	group := req.GetString("group")
	m := c.consumerOf(group)
	if m == nil {
		return noConsumer(req, group)
	}
	return withBody(req, protocol.ConsumerStatusBody{
		MessageQueueTable: m.offsets(req.GetString("topic")), ConsumerTable: map[string]map[MessageQueue]int64{},
	})
}

func (c *Client) runningInfo(_ context.Context, req *protocol.Command) *protocol.Command {
	group := req.GetString("consumerGroup")
	m := c.consumerOf(group)
	if m == nil {
		return noConsumer(req, group)
	}
	info := m.runningInfo()
	if req.GetString("jstackEnable") == "true" {
		info.Jstack = stacks()
	}
	return withBody(req, info)
}

func (c *Client) consumeDirectly(ctx context.Context, req *protocol.Command) *protocol.Command {
	group := req.GetString("consumerGroup")
	m := c.consumerOf(group)
	if m == nil {
		return noConsumer(req, group)
	}
	msg, _, err := decodeMessage(req.Body, req.GetString("brokerName"))
	if err != nil {
		return protocol.NewResponse(req, protocol.ResponseSystemError, "the message to consume cannot be read: "+err.Error())
	}
	return withBody(req, m.consumeDirectly(ctx, msg))
}

// properties are those of a running info that all consumers share.
func (c *Client) properties(kind string, ordered bool, workers int, started int64) map[string]string {
	return map[string]string{
		protocol.PropNameServerAddr: c.opt.NameServers, protocol.PropConsumeType: kind, protocol.PropClientVersion: protocol.VersionName(protocol.Version),
		protocol.PropConsumeOrderly: strconv.FormatBool(ordered), protocol.PropThreadPoolCoreSize: strconv.Itoa(workers),
		protocol.PropConsumerStartTimestamp: strconv.FormatInt(started, 10),
	}
}
