package bench

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Shows that a body gives back its sequence, and that any flipped bit, any cut and any other run is
// noticed.
func TestPayloadRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(HeaderBytes, 5000).Draw(t, "size")
		p := NewPayload(42, size, rapid.Float64Range(0, 1).Draw(t, "entropy"), 1)
		seq := rapid.Int64Range(0, 1<<40).Draw(t, "seq")
		b := p.Body()
		p.Fill(b, seq, 99)
		got, err := ParsePayload(b, 42)
		require.NoError(t, err)
		require.Equal(t, seq, got)
		_, err = ParsePayload(b, 43)
		require.ErrorIs(t, err, errForeign)
		_, err = ParsePayload(b[:len(b)-1], 42)
		require.ErrorIs(t, err, errDamaged)
		bit := rapid.IntRange(0, 8*size-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		_, err = ParsePayload(b, 42)
		require.Error(t, err)
	})
}

// Shows that neighbours share no filler and that entropy is the random share of it.
func TestPayloadFiller(t *testing.T) {
	p := NewPayload(1, 1024, 0.5, 1)
	a, b := p.Body(), p.Body()
	p.Fill(a, 1, 0)
	p.Fill(b, 2, 0)
	require.NotEqual(t, a[HeaderBytes:HeaderBytes+64], b[HeaderBytes:HeaderBytes+64])
	require.Len(t, bytes.TrimRight(a[HeaderBytes:], "\x00"), 496)
}

// Shows that making a body allocates nothing.
func TestPayloadAllocates(t *testing.T) {
	p := NewPayload(1, 1024, 1, 1)
	b := p.Body()
	require.Zero(t, testing.AllocsPerRun(100, func() { p.Fill(b, 5, 6) }))
}

func BenchmarkPayload(b *testing.B) {
	for _, size := range []int{128, 1024, 4096} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			p := NewPayload(1, size, 1, 1)
			body := p.Body()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var seq int64
			for b.Loop() {
				p.Fill(body, seq, seq)
				seq++
			}
		})
	}
}
