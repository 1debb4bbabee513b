package broker

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// How much one pull brings: limits by count and bytes, others for what lies too far back for the page
// cache, another for how many entries a filter looks at.
func TestPullLimits(t *testing.T) {
	dir := t.TempDir()
	b := startBroker(t, Options{Settings: settings(t, dir, "maxTransferCountOnMessageInMemory=3", "maxFilterMessageSize=100")})
	p := connect(t, b)
	for i := range 100 {
		p.send("T", 0, string(make([]byte, 1000)), "TAGS", strconv.Itoa(i))
	}
	p.dispatched()
	require.Len(t, p.pull("G", "T", 0, 0, "*", 0).records, 3)
	looked := p.pull("G", "T", 0, 0, "99", 0)
	require.Equal(t, protocol.ResponsePullRetryImmediately, looked.code)
	require.EqualValues(t, 32, looked.header.NextBeginOffset, "at least as many entries as messages were asked for")
	require.NoError(t, stopBroker(b))

	b = startBroker(t, Options{Settings: settings(t, dir, "accessMessageInMemoryMaxRatio=0", "maxTransferCountOnMessageInDisk=5")})
	require.Len(t, connect(t, b).pull("G", "T", 0, 0, "*", 0).records, 5)
	require.NoError(t, stopBroker(b))

	b = startBroker(t, Options{Settings: settings(t, dir, "accessMessageInMemoryMaxRatio=0", "maxTransferBytesOnMessageInDisk=2500", "maxTransferBytesOnMessageInMemory=1500")})
	p = connect(t, b)
	require.Len(t, p.pull("G", "T", 0, 0, "*", 0).records, 2, "of about 1100 bytes")
	for range 4 {
		p.send("U", 0, string(make([]byte, 1000)))
	}
	p.dispatched()
	require.Len(t, p.pull("G", "U", 0, 0, "*", 0).records, 1)
}

// Where slaves may be read, a group is sent to the broker that it names; far back, to the one for that.
func TestSuggestedBroker(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		conf []string
		want int64
	}{
		{nil, 0},
		{[]string{"accessMessageInMemoryMaxRatio=0"}, 1},
		{[]string{"accessMessageInMemoryMaxRatio=0", "slaveReadEnable=false"}, 0},
	} {
		b := startBroker(t, Options{Settings: settings(t, dir, c.conf...)})
		p := connect(t, b)
		p.send("T", 0, "a")
		p.send("T", 0, "b")
		p.dispatched()
		require.Equal(t, c.want, p.pull("G", "T", 0, 0, "*", 0).header.SuggestBrokerID, c.conf)
		require.NoError(t, stopBroker(b))
	}
}

// Without long polling a pull with nothing to bring waits for the short time whatever it asks for, and is
// not woken.
func TestShortPolling(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "longPollingEnable=false", "shortPollingTimeMills=150")})
	p := connect(t, b)
	p.send("T", 0, "x")
	p.dispatched()
	began := time.Now()
	got := p.pull("G", "T", 0, 1, "*", time.Hour)
	require.Equal(t, protocol.ResponsePullNotFound, got.code)
	require.GreaterOrEqual(t, time.Since(began), 150*time.Millisecond)
}

// A query by key brings as many messages as it asks for within the limits, by its unique key all that
// the default allows.
func TestQueryLimits(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "defaultQueryMaxNum=3", "maxMsgsNumBatch=5")}))
	for range 9 {
		p.send("T", 0, "x", "KEYS", "k", "UNIQ_KEY", "u")
	}
	p.dispatched()
	query := func(key, most string, more ...string) int {
		return len(parseRecords(t, p.ask(request(protocol.RequestQueryMessage, append([]string{
			"topic", "T", "key", key, "maxNum", most, "beginTimestamp", "0", "endTimestamp", "9223372036854775807",
		}, more...)...), nil).Body))
	}
	require.Equal(t, 2, query("k", "2"))
	require.Equal(t, 5, query("k", "64"))
	require.Equal(t, 3, query("u", "64", "_UNIQUE_KEY_QUERY", "true"))
}

// The queue of each family has the capacity and the patience of its keys, none without fast failure.
func TestQueueLimits(t *testing.T) {
	conf := []string{
		"sendThreadPoolQueueCapacity=1", "pullThreadPoolQueueCapacity=2", "litePullThreadPoolQueueCapacity=3", "queryThreadPoolQueueCapacity=4",
		"clientManagerThreadPoolQueueCapacity=5", "consumerManagerThreadPoolQueueCapacity=6", "heartbeatThreadPoolQueueCapacity=7",
		"adminBrokerThreadPoolQueueCapacity=8", "waitTimeMillsInPullQueue=11", "waitTimeMillsInLitePullQueue=12",
		"waitTimeMillsInHeartbeatQueue=13", "waitTimeMillsInAdminBrokerQueue=14", "sendMessageThreadPoolNums=40", "pullMessageThreadPoolNums=9",
	}
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), conf...)})
	for i, f := range []family{familySend, familyPull, familyLitePull, familyQuery, familyClient, familyConsumer, familyHeartbeat, familyAdmin} {
		require.Equal(t, i+1, b.queueState(f).Capacity, f)
	}
	for i, f := range []family{familyPull, familyLitePull, familyHeartbeat, familyAdmin} {
		require.Equal(t, time.Duration(11+i)*time.Millisecond, b.executors[f].limit(), f)
	}
	require.Equal(t, 40, b.executors[familySend].workers)
	require.Equal(t, 9, b.executors[familyPull].workers)
	b = startBroker(t, Options{Settings: settings(t, t.TempDir(), append(conf, "brokerFastFailureEnable=false")...)})
	for _, f := range []family{familySend, familyPull, familyLitePull, familyHeartbeat, familyAdmin} {
		require.Zero(t, b.executors[f].limit(), f)
	}
}

// Sends that find no room behind a slow disk wait for it as long as the key says, and are refused then.
func TestBusyDisk(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS)
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "memoryLimit=128M", "osPageCacheBusyTimeOutMills=20"), FS: fs})
	p := connect(t, b)
	p.send("T", 0, "x")
	gate := vfs.NewGate()
	defer gate.Open()
	fs.Add(vfs.Rule{Op: vfs.OpWrite, Stall: gate})
	const n = 30 // MiB, of which 16 may wait
	body := string(make([]byte, 1<<20-100))
	answers := make(chan protocol.ResponseCode, n)
	for i := range n {
		if i%10 == 0 {
			p = connect(t, b)
		}
		require.NoError(t, p.conn.Start(&remoting.Call{Request: sendRequest("T", 0, body), Timeout: time.Minute, Done: func(c *remoting.Call) {
			if c.Err == nil {
				answers <- protocol.ResponseCode(c.Response.Code)
			}
		}}))
	}
	stored, busy := 0, 0
	for range n {
		switch code := <-answers; code {
		case protocol.ResponseFlushDiskTimeout:
			stored++
		case protocol.ResponseSystemBusy:
			busy++
			require.Zero(t, stored, "it is refused long before")
		default:
			t.Fatal(code)
		}
	}
	require.Positive(t, stored)
	require.Positive(t, busy)
	gate.Open()
	p.send("T", 0, "again")
}

// A lite pull brings what a pull brings. The fast port serves everything but pulls.
func TestLitePull(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	fast := dial(t, b, b.conf().FastPort(), nil)
	fast.send("T", 0, "x")
	fast.dispatched()
	req := pullRequest("G", "T", 0, 0, "*", 0)
	req.Code = int32(protocol.RequestLitePullMessage)
	require.Equal(t, []string{"x"}, parsePulled(t, connect(t, b).call(req)).bodies())
	for _, code := range []protocol.RequestCode{protocol.RequestLitePullMessage, protocol.RequestPullMessage} {
		req.Code = int32(code)
		fast.require(fast.call(req), protocol.ResponseRequestCodeNotSupported)
	}
}

// Lite pulls can be switched off.
func TestNoLitePull(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "litePullMessageEnable=false")})
	p := connect(t, b)
	p.send("T", 0, "x")
	p.dispatched()
	req := pullRequest("G", "T", 0, 0, "*", 0)
	req.Code = int32(protocol.RequestLitePullMessage)
	p.require(p.call(req), protocol.ResponseNoPermission)
	require.Equal(t, []string{"x"}, p.pull("G", "T", 0, 0, "*", 0).bodies())
}

// Producers and messages are told the region, and whether to trace, of the configuration.
func TestRegionAndTrace(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "regionId=north", "traceOn=false")}))
	for _, resp := range []*protocol.Command{p.send("T", 0, "x"), p.call(sendRequest("a b", 0, "x"))} {
		require.Equal(t, "north", resp.GetString("MSG_REGION"))
		require.Equal(t, "false", resp.GetString("TRACE_ON"))
	}
	p.dispatched()
	r := p.pull("G", "T", 0, 0, "*", 0).records[0]
	require.Equal(t, "north", string(r.Properties.Get("MSG_REGION")))
	require.Equal(t, "false", string(r.Properties.Get("TRACE_ON")))
}

// The version of the offsets of delay levels moves with every so many steps.
func TestDelayOffsetsVersion(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "delayOffsetUpdateVersionStep=2")})
	before := b.schedule.data.Counter
	for i := range 5 {
		b.schedule.advance(3, int64(i))
	}
	require.Equal(t, before+2, b.schedule.data.Counter)
}
