//go:build interop

package wire

import (
	"slices"
	"testing"
)

// TestFixedMaster proves that haMasterAddress alone attaches a slave of ours to a real master: it catches up byte for
// byte, with topics, groups and offsets, though the name server that it registers with has never heard of the master, or
// the master comes back at another client address and its backlog is read from the slave when it is gone.
func TestFixedMaster(t *testing.T) {
	for _, master := range []line{server49, server54, rmq} {
		if short() && master != rmq {
			continue
		}
		t.Run(string(master), func(t *testing.T) {
			t.Run("known to no name server", func(t *testing.T) { fixedUnknown(t, master) })
			t.Run("comes back elsewhere", func(t *testing.T) { fixedMoves(t, master) })
		})
	}
}

// followFixed starts b as a slave of ours that follows an address, registered with a name server.
func (p *pair) followFixed(t *testing.T, namesrv, addr string) {
	t.Helper()
	p.b.start(t, rmq, namesrv, "brokerRole=SLAVE", "brokerId=1", "slaveReadEnable=true", "haMasterAddress="+addr)
}

func fixedUnknown(t *testing.T, master line) {
	p := newPair(t, master, rmq, client54)
	p.lead(t, p.a)
	makeTopic(t, p.c, p.a, pairTopic, 2, pairGroup)
	own := ourNamesrv(t)
	slaves := newClient(t, own.addr)
	p.followFixed(t, own.addr, p.a.haAddr())
	roles(t, slaves, p.b.name, map[int64]*replica{1: p.b})
	keys := p.write(t, "one", 5)
	sameLog(t, p.c, p.a, p.b)
	keys = append(keys, p.write(t, "two", 100)...)
	javaRead(t, p.reader, p.ns, pairTopic, pairGroup, keys)
	sameLog(t, p.c, p.a, p.b)
	p.sameTables(t, p.a, p.b)
}

func fixedMoves(t *testing.T, master line) {
	p := newPair(t, master, rmq, client54)
	p.lead(t, p.a)
	makeTopic(t, p.c, p.a, pairTopic, 2, pairGroup)
	// The slave reaches the replication port through another address, as over a link of its own: nothing can be guessed.
	link := newTap(t, p.a.haAddr())
	p.followFixed(t, p.ns, link.addr)
	roles(t, p.c, p.b.name, map[int64]*replica{0: p.a, 1: p.b})
	keys := p.write(t, "one", 60)
	javaRead(t, p.reader, p.ns, pairTopic, pairGroup, keys)
	sameLog(t, p.c, p.a, p.b)
	p.sameTables(t, p.a, p.b)

	p.a.stop(t)
	roles(t, p.c, p.b.name, map[int64]*replica{1: p.b})
	p.a.port = ports(t, 4) + 2
	link.turn(p.a.haAddr())
	p.master(t, p.a)
	roles(t, p.c, p.b.name, map[int64]*replica{0: p.a, 1: p.b})
	const later = "MadeLater"
	makeTopic(t, p.c, p.a, later, 3, "LaterReaders")
	eventually(t, "a topic of the master's new address", func() bool {
		got, err := p.c.Admin().Topic(t.Context(), p.b.addr(), later)
		return err == nil && got.ReadQueueNums == 3
	})
	more := p.write(t, "two", 60)
	javaRead(t, p.reader, p.ns, pairTopic, pairGroup, more)
	sameLog(t, p.c, p.a, p.b)
	p.sameTables(t, p.a, p.b)
	p.a.kill()
	roles(t, p.c, p.b.name, map[int64]*replica{1: p.b})
	javaRead(t, p.reader, p.ns, pairTopic, "FromTheSlave", slices.Concat(keys, more))
}
