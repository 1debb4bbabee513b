//go:build !race

package broker

import (
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Under the race detector pools drop things on purpose, so that there is nothing to be counted.

// A send costs the broker no allocation, from the bytes on the socket to the answer.
func TestSendAllocatesNothing(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "mappedFileSizeCommitLog=67108864"), Logger: slog.New(slog.DiscardHandler)})
	p := connect(t, b)
	p.send("T", 0, "x")
	cs := &connState{b: b, conn: serverConn(t, b), peer: p.conn.LocalAddr()}
	frame := protocol.AppendCommand(nil, sendRequest("T", 0, strings.Repeat("x", 1024), "UNIQ_KEY", "7F00000100002A9F0000000000001234", "WAIT", "true", "TAGS", "A"))
	var req protocol.Command
	sendAll := func() {
		for range 16 {
			if err := protocol.ParseCommand(frame[4:], &req); err != nil {
				panic(err)
			}
			b.serveSend(cs, &req)
		}
		cs.submitGathered()
		for b.sending.Load() > 0 {
			runtime.Gosched()
		}
	}
	sendAll()
	require.Zero(t, testing.AllocsPerRun(100, sendAll))
}

// serverConn is the broker's side of some connection.
func serverConn(tb testing.TB, b *Broker) (conn *remoting.Conn) {
	tb.Helper()
	b.conns.Range(func(k, _ any) bool {
		conn = k.(*connState).conn
		return false
	})
	require.NotNil(tb, conn)
	return conn
}

// A pull of a used connection costs at most two allocations.
func TestPullAllocatesLittle(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir()), Logger: slog.New(slog.DiscardHandler)})
	p := connect(t, b)
	for range 40 {
		p.send("T", 0, strings.Repeat("x", 100))
	}
	p.dispatched()
	cs := &connState{b: b, conn: serverConn(t, b), peer: p.conn.LocalAddr()}
	frame := protocol.AppendCommand(nil, pullRequest("G", "T", 0, 0, "*", 0))
	var req protocol.Command
	var served atomic.Int64
	pullOnce := func() {
		if err := protocol.ParseCommand(frame[4:], &req); err != nil {
			panic(err)
		}
		b.servePull(cs, &req)
		served.Add(1)
		for cs.conn.Unsent() > 0 {
			runtime.Gosched()
		}
	}
	pullOnce()
	require.LessOrEqual(t, testing.AllocsPerRun(100, pullOnce), 2.0)
}
