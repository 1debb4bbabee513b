package ha

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// Proves what a history answers: whose a byte is, what is left of it after a cut and after a new reign.
func TestEpochs(t *testing.T) {
	es := Epochs{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 100}, {Epoch: 4, Start: 250}}
	for _, c := range []struct{ pos, epoch, next int64 }{{0, 1, 100}, {99, 1, 100}, {100, 3, 250}, {250, 4, 1<<63 - 1}} {
		epoch, next := es.At(c.pos)
		require.Equal(t, c.epoch, epoch)
		require.Equal(t, c.next, next)
	}
	epoch, next := Epochs{{Epoch: 2, Start: 50}}.At(10)
	require.Zero(t, epoch)
	require.EqualValues(t, 50, next)
	require.Equal(t, Epochs{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 100}}, es.upTo(249))
	require.Equal(t, es, es.upTo(250))
	require.Equal(t, Epochs{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 100}, {Epoch: 5, Start: 200}}, es.upTo(199).add(Epoch{Epoch: 5, Start: 200}))
	require.Equal(t, Epochs{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 100}, {Epoch: 4, Start: 250}, {Epoch: 5, Start: 250}}, es.add(Epoch{Epoch: 5, Start: 250}), "a reign without a byte here may have left some elsewhere")
	require.Equal(t, Epochs{{Epoch: 3, Start: 100}, {Epoch: 4, Start: 250}}, es.prune(100))
	require.Equal(t, es, es.prune(99))
	require.Error(t, Epochs{{Epoch: 2, Start: 0}, {Epoch: 1, Start: 5}}.validate())
	require.Error(t, Epochs{{Epoch: 1, Start: 9}, {Epoch: 2, Start: 5}}.validate())
	require.NoError(t, es.validate())
}

// Proves that the epoch file survives being read back, that a flipped bit is found, and that a power
// cut at any moment leaves one of two generations.
func TestEpochFile(t *testing.T) {
	heap := vfs.NewHeap()
	require.NoError(t, heap.MkdirAll("/s/rmq", 0o755))
	require.NoError(t, heap.SyncDir("/"))
	require.NoError(t, heap.SyncDir("/s"))
	none, err := loadRecord(heap, "/s")
	require.NoError(t, err)
	require.Zero(t, none.Group)
	old := record{Group: 1<<63 + 5, Epochs: Epochs{{Epoch: 1, Start: 0}}}
	newer := record{Group: old.Group, Epochs: Epochs{{Epoch: 1, Start: 0}, {Epoch: 2, Start: 77}}, Role: roleFollower, Leader: "h:1", Replicas: []string{"b"}}
	require.NoError(t, saveRecord(heap, "/s", old))

	faulty := vfs.NewFaulty(heap)
	calls := 0
	faulty.Before(func(vfs.Call) {
		calls++
		for seed := range uint64(8) {
			got, err := loadRecord(heap.CrashImage(seed), "/s")
			require.NoError(t, err)
			require.Contains(t, []record{old, newer}, got)
		}
	})
	require.NoError(t, saveRecord(faulty, "/s", newer))
	require.Greater(t, calls, 3)
	got, err := loadRecord(heap.CrashImage(1), "/s")
	require.NoError(t, err)
	require.Equal(t, newer, got)

	f, err := heap.OpenFile(recordPath("/s"), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{'9'}, 30)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = loadRecord(heap, "/s")
	require.ErrorIs(t, err, errRecord)
	require.ErrorContains(t, err, "/s/rmq/epochs")
}
