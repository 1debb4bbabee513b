package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
)

// goldens reads testdata/records.txt.
func goldens(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/records.txt")
	require.NoError(t, err)
	all := map[string][]byte{}
	name := ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !strings.HasPrefix(line, " ") {
			name, line, _ = strings.Cut(line, " ")
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		require.NoError(t, err)
		all[name] = append(all[name], b...)
	}
	return all
}

func sample() Message {
	return Message{
		Topic: "TopicTest", QueueID: 3, BornTimestamp: 1700000000000,
		BornHost: netip.MustParseAddrPort("10.0.0.1:54321"), StoreHost: netip.MustParseAddrPort("10.0.0.2:10911"),
		Body: []byte("Hello RocketMQ"), Properties: AppendProperty(Properties(nil), PropTags, "TagA"),
	}
}

// encode makes the record of m, stamped.
func encode(t testing.TB, m *Message, queueOffset, pos, at int64) []byte {
	t.Helper()
	b, err := AppendRecord(nil, m)
	require.NoError(t, err)
	StampRecord(b, queueOffset, pos, at)
	return b
}

// The bytes that the original makes of a message are the bytes that we make of it, with and without
// the checksum property.
func TestRecordGolden(t *testing.T) {
	want := goldens(t)
	m := sample()
	require.Equal(t, hex.EncodeToString(want["v1"]), hex.EncodeToString(encode(t, &m, 5, 4096, 1700000000123)))
	require.Len(t, want["v1"], 124)
	m.CRCSlot = true
	require.Equal(t, hex.EncodeToString(want["v1crc"]), hex.EncodeToString(encode(t, &m, 5, 4096, 1700000000123)))
	require.Len(t, want["v1crc"], 144)
}

// Every field of a message comes back from its record: all kinds of hosts, both versions, empty and
// large parts; and the head that Peek reads agrees with the whole.
func TestRecordRoundTrip(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::7]:65535")
	base := sample()
	for name, change := range map[string]func(*Message){
		"plain":           func(*Message) {},
		"empty":           func(m *Message) { m.Body, m.Properties, m.Topic = nil, nil, "" },
		"born v6":         func(m *Message) { m.BornHost = v6 },
		"store v6":        func(m *Message) { m.StoreHost = v6 },
		"both v6":         func(m *Message) { m.BornHost, m.StoreHost = v6, v6 },
		"mapped":          func(m *Message) { m.BornHost = netip.MustParseAddrPort("[::ffff:10.0.0.1]:54321") },
		"stale host bits": func(m *Message) { m.SysFlag = FlagBornHostV6 | FlagStoreHostV6 },
		"v2":              func(m *Message) { m.Topic, m.V2 = strings.Repeat("t", 128), true },
		"v2 longest":      func(m *Message) { m.Topic, m.V2 = strings.Repeat("t", 255), true },
		"v1 longest":      func(m *Message) { m.Topic, m.V2 = strings.Repeat("t", 127), true },
		"numbers": func(m *Message) {
			m.QueueID, m.Flag, m.ReconsumeTimes = math.MaxInt32, math.MinInt32, 16
			m.PreparedTransactionOffset, m.SysFlag, m.BornTimestamp = math.MaxInt64, FlagCommit|FlagZstd|FlagCompressed, -1
		},
		"all properties": func(m *Message) { m.Properties = bytes.Repeat([]byte("p"), MaxPropertiesBytes) },
		"checksum":       func(m *Message) { m.CRCSlot = true },
		"checksum v6 v2": func(m *Message) {
			m.CRCSlot, m.BornHost, m.StoreHost, m.V2, m.Topic = true, v6, v6, true, strings.Repeat("主", 60)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := base
			change(&m)
			b := encode(t, &m, 7, 1<<40, 42)
			var r Record
			require.NoError(t, ParseRecord(append(b, "behind"...), &r))
			require.NoError(t, r.CheckCRC())
			require.EqualValues(t, len(b), r.Size)
			magic := MagicV1
			if len(m.Topic) > 127 {
				magic = MagicV2
			}
			require.Equal(t, magic, r.Magic)
			want := m
			want.BornHost, want.V2, want.CRCSlot = netip.AddrPortFrom(m.BornHost.Addr().Unmap(), m.BornHost.Port()), false, false
			got := Message{
				Topic: string(r.Topic), QueueID: r.QueueID, Flag: r.Flag, SysFlag: r.SysFlag &^ (FlagBornHostV6 | FlagStoreHostV6),
				BornTimestamp: r.BornTimestamp, BornHost: Host(r.BornHost), StoreHost: Host(r.StoreHost), ReconsumeTimes: r.ReconsumeTimes,
				PreparedTransactionOffset: r.PreparedTransactionOffset, Body: r.Body, Properties: r.Properties.without(PropCRC),
			}
			want.SysFlag &^= FlagBornHostV6 | FlagStoreHostV6
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("message came back different (-want +got):\n%s", diff)
			}
			require.Equal(t, []int64{7, 1 << 40, 42, 42}, []int64{r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp, StoreTime(b)})
			h, err := Peek(b)
			require.NoError(t, err)
			require.Equal(t, Head{Size: len(b), QueueID: r.QueueID, SysFlag: r.SysFlag, Topic: r.Topic}, h)
		})
	}
}

// What is above a limit is refused with the part, the limit and what to do, and dst stays as it was.
func TestRecordLimits(t *testing.T) {
	for _, c := range []struct {
		change func(*Message)
		want   string
	}{
		{func(m *Message) { m.Topic = strings.Repeat("t", 128) }, "topic has 128 bytes, the limit is 127: shorten it, or store V2 records"},
		{func(m *Message) { m.Topic, m.V2 = strings.Repeat("t", 256), true }, "topic has 256 bytes, the limit is 255: shorten it"},
		{func(m *Message) { m.Properties = make(Properties, 32768) }, "properties has 32768 bytes, the limit is 32767: send fewer or shorter ones"},
		{func(m *Message) { m.Properties, m.CRCSlot = bytes.Repeat([]byte("p"), 32747), true }, "properties has 32768 bytes, the limit is 32767: send fewer or shorter ones"},
	} {
		m := sample()
		c.change(&m)
		b, err := AppendRecord([]byte("before"), &m)
		var limit *LimitError
		require.ErrorAs(t, err, &limit)
		require.EqualError(t, err, c.want)
		require.Equal(t, "before", string(b))
	}
	for _, m := range []Message{{StoreHost: sample().StoreHost}, {BornHost: sample().BornHost}} {
		_, err := AppendRecord(nil, &m)
		require.ErrorIs(t, err, ErrHost)
	}
}

// A record cut at any byte, a blank, another magic and lengths that contradict each other are told
// apart by their errors, and nothing panics.
func TestParseErrors(t *testing.T) {
	m := sample()
	good := encode(t, &m, 5, 4096, 1)
	var r Record
	for n := range good {
		require.ErrorIs(t, ParseRecord(good[:n], &r), ErrShort, "cut at %d", n)
		_, err := Peek(good[:n])
		require.ErrorIs(t, err, ErrShort, "cut at %d", n)
	}
	blank := make([]byte, 100)
	PutBlank(blank, 100)
	require.Equal(t, "00000064cbd43194", hex.EncodeToString(blank[:8]))
	require.ErrorIs(t, ParseRecord(blank, &r), ErrBlank)
	require.EqualValues(t, 100, r.Size)
	PutBlank(blank, 7)
	require.ErrorIs(t, ParseRecord(blank, &r), ErrLength, "a blank has eight bytes at least")
	require.ErrorIs(t, ParseRecord(make([]byte, 100), &r), ErrBadMagic)
	for name, at := range map[string]struct {
		off  int
		b    []byte
		want error
	}{
		"size below the least": {0, []byte{0, 0, 0, 90}, ErrLength},
		"size negative":        {0, []byte{0xff, 0, 0, 0}, nil},
		"size one less":        {0, []byte{0, 0, 0, 123}, ErrLength},
		"magic":                {4, []byte{1}, ErrBadMagic},
		"born host v6":         {39, []byte{0x10}, ErrLength},
		"store host v6":        {39, []byte{0x20}, ErrLength},
		"body negative":        {84, []byte{0xff}, ErrLength},
		"body longer":          {87, []byte{0xff}, ErrLength},
		"topic negative":       {102, []byte{0x80}, ErrLength},
		"topic longer":         {102, []byte{0x7f}, ErrLength},
		"properties shorter":   {113, []byte{9}, ErrLength},
		"properties longer":    {113, []byte{11}, ErrLength},
		"properties negative":  {112, []byte{0x80}, ErrLength},
	} {
		b := bytes.Clone(good)
		copy(b[at.off:], at.b)
		err, perr := ParseRecord(b, &r), error(nil)
		_, perr = Peek(b)
		require.Error(t, err, name)
		require.Error(t, perr, name)
		if at.want != nil {
			require.ErrorIs(t, err, at.want, name)
		}
	}
}

// A flipped bit anywhere in the body is found by the body's checksum, and one anywhere in a record
// with a checksum property is found by that or by the parser.
func TestCRC(t *testing.T) {
	m := sample()
	m.CRCSlot = true
	good := encode(t, &m, 5, 4096, 1700000000123)
	var r Record
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if ParseRecord(b, &r) != nil {
				continue
			}
			err := r.CheckCRC()
			if i >= len(good)-20 && i < len(good)-11 || i == len(good)-1 {
				continue // no slot any more: the property is another one
			}
			require.ErrorIs(t, err, ErrCRC, "byte %d bit %d", i, bit)
		}
	}
	require.EqualValues(t, 907060870, BodyCRC([]byte("hello")))
	require.EqualValues(t, 1774740973, BodyCRC([]byte("Hello RocketMQ")))
	require.EqualValues(t, 773307083, BodyCRC([]byte("7-7000\n8-8000\n")))
	require.Zero(t, BodyCRC(nil))
}

// A checksum property that a producer sent does not survive: there is one, at the end, and it is
// right. Properties without their last separator get it first.
func TestCRCSlotReplaces(t *testing.T) {
	m := sample()
	m.CRCSlot = true
	m.Properties = Properties("A\x01b\x02__CRC32#\x01123\x02TAGS\x01TagA")
	b := encode(t, &m, 1, 2, 3)
	var r Record
	require.NoError(t, ParseRecord(b, &r))
	require.NoError(t, r.CheckCRC())
	require.Regexp(t, `^A\x01b\x02TAGS\x01TagA\x02__CRC32#\x01[0-9]{10}\x02$`, string(r.Properties))
	StampRecord(b, 9, 9, 9)
	require.NoError(t, ParseRecord(b, &r))
	require.NoError(t, r.CheckCRC(), "stamping again renews the checksum")
}

// A topic that ends like a checksum property is not taken for one: stamping leaves it alone.
func TestCRCSlotIsInProperties(t *testing.T) {
	m := sample()
	m.Topic, m.Properties = "t__CRC32#\x0112345678", Properties{valueEnd}
	b, err := AppendRecord(nil, &m)
	require.NoError(t, err)
	require.Equal(t, "__CRC32#\x01", string(b[len(b)-20:len(b)-11]), "the test means this layout")
	StampRecord(b, 1, 2, 3)
	var r Record
	require.NoError(t, ParseRecord(b, &r))
	require.Equal(t, m.Topic, string(r.Topic))
	require.NoError(t, r.CheckCRC())
}

// Encoding, stamping, parsing and peeking allocate nothing.
func TestNoAllocations(t *testing.T) {
	m := sample()
	m.Body = make([]byte, 1024)
	buf := make([]byte, 0, 4096)
	var r Record
	var items []byte
	for range 3 {
		items, _ = AppendBatchItem(items, 0, m.Body[:100], Properties("K\x01v"))
	}
	for name, f := range map[string]func() error{
		"append": func() (err error) { buf, err = AppendRecord(buf[:0], &m); return err },
		"append with checksum": func() (err error) {
			m.CRCSlot = true
			buf, err = AppendRecord(buf[:0], &m)
			StampRecord(buf, 1, 2, 3)
			m.CRCSlot = false
			return err
		},
		"stamp": func() error { StampRecord(buf, 1, 2, 3); return nil },
		"parse": func() error { return ParseRecord(buf, &r) },
		"crc":   func() error { return r.CheckCRC() },
		"peek":  func() error { _, err := Peek(buf); return err },
		"batch": func() error { _, _, err := AppendBatchRecords(buf[:0], &m, items); return err },
		"scan":  func() error { r.Properties.Scan(); return nil },
		"id":    func() error { AppendRawID(buf[:0], r.StoreHost, r.PhysicalOffset); return nil },
	} {
		var err error
		buf, err = AppendRecord(buf[:0], &m)
		require.NoError(t, err)
		StampRecord(buf, 1, 2, 3)
		require.NoError(t, ParseRecord(buf, &r))
		if n := testing.AllocsPerRun(100, func() { err = errors.Join(f()) }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", name, n, err)
		}
	}
}
