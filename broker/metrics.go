package broker

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rmq/remoting/protocol"
	"rmq/replication"
)

// maxSeries bounds the series of one metric, as metricsOtelCardinalityLimit does by default.
const maxSeries = 50_000

// Metrics are the names of Apache 5.x, as its Prometheus exporter writes them, and under rmq_ what only
// this store has.
var (
	descWatermark  = desc("rocketmq_processor_watermark", "Requests that wait for a worker.", "processor")
	descPermission = desc("rocketmq_broker_permission", "brokerPermission: 2 write, 4 read.")
	descTopics     = desc("rocketmq_topic_number", "Topics.")
	descGroups     = desc("rocketmq_consumer_group_number", "Consumer groups.")

	descMessagesIn    = desc("rocketmq_messages_in_total", "Messages stored.", "topic", "message_type", "is_system")
	descThroughputIn  = desc("rocketmq_throughput_in_total", "Bytes stored.", "topic", "message_type", "is_system")
	descMessagesOut   = desc("rocketmq_messages_out_total", "Messages handed out.", "topic", "consumer_group", "is_system", "is_retry")
	descThroughputOut = desc("rocketmq_throughput_out_total", "Bytes handed out.", "topic", "consumer_group", "is_system", "is_retry")
	descMessageSize   = desc("rocketmq_message_size", "Bytes of a stored message.", "topic", "message_type", "is_system")
	descDLQ           = desc("rocketmq_send_to_dlq_messages_total", "Messages that became dead letters.", "consumer_group", "topic", "is_system")

	descTopicCreate = desc("rocketmq_topic_create_execution_time", "Milliseconds to create or change topics on request.", "invocation_status", "is_system")
	descGroupCreate = desc("rocketmq_consumer_group_create_execution_time", "Milliseconds to create or change groups on request.", "invocation_status", "is_system")
	descRPC         = desc("rocketmq_rpc_latency", "Milliseconds from a request to its answer.", "protocol_type", "request_code", "response_code", "is_long_polling", "result")

	descProducers = desc("rocketmq_producer_connections", "Producers online.", "language", "version", "protocol_type")
	descConsumers = desc("rocketmq_consumer_connections", "Consumers online.", "consumer_group", "language", "version", "consume_mode", "protocol_type", "is_system")

	descLag        = desc("rocketmq_consumer_lag_messages", "Messages not yet consumed.", "consumer_group", "topic", "is_retry", "is_system")
	descLagLatency = desc("rocketmq_consumer_lag_latency", "Age in milliseconds of the first message not yet consumed.", "consumer_group", "topic", "is_retry", "is_system")
	descInflight   = desc("rocketmq_consumer_inflight_messages", "Messages pulled and not yet consumed.", "consumer_group", "topic", "is_retry", "is_system")
	descQueueing   = desc("rocketmq_consumer_queueing_latency", "Age in milliseconds of the first message not yet pulled.", "consumer_group", "topic", "is_retry", "is_system")
	descReady      = desc("rocketmq_consumer_ready_messages", "Messages not yet pulled.", "consumer_group", "topic", "is_retry", "is_system")

	descStorageSize    = desc("rocketmq_storage_size", "Bytes of the log.", "storage_type", "storage_medium")
	descFlushBehind    = desc("rocketmq_storage_flush_behind_bytes", "Bytes of the log not yet on disk.", "storage_type", "storage_medium")
	descDispatchBehind = desc("rocketmq_storage_dispatch_behind_bytes", "Bytes of the log that queues and index do not know yet.", "storage_type", "storage_medium")
	descReserveTime    = desc("rocketmq_storage_message_reserve_time", "Age in milliseconds of the oldest message.", "storage_type", "storage_medium")

	descPosition   = desc("rmq_log_position_bytes", "How far the log is: appended, written, flushed, ackable, visible, dispatched.", "mark")
	descMaxLoss    = desc("rmq_log_max_unflushed_bytes", "W: what a power cut may take of acked messages, 0 under SYNC_FLUSH.")
	descLeads      = desc("rmq_replication_leads", "1 while this node leads, 0 while it does not.", "mode", "role")
	descEpoch      = desc("rmq_replication_epoch", "HA epoch or raft term.")
	descConfirm    = desc("rmq_replication_confirm_bytes", "End of what readers may see.")
	descPeerLag    = desc("rmq_replication_lag_bytes", "How far a replica is behind this leader's log: L, what the loss of this machine may take of acked messages where acks do not wait for replicas.", "peer", "in_sync")
	descPeerQuiet  = desc("rmq_replication_quiet_seconds", "Since a replica was heard of last; -1: not connected.", "peer")
	descPeerOut    = desc("rmq_replication_sent_bytes_total", "Bytes sent to a replica.", "peer")
	descFlushes    = desc("rmq_log_flushes_total", "Syncs of the log.")
	descFlushTime  = desc("rmq_log_flush_seconds_total", "Time spent in syncs of the log.")
	descWrites     = desc("rmq_log_writes_total", "Calls that wrote to the log.")
	descStalls     = desc("rmq_log_stalls_total", "Appends that had to wait.")
	descQueueWait  = desc("rmq_processor_queue_wait_seconds", "How long the first waiting request has waited.", "processor")
	descQueueRoom  = desc("rmq_processor_queue_capacity", "How many requests may wait.", "processor")
	descConns      = desc("rmq_connections", "Open connections of clients and tools.")
	descUnserved   = desc("rmq_unserved_requests_total", "Requests of codes that are not served.")
	descSendFailed = desc("rmq_sends_failed_total", "Sends that were not stored.")
)

var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// Metrics answers a scrape of Prometheus.
func (b *Broker) Metrics() http.Handler {
	c := b.conf()
	reg := prometheus.NewRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{"node_type": "broker", "cluster": c.BrokerClusterName, "node_id": c.BrokerName}, reg).MustRegister(b)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// Describe implements prometheus.Collector.
func (b *Broker) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It shows nothing of a broker that is not started.
func (b *Broker) Collect(ch chan<- prometheus.Metric) {
	if !b.serving.Load() {
		return
	}
	m := collection{b, ch}
	m.tables()
	m.traffic()
	m.clients()
	m.lag()
	m.storage()
	m.replicas()
	m.queues()
}

// collection is one scrape.
type collection struct {
	*Broker
	ch chan<- prometheus.Metric
}

func (m collection) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m collection) counter(d *prometheus.Desc, v int64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (m collection) tables() {
	m.gauge(descPermission, float64(m.conf().BrokerPermission))
	m.gauge(descTopics, float64(m.Topics.Len()))
	m.gauge(descGroups, float64(m.Groups.Len()))
	m.counter(descUnserved, m.unknown.Load())
	m.counter(descSendFailed, m.Stats.failed.Load())
	m.gauge(descConns, float64(m.server.Stats().Conns))
	for i, status := range []string{"failed", "success"} {
		m.ch <- m.admin.topicTimes[i].metric(descTopicCreate, nanosPerMilli, status, "false")
		m.ch <- m.admin.groupTimes[i].metric(descGroupCreate, nanosPerMilli, status, "false")
	}
}

func boolText(v bool) string { return strconv.FormatBool(v) }

func (m collection) traffic() {
	n := 0
	m.Stats.topics.each(func(topic string, t *TopicStats) bool {
		if isRetryTopic(topic) || isDLQTopic(topic) {
			return true
		}
		labels := []string{topic, messageTypeOf(m.Topics.Get(topic)), boolText(m.Topics.IsSystem(topic))}
		m.counter(descMessagesIn, t.Put.Nums(), labels...)
		m.counter(descThroughputIn, t.Put.Size(), labels...)
		m.ch <- t.sizes.metric(descMessageSize, 1, labels...)
		n++
		return n < maxSeries
	})
	n = 0
	m.Stats.groups.each(func(key string, g *GroupStats) bool {
		topic, group, _ := strings.Cut(key, topicGroupSeparator)
		system := boolText(m.Topics.IsSystem(topic) || isSystemGroup(group))
		m.counter(descMessagesOut, g.Get.Nums(), topic, group, system, boolText(isRetryTopic(topic)))
		m.counter(descThroughputOut, g.Get.Size(), topic, group, system, boolText(isRetryTopic(topic)))
		if dead := g.DLQ.Nums(); dead > 0 {
			m.counter(descDLQ, dead, group, topic, system)
		}
		n++
		return n < maxSeries
	})
	m.ch <- m.Stats.sendTook.metric(descRPC, nanosPerMilli, "remoting", "send_message", "success", "false", "success")
	m.ch <- m.Stats.pullTook.metric(descRPC, nanosPerMilli, "remoting", "pull_message", "success", "false", "success")
	m.routes.each(func(code protocol.RequestCode, r *route) {
		r.latency.each(func(resp protocol.ResponseCode, h *histogram) {
			m.ch <- h.metric(descRPC, nanosPerMilli, "remoting", strings.ToLower(code.String()), strings.ToLower(resp.String()), "false", "success")
		})
	})
}

// rpcLatency is how long the requests of one code took, by the code of their answers.
type rpcLatency struct{ byAnswer sync.Map } // protocol.ResponseCode → *histogram

func (l *rpcLatency) add(code protocol.ResponseCode, took time.Duration) {
	h, ok := l.byAnswer.Load(code)
	if !ok {
		h, _ = l.byAnswer.LoadOrStore(code, newHistogram(rpcBounds))
	}
	h.(*histogram).add(int64(took), 1)
}

func (l *rpcLatency) each(f func(code protocol.ResponseCode, h *histogram)) {
	l.byAnswer.Range(func(k, v any) bool {
		f(k.(protocol.ResponseCode), v.(*histogram))
		return true
	})
}

func (m collection) clients() {
	producers := map[[2]string]int{}
	for _, group := range m.Producers.Groups() {
		for _, ch := range m.Producers.Members(group) {
			producers[[2]string{strings.ToLower(ch.Language.String()), protocol.VersionName(ch.Version)}]++
		}
	}
	for k, n := range producers {
		m.gauge(descProducers, float64(n), k[0], k[1], "remoting")
	}
	consumers := map[[4]string]int{}
	m.Consumers.each(func(g *ConsumerGroupInfo) {
		mode := consumeMode(g.Traits().ConsumeType)
		for _, ch := range m.Consumers.Members(g.Group) {
			consumers[[4]string{g.Group, strings.ToLower(ch.Language.String()), protocol.VersionName(ch.Version), mode}]++
		}
	})
	for k, n := range consumers {
		m.gauge(descConsumers, float64(n), k[0], k[1], k[2], k[3], "remoting", boolText(isSystemGroup(k[0])))
	}
}

// consumeMode is how tools name a consume type.
func consumeMode(consumeType string) string {
	switch consumeType {
	case protocol.ConsumeActively:
		return "pull"
	case protocol.ConsumePop:
		return "pop"
	}
	return "push"
}

// lag says how far each group is behind in each topic that it has offsets in.
func (m collection) lag() {
	now := m.clock().UnixMilli()
	n := 0
	m.Offsets.table.each(func(_ string, g *groupOffsets) bool {
		c := m.Topics.Get(g.topic)
		if c == nil {
			return true
		}
		l := m.lagOf(g, c.ReadQueueNums)
		labels := []string{g.group, g.topic, boolText(isRetryTopic(g.topic)), boolText(m.Topics.IsSystem(g.topic) || isSystemGroup(g.group))}
		m.gauge(descLag, float64(l.behind), labels...)
		m.gauge(descInflight, float64(l.behind-l.ready), labels...)
		m.gauge(descReady, float64(l.ready), labels...)
		m.gauge(descLagLatency, age(now, l.firstBehind), labels...)
		m.gauge(descQueueing, age(now, l.firstReady), labels...)
		n++
		return n < maxSeries
	})
}

// groupLag is how far a group is behind in a topic; the times are store times in milliseconds, 0 for none.
type groupLag struct{ behind, ready, firstBehind, firstReady int64 }

func (m collection) lagOf(g *groupOffsets, queues int32) (l groupLag) {
	earlier := func(t *int64, at int64) {
		if at > 0 && (*t == 0 || at < *t) {
			*t = at
		}
	}
	for id := range queues {
		q := g.at(id)
		if q == nil {
			continue
		}
		q.mu.Lock()
		committed, pulled := q.committed, max(q.pull, q.committed)
		q.mu.Unlock()
		low, high, _ := m.store.QueueRange(g.topic, id)
		if committed < 0 {
			continue
		}
		if high > committed {
			l.behind += high - committed
			earlier(&l.firstBehind, m.storeTime(g.topic, id, max(committed, low), 0))
		}
		if high > pulled {
			l.ready += high - pulled
			earlier(&l.firstReady, m.storeTime(g.topic, id, max(pulled, low), 0))
		}
	}
	return l
}

func age(now, stored int64) float64 {
	if stored == 0 {
		return 0
	}
	return float64(max(now-stored, 0))
}

func (m collection) storage() {
	s := m.store.Stats()
	at := []string{"local", "disk"}
	m.gauge(descStorageSize, float64(s.Visible-s.Min), at...)
	m.gauge(descFlushBehind, float64(max(s.Appended-s.Flushed, 0)), at...)
	m.gauge(descDispatchBehind, float64(max(s.Visible-s.Dispatched, 0)), at...)
	m.gauge(descReserveTime, age(m.clock().UnixMilli(), max(m.admin.earliest(), 0)), at...)
	for mark, pos := range map[string]int64{
		"appended": s.Appended, "written": s.Written, "flushed": s.Flushed, "ackable": s.Ackable, "visible": s.Visible, "dispatched": s.Dispatched,
	} {
		m.gauge(descPosition, float64(pos), mark)
	}
	m.gauge(descMaxLoss, float64(s.MaxUnflushed))
	m.counter(descFlushes, s.Flushes)
	m.ch <- prometheus.MustNewConstMetric(descFlushTime, prometheus.CounterValue, time.Duration(s.FlushNanos).Seconds())
	m.counter(descWrites, s.Writes)
	m.counter(descStalls, s.Stalls)
}

// replicas are this node among the others that hold its log.
func (m collection) replicas() {
	st := m.store.Status()
	leads := 0.0
	if st.Role == replication.Leader {
		leads = 1
	}
	m.gauge(descLeads, leads, st.Mode.String(), st.Role.String())
	m.gauge(descEpoch, float64(st.Epoch))
	m.gauge(descConfirm, float64(st.Confirm))
	for _, p := range st.Peers {
		m.gauge(descPeerLag, float64(p.LagBytes), p.ID, boolText(p.InSync))
		quiet := p.Quiet.Seconds()
		if p.Quiet < 0 {
			quiet = -1
		}
		m.gauge(descPeerQuiet, quiet, p.ID)
		m.counter(descPeerOut, p.BytesOut, p.ID)
	}
}

// metricQueues are the executors by the names that Apache gives them in metrics. Those without one here
// answer at once.
var metricQueues = map[string]family{
	"send": familySend, "pull": familyPull, "lite_pull": familyLitePull, "query_message": familyQuery, "client_manager": familyClient,
	"consumer_manager": familyConsumer, "heartbeat": familyHeartbeat, "admin": familyAdmin,
}

func (m collection) queues() {
	for name, f := range metricQueues {
		s := m.queueState(f)
		m.gauge(descWatermark, float64(s.Size), name)
		m.gauge(descQueueRoom, float64(s.Capacity), name)
		m.gauge(descQueueWait, s.HeadWait.Seconds(), name)
	}
	for _, name := range []string{"async_put", "ack", "transaction", "reply"} {
		m.gauge(descWatermark, 0, name)
	}
}
