package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rmq/bench"
	"rmq/bench/probe"
	"rmq/results"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUndecided   = 3
	exitInterrupted = 130
)

// exitError ends the program with a code, silently if err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

var errInterrupted = errors.New("interrupted")

// realMain is main with everything it touches handed in.
func realMain(args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	unwatch := watchSignals(ctx, signals, cancel)
	defer unwatch()

	root := newRootCmd(stdout, stderr)
	root.SetArgs(withDefaultVerb(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var ee *exitError
	var ue *bench.UsageError
	var se *results.SchemaError
	var de *results.DamagedError
	var space *probe.SpaceError
	code := exitFailed
	switch {
	case errors.As(err, &ee):
		code = ee.code
		if ee.err == nil {
			return code
		}
	case errors.Is(err, errInterrupted):
		code = exitInterrupted
	case errors.As(err, &ue), errors.As(err, &se), errors.As(err, &de), errors.As(err, &space), errors.Is(err, results.ErrNoRun):
		code = exitUsage
	}
	fmt.Fprintln(stderr, "rmqbench:", oneLine(err))
	return code
}

// oneLine joins what errors.Join put on lines of their own.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// withDefaultVerb makes "rmqbench --flush=sync" mean "rmqbench run --flush=sync".
func withDefaultVerb(args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-h", "--help", "-v", "--version":
		default:
			return append([]string{"run"}, args...)
		}
	}
	return args
}

func newRootCmd(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "rmqbench",
		Short: "Drive the engine, or brokers round one log, on this machine and tell what came of it",
		Long: "Drive the engine, or brokers round one log, on this machine and tell what came of it.\n\n" +
			"Flags without a command are those of run: rmqbench --flush=sync --repl=raft spawns three brokers, measures them, and writes a report.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		Args: func(_ *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usage("%s is no command: use run, failover, probe, compare or report", given[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) {
			f := bad.GetFlag()
			return usage("--%s=%s is no %s: use one such as %s", f.Name, bad.GetValue(), valueWord(f), f.DefValue)
		}
		return usage("%v: see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newRunCmd(stdout, stderr), newFailoverCmd(stdout, stderr), newProbeCmd(stdout, stderr), newCompareCmd(stdout), newReportCmd(stdout, stderr), newNullServerCmd())
	return root
}

// valueWord says what a flag that pflag parses takes.
func valueWord(f *pflag.Flag) string {
	if f.Value.Type() == "bool" {
		return "yes or no"
	}
	return "whole number"
}

// args makes a wrong number of arguments bad input.
func args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usage("%s takes %s: see %s --help", cmd.Name(), want, cmd.CommandPath())
		}
		return nil
	}
}

// version is what the build knows of itself.
func version() string {
	v := "0.1.0"
	if commit, dirty := vcs(); commit != "" {
		v += "+" + commit[:min(12, len(commit))]
		if dirty {
			v += ".dirty"
		}
	}
	return v
}

func vcs() (commit string, dirty bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", false
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	return commit, dirty
}
