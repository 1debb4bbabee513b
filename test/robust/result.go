package robust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Bound is bytes that may be lost: as the program reported them, and as the audit found them.
type Bound struct {
	Reported int64 `json:"reported"`
	Measured int64 `json:"measured"`
}

// Run is one time that a fault was played.
type Run struct {
	Key     uint64    `json:"key"` // draws the schedule; the same key gives the same one
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`

	Sent          int64 `json:"sent"`
	Acked         int64 `json:"acked"`
	Indeterminate int64 `json:"indeterminate"` // no answer, or one that leaves the outcome open
	Failed        int64 `json:"failed"`        // refused

	Lost      int64 `json:"lost"`      // acknowledged, and not there
	Phantom   int64 `json:"phantom"`   // there, and never sent or refused
	Duplicate int64 `json:"duplicate"` // there more often than sent
	Reordered int64 `json:"reordered"` // behind what its connection sent later, or not where the answer said
	Corrupt   int64 `json:"corrupt"`
	Unseen    int64 `json:"unseen"` // read by a consumer, and later not there or another

	W        Bound     `json:"w"`
	L        Bound     `json:"l"`
	RTO      []float64 `json:"rto_ms"`             // from the fault to the next ack, ms
	Strikes  int       `json:"strikes"`            // how often the fault fell
	Replicas int       `json:"replicas,omitempty"` // directories found equal byte by byte
	Notes    []string  `json:"notes,omitempty"`
	Why      []string  `json:"why,omitempty"` // red: what was found
}

// Red says whether the run broke a promise.
func (r *Run) Red() bool { return len(r.Why) > 0 }

// Environment is where runs were made.
type Environment struct {
	Commit     string `json:"commit"`
	Go         string `json:"go"`
	Kernel     string `json:"kernel"`
	CPUs       int    `json:"cpus"`
	FileSystem string `json:"file_system"`
}

// Result is one cell of the matrix.
type Result struct {
	Cell    string      `json:"cell"`
	Mode    string      `json:"mode"`
	Scale   string      `json:"scale,omitempty"`   // how waits were shortened
	Skipped string      `json:"skipped,omitempty"` // why it was not played
	Env     Environment `json:"environment"`
	Runs    []Run       `json:"runs,omitempty"`
}

// Red says whether a run broke a promise.
func (r *Result) Red() bool {
	for i := range r.Runs {
		if r.Runs[i].Red() {
			return true
		}
	}
	return false
}

func fileOf(dir, cell, mode string) string { return filepath.Join(dir, cell+"-"+mode+".json") }

// Load reads the result of a cell; nil if it has none.
func Load(dir, cell, mode string) (*Result, error) {
	b, err := os.ReadFile(fileOf(dir, cell, mode))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", fileOf(dir, cell, mode), err)
	}
	return r, nil
}

// Save writes the result of a cell whole.
func (r *Result) Save(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	name := fileOf(dir, r.Cell, r.Mode)
	if err := os.WriteFile(name+".tmp", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
