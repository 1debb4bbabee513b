package crashtest

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/engine"
)

func TestMain(m *testing.M) {
	Child()
	if dir := os.Getenv(fillEnv); dir != "" {
		if err := filler(dir); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// trials is how often each case is repeated: RMQ_CRASH_TRIALS, or short.
func trials(t *testing.T, short int) int {
	t.Helper()
	text := os.Getenv("RMQ_CRASH_TRIALS")
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "RMQ_CRASH_TRIALS")
	return n
}

// seed is RMQ_CRASH_SEED, or a new one; printed, so that a failure can be run again.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("RMQ_CRASH_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "RMQ_CRASH_SEED")
	}
	t.Logf("RMQ_CRASH_SEED=%d", n)
	return n
}

// lifeBytes is how large a store may grow before the next one is begun.
const lifeBytes = 48 << 20

// Shows that a child killed with SIGKILL while it appends at full rate, rolls and writes
// checkpoints, or while it recovers from the kill before, has lost nothing that it acked, and that
// nothing else is served; in every flush and write mode.
func TestKilledChildLosesNothing(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		for _, write := range []engine.WriteMode{engine.WritePwrite, engine.WriteMmap, engine.WriteMmapWarmed} {
			t.Run(flush.String()+"/"+write.String(), func(t *testing.T) {
				testKills(t, exe, flush, write, trials(t, 3))
			})
		}
	}
}

func testKills(t *testing.T, exe string, flush engine.FlushMode, write engine.WriteMode, n int) {
	t.Helper()
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, uint64(flush)<<8|uint64(write)))
	var c Config
	var acks []Ack
	var total, opened, rolls int
	for trial := range n {
		if c.Dir == "" {
			acks = nil
			c = Config{
				Dir: t.ArtifactDir() + "/store-" + strconv.Itoa(trial), Flush: flush, Write: write, Producers: 4, Queues: 5,
				Source: Source{Seed: rng.Uint64(), MaxBody: 1500},
			}
			require.NoError(t, os.RemoveAll(c.Dir))
		}
		c.First += 1_000_000_000 // no life uses the numbers of another
		after := time.Duration(rng.Int64N(int64(150 * time.Millisecond)))
		killed, err := Start(t.Context(), exe, c, after, rng.IntN(4) > 0)
		require.NoError(t, err, "trial %d in %s", trial, c.Dir)
		acks = append(acks, killed.Acks...)
		total += len(killed.Acks)
		if rng.IntN(3) == 0 && trial != n-1 {
			continue // the next child recovers, and may be killed while it does
		}
		size := audit(t, c, acks, trial)
		opened++
		rolls += int(size >> 20)
		if size > lifeBytes || trial == n-1 {
			require.NoError(t, os.RemoveAll(c.Dir)) // kept when a check has failed
			c = Config{}
		}
	}
	t.Logf("%s flush, %s: %d SIGKILLs, %d reopened and read, %d rolls, %d acks, acked-lost = 0", flush, write, n, opened, rolls, total)
	require.Positive(t, total)
}

// audit recovers the store, compares it with the acks and closes it, or leaves it as it is for the
// next child to recover again.
func audit(t *testing.T, c Config, acks []Ack, trial int) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := engine.Open(ctx, c.Options())
	require.NoError(t, err, "trial %d in %s", trial, c.Dir)
	rep, err := Audit(ctx, s, c.Source, acks)
	require.NoError(t, err, "trial %d in %s", trial, c.Dir)
	if len(rep.Lost) > 0 {
		t.Fatalf("trial %d in %s: %s; recovery was %+v", trial, c.Dir, rep.LostText(), s.Recovery())
	}
	require.Zero(t, s.Stats().OrderViolations)
	size := s.Max()
	require.NoError(t, s.Close())
	return size
}
