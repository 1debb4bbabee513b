package replication_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/replication"
)

// told is a log that says one thing.
type told struct {
	replication.Log
	status replication.Status
	timers replication.HopTimers
}

func (t *told) Status() replication.Status { return t.status }
func (t *told) Hops() replication.Hops     { return t.timers.Hops() }

// Proves that whoever asks a broker for its runtime information gets the state of its log whole.
func TestInfoIsReadBack(t *testing.T) {
	l := &told{status: replication.Status{
		Mode: replication.Raft, Role: replication.Leader, ID: "n0#2", Epoch: 7, Leader: "n0#2", Client: "127.0.0.1:30911", Confirm: 4096, Written: 8192, Durable: 6000,
		Peers: []replication.Peer{
			{ID: "n1#1", Addr: "127.0.0.1:40911", Client: "127.0.0.1:30921", Written: 8000, Durable: 4096, InSync: true, Voter: true, Quiet: 12 * time.Millisecond, LagBytes: 192, BytesOut: 9000},
			{ID: "n2#1", Quiet: -time.Millisecond, LagBytes: 8192, Stock: true},
		},
		Why: "it waits",
	}}
	l.timers.Send.Add(3 * time.Millisecond)
	l.timers.Send.Add(time.Millisecond)
	s, h, ok := replication.ParseInfo(replication.Info(l))
	require.True(t, ok)
	require.Equal(t, l.status, s)
	require.Equal(t, l.Hops(), h)
	require.Equal(t, 2*time.Millisecond, h.Send.Mean())
	_, _, ok = replication.ParseInfo(map[string]string{"brokerVersionDesc": "V5_4_0"})
	require.False(t, ok)
}

// Proves that the hops between two looks are told apart from those before, and those never taken left out.
func TestHopsBetween(t *testing.T) {
	var timers replication.HopTimers
	timers.Append.Add(time.Second)
	before := timers.Hops()
	timers.Append.Add(2 * time.Second)
	timers.Ack.Add(time.Second)
	names := map[string]time.Duration{}
	timers.Hops().Sub(before).Each(func(name string, h replication.Hop) { names[name] = h.Mean() })
	require.Equal(t, map[string]time.Duration{"append": 2 * time.Second, "ack": time.Second}, names)
	require.Zero(t, replication.Hop{}.Mean())
}
