//go:build drills

package drills

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/internal/run"
	"rmq/remoting/protocol"
)

// javaLines are the release lines of Apache's client that read from a slave in drills, by their folders in test/interop/wire/java/target.
var javaLines = []string{"client49", "client54"}

// javaGroup is the group of a consumer of a line; it must be there before its master dies.
func javaGroup(line string) string { return "consumers-" + line }

// createGroup makes a group at a master.
func createGroup(t testing.TB, cl *client.Client, master *node, group string) {
	t.Helper()
	require.NoError(t, cl.Admin().CreateGroup(t.Context(), master.addr(), protocol.NewSubscriptionGroupConfig(group)))
}

// javaReads waits until an unmodified push consumer of a line has so many messages of a topic from one broker name, each
// counted once. Without Java, or without what make builds for it, it says so loudly and does nothing.
//
// One of 5.4 does not start when the name server that it asks first is dead: it does not try another one. It is started
// again then, as whoever looks after an application would.
func javaReads(t *testing.T, line, nameServers, topic, broker string, want int64) {
	t.Helper()
	target, err := filepath.Abs(filepath.Join("..", "interop", "wire", "java", "target", line))
	require.NoError(t, err)
	path, err := os.ReadFile(filepath.Join(target, "classpath"))
	java, missing := exec.LookPath("java")
	if err != nil || missing != nil {
		t.Logf("*** NOT PLAYED: no unmodified Java consumer (%s). Install a JDK and Maven, and run `make drills`. ***", line)
		return
	}
	argv := []string{java, "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Duser.home=" + t.TempDir(), "-Drocketmq.client.logUseSlf4j=true"}
	for _, open := range []string{"java.nio", "sun.nio.ch", "jdk.internal.ref"} {
		argv = append(argv, "--add-opens", "java.base/"+open+"=ALL-UNNAMED")
	}
	argv = append(argv, "-cp", filepath.Join(target, "classes")+":"+strings.TrimSpace(string(path)), "flow.Read", nameServers, topic, javaGroup(line), "60")
	began, starts := time.Now(), 1
	out, stop := startJava(t, line, argv)
	defer func() { stop() }()
	got := map[string]bool{}
	eventually(t, 90*time.Second, fmt.Sprintf("%s has read %d messages of %s", line, want, broker), func() bool {
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		for l := range strings.Lines(string(text)) {
			if f := strings.Fields(l); len(f) == 5 && f[0] == "GOT" && f[1] == broker {
				got[f[2]+" "+f[3]] = true
			}
		}
		if strings.Contains(string(text), "RemotingConnectException") && len(got) == 0 {
			stop()
			starts++
			out, stop = startJava(t, line, argv)
		}
		time.Sleep(100 * time.Millisecond) // it reads all again
		return int64(len(got)) >= want
	})
	t.Logf("an unmodified %s has read %d messages of the dead %s after %v, its start included (tries: %d)", line, len(got), broker, time.Since(began).Round(time.Millisecond), starts)
}

// startJava runs a command with its output in a file until stop is called.
func startJava(t *testing.T, name string, argv []string) (output string, stop func()) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	require.NoError(t, err)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	g := run.New(context.WithoutCancel(t.Context()), "child java")
	g.Go("wait", func(context.Context) error {
		_ = cmd.Wait() // it is killed
		return out.Close()
	})
	return out.Name(), func() {
		_ = cmd.Process.Kill() // it may have ended
		require.NoError(t, g.Wait())
	}
}
