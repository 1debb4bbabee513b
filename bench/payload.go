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
//	28 CRC-32 IEEE of the rest of the body, then of bytes 0 to 27 (4)
//
// The rest is filler, another piece of a random pad for every sequence.
const HeaderBytes = 32

const padStep = 64

// payload makes bodies and recognises them. Fill is for one goroutine; Check for any number.
type payload struct {
	runID uint64
	size  int
	rand  int    // bytes of filler that are random; the rest are zeros
	pad   []byte // rand + 64 KiB
	steps uint64
}

func newPayload(runID uint64, size int, entropy float64, seed uint64) *payload {
	p := &payload{runID: runID, size: size, rand: int(float64(size-HeaderBytes)*entropy + 0.5), steps: 64 << 10 / padStep}
	p.pad = make([]byte, p.rand+64<<10)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(p.pad) // never fails
	return p
}

// body returns a buffer for fill, its zeros in place.
func (p *payload) body() []byte { return make([]byte, p.size) }

// fill makes b the body of message seq. b came from body.
func (p *payload) fill(b []byte, seq, dueMono int64) {
	if p.rand > 0 {
		off := uint64(seq) * 0x9E3779B97F4A7C15 >> 32 % p.steps * padStep
		copy(b[HeaderBytes:HeaderBytes+p.rand], p.pad[off:])
	}
	binary.BigEndian.PutUint64(b[0:], uint64(dueMono))
	binary.BigEndian.PutUint64(b[8:], p.runID)
	binary.BigEndian.PutUint64(b[16:], uint64(seq))
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	binary.BigEndian.PutUint32(b[28:], checksum(b))
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(b[HeaderBytes:]), crc32.IEEETable, b[:28])
}

var (
	errForeign = errors.New("body of another run")
	errDamaged = errors.New("body is damaged")
)

// parsePayload returns the sequence of a body of run runID.
func parsePayload(b []byte, runID uint64) (seq int64, err error) {
	if len(b) < HeaderBytes {
		return 0, errDamaged
	}
	if binary.BigEndian.Uint32(b[24:]) != uint32(len(b)) || binary.BigEndian.Uint32(b[28:]) != checksum(b) {
		return 0, errDamaged
	}
	if binary.BigEndian.Uint64(b[8:]) != runID {
		return 0, errForeign
	}
	return int64(binary.BigEndian.Uint64(b[16:])), nil
}
