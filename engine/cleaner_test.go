package engine

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// disk is the usage of a disk of which percent are taken.
func disk(percent int64) vfs.Usage {
	return vfs.Usage{Total: 1000, Free: 1000 - 10*percent, Avail: 1000 - 10*percent}
}

// aged are segments of 100 bytes, last written so many hours before now, oldest first.
func aged(now time.Time, hours ...int) []segmentAge {
	var list []segmentAge
	for i, h := range hours {
		list = append(list, segmentAge{
			Start: int64(i) * 100, End: int64(i+1) * 100, Mtime: now.Add(-time.Duration(h) * time.Hour),
		})
	}
	return list
}

// TestPlanClean proves each rule of retention by the segments that a round takes.
func TestPlanClean(t *testing.T) {
	day := time.Date(2026, 3, 14, 12, 0, 0, 0, time.Local)
	night := time.Date(2026, 3, 14, 4, 30, 0, 0, time.Local)
	const noLimit = 1 << 40
	for _, c := range []struct {
		name   string
		now    time.Time
		hours  []int
		usage  []vfs.Usage
		limit  int64
		manual bool
		change func(*RetentionOptions)
		want   cleanPlan
	}{
		{name: "wrong hour, expired or not", now: day, hours: []int{100, 100, 0}, limit: noLimit, want: cleanPlan{Percent: 10}},
		{name: "right hour", now: night, hours: []int{100, 72, 71, 0}, limit: noLimit, want: cleanPlan{Delete: 2, Percent: 10, Reason: "older than 72 h"}},
		{name: "stops at the first that is young", now: night, hours: []int{100, 1, 100, 0}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h"}},
		{name: "nothing expired", now: night, hours: []int{71, 1}, limit: noLimit, want: cleanPlan{Percent: 10}},
		{name: "exactly at its age", now: night, hours: []int{72, 0}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h"}},
		{name: "never the last", now: night, hours: []int{100, 100}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h"}},
		{name: "one file", now: night, hours: []int{100}, limit: noLimit, want: cleanPlan{Percent: 10}},
		{name: "no files", now: night, limit: noLimit, want: cleanPlan{Percent: 10}},
		{name: "up to a hold", now: night, hours: []int{100, 100, 100, 0}, limit: 199, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h"}},
		{name: "hold at a border", now: night, hours: []int{100, 100, 100, 0}, limit: 200, want: cleanPlan{Delete: 2, Percent: 10, Reason: "older than 72 h"}},
		{name: "held whole", now: night, hours: []int{100, 100}, limit: 0, want: cleanPlan{Percent: 10}},
		{name: "batch", now: night, hours: make([]int, 30), usage: []vfs.Usage{disk(86)}, limit: noLimit, want: cleanPlan{Delete: 10, Percent: 86, Reason: "disk 86 % full, above diskSpaceCleanForciblyRatio=85"}},
		{name: "several hours", now: day, hours: []int{100, 0}, limit: noLimit, change: func(o *RetentionOptions) { o.DeleteWhen = "04; 12;" }, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h"}},
		{name: "by hand", now: day, hours: []int{100, 1, 0}, limit: noLimit, manual: true, want: cleanPlan{Delete: 1, Percent: 10, Reason: "older than 72 h, asked for"}},
		{name: "at the first level nothing yet", now: day, hours: []int{100, 0}, usage: []vfs.Usage{disk(75)}, limit: noLimit, want: cleanPlan{Percent: 75}},
		{name: "above the first level, expired ones", now: day, hours: []int{100, 1, 0}, usage: []vfs.Usage{disk(76)}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 76, Reason: "older than 72 h, disk 76 % full"}},
		{name: "the fuller disk counts", now: day, hours: []int{100, 1, 0}, usage: []vfs.Usage{disk(5), disk(76)}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 76, Reason: "older than 72 h, disk 76 % full"}},
		{name: "at the second level still by age", now: day, hours: []int{1, 1, 0}, usage: []vfs.Usage{disk(85)}, limit: noLimit, want: cleanPlan{Percent: 85}},
		{name: "above the second level, any", now: day, hours: []int{1, 1, 0}, usage: []vfs.Usage{disk(86)}, limit: noLimit, want: cleanPlan{Delete: 2, Percent: 86, Reason: "disk 86 % full, above diskSpaceCleanForciblyRatio=85"}},
		{name: "above it, not without leave", now: day, hours: []int{100, 1, 0}, usage: []vfs.Usage{disk(86)}, limit: noLimit, change: func(o *RetentionOptions) { o.ForceDisabled = true }, want: cleanPlan{Delete: 1, Percent: 86, Reason: "older than 72 h, disk 86 % full"}},
		{name: "at the third level appends go on", now: day, hours: []int{1, 0}, usage: []vfs.Usage{disk(90)}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 90, Reason: "disk 90 % full, above diskSpaceCleanForciblyRatio=85"}},
		{name: "above the third level they stop", now: day, hours: []int{1, 0}, usage: []vfs.Usage{disk(91)}, limit: noLimit, want: cleanPlan{Delete: 1, Percent: 91, Refuse: true, Reason: "disk 91 % full, above diskSpaceWarningLevelRatio=90"}},
		{name: "they stop with nothing to delete", now: day, hours: []int{0}, usage: []vfs.Usage{disk(99)}, limit: noLimit, want: cleanPlan{Percent: 99, Refuse: true, Reason: "disk 99 % full, above diskSpaceWarningLevelRatio=90"}},
		{name: "forced, but not past a hold", now: day, hours: []int{1, 1, 0}, usage: []vfs.Usage{disk(95)}, limit: 150, want: cleanPlan{Delete: 1, Percent: 95, Refuse: true, Reason: "disk 95 % full, above diskSpaceWarningLevelRatio=90"}},
		{name: "other figures", now: day, hours: []int{3, 1, 0}, usage: []vfs.Usage{disk(41)}, limit: noLimit, change: func(o *RetentionOptions) { o.ReservedHours, o.MaxUsedPercent = 2, 40 }, want: cleanPlan{Delete: 1, Percent: 41, Reason: "older than 2 h, disk 41 % full"}},
		{name: "clock set back keeps", now: night, hours: []int{-5, 0}, limit: noLimit, want: cleanPlan{Percent: 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o RetentionOptions
			if c.change != nil {
				c.change(&o)
			}
			o.ensureDefaults()
			require.NoError(t, o.validate())
			if c.usage == nil {
				c.usage = []vfs.Usage{disk(10)}
			}
			require.Equal(t, c.want, planClean(c.now, aged(c.now, c.hours...), c.usage, c.limit, c.manual, o))
		})
	}
}

// TestRetentionOptions proves the defaults, the ranges and the complaints.
func TestRetentionOptions(t *testing.T) {
	var o RetentionOptions
	o.ensureDefaults()
	require.Equal(t, RetentionOptions{
		ReservedHours: 72, DeleteWhen: "04", MaxUsedPercent: 75, ForcePercent: 85, WarnPercent: 90, BatchMax: 10,
		Interval: 10 * time.Second, Pause: 100 * time.Millisecond,
	}, o)
	o = RetentionOptions{MaxUsedPercent: 99, ForcePercent: 99, WarnPercent: 99}
	o.ensureDefaults()
	require.Equal(t, [3]int{95, 85, 90}, [3]int{o.MaxUsedPercent, o.ForcePercent, o.WarnPercent})
	o = RetentionOptions{MaxUsedPercent: 1, ForcePercent: 1, WarnPercent: 1}
	o.ensureDefaults()
	require.Equal(t, [3]int{10, 30, 35}, [3]int{o.MaxUsedPercent, o.ForcePercent, o.WarnPercent})
	for _, bad := range []string{"24", "-1", "noon", ";", "04,16"} {
		o = RetentionOptions{DeleteWhen: bad}
		o.ensureDefaults()
		require.ErrorContains(t, o.validate(), "deleteWhen", bad)
	}
}

// TestUsedPercent proves that the share is of what an ordinary user may take, rounded up.
func TestUsedPercent(t *testing.T) {
	require.Equal(t, 0, usedPercent(vfs.Usage{}))
	require.Equal(t, 50, usedPercent(vfs.Usage{Total: 100, Free: 50, Avail: 50}))
	require.Equal(t, 56, usedPercent(vfs.Usage{Total: 100, Free: 50, Avail: 40}))
	require.Equal(t, 100, usedPercent(vfs.Usage{Total: 100, Free: 5, Avail: 0}))
}

// fakeTarget is a store of which only the ages and the disk are real. Each retired segment gives
// back a tenth of the disk.
type fakeTarget struct {
	mu      sync.Mutex
	files   []segmentAge
	percent int64
	at      int64 // limit
	behind  int64 // what a checkpoint would make the limit
	retired []int64
	forgot  []int64
	refused error
	broken  error
}

func (f *fakeTarget) segments() ([]segmentAge, error) { return f.files, f.broken }
func (f *fakeTarget) usage() ([]vfs.Usage, error)     { return []vfs.Usage{disk(f.percent)}, nil }
func (f *fakeTarget) limit() int64                    { return f.at }
func (f *fakeTarget) catchUp(context.Context) error   { f.at = max(f.at, f.behind); return nil }
func (f *fakeTarget) forget(pos int64) error          { f.forgot = append(f.forgot, pos); return nil }

func (f *fakeTarget) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = err
}

// outcome is how many segments went and whether appends are refused.
func (f *fakeTarget) outcome() (retired int, refused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.retired), f.refused != nil
}

func (f *fakeTarget) retire() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = append(f.retired, f.files[0].Start)
	f.files = f.files[1:]
	f.percent -= 10
	return nil
}

// TestCleanerRound proves that a round removes what the plan says, tells queues and index, waits
// for a checkpoint where only that is missing, and lets go of the level when it is over.
func TestCleanerRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o RetentionOptions
		o.ensureDefaults()
		now := time.Now()
		f := &fakeTarget{files: aged(now, 1, 1, 1, 0), percent: 95, at: 100, behind: 200}
		var events []CleanEvent
		c := newCleaner(f, o, time.Now, func(e CleanEvent) { events = append(events, e) })
		require.NoError(t, c.round(t.Context(), true))
		require.Equal(t, []int64{0, 100}, f.retired)
		require.Equal(t, []int64{100, 200}, f.forgot)
		require.Equal(t, o.Pause, time.Since(now))
		require.Len(t, events, 2)
		var level *DiskLevelError
		require.ErrorAs(t, f.refused, &level)
		require.Equal(t, 95, level.Percent)

		require.NoError(t, c.round(t.Context(), true))
		require.NoError(t, f.refused)
		require.Len(t, f.retired, 2, "75 %% asks for nothing")
		f.broken = errors.New("disk gone")
		require.ErrorIs(t, c.round(t.Context(), true), f.broken)
	})
}

// TestCleanerRun proves the timetable: levels at once, expired segments from a minute on or when
// asked for, and nothing at all when disabled.
func TestCleanerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o RetentionOptions
		o.ensureDefaults()
		night := func() time.Time { return time.Date(2026, 3, 14, 4, 0, 0, 0, time.Local) }
		expect := func(f *fakeTarget, retired int, refused bool) {
			gone, full := f.outcome()
			require.Equal(t, retired, gone)
			require.Equal(t, refused, full)
		}
		start := func(f *fakeTarget, o RetentionOptions) (*Cleaner, func()) {
			ctx, cancel := context.WithCancel(t.Context())
			c := newCleaner(f, o, night, nil)
			done := make(chan error)
			go func() { done <- c.run(ctx, func(err error) { t.Error(err) }) }()
			synctest.Wait()
			return c, func() {
				cancel()
				require.NoError(t, <-done)
			}
		}
		f := &fakeTarget{files: aged(night(), 100, 0), percent: 10, at: 1 << 40}
		_, stop := start(f, o)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		expect(f, 0, false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expect(f, 1, false)
		stop()

		f = &fakeTarget{files: aged(night(), 100, 0), percent: 10, at: 1 << 40}
		c, stop := start(f, o)
		c.ask()
		synctest.Wait()
		expect(f, 1, false)
		stop()

		f = &fakeTarget{files: aged(night(), 1, 0), percent: 95, at: 1 << 40}
		_, stop = start(f, o)
		expect(f, 1, true)
		stop()

		f = &fakeTarget{files: aged(night(), 100, 0), percent: 99, at: 1 << 40}
		o.Disabled = true
		_, stop = start(f, o)
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(f, 0, false)
		stop()
	})
}
