package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"

	"rmq/internal/binenc"
)

// Magic numbers and sizes of a record.
const (
	MagicV1    = int32(-626843481) // 0xDAA320A7
	MagicV2    = int32(-626843477) // 0xDAA320AB
	MagicBlank = int32(-875286124) // 0xCBD43194

	MinRecordBytes     = 91
	MaxPropertiesBytes = math.MaxInt16
	MaxTopicBytesV1    = math.MaxInt8
	MaxTopicBytesV2    = 255

	crcSlotBytes = len(PropCRC) + 1 + 10 + 1

	offTotal    = 0
	offMagic    = 4
	offCRC      = 8
	offQueueID  = 12
	offFlag     = 16
	offQueue    = 20
	offPhysical = 28
	offSysFlag  = 36
	offBornTime = 40
	offBornHost = 48

	// StoreTimeBytes is how many bytes of a record [StoreTime] needs.
	StoreTimeBytes = offBornHost + hostBytesV6 + 8
)

// What parsing finds instead of a record.
var (
	// ErrShort says that the bytes end before the record does.
	ErrShort = errors.New("record is cut short")
	// ErrBlank says that the rest of the segment is unused.
	ErrBlank = errors.New("blank record")
	// ErrBadMagic says that there is no record.
	ErrBadMagic = errors.New("no record magic")
	// ErrLength says that the lengths inside a record contradict each other.
	ErrLength = errors.New("record lengths disagree")
	// ErrCRC says that a checksum does not match.
	ErrCRC = errors.New("record checksum does not match")
	// ErrHost says that an address is neither IPv4 nor IPv6.
	ErrHost = errors.New("host is not set: give an IP address and port")
)

// LimitError is a part of a message above its limit.
type LimitError struct {
	Part       string
	Have, Want int
	Fix        string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s has %d bytes, the limit is %d: %s", e.Part, e.Have, e.Want, e.Fix)
}

// Message is what a producer sends and a broker stores.
type Message struct {
	Topic                     string
	QueueID, Flag             int32
	SysFlag                   SysFlag
	BornTimestamp             int64 // milliseconds
	BornHost, StoreHost       netip.AddrPort
	ReconsumeTimes            int32
	PreparedTransactionOffset int64
	Body                      []byte
	Properties                Properties
	// V2 allows topics of 128 to 255 bytes; brokers before 5.1 cannot read such records.
	V2 bool
	// CRCSlot ends the properties with a checksum over the whole record (5.2 and later).
	CRCSlot bool
}

// AppendRecord appends m as a stored record. The checksum of the body is filled in; queue offset,
// physical offset and store time are left zero for [StampRecord]. The host bits of SysFlag follow
// the addresses. Errors: [*LimitError], [ErrHost].
func AppendRecord(dst []byte, m *Message) ([]byte, error) {
	return appendRecord(dst, m, m.Flag, m.PreparedTransactionOffset, m.Body, m.Properties, nil)
}

// appendRecord appends a record of m with the given flag, body and properties; more are properties
// that come behind props.
func appendRecord(dst []byte, m *Message, userFlag int32, prepared int64, body []byte, props, more Properties) ([]byte, error) {
	born, store := m.BornHost.Addr().Unmap(), m.StoreHost.Addr().Unmap()
	if !born.IsValid() || !store.IsValid() {
		return dst, ErrHost
	}
	magic, topicLen := MagicV1, 1
	if len(m.Topic) > MaxTopicBytesV1 {
		if !m.V2 {
			return dst, &LimitError{"topic", len(m.Topic), MaxTopicBytesV1, "shorten it, or store V2 records"}
		}
		if len(m.Topic) > MaxTopicBytesV2 {
			return dst, &LimitError{"topic", len(m.Topic), MaxTopicBytesV2, "shorten it"}
		}
		magic, topicLen = MagicV2, 2
	}
	if m.CRCSlot {
		props, more = props.without(PropCRC), more.without(PropCRC)
	}
	propLen := len(props) + len(more)
	joint := len(more) > 0 && props.open() // the end of the last property before more is missing
	if joint {
		propLen++
	}
	last := props
	if len(more) > 0 {
		last = more
	}
	if m.CRCSlot {
		propLen += crcSlotBytes
		if last.open() {
			propLen++
		}
	}
	if propLen > MaxPropertiesBytes {
		return dst, &LimitError{"properties", propLen, MaxPropertiesBytes, "send fewer or shorter ones"}
	}
	flag := m.SysFlag &^ (FlagBornHostV6 | FlagStoreHostV6)
	if born.Is6() {
		flag |= FlagBornHostV6
	}
	if store.Is6() {
		flag |= FlagStoreHostV6
	}
	total := offBornHost + flag.bornBytes() + 8 + flag.storeBytes() + 4 + 8 + 4 + len(body) + topicLen + len(m.Topic) + 2 + propLen
	if total > math.MaxInt32 {
		return dst, &LimitError{"record", total, math.MaxInt32, "send a smaller body"}
	}
	be := binary.BigEndian
	dst = be.AppendUint32(dst, uint32(total))
	dst = be.AppendUint32(dst, uint32(magic))
	dst = be.AppendUint32(dst, BodyCRC(body))
	dst = be.AppendUint32(dst, uint32(m.QueueID))
	dst = be.AppendUint32(dst, uint32(userFlag))
	dst = be.AppendUint64(dst, 0)
	dst = be.AppendUint64(dst, 0)
	dst = be.AppendUint32(dst, uint32(flag))
	dst = be.AppendUint64(dst, uint64(m.BornTimestamp))
	dst = appendHost(dst, born, m.BornHost.Port())
	dst = be.AppendUint64(dst, 0)
	dst = appendHost(dst, store, m.StoreHost.Port())
	dst = be.AppendUint32(dst, uint32(m.ReconsumeTimes))
	dst = be.AppendUint64(dst, uint64(prepared))
	dst = be.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, body...)
	if topicLen == 2 {
		dst = be.AppendUint16(dst, uint16(len(m.Topic)))
	} else {
		dst = append(dst, byte(len(m.Topic)))
	}
	dst = append(dst, m.Topic...)
	dst = be.AppendUint16(dst, uint16(propLen))
	dst = append(dst, props...)
	if joint {
		dst = append(dst, valueEnd)
	}
	dst = append(dst, more...)
	if m.CRCSlot {
		if last.open() {
			dst = append(dst, valueEnd)
		}
		dst = AppendProperty(dst, PropCRC, "0000000000")
	}
	return dst, nil
}

// open reports whether the end of the last property is missing.
func (p Properties) open() bool { return len(p) > 0 && p[len(p)-1] != valueEnd }

// without is p less one property; p itself when it is not there.
func (p Properties) without(name string) Properties {
	if p.Get(name) == nil {
		return p
	}
	var out Properties
	p.Each(func(n, v []byte) bool {
		if string(n) != name {
			out = AppendProperty(out, string(n), string(v))
		}
		return true
	})
	return out
}

func appendHost(dst []byte, a netip.Addr, port uint16) []byte {
	if a.Is4() {
		b := a.As4()
		dst = append(dst, b[:]...)
	} else {
		b := a.As16()
		dst = append(dst, b[:]...)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(port))
}

// Host reads the raw address of a record: 4 or 16 bytes of address, 4 of port.
func Host(b []byte) netip.AddrPort {
	if len(b) != hostBytesV4 && len(b) != hostBytesV6 {
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(b[:len(b)-4])
	return netip.AddrPortFrom(addr, uint16(binary.BigEndian.Uint32(b[len(b)-4:])))
}

// BodyCRC is the checksum that a record carries of its body: CRC-32 without the sign bit, 0 for
// an empty body.
func BodyCRC(body []byte) uint32 {
	return crc32.ChecksumIEEE(body) & math.MaxInt32
}

// StampRecord writes queue offset, position and store time into one encoded record, and the
// checksum over the whole if the record has a slot for it.
func StampRecord(rec []byte, queueOffset, pos, storeMillis int64) {
	be := binary.BigEndian
	be.PutUint64(rec[offQueue:], uint64(queueOffset))
	be.PutUint64(rec[offPhysical:], uint64(pos))
	flag := SysFlag(be.Uint32(rec[offSysFlag:]))
	be.PutUint64(rec[offBornHost+flag.bornBytes():], uint64(storeMillis))
	if slot := crcSlot(rec); slot != nil {
		putCRC(slot, crc32.ChecksumIEEE(rec[:len(rec)-crcSlotBytes])&math.MaxInt32)
	}
}

// crcSlot is the ten digits at the end of a record that carries a checksum property, else nil.
func crcSlot(rec []byte) []byte {
	if len(rec) < MinRecordBytes+crcSlotBytes || rec[len(rec)-1] != valueEnd {
		return nil
	}
	slot := rec[len(rec)-crcSlotBytes:]
	if slot[len(PropCRC)] != nameEnd || string(slot[:len(PropCRC)]) != PropCRC {
		return nil
	}
	// A topic may end in the same bytes: the properties must reach that far back.
	flag := SysFlag(binary.BigEndian.Uint32(rec[offSysFlag:]))
	at := offBornHost + flag.bornBytes() + 8 + flag.storeBytes() + 12
	if at+4 > len(rec) {
		return nil
	}
	n := int(int32(binary.BigEndian.Uint32(rec[at:])))
	if at += 4; n < 0 || n > len(rec)-at {
		return nil
	}
	n, at, err := topicAt(rec, at+n)
	if err != nil || at+n+2 > len(rec)-crcSlotBytes {
		return nil
	}
	return slot[len(PropCRC)+1 : crcSlotBytes-1]
}

// putCRC writes decimal digits, the least significant one first.
func putCRC(slot []byte, crc uint32) {
	for i := range slot {
		slot[i] = '0' + byte(crc%10)
		crc /= 10
	}
}

// Head is what routing a record needs to know of it.
type Head struct {
	Size    int
	QueueID int32
	SysFlag SysFlag
	Topic   []byte // aliases the record
}

// Peek reads the head of the first record in b, checking its lengths.
func Peek(b []byte) (Head, error) {
	size := RecordSize(b)
	if size < 0 || size > len(b) {
		return Head{}, ErrShort
	}
	if m := int32(binary.BigEndian.Uint32(b[offMagic:])); m != MagicV1 && m != MagicV2 {
		return Head{}, ErrBadMagic
	}
	if size < MinRecordBytes {
		return Head{}, ErrLength
	}
	be := binary.BigEndian
	h := Head{Size: size, QueueID: int32(be.Uint32(b[offQueueID:])), SysFlag: SysFlag(be.Uint32(b[offSysFlag:]))}
	at := offBornHost + h.SysFlag.bornBytes() + 8 + h.SysFlag.storeBytes() + 12
	if at+4 > size {
		return Head{}, ErrLength
	}
	bodyLen := int(int32(be.Uint32(b[at:])))
	at += 4
	if bodyLen < 0 || bodyLen > size-at {
		return Head{}, ErrLength
	}
	at += bodyLen
	topicLen, at, err := topicAt(b[:size], at)
	if err != nil {
		return Head{}, err
	}
	h.Topic = b[at : at+topicLen]
	at += topicLen
	if at+2 > size || at+2+int(int16(be.Uint16(b[at:]))) != size {
		return Head{}, ErrLength
	}
	return h, nil
}

// topicAt reads the topic length at at, and says where the topic begins.
func topicAt(b []byte, at int) (n, topic int, err error) {
	if int32(binary.BigEndian.Uint32(b[offMagic:])) == MagicV2 {
		if at+2 > len(b) {
			return 0, 0, ErrLength
		}
		n, at = int(int16(binary.BigEndian.Uint16(b[at:]))), at+2
	} else {
		if at+1 > len(b) {
			return 0, 0, ErrLength
		}
		n, at = int(int8(b[at])), at+1
	}
	if n < 0 || n > len(b)-at {
		return 0, 0, ErrLength
	}
	return n, at, nil
}

// RecordSize is the total size that a record claims for itself, -1 if b is too short to say.
func RecordSize(b []byte) int {
	if len(b) < 8 {
		return -1
	}
	return int(int32(binary.BigEndian.Uint32(b)))
}

// IsRecord reports whether b begins with a record magic.
func IsRecord(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	m := int32(binary.BigEndian.Uint32(b[offMagic:]))
	return m == MagicV1 || m == MagicV2
}

// StoreTime reads the store time of the record at the start of b, of which it needs
// [StoreTimeBytes].
func StoreTime(b []byte) int64 {
	flag := SysFlag(binary.BigEndian.Uint32(b[offSysFlag:]))
	return int64(binary.BigEndian.Uint64(b[offBornHost+flag.bornBytes():]))
}

// PutBlank writes the eight bytes that mark the n bytes left in a segment as unused.
func PutBlank(b []byte, n int32) {
	binary.BigEndian.PutUint32(b, uint32(n))
	blank := MagicBlank
	binary.BigEndian.PutUint32(b[4:], uint32(blank))
}

// Record is a parsed record. Its slices alias the bytes it was parsed from.
type Record struct {
	Size                      int32
	Magic                     int32
	BodyCRC                   uint32
	QueueID, Flag             int32
	QueueOffset               int64
	PhysicalOffset            int64
	SysFlag                   SysFlag
	BornTimestamp             int64
	BornHost                  []byte // raw; see [Host]
	StoreTimestamp            int64
	StoreHost                 []byte
	ReconsumeTimes            int32
	PreparedTransactionOffset int64
	Body, Topic               []byte
	Properties                Properties

	raw []byte
}

// ParseRecord reads the record at the start of b into r, without copying and without checking
// checksums ([Record.CheckCRC]).
//
// Errors: [ErrShort] when b ends too early; [ErrBlank], with r.Size the bytes left in the
// segment; [ErrBadMagic]; [ErrLength].
func ParseRecord(b []byte, r *Record) error {
	size := RecordSize(b)
	if size < 0 {
		return ErrShort
	}
	be := binary.BigEndian
	r.Magic = int32(be.Uint32(b[offMagic:]))
	r.Size = int32(size)
	switch r.Magic {
	case MagicV1, MagicV2:
	case MagicBlank:
		if size < 8 {
			return ErrLength
		}
		return ErrBlank
	default:
		return ErrBadMagic
	}
	if size < MinRecordBytes {
		return ErrLength
	}
	if size > len(b) {
		return ErrShort
	}
	b = b[:size:size]
	r.raw = b
	r.BodyCRC = be.Uint32(b[offCRC:])
	r.QueueID = int32(be.Uint32(b[offQueueID:]))
	r.Flag = int32(be.Uint32(b[offFlag:]))
	r.QueueOffset = int64(be.Uint64(b[offQueue:]))
	r.PhysicalOffset = int64(be.Uint64(b[offPhysical:]))
	r.SysFlag = SysFlag(be.Uint32(b[offSysFlag:]))
	r.BornTimestamp = int64(be.Uint64(b[offBornTime:]))
	at := offBornHost
	n := r.SysFlag.bornBytes()
	r.BornHost = b[at : at+n]
	at += n
	n = r.SysFlag.storeBytes()
	if at+8+n+16 > size {
		return ErrLength
	}
	r.StoreTimestamp = int64(be.Uint64(b[at:]))
	at += 8
	r.StoreHost = b[at : at+n]
	at += n
	r.ReconsumeTimes = int32(be.Uint32(b[at:]))
	r.PreparedTransactionOffset = int64(be.Uint64(b[at+4:]))
	n = int(int32(be.Uint32(b[at+12:])))
	at += 16
	if n < 0 || n > size-at {
		return ErrLength
	}
	r.Body = b[at : at+n]
	n, at, err := topicAt(b, at+n)
	if err != nil {
		return err
	}
	r.Topic = b[at : at+n]
	at += n
	if at+2 > size {
		return ErrLength
	}
	n = int(int16(be.Uint16(b[at:])))
	at += 2
	if n < 0 || at+n != size {
		return ErrLength
	}
	r.Properties = Properties(b[at : at+n])
	return nil
}

// CheckCRC verifies the checksum of the body, and the one over the whole record if it has one.
func (r *Record) CheckCRC() error {
	if have := BodyCRC(r.Body); have != r.BodyCRC {
		return fmt.Errorf("%w: body has %#x, record says %#x", ErrCRC, have, r.BodyCRC)
	}
	if slot := crcSlot(r.raw); slot != nil && bytes.HasSuffix(r.Properties, r.raw[len(r.raw)-crcSlotBytes:]) {
		var want [10]byte
		putCRC(want[:], crc32.ChecksumIEEE(r.raw[:len(r.raw)-crcSlotBytes])&math.MaxInt32)
		if string(want[:]) != string(slot) {
			return fmt.Errorf("%w: properties say %s, the record has %s", ErrCRC, slot, want[:])
		}
	}
	return nil
}

// TagHash is what a consume queue stores of a tag: Java's hash, sign-extended; 0 for none.
func TagHash(tag []byte) int64 { return int64(binenc.StringHash(0, tag)) }
