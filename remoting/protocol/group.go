package protocol

// Expression types of a subscription (ExpressionType).
const (
	ExpressionTag   = "TAG"
	ExpressionSQL92 = "SQL92"
)

// How a group consumes, as Java names it.
const (
	ConsumeActively  = "CONSUME_ACTIVELY"  // the program pulls
	ConsumePassively = "CONSUME_PASSIVELY" // the client pushes
	ConsumePop       = "CONSUME_POP"

	Broadcasting = "BROADCASTING"
	Clustering   = "CLUSTERING"

	ConsumeFromLastOffset  = "CONSUME_FROM_LAST_OFFSET"
	ConsumeFromFirstOffset = "CONSUME_FROM_FIRST_OFFSET"
	ConsumeFromTimestamp   = "CONSUME_FROM_TIMESTAMP"
)

// SubscriptionData is what a group reads of a topic (SubscriptionData).
type SubscriptionData struct {
	ClassFilterMode bool     `json:"classFilterMode"`
	Topic           string   `json:"topic"`
	SubString       string   `json:"subString"` // the expression
	TagsSet         []string `json:"tagsSet"`
	CodeSet         []int32  `json:"codeSet"`    // Java hashes of the tags; Go sends them as text
	SubVersion      int64    `json:"subVersion"` // ms from Java, ns from Go: compare, do not convert
	ExpressionType  string   `json:"expressionType"`
}

func (s *SubscriptionData) setDefaults() { *s = SubscriptionData{ExpressionType: ExpressionTag} }

// GroupRetryPolicy says when a message that failed comes back (GroupRetryPolicy, 5.x).
type GroupRetryPolicy struct {
	Type                   string                  `json:"type"` // CUSTOMIZED or EXPONENTIAL
	ExponentialRetryPolicy *ExponentialRetryPolicy `json:"exponentialRetryPolicy"`
	CustomizedRetryPolicy  *CustomizedRetryPolicy  `json:"customizedRetryPolicy"`
}

// CustomizedRetryPolicy is a list of pauses in ms.
type CustomizedRetryPolicy struct {
	Next []int64 `json:"next"`
}

// ExponentialRetryPolicy grows the pause, in ms, by a factor.
type ExponentialRetryPolicy struct {
	Initial    int64 `json:"initial"`
	Max        int64 `json:"max"`
	Multiplier int64 `json:"multiplier"`
}

// SimpleSubscriptionData is a subscription that a group is held to (SimpleSubscriptionData, 5.x).
type SimpleSubscriptionData struct {
	Topic          string `json:"topic"`
	ExpressionType string `json:"expressionType"`
	Expression     string `json:"expression"`
	Version        int64  `json:"version"`
}

// SubscriptionGroupConfig is what a broker knows of a consumer group (SubscriptionGroupConfig). Members
// that a body leaves out take the values of [NewSubscriptionGroupConfig].
type SubscriptionGroupConfig struct {
	GroupName                      string                   `json:"groupName"`
	ConsumeEnable                  bool                     `json:"consumeEnable"`
	ConsumeFromMinEnable           bool                     `json:"consumeFromMinEnable"`
	ConsumeBroadcastEnable         bool                     `json:"consumeBroadcastEnable"`
	ConsumeMessageOrderly          bool                     `json:"consumeMessageOrderly"`
	RetryQueueNums                 int32                    `json:"retryQueueNums"`
	RetryMaxTimes                  int32                    `json:"retryMaxTimes"`
	GroupRetryPolicy               GroupRetryPolicy         `json:"groupRetryPolicy"`
	BrokerID                       int64                    `json:"brokerId"`
	WhichBrokerWhenConsumeSlowly   int64                    `json:"whichBrokerWhenConsumeSlowly"`
	NotifyConsumerIDsChangedEnable bool                     `json:"notifyConsumerIdsChangedEnable"`
	GroupSysFlag                   int32                    `json:"groupSysFlag"`
	ConsumeTimeoutMinute           int32                    `json:"consumeTimeoutMinute"`
	SubscriptionDataSet            []SimpleSubscriptionData `json:"subscriptionDataSet,omitempty"`
	Attributes                     map[string]string        `json:"attributes"`
}

// NewSubscriptionGroupConfig is a group with Java's defaults: allowed to consume, 16 retries in one retry queue.
func NewSubscriptionGroupConfig(name string) *SubscriptionGroupConfig {
	c := &SubscriptionGroupConfig{}
	c.setDefaults()
	c.GroupName = name
	return c
}

func (c *SubscriptionGroupConfig) setDefaults() {
	*c = SubscriptionGroupConfig{
		ConsumeEnable: true, ConsumeFromMinEnable: true, ConsumeBroadcastEnable: true, RetryQueueNums: 1, RetryMaxTimes: 16,
		GroupRetryPolicy: GroupRetryPolicy{Type: "CUSTOMIZED"}, WhichBrokerWhenConsumeSlowly: 1,
		NotifyConsumerIDsChangedEnable: true, ConsumeTimeoutMinute: 15,
	}
}

// SubscriptionGroupWrapper is the body of GET_ALL_SUBSCRIPTIONGROUP_CONFIG (SubscriptionGroupWrapper).
type SubscriptionGroupWrapper struct {
	SubscriptionGroupTable map[string]*SubscriptionGroupConfig `json:"subscriptionGroupTable"`
	ForbiddenTable         map[string]map[string]int32         `json:"forbiddenTable"` // group, topic, bits
	DataVersion            DataVersion                         `json:"dataVersion"`
}

// SubscriptionGroupList is the body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST.
type SubscriptionGroupList struct {
	GroupConfigList []*SubscriptionGroupConfig `json:"groupConfigList"`
}

// ProducerData is a producer group of a client.
type ProducerData struct {
	GroupName string `json:"groupName"`
}

// ConsumerData is a consumer group of a client (ConsumerData).
type ConsumerData struct {
	GroupName           string             `json:"groupName"`
	ConsumeType         string             `json:"consumeType"`
	MessageModel        string             `json:"messageModel"`
	ConsumeFromWhere    string             `json:"consumeFromWhere"`
	SubscriptionDataSet []SubscriptionData `json:"subscriptionDataSet"`
	UnitMode            bool               `json:"unitMode"`
}

// HeartbeatData is the body of HEART_BEAT (HeartbeatData).
type HeartbeatData struct {
	ClientID             string         `json:"clientID"`
	ProducerDataSet      []ProducerData `json:"producerDataSet"`
	ConsumerDataSet      []ConsumerData `json:"consumerDataSet"`
	HeartbeatFingerprint int32          `json:"heartbeatFingerprint"`
	WithoutSub           bool           `json:"withoutSub"`
}
