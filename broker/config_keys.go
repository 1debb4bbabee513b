package broker

import (
	"strconv"
	"strings"

	"rmq/internal/config"
)

// aliases are names that were once right, and common errors that would otherwise change what a broker
// promises.
var aliases = []config.Alias{
	{Name: "mapedFileSizeCommitLog", Key: "mappedFileSizeCommitLog"},
	{Name: "mapedFileSizeConsumeQueue", Key: "mappedFileSizeConsumeQueue", Convert: entriesToBytes},
	{Name: "storePathConsumerQueue", Key: "storePathConsumeQueue"},
	{Name: "fileReserverdTime", Key: "fileReservedTime"},
	{Name: "enableDLedgerCommitLog", Key: "enableDLegerCommitLog"},
	{Name: "dLedgerGroup", Key: "dLegerGroup"},
	{Name: "dLedgerPeers", Key: "dLegerPeers"},
	{Name: "dLedgerSelfId", Key: "dLegerSelfId"},
	{Name: "haSlaveFallbehindMax", Key: "haMaxGapNotInSync"},
}

// entriesToBytes reads the old key for the size of queue files: the guides give it in entries.
func entriesToBytes(value string) (converted, did string) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 1 || n >= 1_000_000 {
		return value, ""
	}
	return strconv.FormatInt(20*n, 10), "below 1000000 it counts entries of 20 bytes"
}

// inert are the keys of Apache that change nothing here.
var inert = []config.Inert{
	{Why: "Apache does not use it either", Keys: names(`
		maxTopicLength putMessageTimeout maxLmqConsumeQueueNum putMsgIndexHightWater maxRecoveryCommitlogFiles
		maxBatchDeleteFilesNum dispatchCqThreads dispatchCqCacheNum enableAsyncReput dispatchFromSenderThread
		enableCleanExpiredOffset mappedFileSwapEnable cleanSwapedMapInterval pullBatchMaxMessageCount maxSlaveResendLength`)},
	{Why: "queue and index entries are written at checkpoints, see flushConsumeQueueThoroughInterval", Keys: names(`
		flushIntervalConsumeQueue flushConsumeQueueLeastPages putConsumeQueueDataByFileChannel messageIndexSafe
		recheckReputOffsetFromCq enableBuildConsumeQueueConcurrently batchDispatchRequestThreadPoolNums
		recoverConcurrently recoverThreadPoolNums correctLogicMinOffsetSleepInterval correctLogicMinOffsetForceInterval
		deleteConsumeQueueFilesInterval searchBcqByCacheEnable travelCqFileNumWhenGetMessage
		enableLogConsumeQueueRepeatedlyBuildWhenRecover readUnCommitted`)},
	{Why: "a file goes when its last reader has let go of it", Keys: names(`
		destroyMapedFileIntervalForcibly redeleteHangedFileInterval commitLogSwapMapInterval commitLogForceSwapMapInterval
		commitLogSwapMapReserveFileNum logicQueueSwapMapInterval logicQueueForceSwapMapInterval
		logicQueueSwapMapReserveFileNum`)},
	{Why: "appends gather in buffers and are written together, see writeMode", Keys: names(`
		commitIntervalCommitLog commitCommitLogLeastPages commitCommitLogThoroughInterval flushCommitLogTimed
		wakeCommitWhenPutMessage wakeFlushWhenPutMessage transientStorePoolEnable transientStorePoolSize
		fastFailIfNoBufferInStorePool writeWithoutMmap warmMapedFileEnable flushLeastPagesWhenWarmMapedFile
		useReentrantLockWhenPutMessage useABSLock spinLockCollisionRetreatOptimalDegree topicQueueLockNum
		maxAsyncPutMessageRequests putMessageFutureThreadPoolNums putThreadPoolQueueCapacity debugLockEnable
		enableRunningFlagsInFlush diskFallRecorded transferMsgByHeap`)},
	{Why: "a record is always verified in full by recovery", Keys: names(`
		checkCRCOnRecover enabledAppendPropCRC forceVerifyPropCRC maxChecksumRange enableAcceleratedRecovery`)},
	{Why: "long topic names always get the second record version", Keys: names(`autoMessageVersionOnTopicLen`)},
	{Why: "a disk is never shared out between replicas", Keys: names(`
		replicasPerDiskPartition logicalDiskSpaceCleanForciblyThreshold`)},
	{Why: "extended and batch queues are not kept", Keys: names(`
		enableConsumeQueueExt mappedFileSizeConsumeQueueExt bitMapLengthConsumeQueueExt mapperFileSizeBatchConsumeQueue`)},
	{Why: "a node knows by itself where its copy and the leader's part, and how far it is", Keys: names(`
		syncMasterFlushOffsetWhenStartup syncFromLastFile storePathEpochFile storePathBrokerIdentity
		haMaxTimeSlaveNotCatchup asyncLearner skipPreOnline`)},
	{Why: "inSyncReplicas, minInSyncReplicas and haStrict say how many copies an ack needs", Keys: names(`
		totalReplicas allAckInSyncStateSet enableAutoInSyncReplicas`)},
	{Why: "there are no acting masters", Keys: names(`
		enableRemoteEscape syncBrokerMemberGroupPeriod brokerHeartbeatInterval brokerNotActiveTimeoutMillis
		lockInStrictMode isBrokerContainer isInBrokerContainer`)},
	{Why: "there is no controller mode", Keys: names(`
		controllerAddr syncBrokerMetadataPeriod checkSyncStateSetPeriod syncControllerMetadataPeriod
		controllerHeartBeatTimeoutMills brokerElectionPriority disappearTimeAfterStart fetchControllerAddrByDnsLookup
		sendHeartbeatTimeoutMillis`)},
	{Why: "registrations and tables travel whole", Keys: names(`enableSplitMetadata splitMetadataSize forwardTimeout cleanOfflineBrokerInterval`)},
	{Why: "the commit log is the log of the group, its times and windows are fixed, see raft-… in storePathRootDir", Keys: names(`
		storePathDLedgerCommitLog enableBatchPush isEnableBatchPush heartBeatTimeIntervalMs maxHeartBeatLeak
		minVoteIntervalMs maxVoteIntervalMs minTakeLeadershipVoteIntervalMs maxTakeLeadershipVoteIntervalMs
		maxWaitAckTimeMs maxPushTimeOutMs maxPendingRequestsNum peerPushThrottlePoint peerPushQuota maxBatchPushSize
		maxBatchAppendSize flushFileInterval checkPointInterval maxLeadershipTransferWaitIndex
		leadershipTransferWaitTimeout diskSpaceRatioToCheckExpired diskSpaceRatioToForceClean fileReservedHours
		mappedFileSizeForEntryData mappedFileSizeForEntryIndex`)},
	{Why: "timer messages are refused, only delay levels are kept", Keys: names(`
		timerWheelEnable timerPrecisionMs timerRollWindowSlot timerMaxDelaySec timerFlushIntervalMs mappedFileSizeTimerLog
		timerGetMessageThreadNum timerPutMessageThreadNum timerCongestNumEachSlot timerEnableRetryUntilSuccess
		timerSkipUnknownError timerWarmEnable timerStopEnqueue timerStopDequeue timerEnableDisruptor
		timerInterceptDelayLevel timerEnableCheckMetrics timerCheckMetricsWhen timerMetricSmallThreshold
		timerProgressLogIntervalMs timerColdDataCheckIntervalMs recallMessageEnable
		allowRecallWhenBrokerNotWriteable appendTopicForTimerDeleteKey timerRecallToTimeWheelEnable
		timerRecallToTimelineEnable timerRocksDBEnable timerRocksDBPrecisionMs timerRocksDBRollIntervalHours
		timerRocksDBRollMaxTps timerRocksDBRollRangeHours timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps
		timerWheelSnapshotFlush timerWheelSnapshotIntervalMs maxDelayTime`)},
	{Why: "delay levels are delivered in order, without statistics of their own", Keys: names(`
		enableScheduleMessageStats enableScheduleAsyncDeliver scheduleAsyncDeliverMaxPendingLimit
		scheduleAsyncDeliverMaxResendNum2Blocked`)},
	{Why: "transactional messages are refused", Keys: names(`
		checkTransactionMessageEnable transactionTimeOut transactionTimeout transactionCheckMax transactionCheckInterval
		transactionOpMsgMaxSize transactionOpBatchInterval transactionMetricFlushInterval endTransactionThreadPoolNums
		endTransactionPoolQueueCapacity waitTimeMillsInTransactionQueue rejectTransactionMessage
		transRocksDBEnable transWriteOriginTransHalfEnable`)},
	{Why: "POP consumption is refused", Keys: names(`
		reviveQueueNum reviveInterval reviveScanTime reviveMaxSlow reviveAckWaitMs enableSkipLongAwaitingAck
		enablePopBufferMerge popCkStayBufferTime popCkStayBufferTimeOut popCkMaxBufferSize popCkOffsetMaxQueueSize
		enablePopBatchAck enableRetryTopicV2 retrieveMessageFromPopRetryTopicV1 popFromRetryProbability
		popReviveMaxReturnSizePerRead popReviveMaxAttemptTimes skipWhenCKRePutReachMaxTimes appendAckAsync appendCkAsync
		popConsumerKVServiceInit popConsumerKVServiceEnable popConsumerKVServiceLog popConsumerFSServiceInit
		popPollingSize maxPopPollingSize popPollingMapSize popLongPollingForceNotifyInterval enablePopMessageThreshold
		ackThreadPoolQueueCapacity waitTimeMillsInAckQueue serverLoadBalancerEnable
		defaultMessageRequestMode defaultPopShareQueueNum enableNotifyAfterPopOrderLockRelease
		enableNotifyBeforePopCalculateLag enablePopLog initPopOffsetByCheckMsgInMem loadBalancePollNameServerInterval
		loadBalanceProcessorThreadPoolNums loadBalanceThreadPoolQueueCapacity popFromRetryProbabilityForPriority
		popInflightMessageThreshold popPollingMapExpireTimeSeconds popResponseReturnActualRetryTopic popReviveConcurrency
		priorityOrderAsc useSeparateRetryQueue clearRetryTopicWhenDeleteTopic`)},
	{Why: "SQL92 filters are refused, filters by tag need none of it", Keys: names(`
		enablePropertyFilter enableCalcFilterBitMap filterSupportRetry expectConsumerNumUseFilter
		maxErrorRateOfBloomFilter filterDataCleanTimeSpan`)},
	{Why: "request-reply messages are refused", Keys: names(`
		storeReplyMessageEnable replyThreadPoolQueueCapacity
		processReplyMessageThreadPoolNums`)},
	{Why: "compaction topics, tiered and cold storage are not kept", Keys: names(`
		enableCompaction compactionMappedFileSize compactionCqMappedFileSize compactionScheduleInternal maxOffsetMapSize
		compactionThreadNum coldDataFlowControlEnable coldDataScanEnable dataReadAheadEnable
		accessMessageInMemoryHotRatio messageStorePlugIn
		cgColdReadThreshold coldCtrStrategyEnable globalColdReadThreshold usePIDColdCtrStrategy`)},
	{Why: "there is no RocksDB store", Keys: names(`
		rocksdbCQDoubleWriteEnable cleanRocksDBDirtyCQIntervalMin statRocksDBCQIntervalSec memTableFlushIntervalMs
		realTimePersistRocksDBConfig enableRocksDBLog bottomMostCompressionTypeForConsumeQueueStore
		rocksdbCompressionType rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold combineCQLoadingCQTypes
		combineCQPreferCQType combineAssignOffsetCQType combineCQEnableCheckSelf combineCQMaxExtraSearchCommitLogFiles
		configManagerVersion
		indexRocksDBEnable maxRocksDBIndexQueryDays useSingleRocksDBForAllConfigs`)},
	{Why: "lag is counted exactly", Keys: names(`maxConsumeQueueScan sampleCountThreshold sampleSteps`)},
	{Why: "name servers are those of namesrvAddr", Keys: names(`
		fetchNamesrvAddrByAddressServer fetchNameSrvAddrByDnsLookup rmqAddressServerDomain rmqAddressServerSubGroup
		compatibleWithOldNameSrv fetchNamesrvAddrInterval updateNameServerAddrPeriod isScanAvailableNameSrv`)},
	{Why: "connections are served by goroutines", Keys: names(`
		serverWorkerThreads serverCallbackExecutorThreads serverSelectorThreads serverOnewaySemaphoreValue
		serverAsyncSemaphoreValue serverSocketSndBufSize serverSocketRcvBufSize serverPooledByteBufAllocatorEnable
		useEpollNativeSelector clientManageThreadPoolNums consumerManageThreadPoolNums adminBrokerThreadPoolNums
		heartbeatThreadPoolNums queryMessageThreadPoolNums replyThreadPoolNums litePullMessageThreadPoolNums
		ackMessageThreadPoolNums
		serverSocketBacklog serverNettyWorkerGroupEnable writeBufferHighWaterMark writeBufferLowWaterMark
		disableNettyWorkerGroup disableCallbackExecutor clientAsyncSemaphoreValue clientCallbackExecutorThreads
		clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout clientOnewaySemaphoreValue
		clientPooledByteBufAllocatorEnable clientSocketRcvBufSize clientSocketSndBufSize clientWorkerThreads
		channelNotActiveInterval connectTimeoutMillis enableFastChannelEventProcess enableNetWorkFlowControl
		maxReconnectIntervalTimeSeconds socksProxyConfig asyncSendEnable highSpeedMode sharedByteBufferNum`)},
	{Why: "a topic that changes is registered alone, always", Keys: names(`enableSingleTopicRegister`)},
	{Why: "this version has no access control", Keys: names(`
		aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond authConfigPath authenticationMetadataProvider
		authenticationProvider authenticationStrategy authenticationWhitelist authorizationMetadataProvider
		authorizationProvider authorizationStrategy authorizationWhitelist clusterName configName initAuthenticationUser
		innerClientAuthenticationCredentials migrateAuthFromV1Enabled statefulAuthenticationCacheExpiredSecond
		statefulAuthenticationCacheMaxNum statefulAuthorizationCacheExpiredSecond statefulAuthorizationCacheMaxNum
		userCacheExpiredSecond userCacheMaxNum userCacheRefreshSecond`)},
	{Why: "metrics are read from httpPort in the format of Prometheus", Keys: names(`
		metricsExporterType metricsGrpcExporterHeader metricsGrpcExporterTarget metricGrpcExporterIntervalInMills
		metricGrpcExporterTimeOutInMills metricLoggingExporterIntervalInMills metricsInDelta metricsLabel
		metricsOtelCardinalityLimit metricsPromExporterHost metricsPromExporterPort enableConnectionMetrics
		enableLagAndDlqMetrics enableMessageStoreMetrics enablePopMetrics enableRemotingMetrics enableRequestMetrics
		enableStatsMetrics enableTransactionMetrics estimateAccumulation`)},
	{Why: "statistics are always kept, those of topics that are deleted go with them", Keys: names(`
		accountStatsEnable accountStatsPrintZeroValues autoDeleteUnusedStats commercialBaseCount commercialBigCount
		commercialEnable commercialSizePerMsg commercialTimerCount commercialTransCount enableDetailStat enableLmqStats
		maxStatsIdleTimeInMinutes printChannelGroups printChannelGroupsMinNum`)},
	{Why: "subscriptions are what clients say in their heartbeats", Keys: names(`
		subscriptionExpiredTimeout useStaticSubscription`)},
	{Why: "consumers in broadcast mode keep their offsets themselves", Keys: names(`
		broadcastOffsetExpireMaxSecond broadcastOffsetExpireSecond enableBroadcastOffsetStore`)},
	{Why: "each group says so for itself", Keys: names(`
		notifyConsumerIdsChangedEnable`)},
	{Why: "producers, system topics and system groups are always kept", Keys: names(`
		enableRegisterProducer validateSystemTopicWhenUpdateTopic enableCreateSysGroup`)},
	{Why: "types of messages are not told apart", Keys: names(`
		enableMixedMessageType`)},
	{Why: "a broker that stops always answers what it has taken", Keys: names(`
		enableShutdownGracefully shutdownWaitTimeSeconds enableReconnectForGoAway`)},
	{Why: "no history of offsets is kept", Keys: names(`
		flushConsumerOffsetHistoryInterval`)},
	{Why: "recovery begins at the checkpoint", Keys: names(`
		commitLogRecoverMaxNum`)},
	{Why: "index files are the only index, see messageIndexEnable", Keys: names(`
		indexFileReadEnable indexFileWriteEnable`)},
	{Why: "there is one log of the process, see logFile", Keys: names(`
		isolateLogEnable`)},
	{Why: "there are no filter servers", Keys: names(`
		filterServerNums`)},
	{Why: "it is the file that the broker is started with", Keys: names(`
		brokerConfigPath`)},
	{Why: "registrations are sent as they are", Keys: names(`compressedRegister enableSplitRegistration splitRegistrationSize`)},
}

func names(list string) []string { return strings.Fields(list) }
