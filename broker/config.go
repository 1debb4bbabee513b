package broker

import (
	"fmt"
	"net"
	"os"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/engine"
	"rmq/internal/config"
	"rmq/internal/daemon"
	"rmq/remoting/protocol"
)

// Config is what a broker.conf says. Names in the tags are the Java property names. A Config that
// [LoadConfig] returns is complete and checked, and is not changed any more.
type Config struct {
	daemon.Config

	// Who and where.
	RocketmqHome      string        `prop:"rocketmqHome,important"`
	NamesrvAddr       []string      `prop:"namesrvAddr,important"`
	BrokerClusterName string        `prop:"brokerClusterName,important"`
	BrokerName        string        `prop:"brokerName,important"` // the host name
	BrokerID          int64         `prop:"brokerId,important"`   // 0 for a master
	BrokerRole        string        `prop:"brokerRole,important,oneof=ASYNC_MASTER|SYNC_MASTER|SLAVE"`
	BrokerIP1         string        `prop:"brokerIP1,important"` // told to clients; bindAddress, or the address of this host
	BrokerIP2         string        `prop:"brokerIP2,important"` // told to slaves; brokerIP1
	BindAddress       string        `prop:"bindAddress"`         // "": all addresses
	ListenPort        int           `prop:"listenPort,important,min=3,max=65534"`
	HAListenPort      int           `prop:"haListenPort,important,max=65535"` // 0: listenPort + 1
	BrokerPermission  int           `prop:"brokerPermission,live,max=7"`      // 2 write, 4 read
	ConfigBlackList   []string      `prop:"configBlackList"`                  // keys that are not changed at run time
	ConnectionMaxIdle time.Duration `prop:"serverChannelMaxIdleTimeSeconds,unit=s,min=1"`
	RegisterPeriod    time.Duration `prop:"registerNameServerPeriod,unit=ms"`
	RegisterTimeout   time.Duration `prop:"registerBrokerTimeoutMills,unit=ms,min=1"`
	ForceRegister     bool          `prop:"forceRegister"` // also when nothing has changed

	// Topics and groups.
	DefaultTopicQueueNums int    `prop:"defaultTopicQueueNums,important,live,min=1,max=65536"`
	AutoCreateTopic       bool   `prop:"autoCreateTopicEnable,important,live"`
	AutoCreateGroup       bool   `prop:"autoCreateSubscriptionGroup,important,live"`
	ClusterTopic          bool   `prop:"clusterTopicEnable"` // a topic named after the cluster
	BrokerTopic           bool   `prop:"brokerTopicEnable"`  // a topic named after the broker
	TraceTopic            bool   `prop:"traceTopicEnable"`
	TraceTopicName        string `prop:"msgTraceTopicName"`
	RegionID              string `prop:"regionId"` // told to producers, and a property of each message
	TraceOn               bool   `prop:"traceOn"`  // whether clients trace messages

	// The store.
	StorePathRootDir      string        `prop:"storePathRootDir,important"`
	StorePathCommitLog    string        `prop:"storePathCommitLog,important"`    // root/commitlog
	StorePathConsumeQueue string        `prop:"storePathConsumeQueue,important"` // root/consumequeue
	StorePathIndex        string        `prop:"storePathIndex,important"`        // root/index
	StoreCheckpoint       string        `prop:"storeCheckpoint"`                 // root/checkpoint, and nowhere else
	AbortFile             string        `prop:"abortFile"`                       // root/abort, and nowhere else
	ReadOnlyCommitLogs    []string      `prop:"readOnlyCommitLogStorePaths"`
	StoreType             string        `prop:"storeType"`
	FileSizeCommitLog     config.Size   `prop:"mappedFileSizeCommitLog,important,min=4096,max=2G"`
	FileSizeConsumeQueue  config.Size   `prop:"mappedFileSizeConsumeQueue,important,min=20,max=2G"`
	MessageIndex          bool          `prop:"messageIndexEnable"`
	MaxHashSlots          int           `prop:"maxHashSlotNum,min=1,max=500000000"`
	MaxIndexEntries       int           `prop:"maxIndexNum,min=2,max=100000000"`
	MaxMessageSize        config.Size   `prop:"maxMessageSize,important,min=1,max=1G"` // of a body
	FlushDiskType         string        `prop:"flushDiskType,important,oneof=ASYNC_FLUSH|SYNC_FLUSH"`
	FlushInterval         time.Duration `prop:"flushIntervalCommitLog,unit=ms,min=1"`
	FlushLeastPages       int           `prop:"flushCommitLogLeastPages,max=262144"` // of 4 KiB
	FlushThorough         time.Duration `prop:"flushCommitLogThoroughInterval,unit=ms,min=1"`
	CheckpointPeriod      time.Duration `prop:"flushConsumeQueueThoroughInterval,unit=ms,min=1"`
	SyncFlushTimeout      time.Duration `prop:"syncFlushTimeout,unit=ms,min=1"`
	SlaveTimeout          time.Duration `prop:"slaveTimeout,unit=ms,min=1"`
	MessageDelayLevel     string        `prop:"messageDelayLevel"`
	WriteMode             string        `prop:"writeMode,oneof=pwrite|mmap|mmap-warmed"`
	MaxUnflushed          config.Size   `prop:"maxUnflushedBytes,min=16M"` // what a power cut may take, under ASYNC_FLUSH
	MemoryLimit           config.Size   `prop:"memoryLimit,important"`     // of the process, 128 MiB or more; 0: none

	// Retention.
	DeleteWhen            string        `prop:"deleteWhen,important"` // local hours, separated by ;
	FileReservedTime      time.Duration `prop:"fileReservedTime,important,unit=h,min=1"`
	DiskMaxUsed           int           `prop:"diskMaxUsedSpaceRatio,important,max=100"`
	DiskCleanForcibly     int           `prop:"diskSpaceCleanForciblyRatio,max=100"`
	DiskWarning           int           `prop:"diskSpaceWarningLevelRatio,max=100"`
	CleanFileForcibly     bool          `prop:"cleanFileForciblyEnable"`
	CleanResourceInterval time.Duration `prop:"cleanResourceInterval,unit=ms,min=1"`
	DeleteFilesInterval   time.Duration `prop:"deleteCommitLogFilesInterval,unit=ms,min=1"`
	DeleteFileBatchMax    int           `prop:"deleteFileBatchMax,min=1"`

	// Requests: how many at once, how many waiting, for how long.
	SendThreads        int           `prop:"sendMessageThreadPoolNums,important,min=1,max=65536"`
	PullThreads        int           `prop:"pullMessageThreadPoolNums,important,min=1,max=65536"`
	SendQueue          int           `prop:"sendThreadPoolQueueCapacity,min=1"`
	PullQueue          int           `prop:"pullThreadPoolQueueCapacity,min=1"`
	LitePullQueue      int           `prop:"litePullThreadPoolQueueCapacity,min=1"`
	QueryQueue         int           `prop:"queryThreadPoolQueueCapacity,min=1"`
	ClientQueue        int           `prop:"clientManagerThreadPoolQueueCapacity,min=1"`
	ConsumerQueue      int           `prop:"consumerManagerThreadPoolQueueCapacity,min=1"`
	HeartbeatQueue     int           `prop:"heartbeatThreadPoolQueueCapacity,min=1"`
	AdminQueue         int           `prop:"adminBrokerThreadPoolQueueCapacity,min=1"`
	FastFailure        bool          `prop:"brokerFastFailureEnable,live"`
	SendQueueWait      time.Duration `prop:"waitTimeMillsInSendQueue,live,unit=ms,min=1"`
	PullQueueWait      time.Duration `prop:"waitTimeMillsInPullQueue,live,unit=ms,min=1"`
	LitePullQueueWait  time.Duration `prop:"waitTimeMillsInLitePullQueue,live,unit=ms,min=1"`
	HeartbeatQueueWait time.Duration `prop:"waitTimeMillsInHeartbeatQueue,live,unit=ms,min=1"`
	AdminQueueWait     time.Duration `prop:"waitTimeMillsInAdminBrokerQueue,live,unit=ms,min=1"`
	PageCacheBusy      time.Duration `prop:"osPageCacheBusyTimeOutMills,live,unit=ms,min=1"`
	AcceptSendsFrom    int64         `prop:"startAcceptSendRequestTimeStamp,live"` // ms since 1970

	// Reading.
	LongPolling          bool          `prop:"longPollingEnable,live"`
	ShortPolling         time.Duration `prop:"shortPollingTimeMills,live,unit=ms,min=1"`
	MaxBytesInMemory     config.Size   `prop:"maxTransferBytesOnMessageInMemory,live,min=1,max=1G"`
	MaxCountInMemory     int           `prop:"maxTransferCountOnMessageInMemory,live,min=1,max=65536"`
	MaxBytesOnDisk       config.Size   `prop:"maxTransferBytesOnMessageInDisk,live,min=1,max=1G"`
	MaxCountOnDisk       int           `prop:"maxTransferCountOnMessageInDisk,live,min=1,max=65536"`
	InMemoryPercent      int           `prop:"accessMessageInMemoryMaxRatio,live,max=100"`
	MaxFilterBytes       config.Size   `prop:"maxFilterMessageSize,live,min=20,max=1G"` // of queue entries in one pull
	QueryMax             int           `prop:"defaultQueryMaxNum,live,min=1,max=65536"`
	QueryCap             int           `prop:"maxMsgsNumBatch,live,min=1,max=65536"`
	LitePull             bool          `prop:"litePullMessageEnable,live"`
	SlaveRead            bool          `prop:"slaveReadEnable,live"`
	OffsetCheckInSlave   bool          `prop:"offsetCheckInSlave,live"`
	ServerSideReset      bool          `prop:"useServerSideResetOffset,live"`
	DisableSlowConsumers bool          `prop:"disableConsumeIfConsumerReadSlowly,live"`
	SlowConsumerBytes    config.Size   `prop:"consumerFallbehindThreshold,live"`
	RejectPullConsumers  bool          `prop:"rejectPullConsumerEnable,live"`
	NotifyAtOnce         bool          `prop:"realTimeNotifyConsumerChange,live"`
	ClientExpiry         time.Duration `prop:"channelExpiredTimeout,unit=ms,min=1"`
	FlushConsumerOffsets time.Duration `prop:"flushConsumerOffsetInterval,unit=ms,min=1"`
	FlushDelayOffsets    time.Duration `prop:"flushDelayOffsetInterval,unit=ms,min=1"`
	ConsumerOffsetStep   int           `prop:"consumerOffsetUpdateVersionStep,min=1"`
	DelayOffsetStep      int           `prop:"delayOffsetUpdateVersionStep,min=1"`

	// Slaves: brokerRole says whether acks wait for them.
	HAMasterAddress  string        `prop:"haMasterAddress"` // of a slave: the HA port of its master; "": name servers tell
	HAHeartbeat      time.Duration `prop:"haSendHeartbeatInterval,unit=ms,min=1"`
	HAHousekeeping   time.Duration `prop:"haHousekeepingInterval,unit=ms,min=1"` // a connection that is silent for so long is dead
	HATransferBatch  config.Size   `prop:"haTransferBatchSize,min=4096,max=64M"`
	HAMaxGap         config.Size   `prop:"haMaxGapNotInSync"`   // a slave further behind is not in sync
	HAFlowControl    bool          `prop:"haFlowControlEnable"` // keep to maxHaTransferByteInSecond
	HAMaxBytesPerSec config.Size   `prop:"maxHaTransferByteInSecond,min=4096"`
	InSyncReplicas   int           `prop:"inSyncReplicas,important,min=1,max=64"`    // copies of a message before its ack, the master's too
	MinInSync        int           `prop:"minInSyncReplicas,important,min=1,max=64"` // with fewer nothing is stored
	HAStrict         bool          `prop:"haStrict,important"`                       // without inSyncReplicas nothing is stored
	HAStockPeers     []string      `prop:"haStockPeers,important"`                   // addresses that slaves of Apache may come from

	// A group that elects its leader.
	DLeger            bool     `prop:"enableDLegerCommitLog,important"`
	DLegerGroup       string   `prop:"dLegerGroup,important"`
	DLegerPeers       []string `prop:"dLegerPeers,important"` // n0-host:port;n1-host:port
	DLegerSelfID      string   `prop:"dLegerSelfId,important"`
	PreferredLeaderID string   `prop:"preferredLeaderId"`
	// RaftHeartbeatTimeout is after how much silence of its leader a member campaigns. Where round trips
	// need more, members take more by themselves, up to eight times this.
	RaftHeartbeatTimeout time.Duration `prop:"raftHeartbeatTimeout,unit=ms,min=20,max=60000"`
	// AfterTotalPowerLoss is what a group does that acks from page caches, once so many members have lost theirs
	// that nobody can tell what was acked: longest-log goes on with the longest log, wait leads nobody.
	AfterTotalPowerLoss string `prop:"afterTotalPowerLoss,important,oneof=longest-log|wait"`

	// Parts that are refused where they are asked for.
	ControllerMode    bool `prop:"enableControllerMode"`
	SlaveActingMaster bool `prop:"enableSlaveActingMaster"`
	Duplication       bool `prop:"duplicationEnable"`
	MultiDispatch     bool `prop:"enableMultiDispatch"`
	LMQ               bool `prop:"enableLmq"`
	TLS               bool `prop:"useTLS"`
	ACL               bool `prop:"aclEnable"`
	Authentication    bool `prop:"authenticationEnabled"`
	Authorization     bool `prop:"authorizationEnabled"`
}

// Settings are the values of all keys of a broker, each with its origin.
type Settings = config.Values[Config]

// LoadOptions say where a configuration comes from: the environment (NAMESRV_ADDR, ROCKETMQ_HOME)
// covers the defaults, the file covers the environment, flags cover the file.
type LoadOptions struct {
	File   string // its name in messages
	Text   []byte // what it says
	Flags  []config.Setting
	Strict bool // an unknown key is an error, not a notice

	// What the host says; nil: ask it.
	Getenv   func(name string) string
	Hostname func() (string, error)
	LocalIP  func() string
}

// replyBefore is when stock clients have given up on an answer, and how long a wait may be by default.
const (
	replyBefore = 3 * time.Second
	defaultWait = 2800 * time.Millisecond
	minMemory   = 128 << 20
)

// DefaultConfig is what holds where nobody says anything, but for what depends on the host.
func DefaultConfig() Config {
	cpus := runtime.NumCPU()
	return Config{
		Config:            daemon.DefaultConfig(),
		BrokerClusterName: "DefaultCluster", BrokerRole: "ASYNC_MASTER", ListenPort: 10911, BrokerPermission: 6,
		ConfigBlackList:   []string{"configBlackList", "brokerConfigPath", "rocketmqHome"},
		ConnectionMaxIdle: 120 * time.Second, RegisterPeriod: 30 * time.Second, RegisterTimeout: 24 * time.Second, ForceRegister: true,

		DefaultTopicQueueNums: 8, AutoCreateTopic: true, AutoCreateGroup: true, ClusterTopic: true, BrokerTopic: true, TraceTopicName: "RMQ_SYS_TRACE_TOPIC", RegionID: protocol.DefaultRegion, TraceOn: true,

		StoreType: "default", FileSizeCommitLog: 1 << 30, FileSizeConsumeQueue: 6_000_000, MessageIndex: true,
		MaxHashSlots: 5_000_000, MaxIndexEntries: 20_000_000, MaxMessageSize: 4 << 20, FlushDiskType: "ASYNC_FLUSH",
		FlushInterval: 500 * time.Millisecond, FlushLeastPages: 4, FlushThorough: 10 * time.Second, CheckpointPeriod: 60 * time.Second,
		SyncFlushTimeout: defaultWait, SlaveTimeout: defaultWait, WriteMode: "pwrite", MaxUnflushed: 1 << 30,
		MessageDelayLevel: "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",

		DeleteWhen: "04", FileReservedTime: 72 * time.Hour, DiskMaxUsed: 75, DiskCleanForcibly: 85, DiskWarning: 90, CleanFileForcibly: true,
		CleanResourceInterval: 10 * time.Second, DeleteFilesInterval: 100 * time.Millisecond, DeleteFileBatchMax: 10,

		SendThreads: min(cpus, 4), PullThreads: 16 + 2*cpus, SendQueue: 10_000, PullQueue: 100_000, LitePullQueue: 100_000, QueryQueue: 20_000,
		ClientQueue: 1_000_000, ConsumerQueue: 1_000_000, HeartbeatQueue: 50_000, AdminQueue: 10_000, FastFailure: true,
		SendQueueWait: 200 * time.Millisecond, PullQueueWait: 5 * time.Second, LitePullQueueWait: 5 * time.Second,
		HeartbeatQueueWait: 31 * time.Second, AdminQueueWait: 5 * time.Second, PageCacheBusy: time.Second,

		LongPolling: true, LitePull: true, ShortPolling: time.Second, MaxBytesInMemory: 256 << 10, MaxCountInMemory: 32, MaxBytesOnDisk: 64 << 10, MaxCountOnDisk: 8,
		InMemoryPercent: 40, MaxFilterBytes: 16_000, QueryMax: 32, QueryCap: 64, SlaveRead: true, ServerSideReset: true, SlowConsumerBytes: 16 << 30, NotifyAtOnce: true,
		ClientExpiry: 120 * time.Second, FlushConsumerOffsets: 5 * time.Second, FlushDelayOffsets: 10 * time.Second,
		ConsumerOffsetStep: 500, DelayOffsetStep: 200,

		HAHeartbeat: 5 * time.Second, HAHousekeeping: 20 * time.Second, HATransferBatch: 32 << 10, HAMaxGap: 256 << 20, HAMaxBytesPerSec: 100 << 20,
		InSyncReplicas: 1, MinInSync: 1,

		RaftHeartbeatTimeout: 300 * time.Millisecond, AfterTotalPowerLoss: lossLongestLog,
	}
}

// LoadConfig reads, completes and checks a configuration. The error joins a [config.ValueError] for
// everything that is wrong; the notices are for the log.
func LoadConfig(o LoadOptions) (*Settings, []config.Notice, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Hostname == nil {
		o.Hostname = os.Hostname
	}
	if o.LocalIP == nil {
		o.LocalIP = localIP
	}
	defaults := DefaultConfig()
	if home := o.Getenv("HOME"); home != "" {
		defaults.StorePathRootDir = path.Join(home, "store")
	}
	file, err := config.FileSettings(o.File, o.Text)
	if err != nil {
		return nil, nil, err
	}
	return keys(o).Load(defaults, o.Strict, config.EnvSettings(o.Getenv, map[string]string{
		"NAMESRV_ADDR": "namesrvAddr", "ROCKETMQ_HOME": "rocketmqHome",
	}), file, o.Flags)
}

// KeyNames lists all keys that have an effect.
func KeyNames() []string { return keys(LoadOptions{}).Names() }

// KnownKeys lists all keys that a broker accepts.
func KnownKeys() []config.Known { return keys(LoadOptions{}).Known() }

func keys(o LoadOptions) *config.Keys[Config] {
	return config.KeysOf(config.Spec[Config]{
		Aliases: aliases, Inert: inert,
		Complete: func(c *Config, r *config.Review) {
			c.complete(o)
			c.review(r)
		},
		Denied: func(c *Config) []string {
			return append([]string{"configBlackList", "brokerConfigPath", "rocketmqHome"}, c.ConfigBlackList...)
		},
	})
}

// complete fills in what depends on other values and on the host.
func (c *Config) complete(o LoadOptions) {
	fill := func(s *string, value func() string) {
		if *s == "" {
			*s = value()
		}
	}
	if c.DLeger { // nodes of a group may share the paths that guides give them
		c.StorePathCommitLog, c.StorePathConsumeQueue, c.StorePathIndex, c.StoreCheckpoint, c.AbortFile = "", "", "", "", ""
	}
	under := func(name string) func() string { return func() string { return path.Join(c.StoreDir(), name) } }
	fill(&c.StorePathCommitLog, under("commitlog"))
	fill(&c.StorePathConsumeQueue, under("consumequeue"))
	fill(&c.StorePathIndex, under("index"))
	fill(&c.StoreCheckpoint, under("checkpoint"))
	fill(&c.AbortFile, under("abort"))
	fill(&c.BrokerName, func() string {
		if name, err := o.Hostname(); err == nil && name != "" {
			return name
		}
		return "DEFAULT_BROKER"
	})
	fill(&c.BrokerIP1, func() string {
		if c.BindAddress != "" && c.BindAddress != "0.0.0.0" && c.BindAddress != "::" {
			return c.BindAddress
		}
		return o.LocalIP()
	})
	fill(&c.BrokerIP2, func() string { return c.BrokerIP1 })
	if c.HAListenPort == 0 {
		c.HAListenPort = c.ListenPort + 1
	}
}

// StoreDir is where the store lies: the root, or the part of it that belongs to this node of a group.
func (c *Config) StoreDir() string {
	if c.DLeger {
		return path.Join(c.StorePathRootDir, raftDirPrefix+c.DLegerSelfID)
	}
	return c.StorePathRootDir
}

// FastPort is where requests are served that should not wait behind pulls.
func (c *Config) FastPort() int { return c.ListenPort - 2 }

// review complains about what cannot be, and remarks on what is not as it seems.
func (c *Config) review(r *config.Review) {
	c.reviewIdentity(r)
	c.reviewStore(r)
	c.reviewReplication(r)
	c.reviewAbsent(r)
	c.Review(r)
	o := c.EngineOptions()
	o.EnsureDefaults()
	r.Fail(o.Validate())
}

var plainName = regexp.MustCompile(`^[^\s;,@%/\\]{1,127}$`)

func (c *Config) reviewIdentity(r *config.Review) {
	for _, n := range [][2]string{{"brokerName", c.BrokerName}, {"brokerClusterName", c.BrokerClusterName}} {
		if !plainName.MatchString(n[1]) {
			r.Refuse(n[0], "use 1 to 127 characters, no blanks and none of ; , @ % / \\")
		}
	}
	if len(c.NamesrvAddr) == 0 {
		r.Note("namesrvAddr", "there is none, so that clients do not find this broker: name one or more, separated by ;")
	}
	if slices.ContainsFunc(c.NamesrvAddr, func(a string) bool { return !isHostPort(a) }) {
		r.Refuse("namesrvAddr", "use host:port, several separated by ;")
	}
	for _, h := range [][2]string{{"brokerIP1", c.BrokerIP1}, {"brokerIP2", c.BrokerIP2}, {"bindAddress", c.BindAddress}} {
		if _, _, err := net.SplitHostPort(h[1]); r.Set(h[0]) && (err == nil || strings.ContainsAny(h[1], " /;")) {
			r.Refuse(h[0], "use one address without a port")
		}
	}
	if c.HAListenPort == c.ListenPort || c.HAListenPort == c.FastPort() {
		r.Refuse("haListenPort", fmt.Sprintf("listenPort=%d takes this port and %d: use another one, such as %d", c.ListenPort, c.FastPort(), c.ListenPort+1))
	}
	if in := min(max(c.RegisterPeriod, 10*time.Second), time.Minute); in != c.RegisterPeriod {
		r.Note("registerNameServerPeriod", fmt.Sprintf("%d counts as %d, the range is 10000 to 60000", c.RegisterPeriod.Milliseconds(), in.Milliseconds()))
		c.RegisterPeriod = in
	}
	switch {
	case c.BrokerRole == "SLAVE" && c.BrokerID == 0:
		r.Refuse("brokerId", "a SLAVE needs a brokerId from 1 on, 0 is the master")
	case c.BrokerRole != "SLAVE" && c.BrokerID != 0 && !c.DLeger:
		r.Note("brokerId", "a master is always 0")
		c.BrokerID = 0
	}
}

func isHostPort(a string) bool {
	host, port, err := net.SplitHostPort(a)
	n, numErr := strconv.Atoi(port)
	return err == nil && numErr == nil && host != "" && n >= 1 && n <= 65535 && !strings.ContainsAny(host, " /,")
}

func (c *Config) reviewStore(r *config.Review) {
	if strings.Contains(c.StorePathCommitLog, ",") || len(c.ReadOnlyCommitLogs) > 0 {
		key := "storePathCommitLog"
		if len(c.ReadOnlyCommitLogs) > 0 {
			key = "readOnlyCommitLogStorePaths"
		}
		r.Refuse(key, "a commit log lies in one directory here: move all its files into the one of storePathCommitLog")
	}
	c.reviewDirectories(r)
	for _, p := range []struct{ key, path, name, note string }{
		{"storeCheckpoint", c.StoreCheckpoint, "checkpoint", "it stays at %s, as in Apache"},
		{"abortFile", c.AbortFile, "abort", "it stays at %s, as in Apache"},
		{"storePathConsumeQueue", c.StorePathConsumeQueue, "consumequeue", "Apache 4.9 and 5.x would look in %s"},
		{"storePathIndex", c.StorePathIndex, "index", "Apache 4.9 and 5.x would look in %s"},
	} {
		if at := path.Join(c.StoreDir(), p.name); path.Clean(p.path) != at {
			r.Note(p.key, fmt.Sprintf(p.note, at))
		}
	}
	for _, p := range []struct {
		key       string
		v         *int
		low, high int
	}{
		{"diskMaxUsedSpaceRatio", &c.DiskMaxUsed, 10, 95},
		{"diskSpaceCleanForciblyRatio", &c.DiskCleanForcibly, 30, 85},
		{"diskSpaceWarningLevelRatio", &c.DiskWarning, 35, 90},
	} {
		if in := min(max(*p.v, p.low), p.high); in != *p.v {
			r.Note(p.key, fmt.Sprintf("%d counts as %d, the range is %d to %d", *p.v, in, p.low, p.high))
			*p.v = in
		}
	}
	if c.SyncFlushTimeout >= replyBefore {
		r.Note("syncFlushTimeout", "stock clients give up after 3000 ms: they will report a timeout where this broker still waits for the disk")
	}
	if c.SlaveTimeout >= replyBefore {
		r.Note("slaveTimeout", "stock clients give up after 3000 ms: they will report a timeout where this broker still waits for a slave")
	}
	if c.MemoryLimit != 0 && c.MemoryLimit < minMemory {
		r.Refuse("memoryLimit", fmt.Sprintf("use %d (128M) or more, or 0 for none", minMemory))
	}
	if c.StoreType != "default" {
		r.Refuse("storeType", "there is no other store than default here")
	}
}

// reviewDirectories refuses parts of the store that would find the files of another part among theirs.
func (c *Config) reviewDirectories(r *config.Review) {
	parts := []struct{ key, dir string }{
		{"storePathRootDir", c.StorePathRootDir}, {"storePathCommitLog", c.StorePathCommitLog}, {"storePathConsumeQueue", c.StorePathConsumeQueue},
		{"storePathIndex", c.StorePathIndex},
	}
	for i, p := range parts {
		for _, q := range parts[:i] {
			a, b := path.Clean(p.dir), path.Clean(q.dir)
			inRoot := q.key == "storePathRootDir" && a != b
			if a == b || !inRoot && strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
				r.Refuse(p.key, "it must not be the directory of "+q.key+" nor lie within it or around it: "+b)
				return
			}
		}
	}
}

// reviewAbsent refuses what would promise something that nobody keeps.
func (c *Config) reviewAbsent(r *config.Review) {
	for _, absent := range []struct {
		on        bool
		key, want string
	}{
		{c.ControllerMode, "enableControllerMode", "this version has no controller mode"},
		{c.SlaveActingMaster, "enableSlaveActingMaster", "this version has no acting masters"},
		{c.Duplication, "duplicationEnable", "slaves get their copy from brokerRole"},
		{c.MultiDispatch, "enableMultiDispatch", "this version puts a message into one queue only"},
		{c.LMQ, "enableLmq", "this version has no light queues"},
		{c.TLS, "useTLS", "this version speaks no TLS"},
		{c.ACL, "aclEnable", "this version has no access control, every client would be let in"},
		{c.Authentication, "authenticationEnabled", "this version has no access control, every client would be let in"},
		{c.Authorization, "authorizationEnabled", "this version has no access control, every client would be let in"},
	} {
		if absent.on {
			r.Refuse(absent.key, absent.want+": use false")
		}
	}
}

// EngineOptions are the options of the store. Under a memoryLimit the buffers of the engine take at
// most a quarter of it, and so does what may lie in the page cache unflushed unless maxUnflushedBytes
// is lower.
func (c *Config) EngineOptions() engine.Options {
	flush, _ := engine.ParseFlushMode(c.FlushDiskType) // one of two names, by its tag
	write, _ := engine.ParseWriteMode(c.WriteMode)     // one of three, by its tag
	o := engine.Options{
		Dir: c.StoreDir(), CommitLogDir: c.StorePathCommitLog, QueueDir: c.StorePathConsumeQueue, IndexDir: c.StorePathIndex,
		Cluster: c.BrokerClusterName, SegmentBytes: int64(c.FileSizeCommitLog), QueueFileBytes: int64(c.FileSizeConsumeQueue),
		MaxHashSlots: int32(c.MaxHashSlots), MaxIndexEntries: int32(c.MaxIndexEntries), IndexDisabled: !c.MessageIndex,
		MaxMessageBytes: int(c.MaxMessageSize), Flush: flush, FlushInterval: c.FlushInterval, FlushLeastPages: max(c.FlushLeastPages, 1),
		FlushThorough: c.FlushThorough, MessageDelay: c.MessageDelayLevel, Write: write, CheckpointPeriod: c.CheckpointPeriod,
		MaxUnflushed: int64(c.MaxUnflushed), MaxPending: min(64<<20, int64(c.MaxUnflushed)), TailCache: 16 << 20,
		Retention: engine.RetentionOptions{
			ReservedHours: int(c.FileReservedTime / time.Hour), DeleteWhen: c.DeleteWhen, MaxUsedPercent: c.DiskMaxUsed,
			ForcePercent: c.DiskCleanForcibly, WarnPercent: c.DiskWarning, ForceDisabled: !c.CleanFileForcibly,
			BatchMax: c.DeleteFileBatchMax, Interval: c.CleanResourceInterval, Pause: c.DeleteFilesInterval,
		},
	}
	if limit := int64(c.MemoryLimit); limit > 0 {
		o.MaxUnflushed = min(o.MaxUnflushed, limit/4)
		o.MaxPending = min(o.MaxPending, limit/8, o.MaxUnflushed)
		o.TailCache = min(o.TailCache, limit/16)
	}
	return o
}

// localIP is an IPv4 address of this host: the first that is neither a loopback nor in 192.168, else
// the last that is no loopback (org.apache.rocketmq.remoting.common.RemotingHelper.getLocalAddress).
func localIP() string {
	last := "127.0.0.1"
	addrs, _ := net.InterfaceAddrs() // without any it is the loopback
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.To4() == nil || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if last = ip.IP.String(); !strings.HasPrefix(last, "192.168.") {
			break
		}
	}
	return last
}
