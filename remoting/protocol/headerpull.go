package protocol

// Bits of PullHeader.SysFlag (PullSysFlag).
const (
	PullCommitOffset = 1 << iota // CommitOffset is to be stored
	PullSuspend                  // the broker may hold the request until there is something
	PullSubscription             // Subscription stands in the request
	PullClassFilter              // removed in 5.0
	PullLite                     // from a lite pull consumer
)

// PullHeader is the header of a pull (PullMessageRequestHeader). Texts alias the command.
type PullHeader struct {
	ConsumerGroup  []byte
	Topic          []byte
	QueueID        int32
	QueueOffset    int64 // the first that is wanted
	MaxMsgNums     int32
	SysFlag        int32 // PullCommitOffset …
	CommitOffset   int64
	SuspendMillis  int64
	Subscription   []byte
	SubVersion     int64
	ExpressionType []byte // "" is TAG
	MaxMsgBytes    int32  // 0 when the client has no wish
	RequestSource  int32  // -1 a client, 0 to 2 a proxy
	ForwardClient  []byte // proxyFrowardClientId
}

var pullRequired = [...]struct{ name, want string }{
	{"consumerGroup", "text"}, {"topic", "text"}, {"queueId", "number of 32 bits"}, {"queueOffset", "number of 64 bits"},
	{"maxMsgNums", "number of 32 bits"}, {"sysFlag", "number of 32 bits"}, {"commitOffset", "number of 64 bits"},
	{"suspendTimeoutMillis", "number of 64 bits"}, {"subVersion", "number of 64 bits"},
}

// ParsePullHeader reads the header of a pull (11, 361) without an allocation. The error is a [*HeaderError].
func ParsePullHeader(c *Command, h *PullHeader) error {
	*h = PullHeader{RequestSource: -1}
	seen := 0
	for i := range c.Ext {
		v, ok, n, want := c.Ext[i].Value, true, -1, "number of 32 bits"
		switch string(c.Ext[i].Key) {
		case "consumerGroup":
			h.ConsumerGroup, n = v, 0
		case "topic":
			h.Topic, n = v, 1
		case "queueId":
			h.QueueID, ok = parse32(v)
			n = 2
		case "queueOffset":
			h.QueueOffset, ok = parseInt(v, 64)
			n = 3
		case "maxMsgNums":
			h.MaxMsgNums, ok = parse32(v)
			n = 4
		case "sysFlag":
			h.SysFlag, ok = parse32(v)
			n = 5
		case "commitOffset":
			h.CommitOffset, ok = parseInt(v, 64)
			n = 6
		case "suspendTimeoutMillis":
			h.SuspendMillis, ok = parseInt(v, 64)
			n = 7
		case "subVersion":
			h.SubVersion, ok = parseInt(v, 64)
			n = 8
		case "subscription":
			h.Subscription = v
		case "expressionType":
			h.ExpressionType = v
		case "maxMsgBytes":
			h.MaxMsgBytes, ok = optional32(v)
		case "requestSource":
			if len(v) > 0 {
				h.RequestSource, ok = parse32(v)
			}
		case "proxyFrowardClientId":
			h.ForwardClient = v
		}
		if n >= 0 {
			seen |= 1 << n
			want = pullRequired[n].want
		}
		if !ok {
			return &HeaderError{string(c.Ext[i].Key), string(v), want, ErrMalformed}
		}
	}
	for n, f := range pullRequired {
		if seen&(1<<n) == 0 {
			return &HeaderError{f.name, "", f.want, ErrMissing}
		}
	}
	return nil
}

// AppendPullRequest appends a whole pull request. It does not allocate when dst has room.
func AppendPullRequest(dst []byte, code RequestCode, opaque int32, s Serialize, h *PullHeader) []byte {
	e := encoder{dst: dst, ser: s}
	e.begin(int32(code), opaque, 0, "")
	e.bytes("consumerGroup", h.ConsumerGroup)
	e.bytes("topic", h.Topic)
	e.int("queueId", int64(h.QueueID))
	e.int("queueOffset", h.QueueOffset)
	e.int("maxMsgNums", int64(h.MaxMsgNums))
	e.int("sysFlag", int64(h.SysFlag))
	e.int("commitOffset", h.CommitOffset)
	e.int("suspendTimeoutMillis", h.SuspendMillis)
	e.optional("subscription", h.Subscription)
	e.int("subVersion", h.SubVersion)
	e.optional("expressionType", h.ExpressionType)
	if h.MaxMsgBytes > 0 {
		e.int("maxMsgBytes", int64(h.MaxMsgBytes))
	}
	return e.finish(opaque, 0, "", 0)
}

// PullResponse is the header of the answer to a pull (PullMessageResponseHeader). The four fields are on
// every answer, found or not: Java unboxes them unseen, and Go clients would start over at 0.
type PullResponse struct {
	SuggestBrokerID int64 // suggestWhichBrokerId: 0 the master
	NextBeginOffset int64
	MinOffset       int64
	MaxOffset       int64
	ForbiddenType   int32 // with NO_PERMISSION: 1 broker, 2 group, 3 topic, 4 broadcast, 5 subscription; 0 is left out
}

// AppendPullResponse appends the answer to a pull up to where its body of bodyBytes begins: whole stored
// records, which the caller writes behind it. It does not allocate when dst has room.
func AppendPullResponse(dst []byte, opaque int32, s Serialize, code ResponseCode, remark string, h *PullResponse, bodyBytes int) []byte {
	e := encoder{dst: dst, ser: s}
	e.begin(int32(code), opaque, flagResponse, remark)
	e.int("suggestWhichBrokerId", h.SuggestBrokerID)
	e.int("nextBeginOffset", h.NextBeginOffset)
	e.int("minOffset", h.MinOffset)
	e.int("maxOffset", h.MaxOffset)
	if h.ForbiddenType != 0 {
		e.int("forbiddenType", int64(h.ForbiddenType))
	}
	return e.finish(opaque, flagResponse, remark, bodyBytes)
}

// ParsePullResponse reads the header of an answer to a pull; all four fields must be there.
func ParsePullResponse(c *Command, h *PullResponse) error {
	*h = PullResponse{}
	seen := 0
	for i := range c.Ext {
		v, ok := c.Ext[i].Value, true
		switch string(c.Ext[i].Key) {
		case "suggestWhichBrokerId":
			h.SuggestBrokerID, ok = parseInt(v, 64)
			seen |= 1
		case "nextBeginOffset":
			h.NextBeginOffset, ok = parseInt(v, 64)
			seen |= 2
		case "minOffset":
			h.MinOffset, ok = parseInt(v, 64)
			seen |= 4
		case "maxOffset":
			h.MaxOffset, ok = parseInt(v, 64)
			seen |= 8
		case "forbiddenType":
			h.ForbiddenType, ok = optional32(v)
		}
		if !ok {
			return &HeaderError{string(c.Ext[i].Key), string(v), "number of 64 bits", ErrMalformed}
		}
	}
	for i, name := range [...]string{"suggestWhichBrokerId", "nextBeginOffset", "minOffset", "maxOffset"} {
		if seen&(1<<i) == 0 {
			return &HeaderError{name, "", "number of 64 bits", ErrMissing}
		}
	}
	return nil
}
