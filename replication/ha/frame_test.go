package ha

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func someHeader(rng *rand.Rand, t FrameType) Header {
	return Header{
		Type: t, Flags: uint16(rng.Uint32()), Group: rng.Uint64(), Epoch: rng.Int64N(1 << 40),
		Pos: rng.Int64(), Confirm: rng.Int64(), End: rng.Int64(),
	}
}

// Proves that every type of frame reads as it was written, and that no bit of it can change unnoticed.
func TestFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for ft := FrameGreeting; ft < frameTypesEnd; ft++ {
		h := someHeader(rng, ft)
		body := make([]byte, min(ft.maxBody(), rng.IntN(300)))
		h.Len = len(body)
		b := AppendFrame(nil, h, body)
		got, gotBody, err := ParseFrame(b)
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.True(t, bytes.Equal(body, gotBody))
		for range 50 {
			c := bytes.Clone(b)
			c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
			_, _, err := ParseFrame(c)
			require.Error(t, err)
		}
		_, _, err = ParseFrame(b[:len(b)-1])
		require.ErrorIs(t, err, ErrShort)
	}
}

// Proves that what is no frame of ours is refused before any of its body is read, by a typed error.
func TestFrameRefused(t *testing.T) {
	good := func() []byte { return AppendHeader(nil, Header{Type: FrameData}, nil) }
	for _, c := range []struct {
		change func(b []byte)
		want   error
	}{
		{func(b []byte) { b[0] = 'X' }, ErrNotOurs},
		{func(b []byte) { b[5] = 0 }, ErrUnknown},
		{func(b []byte) { b[5] = byte(frameTypesEnd) }, ErrUnknown},
		{func(b []byte) { b[48] = 0x7F }, ErrTooLong},
		{func(b []byte) { b[48] = 0xFF }, ErrTooLong},
		{func(b []byte) { b[24] = 0x80 }, ErrNegative},
	} {
		b := good()
		c.change(b)
		_, err := ParseHeader(b)
		require.ErrorIs(t, err, c.want)
	}
	b := good()
	b[4]++
	var version *VersionError
	_, err := ParseHeader(b)
	require.ErrorAs(t, err, &version)
	require.Equal(t, 2, version.Have)
}

// Proves that the documented bytes are those on the wire.
func TestFrameGolden(t *testing.T) {
	h := Header{Type: FrameData, Flags: FlagNeeded, Group: 0x1122334455667788, Epoch: 3, Pos: 4096, Confirm: 4000, End: 5000}
	want := []byte{
		'R', 'M', 'Q', 'H', 1, 4, 0, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
		0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0F, 0xA0,
		0, 0, 0, 0, 0, 0, 0x13, 0x88, 0, 0, 0, 2,
	}
	got := AppendFrame(nil, h, []byte("ab"))
	require.Equal(t, want, got[:52])
	require.Equal(t, "ab", string(got[56:]))
}

// Proves that a document's name and text come apart where they were joined.
func TestMetaBody(t *testing.T) {
	name, doc, err := parseMeta(appendMeta(nil, "topics", []byte("{}")))
	require.NoError(t, err)
	require.Equal(t, "topics", name)
	require.Equal(t, "{}", string(doc))
	_, _, err = parseMeta([]byte{0, 9, 'x'})
	require.ErrorIs(t, err, ErrShort)
}

// Proves that the stock wire's frames are Apache's, and that what Apache does not send is refused.
func TestStockWire(t *testing.T) {
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 1, 2}, stockReport(258))
	require.Equal(t, ownPreamble[:], stockReport(-1))
	b := appendStockHeader(nil, 258, 7)
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7}, b)
	pos, n, err := parseStockHeader(b)
	require.NoError(t, err)
	require.EqualValues(t, 258, pos)
	require.Equal(t, 7, n)
	_, _, err = parseStockHeader(b[:11])
	require.ErrorIs(t, err, ErrShort)
	_, _, err = parseStockHeader(appendStockHeader(nil, -1, 0))
	require.ErrorIs(t, err, ErrNegative)
	_, _, err = parseStockHeader(appendStockHeader(nil, 0, stockMaxBody+1))
	require.ErrorIs(t, err, ErrTooLong)
	_, _, err = parseStockHeader(appendStockHeader(nil, 0, -1))
	require.ErrorIs(t, err, ErrTooLong)
}

func FuzzFrame(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for ft := FrameGreeting; ft < frameTypesEnd; ft++ {
		f.Add(AppendFrame(nil, someHeader(rng, ft), make([]byte, min(ft.maxBody(), 10))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := ParseFrame(b)
		if err != nil {
			return
		}
		require.Equal(t, b[:HeaderBytes+h.Len], AppendFrame(nil, h, body))
		switch h.Type {
		case FrameHello, FrameAnnounce:
			_, _ = parseHello(body)
		case FrameWelcome:
			_, _ = parseWelcome(body)
		case FrameMeta:
			_, _, _ = parseMeta(body)
		}
	})
}

func FuzzStockHeader(f *testing.F) {
	f.Add(appendStockHeader(nil, 1<<40, 32<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		pos, n, err := parseStockHeader(b)
		if err != nil {
			return
		}
		require.Equal(t, b[:stockHeaderBytes], appendStockHeader(nil, pos, n))
	})
}
