package protocol

// SendBackHeader is the header of CONSUMER_SEND_MSG_BACK (ConsumerSendMsgBackRequestHeader).
type SendBackHeader struct {
	Offset            int64  `ext:"offset,required"` // of the message in the commit log
	Group             string `ext:"group,required"`
	DelayLevel        int32  `ext:"delayLevel,required"` // 0 the broker chooses, below 0 to the dead letters
	OriginMsgID       string `ext:"originMsgId"`
	OriginTopic       string `ext:"originTopic"`
	UnitMode          bool   `ext:"unitMode"`
	MaxReconsumeTimes *int32 `ext:"maxReconsumeTimes"`
	BrokerName        string `ext:"bname"`
}

// PushReplyHeader is the header of PUSH_REPLY_MESSAGE_TO_CLIENT (ReplyMessageRequestHeader).
type PushReplyHeader struct {
	ProducerGroup         string `ext:"producerGroup,required"`
	Topic                 string `ext:"topic,required"`
	DefaultTopic          string `ext:"defaultTopic,required"`
	DefaultTopicQueueNums int32  `ext:"defaultTopicQueueNums,required"`
	QueueID               int32  `ext:"queueId,required"`
	SysFlag               int32  `ext:"sysFlag,required"`
	BornTimestamp         int64  `ext:"bornTimestamp,required"`
	Flag                  int32  `ext:"flag,required"`
	Properties            string `ext:"properties"`
	ReconsumeTimes        *int32 `ext:"reconsumeTimes"`
	UnitMode              bool   `ext:"unitMode"`
	BornHost              string `ext:"bornHost,required"`
	StoreHost             string `ext:"storeHost,required"`
	StoreTimestamp        int64  `ext:"storeTimestamp,required"`
}

// QueryOffsetHeader is the header of QUERY_CONSUMER_OFFSET.
type QueryOffsetHeader struct {
	ConsumerGroup     string `ext:"consumerGroup,required"`
	Topic             string `ext:"topic,required"`
	QueueID           int32  `ext:"queueId,required"`
	SetZeroIfNotFound *bool  `ext:"setZeroIfNotFound"` // nil counts as true
}

// OffsetResponse is the answer of QUERY_CONSUMER_OFFSET, GET_MAX_OFFSET, GET_MIN_OFFSET and
// SEARCH_OFFSET_BY_TIMESTAMP.
type OffsetResponse struct {
	Offset int64 `ext:"offset,required"`
}

// UpdateOffsetHeader is the header of UPDATE_CONSUMER_OFFSET.
type UpdateOffsetHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
	Topic         string `ext:"topic,required"`
	QueueID       int32  `ext:"queueId,required"`
	CommitOffset  int64  `ext:"commitOffset,required"`
}

// QueueHeader is the header of requests about one queue: GET_MIN_OFFSET, GET_EARLIEST_MSG_STORETIME, and
// GET_MAX_OFFSET, where Committed false asks for what is not yet on disk too.
type QueueHeader struct {
	Topic     string `ext:"topic,required"`
	QueueID   int32  `ext:"queueId,required"`
	Committed bool   `ext:"committed,default=true"`
}

// Which of several messages with one time a search means (BoundaryType).
const (
	BoundaryLower = "LOWER"
	BoundaryUpper = "UPPER"
)

// SearchOffsetHeader is the header of SEARCH_OFFSET_BY_TIMESTAMP.
type SearchOffsetHeader struct {
	Topic        string `ext:"topic,required"`
	QueueID      int32  `ext:"queueId,required"`
	Timestamp    int64  `ext:"timestamp,required"` // ms of the store
	BoundaryType string `ext:"boundaryType"`       // BoundaryLower when empty, in any case
}

// EarliestStoreTimeResponse is the store time in ms of the oldest message of a queue, -1 when it is empty.
type EarliestStoreTimeResponse struct {
	Timestamp int64 `ext:"timestamp,required"`
}

// CloneGroupOffsetHeader is the header of CLONE_GROUP_OFFSET.
type CloneGroupOffsetHeader struct {
	SrcGroup  string `ext:"srcGroup,required"`
	DestGroup string `ext:"destGroup,required"`
	Topic     string `ext:"topic"`
	Offline   bool   `ext:"offline"`
}

// QueryCorrectionOffsetHeader is the header of QUERY_CORRECTION_OFFSET.
type QueryCorrectionOffsetHeader struct {
	FilterGroups string `ext:"filterGroups"` // with ',' between them
	CompareGroup string `ext:"compareGroup,required"`
	Topic        string `ext:"topic,required"`
}

// HeartbeatResponse is the answer of HEART_BEAT; both are true for a broker that keeps no fingerprints.
type HeartbeatResponse struct {
	SupportsV2 bool `ext:"IS_SUPPORT_HEART_BEAT_V2"`
	SubChange  bool `ext:"IS_SUB_CHANGE"`
}

// UnregisterClientHeader is the header of UNREGISTER_CLIENT.
type UnregisterClientHeader struct {
	ClientID      string `ext:"clientID,required"`
	ProducerGroup string `ext:"producerGroup"`
	ConsumerGroup string `ext:"consumerGroup"`
}

// ConsumerGroupHeader is the header of GET_CONSUMER_LIST_BY_GROUP, NOTIFY_CONSUMER_IDS_CHANGED and
// GET_CONSUMER_CONNECTION_LIST.
type ConsumerGroupHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
}

// ProducerGroupHeader is the header of GET_PRODUCER_CONNECTION_LIST.
type ProducerGroupHeader struct {
	ProducerGroup string `ext:"producerGroup,required"`
}

// CreateTopicHeader is the header of UPDATE_AND_CREATE_TOPIC (CreateTopicRequestHeader).
type CreateTopicHeader struct {
	Topic           string `ext:"topic,required"`
	DefaultTopic    string `ext:"defaultTopic,required"`
	ReadQueueNums   int32  `ext:"readQueueNums,required"`
	WriteQueueNums  int32  `ext:"writeQueueNums,required"`
	Perm            int32  `ext:"perm,required"`
	TopicFilterType string `ext:"topicFilterType,required"`
	TopicSysFlag    int32  `ext:"topicSysFlag"`
	Order           bool   `ext:"order"`
	Attributes      string `ext:"attributes"` // +key=value,-key
	Force           *bool  `ext:"force"`
}

// GetAllTopicConfigHeader asks for a part of the table; before 5.3.4 nobody sends it.
type GetAllTopicConfigHeader struct {
	TopicSeq    *int32 `ext:"topicSeq"`
	DataVersion string `ext:"dataVersion"`
	MaxTopicNum *int32 `ext:"maxTopicNum"`
}

// GetAllTopicConfigResponse is the size of the whole table.
type GetAllTopicConfigResponse struct {
	TotalTopicNum *int32 `ext:"totalTopicNum"`
}

// GetAllSubscriptionGroupHeader asks for a part of the table; before 5.3.4 nobody sends it.
type GetAllSubscriptionGroupHeader struct {
	GroupSeq    *int32 `ext:"groupSeq"`
	DataVersion string `ext:"dataVersion"`
	MaxGroupNum *int32 `ext:"maxGroupNum"`
}

// GetAllSubscriptionGroupResponse is the size of the whole table.
type GetAllSubscriptionGroupResponse struct {
	TotalGroupNum *int32 `ext:"totalGroupNum"`
}

// GetTopicConfigHeader is the header of GET_TOPIC_CONFIG.
type GetTopicConfigHeader struct {
	Topic string `ext:"topic,required"`
	Lo    *bool  `ext:"lo"` // with the mapping of a static topic
}

// QueryConsumeTimeSpanHeader is the header of QUERY_CONSUME_TIME_SPAN, QUERY_SUBSCRIPTION_BY_CONSUMER and
// GET_CONSUMER_STATUS_FROM_CLIENT.
type QueryConsumeTimeSpanHeader struct {
	Topic string `ext:"topic,required"`
	Group string `ext:"group,required"`
}

// QuerySubscriptionHeader is the header of QUERY_SUBSCRIPTION_BY_CONSUMER.
type QuerySubscriptionHeader = QueryConsumeTimeSpanHeader

// GetConsumerStatusHeader is the header of INVOKE_BROKER_TO_GET_CONSUMER_STATUS and of
// GET_CONSUMER_STATUS_FROM_CLIENT.
type GetConsumerStatusHeader struct {
	Topic      string `ext:"topic,required"`
	Group      string `ext:"group,required"`
	ClientAddr string `ext:"clientAddr"`
}

// QueryConsumeQueueHeader is the header of QUERY_CONSUME_QUEUE.
type QueryConsumeQueueHeader struct {
	Topic         string `ext:"topic,required"`
	QueueID       int32  `ext:"queueId,required"`
	Index         int64  `ext:"index,required"`
	Count         int32  `ext:"count,required"`
	ConsumerGroup string `ext:"consumerGroup"`
}

// GroupHeader is the header of GET_SUBSCRIPTIONGROUP_CONFIG and QUERY_TOPICS_BY_CONSUMER.
type GroupHeader struct {
	Group string `ext:"group,required"`
}

// DeleteSubscriptionGroupHeader is the header of DELETE_SUBSCRIPTIONGROUP; either flag drops the offsets.
type DeleteSubscriptionGroupHeader struct {
	GroupName    string `ext:"groupName,required"`
	CleanOffset  bool   `ext:"cleanOffset"`  // 5.x
	RemoveOffset bool   `ext:"removeOffset"` // 4.9
}

// GroupForbiddenHeader is the header of UPDATE_AND_GET_GROUP_FORBIDDEN; Readable nil asks.
type GroupForbiddenHeader struct {
	Group    string `ext:"group,required"`
	Topic    string `ext:"topic,required"`
	Readable *bool  `ext:"readable"`
}

// GetConsumeStatsHeader is the header of GET_CONSUME_STATS.
type GetConsumeStatsHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
	Topic         string `ext:"topic"`     // "" for all
	TopicList     string `ext:"topicList"` // with ';' between them; wins over Topic
}

// GetBrokerConsumeStatsHeader is the header of GET_BROKER_CONSUME_STATS.
type GetBrokerConsumeStatsHeader struct {
	IsOrder bool `ext:"isOrder,required"`
}

// GetConsumerRunningInfoHeader is the header of GET_CONSUMER_RUNNING_INFO.
type GetConsumerRunningInfoHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
	ClientID      string `ext:"clientId,required"`
	JstackEnable  bool   `ext:"jstackEnable"`
}

// ConsumeMessageDirectlyHeader is the header of CONSUME_MESSAGE_DIRECTLY.
type ConsumeMessageDirectlyHeader struct {
	ConsumerGroup string `ext:"consumerGroup,required"`
	ClientID      string `ext:"clientId"`
	MsgID         string `ext:"msgId"`      // offset message id
	BrokerName    string `ext:"brokerName"` // added on the way to the consumer
	Topic         string `ext:"topic"`
	TopicSysFlag  *int32 `ext:"topicSysFlag"`
	GroupSysFlag  *int32 `ext:"groupSysFlag"`
}

// ResetOffsetHeader is the header of INVOKE_BROKER_TO_RESET_OFFSET and RESET_CONSUMER_CLIENT_OFFSET.
type ResetOffsetHeader struct {
	Topic     string `ext:"topic,required"`
	Group     string `ext:"group,required"`
	Timestamp int64  `ext:"timestamp,required"` // ms, -1 the latest
	IsForce   bool   `ext:"isForce"`
	QueueID   int32  `ext:"queueId,default=-1"` // -1 all
	Offset    int64  `ext:"offset,default=-1"`  // -1 by time
}

// QueryMessageHeader is the header of QUERY_MESSAGE.
type QueryMessageHeader struct {
	Topic          string `ext:"topic,required"`
	Key            string `ext:"key,required"`
	MaxNum         int32  `ext:"maxNum,required"`
	BeginTimestamp int64  `ext:"beginTimestamp,required"`
	EndTimestamp   int64  `ext:"endTimestamp,required"`
	UniqueKey      bool   `ext:"_UNIQUE_KEY_QUERY"` // Key is a UNIQ_KEY
}

// QueryMessageResponse says how far the index goes.
type QueryMessageResponse struct {
	IndexLastUpdateTimestamp int64 `ext:"indexLastUpdateTimestamp"`
	IndexLastUpdatePhyOffset int64 `ext:"indexLastUpdatePhyoffset"`
}

// ViewMessageHeader is the header of VIEW_MESSAGE_BY_ID.
type ViewMessageHeader struct {
	Offset int64  `ext:"offset,required"` // in the commit log
	Topic  string `ext:"topic"`
}

// GetBrokerConfigResponse is the version of a configuration, as the JSON of a DataVersion.
type GetBrokerConfigResponse struct {
	Version string `ext:"version,required"`
}

// ViewBrokerStatsHeader is the header of VIEW_BROKER_STATS_DATA.
type ViewBrokerStatsHeader struct {
	StatsName string `ext:"statsName,required"`
	StatsKey  string `ext:"statsKey,required"`
}

// CommitLogReadModeHeader is the header of SET_COMMITLOG_READ_MODE.
type CommitLogReadModeHeader struct {
	Mode int32 `ext:"READ_AHEAD_MODE,required"` // 0 normal, 1 random
}

// EndTransactionHeader is the header of END_TRANSACTION.
type EndTransactionHeader struct {
	Topic                string `ext:"topic"`
	ProducerGroup        string `ext:"producerGroup,required"`
	TranStateTableOffset int64  `ext:"tranStateTableOffset,required"`
	CommitLogOffset      int64  `ext:"commitLogOffset,required"`
	CommitOrRollback     int32  `ext:"commitOrRollback,required"` // 8 commit, 12 roll back, 0 unknown
	FromTransactionCheck bool   `ext:"fromTransactionCheck"`
	MsgID                string `ext:"msgId,required"`
	TransactionID        string `ext:"transactionId"`
	BrokerName           string `ext:"bname"`
}

// CheckTransactionStateHeader is the header of CHECK_TRANSACTION_STATE.
type CheckTransactionStateHeader struct {
	Topic                string `ext:"topic"`
	TranStateTableOffset int64  `ext:"tranStateTableOffset,required"`
	CommitLogOffset      int64  `ext:"commitLogOffset,required"`
	MsgID                string `ext:"msgId"`
	TransactionID        string `ext:"transactionId"`
	OffsetMsgID          string `ext:"offsetMsgId"`
	BrokerName           string `ext:"bname"`
}

// ResumeCheckHalfMessageHeader is the header of RESUME_CHECK_HALF_MESSAGE.
type ResumeCheckHalfMessageHeader struct {
	Topic string `ext:"topic"`
	MsgID string `ext:"msgId"`
}

// ExchangeHAInfoHeader is header and answer of EXCHANGE_BROKER_HA_INFO.
type ExchangeHAInfoHeader struct {
	MasterHAAddress   string `ext:"masterHaAddress"`
	MasterFlushOffset *int64 `ext:"masterFlushOffset"`
	MasterAddress     string `ext:"masterAddress"`
}

// ResetMasterFlushOffsetHeader is the header of RESET_MASTER_FLUSH_OFFSET.
type ResetMasterFlushOffsetHeader struct {
	MasterFlushOffset int64 `ext:"masterFlushOffset,required"`
}
