package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"time"

	"rmq/engine/format"
	"rmq/engine/mappedfile"
	"rmq/internal/vfs"
	"rmq/message"
)

// RecoveryReport says what Open found, kept, cut and rebuilt.
type RecoveryReport struct {
	New      bool // there was no store
	Adopted  bool // the directory was last written by somebody else
	Clean    bool // the last owner had closed it: nothing is replayed
	Rebooted bool // the machine was started since
	Closed   bool // the last owner had synced the whole log and stopped, though a part of it was hidden that is shown now

	Scanned    int64 // position at which the scan of the log began
	End        int64 // end of the last good record: appends go on here
	Records    int64 // records seen by the scan
	Hidden     int64 // bytes in front of End that readers may not see yet
	Replayed   int64 // bytes of log fed to queues and index again
	CutBytes   int64 // bytes behind End that were no zeros, kept aside
	CutRecords int64 // whole records among them, valid at their own offset
	CutReason  string
	Broken     []string // where what was cut is kept

	QueuesRebuilt bool // from the log, because they could not be trusted
	IndexRebuilt  bool
	Took          time.Duration
}

// loaded is what the files said before the log was scanned.
type loaded struct {
	state   *storeState // nil: none that counts
	page    format.CheckpointPage
	aborted bool // the last owner did not close
}

const abortName = "abort"

// abortText marks an abort file as ours, so that a crash of another broker in the same directory
// is told from a crash of this one.
func abortText() []byte { return fmt.Appendf(nil, "rmq %d\n", os.Getpid()) }

// load opens everything and decides whose store it is.
func (s *Store) load(ctx context.Context) (*loaded, error) {
	o := &s.o
	man, err := openManifest(o)
	if err != nil {
		return nil, err
	}
	ld := &loaded{}
	abort, err := vfs.ReadFile(o.FS, path.Join(o.Dir, abortName))
	switch {
	case err == nil:
		ld.aborted = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	foreign := man == nil || ld.aborted && !bytes.HasPrefix(abort, []byte("rmq "))

	s.keeper = newKeeper(s)
	page, pageSum, err := s.keeper.checkpoint.load()
	if err != nil {
		return nil, err
	}
	ld.page = page
	if !foreign {
		if ld.state, err = loadState(o.FS, rmqDir(o.Dir)); err != nil {
			o.Logger.Warn("state file unreadable: recovering as if there were none", "err", err)
		}
		if ld.state != nil && ld.state.CheckpointSum != pageSum && ld.state.NextSum != pageSum {
			foreign, ld.state = true, nil // somebody else has written the checkpoint since
		}
	}
	s.files, err = mappedfile.Open(mappedfile.Options{
		FS: o.FS, Dir: o.CommitLogDir, Making: path.Join(rmqDir(o.Dir), "prepared"),
		FileBytes: o.SegmentBytes, Writer: s.writerFunc(),
	})
	if err != nil {
		return nil, err
	}
	s.report.New = man == nil && len(s.files.Files()) == 0
	s.report.Adopted = foreign && !s.report.New
	// A hidden tail leaves the abort mark of a clean stop: it has to be replayed by who opens with it shown.
	s.report.Clean = !ld.aborted && foreign || ld.state != nil && ld.state.Clean && (!ld.aborted || o.Hidden)
	s.report.Closed = s.report.Clean || ld.state != nil && ld.state.Closed
	s.report.Rebooted = ld.state != nil && ld.state.BootID != bootID()

	s.queues = newQueueTable(queueTableOptions{FS: o.FS, Dir: o.QueueDir, FileBytes: o.QueueFileBytes, Logger: o.Logger,
		JournalDir: rmqDir(o.Dir), Foreign: foreign, DirectEntries: o.directEntries})
	if err := s.queues.load(ctx); err != nil {
		return nil, err
	}
	if !o.IndexDisabled {
		s.index = newIndexService(indexOptions{FS: o.FS, Dir: o.IndexDir, Slots: o.MaxHashSlots, MaxEntries: o.MaxIndexEntries,
			Foreign: foreign, Clock: o.Clock, Logger: o.Logger})
		if err := s.index.load(ctx, s.report.Clean, page.Index); err != nil {
			if foreign {
				return nil, err
			}
			o.Logger.Warn("index unreadable: it is rebuilt from the log", "err", err)
			s.report.IndexRebuilt = true
			if err := s.index.reset(ctx); err != nil {
				return nil, err
			}
		}
	}
	if man == nil {
		if err := createManifest(o); err != nil {
			return nil, err
		}
	}
	s.log = newCommitLog(o, s.files, s.queues)
	s.disp = newDispatcher(s.log, s.queues, s.index)
	return ld, nil
}

// recover finds the end of the log, replays what queues and index do not have, and cuts what is
// behind the end.
func (s *Store) recover(ctx context.Context, ld *loaded) error {
	rep := &s.report
	from, err := s.scanStart(ctx, ld)
	if err != nil {
		return err
	}
	found, err := s.scan(ctx, ld, from)
	var gap *queueGapError
	if errors.As(err, &gap) && !rep.QueuesRebuilt {
		// The queues lack entries that they should have: nothing in them is believed.
		s.o.Logger.Warn("consume queues have a gap: rebuilding them", "err", err)
		rep.QueuesRebuilt = true
		if err := s.rebuildDerived(ctx); err != nil {
			return err
		}
		s.disp.err = nil
		from, _ = s.files.Min()
		if ld.state != nil {
			from = max(from, ld.state.Start)
		}
		rep.Records = 0
		found, err = s.scan(ctx, ld, from)
	}
	if err != nil {
		return err
	}
	s.queues.rebuilt()
	end := found.end
	rep.Scanned = from
	rep.End, rep.Replayed, rep.Hidden = end, found.known-from, end-found.shown
	if ld.state != nil && end < ld.state.Flushed {
		return &CorruptionError{Path: s.segmentPath(end), Offset: end,
			What: fmt.Sprintf("the log was on disk up to %d but reads only to here (%v): repair the store into a copy", ld.state.Flushed, found.reason)}
	}
	if err := s.cut(end, end, found.reason); err != nil {
		return err
	}
	s.mended = rep.Adopted || rep.QueuesRebuilt || rep.IndexRebuilt || s.queues.maxPos() > end || s.index != nil && s.index.endOffset() >= end
	if s.queues.maxPos() > end {
		if err := s.queues.truncate(ctx, end); err != nil {
			return err
		}
	}
	if s.index != nil {
		if err := s.index.truncate(ctx, end); err != nil {
			return err
		}
	}
	if m, ok := s.files.Min(); ok {
		if err := s.queues.deleteBefore(m); err != nil {
			return err
		}
	}
	l := s.log
	flushed := end
	if ld.state != nil && !rep.Clean {
		flushed = ld.state.Flushed
	}
	l.startAt(end, flushed, found.shown, found.known)
	if s.o.Hidden {
		l.confirm.Store(found.shown)
	}
	l.adoptNext()
	l.verbatim = found.known < end // the queues do not know the hidden records
	l.lastTime = found.newest
	if s.o.Flush == SyncFlush {
		if err := l.syncTo(end); err != nil {
			return err
		}
	}
	return s.keeper.begin(ctx, ld)
}

// segmentPath names the file that holds, or would hold, pos.
func (s *Store) segmentPath(pos int64) string {
	return path.Join(s.o.CommitLogDir, format.FileName(pos-pos%s.o.SegmentBytes))
}

// scanStart is where the scan begins: everything before it is known to be good and dispatched.
func (s *Store) scanStart(ctx context.Context, ld *loaded) (int64, error) {
	files := s.files.Files()
	if len(files) == 0 {
		if ld.state != nil && ld.state.Flushed > ld.state.Start {
			return 0, &CorruptionError{Path: s.o.CommitLogDir, Offset: ld.state.Start,
				What: fmt.Sprintf("the log was on disk up to %d but no segment is left: restore the segments", ld.state.Flushed)}
		}
		start := int64(0)
		if ld.state != nil {
			start = ld.state.Start
		}
		return start, s.rebuildDerived(ctx)
	}
	low, high := files[0].Start(), files[len(files)-1].End()
	if ld.state != nil {
		low = max(low, ld.state.Start)
		empty := ld.state.Flushed <= ld.state.Start // nothing was promised: perhaps the log was to begin anew elsewhere
		if !empty && (ld.state.Flushed > high || ld.state.Flushed < low) {
			return 0, &CorruptionError{Path: s.o.CommitLogDir, Offset: ld.state.Flushed,
				What: fmt.Sprintf("the log was on disk up to %d but the segments span %d to %d: restore the missing ones, or repair the store into a copy", ld.state.Flushed, low, high)}
		}
		from := min(ld.state.Dispatched, s.queues.trustedPos())
		if s.index != nil && !s.report.IndexRebuilt && (s.index.endOffset() < ld.state.IndexEnd || s.index.count() < ld.state.IndexFiles) {
			s.report.IndexRebuilt = true
			if err := s.index.reset(ctx); err != nil {
				return 0, err
			}
		}
		if s.report.IndexRebuilt {
			from = low
		}
		if from > low {
			return from, nil
		}
		return low, nil
	}
	// Somebody else's directory, or one whose state is gone.
	from, err := s.foreignStart(ctx, ld, files, low)
	if err != nil || s.index == nil || s.report.IndexRebuilt {
		return from, err
	}
	hole, err := s.indexHole(ctx, files, low, from)
	if err != nil || hole < 0 {
		return from, err
	}
	s.o.Logger.Warn("the index lacks keys: rebuilding it", "from", hole)
	s.report.IndexRebuilt = true
	return low, s.index.reset(ctx)
}

// foreignStart is where the scan of somebody else's log begins, by the rules of the original.
func (s *Store) foreignStart(ctx context.Context, ld *loaded, files []*mappedfile.MappedFile, low int64) (int64, error) {
	if s.report.IndexRebuilt {
		return low, s.queues.recoverEnds(ctx)
	}
	if err := s.queues.recoverEnds(ctx); err != nil {
		s.o.Logger.Warn("consume queues unreadable: rebuilding them", "err", err)
		return low, s.rebuildDerived(ctx)
	}
	if !ld.aborted {
		for i := len(files) - 1; i > 0; i-- {
			if files[i].Start() <= s.queues.maxPos() && s.readableFirst(files[i]) > 0 {
				return files[i].Start(), nil
			}
		}
		return low, nil
	}
	stamp := max(0, min(ld.page.Physic, ld.page.Logics)-3000)
	if s.index != nil {
		stamp = min(stamp, ld.page.Index)
	}
	for i := len(files) - 1; i > 0; i-- {
		if t := s.readableFirst(files[i]); t > 0 && t <= stamp {
			return files[i].Start(), nil
		}
	}
	return low, nil
}

// indexHole looks for keys that the original has lost, and returns where the first of them stands in
// the log, -1 if there are none. After a crash the original drops the index files younger than its
// checkpoint, and dispatches again from the start of a segment that it chooses by other times: what
// stands between is in no index file any more. Such a hole ends where a segment begins, or, if a
// whole file is lost, an index file; from is where our own scan begins. Without any file the index was
// off, or is made from the log by the rules of the original.
func (s *Store) indexHole(ctx context.Context, files []*mappedfile.MappedFile, low, from int64) (int64, error) {
	if s.index.count() == 0 {
		return -1, nil
	}
	last := max(from, s.index.endOffset())
	ends := s.index.begins()
	for _, m := range files[1:] {
		ends = append(ends, m.Start())
	}
	reader := &logReader{l: s.log}
	defer reader.close()
	for _, end := range ends {
		if end <= low || end > last {
			continue
		}
		before, err := s.index.lastBefore(end)
		if err != nil {
			return -1, err
		}
		hole := int64(-1)
		_, err = s.log.walk(reader, max(before, low), end, false, func(pos int64, r *message.Record) bool {
			if pos > before && hasKeys(r) {
				hole = pos
			}
			return hole < 0 && ctx.Err() == nil
		})
		var file *FileError
		switch {
		case ctx.Err() != nil:
			return -1, context.Cause(ctx)
		case errors.As(err, &file):
			return -1, err
		case hole >= 0:
			return hole, nil
		}
	}
	return -1, nil
}

// rebuildDerived forgets queues and index, so that the scan makes them anew.
func (s *Store) rebuildDerived(ctx context.Context) error {
	if s.queues.maxPos() > 0 {
		s.report.QueuesRebuilt = true
	}
	if err := s.queues.reset(ctx); err != nil {
		return err
	}
	if s.index != nil {
		return s.index.reset(ctx)
	}
	return nil
}

// readableFirst is the store time of the first record of a segment, 0 if it has none.
func (s *Store) readableFirst(m *mappedfile.MappedFile) int64 {
	b := make([]byte, min(m.End()-m.Start(), 64<<10))
	if _, err := m.ReadAt(b, m.Start()); err != nil {
		return 0
	}
	var r message.Record
	if _, kind, err := s.o.Framing.Next(b, m.Start(), &r); err != nil && !errors.Is(err, message.ErrShort) || kind != FrameRecord {
		return 0
	}
	return message.StoreTime(b)
}

// maxQueueGap is how many offsets of a queue may be missing in somebody else's log before a record
// counts as damaged: the gap is closed with fillers, and no checksum covers the offset.
const maxQueueGap = 1 << 20

var errQueueOffset = errors.New("record has another queue offset than its queue expects")

// scanned is what a scan has found.
type scanned struct {
	end    int64 // of the good records
	reason error // why they end there
	shown  int64 // readers may see what lies below
	known  int64 // queues and index know what lies below
	newest int64 // store time of the newest record, milliseconds
}

// confirmed is the position up to which the log may be shown, as far as this node knows by itself.
func (s *Store) confirmed(ld *loaded, pos int64) int64 {
	if !s.o.Hidden {
		return math.MaxInt64
	}
	if ld.state != nil {
		pos = max(pos, ld.state.Confirm)
	}
	return max(pos, s.queues.maxPos()) // what is in a queue was visible
}

// scan checks every record from pos on and feeds it to queues and index, unless it is hidden.
func (s *Store) scan(ctx context.Context, ld *loaded, pos int64) (scanned, error) {
	files := s.files.Files()
	found := scanned{end: pos, shown: pos, known: pos}
	if len(files) == 0 {
		return found, nil
	}
	confirmed := s.confirmed(ld, pos)
	hidden := map[*ConsumeQueue]int64{} // next offsets, of queues with hidden records
	high := files[len(files)-1].End()
	reader := &logReader{l: s.log}
	defer reader.close()
	strict := ld.state != nil
	var offsetErr, tornErr error
	end, reason := s.log.walk(reader, pos, high, true, func(at int64, r *message.Record) bool {
		if s.log.units == nil && Torn(r) { // a unit has a checksum of all
			var whole bool
			if whole, tornErr = s.writtenWhole(ld, at, r, high); tornErr == nil && !whole {
				tornErr = ErrTorn
			}
			if tornErr != nil {
				return false
			}
		}
		if strict && r.SysFlag.ConsumesOffset() {
			q := s.queues.get(r.Topic, r.QueueID)
			want := max(q.max(), hidden[q])
			if want != r.QueueOffset && (want > 0 || pos == files[0].Start() && files[0].Start() == 0) && q.endPos() <= at {
				offsetErr = fmt.Errorf("%w: %d, want %d in %s/%d", errQueueOffset, r.QueueOffset, want, q.Topic(), q.ID())
				return false
			}
		}
		if r.SysFlag.ConsumesOffset() && !strict {
			if q := s.queues.get(r.Topic, r.QueueID); q.max() > 0 && r.QueueOffset-q.max() > maxQueueGap {
				offsetErr = fmt.Errorf("%w: %d, want %d in %s/%d", errQueueOffset, r.QueueOffset, q.max(), q.Topic(), q.ID())
				return false
			}
		}
		s.report.Records++
		found.newest = max(found.newest, r.StoreTimestamp)
		if whole := max(at+int64(r.Size), reader.unit.end); whole <= confirmed {
			s.disp.add(at, r)
			s.disp.applyBatch() // the next record is checked against the queues as this one leaves them
			found.known = whole
		} else if confirmed = min(confirmed, found.known); r.SysFlag.ConsumesOffset() {
			hidden[s.queues.get(r.Topic, r.QueueID)] = r.QueueOffset + 1
		}
		return s.disp.err == nil && ctx.Err() == nil
	})
	end = reader.unit.whole(end)
	switch {
	case ctx.Err() != nil:
		return found, context.Cause(ctx)
	case s.disp.err != nil:
		return found, s.disp.err
	case offsetErr != nil:
		reason = offsetErr
	case tornErr != nil:
		reason = tornErr
	}
	// A read error is not the end of the log: nothing may be cut because it could not be read.
	var file *FileError
	if errors.As(reason, &file) {
		return found, reason
	}
	found.end, found.reason = end, reason
	found.shown = min(end, s.confirmed(ld, pos))
	found.known = min(end, found.known)
	if !s.o.Hidden {
		found.known = end
	}
	return found, nil
}

// writtenWhole reports whether the record at pos has all its bytes although it looks torn. It has if
// it was on disk before, or if another frame follows: a process writes the log front to back, so what
// a kill tears is the last record. Apache keeps even that one when it recovers, and goes on behind it;
// to cut there later would lose all that it acked since. After a crash of the machine under our own
// store any page may be missing, and what follows proves nothing.
func (s *Store) writtenWhole(ld *loaded, pos int64, r *message.Record, high int64) (bool, error) {
	next := pos + int64(r.Size)
	if ld.state != nil && next <= ld.state.Flushed {
		return true, nil
	}
	if s.report.Rebooted {
		return false, nil
	}
	ahead := &logReader{l: s.log}
	defer ahead.close()
	followed := false
	end, err := s.log.walk(ahead, next, high, true, func(int64, *message.Record) bool {
		followed = true
		return false
	})
	var file *FileError
	if errors.As(err, &file) {
		return false, err
	}
	return followed || end > next, nil
}

// cut takes what stands behind end out of the log: it is kept aside in broken/, its range zeroed
// and synced before anything is appended. Segments of zeros behind end stay as the next ones.
func (s *Store) cut(end, tail int64, reason error) error {
	// A process writes the log front to back. Unless the machine went down with pages unwritten,
	// or the log is somebody else's, nothing can stand further behind the end than one write reaches.
	reach := s.o.SegmentBytes
	if ours := !s.report.Adopted && !s.report.Rebooted; ours {
		reach = min(reach, s.o.MaxPending+readAhead)
	}
	for _, m := range s.files.Files() {
		if m.End() <= end {
			continue
		}
		from := max(end, m.Start())
		to, err := s.lastNonZero(m, from, min(m.End(), max(from+reach, tail)))
		if err != nil {
			return err
		}
		if to == from {
			continue
		}
		name, err := s.keepAside(m, from, to)
		if err != nil {
			return err
		}
		s.report.Broken = append(s.report.Broken, name)
		s.report.CutBytes += to - from
		if err := m.Zero(from, to); err != nil {
			return err
		}
	}
	if s.report.CutBytes > 0 {
		if reason != nil {
			s.report.CutReason = reason.Error()
		}
		s.o.Logger.Warn("log cut at its last good record", "end", end, "bytes", s.report.CutBytes,
			"records", s.report.CutRecords, "why", s.report.CutReason, "kept", s.report.Broken)
	}
	return nil
}

// lastNonZero is the end of the last byte in [from, to) that is not zero; from if all are.
func (s *Store) lastNonZero(m *mappedfile.MappedFile, from, to int64) (int64, error) {
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	last := from
	for pos := from; pos < to; {
		b := buf[:min(int64(len(buf)), to-pos)]
		if _, err := m.ReadAt(b, pos); err != nil {
			return 0, err
		}
		if !bytes.Equal(b, zeros[:len(b)]) {
			last = pos + int64(len(bytes.TrimRight(b, "\x00")))
		}
		pos += int64(len(b))
	}
	return last, nil
}

// keepAside copies [from, to) into broken/ and counts the whole records in it.
func (s *Store) keepAside(m *mappedfile.MappedFile, from, to int64) (string, error) {
	name, err := s.copyAside(m, from, to)
	if err == nil {
		s.report.CutRecords += s.countRecords(m, from, to)
	}
	return name, err
}

// copyAside copies [from, to) into broken/.
func (s *Store) copyAside(m *mappedfile.MappedFile, from, to int64) (string, error) {
	dir := path.Join(rmqDir(s.o.Dir), "broken")
	if err := s.o.FS.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := path.Join(dir, fmt.Sprintf("commitlog-%s-%d", format.FileName(from), s.o.Clock().UnixMilli()))
	f, err := s.o.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 1<<20)
	for pos := from; pos < to && err == nil; {
		b := buf[:min(int64(len(buf)), to-pos)]
		if _, err = m.ReadAt(b, pos); err == nil {
			_, err = f.WriteAt(b, pos-from)
		}
		pos += int64(len(b))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return name, errors.Join(s.o.FS.SyncDir(dir), s.o.FS.SyncDir(rmqDir(s.o.Dir)))
}

var recordMagics = [][]byte{{0xDA, 0xA3, 0x20, 0xA7}, {0xDA, 0xA3, 0x20, 0xAB}}

// countRecords counts the records in [from, to) that are valid at their own offset.
func (s *Store) countRecords(m *mappedfile.MappedFile, from, to int64) (n int64) {
	b := make([]byte, min(to, m.End())-from)
	if _, err := m.ReadAt(b, from); err != nil {
		return 0
	}
	var r message.Record
	for i := 0; i+8 < len(b); {
		if bytes.Equal(b[i+4:i+8], recordMagics[0]) || bytes.Equal(b[i+4:i+8], recordMagics[1]) {
			size, kind, err := s.o.Framing.Next(b[i:], from+int64(i), &r)
			if err == nil && kind == FrameRecord && s.o.Framing.Check(b[i:i+size], from+int64(i), &r) == nil && !Torn(&r) {
				n++
				i += size
				continue
			}
		}
		next := len(b)
		for _, magic := range recordMagics {
			if k := bytes.Index(b[i+5:], magic); k >= 0 {
				next = min(next, i+5+k-4)
			}
		}
		i = max(next, i+1)
	}
	return n
}
