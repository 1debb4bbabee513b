// Package watermark is the one way to wait for "position x has been reached".
package watermark

import (
	"context"
	"sync"
	"sync/atomic"
)

// Mark is a position that moves forwards and that others wait for. The zero value stands at 0 and
// is ready for use. It must not be copied. All methods are safe for concurrent use.
//
// Advancing costs one atomic write when nobody waits, and wakes exactly the waiters whose position
// has been reached, lowest first.
type Mark struct {
	pos     atomic.Int64
	waiting atomic.Int32 // length of the heap, readable without the lock
	failed  atomic.Pointer[failure]

	mu   sync.Mutex
	heap []*waiter // a binary heap, lowest position first
}

type failure struct{ err error }

// waiter is one sleeping Wait. index is its place in the heap, -1 once it has been taken out.
type waiter struct {
	pos   int64
	index int
	ready chan struct{} // capacity 1; one value is sent when the waiter leaves the heap
}

var waiters = sync.Pool{New: func() any { return &waiter{ready: make(chan struct{}, 1)} }}

// Load returns the position.
func (m *Mark) Load() int64 { return m.pos.Load() }

// Advance moves the mark to x. A position at or below the present one changes nothing.
func (m *Mark) Advance(x int64) {
	for {
		old := m.pos.Load()
		if x <= old {
			return
		}
		if m.pos.CompareAndSwap(old, x) {
			break
		}
	}
	// A waiter first counts itself and then looks at the position; we wrote the position first and
	// then look at the count. One of the two sees the other.
	if m.waiting.Load() == 0 {
		return
	}
	m.mu.Lock()
	m.wake()
	m.mu.Unlock()
}

// wake releases every waiter whose position has been reached. The lock is held.
func (m *Mark) wake() {
	pos := m.pos.Load()
	for len(m.heap) > 0 && m.heap[0].pos <= pos {
		w := m.heap[0]
		m.remove(0)
		w.ready <- struct{}{}
	}
}

// Rewind sets the mark back to x, for an owner that cuts off what lies behind it. A higher x is
// ignored. The owner sees to it that nobody advances at the same time.
func (m *Mark) Rewind(x int64) {
	for {
		old := m.pos.Load()
		if x >= old || m.pos.CompareAndSwap(old, x) {
			return
		}
	}
}

// Fail ends every Wait for a position that has not been reached, now and from now on, with err.
// Only the first error is kept. Positions reached before, and by later advances, stay reached.
func (m *Mark) Fail(err error) {
	if err == nil {
		panic("BUG: watermark failed without an error")
	}
	if !m.failed.CompareAndSwap(nil, &failure{err}) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.heap) > 0 {
		w := m.heap[0]
		m.remove(0)
		w.ready <- struct{}{}
	}
}

// Err returns the error given to [Mark.Fail], or nil.
func (m *Mark) Err() error {
	if f := m.failed.Load(); f != nil {
		return f.err
	}
	return nil
}

// Wait returns nil once the mark stands at x or beyond, the error of [Mark.Fail] if it will not,
// or ctx's error.
func (m *Mark) Wait(ctx context.Context, x int64) error {
	for {
		if m.pos.Load() >= x {
			return nil
		}
		if err := m.Err(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		w := waiters.Get().(*waiter)
		w.pos = x
		m.mu.Lock()
		m.push(w)
		if m.pos.Load() >= x || m.failed.Load() != nil {
			m.remove(w.index)
			m.mu.Unlock()
			waiters.Put(w)
			continue
		}
		m.mu.Unlock()

		select {
		case <-w.ready:
			waiters.Put(w)
			// Reached, failed, or (rarely) rewound since: look again.
		case <-ctx.Done():
			m.mu.Lock()
			if w.index >= 0 {
				m.remove(w.index)
			} else {
				<-w.ready // woken at the same moment
			}
			m.mu.Unlock()
			waiters.Put(w)
			if m.pos.Load() >= x {
				return nil
			}
			return ctx.Err()
		}
	}
}

// Waiters returns how many callers sleep in Wait.
func (m *Mark) Waiters() int { return int(m.waiting.Load()) }

func (m *Mark) push(w *waiter) {
	w.index = len(m.heap)
	m.heap = append(m.heap, w)
	m.waiting.Add(1)
	m.up(w.index)
}

func (m *Mark) remove(i int) {
	last := len(m.heap) - 1
	m.heap[i].index = -1
	if i != last {
		m.heap[i] = m.heap[last]
		m.heap[i].index = i
	}
	m.heap[last] = nil
	m.heap = m.heap[:last]
	m.waiting.Add(-1)
	if i != last {
		m.down(i)
		m.up(i)
	}
}

func (m *Mark) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if m.heap[parent].pos <= m.heap[i].pos {
			return
		}
		m.swap(i, parent)
		i = parent
	}
}

func (m *Mark) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			return
		}
		if r := child + 1; r < len(m.heap) && m.heap[r].pos < m.heap[child].pos {
			child = r
		}
		if m.heap[i].pos <= m.heap[child].pos {
			return
		}
		m.swap(i, child)
		i = child
	}
}

func (m *Mark) swap(i, j int) {
	m.heap[i], m.heap[j] = m.heap[j], m.heap[i]
	m.heap[i].index, m.heap[j].index = i, j
}
