package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"rmq/message"
	"rmq/results"
)

// Driver opens what is put under load.
type Driver interface {
	Name() string
	// Open makes a target with empty queues, ready for load when it returns. An error that the user
	// can mend is said in one line.
	Open(ctx context.Context, c Config) (Session, error)
}

// Shared is a driver whose target may hold what others have sent: topics get names of their own.
type Shared interface {
	Shared(c results.Cell) bool
}

// Config is what a driver is told.
type Config struct {
	Cell         results.Cell
	Dir          string   // an empty directory of its own
	Topics       []string // names of the topics
	SegmentBytes int64    // 0: the target's default
	Workers      int      // how many senders there will be
	// Event hears what happens inside the target: one of results.Event…, and how long it took. It
	// may be called from any goroutine and does not block.
	Event func(kind, detail string, took time.Duration)
	// Consumer returns what a consumer beside the load hands the bodies to that it has got, each of
	// them from one goroutine. To be called once the first sender is asked for.
	Consumer func() func(body []byte)
}

// Session is one target under load.
type Session interface {
	// Sender returns a way in for one worker. ops are all the messages that the worker will ever
	// have in flight, so that the driver can keep something for each by its Slot.
	Sender(ops []*Op) (Sender, error)
	// Counters is a snapshot, safe for concurrent use with load.
	Counters() Counters
	// Config is the full effective configuration of the target.
	Config() map[string]string
	// Sync returns when everything acknowledged so far is as durable as the target can make it.
	Sync(ctx context.Context) error
	// Verify stops the target, starts it again and hands everything it holds to the auditor.
	// ErrNothingStored says that there is nothing to read. All messages must have completed.
	Verify(ctx context.Context, a *Auditor) error
	// Close ends the target; messages in flight complete with an error. May be called twice.
	Close() error
}

// Sender takes messages from one worker.
type Sender interface {
	// Encode makes m the message of op and returns the bytes that it will take in the log. m and
	// its slices are valid during the call only.
	Encode(op *Op, m *message.Message) (int, error)
	// Send hands ops over, in this order. Each completes exactly once. ops is valid during the call
	// only. Send waits while the target takes no more.
	Send(ops []*Op)
}

// Laned is a session whose senders use several ways in turn: message n of a worker goes by way
// n / run % lanes, and only those of one way are stored in the order in which they were sent.
type Laned interface {
	Lanes() (lanes, run int)
}

// Replicated is a session whose messages are on other nodes too, or will be.
type Replicated interface {
	// CaughtUp returns when every replica holds what was acknowledged before the call.
	CaughtUp(ctx context.Context) error
	// Stock says that the nodes are not ours: what their acks mean is what their documentation says.
	Stock() bool
}

// ErrNothingStored says that a driver stores nothing that could be read back.
var ErrNothingStored = fmt.Errorf("the driver stores nothing")

// Counters of a target since it was opened. A nil pointer was not counted.
type Counters struct {
	LogBytes      int64
	Flushes       *int64
	Writes        *int64
	PreparedBytes int64
	Unprepared    int64 // segments used before they were ready
	Stalls        int64

	// Of processes that the driver started; nil when the target is in this one, or is somebody else's.
	CPUNanos     *int64 // user and system
	RSSBytes     *int64
	RSSAnonBytes *int64 // without the page cache
	DiskBytes    *int64 // that they made dirty or wrote
	Syscalls     *int64 // that read or write

	Replicas *Replicas // nil where nobody told
}

// Replicas is what is known of the nodes that hold one log.
type Replicas struct {
	LagBytes  int64 // that the farthest lacks of what the leader has written
	Unflushed int64 // that the leader has written and not synced
	Hops      []ReplicaHop
	Nodes     []ReplicaNode
}

// ReplicaHop adds up one kind of wait of replicated appends, since the target was opened.
type ReplicaHop struct {
	Name         string // append, localFlush, send, remoteAppend, remoteFlush, ack
	Count, Nanos int64
}

// ReplicaNode is what one node has written since it was opened.
type ReplicaNode struct {
	ID       string
	LogBytes int64 // end of its log
	Written  int64 // bytes that its process made dirty or wrote; 0: not known
	Prepared int64 // of them, zeros written ahead
}

// Op is one message in flight. It is used again and again.
type Op struct {
	Slot int   // index within its worker
	Err  error // set by the driver before Complete

	seq   int64
	due   int64 // ns of the part's clock; closed loop: when it was sent
	sent  int64
	acked int64
	busy  bool // in flight; the worker's
	owner *inbox
	next  *Op
}

// Seq is the number of the message, by which the [Auditor] knows it: those that a worker sends one after the other are
// Config.Workers apart. Valid from Encode until Complete.
func (o *Op) Seq() int64 { return o.seq }

// Complete says that the message was acknowledged, or failed with Err. It notes the time, does not
// block and may be called from any goroutine.
func (o *Op) Complete() {
	o.acked = o.owner.clock.now()
	o.owner.push(o)
}

// clock counts nanoseconds since a part began, and knows them on CLOCK_MONOTONIC.
type clock struct {
	origin time.Time
	mono   int64 // CLOCK_MONOTONIC at origin
}

func newClock() *clock { return &clock{origin: time.Now(), mono: monotonic()} }

func (c *clock) now() int64 { return int64(time.Since(c.origin)) }

// inbox takes completions from any goroutine and gives them to one worker in batches: a stack
// that is linked through the messages and taken whole.
type inbox struct {
	clock *clock
	_     [56]byte
	head  atomic.Pointer[Op]
	_     [56]byte
	idle  atomic.Bool
	_     [63]byte
	wake  chan struct{}
}

func newInbox(c *clock) *inbox { return &inbox{clock: c, wake: make(chan struct{}, 1)} }

func (b *inbox) push(o *Op) {
	for {
		h := b.head.Load()
		o.next = h
		if b.head.CompareAndSwap(h, o) {
			break
		}
	}
	if b.idle.Load() && b.idle.CompareAndSwap(true, false) {
		b.wake <- struct{}{}
	}
}

// take returns what has completed, oldest first, linked through next.
func (b *inbox) take() *Op {
	if b.head.Load() == nil {
		return nil
	}
	var first *Op
	for o := b.head.Swap(nil); o != nil; {
		next := o.next
		o.next = first
		first, o = o, next
	}
	return first
}

// wait returns when something has completed or d has passed.
func (b *inbox) wait(t *time.Timer, d time.Duration) {
	b.idle.Store(true)
	if b.head.Load() != nil && b.idle.CompareAndSwap(true, false) {
		return
	}
	t.Reset(d)
	select {
	case <-b.wake:
	case <-t.C:
		if !b.idle.CompareAndSwap(true, false) {
			<-b.wake // somebody is sending it
		}
	}
	t.Stop()
}
