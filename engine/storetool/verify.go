package storetool

import (
	"context"
	"fmt"
	"path"

	"rmq/engine/format"
	"rmq/message"
)

// VerifyOptions say how much to report.
type VerifyOptions struct {
	// MaxFindings keeps the report short; all are counted. 0: 1000; below 0: all of them.
	MaxFindings int
	// Each hears of every finding that is kept, as it is made.
	Each func(Finding)
}

// verifier is one run of Verify.
type verifier struct {
	s      *Store
	f      findings
	r      *Report
	queues *queueChecks
	index  *indexCheck
	last   int64 // store time of the newest record
	first  bool
}

// Verify checks every rule that a store obeys: the records of the log against themselves and their
// place, queues and index against the log, and what the store says about itself against all of
// them. It reads everything once, and holds no more than some 100 MiB.
//
// The error is one of the file system or of ctx, or an [*engine.VersionError]. What is wrong with the store is in the report.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	if err := s.tooNew(); err != nil {
		return nil, err
	}
	if o.MaxFindings == 0 {
		o.MaxFindings = 1000
	}
	v := &verifier{s: s, r: &Report{}, first: true}
	v.f = findings{r: v.r, limit: o.MaxFindings, each: o.Each}
	v.queues = &queueChecks{s: s, add: v.f.add, r: v.r, all: map[queueKey]*queueCheck{}, lookup: map[string]*queueCheck{}}
	cursor := s.newIndexCursor(v.f.add)
	defer cursor.close()
	v.index = &indexCheck{c: cursor, s: s, add: v.f.add, none: len(s.indexes) == 0, hidden: v.queues.hidden}

	for _, x := range s.layout {
		v.f.add(x)
	}
	v.stamps()
	if !v.index.none {
		if err := cursor.advance(); err != nil {
			return nil, err
		}
	}
	t, err := s.walk(ctx, s.low(), visitor{record: v.record, blank: v.blank, damaged: v.damage})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	v.r.Min, v.r.End = s.low(), t.end
	v.tail(t)
	if err := v.queues.finish(t.end); err != nil {
		return nil, fmt.Errorf("read the queues: %w", err)
	}
	if err := v.index.finish(t.end); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	v.r.IndexFiles, v.r.IndexEntries = len(s.indexes), cursor.count
	v.against(t)
	return v.r, nil
}

func (v *verifier) at(sev Severity, kind string, pos int64, text string, args ...any) {
	name, offset := v.s.segmentAt(pos)
	v.f.add(Finding{Severity: sev, Kind: kind, Path: name, Offset: offset, Pos: pos, Text: fmt.Sprintf(text, args...)})
}

func (v *verifier) record(pos int64, _ []byte, r *message.Record) error {
	s := v.s
	v.r.Records++
	if r.StoreTimestamp < v.last && !v.first {
		v.at(Note, KindTime, pos, "store time %d is before that of the record before, %d: the clock was set back", r.StoreTimestamp, v.last)
	}
	v.last, v.first = r.StoreTimestamp, false
	switch {
	case r.SysFlag.Has(message.FlagInnerBatch):
		v.at(Note, KindForeign, pos, "an inner batch, whose queue is not checked")
	case r.SysFlag.ConsumesOffset() && !nameable(r.Topic, r.QueueID):
		v.at(Note, KindRecord, pos, "no directory can be named for queue %q/%d: the record is in no queue", r.Topic, r.QueueID)
	case r.SysFlag.ConsumesOffset():
		e := format.CQEntry{Offset: pos, Size: r.Size, TagsHash: s.tagsCode(r.Topic, r.Properties.DelayLevel(), r.Properties.Get(message.PropTags), r.StoreTimestamp)}
		want, ok, err := v.queues.expect(r.Topic, r.QueueID, r.QueueOffset, e)
		if err != nil {
			return err
		}
		if !ok {
			v.at(Fault, KindOffset, pos, "queue offset is %d where %s/%d goes on at %d", r.QueueOffset, r.Topic, r.QueueID, want)
		}
	case r.QueueOffset != 0:
		v.at(Note, KindOffset, pos, "a prepared or rolled-back record has queue offset %d", r.QueueOffset)
	}
	return v.index.record(pos, r)
}

func (v *verifier) blank(pos, size, left int64) error {
	if size != left {
		v.at(Fault, KindBlank, pos, "the blank record says that %d bytes are left, there are %d", size, left)
	}
	return nil
}

func (v *verifier) damage(d damage) error {
	v.r.Damaged += d.to - d.from
	kind := KindRecord
	if d.zeros {
		kind = KindHole
	}
	v.at(Fault, kind, d.from, "%v: no record in the %d bytes up to %d, where good ones go on; a broker cuts the log here", d.err, d.to-d.from, d.to)
	v.queues.damage(d)
	return nil
}

// tail judges what stands behind the last record.
func (v *verifier) tail(t tail) {
	if t.used == t.end {
		return
	}
	sev, why := Fault, ""
	if v.s.unclean() && (v.s.state == nil || v.s.state.Flushed <= t.end) {
		sev, why = Note, "; a broker was killed, and the next start cuts it off"
	}
	v.at(sev, KindTail, t.end, "%v: %d bytes up to %d behind the last record are no zeros%s", t.err, t.used-t.end, t.used, why)
}

func (v *verifier) stamp(sev Severity, kind, name string, text string, args ...any) {
	v.f.add(Finding{Severity: sev, Kind: kind, Path: path.Join(v.s.o.Dir, name), Offset: -1, Pos: -1, Text: fmt.Sprintf(text, args...)})
}

// stamps checks what the store says about itself, each on its own.
func (v *verifier) stamps() {
	s := v.s
	if s.holder != 0 {
		v.stamp(Note, KindInUse, "lock", "process %d has the store open: what it is writing may look like damage", s.holder)
	}
	if s.manifestErr != nil {
		v.stamp(Fault, KindStamp, "rmq/manifest", "%v", s.manifestErr)
	}
	if s.stateErr != nil {
		v.stamp(Fault, KindStamp, "rmq/state", "%v", s.stateErr)
	}
	if s.aborted {
		v.stamp(Note, KindUnclean, "abort", "the last owner did not close the store: the next start replays some of the log")
	}
	if m := s.manifest; m != nil {
		differ := func(key string, manifest, options int64) {
			if manifest != options {
				v.stamp(Fault, KindStamp, "rmq/manifest", "%s is %d, the files have %d", key, manifest, options)
			}
		}
		differ("segmentBytes", m.SegmentBytes, s.o.SegmentBytes)
		differ("queueFileBytes", m.QueueFileBytes, s.o.QueueFileBytes)
		if len(s.indexes) > 0 {
			differ("maxHashSlots", int64(m.MaxHashSlots), int64(s.o.MaxHashSlots))
			differ("maxIndexEntries", int64(m.MaxIndexEntries), int64(s.o.MaxIndexEntries))
		}
	}
	switch {
	case s.checkpoint == nil:
		if len(s.segments) > 0 {
			v.stamp(Note, KindStamp, "checkpoint", "there is none: a broker that was killed replays the whole log")
		}
	case len(s.checkpoint) != format.CheckpointBytes:
		v.stamp(Fault, KindStamp, "checkpoint", "has %d bytes, a checkpoint has %d", len(s.checkpoint), format.CheckpointBytes)
	}
	if s.state != nil && s.journalErr != nil {
		sev := Note
		if s.journalErr != errNoJournal { //nolint:errorlint // comes unwrapped
			sev = Fault
		}
		v.stamp(sev, KindJournal, "rmq/queues.journal", "%v: the next start makes it anew from queue files and log", s.journalErr)
	}
}

// against checks what the store says about itself against its log.
func (v *verifier) against(t tail) {
	s := v.s
	newer := func(key string, at int64) {
		if at > v.last {
			v.stamp(Fault, KindStamp, "checkpoint", "%s time %d is after the newest record, %d: a broker that was killed would replay too little", key, at, v.last)
		}
	}
	if len(s.checkpoint) >= 40 && (v.r.Records > 0 || s.page.Physic > 0) {
		newer("log", s.page.Physic)
		newer("queue", s.page.Logics)
		newer("index", s.page.Index)
	}
	st := s.state
	if st == nil {
		return
	}
	if st.Flushed > t.end {
		v.stamp(Fault, KindStamp, "rmq/state", "the log was on disk up to %d, but reads only to %d", st.Flushed, t.end)
	}
	if st.Dispatched > t.end {
		v.stamp(Fault, KindStamp, "rmq/state", "queues and index know the log up to %d, it ends at %d", st.Dispatched, t.end)
	}
	if st.Start > t.end {
		v.stamp(Fault, KindStamp, "rmq/state", "the log begins at %d, but ends at %d", st.Start, t.end)
	}
	if st.Clean && !s.aborted && st.Flushed != t.end && t.used == t.end && st.Flushed <= t.end && !blankOnly(s, st.Flushed, t.end) {
		v.stamp(Fault, KindStamp, "rmq/state", "the store was closed at %d, but the log goes on to %d", st.Flushed, t.end)
	}
}

// blankOnly reports whether two positions differ by the rest of a segment at most, as the end of a
// log that closed with a blank may be told either way.
func blankOnly(s *Store, from, to int64) bool {
	return to%s.o.SegmentBytes == 0 && to-from < s.o.SegmentBytes
}
