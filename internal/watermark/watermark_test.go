package watermark

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sleepers starts one Wait per position and returns once all of them sleep.
func sleepers(ctx context.Context, t *testing.T, m *Mark, positions ...int64) []chan error {
	t.Helper()
	results := make([]chan error, len(positions))
	for i, pos := range positions {
		results[i] = make(chan error, 1)
		go func() { results[i] <- m.Wait(ctx, pos) }()
	}
	for m.Waiters() < len(positions) {
		if t.Context().Err() != nil {
			t.Fatal("waiters never slept")
		}
	}
	return results
}

// Shows that a mark never goes backwards by Advance, and does by Rewind.
func TestAdvanceAndRewind(t *testing.T) {
	var m Mark
	m.Advance(10)
	m.Advance(5)
	require.EqualValues(t, 10, m.Load())
	m.Rewind(20)
	require.EqualValues(t, 10, m.Load())
	m.Rewind(3)
	require.EqualValues(t, 3, m.Load())
}

// Shows that an advance wakes the waiters that it satisfies and no other.
func TestWakesOnlyTheSatisfied(t *testing.T) {
	var m Mark
	ctx, cancel := context.WithCancel(t.Context())
	got := sleepers(ctx, t, &m, 30, 10, 20, 10)
	m.Advance(19)
	require.NoError(t, <-got[1])
	require.NoError(t, <-got[3])
	require.Equal(t, 2, m.Waiters())
	m.Advance(20)
	require.NoError(t, <-got[2])
	require.Equal(t, 1, m.Waiters())
	select {
	case err := <-got[0]:
		t.Fatalf("woken early: %v", err)
	default:
	}
	cancel()
	require.ErrorIs(t, <-got[0], context.Canceled)
	require.Zero(t, m.Waiters())
}

// Shows that Fail ends present and future waits for what was not reached, keeps the first error,
// and leaves reached positions reached.
func TestFail(t *testing.T) {
	var m Mark
	m.Advance(5)
	got := sleepers(t.Context(), t, &m, 7, 9)
	boom := errors.New("boom")
	m.Fail(boom)
	require.ErrorIs(t, <-got[0], boom)
	require.ErrorIs(t, <-got[1], boom)
	m.Fail(errors.New("later"))
	require.ErrorIs(t, m.Err(), boom)
	require.ErrorIs(t, m.Wait(t.Context(), 6), boom)
	require.NoError(t, m.Wait(t.Context(), 5))
	require.Zero(t, m.Waiters())
}

// Shows that a waiter that was woken and then overtaken by a rewind goes on waiting.
func TestRewindUnderWaiters(t *testing.T) {
	var m Mark
	m.Advance(4)
	got := sleepers(t.Context(), t, &m, 10)
	m.Rewind(0)
	m.Advance(9)
	require.Equal(t, 1, m.Waiters())
	m.Advance(10)
	require.NoError(t, <-got[0])
}

// Shows that no wake-up is lost when many goroutines advance, wait and give up at once.
func TestHammer(t *testing.T) {
	const last = 2000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var m Mark
	var wg sync.WaitGroup
	var reached atomic.Int64
	for w := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for pos := int64(0); pos < last; {
				pos += 1 + rng.Int64N(20)
				pos = min(pos, last)
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(4) == 0 {
					go cancel()
				}
				err := m.Wait(ctx, pos)
				cancel()
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("wait: %v", err)
					}
					continue
				}
				if m.Load() < pos {
					t.Errorf("woken at %d for %d", m.Load(), pos)
				}
				reached.Add(1)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for i := int64(1); i <= last; i++ {
				m.Advance(i)
			}
		})
	}
	wg.Wait()
	require.Positive(t, reached.Load())
	require.Zero(t, m.Waiters())
}

// Shows that advancing allocates nothing.
func TestAdvanceAllocatesNothing(t *testing.T) {
	var m Mark
	x := int64(0)
	require.Zero(t, testing.AllocsPerRun(100, func() { x++; m.Advance(x) }))
}

func BenchmarkAdvance(b *testing.B) {
	var m Mark
	x := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		x++
		m.Advance(x)
	}
}
