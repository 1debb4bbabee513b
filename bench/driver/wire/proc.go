package wire

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"rmq/bench"
)

// ticksPerSecond is USER_HZ, the same on every Linux that Go runs on.
const ticksPerSecond = 100

// countProcess adds what /proc says of a process.
func countProcess(c *bench.Counters, pid int) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	if b, err := os.ReadFile(dir + "stat"); err == nil {
		// The name, in parentheses, may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 12 {
			user, _ := strconv.ParseInt(f[11], 10, 64) // 0 if unreadable
			system, _ := strconv.ParseInt(f[12], 10, 64)
			addTo(&c.CPUNanos, (user+system)*(1e9/ticksPerSecond))
		}
	}
	if b, err := os.ReadFile(dir + "status"); err == nil {
		addField(&c.RSSBytes, b, "VmRSS:", 1024)
		addField(&c.RSSAnonBytes, b, "RssAnon:", 1024)
	}
	if b, err := os.ReadFile(dir + "io"); err == nil {
		addField(&c.DiskBytes, b, "write_bytes:", 1)
		addField(&c.Syscalls, b, "syscr:", 1)
		addField(&c.Syscalls, b, "syscw:", 1)
	}
}

func addTo(p **int64, n int64) {
	if *p == nil {
		*p = new(int64)
	}
	**p += n
}

// addField adds the number behind a name at the start of a line.
func addField(p **int64, text []byte, name string, unit int64) {
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) == 0 {
			return
		}
		if n, err := strconv.ParseInt(string(f[0]), 10, 64); err == nil {
			addTo(p, n*unit)
		}
		return
	}
}
