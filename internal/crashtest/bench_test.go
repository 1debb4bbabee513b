package crashtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/message"
)

const (
	fillEnv       = "RMQ_CRASH_FILL"
	fillTopicsEnv = "RMQ_CRASH_FILL_TOPICS"
	fillBytes     = 4 << 30
)

// fillShapes are topics and queues a topic.
var fillShapes = []struct{ topics, queues int }{{256, 4}, {10_000, 8}}

var fillHost = netip.MustParseAddrPort("127.0.0.1:10911")

// filler is a child that fills the store in dir with default options, says so, and appends on.
func filler(dir string) error {
	var topics, queues uint64
	if _, err := fmt.Sscanf(os.Getenv(fillTopicsEnv), "%d,%d", &topics, &queues); err != nil {
		return err
	}
	s, err := engine.Open(context.Background(), engine.Options{Dir: dir})
	if err != nil {
		return err
	}
	const depth = 64
	as, done := make([]*engine.Append, depth), make(chan *engine.Append, depth)
	for i := range as {
		as[i] = &engine.Append{Done: func(a *engine.Append) { done <- a }}
	}
	body := make([]byte, 1024)
	rand.NewChaCha8([32]byte{}).Read(body) // never fails
	m := message.Message{BornTimestamp: 1_700_000_000_000, BornHost: fillHost, StoreHost: fillHost, Body: body}
	told := false
	for seq := uint64(0); ; {
		for _, a := range as {
			binary.BigEndian.PutUint64(body, seq)
			m.Topic, m.QueueID = fmt.Sprintf("Topic%05d", seq%topics), int32(seq/topics%queues)
			m.Properties = message.AppendProperty(m.Properties[:0], message.PropUniqKey, fmt.Sprintf("%032X", seq))
			if a.Record, err = message.AppendRecord(a.Record[:0], &m); err != nil {
				return err
			}
			seq++
		}
		s.SubmitVector(as)
		for range as {
			if a := <-done; a.Err != nil {
				return a.Err
			}
		}
		if !told && s.Appended() >= fillBytes {
			told = true
			if _, err := os.Stdout.WriteString("full\n"); err != nil {
				return err
			}
		}
	}
}

// BenchmarkRecovery is the time from the start of Open to the first accepted append, after a
// SIGKILL of a process that had written 4 GiB to many queues and was still writing.
// Run it with -benchtime=1x.
func BenchmarkRecovery(b *testing.B) {
	for _, shape := range fillShapes {
		b.Run(fmt.Sprintf("topics=%d/queues=%d", shape.topics, shape.queues), func(b *testing.B) {
			benchmarkRecovery(b, shape.topics, shape.queues)
		})
	}
}

func benchmarkRecovery(b *testing.B, topics, queues int) {
	b.Helper()
	exe, err := os.Executable()
	require.NoError(b, err)
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		cmd := exec.CommandContext(b.Context(), exe)
		cmd.Env = append(os.Environ(), fillEnv+"="+dir, fmt.Sprintf("%s=%d,%d", fillTopicsEnv, topics, queues))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(b, err)
		require.NoError(b, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(b, err)
		require.Equal(b, "full\n", line)
		b.ReportMetric(status(b, cmd.Process.Pid, "VmHWM")/1024, "writer-MiB")
		require.NoError(b, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		rec, err := message.AppendRecord(nil, &message.Message{Topic: "Topic00000", BornHost: fillHost, StoreHost: fillHost, Body: []byte("again")})
		require.NoError(b, err)
		b.StartTimer()
		s, err := engine.Open(b.Context(), engine.Options{Dir: dir})
		require.NoError(b, err)
		_, err = s.Append(b.Context(), rec)
		require.NoError(b, err)
		b.StopTimer()
		b.ReportMetric(float64(s.Recovery().Records), "replayed")
		b.ReportMetric(status(b, os.Getpid(), "VmHWM")/1024, "reader-MiB")
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(b, err)
		b.ReportMetric(float64(len(fds)), "descriptors")
		require.NoError(b, s.Close())
		require.NoError(b, os.RemoveAll(dir))
	}
}

// status reads a figure in KiB from /proc/pid/status.
func status(b *testing.B, pid int, name string) float64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	require.NoError(b, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			require.NoError(b, err)
			return n
		}
	}
	b.Fatalf("no %s in the status of %d", name, pid)
	return 0
}
