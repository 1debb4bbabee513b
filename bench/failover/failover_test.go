package failover_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/bench/failover"
	"rmq/results"
)

var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "failover"); err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(programs) }() // what is left is in a temporary directory
		if out, err := exec.Command("go", "build", "-o", programs+"/", "rmq/cmd/...").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

func options(t *testing.T) failover.Options {
	rate, err := bench.ParseRate("600")
	require.NoError(t, err)
	return failover.Options{
		Events: []string{results.FailKill, results.FailFreeze, results.FailPartition}, Trials: 1, Others: 1, Flush: "async", Repl: "none", Topics: 2, Queues: 2,
		Size: 256, Log: 1 << 20, MaxLog: 1 << 30, Rate: rate, RateAs: "600", After: 2 * time.Second, Freeze: 300 * time.Millisecond,
		Delay: 50 * time.Millisecond, Timeout: 10 * time.Second, Tail: true, Seed: 1, SegmentBytes: 4 << 20, Driver: wire.Driver{BinDir: programs},
		OutDir: filepath.Join(t.TempDir(), "run"),
	}
}

// Proves that a broker that is killed and started again, or frozen, is told by every client as a gap of its length, with
// every acknowledged message read back, and that what cannot be had is named with its reason.
func TestOneBroker(t *testing.T) {
	o := options(t)
	f, err := failover.Run(t.Context(), o)
	require.NoError(t, err)
	require.True(t, f.Complete)
	require.Zero(t, f.Lost())
	require.Equal(t, results.ClassD1a, f.Class)
	require.Len(t, f.Trials, 2)
	for _, trial := range f.Trials {
		require.True(t, trial.Audited)
		require.GreaterOrEqual(t, trial.LogBytes, o.Log)
		require.Len(t, trial.Clients, 3)
		for _, c := range trial.Clients {
			require.NotNil(t, c.NextAckMS, "%s %s", trial.Event, c.Client)
			require.Equal(t, c.Due, c.Acked+c.Failed+c.Unknown+c.Unfinished)
			if trial.Event == results.FailFreeze {
				require.Greater(t, *c.NextAckMS, 250.0)
				require.Positive(t, c.Delayed+c.Failed+c.Unknown)
			}
		}
	}
	require.Len(t, f.Skipped, 2, "the partition and the Java client")
	again, _, err := results.ReadFailover(o.OutDir)
	require.NoError(t, err)
	require.Len(t, again.Trials, 2)
	require.NoDirExists(t, filepath.Join(o.OutDir, "data"))
	_, err = failover.Run(t.Context(), o)
	require.ErrorContains(t, err, "already holds a run")
}

// Proves that a group whose leader is killed goes on by itself, for the Go client as well: it asks who leads as long as
// nothing has been sent, and nothing that was acknowledged is lost.
func TestGroup(t *testing.T) {
	o := options(t)
	o.Events, o.Repl, o.Flush, o.After = []string{results.FailKill}, "raft", "sync", 3*time.Second
	f, err := failover.Run(t.Context(), o)
	require.NoError(t, err)
	require.Zero(t, f.Lost())
	require.Len(t, f.Trials, 1)
	trial := f.Trials[0]
	require.NotEqual(t, trial.From, trial.To)
	for _, c := range trial.Clients {
		require.NotNil(t, c.NextAckMS, c.Client)
		// What was in flight may fail after its retries; what came after the kill finds the new leader.
		require.Greater(t, c.Acked, c.Due*3/4, "%s: %s", c.Client, c.Failure)
	}
}

// Proves that bad options are refused with the fix before anything is written.
func TestCheck(t *testing.T) {
	for want, edit := range map[string]func(o *failover.Options){
		"--events=meteor is unknown": func(o *failover.Options) { o.Events = []string{"meteor"} },
		"--repl=four is unknown":     func(o *failover.Options) { o.Repl = "four" },
		"--trials=0":                 func(o *failover.Options) { o.Trials = 0 },
		"--other-trials=-1":          func(o *failover.Options) { o.Others = -1 },
		"leaves nothing to measure: partition: there is one node only": func(o *failover.Options) { o.Events = []string{"partition"} },
		"--topics=0 is out of range":                                   func(o *failover.Options) { o.Topics = 0 },
		"--max-log is below":                                           func(o *failover.Options) { o.MaxLog = o.Log },
		"is no load":                                                   func(o *failover.Options) { o.Rate = bench.Rate{Closed: true} },
	} {
		o := options(t)
		edit(&o)
		_, err := failover.Run(t.Context(), o)
		require.ErrorContains(t, err, want)
		require.NoDirExists(t, o.OutDir)
	}
}
