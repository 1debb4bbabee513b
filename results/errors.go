package results

import (
	"errors"
	"fmt"
)

// Errors that callers branch on.
var (
	// ErrExists: the directory already holds a run.
	ErrExists = errors.New("directory already holds a run")
	// ErrNoRun: the directory holds no manifest.json.
	ErrNoRun = errors.New("no run in this directory")
	// ErrNotWritable: the output directory cannot be written.
	ErrNotWritable = errors.New("output directory is not writable")
)

// SchemaError says that a file was written under another schema version than this program reads.
type SchemaError struct {
	Path      string
	Got, Want int
}

func (e *SchemaError) Error() string {
	if e.Got == 0 {
		return fmt.Sprintf("%s: no schema version (want %d): not a result of rmqbench", e.Path, e.Want)
	}
	fix := "read it with the rmqbench that wrote it, or run it again"
	if e.Got > e.Want {
		fix = "it comes from a newer rmqbench, read it with that"
	}
	return fmt.Sprintf("%s: schema %d, want %d: %s", e.Path, e.Got, e.Want, fix)
}

// DamagedError says that a file of a run cannot be read.
type DamagedError struct {
	Path string
	Want string // what was expected there
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s: damaged: want %s: %v: restore the file or run it again", e.Path, e.Want, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }
