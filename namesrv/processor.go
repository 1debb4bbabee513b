package namesrv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"rmq/internal/bakfile"
	"rmq/internal/config"
	"rmq/internal/vfs"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// processor answers one kind of request, on the goroutine that reads c. nil: the answer comes later.
type processor func(n *NameServer, c *remoting.Conn, req *protocol.Command) *protocol.Command

// processors are all requests that a name server answers
// (org.apache.rocketmq.namesrv.processor.DefaultRequestProcessor, ClientRequestProcessor).
var processors = map[protocol.RequestCode]processor{
	protocol.RequestRegisterBroker:       (*NameServer).registerBroker,
	protocol.RequestUnregisterBroker:     (*NameServer).unregisterBroker,
	protocol.RequestQueryDataVersion:     (*NameServer).queryDataVersion,
	protocol.RequestBrokerHeartbeat:      (*NameServer).brokerHeartbeat,
	protocol.RequestGetBrokerMemberGroup: (*NameServer).brokerMemberGroup,

	protocol.RequestGetRouteInfoByTopic:           (*NameServer).routeInfo,
	protocol.RequestGetBrokerClusterInfo:          (*NameServer).clusterInfo,
	protocol.RequestGetAllTopicListFromNameServer: (*NameServer).allTopics,
	protocol.RequestGetTopicsByCluster:            (*NameServer).topicsByCluster,
	protocol.RequestGetSystemTopicListFromNS:      (*NameServer).systemTopics,
	protocol.RequestGetUnitTopicList:              (*NameServer).unitTopics,
	protocol.RequestGetHasUnitSubTopicList:        (*NameServer).unitSubTopics,
	protocol.RequestGetHasUnitSubUnunitTopicList:  (*NameServer).ordinaryUnitSubTopics,
	protocol.RequestRegisterTopicInNameServer:     (*NameServer).registerTopic,
	protocol.RequestDeleteTopicInNameServer:       (*NameServer).deleteTopic,
	protocol.RequestWipeWritePermOfBroker:         (*NameServer).wipeWritePerm,
	protocol.RequestAddWritePermOfBroker:          (*NameServer).addWritePerm,

	protocol.RequestPutKVConfig:            (*NameServer).later,
	protocol.RequestDeleteKVConfig:         (*NameServer).later,
	protocol.RequestGetKVConfig:            (*NameServer).kvConfig,
	protocol.RequestGetKVListByNamespace:   (*NameServer).kvList,
	protocol.RequestUpdateNameServerConfig: (*NameServer).later,
	protocol.RequestGetNameServerConfig:    (*NameServer).config,
}

// SupportedCodes lists the requests that a name server answers, in no order.
func SupportedCodes() []protocol.RequestCode {
	var codes []protocol.RequestCode
	for code := range processors {
		codes = append(codes, code)
	}
	return codes
}

func (n *NameServer) unsupported(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return protocol.NewResponse(req, protocol.ResponseRequestCodeNotSupported, fmt.Sprintf("request type %d not supported", req.Code))
}

// refuse answers SYSTEM_ERROR, which is what tools and clients expect for all that has no code of its
// own.
func refuse(req *protocol.Command, err error) *protocol.Command {
	return protocol.NewResponse(req, protocol.ResponseSystemError, err.Error())
}

// succeed answers with a body, nil for none, and with header fields, nil for none.
func succeed(req *protocol.Command, header, body any) *protocol.Command {
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	if header != nil {
		protocol.EncodeExt(resp, header)
	}
	if body != nil {
		resp.Body = protocol.EncodeBody(body)
	}
	return resp
}

// heardOf notes that brokers depend on c.
func heardOf(c *remoting.Conn) {
	if c.State() == nil {
		c.SetState(true)
	}
}

func (n *NameServer) registerBroker(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.RegisterBrokerHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	if h.BrokerName == "" || h.BrokerAddr == "" || h.ClusterName == "" {
		return refuse(req, errors.New("brokerName, brokerAddr and clusterName must not be empty"))
	}
	if h.BodyCRC32 != 0 && h.BodyCRC32 != protocol.BodyCRC(req.Body) {
		return refuse(req, errors.New("crc32 not match"))
	}
	body, err := protocol.DecodeRegisterBroker(req.Body, req.Version, h.Compressed)
	if err != nil {
		return refuse(req, err)
	}
	cfg := n.settings.Load().Get()
	r := Registration{
		Cluster: h.ClusterName, Name: h.BrokerName, ID: h.BrokerID, Addr: h.BrokerAddr, HAAddr: h.HAServerAddr, Zone: h.ZoneName,
		ActingMaster: h.EnableActingMaster, Topics: &body.TopicConfigSerializeWrapper, Exhaustive: cfg.DeleteTopics, Owner: c,
	}
	if h.HeartbeatTimeoutMillis != nil {
		r.Timeout = time.Duration(*h.HeartbeatTimeoutMillis) * time.Millisecond
	}
	heardOf(c)
	master, err := n.routes.Register(&r)
	if err != nil {
		return refuse(req, err)
	}
	var order any
	if table := n.kv.Namespace(OrderNamespace); cfg.ReturnOrderTopics && len(table) > 0 {
		order = &protocol.KVTable{Table: table}
	}
	return succeed(req, &protocol.RegisterBrokerResponse{HAServerAddr: master.HAAddr, MasterAddr: master.Addr}, order)
}

func (n *NameServer) unregisterBroker(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.UnregisterBrokerHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	n.routes.Unregister(h.BrokerName, h.BrokerAddr)
	return succeed(req, nil, nil)
}

func (n *NameServer) queryDataVersion(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.QueryDataVersionHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	var theirs protocol.DataVersion
	if err := protocol.DecodeBody(req.Body, &theirs); err != nil {
		return refuse(req, err)
	}
	heardOf(c)
	ours, ok := n.routes.DataVersion(h.BrokerName, h.BrokerAddr, c)
	if !ok {
		return succeed(req, &protocol.QueryDataVersionResponse{Changed: true}, nil)
	}
	return succeed(req, &protocol.QueryDataVersionResponse{Changed: ours != theirs}, &ours)
}

func (n *NameServer) brokerHeartbeat(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.BrokerHeartbeatHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	heardOf(c)
	n.routes.Heartbeat(h.BrokerName, h.BrokerAddr, c)
	return succeed(req, nil, nil)
}

func (n *NameServer) brokerMemberGroup(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.GetBrokerMemberGroupHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	return succeed(req, nil, &protocol.GetBrokerMemberGroupResponseBody{BrokerMemberGroup: *n.routes.MemberGroup(h.ClusterName, h.BrokerName)})
}

func (n *NameServer) routeInfo(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.GetRouteInfoHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	if time.Now().Before(n.ready) {
		return refuse(req, errors.New("name server not ready"))
	}
	route, ok := n.routes.Route(h.Topic)
	if !ok {
		return protocol.NewResponse(req, protocol.ResponseTopicNotExist, "No topic route info in name server for the topic: "+h.Topic)
	}
	if n.settings.Load().Get().OrderMessages {
		route.OrderTopicConf, _ = n.kv.Get(OrderNamespace, h.Topic)
	}
	return succeed(req, nil, &route)
}

func (n *NameServer) clusterInfo(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return succeed(req, nil, n.routes.ClusterInfo())
}

// list answers with topics, unless the configuration says that they are not to be listed.
func list(req *protocol.Command, allowed bool, topics func() []string) *protocol.Command {
	if !allowed {
		return refuse(req, errors.New("disable"))
	}
	return succeed(req, nil, &protocol.TopicList{TopicList: topics()})
}

func (n *NameServer) allTopics(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return list(req, n.settings.Load().Get().AllTopicList, n.routes.Topics)
}

func (n *NameServer) topicsByCluster(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.GetTopicsByClusterHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	return list(req, n.settings.Load().Get().TopicList, func() []string { return n.routes.TopicsOfCluster(h.Cluster) })
}

func (n *NameServer) systemTopics(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	names, addr := n.routes.SystemTopics()
	return succeed(req, nil, &protocol.TopicList{BrokerAddr: addr, TopicList: names})
}

func (n *NameServer) unitTopics(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return list(req, n.settings.Load().Get().TopicList, n.routes.UnitTopics)
}

func (n *NameServer) unitSubTopics(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return list(req, n.settings.Load().Get().TopicList, func() []string { return n.routes.UnitSubTopics(false) })
}

func (n *NameServer) ordinaryUnitSubTopics(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	return list(req, n.settings.Load().Get().TopicList, func() []string { return n.routes.UnitSubTopics(true) })
}

func (n *NameServer) registerTopic(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.TopicHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	var route protocol.TopicRouteData
	if len(req.Body) > 0 {
		if err := protocol.DecodeBody(req.Body, &route); err != nil {
			return refuse(req, err)
		}
	}
	n.routes.RegisterTopic(h.Topic, route.QueueDatas)
	n.log.Info("topic registered", "topic", h.Topic, "brokers", len(route.QueueDatas), "by", c.RemoteAddr())
	return succeed(req, nil, nil)
}

func (n *NameServer) deleteTopic(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.DeleteTopicInNameServerHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	n.routes.DeleteTopic(h.Topic, h.ClusterName)
	n.log.Info("topic deleted", "topic", h.Topic, "cluster", h.ClusterName, "by", c.RemoteAddr())
	return succeed(req, nil, nil)
}

func (n *NameServer) wipeWritePerm(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.WritePermHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	count := n.routes.WipeWritePerm(h.BrokerName)
	n.log.Info("write permission wiped", "broker", h.BrokerName, "topics", count, "by", c.RemoteAddr())
	return succeed(req, &protocol.WipeWritePermResponse{WipeTopicCount: int32(count)}, nil)
}

func (n *NameServer) addWritePerm(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.WritePermHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	count := n.routes.AddWritePerm(h.BrokerName)
	n.log.Info("write permission added", "broker", h.BrokerName, "topics", count, "by", c.RemoteAddr())
	return succeed(req, &protocol.AddWritePermResponse{AddTopicCount: int32(count)}, nil)
}

// kvChange is what PUT_KV_CONFIG or DELETE_KV_CONFIG asks for.
func kvChange(req *protocol.Command) (KVChange, error) {
	if protocol.RequestCode(req.Code) == protocol.RequestDeleteKVConfig {
		var h protocol.KVConfigHeader
		err := protocol.DecodeExt(req, &h)
		return KVChange{Namespace: h.Namespace, Key: h.Key, Delete: true}, err
	}
	var h protocol.PutKVConfigHeader
	err := protocol.DecodeExt(req, &h)
	return KVChange{Namespace: h.Namespace, Key: h.Key, Value: h.Value}, err
}

func (n *NameServer) kvConfig(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.KVConfigHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	value, ok := n.kv.Get(h.Namespace, h.Key)
	if !ok {
		return protocol.NewResponse(req, protocol.ResponseQueryNotFound, fmt.Sprintf("No config item, Namespace: %s Key: %s", h.Namespace, h.Key))
	}
	return succeed(req, &protocol.GetKVConfigResponse{Value: value}, nil)
}

func (n *NameServer) kvList(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	var h protocol.GetKVListHeader
	if err := protocol.DecodeExt(req, &h); err != nil {
		return refuse(req, err)
	}
	table := n.kv.Namespace(h.Namespace)
	if table == nil {
		return protocol.NewResponse(req, protocol.ResponseQueryNotFound, "No config item, Namespace: "+h.Namespace)
	}
	return succeed(req, nil, &protocol.KVTable{Table: table})
}

// config answers with all keys as properties.
func (n *NameServer) config(_ *remoting.Conn, req *protocol.Command) *protocol.Command {
	resp := protocol.NewResponse(req, protocol.ResponseSuccess, "")
	settings := n.settings.Load()
	for _, name := range KeyNames() {
		text, _ := settings.Text(name)
		resp.Body = config.AppendProperty(resp.Body, name, text)
	}
	return resp
}

// updateConfig changes the configuration and the file that it is from, both or neither.
func (n *NameServer) updateConfig(j job) *protocol.Command {
	if len(j.req.Body) == 0 {
		return succeed(j.req, nil, nil)
	}
	by := j.conn.RemoteAddr().String()
	settings, err := config.TextSettings(config.Origin("UPDATE_NAMESRV_CONFIG by "+by), j.req.Body)
	if err != nil {
		return refuse(j.req, err)
	}
	next, changes, notices, err := n.settings.Load().Update(settings)
	if errors.Is(err, config.ErrDenied) {
		return protocol.NewResponse(j.req, protocol.ResponseNoPermission, "Can not update config in black list: "+err.Error())
	}
	if err == nil {
		err = rewrite(n.fs, n.configFile, changes)
	}
	if err != nil {
		n.log.Warn("configuration not changed", "by", by, "err", err)
		return refuse(j.req, err)
	}
	n.settings.Store(next)
	for _, notice := range notices {
		n.log.Warn("configuration", "notice", notice.String())
	}
	for _, c := range changes {
		n.log.Info("configuration changed", "by", by, "key", c.Key, "old", c.Old, "new", c.New)
	}
	if n.changed != nil {
		n.changed(next.Get())
	}
	return succeed(j.req, nil, nil)
}

// rewrite writes changes into a property file; the one before becomes its .bak.
func rewrite(fsys vfs.FS, name string, changes []config.Change) error {
	if len(changes) == 0 {
		return nil
	}
	var text []byte
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err == nil {
		info, statErr := f.Stat()
		if err = statErr; err == nil {
			text = make([]byte, info.Size())
			var n int
			if n, err = f.ReadAt(text, 0); n == len(text) {
				err = nil
			}
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err = config.Rewrite(text, changes)
	if err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	return bakfile.Save(fsys, name, text)
}
