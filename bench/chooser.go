package bench

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
)

// chooser says to which of topics × queues the next message goes. One per worker.
type chooser struct {
	rng    *rand.PCG
	topics uint64
	queues uint64
	rr     bool
	next   uint64
	// Alias tables of the zipf choice (Walker 1977): one draw, one comparison.
	prob  []uint64
	alias []uint32
}

// newChooser reads "uniform", "rr" or "zipf:<exponent>".
func newChooser(keys string, topics, queues int, seed uint64) (*chooser, error) {
	c := &chooser{rng: rand.NewPCG(seed, 0x746f70696373), topics: uint64(topics), queues: uint64(queues)}
	kind, arg, _ := strings.Cut(keys, ":")
	switch {
	case keys == "" || keys == "uniform":
		return c, nil
	case keys == "rr":
		c.rr = true
		return c, nil
	case kind == "zipf":
		s := 0.99
		if arg != "" {
			var err error
			if s, err = strconv.ParseFloat(arg, 64); err != nil || !(s > 0) || s > 10 {
				return nil, fmt.Errorf("--keys=%s has no usable exponent: use zipf:0.99", keys)
			}
		}
		if topics > 0 && topics <= MaxTopics {
			c.makeAlias(topics, s)
		}
		return c, nil
	}
	return nil, fmt.Errorf("--keys=%s is unknown: use uniform, rr or zipf:0.99", keys)
}

func (c *chooser) makeAlias(n int, s float64) {
	weights := make([]float64, n)
	var sum float64
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -s)
		sum += weights[i]
	}
	c.prob, c.alias = make([]uint64, n), make([]uint32, n)
	var small, large []int
	for i := range weights {
		weights[i] *= float64(n) / sum
		if weights[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		l, g := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		c.prob[l], c.alias[l] = uint64(weights[l]*(1<<32)), uint32(g)
		weights[g] -= 1 - weights[l]
		if weights[g] < 1 {
			large = large[:len(large)-1]
			small = append(small, g)
		}
	}
	for _, i := range append(small, large...) {
		c.prob[i], c.alias[i] = 1<<32, uint32(i)
	}
}

// pick returns a topic's index and a queue.
func (c *chooser) pick() (topic int, queue int32) {
	if c.rr {
		n := c.next
		c.next++
		return int(n % c.topics), int32(n / c.topics % c.queues)
	}
	x := c.rng.Uint64()
	if c.prob == nil {
		i, _ := bits.Mul64(x, c.topics*c.queues)
		return int(i / c.queues), int32(i % c.queues)
	}
	i, frac := bits.Mul64(x, c.topics)
	if frac>>32 >= c.prob[i] {
		i = uint64(c.alias[i])
	}
	q, _ := bits.Mul64(c.rng.Uint64(), c.queues)
	return int(i), int32(q)
}
