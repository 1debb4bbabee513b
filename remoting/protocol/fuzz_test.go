package protocol

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func seedFrames(f *testing.F) {
	for _, client := range clients {
		for _, s := range samples(f, client) {
			if s.Frame != "" {
				f.Add(s.bytes(f)[4:])
			}
		}
	}
}

// Parsing any bytes never panics; what parses is written so that it parses to the same, and the JSON form of it is standard JSON.
func FuzzParseCommand(f *testing.F) {
	seedFrames(f)
	f.Add(frame(JSON, `{"extFields":{"a":"\ud800\u0000","b":{"c":[]}},"remark":"\xff","code":"7"}`, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, d Command
		if ParseCommand(b, &c) != nil {
			return
		}
		var sh SendHeader
		var ph PullHeader
		_, _ = ParseSendHeader(&c, &sh), ParsePullHeader(&c, &ph)
		out := AppendCommand(nil, &c)
		if n, err := FrameBytes(out); err != nil || n != len(out) {
			if len(out) > MaxFrameBytes {
				return
			}
			t.Fatalf("%d of %d bytes, %v", n, len(out), err)
		}
		if err := ParseCommand(out[4:], &d); err != nil {
			t.Fatalf("%q from %q: %v", out, b, err)
		}
		again := AppendCommand(nil, &d)
		if !bytes.Equal(out, again) {
			t.Fatalf("%q, then %q", out, again)
		}
		if c.Serialize == Binary && !c.Equal(&d) {
			t.Fatalf("%+v, then %+v", c, d)
		}
		if !c.Equal(c.Clone()) {
			t.Fatal("the clone differs")
		}
		if d.Serialize == JSON {
			head := out[8 : len(out)-len(d.Body)]
			if !json.Valid(head) || !utf8.Valid(head) {
				t.Fatalf("no JSON: %q", head)
			}
		}
	})
}

// The header fields of any command survive both encodings, JSON ones as far as they are UTF-8.
func FuzzFields(f *testing.F) {
	f.Add(int32(10), int32(7), "remark", "key", "value\x01\x02", []byte("body"))
	f.Add(int32(-1), int32(-1), "\"\\\u2028", "", "😀", []byte(nil))
	f.Fuzz(func(t *testing.T, code, opaque int32, remark, key, value string, body []byte) {
		if len(remark)+len(key)+len(value)+len(body) > 1<<16 || len(key) > 30_000 {
			return
		}
		for _, s := range []Serialize{JSON, Binary} {
			c := &Command{Code: code, Opaque: opaque, Language: Go, Version: Version, Flag: 1, Serialize: s}
			c.SetRemark(remark)
			c.Add(key, value)
			c.AddInt("n", int64(code))
			if len(body) > 0 {
				c.Body = body
			}
			var d Command
			out := AppendCommand(nil, c)
			if err := ParseCommand(out[4:], &d); err != nil {
				t.Fatal(err)
			}
			if s == JSON && (!utf8.ValidString(remark) || !utf8.ValidString(key) || !utf8.ValidString(value)) {
				continue
			}
			if d.Serialize = s; !c.Equal(&d) {
				t.Fatalf("%+v, then %+v", c, &d)
			}
		}
	})
}

// A send header of any values survives both versions and both encodings.
func FuzzSendHeader(f *testing.F) {
	f.Add("PG", "T", goldenProps, int32(4), int64(1700000000123), true)
	f.Fuzz(func(t *testing.T, group, topic, props string, n int32, born int64, yes bool) {
		if !utf8.ValidString(group) || !utf8.ValidString(topic) || !utf8.ValidString(props) {
			return
		}
		want := SendHeader{ProducerGroup: []byte(group), Topic: []byte(topic), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: n, QueueID: n,
			SysFlag: n, BornMillis: born, Flag: n, Properties: []byte(props), ReconsumeTimes: n, UnitMode: yes, Batch: !yes, HasMaxReconsume: yes}
		if yes {
			want.MaxReconsumeTimes = n
		}
		for _, code := range []RequestCode{RequestSendMessage, RequestSendMessageV2} {
			for _, s := range []Serialize{JSON, Binary} {
				var c Command
				var got SendHeader
				if err := ParseCommand(AppendSendRequest(nil, code, 1, 0, s, &want, 0)[4:], &c); err != nil {
					t.Fatal(err)
				}
				if err := ParseSendHeader(&c, &got); err != nil {
					t.Fatal(err)
				}
				if string(got.Properties) != props || string(got.Topic) != topic || string(got.ProducerGroup) != group || got.BornMillis != born ||
					got.QueueID != n || got.Batch == yes || got.MaxReconsumeTimes != want.MaxReconsumeTimes {
					t.Fatalf("%+v, want %+v", got, want)
				}
			}
		}
	})
}

// Decoding any body into any shape never panics, and what it gives is written so that it reads the same.
func FuzzDecodeBody(f *testing.F) {
	for _, client := range clients {
		for _, s := range samples(f, client) {
			if s.Body != "" {
				f.Add([]byte(s.Body))
			}
		}
	}
	f.Add([]byte(`{"offsetTable":{{"$ref":"$.offsetTable.null"}:1}}`))
	f.Add([]byte(`{"a":{"$ref":"$.b"},"b":{"$ref":"$.a"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{&TopicConfigWrapper{}, &ConsumerStatusBody{}, &HeartbeatData{}, &ConsumerRunningInfo{}, &TopicRouteData{}, &ConsumerOffsetWrapper{}} {
			if DecodeBody(b, v) != nil {
				continue
			}
			out := EncodeBody(v)
			if !utf8.Valid(out) {
				t.Fatalf("no UTF-8: %q", out)
			}
			if err := DecodeBody(out, v); err != nil {
				t.Fatalf("%q from %q: %v", out, b, err)
			}
			if again := EncodeBody(v); !bytes.Equal(out, again) {
				t.Fatalf("%q, then %q", out, again)
			}
		}
	})
}

// Registrations of any bytes never panic.
func FuzzDecodeRegisterBroker(f *testing.F) {
	for _, client := range clients {
		c := command(f, samples(f, client), "REGISTER_BROKER compressed/JSON")
		raw, err := Decompress(nil, c.Body, CompressionZlib, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, c.Version)
	}
	f.Fuzz(func(_ *testing.T, raw []byte, version int32) {
		b := &RegisterBrokerBody{}
		_ = b.decodeBlocks(raw, version)
	})
}
