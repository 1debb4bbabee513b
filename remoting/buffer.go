package remoting

import (
	"math/bits"
	"sync"

	"rmq/remoting/protocol"
)

const (
	// readBytes is what a reader borrows while bytes flow, and the least an outbox holds.
	readBytes = 64 << 10
	// idleBytes is the most that a reader keeps of a cut frame while it waits for the rest.
	idleBytes = 4 << 10

	minClass = 16 // 64 KiB
	maxClass = 25 // 32 MiB
)

// buffer is pooled memory; its capacity is at least 2^class of the pool it came from.
type buffer struct{ b []byte }

var bufferPools [maxClass - minClass + 1]sync.Pool

// getBuffer returns a buffer of length zero with room for n bytes, n ≤ 32 MiB.
func getBuffer(n int) *buffer {
	class := max(bits.Len(uint(n-1)), minClass)
	if b, ok := bufferPools[class-minClass].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1<<class)}
}

// putBuffer takes back a buffer that nobody uses. It may have grown since.
func putBuffer(b *buffer) {
	class := min(bits.Len(uint(cap(b.b)))-1, maxClass)
	if class < minClass {
		return
	}
	b.b = b.b[:0]
	bufferPools[class-minClass].Put(b)
}

// inbox is what a reader borrows while bytes flow: the bytes read and not yet served, and the command parsed last.
type inbox struct {
	b          []byte // base, or big's memory
	start, end int
	req        protocol.Command
	base       []byte
	big        *buffer
}

var inboxes = sync.Pool{New: func() any {
	b := make([]byte, readBytes)
	return &inbox{b: b, base: b}
}}

func (in *inbox) unserved() []byte { return in.b[in.start:in.end] }

// compact moves the bytes not yet served to the front.
func (in *inbox) compact() {
	if in.start == 0 {
		return
	}
	if in.start == in.end {
		in.start, in.end = 0, 0
		in.shrink()
		return
	}
	in.end = copy(in.b, in.b[in.start:in.end])
	in.start = 0
	if in.big != nil && in.end <= len(in.base)/2 {
		copy(in.base, in.b[:in.end])
		in.shrink()
	}
}

func (in *inbox) shrink() {
	if in.big != nil {
		putBuffer(in.big)
		in.big, in.b = nil, in.base
	}
}

// grow makes room for a frame of n bytes, by no more than the double of what has already arrived: a length word alone
// must not cost memory.
func (in *inbox) grow(n int) {
	if n <= len(in.b) {
		return
	}
	big := getBuffer(min(n, 2*len(in.b)))
	b := big.b[:cap(big.b)]
	copy(b, in.b[:in.end])
	in.shrink()
	in.big, in.b = big, b
}

func (in *inbox) release() {
	in.start, in.end = 0, 0
	in.shrink()
	inboxes.Put(in)
}

// outbox is frames that wait to be written: bytes, and payloads that go between them.
type outbox struct {
	buf      []byte
	payloads []placed

	// The writer's progress.
	started bool
	sent    int // bytes of buf, when there are no payloads
	spans   []span
	done    int // spans written
	extra   []*buffer
}

// placed is a payload that follows the first at bytes of buf.
type placed struct {
	at      int
	payload Payload
}

var outboxes = sync.Pool{New: func() any { return &outbox{buf: make([]byte, 0, readBytes)} }}

// keepOutBytes is the largest buffer that an outbox takes back to the pool.
const keepOutBytes = 256 << 10

func getOutbox() *outbox { return outboxes.Get().(*outbox) }

// release gives the payloads that were not written, and all memory, back.
func (o *outbox) release() {
	for i := range o.payloads {
		if p := o.payloads[i].payload; p != nil {
			p.Release()
		}
	}
	for i, b := range o.extra {
		putBuffer(b)
		o.extra[i] = nil
	}
	clear(o.payloads)
	clear(o.spans)
	o.payloads, o.spans, o.extra = o.payloads[:0], o.spans[:0], o.extra[:0]
	o.sent, o.done, o.started = 0, 0, false
	if cap(o.buf) > keepOutBytes {
		return
	}
	o.buf = o.buf[:0]
	outboxes.Put(o)
}
