package engine

import (
	"errors"
	"fmt"

	"rmq/engine/mappedfile"
)

// What a caller may branch on.
var (
	// ErrClosed answers every call after Close.
	ErrClosed = errors.New("store is closed")
	// ErrIndeterminate says that the wait ended after the record had its offset: it may exist.
	ErrIndeterminate = errors.New("outcome unknown: the record may have been stored")
	// ErrBusy says that no more can be taken right now; the text names the cause.
	ErrBusy = errors.New("store is busy")
	// ErrPoisoned says that log bytes could not be written or synced: nothing is acked any more
	// until the store is opened again.
	ErrPoisoned = errors.New("store is poisoned")
	// ErrNotFound says that there is no such record or queue.
	ErrNotFound = errors.New("not found")
	// ErrOffsetTooSmall says that the log no longer holds the position.
	ErrOffsetTooSmall = errors.New("offset is before the log")
	// ErrOffsetTooLarge says that the log does not reach the position, or may not show it yet.
	ErrOffsetTooLarge = errors.New("offset is behind the log")
	// ErrCold says that only a file holds what was to be read from memory.
	ErrCold = errors.New("not in memory")
	// ErrUnsupported says that the engine does not store such records.
	ErrUnsupported = errors.New("not supported")
)

// FileError says which operation failed on which file.
type FileError = mappedfile.FileError

// SpaceError is a write refused for want of disk space; writes resume by themselves.
type SpaceError = mappedfile.SpaceError

// IsFull reports whether err says that a disk or a quota is exhausted.
func IsFull(err error) bool { return mappedfile.IsFull(err) }

// CorruptionError is damage that recovery must not cut away by itself.
type CorruptionError struct {
	Path   string
	Offset int64 // absolute
	What   string
	Err    error
}

func (e *CorruptionError) Error() string {
	s := fmt.Sprintf("%s is damaged at offset %d: %s", e.Path, e.Offset, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}
func (e *CorruptionError) Unwrap() error { return e.Err }

// IsDamage reports whether err says that files of a store are damaged, missing or short, so that another copy of the log
// is wanted.
func IsDamage(err error) bool {
	var corrupt *CorruptionError
	var gap *mappedfile.GapError
	var size *mappedfile.SizeError
	return errors.As(err, &corrupt) || errors.As(err, &gap) || errors.As(err, &size)
}

// TooLargeError is a record above the limit.
type TooLargeError struct{ Size, Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("record of %d bytes is above the limit of %d: raise maxMessageSize or the segment size, or send less", e.Size, e.Limit)
}
