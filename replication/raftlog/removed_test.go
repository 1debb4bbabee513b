package raftlog

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/run"
)

// Proves that a member which is removed while it is away is not called for ever: the library sends it what removes it,
// and would wait for it without end.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = func(_ string, o *Options) { o.HeartbeatTimeout = calm }
	c.startAll()
	c.send("t", 0, "first")
	away := c.followers()[0].o.SelfID
	id, addr := raft.ServerID(memberID(away, 1)), raft.ServerAddress(c.peers[away])
	c.kill(away, false, 1)
	lead := c.leader()
	require.NoError(t, lead.RemovePeer(t.Context(), away))
	require.Eventually(t, func() bool {
		lead.mu.Lock()
		defer lead.mu.Unlock()
		return !holds(lead.config.Servers, string(id))
	}, patience, time.Millisecond)
	c.send("t", 0, "second")

	g := run.New(t.Context(), "test")
	sent := make(chan error, 1)
	g.Go("append", func(context.Context) error { // as the library does, which may have failed already
		q := &raft.AppendEntriesRequest{Term: lead.instance.Load().raft.CurrentTerm(), PrevLogEntry: 1, PrevLogTerm: 1}
		sent <- lead.instance.Load().t.AppendEntries(id, addr, q, &raft.AppendEntriesResponse{})
		return nil
	})
	select {
	case err := <-sent:
		require.Error(t, err)
	case <-time.After(patience):
		require.Fail(t, "an append to a member that was removed waits without end")
	}
	require.NoError(t, g.Wait())
	called := time.Now()
	require.Eventually(t, func() bool {
		for _, p := range lead.net.known() {
			if p.id == id {
				called = time.Now()
			}
		}
		return time.Since(called) > calm
	}, patience, time.Millisecond)
}
