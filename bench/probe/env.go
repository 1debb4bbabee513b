package probe

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rmq/results"
)

// CollectEnv describes the machine, the file system that holds dir, the toolchain and who else
// is running, for env.json. What the host does not tell is listed in Unknown, never guessed. It
// watches other processes for a quarter of a second. Target is left to the caller.
func CollectEnv(ctx context.Context, dir string) results.Env {
	h := hostFiles{root: "/"}
	e := results.Env{
		Schema:    results.SchemaVersion,
		Collected: time.Now(),
		Host:      h.host(),
		Disk:      h.disk(dir),
		Toolchain: toolchain(),
		Foreign:   h.foreign(ctx, 250*time.Millisecond),
	}
	e.Unknown = unknown(&e)
	return e
}

// unknown names the fields that a report wants and that stayed empty.
func unknown(e *results.Env) []string {
	var names []string
	for _, f := range []struct {
		name  string
		value string
	}{
		{"cpu model", e.Host.CPUModel},
		{"governor", e.Host.Governor},
		{"microcode", e.Host.Microcode},
		{"virtualisation", e.Host.Virtualisation},
		{"clock source", e.Host.ClockSource},
		{"ntp", e.Host.NTP},
		{"transparent huge pages", e.Host.THP},
		{"mount options", e.Disk.MountOptions},
		{"device", e.Disk.Device},
		{"device model", e.Disk.Model},
		{"write cache", e.Disk.WriteCache},
		{"i/o scheduler", e.Disk.Scheduler},
		{"commit", e.Toolchain.Commit},
	} {
		if f.value == "" {
			names = append(names, f.name)
		}
	}
	return names
}

// hostFiles reads the pseudo files below root; tests give it a root of their own.
type hostFiles struct{ root string }

func (h hostFiles) path(name string) string { return filepath.Join(h.root, name) }

// text is the trimmed content of a file, empty where it cannot be read.
func (h hostFiles) text(name string) string {
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h hostFiles) number(name string) int64 {
	n, err := strconv.ParseInt(h.text(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// chosen picks the bracketed word of files like "always [madvise] never".
func (h hostFiles) chosen(name string) string {
	text := h.text(name)
	if _, rest, ok := strings.Cut(text, "["); ok {
		word, _, _ := strings.Cut(rest, "]")
		return word
	}
	return text
}

// fields reads "name: value" lines; the first line of a name counts.
func (h hostFiles) fields(name string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(h.text(name)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			if k = strings.TrimSpace(k); m[k] == "" {
				m[k] = strings.TrimSpace(v)
			}
		}
	}
	return m
}

var sysctls = []string{
	"vm.dirty_background_bytes", "vm.dirty_background_ratio", "vm.dirty_bytes", "vm.dirty_ratio",
	"vm.dirty_expire_centisecs", "vm.dirty_writeback_centisecs", "vm.swappiness", "vm.overcommit_memory",
	"vm.max_map_count", "net.core.somaxconn",
}

func (h hostFiles) host() results.Host {
	cpu, mem := h.fields("proc/cpuinfo"), h.fields("proc/meminfo")
	r := results.Host{
		OS:          runtime.GOOS,
		Kernel:      h.text("proc/sys/kernel/osrelease"),
		Arch:        runtime.GOARCH,
		CPUModel:    cpu["model name"],
		CPUs:        runtime.NumCPU(),
		Microcode:   cpu["microcode"],
		Governor:    h.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		RAMBytes:    kilobytes(mem["MemTotal"]),
		SwapBytes:   kilobytes(mem["SwapTotal"]),
		ClockSource: h.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
		THP:         h.chosen("sys/kernel/mm/transparent_hugepage/enabled"),
		NTP:         ntpState(),
		Sysctl:      make(map[string]string),
	}
	r.Name, _ = os.Hostname()
	r.FreqMHz, _ = strconv.ParseFloat(cpu["cpu MHz"], 64)
	if nodes, err := filepath.Glob(h.path("sys/devices/system/node/node[0-9]*")); err == nil {
		r.NUMANodes = len(nodes)
	}
	r.Virtualisation = h.virtualisation(cpu["flags"])
	r.CPUQuota, r.MemLimitBytes = h.cgroupLimits(r.RAMBytes)
	for _, name := range sysctls {
		if v := h.text("proc/sys/" + strings.ReplaceAll(name, ".", "/")); v != "" {
			r.Sysctl[name] = v
		}
	}
	return r
}

func kilobytes(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64)
	return n << 10
}

func ntpState() string {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return ""
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return "not synchronised"
	}
	return "synchronised"
}

// virtualisation names the hypervisor as far as the firmware tables or the CPU tell.
func (h hostFiles) virtualisation(cpuFlags string) string {
	var words []string
	for _, f := range []string{"sys/hypervisor/type", "sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name"} {
		if w := h.text(f); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	guest := slices.Contains(strings.Fields(cpuFlags), "hypervisor")
	switch {
	case len(words) > 0 && guest:
		return "virtual machine: " + strings.Join(words, " ")
	case guest:
		return "virtual machine"
	case len(words) > 0 && cpuFlags != "":
		return "none: " + strings.Join(words, " ")
	}
	return ""
}

// cgroupLimits finds the tightest CPU quota, in cores, and memory limit, in bytes, on the way
// from this process's control group to the root, in version 2 and in version 1 hierarchies. Zero
// means none.
func (h hostFiles) cgroupLimits(ram int64) (cores float64, memory int64) {
	tighter := func(c float64, m int64) {
		if c > 0 && (cores == 0 || c < cores) {
			cores = c
		}
		if m > 0 && m < ram && (memory == 0 || m < memory) {
			memory = m
		}
	}
	for line := range strings.Lines(h.text("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for group := filepath.Clean("/" + parts[2]); ; group = filepath.Dir(group) {
			controllers := strings.Split(parts[1], ",")
			switch {
			case parts[1] == "":
				for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
					tighter(coresOf(h.text(mount+group+"/cpu.max")), h.number(mount+group+"/memory.max"))
				}
			case slices.Contains(controllers, "cpu"):
				dir := "sys/fs/cgroup/" + parts[1] + group
				tighter(coresOf(h.text(dir+"/cpu.cfs_quota_us")+" "+h.text(dir+"/cpu.cfs_period_us")), 0)
			case slices.Contains(controllers, "memory"):
				tighter(0, h.number("sys/fs/cgroup/"+parts[1]+group+"/memory.limit_in_bytes"))
			}
			if group == "/" {
				break
			}
		}
	}
	return cores, memory
}

// coresOf reads "quota period" in microseconds; "max" and -1 mean no quota.
func coresOf(s string) float64 {
	f := strings.Fields(s)
	if len(f) != 2 {
		return 0
	}
	quota, err1 := strconv.ParseFloat(f[0], 64)
	period, err2 := strconv.ParseFloat(f[1], 64)
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 {
		return 0
	}
	return quota / period
}

func (h hostFiles) disk(dir string) results.Disk {
	d := results.Disk{Dir: dir}
	if abs, err := filepath.Abs(dir); err == nil {
		d.Dir = abs
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil {
		d.TotalBytes, d.FreeBytes = int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
		d.FSFeatures = []string{"block=" + strconv.FormatInt(fs.Bsize, 10)}
	}
	real := d.Dir
	if r, err := filepath.EvalSymlinks(d.Dir); err == nil {
		real = r
	}
	m := mountOf(h.text("proc/self/mountinfo"), real)
	d.FSType, d.MountPoint, d.MountOptions = m.fsType, m.point, m.options
	if dev := deviceOf(dir); dev.known {
		h.blockDevice(&d, strconv.Itoa(int(dev.major))+":"+strconv.Itoa(int(dev.minor)))
	}
	return d
}

// blockDevice fills in what sysfs knows of the device with these numbers, or of the whole disk
// when they name a partition.
func (h hostFiles) blockDevice(d *results.Disk, numbers string) {
	dir, err := filepath.EvalSymlinks(h.path("sys/dev/block/" + numbers))
	if err != nil {
		return
	}
	d.Device = filepath.Base(dir)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	at := hostFiles{root: dir}
	d.Model = at.text("device/model")
	if d.Model == "" {
		if driver, err := filepath.EvalSymlinks(at.path("device/driver")); err == nil {
			d.Model = filepath.Base(driver)
		}
	}
	d.WriteCache = at.text("queue/write_cache")
	d.Scheduler = at.chosen("queue/scheduler")
	d.QueueDepth = int(at.number("queue/nr_requests"))
	d.Rotational = at.text("queue/rotational") == "1"
}

type mount struct{ point, fsType, options string }

// mountOf finds the mount that holds path in the text of /proc/self/mountinfo: the last of those
// with the longest mount point, because a later mount covers an earlier one.
func mountOf(mountinfo, path string) mount {
	var best mount
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		point := unescape.Replace(l[4])
		inside := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if inside && len(point) >= len(best.point) {
			best = mount{point, r[0], mergeOptions(l[5], r[2])}
		}
	}
	return best
}

// mergeOptions joins the options of a mount and of its file system, each once.
func mergeOptions(a, b string) string {
	var all []string
	for _, o := range strings.Split(a+","+b, ",") {
		if o != "" && !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return strings.Join(all, ",")
}

func toolchain() results.Toolchain {
	t := results.Toolchain{Go: runtime.Version(), GOMAXPROCS: runtime.GOMAXPROCS(0)}
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	if v := samples[0].Value; v.Kind() == metrics.KindUint64 {
		t.GOGC = strconv.FormatUint(v.Uint64(), 10)
		if v.Uint64() > 1<<31 {
			t.GOGC = "off"
		}
	}
	if v := samples[1].Value; v.Kind() == metrics.KindUint64 {
		t.GOMEMLIMIT = strconv.FormatUint(v.Uint64(), 10)
		if v.Uint64() >= 1<<62 {
			t.GOMEMLIMIT = "off"
		}
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return t
	}
	var flags []string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			t.Commit = s.Value
		case s.Key == "vcs.modified":
			t.Dirty = s.Value == "true"
		case strings.HasPrefix(s.Key, "-"), s.Key == "CGO_ENABLED", s.Key == "GOAMD64", s.Key == "GOARM64":
			flags = append(flags, s.Key+"="+s.Value)
		}
	}
	t.BuildFlags = strings.Join(flags, " ")
	return t
}

// foreign lists the processes other than this one that used at least one hundredth of a core
// during d, the busiest five first.
func (h hostFiles) foreign(ctx context.Context, d time.Duration) []results.Process {
	before, start := h.cpuTicks(), time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	after, took := h.cpuTicks(), time.Since(start)
	var list []results.Process
	for _, pid := range slices.Sorted(maps.Keys(after)) {
		was, ok := before[pid]
		if pid == os.Getpid() || !ok {
			continue
		}
		const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on
		frac := float64(after[pid].ticks-was.ticks) / ticksPerSecond / took.Seconds()
		if frac >= 0.01 {
			list = append(list, results.Process{PID: pid, Name: after[pid].name, CPUFrac: frac})
		}
	}
	slices.SortStableFunc(list, func(a, b results.Process) int {
		switch {
		case a.CPUFrac > b.CPUFrac:
			return -1
		case a.CPUFrac < b.CPUFrac:
			return 1
		}
		return 0
	})
	return list[:min(len(list), 5)]
}

type procTicks struct {
	name  string
	ticks int64 // user and system time
}

func (h hostFiles) cpuTicks() map[int]procTicks {
	m := make(map[int]procTicks)
	dirs, _ := filepath.Glob(h.path("proc/[0-9]*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it ended
		}
		if p, ok := parseStat(string(b)); ok {
			m[pid] = p
		}
	}
	return m
}

// parseStat reads /proc/PID/stat. The name is in parentheses and may itself contain some.
func parseStat(s string) (procTicks, bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return procTicks{}, false
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 13 {
		return procTicks{}, false
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	sys, err2 := strconv.ParseInt(f[12], 10, 64)
	return procTicks{s[open+1 : end], user + sys}, err1 == nil && err2 == nil
}
