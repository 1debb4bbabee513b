package bench

import (
	"math/rand/v2"
	"time"
)

// Pacer says when the n-th message was meant to be sent, counted from the start of the load.
//
// It never looks at whether earlier messages are late: latency is measured from this intended
// time, so a stalled target cannot hide its stall (coordinated omission). The same n always gives
// the same time, in whatever order it is asked; times never decrease with n.
type Pacer interface {
	IntendedAt(n int64) time.Duration
}

// NewPacer returns the pacer of an arrival ("uniform" or "poisson") at a rate per second. It is
// not safe for concurrent use; equal arguments give equal pacers.
func NewPacer(arrival string, perS float64, seed int64) Pacer {
	if arrival == "poisson" {
		return &poisson{meanNs: 1e9 / perS, seed: uint64(seed), block: -1}
	}
	return uniform{periodNs: 1e9 / perS}
}

type uniform struct{ periodNs float64 }

func (u uniform) IntendedAt(n int64) time.Duration {
	return time.Duration(float64(n) * u.periodNs)
}

// poisson has exponential gaps. Gaps are drawn in blocks from generators of their own, and the
// start of every block met so far is kept, so that any n can be asked for again.
type poisson struct {
	meanNs float64
	seed   uint64
	starts []float64 // of block i, in ns
	block  int64     // the one in at
	at     [poissonBlock]float64
	end    float64
}

const poissonBlock = 1024

func (p *poisson) IntendedAt(n int64) time.Duration {
	if b := n / poissonBlock; b != p.block {
		p.load(b)
	}
	return time.Duration(p.at[n%poissonBlock])
}

func (p *poisson) load(b int64) {
	if len(p.starts) == 0 {
		p.starts = append(p.starts, 0)
	}
	for int64(len(p.starts)) <= b {
		p.fill(int64(len(p.starts)) - 1)
		p.starts = append(p.starts, p.end)
	}
	p.fill(b)
}

func (p *poisson) fill(b int64) {
	rng := rand.New(rand.NewPCG(p.seed, uint64(b)))
	t := p.starts[b]
	for i := range p.at {
		p.at[i] = t
		t += rng.ExpFloat64() * p.meanNs
	}
	p.block, p.end = b, t
}
