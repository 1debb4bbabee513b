package bench

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"rmq/results"
)

// Levels of factors that are words.
var (
	Flushes  = []string{"async", "sync"}
	Writes   = []string{"pwrite", "mmap", "mmap-warmed"}
	Arrivals = []string{"uniform", "poisson"}
	Headers  = []string{"json", "binary"}
	Repls    = []string{"none", "async", "sync", "raft"}
	Paths    = []string{"whole", PathLog}
)

// PathLog as Cell.Extra["path"] is the log alone: batches that were encoded beforehand, and no queues or index.
const PathLog = "log"

// Defaults and limits of a workload.
const (
	DefaultQueues     = 8
	MaxTopics         = 100_000
	MaxQueues         = 1024
	MaxConsumers      = 1024
	MaxSizeBytes      = 4 << 20
	MaxOutstanding    = 1 << 16
	DefaultOpenWindow = 4096 // messages in flight of an open loop, all producers together

	recordOverhead = 91 + 2*64 // fixed part, topic, properties: for estimates
	maxOpBytes     = 256 << 20 // of messages in flight, open loop: the window shrinks to it
	maxClosedBytes = 1 << 30   // of messages in flight, closed loop: more is refused
	minRounds      = 16        // of everything in flight, to be measured at all
)

// Workload is one cell made concrete, with everything that is equal for all cells of a run.
type Workload struct {
	Cell results.Cell

	Duration time.Duration
	Warmup   time.Duration
	Settle   time.Duration // how long the disk must be quiet before load begins
	Grace    time.Duration // after measuring, for what is due and not acknowledged
	MaxBytes int64         // log bytes after which a part ends early; 0: no bound

	Seed    int64
	Workers int  // goroutines that make load; 0: half the cores
	Tags    bool // give each message a tag
	Keys    bool // give each message a key beside the unique one

	OpenWindow   int   // messages in flight of an open loop; 0: DefaultOpenWindow
	SegmentBytes int64 // 0: the engine's default
}

// Validate returns every complaint about the cell at once, each naming the fix.
func (w *Workload) Validate() error {
	c := w.Cell
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(flag, v string, levels []string) {
		for _, l := range levels {
			if v == l {
				return
			}
		}
		complain("--%s=%s is unknown: use %s", flag, v, strings.Join(levels, " or "))
	}
	between := func(flag string, v, low, high int) {
		if v < low || v > high {
			complain("--%s=%d is out of range: use %d to %d", flag, v, low, high)
		}
	}
	oneOf("flush", c.Flush, Flushes)
	oneOf("write", c.Write, Writes)
	oneOf("arrival", c.Arrival, Arrivals)
	oneOf("repl", c.Repl, Repls)
	if c.Repl != "none" && !c.Stores() {
		complain("--repl=%s with --driver=%s: it stores nothing that could be copied, use wire", c.Repl, c.Driver)
	}
	between("consumers", c.Consumers, 0, MaxConsumers)
	if c.Driver != "wire" && c.Driver != "null-server" {
		for _, f := range []string{"batch", "header", "target"} {
			if c.Extra[f] != "" {
				complain("--%s=%s is of the wire: use it with --driver=wire", f, c.Extra[f])
			}
		}
		if c.Consumers > 0 {
			complain("--consumers=%d is of the wire: use it with --driver=wire", c.Consumers)
		}
	}
	if path := c.Extra["path"]; path != "" {
		oneOf("path", path, Paths)
		if c.Driver != "embedded" {
			complain("--path=%s with --driver=%s: only the engine in this process can leave queues and index out, use --driver=embedded", path, c.Driver)
		}
		if c.Topics != 1 {
			complain("--path=%s with --topics=%d: a ready batch is of one queue, use --topics=1", path, c.Topics)
		}
	}
	if b := c.Extra["batch"]; b != "" {
		n, _ := strconv.Atoi(b) // it was made from a number
		between("batch", n, 1, maxVector)
	}
	if h := c.Extra["header"]; h != "" {
		oneOf("header", h, Headers)
	}
	between("topics", c.Topics, 1, MaxTopics)
	between("queues", c.Queues, 1, MaxQueues)
	between("producers", c.Producers, 1, MaxOutstanding)
	between("window", c.Window, 1, MaxOutstanding)
	if c.Producers > 0 && c.Window > 0 && c.Producers <= MaxOutstanding && c.Window <= MaxOutstanding && c.Producers*c.Window > MaxOutstanding {
		complain("--producers=%d times --window=%d is above %d messages in flight: lower one of them", c.Producers, c.Window, MaxOutstanding)
	}
	if c.SizeBytes < HeaderBytes || c.SizeBytes > MaxSizeBytes {
		complain("--size=%s is out of range: use %dB (run id, sequence, due time, checksum) to %s",
			results.FormatSize(int64(c.SizeBytes)), HeaderBytes, results.FormatSize(MaxSizeBytes))
	}
	if c.Entropy < 0 || c.Entropy > 1 || math.IsNaN(c.Entropy) {
		complain("--entropy=%v is out of range: use 0 to 1", c.Entropy)
	}
	if _, err := newChooser(c.Keys, c.Topics, 1, 0); err != nil && c.Topics >= 1 {
		errs = append(errs, err)
	}
	if _, err := ParseRate(c.Rate); err != nil {
		errs = append(errs, err)
	}
	if w.Duration <= 0 {
		complain("--duration=%v measures nothing: use 1s or more", w.Duration)
	}
	inFlight := int64(c.Producers) * int64(c.Window)
	if held := inFlight * w.recordBytes(); errs == nil && held > maxClosedBytes {
		complain("--producers=%d times --window=%d holds %s of --size=%s in memory, above %s: lower one of them",
			c.Producers, c.Window, results.FormatBytes(float64(held)), results.FormatSize(int64(c.SizeBytes)), results.FormatSize(maxClosedBytes))
	}
	if least := minRounds * inFlight * w.recordBytes(); errs == nil && c.Stores() && w.MaxBytes > 0 && w.MaxBytes < least {
		complain("--max-bytes=%s ends before anything is measured: use %dMiB or more for %d messages of %s in flight",
			results.FormatSize(w.MaxBytes), (least+1<<20-1)>>20, inFlight, results.FormatSize(int64(c.SizeBytes)))
	}
	if w.Warmup < 0 {
		complain("--warmup=%v is negative: use 0s or more", w.Warmup)
	}
	return errors.Join(errs...)
}

// Rate says how fast messages come.
type Rate struct {
	Closed   bool    // measure the closed-loop maximum
	Open     bool    // measure an open loop
	Fraction float64 // of the maximum, for the open loop
	PerS     float64 // or a fixed rate
}

// ParseRate reads "" (the maximum, then half of it), "max", "50%" or a number of messages a second.
func ParseRate(s string) (Rate, error) {
	bad := fmt.Errorf("--rate=%s is no rate: use max, a share of it such as 50%%, or messages per second such as 60000", s)
	switch {
	case s == "":
		return Rate{Closed: true, Open: true, Fraction: 0.5}, nil
	case s == "max":
		return Rate{Closed: true}, nil
	case strings.HasSuffix(s, "%"):
		p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || !(p > 0) || p > 1000 {
			return Rate{}, bad
		}
		return Rate{Closed: true, Open: true, Fraction: p / 100}, nil
	}
	mult := 1.0
	num := s
	switch {
	case strings.HasSuffix(s, "k"):
		mult, num = 1e3, strings.TrimSuffix(s, "k")
	case strings.HasSuffix(s, "M"):
		mult, num = 1e6, strings.TrimSuffix(s, "M")
	}
	r, err := strconv.ParseFloat(num, 64)
	if r *= mult; err != nil || !(r >= 1) || r > 100e6 {
		return Rate{}, bad
	}
	return Rate{Open: true, PerS: r}, nil
}

// recordBytes is about what one message takes in the log.
func (w *Workload) recordBytes() int64 { return int64(w.Cell.SizeBytes) + recordOverhead }

// outstanding is the most messages in flight of a part.
func (w *Workload) outstanding(part results.Part) int {
	if part == results.PartClosed {
		return w.Cell.Producers * w.Cell.Window
	}
	n := w.OpenWindow
	if n <= 0 {
		n = DefaultOpenWindow
	}
	n = max(n, w.Cell.Producers*w.Cell.Window)
	return max(1, min(n, int(maxOpBytes/w.recordBytes())))
}

// NeedBytes is the disk space that one part may take, segments in preparation included.
func (w *Workload) NeedBytes() int64 {
	seg := w.SegmentBytes
	if seg == 0 {
		seg = 1 << 30
	}
	data := w.MaxBytes
	if r, err := ParseRate(w.Cell.Rate); err == nil && !r.Closed {
		est := int64(r.PerS * (w.Duration + w.Warmup).Seconds() * float64(w.recordBytes()))
		if data == 0 || est < data {
			data = est
		}
	} else if data == 0 {
		data = int64((w.Duration + w.Warmup).Seconds() * 2e9) // more than a log has been seen to take
	}
	queues := int64(w.Cell.Topics) * int64(w.Cell.Queues) * 4096
	return int64(w.Nodes()) * (data + data/8 + 2*seg + queues)
}

// Nodes is how many of our nodes hold the log.
func (w *Workload) Nodes() int {
	switch {
	case w.Cell.Extra["target"] != "" || w.Cell.Repl == "none":
		return 1
	case w.Cell.Repl == "raft":
		return 3
	}
	return 2
}
