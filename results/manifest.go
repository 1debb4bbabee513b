package results

import "time"

// SchemaVersion is the version of every file of a run. It changes when a field changes its
// meaning or leaves; a new optional field does not change it.
const SchemaVersion = 1

// Manifest says what a run was meant to be and whether it became that.
type Manifest struct {
	Schema   int       `json:"schema"`
	RunID    string    `json:"run_id"` // unique, also inside every payload
	Label    string    `json:"label,omitempty"`
	Tool     string    `json:"tool"`    // "rmqbench"
	Version  string    `json:"version"` // of the tool
	Command  []string  `json:"command"` // as typed, argv[0] included
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Complete bool      `json:"complete"`
	// Reason says why the run is not complete: "running" until it ends, then for instance
	// "interrupted" or an error.
	Reason string `json:"reason,omitempty"`

	Seed     int64   `json:"seed"`
	Reps     int     `json:"reps"` // blocks asked for
	DurS     float64 `json:"duration_s"`
	WarmupS  float64 `json:"warmup_s"`
	MaxBytes int64   `json:"max_bytes,omitempty"` // log bytes after which a part ends early
	Cells    []Cell  `json:"cells"`               // the matrix, in the order of the factors
	// Order is the order of measurement: one block is every cell once, by index into Cells.
	Order [][]int `json:"order"`

	// Config is every effective setting by name, those of the target's configuration included.
	Config map[string]string `json:"config,omitempty"`
	// NotControlled lists what could move the numbers and was not held still.
	NotControlled []string `json:"not_controlled,omitempty"`
	Notes         []string `json:"notes,omitempty"`
}

// Smoke reports whether the run is too short for anything but a sign of life.
func (m *Manifest) Smoke() bool { return m.Label == "smoke" }

// Env is the environment of a run: the machine, the toolchain, the system under test.
type Env struct {
	Schema    int       `json:"schema"`
	Collected time.Time `json:"collected"`
	Host      Host      `json:"host"`
	Disk      Disk      `json:"disk"`
	Toolchain Toolchain `json:"toolchain"`
	Target    Target    `json:"target"`
	Foreign   []Process `json:"foreign,omitempty"` // top processes that are not ours, by CPU
	// Unknown names what the host did not tell.
	Unknown []string `json:"unknown,omitempty"`
}

// Host is the machine, as far as it tells.
type Host struct {
	Name           string            `json:"name,omitempty"`
	OS             string            `json:"os"`
	Kernel         string            `json:"kernel"`
	Arch           string            `json:"arch"`
	CPUModel       string            `json:"cpu_model,omitempty"`
	CPUs           int               `json:"cpus"`               // usable by this process
	CPUQuota       float64           `json:"cpu_quota,omitzero"` // cgroup, in cores; 0 = none
	Governor       string            `json:"governor,omitempty"`
	Microcode      string            `json:"microcode,omitempty"`
	FreqMHz        float64           `json:"freq_mhz,omitempty"`
	NUMANodes      int               `json:"numa_nodes,omitempty"`
	RAMBytes       int64             `json:"ram_bytes"`
	MemLimitBytes  int64             `json:"mem_limit_bytes,omitempty"` // cgroup; 0 = none
	SwapBytes      int64             `json:"swap_bytes"`
	Virtualisation string            `json:"virtualisation,omitempty"`
	ClockSource    string            `json:"clock_source,omitempty"`
	NTP            string            `json:"ntp,omitempty"`
	THP            string            `json:"thp,omitempty"`
	Sysctl         map[string]string `json:"sysctl,omitempty"` // vm.dirty_* and the like
}

// Disk is where the log lay.
type Disk struct {
	Dir          string   `json:"dir"`
	FSType       string   `json:"fs_type"`
	MountPoint   string   `json:"mount_point,omitempty"`
	MountOptions string   `json:"mount_options,omitempty"`
	FSFeatures   []string `json:"fs_features,omitempty"`
	Device       string   `json:"device,omitempty"`
	Model        string   `json:"model,omitempty"`
	WriteCache   string   `json:"write_cache,omitempty"` // "write back", "write through"
	Scheduler    string   `json:"scheduler,omitempty"`
	QueueDepth   int      `json:"queue_depth,omitempty"`
	Rotational   bool     `json:"rotational,omitempty"`
	TotalBytes   int64    `json:"total_bytes"`
	FreeBytes    int64    `json:"free_bytes"`
}

// Toolchain is what built and drove the run.
type Toolchain struct {
	Go         string `json:"go"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	GOGC       string `json:"gogc,omitempty"`
	GOMEMLIMIT string `json:"gomemlimit,omitempty"`
	BuildFlags string `json:"build_flags,omitempty"`
	Commit     string `json:"commit,omitempty"`
	Dirty      bool   `json:"dirty"`
}

// Target is the system under test with its full effective configuration.
type Target struct {
	Name    string            `json:"name"`
	Version string            `json:"version,omitempty"`
	Config  map[string]string `json:"config,omitempty"`
	Image   string            `json:"image,omitempty"`
	JVM     string            `json:"jvm,omitempty"`
}

// Process is one process that ran beside the benchmark.
type Process struct {
	PID     int     `json:"pid"`
	Name    string  `json:"name"`
	CPUFrac float64 `json:"cpu_frac"` // of one core
}

// HistoryLine is one cell of one run in history.jsonl.
type HistoryLine struct {
	Schema       int       `json:"schema"`
	RunID        string    `json:"run_id"`
	Started      time.Time `json:"started"`
	Label        string    `json:"label,omitempty"`
	Commit       string    `json:"commit,omitempty"`
	Cell         string    `json:"cell"`
	Class        Class     `json:"durability_class"`
	Reps         int       `json:"reps"` // valid ones
	AckedPerS    float64   `json:"acked_per_s"`
	OpenPerS     float64   `json:"open_per_s,omitempty"`
	ResponseP50  float64   `json:"response_p50_us,omitempty"`
	ResponseP99  float64   `json:"response_p99_us,omitempty"`
	FractionUsed float64   `json:"fraction_of_limit,omitempty"`
}
