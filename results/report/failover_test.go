package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/report"
	"rmq/results/resultstest"
)

// madeUp is a failover run that nobody measured: the node that leads is gone for a while, longer with every trial.
func madeUp() *results.Failover {
	f := &results.Failover{
		RunID: "20261128T090000Z-0000", Tool: "rmqbench failover", Command: []string{"rmqbench", "failover", "--repl=raft"}, Started: resultstest.Epoch, Complete: true,
		Flush: "sync", Repl: "raft", Class: results.ClassD5, Topics: 256, Queues: 4, SizeBytes: 1024, LogBytes: 2 << 30, Rate: "50%", MaxPerS: 2000, RatePerS: 1000, Consumers: 1,
		Clients: []results.FailoverClient{{Name: "probe", What: "knows all nodes", RatePerS: 900}, {Name: "namesrv", What: "asks the NameServer", RatePerS: 100}},
		Skipped: []results.FailoverSkip{{What: "client java", Reason: "no command of one was given"}},
	}
	for n := range 6 {
		t := &results.FailoverTrial{Event: results.FailKill, N: n + 1, At: resultstest.Epoch, From: "n0", To: "n1", AfterS: 1, LogBytes: 3 << 30, HealS: 0.5, ConsumerMS: results.Ptr(20.0), Audited: true}
		for i := range f.Clients {
			back := time.Duration(5+n+100*i) * time.Millisecond
			var samples []results.FailoverSample
			for due := -2 * time.Second; due < time.Second; due += time.Millisecond {
				done := due + 2*time.Millisecond
				if done > 0 && due < back {
					done = back + 2*time.Millisecond
				}
				samples = append(samples, results.FailoverSample{Due: int64(due), Sent: int64(due), Done: int64(done)})
			}
			late := results.FailoverLate(samples)
			t.LateMS = float64(late) / 1e6
			t.Clients = append(t.Clients, results.AnalyseFailover(f.Clients[i].Name, samples, time.Second, late))
		}
		f.Trials = append(f.Trials, t)
	}
	f.Trials[5].Void = "only 3 of 900 messages a second were acknowledged before"
	return f
}

// Proves the terminal screen, the Markdown and the comparison of failover runs, to the byte.
func TestFailoverText(t *testing.T) {
	f := madeUp()
	var text, md, page, cmp bytes.Buffer
	r := report.NewFailover(f, nil)
	require.NoError(t, r.Text(&text))
	require.NoError(t, r.Markdown(&md))
	golden(t, "failover.txt", text.Bytes())
	golden(t, "failover.md", md.Bytes())

	slower := madeUp()
	slower.RunID = "20261128T100000Z-0001"
	for _, trial := range slower.Trials {
		for i := range trial.Clients {
			*trial.Clients[i].NextAckMS *= 3
		}
	}
	require.NoError(t, report.CompareFailover(&cmp, "text", f, slower, results.CompareFailover(f, slower, 0)))
	golden(t, "failovercompare.txt", cmp.Bytes())

	require.NoError(t, r.HTML(&page))
	require.Contains(t, page.String(), "<svg")
	require.NotContains(t, page.String(), "http://", "it fetches nothing")
}

// Proves that a loss stands first among the notes.
func TestFailoverLoss(t *testing.T) {
	f := madeUp()
	f.Trials[2].Clients[0].Lost = 4
	var text bytes.Buffer
	require.NoError(t, report.NewFailover(f, nil).Text(&text))
	notes := text.String()[strings.Index(text.String(), "note:"):]
	require.True(t, strings.HasPrefix(notes, "note: LOST: 4 acknowledged messages"), notes)
	require.NotContains(t, notes, "nothing lost")
}

// Proves that what a slave lacked when it was promoted is told as what asynchronous replication may lose, and that the same
// in an event without a promotion, or damage, is not.
func TestFailoverAllowedLoss(t *testing.T) {
	f := madeUp()
	f.Repl, f.Flush, f.Class, f.LostBetween = "async", "async", results.ClassD2, 1
	f.Trials[2].Clients[0].Lost, f.Trials[3].ReadAndGone = 4, 2
	notes := func() string {
		var text bytes.Buffer
		require.NoError(t, report.NewFailover(f, nil).Text(&text))
		return text.String()
	}
	require.Zero(t, f.Broken())
	require.Contains(t, notes(), "note: lost, as asynchronous replication may: 5 acknowledged messages that the slave did not have yet when it was promoted (1 of them due")
	require.Contains(t, notes(), "read and gone, as with a pair it may be: 2 messages")
	require.Contains(t, notes(), "4 (allowed)")
	require.NotContains(t, notes(), "LOST")

	f.Damaged = 1
	require.EqualValues(t, 1, f.Broken())
	require.Contains(t, notes(), "note: DAMAGED: 1 bodies")
	f.Damaged, f.Trials[2].Event = 0, results.FailFreeze
	require.EqualValues(t, 4, f.Broken())
	require.Contains(t, notes(), "LOST: 4 acknowledged messages")
}
