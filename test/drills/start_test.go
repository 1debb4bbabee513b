//go:build drills

package drills

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// refusal runs a program that is to refuse to start, and gives its line on stderr.
func refusal(t *testing.T, program, home string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, top(t, "bin/"+program), args...)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+home, "HOME="+home, "NAMESRV_ADDR=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "it started: %v\n%s", err, stdout.String())
	require.Equal(t, 2, exit.ExitCode(), "%s\n%s", stderr.String(), stdout.String())
	require.NotContains(t, stdout.String(), "boot success")
	line := strings.TrimSuffix(stderr.String(), "\n")
	require.NotContains(t, line, "\n", "one line")
	require.True(t, strings.HasPrefix(line, program+": "), line)
	return line
}

// Proves that a broker and a name server which cannot start as they are told end with 2 and one line that
// names the key, the port or the directory, and what to do; and that nothing of that harms a broker that
// runs.
func TestRobustRefusedStart(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	ns, b := c.namesrvs[0], c.brokers[0]
	other := freePorts(t)
	conf := func(lines ...string) string {
		file := filepath.Join(t.TempDir(), "broker.conf")
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
		return file
	}
	missing := filepath.Join(t.TempDir(), "no-such.conf")
	fresh := func(t *testing.T, port int, more ...string) []string {
		return append([]string{"--bind-address=" + hostC, "--brokerIP1=" + hostC, "--listen-port=" + strconv.Itoa(port), "--store-path-root-dir=" + t.TempDir() + "/store"}, more...)
	}
	busy, err := net.Listen("tcp", at(hostC, other.broker-2))
	require.NoError(t, err)
	defer busy.Close()
	busyHTTP, err := net.Listen("tcp", at(hostC, other.http))
	require.NoError(t, err)
	defer busyHTTP.Close()
	file := filepath.Join(t.TempDir(), "a-file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))

	for name, refused := range map[string]struct {
		args []string
		want []string
	}{
		"a file that is not there":          {[]string{"-c", missing}, []string{missing}},
		"a value that is no number":         {[]string{"-c", conf("listenPort=ten")}, []string{"listenPort", "ten"}},
		"a value out of range":              {[]string{"-c", conf("listenPort=70000")}, []string{"listenPort", "70000", "65534"}},
		"a value of an enumeration":         {[]string{"-c", conf("flushDiskType=SYNC")}, []string{"flushDiskType", "SYNC_FLUSH"}},
		"several wrong values":              {[]string{"-c", conf("flushDiskType=SYNC", "deleteWhen=25")}, []string{"flushDiskType", "deleteWhen"}},
		"a slave numbered as a master":      {[]string{"-c", conf("brokerRole=SLAVE", "brokerId=0")}, []string{"brokerId", "SLAVE"}},
		"a node that is not in its group":   {[]string{"-c", conf("enableDLegerCommitLog=true", "dLegerGroup=g", "dLegerSelfId=n7", "dLegerPeers=n0-127.0.0.1:40911")}, []string{"dLegerSelfId", "n0"}},
		"access control":                    {[]string{"-c", conf("aclEnable=true")}, []string{"aclEnable"}},
		"an unknown key with strict":        {[]string{"-c", conf("flushDiskTyp=SYNC_FLUSH"), "--strict-config"}, []string{"flushDiskTyp", "flushDiskType"}},
		"an unknown flag":                   {[]string{"--flush-disk-typ=SYNC_FLUSH"}, []string{"flush-disk-typ", "flush-disk-type"}},
		"an address of a name server":       {fresh(t, other.broker, "-n", "127.0.0.1"), []string{"namesrvAddr", "127.0.0.1"}},
		"a listen address that is not ours": {[]string{"--bind-address=192.0.2.1", "--brokerIP1=192.0.2.1", "--listen-port=" + strconv.Itoa(other.broker), "--store-path-root-dir=" + t.TempDir() + "/store"}, []string{"192.0.2.1"}},
		"its port in use":                   {[]string{"--bind-address=" + b.host, "--brokerIP1=" + b.host, "--listen-port=" + strconv.Itoa(b.port), "--store-path-root-dir=" + t.TempDir() + "/store"}, []string{"listenPort", strconv.Itoa(b.port), "in use"}},
		"its fast port in use":              {fresh(t, other.broker), []string{"listenPort", strconv.Itoa(other.broker - 2), "in use"}},
		"its HTTP port in use":              {fresh(t, other.broker+100, "--http-port="+strconv.Itoa(other.http), "--http-address="+hostC), []string{"httpPort", "in use"}},
		"the store of another":              {fresh(t, other.broker+100, "--store-path-root-dir="+b.dir+"/store"), []string{b.dir + "/store"}},
		"a store that is a file":            {fresh(t, other.broker+100, "--store-path-root-dir="+file), []string{file}},
		"a host that cannot be resolved":    {[]string{"--brokerIP1=no-such-host.invalid", "--listen-port=" + strconv.Itoa(other.broker+100), "--store-path-root-dir=" + t.TempDir() + "/store"}, []string{"brokerIP1", "no-such-host.invalid"}},
		"less memory than it needs":         {fresh(t, other.broker+100, "--memory-limit=1M"), []string{"memoryLimit", "128M"}},
		"a word that is no flag":            {[]string{"start"}, []string{"start", "--help"}},
		"a log file in a missing place":     {fresh(t, other.broker+100, "--log-file="+file+"/broker.log"), []string{"logFile", file}},
		"commit log and queues in one":      {fresh(t, other.broker+100, "--store-path-commit-log="+file+"-x", "--store-path-consume-queue="+file+"-x"), []string{"storePathC"}},
	} {
		t.Run(name, func(t *testing.T) {
			line := refusal(t, "mqbroker", t.TempDir(), refused.args...)
			t.Log(line)
			for _, want := range refused.want {
				require.Contains(t, line, want)
			}
		})
	}
	t.Run("name server", func(t *testing.T) {
		line := refusal(t, "mqnamesrv", t.TempDir(), "--bind-address="+ns.host, "--listen-port="+strconv.Itoa(ns.port), "--kv-config-path="+t.TempDir()+"/kv.json")
		t.Log(line)
		require.Contains(t, line, strconv.Itoa(ns.port))
		require.Contains(t, line, "in use")
	})
	cl := c.connect(t)
	require.Equal(t, []string{b.addr()}, listed(t, cl), "nobody else has registered")
	createTopic(t, cl, b, "After", 1)
	tr := newTraffic(t, cl, "After")
	tr.produce(t)
	tr.awaitAcked(t, "", 50)
	tr.stopProducing(t)
	tr.noFailures(t, "others were refused")
	tr.readBack(t)
}
