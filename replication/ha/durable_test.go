package ha

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// Proves that under synchronous flush an append is not acked, nor shown, while the only slave has its bytes written and
// not synced, though the master knows that they are written and has them on its own disk; and that it is once the sync
// returns.
func TestAckAfterSlavesDisk(t *testing.T) {
	m := master(t, both(syncMode, syncFlush))
	s := newNode(t, "a:1", both(syncFlush, func(o *Options) { o.Slave, o.Master, o.MasterClient = true, m.s.Addr(), m.o.Client }))
	var disk *vfs.Faulty
	s.wrap = func(heap vfs.FS) vfs.FS { disk = vfs.NewFaulty(heap); return disk }
	s.open()
	inSync(t, m, 1)
	x := newSender(21)
	require.NoError(t, x.send(m, 3))

	gate := vfs.NewGate()
	for _, dir := range []string{"commitlog", "prepared"} { // a file keeps the name that it was prepared under
		disk.Add(vfs.Rule{Op: vfs.OpSync, Match: "*/" + dir + "/*", Stall: gate})
	}
	acked := make(chan error, 1)
	before, visible := m.s.Written(), m.s.Visible()
	var sending sync.WaitGroup
	t.Cleanup(func() { gate.Open(); sending.Wait() })
	sending.Go(func() { acked <- x.one(context.Background(), m) })
	<-gate.Arrived()
	eventually(t, func() bool {
		end := m.s.Written()
		return end > before && m.s.Flushed() == end && m.s.Status().Peers[0].Written == end
	}, "the master hears that the slave has written")
	require.Equal(t, before, m.s.Status().Peers[0].Durable, "the slave says to have synced what it has not")
	require.Equal(t, before, m.s.transfer.log.mark.Load(), "counted before it is on the slave's disk")
	require.Equal(t, visible, m.s.Visible())
	require.Empty(t, acked)

	gate.Open()
	require.NoError(t, <-acked)
	caughtUp(t, m, s)
	x.audit(s)
}
