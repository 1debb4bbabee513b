package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a daemon that runs, as its pid file tells.
//
// The file is <home>/run/<role>-<port>.pid, or <role>-<host>-<port>.pid where the process listens on
// one address only. Its first line is the number of the process, then come config=FILE and
// address=HOST:PORT. The process holds a lock (flock) on it as long as it lives, so that neither a
// file that a killed process left behind nor a number that the kernel gave away again is taken for
// it.
type Process struct {
	PID     int
	Role    string // "broker", "namesrv"
	Config  string // the file that it was started with, absolute and without links; "" for none
	Address string // where it listens
	Path    string // the pid file
}

// RunDir is where the pid files of a ROCKETMQ_HOME are. Without a home it is a place of the user.
func RunDir(home string) (string, error) {
	if home != "" {
		return filepath.Join(home, "run"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for pid files: set ROCKETMQ_HOME: %w", err)
	}
	return filepath.Join(user, ".rmq", "run"), nil
}

// PIDFile is the pid file of this process.
type PIDFile struct {
	f    *os.File
	path string
}

// WritePID tells that this process runs in a role and listens on host ("" for all) and port.
// configFile is the file that it was started with, or "". Call it once the process listens, so that
// nobody else can have the same file.
func WritePID(home, role, host string, port int, configFile string) (*PIDFile, error) {
	dir, err := RunDir(home)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if configFile != "" {
		if configFile, err = realPath(configFile); err != nil {
			return nil, err
		}
	}
	name := role + "-"
	if host != "" {
		name += host + "-"
	}
	name = filepath.Join(dir, name+strconv.Itoa(port)+".pid")
	f, err := lockFile(name)
	if err != nil {
		return nil, fmt.Errorf("write pid file: %w", err)
	}
	text := fmt.Sprintf("%d\nconfig=%s\naddress=%s\n", os.Getpid(), configFile, net.JoinHostPort(host, strconv.Itoa(port)))
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write pid file: %w", err), f.Close())
	}
	return &PIDFile{f, name}, nil
}

// lockFile makes the file and locks it. It begins empty, so that nobody reads the number of a process
// that was killed in it.
func lockFile(name string) (*os.File, error) {
	for try := 0; ; try++ {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		locked, err := lock(f, syscall.LOCK_EX)
		var mine, there os.FileInfo
		if err == nil && locked {
			mine, err = f.Stat()
		}
		if err == nil && locked {
			there, err = os.Stat(name)
			current := err == nil && os.SameFile(mine, there)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			switch {
			case current && mine.Size() == 0:
				return f, nil
			case current:
				err = os.Remove(name)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if !locked {
			if try == 100 {
				return nil, fmt.Errorf("%s is held by a process that runs", name)
			}
			time.Sleep(10 * time.Millisecond) // whoever looks whether it is stale has it for a moment
		}
	}
}

// lock takes the lock of an open file, LOCK_EX or LOCK_SH, unless somebody holds it.
func lock(f *os.File, how int) (taken bool, err error) {
	err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Path is the name of the file.
func (p *PIDFile) Path() string { return p.path }

// Remove takes the file away. It is the last thing that a process does.
func (p *PIDFile) Remove() error {
	return errors.Join(os.Remove(p.path), p.f.Close())
}

// Processes lists the daemons of a role that run under a home, by the names of their files. What
// killed ones left behind is removed.
func Processes(home, role string) ([]Process, error) {
	dir, err := RunDir(home)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []Process
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), role+"-") || !strings.HasSuffix(e.Name(), ".pid") {
			continue
		}
		p, running, err := readPID(filepath.Join(dir, e.Name()), role)
		if err != nil {
			return nil, err
		}
		if running {
			found = append(found, p)
		}
	}
	return found, nil
}

func readPID(name, role string) (p Process, running bool, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	defer func() { _ = f.Close() }() // only read
	stale, err := lock(f, syscall.LOCK_SH)
	if err != nil {
		return p, false, fmt.Errorf("lock %s: %w", name, err)
	}
	if stale {
		return p, false, removeStale(f, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return p, false, err
	}
	p = Process{Role: role, Path: name}
	for i, line := range strings.Split(string(text), "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch {
		case i == 0 && len(text) == 0:
			return p, false, nil // it is about to be written
		case i == 0:
			if p.PID, err = strconv.Atoi(line); err != nil || p.PID <= 0 {
				return p, false, fmt.Errorf("%s does not begin with the number of a process: %q", name, line)
			}
		case key == "config":
			p.Config = value
		case key == "address":
			p.Address = value
		}
	}
	return p, true, nil
}

// removeStale removes a file whose process is gone, unless somebody else sees to that.
func removeStale(f *os.File, name string) error {
	if taken, err := lock(f, syscall.LOCK_EX); err != nil || !taken {
		return err
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(name)
	if err == nil && os.SameFile(mine, there) {
		err = os.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// StartedWith says whether the process was started with a configuration file, by whatever name.
func (p *Process) StartedWith(configFile string) bool {
	name, err := realPath(configFile)
	return err == nil && name == p.Config
}

// Terminate asks the process to drain and end.
func (p *Process) Terminate() error {
	// The handle is of the process that has the number now; if the lock is still held after that, it
	// is the one that is meant.
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("stop process %d: %w", p.PID, err)
	}
	defer func() { _ = handle.Release() }() // it cannot fail
	if running, err := p.running(); err != nil || !running {
		return err
	}
	if err := handle.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop process %d: %w", p.PID, err)
	}
	return nil
}

// WaitGone waits until the process has ended.
func (p *Process) WaitGone(ctx context.Context) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		running, err := p.running()
		if err != nil || !running {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (p *Process) running() (bool, error) {
	now, running, err := readPID(p.Path, p.Role)
	return running && now.PID == p.PID, err
}

// realPath is an absolute name without links, so that two names of a file can be compared.
func realPath(name string) (string, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(name)
}
