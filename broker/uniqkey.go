package broker

import (
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"time"
)

// uniqKeys makes unique ids in the form in which clients make them: address, process and a random
// number, milliseconds since the month began, a counter, all in upper-case hexadecimal
// (org.apache.rocketmq.common.message.MessageClientIDSetter). Safe for concurrent use.
type uniqKeys struct {
	prefix []byte // address, low half of the process id, random number

	mu      sync.Mutex
	month   time.Time // when the present one began
	next    time.Time // when the next one does
	counter uint16
}

func newUniqKeys(host netip.Addr, random uint32) *uniqKeys {
	host = host.Unmap()
	p := host.AsSlice()
	p = binary.BigEndian.AppendUint16(p, uint16(os.Getpid()))
	return &uniqKeys{prefix: binary.BigEndian.AppendUint32(p, random)}
}

// appendKey appends one more key.
func (u *uniqKeys) appendKey(dst []byte, now time.Time) []byte {
	u.mu.Lock()
	if !now.Before(u.next) || now.Before(u.month) {
		y, m, _ := now.Date()
		u.month = time.Date(y, m, 1, 0, 0, 0, 0, now.Location())
		u.next = u.month.AddDate(0, 1, 0)
	}
	millis := uint32(now.Sub(u.month).Milliseconds())
	u.counter++
	n := u.counter
	u.mu.Unlock()
	const digits = "0123456789ABCDEF"
	put := func(b byte) { dst = append(dst, digits[b>>4], digits[b&15]) }
	for _, b := range u.prefix {
		put(b)
	}
	for shift := 24; shift >= 0; shift -= 8 {
		put(byte(millis >> shift))
	}
	put(byte(n >> 8))
	put(byte(n))
	return dst
}
