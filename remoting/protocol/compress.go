package protocol

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression is how a body is packed: the bits 0x700 of a message's sysFlag, which has bit 0x1 when it is
// packed at all (CompressionType).
type Compression int32

// The compressions. Clients before 4.9.4, and Go's, set no bits and mean zlib; Go's cannot read the others.
const (
	CompressionLZ4  Compression = 0x100 // frame format
	CompressionZstd Compression = 0x200
	CompressionZlib Compression = 0x300

	compressionMask = 0x700
	compressedFlag  = 0x1
)

// ErrTooLong says that a packed body is longer than it may be.
var ErrTooLong = errors.New("the unpacked body is too long")

// CompressionOf says how the body of a message with this sysFlag is packed; ok is false when it is not.
func CompressionOf(sysFlag int32) (c Compression, ok bool) {
	if c = Compression(sysFlag & compressionMask); c == 0 {
		c = CompressionZlib
	}
	return c, sysFlag&compressedFlag != 0
}

// SysFlag adds the bits that say a body is packed this way.
func (c Compression) SysFlag(sysFlag int32) int32 {
	return sysFlag&^compressionMask | compressedFlag | int32(c)
}

// String is the name that Java's property rocketmq.message.compressType takes.
func (c Compression) String() string {
	switch c {
	case CompressionLZ4:
		return "LZ4"
	case CompressionZstd:
		return "ZSTD"
	case CompressionZlib:
		return "ZLIB"
	}
	return fmt.Sprintf("compression %#x", int32(c))
}

var (
	zlibWriters = sync.Pool{New: func() any {
		// Level 5 is what Java's producers choose.
		w, err := zlib.NewWriterLevel(nil, 5)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return w
	}}
	lz4Writers  = sync.Pool{New: func() any { return lz4.NewWriter(nil) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return e
	})
	zstdReaders = sync.Pool{New: func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return d
	}}
)

// Compress appends b, packed, to dst. Safe for concurrent use.
func Compress(dst, b []byte, c Compression) ([]byte, error) {
	out := sink{dst}
	switch c {
	case CompressionZstd:
		return zstdEncoder().EncodeAll(b, dst), nil
	case CompressionLZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		w.Reset(&out)
		_, err := w.Write(b)
		return out.b, errors.Join(err, w.Close())
	case CompressionZlib:
		w := zlibWriters.Get().(*zlib.Writer)
		defer zlibWriters.Put(w)
		w.Reset(&out)
		_, err := w.Write(b)
		return out.b, errors.Join(err, w.Close())
	}
	return dst, fmt.Errorf("compress: unknown %s", c)
}

// Decompress appends b, unpacked, to dst. More than limit bytes are [ErrTooLong], so that a small frame
// cannot fill the memory. Safe for concurrent use.
func Decompress(dst, b []byte, c Compression, limit int) ([]byte, error) {
	var r io.Reader
	switch c {
	case CompressionZstd:
		d := zstdReaders.Get().(*zstd.Decoder)
		defer zstdReaders.Put(d)
		if err := d.Reset(bytes.NewReader(b)); err != nil {
			return dst, fmt.Errorf("decompress %s: %w", c, err)
		}
		r = d
	case CompressionLZ4:
		l := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(l)
		l.Reset(bytes.NewReader(b))
		r = l
	case CompressionZlib:
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			return dst, fmt.Errorf("decompress %s: %w", c, err)
		}
		r = z
	default:
		return dst, fmt.Errorf("decompress: unknown %s", c)
	}
	out := sink{dst}
	n, err := io.Copy(&out, io.LimitReader(r, int64(limit)+1))
	switch {
	case err != nil:
		return dst, fmt.Errorf("decompress %s: %w", c, err)
	case n > int64(limit):
		return dst, fmt.Errorf("decompress %s: %w: over %d bytes", c, ErrTooLong, limit)
	}
	return out.b, nil
}

// sink is a Writer that appends.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}
