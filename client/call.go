package client

import (
	"context"
	"fmt"
	"time"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// maxLeaderHints bounds how often one call follows a hint to who leads a group.
const maxLeaderHints = 2

// newRequest is a request with a header struct of [protocol] (nil for none) and a body.
func (c *Client) newRequest(code protocol.RequestCode, header any, body []byte) *protocol.Command {
	req := protocol.NewRequest(code)
	req.Serialize = c.opt.Serialize
	if header != nil {
		protocol.EncodeExt(req, header)
	}
	req.Body = body
	return req
}

// invoke sends req and returns any answer. Errors are those of the connection.
func (c *Client) invoke(ctx context.Context, addr string, req *protocol.Command) (*protocol.Command, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.rpc.Call(ctx, addr, req)
	if err != nil {
		return nil, fmt.Errorf("%s to %s: %w", protocol.RequestCode(req.Code), addr, err)
	}
	return resp, nil
}

// call sends a request and returns an answer of success; any other is an error around a
// [*protocol.RemoteError].
func (c *Client) call(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	resp, err := c.invoke(ctx, addr, c.newRequest(code, header, body))
	if err != nil {
		return nil, err
	}
	if err := resp.Err(); err != nil {
		return resp, fmt.Errorf("%s to %s: %w", code, addr, err)
	}
	return resp, nil
}

// callMaster calls the master of a broker name, and the leader it points to if it has lost that role.
func (c *Client) callMaster(ctx context.Context, brokerName string, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	for hint := 0; ; hint++ {
		addr, err := c.masterOf(ctx, brokerName)
		if err != nil {
			return nil, err
		}
		resp, err := c.call(ctx, addr, code, header, body)
		if err == nil || hint == maxLeaderHints || !c.followHint(brokerName, addr, resp) {
			return resp, err
		}
	}
}

// followHint reports whether resp says who leads the broker group instead of the one at addr; from
// then on that is its master for this client, until a route says otherwise.
func (c *Client) followHint(brokerName, addr string, resp *protocol.Command) bool {
	if resp == nil || resp.Code != int32(protocol.ResponseServiceNotAvailable) {
		return false
	}
	leader := resp.GetString(protocol.ExtLeaderAddr)
	if leader == "" || leader == addr {
		return false
	}
	c.opt.Logger.Info("following a leader hint", "broker", brokerName, "from", addr, "to", leader)
	c.routes.setLeader(brokerName, leader)
	return true
}

// oneway sends a request that nobody answers.
func (c *Client) oneway(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) error {
	req := c.newRequest(code, header, body)
	req.MarkOneway()
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := c.rpc.Oneway(ctx, addr, req); err != nil {
		return fmt.Errorf("%s to %s: %w", code, addr, err)
	}
	return nil
}

// bounded gives a request an end if its context has none.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return boundedBy(ctx, c.opt.Timeout)
}

func boundedBy(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// conn is the connection to addr, dialled if need be.
func (c *Client) conn(ctx context.Context, addr string) (*remoting.Conn, error) {
	conn, err := c.rpc.Conn(ctx, addr)
	if err != nil {
		c.warm.Delete(addr)
		return nil, err
	}
	c.warm.Store(addr, conn)
	return conn, nil
}

// warmConn is the connection to addr if it is there already.
func (c *Client) warmConn(addr string) *remoting.Conn {
	v, ok := c.warm.Load(addr)
	if !ok {
		return nil
	}
	conn := v.(*remoting.Conn)
	select {
	case <-conn.Done():
		return nil
	default:
		return conn
	}
}

func decode[T any](resp *protocol.Command, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := protocol.DecodeBody(resp.Body, v); err != nil {
		return nil, fmt.Errorf("answer of %d bytes: %w", len(resp.Body), err)
	}
	return v, nil
}

// header decodes the ext fields of an answer.
func header[T any](resp *protocol.Command, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := protocol.DecodeExt(resp, v); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return v, nil
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// periodically calls f every d, and when wake says so, until ctx ends. wake may be nil.
func periodically(ctx context.Context, d time.Duration, wake <-chan struct{}, f func()) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-wake:
		}
		f()
	}
}
