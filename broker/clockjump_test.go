package broker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A wall clock that moves by an hour, forward and back, loses and reorders nothing: store times never go
// back, a pull that is held is woken, what is delayed comes no later than its delay says, and
// all of it is there after a restart.
func TestClockMoves(t *testing.T) {
	var shift atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	dir := t.TempDir()
	s := settings(t, dir, "messageDelayLevel=1s 1s")
	b, err := New(Options{Settings: s, Clock: clock})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	p := connect(t, b)
	var want []string
	send := func(n int) {
		for range n {
			body := fmt.Sprintf("m%d", len(want))
			p.send("Jump", 0, body)
			want = append(want, body)
		}
	}
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		shift.Store(int64(by))
		held := make(chan pulled, 1)
		waiter := connect(t, b)
		at := int64(len(want))
		go func() { held <- waiter.pull("G", "Jump", 0, at, "*", 15*time.Second) }()
		require.Eventually(t, func() bool { return b.holds.Len() > 0 || len(held) > 0 }, 10*time.Second, time.Millisecond)
		send(5)
		select {
		case r := <-held:
			if len(r.records) > 0 {
				require.Equal(t, want[at], string(r.records[0].Body))
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the pull was not answered")
		}
	}
	p.send("Late", 0, "late", "DELAY", "1")
	require.Eventually(t, func() bool {
		r := p.pull("G", "Late", 0, 0, "*", 0)
		return len(r.records) == 1 && string(r.records[0].Body) == "late"
	}, 20*time.Second, 20*time.Millisecond)

	check := func(p *peer) {
		p.dispatched()
		var got []string
		last := int64(0)
		for len(got) < len(want) {
			r := p.pull("G", "Jump", 0, int64(len(got)), "*", 0)
			require.NotEmpty(t, r.records)
			for _, rec := range r.records {
				require.GreaterOrEqual(t, rec.StoreTimestamp, last, "store times do not go back")
				last = rec.StoreTimestamp
			}
			got = append(got, r.bodies()...)
		}
		require.Equal(t, want, got)
	}
	check(p)
	require.NoError(t, stopBroker(b))
	shift.Store(-int64(time.Hour))
	p = connect(t, startBroker(t, Options{Settings: s, Clock: clock}))
	check(p)
	send(5)
	check(p)
}
