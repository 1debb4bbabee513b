package bench

import (
	"time"

	"rmq/results"
)

// Progress is where a run stands.
type Progress struct {
	Step     int // cells × blocks, from 1; 0 outside of them
	Steps    int
	Block    int
	Cell     string
	Part     results.Part
	Phase    string // one of results.Phase…, or "probe", "drift"
	Detail   string
	RatePerS float64
	P99US    float64
	Elapsed  time.Duration // of the part
	ETA      time.Duration // of the run; 0: not known yet
}
