package main

import (
	"context"
	"os"
	"os/signal"

	"rmq/internal/run"
)

// watchSignals ends ctx at the first signal, cleanly; a second one ends the process as usual.
// What it returns ends the watch.
func watchSignals(ctx context.Context, signals chan os.Signal, cancel context.CancelCauseFunc) func() {
	g := run.New(ctx, "rmqbench")
	g.Go("signals", func(ctx context.Context) error {
		select {
		case <-signals:
			signal.Reset()
			cancel(errInterrupted)
		case <-ctx.Done():
		}
		return nil
	})
	return func() {
		g.Cancel()
		_ = g.Wait() // never fails
	}
}
