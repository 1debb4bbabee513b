//go:build interop

package wire

import (
	"bufio"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flow is an unmodified Java producer or consumer that runs beside the test.
type flow struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu   sync.Mutex
	said []said
}

// said is a line that it has printed.
type said struct {
	at     time.Time
	fields []string
}

// startWriter starts a producer that sends one message after the other until it is told to end.
func startWriter(t *testing.T, l line, namesrv, topic, prefix string) *flow {
	t.Helper()
	return startFlow(t, l, "flow.Write", namesrv, topic, prefix, "1000000", "5", "200")
}

// startReader starts a consumer that reads until the test ends.
func startReader(t *testing.T, l line, namesrv, topic, group string) *flow {
	t.Helper()
	return startFlow(t, l, "flow.Read", namesrv, topic, group, "100000")
}

func startFlow(t *testing.T, l line, args ...string) *flow {
	t.Helper()
	f := &flow{done: make(chan struct{})}
	props := []string{"-Drocketmq.client.logUseSlf4j=true"}
	if short() {
		props = append(props, "-Dpoll=1000") // it would take half a minute
	}
	f.cmd = l.java(t, "192m", props, args[0], args[1:]...)
	var err error
	f.in, err = f.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := f.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, f.cmd.Start())
	go func() {
		defer close(f.done)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			f.mu.Lock()
			f.said = append(f.said, said{time.Now(), strings.Fields(sc.Text())})
			f.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // it may have ended
		<-f.done
		_ = f.cmd.Wait() // it was killed
	})
	return f
}

// each calls use with the lines that begin with a word, until it says false.
func (f *flow) each(word string, use func(said) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.said {
		if len(s.fields) > 0 && s.fields[0] == word && !use(s) {
			return
		}
	}
}

// acks are the status of each key that was stored, and how many sends failed.
func (f *flow) acks() (acked map[string]string, failed int) {
	acked = map[string]string{}
	f.each("ACK", func(s said) bool { acked[s.fields[3]] = s.fields[2]; return true })
	f.each("ERR", func(said) bool { failed++; return true })
	return acked, failed
}

// keys are how often each key was read.
func (f *flow) keys() map[string]int {
	got := map[string]int{}
	f.each("GOT", func(s said) bool { got[s.fields[4]]++; return true })
	return got
}

// silence is the longest time without a line of a word in a span.
func (f *flow) silence(word string, from, to time.Time) time.Duration {
	longest, last := time.Duration(0), from
	f.each(word, func(s said) bool {
		if s.at.After(from) && s.at.Before(to) {
			longest, last = max(longest, s.at.Sub(last)), s.at
		}
		return true
	})
	return max(longest, to.Sub(last))
}

// longest is the longest wait for an ack.
func (f *flow) longest() (wait time.Duration) {
	f.each("ACK", func(s said) bool {
		if ms, err := strconv.Atoi(s.fields[1]); err == nil {
			wait = max(wait, time.Duration(ms)*time.Millisecond)
		}
		return true
	})
	return wait
}

// end lets a producer end and returns what it was told of its messages.
func (f *flow) end(t *testing.T) (acked map[string]string, failed int) {
	t.Helper()
	_, err := io.WriteString(f.in, "end\n")
	require.NoError(t, err)
	<-f.done
	return f.acks()
}
