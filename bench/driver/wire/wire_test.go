package wire_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/internal/run"
	"rmq/results"
)

// alone is a broker without replicas.
var alone = wire.Spec{Flush: "async", Write: "pwrite", Repl: "none"}

// programs is where the tests have built our programs.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "wire"); err != nil {
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

func plan(t *testing.T, d bench.Driver, cells ...results.Cell) bench.Plan {
	t.Helper()
	for i := range cells {
		c := &cells[i]
		c.Driver, c.Repl, c.Write, c.Arrival, c.Keys, c.Entropy = d.Name(), "none", "pwrite", "uniform", "uniform", 1
		c.Queues, c.SizeBytes = 3, 512
	}
	return bench.Plan{
		Cells: cells, Reps: 1, OutDir: filepath.Join(t.TempDir(), "run"),
		Base: bench.Workload{
			Duration: time.Second, Warmup: 50 * time.Millisecond, Grace: 20 * time.Second, Seed: 3, Workers: 1,
			MaxBytes: 16 << 20, SegmentBytes: 4 << 20,
		},
		Drivers: map[string]bench.Driver{d.Name(): d},
	}
}

// measured runs a plan and returns the results of all parts.
func measured(t *testing.T, p bench.Plan) []*results.Result {
	t.Helper()
	st, err := bench.Run(t.Context(), p)
	require.NoError(t, err)
	run, err := st.Load()
	require.NoError(t, err)
	var all []*results.Result
	for _, c := range run.Cells {
		for _, r := range c.Reps[0].Parts() {
			require.Positive(t, r.Counts.Acked, c.Cell.ID())
			require.Zero(t, r.Counts.FailedTotal(), "%s: %v", c.Cell.ID(), r.Counts.Failed)
			all = append(all, r)
		}
	}
	return all
}

// Proves that everything a broker of ours acknowledges over TCP is there after its restart, by queue
// offset and by scan, in order; single messages and batches, both flush modes and header encodings, with
// consumers that get all of it.
func TestBrokerKeepsWhatItAcknowledges(t *testing.T) {
	p := plan(t, wire.Driver{BinDir: programs},
		results.Cell{Flush: "async", Topics: 4, Producers: 3, Window: 16, Consumers: 2},
		results.Cell{Flush: "sync", Topics: 1, Producers: 2, Window: 8, Extra: map[string]string{wire.FactorBatch: "5"}},
		results.Cell{Flush: "sync", Topics: 2, Producers: 1, Window: 1, Rate: "500", Extra: map[string]string{wire.FactorHeader: "binary"}})
	for _, r := range measured(t, p) {
		require.NotNil(t, r.Verify)
		require.True(t, r.Verify.OK(), "%+v", r.Verify)
		require.Equal(t, r.Verify.ByQueue, r.Verify.Acked+r.Verify.Unacked)
		require.NotNil(t, r.Resources.TargetCPUS)
		require.Positive(t, r.Resources.TargetRSSAnonMaxBytes)
		require.NotNil(t, r.Resources.EngineWrites)
		if r.Latency.EndToEnd != nil {
			require.Positive(t, r.Counts.Consumed)
			// Those in flight at either end of the window count on one side only.
			require.InDelta(t, r.Counts.Acked, r.Latency.EndToEnd.N, 2*3*16, "every message has been consumed once")
		}
	}
}

// Proves for every replication mode that what real brokers acknowledge is there after their restart, in the log of
// whoever leads and byte for byte in the others', and that the result tells lag, bytes and class.
func TestReplicas(t *testing.T) {
	p := plan(t, wire.Driver{BinDir: programs},
		results.Cell{Flush: "async", Topics: 2, Producers: 2, Window: 16, Rate: "max"},
		results.Cell{Flush: "sync", Topics: 2, Producers: 2, Window: 16, Rate: "max"},
		results.Cell{Flush: "sync", Topics: 2, Producers: 2, Window: 16, Rate: "max", Consumers: 1})
	p.Base.Duration = 4 * time.Second // the first sync of five stores on a busy disk takes long at times
	classes := []results.Class{results.ClassD2, results.ClassD3f, results.ClassD5}
	for i, repl := range []string{"async", "sync", "raft"} {
		p.Cells[i].Repl = repl
	}
	for i, r := range measured(t, p) {
		require.True(t, r.Verify.OK(), "%+v", r.Verify)
		require.Equal(t, r.Verify.ByQueue, r.Verify.ByScan)
		require.Equal(t, classes[i], r.Class)
		require.NotNil(t, r.Replication)
		require.Len(t, r.Replication.Nodes, []int{2, 2, 3}[i])
		require.Equal(t, i == 0, r.Replication.ClockS > 0)
		require.NotEmpty(t, r.Replication.Hops)
		require.NotNil(t, r.Replication.MaxRatio())
	}
}

// shaken is the driver with groups whose leader changes as soon as load has come, and with consumers that are counted.
type shaken struct {
	wire.Driver
	g     *run.Group
	shake func(ctx context.Context, s bench.Session) error

	mu  *sync.Mutex
	got map[int64]int // by number of the message: how often consumers have got it
}

func (d shaken) Open(ctx context.Context, c bench.Config) (bench.Session, error) {
	consumer := c.Consumer
	c.Consumer = func() func([]byte) {
		take := consumer()
		return func(body []byte) {
			n, err := bench.ParsePayload(body, binary.BigEndian.Uint64(body[8:]))
			if err != nil {
				n = -1
			}
			d.mu.Lock()
			d.got[n]++
			d.mu.Unlock()
			take(body)
		}
	}
	s, err := d.Driver.Open(ctx, c)
	if err == nil {
		d.g.Go("shake", func(ctx context.Context) error {
			for s.Counters().LogBytes == 0 {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Millisecond):
				}
			}
			return d.shake(ctx, s)
		})
	}
	return s, err
}

// Proves that load and consumers follow a group to its next leader within a part, whether the one before lives or not, that
// this is told, that what was acknowledged before and after is there, and that consumers get every message that is, once.
func TestLoadFollowsTheLeader(t *testing.T) {
	for name, shake := range map[string]func(context.Context, bench.Session) error{"hand over": wire.HandOver, "kill": wire.KillLeader} {
		t.Run(name, func(t *testing.T) {
			d := shaken{wire.Driver{BinDir: programs}, run.New(t.Context(), "shaken"), shake, &sync.Mutex{}, map[int64]int{}}
			p := plan(t, d, results.Cell{Flush: "async", Topics: 2, Producers: 4, Window: 16, Rate: "max", Consumers: 2})
			p.Cells[0].Repl, p.Base.MaxBytes, p.Base.Duration = "raft", 0, 2*time.Second
			st, err := bench.Run(t.Context(), p)
			require.NoError(t, err)
			require.NoError(t, d.g.Wait())
			rs, err := st.Load()
			require.NoError(t, err)
			r := rs.Cells[0].Reps[0].Parts()[0]
			require.True(t, r.Verify.OK(), "%+v", r.Verify)
			at := slices.IndexFunc(r.Events, func(e results.Event) bool { return e.Kind == results.EventLeader })
			require.GreaterOrEqual(t, at, 0, "%+v", r.Events)
			require.Positive(t, r.Counts.Acked)
			require.Less(t, r.Counts.FailedTotal(), int64(64*10), "only what was on its way fails: %v", r.Counts.Failed)
			require.Len(t, d.got, int(r.Verify.ByQueue), "of %d acknowledged", r.Verify.Acked)
			for n, times := range d.got {
				require.GreaterOrEqual(t, n, int64(0), "a body was damaged")
				require.Equal(t, 1, times, "message %d", n)
			}
		})
	}
}

// Proves that an election while topics are made ends nothing.
func TestTopicsDuringElection(t *testing.T) {
	c := bench.Config{Dir: t.TempDir(), Cell: results.Cell{Flush: "async", Repl: "raft", Write: "pwrite", Queues: 1}, Topics: []string{"A", "B"}}
	s, err := wire.Driver{BinDir: programs}.Open(t.Context(), c)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, wire.KillLeader(t.Context(), s))
	require.NoError(t, wire.MakeTopics(t.Context(), s))
}

// Proves that a run against a cluster that is there leaves it as it was, and reads its messages back
// through the queues alone.
func TestTarget(t *testing.T) {
	home := t.TempDir()
	cl, err := wire.Start(t.Context(), wire.Driver{BinDir: programs}, home, alone)
	require.NoError(t, err)
	defer func() { require.NoError(t, cl.Stop()) }()
	for range 2 {
		p := plan(t, wire.Driver{}, results.Cell{
			Flush: "async", Topics: 2, Producers: 2, Window: 4, Rate: "max", Extra: map[string]string{wire.FactorTarget: cl.NameServer},
		})
		for _, r := range measured(t, p) {
			require.True(t, r.Verify.OK(), "%+v", r.Verify)
			require.Zero(t, r.Verify.ByScan)
			require.NotEmpty(t, r.Verify.NoScan)
			require.NotNil(t, r.Resources.TargetCPUS, "its process is found by its port")
		}
	}
}

// Proves that clusters beside it are stopped while ours is measured, and go on and can be measured afterwards.
func TestPause(t *testing.T) {
	cl, err := wire.Start(t.Context(), wire.Driver{BinDir: programs}, t.TempDir(), alone)
	require.NoError(t, err)
	defer func() { require.NoError(t, cl.Stop()) }()
	d := wire.Driver{BinDir: programs, Pause: cl.PIDs()}
	s, err := d.Open(t.Context(), bench.Config{Dir: t.TempDir(), Cell: results.Cell{Flush: "async", Repl: "none", Write: "pwrite", Queues: 1}, Topics: []string{"T"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return states(t, d.Pause) == "TT" }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return !strings.Contains(states(t, d.Pause), "T") }, 10*time.Second, time.Millisecond)

	d.Pause = []int{1 << 30}
	_, err = d.Open(t.Context(), bench.Config{Dir: t.TempDir()})
	require.ErrorContains(t, err, "--target-pids: process 1073741824: no such process")
}

// states of processes, one letter each, as /proc tells them.
func states(t *testing.T, pids []int) (all string) {
	t.Helper()
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		require.NoError(t, err)
		_, rest, ok := strings.Cut(string(stat), ") ")
		require.True(t, ok)
		all += rest[:1]
	}
	return all
}

// Proves that the null server takes messages and that nothing is read back from it.
func TestNullServer(t *testing.T) {
	for _, r := range measured(t, plan(t, wire.Driver{Null: true, BinDir: programs}, results.Cell{Flush: "async", Topics: 1, Producers: 2, Window: 8, Rate: "max"})) {
		require.Nil(t, r.Verify)
		require.Equal(t, results.ClassD0, r.Class)
	}
}

// Proves that what is missing is named with the way out.
func TestNothingThere(t *testing.T) {
	_, err := bench.Run(t.Context(), plan(t, wire.Driver{BinDir: t.TempDir()}, results.Cell{Flush: "async", Topics: 1, Producers: 1, Window: 1, Rate: "max"}))
	require.ErrorContains(t, err, "make build")
	_, err = bench.Run(t.Context(), plan(t, wire.Driver{}, results.Cell{
		Flush: "async", Topics: 1, Producers: 1, Window: 1, Rate: "max", Extra: map[string]string{wire.FactorTarget: "127.0.0.1:1"},
	}))
	require.ErrorContains(t, err, "--target=127.0.0.1:1")
}
