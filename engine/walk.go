package engine

import (
	"bytes"
	"errors"

	"rmq/engine/format"
	"rmq/message"
)

// FrameKind says what stands at a position of the log.
type FrameKind int

// The kinds of frames.
const (
	FrameRecord FrameKind = iota // a message record
	FrameBlank                   // nothing more in this segment
	FrameOther                   // something that carries no message; step over it
)

// Framing finds records in log bytes. Recovery, dispatch, dump and verify all walk through it, so
// that a log with its own frames needs no second walker. Implementations keep no state.
type Framing interface {
	// Next reads the frame at the start of b, which stands at pos and runs at most to the end of
	// its segment. It fills r for a record and returns the length of the frame. message.ErrShort
	// says that more bytes are needed: at least n, if n is above len(b).
	Next(b []byte, pos int64, r *message.Record) (n int, kind FrameKind, err error)
	// Check verifies what Next does not: checksums and the stored position.
	Check(b []byte, pos int64, r *message.Record) error
}

// Units is a framing in which records stand inside larger units, each of which counts whole or not at
// all. A recovery verifies units, cuts in front of one that is not whole, and refuses records that stand
// in none; queues are never dispatched to the middle of one.
type Units interface {
	Framing
	// Unit returns the length of the unit at the start of b, its header included; 0 if none begins
	// there. message.ErrShort says that n bytes are needed to tell.
	Unit(b []byte, pos int64) (n int, err error)
	// CheckUnit verifies the unit that b is.
	CheckUnit(b []byte, pos int64) error
}

// Plain is the framing of an ordinary commit log: records that touch each other
// (store-format of org.apache.rocketmq.store.CommitLog).
type Plain struct{}

// Next implements [Framing].
func (Plain) Next(b []byte, _ int64, r *message.Record) (int, FrameKind, error) {
	err := message.ParseRecord(b, r)
	switch {
	case err == nil:
		return int(r.Size), FrameRecord, nil
	case errors.Is(err, message.ErrBlank):
		return int(r.Size), FrameBlank, nil
	case errors.Is(err, message.ErrShort):
		return max(message.RecordSize(b), 0), 0, err
	}
	return 0, 0, err
}

var errWrongPosition = errors.New("record carries the position of another place")

// Check implements [Framing].
func (Plain) Check(_ []byte, pos int64, r *message.Record) error {
	if r.PhysicalOffset != pos {
		return errWrongPosition
	}
	return r.CheckCRC()
}

// ErrTorn says that the end of a record was never written.
var ErrTorn = errors.New("topic or properties of the record are torn")

// Torn reports whether r looks as if its writing was cut off. The body checksum says nothing of topic
// and properties, which stand last, and most records carry none that does. What a power cut tears off
// reads as zeros, whole sectors of it, since a segment is zeros before it is written and is never used
// twice; what a kill tears off a store into a mapping reads as zeros up to the end. Text has neither,
// but nothing forbids it: who asks must know that the record may be one whose writing was cut off.
func Torn(r *message.Record) bool {
	props := r.PhysicalOffset + int64(r.Size) - int64(len(r.Properties))
	return zeroSector(r.Topic, props-2-int64(len(r.Topic))) || zeroSector(r.Properties, props) ||
		bytes.HasSuffix(r.Properties, []byte{0}) || bytes.HasSuffix(r.Topic, []byte{0})
}

// zeroSector reports whether b, which stands at pos, has nothing but zeros in one of the 512-byte
// sectors that it touches.
func zeroSector(b []byte, pos int64) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), sectorBytes-pos%sectorBytes)
		if b[0] == 0 && len(bytes.TrimLeft(b[:n], "\x00")) == 0 {
			return true
		}
		b, pos = b[n:], pos+n
	}
	return false
}

const sectorBytes = 512

// logReader gives the bytes of the log from a position on: from memory while the newest bytes
// are there, else from the file through a buffer of its own. Not for concurrent use.
type logReader struct {
	l     *CommitLog
	c     *chunk // held between calls
	buf   []byte
	start int64 // position of buf[0]
	n     int
	cuts  int64          // what is held is of the log as it was after so many cuts
	turn  func()         // if set, runs before what was held goes
	rec   message.Record // of the walk
	stop  int64          // the walk ends at the first frame here or behind that stands in no unit; 0: nowhere
	unit  unitRange      // that the walk is in, or was in last
}

type unitRange struct{ start, end int64 }

// whole is pos, or the start of the unit that pos is inside of.
func (u unitRange) whole(pos int64) int64 {
	if u.start < pos && pos < u.end {
		return u.start
	}
	return pos
}

const readAhead = 1 << 20

// at returns the bytes from pos to some point at or before end, at least need of them if the
// segment and end allow. They stay valid until the next call or close. end must be written.
func (r *logReader) at(pos, end int64, need int) ([]byte, error) {
	if cuts := r.l.cuts.Load(); cuts != r.cuts {
		r.turned()
		r.close()
		r.n, r.cuts = 0, cuts
	}
	if c := r.c; c != nil && pos >= c.start && pos < c.end() && min(c.end(), end)-pos >= int64(need) {
		return c.buf[pos-c.start : min(c.end(), end)-c.start], nil
	}
	r.turned()
	r.close()
	if c := r.l.chunks.find(pos); c != nil && min(c.end(), end)-pos >= int64(need) {
		r.c = c
		return c.buf[pos-c.start : min(c.end(), end)-c.start], nil
	} else if c != nil {
		c.release()
	}
	if have := r.start + int64(r.n) - pos; pos >= r.start && have > 0 && have >= int64(need) {
		return r.buf[pos-r.start : min(r.start+int64(r.n), end)-r.start], nil
	}
	m := r.l.files.Acquire(pos)
	if m == nil {
		return nil, ErrOffsetTooSmall
	}
	defer m.Release()
	want := max(int64(need), readAhead)
	want = min(want, end-pos, m.End()-pos)
	if int64(len(r.buf)) < want {
		r.buf = make([]byte, want)
	}
	r.n = 0
	n, err := m.ReadAt(r.buf[:want], pos)
	if int64(n) < want {
		return nil, err
	}
	r.start, r.n = pos, n
	return r.buf[:n], nil
}

func (r *logReader) turned() {
	if r.turn != nil {
		r.turn()
	}
}

func (r *logReader) close() {
	if r.c != nil {
		r.c.release()
		r.c = nil
	}
}

// walk calls visit for every record in [pos, end) until it returns false or a frame is not
// readable, and returns the position behind the last frame that visit accepted. Blanks and frames
// without a record are stepped over without a visit. With check set, checksums and positions are
// verified, and the walk ends in front of a unit that is not whole.
func (l *CommitLog) walk(r *logReader, pos, end int64, check bool, visit func(pos int64, rec *message.Record) bool) (int64, error) {
	rec, seg, need := &r.rec, l.o.SegmentBytes, 0
	r.unit = unitRange{}
	for pos < end {
		limit := min(end, pos-pos%seg+seg)
		b, err := r.at(pos, limit, need)
		if err != nil {
			return pos, err
		}
		outside := pos >= r.unit.end
		if outside && r.stop > 0 && pos >= r.stop {
			return pos, nil
		}
		var n int
		var kind FrameKind
		if outside && l.units != nil {
			n, err = l.enterUnit(r, b, pos, check)
		}
		if err == nil {
			n, kind, err = l.o.Framing.Next(b, pos, rec)
		}
		if err != nil {
			if errors.Is(err, message.ErrShort) && int64(len(b)) < limit-pos && need <= len(b) {
				need = max(n, len(b)+1, pageBytes)
				need = int(min(int64(need), limit-pos))
				continue
			}
			return pos, err
		}
		need = 0
		if kind == FrameBlank {
			if pos-pos%seg+seg > end {
				return pos, nil
			}
			pos += seg - pos%seg
			continue
		}
		if kind == FrameRecord {
			if check {
				err := l.o.Framing.Check(b[:n], pos, rec)
				if err == nil && l.units != nil && pos+int64(n) > r.unit.end {
					err = errNoUnit
				}
				if err != nil {
					return pos, err
				}
			}
			if !visit(pos, rec) {
				return pos, nil
			}
		}
		pos += int64(n)
	}
	return pos, nil
}

var errNoUnit = errors.New("record stands in no frame")

// enterUnit notes the unit that begins at pos, where b stands, if one does, and verifies it with check
// set. With message.ErrShort it returns how many bytes that needs.
func (l *CommitLog) enterUnit(r *logReader, b []byte, pos int64, check bool) (int, error) {
	n, err := l.units.Unit(b, pos)
	if err != nil || n == 0 {
		return n, err
	}
	if check {
		if len(b) < n {
			return n, message.ErrShort
		}
		if err := l.units.CheckUnit(b[:n], pos); err != nil {
			return 0, err
		}
	}
	r.unit = unitRange{pos, pos + int64(n)}
	return n, nil
}

// tagsCode is what the consume queue stores for a record: the hash of its tag, or, in the topic
// of delayed messages, the time at which it is due.
func (l *CommitLog) tagsCode(r *message.Record) int64 {
	if string(r.Topic) == message.TopicSchedule {
		if level := r.Properties.DelayLevel(); level > 0 {
			return r.StoreTimestamp + l.delays.millis(level)
		}
	}
	if tags := r.Properties.Get(message.PropTags); len(tags) > 0 {
		return message.TagHash(tags)
	}
	return 0
}

// delayTable holds the delay levels in milliseconds.
type delayTable []int64

func (d delayTable) millis(level int) int64 {
	return d[min(level, len(d))-1]
}

// queueEntry is the consume-queue entry of the record at pos.
func (l *CommitLog) queueEntry(pos int64, r *message.Record) format.CQEntry {
	return format.CQEntry{Offset: pos, Size: r.Size, TagsHash: l.tagsCode(r)}
}
