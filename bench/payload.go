package bench

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
)

// HeaderBytes is what every body begins with, big-endian:
//
//	0 due, ns of CLOCK_MONOTONIC (8)  8 run id (8)  16 sequence (8)  24 length (4)
//	28 checksum (4)
//
// The rest is filler, a piece of a random pad chosen by the sequence. The checksum is the CRC-32
// IEEE of the filler, exclusive-or a hash of bytes 0 to 27. There are a thousand pieces, so
// their sums are known beforehand and a body costs little more than copying it.
const HeaderBytes = 32

const (
	padStep = 64
	pieces  = 64 << 10 / padStep
)

// Payload makes bodies and recognises them. Fill is for one goroutine; Check for any number.
type Payload struct {
	runID uint64
	size  int
	rand  int      // bytes of filler that are random; the rest are zeros
	pad   []byte   // rand + 64 KiB
	sums  []uint32 // of the filler, by piece of the pad
}

// NewPayload makes bodies of size bytes, HeaderBytes or more, of which a share of entropy is random.
func NewPayload(runID uint64, size int, entropy float64, seed uint64) *Payload {
	p := &Payload{runID: runID, size: size, rand: int(float64(size-HeaderBytes)*entropy + 0.5)}
	p.pad = make([]byte, p.rand+64<<10)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(p.pad) // never fails
	p.sums = make([]uint32, pieces)
	b := p.Body()
	for i := range p.sums {
		copy(b[HeaderBytes:HeaderBytes+p.rand], p.pad[i*padStep:])
		p.sums[i] = crc32.ChecksumIEEE(b[HeaderBytes:])
	}
	return p
}

// Body returns a buffer for Fill, its zeros in place.
func (p *Payload) Body() []byte { return make([]byte, p.size) }

// Fill makes b the body of message seq. b came from Body.
func (p *Payload) Fill(b []byte, seq, dueMono int64) {
	piece := uint64(seq) * 0x9E3779B97F4A7C15 >> 32 % pieces
	copy(b[HeaderBytes:HeaderBytes+p.rand], p.pad[piece*padStep:])
	binary.BigEndian.PutUint64(b[0:], uint64(dueMono))
	binary.BigEndian.PutUint64(b[8:], p.runID)
	binary.BigEndian.PutUint64(b[16:], uint64(seq))
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	binary.BigEndian.PutUint32(b[28:], p.sums[piece]^headerHash(b))
}

// headerHash hashes bytes 0 to 27. Every step can be undone, so no two headers that differ in one
// field alone share a hash before it is cut to 32 bits.
func headerHash(b []byte) uint32 {
	h := uint64(binary.BigEndian.Uint32(b[24:]))
	for i := 0; i < 24; i += 8 {
		h = (h ^ binary.BigEndian.Uint64(b[i:])) * 0x9E3779B97F4A7C15
		h ^= h >> 32
	}
	return uint32(h ^ h>>29)
}

var (
	errForeign = errors.New("body of another run")
	errDamaged = errors.New("body is damaged")
)

// MonotonicNanos is CLOCK_MONOTONIC, which due times are told in.
func MonotonicNanos() int64 { return monotonic() }

// ParsePayload returns the sequence of a body of run runID.
func ParsePayload(b []byte, runID uint64) (seq int64, err error) {
	if len(b) < HeaderBytes {
		return 0, errDamaged
	}
	if binary.BigEndian.Uint32(b[24:]) != uint32(len(b)) || binary.BigEndian.Uint32(b[28:]) != crc32.ChecksumIEEE(b[HeaderBytes:])^headerHash(b) {
		return 0, errDamaged
	}
	if binary.BigEndian.Uint64(b[8:]) != runID {
		return 0, errForeign
	}
	return int64(binary.BigEndian.Uint64(b[16:])), nil
}
