package main

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"rmq/broker"
	"rmq/cmd/internal/process"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mqbroker":   main,
		"mqshutdown": func() { os.Exit(process.Shutdown(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// The command does what its help says: exit codes, what stands on stdout and on stderr, what is left in
// files. Scripts are in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("ROCKETMQ_HOME", e.WorkDir+"/home")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "freeport": freePort, "up": up, "send": send, "ask": ask, "rss": rss},
	})
}

// The files of conf are read without a notice that somebody would have to act upon.
func TestConf(t *testing.T) {
	files, err := filepath.Glob("../../conf/*/*")
	require.NoError(t, err)
	for _, name := range append(files, "../../conf/broker.conf") {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		_, notices, err := broker.LoadConfig(broker.LoadOptions{File: name, Text: text, Strict: true, Getenv: func(k string) string {
			return map[string]string{"NAMESRV_ADDR": "127.0.0.1:9876", "HOME": t.TempDir()}[k]
		}})
		require.NoError(t, err, name)
		require.Empty(t, notices, name)
	}
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

// freePort NAME... sets variables to ports of 127.0.0.1 that nobody has, each with its fast port.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	listen := func(port int) net.Listener {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil
		}
		return l
	}
	for _, name := range args {
		for ts.Getenv(name) == "" {
			// Below those that the kernel gives to outgoing connections.
			port := 12_000 + rand.IntN(20_000)
			all := []net.Listener{listen(port), listen(port - 2), listen(port + 1)} // its own, the fast one, that of replication
			free := !slices.Contains(all, nil)
			for _, l := range all {
				if l != nil {
					defer l.Close()
				}
			}
			if free {
				ts.Setenv(name, strconv.Itoa(port))
			}
		}
	}
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

func call(ts *testscript.TestScript, port string, req *protocol.Command) *protocol.Command {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := remoting.NewClient(ctx, remoting.ClientOptions{})
	ts.Check(err)
	defer cl.Close()
	resp, err := cl.Call(ctx, "127.0.0.1:"+port, req)
	ts.Check(err)
	return resp
}

// send PORT TOPIC BODY stores a message.
func send(ts *testscript.TestScript, _ bool, args []string) {
	req := protocol.NewRequest(protocol.RequestSendMessageV2)
	for key, value := range map[string]string{"a": "PG", "b": args[1], "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0"} {
		req.Add(key, value)
	}
	req.Body = []byte(args[2])
	ts.Check(call(ts, args[0], req).Err())
}

// ask PORT CODE [NAME=VALUE]... sends a request; the answer's code, remark and body are what was printed.
func ask(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[1])
	ts.Check(err)
	req := protocol.NewRequest(protocol.RequestCode(code))
	for _, a := range args[2:] {
		key, value, _ := strings.Cut(a, "=")
		req.Add(key, value)
	}
	resp := call(ts, args[0], req)
	_, err = ts.Stdout().Write([]byte(protocol.ResponseCode(resp.Code).String() + " " + string(resp.Remark) + "\n" + string(resp.Body) + "\n"))
	ts.Check(err)
}

// rss FILE MIB checks that the process of a pid file has no more memory of its own than that.
func rss(ts *testscript.TestScript, _ bool, args []string) {
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
