package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Proves which topics a broker has from the start, with which queues and permissions.
func TestSystemTopics(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	want := map[string][2]int32{ // queues, perm
		"TBW102": {8, 7}, "SELF_TEST_TOPIC": {1, 6}, "BenchmarkTest": {1024, 6}, "DefaultCluster": {16, 7}, "broker-a": {1, 7},
		"OFFSET_MOVED_EVENT": {1, 6}, "SCHEDULE_TOPIC_XXXX": {18, 6}, "DefaultCluster_REPLY_TOPIC": {1, 6},
		"rmq_sys_REVIVE_LOG_DefaultCluster": {8, 6}, "rmq_sys_SYNC_BROKER_MEMBER_broker-a": {1, 1},
		"RMQ_SYS_TRANS_HALF_TOPIC": {1, 6}, "RMQ_SYS_TRANS_OP_HALF_TOPIC": {1, 6}, "rmq_sys_wheel_timer": {1, 6},
	}
	got := map[string][2]int32{}
	for _, c := range m.Topics.All() {
		require.Equal(t, c.ReadQueueNums, c.WriteQueueNums)
		got[c.TopicName] = [2]int32{c.ReadQueueNums, c.Perm}
		require.True(t, m.Topics.IsSystem(c.TopicName), c.TopicName)
		require.Contains(t, m.Topics.SystemTopics(), c.TopicName)
	}
	require.Equal(t, want, got)
	require.False(t, m.Topics.IsSystem("T"))

	m, _ = testManagers(t, vfs.NewHeap(), "autoCreateTopicEnable=false\nclusterTopicEnable=false\nbrokerTopicEnable=false\ntraceTopicEnable=true\ndefaultTopicQueueNums=3\n")
	require.Nil(t, m.Topics.Get("TBW102"))
	require.EqualValues(t, 1, m.Topics.Get("DefaultCluster").Perm)
	require.EqualValues(t, 1, m.Topics.Get("broker-a").Perm)
	require.EqualValues(t, 1, m.Topics.Get("RMQ_SYS_TRACE_TOPIC").WriteQueueNums)
}

// Proves what a topic that a message creates looks like, and when none is created.
func TestCreateOnSend(t *testing.T) {
	for _, tc := range []struct {
		name, conf, topic, template string
		queues                      int32
		unit                        bool
		want                        *protocol.TopicConfig
		err                         string
	}{
		{"as many queues as asked for", "", "T", "TBW102", 4, false, &protocol.TopicConfig{ReadQueueNums: 4, Perm: 6}, ""},
		{"not more than the template has", "", "T", "TBW102", 40, true, &protocol.TopicConfig{ReadQueueNums: 8, Perm: 6, TopicSysFlag: 1}, ""},
		{"not less than none", "", "T", "TBW102", -4, false, &protocol.TopicConfig{Perm: 6}, ""},
		{"another template", "", "T", "DefaultCluster", 99, false, &protocol.TopicConfig{ReadQueueNums: 16, Perm: 6}, ""},
		{"template without inheritance", "", "T", "SELF_TEST_TOPIC", 4, false, nil, "topic does not exist: T"},
		{"no such template", "", "T", "nope", 4, false, nil, "topic does not exist: T"},
		{"not allowed", "autoCreateTopicEnable=false\n", "T", "TBW102", 4, false, nil, "autoCreateTopicEnable=true"},
		{"bad name", "", "a b", "TBW102", 4, false, nil, "illegal characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, _ := testManagers(t, vfs.NewHeap(), tc.conf)
			before := m.Topics.DataVersion()
			c, err := m.Topics.CreateOnSend(t.Context(), tc.topic, tc.template, tc.queues, tc.unit)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.Nil(t, m.Topics.Get(tc.topic))
				require.Equal(t, before, m.Topics.DataVersion())
				return
			}
			require.NoError(t, err)
			tc.want.TopicName, tc.want.TopicFilterType = tc.topic, "SINGLE_TAG"
			tc.want.WriteQueueNums, tc.want.Attributes = tc.want.ReadQueueNums, c.Attributes
			require.Equal(t, tc.want, c)
			require.Equal(t, before.Counter+1, m.Topics.DataVersion().Counter)
		})
	}
	// A template that was allowed once, before the key was turned off.
	fsys := vfs.NewHeap()
	testManagers(t, fsys, "")
	m, _ := testManagers(t, fsys, "autoCreateTopicEnable=false\n")
	require.NotNil(t, m.Topics.Get("TBW102"))
	_, err := m.Topics.CreateOnSend(t.Context(), "T", "TBW102", 4, false)
	require.ErrorIs(t, err, ErrTopicNotExist)
}

// Proves that many senders of one new topic create it once, are all told of it when it is on disk, and
// that the listener hears of it before any of them goes on.
func TestCreateOnSendTogether(t *testing.T) {
	fsys := vfs.NewHeap()
	m, _ := testManagers(t, fsys, "")
	before := m.Topics.DataVersion().Counter
	var mu sync.Mutex
	heard := map[string]int{}
	m.Topics.OnChange(func(_ context.Context, changed []*protocol.TopicConfig) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range changed {
			heard[c.TopicName]++
		}
	})
	const topics, senders = 20, 8
	var wg sync.WaitGroup
	errs := make(chan error, topics*senders)
	for i := range topics * senders {
		wg.Add(1)
		spawn(t, func() {
			defer wg.Done()
			_, err := m.Topics.CreateOnSend(context.Background(), fmt.Sprint("T", i%topics), "TBW102", 4, false)
			errs <- err
		})
	}
	wg.Wait()
	for range topics * senders {
		require.NoError(t, <-errs)
	}
	require.Len(t, heard, topics)
	require.Equal(t, before+topics, m.Topics.DataVersion().Counter)
	again, _ := testManagers(t, fsys.CrashImage(1), "")
	for i := range topics {
		require.Equal(t, 1, heard[fmt.Sprint("T", i)])
		require.NotNil(t, again.Topics.Get(fmt.Sprint("T", i)))
	}
	require.Equal(t, m.Topics.DataVersion(), again.Topics.DataVersion())
}

// Proves that only a change makes a new version, is told and saved.
func TestTopicPutAndDelete(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	told := 0
	m.Topics.OnChange(func(context.Context, []*protocol.TopicConfig) { told++ })
	v := m.Topics.DataVersion().Counter
	step := func(want int, err error) {
		t.Helper()
		require.NoError(t, err)
		require.Equal(t, want, told)
		require.Equal(t, v+int64(want), m.Topics.DataVersion().Counter)
	}
	a := protocol.NewTopicConfig("T", 4)
	step(1, m.Topics.Put(t.Context(), a))
	step(1, m.Topics.Put(t.Context(), protocol.NewTopicConfig("T", 4)))
	b := protocol.NewTopicConfig("T", 4)
	b.Attributes = map[string]string{"message.type": "FIFO"}
	step(2, m.Topics.Put(t.Context(), b))
	c := *b
	c.WriteQueueNums = 2
	step(3, m.Topics.Put(t.Context(), &c))
	require.Equal(t, c, *m.Topics.GetBytes([]byte("T")))
	had, err := m.Topics.Delete(t.Context(), "T")
	require.True(t, had)
	step(4, err)
	had, err = m.Topics.Delete(t.Context(), "T")
	require.False(t, had)
	step(4, err)
	require.Nil(t, m.Topics.Get("T"))
	step(5, m.Topics.BumpVersion(t.Context()))
}

// Proves what becomes of retry and dead-letter topics.
func TestInternalTopics(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	c, err := m.Topics.CreateRetry(t.Context(), "g", 3, false, true)
	require.NoError(t, err)
	require.Equal(t, protocol.TopicConfig{
		TopicName: "%RETRY%g", ReadQueueNums: 3, WriteQueueNums: 3, Perm: 6, TopicFilterType: "SINGLE_TAG", TopicSysFlag: 2, Attributes: c.Attributes,
	}, *c)
	c, err = m.Topics.CreateRetry(t.Context(), "g", 9, true, false)
	require.NoError(t, err)
	require.True(t, c.Order)
	require.EqualValues(t, 3, c.ReadQueueNums, "queues stay")
	c, err = m.Topics.CreateDLQ(t.Context(), "g")
	require.NoError(t, err)
	require.Equal(t, []any{"%DLQ%g", int32(1), int32(6)}, []any{c.TopicName, c.WriteQueueNums, c.Perm})
}

// Proves that files of Apache 4.9 and 5.x are read: integer keys without quotes, members that we do not
// know, no state version, no attributes.
func TestApacheFilesRead(t *testing.T) {
	for _, dir := range []string{"apache49", "apache5"} {
		t.Run(dir, func(t *testing.T) {
			fsys := vfs.NewHeap()
			require.NoError(t, fsys.MkdirAll("/store/config", 0o755))
			for _, name := range []string{topicsName, groupsName, offsetsName} {
				b, err := os.ReadFile("testdata/config/" + dir + "/" + name + ".json")
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				require.NoError(t, err)
				f, err := fsys.OpenFile("/store/config/"+name+".json", os.O_CREATE|os.O_RDWR, 0o644)
				require.NoError(t, err)
				_, err = f.WriteAt(b, 0)
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
			check := func(m *managers) {
				c := m.Topics.Get("Orders")
				require.NotNil(t, c)
				require.Equal(t, []any{int32(6), int32(4), int32(6), true}, []any{c.ReadQueueNums, c.WriteQueueNums, c.Perm, c.Order})
				g := m.Groups.Get("billing")
				require.NotNil(t, g)
				require.Equal(t, []any{int32(2), int32(5), false, true}, []any{g.RetryQueueNums, g.RetryMaxTimes, g.ConsumeBroadcastEnable, g.ConsumeEnable})
				require.Equal(t, map[int32]int64{0: 12, 1: 7, 3: 9007199254740993}, m.Offsets.Offsets("billing", "Orders"))
				require.Equal(t, map[int32]int64{0: 1}, m.Offsets.Offsets("billing", "%RETRY%billing"))
				if dir == "apache5" {
					require.Equal(t, map[string]string{"message.type": "FIFO"}, c.Attributes)
					require.True(t, m.Groups.Forbidden("billing", "Secret"))
				}
			}
			m, _ := testManagers(t, fsys, "")
			check(m)
			m.Offsets.bump()
			require.NoError(t, m.flush())
			again, _ := testManagers(t, fsys, "")
			check(again)
			require.Equal(t, m.Topics.DataVersion(), again.Topics.DataVersion())
		})
	}
}

// Proves that what every message asks for allocates nothing.
func TestManagersHotPathAllocs(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	require.NoError(t, m.Topics.Put(t.Context(), protocol.NewTopicConfig("T", 4)))
	require.NoError(t, m.Groups.Put(protocol.NewSubscriptionGroupConfig("g")))
	topic, group := []byte("T"), []byte("g")
	ts, gs := m.Stats.Topic(topic), m.Stats.Group(group, topic)
	m.Stats.Pulled(gs, 3, 1, 1, 1)
	m.Offsets.Commit(group, topic, 3, 1)
	n := int64(0)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		n++
		if m.Topics.GetBytes(topic) == nil || m.Groups.FindBytes(group) == nil || m.Consumers.FindBytes(group) != nil || m.Groups.ForbiddenBytes(group, topic) {
			panic("not found")
		}
		m.Offsets.Commit(group, topic, 3, n)
		m.Offsets.Pulled(group, topic, 3, n)
		m.Offsets.TakeReset(group, topic, 3)
		m.Offsets.Query(group, topic, 3)
		m.Stats.Sent(ts, 1, 100, 1)
		m.Stats.Pulled(m.Stats.Group(group, topic), 3, 1, 100, 1)
		m.Stats.Topic(topic)
	}))
}

// gatedMetaLog holds saves of topics back while it is closed.
type gatedMetaLog struct {
	memMetaLog
	gate atomic.Pointer[chan struct{}]
}

func (m *gatedMetaLog) Save(name string, b []byte) error {
	if gate := m.gate.Load(); name == topicsName && gate != nil {
		<-*gate
	}
	return m.memMetaLog.Save(name, b)
}

// Messages to many new topics that come together wait for the disk twice, not once each.
func TestNewTopicsShareWrites(t *testing.T) {
	meta := &gatedMetaLog{memMetaLog: memMetaLog{docs: map[string][]byte{}}}
	b := startBroker(t, Options{Settings: settings(t, t.TempDir()), Meta: meta})
	p := connect(t, b)
	gate := make(chan struct{})
	meta.gate.Store(&gate)
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open) // a broker with a save that hangs does not stop
	const topics = 500
	var answered sync.WaitGroup
	for i := range topics {
		answered.Add(1)
		require.NoError(t, p.conn.Start(&remoting.Call{Request: sendRequest(fmt.Sprint("T", i), 0, "x"), Timeout: time.Minute, Done: func(c *remoting.Call) {
			defer answered.Done()
			if c.Err != nil || c.Response.Code != 0 {
				t.Errorf("topic %d: %v", i, c.Err)
			}
		}}))
	}
	p.conn.Flush()
	require.Eventually(t, func() bool { // the first is being created, the others wait
		waiting := 0
		b.conns.Range(func(k, _ any) bool {
			cs := k.(*connState)
			cs.mu.Lock()
			defer cs.mu.Unlock()
			waiting = len(cs.parked)
			return true
		})
		return b.Topics.Get("T0") != nil && waiting+b.Topics.Len() >= topics
	}, eventually, tick)
	before := meta.count()
	open()
	answered.Wait()
	require.LessOrEqual(t, meta.count()-before, 10)
	require.NotNil(t, b.Topics.Get("T499"))
}

// Messages that wait for their topics take no more memory than messages may that wait to be stored.
func TestParkedSendsAreBounded(t *testing.T) {
	meta := &gatedMetaLog{memMetaLog: memMetaLog{docs: map[string][]byte{}}}
	b := startBroker(t, Options{Settings: settings(t, t.TempDir()), Meta: meta})
	p := connect(t, b)
	gate := make(chan struct{})
	meta.gate.Store(&gate)
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	const size = 1 << 20
	n := int(b.maxSendBytes/size) * 3
	body := strings.Repeat("x", size)
	var busy, stored atomic.Int64
	var answered sync.WaitGroup
	for range n {
		answered.Add(1)
		call := &remoting.Call{Request: sendRequest("New", 0, body), Timeout: time.Minute, Done: func(c *remoting.Call) {
			defer answered.Done()
			switch {
			case c.Err == nil && c.Response.Code == int32(protocol.ResponseSuccess):
				stored.Add(1)
			case c.Err == nil && c.Response.Code == int32(protocol.ResponseSystemBusy) && strings.Contains(string(c.Response.Remark), "memoryLimit"):
				busy.Add(1)
			default:
				t.Errorf("%v %v", c.Err, c.Response)
			}
		}}
		require.Eventually(t, func() bool { return p.conn.Start(call) == nil }, eventually, tick) // busy while much is unsent
	}
	p.conn.Flush()
	require.Eventually(t, func() bool { return busy.Load() >= int64(n)/2 }, eventually, tick)
	require.LessOrEqual(t, b.sendBytes.Load(), b.maxSendBytes+size)
	open()
	answered.Wait()
	require.Positive(t, stored.Load())
	require.EqualValues(t, n, stored.Load()+busy.Load())
	require.Eventually(t, func() bool { return b.sendBytes.Load() == 0 }, eventually, tick)
}
