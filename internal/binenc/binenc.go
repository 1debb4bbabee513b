// Package binenc reads big-endian fields in a straight line and hashes text as Java does.
package binenc

import (
	"encoding/binary"
	"io"
	"unicode/utf8"
)

// Reader reads fields one after the other and remembers the first error: decoding code reads
// straight down and asks once at the end. Slices that it returns alias its input. The zero value
// reads nothing. Not for concurrent use.
type Reader struct {
	b   []byte
	off int
	err error
}

// NewReader reads from b.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Err is [io.ErrUnexpectedEOF] once a read went past the end, else nil.
func (r *Reader) Err() error { return r.err }

// Offset is how many bytes were read.
func (r *Reader) Offset() int { return r.off }

// Rest is what was not read yet.
func (r *Reader) Rest() []byte { return r.b[r.off:] }

// Bytes reads n bytes; a negative n is an error.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b)-r.off {
		if r.err == nil {
			r.err = io.ErrUnexpectedEOF
		}
		return nil
	}
	b := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads 16 bits.
func (r *Reader) U16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// U32 reads 32 bits.
func (r *Reader) U32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// I16 reads a signed 16-bit number.
func (r *Reader) I16() int16 { return int16(r.U16()) }

// I32 reads a signed 32-bit number.
func (r *Reader) I32() int32 { return int32(r.U32()) }

// I64 reads a signed 64-bit number.
func (r *Reader) I64() int64 {
	if b := r.Bytes(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// StringHash continues Java's String.hashCode over the UTF-16 code units of UTF-8 text; begin
// with seed 0. Invalid UTF-8 counts as U+FFFD, as Java decodes it.
func StringHash(seed int32, text []byte) int32 {
	h := seed
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			h = 31*h + int32(c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r >= 0x10000 {
			r -= 0x10000
			h = 31*h + 0xD800 + r>>10
			r = 0xDC00 + r&0x3FF
		}
		h = 31*h + r
		i += n
	}
	return h
}
