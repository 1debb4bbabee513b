package ha

import (
	"context"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/replication"
)

// broken counts what was put into quarantine.
func (n *node) broken() int {
	entries, err := n.heap.ReadDir("/s/rmq/broken")
	if err != nil {
		return 0
	}
	return len(entries)
}

// Proves the whole way of a fail-over by hand: the slave refuses without knowing, says what may be
// lost, leads with what it has; the old master hears of it, ends its reign, its tail goes to quarantine
// and its log becomes that of the new one; and all of it outlasts restarts against the configuration.
func TestPromote(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(map[bool]string{false: "partitioned", true: "dead"}[dead], func(t *testing.T) {
			ctx := context.Background()
			m := master(t, nil)
			p := newProxy(t, m.s.Addr())
			s := slave(t, m, "a:1", func(o *Options) { o.Master = p.addr() })
			x := newSender(5)
			require.NoError(t, x.send(m, 100))
			caughtUp(t, m, s)
			p.setDown(true)
			lost := newSender(6)
			lost.seq = 1 << 20
			require.NoError(t, lost.send(m, 150))
			require.Equal(t, m.s.Visible(), m.s.Appended(), "readers have seen it")

			var loss *LossError
			_, err := s.s.Promote(ctx, false)
			require.ErrorAs(t, err, &loss)
			require.EqualValues(t, -1, loss.Report.MayLose)
			require.GreaterOrEqual(t, loss.Report.AgeMS, int64(0))
			if dead {
				m.kill(0)
			}
			rep, err := s.s.Promote(ctx, true)
			require.NoError(t, err)
			require.EqualValues(t, PromotionStep, rep.Epoch)
			require.NoError(t, x.send(s, 100))
			_, err = s.s.Promote(ctx, true)
			require.ErrorContains(t, err, "leads already")

			if dead {
				m.open() // it leads once it has waited, until it hears
			}
			p.setDown(false)
			eventually(t, func() bool { return m.s.Role() == replication.Follower }, "demoted")
			caughtUp(t, s, m)
			require.NoError(t, x.send(s, 50))
			caughtUp(t, s, m)
			sameLog(t, s, m)
			require.Positive(t, m.broken())
			x.audit(m)
			x.audit(s)
			_, err = m.s.Append(ctx, []byte("x"))
			require.ErrorIs(t, err, replication.ErrNotLeader)

			m.kill(0)
			s.kill(0)
			s.open()
			m.open()
			eventually(t, func() bool { return s.s.Role() == replication.Leader }, "leads")
			require.Equal(t, replication.Follower, m.s.Role())
			require.Contains(t, s.log.String(), "was promoted: it leads")
			require.Contains(t, m.log.String(), "another was promoted in its place")
			require.NoError(t, x.send(s, 10))
			caughtUp(t, s, m)
			x.audit(m)
			require.Equal(t, s.s.Status().Epoch, m.s.Status().Epoch)
		})
	}
}

// Proves that a slave without which nothing is acked loses nothing by leading, and says so.
func TestPromoteSync(t *testing.T) {
	m := master(t, syncMode)
	s := slave(t, m, "a:1", nil)
	inSync(t, m, 1)
	x := newSender(7)
	require.NoError(t, x.send(m, 60))
	eventually(t, func() bool {
		s.s.mu.Lock()
		defer s.s.mu.Unlock()
		return s.s.lastSeen.needed
	}, "told that it is needed")
	m.kill(0)
	rep, err := s.s.Promote(context.Background(), false)
	require.NoError(t, err)
	require.Zero(t, rep.MayLose)
	require.Equal(t, replication.Sync, s.s.Status().Mode)
	require.ErrorIs(t, x.send(s, 1), replication.ErrNoReplica, "it goes on in the mode of its master")
	m.open()
	eventually(t, func() bool { return m.s.Role() == replication.Follower }, "demoted")
	inSync(t, s, 1)
	require.NoError(t, x.send(s, 20))
	caughtUp(t, s, m)
	x.audit(m)
}

// Proves that a master that is started again as it was waits before it takes messages or shows those of which no slave is
// known to have them: it never leads if one was promoted meanwhile, it leads at once when its slave says that none was, and
// soon when that says nothing.
func TestHoldOff(t *testing.T) {
	ctx := context.Background()
	long := both(syncMode, func(o *Options) { o.HoldOff = time.Hour })
	m := master(t, long)
	s := slave(t, m, "a:1", long)
	inSync(t, m, 1)
	x := newSender(9)
	require.NoError(t, x.send(m, 60))

	m.kill(0)
	m.open()
	eventually(t, func() bool { return m.s.Role() == replication.Leader }, "leads once its slave has come")
	inSync(t, m, 1)
	require.NoError(t, x.send(m, 20))
	caughtUp(t, m, s)

	s.close()
	require.ErrorIs(t, newSender(10).send(m, 5), replication.ErrNoReplica)
	m.kill(0)
	m.open()
	require.Equal(t, replication.ReadOnly, m.s.Role())
	require.Contains(t, m.s.Status().Why, "may have been promoted")
	_, err := m.s.Append(ctx, []byte("x"))
	require.ErrorIs(t, err, replication.ErrNotLeader)
	require.Zero(t, m.s.Visible())

	m.kill(0)
	s.open()
	_, err = s.s.Promote(ctx, true)
	require.NoError(t, err)
	m.open()
	eventually(t, func() bool { return m.s.Role() == replication.Follower }, "follows")
	inSync(t, s, 1)
	require.NoError(t, x.send(s, 20))
	caughtUp(t, s, m)
	x.audit(m)
	m.mu.Lock()
	last := m.roles[len(m.roles)-3:]
	m.mu.Unlock()
	for _, st := range last {
		require.NotEqual(t, replication.Leader, st.Role, "%v", last)
	}

	m.close()
	s.kill(0)
	s.o.HoldOff = 50 * time.Millisecond
	s.open()
	eventually(t, func() bool { return s.s.Role() == replication.Leader }, "leads alone")
}

// Proves that a clean stop of a master tells its slave that it has everything.
func TestPromoteAfterBye(t *testing.T) {
	m := master(t, nil)
	s := slave(t, m, "a:1", nil)
	x := newSender(8)
	require.NoError(t, x.send(m, 60))
	require.NoError(t, m.s.Handover(t.Context()))
	caughtUp(t, m, s)
	m.close()
	eventually(t, func() bool {
		s.s.mu.Lock()
		defer s.s.mu.Unlock()
		return s.s.lastSeen.bye
	}, "bye")
	rep, err := s.s.Promote(context.Background(), false)
	require.NoError(t, err)
	require.Zero(t, rep.MayLose)
	x.audit(s)
}

// Proves that a slave which the master has left behind its expired segments begins anew, and keeps
// what it had aside.
func TestBelowTheLogStart(t *testing.T) {
	m := master(t, nil)
	p := newProxy(t, m.s.Addr())
	s := slave(t, m, "a:1", func(o *Options) { o.Master = p.addr() })
	x := newSender(9)
	require.NoError(t, x.send(m, 50))
	caughtUp(t, m, s)
	p.setDown(true)
	require.NoError(t, x.send(m, 600))
	m.close()
	for _, f := range []string{"00000000000000000000", "00000000000000065536"} {
		require.NoError(t, m.heap.Remove(path.Join("/s/commitlog", f)))
	}
	m.open()
	require.EqualValues(t, 2*65536, m.s.Min())
	p.setDown(false)
	caughtUp(t, m, s)
	require.Equal(t, m.s.Min(), s.s.Min())
	sameLog(t, m, s)
	require.NoError(t, x.send(m, 50))
	caughtUp(t, m, s)
	require.Contains(t, s.log.String(), "begins anew")
	s.kill(0)
	s.open()
	caughtUp(t, m, s)
	sameLog(t, m, s)

	fresh := slave(t, m, "a:2", nil)
	caughtUp(t, m, fresh)
	require.Equal(t, m.s.Min(), fresh.s.Min())
	sameLog(t, m, fresh)
}

// Proves that a promoted slave whose copy of the stream ends inside a record leads from the record's
// begin on.
func TestPromoteInsideARecord(t *testing.T) {
	m := master(t, nil)
	x := newSender(10)
	require.NoError(t, x.send(m, 200))
	whole := m.s.Written()
	s := newNode(t, "a:1", func(o *Options) { o.Slave = true }).open()
	for pos := int64(0); pos < whole-70; {
		r, err := m.s.ReadRaw(pos, int(min(5000, whole-70-pos)), 2)
		require.NoError(t, err)
		require.NoError(t, s.s.WriteRaw(t.Context(), pos, r.Bytes))
		pos += int64(len(r.Bytes))
		r.Release()
	}
	rep, err := s.s.Promote(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, x.acks[199].Pos, rep.End)
	x.acks = x.acks[:199]
	x.seq = 199
	require.NoError(t, x.send(s, 10))
	x.audit(s)
}
