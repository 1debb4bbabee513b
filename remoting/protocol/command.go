package protocol

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Serialize is how the header of a frame is written (SerializeType).
type Serialize byte

const (
	// JSON is the default of every client.
	JSON Serialize = 0
	// Binary is Java's ROCKETMQ.
	Binary Serialize = 1
)

// String is Java's name.
func (s Serialize) String() string {
	switch s {
	case JSON:
		return "JSON"
	case Binary:
		return "ROCKETMQ"
	}
	return "unknown serialize type " + strconv.Itoa(int(s))
}

// MaxFrameBytes is the longest frame, counting its length word; peers drop the connection over a longer one.
const MaxFrameBytes = 16 << 20

const (
	maxHeaderBytes = 1<<24 - 1
	flagResponse   = 1
	flagOneway     = 2
)

// Field is one entry of the ext map of a command. Key and Value alias the frame, or memory of the
// command where the text had to be unescaped.
type Field struct{ Key, Value []byte }

// Command is one frame (org.apache.rocketmq.remoting.protocol.RemotingCommand).
//
// A parsed command aliases the bytes it was parsed from and is valid until they are reused; [Command.Clone]
// detaches it. The zero value is ready. A command that is parsed into, or filled after [Command.Reset],
// again and again stops allocating. Not for concurrent use.
type Command struct {
	Code      int32 // a RequestCode, or a ResponseCode when IsResponse
	Language  Language
	Version   int32 // see Version
	Opaque    int32 // ties the answer to the request
	Flag      int32 // bit 0 response, bit 1 one-way
	Remark    []byte
	Ext       []Field
	Body      []byte
	Serialize Serialize

	scratch []byte // texts of Add, and those that JSON had escaped
}

// FrameBytes reads the length word at the start of b and says how long the whole frame is, the word
// included; 0 when b is too short to tell. It fails with a [*FrameError] on lengths that no frame has.
func FrameBytes(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	switch n := int64(int32(binary.BigEndian.Uint32(b))); {
	case n > MaxFrameBytes-4:
		return 0, &FrameError{"length", 0, fmt.Sprintf("%d bytes, the most is %d", n, MaxFrameBytes-4), ErrTooLarge}
	case n < 4:
		return 0, &FrameError{"length", 0, fmt.Sprintf("%d bytes cannot hold a header word", n), ErrMalformed}
	default:
		return int(n) + 4, nil
	}
}

// ParseCommand reads a frame without its length word into c, which then aliases it. The error is a
// [*FrameError]; c is then not to be used. Unknown members and fields are kept or skipped, never an error.
func ParseCommand(frame []byte, c *Command) error {
	c.Reset()
	switch {
	case len(frame) > MaxFrameBytes-4:
		return &FrameError{"length", 0, fmt.Sprintf("%d bytes, the most is %d", len(frame), MaxFrameBytes-4), ErrTooLarge}
	case len(frame) < 4:
		return &FrameError{"length", 0, fmt.Sprintf("%d bytes cannot hold a header word", len(frame)), ErrTruncated}
	}
	word := binary.BigEndian.Uint32(frame)
	n := int(word & maxHeaderBytes)
	if n > len(frame)-4 {
		return &FrameError{"header", 0, fmt.Sprintf("%d bytes announced, %d in the frame", n, len(frame)-4), ErrTruncated}
	}
	c.Serialize = Serialize(word >> 24)
	header := frame[4 : 4+n : 4+n]
	if len(frame) > 4+n {
		c.Body = frame[4+n:]
	}
	switch c.Serialize {
	case JSON:
		return c.parseJSON(header)
	case Binary:
		return c.parseBinary(header)
	}
	return &FrameError{"header", 0, c.Serialize.String(), ErrMalformed}
}

// AppendCommand appends c as a whole frame, length word included. A binary header that cannot hold
// the command (a code beyond 16 bits, as POP has, or a key beyond 32 KiB) is written as JSON. Frames over
// [MaxFrameBytes] are the caller's to refuse: the other side hangs up on them.
func AppendCommand(dst []byte, c *Command) []byte {
	return append(AppendHead(dst, c, len(c.Body)), c.Body...)
}

// AppendHead appends c up to where its body begins, for a body of bodyBytes that the caller writes
// behind it; c.Body is not looked at.
func AppendHead(dst []byte, c *Command, bodyBytes int) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	s := c.Serialize
	if s == Binary && !c.fitsBinary() {
		s = JSON
	}
	if s == Binary {
		dst = c.appendBinary(dst)
	} else {
		dst = c.appendJSON(dst)
	}
	putLengths(dst[at:], s, bodyBytes)
	return dst
}

// putLengths fills the two words at the start of frame, which ends with the header.
func putLengths(frame []byte, s Serialize, bodyBytes int) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4+bodyBytes))
	binary.BigEndian.PutUint32(frame[4:], uint32(s)<<24|uint32(len(frame)-8))
}

func (c *Command) fitsBinary() bool {
	return c.Code >= math.MinInt16 && c.Code <= math.MaxInt16 &&
		!slices.ContainsFunc(c.Ext, func(f Field) bool { return len(f.Key) > math.MaxInt16 })
}

// NewRequest is a request without header fields or body. Whoever sends it sets the opaque.
func NewRequest(code RequestCode) *Command {
	return &Command{Code: int32(code), Language: Go, Version: Version}
}

// NewResponse answers req: same opaque, same header encoding.
func NewResponse(req *Command, code ResponseCode, remark string) *Command {
	c := &Command{}
	c.Respond(req, code, remark)
	return c
}

// Respond makes c an answer to req, as [NewResponse] does, in memory that c has.
func (c *Command) Respond(req *Command, code ResponseCode, remark string) {
	opaque, s := req.Opaque, req.Serialize
	c.Reset()
	c.Code, c.Language, c.Version, c.Opaque, c.Flag, c.Serialize = int32(code), Go, Version, opaque, flagResponse, s
	c.SetRemark(remark)
}

// SetRemark replaces the remark.
func (c *Command) SetRemark(text string) {
	at := len(c.scratch)
	c.scratch = append(c.scratch, text...)
	c.Remark = c.scratch[at:len(c.scratch):len(c.scratch)]
}

// IsResponse tells answers from requests.
func (c *Command) IsResponse() bool { return c.Flag&flagResponse != 0 }

// IsOneway says that the sender wants no answer, not even an error. Go clients never set it: their
// one-way requests are answered, and they drop the answer.
func (c *Command) IsOneway() bool { return c.Flag&flagOneway != 0 }

// MarkOneway makes c a request that wants no answer.
func (c *Command) MarkOneway() { c.Flag |= flagOneway }

// Clone copies c with all that it aliases.
func (c *Command) Clone() *Command {
	n := len(c.Remark) + len(c.Body)
	for _, f := range c.Ext {
		n += len(f.Key) + len(f.Value)
	}
	mem := make([]byte, 0, n)
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(mem)
		mem = append(mem, b...)
		return mem[at:len(mem):len(mem)]
	}
	d := *c
	d.scratch = nil
	d.Ext = make([]Field, len(c.Ext))
	for i, f := range c.Ext {
		d.Ext[i] = Field{keep(f.Key), keep(f.Value)}
	}
	d.Remark, d.Body = keep(c.Remark), keep(c.Body)
	return &d
}

// Reset empties c and keeps its memory.
func (c *Command) Reset() {
	*c = Command{Ext: c.Ext[:0], scratch: c.scratch[:0]}
}

// Get finds an ext field. Java writes null and "" alike in the binary header: take "" as absent.
func (c *Command) Get(key string) (value []byte, ok bool) {
	for i := len(c.Ext) - 1; i >= 0; i-- {
		if string(c.Ext[i].Key) == key {
			return c.Ext[i].Value, true
		}
	}
	return nil, false
}

// GetString is the value of an ext field, "" when there is none.
func (c *Command) GetString(key string) string {
	v, _ := c.Get(key)
	return string(v)
}

// Add appends an ext field; both texts are copied. It does not look for an earlier one of that name.
func (c *Command) Add(key, value string) {
	at := len(c.scratch)
	c.scratch = append(c.scratch, key...)
	mid := len(c.scratch)
	c.scratch = append(c.scratch, value...)
	c.field(at, mid)
}

// AddBytes is [Command.Add] for a value in bytes.
func (c *Command) AddBytes(key string, value []byte) {
	at := len(c.scratch)
	c.scratch = append(c.scratch, key...)
	mid := len(c.scratch)
	c.scratch = append(c.scratch, value...)
	c.field(at, mid)
}

// AddInt is [Command.Add] for a number.
func (c *Command) AddInt(key string, value int64) {
	at := len(c.scratch)
	c.scratch = append(c.scratch, key...)
	mid := len(c.scratch)
	c.scratch = strconv.AppendInt(c.scratch, value, 10)
	c.field(at, mid)
}

// AddBool is [Command.Add] for true or false.
func (c *Command) AddBool(key string, value bool) {
	c.Add(key, strconv.FormatBool(value))
}

// Remove takes out every ext field of that name.
func (c *Command) Remove(key string) {
	c.Ext = slices.DeleteFunc(c.Ext, func(f Field) bool { return string(f.Key) == key })
}

func (c *Command) field(at, mid int) {
	end := len(c.scratch)
	c.Ext = append(c.Ext, Field{c.scratch[at:mid:mid], c.scratch[mid:end:end]})
}

// Equal says whether two commands carry the same, ext fields in the same order.
func (c *Command) Equal(d *Command) bool {
	return c.Code == d.Code && c.Language == d.Language && c.Version == d.Version && c.Opaque == d.Opaque && c.Flag == d.Flag &&
		c.Serialize == d.Serialize && bytes.Equal(c.Remark, d.Remark) && bytes.Equal(c.Body, d.Body) &&
		slices.EqualFunc(c.Ext, d.Ext, func(a, b Field) bool { return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) })
}
