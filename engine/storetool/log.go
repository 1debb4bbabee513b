package storetool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/message"
)

// damage is a range of the log that holds no records, and why the reader stopped at its start.
type damage struct {
	from, to int64
	err      error
	zeros    bool // nothing but zeros
}

// visitor hears what stands in the log, front to back. Nil members are not called. An error ends
// the walk; errStop ends it without one.
type visitor struct {
	record func(pos int64, raw []byte, r *message.Record) error
	blank  func(pos, size, left int64) error
	// damaged tells of a range between good records.
	damaged func(damage) error
}

var errStop = errors.New("stop")

// tail is what the walk found behind the last good record.
type tail struct {
	end  int64 // end of the last good record, or of the segment if a blank follows it
	used int64 // end of the last byte behind end that is not zero; end if there is none
	err  error // why there is no record at end; nil at the end of a segment
}

// walker reads the log of a store without its consent: it steps over what it cannot read.
type walker struct {
	s   *Store
	ctx context.Context
	v   visitor

	f     vfs.File
	seg   *segment
	buf   []byte
	start int64 // position of buf[0]
	n     int
	open  *damage // goes on into the next segment, or is the tail
	end   int64   // end of the last good frame
	steps int
}

const readAhead = 1 << 20

// walk goes through the log from pos on, or from its beginning.
func (s *Store) walk(ctx context.Context, from int64, v visitor) (tail, error) {
	w := &walker{s: s, ctx: ctx, v: v, end: max(from, s.low())}
	defer w.close()
	err := w.run(from)
	if err != nil && !errors.Is(err, errStop) {
		return tail{}, err
	}
	t := tail{end: w.end, used: w.end}
	if err != nil || w.open == nil {
		return t, nil
	}
	t.err = w.open.err
	t.used, err = s.lastUsed(w.end)
	return t, err
}

func (w *walker) close() {
	if w.f != nil {
		_ = w.f.Close() // read only
		w.f = nil
	}
}

func (w *walker) run(from int64) error {
	for i := range w.s.segments {
		seg := &w.s.segments[i]
		segEnd := seg.start + w.s.o.SegmentBytes
		if from >= segEnd {
			continue
		}
		if i > 0 && seg.start > w.s.segments[i-1].start+w.s.o.SegmentBytes && from < seg.start && w.open == nil {
			w.open = &damage{from: w.end, err: errors.New("a segment is missing")}
		}
		w.close()
		f, err := w.s.o.FS.OpenFile(seg.path, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		w.f, w.seg, w.n = f, seg, 0
		if err := w.segment(max(from, seg.start), segEnd); err != nil {
			return err
		}
	}
	return nil
}

// segment walks one file from pos on.
func (w *walker) segment(pos, segEnd int64) error {
	have := w.seg.start + w.seg.have
	var rec message.Record
	for pos < segEnd {
		if w.steps++; w.steps&0xfff == 0 && w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		raw, kind, err := w.frame(pos, have, &rec)
		if err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) {
				return err
			}
			if w.open == nil {
				w.open = &damage{from: pos, err: err}
			}
			if pos, err = w.resync(pos+1, have); err != nil {
				return err
			}
			if pos < 0 {
				return nil
			}
			continue
		}
		if kind == engine.FrameBlank {
			if w.open != nil && pos == w.seg.start {
				return nil // a blank alone proves nothing
			}
			if size := int64(rec.Size); size != segEnd-pos {
				next, err := w.resync(pos+8, have)
				if err != nil {
					return err
				}
				if next >= 0 { // damage that looks like a blank
					if w.open == nil {
						w.open = &damage{from: pos, err: fmt.Errorf("a blank record says that %d bytes are left where there are %d", size, segEnd-pos)}
					}
					pos = next
					continue
				}
				rec.Size = int32(size)
			}
			if err := w.settle(pos); err != nil {
				return err
			}
			if w.v.blank != nil {
				if err := w.v.blank(pos, int64(rec.Size), segEnd-pos); err != nil {
					return err
				}
			}
			w.end = segEnd
			return nil
		}
		if err := w.settle(pos); err != nil {
			return err
		}
		if kind == engine.FrameRecord && w.v.record != nil {
			if err := w.v.record(pos, raw, &rec); err != nil {
				return err
			}
		}
		pos += int64(len(raw))
		w.end = pos
	}
	return nil
}

// settle reports the range without records that ends at pos.
func (w *walker) settle(pos int64) error {
	if w.open == nil {
		return nil
	}
	d := *w.open
	w.open, d.to = nil, pos
	if w.v.damaged == nil {
		return nil
	}
	used, err := w.s.usedIn(d.from, d.to)
	if err != nil {
		return err
	}
	d.zeros = used == d.from
	return w.v.damaged(d)
}

var errNearEnd = errors.New("the record leaves fewer than 8 bytes to the end of the segment")

// frame reads and checks the frame at pos.
func (w *walker) frame(pos, have int64, r *message.Record) ([]byte, engine.FrameKind, error) {
	need := 0
	for {
		b, err := w.at(pos, have, need)
		if err != nil {
			return nil, 0, err
		}
		n, kind, err := w.s.o.Framing.Next(b, pos, r)
		if errors.Is(err, message.ErrShort) && int64(len(b)) < have-pos && need <= len(b) {
			need = int(min(int64(max(n, len(b)+1, 4096)), have-pos))
			continue
		}
		if err == nil && n > len(b) && kind == engine.FrameOther { // told by its header alone
			if int64(n) <= have-pos {
				need = n
				continue
			}
			err = fmt.Errorf("%w: a frame of %d bytes, %d are left in the segment", message.ErrShort, n, have-pos)
		}
		if err != nil {
			return nil, 0, describe(b, err)
		}
		if kind == engine.FrameBlank {
			return nil, kind, nil
		}
		if kind == engine.FrameRecord {
			if err := w.s.o.Framing.Check(b[:n], pos, r); err != nil {
				if r.PhysicalOffset != pos {
					err = fmt.Errorf("physical offset is %d, the record stands at %d", r.PhysicalOffset, pos)
				}
				return nil, 0, err
			}
		}
		if kind == engine.FrameRecord && engine.Torn(r) {
			// Recovery cuts it, unless something follows: then somebody has kept it and gone on.
			size := n
			var next message.Record
			if _, _, err := w.frame(pos+int64(size), have, &next); err != nil {
				return nil, 0, engine.ErrTorn
			}
			if b, err = w.at(pos, have, size); err != nil {
				return nil, 0, err
			}
			if n, _, err = w.s.o.Framing.Next(b, pos, r); err != nil {
				return nil, 0, err
			}
		}
		if left := w.seg.start + w.s.o.SegmentBytes - pos - int64(n); left < 8 && left != 0 {
			return nil, 0, errNearEnd
		}
		return b[:n], kind, nil
	}
}

// describe says what stands where no record is.
func describe(b []byte, err error) error {
	size, magic := int32(0), uint32(0)
	if len(b) >= 8 {
		size = int32(message.RecordSize(b))
		magic = uint32(b[4])<<24 | uint32(b[5])<<16 | uint32(b[6])<<8 | uint32(b[7])
	}
	switch {
	case errors.Is(err, message.ErrBadMagic) && size == 0 && magic == 0:
		return errZeros
	case errors.Is(err, message.ErrBadMagic):
		return fmt.Errorf("%w: %#x", err, magic)
	case errors.Is(err, message.ErrLength):
		return fmt.Errorf("%w: total size says %d", err, size)
	case errors.Is(err, message.ErrShort) && len(b) >= 8:
		return fmt.Errorf("%w: total size says %d, %d bytes are left in the segment", err, size, len(b))
	}
	return err
}

var errZeros = errors.New("zeros where a record should be")

// at gives the bytes from pos on, at least need of them.
func (w *walker) at(pos, have int64, need int) ([]byte, error) {
	if in := w.start + int64(w.n) - pos; pos >= w.start && in >= int64(need) && in > 0 && (in >= 4096 || w.start+int64(w.n) == have) {
		return w.buf[pos-w.start : w.n], nil
	}
	want := min(max(int64(need), readAhead), have-pos)
	if want <= 0 {
		return nil, nil
	}
	if int64(len(w.buf)) < want {
		w.buf = make([]byte, want)
	}
	w.n = 0
	n, err := w.f.ReadAt(w.buf[:want], pos-w.seg.start)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	w.start, w.n = pos, n
	return w.buf[:n], nil
}

var magics = [][]byte{{0xDA, 0xA3, 0x20, 0xA7}, {0xDA, 0xA3, 0x20, 0xAB}}

// resync finds the next record in the file, whole and at its own position; -1 if there is none.
func (w *walker) resync(pos, have int64) (int64, error) {
	var rec message.Record
	for pos+8 <= have {
		if err := context.Cause(w.ctx); err != nil {
			return 0, err
		}
		if to, err := nextData(w.f, pos-w.seg.start, have-w.seg.start); err != nil {
			return 0, err
		} else if at := to + w.seg.start; at > pos+8 {
			pos = at - 8 // a record begins with its size, which may begin with zeros
			if pos+8 > have {
				return -1, nil
			}
		}
		b, err := w.at(pos, have, 8)
		if err != nil {
			return 0, err
		}
		at := len(b)
		for _, m := range magics {
			if k := bytes.Index(b[4:], m); k >= 0 {
				at = min(at, k)
			}
		}
		if at == len(b) {
			pos += int64(max(len(b)-7, 1))
			continue
		}
		pos += int64(at)
		_, kind, err := w.frame(pos, have, &rec)
		if err == nil && kind == engine.FrameRecord {
			return pos, nil
		}
		var pe *os.PathError
		if errors.As(err, &pe) {
			return 0, err
		}
		pos++
	}
	return -1, nil
}

// lastUsed is the end of the last byte at or behind pos that is not zero; pos if all are.
func (s *Store) lastUsed(pos int64) (int64, error) {
	return s.usedIn(pos, s.high())
}

// usedIn is the end of the last byte in [from, to) that is not zero; from if all are.
func (s *Store) usedIn(from, to int64) (int64, error) {
	used := from
	for _, seg := range s.segments {
		a, b := max(from, seg.start), min(to, seg.start+seg.have)
		if a >= b {
			continue
		}
		f, err := s.o.FS.OpenFile(seg.path, os.O_RDONLY, 0)
		if err != nil {
			return 0, err
		}
		end, err := lastNonZero(f, a-seg.start, b-seg.start)
		_ = f.Close() // read only
		if err != nil {
			return 0, err
		}
		if end > a-seg.start {
			used = seg.start + end
		}
	}
	return used, nil
}

// lastNonZero is the end of the last byte in [from, to) of a file that is not zero; from if all are.
func lastNonZero(f vfs.File, from, to int64) (int64, error) {
	buf := make([]byte, min(readAhead, max(to-from, 0)))
	last := from
	for pos := from; pos < to; {
		at, err := nextData(f, pos, to)
		if err != nil {
			return 0, err
		}
		if pos = at; pos >= to {
			break
		}
		b := buf[:min(int64(len(buf)), to-pos)]
		n, err := f.ReadAt(b, pos)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if kept := bytes.TrimRight(b[:n], "\x00"); len(kept) > 0 {
			last = pos + int64(len(kept))
		}
		if n == 0 {
			break
		}
		pos += int64(n)
	}
	return last, nil
}
