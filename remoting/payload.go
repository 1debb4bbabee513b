package remoting

import (
	"fmt"
	"io"
)

// File is what a payload in a file is read from; a vfs.File is one. The descriptor, if there is one, must stay valid until
// the payload's Release.
type File interface {
	io.ReaderAt
	Fd() (fd uintptr, ok bool)
}

// Range is a run of a payload's bytes: Bytes, or Len bytes of File from Offset when Bytes is nil.
type Range struct {
	Bytes  []byte
	File   File
	Offset int64
	Len    int
}

func (r Range) size() int {
	if r.Bytes != nil {
		return len(r.Bytes)
	}
	return r.Len
}

// Payload is the end of a frame that stays where it is, in memory or in files, until it has been written.
//
// Ranges are in order and do not change until Release. Release comes exactly once, from any goroutine: when the last byte
// is with the kernel, when the bytes were copied, or when the connection is lost. It must not block.
type Payload interface {
	Ranges() []Range
	Release()
}

// Thresholds of how a payload leaves.
const (
	copyBytes      = 16 << 10  // payloads up to here are copied behind their head: one write beats two
	smallRange     = 4 << 10   // so are payloads whose ranges are smaller than this on average …
	copyManyBytes  = 256 << 10 // … up to here
	sendfileBytes  = 64 << 10  // file ranges from here on never enter this process
	maxGather      = 64        // ranges given to one writev
	maxGatherBytes = 1 << 20
)

// copied says whether a payload is cheaper to copy than to gather, and how long it is.
func copied(ranges []Range) (yes bool, size int) {
	inFile := false
	for _, r := range ranges {
		size += r.size()
		inFile = inFile || r.Bytes == nil
	}
	if inFile {
		return false, size
	}
	return size <= copyBytes || size <= copyManyBytes && size < smallRange*len(ranges), size
}

// span is a run of bytes to write: b, or n bytes of file from offset. The payload it ends is released after it.
type span struct {
	b      []byte
	fd     int
	offset int64
	n      int
	ends   int // index + 1 of the payload that ends here
}

// spread lays the bytes and payloads of o out in the order in which they are written. File ranges too short for sendfile
// are read here, all of them if sendfile is not to be had.
func (o *outbox) spread(sendfile bool) error {
	o.started = true
	if len(o.payloads) == 0 {
		return nil
	}
	at := 0
	for i, p := range o.payloads {
		if p.at > at {
			o.spans = append(o.spans, span{b: o.buf[at:p.at]})
			at = p.at
		}
		for _, r := range p.payload.Ranges() {
			s, err := o.lay(r, sendfile)
			if err != nil {
				return err
			}
			o.spans = append(o.spans, s)
		}
		o.spans = append(o.spans, span{ends: i + 1})
	}
	if at < len(o.buf) {
		o.spans = append(o.spans, span{b: o.buf[at:]})
	}
	o.settle()
	return nil
}

func (o *outbox) lay(r Range, sendfile bool) (span, error) {
	if r.Bytes != nil || r.Len == 0 {
		return span{b: r.Bytes}, nil
	}
	if sendfile && r.Len >= sendfileBytes {
		if fd, ok := r.File.Fd(); ok {
			return span{fd: int(fd), offset: r.Offset, n: r.Len}, nil
		}
	}
	b := getBuffer(r.Len)
	o.extra = append(o.extra, b)
	b.b = b.b[:r.Len]
	if n, err := r.File.ReadAt(b.b, r.Offset); n < r.Len {
		return span{}, fmt.Errorf("read a payload of %d bytes at %d: %w", r.Len, r.Offset, err)
	}
	return span{b: b.b}, nil
}

// settle steps over what is written and releases the payloads that ended.
func (o *outbox) settle() {
	for ; o.done < len(o.spans); o.done++ {
		s := &o.spans[o.done]
		if len(s.b) > 0 || s.n > 0 {
			return
		}
		if s.ends > 0 {
			p := &o.payloads[s.ends-1]
			p.payload.Release()
			p.payload = nil
		}
	}
}

// wrote takes n bytes off the front.
func (o *outbox) wrote(n int) {
	if len(o.payloads) == 0 {
		o.sent += n
		return
	}
	for n > 0 {
		s := &o.spans[o.done]
		if s.n > 0 {
			k := min(n, s.n)
			s.n, s.offset, n = s.n-k, s.offset+int64(k), n-k
		} else {
			k := min(n, len(s.b))
			s.b, n = s.b[k:], n-k
		}
		if len(s.b) == 0 && s.n == 0 {
			o.done++
		}
	}
	o.settle()
}

// next is what to write now: one run of bytes, several runs (both: iov, whose memory the caller gives), or a file range.
// Empty iov and no file: everything is written. more says that further bytes follow.
func (o *outbox) next(iov [][]byte) (out [][]byte, file *span, more bool) {
	iov = iov[:0]
	if len(o.payloads) == 0 {
		if o.sent < len(o.buf) {
			iov = append(iov, o.buf[o.sent:])
		}
		return iov, nil, false
	}
	if o.done == len(o.spans) {
		return iov, nil, false
	}
	if s := &o.spans[o.done]; s.n > 0 {
		return iov, s, false
	}
	bytes := 0
	for i := o.done; i < len(o.spans); i++ {
		s := &o.spans[i]
		if s.n > 0 {
			return iov, nil, true
		}
		if len(s.b) == 0 {
			continue
		}
		if len(iov) == cap(iov) || bytes > maxGatherBytes {
			return iov, nil, true
		}
		iov = append(iov, s.b)
		bytes += len(s.b)
	}
	return iov, nil, false
}
