package client

import (
	"errors"
	"fmt"
	"strings"

	"rmq/remoting/protocol"
)

var (
	// ErrClosed says that the client, or the producer or consumer made from it, is closed.
	ErrClosed = errors.New("client is closed")
	// ErrNoNameServer says that no name server is known.
	ErrNoNameServer = errors.New("no name server: set Options.NameServers or NAMESRV_ADDR, like 10.0.0.1:9876;10.0.0.2:9876")
	// ErrNoRoute says that no live broker has the topic.
	ErrNoRoute = errors.New("no route for the topic")
	// ErrNoBroker says that the route names no address for a broker.
	ErrNoBroker = errors.New("no address for the broker")
	// ErrNotFound says that there is nothing to what was asked for: no message, no offset, no key.
	ErrNotFound = errors.New("not found")
	// ErrNotOnline says that no member of the consumer group is connected.
	ErrNotOnline = errors.New("consumer group is not online")
	// ErrGroupInUse says that the client already has a producer or consumer of the group.
	ErrGroupInUse = errors.New("the client has one of this group already: close it, or make another client")
	// ErrStarted says that something can be changed only before Start.
	ErrStarted = errors.New("consumer is started already")
	// ErrNotStarted says that the consumer must be started first.
	ErrNotStarted = errors.New("consumer is not started: call Start")
	// ErrNotAssigned says that a consumer does not hold a queue.
	ErrNotAssigned = errors.New("queue is not assigned to this consumer")
)

// unknownOutcome begins the remark of a refusal that came after the append.
const unknownOutcome = "[UNKNOWN_OUTCOME]"

// UnknownOutcomeError says that a message may or may not be stored: the answer did not come, or
// the broker stored the message and could not keep the promise that goes with it (flush or slave
// in time). Sending again may store it twice, under the same unique key.
type UnknownOutcomeError struct {
	Op   string // "send"
	Addr string // the broker's address
	Err  error  // a [*protocol.RemoteError], or what broke the connection
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("%s to %s: outcome unknown, it may be stored: %v", e.Op, e.Addr, e.Err)
}

// Unwrap gives the cause.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// LimitError is a part of a message, a name or an option outside of what brokers take.
type LimitError struct {
	Part string
	What string
	Fix  string
}

func (e *LimitError) Error() string { return e.Part + " " + e.What + ": " + e.Fix }

// PanicError is what a message handler panicked with. The messages are delivered again.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v\n%s", e.Value, e.Stack) }

// CodeOf is the response code in the chain of err, and whether there is one.
func CodeOf(err error) (protocol.ResponseCode, bool) {
	var r *protocol.RemoteError
	if errors.As(err, &r) {
		return r.Code, true
	}
	return 0, false
}

func hasCode(err error, codes ...protocol.ResponseCode) bool {
	have, ok := CodeOf(err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if have == c {
			return true
		}
	}
	return false
}

// saysUnknown reports whether a broker refused after it had stored.
func saysUnknown(err error) bool {
	var r *protocol.RemoteError
	return errors.As(err, &r) && strings.HasPrefix(r.Remark, unknownOutcome)
}
