package results

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Range and resolution of every histogram of a run, in nanoseconds.
const (
	HistLowest  = int64(100)
	HistHighest = int64(10 * time.Minute)
	HistDigits  = 3
)

// NewHistogram returns an empty histogram of nanoseconds with the range that all of a run share,
// so that any two merge. It is not safe for concurrent use; keep one per worker.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(HistLowest, HistHighest, HistDigits)
}

// Names of histograms in hist.bin.
const (
	HistResponse = "response"
	HistService  = "service"
	HistQueueing = "queueing"
	HistPacing   = "pacing"
	HistE2E      = "e2e"
	HistFailed   = "failed"
)

// Hist is one histogram of hist.bin. Whole marks the one over the measured phase; the others
// cover one interval each.
type Hist struct {
	Part  Part
	Name  string // response, service, queueing, pacing, e2e, failed
	Whole bool
	TS    float64 // start of the interval, s since the start of measuring
	DurS  float64
	H     *hdrhistogram.Histogram
}

// Summarize turns a histogram of nanoseconds into the summary of result.json, in µs. A nil or
// empty histogram gives the zero value.
func Summarize(h *hdrhistogram.Histogram) Latency {
	if h == nil || h.TotalCount() == 0 {
		return Latency{}
	}
	us := func(ns int64) float64 { return float64(ns) / 1000 }
	l := Latency{
		N:    h.TotalCount(),
		Min:  us(h.Min()),
		Mean: h.Mean() / 1000,
		P50:  us(h.ValueAtPercentile(50)),
		P90:  us(h.ValueAtPercentile(90)),
		P99:  us(h.ValueAtPercentile(99)),
		Max:  us(h.Max()),
	}
	if SupportsPercentile(99.9, l.N) {
		l.P999 = us(h.ValueAtPercentile(99.9))
	}
	if SupportsPercentile(99.99, l.N) {
		l.P9999 = us(h.ValueAtPercentile(99.99))
	}
	return l
}

// SupportsPercentile reports whether n samples support percentile p: at least ten of them lie
// above it.
func SupportsPercentile(p float64, n int64) bool {
	return float64(n)*(100-p)/100 >= 10-1e-6
}

// hist.bin, little-endian, docs/format/results.md:
//
//	"rmqhist1" · entries · crc32(IEEE) of all before
//	entry: u8 part, u8 whole, u16 name length, name, f64 start s, f64 length s, u32 n, n bytes
//
// The n bytes are HdrHistogram's own V2 compressed encoding (base64), so that other tools read
// them too.
const histMagic = "rmqhist1"

const maxHistBytes = 1 << 30

// EncodeHists encodes hist.bin.
func EncodeHists(hs []Hist) ([]byte, error) {
	b := []byte(histMagic)
	for _, h := range hs {
		enc, err := h.H.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("encode histogram %s/%s: %w", h.Part, h.Name, err)
		}
		var part, whole byte
		if h.Part == PartOpen {
			part = 1
		}
		if h.Whole {
			whole = 1
		}
		b = append(b, part, whole)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(h.Name)))
		b = append(b, h.Name...)
		b = appendFloat(b, h.TS)
		b = appendFloat(b, h.DurS)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(enc)))
		b = append(b, enc...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

// DecodeHists decodes hist.bin. It checks the checksum first; arbitrary bytes give an error.
func DecodeHists(b []byte) ([]Hist, error) {
	if len(b) < len(histMagic)+4 || string(b[:len(histMagic)]) != histMagic {
		return nil, fmt.Errorf("no %q at the beginning", histMagic)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if got := crc32.ChecksumIEEE(body); got != sum {
		return nil, fmt.Errorf("checksum %08x, want %08x: truncated or changed", got, sum)
	}
	r := bytes.NewReader(body[len(histMagic):])
	var hs []Hist
	for r.Len() > 0 {
		h, err := decodeHist(r)
		if err != nil {
			return nil, fmt.Errorf("histogram %d: %w", len(hs), err)
		}
		hs = append(hs, h)
	}
	return hs, nil
}

func decodeHist(r *bytes.Reader) (Hist, error) {
	var head struct {
		Part, Whole uint8
		Name        uint16
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return Hist{}, err
	}
	if head.Part > 1 || head.Whole > 1 {
		return Hist{}, errors.New("unknown part")
	}
	name := make([]byte, head.Name)
	if _, err := io.ReadFull(r, name); err != nil {
		return Hist{}, err
	}
	h := Hist{Part: PartClosed, Name: string(name), Whole: head.Whole == 1}
	if head.Part == 1 {
		h.Part = PartOpen
	}
	var tail struct {
		TS, DurS float64
		N        uint32
	}
	if err := binary.Read(r, binary.LittleEndian, &tail); err != nil {
		return Hist{}, err
	}
	if int64(tail.N) > int64(r.Len()) || tail.N > maxHistBytes {
		return Hist{}, io.ErrUnexpectedEOF
	}
	enc := make([]byte, tail.N)
	if _, err := io.ReadFull(r, enc); err != nil {
		return Hist{}, err
	}
	var err error
	if h.H, err = hdrhistogram.Decode(enc); err != nil {
		return Hist{}, err
	}
	h.TS, h.DurS = tail.TS, tail.DurS
	return h, nil
}

// FindHist returns the histogram of the whole measured phase, or nil.
func FindHist(hs []Hist, part Part, name string) *hdrhistogram.Histogram {
	for _, h := range hs {
		if h.Whole && h.Part == part && h.Name == name {
			return h.H
		}
	}
	return nil
}

func appendFloat(b []byte, v float64) []byte {
	var buf bytes.Buffer
	_ = binary.Write(&buf, binary.LittleEndian, v) // a bytes.Buffer takes everything
	return append(b, buf.Bytes()...)
}
