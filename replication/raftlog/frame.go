package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/message"
)

// FrameType says what a frame carries.
type FrameType uint8

// The types of frames.
const (
	FrameData    FrameType = iota + 1 // message records, one after the other
	FrameNoop                         // nothing: a new leader's first entry
	FrameConfig                       // membership, as the library encodes it
	FrameBarrier                      // nothing
	FrameMeta                         // a document of the broker
)

func (t FrameType) String() string {
	if t < FrameData || t > FrameMeta {
		return fmt.Sprintf("frame type %d", uint8(t))
	}
	return [...]string{"data", "noop", "config", "barrier", "meta"}[t-1]
}

// logType is how the library calls it.
func (t FrameType) logType() raft.LogType {
	switch t {
	case FrameNoop:
		return raft.LogNoop
	case FrameConfig:
		return raft.LogConfiguration
	case FrameBarrier:
		return raft.LogBarrier
	}
	return raft.LogCommand
}

// HeaderBytes is the length of a frame's header.
const HeaderBytes = 64

const (
	frameMagic   = 0x524D5146 // "RMQF": neither a record's nor a blank's
	frameVersion = 1
)

// Header is what stands in front of every entry of the log: 64 bytes, big-endian, and the body behind
// them without a gap. See docs/format/raftlog.md.
//
//	0      4      8    9    10     12        16      24     32    40     48      52      56         60     64
//	+------+------+----+----+------+---------+-------+------+-----+------+-------+-------+----------+------+
//	| size | RMQF | v1 |type| flags| messages| index | term | pos | hint | body  | crc   | prevTerm | crc  |
//	+------+------+----+----+------+---------+-------+------+-----+------+-------+-------+----------+------+
//
// A frame never spans two segments, and where it stands is a function of the lengths before it, so
// equal logs lie equally on every node: the positions inside messages hold on all of them.
type Header struct {
	Type     FrameType
	Messages int32 // records in a data frame
	Index    uint64
	Term     uint64
	Pos      int64  // where the frame stands in the log
	Hint     int64  // data frames: the confirmed position that the leader knew of; else 0
	BodyLen  int32  // bytes
	BodyCRC  uint32 // CRC-32C
	PrevTerm uint32 // low bits of the term of the frame before
}

// Len is the length of the whole frame in bytes.
func (h *Header) Len() int { return HeaderBytes + int(h.BodyLen) }

// End is the position behind the frame.
func (h *Header) End() int64 { return h.Pos + int64(h.Len()) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes the header, its checksum too, to the first HeaderBytes of b.
func (h *Header) put(b []byte) {
	be := binary.BigEndian
	b = b[:HeaderBytes]
	be.PutUint32(b, uint32(h.Len()))
	be.PutUint32(b[4:], frameMagic)
	b[8], b[9], b[10], b[11] = frameVersion, byte(h.Type), 0, 0
	be.PutUint32(b[12:], uint32(h.Messages))
	be.PutUint64(b[16:], h.Index)
	be.PutUint64(b[24:], h.Term)
	be.PutUint64(b[32:], uint64(h.Pos))
	be.PutUint64(b[40:], uint64(h.Hint))
	be.PutUint32(b[48:], uint32(h.BodyLen))
	be.PutUint32(b[52:], h.BodyCRC)
	be.PutUint32(b[56:], h.PrevTerm)
	be.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// What is wrong with the bytes of a frame.
var (
	ErrNoFrame     = errors.New("no frame begins here")
	ErrFrameDamage = errors.New("frame is damaged")
	errFramePos    = errors.New("frame carries the position of another place")
)

// isFrame reports whether b, at least 8 bytes, begins with the magic of a frame.
func isFrame(b []byte) bool {
	return len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) == frameMagic
}

// ParseHeader reads the header at the start of b and verifies its checksum, but not that of the body.
// It returns [message.ErrShort] for fewer than [HeaderBytes] bytes, [ErrNoFrame] for other bytes, and
// an [ErrFrameDamage] that says what does not hold.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < 8 {
		return h, message.ErrShort
	}
	if !isFrame(b) {
		return h, ErrNoFrame
	}
	if len(b) < HeaderBytes {
		return h, message.ErrShort
	}
	b = b[:HeaderBytes]
	be := binary.BigEndian
	if crc32.Checksum(b[:60], castagnoli) != be.Uint32(b[60:]) {
		return h, fmt.Errorf("%w: checksum of the header", ErrFrameDamage)
	}
	if b[8] != frameVersion {
		return h, fmt.Errorf("frame of version %d, this program knows %d: use a newer one", b[8], frameVersion)
	}
	h = Header{
		Type: FrameType(b[9]), Messages: int32(be.Uint32(b[12:])), Index: be.Uint64(b[16:]), Term: be.Uint64(b[24:]),
		Pos: int64(be.Uint64(b[32:])), Hint: int64(be.Uint64(b[40:])), BodyLen: int32(be.Uint32(b[48:])),
		BodyCRC: be.Uint32(b[52:]), PrevTerm: be.Uint32(b[56:]),
	}
	switch {
	case h.Type < FrameData || h.Type > FrameMeta:
		return h, fmt.Errorf("%w: unknown type %d", ErrFrameDamage, b[9])
	case h.BodyLen < 0 || h.BodyLen > maxBody || int(be.Uint32(b)) != h.Len():
		return h, fmt.Errorf("%w: sizes %d and %d", ErrFrameDamage, be.Uint32(b), h.BodyLen)
	case h.Pos < 0 || h.Index == 0 || h.Messages < 0:
		return h, fmt.Errorf("%w: index %d at %d", ErrFrameDamage, h.Index, h.Pos)
	}
	return h, nil
}

// maxBody is more than any segment holds.
const maxBody = 1<<31 - 1 - HeaderBytes

// ParseFrame reads the frame that b is, no more and no less, and verifies both checksums.
func ParseFrame(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	switch {
	case err != nil:
		return h, err
	case len(b) < h.Len():
		return h, message.ErrShort
	case len(b) > h.Len():
		return h, fmt.Errorf("%w: %d bytes behind its end", ErrFrameDamage, len(b)-h.Len())
	}
	return h, h.checkBody(b)
}

// checkBody verifies the checksum of the body of the frame at the start of b.
func (h *Header) checkBody(b []byte) error {
	if crc32.Checksum(b[HeaderBytes:h.Len()], castagnoli) != h.BodyCRC {
		return fmt.Errorf("%w: checksum of the body of index %d", ErrFrameDamage, h.Index)
	}
	return nil
}

// Framing finds the records in a log of frames. The header of a data frame is stepped over and its
// records are read as those of any log; other frames carry none. It is an [engine.Units]: a recovery
// verifies each frame as a whole and cuts in front of one that is not all there.
type Framing struct{ records engine.Plain }

// Next implements [engine.Framing].
func (f Framing) Next(b []byte, pos int64, r *message.Record) (int, engine.FrameKind, error) {
	if !isFrame(b) {
		return f.records.Next(b, pos, r)
	}
	h, err := ParseHeader(b)
	switch {
	case errors.Is(err, message.ErrShort):
		return HeaderBytes, 0, err
	case err != nil:
		return 0, 0, err
	case h.Type == FrameData:
		return HeaderBytes, engine.FrameOther, nil
	}
	return h.Len(), engine.FrameOther, nil
}

// Check implements [engine.Framing].
func (f Framing) Check(b []byte, pos int64, r *message.Record) error {
	return f.records.Check(b, pos, r)
}

// Unit implements [engine.Units]: a frame.
func (Framing) Unit(b []byte, _ int64) (int, error) {
	if !isFrame(b) {
		return 0, nil
	}
	h, err := ParseHeader(b)
	if errors.Is(err, message.ErrShort) {
		return HeaderBytes, err
	}
	return h.Len(), err
}

// CheckUnit implements [engine.Units].
func (Framing) CheckUnit(b []byte, pos int64) error {
	h, err := ParseFrame(b)
	if err == nil && h.Pos != pos {
		return errFramePos
	}
	return err
}
