package wire

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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

// Listener is the process on this machine that listens on a loopback address, 0 if it cannot be told.
func Listener(addr string) int {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().IsLoopback() {
		return 0
	}
	inode := listenerInode(a.Port())
	if inode == "" {
		return 0
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2]) // the pattern has made sure
			return pid
		}
	}
	return 0
}

// listenerInode finds the socket that listens on a port, as /proc/net/tcp names it.
func listenerInode(port uint16) string {
	const listening = "0A"
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				return f[9]
			}
		}
	}
	return ""
}
