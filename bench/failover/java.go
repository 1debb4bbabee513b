package failover

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"rmq/client"
	"rmq/internal/run"
	"rmq/remoting"
)

// external is a client in a process of its own. It gets the address of the NameServer as its last argument and prints
// READY; then it reads lines "ID TOPIC BODY", the body in base64, and answers each with "ID OK" or "ID ERR why". It ends
// with its input. The unmodified Java client is one: test/interop/wire/java, failover.Main.
type external struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	log *os.File
	g   *run.Group
	out chan string // lines to the process; room for all that may be in flight

	mu     sync.Mutex
	next   int64
	open   map[string]func(error)
	closed error // why nothing is taken any more
}

// newExternal starts the process of a client; command is words separated by blanks. What it prints beside answers goes to
// a file in dir. At most window messages are in flight.
func newExternal(ctx context.Context, command, nameServer, dir string, window int) (x *external, err error) {
	words := strings.Fields(command)
	x = &external{out: make(chan string, 2*window), open: map[string]func(error){}}
	if x.log, err = os.OpenFile(filepath.Join(dir, clientJava+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	x.cmd = exec.CommandContext(context.WithoutCancel(ctx), words[0], append(words[1:], nameServer)...)
	x.cmd.Stderr = x.log
	out, err := x.cmd.StdoutPipe()
	if err == nil {
		x.in, err = x.cmd.StdinPipe()
	}
	if err == nil {
		err = x.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, x.log.Close())
	}
	x.g = run.New(context.WithoutCancel(ctx), "failover/external")
	ready := make(chan struct{})
	x.g.Go("read", func(context.Context) error { x.read(out, ready); return nil })
	x.g.Go("write", func(ctx context.Context) error { x.write(ctx); return nil })
	select {
	case <-ready:
		return x, nil
	case <-time.After(patience):
		err = fmt.Errorf("%s is not ready after %v; see %s", words[0], patience, x.log.Name())
	case <-x.g.Context().Done():
		err = fmt.Errorf("%s ended before it was ready; see %s", words[0], x.log.Name())
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, x.Close())
}

// Send implements [Client].
func (x *external) Send(topic string, _ int32, body []byte, done func(error)) {
	x.mu.Lock()
	if x.closed != nil {
		x.mu.Unlock()
		done(x.closed)
		return
	}
	x.next++
	id := strconv.FormatInt(x.next, 10)
	x.open[id] = done
	x.mu.Unlock()
	x.out <- id + " " + topic + " " + base64.StdEncoding.EncodeToString(body) + "\n"
}

// write hands lines to the process, many at once where many wait.
func (x *external) write(ctx context.Context) {
	w := bufio.NewWriterSize(x.in, 64<<10)
	for {
		select {
		case line := <-x.out:
			_, _ = w.WriteString(line) // the error stays in w
		case <-ctx.Done():
			return
		}
		if len(x.out) == 0 && w.Flush() != nil {
			return // its reader sees the end as well
		}
	}
}

// javaError makes an error of what the process says of a message: the name of a SendStatus, of one that is stored, or why it
// failed.
func javaError(why string) error {
	switch why {
	case client.SendFlushDiskTimeout.String(), client.SendFlushSlaveTimeout.String(), client.SendSlaveNotAvailable.String():
		return fmt.Errorf("%s: %w", why, errStatus)
	}
	return errors.New(why)
}

// read takes what the process prints until it ends.
func (x *external) read(out io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		id, answer, _ := strings.Cut(lines.Text(), " ")
		x.mu.Lock()
		done := x.open[id]
		delete(x.open, id)
		x.mu.Unlock()
		switch {
		case done != nil && answer == "OK":
			done(nil)
		case done != nil:
			done(javaError(strings.TrimPrefix(answer, "ERR ")))
		case id == "READY":
			close(ready)
		default:
			_, _ = fmt.Fprintln(x.log, lines.Text()) // for whoever looks
		}
	}
	x.g.Cancel()
	x.end(fmt.Errorf("%s has ended; see %s", filepath.Base(x.cmd.Path), x.log.Name()))
}

// end answers everything that is open and takes nothing more.
func (x *external) end(err error) {
	x.mu.Lock()
	if x.closed == nil {
		x.closed = err
	}
	open := x.open
	x.open = map[string]func(error){}
	x.mu.Unlock()
	for _, done := range open {
		done(err)
	}
}

// Close implements [Client].
func (x *external) Close() error {
	x.end(remoting.ErrClosed)
	x.g.Cancel()
	_ = x.in.Close() // it may have ended
	const wait = 10 * time.Second
	kill := time.AfterFunc(wait, func() { _ = x.cmd.Process.Kill() }) // it may have ended
	defer kill.Stop()
	err := x.g.Wait() // its output has ended, and with it the process
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	_ = x.cmd.Wait() // how it ended does not matter: all that it owed has been answered
	return errors.Join(err, x.log.Close())
}
