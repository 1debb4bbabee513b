package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/remoting/protocol"
)

// Proves that a power cut at any call of a change leaves the table before it or after it, that a change
// that returned stays, and that the broker starts either way.
func TestManagersPowerCut(t *testing.T) {
	base := vfs.NewHeap()
	fsys := vfs.NewFaulty(base)
	m, _ := testManagers(t, fsys, "")
	require.NoError(t, m.Topics.Put(t.Context(), protocol.NewTopicConfig("before", 4)))
	cuts := 0
	survives := func(sure bool) {
		for seed := range uint64(3) {
			again, _ := testManagers(t, base.CrashImage(seed), "")
			require.NotNil(t, again.Topics.Get("before"))
			if sure {
				require.EqualValues(t, 7, again.Topics.Get("after").ReadQueueNums)
			}
			cuts++
		}
	}
	fsys.Before(func(vfs.Call) { survives(false) })
	require.NoError(t, m.Topics.Put(t.Context(), protocol.NewTopicConfig("after", 7)))
	fsys.Before(nil)
	survives(true)
	require.Greater(t, cuts, 15)
}

// Proves that torn files are replaced by their backups, all at once, and kept aside.
func TestManagersTornFiles(t *testing.T) {
	fsys := vfs.NewHeap()
	m, _ := testManagers(t, fsys, "")
	for i := range 2 { // the second puts the first into the .bak
		require.NoError(t, m.Topics.Put(t.Context(), protocol.NewTopicConfig(fmt.Sprint("T", i), 4)))
		require.NoError(t, m.Groups.Put(protocol.NewSubscriptionGroupConfig(fmt.Sprint("G", i))))
		m.Offsets.Commit([]byte("G0"), []byte("T0"), int32(i), 5)
		require.NoError(t, m.Offsets.Save())
	}
	for _, name := range []string{topicsName, groupsName, offsetsName} {
		f, err := fsys.OpenFile("/store/config/"+name+".json", os.O_RDWR, 0)
		require.NoError(t, err)
		st, err := f.Stat()
		require.NoError(t, err)
		require.NoError(t, f.Truncate(st.Size()/2))
		require.NoError(t, f.Close())
	}
	m, _ = testManagers(t, fsys, "")
	require.NotNil(t, m.Topics.Get("T0"))
	require.Nil(t, m.Topics.Get("T1"))
	require.NotNil(t, m.Groups.Get("G0"))
	require.Nil(t, m.Groups.Get("G1"))
	require.Equal(t, map[int32]int64{0: 5}, m.Offsets.Offsets("G0", "T0"))
	_, err := fsys.Stat("/store/config/topics.json.broken")
	require.NoError(t, err)
}

// Proves that a change which cannot be saved says so, stays in force, and is saved later.
func TestManagersDiskFull(t *testing.T) {
	base := vfs.NewHeap()
	fsys := vfs.NewFaulty(base)
	m, _ := testManagers(t, fsys, "")
	fsys.Add(vfs.Rule{Op: vfs.OpWrite, Err: os.ErrPermission})
	require.ErrorIs(t, m.Topics.Put(t.Context(), protocol.NewTopicConfig("T", 4)), os.ErrPermission)
	require.NotNil(t, m.Topics.Get("T"))
	require.ErrorIs(t, m.flush(), os.ErrPermission)
	fsys.Clear()
	require.NoError(t, m.flush())
	m, _ = testManagers(t, base, "")
	require.NotNil(t, m.Topics.Get("T"))
}

// Proves that changes that come together share a write, and that nobody returns before its change is saved.
func TestSaverSharesWrites(t *testing.T) {
	m := &memMetaLog{docs: map[string][]byte{}}
	state := 0
	s := saver{log: m, name: "doc", encode: func() []byte { return fmt.Append(nil, state) }}
	state = 1
	s.changed()
	require.NoError(t, s.save())
	require.NoError(t, s.save())
	require.Equal(t, 1, m.saves)
	m.err = errors.New("no disk")
	s.changed()
	require.ErrorIs(t, s.save(), m.err)
	m.err = nil
	require.NoError(t, s.save())
	require.Equal(t, 2, m.saves)
}

// memMetaLog keeps documents in memory.
type memMetaLog struct {
	mu    sync.Mutex
	docs  map[string][]byte
	saves int
	err   error
}

func (m *memMetaLog) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

func (m *memMetaLog) Load(name string, parse func(b []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.docs[name]; b != nil {
		return parse(b)
	}
	return nil
}

func (m *memMetaLog) Save(name string, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.saves++
	m.docs[name] = b
	return nil
}

// Proves that a table which another node has saved is taken over while a change of this node's is being saved, without either
// waiting for the other for good: nobody holds the lock of a table while waiting for the save of it.
func TestAdoptWhileSaving(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	for name, table := range map[string]struct {
		saver *saver
		mu    *sync.Mutex
		adopt func(doc []byte) error
	}{
		topicsName:  {&m.Topics.saver, &m.Topics.mu, func(doc []byte) error { _, err := m.Topics.adopt(doc); return err }},
		groupsName:  {&m.Groups.saver, &m.Groups.mu, m.Groups.adopt},
		offsetsName: {&m.Offsets.saver, &m.Offsets.mu, m.Offsets.adopt},
	} {
		t.Run(name, func(t *testing.T) {
			encode, doc := table.saver.encode, table.saver.encode()
			g := run.New(t.Context(), "adopt "+name)
			held := false
			table.saver.encode = func() []byte { // called while the saver's lock is held
				g.Go("adopt", func(context.Context) error { return table.adopt(doc) })
				for end := time.Now().Add(50 * time.Millisecond); !held && time.Now().Before(end); time.Sleep(time.Millisecond) {
					if held = !table.mu.TryLock(); !held {
						table.mu.Unlock()
					}
				}
				if held { // encode would never return
					return doc
				}
				return encode()
			}
			table.saver.changed()
			require.NoError(t, table.saver.save())
			require.NoError(t, g.Wait())
			require.False(t, held, "the table is locked by somebody who waits for the save")
			require.False(t, table.saver.dirty())
		})
	}
}
