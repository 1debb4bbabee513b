package broker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BROKER_TEST_KILL_DIR"); dir != "" {
		brokerToKill(dir)
	}
	goleak.VerifyTestMain(m)
}

// brokerToKill is a broker in a process of its own. It ends when it is killed, or when its input ends.
func brokerToKill(dir string) {
	err := func() error {
		s, _, err := LoadConfig(LoadOptions{File: "broker.conf", Text: []byte(os.Getenv("BROKER_TEST_KILL_CONF")), Strict: true})
		if err != nil {
			return err
		}
		b, err := New(Options{Settings: s})
		if err != nil {
			return err
		}
		if err := b.Start(context.Background()); err != nil {
			return err
		}
		if _, err := io.WriteString(os.Stdout, "ready\n"); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the end, however it comes
		return b.Shutdown(context.Background())
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, dir, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A broker that is killed at full load has, when it is started again, every message that it had acked,
// once, in the order in which it was sent.
func TestKill(t *testing.T) {
	for _, flush := range []string{"ASYNC_FLUSH", "SYNC_FLUSH"} {
		t.Run(flush, func(t *testing.T) {
			dir := t.TempDir()
			acked := make([][]int64, killQueues) // by queue
			sent := make([]int64, killQueues)
			port := ports(t)
			for round := range 3 {
				killRound(t, dir, flush, port, round, sent, acked)
			}
			p := connect(t, startBroker(t, Options{Settings: settings(t, dir, "flushDiskType="+flush)}))
			for q := range killQueues {
				seen, last := map[string]bool{}, int64(-1)
				for next := int64(0); ; {
					got := p.pull("tool", "T", q, next, "*", 0)
					if got.code != protocol.ResponseSuccess {
						require.Equal(t, "OFFSET_OVERFLOW_ONE", got.remark)
						break
					}
					for _, body := range got.bodies() {
						n, err := strconv.ParseInt(body, 10, 64)
						require.NoError(t, err)
						require.Greater(t, n, last, "queue %d", q)
						last, seen[body] = n, true
					}
					next = got.header.NextBeginOffset
				}
				for _, n := range acked[q] {
					require.True(t, seen[strconv.FormatInt(n, 10)], "queue %d: message %d was acked and is lost", q, n)
				}
				require.NotEmpty(t, acked[q])
			}
		})
	}
}

const killQueues = 4

// killRound sends with many in flight until so many are acked, and kills the broker.
func killRound(t *testing.T, dir, flush string, port, round int, sent []int64, acked [][]int64) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "BROKER_TEST_KILL_DIR="+dir, fmt.Sprintf(
		"BROKER_TEST_KILL_CONF=storePathRootDir=%s\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nbrokerName=broker-a\nlistenPort=%d\nhaListenPort=%d\nflushDiskType=%s\n"+
			"mappedFileSizeCommitLog=4194304\nmappedFileSizeConsumeQueue=20000\nmaxHashSlotNum=1000\nmaxIndexNum=4000\nmaxMessageSize=1048576", dir, port, port+2, flush))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ready := make([]byte, len("ready\n"))
	_, err = io.ReadFull(out, ready)
	require.NoError(t, err)

	cl, err := remoting.NewClient(context.Background(), remoting.ClientOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, cl.Close()) }()
	conn, err := cl.Conn(t.Context(), fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	resp, err := conn.Call(t.Context(), sendRequest("create", 0, "x"))
	require.NoError(t, err)
	require.NoError(t, resp.Err())

	enough := make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	n := 0
	window := make(chan struct{}, 256)
	limit := 1500 + 700*round
	for stop := false; !stop; {
		for q := range killQueues {
			select {
			case window <- struct{}{}:
			case <-enough:
				stop = true
			case <-time.After(20 * time.Second):
				t.Fatal("no answer")
			}
			if stop {
				break
			}
			number := sent[q]
			sent[q]++
			err := conn.Start(&remoting.Call{Request: sendRequest("T", q, strconv.FormatInt(number, 10)), Timeout: time.Minute, Done: func(c *remoting.Call) {
				defer func() { <-window }()
				if c.Err != nil || c.Response.Code != 0 {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				acked[q] = append(acked[q], number)
				if n++; n == limit {
					once.Do(func() { close(enough) })
				}
			}})
			require.NoError(t, err)
		}
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	_ = in.Close() // Wait has closed it
	<-conn.Done()
	require.Eventually(t, func() bool { return len(window) == 0 }, 10*time.Second, time.Millisecond, "every call ends")
}
