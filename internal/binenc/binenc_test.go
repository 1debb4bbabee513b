package binenc

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// Fields come out in order, big-endian and signed, and a read past the end sticks as an error.
func TestReader(t *testing.T) {
	r := NewReader([]byte{1, 0xff, 0xfe, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a', 'b', 'c'})
	require.EqualValues(t, 1, r.U8())
	require.EqualValues(t, -2, r.I16())
	require.EqualValues(t, 256, r.U32())
	require.EqualValues(t, -1, r.I64())
	require.Equal(t, 15, r.Offset())
	require.Equal(t, "ab", string(r.Bytes(2)))
	require.Equal(t, "c", string(r.Rest()))
	require.NoError(t, r.Err())
	require.Zero(t, r.U16())
	require.ErrorIs(t, r.Err(), io.ErrUnexpectedEOF)
	require.Zero(t, r.U8(), "one byte is left, but the error stands")
	require.Equal(t, 17, r.Offset())
	r = NewReader(nil)
	require.Nil(t, r.Bytes(-1))
	require.Error(t, r.Err())
}

// What Bytes returns cannot be grown into the bytes behind it.
func TestReaderCapacity(t *testing.T) {
	b := []byte("abcd")
	r := NewReader(b)
	_ = append(r.Bytes(2), 'X')
	require.Equal(t, "abcd", string(b))
}

// Hashes are Java's; hashing in two steps is hashing the whole.
func TestStringHash(t *testing.T) {
	for text, want := range map[string]int32{"": 0, "TagA": 2598919, "订单": 1129459, "😀": 1772899, "polygenelubricants": -2147483648} {
		require.Equal(t, want, StringHash(0, []byte(text)), text)
	}
	require.Equal(t, StringHash(0, []byte("a😀b")), StringHash(StringHash(0, []byte("a😀")), []byte("b")))
}

// Reading any fields from any bytes never panics and never passes the end.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte("abc"))
	f.Fuzz(func(t *testing.T, ops, b []byte) {
		r := NewReader(b)
		var read []byte
		for _, op := range ops {
			before := r.Offset()
			switch op % 6 {
			case 0:
				r.U8()
			case 1:
				r.I16()
			case 2:
				r.I32()
			case 3:
				r.I64()
			case 4:
				r.U16()
			case 5:
				r.Bytes(int(int8(op)) / 3)
			}
			if r.Offset() < before || r.Offset() > len(b) || r.Err() != nil && r.Offset() != before {
				t.Fatalf("offset %d after %d, error %v", r.Offset(), before, r.Err())
			}
			read = append(read, b[before:r.Offset()]...)
		}
		if !bytes.Equal(append(read, r.Rest()...), b) {
			t.Fatal("what was read and what is left are not the input")
		}
		if r.Err() != nil && !errors.Is(r.Err(), io.ErrUnexpectedEOF) {
			t.Fatal(r.Err())
		}
	})
}

// The hash of any text is the one over its UTF-16 units.
func FuzzStringHash(f *testing.F) {
	f.Add("a订😀")
	f.Add("\xff\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, text string) {
		var want int32
		for _, c := range utf16.Encode([]rune(text)) {
			want = 31*want + int32(c)
		}
		if got := StringHash(0, []byte(text)); got != want {
			t.Fatalf("%q: %d, want %d", text, got, want)
		}
	})
}
