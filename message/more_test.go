package message

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Readers take properties with and without the last separator, skip what has no name or no value,
// and find the first of two equal names.
func TestProperties(t *testing.T) {
	for _, p := range []Properties{
		Properties("KEYS\x01a b\x02TAGS\x01TagA\x02UNIQ_KEY\x01u\x02DELAY\x013\x02"),
		Properties("KEYS\x01a b\x02TAGS\x01TagA\x02UNIQ_KEY\x01u\x02DELAY\x013"),
		Properties("\x01x\x02nonsense\x02E\x01\x02KEYS\x01a b\x02TAGS\x01TagA\x02\x02UNIQ_KEY\x01u\x02DELAY\x013"),
	} {
		uniq, keys, tags := p.Scan()
		require.Equal(t, []string{"u", "a b", "TagA"}, []string{string(uniq), string(keys), string(tags)})
		require.Equal(t, "a b", string(p.Get(PropKeys)))
		require.Equal(t, 3, p.DelayLevel())
		require.Nil(t, p.Get("KEY"))
		require.Nil(t, p.Get("nonsense"))
		names := ""
		p.Each(func(n, _ []byte) bool { names += string(n) + " "; return true })
		require.Equal(t, "KEYS TAGS UNIQ_KEY DELAY ", names)
	}
	require.Equal(t, "a b\x01c", string(Properties("KEYS\x01a b\x01c\x02").Get("KEYS")), "only the first separator ends the name")
	require.Zero(t, Properties("DELAY\x01x\x02").DelayLevel())
	require.Zero(t, Properties("DELAY\x01-1\x02").DelayLevel())
	require.Zero(t, Properties(nil).DelayLevel())
}

// Tag hashes are Java's, beyond ASCII and beyond the basic plane too.
func TestTagHash(t *testing.T) {
	for text, want := range map[string]int64{
		"TagA": 2598919, "TagB": 2598920, "*": 42, "订单": 1129459, "😀": 1772899, "ck": 3176, "ack": 96393,
		"bAck": 2985159, "d": 100, "": 0, "polygenelubricants": math.MinInt32,
	} {
		require.Equal(t, want, TagHash([]byte(text)), text)
	}
}

// Ids come out as the original prints them and parse back; what is none is refused.
func TestID(t *testing.T) {
	id := ID{netip.MustParseAddrPort("10.0.0.2:10911"), 4096}
	require.Equal(t, "0A00000200002A9F0000000000001000", id.String())
	v6 := ID{netip.MustParseAddrPort("[2001:db8::7]:10911"), math.MaxInt64}
	require.Equal(t, "20010DB800000000000000000000000700002A9F7FFFFFFFFFFFFFFF", v6.String())
	for _, want := range []ID{id, v6} {
		got, err := ParseID(want.String())
		require.NoError(t, err)
		require.Equal(t, want, got)
		got, err = ParseID(strings.ToLower(want.String()))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "0A00000200002A9F000000000000100", "0A00000200002A9F000000000000100X", "0A00000200012A9F0000000000001000", "0A00000200002A9F8000000000001000"} {
		_, err := ParseID(bad)
		require.ErrorIs(t, err, ErrID, bad)
	}
	require.Empty(t, ID{}.String())
	m := sample()
	var r Record
	require.NoError(t, ParseRecord(encode(t, &m, 5, 4096, 1), &r))
	require.Equal(t, id, r.ID())
}

// Each item of a batch becomes its own record with the batch's properties behind its own; hosts,
// queue and flags are the batch's.
func TestBatch(t *testing.T) {
	outer := sample()
	outer.PreparedTransactionOffset = 9
	var items []byte
	for i, p := range []string{"", "A\x01b", "A\x01b\x02"} {
		var err error
		items, err = AppendBatchItem(items, int32(i), bytes.Repeat([]byte{'x'}, i), Properties(p))
		require.NoError(t, err)
	}
	b, n, err := AppendBatchRecords([]byte("before"), &outer, items)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	b, ok := bytes.CutPrefix(b, []byte("before"))
	require.True(t, ok)
	for i, props := range []string{"TAGS\x01TagA\x02", "A\x01b\x02TAGS\x01TagA\x02", "A\x01b\x02TAGS\x01TagA\x02"} {
		var r Record
		require.NoError(t, ParseRecord(b, &r))
		require.NoError(t, r.CheckCRC())
		require.Equal(t, props, string(r.Properties))
		require.Equal(t, []int64{int64(i), int64(i), 3, 0}, []int64{int64(r.Flag), int64(len(r.Body)), int64(r.QueueID), r.PreparedTransactionOffset})
		require.Equal(t, outer.StoreHost, Host(r.StoreHost))
		b = b[r.Size:]
	}
	require.Empty(t, b)
}

// A batch that is damaged, empty, delayed or transactional is refused as a whole with the item named.
func TestBatchErrors(t *testing.T) {
	outer := sample()
	good, err := AppendBatchItem(nil, 0, []byte("x"), Properties("A\x01b"))
	require.NoError(t, err)
	two := append(bytes.Clone(good), good...)
	delayed := outer
	delayed.Properties = Properties("DELAY\x011")
	half := outer
	half.SysFlag = FlagPrepared
	noHost := outer
	noHost.StoreHost = netip.AddrPort{}
	late, err := AppendBatchItem(bytes.Clone(good), 0, nil, Properties("DELAY\x011"))
	require.NoError(t, err)
	wrong := bytes.Clone(two)
	wrong[len(good)+3]--
	long := outer
	long.Properties = make(Properties, MaxPropertiesBytes-2)
	for want, c := range map[string]struct {
		m     *Message
		items []byte
	}{
		"message batch: it is empty: send at least one message":                                             {&outer, nil},
		"message batch, item 1: it is cut short":                                                            {&outer, two[:len(two)-1]},
		"message batch, item 1: its size is not the sum of its parts":                                       {&outer, wrong},
		"message batch, item 1: it has a delay level: send it alone":                                        {&outer, late},
		"message batch: a batch cannot be delayed: send the messages one by one":                            {&delayed, good},
		"message batch: a batch takes no part in a transaction: send the messages one by one":               {&half, good},
		"message batch, item 0: " + ErrHost.Error():                                                         {&noHost, good},
		"message batch, item 0: properties has 32769 bytes, the limit is 32767: send fewer or shorter ones": {&long, good},
	} {
		b, n, err := AppendBatchRecords([]byte("before"), c.m, c.items)
		var batch *BatchError
		require.ErrorAs(t, err, &batch)
		require.EqualError(t, err, want)
		require.Equal(t, "before", string(b))
		require.Zero(t, n)
	}
}

// Transaction and compression types are read out of the flags they share bits with.
func TestSysFlag(t *testing.T) {
	for f, consumes := range map[SysFlag]bool{0: true, FlagPrepared: false, FlagCommit: true, FlagRollback: false, FlagCompressed | FlagCommit: true} {
		require.Equal(t, consumes, f.ConsumesOffset(), "%#x", f)
	}
	require.Equal(t, FlagRollback, (FlagRollback | FlagCompressed).Transaction())
	require.Equal(t, FlagZlib, (FlagZlib | FlagCompressed | FlagCommit).Compression())
	require.True(t, FlagRollback.Has(FlagCommit))
	require.False(t, FlagCommit.Has(FlagRollback))
}

// Whatever properties are joined out of pairs, each pair is found again, in order.
func TestPropertiesRoundTrip(t *testing.T) {
	text := rapid.StringMatching(`[^\x01\x02]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		var p Properties
		var want []string
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			n, v := text.Draw(t, "name"), text.Draw(t, "value")
			p = AppendProperty(p, n, v)
			want = append(want, n+"="+v)
		}
		if len(p) > 0 && rapid.Bool().Draw(t, "open") {
			p = p[:len(p)-1]
		}
		var got []string
		p.Each(func(n, v []byte) bool { got = append(got, string(n)+"="+string(v)); return true })
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// Parsing any bytes gives a record or a typed error, never a panic, and a record that parses is the
// record that its parts encode to.
func FuzzParseRecord(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b)
	}
	blank := make([]byte, 16)
	PutBlank(blank, 16)
	f.Add(blank)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		err := ParseRecord(b, &r)
		h, perr := Peek(b)
		if err != nil {
			known := false
			for _, want := range []error{ErrShort, ErrBlank, ErrBadMagic, ErrLength} {
				known = known || err == want //nolint:errorlint // sentinels come unwrapped
			}
			if !known {
				t.Fatalf("unknown error %v", err)
			}
			if perr == nil {
				t.Fatalf("Peek accepts what ParseRecord refuses: %v", err)
			}
			return
		}
		if perr != nil || h.Size != int(r.Size) || !bytes.Equal(h.Topic, r.Topic) || h.QueueID != r.QueueID {
			t.Fatalf("Peek says %+v, %v", h, perr)
		}
		r.Properties.Scan()
		r.Properties.Each(func(_, _ []byte) bool { return true })
		crc := r.CheckCRC()
		m := Message{
			Topic: string(r.Topic), QueueID: r.QueueID, Flag: r.Flag, SysFlag: r.SysFlag, BornTimestamp: r.BornTimestamp,
			BornHost: Host(r.BornHost), StoreHost: Host(r.StoreHost), ReconsumeTimes: r.ReconsumeTimes,
			PreparedTransactionOffset: r.PreparedTransactionOffset, Body: r.Body, Properties: r.Properties, V2: r.Magic == MagicV2,
		}
		ports := r.BornHost[len(r.BornHost)-4]|r.BornHost[len(r.BornHost)-3]|r.StoreHost[len(r.StoreHost)-4]|r.StoreHost[len(r.StoreHost)-3] != 0
		mapped := m.BornHost.Addr().Is4In6() || m.StoreHost.Addr().Is4In6()
		if crc != nil || ports || mapped || len(r.Topic) > 255 || r.Magic == MagicV2 && len(r.Topic) <= 127 {
			return // not what an encoder writes
		}
		again, err := AppendRecord(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		StampRecord(again, r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp)
		if !bytes.Equal(again, b[:r.Size]) {
			t.Fatalf("encodes to\n%x\nwas\n%x", again, b[:r.Size])
		}
	})
}

// Expanding any bytes as a batch gives records that parse, or a typed error and nothing.
func FuzzBatch(f *testing.F) {
	item, _ := AppendBatchItem(nil, 1, []byte("body"), Properties("A\x01b"))
	f.Add(append(bytes.Clone(item), item...))
	f.Add([]byte{0, 0, 0, 22})
	m := sample()
	f.Fuzz(func(t *testing.T, items []byte) {
		b, n, err := AppendBatchRecords(nil, &m, items)
		if err != nil && (len(b) > 0 || n > 0) {
			t.Fatalf("%v, and still %d records", err, n)
		}
		for ; n > 0; n-- {
			var r Record
			if err := ParseRecord(b, &r); err != nil {
				t.Fatal(err)
			}
			if err := r.CheckCRC(); err != nil {
				t.Fatal(err)
			}
			b = b[r.Size:]
		}
		if len(b) > 0 {
			t.Fatalf("%d bytes behind the last record", len(b))
		}
	})
}

// An id that parses prints as what was parsed.
func FuzzParseID(f *testing.F) {
	f.Add("0A00000200002A9F0000000000001000")
	f.Add("20010DB800000000000000000000000700002A9F7FFFFFFFFFFFFFFF")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err == nil && !strings.EqualFold(id.String(), text) {
			t.Fatalf("%q prints as %q", text, id)
		}
	})
}

func benchRecord(b *testing.B, body int, slot bool) (Message, []byte) {
	b.Helper()
	m := sample()
	m.Body = bytes.Repeat([]byte("x"), body)
	m.Properties = AppendProperty(m.Properties, PropUniqKey, "0A0000011E4B18B4AAC2000000000000")
	m.CRCSlot = slot
	rec := encode(b, &m, 1, 2, 3)
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	return m, rec
}

func BenchmarkAppendRecord(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"128B", 128}, {"1KiB", 1024}, {"64KiB", 64 << 10}} {
		b.Run(size.name, func(b *testing.B) {
			m, rec := benchRecord(b, size.n, false)
			for b.Loop() {
				rec, _ = AppendRecord(rec[:0], &m)
			}
		})
	}
}

func BenchmarkStampRecord(b *testing.B) {
	for name, slot := range map[string]bool{"plain": false, "crc": true} {
		b.Run(name, func(b *testing.B) {
			_, rec := benchRecord(b, 1024, slot)
			for b.Loop() {
				StampRecord(rec, 1, 2, 3)
			}
		})
	}
}

func BenchmarkParseRecord(b *testing.B) {
	_, rec := benchRecord(b, 1024, false)
	var r Record
	for b.Loop() {
		if ParseRecord(rec, &r) != nil {
			b.Fatal("no record")
		}
	}
}

func BenchmarkPeek(b *testing.B) {
	_, rec := benchRecord(b, 1024, false)
	for b.Loop() {
		if _, err := Peek(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanProperties(b *testing.B) {
	m, _ := benchRecord(b, 1024, false)
	for b.Loop() {
		m.Properties.Scan()
	}
}

func BenchmarkCheckCRC(b *testing.B) {
	_, rec := benchRecord(b, 1024, false)
	var r Record
	_ = ParseRecord(rec, &r)
	for b.Loop() {
		if err := r.CheckCRC(); err != nil {
			b.Fatal(err)
		}
	}
}

// Properties are taken out by name, whatever their values, and what is left can be added to.
func TestAppendPropertiesWithout(t *testing.T) {
	var p Properties
	for _, kv := range [][2]string{{"A", "1"}, {"DELAY", "3"}, {"B", "DELAY"}, {"DELAY", "4"}} {
		p = AppendProperty(p, kv[0], kv[1])
	}
	open := p[:len(p)-1] // producers may leave the last end out
	for _, in := range []Properties{p, open} {
		got := AppendPropertiesWithout(Properties(nil), in, "DELAY", "C")
		require.Equal(t, AppendProperty(AppendProperty(Properties(nil), "A", "1"), "B", "DELAY"), got)
	}
	require.Equal(t, p, AppendPropertiesWithout(Properties(nil), open))
}
