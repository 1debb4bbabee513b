package raftlog

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// hashQuery asks for the hash of a run of entries.
type hashQuery struct{ From, To uint64 }

type hashReply struct {
	Known bool // the entries are there, and committed
	Sum   uint64
}

const (
	agreeEntries = 1024 // entries that are compared at a time
	agreeRuns    = 16   // at most, each time
)

// hash answers a hashQuery.
func (n *Node) hash(q hashQuery) (hashReply, error) {
	if q.To < q.From || q.To-q.From >= agreeEntries {
		return hashReply{}, fmt.Errorf("%w: the hash of entries %d to %d", errWire, q.From, q.To)
	}
	if q.To > n.logs.Committed() {
		return hashReply{}, nil
	}
	sum, err := n.logs.Hash(q.From, q.To)
	if err != nil {
		return hashReply{}, nil //nolint:nilerr // retention has them, here or soon
	}
	return hashReply{Known: true, Sum: sum}, nil
}

// agree compares what is committed with the others, run by run, once each. A difference means that the
// promise is broken: the node with the difference stops, and so does this one, rather than hand out
// either version.
func (n *Node) agree(t *tenure) {
	committed := n.logs.Committed()
	for _, s := range t.in.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == n.id.ID {
			continue
		}
		for range agreeRuns {
			from := n.agreed[s.ID] + 1
			to := from + agreeEntries - 1
			if to > committed {
				break
			}
			if !n.compare(s, from, to) {
				break
			}
			n.agreed[s.ID] = to
		}
	}
}

// compare says whether the run has been compared.
func (n *Node) compare(s raft.Server, from, to uint64) bool {
	mine, err := n.hash(hashQuery{from, to})
	if err != nil || !mine.Known {
		first, _ := n.logs.FirstIndex()
		return to < first // retention was quicker
	}
	p := n.net.peer(s.ID, s.Address)
	if !p.online() {
		return false
	}
	var theirs hashReply
	if err := p.ask(kindHash, hashQuery{from, to}, &theirs); err != nil || !theirs.Known {
		return false
	}
	if theirs.Sum != mine.Sum {
		n.fatal(fmt.Errorf("entries %d to %d are committed and differ between %s and %s: stop both and compare their logs (storetool)", from, to, n.id.ID, s.ID))
	}
	return true
}
