package protocol

import (
	"fmt"
	"testing"
)

// BenchmarkParseSend is the broker's side of a message of 1 KiB: its frame and header.
func BenchmarkParseSend(b *testing.B) {
	for _, s := range []Serialize{JSON, Binary} {
		b.Run(s.String(), func(b *testing.B) {
			send, _ := hot(s)
			var c Command
			var h SendHeader
			b.ReportAllocs()
			b.SetBytes(int64(len(send)))
			for b.Loop() {
				if ParseCommand(send[4:], &c) != nil || ParseSendHeader(&c, &h) != nil {
					b.Fatal("a send")
				}
			}
		})
	}
}

// BenchmarkAppendSendResponse is the answer to it.
func BenchmarkAppendSendResponse(b *testing.B) {
	for _, s := range []Serialize{JSON, Binary} {
		b.Run(s.String(), func(b *testing.B) {
			h := SendResponse{MsgID: []byte("0A00000100002A9F0000000000001234"), QueueID: 3, QueueOffset: 1 << 30, TransactionID: []byte("0A0000010000000000000000000000FF")}
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendSendResponse(dst[:0], 7, s, ResponseSuccess, "", &h)
			}
		})
	}
}

// BenchmarkAppendSendRequest is the client's side of a message.
func BenchmarkAppendSendRequest(b *testing.B) {
	for _, s := range []Serialize{JSON, Binary} {
		b.Run(s.String(), func(b *testing.B) {
			send, _ := hot(s)
			var c Command
			var h SendHeader
			if ParseCommand(send[4:], &c) != nil || ParseSendHeader(&c, &h) != nil {
				b.Fatal("a send")
			}
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendSendRequest(dst[:0], RequestSendMessageV2, 7, 0, s, &h, 1024)
			}
		})
	}
}

// BenchmarkParsePull is the broker's side of a pull.
func BenchmarkParsePull(b *testing.B) {
	for _, s := range []Serialize{JSON, Binary} {
		b.Run(s.String(), func(b *testing.B) {
			_, pull := hot(s)
			var c Command
			var h PullHeader
			b.ReportAllocs()
			for b.Loop() {
				if ParseCommand(pull[4:], &c) != nil || ParsePullHeader(&c, &h) != nil {
					b.Fatal("a pull")
				}
			}
		})
	}
}

// BenchmarkRegistration is a registration of ten thousand topics, written and read.
func BenchmarkRegistration(b *testing.B) {
	full := &RegisterBrokerBody{}
	full.TopicConfigSerializeWrapper.TopicConfigTable = map[string]*TopicConfig{}
	for i := range 10_000 {
		c := NewTopicConfig(fmt.Sprintf("topic-%05d", i), 8)
		full.TopicConfigSerializeWrapper.TopicConfigTable[c.TopicName] = c
	}
	for name, packed := range map[string]bool{"plain": false, "packed": true} {
		body, err := EncodeRegisterBroker(full, packed)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("encode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := EncodeRegisterBroker(full, packed); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRegisterBroker(body, Version, packed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
