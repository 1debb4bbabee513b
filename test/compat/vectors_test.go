package compat

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/message"
)

// TestVectors proves that hashes, checksums, a record and a message id come out as the Apache
// classes compute them, in both release lines.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "vectors-*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			f, err := os.Open(name)
			require.NoError(t, err)
			defer f.Close()
			seen := map[string]int{}
			for lines := bufio.NewScanner(f); lines.Scan(); {
				var v vector
				require.NoError(t, json.Unmarshal(lines.Bytes(), &v))
				v.check(t)
				seen[v.Kind]++
			}
			for _, kind := range []string{"tag", "index", "crc", "record", "id"} {
				require.NotZero(t, seen[kind], kind)
			}
		})
	}
}

type vector struct {
	Kind, Text, Hex string
	Hash            int64
	CRC             uint32
}

func (v vector) check(t *testing.T) {
	t.Helper()
	switch v.Kind {
	case "tag":
		require.Equal(t, v.Hash, message.TagHash([]byte(v.Text)), "tag %q", v.Text)
	case "index":
		topic, key, ok := strings.Cut(v.Text, "#")
		if ok {
			require.Equal(t, int32(v.Hash), format.IndexHash([]byte(topic), []byte(key)), "key %q", v.Text)
		}
	case "crc":
		require.Equal(t, v.CRC, message.BodyCRC([]byte(v.Text)), "body %q", v.Text)
	case "record":
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		require.Equal(t, v.CRC, crc32.ChecksumIEEE(raw)&(1<<31-1))
		checkRecord(t, raw)
	case "id":
		require.Equal(t, "0A00000200002A9F0000000000001000", v.Text)
	case "crcProperty":
		// the digits of a checksum stand last one first
		var want []byte
		for c := v.CRC; len(want) < 10; c /= 10 {
			want = append(want, '0'+byte(c%10))
		}
		require.Equal(t, message.PropCRC+"\x01"+string(want)+"\x02", v.Text)
	}
}

// checkRecord takes the record apart, compares it with the values that the harness put in, and
// encodes it again.
func checkRecord(t *testing.T, raw []byte) {
	t.Helper()
	var r message.Record
	require.NoError(t, message.ParseRecord(raw, &r))
	require.NoError(t, r.CheckCRC())
	require.EqualValues(t, len(raw), r.Size)
	require.EqualValues(t, 3, r.QueueID)
	require.EqualValues(t, 5, r.QueueOffset)
	require.EqualValues(t, 4096, r.PhysicalOffset)
	require.EqualValues(t, 1700000000000, r.BornTimestamp)
	require.EqualValues(t, 1700000000123, r.StoreTimestamp)
	require.Equal(t, "10.0.0.1:54321", message.Host(r.BornHost).String())
	require.Equal(t, "10.0.0.2:10911", message.Host(r.StoreHost).String())
	require.Equal(t, "Hello RocketMQ", string(r.Body))
	require.Equal(t, "TopicTest", string(r.Topic))
	require.Equal(t, "TagA", string(r.Properties.Get(message.PropTags)))

	again, err := message.AppendRecord(nil, &message.Message{
		Topic: string(r.Topic), QueueID: r.QueueID, Flag: r.Flag, SysFlag: r.SysFlag, BornTimestamp: r.BornTimestamp,
		BornHost: message.Host(r.BornHost), StoreHost: message.Host(r.StoreHost), ReconsumeTimes: r.ReconsumeTimes,
		PreparedTransactionOffset: r.PreparedTransactionOffset, Body: r.Body, Properties: r.Properties,
	})
	require.NoError(t, err)
	message.StampRecord(again, r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp)
	require.Equal(t, raw, again)
}

// TestGoldenRecords proves that every record in the logs which Apache wrote parses, passes its
// checksums, stands at its own offset, and comes out of our encoder byte for byte.
func TestGoldenRecords(t *testing.T) {
	for _, g := range Goldens {
		t.Run(g.Name, func(t *testing.T) {
			segments, err := filepath.Glob(filepath.Join(g.Dir(), "commitlog", "*"))
			require.NoError(t, err)
			count, v2, slots := 0, 0, 0
			for _, name := range segments {
				start, err := format.ParseFileName(filepath.Base(name))
				require.NoError(t, err)
				b, err := os.ReadFile(name)
				require.NoError(t, err)
				require.Len(t, b, int(g.Sizes.Segment))
				for pos := 0; ; {
					var r message.Record
					err := message.ParseRecord(b[pos:], &r)
					if err != nil {
						require.True(t, errors.Is(err, message.ErrBlank) || errors.Is(err, message.ErrBadMagic) && allZero(b[pos:]), "%s at %d: %v", name, pos, err)
						break
					}
					require.NoError(t, r.CheckCRC())
					require.Equal(t, start+int64(pos), r.PhysicalOffset)
					m := message.Message{
						Topic: string(r.Topic), QueueID: r.QueueID, Flag: r.Flag, SysFlag: r.SysFlag, BornTimestamp: r.BornTimestamp,
						BornHost: message.Host(r.BornHost), StoreHost: message.Host(r.StoreHost), ReconsumeTimes: r.ReconsumeTimes,
						PreparedTransactionOffset: r.PreparedTransactionOffset, Body: r.Body, Properties: r.Properties,
						V2: r.Magic == message.MagicV2,
					}
					if i := strings.Index(string(r.Properties), message.PropCRC); i >= 0 {
						m.Properties, m.CRCSlot = r.Properties[:i], true
						slots++
					}
					if m.V2 {
						v2++
					}
					again, err := message.AppendRecord(nil, &m)
					require.NoError(t, err)
					message.StampRecord(again, r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp)
					require.Equal(t, b[pos:pos+int(r.Size)], again)
					pos += int(r.Size)
					count++
				}
			}
			require.Greater(t, count, 300)
			if g.PropCRC {
				require.Equal(t, count, slots)
				require.NotZero(t, v2)
			}
		})
	}
}

func allZero(b []byte) bool { return len(strings.TrimLeft(string(b), "\x00")) == 0 }
