package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

// TestStatePowerCut proves that a cut at any call leaves the last saved state or the one being
// saved, never none, once the first one is down.
func TestStatePowerCut(t *testing.T) {
	h := vfs.NewHeap()
	f := vfs.NewFaulty(h)
	require.NoError(t, f.MkdirAll("/s/rmq", 0o755))
	file, err := openState(f, "/s/rmq", nil)
	require.NoError(t, err)
	require.NoError(t, file.save(storeState{Flushed: 1}))
	require.NoError(t, h.SyncFS("/"))
	saved := int64(1)
	cut := func() {
		for seed := range uint64(20) {
			st, err := loadState(h.CrashImage(seed), "/s/rmq")
			require.NoError(t, err)
			require.NotNil(t, st)
			require.GreaterOrEqual(t, st.Flushed, saved)
			require.LessOrEqual(t, st.Flushed, saved+1)
		}
	}
	f.Before(func(vfs.Call) { cut() })
	for i := int64(2); i < 10; i++ {
		require.NoError(t, file.save(storeState{Flushed: i, Clean: i%2 == 0}))
		saved = i
	}
	cut()
	require.NoError(t, file.close())
	st, err := loadState(h, "/s/rmq")
	require.NoError(t, err)
	require.EqualValues(t, 9, st.Flushed)

	file, err = openState(f, "/s/rmq", st)
	require.NoError(t, err)
	require.NoError(t, file.save(storeState{Flushed: 10}))
	require.NoError(t, file.close())
	require.Empty(t, h.OpenFiles())
}

// TestStateDamage proves that one damaged slot falls back to the other, that two are an error, and
// that no file is none.
func TestStateDamage(t *testing.T) {
	h := vfs.NewHeap()
	st, err := loadState(h, "/s/rmq")
	require.NoError(t, err)
	require.Nil(t, st)
	require.NoError(t, h.MkdirAll("/s/rmq", 0o755))
	file, err := openState(h, "/s/rmq", nil)
	require.NoError(t, err)
	require.NoError(t, file.save(storeState{Flushed: 7}))
	require.NoError(t, file.save(storeState{Flushed: 8}))
	require.NoError(t, file.close())
	whole, err := vfs.ReadFile(h, "/s/rmq/state")
	require.NoError(t, err)
	hurt := func(offs ...int) string {
		b := append([]byte{}, whole...)
		for _, off := range offs {
			b[off] ^= 1
		}
		return string(b)
	}
	seen := map[int64]bool{}
	for off := 0; off < len(whole); off += 7 {
		putFile(t, h, "/s/rmq/state", hurt(off))
		st, err := loadState(h, "/s/rmq")
		require.NoError(t, err)
		seen[st.Flushed] = true
	}
	require.Equal(t, map[int64]bool{7: true, 8: true}, seen)
	putFile(t, h, "/s/rmq/state", hurt(9, stateSlotBytes+9))
	_, err = loadState(h, "/s/rmq")
	require.ErrorIs(t, err, errStateDamaged)
	putFile(t, h, "/s/rmq/state", "")
	_, err = loadState(h, "/s/rmq")
	require.ErrorIs(t, err, errStateDamaged)
}
