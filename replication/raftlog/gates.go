package raftlog

import "sync/atomic"

// gate is one of the rules that make replication from the page cache equivalent to replication from the
// disk, or one of the guards against what the library gets wrong. Tests switch one off, to show that it
// is needed.
type gate uint32

const (
	gateFollower gate = 1 << iota // a follower answers once its disk has the entries
	gateLeader                    // the leader tells, and acts on, no commit that its own disk lacks
	gateInline                    // entries that are no messages are synced before they count
	gateTruncate                  // a cut lowers what is durable before anything else
	gateSnapshot                  // a snapshot waits for the log below it
	clampSend                     // hazard H1, where appends leave
	clampReceive                  // hazard H1, where they come in
	failForward                   // hazard H3: a refused append breaks the pipeline
	restartStuck                  // hazard H7: an instance that refuses to apply is replaced
)

// gates are the ones that are off; nil and zero: none.
type gates struct{ bits atomic.Uint32 }

func (g *gates) off(x gate) bool { return g != nil && gate(g.bits.Load())&x != 0 }

func (g *gates) switchOff(x gate) { g.bits.Or(uint32(x)) }
