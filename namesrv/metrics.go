package namesrv

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"rmq/remoting/protocol"
)

// metrics are what a name server counts beside what it knows.
type metrics struct {
	requests *prometheus.CounterVec
	waiting  atomic.Int64 // requests that wait for the disk
}

func newMetrics() *metrics {
	return &metrics{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rocketmq_namesrv_requests_total", Help: "Requests answered, by request and response.",
	}, []string{"request_code", "response_code"})}
}

func (m *metrics) served(req, resp *protocol.Command) {
	code := "unknown"
	if _, ok := processors[protocol.RequestCode(req.Code)]; ok {
		code = protocol.RequestCode(req.Code).String()
	}
	m.requests.WithLabelValues(code, protocol.ResponseCode(resp.Code).String()).Inc()
}

var (
	clustersDesc    = prometheus.NewDesc("rocketmq_namesrv_clusters", "Clusters with a broker.", nil, nil)
	brokersDesc     = prometheus.NewDesc("rocketmq_namesrv_brokers", "Brokers that are alive, masters and slaves.", nil, nil)
	topicsDesc      = prometheus.NewDesc("rocketmq_namesrv_topics", "Topics with a route.", nil, nil)
	connectionsDesc = prometheus.NewDesc("rocketmq_namesrv_connections", "Open connections, of brokers, clients and tools.", nil, nil)
	waitingDesc     = prometheus.NewDesc("rocketmq_namesrv_waiting_changes", "Changes that wait for the disk.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (n *NameServer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{clustersDesc, brokersDesc, topicsDesc, connectionsDesc, waitingDesc} {
		ch <- d
	}
	n.metrics.requests.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (n *NameServer) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	clusters, brokers, topics := n.routes.Sizes()
	gauge(clustersDesc, clusters)
	gauge(brokersDesc, brokers)
	gauge(topicsDesc, topics)
	gauge(connectionsDesc, len(n.server.Conns(nil)))
	gauge(waitingDesc, int(n.metrics.waiting.Load()))
	n.metrics.requests.Collect(ch)
}
