package bench

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shows that every choice reaches every queue of every topic, and how often.
func TestChoices(t *testing.T) {
	const topics, queues, n = 10, 4, 400_000
	for _, tc := range []struct {
		keys string
		want func(topic int) float64 // share of all messages
	}{
		{"uniform", func(int) float64 { return 1.0 / topics }},
		{"rr", func(int) float64 { return 1.0 / topics }},
		{"zipf:0.99", func(i int) float64 {
			var sum float64
			for k := 1; k <= topics; k++ {
				sum += math.Pow(float64(k), -0.99)
			}
			return math.Pow(float64(i+1), -0.99) / sum
		}},
	} {
		t.Run(tc.keys, func(t *testing.T) {
			c, err := newChooser(tc.keys, topics, queues, 1)
			require.NoError(t, err)
			var counts [topics][queues]int
			for range n {
				topic, q := c.pick()
				counts[topic][q]++
			}
			for i := range counts {
				for q := range counts[i] {
					require.InEpsilon(t, tc.want(i)*n/queues, float64(counts[i][q]), 0.06, "topic %d queue %d", i, q)
				}
			}
		})
	}
}

// Shows that the same seed chooses the same topics, and another one others.
func TestChoiceIsSeeded(t *testing.T) {
	seq := func(seed uint64) (out []int) {
		c, err := newChooser("uniform", 1000, 8, seed)
		require.NoError(t, err)
		for range 50 {
			topic, _ := c.pick()
			out = append(out, topic)
		}
		return out
	}
	first := seq(1)
	require.Equal(t, first, seq(1))
	require.NotEqual(t, seq(1), seq(2))
}

// Shows that an unknown choice is refused with the known ones.
func TestUnknownChoice(t *testing.T) {
	for _, keys := range []string{"gauss", "zipf:-1", "zipf:x"} {
		_, err := newChooser(keys, 1, 1, 1)
		require.ErrorContains(t, err, "use ")
	}
}
