package ha

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/replication"
)

// Proves that a slave gets what was there before it came and what comes while it is there, byte for
// byte, and serves it; and that neither waits for a timer.
func TestAsync(t *testing.T) {
	m := master(t, nil)
	x := newSender(1)
	require.NoError(t, x.send(m, 300))
	s := slave(t, m, "a:1", nil)
	caughtUp(t, m, s)
	require.NoError(t, x.send(m, 300))
	caughtUp(t, m, s)
	sameLog(t, m, s)
	x.audit(m)
	x.audit(s)

	_, err := s.s.Append(context.Background(), []byte("x"))
	var not *replication.NotLeaderError
	require.ErrorAs(t, err, &not)
	require.Equal(t, m.o.Client, not.Leader)
	st := m.s.Status()
	require.Equal(t, replication.Leader, st.Role)
	require.Len(t, st.Peers, 1)
	require.Equal(t, "a:1", st.Peers[0].ID)
	eventually(t, func() bool { return m.s.Status().Peers[0].LagBytes == 0 }, "no lag")
	require.Equal(t, "a:0", s.s.Status().Leader)
	require.Equal(t, st.Epoch, s.s.Status().Epoch)
}

// Proves for both kinds of flush that an ack of synchronous dual write means two copies, durable ones
// under sync flush, and that a slave that is not there, comes, and goes is told by the status.
func TestSync(t *testing.T) {
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			m := master(t, both(syncMode, func(o *Options) { o.Engine.Flush = flush }))
			x := newSender(2)
			require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)
			s := slave(t, m, "a:1", nil) // flushes asynchronously by its own configuration
			inSync(t, m, 1)
			for range 50 {
				require.NoError(t, x.send(m, 1))
				end := m.s.Written()
				require.GreaterOrEqual(t, s.s.Written(), end)
				if flush == engine.SyncFlush {
					require.GreaterOrEqual(t, s.s.Flushed(), end)
					require.GreaterOrEqual(t, m.s.Flushed(), end)
				}
			}
			caughtUp(t, m, s)
			x.audit(s)
			s.close()
			eventually(t, func() bool { return m.s.transfer.count.Load() == 0 }, "slave gone")
			require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)
			require.Equal(t, m.s.Written(), m.s.Visible())
		})
	}
}

// Proves that what goes over the rate has to wait, and that without a rate nothing does.
func TestPace(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	capped := pace{perSecond: 1000}
	require.NoError(t, capped.take(done, 3_600_000)) // an hour's worth, which is sent at once
	require.ErrorIs(t, capped.take(done, 1), context.Canceled)
	var free pace
	for range 3 {
		require.NoError(t, free.take(done, 1<<40))
	}
}

// Proves that too few copies are refused before anything is stored, by minInSyncReplicas and by strict.
func TestNotEnough(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"min":    func(o *Options) { o.MinInSyncReplicas = 2 },
		"strict": func(o *Options) { o.Strict = true },
	} {
		t.Run(name, func(t *testing.T) {
			m := master(t, both(syncMode, change))
			x := newSender(3)
			require.ErrorIs(t, x.send(m, 1), replication.ErrNotEnoughReplicas)
			require.Zero(t, m.s.Appended())
			s := slave(t, m, "a:1", nil)
			inSync(t, m, 1)
			require.NoError(t, x.send(m, 5))
			caughtUp(t, m, s)
		})
	}
}

// Proves that a slave that does not answer makes appends late, that the answer is the replica's
// timeout, and that nobody waits for it once it is not in sync any more.
func TestLateSlave(t *testing.T) {
	m := master(t, both(syncMode, func(o *Options) { o.InSyncTime = 400 * time.Millisecond }))
	p := newProxy(t, m.s.Addr())
	s := slave(t, m, "a:1", func(o *Options) { o.Master = p.addr() })
	inSync(t, m, 1)
	x := newSender(4)
	require.NoError(t, x.send(m, 10))
	p.freeze()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, x.one(ctx, m), replication.ErrReplicaTimeout)
	require.ErrorIs(t, m.s.Late(m.s.Appended()), replication.ErrReplicaTimeout)
	require.Less(t, m.s.Visible(), m.s.Appended(), "readers see what is confirmed")
	require.ErrorIs(t, x.send(m, 1), replication.ErrNoReplica)
	require.Equal(t, m.s.Visible(), m.s.Appended())
	p.thaw()
	inSync(t, m, 1)
	require.NoError(t, x.send(m, 10))
	caughtUp(t, m, s)
	x.audit(s)
}

// Proves that documents reach slaves, those that come later too, and count like messages.
func TestMeta(t *testing.T) {
	ctx := context.Background()
	m := master(t, syncMode)
	require.ErrorIs(t, m.s.SaveMeta(ctx, "topics", []byte("1")), replication.ErrNoReplica)
	s := slave(t, m, "a:1", nil)
	meta := func(name string) func() bool {
		return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.metas[name] != ""
		}
	}
	eventually(t, meta("topics"), "the document of before")
	inSync(t, m, 1)
	require.NoError(t, m.s.SaveMeta(ctx, "topics", []byte("2")))
	big := make([]byte, 3<<20)
	require.NoError(t, m.s.SaveMeta(ctx, "big", big))
	s.mu.Lock()
	require.Equal(t, "2", s.metas["topics"])
	require.Len(t, s.metas["big"], len(big))
	s.mu.Unlock()
	require.ErrorIs(t, s.s.SaveMeta(ctx, "x", nil), replication.ErrNotLeader)
	require.ErrorContains(t, m.s.SaveMeta(ctx, "", nil), "1 to 255")
}

// TestStopIsClean proves that neither a master nor a slave has anything to recover after a stop in order,
// under load and whatever the slave was told of what it holds.
func TestStopIsClean(t *testing.T) {
	for name, change := range map[string]func(*Options){"async": nil, "sync": syncMode} {
		t.Run(name, func(t *testing.T) {
			m := master(t, change)
			s := slave(t, m, "b:0", change)
			inSync(t, m, 1)
			x := newSender(1)
			require.NoError(t, x.send(m, 200))
			s.close()
			m.close()
			require.True(t, m.open().s.Recovery().Clean)
			require.True(t, s.open().s.Recovery().Clean)
			caughtUp(t, m, s)
			x.audit(m)
			sameLog(t, m, s)
		})
	}
}

// Proves that what a slave is told from elsewhere of where its master's clients are counts until the master tells it.
func TestFollowClientAddress(t *testing.T) {
	m := master(t, func(o *Options) { o.Client = "10.0.0.1:10911" })
	p := newProxy(t, m.s.Addr())
	p.setDown(true)
	s := slave(t, m, "a:1", func(o *Options) { o.Master = p.addr() })
	client := func() string { return s.s.Status().Client }
	for _, named := range []string{"10.0.0.2:10911", "10.0.0.3:10911"} {
		s.s.Follow("", named)
		require.Equal(t, named, client())
	}
	p.setDown(false)
	eventually(t, func() bool { return client() == "10.0.0.1:10911" }, "told by the master")
	s.s.Follow("", "10.0.0.2:10911")
	require.Equal(t, "10.0.0.1:10911", client())
	s.s.Follow("127.0.0.1:1", "10.0.0.2:10911")
	require.Equal(t, "10.0.0.2:10911", client(), "another master")
	s.s.Follow("", "10.0.0.3:10911")
	require.Equal(t, "10.0.0.3:10911", client())
}
