package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if home := os.Getenv("DAEMON_TEST_HOME"); home != "" {
		child(home)
	}
	goleak.VerifyTestMain(m)
}

// child is a daemon: it writes its pid file, says so, and ends on a signal or when its input ends.
func child(home string) {
	p, err := WritePID(home, "broker", "127.0.0.1", 7, os.Getenv("DAEMON_TEST_CONFIG"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = p.Remove()
	os.Exit(0)
}

func start(t *testing.T, home, configFile string) (*exec.Cmd, io.WriteCloser) {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "DAEMON_TEST_HOME="+home, "DAEMON_TEST_CONFIG="+configFile)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ready := make([]byte, 6)
	_, err = io.ReadFull(out, ready)
	require.NoError(t, err)
	return cmd, in
}

// Proves that a process is found by its pid file as long as it lives, by every name of its
// configuration file, and that what a killed one leaves behind is neither found nor in the way.
func TestPIDFile(t *testing.T) {
	home := t.TempDir()
	conf := filepath.Join(home, "broker.conf")
	require.NoError(t, os.WriteFile(conf, nil, 0o644))
	require.NoError(t, os.Symlink("broker.conf", filepath.Join(home, "same.conf")))
	none, err := Processes(home, "broker")
	require.NoError(t, err)
	require.Empty(t, none)

	cmd, _ := start(t, home, conf)
	found, err := Processes(home, "broker")
	require.NoError(t, err)
	file := filepath.Join(home, "run", "broker-127.0.0.1-7.pid")
	require.Equal(t, []Process{{PID: cmd.Process.Pid, Role: "broker", Config: conf, Address: "127.0.0.1:7", Path: file}}, found)
	p := found[0]
	require.True(t, p.StartedWith(filepath.Join(home, "same.conf")))
	require.False(t, p.StartedWith(filepath.Join(home, "other.conf")))
	others, err := Processes(home, "namesrv")
	require.NoError(t, err)
	require.Empty(t, others)
	_, err = WritePID(home, "broker", "127.0.0.1", 7, "")
	require.ErrorContains(t, err, file+" is held by a process that runs")
	short, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.WaitGone(short), context.Canceled)

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.FileExists(t, file)
	next, in := start(t, home, "") // takes the place of the stale file
	require.NoError(t, p.Terminate(), "the process is gone: nobody else is stopped")
	require.NoError(t, p.WaitGone(t.Context()))
	found, err = Processes(home, "broker")
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, next.Process.Pid, found[0].PID)
	require.NoError(t, in.Close())
	require.NoError(t, found[0].WaitGone(t.Context()))
	require.NoError(t, next.Wait())
	require.NoFileExists(t, file)

	last, _ := start(t, home, "")
	found, err = Processes(home, "broker")
	require.NoError(t, err)
	require.NoError(t, found[0].Terminate())
	require.ErrorContains(t, last.Wait(), "terminated")
	found, err = Processes(home, "broker")
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoFileExists(t, file, "a stale file is removed by whoever looks")
}

// Proves that a file which is held but does not hold a number is named, and that an empty one is left
// alone.
func TestPIDFileDamaged(t *testing.T) {
	home := t.TempDir()
	p, err := WritePID(home, "namesrv", "", 9876, "")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, "run", "namesrv-9876.pid"), p.Path())
	require.NoError(t, os.WriteFile(p.Path(), []byte("hello"), 0o644))
	_, err = Processes(home, "namesrv")
	require.ErrorContains(t, err, `does not begin with the number of a process: "hello"`)
	require.NoError(t, os.Truncate(p.Path(), 0))
	found, err := Processes(home, "namesrv")
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoError(t, p.Remove())

	t.Setenv("HOME", home)
	dir, err := RunDir("")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, ".rmq", "run"), dir)
	_, err = WritePID(home, "namesrv", "", 9876, filepath.Join(home, "missing.conf"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Proves that a log goes to a file that begins anew when it is full, that so many old ones are kept,
// and that lines which find no place are counted.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.LogFile, c.LogMaxSize, c.LogMaxFiles, c.LogFormat = filepath.Join(dir, "logs/a.log"), 200, 2, "json"
	l, err := OpenLog(&c, nil)
	require.NoError(t, err)
	for i := range 20 {
		l.Info("line", "i", i)
	}
	l.Debug("not said")
	l.SetLevel("DEBUG")
	l.Debug("said", "pad", strings.Repeat("x", 300))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	names, err := filepath.Glob(filepath.Join(dir, "logs/*"))
	require.NoError(t, err)
	require.Len(t, names, 3)
	b, err := os.ReadFile(c.LogFile)
	require.NoError(t, err)
	require.Contains(t, string(b), `"level":"DEBUG","msg":"said"`)
	b, err = os.ReadFile(c.LogFile + ".1")
	require.NoError(t, err)
	require.Contains(t, string(b), `"i":19}`)
	require.LessOrEqual(t, len(b), 200)
	require.Zero(t, l.Lost())
	l.Info("too late")
	require.EqualValues(t, 1, l.Lost())

	// It goes on where it was, and in the same file when that cannot be moved.
	require.NoError(t, os.Remove(c.LogFile+".1"))
	require.NoError(t, os.MkdirAll(c.LogFile+".1/in-the-way", 0o755))
	l, err = OpenLog(&c, nil)
	require.NoError(t, err)
	l.Info("more")
	require.NoError(t, l.Close())
	b, err = os.ReadFile(c.LogFile)
	require.NoError(t, err)
	require.Contains(t, string(b), "said")
	require.Contains(t, string(b), "more")

	var out bytes.Buffer
	c = DefaultConfig()
	l, err = OpenLog(&c, &out)
	require.NoError(t, err)
	l.Warn("hello", "who", "you")
	require.NoError(t, l.Close())
	require.Contains(t, out.String(), `level=WARN msg=hello who=you`)
	require.Zero(t, l.Lost())
	c.LogFile = filepath.Join(dir, "logs")
	_, err = OpenLog(&c, nil)
	require.ErrorContains(t, err, "open logFile: ")
}

// Proves what each page says, and that profiles are for this host only.
func TestHTTP(t *testing.T) {
	var not []string
	o := HTTPOptions{
		Address: "127.0.0.1",
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }),
		Ready:   func() []string { return not },
	}
	h, err := ListenHTTP(t.Context(), o)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	get := func(path string) (int, string) {
		resp, err := client.Get("http://" + h.Addr().String() + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	check := func(path string, wantCode int, want string) {
		code, text := get(path)
		require.Equal(t, wantCode, code, path)
		require.Equal(t, want, text, path)
	}
	check("/metrics", 200, "up 1\n")
	check("/healthz", 200, "ok\n")
	check("/readyz", 200, "ok\n")
	not = []string{"draining", "no disk"}
	check("/readyz", 503, "draining\nno disk\n")
	code, text := get("/debug/pprof/goroutine?debug=1")
	require.Equal(t, 200, code)
	require.Contains(t, text, "goroutine profile")

	for from, want := range map[string]int{"10.0.0.9:5": 403, "[::1]:5": 200, "[::ffff:127.0.0.1]:5": 200, "": 403} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
		r.RemoteAddr = from
		o.handler().ServeHTTP(w, r)
		require.Equal(t, want, w.Code, from)
	}

	_, port, _ := strings.Cut(h.Addr().String(), ":")
	_, err = fmt.Sscan(port, &o.Port)
	require.NoError(t, err)
	_, err = ListenHTTP(t.Context(), o)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "set httpPort to a free one, or to 0 for none")
	require.NoError(t, h.Shutdown(t.Context()))
}

// Proves that the limit of a control group is found, of either version, the lowest of those above it
// included.
func TestCgroupMemory(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":        {nil, 0},
		"no limit":    {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"version 2":   {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "268435456\n"}, 256 << 20},
		"above":       {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "268435456\n", "sys/fs/cgroup/a/memory.max": "1048576\n"}, 1 << 20},
		"container":   {map[string]string{"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
		"version 1":   {map[string]string{"proc/self/cgroup": "5:cpu,memory:/d\n", "sys/fs/cgroup/memory/d/memory.limit_in_bytes": "8192\n"}, 8192},
		"v1 no limit": {map[string]string{"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"other":       {map[string]string{"proc/self/cgroup": "broken\n4:cpu:/\n"}, 0},
	} {
		fsys := fstest.MapFS{}
		for path, text := range c.files {
			fsys[path] = &fstest.MapFile{Data: []byte(text)}
		}
		got, ok := CgroupMemory(fsys)
		require.Equal(t, c.want, got, name)
		require.Equal(t, c.want != 0, ok, name)
	}
}

// Proves which texts are an address to listen on.
func TestIsAddress(t *testing.T) {
	for _, good := range []string{"", "127.0.0.1", "::1", "localhost", "fe80::1%eth0"} {
		require.True(t, IsAddress(good), good)
	}
	for _, bad := range []string{"127.0.0.1:80", "[::1]:80", ":80", "a b", "a;b", "10.0.0.0/8"} {
		require.False(t, IsAddress(bad), bad)
	}
}
