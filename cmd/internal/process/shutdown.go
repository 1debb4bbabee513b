package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"rmq/internal/config"
	"rmq/internal/daemon"
)

// stopRequest is what the command line of mqshutdown asks for.
type stopRequest struct {
	role, file string
	timeout    time.Duration
	home       string
}

// Shutdown is the main of mqshutdown: it asks daemons to drain, waits for their end and gives its exit
// code: 0 all have ended; 1 none was there, or one did not end in time; 2 bad input.
func Shutdown(args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, "mqshutdown:", oneLine(err))
		return code
	}
	r, help, err := parseStop(args)
	if err != nil {
		return fail(ExitRefused, err)
	}
	if help != "" {
		fmt.Fprint(stdout, help)
		return ExitOK
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := stopAll(ctx, r, stdout); err != nil {
		return fail(ExitFailed, err)
	}
	return ExitOK
}

func parseStop(args []string) (r stopRequest, help string, err error) {
	set := pflag.NewFlagSet("mqshutdown", pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVarP(&r.file, "config-file", "c", "", "only the one that was started with this property file")
	set.DurationVar(&r.timeout, "timeout", time.Minute, "how long to wait for their end")
	wantsHelp := set.BoolP("help", "h", false, "print this, and end")
	if err := set.Parse(args); err != nil {
		return r, "", fmt.Errorf("%w: see mqshutdown --help", err)
	}
	if *wantsHelp {
		return r, "Stops brokers or name servers of this host and waits until they have ended.\n\nUsage: mqshutdown broker|namesrv [flags]\n\n" + set.FlagUsages() +
			"\nThey are found by their pid files in ROCKETMQ_HOME/run; rocketmqHome in FILE goes before ROCKETMQ_HOME.\n", nil
	}
	if len(set.Args()) != 1 || !slices.Contains([]string{"broker", "namesrv"}, set.Arg(0)) {
		return r, "", fmt.Errorf("say what to stop: mqshutdown broker, or mqshutdown namesrv; got %q", set.Args())
	}
	if r.timeout <= 0 {
		return r, "", fmt.Errorf("--timeout is %s: use more than 0s", r.timeout)
	}
	r.role, r.home = set.Arg(0), os.Getenv("ROCKETMQ_HOME")
	if r.file == "" {
		return r, "", nil
	}
	text, err := os.ReadFile(r.file)
	if err != nil {
		return r, "", fmt.Errorf("read -c: %w", err)
	}
	settings, err := config.FileSettings(r.file, text)
	for _, s := range settings {
		if s.Key == "rocketmqHome" {
			r.home = strings.Trim(s.Value, ` "'`)
		}
	}
	return r, "", err
}

// stopAll stops all at once and waits for all of them.
func stopAll(ctx context.Context, r stopRequest, stdout io.Writer) error {
	found, err := daemon.Processes(r.home, r.role)
	if err != nil {
		return err
	}
	if r.file != "" {
		found = slices.DeleteFunc(found, func(p daemon.Process) bool { return !p.StartedWith(r.file) })
	}
	if len(found) == 0 {
		dir, err := daemon.RunDir(r.home)
		if err != nil {
			return err
		}
		if r.file != "" {
			return fmt.Errorf("no %s runs that was started with %s: %s has no pid file of one", r.role, r.file, dir)
		}
		return fmt.Errorf("no %s runs: %s has no pid file of one; if it has another home, set ROCKETMQ_HOME or use -c FILE", r.role, dir)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	for i := range found {
		fmt.Fprintf(stdout, "stopping %s %d at %s\n", r.role, found[i].PID, found[i].Address)
		err = errors.Join(err, found[i].Terminate())
	}
	for i := range found {
		switch waitErr := found[i].WaitGone(ctx); {
		case errors.Is(waitErr, context.DeadlineExceeded):
			err = errors.Join(err, fmt.Errorf("%s %d has not ended after %s: it may still drain; wait, or kill it", r.role, found[i].PID, r.timeout))
		case waitErr != nil:
			err = errors.Join(err, waitErr)
		default:
			fmt.Fprintf(stdout, "%s %d has ended\n", r.role, found[i].PID)
		}
	}
	return err
}
