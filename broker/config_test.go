package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/config"
	"rmq/internal/vfs"
	"rmq/replication"
	"rmq/replication/ha"
	"rmq/replication/raftlog"
)

// onHost loads text as if on a host of known name and address, with env set.
func onHost(text string, env ...string) (*Settings, []config.Notice, error) {
	return LoadConfig(hostOptions(text, env...))
}

func hostOptions(text string, env ...string) LoadOptions {
	return LoadOptions{
		File: "broker.conf", Text: []byte(text),
		Getenv: func(name string) string {
			for _, e := range append([]string{"HOME=/h"}, env...) {
				if value, ok := strings.CutPrefix(e, name+"="); ok {
					return value
				}
			}
			return ""
		},
		Hostname: func() (string, error) { return "host1", nil },
		LocalIP:  func() string { return "10.0.0.1" },
	}
}

func said(notices []config.Notice) []string {
	var all []string
	for _, n := range notices {
		all = append(all, n.String())
	}
	return all
}

const noNamesrv = "namesrvAddr: there is none, so that clients do not find this broker: name one or more, separated by ;"

// Proves what holds where nobody says anything.
func TestConfigDefaults(t *testing.T) {
	s, notices, err := onHost("")
	require.NoError(t, err)
	require.Equal(t, []string{noNamesrv}, said(notices))
	want := DefaultConfig()
	want.BrokerName, want.BrokerIP1, want.BrokerIP2, want.HAListenPort = "host1", "10.0.0.1", "10.0.0.1", 10912
	want.StorePathRootDir, want.StorePathCommitLog, want.StorePathConsumeQueue = "/h/store", "/h/store/commitlog", "/h/store/consumequeue"
	want.StorePathIndex, want.StoreCheckpoint, want.AbortFile = "/h/store/index", "/h/store/checkpoint", "/h/store/abort"
	if d := cmp.Diff(want, *s.Get()); d != "" {
		t.Error(d)
	}
	require.Equal(t, 10909, s.Get().FastPort())
	require.Equal(t, 2800*time.Millisecond, s.Get().SyncFlushTimeout)
	require.True(t, s.Get().SlaveRead)
}

// Proves that the defaults of the store are those of the engine, so that no file means no difference.
func TestConfigEngineDefaults(t *testing.T) {
	s, _, err := onHost("")
	require.NoError(t, err)
	got, want := s.Get().EngineOptions(), engine.Options{Dir: "/h/store", Cluster: "DefaultCluster"}
	got.EnsureDefaults()
	want.EnsureDefaults()
	for _, o := range []*engine.Options{&got, &want} {
		o.FS, o.Stamp, o.Framing, o.Logger, o.Clock = nil, nil, nil, nil, nil
	}
	require.Equal(t, want, got)
}

// Proves that every key of the engine's options that has a Java name reaches them.
func TestConfigEngineOptions(t *testing.T) {
	s, _, err := onHost(`
storePathRootDir=/d
storePathCommitLog=/log
storePathConsumeQueue=/cq
storePathIndex=/ix
brokerClusterName=c
mappedFileSizeCommitLog=64M
mappedFileSizeConsumeQueue=2000
maxHashSlotNum=7
maxIndexNum=8
messageIndexEnable=false
maxMessageSize=9
flushDiskType=SYNC_FLUSH
flushIntervalCommitLog=10
flushCommitLogLeastPages=0
flushCommitLogThoroughInterval=12
messageDelayLevel=1s 2s
writeMode=mmap
maxUnflushedBytes=100M
flushConsumeQueueThoroughInterval=13
fileReservedTime=14
deleteWhen=01;13
diskMaxUsedSpaceRatio=15
diskSpaceCleanForciblyRatio=36
diskSpaceWarningLevelRatio=37
cleanFileForciblyEnable=false
deleteFileBatchMax=16
cleanResourceInterval=17
deleteCommitLogFilesInterval=18
`)
	require.NoError(t, err)
	require.Equal(t, engine.Options{
		Dir: "/d", CommitLogDir: "/log", QueueDir: "/cq", IndexDir: "/ix", Cluster: "c", SegmentBytes: 64 << 20, QueueFileBytes: 2000,
		MaxHashSlots: 7, MaxIndexEntries: 8, IndexDisabled: true, MaxMessageBytes: 9, Flush: engine.SyncFlush, FlushInterval: 10 * time.Millisecond,
		FlushLeastPages: 1, FlushThorough: 12 * time.Millisecond, MessageDelay: "1s 2s", Write: engine.WriteMmap, MaxUnflushed: 100 << 20,
		MaxPending: 64 << 20, TailCache: 16 << 20, CheckpointPeriod: 13 * time.Millisecond,
		Retention: engine.RetentionOptions{
			ReservedHours: 14, DeleteWhen: "01;13", MaxUsedPercent: 15, ForcePercent: 36, WarnPercent: 37, ForceDisabled: true,
			BatchMax: 16, Interval: 17 * time.Millisecond, Pause: 18 * time.Millisecond,
		},
	}, s.Get().EngineOptions())

	s, _, err = onHost("memoryLimit=128M")
	require.NoError(t, err)
	o := s.Get().EngineOptions()
	require.Equal(t, []int64{32 << 20, 16 << 20, 8 << 20}, []int64{o.MaxUnflushed, o.MaxPending, o.TailCache})
}

// Proves which layer covers which.
func TestConfigLayers(t *testing.T) {
	o := hostOptions("brokerName=b\nlistenPort=20911", "NAMESRV_ADDR=a:1;b:2", "ROCKETMQ_HOME=/opt/rmq")
	o.Flags = []config.Setting{{Key: "brokerName", Value: "c", From: config.FromFlag("broker-name")}}
	s, notices, err := LoadConfig(o)
	require.NoError(t, err)
	require.Empty(t, notices)
	c := s.Get()
	require.Equal(t, []any{"c", 20911, 20912, []string{"a:1", "b:2"}, "/opt/rmq"}, []any{c.BrokerName, c.ListenPort, c.HAListenPort, c.NamesrvAddr, c.RocketmqHome})
	require.Equal(t, []config.Origin{"flag --broker-name", "broker.conf:2", "default", "environment NAMESRV_ADDR"},
		[]config.Origin{s.Origin("brokerName"), s.Origin("listenPort"), s.Origin("haListenPort"), s.Origin("namesrvAddr")})

	s, _, err = onHost("namesrvAddr=x:1", "NAMESRV_ADDR=a:1")
	require.NoError(t, err)
	require.Equal(t, []string{"x:1"}, s.Get().NamesrvAddr)

	o = hostOptions("bindAddress=127.0.0.2")
	o.Hostname = func() (string, error) { return "", errors.New("none") }
	s, _, err = LoadConfig(o)
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.2", "127.0.0.2", "DEFAULT_BROKER"}, []string{s.Get().BrokerIP1, s.Get().BrokerIP2, s.Get().BrokerName})
}

// Proves that the host is asked where nobody stands in for it.
func TestConfigAsksHost(t *testing.T) {
	t.Setenv("NAMESRV_ADDR", "a:1")
	t.Setenv("HOME", "/h")
	s, notices, err := LoadConfig(LoadOptions{})
	require.NoError(t, err)
	require.Empty(t, notices)
	require.NotEmpty(t, s.Get().BrokerName)
	require.NotEmpty(t, s.Get().BrokerIP1)
	require.Equal(t, min(runtime.NumCPU(), 4), s.Get().SendThreads)
}

// Proves that every guide file loads, or is refused by the key that asks for what is not there.
func TestGuideFiles(t *testing.T) {
	master := func(name string) Config {
		c := DefaultConfig()
		c.BrokerName, c.FileReservedTime = name, 48*time.Hour
		return c
	}
	replica := func(name string, id int64, role string) Config {
		c := master(name)
		c.BrokerID, c.BrokerRole = id, role
		if role == "SYNC_MASTER" {
			c.InSyncReplicas = 2
		}
		return c
	}
	node := func(n int) Config {
		c := DefaultConfig()
		c.BrokerClusterName, c.BrokerName, c.DLeger, c.DLegerGroup = "RaftCluster", "RaftNode00", true, "RaftNode00"
		c.ListenPort, c.NamesrvAddr, c.StorePathRootDir = 30911+10*n, []string{"127.0.0.1:9876"}, fmt.Sprintf("/tmp/rmqstore/node%02d", n)
		c.DLegerPeers = []string{"n0-127.0.0.1:40911", "n1-127.0.0.1:40912", "n2-127.0.0.1:40913"}
		c.DLegerSelfID, c.SendThreads = fmt.Sprintf("n%d", n), 16
		return c
	}
	guide := DefaultConfig()
	guide.BrokerClusterName, guide.BrokerName, guide.NamesrvAddr = "rocketmq-cluster", "broker-a", []string{"rocketmq-nameserver1:9876", "rocketmq-nameserver2:9876"}
	guide.DefaultTopicQueueNums, guide.BrokerIP1, guide.BrokerIP2, guide.FileReservedTime = 4, "192.168.0.10", "192.168.0.10", 120*time.Hour
	guide.DiskMaxUsed, guide.StorePathRootDir, guide.MaxMessageSize, guide.SendThreads, guide.PullThreads = 88, "/data/rocketmq/store", 65536, 128, 128

	files := map[string]struct {
		want    Config
		refused string
		notices int
	}{
		"guide/broker.conf":                 {want: guide, notices: 8},
		"2m-noslave/broker-a.properties":    {want: master("broker-a"), notices: 1},
		"2m-noslave/broker-b.properties":    {want: master("broker-b"), notices: 1},
		"2m-2s-async/broker-a.properties":   {want: master("broker-a"), notices: 1},
		"2m-2s-async/broker-b.properties":   {want: master("broker-b"), notices: 1},
		"2m-2s-sync/broker-a.properties":    {want: replica("broker-a", 0, "SYNC_MASTER"), notices: 1},
		"2m-2s-sync/broker-b.properties":    {want: replica("broker-b", 0, "SYNC_MASTER"), notices: 1},
		"2m-2s-async/broker-a-s.properties": {want: replica("broker-a", 1, "SLAVE"), notices: 1},
		"2m-2s-async/broker-b-s.properties": {want: replica("broker-b", 1, "SLAVE"), notices: 1},
		"2m-2s-sync/broker-a-s.properties":  {want: replica("broker-a", 1, "SLAVE"), notices: 1},
		"2m-2s-sync/broker-b-s.properties":  {want: replica("broker-b", 1, "SLAVE"), notices: 1},
		"dledger/broker-n0.conf":            {want: node(0), notices: 0},
		"dledger/broker-n1.conf":            {want: node(1), notices: 0},
		"dledger/broker-n2.conf":            {want: node(2), notices: 0},
	}
	found, err := filepath.Glob("testdata/conf/*/*")
	require.NoError(t, err)
	require.Len(t, found, len(files))
	for name, c := range files {
		text, err := os.ReadFile(filepath.Join("testdata/conf", name))
		require.NoError(t, err)
		o := hostOptions(string(text))
		o.File, o.Strict = name, true
		s, notices, err := LoadConfig(o)
		if c.refused != "" {
			require.EqualError(t, err, name+c.refused)
			continue
		}
		require.NoError(t, err)
		require.Len(t, notices, c.notices, "%v", said(notices))
		if c.want.StorePathRootDir == "" {
			c.want.StorePathRootDir = "/h/store"
		}
		if c.want.BrokerIP1 == "" {
			c.want.BrokerIP1 = "10.0.0.1"
		}
		c.want.complete(o)
		if d := cmp.Diff(c.want, *s.Get()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Proves each text of an error, once.
func TestConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		"brokerRole=async_master":            "brokerRole is async_master: use ASYNC_MASTER or SYNC_MASTER or SLAVE, in this spelling",
		"flushDiskType=SYNC":                 "flushDiskType is SYNC: use ASYNC_FLUSH or SYNC_FLUSH, in this spelling",
		"brokerName=a b":                     `brokerName is a b: use 1 to 127 characters, no blanks and none of ; , @ % / \`,
		"brokerClusterName=a;b":              `brokerClusterName is a;b: use 1 to 127 characters, no blanks and none of ; , @ % / \`,
		"namesrvAddr=a:1;b":                  "namesrvAddr is a:1;b: use host:port, several separated by ;",
		"namesrvAddr=a:1,b:2":                "namesrvAddr is a:1,b:2: use host:port, several separated by ;",
		"namesrvAddr=a:70000":                "namesrvAddr is a:70000: use host:port, several separated by ;",
		"brokerIP1=1.2.3.4:10911":            "brokerIP1 is 1.2.3.4:10911: use one address without a port",
		"brokerIP2=1.2.3.4;1.2.3.5":          "brokerIP2 is 1.2.3.4;1.2.3.5: use one address without a port",
		"listenPort=2":                       "listenPort is 2: use a whole number from 3 to 65534",
		"haListenPort=10909":                 "haListenPort is 10909: listenPort=10911 takes this port and 10909: use another one, such as 10912",
		"storePathCommitLog=/a,/b":           "storePathCommitLog is /a,/b: a commit log lies in one directory here: move all its files into the one of storePathCommitLog",
		"readOnlyCommitLogStorePaths=/a":     "readOnlyCommitLogStorePaths is /a: a commit log lies in one directory here: move all its files into the one of storePathCommitLog",
		"storePathIndex=/h/store/commitlog/": "storePathIndex is /h/store/commitlog/: it must not be the directory of storePathCommitLog nor lie within it or around it: /h/store/commitlog",
		"storePathCommitLog=/h/store":        "storePathCommitLog is /h/store: it must not be the directory of storePathRootDir nor lie within it or around it: /h/store",
		"storePathConsumeQueue=/h":           "storePathConsumeQueue is /h: it must not be the directory of storePathRootDir nor lie within it or around it: /h/store",
		"memoryLimit=64M":                    "memoryLimit is 67108864: use 134217728 (128M) or more, or 0 for none",
		"storeType=defaultRocksDB":           "storeType is defaultRocksDB: there is no other store than default here",
		"fileReservedTime=0":                 "fileReservedTime is 0: use a whole number of h from 1 on",
		"enableControllerMode=true":          "enableControllerMode is true: this version has no controller mode: use false",
		"enableSlaveActingMaster=true":       "enableSlaveActingMaster is true: this version has no acting masters: use false",
		"duplicationEnable=true":             "duplicationEnable is true: slaves get their copy from brokerRole: use false",
		"haMasterAddress=a":                  "haMasterAddress is a: use host:port of the master, the port being its haListenPort",
		"haStockPeers=10.0.0.7:1;a":          "haStockPeers is 10.0.0.7:1;a: use addresses without a port or prefixes such as 10.0.0.0/24, several separated by ;",
		"haHousekeepingInterval=5000":        "haHousekeepingInterval is 5000: use more than haSendHeartbeatInterval=5000, or every connection counts as dead",
		"minInSyncReplicas=2":                "minInSyncReplicas is 2: use inSyncReplicas=1 or less",
		"raftHeartbeatTimeout=10":            "raftHeartbeatTimeout is 10: use a whole number of ms from 20 to 60000",
		"afterTotalPowerLoss=longestLog":     "afterTotalPowerLoss is longestLog: use longest-log or wait, in this spelling",
		"enableMultiDispatch=true":           "enableMultiDispatch is true: this version puts a message into one queue only: use false",
		"enableLmq=true":                     "enableLmq is true: this version has no light queues: use false",
		"useTLS=true":                        "useTLS is true: this version speaks no TLS: use false",
		"aclEnable=true":                     "aclEnable is true: this version has no access control, every client would be let in: use false",
		"authenticationEnabled=true":         "authenticationEnabled is true: this version has no access control, every client would be let in: use false",
		"authorizationEnabled=true":          "authorizationEnabled is true: this version has no access control, every client would be let in: use false",
	} {
		_, _, err := onHost(text)
		require.EqualError(t, err, "broker.conf:1: "+want)
	}
	for text, want := range map[string]string{
		"brokerRole=SLAVE": "brokerId is 0: a SLAVE needs a brokerId from 1 on, 0 is the master",
		"enableDLedgerCommitLog=true\ndLedgerPeers=n0-a:1;n0-b:2": "broker.conf:2: dLegerPeers is n0-a:1;n0-b:2: use n0-host:port;n1-host:port;… with different numbers and addresses",
		"enableDLegerCommitLog=true\ndLegerPeers=n0-a:1;n1-b:2\npreferredLeaderId=n3": "dLegerGroup is empty: name the group, as brokerName does\n" +
			"dLegerSelfId is empty: use one of dLegerPeers: n0, n1\nbroker.conf:3: preferredLeaderId is n3: use one of dLegerPeers: n0, n1",
		"enableDLegerCommitLog=true\ndLegerGroup=g\ndLegerSelfId=n0\ndLegerPeers=n0-a:10909;n1-b:2;n2-c:3": "broker.conf:4: dLegerPeers is n0-a:10909;n1-b:2;n2-c:3: listenPort=10911 takes this port and 10909: give n0 another one",
		"enableDLegerCommitLog=true\ndLegerGroup=g\ndLegerSelfId=n7\ndLegerPeers=n0-a:1;n1-b:2;n2-c:3":     "broker.conf:3: dLegerSelfId is n7: use one of dLegerPeers: n0, n1, n2",
		"mappedFileSizeCommitLog=5000": "mappedFileSizeCommitLog is 5000: use a multiple of 4096 from 4096 to 2147483648",
		"deleteWhen=25":                `deleteWhen has "25": use hours from 00 to 23, separated by ;`,
		"messageDelayLevel=1x":         `messageDelayLevel has "1x": use numbers with s, m, h or d`,
	} {
		_, _, err := onHost(text)
		require.ErrorContains(t, err, want)
	}
	o := hostOptions("enableSlaveActingMastr=true")
	o.Strict = true
	_, _, err := LoadConfig(o)
	require.EqualError(t, err, "broker.conf:1: enableSlaveActingMastr: unknown key, did you mean enableSlaveActingMaster?")
	_, _, err = onHost(`a=\u`)
	require.ErrorContains(t, err, "read broker.conf: line 1: ")
	o = hostOptions("")
	o.Getenv = func(string) string { return "" }
	_, _, err = LoadConfig(o)
	require.EqualError(t, err, "storePathRootDir is empty: name a directory")
}

// Proves each remark about a value that is taken all the same.
func TestConfigNotices(t *testing.T) {
	for text, want := range map[string]string{
		"brokerId=1":                        "brokerId: a master is always 0",
		"mapedFileSizeConsumeQueue=300000":  "mapedFileSizeConsumeQueue: read as mappedFileSizeConsumeQueue=6000000, below 1000000 it counts entries of 20 bytes",
		"mapedFileSizeConsumeQueue=1000000": "mapedFileSizeConsumeQueue: read as mappedFileSizeConsumeQueue=1000000",
		"storePathConsumerQueue=/c":         "storePathConsumerQueue: read as storePathConsumeQueue=/c|broker.conf:1: storePathConsumeQueue: Apache 4.9 and 5.x would look in /h/store/consumequeue",
		"storePathIndex=/h/store/index/":    "",
		"storeCheckpoint=/c":                "storeCheckpoint: it stays at /h/store/checkpoint, as in Apache",
		"abortFile=/c":                      "abortFile: it stays at /h/store/abort, as in Apache",
		"diskMaxUsedSpaceRatio=98":          "diskMaxUsedSpaceRatio: 98 counts as 95, the range is 10 to 95",
		"diskSpaceWarningLevelRatio=95":     "diskSpaceWarningLevelRatio: 95 counts as 90, the range is 35 to 90",
		"diskSpaceCleanForciblyRatio=1":     "diskSpaceCleanForciblyRatio: 1 counts as 30, the range is 30 to 85",
		"registerNameServerPeriod=5000":     "registerNameServerPeriod: 5000 counts as 10000, the range is 10000 to 60000",
		"syncFlushTimeout=5000":             "syncFlushTimeout: stock clients give up after 3000 ms: they will report a timeout where this broker still waits for the disk",
		"slaveTimeout=3000":                 "slaveTimeout: stock clients give up after 3000 ms: they will report a timeout where this broker still waits for a slave",
		"slaveTimeout=2999":                 "",
		"haSlaveFallbehindMax=1M":           "haSlaveFallbehindMax: read as haMaxGapNotInSync=1M",
		"inSyncReplicas=2":                  "inSyncReplicas: ASYNC_MASTER waits for no slave: use SYNC_MASTER",
		"haStrict=true":                     "haStrict: ASYNC_MASTER waits for no slave: use SYNC_MASTER",
		"timerWheelEnable=true":             "timerWheelEnable: has no effect here: timer messages are refused, only delay levels are kept",
		"defaultTopicQueueNum=3":            "defaultTopicQueueNum: unknown key, did you mean defaultTopicQueueNums?",
		"fileReserverdTime=48":              "fileReserverdTime: read as fileReservedTime=48",
	} {
		_, notices, err := onHost(text, "NAMESRV_ADDR=a:1")
		require.NoError(t, err)
		if want != "" {
			want = "broker.conf:1: " + want
		}
		require.Equal(t, want, strings.Join(said(notices), "|"))
	}
}

// Proves what a SYNC_MASTER and a group are told of values that are taken all the same.
func TestConfigReplicationNotices(t *testing.T) {
	const group = "brokerName=g\nenableDLegerCommitLog=true\ndLegerSelfId=n0\n"
	for text, want := range map[string]string{
		"brokerRole=SYNC_MASTER\ninSyncReplicas=1":                          "broker.conf:2: inSyncReplicas: 1 counts as 2: SYNC_MASTER promises a copy on a slave",
		"brokerRole=SYNC_MASTER\ninSyncReplicas=3":                          "",
		group + "dLegerGroup=g\ndLegerPeers=n0-a:1;n1-b:2":                  "broker.conf:5: dLegerPeers: a group of 2 stands the loss of 0, no more than one of 1 does: add a member, or leave one out",
		group + "dLegerGroup=h\ndLegerPeers=n0-a:1":                         "broker.conf:4: dLegerGroup: clients know the group as brokerName=g: all its members need the same",
		group + "dLegerGroup=g\ndLegerPeers=n0-a:1\nbrokerRole=SYNC_MASTER": "broker.conf:6: brokerRole: the group elects who leads: it changes nothing",
		group + "dLegerGroup=g\ndLegerPeers=n0-a:1\nstorePathCommitLog=/x":  "",
	} {
		s, notices, err := onHost(text, "NAMESRV_ADDR=a:1")
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(said(notices), "|"), text)
		if c := s.Get(); c.DLeger {
			require.Equal(t, "/h/store/raft-n0/commitlog", c.StorePathCommitLog)
			require.Equal(t, "/h/store/raft-n0", c.EngineOptions().Dir)
		} else {
			require.GreaterOrEqual(t, c.InSyncReplicas, 2)
		}
	}
}

// Proves that every key about slaves reaches the replication, the rate only where it is asked for.
func TestPairOptions(t *testing.T) {
	s, _, err := onHost(`
brokerClusterName=c
brokerName=b
brokerRole=SYNC_MASTER
haListenPort=20912
haMasterAddress=10.0.0.2:10912
haSendHeartbeatInterval=11
haHousekeepingInterval=12
haTransferBatchSize=8K
haMaxGapNotInSync=13M
haFlowControlEnable=true
maxHaTransferByteInSecond=14M
inSyncReplicas=3
minInSyncReplicas=2
haStrict=true
haStockPeers=10.0.0.7;10.1.0.0/16
slaveTimeout=15
`)
	require.NoError(t, err)
	want := ha.Options{
		Mode: replication.Sync, ID: "b:0", Cluster: "c/b", Listen: ":20912", Advertise: "10.0.0.1:20912", Client: "10.0.0.1:10911", Master: "10.0.0.2:10912",
		InSyncReplicas: 3, MinInSyncReplicas: 2, Strict: true, SlaveTimeout: 15 * time.Millisecond, MaxLag: 13 << 20, StockBeat: 11 * time.Millisecond,
		Housekeeping: 12 * time.Millisecond, StockPeers: []string{"10.0.0.7", "10.1.0.0/16"}, StockBatch: 8 << 10, RateLimit: 14 << 20,
	}
	require.Equal(t, want, s.Get().pairOptions(engine.Options{}))

	s, _, err = onHost("brokerRole=SLAVE\nbrokerId=1\nmaxHaTransferByteInSecond=14M")
	require.NoError(t, err)
	o := s.Get().pairOptions(engine.Options{})
	require.True(t, o.Slave)
	require.Equal(t, replication.Async, o.Mode)
	require.Zero(t, o.RateLimit)
}

// Proves that every key about groups reaches the log of one, and what happens where nothing is said.
func TestGroupOptions(t *testing.T) {
	const group = "brokerName=g\nenableDLegerCommitLog=true\ndLegerGroup=g\ndLegerPeers=n0-a:1;n1-b:2;n2-c:3\ndLegerSelfId=n1\n"
	want := raftlog.Options{
		Engine: engine.Options{Dir: "/h/store"}, Group: "g", SelfID: "n1", Peers: map[string]string{"n0": "a:1", "n1": "b:2", "n2": "c:3"}, Client: "10.0.0.1:10911",
		HeartbeatTimeout: 300 * time.Millisecond, AfterTotalPowerLoss: raftlog.LongestLog,
	}
	s, _, err := onHost(group)
	require.NoError(t, err)
	require.Equal(t, want, s.Get().groupOptions(engine.Options{}))

	s, _, err = onHost(group + "preferredLeaderId=n2\nraftHeartbeatTimeout=1000\nafterTotalPowerLoss=wait\n")
	require.NoError(t, err)
	want.Preferred, want.HeartbeatTimeout, want.AfterTotalPowerLoss = "n2", time.Second, raftlog.Wait
	require.Equal(t, want, s.Get().groupOptions(engine.Options{}))
}

// Proves that a directory which holds a store of another kind is refused with what to do, and stays as it is.
func TestStoreKind(t *testing.T) {
	const group = "brokerName=g\nenableDLegerCommitLog=true\ndLegerGroup=g\ndLegerPeers=n0-a:1\ndLegerSelfId=n0\n"
	for _, tc := range []struct{ dirs, conf, want string }{
		{"", "", ""},
		{"commitlog config", "", ""},
		{"raft-n0", "brokerName=b", "b 0: /h/store holds raft-n0, the log of a node of a group, and a store of its own (enableDLegerCommitLog=false) was to be opened: " +
			"set enableDLegerCommitLog=true with dLegerSelfId=n0 and the group's dLegerGroup and dLegerPeers, or name another storePathRootDir"},
		{"dledger-n1 commitlog", "brokerName=b", "holds dledger-n1, a log of Apache's DLedger, which is not read here"},
		{"dledger-n0", group, "holds dledger-n0, a log of Apache's DLedger, which is not read here"},
		{"commitlog", group, "g n0: /h/store holds commitlog, a store that belongs to no group, and the log of a group (enableDLegerCommitLog=true) was to be opened: " +
			"name another storePathRootDir for the group, or set enableDLegerCommitLog=false to go on with this store"},
		{"checkpoint consumequeue", group, "g n0: /h/store holds checkpoint, a store that belongs to no group"},
		{"../g/raft-n0/rmq/raft", "brokerName=b\nstorePathCommitLog=/h/g/raft-n0/commitlog", "b 0: /h/g/raft-n0/commitlog holds the log of a node of a group, and a store of its own"},
		{"raft-n0 commitlog", group, ""},
		{"raft-n1", group, ""},
	} {
		fsys := vfs.NewHeap()
		for _, dir := range strings.Fields(tc.dirs) {
			require.NoError(t, fsys.MkdirAll("/h/store/"+dir, 0o755))
		}
		s, _, err := onHost(tc.conf)
		require.NoError(t, err)
		err = s.Get().checkStoreKind(fsys)
		if tc.want == "" {
			require.NoError(t, err, tc)
			continue
		}
		var kind *StoreKindError
		require.ErrorAs(t, err, &kind)
		require.ErrorContains(t, err, tc.want)
	}
}

// Proves that no key of Apache 4.9 to 5.4 is a stranger: keys.txt has the fields of BrokerConfig, BrokerIdentity,
// MessageStoreConfig, NettyServerConfig, NettyClientConfig and AuthConfig of 4.9.8 and 5.4.0, and what guides use.
func TestConfigKnowsAllKeys(t *testing.T) {
	list, err := os.ReadFile("testdata/keys.txt")
	require.NoError(t, err)
	for _, name := range strings.Fields(string(list)) {
		o := hostOptions(name + "=1")
		o.Strict = true
		_, _, err := LoadConfig(o)
		require.NotErrorIs(t, err, config.ErrUnknownKey, name)
	}
}

// Proves that what is printed is a file that gives the same configuration on another host.
func TestConfigPrintRoundTrip(t *testing.T) {
	text, err := os.ReadFile("testdata/conf/guide/broker.conf")
	require.NoError(t, err)
	s, _, err := onHost(string(text))
	require.NoError(t, err)
	printed := s.Append(nil, false)
	require.Contains(t, string(printed), "# broker.conf:10\nautoCreateSubscriptionGroup=true\n")
	again, notices, err := LoadConfig(LoadOptions{File: "printed", Text: printed, Strict: true, Getenv: func(string) string { return "" }})
	require.NoError(t, err)
	require.Empty(t, notices)
	if d := cmp.Diff(*s.Get(), *again.Get()); d != "" {
		t.Error(d)
	}
	important, all := string(s.Append(nil, true)), string(printed)
	require.Less(t, len(important), len(all)/2)
	require.Contains(t, important, "namesrvAddr=rocketmq-nameserver1:9876;rocketmq-nameserver2:9876\n")
	require.Len(t, KeyNames(), strings.Count(all, "\n")/2)
}

// Proves what can be changed at run time, and what cannot.
func TestConfigUpdate(t *testing.T) {
	s, _, err := onHost("configBlackList=brokerPermission")
	require.NoError(t, err)
	set := func(key, value string) []config.Setting {
		return []config.Setting{{Key: key, Value: value, From: "update"}}
	}
	next, changes, notices, err := s.Update(set("waitTimeMillsInSendQueue", "500"))
	require.NoError(t, err)
	require.Empty(t, notices)
	require.Equal(t, []config.Change{{Key: "waitTimeMillsInSendQueue", Old: "200", New: "500"}}, changes)
	require.Equal(t, 500*time.Millisecond, next.Get().SendQueueWait)
	for key, kind := range map[string]error{
		"brokerPermission": config.ErrDenied, "brokerConfigPath": config.ErrDenied, "configBlackList": config.ErrDenied, "rocketmqHome": config.ErrDenied,
		"listenPort": config.ErrNotLive, "timerWheelEnable": config.ErrNotLive, "nothing": config.ErrUnknownKey,
	} {
		_, _, _, err := s.Update(set(key, "4"))
		require.ErrorIs(t, err, kind, key)
	}
}
