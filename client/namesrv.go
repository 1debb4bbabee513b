package client

import (
	"context"
	"errors"
	"sync/atomic"

	"rmq/remoting/protocol"
)

// nameServers is the list of name servers and which of them answered last. They know the same, so
// one is asked until it fails.
type nameServers struct {
	addrs   []string
	current atomic.Int32
}

func newNameServers(addrs []string) *nameServers { return &nameServers{addrs: addrs} }

// callNameServer asks the name servers, the one that answered last first, until one answers. An
// answer that refuses is an answer, unless the server says that it is not ready.
func (c *Client) callNameServer(ctx context.Context, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	s := c.servers
	first := int(s.current.Load())
	var errs []error
	for i := range s.addrs {
		at := (first + i) % len(s.addrs)
		resp, err := c.askServer(ctx, s.addrs[at], code, header, body)
		if err == nil || !serverFailed(err) {
			s.current.Store(int32(at))
			return resp, err
		}
		errs = append(errs, err)
		s.current.CompareAndSwap(int32(at), int32((at+1)%len(s.addrs))) // even if there is no time left to ask it now
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// askServer leaves time for the next server when this one does not answer.
func (c *Client) askServer(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	return c.call(ctx, addr, code, header, body)
}

func serverFailed(err error) bool {
	code, answered := CodeOf(err)
	return !answered || code == protocol.ResponseSystemError || code == protocol.ResponseSystemBusy
}
