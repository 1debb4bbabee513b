package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/bench"
	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/results"
	"rmq/results/resultstest"
)

func TestMain(m *testing.M) {
	testscript.Main(goleakM{m}, map[string]func(){"rmqbench": main, "hold": hold})
}

// goleakM looks for goroutines that the tests left behind.
type goleakM struct{ m *testing.M }

func (g goleakM) Run() int {
	code := g.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			return 1
		}
	}
	return code
}

// hold opens a store and keeps it until it is told to end.
func hold() {
	s, err := engine.Open(context.Background(), engine.Options{Dir: os.Args[1], SegmentBytes: 1 << 20})
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	must(os.WriteFile(os.Args[2], []byte("ready"), 0o644))
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt) // how testscript ends what is left in the background
	<-end
	must(s.Close())
}

func must(err error) {
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

// Shows what a user sees: exit codes, what is on stdout and what is not, and which files are left.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			shm := filepath.Join("/dev/shm", "rmqbench-test-"+strconv.Itoa(os.Getpid())+"-"+filepath.Base(env.WorkDir))
			env.Setenv("SHM", shm)
			env.Defer(func() { _ = os.RemoveAll(shm) }) // normally gone already
			return nil
		},
		Condition: func(cond string) (bool, error) {
			var st syscall.Statfs_t
			return cond == "tmpfs" && syscall.Statfs("/dev/shm", &st) == nil && st.Type == vfs.Tmpfs && st.Bavail*uint64(st.Bsize) > 1<<30, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// synth DIR SPEED [smoke]: writes a made-up run.
			"synth": func(ts *testscript.TestScript, _ bool, args []string) {
				speed, err := strconv.ParseFloat(args[1], 64)
				ts.Check(err)
				_, err = resultstest.Write(ts.MkAbs(args[0]), resultstest.Options{Reps: 8, Seed: 1, DurS: 3,
					Speed: func(results.Cell, int) float64 { return speed }})
				ts.Check(err)
			},
			// interrupt FILE: waits until FILE exists, then sends SIGINT to the background command.
			"interrupt": func(ts *testscript.TestScript, _ bool, args []string) {
				pattern := ts.MkAbs(args[0])
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					if m, _ := filepath.Glob(pattern); len(m) > 0 {
						break
					}
					if time.Now().After(end) {
						ts.Fatalf("%s never came", pattern)
					}
				}
				for _, c := range ts.BackgroundCmds() {
					ts.Check(c.Process.Signal(syscall.SIGINT))
				}
			},
			// awaitfile FILE: waits until it exists.
			"awaitfile": func(ts *testscript.TestScript, _ bool, args []string) {
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s never came", args[0])
					}
				}
			},
		},
	})
}

// Shows that sizes are read in the units that people write, and refused with a usable one.
func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1KiB": 1024, "128B": 128, "4096": 4096, "1.5MiB": 3 << 19, "2GiB": 2 << 30, "1KB": 1000, "4K": 4096} {
		got, err := parseSize("size", s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "KiB", "1kib", "-1", "1 2", "1e30GiB", "NaN"} {
		_, err := parseSize("size", s)
		require.ErrorContains(t, err, "--size="+s+" is no size: use", s)
	}
}

// Shows that progress says where the run is, and that without a terminal a line comes when the place
// changes and otherwise seldom.
func TestProgressLines(t *testing.T) {
	s := bench.Progress{Step: 2, Steps: 12, Cell: "sync-t256", Part: results.PartOpen, Phase: "measure", RatePerS: 148_200, P99US: 1120, ETA: 63 * time.Second}
	require.Equal(t, "   7s cell 2 of 12  sync-t256 open  measure  148 k msg/s  p99 1.12 ms  ETA 1m3s", describe(s, 7*time.Second))
	var lines counter
	p := newProgress(&lines, time.Hour)
	for range 5 {
		p.update(s)
	}
	s.Part = results.PartClosed
	p.update(s)
	p.close()
	require.EqualValues(t, 2, lines)
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c++; return len(b), nil }
