package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rmq/internal/vfs"
)

// RetentionOptions say when old segments go. The zero value is what Apache does by default. Names
// in the tags are the Java property names; percentages are clamped to the ranges that Apache clamps
// them to.
type RetentionOptions struct {
	Disabled       bool          // nothing is removed, and no disk level refuses appends
	ReservedHours  int           `prop:"fileReservedTime"`            // 0: 72; age at which a segment is expired
	DeleteWhen     string        `prop:"deleteWhen"`                  // "": 04; local hours, separated by ;
	MaxUsedPercent int           `prop:"diskMaxUsedSpaceRatio"`       // 0: 75; above: expired segments go at once
	ForcePercent   int           `prop:"diskSpaceCleanForciblyRatio"` // 0: 85; above: segments go whatever their age
	WarnPercent    int           `prop:"diskSpaceWarningLevelRatio"`  // 0: 90; above: appends are refused as well
	ForceDisabled  bool          // cleanFileForciblyEnable=false: no segment goes before its age
	BatchMax       int           `prop:"deleteFileBatchMax"`           // 0: 10; segments a round
	Interval       time.Duration `prop:"cleanResourceInterval"`        // 0: 10 s
	Pause          time.Duration `prop:"deleteCommitLogFilesInterval"` // 0: 100 ms between two segments
}

const (
	firstClean   = 60 * time.Second // after the start
	manualRounds = 20
)

func (o *RetentionOptions) ensureDefaults() {
	setDefault(&o.ReservedHours, 72)
	setDefault(&o.DeleteWhen, "04")
	setDefault(&o.MaxUsedPercent, 75)
	setDefault(&o.ForcePercent, 85)
	setDefault(&o.WarnPercent, 90)
	setDefault(&o.BatchMax, 10)
	setDefault(&o.Interval, 10*time.Second)
	setDefault(&o.Pause, 100*time.Millisecond)
	clamp := func(p *int, low, high int) { *p = min(max(*p, low), high) }
	clamp(&o.MaxUsedPercent, 10, 95)
	clamp(&o.ForcePercent, 30, 85)
	clamp(&o.WarnPercent, 35, 90)
}

func (o *RetentionOptions) validate() error {
	var errs []error
	if o.ReservedHours < 0 || o.BatchMax < 0 {
		errs = append(errs, fmt.Errorf("fileReservedTime is %d and deleteFileBatchMax %d: neither can be negative", o.ReservedHours, o.BatchMax))
	}
	if o.Interval < 0 || o.Pause < 0 {
		errs = append(errs, errors.New("cleanResourceInterval and deleteCommitLogFilesInterval must not be negative"))
	}
	if _, err := parseDeleteWhen(o.DeleteWhen); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// parseDeleteWhen reads "04;16" into a set of hours.
func parseDeleteWhen(s string) (hours [24]bool, err error) {
	any := false
	for _, f := range strings.Split(s, ";") {
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		h, err := strconv.Atoi(f)
		if err != nil || h < 0 || h > 23 {
			return hours, fmt.Errorf("deleteWhen has %q: use hours from 00 to 23, separated by ;", f)
		}
		hours[h], any = true, true
	}
	if !any {
		return hours, fmt.Errorf("deleteWhen is %q: name at least one hour", s)
	}
	return hours, nil
}

// segmentAge is what retention looks at in a segment.
type segmentAge struct {
	Start, End int64
	Mtime      time.Time // of the last write
}

// cleanPlan is what one round of retention is to do.
type cleanPlan struct {
	Delete int    // oldest segments to remove
	Reason string // why, when Delete is not 0 or the disk is too full
	// Refuse says that the disk is above the warning level: no appends until it is not.
	Refuse  bool
	Percent int // how full the fuller disk is
}

// planClean decides one round. It looks at nothing but its arguments.
//
// files are all segments, oldest first; limit is the position below which segments may go: the last
// segment, the one being written, what a hold asks for and what the consume queues on disk do not
// cover are above it. usage is that of each disk concerned. now is in the zone whose hours deleteWhen
// means.
//
// A round begins when the hour is one of deleteWhen, when a disk is above MaxUsedPercent, or when
// asked for by hand. It takes expired segments from the oldest on, and stops at the first that is not
// expired. Above ForcePercent or WarnPercent, unless ForceDisabled, it takes them whatever their age.
// Never more than BatchMax (org.apache.rocketmq.store.DefaultMessageStore.CleanCommitLogService).
func planClean(now time.Time, files []segmentAge, usage []vfs.Usage, limit int64, manual bool, o RetentionOptions) cleanPlan {
	var p cleanPlan
	for _, u := range usage {
		p.Percent = max(p.Percent, usedPercent(u))
	}
	p.Refuse = p.Percent > o.WarnPercent
	if p.Refuse {
		p.Reason = fmt.Sprintf("disk %d %% full, above diskSpaceWarningLevelRatio=%d", p.Percent, o.WarnPercent)
	}
	hours, err := parseDeleteWhen(o.DeleteWhen)
	inTime := err == nil && hours[now.Hour()]
	crowded := p.Percent > o.MaxUsedPercent
	force := !o.ForceDisabled && (p.Refuse || p.Percent > o.ForcePercent)
	reason := ""
	switch {
	case force && p.Refuse:
		reason = p.Reason
	case force:
		reason = fmt.Sprintf("disk %d %% full, above diskSpaceCleanForciblyRatio=%d", p.Percent, o.ForcePercent)
	case crowded:
		reason = fmt.Sprintf("older than %d h, disk %d %% full", o.ReservedHours, p.Percent)
	case inTime:
		reason = fmt.Sprintf("older than %d h", o.ReservedHours)
	case manual:
		reason = fmt.Sprintf("older than %d h, asked for", o.ReservedHours)
	default:
		return p
	}
	reserved := time.Duration(o.ReservedHours) * time.Hour
	for i, f := range files {
		if i == len(files)-1 || f.End > limit || p.Delete == o.BatchMax {
			break
		}
		if !force && now.Before(f.Mtime.Add(reserved)) {
			break
		}
		p.Delete++
	}
	if p.Delete > 0 {
		p.Reason = reason
	}
	return p
}

// usedPercent is how full a disk is for an ordinary user, rounded up, as Apache and df count it.
func usedPercent(u vfs.Usage) int {
	used := u.Total - u.Free
	if all := used + u.Avail; all > 0 && used > 0 {
		return int((used*100 + all - 1) / all)
	}
	return 0
}

// cleanTarget is what retention works on.
type cleanTarget interface {
	// segments lists all segments, oldest first.
	segments() ([]segmentAge, error)
	usage() ([]vfs.Usage, error)
	// limit is the position below which segments may go; catchUp raises it where that only takes
	// writing down what is known.
	limit() int64
	catchUp(ctx context.Context) error
	// retire takes the oldest segment away. Its bytes go when its last reader has let go.
	retire() error
	// forget drops what queues and index know of the log below min.
	forget(min int64) error
	// refuse holds appends back with err, or lets them go on with nil.
	refuse(err error)
}

// Cleaner removes old segments and refuses appends on a disk that is too full. It works on the
// goroutine "cleaner".
type Cleaner struct {
	o      RetentionOptions
	t      cleanTarget
	clock  func() time.Time
	event  func(CleanEvent)
	manual atomic.Int32 // rounds still asked for by hand
	kick   chan struct{}
}

func newCleaner(t cleanTarget, o RetentionOptions, clock func() time.Time, event func(CleanEvent)) *Cleaner {
	return &Cleaner{o: o, t: t, clock: clock, event: event, kick: make(chan struct{}, 1)}
}

// ask requests rounds of cleaning whatever the hour.
func (c *Cleaner) ask() {
	c.manual.Store(manualRounds)
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// run works until ctx ends. The disk levels are looked at from the start, segments go from a minute
// after it.
func (c *Cleaner) run(ctx context.Context, trouble func(error)) error {
	if c.o.Disabled {
		return nil
	}
	began := time.Now()
	tick := time.NewTicker(c.o.Interval)
	defer tick.Stop()
	for {
		early := time.Since(began) < firstClean && c.manual.Load() == 0
		if err := c.round(ctx, early); err != nil && ctx.Err() == nil {
			trouble(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.kick:
		}
	}
}

// round looks once and does what the plan says; levelsOnly leaves segments that no level forces out.
func (c *Cleaner) round(ctx context.Context, levelsOnly bool) error {
	files, err := c.t.segments()
	if err != nil {
		return err
	}
	usage, err := c.t.usage()
	if err != nil {
		return err
	}
	manual := c.manual.Load() > 0
	if manual {
		c.manual.Add(-1)
	}
	plan := planClean(c.clock(), files, usage, c.t.limit(), manual, c.o)
	if levelsOnly && plan.Percent <= c.o.ForcePercent {
		plan.Delete = 0
	} else if want := planClean(c.clock(), files, usage, endOf(files), manual, c.o); want.Delete > plan.Delete {
		// Something stands above the limit that may only wait for a checkpoint.
		if err := c.t.catchUp(ctx); err == nil {
			plan = planClean(c.clock(), files, usage, c.t.limit(), manual, c.o)
		} else if plan.Delete == 0 {
			return err
		} // on a full disk the segments that may go make the room that catching up needs
	}
	if plan.Refuse {
		c.t.refuse(&DiskLevelError{Percent: plan.Percent, Limit: c.o.WarnPercent})
	} else {
		c.t.refuse(nil)
	}
	if plan.Delete == 0 {
		return nil
	}
	for i := range plan.Delete {
		if i > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(c.o.Pause):
			}
		}
		if files[i].End > c.t.limit() { // a hold may have come meanwhile
			break
		}
		if err := c.t.retire(); err != nil {
			return err
		}
		if c.event != nil {
			c.event(CleanEvent{Segment: files[i].Start, Reason: plan.Reason})
		}
		if err := c.t.forget(files[i].End); err != nil {
			return err
		}
	}
	return nil
}

func endOf(files []segmentAge) int64 {
	if len(files) == 0 {
		return 0
	}
	return files[len(files)-1].End
}

// DiskLevelError is an append refused because the disk is too full; appends resume by themselves.
type DiskLevelError struct {
	Percent, Limit int
	Path           string // a directory on the disk
	Need, Have     int64  // free bytes with which appends go on, and those there are
}

func (e *DiskLevelError) Error() string {
	return fmt.Sprintf("the disk of %s is %d %% full, appends are refused above %d %%: need %d free bytes, have %d: free space or raise diskSpaceWarningLevelRatio; writes resume by themselves",
		e.Path, e.Percent, e.Limit, e.Need, e.Have)
}

// locate says of which disk e speaks, given the usage of the directories of the store.
func (e *DiskLevelError) locate(dirs []string, usage []vfs.Usage) {
	fullest := 0
	for i, u := range usage {
		if p := usedPercent(u); p >= fullest {
			fullest = p
			all := u.Total - u.Free + u.Avail // as an ordinary user sees the disk
			e.Path, e.Need, e.Have = dirs[i], all-all*int64(e.Limit)/100, u.Avail
		}
	}
}

// refusals keeps apart the reasons for which appends are refused, so that the end of one does not
// end another.
type refusals struct {
	mu     sync.Mutex
	causes [4]error
}

const (
	refusedLevel     = iota // the disk is above the warning level
	refusedAllocator        // no room for the next segment
	refusedDerived          // queues, index or state cannot be written at a checkpoint
	refusedDispatch         // nor when records are fed to them
)

// refuseAppends sets or clears one cause and shows the log the first that is left.
func (s *Store) refuseAppends(cause int, err error) {
	s.refused.mu.Lock()
	defer s.refused.mu.Unlock()
	was := s.refused.causes[cause]
	s.refused.causes[cause] = err
	s.log.full.Store(nil)
	for i := range s.refused.causes {
		if s.refused.causes[i] != nil {
			now := s.refused.causes[i]
			s.log.full.Store(&now)
			break
		}
	}
	switch {
	case err != nil && was == nil:
		s.o.Logger.Error("appends refused", "err", err)
	case err == nil && was != nil:
		s.o.Logger.Info("space is back: appends go on", "was", was)
	}
}

// storeTarget is the store as retention sees it.
type storeTarget struct{ s *Store }

func (t storeTarget) segments() ([]segmentAge, error) {
	var list []segmentAge
	for _, m := range t.s.files.Files() {
		st, err := t.s.o.FS.Stat(m.Path())
		if errors.Is(err, fs.ErrNotExist) {
			break // cut off meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, segmentAge{Start: m.Start(), End: m.End(), Mtime: st.ModTime()})
	}
	return list, nil
}

// dirs are the directories whose disks usage tells of, the one of the log last.
func (t storeTarget) dirs() []string { return []string{t.s.o.QueueDir, t.s.o.CommitLogDir} }

func (t storeTarget) usage() ([]vfs.Usage, error) {
	var list []vfs.Usage
	for _, dir := range t.dirs() {
		u, err := t.s.o.FS.Usage(dir)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, nil
}

func (t storeTarget) limit() int64 {
	s := t.s
	s.keeper.mu.Lock()
	kept := s.keeper.last
	s.keeper.mu.Unlock()
	tail := s.log.tail.Load()
	limit := min(kept, s.log.flushed.Load(), tail-tail%s.o.SegmentBytes)
	return s.holds.lowest(limit)
}

func (t storeTarget) catchUp(ctx context.Context) error { return t.s.Checkpoint(ctx) }

func (t storeTarget) retire() error {
	_, err := t.s.files.RetireFirst(func(err error) {
		if err != nil {
			t.s.o.Logger.Error("old segment not removed", "err", err)
		}
	})
	return err
}

func (t storeTarget) forget(pos int64) error {
	err := t.s.queues.deleteBefore(pos)
	if t.s.index != nil {
		err = errors.Join(err, t.s.index.deleteBefore(pos))
	}
	// The state counts the files of the index: it must not miss those that went on purpose.
	t.s.keeper.mu.Lock()
	defer t.s.keeper.mu.Unlock()
	return errors.Join(err, t.s.keeper.saveState(false))
}

func (t storeTarget) refuse(err error) {
	var level *DiskLevelError
	if errors.As(err, &level) {
		if usage, err := t.usage(); err == nil {
			level.locate(t.dirs(), usage)
		}
	}
	t.s.refuseAppends(refusedLevel, err)
}

// runCleaner is the goroutine of retention.
func (s *Store) runCleaner(ctx context.Context) error {
	return s.cleaner.run(ctx, func(err error) { s.o.Logger.Error("retention", "err", err) })
}

// DeleteExpired starts the removal of expired segments now, whatever the hour. It does not wait.
func (s *Store) DeleteExpired() { s.cleaner.ask() }
