package protocol

import (
	"encoding/binary"
	"strconv"
)

// encoder writes one frame straight down: begin, the ext fields, finish. It is what the hot headers
// use in place of a Command, and allocates only when dst is too small.
type encoder struct {
	dst  []byte
	ser  Serialize
	at   int // where the frame begins
	ext  int // binary: where the length of the ext fields stands
	some bool
}

// begin writes what stands in front of the ext fields. A code that the binary header cannot hold makes
// the frame a JSON one.
func (e *encoder) begin(code, opaque, flag int32, remark string) {
	e.at = len(e.dst)
	e.dst = append(e.dst, 0, 0, 0, 0, 0, 0, 0, 0)
	if e.ser == Binary && code == int32(int16(code)) {
		e.dst = appendBinaryStart(e.dst, code, Go, Version, opaque, flag, len(remark))
		e.dst = append(e.dst, remark...)
		e.ext = len(e.dst)
		e.dst = append(e.dst, 0, 0, 0, 0)
		return
	}
	e.ser = JSON
	e.dst = appendJSONStart(e.dst, code)
}

// key writes a name and, in the binary form, the length of a value of n bytes. JSON names are ours and
// need no escapes.
func (e *encoder) key(name string, n int) {
	if e.ser == Binary {
		e.dst = binary.BigEndian.AppendUint16(e.dst, uint16(len(name)))
		e.dst = append(e.dst, name...)
		e.dst = binary.BigEndian.AppendUint32(e.dst, uint32(n))
		return
	}
	if e.some {
		e.dst = append(e.dst, ',', '"')
	} else {
		e.dst = append(e.dst, `,"extFields":{"`...)
		e.some = true
	}
	e.dst = append(e.dst, name...)
	e.dst = append(e.dst, '"', ':')
}

func (e *encoder) bytes(name string, v []byte) {
	e.key(name, len(v))
	if e.ser == Binary {
		e.dst = append(e.dst, v...)
	} else {
		e.dst = appendQuoted(e.dst, v)
	}
}

// optional is bytes for a value that is left out when it is empty.
func (e *encoder) optional(name string, v []byte) {
	if len(v) > 0 {
		e.bytes(name, v)
	}
}

// plain is for text of ours without anything to escape.
func (e *encoder) plain(name, v string) {
	e.key(name, len(v))
	if e.ser == Binary {
		e.dst = append(e.dst, v...)
		return
	}
	e.dst = append(e.dst, '"')
	e.dst = append(e.dst, v...)
	e.dst = append(e.dst, '"')
}

func (e *encoder) int(name string, v int64) {
	e.key(name, 0)
	at := len(e.dst)
	if e.ser == Binary {
		e.dst = strconv.AppendInt(e.dst, v, 10)
		binary.BigEndian.PutUint32(e.dst[at-4:], uint32(len(e.dst)-at))
		return
	}
	e.dst = append(e.dst, '"')
	e.dst = strconv.AppendInt(e.dst, v, 10)
	e.dst = append(e.dst, '"')
}

func (e *encoder) bool(name string, v bool) {
	if v {
		e.plain(name, "true")
	} else {
		e.plain(name, "false")
	}
}

// finish writes the rest and the lengths, for a body of bodyBytes that follows.
func (e *encoder) finish(opaque, flag int32, remark string, bodyBytes int) []byte {
	if e.ser == Binary {
		binary.BigEndian.PutUint32(e.dst[e.ext:], uint32(len(e.dst)-e.ext-4))
	} else {
		if e.some {
			e.dst = append(e.dst, '}')
		}
		e.dst = appendJSONEnd(e.dst, Go, Version, opaque, flag, remark)
	}
	putLengths(e.dst[e.at:], e.ser, bodyBytes)
	return e.dst
}
