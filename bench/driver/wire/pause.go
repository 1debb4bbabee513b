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

// pause stops or continues the processes of running clusters, so that these take nothing from what is measured.
func (d Driver) pause(stop bool) error {
	sig := syscall.SIGCONT
	if stop {
		sig = syscall.SIGSTOP
	}
	var errs []error
	for _, pid := range d.Pause {
		if err := syscall.Kill(pid, sig); err != nil {
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
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
		if err = once(); err == nil {
			return nil
		}
	}
}
