package bench

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/results"
)

// auditOf feeds an auditor with bodies: acked ones, what queue 0 holds in order, what the log holds.
func auditOf(acked, queue, log []int64) (*Auditor, *results.Verify) {
	p := NewPayload(9, 64, 1, 1)
	set := &seqSet{}
	for _, s := range acked {
		set.add(s)
	}
	a := newAuditor(9, 1, nil, set, 100)
	body := func(seq int64) []byte {
		b := p.Body()
		p.Fill(b, seq, 0)
		return b
	}
	r := a.Queue("T", 0)
	for i, s := range queue {
		r.Body(int64(i), body(s))
	}
	for i, s := range log {
		a.Scan(int64(i), body(s))
	}
	return a, a.outcome()
}

// Shows that each kind of damage is counted under its own name, and that nothing else is.
func TestAuditor(t *testing.T) {
	for _, tc := range []struct {
		name              string
		acked, queue, log []int64
		want              results.Verify
	}{
		{"all is well", []int64{0, 1, 70}, []int64{0, 1, 70}, []int64{0, 1, 70}, results.Verify{Acked: 3, ByQueue: 3, ByScan: 3}},
		{"unacked is allowed", []int64{0}, []int64{0, 1}, []int64{0, 1}, results.Verify{Acked: 1, ByQueue: 2, ByScan: 2, Unacked: 1}},
		{"lost from the queue", []int64{0, 1}, []int64{0}, []int64{0, 1}, results.Verify{Acked: 2, ByQueue: 1, ByScan: 2, Lost: 1}},
		{"lost from the log", []int64{0, 1}, []int64{0, 1}, []int64{1}, results.Verify{Acked: 2, ByQueue: 2, ByScan: 1, Lost: 1}},
		{"doubled", []int64{0, 1}, []int64{0, 1, 1}, []int64{0, 1, 1}, results.Verify{Acked: 2, ByQueue: 3, ByScan: 3, Duplicated: 2}},
		{"reordered", []int64{0, 1}, []int64{1, 0}, []int64{0, 1}, results.Verify{Acked: 2, ByQueue: 2, ByScan: 2, Reordered: 1}},
		{"never sent", []int64{0}, []int64{0, 100}, []int64{0}, results.Verify{Acked: 1, ByQueue: 1, ByScan: 1, Corrupted: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, got := auditOf(tc.acked, tc.queue, tc.log)
			healthy := tc.want.Lost+tc.want.Duplicated+tc.want.Corrupted+tc.want.Reordered == 0 && tc.want.ByQueue == tc.want.ByScan
			require.Equal(t, healthy, got.OK())
			got.Note = ""
			require.Equal(t, tc.want, *got)
		})
	}
}

// Shows that damaged bodies, unreadable offsets and a scan that breaks off are corruption, told with
// the first place.
func TestAuditorDamage(t *testing.T) {
	a, _ := auditOf(nil, nil, nil)
	r := a.Queue("T", 3)
	r.Body(7, make([]byte, 64))
	r.Missing(8, errors.New("no such entry"))
	a.ScanEnded(10, 20, errors.New("bad magic"))
	v := a.outcome()
	require.EqualValues(t, 3, v.Corrupted)
	require.Equal(t, "queue T/3 offset 7: body is damaged", v.Note)
}
