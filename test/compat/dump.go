// Package compat holds store directories and computed values that the Apache classes made, and
// compares them with what this project reads and computes. The directories and values lie in
// testdata, whose README names class and version of each; they need no Java.
//
// A [Dump] is what the Apache store answered about a directory through its public methods: the
// program that asked is test/interop/java. [Check] puts the same questions to our engine.
package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// QueueName names one consume queue.
type QueueName struct {
	Topic string
	ID    int32
}

// Range is the queue offsets that a queue holds, from Min to below Max.
type Range struct{ Min, Max int64 }

// Record is one stored record. CRC is the CRC-32 of all its bytes.
type Record struct {
	Topic     string `json:"topic"`
	Queue     int32  `json:"queue"`
	Offset    int64  `json:"off"`
	Pos       int64  `json:"pos"`
	Size      int    `json:"size"`
	CRC       uint32 `json:"crc"`
	StoreTime int64  `json:"store"`
	ID        string `json:"id"`
	Keys      string `json:"keys"`
	UniqueKey string `json:"uniq"`
	Tags      string `json:"tags"`
	NoEntry   int    `json:"noentry"` // 1: acked, but prepared or rolled back, so in no queue
}

// KeyQuery is one question to the index and the positions that it answered with.
type KeyQuery struct {
	Topic     string  `json:"topic"`
	Key       string  `json:"key"`
	Max       int     `json:"n"`
	Begin     int64   `json:"begin"`
	End       int64   `json:"end"`
	Positions []int64 `json:"pos"`
}

// TimeQuery is a list of store times and the queue offset answered for each.
type TimeQuery struct {
	Topic   string  `json:"topic"`
	Queue   int32   `json:"queue"`
	Times   []int64 `json:"times"`
	Offsets []int64 `json:"offs"`
}

// Dump is everything that the store answered at one moment.
type Dump struct {
	Line     string // release line, 4.9 or 5.3
	Min, Max int64  // positions of the log
	Queues   map[QueueName]Range
	Records  []Record // grouped by queue, by offset within
	Keys     []KeyQuery
	Times    []TimeQuery
	Complete bool
}

// Run is what one run of the harness printed.
type Run struct {
	Puts    []Record // what the store acked, in order; without keys and checksum
	Dumps   []*Dump
	Stopped bool // the store was stopped the clean way
}

// ParseRun reads lines of JSON up to the end. A line cut short at the end, as a killed process
// leaves it, is ignored.
func ParseRun(r io.Reader) (*Run, error) {
	run := &Run{}
	dec := json.NewDecoder(r)
	for {
		var raw json.RawMessage
		switch err := dec.Decode(&raw); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return run, nil
		case err != nil:
			return nil, fmt.Errorf("harness output after byte %d: %w", dec.InputOffset(), err)
		}
		if err := run.add(raw); err != nil {
			return nil, fmt.Errorf("harness line %s: %w", raw, err)
		}
	}
}

func (run *Run) add(raw json.RawMessage) error {
	var line struct {
		Op, Line, Topic string
		Queue           int32
		Min, Max        int64
	}
	if err := json.Unmarshal(raw, &line); err != nil {
		return err
	}
	switch line.Op {
	case "put":
		return appendTo(&run.Puts, raw)
	case "log":
		run.Dumps = append(run.Dumps, &Dump{Line: line.Line, Min: line.Min, Max: line.Max, Queues: map[QueueName]Range{}})
		return nil
	case "stopped":
		run.Stopped = true
		return nil
	}
	if len(run.Dumps) == 0 {
		return errors.New("an answer before the line that begins a dump")
	}
	d := run.Dumps[len(run.Dumps)-1]
	switch line.Op {
	case "queue":
		d.Queues[QueueName{line.Topic, line.Queue}] = Range{line.Min, line.Max}
	case "rec":
		return appendTo(&d.Records, raw)
	case "key":
		return appendTo(&d.Keys, raw)
	case "time":
		return appendTo(&d.Times, raw)
	case "end":
		d.Complete = true
	default:
		return fmt.Errorf("unknown op %q", line.Op)
	}
	return nil
}

func appendTo[T any](list *[]T, raw json.RawMessage) error {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}
