package broker

import (
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
)

// shardMap is a table that is read at every message and changed seldom. Readers take no lock and
// allocate nothing: each shard is an immutable map behind an atomic pointer. A change copies one
// shard.
type shardMap[V any] struct {
	seed   maphash.Seed
	shards [256]shard[V]
	size   atomic.Int64
}

type shard[V any] struct {
	m  atomic.Pointer[map[string]V]
	mu sync.Mutex // changes of m
}

func newShardMap[V any]() *shardMap[V] { return &shardMap[V]{seed: maphash.MakeSeed()} }

// get finds the value of a key.
func (t *shardMap[V]) get(key string) (v V, ok bool) {
	if m := t.shards[maphash.String(t.seed, key)&0xff].m.Load(); m != nil {
		v, ok = (*m)[key]
	}
	return v, ok
}

// getBytes is get without a string.
func (t *shardMap[V]) getBytes(key []byte) (v V, ok bool) {
	if m := t.shards[maphash.Bytes(t.seed, key)&0xff].m.Load(); m != nil {
		v, ok = (*m)[string(key)]
	}
	return v, ok
}

// len is how many keys there are.
func (t *shardMap[V]) len() int { return int(t.size.Load()) }

// update calls f with the value of a key, and stores what it returns, or removes the key where keep is
// false. Updates of a key come one at a time; f must not block.
func (t *shardMap[V]) update(key string, f func(old V, ok bool) (v V, keep bool)) {
	s := &t.shards[maphash.String(t.seed, key)&0xff]
	s.mu.Lock()
	defer s.mu.Unlock()
	var now map[string]V
	if m := s.m.Load(); m != nil {
		now = *m
	}
	old, had := now[key]
	v, keep := f(old, had)
	if !had && !keep {
		return
	}
	next := make(map[string]V, len(now)+1)
	maps.Copy(next, now)
	if keep {
		next[key] = v
	} else {
		delete(next, key)
	}
	s.m.Store(&next)
	t.size.Add(int64(len(next) - len(now)))
}

// getOrMake finds the value of a key, or puts what f makes.
func (t *shardMap[V]) getOrMake(key string, f func() V) V {
	if v, ok := t.get(key); ok {
		return v
	}
	var out V
	t.update(key, func(old V, ok bool) (V, bool) {
		if out = old; !ok {
			out = f()
		}
		return out, true
	})
	return out
}

// remove takes a key out and says whether it was there.
func (t *shardMap[V]) remove(key string) (had bool) {
	t.update(key, func(v V, ok bool) (V, bool) { had = ok; return v, false })
	return had
}

// each calls f with every key that is there throughout, until f returns false.
func (t *shardMap[V]) each(f func(key string, v V) bool) {
	for i := range t.shards {
		if m := t.shards[i].m.Load(); m != nil {
			for k, v := range *m {
				if !f(k, v) {
					return
				}
			}
		}
	}
}
