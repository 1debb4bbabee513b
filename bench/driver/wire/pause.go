package wire

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// wakeTimeout bounds how long a cluster that was paused may take until it has a master and makes topics.
const wakeTimeout = 60 * time.Second

// afterPause is what a cluster that was paused gets to itself before load: its groups elect, its slaves attach again.
const afterPause = 10 * time.Second

// signal stops (SIGSTOP) or continues (SIGCONT) the processes of the running cluster, so that these take nothing from what is
// measured.
func (d Driver) signal(s syscall.Signal) error {
	var errs []error
	for _, pid := range d.Pause {
		if err := syscall.Kill(pid, s); err != nil {
			errs = append(errs, fmt.Errorf("--target-pids: process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// find looks for the running cluster of the target and makes the topics there. One that may have been paused is given
// time to be itself again.
func (s *session) find(ctx context.Context) (err error) {
	once := func() error {
		if s.cluster, err = findCluster(ctx, s.client, s.target); err != nil {
			return err
		}
		if len(s.driver.Pause) > 0 {
			s.cluster.pids = s.driver.Pause // slaves included, as those of a cluster of ours
		}
		return s.makeTopics(ctx)
	}
	if len(s.driver.Pause) == 0 {
		return once()
	}
	ctx, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	for wait := afterPause; ; wait = time.Second {
		if end := pause(ctx, wait); end != nil {
			return errors.Join(end, err)
		}
		if err = once(); err == nil {
			return nil
		}
	}
}
