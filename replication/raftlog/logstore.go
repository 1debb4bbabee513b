package raftlog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/internal/watermark"
	"rmq/message"
)

// LogStoreOptions configure a log store.
type LogStoreOptions struct {
	// Engine are the options of the store that the log stands in. Dir is the node's own directory. Format,
	// Framing, Hidden, SyncAside and AckMarks are set here.
	Engine engine.Options
	Logger *slog.Logger // nil: silent

	gates *gates
}

// LogStore is the raft log over the segments of an [engine.Store]: it implements raft.LogStore and
// raft.MonotonicLogStore.
//
// An entry is a frame. On a leader the data of a command is the token of a [Batch], whose records are
// stamped and laid into the log as the entry gets its place; or a document, beginning with metaMagic. On
// a follower the data is the frame as the leader wrote it, or, for the library's own entries, the payload,
// from which the same frame is made. Messages are never read back for the library: GetLog tells no data
// for them, and who sends entries takes their frames from [LogStore.Frame].
//
// Nothing here waits for a disk but the entries that raft's safety hangs on: no-ops under synchronous flush, membership,
// and documents that are not gated. For the others [LogStore.DurableIndex] and [LogStore.WaitDurable] are
// to be heeded, see DESIGN.md.
//
// StoreLogs, DeleteRange and Restart come from raft's main goroutine; all else is safe beside it.
type LogStore struct {
	o         LogStoreOptions
	engine    *engine.Store
	dir       string // rmq/raft
	committed watermark.Mark
	side      *sidecar
	batches   batches
	hold      *engine.Hold

	mu       sync.Mutex // over StoreLogs, DeleteRange, Restart, and the repair of a sidecar
	tailTerm uint64     // of the newest entry
	tailPos  int64      // behind it
	frame    engine.Frame
	header   Header
	failed   error // an undo has failed: nothing is stored any more

	// mend has a committed frame repaired that is damaged; nil: nobody can. Set before raft starts.
	mend func(index uint64, e entry) error

	commit  atomic.Uint64
	highest atomic.Int64 // for gateTruncate
	start   atomic.Pointer[Start]
	members memberLog
}

var (
	_ raft.LogStore          = (*LogStore)(nil)
	_ raft.MonotonicLogStore = (*LogStore)(nil)
)

// Start is what the log begins behind.
type Start struct {
	Index uint64 `json:"index"` // of the entry before the first
	Term  uint64 `json:"term"`
	Pos   int64  `json:"pos"` // where the first frame stands, or goes
}

// savedStart is a start as the file has it. Pending says that the log is to begin there and may not yet.
type savedStart struct {
	Start
	Pending bool `json:"pending,omitempty"`
}

const (
	// FormatRaft is the format of a store whose log is framed as this package does.
	FormatRaft = "raft"

	metaPrefix = "RMQMETA"
	// metaGated begins the payload of a document that is gated like messages; any other version of the
	// prefix is synced before StoreLogs returns.
	metaGated = metaPrefix + "\x02"

	startName = "start"
	indexDir  = "index"
)

// OpenLogStore opens the log in o.Engine.Dir, creating it if there is none.
//
// A last frame that is not all there is cut off. Errors are those of [engine.Open]; damage below what was
// on disk is an [engine.CorruptionError] that says how to have the node refilled by its peers. A store
// that is no raft log, and a directory above this one that holds a plain store or one of Apache's DLedger,
// are refused.
func OpenLogStore(ctx context.Context, o LogStoreOptions) (*LogStore, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Engine.EnsureDefaults()
	if err := refuseOthers(&o.Engine); err != nil {
		return nil, err
	}
	s := &LogStore{o: o}
	e := o.Engine
	e.Format, e.Framing, e.Hidden, e.SyncAside = FormatRaft, Framing{}, true, true
	e.AckMarks = append(e.AckMarks, &s.committed)
	var err error
	if s.engine, err = engine.Open(ctx, e); err != nil {
		return nil, refill(err)
	}
	s.batches.engine = s.engine
	s.dir = path.Join(e.Dir, "rmq", "raft")
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(refill(err), s.engine.Close())
	}
	return s, nil
}

// refill adds to damage what to do about it in a group.
func refill(err error) error {
	var damage *engine.CorruptionError
	if !errors.As(err, &damage) {
		return err
	}
	return fmt.Errorf("%w; this node must not vote with a log that has lost what was on disk: move the node's directory away and "+
		"start it empty, its group lets it in again and refills it", err)
}

func (s *LogStore) open(ctx context.Context) error {
	fsys := s.engine.Options().FS
	dir := path.Join(s.dir, indexDir)
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := errors.Join(fsys.SyncDir(path.Dir(s.dir)), fsys.SyncDir(s.dir)); err != nil {
		return err
	}
	s.side = newSidecar(fsys, dir, s.engine.Options().SegmentBytes)
	var saved savedStart
	if _, err := loadDoc(fsys, path.Join(s.dir, startName), &saved); err != nil {
		return err
	}
	s.hold = s.engine.Hold(s.engine.Min())
	if saved.Pending { // a restart was cut off
		s.o.Logger.Warn("the log is made to begin behind the snapshot", "index", saved.Index)
		if err := s.restart(ctx, saved.Start); err != nil {
			return err
		}
	}
	if err := s.find(saved.Start); err != nil {
		return err
	}
	s.hold.Move(s.Start().Pos)
	commit, err := s.below(s.engine.Visible())
	if err != nil {
		return err
	}
	s.commit.Store(commit)
	s.committed.Advance(s.engine.Visible())
	return s.members.load(s)
}

// find makes the index of what is in the log, by its files where they can be believed and else by the
// frames, and cuts what is behind the last frame: a blank alone is no part of the log, for the next frame
// may go in front of where it ends.
func (s *LogStore) find(saved Start) error {
	written, seg := s.engine.Written(), s.engine.Options().SegmentBytes
	pos := max(s.engine.Min(), saved.Pos)
	start := saved
	start.Pos = pos
	if h, err := s.headerAt(pos, written); err == nil && h != nil {
		start = Start{h.Index - 1, prevTerm(h), pos}
	} else if err != nil {
		return err
	}
	s.start.Store(&start)
	if err := s.side.restart(start.Index); err != nil {
		return err
	}
	s.tailTerm, s.tailPos = start.Term, pos
	for at := pos - pos%seg; at < written; at += seg {
		begin := max(at, pos)
		if err := s.findSegment(at, begin, min(at+seg, written)); err != nil {
			return err
		}
	}
	if s.engine.Appended() > s.tailPos {
		return s.engine.TruncateTo(s.tailPos)
	}
	return nil
}

// prevTerm is the term of the entry before h's: its low bits are in the header, and terms do not grow by
// four billion at once.
func prevTerm(h *Header) uint64 {
	term := h.Term&^0xFFFFFFFF | uint64(h.PrevTerm)
	if term > h.Term {
		term -= 1 << 32
	}
	return term
}

// findSegment indexes the frames in [begin, end), all of the segment at start.
func (s *LogStore) findSegment(start, begin, end int64) error {
	_, last := s.side.bounds()
	term := s.tailTerm
	believed := true
	err := s.side.load(start, begin, end, last+1, func(index uint64, e entry) {
		s.members.found(e.kind, index)
		believed = believed && e.term >= term
		term = e.term
	})
	if err != nil {
		return err
	}
	first := last + 1
	if _, last = s.side.bounds(); last >= first {
		for _, i := range []uint64{first, last} {
			if e, _, err := s.side.at(i); believed && (err != nil || !s.stands(i, e, end)) {
				believed = false
			}
		}
		if !believed {
			s.o.Logger.Warn("the index of a segment does not match its frames: it is made anew", "segment", start)
			if err := s.side.forget(); err != nil {
				return err
			}
		} else {
			e, _, err := s.side.at(last)
			if err != nil {
				return err
			}
			s.tailTerm, s.tailPos = e.term, e.end()
			begin = e.end()
		}
	}
	return s.hop(begin, end)
}

// stands reports whether the frame of e says that it is index.
func (s *LogStore) stands(index uint64, e entry, end int64) bool {
	h, err := s.headerAt(e.pos, end)
	return err == nil && h != nil && h.Index == index && h.Term == e.term && h.Type == e.kind && h.End() == e.end()
}

// hop indexes the frames in [pos, end), of one segment, by their headers.
func (s *LogStore) hop(pos, end int64) error {
	for pos < end {
		h, err := s.headerAt(pos, end)
		if err != nil {
			return err
		}
		if h == nil {
			return nil
		}
		_, last := s.side.bounds()
		if err := s.follows(h, last+1, pos); err != nil {
			return &engine.CorruptionError{Path: s.o.Engine.CommitLogDir, Offset: pos, What: "its frames do not follow each other", Err: err}
		}
		if err := s.push(h); err != nil {
			return err
		}
		s.members.found(h.Type, h.Index)
		pos = h.End()
	}
	return nil
}

// follows verifies that h may come as index at pos, behind the newest entry.
func (s *LogStore) follows(h *Header, index uint64, pos int64) error {
	switch {
	case h.Index != index:
		return fmt.Errorf("entry %d where %d is due", h.Index, index)
	case h.Pos != pos:
		return fmt.Errorf("entry %d stands at %d and says %d", h.Index, pos, h.Pos)
	case h.Term < s.tailTerm || h.PrevTerm != uint32(s.tailTerm):
		return fmt.Errorf("entry %d of term %d, behind term %d, says that it follows term %d", h.Index, h.Term, s.tailTerm, h.PrevTerm)
	}
	return nil
}

// push makes the frame of h, which is written, the newest entry.
func (s *LogStore) push(h *Header) error {
	if err := s.side.settle(); err != nil {
		return err
	}
	if err := s.side.add(entry{h.Pos, h.Term, int32(h.Len()), h.Type}); err != nil {
		return err
	}
	s.tailTerm, s.tailPos = h.Term, h.End()
	return nil
}

// headerAt is the header of the frame at pos; nil where a blank or the end of the log stands.
func (s *LogStore) headerAt(pos, end int64) (*Header, error) {
	if pos >= end {
		return nil, nil
	}
	r, err := s.engine.ReadRaw(pos, HeaderBytes, engine.UptoWritten)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	h, err := ParseHeader(r.Bytes)
	switch {
	case err == nil:
		return &h, nil
	case errors.Is(err, ErrNoFrame):
		var rec message.Record
		if _, kind, blank := (engine.Plain{}).Next(r.Bytes, pos, &rec); blank == nil && kind == engine.FrameBlank {
			return nil, nil
		}
	}
	return nil, &engine.CorruptionError{Path: s.o.Engine.CommitLogDir, Offset: pos, What: "a frame is due", Err: err}
}

// Engine is the store that the log stands in. It lives as long as the log store.
func (s *LogStore) Engine() *engine.Store { return s.engine }

// Start is what the log begins behind: retention moves it.
func (s *LogStore) Start() Start {
	s.retired()
	return *s.start.Load()
}

// retired takes note of segments that retention has removed.
func (s *LogStore) retired() {
	low := s.engine.Min()
	old := s.start.Load()
	if low <= old.Pos {
		return
	}
	if err := s.side.retire(low); err != nil {
		s.o.Logger.Warn("index of removed segments", "error", err)
	}
	first, last := s.side.bounds()
	if first > last {
		return
	}
	e, _, err := s.side.at(first)
	if err != nil {
		return // next time
	}
	h, err := s.headerAt(e.pos, e.end())
	if err != nil || h == nil {
		return
	}
	s.start.CompareAndSwap(old, &Start{first - 1, prevTerm(h), e.pos})
}

// IsMonotonic implements raft.MonotonicLogStore: there are no gaps.
func (*LogStore) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore.
func (s *LogStore) FirstIndex() (uint64, error) {
	s.retired()
	first, last := s.side.bounds()
	if first > last {
		return 0, nil
	}
	return first, nil
}

// LastIndex implements raft.LogStore.
func (s *LogStore) LastIndex() (uint64, error) {
	first, last := s.side.bounds()
	if first > last {
		return 0, nil
	}
	return last, nil
}

// entry looks an index up; raft.ErrLogNotFound if the log does not hold it.
func (s *LogStore) entry(index uint64) (entry, error) {
	e, found, err := s.side.at(index)
	switch {
	case errors.Is(err, errSidecar):
		return s.search(index)
	case err != nil:
		return e, err
	case !found:
		return e, raft.ErrLogNotFound
	}
	if e.pos < s.engine.Min() {
		s.retired()
		return e, raft.ErrLogNotFound
	}
	return e, nil
}

// search finds an entry whose place in the index is damaged by hopping over the frames from the one before
// it that can be looked up.
func (s *LogStore) search(index uint64) (entry, error) {
	s.o.Logger.Warn("an entry of the index is damaged: it is found by its frame", "index", index)
	first, _ := s.side.bounds()
	from := index
	var e entry
	for from > first {
		from--
		var err error
		if e, _, err = s.side.at(from); err == nil {
			break
		}
	}
	seg := s.engine.Options().SegmentBytes
	pos, at := e.end(), from+1
	if e.len == 0 { // not one
		pos, at = s.start.Load().Pos, first
	}
	for {
		h, err := s.headerAt(pos, s.engine.Written())
		switch {
		case err != nil:
			return e, err
		case h == nil && pos%seg != 0:
			pos += seg - pos%seg
		case h == nil || h.Index != at:
			return e, raft.ErrLogNotFound
		case at == index:
			return entry{h.Pos, h.Term, int32(h.Len()), h.Type}, nil
		default:
			pos, at = h.End(), at+1
		}
	}
}

// GetLog implements raft.LogStore. Data is that of membership entries and documents; for messages it is nil.
//
// Of the entry that the log begins behind, index and term are told, though it is not there any more: a
// leader that has just sent a snapshot of it asks for them, and would send the snapshot again and again.
func (s *LogStore) GetLog(index uint64, l *raft.Log) error {
	e, err := s.entry(index)
	if errors.Is(err, raft.ErrLogNotFound) {
		if start := s.Start(); index > 0 && index == start.Index {
			*l = raft.Log{Index: index, Term: start.Term, Type: raft.LogNoop}
			return nil
		}
	}
	if err != nil {
		return err
	}
	*l = raft.Log{Index: index, Term: e.term, Type: e.kind.logType()}
	if e.kind == FrameConfig || e.kind == FrameMeta {
		r, err := s.read(index, e)
		if err != nil {
			return err
		}
		defer r.Release()
		l.Data = append([]byte(nil), r.Bytes[HeaderBytes:]...)
	}
	return nil
}

// Frame gives the bytes of a frame, to be released; an error, raft.ErrLogNotFound or another, if the entry of
// that index and term is not there any more. What comes from a file has been verified, and repaired from
// another node if need be.
func (s *LogStore) Frame(index, term uint64) (*engine.RawResult, error) {
	e, err := s.named(index, term)
	if err != nil {
		return nil, err
	}
	return s.read(index, e)
}

// intact is Frame that leaves damage as it is.
func (s *LogStore) intact(index, term uint64) (*engine.RawResult, error) {
	e, err := s.named(index, term)
	if err != nil {
		return nil, err
	}
	return s.readOnce(index, e)
}

// named is the entry of index if its term is that.
func (s *LogStore) named(index, term uint64) (entry, error) {
	e, err := s.entry(index)
	if err == nil && e.term != term {
		err = raft.ErrLogNotFound
	}
	return e, err
}

// read gives the bytes of the frame of e, repaired if they were damaged.
func (s *LogStore) read(index uint64, e entry) (*engine.RawResult, error) {
	r, err := s.readOnce(index, e)
	var damage *engine.CorruptionError
	if s.mend == nil || !errors.As(err, &damage) {
		return r, err
	}
	if merr := s.mend(index, e); merr != nil {
		return nil, errors.Join(err, merr)
	}
	return s.readOnce(index, e)
}

// readOnce gives the bytes of the frame of e.
func (s *LogStore) readOnce(index uint64, e entry) (*engine.RawResult, error) {
	r, err := s.engine.ReadRaw(e.pos, int(e.len), engine.UptoWritten)
	if errors.Is(err, engine.ErrOffsetTooSmall) || errors.Is(err, engine.ErrOffsetTooLarge) {
		return nil, raft.ErrLogNotFound // retention or a cut was quicker
	}
	if err != nil {
		return nil, err
	}
	h, err := ParseHeader(r.Bytes)
	switch {
	case err == nil && (h.Index != index || h.Term != e.term || h.Len() != len(r.Bytes)):
		err = raft.ErrLogNotFound // cut meanwhile
	case err == nil && r.Cold:
		err = h.checkBody(r.Bytes)
	}
	if err == nil {
		return r, nil
	}
	r.Release()
	if now, _, again := s.side.at(index); again != nil || now != e || errors.Is(err, raft.ErrLogNotFound) {
		return nil, raft.ErrLogNotFound
	}
	return nil, refill(&engine.CorruptionError{Path: s.o.Engine.CommitLogDir, Offset: e.pos, What: fmt.Sprintf("the frame of entry %d", index), Err: err})
}

// Payload is the data that the library needs of a frame: what follows the header.
func Payload(frame []byte) []byte { return frame[HeaderBytes:] }

// Batch gives an empty batch for the appends of one entry.
func (s *LogStore) Batch() *Batch { return s.batches.get() }

// End is the position behind the frame of index; false if the log does not hold it.
func (s *LogStore) End(index uint64) (int64, bool) {
	e, err := s.entry(index)
	return e.end(), err == nil
}

// below is the last index that ends at or below pos.
func (s *LogStore) below(pos int64) (uint64, error) { return s.side.below(pos) }

// durable is the position up to which entries outlive what the flush mode says they do.
func (s *LogStore) durable() int64 {
	pos := s.engine.Written()
	if s.engine.Options().Flush == engine.SyncFlush {
		pos = s.engine.Flushed()
	}
	if s.o.gates.off(gateTruncate) { // as if a cut did not lower it
		s.highest.Store(max(pos, s.highest.Load()))
		pos = min(s.highest.Load(), s.engine.Written())
	}
	return pos
}

// DurableIndex is the last index that has come to where the flush mode promises it: the disk, or the page
// cache.
func (s *LogStore) DurableIndex() uint64 {
	index, err := s.below(s.durable())
	if err != nil {
		s.o.Logger.Error("index of the log", "error", err)
		return s.commit.Load()
	}
	return index
}

// WaitDurable returns when index has come there. raft.ErrLogNotFound: the log does not hold it.
func (s *LogStore) WaitDurable(ctx context.Context, index uint64) error {
	e, err := s.entry(index)
	if err != nil {
		if index <= s.Start().Index {
			return nil
		}
		return err
	}
	if s.durable() >= e.end() {
		return nil
	}
	upto := engine.UptoWritten
	if s.engine.Options().Flush == engine.SyncFlush {
		upto = engine.UptoFlushed
	}
	return s.engine.WaitRaw(ctx, e.end()-1, upto)
}

// flushTo returns when the log is on disk up to pos, whatever the flush mode.
func (s *LogStore) flushTo(ctx context.Context, pos int64) error {
	if s.engine.Flushed() >= pos {
		return nil
	}
	return s.engine.Flush(ctx)
}

// Commit says that the library counts the entries up to index as committed. Readers and acks get there as
// soon as this node has them where the flush mode promises.
func (s *LogStore) Commit(index uint64) {
	for {
		old := s.commit.Load()
		if index <= old {
			return
		}
		if s.commit.CompareAndSwap(old, index) {
			break
		}
	}
	if end, ok := s.End(index); ok {
		s.engine.SetConfirm(max(end, s.committed.Load()))
		s.committed.Advance(end)
	}
}

// Committed is the index last given to Commit, or what this node knew when it was opened.
func (s *LogStore) Committed() uint64 { return s.commit.Load() }

// StoreLog implements raft.LogStore.
func (s *LogStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. On an error nothing of logs is in the log: what was, is cut again.
func (s *LogStore) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	_, last := s.side.bounds()
	sync := false
	for _, l := range logs {
		now, err := s.storeOne(l)
		if err != nil {
			return errors.Join(fmt.Errorf("store entry %d of term %d: %w", l.Index, l.Term, err), s.undo(last))
		}
		sync = sync || now
	}
	if !sync || s.o.gates.off(gateInline) {
		return nil
	}
	return s.engine.Flush(context.Background())
}

// undo cuts what is behind last. If that fails nothing is stored any more: raft would not know of it.
func (s *LogStore) undo(last uint64) error {
	if s.engine.Appended() <= s.tailPos {
		if _, now := s.side.bounds(); now == last {
			return nil
		}
	}
	if err := s.cut(last + 1); err != nil {
		s.failed = fmt.Errorf("entries that raft does not know of could not be cut, open the node again: %w", err)
	}
	return s.failed
}

// storeOne writes the frame of l, and says whether it has to be synced before raft goes on.
func (s *LogStore) storeOne(l *raft.Log) (sync bool, err error) {
	_, last := s.side.bounds()
	switch {
	case l.Index != last+1:
		return false, fmt.Errorf("the log ends with entry %d", last)
	case len(l.Extensions) > 0:
		return false, errors.New("BUG: an entry with extensions")
	}
	if err := s.side.settle(); err != nil {
		return false, err
	}
	if len(l.Data) >= HeaderBytes && isFrame(l.Data) {
		return s.storeFrame(l)
	}
	var b *Batch
	f := &s.frame
	kind := FrameData
	switch l.Type {
	case raft.LogNoop:
		kind = FrameNoop
	case raft.LogBarrier:
		kind = FrameBarrier
	case raft.LogConfiguration:
		kind = FrameConfig
	case raft.LogCommand:
		if strings.HasPrefix(string(l.Data[:min(len(l.Data), len(metaPrefix))]), metaPrefix) {
			kind = FrameMeta
		} else if b, err = s.batches.find(l.Data); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("BUG: an entry of type %v", l.Type)
	}
	h := &s.header
	if b != nil {
		f, h = b.fill(l, s.tailTerm, s.committed.Load()), &b.header
	} else {
		if len(l.Data) > maxFrameBytes-HeaderBytes {
			return false, &engine.TooLargeError{Size: int64(len(l.Data)), Limit: maxFrameBytes - HeaderBytes}
		}
		*h = Header{Type: kind, Index: l.Index, Term: l.Term, PrevTerm: uint32(s.tailTerm)}
		f.Header, f.Body, f.Seal = HeaderBytes, l.Data, h.seal
	}
	err = s.engine.AppendFrame(context.Background(), f)
	if b != nil && f.End > 0 {
		b.taken.Store(true)
	}
	f.Body = nil
	if err != nil {
		return false, err
	}
	s.members.note(h.Type, h.Index, l.Data)
	return s.inline(kind, l.Data), s.push(h)
}

// storeFrame writes a frame of the leader's.
func (s *LogStore) storeFrame(l *raft.Log) (sync bool, err error) {
	h, err := ParseFrame(l.Data)
	if err != nil {
		return false, err
	}
	if h.Term != l.Term || h.Type.logType() != l.Type || len(l.Data) > maxFrameBytes {
		return false, fmt.Errorf("its frame of %d bytes is a %v of term %d", len(l.Data), h.Type, h.Term)
	}
	if err := s.follows(&h, l.Index, h.Pos); err != nil {
		return false, err
	}
	if err := s.engine.WriteFrame(context.Background(), h.Pos, l.Data); err != nil {
		if errors.Is(err, engine.ErrOffsetTooSmall) || errors.Is(err, engine.ErrOffsetTooLarge) {
			err = fmt.Errorf("this node's log lies differently from its leader's, segment size or history differ: move the node's "+
				"directory away and start it empty: %w", err)
		}
		return false, err
	}
	s.members.note(h.Type, h.Index, Payload(l.Data))
	return s.inline(h.Type, Payload(l.Data)), s.push(&h)
}

// inline says whether an entry has to be synced before the library counts it. Membership and documents that must not be late
// are, whatever the flush mode; a no-op, which makes all that its leader has inherited durable before its term commits,
// where acks stand for disks. Nothing hangs on where a barrier is: what it waits for lies below the no-op.
func (s *LogStore) inline(kind FrameType, data []byte) bool {
	switch kind {
	case FrameConfig:
		return true
	case FrameMeta:
		return !gated(data)
	case FrameNoop:
		return s.engine.Options().Flush == engine.SyncFlush
	}
	return false
}

// gated reports whether data is a document that may be durable later.
func gated(data []byte) bool {
	return len(data) >= len(metaGated) && string(data[:len(metaGated)]) == metaGated
}

// DeleteRange implements raft.LogStore: it cuts the tail that begins with low. What is committed is never
// cut, and the front of the log is retention's.
func (s *LogStore) DeleteRange(low, high uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, last := s.side.bounds()
	switch commit := s.commit.Load(); {
	case low > last:
		return nil
	case high < last:
		return fmt.Errorf("BUG: entries %d to %d of %d cannot be deleted: retention removes the front", low, high, last)
	case low <= commit:
		return fmt.Errorf("entries from %d on are to be deleted, but %d is committed: this node or its leader has lost what was committed; "+
			"stop it, and compare the logs of the group", low, commit)
	}
	if err := s.cut(low); err != nil {
		return fmt.Errorf("delete entries from %d on: %w", low, err)
	}
	return nil
}

// cut makes the log end before index. It is durable when it returns.
func (s *LogStore) cut(index uint64) error {
	pos, term := s.tailPos, s.tailTerm
	start := s.Start()
	if _, last := s.side.bounds(); index <= last {
		if index == start.Index+1 {
			pos, term = start.Pos, start.Term
		} else {
			e, err := s.entry(index - 1)
			if err != nil {
				return err
			}
			pos, term = e.end(), e.term
		}
	}
	if err := s.side.cut(index); err != nil { // first: it must not tell of frames that are gone
		return err
	}
	s.members.cut(index)
	s.tailPos, s.tailTerm = pos, term
	return s.engine.TruncateTo(pos)
}

// Hash is a hash of the headers of the entries from to to, both included, to compare the logs of two
// nodes: bodies are covered by their checksums. raft.ErrLogNotFound if one is not there.
func (s *LogStore) Hash(from, to uint64) (uint64, error) {
	sum := uint64(0)
	for index := from; index <= to; index++ {
		e, err := s.entry(index)
		if err != nil {
			return 0, err
		}
		r, err := s.engine.ReadRaw(e.pos, HeaderBytes, engine.UptoWritten)
		if err != nil {
			return 0, err
		}
		if _, err := ParseHeader(r.Bytes); err != nil { // damage is no difference
			r.Release()
			if r, err = s.read(index, e); err != nil {
				return 0, err
			}
		}
		sum = crc64.Update(sum, hashTable, r.Bytes[:HeaderBytes])
		r.Release()
	}
	return sum, nil
}

var hashTable = crc64.MakeTable(crc64.ECMA)

// Retain lets retention have the segments below the end of index, and keeps what is behind. Where the log
// may then begin, the membership as of there has been written down.
func (s *LogStore) Retain(index uint64) error {
	end, ok := s.End(index)
	if !ok {
		return nil
	}
	if err := s.members.save(s); err != nil {
		return err
	}
	s.hold.Move(end)
	return nil
}

// Restart makes the log begin anew behind the snapshot that snaps has staged last. What it held and
// readers have seen is dropped, as by retention; the rest is kept in rmq/broken. If it is cut off by a
// crash, the next OpenLogStore ends it.
func (s *LogStore) Restart(ctx context.Context, snaps *SnapshotStore) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, err := snaps.staged()
	if err != nil {
		return err
	}
	if err := s.saveStart(start, true); err != nil {
		return err
	}
	return s.restart(ctx, start)
}

func (s *LogStore) saveStart(start Start, pending bool) error {
	return saveDoc(s.engine.Options().FS, path.Join(s.dir, startName), savedStart{start, pending})
}

func (s *LogStore) restart(ctx context.Context, start Start) error {
	err := s.engine.Restart(ctx, start.Pos)
	if err == nil {
		err = s.side.restart(start.Index)
	}
	if err == nil {
		err = s.saveStart(start, false)
	}
	if err != nil {
		return fmt.Errorf("begin the log at %d, behind entry %d: %w", start.Pos, start.Index, err)
	}
	s.members.cut(start.Index + 1)
	s.tailPos, s.tailTerm = start.Pos, start.Term
	s.start.Store(&start)
	s.commit.Store(start.Index)
	s.committed.Rewind(start.Pos)
	s.committed.Advance(start.Pos)
	s.hold.Move(start.Pos)
	return nil
}

// Close stops the store in order.
func (s *LogStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.side.close(), s.engine.Close())
}
