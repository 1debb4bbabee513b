package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// frame puts the two words in front of a header and a body; without the length word.
func frame(s Serialize, header, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(s)<<24|uint32(len(header)))
	return append(append(b, header...), body...)
}

func parse(t *testing.T, b []byte) *Command {
	c := &Command{}
	require.NoError(t, ParseCommand(b, c), "%q", b)
	return c
}

// Proves that a request of the Go client is read in both its encodings, that it is not one-way, and that its binary
// form is written to the byte.
func TestGoClientRequest(t *testing.T) {
	c := parse(t, frame(JSON, `{"code":105,"language":"GO","version":317,"opaque":1,"flag":0,"remark":"","extFields":{"topic":"T"}}`, ""))
	require.Equal(t, Command{Code: 105, Language: Go, Version: 317, Opaque: 1, Remark: []byte{}, Ext: []Field{{[]byte("topic"), []byte("T")}}}, Command{
		Code: c.Code, Language: c.Language, Version: c.Version, Opaque: c.Opaque, Remark: c.Remark, Ext: c.Ext})
	require.False(t, c.IsOneway())
	require.False(t, c.IsResponse())
	b, err := hex.DecodeString("00000025" + "01000021" + "006909013D000000010000000000000000" + "0000000C0005746F7069630000000154")
	require.NoError(t, err)
	bin := parse(t, b[4:])
	require.Equal(t, c.Ext, bin.Ext)
	require.Equal(t, Go, bin.Language)
	require.Equal(t, b, AppendCommand(nil, bin))
}

// Proves what a JSON header may look like: any order, blanks, unknown members, nulls, numbers as text and text as numbers.
func TestJSONHeader(t *testing.T) {
	c := parse(t, frame(JSON, ` { "body" : [1,{"a":"]}\""},null] ,
		"extFields":{"n":7,"neg":-1.5e3,"yes":true,"nothing":null,"nested":{"a":[1]},"e\u0041":"x\"\\\/\b\f\n\r\t\u0001\uD83D\uDE00\ud800z","":"" },
		"flag":"3","code":"310","opaque":-2147483648,"language":12,"version":null,"customHeader":{},"serializeTypeCurrentRPC":"ROCKETMQ","remark":"订 \u8ba2"}  `, "body"))
	require.EqualValues(t, 310, c.Code)
	require.EqualValues(t, 3, c.Flag)
	require.EqualValues(t, -2147483648, c.Opaque)
	require.Equal(t, Rust, c.Language)
	require.Zero(t, c.Version)
	require.Equal(t, "订 订", string(c.Remark))
	require.Equal(t, "body", string(c.Body))
	require.Equal(t, []string{"=", "eA=x\"\\/\b\f\n\r\t\x01😀\uFFFDz", "n=7", "neg=-1.5e3", `nested={"a":[1]}`, "yes=true"}, sorted(c.Ext))
	require.Equal(t, "7", c.GetString("n"))
	_, ok := c.Get("nothing")
	require.False(t, ok)

	for header, want := range map[string]Command{
		`{}`: {},
		`{"extFields":null,"remark":null,"code":1}`: {Code: 1},
		`{"extFields":{},"language":"KLINGON"}`:     {Language: Other},
		`{"language":300}`:                          {Language: Other},
		`{"language":null}`:                         {Language: Java},
		`{"extFields":{"a":"1","a":"2"}}`:           {Ext: []Field{{[]byte("a"), []byte("1")}, {[]byte("a"), []byte("2")}}},
		"{\"extFields\":{\"raw\":\"k\x01v\x02\"}}":  {Ext: []Field{{[]byte("raw"), []byte("k\x01v\x02")}}},
		`{"deep":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `,"code":7}`: {Code: 7},
	} {
		c := parse(t, frame(JSON, header, ""))
		require.True(t, c.Equal(&want), "%.80s: %+v", header, c)
	}
	require.Equal(t, "2", parse(t, frame(JSON, `{"extFields":{"a":"1","a":"2"}}`, "")).GetString("a"), "the last one counts, as in Java")
}

// Proves that frames which cannot be are refused with an error that says where and why, and nothing else happens.
func TestFrameErrors(t *testing.T) {
	header := func(fields ...any) []byte {
		var b []byte
		for _, f := range fields {
			switch f := f.(type) {
			case string:
				b = append(b, f...)
			default:
				b, _ = binary.Append(b, binary.BigEndian, f)
			}
		}
		return b
	}
	start := func(rest ...any) string {
		return string(header(append([]any{uint16(10), uint8(0), uint16(1), uint32(1), uint32(0)}, rest...)...))
	}
	ok := start(int32(0), int32(0))
	parse(t, frame(Binary, ok, "x"))
	for name, c := range map[string]struct {
		frame []byte
		kind  error
		says  string
	}{
		"empty":                   {nil, ErrTruncated, "cannot hold a header word"},
		"half a word":             {[]byte{0, 0, 0}, ErrTruncated, "cannot hold a header word"},
		"header beyond frame":     {[]byte{0, 0, 0, 9, '{', '}'}, ErrTruncated, "9 bytes announced, 2 in the frame"},
		"unknown type":            {[]byte{2, 0, 0, 0}, ErrMalformed, "unknown serialize type 2"},
		"oversized":               {make([]byte, MaxFrameBytes-3), ErrTooLarge, "16777212"},
		"JSON empty":              {frame(JSON, "", ""), ErrTruncated, "an object must begin here"},
		"JSON array":              {frame(JSON, "[]", ""), ErrMalformed, "an object must begin here"},
		"JSON cut":                {frame(JSON, `{"code":1`, ""), ErrTruncated, "must go on"},
		"JSON cut text":           {frame(JSON, `{"remark":"abc`, ""), ErrTruncated, "does not end"},
		"JSON cut escape":         {frame(JSON, `{"remark":"abc\`, ""), ErrTruncated, "does not end"},
		"JSON cut nested":         {frame(JSON, `{"x":{"a":[`, ""), ErrTruncated, "does not end"},
		"JSON cut nested text":    {frame(JSON, `{"x":{"a`, ""), ErrTruncated, "does not end"},
		"JSON cut key":            {frame(JSON, `{"co`, ""), ErrTruncated, "does not end"},
		"JSON bad escape":         {frame(JSON, `{"remark":"\x"}`, ""), ErrMalformed, "unknown escape"},
		"JSON bad unicode":        {frame(JSON, `{"remark":"\u00g0"}`, ""), ErrMalformed, "hexadecimal"},
		"JSON no colon":           {frame(JSON, `{"code" 1}`, ""), ErrMalformed, "a colon"},
		"JSON no value":           {frame(JSON, `{"x":,"code":1}`, ""), ErrMalformed, "a value must stand here"},
		"JSON comma at the end":   {frame(JSON, `{"code":1,}`, ""), ErrMalformed, "must go on"},
		"JSON bare name":          {frame(JSON, `{code:1}`, ""), ErrMalformed, "must go on"},
		"JSON code a word":        {frame(JSON, `{"code":"ten"}`, ""), ErrMalformed, "number of 32 bits"},
		"JSON code too big":       {frame(JSON, `{"code":2147483648}`, ""), ErrMalformed, "number of 32 bits"},
		"JSON code no whole":      {frame(JSON, `{"code":1.5}`, ""), ErrMalformed, "number of 32 bits"},
		"JSON ext a list":         {frame(JSON, `{"extFields":[]}`, ""), ErrMalformed, "an object must begin here"},
		"JSON behind":             {frame(JSON, `{}x`, ""), ErrMalformed, "bytes behind"},
		"JSON zero behind":        {frame(JSON, "{}\x00", ""), ErrMalformed, "a zero byte"},
		"binary short":            {frame(Binary, ok[:20], ""), ErrTruncated, "20 bytes, the least is 21"},
		"binary remark":           {frame(Binary, start(int32(1), int32(0)), ""), ErrMalformed, "a remark of 1 bytes"},
		"binary remark negative":  {frame(Binary, start(int32(-1), int32(0)), ""), ErrMalformed, "a remark of -1 bytes"},
		"binary remark huge":      {frame(Binary, start(int32(0x7fffffff), int32(0)), ""), ErrMalformed, "a remark of 2147483647"},
		"binary ext beyond":       {frame(Binary, start(int32(0), int32(1)), ""), ErrMalformed, "1 bytes of fields with 0 left"},
		"binary ext negative":     {frame(Binary, start(int32(0), int32(-9)), ""), ErrMalformed, "-9 bytes of fields"},
		"binary half key length":  {frame(Binary, start(int32(0), int32(1), "x"), ""), ErrMalformed, "1 bytes left for the length of a key"},
		"binary key beyond":       {frame(Binary, start(int32(0), int32(6), int16(1), int32(0)), ""), ErrMalformed, "a key of 1 bytes"},
		"binary key negative":     {frame(Binary, start(int32(0), int32(6), int16(-1), int32(0)), ""), ErrMalformed, "a key of -1 bytes"},
		"binary value beyond":     {frame(Binary, start(int32(0), int32(7), int16(1), "k", int32(1)), ""), ErrMalformed, "a value of 1 bytes with 0 left"},
		"binary value negative":   {frame(Binary, start(int32(0), int32(7), int16(1), "k", int32(-1)), ""), ErrMalformed, "a value of -1 bytes"},
		"binary value length cut": {frame(Binary, start(int32(0), int32(5), int16(1), "k", int16(0)), ""), ErrMalformed, "a key of 1 bytes"},
	} {
		var cmd Command
		err := ParseCommand(c.frame, &cmd)
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorContains(t, err, c.says, name)
		var fe *FrameError
		require.ErrorAs(t, err, &fe)
		require.GreaterOrEqual(t, fe.Offset, 0)
		require.LessOrEqual(t, fe.Offset, len(c.frame), name)
	}
}

// Proves which length words are believed.
func TestFrameBytes(t *testing.T) {
	for word, want := range map[uint32]int{4: 8, 37: 41, MaxFrameBytes - 4: MaxFrameBytes} {
		n, err := FrameBytes(binary.BigEndian.AppendUint32(nil, word))
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	for word, kind := range map[uint32]error{0: ErrMalformed, 3: ErrMalformed, MaxFrameBytes - 3: ErrTooLarge, 0xFFFFFFFF: ErrMalformed, 0x16030100: ErrTooLarge} {
		_, err := FrameBytes(binary.BigEndian.AppendUint32(nil, word))
		require.ErrorIs(t, err, kind, word)
	}
	for i := range 4 {
		n, err := FrameBytes(make([]byte, i))
		require.NoError(t, err)
		require.Zero(t, n)
	}
}

// goHeader is a header as the Go client decodes it, strictly.
type goHeader struct {
	Code      int16             `json:"code"`
	Language  string            `json:"language"`
	Version   int16             `json:"version"`
	Opaque    int32             `json:"opaque"`
	Flag      int32             `json:"flag"`
	Remark    string            `json:"remark"`
	ExtFields map[string]string `json:"extFields"`
}

func asGo(t *testing.T, b []byte) (h goHeader, body []byte) {
	n := binary.BigEndian.Uint32(b[4:])
	require.Zero(t, n>>24, "a JSON frame")
	require.NoError(t, json.Unmarshal(b[8:8+n], &h), "%s", b[8:8+n])
	return h, b[8+n:]
}

// Proves that no answer of ours has what makes clients fail: a value in ext that is no text (trap 1), a version of 0 (20), a
// language without a name (21), members that are bean properties in Java (22), a code beyond 16 bits in the binary form (31).
func TestTrapsOfTheHeader(t *testing.T) {
	req := NewRequest(RequestGetMaxOffset)
	req.Opaque = -5
	resp := NewResponse(req, ResponsePullNotFound, "why \"so\"\x01")
	EncodeExt(resp, &OffsetResponse{Offset: 1 << 60})
	EncodeExt(resp, HeartbeatResponse{SupportsV2: true})
	h, _ := asGo(t, AppendCommand(nil, resp))
	require.Equal(t, goHeader{19, "GO", Version, -5, 1, "why \"so\"\x01", map[string]string{
		"offset": "1152921504606846976", "IS_SUPPORT_HEART_BEAT_V2": "true", "IS_SUB_CHANGE": "false"}}, h)

	resp.Language = 127
	b := AppendCommand(nil, resp)
	h, _ = asGo(t, b)
	require.Equal(t, "OTHER", h.Language)
	require.NotContains(t, string(b), `"body"`)
	require.NotContains(t, string(b), `"customHeader"`)

	pop := NewRequest(RequestPopMessage)
	pop.Serialize = Binary
	pop.Add("topic", "T")
	c := parse(t, AppendCommand(nil, pop)[4:])
	require.Equal(t, JSON, c.Serialize)
	require.Equal(t, int32(RequestPopMessage), c.Code)
	key := strings.Repeat("k", 40_000)
	long := &Command{Serialize: Binary, Ext: []Field{{[]byte(key), []byte("v")}}}
	require.Equal(t, "v", parse(t, AppendCommand(nil, long)[4:]).GetString(key))
}

// Proves that the answer to a pull has its four fields whatever came of it (trap 2), and the answer to a send its ids when it
// was stored and its region always (3, 4).
func TestTrapsOfSendAndPull(t *testing.T) {
	for _, code := range []ResponseCode{ResponseSuccess, ResponsePullNotFound, ResponsePullRetryImmediately, ResponsePullOffsetMoved, ResponseNoPermission} {
		h, body := asGo(t, append(AppendPullResponse(nil, 7, JSON, code, code.String(), &PullResponse{ForbiddenType: 2}, 3), "abc"...))
		require.Equal(t, map[string]string{"suggestWhichBrokerId": "0", "nextBeginOffset": "0", "minOffset": "0", "maxOffset": "0", "forbiddenType": "2"}, h.ExtFields)
		require.Equal(t, "abc", string(body))
		require.EqualValues(t, 1, h.Flag)
	}
	id := strings.Repeat("0A", 16)
	for code, stored := range map[ResponseCode]bool{0: true, 10: true, 11: true, 12: true, 1: false, 2: false, 13: false, 14: false} {
		require.Equal(t, stored, code.Stored(), code)
		h, _ := asGo(t, AppendSendResponse(nil, 7, JSON, code, "", &SendResponse{MsgID: []byte(id), QueueID: 2, QueueOffset: 9, TraceOff: true, RecallHandle: []byte("r"), BatchUniqID: []byte("b")}))
		want := map[string]string{"MSG_REGION": "DefaultRegion", "TRACE_ON": "false"}
		if stored {
			want["msgId"], want["queueId"], want["queueOffset"], want["recallHandle"], want["batchUniqId"] = id, "2", "9", "r", "b"
		}
		require.Equal(t, want, h.ExtFields)
		require.EqualValues(t, Version, h.Version)
	}
}

// Proves that a header without one of the fields it needs, or with one that is no number, is refused with the name of it.
func TestHeaderErrors(t *testing.T) {
	send := func() *Command {
		c := &Command{}
		require.NoError(t, ParseCommand(AppendSendRequest(nil, RequestSendMessage, 1, 0, JSON, &SendHeader{Topic: []byte("t")}, 0)[4:], c))
		return c
	}
	var h SendHeader
	for _, name := range sendNames[:8] {
		c := send()
		c.Remove(name)
		err := ParseSendHeader(c, &h)
		require.ErrorIs(t, err, ErrMissing)
		require.ErrorContains(t, err, "the header field "+name+" is missing")
	}
	for _, name := range []string{"queueId", "sysFlag", "flag", "bornTimestamp", "defaultTopicQueueNums", "reconsumeTimes", "maxReconsumeTimes"} {
		for _, v := range []string{"x", "1.5", "99999999999999999999", "--1", "-", strings.Repeat("9", 1000)} {
			c := send()
			c.Add(name, v)
			err := ParseSendHeader(c, &h)
			require.ErrorIs(t, err, ErrMalformed)
			require.ErrorContains(t, err, "the header field "+name+" has the value")
			require.Less(t, len(err.Error()), 200)
		}
	}
	c := send()
	c.Add("lo", "x")
	c.Add("n", "broker-a")
	c.Add("zz", "x")
	require.NoError(t, ParseSendHeader(c, &h), "unknown fields are left alone")

	pull := func() *Command {
		c := &Command{}
		require.NoError(t, ParseCommand(AppendPullRequest(nil, RequestPullMessage, 1, Binary, &PullHeader{})[4:], c))
		return c
	}
	var p PullHeader
	for _, f := range pullRequired {
		c := pull()
		c.Remove(f.name)
		err := ParsePullHeader(c, &p)
		require.ErrorIs(t, err, ErrMissing)
		require.ErrorContains(t, err, f.name)
	}
	for _, name := range []string{"queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset", "suspendTimeoutMillis", "subVersion", "maxMsgBytes", "requestSource"} {
		c := pull()
		c.Add(name, "x")
		require.ErrorIs(t, ParsePullHeader(c, &p), ErrMalformed, name)
	}

	var r PullResponse
	require.ErrorIs(t, ParsePullResponse(&Command{}, &r), ErrMissing)
	bad := &Command{}
	bad.Add("minOffset", "x")
	require.ErrorIs(t, ParsePullResponse(bad, &r), ErrMalformed)
	var s SendResponse
	for _, name := range []string{"msgId", "queueId", "queueOffset"} {
		c := &Command{}
		require.NoError(t, ParseCommand(AppendSendResponse(nil, 1, JSON, 0, "", &s)[4:], c))
		c.Remove(name)
		require.ErrorContains(t, ParseSendResponse(c, &s), name)
		c.Code = int32(ResponseSystemBusy)
		require.NoError(t, ParseSendResponse(c, &s))
		if name != "msgId" {
			c.Add(name, "x")
			require.ErrorIs(t, ParseSendResponse(c, &s), ErrMalformed)
		}
	}
}

// Proves how header structs travel: defaults, pointers, booleans in any case, "" as absent, and the complaints.
func TestExt(t *testing.T) {
	type header struct {
		Name  string   `ext:"name,required"`
		N     int32    `ext:"n,default=-1"`
		Long  *int64   `ext:"long"`
		On    bool     `ext:"on"`
		Maybe *bool    `ext:"maybe"`
		Ratio float64  `ext:"ratio"`
		Text  *string  `ext:"text"`
		Other struct{} // not a field
	}
	c := &Command{}
	c.Add("name", "")
	var h header
	h.Ratio = 9
	require.NoError(t, DecodeExt(c, &h))
	require.Equal(t, header{N: -1}, h)
	EncodeExt(c, h)
	require.Equal(t, []string{"n=-1", "name=", "name=", "on=false", "ratio=0"}, sorted(c.Ext))

	c.Reset()
	for k, v := range map[string]string{"name": "x", "n": "5", "long": "-9223372036854775808", "on": "TRUE", "maybe": "no", "ratio": "2.5", "text": ""} {
		c.Add(k, v)
	}
	require.NoError(t, DecodeExt(c, &h))
	require.EqualValues(t, 5, h.N)
	require.EqualValues(t, -1<<63, *h.Long)
	require.True(t, h.On)
	require.False(t, *h.Maybe)
	require.Equal(t, 2.5, h.Ratio)
	require.Empty(t, *h.Text)
	again := &Command{}
	EncodeExt(again, &h)
	require.Len(t, again.Ext, 6, "an empty text that is not required is left out")

	for field, value := range map[string]string{"n": "2147483648", "long": "x", "ratio": "many"} {
		c.Add(field, value)
		err := DecodeExt(c, &h)
		var he *HeaderError
		require.ErrorAs(t, err, &he)
		require.Equal(t, HeaderError{field, value, he.Want, ErrMalformed}, *he)
		c.Remove(field)
	}
	c.Remove("name")
	require.ErrorIs(t, DecodeExt(c, &h), ErrMissing)
	require.PanicsWithValue(t, `BUG: struct { X []uint8 "ext:\"x\"" }.X: an ext field cannot be a []uint8`, func() {
		EncodeExt(c, struct {
			X []byte `ext:"x"`
		}{})
	})
	require.Panics(t, func() {
		EncodeExt(c, struct {
			X int32 `ext:"x,requird"`
		}{})
	})
}

// Proves that a clone stands alone, and that a command is reused without a trace of what it was.
func TestCloneAndReset(t *testing.T) {
	b := frame(JSON, `{"code":1,"remark":"r","extFields":{"k":"v\u0041"}}`, "body")
	c := parse(t, b)
	d := c.Clone()
	for i := range b {
		b[i] = 'X'
	}
	c.Reset()
	c.Add("other", "value")
	require.Equal(t, "vA", d.GetString("k"))
	require.Equal(t, "r", string(d.Remark))
	require.Equal(t, "body", string(d.Body))
	require.Equal(t, []Field{{[]byte("other"), []byte("value")}}, c.Ext)
	d.Add("more", "x")
	require.Equal(t, "vA", d.GetString("k"))
	req := &Command{Opaque: 4, Serialize: Binary}
	req.Respond(req, ResponseSuccess, "")
	require.EqualValues(t, 4, req.Opaque, "a command may answer itself")
	require.Equal(t, Binary, req.Serialize)
	req.MarkOneway()
	require.True(t, req.IsOneway())
	require.NoError(t, req.Err())
	req.AddBytes("b", []byte("1"))
	req.AddInt("i", -3)
	req.AddBool("t", true)
	require.Equal(t, []string{"b=1", "i=-3", "t=true"}, sorted(req.Ext))
	require.EqualError(t, NewResponse(req, ResponseSystemError, "").Err(), "remote: SYSTEM_ERROR (1)")
	var re *RemoteError
	require.ErrorAs(t, NewResponse(req, ResponseTopicNotExist, "no").Err(), &re)
	require.Equal(t, ResponseTopicNotExist, re.Code)
}

// hot are the frames of one send and one pull, in an encoding.
func hot(s Serialize) (send, pull []byte) {
	send = AppendSendRequest(nil, RequestSendMessageV2, 1, 0, s, &SendHeader{ProducerGroup: []byte("PG"), Topic: []byte("TopicTest"), DefaultTopic: []byte("TBW102"),
		DefaultTopicQueueNums: 4, QueueID: 3, BornMillis: 1700000000123, Properties: []byte(goldenProps)}, 1024)
	send = append(send, bytes.Repeat([]byte{'x'}, 1024)...)
	pull = AppendPullRequest(nil, RequestPullMessage, 1, s, &PullHeader{ConsumerGroup: []byte("CG"), Topic: []byte("TopicTest"), QueueOffset: 1 << 40, MaxMsgNums: 32, SubVersion: 1700000000123})
	return send, pull
}

// Proves that the hot paths, both ways and in both encodings, allocate nothing once their memory is there.
func TestHotPathAllocations(t *testing.T) {
	for _, s := range []Serialize{JSON, Binary} {
		send, pull := hot(s)
		var c Command
		var sh SendHeader
		var ph PullHeader
		sr := SendResponse{MsgID: []byte("0A00000100002A9F0000000000001234"), TransactionID: []byte("0A0000010000000000000000000000FF")}
		var pr PullResponse
		out := make([]byte, 0, 4096)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if ParseCommand(send[4:], &c) != nil || ParseSendHeader(&c, &sh) != nil {
				panic("send")
			}
			out = AppendSendRequest(out[:0], RequestSendMessageV2, c.Opaque, 0, s, &sh, len(c.Body))
			out = AppendSendResponse(out[:0], c.Opaque, s, ResponseSuccess, "", &sr)
			if ParseCommand(out[4:], &c) != nil || ParseSendResponse(&c, &sr) != nil {
				panic("send response")
			}
			if ParseCommand(pull[4:], &c) != nil || ParsePullHeader(&c, &ph) != nil {
				panic("pull")
			}
			out = AppendPullRequest(out[:0], RequestPullMessage, c.Opaque, s, &ph)
			out = AppendPullResponse(out[:0], c.Opaque, s, ResponsePullNotFound, "NO_MESSAGE_IN_QUEUE", &pr, 0)
			if ParseCommand(out[4:], &c) != nil || ParsePullResponse(&c, &pr) != nil {
				panic("pull response")
			}
			c.Respond(&c, ResponseSuccess, "fine")
			c.Add("offset", "7")
			c.AddInt("n", 1<<40)
			out = AppendCommand(out[:0], &c)
		}), s)
	}
}
