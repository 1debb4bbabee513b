//go:build interop

package wire

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// Topic and group of a pair that switches roles.
const (
	pairTopic = "Pair"
	pairGroup = "PairReaders"
)

// pair is a master and a slave of which each kind of broker has one.
type pair struct {
	a, b   *replica // a begins as the master
	by     map[*replica]line
	role   string // of a master, ASYNC_MASTER unless set
	reader line   // the Java consumer
	ns     string
	c      *client.Client
}

func newPair(t *testing.T, a, b, reader line) *pair {
	t.Helper()
	p := &pair{role: "ASYNC_MASTER", a: newReplica(t), b: newReplica(t), reader: reader, ns: ourNamesrv(t).addr}
	p.by = map[*replica]line{p.a: a, p.b: b}
	p.c = newClient(t, p.ns)
	return p
}

// begin starts a as the master and b as its slave, with a topic and a group, and waits until b follows.
func (p *pair) begin(t *testing.T) {
	t.Helper()
	p.lead(t, p.a)
	p.follow(t, p.b, p.a)
	makeTopic(t, p.c, p.a, pairTopic, 2, pairGroup)
}

// lead starts r as the only broker, a master.
func (p *pair) lead(t *testing.T, r *replica) {
	t.Helper()
	p.master(t, r)
	roles(t, p.c, r.name, map[int64]*replica{0: r})
}

// master starts r as a master.
func (p *pair) master(t *testing.T, r *replica) {
	t.Helper()
	r.start(t, p.by[r], p.ns, "brokerRole="+p.role, "inSyncReplicas=2", "slaveTimeout=2000", "brokerId=0", "haStockPeers=127.0.0.1")
}

// follow starts r as the slave of a master that runs.
func (p *pair) follow(t *testing.T, r, master *replica) {
	t.Helper()
	props := []string{"brokerRole=SLAVE", "brokerId=1", "slaveReadEnable=true", "haStockPeers=127.0.0.1"}
	if p.by[r] == server49 || p.by[r] == rmq && p.by[master] == server49 {
		props = append(props, "haMasterAddress="+master.haAddr()) // both ways to learn of it are used
	}
	r.start(t, p.by[r], p.ns, props...)
	roles(t, p.c, r.name, map[int64]*replica{0: master, 1: r})
}

// write sends n messages with an unmodified producer.
func (p *pair) write(t *testing.T, prefix string, n int) []string {
	t.Helper()
	return javaWrite(t, client54, p.ns, pairTopic, prefix, n, 1000)
}

// sameTables waits until a slave knows the topic, the group and how far it has read, as its master does.
func (p *pair) sameTables(t *testing.T, master, slave *replica) {
	t.Helper()
	want, err := p.c.Admin().Topic(t.Context(), master.addr(), pairTopic)
	require.NoError(t, err)
	eventually(t, "topic and group follow", func() bool {
		got, err := p.c.Admin().Topic(t.Context(), slave.addr(), pairTopic)
		if err != nil || got.ReadQueueNums != want.ReadQueueNums || got.Perm != want.Perm {
			return false
		}
		groups, err := p.c.Admin().Groups(t.Context(), slave.addr())
		return err == nil && groups.SubscriptionGroupTable[pairGroup] != nil
	})
	for q := range want.ReadQueueNums {
		at, err := offsetAt(t, p.c, master.addr(), q)
		require.NoError(t, err)
		eventually(t, "offsets follow", func() bool {
			own, err := offsetAt(t, p.c, slave.addr(), q)
			return err == nil && own == at
		})
	}
}

func offsetAt(t *testing.T, c *client.Client, addr string, queue int32) (int64, error) {
	t.Helper()
	resp, err := c.Admin().Invoke(t.Context(), addr, protocol.RequestQueryConsumerOffset,
		&protocol.QueryOffsetHeader{ConsumerGroup: pairGroup, Topic: pairTopic, QueueID: queue}, nil)
	if err != nil {
		return 0, err
	}
	var h protocol.OffsetResponse
	err = protocol.DecodeExt(resp, &h)
	return h.Offset, err
}

// TestSwitchover proves that a pair can be moved from Apache to here and back without a copy of its store: a slave of
// the other kind catches up byte for byte, with topics, groups and offsets; once the master is gone its backlog is read
// from the slave by an unmodified Java consumer, nothing twice; the slave is started as the master, the old one as its
// slave, and back again.
func TestSwitchover(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: whole switch-overs take minutes")
	}
	for _, kinds := range []struct {
		a, b, reader line
	}{
		{rmq, server49, client49},
		{rmq, server54, client54},
		{server49, rmq, client49},
		{server54, rmq, client54},
		{rmq, rmq, client54},
		{server54, server54, client54}, // the harness itself
	} {
		t.Run(fmt.Sprintf("%s with slave %s", kinds.a, kinds.b), func(t *testing.T) {
			newPair(t, kinds.a, kinds.b, kinds.reader).switchOver(t)
		})
	}
}

func (p *pair) switchOver(t *testing.T) {
	p.begin(t)
	read := p.write(t, "one", 5)
	sameLog(t, p.c, p.a, p.b)
	read = append(read, p.write(t, "two", 120)...)
	javaRead(t, p.reader, p.ns, pairTopic, pairGroup, read)
	sameLog(t, p.c, p.a, p.b)
	p.sameTables(t, p.a, p.b)
	backlog := p.write(t, "three", 60)
	sameLog(t, p.c, p.a, p.b)

	if p.by[p.a] == rmq {
		p.a.kill()
	} else {
		p.a.stop(t)
	}
	roles(t, p.c, p.b.name, map[int64]*replica{1: p.b})
	javaRead(t, p.reader, p.ns, pairTopic, pairGroup, backlog)
	all := slices.Concat(read, backlog)
	if short() {
		return
	}

	p.b.stop(t)
	p.lead(t, p.b)
	all = append(all, p.write(t, "four", 60)...)
	p.follow(t, p.a, p.b)
	sameLog(t, p.c, p.b, p.a)
	all = append(all, p.write(t, "five", 60)...)
	sameLog(t, p.c, p.b, p.a)
	p.sameTables(t, p.b, p.a)

	p.b.stop(t)
	p.a.stop(t)
	p.lead(t, p.a)
	p.follow(t, p.b, p.a)
	all = append(all, p.write(t, "six", 60)...)
	sameLog(t, p.c, p.a, p.b)
	javaRead(t, p.reader, p.ns, pairTopic, "FromTheMaster", all)
	p.a.kill()
	roles(t, p.c, p.b.name, map[int64]*replica{1: p.b})
	javaRead(t, p.reader, p.ns, pairTopic, "FromTheSlave", all)
}

// TestDualWrite proves that a master waits for a slave of the other kind before it says SEND_OK, and what it says once the
// slave is gone: the message is stored on the master alone.
func TestDualWrite(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: dual writes of mixed pairs")
	}
	for _, kinds := range []struct {
		master, slave line
		alone         string
	}{
		{rmq, server49, "SLAVE_NOT_AVAILABLE"},
		{rmq, server54, "SLAVE_NOT_AVAILABLE"},
		{rmq, rmq, "SLAVE_NOT_AVAILABLE"},
		{server49, rmq, "SLAVE_NOT_AVAILABLE"},
		{server54, rmq, "FLUSH_SLAVE_TIMEOUT"},
		{server54, server54, "FLUSH_SLAVE_TIMEOUT"}, // the harness itself
	} {
		t.Run(fmt.Sprintf("%s with slave %s", kinds.master, kinds.slave), func(t *testing.T) {
			p := newPair(t, kinds.master, kinds.slave, client54)
			p.role = "SYNC_MASTER"
			p.begin(t)
			statuses := func(prefix string, n int) map[string]int {
				acked, failed := acks(javaSend(t, client54, p.ns, pairTopic, prefix, n, 1000))
				require.Empty(t, failed)
				count := map[string]int{}
				for _, s := range acked {
					count[s]++
				}
				return count
			}
			statuses("first", 1) // the slave may still be on its way
			sameLog(t, p.c, p.a, p.b)
			require.Equal(t, map[string]int{"SEND_OK": 100}, statuses("both", 100))
			_, end := p.a.span(t, p.c)
			_, own := p.b.span(t, p.c)
			require.Equal(t, end, own, "what was acked is on the slave")
			p.b.kill()
			roles(t, p.c, p.a.name, map[int64]*replica{0: p.a})
			require.Equal(t, map[string]int{kinds.alone: 2}, statuses("alone", 2))
		})
	}
}
