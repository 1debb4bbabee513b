package broker

import (
	"context"
	"errors"
	"log/slog"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/message"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// Store is what a broker needs of its storage: the reads of an [engine.Store], and appends that keep the
// promise of a [replication.Mode]. The broker does not know the difference.
type Store interface {
	replication.Log

	Read(r *engine.ReadResult, q *engine.ReadQuery) error
	Lookup(pos int64) (*engine.ReadResult, error)
	Entries(topic string, queueID int32, from int64, limit int) ([]format.CQEntry, error)
	Queues() []engine.QueueName
	QueueRange(topic string, queueID int32) (low, high int64, ok bool)
	QueryKey(topic, key string, limit int, begin, end int64) ([]int64, error)
	OffsetByTime(topic string, queueID int32, millis int64, bound engine.TimeBound) (int64, error)
	StoreTime(topic string, queueID int32, offset int64) (int64, error)

	// Watch and Unwatch say of which queues arrivals are of interest.
	Watch(topic string, queueID int32)
	Unwatch(topic string, queueID int32)

	RemoveTopic(topic string) error
	RemoveExpiredQueues() error
	DeleteExpired()

	Min() int64
	Max() int64
	Dispatched() int64
	WaitDispatchedPos(ctx context.Context, pos int64) error
	Stats() engine.Stats
	Options() engine.Options
}

var _ Store = (*replication.Plain)(nil)

// unknownOutcome begins the remark of an answer to a send that may have been stored all the same.
const unknownOutcome = "[UNKNOWN_OUTCOME] "

// storeCode is how an error of the store is told to a client. Whoever answers adds [unknownOutcome]
// when the record already had an offset. An error that is not known here is a SYSTEM_ERROR and goes
// to the log in full.
func storeCode(err error) (code protocol.ResponseCode, remark string, known bool) {
	var (
		space *engine.SpaceError
		level *engine.DiskLevelError
		large *engine.TooLargeError
		limit *message.LimitError
		batch *message.BatchError
	)
	switch {
	case err == nil:
		return protocol.ResponseSuccess, "", true
	case errors.Is(err, replication.ErrNotLeader):
		return protocol.ResponseServiceNotAvailable, "service not available now: " + err.Error(), true
	case errors.Is(err, replication.ErrReplicaTimeout):
		return protocol.ResponseFlushSlaveTimeout, err.Error(), true
	case errors.Is(err, replication.ErrNoReplica):
		return protocol.ResponseSlaveNotAvailable, err.Error(), true
	case errors.Is(err, replication.ErrNotEnoughReplicas):
		return protocol.ResponseSystemError, "the in-sync replicas are not enough: " + err.Error(), true
	case errors.Is(err, engine.ErrBusy):
		return protocol.ResponseSystemBusy, "[PC_SYNCHRONIZED]broker busy: " + err.Error(), true
	case errors.As(err, &space), errors.As(err, &level), engine.IsFull(err):
		return protocol.ResponseServiceNotAvailable, "the disk is full: " + err.Error(), true
	case errors.Is(err, engine.ErrPoisoned):
		return protocol.ResponseServiceNotAvailable, err.Error(), true
	case errors.Is(err, engine.ErrClosed):
		return protocol.ResponseServiceNotAvailable, "the broker is shutting down: " + err.Error(), true
	case errors.Is(err, engine.ErrIndeterminate):
		return protocol.ResponseFlushDiskTimeout, err.Error(), true
	case errors.As(err, &large), errors.As(err, &limit), errors.As(err, &batch), errors.Is(err, engine.ErrUnsupported),
		errors.Is(err, message.ErrHost), errors.Is(err, message.ErrShort), errors.Is(err, message.ErrLength), errors.Is(err, message.ErrBadMagic):
		return protocol.ResponseMessageIllegal, err.Error(), true
	case errors.Is(err, engine.ErrNotFound), errors.Is(err, engine.ErrOffsetTooSmall), errors.Is(err, engine.ErrOffsetTooLarge):
		return protocol.ResponseSystemError, err.Error(), true
	}
	return protocol.ResponseSystemError, err.Error(), false
}

// stored says whether an append or a save that ended with err is kept on this node all the same.
func stored(err error) bool {
	return errors.Is(err, replication.ErrReplicaTimeout) || errors.Is(err, replication.ErrNoReplica)
}

// savingLevel is how a save that ended with err is logged: that the other nodes are not there, or that another one
// leads, is no fault of this one.
func savingLevel(err error) slog.Level {
	if stored(err) || errors.Is(err, replication.ErrNotLeader) {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// refuseNotLeader is the refusal of a node that does not lead.
func refuseNotLeader(err *replication.NotLeaderError) *refusal {
	code, remark, _ := storeCode(err)
	return &refusal{code: code, remark: remark, leader: err.Leader, term: err.Epoch}
}

// refusalOf is how an error of the store is told; taken says that the record had an offset.
func (b *Broker) refusalOf(err error, taken bool) *refusal {
	var other *replication.NotLeaderError
	if errors.As(err, &other) {
		return refuseNotLeader(other) // nothing was stored
	}
	if taken && errors.Is(err, engine.ErrIndeterminate) {
		// A node that leads no more cannot tell whether its last records stay. 14 makes clients try again
		// where 10 would pass for stored. The log knows first: it gives up what waits before it tells why.
		if b.roles.newest().Mode == replication.Raft {
			if st := b.store.Status(); st.Role != replication.Leader {
				client := st.Client
				if st.Leader == st.ID {
					client = "" // it will lead again, perhaps
				}
				return &refusal{protocol.ResponseServiceNotAvailable, unknownOutcome + err.Error(), client, st.Epoch}
			}
		}
	}
	code, remark, known := storeCode(err)
	if !known {
		b.log.Error("store", "err", err)
	}
	if taken {
		remark = unknownOutcome + remark
	}
	return refuse(code, remark)
}
