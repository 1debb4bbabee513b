package replication

import (
	"sync/atomic"
	"time"
)

// Timed is a log that times the hops of its appends.
type Timed interface {
	// Hops is a snapshot, cheap and safe at any time.
	Hops() Hops
}

// HopTimers add up the hops of one node. All methods are safe for concurrent use and allocate nothing.
type HopTimers struct {
	Append, LocalFlush, Send, RemoteAppend, RemoteFlush, Ack HopTimer
}

// Hops is a snapshot; the sums of one hop may lie an instant apart.
func (t *HopTimers) Hops() Hops {
	return Hops{
		Append: t.Append.read(), LocalFlush: t.LocalFlush.read(), Send: t.Send.read(),
		RemoteAppend: t.RemoteAppend.read(), RemoteFlush: t.RemoteFlush.read(), Ack: t.Ack.read(),
	}
}

// HopTimer adds up one kind of wait.
type HopTimer struct{ count, nanos atomic.Int64 }

// Add counts one wait of d.
func (t *HopTimer) Add(d time.Duration) {
	t.count.Add(1)
	t.nanos.Add(int64(d))
}

func (t *HopTimer) read() Hop { return Hop{Count: t.count.Load(), Nanos: t.nanos.Load()} }

// Sub is what came between an earlier snapshot and this one.
func (h Hops) Sub(earlier Hops) Hops {
	out := h
	for i, e := range earlier.list() {
		at := out.list()[i]
		at.hop.Count -= e.hop.Count
		at.hop.Nanos -= e.hop.Nanos
	}
	return out
}

// Each calls f with every hop that was timed, in the order in which an append takes them.
func (h Hops) Each(f func(name string, hop Hop)) {
	for _, x := range h.list() {
		if x.hop.Count > 0 {
			f(x.name, *x.hop)
		}
	}
}

type namedHop struct {
	name string
	hop  *Hop
}

func (h *Hops) list() []namedHop {
	return []namedHop{
		{"append", &h.Append},
		{"localFlush", &h.LocalFlush},
		{"send", &h.Send},
		{"remoteAppend", &h.RemoteAppend},
		{"remoteFlush", &h.RemoteFlush},
		{"ack", &h.Ack},
	}
}

// Mean is the mean wait, 0 of none.
func (h Hop) Mean() time.Duration {
	if h.Count == 0 {
		return 0
	}
	return time.Duration(h.Nanos / h.Count)
}
