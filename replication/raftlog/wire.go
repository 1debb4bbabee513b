package raftlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Messages between nodes: a header of 16 bytes, big-endian, and a body.
//
//	0        4      5       6      8          16
//	+--------+------+-------+------+----------+------+
//	| length | kind | flags | zero | id       | body |
//	+--------+------+-------+------+----------+------+
//
// length is that of the body. A response carries the id of its request. The bodies of appends and their
// responses have fixed fields; all others are JSON, since they are rare. Raft's own headers are not
// sent: who speaks is known from the hello that opens a connection.
type kind uint8

const (
	kindHello kind = iota + 1
	kindAppend
	kindVote
	kindPreVote
	kindTimeoutNow
	kindSnapshot
	kindPeek
	kindJoin
	kindHash
	kindPing
	kindFrame
)

const (
	flagResponse = 1 << iota
	flagError    // of a response: the body is text
)

const (
	headerBytes      = 16
	appendFixedBytes = 36
	entryFixedBytes  = 24
	appendRespBytes  = 44
	maxSmallBody     = 1 << 20  // of every message but appends and snapshots
	maxLargeBody     = 96 << 20 // of those
	greeting         = "rmqraft\x01"
)

var errWire = errors.New("malformed message")

// header is the fixed part of a message.
type header struct {
	length uint32
	kind   kind
	flags  uint8
	id     uint64
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b, h.length)
	b[4], b[5], b[6], b[7] = byte(h.kind), h.flags, 0, 0
	binary.BigEndian.PutUint64(b[8:], h.id)
}

func parseHeader(b []byte) header {
	return header{binary.BigEndian.Uint32(b), kind(b[4]), b[5], binary.BigEndian.Uint64(b[8:])}
}

// limit is how long a body of its kind may be.
func (h header) limit() uint32 {
	if h.kind == kindAppend || h.kind == kindSnapshot {
		return maxLargeBody
	}
	return maxSmallBody
}

// readHeader reads the next header; b is scratch.
func readHeader(r io.Reader, b *[headerBytes]byte) (header, error) {
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	h := parseHeader(b[:])
	if h.length > h.limit() {
		return h, fmt.Errorf("%w: a body of %d bytes, the limit is %d", errWire, h.length, h.limit())
	}
	return h, nil
}

// appendRequest is an AppendEntries as it travels: the fixed part, then a fixed part for each entry, then
// their frames back to back.
type appendRequest struct {
	term, prev, prevTerm, commit uint64
	entries                      []wireEntry
}

type wireEntry struct {
	index, term uint64
	kind        raft.LogType
	frame       []byte
}

// appendHead appends everything but the frames.
func (q *appendRequest) appendHead(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, q.term)
	b = binary.BigEndian.AppendUint64(b, q.prev)
	b = binary.BigEndian.AppendUint64(b, q.prevTerm)
	b = binary.BigEndian.AppendUint64(b, q.commit)
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.entries)))
	for _, e := range q.entries {
		b = binary.BigEndian.AppendUint64(b, e.index)
		b = binary.BigEndian.AppendUint64(b, e.term)
		b = binary.BigEndian.AppendUint32(b, uint32(e.kind))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.frame)))
	}
	return b
}

// parseAppend reads a body; the frames are slices of it.
func parseAppend(b []byte) (*appendRequest, error) {
	if len(b) < appendFixedBytes {
		return nil, fmt.Errorf("%w: an append of %d bytes", errWire, len(b))
	}
	q := &appendRequest{
		term: binary.BigEndian.Uint64(b), prev: binary.BigEndian.Uint64(b[8:]),
		prevTerm: binary.BigEndian.Uint64(b[16:]), commit: binary.BigEndian.Uint64(b[24:]),
	}
	n := int(binary.BigEndian.Uint32(b[32:]))
	b = b[appendFixedBytes:]
	if n > len(b)/entryFixedBytes {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", errWire, n, len(b))
	}
	heads, frames := b[:n*entryFixedBytes], b[n*entryFixedBytes:]
	q.entries = make([]wireEntry, n)
	for i := range q.entries {
		h := heads[i*entryFixedBytes:]
		size := int(binary.BigEndian.Uint32(h[20:]))
		if size > len(frames) {
			return nil, fmt.Errorf("%w: entry %d has %d bytes, %d are left", errWire, i, size, len(frames))
		}
		if kind := binary.BigEndian.Uint32(h[16:]); kind > uint32(raft.LogConfiguration) {
			return nil, fmt.Errorf("%w: entry %d is of type %d", errWire, i, kind)
		}
		q.entries[i] = wireEntry{
			index: binary.BigEndian.Uint64(h), term: binary.BigEndian.Uint64(h[8:]),
			kind: raft.LogType(binary.BigEndian.Uint32(h[16:])), frame: frames[:size:size],
		}
		if want := q.prev + uint64(i) + 1; q.entries[i].index != want {
			return nil, fmt.Errorf("%w: entry %d has index %d, it follows %d", errWire, i, q.entries[i].index, want-1)
		}
		frames = frames[size:]
	}
	if len(frames) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last entry", errWire, len(frames))
	}
	return q, nil
}

// clamp lowers the commit index to what this request verifies (hazard H1): the library takes the
// smaller of it and the receiver's own last entry, which may be one that nobody has checked.
func (q *appendRequest) clamp() {
	if last := q.prev + uint64(len(q.entries)); last > 0 {
		q.commit = min(q.commit, last)
	}
}

// appendResponse answers an append, and tells how far the follower's disk is.
type appendResponse struct {
	term, lastLog    uint64
	success          bool
	noBackoff        bool
	written, durable int64 // positions

	appendNanos, flushNanos uint32 // what the entries took here
}

func (p *appendResponse) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, p.term)
	b = binary.BigEndian.AppendUint64(b, p.lastLog)
	var bits uint32
	if p.success {
		bits |= 1
	}
	if p.noBackoff {
		bits |= 2
	}
	b = binary.BigEndian.AppendUint32(b, bits)
	b = binary.BigEndian.AppendUint64(b, uint64(p.written))
	b = binary.BigEndian.AppendUint64(b, uint64(p.durable))
	b = binary.BigEndian.AppendUint32(b, p.appendNanos)
	return binary.BigEndian.AppendUint32(b, p.flushNanos)
}

func parseAppendResponse(b []byte) (appendResponse, error) {
	if len(b) != appendRespBytes {
		return appendResponse{}, fmt.Errorf("%w: a response of %d bytes", errWire, len(b))
	}
	bits := binary.BigEndian.Uint32(b[16:])
	return appendResponse{
		term: binary.BigEndian.Uint64(b), lastLog: binary.BigEndian.Uint64(b[8:]),
		success: bits&1 != 0, noBackoff: bits&2 != 0,
		written: int64(binary.BigEndian.Uint64(b[20:])), durable: int64(binary.BigEndian.Uint64(b[28:])),
		appendNanos: binary.BigEndian.Uint32(b[36:]), flushNanos: binary.BigEndian.Uint32(b[40:]),
	}, nil
}

// lane is what a connection is for.
type lane string

const (
	laneData    lane = "data"    // appends
	laneControl lane = "control" // heartbeats, votes and everything else
)

// hello opens a connection. Group, constants and who is meant must agree.
type hello struct {
	Lane         lane   `json:"lane"`
	Group        string `json:"group"`
	From         string `json:"from"` // server id, "" before this node has one
	Name         string `json:"name"` // the id without its incarnation
	Addr         string `json:"addr"`
	To           string `json:"to"` // server id, or a bare name while it is not known
	Client       string `json:"client"`
	SegmentBytes int64  `json:"segmentBytes"`
	Format       int    `json:"format"`
}

// helloReply accepts or refuses.
type helloReply struct {
	ID      string `json:"id"`
	Client  string `json:"client"`
	Refused string `json:"refused,omitempty"`
	Early   bool   `json:"early,omitempty"` // it will pass: whoever was called has no identity yet
}

// voteRequest is a request for a vote or a pre-vote.
type voteRequest struct {
	Term, LastIndex, LastTerm uint64
	Transfer                  bool
}

type voteReply struct {
	Term    uint64
	Granted bool
}

// snapshotOffer is an InstallSnapshot; its data, metadata only, is small.
type snapshotOffer struct {
	Term, Index, IndexTerm uint64
	Configuration          []byte
	ConfigurationIndex     uint64
	Data                   []byte
}

type snapshotReply struct {
	Term    uint64
	Success bool
}

func writeJSON(w io.Writer, h header, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeMessage(w, h, b)
}

// writeMessage writes header and body with one call.
func writeMessage(w io.Writer, h header, body []byte) error {
	h.length = uint32(len(body))
	if h.length > h.limit() {
		return fmt.Errorf("a message of %d bytes, the limit is %d", len(body), h.limit())
	}
	b := make([]byte, headerBytes, headerBytes+len(body))
	h.put(b)
	_, err := w.Write(append(b, body...))
	return err
}
