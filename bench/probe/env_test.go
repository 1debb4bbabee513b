package probe

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that the line of one device is found by its numbers, on kernels with and without the
// flush counters, and that an unknown or damaged line is no counter rather than zero.
func TestParseDiskstats(t *testing.T) {
	const text = `   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 32472 6483 2086282 8499 10648 11659 2842920 11635 0 4232 20487 3302 12 1190568 262 2240 89
 254       1 vda1 1 2 3 4 5 6 x 8 9 10 11
   8      16 sdb 10 0 80 1 20 0 160 2 0 3 3
`
	for _, c := range []struct {
		major, minor uint32
		want         deviceCounts
		ok           bool
	}{
		{254, 0, deviceCounts{2842920 * 512, 2240}, true},
		{8, 16, deviceCounts{160 * 512, -1}, true},
		{254, 1, deviceCounts{}, false},
		{9, 9, deviceCounts{}, false},
	} {
		got, ok := parseDiskstats(text, device{c.major, c.minor, true})
		require.Equal(t, c.ok, ok, "%d:%d", c.major, c.minor)
		require.Equal(t, c.want, got, "%d:%d", c.major, c.minor)
	}
	_, ok := device{}.read()
	require.False(t, ok)
}

// Proves that the innermost mount wins, that a later mount on the same point covers an earlier
// one, that a name is no prefix of a longer name, and that escapes are undone.
func TestMountOf(t *testing.T) {
	const info = `1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard
2 1 0:5 / /data rw - tmpfs tmpfs rw,size=1k
3 1 8:1 / /data rw,noatime - xfs /dev/sda1 rw,attr2
4 3 8:2 / /data/my\040log rw - ext4 /dev/sdb rw
`
	for path, want := range map[string]mount{
		"/home":          {"/", "ext4", "rw,relatime,discard"},
		"/data":          {"/data", "xfs", "rw,noatime,attr2"},
		"/data/x":        {"/data", "xfs", "rw,noatime,attr2"},
		"/database":      {"/", "ext4", "rw,relatime,discard"},
		"/data/my log/1": {"/data/my log", "ext4", "rw"},
	} {
		require.Equal(t, want, mountOf(info, path), path)
	}
	require.Zero(t, mountOf("", "/"))
}

func writeTree(t *testing.T, files map[string]string) hostFiles {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return hostFiles{root: root}
}

// Proves that the tightest limit on the way to the root is found, in both kinds of control
// group, and that "max" and limits above the RAM count as none.
func TestCgroupLimits(t *testing.T) {
	const ram = 8 << 30
	for _, c := range []struct {
		name   string
		files  map[string]string
		cores  float64
		memory int64
	}{
		{"v2", map[string]string{
			"proc/self/cgroup":               "0::/a/b\n",
			"sys/fs/cgroup/a/b/cpu.max":      "max 100000\n",
			"sys/fs/cgroup/a/cpu.max":        "150000 100000\n",
			"sys/fs/cgroup/a/b/memory.max":   "1073741824\n",
			"sys/fs/cgroup/a/memory.max":     "max\n",
			"sys/fs/cgroup/other/memory.max": "1\n",
		}, 1.5, 1 << 30},
		{"v1", map[string]string{
			"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n",
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us":  "50000\n",
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":    "9223372036854771712\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":  "2147483648\n",
		}, 0.5, 2 << 30},
		{"v1 without quota", map[string]string{
			"proc/self/cgroup":                    "3:cpu:/\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":  "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, 0, 0},
		{"nothing told", nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cores, memory := writeTree(t, c.files).cgroupLimits(ram)
			require.InDelta(t, c.cores, cores, 1e-9)
			require.Equal(t, c.memory, memory)
		})
	}
}

// Proves that the process name may hold blanks and parentheses, and that CPU time is user plus system.
func TestParseStat(t *testing.T) {
	p, ok := parseStat("42 (a (b) c) S 1 42 42 0 -1 4194304 10 0 0 0 7 5 0 0 20 0 1 0 100 0 0")
	require.True(t, ok)
	require.Equal(t, procTicks{"a (b) c", 12}, p)
	for _, bad := range []string{"", "42 a S", "42 (a) S 1 2", "42 )a( S"} {
		_, ok := parseStat(bad)
		require.False(t, ok, bad)
	}
}

// Proves that host facts are read from where Linux keeps them and that a bracketed choice is the
// chosen word only.
func TestHostFacts(t *testing.T) {
	h := writeTree(t, map[string]string{
		"proc/cpuinfo":                                                    "model name\t: Fast CPU\nmicrocode\t: 0x1\ncpu MHz\t\t: 2400.5\nflags\t\t: fpu hypervisor\n\nmodel name\t: Other\n",
		"proc/meminfo":                                                    "MemTotal:       1024 kB\nSwapTotal:      0 kB\n",
		"proc/sys/kernel/osrelease":                                       "6.1.0\n",
		"proc/sys/vm/dirty_ratio":                                         "20\n",
		"sys/kernel/mm/transparent_hugepage/enabled":                      "always [madvise] never\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":            "performance\n",
		"sys/devices/system/node/node0/cpulist":                           "0\n",
		"sys/class/dmi/id/sys_vendor":                                     "Maker\n",
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
	})
	got := h.host()
	require.Equal(t, "Fast CPU", got.CPUModel)
	require.Equal(t, "0x1", got.Microcode)
	require.InDelta(t, 2400.5, got.FreqMHz, 0)
	require.EqualValues(t, 1<<20, got.RAMBytes)
	require.Equal(t, "6.1.0", got.Kernel)
	require.Equal(t, "madvise", got.THP)
	require.Equal(t, "performance", got.Governor)
	require.Equal(t, "tsc", got.ClockSource)
	require.Equal(t, 1, got.NUMANodes)
	require.Equal(t, "virtual machine: Maker", got.Virtualisation)
	require.Equal(t, map[string]string{"vm.dirty_ratio": "20"}, got.Sysctl)
}

// Proves that the real host yields what every Linux has, and that each empty field is listed as
// unknown instead of being passed over.
func TestCollectEnv(t *testing.T) {
	e := CollectEnv(t.Context(), t.TempDir())
	require.NotEmpty(t, e.Host.Kernel)
	require.Positive(t, e.Host.RAMBytes)
	require.Equal(t, runtime.NumCPU(), e.Host.CPUs)
	require.NotEmpty(t, e.Disk.FSType)
	require.Positive(t, e.Disk.TotalBytes)
	require.Equal(t, runtime.Version(), e.Toolchain.Go)
	require.NotEmpty(t, e.Toolchain.GOGC)
	for name, value := range map[string]string{"governor": e.Host.Governor, "write cache": e.Disk.WriteCache, "commit": e.Toolchain.Commit} {
		if value == "" {
			require.Contains(t, e.Unknown, name)
		} else {
			require.NotContains(t, e.Unknown, name)
		}
	}
}
