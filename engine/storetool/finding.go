package storetool

import (
	"fmt"
	"strings"
)

// Severity says what a finding means.
type Severity string

// The severities. A fault breaks a rule that holds for every store. A note is worth knowing, and
// allowed: what a killed broker leaves behind for its next start, for instance.
const (
	Fault Severity = "fault"
	Note  Severity = "note"
)

// Kinds of findings.
const (
	KindFile     = "file"    // names, sizes and gaps of files, strangers
	KindRecord   = "record"  // a record of the log: length, magic, checksum, position
	KindOffset   = "offset"  // a queue offset in a record is not the next one
	KindTime     = "time"    // a store time goes backwards
	KindBlank    = "blank"   // the end of a segment
	KindTail     = "tail"    // bytes behind the last record
	KindHole     = "hole"    // bytes between records that are none
	KindEntry    = "entry"   // a queue entry says something else than its record
	KindMissing  = "missing" // a record has no queue entry, or no key in the index
	KindExtra    = "extra"   // a queue or index entry has no record
	KindFiller   = "filler"  // entries before the first of a queue
	KindIndex    = "index"   // header, slots and chains of an index file
	KindStamp    = "stamp"   // checkpoint, manifest, state
	KindForeign  = "foreign" // parts that are not checked
	KindInUse    = "in-use"  // somebody has the store open
	KindUnclean  = "unclean" // the last owner did not close the store
	KindJournal  = "journal" // our queue journal
	positionless = -1
)

// Finding is one thing that verify has to say.
type Finding struct {
	Severity Severity `json:"severity"`
	Kind     string   `json:"kind"`
	Path     string   `json:"path,omitempty"`
	Offset   int64    `json:"offset"` // in the file, -1 where it means nothing
	Pos      int64    `json:"pos"`    // in the log, -1 where it means nothing
	Topic    string   `json:"topic,omitempty"`
	Queue    int32    `json:"queue,omitempty"`
	Text     string   `json:"text"`
}

// String is the finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s %-10s ", f.Severity, f.Kind)
	if f.Path != "" {
		b.WriteString(f.Path)
		if f.Offset >= 0 {
			fmt.Fprintf(&b, "+%d", f.Offset)
		}
		b.WriteString(": ")
	}
	if f.Topic != "" {
		fmt.Fprintf(&b, "%s/%d: ", f.Topic, f.Queue)
	}
	b.WriteString(f.Text)
	if f.Pos >= 0 {
		fmt.Fprintf(&b, " (log position %d)", f.Pos)
	}
	return b.String()
}

// Report is what verify found.
type Report struct {
	Findings []Finding `json:"findings"` // at most as many as asked for
	Faults   int       `json:"faults"`   // all of them
	Notes    int       `json:"notes"`

	Min          int64 `json:"min"` // the log that can be read
	End          int64 `json:"end"`
	Records      int64 `json:"records"`
	Damaged      int64 `json:"damagedBytes"` // between good records
	Queues       int   `json:"queues"`
	QueueEntries int64 `json:"queueEntries"`
	IndexFiles   int   `json:"indexFiles"`
	IndexEntries int64 `json:"indexEntries"`
}

// OK reports whether there was no fault.
func (r *Report) OK() bool { return r.Faults == 0 }

// findings collects, and keeps the count once there are enough.
type findings struct {
	r     *Report
	limit int
	each  func(Finding)
}

func (f *findings) add(x Finding) {
	if x.Severity == Fault {
		f.r.Faults++
	} else {
		f.r.Notes++
	}
	if len(f.r.Findings) < f.limit || f.limit < 0 {
		f.r.Findings = append(f.r.Findings, x)
		if f.each != nil {
			f.each(x)
		}
	}
}
