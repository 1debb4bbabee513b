package vfs

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shows that a rule hits the n-th call of its kind and path, and no other.
func TestRuleHitsTheNth(t *testing.T) {
	fs := NewFaulty(NewHeap())
	hits := fs.Add(Rule{Op: OpWrite, Match: "*/commitlog/*", Nth: 2, Err: syscall.EIO})
	require.NoError(t, fs.MkdirAll("/s/commitlog", 0o755))
	a, b := create(t, fs, "/s/commitlog/0"), create(t, fs, "/s/other")
	defer a.Close()
	defer b.Close()
	for i := range 4 {
		_, err := b.WriteAt([]byte("x"), 0)
		require.NoError(t, err)
		_, err = a.WriteAt([]byte("x"), 0)
		if i == 1 {
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorContains(t, err, "/s/commitlog/0")
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, 1, hits())
	require.EqualValues(t, 8, fs.Count(OpWrite))
}

// Shows that a disk can be full from some call on, and have room again.
func TestRuleOnward(t *testing.T) {
	fs := NewFaulty(NewHeap(), Rule{Op: OpAllocate, Nth: 2, Onward: true, Err: syscall.ENOSPC})
	f := create(t, fs, "/a")
	defer f.Close()
	require.NoError(t, f.Allocate(0, 1))
	require.ErrorIs(t, f.Allocate(0, 2), syscall.ENOSPC)
	require.ErrorIs(t, f.Allocate(0, 3), syscall.ENOSPC)
	fs.Clear()
	require.NoError(t, f.Allocate(0, 4))
}

// Shows that a failing write may leave its first bytes, in both shapes of the call.
func TestRuleShortWrite(t *testing.T) {
	h := NewHeap()
	fs := NewFaulty(h, Rule{Op: OpWrite, Err: syscall.ENOSPC, Short: 3})
	f := create(t, fs, "/a")
	n, err := f.WriteAt([]byte("abcdef"), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 3, n)
	require.Equal(t, "abc", content(h, "/a"))
	n, err = f.WritevAt([][]byte{[]byte("xy"), []byte("zw")}, 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 3, n)
	require.Equal(t, "xyz", content(h, "/a"))
	require.NoError(t, f.Close())
}

// Shows that each kind of call can be made to fail, and that nothing then happens underneath.
func TestEveryKindFails(t *testing.T) {
	for op := OpOpen; op < opKinds; op++ {
		h := NewHeap()
		require.NoError(t, h.MkdirAll("/d", 0o755))
		put(t, h, "/d/a", "x")
		fs := NewFaulty(h)
		f := create(t, fs, "/d/a")
		require.NoError(t, f.Truncate(4096))
		m, err := f.Map(4096, true)
		require.NoError(t, err)
		fs.Add(Rule{Op: op, Err: syscall.EIO})
		open := func(name string, flag int) error {
			f, err := fs.OpenFile(name, flag, 0o644)
			if err == nil {
				err = f.Close()
			}
			return err
		}
		calls := map[Op][]func() error{
			OpOpen:      {func() error { return open("/d/a", os.O_RDWR) }, func() error { return open("/d/n1", os.O_RDWR|os.O_CREATE) }},
			OpCreate:    {func() error { return open("/d/n2", os.O_RDWR|os.O_CREATE) }},
			OpRead:      {func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err }},
			OpWrite:     {func() error { _, err := f.WriteAt([]byte("y"), 0); return err }},
			OpSync:      {f.Sync, f.SyncData, func() error { return m.Sync(0, 1) }},
			OpSyncDir:   {func() error { return fs.SyncDir("/d") }},
			OpSyncFS:    {func() error { return fs.SyncFS("/d") }},
			OpRename:    {func() error { return fs.Rename("/d/a", "/d/b") }},
			OpRemove:    {func() error { return fs.Remove("/d/a") }, func() error { return fs.RemoveAll("/d") }},
			OpTruncate:  {func() error { return f.Truncate(1) }},
			OpAllocate:  {func() error { return f.Allocate(0, 9000) }},
			OpMkdir:     {func() error { return fs.MkdirAll("/d/e", 0o755) }},
			OpWriteback: {func() error { return f.StartWriteback(0, 1) }},
			OpMap:       {func() error { _, err := f.Map(4096, false); return err }},
			OpLock:      {func() error { _, err := fs.Lock("/d/lock"); return err }},
		}[op]
		require.NotEmpty(t, calls, op)
		for _, call := range calls {
			require.ErrorIs(t, call(), syscall.EIO, op)
		}
		list, err := h.ReadDir("/d")
		require.NoError(t, err)
		require.Len(t, list, 1, op)
		require.Equal(t, "a", list[0].Name())
		info, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, 4096, info.Size())
		require.EqualValues(t, 'x', m.Bytes()[0])
		require.NoError(t, m.Close())
		require.NoError(t, f.Close())
	}
}

// Shows that a stalled call waits for its gate and then goes through.
func TestRuleStall(t *testing.T) {
	gate := NewGate()
	h := NewHeap()
	fs := NewFaulty(h, Rule{Op: OpSync, Nth: 1, Stall: gate})
	f := create(t, fs, "/a")
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	<-gate.Arrived()
	_, err := f.WriteAt([]byte("meanwhile"), 0)
	require.NoError(t, err)
	select {
	case <-done:
		t.Fatal("went through a closed gate")
	default:
	}
	gate.Open()
	gate.Open()
	require.NoError(t, <-done)
	require.NoError(t, f.Close())
}

// Shows that a test sees every call before it happens, numbered without gaps where it changes
// something, so that an image can be taken there.
func TestBefore(t *testing.T) {
	h := NewHeap()
	fs := NewFaulty(h)
	var mu sync.Mutex
	var seen []string
	var numbers []int64
	var images []string
	fs.Before(func(c Call) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c.String())
		if c.N > 0 {
			numbers = append(numbers, c.N)
			images = append(images, content(h.KillImage(), "/a"))
		}
	})
	f := create(t, fs, "/a")
	_, err := f.WriteAt([]byte("x"), 4)
	require.NoError(t, err)
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.NoError(t, err)
	require.NoError(t, fs.Rename("/a", "/b"))
	require.NoError(t, f.Close())
	require.Equal(t, []string{"1 create /a [0 +0]", "2 write /a [4 +1]", "0 read /a [0 +1]", "3 rename /a -> /b"}, seen)
	require.Equal(t, []int64{1, 2, 3}, numbers)
	require.Equal(t, []string{"none", "", "\x00\x00\x00\x00x"}, images)
	require.EqualValues(t, 3, fs.Count(OpAny))
	_, ok := f.Fd()
	require.False(t, ok)
}

// Shows which names a pattern takes.
func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/a", "/a", true}, {"/a", "/ab", false}, {"*", "/any/thing", true}, {"*log", "/x/log", true},
		{"*log", "/x/logs", false}, {"/x*", "/x/log", true}, {"*c*l*", "/commit/log", true}, {"*ab*ab", "/ab", false},
		{"*ab*ab", "/abab", true}, {"a*a", "a", false},
	} {
		require.Equal(t, c.want, glob(c.pattern, c.name), "%s on %s", c.pattern, c.name)
	}
	require.True(t, strings.HasPrefix(Op(99).String(), "Op("))
}
