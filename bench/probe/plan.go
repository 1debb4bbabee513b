package probe

import (
	"context"
	"fmt"
	"time"
)

// step is one part of a probe. weight is its share of the budget, in any unit.
type step struct {
	name   string
	weight float64
	run    func(ctx context.Context, slice time.Duration) error
}

// leastSlice is the shortest slice worth starting a step for.
const leastSlice = time.Millisecond

// runPlan runs steps one after the other so that they end within budget, and returns the names
// of those for which no time was left.
//
// Before each step what remains is shared out anew over the steps still to come: an overrun is
// paid by all of them alike, a step that ends early gives its rest to them. A step that ignores
// its slice can therefore cost its own overrun, never more.
func runPlan(ctx context.Context, now func() time.Time, budget time.Duration, steps []step, progress func(string, int, int)) (skipped []string, err error) {
	var left float64
	for _, st := range steps {
		left += st.weight
	}
	end := now().Add(budget)
	for i, st := range steps {
		if err := ctx.Err(); err != nil {
			return skipped, err
		}
		slice := time.Duration(float64(end.Sub(now())) * st.weight / left)
		left -= st.weight
		if slice < leastSlice {
			skipped = append(skipped, st.name)
			continue
		}
		if progress != nil {
			progress(st.name, i, len(steps))
		}
		if err := st.run(ctx, slice); err != nil {
			if ctx.Err() != nil {
				return skipped, ctx.Err()
			}
			return skipped, fmt.Errorf("probe %s: %w", st.name, err)
		}
	}
	return skipped, ctx.Err()
}

// parts says when each of n equal parts of a slice that starts now ends. A part that starts
// late still ends on time.
func parts(slice time.Duration, n int) func(i int) time.Time {
	start := time.Now()
	return func(i int) time.Time { return start.Add(slice * time.Duration(i+1) / time.Duration(n)) }
}
