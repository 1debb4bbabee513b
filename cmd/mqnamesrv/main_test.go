package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"rmq/cmd/internal/process"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mqnamesrv":  main,
		"mqshutdown": func() { os.Exit(process.Shutdown(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// The commands do what their help says: exit codes, what stands on stdout and on stderr, what is left
// in files. Scripts are in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("ROCKETMQ_HOME", e.WorkDir+"/home")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "freeport": freePort, "occupy": occupy, "up": up, "ask": ask, "get": get, "rss": rss,
		},
	})
}

// exits CODE COMMAND ARGS runs a command that must end with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%v: exit %d, want %s", args[1:], code, args[0])
	}
}

// freePort NAME... sets variables to ports of 127.0.0.1 that nobody has.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

// occupy NAME sets a variable to a port that somebody has until the script ends.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ts.Check(l.Close()) })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// up FILE... waits until pid files are there.
func up(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		missing := slices.DeleteFunc(slices.Clone(args), func(name string) bool {
			info, err := os.Stat(ts.MkAbs(name))
			return err == nil && info.Size() > 0
		})
		if len(missing) == 0 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not up: %v", missing)
		}
	}
}

// ask PORT CODE [NAME=VALUE]... [-- BODY] sends a request; the answer's code, remark, fields and body are
// what was printed.
func ask(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := remoting.NewClient(ctx, remoting.ClientOptions{})
	ts.Check(err)
	defer cl.Close()
	code, err := strconv.Atoi(args[1])
	ts.Check(err)
	req := protocol.NewRequest(protocol.RequestCode(code))
	for i, a := range args[2:] {
		if a == "--" {
			req.Body = []byte(args[2+i+1])
			break
		}
		key, value, _ := strings.Cut(a, "=")
		req.Add(key, value)
	}
	resp, err := cl.Call(ctx, "127.0.0.1:"+args[0], req)
	ts.Check(err)
	out := ts.Stdout()
	write(ts, out, protocol.ResponseCode(resp.Code).String()+" "+string(resp.Remark)+"\n")
	for _, f := range resp.Ext {
		write(ts, out, string(f.Key)+"="+string(f.Value)+"\n")
	}
	write(ts, out, string(resp.Body))
}

// rss FILE MIB checks that the process of a pid file has no more memory of its own than that. Under
// the race detector, whose memory is several times that, it says so and checks nothing.
func rss(ts *testscript.TestScript, _ bool, args []string) {
	if b, ok := debug.ReadBuildInfo(); ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		ts.Logf("memory is NOT CHECKED under the race detector")
		return
	}
	pid, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	ts.Check(err)
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.Atoi(f[1])
			ts.Check(err)
			if kib > most<<10 {
				ts.Fatalf("%d KiB, want at most %d MiB", kib, most)
			}
			return
		}
	}
	ts.Fatalf("no RssAnon of process %s", pid)
}

// get STATUS URL fetches a page, which is what was printed.
func get(ts *testscript.TestScript, _ bool, args []string) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, args[1], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: %s, want %s", args[1], resp.Status, args[0])
	}
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	write(ts, ts.Stdout(), string(b))
}

func write(ts *testscript.TestScript, w io.Writer, text string) {
	_, err := io.WriteString(w, text)
	ts.Check(err)
}
