package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderBytes is the size of a frame without its body.
const HeaderBytes = 56

const (
	frameMagic   = 0x524D5148 // "RMQH"
	frameVersion = 1
)

// FrameType says what a frame is for.
type FrameType uint8

// The types of frames. M: from the side that was dialled, S: from the side that dialled.
const (
	FrameGreeting FrameType = iota + 1 // M: our own stream is spoken here
	FrameHello                         // S: who I am and what I hold; a [Hello]
	FrameWelcome                       // M: what to do next; a [Welcome]
	FrameData                          // log bytes at Pos, or none: a sign of life, or news of Confirm
	FrameAck                           // the answer to Data: Pos written, Confirm durable, End documents
	FrameMeta                          // M: a document; End is its number
	FrameRefuse                        // why the connection ends; text
	FrameBye                           // M: closes in good order; End is all that there will be
	FrameAnnounce                      // S: I lead, in a higher epoch; a [Hello]
	frameTypesEnd
)

func (t FrameType) String() string {
	names := [...]string{"", "greeting", "hello", "welcome", "data", "ack", "meta", "refuse", "bye", "announce"}
	if int(t) < len(names) && t > 0 {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Bodies have limits, so that nobody makes us keep much before we know who it is.
const (
	MaxDataBytes  = 1 << 20
	maxHelloBytes = 1 << 20
	maxTextBytes  = 4 << 10
	MaxMetaBytes  = 64 << 20 // of a document
)

// maxBody is the longest body of a type.
func (t FrameType) maxBody() int {
	switch t {
	case FrameHello, FrameWelcome, FrameAnnounce:
		return maxHelloBytes
	case FrameData:
		return MaxDataBytes
	case FrameMeta:
		return MaxMetaBytes + 2 + 255
	case FrameRefuse:
		return maxTextBytes
	}
	return 0
}

// Flags of a data frame.
const (
	// FlagNeeded: no message is acked without the slave that this frame goes to.
	FlagNeeded = 1 << iota
)

// Header begins every frame of our own stream; see docs/format/ha-stream.md for the picture.
type Header struct {
	Type    FrameType
	Flags   uint16
	Group   uint64 // which log this is; 0: not known yet
	Epoch   int64  // of the bytes in Data, else the newest that the sender knows
	Pos     int64  // where the body stands in the log; in an ack the end of what is written
	Confirm int64  // end of what readers may see; in an ack the end of what is durable
	End     int64  // end of the sender's log; in an ack and with a document its number
	Len     int    // of the body
}

// What is wrong with bytes that are no frame.
var (
	ErrNotOurs  = errors.New("not a frame of the replication stream")
	ErrDamaged  = errors.New("frame is damaged")
	ErrTooLong  = errors.New("frame is longer than its type may be")
	ErrShort    = errors.New("frame is cut short")
	ErrUnknown  = errors.New("unknown type of frame")
	ErrNegative = errors.New("frame with a negative position")
)

// VersionError is a frame of another version of the stream.
type VersionError struct{ Have, Know int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("replication stream of version %d, this program speaks %d: run the same version on both sides", e.Have, e.Know)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendHeader appends the frame's header; body, which is h.Len bytes, goes behind it on the wire.
func AppendHeader(dst []byte, h Header, body []byte) []byte {
	be, at := binary.BigEndian, len(dst)
	dst = be.AppendUint32(dst, frameMagic)
	dst = append(dst, frameVersion, byte(h.Type))
	dst = be.AppendUint16(dst, h.Flags)
	dst = be.AppendUint64(dst, h.Group)
	dst = be.AppendUint64(dst, uint64(h.Epoch))
	dst = be.AppendUint64(dst, uint64(h.Pos))
	dst = be.AppendUint64(dst, uint64(h.Confirm))
	dst = be.AppendUint64(dst, uint64(h.End))
	dst = be.AppendUint32(dst, uint32(len(body)))
	sum := crc32.Update(crc32.Checksum(dst[at:], castagnoli), castagnoli, body)
	return be.AppendUint32(dst, sum)
}

// AppendFrame appends a whole frame.
func AppendFrame(dst []byte, h Header, body []byte) []byte {
	return append(AppendHeader(dst, h, body), body...)
}

// ParseHeader reads the header at the start of b. Its checksum covers the body as well: see
// [CheckBody].
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderBytes {
		return Header{}, ErrShort
	}
	be := binary.BigEndian
	if be.Uint32(b) != frameMagic {
		return Header{}, ErrNotOurs
	}
	if b[4] != frameVersion {
		return Header{}, &VersionError{Have: int(b[4]), Know: frameVersion}
	}
	h := Header{
		Type: FrameType(b[5]), Flags: be.Uint16(b[6:]), Group: be.Uint64(b[8:]), Epoch: int64(be.Uint64(b[16:])),
		Pos: int64(be.Uint64(b[24:])), Confirm: int64(be.Uint64(b[32:])), End: int64(be.Uint64(b[40:])),
	}
	n := be.Uint32(b[48:])
	switch {
	case h.Type == 0 || h.Type >= frameTypesEnd:
		return Header{}, fmt.Errorf("%v: %w", h.Type, ErrUnknown)
	case int64(n) > int64(h.Type.maxBody()):
		return Header{}, fmt.Errorf("%v of %d bytes, at most %d: %w", h.Type, n, h.Type.maxBody(), ErrTooLong)
	case h.Epoch < 0 || h.Pos < 0 || h.Confirm < 0 || h.End < 0:
		return Header{}, ErrNegative
	}
	h.Len = int(n)
	return h, nil
}

// CheckBody verifies the checksum that stands in head, the bytes of the header, over it and the body.
func CheckBody(head, body []byte) error {
	sum := crc32.Update(crc32.Checksum(head[:HeaderBytes-4], castagnoli), castagnoli, body)
	if sum != binary.BigEndian.Uint32(head[HeaderBytes-4:]) {
		return ErrDamaged
	}
	return nil
}

// ParseFrame reads one whole frame at the start of b; the body aliases it.
func ParseFrame(b []byte) (Header, []byte, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, nil, err
	}
	if len(b) < HeaderBytes+h.Len {
		return Header{}, nil, ErrShort
	}
	body := b[HeaderBytes : HeaderBytes+h.Len]
	return h, body, CheckBody(b, body)
}

// appendMeta encodes the body of a document's frame: length of the name, name, document.
func appendMeta(dst []byte, name string, doc []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(name)))
	return append(append(dst, name...), doc...)
}

// parseMeta is the opposite. Name and document alias b.
func parseMeta(b []byte) (name string, doc []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return "", nil, ErrShort
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:n]), b[n:], nil
}
