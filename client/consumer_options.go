package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// MessageModel says whether the members of a group share the queues or each get everything.
type MessageModel int

const (
	// Clustering shares the queues; offsets are kept by the brokers.
	Clustering MessageModel = iota
	// Broadcasting gives every member all messages; offsets are kept in a file of the machine, and a
	// message whose handler fails is not delivered again.
	Broadcasting
)

// String is Java's name.
func (m MessageModel) String() string {
	switch m {
	case Clustering:
		return "CLUSTERING"
	case Broadcasting:
		return "BROADCASTING"
	}
	return fmt.Sprintf("MessageModel(%d)", int(m))
}

// Handler consumes messages of one queue, in the order of their offsets: one at a time unless
// PushConsumerOptions.BatchSize says otherwise.
//
// Nil means consumed. An error means that the messages come again: at a concurrent consumer after a
// delay and perhaps at another member; at an ordered consumer to the same one, before anything behind
// them. A [*RetryError] says more precisely which and when. A panic counts as an error. ctx ends when
// the consumer is closed and its patience is over.
type Handler func(ctx context.Context, msgs []*MessageExt) error

// RetryError is what a [Handler] returns to say how messages are to come again.
type RetryError struct {
	// From is the index of the first message that was not consumed; those before it were.
	From int
	// DelayLevel is for concurrent consumers: the level after which the message comes again, 0 for the
	// broker's choice (10 s, 30 s, 1 m … with every attempt), negative for the dead letter queue at once.
	DelayLevel int
	// After is for ordered consumers: how long the queue rests, 10 ms to 30 s. Default 1 s.
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string {
	return fmt.Sprintf("consume again from message %d on: %v", e.From, e.Err)
}

// Unwrap gives the cause.
func (e *RetryError) Unwrap() error { return e.Err }

// PushConsumerOptions are the knobs of a [PushConsumer]. Group and Handler must be set.
type PushConsumerOptions struct {
	Group   string
	Handler Handler
	// Ordered consumes each queue strictly in order, by one member at a time.
	Ordered bool
	Model   MessageModel

	// From says where a group without offsets begins; Since is the time for FromTime. Default of Since:
	// half an hour ago.
	From  ConsumeFrom
	Since time.Time

	// Concurrency is how many handlers run at once. Default 20.
	Concurrency int
	// BatchSize is how many messages a handler gets at most. Default 1.
	BatchSize int
	// PullBatch is how many messages one pull asks for. Default 32.
	PullBatch int
	// What is held of a queue before pulling pauses: messages (default 1000), bytes of bodies (default
	// 100 MiB), and, for concurrent consumers, distance between first and last offset (default 2000).
	MaxCachedMessages int
	MaxCachedBytes    int
	MaxSpan           int

	// MaxReconsumeTimes is how often a message comes again before it goes to the dead letter queue.
	// Default: 16 for concurrent consumers, without limit for ordered ones. Negative: the default.
	MaxReconsumeTimes int
	// ConsumeTimeout is how long a concurrent handler may keep a message before it is sent back all the
	// same. Default 15 min.
	ConsumeTimeout time.Duration

	// Allocate shares queues out. Default AllocateAveragely; all members must have the same.
	Allocate AllocateStrategy
	// OffsetDir is where broadcast offsets are kept. Default .rocketmq_offsets in the home directory.
	OffsetDir string

	RebalanceInterval time.Duration // default 20 s
	CommitInterval    time.Duration // default 5 s
	LockInterval      time.Duration // of ordered consumers; default 20 s, brokers forget after 60 s
	ErrorDelay        time.Duration // pause after a pull that failed; default 3 s
}

// EnsureDefaults fills what is unset.
func (o *PushConsumerOptions) EnsureDefaults() {
	setDefault(&o.Concurrency, 20)
	setDefault(&o.BatchSize, 1)
	setDefault(&o.PullBatch, 32)
	setDefault(&o.MaxCachedMessages, 1000)
	setDefault(&o.MaxCachedBytes, 100<<20)
	setDefault(&o.MaxSpan, 2000)
	if o.MaxReconsumeTimes == 0 {
		o.MaxReconsumeTimes = -1
	}
	setDefault(&o.ConsumeTimeout, 15*time.Minute)
	setDefault(&o.RebalanceInterval, 20*time.Second)
	setDefault(&o.CommitInterval, 5*time.Second)
	setDefault(&o.LockInterval, 20*time.Second)
	setDefault(&o.ErrorDelay, 3*time.Second)
	if o.Since.IsZero() {
		o.Since = time.Now().Add(-30 * time.Minute)
	}
	if o.Allocate == nil {
		o.Allocate = AllocateAveragely
	}
	if o.OffsetDir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "."
		}
		o.OffsetDir = filepath.Join(home, ".rocketmq_offsets")
	}
}

// Validate returns every complaint at once.
func (o *PushConsumerOptions) Validate() error {
	errs := []error{
		checkGroup(o.Group), notNegative("Concurrency", o.Concurrency), notNegative("BatchSize", o.BatchSize),
		notNegative("PullBatch", o.PullBatch), notNegative("MaxCachedMessages", o.MaxCachedMessages), notNegative("MaxCachedBytes", o.MaxCachedBytes),
		notNegative("MaxSpan", o.MaxSpan), notNegative("ConsumeTimeout", o.ConsumeTimeout), notNegative("RebalanceInterval", o.RebalanceInterval),
		notNegative("CommitInterval", o.CommitInterval), notNegative("LockInterval", o.LockInterval), notNegative("ErrorDelay", o.ErrorDelay),
	}
	if o.Handler == nil {
		errs = append(errs, errors.New("the Handler is nil: give the function that consumes messages"))
	}
	if o.BatchSize > 1024 || o.PullBatch > 1024 {
		errs = append(errs, fmt.Errorf("BatchSize is %d, PullBatch %d: the most is 1024", o.BatchSize, o.PullBatch))
	}
	if o.LockInterval >= lockTrust {
		errs = append(errs, fmt.Errorf("LockInterval is %v: a lock is trusted for %v only, renew it more often", o.LockInterval, lockTrust))
	}
	if o.Model != Clustering && o.Model != Broadcasting {
		errs = append(errs, fmt.Errorf("the Model is %v: give Clustering or Broadcasting", o.Model))
	}
	return errors.Join(errs...)
}
