package raftlog

import (
	"encoding/hex"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/message"
)

// frame is a whole frame with body.
func frame(h Header, body []byte) []byte {
	h.BodyLen, h.BodyCRC = int32(len(body)), crc32.Checksum(body, castagnoli)
	b := append(make([]byte, HeaderBytes), body...)
	h.put(b)
	return b
}

// TestFrameGolden proves that the header lies as docs/format/raftlog.md draws it.
func TestFrameGolden(t *testing.T) {
	h := Header{Type: FrameMeta, Messages: 3, Index: 0x1112131415161718, Term: 0x2122232425262728, Pos: 0x3132333435363738,
		Hint: 0x41424344, PrevTerm: 0x51525354}
	b := frame(h, []byte("123456789"))
	require.Equal(t, "00000049524d51460105000000000003"+
		"11121314151617182122232425262728"+
		"31323334353637380000000041424344"+
		"00000009e306928351525354", hex.EncodeToString(b[:60]))
	require.Equal(t, "e3069283", hex.EncodeToString(b[52:56]), "CRC-32C of 123456789")
	got, err := ParseFrame(b)
	require.NoError(t, err)
	h.BodyLen, h.BodyCRC = 9, 0xe3069283
	require.Equal(t, h, got)
	require.Equal(t, 73, got.Len())
	require.Equal(t, h.Pos+73, got.End())
}

// TestFrameDamage proves that no flipped bit and no missing byte of a frame goes unnoticed.
func TestFrameDamage(t *testing.T) {
	b := frame(Header{Type: FrameData, Index: 7, Term: 2, Pos: 4096}, []byte("a body"))
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		_, err := ParseFrame(b)
		require.Error(t, err, "bit %d", i)
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		_, err := ParseFrame(b[:n])
		require.ErrorIs(t, err, message.ErrShort, "%d bytes", n)
	}
	_, err := ParseFrame(append(b, 0))
	require.ErrorIs(t, err, ErrFrameDamage)
	require.NoError(t, Framing{}.CheckUnit(b, 4096))
	require.ErrorIs(t, Framing{}.CheckUnit(b, 8192), errFramePos)
}

// FuzzParseFrame proves that no bytes make the parser panic, and that what it takes it gives back.
func FuzzParseFrame(f *testing.F) {
	f.Add(frame(Header{Type: FrameNoop, Index: 1, Term: 1}, nil))
	f.Add(frame(Header{Type: FrameData, Messages: 2, Index: 9, Term: 3, Pos: 77, Hint: 70, PrevTerm: 2}, []byte("body")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseFrame(b)
		var r message.Record
		if n, _, err := (Framing{}).Next(b, 0, &r); err == nil {
			require.Positive(t, n)
		}
		if err != nil {
			return
		}
		again := append([]byte{}, b...)
		h.put(again)
		require.Equal(t, b[12:60], again[12:60])
		require.Equal(t, len(b), h.Len())
	})
}
