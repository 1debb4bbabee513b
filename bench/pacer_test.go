package bench

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Shows that the uniform schedule neither drifts nor bunches, an hour in.
func TestUniformIsExact(t *testing.T) {
	p := NewPacer("uniform", 300_000, 1)
	require.Zero(t, p.IntendedAt(0))
	require.Equal(t, time.Hour, p.IntendedAt(300_000*3600))
	for n := int64(0); n < 1000; n++ {
		gap := p.IntendedAt(n+1) - p.IntendedAt(n)
		require.InDelta(t, 1e9/300_000, float64(gap), 1)
	}
}

// Shows that the random schedule is a function of seed and number alone, whatever was asked before,
// and never goes backwards.
func TestPoissonIsPure(t *testing.T) {
	a, b := NewPacer("poisson", 1000, 7), NewPacer("poisson", 1000, 7)
	far := b.IntendedAt(10 * poissonBlock)
	var last time.Duration
	for n := int64(0); n <= 10*poissonBlock; n++ {
		at := a.IntendedAt(n)
		require.GreaterOrEqual(t, at, last)
		last = at
	}
	require.Equal(t, far, last)
	require.Equal(t, a.IntendedAt(5), b.IntendedAt(5))
	require.NotEqual(t, far, NewPacer("poisson", 1000, 8).IntendedAt(10*poissonBlock))
}

// Shows that gaps of the random schedule are exponential: mean and standard deviation are equal,
// and the rate is the one that was asked for.
func TestPoissonGaps(t *testing.T) {
	const n, rate = 200_000, 50_000.0
	p := NewPacer("poisson", rate, 3)
	var sum, squares float64
	for i := int64(0); i < n; i++ {
		gap := float64(p.IntendedAt(i+1) - p.IntendedAt(i))
		sum += gap
		squares += gap * gap
	}
	mean := sum / n
	sd := math.Sqrt(squares/n - mean*mean)
	require.InEpsilon(t, 1e9/rate, mean, 0.01)
	require.InEpsilon(t, mean, sd, 0.02)
}

func BenchmarkPacer(b *testing.B) {
	for _, arrival := range Arrivals {
		b.Run("arrival="+arrival, func(b *testing.B) {
			p := NewPacer(arrival, 1e6, 1)
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				p.IntendedAt(n % (1 << 20))
				n++
			}
		})
	}
}
