package protocol

// GetConsumerListResponseBody is the body of GET_CONSUMER_LIST_BY_GROUP.
type GetConsumerListResponseBody struct {
	ConsumerIDList []string `json:"consumerIdList"`
}

// LockBatchBody is the body of LOCK_BATCH_MQ and UNLOCK_BATCH_MQ (LockBatchRequestBody).
type LockBatchBody struct {
	ConsumerGroup  string         `json:"consumerGroup"`
	ClientID       string         `json:"clientId"`
	OnlyThisBroker bool           `json:"onlyThisBroker"`
	MQSet          []MessageQueue `json:"mqSet"`
}

// LockBatchResponseBody is the body of the answer to LOCK_BATCH_MQ: the queues that the client now holds.
type LockBatchResponseBody struct {
	LockOKMQSet []MessageQueue `json:"lockOKMQSet"`
}

// CheckClientConfigBody is the body of CHECK_CLIENT_CONFIG (CheckClientRequestBody).
type CheckClientConfigBody struct {
	ClientID         string            `json:"clientId"`
	Group            string            `json:"group"`
	Namespace        string            `json:"namespace,omitempty"`
	SubscriptionData *SubscriptionData `json:"subscriptionData"`
}

// Connection is a live client (org.apache.rocketmq.remoting.protocol.body.Connection).
type Connection struct {
	ClientID   string   `json:"clientId"`
	ClientAddr string   `json:"clientAddr"` // "ip:port"
	Language   Language `json:"language"`
	Version    int32    `json:"version"`
}

// ConsumerConnection is the body of GET_CONSUMER_CONNECTION_LIST.
type ConsumerConnection struct {
	ConnectionSet     []Connection                `json:"connectionSet"`
	SubscriptionTable map[string]SubscriptionData `json:"subscriptionTable"`
	ConsumeType       string                      `json:"consumeType"`
	MessageModel      string                      `json:"messageModel"`
	ConsumeFromWhere  string                      `json:"consumeFromWhere"`
}

// ProducerConnection is the body of GET_PRODUCER_CONNECTION_LIST.
type ProducerConnection struct {
	ConnectionSet []Connection `json:"connectionSet"`
}

// ProducerInfo is a live producer.
type ProducerInfo struct {
	ClientID            string   `json:"clientId"`
	RemoteIP            string   `json:"remoteIP"` // "ip:port"
	Language            Language `json:"language"`
	Version             int32    `json:"version"`
	LastUpdateTimestamp int64    `json:"lastUpdateTimestamp"`
}

// ProducerTableInfo is the body of GET_ALL_PRODUCER_INFO: producers by group.
type ProducerTableInfo struct {
	Data map[string][]ProducerInfo `json:"data"`
}

// GroupList is the body of QUERY_TOPIC_CONSUME_BY_WHO.
type GroupList struct {
	GroupList []string `json:"groupList"`
}

// QuerySubscriptionResponseBody is the body of QUERY_SUBSCRIPTION_BY_CONSUMER.
type QuerySubscriptionResponseBody struct {
	SubscriptionData *SubscriptionData `json:"subscriptionData"`
	Group            string            `json:"group"`
	Topic            string            `json:"topic"`
}

// GroupForbidden is the body of UPDATE_AND_GET_GROUP_FORBIDDEN.
type GroupForbidden struct {
	Topic    string `json:"topic"`
	Group    string `json:"group"`
	Readable bool   `json:"readable"`
}

// OffsetWrapper is how far a group is in one queue.
type OffsetWrapper struct {
	BrokerOffset   int64 `json:"brokerOffset"`
	ConsumerOffset int64 `json:"consumerOffset"`
	PullOffset     int64 `json:"pullOffset"`
	LastTimestamp  int64 `json:"lastTimestamp"` // store time of the last message consumed
}

// ConsumeStats is the body of GET_CONSUME_STATS.
type ConsumeStats struct {
	OffsetTable map[MessageQueue]OffsetWrapper `json:"offsetTable"`
	ConsumeTPS  float64                        `json:"consumeTps"`
}

// ConsumeStatsList is the body of GET_BROKER_CONSUME_STATS.
type ConsumeStatsList struct {
	ConsumeStatsList  []map[string][]ConsumeStats `json:"consumeStatsList"`
	BrokerAddr        string                      `json:"brokerAddr"`
	TotalDiff         int64                       `json:"totalDiff"`
	TotalInflightDiff int64                       `json:"totalInflightDiff"`
}

// QueueTimeSpan is the stretch of time that one queue holds (QueueTimeSpan), in ms.
type QueueTimeSpan struct {
	MessageQueue     MessageQueue `json:"messageQueue"`
	MinTimeStamp     int64        `json:"minTimeStamp"`
	MaxTimeStamp     int64        `json:"maxTimeStamp"`
	ConsumeTimeStamp int64        `json:"consumeTimeStamp"`
	DelayTime        int64        `json:"delayTime"`
}

// ConsumeTimeSpanBody is the body of QUERY_CONSUME_TIME_SPAN.
type ConsumeTimeSpanBody struct {
	ConsumeTimeSpanSet []QueueTimeSpan `json:"consumeTimeSpanSet"`
}

// ConsumeQueueData is one entry of a consume queue.
type ConsumeQueueData struct {
	PhysicOffset   int64  `json:"physicOffset"`
	PhysicSize     int32  `json:"physicSize"`
	TagsCode       int64  `json:"tagsCode"`
	ExtendDataJSON string `json:"extendDataJson,omitempty"`
	BitMap         string `json:"bitMap,omitempty"`
	Eval           bool   `json:"eval"`
	Msg            string `json:"msg,omitempty"`
}

// QueryConsumeQueueBody is the body of QUERY_CONSUME_QUEUE.
type QueryConsumeQueueBody struct {
	SubscriptionData *SubscriptionData  `json:"subscriptionData"`
	FilterData       string             `json:"filterData,omitempty"`
	QueueData        []ConsumeQueueData `json:"queueData"`
	MaxQueueIndex    int64              `json:"maxQueueIndex"`
	MinQueueIndex    int64              `json:"minQueueIndex"`
}

// ResetOffsetBody is the body of INVOKE_BROKER_TO_RESET_OFFSET and RESET_CONSUMER_CLIENT_OFFSET.
type ResetOffsetBody struct {
	OffsetTable map[MessageQueue]int64 `json:"offsetTable"`
}

// ResetOffsetCBody is [ResetOffsetBody] for clients in C++, which take no object for a name.
type ResetOffsetCBody struct {
	OffsetTable []QueueOffset `json:"offsetTable"`
}

// QueueOffset is an offset of a queue.
type QueueOffset struct {
	MessageQueue
	Offset int64 `json:"offset"`
}

// ConsumerStatusBody is the body of GET_CONSUMER_STATUS_FROM_CLIENT, where the client fills MessageQueueTable,
// and of INVOKE_BROKER_TO_GET_CONSUMER_STATUS, where the broker fills ConsumerTable by client id.
type ConsumerStatusBody struct {
	MessageQueueTable map[MessageQueue]int64            `json:"messageQueueTable"`
	ConsumerTable     map[string]map[MessageQueue]int64 `json:"consumerTable"`
}

// CorrectionOffsetBody is the body of QUERY_CORRECTION_OFFSET.
type CorrectionOffsetBody struct {
	CorrectionOffsets map[int32]int64 `json:"correctionOffsets"`
}

// ProcessQueueInfo is the state of one queue in a push consumer (ProcessQueueInfo).
type ProcessQueueInfo struct {
	CommitOffset            int64 `json:"commitOffset"`
	CachedMsgMinOffset      int64 `json:"cachedMsgMinOffset"`
	CachedMsgMaxOffset      int64 `json:"cachedMsgMaxOffset"`
	CachedMsgCount          int32 `json:"cachedMsgCount"`
	CachedMsgSizeInMiB      int32 `json:"cachedMsgSizeInMiB"`
	TransactionMsgMinOffset int64 `json:"transactionMsgMinOffset"`
	TransactionMsgMaxOffset int64 `json:"transactionMsgMaxOffset"`
	TransactionMsgCount     int32 `json:"transactionMsgCount"`
	Locked                  bool  `json:"locked"`
	TryUnlockTimes          int64 `json:"tryUnlockTimes"`
	LastLockTimestamp       int64 `json:"lastLockTimestamp"`
	Dropped                 bool  `json:"droped" alias:"dropped"`
	LastPullTimestamp       int64 `json:"lastPullTimestamp"`
	LastConsumeTimestamp    int64 `json:"lastConsumeTimestamp"`
}

// PopProcessQueueInfo is the state of one queue in a pop consumer.
type PopProcessQueueInfo struct {
	WaitAckCount     int32 `json:"waitAckCount"`
	Dropped          bool  `json:"droped" alias:"dropped"`
	LastPopTimestamp int64 `json:"lastPopTimestamp"`
}

// ConsumeStatus is how fast a consumer is, per second and in ms.
type ConsumeStatus struct {
	PullRT            float64 `json:"pullRT"`
	PullTPS           float64 `json:"pullTPS"`
	ConsumeRT         float64 `json:"consumeRT"`
	ConsumeOKTPS      float64 `json:"consumeOKTPS"`
	ConsumeFailedTPS  float64 `json:"consumeFailedTPS"`
	ConsumeFailedMsgs int64   `json:"consumeFailedMsgs"`
}

// Keys of ConsumerRunningInfo.Properties.
const (
	PropNameServerAddr         = "PROP_NAMESERVER_ADDR"
	PropThreadPoolCoreSize     = "PROP_THREADPOOL_CORE_SIZE"
	PropConsumeOrderly         = "PROP_CONSUMEORDERLY"
	PropConsumeType            = "PROP_CONSUME_TYPE"
	PropClientVersion          = "PROP_CLIENT_VERSION"
	PropConsumerStartTimestamp = "PROP_CONSUMER_START_TIMESTAMP"
)

// ConsumerRunningInfo is the body of GET_CONSUMER_RUNNING_INFO.
type ConsumerRunningInfo struct {
	Properties       map[string]string                    `json:"properties"`
	SubscriptionSet  []SubscriptionData                   `json:"subscriptionSet"`
	MQTable          map[MessageQueue]ProcessQueueInfo    `json:"mqTable"`
	MQPopTable       map[MessageQueue]PopProcessQueueInfo `json:"mqPopTable"`
	StatusTable      map[string]ConsumeStatus             `json:"statusTable"`
	UserConsumerInfo map[string]string                    `json:"userConsumerInfo"`
	Jstack           string                               `json:"jstack,omitempty"`
}

// ConsumeMessageDirectlyResult is the body of CONSUME_MESSAGE_DIRECTLY. A number for ConsumeResult, as Go
// clients send it, is the place of the name in Java's list.
type ConsumeMessageDirectlyResult struct {
	Order          bool     `json:"order"`
	AutoCommit     bool     `json:"autoCommit"`
	ConsumeResult  CMResult `json:"consumeResult"`
	Remark         string   `json:"remark,omitempty"`
	SpentTimeMills int64    `json:"spentTimeMills"`
}

// BrokerStatsItem is one window of a statistic.
type BrokerStatsItem struct {
	Sum   int64   `json:"sum"`
	TPS   float64 `json:"tps"`
	AvgPT float64 `json:"avgpt"`
}

// BrokerStatsData is the body of VIEW_BROKER_STATS_DATA.
type BrokerStatsData struct {
	StatsMinute BrokerStatsItem `json:"statsMinute"`
	StatsHour   BrokerStatsItem `json:"statsHour"`
	StatsDay    BrokerStatsItem `json:"statsDay"`
}

// HAConnectionInfo is a slave, as its master sees it.
type HAConnectionInfo struct {
	Addr                    string `json:"addr"`
	SlaveAckOffset          int64  `json:"slaveAckOffset"`
	Diff                    int64  `json:"diff"`
	InSync                  bool   `json:"inSync"`
	TransferredByteInSecond int64  `json:"transferredByteInSecond"`
	TransferFromWhere       int64  `json:"transferFromWhere"`
}

// HAClientInfo is a slave, as it sees itself.
type HAClientInfo struct {
	MasterAddr              string `json:"masterAddr,omitempty"`
	TransferredByteInSecond int64  `json:"transferredByteInSecond"`
	MaxOffset               int64  `json:"maxOffset"`
	LastReadTimestamp       int64  `json:"lastReadTimestamp"`
	LastWriteTimestamp      int64  `json:"lastWriteTimestamp"`
	MasterFlushOffset       int64  `json:"masterFlushOffset"`
}

// HARuntimeInfo is the body of GET_BROKER_HA_STATUS.
type HARuntimeInfo struct {
	Master                   bool               `json:"master"`
	MasterCommitLogMaxOffset int64              `json:"masterCommitLogMaxOffset"`
	InSyncSlaveNums          int32              `json:"inSyncSlaveNums"`
	HAConnectionInfo         []HAConnectionInfo `json:"haConnectionInfo"`
	HAClientRuntimeInfo      HAClientInfo       `json:"haClientRuntimeInfo"`
}

// EpochEntry is a stretch of the log that one master has written, from StartOffset to before EndOffset.
type EpochEntry struct {
	Epoch       int64 `json:"epoch"` // an int for Apache
	StartOffset int64 `json:"startOffset"`
	EndOffset   int64 `json:"endOffset"`
}

// EpochEntryCache is the body of GET_BROKER_EPOCH_CACHE.
type EpochEntryCache struct {
	ClusterName string       `json:"clusterName"`
	BrokerName  string       `json:"brokerName"`
	BrokerID    int64        `json:"brokerId"`
	EpochList   []EpochEntry `json:"epochList"`
	MaxOffset   int64        `json:"maxOffset"`
}

// ConsumerOffsetWrapper is the body of GET_ALL_CONSUMER_OFFSET: offsets by topic@group and queue.
type ConsumerOffsetWrapper struct {
	OffsetTable map[string]map[int32]int64 `json:"offsetTable"`
	DataVersion *DataVersion               `json:"dataVersion"`
}

// DelayOffsetWrapper is the body of GET_ALL_DELAY_OFFSET: queue offsets by delay level.
type DelayOffsetWrapper struct {
	OffsetTable map[int32]int64 `json:"offsetTable"`
	DataVersion *DataVersion    `json:"dataVersion"`
}
