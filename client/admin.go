package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rmq/remoting/protocol"
)

// Admin is what operators and tools ask of a cluster
// (org.apache.rocketmq.tools.admin.DefaultMQAdminExt). Safe for concurrent use.
//
// Where a method takes addr, that is the broker asked: "host:port". Requests whose context has no
// deadline get 5 s, those that walk over all queues of a group 15 s. Errors are those of the connection,
// or hold a [*protocol.RemoteError]; see [CodeOf].
type Admin struct {
	c *Client
}

// Admin gives the client's administrative side.
func (c *Client) Admin() *Admin { return &Admin{c} }

const (
	adminTimeout     = 5 * time.Second
	adminLongTimeout = 15 * time.Second
)

// OrderNamespace is the key-value namespace where name servers keep the order configuration of topics.
const OrderNamespace = "ORDER_TOPIC_CONFIG"

// Client is the client behind a.
func (a *Admin) Client() *Client { return a.c }

// Invoke sends any request to addr; header is a struct of package protocol, or nil. The answer is
// returned whatever its code.
func (a *Admin) Invoke(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	ctx, cancel := boundedBy(ctx, adminTimeout)
	defer cancel()
	return a.c.invoke(ctx, addr, a.c.newRequest(code, header, body))
}

func (a *Admin) call(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) (*protocol.Command, error) {
	ctx, cancel := boundedBy(ctx, adminTimeout)
	defer cancel()
	return a.c.call(ctx, addr, code, header, body)
}

func (a *Admin) do(ctx context.Context, addr string, code protocol.RequestCode, header any, body []byte) error {
	_, err := a.call(ctx, addr, code, header, body)
	return err
}

// askServers asks the name servers one after the other until one answers.
func (a *Admin) askServers(ctx context.Context, code protocol.RequestCode, header any) (*protocol.Command, error) {
	return a.c.callNameServer(ctx, code, header, nil)
}

// tellServers sends a request to every name server: what they are told they keep each for itself.
func (a *Admin) tellServers(ctx context.Context, code protocol.RequestCode, header any, body []byte) (map[string]*protocol.Command, error) {
	out := map[string]*protocol.Command{}
	var errs []error
	for _, addr := range a.c.servers.addrs {
		resp, err := a.call(ctx, addr, code, header, body)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[addr] = resp
	}
	return out, errors.Join(errs...)
}

// NameServers are the addresses of the name servers.
func (a *Admin) NameServers() []string { return slices.Clone(a.c.servers.addrs) }

// Route is where a topic is; [ErrNoRoute] if nowhere.
func (a *Admin) Route(ctx context.Context, topic string) (*protocol.TopicRouteData, error) {
	return a.c.fetchRoute(ctx, topic)
}

// Queues are the queues of a topic that can be read.
func (a *Admin) Queues(ctx context.Context, topic string) ([]MessageQueue, error) {
	if _, err := a.c.refreshRoute(ctx, topic); err != nil {
		return nil, err
	}
	r, err := a.c.route(ctx, topic)
	if err != nil {
		return nil, err
	}
	return slices.Clone(r.consume), nil
}

// Cluster lists clusters and brokers.
func (a *Admin) Cluster(ctx context.Context) (*protocol.ClusterInfo, error) {
	return decode[protocol.ClusterInfo](a.askServers(ctx, protocol.RequestGetBrokerClusterInfo, nil))
}

// Masters are the addresses of a cluster's masters, sorted by broker name; [ErrNoBroker] if there is none now.
func (a *Admin) Masters(ctx context.Context, cluster string) ([]string, error) {
	return a.brokersOf(ctx, cluster, false)
}

// Brokers are the addresses of all brokers of a cluster, by broker name and id.
func (a *Admin) Brokers(ctx context.Context, cluster string) ([]string, error) {
	return a.brokersOf(ctx, cluster, true)
}

func (a *Admin) brokersOf(ctx context.Context, cluster string, slaves bool) ([]string, error) {
	info, err := a.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	names, err := namesOf(info, cluster)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		addrs := info.BrokerAddrTable[name].BrokerAddrs
		for _, id := range slices.Sorted(maps.Keys(addrs)) {
			if slaves || id == masterID {
				out = append(out, addrs[id])
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("cluster %s: %w: none of %s has a master now; try again", cluster, ErrNoBroker, strings.Join(names, ", "))
	}
	return out, nil
}

// namesOf are the broker names of a cluster, sorted.
func namesOf(info *protocol.ClusterInfo, cluster string) ([]string, error) {
	names, ok := info.ClusterAddrTable[cluster]
	if !ok {
		return nil, fmt.Errorf("cluster %s: %w: there are %v", cluster, ErrNotFound, slices.Sorted(maps.Keys(info.ClusterAddrTable)))
	}
	return slices.Sorted(slices.Values(names)), nil
}

// eachBroker runs f for one address of every broker that has the topic: the master, else a slave.
func (a *Admin) eachBroker(ctx context.Context, topic string, f func(addr, brokerName string) error) error {
	r, err := a.Route(ctx, topic)
	if err != nil {
		return err
	}
	slices.SortFunc(r.BrokerDatas, func(x, y protocol.BrokerData) int { return strings.Compare(x.BrokerName, y.BrokerName) })
	for _, b := range r.BrokerDatas {
		addr := anyAddr(b.BrokerAddrs)
		if addr == "" {
			continue
		}
		if err := f(addr, b.BrokerName); err != nil {
			return err
		}
	}
	return nil
}

func anyAddr(addrs map[int64]string) string {
	for _, id := range slices.Sorted(maps.Keys(addrs)) {
		return addrs[id]
	}
	return ""
}

// RuntimeInfo is the state of a broker as it tells it: texts by name.
func (a *Admin) RuntimeInfo(ctx context.Context, addr string) (map[string]string, error) {
	t, err := decode[protocol.KVTable](a.call(ctx, addr, protocol.RequestGetBrokerRuntimeInfo, nil, nil))
	if err != nil {
		return nil, err
	}
	return t.Table, nil
}

// BrokerConfig is the configuration of a broker.
func (a *Admin) BrokerConfig(ctx context.Context, addr string) (map[string]string, error) {
	resp, err := a.call(ctx, addr, protocol.RequestGetBrokerConfig, nil, nil)
	if err != nil {
		return nil, err
	}
	return parseProperties(resp.Body), nil
}

// UpdateBrokerConfig changes keys of a broker's configuration, where the broker lets it.
func (a *Admin) UpdateBrokerConfig(ctx context.Context, addr string, changes map[string]string) error {
	return a.do(ctx, addr, protocol.RequestUpdateBrokerConfig, nil, formatProperties(changes))
}

// NameServerConfigs are the configurations of all name servers, by address.
func (a *Admin) NameServerConfigs(ctx context.Context) (map[string]map[string]string, error) {
	answers, err := a.tellServers(ctx, protocol.RequestGetNameServerConfig, nil, nil)
	out := map[string]map[string]string{}
	for addr, resp := range answers {
		out[addr] = parseProperties(resp.Body)
	}
	return out, err
}

// UpdateNameServerConfig changes keys of the configuration of every name server.
func (a *Admin) UpdateNameServerConfig(ctx context.Context, changes map[string]string) error {
	_, err := a.tellServers(ctx, protocol.RequestUpdateNameServerConfig, nil, formatProperties(changes))
	return err
}

// Stats is a statistic of a broker over a minute, an hour and a day, such as TOPIC_PUT_NUMS of a topic or
// GROUP_GET_NUMS of topic@group. [ErrNotFound] when the broker has counted nothing under that key.
func (a *Admin) Stats(ctx context.Context, addr, name, key string) (*protocol.BrokerStatsData, error) {
	s, err := decode[protocol.BrokerStatsData](a.call(ctx, addr, protocol.RequestViewBrokerStatsData, &protocol.ViewBrokerStatsHeader{StatsName: name, StatsKey: key}, nil))
	if hasCode(err, protocol.ResponseSystemError) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return s, err
}

// HAStatus is how a broker's replicas keep up.
func (a *Admin) HAStatus(ctx context.Context, addr string) (*protocol.HARuntimeInfo, error) {
	return decode[protocol.HARuntimeInfo](a.call(ctx, addr, protocol.RequestGetBrokerHAStatus, nil, nil))
}

// Epochs tells which stretches of a broker's log which epoch of a master, or term of a group, has written.
func (a *Admin) Epochs(ctx context.Context, addr string) (*protocol.EpochEntryCache, error) {
	return decode[protocol.EpochEntryCache](a.call(ctx, addr, protocol.RequestGetBrokerEpochCache, nil, nil))
}

// Promote makes a slave the master of its name, in a new epoch. Without acceptLoss it refuses when acked
// messages may be lost, and says how many bytes of them.
func (a *Admin) Promote(ctx context.Context, addr string, acceptLoss bool) (*protocol.PromoteResponse, error) {
	resp, err := a.call(ctx, addr, protocol.RequestPromoteReplica, &protocol.PromoteHeader{AcceptLoss: acceptLoss}, nil)
	if err != nil {
		return nil, err
	}
	r := &protocol.PromoteResponse{}
	return r, protocol.DecodeExt(resp, r)
}

// TransferLeader has the leader of a group, at addr, make another member lead; "" is who is furthest.
func (a *Admin) TransferLeader(ctx context.Context, addr, peer string) error {
	return a.do(ctx, addr, protocol.RequestTransferLeader, &protocol.TransferLeaderHeader{Peer: peer}, nil)
}

// ChangeMember has the leader of a group, at addr, add a member that does not vote yet, promote it to a
// voter once it has caught up, or remove it. peerAddr is where its log listens; only to add.
func (a *Admin) ChangeMember(ctx context.Context, addr, action, peer, peerAddr string) error {
	return a.do(ctx, addr, protocol.RequestChangeMember, &protocol.ChangeMemberHeader{Action: action, Peer: peer, Addr: peerAddr}, nil)
}

// CleanExpiredConsumeQueues has a broker remove queues whose messages are all gone.
func (a *Admin) CleanExpiredConsumeQueues(ctx context.Context, addr string) error {
	return a.do(ctx, addr, protocol.RequestCleanExpiredConsumeQueue, nil, nil)
}

// CleanUnusedTopics has a broker remove the queues of topics that it does not know any more.
func (a *Admin) CleanUnusedTopics(ctx context.Context, addr string) error {
	return a.do(ctx, addr, protocol.RequestCleanUnusedTopic, nil, nil)
}

// DeleteExpiredCommitLog has a broker remove segments past their time now.
func (a *Admin) DeleteExpiredCommitLog(ctx context.Context, addr string) error {
	return a.do(ctx, addr, protocol.RequestDeleteExpiredCommitLog, nil, nil)
}

// WipeWritePerm takes a broker's right to be written to out of the routes of every name server, and says how
// many topics each changed. It lasts until the broker registers a change.
func (a *Admin) WipeWritePerm(ctx context.Context, brokerName string) (map[string]int, error) {
	answers, err := a.tellServers(ctx, protocol.RequestWipeWritePermOfBroker, &protocol.WritePermHeader{BrokerName: brokerName}, nil)
	return topicCounts(answers, "wipeTopicCount"), err
}

// AddWritePerm undoes [Admin.WipeWritePerm].
func (a *Admin) AddWritePerm(ctx context.Context, brokerName string) (map[string]int, error) {
	answers, err := a.tellServers(ctx, protocol.RequestAddWritePermOfBroker, &protocol.WritePermHeader{BrokerName: brokerName}, nil)
	return topicCounts(answers, "addTopicCount"), err
}

// PutKV stores a value at every name server.
func (a *Admin) PutKV(ctx context.Context, namespace, key, value string) error {
	_, err := a.tellServers(ctx, protocol.RequestPutKVConfig, &protocol.PutKVConfigHeader{Namespace: namespace, Key: key, Value: value}, nil)
	return err
}

// DeleteKV removes a value at every name server.
func (a *Admin) DeleteKV(ctx context.Context, namespace, key string) error {
	_, err := a.tellServers(ctx, protocol.RequestDeleteKVConfig, &protocol.KVConfigHeader{Namespace: namespace, Key: key}, nil)
	return err
}

// KV reads a value from a name server; [ErrNotFound] if there is none.
func (a *Admin) KV(ctx context.Context, namespace, key string) (string, error) {
	h, err := header[protocol.GetKVConfigResponse](a.askServers(ctx, protocol.RequestGetKVConfig, &protocol.KVConfigHeader{Namespace: namespace, Key: key}))
	if err != nil {
		return "", notFound(err)
	}
	return h.Value, nil
}

// KVs are all values of a namespace; [ErrNotFound] if it is not known.
func (a *Admin) KVs(ctx context.Context, namespace string) (map[string]string, error) {
	t, err := decode[protocol.KVTable](a.askServers(ctx, protocol.RequestGetKVListByNamespace, &protocol.GetKVListHeader{Namespace: namespace}))
	if err != nil {
		return nil, notFound(err)
	}
	return t.Table, nil
}

// notFound adds [ErrNotFound] to a refusal that means it.
func notFound(err error) error {
	if hasCode(err, protocol.ResponseQueryNotFound, protocol.ResponseTopicNotExist, protocol.ResponseSubscriptionGroupNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
