package run

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime/pprof"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("RUN_TEST_PANIC") != "" {
		g := New(context.Background(), "store")
		g.Go("flusher", func(context.Context) error { panic("offset went backwards") })
		_ = g.Wait()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Shows that the first error ends the others and is what Wait returns, with the name in it.
func TestFirstErrorWins(t *testing.T) {
	g := New(t.Context(), "store")
	boom := errors.New("boom")
	g.Go("patient", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	g.Go("rash", func(context.Context) error { return boom })
	err := g.Wait()
	require.ErrorIs(t, err, boom)
	require.EqualError(t, err, "store/rash: boom")
	require.ErrorIs(t, g.Context().Err(), context.Canceled)
}

// Shows that the cancellation the owner asked for is no error, and that another one is.
func TestCancel(t *testing.T) {
	waitForEnd := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	g := New(t.Context(), "a")
	g.Go("x", waitForEnd)
	g.Cancel()
	require.NoError(t, g.Wait())

	parent, cancel := context.WithCancel(t.Context())
	g = New(parent, "b")
	g.Go("x", waitForEnd)
	cancel()
	require.ErrorIs(t, g.Wait(), context.Canceled)

	boom := errors.New("boom")
	g = New(t.Context(), "c")
	g.Go("x", func(ctx context.Context) error {
		<-ctx.Done()
		return boom
	})
	g.Cancel()
	require.ErrorIs(t, g.Wait(), boom)
}

// Shows that a goroutine that comes late, while somebody waits, is started and waited for, or not started at all.
func TestTryGo(t *testing.T) {
	for range 200 {
		g, outside := New(t.Context(), "a"), New(t.Context(), "outside")
		var started, ended atomic.Int64
		for range 4 {
			outside.Go("late", func(context.Context) error {
				for g.TryGo("x", func(context.Context) error { ended.Add(1); return nil }) {
					started.Add(1)
				}
				return nil
			})
		}
		g.Cancel()
		require.NoError(t, g.Wait())
		all := ended.Load()
		require.NoError(t, outside.Wait())
		require.Equal(t, all, started.Load())
		require.Equal(t, all, ended.Load())
		require.False(t, g.TryGo("x", func(context.Context) error { return nil }))
	}
}

// Shows that profiles name the goroutine.
func TestLabel(t *testing.T) {
	g := New(t.Context(), "store")
	var label string
	g.Go("flusher", func(ctx context.Context) error {
		label, _ = pprof.Label(ctx, "goroutine")
		return nil
	})
	require.NoError(t, g.Wait())
	require.Equal(t, "store/flusher", label)
}

// Shows that a panic ends the process and says in whose name.
func TestPanicEndsTheProcess(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "RUN_TEST_PANIC=1")
	var out bytes.Buffer
	cmd.Stderr = &out
	require.Error(t, cmd.Run())
	require.Contains(t, out.String(), "goroutine store/flusher: offset went backwards")
}
