package protocol

import (
	"errors"
	"fmt"
)

var (
	// ErrTruncated says that a frame or body ends before what it announces.
	ErrTruncated = errors.New("truncated")
	// ErrTooLarge says that a frame is longer than [MaxFrameBytes].
	ErrTooLarge = errors.New("too large")
	// ErrMalformed says that bytes are not what the protocol allows in their place.
	ErrMalformed = errors.New("malformed")
	// ErrMissing says that a header lacks a field which the request cannot do without.
	ErrMissing = errors.New("missing")
)

// FrameError says why a frame cannot be read. After it nothing on the connection can be trusted: it
// is closed without an answer.
type FrameError struct {
	Part   string // "length", "header" or "ext"
	Offset int    // where in the frame, counted behind the length word
	Detail string
	Err    error // ErrTruncated, ErrTooLarge or ErrMalformed
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("frame: %s at byte %d is %s: %s", e.Part, e.Offset, e.Err, e.Detail)
}

// Unwrap gives the kind of the error.
func (e *FrameError) Unwrap() error { return e.Err }

// HeaderError names the ext field of a command that is missing or cannot be read. Its text is meant
// for the remark of an answer.
type HeaderError struct {
	Field, Value string
	Want         string // what the value should have been
	Err          error  // ErrMissing or ErrMalformed
}

func (e *HeaderError) Error() string {
	if errors.Is(e.Err, ErrMissing) {
		return fmt.Sprintf("the header field %s is missing: the request needs it as %s", e.Field, e.Want)
	}
	v := e.Value
	if len(v) > 64 {
		v = v[:64] + "…"
	}
	return fmt.Sprintf("the header field %s has the value %q, which is no %s", e.Field, v, e.Want)
}

// Unwrap gives the kind of the error.
func (e *HeaderError) Unwrap() error { return e.Err }

// RemoteError is an answer other than success, as an error.
type RemoteError struct {
	Code   ResponseCode
	Remark string
}

func (e *RemoteError) Error() string {
	if e.Remark == "" {
		return fmt.Sprintf("remote: %s (%d)", e.Code, int32(e.Code))
	}
	return fmt.Sprintf("remote: %s (%d): %s", e.Code, int32(e.Code), e.Remark)
}

// Err is nil for a success and a [*RemoteError] for any other answer.
func (c *Command) Err() error {
	if c.Code == int32(ResponseSuccess) {
		return nil
	}
	return &RemoteError{ResponseCode(c.Code), string(c.Remark)}
}
