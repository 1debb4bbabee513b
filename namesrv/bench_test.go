package namesrv

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"rmq/remoting/protocol"
)

// full makes a name server's tables with 4 brokers of 10,000 topics each, and the body in which one of
// them says so.
func full(b *testing.B) (*RouteInfoManager, []byte) {
	m := NewRouteInfoManager(slog.New(slog.DiscardHandler), time.Now)
	body := &protocol.RegisterBrokerBody{TopicConfigSerializeWrapper: protocol.TopicConfigWrapper{TopicConfigTable: map[string]*protocol.TopicConfig{}}}
	for i := range 10_000 {
		name := fmt.Sprintf("orders-of-shop-%05d", i)
		body.TopicConfigSerializeWrapper.TopicConfigTable[name] = protocol.NewTopicConfig(name, 8)
	}
	for i := range 4 {
		_, err := m.Register(&Registration{Cluster: "c", Name: fmt.Sprintf("broker-%d", i), Addr: fmt.Sprintf("10.0.0.%d:10911", i), Topics: &body.TopicConfigSerializeWrapper, Owner: i})
		if err != nil {
			b.Fatal(err)
		}
	}
	text, err := protocol.EncodeRegisterBroker(body, false)
	if err != nil {
		b.Fatal(err)
	}
	return m, text
}

// What a client's poll costs: one route of four brokers, encoded.
func BenchmarkRoute(b *testing.B) {
	m, _ := full(b)
	b.ReportAllocs()
	for b.Loop() {
		r, ok := m.Route("orders-of-shop-00042")
		if !ok || len(protocol.EncodeBody(&r)) == 0 {
			b.Fatal("no route")
		}
	}
}

// What the registration of a broker with 10,000 topics costs, decoded, when nothing has changed.
func BenchmarkRegister(b *testing.B) {
	m, text := full(b)
	b.ReportAllocs()
	for b.Loop() {
		body, err := protocol.DecodeRegisterBroker(text, protocol.Version, false)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Register(&Registration{Cluster: "c", Name: "broker-0", Addr: "10.0.0.0:10911", Topics: &body.TopicConfigSerializeWrapper, Owner: 0}); err != nil {
			b.Fatal(err)
		}
	}
}

// What the death of a broker with 10,000 topics costs, under the lock that routes wait for.
func BenchmarkOwnerClosed(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		m, _ := full(b)
		b.StartTimer()
		m.OwnerClosed(2)
	}
}
