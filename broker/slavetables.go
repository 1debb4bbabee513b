package broker

import (
	"context"
	"hash/crc32"
	"net"
	"strconv"
	"time"

	"rmq/internal/config"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// Waits of a slave.
const (
	tablePeriod  = time.Second     // the master is asked for its tables so often
	tableTimeout = 2 * time.Second // for all of them
	tableLack    = 10              // periods without a master to ask before the log says so
	tableAsk     = 5               // periods without an answer after which name servers are asked where the master is now
)

// slaveTables are the documents that a slave asks its master for, with the request for each. The stream of a master of
// Apache carries messages alone, and that of ours neither offsets nor the progress of delays.
var slaveTables = []struct {
	name string
	code protocol.RequestCode
}{
	{topicsName, protocol.RequestGetAllTopicConfig},
	{groupsName, protocol.RequestGetAllSubscriptionGroupConfig},
	{offsetsName, protocol.RequestGetAllConsumerOffset},
	{delayOffsetName, protocol.RequestGetAllDelayOffset},
}

// followTables takes over the master's tables while this node is its slave
// (org.apache.rocketmq.broker.slave.SlaveSynchronize). A group replicates them in its log, and its followers return what
// groups have committed at them.
func (b *Broker) followTables(ctx context.Context) error {
	if b.roles.newest().Mode == replication.Raft {
		return b.returnOffsets(ctx)
	}
	if _, ok := b.store.(replication.Promoter); !ok {
		return nil
	}
	tick := time.NewTicker(tablePeriod)
	defer tick.Stop()
	seen := map[string]uint32{} // checksum of what was taken over last, by name
	told := false               // that the master does not answer
	lack := 0                   // periods in which nobody has said where the master answers
	silent := 0                 // periods in which it has not answered
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		st := b.roles.newest()
		if st.Role != replication.Follower || st.Client == "" {
			clear(seen)
			b.tablesCome.Store(false)
			if st.Role == replication.Follower {
				b.guessMaster(ctx)
			}
			if lack++; st.Role == replication.Follower && lack == tableLack {
				b.log.Warn("this slave has no topics, groups and offsets of its master: nobody says where the master answers clients; "+
					"set namesrvAddr to the name servers that the master registers with", "haMasterAddress", b.conf().HAMasterAddress)
			}
			continue
		}
		lack = 0
		err := b.takeTables(ctx, st.Client, seen)
		if err != nil && !told && ctx.Err() == nil {
			b.log.Warn("the master does not tell its tables; it will be asked again", "master", st.Client, "err", err)
		}
		b.tablesCome.Store(err == nil)
		if told = err != nil; !told {
			silent = 0
		} else if silent++; silent%tableAsk == 0 {
			b.registrar.Reregister()
		}
	}
}

// returnOffsets tells the leader of a group what was committed at this node, by clients that do not know yet who leads.
func (b *Broker) returnOffsets(ctx context.Context) error {
	tick := time.NewTicker(tablePeriod)
	defer tick.Stop()
	told := false // that the leader does not take them
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		st := b.roles.newest()
		if st.Role != replication.Follower || st.Client == "" || !b.Offsets.strays.Load() {
			continue
		}
		err := b.returnNow(ctx, st.Client)
		if err != nil && !told && ctx.Err() == nil {
			b.log.Warn("the leader does not take the offsets that were committed here; it will be asked again", "leader", st.Client, "err", err)
		}
		told = err != nil
	}
}

func (b *Broker) returnNow(ctx context.Context, leader string) error {
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()
	conn, err := b.registrar.client.Conn(ctx, leader)
	if err != nil {
		return err
	}
	return b.giveOffsets(ctx, conn)
}

// guessMaster looks for who serves haMasterAddress one port below it, where clients reach a broker whose haListenPort was
// not set, while nobody has said where they do. What answers there counts if it names itself the master at that port.
func (b *Broker) guessMaster(ctx context.Context) {
	c := b.conf()
	host, text, err := net.SplitHostPort(c.HAMasterAddress)
	if err != nil { // there is none: who is followed is what name servers say
		return
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()
	addr := net.JoinHostPort(host, strconv.Itoa(port-1))
	conn, err := b.registrar.client.Conn(ctx, addr)
	if err != nil {
		return
	}
	resp, err := conn.Call(ctx, protocol.NewRequest(protocol.RequestGetBrokerConfig))
	if err != nil || resp.Err() != nil {
		return
	}
	props, err := config.ParseProperties(resp.Body)
	if err != nil {
		return
	}
	has := map[string]string{}
	for _, p := range props {
		has[p.Key] = p.Value
	}
	if has["brokerClusterName"] != c.BrokerClusterName || has["brokerName"] != c.BrokerName || has["haListenPort"] != text || has["brokerRole"] == roleSlave {
		return
	}
	if p, ok := b.store.(replication.Promoter); ok && b.roles.newest().Client == "" {
		b.log.Info("the master answers clients beside its replication port", "haMasterAddress", c.HAMasterAddress, "master", addr)
		b.haMaster.Store(&c.HAMasterAddress)
		p.Follow("", addr)
	}
}

// takeTables asks for every table and hands on those that are not what was seen last.
func (b *Broker) takeTables(ctx context.Context, master string, seen map[string]uint32) error {
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()
	conn, err := b.registrar.client.Conn(ctx, master)
	if err != nil {
		return err
	}
	if err := b.giveOffsets(ctx, conn); err != nil {
		return err
	}
	for _, t := range slaveTables {
		resp, err := conn.Call(ctx, protocol.NewRequest(t.code))
		if err == nil {
			err = resp.Err()
		}
		if err != nil {
			return err
		}
		sum := crc32.ChecksumIEEE(resp.Body)
		if last, ok := seen[t.name]; len(resp.Body) == 0 || ok && last == sum {
			continue
		}
		b.roles.meta(t.name, resp.Body)
		seen[t.name] = sum
	}
	return nil
}

// giveOffsets tells the master what groups have committed here while it was away. Apache's does not take it.
func (b *Broker) giveOffsets(ctx context.Context, conn *remoting.Conn) error {
	locals := b.Offsets.locals()
	if len(locals) == 0 {
		return nil
	}
	req := protocol.NewRequest(protocol.RequestMergeOffsets)
	req.Body = protocol.EncodeBody(mergeOffsetsBody{locals})
	resp, err := conn.Call(ctx, req)
	if err == nil && resp.Code != int32(protocol.ResponseRequestCodeNotSupported) {
		err = resp.Err()
	}
	if err == nil {
		b.Offsets.merged(locals)
	}
	return err
}
