package client

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// fakeCluster is a small cluster in the process: one or more name servers that know all of its brokers, and brokers that
// keep everything in memory. It speaks the protocol over loopback sockets and does what brokers do, at 1/1000 of the
// delays.
type fakeCluster struct {
	t       *testing.T
	group   *run.Group
	mu      sync.Mutex
	brokers map[string]*fakeBroker // by name
	kv      map[string]string      // namespace/key
	servers []*remoting.Server
	addrs   []string // of name servers
	killed  *Client
}

// fakeBroker is a master. Everything is guarded by mu; cond wakes held pulls.
type fakeBroker struct {
	c      *fakeCluster
	name   string
	addr   netip.AddrPort
	others map[int64]string // addresses of its other nodes in routes
	server *remoting.Server
	slave  bool // listed as a slave whose master is gone

	mu      sync.Mutex
	arrived chan struct{} // closed and replaced at every append
	log     []byte
	queues  map[MessageQueue][]int // positions in log
	topics  map[string]*protocol.TopicConfig
	groups  map[string]*protocol.SubscriptionGroupConfig
	offsets map[string]map[MessageQueue]int64
	members map[string]map[*remoting.Conn]member // consumer group
	makers  map[string]map[*remoting.Conn]string // producer group
	locks   map[string]map[MessageQueue]lockOwner
	timers  []*time.Timer
	seen    map[protocol.RequestCode]int
	// intercept answers in place of the broker; nil goes on, a response with code -1 never answers.
	intercept func(req *protocol.Command) *protocol.Command
}

type member struct {
	id   string
	data protocol.ConsumerData
}

type lockOwner struct {
	id   string
	last time.Time
}

const never = -1

func newFakeCluster(t *testing.T, servers int, brokers ...string) *fakeCluster {
	c := &fakeCluster{t: t, group: run.New(context.Background(), "fake"), brokers: map[string]*fakeBroker{}, kv: map[string]string{}}
	for range servers {
		s, err := remoting.NewServer(context.Background(), remoting.ServerOptions{Name: "fake namesrv", Handler: (*fakeNameServer)(c)})
		require.NoError(t, err)
		addr, err := s.Listen("main", "127.0.0.1:0")
		require.NoError(t, err)
		c.servers, c.addrs = append(c.servers, s), append(c.addrs, addr.String())
	}
	for _, name := range brokers {
		c.start(name)
	}
	t.Cleanup(c.close)
	return c
}

func (c *fakeCluster) close() {
	c.mu.Lock()
	brokers := slices.Collect(maps.Values(c.brokers))
	c.mu.Unlock()
	c.group.Cancel()
	for _, b := range brokers {
		b.stop()
	}
	for _, s := range c.servers {
		require.NoError(c.t, s.Close())
	}
	require.NoError(c.t, c.group.Wait())
}

// start adds a broker of that name.
func (c *fakeCluster) start(name string) *fakeBroker {
	b := &fakeBroker{
		c: c, name: name, arrived: make(chan struct{}), queues: map[MessageQueue][]int{}, topics: map[string]*protocol.TopicConfig{}, groups: map[string]*protocol.SubscriptionGroupConfig{},
		offsets: map[string]map[MessageQueue]int64{}, members: map[string]map[*remoting.Conn]member{}, makers: map[string]map[*remoting.Conn]string{},
		locks: map[string]map[MessageQueue]lockOwner{}, seen: map[protocol.RequestCode]int{},
	}
	b.topics[defaultTopic] = protocol.NewTopicConfig(defaultTopic, 8)
	b.topics[defaultTopic].Perm = 7
	var err error
	b.server, err = remoting.NewServer(context.Background(), remoting.ServerOptions{Name: "fake " + name, Handler: b})
	require.NoError(c.t, err)
	b.addr, err = b.server.Listen("main", "127.0.0.1:0")
	require.NoError(c.t, err)
	c.mu.Lock()
	c.brokers[name] = b
	c.mu.Unlock()
	return b
}

// stop closes the broker and takes it out of the routes.
func (b *fakeBroker) stop() {
	b.c.mu.Lock()
	if b.c.brokers[b.name] == b {
		delete(b.c.brokers, b.name)
	}
	b.c.mu.Unlock()
	require.NoError(b.c.t, b.server.Close())
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.timers {
		t.Stop()
	}
}

func (c *fakeCluster) createTopic(topic string, queues int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.brokers {
		b.mu.Lock()
		b.topics[topic] = protocol.NewTopicConfig(topic, queues)
		b.mu.Unlock()
	}
}

func (c *fakeCluster) broker(name string) *fakeBroker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.brokers[name]
}

// client makes a client of the cluster with short times, closed at the end.
func (c *fakeCluster) client(change ...func(*Options)) *Client {
	o := Options{NameServers: strings.Join(c.addrs, ";"), RouteInterval: 50 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	cl, err := New(o)
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		if err := cl.Close(context.Background()); cl != c.killed {
			require.NoError(c.t, err)
		}
	})
	return cl
}

// kill cuts a client off as if its process had died.
func (c *fakeCluster) kill(cl *Client) {
	c.killed = cl
	require.NoError(c.t, cl.rpc.Close())
}

// fakeNameServer answers from what the brokers of the cluster have.
type fakeNameServer fakeCluster

func (*fakeNameServer) Opened(*remoting.Conn)        {}
func (*fakeNameServer) Drained(*remoting.Conn)       {}
func (*fakeNameServer) Closed(*remoting.Conn, error) {}

func (n *fakeNameServer) Serve(conn *remoting.Conn, req *protocol.Command) {
	c := (*fakeCluster)(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	key := req.GetString("namespace") + "/" + req.GetString("key")
	switch protocol.RequestCode(req.Code) {
	case protocol.RequestGetRouteInfoByTopic:
		r := c.route(req.GetString("topic"))
		if len(r.QueueDatas) == 0 {
			resp = protocol.NewResponse(req, protocol.ResponseTopicNotExist, "No topic route info in name server for the topic")
			break
		}
		resp.Body = protocol.EncodeBody(r)
	case protocol.RequestGetBrokerClusterInfo:
		info := protocol.ClusterInfo{BrokerAddrTable: map[string]protocol.BrokerData{}, ClusterAddrTable: map[string][]string{"DefaultCluster": slices.Sorted(maps.Keys(c.brokers))}}
		for _, b := range c.brokers {
			info.BrokerAddrTable[b.name] = b.data()
		}
		resp.Body = protocol.EncodeBody(info)
	case protocol.RequestPutKVConfig:
		c.kv[key] = req.GetString("value")
	case protocol.RequestDeleteKVConfig:
		delete(c.kv, key)
	case protocol.RequestGetKVConfig:
		v, ok := c.kv[key]
		if !ok {
			resp = protocol.NewResponse(req, protocol.ResponseQueryNotFound, "no such key")
			break
		}
		resp.Add("value", v)
	case protocol.RequestDeleteTopicInNameServer:
	default:
		resp = protocol.NewResponse(req, protocol.ResponseRequestCodeNotSupported, "")
	}
	conn.Reply(req, resp)
}

func (b *fakeBroker) data() protocol.BrokerData {
	id := int64(masterID)
	if b.slave {
		id = 1
	}
	addrs := map[int64]string{id: b.addr.String()}
	maps.Copy(addrs, b.others)
	return protocol.BrokerData{Cluster: "DefaultCluster", BrokerName: b.name, BrokerAddrs: addrs}
}

func (c *fakeCluster) route(topic string) protocol.TopicRouteData {
	r := protocol.TopicRouteData{QueueDatas: []protocol.QueueData{}, BrokerDatas: []protocol.BrokerData{}, FilterServerTable: map[string][]string{}, OrderTopicConf: c.kv[OrderNamespace+"/"+topic]}
	for _, name := range slices.Sorted(maps.Keys(c.brokers)) {
		b := c.brokers[name]
		b.mu.Lock()
		if t := b.topics[topic]; t != nil {
			r.QueueDatas = append(r.QueueDatas, protocol.QueueData{BrokerName: name, ReadQueueNums: t.ReadQueueNums, WriteQueueNums: t.WriteQueueNums, Perm: t.Perm})
			r.BrokerDatas = append(r.BrokerDatas, b.data())
		}
		b.mu.Unlock()
	}
	return r
}

func (b *fakeBroker) Opened(*remoting.Conn)  {}
func (b *fakeBroker) Drained(*remoting.Conn) {}

// Closed forgets the clients of the connection, and tells the others.
func (b *fakeBroker) Closed(conn *remoting.Conn, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for group, conns := range b.members {
		if _, ok := conns[conn]; ok {
			delete(conns, conn)
			b.notify(group)
		}
	}
	for _, conns := range b.makers {
		delete(conns, conn)
	}
}

func (b *fakeBroker) Serve(conn *remoting.Conn, req *protocol.Command) {
	b.mu.Lock()
	code := protocol.RequestCode(req.Code)
	b.seen[code]++
	intercept := b.intercept
	b.mu.Unlock()
	if intercept != nil {
		if resp := intercept(req); resp != nil {
			if resp.Code != never {
				conn.Reply(req, resp)
			}
			return
		}
	}
	switch code {
	case protocol.RequestPullMessage:
		req = req.Clone()
		if number(req, "sysFlag")&protocol.PullCommitOffset != 0 {
			b.mu.Lock()
			b.commit(req.GetString("consumerGroup"), b.queueOf(req), number(req, "commitOffset"))
			b.mu.Unlock()
		}
		b.c.group.Go("pull", func(ctx context.Context) error {
			conn.Reply(req, b.pull(ctx, conn, req))
			return nil
		})
		return
	case protocol.RequestGetConsumerRunningInfo, protocol.RequestConsumeMessageDirectly, protocol.RequestInvokeBrokerToGetConsumerStatus:
		req = req.Clone()
		b.c.group.Go("relay", func(context.Context) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			conn.Reply(req, b.serve(conn, code, req))
			return nil
		})
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	conn.Reply(req, b.serve(conn, code, req))
}

func refuse(req *protocol.Command, code protocol.ResponseCode, format string, args ...any) *protocol.Command {
	return protocol.NewResponse(req, code, fmt.Sprintf(format, args...))
}

func reply(req *protocol.Command, ext ...any) *protocol.Command {
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	for i := 0; i < len(ext); i += 2 {
		resp.Add(ext[i].(string), fmt.Sprint(ext[i+1]))
	}
	return resp
}

func replyBody(req *protocol.Command, v any) *protocol.Command {
	resp := reply(req)
	resp.Body = protocol.EncodeBody(v)
	return resp
}

func (b *fakeBroker) queueOf(req *protocol.Command) MessageQueue {
	id, _ := strconv.Atoi(req.GetString("queueId"))
	return MessageQueue{Topic: req.GetString("topic"), BrokerName: b.name, QueueID: int32(id)}
}

func number(req *protocol.Command, name string) int64 {
	n, _ := strconv.ParseInt(req.GetString(name), 10, 64)
	return n
}

func (b *fakeBroker) serve(conn *remoting.Conn, code protocol.RequestCode, req *protocol.Command) *protocol.Command {
	q := b.queueOf(req)
	group := req.GetString("consumerGroup")
	switch code {
	case protocol.RequestSendMessageV2, protocol.RequestSendBatchMessage, protocol.RequestSendMessage:
		return b.send(conn, req)
	case protocol.RequestConsumerSendMsgBack:
		return b.sendBack(req)
	case protocol.RequestHeartBeat:
		return b.heartbeat(conn, req)
	case protocol.RequestUnregisterClient:
		if g := req.GetString("consumerGroup"); g != "" {
			delete(b.members[g], conn)
			b.notify(g)
		}
		delete(b.makers[req.GetString("producerGroup")], conn)
		return reply(req)
	case protocol.RequestGetConsumerListByGroup:
		ids := []string{}
		for _, m := range b.members[group] {
			ids = append(ids, m.id)
		}
		if len(ids) == 0 {
			return refuse(req, protocol.ResponseSystemError, "no consumer for this group, %s", group)
		}
		return replyBody(req, protocol.GetConsumerListResponseBody{ConsumerIDList: ids})
	case protocol.RequestQueryConsumerOffset:
		if o, ok := b.offsets[group][q]; ok {
			return reply(req, "offset", o)
		}
		return refuse(req, protocol.ResponseQueryNotFound, "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
	case protocol.RequestUpdateConsumerOffset:
		b.commit(group, q, number(req, "commitOffset"))
		return reply(req)
	case protocol.RequestGetMaxOffset:
		return reply(req, "offset", len(b.queues[q]))
	case protocol.RequestGetMinOffset:
		return reply(req, "offset", 0)
	case protocol.RequestGetEarliestMsgStoreTime:
		if len(b.queues[q]) == 0 {
			return reply(req, "timestamp", -1)
		}
		return reply(req, "timestamp", message.StoreTime(b.log[b.queues[q][0]:]))
	case protocol.RequestSearchOffsetByTimestamp:
		at := number(req, "timestamp")
		i := slices.IndexFunc(b.queues[q], func(pos int) bool { return message.StoreTime(b.log[pos:]) >= at })
		if i < 0 {
			i = len(b.queues[q])
		}
		return reply(req, "offset", i)
	case protocol.RequestLockBatchMQ:
		return b.lock(req)
	case protocol.RequestUnlockBatchMQ:
		var body protocol.LockBatchBody
		require.NoError(b.c.t, protocol.DecodeBody(req.Body, &body))
		for _, q := range body.MQSet {
			if b.locks[body.ConsumerGroup][q].id == body.ClientID {
				delete(b.locks[body.ConsumerGroup], q)
			}
		}
		return reply(req)
	}
	return b.serveAdmin(code, req)
}

func (b *fakeBroker) commit(group string, q MessageQueue, offset int64) {
	if b.offsets[group] == nil {
		b.offsets[group] = map[MessageQueue]int64{}
	}
	b.offsets[group][q] = offset
}

func (b *fakeBroker) lock(req *protocol.Command) *protocol.Command {
	var body protocol.LockBatchBody
	require.NoError(b.c.t, protocol.DecodeBody(req.Body, &body))
	if b.locks[body.ConsumerGroup] == nil {
		b.locks[body.ConsumerGroup] = map[MessageQueue]lockOwner{}
	}
	ok := []MessageQueue{}
	for _, q := range body.MQSet {
		o, held := b.locks[body.ConsumerGroup][q]
		if !held || o.id == body.ClientID || time.Since(o.last) > time.Minute {
			b.locks[body.ConsumerGroup][q] = lockOwner{body.ClientID, time.Now()}
			ok = append(ok, q)
		}
	}
	return replyBody(req, protocol.LockBatchResponseBody{LockOKMQSet: ok})
}

func (b *fakeBroker) heartbeat(conn *remoting.Conn, req *protocol.Command) *protocol.Command {
	var body protocol.HeartbeatData
	require.NoError(b.c.t, protocol.DecodeBody(req.Body, &body))
	for _, d := range body.ConsumerDataSet {
		b.groups[d.GroupName] = protocol.NewSubscriptionGroupConfig(d.GroupName)
		if retry := retryPrefix + d.GroupName; b.topics[retry] == nil && d.MessageModel == protocol.Clustering {
			b.topics[retry] = protocol.NewTopicConfig(retry, 1)
		}
		if b.members[d.GroupName] == nil {
			b.members[d.GroupName] = map[*remoting.Conn]member{}
		}
		_, known := b.members[d.GroupName][conn]
		b.members[d.GroupName][conn] = member{body.ClientID, d}
		if !known {
			b.notify(d.GroupName)
		}
	}
	for _, d := range body.ProducerDataSet {
		if b.makers[d.GroupName] == nil {
			b.makers[d.GroupName] = map[*remoting.Conn]string{}
		}
		b.makers[d.GroupName][conn] = body.ClientID
	}
	return reply(req, "IS_SUPPORT_HEART_BEAT_V2", true, "IS_SUB_CHANGE", true)
}

func (b *fakeBroker) notify(group string) {
	for conn := range b.members[group] {
		req := protocol.NewRequest(protocol.RequestNotifyConsumerIDsChanged)
		req.Add("consumerGroup", group)
		_ = conn.Oneway(req) // it may be closing
	}
}

func (b *fakeBroker) send(conn *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.SendHeader
	if err := protocol.ParseSendHeader(req, &h); err != nil {
		return refuse(req, protocol.ResponseSystemError, "%v", err)
	}
	topic := string(h.Topic)
	t := b.topics[topic]
	if t == nil {
		if d := b.topics[string(h.DefaultTopic)]; d == nil || d.Perm&protocol.PermInherit == 0 {
			return refuse(req, protocol.ResponseTopicNotExist, "topic[%s] not exist, apply first please!", topic)
		}
		t = protocol.NewTopicConfig(topic, min(h.DefaultTopicQueueNums, 8))
		b.topics[topic] = t
	}
	if h.QueueID >= t.WriteQueueNums {
		return refuse(req, protocol.ResponseInvalidParameter, "queueId[%d] is illegal", h.QueueID)
	}
	m := message.Message{
		Topic: topic, QueueID: max(h.QueueID, 0), Flag: h.Flag, SysFlag: message.SysFlag(h.SysFlag), BornTimestamp: h.BornMillis, BornHost: conn.RemoteAddr(), StoreHost: b.addr,
		ReconsumeTimes: h.ReconsumeTimes, Body: slices.Clone(req.Body), Properties: slices.Clone(h.Properties),
	}
	if group, ok := strings.CutPrefix(topic, retryPrefix); ok && (h.HasMaxReconsume && h.ReconsumeTimes > h.MaxReconsumeTimes || len(b.locks[group]) > 0) {
		m.Topic, m.QueueID = dlqPrefix+group, 0
		m.Properties = without(m.Properties, message.PropDelay)
	}
	n, first := 1, int64(len(b.queues[MessageQueue{Topic: m.Topic, BrokerName: b.name, QueueID: m.QueueID}]))
	start := len(b.log)
	if h.Batch {
		var recs []byte
		var err error
		recs, n, err = message.AppendBatchRecords(nil, &m, m.Body)
		if err != nil {
			return refuse(req, protocol.ResponseMessageIllegal, "%v", err)
		}
		b.append(recs)
	} else {
		b.store(&m)
	}
	var ids []string
	for range n {
		var id []byte
		id = message.AppendID(id, message.ID{Host: b.addr, Pos: int64(start)})
		ids = append(ids, string(id))
		if start < len(b.log) {
			start += message.RecordSize(b.log[start:])
		}
	}
	return reply(req, "msgId", strings.Join(ids, ","), "queueId", m.QueueID, "queueOffset", first, "MSG_REGION", "DefaultRegion", "TRACE_ON", true)
}

// without is p without one property.
func without(p message.Properties, name string) (out message.Properties) {
	p.Each(func(n, v []byte) bool {
		if string(n) != name {
			out = message.AppendProperty(out, string(n), string(v))
		}
		return true
	})
	return out
}

// store appends m, after its delay at a thousandth of the real one.
func (b *fakeBroker) store(m *message.Message) {
	if level := m.Properties.DelayLevel(); level > 0 {
		later := *m
		later.Properties = without(m.Properties, message.PropDelay)
		b.timers = append(b.timers, time.AfterFunc(delays[min(level, len(delays))-1]/1000, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.store(&later)
		}))
		return
	}
	rec, err := message.AppendRecord(nil, m)
	require.NoError(b.c.t, err)
	if b.topics[m.Topic] == nil {
		b.topics[m.Topic] = protocol.NewTopicConfig(m.Topic, 1)
	}
	b.append(rec)
}

func (b *fakeBroker) append(recs []byte) {
	for len(recs) > 0 {
		h, err := message.Peek(recs)
		require.NoError(b.c.t, err)
		q := MessageQueue{Topic: string(h.Topic), BrokerName: b.name, QueueID: h.QueueID}
		message.StampRecord(recs[:h.Size], int64(len(b.queues[q])), int64(len(b.log)), time.Now().UnixMilli())
		b.queues[q] = append(b.queues[q], len(b.log))
		b.log = append(b.log, recs[:h.Size]...)
		recs = recs[h.Size:]
	}
	close(b.arrived)
	b.arrived = make(chan struct{})
}

func (b *fakeBroker) sendBack(req *protocol.Command) *protocol.Command {
	var h protocol.SendBackHeader
	require.NoError(b.c.t, protocol.DecodeExt(req, &h))
	if b.groups[h.Group] == nil {
		return refuse(req, protocol.ResponseSubscriptionGroupNotExist, "subscription group not exist, %s", h.Group)
	}
	var r message.Record
	if h.Offset >= int64(len(b.log)) || message.ParseRecord(b.log[h.Offset:], &r) != nil {
		return refuse(req, protocol.ResponseSystemError, "look message by offset failed, %d", h.Offset)
	}
	m := message.Message{
		Topic: retryPrefix + h.Group, Flag: r.Flag, SysFlag: r.SysFlag, BornTimestamp: r.BornTimestamp, BornHost: message.Host(r.BornHost), StoreHost: b.addr,
		ReconsumeTimes: r.ReconsumeTimes + 1, Body: slices.Clone(r.Body), Properties: slices.Clone(r.Properties),
	}
	if len(m.Properties.Get(propRetryTopic)) == 0 {
		m.Properties = message.AppendProperty(m.Properties, propRetryTopic, string(r.Topic))
		m.Properties = message.AppendProperty(m.Properties, propOriginID, r.ID().String())
	}
	limit := int32(16)
	if h.MaxReconsumeTimes != nil {
		limit = *h.MaxReconsumeTimes
	}
	m.Properties = without(m.Properties, message.PropDelay)
	if r.ReconsumeTimes >= limit || h.DelayLevel < 0 {
		m.Topic = dlqPrefix + h.Group
	} else {
		level := h.DelayLevel
		if level == 0 {
			level = 3 + r.ReconsumeTimes
		}
		m.Properties = message.AppendProperty(m.Properties, message.PropDelay, strconv.Itoa(int(level)))
	}
	b.store(&m)
	return reply(req)
}

// pull answers a pull, after holding it for at most as long as it allows.
func (b *fakeBroker) pull(ctx context.Context, conn *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.PullHeader
	if err := protocol.ParsePullHeader(req, &h); err != nil {
		return refuse(req, protocol.ResponseSystemError, "%v", err)
	}
	group, q := string(h.ConsumerGroup), MessageQueue{Topic: string(h.Topic), BrokerName: b.name, QueueID: h.QueueID}
	timer := time.NewTimer(time.Duration(h.SuspendMillis) * time.Millisecond)
	defer timer.Stop()
	for {
		b.mu.Lock()
		sub := newSubscription(q.Topic, Tags(string(h.Subscription)), time.Now())
		if h.SysFlag&protocol.PullSubscription == 0 {
			data, ok := b.subscription(group, q.Topic)
			if !ok {
				b.mu.Unlock()
				return refuse(req, protocol.ResponseSubscriptionNotExist, "the consumer's group info not exist")
			}
			if data.SubVersion < h.SubVersion {
				b.mu.Unlock()
				return refuse(req, protocol.ResponseSubscriptionNotLatest, "the consumer's subscription not latest")
			}
			sub = newSubscription(q.Topic, Tags(data.SubString), time.Now())
		}
		resp := b.find(req, &h, q, sub)
		arrived := b.arrived
		b.mu.Unlock()
		if resp.Code != int32(protocol.ResponsePullNotFound) || h.SysFlag&protocol.PullSuspend == 0 {
			return resp
		}
		select {
		case <-arrived:
		case <-timer.C:
			return resp
		case <-conn.Done():
			return resp
		case <-ctx.Done():
			return resp
		}
	}
}

func (b *fakeBroker) subscription(group, topic string) (protocol.SubscriptionData, bool) {
	for _, m := range b.members[group] {
		for _, s := range m.data.SubscriptionDataSet {
			if s.Topic == topic {
				return s, true
			}
		}
	}
	return protocol.SubscriptionData{}, false
}

func (b *fakeBroker) find(req *protocol.Command, h *protocol.PullHeader, q MessageQueue, sub *subscription) *protocol.Command {
	entries := b.queues[q]
	code, next := protocol.ResponseSuccess, h.QueueOffset
	var body []byte
	switch {
	case h.QueueOffset > int64(len(entries)):
		code, next = protocol.ResponsePullOffsetMoved, int64(len(entries))
	case h.QueueOffset == int64(len(entries)):
		code = protocol.ResponsePullNotFound
	default:
		found := int32(0)
		for ; next < int64(len(entries)) && found < h.MaxMsgNums; next++ {
			rec := b.log[entries[next]:]
			rec = rec[:message.RecordSize(rec)]
			var r message.Record
			require.NoError(b.c.t, message.ParseRecord(rec, &r))
			// As brokers do: by the hash of the tag.
			if _, _, tag := r.Properties.Scan(); sub.tags == nil || slices.Contains(sub.data.CodeSet, int32(message.TagHash(tag))) {
				body = append(body, rec...)
				found++
			}
		}
		if found == 0 {
			code = protocol.ResponsePullRetryImmediately
		}
	}
	resp := protocol.NewResponse(req, code, "")
	for name, v := range map[string]int64{"suggestWhichBrokerId": 0, "nextBeginOffset": next, "minOffset": 0, "maxOffset": int64(len(entries))} {
		resp.AddInt(name, v)
	}
	resp.Body = body
	return resp
}

// all are the messages of a topic at the broker.
func (b *fakeBroker) all(topic string) (out []*MessageExt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for q, entries := range b.queues {
		for _, pos := range entries {
			if q.Topic == topic {
				m, _, err := decodeMessage(slices.Clone(b.log[pos:pos+message.RecordSize(b.log[pos:])]), b.name)
				require.NoError(b.c.t, err)
				out = append(out, m)
			}
		}
	}
	return out
}

func (b *fakeBroker) setIntercept(f func(req *protocol.Command) *protocol.Command) {
	b.mu.Lock()
	b.intercept = f
	b.mu.Unlock()
}

func (b *fakeBroker) count(code protocol.RequestCode) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen[code]
}

func (b *fakeBroker) committed(group string, q MessageQueue) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o, ok := b.offsets[group][q]; ok {
		return o
	}
	return -1
}
