package protocol

import (
	"encoding/binary"
	"fmt"
	"math"
)

// minBinaryBytes is a binary header without remark and ext:
//
//	0      2      3         5        9      13         17      17+r      21+r
//	+------+------+---------+--------+------+----------+--------+--------+-----+
//	| code | lang | version | opaque | flag | remark r | remark | ext e  | ext |
//	+------+------+---------+--------+------+----------+--------+--------+-----+
//
// An ext entry is a 16-bit length and the key, a 32-bit length and the value (RocketMQSerializable).
const minBinaryBytes = 21

func (c *Command) parseBinary(b []byte) error {
	fail := func(part string, at int, err error, format string, args ...any) error {
		return &FrameError{part, at + 4, fmt.Sprintf(format, args...), err}
	}
	if len(b) < minBinaryBytes {
		return fail("header", 0, ErrTruncated, "%d bytes, the least is %d", len(b), minBinaryBytes)
	}
	c.Code = int32(int16(binary.BigEndian.Uint16(b)))
	c.Language = Language(b[2])
	c.Version = int32(int16(binary.BigEndian.Uint16(b[3:])))
	c.Opaque = int32(binary.BigEndian.Uint32(b[5:]))
	c.Flag = int32(binary.BigEndian.Uint32(b[9:]))
	n := int(int32(binary.BigEndian.Uint32(b[13:])))
	if n < 0 || n > len(b)-minBinaryBytes {
		return fail("header", 13, ErrMalformed, "a remark of %d bytes in a header of %d", n, len(b))
	}
	at := 17 + n
	if n > 0 {
		c.Remark = b[17:at:at]
	}
	n = int(int32(binary.BigEndian.Uint32(b[at:])))
	at += 4
	if n < 0 || n > len(b)-at {
		return fail("ext", at-4, ErrMalformed, "%d bytes of fields with %d left in the header", n, len(b)-at)
	}
	for end := at + n; at < end; {
		if end-at < 2 {
			return fail("ext", at, ErrMalformed, "%d bytes left for the length of a key", end-at)
		}
		n = int(int16(binary.BigEndian.Uint16(b[at:])))
		if n < 0 || n > end-at-6 {
			return fail("ext", at, ErrMalformed, "a key of %d bytes with %d left for it and its value", n, end-at-2)
		}
		key := b[at+2 : at+2+n : at+2+n]
		at += 2 + n
		n = int(int32(binary.BigEndian.Uint32(b[at:])))
		if n < 0 || n > end-at-4 {
			return fail("ext", at, ErrMalformed, "a value of %d bytes with %d left", n, end-at-4)
		}
		c.Ext = append(c.Ext, Field{key, b[at+4 : at+4+n : at+4+n]})
		at += 4 + n
	}
	return nil
}

func (c *Command) appendBinary(dst []byte) []byte {
	dst = appendBinaryStart(dst, c.Code, c.Language, c.Version, c.Opaque, c.Flag, len(c.Remark))
	dst = append(dst, c.Remark...)
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for _, f := range c.Ext {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.Key)))
		dst = append(dst, f.Key...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Value)))
		dst = append(dst, f.Value...)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// appendBinaryStart appends the fixed fields and the length of the remark.
func appendBinaryStart(dst []byte, code int32, lang Language, version, opaque, flag int32, remark int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	dst = append(dst, byte(lang))
	dst = binary.BigEndian.AppendUint16(dst, uint16(min(version, math.MaxInt16)))
	dst = binary.BigEndian.AppendUint32(dst, uint32(opaque))
	dst = binary.BigEndian.AppendUint32(dst, uint32(flag))
	return binary.BigEndian.AppendUint32(dst, uint32(remark))
}
