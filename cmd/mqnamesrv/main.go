// Command mqnamesrv tells clients which brokers have a topic. It takes the place of the mqnamesrv of
// Apache RocketMQ: same port, flags and configuration. What is changed at run time goes into the file of
// -c; without one into ~/namesrv/namesrv.properties, which is then read at the next start.
//
// Exit codes: 0 it was stopped; 1 something went wrong; 2 bad input or a port in use, it did not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rmq/cmd/internal/process"
	"rmq/internal/daemon"
	"rmq/namesrv"
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }

func realMain(args []string, stdout, stderr io.Writer) int {
	return process.Main(&process.Daemon{
		Name: "mqnamesrv", Summary: "Tells clients which brokers have a topic.", Keys: namesrv.KeyNames(), Load: load,
	}, args, stdout, stderr)
}

// load reads the file of -c, or else the one to which changes at run time were written.
func load(f *process.Flags) (*process.Loaded, error) {
	o := namesrv.LoadOptions{File: f.File, Text: f.Text, Flags: f.Settings, Strict: f.Strict}
	home, _ := os.UserHomeDir() // without one the paths are relative
	store := namesrv.DefaultConfig(home).ConfigStorePath
	for _, s := range f.Settings {
		if s.Key == "configStorePath" {
			store = s.Value
		}
	}
	if f.File != "" {
		var err error
		// A change replaces the file, not a link to it.
		if store, err = filepath.EvalSymlinks(f.File); err != nil {
			return nil, err
		}
	} else {
		text, err := os.ReadFile(store)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read configStorePath: %w", err)
		}
		o.File, o.Text = store, text
	}
	settings, notices, err := namesrv.LoadConfig(o)
	if err != nil {
		return nil, err
	}
	c := settings.Get()
	return &process.Loaded{
		Config: &c.Config, Home: c.RocketmqHome, Notices: notices, Print: settings.Append,
		Start: func(ctx context.Context, log *daemon.Log) (*process.Running, error) {
			return run(ctx, settings, store, log)
		},
	}, nil
}

func run(ctx context.Context, settings *namesrv.Settings, file string, log *daemon.Log) (*process.Running, error) {
	// Little is allocated, so little is gained by letting the heap grow before it is collected.
	debug.SetGCPercent(50)
	if limit, ok := daemon.CgroupMemory(os.DirFS("/")); ok {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
	n, err := namesrv.Start(ctx, namesrv.Options{
		Settings: settings, ConfigFile: file, Logger: log.Logger, Changed: func(c *namesrv.Config) { log.SetLevel(c.LogLevel) },
	})
	if err != nil {
		return nil, err
	}
	c := settings.Get()
	registry := prometheus.NewRegistry()
	registry.MustRegister(n, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	host := c.BindAddress
	if host == "" {
		host = "0.0.0.0"
	}
	return &process.Running{
		Role: "namesrv", Host: c.BindAddress, Port: int(n.Addr().Port()),
		Boot:    "The Name Server boot success. serializeType=JSON, address " + net.JoinHostPort(host, strconv.Itoa(int(n.Addr().Port()))),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), Ready: n.Ready, Shutdown: n.Shutdown,
	}, nil
}
