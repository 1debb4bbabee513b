// Package crashtest shows what a store keeps of what it acked. It makes messages that can be
// recognised, writes them from a child process that is killed in the middle ([Child], [Start]), and
// checks a reopened store against the acks that were seen ([Audit]).
package crashtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"

	"rmq/engine"
	"rmq/message"
)

// Ack is one acked message: who sent it, and where the store said it is.
type Ack struct {
	Producer uint32
	Queue    int32
	Seq      uint64
	Pos      int64
	Offset   int64 // in the queue
}

// AckBytes is the length of an encoded ack.
const AckBytes = 32

// AppendAck encodes a, big-endian, fields in order.
func AppendAck(dst []byte, a Ack) []byte {
	dst = binary.BigEndian.AppendUint32(dst, a.Producer)
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.Queue))
	dst = binary.BigEndian.AppendUint64(dst, a.Seq)
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Pos))
	return binary.BigEndian.AppendUint64(dst, uint64(a.Offset))
}

// ParseAck decodes what AppendAck made.
func ParseAck(b []byte) Ack {
	return Ack{
		Producer: binary.BigEndian.Uint32(b),
		Queue:    int32(binary.BigEndian.Uint32(b[4:])),
		Seq:      binary.BigEndian.Uint64(b[8:]),
		Pos:      int64(binary.BigEndian.Uint64(b[16:])),
		Offset:   int64(binary.BigEndian.Uint64(b[24:])),
	}
}

// Source makes messages. Equal sources make equal messages, so a body tells whether it is one of
// theirs and whether it is whole.
type Source struct {
	Seed    uint64
	MaxBody int // bytes; at least 16
}

// Topic is the topic of all messages.
const Topic = "CrashTest"

// AppendBody appends the body of a message: producer, sequence number, and noise of some length,
// all of it fixed by the source.
func (s Source) AppendBody(dst []byte, producer uint32, seq uint64) []byte {
	rng := rand.NewPCG(s.Seed^uint64(producer)<<32, seq)
	n := 16
	if s.MaxBody > 16 {
		n += int(rng.Uint64() % uint64(s.MaxBody-15))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(producer))
	dst = binary.BigEndian.AppendUint64(dst, seq)
	for n -= 16; n >= 8; n -= 8 {
		dst = binary.BigEndian.AppendUint64(dst, rng.Uint64())
	}
	for ; n > 0; n-- {
		dst = append(dst, byte(rng.Uint64()))
	}
	return dst
}

func key(producer uint32, seq uint64) string {
	return strconv.FormatUint(uint64(producer), 10) + "-" + strconv.FormatUint(seq, 10)
}

var host = netip.MustParseAddrPort("127.0.0.1:10911")

// AppendRecord appends the encoded message for a queue.
func (s Source) AppendRecord(dst []byte, queue int32, producer uint32, seq uint64) ([]byte, error) {
	return message.AppendRecord(dst, &message.Message{
		Topic: Topic, QueueID: queue, BornHost: host, StoreHost: host,
		Body:       s.AppendBody(nil, producer, seq),
		Properties: message.AppendProperty(message.Properties(nil), message.PropKeys, key(producer, seq)),
	})
}

// Report is what an audit found.
type Report struct {
	Found []Ack // every message that the store serves, by position
	Lost  []Ack // acked and not served
}

// LostText says how much was lost, and the first few of it.
func (r Report) LostText() string {
	return fmt.Sprintf("%d acked messages lost, the first: %+v", len(r.Lost), r.Lost[:min(3, len(r.Lost))])
}

// Audit reads everything that the store serves and compares it with the acks.
//
// It is an error if the store serves anything that the source did not make, a message twice, a
// message at another place than its ack said, queue offsets or positions out of order, one producer's
// messages of one queue out of order, or if reads by position or key disagree with reads by queue
// offset. Lost acks are reported, and left to the caller to judge.
func Audit(ctx context.Context, s *engine.Store, src Source, acks []Ack) (Report, error) {
	var rep Report
	if err := s.WaitDispatchedPos(ctx, s.Visible()); err != nil {
		return rep, fmt.Errorf("dispatch after recovery: %w", err)
	}
	type id struct {
		producer uint32
		seq      uint64
	}
	found := map[id]Ack{}
	for _, q := range s.Queues() {
		if q.Topic != Topic {
			return rep, fmt.Errorf("a queue of topic %q that nobody wrote", q.Topic)
		}
		list, err := readQueue(s, src, q.ID)
		if err != nil {
			return rep, fmt.Errorf("queue %d: %w", q.ID, err)
		}
		for _, a := range list {
			if other, twice := found[id{a.Producer, a.Seq}]; twice {
				return rep, fmt.Errorf("served twice: %+v and %+v", other, a)
			}
			found[id{a.Producer, a.Seq}] = a
			rep.Found = append(rep.Found, a)
		}
	}
	slices.SortFunc(rep.Found, func(a, b Ack) int { return int(min(max(a.Pos-b.Pos, -1), 1)) })
	for i := 1; i < len(rep.Found); i++ {
		if rep.Found[i-1].Pos >= rep.Found[i].Pos {
			return rep, fmt.Errorf("two messages at one position: %+v and %+v", rep.Found[i-1], rep.Found[i])
		}
	}
	for _, a := range acks {
		got, ok := found[id{a.Producer, a.Seq}]
		switch {
		case !ok:
			rep.Lost = append(rep.Lost, a)
		case got != a:
			return rep, fmt.Errorf("acked as %+v, served as %+v", a, got)
		}
	}
	return rep, spotCheck(s, src, rep.Found)
}

// readQueue reads one queue from end to end.
func readQueue(s *engine.Store, src Source, queue int32) ([]Ack, error) {
	low, high, ok := s.QueueRange(Topic, queue)
	if !ok {
		return nil, nil
	}
	if low != 0 {
		return nil, fmt.Errorf("begins at %d", low)
	}
	var list []Ack
	last := map[uint32]uint64{} // per producer, the sequence number after the newest
	pos := int64(-1)
	for offset := low; offset < high; {
		r, err := s.Get(Topic, queue, offset, 64, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("get %d: %w", offset, err)
		}
		if r.Status != engine.ReadFound || r.Count() == 0 {
			r.Release()
			return nil, fmt.Errorf("get %d of %d: %v, %d records", offset, high, r.Status, r.Count())
		}
		r.Each(func(rec []byte) {
			if err != nil {
				return
			}
			var a Ack
			if a, err = identify(src, rec); err != nil {
				err = fmt.Errorf("at %d: %w", offset, err)
				return
			}
			switch {
			case a.Queue != queue || a.Offset != offset:
				err = fmt.Errorf("asked for %d/%d, got %+v", queue, offset, a)
			case a.Pos <= pos:
				err = fmt.Errorf("position %d after %d", a.Pos, pos)
			case a.Seq < last[a.Producer]:
				err = fmt.Errorf("out of order: %+v after sequence number %d", a, last[a.Producer]-1)
			}
			pos, last[a.Producer] = a.Pos, a.Seq+1
			list = append(list, a)
			offset++
		})
		next := r.NextOffset
		r.Release()
		if err != nil {
			return nil, err
		}
		if next != offset {
			return nil, fmt.Errorf("next offset %d after records up to %d", next, offset)
		}
	}
	return list, nil
}

// identify says which message a record is, if it is one of the source's and whole.
func identify(src Source, rec []byte) (Ack, error) {
	var r message.Record
	if err := message.ParseRecord(rec, &r); err != nil {
		return Ack{}, err
	}
	if err := r.CheckCRC(); err != nil {
		return Ack{}, err
	}
	if len(r.Body) < 16 || string(r.Topic) != Topic {
		return Ack{}, fmt.Errorf("topic %q with %d bytes is none of ours", r.Topic, len(r.Body))
	}
	a := Ack{
		Producer: uint32(binary.BigEndian.Uint64(r.Body)), Queue: r.QueueID, Seq: binary.BigEndian.Uint64(r.Body[8:]),
		Pos: r.PhysicalOffset, Offset: r.QueueOffset,
	}
	if want := key(a.Producer, a.Seq); string(r.Properties.Get(message.PropKeys)) != want {
		return a, fmt.Errorf("properties of %+v are %q", a, r.Properties)
	}
	if !bytes.Equal(r.Body, src.AppendBody(nil, a.Producer, a.Seq)) {
		return a, fmt.Errorf("body of %+v is not what was sent", a)
	}
	return a, nil
}

// spotCheck reads some messages, the newest among them, by position and by key.
func spotCheck(s *engine.Store, src Source, list []Ack) error {
	step := max(1, len(list)/32)
	for i := len(list) - 1; i >= 0; i -= step {
		a := list[i]
		r, err := s.Lookup(a.Pos)
		if err != nil {
			return fmt.Errorf("look up %+v: %w", a, err)
		}
		r.Each(func(rec []byte) {
			var got Ack
			if got, err = identify(src, rec); err == nil && got != a {
				err = fmt.Errorf("found %+v", got)
			}
		})
		r.Release()
		if err != nil {
			return fmt.Errorf("look up %+v: %w", a, err)
		}
		if s.Options().IndexDisabled {
			continue
		}
		found, err := s.QueryKey(Topic, key(a.Producer, a.Seq), 32, 0, 1<<62)
		if err != nil {
			return fmt.Errorf("query key of %+v: %w", a, err)
		}
		if !slices.Contains(found, a.Pos) {
			return fmt.Errorf("query key of %+v: found %v", a, found)
		}
	}
	return nil
}
