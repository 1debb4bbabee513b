package failover

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"rmq/bench"
	"rmq/bench/driver/wire"
	"rmq/internal/vfs"
	"rmq/results"
)

const (
	// refuseAt is how full a disk may become, in percent: beyond 90 brokers refuse appends (diskSpaceWarningLevelRatio).
	refuseAt = 88
	// beside the log lie queues and indexes, a tenth of it with bodies of 1 KiB.
	besidePercent = 10
	// overshoot of a trial, before the cluster is made anew.
	overshootBytes = 1 << 30
	defaultSegment = 1 << 30
)

// fitDisk lowers the log at which a cluster is made anew to what the disk has room for, and says so; an error if that
// would be less than twice the log before the first trial. It looks at the disk that DataDir is to lie on.
func (o *Options) fitDisk() (note string, err error) {
	dir := o.DataDir
	for {
		u, err := vfs.OS.Usage(dir)
		if err == nil {
			note, err := o.fit(u, wire.Spec{Repl: o.Repl}.Nodes())
			if note != "" {
				o.say("%s", note)
			}
			return note, err
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", &bench.UsageError{Err: err}
		}
		dir = filepath.Dir(dir)
	}
}

// fit is fitDisk for what is known of a disk, and a number of nodes.
func (o *Options) fit(u vfs.Usage, nodes int) (note string, err error) {
	segment := o.SegmentBytes
	if segment == 0 {
		segment = defaultSegment
	}
	need := func(log int64) int64 {
		// The segment in use and the one that is prepared are there in full.
		return int64(nodes) * (log*(100+besidePercent)/100 + 2*segment + overshootBytes)
	}
	all := u.Total - u.Free + u.Avail // what an ordinary user can fill
	have := max(0, all*refuseAt/100-(u.Total-u.Free))
	if need(o.MaxLog) <= have {
		return "", nil
	}
	size := func(n int64) string { return results.FormatBytes(float64(n)) }
	fits := (have/int64(nodes) - 2*segment - overshootBytes) * 100 / (100 + besidePercent)
	if fits < 2*o.Log || fits <= 0 {
		return "", &bench.UsageError{Err: fmt.Errorf("the disk of %s has room for %s until it is %d %% full, where brokers are about to refuse messages; %d nodes with %s of log, segments of %s take %s: free some, or lower --log, --max-log and --segment, or name another --dir",
			o.DataDir, size(have), refuseAt, nodes, size(2*o.Log), size(segment), size(need(2*o.Log)))}
	}
	note = fmt.Sprintf("--max-log lowered from %s to %s: %d nodes would take %s of the disk, which has room for %s until it is %d %% full",
		size(o.MaxLog), size(fits), nodes, size(need(o.MaxLog)), size(have), refuseAt)
	o.MaxLog = fits
	return note, nil
}
