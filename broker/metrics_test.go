package broker

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/remoting/protocol"
)

// scrape is what Prometheus gets, a line a series.
func scrape(b *Broker) string {
	w := httptest.NewRecorder()
	b.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// Every name that dashboards for Apache 5.x draw is there, with its labels, and says what has happened.
func TestMetrics(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	p.beat("client", "G", "T")
	for range 3 {
		p.send("T", 0, strings.Repeat("x", 2000))
	}
	p.dispatched()
	p.pull("G", "T", 0, 0, "*", 0)
	p.ask(request(protocol.RequestUpdateConsumerOffset, "consumerGroup", "G", "topic", "T", "queueId", "0", "commitOffset", "1"), nil)
	p.ask(request(protocol.RequestUpdateAndCreateTopic, "topic", "U", "defaultTopic", "TBW102", "readQueueNums", "1", "writeQueueNums", "1",
		"perm", "6", "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false"), nil)
	text := scrape(b)
	at := `cluster="DefaultCluster",node_id="broker-a",node_type="broker"`
	for _, want := range []string{
		`rocketmq_messages_in_total{` + at[:24] + `,is_system="false",message_type="normal",` + at[25:] + `,topic="T"} 3`,
		`rocketmq_messages_out_total{cluster="DefaultCluster",consumer_group="G",is_retry="false",is_system="false",` + at[25:] + `,topic="T"} 3`,
		`rocketmq_message_size_bucket{cluster="DefaultCluster",is_system="false",message_type="normal",` + at[25:] + `,topic="T",le="4096"} 3`,
		`rocketmq_consumer_lag_messages{cluster="DefaultCluster",consumer_group="G",is_retry="false",is_system="false",` + at[25:] + `,topic="T"} 2`,
		`rocketmq_consumer_connections{cluster="DefaultCluster",consume_mode="push",consumer_group="G",is_system="false",language="go",` + at[25:] + `,protocol_type="remoting",version="V5_3_3"} 1`,
		`rocketmq_producer_connections{cluster="DefaultCluster",language="go",` + at[25:] + `,protocol_type="remoting",version="V5_3_3"} 1`,
		`rocketmq_topic_create_execution_time_count{cluster="DefaultCluster",invocation_status="success",is_system="false",` + at[25:] + `} 1`,
		`rocketmq_processor_watermark{` + at + `,processor="send"} 0`,
		`rocketmq_rpc_latency_count{cluster="DefaultCluster",is_long_polling="false",` + at[25:] + `,protocol_type="remoting",request_code="heart_beat",response_code="success",result="success"} 1`,
		`rocketmq_broker_permission{` + at + `} 6`,
		`rmq_replication_leads{` + at[:24] + `,mode="async",` + at[25:] + `,role="leader"} 1`,
	} {
		require.Contains(t, text, want)
	}
	for _, name := range []string{
		"rocketmq_topic_number", "rocketmq_consumer_group_number", "rocketmq_throughput_in_total", "rocketmq_throughput_out_total",
		"rocketmq_consumer_lag_latency", "rocketmq_consumer_inflight_messages", "rocketmq_consumer_queueing_latency", "rocketmq_consumer_ready_messages",
		"rocketmq_storage_size", "rocketmq_storage_flush_behind_bytes", "rocketmq_storage_dispatch_behind_bytes", "rocketmq_storage_message_reserve_time",
		"rmq_log_position_bytes", "rmq_log_max_unflushed_bytes", "rmq_replication_epoch",
		"rmq_replication_confirm_bytes", "rmq_processor_queue_wait_seconds", "process_resident_memory_bytes",
	} {
		require.Contains(t, text, "\n"+name, name)
	}
	reg := prometheus.NewPedanticRegistry() // which compares what is collected with what was described
	require.NoError(t, reg.Register(b))
	_, err := reg.Gather()
	require.NoError(t, err)
}

// What a load balancer is told, and why.
func TestHealth(t *testing.T) {
	b, err := New(Options{Settings: settings(t, t.TempDir())})
	require.NoError(t, err)
	require.Equal(t, []string{"the broker is starting or stopping"}, b.Ready())
	require.NotContains(t, scrape(b), "rocketmq_")
	require.NoError(t, b.Start(t.Context()))
	require.Empty(t, b.Ready())
	require.Empty(t, b.Alive())
	cause := errors.Join(engine.ErrPoisoned, errors.New("EIO"))
	b.poison.Store(&cause)
	require.ErrorContains(t, errors.New(strings.Join(b.Alive(), "")), "EIO")
	require.Equal(t, b.Alive(), b.Ready())
	b.poison.Store(nil)
	require.NoError(t, stopBroker(b))
	require.Len(t, b.Ready(), 1)

	b = startBroker(t, Options{Settings: settings(t, t.TempDir(), "namesrvAddr=127.0.0.1:1")})
	require.Eventually(t, func() bool {
		return len(b.Ready()) == 1 && strings.Contains(b.Ready()[0], "none of 1 name servers knows the broker")
	}, eventually, tick)
}

// Windows of a meter begin where they should, rest costs nothing, and rates are over the time that there is.
func TestStats(t *testing.T) {
	clock := newTestClock()
	s := newBrokerStats(clock.Now)
	topic := s.Topic([]byte("T"))
	run := func(seconds int, each func()) {
		for range seconds {
			each()
			clock.Advance(time.Second)
			s.sample()
		}
	}
	_, _, _, ok := s.View("TOPIC_PUT_NUMS", "U")
	require.False(t, ok)
	run(30, func() { s.Sent(topic, 2, 100, 3*time.Millisecond) })
	minute, hour, day, ok := s.View("TOPIC_PUT_NUMS", "T")
	require.True(t, ok)
	require.Equal(t, Stat{Sum: 60, TPS: 2, AvgPT: 2}, minute)
	require.Equal(t, minute, hour)
	require.Equal(t, minute, day)
	require.Equal(t, "2.0 2.0 2.0", s.rateText(func(r rateSample) int64 { return r.put }))
	run(120, func() { s.Sent(topic, 1, 100, 30*time.Millisecond) })
	minute, _, _, _ = s.View("TOPIC_PUT_SIZE", "T")
	require.Equal(t, Stat{Sum: 6000, TPS: 100, AvgPT: 100}, minute)
	require.Equal(t, "1.0 1.0 1.2", s.rateText(func(r rateSample) int64 { return r.put }))
	run(3600, func() { s.Sent(topic, 1, 100, time.Millisecond) })
	_, hour, day, _ = s.View("TOPIC_PUT_NUMS", "T")
	require.InDelta(t, 3600, hour.Sum, 601)
	require.InDelta(t, 1, hour.TPS, 0.01)
	require.Positive(t, day.Sum)
	run(4*3600, func() {})
	minute, hour, _, _ = s.View("TOPIC_PUT_NUMS", "T")
	require.Zero(t, minute)
	require.Zero(t, hour)
	require.Len(t, topic.Put.minute, 1)
	require.Contains(t, s.putTook.String(), "[0~10ms]:3630 [10~50ms]:120 ")

	g := s.Group([]byte("G"), []byte("T"))
	s.Pulled(g, 3, 5, 500, 7*time.Millisecond)
	run(10, func() {})
	minute, _, _, ok = s.View("GROUP_GET_NUMS", "T@G")
	require.True(t, ok)
	require.EqualValues(t, 5, minute.Sum)
	minute, _, _, ok = s.View("GROUP_GET_LATENCY", "3@T@G")
	require.True(t, ok)
	require.EqualValues(t, 7, minute.Sum)
	for _, missing := range [][2]string{{"GROUP_GET_LATENCY", "4@T@G"}, {"GROUP_GET_NUMS", "T@H"}, {"SNDBCK_PUT_NUMS", "T@G"}, {"NOPE", "T@G"}, {"GROUP_GET_LATENCY", "x"}} {
		_, _, _, ok = s.View(missing[0], missing[1])
		require.False(t, ok, missing)
	}
	s.RemoveTopic("T")
	require.Zero(t, s.topics.len()+s.groups.len())
}

// The counts of a day begin at midnight.
func TestStatsMidnight(t *testing.T) {
	clock := newTestClock()
	s := newBrokerStats(clock.Now)
	topic := s.Topic([]byte("T"))
	day := func() {
		clock.Advance(24 * time.Hour)
		s.sample()
	}
	s.Sent(topic, 5, 1, 0)
	day()
	s.Sent(topic, 2, 1, 0)
	day()
	s.Sent(topic, 1, 1, 0)
	s.sample()
	require.Equal(t, []int64{5, 7, 8}, []int64{s.morning.putBefore, s.morning.put, s.put.Nums()})
}
