package remoting_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Proves that connections that die at any moment, on either side, with answers coming from the reader and from other
// goroutines, lose nothing that belongs to the process: every call ends exactly once, every payload is released, nothing
// stays open, and nobody waits for ever.
func TestChurn(t *testing.T) {
	const clients, rounds, window = 6, 30, 50
	var payloads, releases atomic.Int64
	later := make(chan func(), 1<<10)
	var answerers sync.WaitGroup
	for range 3 {
		answerers.Go(func() {
			for f := range later {
				f()
			}
		})
	}
	block := make([]byte, 100<<10)
	answerOne := func(c *remoting.Conn, req *protocol.Command) {
		resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
		switch req.Opaque % 4 {
		case 0:
			echo(c, req)
		case 1:
			payloads.Add(1)
			c.ReplyPayload(req, resp, &countedPayload{ranges: pieces(block[:rand.IntN(len(block))], 3), releases: &releases})
		case 2:
			if rand.IntN(200) == 0 {
				c.Close()
			}
			c.Reply(req, resp)
		case 3:
			c.End(c.Begin())
			c.Reply(req, resp)
			c.Flush()
		}
	}
	s, addr := newServer(t, remoting.ServerOptions{MaxUnsentBytes: 256 << 10, Handler: handlerFuncs{serve: func(c *remoting.Conn, req *protocol.Command) {
		if req.Opaque%3 == 0 {
			answerOne(c, req)
			return
		}
		req = req.Clone()
		later <- func() { answerOne(c, req) }
	}}})
	var started, ended atomic.Int64
	cl := newClient(t, remoting.ClientOptions{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range rounds {
				c, err := cl.Dial(t.Context(), addr)
				if err != nil {
					t.Error(err)
					return
				}
				left := make(chan struct{}, window)
				n := 0
				for range window {
					started.Add(1)
					call := &remoting.Call{Request: request("churn"), Timeout: time.Minute, Done: func(*remoting.Call) {
						ended.Add(1)
						left <- struct{}{}
					}}
					if c.Start(call) != nil {
						started.Add(-1)
						continue
					}
					n++
				}
				if rand.IntN(2) == 0 {
					n = rand.IntN(n + 1)
				}
				for range n {
					<-left
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	require.NoError(t, cl.Close())
	require.Eventually(t, func() bool { return s.Stats().Conns == 0 }, 20*time.Second, time.Millisecond)
	close(later)
	answerers.Wait()
	require.NoError(t, s.Close())
	require.Equal(t, started.Load(), ended.Load())
	require.Equal(t, payloads.Load(), releases.Load())
	require.Positive(t, payloads.Load())
}

type countedPayload struct {
	ranges   []remoting.Range
	releases *atomic.Int64
}

func (p *countedPayload) Ranges() []remoting.Range { return p.ranges }
func (p *countedPayload) Release()                 { p.releases.Add(1) }
