package raftlog

import (
	"fmt"
	"sync/atomic"
)

// gate is one of the rules that make replication from the page cache equivalent to replication from the
// disk, or one of the guards against what the library gets wrong. Tests switch one off, to show that it
// is needed.
type gate uint32

const (
	gateFollower    gate = 1 << iota // a follower answers once its disk has the entries
	gateLeader                       // the leader tells, and acts on, no commit that its own disk lacks
	gateInline                       // entries that are no messages are synced before they count
	gateTruncate                     // a cut lowers what is durable before anything else
	gateSnapshot                     // a snapshot waits for the log below it
	clampSend                        // hazard H1, where appends leave
	clampReceive                     // hazard H1, where they come in
	oneVote                          // hazard H2: term and candidate of a vote are one record
	failForward                      // hazard H3: a refused append breaks the pipeline
	replayCommitted                  // hazard H5: the library does not replay what is committed while it starts
	freshInstance                    // hazard H6: a snapshot is installed by an instance that begins with it
	restartStuck                     // hazard H7: an instance that refuses to apply is replaced
)

var gateNames = map[string]gate{
	"follower": gateFollower, "leader": gateLeader, "inline": gateInline, "truncate": gateTruncate, "snapshot": gateSnapshot,
	"clamp": clampSend | clampReceive, "vote": oneVote, "pipeline": failForward, "replay": replayCommitted, "install": freshInstance, "transfer": restartStuck,
}

// parseGate reads the name of a guard: follower, leader, inline, truncate or snapshot, the five gating
// rules, or clamp, vote, pipeline, replay, install or transfer, against what the library gets wrong.
func parseGate(name string) (gate, error) {
	g, ok := gateNames[name]
	if !ok {
		return 0, fmt.Errorf("gate %q: use follower, leader, inline, truncate, snapshot, clamp, vote, pipeline, replay, install or transfer", name)
	}
	return g, nil
}

// gates are the ones that are off; nil and zero: none.
type gates struct{ bits atomic.Uint32 }

func (g *gates) off(x gate) bool { return g != nil && gate(g.bits.Load())&x != 0 }

func (g *gates) switchOff(x gate) { g.bits.Or(uint32(x)) }
