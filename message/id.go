package message

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrID says that a text is no message id.
var ErrID = errors.New("no message id")

// ID is the offset message id: which broker stores the message, and where in its log. As text it
// is the address, the port in 4 bytes and the position in 8, in upper-case hexadecimal: 32 digits
// with IPv4, 56 with IPv6 (org.apache.rocketmq.common.message.MessageDecoder.createMessageId).
type ID struct {
	Host netip.AddrPort
	Pos  int64
}

const hexUpper = "0123456789ABCDEF"

// AppendRawID appends the id of the record at pos whose raw store host ([Record].StoreHost) is host.
func AppendRawID(dst, host []byte, pos int64) []byte {
	for _, b := range host {
		dst = append(dst, hexUpper[b>>4], hexUpper[b&15])
	}
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexUpper[uint64(pos)>>shift&15])
	}
	return dst
}

// AppendID appends the text of id. An IPv4 address in IPv6 clothes (::ffff:1.2.3.4) stays IPv6:
// unmap it first, as [AppendRecord] does.
func AppendID(dst []byte, id ID) []byte {
	var raw [hostBytesV6]byte
	host := appendHost(raw[:0], id.Host.Addr(), id.Host.Port())
	return AppendRawID(dst, host, id.Pos)
}

// String is the text of id, "" without a host.
func (id ID) String() string {
	if !id.Host.Addr().IsValid() {
		return ""
	}
	return string(AppendID(nil, id))
}

// ID is the id of the record.
func (r *Record) ID() ID { return ID{Host(r.StoreHost), r.PhysicalOffset} }

// ParseID reads the text of an id, digits of either case. Errors wrap [ErrID].
func ParseID(text string) (ID, error) {
	if len(text) != 2*(hostBytesV4+8) && len(text) != 2*(hostBytesV6+8) {
		return ID{}, fmt.Errorf("%w: %q has %d characters, an id has 32 or 56", ErrID, text, len(text))
	}
	b, err := hex.DecodeString(strings.ToLower(text))
	if err != nil {
		return ID{}, fmt.Errorf("%w: %q is not hexadecimal", ErrID, text)
	}
	host, pos := b[:len(b)-8], int64(binary.BigEndian.Uint64(b[len(b)-8:]))
	port := binary.BigEndian.Uint32(host[len(host)-4:])
	if port > 65535 {
		return ID{}, fmt.Errorf("%w: %q has port %d", ErrID, text, port)
	}
	if pos < 0 {
		return ID{}, fmt.Errorf("%w: %q has the negative position %d", ErrID, text, pos)
	}
	return ID{Host(host), pos}, nil
}
