package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// exactTimers makes the kernel wake this thread when asked instead of up to 50 µs later. The
// caller holds the thread.
func exactTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) } // without it pacing is coarser, and says so

// nanosleep waits on the caller's thread, at most maxSleep: time.Sleep wakes a millisecond late
// below a millisecond.
func nanosleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(min(d, maxSleep)))
	_ = unix.Nanosleep(&ts, nil) // woken early by a signal: the caller looks at the clock
}

// threadCPU is the CPU time of the calling thread in ns, 0 if not offered.
func threadCPU() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// processCPU is the CPU time of this process in ns, 0 if not offered.
func processCPU() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// monotonic is CLOCK_MONOTONIC in ns, comparable across the processes of a host.
func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}
