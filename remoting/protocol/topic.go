package protocol

import (
	"cmp"
	"strconv"
)

// Bits of a topic's Perm (PermName).
const (
	PermInherit  = 1 // topics may be made after this one
	PermWrite    = 2
	PermRead     = 4
	PermPriority = 8
)

// MessageQueue is one queue of a topic on one broker (org.apache.rocketmq.common.message.MessageQueue).
type MessageQueue struct {
	Topic      string `json:"topic"`
	BrokerName string `json:"brokerName"`
	QueueID    int32  `json:"queueId"`
}

// Compare orders queues by topic, broker and id, as all clients sort them before they share them out.
func (q MessageQueue) Compare(o MessageQueue) int {
	return cmp.Or(cmp.Compare(q.Topic, o.Topic), cmp.Compare(q.BrokerName, o.BrokerName), cmp.Compare(q.QueueID, o.QueueID))
}

// String is topic@broker:queue.
func (q MessageQueue) String() string {
	return q.Topic + "@" + q.BrokerName + ":" + strconv.Itoa(int(q.QueueID))
}

// DataVersion tells one state of a table from another (DataVersion). Two are the same when all three
// numbers are.
type DataVersion struct {
	StateVersion int64 `json:"stateVersion"` // grows when a slave becomes master; absent before 5.0
	Timestamp    int64 `json:"timestamp"`    // ms
	Counter      int64 `json:"counter"`
}

// Next is the version after a change at the time nowMillis.
func (v DataVersion) Next(stateVersion, nowMillis int64) DataVersion {
	return DataVersion{stateVersion, nowMillis, v.Counter + 1}
}

// TopicConfig is what a broker knows of a topic (TopicConfig).
type TopicConfig struct {
	TopicName       string            `json:"topicName"`
	ReadQueueNums   int32             `json:"readQueueNums"`
	WriteQueueNums  int32             `json:"writeQueueNums"`
	Perm            int32             `json:"perm"`
	TopicFilterType string            `json:"topicFilterType"` // SINGLE_TAG or MULTI_TAG
	TopicSysFlag    int32             `json:"topicSysFlag"`    // 1 unit, 2 has unit subscriptions
	Order           bool              `json:"order"`
	Attributes      map[string]string `json:"attributes"` // 5.x; null in 4.x
}

// NewTopicConfig is a topic with as many queues to read as to write, open for both.
func NewTopicConfig(name string, queues int32) *TopicConfig {
	c := &TopicConfig{}
	c.setDefaults()
	c.TopicName, c.ReadQueueNums, c.WriteQueueNums = name, queues, queues
	return c
}

func (c *TopicConfig) setDefaults() {
	*c = TopicConfig{ReadQueueNums: 16, WriteQueueNums: 16, Perm: PermRead | PermWrite, TopicFilterType: "SINGLE_TAG"}
}

// TopicQueueMappingInfo is the broker's part of a static topic, as a name server keeps it (TopicQueueMappingInfo).
type TopicQueueMappingInfo struct {
	Topic       string          `json:"topic"`
	Scope       string          `json:"scope"` // "__global__"
	TotalQueues int32           `json:"totalQueues"`
	BrokerName  string          `json:"bname"`
	Epoch       int64           `json:"epoch"`
	Dirty       bool            `json:"dirty"`
	CurrIDMap   map[int32]int32 `json:"currIdMap"`
}

// LogicQueueMappingItem is one stretch of a logical queue (LogicQueueMappingItem).
type LogicQueueMappingItem struct {
	Gen         int32  `json:"gen"`
	QueueID     int32  `json:"queueId"`
	BrokerName  string `json:"bname"`
	LogicOffset int64  `json:"logicOffset"`
	StartOffset int64  `json:"startOffset"`
	EndOffset   int64  `json:"endOffset"`
	TimeOfStart int64  `json:"timeOfStart"`
	TimeOfEnd   int64  `json:"timeOfEnd"`
}

// TopicQueueMappingDetail is [TopicQueueMappingInfo] with the stretches (TopicQueueMappingDetail).
type TopicQueueMappingDetail struct {
	TopicQueueMappingInfo
	HostedQueues map[int32][]LogicQueueMappingItem `json:"hostedQueues"`
}

// TopicConfigWrapper is a broker's table of topics, as it registers it and as tools read it
// (TopicConfigAndMappingSerializeWrapper; TopicConfigSerializeWrapper in 4.x).
type TopicConfigWrapper struct {
	TopicConfigTable           map[string]*TopicConfig             `json:"topicConfigTable"`
	DataVersion                DataVersion                         `json:"dataVersion"`
	MappingDataVersion         *DataVersion                        `json:"mappingDataVersion"`
	TopicQueueMappingInfoMap   map[string]*TopicQueueMappingInfo   `json:"topicQueueMappingInfoMap"`
	TopicQueueMappingDetailMap map[string]*TopicQueueMappingDetail `json:"topicQueueMappingDetailMap"`
}

// RegisterBrokerBody is the body of REGISTER_BROKER.
type RegisterBrokerBody struct {
	FilterServerList            []string           `json:"filterServerList"`
	TopicConfigSerializeWrapper TopicConfigWrapper `json:"topicConfigSerializeWrapper"`
}

// TopicConfigList is the body of UPDATE_AND_CREATE_TOPIC_LIST (CreateTopicListRequestBody).
type TopicConfigList struct {
	TopicConfigList []*TopicConfig `json:"topicConfigList"`
}

// TopicConfigAndMapping is the body of GET_TOPIC_CONFIG (TopicConfigAndQueueMapping).
type TopicConfigAndMapping struct {
	TopicConfig
	MappingDetail *TopicQueueMappingDetail `json:"mappingDetail"`
}

// TopicList is a list of topics (TopicList); BrokerAddr is where more are to be had.
type TopicList struct {
	BrokerAddr string   `json:"brokerAddr,omitempty"`
	TopicList  []string `json:"topicList"`
}

// TopicOffset is the state of one queue (TopicOffset).
type TopicOffset struct {
	MinOffset           int64 `json:"minOffset"`
	MaxOffset           int64 `json:"maxOffset"` // the next one
	LastUpdateTimestamp int64 `json:"lastUpdateTimestamp"`
}

// TopicStatsTable is the body of GET_TOPIC_STATS_INFO.
type TopicStatsTable struct {
	OffsetTable map[MessageQueue]TopicOffset `json:"offsetTable"`
	TopicPutTPS float64                      `json:"topicPutTps"`
}
