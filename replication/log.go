package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rmq/engine"
)

// Mode says how a log is kept on other machines.
type Mode int

// The modes.
const (
	None  Mode = iota // on this machine only
	Async             // on slaves, some time later
	Sync              // on so many machines before the ack
	Raft              // on a majority before the ack, which also elects who leads
)

var modes = [...]string{"none", "async", "sync", "raft"}

func (m Mode) String() string { return modes[m] }

// ParseMode reads none, async, sync or raft.
func ParseMode(s string) (Mode, error) {
	for i, name := range modes {
		if s == name {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("replication mode %q: use none, async, sync or raft", s)
}

// Role is what a node is at present.
type Role int

// The roles.
const (
	Follower Role = iota // takes what a leader sends; appends are refused with [NotLeaderError]
	Leader               // takes appends
	ReadOnly             // neither: an election runs, or it has to be found out first what others hold
)

func (r Role) String() string { return [...]string{"follower", "leader", "read-only"}[r] }

// Errors of appends, beside those of the engine. All but [ErrNotEnoughReplicas] and [NotLeaderError]
// come after the record was stored here: its outcome is unknown to whoever sent it.
var (
	// ErrReplicaTimeout: no replica has confirmed the record in time.
	ErrReplicaTimeout = errors.New("replicas have not confirmed in time")
	// ErrNoReplica: no replica was there to confirm the record; it is stored on this machine only.
	ErrNoReplica = errors.New("no replica is available")
	// ErrNotEnoughReplicas: fewer in-sync replicas than minInSyncReplicas (or strict mode and none at
	// all): nothing was stored. Under raft the record may be stored: it then comes with the unknown outcome.
	ErrNotEnoughReplicas = errors.New("not enough replicas are in sync")
	// ErrNotLeader is what [NotLeaderError] is.
	ErrNotLeader = errors.New("not the leader")
)

// NotLeaderError refuses an append: nothing was stored.
type NotLeaderError struct {
	Leader string // where clients reach who leads, host:port; "" if that is not known
	Epoch  int64  // its epoch or term
	Why    string // of a read-only node: what it waits for, and what to do
}

func (e *NotLeaderError) Error() string {
	switch {
	case e.Why != "":
		return e.Why
	case e.Leader == "":
		return "not the leader, and no leader is known"
	}
	return "not the leader: " + e.Leader + " is"
}

// Is makes every NotLeaderError an [ErrNotLeader].
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// Peer is another holder of the log, as this node knows it.
type Peer struct {
	ID       string // replica id, or server id of raft
	Addr     string // of its replication port
	Client   string // where clients reach it; "" if not known
	Written  int64  // position up to which it holds the log in its page cache
	Durable  int64  // position up to which it has synced it
	InSync   bool
	Voter    bool          // raft: false while it catches up
	Stock    bool          // an Apache slave
	Quiet    time.Duration // since it was heard of last; negative: not connected
	LagBytes int64
	BytesOut int64 // sent to it so far
}

// Status is a snapshot of a node.
type Status struct {
	Mode    Mode
	Role    Role
	ID      string // of this node
	Epoch   int64  // HA epoch or raft term
	Leader  string // id of who leads, "" if not known
	Client  string // where clients reach who leads, "" if not known
	Confirm int64  // end of what readers may see
	Written int64
	Durable int64
	Peers   []Peer // of a leader: the others
	Why     string // read-only: the reason and the way out
}

// Hops are times that a replicated append spends on its way, as the leader sees them; in nanoseconds
// since the node was opened, and how many were timed. For reports.
type Hops struct {
	Append, LocalFlush, Send, RemoteAppend, RemoteFlush, Ack Hop
}

// Hop is the sum of one kind of wait.
type Hop struct{ Count, Nanos int64 }

// Events are what a node tells. Calls come from its own goroutines, one at a time for each kind; they
// must not block for long and must not call Close.
type Events struct {
	// Role hears of every change of role or leader, once after opening too.
	Role func(Status)
	// Meta hears of a document that another node has saved with SaveMeta, newest last; after opening, of
	// those that this node has kept. It may come twice. On the node that saved it it does not come.
	Meta func(name string, doc []byte)
}

// Log is one node's copy of a log: an [engine.Store], whose methods it has, with appends that keep the
// promise of a mode. All methods are safe for concurrent use.
type Log interface {
	// SubmitFront is [engine.Store.SubmitFront]. While this node does not lead n is 0 and the error is a
	// [NotLeaderError]; [ErrNotEnoughReplicas] is about as[n].
	SubmitFront(ctx context.Context, as []*engine.Append) (n int, err error)
	// Append is [engine.Store.Append] with the same errors.
	Append(ctx context.Context, rec []byte) (engine.Result, error)
	// SaveMeta keeps a document of the broker beside the messages: when it returns nil the document is
	// as safe as an acked message of this mode. Newer documents replace older ones of their name. The
	// caller keeps its own copy on this node; with ha and none that is what survives a restart.
	SaveMeta(ctx context.Context, name string, doc []byte) error
	// Late says why an append that ends at pos has not been acked yet: [ErrReplicaTimeout] or
	// [engine.ErrIndeterminate] for the local disk. When both are late it is the replica.
	Late(pos int64) error
	// Handover makes another node lead, if the mode can, and returns when it does or ctx ends.
	Handover(ctx context.Context) error
	Status() Status
	Close() error
}

// Reign is a stretch of the log that one leader has written: an epoch of a master, a term of a group. It ends where the
// next one begins.
type Reign struct {
	Epoch int64
	Start int64 // position in the log
}

// Chronicle is a log that knows who led when.
type Chronicle interface {
	// Reigns are those of what the log holds, oldest first; with masters and slaves the last ones that left nothing too.
	Reigns() ([]Reign, error)
}

// Promoter is a log whose leader is chosen by an operator.
type Promoter interface {
	// Promote makes this node lead, in a new epoch. Without acceptLoss it refuses when that may lose
	// acked messages, with an error that tells how many bytes; the report tells it in either case.
	Promote(ctx context.Context, acceptLoss bool) (PromoteReport, error)
	// Follow tells where the replication port of the leader is, and where clients reach it. With haAddr "" whoever is
	// followed stays so, and clientAddr counts unless the leader tells its own in the stream.
	Follow(haAddr, clientAddr string)
}

// PromoteReport is what a promotion has done or would do.
type PromoteReport struct {
	Epoch    int64 // the new one
	End      int64 // where it begins in the log
	LastSeen int64 // end of the old leader's log when it was last heard of
	AgeMS    int64 // how long ago that was, in milliseconds; -1: never
	MayLose  int64 // bytes that the old leader may have acked and this node lacks; -1: cannot be told
}

// Group is a log that elects its leader among members.
type Group interface {
	// Transfer hands leadership to a member; "" means the one that is furthest.
	Transfer(ctx context.Context, id string) error
	// AddPeer lets a node in that does not vote; PromotePeer makes it a voter once it has caught up;
	// RemovePeer takes one out.
	AddPeer(ctx context.Context, id, addr string) error
	PromotePeer(ctx context.Context, id string) error
	RemovePeer(ctx context.Context, id string) error
}
