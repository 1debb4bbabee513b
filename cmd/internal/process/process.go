// Package process is what the mains of daemons share, and the one that stops them: from the command
// line to a process that runs, and from a signal to its end.
//
// A daemon prints what is wrong with its configuration, or why it cannot start, as one line on stderr
// and ends with 2; nothing has been changed then. SIGTERM and SIGINT make it drain and end with 0; a
// second one ends it at once. It ends with 1, or what the error asks for ([ExitCoder]), when it fails
// later.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"rmq/internal/config"
	"rmq/internal/daemon"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitRefused = 2 // it did not start
)

// ExitCoder is an error that says with which code the process ends.
type ExitCoder interface {
	error
	ExitCode() int
}

// Daemon is a program before it has read its configuration.
type Daemon struct {
	Name, Summary string   // "mqnamesrv", a sentence
	Keys          []string // of its configuration
	Load          func(f *Flags) (*Loaded, error)
}

// Loaded is a program that knows its configuration.
type Loaded struct {
	Config  *daemon.Config
	Home    string // ROCKETMQ_HOME
	Notices []config.Notice
	Print   func(dst []byte, importantOnly bool) []byte // a property file
	Start   func(ctx context.Context, log *daemon.Log) (*Running, error)
}

// Running is a program at work.
type Running struct {
	Role    string // as mqshutdown calls it
	Host    string // where it listens; "" for all addresses
	Port    int
	Boot    string // the line on stdout that tells scripts that it is up
	Metrics http.Handler
	// Alive and Ready: see [daemon.HTTPOptions].
	Alive, Ready func() []string
	// Failed gives the error that ends the process. nil: it cannot fail.
	Failed   <-chan error
	Shutdown func(ctx context.Context) error
	// Drain bounds Shutdown; 0 is 30 s.
	Drain time.Duration
}

// Main runs a daemon and gives its exit code.
func Main(d *Daemon, args []string, stdout, stderr io.Writer) int {
	refuse := func(err error) int {
		fmt.Fprintf(stderr, "%s: %s\n", d.Name, oneLine(err))
		return ExitRefused
	}
	f, set, err := parse(d.Name, d.Keys, args)
	if err != nil {
		return refuse(err)
	}
	if f.help {
		fmt.Fprint(stdout, usage(d, set))
		return ExitOK
	}
	l, err := d.Load(f)
	if err != nil {
		return refuse(err)
	}
	l.Notices = append(f.notices, l.Notices...)
	if f.printAll || f.printTop {
		for _, n := range l.Notices {
			fmt.Fprintf(stderr, "%s: %s\n", d.Name, n)
		}
		_, err := stdout.Write(l.Print(nil, !f.printAll))
		if err != nil {
			return refuse(err)
		}
		return ExitOK
	}
	log, err := daemon.OpenLog(l.Config, stdout)
	if err != nil {
		return refuse(err)
	}
	code, err := serve(l, f.File, log, stdout)
	err = errors.Join(err, log.Close())
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", d.Name, oneLine(err))
		code = max(code, ExitFailed)
	}
	return code
}

// serve starts the daemon, waits for its end and cleans up.
func serve(l *Loaded, file string, log *daemon.Log, stdout io.Writer) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for _, n := range l.Notices {
		log.Warn("configuration", "notice", n.String())
	}
	r, err := l.Start(ctx, log)
	if err != nil {
		return ExitRefused, err
	}
	pages, err := listenHTTP(ctx, l.Config, r, log.Logger)
	if err != nil {
		return ExitRefused, errors.Join(err, shutdown(r))
	}
	pid, err := daemon.WritePID(l.Home, r.Role, r.Host, r.Port, file)
	if err != nil {
		log.Warn("mqshutdown will not find this process", "err", err)
	}
	fmt.Fprintln(stdout, r.Boot)

	var failed error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case failed = <-r.Failed:
		log.Error("failed", "err", failed)
		code = ExitFailed
		var c ExitCoder
		if errors.As(failed, &c) {
			code = c.ExitCode()
		}
	}
	stop() // a second signal ends the process at once
	err = errors.Join(failed, shutdown(r))
	if pages != nil {
		// Who asks for a profile of a minute does not hold up the end.
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if pageErr := pages.Shutdown(short); !errors.Is(pageErr, context.DeadlineExceeded) {
			err = errors.Join(err, pageErr)
		}
	}
	if pid != nil {
		err = errors.Join(err, pid.Remove())
	}
	if err == nil {
		log.Info("stopped")
	}
	return code, err
}

func shutdown(r *Running) error {
	if r.Drain == 0 {
		r.Drain = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Drain)
	defer cancel()
	return r.Shutdown(ctx)
}

func listenHTTP(ctx context.Context, c *daemon.Config, r *Running, log *slog.Logger) (*daemon.HTTPServer, error) {
	if c.HTTPPort == 0 {
		return nil, nil
	}
	return daemon.ListenHTTP(ctx, daemon.HTTPOptions{
		Address: c.HTTPAddress, Port: c.HTTPPort, Metrics: r.Metrics, Alive: r.Alive, Ready: r.Ready, Logger: log,
	})
}

// oneLine joins what errors.Join put on lines of their own.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
