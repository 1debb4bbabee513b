// Package format holds the fixed layouts of the files derived from the log: consume-queue
// entries, index files, the checkpoint page, and the names of files in a queue of files.
// All integers are big-endian.
package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"rmq/internal/binenc"
)

// ErrFormat says that bytes are not what the layout demands.
var ErrFormat = errors.New("malformed")

// CQEntryBytes is the size of a consume-queue entry.
const CQEntryBytes = 20

// CQEntry is one consume-queue slot, 20 bytes:
//
//	0        8      12                20
//	+--------+------+-----------------+
//	| offset | size | tags hash       |
//	+--------+------+-----------------+
//
// Offset is where the record begins in the commit log, Size its length in bytes, TagsHash the
// Java String.hashCode of the tag, sign-extended (org.apache.rocketmq.store.ConsumeQueue).
type CQEntry struct {
	Offset   int64
	Size     int32
	TagsHash int64
}

// CQFiller stands before the first entry of a queue whose first offset is not at the start of a file.
var CQFiller = CQEntry{Size: math.MaxInt32}

// IsFiller reports whether e stands for no record.
func (e CQEntry) IsFiller() bool { return e == CQFiller }

// Valid reports whether e is an entry at all: unused slots are zeros.
func (e CQEntry) Valid() bool { return e.Offset >= 0 && e.Size > 0 }

// AppendCQEntry appends the 20 bytes of e.
func AppendCQEntry(dst []byte, e CQEntry) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.Size))
	return binary.BigEndian.AppendUint64(dst, uint64(e.TagsHash))
}

// ParseCQEntry reads the first 20 bytes of b.
func ParseCQEntry(b []byte) (CQEntry, error) {
	if len(b) < CQEntryBytes {
		return CQEntry{}, fmt.Errorf("consume-queue entry of %d bytes, want %d: %w", len(b), CQEntryBytes, ErrFormat)
	}
	return CQEntry{
		Offset:   int64(binary.BigEndian.Uint64(b)),
		Size:     int32(binary.BigEndian.Uint32(b[8:])),
		TagsHash: int64(binary.BigEndian.Uint64(b[12:])),
	}, nil
}

// Sizes of the parts of an index file.
const (
	IndexHeaderBytes = 40
	IndexSlotBytes   = 4
	IndexEntryBytes  = 20
)

// IndexHeader is the head of an index file, 40 bytes
// (org.apache.rocketmq.store.index.IndexHeader). Times are store times in milliseconds. Count is
// the number of the next entry; entry 0 is never used, so an empty file has Count 1.
type IndexHeader struct {
	BeginTime, EndTime     int64
	BeginOffset, EndOffset int64
	UsedSlots, Count       int32
}

// AppendIndexHeader appends the 40 bytes of h.
func AppendIndexHeader(dst []byte, h IndexHeader) []byte {
	for _, v := range [...]int64{h.BeginTime, h.EndTime, h.BeginOffset, h.EndOffset} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.UsedSlots))
	return binary.BigEndian.AppendUint32(dst, uint32(h.Count))
}

// ParseIndexHeader reads the first 40 bytes of b. A Count below 1 reads as 1.
func ParseIndexHeader(b []byte) (IndexHeader, error) {
	r := binenc.NewReader(b)
	h := IndexHeader{BeginTime: r.I64(), EndTime: r.I64(), BeginOffset: r.I64(), EndOffset: r.I64(), UsedSlots: r.I32(), Count: max(r.I32(), 1)}
	if r.Err() != nil {
		return IndexHeader{}, fmt.Errorf("index header of %d bytes, want %d: %w", len(b), IndexHeaderBytes, ErrFormat)
	}
	return h, nil
}

// IndexEntry is one entry of an index file, 20 bytes. SecondsDiff is the store time less the
// BeginTime of the header, Prev the number of the older entry in the same slot, 0 for none.
type IndexEntry struct {
	Hash        int32
	Offset      int64
	SecondsDiff int32
	Prev        int32
}

// AppendIndexEntry appends the 20 bytes of e.
func AppendIndexEntry(dst []byte, e IndexEntry) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.Hash))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.SecondsDiff))
	return binary.BigEndian.AppendUint32(dst, uint32(e.Prev))
}

// ParseIndexEntry reads the first 20 bytes of b.
func ParseIndexEntry(b []byte) (IndexEntry, error) {
	r := binenc.NewReader(b)
	e := IndexEntry{Hash: r.I32(), Offset: r.I64(), SecondsDiff: r.I32(), Prev: r.I32()}
	if r.Err() != nil {
		return IndexEntry{}, fmt.Errorf("index entry of %d bytes, want %d: %w", len(b), IndexEntryBytes, ErrFormat)
	}
	return e, nil
}

// IndexHash is the hash of a key in the index: Java's hash of topic#key, made positive.
func IndexHash(topic, key []byte) int32 { return IndexKeyHash(IndexTopicHash(topic), key) }

// IndexTopicHash is the part of [IndexHash] that all keys of a topic share.
func IndexTopicHash(topic []byte) int32 { return 31*binenc.StringHash(0, topic) + '#' }

// IndexKeyHash completes [IndexTopicHash].
func IndexKeyHash(topicHash int32, key []byte) int32 { return abs(binenc.StringHash(topicHash, key)) }

// abs is the absolute value of h; -2^31, which has none, gives 0.
func abs(h int32) int32 {
	if h < 0 {
		h = -h
	}
	return max(h, 0)
}

// IndexFileBytes is the size of an index file.
func IndexFileBytes(slots, entries int32) int64 {
	return IndexHeaderBytes + int64(slots)*IndexSlotBytes + int64(entries)*IndexEntryBytes
}

// CheckpointBytes is the size of the checkpoint file.
const CheckpointBytes = 4096

// CheckpointPage says up to which store times (milliseconds) log, queues and index are on disk
// (org.apache.rocketmq.store.StoreCheckpoint). Too old is safe, too new is not.
type CheckpointPage struct {
	Physic, Logics, Index  int64
	MasterFlushed, Confirm int64 // 5.x
}

// AppendCheckpointPage appends the 4096 bytes of p.
func AppendCheckpointPage(dst []byte, p CheckpointPage) []byte {
	n := len(dst)
	for _, v := range [...]int64{p.Physic, p.Logics, p.Index, p.MasterFlushed, p.Confirm} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return append(dst, make([]byte, CheckpointBytes-(len(dst)-n))...)
}

// ParseCheckpointPage reads a page; 40 bytes suffice.
func ParseCheckpointPage(b []byte) (CheckpointPage, error) {
	r := binenc.NewReader(b)
	p := CheckpointPage{Physic: r.I64(), Logics: r.I64(), Index: r.I64(), MasterFlushed: r.I64(), Confirm: r.I64()}
	if r.Err() != nil {
		return CheckpointPage{}, fmt.Errorf("checkpoint of %d bytes, want %d: %w", len(b), CheckpointBytes, ErrFormat)
	}
	return p, nil
}

// FileName is the name of the file that begins at an offset: twenty decimal digits.
func FileName(offset int64) string { return fmt.Sprintf("%020d", offset) }

// ParseFileName is the offset in a file name.
func ParseFileName(name string) (int64, error) {
	if len(name) != 20 {
		return 0, fmt.Errorf("file name %q is no offset of 20 digits: %w", name, ErrFormat)
	}
	n := int64(0)
	for _, c := range []byte(name) {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, fmt.Errorf("file name %q is no offset of 20 digits: %w", name, ErrFormat)
		}
		n = n*10 + d
	}
	return n, nil
}
