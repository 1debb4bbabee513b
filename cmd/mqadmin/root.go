package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rmq/client"
	"rmq/engine"
	"rmq/engine/storetool"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is bad input: nothing was done.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errFaults ends the program with 1; what is wrong was printed.
var errFaults = errors.New("faults")

// realMain is main with everything it touches handed in.
func realMain(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRootCmd(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if code != exitOK && !errors.Is(err, errFaults) {
		fmt.Fprintln(stderr, "mqadmin:", oneLine(err))
	}
	return code
}

// exitCode is the code for what a command returned.
func exitCode(ctx context.Context, err error) int {
	var (
		bad   *usageError
		size  *storetool.SizeError
		space *storetool.SpaceError
		newer *engine.VersionError
		limit *client.LimitError
	)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &bad), errors.As(err, &size), errors.As(err, &space), errors.As(err, &newer), errors.As(err, &limit),
		errors.Is(err, storetool.ErrNoStore), errors.Is(err, storetool.ErrInUse), errors.Is(err, storetool.ErrExists), errors.Is(err, storetool.ErrInput):
		return exitUsage
	}
	return exitFailed
}

// oneLine joins what errors.Join put on lines of their own.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

func newRootCmd(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "mqadmin",
		Short: "Look after clusters and stores",
		Long: `Look after clusters and stores.

Commands, flags and columns are those of the mqadmin of Apache RocketMQ 5, which also works; --json prints JSON instead of
columns. Exit codes: 0 done; 1 refused, or something went wrong; 2 bad input, nothing was done; 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          suggest,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetGlobalNormalizationFunc(kebab)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v: see %s --help", err, cmd.CommandPath())
	})
	for _, fam := range families() {
		root.AddGroup(&cobra.Group{ID: fam.id, Title: fam.title})
		for _, c := range fam.commands {
			root.AddCommand(newClusterCmd(c, fam.id, stdout, stderr))
		}
	}
	for need, commands := range absent {
		for _, name := range commands {
			root.AddCommand(newAbsentCmd(name, need))
		}
	}
	root.AddCommand(newStoreCmd(stdout), newManCmd(root))
	return root
}

// known refuses words that are no command, and names those that are.
func known(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usage("%s knows no %q: use %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))
}

// kebab makes the Java spelling of a flag (mappedFileSizeCommitLog, showClientIP) the same as ours.
func kebab(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		if unicode.IsUpper(r) {
			// A run of capitals is one word, but for its last letter when a word begins with that.
			if i > 0 && letters[i-1] != '-' && (!unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1])) {
				b.WriteByte('-')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return pflag.NormalizedName(b.String())
}
