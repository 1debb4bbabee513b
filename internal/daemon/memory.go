package daemon

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// CgroupMemory is the memory that the control group of this process allows it, in bytes; ok is false
// where there is no limit. root is the file system of the host, [os.DirFS]("/").
func CgroupMemory(root fs.FS) (limit int64, ok bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		// 0::/path for version 2, N:memory:/path for version 1.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[0] != "0" && !strings.Contains(","+f[1]+",", ",memory,") {
			continue
		}
		base, name := "sys/fs/cgroup", "memory.max"
		if f[0] != "0" {
			base, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// A group above may allow less. In a container the path may be one of the host, of which only
		// the root is to be seen here.
		for p := path.Join("/", f[2]); ; p = path.Dir(p) {
			b, err := fs.ReadFile(root, path.Join(base, p, name))
			n, numErr := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			if err == nil && numErr == nil && n > 0 && n < 1<<60 && (!ok || n < limit) {
				limit, ok = n, true
			}
			if p == "/" {
				break
			}
		}
	}
	return limit, ok
}
