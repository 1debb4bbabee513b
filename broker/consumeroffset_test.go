package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rmq/internal/vfs"
)

// offsetModel is what offsets should be: committed, pulled and pending resets by queue, and what of it was saved.
type offsetModel struct {
	committed, pulled, resets map[offsetKey]int64
}

type offsetKey struct {
	group, topic string
	queue        int32
}

func newOffsetModel() offsetModel {
	return offsetModel{map[offsetKey]int64{}, map[offsetKey]int64{}, map[offsetKey]int64{}}
}

func (m offsetModel) removeIf(match func(k offsetKey) bool) {
	for _, table := range []map[offsetKey]int64{m.committed, m.pulled, m.resets} {
		for k := range table {
			if match(k) {
				delete(table, k)
			}
		}
	}
}

// Any sequence of commits, pulls, resets, removals and restarts ends where a plain map says.
func TestOffsetsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fsys := vfs.NewHeap()
		m, _ := testManagers(t, fsys, "")
		model := newOffsetModel()
		key := rapid.Custom(func(rt *rapid.T) offsetKey {
			return offsetKey{
				rapid.SampledFrom([]string{"g", "h"}).Draw(rt, "group"), rapid.SampledFrom([]string{"T", "%RETRY%g"}).Draw(rt, "topic"),
				rapid.Int32Range(0, 3).Draw(rt, "queue"),
			}
		})
		offset := rapid.Int64Range(0, 9)
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				k, to := key.Draw(rt, "key"), offset.Draw(rt, "offset")
				_, pending := model.resets[k]
				require.Equal(rt, !pending, m.Offsets.Commit([]byte(k.group), []byte(k.topic), k.queue, to))
				if !pending {
					model.committed[k] = to
				}
			},
			"pull": func(rt *rapid.T) {
				k, to := key.Draw(rt, "key"), offset.Draw(rt, "offset")
				m.Offsets.Pulled([]byte(k.group), []byte(k.topic), k.queue, to)
				model.pulled[k] = to
			},
			"reset": func(rt *rapid.T) {
				k, to := key.Draw(rt, "key"), offset.Draw(rt, "offset")
				m.Offsets.Reset(k.group, k.topic, k.queue, to)
				model.resets[k], model.committed[k] = to, to
				delete(model.pulled, k)
			},
			"take": func(rt *rapid.T) {
				k := key.Draw(rt, "key")
				got, ok := m.Offsets.TakeReset([]byte(k.group), []byte(k.topic), k.queue)
				want, pending := model.resets[k]
				require.Equal(rt, pending, ok)
				require.Equal(rt, want, got)
				delete(model.resets, k)
			},
			"clone": func(rt *rapid.T) {
				k := key.Draw(rt, "key")
				m.Offsets.Clone(k.group, "h", k.topic)
				for from, to := range model.committed {
					if from.group == k.group && from.topic == k.topic {
						model.committed[offsetKey{"h", from.topic, from.queue}] = to
					}
				}
			},
			"remove": func(rt *rapid.T) {
				k := key.Draw(rt, "key")
				if rapid.Bool().Draw(rt, "topic") {
					m.Offsets.RemoveTopic(k.topic)
					model.removeIf(func(o offsetKey) bool { return o.topic == k.topic })
					return
				}
				m.Offsets.RemoveGroup(k.group)
				model.removeIf(func(o offsetKey) bool { return o.group == k.group })
			},
			"restart": func(rt *rapid.T) {
				require.NoError(rt, m.flush())
				fsys = fsys.CrashImage(1)
				m, _ = testManagers(t, fsys, "")
				clear(model.pulled)
			},
			"": func(rt *rapid.T) { model.check(rt, m.Offsets) },
		})
	})
}

func (m offsetModel) check(t require.TestingT, o *ConsumerOffsetManager) {
	byTopic := map[string]map[string]map[int32]int64{}
	for _, group := range []string{"g", "h"} {
		byTopic[group] = map[string]map[int32]int64{}
		for _, topic := range []string{"T", "%RETRY%g"} {
			for id := range int32(4) {
				k := offsetKey{group, topic, id}
				want, ok := m.committed[k]
				if ok {
					if byTopic[group][topic] == nil {
						byTopic[group][topic] = map[int32]int64{}
					}
					byTopic[group][topic][id] = want
				}
				if reset, pending := m.resets[k]; pending {
					want, ok = reset, true
				}
				got, has := o.Query([]byte(group), []byte(topic), id)
				require.Equal(t, ok, has, k)
				if ok {
					require.Equal(t, want, got, k)
				}
				want, ok = m.pulled[k]
				if !ok {
					want, ok = m.committed[k]
				}
				got, has = o.PullOffset([]byte(group), []byte(topic), id)
				require.Equal(t, ok, has, k)
				if ok {
					require.Equal(t, want, got, k)
				}
			}
			require.Equal(t, byTopic[group][topic], o.Offsets(group, topic))
			require.Equal(t, byTopic[group][topic] != nil, slices.Contains(o.TopicsOf(group), topic))
			require.Equal(t, byTopic[group][topic] != nil, slices.Contains(o.GroupsOf(topic), group))
		}
	}
	require.EqualValues(t, len(m.resets), o.pending.Load())
}

// The version of the table moves every 500 commits, and only commits that change something are saved.
func TestOffsetsVersion(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	g, topic := []byte("g"), []byte("T")
	for i := range int64(499) {
		m.Offsets.Commit(g, topic, 0, i)
	}
	require.Zero(t, m.Offsets.DataVersion().Counter)
	m.Offsets.Commit(g, topic, 0, 499)
	require.EqualValues(t, 1, m.Offsets.DataVersion().Counter)
	require.True(t, m.Offsets.saver.dirty())
	require.NoError(t, m.flush())
	require.False(t, m.Offsets.saver.dirty())
	m.Offsets.Commit(g, topic, 0, 499)
	require.False(t, m.Offsets.saver.dirty())
}

// Numbers that no queue can have are dropped instead of making room for them.
func TestOffsetsBounds(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	g, topic := []byte("g"), []byte("T")
	for _, id := range []int32{-1, maxQueueID, 1 << 30} {
		m.Offsets.Commit(g, topic, id, 1)
		m.Offsets.Pulled(g, topic, id, 1)
		m.Offsets.Reset("g", "T", id, 1)
		_, ok := m.Offsets.Query(g, topic, id)
		require.False(t, ok)
	}
	m.Offsets.Commit(g, topic, 0, -5)
	require.Nil(t, m.Offsets.Offsets("g", "T"))
	m.Offsets.Commit(g, topic, maxQueueID-1, 5)
	require.Equal(t, map[int32]int64{maxQueueID - 1: 5}, m.Offsets.Offsets("g", "T"))
}

// A commit that was on its way when a reset came never undoes it, whoever is first.
func TestResetAgainstCommits(t *testing.T) {
	m, _ := testManagers(t, vfs.NewHeap(), "")
	g, topic := []byte("g"), []byte("T")
	for round := range 200 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			m.Offsets.Commit(g, topic, 0, 100)
			spawn(t, func() {
				for i := range int64(20) {
					m.Offsets.Commit(g, topic, 0, 1000+i)
				}
			})
			spawn(t, func() { m.Offsets.Reset("g", "T", 0, 7) })
		})
		require.Equal(t, map[int32]int64{0: 7}, m.Offsets.Offsets("g", "T"))
		to, ok := m.Offsets.TakeReset(g, topic, 0)
		require.True(t, ok)
		require.EqualValues(t, 7, to)
	}
}

// What the table costs where the commits of every pull go through it.
func BenchmarkOffsetCommit(b *testing.B) {
	m, _ := testManagers(b, vfs.NewHeap(), "")
	g, topic := []byte("group-of-consumers"), []byte("TopicOfOrders")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := int64(0); pb.Next(); n++ {
			m.Offsets.Commit(g, topic, int32(n)%16, n)
		}
	})
}

// Creating many topics one after the other, saved each time: what every new topic of a producer costs.
func BenchmarkTopicCreate(b *testing.B) {
	m, _ := testManagers(b, vfs.NewHeap(), "")
	for n := 0; b.Loop(); n++ {
		if _, err := m.Topics.CreateOnSend(b.Context(), fmt.Sprint("topic-", n), "TBW102", 4, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(m.Topics.Len()), "topics")
}
