package probe

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// device names the block device below a directory by its numbers. The zero value has no device.
type device struct {
	major, minor uint32
	known        bool
}

// deviceCounts are counters of one device since boot. flushes is -1 where the kernel keeps none.
type deviceCounts struct {
	writtenBytes int64
	flushes      int64
}

// deviceOf finds the device of dir. File systems without one of their own (tmpfs, overlay,
// network, multi-device ones) give a device that [device.read] does not find.
func deviceOf(dir string) device {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return device{}
	}
	return device{unix.Major(st.Dev), unix.Minor(st.Dev), true}
}

// read takes the counters of d, false where there are none.
func (d device) read() (deviceCounts, bool) {
	if !d.known {
		return deviceCounts{}, false
	}
	b, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return deviceCounts{}, false
	}
	return parseDiskstats(string(b), d)
}

// parseDiskstats picks the line of d out of /proc/diskstats (Documentation/admin-guide/iostats).
func parseDiskstats(text string, d device) (deviceCounts, bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 14 || f[0] != strconv.Itoa(int(d.major)) || f[1] != strconv.Itoa(int(d.minor)) {
			continue
		}
		sectors, err := strconv.ParseInt(f[9], 10, 64)
		if err != nil {
			return deviceCounts{}, false
		}
		c := deviceCounts{writtenBytes: sectors * 512, flushes: -1}
		if len(f) >= 20 {
			if n, err := strconv.ParseInt(f[18], 10, 64); err == nil {
				c.flushes = n
			}
		}
		return c, true
	}
	return deviceCounts{}, false
}
