package wire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// child is a process of ours that runs.
type child struct {
	cmd    *exec.Cmd
	log    string
	reaper *run.Group
	done   chan struct{}
	err    error // set once done is closed
}

// startChild runs a program whose output goes to a file.
func startChild(dir, name string, cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	c.reaper = run.New(context.Background(), "wire/"+name)
	c.reaper.Go("reaper", func(context.Context) error {
		// The kernel sends Pdeathsig when the thread ends that started the child; those of the pacing
		// workers do end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := cmd.Start()
		_ = out.Close() // the child has it
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
		return nil
	})
	if err := <-started; err != nil {
		_ = c.reaper.Wait() // it returns nil
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// running says whether the process has not ended yet.
func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// term asks the process to stop.
func (c *child) term() { _ = c.cmd.Process.Signal(syscall.SIGTERM) } // it may have ended

// kill ends the process at once and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
	_ = c.reaper.Wait() // it returns nil
}

// end asks the process to stop, and waits for it.
func (c *child) end() error {
	c.term()
	return c.awaitEnd()
}

// awaitEnd waits for a process that has been asked to stop. To ask twice would end it on the spot.
func (c *child) awaitEnd() error {
	select {
	case <-c.done:
	case <-time.After(openTimeout):
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("%s did not stop within %v and was killed", c.cmd.Path, openTimeout)
	}
	_ = c.reaper.Wait() // it returns nil
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.cmd.Path), c.err, c.lastLines())
	}
	return nil
}

// lastLines is the end of what the process printed.
func (c *child) lastLines() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// Program is the path of one of our programs.
func (d Driver) Program(name string) (string, error) {
	dir := d.BinDir
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there: build it with `make build`, or name a running cluster with --target", path)
	}
	return path, nil
}

// Ports of children are drawn from below the range that the kernel takes the local ends of connections from: one of
// that range may be taken between the look and the child's own listening.
const firstPort, lastPort = 10_000, 32_000

// launch starts one of our programs, with dir for its home and env beside ours.
func (d Driver) launch(ctx context.Context, dir, name string, env []string, args ...string) (*child, error) {
	path, err := d.Program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...) // ended by its owner, the polite way
	cmd.Env = append(append(os.Environ(), "ROCKETMQ_HOME="+dir), env...)
	return startChild(dir, name, cmd)
}

// freePorts finds n consecutive ports that nobody listens on.
func freePorts(ctx context.Context, n int) (int, error) {
	var lc net.ListenConfig
next:
	for range 1000 {
		first := firstPort + rand.IntN(lastPort-firstPort-n)
		for i := range n {
			l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(first+i))
			if err != nil {
				continue next
			}
			_ = l.Close() // only asked
		}
		return first, nil
	}
	return 0, fmt.Errorf("no %d free ports in a row on 127.0.0.1 from %d to %d", n, firstPort, lastPort)
}

// awaitAnswer returns when a request to addr is answered, or the child has ended.
func (c *child) awaitAnswer(ctx context.Context, addr string, code protocol.RequestCode) error {
	client, err := remoting.NewClient(ctx, remoting.ClientOptions{Name: "wire-await", DialTimeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // it only asked
	for end := time.Now().Add(openTimeout); ; {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Call(try, addr, protocol.NewRequest(code))
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer at %s: %w: %s", filepath.Base(c.cmd.Path), addr, err, c.lastLines())
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended: %w: %s", filepath.Base(c.cmd.Path), c.err, c.lastLines())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
