package protocol

// SendHeader is the header of a message that a producer sends (SendMessageRequestHeader and
// SendMessageRequestHeaderV2). The texts alias the command they were parsed from.
type SendHeader struct {
	ProducerGroup         []byte
	Topic                 []byte
	DefaultTopic          []byte // template for a topic that does not exist yet
	DefaultTopicQueueNums int32
	QueueID               int32 // below 0: the broker chooses
	SysFlag               int32
	BornMillis            int64
	Flag                  int32
	Properties            []byte // name 0x01 value 0x02 …
	ReconsumeTimes        int32
	MaxReconsumeTimes     int32 // only with HasMaxReconsume
	HasMaxReconsume       bool
	UnitMode              bool
	Batch                 bool // the body holds several messages; this decides, not the code
}

// Ext fields of a send, by the letter that stands for them in the second version of the header.
const (
	sendGroup = 'a' + iota
	sendTopic
	sendDefaultTopic
	sendDefaultQueues
	sendQueueID
	sendSysFlag
	sendBornTime
	sendFlag
	sendProperties
	sendReconsume
	sendUnitMode
	sendMaxReconsume
	sendBatch
	sendBrokerName
	sendEnd
)

var sendNames = [sendEnd - 'a']string{"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag",
	"bornTimestamp", "flag", "properties", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch", "bname"}

// sendRequired are the fields a to h.
const sendRequired = 1<<(sendProperties-'a') - 1

func sendLetter(key []byte) byte {
	if len(key) == 1 {
		if key[0] >= 'a' && key[0] < sendEnd {
			return key[0]
		}
		return 0
	}
	switch string(key) {
	case "producerGroup":
		return sendGroup
	case "topic":
		return sendTopic
	case "defaultTopic":
		return sendDefaultTopic
	case "defaultTopicQueueNums":
		return sendDefaultQueues
	case "queueId":
		return sendQueueID
	case "sysFlag":
		return sendSysFlag
	case "bornTimestamp":
		return sendBornTime
	case "flag":
		return sendFlag
	case "properties":
		return sendProperties
	case "reconsumeTimes":
		return sendReconsume
	case "unitMode":
		return sendUnitMode
	case "maxReconsumeTimes":
		return sendMaxReconsume
	case "batch":
		return sendBatch
	}
	return 0
}

// ParseSendHeader reads the header of a send (10, 310, 320, 324, 325), long names or letters, without
// an allocation. The error is a [*HeaderError].
func ParseSendHeader(c *Command, h *SendHeader) error {
	*h = SendHeader{}
	seen := uint32(0)
	for i := range c.Ext {
		v := c.Ext[i].Value
		letter := sendLetter(c.Ext[i].Key)
		if letter == 0 {
			continue
		}
		ok := true
		switch letter {
		case sendGroup:
			h.ProducerGroup = v
		case sendTopic:
			h.Topic = v
		case sendDefaultTopic:
			h.DefaultTopic = v
		case sendDefaultQueues:
			h.DefaultTopicQueueNums, ok = parse32(v)
		case sendQueueID:
			h.QueueID, ok = parse32(v)
		case sendSysFlag:
			h.SysFlag, ok = parse32(v)
		case sendBornTime:
			h.BornMillis, ok = parseInt(v, 64)
		case sendFlag:
			h.Flag, ok = parse32(v)
		case sendProperties:
			h.Properties = v
		case sendReconsume:
			h.ReconsumeTimes, ok = optional32(v)
		case sendUnitMode:
			h.UnitMode = parseBool(v)
		case sendMaxReconsume:
			h.MaxReconsumeTimes, ok = optional32(v)
			h.HasMaxReconsume = len(v) > 0
		case sendBatch:
			h.Batch = parseBool(v)
		}
		if !ok {
			return &HeaderError{sendNames[letter-'a'], string(v), sendWants(letter - 'a'), ErrMalformed}
		}
		seen |= 1 << (letter - 'a')
	}
	if lacks := sendRequired &^ seen; lacks != 0 {
		for i := range sendNames {
			if lacks&(1<<i) != 0 {
				return &HeaderError{sendNames[i], "", sendWants(byte(i)), ErrMissing}
			}
		}
	}
	return nil
}

func sendWants(i byte) string {
	switch i + 'a' {
	case sendGroup, sendTopic, sendDefaultTopic:
		return "text"
	case sendBornTime:
		return "number of 64 bits"
	}
	return "number of 32 bits"
}

func parse32(b []byte) (int32, bool) {
	n, ok := parseInt(b, 32)
	return int32(n), ok
}

// optional32 takes "" for absent.
func optional32(b []byte) (int32, bool) {
	if len(b) == 0 {
		return 0, true
	}
	return parse32(b)
}

// AppendSendRequest appends a send of bodyBytes, which the caller writes behind it. Codes 310, 320 and 325
// get the letters, the others the long names. It does not allocate when dst has room.
func AppendSendRequest(dst []byte, code RequestCode, opaque, flag int32, s Serialize, h *SendHeader, bodyBytes int) []byte {
	e := encoder{dst: dst, ser: s}
	e.begin(int32(code), opaque, flag, "")
	letters := code == RequestSendMessageV2 || code == RequestSendBatchMessage || code == RequestSendReplyMessageV2
	name := func(letter byte) string {
		if letters {
			return sendLetters[letter-'a' : letter-'a'+1]
		}
		return sendNames[letter-'a']
	}
	e.bytes(name(sendGroup), h.ProducerGroup)
	e.bytes(name(sendTopic), h.Topic)
	e.bytes(name(sendDefaultTopic), h.DefaultTopic)
	e.int(name(sendDefaultQueues), int64(h.DefaultTopicQueueNums))
	e.int(name(sendQueueID), int64(h.QueueID))
	e.int(name(sendSysFlag), int64(h.SysFlag))
	e.int(name(sendBornTime), h.BornMillis)
	e.int(name(sendFlag), int64(h.Flag))
	e.bytes(name(sendProperties), h.Properties)
	e.int(name(sendReconsume), int64(h.ReconsumeTimes))
	e.bool(name(sendUnitMode), h.UnitMode)
	if h.HasMaxReconsume {
		e.int(name(sendMaxReconsume), int64(h.MaxReconsumeTimes))
	}
	e.bool(name(sendBatch), h.Batch)
	return e.finish(opaque, flag, "", bodyBytes)
}

const sendLetters = "abcdefghijklmn"

// SendResponse is the header of the answer to a send (SendMessageResponseHeader). Java wants MSG_REGION
// and TRACE_ON on every answer to a send, errors included, and reads ids and offsets when it was stored.
type SendResponse struct {
	MsgID         []byte // offset message id, 32 or 56 hexadecimal digits; of a batch joined with ','
	QueueID       int32
	QueueOffset   int64  // of the first message
	TransactionID []byte // the UNIQ_KEY of a single message
	BatchUniqID   []byte
	RecallHandle  []byte
	Region        []byte // "" is DefaultRegion
	TraceOff      bool

	// Of a SERVICE_NOT_AVAILABLE by a broker that does not lead its group: where clients reach who does,
	// host:port, and its epoch or term.
	Leader     []byte
	LeaderTerm int64
}

// Stored says that the answer is for a message that was stored: success, or stored but not yet flushed or
// copied as asked.
func (c ResponseCode) Stored() bool {
	return c == ResponseSuccess || c >= ResponseFlushDiskTimeout && c <= ResponseFlushSlaveTimeout
}

// AppendSendResponse appends the whole answer to a send whose request had this opaque and encoding. Ids and
// offsets are left out unless the message was stored. It does not allocate when dst has room.
func AppendSendResponse(dst []byte, opaque int32, s Serialize, code ResponseCode, remark string, h *SendResponse) []byte {
	e := encoder{dst: dst, ser: s}
	e.begin(int32(code), opaque, flagResponse, remark)
	if len(h.Region) > 0 {
		e.bytes("MSG_REGION", h.Region)
	} else {
		e.plain("MSG_REGION", DefaultRegion)
	}
	e.bool("TRACE_ON", !h.TraceOff)
	if code.Stored() {
		e.bytes("msgId", h.MsgID)
		e.int("queueId", int64(h.QueueID))
		e.int("queueOffset", h.QueueOffset)
		e.optional("transactionId", h.TransactionID)
		e.optional("batchUniqId", h.BatchUniqID)
		e.optional("recallHandle", h.RecallHandle)
	}
	if code == ResponseServiceNotAvailable && len(h.Leader) > 0 {
		e.bytes(ExtLeaderAddr, h.Leader)
		e.int(ExtLeaderTerm, h.LeaderTerm)
	}
	return e.finish(opaque, flagResponse, remark, 0)
}

// Ext fields of a refusal by a broker that does not lead its group: where who does is found, and its
// epoch or term. Apache has no such fields, and its clients ignore them.
const (
	ExtLeaderAddr = "leaderAddr"
	ExtLeaderTerm = "leaderTerm"
)

// DefaultRegion is the region of a broker that was not told another.
const DefaultRegion = "DefaultRegion"

// ParseSendResponse reads the header of an answer to a send; its texts alias c. An answer of a stored
// message needs msgId, queueId and queueOffset; of any other nothing is needed.
func ParseSendResponse(c *Command, h *SendResponse) error {
	*h = SendResponse{}
	var id, queue, offset bool
	for i := range c.Ext {
		v, ok, want := c.Ext[i].Value, true, ""
		switch string(c.Ext[i].Key) {
		case "msgId":
			h.MsgID, id = v, true
		case "queueId":
			h.QueueID, ok = parse32(v)
			queue, want = true, "number of 32 bits"
		case "queueOffset":
			h.QueueOffset, ok = parseInt(v, 64)
			offset, want = true, "number of 64 bits"
		case "transactionId":
			h.TransactionID = v
		case "batchUniqId":
			h.BatchUniqID = v
		case "recallHandle":
			h.RecallHandle = v
		case "MSG_REGION":
			h.Region = v
		case "TRACE_ON":
			h.TraceOff = !parseBool(v)
		case ExtLeaderAddr:
			h.Leader = v
		case ExtLeaderTerm:
			h.LeaderTerm, ok = parseInt(v, 64)
			want = "number of 64 bits"
		}
		if !ok {
			return &HeaderError{string(c.Ext[i].Key), string(v), want, ErrMalformed}
		}
	}
	switch stored := ResponseCode(c.Code).Stored(); {
	case stored && !id:
		return &HeaderError{"msgId", "", "text", ErrMissing}
	case stored && !queue:
		return &HeaderError{"queueId", "", "number of 32 bits", ErrMissing}
	case stored && !offset:
		return &HeaderError{"queueOffset", "", "number of 64 bits", ErrMissing}
	}
	return nil
}
