package client

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// uniqueIDs makes the unique keys of messages: address (4 bytes, or 16), process id (2), a random
// number in place of Java's class loader hash (4), milliseconds since the month began (4) and a
// counter (2), in upper-case hexadecimal (org.apache.rocketmq.common.message.MessageClientIDSetter).
//
// Safe for concurrent use; unique per process as long as no more than 65536 are made in a millisecond.
type uniqueIDs struct {
	fixed   []byte // hex of what never changes
	counter atomic.Uint32
	month   atomic.Pointer[monthSpan]
	mu      sync.Mutex
}

type monthSpan struct{ start, end time.Time }

func newUniqueIDs(ip netip.Addr) *uniqueIDs {
	raw := ip.AsSlice()
	raw = binary.BigEndian.AppendUint16(raw, uint16(os.Getpid()))
	var r [4]byte
	_, _ = rand.Read(r[:]) // never fails: it ends the process instead
	raw = append(raw, r[:]...)
	return &uniqueIDs{fixed: []byte(strings.ToUpper(hex.EncodeToString(raw)))}
}

func (u *uniqueIDs) next(now time.Time) string {
	m := u.month.Load()
	if m == nil || !now.Before(m.end) || now.Before(m.start) {
		m = u.turn(now)
	}
	var tail [6]byte
	binary.BigEndian.PutUint32(tail[:], uint32(now.Sub(m.start).Milliseconds()))
	binary.BigEndian.PutUint16(tail[4:], uint16(u.counter.Add(1)))
	id := make([]byte, 0, len(u.fixed)+2*len(tail))
	id = append(id, u.fixed...)
	for _, b := range tail {
		id = append(id, upperHex[b>>4], upperHex[b&15])
	}
	return string(id)
}

const upperHex = "0123456789ABCDEF"

func (u *uniqueIDs) turn(now time.Time) *monthSpan {
	u.mu.Lock()
	defer u.mu.Unlock()
	start := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	m := &monthSpan{start, start.AddDate(0, 1, 0)}
	u.month.Store(m)
	return m
}

// UniqueKeyTime is when the unique key was made, to the millisecond: the latest time before now
// that its offset within a month can mean. Errors: text that is no unique key.
func UniqueKeyTime(key string, now time.Time) (time.Time, error) {
	if len(key) != 32 && len(key) != 56 {
		return time.Time{}, fmt.Errorf("%q is no unique key: it has %d characters instead of 32 or 56", key, len(key))
	}
	b, err := hex.DecodeString(strings.ToLower(key[len(key)-12 : len(key)-4]))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no unique key: %w", key, err)
	}
	since := time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond
	start := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	if t := start.Add(since); !t.After(now) {
		return t, nil
	}
	return start.AddDate(0, -1, 0).Add(since), nil
}
