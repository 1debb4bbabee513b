package protocol

// RegisterBrokerHeader is the header of REGISTER_BROKER (RegisterBrokerRequestHeader).
type RegisterBrokerHeader struct {
	BrokerName             string `ext:"brokerName,required"`
	BrokerAddr             string `ext:"brokerAddr,required"`
	ClusterName            string `ext:"clusterName,required"`
	HAServerAddr           string `ext:"haServerAddr,required"`
	BrokerID               int64  `ext:"brokerId,required"`
	HeartbeatTimeoutMillis *int64 `ext:"heartbeatTimeoutMillis"` // nil is 120 s
	EnableActingMaster     *bool  `ext:"enableActingMaster"`     // nil: a broker from before 5.0
	Compressed             bool   `ext:"compressed"`
	BodyCRC32              int32  `ext:"bodyCrc32"` // see BodyCRC; 0 is not checked
	ZoneName               string `ext:"__ZONE_NAME"`
}

// RegisterBrokerResponse is what a slave learns of its master (RegisterBrokerResponseHeader).
type RegisterBrokerResponse struct {
	HAServerAddr string `ext:"haServerAddr"`
	MasterAddr   string `ext:"masterAddr"`
}

// UnregisterBrokerHeader is the header of UNREGISTER_BROKER, and of QUERY_DATA_VERSION
// (UnRegisterBrokerRequestHeader, QueryDataVersionRequestHeader).
type UnregisterBrokerHeader struct {
	BrokerName  string `ext:"brokerName,required"`
	BrokerAddr  string `ext:"brokerAddr,required"`
	ClusterName string `ext:"clusterName,required"`
	BrokerID    int64  `ext:"brokerId,required"`
}

// QueryDataVersionHeader is the header of QUERY_DATA_VERSION.
type QueryDataVersionHeader = UnregisterBrokerHeader

// QueryDataVersionResponse says whether the name server has another version than the broker.
type QueryDataVersionResponse struct {
	Changed bool `ext:"changed,required"`
}

// BrokerHeartbeatHeader is the header of BROKER_HEARTBEAT; what is optional is for a controller.
type BrokerHeartbeatHeader struct {
	ClusterName            string `ext:"clusterName,required"`
	BrokerAddr             string `ext:"brokerAddr,required"`
	BrokerName             string `ext:"brokerName,required"`
	BrokerID               *int64 `ext:"brokerId"`
	Epoch                  *int32 `ext:"epoch"`
	MaxOffset              *int64 `ext:"maxOffset"`
	ConfirmOffset          *int64 `ext:"confirmOffset"`
	HeartbeatTimeoutMillis *int64 `ext:"heartbeatTimeoutMills"`
	ElectionPriority       *int32 `ext:"electionPriority"`
}

// GetBrokerMemberGroupHeader is the header of GET_BROKER_MEMBER_GROUP.
type GetBrokerMemberGroupHeader struct {
	ClusterName string `ext:"clusterName,required"`
	BrokerName  string `ext:"brokerName,required"`
}

// NotifyMinBrokerIDChangeHeader is the header of NOTIFY_MIN_BROKER_ID_CHANGE.
type NotifyMinBrokerIDChangeHeader struct {
	MinBrokerID       *int64 `ext:"minBrokerId"`
	BrokerName        string `ext:"brokerName"`
	MinBrokerAddr     string `ext:"minBrokerAddr"`
	OfflineBrokerAddr string `ext:"offlineBrokerAddr"`
	HABrokerAddr      string `ext:"haBrokerAddr"`
}

// GetRouteInfoHeader is the header of GET_ROUTEINFO_BY_TOPIC (GetRouteInfoRequestHeader).
type GetRouteInfoHeader struct {
	Topic                  string `ext:"topic,required"`
	AcceptStandardJSONOnly *bool  `ext:"acceptStandardJsonOnly"`
	ZoneName               string `ext:"__ZONE_NAME"`
	ZoneMode               *bool  `ext:"__ZONE_MODE"`
}

// PutKVConfigHeader is the header of PUT_KV_CONFIG.
type PutKVConfigHeader struct {
	Namespace string `ext:"namespace,required"`
	Key       string `ext:"key,required"`
	Value     string `ext:"value,required"`
}

// KVConfigHeader is the header of GET_KV_CONFIG and DELETE_KV_CONFIG.
type KVConfigHeader struct {
	Namespace string `ext:"namespace,required"`
	Key       string `ext:"key,required"`
}

// GetKVConfigResponse is the value that was asked for.
type GetKVConfigResponse struct {
	Value string `ext:"value"`
}

// GetKVListHeader is the header of GET_KVLIST_BY_NAMESPACE.
type GetKVListHeader struct {
	Namespace string `ext:"namespace,required"`
}

// WritePermHeader is the header of WIPE_WRITE_PERM_OF_BROKER and ADD_WRITE_PERM_OF_BROKER.
type WritePermHeader struct {
	BrokerName string `ext:"brokerName,required"`
}

// WipeWritePermResponse counts the topics that changed.
type WipeWritePermResponse struct {
	WipeTopicCount int32 `ext:"wipeTopicCount"`
}

// AddWritePermResponse counts the topics that changed.
type AddWritePermResponse struct {
	AddTopicCount int32 `ext:"addTopicCount"`
}

// DeleteTopicInNameServerHeader is the header of DELETE_TOPIC_IN_NAMESRV.
type DeleteTopicInNameServerHeader struct {
	Topic       string `ext:"topic,required"`
	ClusterName string `ext:"clusterName"`
}

// TopicHeader is the header of requests that name a topic and nothing else: DELETE_TOPIC_IN_BROKER,
// GET_TOPIC_STATS_INFO, QUERY_TOPIC_CONSUME_BY_WHO, REGISTER_TOPIC_IN_NAMESRV.
type TopicHeader struct {
	Topic string `ext:"topic,required"`
}

// GetTopicsByClusterHeader is the header of GET_TOPICS_BY_CLUSTER.
type GetTopicsByClusterHeader struct {
	Cluster string `ext:"cluster,required"`
}
