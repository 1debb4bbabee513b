package protocol

// BrokerData is a broker with its copies (org.apache.rocketmq.remoting.protocol.route.BrokerData).
type BrokerData struct {
	Cluster            string           `json:"cluster"`
	BrokerName         string           `json:"brokerName"`
	BrokerAddrs        map[int64]string `json:"brokerAddrs"` // "ip:port" by broker id, 0 the master
	ZoneName           string           `json:"zoneName,omitempty"`
	EnableActingMaster bool             `json:"enableActingMaster"`
}

// QueueData says how many queues of a topic a broker has (QueueData).
type QueueData struct {
	BrokerName     string `json:"brokerName"`
	ReadQueueNums  int32  `json:"readQueueNums"`
	WriteQueueNums int32  `json:"writeQueueNums"`
	Perm           int32  `json:"perm"`
	TopicSysFlag   int32  `json:"topicSysFlag"`
}

// TopicRouteData is where a topic is (TopicRouteData), the body of GET_ROUTEINFO_BY_TOPIC. The Go client cuts
// the text of brokerAddrs at commas and first colons: keep it as [EncodeBody] writes it.
type TopicRouteData struct {
	OrderTopicConf            string                            `json:"orderTopicConf,omitempty"` // "broker:queues;broker:queues"
	QueueDatas                []QueueData                       `json:"queueDatas"`
	BrokerDatas               []BrokerData                      `json:"brokerDatas"`
	FilterServerTable         map[string][]string               `json:"filterServerTable"`
	TopicQueueMappingByBroker map[string]*TopicQueueMappingInfo `json:"topicQueueMappingByBroker,omitempty"`
}

// ClusterInfo is the body of GET_BROKER_CLUSTER_INFO.
type ClusterInfo struct {
	BrokerAddrTable  map[string]BrokerData `json:"brokerAddrTable"`
	ClusterAddrTable map[string][]string   `json:"clusterAddrTable"`
}

// KVTable is a table of texts: order configuration, a namespace of a name server, the state of a broker.
type KVTable struct {
	Table map[string]string `json:"table"`
}

// BrokerMemberGroup is a broker name with its live copies.
type BrokerMemberGroup struct {
	Cluster     string           `json:"cluster"`
	BrokerName  string           `json:"brokerName"`
	BrokerAddrs map[int64]string `json:"brokerAddrs"`
}

// GetBrokerMemberGroupResponseBody is the body of GET_BROKER_MEMBER_GROUP.
type GetBrokerMemberGroupResponseBody struct {
	BrokerMemberGroup BrokerMemberGroup `json:"brokerMemberGroup"`
}
