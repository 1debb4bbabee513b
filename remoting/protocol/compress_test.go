package protocol

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that every compression gives back what it took, that the limit holds, and that rubbish is an error.
func TestCompress(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for _, c := range []Compression{CompressionZlib, CompressionLZ4, CompressionZstd} {
		for _, b := range [][]byte{{}, []byte("a"), bytes.Repeat([]byte("hello "), 10_000), noise} {
			packed, err := Compress([]byte("head"), b, c)
			require.NoError(t, err, c)
			require.Equal(t, "head", string(packed[:4]))
			got, err := Decompress([]byte("front"), packed[4:], c, len(b))
			require.NoError(t, err, c)
			require.Equal(t, "front"+string(b), string(got))
			if len(b) > 0 {
				_, err = Decompress(nil, packed[4:], c, len(b)-1)
				require.ErrorIs(t, err, ErrTooLong, c)
				_, err = Decompress(nil, packed[4:len(packed)-1], c, len(b))
				require.Error(t, err, "%s without its last byte", c)
			}
		}
		_, err := Decompress(nil, []byte("this is no stream"), c, 1000)
		require.Error(t, err, c)
	}
	_, err := Compress(nil, nil, 0x700)
	require.ErrorContains(t, err, "0x700")
	_, err = Decompress(nil, nil, 0x700, 1)
	require.ErrorContains(t, err, "0x700")
}

// Proves that a pool's readers and writers forget what came before, an error too.
func TestCompressReuse(t *testing.T) {
	for _, c := range []Compression{CompressionZlib, CompressionLZ4, CompressionZstd} {
		for range 20 {
			_, err := Decompress(nil, []byte("rubbish that is long enough"), c, 100)
			require.Error(t, err)
			packed, err := Compress(nil, []byte("text"), c)
			require.NoError(t, err)
			got, err := Decompress(nil, packed, c, 100)
			require.NoError(t, err)
			require.Equal(t, "text", string(got))
		}
	}
}

// Proves what the bits of a sysFlag say.
func TestCompressionOf(t *testing.T) {
	for flag, want := range map[int32]Compression{1: CompressionZlib, 0x301: CompressionZlib, 0x101: CompressionLZ4, 0x201: CompressionZstd} {
		c, ok := CompressionOf(flag)
		require.True(t, ok)
		require.Equal(t, want, c)
	}
	_, ok := CompressionOf(0x300)
	require.False(t, ok)
	require.EqualValues(t, 0x205, CompressionZstd.SysFlag(0x304))
	require.Equal(t, "ZSTD", CompressionZstd.String())
	require.Equal(t, "LZ4", CompressionLZ4.String())
	require.Equal(t, "ZLIB", CompressionZlib.String())
}
