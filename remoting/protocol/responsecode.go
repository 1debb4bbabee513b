package protocol

import "strconv"

// ResponseCode says how a request went (org.apache.rocketmq.remoting.protocol.ResponseCode). Zero is success.
type ResponseCode int32

// The response codes, by number.
const (
	ResponseSuccess                              ResponseCode = 0     // SUCCESS
	ResponseSystemError                          ResponseCode = 1     // SYSTEM_ERROR
	ResponseSystemBusy                           ResponseCode = 2     // SYSTEM_BUSY
	ResponseRequestCodeNotSupported              ResponseCode = 3     // REQUEST_CODE_NOT_SUPPORTED
	ResponseTransactionFailed                    ResponseCode = 4     // TRANSACTION_FAILED
	ResponseFlushDiskTimeout                     ResponseCode = 10    // FLUSH_DISK_TIMEOUT
	ResponseSlaveNotAvailable                    ResponseCode = 11    // SLAVE_NOT_AVAILABLE
	ResponseFlushSlaveTimeout                    ResponseCode = 12    // FLUSH_SLAVE_TIMEOUT
	ResponseMessageIllegal                       ResponseCode = 13    // MESSAGE_ILLEGAL
	ResponseServiceNotAvailable                  ResponseCode = 14    // SERVICE_NOT_AVAILABLE
	ResponseVersionNotSupported                  ResponseCode = 15    // VERSION_NOT_SUPPORTED
	ResponseNoPermission                         ResponseCode = 16    // NO_PERMISSION
	ResponseTopicNotExist                        ResponseCode = 17    // TOPIC_NOT_EXIST
	ResponseTopicExistAlready                    ResponseCode = 18    // TOPIC_EXIST_ALREADY
	ResponsePullNotFound                         ResponseCode = 19    // PULL_NOT_FOUND
	ResponsePullRetryImmediately                 ResponseCode = 20    // PULL_RETRY_IMMEDIATELY
	ResponsePullOffsetMoved                      ResponseCode = 21    // PULL_OFFSET_MOVED
	ResponseQueryNotFound                        ResponseCode = 22    // QUERY_NOT_FOUND
	ResponseSubscriptionParseFailed              ResponseCode = 23    // SUBSCRIPTION_PARSE_FAILED
	ResponseSubscriptionNotExist                 ResponseCode = 24    // SUBSCRIPTION_NOT_EXIST
	ResponseSubscriptionNotLatest                ResponseCode = 25    // SUBSCRIPTION_NOT_LATEST
	ResponseSubscriptionGroupNotExist            ResponseCode = 26    // SUBSCRIPTION_GROUP_NOT_EXIST
	ResponseFilterDataNotExist                   ResponseCode = 27    // FILTER_DATA_NOT_EXIST
	ResponseFilterDataNotLatest                  ResponseCode = 28    // FILTER_DATA_NOT_LATEST
	ResponseInvalidParameter                     ResponseCode = 29    // INVALID_PARAMETER
	ResponseTransactionShouldCommit              ResponseCode = 200   // TRANSACTION_SHOULD_COMMIT
	ResponseTransactionShouldRollback            ResponseCode = 201   // TRANSACTION_SHOULD_ROLLBACK
	ResponseTransactionStateUnknow               ResponseCode = 202   // TRANSACTION_STATE_UNKNOW
	ResponseTransactionStateGroupWrong           ResponseCode = 203   // TRANSACTION_STATE_GROUP_WRONG
	ResponseNoBuyerID                            ResponseCode = 204   // NO_BUYER_ID
	ResponseNotInCurrentUnit                     ResponseCode = 205   // NOT_IN_CURRENT_UNIT
	ResponseConsumerNotOnline                    ResponseCode = 206   // CONSUMER_NOT_ONLINE
	ResponseConsumeMsgTimeout                    ResponseCode = 207   // CONSUME_MSG_TIMEOUT
	ResponseNoMessage                            ResponseCode = 208   // NO_MESSAGE
	ResponsePollingFull                          ResponseCode = 209   // POLLING_FULL
	ResponsePollingTimeout                       ResponseCode = 210   // POLLING_TIMEOUT
	ResponseBrokerNotExist                       ResponseCode = 211   // BROKER_NOT_EXIST
	ResponseBrokerDispatchNotComplete            ResponseCode = 212   // BROKER_DISPATCH_NOT_COMPLETE
	ResponseBroadcastConsumption                 ResponseCode = 213   // BROADCAST_CONSUMPTION
	ResponseFlowControl                          ResponseCode = 215   // FLOW_CONTROL
	ResponseNotLeaderForQueue                    ResponseCode = 501   // NOT_LEADER_FOR_QUEUE
	ResponseIllegalOperation                     ResponseCode = 604   // ILLEGAL_OPERATION
	ResponseGoAway                               ResponseCode = 1500  // GO_AWAY
	ResponseControllerFencedMasterEpoch          ResponseCode = 2000  // CONTROLLER_FENCED_MASTER_EPOCH
	ResponseControllerFencedSyncStateSetEpoch    ResponseCode = 2001  // CONTROLLER_FENCED_SYNC_STATE_SET_EPOCH
	ResponseControllerInvalidMaster              ResponseCode = 2002  // CONTROLLER_INVALID_MASTER
	ResponseControllerInvalidReplicas            ResponseCode = 2003  // CONTROLLER_INVALID_REPLICAS
	ResponseControllerMasterNotAvailable         ResponseCode = 2004  // CONTROLLER_MASTER_NOT_AVAILABLE
	ResponseControllerInvalidRequest             ResponseCode = 2005  // CONTROLLER_INVALID_REQUEST
	ResponseControllerBrokerNotAlive             ResponseCode = 2006  // CONTROLLER_BROKER_NOT_ALIVE
	ResponseControllerNotLeader                  ResponseCode = 2007  // CONTROLLER_NOT_LEADER
	ResponseControllerBrokerMetadataNotExist     ResponseCode = 2008  // CONTROLLER_BROKER_METADATA_NOT_EXIST
	ResponseControllerInvalidCleanBrokerMetadata ResponseCode = 2009  // CONTROLLER_INVALID_CLEAN_BROKER_METADATA
	ResponseControllerBrokerNeedToBeRegistered   ResponseCode = 2010  // CONTROLLER_BROKER_NEED_TO_BE_REGISTERED
	ResponseControllerMasterStillExist           ResponseCode = 2011  // CONTROLLER_MASTER_STILL_EXIST
	ResponseControllerElectMasterFailed          ResponseCode = 2012  // CONTROLLER_ELECT_MASTER_FAILED
	ResponseControllerAlterSyncStateSetFailed    ResponseCode = 2013  // CONTROLLER_ALTER_SYNC_STATE_SET_FAILED
	ResponseControllerBrokerIDInvalid            ResponseCode = 2014  // CONTROLLER_BROKER_ID_INVALID
	ResponseControllerJRaftInternalError         ResponseCode = 2015  // CONTROLLER_JRAFT_INTERNAL_ERROR
	ResponseControllerBrokerLiveInfoNotExists    ResponseCode = 2016  // CONTROLLER_BROKER_LIVE_INFO_NOT_EXISTS
	ResponseUserNotExist                         ResponseCode = 3001  // USER_NOT_EXIST
	ResponsePolicyNotExist                       ResponseCode = 3002  // POLICY_NOT_EXIST
	ResponseRPCUnknown                           ResponseCode = -1000 // RPC_UNKNOWN
	ResponseRPCAddrIsNull                        ResponseCode = -1002 // RPC_ADDR_IS_NULL
	ResponseRPCSendToChannelFailed               ResponseCode = -1004 // RPC_SEND_TO_CHANNEL_FAILED
	ResponseRPCTimeOut                           ResponseCode = -1006 // RPC_TIME_OUT
)

var responseCodeNames = map[ResponseCode]string{
	ResponseSuccess:                              "SUCCESS",
	ResponseSystemError:                          "SYSTEM_ERROR",
	ResponseSystemBusy:                           "SYSTEM_BUSY",
	ResponseRequestCodeNotSupported:              "REQUEST_CODE_NOT_SUPPORTED",
	ResponseTransactionFailed:                    "TRANSACTION_FAILED",
	ResponseFlushDiskTimeout:                     "FLUSH_DISK_TIMEOUT",
	ResponseSlaveNotAvailable:                    "SLAVE_NOT_AVAILABLE",
	ResponseFlushSlaveTimeout:                    "FLUSH_SLAVE_TIMEOUT",
	ResponseMessageIllegal:                       "MESSAGE_ILLEGAL",
	ResponseServiceNotAvailable:                  "SERVICE_NOT_AVAILABLE",
	ResponseVersionNotSupported:                  "VERSION_NOT_SUPPORTED",
	ResponseNoPermission:                         "NO_PERMISSION",
	ResponseTopicNotExist:                        "TOPIC_NOT_EXIST",
	ResponseTopicExistAlready:                    "TOPIC_EXIST_ALREADY",
	ResponsePullNotFound:                         "PULL_NOT_FOUND",
	ResponsePullRetryImmediately:                 "PULL_RETRY_IMMEDIATELY",
	ResponsePullOffsetMoved:                      "PULL_OFFSET_MOVED",
	ResponseQueryNotFound:                        "QUERY_NOT_FOUND",
	ResponseSubscriptionParseFailed:              "SUBSCRIPTION_PARSE_FAILED",
	ResponseSubscriptionNotExist:                 "SUBSCRIPTION_NOT_EXIST",
	ResponseSubscriptionNotLatest:                "SUBSCRIPTION_NOT_LATEST",
	ResponseSubscriptionGroupNotExist:            "SUBSCRIPTION_GROUP_NOT_EXIST",
	ResponseFilterDataNotExist:                   "FILTER_DATA_NOT_EXIST",
	ResponseFilterDataNotLatest:                  "FILTER_DATA_NOT_LATEST",
	ResponseInvalidParameter:                     "INVALID_PARAMETER",
	ResponseTransactionShouldCommit:              "TRANSACTION_SHOULD_COMMIT",
	ResponseTransactionShouldRollback:            "TRANSACTION_SHOULD_ROLLBACK",
	ResponseTransactionStateUnknow:               "TRANSACTION_STATE_UNKNOW",
	ResponseTransactionStateGroupWrong:           "TRANSACTION_STATE_GROUP_WRONG",
	ResponseNoBuyerID:                            "NO_BUYER_ID",
	ResponseNotInCurrentUnit:                     "NOT_IN_CURRENT_UNIT",
	ResponseConsumerNotOnline:                    "CONSUMER_NOT_ONLINE",
	ResponseConsumeMsgTimeout:                    "CONSUME_MSG_TIMEOUT",
	ResponseNoMessage:                            "NO_MESSAGE",
	ResponsePollingFull:                          "POLLING_FULL",
	ResponsePollingTimeout:                       "POLLING_TIMEOUT",
	ResponseBrokerNotExist:                       "BROKER_NOT_EXIST",
	ResponseBrokerDispatchNotComplete:            "BROKER_DISPATCH_NOT_COMPLETE",
	ResponseBroadcastConsumption:                 "BROADCAST_CONSUMPTION",
	ResponseFlowControl:                          "FLOW_CONTROL",
	ResponseNotLeaderForQueue:                    "NOT_LEADER_FOR_QUEUE",
	ResponseIllegalOperation:                     "ILLEGAL_OPERATION",
	ResponseGoAway:                               "GO_AWAY",
	ResponseControllerFencedMasterEpoch:          "CONTROLLER_FENCED_MASTER_EPOCH",
	ResponseControllerFencedSyncStateSetEpoch:    "CONTROLLER_FENCED_SYNC_STATE_SET_EPOCH",
	ResponseControllerInvalidMaster:              "CONTROLLER_INVALID_MASTER",
	ResponseControllerInvalidReplicas:            "CONTROLLER_INVALID_REPLICAS",
	ResponseControllerMasterNotAvailable:         "CONTROLLER_MASTER_NOT_AVAILABLE",
	ResponseControllerInvalidRequest:             "CONTROLLER_INVALID_REQUEST",
	ResponseControllerBrokerNotAlive:             "CONTROLLER_BROKER_NOT_ALIVE",
	ResponseControllerNotLeader:                  "CONTROLLER_NOT_LEADER",
	ResponseControllerBrokerMetadataNotExist:     "CONTROLLER_BROKER_METADATA_NOT_EXIST",
	ResponseControllerInvalidCleanBrokerMetadata: "CONTROLLER_INVALID_CLEAN_BROKER_METADATA",
	ResponseControllerBrokerNeedToBeRegistered:   "CONTROLLER_BROKER_NEED_TO_BE_REGISTERED",
	ResponseControllerMasterStillExist:           "CONTROLLER_MASTER_STILL_EXIST",
	ResponseControllerElectMasterFailed:          "CONTROLLER_ELECT_MASTER_FAILED",
	ResponseControllerAlterSyncStateSetFailed:    "CONTROLLER_ALTER_SYNC_STATE_SET_FAILED",
	ResponseControllerBrokerIDInvalid:            "CONTROLLER_BROKER_ID_INVALID",
	ResponseControllerJRaftInternalError:         "CONTROLLER_JRAFT_INTERNAL_ERROR",
	ResponseControllerBrokerLiveInfoNotExists:    "CONTROLLER_BROKER_LIVE_INFO_NOT_EXISTS",
	ResponseUserNotExist:                         "USER_NOT_EXIST",
	ResponsePolicyNotExist:                       "POLICY_NOT_EXIST",
	ResponseRPCUnknown:                           "RPC_UNKNOWN",
	ResponseRPCAddrIsNull:                        "RPC_ADDR_IS_NULL",
	ResponseRPCSendToChannelFailed:               "RPC_SEND_TO_CHANNEL_FAILED",
	ResponseRPCTimeOut:                           "RPC_TIME_OUT",
}

// String is the name that Java gives it, or its number.
func (c ResponseCode) String() string {
	if n, ok := responseCodeNames[c]; ok {
		return n
	}
	return strconv.Itoa(int(c))
}
