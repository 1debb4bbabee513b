package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

// Names of limits that only the probe gives, beside those of [results].
const (
	// LimitDeviceFlushes is flush commands seen at the device per fdatasync. Zero on a disk means
	// that it has no volatile write cache, or that something below keeps the flushes for itself.
	LimitDeviceFlushes = "flush.device"
	// LimitWriteBackFirst is the first pass of [results.LimitWriteBack], in B/s: the page cache
	// it fills may be memory that a virtual machine has to fetch from its host first.
	LimitWriteBackFirst = "write.back.first"
)

// LimitAppendPadded names [results.LimitAppend] with zeros written up to the end of the page.
func LimitAppendPadded(state string) string { return results.LimitAppend(state) + ".padded" }

// DefaultBudget is how long [Run] may take, DriftBudget how long [Drift] may.
const (
	DefaultBudget = 25 * time.Second
	DriftBudget   = 4 * time.Second

	// cleanupShare of the budget is kept back for removing the files.
	cleanupShare = 0.06
)

// Options say where and for how long to probe. The zero value of all but Dir is usable.
type Options struct {
	// Dir is on the file system to probe. It must exist; a directory is made inside and removed.
	Dir string
	// Budget is the wall time for everything, clean-up included.
	Budget time.Duration
	// Progress, if set, is called before each step, from the goroutine that called Run.
	Progress func(step string, i, n int)
	// Seed chooses the random offsets.
	Seed int64
}

// Run measures the limits of this machine and of the file system that holds Options.Dir.
//
// It leaves no file behind, also when ctx ends; the limits measured until then come with the
// error. Errors: [*SpaceError], a [*os.PathError] from the disk, the error of ctx.
// Only one probe should run at a time: two would measure each other.
func Run(ctx context.Context, o Options) (results.Probe, error) {
	start, err := take(ctx, o, DefaultBudget, func(s *session) []step {
		return []step{
			{"memory", 1.2, s.measureMemory},
			{"syncs", 5.0, func(ctx context.Context, d time.Duration) error {
				return s.measureSyncs(ctx, d, syncStates, syncDepths)
			}},
			{"flushes", 1.6, s.measureFlushes},
			{"groups", 5.2, func(ctx context.Context, d time.Duration) error {
				return s.measureGroups(ctx, d, groupProducers, true)
			}},
			{"folios", 0.6, s.measureFolios},
			{"appends", 2.2, s.measureAppends},
			{"bandwidth", 5.2, s.measureBandwidth},
			{"loopback", 1.4, s.measureLoopback},
			{"timers", 0.6, s.measureTimers},
		}
	})
	return results.Probe{Schema: results.SchemaVersion, Start: start}, err
}

// Drift measures again, in a few seconds, the limits that decide: single flushes, group commit by
// 64 producers, write bandwidth. Put into [results.Probe.End] it tells how far the machine moved.
func Drift(ctx context.Context, o Options) (results.ProbeRun, error) {
	return take(ctx, o, DriftBudget, func(s *session) []step {
		return []step{
			{"syncs", 1.0, func(ctx context.Context, d time.Duration) error {
				return s.measureSyncs(ctx, d, []string{written}, []int{1})
			}},
			{"groups", 1.7, func(ctx context.Context, d time.Duration) error {
				return s.measureGroups(ctx, d, []int{64}, false)
			}},
			{"bandwidth", 0.8, func(ctx context.Context, d time.Duration) error {
				until := time.Now().Add(d)
				_, size, err := s.openLog(ctx)
				if err != nil {
					return err
				}
				return s.measureDirect(ctx, results.LimitWriteDirect, "log", size, until, file.write)
			}},
		}
	})
}

// take runs the steps of one probe inside a directory of its own.
func take(ctx context.Context, o Options, full time.Duration, plan func(*session) []step) (_ results.ProbeRun, err error) {
	began := time.Now()
	r := results.ProbeRun{Started: began, Dir: o.Dir}
	if o.Budget <= 0 {
		o.Budget = full
	}
	s := &session{
		scale:  min(1, float64(o.Budget)/float64(full)),
		rng:    rand.New(rand.NewPCG(uint64(o.Seed), 1)),
		device: deviceOf(o.Dir),
	}
	if err := s.checkDir(o.Dir); err != nil {
		return r, err
	}
	if s.work, err = makeWorkDir(o.Dir); err != nil {
		return r, err
	}
	defer func() {
		if rmErr := os.RemoveAll(s.work); rmErr != nil {
			err = errors.Join(err, rmErr)
		}
	}()
	s.block = alignedBuffer(blockBytes, uint64(o.Seed)+1)
	budget := time.Duration(float64(o.Budget)*(1-cleanupShare)) - time.Since(began)
	r.Skipped, err = runPlan(ctx, time.Now, budget, plan(s), o.Progress)
	r.Limits, r.Notes = s.limits, s.notes
	r.TookS = time.Since(began).Seconds()
	return r, err
}

// spaceNeeded is the most that the scratch files of s take at a time, in bytes.
func (s *session) spaceNeeded() int64 {
	return int64(len(syncStates)*syncDepths[len(syncDepths)-1])*s.size(syncFileBytes) +
		s.size(logFileBytes) + s.size(seqFileBytes) + s.size(appendBytes) + 2*s.size(folioFileBytes)
}

// checkDir finds out whether dir has the space, and whether it is a disk at all.
func (s *session) checkDir(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if err := checkSpace(dir, s.spaceNeeded(), int64(st.Bavail)*st.Bsize); err != nil {
		return err
	}
	if st.Type == tmpfsMagic || st.Type == ramfsMagic {
		s.note("not a disk: %s is memory, and every figure that should be a disk's is memory's", dir)
	}
	return nil
}

func checkSpace(dir string, need, have int64) error {
	if have < need {
		return &SpaceError{Dir: dir, Need: need, Have: have}
	}
	return nil
}
