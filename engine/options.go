package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"rmq/internal/vfs"
	"rmq/internal/watermark"
	"rmq/message"
)

// FlushMode says when a record may be acked.
type FlushMode int

// The flush modes, by the names of the Java property flushDiskType.
const (
	AsyncFlush FlushMode = iota // in the page cache
	SyncFlush                   // on the disk
)

func (m FlushMode) String() string {
	if m == SyncFlush {
		return "sync"
	}
	return "async"
}

// ParseFlushMode accepts async, sync and the Java names.
func ParseFlushMode(s string) (FlushMode, error) {
	switch strings.ToLower(s) {
	case "async", "async_flush":
		return AsyncFlush, nil
	case "sync", "sync_flush":
		return SyncFlush, nil
	}
	return 0, fmt.Errorf("unknown flush mode %q: use async or sync", s)
}

// WriteMode says how bytes get into a segment.
type WriteMode int

// The write modes.
const (
	WritePwrite     WriteMode = iota // positioned writes of whole append buffers
	WriteMmap                        // stores into a shared mapping of an allocated file, the classic way
	WriteMmapWarmed                  // the same into a file written with zeros page by page, its best state
)

func (m WriteMode) String() string {
	return [...]string{"pwrite", "mmap", "mmap-warmed"}[m]
}

// ParseWriteMode accepts pwrite, mmap and mmap-warmed.
func ParseWriteMode(s string) (WriteMode, error) {
	for _, m := range []WriteMode{WritePwrite, WriteMmap, WriteMmapWarmed} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("unknown write mode %q: use pwrite, mmap or mmap-warmed", s)
}

// Options configure a store. The zero value is usable but for Dir. Names in the tags are the Java
// property names. Sizes are bytes.
type Options struct {
	FS vfs.FS // nil: the real one

	Dir          string `prop:"storePathRootDir"`
	CommitLogDir string `prop:"storePathCommitLog"` // "": Dir/commitlog
	QueueDir     string // "": Dir/consumequeue
	IndexDir     string // "": Dir/index
	Cluster      string // "": any; otherwise a store of another cluster is refused

	SegmentBytes    int64 `prop:"mappedFileSizeCommitLog"`    // 0: 1 GiB
	QueueFileBytes  int64 `prop:"mappedFileSizeConsumeQueue"` // 0: 6,000,000; rounded up to a multiple of 20
	MaxHashSlots    int32 `prop:"maxHashSlotNum"`             // 0: 5,000,000
	MaxIndexEntries int32 `prop:"maxIndexNum"`                // 0: 20,000,000
	IndexDisabled   bool  // messageIndexEnable=false
	MaxMessageBytes int   `prop:"maxMessageSize"` // 0: 4 MiB, of body; a record may be 64 KiB larger

	Flush           FlushMode     `prop:"flushDiskType"`
	FlushInterval   time.Duration `prop:"flushIntervalCommitLog"`         // 0: 500 ms; async flush only
	FlushLeastPages int           `prop:"flushCommitLogLeastPages"`       // 0: 4; pages of 4 KiB that make an interval flush worth it
	FlushThorough   time.Duration `prop:"flushCommitLogThoroughInterval"` // 0: 10 s; flush whatever there is
	MessageDelay    string        `prop:"messageDelayLevel"`              // "": 1s 5s 10s 30s 1m 2m … 2h
	Write           WriteMode
	MaxUnflushed    int64 // W under async flush: appends wait at this many bytes not yet on disk; 0: 1 GiB
	MaxPending      int64 // bytes with an offset but not yet written; 0: 64 MiB
	TailCache       int64 // the newest log bytes kept in memory for readers; 0: 16 MiB
	// DispatchDisabled leaves queues and index as Open found or made them: nothing that is appended can be
	// read by queue or key until the next Open, which dispatches all of it first, as ever. It shows what
	// the log alone can do.
	DispatchDisabled bool
	PrepareDisabled  bool          // sync flush: use files whose blocks are only reserved
	CheckpointBytes  int64         // log to replay at most; 0: 1 GiB
	CheckpointPeriod time.Duration `prop:"flushConsumeQueueThoroughInterval"` // 0: 60 s

	Retention RetentionOptions

	// Stamp writes queue offset, position and store time into an encoded record, inside the
	// append lock. nil: [message.StampRecord].
	Stamp func(rec []byte, queueOffset, pos, storeMillis int64)
	// Framing finds the records in the log. nil: [Plain].
	Framing Framing
	// Format names the framing in the manifest: a store of another format is refused. "": plain.
	Format string
	// SyncAside syncs on a goroutine of its own under sync flush: the writer goes on, and an append that
	// only has to be written does not wait for the disk. Acks and readers do, as ever.
	SyncAside bool
	// Hidden opens the store with everything behind the confirmed position that it knew hidden, and not
	// dispatched, until SetConfirm shows it: the log of a node that has to hear first what others hold.
	// Without it all that is found is shown.
	Hidden bool
	// AckMarks are further positions that a record must lie below before it is acked, beside
	// written or flushed. Their owners advance them.
	AckMarks []*watermark.Mark
	// Verdict is asked when records up to end have passed all marks; its error becomes theirs. It runs
	// once a group of records, where Done does, and must not block. nil: no error.
	Verdict func(end int64) error

	Logger *slog.Logger     // nil: silent
	Events EventListener    // hears of flushes, rolls, stalls
	Clock  func() time.Time // nil: time.Now

	directEntries int // of queueTableOptions; 0: its default
}

const (
	defaultSegmentBytes   = 1 << 30
	defaultQueueFileBytes = 6_000_000
	defaultDelayLevels    = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
	minSegmentBytes       = 4096
	maxSegmentBytes       = 1 << 31 // positions inside a file are 32 bit in Java
	recordSlack           = 64 << 10
)

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	setDefault(&o.CommitLogDir, path.Join(o.Dir, "commitlog"))
	setDefault(&o.QueueDir, path.Join(o.Dir, "consumequeue"))
	setDefault(&o.IndexDir, path.Join(o.Dir, "index"))
	setDefault(&o.SegmentBytes, defaultSegmentBytes)
	setDefault(&o.QueueFileBytes, defaultQueueFileBytes)
	if r := o.QueueFileBytes % 20; r > 0 {
		o.QueueFileBytes += 20 - r
	}
	setDefault(&o.MaxHashSlots, 5_000_000)
	setDefault(&o.MaxIndexEntries, 20_000_000)
	setDefault(&o.MaxMessageBytes, 4<<20)
	setDefault(&o.FlushInterval, 500*time.Millisecond)
	setDefault(&o.FlushLeastPages, 4)
	setDefault(&o.FlushThorough, 10*time.Second)
	setDefault(&o.MessageDelay, defaultDelayLevels)
	setDefault(&o.MaxUnflushed, 1<<30)
	setDefault(&o.MaxPending, 64<<20)
	setDefault(&o.TailCache, 16<<20)
	setDefault(&o.CheckpointBytes, 1<<30)
	setDefault(&o.CheckpointPeriod, 60*time.Second)
	o.Retention.ensureDefaults()
	if o.Stamp == nil {
		o.Stamp = func(rec []byte, queueOffset, pos, storeMillis int64) {
			message.StampRecord(rec, queueOffset, pos, storeMillis)
		}
	}
	if o.Framing == nil {
		o.Framing = Plain{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
}

// Validate returns every complaint at once. Call it after EnsureDefaults.
func (o *Options) Validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Dir == "" {
		complain("storePathRootDir is empty: name a directory")
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%4096 != 0 {
		complain("mappedFileSizeCommitLog is %d: use a multiple of 4096 from %d to %d", o.SegmentBytes, minSegmentBytes, int64(maxSegmentBytes))
	}
	if o.QueueFileBytes < 20 || o.QueueFileBytes > maxSegmentBytes {
		complain("mappedFileSizeConsumeQueue is %d: use 20 to %d", o.QueueFileBytes, int64(maxSegmentBytes))
	}
	if o.MaxHashSlots < 1 || o.MaxIndexEntries < 2 {
		complain("maxHashSlotNum is %d and maxIndexNum %d: use at least 1 and 2", o.MaxHashSlots, o.MaxIndexEntries)
	}
	if o.MaxMessageBytes < 1 || o.MaxMessageBytes > 1<<30 {
		complain("maxMessageSize is %d: use 1 to %d", o.MaxMessageBytes, 1<<30)
	}
	if o.MaxUnflushed < o.MaxPending {
		complain("the unflushed ceiling of %d is below the %d bytes that may be pending: raise it", o.MaxUnflushed, o.MaxPending)
	}
	if o.FlushInterval < 0 || o.FlushThorough < 0 || o.CheckpointPeriod < 0 {
		complain("intervals must not be negative")
	}
	if _, err := parseDelayLevels(o.MessageDelay); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, o.Retention.validate())
	return errors.Join(errs...)
}

// maxRecordBytes is the largest record, or batch of records, that can be appended.
func (o *Options) maxRecordBytes() int64 {
	return min(int64(o.MaxMessageBytes)+recordSlack, o.SegmentBytes-8)
}

// parseDelayLevels reads "1s 5s … 2h" into milliseconds; level n is entry n-1.
func parseDelayLevels(s string) ([]int64, error) {
	units := map[byte]int64{'s': 1000, 'm': 60_000, 'h': 3_600_000, 'd': 86_400_000}
	var levels []int64
	for _, f := range strings.Fields(s) {
		var n int64
		unit, known := units[f[len(f)-1]]
		if _, err := fmt.Sscanf(f[:len(f)-1], "%d", &n); err != nil || !known || n <= 0 {
			return nil, fmt.Errorf("messageDelayLevel has %q: use numbers with s, m, h or d", f)
		}
		levels = append(levels, n*unit)
	}
	if len(levels) == 0 {
		return nil, errors.New("messageDelayLevel is empty: name at least one level")
	}
	return levels, nil
}
