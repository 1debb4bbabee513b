package robust

import "slices"

// Modes are the columns: how a log is replicated (n not, a asynchronously, s by synchronous dual write,
// r by raft, three nodes) and when it is flushed (A asynchronously, S before the ack).
var Modes = []string{"nA", "nS", "aA", "aS", "sA", "sS", "rA", "rS"}

// Promise is what a cell promises of acknowledged messages.
type Promise string

// The promises.
const (
	NoLoss      Promise = "0" // none is lost
	LossW       Promise = "W" // a tail no longer than W, the bytes not flushed
	LossL       Promise = "L" // a tail no longer than L, the bytes that the slave lacks
	Unavailable Promise = "U" // none is lost; it may not be served meanwhile
	Refused     Promise = "R" // the damage is refused or reported; nothing wrong is served
	NoCell      Promise = "-" // the fault does not exist in that mode
)

// Spec is one row.
type Spec struct {
	Cell, Fault string
	Promises    [8]Promise // by the order of Modes
	Also        string     // what else is required
}

// Promise is what the row promises in a mode.
func (s *Spec) Promise(mode string) Promise {
	if i := slices.Index(Modes, mode); i >= 0 {
		return s.Promises[i]
	}
	return NoCell
}

func same(p Promise) [8]Promise { return [8]Promise{p, p, p, p, p, p, p, p} }

// replicated is for faults that need a second node.
func replicated(p Promise) [8]Promise { return [8]Promise{NoCell, NoCell, p, p, p, p, p, p} }

// Matrix are the rows.
var Matrix = []Spec{
	{"F01", "kill -9 of the master or leader, restart", same(NoLoss), "recovery takes at most 1 s a GB of tail"},
	{"F02", "kill -9 at each fault point: roll, flush, truncate, snapshot, metadata save, recovery", same(NoLoss), "each point is hit at least 3 times"},
	{"F03", "kill -9 of the master or leader, which stays down", [8]Promise{Unavailable, Unavailable, LossL, LossL, NoLoss, NoLoss, NoLoss, NoLoss}, "a, s: the promotion by hand prints what may be lost; r: another writer within 3 s"},
	{"F04", "kill -9 of all, restart", same(NoLoss), "writes within 10 s"},
	{"F05", "the master or leader is stopped by SIGSTOP and goes on later", same(NoLoss), "r: nothing is acknowledged in the old term"},
	{"F06", "a slave or follower is stopped by SIGSTOP", replicated(NoLoss), "s: a status within 3 s"},
	{"F10", "power cut at the master or leader, restart", [8]Promise{LossW, NoLoss, LossW, NoLoss, NoLoss, NoLoss, NoLoss, NoLoss}, "sA: read-only until reconciled"},
	{"F11", "power cut at a slave or follower", replicated(NoLoss), "it joins again without a full copy"},
	{"F12", "power cut at all together", [8]Promise{LossW, NoLoss, LossW, NoLoss, LossW, NoLoss, LossW, NoLoss}, "the loss is at most W as reported, and a tail"},
	{"F13", "power cut at a follower, then kill -9 of the leader before it has caught up", [8]Promise{NoCell, NoCell, LossL, LossL, NoLoss, NoLoss, Unavailable, NoLoss}, "no vote before the leader's commit is passed"},
	{"F14", "pages torn at the cut", [8]Promise{LossW, NoLoss, LossW, NoLoss, NoLoss, NoLoss, NoLoss, NoLoss}, "no garbage is served"},
	{"F20", "no space left: log, queues, index, metadata", same(NoLoss), "code 14 with the path; goes on by itself within 5 s"},
	{"F22", "one sync fails with EIO", [8]Promise{LossW, NoLoss, LossW, NoLoss, NoLoss, NoLoss, NoLoss, NoLoss}, "no further ack; exit code 5"},
	{"F24", "syncs stall for 0.2 to 5 s", same(NoLoss), "memory stays bounded"},
	{"F26", "a bit flipped or a page zeroed in stored records", [8]Promise{Refused, Refused, Refused, Refused, Refused, Refused, NoLoss, NoLoss}, "only damaged records are affected"},
	{"F28", "a segment is missing or short", [8]Promise{Refused, Refused, Refused, Refused, NoLoss, NoLoss, NoLoss, NoLoss}, "refused with a hint; refilled from a peer"},
	{"F29", "the disk is wiped, the node joins again empty", [8]Promise{NoCell, NoCell, LossL, LossL, NoLoss, NoLoss, NoLoss, NoLoss}, "an empty node never wins"},
	{"F30", "an old copy of the directory joins", [8]Promise{NoCell, NoCell, Refused, Refused, Refused, Refused, NoLoss, NoLoss}, "the difference of epochs is found"},
	{"F40", "the link between master and slave is cut", [8]Promise{NoCell, NoCell, NoLoss, NoLoss, NoLoss, NoLoss, NoCell, NoCell}, "the lag drains at twice the write rate"},
	{"F41", "the leader is isolated", [8]Promise{NoCell, NoCell, NoCell, NoCell, NoCell, NoCell, NoLoss, NoLoss}, "the minority acknowledges nothing; one writer within 5 s of healing"},
	{"F42", "ring, bridge and one-way cuts", [8]Promise{NoCell, NoCell, NoCell, NoCell, NoCell, NoCell, NoLoss, NoLoss}, "progress within 15 s once the links settle"},
	{"F43", "flapping links", replicated(NoLoss), "full speed within 10 s"},
	{"F44", "delay of 2, 20 and 200 ms, and a cap of 1 Mbit/s", replicated(NoLoss), ""},
	{"F45", "answers are lost", same(NoLoss), "duplicates are at most the retries"},
	{"F46", "name servers: one killed, all killed, back empty", same(NoLoss), "known routes go on; registered again within 1 s"},
	{"F48", "a forged replication peer", replicated(NoLoss), "it is dropped"},
	{"F60", "rolling restart, transfer of leadership, change of members", replicated(NoLoss), "no failed send after retries"},
}

// Row finds a row, nil if there is none.
func Row(cell string) *Spec {
	for i := range Matrix {
		if Matrix[i].Cell == cell {
			return &Matrix[i]
		}
	}
	return nil
}
