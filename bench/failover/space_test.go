package failover

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/results"
)

// Proves that a run fits its log to the disk: as asked where there is room, less with a note, refused where not even the
// first log fits.
func TestFit(t *testing.T) {
	const gib = int64(1 << 30)
	for _, x := range []struct {
		avail, log, max int64
		lowered         bool
		err             string
	}{
		{avail: 60, log: 2, max: 8},
		{avail: 36, log: 2, max: 8, lowered: true},
		{avail: 24, log: 2, max: 8, err: "has room for"},
		{avail: 5, log: 0, max: 8, err: "lower --log, --max-log and --segment"},
	} {
		o := Options{Log: x.log * gib, MaxLog: x.max * gib, SegmentBytes: gib, DataDir: "d"}
		u := vfs.Usage{Total: 100 * gib, Free: x.avail * gib, Avail: x.avail * gib}
		note, err := o.fit(u, 3)
		if x.err != "" {
			require.ErrorContains(t, err, x.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, x.lowered, note != "")
		require.Equal(t, x.lowered, o.MaxLog < x.max*gib)
		require.LessOrEqual(t, 3*(o.MaxLog*110/100+2*gib+gib), (88-(100-x.avail))*gib, "what it takes is there")
		require.GreaterOrEqual(t, o.MaxLog, 2*o.Log)
	}
}

// Proves that what is not found after retention has removed log has expired and voids its trials, and that the same is a
// loss where nothing was removed.
func TestRetentionIsNoLoss(t *testing.T) {
	for _, removed := range []int64{0, 4096} {
		f := &results.Failover{}
		e := &epoch{r: &failoverRun{f: f}}
		s := &stream{rate: 1000, runID: 7}
		for n := range int64(5000) {
			s.at(n).state.Store(acked)
		}
		e.streams = []*stream{s}
		res := &results.FailoverTrial{Clients: make([]results.FailoverClientTrial, 1)}
		e.trials = []*trial{{at: int64(2 * time.Second), after: int64(time.Second), res: res}}
		found := newLedger(7)
		for n := int64(1500); n < 5000; n++ {
			found.found[7].add(n)
		}
		f.Trials = append(f.Trials, res)
		e.audit(found, newLedger(7), removed)
		require.Zero(t, f.ReadAndGone())
		require.True(t, res.Audited)
		if removed == 0 {
			require.EqualValues(t, 1000, f.LostBetween)
			require.EqualValues(t, 500, res.Clients[0].Lost)
			require.Empty(t, res.Void)
			continue
		}
		require.EqualValues(t, 1000, f.ExpiredBetween)
		require.Zero(t, res.Clients[0].Lost)
		require.EqualValues(t, 500, res.Clients[0].Expired)
		require.Contains(t, res.Void, "retention removed 4 KiB")
		require.Zero(t, f.Lost())
		require.EqualValues(t, 1500, f.Expired())
	}
}
