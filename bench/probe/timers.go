package probe

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

// napTime is what the timer step asks for; a load generator paces with naps like this.
const napTime = 50 * time.Microsecond

// measureTimers finds how late a 50 µs wait ends, by time.Sleep and by nanosleep on a thread of
// its own with the least timer slack, and what time.Now costs. The value of a timer limit is the
// median lateness.
func (s *session) measureTimers(ctx context.Context, slice time.Duration) error {
	part := parts(slice, 3)
	var h hist
	for until := part(0); ctx.Err() == nil; {
		start := time.Now()
		time.Sleep(napTime)
		now := time.Now()
		h.add(now.Sub(start) - napTime)
		if !now.Before(until) {
			break
		}
	}
	s.addLatency(results.LimitTimerSleep, &h)

	h = hist{}
	if err := s.each(ctx, "nanosleep", 1, func(ctx context.Context, _ int) error { return napOnThread(ctx, &h, part(1)) }); err != nil {
		return err
	}
	s.addLatency(results.LimitTimerError, &h)

	start := time.Now()
	now := start
	var n int64
	for n == 0 || now.Before(part(2)) && ctx.Err() == nil {
		for range 1000 {
			now = time.Now()
		}
		n += 1000
	}
	s.add(results.Limit{Name: results.LimitClock, Unit: "us", Value: now.Sub(start).Seconds() * 1e6 / float64(n), N: n})
	return nil
}

// napOnThread sleeps with nanosleep(2) on a locked thread whose timer slack is 1 ns meanwhile.
func napOnThread(ctx context.Context, h *hist, until time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0 puts the thread's default back
	ask := unix.NsecToTimespec(int64(napTime))
	for ctx.Err() == nil {
		start := time.Now()
		if err := unix.Nanosleep(&ask, nil); err != nil && err != unix.EINTR {
			return err
		} else if err == nil {
			h.add(time.Since(start) - napTime)
		}
		if !time.Now().Before(until) {
			return nil
		}
	}
	return nil
}
