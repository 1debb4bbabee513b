package protocol

import (
	"maps"
	"slices"
	"strconv"
)

// RequestCode says what a request wants (org.apache.rocketmq.remoting.protocol.RequestCode; before 5.0
// org.apache.rocketmq.common.protocol.RequestCode). Codes from 200050 on fit the JSON header alone.
type RequestCode int32

// The request codes, by number.
const (
	RequestSendMessage                          RequestCode = 10     // SEND_MESSAGE
	RequestPullMessage                          RequestCode = 11     // PULL_MESSAGE
	RequestQueryMessage                         RequestCode = 12     // QUERY_MESSAGE
	RequestQueryBrokerOffset                    RequestCode = 13     // QUERY_BROKER_OFFSET
	RequestQueryConsumerOffset                  RequestCode = 14     // QUERY_CONSUMER_OFFSET
	RequestUpdateConsumerOffset                 RequestCode = 15     // UPDATE_CONSUMER_OFFSET
	RequestUpdateAndCreateTopic                 RequestCode = 17     // UPDATE_AND_CREATE_TOPIC
	RequestUpdateAndCreateTopicList             RequestCode = 18     // UPDATE_AND_CREATE_TOPIC_LIST
	RequestGetAllTopicConfig                    RequestCode = 21     // GET_ALL_TOPIC_CONFIG
	RequestGetTopicConfigList                   RequestCode = 22     // GET_TOPIC_CONFIG_LIST
	RequestGetTopicNameList                     RequestCode = 23     // GET_TOPIC_NAME_LIST
	RequestUpdateBrokerConfig                   RequestCode = 25     // UPDATE_BROKER_CONFIG
	RequestGetBrokerConfig                      RequestCode = 26     // GET_BROKER_CONFIG
	RequestTriggerDeleteFiles                   RequestCode = 27     // TRIGGER_DELETE_FILES
	RequestGetBrokerRuntimeInfo                 RequestCode = 28     // GET_BROKER_RUNTIME_INFO
	RequestSearchOffsetByTimestamp              RequestCode = 29     // SEARCH_OFFSET_BY_TIMESTAMP
	RequestGetMaxOffset                         RequestCode = 30     // GET_MAX_OFFSET
	RequestGetMinOffset                         RequestCode = 31     // GET_MIN_OFFSET
	RequestGetEarliestMsgStoreTime              RequestCode = 32     // GET_EARLIEST_MSG_STORETIME
	RequestViewMessageByID                      RequestCode = 33     // VIEW_MESSAGE_BY_ID
	RequestHeartBeat                            RequestCode = 34     // HEART_BEAT
	RequestUnregisterClient                     RequestCode = 35     // UNREGISTER_CLIENT
	RequestConsumerSendMsgBack                  RequestCode = 36     // CONSUMER_SEND_MSG_BACK
	RequestEndTransaction                       RequestCode = 37     // END_TRANSACTION
	RequestGetConsumerListByGroup               RequestCode = 38     // GET_CONSUMER_LIST_BY_GROUP
	RequestCheckTransactionState                RequestCode = 39     // CHECK_TRANSACTION_STATE
	RequestNotifyConsumerIDsChanged             RequestCode = 40     // NOTIFY_CONSUMER_IDS_CHANGED
	RequestLockBatchMQ                          RequestCode = 41     // LOCK_BATCH_MQ
	RequestUnlockBatchMQ                        RequestCode = 42     // UNLOCK_BATCH_MQ
	RequestGetAllConsumerOffset                 RequestCode = 43     // GET_ALL_CONSUMER_OFFSET
	RequestGetAllDelayOffset                    RequestCode = 45     // GET_ALL_DELAY_OFFSET
	RequestCheckClientConfig                    RequestCode = 46     // CHECK_CLIENT_CONFIG
	RequestGetClientConfig                      RequestCode = 47     // GET_CLIENT_CONFIG
	RequestUpdateAndCreateACLConfig             RequestCode = 50     // UPDATE_AND_CREATE_ACL_CONFIG
	RequestDeleteACLConfig                      RequestCode = 51     // DELETE_ACL_CONFIG
	RequestGetBrokerClusterACLInfo              RequestCode = 52     // GET_BROKER_CLUSTER_ACL_INFO
	RequestUpdateGlobalWhiteAddrsConfig         RequestCode = 53     // UPDATE_GLOBAL_WHITE_ADDRS_CONFIG
	RequestGetBrokerClusterACLConfig            RequestCode = 54     // GET_BROKER_CLUSTER_ACL_CONFIG
	RequestGetTimerCheckPoint                   RequestCode = 60     // GET_TIMER_CHECK_POINT
	RequestGetTimerMetrics                      RequestCode = 61     // GET_TIMER_METRICS
	RequestPutKVConfig                          RequestCode = 100    // PUT_KV_CONFIG
	RequestGetKVConfig                          RequestCode = 101    // GET_KV_CONFIG
	RequestDeleteKVConfig                       RequestCode = 102    // DELETE_KV_CONFIG
	RequestRegisterBroker                       RequestCode = 103    // REGISTER_BROKER
	RequestUnregisterBroker                     RequestCode = 104    // UNREGISTER_BROKER
	RequestGetRouteInfoByTopic                  RequestCode = 105    // GET_ROUTEINFO_BY_TOPIC
	RequestGetBrokerClusterInfo                 RequestCode = 106    // GET_BROKER_CLUSTER_INFO
	RequestUpdateAndCreateSubscriptionGroup     RequestCode = 200    // UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
	RequestGetAllSubscriptionGroupConfig        RequestCode = 201    // GET_ALL_SUBSCRIPTIONGROUP_CONFIG
	RequestGetTopicStatsInfo                    RequestCode = 202    // GET_TOPIC_STATS_INFO
	RequestGetConsumerConnectionList            RequestCode = 203    // GET_CONSUMER_CONNECTION_LIST
	RequestGetProducerConnectionList            RequestCode = 204    // GET_PRODUCER_CONNECTION_LIST
	RequestWipeWritePermOfBroker                RequestCode = 205    // WIPE_WRITE_PERM_OF_BROKER
	RequestGetAllTopicListFromNameServer        RequestCode = 206    // GET_ALL_TOPIC_LIST_FROM_NAMESERVER
	RequestDeleteSubscriptionGroup              RequestCode = 207    // DELETE_SUBSCRIPTIONGROUP
	RequestGetConsumeStats                      RequestCode = 208    // GET_CONSUME_STATS
	RequestSuspendConsumer                      RequestCode = 209    // SUSPEND_CONSUMER
	RequestResumeConsumer                       RequestCode = 210    // RESUME_CONSUMER
	RequestResetConsumerOffsetInConsumer        RequestCode = 211    // RESET_CONSUMER_OFFSET_IN_CONSUMER
	RequestResetConsumerOffsetInBroker          RequestCode = 212    // RESET_CONSUMER_OFFSET_IN_BROKER
	RequestAdjustConsumerThreadPool             RequestCode = 213    // ADJUST_CONSUMER_THREAD_POOL
	RequestWhoConsumeTheMessage                 RequestCode = 214    // WHO_CONSUME_THE_MESSAGE
	RequestDeleteTopicInBroker                  RequestCode = 215    // DELETE_TOPIC_IN_BROKER
	RequestDeleteTopicInNameServer              RequestCode = 216    // DELETE_TOPIC_IN_NAMESRV
	RequestRegisterTopicInNameServer            RequestCode = 217    // REGISTER_TOPIC_IN_NAMESRV
	RequestGetKVListByNamespace                 RequestCode = 219    // GET_KVLIST_BY_NAMESPACE
	RequestResetConsumerClientOffset            RequestCode = 220    // RESET_CONSUMER_CLIENT_OFFSET
	RequestGetConsumerStatusFromClient          RequestCode = 221    // GET_CONSUMER_STATUS_FROM_CLIENT
	RequestInvokeBrokerToResetOffset            RequestCode = 222    // INVOKE_BROKER_TO_RESET_OFFSET
	RequestInvokeBrokerToGetConsumerStatus      RequestCode = 223    // INVOKE_BROKER_TO_GET_CONSUMER_STATUS
	RequestGetTopicsByCluster                   RequestCode = 224    // GET_TOPICS_BY_CLUSTER
	RequestUpdateAndCreateSubscriptionGroupList RequestCode = 225    // UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
	RequestQueryTopicConsumeByWho               RequestCode = 300    // QUERY_TOPIC_CONSUME_BY_WHO
	RequestRegisterFilterServer                 RequestCode = 301    // REGISTER_FILTER_SERVER
	RequestRegisterMessageFilterClass           RequestCode = 302    // REGISTER_MESSAGE_FILTER_CLASS
	RequestQueryConsumeTimeSpan                 RequestCode = 303    // QUERY_CONSUME_TIME_SPAN
	RequestGetSystemTopicListFromNS             RequestCode = 304    // GET_SYSTEM_TOPIC_LIST_FROM_NS
	RequestGetSystemTopicListFromBroker         RequestCode = 305    // GET_SYSTEM_TOPIC_LIST_FROM_BROKER
	RequestCleanExpiredConsumeQueue             RequestCode = 306    // CLEAN_EXPIRED_CONSUMEQUEUE
	RequestGetConsumerRunningInfo               RequestCode = 307    // GET_CONSUMER_RUNNING_INFO
	RequestQueryCorrectionOffset                RequestCode = 308    // QUERY_CORRECTION_OFFSET
	RequestConsumeMessageDirectly               RequestCode = 309    // CONSUME_MESSAGE_DIRECTLY
	RequestSendMessageV2                        RequestCode = 310    // SEND_MESSAGE_V2
	RequestGetUnitTopicList                     RequestCode = 311    // GET_UNIT_TOPIC_LIST
	RequestGetHasUnitSubTopicList               RequestCode = 312    // GET_HAS_UNIT_SUB_TOPIC_LIST
	RequestGetHasUnitSubUnunitTopicList         RequestCode = 313    // GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST
	RequestCloneGroupOffset                     RequestCode = 314    // CLONE_GROUP_OFFSET
	RequestViewBrokerStatsData                  RequestCode = 315    // VIEW_BROKER_STATS_DATA
	RequestCleanUnusedTopic                     RequestCode = 316    // CLEAN_UNUSED_TOPIC
	RequestGetBrokerConsumeStats                RequestCode = 317    // GET_BROKER_CONSUME_STATS
	RequestUpdateNameServerConfig               RequestCode = 318    // UPDATE_NAMESRV_CONFIG
	RequestGetNameServerConfig                  RequestCode = 319    // GET_NAMESRV_CONFIG
	RequestSendBatchMessage                     RequestCode = 320    // SEND_BATCH_MESSAGE
	RequestQueryConsumeQueue                    RequestCode = 321    // QUERY_CONSUME_QUEUE
	RequestQueryDataVersion                     RequestCode = 322    // QUERY_DATA_VERSION
	RequestResumeCheckHalfMessage               RequestCode = 323    // RESUME_CHECK_HALF_MESSAGE
	RequestSendReplyMessage                     RequestCode = 324    // SEND_REPLY_MESSAGE
	RequestSendReplyMessageV2                   RequestCode = 325    // SEND_REPLY_MESSAGE_V2
	RequestPushReplyMessageToClient             RequestCode = 326    // PUSH_REPLY_MESSAGE_TO_CLIENT
	RequestAddWritePermOfBroker                 RequestCode = 327    // ADD_WRITE_PERM_OF_BROKER
	RequestGetAllProducerInfo                   RequestCode = 328    // GET_ALL_PRODUCER_INFO
	RequestDeleteExpiredCommitLog               RequestCode = 329    // DELETE_EXPIRED_COMMITLOG
	RequestQueryTopicsByConsumer                RequestCode = 343    // QUERY_TOPICS_BY_CONSUMER
	RequestQuerySubscriptionByConsumer          RequestCode = 345    // QUERY_SUBSCRIPTION_BY_CONSUMER
	RequestGetTopicConfig                       RequestCode = 351    // GET_TOPIC_CONFIG
	RequestGetSubscriptionGroupConfig           RequestCode = 352    // GET_SUBSCRIPTIONGROUP_CONFIG
	RequestUpdateAndGetGroupForbidden           RequestCode = 353    // UPDATE_AND_GET_GROUP_FORBIDDEN
	RequestCheckRocksDBCQWriteProgress          RequestCode = 354    // CHECK_ROCKSDB_CQ_WRITE_PROGRESS
	RequestExportRocksDBConfigToJSON            RequestCode = 355    // EXPORT_ROCKSDB_CONFIG_TO_JSON
	RequestLitePullMessage                      RequestCode = 361    // LITE_PULL_MESSAGE
	RequestRecallMessage                        RequestCode = 370    // RECALL_MESSAGE
	RequestQueryAssignment                      RequestCode = 400    // QUERY_ASSIGNMENT
	RequestSetMessageRequestMode                RequestCode = 401    // SET_MESSAGE_REQUEST_MODE
	RequestGetAllMessageRequestMode             RequestCode = 402    // GET_ALL_MESSAGE_REQUEST_MODE
	RequestUpdateAndCreateStaticTopic           RequestCode = 513    // UPDATE_AND_CREATE_STATIC_TOPIC
	RequestGetBrokerMemberGroup                 RequestCode = 901    // GET_BROKER_MEMBER_GROUP
	RequestAddBroker                            RequestCode = 902    // ADD_BROKER
	RequestRemoveBroker                         RequestCode = 903    // REMOVE_BROKER
	RequestBrokerHeartbeat                      RequestCode = 904    // BROKER_HEARTBEAT
	RequestNotifyMinBrokerIDChange              RequestCode = 905    // NOTIFY_MIN_BROKER_ID_CHANGE
	RequestExchangeBrokerHAInfo                 RequestCode = 906    // EXCHANGE_BROKER_HA_INFO
	RequestGetBrokerHAStatus                    RequestCode = 907    // GET_BROKER_HA_STATUS
	RequestResetMasterFlushOffset               RequestCode = 908    // RESET_MASTER_FLUSH_OFFSET
	RequestControllerAlterSyncStateSet          RequestCode = 1001   // CONTROLLER_ALTER_SYNC_STATE_SET
	RequestControllerElectMaster                RequestCode = 1002   // CONTROLLER_ELECT_MASTER
	RequestControllerRegisterBroker             RequestCode = 1003   // CONTROLLER_REGISTER_BROKER
	RequestControllerGetReplicaInfo             RequestCode = 1004   // CONTROLLER_GET_REPLICA_INFO
	RequestControllerGetMetadataInfo            RequestCode = 1005   // CONTROLLER_GET_METADATA_INFO
	RequestControllerGetSyncStateData           RequestCode = 1006   // CONTROLLER_GET_SYNC_STATE_DATA
	RequestGetBrokerEpochCache                  RequestCode = 1007   // GET_BROKER_EPOCH_CACHE
	RequestNotifyBrokerRoleChanged              RequestCode = 1008   // NOTIFY_BROKER_ROLE_CHANGED
	RequestUpdateControllerConfig               RequestCode = 1009   // UPDATE_CONTROLLER_CONFIG
	RequestGetControllerConfig                  RequestCode = 1010   // GET_CONTROLLER_CONFIG
	RequestCleanBrokerData                      RequestCode = 1011   // CLEAN_BROKER_DATA
	RequestControllerGetNextBrokerID            RequestCode = 1012   // CONTROLLER_GET_NEXT_BROKER_ID
	RequestControllerApplyBrokerID              RequestCode = 1013   // CONTROLLER_APPLY_BROKER_ID
	RequestBrokerCloseChannelRequest            RequestCode = 1014   // BROKER_CLOSE_CHANNEL_REQUEST
	RequestCheckNotActiveBrokerRequest          RequestCode = 1015   // CHECK_NOT_ACTIVE_BROKER_REQUEST
	RequestGetBrokerLiveInfoRequest             RequestCode = 1016   // GET_BROKER_LIVE_INFO_REQUEST
	RequestGetSyncStateDataRequest              RequestCode = 1017   // GET_SYNC_STATE_DATA_REQUEST
	RequestRaftBrokerHeartBeatEventRequest      RequestCode = 1018   // RAFT_BROKER_HEART_BEAT_EVENT_REQUEST
	RequestUpdateColdDataFlowControlConfig      RequestCode = 2001   // UPDATE_COLD_DATA_FLOW_CTR_CONFIG
	RequestRemoveColdDataFlowControlConfig      RequestCode = 2002   // REMOVE_COLD_DATA_FLOW_CTR_CONFIG
	RequestGetColdDataFlowControlInfo           RequestCode = 2003   // GET_COLD_DATA_FLOW_CTR_INFO
	RequestSetCommitLogReadMode                 RequestCode = 2004   // SET_COMMITLOG_READ_MODE
	RequestAuthCreateUser                       RequestCode = 3001   // AUTH_CREATE_USER
	RequestAuthUpdateUser                       RequestCode = 3002   // AUTH_UPDATE_USER
	RequestAuthDeleteUser                       RequestCode = 3003   // AUTH_DELETE_USER
	RequestAuthGetUser                          RequestCode = 3004   // AUTH_GET_USER
	RequestAuthListUser                         RequestCode = 3005   // AUTH_LIST_USER
	RequestAuthCreateACL                        RequestCode = 3006   // AUTH_CREATE_ACL
	RequestAuthUpdateACL                        RequestCode = 3007   // AUTH_UPDATE_ACL
	RequestAuthDeleteACL                        RequestCode = 3008   // AUTH_DELETE_ACL
	RequestAuthGetACL                           RequestCode = 3009   // AUTH_GET_ACL
	RequestAuthListACL                          RequestCode = 3010   // AUTH_LIST_ACL
	RequestPopMessage                           RequestCode = 200050 // POP_MESSAGE
	RequestAckMessage                           RequestCode = 200051 // ACK_MESSAGE
	RequestPeekMessage                          RequestCode = 200052 // PEEK_MESSAGE
	RequestChangeMessageInvisibleTime           RequestCode = 200053 // CHANGE_MESSAGE_INVISIBLETIME
	RequestNotification                         RequestCode = 200054 // NOTIFICATION
	RequestPollingInfo                          RequestCode = 200055 // POLLING_INFO
	RequestPopRollback                          RequestCode = 200056 // POP_ROLLBACK
	RequestBatchAckMessage                      RequestCode = 200151 // BATCH_ACK_MESSAGE

	// Ours, which Apache does not have.
	RequestPromoteReplica RequestCode = 930001 // PROMOTE_REPLICA
	RequestTransferLeader RequestCode = 930002 // TRANSFER_LEADER
	RequestChangeMember   RequestCode = 930003 // CHANGE_MEMBER
	RequestMergeOffsets   RequestCode = 930004 // MERGE_CONSUMER_OFFSET
)

var requestCodeNames = map[RequestCode]string{
	RequestSendMessage:                          "SEND_MESSAGE",
	RequestPullMessage:                          "PULL_MESSAGE",
	RequestQueryMessage:                         "QUERY_MESSAGE",
	RequestQueryBrokerOffset:                    "QUERY_BROKER_OFFSET",
	RequestQueryConsumerOffset:                  "QUERY_CONSUMER_OFFSET",
	RequestUpdateConsumerOffset:                 "UPDATE_CONSUMER_OFFSET",
	RequestUpdateAndCreateTopic:                 "UPDATE_AND_CREATE_TOPIC",
	RequestUpdateAndCreateTopicList:             "UPDATE_AND_CREATE_TOPIC_LIST",
	RequestGetAllTopicConfig:                    "GET_ALL_TOPIC_CONFIG",
	RequestGetTopicConfigList:                   "GET_TOPIC_CONFIG_LIST",
	RequestGetTopicNameList:                     "GET_TOPIC_NAME_LIST",
	RequestUpdateBrokerConfig:                   "UPDATE_BROKER_CONFIG",
	RequestGetBrokerConfig:                      "GET_BROKER_CONFIG",
	RequestTriggerDeleteFiles:                   "TRIGGER_DELETE_FILES",
	RequestGetBrokerRuntimeInfo:                 "GET_BROKER_RUNTIME_INFO",
	RequestSearchOffsetByTimestamp:              "SEARCH_OFFSET_BY_TIMESTAMP",
	RequestGetMaxOffset:                         "GET_MAX_OFFSET",
	RequestGetMinOffset:                         "GET_MIN_OFFSET",
	RequestGetEarliestMsgStoreTime:              "GET_EARLIEST_MSG_STORETIME",
	RequestViewMessageByID:                      "VIEW_MESSAGE_BY_ID",
	RequestHeartBeat:                            "HEART_BEAT",
	RequestUnregisterClient:                     "UNREGISTER_CLIENT",
	RequestConsumerSendMsgBack:                  "CONSUMER_SEND_MSG_BACK",
	RequestEndTransaction:                       "END_TRANSACTION",
	RequestGetConsumerListByGroup:               "GET_CONSUMER_LIST_BY_GROUP",
	RequestCheckTransactionState:                "CHECK_TRANSACTION_STATE",
	RequestNotifyConsumerIDsChanged:             "NOTIFY_CONSUMER_IDS_CHANGED",
	RequestLockBatchMQ:                          "LOCK_BATCH_MQ",
	RequestUnlockBatchMQ:                        "UNLOCK_BATCH_MQ",
	RequestGetAllConsumerOffset:                 "GET_ALL_CONSUMER_OFFSET",
	RequestGetAllDelayOffset:                    "GET_ALL_DELAY_OFFSET",
	RequestCheckClientConfig:                    "CHECK_CLIENT_CONFIG",
	RequestGetClientConfig:                      "GET_CLIENT_CONFIG",
	RequestUpdateAndCreateACLConfig:             "UPDATE_AND_CREATE_ACL_CONFIG",
	RequestDeleteACLConfig:                      "DELETE_ACL_CONFIG",
	RequestGetBrokerClusterACLInfo:              "GET_BROKER_CLUSTER_ACL_INFO",
	RequestUpdateGlobalWhiteAddrsConfig:         "UPDATE_GLOBAL_WHITE_ADDRS_CONFIG",
	RequestGetBrokerClusterACLConfig:            "GET_BROKER_CLUSTER_ACL_CONFIG",
	RequestGetTimerCheckPoint:                   "GET_TIMER_CHECK_POINT",
	RequestGetTimerMetrics:                      "GET_TIMER_METRICS",
	RequestPutKVConfig:                          "PUT_KV_CONFIG",
	RequestGetKVConfig:                          "GET_KV_CONFIG",
	RequestDeleteKVConfig:                       "DELETE_KV_CONFIG",
	RequestRegisterBroker:                       "REGISTER_BROKER",
	RequestUnregisterBroker:                     "UNREGISTER_BROKER",
	RequestGetRouteInfoByTopic:                  "GET_ROUTEINFO_BY_TOPIC",
	RequestGetBrokerClusterInfo:                 "GET_BROKER_CLUSTER_INFO",
	RequestUpdateAndCreateSubscriptionGroup:     "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP",
	RequestGetAllSubscriptionGroupConfig:        "GET_ALL_SUBSCRIPTIONGROUP_CONFIG",
	RequestGetTopicStatsInfo:                    "GET_TOPIC_STATS_INFO",
	RequestGetConsumerConnectionList:            "GET_CONSUMER_CONNECTION_LIST",
	RequestGetProducerConnectionList:            "GET_PRODUCER_CONNECTION_LIST",
	RequestWipeWritePermOfBroker:                "WIPE_WRITE_PERM_OF_BROKER",
	RequestGetAllTopicListFromNameServer:        "GET_ALL_TOPIC_LIST_FROM_NAMESERVER",
	RequestDeleteSubscriptionGroup:              "DELETE_SUBSCRIPTIONGROUP",
	RequestGetConsumeStats:                      "GET_CONSUME_STATS",
	RequestSuspendConsumer:                      "SUSPEND_CONSUMER",
	RequestResumeConsumer:                       "RESUME_CONSUMER",
	RequestResetConsumerOffsetInConsumer:        "RESET_CONSUMER_OFFSET_IN_CONSUMER",
	RequestResetConsumerOffsetInBroker:          "RESET_CONSUMER_OFFSET_IN_BROKER",
	RequestAdjustConsumerThreadPool:             "ADJUST_CONSUMER_THREAD_POOL",
	RequestWhoConsumeTheMessage:                 "WHO_CONSUME_THE_MESSAGE",
	RequestDeleteTopicInBroker:                  "DELETE_TOPIC_IN_BROKER",
	RequestDeleteTopicInNameServer:              "DELETE_TOPIC_IN_NAMESRV",
	RequestRegisterTopicInNameServer:            "REGISTER_TOPIC_IN_NAMESRV",
	RequestGetKVListByNamespace:                 "GET_KVLIST_BY_NAMESPACE",
	RequestResetConsumerClientOffset:            "RESET_CONSUMER_CLIENT_OFFSET",
	RequestGetConsumerStatusFromClient:          "GET_CONSUMER_STATUS_FROM_CLIENT",
	RequestInvokeBrokerToResetOffset:            "INVOKE_BROKER_TO_RESET_OFFSET",
	RequestInvokeBrokerToGetConsumerStatus:      "INVOKE_BROKER_TO_GET_CONSUMER_STATUS",
	RequestGetTopicsByCluster:                   "GET_TOPICS_BY_CLUSTER",
	RequestUpdateAndCreateSubscriptionGroupList: "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST",
	RequestQueryTopicConsumeByWho:               "QUERY_TOPIC_CONSUME_BY_WHO",
	RequestRegisterFilterServer:                 "REGISTER_FILTER_SERVER",
	RequestRegisterMessageFilterClass:           "REGISTER_MESSAGE_FILTER_CLASS",
	RequestQueryConsumeTimeSpan:                 "QUERY_CONSUME_TIME_SPAN",
	RequestGetSystemTopicListFromNS:             "GET_SYSTEM_TOPIC_LIST_FROM_NS",
	RequestGetSystemTopicListFromBroker:         "GET_SYSTEM_TOPIC_LIST_FROM_BROKER",
	RequestCleanExpiredConsumeQueue:             "CLEAN_EXPIRED_CONSUMEQUEUE",
	RequestGetConsumerRunningInfo:               "GET_CONSUMER_RUNNING_INFO",
	RequestQueryCorrectionOffset:                "QUERY_CORRECTION_OFFSET",
	RequestConsumeMessageDirectly:               "CONSUME_MESSAGE_DIRECTLY",
	RequestSendMessageV2:                        "SEND_MESSAGE_V2",
	RequestGetUnitTopicList:                     "GET_UNIT_TOPIC_LIST",
	RequestGetHasUnitSubTopicList:               "GET_HAS_UNIT_SUB_TOPIC_LIST",
	RequestGetHasUnitSubUnunitTopicList:         "GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST",
	RequestCloneGroupOffset:                     "CLONE_GROUP_OFFSET",
	RequestViewBrokerStatsData:                  "VIEW_BROKER_STATS_DATA",
	RequestCleanUnusedTopic:                     "CLEAN_UNUSED_TOPIC",
	RequestGetBrokerConsumeStats:                "GET_BROKER_CONSUME_STATS",
	RequestUpdateNameServerConfig:               "UPDATE_NAMESRV_CONFIG",
	RequestGetNameServerConfig:                  "GET_NAMESRV_CONFIG",
	RequestSendBatchMessage:                     "SEND_BATCH_MESSAGE",
	RequestQueryConsumeQueue:                    "QUERY_CONSUME_QUEUE",
	RequestQueryDataVersion:                     "QUERY_DATA_VERSION",
	RequestResumeCheckHalfMessage:               "RESUME_CHECK_HALF_MESSAGE",
	RequestSendReplyMessage:                     "SEND_REPLY_MESSAGE",
	RequestSendReplyMessageV2:                   "SEND_REPLY_MESSAGE_V2",
	RequestPushReplyMessageToClient:             "PUSH_REPLY_MESSAGE_TO_CLIENT",
	RequestAddWritePermOfBroker:                 "ADD_WRITE_PERM_OF_BROKER",
	RequestGetAllProducerInfo:                   "GET_ALL_PRODUCER_INFO",
	RequestDeleteExpiredCommitLog:               "DELETE_EXPIRED_COMMITLOG",
	RequestQueryTopicsByConsumer:                "QUERY_TOPICS_BY_CONSUMER",
	RequestQuerySubscriptionByConsumer:          "QUERY_SUBSCRIPTION_BY_CONSUMER",
	RequestGetTopicConfig:                       "GET_TOPIC_CONFIG",
	RequestGetSubscriptionGroupConfig:           "GET_SUBSCRIPTIONGROUP_CONFIG",
	RequestUpdateAndGetGroupForbidden:           "UPDATE_AND_GET_GROUP_FORBIDDEN",
	RequestCheckRocksDBCQWriteProgress:          "CHECK_ROCKSDB_CQ_WRITE_PROGRESS",
	RequestExportRocksDBConfigToJSON:            "EXPORT_ROCKSDB_CONFIG_TO_JSON",
	RequestLitePullMessage:                      "LITE_PULL_MESSAGE",
	RequestRecallMessage:                        "RECALL_MESSAGE",
	RequestQueryAssignment:                      "QUERY_ASSIGNMENT",
	RequestSetMessageRequestMode:                "SET_MESSAGE_REQUEST_MODE",
	RequestGetAllMessageRequestMode:             "GET_ALL_MESSAGE_REQUEST_MODE",
	RequestUpdateAndCreateStaticTopic:           "UPDATE_AND_CREATE_STATIC_TOPIC",
	RequestGetBrokerMemberGroup:                 "GET_BROKER_MEMBER_GROUP",
	RequestAddBroker:                            "ADD_BROKER",
	RequestRemoveBroker:                         "REMOVE_BROKER",
	RequestBrokerHeartbeat:                      "BROKER_HEARTBEAT",
	RequestNotifyMinBrokerIDChange:              "NOTIFY_MIN_BROKER_ID_CHANGE",
	RequestExchangeBrokerHAInfo:                 "EXCHANGE_BROKER_HA_INFO",
	RequestGetBrokerHAStatus:                    "GET_BROKER_HA_STATUS",
	RequestPromoteReplica:                       "PROMOTE_REPLICA",
	RequestTransferLeader:                       "TRANSFER_LEADER",
	RequestChangeMember:                         "CHANGE_MEMBER",
	RequestMergeOffsets:                         "MERGE_CONSUMER_OFFSET",
	RequestResetMasterFlushOffset:               "RESET_MASTER_FLUSH_OFFSET",
	RequestControllerAlterSyncStateSet:          "CONTROLLER_ALTER_SYNC_STATE_SET",
	RequestControllerElectMaster:                "CONTROLLER_ELECT_MASTER",
	RequestControllerRegisterBroker:             "CONTROLLER_REGISTER_BROKER",
	RequestControllerGetReplicaInfo:             "CONTROLLER_GET_REPLICA_INFO",
	RequestControllerGetMetadataInfo:            "CONTROLLER_GET_METADATA_INFO",
	RequestControllerGetSyncStateData:           "CONTROLLER_GET_SYNC_STATE_DATA",
	RequestGetBrokerEpochCache:                  "GET_BROKER_EPOCH_CACHE",
	RequestNotifyBrokerRoleChanged:              "NOTIFY_BROKER_ROLE_CHANGED",
	RequestUpdateControllerConfig:               "UPDATE_CONTROLLER_CONFIG",
	RequestGetControllerConfig:                  "GET_CONTROLLER_CONFIG",
	RequestCleanBrokerData:                      "CLEAN_BROKER_DATA",
	RequestControllerGetNextBrokerID:            "CONTROLLER_GET_NEXT_BROKER_ID",
	RequestControllerApplyBrokerID:              "CONTROLLER_APPLY_BROKER_ID",
	RequestBrokerCloseChannelRequest:            "BROKER_CLOSE_CHANNEL_REQUEST",
	RequestCheckNotActiveBrokerRequest:          "CHECK_NOT_ACTIVE_BROKER_REQUEST",
	RequestGetBrokerLiveInfoRequest:             "GET_BROKER_LIVE_INFO_REQUEST",
	RequestGetSyncStateDataRequest:              "GET_SYNC_STATE_DATA_REQUEST",
	RequestRaftBrokerHeartBeatEventRequest:      "RAFT_BROKER_HEART_BEAT_EVENT_REQUEST",
	RequestUpdateColdDataFlowControlConfig:      "UPDATE_COLD_DATA_FLOW_CTR_CONFIG",
	RequestRemoveColdDataFlowControlConfig:      "REMOVE_COLD_DATA_FLOW_CTR_CONFIG",
	RequestGetColdDataFlowControlInfo:           "GET_COLD_DATA_FLOW_CTR_INFO",
	RequestSetCommitLogReadMode:                 "SET_COMMITLOG_READ_MODE",
	RequestAuthCreateUser:                       "AUTH_CREATE_USER",
	RequestAuthUpdateUser:                       "AUTH_UPDATE_USER",
	RequestAuthDeleteUser:                       "AUTH_DELETE_USER",
	RequestAuthGetUser:                          "AUTH_GET_USER",
	RequestAuthListUser:                         "AUTH_LIST_USER",
	RequestAuthCreateACL:                        "AUTH_CREATE_ACL",
	RequestAuthUpdateACL:                        "AUTH_UPDATE_ACL",
	RequestAuthDeleteACL:                        "AUTH_DELETE_ACL",
	RequestAuthGetACL:                           "AUTH_GET_ACL",
	RequestAuthListACL:                          "AUTH_LIST_ACL",
	RequestPopMessage:                           "POP_MESSAGE",
	RequestAckMessage:                           "ACK_MESSAGE",
	RequestPeekMessage:                          "PEEK_MESSAGE",
	RequestChangeMessageInvisibleTime:           "CHANGE_MESSAGE_INVISIBLETIME",
	RequestNotification:                         "NOTIFICATION",
	RequestPollingInfo:                          "POLLING_INFO",
	RequestPopRollback:                          "POP_ROLLBACK",
	RequestBatchAckMessage:                      "BATCH_ACK_MESSAGE",
}

// RequestCodes lists all that have a name, in their order.
func RequestCodes() []RequestCode { return slices.Sorted(maps.Keys(requestCodeNames)) }

// String is the name that Java gives it, or its number.
func (c RequestCode) String() string {
	if n, ok := requestCodeNames[c]; ok {
		return n
	}
	return strconv.Itoa(int(c))
}
