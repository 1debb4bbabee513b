package broker

import (
	"context"
	"path"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// Proves on a master and its slave that offsets committed at the slave come back to the master, and that a
// slave is promoted on request: not while messages may be lost, unless that is accepted; that it tells what
// it did, and takes messages then.
func TestPairChanges(t *testing.T) {
	dir, ha := t.TempDir(), strconv.Itoa(ports(t))
	master := startBroker(t, Options{Settings: settings(t, path.Join(dir, "m"), "brokerRole=SYNC_MASTER", "haListenPort="+ha)})
	slave := startBroker(t, Options{Settings: settings(t, path.Join(dir, "s"), "brokerRole=SLAVE", "brokerId=1", "haMasterAddress=127.0.0.1:"+ha)})
	require.Eventually(t, func() bool {
		peers := master.store.Status().Peers
		return len(peers) == 1 && peers[0].InSync
	}, 20*time.Second, 5*time.Millisecond)
	m, s := connect(t, master), connect(t, slave)
	m.require(m.call(topicRequest("T")), protocol.ResponseSuccess)
	for i := range 3 {
		m.require(m.send("T", 0, strconv.Itoa(i)), protocol.ResponseSuccess)
	}
	require.Eventually(t, func() bool { return slave.Topics.Get("T") != nil && slave.store.Dispatched() == master.store.Max() }, 20*time.Second, 5*time.Millisecond)
	slave.Offsets.Commit([]byte("g"), []byte("T"), 0, 2)
	require.Eventually(t, func() bool {
		at, ok := master.Offsets.Query([]byte("g"), []byte("T"), 0)
		return ok && at == 2 && len(slave.Offsets.locals()) == 0
	}, 20*time.Second, 5*time.Millisecond)

	mine, copied := m.epochs(), s.epochs()
	require.Equal(t, []protocol.EpochEntry{{Epoch: 1, EndOffset: master.store.Max()}}, mine.EpochList)
	require.EqualValues(t, 1, copied.BrokerID)
	copied.BrokerID = 0
	require.Equal(t, mine, copied)

	text := scrape(master)
	require.Contains(t, text, `mode="sync",node_id="broker-a",node_type="broker",role="leader"} 1`)
	for _, name := range []string{"rmq_replication_lag_bytes", "rmq_replication_quiet_seconds", "rmq_replication_sent_bytes_total"} {
		require.Regexp(t, `\n`+name+`{[^}]*peer="broker-a:1"`, text)
	}
	require.Contains(t, scrape(slave), `role="follower"} 0`)

	require.Contains(t, m.require(m.call(request(protocol.RequestPromoteReplica)), protocol.ResponseSystemError), "leads already")
	require.Contains(t, m.require(m.call(request(protocol.RequestTransferLeader)), protocol.ResponseSystemError), "promote a slave")
	s.require(s.call(request(protocol.RequestMergeOffsets)), protocol.ResponseServiceNotAvailable)
	require.NoError(t, stopBroker(master))
	resp := s.call(request(protocol.RequestPromoteReplica, "acceptLoss", "true"))
	s.require(resp, protocol.ResponseSuccess)
	var did protocol.PromoteResponse
	require.NoError(t, protocol.DecodeExt(resp, &did))
	require.Positive(t, did.Epoch)
	require.Equal(t, slave.store.Max(), did.End)
	require.Zero(t, did.MayLose)
	awaitRole(t, slave, true)
	require.Equal(t, protocol.EpochEntryCache{
		ClusterName: "DefaultCluster", BrokerName: "broker-a", BrokerID: 0, MaxOffset: did.End,
		EpochList: []protocol.EpochEntry{{Epoch: 1, EndOffset: did.End}, {Epoch: did.Epoch, StartOffset: did.End, EndOffset: did.End}},
	}, s.epochs())
	s.require(s.call(sendRequest("T", 0, "after")), protocol.ResponseSlaveNotAvailable) // it leads in the mode of its master
}

// Proves that a broker whose log is kept without replication says that it has no epochs.
func TestNoEpochs(t *testing.T) {
	open := func(ctx context.Context, o engine.Options, events replication.Events) (Store, error) {
		s, err := engine.Open(ctx, o)
		if err != nil {
			return nil, err
		}
		return replication.NewPlain(s, events), nil
	}
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir()), Open: open}))
	require.Equal(t, "broker-a 0 has no epochs: its log is kept without replication", p.require(p.call(request(protocol.RequestGetBrokerEpochCache)), protocol.ResponseSystemError))
}

// epochs asks who led when.
func (p *peer) epochs() (c protocol.EpochEntryCache) {
	p.tb.Helper()
	resp := p.call(request(protocol.RequestGetBrokerEpochCache))
	p.require(resp, protocol.ResponseSuccess)
	require.NoError(p.tb, protocol.DecodeBody(resp.Body, &c))
	return c
}

// Proves on a group of three that leadership goes where an operator wants it, that a node that does not lead
// says who does, and that a member is taken out.
func TestGroupChanges(t *testing.T) {
	dir := t.TempDir()
	var peers string
	for i := range 3 {
		peers += "n" + strconv.Itoa(i) + "-127.0.0.1:" + strconv.Itoa(ports(t)) + ";"
	}
	nodes := make([]*Broker, 3)
	for i := range nodes {
		id := "n" + strconv.Itoa(i)
		nodes[i] = startBroker(t, Options{Settings: settings(t, path.Join(dir, id), "enableDLegerCommitLog=true", "dLegerGroup=g", "dLegerSelfId="+id, "dLegerPeers="+peers[:len(peers)-1])})
	}
	leader := func() (at int) {
		require.Eventually(t, func() bool {
			for at = range nodes {
				if nodes[at].leads.Load() {
					return true
				}
			}
			return false
		}, 30*time.Second, 5*time.Millisecond)
		return at
	}
	old := leader()
	next := (old + 1) % 3
	p := connect(t, nodes[old])
	p.require(p.call(request(protocol.RequestTransferLeader, "peer", "n"+strconv.Itoa(next))), protocol.ResponseSuccess)
	require.Eventually(t, func() bool { return nodes[next].leads.Load() && nodes[old].store.Status().Role == replication.Follower }, 30*time.Second, 5*time.Millisecond)
	remark := p.require(p.call(request(protocol.RequestTransferLeader)), protocol.ResponseServiceNotAvailable)
	require.Contains(t, remark, nodes[next].conf().clientAddr())
	require.Contains(t, p.require(p.call(request(protocol.RequestPromoteReplica)), protocol.ResponseSystemError), "transferLeader")

	// What a client commits at a node that led before goes to the leader, and does not outlive what it has committed there since.
	read := func(n *Broker) int64 {
		at, _ := n.Offsets.Query([]byte("g"), []byte("T"), 0)
		return at
	}
	commit := func(n *Broker, offset int64) { n.Offsets.Commit([]byte("g"), []byte("T"), 0, offset) }
	commit(nodes[old], 2)
	require.Eventually(t, func() bool { return read(nodes[next]) == 2 && read(nodes[3-old-next]) == 2 }, 30*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool {
		commit(nodes[next], 7) // again, as a client does: an election would take what has not reached the others
		return read(nodes[old]) == 7
	}, 30*time.Second, 5*time.Millisecond)
	commit(nodes[old], 5)
	require.EqualValues(t, 7, read(nodes[old]), "it was on its way when the client went to the leader")

	// Tools ask every node of a name to delete a topic: whoever follows has the leader do it.
	p = connect(t, nodes[old])
	leads := connect(t, nodes[next])
	leads.require(leads.call(topicRequest("Gone")), protocol.ResponseSuccess)
	p.require(p.call(request(protocol.RequestDeleteTopicInBroker, "topic", "Gone")), protocol.ResponseSuccess)
	require.Nil(t, nodes[next].Topics.Get("Gone"))
	require.Eventually(t, func() bool { return nodes[old].Topics.Get("Gone") == nil }, 30*time.Second, 5*time.Millisecond)
	p.require(p.call(request(protocol.RequestDeleteTopicInBroker, "topic", "Gone", extRelayed, "true")), protocol.ResponseServiceNotAvailable)

	p = connect(t, nodes[next])
	change := func(pairs ...string) *protocol.Command {
		return p.call(request(protocol.RequestChangeMember, pairs...))
	}
	require.Contains(t, p.require(change("action", "burn", "peer", "n1"), protocol.ResponseInvalidParameter), "add, promote or remove")
	require.Contains(t, p.require(change("action", "add", "peer", "n7", "addr", "nowhere"), protocol.ResponseInvalidParameter), "host:port")
	p.require(change("action", "promote", "peer", "n9"), protocol.ResponseSystemError)
	p.require(change("action", "remove", "peer", "n"+strconv.Itoa(old)), protocol.ResponseSuccess)
	require.Eventually(t, func() bool { return len(nodes[next].store.Status().Peers) == 1 }, 30*time.Second, 5*time.Millisecond)
	p.require(p.call(topicRequest("T")), protocol.ResponseSuccess)
	p.require(p.send("T", 0, "goes on"), protocol.ResponseSuccess)

	// What operators see of it: the first message, though the log begins otherwise, and whom a node follows.
	var kv protocol.KVTable
	require.Eventually(t, func() bool {
		require.NoError(t, protocol.DecodeBody(p.call(request(protocol.RequestGetBrokerRuntimeInfo)).Body, &kv))
		at, err := strconv.ParseInt(kv.Table["earliestMessageTimeStamp"], 10, 64)
		return err == nil && at > time.Now().Add(-time.Hour).UnixMilli()
	}, 30*time.Second, 5*time.Millisecond)
	var state protocol.HARuntimeInfo
	f := connect(t, nodes[3-old-next])
	require.NoError(t, protocol.DecodeBody(f.call(request(protocol.RequestGetBrokerHAStatus)).Body, &state))
	require.Equal(t, nodes[next].conf().clientAddr(), state.HAClientRuntimeInfo.MasterAddr)
	var lead, follows protocol.EpochEntryCache
	require.Eventually(t, func() bool { // the group saves documents in its log at any time
		lead, follows = p.epochs(), f.epochs()
		return slices.Equal(lead.EpochList, follows.EpochList)
	}, 30*time.Second, 5*time.Millisecond)
	require.GreaterOrEqual(t, len(lead.EpochList), 2, "two have led")
	require.Zero(t, lead.EpochList[0].StartOffset)
	for i, e := range lead.EpochList[1:] {
		require.Greater(t, e.Epoch, lead.EpochList[i].Epoch)
		require.Equal(t, lead.EpochList[i].EndOffset, e.StartOffset)
		require.Greater(t, e.EndOffset, e.StartOffset)
	}
	require.Zero(t, lead.BrokerID)
	require.EqualValues(t, 3-old-next+1, follows.BrokerID)
}
