//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/test/compat"
)

// line is a release line of the Apache store, by the name of its folder in java/target.
type line string

const (
	store49 line = "store49"
	store53 line = "store53"
)

var lines = []line{store49, store53}

// sizes are the file sizes of one directory, the same for both sides.
type sizes = compat.Sizes

// small makes every file roll many times; roomy holds each queue in one file; with longIndex an
// index file outlasts many segments, so that a recovery which begins late must not forget keys.
var (
	small     = sizes{Segment: 256 << 10, QueueFile: 1000, Slots: 50, Entries: 400}
	roomy     = sizes{Segment: 1 << 20, QueueFile: 200_000, Slots: 5000, Entries: 20_000}
	longIndex = sizes{Segment: 64 << 10, QueueFile: 2000, Slots: 500, Entries: 4000}
)

func long() bool { return os.Getenv("RMQ_INTEROP_LONG") != "" }

// pick is the size of a thing in the short form that CI runs, and in the long one.
func pick(short, longer int) int {
	if long() {
		return longer
	}
	return short
}

func options(s sizes) []string {
	return []string{
		fmt.Sprintf("segment=%d", s.Segment), fmt.Sprintf("queuefile=%d", s.QueueFile),
		fmt.Sprintf("slots=%d", s.Slots), fmt.Sprintf("entries=%d", s.Entries),
	}
}

// command prepares one run of the harness. Its HOME is a folder of the test, since Apache logs there.
func (l line) command(t *testing.T, dir string, s sizes, args ...string) *exec.Cmd {
	t.Helper()
	target, err := filepath.Abs(filepath.Join("java", "target", string(l)))
	require.NoError(t, err)
	path, err := os.ReadFile(filepath.Join(target, "classpath"))
	require.NoError(t, err, "run `make interop-store`, which builds the harness")
	argv := []string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Duser.home=" + t.TempDir(),
		"--add-opens", "java.base/java.nio=ALL-UNNAMED", "--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED",
		"-cp", filepath.Join(target, "classes") + ":" + strings.TrimSpace(string(path)), "harness.Main",
	}
	if dir != "" {
		argv = append(argv, dir)
		argv = append(argv, options(s)...)
	}
	return exec.Command("java", append(argv, args...)...)
}

// run opens dir with the Apache store, does the actions, and stops it the clean way.
func (l line) run(t *testing.T, dir string, s sizes, args ...string) *compat.Run {
	t.Helper()
	cmd := l.command(t, dir, s, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s %v\n%s", l, args, &stderr)
	run, err := compat.ParseRun(&stdout)
	require.NoError(t, err)
	require.True(t, run.Stopped, "%s did not stop\n%s", l, &stderr)
	for _, d := range run.Dumps {
		require.True(t, d.Complete)
	}
	require.NoFileExists(t, filepath.Join(dir, "abort"), "%s found that its own stop was not clean\n%s", l, &stderr)
	return run
}

// killAfter starts cmd, lets it print n lines, kills it with SIGKILL and returns all that it printed
// up to then.
func killAfter(t *testing.T, cmd *exec.Cmd, n int) []byte {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	watchdog := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()

	var out bytes.Buffer
	r := bufio.NewReader(stdout)
	for range n {
		l, err := r.ReadBytes('\n')
		out.Write(l)
		if err != nil {
			_ = cmd.Wait()
			t.Fatalf("ended before %d lines: %v\n%s", n, err, &stderr)
		}
	}
	require.NoError(t, cmd.Process.Kill())
	rest, _ := io.ReadAll(r) // what was in the pipe: acked as well
	out.Write(rest)
	_ = cmd.Wait() // "signal: killed"
	return out.Bytes()
}

// killed lets the Apache store write to dir until n lines of acks have come, then kills it.
func (l line) killed(t *testing.T, dir string, s sizes, n int, args ...string) []compat.Record {
	t.Helper()
	out := killAfter(t, l.command(t, dir, s, append(args, "forever")...), n)
	run, err := compat.ParseRun(bytes.NewReader(out))
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "abort"))
	return run.Puts
}

// copyDir copies a directory with the times of its files, which retention looks at. Holes stay holes.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, compat.CopyDir(from, to))
	return to
}

// emptyFile names a log, queue or index file of no bytes below dir, "" if there is none.
func emptyFile(t *testing.T, dir string) (name string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() == 0 && !strings.HasPrefix(d.Name(), "abort") {
			name = p
		}
		return err
	}))
	return name
}

func seed(t *testing.T) int64 {
	t.Helper()
	s := time.Now().UnixNano() & 0xffff
	if v := os.Getenv("RMQ_INTEROP_SEED"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		require.NoError(t, err)
		s = n
	}
	t.Logf("RMQ_INTEROP_SEED=%d", s)
	return s
}
