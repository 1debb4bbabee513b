package bench

import (
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is the block device below a directory, as /proc/diskstats names it.
type disk struct{ major, minor string }

func diskOf(dir string) disk {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return disk{}
	}
	return disk{strconv.Itoa(int(unix.Major(st.Dev))), strconv.Itoa(int(unix.Minor(st.Dev)))}
}

// diskCounts are counters since boot; nil where nobody counts.
type diskCounts struct{ readBytes, writeBytes, writes, flushes *int64 }

func (d disk) read() diskCounts {
	b, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return diskCounts{}
	}
	return parseDiskstats(string(b), d)
}

// parseDiskstats picks one device's line out of /proc/diskstats (Documentation/admin-guide/iostats).
func parseDiskstats(text string, d disk) diskCounts {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 14 || f[0] != d.major || f[1] != d.minor {
			continue
		}
		num := func(i int, unit int64) *int64 {
			if i >= len(f) {
				return nil
			}
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return nil
			}
			n *= unit
			return &n
		}
		return diskCounts{readBytes: num(5, 512), writes: num(7, 1), writeBytes: num(9, 512), flushes: num(18, 1)}
	}
	return diskCounts{}
}

// hostCPU is what /proc/stat says of all cores together, in seconds; nil where it says nothing.
func hostCPU() (busy, steal *float64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, nil
	}
	return parseProcStat(string(b))
}

func parseProcStat(text string) (busy, steal *float64) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return nil, nil
	}
	var v [8]float64
	for i := range v {
		n, err := strconv.ParseFloat(f[i+1], 64)
		if err != nil {
			return nil, nil
		}
		v[i] = n / 100 // USER_HZ
	}
	sum := v[0] + v[1] + v[2] + v[5] + v[6]
	return &sum, &v[7]
}

// fieldOf reads "name: 123 kB" or "name 123" lines of /proc files; nil if there is none.
func fieldOf(text, name string) *int64 {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.TrimSuffix(f[0], ":") != name {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil
		}
		if len(f) > 2 && f[2] == "kB" {
			n <<= 10
		}
		return &n
	}
	return nil
}

func procField(path, name string) *int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return fieldOf(string(b), name)
}

// dirtyBytes is how much the page cache holds that is not on any disk.
func dirtyBytes() *int64 { return procField("/proc/meminfo", "Dirty") }

// ownWrites is how many bytes this process made dirty or wrote, less what never had to be written.
func ownWrites() *int64 {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return nil
	}
	w, c := fieldOf(string(b), "write_bytes"), fieldOf(string(b), "cancelled_write_bytes")
	if w == nil || c == nil {
		return nil
	}
	n := *w - *c
	return &n
}

func swapPages() *int64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return nil
	}
	in, out := fieldOf(string(b), "pswpin"), fieldOf(string(b), "pswpout")
	if in == nil || out == nil {
		return nil
	}
	n := *in + *out
	return &n
}

// cpuMHz is the frequency of the first core, nil where the host does not tell (most virtual ones).
func cpuMHz() *float64 {
	b, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
	if err != nil {
		return nil
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	if err != nil || v <= 0 {
		return nil
	}
	v /= 1000
	return &v
}

func rssBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if f := strings.Fields(string(b)); len(f) > 1 {
		n, _ := strconv.ParseInt(f[1], 10, 64) // 0 if unreadable
		return n * int64(os.Getpagesize())
	}
	return 0
}

// freeSpace is what an ordinary user may still write below dir, and its share of the file system.
func freeSpace(dir string) (bytes int64, frac *float64) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 {
		return math.MaxInt64, nil
	}
	f := float64(st.Bavail) / float64(st.Blocks)
	return int64(st.Bavail) * st.Bsize, &f
}

// snapshot is everything that is counted, at one moment.
type snapshot struct {
	at   int64 // ns of the part's clock
	wall time.Time

	procCPU    int64 // ns
	hostCPU    *float64
	steal      *float64
	disk       diskCounts
	ownWrites  *int64
	dirty      *int64
	swap       *int64
	mhz        *float64
	freeFrac   *float64
	rss        int64
	ctx        int64
	goroutines int
	allocB     uint64
	allocs     uint64
	gcs        uint64
	pauses     *metrics.Float64Histogram
	target     Counters

	due, sent, acked int64
}

var metricNames = []metrics.Sample{
	{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"},
	{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/sched/pauses/total/gc:seconds"},
}

// takeSnapshot fills everything but the workers' counters.
func takeSnapshot(c *clock, d disk, dir string, target func() Counters) snapshot {
	s := snapshot{at: c.now(), wall: time.Now(), procCPU: processCPU(), disk: d.read(), ownWrites: ownWrites(), dirty: dirtyBytes(),
		swap: swapPages(), mhz: cpuMHz(), rss: rssBytes(), goroutines: runtime.NumGoroutine()}
	s.hostCPU, s.steal = hostCPU()
	_, s.freeFrac = freeSpace(dir)
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) == nil {
		s.ctx = ru.Nvcsw + ru.Nivcsw
	}
	ms := make([]metrics.Sample, len(metricNames))
	copy(ms, metricNames)
	metrics.Read(ms)
	if ms[0].Value.Kind() == metrics.KindUint64 {
		s.allocB, s.allocs, s.gcs = ms[0].Value.Uint64(), ms[1].Value.Uint64(), ms[2].Value.Uint64()
	}
	if ms[3].Value.Kind() == metrics.KindFloat64Histogram {
		s.pauses = ms[3].Value.Float64Histogram()
	}
	s.target = target()
	return s
}

// pausesBetween gives median and maximum of the GC pauses between two snapshots, in µs.
func pausesBetween(a, b *metrics.Float64Histogram) (p50, most float64) {
	if a == nil || b == nil || len(a.Counts) != len(b.Counts) {
		return 0, 0
	}
	var n, seen uint64
	for i := range b.Counts {
		n += b.Counts[i] - a.Counts[i]
	}
	for i := range b.Counts {
		d := b.Counts[i] - a.Counts[i]
		if d == 0 {
			continue
		}
		top := b.Buckets[i+1]
		if math.IsInf(top, 0) {
			top = b.Buckets[i]
		}
		seen += d
		if p50 == 0 && 2*seen >= n {
			p50 = top * 1e6
		}
		most = top * 1e6
	}
	return p50, most
}
