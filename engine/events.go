package engine

import (
	"time"

	"rmq/message"
)

// EventListener hears what happens inside a store. Every func may be nil. They run on the
// engine's goroutines and must not block or call back into the store.
type EventListener struct {
	Flush      func(FlushEvent)
	Roll       func(RollEvent)
	Recover    func(RecoveryReport)
	Checkpoint func(CheckpointEvent)
	Clean      func(CleanEvent)
	Stall      func(StallEvent)
	Poison     func(error)
	// Arrive hears of every record that has become readable by queue offset, if its queue is
	// watched ([Store.Watch]), and perhaps of others. The Arrival is valid during the call.
	Arrive func(*Arrival)
}

// Arrival is a record that has got its place in a consume queue.
type Arrival struct {
	Topic       []byte
	QueueID     int32
	QueueOffset int64
	TagsHash    int64
	StoreTime   int64 // milliseconds
	Properties  message.Properties
}

// FlushEvent is one sync of log bytes.
type FlushEvent struct {
	From, To int64
	Took     time.Duration
}

// RollEvent is the step from one segment to the next.
type RollEvent struct {
	Segment  int64 // where the new segment begins
	Prepared bool  // whether it had been written with zeros
}

// CheckpointEvent is one write-out of derived files.
type CheckpointEvent struct {
	Dispatched int64
	Took       time.Duration
}

// CleanEvent is one segment that retention removed.
type CleanEvent struct {
	Segment int64
	Reason  string
}

// StallEvent is an append that had to wait.
type StallEvent struct {
	Cause string // "roll", "flush", "write", "disk"
	Took  time.Duration
}

// Stats is a snapshot of counters since the store was opened, and of positions now.
type Stats struct {
	Min, Appended, Written, Flushed, Ackable, Visible, Confirm, Dispatched int64

	Records, RecordBytes         int64 // appended by Append and Submit
	RawBytes                     int64 // appended by AppendRaw
	Writes                       int64 // calls that wrote log bytes
	WriteBytes                   int64 // bytes those calls wrote, padding included
	Flushes                      int64 // syncs of log bytes
	FlushNanos                   int64 // time spent in them
	Rolls                        int64
	UnpreparedSegments           int64 // used before they were filled
	PreparedBytes                int64 // zeros written ahead; no log bytes
	Stalls                       int64 // appends that waited
	Checkpoints                  int64
	OrderViolations              int64 // watermarks out of order; always 0
	MaxUnflushed                 int64 // W, the promised loss bound under async flush; 0 under sync
	Queues                       int   // consume queues known
	TailCacheBytes, PendingBytes int64
}
