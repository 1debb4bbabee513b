// Command mqbroker stores messages and hands them out. It takes the place of the mqbroker of Apache
// RocketMQ: same ports, flags and configuration.
//
//	mqbroker -c conf/broker.conf -n 127.0.0.1:9876
//	mqbroker --with-namesrv                            a name server in the same process
//
// Exit codes: 0 it was stopped; 1 something went wrong; 2 bad input, a port in use or a store that cannot
// be opened, it did not start; 5 the disk failed while it ran, start it again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"

	"rmq/broker"
	"rmq/cmd/internal/process"
	"rmq/internal/config"
	"rmq/internal/daemon"
	"rmq/namesrv"
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }

// withNamesrv is the flag that is no key of the configuration.
const withNamesrv = "--with-namesrv"

const summary = "Stores messages and hands them out. " + withNamesrv + " runs a name server in the same process, at the address of -n or at 127.0.0.1:9876."

func realMain(args []string, stdout, stderr io.Writer) int {
	isBoth := func(arg string) bool { return arg == withNamesrv || arg == "--withNamesrv" }
	both := slices.ContainsFunc(args, isBoth)
	return process.Main(&process.Daemon{
		Name: "mqbroker", Summary: summary, Keys: broker.KeyNames(),
		Load: func(f *process.Flags) (*process.Loaded, error) { return load(f, both) },
	}, slices.DeleteFunc(slices.Clone(args), isBoth), stdout, stderr)
}

func load(f *process.Flags, both bool) (*process.Loaded, error) {
	o := broker.LoadOptions{File: f.File, Text: f.Text, Flags: f.Settings, Strict: f.Strict}
	settings, notices, err := broker.LoadConfig(o)
	if err == nil && both && len(settings.Get().NamesrvAddr) == 0 {
		o.Flags = append(slices.Clone(o.Flags), config.Setting{Key: "namesrvAddr", Value: "127.0.0.1:9876", From: config.FromFlag("with-namesrv")})
		settings, notices, err = broker.LoadConfig(o)
	}
	if err != nil {
		return nil, err
	}
	file := f.File
	if file != "" {
		// A change replaces the file, not a link to it.
		if file, err = filepath.EvalSymlinks(file); err != nil {
			return nil, err
		}
	}
	c := settings.Get()
	return &process.Loaded{
		Config: &c.Config, Home: c.RocketmqHome, Notices: notices, Print: settings.Append,
		Start: func(ctx context.Context, log *daemon.Log) (*process.Running, error) {
			return start(ctx, settings, file, both, log)
		},
	}, nil
}

// diskFailure ends the process in a way that tells whoever started it to start it again.
type diskFailure struct{ err error }

func (e *diskFailure) Error() string { return e.err.Error() }
func (e *diskFailure) Unwrap() error { return e.err }
func (e *diskFailure) ExitCode() int { return 5 }

func start(ctx context.Context, settings *broker.Settings, file string, both bool, log *daemon.Log) (*process.Running, error) {
	c := settings.Get()
	limit := int64(c.MemoryLimit)
	if group, ok := daemon.CgroupMemory(os.DirFS("/")); ok && (limit == 0 || group < limit) {
		limit = group
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit / 4 * 3) // the rest is for what the collector does not see
	}
	var ns *namesrv.NameServer
	if both {
		var err error
		if ns, err = startNamesrv(ctx, c, log); err != nil {
			return nil, err
		}
	}
	failed := make(chan error, 1)
	o, err := withFaults(broker.Options{
		Settings: settings, ConfigFile: file, Logger: log.Logger, MemoryLimit: limit,
		Fatal: func(err error) { failed <- &diskFailure{err} },
	})
	var b *broker.Broker
	if err == nil {
		b, err = broker.New(o)
	}
	if err == nil {
		err = b.Start(ctx)
	}
	if err != nil {
		if ns != nil {
			err = errors.Join(err, ns.Shutdown(ctx))
		}
		return nil, err
	}
	return &process.Running{
		Role: "broker", Host: c.BindAddress, Port: c.ListenPort, Boot: boot(c), Metrics: b.Metrics(), Alive: b.Alive, Ready: b.Ready,
		Failed: failed,
		Shutdown: func(ctx context.Context) error {
			err := b.Shutdown(ctx)
			var disk *diskFailure
			select {
			case f := <-failed: // on the way down
				errors.As(f, &disk)
			default:
			}
			if disk != nil {
				err = errors.Join(err, disk)
			}
			if ns != nil {
				err = errors.Join(err, ns.Shutdown(ctx))
			}
			return err
		},
	}, nil
}

// boot is the line that tells scripts that the broker is up, in the words of Apache.
func boot(c *broker.Config) string {
	text := fmt.Sprintf("The broker[%s, %s] boot success. serializeType=JSON", c.BrokerName, net.JoinHostPort(c.BrokerIP1, strconv.Itoa(c.ListenPort)))
	if len(c.NamesrvAddr) == 0 {
		return text + " and no name server: clients find it by its address only"
	}
	text += " and name server is "
	for i, addr := range c.NamesrvAddr {
		if i > 0 {
			text += ";"
		}
		text += addr
	}
	return text
}

// startNamesrv runs a name server at the first of the broker's name server addresses.
func startNamesrv(ctx context.Context, c *broker.Config, log *daemon.Log) (*namesrv.NameServer, error) {
	host, port, err := net.SplitHostPort(c.NamesrvAddr[0])
	if err != nil {
		return nil, err
	}
	from := config.FromFlag("with-namesrv")
	flags := []config.Setting{
		{Key: "listenPort", Value: port, From: from}, {Key: "bindAddress", Value: host, From: from},
		{Key: "kvConfigPath", Value: filepath.Join(c.StorePathRootDir, "namesrv", "kvConfig.json"), From: from},
		{Key: "configStorePath", Value: filepath.Join(c.StorePathRootDir, "namesrv", "namesrv.properties"), From: from},
	}
	settings, _, err := namesrv.LoadConfig(namesrv.LoadOptions{Flags: flags})
	if err != nil {
		return nil, err
	}
	return namesrv.Start(ctx, namesrv.Options{Settings: settings, ConfigFile: settings.Get().ConfigStorePath, Logger: log.With("part", "namesrv")})
}
