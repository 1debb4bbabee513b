package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"rmq/message"
)

// BenchmarkAppend is one producer goroutine with a number of messages outstanding: encode, CRC,
// append, dispatch, index; distinct bodies.
func BenchmarkAppend(b *testing.B) {
	for _, flush := range []FlushMode{AsyncFlush, SyncFlush} {
		for _, outstanding := range []int{1, 64} {
			b.Run(fmt.Sprintf("flush=%v/size=1KiB/outstanding=%d", flush, outstanding), func(b *testing.B) {
				benchmarkAppend(b, Options{Flush: flush}, 1024, outstanding, 1)
			})
		}
	}
	b.Run("flush=async/size=1KiB/blocking", func(b *testing.B) { benchmarkBlocking(b, Options{}, 1024) })
	b.Run("topics=10000/flush=async/size=1KiB/outstanding=64", func(b *testing.B) {
		benchmarkAppend(b, Options{}, 1024, 64, 10000)
	})
}

func benchmarkAppend(b *testing.B, o Options, size, outstanding, topics int) {
	b.Helper()
	o.Dir = b.TempDir()
	s, err := Open(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.WaitPrepared(context.Background()); err != nil {
		b.Fatal(err)
	}
	pad := make([]byte, size+64<<10)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(pad) // never fails
	names := make([]string, topics)
	for i := range names {
		names[i] = fmt.Sprintf("Topic%05d", i)
	}
	ready := make(chan *Append, outstanding)
	var props message.Properties
	props = message.AppendProperty(props, message.PropUniqKey, "AC1100010A3618B4AAC2000000000000")
	id := props[len(props)-17:]
	m := message.Message{BornTimestamp: 1_700_000_000_000, BornHost: bornHost, StoreHost: storeHost, Properties: props}
	for range outstanding {
		a := &Append{Record: make([]byte, 0, size+256)}
		a.Done = func(a *Append) { ready <- a }
		ready <- a
	}
	batch := make([]*Append, 0, outstanding)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		batch = append(batch[:0], <-ready)
		for len(batch) < cap(batch) && n+len(batch) < b.N {
			select {
			case a := <-ready:
				batch = append(batch, a)
				continue
			default:
			}
			break
		}
		for i, a := range batch {
			seq := uint64(n + i)
			if a.Err != nil {
				b.Fatal(a.Err)
			}
			const hex = "0123456789ABCDEF"
			for k := range 16 {
				id[k] = hex[seq>>(4*(15-k))&15]
			}
			body := pad[seq*64%(64<<10):][:size]
			binary.BigEndian.PutUint64(body, seq)
			m.Topic, m.QueueID, m.Body = names[seq%uint64(topics)], int32(seq/uint64(topics)%8), body
			if a.Record, err = message.AppendRecord(a.Record[:0], &m); err != nil {
				b.Fatal(err)
			}
		}
		s.SubmitVector(batch)
		n += len(batch)
	}
	for range outstanding {
		<-ready
	}
	b.StopTimer()
	st := s.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	if st.Flushes > 0 {
		b.ReportMetric(float64(st.Records)/float64(st.Flushes), "msg/flush")
	}
	b.ReportMetric(float64(st.Records)/float64(max(st.Writes, 1)), "msg/write")
}

// benchmarkBlocking is one producer that waits for each ack.
func benchmarkBlocking(b *testing.B, o Options, size int) {
	b.Helper()
	o.Dir = b.TempDir()
	s, err := Open(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.WaitPrepared(context.Background()); err != nil {
		b.Fatal(err)
	}
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(body) // never fails
	m := message.Message{Topic: "Topic", BornTimestamp: 1_700_000_000_000, BornHost: bornHost, StoreHost: storeHost, Body: body}
	var rec []byte
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		binary.BigEndian.PutUint64(body, n)
		if rec, err = message.AppendRecord(rec[:0], &m); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Append(context.Background(), rec); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkOpen is the time until a store takes appends, new and empty or closed cleanly before.
func BenchmarkOpen(b *testing.B) {
	for _, fresh := range []bool{true, false} {
		b.Run(fmt.Sprintf("new=%v", fresh), func(b *testing.B) {
			dir := b.TempDir()
			for n := 0; b.Loop(); n++ {
				o := Options{Dir: dir}
				if fresh {
					o.Dir = fmt.Sprintf("%s/%d", dir, n)
				}
				s, err := Open(context.Background(), o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				if fresh {
					if err := os.RemoveAll(o.Dir); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRead is a read of 32 records of 1 KiB by queue offset, from memory and from a file in the page
// cache.
func BenchmarkRead(b *testing.B) {
	const records, count = 4096, 32
	for _, where := range []string{"memory", "file"} {
		b.Run(where, func(b *testing.B) {
			o := Options{Dir: b.TempDir(), SegmentBytes: 64 << 20}
			s, err := Open(context.Background(), o)
			if err != nil {
				b.Fatal(err)
			}
			body := make([]byte, 1024)
			for range records {
				if _, err := s.Append(context.Background(), record("Topic", 0, body, "k")); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.WaitDispatchedPos(context.Background(), s.Max()); err != nil {
				b.Fatal(err)
			}
			if where == "file" {
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				if s, err = Open(context.Background(), o); err != nil {
					b.Fatal(err)
				}
			}
			defer s.Close()
			var r ReadResult
			q := ReadQuery{Topic: "Topic", MaxCount: count, MaxBytes: 1 << 20}
			b.SetBytes(count * 1024)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Read(&r, &q); err != nil || r.Count() != count {
					b.Fatal(err, r.Count())
				}
				r.Release()
				q.Offset = (q.Offset + 7*count) % (records - count)
			}
		})
	}
}
