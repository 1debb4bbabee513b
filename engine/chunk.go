package engine

import (
	"sync"
	"sync/atomic"
)

const (
	pageBytes  = 4096
	chunkBytes = 1 << 20
)

// chunk is a stretch of the log in memory: an append buffer first, then the hot tail for readers.
// Records never cross chunks. Bytes below filled never change, so they are read without a lock;
// whoever reads holds a reference.
type chunk struct {
	start  int64
	buf    []byte
	filled atomic.Int64 // bytes that belong to the log; grows under the append lock
	refs   atomic.Int32
	pool   *chunkPool
}

func (c *chunk) end() int64 { return c.start + c.filled.Load() }

func (c *chunk) acquire() bool {
	for {
		n := c.refs.Load()
		if n == 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool.put(c.buf)
	}
}

// chunkPool keeps buffers of the usual size for reuse. Memory that goes round stays in the
// processor's cache.
type chunkPool struct {
	size int
	mu   sync.Mutex
	free [][]byte
}

func (p *chunkPool) get(atLeast int) []byte {
	if atLeast > p.size {
		return make([]byte, atLeast)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return make([]byte, p.size)
}

func (p *chunkPool) put(b []byte) {
	if len(b) != p.size {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < 16 {
		p.free = append(p.free, b)
	}
}

// chunkList is the run of chunks in memory, oldest first. One changer at a time (the append lock);
// readers take a snapshot.
type chunkList struct {
	pool  chunkPool
	limit int64 // bytes kept beyond what is still needed
	list  atomic.Pointer[[]*chunk]
}

func newChunkList(size int, limit int64) *chunkList {
	l := &chunkList{pool: chunkPool{size: size}, limit: limit}
	l.list.Store(&[]*chunk{})
	return l
}

// add begins a chunk at start with room for atLeast bytes, and lets go of the oldest ones that
// end at or below done while more than the limit is kept.
func (l *chunkList) add(start int64, atLeast int, done int64) *chunk {
	c := &chunk{start: start, buf: l.pool.get(atLeast), pool: &l.pool}
	c.refs.Store(1)
	old := *l.list.Load()
	kept := int64(0)
	for _, o := range old {
		kept += int64(len(o.buf))
	}
	drop := 0
	for drop < len(old) && old[drop].end() <= done && kept > l.limit {
		kept -= int64(len(old[drop].buf))
		drop++
	}
	list := make([]*chunk, 0, len(old)-drop+1)
	list = append(append(list, old[drop:]...), c)
	l.list.Store(&list)
	for _, o := range old[:drop] {
		o.release()
	}
	return c
}

// clear lets go of all chunks.
func (l *chunkList) clear() {
	old := *l.list.Load()
	l.list.Store(&[]*chunk{})
	for _, c := range old {
		c.release()
	}
}

// find acquires the chunk that holds the byte at pos, or returns nil.
func (l *chunkList) find(pos int64) *chunk {
	list := *l.list.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if c := list[i]; c.start <= pos {
			if pos < c.end() && c.acquire() {
				return c
			}
			return nil
		}
	}
	return nil
}

func (l *chunkList) bytes() (n int64) {
	for _, c := range *l.list.Load() {
		n += int64(len(c.buf))
	}
	return n
}
