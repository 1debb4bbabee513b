package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// TestDispatchDisabled proves that what a store without dispatch takes, after a crash or in order, with queues that
// exist already or none, a cut in between, is in queues and index after the next Open, in the order of the log.
func TestDispatchDisabled(t *testing.T) {
	for _, before := range []bool{false, true} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("before=%v,crash=%v", before, crash), func(t *testing.T) {
				ctx := context.Background()
				heap := vfs.NewHeap()
				o := small(heap, "/s")
				var all []sent
				if before {
					s := open(t, o)
					all = fill(t, s, 1, 60)
					require.NoError(t, s.Close())
				}
				o.DispatchDisabled = true
				s := open(t, o)
				known := s.Dispatched()
				all = append(all, fill(t, s, 2, 150)...)
				cut := s.Appended()
				fill(t, s, 3, 40)
				require.NoError(t, s.Checkpoint(ctx))
				require.NoError(t, s.Retract(ctx, cut))
				s.SetConfirm(1 << 60)
				all = append(all, fill(t, s, 4, 50)...)
				require.Equal(t, known, s.Dispatched())
				require.NoError(t, s.Flush(ctx))
				if crash {
					o.FS = heap.CrashImage(7)
				}
				require.NoError(t, s.Close())
				require.Zero(t, s.Stats().OrderViolations)

				s = open(t, o) // dispatches what it finds, and again nothing of what it takes
				all = append(all, fill(t, s, 5, 50)...)
				require.NoError(t, s.Close())
				o.DispatchDisabled = false
				s = open(t, o)
				check(t, s, all)
				all = append(all, fill(t, s, 6, 20)...)
				check(t, s, all)
				require.NoError(t, s.Close())
			})
		}
	}
}
