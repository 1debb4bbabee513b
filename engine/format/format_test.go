package format

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// Entries have the bytes of org.apache.rocketmq.store.ConsumeQueue, and the filler its own.
func TestCQEntry(t *testing.T) {
	e := CQEntry{Offset: 4096, Size: 124, TagsHash: 2598919}
	golden := unhex(t, "00000000000010000000007c000000000027a807")
	require.Equal(t, golden, AppendCQEntry(nil, e))
	got, err := ParseCQEntry(golden)
	require.NoError(t, err)
	require.Equal(t, e, got)
	require.Equal(t, unhex(t, "00000000000000007fffffff0000000000000000"), AppendCQEntry(nil, CQFiller))
	require.True(t, CQFiller.IsFiller())
	require.True(t, CQFiller.Valid())
	require.False(t, e.IsFiller())
	require.False(t, CQEntry{}.Valid(), "unused slots are zeros")
	require.False(t, CQEntry{Offset: -1, Size: 1}.Valid())
	_, err = ParseCQEntry(golden[:19])
	require.ErrorIs(t, err, ErrFormat)
	require.EqualError(t, err, "consume-queue entry of 19 bytes, want 20: malformed")
	neg := CQEntry{Offset: math.MaxInt64, Size: math.MaxInt32, TagsHash: math.MinInt32}
	got, err = ParseCQEntry(AppendCQEntry(nil, neg))
	require.NoError(t, err)
	require.Equal(t, neg, got)
}

// Header and entry of an index file have the bytes of org.apache.rocketmq.store.index; a count below
// one reads as one.
func TestIndex(t *testing.T) {
	h := IndexHeader{BeginTime: 1700000000123, EndTime: 1700000001123, BeginOffset: 4096, EndOffset: 8192, UsedSlots: 2, Count: 4}
	golden := unhex(t, "0000018bcfe5687b0000018bcfe56c63000000000000100000000000000020000000000200000004")
	require.Equal(t, golden, AppendIndexHeader(nil, h))
	got, err := ParseIndexHeader(golden)
	require.NoError(t, err)
	require.Equal(t, h, got)
	got, err = ParseIndexHeader(make([]byte, 40))
	require.NoError(t, err)
	require.EqualValues(t, 1, got.Count)
	_, err = ParseIndexHeader(golden[:39])
	require.ErrorIs(t, err, ErrFormat)

	e := IndexEntry{Hash: 1656937772, Offset: 4096, SecondsDiff: 1, Prev: 3}
	golden = unhex(t, "62c2dd2c00000000000010000000000100000003")
	require.Equal(t, golden, AppendIndexEntry(nil, e))
	ge, err := ParseIndexEntry(golden)
	require.NoError(t, err)
	require.Equal(t, e, ge)
	_, err = ParseIndexEntry(golden[:19])
	require.ErrorIs(t, err, ErrFormat)
	require.EqualValues(t, 420000040, IndexFileBytes(5_000_000, 20_000_000))
}

// Index hashes are the original's, the one without a positive counterpart included.
func TestIndexHash(t *testing.T) {
	for _, c := range []struct {
		topic, key string
		hash, slot int32
	}{
		{"TopicTest", "Key1", 1656937772, 1937772},
		{"TopicTest", "AC1100011234", 507201913, 2201913},
		{"T", "Aa", 2538191, 2538191},
		{"T", "BB", 2538191, 2538191},
		{"TopicA", "键😀", 1167451168, 2451168},
	} {
		h := IndexHash([]byte(c.topic), []byte(c.key))
		require.Equal(t, c.hash, h, c.key)
		require.Equal(t, c.slot, h%5_000_000, c.key)
	}
	require.EqualValues(t, 0, abs(math.MinInt32))
	require.EqualValues(t, math.MaxInt32, abs(-math.MaxInt32))
}

// A checkpoint is one page whose first five numbers count; forty bytes of it suffice.
func TestCheckpoint(t *testing.T) {
	p := CheckpointPage{Physic: 1, Logics: 2, Index: 3, MasterFlushed: 4, Confirm: math.MaxInt64}
	b := AppendCheckpointPage([]byte("x"), p)
	require.Len(t, b, 1+CheckpointBytes)
	b = b[1:]
	require.Equal(t, "00000000000000010000000000000002000000000000000300000000000000047fffffffffffffff", hex.EncodeToString(b[:40]))
	require.Equal(t, make([]byte, CheckpointBytes-40), b[40:])
	got, err := ParseCheckpointPage(b[:40])
	require.NoError(t, err)
	require.Equal(t, p, got)
	_, err = ParseCheckpointPage(b[:39])
	require.ErrorIs(t, err, ErrFormat)
}

// Names of files and the offsets in them go both ways; what is no name of that shape is refused.
func TestFileName(t *testing.T) {
	for name, off := range map[string]int64{"00000000000000000000": 0, "00000000001073741824": 1 << 30, "09223372036854775807": math.MaxInt64} {
		require.Equal(t, name, FileName(off))
		got, err := ParseFileName(name)
		require.NoError(t, err)
		require.Equal(t, off, got)
	}
	for _, bad := range []string{"", "0", "0000000000000000000", "000000000000000000000", "0000000000000000000x", "-0000000000000000001", "09223372036854775808", "99999999999999999999", "00000000001073741824.tmp"} {
		_, err := ParseFileName(bad)
		require.ErrorIs(t, err, ErrFormat, bad)
	}
}

// Decoding any bytes never panics, gives a typed error for short ones, and encodes back to the same.
func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, 40))
	f.Add(AppendCQEntry(nil, CQFiller))
	f.Add(AppendCheckpointPage(nil, CheckpointPage{Physic: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, n int, err error, again []byte) {
			switch {
			case len(b) < n:
				require.ErrorIs(t, err, ErrFormat, what)
			case err != nil:
				t.Fatalf("%s: %v", what, err)
			case !bytes.Equal(again[:n], b[:n]):
				t.Fatalf("%s encodes to %x, was %x", what, again[:n], b[:n])
			}
		}
		e, err := ParseCQEntry(b)
		same("queue entry", CQEntryBytes, err, AppendCQEntry(nil, e))
		x, err := ParseIndexEntry(b)
		same("index entry", IndexEntryBytes, err, AppendIndexEntry(nil, x))
		p, err := ParseCheckpointPage(b)
		same("checkpoint", 40, err, AppendCheckpointPage(nil, p))
		h, err := ParseIndexHeader(b)
		if h.Count > 1 {
			same("index header", IndexHeaderBytes, err, AppendIndexHeader(nil, h))
		}
	})
}

// A file name that parses is the one that its offset gets.
func FuzzFileName(f *testing.F) {
	f.Add("00000000001073741824")
	f.Fuzz(func(t *testing.T, name string) {
		if n, err := ParseFileName(name); err == nil && FileName(n) != name {
			t.Fatalf("%q gives %d, which is %q", name, n, FileName(n))
		}
	})
}

func BenchmarkAppendCQEntry(b *testing.B) {
	buf := make([]byte, 0, CQEntryBytes)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendCQEntry(buf[:0], CQEntry{4096, 124, 2598919})
	}
}

func BenchmarkParseCQEntry(b *testing.B) {
	buf := AppendCQEntry(nil, CQFiller)
	b.ReportAllocs()
	for b.Loop() {
		if e, _ := ParseCQEntry(buf); !e.IsFiller() {
			b.Fatal("another entry")
		}
	}
}

func BenchmarkIndexHash(b *testing.B) {
	topic, key := []byte("TopicTest"), []byte("0A0000011E4B18B4AAC2000000000000")
	b.ReportAllocs()
	for b.Loop() {
		IndexHash(topic, key)
	}
}
